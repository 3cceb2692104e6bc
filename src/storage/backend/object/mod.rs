//! A store in a bucket: whole objects, appends as parts, and a lease in place of a lock.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a lease is a matter of time, which this backend reads"
)]

mod lease;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions};

use self::lease::Lease;
use crate::base::{Error, ErrorKind, Result};
use crate::platform::Task;
use crate::storage::name::{already_exists, check_range, closed, must_cut, not_found, too_short};
use crate::storage::{Entry, Storage, check_name};

// Names of objects have no capitals and no `@`, so neither of these can be part of one.
const LEASE: &str = "LEASE";
const PART: char = '@';

/// How many parts of an object are read at once.
const READS_MAX: usize = 16;
/// How long one request may take: a large segment over a slow line.
const TIMEOUT: &str = "300 seconds";

/// A store under a prefix of a bucket: Amazon S3, Azure Blob Storage, Google Cloud Storage and what speaks like them.
///
/// An object that was `put` is an object of the bucket. Appended bytes are kept in memory until `sync`, which puts them as one more
/// object, a part `NAME@OFFSET` with the offset in 16 decimal digits; so a group commit is one put, made on the condition that there is no such
/// object. The owner holds a lease: see the notes on storage. What a bucket lists is read once, at opening.
#[derive(Debug)]
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    lease: Arc<Lease>,
    objects: Mutex<BTreeMap<String, Object>>,
    /// Operations hold it for reading while they run, so `close` waits for them.
    open: async_lock::RwLock<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    offset: u64,
    len: u64,
}

#[derive(Debug, Default)]
struct Object {
    /// What is in the bucket: ascending, without gaps. An object has at least one when it is there at all.
    parts: Vec<Part>,
    /// Appended, and not yet in the bucket.
    pending: BytesMut,
    /// After a failure: what `truncate` must cut to before more is added. A part may be there beyond the last.
    cut_to: Option<u64>,
}

impl Object {
    fn stored_len(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.offset + part.len)
    }

    fn len(&self) -> u64 {
        self.stored_len() + self.pending.len() as u64
    }
}

