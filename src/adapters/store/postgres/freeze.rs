//! Freezes: looked up in the transaction that would issue, so that each holds from its commit for every broker; changed
//! together with their entries (design: section 8, "Emergency").

use std::{collections::HashMap, sync::Arc};

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use super::{
    Trouble,
    batch::{Batch, Direct},
    schema::{digest, moment, unfit},
};
use crate::{
    adapters::store::shared::{columns::Prepared, stored::stored},
    broker::ports::Answer,
    kernel::{
        digest::Digest,
        freeze::{Freezable, Freeze, FreezeScope},
    },
};

/// The freezes that stand, as far as a decision needs them.
#[derive(Default)]
pub(super) struct Standing {
    scopes: Vec<FreezeScope>,
    keys: Vec<(Digest, FreezeScope)>,
}

impl Standing {
    /// Reads them; almost always there is none.
    pub(super) async fn load(conn: &mut PgConnection) -> sqlx::Result<Self> {
        let rows = sqlx::query(
            "SELECT scope, issuer, name, NULL::bytea FROM \"freeze\"
             UNION ALL SELECT 'kid', issuer, kid, thumbprint FROM frozen_key",
        )
        .fetch_all(conn)
        .await?;
        let mut standing = Self::default();
        for row in &rows {
            let scope = scope(row)?;
            if row.try_get::<Option<&[u8]>, _>(3)?.is_some() {
                standing.keys.push((digest(row, 3)?, scope));
            } else {
                standing.scopes.push(scope);
            }
        }
        Ok(standing)
    }

    /// Those that hold for a job, widest first.
    pub(super) fn holding(&self, subject: &Freezable) -> Vec<FreezeScope> {
        let mut found: Vec<FreezeScope> =
            subject.scopes().into_iter().filter(|scope| self.scopes.contains(scope)).collect();
        for (thumbprint, scope) in &self.keys {
            if *thumbprint == subject.thumbprint && !found.contains(scope) {
                found.push(scope.clone());
            }
        }
        found
    }
}

/// Every freeze, oldest first.
pub(super) async fn all(conn: &mut PgConnection) -> Result<Vec<Freeze>, Trouble> {
    let rows = sqlx::query(
        "SELECT scope, issuer, name, reason, frozen_by, at FROM \"freeze\"
         ORDER BY at, scope COLLATE \"C\", issuer COLLATE \"C\", name COLLATE \"C\"",
    )
    .fetch_all(&mut *conn)
    .await?;
    let keys = sqlx::query("SELECT issuer, kid, thumbprint FROM frozen_key ORDER BY thumbprint")
        .fetch_all(conn)
        .await?;
    let mut thumbprints: HashMap<(String, String), Vec<Digest>> = HashMap::new();
    for row in &keys {
        thumbprints.entry((row.try_get(0)?, row.try_get(1)?)).or_default().push(digest(row, 2)?);
    }
    let read = |row: &PgRow| -> sqlx::Result<Freeze> {
        let scope = scope(row)?;
        let (_, issuer, name) = scope.parts();
        let thumbprints = match &scope {
            FreezeScope::Kid { .. } => {
                thumbprints.get(&(issuer.to_owned(), name.to_owned())).cloned().unwrap_or_default()
            }
            FreezeScope::All
            | FreezeScope::Grant(_)
            | FreezeScope::Issuer(_)
            | FreezeScope::Project { .. } => Vec::new(),
        };
        Ok(Freeze { thumbprints, reason: row.try_get(3)?, by: row.try_get(4)?, at: moment(row, 5)?, scope })
    };
    Ok(rows.iter().map(read).collect::<sqlx::Result<_>>()?)
}

/// Freezes, unless that stands already.
pub(super) struct Impose {
    /// What.
    pub(super) freeze: Freeze,
    /// FROZEN.
    pub(super) entry: Arc<Prepared>,
}

impl Impose {
    async fn impose(
        &self,
        conn: &mut PgConnection,
        batch: &mut Batch<'_>,
    ) -> Result<Option<Freeze>, Trouble> {
        let Freeze { scope, thumbprints, by, reason, at } = &self.freeze;
        if let Some(standing) = all(conn).await?.into_iter().find(|standing| standing.scope == *scope) {
            return Ok(Some(standing));
        }
        let (word, issuer, name) = scope.parts();
        sqlx::query(
            "INSERT INTO \"freeze\" (scope, issuer, name, reason, frozen_by, at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(word)
        .bind(issuer)
        .bind(name)
        .bind(reason)
        .bind(by)
        .bind(stored(*at))
        .execute(&mut *conn)
        .await?;
        name_key(conn, scope, thumbprints).await?;
        batch.append(std::slice::from_ref(&self.entry));
        Ok(None)
    }
}

impl Direct for Impose {
    type Found = Option<Freeze>;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<Self::Found, Trouble>> {
        Box::pin(self.impose(conn, batch))
    }
}

/// Ends a freeze.
pub(super) struct Thaw {
    /// Which.
    pub(super) scope: FreezeScope,
    /// THAWED.
    pub(super) entry: Arc<Prepared>,
}

impl Thaw {
    async fn thaw(&self, conn: &mut PgConnection, batch: &mut Batch<'_>) -> Result<bool, Trouble> {
        let (word, issuer, name) = self.scope.parts();
        let taken = sqlx::query("DELETE FROM \"freeze\" WHERE scope = $1 AND issuer = $2 AND name = $3")
            .bind(word)
            .bind(issuer)
            .bind(name)
            .execute(&mut *conn)
            .await?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        if let FreezeScope::Kid { issuer, kid } = &self.scope {
            sqlx::query("DELETE FROM frozen_key WHERE issuer = $1 AND kid = $2")
                .bind(issuer.as_str())
                .bind(kid)
                .execute(conn)
                .await?;
        }
        batch.append(std::slice::from_ref(&self.entry));
        Ok(true)
    }
}

impl Direct for Thaw {
    type Found = bool;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<bool, Trouble>> {
        Box::pin(self.thaw(conn, batch))
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

impl Complete {
    async fn complete(&self, conn: &mut PgConnection, batch: &mut Batch<'_>) -> Result<bool, Trouble> {
        let is_bare = |standing: Freeze| standing.scope == self.scope && standing.thumbprints.is_empty();
        if self.thumbprints.is_empty() || !all(conn).await?.into_iter().any(is_bare) {
            return Ok(false);
        }
        name_key(conn, &self.scope, &self.thumbprints).await?;
        batch.append(std::slice::from_ref(&self.entry));
        Ok(true)
    }
}

impl Direct for Complete {
    type Found = bool;

    fn run<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        batch: &'a mut Batch<'_>,
    ) -> Answer<'a, Result<bool, Trouble>> {
        Box::pin(self.complete(conn, batch))
    }
}

async fn name_key(conn: &mut PgConnection, scope: &FreezeScope, thumbprints: &[Digest]) -> sqlx::Result<()> {
    let FreezeScope::Kid { issuer, kid } = scope else { return Ok(()) };
    for thumbprint in thumbprints {
        sqlx::query("INSERT INTO frozen_key (thumbprint, issuer, kid) VALUES ($1, $2, $3)")
            .bind(thumbprint.0.as_slice())
            .bind(issuer.as_str())
            .bind(kid)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// The scope of the first three columns.
fn scope(row: &PgRow) -> sqlx::Result<FreezeScope> {
    let (word, issuer, name): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    FreezeScope::of_parts(word, issuer, name).ok_or_else(|| unfit(format!("unknown freeze {word:?}")))
}
