//! Search among the rows that a mask admits, by the cheapest of ways that lose nothing:
//!
//! 1. **Scan.** All admitted rows are compared, in their order. Of codes of many lines of the cache the first two or three come
//!    first: how far these mislead is seen in 64 of the rows, and only rows that they leave a chance are compared whole. (ADSampling does so
//!    with vectors that were rotated at random: Gao & Long, "High-Dimensional Approximate Nearest Neighbor Search: with Reliable and Efficient
//!    Distance Comparison Operations", 2023.) The vectors of those rows decide that the codes cannot tell apart. Chosen when it costs no more
//!    than an unfiltered walk does, `120 + 7 ef` comparisons.
//! 2. **Walk over all nodes**, with more candidates. What an unfiltered search with eight candidates compares tells which share of what
//!    is near the query is admitted, and so how many candidates are needed; they become more until `k` of them are admitted.
//! 3. **Walk over admitted nodes**, with two steps where few neighbours are admitted. Chosen when that share is so small that the second way would
//!    cost more.
//! 4. Where nothing near the query is admitted, or a walk would cost more than a scan: a scan. Rows that are all about as far from
//!    the query are in no order that a graph could show: walks from admitted rows spread over all found 0.79 of the nearest in the half of 20,000
//!    embeddings that was far from the query, in more time than to compare that half.
//!
//! Counted for `k` 10 and `ef` 24, a query: comparisons (see [`Effort::cost`]) and recall@10. On the
//! sample (8,116 rows of 384 dimensions, IP; unfiltered 282 and 0.995), and on 40,000 rows around 300 centres (48 dimensions, L2;
//! unfiltered 276 and 1.000). `near` admits the rows nearest to the query, `elsewhere` those nearest to another row, `far` all but the
//! nearest ones, `rarer` rows at random, but a tenth as many in the quarter that is near the query.
//!
//! | sample | 50 % | 10 % | 1 % | clusters | 50 % | 10 % | 1 % |
//! |---|---|---|---|---|---|---|---|
//! | random | 425, 0.995 | 159, 1.000 | 20, 1.000 | | 348, 0.997 | 701, 1.000 | 50, 1.000 |
//! | near | 282, 0.995 | 156, 1.000 | 20, 1.000 | | 276, 1.000 | 276, 1.000 | 50, 1.000 |
//! | elsewhere | 526, 1.000 | 179, 1.000 | 20, 1.000 | | 285, 1.000 | 641, 0.997 | 50, 1.000 |
//! | far | 1184, 1.000 | 218, 0.998 | 20, 1.000 | | 2702, 1.000 | 702, 0.997 | 50, 1.000 |
//! | rarer | 813, 0.998 | 176, 1.000 | 15, 1.000 | | 2071, 0.990 | 590, 1.000 | 38, 1.000 |

use super::Hnsw;
use super::codes::{CodeQuery, Lead};
use super::scratch::{Candidate, Scratch};
use crate::base::RowMask;

/// What a search of a graph took: what its cost follows from, whatever the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effort {
    /// Codes that a walk compared with the query.
    pub compared: usize,
    /// Neighbours that a filtered walk looked at, most of them to find that they are not admitted.
    pub looked_at: usize,
    /// Codes of many lines of the cache that a scan compared, in the order of the rows.
    pub scanned: usize,
    /// Rows of which a scan compared up to three lines: short codes, or the first numbers of longer ones.
    pub begun: usize,
}

