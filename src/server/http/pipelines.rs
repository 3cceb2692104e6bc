//! Pipelines: made of SQL or a plan, looked at, paused, resumed and dropped, and their rows for applications.
//!
//! A pipeline reads and writes collections by name: whoever may do everything may have one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};

use super::App;
use super::api::{Body, parse};
use super::caller::Caller;
use super::reply::Failure;
use super::stop::Stop;
use crate::base::{Error, Result};
use crate::db::{
    Pipeline, PipelineOptions, PipelineRows, PipelineSource, PipelineSpec, PipelineState, Recovery, UnreadRow,
};
use crate::query::Parameters;
use crate::server::store::off_worker;
use crate::stream::{Operator, Plan};

/// How many rows an event has at most.
const ROWS_MAX: usize = 1_000;
/// How long a request for rows waits for some, at most.
const WAIT_MS_MAX: u64 = 30_000;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/pipelines", get(list).post(create))
        .route("/api/pipelines/{name}", get(describe).delete(end))
        .route("/api/pipelines/{name}/explain", get(explain))
        .route("/api/pipelines/{name}/pause", post(pause))
        .route("/api/pipelines/{name}/resume", post(resume))
        .route("/api/pipelines/{name}/savepoints", get(savepoints))
        .route("/api/pipelines/{name}/savepoints/{savepoint}", delete(remove_savepoint).post(savepoint))
        .route("/api/pipelines/{name}/rows/{sink}", get(rows))
        .route("/api/pipelines/{name}/unread/{sink}", get(unread).post(acknowledge))
}

type Answer = Result<Json<JsonValue>, Failure>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateBody {
    /// As its first sink's collection, with `None`.
    name: Option<String>,
    /// Whether it is only to be shown.
    #[serde(default)]
    explain: bool,
    sql: Option<String>,
    #[serde(default)]
    params: Parameters,
    plan: Option<Plan>,
    #[serde(default)]
    sources: BTreeMap<String, PipelineSource>,
    #[serde(default)]
    options: PipelineOptions,
}

async fn list(caller: Caller) -> Answer {
    let told = |pipeline: &Pipeline| json!({"name": pipeline.name(), "state": pipeline.state().as_str()});
    let pipelines: Vec<_> = caller.all()?.pipelines().iter().map(told).collect();
    Ok(Json(json!({ "pipelines": pipelines })))
}

async fn create(caller: Caller, body: Body) -> Answer {
    let db = caller.all()?.clone();
    let CreateBody { name, explain, sql, params, plan, sources, options } = parse(body)?;
    let spec = PipelineSpec { sql, params, plan, sources, options };
    if explain || spec.is_explain() {
        return Ok(Json(json!({ "plan": db.explain_pipeline(spec)? })));
    }
    let name = match name {
        Some(name) => name,
        None => {
            let plan = db.plan_pipeline(spec.clone())?;
            let sink = plan.nodes.iter().find_map(|node| match &node.operator {
                Operator::Sink(sink) => sink.collection.clone(),
                _ => None,
            });
            sink.ok_or_else(|| Error::invalid("the pipeline has no name, and no sink of whose collection it could be"))?
        }
    };
    let pipeline = off_worker(async move { db.create_pipeline(&name, spec).await }).await??;
    Ok(Json(told(&pipeline).await))
}

async fn told(pipeline: &Pipeline) -> JsonValue {
    let mut told = json!(pipeline.status().await);
    told["spec"] = json!(pipeline.spec());
    told
}

async fn describe(caller: Caller, Path(name): Path<String>) -> Answer {
    Ok(Json(told(&caller.all()?.pipeline(&name)?).await))
}

async fn explain(caller: Caller, Path(name): Path<String>) -> Answer {
    Ok(Json(json!({ "plan": caller.all()?.pipeline(&name)?.explain().await? })))
}

async fn end(caller: Caller, Path(name): Path<String>) -> Answer {
    caller.all()?.drop_pipeline(&name).await?;
    Ok(Json(json!({})))
}

async fn pause(caller: Caller, Path(name): Path<String>) -> Answer {
    let pipeline = caller.all()?.pipeline(&name)?;
    let paused = pipeline.clone();
    off_worker(async move { paused.pause().await }).await??;
    Ok(Json(told(&pipeline).await))
}

/// Where it goes on: `"latest"`, `"nothing"`, or `{"savepoint": "name"}`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum From {
    #[default]
    Latest,
    Nothing,
    Savepoint(String),
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ResumeBody {
    #[serde(default)]
    from: From,
}

async fn resume(caller: Caller, Path(name): Path<String>, body: Body) -> Answer {
    let pipeline = caller.all()?.pipeline(&name)?;
    let body: ResumeBody = match &body {
        Ok(bytes) if bytes.is_empty() => ResumeBody::default(),
        _ => parse(body)?,
    };
    let from = match body.from {
        From::Latest => Recovery::Latest,
        From::Nothing => Recovery::Nothing,
        From::Savepoint(label) => Recovery::Savepoint(label),
    };
    let resumed = pipeline.clone();
    off_worker(async move { resumed.recover(from).await }).await??;
    Ok(Json(told(&pipeline).await))
}

