use super::codes::Codes;
use super::codes::{CodeQuery, Room, VectorRef};
use super::links::level_of;
use super::scratch::{Candidate, Scratch};
use super::{CodesStep, Hnsw, ROWS_MAX};
use crate::base::make_room;
use crate::index::{Source, Vectors};

/// Candidates for the places of neighbours that are gone, at most.
const MENDING: usize = 16;

/// What linking a row will write, found out while the graph stays as it is.
#[derive(Debug)]
pub struct Insertion {
    row: u32,
    as_what: As,
    /// Lists that change: the row whose they are, their level, and where they end in `neighbors`.
    lists: Vec<(u32, u32, usize)>,
    neighbors: Vec<u32>,
    /// Rows that lists of rows before them give up on level 0, once for each list.
    given_up: Vec<u32>,
}

/// What a row becomes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum As {
    Node,
    /// Of this row.
    Twin(u32),
    Zero,
    /// Nothing: it has no vector.
    Absent,
}

impl Insertion {
    fn new(row: u32, as_what: As) -> Self {
        Self { row, as_what, lists: Vec::new(), neighbors: Vec::new(), given_up: Vec::new() }
    }

    fn list(&mut self, row: u32, level: u32, neighbors: impl Iterator<Item = u32>) {
        self.neighbors.extend(neighbors);
        self.lists.push((row, level, self.neighbors.len()));
    }

    /// What a list on level 0 will be, when it changes.
    fn planned(&self, row: u32) -> Option<&[u32]> {
        let at = self.lists.iter().rposition(|&(of, level, _)| (of, level) == (row, 0))?;
        let start = at.checked_sub(1).map_or(0, |before| self.lists[before].2);
        Some(&self.neighbors[start..self.lists[at].2])
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
        let source = Source::Floats(vectors);
        while self.begin_codes(&source) {
            let step = self.look_up_codes(&source);
            self.apply_codes(step);
        }
        let vector = vectors.row(self.len() as u32);
        self.begin(vector);
        let insertion = self.look_up(vector);
        self.insert(insertion);
    }

    /// Begins a step of training the codes, where these are trained and it is time for that; tells whether it is. Before
    /// [`Self::begin`]: until it is done, no row is begun.
    pub fn begin_codes(&mut self, source: &Source<'_>) -> bool {
        if let Codes::Pq(words) = &mut self.codes { words.begin(source) } else { false }
    }

    /// Whether a step of training was begun.
    pub fn is_training(&self) -> bool {
        if let Codes::Pq(words) = &self.codes { words.is_training() } else { false }
    }

    /// Finds out what that step will write.
    pub fn look_up_codes(&self, source: &Source<'_>) -> CodesStep {
        let Codes::Pq(words) = &self.codes else { unreachable!("other codes are not trained") };
        words.look_up(self.kernels, source)
    }

    /// Takes that step.
    pub fn apply_codes(&mut self, step: CodesStep) {
        if let Codes::Pq(words) = &mut self.codes {
            words.apply(step);
        }
    }

