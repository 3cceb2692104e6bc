use super::links::level_of;
use super::scratch::{Candidate, Scratch};
use super::{Hnsw, ROWS_MAX};
use crate::distance::Metric;
use crate::index::Vectors;
use crate::quant::Query;

/// What linking a row will write, found out while the graph stays as it is.
#[derive(Debug)]
pub struct Insertion {
    row: u32,
    as_what: As,
    /// Lists that change: the row whose they are, their level, and where they end in `neighbors`.
    lists: Vec<(u32, u32, usize)>,
    neighbors: Vec<u32>,
}

/// What a row becomes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum As {
    Node,
    /// Of this row.
    Twin(u32),
    Zero,
}

impl Insertion {
    fn list(&mut self, row: u32, level: u32, neighbors: impl Iterator<Item = u32>) {
        self.neighbors.extend(neighbors);
        self.lists.push((row, level, self.neighbors.len()));
    }
}

impl Hnsw {
    /// Indexes row `len()` of `vectors` (algorithm 1). Cost: a search with `ef_construction` candidates.
    ///
    /// The same in three steps, of which the second takes nearly all of the time and lets others search meanwhile:
    /// [`Self::begin`], [`Self::look_up`], [`Self::insert`].
    ///
    /// Panics when `vectors` has no such row, another dimension, or 2^31 rows are indexed.
    pub fn insert_next(&mut self, vectors: Vectors<'_>) {
        assert_eq!(vectors.dim, self.dim, "vectors of another dimension");
        assert!(self.len() < vectors.len(), "row {} of {} vectors", self.len(), vectors.len());
        let vector = vectors.row(self.len() as u32);
        self.begin(vector);
        let insertion = self.look_up(vector);
        self.insert(insertion);
    }

    /// Takes the code of the next row; it is not in the index yet. Does nothing when that was done before. Panics as
    /// [`Self::insert_next`] does.
    pub fn begin(&mut self, vector: &[f32]) {
        assert!(self.len() < ROWS_MAX, "an index holds at most {ROWS_MAX} rows");
        if self.codes.len() == self.len() {
            let Self { codes, scratch, .. } = self;
            scratch.with(|scratch| codes.push(vector, &mut scratch.query));
        }
    }

    /// Finds the neighbours of the row that was begun, whose vector this is.
    pub fn look_up(&self, vector: &[f32]) -> Insertion {
        let row = self.len() as u32;
        self.scratch.with(|scratch| {
            let mut query = std::mem::take(&mut scratch.query);
            // Searched for as a query is, with its finer code: rows found so are nearer.
            self.codes.encode(vector, &mut query);
            let insertion = self.plan(row, &query, scratch);
            scratch.query = query;
            insertion
        })
    }

    /// Makes the row that was begun a node, or a twin of one. Panics when another was inserted since it was looked up.
    pub fn insert(&mut self, insertion: Insertion) {
        let Insertion { row, as_what, lists, neighbors } = insertion;
        assert_eq!(row as usize, self.len(), "rows are inserted in their order");
        self.links.push();
        match (as_what, self.zero) {
            (As::Zero, None) => self.zero = Some(row),
            (As::Zero, Some(head)) | (As::Twin(head), _) => self.twins.add(head, row),
            (As::Node, _) => {
                let mut start = 0;
                for (of, level, end) in lists {
                    self.links.set(of, level, neighbors[start..end].iter().copied());
                    start = end;
                }
                if self.entry.is_none_or(|entry| self.level_of(row) > self.level_of(entry)) {
                    self.entry = Some(row);
                }
            }
        }
    }

    /// The highest level of a row.
    pub(super) fn level_of(&self, row: u32) -> u32 {
        level_of(row, self.m)
    }

    /// What becomes of the encoded `row`, whose vector is `query`.
    fn plan(&self, row: u32, query: &Query, scratch: &mut Scratch) -> Insertion {
        let mut insertion = Insertion { row, as_what: As::Node, lists: Vec::new(), neighbors: Vec::new() };
        if self.metric != Metric::L2 && self.codes.is_zero(row) {
            insertion.as_what = As::Zero;
            return insertion;
        }
        let Some(entry) = self.entry else { return insertion };
        let (level, entry_level) = (self.level_of(row), self.level_of(entry));
        self.descend(query, level, scratch);
        // All levels are searched before any list is made: on the lowest the row may turn out to be a twin.
        let mut selected = Vec::with_capacity(level.min(entry_level) as usize + 1);
        for level in (0..=level.min(entry_level)).rev() {
            self.search_level(query, level, self.ef_construction, scratch);
            let Scratch { nearest, products, row: base, .. } = &mut *scratch;
            let candidates = nearest.candidates();
            if level == 0
                && let Some(head) = candidates.iter().find(|candidate| self.codes.are_same(candidate.row(), row))
            {
                insertion.as_what = As::Twin(head.row());
                return insertion;
            }
            let mut chosen = Vec::with_capacity(self.m);
            self.select(candidates.iter().copied(), self.m, &mut chosen, base, products);
            selected.push((level, chosen));
        }
        for (level, neighbors) in selected {
            insertion.list(row, level, neighbors.iter().copied());
            for neighbor in neighbors {
                let there = self.links.neighbors(neighbor, level);
                if there.clone().count() < self.links.slots(level) {
                    insertion.list(neighbor, level, there.chain([row]));
                } else {
                    let chosen = self.shrink(neighbor, level, row, scratch);
                    insertion.list(neighbor, level, chosen.into_iter());
                }
            }
        }
        insertion
    }

    /// Chooses anew among the neighbours of `row`, whose list is full, and `newcomer`.
    fn shrink(&self, row: u32, level: u32, newcomer: u32, scratch: &mut Scratch) -> Vec<u32> {
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
        chosen
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
