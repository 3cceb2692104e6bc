use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::base::{RowMask, SegmentId};
use crate::query::Filter;
use crate::segment::Segment;

/// What masks take together at most, and of the memory limit.
const BYTES_MAX: usize = 4 << 20;
const LIMIT_SHARE: usize = 64;
/// Fewer rows are asked in less time than their mask is looked up.
const ROWS_MIN: usize = 4_096;
/// What an entry takes besides its mask and its filter.
const ENTRY_BYTES: usize = 96;

/// The rows of flushed segments for which filters are true, of the filters that were asked last: by segment, which does not change any
/// more, and by the filter's normal form. So a mask is right for every snapshot, and holds the dead rows too: what a reader sees of them
/// is asked each time.
#[derive(Debug, Default)]
pub(in crate::db) struct Masks(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    masks: BTreeMap<(SegmentId, String), (RowMask, u64)>,
    bytes: usize,
    /// Counts the looks, to tell which mask was asked for longest ago.
    turn: u64,
}

impl Masks {
    /// The name of a mask; none of segments that are small, or that take rows.
    pub(super) fn key(segment: &Segment, filter: &Filter) -> Option<(SegmentId, String)> {
        let is_kept = segment.len() >= ROWS_MIN && !segment.stored().is_empty();
        is_kept.then(|| (segment.id(), filter.to_string()))
    }

    pub(super) fn get(&self, key: &(SegmentId, String)) -> Option<RowMask> {
        let mut held = self.0.lock().expect("no panic while held");
        held.turn += 1;
        let turn = held.turn;
        let (mask, used) = held.masks.get_mut(key)?;
        *used = turn;
        Some(mask.clone())
    }

    /// Keeps a mask, and gives up those that were asked for longest ago where they are too many.
    pub(super) fn keep(&self, key: (SegmentId, String), mask: &RowMask, limit: Option<usize>) {
        let capacity = limit.map_or(BYTES_MAX, |limit| (limit / LIMIT_SHARE).min(BYTES_MAX));
        let mut held = self.0.lock().expect("no panic while held");
        held.turn += 1;
        let turn = held.turn;
        let bytes = bytes_of(&key, mask);
        if bytes > capacity || held.masks.insert(key, (mask.clone(), turn)).is_some() {
            return;
        }
        held.bytes += bytes;
        while held.bytes > capacity {
            let Some(oldest) = held.masks.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone()) else {
                return;
            };
            if let Some((mask, _)) = held.masks.remove(&oldest) {
                held.bytes -= bytes_of(&oldest, &mask);
            }
        }
    }

    /// What they take.
    pub(in crate::db) fn bytes(&self) -> usize {
        self.0.lock().expect("no panic while held").bytes
    }
}

fn bytes_of((_, filter): &(SegmentId, String), mask: &RowMask) -> usize {
    ENTRY_BYTES + filter.len() + mask.len() / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_stay_within_their_bytes_and_the_oldest_goes_first() {
        let masks = Masks::default();
        let key = |number: u64| (SegmentId(number), "id > 0".to_owned());
        let mask = RowMask::all(80_000);
        let limit = Some(LIMIT_SHARE * 35_000);
        for number in 0..10 {
            masks.keep(key(number), &mask, limit);
            // The first is asked for again and again.
            assert!(masks.get(&key(0)).is_some());
            assert!(masks.bytes() <= 35_000);
        }
        let left: Vec<u64> = (0..10).filter(|&number| masks.get(&key(number)).is_some()).collect();
        assert_eq!(left, [0, 8, 9]);
        masks.keep(key(11), &RowMask::all(400_000), limit);
        assert!(masks.get(&key(11)).is_none(), "too large for all of them");
        let held = masks.bytes();
        masks.keep(key(9), &mask, limit);
        assert_eq!(masks.bytes(), held, "the same once more takes no more");
    }
}
