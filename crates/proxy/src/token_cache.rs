//! Verified access tokens by the SHA-256 of their text, bounded in memory; and, beside each, the Txn-Tokens minted for
//! it. Remembers only what was verified in full; every use checks again what can have changed since (keys, issuer, time).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use trust::issuer::Profile;
use trust::principal::{Membership, Principal};
use trust::token::{Binding, Facts, Overage};

use crate::audit::record::PrincipalFacts;
use crate::clock::UnixMs;
use crate::view::View;

pub type Digest = [u8; 32];

/// Bytes that all entries of one worker hold at most, about; see [`Entry::weight`].
const WEIGHT_MAX: usize = 16 * 1024 * 1024;
/// An entry without its texts: its structs, its place in the map, the headers of its allocations.
const ENTRY_WEIGHT: usize = 1024;
/// A name besides its bytes: the header of its allocation, and its slots in the principal's set and in what records tell.
const NAME_WEIGHT: usize = 80;
/// A remembered Txn-Token besides its texts.
const MINTED_WEIGHT: usize = 256;
/// Txn-Tokens remembered for one access token.
const MINTED_MAX: usize = 8;

/// One access token that was verified in full.
pub struct Entry {
    pub principal: Principal,
    /// What every request with this token has to prove.
    pub binding: Binding,
    pub facts: Arc<Facts>,
    /// What it was verified with: another profile or key set makes the entry worthless.
    pub profile: Arc<Profile>,
    pub keys_version: u64,
    /// From when to when what was asked for counts, in Unix seconds, the end excluded; `None`: nothing was asked for.
    pub counts: Option<(i64, i64)>,
    /// Whose groups the token leaves out.
    pub overage: Option<Overage>,
    /// Why those are still unknown.
    pub groups_unknown: Option<Arc<str>>,
    own_weight: usize,
    minted: Mutex<Vec<Minted>>,
    recorded: Mutex<Option<Recorded>>,
}

/// The principal as records tell it, and the view whose groups it was projected to.
struct Recorded {
    view: Weak<View>,
    facts: Arc<PrincipalFacts>,
}

/// A Txn-Token that may be used again for requests equal in everything it says.
#[derive(Clone)]
pub struct Minted {
    pub key: MintKey,
    pub header: http::HeaderValue,
    pub txn: Arc<str>,
    pub tth: Arc<str>,
    pub minted_at: UnixMs,
    pub expires_at: i64,
}

/// Everything a Txn-Token says besides principal and time.
#[derive(Clone, PartialEq, Eq)]
pub struct MintKey {
    pub route: Arc<str>,
    pub scope: Arc<str>,
    /// Truncated client address.
    pub client_net: IpAddr,
    /// Key of the minter: a rotated key mints anew.
    pub kid: Arc<str>,
    /// Another snapshot may project other groups, or bear another trust domain.
    pub epoch: u64,
}

impl Entry {
    pub fn new(
        principal: Principal,
        binding: Binding,
        facts: Facts,
        profile: Arc<Profile>,
        keys_version: u64,
    ) -> Entry {
        let (minted, recorded) = (Mutex::new(Vec::new()), Mutex::new(None));
        let own_weight = own_weight(&principal, &facts);
        Entry {
            principal,
            binding,
            facts: Arc::new(facts),
            profile,
            keys_version,
            counts: None,
            overage: None,
            groups_unknown: None,
            own_weight,
            minted,
            recorded,
        }
    }

    /// What a record tells of the principal under `view`; made by `project` when it is asked for the first time.
    pub fn recorded(
        &self,
        view: &Arc<View>,
        project: impl FnOnce(&Principal) -> PrincipalFacts,
    ) -> Arc<PrincipalFacts> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        match &*recorded {
            Some(known) if std::ptr::eq(known.view.as_ptr(), Arc::as_ptr(view)) => Arc::clone(&known.facts),
            _ => {
                let facts = Arc::new(project(&self.principal));
                *recorded = Some(Recorded { view: Arc::downgrade(view), facts: Arc::clone(&facts) });
                facts
            }
        }
    }

    /// A remembered Txn-Token for `key`, younger than `reuse` and with at least half a second to live.
    pub fn minted(&self, key: &MintKey, reuse: Duration, now: UnixMs) -> Option<Minted> {
        let minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        let young = |m: &&Minted| {
            let age_ms = u128::from(now.0.saturating_sub(m.minted_at.0));
            m.key == *key && now >= m.minted_at && age_ms < reuse.as_millis() && m.expires_at > now.seconds() + 1
        };
        minted.iter().find(young).cloned()
    }

    fn remember(&self, minted: Minted) {
        let mut all = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|old| old.key != minted.key);
        if all.len() >= MINTED_MAX {
            all.remove(0);
        }
        all.push(minted);
    }

    /// Bytes of memory it holds now, about.
    fn weight(&self) -> usize {
        let minted = self.minted.lock().unwrap_or_else(PoisonError::into_inner);
        self.own_weight + minted.iter().map(Minted::weight).sum::<usize>()
    }
}

