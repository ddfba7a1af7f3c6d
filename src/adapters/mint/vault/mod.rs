//! The minter of kind `vault`: reads, generates and signs at a configured Vault (design: sections 2 "Leases" and 5).
//!
//! What only reads is read in the broker's own name. All else is done under a token of the job's own: an orphan with the
//! policies of the backend's token role, which ends with the credential at the latest, so that one call revokes all that
//! hangs on it, and Vault's own log shows whose it was. Of a leased credential that token is made first and its accessor
//! is durable before anything is generated; of one that nobody can revoke it is ended as soon as the answer is there.
//!
//! Nothing is generated twice: no request that makes something is sent again. Source: reference pages of Vault 1.21.

mod answer;
mod ssh;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::answer::Read;
use crate::{
    adapters::vault::{
        By, JobToken, JobTokenOrder, RequestOptions, Retry, VaultAnswer, VaultClient, VaultFault, VaultPath,
        Verb,
    },
    broker::ports::{Answer, Held, MintFault, Minted, Minter, Opened, Order, RevokeFault},
    kernel::{
        lifetime::{Lifetime, after},
        policy::target::{Backend, Input, Leasing, Making, Target, VaultTarget},
        secret::Secret,
    },
};

/// The minter of kind `vault`.
pub struct Vault {
    clients: HashMap<String, Arc<VaultClient>>,
}

impl Vault {
    /// A minter on these connections.
    pub fn new(clients: impl IntoIterator<Item = Arc<VaultClient>>) -> Self {
        Self { clients: clients.into_iter().map(|client| (client.name().to_owned(), client)).collect() }
    }

    fn client(&self, backend: &Backend) -> Result<&VaultClient, MintFault> {
        let mut all = self.clients.values();
        let client = match backend {
            Backend::BuiltIn => None,
            Backend::Named(name) => self.clients.get(&**name),
            // The loader fills in the only one; that it is the only one still holds here.
            Backend::Unnamed => all.next().filter(|_| all.next().is_none()),
        };
        client.map(|client| &**client).ok_or_else(|| MintFault::failed("no-such-backend"))
    }

    async fn mint(
        &self,
        order: &Order,
        target: &VaultTarget,
        token: Option<&Secret>,
    ) -> Result<Minted, MintFault> {
        let client = self.client(&target.backend)?;
        match order.target.making() {
            Making::Harmless => {
                let answer = ask(client, order, target, Call { by: By::Own, retry: Retry::Read }).await?;
                finish(order, target, answer)
            }
            Making::Irrevocable => irrevocable(client, order, target).await,
            Making::Revocable => {
                let job = token.and_then(Job::unpack).ok_or_else(|| MintFault::failed("no-job-token"))?;
                leased(client, order, target, job).await
            }
        }
    }
}

impl Minter for Vault {
    fn fetch<'a>(
        &'a self,
        order: &'a Order,
        token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>> {
        Box::pin(async move {
            match &order.target {
                Target::Vault(target) => self.mint(order, target, token).await,
                Target::Aws(_) | Target::Oidc { .. } | Target::Sealed { .. } => {
                    Err(MintFault::failed("target-of-another-kind"))
                }
            }
        })
    }

    fn leaves_process(&self, _target: &Target) -> bool {
        true
    }

    fn open<'a>(&'a self, order: &'a Order) -> Answer<'a, Result<Opened, MintFault>> {
        Box::pin(async move {
            let client = self.client(&order.target.backend())?;
            let ttl = order.ttl.ok_or_else(|| MintFault::failed("no-ttl"))?;
            let JobToken { token, accessor, ttl } = job_token(client, order, ttl).await?;
            let held = Held { backend: client.name().to_owned(), accessor: copy(&accessor), lease: None };
            let token = Job { ends_at: after(order.now, ttl), accessor, token }.pack();
            Ok(Opened { held, token })
        })
    }

    fn revoke<'a>(&'a self, held: &'a Held) -> Answer<'a, Result<(), RevokeFault>> {
        Box::pin(async move {
            let fault = |fault: VaultFault| RevokeFault { reason: fault.reason() };
            let client = self.clients.get(&held.backend).ok_or(RevokeFault { reason: "no-such-backend" })?;
            // The lease by itself and at once: behind its token Vault ends leases in its own time, and says nothing
            // of one that it cannot end. The token goes in either case, so that nothing new hangs on it.
            let lease = match &held.lease {
                Some(lease) => client.revoke_lease(lease, true).await,
                None => Ok(()),
            };
            let token = client.revoke_accessor(&held.accessor).await;
            lease.and(token).map_err(fault)
        })
    }
}

