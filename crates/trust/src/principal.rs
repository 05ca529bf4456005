//! Whom we judge: a person, a workload, or an agent acting for a person or for itself.
//!
//! A principal is made only from a verified token or a verified peer; nothing here reads a header.

use std::collections::BTreeSet;
use std::sync::Arc;

/// What kind of party a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A human being.
    Person,
    /// A program known by its own identity (a CI job, a Kubernetes service account, an app-only token).
    Workload,
    /// An autonomous agent that acts for itself. An agent that acts *for* a person is [`Principal::agent`].
    Agent,
}

/// A set of names whose membership can be unknown (Entra's group overage). Unknown never means absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    names: BTreeSet<Arc<str>>,
    complete: bool,
}

/// The three states of one name in a [`Membership`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    Present,
    Absent,
    /// The issuer did not say; rules that allow do not match, rules that forbid do.
    Unknown,
}

impl Membership {
    /// Everything the issuer knows is listed.
    pub fn complete(names: impl IntoIterator<Item = Arc<str>>) -> Membership {
        Membership { names: names.into_iter().collect(), complete: true }
    }

    /// The issuer listed `names` and said, or implied, that there may be more.
    pub fn partial(names: impl IntoIterator<Item = Arc<str>>) -> Membership {
        Membership { names: names.into_iter().collect(), complete: false }
    }

    pub fn state(&self, name: &str) -> Member {
        match (self.names.contains(name), self.complete) {
            (true, _) => Member::Present,
            (false, true) => Member::Absent,
            (false, false) => Member::Unknown,
        }
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }
}

/// How, and how strongly, the person proved himself. Filled from the session (passkeys) later; from a token only
/// `acr`, `amr` and `auth_time` are known, and none of them counts as a passkey.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assurance {
    pub acr: Option<Arc<str>>,
    pub amr: Vec<Arc<str>>,
    /// What a rule's `acr` is compared with: Entra's authentication contexts (`acrs`), elsewhere the one `acr`.
    pub contexts: Vec<Arc<str>>,
    pub asking: Asking,
    /// Unix seconds of the last active sign-in, as the issuer says.
    pub auth_time: Option<i64>,
    /// Unix seconds of the last passkey touch that *we* verified.
    pub passkey_at: Option<i64>,
    /// That passkey is a hardware key (attested, not synced).
    pub hardware_key: bool,
}

/// How somebody who signed in too weakly for a rule's `acr` is asked for more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Asking {
    /// In the words of RFC 9470.
    #[default]
    Acr,
    /// By a claims challenge of Entra's: his client declared that it can take one (`xms_cc`: `cp1`).
    Claims,
    /// Entra's, and a client that would not understand the challenge.
    Never,
}

/// The agent now acting for the principal (RFC 8693 `act`), outermost actor only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The name rules use after `agent:`.
    pub name: Arc<str>,
}

/// One verified party.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub kind: Kind,
    /// `<issuer name>|<stable id>`; a workload or an agent with an X.509-SVID: its SPIFFE ID. Never an e-mail address.
    pub subject: Arc<str>,
    /// Configured name of the issuer, e.g. `entra`.
    pub issuer: Arc<str>,
    /// The stable id alone, the part of `subject` after `|`; what rules name after `user:`, `workload:` or `agent:`.
    pub id: Arc<str>,
    /// OAuth client the token was issued to (`azp`, `client_id`, `appid`, `cid`).
    pub client: Option<Arc<str>>,
    pub groups: Membership,
    pub roles: Membership,
    pub scopes: Membership,
    /// Set when an agent acts for this principal: then both must be permitted.
    pub agent: Option<Agent>,
    pub assurance: Assurance,
    /// Unix seconds after which this proof is worth nothing.
    pub expires_at: i64,
}
