//! Anchors: what the verifier holds from elsewhere, so that a log rewritten with its own key is found too.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        checkpoint::{Checkpoint, NoteFault, VerifierKey},
        proof::TlogProof,
    },
    roots,
};
use crate::kernel::{digest::Digest, json::read_bounded};

/// An anchor as it was found: a checkpoint note, a tlog-proof, or a receipt as the API gives it.
#[derive(Clone, Debug)]
pub struct Anchor {
    /// What the caller calls it, for messages: a path, `ledger.seen`.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// An anchor that was read: a tree head, and perhaps one entry in it.
pub(super) struct Pin {
    pub(super) name: String,
    pub(super) head: Checkpoint,
    /// The note that the head was read from. Whether a key of the log signed it is told by the whole log, which may
    /// have had several.
    pub(super) note: String,
    pub(super) entry: Option<PinnedEntry>,
}

/// One entry that an anchor names: by its hash path, and in a receipt by its bytes.
pub(super) struct PinnedEntry {
    pub(super) index: u64,
    hashes: Vec<Digest>,
    bytes: Option<Vec<u8>>,
}

impl Anchor {
    /// Reads the anchor, with the key where there is one. A note without a signature by that key is read too: one of
    /// the log's other keys may have signed it.
    pub(super) fn read(&self, key: Option<&VerifierKey>) -> Result<Pin, String> {
        let fault = |what: &str| format!("anchor {}: {what}", self.name);
        let text = std::str::from_utf8(&self.bytes).map_err(|_| fault(UNREADABLE))?;
        let open = |note: &str| match key.map(|key| key.open(note)) {
            Some(Err(NoteFault::Unsigned)) | None => Checkpoint::read_unverified(note),
            Some(opened) => opened,
        };
        let refused = |refusal: NoteFault| fault(&refusal.to_string());
        if text.starts_with("c2sp.org/") {
            let proof = TlogProof::parse(text).ok_or_else(|| fault(UNREADABLE))?;
            let head = open(&proof.checkpoint).map_err(refused)?;
            let entry = PinnedEntry { index: proof.index, hashes: proof.hashes, bytes: None };
            return Ok(Pin { name: self.name.clone(), head, note: proof.checkpoint, entry: Some(entry) });
        }
        if text.trim_start().starts_with('{') {
            let (proof, bytes) = read_receipt(text).map_err(fault)?;
            let head = open(&proof.checkpoint).map_err(refused)?;
            let entry = PinnedEntry { index: proof.index, hashes: proof.hashes, bytes: Some(bytes) };
            let pin = Pin { name: self.name.clone(), head, note: proof.checkpoint, entry: Some(entry) };
            // The receipt's own bytes must be proven by its own proof, whatever the log says.
            return if pin.proves_itself() { Ok(pin) } else { Err(fault(ELSEWHERE)) };
        }
        let head = open(text).map_err(refused)?;
        Ok(Pin { name: self.name.clone(), head, note: text.to_owned(), entry: None })
    }
}

impl Pin {
    /// What is wrong with the log's entry at the pinned index, as far as this anchor knows.
    pub(super) fn judge(&self, bytes: &[u8], leaf: &Digest) -> Option<String> {
        let entry = self.entry.as_ref()?;
        if entry.bytes.as_ref().is_some_and(|pinned| pinned != bytes) {
            return Some(format!("the entry is not the one in the receipt {}", self.name));
        }
        let root = roots::by_path(entry.index, self.head.size, leaf, &entry.hashes);
        (root != Some(self.head.root))
            .then(|| format!("the proof {} does not lead from the entry to its root", self.name))
    }

    /// Whether the entries before the pinned one are those that its proof was made of. They fall into full subtrees, the
    /// last first, and each of them is a hash of the path (RFC 6962 section 2.1.1).
    pub(super) fn vouches_for_those_before<'a>(&self, subtrees: impl Iterator<Item = &'a Digest>) -> bool {
        let Some(entry) = &self.entry else { return false };
        let mut path = entry.hashes.iter();
        subtrees.into_iter().all(|subtree| path.any(|hash| hash == subtree))
    }

    fn proves_itself(&self) -> bool {
        let bytes = self.entry.as_ref().and_then(|entry| entry.bytes.as_ref());
        bytes.is_none_or(|bytes| self.judge(bytes, &roots::leaf(bytes)).is_none())
    }
}

/// The proof and the entry's bytes of a receipt whose members agree with each other.
fn read_receipt(text: &str) -> Result<(TlogProof, Vec<u8>), &'static str> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Receipt {
        issuance: String,
        index: u64,
        entry: String,
        proof: String,
    }
    let receipt: Receipt = serde_json::from_str(text).map_err(|_| UNREADABLE)?;
    let proof = TlogProof::parse(&receipt.proof).ok_or("its proof is no tlog-proof")?;
    let bytes = BASE64.decode(&receipt.entry).map_err(|_| "its entry is not base64")?;
    let entry = read_bounded(&bytes).map_err(|_| "its entry is not JSON")?;
    if proof.index != receipt.index {
        return Err("its index is not that of its proof");
    }
    if entry.get("issuance").and_then(Value::as_str) != Some(&receipt.issuance) {
        return Err("its issuance is not that of its entry");
    }
    Ok((proof, bytes))
}

const UNREADABLE: &str = "neither a checkpoint nor a tlog-proof nor a receipt";
const ELSEWHERE: &str = "its proof does not lead from its entry to its root";
