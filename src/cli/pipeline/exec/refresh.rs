//! Keeps credentials alive while a command runs: a new exchange with a new token at two thirds of their life.
//!
//! What was given out before stays usable until five sixths, so that whoever has just read it can finish; then it is
//! given back. No reader is told of a later end than that.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        super::{
            exit::{Exit, Failure},
            output, process,
        },
        aws::AccessKey,
        broker::Caller,
        denial,
        exchanged::Exchanged,
        identity::Source,
    },
    endpoint::{Endpoint, Key},
    files::Files,
    held::Holdings,
    hidden::Hidden,
    naming::{Delivery, Names, Renewal},
};
use crate::broker::ambient::{Clock, Entropy};

/// Asks the broker, as often as it is needed.
pub(super) struct Asking {
    /// The broker.
    pub(super) caller: Arc<Caller>,
    /// Where each exchange's token comes from.
    pub(super) source: Source,
    /// The body of the exchange.
    pub(super) body: Value,
}

/// What a renewal replaces.
pub(super) struct Kept {
    /// How to ask.
    pub(super) asking: Asking,
    /// What the child was given, by name.
    pub(super) names: Names,
    /// Its files.
    pub(super) files: Option<Arc<Files>>,
    /// The access key that a loopback endpoint hands out.
    pub(super) key: Option<Arc<Key>>,
    /// What is to be given back.
    pub(super) holdings: Arc<Holdings>,
    /// What is masked.
    pub(super) hidden: Arc<Hidden>,
}

/// A thread that renews.
pub(super) struct Refresher {
    thread: JoinHandle<()>,
    stop: CancellationToken,
}

/// When the credentials of one exchange are renewed, given back, and at their end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    renew_at: Instant,
    retire_at: Instant,
    end_at: Instant,
    /// `retire_at` and `end_at` as the world sees them.
    until: Timestamp,
    end: Timestamp,
}

/// The longest wait after a renewal that came to nothing.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The shortest one.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

impl Asking {
    /// Exchanges once, with a token of its own.
    ///
    /// # Errors
    ///
    /// As the contract's exit codes say.
    pub(super) async fn exchange(&self) -> Result<Exchanged, Failure> {
        let token = self.source.token().await?;
        let answer = self.caller.post("/v1/exchange", &token, &self.body).await;
        let answer = answer.map_err(|failure| denial::explain(failure, &self.source, &token))?;
        Exchanged::read(&answer.body)
    }
}

impl Term {
    /// The term of what was exchanged just now; `None` where nothing of it ends.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] without random bytes.
    pub(super) fn of(exchanged: &Exchanged) -> Result<Option<Self>, Failure> {
        let ends = exchanged.issuances.iter().filter_map(|issuance| issuance.expires_at);
        let Some(end) = ends.min() else { return Ok(None) };
        let (now, clock) = (Instant::now(), Clock::System.now());
        let left = Duration::try_from(end.duration_since(clock)).unwrap_or_default();
        let random = f64::from(u16::from_be_bytes(Entropy::Os.bytes::<2>()?)) / f64::from(u16::MAX);
        let retire_in = left.mul_f64(5.0 / 6.0);
        // Jobs that began together do not all come back together. Where the end has passed already, this machine's clock
        // is wrong: asking again at once would bring the same.
        let renew_in = if left.is_zero() { LONGEST_WAIT } else { left.mul_f64(2.0 / 3.0 - random / 15.0) };
        Ok(Some(Self {
            renew_at: now + renew_in,
            retire_at: now + retire_in,
            end_at: now + left,
            until: clock.checked_add(retire_in).unwrap_or(end),
            end,
        }))
    }
}

/// Hands out the access key of an exchange, as long as it is to be used.
///
/// # Errors
///
/// [`Exit::Unreachable`] where there is none any more.
pub(super) fn hand_out(
    key: &Key,
    exchanged: &Exchanged,
    delivery: &Delivery,
    term: Option<Term>,
) -> Result<(), Failure> {
    let issuance = delivery.endpoint.and_then(|at| exchanged.issuances.get(at));
    let access_key = issuance
        .and_then(AccessKey::of)
        .ok_or_else(|| Failure::new(Exit::Unreachable, "the broker gave no AWS access key any more"))?;
    key.set(&access_key, term.map(|term| (term.until, term.end)))
}

