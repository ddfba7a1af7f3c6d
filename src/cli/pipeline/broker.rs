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

use super::{
    super::{
        config::is_secure,
        exit::{Exit, Failure, Problem},
    },
    call::{self, Miss, Trust},
};
use crate::{
    broker::ambient::Entropy,
    kernel::{id::crockford, json::read_bounded, lifetime::parse_duration, secret::Secret},
};

/// How a command reaches the broker.
#[derive(Debug, clap::Args)]
pub(crate) struct Broker {
    /// The broker, such as https://hallpass.example.com.
    #[arg(long, value_name = "URL", env = "HALLPASS_URL")]
    url: Option<String>,
    /// The only authorities trusted for it, as PEM; the system's where absent.
    #[arg(long, value_name = "FILE", env = "HALLPASS_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// For how long a call is tried, all tries together.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// A broker that can be called.
pub(crate) struct Caller {
    client: Client,
    base: Url,
    budget: Duration,
}

/// What came back with status 200, 202 or 204.
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: u16,
    /// The body; it may hold secrets, and is empty with 204.
    pub(crate) body: Secret,
}

/// One try: the broker's own deadline of an exchange is 15 s.
const ONE_TRY: Duration = Duration::from_secs(20);
/// The greatest answer: 16 credentials of 64 KiB each, and what stands around them.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
const THE_BROKER: &str = "the broker";

impl Broker {
    /// Its URL as written; empty where none is.
    pub(crate) fn url(&self) -> &str {
        self.url.as_deref().unwrap_or_default()
    }

    /// Gets ready to call.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] for an address that cannot be used.
    pub(crate) fn caller(&self) -> Result<Caller, Failure> {
        let base = base(self.url())?;
        let trust = match &self.ca_file {
            Some(path) => Trust::Only(authorities(path)?),
            None => Trust::System,
        };
        Ok(Caller { client: call::client(&base, trust)?, base, budget: self.timeout })
    }
}

/// A duration as policy files write it.
fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .ok_or_else(|| "a duration is a whole number and s, m, h or d, such as 90s".to_owned())
}

fn base(text: &str) -> Result<Url, Failure> {
    if text.is_empty() {
        return Err(Failure::usage(
            "no broker: set HALLPASS_URL to its address, such as https://hallpass.example.com, or say --url",
        ));
    }
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
        self.patiently(|| self.request(Method::GET, path, token)).await?.document()
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
        self.patiently(request).await?.document()
    }

    /// Deletes, by a handle or a token. 204: nothing usable remains; 202: it will be so; 200: nobody can revoke it.
    ///
    /// # Errors
    ///
    /// [`Failure`] as the contract's exit codes say.
    pub(crate) async fn delete(&self, path: &str, right: &Secret) -> Result<Answer, Failure> {
        self.patiently(|| self.request(Method::DELETE, path, Some(right))).await
    }

    /// The same in one try that takes no longer than `bound`: for those who are about to end.
    ///
    /// # Errors
    ///
    /// [`Failure`] as the contract's exit codes say.
    pub(crate) async fn delete_once(
        &self,
        path: &str,
        right: &Secret,
        bound: Duration,
    ) -> Result<Answer, Failure> {
        let request = self.request(Method::DELETE, path, Some(right))?;
        once(request.timeout(bound)).await.map_err(|miss| miss.failure)
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

    async fn patiently(
        &self,
        request: impl Fn() -> Result<RequestBuilder, Failure>,
    ) -> Result<Answer, Failure> {
        let attempt = async |left: Duration| {
            let request = request().map_err(|failure| Miss { failure, again: None })?;
            once(request.timeout(left.min(ONE_TRY))).await
        };
        call::patiently(self.budget, attempt).await
    }
}

impl Answer {
    /// Itself, where it is what a question is answered with.
    fn document(self) -> Result<Self, Failure> {
        if self.status == 200 {
            return Ok(self);
        }
        let message = format!("the answer has status {}, and is not a broker's", self.status);
        Err(Failure::new(Exit::Unreachable, message))
    }
}

async fn once(request: RequestBuilder) -> Result<Answer, Miss> {
    let mut response = call::send(request, THE_BROKER).await?;
    let (status, again) = (response.status(), call::retry_after(&response));
    let body = call::body(&mut response, MAX_ANSWER_BYTES, THE_BROKER).await?;
    if [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT].contains(&status) {
        return Ok(Answer { status: status.as_u16(), body });
    }
    let failure = refusal(status, &body);
    let is_passing = match status.as_u16() {
        409 => failure.problem.as_ref().is_some_and(|problem| problem.code == "request_in_progress"),
        429 | 502 | 503 | 504 => true,
        _ => false,
    };
    Err(Miss { failure, again: is_passing.then_some(again) })
}

/// The exit code and the words of a problem document (RFC 9457).
fn refusal(status: StatusCode, body: &Secret) -> Failure {
    let document = read_bounded(body.expose()).unwrap_or_default();
    let member = |name: &str| document.get(name).and_then(Value::as_str);
    let exit = match (status.as_u16(), member("code")) {
        (400 | 404 | 405 | 413 | 415 | 422, _) => Exit::Usage,
        (401 | 403 | 409, _) => Exit::Denied,
        (429, _) => Exit::RateLimited,
        (500, _) => Exit::Internal,
        (502 | 504, Some(_)) => Exit::Backend,
        // A 5xx without our code comes from something in between.
        _ => Exit::Unreachable,
    };
    let Some(code) = member("code") else {
        let message = format!("the answer has status {}, and is not a broker's", status.as_u16());
        return Failure::new(exit, message);
    };
    let mut message = format!(
        "{}: {} ({})",
        shown(member("title").unwrap_or("refused")),
        shown(member("detail").unwrap_or_default()),
        shown(code)
    );
    for id in ["decision_id", "request_id"] {
        if let Some(text) = member(id) {
            message.push_str(&format!("\n  {id}: {}", shown(text)));
        }
    }
    let failed_claims = document.get("failed_claims").and_then(Value::as_array).into_iter().flatten();
    let problem = Problem {
        code: code.to_owned(),
        decision: member("decision_id").map(shown),
        failed_claims: failed_claims.filter_map(Value::as_str).map(shown).collect(),
    };
    Failure { problem: Some(Box::new(problem)), ..Failure::new(exit, message) }
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
        let failure = refusal(StatusCode::from_u16(status).unwrap(), &body);
        (failure.exit.code(), failure.problem.map(|problem| problem.code))
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
            "",
            "http://hallpass.example.com",
            "http://10.0.0.1",
            "hallpass",
            "ftp://x",
            "https://u@x",
            "https://x?y",
        ] {
            assert_eq!(base(bad).unwrap_err().exit, Exit::Usage, "{bad}");
        }
        assert!(base("").unwrap_err().message.contains("set HALLPASS_URL"));
    }

    #[test]
    fn control_characters_of_an_answer_never_reach_the_terminal() {
        assert_eq!(shown("a\u{1b}[2Jb"), "a\u{fffd}[2Jb");
        let body =
            Secret::from_text("{\"title\":\"a\\u001b[2J\",\"detail\":\"\\n\",\"code\":\"x\\r\"}".to_owned());
        let message = refusal(StatusCode::FORBIDDEN, &body).message;
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}
