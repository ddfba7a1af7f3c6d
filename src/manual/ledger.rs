//! # The ledger's formats
//!
//! Enough to write another verifier without reading our code. One log is one RFC 6962 Merkle tree over entries, in the
//! formats of C2SP (tlog-checkpoint, signed-note, tlog-proof; read November 2026), with SHA-256 and Ed25519. The word is
//! *tamper-evident*: nobody who can write the database is kept from changing it, but what was covered by a checkpoint
//! that has left the machine cannot be changed unnoticed.
//!
//! ## Entries
//!
//! An entry is one JSON object in canonical form (RFC 8785), at most 16,384 bytes, stored and hashed as these bytes and
//! never written again. Integers stay within ±(2^53 − 1), so that a reader with doubles reads the same number. A member
//! with nothing to say is absent.
//!
//! | member | holds |
//! |---|---|
//! | `v` | 1, the version of what follows |
//! | `code` | what happened: `ISSUED`, `DENIED`, …; stable |
//! | `at` | the replica's clock, RFC 3339 in UTC with three digits of a second: `2026-11-23T10:20:30.456Z` |
//! | `salt` | 16 random bytes, 32 lower-case hex digits; whoever has only the leaf hash cannot guess the entry |
//! | `replica` | the boot that wrote it, `rep_…` |
//! | `decision`, `issuance` | ids, `dec_…`, `iss_…` |
//! | `subject` | the job: `issuer`, `profile`, `tenant`, `project`, …, and `claims`, every claim that policy may use |
//! | `policy` | the set that decided, and in INTENT the rule and its file |
//! | `request`, `result` | what was asked for, what came of it; by code |
//! | `token` | issuer, pseudonym of the id, `iat`, `exp` |
//! | `commitments` | of personal values that are no claims |
//!
//! Where the claims would make an entry too large, or hold a number that cannot be written, the entry goes without them:
//! `subject.claims` is absent (but for commitments) and `subject.claims_cut` is true. A decision is recorded whatever
//! stands in a token.
//!
//! **Personal values** are not in an entry. In place of one stands `{"commitment": "HEX"}`, in `subject.claims` under the
//! claim's name or in `commitments` under `address`, `reason` or `query`: SHA-256 of 32 random bytes, the field's name
//! and the value, one after the other, UTF-8. Bytes and value are kept in a table from which both can be erased: then
//! nobody can tell any more what was committed to, and every proof still holds.
//!
//! The order tells a story that the verifier checks: before every ISSUED there is an INTENT with the same `issuance`,
//! and one INTENT carries one outcome (ISSUED, FAILED or UNRESOLVED). Times of several replicas may cross by up to
//! five seconds.
//!
//! ## Tree
//!
//! A leaf is SHA-256(0x00 ‖ entry), a node SHA-256(0x01 ‖ left ‖ right), the empty tree SHA-256 of nothing; of n leaves
//! the left subtree has as many as the greatest power of two below n (RFC 6962 section 2.1). Index 0 is the first entry
//! ever.
//!
//! ## Checkpoint
//!
//! One is signed with every batch of entries:
//!
//! ```text
//! hallpass.example.com/ledger
//! 41
//! SBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=
//!
//! — hallpass.example.com/ledger oXuLQKn0…
//! ```
//!
//! Origin, size, root in base64; a blank line; then lines of em dash, space, key name, space, base64 of four bytes of key
//! id and the 64 of the signature over the text above the blank line. The key id is the first four bytes of
//! SHA-256(name ‖ 0x0A ‖ 0x01 ‖ public key). The key as text, `keys show ledger`, is `NAME+ID+KEY`: the id in hex, then
//! base64 of 0x01 and the public key. The name is the origin. Signatures by other keys are ignored, at most 16 in all
//! are accepted, and a note that one key has signed twice is refused.
//!
//! ## Another key
//!
//! When the ledger's key is changed, an entry KEY_ROTATED names both, `result.old` and `result.new`, and carries in
//! `result.checkpoint` a checkpoint of the tree right before this entry, with a fourth line `next-key ` and the new key.
//! Both keys signed it, so the old one vouches for the new. The head behind the entry is signed by both too, later ones by
//! the new key only. A verifier that holds any key of such a chain goes along it: the newest head must have the newest
//! key's signature, a checkpoint kept elsewhere that of a key that was the ledger's at its size.
//!
//! ## Proof and receipt
//!
//! A proof is a C2SP tlog-proof:
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 39
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//! …
//!
//! hallpass.example.com/ledger
//! 41
//! …
//! ```
//!
//! The hashes stand from the leaf's sibling to the root's child. A receipt, as an exchange answers it, is JSON with
//! exactly `issuance`, `index`, `entry` (base64 of the ISSUED entry's bytes) and `proof`. All base64 here is the standard
//! alphabet with padding, and in the one spelling that an encoder gives it.
//!
//! ```
//! use hallpass::kernel::{digest::Digest, secret::Secret};
//! use hallpass::kernel::ledger::{checkpoint::LogKey, proof::TlogProof, tree::{Frontier, leaf_hash}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = LogKey::from_seed("hallpass.example.com/ledger", &Secret::new(vec![7; 32])).ok_or("a bad origin")?;
//! let entries = [r#"{"code":"INTENT"}"#, r#"{"code":"ISSUED"}"#];
//! let leaves: Vec<Digest> = entries.iter().map(|entry| leaf_hash(entry.as_bytes())).collect();
//! let appended = Frontier::default().append(&leaves);
//! let checkpoint = key.sign(appended.frontier.size(), &appended.root);
//! let hashes = appended.proofs.get(1).cloned().ok_or("no proof")?;
//! let text = TlogProof { index: 1, hashes, checkpoint }.to_string();
//!
//! let proof = TlogProof::parse(&text).ok_or("no proof")?;
//! assert_eq!(proof.open(entries[1].as_bytes(), &key.verifier())?.size, 2);
//! assert!(proof.open(entries[0].as_bytes(), &key.verifier()).is_err());
//! # Ok(())
//! # }
//! ```
//!
//! ## Export
//!
//! A folder:
//!
//! | file | holds |
//! |---|---|
//! | `entries.jsonl` | the stored bytes of entry n on line n, counted from 0, each line ended by a newline |
//! | `checkpoint` | the signed checkpoint of a tree of exactly these entries |
//! | `manifest.json` | canonical JSON and a newline: `v` (1), `origin`, `from` (0), `size`, `root` (hex), `first_at` and `last_at` (`at` of the first and last entry, or null), `marks` |
//!
//! `marks` is base64 of the first four bytes of each leaf hash, one after the other. It proves nothing; it lets a
//! verifier say *which* entry was changed, where the root says only that one was. The manifest has no member that cannot
//! be computed from the two other files, since nothing signs it: who exported, and when, is told by the EXPORTED entry.
//! A verifier computes its bytes anew. In this version an export is of the whole log.
//!
//! ## Publication
//!
//! `ledger.publish` names a folder, and the admin listener serves the same under `/ledger/`, in the layout of C2SP
//! tlog-tiles (<https://c2sp.org/tlog-tiles>, read November 2026): `checkpoint`, `tile/L/N` with 256 hashes,
//! `tile/entries/N` with 256 entries, each behind its length in two bytes, and parts of the last ones as `….p/W`. A part
//! is taken away once its tile is full: a reader takes what it needs out of that. Tiles are written before the checkpoint
//! that needs them, each whole or not at all and durable.
//!
//! Which replica publishes is a row of the store, for 15 s at a time, with a number that grows whenever it changes hands.
//! The number stands in `.publisher` of the folder, which is locked (`flock`) while the checkpoint is replaced; whoever
//! has a smaller one, such as a replica that was paused, changes nothing. Before each replacement the publisher proves
//! that its ledger contains the checkpoint that is there. Where it does not, the broker records `ALERT_ROLLBACK` and ends.
//!
//! Known limits: a replica that is paused just while it holds the lock keeps others from publishing until it wakes or
//! ends, and `/readyz` says so. After a restore that gave entries up the published ones are never taken back: the ledger
//! goes on in an empty folder. The volume must know `flock` and renaming (local file systems, NFS 4).
//!
//! ## Verification
//!
//! Everything is computed anew: that each line is canonical JSON with the members above, the root over all lines, the
//! signature, the manifest, the story of intents; on the live database also the leaf hashes, the columns that queries
//! use, the head that the writer goes on from, rows of no entry, and that erasable values are those that were committed
//! to. Then each anchor: a checkpoint, a proof or a receipt kept elsewhere. The tree at its
//! size must have its root, a receipt's entry must stand at its index byte for byte, and its proof must hold.
//!
//! | verdict | exit | means |
//! |---|---|---|
//! | anchored | 0 | all holds, and a key and an anchor from elsewhere vouch for the entries below the anchor's size |
//! | consistent, not anchored | 31 | all holds together; without a key or an anchor from elsewhere a log that was rewritten and signed anew looks just so |
//! | broken | 30 | something does not hold: what, and where it can be said, the first bad entry. A log shorter than an anchor is broken, and so is an anchor that the key did not sign |
//!
//! The first bad entry is named where its own hash, or what is kept beside it, shows that it is the one. Where only the
//! tree tells (a log that was rewritten and signed anew), a span is named: between the last anchor that holds and the
//! first that does not. More anchors make it shorter.
//!
//! Entries newer than any anchor, open intents, times that run backward and codes that the verifier does not know are
//! notes. What no verifier can find: that a broker wrote something untrue in the first place; that is found by comparing
//! with the backend's own records.
