//! An entry as a database holds it, with the columns that repeat what its bytes say.

use jiff::Timestamp;

use super::{columns::spoken_of, stored::stored};
use crate::{
    broker::audit::KeptRow,
    kernel::{
        digest::Digest,
        id::{DecisionId, IssuanceId},
        json::read_bounded,
        ledger::tree::leaf_hash,
    },
};

/// An entry with everything that the database holds of it, for exports and for looking whether it holds together.
pub struct LedgerRow {
    /// Its index.
    pub index: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its leaf hash as stored; `None` where what is stored is none.
    pub leaf: Option<Digest>,
    /// Personal values that were not erased: field, blinding bytes, value.
    pub personal: Vec<(String, [u8; 32], String)>,
    /// How many personal values cannot be read.
    pub unreadable: usize,
    /// The columns that queries use.
    pub(in crate::adapters::store) columns: Columns,
}

/// The columns that queries use.
#[derive(Default)]
pub(in crate::adapters::store) struct Columns {
    pub(in crate::adapters::store) code: Option<String>,
    pub(in crate::adapters::store) at: Option<i64>,
    pub(in crate::adapters::store) decision: Option<[u8; 16]>,
    pub(in crate::adapters::store) issuance: Option<[u8; 16]>,
    pub(in crate::adapters::store) issuer: Option<String>,
    pub(in crate::adapters::store) grants: Option<String>,
    /// The first that cannot be read.
    pub(in crate::adapters::store) unreadable: Option<&'static str>,
}

impl LedgerRow {
    /// The first column that says something else than the entry's bytes do, if any: somebody changed the database
    /// with other tools.
    pub fn column_fault(&self) -> Option<&'static str> {
        let Ok(value) = read_bounded(&self.bytes) else { return Some("bytes") };
        let text = |name| value.get(name).and_then(serde_json::Value::as_str);
        let decision = text("decision").and_then(DecisionId::parse).map(|id| id.bytes());
        let issuance = text("issuance").and_then(IssuanceId::parse).map(|id| id.bytes());
        let at = text("at").and_then(|at| at.parse::<Timestamp>().ok()).map(stored);
        let (issuer, grants) = spoken_of(&self.bytes);
        let own = &self.columns;
        let columns = [
            ("leaf", self.leaf == Some(leaf_hash(&self.bytes))),
            ("code", text("code") == own.code.as_deref()),
            ("at", at == own.at),
            ("decision", decision == own.decision),
            ("issuance", issuance == own.issuance),
            ("issuer", issuer == own.issuer),
            ("grants", grants == own.grants),
        ];
        let differs = columns.into_iter().find(|(_, holds)| !holds).map(|(name, _)| name);
        differs.or(own.unreadable)
    }
}

impl From<LedgerRow> for KeptRow {
    fn from(row: LedgerRow) -> Self {
        let column = row.column_fault();
        let LedgerRow { index, bytes, leaf, personal, unreadable, .. } = row;
        Self { index, bytes, leaf, personal, column, unreadable }
    }
}
