//! An entry as a database holds it, with the columns that repeat what its bytes say.

use jiff::Timestamp;

use super::columns::spoken_of;
use crate::kernel::{
    digest::Digest,
    id::{DecisionId, IssuanceId},
    json::read_bounded,
    ledger::tree::leaf_hash,
};

/// An entry with everything that the database holds of it, for exports and for looking whether it holds together.
pub struct LedgerRow {
    /// Its index.
    pub index: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its leaf hash as stored.
    pub leaf: Digest,
    /// Its code as stored.
    pub code: String,
    /// Personal values that were not erased: field, blinding bytes, value.
    pub personal: Vec<(String, [u8; 32], String)>,
    pub(in crate::adapters::store) at: Timestamp,
    pub(in crate::adapters::store) decision: Option<[u8; 16]>,
    pub(in crate::adapters::store) issuance: Option<[u8; 16]>,
    pub(in crate::adapters::store) issuer: Option<String>,
    pub(in crate::adapters::store) grants: Option<String>,
}

impl LedgerRow {
    /// The first column that says something else than the entry's bytes do, if any: somebody changed the database
    /// with other tools.
    pub fn column_fault(&self) -> Option<&'static str> {
        let Ok(value) = read_bounded(&self.bytes) else { return Some("bytes") };
        let text = |name| value.get(name).and_then(serde_json::Value::as_str);
        let decision = text("decision").and_then(DecisionId::parse).map(|id| id.bytes());
        let issuance = text("issuance").and_then(IssuanceId::parse).map(|id| id.bytes());
        let at = text("at").and_then(|at| at.parse::<Timestamp>().ok());
        let (issuer, grants) = spoken_of(&self.bytes);
        let columns = [
            ("leaf", self.leaf == leaf_hash(&self.bytes)),
            ("code", text("code") == Some(&self.code)),
            ("at", at == Some(self.at)),
            ("decision", decision == self.decision),
            ("issuance", issuance == self.issuance),
            ("issuer", issuer == self.issuer),
            ("grants", grants == self.grants),
        ];
        columns.into_iter().find(|(_, holds)| !holds).map(|(name, _)| name)
    }
}
