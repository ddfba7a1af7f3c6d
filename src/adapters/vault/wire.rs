//! One call: the tries that it may take, and what each answer means (reference: status codes and retry rules; the Go
//! client's policy with a shorter base, since jobs wait).
//!
//! Whatever was certainly not processed may be sent again, whoever asked: no connection, 307, 412, 429, 503. Once bytes
//! have left without a clear answer, only what reads is sent again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    answer::{Said, VaultAnswer},
    breaker::Breaker,
    client::Retry,
    fault::{NotFound, VaultFault},
    figures::Figures,
    settings::{Settings, SettingsFault},
    transport::{Received, Request, Transport},
};

/// Transport, breaker and figures of one backend.
pub(super) struct Wire {
    pub(super) transport: Transport,
    pub(super) breaker: Breaker,
    pub(super) figures: Figures,
    draws: AtomicU64,
}

/// What the next try is.
enum Next {
    /// It was not processed; that node is asked at once.
    At(usize),
    /// After that time.
    After(Duration),
    /// There is none.
    End,
}

/// What a call has spent.
#[derive(Default)]
struct Spent {
    connections: u32,
    failures: u32,
    limits: u32,
    redirects: u32,
    stale_since: Option<Instant>,
    /// Nodes that were asked and could not.
    dead: Vec<usize>,
}

impl Wire {
    /// `seed` spreads the pauses of many brokers.
    pub(super) fn new(settings: &Settings, seed: u64) -> Result<Self, SettingsFault> {
        Ok(Self {
            transport: Transport::new(settings)?,
            breaker: Breaker::default(),
            figures: Figures::default(),
            draws: AtomicU64::new(seed),
        })
    }

    /// Asks until there is an answer, or no try is left, or the time is over.
    pub(super) async fn call(
        &self,
        request: &Request<'_>,
        retry: Retry,
        end: Instant,
    ) -> Result<VaultAnswer, VaultFault> {
        let started = Instant::now();
        let answer = match self.breaker.enter(started) {
            None => Err(VaultFault::BreakerOpen),
            Some(leave) => {
                let answer = self.tries(request, retry, end).await;
                if answer.as_ref().err().is_none_or(|fault| !fault.is_illness()) {
                    leave.succeeded();
                }
                answer
            }
        };
        let outcome = answer.as_ref().map(|_| ()).map_err(|fault| *fault);
        self.figures.called(outcome, started.elapsed());
        if retry == Retry::Never && outcome.is_err_and(VaultFault::may_have_happened) {
            self.figures.orphaned();
        }
        answer
    }

    async fn tries(
        &self,
        request: &Request<'_>,
        retry: Retry,
        end: Instant,
    ) -> Result<VaultAnswer, VaultFault> {
        let mut spent = Spent::default();
        let mut node = self.transport.active();
        loop {
            let received = self.transport.send(node, request, end).await;
            let (fault, next) = match received {
                Err(fault) => (fault, self.after_fault(fault, node, retry, &mut spent).await),
                Ok(received) => match read(&received) {
                    Ok(answer) => {
                        self.transport.prefer(node);
                        return Ok(answer);
                    }
                    Err(fault) => (fault, self.after_status(&received, fault, node, retry, &mut spent).await),
                },
            };
            match next {
                Next::End => return Err(fault),
                Next::At(other) => node = other,
                Next::After(pause) => {
                    // A pause that outlasts the call would only turn a clear fault into a late one.
                    if Instant::now() + pause >= end {
                        return Err(fault);
                    }
                    tokio::time::sleep(pause).await;
                }
            }
            self.figures.retried();
        }
    }

    async fn after_fault(&self, fault: VaultFault, node: usize, retry: Retry, spent: &mut Spent) -> Next {
        if fault == VaultFault::Unreachable {
            return self
                .elsewhere(node, spent)
                .await
                .map_or_else(|| self.again_soon(&mut spent.connections), Next::At);
        }
        // Truncated and too large answers are no better the second time.
        let is_passing = matches!(fault, VaultFault::Torn | VaultFault::Late { .. });
        if retry == Retry::Read && is_passing { self.again_soon(&mut spent.failures) } else { Next::End }
    }

