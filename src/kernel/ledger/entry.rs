//! Entries: canonical JSON of at most 16 KiB, hashed as stored, each with its own salt; personal values stand
//! outside, bound by commitments.
//!
//! The broker drafts, [`Draft::seal`] makes the bytes, and nobody ever writes them again: they are stored, proven and
//! exported as they are. The salt keeps whoever sees only a leaf hash (a proof, a tile) from guessing the entry. A
//! personal value never stands in the bytes; its commitment does, with 32 random bytes of its own, so that erasing
//! value and bytes together makes it unknowable and breaks no proof. Contract: section 6; RFC 8785 for the bytes.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::tree::leaf_hash;
use crate::kernel::{
    digest::{Digest, hex},
    id::{DecisionId, IssuanceId, ReplicaId},
    json::write_canonical,
};

/// The greatest entry. The tile format would carry 64 KiB; a quarter of it is the contract's.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024;

/// The version of entries, their member `v`.
pub const ENTRY_VERSION: u64 = 1;

/// Codes of entries (design: section 6), those that this version writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the manual's table of entries explains each")]
pub enum EntryCode {
    AlertPolicyRejected,
    AlertPolicySkew,
    AlertRevocation,
    AlertRollback,
    ConfigLoaded,
    Denied,
    DryRun,
    Exported,
    Failed,
    Frozen,
    Intent,
    Issued,
    KeyRotated,
    PolicyAccepted,
    PolicyLoaded,
    PolicyRejected,
    Read,
    Released,
    Restored,
    Revoked,
    Revoking,
    SecretRemoved,
    SecretSet,
    Started,
    Stopped,
    Summary,
    Thawed,
    Undelivered,
    Unresolved,
}

/// An entry to be: what happened, before it is given salt and blinding.
#[derive(Default, Clone)]
pub struct Draft {
    /// Its code; an entry without one is refused.
    pub code: Option<EntryCode>,
    /// The decision.
    pub decision: Option<DecisionId>,
    /// The issuance.
    pub issuance: Option<IssuanceId>,
    /// `subject`: `{issuer, profile, tenant, project, …, claims}`; personal values are NOT in it.
    pub subject: Option<Value>,
    /// `policy`.
    pub policy: Option<Value>,
    /// `request`.
    pub request: Option<Value>,
    /// `result`.
    pub result: Option<Value>,
    /// `token`.
    pub token: Option<Value>,
    /// Personal values.
    pub personal: Vec<Personal>,
}

/// A personal value, and where its commitment stands.
#[derive(Clone)]
pub struct Personal {
    /// The claim's name, or `address`, `reason`, `query`.
    pub field: String,
    /// The value.
    pub value: String,
    /// Whether the commitment stands in `subject.claims` (a claim) or in `commitments`.
    pub is_claim: bool,
}

/// A finished entry.
#[derive(Clone)]
pub struct Entry {
    /// Its bytes, as they will be hashed and stored.
    pub bytes: Vec<u8>,
    /// RFC 6962 leaf hash.
    pub leaf: Digest,
    /// Its code.
    pub code: EntryCode,
    /// Its time, whole milliseconds, as its bytes say it.
    pub at: Timestamp,
    /// The decision.
    pub decision: Option<DecisionId>,
    /// The issuance.
    pub issuance: Option<IssuanceId>,
    /// For the erasable table: field, 32 blinding bytes, value.
    pub personal: Vec<(String, [u8; 32], String)>,
}

/// Why a draft cannot be an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// It has more than 16 KiB even after what may be cut was cut.
    #[error("the entry would have {0} bytes, over 16384")]
    TooLarge(usize),
    /// There were no random bytes.
    #[error("no random bytes")]
    NoEntropy,
    /// It has no code, or its subject or the claims in it are no object.
    #[error("the draft has no code, or a subject that is no object")]
    Unfinished,
    /// A number that RFC 8785 cannot write.
    #[error("a number that canonical JSON cannot write")]
    Unwritable,
}

/// Whatever fills a slice with random bytes, and says whether it did.
pub type Random<'a> = &'a dyn Fn(&mut [u8]) -> bool;

impl EntryCode {
    /// Every code, in the order of their words.
    pub const ALL: [Self; 29] = [
        Self::AlertPolicyRejected,
        Self::AlertPolicySkew,
        Self::AlertRevocation,
        Self::AlertRollback,
        Self::ConfigLoaded,
        Self::Denied,
        Self::DryRun,
        Self::Exported,
        Self::Failed,
        Self::Frozen,
        Self::Intent,
        Self::Issued,
        Self::KeyRotated,
        Self::PolicyAccepted,
        Self::PolicyLoaded,
        Self::PolicyRejected,
        Self::Read,
        Self::Released,
        Self::Restored,
        Self::Revoked,
        Self::Revoking,
        Self::SecretRemoved,
        Self::SecretSet,
        Self::Started,
        Self::Stopped,
        Self::Summary,
        Self::Thawed,
        Self::Undelivered,
        Self::Unresolved,
    ];

