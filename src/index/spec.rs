use serde::{Deserialize, Serialize};

use crate::distance::Metric;

/// Which index a vector field has, and by which metric it is searched.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IndexSpec {
    /// How vectors are compared.
    pub metric: Metric,
    /// What is built.
    pub kind: IndexKind,
}

/// The index types, by the names and parameters that Milvus uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum IndexKind {
    /// No index: every search scans every row, exactly.
    #[serde(rename = "FLAT")]
    Flat,
    /// A navigable small-world graph over int8 codes, reranked with full precision.
    #[serde(rename = "HNSW")]
    Hnsw {
        /// Neighbours a node on the upper levels, 2 to 2,048; twice as many on the lowest. Usual: 16.
        m: u32,
        /// Candidates looked at for each inserted row. Usual: 200.
        ef_construction: u32,
    },
}

impl IndexKind {
    /// HNSW with the usual parameters.
    pub const HNSW: Self = Self::Hnsw { m: 16, ef_construction: 200 };

    /// Whether there is something to build; else every search is a scan.
    pub fn is_built(&self) -> bool {
        !matches!(self, Self::Flat)
    }
}
