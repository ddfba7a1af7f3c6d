//! One running broker with its two listeners: wired, started, stopped in order. `serve` and `demo` both run it, so the
//! demo walks the ordinary path.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use serde_json::json;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Mutex, Notify, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    actor::new_replica,
    config::{Config, Listen, Listener},
    exit::{Exit, Failure},
    installation,
    keys::assertions::settings as settings_of_assertions,
    process,
    serve::{
        assertions::{AssertionKeys, own_issuer},
        policy::Follower,
        publish::{self, Publisher},
        sealing,
        seen::{self, Rollback, Seen},
        tls::Certificate,
    },
};
use crate::{
    adapters::{
        issuer_keys::IssuerKeys,
        mint::{Assertions, Oidc, Sealed, Vault},
        policy_source::{PolicySource, Reload},
        store::{Database, Options},
        vault::{self, VaultClient},
    },
    broker::{
        Ambient, Broker, Clock, Entropy, Parts, Settings,
        metrics::{Exposition, families},
        ports::{Minter, Minters},
        replicas::BEAT,
        revoking::{LOOK, RECOVER},
    },
    http::{self, Listening, UnixSocket},
    kernel::{digest::Digest, ledger::entry::EntryCode, policy::target::Kind},
};

/// How often counted refusals become entries (contract: section 6).
const SWEEP: Duration = Duration::from_secs(60);
/// Connections that may wait to be accepted; the system cuts it to its own limit (4096 since Linux 5.4). Where there is
/// no room a client's system tries again after a second, so that a burst of jobs would wait for strangers.
const BACKLOG: u32 = 4_096;
/// How long the database has to be closed, at least.
const CLOSING: Duration = Duration::from_secs(1);
/// How often certificates are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(1);

/// How soon rights are looked at again where the backend did not answer.
const LOOK_AT_RIGHTS: Duration = Duration::from_secs(15);

/// The head that was seen: kept every few seconds, and once more at the end, never by both at once.
type Kept = Arc<Mutex<Seen>>;

/// The sockets, bound before anything is recorded or served.
pub(crate) struct Listeners {
    /// Of pipeline steps.
    pub(crate) public: Bound,
    /// Of auditors and operators.
    pub(crate) admin: Bound,
}

/// A bound socket, and where it is: port 0 has become a real one.
pub(crate) struct Bound {
    socket: Listening,
    at: Listen,
}

/// A running broker.
pub(crate) struct Replica {
    broker: Arc<Broker>,
    store: Arc<Database>,
    keys: Arc<IssuerKeys>,
    stop: CancellationToken,
    listeners: JoinSet<()>,
    chores: JoinSet<()>,
    reload: Reload,
    certificates: Vec<Arc<Certificate>>,
    vaults: Vec<Arc<VaultClient>>,
    accepted: watch::Receiver<Option<Digest>>,
    seen: Option<Kept>,
    publisher: Option<publish::Shared>,
    forked: publish::Forked,
    sealing: Arc<Notify>,
    assertion_keys: Arc<Notify>,
    /// Where the public listener is.
    pub(crate) public: Listen,
    /// Where the admin listener is.
    pub(crate) admin: Listen,
}

impl Listeners {
    /// Binds both.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where an address is taken or not ours.
    pub(crate) async fn bind(config: &Config) -> Result<Self, Failure> {
        Ok(Self { public: Bound::to(&config.public)?, admin: Bound::to(&config.admin)? })
    }
}

impl Bound {
    /// A socket of loopback that is bound already.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where it has no address.
    pub(crate) fn by(socket: TcpListener) -> Result<Self, Failure> {
        let at = socket.local_addr().map_err(|fault| Failure::new(Exit::Internal, fault.to_string()))?;
        Ok(Self { socket: socket.into(), at: Listen::Tcp(at) })
    }

