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
};

/// Reads the sealing keys anew whenever it is asked to, so that they change places while this broker serves. Nothing
/// else of the configuration is taken.
pub(crate) async fn follow(asked: Arc<Notify>, file: PathBuf, store: Arc<Database>, broker: Arc<Broker>) {
    loop {
        asked.notified().await;
        if let Err(fault) = take(&file, &store, &broker).await {
            tracing::warn!(%fault, "the sealing keys stay as they are");
        }
    }
}

async fn take(file: &Path, store: &Database, broker: &Broker) -> Result<(), Failure> {
    let named = installation::sealing_keys(&Config::load(Some(file))?)?;
    let known = store.keyring().ok_or_else(missing)?;
    if known.checks() == named.checks() {
        return Ok(());
    }
    if named.of(&store.sealed_with().await?.0).is_none() {
        let message = "the database is sealed with a key that the configuration does not name any more";
        return Err(Failure::usage(message));
    }
    // Known before it is said, and given up after: until then nobody may wrap a record under a key that is new to this
    // broker. Saying it also reads the records anew, so that none is left in memory that only a key opens which goes now.
    known.learn(&named);
    store.announce(broker.own_beat(), &named).await?;
    known.replace(&named);
    tracing::info!(keys = named.checks().len(), "the sealing keys were read anew");
    Ok(())
}

/// Not reached: a broker's store is opened with them.
fn missing() -> Failure {
    Failure::new(Exit::Internal, "the store was opened without its keys")
}
