//! Getting the token by the way that was found: bounded in time and size, no redirect, https or loopback only.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    super::{
        super::{
            exit::{Exit, Failure},
            output,
        },
        broker::shown,
        call::{self, Miss, Trust},
    },
    Audience, System, indented,
    search::{Endpoint, Method, Way},
};
use crate::kernel::{json::read_bounded, secret::Secret};

/// How long a CI system may take, all tries together.
const BUDGET: Duration = Duration::from_secs(20);
/// One try.
const ONE_TRY: Duration = Duration::from_secs(10);
/// Far above the 8 KiB that a broker takes: GitHub's answer and a program's words stand around it.
const MOST_BYTES: usize = 64 * 1024;

/// Gets the token.
///
/// # Errors
///
/// [`Exit::NoToken`], with what to do about it.
pub(super) async fn token(system: System, way: &Way, audience: &Audience) -> Result<Secret, Failure> {
    let got = match way {
        Way::File(path) => from_file(path, system),
        Way::Program { name, arguments } => from_program(name, arguments).await,
        Way::Request(endpoint) => from_endpoint(endpoint, system).await,
        Way::Stdin => limited(&mut io::stdin().lock()).map_err(|fault| format!("stdin: {fault}")),
        Way::Variable(name) => {
            let value = std::env::var(name).map_err(|_| format!("{name} is not set, or no text"));
            value.map(Secret::from_text)
        }
    };
    let whence = match way {
        Way::File(path) => path.display().to_string(),
        Way::Program { name, .. } => (*name).to_owned(),
        Way::Request(_) => format!("the token endpoint of {system}"),
        Way::Stdin => "stdin".to_owned(),
        Way::Variable(name) => name.clone(),
    };
    got.and_then(|text| alone(&text, &whence)).map_err(|why| {
        let setup = indented(&system.setup(&audience.text));
        Failure::new(Exit::NoToken, format!("no CI identity token: {why}\n{setup}"))
    })
}

/// The one word that a text must be.
fn alone(text: &Secret, whence: &str) -> Result<Secret, String> {
    let token = text.expose().trim_ascii();
    if token.is_empty() {
        return Err(format!("{whence} is empty: the CI system gave this job no identity token"));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(format!("{whence} holds no token, but several words or binary"));
    }
    Ok(Secret::new(token.to_vec()))
}

fn limited(reader: &mut impl Read) -> io::Result<Secret> {
    let mut bytes = Vec::with_capacity(16 * 1024);
    reader.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    let bytes = Secret::new(bytes);
    if bytes.len() > MOST_BYTES {
        return Err(io::Error::other("more than 64 KiB, which no token has"));
    }
    Ok(bytes)
}

fn from_file(path: &Path, system: System) -> Result<Secret, String> {
    let fault = |fault: io::Error| format!("{}: {fault}", path.display());
    let mut file = File::open(path).map_err(fault)?;
    let about = file.metadata().map_err(fault)?;
    // Of a file that we own; what a kubelet or a runner projects has the mode that they chose.
    let is_ours = about.uid() == rustix::process::geteuid().as_raw();
    let is_wide = about.is_file() && about.permissions().mode() & 0o077 != 0;
    if system == System::Explicit && is_ours && is_wide && !path.starts_with("/var/run/secrets") {
        output::say(&format!("hallpass: others on this machine can read {0}; chmod 600 {0}", path.display()));
    }
    limited(&mut file).map_err(fault)
}

