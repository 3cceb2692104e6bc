use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::progress::Work;
use super::recovery::file_entry;
use super::{Collection, Db};
use crate::base::{ErrorKind, Result};
use crate::engine::{FileEntry, Merge, Progress, SegmentManifest, choose_merge, name, should_seal};
use crate::platform;
use crate::segment::{self, FileKind, Segment, SegmentFile};
use crate::storage::Storage;

/// Rows that one step adds to a graph: a few milliseconds, for searches wait for it.
const INDEX_ROWS: usize = 16;
/// Progress is told about this often.
const TOLD_ROWS: usize = 1_024;
/// An idle store flushes when a restart would replay this much log.
const IDLE_LOG_BYTES: u64 = 4 << 20;

impl Db {
    /// One bounded step of background work (indexing some rows, flushing a full segment, merging small ones); tells whether
    /// more is waiting. The roof calls it while the host is idle. Does nothing while another step is under way.
    ///
    /// # Errors
    /// What the storage says; the step is tried again by the next call, and nothing is lost.
    pub async fn maintain(&self) -> Result<bool> {
        self.inner.shared.check_open()?;
        let Some(_one) = self.inner.maintenance.try_lock() else { return Ok(true) };
        self.inner.shared.remove_garbage().await?;
        for collection in self.collections() {
            if self.step(&collection).await? {
                return Ok(true);
            }
        }
        self.inner.shared.remove_discarded(false).await?;
        self.balance().await
    }

    async fn step(&self, collection: &Collection) -> Result<bool> {
        {
            let mut state = collection.inner.state.write().expect("no panic while held");
            state.forget(self.inner.shared.options.environment.now_ms());
            state.expire(collection.expired_before());
            if state.index_some(INDEX_ROWS) > 0 {
                return Ok(true);
            }
        }
        if self.flush_next(collection).await?
            || self.save_index(collection).await?
            || self.merge_some(collection).await?
        {
            return Ok(true);
        }
        let (log_bytes, rows) = {
            let log = collection.inner.log.lock().await;
            (log.growing_bytes(), collection.inner.state.read().expect("no panic while held").growing().segment.len())
        };
        let checkpoint_bytes = self.inner.shared.options.checkpoint_bytes;
        if should_seal(rows, log_bytes) || log_bytes >= checkpoint_bytes.min(IDLE_LOG_BYTES) {
            collection.seal().await?;
            return Ok(true);
        }
        collection.sync_when_due().await
    }

    /// Writes what is only in the log to segments, and drops the log before it. Called by [`Collection`]s' owners and by close.
    pub(super) async fn flush_collection(&self, collection: &Collection) -> Result<()> {
        let _one = self.inner.maintenance.lock().await;
        collection.seal().await?;
        while self.flush_next(collection).await? {}
        Ok(())
    }

    /// The same for a writer that found the log full; nothing when somebody has made room meanwhile.
    pub(super) async fn checkpoint(&self, collection: &Collection) -> Result<()> {
        let _one = self.inner.maintenance.lock().await;
        if collection.log_is_full() {
            collection.seal().await?;
            while self.flush_next(collection).await? {}
        }
        Ok(())
    }

    /// Writes the growing segment of `collection` and as much of its index as there is to storage, and drops the log before it.
    pub async fn flush(&self, collection: &str) -> Result<()> {
        let collection = self.collection(collection)?;
        let db = self.clone();
        platform::run_to_end(async move { db.flush_collection(&collection).await }).await
    }

