//! Watches the frame headers of an HTTP/2 connection and says when a client sends more frames that only cost us than any
//! honest one does. Pure, and no parser of HTTP/2: it reads nine bytes per frame and leaves the rest to the HTTP library.

/// Frames that only cost us: SETTINGS, PING, PRIORITY, empty DATA and header frames. Requests and data earn room for more,
/// because honest clients measure the path with pings while data flows.
const IDLE_FRAMES_BURST: u64 = 1_000;
const IDLE_FRAMES_PER_S: u64 = 100;
/// Streams a client opens and takes back. Browsers and gRPC cancel, but not thousands of times.
const RESETS_BURST: u64 = 1_000;
const RESETS_PER_S: u64 = 200;
/// A header block of 32 KiB fits in three frames of the smallest allowed size.
const CONTINUATIONS_MAX: u32 = 32;

const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const FLAG_END_STREAM: u8 = 1;

/// A bucket that refills with time.
#[derive(Debug)]
struct Budget {
    left: u64,
    burst: u64,
    per_s: u64,
    refilled_ms: u64,
}

impl Budget {
    fn new(burst: u64, per_s: u64) -> Budget {
        Budget { left: burst, burst, per_s, refilled_ms: 0 }
    }
    fn take(&mut self, now_ms: u64) -> bool {
        let earned = now_ms.saturating_sub(self.refilled_ms).saturating_mul(self.per_s) / 1_000;
        if earned > 0 {
            self.left = self.burst.min(self.left.saturating_add(earned));
            self.refilled_ms = now_ms;
        }
        let within = self.left > 0;
        self.left = self.left.saturating_sub(1);
        within
    }
    fn earn(&mut self) {
        self.left = self.burst.min(self.left + 1);
    }
}

/// Follows one connection's frames.
#[derive(Debug)]
pub struct FrameMeter {
    preface_left: usize,
    head: [u8; FRAME_HEAD_BYTES],
    head_filled: usize,
    payload_left: usize,
    continuations: u32,
    idle_frames: Budget,
    resets: Budget,
}

impl Default for FrameMeter {
    fn default() -> Self {
        FrameMeter::new()
    }
}

impl FrameMeter {
    pub fn new() -> FrameMeter {
        FrameMeter {
            preface_left: PREFACE_BYTES,
            head: [0; FRAME_HEAD_BYTES],
            head_filled: 0,
            payload_left: 0,
            continuations: 0,
            idle_frames: Budget::new(IDLE_FRAMES_BURST, IDLE_FRAMES_PER_S),
            resets: Budget::new(RESETS_BURST, RESETS_PER_S),
        }
    }

    /// `Err` names the flood. How the bytes are split changes nothing.
    pub fn feed(&mut self, mut bytes: &[u8], now_ms: u64) -> Result<(), &'static str> {
        let preface = self.preface_left.min(bytes.len());
        self.preface_left -= preface;
        bytes = bytes.get(preface..).unwrap_or_default();
        while !bytes.is_empty() {
            let payload = self.payload_left.min(bytes.len());
            self.payload_left -= payload;
            bytes = bytes.get(payload..).unwrap_or_default();
            if self.payload_left > 0 || bytes.is_empty() {
                return Ok(());
            }
            let take = (FRAME_HEAD_BYTES - self.head_filled).min(bytes.len());
            let (part, rest) = bytes.split_at_checked(take).unwrap_or((bytes, &[]));
            for (slot, &byte) in self.head.iter_mut().skip(self.head_filled).zip(part) {
                *slot = byte;
            }
            self.head_filled += take;
            bytes = rest;
            if self.head_filled == FRAME_HEAD_BYTES {
                self.head_filled = 0;
                self.frame(now_ms)?;
            }
        }
        Ok(())
    }

    fn frame(&mut self, now_ms: u64) -> Result<(), &'static str> {
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.payload_left = length;
        if kind == CONTINUATION {
            self.continuations += 1;
        } else {
            self.continuations = 0;
        }
        if self.continuations > CONTINUATIONS_MAX {
            return Err("CONTINUATION flood");
        }
        let idle = match kind {
            RST_STREAM if !self.resets.take(now_ms) => return Err("reset flood"),
            SETTINGS => Some("SETTINGS flood"),
            PING => Some("PING flood"),
            PRIORITY => Some("PRIORITY flood"),
            DATA if length == 0 && flags & FLAG_END_STREAM == 0 => Some("empty DATA flood"),
            HEADERS | CONTINUATION if length == 0 => Some("empty HEADERS flood"),
            DATA | HEADERS => {
                self.idle_frames.earn();
                None
            }
            _ => None,
        };
        match idle {
            Some(flood) if !self.idle_frames.take(now_ms) => Err(flood),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
