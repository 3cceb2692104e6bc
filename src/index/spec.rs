use serde::{Deserialize, Serialize};

use super::GraphCodes;
use super::ivf::NLIST_MAX;
use crate::base::{Error, Result};
use crate::distance::Metric;
use crate::model::{DataType, Field};

/// Which index a vector field has, and by which metric it is searched.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IndexSpec {
    /// How vectors are compared; without meaning for other fields.
    #[serde(default = "any_metric")]
    pub metric: Metric,
    /// What is built.
    pub kind: IndexKind,
}

const fn two_bits() -> GraphCodes {
    GraphCodes::RaBitQ
}

/// What a field that is no vector has, whose values are not compared by nearness.
const fn any_metric() -> Metric {
    Metric::L2
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
        /// What it keeps of its vectors. Usual: a byte a dimension.
        #[serde(default, skip_serializing_if = "GraphCodes::is_usual")]
        codes: GraphCodes,
    },
    /// Inverted lists; the vectors of the rows in them are compared.
    #[serde(rename = "IVF_FLAT")]
    IvfFlat {
        /// Lists, 1 to 65,536; fewer while a segment has not enough rows for them. Usual: 128.
        nlist: u32,
    },
    /// Inverted lists with a byte a dimension, reranked with full precision.
    #[serde(rename = "IVF_SQ8")]
    IvfSq8 {
        /// As of IVF_FLAT.
        nlist: u32,
    },
    /// Inverted lists with a word for each of some runs of dimensions, reranked with full precision.
    #[serde(rename = "IVF_PQ")]
    IvfPq {
        /// As of IVF_FLAT.
        nlist: u32,
        /// Runs, of which the dimension is a multiple.
        m: u32,
        /// Bits of a word, 4 or 8. Usual: 8.
        nbits: u32,
    },
    /// Inverted lists with a word of 4 bits for each two dimensions, chosen so that large products are right; reranked with full
    /// precision.
    #[serde(rename = "SCANN")]
    Scann {
        /// As of IVF_FLAT.
        nlist: u32,
    },
    /// Inverted lists with a bit a dimension, reranked with full precision.
    #[serde(rename = "IVF_RABITQ")]
    IvfRabitq {
        /// As of IVF_FLAT.
        nlist: u32,
    },
    /// A graph over codes in memory, whose vectors stay in storage: a search reads those that the codes choose, by ranges. The
    /// graph is that of HNSW with the pruning of Vamana, and Milvus' names for its parameters.
    #[serde(rename = "DISKANN")]
    DiskAnn {
        /// Neighbours a node on the lowest level, 4 to 4,096; half as many on the upper ones. Usual: 56.
        max_degree: u32,
        /// Candidates looked at for each inserted row. Usual: 100.
        search_list_size: u32,
        /// What is in memory of each vector. Usual: two bits a dimension.
        #[serde(default = "two_bits")]
        codes: GraphCodes,
    },
    /// The graph of the crate `instant-distance`, over floats, built at once when a segment takes no more rows. A build without the
    /// feature `hnsw-static` searches such a field by scans.
    #[serde(rename = "HNSW_STATIC")]
    HnswStatic {
        /// Candidates looked at for each inserted row, 1 to 65,536. Usual: 100.
        ef_construction: u32,
        /// Candidates of a search, 1 to 65,536. Usual: 100.
        ef_search: u32,
    },
    /// One of the others, chosen for each segment: see [`Self::chosen`].
    #[serde(rename = "AUTOINDEX")]
    AutoIndex,
    /// No index, of bits.
    #[serde(rename = "BIN_FLAT")]
    BinFlat,
    /// Inverted lists of bits.
    #[serde(rename = "BIN_IVF_FLAT")]
    BinIvfFlat {
        /// As of IVF_FLAT.
        nlist: u32,
    },
    /// The rows of each place of sparse vectors, with bounds by which most are never looked at. Exact.
    #[serde(rename = "SPARSE_INVERTED_INDEX", alias = "SPARSE_WAND")]
    SparseInverted,
    /// The rows of each value of a scalar field, for filters.
    #[serde(rename = "INVERTED")]
    Inverted,
    /// The same.
    #[serde(rename = "BITMAP")]
    Bitmap,
    /// The same.
    #[serde(rename = "STL_SORT")]
    StlSort,
    /// The same, of text.
    #[serde(rename = "TRIE")]
    Trie,
}

