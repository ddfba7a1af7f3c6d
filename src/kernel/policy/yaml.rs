//! YAML as a tree in which every node knows its line and column; anchors, aliases, merge keys, tags, several
//! documents, duplicate keys refused (attack class P-03). Configuration and policy read from it, so both name the
//! place of a mistake. It never guesses: a plain scalar that YAML 1.1 or 1.2 would read as something else than text is
//! no text.

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::finding::Finding;
use crate::kernel::lifetime::parse_duration;

/// The greatest file in bytes.
pub const MAX_FILE_BYTES: usize = 256 * 1024;
/// The most nodes of one file; a policy has hundreds, a bomb has millions.
const MAX_NODES: usize = 20_000;
/// The deepest nesting.
const MAX_DEPTH: usize = 32;

/// A node with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A mapping, in the order of the file.
    Mapping(Vec<(Key, Node)>),
    /// A plain scalar: its text decides its type.
    Plain(String),
    /// A quoted or block scalar: a text.
    Quoted(String),
    /// A sequence.
    Sequence(Vec<Node>),
}

/// A key with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Reads one document.
///
/// # Errors
///
/// One finding, at the place of the fault.
pub fn read(file: &str, bytes: &[u8]) -> Result<Node, Finding> {
    let top = |code, message: &str, remedy: &str| finding(file, (1, 1), code, message, remedy);
    if bytes.len() > MAX_FILE_BYTES {
        return Err(top("file-too-large", "the file has more than 256 KiB", "split it into several files"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| {
        top("not-utf8", "the file is not UTF-8", "save it as UTF-8 without a byte order mark")
    })?;
    if text.starts_with('\u{feff}') {
        return Err(top(
            "byte-order-mark",
            "the file begins with a byte order mark",
            "save it as UTF-8 without one",
        ));
    }
    let mut tree = Tree { file, parser: Parser::new_from_str(text), nodes: 0 };
    tree.document()
}

type ReadParser<'a> = Parser<'a, granit_parser::StrInput<'a>>;

struct Tree<'a> {
    file: &'a str,
    parser: ReadParser<'a>,
    nodes: usize,
}

impl<'a> Tree<'a> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a foreign enum; what is not known is refused as a node"
    )]
    fn document(&mut self) -> Result<Node, Finding> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => break,
                _ if root.is_some() => {
                    let remedy = "put the second document into a file of its own";
                    return Err(self.fault(
                        span,
                        "second-document",
                        "the file holds more than one document",
                        remedy,
                    ));
                }
                other => root = Some(self.node(other, span, 0)?),
            }
        }
        root.ok_or_else(|| {
            finding(
                self.file,
                (1, 1),
                "empty-file",
                "the file holds nothing",
                "write what it is for, or remove it",
            )
        })
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Finding> {
        match self.parser.next_event() {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => {
                let place = (error.marker().line().max(1), error.marker().col() + 1);
                let remedy =
                    "mend the YAML here; indent with spaces, and quote texts with special characters";
                Err(finding(self.file, place, "yaml-syntax", &error.info().to_string(), remedy))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum; what is not known is refused")]
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Finding> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(self.fault(
                span,
                "too-many-nodes",
                "the file has more than 20,000 nodes",
                "split it",
            ));
        }
        if depth > MAX_DEPTH {
            return Err(self.fault(span, "too-deep", "the nesting is deeper than 32", "flatten it"));
        }
        let (line, column) = place(&span);
        let content = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.plain_node(span, anchor, tag.is_some())?;
                match style {
                    ScalarStyle::Plain => Content::Plain(text.into_owned()),
                    ScalarStyle::SingleQuoted
                    | ScalarStyle::DoubleQuoted
                    | ScalarStyle::Literal
                    | ScalarStyle::Folded => Content::Quoted(text.into_owned()),
                }
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.plain_node(span, anchor, tag.is_some())?;
                Content::Sequence(self.sequence(depth)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.plain_node(span, anchor, tag.is_some())?;
                Content::Mapping(self.mapping(depth)?)
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) | Event::Anchor(..) => {
                let remedy = "write the value out: what a reviewer sees must be what is loaded";
                return Err(self.fault(
                    span,
                    "alias",
                    "aliases and anchors are not part of the language",
                    remedy,
                ));
            }
            _ => return Err(self.fault(span, "yaml-syntax", "a value is missing here", "write the value")),
        };
        Ok(Node { line, column, content })
    }

    fn plain_node(&self, span: Span, anchor: usize, tagged: bool) -> Result<(), Finding> {
        if anchor != 0 {
            let remedy = "write the value out: what a reviewer sees must be what is loaded";
            return Err(self.fault(span, "anchor", "anchors are not part of the language", remedy));
        }
        if tagged {
            return Err(self.fault(span, "tag", "tags are not part of the language", "remove the `!…`"));
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, Finding> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Finding> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(entries);
            }
            let node = self.node(event, span, depth + 1)?;
            let (Content::Plain(text) | Content::Quoted(text)) = node.content else {
                return Err(self.fault(
                    span,
                    "key-not-text",
                    "a key must be a text",
                    "write a plain word as the key",
                ));
            };
            let key = Key { text, line: node.line, column: node.column };
            if key.text == "<<" {
                let remedy = "write the keys out: what a reviewer sees must be what is loaded";
                return Err(self.fault(span, "merge-key", "merge keys are not part of the language", remedy));
            }
            if !seen.insert(key.text.clone()) {
                let message = format!("the key `{}` stands here a second time", key.text);
                return Err(self.fault(span, "duplicate-key", &message, "keep one of them"));
            }
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, span, depth + 1)?));
        }
    }

    fn fault(&self, span: Span, code: &'static str, message: &str, remedy: &str) -> Finding {
        finding(self.file, place(&span), code, message, remedy)
    }
}

