//! The exchange in two steps under every interleaving: two brokers at a slow backend, the first call and its retry under
//! the same key, with crashes, pauses, lost answers, recovery and revokes. What decides is the very code that the stores
//! run: [`claims::plan`], [`State::after`], [`recovered`], [`abandoned`]. A pause needs no step of its own: whoever does
//! not move is paused, and time does not bound recovery here, so that it may come at the worst moment.
//!
//! Each rule spoiled on purpose must be caught, or the model would hold for nothing.

use std::fmt;

use jiff::Timestamp;
use stateright::{Checker, Model, Property};

use super::claims::{self, Chain, Facts, Kept, Plan, Standing, Stood};
use crate::{
    broker::ports::{ClaimRefused, Claims, KeyClaim, Quota},
    kernel::{
        digest::Digest,
        freeze::{Freezable, FreezeScope},
        id::IssuanceId,
        issuance::{Event, Mint, State, abandoned, recovered},
        name::IssuerName,
        policy::target::Making,
    },
};

/// The calls: the first, and its retry at the other broker. Each makes at most one row, which has the call's number.
const CALLS: usize = 2;

/// What decides; spoiled where a test says so.
#[derive(Clone, Copy)]
struct Rules {
    after: fn(State, Event) -> Option<State>,
    recovered: fn(Making, bool) -> &'static [Event],
    abandoned: fn(Making, Mint) -> &'static [Event],
    plan: fn(&World, &Claims) -> Result<Plan, ClaimRefused>,
}

const RULES: Rules = Rules { after: State::after, recovered, abandoned, plan };

fn plan(world: &World, claims: &Claims) -> Result<Plan, ClaimRefused> {
    let Ok(plan) = claims::plan(world, claims, Timestamp::UNIX_EPOCH);
    plan
}

/// Everything that is: the database, the backend, what is under way between them and two brokers, what the client has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    rows: [Option<Row>; CALLS],
    /// Whose use of the token is taken: the chain's first call.
    once: Option<usize>,
    /// The idempotency key's row: the first call of the chain, retries, its issuances.
    key: Option<(usize, i64, Vec<usize>)>,
    backend: [Backend; CALLS],
    calls: [Call; CALLS],
    received: [bool; CALLS],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    state: State,
    chain: usize,
    held: bool,
    keeps_chain: bool,
    /// Whether ISSUED stands in the ledger.
    issued: bool,
    /// Whether it was ever closed for good.
    closed: bool,
}

/// What the backend has of a row, and what is on its way there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Backend {
    token: Token,
    lease: bool,
    open: Asked,
    generate: Asked,
    revoke: Asked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Token {
    #[default]
    None,
    Alive,
    Revoked,
}

