//! Steps 1 to 4 of the exchange: from a bearer text to a [`Caller`]. The first fault wins; each is recorded, as an
//! entry where the token is authentic, as a count where it is not, so that strangers cannot grow the ledger.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use governor::{DefaultKeyedRateLimiter, Quota};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::{
    Broker,
    error::{Code, Refused},
    metrics::Step,
    ports::{Counted, KeyFault, Refusal},
    record::{About, refusal_result},
    spans,
};
use crate::kernel::{
    id::RequestId,
    identity::{
        JobIdentity,
        keys::VerificationKey,
        token::RawToken,
        verify::{self, FaultKind, RefusedToken, Terms, TokenFault},
    },
    ledger::entry::{Draft, EntryCode, Personal},
    name::IssuerName,
    policy::{PolicySet, set::IssuerPolicy},
    secret::Secret,
};

/// Where a request came from.
#[derive(Clone, Copy)]
pub struct Origin {
    /// The client's address.
    pub address: IpAddr,
    /// The request's id.
    pub request: RequestId,
}

/// Somebody whose token holds, and the policy snapshot that the whole request will use.
pub struct Caller {
    /// Who it is.
    pub identity: JobIdentity,
    /// Where it called from.
    pub origin: Origin,
    pub(super) policy: Arc<PolicySet>,
    /// When its token was first looked at.
    pub(super) began: Instant,
    /// What signed its token.
    pub(super) key: Arc<VerificationKey>,
    about: About,
}

impl Caller {
    /// A draft that says what every entry about its token says.
    pub(super) fn draft(&self, code: EntryCode) -> Draft {
        self.about.draft(code, &self.origin)
    }
}

/// How often one project may ask.
pub(super) struct ProjectRates(DefaultKeyedRateLimiter<(IssuerName, String)>);

/// Which of a token's rules apply.
#[derive(Clone, Copy)]
enum Purpose {
    /// The exchange and what shows its means: all.
    Exchange,
    /// Looking after an issuance: age does not count.
    Holder,
}

impl Broker {
    /// Identifies a caller of whoami or grants: as the exchange does, then whether its issuer, its key or everything is
    /// frozen. The exchange looks at freezes later, in its transaction.
    ///
    /// # Errors
    ///
    /// As [`Broker::identify`], and `access_denied`.
    pub async fn identify_unfrozen(&self, bearer: Secret, origin: Origin) -> Result<Caller, Refused> {
        let caller = self.identify(bearer, origin).await?;
        self.refuse_frozen(&caller).await?;
        Ok(caller)
    }

    /// Identifies a caller of the exchange: token shape to age, then the project's rate and the
    /// rule of five denials.
    ///
    /// # Errors
    ///
    /// [`Refused`] with a `token_*` code, `issuer_unavailable`, `not_ready` or `rate_limited`.
    pub async fn identify(&self, bearer: Secret, origin: Origin) -> Result<Caller, Refused> {
        let caller = self.prove(bearer, origin, Purpose::Exchange).instrument(spans::verify()).await?;
        self.admit(&caller)?;
        Ok(caller)
    }

    /// Identifies a holder of issuances: the token's age and the rates do not count.
    ///
    /// # Errors
    ///
    /// As [`Broker::identify`], but never `token_too_old` or `rate_limited`.
    pub async fn identify_holder(&self, bearer: Secret, origin: Origin) -> Result<Caller, Refused> {
        self.prove(bearer, origin, Purpose::Holder).await
    }

    /// Names a request.
    ///
    /// # Errors
    ///
    /// `internal` where the operating system has no random bytes.
    pub fn new_request_id(&self) -> Result<RequestId, Refused> {
        Ok(RequestId::new(self.ambient.clock.now(), self.ambient.entropy.bytes()?))
    }

