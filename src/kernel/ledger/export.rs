//! What an export holds beside the entries: `manifest.json`, of which every member can be computed anew.
//!
//! An export is a folder with `entries.jsonl`, `checkpoint` and `manifest.json`; the caller writes the files, this
//! module says their bytes. The manifest has no member that only its writer could know (no time of export, no name of
//! whoever exported: that is the EXPORTED entry's), since nothing signs it: an edit of such a member could not be
//! found. Format: [the manual](crate::manual::ledger).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{Checkpoint, NoteFault},
    tree::{Frontier, leaf_hash},
};
use crate::kernel::digest::Digest;

/// The file of entries: line n holds the stored bytes of entry n.
pub const ENTRIES_FILE: &str = "entries.jsonl";
/// The file of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";
/// The file of the signed checkpoint.
pub const CHECKPOINT_FILE: &str = "checkpoint";

/// What `manifest.json` says. Canonical JSON and a newline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the export's format: 1.
    pub v: u32,
    /// The log's origin.
    pub origin: String,
    /// The index of the first line; 0 in this version.
    pub from: u64,
    /// The number of entries of the tree, and of lines.
    pub size: u64,
    /// The root, as 64 hex digits.
    pub root: String,
    /// `at` of the first entry; null where there is none.
    pub first_at: Option<String>,
    /// `at` of the last entry; null where there is none.
    pub last_at: Option<String>,
    /// The first four bytes of each leaf hash, one after the other, in base64. They prove nothing: they let the
    /// verifier name the entry that was changed, where the root alone says only that one was.
    pub marks: String,
}

/// Why an export cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportFault {
    /// The checkpoint is refused.
    #[error("the checkpoint is refused")]
    Checkpoint(#[from] NoteFault),
    /// An entry is not JSON on one line, or has no time.
    #[error("entry {0} is not an entry")]
    Entry(u64),
    /// The entries are not those of the checkpoint.
    #[error("the entries are not those of the checkpoint")]
    Root,
}

/// An export in the making: entries in, lines out, and the manifest at the end.
pub struct Export {
    checkpoint: Checkpoint,
    frontier: Frontier,
    batch: Vec<Digest>,
    times: Option<(String, String)>,
    marks: Vec<u8>,
}

impl Export {
    /// Begins an export of the log that the note, as it will stand in `checkpoint`, speaks of.
    ///
    /// # Errors
    ///
    /// [`ExportFault::Checkpoint`].
    pub fn begin(note: &str) -> Result<Self, ExportFault> {
        let checkpoint = Checkpoint::read_unverified(note)?;
        let (frontier, batch) = (Frontier::default(), Vec::new());
        Ok(Self { checkpoint, frontier, batch, times: None, marks: Vec::new() })
    }

    /// How many entries are due: those with an index below it.
    pub fn size(&self) -> u64 {
        self.checkpoint.size
    }

    /// Takes the next entry's stored bytes, and gives its line with the newline.
    ///
    /// # Errors
    ///
    /// [`ExportFault::Entry`].
    pub fn line(&mut self, entry: &[u8]) -> Result<Vec<u8>, ExportFault> {
        let index = self.frontier.size() + self.batch.len() as u64;
        let is_one_line = !entry.contains(&b'\n');
        let at = is_one_line.then(|| time_of(entry)).flatten().ok_or(ExportFault::Entry(index))?;
        let first = self.times.take().map_or_else(|| at.clone(), |(first, _)| first);
        self.times = Some((first, at));
        let leaf = leaf_hash(entry);
        self.marks.extend_from_slice(&mark(&leaf));
        self.batch.push(leaf);
        if self.batch.len() == BATCH {
            self.flush();
        }
        Ok([entry, b"\n"].concat())
    }

    /// Ends the export: the bytes of `manifest.json`.
    ///
    /// # Errors
    ///
    /// [`ExportFault::Root`] where what was written is not what the checkpoint speaks of.
    pub fn finish(mut self) -> Result<Vec<u8>, ExportFault> {
        self.flush();
        if (self.frontier.size(), self.frontier.root()) != (self.checkpoint.size, self.checkpoint.root) {
            return Err(ExportFault::Root);
        }
        let times = self.times;
        Ok(Manifest::new(&self.checkpoint, times, &self.marks).to_bytes())
    }

