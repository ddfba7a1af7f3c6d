//! What is wrong with a file: where, what, and how to mend it.

use std::fmt;

/// One thing that is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Path relative to the root, with `/`.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// How many characters of that line it is about; 0 where it is about a place or about more than a line.
    pub width: usize,
    /// Whether it refuses the file.
    pub severity: Severity,
    /// A stable word for the kind of fault, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Where something stands in its file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Its characters on that line; 0 where it goes on in the next.
    pub width: usize,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Probably not meant; the set is accepted.
    Warning,
    /// The set is refused.
    Error,
}

impl Severity {
    /// The word in every output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Finding {
    /// An error at a place.
    pub fn error(
        (file, place): (&str, Place),
        code: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let Place { line, column, width } = place;
        let (file, message, remedy) = (file.to_owned(), message.into(), remedy.into());
        Self { file, line, column, width, severity: Severity::Error, code, message, remedy }
    }

    /// A warning at a place.
    pub fn warning(
        at: (&str, Place),
        code: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(at, code, message, remedy) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, width: _, severity, code, message, remedy } = self;
        write!(f, "{file}:{line}:{column}: {}[{code}]: {message}\n  fix: {remedy}", severity.as_str())
    }
}

/// Every code of the policy room with its meaning, for the manual; sorted.
pub const CODES: &[(&str, &str)] = &[
    ("anchor", "an anchor or an alias; the language has none"),
    ("arn", "not an ARN of a role, or of a managed policy"),
    ("attacker-controlled", "beside the tenant, a rule stands only on what a job can choose"),
    ("audience", "an audience that no token or assertion can have, or not exactly one"),
    ("audience-default", "the vendor's default audience, which every relying party gets"),
    ("audience-federated", "an assertion for a cloud that has a kind of its own"),
    ("audience-fixed", "an audience that no token of the profile has, since the vendor signs another"),
    (
        "audience-ourselves",
        "an assertion for this broker itself: the audience of tokens for it, its URL, its issuer",
    ),
    ("backend", "a backend where there is none, or which of several is not said"),
    ("byte-order-mark", "the file begins with one"),
    ("class", "not read, write, production or signing"),
    ("class-lower", "a grant whose own class is below that of its targets"),
    ("date", "not a date, or one that cannot be"),
    ("directive", "a YAML directive; the language has none"),
    ("disclose", "somebody to disclose to who is not the owner"),
    ("duplicate-key", "a key that stands twice in one mapping"),
    ("duplicate-name", "a name that two things of one kind have"),
    ("duplicate-url", "two issuers with one URL"),
    ("duration", "not a whole number and s, m, h or d"),
    ("empty", "a text, list or mapping that must hold something"),
    ("empty-file", "a file without a document"),
    ("empty-match", "a match, or a list in it, without conditions"),
    ("engine", "an engine that is not known, or a key that it does not have"),
    ("file-too-large", "more than 256 KiB"),
    ("folder", "not a folder that a grant could stand in"),
    ("glob", "a pattern that is empty, has three stars in a row, or is too long"),
    ("glob-in-literal", "a star in a literal, where a pattern may be meant"),
    ("glob-on-identity", "a pattern on `sub` or on a claim that says who somebody is"),
    ("guardrail", "what a grant offers and a guardrail refuses or cuts"),
    ("issuer-url", "an address that no token can have as its issuer"),
    ("key-not-text", "a key that YAML reads as a number, a boolean, nothing, or more than a scalar"),
    ("kind", "a credential of no kind, or of two"),
    ("limits", "a count that cannot be, or one of nothing"),
    ("literal-type", "a literal of another JSON type than the claim's, or unquoted where a text is due"),
    ("matcher", "not exactly one operator, or one where it misleads"),
    ("merge-key", "`<<`; the language has no merging"),
    ("missing-key", "a key that must be there"),
    ("mode", "not enforce or report, or a report without an end"),
    ("must-name", "a rule that does not say exactly whom it means"),
    ("name", "not 1 to 63 of a-z, 0-9 and -, or a hyphen at an end"),
    ("no-issuer", "a set without any issuer, such as an empty directory"),
    ("not-utf8", "bytes that are no UTF-8"),
    ("not-yet", "a key, kind or file of a later version, refused so that it is never ignored"),
    ("parameter", "something that an engine is not told, or must be told, by a policy"),
    ("path", "a path that Vault or the engine does not have"),
    ("pointer", "a JSON Pointer that is malformed, or leads to a claim itself or into one value"),
    ("registered-claim", "a condition on a claim that verification alone reads"),
    ("requirement", "a word that a guardrail cannot require"),
    ("second-document", "more than one document in a file"),
    ("session-policy", "not a session policy, or too many managed ones"),
    ("tab", "a tab where YAML wants spaces"),
    ("tag", "a tag; the language has none"),
    ("tag-key", "a key that a session tag cannot have, or one that stands twice"),
    ("tag-value", "a value that a session tag cannot have"),
    ("template", "a template where there is none, or of a claim that others can get or choose"),
    ("tenant-pin", "a rule for a shared issuer without its tenant"),
    ("token-age", "a token age over 24 h"),
    ("too-deep", "nesting deeper than 32"),
    ("too-many", "more than 16 credentials in a grant"),
    ("too-many-nodes", "more than 20,000 nodes in a file"),
    ("trigger", "a trigger that no CI system has"),
    ("ttl", "a time to live that the kind cannot honour"),
    ("ttl-on-static", "a time to live on a credential that nobody can end"),
    ("type", "a scalar, list or mapping where another is due"),
    ("unknown-claim", "a claim that tokens of the profile do not have"),
    ("unknown-file", "a file that means nothing where it is"),
    ("unknown-issuer", "a rule's issuer that no file names"),
    ("unknown-key", "a key that means nothing where it is"),
    ("unknown-profile", "a profile that this version does not know"),
    (
        "unseen-character",
        "a control character, a hidden line break, or a mark that turns the direction of writing",
    ),
    ("untrusted-issuer", "an issuer that hallpass.yaml does not trust under that name, URL and profile"),
    ("window", "a window that is never shut or never open, or a time, day or zone that is none"),
    ("yaml-syntax", "not YAML"),
];
