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

/// When segments are merged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MergePolicy {
    /// Segments of fewer living rows and deletes than this are small; 16,384.
    pub small_rows: usize,
    /// So many small ones become one; 4. At least 2.
    pub small_count: usize,
    /// A segment is rewritten when a greater share of its rows is dead; 0.3. Dead rows are still in its graph, and lead on.
    pub dead_share: f64,
    /// A segment is rewritten, with a new graph, when a greater share of its rows is in a graph in which no way leads to them, so that
    /// searches miss them; 0.001.
    pub unreachable_share: f64,
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self { small_rows: 16_384, small_count: 4, dead_share: 0.3, unreachable_share: 0.001 }
    }
}

impl MergePolicy {
    /// Merges all that can be merged: every dead row is too much, and every segment is small that another one fits beside.
    pub const WHOLE: Self = Self { small_rows: SEAL_ROWS, small_count: 2, dead_share: 0.0, unreachable_share: 0.0 };
}

/// What a policy of compaction knows of a flushed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: SegmentId,
    /// Its rows.
    pub rows: usize,
    /// Those of them that somebody may read.
    pub live: usize,
    /// Its deletes.
    pub deletes: usize,
    /// What a merge holds of the living rows in memory, about.
    pub bytes: usize,
    /// Nodes of its graphs to which no way leads, as far as somebody has looked.
    pub unreachable: usize,
}

impl Candidate {
    fn dead_share(&self) -> f64 {
        (self.rows - self.live) as f64 / self.rows.max(1) as f64
    }

    fn is_wasteful(&self, policy: &MergePolicy) -> bool {
        self.dead_share() > policy.dead_share
            || self.unreachable as f64 > policy.unreachable_share * self.rows.max(1) as f64
    }

    fn size(&self) -> usize {
        self.live + self.deletes
    }
}

