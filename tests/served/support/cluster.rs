//! A PostgreSQL of its own: a real server on a data folder of this run, as an ordinary user, reached by a Unix socket and,
//! where a port is given, on loopback. It ends with whoever started it, however that ends: a shell that holds the other
//! end of a pipe takes server and folder away.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The role that may do everything.
const ROOT: &str = "pgroot";
/// `nobody` on Debian: the server refuses to run as root.
const NOBODY: u32 = 65_534;

/// A server with its data.
pub(crate) struct Cluster {
    folder: TempDir,
    port: u16,
    server: Mutex<Option<(Child, ChildStdin)>>,
}

impl Cluster {
    /// Makes a cluster and starts it. With a port it listens on loopback too, and asks for passwords there.
    pub(crate) fn start(port: Option<u16>, settings: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("pg-").tempdir().unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let cluster = Self { port: port.unwrap_or(5432), folder, server: Mutex::default() };
        let mut initdb = as_ordinary_user(&program("initdb"));
        initdb.arg("-D").arg(cluster.data());
        initdb.args(["-U", ROOT, "--auth-local=trust", "--auth-host=scram-sha-256"]);
        ended_well(initdb.args(["-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]));
        let listen = if port.is_some() { "127.0.0.1" } else { "" };
        let own = format!(
            "listen_addresses = '{listen}'\nport = {}\nunix_socket_directories = '{}'\nmax_connections = 400\n\
             shared_buffers = 32MB\n{settings}\n",
            cluster.port,
            cluster.folder.path().display(),
        );
        let mut file =
            fs::OpenOptions::new().append(true).open(cluster.data().join("postgresql.conf")).unwrap();
        file.write_all(own.as_bytes()).unwrap();
        cluster.run();
        cluster
    }

    /// A streaming standby of this server, on data of its own; it runs beside this one and has caught up.
    pub(crate) fn standby(&self) -> Self {
        let folder = tempfile::Builder::new().prefix("pg-").tempdir().unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let standby = Self { port: self.port, folder, server: Mutex::default() };
        let mut copy = as_ordinary_user(&program("pg_basebackup"));
        copy.arg("-D").arg(standby.data()).arg("-h").arg(self.folder.path());
        ended_well(copy.args(["-p", &self.port.to_string(), "-U", ROOT, "-R", "-c", "fast", "--no-sync"]));
        let mut file =
            fs::OpenOptions::new().append(true).open(standby.data().join("postgresql.conf")).unwrap();
        writeln!(file, "unix_socket_directories = '{}'", standby.folder.path().display()).unwrap();
        standby.run();
        standby
    }

    /// Whether the standbys of this server have all that it has.
    pub(crate) fn is_replicated(&self) -> bool {
        let caught_up =
            "SELECT count(*) > 0 AND bool_and(replay_lsn = pg_current_wal_lsn()) FROM pg_stat_replication";
        self.psql("postgres", caught_up).trim() == "t"
    }

    /// Takes the place of another server, which has ended: answers where that one did, and takes writes.
    pub(crate) fn take_over(&self, other: &Self) {
        self.stop();
        let mut file = fs::OpenOptions::new().append(true).open(self.data().join("postgresql.conf")).unwrap();
        let (own, others) = (self.folder.path().display(), other.folder.path().display());
        writeln!(file, "unix_socket_directories = '{own}, {others}'").unwrap();
        self.run();
        self.psql("postgres", "SELECT pg_promote()");
    }

    /// Starts the server; it has ended before.
    pub(crate) fn run(&self) {
        // The first word decides whether the folder goes with the server; nothing is written where this process dies.
        const WATCH: &str = "data=$1 folder=$2; shift 2; \"$@\" >>\"$folder/log\" 2>&1 & server=$!
            read -r word; if [ \"$word\" = crash ]; then kill -QUIT $server; else kill -INT $server; fi
            wait $server; [ -n \"$word\" ] || rm -rf \"$folder\"";
        let mut watch = Command::new("sh");
        watch.args(["-c", WATCH, "sh"]).arg(self.data()).arg(self.folder.path());
        let server = as_ordinary_user(&program("postgres"));
        watch.arg(server.get_program()).args(server.get_args()).arg("-D").arg(self.data());
        let spawned = watch.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = spawned.unwrap();
        let stdin = child.stdin.take().unwrap();
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some((child, stdin));
        for _ in 0..600 {
            if self.try_psql("postgres", "SELECT 1").is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(self.folder.path().join("log")).unwrap());
    }

    /// Ends the server in order; connections are cut.
    pub(crate) fn stop(&self) {
        self.end("stop");
    }

    /// Ends it as a crash does; it recovers at its next start.
    pub(crate) fn crash(&self) {
        self.end("crash");
    }

    fn end(&self, word: &str) {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((mut child, mut stdin)) = server {
            writeln!(stdin, "{word}").unwrap();
            drop(stdin);
            child.wait().unwrap();
        }
    }

    /// Keeps a copy of the data as it is; the server has ended.
    pub(crate) fn keep_copy(&self) {
        let mut copy = as_ordinary_user(Path::new("cp"));
        ended_well(copy.arg("-a").arg(self.data()).arg(self.folder.path().join("copy")));
    }

    /// Puts the copy in the place of the data; the server has ended.
    pub(crate) fn bring_copy_back(&self) {
        fs::remove_dir_all(self.data()).unwrap();
        fs::rename(self.folder.path().join("copy"), self.data()).unwrap();
    }

    /// Lets the server and all its processes stand still.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let lines = fs::read_to_string(self.data().join("postmaster.pid")).unwrap();
        let server: i32 = lines.lines().next().unwrap().parse().unwrap();
        let parent = |pid: i32| -> Option<i32> {
            let about = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            about.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
        };
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        for pid in pids.filter(|pid| *pid == server || parent(*pid) == Some(server)) {
            // A child may have ended meanwhile.
            kill_process(Pid::from_raw(pid).unwrap(), signal).ok();
        }
    }

    /// Lets it speak TLS on its port, with this chain and key.
    pub(crate) fn use_certificate(&self, chain: &str, key: &str) {
        for (name, text) in [("server.crt", chain), ("server.key", key)] {
            let path = self.data().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            if is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on");
        self.psql("postgres", "SELECT pg_reload_conf()");
    }

    /// The address of a database for a role, by the socket.
    pub(crate) fn url(&self, role: &str, database: &str) -> String {
        let (folder, port) = (self.folder.path().display(), self.port);
        format!("postgres:///{database}?host={folder}&port={port}&user={role}")
    }

    /// What makes `psql` its administrator's.
    pub(crate) fn administrator(&self) -> [(&'static str, String); 3] {
        let folder = self.folder.path().display().to_string();
        [("PGHOST", folder), ("PGPORT", self.port.to_string()), ("PGUSER", ROOT.to_owned())]
    }

    /// Makes a role that can log in.
    pub(crate) fn role(&self, name: &str) {
        let statement = format!(
            "DO $$ BEGIN CREATE ROLE {name} LOGIN PASSWORD 'pw-{name}'; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        );
        self.psql("postgres", &statement);
    }

    /// Runs statements as the role that may do everything; answers rows without decoration.
    #[track_caller]
    pub(crate) fn psql(&self, database: &str, statements: &str) -> String {
        self.try_psql(database, statements).unwrap_or_else(|told| panic!("{statements}: {told}"))
    }

    /// The same; the fault is what it said.
    pub(crate) fn try_psql(&self, database: &str, statements: &str) -> Result<String, String> {
        self.try_psql_as(ROOT, database, statements)
    }

    /// The same as another role.
    pub(crate) fn try_psql_as(&self, role: &str, database: &str, statements: &str) -> Result<String, String> {
        let mut psql = Command::new(program("psql"));
        psql.env("PGCONNECT_TIMEOUT", "5").arg("-h").arg(self.folder.path());
        psql.args(["-p", &self.port.to_string(), "-U", role, "-d", database]);
        let output = psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statements]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The folder of its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end("stop");
    }
}

/// A program of the newest PostgreSQL that is installed.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|version| version.path().join("bin").join(name)).collect();
    found.retain(|path| path.is_file());
    found.sort();
    found.pop().unwrap_or_else(|| panic!("PostgreSQL is not installed; run .ci/run"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn as_ordinary_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let user = NOBODY.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(program);
    command
}

fn ended_well(command: &mut Command) {
    let output = command.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
