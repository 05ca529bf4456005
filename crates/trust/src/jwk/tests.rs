//! Key sets as issuers really publish them, and the ones nobody should.
use super::made::{Signer, b64, jwks};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

/// RFC 7638 §3.1, the example key and its thumbprint.
const RFC_7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbI\
SD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
const RFC_7638_THUMBPRINT: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

fn rfc_7638() -> Value {
    json!({"kty": "RSA", "n": RFC_7638_N, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})
}

fn ec() -> Value {
    Signer::new(Algorithm::Es256).jwk("good")
}

/// `key` with one member set, or taken away by `null`.
fn with(mut key: Value, name: &str, value: Value) -> Value {
    let members = key.as_object_mut().unwrap();
    match value {
        Value::Null => drop(members.remove(name)),
        value => drop(members.insert(name.to_owned(), value)),
    }
    key
}

/// A set of one good key and `odd`: the good one stays, and `odd` is left out because of `why`.
fn check_left_out(odd: Value, why: &'static str) {
    let kid = odd.get("kid").and_then(Value::as_str).map(str::to_owned);
    let (set, left_out) = KeySet::parse(&jwks(&[with(ec(), "kid", json!("the good one")), odd.clone()])).unwrap();
    assert_eq!(left_out, [LeftOut { kid, why }], "{odd}");
    assert_eq!(set.len(), 1, "{odd}");
    assert_eq!(KeySet::parse(&jwks(&[odd])).unwrap_err(), KeySetError::NoneUsable(1));
}

fn check_taken(key: Value, algorithms: &[Algorithm]) {
    let (set, left_out) =
        KeySet::parse(&jwks(std::slice::from_ref(&key))).unwrap_or_else(|error| panic!("{key}: {error}"));
    assert_eq!(left_out, []);
    assert_eq!(set.keys()[0].algorithms(), algorithms, "{key}");
}

#[test]
fn the_thumbprint_is_rfc_7638s() {
    let (set, _) = KeySet::parse(&jwks(&[rfc_7638()])).unwrap();
    assert_eq!(set.keys()[0].thumbprint(), RFC_7638_THUMBPRINT);
    assert_eq!(set.keys()[0].kid(), Some("2011-04-29"));
    // A leading zero octet (RFC 7518 §6.3.1.1 warns of it) and members beyond the required ones change nothing.
    let n = [vec![0], base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, RFC_7638_N).unwrap()]
        .concat();
    let padded = with(with(rfc_7638(), "n", json!(b64(n))), "x5t", json!("abc"));
    assert_eq!(KeySet::parse(&jwks(&[padded])).unwrap().0.keys()[0].thumbprint(), RFC_7638_THUMBPRINT);
    // RFC 8037 §A.3.
    let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    assert_eq!(
        KeySet::parse(&jwks(&[ed])).unwrap().0.keys()[0].thumbprint(),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
}

#[test]
fn the_key_chooses_its_algorithms() {
    use Algorithm::*;
    check_taken(rfc_7638(), &[Rs256]);
    check_taken(with(rfc_7638(), "alg", Value::Null), &[Rs256, Rs384, Rs512, Ps256, Ps384, Ps512]);
    check_taken(with(rfc_7638(), "alg", json!("PS512")), &[Ps512]);
    for algorithm in [Es256, Es384, Es512, EdDsa] {
        let key = Signer::new(algorithm).jwk("k");
        check_taken(key.clone(), &[algorithm]);
        check_taken(with(key, "alg", json!(algorithm.name())), &[algorithm]);
    }
    check_taken(with(Signer::new(EdDsa).jwk("k"), "alg", json!("Ed25519")), &[EdDsa]);
    check_taken(with(with(ec(), "use", json!("sig")), "key_ops", json!(["verify"])), &[Es256]);
    check_taken(with(ec(), "kid", Value::Null), &[Es256]);
    check_taken(with(ec(), "x5c", json!(["MIIB"])), &[Es256]);
}

#[test]
fn names_go_there_and_back() {
    for algorithm in Algorithm::ALL {
        assert_eq!(Algorithm::from_name(algorithm.name()), Some(algorithm));
    }
    for name in ["none", "None", "HS256", "HS512", "es256", "ES256K", "ES256 ", "RS1", "", "Ed448", "ML-DSA-44"] {
        assert_eq!(Algorithm::from_name(name), None, "{name}");
    }
}