    fn flush(&mut self) {
        self.frontier = self.frontier.append(&self.batch).frontier;
        self.batch.clear();
    }
}

impl Manifest {
    /// The manifest of a whole log: its head, the times of its first and last entry, and its marks.
    pub fn new(head: &Checkpoint, times: Option<(String, String)>, marks: &[u8]) -> Self {
        let (first_at, last_at) = times.unzip();
        Self {
            v: EXPORT_VERSION,
            origin: head.origin.clone(),
            from: 0,
            size: head.size,
            root: head.root.to_string(),
            first_at,
            last_at,
            marks: BASE64.encode(marks),
        }
    }

    /// Reads `manifest.json`; `None` where it is not one of this version.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|read: &Self| read.v == EXPORT_VERSION && read.from == 0)
    }

    /// The marks of each entry.
    pub fn marks(&self) -> Option<Vec<u8>> {
        BASE64.decode(&self.marks).ok()
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings, nulls and integers that count what is in memory: nothing that RFC 8785 cannot write.
        let mut bytes = serde_json_canonicalizer::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

/// The mark of an entry: the first four bytes of its leaf hash.
pub fn mark(leaf: &Digest) -> [u8; MARK_BYTES] {
    let [a, b, c, d, ..] = leaf.0;
    [a, b, c, d]
}

/// The bytes of a mark. Two entries share one by chance once in four thousand million: enough to point at one.
pub const MARK_BYTES: usize = 4;

fn time_of(entry: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Timed {
        at: String,
    }
    serde_json::from_slice::<Timed>(entry).ok().map(|timed| timed.at)
}

const EXPORT_VERSION: u32 = 1;

/// Leaves that are appended at once; a frontier is cheap, not free.
const BATCH: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{ledger::checkpoint::LogKey, secret::Secret};

    fn note(entries: &[&[u8]]) -> String {
        let leaves: Vec<Digest> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let key = LogKey::from_seed("hallpass.test/ledger", &Secret::new(vec![7; 32])).unwrap();
        key.sign(leaves.len() as u64, &Frontier::default().append(&leaves).root)
    }

    const ENTRIES: [&[u8]; 2] = [br#"{"at":"a"}"#, br#"{"at":"b"}"#];

    #[test]
    fn the_manifest_has_only_what_can_be_computed_anew() {
        let mut export = Export::begin(&note(&ENTRIES)).unwrap();
        for entry in ENTRIES {
            assert_eq!(export.line(entry).unwrap(), [entry, b"\n"].concat());
        }
        let bytes = export.finish().unwrap();
        let manifest = Manifest::parse(&bytes).unwrap();
        assert_eq!(manifest.to_bytes(), bytes);
        assert_eq!((manifest.first_at.as_deref(), manifest.last_at.as_deref()), (Some("a"), Some("b")));
        assert_eq!(manifest.marks().unwrap()[..4], leaf_hash(ENTRIES[0]).0[..4]);
    }

    #[test]
    fn refuses_to_export_what_the_checkpoint_does_not_speak_of() {
        let mut short = Export::begin(&note(&ENTRIES)).unwrap();
        short.line(ENTRIES[0]).unwrap();
        assert_eq!(short.finish(), Err(ExportFault::Root));
        let mut export = Export::begin(&note(&ENTRIES)).unwrap();
        assert_eq!(export.line(b"{\"at\":\n\"a\"}"), Err(ExportFault::Entry(0)));
        assert_eq!(export.line(b"{}"), Err(ExportFault::Entry(0)));
    }

    #[test]
    fn an_empty_log_has_an_export_too() {
        let manifest = Export::begin(&note(&[])).unwrap().finish().unwrap();
        assert_eq!(Manifest::parse(&manifest).unwrap().first_at, None);
    }
}