    /// Takes the code of the next row; it is not in the index yet. Does nothing when that was done before. Panics as
    /// [`Self::insert_next`] does, and when codes are to be trained first: see [`Self::begin_codes`].
    pub fn begin<'a>(&mut self, vector: impl Into<VectorRef<'a>>) {
        assert!(self.len() < ROWS_MAX, "an index holds at most {ROWS_MAX} rows");
        if self.parents.len() < self.len() {
            self.parents = self.links.parents();
        }
        if self.codes.len() == self.len() {
            let Self { codes, scratch, dim, .. } = self;
            let vector = vector.into();
            scratch.with(|scratch| codes.push(vector, *dim, &mut scratch.query));
        }
    }

    /// Finds the neighbours of the row that was begun, whose vector this is.
    pub fn look_up<'a>(&self, vector: impl Into<VectorRef<'a>>) -> Insertion {
        let (row, vector) = (self.len() as u32, vector.into());
        if matches!(vector, VectorRef::Absent) {
            return Insertion::new(row, As::Absent);
        }
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
        let Insertion { row, as_what, lists, neighbors, given_up } = insertion;
        assert_eq!(row as usize, self.len(), "rows are inserted in their order");
        self.links.push();
        make_room(&mut self.parents, 1);
        self.parents.push(0);
        match (as_what, self.zero) {
            (As::Absent, _) => self.has_absent = true,
            (As::Zero, None) => self.zero = Some(row),
            (As::Zero, Some(head)) | (As::Twin(head), _) => self.twins.add(head, row),
            (As::Node, _) => {
                self.link(Insertion { row, as_what, lists, neighbors, given_up });
                if self.entry.is_none_or(|entry| self.level_of(row) > self.level_of(entry)) {
                    self.entry = Some(row);
                }
            }
        }
    }

    /// Writes what was planned for a row.
    fn link(&mut self, insertion: Insertion) {
        let Insertion { row, lists, neighbors, given_up, .. } = insertion;
        for child in given_up {
            let parents = &mut self.parents[child as usize];
            *parents = parents.saturating_sub(1);
        }
        let mut start = 0;
        for (of, level, end) in lists {
            let is_parent = level == 0 && of < row && neighbors[start..end].contains(&row);
            self.parents[row as usize] += u32::from(is_parent);
            self.links.set(of, level, neighbors[start..end].iter().copied());
            start = end;
        }
    }

    /// Links a node, whose list on the lowest level is made, on the levels above it, among those before it.
    pub(super) fn link_above(&mut self, row: u32) {
        let insertion = self.scratch.with(|scratch| {
            let mut query = std::mem::take(&mut scratch.query);
            self.codes.load(row, &mut query);
            let insertion = self.plan_from(1, row, &query, scratch);
            scratch.query = query;
            insertion
        });
        self.link(insertion);
        if self.entry.is_none_or(|entry| self.level_of(row) > self.level_of(entry)) {
            self.entry = Some(row);
        }
    }

    /// Gives a node up to `count` more neighbours on the lowest level, of `candidates`, none of which it has.
    pub(super) fn link_more(&mut self, row: u32, candidates: &[u32], count: usize) {
        let mut chosen = Vec::with_capacity(self.links.slots(0));
        self.scratch.with(|scratch| {
            let Scratch { rows, room, row: base, .. } = scratch;
            rows.clear();
            rows.extend(self.links.neighbors(row, 0));
            let kept = rows.len();
            rows.extend(candidates);
            self.codes.load(row, base);
            let distances = self.codes.distances(self.kernels, base, rows, room);
            let mut all: Vec<Candidate> =
                rows.iter().zip(distances).map(|(&row, &distance)| Candidate::new(distance, row)).collect();
            let have: Vec<u32> = rows[..kept].to_vec();
            all[kept..].sort_unstable();
            all.truncate(kept + MENDING);
            all.sort_unstable();
            let slots = (kept + count).min(self.links.slots(0));
            self.select(&all, slots, &have, &mut chosen, base, room);
        });
        self.links.set(row, 0, chosen);
    }

    /// Puts `newcomer` into the list of `row` on the lowest level. Where each that is there is the only way to somewhere, one after both
    /// gives way, which the caller ties later; false where there is none.
    pub(super) fn tie(&mut self, row: u32, newcomer: u32) -> bool {
        let list: Vec<u32> = self.links.neighbors(row, 0).collect();
        if list.contains(&newcomer) {
            return true;
        }
        let mut insertion = Insertion::new(newcomer, As::Node);
        if list.len() < self.links.slots(0) {
            insertion.list(row, 0, list.into_iter().chain([newcomer]));
        } else {
            let taken = self.scratch.with(|scratch| self.shrink(row, 0, list, newcomer, true, &mut insertion, scratch));
            if taken.is_err() {
                let mut list: Vec<u32> = self.links.neighbors(row, 0).collect();
                let Some(at) = list.iter().rposition(|&other| other > row.max(newcomer)) else { return false };
                insertion = Insertion::new(newcomer, As::Node);
                insertion.given_up.push(list[at]);
                list[at] = newcomer;
                insertion.list(row, 0, list.into_iter());
            }
        }
        self.link(insertion);
        true
    }

    /// Nodes before `row` to tie it to, the nearest that are found first, and `first`, which is before all, last.
    pub(super) fn earlier(&self, row: u32, first: u32) -> Vec<u32> {
        self.scratch.with(|scratch| {
            let mut query = std::mem::take(&mut scratch.query);
            self.codes.load(row, &mut query);
            scratch.nearest.reset(self.ef_construction);
            let own = self.links.neighbors(row, 0).filter(|&neighbor| neighbor != first);
            let near = own.chain([first]).collect::<Vec<_>>();
            self.compare(&query, &near, scratch);
            self.search_level(&query, 0, self.ef_construction, scratch);
            scratch.query = query;
            let found = scratch.nearest.candidates().iter().map(|candidate| candidate.row());
            found.filter(|&other| other < row && other != first).chain([first]).collect()
        })
    }

    /// The highest level of a row.
    pub(super) fn level_of(&self, row: u32) -> u32 {
        level_of(row, self.m)
    }

    /// What becomes of the encoded `row`, whose vector is `query`.
    fn plan(&self, row: u32, query: &CodeQuery, scratch: &mut Scratch) -> Insertion {
        self.plan_from(0, row, query, scratch)
    }

    /// The same on the levels from `lowest` on.
    fn plan_from(&self, lowest: u32, row: u32, query: &CodeQuery, scratch: &mut Scratch) -> Insertion {
        let mut insertion = Insertion::new(row, As::Node);
        if self.codes.is_nowhere(row, self.metric) {
            insertion.as_what = As::Zero;
            return insertion;
        }
        let Some(entry) = self.entry else { return insertion };
        let (level, entry_level) = (self.level_of(row), self.level_of(entry));
        self.descend(query, level, scratch);
        // All levels are searched before any list is made: on the lowest the row may turn out to be a twin.
        let mut selected = Vec::with_capacity(level.min(entry_level) as usize + 1);
        for level in (lowest..=level.min(entry_level)).rev() {
            self.search_level(query, level, self.ef_construction, scratch);
            let Scratch { nearest, room, row: base, .. } = &mut *scratch;
            let candidates = nearest.candidates();
            if level == 0
                && let Some(head) = candidates.iter().find(|candidate| self.codes.are_same(candidate.row(), row))
            {
                insertion.as_what = As::Twin(head.row());
                return insertion;
            }
            let mut chosen = Vec::with_capacity(self.m);
            self.select(candidates, self.m, &[], &mut chosen, base, room);
            selected.push((level, chosen));
        }
        for (level, neighbors) in selected {
            insertion.list(row, level, neighbors.iter().copied());
            let mut adopted = level > 0;
            // The closest comes last: if no other has taken the row into its list, it must.
            for (at, &neighbor) in neighbors.iter().enumerate().rev() {
                let there = self.links.neighbors(neighbor, level);
                if there.clone().count() < self.links.slots(level) {
                    insertion.list(neighbor, level, there.chain([row]));
                    adopted = true;
                } else if at > 0 || adopted {
                    let list: Vec<u32> = there.collect();
                    adopted |= self.shrink(neighbor, level, list, row, false, &mut insertion, scratch).is_ok();
                } else {
                    self.adopt(neighbor, row, &mut insertion, scratch);
                }
            }
        }
        insertion
    }

    /// Puts `row` into the list of `parent` on level 0, or of a row below it in the tree: see [`Self::shrink`].
    fn adopt(&self, mut parent: u32, row: u32, insertion: &mut Insertion, scratch: &mut Scratch) {
        loop {
            let list = match insertion.planned(parent) {
                Some(list) => list.to_vec(),
                None => self.links.neighbors(parent, 0).collect(),
            };
            if list.len() < self.links.slots(0) {
                return insertion.list(parent, 0, list.into_iter().chain([row]));
            }
            match self.shrink(parent, 0, list, row, true, insertion, scratch) {
                Ok(()) | Err(None) => return,
                // Rows rise on the way down, so that it ends.
                Err(Some(child)) => parent = child,
            }
        }
    }

    /// Chooses anew among `list`, the neighbours of `row`, which fill it, and `newcomer`; `Ok` when that is chosen. It is always when
    /// it `must`, unless the whole list must stay: then a child that it has comes back.
    ///
    /// On level 0 every row stays in the list of a row before it, its parent, and keeps a row before itself in its own list. So
    /// the first row leads to all, over parents, and all lead to the first: whatever shrinks, no node gets lost. (The heuristic
    /// alone lost 5 of 5,000 nodes of clusters by L2, and 779 of 5,000 by IP with unequal lengths: short rows are nobody's best.)
    #[expect(clippy::too_many_arguments, reason = "the state of one plan, in parts that are borrowed apart")]
    fn shrink(
        &self,
        row: u32,
        level: u32,
        list: Vec<u32>,
        newcomer: u32,
        must: bool,
        insertion: &mut Insertion,
        scratch: &mut Scratch,
    ) -> Result<(), Option<u32>> {
        let Scratch { rows, room, row: base, .. } = scratch;
        rows.clear();
        rows.extend(list);
        rows.push(newcomer);
        let mut candidates = Vec::with_capacity(rows.len());
        self.codes.load(row, base);
        let distances = self.codes.distances(self.kernels, base, rows, room);
        candidates.extend(rows.iter().zip(distances).map(|(&row, &distance)| Candidate::new(distance, row)));
        candidates.sort_unstable();
        let slots = self.links.slots(level);
        let mut chosen = Vec::with_capacity(slots);
        let mut kept = Vec::new();
        loop {
            self.select(&candidates, slots, &kept, &mut chosen, base, room);
            if level > 0 || !kept.is_empty() {
                break;
            }
            let earlier = candidates.iter().map(|candidate| candidate.row()).find(|&other| other < row);
            let is_kept = |other: u32| {
                Some(other) == earlier
                    || if other == newcomer { must } else { other > row && self.is_last(other, &insertion.given_up) }
            };
            let all = || candidates.iter().map(|candidate| candidate.row());
            if all().all(|other| chosen.contains(&other) || !is_kept(other)) {
                break;
            }
            kept.extend(all().filter(|&other| is_kept(other)));
            if kept.len() > slots {
                // Each of them is the only way to somewhere.
                return Err(kept.into_iter().find(|&other| other > row && other != newcomer));
            }
        }
        if level == 0 {
            let lost = candidates.iter().map(|candidate| candidate.row());
            let lost = lost.filter(|&other| other > row && other != newcomer && !chosen.contains(&other));
            insertion.given_up.extend(lost);
        }
        let taken = chosen.contains(&newcomer);
        insertion.list(row, level, chosen.into_iter());
        if taken { Ok(()) } else { Err(None) }
    }

    /// Whether `row` is in one list of a row before it only, once those are gone in which it is `given_up`.
    fn is_last(&self, row: u32, given_up: &[u32]) -> bool {
        let parents = self.parents[row as usize] as usize;
        parents <= 1 + given_up.len() && parents <= 1 + given_up.iter().filter(|&&other| other == row).count()
    }

    /// Up to `count` of `candidates`, which come closest first: each that is closer to the base than to every one chosen before
    /// (algorithm 4, without its extension and without filling up), so that they lead into different directions; all of `kept`, which
    /// are among them, in any case. Where there is room and `alpha` is above 1, then those that are not closer to one that was chosen by that
    /// factor: see [`Self::spread_out`]. `query` and `room` are to work in.
    fn select(
        &self,
        candidates: &[Candidate],
        count: usize,
        kept: &[u32],
        chosen: &mut Vec<u32>,
        query: &mut CodeQuery,
        room: &mut Room,
    ) {
        chosen.clear();
        let mut kept_left = kept.len();
        for &candidate in candidates {
            if kept_left > 0 && kept.contains(&candidate.row()) {
                kept_left -= 1;
                chosen.push(candidate.row());
                continue;
            }
            if chosen.len() + kept_left == count {
                if kept_left == 0 {
                    return;
                }
                continue;
            }
            self.codes.load(candidate.row(), query);
            let distances = self.codes.distances(self.kernels, query, chosen, room);
            let diverse = distances.iter().all(|&distance| distance > candidate.distance());
            if diverse {
                chosen.push(candidate.row());
            }
        }
        if self.alpha_percent == 100 {
            return;
        }
        // Distances are squares.
        let alpha = (self.alpha_percent * self.alpha_percent) as f32 / 10_000.0;
        for candidate in candidates {
            if chosen.len() == count {
                return;
            }
            if !chosen.contains(&candidate.row()) {
                self.codes.load(candidate.row(), query);
                let distances = self.codes.distances(self.kernels, query, chosen, room);
                if distances.iter().all(|&distance| alpha * distance > candidate.distance()) {
                    chosen.push(candidate.row());
                }
            }
        }
    }
}
