//! What happens to a collection, as Server-Sent Events or over a WebSocket.

mod socket;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, Query, RawQuery};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};

use super::App;
use super::caller::Caller;
use super::reply::Failure;
use super::stop::Stop;
use crate::base::{Error, ReplicaId, Result};
use crate::db::{Change, ChangeBatch, ChangeKind, ChangesRequest, Replay, ResumeToken, Since};
use crate::platform::{now_ms, sleep_ms};

/// How long nothing is told before an event without changes is, so that whoever listens knows that the line holds.
const TIMEOUT_MS: u64 = 15_000;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/collections/{name}/changes", get(changes))
        .route("/api/collections/{name}/subscriptions", get(subscriptions))
        .route("/api/collections/{name}/subscriptions/{subscription}", post(acknowledge).delete(unsubscribe))
}

/// Lists are texts with commas between.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChangesQuery {
    since: Option<String>,
    operations: Option<String>,
    filter: Option<String>,
    filter_params: Option<String>,
    key_pattern: Option<String>,
    #[serde(default)]
    before: bool,
    after: Option<bool>,
    output_fields: Option<String>,
    batch_size: Option<usize>,
    batch_timeout_ms: Option<u64>,
    buffer_size: Option<u64>,
    subscription: Option<String>,
    speed: Option<f64>,
    /// How many batches a WebSocket is sent before its client says that it takes more; as many as there are, when it does not say.
    credits: Option<u64>,
}

impl ChangesQuery {
    /// Begins to follow what is asked for.
    async fn follow(self, caller: &Caller, name: &str) -> Result<Line> {
        let timeout_ms = self.batch_timeout_ms.unwrap_or(TIMEOUT_MS);
        let speed = self.speed;
        let request = self.into_request()?;
        // A subscription keeps history for everybody.
        let collection = match &request.subscription {
            Some(_) => caller.admin(name)?.collection(name)?,
            None => caller.read(name)?,
        };
        let stream = collection.changes(request).await?.at_speed(speed)?;
        Ok(Line { stream, timeout_ms, replica: caller.app.db.replica_id(), is_first: true })
    }

    fn into_request(self) -> Result<ChangesRequest> {
        let usual = ChangesRequest::default();
        let list = |text: Option<String>| text.map(|text| text.split(',').map(str::to_owned).collect::<Vec<_>>());
        let operations = list(self.operations).unwrap_or_default();
        let parameters = self.filter_params.as_deref().map(serde_json::from_str).transpose();
        Ok(ChangesRequest {
            since: self.since.map_or(Ok(usual.since), |since| since.parse())?,
            operations: operations.iter().map(|name| ChangeKind::from_name(name)).collect::<Result<_>>()?,
            filter: self.filter,
            filter_params: parameters
                .map_err(|error| Error::invalid(format!("filterParams: {error}")))?
                .unwrap_or_default(),
            key_pattern: self.key_pattern,
            before: self.before,
            after: self.after.unwrap_or(usual.after),
            output_fields: list(self.output_fields),
            batch_size: self.batch_size.unwrap_or(usual.batch_size),
            buffer_size: self.buffer_size.unwrap_or(usual.buffer_size),
            subscription: self.subscription,
        })
    }
}

/// A line of events for as long as the client listens. The id of an event is a token: a client that comes back with the last one that it
/// got, as browsers do by themselves, goes on after it.
async fn changes(
    caller: Caller,
    Path(name): Path<String>,
    Query(mut query): Query<ChangesQuery>,
    RawQuery(asked): RawQuery,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    if headers.get(header::UPGRADE).is_some() {
        return match upgrade {
            Ok(upgrade) => socket::upgraded(upgrade, caller, name, asked.is_some().then_some(query)).await,
            Err(rejection) => Ok(rejection.into_response()),
        };
    }
    if query.credits.is_some() {
        return Err(Error::invalid("\"credits\" are of WebSockets").into());
    }
    if let Some(last) = headers.get("last-event-id").and_then(|last| last.to_str().ok()) {
        query.since = Some(last.to_owned());
    }
    let line = query.follow(&caller, &name).await?;
    let line = Events { line: Some(line), stop: caller.app.stop.clone(), caller };
    let events = futures_util::stream::unfold(line, |mut line| async move {
        let event = line.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), line))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events)).into_response())
}

/// What a client follows.
struct Line {
    stream: Replay,
    timeout_ms: u64,
    replica: ReplicaId,
    is_first: bool,
}