impl ObjectStorage {
    /// Opens the store at a URL such as `s3://bucket/prefix`, `az://container/prefix` or `gs://bucket/prefix`. Keys and endpoints come
    /// from the environment, by the names that the tools of each provider use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`,
    /// `AZURE_STORAGE_ACCOUNT_NAME`, `GOOGLE_SERVICE_ACCOUNT`, …).
    ///
    /// # Errors
    /// `InvalidArgument` for a URL of another kind, `Locked` while another process holds the lease, `Unavailable` when the bucket does
    /// not answer.
    pub async fn open_url(url: &str) -> Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| {
            Error::invalid(format!(
                "{url:?}: {error}; expected s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX"
            ))
        };
        let parsed = url::Url::parse(url).map_err(|error| wrong(&error))?;
        if !["s3", "s3a", "az", "azure", "abfs", "abfss", "gs", "https"].contains(&parsed.scheme()) {
            return Err(wrong(&format!("no object storage has the scheme {}", parsed.scheme())));
        }
        let options = std::iter::once(("timeout".to_owned(), TIMEOUT.to_owned())).chain(std::env::vars());
        let (store, prefix) = object_store::parse_url_opts(&parsed, options).map_err(|error| wrong(&error))?;
        Self::open(Arc::from(store), prefix.as_ref()).await.map_err(|error| error.context(url))
    }

    /// Opens the store under `prefix` of `store`, which must know conditional puts.
    ///
    /// # Errors
    /// As [`Self::open_url`].
    pub async fn open(store: Arc<dyn ObjectStore>, prefix: &str) -> Result<Self> {
        let prefix = Path::parse(prefix).map_err(|error| Error::invalid(format!("prefix {prefix:?}: {error}")))?;
        let lease = Lease::take(store.clone(), child(&prefix, LEASE)).await?;
        let storage = Self { store, prefix, lease, objects: Mutex::default(), open: async_lock::RwLock::new(true) };
        storage.look_around().await?;
        Ok(storage)
    }

    /// Learns which objects there are. Parts behind a gap were never acknowledged, and are removed.
    async fn look_around(&self) -> Result<()> {
        let mut found: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        let whole = (!self.prefix.is_root()).then_some(&self.prefix);
        let listed: Vec<_> =
            self.store.list(whole).try_collect().await.map_err(|error| failed("list", self.prefix.as_ref(), &error))?;
        for meta in listed {
            let location = meta.location.as_ref();
            let name = location.strip_prefix(self.prefix.as_ref()).unwrap_or(location).trim_start_matches('/');
            let (name, offset) = match name.split_once(PART) {
                None => (name, Some(0)),
                Some((name, offset)) => (name, offset.parse().ok().filter(|offset| *offset > 0)),
            };
            // Foreign objects stay, and are none of ours.
            let Some(offset) = offset.filter(|_| check_name(name).is_ok()) else { continue };
            found.entry(name.to_owned()).or_default().push(Part { offset, len: meta.size });
        }
        for (name, mut parts) in found {
            parts.sort_unstable_by_key(|part| part.offset);
            let mut object = Object::default();
            for part in parts {
                if part.offset == object.stored_len() && (part.offset > 0 || object.parts.is_empty()) {
                    object.parts.push(part);
                } else {
                    self.delete(&name, part.offset).await?;
                }
            }
            if !object.parts.is_empty() {
                self.objects().insert(name, object);
            }
        }
        Ok(())
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        // Nothing that can panic runs while it is locked.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str, offset: u64) -> Path {
        if offset == 0 { child(&self.prefix, name) } else { child(&self.prefix, &format!("{name}{PART}{offset:016}")) }
    }

    async fn delete(&self, name: &str, offset: u64) -> Result<()> {
        match self.store.delete(&self.path(name, offset)).await {
            Err(error) if !matches!(error, StoreError::NotFound { .. }) => Err(failed("remove", name, &error)),
            _ => Ok(()),
        }
    }

    async fn write(&self, operation: &str, name: &str, offset: u64, bytes: Bytes, mode: PutMode) -> Result<()> {
        let path = self.path(name, offset);
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.store.put_opts(&path, bytes.clone().into(), options).await {
            Ok(_) => Ok(()),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                // A put whose answer got lost is tried again by the client, and then finds its own first try.
                let there = self.store.get(&path).await.map_err(|error| failed(operation, name, &error))?;
                let there = there.bytes().await.map_err(|error| failed(operation, name, &error))?;
                if there == bytes { Ok(()) } else { Err(already_exists(name)) }
            }
            Err(error) => Err(failed(operation, name, &error)),
        }
    }

    async fn read_now(&self, name: &str, range: Option<(u64, u64)>) -> Result<Bytes> {
        let (range, parts, pending) = {
            let objects = self.objects();
            let object = objects.get(name).ok_or_else(|| not_found(name))?;
            let (offset, len) = range.unwrap_or((0, object.len()));
            let range = check_range(name, offset, len, object.len())?;
            let overlaps = |part: &&Part| part.offset < range.end && part.offset + part.len > range.start;
            let parts: Vec<Part> = object.parts.iter().filter(overlaps).copied().collect();
            let pending = object.stored_len().max(range.start)..range.end;
            let pending = (!pending.is_empty()).then(|| {
                let at = |place: u64| (place - object.stored_len()) as usize;
                Bytes::copy_from_slice(&object.pending[at(pending.start)..at(pending.end)])
            });
            (range, parts, pending)
        };
        let pieces = stream::iter(parts.into_iter().map(|part| {
            let within =
                range.start.max(part.offset) - part.offset..range.end.min(part.offset + part.len) - part.offset;
            let path = self.path(name, part.offset);
            async move { self.store.get_range(&path, within).await }
        }));
        let pieces: Result<Vec<Bytes>, StoreError> = pieces.buffered(READS_MAX).try_collect().await;
        let mut pieces = pieces.map_err(|error| failed("read", name, &error))?;
        pieces.extend(pending);
        let bytes = if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() };
        check_range(name, 0, range.end - range.start, bytes.len() as u64)?;
        Ok(bytes)
    }

    async fn put_now(&self, name: &str, bytes: Bytes) -> Result<()> {
        if self.objects().contains_key(name) {
            return Err(already_exists(name));
        }
        let len = bytes.len() as u64;
        if let Err(error) = self.write("put", name, 0, bytes, PutMode::Create).await {
            if !matches!(error.kind(), ErrorKind::AlreadyExists) {
                // It may be there all the same, or come later: what is removed now is at least not found by a reader.
                let _ = self.delete(name, 0).await;
            }
            return Err(error);
        }
        let object = Object { parts: vec![Part { offset: 0, len }], ..Object::default() };
        self.objects().insert(name.to_owned(), object);
        Ok(())
    }

    fn append_now(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut objects = self.objects();
        let object = objects.entry(name.to_owned()).or_default();
        match object.cut_to {
            Some(len) => Err(must_cut(name, len)),
            None => {
                object.pending.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    async fn sync_now(&self, name: &str) -> Result<()> {
        let (offset, bytes) = {
            let objects = self.objects();
            let object = objects.get(name).ok_or_else(|| not_found(name))?;
            if let Some(len) = object.cut_to {
                return Err(must_cut(name, len));
            }
            if object.pending.is_empty() && !object.parts.is_empty() {
                return Ok(());
            }
            (object.stored_len(), Bytes::copy_from_slice(&object.pending))
        };
        let len = bytes.len() as u64;
        let mut written = self.write("sync", name, offset, bytes.clone(), PutMode::Create).await;
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists) {
            // Left by a sync that nobody waited for, as long as this is the owner.
            self.lease.renew().await?;
            written = self.write("sync", name, offset, bytes, PutMode::Overwrite).await;
        }
        // What was put before the lease ended the next owner finds; what came later counts for nobody.
        let written = match written {
            Ok(()) => self.lease.check().await,
            failed => failed,
        };
        let mut objects = self.objects();
        let Some(object) = objects.get_mut(name) else { return written };
        match &written {
            Ok(()) => {
                object.parts.push(Part { offset, len });
                let _ = object.pending.split_to(len as usize);
            }
            Err(_) => object.cut_to = Some(offset),
        }
        written
    }

    async fn truncate_now(&self, name: &str, len: u64) -> Result<()> {
        let (parts, stored, cut_to) = {
            let objects = self.objects();
            let object = objects.get(name).ok_or_else(|| not_found(name))?;
            if len > object.len() {
                return Err(too_short(name, len, object.len()));
            }
            (object.parts.clone(), object.stored_len(), object.cut_to)
        };
        if cut_to.is_some() {
            self.delete(name, stored).await?;
        }
        let kept: Vec<Part> = parts.iter().filter(|part| part.offset + part.len <= len).copied().collect();
        let kept_len = kept.last().map_or(0, |part| part.offset + part.len);
        // From the end, so that a crash on the way leaves no gap.
        for part in parts[kept.len()..].iter().rev() {
            if part.offset > 0 && part.offset >= len {
                self.delete(name, part.offset).await?;
            } else {
                let bytes = self.read_now(name, Some((part.offset, len - part.offset))).await?;
                self.write("truncate", name, part.offset, bytes, PutMode::Overwrite).await?;
            }
        }
        let was_cut = {
            let mut objects = self.objects();
            let Some(object) = objects.get_mut(name) else { return Err(not_found(name)) };
            if len < stored {
                object.pending.clear();
                let rest = Part { offset: kept_len, len: len - kept_len };
                object.parts = kept;
                if rest.len > 0 || object.parts.is_empty() {
                    object.parts.push(rest);
                }
            } else {
                object.pending.truncate((len - stored) as usize);
            }
            object.cut_to = object.cut_to.filter(|cut_to| *cut_to < len);
            object.cut_to.is_none()
        };
        if was_cut { self.sync_now(name).await } else { Ok(()) }
    }

    async fn remove_now(&self, name: &str) -> Result<()> {
        let offsets: Vec<u64> = match self.objects().get(name) {
            None => return Ok(()),
            Some(object) => {
                let beyond = object.cut_to.map(|_| object.stored_len());
                object.parts.iter().map(|part| part.offset).chain(beyond).collect()
            }
        };
        for offset in offsets.into_iter().rev() {
            self.delete(name, offset).await?;
        }
        self.objects().remove(name);
        Ok(())
    }

    /// Runs a change of the owner's, which counts only when it still is one afterwards.
    async fn change(&self, name: &str, call: impl Future<Output = Result<()>> + Send) -> Result<()> {
        check_name(name)?;
        let open = self.open.read().await;
        if !*open {
            return Err(closed());
        }
        self.lease.check().await?;
        call.await?;
        self.lease.check().await
    }
}

impl Drop for ObjectStorage {
    fn drop(&mut self) {
        let lease = self.lease.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread {
            tokio::task::block_in_place(|| runtime.block_on(lease.release()));
        } else {
            runtime.spawn(async move { lease.release().await });
        }
    }
}

fn child(prefix: &Path, name: &str) -> Path {
    if prefix.is_root() { Path::from(name) } else { Path::from(format!("{prefix}/{name}")) }
}

/// Says what failed where. What is not known better may be the network, and passes.
fn failed(operation: &str, name: &str, error: &StoreError) -> Error {
    let kind = match error {
        StoreError::NotFound { .. } => ErrorKind::NotFound,
        StoreError::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => ErrorKind::Unsupported,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => ErrorKind::Io,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{operation} {name}: {error}"))
}

impl Storage for ObjectStorage {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>> {
        Box::pin(async move {
            if !*self.open.read().await {
                return Err(closed());
            }
            let objects = self.objects();
            let from_prefix = objects.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            let entries = from_prefix.take_while(|(name, _)| name.starts_with(prefix));
            Ok(entries.map(|(name, object)| Entry { name: name.clone(), len: object.len() }).collect())
        })
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>> {
        Box::pin(async move {
            check_name(name)?;
            let open = self.open.read().await;
            if *open { self.read_now(name, Some((offset, len))).await } else { Err(closed()) }
        })
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>> {
        Box::pin(async move {
            check_name(name)?;
            let open = self.open.read().await;
            if *open { self.read_now(name, None).await } else { Err(closed()) }
        })
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(self.change(name, self.put_now(name, bytes)))
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(self.change(name, async move { self.append_now(name, &bytes) }))
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(self.change(name, self.sync_now(name)))
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>> {
        Box::pin(self.change(name, self.truncate_now(name, len)))
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(self.change(name, self.remove_now(name)))
    }

    fn close(&self) -> Task<'_, Result<()>> {
        Box::pin(async move {
            let mut open = self.open.write().await;
            if !*open {
                return Ok(());
            }
            // What was appended is part of the store for those who look next, as in every other backend.
            let names: Vec<String> = {
                let objects = self.objects();
                let waits = |object: &Object| {
                    object.cut_to.is_none() && (!object.pending.is_empty() || object.parts.is_empty())
                };
                objects.iter().filter(|(_, object)| waits(object)).map(|(name, _)| name.clone()).collect()
            };
            let mut done = self.lease.check().await;
            for name in names {
                if done.is_ok() {
                    done = self.sync_now(&name).await;
                }
            }
            *open = false;
            self.lease.release().await;
            done
        })
    }
}
