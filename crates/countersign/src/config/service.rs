//! A service file (`services/*.yaml`) as its team writes it. The structs are the documentation; the texts inside rules
//! (`who`, `can`, `when` …) are read by the policy compiler, never here.
use super::decode::{At, ByteSize, Decode, Decoder, Interval, Needed, OneOrMany, section, words};
use super::fleet::{Percent, RetryOn, StatusRange};
use super::token_kinds::SenderConstrainedWord;
use super::yaml::{Node, Value};

section! {
    /// One service: where it runs, where it is reachable, who may do what. Without a matching rule a request is denied.
    ServiceFile as "a service file" hints [
        ("name", "did you mean `service`?"),
        ("allow", "did you mean `rules`?"),
        ("deny", "did you mean `never`?"),
        ("host", "it belongs under `expose:`"),
        ("path", "it belongs under `expose:`"),
        ("upstreams", "did you mean `upstream`? It takes one URL or a list"),
        ("timeout", "did you mean `limits: { request_timeout: … }`?"),
        ("subjects", "NATS subjects are not available in this version"),
    ] {
        /// Name of the service, unique: 1 to 63 of `a-z 0-9 -`, e.g. `orders`. It is the first half of every Txn-Token scope (`orders.read`).
        service: Needed<At<String>>,
        /// Where it runs: an http or https URL, a list of them, or a mapping with more settings. Required where the edge forwards to it; services behind a proxy that asks (`authz`) need none.
        upstream: Option<At<UpstreamValue>>,
        /// Its own identity: path under the trust domain, e.g. `/shop/orders`.
        workload: Option<At<String>>,
        /// Where it is reachable on the edge: one place or a list. Absent: not reachable from outside.
        expose: Option<OneOrMany<At<ExposeSection>>>,
        /// Who may do what. Any rule that matches allows.
        rules: Option<Vec<At<RuleSection>>>,
        /// What is denied whatever the rules say.
        never: Option<Vec<At<RuleSection>>>,
        /// Examples that must hold; a file whose tests fail is not loaded.
        tests: Option<Vec<At<TestSection>>>,
        /// Ambiguous paths that are let through. Each one is refused by default.
        tolerate: Option<TolerateSection>,
        /// Limits of one request.
        limits: Option<ServiceLimits>,
        /// `strict`: a request that cannot be recorded is refused. `best-effort`: it is counted and alarmed. Default `best-effort`.
        audit: Option<At<AuditWord>>,
        /// Whether the caller's own access token goes on to the upstream: `strip` (the default; the upstream gets the Txn-Token) or `pass`.
        authorization: Option<At<AuthorizationWord>>,
        /// `required`: a token that is bound to no key of its sender (DPoP, client certificate) is refused here. Default `optional`; what an issuer requires counts everywhere.
        sender_constrained: Option<At<SenderConstrainedWord>>,
        /// Scripts of which other origins may read the answers. Absent: what the service itself says goes on.
        cors: Option<CorsSection>,
        /// Tells clients where to get tokens for this service (RFC 9728); refusals point to it.
        resource_metadata: Option<ResourceSection>,
        /// One Txn-Token may serve equal requests for this long. Default `10s`; `0s` (never) to `1m`.
        txn_reuse: Option<At<Interval>>,
        /// WebSockets: `allow` (the default; a rule must permit `GET` of the path), `deny`, or a mapping with more settings.
        websocket: Option<At<WebSocketValue>>,
    }
}

words! {
    /// Are WebSockets opened to this service?
    WebSocketWord {
        Allow = "allow",
        Deny = "deny",
    }
}

/// The two ways to write `websocket`.
#[derive(Debug, Clone, schemars::JsonSchema)]
#[schemars(untagged)]
pub enum WebSocketValue {
    /// Whether at all.
    Word(WebSocketWord),
    /// Allowed, with settings.
    Settings(WebSocketSection),
}

impl Decode for WebSocketValue {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        match node.value {
            Value::Map(_) => WebSocketSection::decode(node, to).map(WebSocketValue::Settings),
            _ => WebSocketWord::decode(node, to).map(WebSocketValue::Word),
        }
    }
}

section! {
    /// Settings of WebSockets.
    WebSocketSection as "`websocket`" hints [("origin", "did you mean `origins`? It takes a list"), ("timeout", "did you mean `idle_timeout`?")] {
        /// Pages of other origins that may open one, e.g. `https://app.acme.example`: at most 64. Pages of the request's own host always may; callers that send no `Origin` are no browsers and are not asked.
        origins: Option<OneOrMany<At<String>>>,
        /// Closed when no byte went either way for so long. Default `1h`; `1s` to `7d`.
        idle_timeout: Option<At<Interval>>,
    }
}

