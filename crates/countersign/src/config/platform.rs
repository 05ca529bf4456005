//! The platform file (`countersign.yaml`) as its authors write it. These structs are the documentation: the decoder, the
//! JSON Schema and the reference page come from them. Defaults and limits are applied in `build`.
use super::decode::{At, ByteSize, Decode, Decoder, Interval, Named, Needed, OneOrMany, section, words};
use super::telemetry::{AccessLogSection, TelemetrySection};
use super::token_endpoint::TokenEndpointSection;
use super::token_kinds::{DpopSection, GraphSection, IntrospectionSection, SenderConstrainedWord};
use super::yaml::{Node, Value};

const LATER: &str = "not available in this version; remove it (access tokens from `issuers` work)";

section! {
    /// The platform team's file: who we are, whose tokens we accept, where we listen, where records go.
    PlatformFile as "the platform file" hints [
        ("sign_in", LATER), ("passkeys", LATER), ("sessions", LATER),
        ("token", "did you mean `token_endpoint`?"), ("tokens", "did you mean `token_endpoint`?"), ("sts", "did you mean `token_endpoint`?"),
        ("nats", "the NATS gateway is not available in this version; remove it"),
        ("store", "a control-plane store is not available in this version; remove it (state lives under `state`)"),
        ("control", "a separate control plane is not available in this version; remove it"),
        ("listen", "it belongs under `edge:`"),
        ("tls", "it belongs under `edge:`"),
        ("issuer", "did you mean `issuers`? It maps a name of your choice to each issuer"),
        ("routes", "routes are written per service: `expose:` in a file of `services`"),
        ("rules", "rules are written per service, in a file of `services`"),
    ] {
        /// Format of this file. Always 1.
        version: Needed<At<u64>>,
        /// Your SPIFFE trust domain, 1 to 255 of `a-z 0-9 . _ -`, e.g. `acme.example`. It is the audience of every Txn-Token.
        trust_domain: Needed<At<String>>,
        /// OpenID providers whose access tokens are accepted, each under a name of your choice (at most 64). The name becomes part of every subject (`name|id`): do not change it later.
        issuers: Option<Named<IssuerSection>>,
        /// Where requests arrive. Required unless there is `authz` or `token_endpoint`.
        edge: Option<EdgeSection>,
        /// Where proxies that stand in front of the services ask for verdicts.
        authz: Option<At<AuthzSection>>,
        /// Where workloads exchange access tokens for Txn-Tokens (RFC 8693).
        token_endpoint: Option<At<TokenEndpointSection>>,
        /// Metrics and health checks.
        admin: Option<AdminSection>,
        /// The audit record: one line per decision.
        audit: Option<AuditSection>,
        /// A line per request, as web servers write it. Off unless this is there.
        access_log: Option<AccessLogSection>,
        /// Traces and metrics to an OpenTelemetry collector. Off unless this is there.
        telemetry: Option<At<TelemetrySection>>,
        /// The service files: one glob or a list of them, relative to this file, e.g. `services/*.yaml`. `*` matches within one name.
        services: Needed<OneOrMany<At<String>>>,
        /// What is written to standard error.
        log: Option<LogSection>,
        /// Folder for what must survive a restart and for the operator's socket. Default `/var/lib/countersign`.
        state: Option<At<String>>,
    }
}

words! {
    /// Dialects of the field.
    PresetWord {
        Entra = "entra",
        Okta = "okta",
        Auth0 = "auth0",
        Cognito = "cognito",
        Keycloak = "keycloak",
        Google = "google",
        GithubActions = "github-actions",
        Kubernetes = "kubernetes",
        Generic = "generic",
    }
}

words! {
    /// Signature algorithms that may be accepted.
    AlgorithmWord {
        Es256 = "ES256",
        Es384 = "ES384",
        Es512 = "ES512",
        Rs256 = "RS256",
        Rs384 = "RS384",
        Rs512 = "RS512",
        Ps256 = "PS256",
        Ps384 = "PS384",
        Ps512 = "PS512",
        EdDsa = "EdDSA",
    }
}

