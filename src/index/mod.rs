//! Indexes over one vector field of one segment: `build -> bytes`, `open(bytes) -> searcher`; a mask goes in, row numbers
//! and distances come out. An index never sees a filter expression, a file, or a key.
//!
//! Rows are numbered from 0 in the order of insertion and never move or go away: a deleted row is one that the mask does not
//! admit. What an index holds follows from the vectors alone, bit for bit, on every target: no clock, no randomness.

mod any;
mod bytes;
#[cfg(feature = "hnsw-static")]
mod fixed;
pub mod flat;
mod hnsw;
mod ivf;
mod spec;
pub mod stored;
pub mod terms;
mod vectors;

pub use any::{SearchParams, Step, VectorIndex};
#[cfg(feature = "hnsw-static")]
pub use fixed::{StaticHnsw, StaticStep};
pub use hnsw::{CodesStep, Effort, Graft, GraphCodes, GraphStats, Hnsw, Insertion, VectorRef};
pub use ivf::{Ivf, IvfStep, ListCode};
pub use spec::{IndexKind, IndexParts, IndexSpec};
pub use vectors::{Run, Source, Vectors};

/// Kinds that learn from rows begin when there are so many.
const TRAINED_ROWS_MIN: usize = 1_000;
