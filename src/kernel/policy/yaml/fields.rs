//! From a tree to types: known keys are taken, and what is left over, mistyped or of a later version is a finding.
//! Configuration and policy are read by the same words, so that both are equally strict.

use super::{
    Content, Key, Node,
    scalar::{plain_integer, reads_as_something_else},
};
use crate::kernel::{
    lifetime::parse_duration,
    policy::finding::{Finding, Severity},
};

/// Collects findings while a tree is read into types, so that one run shows every mistake.
pub struct Findings<'a> {
    /// The file that is read.
    pub file: &'a str,
    /// What was found.
    pub list: Vec<Finding>,
}

impl<'a> Findings<'a> {
    /// Starts reading a file.
    pub fn new(file: &'a str) -> Self {
        Self { file, list: Vec::new() }
    }

    /// Notes a fault at a node.
    pub fn at(
        &mut self,
        node: &Node,
        code: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.place((node.line, node.column, node.width), code, message, remedy);
    }

    /// Notes a fault at a key.
    pub fn at_key(
        &mut self,
        key: &Key,
        code: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.place((key.line, key.column, key.width), code, message, remedy);
    }

    /// Notes a fault at a line, a column and a width.
    pub fn place(
        &mut self,
        (line, column, width): (usize, usize, usize),
        code: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let file = self.file.to_owned();
        let (severity, message, remedy) = (Severity::Error, message.into(), remedy.into());
        self.list.push(Finding { file, line, column, width, severity, code, message, remedy });
    }

    /// A mapping, whose keys are then taken one by one.
    pub fn fields<'n>(&mut self, node: &'n Node) -> Option<Fields<'n>> {
        match &node.content {
            Content::Mapping(entries) => Some(Fields {
                node,
                entries,
                taken: vec![false; entries.len()],
                known: Vec::new(),
                later: Vec::new(),
            }),
            Content::Plain(_) | Content::Quoted(_) | Content::Sequence(_) => {
                self.at(node, "type", "a mapping is due here", "write `key: value` lines");
                None
            }
        }
    }

    /// A text. A plain scalar that YAML would read as a number, a boolean or nothing must be quoted.
    pub fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.content {
            Content::Quoted(text) => Some(text),
            Content::Plain(text) if !reads_as_something_else(text) => Some(text),
            Content::Plain(text) => {
                let message = format!("a text is due here, and YAML reads `{text}` as something else");
                self.at(node, "literal-type", message, format!("quote it: \"{text}\""));
                None
            }
            Content::Mapping(_) | Content::Sequence(_) => {
                self.at(node, "type", "a text is due here", "write one value");
                None
            }
        }
    }

    /// Any scalar's text, where what YAML would read it as does not matter. No finding.
    pub fn scalar<'n>(&self, node: &'n Node) -> Option<&'n str> {
        match &node.content {
            Content::Plain(text) | Content::Quoted(text) => Some(text),
            Content::Mapping(_) | Content::Sequence(_) => None,
        }
    }

    /// A text that is not empty.
    pub fn filled<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        let text = self.text(node)?;
        if text.is_empty() {
            self.at(node, "empty", "the text is empty", "write the value, or remove the key");
            return None;
        }
        Some(text)
    }

    /// `true` or `false`, plain.
    pub fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.content {
            Content::Plain(text) if text == "true" => Some(true),
            Content::Plain(text) if text == "false" => Some(false),
            Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) | Content::Sequence(_) => {
                self.at(node, "type", "`true` or `false` is due here", "write true or false, without quotes");
                None
            }
        }
    }

    /// A whole number in plain decimal digits.
    pub fn integer(&mut self, node: &Node) -> Option<i64> {
        let parsed = match &node.content {
            Content::Plain(text) => plain_integer(text),
            Content::Quoted(_) | Content::Mapping(_) | Content::Sequence(_) => None,
        };
        if parsed.is_none() {
            self.at(
                node,
                "type",
                "a whole number is due here",
                "write decimal digits, without quotes or leading zeros",
            );
        }
        parsed
    }

    /// A duration such as `90s`, `15m`, `1h`, `30d`.
    pub fn duration(&mut self, node: &Node) -> Option<std::time::Duration> {
        let parsed = match &node.content {
            Content::Plain(text) | Content::Quoted(text) => parse_duration(text),
            Content::Mapping(_) | Content::Sequence(_) => None,
        };
        if parsed.is_none() {
            self.at(
                node,
                "duration",
                "a duration is due here",
                "write a whole number and s, m, h or d, such as 15m",
            );
        }
        parsed
    }

    /// A list.
    pub fn list<'n>(&mut self, node: &'n Node) -> Option<&'n [Node]> {
        match &node.content {
            Content::Sequence(items) => Some(items),
            Content::Plain(_) | Content::Quoted(_) | Content::Mapping(_) => {
                self.at(node, "type", "a list is due here", "write [a, b] or lines that begin with `- `");
                None
            }
        }
    }

    /// A list of texts.
    pub fn texts(&mut self, node: &Node) -> Option<Vec<String>> {
        let items = self.list(node)?;
        items.iter().map(|item| self.filled(item).map(str::to_owned)).collect()
    }
}

