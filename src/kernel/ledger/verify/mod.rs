//! The offline verifier: entries, heads, proofs and anchors in, a verdict out. It computes everything anew.
//!
//! It serves an export and the live database alike: the caller hands over the entries in order, one at a time, so that
//! a log larger than memory can be read. It never reads a file or a database, and shares nothing with the writer but
//! the formats (canonical JSON, notes, proofs): its tree is its own. What it cannot find, by its nature: a log that was
//! rewritten with the ledger key, where no anchor is at hand; then it says "consistent, not anchored" (P6).

use std::collections::BTreeMap;

use super::{
    checkpoint::{Checkpoint, NoteFault, VerifierKey},
    export::{MARK_BYTES, Manifest, mark},
};
use crate::kernel::digest::Digest;

mod anchor;
mod keys;
mod roots;
mod story;
#[cfg(test)]
mod tests;

pub use anchor::Anchor;
use anchor::Pin;
use keys::Keys;
pub use roots::FullSubtree;
use roots::Roots;
use story::{Story, Untold};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything holds, and a key and an anchor from elsewhere vouch for it.
    Anchored,
    /// Everything holds together, but nothing from elsewhere vouches for it.
    Consistent,
    /// Something does not hold: what, at most 20 findings.
    Broken(Vec<String>),
}

/// What is known of a log beside its entries.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// The verifier key.
    pub key: Key,
    /// The signed head: `checkpoint` of an export, or the newest of the live database.
    pub checkpoint: Vec<u8>,
    /// `manifest.json` of an export.
    pub manifest: Option<Vec<u8>>,
    /// What is held from elsewhere.
    pub anchors: Vec<Anchor>,
}

/// The verifier key, and how far it may be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// It was kept elsewhere: whoever changed the log could not change it.
    Elsewhere(VerifierKey),
    /// It comes with the log, and vouches for nothing but its own consistency.
    Own(VerifierKey),
    /// There is none: signatures are not looked at.
    Unknown,
}

/// One entry as found.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The index that it stands under.
    pub index: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// The leaf hash that is kept beside it, where one is.
    pub leaf: Option<Digest>,
    /// The erasable values that are kept for it: field, 32 blinding bytes, value.
    pub personal: &'a [(String, [u8; 32], String)],
}

/// What the verifier says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// The log's origin; empty where its head cannot be read.
    pub origin: String,
    /// How many entries were read.
    pub size: u64,
    /// The root over them, computed.
    pub root: Digest,
    /// Entries below this index are vouched for by an anchor.
    pub anchored: u64,
    /// The first entry known to be bad. `None` where nothing is, or where it cannot be said which.
    pub first_bad: Option<u64>,
    /// Where the first bad entry is, where only that can be said: the least and the greatest index that it can have. A
    /// log that was rewritten and signed anew is told apart by its anchors only, and they stand some entries apart.
    pub first_bad_among: Option<(u64, u64)>,
    /// What is worth knowing, and no break.
    pub notes: Vec<String>,
}

/// A verification under way: [`Audit::row`] or [`Audit::line`] for each entry, then [`Audit::finish`].
pub struct Audit {
    is_trusted: bool,
    keys: Keys,
    head: Option<Checkpoint>,
    head_note: String,
    manifest: Option<Vec<u8>>,
    expected_marks: Option<Vec<u8>>,
    marks: Vec<u8>,
    pins: Vec<Pin>,
    pinned: BTreeMap<u64, Vec<usize>>,
    roots: Roots,
    story: Story,
    faults: Faults,
}

/// Verifies a log from its entries and what is known beside them.
pub fn verify<'a>(evidence: Evidence, rows: impl IntoIterator<Item = Row<'a>>) -> Report {
    let mut audit = Audit::new(evidence);
    rows.into_iter().for_each(|row| audit.row(row));
    audit.finish()
}

impl Verdict {
    /// The exit code of the contract: 0 anchored, 31 consistent and not anchored, 30 broken.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Anchored => 0,
            Self::Consistent => 31,
            Self::Broken(_) => 30,
        }
    }

    /// The verdict in words.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Consistent => "consistent, not anchored",
            Self::Broken(_) => "broken",
        }
    }
}