    fn admit(&self, caller: &Caller) -> Result<(), Refused> {
        let identity = &caller.identity;
        let now = self.ambient.clock.now();
        let project = identity.project().map_or("", |(id, _)| id).to_owned();
        if self.rates.0.check_key(&(identity.issuer().clone(), project)).is_err() {
            let detail = "this project asks too often; wait, and let jobs share fewer exchanges";
            return Err(Refused::new(Code::RateLimited, detail).retry_after(60));
        }
        if self.store.is_spent(&identity.token().id, now) {
            let left = identity.token().exp.as_second().saturating_sub(now.as_second()).max(1);
            let detail = "this token was refused five times and is not looked at again; have the CI system mint a new one";
            return Err(
                Refused::new(Code::RateLimited, detail).retry_after(u32::try_from(left).unwrap_or(u32::MAX))
            );
        }
        Ok(())
    }

    async fn prove(&self, bearer: Secret, origin: Origin, purpose: Purpose) -> Result<Caller, Refused> {
        let began = Instant::now();
        let Some(policy) = self.policy() else {
            let detail = "no policy set was accepted yet; try again shortly";
            return Err(Refused::new(Code::NotReady, detail).retry_after(5));
        };
        let token = match RawToken::read(bearer) {
            Ok(token) => token,
            Err(fault) => return Err(self.stranger(fault, None, &origin).await),
        };
        // Byte for byte: no packet may leave for an issuer that is not configured (O-02, K-01 to K-03).
        let Some(issuer) = policy.issuers.values().find(|each| each.trusted.url == token.unverified_issuer())
        else {
            let fault = TokenFault { kind: FaultKind::Issuer, reason: "unknown-issuer".to_owned() };
            return Err(self.stranger(fault, None, &origin).await);
        };
        let key = match self.key(issuer, &token).await {
            Ok(key) => key,
            Err(KeyRefused::Token(fault)) => {
                return Err(self.stranger(fault, Some(issuer.trusted.name.clone()), &origin).await);
            }
            Err(KeyRefused::Issuer { retry_after_seconds }) => {
                let detail = "the issuer's keys cannot be had now; try again shortly";
                let answer = Refused::new(Code::IssuerUnavailable, detail).retry_after(retry_after_seconds);
                let reason = "issuer-keys-unavailable".to_owned();
                self.count_stranger(&answer, reason, Some(issuer.trusted.name.clone()), &origin).await;
                return Err(answer);
            }
        };
        let terms = Terms {
            issuer: &issuer.trusted.name,
            url: &issuer.trusted.url,
            profile: issuer.trusted.profile,
            audience: &issuer.audience,
            max_token_age: issuer.max_token_age,
            leeway: self.settings.clock_leeway,
        };
        let now = self.ambient.clock.now();
        let verified = match purpose {
            Purpose::Exchange => verify::verify(token, &key, &terms, now),
            Purpose::Holder => verify::verify_holder(token, &key, &terms, now),
        };
        match verified {
            Ok(verified) => {
                self.metrics.step(Step::Verify, began.elapsed());
                let identity = verified.into_identity();
                let about = self.about(&identity)?;
                Ok(Caller { identity, origin, policy, began, key, about })
            }
            Err(refused) => Err(self.refused_token(*refused, &terms, &policy, &origin).await),
        }
    }

    async fn key(&self, issuer: &IssuerPolicy, token: &RawToken) -> Result<Arc<VerificationKey>, KeyRefused> {
        token.check_algorithm(issuer.trusted.profile).map_err(KeyRefused::Token)?;
        token.check_kid().map_err(KeyRefused::Token)?;
        self.keys.key(&issuer.trusted.name, token).await.map_err(|fault| match fault {
            KeyFault::Unavailable { retry_after_seconds } => KeyRefused::Issuer { retry_after_seconds },
            KeyFault::Unknown => {
                KeyRefused::Token(TokenFault { kind: FaultKind::Signature, reason: "unknown-key".to_owned() })
            }
        })
    }

