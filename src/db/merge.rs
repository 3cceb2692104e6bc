use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow_array::RecordBatch;

use super::maintenance::TOLD_ROWS;
use super::progress::Work;
use super::writer::SegmentWriter;
use super::{Collection, Db};
use crate::base::Result;
use crate::engine::{Budget, CollectionState, Memory, Merge, MergePolicy, SegmentManifest, choose_merge};

/// A merge that has begun.
pub(super) struct Merging {
    pub(super) merge: Merge,
    /// Writes the new segment once all of its rows are there and indexed.
    writer: Option<SegmentWriter>,
    /// What the manifest no longer names, once it names the new segment.
    pub(super) old: Option<Vec<SegmentManifest>>,
}

impl Db {
    /// One step of merging flushed segments; false when all is well.
    pub(super) async fn merge_some(&self, collection: &Collection, budget: Budget) -> Result<bool> {
        // A merge takes its memory from what can be read again.
        if self.make_room() {
            return Ok(true);
        }
        let mut merging = collection.inner.merge.lock().await;
        let Some(Merging { merge, writer, old }) = &mut *merging else {
            *merging = self.begin_merge(collection, self.free_memory());
            let state = collection.inner.state.read().expect("no panic while held");
            return Ok(merging.is_some() || state.look_some(budget.rows_moved));
        };
        if old.is_some() {
            let more = collection.inner.state.write().expect("no panic while held").swap_some(merge, budget.rows_moved);
            if !more && let Some(Merging { merge, old: Some(old), .. }) = merging.take() {
                self.end_merge(collection, &merge, old).await?;
            }
            return Ok(true);
        }
        if let Some(input) = merge.next_input() {
            let slot =
                |input| Some(collection.inner.state.read().expect("no panic while held").slot(input)?.segment.clone());
            let Some(input) = slot(input) else {
                *merging = None;
                return Ok(true);
            };
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
                    *merging = None;
                    return self.remove_files(taken).await;
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
            match base {
                Some(base) => merge.graft_some(&base, budget.rows_indexed, limit),
                None => *merging = None,
            }
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

    async fn remove_files(&self, writer: SegmentWriter) -> Result<bool> {
        for file in writer.into_files() {
            self.inner.shared.storage.remove(&file.name).await?;
        }
        Ok(true)
    }

    fn begin_merge(&self, collection: &Collection, bytes_max: usize) -> Option<Merging> {
        let limit = self.inner.shared.options.memory_limit_bytes;
        let whole = collection.inner.compact.load(Ordering::Relaxed);
        let state = collection.inner.state.read().expect("no panic while held");
        let policy = if whole { &MergePolicy::WHOLE } else { &self.inner.shared.options.merge_policy };
        let inputs = choose_merge(&state.flushed_segments(limit), bytes_max, policy);
        let slots: Vec<_> = inputs.iter().filter_map(|id| state.slot(*id)).collect();
        if slots.is_empty() {
            collection.inner.compact.store(false, Ordering::Relaxed);
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

    /// What a merge holds that is no part of the collection yet, and how much more it will hold, about.
    pub(super) fn memory_of_merge(&self, collection: &Collection) -> (Memory, usize) {
        // Only a step that is under way has it locked; then it is left out for a moment.
        let merging = collection.inner.merge.try_lock();
        let merging = merging.as_deref().and_then(Option::as_ref).filter(|merging| merging.old.is_none());
        merging.map_or_else(Default::default, |Merging { merge, writer, .. }| {
            let [rows, columns, vectors, indexes] = merge.segment.memory();
            let written = writer.as_ref().map_or(0, SegmentWriter::memory_bytes);
            let memory = Memory {
                rows: rows + merge.memory_bytes(),
                columns: columns + written,
                vectors,
                indexes,
                ..Memory::default()
            };
            (memory, merge.bytes().saturating_sub(memory.total()))
        })
    }

    /// Gives up the flush and the merge that are under way: they begin anew some time. A merge whose rows take their places comes to
    /// its end.
    pub(super) async fn stop_work(&self, collection: &Collection) -> Result<()> {
        let writing = collection.inner.writing.lock().await.take();
        let mut writers: Vec<_> = writing.into_iter().map(|writing| writing.writer).collect();
        match collection.inner.merge.lock().await.take() {
            Some(Merging { mut merge, old: Some(old), .. }) => {
                collection.inner.state.write().expect("no panic while held").swap_some(&mut merge, usize::MAX);
                self.end_merge(collection, &merge, old).await?;
            }
            Some(Merging { writer, .. }) => writers.extend(writer),
            None => {}
        }
        for file in writers.into_iter().flat_map(SegmentWriter::into_files) {
            self.inner.shared.storage.remove(&file.name).await?;
        }
        Ok(())
    }
}
