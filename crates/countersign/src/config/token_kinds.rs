//! The keys of an issuer that concern tokens which are not simply JWTs of a bearer: bound ones and opaque ones. As in
//! `platform`, these structs are the documentation; `issuer` builds from them.
use super::decode::{At, Needed, section, words};

words! {
    /// Must a token be bound to a key of its sender (RFC 9449, RFC 8705)?
    SenderConstrainedWord {
        Optional = "optional",
        Required = "required",
    }
}

section! {
    /// DPoP proofs (RFC 9449). A proof is accepted for 60 s before and after its `iat`, and once.
    DpopSection as "`dpop`" hints [
        ("required", "did you mean `sender_constrained: required`, beside `dpop`?"),
        ("window", "a proof is good for 60 s on either side of its `iat`; mend the clocks instead"),
    ] {
        /// `required`: a proof must hold a nonce that this process gave out at most four minutes ago; a client without one is told so and given it. Processes behind one address do not know one another's nonces: bind clients to one of them, or leave it `optional`. Default `optional`.
        nonce: Option<At<NonceWord>>,
    }
}

words! {
    /// Must a proof hold a nonce of ours?
    NonceWord {
        Optional = "optional",
        Required = "required",
    }
}

section! {
    /// Token introspection (RFC 7662). An answer is used for at most 30 s; while the issuer cannot be asked, its opaque tokens get 503.
    IntrospectionSection as "`introspection`" hints [
        ("client_secret", "it belongs into a file: `client_secret_file`"),
        ("url", "did you mean `endpoint`?"),
    ] {
        /// The endpoint, an https URL. Absent: what discovery says, if it is on the issuer's own host.
        endpoint: Option<At<String>>,
        /// The client that this edge is to the issuer.
        client_id: Needed<At<String>>,
        /// File with that client's secret, relative to this file. Must not be readable by everybody. Either this or `client_auth`.
        client_secret_file: Option<At<String>>,
        /// A key in place of a secret.
        client_auth: Option<At<ClientAuthSection>>,
        /// `opaque`: tokens that are no JWT. `all`: besides, JWTs after they were verified, so that a revoked one ends within 30 s. Default `opaque`.
        tokens: Option<At<IntrospectedWord>>,
        /// `required`: only answers that the issuer signed (RFC 9701) are taken. Default `optional`.
        signed: Option<At<SignedWord>>,
    }
}

section! {
    /// Proof by a key that we are this client (`private_key_jwt`, RFC 7523): each request carries an assertion of ours, good for two minutes. The issuer knows the public half.
    ClientAuthSection as "`client_auth`" hints [
        ("client_secret_file", "a secret stands beside `client_auth`, not in it"),
        ("kid", "did you mean `key_id`?"),
        ("certificate", "did you mean `certificate_file`?"),
    ] {
        /// File with the private key in PEM, of P-256 or RSA (2048 to 8192 bits), without a passphrase, relative to this file. Must not be readable by everybody; read again when it changes.
        private_key_file: Needed<At<String>>,
        /// Default: ES256 for a key of P-256; for one of RSA PS256 at Graph, else RS256.
        algorithm: Option<At<AssertionAlgorithmWord>>,
        /// `kid` of the assertions, where the issuer knows the key by a name. Default: none.
        key_id: Option<At<String>>,
        /// The key's certificate in PEM, relative to this file: assertions then carry its thumbprint (`x5t#S256`), which Entra needs. Default: none.
        certificate_file: Option<At<String>>,
        /// `aud` of the assertions. Default: the issuer's identifier; at Graph the token endpoint.
        audience: Option<At<String>>,
    }
}

words! {
    /// What assertions are signed with.
    AssertionAlgorithmWord {
        Es256 = "ES256",
        Rs256 = "RS256",
        Ps256 = "PS256",
    }
}

words! {
    /// Which tokens are shown to their issuer?
    IntrospectedWord {
        Opaque = "opaque",
        All = "all",
    }
}

words! {
    /// Must answers be signed?
    SignedWord {
        Optional = "optional",
        Required = "required",
    }
}

section! {
    /// Microsoft Graph, for groups that Entra's tokens leave out (overage, more than 200). Without it, or while it fails, they are unknown: no rule by group allows, and every `never` by group denies.
    GraphSection as "`graph`" hints [
        ("client_secret", "it belongs into a file: `client_secret_file`"),
        ("tenant", "the token says its tenant; remove it"),
    ] {
        /// The app that asks. It needs the application permission User.Read.All (for programs Application.Read.All), with admin consent.
        client_id: Needed<At<String>>,
        /// File with that app's secret, relative to this file. Must not be readable by everybody. Either this or `client_auth`.
        client_secret_file: Option<At<String>>,
        /// A key in place of a secret; with `certificate_file`, the certificate that was uploaded to the app.
        client_auth: Option<At<ClientAuthSection>>,
        /// Graph of your cloud. Default `https://graph.microsoft.com`.
        endpoint: Option<At<String>>,
        /// Where tokens for Graph come from. Default `https://login.microsoftonline.com`.
        login: Option<At<String>>,
    }
}
