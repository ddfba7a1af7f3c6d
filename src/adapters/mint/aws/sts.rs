//! The two calls of AWS STS, by AWS's own SDK.
//!
//! The SDK tries nothing again by itself: which faults are worth another try, and with what, is decided in one place. Its
//! chain of credentials is built only for the second way; without it the SDK finds no key on the machine, and looks for
//! none.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_sts::{
    Client, Config,
    config::{
        BehaviorVersion, Region, SharedCredentialsProvider, StalledStreamProtectionConfig,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    types::{AssumedRoleUser, Credentials, PolicyDescriptorType, Tag},
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::{AwsSettings, ClientFault, Way, fault::Fault, wire::Wire};
use crate::{
    broker::ports::Order,
    kernel::{policy::target::AwsTarget, secret::Secret},
};

/// The STS of one connection.
pub(super) struct Sts {
    settings: AwsSettings,
    wire: Wire,
    client: OnceCell<Client>,
}

/// What is asked for, the same at every try.
pub(super) struct Ask {
    role_arn: String,
    pub(super) session_name: String,
    seconds: i32,
    pub(super) tags: BTreeMap<String, String>,
    session_policy: Option<String>,
    managed_policies: Vec<String>,
}

/// What came.
pub(super) struct Session {
    pub(super) access_key_id: Secret,
    pub(super) secret_access_key: Secret,
    pub(super) session_token: Secret,
    pub(super) expires_at: Timestamp,
    pub(super) arn: Option<String>,
    /// Of what AWS allows for session policy and tags, packed.
    pub(super) filled_percent: Option<i32>,
}

impl Ask {
    /// The word of what cannot be asked.
    pub(super) fn new(order: &Order, target: &AwsTarget) -> Result<Self, &'static str> {
        let ttl = order.ttl.unwrap_or(LEAST_TTL);
        let session_policy = target.session_policy.as_deref().map(compact).transpose()?;
        Ok(Self {
            role_arn: target.role_arn.clone(),
            session_name: order.issuance.to_string(),
            seconds: i32::try_from(ttl.as_secs()).map_err(|_| "no-such-time")?,
            tags: target.tags.clone(),
            session_policy,
            managed_policies: target.managed_policies.clone(),
        })
    }

    fn managed(&self) -> Option<Vec<PolicyDescriptorType>> {
        let one = |arn: &String| PolicyDescriptorType::builder().arn(arn).build();
        (!self.managed_policies.is_empty()).then(|| self.managed_policies.iter().map(one).collect())
    }

    fn tags(&self) -> Result<Option<Vec<Tag>>, Fault> {
        let one = |(key, value)| Tag::builder().key(key).value(value).build();
        let tags: Result<Vec<Tag>, _> = self.tags.iter().map(one).collect();
        let tags = tags.map_err(|_| Fault::certain("tag-unfit"))?;
        Ok((!tags.is_empty()).then_some(tags))
    }
}

impl Sts {
    pub(super) fn new(settings: &AwsSettings) -> Result<Self, ClientFault> {
        Ok(Self { settings: settings.clone(), wire: Wire::new(settings)?, client: OnceCell::new() })
    }

    /// `AssumeRoleWithWebIdentity`: unsigned; tags and source identity stand in the assertion.
    pub(super) async fn by_assertion(&self, ask: &Ask, assertion: &Secret) -> Result<Session, Fault> {
        let token = assertion.expose_text().ok_or(Fault::certain("signature"))?;
        let call = self.client().await.assume_role_with_web_identity();
        let call =
            call.role_arn(&ask.role_arn).role_session_name(&ask.session_name).web_identity_token(token);
        let call = call.duration_seconds(ask.seconds).set_policy(ask.session_policy.clone());
        let answer = call.set_policy_arns(ask.managed()).send().await;
        let answer = answer.map_err(|error| Fault::of(&error, "request-unfit"))?;
        #[expect(deprecated, reason = "the one that came before it is all that older services answer")]
        let filled = answer.session_token_utilization.or(answer.packed_policy_size);
        session(answer.credentials, answer.assumed_role_user, filled)
    }