    /// The code's text, as in the contract: `DENIED`, `ALERT_ROLLBACK`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlertPolicyRejected => "ALERT_POLICY_REJECTED",
            Self::AlertPolicySkew => "ALERT_POLICY_SKEW",
            Self::AlertRevocation => "ALERT_REVOCATION",
            Self::AlertRollback => "ALERT_ROLLBACK",
            Self::ConfigLoaded => "CONFIG_LOADED",
            Self::Denied => "DENIED",
            Self::DryRun => "DRY_RUN",
            Self::Exported => "EXPORTED",
            Self::Failed => "FAILED",
            Self::Frozen => "FROZEN",
            Self::Intent => "INTENT",
            Self::Issued => "ISSUED",
            Self::KeyRotated => "KEY_ROTATED",
            Self::PolicyAccepted => "POLICY_ACCEPTED",
            Self::PolicyLoaded => "POLICY_LOADED",
            Self::PolicyRejected => "POLICY_REJECTED",
            Self::Read => "READ",
            Self::Released => "RELEASED",
            Self::Restored => "RESTORED",
            Self::Revoked => "REVOKED",
            Self::Revoking => "REVOKING",
            Self::SecretRemoved => "SECRET_REMOVED",
            Self::SecretSet => "SECRET_SET",
            Self::Started => "STARTED",
            Self::Stopped => "STOPPED",
            Self::Summary => "SUMMARY",
            Self::Thawed => "THAWED",
            Self::Undelivered => "UNDELIVERED",
            Self::Unresolved => "UNRESOLVED",
        }
    }

    /// Reads a code; `None` for one that this version does not write.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == text)
    }
}

impl std::fmt::Display for EntryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Draft {
    /// A draft of that code, with nothing else in it.
    pub fn of(code: EntryCode) -> Self {
        Self { code: Some(code), ..Self::default() }
    }

    /// Makes the entry. `random` fills a slice with random bytes, and is asked once for the salt (16) and once a
    /// personal value (32).
    ///
    /// # Errors
    ///
    /// [`EntryFault`].
    pub fn seal(self, at: Timestamp, replica: ReplicaId, random: Random<'_>) -> Result<Entry, EntryFault> {
        self.assemble(at, replica, random)?.write()
    }

    /// Makes the entry, without the job's claims where they are what does not fit or cannot be written: `subject` keeps
    /// its other members, gets `claims_cut: true`, and personal claims keep their commitments. What happened can then
    /// be recorded whatever a CI system put into a token; only replay and `explain` answer `unknown` for it.
    ///
    /// # Errors
    ///
    /// [`EntryFault`].
    pub fn seal_or_slim(
        self,
        at: Timestamp,
        replica: ReplicaId,
        random: Random<'_>,
    ) -> Result<Entry, EntryFault> {
        let mut assembled = self.assemble(at, replica, random)?;
        match assembled.bytes() {
            Ok(bytes) => Ok(assembled.into_entry(bytes)),
            Err(EntryFault::TooLarge(_) | EntryFault::Unwritable) => {
                assembled.cut_claims();
                assembled.write()
            }
            Err(fault) => Err(fault),
        }
    }

    fn assemble(
        self,
        at: Timestamp,
        replica: ReplicaId,
        random: Random<'_>,
    ) -> Result<Assembled, EntryFault> {
        let code = self.code.ok_or(EntryFault::Unfinished)?;
        let at = Timestamp::from_millisecond(at.as_millisecond()).map_err(|_| EntryFault::Unwritable)?;
        let mut subject = match self.subject {
            None => None,
            Some(Value::Object(members)) => Some(members),
            Some(_) => return Err(EntryFault::Unfinished),
        };
        let mut commitments = Map::new();
        let mut personal = Vec::with_capacity(self.personal.len());
        for Personal { field, value, is_claim } in self.personal {
            let blind: [u8; 32] = fresh(random)?;
            let commitment = json!({ "commitment": commitment(&blind, &field, &value).to_string() });
            let holder = if is_claim {
                let claims = subject.get_or_insert_default().entry("claims").or_insert_with(|| json!({}));
                claims.as_object_mut().ok_or(EntryFault::Unfinished)?
            } else {
                &mut commitments
            };
            holder.insert(field.clone(), commitment);
            personal.push((field, blind, value));
        }
        let salt: [u8; 16] = fresh(random)?;
        let members = [
            ("v", Some(Value::from(ENTRY_VERSION))),
            ("code", Some(Value::from(code.as_str()))),
            ("at", Some(Value::from(format!("{at:.3}")))),
            ("salt", Some(Value::from(hex(&salt)))),
            ("replica", Some(Value::from(replica.to_string()))),
            ("decision", self.decision.map(|id| id.to_string().into())),
            ("issuance", self.issuance.map(|id| id.to_string().into())),
            ("subject", subject.map(Value::Object)),
            ("policy", self.policy),
            ("request", self.request),
            ("result", self.result),
            ("token", self.token),
            ("commitments", (!commitments.is_empty()).then_some(Value::Object(commitments))),
        ];
        let present = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let (decision, issuance) = (self.decision, self.issuance);
        Ok(Assembled { members: Value::Object(present.collect()), code, at, decision, issuance, personal })
    }
}

