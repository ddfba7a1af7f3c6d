//! The command that a run is for: found before anything is asked, started with its credentials, waited for.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, IsTerminal, PipeReader},
    os::{
        fd::AsFd,
        unix::process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustix::{
    fs::{Access, access, fstat},
    process::{
        Pid, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process, set_parent_process_death_signal,
        waitid,
    },
};

use super::{
    super::super::exit::{Exit, Failure},
    environment::Variables,
    masks::Masks,
    relay::Relay,
    signals::Event,
};

/// A command that can be started.
pub(super) struct Program {
    path: PathBuf,
    /// As it was written, its arguments behind it.
    line: Vec<OsString>,
}

/// A running command.
pub(super) struct Running {
    child: Child,
    pid: Pid,
    relays: Vec<Relay>,
}

/// What a shell answers for what cannot be executed (POSIX, XCU 2.8.2).
const NOT_EXECUTABLE: u8 = 126;
/// What a shell answers for what is not there.
const NOT_FOUND: u8 = 127;
/// For how long a run that was told to end waits for whoever reads its output.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Program {
    /// Finds the program as a shell does.
    ///
    /// # Errors
    ///
    /// [`Exit::Passed`] with 126 or 127.
    pub(super) fn find(line: Vec<OsString>, path: Option<OsString>) -> Result<Self, Failure> {
        let name = line.first().cloned().unwrap_or_default();
        let found = if name.as_encoded_bytes().contains(&b'/') {
            look(Path::new(&name))
        } else {
            let path = path.unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
            let mut denied = None;
            let found = env::split_paths(&path).find_map(|folder| match look(&folder.join(&name)) {
                Found::Executable(path) => Some(path),
                Found::Denied => {
                    denied = Some(Found::Denied);
                    None
                }
                Found::Nothing => None,
            });
            found.map(Found::Executable).or(denied).unwrap_or(Found::Nothing)
        };
        match found {
            Found::Executable(path) => Ok(Self { path, line }),
            Found::Denied => Err(unfit(NOT_EXECUTABLE, &name, "it cannot be executed")),
            Found::Nothing => Err(unfit(NOT_FOUND, &name, "no such command")),
        }
    }

    /// Starts it. Output that is no terminal is masked, where there is something to mask.
    ///
    /// It must be called by a thread that lives as long as the run does: the kernel takes that thread's end for its
    /// parent's.
    ///
    /// # Errors
    ///
    /// [`Exit::Passed`] with 126 or 127; [`Exit::Internal`] where the system refuses.
    pub(super) fn start(
        self,
        variables: Variables,
        masks: &Arc<ArcSwap<Masks>>,
        events: Sender<Event>,
    ) -> Result<Running, Failure> {
        let mut command = Command::new(&self.path);
        let mut line = self.line.into_iter();
        command.arg0(line.next().unwrap_or_default()).args(line).env_clear().envs(variables);
        die_with_parent(&mut command);
        let refused = |fault| Failure::new(Exit::Internal, format!("no pipe for the output: {fault}"));
        let streams =
            if masks.load().is_empty() { Vec::new() } else { redirect(&mut command).map_err(refused)? };
        let spawned = command.spawn();
        // It holds our ends of the pipes, and the credentials in its environment.
        drop(command);
        let child = spawned.map_err(|fault| {
            let code = if fault.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
            unfit(code, self.path.as_os_str(), &fault.to_string())
        })?;
        let pid = Pid::from_child(&child);
        let relays = streams.into_iter().map(|(from, to)| Relay::start(from, to, Arc::clone(masks)));
        // From here on the command runs; a run that cannot go on takes it along.
        let mut running = Running { child, pid, relays: Vec::new() };
        let relays = relays.collect::<io::Result<Vec<_>>>().map_err(refused);
        let watched = relays.and_then(|relays| {
            running.relays = relays;
            watch(pid, events)
        });
        match watched {
            Ok(()) => Ok(running),
            Err(failure) => {
                running.child.kill().ok();
                running.child.wait().ok();
                Err(failure)
            }
        }
    }
}

