//! Envoy's question as any bytes. What is read out of them is one request that a rule can judge; no socket, no decision.
use bytes::Bytes;
use wire::ext_authz::{Check, message};

/// First a whole frame, then the message alone: whatever is accepted names a plain target and no pseudo-field, and a frame
/// holds exactly its message.
pub fn ext_authz(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Ok(inner) = message(&bytes) {
        assert_eq!(inner.len() + 5, bytes.len(), "bytes around the message");
        check(&inner);
    }
    check(&bytes);
}

fn check(message: &Bytes) {
    let Ok(check) = Check::parse(message) else { return };
    let target = check.question.target.path_and_query().map_or("", |target| target.as_str());
    assert!(target.starts_with('/') && !target.contains(['#', ' ', '"']), "`{target}` is no plain target");
    assert!(!check.question.host.is_empty() && !check.question.host.ends_with('.'));
    assert!(check.headers.keys().all(|name| !name.as_str().starts_with(':')), "a pseudo-field among the fields");
}