/// Lists when nothing is said.
const NLIST_USUAL: u32 = 128;
/// Bits of a vector in inverted lists at most.
const LISTED_BITS_MAX: u32 = 32_768;

impl IndexKind {
    /// HNSW with the usual parameters.
    pub const HNSW: Self = Self::Hnsw { m: 16, ef_construction: 200, codes: GraphCodes::Sq8 };

    /// Whether there is something to build; else every search is a scan.
    pub fn is_built(&self) -> bool {
        !matches!(self, Self::Flat | Self::BinFlat)
            && !self.is_terms()
            && (cfg!(feature = "hnsw-static") || !self.is_static())
    }

    /// Whether it is built at once, when a segment takes no more rows.
    pub const fn is_static(&self) -> bool {
        matches!(self, Self::HnswStatic { .. })
    }

    /// Whether it tells which rows have a term.
    pub const fn is_terms(&self) -> bool {
        matches!(self, Self::SparseInverted | Self::Inverted | Self::Bitmap | Self::StlSort | Self::Trie)
    }

    /// Whether it takes one row after the other and looks at no other: all of it can be built while its vectors are read once.
    pub const fn goes_row_by_row(&self) -> bool {
        matches!(
            self,
            Self::Hnsw { codes: GraphCodes::Sq8 | GraphCodes::RaBitQ, .. }
                | Self::DiskAnn { codes: GraphCodes::Sq8 | GraphCodes::RaBitQ, .. }
        )
    }

    /// Whether vectors stay in storage once the index holds their rows.
    pub fn leaves_vectors(&self) -> bool {
        matches!(self, Self::DiskAnn { .. })
    }

    /// What AUTOINDEX is for a segment of so many rows, under a memory limit in bytes; every other kind is itself.
    ///
    /// Bits get BIN_IVF_FLAT. Of other vectors, IVF_RABITQ where a graph over them would take more than half of the limit; else HNSW for
    /// `float_vector` fields that are not nullable, IVF_SQ8 for the rest. Lists are 256, 128 of bits.
    pub fn chosen(self, field: &Field, rows: usize, memory_limit_bytes: Option<usize>) -> Self {
        if self != Self::AutoIndex {
            return self;
        }
        // A code with its factors, and the neighbours of a node with `m` 16.
        let graph_bytes = rows.saturating_mul(field.data_type.dim().unwrap_or(0) as usize + 8 + 136);
        match field.data_type {
            DataType::BinaryVector { .. } => Self::BinIvfFlat { nlist: NLIST_USUAL },
            _ if memory_limit_bytes.is_some_and(|limit| graph_bytes > limit / 2) => Self::IvfRabitq { nlist: 256 },
            _ if field.is_apart() => Self::HNSW,
            _ => Self::IvfSq8 { nlist: 256 },
        }
    }

    /// The name by which requests and schemas say it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Flat => "FLAT",
            Self::Hnsw { .. } => "HNSW",
            Self::IvfFlat { .. } => "IVF_FLAT",
            Self::IvfSq8 { .. } => "IVF_SQ8",
            Self::IvfPq { .. } => "IVF_PQ",
            Self::IvfRabitq { .. } => "IVF_RABITQ",
            Self::Scann { .. } => "SCANN",
            Self::DiskAnn { .. } => "DISKANN",
            Self::HnswStatic { .. } => "HNSW_STATIC",
            Self::AutoIndex => "AUTOINDEX",
            Self::BinFlat => "BIN_FLAT",
            Self::BinIvfFlat { .. } => "BIN_IVF_FLAT",
            Self::SparseInverted => "SPARSE_INVERTED_INDEX",
            Self::Inverted => "INVERTED",
            Self::Bitmap => "BITMAP",
            Self::StlSort => "STL_SORT",
            Self::Trie => "TRIE",
        }
    }
}

