//! Why Vault gave nothing. No variant has room for a byte of an answer or of a request (faults 4 and 5).

/// Why there is no answer that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VaultFault {
    /// The breaker is open: the backend failed again and again, and was not asked.
    #[error("the backend failed repeatedly, and is not asked for a moment")]
    BreakerOpen,
    /// 400, 405, 413 and whatever else says that the request is at fault.
    #[error("Vault refuses the request with status {0}")]
    BadRequest(u16),
    /// A control group waits for somebody's approval.
    #[error("a control group must approve first")]
    ControlGroup,
    /// 403, and the token is good.
    #[error("Vault denies it: the token's policies do not allow this")]
    Denied,
    /// 500 and 502: Vault, or what stands behind it, failed while it worked.
    #[error("Vault failed with status {0}")]
    Failed(u16),
    /// No answer in time.
    #[error("no answer in time")]
    Late {
        /// Whether the request may have left.
        sent: bool,
    },
    /// The broker has no token of its own.
    #[error("the broker cannot log in: {0}")]
    Login(LoginFault),
    /// The answer is no JSON, or not the envelope that Vault writes, or is larger than 4 MiB, or compressed.
    #[error("the answer is {0}")]
    Malformed(&'static str),
    /// 404.
    #[error("there is nothing: {0}")]
    NotFound(NotFound),
    /// 501.
    #[error("Vault is not initialised")]
    NotInitialised,
    /// A lease-count quota is used up: only ended leases help.
    #[error("a lease-count quota is used up")]
    Quota,
    /// 429 still after the last try.
    #[error("a rate-limit quota is used up")]
    RateLimited,
    /// A redirect to somewhere that is not configured.
    #[error("Vault redirects to an address that is not configured")]
    Redirected,
    /// 503: sealed, or without an active node.
    #[error("Vault is sealed, or has no active node")]
    Sealed,
    /// 412 for longer than two seconds.
    #[error("the node has not caught up with its state")]
    Stale,
    /// The connection broke after the request, or a part of it, had left.
    #[error("the connection broke after the request was sent")]
    Torn,
    /// 400 for a lease or an accessor that Vault does not know, or not any more.
    #[error("Vault does not know this lease or accessor")]
    Unknown,
    /// No connection, or no TLS.
    #[error("Vault cannot be reached")]
    Unreachable,
}

/// What 404 means.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotFound {
    /// No such path, no such secret, or none that this token may know of.
    #[error("no such path")]
    Absent,
    /// A KV version that was deleted, and can be brought back.
    #[error("this version is deleted")]
    Deleted,
    /// A KV version that was destroyed.
    #[error("this version is destroyed")]
    Destroyed,
}

/// Why the broker has no token of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoginFault {
    /// Vault denies the login, or the role is not there.
    #[error("Vault refuses the login")]
    Refused,
    /// The token or credential file cannot be read.
    #[error("the file with its credential cannot be read")]
    File,
    /// The file is empty, too large, or holds what no header can carry.
    #[error("the file with its credential holds no credential")]
    Content,
    /// Vault asks for a second factor, which a broker does not have.
    #[error("the login needs a second factor; take the broker's role out of that rule")]
    SecondFactor,
    /// A root token, which is for `demo` only.
    #[error("the token is a root token; give the broker one of its own, with few rights")]
    Root,
    /// Vault was not there, or too slow.
    #[error("Vault does not answer")]
    Unanswered,
    /// The wrapping token was made by somebody else than the role's own `secret-id`: it may be planted.
    #[error("the wrapped secret id was not made by the role: its creation path is another")]
    WrappedElsewhere,
    /// The wrapping token is used or has ended.
    #[error("the wrapped secret id is used up or has ended: put a fresh one into its file")]
    Wrapping,
}

impl VaultFault {
    /// A stable word for ledger, log and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BreakerOpen => "breaker-open",
            Self::BadRequest(_) => "bad-request",
            Self::ControlGroup => "pending-approval",
            Self::Denied => "backend-denied",
            Self::Failed(_) => "backend-error",
            Self::Late { .. } => "late",
            Self::Login(_) => "login",
            Self::Malformed(_) => "answer-malformed",
            Self::NotFound(NotFound::Absent) => "not-found",
            Self::NotFound(NotFound::Deleted) => "version-deleted",
            Self::NotFound(NotFound::Destroyed) => "version-destroyed",
            Self::NotInitialised => "not-initialised",
            Self::Quota => "backend-quota",
            Self::RateLimited => "rate-limited",
            Self::Redirected => "redirected",
            Self::Sealed => "sealed",
            Self::Stale => "stale",
            Self::Torn => "connection-broken",
            Self::Unknown => "unknown-lease",
            Self::Unreachable => "unreachable",
        }
    }

    /// Whether what was asked may have had its effect all the same, so that it must not be asked again before that is
    /// undone. A status that Vault gives before it works is no such case.
    pub fn may_have_happened(self) -> bool {
        match self {
            Self::Failed(_) | Self::Malformed(_) | Self::Torn => true,
            Self::Late { sent } => sent,
            Self::BreakerOpen
            | Self::BadRequest(_)
            | Self::ControlGroup
            | Self::Denied
            | Self::Login(_)
            | Self::NotFound(_)
            | Self::NotInitialised
            | Self::Quota
            | Self::RateLimited
            | Self::Redirected
            | Self::Sealed
            | Self::Stale
            | Self::Unknown
            | Self::Unreachable => false,
        }
    }

    /// Whether it says that the backend is ill, and not that this one request is refused.
    pub(super) fn is_illness(self) -> bool {
        match self {
            Self::Failed(_)
            | Self::Late { .. }
            | Self::Malformed(_)
            | Self::NotInitialised
            | Self::Redirected
            | Self::Sealed
            | Self::Stale
            | Self::Torn
            | Self::Unreachable => true,
            Self::BreakerOpen
            | Self::BadRequest(_)
            | Self::ControlGroup
            | Self::Denied
            | Self::Login(_)
            | Self::NotFound(_)
            | Self::Quota
            | Self::RateLimited
            | Self::Unknown => false,
        }
    }
}

impl LoginFault {
    /// What a fault of the login request says of the login.
    pub(super) fn of(fault: VaultFault) -> Self {
        match fault {
            VaultFault::BadRequest(_)
            | VaultFault::ControlGroup
            | VaultFault::Denied
            | VaultFault::NotFound(_)
            | VaultFault::Unknown => Self::Refused,
            VaultFault::Login(fault) => fault,
            VaultFault::BreakerOpen
            | VaultFault::Failed(_)
            | VaultFault::Late { .. }
            | VaultFault::Malformed(_)
            | VaultFault::NotInitialised
            | VaultFault::Quota
            | VaultFault::RateLimited
            | VaultFault::Redirected
            | VaultFault::Sealed
            | VaultFault::Stale
            | VaultFault::Torn
            | VaultFault::Unreachable => Self::Unanswered,
        }
    }
}
