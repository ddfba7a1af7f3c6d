//! YAML as a tree in which every node knows its line and column; anchors, aliases, merge keys, tags, several
//! documents, duplicate keys refused (attack class P-03). Configuration and policy read from it, so both name the
//! place of a mistake. It never guesses: a plain scalar that YAML 1.1 or 1.2 would read as something else than text is
//! no text.

mod fields;
mod scalar;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span};

use super::finding::{Finding, Place, Severity};

pub use fields::{Fields, Findings, nearest};
pub use scalar::{plain_integer, reads_as_something_else};

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
    /// Its characters on that line; 0 where it goes on in the next.
    pub width: usize,
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
    /// Its characters on that line; 0 where it goes on in the next.
    pub width: usize,
}

impl Node {
    /// Where it stands.
    pub fn place(&self) -> Place {
        Place { line: self.line, column: self.column, width: self.width }
    }
}

impl Key {
    /// Where it stands.
    pub fn place(&self) -> Place {
        Place { line: self.line, column: self.column, width: self.width }
    }
}

/// Reads one document.
///
/// # Errors
///
/// One finding, at the place of the fault.
pub fn read(file: &str, bytes: &[u8]) -> Result<Node, Finding> {
    let top = |code, message: &str, remedy: &str| finding(file, (1, 1, 0), code, message, remedy);
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
    if let Some(fault) = unseen(file, text) {
        return Err(fault);
    }
    // A directive can change what a tag or a version means; nothing here needs one.
    let options = granit_parser::options! { disallow_directives: true, emit_comments: false };
    let mut tree = Tree { file, parser: Parser::new_from_str_with_options(text, options), nodes: 0 };
    tree.document()
}

/// The first character that a reviewer cannot see and that changes what is read: controls, line breaks that editors
/// do not show as such (a lone CR can hide a key behind a comment), and marks that turn the direction of writing.
fn unseen(file: &str, text: &str) -> Option<Finding> {
    let mut place = (1, 1);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let is_unseen = match letter {
            '\n' | '\t' => false,
            '\r' => letters.peek() != Some(&'\n'),
            '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => true,
            letter => letter.is_control(),
        };
        if is_unseen {
            let message = format!("the character U+{:04X} cannot be seen here", u32::from(letter));
            let remedy = "remove it; what a reviewer sees must be what is loaded";
            return Some(finding(file, (place.0, place.1, 1), "unseen-character", &message, remedy));
        }
        place = if letter == '\n' { (place.0 + 1, 1) } else { (place.0, place.1 + 1) };
    }
    None
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
                (1, 1, 0),
                "empty-file",
                "the file holds nothing",
                "write what it is for, or remove it",
            )
        })
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Finding> {
        match self.parser.next_event() {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => Err(self.unreadable(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum with a text for every kind")]
    fn unreadable(&self, error: &ScanError) -> Finding {
        let place = (error.marker().line().max(1), error.marker().col() + 1, 0);
        let (code, remedy) = match error.kind() {
            ErrorKind::UnknownAnchor => ("anchor", WRITE_OUT),
            ErrorKind::DirectiveDisallowed => ("directive", "remove the line that begins with %"),
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart => ("tab", "indent with spaces; YAML takes no tabs there"),
            ErrorKind::RecursionLimitExceeded => ("too-deep", "flatten it"),
            _ => ("yaml-syntax", "mend the YAML here; quote texts with special characters"),
        };
        finding(self.file, place, code, &error.info(), remedy)
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
        let (line, column, width) = place(&span);
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
                let message = "aliases and anchors are not part of the language";
                return Err(self.fault(span, "anchor", message, WRITE_OUT));
            }
            _ => return Err(self.fault(span, "yaml-syntax", "a value is missing here", "write the value")),
        };
        Ok(Node { line, column, width, content })
    }

    fn plain_node(&self, span: Span, anchor: usize, tagged: bool) -> Result<(), Finding> {
        if anchor != 0 {
            let message = "aliases and anchors are not part of the language";
            return Err(self.fault(span, "anchor", message, WRITE_OUT));
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
            let key = self.key(node, span)?;
            if !seen.insert(key.text.clone()) {
                let message = format!("the key `{}` stands here a second time", key.text);
                return Err(self.fault(span, "duplicate-key", &message, "keep one of them"));
            }
            let (event, span) = self.next()?;
            entries.push((key, self.node(event, span, depth + 1)?));
        }
    }

    fn key(&self, node: Node, span: Span) -> Result<Key, Finding> {
        let (text, is_plain) = match node.content {
            Content::Plain(text) => (text, true),
            Content::Quoted(text) => (text, false),
            Content::Mapping(_) | Content::Sequence(_) => {
                let remedy = "write a plain word as the key";
                return Err(self.fault(span, "key-not-text", "a key must be a text", remedy));
            }
        };
        if text == "<<" {
            let message = "merge keys are not part of the language";
            return Err(self.fault(span, "merge-key", message, WRITE_OUT));
        }
        if is_plain && reads_as_something_else(&text) {
            let message = format!("a key must be a text, and YAML reads `{text}` as something else");
            return Err(self.fault(span, "key-not-text", &message, &format!("quote it: \"{text}\"")));
        }
        Ok(Key { text, line: node.line, column: node.column, width: node.width })
    }

    fn fault(&self, span: Span, code: &'static str, message: &str, remedy: &str) -> Finding {
        finding(self.file, place(&span), code, message, remedy)
    }
}

const WRITE_OUT: &str = "write the value out: what a reviewer sees must be what is loaded";

fn place(span: &Span) -> (usize, usize, usize) {
    let is_one_line = span.start.line() == span.end.line();
    let width = if is_one_line { span.end.col().saturating_sub(span.start.col()) } else { 0 };
    (span.start.line().max(1), span.start.col() + 1, width)
}

fn finding(
    file: &str,
    (line, column, width): (usize, usize, usize),
    code: &'static str,
    message: &str,
    remedy: &str,
) -> Finding {
    Finding {
        file: file.to_owned(),
        line,
        column,
        width,
        severity: Severity::Error,
        code,
        message: message.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests;