impl IndexSpec {
    /// Checks that a field can have it.
    ///
    /// # Errors
    /// `InvalidArgument` for a metric or a kind that is not for the field's type, and for parameters out of range.
    pub fn check(&self, field: &Field) -> Result<()> {
        let (metrics, kinds): (&[Metric], &str) = match field.data_type {
            DataType::BinaryVector { .. } => {
                (&[Metric::Hamming, Metric::Jaccard], "FLAT, HNSW, BIN_FLAT, BIN_IVF_FLAT, AUTOINDEX")
            }
            DataType::SparseFloatVector => (&[Metric::Ip], "FLAT, SPARSE_INVERTED_INDEX"),
            // What is no vector has no metric.
            DataType::Varchar { .. } if field.analyzer.is_some() => {
                return Err(Error::invalid("a field with an analyzer has its full-text index"));
            }
            DataType::Varchar { .. } => (&[self.metric], "INVERTED, BITMAP, STL_SORT, TRIE"),
            DataType::Json | DataType::Array { .. } => (&[self.metric], "INVERTED, BITMAP"),
            scalar if !scalar.is_vector() => (&[self.metric], "INVERTED, BITMAP, STL_SORT"),
            _ if field.is_apart() => (
                &[Metric::L2, Metric::Ip, Metric::Cosine],
                "FLAT, HNSW, HNSW_STATIC, IVF_FLAT, IVF_SQ8, IVF_PQ, IVF_RABITQ, SCANN, DISKANN, AUTOINDEX",
            ),
            _ => (
                &[Metric::L2, Metric::Ip, Metric::Cosine],
                "FLAT, HNSW, IVF_FLAT, IVF_SQ8, IVF_PQ, IVF_RABITQ, SCANN, AUTOINDEX",
            ),
        };
        let type_name = field.data_type.name();
        if !metrics.contains(&self.metric) {
            return Err(Error::invalid(format!(
                "metric {}, but a {type_name} is compared by {}",
                self.metric.name(),
                metrics.iter().map(|metric| metric.name()).collect::<Vec<_>>().join(" or ")
            )));
        }
        if !kinds.split(", ").any(|kind| kind == self.kind.name()) {
            let nullable = if field.nullable { " that may be null" } else { "" };
            return Err(Error::invalid(format!("{}, but a {type_name}{nullable} can have {kinds}", self.kind.name())));
        }
        let dim = field.data_type.dim().unwrap_or(0);
        match self.kind {
            IndexKind::Hnsw { codes, .. } if !codes.is_usual() && self.metric.is_of_bits() => {
                Err(Error::invalid("codes of bits, which are their own; expected none"))
            }
            IndexKind::Hnsw { codes: GraphCodes::Pq { num_sub_vectors, nbits }, .. }
            | IndexKind::DiskAnn { codes: GraphCodes::Pq { num_sub_vectors, nbits }, .. }
                if num_sub_vectors == 0 || !dim.is_multiple_of(num_sub_vectors) || !matches!(nbits, 4 | 8) =>
            {
                Err(Error::invalid(format!(
                    "numSubVectors {num_sub_vectors} and nbits {nbits}; expected a number that divides the dimension {dim}, and nbits 4 or 8"
                )))
            }
            IndexKind::Hnsw { m, ef_construction, .. }
                if !(2..=2048).contains(&m) || !(1..=65_536).contains(&ef_construction) =>
            {
                Err(Error::invalid(format!(
                    "M {m} and efConstruction {ef_construction}; expected 2 to 2048 and 1 to 65536"
                )))
            }
            IndexKind::IvfFlat { nlist }
            | IndexKind::IvfSq8 { nlist }
            | IndexKind::IvfPq { nlist, .. }
            | IndexKind::IvfRabitq { nlist }
            | IndexKind::Scann { nlist }
            | IndexKind::BinIvfFlat { nlist }
                if !(1..=NLIST_MAX).contains(&nlist) =>
            {
                Err(Error::invalid(format!("nlist {nlist}; expected 1 to {NLIST_MAX}")))
            }
            IndexKind::IvfPq { m, nbits, .. } if m == 0 || !dim.is_multiple_of(m) || !matches!(nbits, 4 | 8) => {
                Err(Error::invalid(format!(
                    "m {m} and nbits {nbits}; expected an m that divides the dimension {dim}, and nbits 4 or 8"
                )))
            }
            IndexKind::DiskAnn { max_degree, search_list_size, .. }
                if !(4..=4096).contains(&max_degree) || !(1..=65_536).contains(&search_list_size) =>
            {
                Err(Error::invalid(format!(
                    "maxDegree {max_degree} and searchListSize {search_list_size}; expected 4 to 4096 and 1 to 65536"
                )))
            }
            IndexKind::HnswStatic { ef_construction, ef_search }
                if !(1..=65_536).contains(&ef_construction) || !(1..=65_536).contains(&ef_search) =>
            {
                Err(Error::invalid(format!(
                    "efConstruction {ef_construction} and efSearch {ef_search}; expected 1 to 65536 of both"
                )))
            }
            IndexKind::BinIvfFlat { .. } | IndexKind::AutoIndex
                if matches!(field.data_type, DataType::BinaryVector { .. })
                    && field.data_type.dim() > Some(LISTED_BITS_MAX) =>
            {
                Err(Error::invalid(format!("{} is for at most {LISTED_BITS_MAX} bits", self.kind.name())))
            }
            _ => Ok(()),
        }
    }
}

