//! What happens to a collection, as Server-Sent Events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query};
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
use crate::db::{Change, ChangeBatch, ChangeKind, ChangeStream, ChangesRequest, ResumeToken, Since};

/// How long nothing is told before an event without changes is, so that whoever listens knows that the line holds.
const TIMEOUT_MS: u64 = 15_000;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/collections/{name}/changes", get(changes))
        .route("/api/collections/{name}/subscriptions", get(subscriptions))
        .route("/api/collections/{name}/subscriptions/{subscription}", post(acknowledge).delete(unsubscribe))
}

/// Lists are texts with commas between.
#[derive(Deserialize)]
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
}

impl ChangesQuery {
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
    headers: HeaderMap,
) -> Result<Response, Failure> {
    if let Some(last) = headers.get("last-event-id").and_then(|last| last.to_str().ok()) {
        query.since = Some(last.to_owned());
    }
    let timeout = Duration::from_millis(query.batch_timeout_ms.unwrap_or(TIMEOUT_MS));
    let request = query.into_request()?;
    // A subscription keeps history for everybody.
    let collection = match &request.subscription {
        Some(_) => caller.admin(&name)?.collection(&name)?,
        None => caller.read(&name)?,
    };
    let stream = collection.changes(request).await?;
    let line = Line {
        stream: Some(stream),
        timeout,
        replica: caller.app.db.replica_id(),
        stop: caller.app.stop.clone(),
        caller,
        is_first: true,
    };
    let events = futures_util::stream::unfold(line, |mut line| async move {
        let event = line.event().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), line))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(events)).into_response())
}

struct Line {
    /// None after an error.
    stream: Option<ChangeStream>,
    timeout: Duration,
    replica: ReplicaId,
    stop: Stop,
    caller: Caller,
    is_first: bool,
}

impl Line {
    /// The text of the next event; `None` when there are no more.
    async fn event(&mut self) -> Option<String> {
        let stream = self.stream.as_mut()?;
        // What was there is read to its end, or not at all: only waiting is given up.
        let (timeout, mut stop, caller) = (self.timeout, self.stop.clone(), self.caller.clone());
        let mut ends = std::pin::pin!(caller.ends());
        let told = async {
            loop {
                let batch = stream.ready().await?;
                let is_news = !batch.changes.is_empty() || batch.schema.is_some();
                let is_first = std::mem::take(&mut self.is_first);
                if is_news || is_first {
                    return Ok(Some(batch));
                }
                if batch.is_caught_up {
                    tokio::select! {
                        changed = tokio::time::timeout(timeout, stream.waits()) => match changed {
                            Ok(changed) => changed?,
                            Err(_) => return Ok(Some(batch)),
                        },
                        () = stop.requested() => return Ok(None),
                        error = &mut ends => return Err(error),
                    }
                }
            }
        };
        match told.await {
            Ok(batch) => batch.map(|batch| {
                let token = batch.token.map(|token| format!("id: {token}\n")).unwrap_or_default();
                format!("{token}event: changes\ndata: {}\n\n", told_as_json(&batch, self.replica))
            }),
            Err(error) => {
                self.stream = None;
                let error: Error = error;
                let error = json!({"error": {"kind": error.kind().as_str(), "message": error.message()}});
                Some(format!("event: error\ndata: {error}\n\n"))
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
