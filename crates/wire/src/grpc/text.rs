//! The base64 of gRPC-Web-Text, piece by piece. Clients may encode each message for itself, so padding can stand within the
//! stream: it ends a run of four characters, not the body. It never holds more than three characters.
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What came is no base64 (RFC 4648 §4, canonical).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is no base64")]
pub struct TextError;

/// From text to bytes.
#[derive(Debug, Default)]
pub struct TextDecoder {
    /// Of a run of four that is not whole yet.
    held: Vec<u8>,
}

impl TextDecoder {
    pub fn feed(&mut self, text: &[u8]) -> Result<Vec<u8>, TextError> {
        self.held.extend_from_slice(text);
        let whole = self.held.len() / 4 * 4;
        let mut out = Vec::with_capacity(whole / 4 * 3);
        let mut begin = 0;
        for end in (4..=whole).step_by(4) {
            let ends_a_text = self.held.get(end - 1) == Some(&b'=');
            if ends_a_text || end == whole {
                let text = self.held.get(begin..end).unwrap_or_default();
                STANDARD.decode_vec(text, &mut out).map_err(|_| TextError)?;
                begin = end;
            }
        }
        self.held.drain(..whole);
        Ok(out)
    }

    /// A body may end only where a run ended.
    pub fn end(&self) -> Result<(), TextError> {
        if self.held.is_empty() { Ok(()) } else { Err(TextError) }
    }
}

/// From bytes to text. Each piece is padded for itself, so that a client can show it as soon as it comes.
pub fn text_encoded(bytes: &[u8]) -> Vec<u8> {
    STANDARD.encode(bytes).into_bytes()
}
