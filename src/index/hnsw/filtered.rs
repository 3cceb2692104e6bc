//! Search among the rows that a mask admits, by the cheapest of ways that lose nothing:
//!
//! 1. **Scan.** The codes of all admitted rows are compared, in their order: a quarter of the time of a comparison in a walk. Chosen when
//!    that costs at most twice what an unfiltered walk does, `120 + 7 ef` comparisons, or as much as the walk would, of which the cost
//!    grows by the root of the number of rows for each admitted one. The vectors of those rows decide that the
//!    codes cannot tell apart.
//! 2. **Walk over admitted nodes**, with two steps where few neighbours are admitted, from what an unfiltered search with eight candidates
//!    finds near the query. Chosen when of that at least one node in 32 is admitted; with twice the candidates where it is less than half of
//!    the share in all.
//! 3. Where nothing near the query is admitted: **walks from admitted rows spread over all**. When one finds what another has missed, the
//!    answer depends on where it starts, and the rows are scanned.
//!
//! Where fewer are admitted near the query than elsewhere and a scan costs up to six unfiltered walks, it is scanned at once: of 40 such
//! searches of the sample all walks had ended in a scan, which came to 1,738 and 1,571 comparisons for half of the rows.
//!
//! A walk that has cost as much as the scan would gives way to it; so it takes twice the time of a scan at most.
//!
//! Counted for `k` 10 and `ef` 24, a query: comparisons (scanned ones as a quarter, 16 looks at a neighbour as one) and recall@10. On the
//! sample (8,116 rows of 384 dimensions, IP; unfiltered 282 and 0.995), and on 40,000 rows around 300 centres (48 dimensions, L2;
//! unfiltered 276 and 1.000). `near` admits the rows nearest to the query, `elsewhere` those nearest to another row, `far` all but the
//! nearest ones, `rarer` rows at random, but a tenth as many in the quarter that is near the query.
//!
//! | sample | 50 % | 10 % | 1 % | clusters | 50 % | 10 % | 1 % |
//! |---|---|---|---|---|---|---|---|
//! | random | 505, 0.993 | 202, 1.000 | 20, 1.000 | | 461, 1.000 | 943, 0.987 | 102, 1.000 |
//! | near | 307, 0.995 | 203, 1.000 | 20, 1.000 | | 306, 1.000 | 1000, 1.000 | 100, 1.000 |
//! | elsewhere | 603, 1.000 | 203, 1.000 | 20, 1.000 | | 310, 1.000 | 1000, 1.000 | 100, 1.000 |
//! | far | 1168, 1.000 | 203, 1.000 | 20, 1.000 | | 5707, 0.967 | 1000, 0.997 | 100, 1.000 |
//! | rarer | 958, 1.000 | 156, 1.000 | 15, 1.000 | | 2147, 0.970 | 777, 1.000 | 76, 1.000 |

use super::Hnsw;
use super::codes::CodeQuery;
use super::scratch::{Candidate, Scratch};
use crate::base::{RowMask, sort_by_key};

/// What a search of a graph took: what its cost follows from, whatever the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Codes that were compared with the query.
    pub compared: usize,
    /// Neighbours that a filtered walk looked at, most of them to find that they are not admitted.
    pub looked_at: usize,
    /// Whether the codes of all admitted rows were compared, at once or after a walk that led nowhere.
    pub scanned: bool,
}

/// Rows compared at once by a scan.
const BLOCK: usize = 64;
/// Neighbours looked at in the time of one comparison of a walk.
const LOOKS_PER_COMPARISON: usize = 16;
/// Rows that a scan compares in that time: it reads them in their order, and keeps no marks.
const SCANNED_PER_COMPARISON: usize = 4;
/// Nodes that are kept while it is looked what is near the query, admitted or not.
const NEAR: usize = 8;
/// Of what is near the query, one in so many must be admitted: then the nodes within two steps lead on.
const SPARSE: usize = 32;
/// Admitted rows, spread over all, from which a walk starts where none is near the query.
const SEEDS: usize = 64;
/// Of these, the first walk starts from one part, and as many others look whether it has missed something.
const PARTS: usize = 4;
/// Nodes that are kept by a walk which looks whether another one has missed something.
const DOUBTING: usize = 6;
/// Rows of a scan whose vectors are compared, at most.
const RERANKED_MAX: usize = 1_024;

/// Where fewer are admitted near the query than elsewhere, a scan comes first that costs so many times what an unfiltered walk does at
/// most: nearly all walks there ended in one.
const SURE: usize = 6;

/// A scan compares the vectors of those rows whose codes are no farther than the `k`th and so many standard deviations of what codes
/// are wrong by.
const DEVIATIONS: f32 = 4.0;

impl Effort {
    fn cost(&self) -> usize {
        self.compared + self.looked_at / LOOKS_PER_COMPARISON
    }
}

/// Comparisons that an unfiltered walk makes, about.
fn walked(ef: usize) -> usize {
    120 + 7 * ef
}