fn place(span: &Span) -> (usize, usize) {
    (span.start.line().max(1), span.start.col() + 1)
}

fn finding(
    file: &str,
    (line, column): (usize, usize),
    code: &'static str,
    message: &str,
    remedy: &str,
) -> Finding {
    Finding {
        file: file.to_owned(),
        line,
        column,
        code,
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    }
}

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
        self.place((node.line, node.column), code, message, remedy);
    }

    /// Notes a fault at a key.
    pub fn at_key(
        &mut self,
        key: &Key,
        code: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.place((key.line, key.column), code, message, remedy);
    }

    fn place(
        &mut self,
        (line, column): (usize, usize),
        code: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let file = self.file.to_owned();
        self.list.push(Finding { file, line, column, code, message: message.into(), remedy: remedy.into() });
    }

    /// A mapping, whose keys are then taken one by one.
    pub fn fields<'n>(&mut self, node: &'n Node) -> Option<Fields<'n>> {
        match &node.content {
            Content::Mapping(entries) => {
                Some(Fields { node, entries, taken: vec![false; entries.len()], known: Vec::new() })
            }
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
            Content::Plain(text) if !is_other_than_text(text) => Some(text),
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
}

impl<'n> Fields<'n> {
    /// Takes a key that may be absent.
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.take_entry(name).map(|(_, node)| node)
    }

    /// Takes a key that may be absent, with its place.
    pub fn take_entry(&mut self, name: &'static str) -> Option<(&'n Key, &'n Node)> {
        self.known.push(name);
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
        if let Some((key, _)) = self.take_entry(name) {
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
            let remedy = match nearest(&key.text, self.known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", self.known.join(", ")),
            };
            findings.at_key(key, "unknown-key", format!("the key `{}` is not known here", key.text), remedy);
        }
    }
}

/// The known word nearest to a mistyped one, if any is near.
pub fn nearest<'w>(word: &str, known: impl Iterator<Item = &'w str>) -> Option<&'w str> {
    known.map(|each| (distance(word, each), each)).filter(|(far, _)| *far <= 2).min().map(|(_, each)| each)
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

