use std::sync::{Mutex, PoisonError};

use super::Hnsw;

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

/// What was found when it was looked last.
#[derive(Debug, Default)]
pub(super) struct Looked(Mutex<Option<GraphStats>>);

impl Clone for Looked {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.get()))
    }
}

impl Looked {
    fn get(&self) -> Option<GraphStats> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        *self.looked.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        stats
    }

    /// Nodes to which no way leads, as far as somebody has looked.
    pub fn unreachable_known(&self) -> usize {
        self.looked.get().map_or(0, |stats| stats.unreachable)
    }

    /// Walks over the whole lowest level: a look at every link.
    pub(super) fn look(&self) -> GraphStats {
        let len = self.len();
        let is_node = |row: u32| self.zero != Some(row) && !self.twins.contains(row) && !self.is_absent(row);
        let (mut nodes, mut links) = (0, 0);
        for row in (0..len as u32).filter(|&row| is_node(row)) {
            nodes += 1;
            links += self.links.neighbors(row, 0).count();
        }
        let mut reached = vec![false; len];
        let mut open: Vec<u32> = self.entry.into_iter().collect();
        let mut count = open.len();
        open.iter().for_each(|&row| reached[row as usize] = true);
        while let Some(row) = open.pop() {
            for neighbor in self.links.neighbors(row, 0) {
                if !std::mem::replace(&mut reached[neighbor as usize], true) {
                    count += 1;
                    open.push(neighbor);
                }
            }
        }
        GraphStats { rows: len, nodes, links, unreachable: nodes.saturating_sub(count), dead: 0 }
    }
}