/// An entry whose members stand, and whose bytes are still to be written.
struct Assembled {
    /// An object.
    members: Value,
    code: EntryCode,
    at: Timestamp,
    decision: Option<DecisionId>,
    issuance: Option<IssuanceId>,
    personal: Vec<(String, [u8; 32], String)>,
}

impl Assembled {
    fn write(self) -> Result<Entry, EntryFault> {
        let bytes = self.bytes()?;
        Ok(self.into_entry(bytes))
    }

    fn bytes(&self) -> Result<Vec<u8>, EntryFault> {
        let bytes = write_canonical(&self.members).map_err(|_| EntryFault::Unwritable)?;
        if bytes.len() > MAX_ENTRY_BYTES { Err(EntryFault::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    fn into_entry(self, bytes: Vec<u8>) -> Entry {
        let Self { code, at, decision, issuance, personal, .. } = self;
        Entry { leaf: leaf_hash(&bytes), bytes, code, at, decision, issuance, personal }
    }

    fn cut_claims(&mut self) {
        let Some(Value::Object(subject)) = self.members.get_mut("subject") else { return };
        if let Some(Value::Object(claims)) = subject.get_mut("claims") {
            // Both: a job may send a claim that is called `address` too, which is another thing.
            let is_personal = |name: &str| self.personal.iter().any(|(field, ..)| field == name);
            claims.retain(|name, claim| is_personal(name) && claim.get("commitment").is_some());
            if claims.is_empty() {
                subject.remove("claims");
            }
        }
        subject.insert("claims_cut".to_owned(), Value::Bool(true));
    }
}

/// The commitment to a personal value: SHA-256(32 random bytes || field || value).
pub fn commitment(blind: &[u8; 32], field: &str, value: &str) -> Digest {
    Digest::of(&[blind.as_slice(), field.as_bytes(), value.as_bytes()].concat())
}

fn fresh<const N: usize>(random: Random<'_>) -> Result<[u8; N], EntryFault> {
    let mut bytes = [0; N];
    if !random(&mut bytes) {
        return Err(EntryFault::NoEntropy);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn at() -> Timestamp {
        "2026-11-23T10:20:30.4567891Z".parse().unwrap()
    }

    fn replica() -> ReplicaId {
        ReplicaId::from_bytes([1; 16])
    }

    fn draft() -> Draft {
        Draft {
            subject: Some(
                json!({ "issuer": "github", "project": "701", "claims": { "ref": "refs/heads/main", "n": 7 } }),
            ),
            result: Some(json!({ "failed": ["environment"] })),
            personal: vec![
                Personal { field: "actor".to_owned(), value: "octocat".to_owned(), is_claim: true },
                Personal { field: "address".to_owned(), value: "192.0.2.7".to_owned(), is_claim: false },
            ],
            decision: Some(DecisionId::from_bytes([2; 16])),
            ..Draft::of(EntryCode::Denied)
        }
    }

    fn counting() -> impl Fn(&mut [u8]) -> bool {
        let next = Cell::new(0_u8);
        move |out| {
            next.set(next.get() + 1);
            out.fill(next.get());
            true
        }
    }

    fn seal(draft: Draft) -> Result<Entry, EntryFault> {
        draft.seal(at(), replica(), &counting())
    }

    #[test]
    fn the_bytes_are_the_canonical_json_that_the_manual_promises() {
        let entry = seal(draft()).unwrap();
        let actor = commitment(&[1; 32], "actor", "octocat");
        let address = commitment(&[2; 32], "address", "192.0.2.7");
        let expected = format!(
            "{{\"at\":\"2026-11-23T10:20:30.456Z\",\"code\":\"DENIED\",\
             \"commitments\":{{\"address\":{{\"commitment\":\"{address}\"}}}},\
             \"decision\":\"dec_0208420g81040g2081040g2081\",\"replica\":\"rep_0108420g81040g2081040g2081\",\
             \"result\":{{\"failed\":[\"environment\"]}},\"salt\":\"{}\",\
             \"subject\":{{\"claims\":{{\"actor\":{{\"commitment\":\"{actor}\"}},\"n\":7,\"ref\":\"refs/heads/main\"}},\
             \"issuer\":\"github\",\"project\":\"701\"}},\"v\":1}}",
            "03".repeat(16),
        );
        let decision = DecisionId::from_bytes([2; 16]).to_string();
        let expected = expected
            .replace("dec_0208420g81040g2081040g2081", &decision)
            .replace("rep_0108420g81040g2081040g2081", &replica().to_string());
        assert_eq!(String::from_utf8(entry.bytes.clone()).unwrap(), expected);
        assert_eq!(entry.leaf, Digest::of(&[&[0], entry.bytes.as_slice()].concat()));
        assert_eq!(entry.at.to_string(), "2026-11-23T10:20:30.456Z");
    }

    #[test]
    fn a_commitment_is_the_plain_hash_of_bytes_field_and_value() {
        let hash = Digest::of(&[[9; 32].as_slice(), b"actoroctocat"].concat());
        assert_eq!(commitment(&[9; 32], "actor", "octocat"), hash);
    }

    #[test]
    fn personal_values_stand_outside_the_bytes() {
        let mut draft = draft();
        draft.subject = Some(json!({ "claims": { "actor": "octocat" } }));
        let entry = seal(draft).unwrap();
        let text = String::from_utf8(entry.bytes).unwrap();
        assert!(!text.contains("octocat") && !text.contains("192.0.2.7"), "{text}");
        let kept: Vec<&str> = entry.personal.iter().map(|(_, _, value)| value.as_str()).collect();
        assert_eq!(kept, ["octocat", "192.0.2.7"]);
    }

    #[test]
    fn whole_seconds_have_three_digits_too() {
        let entry = Draft::of(EntryCode::Started)
            .seal("2026-11-23T10:20:30Z".parse().unwrap(), replica(), &counting())
            .unwrap();
        assert!(String::from_utf8(entry.bytes).unwrap().contains("\"at\":\"2026-11-23T10:20:30.000Z\""));
    }

    #[test]
    fn an_entry_over_16_kib_is_refused_and_its_slim_form_is_not() {
        let mut large = draft();
        let claims: Map<String, Value> =
            (0..9).map(|n| (format!("claim-{n}"), "x".repeat(2048).into())).collect();
        large.subject = Some(json!({ "issuer": "github", "project": "701", "claims": claims }));
        assert!(matches!(seal(large.clone()), Err(EntryFault::TooLarge(18_000..))));
        let slim = large.seal_or_slim(at(), replica(), &counting()).unwrap();
        let value: Value = serde_json::from_slice(&slim.bytes).unwrap();
        assert_eq!(value["subject"]["project"], "701");
        assert_eq!(value["subject"]["claims_cut"], true);
        assert_eq!(value["subject"]["claims"].as_object().unwrap().keys().collect::<Vec<_>>(), ["actor"]);
        assert_eq!(slim.personal.len(), 2);
    }

    #[test]
    fn numbers_that_a_double_would_change_are_refused_or_cut_with_the_claims() {
        for (number, fits) in
            [(json!((1_i64 << 53) - 1), true), (json!(1_i64 << 53), false), (json!(i64::MIN), false)]
        {
            let mut draft = draft();
            draft.subject = Some(json!({ "claims": { "n": [number] } }));
            assert_eq!(seal(draft.clone()).err(), (!fits).then_some(EntryFault::Unwritable));
            assert!(draft.seal_or_slim(at(), replica(), &counting()).is_ok());
        }
    }

    #[test]
    fn nothing_is_sealed_without_entropy_or_a_code() {
        assert_eq!(draft().seal(at(), replica(), &|_| false).err(), Some(EntryFault::NoEntropy));
        assert_eq!(seal(Draft { code: None, ..draft() }).err(), Some(EntryFault::Unfinished));
        assert_eq!(seal(Draft { subject: Some(json!([])), ..draft() }).err(), Some(EntryFault::Unfinished));
    }

    #[test]
    fn codes_are_told_apart_and_read_back() {
        for code in EntryCode::ALL {
            assert_eq!(EntryCode::parse(code.as_str()), Some(code));
        }
        assert!(EntryCode::ALL.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
        assert_eq!(EntryCode::parse("denied"), None);
    }
}
