//! Somebody to whom the job shows its assertion: a service that knows the issuer's URL and nothing else of Hallpass. It
//! takes the keys by discovery over HTTP and checks with the code that verifies CI tokens, of which the signer uses none.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::scene::{Scene, broken};
use crate::{
    cli::exit::Failure,
    kernel::{
        identity::{
            keys::KeySet,
            profiles::generic::GENERIC,
            token::RawToken,
            verify::{Terms, verify},
        },
        name::IssuerName,
        secret::Secret,
    },
};

/// What it says of one assertion.
pub(super) struct Verdicts {
    /// Whom it knows the bearer as, now.
    pub(super) subject: String,
    /// When it is asked again: the moment at which the assertion has ended.
    pub(super) then: Timestamp,
    /// Why it refuses the same assertion then.
    pub(super) refusal: String,
}

/// Shows it the assertion now, and as it would be a moment after its end.
///
/// # Errors
///
/// [`Failure`] where it does not accept now, or does then.
pub(super) async fn ask(scene: &Scene, assertion: &str, audience: &str) -> Result<Verdicts, Failure> {
    let configuration: Value = scene.get(&format!("{}/.well-known/openid-configuration", scene.url)).await?;
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    if text(configuration.get("issuer")) != scene.url {
        return Err(broken("the issuer's own discovery"));
    }
    let keys: Value = scene.get(&text(configuration.get("jwks_uri"))).await?;
    let keys = KeySet::parse(keys.to_string().as_bytes(), GENERIC.algorithms);
    let keys = keys.map_err(|_| broken("the issuer's keys"))?;
    let issuer = IssuerName::parse("hallpass").ok_or_else(|| broken("the issuer's name"))?;
    let terms = Terms {
        issuer: &issuer,
        url: &scene.url,
        profile: &GENERIC,
        audience,
        max_token_age: Duration::from_secs(600),
        leeway: Duration::ZERO,
    };
    let look = |now| {
        let token =
            RawToken::read(Secret::from_text(assertion.to_owned())).map_err(|_| broken("the assertion"))?;
        let algorithm = token.check_algorithm(&GENERIC).map_err(|_| broken("the assertion's algorithm"))?;
        let key =
            keys.find(token.unverified_kid(), algorithm).ok_or_else(|| broken("the assertion's key"))?;
        Ok::<_, Failure>(verify(token, &key, &terms, now))
    };
    let Ok(accepted) = look(scene.now())? else {
        return Err(broken("the assertion, which its verifier refused"));
    };
    let identity = accepted.into_identity();
    let then = identity.token().exp;
    let Err(refused) = look(then)? else {
        return Err(broken("the assertion, which its verifier accepted after its end"));
    };
    Ok(Verdicts { subject: identity.subject().to_owned(), then, refusal: refused.fault.reason })
}
