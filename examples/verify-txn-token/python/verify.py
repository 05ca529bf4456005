"""How a Python service checks a Txn-Token with joserfc. It trusts nothing but the edge's published keys.

`python verify.py JWKS_URL TRUST_DOMAIN < TOKEN` prints the claims.
"""
import json
import sys
import urllib.request

from joserfc import jwt
from joserfc.jwk import KeySet


def verify(token: str, jwks: dict, trust_domain: str) -> dict:
    verified = jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["ES256"])
    if verified.header.get("typ") != "txntoken+jwt":
        raise ValueError("not a Txn-Token")
    minter = {key["kid"]: key["cs_iss"] for key in jwks["keys"]}[verified.header["kid"]]
    jwt.JWTClaimsRegistry(
        leeway=5, iss={"essential": True, "value": minter}, aud={"essential": True, "value": trust_domain},
        exp={"essential": True}, sub={"essential": True},
    ).validate(verified.claims)
    return verified.claims


if __name__ == "__main__":
    url, trust_domain = sys.argv[1:]
    with urllib.request.urlopen(url, timeout=5) as answer:
        print(json.dumps(verify(sys.stdin.read().strip(), json.load(answer), trust_domain)))