/// Rows compared at once by a scan.
const BLOCK: usize = 256;
/// Neighbours looked at in the time of one comparison of a walk.
const LOOKS_PER_COMPARISON: usize = 16;
/// Rows that a scan compares in that time: it reads them in their order, and keeps no marks.
const SCANNED_PER_COMPARISON: usize = 4;
/// Rows in that time of which it compares up to three lines of the cache.
const BEGUN_PER_COMPARISON: usize = 8;
/// Nodes that are kept while it is looked what is near the query, admitted or not.
const NEAR: usize = 8;
/// Of what is near the query, one in so many must be admitted: then the nodes within two steps lead on.
const SPARSE: usize = 32;
/// Row numbers are less.
const ROW_MAX: u32 = (1 << 31) - 1;
/// Rows of a scan whose vectors are compared, at most.
const RERANKED_MAX: usize = 1_024;
/// A scan compares the vectors of those rows whose codes are no farther than the `k`th and so many standard deviations of what codes
/// are wrong by.
const DEVIATIONS: f32 = 4.0;
/// Rows whose first numbers are best that a scan compares whole before the others, about.
const FIRST: usize = 48;
/// Rows, spread over all that are admitted, that tell by how much the first numbers mislead.
const SAMPLED: usize = 64;
/// A scan leaves a row out whose first numbers say that it is farther than the `k`th by more than so many standard deviations of what
/// they are wrong by.
const LEAD_DEVIATIONS: f32 = 2.0;

impl Effort {
    /// In comparisons of a walk.
    pub fn cost(&self) -> usize {
        let looks = self.looked_at / LOOKS_PER_COMPARISON;
        self.compared + looks + self.scanned / SCANNED_PER_COMPARISON + self.begun / BEGUN_PER_COMPARISON
    }
}

/// Comparisons that an unfiltered walk makes, about.
fn walked(ef: usize) -> usize {
    120 + 7 * ef
}