/// What an entry weighs without Txn-Tokens. A short token can hold thousands of groups, so each of them counts.
fn own_weight(who: &Principal, facts: &Facts) -> usize {
    let agent = who.agent.as_ref().map(|agent| &agent.name);
    let texts = [Some(&who.subject), Some(&who.id), who.client.as_ref(), agent, who.assurance.acr.as_ref()];
    let sets = [&who.groups, &who.roles, &who.scopes].into_iter().flat_map(Membership::names);
    let more = [&facts.kid, &facts.token_id];
    ENTRY_WEIGHT
        + texts.into_iter().flatten().map(|text| text.len()).sum::<usize>()
        + more.into_iter().flatten().map(String::len).sum::<usize>()
        + sets
            .chain(&who.assurance.amr)
            .chain(&who.assurance.contexts)
            .map(|name| NAME_WEIGHT + name.len())
            .sum::<usize>()
        + facts.audience.iter().map(|audience| NAME_WEIGHT + audience.len()).sum::<usize>()
}

impl Minted {
    fn weight(&self) -> usize {
        MINTED_WEIGHT + self.header.len() + self.txn.len() + self.tth.len()
    }
}

/// One worker's verified tokens: two generations, so that the oldest half falls out at once without any list to keep.
#[derive(Default)]
pub struct TokenCache {
    generations: Mutex<Generations>,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Digest, Arc<Entry>>,
    old: HashMap<Digest, Arc<Entry>>,
    young_weight: usize,
}

impl TokenCache {
    pub fn get(&self, digest: &Digest) -> Option<Arc<Entry>> {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = generations.young.get(digest) {
            return Some(Arc::clone(entry));
        }
        let entry = generations.old.remove(digest)?;
        generations.insert(*digest, Arc::clone(&entry));
        Some(entry)
    }

    pub fn insert(&self, digest: Digest, entry: Arc<Entry>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.insert(digest, entry);
    }

    /// Keeps a Txn-Token beside the access token it was minted for.
    pub fn remember(&self, entry: &Entry, minted: Minted) {
        let weight = minted.weight();
        entry.remember(minted);
        self.generations.lock().unwrap_or_else(PoisonError::into_inner).make_room(weight);
    }

    pub fn remove(&self, digest: &Digest) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.remove(digest);
        generations.old.remove(digest);
    }

    pub fn len(&self) -> usize {
        let generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.young.len() + generations.old.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Generations {
    fn insert(&mut self, digest: Digest, entry: Arc<Entry>) {
        self.make_room(entry.weight());
        self.young.insert(digest, entry);
    }

    fn make_room(&mut self, weight: usize) {
        if self.young_weight + weight > WEIGHT_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_weight = 0;
        }
        self.young_weight += weight;
    }
}

/// The network of a client address as records and tokens carry it: /24 and /48.
pub fn client_net(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & 0xffff_ff00).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 80)).into()),
    }
}

