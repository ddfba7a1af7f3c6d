//! `/v1/ledger/*`: entries, proofs and the checkpoint, for auditors; the checkpoint for every role. Each read names
//! its reader to the broker, which records it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Path, Query, Request, State, rejection::PathRejection},
    response::Response,
};
use http::{StatusCode, Uri, request::Parts};
use serde::Serialize;
use serde_json::Value;

use super::{
    Floor, answer, bearer, intake,
    layers::no_such_path,
    problem::Problem,
    roles::{self, Role},
};
use crate::{
    broker::{error::Code, ports::StoredEntry, query::Search},
    kernel::{json::read_bounded, ledger::tiles::Tile},
};

pub(super) async fn search(State(floor): State<Arc<Floor>>, request: Request) -> Result<Response, Problem> {
    let mut parts = head(request)?;
    refuse_token(&parts.uri)?;
    let reader = roles::admit(&floor, &mut parts.headers, Role::Auditor)?;
    let page = floor.broker.search(&reader, read_search(&parts.uri)?).await?;
    let items = page.items.iter().map(view).collect::<Result<_, Problem>>()?;
    answer::json(StatusCode::OK, &Page { items, next_cursor: page.next_cursor })
}

pub(super) async fn entry(
    State(floor): State<Arc<Floor>>,
    index: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parts = head(request)?;
    bearer::refuse_query(&parts.uri)?;
    let reader = roles::admit(&floor, &mut parts.headers, Role::Auditor)?;
    let entry = floor.broker.ledger_entry(&reader, read_index(index)?).await?;
    answer::json(StatusCode::OK, &view(&entry)?)
}

pub(super) async fn proof(
    State(floor): State<Arc<Floor>>,
    index: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parts = head(request)?;
    bearer::refuse_query(&parts.uri)?;
    let reader = roles::admit(&floor, &mut parts.headers, Role::Auditor)?;
    Ok(answer::text(floor.broker.ledger_proof(&reader, read_index(index)?).await?))
}

pub(super) async fn checkpoint(
    State(floor): State<Arc<Floor>>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parts = head(request)?;
    bearer::refuse_query(&parts.uri)?;
    roles::admit(&floor, &mut parts.headers, Role::Viewer)?;
    Ok(answer::text(floor.broker.checkpoint().await?))
}

pub(super) async fn tile(
    State(floor): State<Arc<Floor>>,
    place: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let mut parts = head(request)?;
    bearer::refuse_query(&parts.uri)?;
    let reader = roles::admit(&floor, &mut parts.headers, Role::Auditor)?;
    let tile = place.ok().and_then(|Path(place)| Tile::parse(&format!("tile/{place}")));
    Ok(answer::bytes(floor.broker.ledger_tile(&reader, tile.ok_or_else(no_such_path)?).await?))
}

fn head(request: Request) -> Result<Parts, Problem> {
    let (parts, body) = request.into_parts();
    intake::refuse_declared_size(&body)?;
    Ok(parts)
}

fn refuse_token(uri: &Uri) -> Result<(), Problem> {
    if uri.query().is_some_and(bearer::holds_token) { bearer::refuse_query(uri) } else { Ok(()) }
}

/// Only the digits of an index name an entry; `+1` and `1.0` are paths that do not exist.
fn read_index(index: Result<Path<String>, PathRejection>) -> Result<u64, Problem> {
    let Ok(Path(text)) = index else { return Err(no_such_path()) };
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain).ok_or_else(no_such_path)
}

fn read_search(uri: &Uri) -> Result<Search, Problem> {
    let malformed = |detail: String| Problem::new(Code::RequestMalformed, detail);
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| malformed("the query string cannot be read".to_owned()))?;
    let mut given = BTreeMap::new();
    for (name, value) in pairs {
        let Some(known) = PARAMETERS.iter().find(|known| **known == name) else {
            return Err(malformed(format!("the query takes {} only", PARAMETERS.join(", "))));
        };
        if given.insert(*known, value).is_some() {
            return Err(malformed(format!("`{known}` is given twice")));
        }
    }
    Ok(Search {
        q: given.remove("q"),
        from: given.remove("from"),
        to: given.remove("to"),
        cursor: given.remove("cursor"),
        limit: given.remove("limit"),
    })
}

#[derive(Serialize)]
struct Page<'a> {
    items: Vec<Item<'a>>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct Item<'a> {
    index: u64,
    entry: Value,
    personal: BTreeMap<&'a str, &'a str>,
}

/// An entry as JSON, which for canonical bytes is the same text again; personal values, which only commitments stand
/// for in it, beside it.
fn view(stored: &StoredEntry) -> Result<Item<'_>, Problem> {
    let entry = read_bounded(&stored.bytes).map_err(|_| {
        tracing::error!(index = stored.index, "a stored ledger entry is not JSON");
        Problem::new(Code::Internal, "a stored entry cannot be read; run `hallpass ledger verify`")
    })?;
    let personal = stored.personal.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
    Ok(Item { index: stored.index, entry, personal })
}

const PARAMETERS: [&str; 5] = ["q", "from", "to", "cursor", "limit"];
