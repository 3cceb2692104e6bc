use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A row and its distance: smaller is closer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// The row's number in its segment.
    pub row: u32,
    /// Its distance to the query.
    pub distance: f32,
}

impl Eq for Neighbor {}

impl PartialOrd for Neighbor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Neighbor {
    /// By distance, then by row, so that the order of results never depends on the order of work.
    #[inline(always)]
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Neighbor {
    /// One integer in the order of distance (as of [`f32::total_cmp`]), then row.
    #[inline(always)]
    fn key(self) -> u64 {
        u64::from(ordered_bits(self.distance)) << 32 | u64::from(self.row)
    }
}

/// An integer in the order of the number (as of [`f32::total_cmp`]): negative ones turn over entirely, others in their sign only.
#[inline(always)]
pub fn ordered_bits(number: f32) -> u32 {
    let bits = number.to_bits();
    bits ^ (((bits as i32 >> 31) as u32) | 0x8000_0000)
}

/// The `k` closest of all neighbours pushed, in memory for `k` only.
#[derive(Debug, Clone, Default)]
pub struct TopK {
    heap: BinaryHeap<Neighbor>,
    k: usize,
}

impl TopK {
    /// An empty one for `k` neighbours; with 0 it stays empty.
    pub fn new(k: usize) -> Self {
        Self { heap: BinaryHeap::with_capacity(k.min(4096) + 1), k }
    }

    /// Takes `neighbor` when it is among the `k` closest so far.
    #[inline(always)]
    pub fn push(&mut self, neighbor: Neighbor) {
        if self.heap.len() < self.k || self.heap.peek().is_some_and(|worst| neighbor.key() < worst.key()) {
            self.take(neighbor);
        }
    }

    /// Apart from the comparison, which is all that most neighbours come to.
    #[inline(never)]
    fn take(&mut self, neighbor: Neighbor) {
        if self.heap.len() < self.k {
            self.heap.push(neighbor);
        } else if let Some(mut worst) = self.heap.peek_mut() {
            *worst = neighbor;
        }
    }

    /// The distance that a further neighbour must beat; infinite while there is room.
    #[inline(always)]
    pub fn bound(&self) -> f32 {
        match self.heap.peek() {
            Some(worst) if self.heap.len() >= self.k => worst.distance,
            _ if self.k == 0 => f32::NEG_INFINITY,
            _ => f32::INFINITY,
        }
    }

    /// The neighbours, closest first.
    pub fn into_sorted(self) -> Vec<Neighbor> {
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_sorting_everything(distances in prop::collection::vec(-5i8..5, 0..60), k in 0usize..20) {
            let all: Vec<Neighbor> =
                distances.iter().enumerate().map(|(row, &d)| Neighbor { row: row as u32, distance: f32::from(d) }).collect();
            let mut topk = TopK::new(k);
            all.iter().for_each(|&neighbor| topk.push(neighbor));
            let mut expected = all;
            expected.sort();
            expected.truncate(k);
            prop_assert_eq!(topk.into_sorted(), expected);
        }
    }
}
