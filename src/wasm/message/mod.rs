//! What crosses the border to JavaScript, as MessagePack: made for it, and converted here.
//!
//! Maps have camelCase keys; vectors are `bin` of little-endian 32-bit floats, the bytes of a `Float32Array`; an unknown key
//! in a request is refused, so that a misspelt option cannot be ignored. Integers that JavaScript's numbers cannot hold are
//! refused on the way out unless the request says `bigint`.

mod item;
mod request;
mod rows;
mod schema;
#[cfg(feature = "streams")]
mod stream;

pub(super) use request::{ChangesMessage, GetMessage, QueryMessage, SearchMessage, WriteRequestMessage, keys_written};
pub(super) use rows::{ChangesOut, LiveOut, RowsMessage, SearchResponseMessage};
pub(super) use schema::{FieldMessage, IndexMessage, SchemaMessage};
use std::collections::BTreeMap;
#[cfg(feature = "streams")]
pub(super) use stream::{CallOut, SqlMessage, SqlOut, StatusOut, UnreadOut, decode_answers};

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result, map_of, message};
use crate::db::{
    CollectionStats, Durability, Memory, MergeKind, MergePolicy, Options, PoolStats, Shape, SyncOptions, SyncStatus,
    WriteResponse,
};
use crate::model::Key;
use crate::sync::Reconciled;

/// The message in `bytes`; `what` names it in the error.
pub(super) fn decode<'de, T: Deserialize<'de>>(what: &str, bytes: &'de [u8]) -> Result<T> {
    decode_first(what, bytes).map(|(message, _)| message)
}

/// The same, and what comes after it.
pub(super) fn decode_first<'de, T: Deserialize<'de>>(what: &str, bytes: &'de [u8]) -> Result<(T, &'de [u8])> {
    let mut decoder = message::Decoder::<false>::new(bytes);
    match T::deserialize(&mut decoder) {
        Ok(message) => Ok((message, &bytes[decoder.position()..])),
        Err(error) => Err(Error::invalid(format!("{what}: {error}"))),
    }
}

/// The bytes of `message`.
pub(super) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(message).expect("a message of maps, numbers, text and bytes can be encoded")
}

/// What was written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WriteMessage {
    count: f64,
    /// Past 2^53: a `bigint` in JavaScript.
    timestamp: u64,
    version: String,
    session_token: String,
    lsn: f64,
    /// Of the rows, where the collection may have made them.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<Key>>,
}

impl WriteMessage {
    pub(super) fn new(response: &WriteResponse, keys: Option<Vec<Key>>) -> Self {
        Self {
            count: response.count as f64,
            timestamp: response.timestamp.0,
            version: response.version.to_string(),
            session_token: response.session_token().to_string(),
            lsn: response.lsn.0 as f64,
            keys,
        }
    }
}

/// What a store holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DatabaseStatsMessage {
    pub(super) replica_id: f64,
    pub(super) collections: Vec<StatsMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pool: Option<PoolStatsMessage>,
}

/// What the workers beside the engine do.
#[derive(Serialize)]
pub(super) struct PoolStatsMessage {
    workers: f64,
    segments: f64,
    bytes: f64,
    searches: f64,
    failures: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<PoolStats> for PoolStatsMessage {
    fn from(stats: PoolStats) -> Self {
        Self {
            workers: stats.workers as f64,
            segments: stats.segments as f64,
            bytes: stats.bytes as f64,
            searches: stats.searches as f64,
            failures: stats.failures as f64,
            error: stats.error,
        }
    }
}

/// What a collection holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatsMessage {
    name: String,
    rows: f64,
    partitions: BTreeMap<String, f64>,
    rows_dead: f64,
    rows_unindexed: f64,
    segments: f64,
    memory_bytes: f64,
    storage_bytes: f64,
    lsn: f64,
    states: BTreeMap<&'static str, f64>,
    files: BTreeMap<String, f64>,
    written: BTreeMap<&'static str, f64>,
    graphs: BTreeMap<&'static str, f64>,
    results_reused: f64,
    merge_policy: &'static str,
    merges: BTreeMap<&'static str, f64>,
}

/// How a store is opened.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OpenMessage {
    synced: bool,
    retention: f64,
    memory_limit_bytes: Option<f64>,
    codec: String,
    merge_policy: MergeKind,
    replica_number: Option<u16>,
}

impl OpenMessage {
    /// The options meant.
    pub(super) fn into_options(self) -> Result<Options> {
        Ok(Options {
            durability: if self.synced { Durability::Synced } else { Durability::Buffered },
            retention_ms: self.retention as u64,
            memory_limit_bytes: self.memory_limit_bytes.map(|bytes| bytes as usize),
            codec: self.codec.parse()?,
            merge_policy: MergePolicy { kind: self.merge_policy, ..MergePolicy::default() },
            replica_number: self.replica_number,
            ..Options::default()
        })
    }
}

