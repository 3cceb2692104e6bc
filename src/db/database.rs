use std::cmp::Ordering as CmpOrdering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock, Weak};

use super::blocks::{Cache, Loading, cache_share};
use super::log::Log;
use super::progress::{Discarded, WorkListener};
use super::search::{Masks, Pool};
use super::writer::put_fresh;
use super::{Collection, Durability};
use crate::base::compress::Codec;
use crate::base::{CollectionId, Error, ErrorKind, HybridClock, ReplicaId, Result, SegmentId};
use crate::engine::{
    CollectionManifest, CollectionSpec, CollectionState, Manifest, MergeCounts, MergePolicy, Progress, name,
};
use crate::platform;
use crate::storage::Storage;

/// How often removing older manifests is tried again: once that failed, nothing can be acknowledged.
const REMOVALS_MAX: usize = 2;

/// The longest name of a collection, in bytes, as in Milvus.
const NAME_BYTES_MAX: usize = 255;

/// How a store behaves while it is open.
#[derive(Debug, Clone)]
pub struct Options {
    /// When writes are acknowledged, unless a write says otherwise.
    pub durability: Durability,
    /// The bytes of log after which the growing segment is sealed and flushed, the checkpoint from which a restart replays. Writers
    /// wait for the flush at twice that much, so a restart never replays more than that and the batches of one group.
    pub checkpoint_bytes: u64,
    /// How columns of segments are compressed; vectors never are.
    pub codec: Codec,
    /// How long rows that were replaced or deleted can still be read by [`Collection::snapshot_at`], in milliseconds. With 0, the
    /// default, only snapshots that are held keep them.
    pub retention_ms: u64,
    /// How much memory collections may take, about; no limit with `None`. Keys, narrow columns, versions and graphs are always in
    /// memory; wide columns and vectors of flushed segments are as far as there is room, and are read by the block otherwise.
    pub memory_limit_bytes: Option<usize>,
    /// When segments are merged in the background.
    pub merge_policy: MergePolicy,
    /// Where the time and random numbers come from.
    pub environment: platform::Environment,
    /// The number of this replica, 0 to 16,383, for made `int64` keys ([`Collection::make_key`]): a different one for each replica. The
    /// store keeps it; with `None`, it has the one that it was given last.
    pub replica_number: Option<u16>,
    /// How many threads a read may take, in whole segments and queries; all that there are with `None`. Natively only.
    pub threads: Option<usize>,
    /// How long files that are not part of the store any more stay in storage, in milliseconds: for a copy of its directory that is being
    /// made. Whoever reads them here keeps them anyway.
    pub grace_ms: u64,
}

impl Default for Options {
    /// Synced writes, and a checkpoint every 64 MiB: replayed in about half a second, and worth a segment of its own.
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            checkpoint_bytes: 64 << 20,
            codec: Codec::default(),
            retention_ms: 0,
            memory_limit_bytes: None,
            merge_policy: MergePolicy::default(),
            environment: platform::Environment::default(),
            replica_number: None,
            threads: None,
            grace_ms: 0,
        }
    }
}

/// Writes the outline of manifest `version`, then removes those before it.
pub(super) async fn write_outline(storage: &dyn Storage, outline: &Manifest, version: u64) -> Result<()> {
    let path = name::outline(version);
    put_fresh(storage, &path, &outline.encode().into()).await?;
    for entry in storage.list(name::OUTLINES).await? {
        if entry.name != path {
            storage.remove(&entry.name).await?;
        }
    }
    Ok(())
}

/// An open store. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct Db {
    pub(super) inner: Arc<Inner>,
}

/// What all handles of a store share.
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    /// By name, and by alias.
    pub(super) collections: RwLock<BTreeMap<String, Collection>>,
    /// One flush, merge, creation or drop at a time.
    pub(super) maintenance: async_lock::Mutex<()>,
    #[cfg(feature = "streams")]
    pub(super) pipelines: super::pipeline::Pipelines,
    #[cfg(feature = "streams")]
    pub(super) push_streams: super::push::PushStreams,
    #[cfg(feature = "streams")]
    pub(super) bus: super::bus::Buses,
    #[cfg(feature = "streams")]
    pub(super) connectors: super::source::Connectors,
}

