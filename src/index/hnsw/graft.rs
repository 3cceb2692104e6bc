use super::Hnsw;
use super::links::NONE;
use crate::base::RowMask;

/// A graph on its way that begins with rows of another one, whose links it takes over: what a merge makes of its largest input, before
/// it inserts the rows of the others. Linking a row anew costs a search with `ef_construction` candidates; here only
/// what is missing is made up for:
///
/// 1. **Copy.** Rows keep their order and get new numbers. Where all are kept that is all: levels follow from numbers.
/// 2. **Mend.** A node that has lost neighbours gets as many others, chosen by algorithm 4 among what these had led to.
/// 3. **Tie.** A node to which no node before it leads, or that leads to none, is tied to one that is near: every node can be reached.
/// 4. **Lift.** The upper levels, on which are other nodes now, are made anew: one row in `m`.
///
/// Of a chain of twins whose head is left out the first that is kept takes its place.
#[derive(Debug)]
pub struct Graft {
    graph: Hnsw,
    /// Of each kept row, which row of the base it was, and which node has its links there: the head of its chain, or itself.
    rows: Vec<(u32, u32)>,
    /// Of each node of the base, the row that has its place; [`NONE`] where nothing is left of it.
    heirs: Vec<u32>,
    is_whole: bool,
    /// Kept rows without a vector.
    absent: RowMask,
    stage: Stage,
    at: usize,
    /// The node before all others.
    first: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    Copy,
    Mend,
    Tie,
    Lift,
    Done,
    /// Some node could not be tied.
    Failed,
}

/// What a step for a row costs where something is done, and where hardly anything is; a row that is inserted costs about 64.
const SEARCHED: usize = 64;
const MENDED: usize = 8;
const PASSED: usize = 1;

impl Graft {
    /// Begins with the rows of `base` that are `kept`. `None` where that is not worthwhile: when less than half is, when `base` has come
    /// apart, or when it is not such a graph as `model`, an empty one, would grow to.
    pub fn new(base: &Hnsw, kept: &RowMask, model: Hnsw) -> Option<Self> {
        let len = base.len();
        let count = kept.count_before(len);
        if !base.is_like(&model) || count * 2 < len || base.unreachable_known() > 0 {
            return None;
        }
        let mut heads: Vec<u32> = (0..len as u32).collect();
        for head in (0..len as u32).filter(|&row| !base.twins.contains(row)) {
            base.twins.of(head).for_each(|twin| heads[twin as usize] = head);
        }
        let mut heirs = vec![NONE; len];
        let mut rows = Vec::with_capacity(count);
        for row in kept.iter().take_while(|&row| row < len) {
            let head = heads[row];
            if heirs[head as usize] == NONE {
                heirs[head as usize] = rows.len() as u32;
            }
            rows.push((row as u32, head));
        }
        let (absent, stage, mut graph) = (RowMask::default(), Stage::Copy, model);
        graph.codes.learn_from(&base.codes);
        Some(Self { graph, rows, heirs, is_whole: count == len, absent, stage, at: 0, first: None })
    }

    /// Takes some steps, about as long as inserting `rows_max` rows takes; tells whether there are more. `base` is that with which it
    /// began.
    pub fn step(&mut self, base: &Hnsw, rows_max: usize) -> bool {
        let mut left = rows_max * SEARCHED;
        while left > 0 && !matches!(self.stage, Stage::Done | Stage::Failed) {
            if self.at == self.rows.len() {
                self.at = 0;
                self.stage = self.next_stage();
                continue;
            }
            let row = self.at as u32;
            let (origin, head) = self.rows[self.at];
            self.at += 1;
            let cost = match self.stage {
                Stage::Copy => self.copy(base, row, origin, head),
                _ if !self.is_node(row) => PASSED,
                Stage::Mend => self.mend(base, row, head),
                Stage::Tie => self.tie(row),
                _ => self.lift(row),
            };
            left = left.saturating_sub(cost);
        }
        !matches!(self.stage, Stage::Done | Stage::Failed)
    }