/// A request that the backend does at most once, whenever it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Asked {
    #[default]
    Not,
    OnItsWay,
    Done,
    Refused,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Call {
    Idle,
    /// A retry that must end that row first, and whether it asked the backend.
    Replacing(usize, bool),
    Intended,
    Opening,
    Opened,
    Kept,
    Generating,
    Minted,
    Recorded,
    /// Undoing, with what to revoke or without, and whether the backend was asked.
    Undoing {
        held: bool,
        asked: bool,
    },
    Closing(Mint),
    Over,
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// A call goes on; the database's answer to it may be lost.
    Go {
        call: usize,
        answer_lost: bool,
    },
    /// It waits no longer.
    GiveUp(usize),
    /// The job is gone when the answer is written.
    Undelivered(usize),
    /// Its broker dies.
    Crash(usize),
    Backend(usize, Request),
    Recover(usize),
    /// A replica asks for a revoke that is due: the backend does it, and the replica records it, or dies in between.
    Revoke {
        row: usize,
        recorded: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    Open,
    Generate,
    Revoke,
}

impl Facts for World {
    type Fault = std::convert::Infallible;

    fn frozen(&self, _: &Freezable) -> Result<Vec<FreezeScope>, Self::Fault> {
        Ok(Vec::new())
    }

    fn standing(&self, _: &Digest, _: Timestamp) -> Result<Option<Kept>, Self::Fault> {
        Ok(self.key.as_ref().map(|(first, retries, rows)| Kept {
            body: Digest::of(b"body"),
            retries: *retries,
            standing: Standing {
                first: number(*first),
                issuances: rows.iter().flat_map(|row| number(*row)).collect(),
            },
        }))
    }

    fn claimed_by(&self, _: &Digest) -> Result<Option<[u8; 16]>, Self::Fault> {
        Ok(self.once.map(number))
    }

    fn stood(&self, issuance: &[u8]) -> Result<Option<Stood>, Self::Fault> {
        let row = self.rows.get(usize::from(issuance[0])).and_then(Option::as_ref);
        Ok(row.map(|row| Stood { state: row.state, is_revocable: true, keeps_chain: row.keeps_chain }))
    }

    fn intents(&self, _: &Quota, _: i64) -> Result<u32, Self::Fault> {
        Ok(0)
    }

    fn intents_by_minute(&self, _: &Quota, _: i64) -> Result<Vec<(i64, u32)>, Self::Fault> {
        Ok(Vec::new())
    }

    fn living(&self, _: &Quota, _: Timestamp) -> Result<u32, Self::Fault> {
        Ok(0)
    }

    fn end_of_living(&self, _: &Quota, _: Timestamp, _: u32) -> Result<Option<Timestamp>, Self::Fault> {
        Ok(None)
    }
}

fn number(of: usize) -> [u8; 16] {
    [u8::try_from(of).unwrap(); 16]
}

fn claims() -> Claims {
    Claims {
        key: Some(KeyClaim { key: Digest::of(b"key"), body: Digest::of(b"body") }),
        once: vec![vec![Digest::of(b"use")]],
        quotas: Vec::new(),
        freezable: Freezable {
            issuer: IssuerName::parse("github").unwrap(),
            kid: "k".to_owned(),
            thumbprint: Digest::of(b"k"),
            project: None,
            grants: Vec::new(),
        },
    }
}

impl World {
    /// A swap in the database: the kernel's word, then what a wholly failed call gives back.
    fn swap(&mut self, rules: Rules, of: usize, event: Event) -> bool {
        let Some(row) = self.rows[of].as_mut() else { return false };
        let Some(to) = (rules.after)(row.state, event) else { return false };
        row.state = to;
        row.issued |= event == Event::Recorded;
        row.held |= event == Event::Opened;
        row.closed |= matches!(to, State::Failed | State::Revoked);
        if to == State::Failed {
            if row.chain == of {
                (self.once, self.key) = (None, None);
            } else if let Some((_, retries, _)) = &mut self.key {
                *retries -= 1;
            }
        }
        true
    }

    /// The same, asked for by a broker: a retry may go on behind it.
    fn swap_ours(&mut self, rules: Rules, of: usize, event: Event) -> bool {
        let moved = self.swap(rules, of, event);
        if let Some(row) = self.rows[of].as_mut().filter(|_| moved) {
            row.keeps_chain = true;
        }
        moved
    }

    fn begin(&mut self, rules: Rules, of: usize) -> Call {
        match (rules.plan)(self, &claims()) {
            Ok(Plan { chain, .. }) => {
                let first = match &chain {
                    Chain::Begins => of,
                    Chain::Goes(standing) => usize::from(standing.first[0]),
                };
                self.once = Some(first);
                match &mut self.key {
                    Some((_, retries, rows)) if first != of => {
                        *retries += 1;
                        rows.push(of);
                    }
                    key => *key = Some((first, 0, vec![of])),
                }
                let state = State::Intent;
                self.rows[of] = Some(Row {
                    state,
                    chain: first,
                    held: false,
                    keeps_chain: false,
                    issued: false,
                    closed: false,
                });
                Call::Intended
            }
            Err(ClaimRefused::ReplaceFirst(rows)) => {
                let row = usize::from(IssuanceId::bytes(&rows[0])[0]);
                self.swap_ours(rules, row, Event::RevokeAsked);
                Call::Replacing(row, false)
            }
            Err(_) => Call::Over,
        }
    }

    /// One step of a call, with what the database answers known or lost.
    fn go(&mut self, rules: Rules, of: usize, answer_lost: bool) -> Option<Call> {
        Some(match self.calls[of] {
            Call::Idle => {
                let next = self.begin(rules, of);
                // Who does not know whether its intent is durable makes nothing.
                if answer_lost { Call::Over } else { next }
            }
            Call::Replacing(row, false) => {
                self.backend[row].revoke = Asked::OnItsWay;
                Call::Replacing(row, true)
            }
            Call::Replacing(row, true) => match self.backend[row].revoke {
                Asked::Done => {
                    self.swap(rules, row, Event::RevokeConfirmed);
                    if answer_lost { Call::Over } else { Call::Idle }
                }
                Asked::Not | Asked::OnItsWay | Asked::Refused => return None,
            },
            Call::Intended => {
                self.backend[of].open = Asked::OnItsWay;
                Call::Opening
            }
            Call::Opening => match self.backend[of].open {
                Asked::Done => Call::Opened,
                Asked::Not | Asked::OnItsWay | Asked::Refused => return None,
            },
            Call::Opened => {
                let is_kept = self.swap(rules, of, Event::Opened);
                if is_kept && !answer_lost { Call::Kept } else { Call::Undoing { held: true, asked: false } }
            }
            Call::Kept => {
                self.backend[of].generate = Asked::OnItsWay;
                Call::Generating
            }
            Call::Generating => match self.backend[of].generate {
                Asked::Done => Call::Minted,
                Asked::Refused => Call::Undoing { held: true, asked: false },
                Asked::Not | Asked::OnItsWay => return None,
            },
            Call::Minted => {
                let is_recorded = self.swap(rules, of, Event::Recorded);
                if is_recorded && !answer_lost {
                    Call::Recorded
                } else {
                    Call::Undoing { held: true, asked: false }
                }
            }
            Call::Recorded => {
                self.received[of] = true;
                Call::Over
            }
            Call::Undoing { held: false, .. } => Call::Closing(Mint::Not),
            Call::Undoing { held: true, asked: false } => {
                self.backend[of].revoke = Asked::OnItsWay;
                Call::Undoing { held: true, asked: true }
            }
            Call::Undoing { held: true, asked: true } => match self.backend[of].revoke {
                Asked::Done => Call::Closing(Mint::Undone),
                Asked::Not | Asked::OnItsWay | Asked::Refused => return None,
            },
            Call::Closing(mint) => {
                let events = (rules.abandoned)(Making::Revocable, mint);
                let moved = events.iter().filter(|event| self.swap_ours(rules, of, **event)).count();
                if moved == 0 && self.rows[of].as_ref().is_some_and(|row| row.state == State::Issued) {
                    self.swap_ours(rules, of, Event::RevokeAsked);
                }
                Call::Over
            }
            Call::Over => return None,
        })
    }

    fn give_up(&self, of: usize) -> Option<Call> {
        Some(match self.calls[of] {
            Call::Replacing(_, true) => Call::Over,
            Call::Opening => Call::Undoing { held: false, asked: false },
            Call::Generating => Call::Undoing { held: true, asked: false },
            Call::Undoing { held: true, asked: true } => Call::Closing(Mint::InDoubt),
            Call::Idle
            | Call::Replacing(_, false)
            | Call::Intended
            | Call::Opened
            | Call::Kept
            | Call::Minted
            | Call::Recorded
            | Call::Undoing { .. }
            | Call::Closing(_)
            | Call::Over => return None,
        })
    }

    /// The backend does what is on its way: a lease only under a token that lives, a revoke of all that hangs on one.
    fn serve(&mut self, of: usize, request: Request) -> bool {
        let backend = &mut self.backend[of];
        let asked = match request {
            Request::Open => &mut backend.open,
            Request::Generate => &mut backend.generate,
            Request::Revoke => &mut backend.revoke,
        };
        if *asked != Asked::OnItsWay {
            return false;
        }
        *asked = Asked::Done;
        match request {
            Request::Open => backend.token = Token::Alive,
            Request::Generate if backend.token == Token::Alive => backend.lease = true,
            Request::Generate => backend.generate = Asked::Refused,
            Request::Revoke => (backend.token, backend.lease) = (Token::Revoked, false),
        }
        true
    }

    fn step(&mut self, rules: Rules, step: Step) -> bool {
        let moved = match step {
            Step::Go { call, answer_lost } => {
                self.go(rules, call, answer_lost).map(|next| self.calls[call] = next)
            }
            Step::GiveUp(call) => self.give_up(call).map(|next| self.calls[call] = next),
            Step::Undelivered(call) => (self.calls[call] == Call::Recorded).then(|| {
                self.swap_ours(rules, call, Event::RevokeAsked);
                self.calls[call] = Call::Over;
            }),
            Step::Crash(call) => (self.calls[call] != Call::Over).then(|| self.calls[call] = Call::Over),
            Step::Backend(row, request) => self.serve(row, request).then_some(()),
            Step::Recover(row) => {
                let held =
                    self.rows[row].as_ref().filter(|row| row.state == State::Intent).map(|row| row.held);
                held.map(|held| {
                    for event in (rules.recovered)(Making::Revocable, held) {
                        self.swap_ours(rules, row, *event);
                    }
                })
            }
            Step::Revoke { row, recorded } => {
                let is_due =
                    self.rows[row].as_ref().is_some_and(|row| row.state == State::Revoking && row.held);
                is_due.then(|| {
                    (self.backend[row].token, self.backend[row].lease) = (Token::Revoked, false);
                    if recorded {
                        self.swap(rules, row, Event::RevokeConfirmed);
                    }
                })
            }
        };
        moved.is_some()
    }
}

/// The model under some rules.
#[derive(Clone)]
struct Exchange(Rules);

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

impl Model for Exchange {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            rows: [None, None],
            once: None,
            key: None,
            backend: Default::default(),
            calls: [Call::Idle; CALLS],
            received: [false; CALLS],
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        let each = |of: usize| {
            let requests = [Request::Open, Request::Generate, Request::Revoke];
            [
                Step::Go { call: of, answer_lost: false },
                Step::Go { call: of, answer_lost: true },
                Step::GiveUp(of),
                Step::Undelivered(of),
                Step::Crash(of),
                Step::Recover(of),
                Step::Revoke { row: of, recorded: true },
                Step::Revoke { row: of, recorded: false },
            ]
            .into_iter()
            .chain(requests.map(|request| Step::Backend(of, request)))
        };
        let all = (0..CALLS).flat_map(each);
        actions.extend(all.filter(|step| world.clone().step(self.0, *step)));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        (next.step(self.0, step) && next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P1: what a client has is recorded", |_, world: &World| {
                let recorded = |of: usize| world.rows[of].as_ref().is_some_and(|row| row.issued);
                (0..CALLS).all(|of| !world.received[of] || recorded(of))
            }),
            Property::always("P2: what is usable has a row that says so", |_, world: &World| {
                (0..CALLS).filter(|of| world.backend[*of].lease).all(|of| {
                    world.rows[of].as_ref().is_some_and(|row| {
                        row.held
                            && matches!(
                                row.state,
                                State::Intent | State::Issued | State::Revoking | State::Unresolved
                            )
                    })
                })
            }),
            Property::always("P3: one use gives one credential at a time", |_, world: &World| {
                (0..CALLS).filter(|of| world.received[*of] && world.backend[*of].lease).count() <= 1
            }),
            Property::always("P4: what is closed stays closed", |_, world: &World| {
                let reopened = |row: &Row| {
                    row.closed && matches!(row.state, State::Intent | State::Issued | State::Unresolved)
                };
                !world.rows.iter().flatten().any(reopened)
            }),
            Property::sometimes("a retry gets what the first call did not", |_, world: &World| {
                world.received == [false, true]
            }),
            Property::sometimes("a retry ends what the first call got", |_, world: &World| {
                world.received == [true, true] && !world.backend[0].lease && world.backend[1].lease
            }),
            Property::sometimes("recovery revokes a lease of the dead", |_, world: &World| {
                let is_revoked = |row: &Row| row.state == State::Revoked && !row.issued;
                world.rows.iter().flatten().any(is_revoked)
            }),
        ]
    }
}