impl Audit {
    /// Reads what is known beside the entries.
    pub fn new(evidence: Evidence) -> Self {
        let (key, is_trusted) = match evidence.key {
            Key::Elsewhere(key) => (Some(key), true),
            Key::Own(key) => (Some(key), false),
            Key::Unknown => (None, false),
        };
        let mut faults = Faults::default();
        // A note without a signature by this key is read all the same: the entries may tell of another key.
        let note = std::str::from_utf8(&evidence.checkpoint).map_err(|_| NoteFault::Malformed("not UTF-8"));
        let opened = note.and_then(|note| match key.as_ref().map(|key| key.open(note)) {
            Some(Err(NoteFault::Unsigned)) | None => Checkpoint::read_unverified(note),
            Some(opened) => opened,
        });
        let head = opened.map_err(|fault| faults.add(None, refused(&fault))).ok();
        let mut pins = Vec::new();
        for anchor in &evidence.anchors {
            match anchor.read(key.as_ref()) {
                Ok(pin) => pins.push(pin),
                Err(fault) => faults.add(None, fault),
            }
        }
        let mut pinned: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (at, entry) in pins.iter().enumerate().filter_map(|(at, pin)| Some((at, pin.entry.as_ref()?))) {
            pinned.entry(entry.index).or_default().push(at);
        }
        let read = evidence.manifest.as_deref().map(Manifest::parse);
        if read == Some(None) {
            faults.add(None, "the manifest cannot be read".to_owned());
        }
        let roots = Roots::new(pins.iter().map(|pin| pin.head.size));
        Self {
            is_trusted,
            keys: Keys::new(key),
            head,
            head_note: String::from_utf8(evidence.checkpoint).unwrap_or_default(),
            expected_marks: read.flatten().and_then(|manifest| manifest.marks()),
            manifest: evidence.manifest,
            marks: Vec::new(),
            pins,
            pinned,
            roots,
            story: Story::default(),
            faults,
        }
    }

    /// Takes the next entry.
    pub fn row(&mut self, row: Row<'_>) {
        let index = self.roots.size;
        if row.index != index {
            self.faults.add(Some(index), format!("entry {index} is not there: {} follows", row.index));
        }
        let leaf = roots::leaf(row.bytes);
        if row.leaf.is_some_and(|kept| kept != leaf) {
            self.faults.add(Some(index), format!("entry {index}: it is not what its leaf hash was made of"));
        }
        self.compare_mark(index, &leaf);
        match self.story.entry(index, row.bytes) {
            Ok(()) => {}
            Err(Untold::Itself(fault)) => self.faults.add(Some(index), format!("entry {index}: {fault}")),
            Err(Untold::ByOthers(fault)) => self.faults.told(index, format!("entry {index}: {fault}")),
        }
        if let Some(said) = self.story.rotation()
            && let Err(fault) = self.keys.rotated(index, &self.roots.root(), said)
        {
            self.faults.told(index, format!("entry {index}: {fault}"));
        }
        for (field, blind, value) in row.personal {
            if let Err(fault) = self.story.personal(field, blind, value) {
                self.faults.add(Some(index), format!("entry {index}: {fault}"));
            }
        }
        for pin in self.pinned.remove(&index).unwrap_or_default() {
            let Some(pin) = self.pins.get(pin) else { continue };
            let Some(fault) = pin.judge(row.bytes, &leaf) else { continue };
            let fault = format!("entry {index}: {fault}");
            if pin.vouches_for_those_before(self.roots.subtrees()) {
                self.faults.add(Some(index), fault);
            } else {
                self.faults.told(index, fault);
            }
        }
        self.roots.push(leaf);
    }

