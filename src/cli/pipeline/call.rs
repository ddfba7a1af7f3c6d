//! One way to call over HTTP for all that a pipeline step needs: the broker, and the CI system's token endpoint.
//!
//! Nothing is sent but to https or loopback, no redirect is followed, every answer has a greatest size and every call a
//! deadline. Proxy variables apply; loopback is never proxied. There is no switch to trust just anybody.

use std::time::Duration;

use reqwest::{Certificate, Client, RequestBuilder, Response, Url};
use tokio::time::Instant;

use super::super::{
    config::is_secure,
    exit::{self, Exit, Failure},
    output,
};
use crate::{broker::ambient::Entropy, kernel::secret::Secret};

/// Whom a client trusts to be the server.
pub(super) enum Trust {
    /// These authorities and no other.
    Only(Vec<Certificate>),
    /// The system's authorities (`SSL_CERT_FILE` names others).
    System,
}

/// Why a try did not bring an answer.
pub(super) struct Miss {
    /// What to end with where this was the last try.
    pub(super) failure: Failure,
    /// After how long the server wants to be asked again; `None` where asking again is of no use.
    pub(super) again: Option<Duration>,
}

/// The first wait between two tries is at most this; the bound doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The greatest of these bounds.
const GREATEST_WAIT: Duration = Duration::from_secs(8);
/// A handshake that takes longer will not end.
const CONNECT: Duration = Duration::from_secs(10);

