use super::links::level_of;
use super::scratch::{Candidate, Scratch};
use super::{Hnsw, ROWS_MAX};
use crate::distance::Metric;
use crate::index::Vectors;
use crate::quant::Query;

impl Hnsw {
    /// Indexes row `len()` of `vectors` (algorithm 1). Cost: a search with `ef_construction` candidates.
    ///
    /// Panics when `vectors` has no such row, another dimension, or 2^31 rows are indexed.
    pub fn insert_next(&mut self, vectors: Vectors<'_>) {
        assert_eq!(vectors.dim, self.dim, "vectors of another dimension");
        assert!(self.len() < vectors.len(), "row {} of {} vectors", self.len(), vectors.len());
        assert!(self.len() < ROWS_MAX, "an index holds at most {ROWS_MAX} rows");
        let row = self.len() as u32;
        let scratch = std::mem::take(&mut self.scratch);
        scratch.with(|scratch| {
            let mut query = std::mem::take(&mut scratch.query);
            // Searched for as a query is, with its finer code: rows found so are nearer.
            self.codes.push(vectors.row(row), &mut query);
            self.codes.encode(vectors.row(row), &mut query);
            self.links.push();
            self.link(row, &query, scratch);
            scratch.query = query;
        });
        self.scratch = scratch;
    }

    /// The highest level of a row.
    pub(super) fn level_of(&self, row: u32) -> u32 {
        level_of(row, self.m)
    }

    /// Makes the encoded `row`, whose vector is `query`, a node, or a twin of one.
    fn link(&mut self, row: u32, query: &Query, scratch: &mut Scratch) {
        if self.metric != Metric::L2 && self.codes.is_zero(row) {
            match self.zero {
                Some(head) => self.twins.add(head, row),
                None => self.zero = Some(row),
            }
            return;
        }
        let Some(entry) = self.entry else {
            self.entry = Some(row);
            return;
        };
        let (level, entry_level) = (self.level_of(row), self.level_of(entry));
        self.descend(query, level, scratch);
        // All levels are searched before anything is linked: on the lowest the row may turn out to be a twin.
        let mut selected = Vec::with_capacity(level.min(entry_level) as usize + 1);
        for level in (0..=level.min(entry_level)).rev() {
            self.search_level(query, level, self.ef_construction, scratch);
            let Scratch { nearest, products, row: base, .. } = &mut *scratch;
            let candidates = nearest.candidates();
            if level == 0
                && let Some(head) = candidates.iter().find(|candidate| self.codes.are_same(candidate.row(), row))
            {
                self.twins.add(head.row(), row);
                return;
            }
            let mut chosen = Vec::with_capacity(self.m);
            self.select(candidates.iter().copied(), self.m, &mut chosen, base, products);
            selected.push((level, chosen));
        }
        for (level, neighbors) in selected {
            self.links.set(row, level, neighbors.iter().copied());
            for neighbor in neighbors {
                if !self.links.add(neighbor, level, row) {
                    self.shrink(neighbor, level, row, scratch);
                }
            }
        }
        if level > entry_level {
            self.entry = Some(row);
        }
    }

    /// Chooses anew among the neighbours of `row`, whose list is full, and `newcomer`.
    fn shrink(&mut self, row: u32, level: u32, newcomer: u32, scratch: &mut Scratch) {
        let Scratch { rows, products, row: base, .. } = scratch;
        rows.clear();
        rows.extend(self.links.neighbors(row, level));
        rows.push(newcomer);
        let mut candidates = Vec::with_capacity(rows.len());
        self.codes.load(row, base);
        self.codes.distances(self.kernels, base, rows, products, |row, distance| {
            candidates.push(Candidate::new(distance, row));
        });
        candidates.sort_unstable();
        let mut chosen = Vec::with_capacity(rows.len());
        self.select(candidates.into_iter(), self.links.slots(level), &mut chosen, base, products);
        self.links.set(row, level, chosen);
    }

    /// Up to `count` of `candidates`, which come closest first: each that is closer to the base than to every one chosen before
    /// (algorithm 4, without its extension and without filling up), so that they lead into different directions. `query` and
    /// `products` are room to work in.
    fn select(
        &self,
        candidates: impl Iterator<Item = Candidate>,
        count: usize,
        chosen: &mut Vec<u32>,
        query: &mut Query,
        products: &mut Vec<i32>,
    ) {
        chosen.clear();
        for candidate in candidates {
            if chosen.len() == count {
                return;
            }
            self.codes.load(candidate.row(), query);
            let mut diverse = true;
            self.codes.distances(self.kernels, query, chosen, products, |_, distance| {
                diverse &= distance > candidate.distance();
            });
            if diverse {
                chosen.push(candidate.row());
            }
        }
    }
}
