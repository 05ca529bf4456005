//! Fields whose value is a list of which a part is ours: `Connection`, `TE`, `Cookie`, `Set-Cookie`, `tracestate`.
//! What is not ours stays byte for byte.
use http::{HeaderMap, HeaderName, HeaderValue, header};

const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const SESSION_COOKIES: [&[u8]; 2] = [b"__Host-Http-cs", b"__Host-cs"];

/// The field names that `Connection` nominates, or an element that is no field name. `close` and `keep-alive` are options
/// of the connection; a field `Keep-Alive` is hop-by-hop by itself.
pub(super) fn nominated(headers: &HeaderMap) -> impl Iterator<Item = Result<HeaderName, String>> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| {
            !element.is_empty()
                && !element.eq_ignore_ascii_case(b"close")
                && !element.eq_ignore_ascii_case(b"keep-alive")
        })
        .map(|element| HeaderName::from_bytes(element).map_err(|_| String::from_utf8_lossy(element).into_owned()))
}

/// `TE: trailers` is what gRPC needs end to end; every other coding is between us and the client.
pub(super) fn keep_te_trailers(headers: &mut HeaderMap) {
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    } else {
        headers.remove(header::TE);
    }
}

pub(super) fn drop_session_cookies(headers: &mut HeaderMap) {
    let several = headers.get_all(header::COOKIE).iter().nth(1).is_some();
    let ours = headers.get_all(header::COOKIE).iter().any(|line| crumbs(line).any(is_session_cookie));
    if several || ours {
        let kept = headers.get_all(header::COOKIE).iter().flat_map(crumbs).filter(|crumb| !is_session_cookie(crumb));
        replace(headers, header::COOKIE, joined(kept, b"; "));
    }
}

pub(super) fn drop_our_tracestate(headers: &mut HeaderMap) {
    let members = |value| split_trimmed(value, b',');
    let ours = |member: &[u8]| {
        let key = member.split(|byte| *byte == b'=').next().unwrap_or_default();
        key.trim_ascii().eq_ignore_ascii_case(b"cs")
    };
    if headers.get_all(TRACESTATE).iter().flat_map(members).any(ours) {
        let kept = headers.get_all(TRACESTATE).iter().flat_map(members).filter(|member| !ours(member));
        replace(headers, TRACESTATE, joined(kept, b","));
    }
}

/// An upstream must not be able to plant a session.
pub(super) fn drop_set_session_cookies(headers: &mut HeaderMap) {
    let ours = |value: &&HeaderValue| is_session_cookie(value.as_bytes().trim_ascii_start());
    if !headers.get_all(header::SET_COOKIE).iter().any(|value| ours(&value)) {
        return;
    }
    let kept: Vec<HeaderValue> =
        headers.get_all(header::SET_COOKIE).iter().filter(|value| !ours(value)).cloned().collect();
    headers.remove(header::SET_COOKIE);
    for value in kept {
        headers.append(header::SET_COOKIE, value);
    }
}

fn crumbs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    split_trimmed(line, b';')
}

fn split_trimmed(value: &HeaderValue, separator: u8) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(move |byte| *byte == separator).map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// By name and without regard to case: a name that differs in case only is no honest cookie.
fn is_session_cookie(crumb: &[u8]) -> bool {
    let name = crumb.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
    SESSION_COOKIES.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

fn joined<'a>(elements: impl Iterator<Item = &'a [u8]>, separator: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for element in elements {
        if !out.is_empty() {
            out.extend_from_slice(separator);
        }
        out.extend_from_slice(element);
    }
    out
}

/// Puts one line in the place of all; none if `value` is empty.
fn replace(headers: &mut HeaderMap, name: HeaderName, value: Vec<u8>) {
    match HeaderValue::try_from(value) {
        Ok(value) if !value.is_empty() => {
            headers.insert(name, value);
        }
        _ => {
            headers.remove(name);
        }
    }
}