/// A client for calls to this place.
///
/// # Errors
///
/// [`Exit::Usage`] for a proxy that cannot be used, and where the system has no certificates.
pub(super) fn client(place: &Url, trust: Trust) -> Result<Client, Failure> {
    let builder = Client::builder()
        .user_agent(concat!("hallpass/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT);
    let builder = match trust {
        // Plain http needs no authority, so that a machine without any can use it.
        Trust::Only(_) | Trust::System if place.scheme() == "http" => builder.tls_certs_only([]),
        Trust::Only(authorities) => builder.tls_certs_only(authorities),
        Trust::System => builder,
    };
    let builder = if is_loopback(place) {
        builder.no_proxy()
    } else {
        refuse_socks(|name| std::env::var(name).ok())?;
        builder
    };
    builder.build().map_err(|fault| Failure::usage(exit::chain(&fault)))
}

/// Whether what is sent there stays on this machine.
fn is_loopback(place: &Url) -> bool {
    // What is secure without encryption is loopback, whatever the scheme.
    let mut plain = place.clone();
    plain.set_scheme("http").is_ok() && is_secure(&plain)
}

/// A SOCKS proxy is said to be none of ours, instead of being taken for an HTTP one.
fn refuse_socks(variable: impl Fn(&str) -> Option<String>) -> Result<(), Failure> {
    let set = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| variable(name).map(|value| (name, value)))
    };
    let of_https = set(["HTTPS_PROXY", "https_proxy"]).filter(|(_, value)| !value.is_empty());
    match of_https.or_else(|| set(["ALL_PROXY", "all_proxy"])) {
        Some((name, value)) if value.starts_with("socks") => Err(Failure::usage(format!(
            "{name} names a SOCKS proxy; only http:// and https:// proxies can be used, set HTTPS_PROXY to one"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Tries until there is an answer, a refusal that stays, or no time left. A try is given what is left of the budget.
/// Waits are drawn at random up to a bound that doubles, so that jobs which failed together do not come back together.
///
/// # Errors
///
/// The failure of the last try.
pub(super) async fn patiently<T>(
    budget: Duration,
    attempt: impl AsyncFn(Duration) -> Result<T, Miss>,
) -> Result<T, Failure> {
    let give_up = Instant::now() + budget;
    let mut bound = FIRST_WAIT;
    let mut told = false;
    loop {
        let miss = match attempt(give_up.saturating_duration_since(Instant::now())).await {
            Ok(answer) => return Ok(answer),
            Err(miss) => miss,
        };
        let Some(least) = miss.again else { return Err(miss.failure) };
        let wait = least + jitter(bound)?;
        if Instant::now() + wait >= give_up {
            return Err(miss.failure);
        }
        if !told {
            told = true;
            let first = miss.failure.message.lines().next().unwrap_or_default().to_owned();
            output::say(&format!("hallpass: {first}; trying again, for {} s at most", budget.as_secs()));
        }
        tokio::time::sleep(wait).await;
        bound = bound.saturating_mul(2).min(GREATEST_WAIT);
    }
}

fn jitter(bound: Duration) -> Result<Duration, Failure> {
    let random = u16::from_be_bytes(Entropy::Os.bytes::<2>()?);
    Ok(bound.mul_f64(f64::from(random) / f64::from(u16::MAX)))
}

/// Sends a request. Only where no connection stood is it sure that nothing was done, so only then it is tried again.
///
/// # Errors
///
/// [`Miss`] where no head of an answer came.
pub(super) async fn send(request: RequestBuilder, whom: &str) -> Result<Response, Miss> {
    request.send().await.map_err(|fault| {
        if let Some(refused) = distrust(&fault) {
            let message = format!(
                "{whom} cannot be trusted: {refused}; SSL_CERT_FILE, and for the broker --ca-file, name other authorities"
            );
            return Miss { failure: Failure::new(Exit::Unreachable, message), again: None };
        }
        Miss { again: fault.is_connect().then_some(Duration::ZERO), failure: unreachable(&fault, whom) }
    })
}

/// Reads the body of an answer.
///
/// # Errors
///
/// [`Miss`] where it does not end, or is larger.
pub(super) async fn body(response: &mut Response, greatest_bytes: usize, whom: &str) -> Result<Secret, Miss> {
    // Room for an ordinary answer at once: growing would leave copies behind, even if wiped ones.
    let mut body = Vec::with_capacity(greatest_bytes.min(16 * 1024));
    let broken = |fault: &reqwest::Error| Miss { failure: unreachable(fault, whom), again: None };
    while let Some(chunk) = response.chunk().await.map_err(|fault| broken(&fault))? {
        if body.len() + chunk.len() > greatest_bytes {
            let failure = Failure::new(Exit::Unreachable, format!("the answer is too large to be {whom}'s"));
            return Err(Miss { failure, again: None });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Secret::new(body))
}

/// The seconds that a `Retry-After` header asks for; dates are not spoken here.
pub(super) fn retry_after(response: &Response) -> Duration {
    let header = response.headers().get("retry-after");
    let seconds = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map_or(Duration::ZERO, Duration::from_secs)
}

fn unreachable(fault: &reqwest::Error, whom: &str) -> Failure {
    if fault.is_timeout() && !fault.is_connect() {
        return Failure::new(Exit::Unreachable, format!("{whom} did not answer in time"));
    }
    // The address is known to whoever reads this, and an endpoint's path may be long.
    let mut text = String::new();
    let mut cause = std::error::Error::source(fault);
    while let Some(each) = cause {
        let said = each.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = each.source();
    }
    Failure::new(Exit::Unreachable, format!("{whom} cannot be reached{text}"))
}

/// Why the server's certificate is refused, where that is the fault: asking again would not change it.
fn distrust(fault: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(refused @ rustls::Error::InvalidCertificate(_)) = fault.downcast_ref() {
        return Some(refused.to_string());
    }
    // An io::Error does not name what it wraps as its source, and wraps another of its kind here.
    let wrapped = fault.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let wrapped = wrapped.and_then(|inner| distrust(inner));
    wrapped.or_else(|| distrust(fault.source()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_never_proxied() {
        for (place, expected) in [
            ("https://127.0.0.1:8440", true),
            ("http://localhost", true),
            ("https://[::1]/x", true),
            ("https://hallpass.example.com", false),
            ("https://127.0.0.1.example.com", false),
        ] {
            assert_eq!(is_loopback(&Url::parse(place).unwrap()), expected, "{place}");
        }
    }

    #[test]
    fn a_socks_proxy_is_said_to_be_none() {
        let with = |given: &'static [(&str, &str)]| {
            refuse_socks(move |name| {
                let found = given.iter().find(|(each, _)| *each == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(with(&[("ALL_PROXY", "socks5://proxy:1080")]).unwrap_err().exit, Exit::Usage);
        assert_eq!(with(&[("https_proxy", "socks5h://proxy:1080")]).unwrap_err().exit, Exit::Usage);
        // The more specific one counts.
        assert!(with(&[("HTTPS_PROXY", "http://proxy:3128"), ("ALL_PROXY", "socks5://proxy")]).is_ok());
        assert!(with(&[]).is_ok());
    }

    #[test]
    fn waits_are_drawn_below_their_bound() {
        for _ in 0..64 {
            assert!(jitter(FIRST_WAIT).unwrap() <= FIRST_WAIT);
        }
    }
}