    /// Flushes the oldest sealed segment; false when there is none.
    async fn flush_next(&self, collection: &Collection) -> Result<bool> {
        let next = collection.inner.state.read().expect("no panic while held").next_unflushed();
        let Some((segment, progress, log_start)) = next else { return Ok(false) };
        let described = self.write_segment(collection, &segment).await?;
        collection.count_written(Work::Flush, &described);
        let rows = segment.len();
        drop(segment);
        let (id, segment_id) = (collection.id(), described.id);
        self.inner
            .shared
            .swap_manifest(|manifest| {
                if let Some(collection) = manifest.collection_mut(id) {
                    // A merge since the segment was sealed may have forgotten more.
                    let history = collection.progress.history.max(progress.history);
                    collection.progress = Progress { history, ..progress };
                    collection.log_start = log_start;
                    collection.segments.push(described);
                }
                Ok(())
            })
            .await?;
        collection.inner.state.write().expect("no panic while held").flushed(segment_id);
        collection.log_dropped_before(log_start).await;
        let storage = &self.inner.shared.storage;
        for entry in storage.list(&name::logs(id)).await? {
            if name::number(&entry.name).is_some_and(|number| number < log_start) {
                storage.remove(&entry.name).await?;
            }
        }
        self.tell(collection, Work::Flush, rows, rows);
        Ok(true)
    }

    /// Flushes a collection, then merges its segments until there is no dead row that nobody may read and nothing small: what
    /// background work leaves alone because it is not worth it. A segment that does not fit into half of the memory limit stays.
    pub async fn compact(&self, collection: &str) -> Result<()> {
        self.flush(collection).await?;
        let collection = self.collection(collection)?;
        self.begin_compaction(&collection);
        while self.is_compacting(&collection) {
            let _one = self.inner.maintenance.lock().await;
            self.step(&collection).await?;
        }
        Ok(())
    }

    /// The same in the background: steps of [`Self::maintain`] do it.
    pub(crate) fn begin_compaction(&self, collection: &Collection) {
        collection.inner.compact.store(true, Ordering::Relaxed);
    }

    /// Whether it is still under way.
    pub(crate) fn is_compacting(&self, collection: &Collection) -> bool {
        self.inner.shared.check_open().is_ok() && collection.inner.compact.load(Ordering::Relaxed)
    }

    async fn write_segment(&self, collection: &Collection, segment: &Segment) -> Result<SegmentManifest> {
        let mut files = Vec::new();
        let mut layout = None;
        for file in segment::encode(segment, self.inner.shared.options.codec) {
            let entry = self.write_file(collection, segment, &file, 0).await?;
            layout = layout.or((file.kind == FileKind::Layout).then(|| (entry.name.clone(), file.bytes)));
            files.push((file.kind, entry));
        }
        let (name, bytes) = layout.expect("every segment has a layout");
        let names = files.iter().map(|(kind, entry)| (kind.clone(), entry.name.clone())).collect();
        segment.store(segment::groups(segment.schema(), &name, &bytes, &names)?);
        let files = files.into_iter().map(|(_, entry)| entry).collect();
        Ok(SegmentManifest { id: segment.id(), rows: segment.len() as u64, files })
    }

    async fn write_file(
        &self,
        collection: &Collection,
        segment: &Segment,
        file: &SegmentFile,
        generation: usize,
    ) -> Result<FileEntry> {
        let ordinal = |field: &str| segment.indexes().iter().position(|index| index.field == field).unwrap_or_default();
        let fields = segment.schema().fields();
        let base = match &file.kind {
            FileKind::Layout => "layout".to_owned(),
            FileKind::Rows => "rows".to_owned(),
            FileKind::Deletes => "deletes".to_owned(),
            // The dynamic field comes after all others.
            FileKind::Column(column) => {
                let at = fields.iter().position(|field| field.name == *column).unwrap_or(fields.len());
                format!("column-{at}")
            }
            FileKind::Vector(field) => format!("vector-{}", ordinal(field)),
            FileKind::Index(field) => format!("index-{}-{generation}", ordinal(field)),
        };
        let name = name::segment_file(collection.id(), segment.id(), &base);
        put_fresh(&*self.inner.shared.storage, &name, &file.bytes).await?;
        Ok(file_entry(&file.kind, name, &file.bytes))
    }