section! {
    /// CORS (Fetch standard). Preflights are answered here and never reach the service; every other request is judged by the rules as ever.
    CorsSection as "`cors`" hints [
        ("origin", "did you mean `origins`?"),
        ("allow_origins", "did you mean `origins`?"), ("allow_methods", "did you mean `methods`?"), ("allow_headers", "did you mean `headers`?"),
        ("expose_headers", "did you mean `expose`?"), ("allow_credentials", "did you mean `credentials`?"),
    ] {
        /// Origins, e.g. `https://app.acme.example`, or `"*"` for any (then without `credentials`).
        origins: Needed<OneOrMany<At<String>>>,
        /// Methods that a script may use. Default `GET, HEAD, POST, PUT, PATCH, DELETE`.
        methods: Option<OneOrMany<At<String>>>,
        /// Request headers that a script may set. Default `authorization`, `content-type`, `dpop`, `traceparent`, `tracestate` and those of gRPC-Web.
        headers: Option<OneOrMany<At<String>>>,
        /// Further answer headers that a script may read, besides `countersign-decision`, `www-authenticate`, `dpop-nonce`, `grpc-status` and `grpc-message`.
        expose: Option<OneOrMany<At<String>>>,
        /// Let scripts send cookies and read the answer. Default false.
        credentials: Option<At<bool>>,
        /// How long a browser remembers the answer to a preflight. Default `10m`; `0s` to `1d`.
        max_age: Option<At<Interval>>,
    }
}

section! {
    /// Protected resource metadata (RFC 9728), served at `/.well-known/oauth-protected-resource` followed by the resource's path.
    ResourceSection as "`resource_metadata`" hints [("url", "did you mean `resource`?"), ("authorization_servers", "did you mean `issuers`? They are named as in the platform file")] {
        /// The service's URL as clients know it, e.g. `https://shop.acme.example/orders`. Its host must be one of `expose`.
        resource: Needed<At<String>>,
        /// Names of the issuers whose tokens are good here, shown with their identifiers. Default: all.
        issuers: Option<OneOrMany<At<String>>>,
        /// Scopes that are worth asking for.
        scopes: Option<OneOrMany<At<String>>>,
        /// A page for developers.
        documentation: Option<At<String>>,
    }
}

words! {
    /// Must a request be recorded to be served?
    AuditWord {
        Strict = "strict",
        BestEffort = "best-effort",
    }
}

words! {
    /// What becomes of the caller's access token once it was verified?
    AuthorizationWord {
        Strip = "strip",
        Pass = "pass",
    }
}

/// The three ways to write `upstream`.
#[derive(Debug, Clone, schemars::JsonSchema)]
#[schemars(untagged)]
pub enum UpstreamValue {
    /// One URL, or a list of equal addresses.
    Urls(OneOrMany<At<String>>),
    /// With settings.
    Settings(Box<UpstreamSection>),
}

impl Decode for UpstreamValue {
    fn decode(node: &Node, to: &mut Decoder<'_>) -> Option<Self> {
        match node.value {
            Value::Map(_) => UpstreamSection::decode(node, to).map(|s| UpstreamValue::Settings(Box::new(s))),
            _ => OneOrMany::decode(node, to).map(UpstreamValue::Urls),
        }
    }
}

section! {
    /// An upstream with settings.
    UpstreamSection as "`upstream`" hints [
        ("urls", "did you mean `url`? It takes one URL or a list"),
        ("address", "did you mean `url`?"),
        ("insecure", "an upstream certificate is always checked; name its roots with `ca_file`"),
        ("skip_verify", "an upstream certificate is always checked; name its roots with `ca_file`"),
        ("timeout", "did you mean `first_byte_timeout`?"),
        ("health_check", "did you mean `health`?"),
        ("retry", "did you mean `retries`?"),
        ("name", "did you mean `dns` or `server_name`?"),
    ] {
        /// One URL or a list, all http or all https. This or `dns`.
        url: Option<OneOrMany<At<String>>>,
        /// A name, every address of which is an endpoint: `orders.internal:9001`, or `https://orders.internal:9001`. At most 64 addresses are used.
        dns: Option<At<String>>,
        /// `dns`: the name is looked up anew after this long. (The system's resolver does not tell how long an answer holds.) A failed look-up keeps the last good answer. Default `5s`; `1s` to `1h`.
        refresh: Option<At<Interval>>,
        /// https: PEM file with roots to trust besides the system's, relative to the platform file. With `spiffe_id` it is the trust bundle, and nothing else is trusted.
        ca_file: Option<At<String>>,
        /// https: the name to send, and to verify unless there is a `spiffe_id`. Default: the host of the URL.
        server_name: Option<At<String>>,
        /// https: the workload to expect instead of a name, e.g. `spiffe://acme.example/shop/orders`: exactly this one. Needs `ca_file`.
        spiffe_id: Option<At<String>>,
        /// https: PEM file with our own certificate for this upstream and its chain, if it asks for one. Needs `key`.
        certificate: Option<At<String>>,
        /// https: PEM file with the key of `certificate`. It must not be readable by every user.
        key: Option<At<String>>,
        /// `http1`, `http2` (h2 over https; with http by prior knowledge), or `grpc`: as `http2`, and gRPC calls are taken, whose streams are bounded by message and not as a whole. Default `http1`.
        protocol: Option<At<ProtocolWord>>,
        /// Default `3s`; `10ms` to `1m`.
        connect_timeout: Option<At<Interval>>,
        /// From the sent request to the first byte of the answer. Default `30s`; `10ms` to `1h`.
        first_byte_timeout: Option<At<Interval>>,
        /// An unused connection is closed after this. Default `30s`; `1s` to `1h`.
        idle_timeout: Option<At<Interval>>,
        /// A connection this old (or up to a tenth younger) takes no new request, so that load and names are followed. Default `10m`; `1s` to `1d`.
        max_age: Option<At<Interval>>,
        /// Ask each endpoint whether it is well. Off by default.
        health: Option<HealthSection>,
        /// When an endpoint that fails is put aside. For more than one address, and for `dns`; always on.
        outliers: Option<OutliersSection>,
        /// What is tried again, besides what is always safe. Off by default.
        retries: Option<RetriesSection>,
        /// `v1` or `v2`: each connection begins with a PROXY protocol header that tells the client's address, and so carries one request only. Not with `http2`.
        proxy_protocol: Option<At<ProxyProtocolWord>>,
    }
}

