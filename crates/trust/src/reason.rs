//! Every way a request can end other than by the upstream's own answer: one code for the record, one status, one public
//! text. Public texts do not tell failed token checks apart; the code, in the record and the log, always does.

/// Why a request was not answered by its upstream. The code is stable: it stands in audit records and metrics labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    // The request itself.
    RequestMalformed,
    HeaderForbidden,
    PathRefused,
    NoRoute,
    CorsRefused,
    BodyTooLarge,
    RequestTimeout,
    ClientGone,
    // The question of a proxy that asks before it forwards.
    ProxyRefused,
    ProxyFieldMissing,
    ProxyFieldMultiple,
    ProxyFieldMalformed,
    // The question of a workload that wants a Txn-Token (RFC 8693).
    CallerRefused,
    CallerExpired,
    ExchangeMalformed,
    GrantUnsupported,
    ExchangeUnsupported,
    TargetWrong,
    ScopeUnknown,
    ScopeRefused,
    // A WebSocket's handshake.
    WebsocketMalformed,
    WebsocketVersion,
    WebsocketRefused,
    OriginRefused,
    // The token.
    TokenMissing,
    TokenMultiple,
    TokenTooLarge,
    TokenMalformed,
    TokenHeaderForbidden,
    TokenKind,
    AlgorithmRefused,
    IssuerUnknown,
    KeyUnknown,
    KeyUnknownThrottled,
    KeysUnavailable,
    SignatureBad,
    ClaimsMalformed,
    AudienceWrong,
    TenantRefused,
    Expired,
    NotYetValid,
    Clock,
    SenderConstrained,
    DpopProof,
    DpopReplayed,
    DpopNonce,
    DpopBusy,
    TokenInactive,
    IntrospectionUnavailable,
    // The decision.
    PolicyMissing,
    NoRuleMatched,
    NeverMatched,
    GroupsUnknown,
    AgentNotPermitted,
    PolicyError,
    StepUp,
    /// As `StepUp`, in Entra's words.
    ClaimsChallenge,
    /// The client could not be told in Entra's words.
    ClaimsUnsupported,
    // What we need ourselves.
    MintFailed,
    /// A defect of ours ended the request; its connection was closed.
    Internal,
    AuditUnavailable,
    // The upstream.
    UpstreamConnect,
    UpstreamTimeout,
    UpstreamProtocol,
    UpstreamIdentity,
}

/// The outside of a [`Reason`]: what the caller may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Public {
    pub status: u16,
    /// Short title for `application/problem+json` (RFC 9457).
    pub title: &'static str,
    /// What happened and what the caller can do next.
    pub detail: &'static str,
    /// RFC 6750 / RFC 9470 `error` for `WWW-Authenticate`, where one is due.
    pub oauth_error: Option<&'static str>,
}

const BAD_TOKEN: Public = Public {
    status: 401,
    title: "Token not accepted",
    detail: "The access token was not accepted. Get a new one from your identity provider and try again; if it happens \
             again, give the decision id to whoever runs this service.",
    oauth_error: Some("invalid_token"),
};
const DENIED: Public = Public {
    status: 403,
    title: "Not allowed",
    detail: "You are signed in, but no rule allows this. Give the decision id to whoever runs this service.",
    oauth_error: Some("insufficient_scope"),
};

const fn plain(status: u16, title: &'static str, detail: &'static str) -> Public {
    Public { status, title, detail, oauth_error: None }
}

