//! Where decisions meet IO: the public handles, and the only room that knows both the engine and a storage.
//!
//! A write is validated, stamped, logged, synced, applied, acknowledged, in that order; writes that wait together share one
//! append and one sync. Reads look at memory under a shared lock. Background work (indexing, flushing, merging) is done in
//! bounded steps that the host asks for, so that a page, a worker and a server each decide when.

mod access;
#[cfg(hosted)]
mod adopt;
mod alias;
mod alter;
mod archive;
mod blocks;
#[cfg(feature = "streams")]
mod bus;
mod collection;
mod commit;
#[cfg(hosted)]
mod conflicts;
mod consistency;
mod database;
mod dataset;
mod evaluate;
mod key;
mod log;
mod maintenance;
mod merge;
mod partition;
#[cfg(feature = "streams")]
mod pipeline;
mod progress;
#[cfg(feature = "streams")]
mod push;
mod recovery;
#[cfg(native)]
mod repair;
mod request;
mod search;
mod snapshot;
#[cfg(feature = "streams")]
pub mod source;
mod specs;
mod sql;
mod stream;
#[cfg(hosted)]
mod sync;
mod writer;

pub use crate::engine::{Memory, MergeCounts, MergeKind, MergePolicy};
pub use access::{Access, Action, Admitted, Gate, Grant};
pub use archive::{ArchiveImport, ArchivePieces, StoreSnapshot};
#[cfg(feature = "streams")]
pub use bus::{Bus, BusSourceStatus, BusStatus, Published, ReplayRequest, ReplayState, ReplayStatus};
pub use collection::Collection;
#[cfg(hosted)]
pub use conflicts::Conflict;
pub use consistency::{CONSISTENCY_TIMEOUT_MS, Consistency, SessionToken};
pub use database::{Db, Options};
pub use evaluate::{EvaluateRequest, Evaluation, EvaluationPoint, TuneRequest, Tuning};
#[cfg(feature = "streams")]
pub use pipeline::{
    Checkpoint, Definition, Guarantee, LookupTime, NodeStatus, OnGone, Pipeline, PipelineFunction, PipelineOptions,
    PipelineRows, PipelineSource, PipelineSpec, PipelineState, PipelineStatus, Recovery, RowsPart, SinkWrite,
    SourceStatus, UnreadRow, UnreadStatus,
};
pub use progress::{Work, WorkListener, WorkProgress, Written};
#[cfg(feature = "streams")]
pub use push::{
    NearRow, PastPartitions, PushAnswer, PushDedupe, PushDurability, PushStream, PushStreamDefinition, PushStreamSpec,
    PushStreamStatus, RowCheck,
};
#[cfg(native)]
pub use repair::{Finding, Loss, RepairReport, repair};
pub use request::{
    Bm25Options, CollectionStats, Condition, Durability, Highlight, Hit, HybridRequest, Operation, QueryRequest,
    SearchRequest, SearchResponse, SegmentStates, Target, WriteOptions, WriteRequest, WriteResponse,
};
pub use search::{PoolStats, PoolWorker, QueryIterator, SearchIterator, SearchPool};
pub use snapshot::Snapshot;
pub use sql::{SQL_TIMEOUT_MS, SqlRequest, SqlResponse};
#[cfg(feature = "streams")]
pub use stream::Replay;
pub use stream::{
    Change, ChangeBatch, ChangeKind, ChangeStream, ChangesRequest, Difference, LiveHit, LiveQueries, LiveRequest,
    LiveUpdate, ResumeToken, Since,
};
#[cfg(all(test, native, hosted))]
pub(crate) use sync::testing as sync_testing;
#[cfg(hosted)]
pub use sync::{
    HubFile, Near, Resting, Shape, SyncHub, SyncListener, SyncOptions, SyncSession, SyncState, SyncStatus, TokenSource,
};

#[cfg(test)]
#[cfg(feature = "server")]
mod access_tests;
#[cfg(all(test, native))]
mod fencing;
#[cfg(all(test, feature = "server"))]
mod index_tests;
#[cfg(all(test, feature = "server"))]
mod memory_tests;
#[cfg(all(test, feature = "server"))]
mod merge_sim_tests;
#[cfg(all(test, feature = "server"))]
mod merge_tests;
#[cfg(all(test, feature = "server"))]
mod retry_tests;
#[cfg(all(test, feature = "server"))]
mod sql_tests;
#[cfg(all(test, feature = "server"))]
mod tests;
