//! `POST /v1/token`: the exchange for those who speak OAuth (RFC 8693). One grant, one credential, one secret; the
//! request is a form, the token stands in its body, refusals are told in OAuth's words.
//!
//! Parameters that are not ours are ignored (RFC 6749 section 3.2): libraries send `client_id` to everybody. What
//! would change the meaning and is not supported (`resource`, `actor_token`, a client's own authentication) is refused,
//! so that nobody believes it was heeded.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    middleware::{self, Next},
    response::Response,
    routing::MethodRouter,
};
use http::header;
use serde_json::json;

use super::{
    Floor,
    answer::{self, Json},
    bearer,
    carrier::Stay,
    intake,
    layers::Decided,
    parcel::Parcel,
    problem::{InOauth, Problem, UNSUPPORTED_GRANT_TYPE},
    wire,
};
use crate::{
    broker::{
        error::{Code, Refused},
        exchange::{Ask, Delivered, Exchanged, Outcome, Room, TokenType},
        identify::Origin,
    },
    kernel::{
        name::is_name,
        policy::decide::{GrantRequest, Request as Wanted},
        secret::Secret,
    },
};

/// The path; every request to it carries a token in its body (P5).
pub(super) const PATH: &str = "/v1/token";

/// Has refusals of these routes told in OAuth's words, those of the gate before them included.
pub(super) fn speak_oauth(routes: MethodRouter<Arc<Floor>>) -> MethodRouter<Arc<Floor>> {
    async fn mark(request: Request, next: Next) -> Response {
        let mut response = next.run(request).await;
        response.extensions_mut().insert(InOauth);
        response
    }
    routes.layer(middleware::from_fn(mark))
}

pub(super) async fn exchange(
    State(floor): State<Arc<Floor>>,
    Extension(origin): Extension<Origin>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = intake::read_body(body).await?;
    intake::require_form(&parts.headers)?;
    bearer::refuse_query(&parts.uri)?;
    if parts.headers.remove(header::AUTHORIZATION).is_some() {
        return Err(malformed(
            "send no Authorization header here; the token is the parameter `subject_token`",
        ));
    }
    let mut form = Form::read(&body)?;
    let token = form.subject_token()?;
    let caller = floor.broker.identify(token, origin).await?;
    let ask = Ask {
        request: Wanted { grants: vec![form.grant()?] },
        reason: None,
        dry_run: false,
        inputs: Vec::new(),
        retry: wire::read_retry_key(&parts.headers, ROUTE, &body)?,
        room: Room::OneToken(form.requested_type()?),
    };
    drop(body);
    let stay = parts.extensions.remove::<Arc<Stay>>();
    match floor.broker.exchange(caller, ask).await? {
        Outcome::Issued(exchanged) => deliver(exchanged, stay),
        Outcome::DryRun(_) => Err(Problem::new(Code::Internal, "nobody asked for a dry run")),
    }
}

fn deliver(exchanged: Exchanged, stay: Option<Arc<Stay>>) -> Result<Response, Problem> {
    let Exchanged { decision, issuances, deadline, delivery, .. } = exchanged;
    let bytes = issuances.first().and_then(written).ok_or_else(|| {
        let detail = "the credential holds bytes that are no text, so it was not delivered";
        Problem::from(Refused::new(Code::BackendFailed, detail).of(decision))
    })?;
    // The secret's own buffer is wiped before the first byte leaves.
    drop(issuances);
    let parcel = Parcel::new(bytes, stay, Box::new(|| delivery.confirm())).until(deadline);
    let mut response = answer::json_body(Body::new(parcel));
    response.extensions_mut().insert(Decided(decision));
    Ok(response)
}

