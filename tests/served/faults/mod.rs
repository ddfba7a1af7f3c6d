//! What a crash, a pause and a disk that fails may do to a broker, and what they may not: no client holds a secret that
//! the ledger does not know, nothing is lost that was answered, nothing hangs (P1, P2, P3, P7). The binary is the
//! ordinary one: a preloaded library stands between it and the system, so no switch for tests is in it.
//!
//! Each look after a fault goes through `hallpass ledger export` and `ledger verify`, not through a store's tables: what
//! holds here must hold on any store.

mod crashes;
mod disk;
mod kit;
mod pauses;
mod power;
mod vault;

/// Faults come from outside; the binary has no way to ask it for one.
#[test]
fn the_binary_holds_no_switch_for_tests() {
    let holds = |words: &str| {
        let mut grep = std::process::Command::new("grep");
        let found = grep.args(["-aqF", words, env!("CARGO_BIN_EXE_hallpass")]).status().unwrap();
        found.success()
    };
    assert!(holds("HALLPASS_CONFIG"), "what it does read is found");
    for switch in ["hallpass_faults", "HALLPASS_TEST", "HALLPASS_FAULT", "FAULTS_DISK"] {
        assert!(!holds(switch), "{switch}");
    }
}
