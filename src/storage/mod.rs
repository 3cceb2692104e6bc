//! Named byte objects: what every backend offers, its layers, and the suite that each must pass in its real home.
//!
//! A store is a flat set of names (`[a-z0-9._-]` with `/` between parts). Storage does not know what the bytes mean, and
//! nothing here retries, decides or interprets. Deliberately absent: a log, a segment, a manifest.

mod backend;

use bytes::Bytes;

use crate::base::Result;
use crate::platform::{MaybeSend, MaybeSync, Task};

/// A name and its length in bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The name, whole.
    pub name: String,
    /// Its length.
    pub len: u64,
}

/// Where bytes live.
///
/// Implementers promise, callers may assume:
/// - one owner: opening a store that another process, tab or handle has open fails with `Locked`;
/// - what `put` or `sync` acknowledged survives a crash of the process and, where the host can do it, of the machine;
/// - what was not acknowledged may be there wholly, partly (a prefix, or bytes never written read as anything) or not at all;
/// - an operation that fails leaves what was acknowledged before as it was; a failed `append` may leave part of its bytes
///   at the end, which the caller cuts with `truncate`;
/// - `StorageFull` when there is no room, `NotFound` for a name that is not there, `Corrupt` for a range past the end;
/// - operations on different names may run at once; on one name the caller waits for each.
pub trait Storage: MaybeSend + MaybeSync {
    /// The names that start with `prefix`, ascending, with their lengths.
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>>;

    /// The `len` bytes of `name` from `offset`.
    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>>;

    /// The whole of `name`.
    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>>;

    /// Creates `name` with `bytes`, durably; `AlreadyExists` when it is there (its bytes are left as they are).
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>>;

    /// Adds `bytes` at the end of `name`, creating it when needed. Durable only after `sync`.
    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>>;

    /// Makes all appended bytes of `name`, and its existence, durable.
    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>>;

    /// Cuts `name` to `len` bytes, durably. `InvalidArgument` when it is shorter.
    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>>;

    /// Removes `name`; a name that is not there is no error.
    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>>;

    /// Gives up ownership; every later call fails with `Closed`. Idempotent.
    fn close(&self) -> Task<'_, Result<()>>;
}
