//! Assertions that Hallpass signs itself: what they say, and which key signs when.
//!
//! A key is known to verifiers before it signs, and stays known until nothing that it signed is good any more and their
//! caches have turned over. Its dates stand in the database, and its state is a function of them and the time: replicas
//! agree on it without a word between them, and nobody has to be awake when it changes.
//!
//! Sources: RFC 7519 (claims), `OpenID` Connect Core 1.0 section 10.1.1 (rotation of signing keys), AWS IAM user guide
//! "Pass session tags in AWS STS" (`https://aws.amazon.com/tags`, `https://aws.amazon.com/source_identity`).

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::kernel::{id::IssuanceId, name::GrantName, secret::Secret};

/// The longest life of an assertion (design: section 5).
pub const MAX_LIFE: Duration = Duration::from_secs(300);

/// The audience of AWS STS, unless a role's provider names another.
pub const AWS_AUDIENCE: &str = "sts.amazonaws.com";

/// How assertions are signed (RFC 7518 section 3.1): the two that every cloud of the reference takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256; what everybody takes.
    Rs256,
    /// ECDSA on P-256 with SHA-256; for audiences that want it.
    Es256,
}

/// Where a key is in its life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KeyState {
    /// Verifiers can learn it; it signs nothing yet.
    Published,
    /// It signs.
    Active,
    /// It signs no more; what it signed may still be good somewhere.
    Retired,
    /// Nobody is told of it any more.
    Removed,
}

/// The dates of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Since when verifiers can learn it.
    pub published_at: Timestamp,
    /// From when it signs.
    pub active_at: Timestamp,
    /// From when it signs no more; none while no other comes after it.
    pub retired_at: Option<Timestamp>,
    /// From when nobody is told of it; none while no other comes after it.
    pub removed_at: Option<Timestamp>,
}

/// A key as the store keeps it.
pub struct AssertionKey {
    /// What it signs with.
    pub algorithm: Algorithm,
    /// Its number among those of its algorithm, from 1.
    pub version: u64,
    /// Its dates.
    pub schedule: Schedule,
    /// Its private half, PKCS#8; none once it has signed its last, or where the store was opened without the sealing
    /// key.
    pub private: Option<Secret>,
    /// Its public half as a JWK; none of a first key until it is rotated, since it follows from the private one.
    pub public: Option<String>,
}

/// What one assertion says.
#[derive(Clone, Copy)]
pub struct Claims<'a> {
    /// `aud`: exactly one, as a text.
    pub audience: &'a str,
    /// The grant: `sub` is `grant:<name>`, which has 7 to 69 bytes (AWS takes no fewer than 6, Google no more than 127).
    pub grant: &'a GrantName,
    /// `jti`.
    pub issuance: IssuanceId,
    /// `iat` and `nbf`, to the second.
    pub now: Timestamp,
    /// How long it holds; [`MAX_LIFE`] cuts.
    pub life: Duration,
    /// What AWS takes from an assertion and from nowhere else.
    pub aws: Option<&'a AwsClaims>,
}

/// Claims for AWS STS. Their values come from the policy, never from a claim of the CI token that no template names.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct AwsClaims {
    /// Session tags.
    pub tags: BTreeMap<String, String>,
    /// The keys of those tags that go along into the next role.
    pub transitive: Vec<String>,
    /// The source identity, which no later role can change.
    pub source_identity: Option<String>,
}

impl Algorithm {
    /// All of them, the common one first.
    pub const ALL: [Self; 2] = [Self::Rs256, Self::Es256];

    /// Its name in JOSE.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }

    /// The algorithm of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

impl KeyState {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Removed => "removed",
        }
    }

    /// Whether verifiers are told of such a key.
    pub fn is_told(self) -> bool {
        match self {
            Self::Published | Self::Active | Self::Retired => true,
            Self::Removed => false,
        }
    }
}

impl Schedule {
    /// Of a key of an issuer that nobody knew before: there is no cache that lacks it, so it signs at once.
    pub fn first(now: Timestamp) -> Self {
        Self { published_at: now, active_at: now, retired_at: None, removed_at: None }
    }

    /// Of a key that comes after others: it signs once every cache has it.
    pub fn after(now: Timestamp, lead: Duration) -> Self {
        Self { active_at: later(now, lead), ..Self::first(now) }
    }

    /// This key's dates once that one comes after it: it signs until the other does, and is told of until its last
    /// assertion has ended and the same lead is past.
    pub fn followed_by(self, next: &Self, lead: Duration) -> Self {
        let removed_at = later(later(next.active_at, MAX_LIFE), lead);
        Self { retired_at: Some(next.active_at), removed_at: Some(removed_at), ..self }
    }

    /// This key's dates once it is known to somebody else: nothing that it signs or signed shall hold.
    pub fn withdrawn(self, now: Timestamp) -> Self {
        let sooner = |at: Option<Timestamp>| Some(at.map_or(now, |at| at.min(now)));
        Self { retired_at: sooner(self.retired_at), removed_at: sooner(self.removed_at), ..self }
    }