/// Decimal digits without a leading zero, an optional minus in front.
pub fn plain_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && text != "-0";
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Whether YAML 1.1 or 1.2 would read a plain scalar as null, boolean, number or time, so that a reader cannot be
/// sure of its type.
fn is_other_than_text(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let words = [
        "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", ".inf", "-.inf", "+.inf",
        ".nan",
    ];
    if words.contains(&lower.as_str()) {
        return true;
    }
    let body = lower.strip_prefix(['-', '+']).unwrap_or(&lower);
    let first = body.bytes().next().unwrap_or(b'x');
    let is_prefixed = ["0x", "0o", "0b"].iter().any(|prefix| body.starts_with(prefix))
        && body.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit() || byte == b'_');
    let looks_numeric = (first.is_ascii_digit() || (first == b'.' && body.len() > 1))
        && body.bytes().all(|byte| {
            byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b',' | b':' | b'e' | b'+' | b'-')
        });
    is_prefixed || looks_numeric
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        read("x.yaml", text.as_bytes()).unwrap_err().code
    }

    #[test]
    fn reads_a_tree_with_places() {
        let tree = read("x.yaml", b"a: 1\nb:\n  - 'x'\n  - {c: d}\n").unwrap();
        let Content::Mapping(entries) = &tree.content else { panic!("mapping") };
        assert_eq!((entries[1].0.line, entries[1].0.column), (2, 1));
        let Content::Sequence(items) = &entries[1].1.content else { panic!("sequence") };
        assert_eq!(items[0].content, Content::Quoted("x".into()));
        assert_eq!((items[1].line, items[1].column), (4, 5));
    }

    #[test]
    fn refuses_what_two_readers_could_read_differently() {
        for (text, expected) in [
            ("a: &x 1\nb: 2", "anchor"),
            ("a: &x 1\nb: *x", "anchor"),
            ("b: *x", "yaml-syntax"),
            ("a: !!str 1", "tag"),
            ("a: 1\na: 2", "duplicate-key"),
            ("a: 1\n\"a\": 2", "duplicate-key"),
            ("<<: {a: 1}", "merge-key"),
            ("a: 1\n---\nb: 2", "second-document"),
            ("? [a]\n: 1", "key-not-text"),
            ("", "empty-file"),
            ("# only a comment\n", "empty-file"),
            ("\u{feff}a: 1", "byte-order-mark"),
            ("a: [1", "yaml-syntax"),
            ("a:\n\t- b", "yaml-syntax"),
        ] {
            assert_eq!(code(text), expected, "{text:?}");
        }
        assert_eq!(code(&format!("{}{}", "[".repeat(40), "]".repeat(40))), "too-deep");
        assert_eq!(code(&"[".repeat(100_000)), "yaml-syntax");
        assert_eq!(read("x", &[0xff]).unwrap_err().code, "not-utf8");
        assert_eq!(code(&format!("[{}]", "1,".repeat(30_000))), "too-many-nodes");
    }

    #[test]
    fn duplicate_is_shown_where_it_stands() {
        let found = read("x.yaml", b"a: 1\nb: 2\na: 3\n").unwrap_err();
        assert_eq!((found.line, found.column), (3, 1));
    }

    #[test]
    fn numbers_and_booleans_are_no_texts() {
        for text in [
            "0701",
            "yes",
            "No",
            "1_000",
            "1.5",
            "null",
            "~",
            "true",
            "0x1f",
            "12:30:00",
            "2027-01-13",
            "1e3",
            ".5",
        ] {
            assert!(is_other_than_text(text), "{text}");
        }
        for text in
            ["acme/payments", "refs/heads/main", "push", "a1", "10m", "v1.2", "https://x.test", "e", "-"]
        {
            assert!(!is_other_than_text(text), "{text}");
        }
    }

    #[test]
    fn unknown_keys_name_the_nearest() {
        let tree = read("x.yaml", b"enviroment: x\n").unwrap();
        let mut findings = Findings::new("x.yaml");
        let mut fields = findings.fields(&tree).unwrap();
        fields.take("environment");
        fields.finish(&mut findings);
        assert_eq!(findings.list[0].remedy, "did you mean `environment`?");
    }
}