#[test]
fn api_45_one_odd_key_never_spoils_the_set() {
    let akp = json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA", "kid": "pq"});
    check_left_out(akp, "post-quantum keys (`AKP`) are not supported yet");
    check_left_out(with(ec(), "use", json!("enc")), "`use` is not `sig`");
    check_left_out(with(ec(), "crv", json!("secp256k1")), "unknown `crv`");
    check_left_out(with(ec(), "crv", json!("P-257")), "unknown `crv`");
    check_left_out(with(ec(), "crv", Value::Null), "`crv` is missing");
    check_left_out(json!({"kty": "OKP", "crv": "X25519", "x": "AAAA"}), "unknown `crv`");
    check_left_out(with(ec(), "kty", Value::Null), "`kty` is missing");
    check_left_out(with(ec(), "kty", json!("ec")), "unknown `kty`");
    check_left_out(with(ec(), "kty", json!(7)), "a member that must be text is not");
    check_left_out(with(ec(), "alg", json!("ECDH-ES")), "`alg` is no signature algorithm we accept");
    check_left_out(with(ec(), "alg", json!("none")), "`alg` is no signature algorithm we accept");
    check_left_out(with(rfc_7638(), "alg", json!("HS256")), "`alg` is no signature algorithm we accept");
    check_left_out(with(rfc_7638(), "alg", json!("ES256")), "`alg` does not fit the key's type");
    check_left_out(with(ec(), "alg", json!("ES384")), "`alg` does not fit the key's type");
    check_left_out(with(ec(), "key_ops", json!(["sign"])), "`key_ops` does not hold `verify`");
    check_left_out(with(ec(), "key_ops", json!("verify")), "`key_ops` does not hold `verify`");
    check_left_out(json!("a string"), "not a JSON object");
    check_left_out(json!(null), "not a JSON object");
    let long = with(ec(), "kid", json!("k".repeat(KID_BYTES_MAX + 1)));
    let (_, left_out) = KeySet::parse(&jwks(&[ec(), long])).unwrap();
    assert_eq!(left_out, [LeftOut { kid: Some("k".repeat(64)), why: "`kid` is too long" }]);
}

#[test]
fn private_and_symmetric_keys_are_left_out_and_named() {
    const WHY: &str = "private key members are published: the issuer must replace this key";
    check_left_out(with(ec(), "d", json!("AAAA")), WHY);
    for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        check_left_out(with(rfc_7638(), name, json!("AAAA")), WHY);
    }
    check_left_out(json!({"kty": "oct", "k": "AAAA", "kid": "h"}), "a symmetric key cannot be public");
}

#[test]
fn numbers_of_the_wrong_size_or_off_the_curve_are_left_out() {
    let zeros = |bytes: usize| json!(b64(vec![0; bytes]));
    check_left_out(with(ec(), "x", zeros(32)), "the point is not on the curve");
    check_left_out(with(ec(), "x", zeros(31)), "a coordinate has the wrong length");
    check_left_out(with(ec(), "y", zeros(33)), "a coordinate has the wrong length");
    check_left_out(with(ec(), "crv", json!("P-384")), "a coordinate has the wrong length");
    check_left_out(with(ec(), "y", Value::Null), "a member of the public key is missing");
    check_left_out(with(ec(), "y", json!("a+/=")), "a member of the public key is not base64url");
    check_left_out(json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), "a coordinate has the wrong length");

    const SIZE: &str = "the RSA modulus is not 2048 to 8192 bits long";
    const SHAPE: &str = "the RSA modulus or exponent is not acceptable";
    let modulus = |bytes: usize| json!(b64(vec![0xff; bytes]));
    check_left_out(with(rfc_7638(), "n", modulus(128)), SIZE);
    check_left_out(with(rfc_7638(), "n", modulus(255)), SIZE);
    check_left_out(with(rfc_7638(), "n", json!(b64([vec![0x7f], vec![0xff; 255]].concat()))), SIZE);
    check_left_out(with(rfc_7638(), "n", modulus(1025)), SIZE);
    check_left_out(with(rfc_7638(), "n", json!("")), SIZE);
    check_left_out(with(rfc_7638(), "n", json!(b64([vec![0xff; 255], vec![0xfe]].concat()))), SHAPE);
    for exponent in [vec![], vec![0], vec![1], vec![2], vec![1, 0], vec![1, 0, 0, 0, 1]] {
        check_left_out(with(rfc_7638(), "e", json!(b64(exponent))), SHAPE);
    }
    check_taken(with(rfc_7638(), "e", json!("Aw")), &[Algorithm::Rs256]);
}