section! {
    /// One issuer.
    IssuerSection as "an issuer" hints [
        ("client_secret", "it belongs into a file: `introspection: { client_secret_file: … }`; JWTs need none"),
        ("client_id", "did you mean `clients` (allowed client ids), `audience` (who the token is for), or `introspection: { client_id: … }`?"),
        ("url", "did you mean `issuer`?"),
        ("jwks_url", "did you mean `jwks_uri`?"),
        ("aud", "did you mean `audience`?"),
        ("groups", "it belongs under `claims:`"),
    ] {
        /// What is known about this provider in advance. Default `generic`.
        preset: Option<At<PresetWord>>,
        /// The issuer identifier (`iss`), an https URL, exactly as the tokens carry it. May be left out where the preset derives it (entra, cognito, google, github-actions).
        issuer: Option<At<String>>,
        /// Entra: tenant id, or `organizations`/`common` together with `tenants`.
        tenant: Option<At<String>>,
        /// Whose tokens are taken where one issuer serves everybody. Entra with `organizations` or `common`: tenant ids, required. GitHub Actions: numeric `repository_owner_id`s. Google: Workspace domains.
        tenants: Option<OneOrMany<At<String>>>,
        /// Cognito: the user pool, e.g. `eu-west-1_AbCdEf`.
        pool: Option<At<String>>,
        /// Values of `aud` that are ours; a token needs one of them. Required, except for Cognito, where `clients` takes its place.
        audience: Option<OneOrMany<At<String>>>,
        /// Client ids that may call. Absent: any client of this issuer.
        clients: Option<OneOrMany<At<String>>>,
        /// Signature algorithms. Default: what the preset uses. Never `none`, never HMAC.
        algorithms: Option<OneOrMany<At<AlgorithmWord>>>,
        /// Where this issuer writes groups, roles, scopes, the stable id and the client id.
        claims: Option<ClaimsSection>,
        /// Client ids whose tokens are an agent's.
        agents: Option<OneOrMany<At<String>>>,
        /// Clock difference that is forgiven. Default `60s`, at most `2m`.
        leeway: Option<At<Interval>>,
        /// Where the keys are, when discovery is not wanted.
        jwks_uri: Option<At<String>>,
        /// A file with the keys (JWK Set), relative to this file; read again when it changes.
        jwks_file: Option<At<String>>,
        /// Accept `typ: JWT` besides `at+jwt`. Default: what the preset needs.
        accept_typ_jwt: Option<At<bool>>,
        /// `required`: tokens that are bound to no key of their sender (DPoP, client certificate) are refused. A token that is bound is held to it in any case. Default `optional`.
        sender_constrained: Option<At<SenderConstrainedWord>>,
        /// DPoP proofs for tokens of this issuer.
        dpop: Option<DpopSection>,
        /// Ask this issuer about tokens that nobody else can read. At most one issuer can have it.
        introspection: Option<IntrospectionSection>,
        /// Entra: ask Microsoft Graph for the groups of people who are in too many for a token.
        graph: Option<GraphSection>,
    }
}

/// Names from the top of the token down to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(pub Vec<String>);

impl Decode for ClaimPath {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        let names = match node.value {
            Value::List(_) => OneOrMany::<String>::decode(node, to)?.0,
            // Auth0 demands URLs as claim names; their dots separate nothing.
            _ => match String::decode(node, to)? {
                url if url.contains("://") => vec![url],
                dotted => dotted.split('.').map(str::to_owned).collect(),
            },
        };
        if names.iter().any(String::is_empty) || names.len() > 8 {
            to.report(node.at, "not a claim path", "write names joined by dots, e.g. `realm_access.roles`; at most 8");
            return None;
        }
        Some(ClaimPath(names))
    }
}

impl schemars::JsonSchema for ClaimPath {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ClaimPath".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        generator.subschema_for::<OneOrMany<String>>()
    }
}