impl Reason {
    /// Every reason, for metrics label sets and for the documentation.
    pub const ALL: [Reason; 65] = {
        use Reason::*;
        [
            RequestMalformed,
            HeaderForbidden,
            PathRefused,
            NoRoute,
            CorsRefused,
            BodyTooLarge,
            RequestTimeout,
            ClientGone,
            ProxyRefused,
            ProxyFieldMissing,
            ProxyFieldMultiple,
            ProxyFieldMalformed,
            CallerRefused,
            CallerExpired,
            ExchangeMalformed,
            GrantUnsupported,
            ExchangeUnsupported,
            TargetWrong,
            ScopeUnknown,
            ScopeRefused,
            WebsocketMalformed,
            WebsocketVersion,
            WebsocketRefused,
            OriginRefused,
            TokenMissing,
            TokenMultiple,
            TokenTooLarge,
            TokenMalformed,
            TokenHeaderForbidden,
            TokenKind,
            AlgorithmRefused,
            IssuerUnknown,
            KeyUnknown,
            KeyUnknownThrottled,
            KeysUnavailable,
            SignatureBad,
            ClaimsMalformed,
            AudienceWrong,
            TenantRefused,
            Expired,
            NotYetValid,
            Clock,
            SenderConstrained,
            DpopProof,
            DpopReplayed,
            DpopNonce,
            DpopBusy,
            TokenInactive,
            IntrospectionUnavailable,
            PolicyMissing,
            NoRuleMatched,
            NeverMatched,
            GroupsUnknown,
            AgentNotPermitted,
            PolicyError,
            StepUp,
            ClaimsChallenge,
            ClaimsUnsupported,
            MintFailed,
            Internal,
            AuditUnavailable,
            UpstreamConnect,
            UpstreamTimeout,
            UpstreamProtocol,
            UpstreamIdentity,
        ]
    };