impl Running {
    /// Passes signals on until the command has ended; then what is left of its output begins to be carried.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where the system does not say how it ended.
    pub(super) fn wait(&mut self, events: &Receiver<Event>) -> Result<u8, Failure> {
        while let Ok(Event::Signal(signal)) = events.recv() {
            // Until `wait` below takes the status away, nobody else can have the number. An error means that the
            // command has just ended, or has become somebody else's (setuid).
            if let Some(signal) = Signal::from_named_raw(signal) {
                kill_process(self.pid, signal).ok();
            }
        }
        let status = self.child.wait();
        let status = status.map_err(|fault| Failure::new(Exit::Internal, fault.to_string()))?;
        self.relays.iter_mut().for_each(Relay::child_ended);
        Ok(code(status))
    }

    /// Waits for what is left of its output. A run that was told to end does not wait for its reader without end.
    pub(super) fn last_words(self, is_interrupted: bool) {
        for relay in self.relays {
            if is_interrupted {
                relay.end_within(LAST_WORDS);
            } else {
                relay.end();
            }
        }
    }
}

/// How a shell tells of an end: the code, or 128 and the signal.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

enum Found {
    Executable(PathBuf),
    Denied,
    Nothing,
}

fn look(path: &Path) -> Found {
    match path.metadata() {
        Ok(found) if found.is_file() && access(path, Access::EXEC_OK).is_ok() => {
            Found::Executable(path.to_owned())
        }
        Ok(_) => Found::Denied,
        Err(fault) if fault.kind() == io::ErrorKind::PermissionDenied => Found::Denied,
        Err(_) => Found::Nothing,
    }
}

fn unfit(code: u8, name: &OsStr, why: &str) -> Failure {
    Failure::new(Exit::Passed(code), format!("{}: {why}", name.to_string_lossy()))
}

/// Kills the command when this process dies without having been able to: otherwise it would run on with credentials
/// that nobody takes back, and with output that nobody masks. Its own children are out of reach.
#[expect(
    unsafe_code,
    reason = "the child must ask for it itself, between fork and exec; std has no other place"
)]
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure makes system calls only; it takes no lock and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // Between fork and the call above the parent may have died already.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}

/// Whether any of the command's output goes where it is masked; a terminal is passed through.
pub(super) fn is_masked() -> bool {
    !(io::stdout().is_terminal() && io::stderr().is_terminal())
}

/// Gives the command pipes in place of what is no terminal; each with the output that it stands for.
fn redirect(command: &mut Command) -> io::Result<Vec<(PipeReader, File)>> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let mut streams = Vec::with_capacity(2);
    if !stdout.is_terminal() {
        let (from, to) = io::pipe()?;
        streams.push((from, duplicate(&stdout)?));
        // What goes to one place (`2>&1`) keeps its order only through one pipe.
        if is_same(&stdout, &stderr) {
            command.stderr(Stdio::from(to.try_clone()?));
            command.stdout(Stdio::from(to));
            return Ok(streams);
        }
        command.stdout(Stdio::from(to));
    }
    if !stderr.is_terminal() {
        let (from, to) = io::pipe()?;
        streams.push((from, duplicate(&stderr)?));
        command.stderr(Stdio::from(to));
    }
    Ok(streams)
}

fn duplicate(stream: &impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

fn is_same(one: &impl AsFd, other: &impl AsFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

/// Tells of the end without taking the status away, so that the number stays the child's.
fn watch(pid: Pid, events: Sender<Event>) -> Result<(), Failure> {
    let watching = move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
        // Nobody listens any more: then nobody wants to know.
        events.send(Event::Ended).ok();
    };
    let spawned = thread::Builder::new().name("child".to_owned()).spawn(watching);
    spawned.map(drop).map_err(|fault| Failure::new(Exit::Internal, format!("no thread: {fault}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_is_found_as_shells_find_it() {
        let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let path = env::join_paths([first.path(), second.path()]).unwrap();
        let find = |name: &str| match Program::find(vec![name.into()], Some(path.clone())) {
            Ok(program) => Ok(program.path),
            Err(failure) => Err(failure.exit.code()),
        };
        std::fs::write(first.path().join("tool"), "").unwrap();
        std::fs::create_dir(first.path().join("folder")).unwrap();
        assert_eq!((find("tool"), find("folder"), find("nothing")), (Err(126), Err(126), Err(127)));
        assert_eq!(find("/no/such/thing"), Err(127));

        let tool = second.path().join("tool");
        std::fs::write(&tool, "").unwrap();
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find("tool"), Ok(tool), "one that cannot be executed hides none that can");
    }

    #[test]
    fn an_end_is_told_as_shells_tell_it() {
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(code(ExitStatus::from_raw(15)), 143);
        assert_eq!(code(ExitStatus::from_raw(0)), 0);
    }
}