impl Hnsw {
    /// The rows whose codes are closest among those that `mask` admits, which are `admitted`, in no order.
    pub(super) fn find_admitted(
        &self,
        query: &CodeQuery,
        k: usize,
        ef: usize,
        mask: &RowMask,
        admitted: usize,
        scratch: &mut Scratch,
    ) -> Vec<u32> {
        let (walk, scan) = (walked(ef), admitted / SCANNED_PER_COMPARISON);
        // The walk's cost grows with the root of what a filter leaves out: twice as many nodes to pass share most of their neighbours.
        let filtered = walk as f64 * (self.len() as f64 / admitted as f64).sqrt();
        let is_few = scan <= (2 * walk).max((1.1 * filtered) as usize);
        if is_few || !self.walk_admitted(query, k, ef, mask, admitted, scratch) {
            return self.scan(query, k, mask, scratch);
        }
        let mut found = Vec::new();
        self.collect(
            scratch.nearest.candidates(),
            self.codes.reranked(k, ef),
            |row| mask.contains(row as usize),
            &mut found,
        );
        self.add_zeros(Some(mask), k, &mut found);
        found
    }

    /// Compares the codes of all admitted rows. Gives those that may be among the `k` closest, for all that codes can tell.
    fn scan(&self, query: &CodeQuery, k: usize, mask: &RowMask, scratch: &mut Scratch) -> Vec<u32> {
        let Scratch { rows, room, effort, .. } = scratch;
        effort.scanned = true;
        let kept = RERANKED_MAX.max(4 * k);
        let mut closest: Vec<Candidate> = Vec::with_capacity(2 * kept);
        let mut bound = Candidate::FARTHEST;
        let admitted = mask.iter().take_while(|&row| row < self.len()).map(|row| row as u32);
        let mut admitted = admitted.filter(|&row| !self.has_absent || !self.is_absent(row));
        loop {
            rows.clear();
            rows.extend(admitted.by_ref().take(BLOCK));
            if rows.is_empty() {
                break;
            }
            effort.compared += rows.len();
            let distances = self.codes.distances(self.kernels, query, rows, room);
            for (&row, &distance) in rows.iter().zip(distances) {
                let candidate = Candidate::new(distance, row);
                if candidate < bound {
                    closest.push(candidate);
                }
            }
            if closest.len() + BLOCK > 2 * kept {
                closest.select_nth_unstable(kept);
                closest.truncate(kept);
                bound = closest.iter().copied().max().unwrap_or(bound);
            }
        }
        closest.sort_unstable();
        closest.truncate(kept);
        let last = closest.get(k.min(closest.len()).saturating_sub(1));
        // Of two rows that differ by less, either may be closer.
        let margin = last.map_or(0.0, |last| {
            last.distance() + DEVIATIONS * self.codes.deviation(query, last.row(), last.distance())
        });
        let sure = closest.partition_point(|candidate| candidate.distance() <= margin);
        let count = sure.max(self.codes.reranked(k, usize::MAX)).min(closest.len());
        closest[..count].iter().map(|candidate| candidate.row()).collect()
    }

    /// The `ef` admitted nodes closest to `query` on level 0, into `scratch.nearest`; false when that is not worthwhile.
    fn walk_admitted(
        &self,
        query: &CodeQuery,
        k: usize,
        ef: usize,
        mask: &RowMask,
        admitted: usize,
        scratch: &mut Scratch,
    ) -> bool {
        self.descend(query, 0, scratch);
        let near = self.look_around(query, mask, scratch);
        let (seen, met) = (near.len(), near.iter().filter(|(_, admitted)| *admitted).count());
        if met > 0 && met * SPARSE < seen {
            return false;
        }
        scratch.visited.reset(self.len());
        let around: Vec<u32> = scratch.nearest.candidates().iter().map(|candidate| candidate.row()).collect();
        // Where a filter admits fewer than elsewhere, more candidates are needed to find as much.
        let is_rarer = met * self.len() * 2 < admitted * seen;
        if is_rarer && admitted / SCANNED_PER_COMPARISON <= SURE * walked(ef) {
            return false;
        }
        let ef = if is_rarer { 2 * ef } else { ef };
        scratch.nearest.reset(ef);
        for &(candidate, admitted) in &near {
            if admitted {
                scratch.visited.insert(candidate.row());
                scratch.nearest.push(candidate);
            }
        }
        if met > 0 {
            for row in around {
                self.compare_admitted_around(query, row, mask, scratch);
            }
            return self.walk_on(query, mask, admitted, scratch) && scratch.nearest.candidates().len() == ef;
        }
        if admitted / SCANNED_PER_COMPARISON <= SURE * walked(ef) {
            return false;
        }
        // Those nearest to the query are all hidden: there may be others anywhere.
        let seeds = self.spread(mask, admitted);
        let mut doubted = Vec::new();
        for (start, part) in seeds.chunks(seeds.len().div_ceil(PARTS).max(1)).enumerate() {
            scratch.nearest.reset(if start == 0 { ef } else { DOUBTING });
            let new: Vec<u32> = part.iter().copied().filter(|&row| scratch.visited.insert(row)).collect();
            self.compare(query, &new, scratch);
            if !self.walk_on(query, mask, admitted, scratch) {
                return false;
            }
            let found = scratch.nearest.candidates();
            if start == 0 {
                if found.len() < ef {
                    return false;
                }
                doubted = found.to_vec();
            } else if found.first() < doubted.get(k - 1) {
                // What one walk finds depends on where it starts.
                return false;
            }
        }
        scratch.nearest.reset(ef);
        doubted.iter().for_each(|&candidate| scratch.nearest.push(candidate));
        true
    }