section! {
    /// Claim paths. A text is split at dots (`realm_access.roles`), a URL is one name; a list gives the names one by one (`[resource_access, my.client, roles]`).
    ClaimsSection as "`claims`" hints [
        ("subject", "did you mean `id`? It names the claim with the stable id"),
        ("sub", "did you mean `id`? It names the claim with the stable id"),
        ("email", "an e-mail address is never an identity here; name the stable id under `id`"),
    ] {
        /// The stable id of a person or program. Never an e-mail address.
        id: Option<At<ClaimPath>>,
        /// Groups.
        groups: Option<At<ClaimPath>>,
        /// Roles.
        roles: Option<At<ClaimPath>>,
        /// Scopes.
        scopes: Option<At<ClaimPath>>,
        /// The client the token was issued to.
        client: Option<At<ClaimPath>>,
    }
}

section! {
    /// Where requests arrive.
    EdgeSection as "`edge`" hints [
        ("port", "did you mean `listen`? Write address and port: `listen: 0.0.0.0:443`"),
        ("address", "did you mean `listen`?"),
        ("certificate", "it belongs under `tls:`"),
        ("key", "it belongs under `tls:`"),
    ] {
        /// One address or a list, `ip:port`, e.g. `0.0.0.0:443`, `[::]:443`. Changing it needs a restart.
        listen: Needed<OneOrMany<At<String>>>,
        /// Certificate and key. Absent: plain HTTP, for use behind something that ends TLS.
        tls: Option<TlsSection>,
        /// Networks of load balancers that begin each connection with a PROXY protocol header (version 1 or 2), e.g. `10.0.0.0/8`. From them the header is required, from others none is read. Changing it needs a restart.
        proxy_protocol: Option<OneOrMany<At<String>>>,
        /// Proxies in front of the edge that tell the caller's address and scheme. Nobody else's forwarding headers are read.
        trusted_proxies: Option<TrustedProxiesSection>,
        /// Limits of one connection and of the process.
        limits: Option<EdgeLimits>,
        /// How long a client may take.
        timeouts: Option<EdgeTimeouts>,
        /// Worker threads. Default: one per core; 1 to 1024. Changing it needs a restart.
        workers: Option<At<u64>>,
    }
}

words! {
    /// The header that trusted proxies write.
    ForwardedWord {
        XForwardedFor = "x-forwarded-for",
        Forwarded = "forwarded",
    }
}

section! {
    /// Proxies whose word about the caller counts.
    TrustedProxiesSection as "`trusted_proxies`" hints [
        ("cidrs", "did you mean `from`?"), ("networks", "did you mean `from`?"), ("ranges", "did you mean `from`?"),
    ] {
        /// Their networks or addresses, e.g. `10.0.0.0/8`; at most 256.
        from: Needed<OneOrMany<At<String>>>,
        /// The header they write: `x-forwarded-for` (then `X-Forwarded-Proto` tells the scheme, and the first proxy must overwrite it) or `forwarded` (RFC 7239). Only this one is read. Default `x-forwarded-for`.
        header: Option<At<ForwardedWord>>,
    }
}

section! {
    /// Where nginx, Envoy, Traefik or Caddy ask before they forward a request, and get the verdict and the Txn-Token. See docs/authz.md for what each proxy has to be told. All but the certificate needs a restart to change.
    AuthzSection as "`authz`" hints [
        ("port", "did you mean `listen`? Write address and port: `listen: 127.0.0.1:9002`"),
        ("address", "did you mean `listen`?"),
        ("proxy", "did you mean `from`?"),
        ("trusted_proxies", "did you mean `callers`?"),
        ("allow", "did you mean `callers`?"),
        ("headers", "did you mean `from`? It takes a mapping of header names"),
        ("certificate", "it belongs under `tls:`"),
        ("key", "it belongs under `tls:`"),
    ] {
        /// One address or a list, `ip:port`, e.g. `127.0.0.1:9002`, or a Unix-domain socket, `unix:/run/countersign/authz.sock`, to which this user and its group may connect (mode 0660).
        listen: Needed<OneOrMany<At<String>>>,
        /// Who asks, and so how: `nginx`, `traefik`, `caddy`, `envoy` (gRPC), `envoy-http`, or the header fields in which your proxy says what it has.
        from: Needed<At<AuthzFromValue>>,
        /// Addresses and networks of the proxies that may ask. Default: this machine (`127.0.0.0/8` and `::1`). Who comes through a Unix-domain socket is let in by its file's mode.
        callers: Option<OneOrMany<At<String>>>,
        /// Certificate and key. Absent: plain HTTP, for proxies on this machine.
        tls: Option<TlsSection>,
        /// Limits of one connection and of the process.
        limits: Option<EdgeLimits>,
        /// How long a proxy may take.
        timeouts: Option<EdgeTimeouts>,
        /// Worker threads. Default: one per core; 1 to 1024.
        workers: Option<At<u64>>,
    }
}