    /// Writes anew the index file of a flushed segment whose graph has grown since; false when there is none.
    async fn save_index(&self, collection: &Collection) -> Result<bool> {
        let stale = collection.inner.state.write().expect("no panic while held").take_stale_index();
        let Some(segment) = stale else { return Ok(false) };
        let mut entries = Vec::new();
        for file in segment::encode_indexes(&segment) {
            entries.push(self.write_file(collection, &segment, &file, segment.len()).await?);
        }
        let (id, segment_id) = (collection.id(), segment.id());
        drop(segment);
        let old: Vec<FileEntry> = self
            .inner
            .shared
            .swap_manifest(|manifest| {
                let segments = manifest.collection_mut(id).map(|collection| &mut collection.segments);
                let Some(segment) = segments.into_iter().flatten().find(|segment| segment.id == segment_id) else {
                    return Ok(Vec::new());
                };
                let (old, mut kept): (Vec<_>, Vec<_>) = segment
                    .files
                    .drain(..)
                    .partition(|file| file.kind == "index" && !entries.iter().any(|entry| entry.name == file.name));
                kept.retain(|file| file.kind != "index");
                kept.extend(entries);
                segment.files = kept;
                Ok(old)
            })
            .await?;
        self.inner.shared.discard(Weak::new(), old);
        self.inner.shared.remove_discarded(false).await?;
        Ok(true)
    }

    /// One step of merging flushed segments; false when all is well.
    async fn merge_some(&self, collection: &Collection) -> Result<bool> {
        let mut merging = collection.inner.merge.lock().await;
        let Some(merge) = &mut *merging else {
            let bytes_max = self.inner.shared.options.memory_limit_bytes.map_or(usize::MAX, |limit| limit / 2);
            let whole = collection.inner.compact.load(Ordering::Relaxed);
            let begun = collection.with_blocks(|state, blocks| {
                let inputs = choose_merge(&state.flushed_segments(), bytes_max, whole);
                let slots: Vec<_> = inputs.iter().filter_map(|id| state.slot(*id)).collect();
                if slots.is_empty() {
                    return Ok(None);
                }
                Merge::new(self.inner.shared.next_segment(), &slots, &collection.spec().indexes, blocks).map(Some)
            });
            *merging = begun.await?;
            match &*merging {
                Some(merge) => self.tell(collection, Work::Compaction, 0, merge.segment.len()),
                None => collection.inner.compact.store(false, Ordering::Relaxed),
            }
            return Ok(merging.is_some());
        };
        let indexed = merge.segment.index_some(INDEX_ROWS);
        if indexed > 0 {
            let done = merge.segment.len() - merge.segment.rows_unindexed().min(merge.segment.len());
            if done % TOLD_ROWS < indexed {
                self.tell(collection, Work::Compaction, done, merge.segment.len());
            }
            return Ok(true);
        }
        let described = self.write_segment(collection, &merge.segment).await?;
        collection.count_written(Work::Compaction, &described);
        let (id, inputs) = (collection.id(), merge.inputs.clone());
        // What the merge left out was forgotten before it began.
        let history = collection.inner.state.read().expect("no panic while held").progress().history;
        let old: Vec<SegmentManifest> = self
            .inner
            .shared
            .swap_manifest(|manifest| {
                let Some(collection) = manifest.collection_mut(id) else { return Ok(Vec::new()) };
                let is_input = |segment: &SegmentManifest| inputs.contains(&segment.id);
                let (old, kept): (Vec<_>, Vec<_>) = collection.segments.drain(..).partition(is_input);
                collection.segments = kept;
                collection.segments.push(described);
                collection.progress.history = collection.progress.history.max(history);
                Ok(old)
            })
            .await?;
        let merge = merging.take().expect("a merge is under way");
        let rows = merge.segment.len();
        let replaced = collection.inner.state.write().expect("no panic while held").replace_merged(merge);
        for segment in old {
            let reader = replaced.iter().find(|replaced| replaced.id() == segment.id).map(Arc::downgrade);
            self.inner.shared.discard(reader.unwrap_or_default(), segment.files);
        }
        drop(replaced);
        self.inner.shared.remove_discarded(false).await?;
        self.tell(collection, Work::Compaction, rows, rows);
        Ok(true)
    }
}

/// Puts a file that no manifest names yet, over whatever an attempt that failed has left.
pub(super) async fn put_fresh(storage: &dyn Storage, name: &str, bytes: &bytes::Bytes) -> Result<()> {
    match storage.put(name, bytes.clone()).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            storage.remove(name).await?;
            storage.put(name, bytes.clone()).await
        }
        done => done,
    }
}
