use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::RecordBatch;
#[cfg(all(native, hosted))]
use futures_util::future::join_all;

use super::maintenance::TOLD_ROWS;
use super::progress::Work;
use super::writer::SegmentWriter;
use super::{Collection, Db};
use crate::base::{Result, SegmentId};
use crate::engine::{Budget, CollectionState, Memory, Merge, MergeKind, MergePolicy, SegmentManifest, choose_merge};
use crate::platform;

/// A merge that has begun.
pub(super) struct Merging {
    pub(super) merge: Merge,
    /// Writes the new segment once all of its rows are there and indexed.
    writer: Option<SegmentWriter>,
    /// What the manifest no longer names, once it names the new segment.
    pub(super) old: Option<Vec<SegmentManifest>>,
}

/// What is done wrong in a test that plants it.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// A merge begins with segments that another one has.
    Overlapping,
}

impl Db {
    /// One step of merging flushed segments; false when all is well.
    pub(super) async fn merge_some(&self, collection: &Collection, budget: Budget) -> Result<bool> {
        // A merge takes its memory from what can be read again.
        if self.make_room() {
            return Ok(true);
        }
        let mut merges = collection.inner.merges.lock().await;
        // Rows that take their places come first: a segment half of whose rows have none yet is not to be chosen for anything.
        if let Some(at) = merges.iter().position(|merging| merging.old.is_some()) {
            let merge = &mut merges[at].merge;
            let more = collection.inner.state.write().expect("no panic while held").swap_some(merge, budget.rows_moved);
            if !more && let Merging { merge, old: Some(old), .. } = merges.remove(at) {
                self.end_merge(collection, &merge, old).await?;
            }
            return Ok(true);
        }
        if let Some(begun) = self.begin_merge(collection, &merges) {
            merges.push(begun);
            return Ok(true);
        }
        if merges.is_empty() {
            return Ok(collection.inner.state.read().expect("no panic while held").look_some(budget.rows_moved));
        }
        #[cfg(all(native, hosted))]
        if merges.len() > 1 && platform::threads_beside() > 0 {
            drop(merges);
            return self.merge_side_by_side(collection, budget).await;
        }
        let goes_on = self.merge_step(collection, &mut merges[0], budget).await?;
        let merging = merges.remove(0);
        if goes_on {
            // The others have their turns before it has another one.
            merges.push(merging);
        }
        Ok(true)
    }

    /// A step of every merge that is under way, each on a thread of its own.
    #[cfg(all(native, hosted))]
    async fn merge_side_by_side(&self, collection: &Collection, budget: Budget) -> Result<bool> {
        let (db, collection) = (self.clone(), collection.clone());
        platform::run_to_end(async move {
            let mut merges = collection.inner.merges.lock().await;
            let steps = merges.drain(..).map(|mut merging| {
                let (db, collection) = (db.clone(), collection.clone());
                platform::beside(async move {
                    let goes_on = db.merge_step(&collection, &mut merging, budget).await;
                    (merging, goes_on)
                })
            });
            let mut done = Ok(true);
            for (merging, goes_on) in join_all(steps).await {
                if !matches!(goes_on, Ok(false)) {
                    merges.push(merging);
                }
                done = done.and(goes_on.map(|_| true));
            }
            done
        })
        .await
    }