/// What a collection needs of its store.
pub(super) struct Shared {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) options: Options,
    pub(super) replica: ReplicaId,
    pub(super) replica_number: Option<u16>,
    pub(super) clock: Mutex<HybridClock>,
    /// The manifest that is in the storage.
    manifest: async_lock::Mutex<Manifest>,
    next_segment: AtomicU64,
    closed: AtomicBool,
    /// Reads since the last step of background work.
    pub(super) calls: AtomicU64,
    /// Files to be removed.
    pub(super) discarded: Mutex<Vec<Discarded>>,
    pub(super) listener: Mutex<Option<Arc<dyn WorkListener>>>,
    /// Blocks that were read.
    pub(super) cache: Mutex<Cache>,
    /// What filters have admitted.
    pub(super) masks: Masks,
    /// Workers that search beside it.
    pub(super) pool: Pool,
    /// What of the limit the cache may take.
    cache_capacity: AtomicUsize,
    /// The sync sessions that run.
    #[cfg(hosted)]
    pub(super) syncs: super::sync::Syncs,
    /// What is on its way into memory.
    pub(super) loading: Mutex<Loading>,
    /// How many snapshots there are, and the files that no manifest names and that wait for their end.
    pub(super) pins: AtomicUsize,
    pub(super) garbage: Mutex<Vec<String>>,
    /// The store whose part this is, once it is open.
    db: OnceLock<Weak<Inner>>,
}

impl Shared {
    pub(super) fn new(storage: Arc<dyn Storage>, mut options: Options, manifest: Manifest, clock: HybridClock) -> Self {
        if let Some(limit) = options.memory_limit_bytes {
            // The growing segment is all in memory, and so is what a flush and a merge hold for a while.
            options.checkpoint_bytes = options.checkpoint_bytes.min(limit as u64 / 8).max(1 << 16);
        }
        let first_cache_capacity = cache_share(options.memory_limit_bytes, 0);
        Self {
            storage,
            options,
            replica: manifest.replica,
            replica_number: manifest.replica_number,
            clock: Mutex::new(clock),
            next_segment: AtomicU64::new(manifest.next_segment.0),
            manifest: async_lock::Mutex::new(manifest),
            closed: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            discarded: Mutex::default(),
            listener: Mutex::default(),
            cache: Mutex::default(),
            masks: Masks::default(),
            #[cfg(hosted)]
            syncs: Default::default(),
            pool: Pool::default(),
            cache_capacity: AtomicUsize::new(first_cache_capacity),
            loading: Mutex::default(),
            pins: AtomicUsize::new(0),
            garbage: Mutex::default(),
            db: OnceLock::new(),
        }
    }

    /// The store, unless its last handle is gone.
    pub(super) fn db(&self) -> Option<Db> {
        Some(Db { inner: self.db.get()?.upgrade()? })
    }

    /// The manifest that is in the storage.
    pub(super) async fn manifest(&self) -> Manifest {
        self.manifest.lock().await.clone()
    }

    /// What was merged of a collection, as far as that is durable.
    pub(super) async fn merge_counts(&self, id: CollectionId) -> MergeCounts {
        self.manifest.lock().await.collection_mut(id).map_or_else(MergeCounts::default, |collection| collection.merges)
    }

    /// Counts what was made durable of segments.
    pub(super) async fn manifest_version(&self) -> u64 {
        self.manifest.lock().await.version
    }