    /// Binds a listener's socket.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] where its place is taken or not ours.
    pub(crate) fn to(listener: &Listener) -> Result<Self, Failure> {
        let refused =
            |fault: io::Error| Failure::usage(format!("cannot listen on {}: {fault}", listener.listen));
        match &listener.listen {
            Listen::Unix(file) => {
                let socket = Listening::Unix(UnixSocket::bind(file).map_err(refused)?);
                Ok(Self { socket, at: listener.listen.clone() })
            }
            Listen::Tcp(address) => {
                let socket = bind(*address).map_err(refused)?;
                let at = Listen::Tcp(socket.local_addr().map_err(refused)?);
                // Without TLS whoever is neither on this machine nor a proxy that is trusted would send its token in
                // the clear.
                let is_open = listener.tls.is_some() || address.ip().is_loopback();
                let only_from = (!is_open).then(|| listener.trusted_proxies.clone());
                Ok(Self { socket: Listening::Tcp { listener: socket, only_from }, at })
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Replica {
    /// Opens the store, looks whether it was set back, wires the broker and serves. Policy comes a moment later:
    /// [`Replica::ready`] waits for it.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for what the operator must mend; [`Exit::Integrity`] for a ledger that was set back.
    pub(crate) async fn start(
        config: &Config,
        listeners: impl Future<Output = Result<Listeners, Failure>>,
    ) -> Result<Self, Failure> {
        let admin_tokens = installation::admin_tokens(config)
            .map_err(|findings| Failure::findings(Exit::Usage, &findings))?;
        let certificate = |listener: &Listener| listener.tls.as_ref().map(Certificate::load).transpose();
        let (public_tls, admin_tls) = (certificate(&config.public)?, certificate(&config.admin)?);
        let keys = Arc::new(issuer_keys(config)?);
        let options = Options { single_writer_lock: true, ..Options::default() };
        let store = installation::open_store(config, options)?;
        let vaults = installation::vaults(config)?;
        let (broker, assertions) = wire(config, &store, &keys, &vaults).await?;
        let seen = guard(config, &store, &broker).await?;
        if let Some(known) = store.keyring() {
            store.announce(broker.own_beat(), known).await?;
        }
        // Only now: whoever starts a second `serve` shall hear of the database, not of a port.
        let listeners = listeners.await?;
        let Listeners { public, admin } = listeners;
        record_start(config, &broker).await?;

        let limits = http::Limits {
            per_source_per_second: config.limits.per_source_per_second,
            in_flight: config.limits.in_flight,
        };
        let floor = Arc::new(http::Floor {
            broker: Arc::clone(&broker),
            limits,
            own_issuer: own_issuer(&assertions),
            admin_tokens,
            traffic: Arc::default(),
            process: figures(&public_tls, &admin_tls, vaults.clone()),
            trusted_proxies: config.public.trusted_proxies.clone(),
        });
        let stop = CancellationToken::new();
        let tls =
            |certificate: &Option<Arc<Certificate>>| certificate.as_ref().map(Certificate::server_config);
        let mut serving = JoinSet::new();
        let router = http::public_router(Arc::clone(&floor));
        serving.spawn(http::serve(public.socket, router, tls(&public_tls), stop.clone()));
        let router = http::admin_router(floor);
        serving.spawn(http::serve(admin.socket, router, tls(&admin_tls), stop.clone()));

        let source = PolicySource::new(&config.policies);
        let follower = Follower::new(Arc::clone(&broker), Arc::clone(&store), source);
        let (reload, accepted) = (follower.reload(), follower.accepted());
        let certificates: Vec<_> = [public_tls, admin_tls].into_iter().flatten().collect();
        let mut chores = JoinSet::new();
        chores.spawn(follower.follow());
        chores.spawn(sweep(Arc::clone(&broker)));
        chores.spawn(beat(Arc::clone(&broker)));
        chores.spawn(recover(Arc::clone(&broker)));
        chores.spawn(revoke(Arc::clone(&broker)));
        chores.spawn(Arc::clone(&keys).keep_fresh());
        chores.spawn(look_at_certificates(certificates.clone()));
        vaults.iter().for_each(|vault| drop(chores.spawn(keep_vault(Arc::clone(vault)))));
        let assertion_keys = AssertionKeys::start(&mut chores, assertions, (&store, config));
        let sealing = Arc::default();
        let (asked, file) = (Arc::clone(&sealing), config.file.clone());
        chores.spawn(sealing::follow(asked, file, Arc::clone(&store), Arc::clone(&broker)));
        if let Some(seen) = &seen {
            chores.spawn(keep_head(Arc::clone(seen), Arc::clone(&store)));
        }
        let forked = publish::Forked::default();
        let publisher = guard_while_serving(&mut chores, config, (&broker, &store), &forked);
        Ok(Self {
            broker,
            store,
            keys,
            stop,
            listeners: serving,
            chores,
            reload,
            certificates,
            vaults,
            accepted,
            seen,
            publisher,
            forked,
            sealing,
            assertion_keys,
            public: public.at,
            admin: admin.at,
        })
    }

    /// The store, for looking into.
    pub(crate) fn store(&self) -> &Arc<Database> {
        &self.store
    }

    /// Waits for the first accepted policy set; answers its digest.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where a part of the broker ended by itself.
    pub(crate) async fn ready(&mut self) -> Result<Digest, Failure> {
        let mut accepted = self.accepted.clone();
        tokio::select! {
            fault = self.failed() => Err(fault),
            found = accepted.wait_for(Option::is_some) => match found.map(|digest| *digest) {
                Ok(Some(digest)) => Ok(digest),
                Ok(None) | Err(_) => Err(Failure::new(Exit::Internal, "nobody follows the policy directory")),
            },
        }
    }

    /// Waits until a part of the broker ends by itself, which it never should.
    pub(crate) async fn failed(&mut self) -> Failure {
        let what = tokio::select! {
            () = self.store.died() => {
                let why = "the disk did not confirm a write of the ledger, and what it lost cannot be known; look at \
                           the disk, then start again";
                return Failure::new(Exit::Internal, why);
            }
            rollback = self.forked.wait() => return Failure::new(Exit::Integrity, rollback),
            Some(ended) = self.listeners.join_next() => ("a listener", ended),
            Some(ended) = self.chores.join_next() => ("a task of the broker", ended),
        };
        let why = what.1.err().map_or_else(|| "without a word".to_owned(), |fault| fault.to_string());
        Failure::new(Exit::Internal, format!("{} ended: {why}", what.0))
    }

    /// Looks at policy, issuers' keys, certificates, sealing keys and keys of assertions now.
    pub(crate) fn reload(&self) {
        self.reload.ask();
        self.sealing.notify_one();
        self.assertion_keys.notify_one();
        self.keys.refresh_at_once();
        self.certificates.iter().for_each(|certificate| certificate.refresh(true));
    }

    /// Stops in order within the deadline: no new requests, those under way end, the ledger gets its last entries, the
    /// head is kept, the database is closed.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where it had to be cut short.
    pub(crate) async fn stop(mut self, deadline: Duration) -> Result<(), Failure> {
        let end = Instant::now() + deadline;
        self.stop.cancel();
        let drained = async { while self.listeners.join_next().await.is_some() {} };
        let mut is_whole = tokio::time::timeout_at(end, drained).await.is_ok();
        is_whole &= self.broker.drain(end.saturating_duration_since(Instant::now())).await;
        self.chores.shutdown().await;
        for vault in &self.vaults {
            vault.close().await;
        }
        for recorded in [
            self.broker.sweep().await,
            self.broker.leave().await,
            self.broker.note(EntryCode::Stopped, json!({ "drained": is_whole })).await,
        ] {
            if let Err(refused) = recorded {
                tracing::error!(reason = refused.detail, "the stop was not recorded");
                is_whole = false;
            }
        }
        // A directory that does not answer must not hold up the end either; what is missing there is the next one's.
        if let Some(publisher) = &self.publisher {
            let publishing = async { publisher.lock().await.stop().await };
            match tokio::time::timeout_at(end.max(Instant::now() + CLOSING), publishing).await {
                Ok(Ok(())) => {}
                Ok(Err(fault)) => tracing::warn!(%fault, "the ledger's last entries were not published"),
                Err(_) => tracing::warn!("the ledger's last entries were not published in time"),
            }
        }
        if let Some(seen) = &self.seen {
            seen.lock().await.keep(&self.store).await;
        }
        // A disk that does not answer must not hold up the end.
        let last = end.max(Instant::now() + CLOSING);
        is_whole &= tokio::time::timeout_at(last, self.store.close()).await.is_ok();
        let cut = "stopped, but not everything under way had ended in time, or could be recorded";
        if is_whole { Ok(()) } else { Err(Failure::new(Exit::Internal, cut)) }
    }
}

/// What stands beside the broker's own figures: the process, the backends and the certificates.
fn figures(
    public: &Option<Arc<Certificate>>,
    admin: &Option<Arc<Certificate>>,
    vaults: Vec<Arc<VaultClient>>,
) -> Box<dyn Fn(&mut Exposition) + Send + Sync> {
    let certificates = [("public", public.clone()), ("admin", admin.clone())];
    Box::new(move |to| {
        process::expose(to);
        vault::expose(&vaults, to);
        to.family(&families::CERTIFICATE_END);
        for (listener, certificate) in &certificates {
            if let Some(end) = certificate.as_ref().and_then(|certificate| certificate.ends()) {
                to.value(&[("listener", listener)], end);
            }
        }
    })
}

fn sealed_keys_missing() -> Failure {
    Failure::new(Exit::Internal, "the store was opened without its keys")
}

fn issuer_keys(config: &Config) -> Result<IssuerKeys, Failure> {
    let in_flight = config.limits.in_flight;
    // Whoever has a usable key takes milliseconds, so a few places that nobody can wait in are enough for all of them.
    let most_waiting = in_flight.saturating_sub((in_flight / 64).max(1)).max(1);
    let seed = u64::from_be_bytes(Entropy::Os.bytes()?);
    let keys = installation::issuer_keys(config, Arc::new(|| Clock::System.now()))?;
    Ok(keys.with_most_waiting(most_waiting).with_jitter(seed))
}

/// The broker with its minters, and the signer that others check us by.
async fn wire(
    config: &Config,
    store: &Arc<Database>,
    keys: &Arc<IssuerKeys>,
    vaults: &[Arc<VaultClient>],
) -> Result<(Arc<Broker>, Arc<Assertions>), Failure> {
    let (read_at, keys_of_assertions) = (Clock::System.now(), store.assertion_keys().await?);
    let assertions = Assertions::of_store(settings_of_assertions(config), &keys_of_assertions, read_at)
        .map_err(|fault| Failure::new(Exit::Integrity, fault.to_string()))?;
    let assertions = Arc::new(assertions);
    // The store's own ring, so that both learn of another sealing key at once.
    let sealing = store.keyring().ok_or_else(sealed_keys_missing)?.clone();
    let sealed = Sealed::new(Arc::clone(store) as Arc<_>, sealing);
    let aws = installation::aws(config, Arc::clone(&assertions))?;
    let minters: Minters = HashMap::from([
        (Kind::Aws, Arc::new(aws) as Arc<dyn Minter>),
        (Kind::Oidc, Arc::new(Oidc::new(Arc::clone(&assertions))) as Arc<dyn Minter>),
        (Kind::Sealed, Arc::new(sealed) as Arc<dyn Minter>),
        (Kind::Vault, Arc::new(Vault::new(vaults.iter().cloned())) as Arc<dyn Minter>),
    ]);
    let broker = Broker::new(Parts {
        settings: settings(config, store)?,
        ambient: Ambient { clock: Clock::System, entropy: Entropy::Os },
        store: Arc::clone(store) as Arc<_>,
        keys: Arc::clone(keys) as Arc<_>,
        minters,
    });
    Ok((broker, assertions))
}

fn settings(config: &Config, store: &Database) -> Result<Settings, Failure> {
    let ambient = Ambient { clock: Clock::System, entropy: Entropy::Os };
    Ok(Settings {
        replica: new_replica(&ambient)?,
        trusted: config.trusted(),
        clock_leeway: config.limits.clock_leeway,
        exchange_deadline: config.deadlines.exchange,
        mint_deadline: config.deadlines.mint,
        per_project_per_minute: config.limits.per_project_per_minute,
        pseudonym_key: *store.pseudonym_key().ok_or_else(sealed_keys_missing)?,
    })
}

/// Looks whether the ledger is the one that was seen last. A ledger that was set back gets ALERT_ROLLBACK, if it can
/// be written, and is not served.
async fn guard(config: &Config, store: &Arc<Database>, broker: &Broker) -> Result<Option<Kept>, Failure> {
    if let Some(folder) = config.ledger.publish.as_deref().filter(|folder| !folder.is_dir()) {
        store.close().await;
        let message = format!(
            "`ledger.publish`: {} is no folder; mount its volume, or make it: nothing is published into one that is made \
             where a volume should be",
            folder.display()
        );
        return Err(Failure::usage(message));
    }
    let rollback = match seen::check(&config.ledger, store).await {
        Ok(seen) => return Ok(seen.map(|seen| Arc::new(Mutex::new(seen)))),
        Err(rollback) => rollback,
    };
    let message = rollback.to_string();
    let result = match rollback {
        Rollback::Behind { seen, found, .. } => json!({ "seen": seen, "found": found }),
        Rollback::Unreadable { .. } => json!({ "seen": null, "found": null }),
        Rollback::Store(fault) => return Err(fault.into()),
    };
    if let Err(refused) = broker.note(EntryCode::AlertRollback, result).await {
        tracing::warn!(reason = refused.detail, "ALERT_ROLLBACK was not recorded");
    }
    store.close().await;
    Err(Failure::new(Exit::Integrity, message))
}

/// Goes on looking whether the ledger is set back, and publishes it where that is configured.
fn guard_while_serving(
    chores: &mut JoinSet<()>,
    config: &Config,
    (broker, store): (&Arc<Broker>, &Arc<Database>),
    forked: &publish::Forked,
) -> Option<publish::Shared> {
    chores.spawn(seen::tell_set_back(Arc::clone(broker), Arc::clone(store)));
    let directory = config.ledger.publish.as_deref()?;
    let publisher = Publisher::new(directory, Arc::clone(store), Arc::clone(broker));
    let publisher = Arc::new(Mutex::new(publisher));
    chores.spawn(publish::follow(Arc::clone(&publisher), config.ledger.publish_every, forked.clone()));
    Some(publisher)
}

async fn record_start(config: &Config, broker: &Broker) -> Result<(), Failure> {
    let is_guarded = seen::is_guarded(&config.ledger, &config.store);
    if !is_guarded {
        tracing::warn!("{}", seen::UNGUARDED);
        broker.warn_of_rollback(Some(seen::UNGUARDED.to_owned()));
    }
    let rollback = if is_guarded { "guarded" } else { "unguarded" };
    let started = json!({ "version": env!("CARGO_PKG_VERSION"), "rollback": rollback });
    broker.note(EntryCode::Started, started).await?;
    let issuers: Vec<_> = config
        .issuers
        .iter()
        .map(|(name, issuer)| {
            json!({
                "name": name.as_str(), "url": issuer.url, "profile": issuer.profile.name,
                "private": issuer.allow_private_addresses,
            })
        })
        .collect();
    let tokens: Vec<_> = config
        .admin_tokens
        .iter()
        .map(|token| {
            json!({
                "name": token.name, "roles": token.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>(),
            })
        })
        .collect();
    let loaded = json!({
        "digest": config.digest.to_string(), "url": config.public_url, "issuers": issuers, "admin_tokens": tokens,
    });
    broker.note(EntryCode::ConfigLoaded, loaded).await?;
    Ok(())
}

/// The minute's work.
async fn sweep(broker: Arc<Broker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if let Err(refused) = broker.sweep().await {
            tracing::warn!(reason = refused.detail, "counted refusals were not recorded yet");
        }
    }
}

/// Says every ten seconds that this broker lives.
async fn beat(broker: Arc<Broker>) {
    loop {
        if let Err(refused) = broker.beat().await {
            tracing::warn!(reason = refused.detail, "this broker could not be compared with others");
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Closes what brokers that died left open.
async fn recover(broker: Arc<Broker>) {
    loop {
        if let Err(refused) = broker.recover().await {
            tracing::warn!(reason = refused.detail, "open rows could not be looked at");
        }
        tokio::time::sleep(RECOVER).await;
    }
}

/// Asks backends for the revokes that are due.
async fn revoke(broker: Arc<Broker>) {
    loop {
        if let Err(refused) = broker.revoke_due().await {
            tracing::warn!(reason = refused.detail, "revokes that are due could not be looked at");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn keep_head(seen: Kept, store: Arc<Database>) {
    loop {
        seen.lock().await.keep(&store).await;
        tokio::time::sleep(seen::EVERY).await;
    }
}

/// Keeps the broker logged in, and says once what its token may not do, or may do too much. A Vault that is not there
/// fails its own grants only.
async fn keep_vault(client: Arc<VaultClient>) {
    let told = async {
        loop {
            match client.rights(&client.needed()).await {
                Ok(rights) => break tell_rights(&client, &rights),
                Err(_) => tokio::time::sleep(LOOK_AT_RIGHTS).await,
            }
        }
    };
    tokio::join!(client.keep(), told);
}

fn tell_rights(client: &VaultClient, rights: &vault::Rights) {
    let backend = client.name();
    tracing::info!(
        backend.name = backend,
        method = client.settings().login.method(),
        "logged in at the backend"
    );
    for right in &rights.missing {
        let capability = right.any_of.join(" or ");
        tracing::warn!(
            backend.name = backend,
            path = right.path,
            capability,
            "the broker's token lacks a right"
        );
    }
    for (path, words) in &rights.surplus {
        let capability = words.join(", ");
        tracing::warn!(
            backend.name = backend,
            path,
            capability,
            "the broker's token has a right that no broker needs"
        );
    }
}

async fn look_at_certificates(certificates: Vec<Arc<Certificate>>) {
    loop {
        tokio::time::sleep(LOOK_AT_FILES).await;
        certificates.iter().for_each(|certificate| certificate.refresh(false));
    }
}
