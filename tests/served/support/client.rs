//! A small HTTP client: one connection a request, no proxy, no redirect, and answers that are easy to compare.

use std::net::SocketAddr;

use hallpass::kernel::json::{Bounds, read_strict};
use reqwest::{
    Method,
    header::{HeaderMap, HeaderValue},
};
use serde_json::Value;

use super::{PATIENCE, runtime};

/// Where requests go.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
}

/// One request before it is sent.
pub(crate) struct Call(reqwest::RequestBuilder);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Self { address, client }
    }

    pub(crate) fn call(&self, method: &str, path: &str) -> Call {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        Call(self.client.request(method, format!("http://{}{path}", self.address)))
    }

    pub(crate) fn get(&self, path: &str) -> Call {
        self.call("GET", path)
    }

    /// `POST /v1/exchange` with a JSON body.
    pub(crate) fn exchange(&self, token: &str, body: &Value) -> Answer {
        self.exchanging(token, body).send()
    }

    /// The same, before it is sent.
    pub(crate) fn exchanging(&self, token: &str, body: &Value) -> Call {
        self.call("POST", "/v1/exchange").bearer(token).json(&body.to_string())
    }
}

impl Call {
    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        // From bytes: a text that is no ASCII is sent as it is.
        Self(self.0.header(name, HeaderValue::from_bytes(value.as_bytes()).unwrap()))
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.header("content-type", "application/json").body(body)
    }

    pub(crate) fn body(self, body: &str) -> Self {
        Self(self.0.body(body.to_owned()))
    }

    pub(crate) fn send(self) -> Answer {
        self.try_send().unwrap()
    }

    /// The same where the broker may be gone before its last byte.
    pub(crate) fn try_send(self) -> reqwest::Result<Answer> {
        runtime().block_on(async {
            let response = self.0.send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok(Answer { status, headers, body: response.text().await? })
        })
    }
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        // By our own reader: to serde_json, a member with a name of its own is no member (see `record`).
        let bounds = Bounds { depth: 64, nodes: 1 << 20, string_bytes: 1 << 20 };
        read_strict(self.body.as_bytes(), bounds).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    /// A header's text, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body, after a look at the status.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// The problem document, after a look at all that every problem has in common (RFC 9457).
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, body["code"].as_str()), (status, Some(code)), "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(body["status"], status, "{self:?}");
        for member in ["type", "title", "detail"] {
            assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "no {member}: {self:?}");
        }
        let named =
            [&body["decision_id"], &body["request_id"]].into_iter().filter(|id| id.is_string()).count();
        assert_eq!(named, 1, "one of decision_id and request_id: {self:?}");
        if status == 401 {
            assert!(self.header("www-authenticate").starts_with("Bearer"), "{self:?}");
        }
        if status == 429 || status == 503 {
            let seconds = body["retry_after_seconds"].as_u64().unwrap();
            assert_eq!(self.header("retry-after"), seconds.to_string(), "{self:?}");
        }
        body
    }
}