    pub(super) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the store was closed; open it again"));
        }
        Ok(())
    }

    pub(super) fn cache_capacity(&self) -> usize {
        self.cache_capacity.load(Ordering::Relaxed)
    }

    pub(super) fn set_cache_capacity(&self, bytes: usize) {
        self.cache_capacity.store(bytes, Ordering::Relaxed);
        self.cache.lock().expect("no panic while held").shrink(bytes);
    }

    pub(super) fn next_segment(&self) -> SegmentId {
        SegmentId(self.next_segment.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes so many ids of collections that no other will have; tells the first.
    pub(super) async fn reserve_collections(&self, count: usize) -> CollectionId {
        let mut manifest = self.manifest.lock().await;
        let first = manifest.next_collection;
        // Written with the next manifest. After a crash before it no file of theirs is kept.
        (0..count).for_each(|_| manifest.next_collection = manifest.next_collection.next());
        first
    }

    /// Writes the next manifest; only when it is durable does it count.
    pub(super) async fn swap_manifest<T: Send>(
        &self,
        edit: impl FnOnce(&mut Manifest) -> Result<T> + Send,
    ) -> Result<T> {
        let (mut edit, mut value) = (Some(edit), None);
        let mut once = |manifest: &mut Manifest| {
            let edit = edit.take().expect("edited once");
            value = Some(edit(manifest)?);
            Ok(())
        };
        self.swap_edited(&mut once).await?;
        Ok(value.expect("edited"))
    }

    /// The same, of no type: whoever changes a manifest would have a copy of all this.
    async fn swap_edited(&self, edit: &mut (dyn FnMut(&mut Manifest) -> Result<()> + Send)) -> Result<()> {
        let mut current = self.manifest.lock().await;
        let mut next = current.clone();
        edit(&mut next)?;
        next.version += 1;
        next.next_segment = SegmentId(self.next_segment.load(Ordering::Relaxed));
        next.clock = self.clock.lock().expect("no panic while the clock is held").last();
        let path = name::manifest(next.version);
        let lost = |path: &str| {
            Error::new(
                ErrorKind::Locked,
                format!("{path} is there: another owner has taken over this store; open it again"),
            )
        };
        if let Err(error) = self.storage.put(&path, next.encode().into()).await {
            match error.kind() {
                ErrorKind::AlreadyExists => return Err(lost(&path)),
                ErrorKind::Locked => {}
                // What a failed put leaves must not be taken for a manifest at the next open, nor stand in the next one's way.
                _ => self.storage.remove(&path).await?,
            }
            return Err(error);
        }
        // From here on it counts, whatever fails: the files that it names must not be written again.
        let old = std::mem::replace(&mut *current, next);
        let mut tries = 0;
        let newer = loop {
            match self.remove_manifests_before(current.version).await {
                Ok(newer) => break newer,
                Err(error) if tries == REMOVALS_MAX => {
                    // Nothing more may be acknowledged: behind a damaged manifest the older one would count.
                    self.closed.store(true, Ordering::Release);
                    return Err(error.context("manifests before the newest cannot be removed; open the store again"));
                }
                Err(_) => tries += 1,
            }
        };
        if let Some(newer) = newer {
            self.storage.remove(&path).await?;
            return Err(lost(&newer));
        }
        let copy = self.storage.put(&name::copy(current.version), current.encode().into()).await;
        if let Err(error) = copy.and(self.storage.remove(&name::copy(old.version)).await) {
            // The store is as good without it, and the next open makes it anew.
            tracing::warn!("no copy of manifest {} was made: {error}", current.version);
        }
        let outline = current.outline();
        if outline != old.outline()
            && let Err(error) = write_outline(&*self.storage, &outline, current.version).await
        {
            tracing::warn!("no outline of manifest {} was made: {error}", current.version);
        }
        Ok(())
    }

    /// Removes the manifests before `version`; tells one after it, which another owner has written.
    async fn remove_manifests_before(&self, version: u64) -> Result<Option<String>> {
        let mut newer = None;
        for entry in self.storage.list(name::MANIFESTS).await? {
            match name::number(&entry.name).cmp(&Some(version)) {
                CmpOrdering::Less => self.storage.remove(&entry.name).await?,
                CmpOrdering::Equal => {}
                // A new owner begins with the manifest that it finds: it has found this one, or has written a newer one.
                CmpOrdering::Greater => newer = Some(entry.name),
            }
        }
        Ok(newer)
    }
}

impl Db {
    /// Opens the store in `storage`, creating it when empty, and replays its log.
    ///
    /// # Errors
    /// `Corrupt` when bytes are not what was written (file and offset named), `Unsupported` for files of another version,
    /// and whatever the storage says.
    pub async fn open(storage: Arc<dyn Storage>, options: Options) -> Result<Self> {
        if let Some(number) = options.replica_number.filter(|number| *number > super::key::NUMBER_MAX) {
            return Err(Error::invalid(format!(
                "replicaNumber is {number}, but must be 0 to {}",
                super::key::NUMBER_MAX
            )));
        }
        let (shared, mut collections) = super::recovery::open(storage, options).await?;
        for (alias, id) in &shared.manifest.lock().await.aliases {
            if let Some(collection) = collections.values().find(|collection| collection.id() == *id).cloned() {
                collections.insert(alias.clone(), collection);
            }
        }
        let inner = Inner {
            shared: shared.clone(),
            collections: RwLock::new(collections),
            maintenance: async_lock::Mutex::new(()),
            #[cfg(feature = "streams")]
            pipelines: super::pipeline::Pipelines::open(&shared).await?,
            #[cfg(feature = "streams")]
            push_streams: super::push::PushStreams::open(&shared).await?,
            #[cfg(feature = "streams")]
            bus: super::bus::Buses::open(&shared).await?,
            #[cfg(feature = "streams")]
            connectors: Default::default(),
        };
        let inner = Arc::new(inner);
        shared.db.set(Arc::downgrade(&inner)).expect("a store is opened once");
        let db = Self { inner };
        db.fit_cache();
        Ok(db)
    }

    /// This replica's id.
    pub fn replica_id(&self) -> ReplicaId {
        self.inner.shared.replica
    }

    /// Its number, when it was given one: see [`Options::replica_number`].
    pub fn replica_number(&self) -> Option<u16> {
        self.inner.shared.replica_number
    }

    /// Creates a collection, durably.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, `InvalidArgument` for a name that is empty, longer than 255 bytes or has other
    /// characters than letters, digits, `_`, `-` and `.`, or for a spec that [`CollectionSpec::completed`] refuses.
    pub async fn create_collection(&self, name: &str, spec: CollectionSpec) -> Result<Collection> {
        self.inner.shared.check_open()?;
        check_name(name)?;
        let spec = spec.completed()?;
        let db = self.clone();
        let name = name.to_owned();
        platform::run_to_end(async move {
            let _one = db.inner.maintenance.lock().await;
            if db.inner.collections.read().expect("no panic while held").contains_key(&name) {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("collection {name:?} exists already")));
            }
            let shared = &db.inner.shared;
            let progress = Progress::default();
            let id = shared
                .swap_manifest(|manifest| {
                    let id = manifest.next_collection;
                    manifest.next_collection = id.next();
                    manifest.collections.push(CollectionManifest {
                        id,
                        name: name.clone(),
                        spec: spec.clone(),
                        progress: progress.clone(),
                        log_start: 1,
                        segments: Vec::new(),
                        partitions: BTreeSet::new(),
                        merges: MergeCounts::default(),
                    });
                    Ok(id)
                })
                .await?;
            let state = CollectionState::new(spec, shared.next_segment(), progress);
            let log = Log::new(1, BTreeMap::new());
            let collection = Collection::new(shared.clone(), id, &name, state, log, BTreeSet::new());
            db.insert_collection(collection.clone());
            Ok(collection)
        })
        .await
    }

    /// The collection of that name or alias; `NotFound` lists those that exist.
    pub fn collection(&self, name: &str) -> Result<Collection> {
        self.inner.shared.check_open()?;
        let collections = self.inner.collections.read().expect("no panic while held");
        collections.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = collections.keys().map(String::as_str).collect();
            Error::not_found(format!("no collection {name:?}; there are: {}", names.join(", ")))
        })
    }

    pub(super) fn insert_collection(&self, collection: Collection) {
        let name = collection.name().to_owned();
        self.inner.collections.write().expect("no panic while held").insert(name, collection);
        #[cfg(hosted)]
        self.inner.shared.syncs.note_made();
    }

    /// All collections, by name.
    pub fn collections(&self) -> Vec<Collection> {
        let collections = self.inner.collections.read().expect("no panic while held");
        let named = collections.iter().filter(|(name, collection)| *name == collection.name());
        named.map(|(_, collection)| collection.clone()).collect()
    }

    /// Removes a collection with its rows and aliases, durably. `NotFound` when it does not exist, `InvalidArgument` for an alias.
    pub async fn drop_collection(&self, name: &str) -> Result<()> {
        let collection = self.collection(name)?;
        if collection.name() != name {
            return Err(Error::invalid(format!("{name:?} is an alias of collection {:?}", collection.name())));
        }
        let db = self.clone();
        platform::run_to_end(async move {
            let _one = db.inner.maintenance.lock().await;
            let id = collection.id();
            db.inner
                .shared
                .swap_manifest(|manifest| {
                    manifest.collections.retain(|collection| collection.id != id);
                    manifest.aliases.retain(|_, named| *named != id);
                    Ok(())
                })
                .await?;
            let is_another = |_: &String, other: &mut Collection| other.id() != id;
            db.inner.collections.write().expect("no panic while held").retain(is_another);
            collection.end().await;
            // The manifest no longer names them: files that stay after a crash here are swept at the next open.
            let shared = &db.inner.shared;
            for entry in shared.storage.list(&name::collection(id)).await? {
                shared.remove_file(entry.name).await?;
            }
            Ok(())
        })
        .await
    }

    /// The bytes that the store takes in its storage.
    pub async fn storage_bytes(&self) -> Result<u64> {
        self.inner.shared.check_open()?;
        Ok(self.inner.shared.storage.list("").await?.iter().map(|entry| entry.len).sum())
    }

    /// Flushes everything, so that the next open reads instead of replaying, and gives up the storage. Idempotent. When the
    /// flush fails the storage is given up all the same: what was acknowledged is in the log.
    pub async fn close(&self) -> Result<()> {
        if self.inner.shared.check_open().is_err() {
            return Ok(());
        }
        let db = self.clone();
        platform::run_to_end(async move {
            let mut flushed = Ok(());
            for collection in db.collections() {
                flushed = flushed.and(db.flush_collection(&collection).await);
                flushed = flushed.and(db.stop_work(&collection).await);
            }
            flushed = flushed.and(db.inner.shared.remove_discarded(true).await);
            db.inner.shared.closed.store(true, Ordering::Release);
            db.inner.shared.pool.end();
            // Who waits for it to have something to do is told that it never will.
            #[cfg(feature = "streams")]
            db.inner.bus.wake();
            for collection in db.collections() {
                collection.end().await;
            }
            flushed.and(db.inner.shared.storage.close().await)
        })
        .await
    }
}

pub(super) fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        return Err(Error::invalid(format!(
            "collection name {name:?}: expected 1 to {NAME_BYTES_MAX} bytes of letters, digits, '_', '-' and '.'"
        )));
    }
    Ok(())
}
