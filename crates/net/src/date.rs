//! The `Date` field of our answers (RFC 9110 §6.6.1), written once a second and not once an answer.
use std::cell::RefCell;
use std::time::SystemTime;

thread_local! {
    /// The whole line, as of the worker's last tick.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Called by the worker's clock.
pub(crate) fn refresh(now: SystemTime) {
    LINE.with_borrow_mut(|line| {
        line.clear();
        line.push_str("date: ");
        line.push_str(&httpdate::fmt_http_date(now));
        line.push_str("\r\n");
    });
}

pub(crate) fn write(out: &mut Vec<u8>) {
    if LINE.with_borrow(String::is_empty) {
        refresh(SystemTime::now());
    }
    LINE.with_borrow(|line| out.extend_from_slice(line.as_bytes()));
}
