//! A disk that is full, read-only, failing, silent or locked, and database files that are taken away under the running
//! process. Each is refused within a second with 503 `ledger_unavailable`; nothing is lost, nothing leaves unrecorded,
//! and service comes back by itself, but for a failed fsync: then the process ends.

use std::{fs, path::Path, process::Command, time::Duration};

use rusqlite::Connection;
use rustix::{
    io::Errno,
    process::{Pid, Resource, Rlimit, prlimit},
};

use super::kit::{Act, Called, DATABASE, Exported, Faults, LOG, Rule, SYNC, WRITE, refused_within_a_second};
use crate::support::{Installation, Server, eventually};

/// A broker that has served one exchange, whose calls are kept.
struct Ground {
    installation: Installation,
    faults: Faults,
    calls: Vec<Called>,
}

impl Ground {
    fn serving() -> (Self, Server) {
        let mut ground = Self { installation: Installation::new(), faults: Faults::new(), calls: Vec::new() };
        let server = ground.faults.serve(&ground.installation);
        ground.asks(&server);
        (ground, server)
    }

    /// An exchange that must be served.
    #[track_caller]
    fn asks(&mut self, server: &Server) {
        let call = Called::now(&server.public, self.installation.issuer.token());
        assert!(call.received().is_some(), "{:?}", call.answer);
        self.calls.push(call);
    }

    /// Exchanges that must be refused, one after the other.
    #[track_caller]
    fn is_refused(&mut self, server: &Server) {
        for _ in 0..3 {
            let token = self.installation.issuer.token();
            self.calls.push(refused_within_a_second(&server.public, token));
        }
        assert_eq!(server.admin.get("/readyz").send().status, 503);
        assert_eq!(server.public.get("/livez").send().status, 200, "only what needs the ledger fails");
    }

    /// What was refused is served under its key, and the whole ledger holds together.
    fn recovers(mut self, server: Server) {
        eventually("readiness", || (server.admin.get("/readyz").send().status == 200).then_some(()));
        for call in self.calls.iter().filter(|call| call.received().is_none()) {
            call.again(&server.public).ok();
        }
        self.asks(&server);
        server.stop();
        self.holds();
    }

    fn holds(&self) {
        Exported::verified(&self.installation, &self.calls).holds_all_of(&self.calls);
    }

    /// Refuses while the rule holds and serves again afterwards.
    fn survives(rule: &Rule) {
        let (mut ground, server) = Self::serving();
        ground.faults.arm(rule);
        ground.is_refused(&server);
        assert!(ground.faults.hits() > 0);
        ground.faults.disarm();
        ground.recovers(server);
    }
}

#[test]
fn a_full_disk_refuses_and_serves_again_when_there_is_room() {
    Ground::survives(&Rule::writes(Act::Fail(Errno::NOSPC.raw_os_error())));
}

#[test]
fn a_disk_that_fills_up_within_a_transaction_leaves_nothing_of_it() {
    let full = Rule::writes(Act::Fail(Errno::NOSPC.raw_os_error()));
    Ground::survives(&Rule { files: LOG, skip: 5, ..full });
}

#[test]
fn a_read_only_disk_refuses_and_serves_again_when_it_can_be_written() {
    Ground::survives(&Rule::writes(Act::Fail(Errno::ROFS.raw_os_error())));
}

#[test]
fn a_write_that_fails_refuses_and_serves_again() {
    Ground::survives(&Rule::writes(Act::Fail(Errno::IO.raw_os_error())));
}

/// A disk of its own that is really full; where this machine lets nobody mount one, files that may not grow.
#[test]
fn a_disk_without_room_refuses_and_serves_again_when_there_is_room() {
    let installation = Installation::new();
    let small = Small::mounted();
    if let Some(small) = &small {
        let database = small.0.path().join("hallpass.db");
        fs::copy(installation.file("hallpass.db"), &database).unwrap();
        let text = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
        let there = format!("sqlite:{}", database.display());
        installation.write("hallpass.yaml", &text.replace("sqlite:hallpass.db", &there));
    }
    // Without a handler the signal would end the process before SQLite hears of its write.
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" serve"]).arg(installation.command(&[]).get_program());
    let server = installation.serve_by(shell.current_dir(installation.file("")));
    let mut ground = Ground { installation, faults: Faults::new(), calls: Vec::new() };
    ground.asks(&server);
    let limit = |bytes| {
        let pid = Pid::from_raw(server.pid().try_into().unwrap());
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    };

    match &small {
        Some(small) => drop(fs::write(small.0.path().join("filler"), vec![0; SMALL_BYTES]).unwrap_err()),
        None => limit(Some(4_096)),
    }
    ground.is_refused(&server);
    match &small {
        Some(small) => fs::remove_file(small.0.path().join("filler")).unwrap(),
        None => limit(None),
    }

    ground.recovers(server);
}

const SMALL_BYTES: usize = 8 << 20;

/// A tmpfs; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mounted() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={SMALL_BYTES},mode=0700");
        let mut mount = Command::new("mount");
        let made = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output().unwrap();
        made.status.success().then_some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

/// The process must end, whichever side of the durable moment the fault falls on, and the next one starts clean.
fn ends_by_a_failed_fsync(rule: &Rule) {
    let (mut ground, server) = Ground::serving();
    ground.faults.arm(rule);
    let calls =
        super::kit::Load::start(&server, (0..60).map(|_| ground.installation.issuer.token()).collect());
    let (status, logs) = server.ended();
    assert_eq!(status.code(), Some(1), "{logs}");
    assert!(logs.contains("the disk did not confirm a write"), "{logs}");
    ground.calls.extend(calls.stop());
    ground.faults.disarm();

    let server = ground.faults.serve(&ground.installation);
    ground.recovers(server);
}