/// A job's token on its way from [`Minter::open`] to [`Minter::fetch`], as one text.
struct Job {
    ends_at: Timestamp,
    accessor: Secret,
    token: Secret,
}

impl Job {
    fn pack(&self) -> Secret {
        let mut bytes = format!("{} ", self.ends_at.as_second()).into_bytes();
        bytes.reserve_exact(self.accessor.len() + self.token.len() + 1);
        bytes.extend_from_slice(self.accessor.expose());
        bytes.push(b' ');
        bytes.extend_from_slice(self.token.expose());
        Secret::new(bytes)
    }

    fn unpack(packed: &Secret) -> Option<Self> {
        let mut parts = packed.expose_text()?.splitn(3, ' ');
        let ends_at = Timestamp::from_second(parts.next()?.parse().ok()?).ok()?;
        let mut next = || Some(Secret::from_text(parts.next()?.to_owned()));
        Some(Self { ends_at, accessor: next()?, token: next()? })
    }
}

fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_vec())
}

async fn job_token(client: &VaultClient, order: &Order, ttl: Duration) -> Result<JobToken, MintFault> {
    let role = client.settings().token_role.as_deref().ok_or_else(|| MintFault::failed("no-token-role"))?;
    let subject = &order.subject;
    let mut meta = BTreeMap::from([
        ("issuance_id".to_owned(), order.issuance.to_string()),
        ("decision_id".to_owned(), order.decision.to_string()),
        ("grant".to_owned(), order.grant.to_string()),
        ("issuer".to_owned(), subject.issuer.clone()),
    ]);
    let known = [("project", &subject.project), ("run", &subject.run)];
    meta.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))));
    let order = JobTokenOrder { role, policies: &[], ttl, meta: &meta };
    // Nothing hangs on a token that came to be and is lost: the credential was not made, for certain.
    client.create_job_token(&order).await.map_err(|fault| {
        let is_late = matches!(fault, VaultFault::Late { .. });
        if is_late { MintFault::Timeout } else { MintFault::failed(fault.reason()) }
    })
}

/// Generates under the job's token, and has the lease last as long as the policy says, where the engine gave less.
async fn leased(
    client: &VaultClient,
    order: &Order,
    target: &VaultTarget,
    job: Job,
) -> Result<Minted, MintFault> {
    let Job { ends_at, accessor, token } = job;
    let mut answer = ask(client, order, target, Call { by: By::Job(&token), retry: Retry::Never }).await?;
    // What the engine gave hangs on the token, so that whoever called revokes it.
    let lease = answer.lease_id.take().ok_or(MintFault::Lost { reason: "lease-missing" })?;
    let given = answer.lease_duration;
    let wanted = order.ttl.unwrap_or(given);
    let granted = match answer.renewable && given < wanted {
        true => match client.renew_lease(&lease, wanted).await {
            Ok(renewed) => renewed.duration,
            // It is good for as long as the engine gave.
            Err(_) => given,
        },
        false => given,
    };
    let told = json!({ "lease_seconds": granted.as_secs() });
    let mut minted = finish(order, target, answer).map_err(lost)?;
    merge(&mut minted.told, told);
    // The token ends at `ends_at`, and Vault ends with it whatever hangs on it.
    minted.expires_at = Some(after(order.now, granted).min(ends_at));
    minted.held = Some(Held { backend: client.name().to_owned(), accessor, lease: Some(lease) });
    Ok(minted)
}

/// Makes what nobody can revoke: under a token of the job's that ends right after.
async fn irrevocable(client: &VaultClient, order: &Order, target: &VaultTarget) -> Result<Minted, MintFault> {
    // A token that came late or never is no credential: nothing was made, for certain.
    let job = job_token(client, order, ERRAND).await.map_err(|fault| match fault {
        MintFault::Timeout => MintFault::failed("job-token-late"),
        MintFault::Failed { .. } | MintFault::Lost { .. } => fault,
    })?;
    let answer = ask(client, order, target, Call { by: By::Job(&job.token), retry: Retry::Never }).await;
    // Where this fails the token ends by itself within a minute.
    let ended = client.revoke_accessor(&job.accessor).await;
    if let Err(fault) = ended {
        tracing::debug!(reason = fault.reason(), "the job's token was left to end by itself");
    }
    let mut answer = answer?;
    match (answer.lease_id.take(), target.engine.leasing) {
        (None, _) | (Some(_), Leasing::Useless | Leasing::Due) => {}
        (Some(lease), Leasing::Refused) => {
            // It went with its token; once more by its own name, so that the answer is certain.
            let revoked = client.revoke_lease(&lease, true).await;
            return Err(match revoked {
                Ok(()) => MintFault::failed("lease-undeclared"),
                Err(_) => MintFault::Lost { reason: "lease-undeclared" },
            });
        }
    }
    finish(order, target, answer).map_err(lost)
}

