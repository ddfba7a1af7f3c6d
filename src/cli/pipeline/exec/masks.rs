//! Masks secrets in a stream that comes in pieces.
//!
//! Whatever is part of a secret's shape becomes `***`, wherever the pieces are cut; all else passes byte for byte. Only
//! what may still become a secret is held back, so a prompt shows at once. Memory is bounded by the longest shape and
//! one piece. Shapes are looked for by binary search among their sorted texts, not by an automaton: its states would
//! take tens of bytes for every byte of a secret.

use super::patterns::{self, SHORTEST};
use crate::kernel::secret::Secret;

/// What stands for a secret.
const MASK: &[u8] = b"***";

/// Texts that must not be seen.
pub(super) struct Masks {
    /// Sorted, without doubles.
    shapes: Vec<Shape>,
    /// By the first two bytes, whether a shape begins so.
    pairs: Vec<bool>,
    /// By the first byte.
    firsts: Vec<bool>,
}

struct Shape {
    text: Secret,
    /// The longest other shape that this one begins with, as an index.
    shorter: Option<usize>,
}

/// What a place in a stream is.
enum Place {
    /// No shape begins here.
    Plain,
    /// A shape of this length begins here, and no longer one.
    Secret(usize),
    /// Only what comes next can tell.
    Open,
}

/// One stream on its way.
#[derive(Default)]
pub(super) struct Masker {
    held: Vec<u8>,
    /// How many bytes at the front of `held` belong to a secret whose mask is written already.
    covered: usize,
}