/// What a walk looks for.
struct Wanted<'a> {
    mask: &'a RowMask,
    k: usize,
    ef: usize,
    /// What a scan would cost.
    scan: usize,
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
        let lead = self.codes.lead(query);
        let is_quick = lead.is_some() || self.codes.are_short();
        let scan = admitted / if is_quick { BEGUN_PER_COMPARISON } else { SCANNED_PER_COMPARISON };
        if scan <= walked(ef) || !self.walk_admitted(query, &Wanted { mask, k, ef, scan }, scratch) {
            return self.scan(query, lead, k, mask, admitted, scratch);
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
    fn scan(
        &self,
        query: &CodeQuery,
        lead: Option<Lead>,
        k: usize,
        mask: &RowMask,
        admitted: usize,
        scratch: &mut Scratch,
    ) -> Vec<u32> {
        let rows = self.admitted_rows(mask, admitted, std::mem::take(&mut scratch.bridges));
        scratch.nearest.reset(k);
        let mut closest = Closest { bound: Candidate::FARTHEST, kept: Vec::new() };
        match lead.filter(|_| rows.len() >= 4 * SAMPLED) {
            Some(lead) => self.scan_by_lead(query, lead, k, &rows, &mut closest, scratch),
            None => self.scan_all(query, &rows, &mut closest, scratch),
        }
        scratch.bridges = rows;
        let Closest { bound, mut kept } = closest;
        kept.retain(|&candidate| candidate <= bound);
        if kept.len() > RERANKED_MAX.max(4 * k) {
            kept.select_nth_unstable(RERANKED_MAX.max(4 * k));
            kept.truncate(RERANKED_MAX.max(4 * k));
        }
        kept.iter().map(|candidate| candidate.row()).collect()
    }

    /// The rows that a mask admits, which are so many, in the memory of `rows`.
    fn admitted_rows(&self, mask: &RowMask, admitted: usize, mut rows: Vec<u32>) -> Vec<u32> {
        rows.resize(admitted, 0);
        let mut slots = rows.iter_mut();
        for (index, &word) in mask.words().iter().enumerate() {
            let mut word = word;
            while word != 0 {
                // Those past the end have no slot.
                let Some(slot) = slots.next() else { break };
                *slot = index as u32 * 64 + word.trailing_zeros();
                word &= word - 1;
            }
        }
        if self.has_absent {
            rows.retain(|&row| !self.is_absent(row));
        }
        rows
    }

    /// Offers the codes of `rows`.
    fn scan_all(&self, query: &CodeQuery, rows: &[u32], closest: &mut Closest, scratch: &mut Scratch) {
        let Effort { begun, scanned, .. } = &mut scratch.effort;
        *if self.codes.are_short() { begun } else { scanned } += rows.len();
        for rows in rows.chunks(BLOCK) {
            let distances = self.codes.distances(self.kernels, query, rows, &mut scratch.room);
            for (&row, &distance) in rows.iter().zip(distances) {
                let candidate = Candidate::new(distance, row);
                if candidate <= closest.bound {
                    closest.kept.push(candidate);
                    scratch.nearest.push(candidate);
                    if let Some(kth) = scratch.nearest.candidates().last().filter(|_| scratch.nearest.is_full()) {
                        // Of two rows that differ by less, either may be closer.
                        let margin = DEVIATIONS * self.codes.deviation(query, kth.row(), kth.distance());
                        closest.bound = Candidate::new(kth.distance() + margin, ROW_MAX);
                    }
                }
            }
            closest.forget_far();
        }
    }

    /// The same, of those only whose first numbers leave a chance. How far these mislead is seen in some rows: numbers of which the first
    /// are as good as the others, and such as are ordered by what they tell, differ in that.
    fn scan_by_lead(
        &self,
        query: &CodeQuery,
        lead: Lead,
        k: usize,
        rows: &[u32],
        closest: &mut Closest,
        scratch: &mut Scratch,
    ) {
        let step = rows.len() / SAMPLED;
        let sample: Vec<u32> = rows.iter().copied().skip(step / 2).step_by(step).take(SAMPLED).collect();
        scratch.effort.scanned += sample.len();
        let mut begun = std::mem::take(&mut scratch.begun);
        begun.resize(rows.len(), 0.0);
        let whole = self.codes.distances(self.kernels, query, &sample, &mut scratch.room).to_vec();
        let guessed = &mut begun[..sample.len()];
        self.codes.lead_distances(self.kernels, query, lead, &sample, &mut scratch.room, guessed);
        let errors = || guessed.iter().zip(&whole).map(|(guessed, whole)| guessed - whole);
        let mean = errors().sum::<f32>() / sample.len() as f32;
        let variance = errors().map(|error| (error - mean) * (error - mean)).sum::<f32>() / sample.len() as f32;
        let margin = LEAD_DEVIATIONS * variance.sqrt() + mean.max(0.0);
        let least = whole.iter().copied().fold(f32::INFINITY, f32::min);
        let left = guessed.iter().filter(|&&guessed| guessed <= least + margin).count();
        // Where most would be compared whole anyway, as among rows that are all about as far, they are at once.
        if 2 * left > sample.len() || !margin.is_finite() {
            scratch.begun = begun;
            return self.scan_all(query, rows, closest, scratch);
        }
        scratch.effort.begun += rows.len();
        // About as many as this come first, the best by what the sample tells: then it is known how close a row must be.
        let best = (FIRST.max(2 * k) * SAMPLED / rows.len()).clamp(2, SAMPLED - 1);
        let first = *guessed.select_nth_unstable_by(best, f32::total_cmp).1;
        for (rows, begun) in rows.chunks(BLOCK).zip(begun.chunks_mut(BLOCK)) {
            self.codes.lead_distances(self.kernels, query, lead, rows, &mut scratch.room, begun);
        }
        self.scan_all(query, &chosen(rows, &begun, |begun| begun <= first), closest, scratch);
        // Not a number, before there are `k`: then all others are compared.
        let bound = closest.bound.distance() + margin;
        let others = chosen(rows, &begun, |begun| !(begun <= first || begun > bound));
        self.scan_all(query, &others, closest, scratch);
        scratch.begun = begun;
    }

    /// The admitted nodes closest to `query` on level 0, into `scratch.nearest`; false when a scan is better.
    fn walk_admitted(&self, query: &CodeQuery, wanted: &Wanted<'_>, scratch: &mut Scratch) -> bool {
        let Wanted { mask, k, ef, scan } = *wanted;
        self.descend(query, 0, scratch);
        scratch.visited.reset(self.len());
        scratch.nearest.restart(NEAR);
        let mut near: Vec<Candidate> = scratch.nearest.candidates().to_vec();
        for candidate in &near {
            scratch.visited.insert(candidate.row());
        }
        self.expand_into(query, &mut near, scratch);
        // What of the nodes is admitted that a wider walk would keep.
        let seen = near.len().min(2 * ef);
        if near.len() > seen {
            near.select_nth_unstable(seen);
        }
        let met = near[..seen].iter().filter(|candidate| self.admits(mask, candidate.row())).count();
        if met == 0 {
            return false;
        }
        // Kept nodes that are not admitted take room. As many as the filter leaves out would keep `ef` of those that are, but a list that
        // is longer misses less of what is near: fewer will do, as long as `k` are among them.
        let times = (seen as f64 / met as f64).max(1.0);
        let wide = (ef as f64 * times.sqrt() * times.sqrt().sqrt()).max(1.1 * k as f64 * times).ceil() as usize;
        // A walk over admitted nodes grows with the root of what a filter leaves out: twice as many nodes to pass share most of their
        // neighbours.
        let bridged = (walked(2 * ef) as f64 * times.sqrt()) as usize;
        if walked(wide) <= bridged {
            return self.walk_wide(query, wanted, wide, near, scratch);
        }
        if bridged > scan || met * SPARSE < seen {
            return false;
        }
        let ef = 2 * ef;
        scratch.visited.reset(self.len());
        let around: Vec<u32> = scratch.nearest.candidates().iter().map(|candidate| candidate.row()).collect();
        scratch.nearest.reset(ef);
        for &candidate in &near {
            if self.admits(mask, candidate.row()) {
                scratch.visited.insert(candidate.row());
                scratch.nearest.push(candidate);
            }
        }
        for row in around {
            self.compare_admitted_around(query, row, mask, scratch);
        }
        let budget = scratch.effort.cost() + scan;
        while let Some(row) = scratch.nearest.expand_next() {
            self.compare_admitted_around(query, row, mask, scratch);
            if scratch.effort.cost() > budget {
                return false;
            }
        }
        scratch.nearest.is_full()
    }

    /// Goes on over all nodes with `wide` candidates, from those that were compared, and with more until `k` of them are admitted; false when
    /// a scan is better.
    fn walk_wide(
        &self,
        query: &CodeQuery,
        wanted: &Wanted<'_>,
        mut wide: usize,
        mut near: Vec<Candidate>,
        scratch: &mut Scratch,
    ) -> bool {
        while walked(wide) <= wanted.scan {
            scratch.nearest.reset(wide);
            near.iter().for_each(|&candidate| scratch.nearest.push(candidate));
            self.expand_into(query, &mut near, scratch);
            let kept = scratch.nearest.candidates().iter();
            if kept.filter(|candidate| self.admits(wanted.mask, candidate.row())).count() >= wanted.k {
                return true;
            }
            wide += wide / 2;
        }
        false
    }

    /// Expands what `scratch.nearest` keeps until nothing closer is found, and adds all that it compares to `near`.
    fn expand_into(&self, query: &CodeQuery, near: &mut Vec<Candidate>, scratch: &mut Scratch) {
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

/// Those of `rows` whose number in `begun` is one that is wanted. Most are not, and eight at once are seen not to be.
#[inline(always)]
fn chosen(rows: &[u32], begun: &[f32], is_wanted: impl Fn(f32) -> bool) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(4 * FIRST);
    for (rows, begun) in rows.chunks(8).zip(begun.chunks(8)) {
        if begun.iter().fold(false, |any, &begun| any | is_wanted(begun)) {
            chosen.extend(rows.iter().zip(begun).filter(|&(_, &begun)| is_wanted(begun)).map(|(&row, _)| row));
        }
    }
    chosen
}

/// What a scan has found.
struct Closest {
    /// Farther ones are of no interest.
    bound: Candidate,
    kept: Vec<Candidate>,
}

impl Closest {
    /// Leaves out what is too far by now, where that is much.
    fn forget_far(&mut self) {
        if self.kept.len() > 2 * RERANKED_MAX {
            let bound = self.bound;
            self.kept.retain(|&candidate| candidate <= bound);
        }
    }
}

impl std::ops::AddAssign for Effort {
    fn add_assign(&mut self, other: Self) {
        self.compared += other.compared;
        self.looked_at += other.looked_at;
        self.scanned += other.scanned;
        self.begun += other.begun;
    }
}
