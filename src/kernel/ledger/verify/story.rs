//! What the entries tell: that each is well-formed, that every issuance was meant before it happened, that time runs
//! forward, that erasable values are those that were committed to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::entry::{ENTRY_VERSION, EntryCode, MAX_ENTRY_BYTES};
use crate::kernel::{digest::Digest, id::ReplicaId, json::read_bounded};

/// What is known of the entries so far.
#[derive(Default)]
pub(super) struct Story {
    /// Intents that wait for their outcome, and where each stands.
    open: HashMap<String, u64>,
    unknown: BTreeMap<String, u64>,
    versions: BTreeSet<u64>,
    latest: Option<Timestamp>,
    /// How many entries are older than the latest before them by more than the tolerance, and the first of them.
    backward: Option<(u64, u64)>,
    /// `at` of the first and of the last entry.
    pub(super) times: Option<(String, String)>,
    /// What an erasable value of the last entry is held against.
    last: Value,
    /// Where commitments of the last entry stand whose values were found.
    opened: BTreeSet<(&'static str, String)>,
}

/// What is wrong with an entry.
pub(super) enum Untold {
    /// It is no entry, whatever stands before it.
    Itself(String),
    /// It does not fit the entries before it; one of them may be what is wrong.
    ByOthers(String),
}

impl From<String> for Untold {
    fn from(fault: String) -> Self {
        Self::Itself(fault)
    }
}

impl From<&str> for Untold {
    fn from(fault: &str) -> Self {
        Self::Itself(fault.to_owned())
    }
}

impl Story {
    /// Takes the next entry; tells what is wrong with it.
    pub(super) fn entry(&mut self, index: u64, bytes: &[u8]) -> Result<(), Untold> {
        self.last = Value::Null;
        self.opened.clear();
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err("it is over 16 KiB".into());
        }
        let value = read_bounded(bytes).map_err(|_| "it is not JSON")?;
        if serde_json_canonicalizer::to_vec(&value).ok().as_deref() != Some(bytes) {
            return Err("it is not canonical JSON".into());
        }
        let told = self.members(index, &value);
        self.last = value;
        told
    }

    /// Whether an erasable value of the last entry is the one that it was bound to. Each commitment has one value: a row
    /// that is there twice was put there by somebody else.
    pub(super) fn personal(&mut self, field: &str, blind: &[u8; 32], value: &str) -> Result<(), String> {
        let found = Digest::of(&[blind.as_slice(), field.as_bytes(), value.as_bytes()].concat());
        let is_bound = |holder: &str| {
            let members = holder.split('/').try_fold(&self.last, |value, name| value.get(name));
            let committed = members.and_then(|members| members.get(field)?.get("commitment")?.as_str());
            committed.and_then(Digest::from_hex) == Some(found)
        };
        let Some(holder) = ["subject/claims", "commitments"].into_iter().find(|holder| is_bound(holder))
        else {
            return Err(format!("the value kept for {field:?} is not the one that the entry was bound to"));
        };
        if self.opened.insert((holder, field.to_owned())) {
            return Ok(());
        }
        Err(format!("the value of {field:?} is kept twice"))
    }

    /// What the last entry says of the ledger's key, where it says that the key was changed.
    pub(super) fn rotation(&self) -> Option<&Value> {
        let result = self.last.get("result")?;
        let is_rotation = self.last.get("code").and_then(Value::as_str) == Some("KEY_ROTATED");
        (is_rotation && result.get("key").and_then(Value::as_str) == Some("ledger")).then_some(result)
    }

    /// What is worth knowing, and no break.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(first) = self.open.values().min() {
            let count = self.open.len();
            notes.push(format!("{count} intents have no outcome yet, the first is entry {first}"));
        }
        if let Some((count, first)) = self.backward {
            notes.push(format!(
                "{count} entries are over 5 s older than one before them, the first is entry {first}"
            ));
        }
        for (code, count) in &self.unknown {
            notes.push(format!("{count} entries have the code {code}, which this version does not know"));
        }
        for version in &self.versions {
            notes.push(format!("there are entries of version {version}, which this version does not know"));
        }
        notes
    }

    fn members(&mut self, index: u64, entry: &Value) -> Result<(), Untold> {
        let text = |name: &str| {
            entry.get(name).and_then(Value::as_str).ok_or_else(|| format!("it has no member {name:?}"))
        };
        let version = entry.get("v").and_then(Value::as_u64).ok_or("it has no member \"v\"")?;
        let (code, at) = (text("code")?, text("at")?);
        let first = self.times.take().map_or_else(|| at.to_owned(), |(first, _)| first);
        self.times = Some((first, at.to_owned()));
        if version != ENTRY_VERSION {
            // A later version may mean something else by every member.
            self.versions.insert(version);
            return Ok(());
        }
        if !text("salt").is_ok_and(is_salt) {
            return Err("its salt is not 16 bytes in hex".into());
        }
        if ReplicaId::parse(text("replica")?).is_none() {
            return Err("its replica is no id".into());
        }
        let moment: Timestamp = at.parse().map_err(|_| "its time is no time")?;
        if format!("{moment:.3}") != at {
            return Err("its time is not UTC in milliseconds".into());
        }
        self.time(index, moment);
        self.pair(index, code, entry.get("issuance").and_then(Value::as_str)).map_err(Untold::ByOthers)
    }

    fn time(&mut self, index: u64, moment: Timestamp) {
        let latest = self.latest.unwrap_or(moment);
        if latest.duration_since(moment) > TOLERANCE {
            let (count, first) = self.backward.unwrap_or((0, index));
            self.backward = Some((count + 1, first));
        }
        self.latest = Some(latest.max(moment));
    }

    /// Intent before issuance (P2). Outcomes other than ISSUED are noted by their intent staying open or not.
    fn pair(&mut self, index: u64, code: &str, issuance: Option<&str>) -> Result<(), String> {
        let known = EntryCode::parse(code);
        match (code, issuance) {
            ("INTENT" | "ISSUED" | "FAILED" | "UNRESOLVED", None) => {
                return Err(format!("{code} without an issuance"));
            }
            ("INTENT", Some(id)) if self.open.contains_key(id) => {
                return Err(format!("a second INTENT of {id}"));
            }
            ("INTENT", Some(id)) => {
                self.open.insert(id.to_owned(), index);
            }
            ("ISSUED", Some(id)) => {
                self.open.remove(id).ok_or_else(|| format!("ISSUED without an open INTENT of {id}"))?;
            }
            ("FAILED" | "UNRESOLVED", Some(id)) => {
                self.open.remove(id);
            }
            _ if known.is_none() && !LATER_CODES.contains(&code) && !code.starts_with("ALERT_") => {
                *self.unknown.entry(code.to_owned()).or_default() += 1;
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_salt(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Codes of the contract that this version knows and does not write (design: section 6); alerts beside them.
const LATER_CODES: [&str; 6] = ["LOGIN", "POLICY_ACCEPTED", "PRUNED", "REDACTED", "REVOKED", "UNRESOLVED"];

/// Replicas append to one log, each by its own clock; one that is more than 5 s off the database's is not ready
/// (design: section 2, "Time").
const TOLERANCE: SignedDuration = SignedDuration::from_secs(5);