/// A modulus with the structure of the flawed chips: 65537^a mod M, twice, M the product of the first primes. Only the
/// structure is made here, no key.
#[test]
fn a_roca_modulus_is_left_out() {
    // 65537^5 is its own remainder modulo every prime; padded by a multiple of all primes to 2048 bits and odd.
    let primes: [u64; 39] = [
        2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107,
        109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    let times = |number: &mut Vec<u8>, factor: u64, add: u64| {
        let mut carry = add;
        for byte in number.iter_mut() {
            let sum = u64::from(*byte) * factor + carry;
            (*byte, carry) = (sum as u8, sum >> 8);
        }
    };
    let mut modulus = vec![0_u8; 256];
    modulus[0] = 1;
    primes.iter().for_each(|prime| times(&mut modulus, *prime, 0));
    while modulus[255] < 0x80 {
        times(&mut modulus, 2, 0);
    }
    let product = modulus.clone();
    times(&mut modulus, 1, 65_537);
    let key = |mut little_endian: Vec<u8>| {
        little_endian.reverse();
        with(rfc_7638(), "n", json!(b64(little_endian)))
    };
    const WHY: &str = "the RSA key was made by a chip with the ROCA flaw (CVE-2017-15361): the issuer must replace it";
    check_left_out(key(modulus), WHY);
    // 65537 + 2 is no power of 65537 modulo all of them.
    let mut sound = product;
    times(&mut sound, 1, 65_539);
    check_taken(key(sound), &[Algorithm::Rs256]);
}

#[test]
fn api_45_a_doubled_kid_keeps_both_keys_and_a_repetition_one() {
    let (a, b) = (Signer::new(Algorithm::Es256), Signer::new(Algorithm::Es256));
    let (set, left_out) = KeySet::parse(&jwks(&[a.jwk("same"), ec(), b.jwk("same")])).unwrap();
    assert_eq!((set.len(), left_out.len()), (3, 0));
    let found: Vec<&str> = set.with_kid("same").map(|key| key.thumbprint()).collect();
    assert_eq!(found, [set.keys()[0].thumbprint(), set.keys()[2].thumbprint()]);

    let (set, left_out) = KeySet::parse(&jwks(&[a.jwk("same"), a.jwk("same")])).unwrap();
    assert_eq!(set.len(), 1);
    assert_eq!(left_out, [LeftOut { kid: Some("same".into()), why: "the same key stands twice" }]);

    // One RSA key published once per algorithm is two keys.
    let (set, _) = KeySet::parse(&jwks(&[rfc_7638(), with(rfc_7638(), "alg", json!("PS256"))])).unwrap();
    assert_eq!(set.with_kid("2011-04-29").count(), 2);
}

#[test]
fn keys_are_found_by_exact_kid() {
    let kids = ["b", "a", "ab", "", "B", "aa", "a "];
    let keys: Vec<Value> = kids.iter().map(|kid| Signer::new(Algorithm::Es256).jwk(kid)).collect();
    let (set, _) = KeySet::parse(&jwks(&[keys, vec![with(ec(), "kid", Value::Null)]].concat())).unwrap();
    for kid in kids {
        assert_eq!(set.with_kid(kid).map(|key| key.kid()).collect::<Vec<_>>(), [Some(kid)]);
    }
    assert_eq!(set.with_kid("c").count() + set.with_kid("a\0").count() + KeySet::default().with_kid("a").count(), 0);
}

#[test]
fn api_42_documents_that_are_no_key_set_are_refused_whole() {
    let check = |document: &[u8], expected| assert_eq!(KeySet::parse(document).unwrap_err(), expected);
    check(b"", KeySetError::Syntax);
    check(b"<!doctype html><title>502</title>", KeySetError::Syntax);
    check(b"{}", KeySetError::Syntax);
    check(b"{\"keys\":{}}", KeySetError::Syntax);
    check(b"{\"keys\":[],\"keys\":[]}", KeySetError::Syntax);
    check(b"{\"keys\":[{\"kty\":\"EC\",\"kty\":\"RSA\"}]}", KeySetError::Syntax);
    check(b"{\"keys\":[]}", KeySetError::NoneUsable(0));
    check(&jwks(&vec![json!({}); 100]), KeySetError::NoneUsable(100));
    check(&jwks(&vec![json!({}); 101]), KeySetError::TooMany(100));
    let long = [jwks(&[ec()]), vec![b' '; SET_BYTES_MAX]].concat();
    check(&long, KeySetError::TooLarge(SET_BYTES_MAX));
    assert!(KeySet::parse(&long[..SET_BYTES_MAX]).is_ok());
}

#[test]
fn a_check_is_for_one_algorithm_and_one_length() {
    for algorithm in Algorithm::ALL {
        let signer = Signer::new(algorithm);
        let key = VerifyingKey::from_jwk(signer.jwk("k").as_object().unwrap()).unwrap();
        let signature = signer.sign_as(algorithm, b"message");
        assert!(key.check(algorithm, b"message", &signature), "{algorithm:?}");
        assert!(!key.check(algorithm, b"messagf", &signature), "{algorithm:?}");
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(!key.check(other, b"message", &signature), "{algorithm:?} as {other:?}");
        }
        let longer = [signature.as_slice(), &[0]].concat();
        let padded = [&[0], signature.as_slice()].concat();
        let shorter = &signature[..signature.len() - 1];
        for wrong in [longer.as_slice(), padded.as_slice(), shorter, &[]] {
            assert!(!key.check(algorithm, b"message", wrong), "{algorithm:?} {}", wrong.len());
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_documents_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = KeySet::parse(&bytes);
    }

    #[test]
    fn arbitrary_members_never_panic(
        kty in "RSA|EC|OKP|AKP|oct|[a-z]{0,3}",
        crv in "P-256|P-384|P-521|Ed25519|X25519",
        numbers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 4),
    ) {
        let [x, y, n, e] = [0, 1, 2, 3].map(|at| b64(&numbers[at]));
        let _ = KeySet::parse(&jwks(&[json!({"kty": kty, "crv": crv, "x": x, "y": y, "n": n, "e": e})]));
    }
}
