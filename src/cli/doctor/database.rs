//! The database: whether it opens, survives a power cut, and would be missed if it were set back.

use std::path::Path;

use rustix::fs::statfs;

use super::Look;
use crate::{
    adapters::store::{Database, StorePlace},
    broker::ports::Store as _,
    cli::{config::Config, exit::chain, installation, serve::seen},
};

const PART: &str = "database";

pub(super) async fn look(config: &Config) -> Vec<Look> {
    let store = match installation::inspect_store(config) {
        Ok(store) => store,
        Err(failure) => {
            return vec![Look::failing(
                PART,
                failure.message,
                "mend this first; nothing else of it can be seen",
            )];
        }
    };
    let below = match &config.store {
        StorePlace::Postgres(place) => Look::fine(PART, format!("it answers at {place}")),
        StorePlace::Sqlite(path) => volume(path),
    };
    let mut looks = vec![below, ledger(&store).await];
    looks.push(rollback(config, &store).await);
    looks
}

/// What SQLite's durability stands on. It writes with `synchronous=FULL` always; what lies below must keep that.
fn volume(database: &Path) -> Look {
    /// `f_type` of statfs(2).
    const LOSING: [(i64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];
    const REMOTE: [(i64, &str); 4] =
        [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB"), (0x0102_1997, "9P")];
    const LAYERED: i64 = 0x794c_7630;
    let kind = match statfs(database) {
        Ok(about) => about.f_type,
        Err(fault) => {
            return Look::failing(PART, format!("its volume cannot be seen: {fault}"), "look at the path");
        }
    };
    let named =
        |list: &[(i64, &'static str)]| list.iter().find(|(each, _)| *each == kind).map(|(_, name)| *name);
    if let Some(name) = named(&LOSING) {
        let found = format!("it lies on {name}, which a restart empties: ledger and secrets would be gone");
        return Look::failing(PART, found, "move it to a disk");
    }
    if let Some(name) = named(&REMOTE) {
        let found = format!("it lies on {name}, over which SQLite's locks do not hold");
        return Look::failing(PART, found, "move it to a disk of this machine");
    }
    if kind == LAYERED {
        let found = "it lies in a container's own layer, which goes with the container";
        return Look::warning(PART, found, "mount a volume for it");
    }
    Look::fine(PART, "it lies on a disk of this machine, written through to it at each commit")
}

async fn ledger(store: &Database) -> Look {
    const LEDGER: &str = "ledger";
    match store.head_fault().await {
        Ok(None) => {}
        Ok(Some(fault)) => {
            let advice = "stop the broker, keep the database as evidence, and run `hallpass ledger verify`";
            return Look::failing(LEDGER, fault, advice);
        }
        Err(fault) => return Look::failing(LEDGER, chain(&fault), "look at the database's file and mode"),
    }
    let size = store.checkpoint().await.ok().and_then(|note| note.lines().nth(1).map(str::to_owned));
    let found = format!("its head fits its {} entries", size.unwrap_or_default());
    Look::fine(LEDGER, found)
}

async fn rollback(config: &Config, store: &Database) -> Look {
    const ROLLBACK: &str = "rollback";
    if let Err(rollback) = seen::check(&config.ledger, store).await {
        let advice = "find out who set the database back; `serve` refuses it";
        return Look::failing(ROLLBACK, rollback.to_string(), advice);
    }
    if seen::is_guarded(&config.ledger, &config.store) {
        return Look::fine(ROLLBACK, "the head that was seen is kept on another volume");
    }
    let found = "rollback unguarded: whoever sets the database's volume back sets back what would tell of it";
    let advice = "keep `ledger.seen` on another volume than the database's, or publish the ledger there";
    Look::warning(ROLLBACK, found, advice)
}