    /// Takes the next line of `entries.jsonl`, with its newline.
    pub fn line(&mut self, line: &[u8]) {
        let index = self.roots.size;
        let bytes = line.strip_suffix(b"\n").unwrap_or_else(|| {
            self.faults.add(Some(index), format!("entry {index}: its line has no end"));
            line
        });
        self.row(Row { index, bytes, leaf: None, personal: &[] });
    }

    /// The full subtrees under the entries since this was last asked, to be compared with what is kept of them.
    pub fn take_full_subtrees(&mut self) -> Vec<FullSubtree> {
        self.roots.take_full()
    }

    /// Adds a finding of the caller's own: an index column that disagrees, a row that cannot be read.
    pub fn fault(&mut self, index: Option<u64>, what: impl Into<String>) {
        self.faults.add(index, what.into());
    }

    /// Ends the verification.
    pub fn finish(mut self) -> Report {
        let (size, root) = (self.roots.size, self.roots.root());
        let mut notes = self.story.notes();
        self.compare_signatures();
        let mut found = Compared::default();
        self.compare_head(size, &root, &mut found);
        self.compare_manifest(size, &root);
        let anchored = self.compare_pins(size, &mut found, &mut notes);
        let (first_bad, first_bad_among) = self.first_bad(size, &found);
        let faults = self.faults.close();
        let verdict = if !faults.is_empty() {
            Verdict::Broken(faults)
        } else if self.is_trusted && anchored > 0 {
            Verdict::Anchored
        } else {
            Verdict::Consistent
        };
        match &verdict {
            Verdict::Anchored if anchored + 1 == size => {
                notes.push(format!("entry {anchored} is newer than any anchor"));
            }
            Verdict::Anchored if anchored < size => {
                notes.push(format!("entries {anchored} to {} are newer than any anchor", size - 1));
            }
            Verdict::Consistent if !self.is_trusted => {
                notes.push("no key from elsewhere was given".to_owned())
            }
            Verdict::Consistent => notes.push("no anchor from elsewhere was given".to_owned()),
            Verdict::Anchored | Verdict::Broken(_) => {}
        }
        let origin = self.head.map(|head| head.origin).unwrap_or_default();
        Report { verdict, origin, size, root, anchored, first_bad, first_bad_among, notes }
    }

    /// Only the first mark that differs is a finding: behind a lost line they all do.
    fn compare_mark(&mut self, index: u64, leaf: &Digest) {
        let mark = mark(leaf);
        let Some(expected) = &self.expected_marks else { return };
        let at = self.marks.len();
        self.marks.extend_from_slice(&mark);
        if expected.get(at..at + MARK_BYTES) != Some(&mark) {
            self.faults
                .add(Some(index), format!("entry {index}: it is not the one that the manifest was made of"));
            self.expected_marks = None;
        }
    }

    /// Signatures are looked at last, since the entries tell which keys the log had.
    fn compare_signatures(&mut self) {
        if !self.keys.has_given() {
            self.faults.add(None, "the given key is none of those that the entries tell of".to_owned());
        }
        if self.head.is_some()
            && let Err(fault) = self.keys.open_head(&self.head_note)
        {
            self.faults.add(None, refused(&fault));
        }
    }

    fn compare_head(&mut self, size: u64, root: &Digest, found: &mut Compared) {
        let Some(head) = &self.head else { return };
        if head.size != size {
            found.is_short |= size < head.size;
            self.faults.told(
                size.min(head.size),
                format!("the checkpoint speaks of {} entries, there are {size}", head.size),
            );
        } else if head.root != *root {
            self.faults.add(None, "the entries are not those of the checkpoint".to_owned());
            found.differs.push(size);
        } else {
            found.holds.push(size);
        }
    }

