use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;

use super::{CollectionSpec, CollectionState, Growing, SealPolicy, Slot};
use crate::base::{RowMask, SegmentId, sort_by_key};
use crate::index::Graft;
use crate::segment::{BlockRef, Blocks, Segment, Tombstone, Versions};

/// The growing segment is sealed at this many rows: graphs of this size still build in reasonable slices.
pub(super) const SEAL_ROWS: usize = 131_072;
/// Or when its log files reach this size: it bounds what a restart replays.
pub(super) const SEAL_LOG_BYTES: u64 = 64 << 20;
/// Rows that are gathered at once, however small they are.
const GATHERED_ROWS_MAX: usize = 1_024;
/// Blocks of inputs that are read for them at once.
const NEEDED_BLOCKS_MAX: usize = 16;

/// Whether the growing segment should be sealed.
pub fn should_seal(policy: &SealPolicy, growing: &Growing) -> bool {
    growing.rows as u64 >= policy.rows.unwrap_or(SEAL_ROWS as u64)
        || growing.log_bytes >= policy.bytes.unwrap_or(SEAL_LOG_BYTES)
        || policy.age_ms.is_some_and(|age_ms| growing.age_ms >= age_ms)
        || policy.idle_ms.is_some_and(|idle_ms| growing.idle_ms >= idle_ms)
}

/// How much one step of background work does at most: in a browser nobody is answered meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Rows that are added to a graph.
    pub rows_indexed: usize,
    /// Rows whose place changes, which is a few memory accesses each.
    pub rows_moved: usize,
    /// Bytes that are gathered or encoded.
    pub bytes: usize,
}

/// The budget of a step, when so many calls came since the one before it: while somebody is waiting, the next call must not find a
/// long step in its way. A row of 384 numbers takes about a tenth of a millisecond to index natively, and a few times that in a browser.
pub fn choose_budget(calls: u64) -> Budget {
    if calls > 0 {
        Budget { rows_indexed: 4, rows_moved: 256, bytes: 64 << 10 }
    } else {
        Budget { rows_indexed: 16, rows_moved: 2_048, bytes: 256 << 10 }
    }
}

/// What waits to be done for a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// A merged segment is taking the places of its inputs.
    pub swapping: bool,
    /// A flush has begun.
    pub flushing: bool,
    /// Sealed segments are not in storage.
    pub unflushed: bool,
    /// The log in hundredths of a checkpoint.
    pub log_percent: u64,
    /// Rows wait for an index.
    pub unindexed: bool,
    /// Graphs have grown since they were written.
    pub stale: bool,
    /// A merge has begun.
    pub merging: bool,
    /// There are so many flushed segments that they are merged while rows wait for an index.
    pub crowded: bool,
    /// Counts steps.
    pub turn: u64,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Rows of a merged segment take the places of those of its inputs.
    Swap,
    /// A part of a sealed segment goes to storage.
    Flush,
    /// Rows join their index.
    Index,
    /// A graph that has grown is written again.
    SaveIndex,
    /// A part of a merge; or it is looked whether there is something to merge.
    Merge,
}

/// A flush waits for the index, so that it need not be written twice, until the log is so much longer than a checkpoint: at twice that
/// length writers wait.
const LOG_PERCENT_PRESSING: u64 = 150;
/// What comes next, in the order of what is lost by waiting: a merged segment takes its place, and a flush that has begun comes to its
/// end; a log that grows too long is flushed; rows without index, which every search compares one by one, are indexed; and what
/// makes the store smaller comes last, but for every second turn while there are very many segments.
pub fn choose_task(waiting: &Waiting) -> Task {
    let merges_too = (waiting.merging || waiting.crowded) && waiting.turn.is_multiple_of(2);
    match waiting {
        Waiting { swapping: true, .. } => Task::Swap,
        Waiting { flushing: true, .. } => Task::Flush,
        Waiting { unflushed: true, log_percent: LOG_PERCENT_PRESSING.., .. } => Task::Flush,
        Waiting { unindexed: true, .. } if merges_too => Task::Merge,
        Waiting { unindexed: true, .. } => Task::Index,
        Waiting { unflushed: true, .. } => Task::Flush,
        Waiting { stale: true, .. } => Task::SaveIndex,
        _ => Task::Merge,
    }
}