words! {
    /// Proxies whose way of asking is known.
    AuthzFromWord {
        Nginx = "nginx",
        Traefik = "traefik",
        Caddy = "caddy",
        Envoy = "envoy",
        EnvoyHttp = "envoy-http",
    }
}

/// The two ways to write `from`.
#[derive(Debug, Clone, schemars::JsonSchema)]
#[schemars(untagged)]
pub enum AuthzFromValue {
    /// A proxy that is known.
    Known(AuthzFromWord),
    /// Any other.
    Fields(Box<AuthzFieldsSection>),
}

impl Decode for AuthzFromValue {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        match node.value {
            Value::Map(_) => AuthzFieldsSection::decode(node, to).map(|s| AuthzFromValue::Fields(Box::new(s))),
            _ => AuthzFromWord::decode(node, to).map(AuthzFromValue::Known),
        }
    }
}

section! {
    /// Header fields that the proxy itself sets, each exactly once, whatever its client sent. A field that is missing, doubled or a list is refused, never guessed.
    AuthzFieldsSection as "`from`" hints [
        ("path", "did you mean `uri`? It holds path and query"),
        ("url", "did you mean `uri`? It holds path and query"),
        ("ip", "did you mean `address`?"),
        ("proto", "did you mean `scheme`?"),
    ] {
        /// The request's method, e.g. `X-Original-Method`.
        method: Needed<At<String>>,
        /// Path and query, byte for byte as they will be sent on, e.g. `X-Original-URI`.
        uri: Needed<At<String>>,
        /// The request's host, e.g. `X-Original-Host`.
        host: Needed<At<String>>,
        /// `http` or `https`, as the client speaks to the proxy, e.g. `X-Original-Scheme`.
        scheme: Needed<At<String>>,
        /// The client's address, without port, e.g. `X-Original-Address`.
        address: Needed<At<String>>,
        /// Which statuses a refusal has: `full` (all of them, for proxies that pass the answer on) or `auth-request` (401 and 403 only; the one meant is in `Countersign-Status`). Default `full`.
        statuses: Option<At<AuthzStatusesWord>>,
    }
}

words! {
    /// Statuses of refusals.
    AuthzStatusesWord {
        Full = "full",
        AuthRequest = "auth-request",
    }
}

section! {
    /// A certificate and its key.
    TlsSection as "`tls`" hints [
        ("cert", "did you mean `certificate`?"),
        ("cert_file", "did you mean `certificate`?"),
        ("key_file", "did you mean `key`?"),
        ("private_key", "did you mean `key`?"),
        ("ca_file", "did you mean `client_ca`?"),
        ("client_ca_file", "did you mean `client_ca`?"),
        ("client_auth", "did you mean `client_certificates`?"),
    ] {
        /// PEM file with the chain, leaf first. Replaced without a restart when the file changes.
        certificate: Needed<At<String>>,
        /// PEM file with the key (PKCS#8, PKCS#1 or SEC1). Must not be readable by everybody.
        key: Needed<At<String>>,
        /// Ask clients for a certificate, for access tokens that are bound to one (RFC 8705): `off`, `request` (clients without one come in as well) or `require`. Whoever holds its key may use any certificate, and it is never an identity. TLS sessions are then not resumed. Default `off`.
        client_certificates: Option<At<ClientCertificatesWord>>,
        /// PEM file with the CAs that client certificates must come from. Absent: any certificate.
        client_ca: Option<At<String>>,
    }
}

