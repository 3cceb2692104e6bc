use std::sync::{Mutex, PoisonError};

use super::Effort;
use super::codes::{CodeQuery, Room};
use crate::base::ordered_bits;

/// A distance and a row in one integer that sorts by distance, then row: 32 bits of distance, 31 of row, one mark. An insertion
/// into a sorted list then compares and moves single words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate(u64);

impl Candidate {
    pub(super) const FARTHEST: Self = Self(u64::MAX);

    #[inline(always)]
    pub(super) fn new(distance: f32, row: u32) -> Self {
        Self((u64::from(ordered_bits(distance)) << 32) | (u64::from(row) << 1))
    }

    #[inline(always)]
    pub(super) fn row(self) -> u32 {
        (self.0 as u32) >> 1
    }

    #[inline(always)]
    pub(super) fn distance(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(ordered ^ (((!ordered as i32 >> 31) as u32) | 0x8000_0000))
    }
}

/// The `ef` closest candidates so far, sorted, each marked once it was expanded.
#[derive(Debug, Default)]
pub(super) struct Nearest {
    candidates: Vec<Candidate>,
    ef: usize,
    /// All before this one are expanded.
    cursor: usize,
}

impl Nearest {
    pub(super) fn reset(&mut self, ef: usize) {
        self.candidates.clear();
        self.ef = ef.max(1);
        self.cursor = 0;
    }

    /// Goes on with the candidates that there are, none of them expanded, on another level or with another `ef`.
    pub(super) fn restart(&mut self, ef: usize) {
        self.ef = ef.max(1);
        self.candidates.truncate(self.ef);
        self.candidates.iter_mut().for_each(|candidate| candidate.0 &= !1);
        self.cursor = 0;
    }

    /// Takes `candidate` when it is among the `ef` closest. It must not be in the list.
    #[inline(always)]
    pub(super) fn push(&mut self, candidate: Candidate) {
        if candidate >= self.bound() {
            return;
        }
        if self.candidates.len() < self.ef {
            self.candidates.push(candidate);
        }
        // Moved by hand, from the end: most are taken near it, and a copy of a few words is a call into the host in WebAssembly.
        let mut position = self.candidates.len() - 1;
        while position > 0 && self.candidates[position - 1] > candidate {
            self.candidates[position] = self.candidates[position - 1];
            position -= 1;
        }
        self.candidates[position] = candidate;
        self.cursor = self.cursor.min(position);
    }

    /// What a further candidate must be closer than.
    #[inline(always)]
    pub(super) fn bound(&self) -> Candidate {
        if self.candidates.len() < self.ef { Candidate::FARTHEST } else { self.candidates[self.candidates.len() - 1] }
    }

    /// The closest row that was not expanded, and marks it.
    #[inline(always)]
    pub(super) fn expand_next(&mut self) -> Option<u32> {
        while let Some(candidate) = self.candidates.get_mut(self.cursor) {
            self.cursor += 1;
            if candidate.0 & 1 == 0 {
                candidate.0 |= 1;
                return Some(candidate.row());
            }
        }
        None
    }

    /// Whether there are as many as are kept.
    pub(super) fn is_full(&self) -> bool {
        self.candidates.len() == self.ef
    }

    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }
}

/// Which rows a search has seen: a mark per row that counts searches, so that nothing is cleared but once in 255 searches.
#[derive(Debug, Default)]
pub(super) struct Visited {
    marks: Vec<u8>,
    epoch: u8,
}

impl Visited {
    pub(super) fn reset(&mut self, rows: usize) {
        if self.marks.len() < rows {
            self.marks.resize(rows, 0);
        }
        self.epoch = match self.epoch.checked_add(1) {
            Some(epoch) => epoch,
            None => {
                self.marks.fill(0);
                1
            }
        };
    }

    /// Whether a row is marked.
    #[inline(always)]
    pub(super) fn contains(&self, row: u32) -> bool {
        self.marks[row as usize] == self.epoch
    }

    /// Marks a row; whether it was not marked before.
    #[inline(always)]
    pub(super) fn insert(&mut self, row: u32) -> bool {
        let mark = &mut self.marks[row as usize];
        let new = *mark != self.epoch;
        *mark = self.epoch;
        new
    }
}

/// What one search works in.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) visited: Visited,
    pub(super) nearest: Nearest,
    pub(super) query: CodeQuery,
    /// A row of the graph, in the place of a query.
    pub(super) row: CodeQuery,
    /// The rows of one expansion, and room for their distances.
    pub(super) rows: Vec<u32>,
    pub(super) room: Room,
    /// Neighbours of an expansion that lead on but are not found.
    pub(super) bridges: Vec<u32>,
    /// What the first numbers of scanned rows say about their distances.
    pub(super) begun: Vec<f32>,
    /// What the search has taken so far.
    pub(super) effort: Effort,
}

/// Scratch of finished searches, for the next ones: one per search that ran at the same time.
#[derive(Debug, Default)]
pub(super) struct ScratchPool(Mutex<Vec<Scratch>>);

impl ScratchPool {
    /// Runs `work` in scratch that is nobody else's.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = taken.unwrap_or_default();
        let result = work(&mut scratch);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let pool = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pool.iter().map(|scratch| size_of::<Scratch>() + scratch.visited.marks.capacity()).sum()
    }
}

impl Clone for ScratchPool {
    /// An empty pool: scratch is never shared.
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn candidates_sort_as_distances_do(a in any::<f32>(), b in any::<f32>(), row in 0u32..1 << 31) {
            let (left, right) = (Candidate::new(a, row), Candidate::new(b, row));
            prop_assert_eq!(left.distance().to_bits(), a.to_bits());
            prop_assert_eq!(left.row(), row);
            prop_assert_eq!(left.cmp(&right), a.total_cmp(&b));
        }

        #[test]
        fn nearest_keeps_the_closest_and_expands_each_once(distances in prop::collection::vec(0u8..50, 0..80), ef in 1usize..20) {
            let mut nearest = Nearest::default();
            nearest.reset(ef);
            let mut all = Vec::new();
            let mut expanded = Vec::new();
            for (row, &distance) in distances.iter().enumerate() {
                let candidate = Candidate::new(f32::from(distance), row as u32);
                all.push(candidate);
                nearest.push(candidate);
                if row % 3 == 0 {
                    expanded.extend(nearest.expand_next());
                }
            }
            while let Some(row) = nearest.expand_next() {
                expanded.push(row);
            }
            all.sort();
            all.truncate(ef);
            let kept: Vec<u32> = nearest.candidates().iter().map(|candidate| candidate.row()).collect();
            prop_assert_eq!(&kept, &all.iter().map(|candidate| candidate.row()).collect::<Vec<_>>());
            prop_assert!(kept.iter().all(|row| expanded.contains(row)));
            expanded.sort_unstable();
            let len = expanded.len();
            expanded.dedup();
            prop_assert_eq!(len, expanded.len());
        }
    }

    #[test]
    fn visited_forgets_at_every_reset() {
        let mut visited = Visited::default();
        for _ in 0..600 {
            visited.reset(3);
            assert!(visited.insert(2));
            assert!(!visited.insert(2));
        }
    }
}