fn faults(rules: Rules) -> Vec<&'static str> {
    let checker = Exchange(rules).checker().threads(2).spawn_bfs().join();
    let found = checker.discoveries().into_keys().filter(|name| name.starts_with('P'));
    found.collect()
}

#[test]
fn promises_hold_under_every_interleaving() {
    let checker = Exchange(RULES).checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    assert!(checker.unique_state_count() > 10_000, "{} states", checker.unique_state_count());
}

#[test]
fn storing_an_accessor_in_a_closed_row_is_caught() {
    let after = |state: State, event| match (state, event) {
        (closed @ (State::Failed | State::Revoking), Event::Opened) => Some(closed),
        (state, event) => state.after(event),
    };
    assert!(faults(Rules { after, ..RULES }).contains(&"P2: what is usable has a row that says so"));
}

#[test]
fn recording_what_recovery_closed_is_caught() {
    let after = |state: State, event| match (state, event) {
        (State::Failed | State::Unresolved | State::Revoking | State::Revoked, Event::Recorded) => {
            Some(State::Issued)
        }
        (state, event) => state.after(event),
    };
    assert!(faults(Rules { after, ..RULES }).contains(&"P4: what is closed stays closed"));
}

#[test]
fn recovery_that_takes_a_held_row_for_failed_is_caught() {
    let recovered = |_, _| -> &'static [Event] { &[Event::Failed] };
    assert!(faults(Rules { recovered, ..RULES }).contains(&"P2: what is usable has a row that says so"));
}

