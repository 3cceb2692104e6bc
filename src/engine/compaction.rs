use super::Slot;
use crate::base::{SegmentId, Version};
use crate::model::Batch;
use crate::segment::{Blocks, Segment, Versions};

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

/// Which segments to merge into one, from id, rows and rows that somebody may read of the flushed ones; none when all is well.
pub fn choose_merge(segments: &[(SegmentId, usize, usize)]) -> Vec<SegmentId> {
    let wasteful = segments.iter().find(|(_, rows, live)| (rows - live) as f64 > DEAD_SHARE * *rows as f64);
    if let Some((id, ..)) = wasteful {
        return vec![*id];
    }
    let small: Vec<_> = segments.iter().filter(|(_, _, live)| *live < SMALL_ROWS).collect();
    if small.len() < SMALL_COUNT {
        return Vec::new();
    }
    let mut rows = 0;
    small
        .iter()
        .take_while(|(_, _, live)| {
            rows += live;
            rows <= SEAL_ROWS
        })
        .map(|(id, ..)| *id)
        .collect()
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
    /// Gathers the rows of `slots` that live, and the dead ones that readers of the past may ask for, into a new segment. The deletes of the inputs move along: they still have to win
    /// over older writes.
    pub fn new(
        id: SegmentId,
        slots: &[&Slot],
        indexes: &std::collections::BTreeMap<String, crate::index::IndexSpec>,
    ) -> Self {
        let mut sources = Vec::new();
        let mut batches = Vec::new();
        let mut versions = Versions::default();
        let mut deletes = Vec::new();
        for slot in slots {
            let rows: Vec<u32> = slot.kept().iter().map(|row| row as u32).collect();
            let (batch, taken): (Batch, Vec<Version>) = slot.segment.take(&rows, &Blocks::default());
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
        Self { inputs: slots.iter().map(|slot| slot.segment.id()).collect(), sources, segment }
    }
}
