//! Follows the sealing keys that the configuration names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::{
    adapters::store::Database,
    broker::Broker,
    cli::{
        config::Config,
        exit::{Exit, Failure},
        installation,
    },
    kernel::{digest::Digest, sealing::Keyring},
};

/// Reads the sealing keys anew whenever it is asked to, so that they change places while this broker serves. Nothing
/// else of the configuration is taken.
pub(crate) async fn follow(asked: Arc<Notify>, file: PathBuf, store: Arc<Database>, broker: Arc<Broker>) {
    // As it was said when the broker began.
    let mut said = store.keyring().map(Keyring::checks);
    loop {
        asked.notified().await;
        if let Err(fault) = take(&file, &store, &broker, &mut said).await {
            tracing::warn!(%fault, "the sealing keys were not taken from the configuration; SIGHUP tries again");
        }
    }
}

/// `said` are the keys that the store has from this broker, newest first; none where that is not known.
async fn take(
    file: &Path,
    store: &Database,
    broker: &Broker,
    said: &mut Option<Vec<Digest>>,
) -> Result<(), Failure> {
    let named = installation::sealing_keys(&Config::load(Some(file))?)?;
    let known = store.keyring().ok_or_else(missing)?;
    // Not what is known decides: it is learnt before it is said, and saying it may fail.
    if said.as_ref() == Some(&named.checks()) {
        return Ok(());
    }
    if named.of(&store.sealed_with().await?.0).is_none() {
        let message = "the database is sealed with a key that the configuration does not name any more";
        return Err(Failure::usage(message));
    }
    // Known before it is said, and given up after: until then nobody may wrap a record under a key that is new to this
    // broker. Saying it also reads the records anew, so that none is left in memory that only a key opens which goes now.
    known.learn(&named);
    *said = None;
    store.announce(broker.own_beat(), &named).await?;
    known.replace(&named);
    *said = Some(named.checks());
    tracing::info!(keys = named.checks().len(), "the sealing keys were read anew");
    Ok(())
}

/// Not reached: a broker's store is opened with them.
fn missing() -> Failure {
    Failure::new(Exit::Internal, "the store was opened without its keys")
}