#[test]
fn a_failed_fsync_of_the_log_ends_the_process() {
    ends_by_a_failed_fsync(&Rule::commit(Act::Fail(Errno::IO.raw_os_error())));
}

#[test]
fn an_fsync_that_did_its_work_and_fails_ends_the_process() {
    ends_by_a_failed_fsync(&Rule::committed(Act::Fail(Errno::IO.raw_os_error())));
}

#[test]
fn a_failed_fsync_of_the_database_in_a_checkpoint_ends_the_process() {
    let (mut ground, server) = Ground::serving();
    let failing = Rule { files: DATABASE, ..Rule::commit(Act::Fail(Errno::IO.raw_os_error())) };
    ground.faults.arm(&failing);
    // A checkpoint comes after a thousand pages.
    let mut load = None;
    let (status, logs) = loop {
        let tokens = (0..200).map(|_| ground.installation.issuer.token()).collect();
        ground.calls.extend(load.take().map(super::kit::Load::stop).unwrap_or_default());
        load = Some(super::kit::Load::start(&server, tokens));
        eventually("a checkpoint, or the next load", || {
            (ground.faults.hits() > 0 || load.as_ref().unwrap().answered() >= 200).then_some(())
        });
        if ground.faults.hits() > 0 {
            break server.ended();
        }
    };
    ground.calls.extend(load.map(super::kit::Load::stop).unwrap_or_default());
    assert_eq!(status.code(), Some(1), "{logs}");
    ground.faults.disarm();

    let server = ground.faults.serve(&ground.installation);
    ground.asks(&server);
    server.stop();
    ground.holds();
}

#[test]
fn a_disk_that_does_not_answer_refuses_and_serves_again_when_it_does() {
    for calls in [SYNC, WRITE] {
        Ground::survives(&Rule { calls, stays: true, ..Rule::commit(Act::Hang) });
    }
}

#[test]
fn a_broker_whose_disk_does_not_answer_still_stops() {
    let (ground, server) = Ground::serving();
    let url = ground.installation.issuer.url.clone();
    drop(server);
    ground.installation.configure(&format!(
        "deadlines: {{ shutdown: 1s }}\nissuers:\n  ci: {{ url: \"{url}\", profile: github-actions, \
         allow_private_addresses: true }}\n"
    ));
    let server = ground.faults.serve(&ground.installation);
    ground.faults.arm(&Rule { stays: true, ..Rule::commit(Act::Hang) });
    refused_within_a_second(&server.public, ground.installation.issuer.token());

    server.signal(rustix::process::Signal::TERM);

    let (status, logs) = server.ended();
    assert_eq!(status.code(), Some(1), "it says that not all was recorded: {logs}");
}

#[test]
fn a_locked_database_refuses_and_serves_again_when_it_is_free() {
    let (mut ground, server) = Ground::serving();
    let other = Connection::open(ground.installation.file("hallpass.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    ground.is_refused(&server);
    other.execute_batch("ROLLBACK").unwrap();
    ground.recovers(server);
}

/// Takes a file away under the running process, and puts it back.
fn taken_away(name: &str, put_something_there: impl FnOnce(&Path)) {
    let (mut ground, server) = Ground::serving();
    let (path, aside) = (ground.installation.file(name), ground.installation.file("aside"));
    fs::rename(&path, &aside).unwrap();
    put_something_there(&path);
    ground.is_refused(&server);
    assert!(server.logs().contains("deleted or replaced"), "{}", server.logs());
    fs::rename(&aside, &path).unwrap();
    ground.recovers(server);
}

#[test]
fn a_database_that_is_deleted_under_the_process_is_not_written_to_unseen() {
    taken_away("hallpass.db", |_| {});
}

#[test]
fn a_log_that_is_deleted_under_the_process_is_not_written_to_unseen() {
    taken_away("hallpass.db-wal", |_| {});
}

#[test]
fn a_database_that_is_replaced_under_the_process_is_not_taken_for_ours() {
    taken_away("hallpass.db", |path| {
        fs::copy(path.with_file_name("aside"), path).unwrap();
    });
}

#[test]
fn a_database_that_was_set_back_is_not_served_after_a_restart() {
    let (mut ground, server) = Ground::serving();
    server.stop();
    let (path, old) = (ground.installation.file("hallpass.db"), ground.installation.file("old"));
    fs::copy(&path, &old).unwrap();
    let server = ground.faults.serve(&ground.installation);
    ground.asks(&server);
    server.stop();
    fs::rename(&old, &path).unwrap();

    let refused = crate::support::installation::finish(&mut ground.faults.command(&ground.installation), "");

    assert_eq!(refused.status.code(), Some(30), "{refused:?}");
}

#[test]
fn a_pause_of_the_disk_below_a_second_refuses_nobody() {
    let (mut ground, server) = Ground::serving();
    ground.faults.arm(&Rule { stays: true, ..Rule::commit(Act::Hang) });
    let (client, token) = (server.public.clone(), ground.installation.issuer.token());
    let call = std::thread::spawn(move || Called::now(&client, token));
    eventually("the disk to stand still", || (ground.faults.hits() > 0).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    ground.faults.disarm();

    let call = call.join().unwrap();

    assert!(call.received().is_some(), "{:?}", call.answer);
    ground.calls.push(call);
    ground.recovers(server);
}
