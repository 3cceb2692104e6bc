use std::collections::BTreeMap;

use hashbrown::HashSet;

use super::rows::Found;
use crate::base::{RowMask, SegmentId};
use crate::model::Key;
use crate::segment::Segment;

/// The rows that a search in several rounds has not given yet: those that its filter admits, which is asked once a segment, without those
/// that were given. Only of reads that always see the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Remaining {
    masks: BTreeMap<SegmentId, RowMask>,
    /// The keys of what was given: a merge may put rows that remain into a segment that is not known yet.
    given: HashSet<Key>,
}

impl Remaining {
    /// What remains of a segment; `None` when it is not known.
    pub(super) fn of(&self, segment: &Segment) -> Option<RowMask> {
        self.masks.get(&segment.id()).filter(|mask| mask.len() == segment.len()).cloned()
    }

    /// Notes which rows of a segment are admitted, and tells which of them remain.
    pub(super) fn keep(&mut self, segment: &Segment, mut admitted: RowMask) -> RowMask {
        if !self.given.is_empty() {
            let given: Vec<usize> = admitted.iter().filter(|&row| self.given.contains(&segment.key(row))).collect();
            given.into_iter().for_each(|row| admitted.remove(row));
        }
        self.masks.insert(segment.id(), admitted.clone());
        admitted
    }

    /// Notes that a row was given.
    pub(super) fn give(&mut self, found: &Found) {
        let (segment, row) = found.place;
        if let Some(mask) = self.masks.get_mut(&segment).filter(|mask| (row as usize) < mask.len()) {
            mask.remove(row as usize);
        }
        self.given.insert(found.key.clone());
    }
}
