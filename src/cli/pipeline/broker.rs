//! The client side of the API: how commands of pipeline steps reach a broker, and how its answers become exit codes.
//!
//! Proxy variables apply here, never to the broker's own fetches. A token is sent to https only, or to loopback.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{Certificate, Client, Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;
use tokio::time::Instant;

use super::super::{
    config::is_secure,
    exit::{self, Exit, Failure},
};
use crate::{
    broker::ambient::Entropy,
    kernel::{id::crockford, secret::Secret},
};

/// How a command reaches the broker.
#[derive(Debug, clap::Args)]
pub(crate) struct Broker {
    /// The broker.
    #[arg(long, value_name = "URL", env = "HALLPASS_URL")]
    url: String,
    /// The only authorities trusted for it, as PEM; the system's where absent.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// A broker that can be called.
pub(crate) struct Caller {
    client: Client,
    base: Url,
}

/// What came back with status 200.
pub(crate) struct Answer {
    /// The body; it may hold secrets.
    pub(crate) body: Secret,
}

/// For how long a call is tried again (contract: section 3 says what is, the brief moment is ours).
const PATIENCE: Duration = Duration::from_secs(30);
/// The first wait between two tries; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// One try: the broker's own deadline of an exchange is 15 s.
const ONE_TRY: Duration = Duration::from_secs(20);
/// The greatest answer: 16 credentials of 64 KiB each, and what stands around them.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Why a try did not bring an answer.
struct Miss {
    failure: Failure,
    /// After how long the broker wants to be asked again; `None` where asking again is of no use.
    again: Option<Duration>,
}

impl Broker {
    /// Its URL as written.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Gets ready to call.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for an address that cannot be used.
    pub(crate) fn caller(&self) -> Result<Caller, Failure> {
        let base = base(&self.url)?;
        let authorities = match &self.ca_file {
            Some(path) => Some(authorities(path)?),
            // Plain http needs none, so that a machine without any can use it.
            None if base.scheme() == "http" => Some(Vec::new()),
            None => None,
        };
        let builder = Client::builder()
            .user_agent(concat!("hallpass/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .timeout(ONE_TRY);
        let builder = match authorities {
            Some(authorities) => builder.tls_certs_only(authorities),
            None => builder,
        };
        let client = builder.build().map_err(|fault| Failure::usage(exit::chain(&fault)))?;
        Ok(Caller { client, base })
    }
}

fn base(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).map_err(|fault| {
        Failure::usage(format!("`{text}` is no URL such as https://hallpass.example.com: {fault}"))
    })?;
    if !is_secure(&url) {
        return Err(Failure::usage(format!(
            "`{text}` is neither https nor on loopback; a token would pass in the clear"
        )));
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err(Failure::usage(format!("`{text}` holds more than scheme, host, port and path")));
    }
    Ok(url)
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let pem = fs::read(path).map_err(|fault| Failure::file(path, &fault))?;
    let authorities = Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
    authorities.ok_or_else(|| Failure::usage(format!("{}: it holds no certificate", path.display())))
}

impl Caller {
    /// Gets a document.
    ///
    /// # Errors
    ///
    /// [`Failure`] as the contract's exit codes say.
    pub(crate) async fn get(&self, path: &str, token: Option<&Secret>) -> Result<Answer, Failure> {
        let request = || self.request(Method::GET, path, token);
        patiently(request).await
    }

    /// Posts a body, under one idempotency key for all tries.
    ///
    /// # Errors
    ///
    /// [`Failure`] as the contract's exit codes say.
    pub(crate) async fn post(&self, path: &str, token: &Secret, body: &Value) -> Result<Answer, Failure> {
        // 32 characters of the ids' alphabet: 160 random bits, within the 16 to 64 that the API takes.
        let key = crockford(&Entropy::Os.bytes::<20>()?);
        let text = body.to_string();
        let request = || {
            Ok(self
                .request(Method::POST, path, Some(token))?
                .header("idempotency-key", &key)
                .header("content-type", "application/json")
                .body(text.clone()))
        };
        patiently(request).await
    }

    /// Deletes, by a handle or a token. 204: nothing usable remains; 202: it will be so; 200: nobody can revoke it.
    ///
    /// # Errors
    ///
    /// [`Failure`] as the contract's exit codes say.
    pub(crate) async fn delete(&self, path: &str, right: &Secret) -> Result<Answer, Failure> {
        let request = || self.request(Method::DELETE, path, Some(right));
        patiently(request).await
    }

