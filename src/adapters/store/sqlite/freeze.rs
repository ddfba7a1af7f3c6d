//! Freezes: looked up in the transaction that would issue, so that each holds from its commit for every process of
//! this store; changed together with their entries (design: section 8, "Emergency").

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::{
    batch::{Batch, Command},
    schema::{digest, moment, stored},
};
use crate::{
    adapters::store::shared::columns::Prepared,
    kernel::{
        digest::Digest,
        freeze::{Freezable, Freeze, FreezeScope},
    },
};

/// The freezes that hold for a job, widest first.
pub(super) fn holding(conn: &Connection, subject: &Freezable) -> rusqlite::Result<Vec<FreezeScope>> {
    // Almost always there is none: then it costs one look at an empty table.
    if !conn.prepare_cached("SELECT 1 FROM freeze LIMIT 1")?.exists([])? {
        return Ok(Vec::new());
    }
    let mut by_name =
        conn.prepare_cached("SELECT 1 FROM freeze WHERE scope = ?1 AND issuer = ?2 AND name = ?3")?;
    let mut found = Vec::new();
    for scope in subject.scopes() {
        if by_name.exists(scope.parts())? {
            found.push(scope);
        }
    }
    let mut by_key =
        conn.prepare_cached("SELECT 'kid', issuer, kid FROM frozen_key WHERE thumbprint = ?1")?;
    for scope in by_key.query_map([subject.thumbprint.0], scope)? {
        let scope = scope?;
        if !found.contains(&scope) {
            found.push(scope);
        }
    }
    Ok(found)
}

/// Every freeze, oldest first.
pub(super) fn all(conn: &Connection) -> rusqlite::Result<Vec<Freeze>> {
    let mut rows = conn.prepare_cached(
        "SELECT scope, issuer, name, reason, frozen_by, at FROM freeze ORDER BY at, scope, issuer, name",
    )?;
    rows.query_map([], |row| read(conn, row))?.collect()
}

/// Freezes, unless that stands already.
pub(super) struct Impose {
    /// What.
    pub(super) freeze: Freeze,
    /// FROZEN.
    pub(super) entry: Arc<Prepared>,
}

impl Command for Impose {
    type Found = Option<Freeze>;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<Option<Freeze>> {
        let Freeze { scope, thumbprints, by, reason, at } = &self.freeze;
        let (word, issuer, name) = scope.parts();
        let mut look = batch.conn.prepare_cached(
            "SELECT scope, issuer, name, reason, frozen_by, at FROM freeze
             WHERE scope = ?1 AND issuer = ?2 AND name = ?3",
        )?;
        let mut standing = look.query_map((word, issuer, name), |row| read(batch.conn, row))?;
        if let Some(standing) = standing.next() {
            return standing.map(Some);
        }
        let mut put = batch.conn.prepare_cached(
            "INSERT INTO freeze (scope, issuer, name, reason, frozen_by, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        put.execute(params![word, issuer, name, reason, by, stored(*at)])?;
        name_key(batch.conn, scope, thumbprints)?;
        batch.append(std::slice::from_ref(&self.entry));
        Ok(None)
    }
}

/// Ends a freeze.
pub(super) struct Thaw {
    /// Which.
    pub(super) scope: FreezeScope,
    /// THAWED.
    pub(super) entry: Arc<Prepared>,
}

impl Command for Thaw {
    type Found = bool;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
        let (word, issuer, name) = self.scope.parts();
        let mut take =
            batch.conn.prepare_cached("DELETE FROM freeze WHERE scope = ?1 AND issuer = ?2 AND name = ?3")?;
        if take.execute((word, issuer, name))? == 0 {
            return Ok(false);
        }
        if let FreezeScope::Kid { issuer, kid } = &self.scope {
            let mut take =
                batch.conn.prepare_cached("DELETE FROM frozen_key WHERE issuer = ?1 AND kid = ?2")?;
            take.execute((issuer.as_str(), kid))?;
        }
        batch.append(std::slice::from_ref(&self.entry));
        Ok(true)
    }
}

/// Gives a frozen key its thumbprints, where it was known by its name alone.
pub(super) struct Complete {
    /// Which.
    pub(super) scope: FreezeScope,
    /// They.
    pub(super) thumbprints: Vec<Digest>,
    /// FROZEN.
    pub(super) entry: Arc<Prepared>,
}

impl Command for Complete {
    type Found = bool;

    fn run(&self, batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
        let (word, issuer, name) = self.scope.parts();
        let mut bare = batch.conn.prepare_cached(
            "SELECT 1 FROM freeze WHERE scope = ?1 AND issuer = ?2 AND name = ?3 AND NOT EXISTS
                 (SELECT 1 FROM frozen_key WHERE frozen_key.issuer = ?2 AND frozen_key.kid = ?3)",
        )?;
        if self.thumbprints.is_empty() || !bare.exists((word, issuer, name))? {
            return Ok(false);
        }
        name_key(batch.conn, &self.scope, &self.thumbprints)?;
        batch.append(std::slice::from_ref(&self.entry));
        Ok(true)
    }
}

fn name_key(conn: &Connection, scope: &FreezeScope, thumbprints: &[Digest]) -> rusqlite::Result<()> {
    let FreezeScope::Kid { issuer, kid } = scope else { return Ok(()) };
    let mut put =
        conn.prepare_cached("INSERT INTO frozen_key (thumbprint, issuer, kid) VALUES (?1, ?2, ?3)")?;
    for thumbprint in thumbprints {
        put.execute(params![thumbprint.0, issuer.as_str(), kid])?;
    }
    Ok(())
}

fn read(conn: &Connection, row: &Row<'_>) -> rusqlite::Result<Freeze> {
    let scope = scope(row)?;
    let (_, issuer, name) = scope.parts();
    let mut keys = conn.prepare_cached(
        "SELECT thumbprint FROM frozen_key WHERE issuer = ?1 AND kid = ?2 ORDER BY thumbprint",
    )?;
    let thumbprints = match &scope {
        FreezeScope::Kid { .. } => {
            keys.query_map((issuer, name), |row| digest(row, 0))?.collect::<rusqlite::Result<_>>()?
        }
        FreezeScope::All | FreezeScope::Grant(_) | FreezeScope::Issuer(_) | FreezeScope::Project { .. } => {
            Vec::new()
        }
    };
    let at: Timestamp = moment(row, 5)?;
    Ok(Freeze { scope, thumbprints, reason: row.get(3)?, by: row.get(4)?, at })
}

/// The scope of the first three columns.
fn scope(row: &Row<'_>) -> rusqlite::Result<FreezeScope> {
    let (word, issuer, name): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
    FreezeScope::of_parts(&word, &issuer, &name).ok_or_else(|| {
        let fault = format!("unknown freeze {word:?}");
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, fault.into())
    })
}
