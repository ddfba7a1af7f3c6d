//! How commands end: the contract's exit codes (section 7), and the one sentence that goes with a bad end.

use std::{fmt, io, process::ExitCode};

use crate::{
    adapters::store::{OpenFault, postgres},
    broker::{ambient::NoEntropy, error::Refused, ports::StoreFault},
    kernel::policy::Finding,
};

/// An exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// 1: something is wrong on our side.
    Internal,
    /// 2: usage or configuration.
    Usage,
    /// 10: denied.
    Denied,
    /// 12: no CI identity token.
    NoToken,
    /// 13: the broker cannot be reached, or is not ready.
    Unreachable,
    /// 14: a backend failed.
    Backend,
    /// 15: rate limited.
    RateLimited,
    /// 20: the policy is invalid.
    PolicyInvalid,
    /// 21: policy tests failed, or notice too little.
    PolicyTestsFailed,
    /// 23: a guardrail refuses what a grant offers.
    GuardrailRefuses,
    /// 30: an integrity check failed.
    Integrity,
    /// 31: consistent, but not anchored.
    NotAnchored,
    /// What `exec` passes on: its command's code, or 125 to 127 as `env` has them.
    Passed(u8),
}

/// A bad end.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What to tell, on stderr; empty where everything was told already.
    pub(crate) message: String,
    /// The mistakes in files that it tells of, where it does.
    pub(crate) findings: Vec<Finding>,
    /// What the broker said, where it refused.
    pub(crate) problem: Option<Box<Problem>>,
}

/// The parts of a broker's problem document (RFC 9457) that somebody acts upon.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Its stable code.
    pub(crate) code: String,
    /// The decision, where one was made.
    pub(crate) decision: Option<String>,
    /// Names of claims that failed, where the grant discloses them to its own projects.
    pub(crate) failed_claims: Vec<String>,
}

/// What a command comes to.
pub(crate) type Done = Result<(), Failure>;

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Denied => 10,
            Self::NoToken => 12,
            Self::Unreachable => 13,
            Self::Backend => 14,
            Self::RateLimited => 15,
            Self::PolicyInvalid => 20,
            Self::PolicyTestsFailed => 21,
            Self::GuardrailRefuses => 23,
            Self::Integrity => 30,
            Self::NotAnchored => 31,
            Self::Passed(code) => code,
        }
    }

    /// The code in words.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Internal => "an internal fault",
            Self::Usage => "usage or configuration",
            Self::Denied => "denied",
            Self::NoToken => "no CI identity token",
            Self::Unreachable => "the broker cannot be reached",
            Self::Backend => "a backend failed",
            Self::RateLimited => "rate limited",
            Self::PolicyInvalid => "the policy is invalid",
            Self::PolicyTestsFailed => "policy tests failed",
            Self::GuardrailRefuses => "a guardrail refuses",
            Self::Integrity => "an integrity check failed",
            Self::NotAnchored => "consistent, but not anchored",
            Self::Passed(_) => "the command's own",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

impl Failure {
    /// A bad end with its sentence.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), findings: Vec::new(), problem: None }
    }

    /// Wrong usage or configuration.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// An end of which everything was told already.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Mistakes in files, one a paragraph.
    pub(crate) fn findings(exit: Exit, findings: &[Finding]) -> Self {
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Self { findings: findings.to_vec(), ..Self::new(exit, shown.join("\n")) }
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &std::path::Path, fault: &io::Error) -> Self {
        Self::usage(format!("{}: {fault}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<OpenFault> for Failure {
    fn from(fault: OpenFault) -> Self {
        let exit = match &fault {
            OpenFault::Damaged(_) => Exit::Integrity,
            OpenFault::Absent(_)
            | OpenFault::Foreign(_)
            | OpenFault::Newer { .. }
            | OpenFault::Serving
            | OpenFault::WrongSealingKey => Exit::Usage,
            OpenFault::Database(_) | OpenFault::Lock(_) | OpenFault::Thread(_) => Exit::Internal,
        };
        Self::new(exit, chain(&fault))
    }
}

impl From<postgres::OpenFault> for Failure {
    fn from(fault: postgres::OpenFault) -> Self {
        let exit = match &fault {
            postgres::OpenFault::Damaged(_) => Exit::Integrity,
            postgres::OpenFault::Absent(_)
            | postgres::OpenFault::Clock(_)
            | postgres::OpenFault::Newer { .. }
            | postgres::OpenFault::Older { .. }
            | postgres::OpenFault::Password(_)
            | postgres::OpenFault::TwoSealingKeys
            | postgres::OpenFault::WrongSealingKey => Exit::Usage,
            postgres::OpenFault::Database(_) | postgres::OpenFault::Slow | postgres::OpenFault::Thread(_) => {
                Exit::Internal
            }
        };
        Self::new(exit, chain(&fault))
    }
}

impl From<postgres::ServerCopyFault> for Failure {
    fn from(fault: postgres::ServerCopyFault) -> Self {
        let exit = match &fault {
            postgres::ServerCopyFault::Damaged(_) => Exit::Integrity,
            postgres::ServerCopyFault::Exists
            | postgres::ServerCopyFault::Password(_)
            | postgres::ServerCopyFault::WrongSealingKey => Exit::Usage,
            postgres::ServerCopyFault::File(_)
            | postgres::ServerCopyFault::Open(_)
            | postgres::ServerCopyFault::Server(_)
            | postgres::ServerCopyFault::Stopped => Exit::Internal,
        };
        Self::new(exit, chain(&fault))
    }
}

impl From<postgres::CreateFault> for Failure {
    fn from(fault: postgres::CreateFault) -> Self {
        let exit = match &fault {
            postgres::CreateFault::Exists
            | postgres::CreateFault::Newer { .. }
            | postgres::CreateFault::Origin(_)
            | postgres::CreateFault::Password(_) => Exit::Usage,
            postgres::CreateFault::Start(_)
            | postgres::CreateFault::Busy
            | postgres::CreateFault::Database(_)
            | postgres::CreateFault::NoEntropy
            | postgres::CreateFault::Seal(_) => Exit::Internal,
        };
        Self::new(exit, chain(&fault))
    }
}

impl From<StoreFault> for Failure {
    fn from(fault: StoreFault) -> Self {
        Self::new(Exit::Internal, chain(&fault))
    }
}

impl From<NoEntropy> for Failure {
    fn from(fault: NoEntropy) -> Self {
        Self::new(Exit::Internal, fault.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::new(Exit::Internal, refused.detail)
    }
}

impl From<Finding> for Failure {
    fn from(finding: Finding) -> Self {
        Self::findings(Exit::Usage, &[finding])
    }
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
