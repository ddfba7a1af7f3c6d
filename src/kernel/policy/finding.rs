//! What is wrong with a file: where, what, and how to mend it.

use std::fmt;

/// One reason why a file is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Path relative to the root, with `/`.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// A stable word for the kind of fault, such as `unknown-key`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, code, message, remedy } = self;
        write!(f, "{file}:{line}:{column}: error[{code}]: {message}\n  fix: {remedy}")
    }
}