/// The keys of a mapping, taken one by one; what is left over is unknown.
pub struct Fields<'n> {
    node: &'n Node,
    entries: &'n [(Key, Node)],
    taken: Vec<bool>,
    known: Vec<&'static str>,
    /// Keys of later versions: a typo of one is named, yet none is offered.
    later: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Takes a key that may be absent.
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.take_entry(name).map(|(_, node)| node)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a key that may be absent, with its place.
    pub fn take_entry(&mut self, name: &'static str) -> Option<(&'n Key, &'n Node)> {
        self.known.push(name);
        self.find(name)
    }

    fn find(&mut self, name: &str) -> Option<(&'n Key, &'n Node)> {
        let at = self.entries.iter().position(|(key, _)| key.text == name)?;
        *self.taken.get_mut(at)? = true;
        self.entries.get(at).map(|(key, node)| (key, node))
    }

    /// Takes a key that must be there.
    pub fn require(&mut self, findings: &mut Findings<'_>, name: &'static str) -> Option<&'n Node> {
        let found = self.take(name);
        if found.is_none() {
            findings.at(
                self.node,
                "missing-key",
                format!("the key `{name}` is missing"),
                format!("add `{name}: …`"),
            );
        }
        found
    }

    /// Takes a key of a later version, and refuses it: what is not understood is never ignored.
    pub fn not_yet(&mut self, findings: &mut Findings<'_>, name: &'static str) {
        self.later.push(name);
        if let Some((key, _)) = self.find(name) {
            let message = format!("this version does not support `{name}` yet");
            findings.at_key(
                key,
                "not-yet",
                message,
                "remove it; it would have no effect, and that would be worse",
            );
        }
    }

    /// Every key that is left, taken: for mappings whose keys are the file's own names.
    pub fn rest(mut self) -> impl Iterator<Item = (&'n Key, &'n Node)> {
        self.taken.resize(self.entries.len(), false);
        let taken = self.taken;
        self.entries.iter().zip(taken).filter(|(_, taken)| !taken).map(|((key, node), _)| (key, node))
    }

    /// Ends the reading: what was not taken is unknown.
    pub fn finish(self, findings: &mut Findings<'_>) {
        for ((key, _), taken) in self.entries.iter().zip(&self.taken) {
            if *taken {
                continue;
            }
            let remedy = match nearest(&key.text, self.known.iter().chain(&self.later).copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            findings.at_key(key, "unknown-key", format!("the key `{}` is not known here", key.text), remedy);
        }
    }
}

/// The known word nearest to a mistyped one, if any is near: at most two letters off, and most of the word kept.
pub fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    let is_near = |(far, each): &(usize, &str)| *far <= 2 && far * 2 < each.len().max(word.len());
    known.map(|each| (distance(word, each), each)).filter(is_near).min().map(|(_, each)| each)
}

/// Edit distance (Levenshtein), capped by the words' lengths.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, from) in left.chars().enumerate() {
        let mut next = vec![at + 1];
        for (column, to) in right.iter().enumerate() {
            let diagonal = row.get(column).copied().unwrap_or(usize::MAX - 1) + usize::from(from != *to);
            let above = row.get(column + 1).copied().unwrap_or(usize::MAX - 1) + 1;
            let before = next.last().copied().unwrap_or(usize::MAX - 1) + 1;
            next.push(diagonal.min(above).min(before));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