section! {
    /// One request to each endpoint every so often, per process. It carries no token and no identity.
    HealthSection as "`health`" {
        /// Path, and query if need be, to GET.
        path: Needed<At<String>>,
        /// From the end of one check to the next. Default `5s`; `100ms` to `1h`.
        interval: Option<At<Interval>>,
        /// For connecting, sending and the head of the answer. Default `1s`; `10ms` to `1m`.
        timeout: Option<At<Interval>>,
        /// Passed checks in a row after which an endpoint is used again. Default 2; 1 to 100.
        healthy_after: Option<At<u64>>,
        /// Failed checks in a row after which an endpoint is used no more. Default 3; 1 to 100.
        unhealthy_after: Option<At<u64>>,
        /// The status, or range of statuses, of a passed check. Default `200-299`.
        expect: Option<At<StatusRange>>,
    }
}

section! {
    /// When an endpoint is put aside for its failures, and how it comes back. Each worker judges by its own requests.
    OutliersSection as "`outliers`" hints [("max_ejection_percent", "did you mean `ceiling`?"), ("consecutive_5xx", "did you mean `failures`?")] {
        /// Failures in a row: connections that break, timeouts, answers 502, 503 and 504. One failed connect is enough. Default 5; 1 to 1000.
        failures: Option<At<u64>>,
        /// How long an endpoint is put aside the first time; each time in a row twice as long. Default `5s`; `100ms` to `1h`.
        base: Option<At<Interval>>,
        /// The longest it is put aside. Default `5m`; `100ms` to `1d`.
        longest: Option<At<Interval>>,
        /// The part of the endpoints that may be put aside at once; one of two or more always may. Default `50%`.
        ceiling: Option<At<Percent>>,
        /// How long a new or returning endpoint takes to get its full share. Default `15s`; `0s` to `10m`.
        slow_start: Option<At<Interval>>,
    }
}

section! {
    /// What is tried again. Only requests with an idempotent method and no body ever are.
    RetriesSection as "`retries`" hints [("max", "did you mean `attempts`?"), ("timeout", "did you mean `per_try_timeout`?")] {
        /// Which ends of a try: the statuses `502`, `503`, `504`, `connect` (no address could be connected to), `reset` (the connection ended before a byte of an answer).
        on: Needed<OneOrMany<At<RetryOn>>>,
        /// Tries besides the first. Default 2; 1 to 5.
        attempts: Option<At<u64>>,
        /// Retries per hundred requests of this service and worker; one per second is always allowed, and 20 can be saved up. Default `20%`.
        budget: Option<At<Percent>>,
        /// A try without an answer after this long is given up and counts among those tried again. Default: none, only `request_timeout` of the service and `first_byte_timeout`; `10ms` to `1h`.
        per_try_timeout: Option<At<Interval>>,
    }
}

words! {
    /// Which PROXY protocol header is sent.
    ProxyProtocolWord {
        V1 = "v1",
        V2 = "v2",
    }
}

words! {
    /// The protocol spoken to an upstream.
    ProtocolWord {
        Http1 = "http1",
        Http2 = "http2",
        Grpc = "grpc",
    }
}

