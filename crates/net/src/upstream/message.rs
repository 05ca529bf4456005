//! A request in the form its target's protocol wants, and what is kept of it to be sent once more. It never says whether it
//! may be.
use super::exchange::Outgoing;
use super::http1::Sending;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

pub(super) enum Message {
    /// What was written is what can be written again.
    Http1(Sending),
    Http2(Http2Message),
}

/// The library takes the request, and only sometimes gives it back.
pub(super) struct Http2Message {
    pub(super) request: Option<Box<Request<Outgoing>>>,
    copy: Option<Repeat>,
}

impl Message {
    /// `body` takes the place of the request's own.
    pub(super) fn of(request: crate::Request, body: Outgoing, is_http2: bool) -> Message {
        if is_http2 {
            Message::Http2(Http2Message { request: Some(Box::new(request.map(|_| body))), copy: None })
        } else {
            Message::Http1(Sending::of(&request, body))
        }
    }

    /// For a request without a body that may have to be sent again.
    pub(super) fn keep_copy(&mut self) {
        if let Message::Http2(message) = self
            && message.copy.is_none()
        {
            message.copy = message.request.as_deref().map(Repeat::of);
        }
    }

    /// From its beginning. Only for what was never sent, or after [`Message::keep_copy`].
    pub(super) fn rewind(&mut self) {
        match self {
            Message::Http1(sending) => sending.rewind(),
            Message::Http2(message) => {
                if message.request.is_none() {
                    message.request = message.copy.take().map(|copy| Box::new(copy.into_request()));
                }
            }
        }
    }
}

/// A request without body, to be sent once more. Nearly all are made for nothing, so the fields are one text and no map.
struct Repeat {
    method: Method,
    uri: Uri,
    version: Version,
    /// `name LF value LF` for each field: neither can hold a line feed.
    fields: Vec<u8>,
}

impl Repeat {
    fn of(request: &Request<Outgoing>) -> Repeat {
        let lengths = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 2);
        let mut fields = Vec::with_capacity(lengths.sum());
        for (name, value) in request.headers() {
            for part in [name.as_str().as_bytes(), b"\n", value.as_bytes(), b"\n"] {
                fields.extend_from_slice(part);
            }
        }
        Repeat { method: request.method().clone(), uri: request.uri().clone(), version: request.version(), fields }
    }

    fn into_request(self) -> Request<Outgoing> {
        let mut request = Request::new(Outgoing::nothing());
        let mut parts = self.fields.split(|byte| *byte == b'\n');
        while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                request.headers_mut().append(name, value);
            }
        }
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        request
    }
}
