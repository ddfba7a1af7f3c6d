//! The power goes: of what was written, the disk has what an fsync confirmed, and nothing else. What clients received
//! must be in that.

use std::{fs, path::PathBuf};

use rustix::io::Errno;

use super::kit::{Act, Called, Exported, Faults, Load, Rule};
use crate::support::{Installation, Server, eventually};

/// An installation, and beside it its disk as a power cut would leave it.
struct Ground {
    installation: Installation,
    faults: Faults,
    disk: tempfile::TempDir,
    calls: Vec<Called>,
}

impl Ground {
    fn new() -> Self {
        let installation = Installation::new();
        let disk = tempfile::tempdir().unwrap();
        fs::copy(installation.file("hallpass.db"), disk.path().join("database")).unwrap();
        Self { installation, faults: Faults::new(), disk, calls: Vec::new() }
    }

    fn serve(&self) -> Server {
        let mut command = self.faults.command(&self.installation);
        self.installation.serve_by(command.env("FAULTS_DISK", self.disk.path()))
    }

    fn tokens(&self) -> Vec<String> {
        (0..60).map(|_| self.installation.issuer.token()).collect()
    }

    /// Everything that was not confirmed is gone.
    fn cut_power(&self) {
        let database: PathBuf = self.installation.file("hallpass.db");
        fs::copy(self.disk.path().join("database"), &database).unwrap();
        let log = database.with_file_name("hallpass.db-wal");
        fs::copy(self.disk.path().join("log"), &log).unwrap();
        fs::remove_file(database.with_file_name("hallpass.db-shm")).ok();
        for list in ["database.unconfirmed", "log.unconfirmed"] {
            fs::remove_file(self.disk.path().join(list)).ok();
        }
    }

    fn holds(self) {
        self.installation.serve().stop();
        Exported::verified(&self.installation, &self.calls).holds_all_of(&self.calls);
    }
}

#[test]
fn what_clients_received_outlives_a_power_cut_under_load() {
    let mut ground = Ground::new();
    for _ in 0..3 {
        let server = ground.serve();
        let load = Load::start(&server, ground.tokens());
        eventually("answers", || (load.answered() >= 30).then_some(()));
        server.crash();
        ground.calls.extend(load.stop());
        ground.cut_power();
    }
    ground.holds();
}

/// The kernel forgets that a page which failed to reach the disk is not on it: the next process reads it from memory.
/// What that one answers must not stand on it.
#[test]
fn what_clients_received_after_a_failed_fsync_and_a_restart_outlives_a_power_cut() {
    let mut ground = Ground::new();
    let server = ground.serve();
    let fails = Rule { skip: 3, ..Rule::commit(Act::Fail(Errno::IO.raw_os_error())) };
    ground.faults.arm(&fails);
    let load = Load::start(&server, ground.tokens());
    let (status, logs) = server.ended();
    assert_eq!(status.code(), Some(1), "{logs}");
    ground.calls.extend(load.stop());

    let server = ground.serve();
    let load = Load::start(&server, ground.tokens());
    eventually("answers", || (load.answered() >= 30).then_some(()));
    server.crash();
    ground.calls.extend(load.stop());
    ground.cut_power();

    ground.holds();
}