/// The rows of several segments that somebody may read, on their way into one.
///
/// It goes on in steps, each bounded: rows are gathered until there are no more, indexed, and written; then they take the place of
/// those that they are copies of, a few at a time. Nothing of that but the last looks at the state of the collection, for a flushed
/// segment never changes. What dies meanwhile is dead when it is its turn to take a place.
///
/// With a memory limit, wide columns and vectors are left out when rows are gathered. They go from the files of the inputs into those of
/// the new segment by the block, and what is built of vectors reads them from there, once, in the order of rows. So of all rows are in
/// memory only what stays there when the merge has come to its end, and of the others a block of each side.
#[derive(Debug)]
pub struct Merge {
    /// The segments that it replaces.
    pub inputs: Vec<SegmentId>,
    /// The new segment; nobody else has it before its rows take their places.
    pub segment: Arc<Segment>,
    /// How many rows it will have, about.
    pub rows: usize,
    /// Rows that are to be gathered, and from which on.
    rest: VecDeque<(SegmentId, RowMask, usize)>,
    /// Deletes that are to be looked at: of which input, and from which on.
    deletes: VecDeque<(SegmentId, usize)>,
    /// Where each row of the new segment was: of the base first, then ascending by input; of each ascending by row.
    pub(super) sources: Vec<(SegmentId, u32)>,
    /// The input whose graphs the new ones begin with, where one has any: that with the most rows.
    base: Option<SegmentId>,
    /// These on their way, once all rows were gathered.
    grafts: Option<Vec<(usize, Graft)>>,
    /// Blocks that the next rows may be in too.
    blocks: Blocks,
    /// Columns that are left in storage.
    left: Vec<String>,
    /// What it will hold in memory, about.
    bytes: usize,
    /// How many rows have taken their place.
    pub(super) placed: usize,
}

impl Merge {
    /// A merge of the rows of `slots` that live, and of the dead ones that readers of the past may ask for, into segment `id`. Deletes
    /// move along as long as they have to win over older writes, here or in another replica: see [`CollectionState::is_outlived`].
    pub fn new(id: SegmentId, mut slots: Vec<&Slot>, spec: &CollectionSpec, memory_limit_bytes: Option<usize>) -> Self {
        sort_by_key(&mut slots, |slot| slot.segment.id());
        let segment = Segment::new(id, &spec.schema, &spec.indexes);
        let with_graph = slots.iter().filter(|slot| slot.segment.has_graph());
        let base = with_graph.max_by_key(|slot| slot.kept().count()).map(|slot| slot.segment.id());
        let (mut rest, mut deletes) = (VecDeque::new(), VecDeque::new());
        let mut rows = 0;
        for slot in &slots {
            let kept = slot.kept();
            rows += kept.count();
            let part = (slot.segment.id(), kept, 0);
            if base == Some(part.0) {
                rest.push_front(part)
            } else {
                rest.push_back(part)
            }
            deletes.push_back((slot.segment.id(), 0));
        }
        let inputs = slots.iter().map(|slot| slot.segment.id()).collect();
        let mut left = Vec::new();
        if rows > 0 && memory_limit_bytes.is_some() {
            left = slots.iter().flat_map(|slot| slot.segment.leavable(rows, memory_limit_bytes)).collect();
            left.sort_unstable();
            left.dedup();
        }
        let bytes = slots.iter().map(|slot| slot.merged_bytes(&left)).sum();
        let segment = Arc::new(segment);
        Self {
            inputs,
            segment,
            rows,
            rest,
            deletes,
            sources: Vec::new(),
            base,
            grafts: None,
            blocks: Blocks::default(),
            left,
            bytes,
            placed: 0,
        }
    }

    /// The row that was row `row` of `input`, if there is one.
    pub(super) fn row_of(&self, input: SegmentId, row: u32) -> Option<u32> {
        let place = |&(input, row): &(SegmentId, u32)| (self.base != Some(input), input, row);
        Some(self.sources.binary_search_by_key(&place(&(input, row)), place).ok()? as u32)
    }

    /// The segment that rows are to be gathered from next; `None` when all are.
    pub fn next_input(&mut self) -> Option<SegmentId> {
        while self.rest.front().is_some_and(|(_, rows, from)| rows.iter_from(*from).next().is_none()) {
            self.rest.pop_front();
        }
        Some(self.rest.front()?.0)
    }