words! {
    /// Are clients asked for a certificate?
    ClientCertificatesWord {
        Off = "off",
        Request = "request",
        Require = "require",
    }
}

section! {
    /// Limits. Beyond them the client gets 431, 413 or 503, or waits in the backlog.
    EdgeLimits as "`limits`" hints [("body", "the body limit is per service: `limits: { body: … }` in its file")] {
        /// Request line and header fields together. Default `32KiB`; `1KiB` to `1MiB`.
        header: Option<At<ByteSize>>,
        /// Number of header fields. Default 100; 10 to 1000.
        header_fields: Option<At<u64>>,
        /// Open connections of the process. Default 20000; 1 to 1000000.
        connections: Option<At<u64>>,
        /// HTTP/2: concurrent streams of one connection. Default 128; 1 to 1000.
        streams: Option<At<u64>>,
    }
}

section! {
    /// How long a client may take.
    EdgeTimeouts as "`timeouts`" hints [
        ("request", "it is per service: `limits: { request_timeout: … }` in its file"),
        ("connect", "it is per service: `upstream: { connect_timeout: … }` in its file"),
    ] {
        /// The TLS handshake. Default `10s`; `1s` to `2m`.
        handshake: Option<At<Interval>>,
        /// From the first byte to the whole head of a request. Default `15s`; `1s` to `2m`.
        header: Option<At<Interval>>,
        /// A connection without a request. Default `75s`; `1s` to `1h`.
        idle: Option<At<Interval>>,
        /// A body of which no byte moves. Default `60s`; `1s` to `1h`.
        body_stall: Option<At<Interval>>,
        /// What is in flight may finish for this long after SIGTERM. Default `30s`; `0s` to `1h`.
        drain: Option<At<Interval>>,
    }
}

section! {
    /// Metrics and health checks: `/metrics`, `/healthz`, `/readyz`. No secret is served there; keep it off the internet all the same.
    AdminSection as "`admin`" {
        /// `ip:port`. Default `127.0.0.1:9901`.
        listen: Option<At<String>>,
    }
}

words! {
    /// What to do with a request that cannot be recorded.
    OnFailureWord {
        Refuse = "refuse",
        Count = "count",
    }
}

section! {
    /// The audit record.
    AuditSection as "`audit`" hints [("path", "did you mean `file`?"), ("dir", "did you mean `file`?")] {
        /// NDJSON file, relative to this file. Default `audit.ndjson` under `state`.
        file: Option<At<String>>,
        /// When records are forced to disk: `batch` (each written batch, before the next), `never` (left to the system), or an interval such as `1s` (`100ms` to `1m`). Default `1s`.
        fsync: Option<At<String>>,
        /// When a new file is begun.
        rotate: Option<RotateSection>,
        /// When a record cannot be written: `refuse` requests of every service, or `count` and alarm (services with `audit: strict` refuse in any case). Default `count`.
        on_failure: Option<At<OnFailureWord>>,
    }
}

section! {
    /// Rotation of the audit file.
    RotateSection as "`rotate`" {
        /// Begin a new file at this size. Default `256MiB`; `1MiB` to `1TiB`.
        size: Option<At<ByteSize>>,
        /// Keep this many closed files. Default 16; 1 to 100000.
        keep: Option<At<u64>>,
    }
}

words! {
    /// How a log line looks.
    LogFormatWord {
        Human = "human",
        Json = "json",
    }
}

words! {
    /// How much is logged.
    LogLevelWord {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}

section! {
    /// The log. Never holds a token, cookie, key or body.
    LogSection as "`log`" {
        /// Default: `human` on a terminal, else `json`.
        format: Option<At<LogFormatWord>>,
        /// Default `info`.
        level: Option<At<LogLevelWord>>,
    }
}
