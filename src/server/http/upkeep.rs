use std::sync::Arc;

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value as JsonValue, json};

use super::App;
use super::caller::Caller;
use super::reply::Failure;
use crate::base::Result;
use crate::db::{Collection, Db, Memory};
use crate::server::store::off_worker;

type Answer = Result<Json<JsonValue>, Failure>;

/// What looks after a store: what it takes, and work that is done now instead of some time.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/api/memory", get(memory))
        .route("/api/stats", get(stats))
        .route("/api/flush", post(flush))
        .route("/api/compact", post(compact))
        .route("/api/collections/{name}/stats", get(stats_of_one))
        .route("/api/collections/{name}/flush", post(flush_one))
        .route("/api/collections/{name}/compact", post(compact_one))
}

async fn memory(caller: Caller) -> Answer {
    Ok(Json(describe_memory(&caller.all()?.memory())))
}

async fn stats(caller: Caller) -> Answer {
    Ok(Json(describe_stats(caller.all()?, None).await?))
}

async fn stats_of_one(caller: Caller, Path(name): Path<String>) -> Answer {
    Ok(Json(describe_stats(caller.admin(&name)?, Some(&name)).await?))
}

async fn flush(caller: Caller) -> Answer {
    keep_up(&caller, Work::Flush, None).await
}

async fn flush_one(caller: Caller, Path(name): Path<String>) -> Answer {
    keep_up(&caller, Work::Flush, Some(name)).await
}

async fn compact(caller: Caller) -> Answer {
    keep_up(&caller, Work::Compact, None).await
}

async fn compact_one(caller: Caller, Path(name): Path<String>) -> Answer {
    keep_up(&caller, Work::Compact, Some(name)).await
}

async fn keep_up(caller: &Caller, work: Work, collection: Option<String>) -> Answer {
    let db = match &collection {
        Some(name) => caller.admin(name)?,
        None => caller.all()?,
    };
    let db = db.clone();
    off_worker(async move { work.run(&db, collection.as_deref()).await }).await??;
    Ok(Json(json!({})))
}

/// Work that is done on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Work {
    /// [`Db::flush`].
    Flush,
    /// [`Db::compact`].
    Compact,
}

impl Work {
    /// Does it to its end, of one collection or of all.
    pub(in crate::server) async fn run(self, db: &Db, collection: Option<&str>) -> Result<()> {
        match (self, collection) {
            (Self::Flush, Some(name)) => db.flush(name).await,
            (Self::Flush, None) => db.flush_all().await,
            (Self::Compact, Some(name)) => db.compact(name).await,
            (Self::Compact, None) => db.compact_all().await,
        }
    }
}

/// What is held in memory, in bytes.
pub(in crate::server) fn describe_memory(memory: &Memory) -> JsonValue {
    json!({
        "total": memory.total(),
        "rows": memory.rows,
        "columns": memory.columns,
        "vectors": memory.vectors,
        "indexes": memory.indexes,
        "keys": memory.keys,
        "cache": memory.cache,
    })
}

/// What one collection, or each, holds and has written.
pub(in crate::server) async fn describe_stats(db: &Db, collection: Option<&str>) -> Result<JsonValue> {
    let collections = match collection {
        Some(name) => vec![db.collection(name)?],
        None => db.collections(),
    };
    let mut described = Vec::new();
    for collection in &collections {
        described.push(of_collection(collection).await?);
    }
    Ok(json!({ "collections": described, "storageBytes": db.storage_bytes().await? }))
}

async fn of_collection(collection: &Collection) -> Result<JsonValue> {
    let stats = collection.stats().await?;
    let (states, written) = (stats.states, stats.written);
    Ok(json!({
        "name": collection.name(),
        "rows": stats.rows,
        "rowsDead": stats.rows_dead,
        "rowsUnindexed": stats.rows_unindexed,
        "segments": {
            "growing": states.growing,
            "sealed": states.sealed,
            "flushed": states.flushed,
            "compacting": states.compacting,
            "dropped": states.dropped,
        },
        "graphs": {
            "rows": stats.graphs.rows,
            "nodes": stats.graphs.nodes,
            "dead": stats.graphs.dead,
            "unreachable": stats.graphs.unreachable,
            "meanDegree": stats.graphs.mean_degree(),
        },
        "memoryBytes": stats.memory_bytes,
        "storageBytes": stats.storage_bytes,
        "resultsReused": stats.results_reused,
        "files": stats.files,
        "written": { "logged": written.logged, "flushed": written.flushed, "compacted": written.compacted },
        "mergePolicy": stats.merge_policy.as_str(),
        "merges": {
            "finished": stats.merges.finished,
            "rows": stats.merges.rows,
            "rowsFlushed": stats.merges.rows_flushed,
            "writeAmplification": stats.merges.write_amplification(),
        },
    }))
}
