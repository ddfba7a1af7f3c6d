//! Every family there is, by name of its constant.

/// A metric's name, and what stands behind it.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it says, in one line.
    pub help: &'static str,
    /// Its shape.
    pub shape: Shape,
    /// Its labels, each with the set that its values come from.
    pub labels: &'static [(&'static str, &'static str)],
}

/// What a family's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

impl Shape {
    /// The word of the text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Every family of the process, by name.
pub static FAMILIES: &[&Family] = &[
    &ALERTS,
    &BACKEND_BREAKER,
    &BACKEND_LOGINS,
    &BACKEND_ORPHANS,
    &BACKEND_SECONDS,
    &BACKEND_REQUESTS,
    &BACKEND_RETRIES,
    &BUILD,
    &CERTIFICATE_END,
    &CLOCK,
    &EXCHANGE_SECONDS,
    &STEP_SECONDS,
    &EXCHANGES_RUNNING,
    &EXCHANGES,
    &HTTP_SECONDS,
    &HTTP_IN_FLIGHT,
    &HTTP_REQUESTS,
    &HTTP_SHED,
    &ISSUANCES,
    &JWKS_SINCE,
    &JWKS_REFRESHES,
    &JWKS_USABLE,
    &LEDGER_ENTRIES,
    &POLICY_INFO,
    &POLICY_SINCE,
    &POLICY_LOADS,
    &POLICY_THINGS,
    &PROCESS_CPU,
    &PROCESS_MAX_FDS,
    &PROCESS_FDS,
    &PROCESS_RESIDENT,
    &PROCESS_START,
    &READY,
    &REVOKES,
    &STORE_BATCH,
    &STORE_COMMIT,
    &STORE_FAILURES,
    &STORE_WAITING,
    &UNDELIVERED,
];

/// `hallpass_alerts_total`.
pub static ALERTS: Family = Family {
    name: "hallpass_alerts_total",
    help: "Alerts recorded by this process.",
    shape: Shape::Counter,
    labels: &[("kind", "what an ALERT_ entry says behind that word, in lower case")],
};

/// `hallpass_backend_breaker_open`.
pub static BACKEND_BREAKER: Family = Family {
    name: "hallpass_backend_breaker_open",
    help: "1 while a backend failed so often that it is not asked.",
    shape: Shape::Gauge,
    labels: &[("backend", "a name of backends in the configuration")],
};

/// `hallpass_backend_logins_total`.
pub static BACKEND_LOGINS: Family = Family {
    name: "hallpass_backend_logins_total",
    help: "Logins of the broker at a backend.",
    shape: Shape::Counter,
    labels: &[("backend", "a name of backends in the configuration"), ("outcome", "succeeded, failed")],
};

/// `hallpass_backend_orphans_possible_total`.
pub static BACKEND_ORPHANS: Family = Family {
    name: "hallpass_backend_orphans_possible_total",
    help: "Requests that may have made something whose answer was lost.",
    shape: Shape::Counter,
    labels: &[("backend", "a name of backends in the configuration")],
};

/// `hallpass_backend_request_duration_seconds`.
pub static BACKEND_SECONDS: Family = Family {
    name: "hallpass_backend_request_duration_seconds",
    help: "A request to a backend, its tries included.",
    shape: Shape::Histogram,
    labels: &[("backend", "a name of backends in the configuration")],
};

/// `hallpass_backend_requests_total`.
pub static BACKEND_REQUESTS: Family = Family {
    name: "hallpass_backend_requests_total",
    help: "Requests to a backend, by how they ended.",
    shape: Shape::Counter,
    labels: &[
        ("backend", "a name of backends in the configuration"),
        ("outcome", "answered, refused, limited, failed, breaker_open"),
    ],
};

/// `hallpass_backend_retries_total`.
pub static BACKEND_RETRIES: Family = Family {
    name: "hallpass_backend_retries_total",
    help: "Further tries of a request.",
    shape: Shape::Counter,
    labels: &[("backend", "a name of backends in the configuration")],
};

/// `hallpass_build_info`.
pub static BUILD: Family = Family {
    name: "hallpass_build_info",
    help: "Always 1; its label says what runs.",
    shape: Shape::Gauge,
    labels: &[("version", "of this binary")],
};

/// `hallpass_certificate_not_after_timestamp_seconds`.
pub static CERTIFICATE_END: Family = Family {
    name: "hallpass_certificate_not_after_timestamp_seconds",
    help: "Unix time at which the listener's certificate ends.",
    shape: Shape::Gauge,
    labels: &[("listener", "public, admin; absent without TLS")],
};

/// `hallpass_clock_timestamp_seconds`.
pub static CLOCK: Family = Family {
    name: "hallpass_clock_timestamp_seconds",
    help: "Unix time of the clock that decides.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_exchange_duration_seconds`.
pub static EXCHANGE_SECONDS: Family = Family {
    name: "hallpass_exchange_duration_seconds",
    help: "From the first look at a token to what the exchange came to.",
    shape: Shape::Histogram,
    labels: &[],
};

/// `hallpass_exchange_step_duration_seconds`.
pub static STEP_SECONDS: Family = Family {
    name: "hallpass_exchange_step_duration_seconds",
    help: "Time of an exchange's steps; verify is of every token that held, at any route.",
    shape: Shape::Histogram,
    labels: &[("step", "verify, decide, fetch, durable")],
};

/// `hallpass_exchanges_in_flight`.
pub static EXCHANGES_RUNNING: Family = Family {
    name: "hallpass_exchanges_in_flight",
    help: "Exchanges under way, those included whose client went away.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_exchanges_total`.
pub static EXCHANGES: Family = Family {
    name: "hallpass_exchanges_total",
    help: "Exchanges of jobs whose token held, by what they came to; other tokens are in hallpass_http_requests_total.",
    shape: Shape::Counter,
    labels: &[("outcome", "issued, dry_run, or a problem code")],
};

/// `hallpass_http_request_duration_seconds`.
pub static HTTP_SECONDS: Family = Family {
    name: "hallpass_http_request_duration_seconds",
    help: "From a request's head to its answer's head. A route stands here from its first request on.",
    shape: Shape::Histogram,
    labels: &[
        ("listener", "public, admin"),
        ("method", "of the API; other"),
        ("route", "a path of the API; none"),
    ],
};

/// `hallpass_http_requests_in_flight`.
pub static HTTP_IN_FLIGHT: Family = Family {
    name: "hallpass_http_requests_in_flight",
    help: "Requests under way.",
    shape: Shape::Gauge,
    labels: &[("listener", "public, admin")],
};

/// `hallpass_http_requests_total`.
pub static HTTP_REQUESTS: Family = Family {
    name: "hallpass_http_requests_total",
    help: "Requests answered. A combination stands here from its first request on.",
    shape: Shape::Counter,
    labels: &[
        ("listener", "public, admin"),
        ("method", "of the API; other"),
        ("route", "a path of the API as its documentation writes it; none"),
        ("status", "as sent"),
        ("code", "a problem code; ok"),
    ],
};

/// `hallpass_http_shed_total`.
pub static HTTP_SHED: Family = Family {
    name: "hallpass_http_shed_total",
    help: "Requests turned away before anything was looked at.",
    shape: Shape::Counter,
    labels: &[("listener", "public, admin"), ("reason", "in_flight, source_rate")],
};

/// `hallpass_issuances_total`.
pub static ISSUANCES: Family = Family {
    name: "hallpass_issuances_total",
    help: "Credentials, each durable in the ledger.",
    shape: Shape::Counter,
    labels: &[("kind", "of credentials that this version makes"), ("outcome", "issued, failed")],
};

/// `hallpass_jwks_refreshed_timestamp_seconds`.
pub static JWKS_SINCE: Family = Family {
    name: "hallpass_jwks_refreshed_timestamp_seconds",
    help: "Unix time at which the fetch began that brought the keys held.",
    shape: Shape::Gauge,
    labels: &[("issuer", "of the configuration; absent until its first fetch")],
};

/// `hallpass_jwks_refreshes_total`.
pub static JWKS_REFRESHES: Family = Family {
    name: "hallpass_jwks_refreshes_total",
    help: "Fetches of an issuer's keys that ended.",
    shape: Shape::Counter,
    labels: &[("issuer", "of the configuration"), ("outcome", "ok, failed")],
};

/// `hallpass_jwks_usable`.
pub static JWKS_USABLE: Family = Family {
    name: "hallpass_jwks_usable",
    help: "1 where an issuer's tokens can be verified now, else 0.",
    shape: Shape::Gauge,
    labels: &[("issuer", "of the configuration")],
};

/// `hallpass_ledger_entries`.
pub static LEDGER_ENTRIES: Family = Family {
    name: "hallpass_ledger_entries",
    help: "Entries of the ledger when this process last wrote.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_policy_info`.
pub static POLICY_INFO: Family = Family {
    name: "hallpass_policy_info",
    help: "Always 1; its label says by which policy set this replica decides.",
    shape: Shape::Gauge,
    labels: &[("digest", "of the set that decides; absent without one")],
};

/// `hallpass_policy_loaded_timestamp_seconds`.
pub static POLICY_SINCE: Family = Family {
    name: "hallpass_policy_loaded_timestamp_seconds",
    help: "Unix time since which the set decides; absent without one.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_policy_loads_total`.
pub static POLICY_LOADS: Family = Family {
    name: "hallpass_policy_loads_total",
    help: "Policy sets offered.",
    shape: Shape::Counter,
    labels: &[("outcome", "accepted, refused")],
};

/// `hallpass_policy_things`.
pub static POLICY_THINGS: Family = Family {
    name: "hallpass_policy_things",
    help: "What the set that decides holds.",
    shape: Shape::Gauge,
    labels: &[("thing", "grant, guardrail, issuer")],
};

/// `hallpass_process_cpu_seconds_total`.
pub static PROCESS_CPU: Family = Family {
    name: "hallpass_process_cpu_seconds_total",
    help: "Processor time, of user and system.",
    shape: Shape::Counter,
    labels: &[],
};

/// `hallpass_process_max_fds`.
pub static PROCESS_MAX_FDS: Family = Family {
    name: "hallpass_process_max_fds",
    help: "Most open file descriptors.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_process_open_fds`.
pub static PROCESS_FDS: Family = Family {
    name: "hallpass_process_open_fds",
    help: "Open file descriptors.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_process_resident_memory_bytes`.
pub static PROCESS_RESIDENT: Family = Family {
    name: "hallpass_process_resident_memory_bytes",
    help: "Resident memory.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_process_start_time_seconds`.
pub static PROCESS_START: Family = Family {
    name: "hallpass_process_start_time_seconds",
    help: "Unix time of the process's start.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_ready`.
pub static READY: Family = Family {
    name: "hallpass_ready",
    help: "1 where the part is ready, else 0; as /readyz says.",
    shape: Shape::Gauge,
    labels: &[("part", "policy, ledger")],
};

/// `hallpass_revokes_total`.
pub static REVOKES: Family = Family {
    name: "hallpass_revokes_total",
    help: "Revokes that a backend was asked for, confirmed or not.",
    shape: Shape::Counter,
    labels: &[("outcome", "confirmed, unconfirmed")],
};

/// `hallpass_store_batch_commands`.
pub static STORE_BATCH: Family = Family {
    name: "hallpass_store_batch_commands",
    help: "Commands that shared one transaction.",
    shape: Shape::Histogram,
    labels: &[],
};

/// `hallpass_store_commit_duration_seconds`.
pub static STORE_COMMIT: Family = Family {
    name: "hallpass_store_commit_duration_seconds",
    help: "From the begin of a transaction to what the disk confirmed.",
    shape: Shape::Histogram,
    labels: &[],
};

/// `hallpass_store_failures_total`.
pub static STORE_FAILURES: Family = Family {
    name: "hallpass_store_failures_total",
    help: "Transactions that failed; all in one were told.",
    shape: Shape::Counter,
    labels: &[],
};

/// `hallpass_store_queue_commands`.
pub static STORE_WAITING: Family = Family {
    name: "hallpass_store_queue_commands",
    help: "Commands that wait for the writer.",
    shape: Shape::Gauge,
    labels: &[],
};

/// `hallpass_undelivered_total`.
pub static UNDELIVERED: Family = Family {
    name: "hallpass_undelivered_total",
    help: "Credentials whose answer could not be written to the job.",
    shape: Shape::Counter,
    labels: &[],
};
