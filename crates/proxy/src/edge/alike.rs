//! What the requests of one connection nearly always say alike: their host, and the caller they are from. It is read, and the
//! forwarding fields are made of it, once per connection; a request that says something else is read for itself.

use std::ops::Deref;

use http::header::HOST;
use net::{Connection, Request};
use wire::identity::{FieldError, Forwarded};

use crate::judge::Client;

pub(super) struct Alike {
    /// `Host` as it came; `None` where the target alone named it. A copy: the field's value is a part of the buffer that the
    /// whole head was read into, and would keep all of it.
    said: Option<Box<[u8]>>,
    client: Client,
    /// What [`wire::identity::request_host`] made of it.
    pub(super) host: String,
    pub(super) forwarded: Forwarded,
}

/// As the connection keeps it, or of this request alone.
pub(super) enum Read<'c> {
    Kept(&'c Alike),
    Own(Box<Alike>),
}

impl Deref for Read<'_> {
    type Target = Alike;

    fn deref(&self) -> &Alike {
        match self {
            Read::Kept(alike) => alike,
            Read::Own(alike) => alike,
        }
    }
}

pub(super) fn read<'c>(request: &Request, client: Client, connection: &'c Connection) -> Result<Read<'c>, FieldError> {
    let kept = || connection.kept.get().and_then(|kept| kept.downcast_ref::<Alike>());
    if let Some(kept) = kept().filter(|kept| kept.is_said_by(request, client)) {
        return Ok(Read::Kept(kept));
    }
    let host = wire::identity::request_host(request.uri(), request.headers())?;
    let forwarded = Forwarded::new(client.ip, client.scheme(), &host);
    let alike = Box::new(Alike {
        said: request.headers().get(HOST).map(|value| value.as_bytes().into()),
        client,
        host,
        forwarded,
    });
    // The first request's is kept: what differs from it is rare, and comes and goes.
    if connection.kept.get().is_some() {
        return Ok(Read::Own(alike));
    }
    // On one connection requests come from several tasks: another may have been first.
    match connection.kept.set(alike).map_err(|alike| alike.downcast::<Alike>()) {
        Err(Ok(alike)) => Ok(Read::Own(alike)),
        _ => kept().map(Read::Kept).ok_or(FieldError::HostMissing),
    }
}

impl Alike {
    /// Everything that [`wire::identity::request_host`] reads is the same, byte for byte.
    fn is_said_by(&self, request: &Request, client: Client) -> bool {
        let Some(said) = &self.said else { return false };
        let mut fields = request.headers().iter().filter(|(name, _)| *name == HOST).map(|(_, value)| value);
        let same = |bytes: &[u8]| *bytes == **said;
        let alone = fields.next().is_some_and(|value| same(value.as_bytes())) && fields.next().is_none();
        alone
            && self.client == client
            && request.uri().authority().is_none_or(|target| same(target.as_str().as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, Uri};
    use net::Body;
    use std::net::IpAddr;

    fn client(ip: &str) -> Client {
        Client { ip: ip.parse::<IpAddr>().unwrap(), https: false, certificate: None }
    }

    fn request(target: &str, hosts: &[&str]) -> Request {
        let mut request = Box::new(http::Request::new(Body::empty()));
        *request.uri_mut() = target.parse::<Uri>().unwrap();
        hosts.iter().for_each(|host| _ = request.headers_mut().append(HOST, HeaderValue::from_str(host).unwrap()));
        request
    }

    #[test]
    fn a_request_that_says_something_else_is_read_for_itself() {
        let address = std::net::SocketAddr::from(([192, 0, 2, 7], 1));
        let connection = Connection { id: 1, local: address, remote: address, tls: None, kept: Default::default() };
        let check = |target: &str, hosts: &[&str], ip: &str, expected: Result<(&str, bool), FieldError>| {
            let read = read(&request(target, hosts), client(ip), &connection);
            let kept = |read: &Read<'_>| matches!(read, Read::Kept(_));
            let found = read.as_ref().map(|read| (read.host.as_str(), kept(read))).map_err(Clone::clone);
            assert_eq!(found, expected, "{target} {hosts:?} {ip}");
            let Ok(read) = read else { return };
            let mut fields = http::HeaderMap::new();
            read.forwarded.add(&mut fields);
            assert_eq!(fields["x-forwarded-for"], ip);
            assert_eq!(fields["x-forwarded-host"], read.host.as_str());
        };
        check("/", &[], "192.0.2.7", Err(FieldError::HostMissing));
        check("/", &["Shop.example:8080"], "192.0.2.7", Ok(("shop.example", true)));
        check("/x", &["Shop.example:8080"], "192.0.2.7", Ok(("shop.example", true)));
        check("/", &["shop.example:8080"], "192.0.2.7", Ok(("shop.example", false)));
        check("/", &["other.example"], "192.0.2.7", Ok(("other.example", false)));
        check("/", &["Shop.example:8080"], "192.0.2.8", Ok(("shop.example", false)));
        check("/", &["Shop.example:8080"; 2], "192.0.2.7", Err(FieldError::HostTwice));
        check("http://other.example/", &["Shop.example:8080"], "192.0.2.7", Err(FieldError::AuthorityDiffers));
        check("http://Shop.example:8080/", &["Shop.example:8080"], "192.0.2.7", Ok(("shop.example", true)));
        check("http://shop.example:8080/", &["Shop.example:8080"], "192.0.2.7", Ok(("shop.example", false)));
        check("/", &["bad host"], "192.0.2.7", Err(FieldError::HostInvalid("bad host".into())));
    }
}
