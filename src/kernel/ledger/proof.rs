//! C2SP tlog-proof: an inclusion proof and its checkpoint in one text.
//!
//! A receipt carries one, so that a job can prove years later that its issuance was recorded. Source:
//! c2sp.org/tlog-proof (read November 2026). Nothing in a proof may be believed before [`TlogProof::open`].

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use super::{
    checkpoint::{Checkpoint, NoteFault, VerifierKey, decimal, hash_from_base64},
    tree::{leaf_hash, root_from_inclusion},
};
use crate::kernel::digest::Digest;

/// A proof as text says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    /// The entry's index.
    pub index: u64,
    /// The inclusion proof, from the leaf's sibling to the root's child.
    pub hashes: Vec<Digest>,
    /// The signed checkpoint note.
    pub checkpoint: String,
}

/// Why a proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofFault {
    /// Its checkpoint is refused.
    #[error("its checkpoint is refused")]
    Checkpoint(#[from] NoteFault),
    /// The hashes do not lead from the entry to the root.
    #[error("the hashes do not lead from the entry to the root")]
    Elsewhere,
}

impl TlogProof {
    /// Reads the text; `None` where it is not a tlog-proof. An `extra` line is dropped: nothing authenticates it. The
    /// checkpoint stays text, to be opened with a key.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, checkpoint) = text.strip_prefix(HEADER)?.split_once("\n\n")?;
        let mut lines = head.split('\n').peekable();
        if let Some(extra) = lines.next_if(|line| line.starts_with("extra ")) {
            BASE64.decode(extra.strip_prefix("extra ")?).ok()?;
        }
        let index = decimal(lines.next()?.strip_prefix("index ")?)?;
        let hashes: Vec<Digest> = lines.map(hash_from_base64).collect::<Option<_>>()?;
        // No tree of 2^64 leaves is deeper.
        (hashes.len() <= 64).then(|| Self { index, hashes, checkpoint: checkpoint.to_owned() })
    }

    /// Opens the proof for an entry's bytes: the checkpoint is signed by the key, and the hashes lead to its root.
    ///
    /// # Errors
    ///
    /// [`ProofFault`].
    pub fn open(&self, entry: &[u8], key: &VerifierKey) -> Result<Checkpoint, ProofFault> {
        let checkpoint = key.open(&self.checkpoint)?;
        let root = root_from_inclusion(self.index, checkpoint.size, &leaf_hash(entry), &self.hashes);
        if root != Some(checkpoint.root) {
            return Err(ProofFault::Elsewhere);
        }
        Ok(checkpoint)
    }
}

impl std::fmt::Display for TlogProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{HEADER}index {}", self.index)?;
        for hash in &self.hashes {
            writeln!(f, "{}", BASE64.encode(hash.0))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        ledger::{checkpoint::LogKey, tree::Frontier},
        secret::Secret,
    };

    fn proof() -> (VerifierKey, Vec<u8>, TlogProof) {
        let key = LogKey::from_seed("hallpass.test/ledger", &Secret::new(vec![7; 32])).unwrap();
        let leaves: Vec<Digest> = (0..11_u8).map(|n| leaf_hash(&[n])).collect();
        let appended = Frontier::default().append(&leaves);
        let checkpoint = key.sign(11, &appended.root);
        (key.verifier(), vec![5], TlogProof { index: 5, hashes: appended.proofs[5].clone(), checkpoint })
    }

    #[test]
    fn the_text_is_that_of_the_specification_and_reads_back() {
        let (key, entry, proof) = proof();
        let text = proof.to_string();
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines[..2], ["c2sp.org/tlog-proof@v1", "index 5"]);
        assert_eq!(lines[2..6].iter().map(|line| line.len()).collect::<Vec<_>>(), [44; 4]);
        assert_eq!(lines[6..9], ["", "hallpass.test/ledger", "11"]);
        assert_eq!(TlogProof::parse(&text), Some(proof.clone()));
        assert_eq!(proof.open(&entry, &key).unwrap().size, 11);
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let (key, entry, proof) = proof();
        let text = proof.to_string().into_bytes();
        for at in 0..text.len() * 8 {
            let mut bytes = text.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            let spoilt = String::from_utf8(bytes).ok().and_then(|text| TlogProof::parse(&text));
            assert!(spoilt.is_none_or(|proof| proof.open(&entry, &key).is_err()), "bit {at}");
        }
        assert_eq!(proof.open(&[6], &key), Err(ProofFault::Elsewhere));
    }

    #[test]
    fn extra_data_is_read_over_and_nothing_else_is() {
        let (_, _, proof) = proof();
        let text = proof.to_string();
        let with = |line: &str| TlogProof::parse(&text.replacen("index 5\n", line, 1));
        assert_eq!(with("extra YWdl\nindex 5\n"), Some(proof));
        for bad in [
            "",
            "index 05\n",
            "index -5\n",
            "index 5 \n",
            "extra !\nindex 5\n",
            "index 5\nx\n",
            "other\nindex 5\n",
        ] {
            assert_eq!(with(bad), None, "{bad:?}");
        }
        assert_eq!(TlogProof::parse(&text.replacen("@v1", "@v2", 1)), None);
    }

    #[test]
    fn a_log_of_one_entry_needs_no_hashes() {
        let key = LogKey::from_seed("a", &Secret::new(vec![7; 32])).unwrap();
        let checkpoint = key.sign(1, &leaf_hash(b"x"));
        let proof = TlogProof { index: 0, hashes: Vec::new(), checkpoint };
        assert_eq!(TlogProof::parse(&proof.to_string()), Some(proof.clone()));
        assert!(proof.open(b"x", &key.verifier()).is_ok());
    }
}
