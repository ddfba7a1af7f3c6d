//! YAML as a tree in which every node knows its line and column; anchors, aliases, merge keys, tags, several
//! documents, duplicate keys refused. Configuration and policy read from it, so both name the place of a mistake.

use super::finding::Finding;

/// Reads one document.
///
/// # Errors
///
/// One finding, at the place of the fault.
pub fn read(_file: &str, _bytes: &[u8]) -> Result<Node, Finding> {
    todo!()
}

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
    /// A mapping: key, place of the key, value; keys are texts.
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