    /// A step of a merge whose rows take no places yet; false when it is given up, for the segments that it needs are gone.
    async fn merge_step(&self, collection: &Collection, merging: &mut Merging, budget: Budget) -> Result<bool> {
        let Merging { merge, writer, old } = merging;
        if let Some(input) = merge.next_input() {
            let slot =
                |input| Some(collection.inner.state.read().expect("no panic while held").slot(input)?.segment.clone());
            let Some(input) = slot(input) else { return Ok(false) };
            while let Err(needs) = merge.gather(&input, budget.bytes) {
                self.inner.shared.fetch(needs, merge.blocks_mut(), false).await?;
            }
            return Ok(true);
        }
        if merge.carry_deletes(&mut collection.inner.state.write().expect("no panic while held"), budget.rows_moved) {
            return Ok(true);
        }
        if merge.leaves_columns() && !writer.as_ref().is_some_and(SegmentWriter::has_columns) {
            let mut taken = match writer.take() {
                Some(writer) => writer,
                None => self.begin_writing(collection, merge).await?,
            };
            if let Some((column, rows)) = taken.wants(&merge.segment) {
                let Some(rows) = self.column_rows(collection, merge, &column, rows).await? else {
                    self.remove_files(taken).await?;
                    return Ok(false);
                };
                taken.give(rows);
            }
            if !self.write_some(collection, &merge.segment, &mut taken, budget.bytes).await? {
                Self::place_columns(&merge.segment, &taken)?;
            }
            *writer = Some(taken);
            return Ok(true);
        }
        let limit = self.inner.shared.options.memory_limit_bytes;
        if let Some(base) = merge.next_graft() {
            let base =
                collection.inner.state.read().expect("no panic while held").slot(base).map(|slot| slot.segment.clone());
            let Some(base) = base else { return Ok(false) };
            merge.graft_some(&base, budget.rows_indexed, limit);
            return Ok(true);
        }
        let mut indexed = merge.index_some(budget.rows_indexed, limit);
        while indexed < budget.rows_indexed {
            match merge.index_left(limit) {
                Ok(false) => break,
                Ok(true) => indexed += 1,
                Err(needs) => self.inner.shared.fetch(needs, merge.blocks_mut(), false).await?,
            }
        }
        if indexed > 0 {
            let done = merge.rows_indexed();
            if done % TOLD_ROWS < indexed {
                self.tell(collection, Work::Compaction, done, merge.segment.len());
            }
            return Ok(true);
        }
        let mut taken = match writer.take() {
            Some(writer) => writer,
            None => self.begin_writing(collection, merge).await?,
        };
        let described = if merge.is_nothing() {
            None
        } else if self.write_some(collection, &merge.segment, &mut taken, budget.bytes).await? {
            *writer = Some(taken);
            return Ok(true);
        } else {
            // Had that failed, writing would begin anew.
            let described = Self::written(&merge.segment, taken)?;
            collection.count_written(Work::Compaction, &described);
            merge.settle();
            Some(described)
        };
        *old = Some(self.name_merged(collection, merge, described).await?);
        collection.inner.state.write().expect("no panic while held").begin_swap(merge);
        Ok(true)
    }

    async fn begin_writing(&self, collection: &Collection, merge: &Merge) -> Result<SegmentWriter> {
        // What was left out lost to changes that may be only buffered: a crash must not take both.
        collection.sync_log(&mut *collection.inner.log.lock().await).await?;
        Ok(self.segment_writer(collection, &merge.segment))
    }

    /// Some rows of a column that the new segment leaves in storage, out of the blocks of its inputs, one of which is read at a time;
    /// `None` when one of them is there no more.
    async fn column_rows(
        &self,
        collection: &Collection,
        merge: &mut Merge,
        column: &str,
        rows: Range<usize>,
    ) -> Result<Option<RecordBatch>> {
        let (mut pieces, mut next) = (Vec::new(), rows.start);
        while next < rows.end {
            let input = merge.source(next);
            let slot = |state: &CollectionState| state.slot(input).map(|slot| slot.segment.clone());
            let input = slot(&collection.inner.state.read().expect("no panic while held"));
            let Some(input) = input else { return Ok(None) };
            match merge.column_piece(&input, column, next..rows.end) {
                Ok(piece) => {
                    next += piece.num_rows();
                    pieces.push(piece);
                }
                Err(needs) => self.inner.shared.fetch(needs, merge.blocks_mut(), false).await?,
            }
        }
        let block = merge.segment.join(column, &pieces);
        merge.note_column(column, rows.start, &block);
        Ok(Some(block))
    }

    async fn remove_files(&self, writer: SegmentWriter) -> Result<()> {
        for file in writer.into_files() {
            self.inner.shared.storage.remove(&file.name).await?;
        }
        Ok(())
    }

    /// Begins a merge of segments that none of `others` has, when there are such, and room for it.
    fn begin_merge(&self, collection: &Collection, others: &[Merging]) -> Option<Merging> {
        let options = &self.inner.shared.options;
        let limit = options.memory_limit_bytes;
        let kind = collection.merge_kind();
        let merges_max = match kind {
            MergeKind::Parallel => options.merge_policy.merges_max.unwrap_or_else(platform::threads_beside),
            _ => 1,
        };
        if others.len() >= merges_max.max(1) {
            return None;
        }
        // All together take what one alone may.
        let taken: usize = others.iter().map(|other| other.merge.bytes()).sum();
        let bytes_max = self.free_memory().saturating_sub(taken);
        let whole = collection.inner.compact.load(Ordering::Relaxed);
        let policy = if whole { MergePolicy::WHOLE } else { MergePolicy { kind, ..options.merge_policy } };
        let state = collection.inner.state.read().expect("no panic while held");
        let mut candidates = state.flushed_segments(limit);
        candidates.retain(|segment| !is_merged(others, segment.id) || collection.is_planted());
        let inputs = choose_merge(&candidates, bytes_max, &policy);
        let slots: Vec<_> = inputs.iter().filter_map(|id| state.slot(*id)).collect();
        if slots.is_empty() {
            if others.is_empty() {
                collection.inner.compact.store(false, Ordering::Relaxed);
            }
            return None;
        }
        let merge = Merge::new(self.inner.shared.next_segment(), slots, state.spec(), limit);
        drop(state);
        self.tell(collection, Work::Compaction, 0, merge.rows);
        Some(Merging { merge, writer: None, old: None })
    }

