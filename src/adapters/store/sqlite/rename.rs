//! Naming an empty ledger anew: its origin stands in every checkpoint that leaves the machine, so it can be changed
//! until the first entry, and never after it.

use std::path::Path;

use rusqlite::{TransactionBehavior, params};

use super::{
    Sqlite, Trouble, head,
    keys::{self, LEDGER},
    open::{OpenFault, look, read_text},
    schema::writing,
};
use crate::kernel::{ledger::checkpoint::LogKey, sealing::Keyring};

impl Sqlite {
    /// Names the ledger, where it has no entry yet; answers whether that is its name now. The key stays.
    ///
    /// # Errors
    ///
    /// [`OpenFault`]; `Damaged` for an origin that a checkpoint cannot carry.
    pub fn name_ledger(path: &Path, sealing: &Keyring, origin: &str) -> Result<bool, OpenFault> {
        look(path, Some(sealing))?;
        let mut conn = writing(path)?;
        let change = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if read_text(&change, "origin")? == origin {
            return Ok(true);
        }
        let head = head::load(&change)?;
        if head.frontier.size() > 0 {
            return Ok(false);
        }
        let (_, seed) = keys::open(&change, sealing, LEDGER)?;
        let log = LogKey::from_seed(origin, &seed)
            .ok_or(Trouble::Damaged("a checkpoint cannot carry this origin"))?;
        let verifier = log.verifier().to_string();
        for (name, value) in [("origin", origin), ("ledger_key", verifier.as_str())] {
            change.execute("UPDATE meta SET value = ?2 WHERE name = ?1", params![name, value.as_bytes()])?;
        }
        change.execute("UPDATE head SET note = ?1 WHERE one = 1", [log.sign(0, &head.root)])?;
        change.commit()?;
        Ok(true)
    }
}
