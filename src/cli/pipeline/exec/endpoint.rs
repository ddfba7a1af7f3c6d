//! Hands an AWS access key to AWS's SDKs over loopback, so that they ask again before it ends.
//!
//! Source: AWS SDKs and Tools Reference Guide, "Container credential provider": plain HTTP is for loopback, the token
//! of the file stands in `Authorization` as it is.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::super::{
    super::exit::{Exit, Failure},
    aws::{self, AccessKey},
};
use crate::{
    broker::ambient::{Clock, Entropy},
    kernel::{id::crockford, secret::Secret},
};

/// An endpoint of one access key, before it is served.
pub(super) struct Endpoint {
    listener: TcpListener,
    key: Arc<Key>,
}

/// The key that is handed out now, and who may have it.
pub(super) struct Key {
    token: Secret,
    handed_out: ArcSwap<HandedOut>,
}

/// It may hold secrets, so it has no `Debug`.
#[derive(Default)]
struct HandedOut {
    document: Map<String, Value>,
    /// When it is to be asked for again, and when it ends; `None` where it has no end.
    term: Option<(Timestamp, Timestamp)>,
}

/// For how long a key without an end is good before it is to be asked for again.
const AGAIN_SECONDS: i64 = 3_600;

/// Where the SDKs ask.
const PATH: &str = "/credentials";

impl Endpoint {
    /// Opens a port that the system chooses.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where there is none.
    pub(super) fn open() -> Result<Self, Failure> {
        let refused = |fault| Failure::new(Exit::Internal, format!("no port on loopback: {fault}"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let token = Secret::from_text(crockford(&Entropy::Os.bytes::<30>()?));
        let handed_out = ArcSwap::from_pointee(HandedOut::default());
        Ok(Self { listener, key: Arc::new(Key { token, handed_out }) })
    }

    /// Where it is.
    ///
    /// # Errors
    ///
    /// [`Exit::Internal`] where the system does not say.
    pub(super) fn url(&self) -> Result<String, Failure> {
        let address: SocketAddr = self
            .listener
            .local_addr()
            .map_err(|fault| Failure::new(Exit::Internal, format!("no port on loopback: {fault}")))?;
        Ok(format!("http://{address}{PATH}"))
    }

    /// The key's place.
    pub(super) fn key(&self) -> Arc<Key> {
        Arc::clone(&self.key)
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self) -> std::io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let router = Router::new().route(PATH, get(answer)).with_state(self.key);
        axum::serve(listener, router).await
    }
}

impl Key {
    /// What a caller must show.
    pub(super) fn token(&self) -> &Secret {
        &self.token
    }

    /// Hands out this key from now on. `term` is when it is to be asked for again, and when it ends.
    ///
    /// # Errors
    ///
    /// [`Exit::Unreachable`] for a key that is no text.
    pub(super) fn set(
        &self,
        key: &AccessKey<'_>,
        term: Option<(Timestamp, Timestamp)>,
    ) -> Result<(), Failure> {
        let document = key
            .document("Token")
            .ok_or_else(|| Failure::new(Exit::Unreachable, "the access key is no text"))?;
        self.handed_out.store(Arc::new(HandedOut { document, term }));
        Ok(())
    }

    /// The answer at this moment. Past the moment to ask again there was no new key: then the true end is told, since
    /// SDKs refuse a key that ended.
    fn answer(&self, now: Timestamp) -> Secret {
        let handed_out = self.handed_out.load();
        let again = now.checked_add(SignedDuration::from_secs(AGAIN_SECONDS)).unwrap_or(now);
        let expiration = handed_out.term.map_or(again, |(until, end)| if now < until { until } else { end });
        let mut document = handed_out.document.clone();
        document.insert("Expiration".to_owned(), aws::time(expiration).into());
        Secret::from_text(Value::from(document).to_string())
    }
}

async fn answer(State(key): State<Arc<Key>>, headers: HeaderMap) -> Response {
    let shown = headers.get(header::AUTHORIZATION).map(|value| Secret::new(value.as_bytes().to_vec()));
    // `Secret` compares in time that depends on the lengths only.
    if shown.is_none_or(|shown| shown != key.token) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from(key.answer(Clock::System.now()).expose().to_vec())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expiration(key: &Key, now: &str) -> String {
        let answer: Value = serde_json::from_slice(key.answer(now.parse().unwrap()).expose()).unwrap();
        answer["Expiration"].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_end_that_is_told_is_the_one_to_act_upon() {
        let endpoint = Endpoint::open().unwrap();
        let key = endpoint.key();
        let [id, secret] = ["AKIA", "s"].map(|text| Secret::from_text(text.to_owned()));
        let access_key = AccessKey { id: &id, secret: &secret, session: None };
        let moments = ("2027-01-13T10:50:00.7Z".parse().unwrap(), "2027-01-13T11:00:00Z".parse().unwrap());

        key.set(&access_key, Some(moments)).unwrap();
        assert_eq!(expiration(&key, "2027-01-13T10:00:00Z"), "2027-01-13T10:50:00Z");
        assert_eq!(expiration(&key, "2027-01-13T10:51:00Z"), "2027-01-13T11:00:00Z", "no other one came");

        key.set(&access_key, None).unwrap();
        assert_eq!(expiration(&key, "2027-01-13T10:00:00Z"), "2027-01-13T11:00:00Z", "asked again each hour");
    }
}
