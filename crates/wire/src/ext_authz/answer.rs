//! A `CheckResponse` written as one gRPC message. It never holds what Envoy should add to: every field is set, in the place
//! of what the client sent under that name.
use bytes::{BufMut, Bytes, BytesMut};

use super::FRAME_HEAD_BYTES;
use crate::protobuf::Writer;

/// `HeaderValueOption.append_action`: in the place of what is there.
const OVERWRITE: u8 = 2;
/// `google.rpc.Code.PERMISSION_DENIED`.
const PERMISSION_DENIED: u8 = 7;

/// What Envoy does with the request.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    Permit {
        /// Request fields to set.
        set: &'a [(&'a str, &'a [u8])],
        /// Request fields to take away.
        remove: &'a [&'a str],
        /// Fields to set on the answer that the client gets.
        answer: &'a [(&'a str, &'a [u8])],
    },
    /// The client gets this, and the request goes nowhere.
    Deny { status: u16, fields: &'a [(&'a str, &'a [u8])], body: &'a [u8] },
}

impl Answer<'_> {
    /// The frame to send.
    pub fn encode(&self) -> Bytes {
        let mut message = Writer::with_capacity(1024);
        message.0.put_bytes(0, FRAME_HEAD_BYTES);
        match self {
            Answer::Permit { set, remove, answer } => {
                // `google.rpc.Status` with code OK, which is the default and takes no bytes.
                message.bytes(1, &[]);
                message.bytes(3, &permit(set, remove, answer));
            }
            Answer::Deny { status, fields, body } => {
                message.bytes(1, &[tag(1, 0), PERMISSION_DENIED]);
                message.bytes(2, &deny(*status, fields, body));
            }
        }
        framed(message.0)
    }
}

/// `HealthCheckResponse { status: SERVING }`, as a frame.
pub fn health_serving() -> Bytes {
    const FRAME: [u8; 7] = [0, 0, 0, 0, 2, tag(1, 0), 1];
    Bytes::from_static(&FRAME)
}

/// `OkHttpResponse`.
fn permit(set: &[(&str, &[u8])], remove: &[&str], answer: &[(&str, &[u8])]) -> BytesMut {
    let mut ok = Writer::with_capacity(1024);
    set.iter().for_each(|(name, value)| ok.bytes(2, &option(name, value)));
    remove.iter().for_each(|name| ok.bytes(5, name.as_bytes()));
    answer.iter().for_each(|(name, value)| ok.bytes(6, &option(name, value)));
    ok.0
}

/// `DeniedHttpResponse`.
fn deny(status: u16, fields: &[(&str, &[u8])], body: &[u8]) -> BytesMut {
    let mut denied = Writer::with_capacity(512 + body.len());
    let mut code = Writer::with_capacity(4);
    code.number(1, u64::from(status));
    denied.bytes(1, &code.0);
    fields.iter().for_each(|(name, value)| denied.bytes(2, &option(name, value)));
    denied.bytes(3, body);
    denied.0
}

/// `HeaderValueOption { header: { key, value }, append_action: OVERWRITE_IF_EXISTS_OR_ADD }`.
fn option(name: &str, value: &[u8]) -> BytesMut {
    let mut header = Writer::with_capacity(name.len() + value.len() + 12);
    header.bytes(1, name.as_bytes());
    header.bytes(2, value);
    let mut option = Writer::with_capacity(header.0.len() + 12);
    option.bytes(1, &header.0);
    // `append: false`, which older Envoys look at, is what an absent one means.
    option.0.put_slice(&[tag(3, 0), OVERWRITE]);
    option.0
}

const fn tag(number: u8, wire: u8) -> u8 {
    number << 3 | wire
}

fn framed(mut message: BytesMut) -> Bytes {
    let length = u32::try_from(message.len() - FRAME_HEAD_BYTES).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(place) = message.get_mut(1..FRAME_HEAD_BYTES) {
        place.copy_from_slice(&length);
    }
    message.freeze()
}