    /// Expands until the closest are found; false when that takes longer than to scan.
    fn walk_on(&self, query: &CodeQuery, mask: &RowMask, admitted: usize, scratch: &mut Scratch) -> bool {
        let budget = admitted / SCANNED_PER_COMPARISON;
        while let Some(row) = scratch.nearest.expand_next() {
            self.compare_admitted_around(query, row, mask, scratch);
            if scratch.effort.cost() > budget {
                return false;
            }
        }
        true
    }

    /// Walks to the query as an unfiltered search does, with few candidates. Gives all nodes that it compared, and whether each is
    /// admitted.
    fn look_around(&self, query: &CodeQuery, mask: &RowMask, scratch: &mut Scratch) -> Vec<(Candidate, bool)> {
        scratch.visited.reset(self.len());
        scratch.nearest.restart(NEAR);
        let mut near: Vec<Candidate> = scratch.nearest.candidates().to_vec();
        for candidate in &near {
            scratch.visited.insert(candidate.row());
        }
        while let Some(row) = scratch.nearest.expand_next() {
            let count = self.unvisited_neighbors(row, 0, scratch);
            let Scratch { rows, room, nearest, effort, .. } = &mut *scratch;
            effort.compared += count;
            let rows = &rows[..count];
            let distances = self.codes.distances(self.kernels, query, rows, room);
            for (&row, &distance) in rows.iter().zip(distances) {
                let candidate = Candidate::new(distance, row);
                near.push(candidate);
                nearest.push(candidate);
            }
        }
        near.into_iter().map(|candidate| (candidate, self.admits(mask, candidate.row()))).collect()
    }

    /// Some admitted nodes, spread evenly among all admitted rows, in an order that spreads them too.
    fn spread(&self, mask: &RowMask, admitted: usize) -> Vec<u32> {
        let mut rows = Vec::with_capacity(SEEDS + 1);
        let step = (admitted / SEEDS).max(1);
        let (mut passed, mut next) = (0, step / 2);
        for (index, &word) in mask.words().iter().enumerate().take(self.len().div_ceil(64)) {
            let ones = word.count_ones() as usize;
            while next < passed + ones {
                let mut word = word;
                for _ in 0..next - passed {
                    word &= word - 1;
                }
                let row = index as u32 * 64 + word.trailing_zeros();
                next += step;
                // Twins and zero rows have no neighbours.
                if (row as usize) < self.len() && self.zero != Some(row) && !self.twins.contains(row) {
                    rows.push(row);
                }
            }
            passed += ones;
        }
        sort_by_key(&mut rows, |&row| row.wrapping_mul(0x9e37_79b1));
        rows
    }

    /// Compares the admitted neighbours of `row` that this search has not seen. When few are admitted, also those of its other
    /// neighbours, until as many as a list has slots were met (ACORN-1: Patel et al., "ACORN: Performant and Predicate-Agnostic Search
    /// Over Vector Embeddings and Structured Data", 2024).
    fn compare_admitted_around(&self, query: &CodeQuery, row: u32, mask: &RowMask, scratch: &mut Scratch) {
        let Scratch { rows, bridges, visited, effort, room, nearest, .. } = scratch;
        rows.clear();
        bridges.clear();
        let (mut met, slots) = (0, self.links.slots(0));
        for neighbor in self.links.neighbors(row, 0) {
            effort.looked_at += 1;
            if self.admits(mask, neighbor) {
                met += 1;
                if visited.insert(neighbor) {
                    rows.push(neighbor);
                }
            } else if !visited.contains(neighbor) {
                bridges.push(neighbor);
            }
        }
        // Where enough neighbours are admitted they lead on by themselves.
        let enough = if met >= self.m / 2 { 0 } else { slots };
        for &bridge in bridges.iter() {
            if met >= enough {
                break;
            }
            visited.insert(bridge);
            for neighbor in self.links.neighbors(bridge, 0) {
                effort.looked_at += 1;
                if self.admits(mask, neighbor) {
                    met += 1;
                    if visited.insert(neighbor) {
                        rows.push(neighbor);
                    }
                }
            }
        }
        effort.compared += rows.len();
        let distances = self.codes.distances(self.kernels, query, rows, room);
        for (&row, &distance) in rows.iter().zip(distances) {
            nearest.push(Candidate::new(distance, row));
        }
    }
}

impl std::ops::AddAssign for Effort {
    fn add_assign(&mut self, other: Self) {
        self.compared += other.compared;
        self.looked_at += other.looked_at;
        self.scanned |= other.scanned;
    }
}