section! {
    /// A place on the edge.
    ExposeSection as "`expose`" hints [("paths", "did you mean `path`? For several, write `expose` as a list")] {
        /// Host name without port, or `"*"` for any.
        host: Needed<At<String>>,
        /// Path pattern: `*` is one segment, a last `**` any number. Default `/**`.
        path: Option<At<String>>,
    }
}

section! {
    /// One rule: who, from where, may do what, under which conditions. All clauses must hold; a list within a clause means "one of".
    RuleSection as "a rule" hints [
        ("allow", "did you mean `who` (the people) or `can` (what they may do)?"),
        ("path", "did you mean `can`? Write method and path: `can: GET /orders/**`"),
        ("method", "did you mean `can`? Write method and path: `can: GET /orders/**`"),
        ("methods", "did you mean `can`? Write method and path: `can: GET /orders/**`"),
        ("group", "did you mean `who: group:…`?"),
        ("groups", "did you mean `who: group:…`?"),
        ("role", "did you mean `who: role:…`?"),
        ("user", "did you mean `who: user:…`?"),
        ("if", "did you mean `when`?"),
        ("shadow", "did you mean `mode: shadow`?"),
        ("countersign", "signing a single request is not available in this version; `txn: per-request` gives it its own Txn-Token"),
    ] {
        /// What the rule is for, in a few words; unique within its list. It stands in records and in `countersign why`.
        name: Needed<At<String>>,
        /// `anyone`, `signed-in`, or `user:`, `group:`, `role:`, `scope:`, `workload:`, `agent:` with a name (`"*"` for any).
        who: Needed<OneOrMany<At<String>>>,
        /// Calling workloads: `edge`, or a path under the trust domain, matched by segment. Absent: any of the trust domain.
        from: Option<OneOrMany<At<String>>>,
        /// Method and path, e.g. `GET /orders/**`; several methods with a comma: `GET,POST /orders/*`; `*` is any method.
        can: Needed<OneOrMany<At<String>>>,
        /// The person touched a passkey at most this long ago.
        fresh: Option<At<Interval>>,
        /// The person signed in with a passkey.
        passkey: Option<At<bool>>,
        /// The person signed in with a hardware key.
        hardware_key: Option<At<bool>>,
        /// The issuer vouches for this authentication context: `acr` of the token, at Entra one of `acrs` (`c1` … `c99`). Of a list, one.
        acr: Option<OneOrMany<At<String>>>,
        /// Only when this agent acts for the person.
        agent: Option<OneOrMany<At<String>>>,
        /// A Cedar expression over `context`.
        when: Option<At<String>>,
        /// `shadow`: decided and recorded, not enforced. Default `enforce`.
        mode: Option<At<ModeWord>>,
        /// `per-request`: every request gets its own Txn-Token. Default `reuse`.
        txn: Option<At<TxnWord>>,
    }
}

words! {
    /// Is a rule enforced?
    ModeWord {
        Enforce = "enforce",
        Shadow = "shadow",
    }
}

words! {
    /// How many requests one Txn-Token serves.
    TxnWord {
        Reuse = "reuse",
        PerRequest = "per-request",
    }
}

section! {
    /// One example of a request and its verdict.
    TestSection as "a test" hints [("who", "did you mean `as`?"), ("can", "did you mean `try`?"), ("rule", "did you mean `by`?")] {
        /// Who asks: `ana@support` (a person with one group), `ana@support,finance`, `anyone` …
        r#as: Needed<At<String>>,
        /// Through what: `edge`, or a workload's path. Default `edge`.
        from: Option<At<String>>,
        /// Method and path, e.g. `GET /orders/42`.
        r#try: Needed<At<String>>,
        /// The verdict: `allow`, `deny` or `step-up`.
        expect: Needed<At<String>>,
        /// The name of the rule that decides.
        by: Option<At<String>>,
    }
}

section! {
    /// Ambiguous paths that are let through.
    TolerateSection as "`tolerate`" {
        /// `%2F` in a path. It stays encoded and never separates segments. Default false.
        encoded_slash: Option<At<bool>>,
        /// `;name=value` in a path. Default false.
        path_parameters: Option<At<bool>>,
        /// `//` in a path. Default false.
        empty_segments: Option<At<bool>>,
        /// Segments that end with a dot or a space. Default false.
        trailing_dots: Option<At<bool>>,
    }
}

section! {
    /// Limits of one request.
    ServiceLimits as "`limits`" hints [("timeout", "did you mean `request_timeout`?"), ("header", "it is per process: `edge: { limits: { header: … } }` in the platform file")] {
        /// Largest request body; 413 beyond. Default `16MiB`; `0B` to `1TiB`.
        body: Option<At<ByteSize>>,
        /// From the head of a request to the head of its answer; 504 beyond. Default `60s`; `10ms` to `1d`.
        request_timeout: Option<At<Interval>>,
    }
}
