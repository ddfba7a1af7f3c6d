//! P5 beyond wiping: nobody of the same user reads the process, it leaves no core, and its memory is locked where that
//! is allowed; where it is not, the broker serves all the same and says so.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use super::{
    once::only,
    support::{
        Installation, Server,
        installation::{binary, finish},
    },
};

/// A line of what the kernel tells of the process.
fn told(server: &Server, file: &str, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/{file}", server.pid())).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn locked_kb(server: &Server) -> u64 {
    told(server, "status", "VmLck:").strip_suffix(" kB").unwrap().parse().unwrap()
}

/// A command of the installation under another one, which changes what it may do.
fn under(installation: &Installation, wrapper: &[&str], program: &Path, argument: &str) -> Command {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(program).arg(argument).current_dir(installation.file(""));
    for (name, value) in binary().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

const BUILT: &str = env!("CARGO_BIN_EXE_hallpass");

/// Less than the process has: with this, locking what comes would let an allocation fail.
const SMALL: &[&str] = &[
    "prlimit",
    "--memlock=65536:65536",
    "setpriv",
    "--inh-caps=-ipc_lock",
    "--ambient-caps=-ipc_lock",
    "--bounding-set=-ipc_lock",
];

#[test]
fn memory_is_locked_where_that_is_allowed_and_no_more_of_it_is_used_for_that() {
    let installation = Installation::new();
    let server = installation.serve();

    assert!(locked_kb(&server) > 0);
    let resident: u64 = told(&server, "status", "VmRSS:").strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(resident * 2 < locked_kb(&server), "pages that nobody touched are in memory: {resident} kB");
    assert!(told(&server, "limits", "Max core file size").starts_with("0 0"));
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
}

#[test]
fn under_a_small_limit_it_locks_nothing_serves_and_says_so() {
    let installation = Installation::new();
    let server = installation.serve_by(&mut under(&installation, SMALL, Path::new(BUILT), "serve"));

    for _ in 0..20 {
        server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    }

    assert_eq!(locked_kb(&server), 0);
    assert_eq!(server.logs().matches("memory is not locked").count(), 1, "{}", server.logs());
    assert!(server.logs().contains("64 kB"), "{}", server.logs());
    let doctor = finish(&mut under(&installation, SMALL, Path::new(BUILT), "doctor"), "");
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.contains("LimitMEMLOCK=infinity"), "{doctor}");
    let allowed = finish(&mut installation.command(&["doctor"]), "");
    assert!(!String::from_utf8(allowed.stdout).unwrap().contains("LimitMEMLOCK"));
}

/// The kernel gives the files of such a process to root: nobody else may read its memory or trace it.
#[test]
fn process_is_closed_to_others_of_its_user() {
    const NOBODY: u32 = 65_534;
    let installation = Installation::new();
    let folder = installation.file("");
    let reachable = folder.parent().unwrap().parent().unwrap();
    fs::set_permissions(reachable, fs::Permissions::from_mode(0o711)).unwrap();
    let program = reachable.join("hallpass");
    fs::copy(BUILT, &program).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(&folder, Some(NOBODY), Some(NOBODY)).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

    let server = installation.serve_by(&mut under(&installation, &nobody, &program, "serve"));

    let ids = told(&server, "status", "Uid:");
    assert_eq!(ids, "65534 65534 65534 65534");
    for file in ["mem", "environ", "maps"] {
        let owner = fs::metadata(format!("/proc/{}/{file}", server.pid())).unwrap().uid();
        assert_eq!(owner, 0, "{file}");
    }
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
}
