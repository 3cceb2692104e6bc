//! Push streams: made, looked at, pushed into, divided anew and dropped.
//!
//! Who pushes is answered when the rows are kept as the stream says: with durability `stored`, when they are synced.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, header};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};

use super::App;
use super::api::{Body, parse};
use super::caller::Caller;
use super::reply::Failure;
use crate::base::{Error, Result};
use crate::db::{PushStream, PushStreamSpec};
use crate::model::Row;
use crate::server::store::off_worker;
use crate::stream::PushKey;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/streams", get(list).post(create))
        .route("/api/streams/{name}", get(describe).post(push).delete(end))
        .route("/api/streams/{name}/partitions", put(rescale))
}

type Answer = Result<Json<JsonValue>, Failure>;

#[derive(Deserialize)]
struct CreateBody {
    name: String,
    #[serde(flatten)]
    spec: JsonValue,
}

async fn list(caller: Caller) -> Answer {
    let streams: Vec<_> = caller.all()?.push_streams().iter().map(|stream| stream.name()).collect();
    Ok(Json(json!({ "streams": streams })))
}

fn told(stream: &PushStream) -> JsonValue {
    let mut told = json!(stream.status());
    told["spec"] = json!(stream.spec());
    told
}

async fn create(caller: Caller, body: Body) -> Answer {
    let db = caller.all()?.clone();
    let CreateBody { name, spec } = parse(body)?;
    let spec: PushStreamSpec =
        serde_json::from_value(spec).map_err(|error| Error::invalid(format!("the stream: {error}")))?;
    let stream = off_worker(async move { db.create_push_stream(&name, spec).await }).await??;
    Ok(Json(told(&stream)))
}

async fn describe(caller: Caller, Path(name): Path<String>) -> Answer {
    Ok(Json(told(&caller.all()?.push_stream(&name)?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RescaleBody {
    partitions: u32,
}

async fn rescale(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let stream = caller.all()?.push_stream(&name)?;
    let RescaleBody { partitions } = parse(body)?;
    let rescaled = stream.clone();
    off_worker(async move { rescaled.rescale(partitions).await }).await??;
    Ok(Json(told(&stream)))
}

async fn end(caller: Caller, Path(name): Path<String>) -> Answer {
    let db = caller.all()?.clone();
    off_worker(async move { db.drop_push_stream(&name).await }).await??;
    Ok(Json(json!({})))
}

/// Rows as a list, or beside others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Rows {
    List(Vec<Row>),
    Object { rows: Vec<Row> },
}

/// By which a push is known when it comes again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyQuery {
    producer: Option<String>,
    sequence: Option<u64>,
}

/// JSON Lines by their content type; otherwise a list of rows, or `{"rows": [...]}`.
async fn push(
    caller: Caller,
    Path(name): Path<String>,
    key: Result<Query<KeyQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let stream = caller.all()?.push_stream(&name)?;
    let Query(key) = key.map_err(|error| Error::invalid(error.body_text()))?;
    let key = match key {
        KeyQuery { producer: Some(producer), sequence: Some(sequence) } => Some(PushKey::new(producer, sequence)?),
        KeyQuery { producer: None, sequence: None } => None,
        _ => return Err(Error::invalid("a push has both producer and sequence, or none of them").into()),
    };
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let rows = match body {
        Ok(bytes) if kind.starts_with("application/x-ndjson") || kind.starts_with("application/jsonl") => {
            let lines =
                bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty());
            let row = |(at, line): (usize, &[u8])| {
                serde_json::from_slice(line).map_err(|error| Error::invalid(format!("line {}: {error}", at + 1)))
            };
            lines.map(row).collect::<Result<Vec<Row>>>()?
        }
        body => match parse(body)? {
            Rows::List(rows) | Rows::Object { rows } => rows,
        },
    };
    let answer = off_worker(async move {
        match key {
            Some(key) => stream.push_once(rows, key).await,
            None => stream.push(rows).await,
        }
    });
    let answer = answer.await??;
    let refused: Vec<_> =
        answer.refused.iter().map(|(number, reason)| json!({"row": number, "reason": reason})).collect();
    let mut told = json!({"accepted": answer.accepted, "refused": refused});
    if !answer.near.is_empty() {
        told["near"] = json!(answer.near);
    }
    if answer.repeated {
        told["repeated"] = json!(true);
    }
    Ok(Json(told))
}
