"""Makes keys, certificates, tokens and a gRPC message for the edge benchmark. `python prepare.py DIR COLD_TOKENS`.

Files in DIR: ca.pem; edge.pem, edge.key, edge-both.pem (P-256, by that CA); issuer-public.pem, jwks.json, one.token,
cold.tokens; grpc/bench.Echo/Say.grpc and grpc.types for the gRPC origin; and services/full.yaml with thirty rules, of which
the token's person fits the sixteenth.
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


def certificates(folder: Path) -> None:
    """A CA, and one leaf for everybody: the proxies show it to clients and to the upstream, the upstream to the proxies."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def named(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        subject, issuer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in (subject, issuer))
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=2))

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    is_ca = x509.BasicConstraints(ca=True, path_length=0)
    ca = named("bench CA", "bench CA", ca_key).add_extension(is_ca, critical=True).sign(ca_key, hashes.SHA256())
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = named("localhost", "bench CA", key).add_extension(names, critical=False).sign(ca_key, hashes.SHA256())
    ca, leaf = (certificate.public_bytes(serialization.Encoding.PEM) for certificate in (ca, leaf))
    files = [("ca.pem", ca), ("edge.pem", leaf), ("edge.key", pem(key)), ("edge-both.pem", leaf + pem(key))]
    for file, content in files:
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


def grpc_message(folder: Path) -> None:
    """One message of 64 bytes in its frame (no compression, four bytes of length): what is sent is what comes back."""
    (folder / "grpc/bench.Echo").mkdir(parents=True)
    (folder / "grpc/bench.Echo/Say.grpc").write_bytes(b"\0" + (64).to_bytes(4, "big") + b"m" * 64)
    (folder / "grpc.types").write_text("application/grpc grpc\n")


def rules(folder: Path) -> None:
    lines = ["service: full", "upstream: http://127.0.0.1:19080", 'expose: { host: "*", path: /** }', "rules:"]
    lines += [f"  - {{ name: rule {n}, who: 'group:group-{n}', can: GET /area-{n}/** }}" for n in range(RULES)]
    (folder / "services").mkdir(exist_ok=True)
    (folder / "services/full.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    target = Path(sys.argv[1])
    certificates(target)
    tokens(target, int(sys.argv[2]))
    grpc_message(target)
    rules(target)
