//! The values that the environment may set, and how they win over the file's.

use std::collections::BTreeMap;

use crate::kernel::policy::yaml::{Content, Findings, Node};

/// Every variable that stands in for a key of the file.
pub(super) const VARIABLES: [&str; 5] = [PUBLIC_LISTEN, PUBLIC_URL, ADMIN_LISTEN, STORE_URL, POLICIES];

pub(super) const PUBLIC_LISTEN: &str = "HALLPASS_PUBLIC_LISTEN";
pub(super) const PUBLIC_URL: &str = "HALLPASS_PUBLIC_URL";
pub(super) const ADMIN_LISTEN: &str = "HALLPASS_ADMIN_LISTEN";
pub(super) const STORE_URL: &str = "HALLPASS_STORE_URL";
pub(super) const POLICIES: &str = "HALLPASS_POLICIES";

/// The environment's values, by variable. An empty one counts as unset.
#[derive(Default)]
pub(super) struct Environment(BTreeMap<&'static str, String>);

impl Environment {
    pub(super) fn of_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    pub(super) fn new(look: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &'static str| Some((name, look(name).filter(|value| !value.is_empty())?));
        Self(VARIABLES.into_iter().filter_map(set).collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Reads the environment's value where there is one, the file's otherwise. `None` where there is neither, or
    /// where the one that counts has a fault, which is then among the findings.
    pub(super) fn or<T>(
        &self,
        findings: &mut Findings<'_>,
        name: &'static str,
        field: Option<&Node>,
        read: impl Fn(&mut Findings<'_>, &Node) -> Option<T>,
    ) -> Option<T> {
        let Some(value) = self.0.get(name) else { return read(findings, field?) };
        let mut own = Findings::new(name);
        let node = Node { line: 1, column: 1, width: 0, content: Content::Quoted(value.clone()) };
        let found = read(&mut own, &node);
        findings.list.append(&mut own.list);
        found
    }
}
