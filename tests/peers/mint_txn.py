"""Mints Txn-Tokens, one good and the rest each with one fault, for the examples in `examples/verify-txn-token`.

Prints {"jwks", "trust_domain", "cases": [{"name", "token", "accepted"}], "issuer_jwks", "access_token"}; the last two are an
issuer's, for a request through the real edge. The keys live as long as this program.
"""
import json
import time

from joserfc import jwk, jws, jwt

DOMAIN = "acme.example"
EDGE = f"spiffe://{DOMAIN}/countersign/edge/a"
OTHER_EDGE = f"spiffe://{DOMAIN}/countersign/edge/b"


def key(owner: str) -> tuple[jwk.ECKey, dict]:
    private = jwk.ECKey.generate_key("P-256", private=True)
    kid = private.thumbprint()
    now = int(time.time())
    extra = {"kid": kid, "alg": "ES256", "key_ops": ["verify"], "cs_iss": owner, "cs_nbf": now, "cs_exp": now + 86400}
    return private, {**private.as_dict(private=False), **extra}


def claims(**changed) -> dict:
    now = int(time.time())
    usual = {"iss": EDGE, "aud": DOMAIN, "iat": now, "exp": now + 60, "txn": "01980000-0000-7000-8000-000000000001",
             "sub": "demo|ana", "scope": "orders.read", "req_wl": EDGE, "tctx": {"rt": "orders:GET /orders/**", "g": ["support"]}}
    return {name: value for name, value in {**usual, **changed}.items() if value is not None}


def access() -> dict:
    signer = jwk.ECKey.generate_key("P-256", private=True)
    public = {**signer.as_dict(private=False), "kid": "issuer-1", "alg": "ES256", "use": "sig"}
    now = int(time.time())
    body = {"iss": "https://issuer.example", "aud": "acme", "sub": "ana", "client_id": "demo", "iat": now, "exp": now + 300,
            "jti": "1", "groups": ["support"], "scope": "orders.read"}
    token = jwt.encode({"typ": "at+jwt", "alg": "ES256", "kid": "issuer-1"}, body, signer)
    return {"issuer_jwks": {"keys": [public]}, "access_token": token}


def main() -> None:
    (signer, published), (_, other) = key(EDGE), key(OTHER_EDGE)
    stranger, _ = key(EDGE)
    kid = published["kid"]

    def mint(body: dict, header: dict | None = None, with_key: jwk.ECKey = signer) -> str:
        return jwt.encode({"typ": "txntoken+jwt", "alg": "ES256", "kid": kid, **(header or {})}, body, with_key)

    good = mint(claims())
    head, body, signature = good.split(".")
    changed = jws.serialize_compact({"alg": "ES256"}, json.dumps(claims(sub="demo|bo")), signer).split(".")[1]
    past = int(time.time()) - 60
    cases = [
        ("good", good, True),
        ("changed claims", f"{head}.{changed}.{signature}", False),
        ("no signature", f"{head}.{body}.", False),
        ("an access token of the same key", mint(claims(), {"typ": "at+jwt"}), False),
        ("another trust domain", mint(claims(aud="other.example")), False),
        ("no audience", mint(claims(aud=None)), False),
        ("expired", mint(claims(iat=past - 60, exp=past)), False),
        ("no expiry", mint(claims(exp=None)), False),
        ("another edge's name", mint(claims(iss=OTHER_EDGE)), False),
        ("no minter", mint(claims(iss=None)), False),
        ("an unpublished key", mint(claims(), with_key=stranger), False),
        ("an unknown kid", mint(claims(), {"kid": "nobody"}), False),
        ("another edge's kid", mint(claims(), {"kid": other["kid"]}), False),
    ]
    listed = [{"name": name, "token": token, "accepted": accepted} for name, token, accepted in cases]
    print(json.dumps({"jwks": {"seq": 1, "keys": [published, other]}, "trust_domain": DOMAIN, "cases": listed, **access()}))


if __name__ == "__main__":
    main()
