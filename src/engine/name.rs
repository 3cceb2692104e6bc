//! The names under which a store's bytes lie. Numbers are padded so that names sort as numbers do.

use super::FileEntry;
use crate::base::{CollectionId, ReplicaId, SegmentId};

/// The prefix of all manifests.
pub const MANIFESTS: &str = "manifest/";

/// The prefix of their copies.
pub const COPIES: &str = "manifest-copy/";

/// The prefix of everything of pipelines.
pub const PIPELINES: &str = "pipeline/";

/// The prefix of everything of push streams.
pub const PUSH_STREAMS: &str = "stream/";

/// The prefix of what is stored of the event bus.
pub const BUS: &str = "bus/";

/// The prefix of what tells the collections when no manifest can be read.
pub const OUTLINES: &str = "outline/";

/// The prefix of damaged files that a repair has replaced.
pub const ASIDE: &str = "aside/";

/// Manifest `version`.
pub fn manifest(version: u64) -> String {
    format!("{MANIFESTS}{version:010}")
}

/// The numbers of log files and segments that one owner of the store has before they could be another's.
const NUMBERS_PER_OWNER: u64 = 1 << 16;

/// The first number for log files and segments of the owner that `fence` counts, where `used` is the greatest in use. An owner
/// that has lost the store and does not know it yet writes under other names than the one after it.
pub fn first_of_owner(fence: u64, used: u64) -> u64 {
    fence.max(used / NUMBERS_PER_OWNER + 1).saturating_mul(NUMBERS_PER_OWNER)
}

/// Whether an owner may have begun with this number.
pub fn begins_owner(number: u64) -> bool {
    number.is_multiple_of(NUMBERS_PER_OWNER)
}

/// The least fencing number that an owner may have had who used this number.
pub fn owner_of(number: u64) -> u64 {
    number / NUMBERS_PER_OWNER
}

/// A copy of manifest `version`, which only a repair reads.
pub fn copy(version: u64) -> String {
    format!("{COPIES}{version:010}")
}

/// The outline of manifest `version`: [`Manifest::outline`](super::Manifest::outline).
pub fn outline(version: u64) -> String {
    format!("{OUTLINES}{version:010}")
}

/// Whether `name` is that of a manifest or of a copy of one.
pub fn is_manifest_or_copy(name: &str) -> bool {
    name.starts_with(MANIFESTS) || name.starts_with(COPIES)
}

/// Where a repair that writes manifest `version` keeps a damaged file.
pub fn aside(version: u64, name: &str) -> String {
    format!("{ASIDE}{version:010}/{name}")
}

/// The prefix of everything of a collection.
pub fn collection(id: CollectionId) -> String {
    format!("c{:06}/", id.0)
}

/// The prefix of the log files of a collection.
pub fn logs(id: CollectionId) -> String {
    format!("{}log/", collection(id))
}

/// Log file `number` of a collection.
pub fn log(id: CollectionId, number: u64) -> String {
    format!("{}{number:010}", logs(id))
}

/// The prefix of the segments of a collection that were written here.
pub fn segments(id: CollectionId) -> String {
    format!("{}segment/", collection(id))
}

/// File `file` of a segment.
pub fn segment_file(id: CollectionId, segment: SegmentId, file: &str) -> String {
    format!("{}{:010}/{file}", segments(id), segment.0)
}

/// The prefix of what is kept of a collection's conflicts.
pub fn conflicts(id: CollectionId) -> String {
    format!("{}conflicts-", collection(id))
}

/// File `number` of them.
pub fn conflicts_file(id: CollectionId, number: u64) -> String {
    format!("{}{number:010}", conflicts(id))
}

/// The prefix of the segments of a collection that come from elsewhere, whole or not yet.
pub fn incoming(id: CollectionId) -> String {
    format!("{}incoming/", collection(id))
}

/// The prefix of those that come from `hub`.
pub fn incoming_from(id: CollectionId, hub: ReplicaId) -> String {
    format!("{}{:014x}-", incoming(id), hub.0)
}

/// A file of a segment that comes from `hub`. (A segment never changes, but files of indexes that have grown are added to it.)
pub fn incoming_file(id: CollectionId, hub: ReplicaId, segment: SegmentId, entry: &FileEntry) -> String {
    let base = entry.name.rsplit('/').next().unwrap_or_default();
    format!("{}{}/{base}-{:08x}", incoming_from(id, hub), segment.0, entry.checksum)
}

/// The prefix of everything of a pipeline.
pub fn pipeline(id: u64) -> String {
    format!("{PIPELINES}{id:016x}/")
}

/// Definition `version` of the event bus.
pub fn bus(version: u64) -> String {
    format!("{BUS}{version:010}")
}

/// The prefix of everything of a push stream.
pub fn push_stream(id: u64) -> String {
    format!("{PUSH_STREAMS}{id:016x}/")
}

/// The prefix of the definitions of a push stream.
pub fn push_definitions(id: u64) -> String {
    format!("{}definition/", push_stream(id))
}

/// Definition `version` of a push stream.
pub fn push_definition(id: u64, version: u64) -> String {
    format!("{}{version:010}", push_definitions(id))
}

/// The prefix of the keys of pushes into partitions of a push stream that are there no more.
pub fn push_keys(id: u64) -> String {
    format!("{}keys/", push_stream(id))
}

/// Those of the partitions from number `first` on.
pub fn push_keys_of(id: u64, first: u32) -> String {
    format!("{}{first:010}", push_keys(id))
}

/// The prefix of the rows of a partition of a push stream.
pub fn push_files(id: u64, partition: u32) -> String {
    format!("{}{partition:04}/", push_stream(id))
}

/// The rows of a partition of a push stream from number `first` on.
pub fn push_file(id: u64, partition: u32, first: u64) -> String {
    format!("{}{first:020}", push_files(id, partition))
}

/// The number at the end of a manifest's or log file's name.
pub fn number(name: &str) -> Option<u64> {
    name.rsplit('/').next()?.parse().ok()
}