async fn from_endpoint(endpoint: &Endpoint, system: System) -> Result<Secret, String> {
    let whom = format!("the token endpoint of {system}");
    let client = call::client(&endpoint.url, Trust::System).map_err(|failure| failure.message)?;
    let bearer = std::env::var(endpoint.bearer).map(Secret::from_text);
    let bearer = bearer.map_err(|_| format!("{} is not set", endpoint.bearer))?;
    let attempt = async |left: Duration| {
        let request = match endpoint.method {
            Method::Get => client.get(endpoint.url.clone()),
            // Without the header Azure sends a stranger to a page to log in.
            Method::Post => client
                .post(endpoint.url.clone())
                .header("content-length", "0")
                .header("x-tfs-fedauthredirect", "Suppress"),
        };
        let request = request
            .header("accept", "application/json")
            .bearer_auth(bearer.expose_text().unwrap_or_default().trim())
            .timeout(left.min(ONE_TRY));
        let mut response = call::send(request, &whom).await?;
        let (status, again) = (response.status(), call::retry_after(&response));
        let body = call::body(&mut response, MOST_BYTES, &whom).await?;
        if status.is_success() {
            return Ok(body);
        }
        let failure = Failure::new(Exit::NoToken, format!("{whom} answered {}", status.as_u16()));
        Err(Miss { failure, again: (status.as_u16() == 429 || status.is_server_error()).then_some(again) })
    };
    let body = call::patiently(BUDGET, attempt).await.map_err(|failure| failure.message)?;
    match read_bounded(body.expose()).ok().as_mut().and_then(|answer| answer.get_mut(endpoint.member)) {
        Some(Value::String(token)) => Ok(Secret::from_text(std::mem::take(token))),
        Some(_) | None => Err(format!("{whom} answered without `{}`", endpoint.member)),
    }
}

/// Runs a program of the CI system and reads what it prints. It is killed when its time is over.
async fn from_program(name: &str, arguments: &[String]) -> Result<Secret, String> {
    let spawned = Command::new(name)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|fault| format!("{name}: {fault}"))?;
    let printed = collect(child.stdout.take());
    let said = collect(child.stderr.take());
    // Both ends close when it and whatever it left behind have ended.
    let both = async { (printed.await, said.await) };
    let Ok((Ok(printed), Ok(said))) = tokio::time::timeout(BUDGET, both).await else {
        end(&mut child);
        return Err(format!("{name} did not end within {} s", BUDGET.as_secs()));
    };
    let printed = match printed {
        Ok(printed) => printed,
        Err(fault) => {
            end(&mut child);
            return Err(format!("{name}: {fault}"));
        }
    };
    let status = child.wait().map_err(|fault| format!("{name}: {fault}"))?;
    if !status.success() {
        let said = said.ok().and_then(|said| said.expose_text().map(|text| shown(text.trim())));
        return Err(format!(
            "`{name} {}` ended with {status}: {}",
            arguments.join(" "),
            said.unwrap_or_default()
        ));
    }
    Ok(printed)
}

fn end(child: &mut Child) {
    // An error means that it has ended already.
    child.kill().ok();
    child.wait().ok();
}

/// Reads a stream to its end, on a thread of its own.
fn collect(stream: Option<impl Read + Send + 'static>) -> oneshot::Receiver<io::Result<Secret>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let read = match stream {
            Some(mut stream) => limited(&mut stream),
            None => Ok(Secret::new(Vec::new())),
        };
        // Nobody waits any more where the time was over.
        sender.send(read).ok();
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(result: Result<Secret, String>) -> String {
        result.err().unwrap()
    }

    fn ran(script: &str) -> Result<Secret, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(from_program("sh", &["-c".to_owned(), script.to_owned()]))
    }

    #[test]
    fn a_token_is_one_word() {
        let alone = |text: &str| alone(&Secret::from_text(text.to_owned()), "t");
        assert_eq!(alone(" eyJ.e.s\n").ok().unwrap().expose(), b"eyJ.e.s");
        assert!(told(alone(" \n")).contains("t is empty"));
        for bad in ["two words", "eyJ\n.e.s", "t\u{e4}"] {
            assert!(told(alone(bad)).contains("several words or binary"), "{bad}");
        }
    }

    #[test]
    fn what_a_program_prints_is_the_token_and_its_failure_is_told() {
        assert_eq!(ran("echo agent log >&2; echo eyJ.e.s").ok().unwrap().expose(), b"eyJ.e.s\n");
        let failed = told(ran("echo no such claim >&2; exit 3"));
        assert!(failed.contains("exit status: 3") && failed.contains("no such claim"), "{failed}");
        assert!(told(ran("yes | head -c 100000")).contains("64 KiB"));
    }

    #[test]
    fn a_program_that_is_not_there_is_said_to_be_missing() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let told = told(runtime.block_on(from_program("hallpass-no-such-agent", &[])));
        assert!(told.contains("hallpass-no-such-agent"), "{told}");
    }
}
