//! What a refusal tells by its time (P8), on what a user runs: the release binary, its own installation on disk, a CI
//! issuer on loopback, ten thousand draws of each reason that policy has for a refusal. It prints the medians, how far
//! they lie apart, and how far they would by chance. `tests/timing.rs` holds the same to a verdict with fewer draws.
//!
//! Run it with `cargo bench --bench oracle`; with a number behind `--` for so many draws.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints what it found and ends at the first thing that is not as it should be"
)]

use std::time::Instant;

use draws::Draws;
use support::{
    Installation,
    situations::{SITUATIONS, install},
};

#[expect(dead_code, reason = "the test asks more of it than this")]
#[path = "../tests/served/support/draws.rs"]
mod draws;
#[expect(dead_code, reason = "the tests' kit serves more than this")]
#[path = "../tests/served/support/mod.rs"]
mod support;

fn main() {
    // Cargo also builds and runs benchmarks as tests (`cargo test --benches`); nothing is measured there.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let installation = Installation::new();
    install(&installation);
    let server = installation.serve();
    let asks: Vec<(&str, &str, u16)> = SITUATIONS.iter().map(|(name, body)| (*name, *body, 403)).collect();
    // The first ones find caches cold.
    Draws::draw(server.public.address, &asks, rounds.min(100), || installation.issuer.token());

    let start = Instant::now();
    let draws = Draws::draw(server.public.address, &asks, rounds, || installation.issuer.token());
    let (middle, spread, floor) = (draws.middle(), draws.spread(), draws.noise_floor());
    let percent = |part: std::time::Duration| part.as_secs_f64() / middle.as_secs_f64() * 100.0;

    println!(
        "{rounds} draws of each situation in {:.0?}; medians, and how far from the first",
        start.elapsed()
    );
    print!("{draws}");
    println!(
        "spread {spread:.2?} ({:.2} %), noise floor {floor:.2?} ({:.2} %)",
        percent(spread),
        percent(floor)
    );
}

/// Draws of each situation.
const ROUNDS: usize = 10_000;
