//! `hallpass store`: what only the owner of a PostgreSQL database does, and never a broker: making the schema, bringing
//! it up, and giving the roles their privileges. A database file needs none of it: `hallpass init` makes one.

use std::path::{Path, PathBuf};

use super::{
    actor::Actor,
    config::Config,
    exit::{Done, Failure},
    installation, output, process,
};
use crate::adapters::store::{
    Genesis, Postgres, StorePlace,
    postgres::{Place, Roles},
};

/// `store …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum StoreCommand {
    /// Gives the brokers' role and a reader's their privileges, again or anew.
    Grant(Owner),
    /// Makes the schema, the ledger and its keys in the database of `store.url`; nothing is overwritten.
    Init(Owner),
    /// Brings the schema of an earlier version up to this one's; brokers of that version may run meanwhile.
    Migrate(Owner),
}

/// Who does it, and for whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Owner {
    /// The same database as the role that owns the schema [default: `store.url`, whose role then owns it and can
    /// take the ledger's triggers away].
    #[arg(long = "as", value_name = "URL")]
    owner: Option<String>,
    /// A file with the owner's password [default: PGPASSWORD or PGPASSFILE].
    #[arg(long, value_name = "FILE", requires = "owner")]
    password_file: Option<PathBuf>,
    /// A role that may read the ledger, and nothing else.
    #[arg(long, value_name = "ROLE")]
    reader: Option<String>,
    /// The configuration [default: $HALLPASS_CONFIG, else ./hallpass.yaml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl StoreCommand {
    /// Runs the command.
    ///
    /// # Errors
    ///
    /// [`super::exit::Exit::Usage`] where the configuration names no server, or there is a schema already;
    /// [`super::exit::Exit::Internal`] where the database refuses.
    pub(crate) fn run(self) -> Done {
        process::harden()?;
        match self {
            Self::Grant(owner) => owner.grant(),
            Self::Init(owner) => owner.init(),
            Self::Migrate(owner) => owner.migrate(),
        }
    }
}

impl Owner {
    fn init(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let (place, roles) = self.places(&config)?;
        if let Some(published) = installation::published(&config) {
            let message = format!(
                "{} is of a ledger that has entries already, and a new one cannot continue it; nothing was made",
                published.display()
            );
            return Err(Failure::usage(message));
        }
        let keys = installation::sealing_keys(&config)?;
        let sealing =
            keys.newest().ok_or_else(|| Failure::usage("the configuration names no sealing key"))?;
        let actor = Actor::new()?;
        let random = |out: &mut [u8]| actor.random(out);
        let genesis = Genesis { origin: &config.ledger.origin, now: actor.now(), random: &random };
        let has_writer = roles.writer.is_some();
        Postgres::create(&place, &sealing, genesis, roles)?;
        output::say(&format!("made the schema `hallpass` and an empty ledger in {place}"));
        if !has_writer {
            output::say(
                "warning: the brokers log in as the schema's owner, who can take the ledger's triggers away; give \
                 them a role of their own in `store.url`, and name the owner by --as",
            );
        }
        Ok(())
    }

    fn grant(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let (place, roles) = self.places(&config)?;
        Postgres::grant(&place, roles)?;
        output::say(&format!("the roles of {place} have their privileges"));
        Ok(())
    }

    fn migrate(self) -> Done {
        let config = Config::load(self.config.as_deref())?;
        let (place, roles) = self.places(&config)?;
        let (from, to) = Postgres::migrate(&place, roles)?;
        output::say(&format!("the schema of {place} was {from} and is {to}"));
        Ok(())
    }

    /// The owner's way to the database, and the roles that are not the owner.
    fn places(&self, config: &Config) -> Result<(Place, Roles), Failure> {
        let StorePlace::Postgres(writer) = &config.store else {
            let message =
                "`store.url` names a database file, which needs none of this; `hallpass init` makes one";
            return Err(Failure::usage(message));
        };
        let owner = (self.owner.as_deref(), self.password_file.clone());
        owners(writer, owner, self.reader.clone())
    }
}

/// The owner's way to the database, given by its URL and a file with its password, and the roles that are not the owner.
///
/// # Errors
///
/// [`super::exit::Exit::Usage`] where the URL is none, or of another database.
pub(crate) fn owners(
    writer: &Place,
    (url, password_file): (Option<&str>, Option<PathBuf>),
    reader: Option<String>,
) -> Result<(Place, Roles), Failure> {
    let owner = match url {
        None => writer.clone(),
        Some(url) => Place::parse(url, Path::new(""))
            .map_err(|fault| Failure::usage(format!("--as: {fault}")))?
            .with_password_file(password_file),
    };
    if !owner.is_same_database(writer) {
        return Err(Failure::usage("--as names another database than `store.url`"));
    }
    let is_own = owner.user() == writer.user();
    Ok((owner, Roles { writer: (!is_own).then(|| writer.user().to_owned()), reader }))
}