async fn savepoints(caller: Caller, Path(name): Path<String>) -> Answer {
    Ok(Json(json!({ "savepoints": caller.all()?.pipeline(&name)?.savepoints().await? })))
}

async fn savepoint(caller: Caller, Path((name, label)): Path<(String, String)>) -> Answer {
    let pipeline = caller.all()?.pipeline(&name)?;
    off_worker(async move { pipeline.savepoint(&label).await }).await??;
    Ok(Json(json!({})))
}

async fn remove_savepoint(caller: Caller, Path((name, label)): Path<(String, String)>) -> Answer {
    if !caller.all()?.pipeline(&name)?.remove_savepoint(&label).await? {
        return Err(Error::not_found(format!("there is no savepoint {label:?}")).into());
    }
    Ok(Json(json!({})))
}

/// Which rows: from which number on, at most how many, and how long there may be none.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UnreadQuery {
    from: Option<u64>,
    count: Option<usize>,
    #[serde(default)]
    wait_ms: u64,
}

/// Rows that were not acknowledged, of a sink whose pipeline keeps them.
async fn unread(
    caller: Caller,
    Path((name, sink)): Path<(String, String)>,
    Query(UnreadQuery { from, count, wait_ms }): Query<UnreadQuery>,
) -> Answer {
    let pipeline = caller.all()?.pipeline(&name)?;
    let count = count.unwrap_or(ROWS_MAX).min(ROWS_MAX);
    let mut found = pipeline.unread(&sink, from, count).await?;
    if found.is_empty() && wait_ms > 0 && count > 0 {
        // What was acknowledged before is no reason to wake.
        let status = pipeline.status().await;
        let acknowledged = status.unread.iter().find(|one| one.sink == sink).map_or(0, |one| one.acknowledged);
        let from = from.unwrap_or_default().max(acknowledged);
        let mut stop = caller.app.stop.clone();
        tokio::select! {
            waited = pipeline.wait_for_row(&sink, from) => waited?,
            () = stop.requested() => {}
            () = crate::platform::sleep_ms(wait_ms.min(WAIT_MS_MAX)) => {}
        }
        found = pipeline.unread(&sink, Some(from), count).await?;
    }
    let row = |one: &UnreadRow| {
        let op = if one.taken_back { "delete" } else { "insert" };
        json!({"position": one.position, "op": op, "row": one.row})
    };
    Ok(Json(json!({ "rows": found.iter().map(row).collect::<Vec<_>>() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcknowledgeBody {
    position: u64,
}

/// Notes that all rows up to that number are done: they do not come again.
async fn acknowledge(caller: Caller, Path((name, sink)): Path<(String, String)>, body: Body) -> Answer {
    let pipeline = caller.all()?.pipeline(&name)?;
    let AcknowledgeBody { position } = parse(body)?;
    off_worker(async move { pipeline.acknowledge(&sink, position).await }).await??;
    Ok(Json(json!({})))
}

struct Line {
    /// None after an error.
    rows: Option<PipelineRows>,
    stop: Stop,
    caller: Caller,
    is_first: bool,
}

/// The rows of a sink that is no collection, as Server-Sent Events, for as long as the client listens.
async fn rows(caller: Caller, Path((name, sink)): Path<(String, String)>) -> Result<Response, Failure> {
    let pipeline = caller.all()?.pipeline(&name)?;
    if pipeline.state() == PipelineState::Failed {
        return Err(Error::new(crate::base::ErrorKind::Conflict, format!("pipeline {name:?} has failed")).into());
    }
    let rows = Some(pipeline.rows(&sink)?);
    let line = Line { rows, stop: caller.app.stop.clone(), caller, is_first: true };
    let events = futures_util::stream::unfold(line, |mut line| async move {
        let event = line.event().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), line))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, axum::body::Body::from_stream(events)).into_response())
}

impl Line {
    /// The text of the next event; `None` when there are no more. The first says that it listens from here on.
    async fn event(&mut self) -> Option<String> {
        let rows = self.rows.as_mut()?;
        if std::mem::take(&mut self.is_first) {
            return Some(event("rows", &json!({"rows": []})));
        }
        let (mut stop, caller) = (self.stop.clone(), self.caller.clone());
        let mut ends = std::pin::pin!(caller.ends());
        let told = tokio::select! {
            rows = rows.next(ROWS_MAX) => rows,
            () = stop.requested() => return None,
            error = &mut ends => Err(error),
        };
        match told {
            Ok(rows) => {
                let rows: Vec<_> = rows
                    .iter()
                    .map(|(row, back)| json!({"op": if *back { "delete" } else { "insert" }, "row": row}))
                    .collect();
                Some(event("rows", &json!({ "rows": rows })))
            }
            Err(error) => {
                self.rows = None;
                Some(event("error", &json!({"error": {"kind": error.kind().as_str(), "message": error.message()}})))
            }
        }
    }
}

fn event(kind: &str, data: &JsonValue) -> String {
    format!("event: {kind}\ndata: {data}\n\n")
}
