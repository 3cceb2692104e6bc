//! The event bus: configured, looked at, published to, and its replays.
//!
//! A bus reads and writes collections by name: whoever may do everything may have one.

use std::sync::Arc;

use axum::extract::Path;
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};

use super::App;
use super::api::{Body, parse};
use super::caller::Caller;
use super::reply::Failure;
use crate::base::Error;
use crate::db::{Db, Published, ReplayRequest};
use crate::server::store::off_worker;
use crate::stream::bus::BusSpec;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/bus", get(describe).put(configure))
        .route("/api/bus/events/{source}", post(publish))
        .route("/api/bus/replays", post(replay))
        .route("/api/bus/replays/{id}", delete(cancel))
}

type Answer = Result<Json<JsonValue>, Failure>;

fn told(db: &Db) -> JsonValue {
    let bus = db.bus();
    let mut told = json!(bus.status());
    told["spec"] = json!(bus.spec());
    told
}

async fn describe(caller: Caller) -> Answer {
    Ok(Json(told(caller.all()?)))
}

async fn configure(caller: Caller, body: Body) -> Answer {
    let db = caller.all()?.clone();
    let bytes = body.map_err(|rejection| {
        Failure(rejection.status(), Error::invalid(format!("the request's body: {}", rejection.body_text())))
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|error| Error::invalid(format!("the request's body: {error}")))?;
    let (spec, bus) = (BusSpec::from_json(text)?, db.bus());
    off_worker(async move { bus.configure(spec).await }).await??;
    Ok(Json(told(&db)))
}

/// Events as a list, or beside others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Events {
    List(Vec<Published>),
    Object { events: Vec<Published> },
}

/// Answered when the events are in the queues of their handlers: they are in memory alone.
async fn publish(caller: Caller, Path(source): Path<String>, body: Body) -> Answer {
    let bus = caller.all()?.bus();
    let (Events::List(events) | Events::Object { events }) = parse(body)?;
    let handlers = off_worker(async move { bus.publish(&source, events).await }).await??;
    Ok(Json(json!({ "handlers": handlers })))
}

async fn replay(caller: Caller, body: Body) -> Answer {
    let bus = caller.all()?.bus();
    let request: ReplayRequest = parse(body)?;
    let id = off_worker(async move { bus.replay(request).await }).await??;
    Ok(Json(json!({ "id": id })))
}

async fn cancel(caller: Caller, Path(id): Path<u64>) -> Answer {
    Ok(Json(json!({ "cancelled": caller.all()?.bus().cancel_replay(id) })))
}
