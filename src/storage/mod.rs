//! Named byte objects: what every backend offers, and the suite that each must pass in its real home.
//!
//! A store is a flat set of names; see [`check_name`]. Storage does not know what the bytes mean, and nothing here retries,
//! decides or interprets. Deliberately absent: a log, a segment, a manifest, and rewriting bytes in place.
#![doc = include_str!("../docs/storage.md")]

mod backend;
pub mod conformance;
mod name;

use bytes::Bytes;

#[cfg(native)]
pub use backend::FileStorage;
#[cfg(all(native, feature = "object-store"))]
pub use backend::ObjectStorage;
#[cfg(browser)]
pub use backend::{DirectoryStorage, ForeignStorage};
pub use backend::{FaultStorage, MemoryDisk, MemoryStorage, Operation};
pub use name::{NAME_LEN_MAX, check_name};

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
/// - **One owner.** Opening a store that another process, tab or handle has open fails with `Locked`, until that one is
///   closed, dropped or dead.
/// - **Fenced.** Should another owner have taken over all the same (a network file system, a machine that slept), `put`, `append`,
///   `sync`, `truncate` and `remove` fail with `Locked` from then on, and what they acknowledged before is there for the new owner.
/// - **Acknowledged is durable.** What `put`, `sync` or `truncate` acknowledged survives a crash of the process and, where
///   the host can do it, of the machine.
/// - **Unacknowledged is anything.** After a crash an object whose `put` did not return may be there wholly, partly or not at
///   all; bytes that were appended and not synced may be there, be missing from some point on, or read as anything, and so
///   may the object itself when no `sync` followed its creation; a name removed may be there again. Bytes found after
///   a reopen and covered by no `sync` may still be lost at the next crash: `sync` before building on them.
/// - **A failure spoils nothing acknowledged.** A failed `put` leaves no object. A failed `append` may leave part of its
///   bytes, a failed `sync` leaves unknown what was added since the last one, a failed `truncate` leaves either length:
///   after each of them `append` and `sync` of that name fail with `Io` until `truncate` has cut it to what is certain
///   (before a failed `append`: the length before it; before a failed `sync`: the length last synced, or found at opening).
/// - **Kinds.** `StorageFull` when there is no room, `NotFound` for a name that is not there, `Corrupt` for a range past the
///   end, `InvalidArgument` for a name that [`check_name`] refuses, `Closed` after `close`.
/// - **Order.** Operations on different names may run at once, and so may reads of one name; otherwise the caller waits for
///   each operation on a name before the next. An operation whose future is dropped counts as unacknowledged.
pub trait Storage: MaybeSend + MaybeSync {
    /// The names that start with `prefix` (any text, not only whole parts), ascending by bytes, with their lengths.
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>>;

    /// The `len` bytes of `name` from `offset`. Nothing is allocated before the range is known to be there.
    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>>;

    /// The whole of `name`.
    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>>;

    /// Creates `name` with `bytes`, durably; `AlreadyExists` when it is there (its bytes are left as they are).
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>>;

    /// Adds `bytes` at the end of `name`, creating it when needed (with no bytes too). Durable only after `sync`; reads see
    /// it at once.
    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>>;

    /// Makes all bytes of `name`, and its existence, durable.
    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>>;

    /// [`Self::append`], then [`Self::sync`]: in one go, where each call has its price. Outside is what the first would have said, inside
    /// what the second. For what grows by little many times: after a crash zeros may follow what was added, for which an implementer may have
    /// made room in advance.
    fn append_and_sync<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<Result<()>>> {
        Box::pin(async move {
            self.append(name, bytes).await?;
            Ok(self.sync(name).await)
        })
    }

    /// Cuts `name` to `len` bytes and makes what remains durable. `InvalidArgument` when it is shorter.
    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>>;

    /// Removes `name`; a name that is not there is no error.
    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>>;

    /// Gives up ownership, once running operations have ended; every later call fails with `Closed`. Idempotent. It
    /// does not sync.
    fn close(&self) -> Task<'_, Result<()>>;
}