    /// `AssumeRole`, signed with the credentials around the broker.
    pub(super) async fn by_credentials(
        &self,
        ask: &Ask,
        external_id: Option<&str>,
    ) -> Result<Session, Fault> {
        let call = self.client().await.assume_role();
        let call = call.role_arn(&ask.role_arn).role_session_name(&ask.session_name);
        let call = call.duration_seconds(ask.seconds).set_policy(ask.session_policy.clone());
        let call =
            call.set_policy_arns(ask.managed()).set_tags(ask.tags()?).source_identity(&ask.session_name);
        let answer = call.set_external_id(external_id.map(str::to_owned)).send().await;
        let answer = answer.map_err(|error| Fault::of(&error, "no-ambient-credentials"))?;
        #[expect(deprecated, reason = "the one that came before it is all that older services answer")]
        let filled = answer.session_token_utilization.or(answer.packed_policy_size);
        session(answer.credentials, answer.assumed_role_user, filled)
    }

    /// `GetCallerIdentity`, signed with the credentials around the broker: the ARN that they belong to.
    pub(super) async fn caller(&self) -> Result<String, Fault> {
        let answer = self.client().await.get_caller_identity().send().await;
        let answer = answer.map_err(|error| Fault::of(&error, "no-ambient-credentials"))?;
        answer.arn.ok_or(Fault::lost("answer-malformed"))
    }

    /// What the configuration says of it.
    pub(super) fn settings(&self) -> &AwsSettings {
        &self.settings
    }

    /// The way out.
    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Made at the first call: where credentials come from is looked at then, not at start.
    async fn client(&self) -> &Client {
        self.client.get_or_init(|| self.connect()).await
    }

    async fn connect(&self) -> Client {
        let AwsSettings { region, fips, endpoint, timeout, way, .. } = &self.settings;
        let times = TimeoutConfig::builder().operation_attempt_timeout(*timeout).operation_timeout(*timeout);
        let mut building = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.clone()))
            .use_fips(*fips)
            .http_client(self.wire.clone())
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(times.build());
        if let Some(endpoint) = endpoint {
            building = building.endpoint_url(endpoint);
        }
        match way {
            Way::Ambient { .. } => building = building.credentials_provider(self.ambient().await),
            Way::WebIdentity { .. } => {}
        }
        Client::from_conf(building.build())
    }

    async fn ambient(&self) -> SharedCredentialsProvider {
        let chain = aws_config::default_provider::credentials::DefaultCredentialsChain::builder()
            .region(Region::new(self.settings.region.clone()))
            .configure(
                aws_config::provider_config::ProviderConfig::default().with_http_client(self.wire.clone()),
            );
        SharedCredentialsProvider::new(chain.build().await)
    }
}

/// The SDK's own buffers become the secrets.
fn session(
    credentials: Option<Credentials>,
    user: Option<AssumedRoleUser>,
    filled_percent: Option<i32>,
) -> Result<Session, Fault> {
    let Some(credentials) = credentials else { return Err(Fault::lost("answer-without-credentials")) };
    let Credentials { access_key_id, secret_access_key, session_token, expiration, .. } = credentials;
    let session = Session {
        access_key_id: Secret::from_text(access_key_id),
        secret_access_key: Secret::from_text(secret_access_key),
        session_token: Secret::from_text(session_token),
        expires_at: Timestamp::from_second(expiration.secs()).map_err(|_| Fault::lost("answer-malformed"))?,
        arn: user.map(|user| user.arn),
        filled_percent,
    };
    let is_whole = [&session.access_key_id, &session.secret_access_key, &session.session_token]
        .into_iter()
        .all(|part| !part.is_empty());
    if is_whole { Ok(session) } else { Err(Fault::lost("answer-without-credentials")) }
}

/// White space counts against the 2,048 characters that AWS allows.
fn compact(policy: &str) -> Result<String, &'static str> {
    let read: Value = serde_json::from_str(policy).map_err(|_| "session-policy-malformed")?;
    Ok(read.to_string())
}

/// The least that AWS gives.
const LEAST_TTL: Duration = Duration::from_secs(900);