    /// Has the manifest name the new segment, where there is one, instead of its inputs; gives these back.
    async fn name_merged(
        &self,
        collection: &Collection,
        merge: &Merge,
        described: Option<SegmentManifest>,
    ) -> Result<Vec<SegmentManifest>> {
        let id = collection.id();
        // What the merge left out was forgotten before it began.
        let (history, gone) = {
            let state = collection.inner.state.read().expect("no panic while held");
            (state.progress().history, state.progress().gone)
        };
        let edit = |manifest: &mut crate::engine::Manifest| {
            let Some(collection) = manifest.collection_mut(id) else { return Ok(Vec::new()) };
            let is_input = |segment: &SegmentManifest| merge.inputs.contains(&segment.id);
            let (old, kept): (Vec<_>, Vec<_>) = collection.segments.drain(..).partition(is_input);
            collection.segments = kept;
            collection.merges.finished += 1;
            collection.merges.rows += described.as_ref().map_or(0, |described| described.rows);
            collection.segments.extend(described);
            collection.progress.history = collection.progress.history.max(history);
            collection.progress.gone = collection.progress.gone.max(gone);
            Ok(old)
        };
        self.inner.shared.swap_manifest(edit).await
    }

    async fn end_merge(&self, collection: &Collection, merge: &Merge, old: Vec<SegmentManifest>) -> Result<()> {
        let replaced = collection.inner.state.write().expect("no panic while held").end_swap(merge);
        for segment in old {
            let reader = replaced.iter().find(|replaced| replaced.id() == segment.id).map(Arc::downgrade);
            self.inner.shared.discard(reader.unwrap_or_default(), segment.files);
        }
        drop(replaced);
        let rows = merge.segment.len();
        self.tell(collection, Work::Compaction, rows, rows);
        self.inner.shared.remove_discarded(false).await
    }

    /// What merges hold that is no part of the collection yet, and how much more they will hold, about.
    pub(super) fn memory_of_merges(&self, collection: &Collection) -> (Memory, usize) {
        // Only a step that is under way has them locked; then they are left out for a moment.
        let merges = collection.inner.merges.try_lock();
        let (mut all, mut planned) = (Memory::default(), 0);
        let merges = merges.as_deref().into_iter().flatten().filter(|merging| merging.old.is_none());
        for Merging { merge, writer, .. } in merges {
            let [rows, columns, vectors, indexes] = merge.segment.memory();
            let written = writer.as_ref().map_or(0, SegmentWriter::memory_bytes);
            let memory = Memory {
                rows: rows + merge.memory_bytes(),
                columns: columns + written,
                vectors,
                indexes,
                ..Memory::default()
            };
            planned += merge.bytes().saturating_sub(memory.total());
            all += memory;
        }
        (all, planned)
    }

    /// Gives up the flush and the merges that are under way: they begin anew some time. A merge whose rows take their places comes to
    /// its end.
    pub(super) async fn stop_work(&self, collection: &Collection) -> Result<()> {
        let writing = collection.inner.writing.lock().await.take();
        let mut writers: Vec<_> = writing.into_iter().map(|writing| writing.writer).collect();
        let mut merges = collection.inner.merges.lock().await;
        while let Some(Merging { mut merge, writer, old }) = merges.pop() {
            match old {
                Some(old) => {
                    collection.inner.state.write().expect("no panic while held").swap_some(&mut merge, usize::MAX);
                    self.end_merge(collection, &merge, old).await?;
                }
                None => writers.extend(writer),
            }
        }
        drop(merges);
        for file in writers.into_iter().flat_map(SegmentWriter::into_files) {
            self.inner.shared.storage.remove(&file.name).await?;
        }
        Ok(())
    }
}

/// Whether one of `merges` has that segment for an input.
fn is_merged(merges: &[Merging], segment: SegmentId) -> bool {
    merges.iter().any(|merging| merging.merge.inputs.contains(&segment))
}

impl Collection {
    /// Which of its segments are merged with which.
    pub(super) fn merge_kind(&self) -> MergeKind {
        self.spec().options.merge_policy.unwrap_or(self.inner.shared.options.merge_policy.kind)
    }

    /// Whether merges are to overlap.
    #[cfg(test)]
    fn is_planted(&self) -> bool {
        self.inner.planted.load(Ordering::Relaxed)
    }

    #[cfg(not(test))]
    const fn is_planted(&self) -> bool {
        false
    }

    /// The segments that are being merged.
    pub(super) async fn merged(&self) -> Vec<SegmentId> {
        let merges = self.inner.merges.lock().await;
        merges.iter().flat_map(|merging| merging.merge.inputs.iter().copied()).collect()
    }
}
