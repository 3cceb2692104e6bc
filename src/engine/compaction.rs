use super::Slot;
use crate::base::{SegmentId, Version};
use crate::model::Batch;
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

fn rows_of(slot: &Slot) -> Vec<u32> {
    slot.kept().iter().map(|row| row as u32).collect()
}

/// The rows of several segments that somebody may read, on their way into one.
#[derive(Debug)]
pub struct Merge {
    /// The segments that it replaces.
    pub inputs: Vec<SegmentId>,
    /// Where each row of the new segment was.
    pub sources: Vec<(SegmentId, u32)>,
    /// The new segment; its index is being built.
    pub segment: Segment,
}

impl Merge {
    /// Gathers the rows of `slots` that live, and the dead ones that readers of the past may ask for, into a new segment. The deletes
    /// of the inputs move along: they still have to win over older writes. The blocks that it needs besides `blocks` when there are
    /// any.
    pub fn new(
        id: SegmentId,
        slots: &[&Slot],
        indexes: &std::collections::BTreeMap<String, crate::index::IndexSpec>,
        blocks: &Blocks,
    ) -> Result<Self, Vec<BlockRef>> {
        let needs = slots.iter().flat_map(|slot| slot.segment.needs(&rows_of(slot), &|_| true, blocks));
        let needs: Vec<BlockRef> = needs.collect();
        if !needs.is_empty() {
            return Err(needs);
        }
        let mut sources = Vec::new();
        let mut batches = Vec::new();
        let mut versions = Versions::default();
        let mut deletes = Vec::new();
        for slot in slots {
            let rows = rows_of(slot);
            let (batch, taken): (Batch, Vec<Version>) = slot.segment.take(&rows, blocks);
            for (&row, version) in rows.iter().zip(taken) {
                versions.push(version, slot.segment.versions().lsn(row as usize));
                sources.push((slot.segment.id(), row));
            }
            batches.push(batch);
            deletes.extend(slot.segment.deletes.iter().cloned());
        }
        let rows = Batch::concat(&batches);
        let schema = rows.schema().clone();
        let (scalars, vectors) = rows.into_parts();
        let segment =
            Segment::from_parts(id, &schema, indexes, scalars, vectors, versions, Default::default(), deletes);
        Ok(Self { inputs: slots.iter().map(|slot| slot.segment.id()).collect(), sources, segment })
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
