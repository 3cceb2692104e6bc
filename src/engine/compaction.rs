use std::collections::VecDeque;
use std::sync::Arc;

use super::{CollectionSpec, Slot};
use crate::base::{RowMask, SegmentId};
use crate::segment::{BlockRef, Blocks, Segment, Versions};

/// The growing segment is sealed at this many rows: graphs of this size still build in reasonable slices.
const SEAL_ROWS: usize = 131_072;
/// Or when its log files reach this size: it bounds what a restart replays.
const SEAL_LOG_BYTES: u64 = 64 << 20;
/// Segments of fewer living rows than this are merged when there are many of them.
const SMALL_ROWS: usize = 16_384;
/// This many small segments are merged at once.
const SMALL_COUNT: usize = 4;
/// A segment is rewritten when this share of its rows is dead.
const DEAD_SHARE: f64 = 0.3;
/// Rows that are gathered at once, however small they are.
const GATHERED_ROWS_MAX: usize = 1_024;

/// Whether the growing segment should be sealed, from its rows and the length of its log.
pub fn should_seal(rows: usize, log_bytes: u64) -> bool {
    rows >= SEAL_ROWS || log_bytes >= SEAL_LOG_BYTES
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
    /// What these take when they are gathered, about.
    pub bytes: usize,
}

/// Which segments to merge into one of at most `bytes_max`; none when all is well. Comes first what frees most: the segment with the
/// greatest share of dead rows, when that is too great; then small ones, the oldest first, when there are many. With `whole` every
/// dead row is too much, and every segment that another one fits beside is small.
pub fn choose_merge(segments: &[Candidate], bytes_max: usize, whole: bool) -> Vec<SegmentId> {
    let (dead_share, small_rows, small_count) =
        if whole { (0.0, SEAL_ROWS, 2) } else { (DEAD_SHARE, SMALL_ROWS, SMALL_COUNT) };
    let share = |segment: &&Candidate| (segment.rows - segment.live) as f64 / segment.rows.max(1) as f64;
    let wasteful = segments.iter().filter(|segment| share(segment) > dead_share && segment.bytes <= bytes_max);
    let most = wasteful.max_by(|a, b| share(a).total_cmp(&share(b)));
    let (mut rows, mut bytes) = (0, 0);
    let fits = |segment: &&Candidate| {
        rows += segment.live;
        bytes += segment.bytes;
        rows <= SEAL_ROWS && bytes <= bytes_max
    };
    let small = segments.iter().filter(|segment| segment.live < small_rows);
    let small: Vec<SegmentId> = small.take_while(fits).map(|segment| segment.id).collect();
    match most {
        // Those with dead rows are among the small ones then, and written once.
        Some(most) if !whole || small.len() < small_count => vec![most.id],
        _ if small.len() < small_count => Vec::new(),
        _ => small,
    }
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

/// The budget of a step, before which so many calls came since the one before. A row takes a tenth of a millisecond to index natively and three times that
/// in a browser, a quarter of a MiB about a millisecond to compress.
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
const SEGMENTS_PRESSING: usize = 2 * SMALL_COUNT;

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
    /// Where each row of the new segment was: ascending by input and row.
    pub(super) sources: Vec<(SegmentId, u32)>,
    /// Blocks that the next rows may be in too.
    blocks: Blocks,
    /// How many rows have taken their place.
    pub(super) placed: usize,
}

impl Merge {
    /// A merge of the rows of `slots` that live, and of the dead ones that readers of the past may ask for, into segment `id`. The
    /// deletes of the inputs move along: they still have to win over older writes.
    pub fn new(id: SegmentId, mut slots: Vec<&Slot>, spec: &CollectionSpec) -> Self {
        slots.sort_by_key(|slot| slot.segment.id());
        let mut segment = Segment::new(id, &spec.schema, &spec.indexes);
        let mut rest = VecDeque::new();
        let mut rows = 0;
        for slot in &slots {
            let kept = slot.kept();
            rows += kept.count();
            rest.push_back((slot.segment.id(), kept, 0));
            segment.deletes.extend(slot.segment.deletes.iter().cloned());
        }
        let inputs = slots.iter().map(|slot| slot.segment.id()).collect();
        let segment = Arc::new(segment);
        Self { inputs, segment, rows, rest, sources: Vec::new(), blocks: Blocks::default(), placed: 0 }
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
        let picked: Vec<u32> = rows.iter_from(*from).take(count).map(|row| row as u32).collect();
        let Some(&last) = picked.last() else { return Ok(()) };
        let needs = input.needs(&picked, &|_| true, &self.blocks);
        if !needs.is_empty() {
            return Err(needs);
        }
        let mut versions = Versions::default();
        for &row in &picked {
            versions.push(input.versions().version(row as usize), input.versions().lsn(row as usize));
        }
        let gathered = input.pick(&picked, &|_| true, &self.blocks);
        self.segment_mut().append(&gathered, &versions);
        self.sources.extend(picked.iter().map(|&row| (id, row)));
        self.rest[0].2 = last as usize + 1;
        let blocks = std::mem::take(&mut self.blocks);
        for group in input.stored().iter().filter(|group| group.is_movable()) {
            let index = group.block_of(last);
            if let Some(rows) = blocks.get(group, index) {
                self.blocks.insert(&BlockRef { group: group.clone(), index }, rows.clone());
            }
        }
        Ok(())
    }

    /// Where blocks that it asked for go.
    pub fn blocks_mut(&mut self) -> &mut Blocks {
        &mut self.blocks
    }

    fn segment_mut(&mut self) -> &mut Segment {
        Arc::get_mut(&mut self.segment).expect("nobody else has it yet")
    }

    /// Adds at most `rows_max` of the gathered rows to their indexes; tells how many.
    pub fn index_some(&mut self, rows_max: usize) -> usize {
        self.segment_mut().index_some(rows_max)
    }

    /// Rows that are indexed.
    pub fn rows_indexed(&self) -> usize {
        self.segment.len() - self.segment.rows_unindexed().min(self.segment.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(id: u64, rows: usize, live: usize) -> Candidate {
        Candidate { id: SegmentId(id), rows, live, bytes: live * 100 }
    }

    fn chosen(segments: &[Candidate], bytes_max: usize) -> Vec<u64> {
        choose_merge(segments, bytes_max, false).into_iter().map(|id| id.0).collect()
    }

    #[test]
    fn the_most_wasteful_segment_comes_first() {
        let segments = [segment(1, 1000, 650), segment(2, 1000, 100), segment(3, 1000, 1000), segment(4, 0, 0)];
        assert_eq!(chosen(&segments, usize::MAX), [2]);
        assert_eq!(chosen(&segments[..1], usize::MAX), [1]);
        assert_eq!(chosen(&segments[2..], usize::MAX), [0; 0]);
        assert_eq!(chosen(&segments[..1], 64_999), [0; 0], "it would not fit into memory");
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
        let whole = |segments: &[Candidate]| choose_merge(segments, usize::MAX, true).len();
        assert_eq!((whole(&both), whole(&small[..2]), whole(&small[..1])), (6, 2, 0));
        assert_eq!(whole(&[segment(1, 1000, 999)]), 1);
    }
}