    /// Its state at that time.
    pub fn state(&self, now: Timestamp) -> KeyState {
        let is_past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if is_past(self.removed_at) {
            KeyState::Removed
        } else if is_past(self.retired_at) {
            KeyState::Retired
        } else if self.active_at <= now {
            KeyState::Active
        } else {
            KeyState::Published
        }
    }
}

/// The dates of the key that comes after those, and of those among them that change: the new one is known for so long
/// before it signs, and the old ones for so long after what they signed has ended.
///
/// # Errors
///
/// When the key before this one begins to sign, where it does not yet.
pub fn rotate(
    keys: &[(u64, Schedule)],
    now: Timestamp,
    lead: Duration,
) -> Result<(Schedule, Vec<(u64, Schedule)>), Timestamp> {
    if let Some((_, waiting)) = keys.iter().find(|(_, dates)| dates.state(now) == KeyState::Published) {
        return Err(waiting.active_at);
    }
    // Also where there is none before: the issuer may be known, and verifiers keep a set that lacks this key.
    let next = Schedule::after(now, lead);
    let active = keys.iter().filter(|(_, dates)| dates.state(now) == KeyState::Active);
    Ok((next, active.map(|(version, dates)| (*version, dates.followed_by(&next, lead))).collect()))
}

/// The same where those keys are known to somebody else: the new one signs at once, and no other holds.
pub fn withdraw(keys: &[(u64, Schedule)], now: Timestamp) -> (Schedule, Vec<(u64, Schedule)>) {
    let told = keys.iter().filter(|(_, dates)| dates.state(now).is_told());
    (Schedule::first(now), told.map(|(version, dates)| (*version, dates.withdrawn(now))).collect())
}

impl Claims<'_> {
    /// When it ends, to the second; none where there is no such time.
    pub fn ends(&self) -> Option<Timestamp> {
        let life = i64::try_from(self.life.min(MAX_LIFE).as_secs()).ok()?;
        Timestamp::from_second(self.now.as_second().checked_add(life)?).ok()
    }

    /// The claims set of that issuer. Times are whole seconds, since AWS takes no others; `nbf` is never in the future.
    pub fn to_json(&self, issuer: &str, ends: Timestamp) -> Value {
        let issued = self.now.as_second();
        let mut claims = json!({
            "iss": issuer, "sub": format!("grant:{}", self.grant), "aud": self.audience,
            "iat": issued, "nbf": issued, "exp": ends.as_second(), "jti": self.issuance.to_string(),
        });
        if let (Some(aws), Some(claims)) = (self.aws, claims.as_object_mut()) {
            aws.add_to(claims);
        }
        claims
    }
}

impl AwsClaims {
    fn add_to(&self, claims: &mut Map<String, Value>) {
        if !self.tags.is_empty() {
            let tags: Map<String, Value> =
                self.tags.iter().map(|(key, value)| (key.clone(), json!([value]))).collect();
            let mut told = Map::from_iter([("principal_tags".to_owned(), Value::Object(tags))]);
            if !self.transitive.is_empty() {
                told.insert("transitive_tag_keys".to_owned(), json!(self.transitive));
            }
            claims.insert("https://aws.amazon.com/tags".to_owned(), Value::Object(told));
        }
        if let Some(source) = &self.source_identity {
            claims.insert("https://aws.amazon.com/source_identity".to_owned(), json!(source));
        }
    }
}

