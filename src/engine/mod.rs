//! The collection as a state machine: what a write means, what a flush, a merge and a recovery decide.
//!
//! Nothing here does IO, reads a clock or draws randomness: bytes, positions and times come as arguments, decisions go back
//! as values, and the same calls give the same state on every target. Carrying decisions out is `db`'s work; reading rows by
//! filter or nearness stands on `query`, above.
//!
#![doc = include_str!("../docs/formats.md")]

mod answers;
pub mod archive;
mod changes;
mod collection;
mod compaction;
mod conflict;
mod feed;
mod history;
mod keys;
mod late;
mod manifest;
mod memory;
mod merge_policy;
pub mod name;
mod options;
mod record;
mod spec;

pub use answers::{Answer, Answers, RequestId};
pub use changes::{ChangeSet, KeptPart, Refused, Reshape, SyncPosition, is_eviction};
pub use collection::{CollectionState, Progress, Slot};
pub use compaction::{Budget, Merge, Task, Waiting, choose_budget, choose_task, should_seal};
pub use conflict::{Meeting, Met};
pub use feed::{Fed, Place};
pub use history::{Death, View};
pub use late::Late;
pub use manifest::{Adopted, CollectionManifest, FileEntry, Manifest, SegmentManifest};
pub use memory::{Memory, Movable, choose_move};
pub use merge_policy::{Candidate, MergeCounts, MergeKind, MergePolicy, choose_merge};
pub use options::{CollectionOptions, Growing, SealPolicy, Watch};
pub use record::{PipelineWrite, Record, Source};
pub use spec::CollectionSpec;

pub use crate::base::Version;