/// `203.0.113.0/24`, `2001:db8:1::/48`.
pub fn client_net_text(net: IpAddr) -> String {
    match net {
        IpAddr::V4(v4) => format!("{v4}/24"),
        IpAddr::V6(v6) => format!("{v6}/48"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trust::issuer::{ClaimPaths, Preset, Settings};
    use trust::principal::{Assurance, Kind};

    fn entry() -> Arc<Entry> {
        entry_in([])
    }

    fn entry_in(groups: impl IntoIterator<Item = String>) -> Arc<Entry> {
        let settings = Settings {
            name: "demo".into(),
            preset: Preset::Generic,
            issuer: Some("https://id.example".into()),
            tenant: None,
            tenants: vec![],
            pool: None,
            audience: vec!["acme".into()],
            clients: vec![],
            algorithms: vec![],
            claims: ClaimPaths::default(),
            agents: vec![],
            leeway_s: 60,
            jwks_uri: None,
            jwks_file: None,
            accept_typ_jwt: true,
            ..Settings::default()
        };
        let principal = Principal {
            kind: Kind::Person,
            subject: "demo|ana".into(),
            issuer: "demo".into(),
            id: "ana".into(),
            client: None,
            groups: Membership::complete(groups.into_iter().map(Arc::from)),
            roles: Membership::complete([]),
            scopes: Membership::complete([]),
            agent: None,
            assurance: Assurance::default(),
            expires_at: 100,
        };
        let facts = Facts {
            kid: None,
            algorithm: "ES256".into(),
            audience: vec![],
            issued_at: None,
            expires_at: 100,
            token_id: None,
            bound: None,
        };
        Arc::new(Entry::new(principal, Binding::default(), facts, Arc::new(Profile::new(settings).unwrap()), 1))
    }

    fn digest(n: u32) -> Digest {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_be_bytes());
        digest
    }

    fn minted(at: u64) -> Minted {
        let key = MintKey {
            route: "r".into(),
            scope: "s".into(),
            client_net: IpAddr::from([1, 2, 3, 0]),
            kid: "k".into(),
            epoch: 1,
        };
        Minted {
            key,
            header: http::HeaderValue::from_static("t"),
            txn: "t".into(),
            tth: "h".into(),
            minted_at: UnixMs(at),
            expires_at: 1_000,
        }
    }

    /// A flood of tokens like this one: how many of them are remembered.
    fn kept(entry: &Arc<Entry>) -> usize {
        let cache = TokenCache::default();
        (0..20_000).for_each(|n| cache.insert(digest(n), Arc::clone(entry)));
        assert!(cache.get(&digest(19_999)).is_some());
        assert!(cache.get(&digest(1)).is_none());
        cache.len()
    }

    #[test]
    fn memory_stays_bounded_whatever_the_tokens_hold() {
        let small = kept(&entry());
        assert!((8_000..=WEIGHT_MAX / ENTRY_WEIGHT).contains(&small), "{small}");
        // 4,000 groups of one letter and a number fit into a token of 16 KiB, and cost at least 48 bytes each here.
        let many = kept(&entry_in((0..4_000).map(|n| format!("g{n}"))));
        assert!((2..=WEIGHT_MAX / (4_000 * 48)).contains(&many), "{many}");
        let long = kept(&entry_in(["g".repeat(16_000)]));
        assert!((2..=WEIGHT_MAX / 16_000).contains(&long), "{long}");
    }

    #[test]
    fn remembered_txn_tokens_count_too() {
        let cache = TokenCache::default();
        let header = http::HeaderValue::from_str(&"t".repeat(2_000)).unwrap();
        for n in 0..20_000 {
            let entry = entry();
            cache.insert(digest(n), Arc::clone(&entry));
            cache.remember(&entry, Minted { header: header.clone(), ..minted(0) });
        }
        assert!((2..=WEIGHT_MAX / 3_000).contains(&cache.len()), "{}", cache.len());
        let entry = cache.get(&digest(19_999)).unwrap();
        assert!(entry.weight() > 3_000 && entry.minted(&minted(0).key, Duration::from_secs(1), UnixMs(0)).is_some());
    }

    #[test]
    fn what_is_used_survives_a_generation() {
        let cache = TokenCache::default();
        let entry = entry();
        cache.insert(digest(0), Arc::clone(&entry));
        for n in 1..40_000 {
            cache.insert(digest(n), Arc::clone(&entry));
            assert!(cache.get(&digest(0)).is_some(), "{n}");
        }
    }

    #[test]
    fn a_txn_token_is_reused_only_while_young_and_for_equal_requests() {
        let entry = entry();
        entry.remember(minted(10_000));
        let key = minted(0).key;
        let reuse = Duration::from_secs(10);
        assert!(entry.minted(&key, reuse, UnixMs(10_000)).is_some());
        assert!(entry.minted(&key, reuse, UnixMs(19_999)).is_some());
        assert!(entry.minted(&key, reuse, UnixMs(20_000)).is_none(), "too old");
        assert!(entry.minted(&key, reuse, UnixMs(9_999)).is_none(), "the clock went back");
        assert!(entry.minted(&key, Duration::ZERO, UnixMs(10_000)).is_none(), "reuse is off");
        let other = MintKey { scope: "orders.write".into(), ..key };
        assert!(entry.minted(&other, reuse, UnixMs(10_000)).is_none());
    }

    #[test]
    fn addresses_are_truncated() {
        let text = |ip: &str| client_net_text(client_net(ip.parse().unwrap()));
        assert_eq!(text("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(text("2001:db8:1:2::3"), "2001:db8:1::/48");
        assert_eq!(text("::ffff:203.0.113.77"), "203.0.113.0/24");
    }
}