impl Refresher {
    /// Starts to serve the endpoint, and to renew what ends.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where there is no thread.
    pub(super) fn start(kept: Kept, endpoint: Option<Endpoint>, term: Option<Term>) -> Result<Self, Failure> {
        let runtime = process::light_runtime()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = move || {
            runtime.block_on(async {
                let serving = async {
                    if let Some(endpoint) = endpoint
                        && let Err(fault) = endpoint.serve().await
                    {
                        output::say(&format!("hallpass: warning: no credentials for AWS: {fault}"));
                    }
                    std::future::pending::<()>().await;
                };
                let renewing = kept.keep_alive(term, &stopped);
                tokio::select! {
                    () = serving => {}
                    () = renewing => {}
                }
            });
        };
        let spawned = thread::Builder::new().name("refresh".to_owned()).spawn(running);
        let thread = spawned.map_err(|fault| Failure::new(Exit::Internal, format!("no thread: {fault}")))?;
        Ok(Self { thread, stop })
    }

    /// Stops, after what is being given back is.
    pub(super) fn stop(self) {
        self.stop.cancel();
        // A panic was told already, by its own message.
        self.thread.join().ok();
    }
}

impl Kept {
    async fn keep_alive(&self, mut term: Option<Term>, stop: &CancellationToken) {
        let mut retire_at: Option<Instant> = None;
        let mut try_at = term.map(|term| term.renew_at);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = until(retire_at) => {
                    retire_at = None;
                    self.holdings.give_back_oldest(&self.asking.caller).await;
                }
                renewed = async { until(try_at).await; self.renew().await } => match renewed {
                    Ok(next) => {
                        if retire_at.take().is_some() {
                            self.holdings.give_back_oldest(&self.asking.caller).await;
                        }
                        retire_at = term.map(|term| term.retire_at);
                        term = next;
                        try_at = next.map(|next| next.renew_at);
                    }
                    Err(failure) => try_at = self.later(term, &failure).await,
                },
            }
        }
    }

    /// One renewal: everything is new, or nothing is.
    async fn renew(&self) -> Result<Option<Term>, Failure> {
        let mut exchanged = self.asking.exchange().await?;
        self.holdings.take(&mut exchanged);
        let replaced = self.replace(&exchanged);
        if replaced.is_err() {
            // The child goes on with what it has.
            self.holdings.give_back_newest(&self.asking.caller).await;
        }
        replaced
    }

    fn replace(&self, exchanged: &Exchanged) -> Result<Option<Term>, Failure> {
        self.hidden.add(exchanged, None);
        let term = Term::of(exchanged)?;
        let delivery = self.names.deliver(exchanged, Renewal::WhileRunning)?;
        if let Some(files) = &self.files {
            for named in &delivery.files {
                files.write(&named.variable, &named.value)?;
            }
        }
        if let Some(key) = &self.key {
            hand_out(key, exchanged, &delivery, term)?;
        }
        Ok(term)
    }

    /// Says what is wrong, and when it is tried again: not at all once the credentials have ended.
    async fn later(&self, term: Option<Term>, failure: &Failure) -> Option<Instant> {
        let end_at = term.map(|term| term.end_at)?;
        let left = end_at.saturating_duration_since(Instant::now());
        output::say(&format!("hallpass: warning: the credentials are not renewed yet: {failure}"));
        if left.is_zero() {
            output::say("hallpass: warning: the credentials have ended; the command runs on without");
            return None;
        }
        // A last try right at the end, so that there is a word about it.
        let wait = (left / 10).clamp(SHORTEST_WAIT, LONGEST_WAIT).min(left);
        Some(Instant::now() + wait)
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