fn later(moment: Timestamp, by: Duration) -> Timestamp {
    moment.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAD: Duration = Duration::from_secs(86_400);

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn claims<'a>(grant: &'a GrantName, aws: Option<&'a AwsClaims>) -> Claims<'a> {
        let now = at("2027-01-13T10:00:00.75Z");
        let issuance = IssuanceId::from_bytes([1; 16]);
        Claims { audience: "sigstore", grant, issuance, now, life: Duration::from_secs(120), aws }
    }

    #[test]
    fn a_key_is_published_active_retired_and_removed_in_this_order() {
        let now = at("2027-01-13T10:00:00Z");
        let old = Schedule::first(at("2026-01-01T00:00:00Z"));
        let new = Schedule::after(now, LEAD);
        let old = old.followed_by(&new, LEAD);

        let states = |text: &str| (old.state(at(text)), new.state(at(text)));
        assert_eq!(states("2027-01-13T10:00:00Z"), (KeyState::Active, KeyState::Published));
        assert_eq!(states("2027-01-14T09:59:59.999Z"), (KeyState::Active, KeyState::Published));
        assert_eq!(states("2027-01-14T10:00:00Z"), (KeyState::Retired, KeyState::Active));
        // The last assertion of the old key ends five minutes later, and a day after that nobody has it in a cache.
        assert_eq!(states("2027-01-15T10:04:59.999Z"), (KeyState::Retired, KeyState::Active));
        assert_eq!(states("2027-01-15T10:05:00Z"), (KeyState::Removed, KeyState::Active));
    }

    #[test]
    fn a_key_that_was_stolen_is_told_of_no_more_at_once() {
        let now = at("2027-01-13T10:00:00Z");
        let first = Schedule::first(at("2026-01-01T00:00:00Z"));
        let waiting = Schedule::after(at("2027-01-13T09:00:00Z"), LEAD);
        let old = first.followed_by(&waiting, LEAD);
        for stolen in [first, old, waiting] {
            assert_eq!(stolen.withdrawn(now).state(now), KeyState::Removed);
        }
        // What was removed before stays removed since then.
        let gone = old.withdrawn(at("2027-01-01T00:00:00Z"));
        assert_eq!(gone.withdrawn(now), gone);
    }

    #[test]
    fn a_second_rotation_waits_until_the_first_is_over() {
        let now = at("2027-01-13T10:00:00Z");
        let first = (1, Schedule::first(at("2026-01-01T00:00:00Z")));
        let (second, changed) = rotate(&[first], now, LEAD).unwrap();
        assert_eq!(changed, [(1, first.1.followed_by(&second, LEAD))]);

        let keys = [changed[0], (2, second)];
        assert_eq!(rotate(&keys, at("2027-01-14T09:59:59Z"), LEAD), Err(second.active_at));
        let (third, changed) = rotate(&keys, second.active_at, LEAD).unwrap();
        // The first one keeps the dates that verifiers were promised.
        assert_eq!(changed, [(2, second.followed_by(&third, LEAD))]);
    }

    #[test]
    fn the_first_key_of_an_algorithm_of_a_known_issuer_waits_too() {
        let now = at("2027-01-13T10:00:00Z");
        assert_eq!(rotate(&[], now, LEAD), Ok((Schedule::after(now, LEAD), Vec::new())));
    }

    #[test]
    fn whatever_anybody_else_may_know_is_withdrawn_at_once() {
        let now = at("2027-01-13T10:00:00Z");
        let first = Schedule::first(at("2026-01-01T00:00:00Z"));
        let (second, changed) = rotate(&[(1, first)], at("2027-01-13T09:00:00Z"), LEAD).unwrap();
        let (third, changed) = withdraw(&[changed[0], (2, second)], now);
        assert_eq!(third.state(now), KeyState::Active);
        let states: Vec<_> = changed.iter().map(|(version, dates)| (*version, dates.state(now))).collect();
        assert_eq!(states, [(1, KeyState::Removed), (2, KeyState::Removed)]);
    }

    #[test]
    fn claims_are_the_contracts_and_nothing_of_the_ci_token() {
        let grant = GrantName::parse("payments-prod").unwrap();
        let claims = claims(&grant, None);
        let ends = claims.ends().unwrap();

        let issued = 1_799_834_400;
        assert_eq!(
            claims.to_json("https://hallpass.example.com", ends),
            json!({
                "iss": "https://hallpass.example.com", "sub": "grant:payments-prod", "aud": "sigstore", "iat": issued,
                "nbf": issued, "exp": issued + 120, "jti": IssuanceId::from_bytes([1; 16]).to_string(),
            })
        );
    }

    #[test]
    fn a_subject_has_6_to_127_bytes_whatever_the_grant_is_called() {
        for name in ["a".to_owned(), "a".repeat(63)] {
            let grant = GrantName::parse(&name).unwrap();
            let claims = claims(&grant, None);
            let told = claims.to_json("https://hallpass.example.com", claims.now);
            let subject = told["sub"].as_str().unwrap().len();
            assert!((6..=127).contains(&subject), "{subject}");
        }
        assert!(GrantName::parse("").is_none() && GrantName::parse(&"a".repeat(64)).is_none());
    }

    #[test]
    fn lives_for_at_most_three_hundred_seconds() {
        let grant = GrantName::parse("payments-prod").unwrap();
        for life in [MAX_LIFE, Duration::from_secs(3_600), Duration::MAX] {
            let claims = Claims { life, ..claims(&grant, None) };
            assert_eq!(claims.ends(), Some(at("2027-01-13T10:05:00Z")));
        }
    }

    #[test]
    fn tags_and_source_identity_stand_where_aws_looks_for_them() {
        let grant = GrantName::parse("payments-prod").unwrap();
        let aws = AwsClaims {
            tags: BTreeMap::from([("repo".to_owned(), "acme/payments".to_owned())]),
            transitive: vec!["repo".to_owned()],
            source_identity: Some("iss_1".to_owned()),
        };
        let told =
            claims(&grant, Some(&aws)).to_json("https://hallpass.example.com", at("2027-01-13T10:01:00Z"));
        assert_eq!(
            told["https://aws.amazon.com/tags"],
            json!({ "principal_tags": { "repo": ["acme/payments"] }, "transitive_tag_keys": ["repo"] })
        );
        assert_eq!(told["https://aws.amazon.com/source_identity"], "iss_1");

        let bare = AwsClaims::default();
        let told =
            claims(&grant, Some(&bare)).to_json("https://hallpass.example.com", at("2027-01-13T10:01:00Z"));
        assert_eq!(told.as_object().unwrap().len(), 7);
    }
}