    /// Gathers rows of `input`, which [`Self::next_input`] named, until they take `bytes_max`; the blocks that it needs first when
    /// there are any.
    pub fn gather(&mut self, input: &Segment, bytes_max: usize) -> Result<(), Vec<BlockRef>> {
        let Some((id, rows, from)) = self.rest.front() else { return Ok(()) };
        let id = *id;
        let count = (bytes_max / input.row_bytes()).clamp(1, GATHERED_ROWS_MAX);
        let mut picked: Vec<u32> = rows.iter_from(*from).take(count).map(|row| row as u32).collect();
        let wanted = |column: &str| !self.left.iter().any(|left| left == column);
        let mut needs = input.needs(&picked, &wanted, &self.blocks);
        // A few living rows of each block would bring all blocks at once.
        while needs.len() > NEEDED_BLOCKS_MAX && picked.len() > 1 {
            picked.truncate(picked.len() / 2);
            needs = input.needs(&picked, &wanted, &self.blocks);
        }
        if !needs.is_empty() {
            return Err(needs);
        }
        let Some(&last) = picked.last() else { return Ok(()) };
        let mut versions = Versions::default();
        for &row in &picked {
            versions.push(input.versions().version(row as usize), input.versions().lsn(row as usize));
        }
        let gathered = input.pick(&picked, &wanted, &self.blocks).without(&self.left);
        self.segment_mut().append(&gathered, &versions);
        self.sources.extend(picked.iter().map(|&row| (id, row)));
        self.rest[0].2 = last as usize + 1;
        self.keep_blocks(input, last);
        Ok(())
    }

    /// Gives up all blocks but those that `row` is in.
    fn keep_blocks(&mut self, input: &Segment, row: u32) {
        let blocks = std::mem::take(&mut self.blocks);
        for group in input.stored().iter().filter(|group| group.is_movable()) {
            let index = group.block_of(row);
            if let Some(rows) = blocks.get(group, index) {
                self.blocks.insert(&BlockRef { group: group.clone(), index }, rows.clone());
            }
        }
    }

    /// Whether columns are left in storage: they are to be written before the rows are indexed.
    pub fn leaves_columns(&self) -> bool {
        !self.left.is_empty()
    }

    /// What it holds in memory, about, when all is gathered and indexed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it holds in memory beside its segment.
    pub fn memory_bytes(&self) -> usize {
        self.blocks.memory_bytes() + self.sources.capacity() * size_of::<(SegmentId, u32)>()
    }

    /// The input that `row` of the new segment is from.
    pub fn source(&self, row: usize) -> SegmentId {
        self.sources[row].0
    }

    /// A column that was left in storage of some rows of the new segment, from `rows.start` on, as many as are in one block of `input`, which
    /// [`Self::source`] named; or that block, when it is not there.
    pub fn column_piece(
        &mut self,
        input: &Segment,
        column: &str,
        rows: Range<usize>,
    ) -> Result<RecordBatch, Vec<BlockRef>> {
        let from = &self.sources[rows];
        let around = input.block_around(column, from[0].1).unwrap_or(0..u32::MAX);
        let here = from.iter().take_while(|(id, row)| *id == input.id() && around.contains(row));
        let picked: Vec<u32> = here.map(|(_, row)| *row).collect();
        let needs = input.needs(&picked, &|name| name == column, &self.blocks);
        if !needs.is_empty() {
            self.blocks = Blocks::default();
            return Err(needs);
        }
        Ok(input.column_of(column, &picked, &self.blocks))
    }

    /// Tells what is made of a column when its rows come, from row `start` on.
    pub fn note_column(&mut self, column: &str, start: usize, rows: &RecordBatch) {
        self.segment_mut().add_terms_of(column, start, rows.column(0));
    }

    /// Adds a row to an index of vectors that are in the files of the new segment by now; false when there is none. Or the block that it needs.
    pub fn index_left(&mut self, memory_limit_bytes: Option<usize>) -> Result<bool, Vec<BlockRef>> {
        let segment = Arc::get_mut(&mut self.segment).expect("nobody else has it yet");
        segment.index_left(&self.blocks, memory_limit_bytes).map_err(|block| {
            self.blocks = Blocks::default();
            vec![block]
        })
    }

