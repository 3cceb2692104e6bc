use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::progress::Work;
use super::writer::SegmentWriter;
use super::{Collection, Db};
use crate::base::Result;
use crate::engine::{
    Budget, FileEntry, Growing, Progress, Task, Waiting, choose_budget, choose_task, name, should_seal,
};
use crate::platform;
use crate::segment::Segment;

/// Rows that an index of terms takes in a step: a few milliseconds, for which readers wait.
const TERMS_ROWS: usize = 1_024;
/// Progress is told about this often.
pub(super) const TOLD_ROWS: usize = 1_024;
/// What somebody who waits for a flush has written at once, before other tasks of the thread have their turn.
const FLUSHED_BYTES: usize = 1 << 20;
/// An idle store flushes when a restart would replay this much log …
const IDLE_LOG_BYTES: u64 = 4 << 20;
/// … and is idle when nothing was written for so long. A flush between two writes that follow each other has the second one wait: in a
/// browser, where it took half of the time, they are in one thread.
const IDLE_MS: u64 = 300;

/// A segment that is being written.
pub(super) struct Writing {
    segment: Arc<Segment>,
    pub(super) writer: SegmentWriter,
    /// What its flush makes durable; `None` when only its indexes are written, again.
    flush: Option<(Progress, u64)>,
}

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
        let budget = self.budget();
        for collection in self.collections() {
            if self.step(&collection, budget).await? {
                return Ok(true);
            }
        }
        self.inner.shared.remove_discarded(false).await?;
        Ok(self.balance().await? || self.fill_pool().await)
    }

    fn budget(&self) -> Budget {
        choose_budget(self.inner.shared.calls.swap(0, Ordering::Relaxed))
    }

    async fn step(&self, collection: &Collection, budget: Budget) -> Result<bool> {
        let shared = &self.inner.shared;
        {
            let mut state = collection.inner.state.write().expect("no panic while held");
            // Expired rows are seen by nobody: it is soon enough to look for them as often as that.
            if state.forget(shared.options.environment.now_ms()) {
                state.expire(collection.expired_before());
            }
        }
        let mut waiting = self.waiting(collection).await;
        loop {
            let task = choose_task(&waiting);
            let done = match task {
                Task::Index => self.index_some(collection, budget.rows_indexed).await,
                Task::Flush => self.flush_some(collection, budget.bytes).await?,
                Task::SaveIndex => self.save_index(collection, budget.bytes).await?,
                Task::Merge | Task::Swap => self.merge_some(collection, budget).await?,
            };
            if done {
                return Ok(true);
            }
            // Whoever reads those segments may wait for the end of this step.
            match task {
                Task::Index => waiting.unindexed = false,
                // It had a turn before its time, for there are many segments: none of them is to be merged.
                Task::Merge if waiting.unindexed => (waiting.merging, waiting.crowded) = (false, false),
                _ => break,
            }
        }
        let growing = self.growing(collection).await;
        let seals = growing.is_some_and(|growing| {
            should_seal(&collection.spec().options.seal, &growing)
                || growing.log_bytes >= shared.options.checkpoint_bytes
                || growing.log_bytes >= IDLE_LOG_BYTES && growing.idle_ms >= IDLE_MS
        });
        if seals {
            collection.seal().await?;
            return Ok(true);
        }
        collection.sync_when_due().await
    }

    /// What is known of the growing segment; `None` while there is nothing in it.
    async fn growing(&self, collection: &Collection) -> Option<Growing> {
        let log_bytes = collection.inner.log.lock().await.growing_bytes();
        let (age_ms, idle_ms) = collection.look(self.inner.shared.options.environment.now_ms())?;
        let rows = collection.inner.state.read().expect("no panic while held").growing().segment.len();
        Some(Growing { rows, log_bytes, age_ms, idle_ms })
    }

    /// After how many milliseconds the next growing segment is due to be sealed for its age or for having been idle; `None` when none
    /// will be unless something is written. Whoever calls [`Self::maintain`] only when something has changed looks again then.
    pub fn seal_due_ms(&self) -> Option<u64> {
        let now_ms = self.inner.shared.options.environment.now_ms();
        let due_ms = |collection: &Collection| {
            let policy = collection.spec().options.seal;
            let (age_ms, idle_ms) = collection.look(now_ms)?;
            // Whoever has the log changes it, and looks again then.
            let log_bytes = collection.inner.log.try_lock().map_or(0, |log| log.growing_bytes());
            let idle = (log_bytes >= IDLE_LOG_BYTES).then_some(IDLE_MS);
            let left = [(policy.age_ms, age_ms), (policy.idle_ms, idle_ms), (idle, idle_ms)];
            left.into_iter().filter_map(|(limit, now)| Some(limit?.saturating_sub(now))).min()
        };
        self.collections().iter().filter_map(due_ms).min()
    }

    async fn waiting(&self, collection: &Collection) -> Waiting {
        let merges = collection.inner.merges.lock().await;
        let merged: Vec<_> = merges.iter().flat_map(|merging| merging.merge.inputs.iter().copied()).collect();
        let flushing = collection.inner.writing.lock().await.is_some();
        let state = collection.inner.state.read().expect("no panic while held");
        let log_bytes = collection.inner.log_bytes.load(Ordering::Relaxed);
        Waiting {
            swapping: merges.iter().any(|merging| merging.old.is_some()),
            flushing,
            unflushed: state.unflushed_count() > 0,
            log_percent: log_bytes.saturating_mul(100) / self.inner.shared.options.checkpoint_bytes.max(1),
            unindexed: state.can_index(&merged),
            stale: state.has_stale_index(),
            merging: !merged.is_empty(),
            crowded: state.slots().count() > collection.merge_kind().segments_pressing(),
            turn: collection.inner.turn.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Adds some rows to their index; false when none could be. What takes long is done beside others who read.
    async fn index_some(&self, collection: &Collection, rows_max: usize) -> bool {
        let inputs = collection.merged().await;
        let state = &collection.inner.state;
        if state.write().expect("no panic while held").add_some_terms(&inputs, TERMS_ROWS) {
            return true;
        }
        let limit = self.inner.shared.options.memory_limit_bytes;
        let mut done = 0;
        while done < rows_max {
            let begun = state.write().expect("no panic while held").begin_row(&inputs, limit);
            let Some(row) = begun else { break };
            let found = state.read().expect("no panic while held").look_up(row);
            let Some(found) = found else { break };
            if !state.write().expect("no panic while held").insert(row, found) {
                break;
            }
            done += 1;
        }
        let (rows, left) = state.read().expect("no panic while held").rows_to_index();
        if done > 0 && (left == 0 || (rows - left) % TOLD_ROWS < done) {
            self.tell(collection, Work::Index, rows - left, rows);
        }
        done > 0
    }

    /// Writes what is only in the log to segments, and drops the log before it. Called by [`Collection`]s' owners and by close.
    pub(super) async fn flush_collection(&self, collection: &Collection) -> Result<()> {
        let _one = self.inner.maintenance.lock().await;
        collection.seal().await?;
        self.flush_sealed(collection).await
    }

    pub(super) async fn flush_sealed(&self, collection: &Collection) -> Result<()> {
        while self.flush_some(collection, FLUSHED_BYTES).await? {
            platform::yield_now().await;
        }
        Ok(())
    }

    /// The same for a writer that found the log full; nothing when somebody has made room meanwhile.
    pub(super) async fn checkpoint(&self, collection: &Collection) -> Result<()> {
        let _one = self.inner.maintenance.lock().await;
        if collection.log_is_full() {
            collection.seal().await?;
            self.flush_sealed(collection).await?;
        }
        Ok(())
    }

    /// Writes the growing segment of `collection` and as much of its index as there is to storage, and drops the log before it.
    pub async fn flush(&self, collection: &str) -> Result<()> {
        let collection = self.collection(collection)?;
        let db = self.clone();
        platform::run_to_end(async move { db.flush_collection(&collection).await }).await
    }

    /// Takes a flush a step further, of the oldest sealed segment when none has begun; false when there is none.
    async fn flush_some(&self, collection: &Collection, bytes_max: usize) -> Result<bool> {
        let mut writing = collection.inner.writing.lock().await;
        if writing.is_none() {
            let next = collection.inner.state.read().expect("no panic while held").next_unflushed();
            let Some((segment, progress, log_start)) = next else { return Ok(false) };
            let writer = self.segment_writer(collection, &segment);
            *writing = Some(Writing { segment, writer, flush: Some((progress, log_start)) });
        }
        let mut taken = writing.take().expect("a flush is under way");
        match self.write_some(collection, &taken.segment, &mut taken.writer, bytes_max).await {
            Ok(false) => {}
            Ok(true) => {
                *writing = Some(taken);
                return Ok(true);
            }
            // It begins anew.
            Err(error) => {
                if taken.flush.is_none() {
                    let mut state = collection.inner.state.write().expect("no panic while held");
                    state.mark_stale(taken.segment.id());
                }
                return Err(error);
            }
        }
        let Writing { segment, writer, flush } = taken;
        match flush {
            Some((progress, log_start)) => self.end_flush(collection, segment, writer, progress, log_start).await?,
            None => self.end_save(collection, segment, writer).await?,
        }
        Ok(true)
    }

    async fn end_flush(
        &self,
        collection: &Collection,
        segment: Arc<Segment>,
        writer: SegmentWriter,
        progress: Progress,
        log_start: u64,
    ) -> Result<()> {
        let described = Self::written(&segment, writer)?;
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
                    let gone = collection.progress.gone.max(progress.gone);
                    collection.progress = Progress { history, gone, ..progress };
                    collection.log_start = log_start;
                    collection.merges.rows_flushed += described.rows;
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
        Ok(())
    }

    /// Flushes a collection, then merges its segments until there is no dead row that nobody may read and nothing small: what
    /// background work leaves alone because it is not worth it. Under a memory limit, of what stays in memory of all rows (codes and
    /// graphs, narrow columns) only so much is merged at a time as there is room for beside them.
    pub async fn compact(&self, collection: &str) -> Result<()> {
        self.flush(collection).await?;
        let collection = self.collection(collection)?;
        self.begin_compaction(&collection);
        while self.is_compacting(&collection) {
            let one = self.inner.maintenance.lock().await;
            self.step(&collection, self.budget()).await?;
            drop(one);
            platform::yield_now().await;
        }
        Ok(())
    }

    /// [`Self::flush`] of every collection.
    pub async fn flush_all(&self) -> Result<()> {
        for collection in self.collections() {
            self.flush(collection.name()).await?;
        }
        Ok(())
    }

    /// [`Self::compact`] of every collection.
    pub async fn compact_all(&self) -> Result<()> {
        for collection in self.collections() {
            self.compact(collection.name()).await?;
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

    /// Writes anew the index file of a flushed segment whose graph has grown since; false when there is none.
    async fn save_index(&self, collection: &Collection, bytes_max: usize) -> Result<bool> {
        let stale = collection.inner.state.write().expect("no panic while held").take_stale_index();
        let Some(segment) = stale else { return Ok(false) };
        let writer = Self::index_writer(self.inner.shared.manifest_version().await as usize);
        *collection.inner.writing.lock().await = Some(Writing { segment, writer, flush: None });
        self.flush_some(collection, bytes_max).await
    }

    async fn end_save(&self, collection: &Collection, segment: Arc<Segment>, writer: SegmentWriter) -> Result<()> {
        let entries = writer.into_files();
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
                let replaced = |file: &FileEntry| {
                    let is_it = |entry: &FileEntry| (&entry.kind, &entry.field) == (&file.kind, &file.field);
                    file.kind == "index" || entries.iter().any(is_it)
                };
                let (mut old, mut kept): (Vec<_>, Vec<_>) = segment.files.drain(..).partition(replaced);
                old.retain(|file| !entries.iter().any(|entry| entry.name == file.name));
                kept.extend(entries);
                segment.files = kept;
                Ok(old)
            })
            .await?;
        collection.inner.state.write().expect("no panic while held").settle_segment(segment_id);
        self.inner.shared.discard(Weak::new(), old);
        self.inner.shared.remove_discarded(false).await
    }
}
