//! Where things stand in a policy file, so that whatever is told of a loaded grant names its line.

use crate::kernel::policy::{
    set::Files,
    yaml::{self, Content, Key, Node},
};

/// A file as a tree; empty where it cannot be read, which the loader has told before.
pub(super) struct Places(Option<Node>);

/// One step down a tree.
pub(super) enum Step<'a> {
    Item(usize),
    Key(&'a str),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(at: usize) -> Self {
        Self::Item(at)
    }
}

/// Line, column and width, as findings have them.
pub(super) type Place = (usize, usize, usize);

impl Places {
    pub(super) fn of(files: &Files, file: &str) -> Self {
        Self(files.0.get(file).and_then(|bytes| yaml::read(file, bytes).ok()))
    }

    /// The place of the deepest step that is there: of its key, or of the item itself.
    pub(super) fn key(&self, steps: &[Step<'_>]) -> Place {
        self.walk(steps).0
    }

    /// Whether the file has every step.
    pub(super) fn has(&self, steps: &[Step<'_>]) -> bool {
        self.walk(steps).1
    }

    fn walk(&self, steps: &[Step<'_>]) -> (Place, bool) {
        let mut place = (1, 1, 0);
        let mut node = self.0.as_ref();
        for step in steps {
            let found = match (node.map(|node| &node.content), step) {
                (Some(Content::Mapping(entries)), Step::Key(name)) => {
                    entries.iter().find(|(key, _)| key.text == *name).map(|(key, node)| (of_key(key), node))
                }
                (Some(Content::Sequence(items)), Step::Item(at)) => {
                    items.get(*at).map(|node| ((node.line, node.column, node.width), node))
                }
                (
                    None
                    | Some(Content::Mapping(_) | Content::Plain(_) | Content::Quoted(_) | Content::Sequence(_)),
                    _,
                ) => None,
            };
            let Some((at, below)) = found else { return (place, false) };
            place = at;
            node = Some(below);
        }
        (place, true)
    }
}

fn of_key(key: &Key) -> Place {
    (key.line, key.column, key.width)
}