/// The answer of RFC 8693 section 2.2.1 in one buffer whose capacity is its length; `None` where the secret is not
/// UTF-8.
fn written(issuance: &Delivered) -> Option<Secret> {
    let token = issuance.fields.iter().find(|field| field.is_secret)?.value.expose_text()?;
    let write = |json: &mut Json<'_>| {
        json.raw(r#"{"access_token":"#);
        json.text(token);
        json.raw(r#","issued_token_type":"#);
        json.text(type_uri(TokenType::of(issuance.kind)));
        // Neither a JWT for somebody else nor a password is an access token.
        json.raw(r#","token_type":"N_A""#);
        if let Some(seconds) = issuance.ttl_seconds {
            json.raw(r#","expires_in":"#);
            json.raw(&seconds.to_string());
        }
        json.raw(r#","issuance_id":"#);
        json.text(&issuance.id.to_string());
        json.raw(r#","handle":"#);
        json.text(issuance.handle.expose_text()?);
        json.raw("}");
        Some(())
    };
    let mut bytes = 0;
    write(&mut Json(&mut |part| bytes += part.len()))?;
    let mut buffer = Vec::with_capacity(bytes);
    write(&mut Json(&mut |part| buffer.extend_from_slice(part)))?;
    Some(Secret::new(buffer))
}

/// The parameters of a request, each said once. One without a value counts as absent (RFC 6749 section 3.2).
struct Form(HashMap<String, Secret>);

impl Form {
    fn read(body: &[u8]) -> Result<Self, Problem> {
        let mut form = HashMap::new();
        for (name, value) in form_urlencoded::parse(body) {
            if form.insert(name.into_owned(), Secret::from_text(value.into_owned())).is_some() {
                return Err(malformed("a parameter is repeated; say each once"));
            }
        }
        form.retain(|_, value| !value.is_empty());
        let form = Self(form);
        match form.text("grant_type") {
            Some(GRANT_TYPE) => {}
            Some(_) => {
                let detail = format!("`grant_type` must be {GRANT_TYPE}");
                return Err(malformed(detail).with("error", json!(UNSUPPORTED_GRANT_TYPE)));
            }
            None => return Err(malformed(format!("`grant_type` is missing; it is {GRANT_TYPE}"))),
        }
        match REFUSED.into_iter().find(|(name, _)| form.0.contains_key(*name)) {
            Some((name, why)) => Err(malformed(format!("`{name}` is not taken here; {why}"))),
            None => Ok(form),
        }
    }

    fn subject_token(&mut self) -> Result<Secret, Problem> {
        let kind = self.text("subject_token_type");
        if !kind.is_some_and(|kind| SUBJECT_TOKEN_TYPES.contains(&kind)) {
            return Err(malformed(format!(
                "`subject_token_type` must be {}",
                SUBJECT_TOKEN_TYPES.join(" or ")
            )));
        }
        self.0.remove("subject_token").ok_or_else(|| {
            Problem::new(Code::TokenMissing, "send the CI token as the parameter `subject_token`")
        })
    }

    fn grant(&self) -> Result<GrantRequest, Problem> {
        let name = self.text("audience").filter(|name| is_name(name));
        let name = name.ok_or_else(|| malformed("`audience` must be the name of a grant"))?.to_owned();
        let scope = self.text("scope").map(|scope| scope.split(' ').map(str::to_owned).collect::<Vec<_>>());
        if scope.iter().flatten().any(|credential| !is_name(credential)) {
            return Err(malformed("`scope` must be the name of a credential"));
        }
        Ok(GrantRequest { name, credentials: scope, ttl: None })
    }

    fn requested_type(&self) -> Result<Option<TokenType>, Problem> {
        let Some(wanted) = self.text("requested_token_type") else { return Ok(None) };
        let known = [TokenType::Jwt, TokenType::Secret].into_iter().find(|known| type_uri(*known) == wanted);
        known
            .map(Some)
            .ok_or_else(|| malformed("`requested_token_type` is none that a grant here yields; leave it out"))
    }

    /// A parameter's text. Values come from [`form_urlencoded`], which yields text only.
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Secret::expose_text)
    }
}

fn type_uri(kind: TokenType) -> &'static str {
    match kind {
        TokenType::Jwt => "urn:ietf:params:oauth:token-type:jwt",
        TokenType::Secret => "urn:hallpass:token-type:secret",
    }
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(Code::RequestMalformed, detail)
}

const ROUTE: &str = "POST /v1/token";
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const SUBJECT_TOKEN_TYPES: [&str; 2] =
    ["urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token"];
/// What would change whom the token is for, or who asks.
const REFUSED: [(&str, &str); 5] = [
    ("resource", "name a grant as `audience`"),
    ("actor_token", "a job asks for itself only"),
    ("actor_token_type", "a job asks for itself only"),
    ("client_assertion", "the CI token says who asks"),
    ("client_secret", "the CI token says who asks; treat that secret as leaked"),
];