/// What was made and cannot be handed out is made all the same.
fn lost(fault: MintFault) -> MintFault {
    match fault {
        MintFault::Failed { reason, .. } | MintFault::Lost { reason } => MintFault::Lost { reason },
        MintFault::Timeout => MintFault::Timeout,
    }
}

struct Call<'a> {
    by: By<'a>,
    retry: Retry,
}

async fn ask(
    client: &VaultClient,
    order: &Order,
    target: &VaultTarget,
    call: Call<'_>,
) -> Result<VaultAnswer, MintFault> {
    // Checked again at use, whatever the loader said.
    let path = VaultPath::parse(&target.path).map_err(|_| MintFault::failed("path-unfit"))?;
    let path = match target.version {
        Some(version) => path.at_version(version),
        None => path,
    };
    let verb = if target.engine.posts { Verb::Post } else { Verb::Get };
    let body = target.engine.posts.then(|| Secret::from_text(Value::Object(body(order, target)).to_string()));
    let is_harmless = call.retry == Retry::Read;
    let options = RequestOptions { by: call.by, retry: call.retry };
    let answer = client.request(verb, &path, body, options).await.map_err(|fault| {
        if matches!(fault, VaultFault::Late { sent } if sent || is_harmless) {
            MintFault::Timeout
        } else if fault.may_have_happened() && !is_harmless {
            MintFault::Lost { reason: fault.reason() }
        } else {
            MintFault::failed(fault.reason())
        }
    })?;
    if let (true, Some(lease)) = (is_harmless, &answer.lease_id) {
        // A secret that leases is not what the policy says: nothing of it is left behind.
        let revoked = client.revoke_lease(lease, true).await;
        let reason = "lease-undeclared";
        return Err(revoked.map_or(MintFault::Lost { reason }, |()| MintFault::failed(reason)));
    }
    Ok(answer)
}

/// What the engine is sent: the policy's parameters, the TTL, and what the job gives.
fn body(order: &Order, target: &VaultTarget) -> Map<String, Value> {
    let mut body: Map<String, Value> =
        target.parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    if let Some(ttl) = order.ttl.filter(|_| target.engine.lifetime != Lifetime::Static) {
        body.insert("ttl".to_owned(), format!("{}s", ttl.as_secs()).into());
    }
    if let (Some(kind), Some(input)) = (target.engine.input, &order.input) {
        body.insert(kind.as_str().to_owned(), input.trim().into());
        if kind == Input::Digest {
            body.entry("prehashed").or_insert(Value::Bool(true));
            if let Some(name) = answer::hash_of(input) {
                body.entry("hash_algorithm").or_insert(name.into());
            }
        }
    }
    body
}

fn finish(order: &Order, target: &VaultTarget, answer: VaultAnswer) -> Result<Minted, MintFault> {
    let Read { fields, version } = answer::read(target, &answer)?;
    let expires_at = match target.engine.lifetime {
        Lifetime::Static => None,
        Lifetime::Leased => Some(after(order.now, answer.lease_duration)),
        Lifetime::Fixed => {
            let end = answer::end(&answer, order.now).ok_or(MintFault::Lost { reason: "end-unknown" })?;
            Some(end)
        }
    };
    // What it reaches stands in INTENT, which no receipt shows.
    let mut told = json!({ "engine": target.engine.name });
    if let Some(version) = version {
        merge(&mut told, json!({ "version": version }));
    }
    if answer.warnings > 0 {
        merge(&mut told, json!({ "warnings": answer.warnings }));
    }
    Ok(Minted { fields, expires_at, sealed_generation: None, held: None, told })
}

fn merge(told: &mut Value, more: Value) {
    if let (Value::Object(told), Value::Object(more)) = (told, more) {
        told.extend(more);
    }
}

/// For how long a token is good that does one thing: longer than any deadline of an exchange that could wait for it.
const ERRAND: Duration = Duration::from_secs(60);