/// A kind as requests say it: its name, and those of its parameters that are not the usual ones.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IndexParts {
    /// As of [`IndexKind::name`].
    #[serde(rename = "type")]
    pub type_name: String,
    /// HNSW: neighbours of a node. IVF_PQ: runs of dimensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub m: Option<u32>,
    /// HNSW, HNSW_STATIC: candidates for an inserted row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ef_construction: Option<u32>,
    /// HNSW_STATIC: candidates of a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ef_search: Option<u32>,
    /// HNSW, DISKANN: what is in memory of vectors, `sq8`, `rabitq` or `pq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codes: Option<String>,
    /// These with `pq`: runs of dimensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_sub_vectors: Option<u32>,
    /// Kinds with inverted lists: how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nlist: Option<u32>,
    /// IVF_PQ, and `pq` codes: bits of a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbits: Option<u32>,
    /// DISKANN: neighbours of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_degree: Option<u32>,
    /// DISKANN: candidates for an inserted row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_list_size: Option<u32>,
}

impl IndexParts {
    /// The kind.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that no kind has, and for a parameter that is not the kind's.
    pub fn into_kind(self) -> Result<IndexKind> {
        let mut taken: &[&str] = &["nlist"];
        let nlist = self.nlist.unwrap_or(NLIST_USUAL);
        let kind = match &*self.type_name {
            "FLAT" | "BIN_FLAT" | "AUTOINDEX" => {
                taken = &[];
                match &*self.type_name {
                    "FLAT" => IndexKind::Flat,
                    "BIN_FLAT" => IndexKind::BinFlat,
                    _ => IndexKind::AutoIndex,
                }
            }
            // The second is how others say the usual codes.
            "HNSW" | "HNSW_SQ" => {
                let codes = self.graph_codes(GraphCodes::Sq8)?;
                let is_pq = matches!(codes, GraphCodes::Pq { .. });
                taken = &["m", "efConstruction", "codes", "numSubVectors", "nbits"][..if is_pq { 5 } else { 3 }];
                IndexKind::Hnsw { m: self.m.unwrap_or(16), ef_construction: self.ef_construction.unwrap_or(200), codes }
            }
            "HNSW_STATIC" => {
                taken = &["efConstruction", "efSearch"];
                IndexKind::HnswStatic {
                    ef_construction: self.ef_construction.unwrap_or(100),
                    ef_search: self.ef_search.unwrap_or(100),
                }
            }
            "IVF_FLAT" => IndexKind::IvfFlat { nlist },
            "IVF_SQ8" => IndexKind::IvfSq8 { nlist },
            "IVF_PQ" => {
                taken = &["nlist", "m", "nbits"];
                let m = self.m.ok_or_else(|| Error::invalid("IVF_PQ needs m, which divides the dimension"))?;
                IndexKind::IvfPq { nlist, m, nbits: self.nbits.unwrap_or(8) }
            }
            "IVF_RABITQ" => IndexKind::IvfRabitq { nlist },
            "SCANN" => IndexKind::Scann { nlist },
            "DISKANN" => {
                let codes = self.graph_codes(two_bits())?;
                let is_pq = matches!(codes, GraphCodes::Pq { .. });
                taken =
                    &["maxDegree", "searchListSize", "codes", "numSubVectors", "nbits"][..if is_pq { 5 } else { 3 }];
                IndexKind::DiskAnn {
                    max_degree: self.max_degree.unwrap_or(56),
                    search_list_size: self.search_list_size.unwrap_or(100),
                    codes,
                }
            }
            "BIN_IVF_FLAT" => IndexKind::BinIvfFlat { nlist },
            "SPARSE_INVERTED_INDEX" | "SPARSE_WAND" | "INVERTED" | "BITMAP" | "STL_SORT" | "TRIE" => {
                taken = &[];
                match &*self.type_name {
                    "INVERTED" => IndexKind::Inverted,
                    "BITMAP" => IndexKind::Bitmap,
                    "STL_SORT" => IndexKind::StlSort,
                    "TRIE" => IndexKind::Trie,
                    _ => IndexKind::SparseInverted,
                }
            }
            other => {
                return Err(Error::invalid(format!(
                    "index type {other:?}; there are FLAT, HNSW, HNSW_STATIC, IVF_FLAT, IVF_SQ8, IVF_PQ, IVF_RABITQ, SCANN, DISKANN, AUTOINDEX, BIN_FLAT, BIN_IVF_FLAT, \
                     SPARSE_INVERTED_INDEX, INVERTED, BITMAP, STL_SORT and TRIE"
                )));
            }
        };
        let given = [
            ("m", self.m),
            ("efConstruction", self.ef_construction),
            ("efSearch", self.ef_search),
            ("nlist", self.nlist),
            ("nbits", self.nbits),
            ("maxDegree", self.max_degree),
            ("searchListSize", self.search_list_size),
            ("codes", self.codes.as_ref().map(|_| 0)),
            ("numSubVectors", self.num_sub_vectors),
        ];
        match given.iter().find(|(name, value)| value.is_some() && !taken.contains(name)) {
            Some((name, _)) if taken.is_empty() => Err(Error::invalid(format!("{} takes no {name}", self.type_name))),
            Some((name, _)) => {
                Err(Error::invalid(format!("{} takes {}, not {name}", self.type_name, taken.join(" and "))))
            }
            None => Ok(kind),
        }
    }
}

