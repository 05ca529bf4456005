//! Who is calling, may they, is it still true: every judgement of the product, as pure functions.
//!
//! Nothing here opens a socket or a file, reads a clock or draws randomness: time and random bytes are arguments.
//! Nothing here logs. A check returns a proof with private fields; the next step takes that proof by value.

pub mod client_key;
pub mod dpop;
pub mod issuer;
pub mod json;
pub mod jwk;
pub mod jws;
pub mod keys;
pub mod path;
pub mod policy;
pub mod principal;
pub mod reason;
pub mod spiffe;
pub mod svid;
pub mod token;
pub mod txn;
