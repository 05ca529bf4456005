//! Client keys in every form of PEM, and their assertions as another library reads them.
use super::*;
use crate::jwk::made::Signer;
use jsonwebtoken::{DecodingKey, Validation};

const NOW: i64 = 1_800_000_000;

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn key(pem: &str, algorithm: Option<Algorithm>, naming: Naming<'_>) -> Result<ClientKey, ClientKeyError> {
    ClientKey::from_pem(pem, algorithm, Algorithm::Rs256, naming)
}

fn certificate(signer: &Signer) -> String {
    let algorithm = match signer.algorithm {
        Algorithm::Es256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        _ => &rcgen::PKCS_RSA_SHA256,
    };
    let der = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&signer.pkcs8().into(), algorithm).unwrap();
    rcgen::CertificateParams::new(vec!["countersign.example".to_owned()]).unwrap().self_signed(&der).unwrap().pem()
}

/// Header and claims, once another library found the signature good.
fn read(assertion: &str, signer: &Signer, algorithm: jsonwebtoken::Algorithm) -> (Value, Value) {
    let jwk = serde_json::from_value(signer.jwk("k")).unwrap();
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&["https://id.example/token"]);
    validation.validate_exp = false;
    let read = jsonwebtoken::decode::<Value>(assertion, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).unwrap();
    (serde_json::to_value(read.header).unwrap(), read.claims)
}

#[test]
fn every_form_of_a_key_signs_what_another_library_accepts() {
    use jsonwebtoken::Algorithm as Theirs;
    let (ec, rsa) = (Signer::new(Algorithm::Es256), Signer::new(Algorithm::Rs256));
    let (ec_der, rsa_der) = (ec.pkcs8(), rsa.pkcs8());
    // PKCS#8 wraps the key in 26 bytes (RSA of 2048 bits, RFC 5958 §2); an RFC 5915 key begins at its own SEQUENCE.
    let sec1 =
        ec_der.windows(4).position(|part| part[0] == 0x30 && part[2..] == [0x02, 0x01] && part[1] > 0x60).unwrap();
    let parameters = pem("EC PARAMETERS", &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]);
    for (text, signer, wanted, theirs) in [
        (pem("PRIVATE KEY", &ec_der), &ec, None, Theirs::ES256),
        (pem("PRIVATE KEY", &ec_der), &ec, Some(Algorithm::Es256), Theirs::ES256),
        (parameters + &pem("EC PRIVATE KEY", &ec_der[sec1..]), &ec, None, Theirs::ES256),
        (pem("PRIVATE KEY", &rsa_der), &rsa, None, Theirs::RS256),
        (pem("PRIVATE KEY", &rsa_der), &rsa, Some(Algorithm::Ps256), Theirs::PS256),
        (pem("RSA PRIVATE KEY", &rsa_der[26..]), &rsa, Some(Algorithm::Rs256), Theirs::RS256),
        (pem("PRIVATE KEY", &rsa_der).replace('\n', "\r\n") + &certificate(&rsa), &rsa, None, Theirs::RS256),
    ] {
        let key = key(&text, wanted, Naming::default()).unwrap();
        let assertion = key.assertion("us", "https://id.example/token", NOW, Uuid::from_u128(7)).unwrap();
        let (header, claims) = read(&assertion, signer, theirs);
        assert_eq!(header, json!({ "typ": "JWT", "alg": format!("{theirs:?}") }));
        let expected = json!({
            "iss": "us", "sub": "us", "aud": "https://id.example/token",
            "jti": "00000000-0000-0000-0000-000000000007", "iat": NOW - 30, "nbf": NOW - 30, "exp": NOW + 120,
        });
        assert_eq!(claims, expected);
    }
}

#[test]
fn a_certificate_and_a_key_id_name_the_key() {
    for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
        let (signer, other) = (Signer::new(algorithm), Signer::new(algorithm));
        let (text, certificate) = (pem("PRIVATE KEY", &signer.pkcs8()), certificate(&signer));
        let naming = Naming { key_id: Some("2026-11"), certificate: Some(&certificate) };
        let key_of = |text: &str| key(text, None, naming);
        let assertion = key_of(&text).unwrap().assertion("us", "x", NOW, Uuid::nil()).unwrap();
        let header: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(assertion.split('.').next().unwrap()).unwrap()).unwrap();
        let der = block(&certificate, "CERTIFICATE").unwrap();
        let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, &der));
        assert_eq!((&header["kid"], &header["x5t#S256"]), (&"2026-11".into(), &thumbprint.into()));
        let foreign = key_of(&pem("PRIVATE KEY", &other.pkcs8())).err();
        assert_eq!(foreign, Some(ClientKeyError::ForeignCertificate));
        let none = Naming { key_id: None, certificate: Some(&text) };
        assert_eq!(key(&text, None, none).err(), Some(ClientKeyError::NoCertificate));
    }
}

#[test]
fn what_is_no_usable_key_is_named() {
    let check = |text: &str, algorithm: Option<Algorithm>, expected: ClientKeyError| {
        assert_eq!(key(text, algorithm, Naming::default()).err(), Some(expected), "{expected}");
    };
    check("", None, ClientKeyError::NoKey);
    check("secret", None, ClientKeyError::NoKey);
    check(&certificate(&Signer::new(Algorithm::Es256)), None, ClientKeyError::NoKey);
    check(&pem("ENCRYPTED PRIVATE KEY", b"x"), None, ClientKeyError::Locked);
    let locked = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----";
    check(locked, None, ClientKeyError::Locked);
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"] {
        check(&pem(label, b"no DER"), None, ClientKeyError::Kind);
    }
    check(&pem("PRIVATE KEY", &Signer::new(Algorithm::Es384).pkcs8()), None, ClientKeyError::Kind);
    check(&pem("PRIVATE KEY", &Signer::new(Algorithm::EdDsa).pkcs8()), None, ClientKeyError::Kind);
    let (ec, rsa) = (Signer::new(Algorithm::Es256), Signer::new(Algorithm::Rs256));
    for wanted in [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es384] {
        check(&pem("PRIVATE KEY", &ec.pkcs8()), Some(wanted), ClientKeyError::Algorithm(wanted));
    }
    for wanted in [Algorithm::Es256, Algorithm::Rs512] {
        check(&pem("PRIVATE KEY", &rsa.pkcs8()), Some(wanted), ClientKeyError::Algorithm(wanted));
    }
}
