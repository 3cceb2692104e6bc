use super::codes::{CodeQuery, VectorRef};
use super::links::NONE;
use super::scratch::{Candidate, Scratch};
use super::{Effort, Hnsw};
use crate::base::{Neighbor, RowMask, TopK};
use crate::index::Vectors;
use crate::index::flat::{self, Measure};

impl Hnsw {
    /// The `k` rows closest to `query` that were found, closest first; distances are exact, of `vectors`. Fewer when fewer are
    /// admitted.
    ///
    /// `ef`: how many candidates are kept while searching, at least `k` are: more finds more and takes longer. `mask`: the rows
    /// that may be found; it may be longer than the index, and a row past its end is not admitted. `vectors`: those that were
    /// inserted, row for row; there may be more.
    ///
    /// When no more than `ef` rows are admitted every one of them is compared, so that nothing is missed. Panics when `query`
    /// or `vectors` have another dimension, or there are fewer vectors than indexed rows.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        ef: usize,
        mask: Option<&RowMask>,
        vectors: Vectors<'_>,
    ) -> Vec<Neighbor> {
        assert_eq!(vectors.dim, self.dim, "vectors of another dimension");
        assert!(vectors.len() >= self.len(), "{} vectors for {} indexed rows", vectors.len(), self.len());
        match self.candidates(query, k, ef, mask) {
            Some(found) => self.rerank(query, k, found, vectors),
            None => flat::search(vectors, 0..self.len() as u32, self.metric, query, k, mask),
        }
    }

    /// The rows whose codes are closest to `query`, in no order: those among which [`Self::search`] takes the `k` closest by their
    /// vectors, for a caller who must read these first. `None` when so few rows are admitted that all of them should be
    /// compared.
    pub fn candidates<'a>(
        &self,
        query: impl Into<VectorRef<'a>>,
        k: usize,
        ef: usize,
        mask: Option<&RowMask>,
    ) -> Option<Vec<u32>> {
        self.candidates_counted(query, k, ef, mask, &mut Effort::default())
    }

    /// The same, and adds to `effort` what it took.
    pub fn candidates_counted<'a>(
        &self,
        query: impl Into<VectorRef<'a>>,
        k: usize,
        ef: usize,
        mask: Option<&RowMask>,
        effort: &mut Effort,
    ) -> Option<Vec<u32>> {
        let query = query.into();
        if k == 0 {
            return Some(Vec::new());
        }
        let ef = ef.max(k);
        let len = self.len();
        let admitted = mask.map_or(len, |mask| mask.count_before(len));
        if admitted <= ef {
            return None;
        }
        self.scratch.with(|scratch| {
            let mut encoded = std::mem::take(&mut scratch.query);
            self.codes.encode(query, &mut encoded);
            scratch.effort = Effort::default();
            let found = match mask.filter(|_| admitted < len) {
                None => {
                    let mut found = Vec::new();
                    self.descend(&encoded, 0, scratch);
                    self.search_level(&encoded, 0, ef, scratch);
                    self.collect(scratch.nearest.candidates(), self.codes.reranked(k, ef), |_| true, &mut found);
                    self.add_zeros(None, k, &mut found);
                    found
                }
                Some(mask) => self.find_admitted(&encoded, k, ef, mask, admitted, scratch),
            };
            scratch.query = encoded;
            *effort += scratch.effort;
            Some(found)
        })
    }

    /// How far `rows` are from `query` by their codes, in their order, and how near each may be: four standard deviations less.
    pub fn estimates<'a>(&self, query: impl Into<VectorRef<'a>>, rows: &[u32]) -> Vec<(f32, f32)> {
        self.scratch.with(|scratch| {
            let mut encoded = std::mem::take(&mut scratch.query);
            self.codes.encode(query.into(), &mut encoded);
            let distances = self.codes.distances(self.kernels, &encoded, rows, &mut scratch.room);
            let bound = |(&row, &distance)| (distance, distance - 4.0 * self.codes.deviation(&encoded, row, distance));
            let estimates = rows.iter().zip(distances).map(bound).collect();
            scratch.query = encoded;
            estimates
        })
    }

    /// From the entry down to the level above `level`, keeping the closest node only (algorithm 2 with `ef` 1). Leaves the
    /// closest as the only candidate of `scratch.nearest`, or none in an empty graph.
    pub(super) fn descend(&self, query: &CodeQuery, level: u32, scratch: &mut Scratch) {
        scratch.nearest.reset(1);
        let Some(entry) = self.entry else { return };
        self.compare(query, &[entry], scratch);
        for upper in (level + 1..=self.level_of(entry)).rev() {
            self.search_level(query, upper, 1, scratch);
        }
    }

    /// The `ef` nodes closest to `query` on `level` (algorithm 2), from the candidates in `scratch.nearest` on, into
    /// `scratch.nearest`.
    pub(super) fn search_level(&self, query: &CodeQuery, level: u32, ef: usize, scratch: &mut Scratch) {
        scratch.visited.reset(self.len());
        scratch.nearest.restart(ef);
        for candidate in scratch.nearest.candidates() {
            scratch.visited.insert(candidate.row());
        }
        while let Some(row) = scratch.nearest.expand_next() {
            let count = self.unvisited_neighbors(row, level, scratch);
            let Scratch { rows, room, nearest, effort, .. } = scratch;
            effort.compared += count;
            let rows = &rows[..count];
            let distances = self.codes.distances(self.kernels, query, rows, room);
            for (&row, &distance) in rows.iter().zip(distances) {
                nearest.push(Candidate::new(distance, row));
            }
        }
    }

    /// Whether a node or one of its twins is admitted.
    #[inline]
    pub(super) fn admits(&self, mask: &RowMask, row: u32) -> bool {
        mask.contains(row as usize) || self.twins.of(row).any(|twin| mask.contains(twin as usize))
    }

    /// Puts the neighbours of `row` that this search has not seen to the front of `scratch.rows` and tells how many they are;
    /// they count as seen from now on.
    #[inline]
    pub(super) fn unvisited_neighbors(&self, row: u32, level: u32, scratch: &mut Scratch) -> usize {
        let Scratch { rows, visited, .. } = scratch;
        let list = self.links.list(row, level);
        if rows.len() < list.len() {
            rows.resize(list.len(), 0);
        }
        // Written always, counted when new: whether a neighbour was seen is a coin toss, which a branch would guess wrong.
        let mut count = 0;
        for &neighbor in list {
            if neighbor == NONE {
                break;
            }
            rows[count] = neighbor;
            count += usize::from(visited.insert(neighbor));
        }
        count
    }

    /// Puts `rows` into `scratch.nearest`.
    pub(super) fn compare(&self, query: &CodeQuery, rows: &[u32], scratch: &mut Scratch) {
        let Scratch { room, nearest, effort, .. } = scratch;
        effort.compared += rows.len();
        let distances = self.codes.distances(self.kernels, query, rows, room);
        for (&row, &distance) in rows.iter().zip(distances) {
            nearest.push(Candidate::new(distance, row));
        }
    }

    /// The admitted rows of the closest candidates, twins included, until there are `count`.
    pub(super) fn collect(
        &self,
        closest: &[Candidate],
        count: usize,
        admits: impl Fn(u32) -> bool,
        found: &mut Vec<u32>,
    ) {
        for candidate in closest {
            let head = candidate.row();
            let rows = std::iter::once(head).chain(self.twins.of(head));
            found.extend(rows.filter(|&row| admits(row)).take(count - found.len()));
            if found.len() == count {
                return;
            }
        }
    }

    /// The zero rows are in no neighbour list: `k` of them compete in the rerank of every search.
    pub(super) fn add_zeros(&self, mask: Option<&RowMask>, k: usize, found: &mut Vec<u32>) {
        let zeros = self.zero.into_iter().flat_map(|head| std::iter::once(head).chain(self.twins.of(head)));
        found.extend(zeros.filter(|&row| mask.is_none_or(|mask| mask.contains(row as usize))).take(k));
    }

    /// The `k` closest of `rows` by full precision.
    fn rerank(&self, query: &[f32], k: usize, rows: Vec<u32>, vectors: Vectors<'_>) -> Vec<Neighbor> {
        let mut closest = TopK::new(k);
        let mut measure = Measure::new(vectors, self.metric, query);
        for (&row, &distance) in rows.iter().zip(measure.gathered(&rows)) {
            closest.push(Neighbor { row, distance });
        }
        closest.into_sorted()
    }
}