    /// Looks at some deletes of the inputs, and takes along those that `state` has to keep; tells whether there are more.
    pub fn carry_deletes(&mut self, state: &mut CollectionState, count_max: usize) -> bool {
        let Some((input, from)) = self.deletes.front_mut() else { return false };
        let Some(input) = state.slot(*input).map(|slot| slot.segment.clone()) else { return false };
        let end = input.deletes.len().min(*from + count_max);
        let looked_at = &input.deletes[*from..end];
        *from = end;
        if end == input.deletes.len() {
            self.deletes.pop_front();
        }
        let kept: Vec<Tombstone> = looked_at.iter().filter(|delete| !state.is_outlived(delete)).cloned().collect();
        self.segment_mut().deletes.extend(kept);
        !self.deletes.is_empty()
    }

    /// Where blocks that it asked for go.
    pub fn blocks_mut(&mut self) -> &mut Blocks {
        &mut self.blocks
    }

    fn segment_mut(&mut self) -> &mut Segment {
        Arc::get_mut(&mut self.segment).expect("nobody else has it yet")
    }

    /// The input that [`Self::graft_some`] needs next, once all rows were gathered.
    pub fn next_graft(&self) -> Option<SegmentId> {
        self.base.filter(|_| self.grafts.as_ref().is_none_or(|grafts| !grafts.is_empty()))
    }

    /// Takes a step of taking over what is left of the graphs of `base`, which [`Self::next_graft`] named.
    pub fn graft_some(&mut self, base: &Segment, rows_max: usize, memory_limit_bytes: Option<usize>) {
        let Some(mut grafts) = self.grafts.take() else {
            let mut kept = RowMask::none(base.len());
            let rows = self.sources.iter().take_while(|(input, _)| *input == base.id());
            rows.for_each(|&(_, row)| kept.insert(row as usize));
            self.grafts = Some(self.segment.grafts(base, &kept, memory_limit_bytes));
            return;
        };
        self.segment_mut().graft_some(base, &mut grafts, rows_max);
        self.grafts = Some(grafts);
    }

    /// Adds at most `rows_max` of the gathered rows to their indexes; tells how many.
    pub fn index_some(&mut self, rows_max: usize, memory_limit_bytes: Option<usize>) -> usize {
        self.segment_mut().close();
        self.segment_mut().index_some(rows_max, memory_limit_bytes)
    }

    /// Lets go of what its indexes were built by, once they are written.
    pub fn settle(&mut self) {
        self.segment_mut().settle();
    }

    /// Whether nothing is left of the inputs, once all of them was looked at: then there is no new segment.
    pub fn is_nothing(&self) -> bool {
        self.segment.is_empty() && self.segment.deletes.is_empty()
    }

    /// Rows that are indexed.
    pub fn rows_indexed(&self) -> usize {
        self.segment.len() - self.segment.rows_unindexed().min(self.segment.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_by_waiting_comes_first() {
        let all = Waiting {
            swapping: true,
            flushing: true,
            unflushed: true,
            log_percent: 150,
            unindexed: true,
            stale: true,
            merging: true,
            crowded: false,
            turn: 1,
        };
        assert_eq!(choose_task(&all), Task::Swap);
        let flushing = Waiting { swapping: false, ..all };
        assert_eq!(choose_task(&flushing), Task::Flush);
        assert_eq!(choose_task(&Waiting { flushing: false, ..flushing }), Task::Flush, "the log grows too long");
        let calm = Waiting { flushing: false, log_percent: 149, ..flushing };
        assert_eq!(choose_task(&calm), Task::Index);
        assert_eq!(choose_task(&Waiting { turn: 2, ..calm }), Task::Merge, "a merge is not left waiting for ever");
        assert_eq!(choose_task(&Waiting { turn: 2, merging: false, ..calm }), Task::Index);
        assert_eq!(choose_task(&Waiting { turn: 2, merging: false, crowded: true, ..calm }), Task::Merge);
        let indexed = Waiting { unindexed: false, ..calm };
        assert_eq!(choose_task(&indexed), Task::Flush);
        assert_eq!(choose_task(&Waiting { unflushed: false, ..indexed }), Task::SaveIndex);
        assert_eq!(choose_task(&Waiting::default()), Task::Merge);
        assert!(choose_budget(1).bytes < choose_budget(0).bytes);
    }
}