    async fn after_status(
        &self,
        received: &Received,
        fault: VaultFault,
        node: usize,
        retry: Retry,
        spent: &mut Spent,
    ) -> Next {
        match received.status {
            307 | 308 => match received.elsewhere {
                Some(other) if spent.redirects < MOST_REDIRECTS => {
                    spent.redirects += 1;
                    Next::At(other)
                }
                Some(_) | None => Next::End,
            },
            412 => {
                let since = *spent.stale_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= STALE { Next::End } else { Next::After(self.between(STALE_PAUSE)) }
            }
            429 if fault == VaultFault::RateLimited && spent.limits < MOST_LIMITS => {
                spent.limits += 1;
                Next::After(received.retry_after.unwrap_or_else(|| self.between(LIMIT_PAUSE)))
            }
            503 => self.elsewhere(node, spent).await.map_or(Next::End, Next::At),
            500..=599 if retry == Retry::Read && received.status != 501 => {
                self.again_soon(&mut spent.failures)
            }
            _ => Next::End,
        }
    }

    /// Another node that answers as the active one, or as one that hands requests on; each is tried once.
    async fn elsewhere(&self, node: usize, spent: &mut Spent) -> Option<usize> {
        spent.dead.push(node);
        let mut standby = None;
        for other in self.transport.others(node) {
            if spent.dead.contains(&other) {
                continue;
            }
            match self.transport.health(other, LOOK).await {
                Some(200) => return Some(other),
                // A standby, or a performance standby, hands on what it cannot do itself.
                Some(429 | 473) => standby = standby.or(Some(other)),
                Some(_) | None => {}
            }
        }
        standby
    }

    fn again_soon(&self, spent: &mut u32) -> Next {
        if *spent >= MOST_AGAIN {
            return Next::End;
        }
        *spent += 1;
        let base = BASE.saturating_mul(1 << (*spent - 1));
        Next::After(self.between((base, base * 2)))
    }

    /// A time between two, another one each time.
    pub(super) fn between(&self, (least, most): (Duration, Duration)) -> Duration {
        // SplitMix64 (Steele, Lea, Flood, 2014): it spreads, and nobody needs it to be unpredictable.
        let mut draw = self.draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        draw = (draw ^ (draw >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        draw = (draw ^ (draw >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = u32::try_from((draw ^ (draw >> 31)) >> 54).unwrap_or(0);
        least + most.saturating_sub(least) * share / 1_024
    }
}

fn read(received: &Received) -> Result<VaultAnswer, VaultFault> {
    let body = &received.body;
    match received.status {
        // A revoke that is queued is 202.
        200 | 202 | 204 => VaultAnswer::read(body),
        403 => Err(VaultFault::Denied),
        404 => Err(VaultFault::NotFound(match Said::read(body) {
            Said::Gone(how) => how,
            Said::Unknown | Said::LeaseQuota | Said::Nothing => NotFound::Absent,
        })),
        412 => Err(VaultFault::Stale),
        429 => Err(match Said::read(body) {
            Said::LeaseQuota => VaultFault::Quota,
            Said::Gone(_) | Said::Unknown | Said::Nothing => VaultFault::RateLimited,
        }),
        501 => Err(VaultFault::NotInitialised),
        503 => Err(VaultFault::Sealed),
        300..=399 => Err(VaultFault::Redirected),
        400 => Err(match Said::read(body) {
            Said::Unknown => VaultFault::Unknown,
            Said::Gone(_) | Said::LeaseQuota | Said::Nothing => VaultFault::BadRequest(400),
        }),
        status @ 401..=499 => Err(VaultFault::BadRequest(status)),
        status => Err(VaultFault::Failed(status)),
    }
}

/// The first pause; the Go client waits a second, and a job would wait with it.
const BASE: Duration = Duration::from_millis(100);
/// As the Go client.
const MOST_AGAIN: u32 = 2;
/// For how long a node may lag.
const STALE: Duration = Duration::from_secs(2);
const STALE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
const LIMIT_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));
const MOST_LIMITS: u32 = 3;
/// From a standby to the active node, and once more where that changes meanwhile.
const MOST_REDIRECTS: u32 = 2;
/// How long a node is waited for that might take over.
const LOOK: Duration = Duration::from_secs(1);
