"""Makes keys, a certificate and tokens for the edge benchmark. `python prepare.py DIR COLD_TOKENS`.

Files in DIR: edge.pem, edge.key, edge-both.pem (self-signed P-256), issuer-public.pem, jwks.json, one.token, cold.tokens
and services/full.yaml with thirty rules, of which the token's person fits the sixteenth.
"""
import base64
import datetime
import ipaddress
import json
import sys
import time
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

RULES, MATCHED = 30, 15


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).add_extension(names, critical=False)
    builder = builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=2))
    chain = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    for file, content in [("edge.pem", chain), ("edge.key", pem(key)), ("edge-both.pem", chain + pem(key))]:
        (folder / file).write_bytes(content)
        (folder / file).chmod(0o600)


def tokens(folder: Path, cold: int) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key()
    spki = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "issuer-public.pem").write_bytes(spki)
    point = public.public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "kid": "bench-1", "alg": "ES256", "use": "sig",
           "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}
    (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    header = b64(json.dumps({"typ": "at+jwt", "alg": "ES256", "kid": "bench-1"}).encode())
    now = int(time.time())

    def token(number: int) -> str:
        claims = {"iss": "https://issuer.bench.example", "aud": "bench", "sub": f"person-{number}", "client_id": "load",
                  "iat": now - 5, "exp": now + 7200, "jti": f"token-{number}", "groups": ["staff", f"group-{MATCHED}"]}
        signed = f"{header}.{b64(json.dumps(claims).encode())}"
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    (folder / "one.token").write_text(token(0))
    with (folder / "cold.tokens").open("w") as file:
        file.writelines(f"{token(number)}\n" for number in range(1, cold + 1))


def rules(folder: Path) -> None:
    lines = ["service: full", "upstream: http://127.0.0.1:19080", 'expose: { host: "*", path: /** }', "rules:"]
    lines += [f"  - {{ name: rule {n}, who: 'group:group-{n}', can: GET /area-{n}/** }}" for n in range(RULES)]
    (folder / "services").mkdir(exist_ok=True)
    (folder / "services/full.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    certificate(target)
    tokens(target, int(sys.argv[2]))
    rules(target)