    /// The graph, once no step is left; `None` when it must be built from nothing.
    pub fn finish(self) -> Option<Hnsw> {
        (self.stage == Stage::Done).then_some(self.graph)
    }

    fn next_stage(&mut self) -> Stage {
        match self.stage {
            Stage::Copy if self.is_whole => Stage::Done,
            Stage::Copy => Stage::Mend,
            Stage::Mend => {
                self.graph.parents = self.graph.links.parents();
                Stage::Tie
            }
            Stage::Tie => Stage::Lift,
            Stage::Lift => {
                self.graph.entry = self.graph.entry.or(self.first);
                Stage::Done
            }
            end => end,
        }
    }

    /// Whether a copied row has neighbours of its own.
    fn is_node(&self, row: u32) -> bool {
        let is_head = self.heirs[self.rows[row as usize].1 as usize] == row;
        is_head && self.graph.zero != Some(row) && !self.absent.contains(row as usize)
    }

    fn copy(&mut self, base: &Hnsw, row: u32, origin: u32, head: u32) -> usize {
        let graph = &mut self.graph;
        graph.codes.copy(&base.codes, origin);
        graph.links.push();
        let is_absent = base.is_absent(origin);
        self.absent.push(is_absent);
        if is_absent {
            graph.has_absent = true;
        } else if self.heirs[head as usize] != row {
            graph.twins.add(self.heirs[head as usize], row);
        } else if base.zero == Some(head) {
            graph.zero = Some(row);
        } else {
            self.first = self.first.or(Some(row));
            let heirs = &self.heirs;
            let heir = |neighbor: u32| Some(heirs[neighbor as usize]).filter(|&heir| heir != NONE && heir != row);
            graph.links.set(row, 0, base.links.neighbors(head, 0).filter_map(heir));
            if self.is_whole {
                for level in 1..=graph.level_of(row).min(graph.level_of(head)) {
                    graph.links.set(row, level, base.links.neighbors(head, level));
                }
                graph.entry = base.entry;
            }
        }
        PASSED
    }

    fn mend(&mut self, base: &Hnsw, row: u32, head: u32) -> usize {
        let lost: Vec<u32> =
            base.links.neighbors(head, 0).filter(|&neighbor| self.heirs[neighbor as usize] == NONE).collect();
        if lost.is_empty() {
            return PASSED;
        }
        let have: Vec<u32> = self.graph.links.neighbors(row, 0).collect();
        let beyond = lost.iter().flat_map(|&neighbor| base.links.neighbors(neighbor, 0));
        let mut candidates: Vec<u32> = beyond.map(|neighbor| self.heirs[neighbor as usize]).collect();
        candidates.retain(|&heir| heir != NONE && heir != row && !have.contains(&heir));
        candidates.sort_unstable();
        candidates.dedup();
        self.graph.link_more(row, &candidates, lost.len());
        MENDED
    }

    fn tie(&mut self, row: u32) -> usize {
        let Some(first) = self.first.filter(|&first| first != row) else { return PASSED };
        let leads = self.graph.links.neighbors(row, 0).any(|neighbor| neighbor < row);
        let is_led_to = self.graph.parents[row as usize] > 0;
        if leads && is_led_to {
            return PASSED;
        }
        let earlier = self.graph.earlier(row, first);
        let mut tied = (leads || self.graph.tie(row, earlier[0]))
            && (is_led_to || earlier.iter().any(|&parent| self.graph.tie(parent, row)));
        // What is near may all come after it, as where the first rows of a cluster are gone: then it is tied to one that is not near.
        let mut parent = row;
        while !tied && parent > first {
            parent -= 1;
            tied = self.is_node(parent) && self.graph.tie(parent, row);
        }
        if !tied {
            self.stage = Stage::Failed;
        }
        SEARCHED
    }

    fn lift(&mut self, row: u32) -> usize {
        if self.graph.level_of(row) == 0 {
            return PASSED;
        }
        self.graph.link_above(row);
        SEARCHED
    }
}