    async fn refused_token(
        &self,
        refused: RefusedToken,
        terms: &Terms<'_>,
        policy: &PolicySet,
        origin: &Origin,
    ) -> Refused {
        let RefusedToken { fault, authentic } = refused;
        let Some(identity) = authentic else {
            let advice = terms.profile.advice.filter(|_| fault.reason.starts_with("missing-claim:"));
            let answer = self.stranger(fault, Some(terms.issuer.clone()), origin).await;
            return match advice {
                Some(advice) => Refused { detail: format!("{}; {advice}", answer.detail), ..answer },
                None => answer,
            };
        };
        let about = match self.about(&identity) {
            Ok(about) => about,
            Err(refused) => return refused,
        };
        let answer = told(&fault);
        let draft = Draft {
            result: Some(refusal_result(answer.code, &fault.reason)),
            request: Some(serde_json::json!({ "id": origin.request.to_string() })),
            ..about.draft(EntryCode::Denied, origin)
        };
        self.refuse_quietly(draft, counted(&identity, policy), fault.reason).await;
        answer
    }

    /// Counts a token that proves nothing. The answer does not wait on the ledger's health: a bad token is a bad
    /// token, and nothing was issued.
    async fn stranger(&self, fault: TokenFault, issuer: Option<IssuerName>, origin: &Origin) -> Refused {
        let answer = told(&fault);
        self.count_stranger(&answer, fault.reason, issuer, origin).await;
        answer
    }

    async fn count_stranger(
        &self,
        answer: &Refused,
        reason: String,
        issuer: Option<IssuerName>,
        origin: &Origin,
    ) {
        let address = Personal { field: "address", value: origin.address.to_string() };
        let draft = Draft {
            result: Some(refusal_result(answer.code, &reason)),
            personal: vec![address],
            ..Draft::of(EntryCode::Denied)
        };
        self.refuse_quietly(draft, Counted::Unverified { issuer }, reason).await;
    }

    async fn refuse_quietly(&self, draft: Draft, counted: Counted, sample: String) {
        let Ok(entry) = self.seal(&draft) else { return };
        let now = self.ambient.clock.now();
        let refusal = Refusal { entry, counted, always: false, against: None, sample, now };
        if let Err(fault) = self.store.refuse(refusal).await {
            tracing::warn!(%fault, "a refused token could not be counted");
        }
    }
}

/// Whose count a refusal of this identity raises.
pub(super) fn counted(identity: &JobIdentity, policy: &PolicySet) -> Counted {
    let issuer = identity.issuer().clone();
    if !policy.names_tenant(identity) {
        return Counted::Strangers { issuer };
    }
    // An issuer without projects is one project: its denials are entries too, as long as they are few.
    Counted::Project { issuer, project: identity.project().map_or("", |(id, _)| id).to_owned() }
}

enum KeyRefused {
    Issuer { retry_after_seconds: u32 },
    Token(TokenFault),
}

impl ProjectRates {
    pub(super) fn new(per_minute: u32) -> Self {
        let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        Self(DefaultKeyedRateLimiter::keyed(Quota::per_minute(per_minute)))
    }

    /// Forgets projects whose allowance is whole again, so that memory stays bounded.
    pub(super) fn forget_idle(&self) {
        self.0.retain_recent();
    }
}

/// What the caller is told about its own token.
fn told(fault: &TokenFault) -> Refused {
    let (code, detail) = match fault.kind {
        FaultKind::Algorithm => {
            (Code::TokenAlgorithm, "the token's algorithm is not one that this issuer's profile signs with")
        }
        FaultKind::Audience => (
            Code::TokenAudience,
            "the token is for another audience; have the CI system mint it for this broker's URL alone",
        ),
        FaultKind::Expired => {
            (Code::TokenExpired, "the token has expired; have the CI system mint a new one")
        }
        FaultKind::Issuer => (Code::TokenIssuer, "the token's issuer is not one that this broker trusts"),
        FaultKind::Malformed => (
            Code::TokenMalformed,
            "the token is not a compact JWT with the claims that its issuer always sends",
        ),
        FaultKind::NotYetValid => (
            Code::TokenNotYetValid,
            "the token is not valid yet; check the clocks of the CI system and of this broker",
        ),
        FaultKind::Signature => {
            (Code::TokenSignature, "the token's signature does not hold under the issuer's keys")
        }
        FaultKind::TooOld => (
            Code::TokenTooOld,
            "the token is older than this broker accepts; mint it right before the exchange",
        ),
    };
    Refused::new(code, detail)
}
