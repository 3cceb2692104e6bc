//! A navigable small-world graph over codes, reranked with full precision.
//!
//! Source: Malkov & Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
//! World graphs" (2016); algorithm numbers below are theirs. Where we depart from it:
//! - Distances in the graph are those of [`Sq8`] codes, a quarter of the memory traffic, of RaBitQ codes of two bits, a quarter of
//!   that, or of product codes; the closest are reranked. Binary vectors are their own codes.
//! - Where lists may be longer than the directions need ([`Hnsw::spread_out`]), they are filled up with candidates to which none that
//!   was chosen is closer by a factor `alpha`: Subramanya et al., "DiskANN" (2019), algorithm 2. (In one pass with that factor lists
//!   were full before all directions were in them, and recall at `ef` 48 fell from 0.985 to 0.976.)
//! - A node's level is a hash of its row number: the same rows give the same graph on every target.
//! - A row whose code equals that of a node already in the graph becomes its *twin*: a link in a chain behind that node, not a
//!   node. A thousand copies of one vector, or all rows without text, would otherwise fill every neighbour list around them
//!   with themselves and cut the graph apart.
//! - Nothing is ever taken out. Rows that the mask does not admit are bridges: walked over, not returned.
//!
//! What must be true: every number in a neighbour list is a row below `len`; a twin has no neighbours, is in nobody's list, and
//! is in exactly one chain; chains end.

mod build;
mod bytes;
mod codes;
mod filtered;
mod graft;
mod links;
mod scratch;
mod search;
mod stats;
#[cfg(test)]
mod tests;
mod twins;
mod words;

use crate::distance::{Kernels, Metric, kernels};
#[cfg(doc)]
use crate::quant::Sq8;
pub use build::Insertion;
use codes::Codes;
pub use codes::{GraphCodes, VectorRef};
pub use filtered::Effort;
pub use graft::Graft;
use links::Links;
use scratch::ScratchPool;
pub use stats::GraphStats;
use stats::Looked;
use twins::Twins;
pub use words::CodesStep;

/// Neighbours a node has at most on the upper levels.
pub const M_MAX: u32 = 2048;
/// Candidates looked at for each inserted row, at most.
pub const EF_CONSTRUCTION_MAX: u32 = 65_536;
/// Hundredths of `alpha` at most.
const ALPHA_PERCENT_MAX: u32 = 200;
/// More rows than this are not indexed: one bit of a row number is used for a mark.
const ROWS_MAX: usize = 1 << 31;

/// An incremental HNSW index over the first `len` rows of a segment.
///
/// Searches take `&self` and may run concurrently where there are threads; inserting takes `&mut self`.
#[derive(Debug, Clone)]
pub struct Hnsw {
    dim: usize,
    metric: Metric,
    m: usize,
    ef_construction: usize,
    /// Hundredths of `alpha`; 100 as the paper of HNSW has it.
    alpha_percent: u32,
    kernels: &'static Kernels,
    codes: Codes,
    links: Links,
    twins: Twins,
    /// The node that searches start from, on the highest level; none while the graph has no node.
    entry: Option<u32>,
    /// A row whose code is zero, the head of the chain of all such, while the metric sees directions only: it has the same
    /// distance to everything, so a graph could not lead to it.
    zero: Option<u32>,
    /// See [`Links::parents`]; shorter until a row is inserted, for only that needs it.
    parents: Vec<u32>,
    looked: Looked,
    /// Whether there are rows without a vector.
    has_absent: bool,
    scratch: ScratchPool,
}

impl Hnsw {
    /// An empty index for vectors of `dim` dimensions. `m`: neighbours on the upper levels, twice as many on the lowest;
    /// `ef_construction`: candidates looked at for each inserted row. Panics when `dim` is 0; `m` is brought into
    /// 2..=`2048`, `ef_construction` into `m`..=`65_536`.
    pub fn new(dim: usize, metric: Metric, m: u32, ef_construction: u32) -> Self {
        Self::with_codes(dim, metric, m, ef_construction, GraphCodes::Sq8)
    }

    /// The same over codes of a kind; a metric of bits has no other than these.
    pub fn with_codes(dim: usize, metric: Metric, m: u32, ef_construction: u32, codes: GraphCodes) -> Self {
        assert!(dim > 0, "vectors have at least one dimension");
        let m = m.clamp(2, M_MAX);
        let ef_construction = ef_construction.clamp(m, EF_CONSTRUCTION_MAX);
        Self {
            dim,
            metric,
            m: m as usize,
            ef_construction: ef_construction as usize,
            alpha_percent: 100,
            kernels: kernels(),
            codes: Codes::new(dim, metric, codes),
            links: Links::new(m as usize),
            twins: Twins::default(),
            entry: None,
            zero: None,
            parents: Vec::new(),
            looked: Looked::default(),
            has_absent: false,
            scratch: ScratchPool::default(),
        }
    }

    /// Has lists take neighbours that are not needed for a direction, as far as `alpha_percent` hundredths of a distance say, 100 to 200. Of
    /// inner products, which are no distances, nothing changes.
    #[must_use]
    pub fn spread_out(self, alpha_percent: u32) -> Self {
        let alpha_percent = if self.metric == Metric::Ip { 100 } else { alpha_percent.clamp(100, ALPHA_PERCENT_MAX) };
        Self { alpha_percent, ..self }
    }

    /// How many rows are indexed: rows `0..len`.
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether no row is indexed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dimension of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The metric that it was built for.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// What it keeps of its vectors, where these are no bits.
    pub fn codes(&self) -> GraphCodes {
        self.codes.kind()
    }

    /// Whether a row has no vector: then it is no node, and in no chain.
    fn is_absent(&self, row: u32) -> bool {
        self.links.neighbors(row, 0).next().is_none()
            && self.entry != Some(row)
            && self.zero != Some(row)
            && !self.twins.contains(row)
    }

    /// Gives back what was taken in advance for more rows, and what only inserting needs.
    pub fn settle(&mut self) {
        self.codes.settle();
        self.links.settle();
        self.twins.settle();
        self.parents = Vec::new();
    }

    /// Whether its rows could be rows of `other`: it has the same dimension, metric, parameters and kind of codes.
    fn is_like(&self, other: &Self) -> bool {
        let shape = |graph: &Self| (graph.dim, graph.metric, graph.m, graph.ef_construction, graph.alpha_percent);
        shape(self) == shape(other) && self.codes.kind() == other.codes.kind()
    }

    /// How many bytes are held, without the vectors, which are the caller's.
    pub fn memory_bytes(&self) -> usize {
        let links = self.links.memory_bytes() + self.twins.memory_bytes() + self.parents.capacity() * 4;
        self.codes.memory_bytes() + links + self.scratch.memory_bytes()
    }
}
