//! The hub that this server is a client of: how that stands, and comparing with it.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Map, Value as JsonValue, json};

use super::App;
use super::api::{Body, parse};
use super::caller::Caller;
use super::reply::Failure;
use crate::base::{Error, Result};
use crate::db::{SyncSession, SyncStatus};
use crate::server::store::off_worker;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/api/upstream", get(describe)).route("/api/upstream/reconcile", post(reconcile))
}

type Answer = Result<Json<JsonValue>, Failure>;

fn session(app: &App, caller: &Caller) -> Result<SyncSession> {
    caller.all()?;
    let session = app.upstream.clone();
    session
        .ok_or_else(|| Error::not_found("this server is no client of another one: it was started without --upstream"))
}

async fn describe(State(app): State<Arc<App>>, caller: Caller) -> Answer {
    Ok(Json(told(&session(&app, &caller)?.status())))
}

fn told(status: &SyncStatus) -> JsonValue {
    let error = |error: &Error| json!({"kind": error.kind().as_str(), "message": error.message()});
    let refusals = status.refusals.iter();
    json!({
        "state": status.state.as_str(),
        "url": status.url,
        "pending": status.pending,
        "error": status.error.as_ref().map(error),
        "lastSyncedAt": status.last_synced_ms,
        "download": status.download.map(|download| json!({"done": download.done, "total": download.total})),
        "refusals": refusals
            .map(|refusal| json!({"collection": refusal.collection, "error": error(&refusal.error)}))
            .collect::<Vec<_>>(),
    })
}

/// Which collections are to be compared.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ReconcileBody {
    collections: Option<Vec<String>>,
}

async fn reconcile(State(app): State<Arc<App>>, caller: Caller, body: Body) -> Answer {
    let session = session(&app, &caller)?;
    let ReconcileBody { collections } = parse(body)?;
    let changed = off_worker(async move { session.reconcile(collections.as_deref()).await }).await??;
    let changed = changed.into_iter().map(|(name, done)| (name, json!({"sent": done.sent, "received": done.received})));
    Ok(Json(json!({"collections": changed.collect::<Map<_, _>>()})))
}
