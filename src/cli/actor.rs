//! Whoever runs a command on this machine: how the ledger names them, and the entries that their commands append.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::exit::Failure;
use crate::{
    broker::{
        ambient::{Ambient, Clock, Entropy, NoEntropy},
        error::{Code, Refused},
    },
    kernel::{
        id::ReplicaId,
        ledger::entry::{Draft, Entry, EntryCode, Personal},
    },
};

/// A person or script at the command line.
pub(crate) struct Actor {
    ambient: Ambient,
    replica: ReplicaId,
}

impl Actor {
    /// The user that runs this process. The command counts as a replica of its own: it writes beside `serve`.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`].
    pub(crate) fn new() -> Result<Self, NoEntropy> {
        let ambient = Ambient { clock: Clock::System, entropy: Entropy::Os };
        let replica = new_replica(&ambient)?;
        Ok(Self { ambient, replica })
    }

    /// `os:UID`, as entries name it (contract: section 8).
    pub(crate) fn name() -> String {
        format!("os:{}", rustix::process::getuid().as_raw())
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        self.ambient.clock.now()
    }

    /// Fills a slice with random bytes; false where there are none.
    pub(crate) fn random(&self, out: &mut [u8]) -> bool {
        self.ambient.entropy.fill(out).is_ok()
    }

    /// Random bytes.
    ///
    /// # Errors
    ///
    /// [`NoEntropy`].
    pub(crate) fn bytes<const N: usize>(&self) -> Result<[u8; N], NoEntropy> {
        self.ambient.entropy.bytes()
    }

    /// An entry that says who did it beside `result`'s own members.
    ///
    /// # Errors
    ///
    /// [`super::exit::Exit::Internal`] where it cannot be made.
    pub(crate) fn entry(&self, code: EntryCode, result: Value) -> Result<Entry, Failure> {
        self.entry_because(code, result, None)
    }

    /// The same with the operator's reason, which may name people and is kept apart as they are.
    ///
    /// # Errors
    ///
    /// [`super::exit::Exit::Internal`] where it cannot be made.
    pub(crate) fn entry_because(
        &self,
        code: EntryCode,
        result: Value,
        reason: Option<&str>,
    ) -> Result<Entry, Failure> {
        let role = if matches!(code, EntryCode::Read | EntryCode::Exported) { "reader" } else { "by" };
        let mut members = json!({ role: Self::name() });
        if let (Value::Object(members), Value::Object(more)) = (&mut members, result) {
            members.extend(more);
        }
        let personal = reason.map(|text| Personal { field: "reason", value: text.to_owned() });
        let personal = personal.into_iter().collect();
        let draft = Draft { result: Some(members), personal, ..Draft::of(code) };
        Ok(self.seal(draft)?)
    }

    /// Seals an entry that says who did it.
    ///
    /// # Errors
    ///
    /// `internal` where it cannot be made.
    pub(crate) fn seal(&self, draft: Draft) -> Result<Entry, Refused> {
        draft.seal(self.now(), self.replica, &|out| self.random(out)).map_err(|fault| {
            Refused::new(Code::Internal, format!("the ledger entry could not be made: {fault}"))
        })
    }
}

/// Names a boot of this process.
///
/// # Errors
///
/// [`NoEntropy`].
pub(crate) fn new_replica(ambient: &Ambient) -> Result<ReplicaId, NoEntropy> {
    Ok(ReplicaId::new(ambient.clock.now(), ambient.entropy.bytes()?))
}