    /// The first bad entry, or between which it is. What an entry's own hash shows is certain. What only the tale of the
    /// entries shows may be the trace of an earlier one, where nothing vouches for those before it.
    fn first_bad(&self, size: u64, found: &Compared) -> (Option<u64>, Option<(u64, u64)>) {
        let Faults { first_bad, first_told, .. } = self.faults;
        let differs = found.differs.iter().map(|differs| differs.saturating_sub(1)).min();
        let least_of = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let greatest = least_of(least_of(first_bad, first_told), differs);
        let Some(greatest) = greatest.filter(|greatest| first_bad != Some(*greatest)) else {
            return (first_bad, None);
        };
        if differs.is_none() && !found.is_short {
            return (Some(greatest), None);
        }
        // Marks are no proof, but where all of them agree and only the end is missing, the end is what is missing.
        let is_marked = differs.is_none() && self.expected_marks.is_some();
        let holds = found.holds.iter().copied().filter(|holds| *holds <= greatest).max().unwrap_or_default();
        let least = if is_marked { size.min(greatest) } else { holds };
        if least == greatest { (Some(greatest), None) } else { (None, Some((least, greatest))) }
    }

    fn compare_manifest(&mut self, size: u64, root: &Digest) {
        let (Some(found), Some(head)) = (&self.manifest, &self.head) else { return };
        let computed = Checkpoint { origin: head.origin.clone(), size, root: *root };
        let expected = Manifest::new(&computed, self.story.times.clone(), &self.marks).to_bytes();
        if *found != expected {
            self.faults.add(None, "the manifest is not that of these entries".to_owned());
        }
    }

    /// Up to which index anchors vouch for the entries.
    fn compare_pins(&mut self, size: u64, found: &mut Compared, notes: &mut Vec<String>) -> u64 {
        let mut anchored = 0;
        for pin in &self.pins {
            let Pin { name, head, note, entry } = pin;
            if let Err(fault) = self.keys.open(note, head) {
                self.faults.add(None, format!("anchor {name}: {fault}"));
            } else if self.head.as_ref().is_some_and(|own| own.origin != head.origin) {
                self.faults.add(None, format!("anchor {name}: it is of another log, {:?}", head.origin));
            } else if head.size > size {
                let text = format!(
                    "the log has {size} entries and is shorter than anchor {name}, which has seen {}",
                    head.size
                );
                found.is_short = true;
                self.faults.told(size, text);
            } else if entry.as_ref().is_some_and(|entry| entry.index >= head.size) {
                self.faults.add(None, format!("anchor {name}: its entry is not in its tree"));
            } else if self.roots.at(head.size) != Some(head.root) {
                let text = format!("the first {} entries are not those of anchor {name}", head.size);
                self.faults.add(None, text);
                found.differs.push(head.size);
            } else if head.size == 0 {
                notes.push(format!("anchor {name} is of an empty log and vouches for nothing"));
            } else {
                anchored = anchored.max(head.size);
                found.holds.push(head.size);
            }
        }
        anchored
    }
}

/// How the entries stand to the signed heads that are known of them.
#[derive(Default)]
struct Compared {
    /// The sizes at which they are the same.
    holds: Vec<u64>,
    /// The sizes at which they are not.
    differs: Vec<u64>,
    /// Whether some head has more of them.
    is_short: bool,
}

fn refused(fault: &NoteFault) -> String {
    format!("the checkpoint is refused: {fault}")
}

/// What does not hold. The texts are bounded, so that a log of rubbish does not fill memory or terminal.
#[derive(Default)]
struct Faults {
    texts: Vec<String>,
    more: u64,
    /// The first entry that is bad by what it is.
    first_bad: Option<u64>,
    /// The first entry that does not fit what comes before it.
    first_told: Option<u64>,
}

impl Faults {
    fn add(&mut self, index: Option<u64>, text: String) {
        self.first_bad = self.first_bad.into_iter().chain(index).min();
        self.tell(text);
    }

    fn told(&mut self, index: u64, text: String) {
        self.first_told = self.first_told.into_iter().chain([index]).min();
        self.tell(text);
    }

    fn tell(&mut self, text: String) {
        if self.texts.len() < MAX_FINDINGS {
            self.texts.push(text);
        } else {
            self.more += 1;
        }
    }

    fn close(mut self) -> Vec<String> {
        if self.more > 0 {
            self.texts.push(format!("and {} more", self.more));
        }
        self.texts
    }
}

const MAX_FINDINGS: usize = 20;