impl Line {
    /// The next batch, once there are changes, and at once when it is the first; or one without changes, when there were none for long. `ends` may
    /// end it while it waits: with an error, or without a batch.
    async fn next(&mut self, ends: impl Future<Output = Option<Error>>) -> Result<Option<ChangeBatch>> {
        let mut ends = std::pin::pin!(ends);
        let quiet_ms = now_ms().saturating_add(self.timeout_ms);
        loop {
            // What was there is read to its end, or not at all: only waiting is given up.
            let now = now_ms();
            let batch = self.stream.ready(now).await?;
            let is_first = std::mem::take(&mut self.is_first);
            if !batch.changes.is_empty() || batch.schema.is_some() || is_first || now >= quiet_ms {
                return Ok(Some(batch));
            }
            let due_ms = self.stream.due_ms();
            if due_ms.is_none() && !batch.is_caught_up {
                continue;
            }
            let left_ms = due_ms.map_or(quiet_ms, |due_ms| due_ms.min(quiet_ms)).saturating_sub(now);
            let moved = async {
                match due_ms {
                    Some(_) => std::future::pending().await,
                    None => self.stream.waits().await,
                }
            };
            tokio::select! {
                moved = moved => moved?,
                () = sleep_ms(left_ms) => {}
                error = &mut ends => return error.map_or(Ok(None), Err),
            }
        }
    }
}

/// Resolves with the error when the caller may not see any more what it asked for, and without one when the server stops.
async fn ended(caller: Caller, mut stop: Stop) -> Option<Error> {
    tokio::select! {
        () = stop.requested() => None,
        error = caller.ends() => Some(error),
    }
}

fn error_as_json(error: &Error) -> JsonValue {
    json!({"kind": error.kind().as_str(), "message": error.message()})
}

/// What a client of Server-Sent Events is told.
struct Events {
    /// None after an error.
    line: Option<Line>,
    stop: Stop,
    caller: Caller,
}

impl Events {
    /// The text of the next event; `None` when there are no more.
    async fn next(&mut self) -> Option<String> {
        let line = self.line.as_mut()?;
        match line.next(ended(self.caller.clone(), self.stop.clone())).await {
            Ok(batch) => batch.map(|batch| {
                let token = batch.token.map(|token| format!("id: {token}\n")).unwrap_or_default();
                format!("{token}event: changes\ndata: {}\n\n", told_as_json(&batch, line.replica))
            }),
            Err(error) => {
                self.line = None;
                Some(format!("event: error\ndata: {}\n\n", json!({"error": error_as_json(&error)})))
            }
        }
    }
}

fn told_as_json(batch: &ChangeBatch, here: ReplicaId) -> JsonValue {
    let change = |(at, change): (usize, &Change)| {
        let mut told = json!({
            "op": change.kind.as_str(),
            "key": change.key,
            "lsn": change.lsn,
            "timestamp": change.version.timestamp.0.to_string(),
            "version": change.version.to_string(),
            "origin": change.version.origin,
            "local": change.version.origin == here,
            "last": batch.changes.get(at + 1).is_none_or(|next| next.lsn != change.lsn),
        });
        if let Some(before) = &change.before {
            told["before"] = json!(before);
        }
        if let Some(after) = &change.after {
            told["after"] = json!(after);
        }
        told
    };
    let changes: Vec<JsonValue> = batch.changes.iter().enumerate().map(change).collect();
    let mut told = json!({"changes": changes, "token": batch.token.map(|token| token.to_string())});
    if let Some(schema) = &batch.schema {
        told["schema"] = json!(&**schema);
    }
    told
}

type Answer = Result<Json<JsonValue>, Failure>;

async fn subscriptions(caller: Caller, Path(name): Path<String>) -> Answer {
    let subscriptions: BTreeMap<String, _> = caller.admin(&name)?.collection(&name)?.subscriptions();
    Ok(Json(json!({ "subscriptions": subscriptions })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcknowledgeBody {
    token: String,
}

/// Notes that all up to a token was done; begins the subscription there when it is not there yet.
async fn acknowledge(
    caller: Caller,
    Path((name, subscription)): Path<(String, String)>,
    Json(body): Json<AcknowledgeBody>,
) -> Answer {
    let token: ResumeToken = body.token.parse()?;
    let collection = caller.admin(&name)?.collection(&name)?;
    if collection.subscriptions().contains_key(&subscription) {
        collection.acknowledge(&subscription, &token).await?;
    } else {
        let since = Since::Token(token);
        let request = ChangesRequest { since, subscription: Some(subscription), ..ChangesRequest::default() };
        collection.changes(request).await?.acknowledge(&token).await?;
    }
    Ok(Json(json!({})))
}

async fn unsubscribe(caller: Caller, Path((name, subscription)): Path<(String, String)>) -> Answer {
    if !caller.admin(&name)?.collection(&name)?.unsubscribe(&subscription).await? {
        return Err(Error::not_found(format!("there is no subscription {subscription:?}")).into());
    }
    Ok(Json(json!({})))
}