/// Which segments to merge into one of at most `bytes_max`; none when all is well. Comes first what frees most: the segment with the
/// greatest share of dead rows, when that is too great, or with a graph that has come apart; then small ones, the oldest first, when there are many.
///
/// A log of deletes, which is a segment without rows, is on the level `n` when it holds at least `small_rows * small_count^n` of
/// them; when there are `small_count` on a level they become one of the next. So a delete is rewritten once a level, and of
/// logs there are few.
pub fn choose_merge(segments: &[Candidate], bytes_max: usize, policy: &MergePolicy) -> Vec<SegmentId> {
    let small_count = policy.small_count.max(2);
    let wasteful = segments.iter().filter(|segment| segment.is_wasteful(policy) && segment.bytes <= bytes_max);
    let most = wasteful.max_by(|a, b| a.dead_share().total_cmp(&b.dead_share()));
    let (mut rows, mut bytes) = (0, 0);
    let fits = |segment: &&Candidate| {
        let fits = rows + segment.live <= SEAL_ROWS && bytes + segment.bytes <= bytes_max;
        if fits {
            rows += segment.live;
            bytes += segment.bytes;
        }
        fits
    };
    let small = segments.iter().filter(|segment| segment.size() < policy.small_rows);
    let small: Vec<SegmentId> = small.filter(fits).map(|segment| segment.id).collect();
    match most {
        // One among small ones that are merged anyway is written once then.
        Some(most) if small.len() < small_count || !small.contains(&most.id) => return vec![most.id],
        _ if small.len() >= small_count => return small,
        _ => {}
    }
    let level = |segment: &Candidate| (segment.deletes / policy.small_rows.max(1)).checked_ilog(small_count);
    let logs = || segments.iter().filter(|segment| segment.rows == 0);
    let on_level =
        |wanted: u32| logs().filter(move |log| level(log) == Some(wanted)).map(|log| log.id).collect::<Vec<_>>();
    let mut levels = logs().filter_map(level).collect::<Vec<_>>();
    levels.sort_unstable();
    levels.into_iter().map(on_level).find(|logs| logs.len() >= small_count).unwrap_or_default()
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
    /// Flushed segments.
    pub segments: usize,
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
/// With so many segments a merge has its turn while rows are being indexed: each search looks into all of them.
const SEGMENTS_PRESSING: usize = 8;

/// What comes next, in the order of what is lost by waiting: a merged segment takes its place, and a flush that has begun comes to its
/// end; a log that grows too long is flushed; rows without index, which every search compares one by one, are indexed; and what
/// makes the store smaller comes last, but for every second turn while there are very many segments.
pub fn choose_task(waiting: &Waiting) -> Task {
    let merges_too = (waiting.merging || waiting.segments >= SEGMENTS_PRESSING) && waiting.turn.is_multiple_of(2);
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
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn segment(id: u64, rows: usize, live: usize) -> Candidate {
        Candidate { id: SegmentId(id), rows, live, deletes: 0, bytes: live * 100, unreachable: 0 }
    }

    fn log(id: u64, deletes: usize) -> Candidate {
        Candidate { id: SegmentId(id), rows: 0, live: 0, deletes, bytes: 0, unreachable: 0 }
    }

    fn chosen(segments: &[Candidate], bytes_max: usize) -> Vec<u64> {
        choose_merge(segments, bytes_max, &MergePolicy::default()).into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_most_wasteful_segment_comes_first() {
        let segments = [segment(1, 1000, 650), segment(2, 1000, 100), segment(3, 1000, 1000), segment(4, 0, 0)];
        assert_eq!(chosen(&segments[..3], usize::MAX), [2]);
        assert_eq!(chosen(&segments, usize::MAX), [1, 2, 3, 4], "it is among small ones that are many");
        assert_eq!(chosen(&segments[..1], usize::MAX), [1]);
        assert_eq!(chosen(&segments[2..], usize::MAX), [0; 0]);
        assert_eq!(chosen(&segments[..1], 64_999), [0; 0], "it would not fit into memory");
        let policy = MergePolicy { dead_share: 0.4, ..MergePolicy::default() };
        assert_eq!(choose_merge(&segments[..1], usize::MAX, &policy), []);
    }

    #[test]
    fn many_small_segments_become_one_that_fits() {
        let small: Vec<Candidate> = (1..=6).map(|id| segment(id, 10_000, 10_000)).collect();
        assert_eq!(chosen(&small[..3], usize::MAX), [0; 0]);
        assert_eq!(chosen(&small[..4], usize::MAX), [1, 2, 3, 4]);
        assert_eq!(chosen(&small, 5_000_000), [1, 2, 3, 4, 5]);
        assert_eq!(chosen(&small, 3_000_000), [0; 0], "three are not worth it");
        let large = [segment(7, 20_000, 20_000), segment(8, 20_000, 20_000)];
        let both: Vec<Candidate> = large.iter().chain(&small[..4]).copied().collect();
        assert_eq!(chosen(&both, usize::MAX), [1, 2, 3, 4]);
        let whole = |segments: &[Candidate]| choose_merge(segments, usize::MAX, &MergePolicy::WHOLE).len();
        assert_eq!((whole(&both), whole(&small[..2]), whole(&small[..1])), (6, 2, 0));
        assert_eq!(whole(&[segment(1, 1000, 999)]), 1);
    }

    #[test]
    fn logs_of_deletes_are_merged_level_by_level() {
        let logs: Vec<Candidate> = (1..=4).map(|id| log(id, 20_000)).collect();
        assert_eq!(chosen(&logs[..3], usize::MAX), [0; 0]);
        assert_eq!(chosen(&logs, usize::MAX), [1, 2, 3, 4]);
        let mixed: Vec<Candidate> =
            logs[..3].iter().copied().chain([log(5, 80_000), segment(6, 50_000, 50_000)]).collect();
        assert_eq!(chosen(&mixed, usize::MAX), [0; 0], "those of one level only");
        // Small logs go with small segments.
        let small = [log(1, 10), segment(2, 10, 10), log(3, 10), segment(4, 10, 10)];
        assert_eq!(chosen(&small, usize::MAX), [1, 2, 3, 4]);
    }

    proptest! {
        /// A delete is written again once a level, not with every flush: so often as levels that its log has gone through.
        #[test]
        fn deletes_are_rewritten_a_few_times(flushes in 1usize..300, deletes in 1usize..40_000) {
            let policy = MergePolicy::default();
            let mut segments: Vec<Candidate> = Vec::new();
            let mut written = 0;
            for flush in 0..flushes {
                segments.push(log(flush as u64, deletes));
                loop {
                    let inputs: BTreeSet<SegmentId> = choose_merge(&segments, usize::MAX, &policy).into_iter().collect();
                    if inputs.is_empty() {
                        break;
                    }
                    prop_assert!(inputs.len() > 1, "a merge makes them fewer");
                    let sum = segments.iter().filter(|log| inputs.contains(&log.id)).map(|log| log.deletes).sum();
                    written += sum;
                    segments.retain(|log| !inputs.contains(&log.id));
                    segments.push(log(1_000 + written as u64, sum));
                }
            }
            let total = flushes * deletes;
            let small = policy.small_rows.div_ceil(deletes).max(1);
            let levels = |logs: usize| logs.checked_ilog(policy.small_count).map_or(0, |levels| levels as usize + 1);
            prop_assert!(segments.len() <= policy.small_count * (2 + levels(flushes)), "{} logs", segments.len());
            // A log that is still small is rewritten by every few flushes; later ones once a level.
            prop_assert!(written <= total * (small.div_ceil(policy.small_count - 1) + 1 + levels(flushes)), "{written} of {total}");
        }
    }

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
            segments: 3,
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
        assert_eq!(choose_task(&Waiting { turn: 2, merging: false, segments: 8, ..calm }), Task::Merge);
        let indexed = Waiting { unindexed: false, ..calm };
        assert_eq!(choose_task(&indexed), Task::Flush);
        assert_eq!(choose_task(&Waiting { unflushed: false, ..indexed }), Task::SaveIndex);
        assert_eq!(choose_task(&Waiting::default()), Task::Merge);
        assert!(choose_budget(1).bytes < choose_budget(0).bytes);
    }
}