#[test]
fn closing_as_failed_what_is_in_doubt_is_caught() {
    let abandoned = |_, _| -> &'static [Event] { &[Event::Failed] };
    assert!(faults(Rules { abandoned, ..RULES }).contains(&"P2: what is usable has a row that says so"));
}

#[test]
fn confirming_a_revoke_that_was_not_asked_for_is_caught() {
    let abandoned = |making, mint| -> &'static [Event] {
        match mint {
            Mint::InDoubt => &[Event::Lost, Event::RevokeAsked, Event::RevokeConfirmed],
            Mint::Discarded | Mint::Not | Mint::Undone => abandoned(making, mint),
        }
    };
    assert!(faults(Rules { abandoned, ..RULES }).contains(&"P2: what is usable has a row that says so"));
}

#[test]
fn a_retry_that_ends_nothing_first_is_caught() {
    let plan = |world: &World, claims: &Claims| match plan(world, claims) {
        Err(ClaimRefused::ReplaceFirst(_) | ClaimRefused::InProgress) => {
            let (first, _, rows) = world.key.clone().unwrap();
            let issuances = rows.iter().flat_map(|row| number(*row)).collect();
            let chain = Chain::Goes(Standing { first: number(first), issuances });
            Ok(Plan { chain, uses: vec![Digest::of(b"use")] })
        }
        other => other,
    };
    assert!(faults(Rules { plan, ..RULES }).contains(&"P3: one use gives one credential at a time"));
}