impl IndexParts {
    fn graph_codes(&self, usual: GraphCodes) -> Result<GraphCodes> {
        match self.codes.as_deref() {
            None => Ok(usual),
            Some("sq8") => Ok(GraphCodes::Sq8),
            Some("rabitq") => Ok(GraphCodes::RaBitQ),
            Some("pq") => {
                let lacks = || Error::invalid("codes pq need numSubVectors, which divides the dimension");
                let num_sub_vectors = self.num_sub_vectors.ok_or_else(lacks)?;
                Ok(GraphCodes::Pq { num_sub_vectors, nbits: self.nbits.unwrap_or(8) })
            }
            Some(other) => Err(Error::invalid(format!("codes {other:?}; there are sq8, rabitq and pq"))),
        }
    }

    fn with_codes(self, codes: GraphCodes, usual: GraphCodes) -> Self {
        let name = match codes {
            GraphCodes::Sq8 => "sq8",
            GraphCodes::RaBitQ => "rabitq",
            GraphCodes::Pq { .. } => "pq",
        };
        let (num_sub_vectors, nbits) = match codes {
            GraphCodes::Pq { num_sub_vectors, nbits } => (Some(num_sub_vectors), Some(nbits)),
            _ => (None, None),
        };
        Self { codes: (codes != usual).then(|| name.to_owned()), num_sub_vectors, nbits, ..self }
    }
}

impl From<IndexKind> for IndexParts {
    fn from(kind: IndexKind) -> Self {
        let parts = Self { type_name: kind.name().to_owned(), ..Self::default() };
        match kind {
            IndexKind::DiskAnn { max_degree, search_list_size, codes } => {
                let parts = parts.with_codes(codes, two_bits());
                Self { max_degree: Some(max_degree), search_list_size: Some(search_list_size), ..parts }
            }
            IndexKind::Hnsw { m, ef_construction, codes } => {
                let parts = parts.with_codes(codes, GraphCodes::Sq8);
                Self { m: Some(m), ef_construction: Some(ef_construction), ..parts }
            }
            IndexKind::HnswStatic { ef_construction, ef_search } => {
                Self { ef_construction: Some(ef_construction), ef_search: Some(ef_search), ..parts }
            }
            IndexKind::IvfPq { nlist, m, nbits } => {
                Self { nlist: Some(nlist), m: Some(m), nbits: Some(nbits), ..parts }
            }
            IndexKind::IvfFlat { nlist }
            | IndexKind::IvfSq8 { nlist }
            | IndexKind::IvfRabitq { nlist }
            | IndexKind::Scann { nlist }
            | IndexKind::BinIvfFlat { nlist } => Self { nlist: Some(nlist), ..parts },
            _ => parts,
        }
    }
}