/// What is held in memory, by kind, in bytes.
#[derive(Serialize)]
pub(super) struct MemoryMessage {
    total: f64,
    rows: f64,
    columns: f64,
    vectors: f64,
    indexes: f64,
    keys: f64,
    cache: f64,
    pool: f64,
}

impl From<Memory> for MemoryMessage {
    fn from(memory: Memory) -> Self {
        Self {
            total: memory.total() as f64,
            rows: memory.rows as f64,
            columns: memory.columns as f64,
            vectors: memory.vectors as f64,
            indexes: memory.indexes as f64,
            keys: memory.keys as f64,
            cache: memory.cache as f64,
            pool: memory.pool as f64,
        }
    }
}

impl From<(&str, &CollectionStats)> for StatsMessage {
    fn from((name, stats): (&str, &CollectionStats)) -> Self {
        Self {
            name: name.to_owned(),
            rows: stats.rows as f64,
            partitions: map_of(stats.partitions.iter().map(|(name, rows)| (name.clone(), *rows as f64))),
            rows_dead: stats.rows_dead as f64,
            rows_unindexed: stats.rows_unindexed as f64,
            segments: stats.segments as f64,
            memory_bytes: stats.memory_bytes as f64,
            storage_bytes: stats.storage_bytes as f64,
            lsn: stats.lsn.0 as f64,
            states: map_of([
                ("growing", stats.states.growing as f64),
                ("sealed", stats.states.sealed as f64),
                ("flushed", stats.states.flushed as f64),
                ("compacting", stats.states.compacting as f64),
                ("dropped", stats.states.dropped as f64),
            ]),
            files: map_of(stats.files.iter().map(|(kind, bytes)| (kind.clone(), *bytes as f64))),
            written: map_of([
                ("logged", stats.written.logged as f64),
                ("flushed", stats.written.flushed as f64),
                ("compacted", stats.written.compacted as f64),
            ]),
            graphs: map_of([
                ("rows", stats.graphs.rows as f64),
                ("nodes", stats.graphs.nodes as f64),
                ("dead", stats.graphs.dead as f64),
                ("unreachable", stats.graphs.unreachable as f64),
                ("meanDegree", stats.graphs.mean_degree()),
            ]),
            results_reused: stats.results_reused as f64,
            merge_policy: stats.merge_policy.as_str(),
            merges: map_of([
                ("finished", stats.merges.finished as f64),
                ("rows", stats.merges.rows as f64),
                ("rowsFlushed", stats.merges.rows_flushed as f64),
                ("writeAmplification", stats.merges.write_amplification()),
            ]),
        }
    }
}

/// How a sync stands.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncStatusMessage {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    pending: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_synced_at: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    download: Option<DownloadMessage>,
    refusals: Vec<RefusalMessage>,
}

/// What a comparison has changed.
#[derive(Serialize)]
pub(super) struct ReconciledMessage {
    sent: f64,
    received: f64,
}

impl From<Reconciled> for ReconciledMessage {
    fn from(done: Reconciled) -> Self {
        Self { sent: done.sent as f64, received: done.received as f64 }
    }
}

/// How far a first download is.
#[derive(Serialize)]
struct DownloadMessage {
    done: f64,
    total: f64,
}

#[derive(Serialize)]
struct ErrorMessage {
    kind: &'static str,
    message: String,
}

/// Own changes that the hub refused.
#[derive(Serialize)]
struct RefusalMessage {
    collection: String,
    error: ErrorMessage,
}

impl From<&Error> for ErrorMessage {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind().as_str(), message: error.message().to_owned() }
    }
}

impl From<&SyncStatus> for SyncStatusMessage {
    fn from(status: &SyncStatus) -> Self {
        Self {
            state: status.state.as_str(),
            url: status.url.clone(),
            pending: status.pending as f64,
            error: status.error.as_ref().map(ErrorMessage::from),
            last_synced_at: status.last_synced_ms.map(|ms| ms as f64),
            download: status.download.map(|it| DownloadMessage { done: it.done as f64, total: it.total as f64 }),
            refusals: status
                .refusals
                .iter()
                .map(|refusal| RefusalMessage {
                    collection: refusal.collection.clone(),
                    error: ErrorMessage::from(&refusal.error),
                })
                .collect(),
        }
    }
}

/// What to sync, and with whom.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SyncMessage {
    urls: Vec<String>,
    collections: Vec<String>,
    /// By name, as JSON.
    #[serde(default)]
    shapes: BTreeMap<String, String>,
}

impl SyncMessage {
    pub(super) fn into_options(self) -> Result<SyncOptions> {
        let shape = |(name, text): (String, String)| Ok((name, Shape::from_json(&text)?));
        let shapes = self.shapes.into_iter().map(shape).collect::<Result<_>>()?;
        Ok(SyncOptions { urls: self.urls, collections: self.collections, shapes })
    }
}
