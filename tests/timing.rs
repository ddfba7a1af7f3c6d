//! P8 by the clock: refusals by policy take the same time, whatever their reason. It is a program of its own, so that no
//! other test runs beside it; `benches/oracle.rs` is its larger sister, with the same measure and many more draws.

#![cfg(test)]

use draws::Draws;
use support::{
    Installation,
    situations::{SITUATIONS, install},
};

#[path = "served/support/draws.rs"]
mod draws;
#[expect(dead_code, reason = "the tests' kit serves more than this")]
#[path = "served/support/mod.rs"]
mod support;

#[test]
fn refusals_by_policy_take_the_same_time() {
    let installation = Installation::new();
    install(&installation);
    let server = installation.serve();
    let mut asks: Vec<(&str, &str, u16)> =
        SITUATIONS.iter().map(|(name, body)| (*name, *body, 403)).collect();
    asks.push((QUICK, r#"{"grants":["a","a"]}"#, 400));

    // What is real shows every time, what is chance does not.
    let is_equal = (0..TRIES).any(|_| {
        let all = Draws::draw(server.public.address, &asks, ROUNDS, || installation.issuer.token());
        let refusals = all.without(QUICK);
        let (middle, spread, floor) = (refusals.middle(), refusals.spread(), refusals.noise_floor());
        let quick = all.medians().into_iter().find(|(name, _)| *name == QUICK).unwrap().1;
        show(&format!("{all}spread {spread:.1?}, noise floor {floor:.1?}"));
        // The control: the same measure sees what waits for no commit, else it would see nothing.
        let sees = quick + floor < middle;
        sees && (spread <= floor || spread * 50 <= middle)
    });

    assert!(
        is_equal,
        "refusals differ in time, or the machine is too busy to tell: {TRIES} times of {TRIES}"
    );
}

const QUICK: &str = "refused without a record";
const ROUNDS: usize = 150;
const TRIES: usize = 4;

#[expect(clippy::print_stdout, reason = "the noise floor is part of the verdict")]
fn show(figures: &str) {
    println!("{figures}");
}
