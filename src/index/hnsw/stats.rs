use std::sync::{Mutex, PoisonError};

use super::Hnsw;
use crate::base::RowMask;

/// How well a graph hangs together. Sums of several graphs mean the same of all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphStats {
    /// Rows that are indexed.
    pub rows: usize,
    /// Rows with neighbours of their own: those whose code is not the same as another's, and is not zero.
    pub nodes: usize,
    /// Links between nodes on the lowest level, each counted where it begins.
    pub links: usize,
    /// Nodes to which no way leads on the lowest level.
    pub unreachable: usize,
    /// Indexed rows that are dead: they still lead on, and take memory, until a merge leaves them out.
    pub dead: usize,
}

impl GraphStats {
    /// Links of a node, on average.
    pub fn mean_degree(&self) -> f64 {
        self.links as f64 / self.nodes.max(1) as f64
    }
}

impl std::ops::AddAssign for GraphStats {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.nodes += other.nodes;
        self.links += other.links;
        self.unreachable += other.unreachable;
        self.dead += other.dead;
    }
}

/// What was found when it was looked last, and a look that is under way.
#[derive(Debug, Default)]
pub(super) struct Looked(Mutex<(Option<GraphStats>, Option<Look>)>);

/// A walk over the whole lowest level.
#[derive(Debug)]
struct Look {
    reached: RowMask,
    /// Nodes that were reached, whose links are to be followed.
    open: Vec<u32>,
    /// Rows of which it was not asked yet whether they are nodes.
    at: u32,
    stats: GraphStats,
}

impl Clone for Looked {
    fn clone(&self) -> Self {
        Self(Mutex::new((self.get(), None)))
    }
}

impl Looked {
    fn get(&self) -> Option<GraphStats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Look {
    fn new(graph: &Hnsw) -> Self {
        let mut reached = RowMask::none(graph.len());
        let open: Vec<u32> = graph.entry.into_iter().collect();
        open.iter().for_each(|&row| reached.insert(row as usize));
        Self { reached, open, at: 0, stats: GraphStats { rows: graph.len(), ..GraphStats::default() } }
    }

    /// Looks at some nodes; tells whether there are more.
    fn step(&mut self, graph: &Hnsw, nodes_max: usize) -> bool {
        for _ in 0..nodes_max {
            if let Some(row) = self.open.pop() {
                for neighbor in graph.links.neighbors(row, 0).map(|neighbor| neighbor as usize) {
                    if !self.reached.contains(neighbor) {
                        self.reached.insert(neighbor);
                        self.open.push(neighbor as u32);
                    }
                }
            } else if (self.at as usize) < self.stats.rows {
                let row = self.at;
                self.at += 1;
                if graph.zero != Some(row) && !graph.twins.contains(row) && !graph.is_absent(row) {
                    self.stats.nodes += 1;
                    self.stats.links += graph.links.neighbors(row, 0).count();
                    self.stats.unreachable += usize::from(!self.reached.contains(row as usize));
                }
            } else {
                return false;
            }
        }
        true
    }
}

impl Hnsw {
    /// How it hangs together; nothing is known of `dead` here. A graph that `grows` is looked at again when it has grown by an
    /// eighth, so that asking after every row costs little.
    pub fn stats(&self, grows: bool) -> GraphStats {
        let len = self.len();
        let fresh =
            |stats: &GraphStats| stats.rows == len || (grows && stats.rows <= len && len - stats.rows < len / 8);
        if let Some(stats) = self.looked.get().filter(fresh) {
            return stats;
        }
        let stats = self.look();
        *self.looked.0.lock().unwrap_or_else(PoisonError::into_inner) = (Some(stats), None);
        stats
    }

    /// Nodes to which no way leads, as far as somebody has looked.
    pub fn unreachable_known(&self) -> usize {
        self.looked.get().map_or(0, |stats| stats.unreachable)
    }

    /// A part of a look at how it hangs together, at so many nodes; false when that is known. Upkeep asks.
    pub fn look_some(&self, nodes_max: usize) -> bool {
        let mut looked = self.looked.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, look) = &mut *looked;
        if known.is_some_and(|stats| stats.rows == self.len()) {
            return false;
        }
        let mut under_way = look.take().filter(|look| look.stats.rows == self.len()).unwrap_or_else(|| Look::new(self));
        if under_way.step(self, nodes_max) {
            *look = Some(under_way);
        } else {
            *known = Some(under_way.stats);
        }
        true
    }

    /// Walks over the whole lowest level: a look at every link.
    pub(super) fn look(&self) -> GraphStats {
        let mut look = Look::new(self);
        while look.step(self, usize::MAX) {}
        look.stats
    }

    /// Takes out every link to a node, as damage might.
    #[cfg(test)]
    pub(crate) fn cut_off(&mut self, node: u32) {
        for row in 0..self.len() as u32 {
            let list: Vec<u32> = self.links.neighbors(row, 0).filter(|&other| other != node).collect();
            self.links.set(row, 0, list);
        }
    }
}