    /// The stable code, `snake_case`.
    pub const fn code(self) -> &'static str {
        match self {
            Reason::RequestMalformed => "request_malformed",
            Reason::HeaderForbidden => "header_forbidden",
            Reason::PathRefused => "path_refused",
            Reason::NoRoute => "no_route",
            Reason::CorsRefused => "cors_refused",
            Reason::BodyTooLarge => "body_too_large",
            Reason::RequestTimeout => "request_timeout",
            Reason::ClientGone => "client_gone",
            Reason::ProxyRefused => "proxy_refused",
            Reason::ProxyFieldMissing => "proxy_field_missing",
            Reason::ProxyFieldMultiple => "proxy_field_multiple",
            Reason::ProxyFieldMalformed => "proxy_field_malformed",
            Reason::CallerRefused => "caller_refused",
            Reason::CallerExpired => "caller_expired",
            Reason::ExchangeMalformed => "exchange_malformed",
            Reason::GrantUnsupported => "grant_unsupported",
            Reason::ExchangeUnsupported => "exchange_unsupported",
            Reason::TargetWrong => "target_wrong",
            Reason::ScopeUnknown => "scope_unknown",
            Reason::ScopeRefused => "scope_refused",
            Reason::WebsocketMalformed => "websocket_malformed",
            Reason::WebsocketVersion => "websocket_version",
            Reason::WebsocketRefused => "websocket_refused",
            Reason::OriginRefused => "origin_refused",
            Reason::TokenMissing => "token_missing",
            Reason::TokenMultiple => "token_multiple",
            Reason::TokenTooLarge => "token_too_large",
            Reason::TokenMalformed => "token_malformed",
            Reason::TokenHeaderForbidden => "token_header_forbidden",
            Reason::TokenKind => "token_kind",
            Reason::AlgorithmRefused => "algorithm_refused",
            Reason::IssuerUnknown => "issuer_unknown",
            Reason::KeyUnknown => "key_unknown",
            Reason::KeyUnknownThrottled => "key_unknown_throttled",
            Reason::KeysUnavailable => "keys_unavailable",
            Reason::SignatureBad => "signature_bad",
            Reason::ClaimsMalformed => "claims_malformed",
            Reason::AudienceWrong => "audience_wrong",
            Reason::TenantRefused => "tenant_refused",
            Reason::Expired => "expired",
            Reason::NotYetValid => "not_yet_valid",
            Reason::Clock => "clock",
            Reason::SenderConstrained => "sender_constrained",
            Reason::DpopProof => "dpop_proof",
            Reason::DpopReplayed => "dpop_replayed",
            Reason::DpopNonce => "dpop_nonce",
            Reason::DpopBusy => "dpop_busy",
            Reason::TokenInactive => "token_inactive",
            Reason::IntrospectionUnavailable => "introspection_unavailable",
            Reason::PolicyMissing => "policy_missing",
            Reason::NoRuleMatched => "no_rule_matched",
            Reason::NeverMatched => "never_matched",
            Reason::GroupsUnknown => "groups_unknown",
            Reason::AgentNotPermitted => "agent_not_permitted",
            Reason::PolicyError => "policy_error",
            Reason::StepUp => "step_up",
            Reason::ClaimsChallenge => "claims_challenge",
            Reason::ClaimsUnsupported => "claims_unsupported",
            Reason::MintFailed => "mint_failed",
            Reason::Internal => "internal_error",
            Reason::AuditUnavailable => "audit_unavailable",
            Reason::UpstreamConnect => "upstream_connect",
            Reason::UpstreamTimeout => "upstream_timeout",
            Reason::UpstreamProtocol => "upstream_protocol",
            Reason::UpstreamIdentity => "upstream_identity",
        }
    }

    /// What the caller is told.
    pub const fn public(self) -> Public {
        match self {
            Reason::RequestMalformed => {
                plain(400, "Bad request", "The request is not valid HTTP. Mend the client and send it again.")
            }
            Reason::HeaderForbidden => plain(
                400,
                "Header not accepted",
                "A header field of this request is not accepted here: a name with `_`, or an identity field where none may stand.",
            ),
            Reason::PathRefused => plain(
                400,
                "Path not accepted",
                "The path is ambiguous (encoded slashes, dots, `;`, `//` or invalid UTF-8). Send its plain form.",
            ),
            Reason::NoRoute => plain(404, "Not found", "No service is exposed at this host and path."),
            Reason::CorsRefused => plain(
                403,
                "Other origin not allowed",
                "Scripts of this origin may not send such a request to this service. Whoever runs it can list them.",
            ),
            Reason::BodyTooLarge => {
                plain(413, "Body too large", "The request body is larger than this service accepts.")
            }
            Reason::RequestTimeout => {
                plain(408, "Request too slow", "The request did not arrive in time. Send it again.")
            }
            Reason::ClientGone => plain(499, "Client gone", "The client closed the connection before the answer."),
            Reason::ProxyRefused => plain(403, "Not a known proxy", "Only the proxies of this platform may ask here."),
            Reason::ProxyFieldMissing | Reason::ProxyFieldMultiple | Reason::ProxyFieldMalformed => plain(
                500,
                "Proxy misconfigured",
                "The proxy in front of this service does not say all that is needed to decide. Give the decision id to \
                 whoever runs it.",
            ),
            Reason::CallerRefused => plain(
                400,
                "Not a known caller",
                "This workload may not ask for tokens here. The platform lists who may.",
            ),
            Reason::CallerExpired => plain(
                401,
                "Certificate ended",
                "The certificate that this connection was made with has ended. Connect again with the new one.",
            ),
            Reason::ExchangeMalformed => {
                plain(400, "Bad token request", "The request for a token is not as it must be. Mend the caller.")
            }
            Reason::GrantUnsupported | Reason::ExchangeUnsupported => plain(
                400,
                "Not exchanged here",
                "Only access tokens of the configured issuers are exchanged here, and only for Txn-Tokens.",
            ),
            Reason::TargetWrong => plain(
                400,
                "Another trust domain",
                "Tokens are given out here for this trust domain alone. Ask with its name as `audience`.",
            ),
            Reason::ScopeUnknown | Reason::ScopeRefused => plain(
                403,
                "Scope not granted",
                "The scope is not what the rules grant for this request, or goes beyond the scopes of the subject token.",
            ),
            Reason::WebsocketMalformed => plain(
                400,
                "No valid WebSocket handshake",
                "The request asks for a WebSocket and is no valid handshake (RFC 6455 §4.1). Mend the client.",
            ),
            Reason::WebsocketVersion => plain(
                426,
                "WebSocket version not supported",
                "Only version 13 of the WebSocket protocol (RFC 6455) is spoken here.",
            ),
            Reason::WebsocketRefused => {
                plain(403, "No WebSocket here", "This service takes no WebSocket. Send plain requests.")
            }
            Reason::OriginRefused => plain(
                403,
                "Origin not accepted",
                "Pages of this origin may not open a WebSocket here. Give the decision id to whoever runs this service.",
            ),
            Reason::TokenMissing => Public {
                status: 401,
                title: "Sign-in needed",
                detail: "This service needs an access token: send `Authorization: Bearer <token>`.",
                oauth_error: None,
            },
            Reason::TokenMultiple => Public {
                status: 400,
                title: "More than one credential",
                detail: "The request carries more than one credential. Send exactly one `Authorization` field.",
                oauth_error: Some("invalid_request"),
            },
            Reason::TokenTooLarge
            | Reason::TokenMalformed
            | Reason::TokenHeaderForbidden
            | Reason::TokenKind
            | Reason::AlgorithmRefused
            | Reason::IssuerUnknown
            | Reason::KeyUnknown
            | Reason::KeyUnknownThrottled
            | Reason::SignatureBad
            | Reason::ClaimsMalformed
            | Reason::AudienceWrong
            | Reason::TenantRefused
            | Reason::Expired
            | Reason::NotYetValid
            | Reason::Clock
            | Reason::SenderConstrained
            | Reason::TokenInactive => BAD_TOKEN,
            Reason::DpopProof | Reason::DpopReplayed => Public {
                status: 401,
                title: "Proof not accepted",
                detail: "The DPoP proof was not accepted. Send exactly one `DPoP` field, with a new proof for this very \
                         request; if it happens again, give the decision id to whoever runs this service.",
                oauth_error: Some("invalid_dpop_proof"),
            },
            Reason::DpopNonce => Public {
                status: 401,
                title: "Nonce needed",
                detail: "Make the DPoP proof again, with the nonce of the `DPoP-Nonce` field of this answer.",
                oauth_error: Some("use_dpop_nonce"),
            },
            Reason::DpopBusy => plain(
                503,
                "Temporarily unavailable",
                "No more DPoP proofs can be checked at the moment. Try again shortly, with a new proof.",
            ),
            Reason::KeysUnavailable | Reason::IntrospectionUnavailable => plain(
                503,
                "Sign-in unavailable",
                "The identity provider cannot be reached yet. Try again shortly; this heals by itself.",
            ),
            Reason::PolicyMissing
            | Reason::NoRuleMatched
            | Reason::NeverMatched
            | Reason::GroupsUnknown
            | Reason::AgentNotPermitted
            | Reason::PolicyError => DENIED,
            Reason::StepUp => Public {
                status: 401,
                title: "Stronger sign-in needed",
                detail: "This action needs a fresh or stronger sign-in.",
                oauth_error: Some("insufficient_user_authentication"),
            },
            Reason::ClaimsChallenge => Public {
                status: 401,
                title: "Stronger sign-in needed",
                detail: "This action needs a stronger sign-in. The challenge says which claims to ask the identity provider for.",
                oauth_error: Some("insufficient_claims"),
            },
            Reason::ClaimsUnsupported => plain(
                403,
                "Stronger sign-in needed",
                "This action needs a stronger sign-in, and your application does not say that it can ask for one. Use an \
                 application that declares the client capability `cp1`.",
            ),
            Reason::MintFailed | Reason::Internal => plain(
                500,
                "Internal error",
                "The request could not be stamped. Give the decision id to whoever runs this service.",
            ),
            Reason::AuditUnavailable => plain(
                503,
                "Temporarily unavailable",
                "The request cannot be recorded, so it is refused. Try again later.",
            ),
            Reason::UpstreamConnect | Reason::UpstreamProtocol | Reason::UpstreamIdentity => plain(
                502,
                "Upstream failed",
                "The service behind this address did not give a valid answer. Try again later.",
            ),
            Reason::UpstreamTimeout => plain(
                504,
                "Upstream too slow",
                "The service behind this address did not answer in time. Try again later.",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_failed_token_checks_look_alike_outside() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert_eq!(Reason::SignatureBad.public(), Reason::Expired.public());
        assert_eq!(Reason::KeyUnknown.public(), Reason::AudienceWrong.public());
        assert_eq!(Reason::NeverMatched.public(), Reason::NoRuleMatched.public());
    }
}
