//! `hallpass exec`: runs a command with credentials that exist for it alone.
//!
//! Exchange, start, pass on, give back. The credentials are in the child's environment, or in files in memory; they
//! are masked in its output, given back when it ends however it ends, and never written into the workspace.
//!
//! The masks are an accident guard, not a boundary. Known holes: a command that daemonises keeps what it was given; a
//! run that is killed by SIGKILL takes its command along and gives nothing back, what it held ends by itself.

mod child;
mod endpoint;
mod environment;
mod files;
mod held;
mod hidden;
mod masks;
mod naming;
mod patterns;
mod refresh;
mod relay;
mod signals;

use std::{
    ffi::OsString,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
};

use self::{
    child::Program,
    endpoint::Endpoint,
    environment::Variables,
    files::Files,
    held::Holdings,
    hidden::Hidden,
    naming::{Delivery, Mapping, Named, Names, Renewal},
    refresh::{Asking, Kept, Refresher, Term},
    signals::{Event, Interruption},
};
use super::{
    super::{
        exit::{Done, Exit, Failure},
        process,
    },
    ask::Ask,
    broker::Broker,
    denial,
    exchanged::Exchanged,
    identity::Identity,
};
use crate::kernel::secret::Secret;

/// `exec`
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Exec {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    identity: Identity,
    /// This field in this variable, and no other field that is not named; may be given several times.
    #[arg(long = "env", value_name = "NAME=GRANT.CREDENTIAL.FIELD")]
    variables: Vec<Mapping>,
    /// This field in a file in memory, its path in this variable; may be given several times.
    #[arg(long = "file", value_name = "NAME=GRANT.CREDENTIAL.FIELD")]
    files: Vec<Mapping>,
    /// Of the job's environment, the command gets PATH, HOME, TERM, LANG and the like only.
    #[arg(long)]
    pristine: bool,
    /// This variable stays, although it could mint another token or although --pristine; may be given several times.
    #[arg(long, value_name = "VARIABLE")]
    keep: Vec<OsString>,
    /// Renews what ends while the command runs: files, and AWS access keys by an endpoint on loopback.
    #[arg(long)]
    refresh: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const AFTER_HELP: &str = "\
Without --env and --file, an AWS access key is in AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and any \
other field in CREDENTIAL_FIELD, in capitals.

Exit codes: the command's own; 128 and the signal's number where one ended it; 126 and 127 where it cannot be executed or \
is not there; 125 where hallpass itself could not do its part.";

/// What `env` and `timeout` end with where the fault is their own.
pub(crate) const OWN_FAILURE: u8 = 125;

/// The variable by which AWS's SDKs find the endpoint, and the one for the file with its token.
const AWS_ENDPOINT: [&str; 2] =
    ["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];

/// A run before its exchange: all that can be wrong without one was looked at.
struct Run {
    program: Program,
    variables: Variables,
    keep: Vec<OsString>,
    names: Names,
    renewal: Renewal,
    asking: Asking,
    holdings: Arc<Holdings>,
    tell: Sender<Event>,
    events: Receiver<Event>,
    interruption: Arc<Interruption>,
}

/// What the child stands on; it goes when the child has ended.
#[derive(Default)]
struct Ground {
    files: Option<Arc<Files>>,
    refresher: Option<Refresher>,
}

impl Exec {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`Exit::Passed`] with any code but 0.
    pub(crate) fn run(self) -> Done {
        match self.prepare().and_then(Run::run) {
            Ok(0) => Ok(()),
            Ok(code) => Err(Failure::silent(Exit::Passed(code))),
            Err(failure) => denial::announced(Err(failure)).map_err(own),
        }
    }

    fn prepare(self) -> Result<Run, Failure> {
        process::harden()?;
        let names = Names { variables: self.variables, files: self.files };
        let body = self.ask.body();
        names.check(&body)?;
        let minting = self.identity.minting_variables();
        let variables = environment::inherited(self.pristine, &minting, &self.keep);
        let program = Program::find(self.command, variables.get(std::ffi::OsStr::new("PATH")).cloned())?;
        // From here on a signal ends the run in order.
        let (tell, events) = mpsc::channel();
        let interruption = signals::listen(tell.clone())?;
        let caller = Arc::new(self.broker.caller()?);
        let source = self.identity.source(self.broker.url())?;
        if self.refresh && !source.renews() {
            return Err(Failure::usage(
                "--refresh needs a new identity token for each renewal, and this job has one for all its life; ask for a longer --ttl, or split the step",
            ));
        }
        let renewal = if self.refresh { Renewal::WhileRunning } else { Renewal::Never };
        Ok(Run {
            program,
            variables,
            keep: self.keep,
            names,
            renewal,
            asking: Asking { caller, source, body },
            holdings: Arc::default(),
            tell,
            events,
            interruption,
        })
    }
}

impl Run {
    fn run(self) -> Result<u8, Failure> {
        let runtime = process::light_runtime()?;
        let exchanged = runtime.block_on(async {
            tokio::select! {
                exchanged = self.asking.exchange() => exchanged,
                signal = self.interruption.wait() => Err(interrupted(signal)),
            }
        });
        let mut exchanged = exchanged?;
        // From here on there is something to give back, whatever happens.
        self.holdings.take(&mut exchanged);
        let (caller, holdings) = (Arc::clone(&self.asking.caller), Arc::clone(&self.holdings));
        let interruption = Arc::clone(&self.interruption);
        let mut ground = Ground::default();
        let ended = self.with_child(exchanged, &mut ground);
        // In this order: nothing is renewed any more, nothing can be read any more, nothing is valid any more. What is
        // left of the output is carried meanwhile.
        if let Some(refresher) = ground.refresher {
            refresher.stop();
        }
        drop(ground.files);
        runtime.block_on(holdings.give_back_all(&caller));
        let (code, running) = ended?;
        running.last_words(interruption.signal().is_some());
        Ok(code)
    }

    /// Starts the child and waits for its end.
    fn with_child(self, exchanged: Exchanged, ground: &mut Ground) -> Result<(u8, child::Running), Failure> {
        let Self { program, mut variables, keep, names, renewal, asking, holdings, .. } = self;
        let mut delivery = names.deliver(&exchanged, renewal)?;
        // Where nothing is masked, nothing is kept that could be.
        let hidden = Arc::new(Hidden::new(child::is_masked()));
        let endpoint = delivery.endpoint.map(|_| Endpoint::open()).transpose()?;
        let key = endpoint.as_ref().map(Endpoint::key);
        hidden.add(&exchanged, key.as_ref().map(|key| key.token()));
        let term = Term::of(&exchanged)?;
        if let Some((endpoint, key)) = endpoint.as_ref().zip(key.as_ref()) {
            refresh::hand_out(key, &exchanged, &delivery, term)?;
            let [url, token] = AWS_ENDPOINT.map(str::to_owned);
            let value = Secret::from_text(endpoint.url()?);
            delivery.variables.push(Named { variable: url, value });
            let value = Secret::new(key.token().expose().to_vec());
            delivery.files.push(Named { variable: token, value });
        }
        drop(exchanged);
        furnish(&mut variables, delivery, &keep, ground)?;
        if let Renewal::WhileRunning = renewal {
            let (files, hidden) = (ground.files.clone(), Arc::clone(&hidden));
            let kept = Kept { asking, names, files, key, holdings, hidden };
            ground.refresher = Some(Refresher::start(kept, endpoint, term)?);
        }
        if let Some(signal) = self.interruption.signal() {
            return Err(interrupted(signal));
        }
        let mut running = program.start(variables, hidden.masks(), self.tell)?;
        let code = running.wait(&self.events)?;
        Ok((code, running))
    }
}

/// Puts everything where the child finds it.
fn furnish(
    variables: &mut Variables,
    delivery: Delivery,
    keep: &[OsString],
    ground: &mut Ground,
) -> Result<(), Failure> {
    let is_aws = |named: &Named| named.variable == "AWS_ACCESS_KEY_ID" || named.variable == AWS_ENDPOINT[0];
    if delivery.variables.iter().any(is_aws) {
        environment::remove_rivals(variables, keep);
    }
    for Named { variable, value } in delivery.variables {
        let value = std::os::unix::ffi::OsStringExt::from_vec(value.expose().to_vec());
        variables.insert(variable.into(), value);
    }
    if delivery.files.is_empty() {
        return Ok(());
    }
    let files = Arc::new(Files::new()?);
    // Kept first: what is written goes at the end, also where writing the next one fails.
    ground.files = Some(Arc::clone(&files));
    for Named { variable, value } in delivery.files {
        files.write(&variable, &value)?;
        let path = files.path(&variable).into_os_string();
        variables.insert(variable.into(), path);
    }
    Ok(())
}

/// A signal before the command began: then there is no command.
fn interrupted(signal: i32) -> Failure {
    let code = u8::try_from(128 + signal).unwrap_or(u8::MAX);
    Failure::new(Exit::Passed(code), format!("ended by signal {signal} before the command began"))
}

/// A failure of our own, which must not look like one of the command's.
fn own(failure: Failure) -> Failure {
    if let Exit::Passed(_) = failure.exit {
        return failure;
    }
    let (code, meaning) = (failure.exit.code(), failure.exit.meaning());
    Failure {
        exit: Exit::Passed(OWN_FAILURE),
        message: format!(
            "{}\n  exec ends with {OWN_FAILURE}; the failure is {code}, {meaning}",
            failure.message
        ),
        ..failure
    }
}