    fn request(&self, method: Method, path: &str, token: Option<&Secret>) -> Result<RequestBuilder, Failure> {
        let url = format!("{}{path}", self.base.as_str().trim_end_matches('/'));
        let request = self.client.request(method, url);
        match token.map(|token| token.expose_text().ok_or_else(|| Failure::new(Exit::NoToken, "no token"))) {
            // bearer_auth marks the header as sensitive.
            Some(text) => Ok(request.bearer_auth(text?)),
            None => Ok(request),
        }
    }
}

/// Tries until there is an answer, a refusal that stays, or no patience left. Waits are drawn at random up to a bound
/// that doubles, so that jobs which failed together do not come back together.
async fn patiently(request: impl Fn() -> Result<RequestBuilder, Failure>) -> Result<Answer, Failure> {
    let give_up = Instant::now() + PATIENCE;
    let mut bound = FIRST_WAIT;
    loop {
        let miss = match once(request()?).await {
            Ok(answer) => return Ok(answer),
            Err(miss) => miss,
        };
        let Some(least) = miss.again else { return Err(miss.failure) };
        let wait = least + jitter(bound)?;
        if Instant::now() + wait >= give_up {
            return Err(miss.failure);
        }
        tokio::time::sleep(wait).await;
        bound = bound.saturating_mul(2);
    }
}

fn jitter(bound: Duration) -> Result<Duration, Failure> {
    let random = u16::from_be_bytes(Entropy::Os.bytes::<2>()?);
    Ok(bound.mul_f64(f64::from(random) / f64::from(u16::MAX)))
}

async fn once(request: RequestBuilder) -> Result<Answer, Miss> {
    let mut response = request.send().await.map_err(|fault| Miss {
        // Only where no connection stood is it sure that nothing was done; a key guards the rest, but the contract
        // says connect errors only.
        again: fault.is_connect().then_some(Duration::ZERO),
        failure: unreachable(&fault),
    })?;
    let status = response.status();
    let retry_after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    let mut body = Vec::with_capacity(16 * 1024);
    let broken = |fault: &reqwest::Error| Miss { failure: unreachable(fault), again: None };
    while let Some(chunk) = response.chunk().await.map_err(|fault| broken(&fault))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            let failure = Failure::new(Exit::Unreachable, "the answer is too large to be a broker's");
            return Err(Miss { failure, again: None });
        }
        body.extend_from_slice(&chunk);
    }
    let body = Secret::new(body);
    if [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT].contains(&status) {
        return Ok(Answer { body });
    }
    let (failure, code) = refusal(status, &body);
    let is_passing = match status.as_u16() {
        409 => code.as_deref() == Some("request_in_progress"),
        429 | 502 | 503 | 504 => true,
        _ => false,
    };
    Err(Miss { failure, again: is_passing.then_some(retry_after) })
}

fn unreachable(fault: &reqwest::Error) -> Failure {
    let text = exit::chain(fault);
    Failure::new(Exit::Unreachable, format!("the broker cannot be reached: {text}"))
}

/// The exit code and the words of a problem document (RFC 9457), and its `code`.
fn refusal(status: StatusCode, body: &Secret) -> (Failure, Option<String>) {
    let problem: Value = serde_json::from_slice(body.expose()).unwrap_or_default();
    let member = |name: &str| problem.get(name).and_then(Value::as_str);
    let code = member("code").map(str::to_owned);
    let exit = match (status.as_u16(), code.as_deref()) {
        (400 | 404 | 405 | 413 | 415 | 422, _) => Exit::Usage,
        (401 | 403 | 409, _) => Exit::Denied,
        (429, _) => Exit::RateLimited,
        (500, _) => Exit::Internal,
        (502 | 504, Some(_)) => Exit::Backend,
        // A 5xx without our code comes from something in between.
        _ => Exit::Unreachable,
    };
    let Some(code_text) = &code else {
        let message = format!("the answer has status {}, and is not a broker's", status.as_u16());
        return (Failure::new(exit, message), None);
    };
    let mut message = format!(
        "{}: {} ({code_text})",
        shown(member("title").unwrap_or("refused")),
        shown(member("detail").unwrap_or_default())
    );
    for id in ["decision_id", "request_id"] {
        if let Some(text) = member(id) {
            message.push_str(&format!("\n  {id}: {}", shown(text)));
        }
    }
    (Failure::new(exit, message), code)
}

/// A text of an answer, as a terminal may show it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(status: u16, body: &str) -> (u8, Option<String>) {
        let body = Secret::from_text(body.to_owned());
        let (failure, code) = refusal(StatusCode::from_u16(status).unwrap(), &body);
        (failure.exit.code(), code)
    }

    #[test]
    fn every_status_has_its_exit_code() {
        let problem = |code: &str| format!(r#"{{"title":"t","detail":"d","code":"{code}"}}"#);
        for (status, code, expected) in [
            (400, "request_malformed", 2),
            (401, "token_expired", 10),
            (403, "access_denied", 10),
            (404, "not_found", 2),
            (409, "token_replayed", 10),
            (422, "ttl_out_of_range", 2),
            (429, "rate_limited", 15),
            (500, "internal", 1),
            (502, "backend_failed", 14),
            (503, "not_ready", 13),
            (504, "backend_timeout", 14),
        ] {
            assert_eq!(exit(status, &problem(code)), (expected, Some(code.to_owned())));
        }
        assert_eq!(exit(502, "<html>Bad gateway</html>"), (13, None));
    }

    #[test]
    fn tokens_go_to_https_or_loopback_only() {
        for good in [
            "https://hallpass.example.com",
            "http://127.0.0.1:8440",
            "http://[::1]:8440/",
            "http://localhost",
        ] {
            assert!(base(good).is_ok(), "{good}");
        }
        for bad in [
            "http://hallpass.example.com",
            "http://10.0.0.1",
            "hallpass",
            "ftp://x",
            "https://u@x",
            "https://x?y",
        ] {
            assert_eq!(base(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn control_characters_of_an_answer_never_reach_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
    }
}
