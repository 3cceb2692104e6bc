//! The names under which a store's bytes lie. Numbers are padded so that names sort as numbers do.

use crate::base::{CollectionId, SegmentId};

/// The prefix of all manifests.
pub const MANIFESTS: &str = "manifest/";

/// Manifest `version`.
pub fn manifest(version: u64) -> String {
    format!("{MANIFESTS}{version:010}")
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

/// File `file` of a segment.
pub fn segment_file(id: CollectionId, segment: SegmentId, file: &str) -> String {
    format!("{}segment/{:010}/{file}", collection(id), segment.0)
}

/// The number at the end of a manifest's or log file's name.
pub fn number(name: &str) -> Option<u64> {
    name.rsplit('/').next()?.parse().ok()
}
