//! What refusals count, and how: entries as long as they are few, summary rows where they are many (design: section 6).

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use crate::{broker::ports::Counted, kernel::name::IssuerName};

/// Entries a minute for refusals of one project (design: section 6).
const ENTRIES_PER_MINUTE: u32 = 30;
/// Denials and replays after which a token is refused for its remaining life (design: section 6).
pub(in crate::adapters::store) const DENIALS: i64 = 5;
/// Projects that are counted one by one (design: section 6).
pub(in crate::adapters::store) const PROJECT_ROWS: i64 = 1_000;
/// Reasons kept of one row (design: section 6).
pub(in crate::adapters::store) const SAMPLES: i64 = 5;
/// Characters kept of one reason.
pub(in crate::adapters::store) const SAMPLE_CHARS: usize = 200;
/// Projects whose rate is known at once. Whoever comes after is counted in a summary row at once: a flood from this
/// many projects within one minute is what those rows are for.
const RATED_PROJECTS: usize = 20_000;

/// The project of the row that counts all projects beyond the first thousand of an issuer. No CI system has such an
/// id.
pub(in crate::adapters::store) const OTHER_PROJECTS: &str = "*";

/// Refusals by project within the last minute. It is forgotten at a restart: then a project has its thirty again.
#[derive(Default)]
pub(in crate::adapters::store) struct Rates(HashMap<(IssuerName, String), (Timestamp, u32)>);

impl Rates {
    /// Counts a refusal; says whether it still may be an entry.
    pub(in crate::adapters::store) fn may_record(
        &mut self,
        issuer: &IssuerName,
        project: &str,
        now: Timestamp,
    ) -> bool {
        let key = (issuer.clone(), project.to_owned());
        if self.0.len() >= RATED_PROJECTS && !self.0.contains_key(&key) {
            return false;
        }
        let (since, count) = self.0.entry(key).or_insert((now, 0));
        if is_over(*since, now) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= ENTRIES_PER_MINUTE
    }

    /// Forgets minutes that are over.
    pub(in crate::adapters::store) fn forget(&mut self, now: Timestamp) {
        self.0.retain(|_, (since, _)| !is_over(*since, now));
    }
}

/// The kind, issuer and project of a summary row.
pub(in crate::adapters::store) fn row_of(counted: &Counted) -> (&'static str, &str, &str) {
    match counted {
        Counted::Project { issuer, project } => (PROJECT, issuer.as_str(), project),
        Counted::Strangers { issuer } => (STRANGERS, issuer.as_str(), ""),
        Counted::Unverified { issuer } => {
            (UNVERIFIED, issuer.as_ref().map_or("", |issuer| issuer.as_str()), "")
        }
    }
}

/// Names a summary row that a sweep has set apart.
#[derive(Clone)]
pub(in crate::adapters::store) struct RowKey {
    pub(in crate::adapters::store) slot: i64,
    pub(in crate::adapters::store) kind: String,
    pub(in crate::adapters::store) issuer: String,
    pub(in crate::adapters::store) project: String,
}

impl RowKey {
    /// Whose refusals the row counts.
    pub(in crate::adapters::store) fn counted(&self) -> Counted {
        match (self.kind.as_str(), IssuerName::parse(&self.issuer)) {
            (PROJECT, Some(issuer)) => Counted::Project { issuer, project: self.project.clone() },
            (STRANGERS, Some(issuer)) => Counted::Strangers { issuer },
            (_, issuer) => Counted::Unverified { issuer },
        }
    }
}

fn is_over(since: Timestamp, now: Timestamp) -> bool {
    now.duration_since(since) >= SignedDuration::from_secs(60)
}

/// The kind of a row that counts one project's.
pub(in crate::adapters::store) const PROJECT: &str = "project";
const STRANGERS: &str = "strangers";
const UNVERIFIED: &str = "unverified";
