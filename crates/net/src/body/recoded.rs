//! A body in another form, frame by frame as it passes. It never gathers one.
use super::{Body, BodyError};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Gives the bytes of a body another form as they pass, frame by frame.
pub trait Recode: Send {
    fn data(&mut self, bytes: Bytes) -> Result<Bytes, BodyError>;
    /// At the end, with the trailers that came: the last bytes, and the trailers that go on.
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError>;
}

/// `of` in another form.
pub(super) struct Recoded {
    pub(super) of: Body,
    pub(super) by: Box<dyn Recode>,
    /// What goes out after the last bytes.
    pub(super) trailers: Option<HeaderMap>,
    pub(super) at_end: bool,
}

impl Recoded {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.at_end {
                return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
            }
            let trailers = match ready!(Pin::new(&mut self.of).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    // A frame of nothing would wake the reader for nothing.
                    Ok(data) => match self.by.data(data) {
                        Ok(data) if data.is_empty() => continue,
                        data => return Poll::Ready(Some(data.map(Frame::data))),
                    },
                    Err(frame) => frame.into_trailers().ok(),
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => None,
            };
            self.at_end = true;
            match self.by.end(trailers) {
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok((data, trailers)) => {
                    self.trailers = trailers;
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
            }
        }
    }
}