impl Masks {
    /// Takes the secrets in; those under four characters are not masked.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut texts = Vec::new();
        secrets.into_iter().for_each(|secret| patterns::add(secret, &mut texts));
        texts.sort_by(|one, other| one.expose().cmp(other.expose()));
        texts.dedup_by(|one, other| one.expose() == other.expose());
        let mut pairs = vec![false; 1 << 16];
        let mut firsts = vec![false; 1 << 8];
        let mut shapes: Vec<Shape> = Vec::with_capacity(texts.len());
        for text in texts {
            if let [first, second, ..] = text.expose() {
                set(&mut firsts, usize::from(*first));
                set(&mut pairs, pair(*first, *second));
            }
            // Whatever this one begins with is the shape before it, or what that one begins with, and so on.
            let mut shorter = shapes.len().checked_sub(1);
            while let Some(shape) = shorter.and_then(|at| shapes.get(at)) {
                if text.expose().starts_with(shape.text.expose()) {
                    break;
                }
                shorter = shape.shorter;
            }
            shapes.push(Shape { text, shorter });
        }
        Self { shapes, pairs, firsts }
    }

    /// Whether there is nothing to mask.
    pub(super) fn is_empty(&self) -> bool {
        self.shapes.is_empty()
    }

    /// The next place from `from` on where a shape may begin; the length where there is none.
    fn candidate(&self, bytes: &[u8], from: usize) -> usize {
        let rest = bytes.get(from..).unwrap_or_default();
        let found = rest.windows(2).position(|window| match window {
            [first, second] => self.pairs.get(pair(*first, *second)).copied().unwrap_or_default(),
            _ => false,
        });
        match (found, rest.last()) {
            (Some(at), _) => from + at,
            (None, Some(last)) if self.firsts.get(usize::from(*last)).copied().unwrap_or_default() => {
                bytes.len() - 1
            }
            (None, _) => bytes.len(),
        }
    }

    /// What `rest`, the stream from some place on as far as it is known, begins with.
    fn place(&self, rest: &[u8], is_all: bool) -> Place {
        // The largest shape that is not above `rest`: a shape that `rest` begins with is that one, or stands in its
        // chain, since all that lies between a text and its continuation begins with the text.
        let after = self.shapes.partition_point(|shape| shape.text.expose() <= rest);
        let may_grow =
            self.shapes.get(after).is_some_and(|shape| shape.text.expose().starts_with(rest)) && !is_all;
        if may_grow {
            return Place::Open;
        }
        let mut at = after.checked_sub(1);
        while let Some(shape) = at.and_then(|at| self.shapes.get(at)) {
            if rest.starts_with(shape.text.expose()) {
                return Place::Secret(shape.text.len());
            }
            at = shape.shorter;
        }
        Place::Plain
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

fn set(flags: &mut [bool], at: usize) {
    if let Some(flag) = flags.get_mut(at) {
        *flag = true;
    }
}

impl Masker {
    /// Takes the next piece, and writes what is decided to `out`.
    pub(super) fn push(&mut self, masks: &Masks, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        self.decide(masks, false, out);
    }

    /// Writes the rest: nothing more comes.
    pub(super) fn finish(&mut self, masks: &Masks, out: &mut Vec<u8>) {
        self.decide(masks, true, out);
    }

    fn decide(&mut self, masks: &Masks, is_all: bool, out: &mut Vec<u8>) {
        let held = self.held.as_slice();
        let mut covered = self.covered;
        let mut at = 0;
        loop {
            let next = masks.candidate(held, at);
            out.extend_from_slice(held.get(at.max(covered)..next).unwrap_or_default());
            at = next;
            let rest = held.get(at..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match masks.place(rest, is_all) {
                Place::Open => break,
                Place::Secret(length) => {
                    if at >= covered {
                        out.extend_from_slice(MASK);
                    }
                    covered = covered.max(at + length);
                }
                Place::Plain => {}
            }
            if at >= covered {
                out.extend(rest.first());
            }
            at += 1;
        }
        self.covered = covered.saturating_sub(at);
        self.held.drain(..at);
    }
}

const _: () = assert!(MASK.len() < SHORTEST, "a mask is never longer than what it stands for");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masks(secrets: &[&str]) -> Masks {
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::from_text((*text).to_owned())).collect();
        Masks::new(&secrets)
    }

    fn through(masks: &Masks, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut masker, mut out) = (Masker::default(), Vec::new());
        pieces.iter().for_each(|piece| masker.push(masks, piece, &mut out));
        masker.finish(masks, &mut out);
        out
    }

    /// The same by looking everywhere for everything, which nobody can get wrong.
    fn expected(masks: &Masks, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut covered = 0;
        for at in 0..text.len() {
            let longest = masks.shapes.iter().map(|shape| shape.text.expose());
            let longest = longest.filter(|shape| text[at..].starts_with(shape)).map(<[u8]>::len).max();
            if let Some(length) = longest {
                if at >= covered {
                    out.extend_from_slice(MASK);
                }
                covered = covered.max(at + length);
            }
            if at >= covered {
                out.push(text[at]);
            }
        }
        out
    }

    #[test]
    fn nothing_changes_but_the_secret() {
        let masks = masks(&["hunter2!"]);
        for (text, shown) in [
            ("", ""),
            ("a\n", "a\n"),
            ("hunter2!", "***"),
            ("x hunter2! y\r\n\n", "x *** y\r\n\n"),
            ("hunter2!hunter2!", "******"),
            ("hunter2 hunte hunter3!", "hunter2 hunte hunter3!"),
            ("hhunter2!", "h***"),
            ("no newline: hunter2", "no newline: hunter2"),
        ] {
            assert_eq!(through(&masks, &[text.as_bytes()]), shown.as_bytes(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_found_however_the_pieces_are_cut() {
        let masks = masks(&["hunter2!"]);
        let text = b"login hunter2! done\n";
        for cut in 0..text.len() {
            let (left, right) = text.split_at(cut);
            assert_eq!(through(&masks, &[left, right]), b"login *** done\n", "cut at {cut}");
        }
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(through(&masks, &single), b"login *** done\n");
    }

    #[test]
    fn what_cannot_be_a_secret_is_not_held_back() {
        let masks = masks(&["hunter2!"]);
        let (mut masker, mut out) = (Masker::default(), Vec::new());
        masker.push(&masks, b"Password: ", &mut out);
        assert_eq!(out, b"Password: ");
        masker.push(&masks, b"hunt", &mut out);
        assert_eq!(out, b"Password: ", "this may become one");
        masker.push(&masks, b"ing", &mut out);
        assert_eq!(out, b"Password: hunting");
    }

    #[test]
    fn overlapping_secrets_leave_nothing_of_either() {
        assert_eq!(through(&masks(&["abcdef", "defghi"]), &[b"-abcdefghi-"]), b"-***-");
        assert_eq!(through(&masks(&["abcd", "abcdefgh"]), &[b"abcdefg abcdefgh"]), b"***efg ***");
        assert_eq!(through(&masks(&["aaaa"]), &[b"aa", b"aaaaa", b"b"]), b"***b");
    }

    #[test]
    fn a_secret_that_comes_later_is_masked_from_then_on() {
        let (first, both) = (masks(&["first-secret"]), masks(&["first-secret", "later-secret"]));
        let (mut masker, mut out) = (Masker::default(), Vec::new());
        masker.push(&first, b"first-sec", &mut out);
        masker.push(&both, b"ret later-sec", &mut out);
        masker.push(&both, b"ret", &mut out);
        masker.finish(&both, &mut out);
        assert_eq!(out, b"*** ***");
    }

    #[test]
    fn memory_is_bounded_by_the_longest_shape() {
        let masks = masks(&["a-long-secret-of-some-length-and-more"]);
        let longest = masks.shapes.iter().map(|shape| shape.text.len()).max().unwrap();
        let (mut masker, mut out) = (Masker::default(), Vec::new());
        for _ in 0..1_000 {
            masker.push(&masks, b"a-long-secret-of-some-length-and-mora-long-secret", &mut out);
            assert!(masker.held.len() < longest);
            out.clear();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Secrets of few letters overlap with themselves, with each other, and with what stands around them.
        #[test]
        fn no_cut_lets_a_secret_through(
            secrets in prop::collection::vec("[ab/+\" é]{1,9}", 1..4),
            words in prop::collection::vec((0_usize..9, 0_usize..4, "[ab/+\"=%\n ]{0,5}"), 0..12),
            cuts in prop::collection::vec(0_usize..200, 0..20),
        ) {
            let secrets: Vec<Secret> = secrets.into_iter().map(Secret::from_text).collect();
            let masks = Masks::new(&secrets);
            let mut text = Vec::new();
            for (shape, secret, between) in &words {
                let mut shapes = Vec::new();
                patterns::add(&secrets[secret % secrets.len()], &mut shapes);
                if let Some(shape) = shapes.get(shape * 3 % shapes.len().max(1)) {
                    text.extend_from_slice(shape.expose());
                }
                text.extend_from_slice(between.as_bytes());
            }
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();

            let shown = through(&masks, &pieces);

            prop_assert_eq!(&shown, &expected(&masks, &text));
            for shape in &masks.shapes {
                let shape = shape.text.expose();
                prop_assert!(!shown.windows(shape.len()).any(|window| window == shape));
            }
        }

        /// Any bytes that hold no secret pass as they are.
        #[test]
        fn all_else_is_byte_for_byte(
            secret in "[A-Z]{12,40}",
            text in prop::collection::vec(any::<u8>(), 0..2_000),
            piece in 1_usize..300,
        ) {
            let masks = Masks::new(&[Secret::from_text(secret)]);
            let pieces: Vec<&[u8]> = text.chunks(piece).collect();
            prop_assert_eq!(through(&masks, &pieces), text);
        }
    }
}
