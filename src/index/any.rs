use super::{
    CodesStep, Graft, GraphCodes, Hnsw, IndexKind, IndexSpec, Insertion, Ivf, IvfStep, ListCode, Source, VectorRef,
};
#[cfg(feature = "hnsw-static")]
use super::{StaticHnsw, StaticStep};
use crate::base::{Error, Neighbor, Result, RowMask};
use crate::distance::Metric;
use crate::model::Value;

/// As its authors have it: Subramanya et al., "DiskANN: Fast Accurate Billion-point Nearest Neighbor Search on a Single Node" (2019).
const DISKANN_ALPHA_PERCENT: u32 = 120;

/// How a search looks for candidates: each kind of index reads its own, and takes its usual number where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchParams {
    /// HNSW: how many candidates are kept.
    pub ef: Option<usize>,
    /// Kinds with inverted lists: how many are looked into. An eighth of them, and at least 8, when nothing is said.
    pub nprobe: Option<usize>,
    /// Kinds with inverted lists of codes: how many rows are compared by their vectors. When nothing is said, twice as many as are wanted
    /// for IVF_SQ8, ten times as many for the others.
    pub reorder_k: Option<usize>,
    /// DISKANN: how many candidates are kept, when `ef` does not say.
    pub search_list: Option<usize>,
}

impl SearchParams {
    /// Checks that they can be.
    ///
    /// # Errors
    /// `InvalidArgument` for zeros.
    pub fn check(&self) -> Result<()> {
        let given =
            [("ef", self.ef), ("nprobe", self.nprobe), ("reorderK", self.reorder_k), ("searchList", self.search_list)];
        match given.iter().find(|of| of.1 == Some(0)) {
            Some((name, _)) => Err(Error::invalid(format!("{name} 0; expected at least 1"))),
            None => Ok(()),
        }
    }
}

/// The index of one vector field of one segment, whatever its kind.
///
/// What every kind promises:
/// - It covers the rows `0..len()`; whoever searches compares the rows after them one by one. `len()` may stay 0 until there are
///   enough rows to learn from, and it never falls.
/// - What it holds follows from the vectors alone, bit for bit, on every target: no clock, no randomness but fixed seeds, no sums of
///   floats in an order that the target chooses. When a step is taken does not matter, only how many rows there are in the end. Of one
///   that began with rows of another ([`Self::graft`]) it follows from that one, and from which of its rows were kept, too.
/// - It grows by steps, each of which takes about as long as one search with many candidates. [`Self::begin`] and [`Self::apply`] change
///   it and are quick, [`Self::look_up`] takes nearly all of the time and lets others search meanwhile.
/// - Rows are never taken out. A deleted row is one that the mask does not admit.
/// - [`Self::part`] and [`Self::from_bytes`] are exact inverses; what is read may be wrong or hostile, and gives an error or an index
///   that finds the wrong rows, never a panic, an endless loop, or an allocation that the bytes have not paid for.
/// - Vectors are the segment's: they are handed in, and may be in storage. [`Self::candidates`] then names those worth reading.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum VectorIndex {
    /// A graph.
    Hnsw(Hnsw),
    /// Inverted lists.
    Ivf(Ivf),
    /// A graph that is built at once.
    #[cfg(feature = "hnsw-static")]
    Static(StaticHnsw),
}

/// What a step will write, found out while the index stays as it is.
#[derive(Debug)]
pub enum Step {
    /// A row of a graph.
    Hnsw(Insertion),
    /// Of the codes of a graph.
    Codes(CodesStep),
    /// Of inverted lists.
    Ivf(IvfStep),
    /// Of a graph that is built at once: all of it.
    #[cfg(feature = "hnsw-static")]
    Static(StaticStep),
}

impl VectorIndex {
    /// An empty index of that kind over vectors of `dim` dimensions; `None` for kinds that are a scan. AUTOINDEX must have been chosen.
    pub fn new(spec: &IndexSpec, dim: usize) -> Option<Self> {
        match spec.kind {
            IndexKind::Flat
            | IndexKind::BinFlat
            | IndexKind::AutoIndex
            | IndexKind::SparseInverted
            | IndexKind::Inverted
            | IndexKind::Bitmap
            | IndexKind::StlSort
            | IndexKind::Trie => None,
            #[cfg(feature = "hnsw-static")]
            IndexKind::HnswStatic { ef_construction, ef_search } => {
                Some(Self::Static(StaticHnsw::new(dim, spec.metric, ef_construction, ef_search)))
            }
            #[cfg(not(feature = "hnsw-static"))]
            IndexKind::HnswStatic { .. } => None,
            IndexKind::IvfFlat { .. }
            | IndexKind::IvfSq8 { .. }
            | IndexKind::IvfPq { .. }
            | IndexKind::IvfRabitq { .. }
            | IndexKind::Scann { .. }
            | IndexKind::BinIvfFlat { .. } => {
                lists(spec.kind).map(|(nlist, code)| Self::Ivf(Ivf::new(dim, spec.metric, nlist, code)))
            }
            IndexKind::DiskAnn { max_degree, search_list_size, codes } => {
                let graph = Hnsw::with_codes(dim, spec.metric, max_degree / 2, search_list_size, codes);
                Some(Self::Hnsw(graph.spread_out(DISKANN_ALPHA_PERCENT)))
            }
            IndexKind::Hnsw { m, ef_construction, codes } => {
                Some(Self::Hnsw(Hnsw::with_codes(dim, spec.metric, m, ef_construction, codes)))
            }
        }
    }

    /// How many rows it covers: rows `0..len`.
    pub fn len(&self) -> usize {
        match self {
            Self::Hnsw(graph) => graph.len(),
            Self::Ivf(lists) => lists.len(),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => graph.len(),
        }
    }

    /// The dimension of its vectors.
    pub fn dim(&self) -> usize {
        match self {
            Self::Hnsw(graph) => graph.dim(),
            Self::Ivf(lists) => lists.dim(),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => graph.dim(),
        }
    }

    /// The graph, when it is one.
    pub fn graph(&self) -> Option<&Hnsw> {
        match self {
            Self::Hnsw(graph) => Some(graph),
            Self::Ivf(_) => None,
            #[cfg(feature = "hnsw-static")]
            Self::Static(_) => None,
        }
    }

    /// Whether it covers no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a step to take when the segment has `rows` rows.
    pub fn has_work(&self, rows: usize) -> bool {
        match self {
            Self::Hnsw(graph) => graph.len() < rows,
            Self::Ivf(lists) => lists.has_work(rows),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => graph.len() < rows,
        }
    }

    /// Whether it was made for vectors like these, by such a spec's metric.
    pub fn fits(&self, spec: &IndexSpec, dim: usize) -> bool {
        match self {
            Self::Hnsw(graph) => {
                let codes = match spec.kind {
                    // Bits are their own.
                    _ if spec.metric.is_of_bits() => graph.codes(),
                    IndexKind::Hnsw { codes, .. } | IndexKind::DiskAnn { codes, .. } => codes,
                    _ => GraphCodes::Sq8,
                };
                graph.dim() == dim && graph.metric() == spec.metric && graph.codes() == codes
            }
            Self::Ivf(index) => {
                index.dim() == dim
                    && index.metric() == spec.metric
                    && (spec.kind == IndexKind::AutoIndex || lists(spec.kind) == Some((index.nlist(), index.code())))
            }
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => {
                matches!(Self::new(spec, dim), Some(Self::Static(wanted)) if graph.is_like(&wanted))
            }
        }
    }

    /// As how many candidates of a graph a search costs: what a planner weighs against a scan. `params.ef` is that of a graph itself.
    pub fn effort(&self, k: usize, params: &SearchParams) -> usize {
        match self {
            Self::Hnsw(_) => params.ef.unwrap_or(k),
            // A graph makes about 12 comparisons for a candidate.
            Self::Ivf(lists) => lists.comparisons(k, params).div_ceil(12),
            // Whole vectors are compared.
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => 3 * graph.ef_search(),
        }
    }

    /// How many bytes are held, without the vectors.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Hnsw(graph) => graph.memory_bytes(),
            Self::Ivf(lists) => lists.memory_bytes(),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => graph.memory_bytes(),
        }
    }

    /// Begins a step. `source` has all rows of the segment.
    pub fn begin(&mut self, source: &Source<'_>) {
        match self {
            Self::Hnsw(graph) => {
                if !graph.begin_codes(source) {
                    with_next(graph.len() as u32, graph.metric(), source, |vector| graph.begin(vector));
                }
            }
            Self::Ivf(lists) => lists.begin(source),
            // It takes no row by itself.
            #[cfg(feature = "hnsw-static")]
            Self::Static(_) => {}
        }
    }

    /// Finds out what the step that was begun will write.
    pub fn look_up(&self, source: &Source<'_>) -> Step {
        match self {
            Self::Hnsw(graph) if graph.is_training() => Step::Codes(graph.look_up_codes(source)),
            Self::Hnsw(graph) => {
                let insertion = with_next(graph.len() as u32, graph.metric(), source, |vector| graph.look_up(vector));
                Step::Hnsw(insertion)
            }
            Self::Ivf(lists) => Step::Ivf(lists.look_up(source)),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => Step::Static(graph.look_up(source)),
        }
    }

    /// Takes the step. Panics when another was taken since it was looked up.
    pub fn apply(&mut self, step: Step) {
        match (self, step) {
            (Self::Hnsw(graph), Step::Hnsw(insertion)) => graph.insert(insertion),
            (Self::Hnsw(graph), Step::Codes(step)) => graph.apply_codes(step),
            (Self::Ivf(lists), Step::Ivf(step)) => lists.apply(step),
            #[cfg(feature = "hnsw-static")]
            (Self::Static(graph), Step::Static(step)) => graph.apply(step),
            _ => panic!("the step was looked up in another kind"),
        }
    }

    /// Gives back what was taken in advance for more rows, once it covers all that there are.
    pub fn settle(&mut self) {
        match self {
            Self::Hnsw(graph) => graph.settle(),
            Self::Ivf(lists) => lists.settle(),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => graph.settle(),
        }
    }

    /// Begins an index as [`Self::new`] does, with the rows of this one that are `kept` and what links them; `None` where it has to
    /// be built from nothing, as all kinds but graphs have.
    pub fn graft(&self, spec: &IndexSpec, kept: &RowMask) -> Option<Graft> {
        match (self, Self::new(spec, self.dim())?) {
            (Self::Hnsw(graph), Self::Hnsw(model)) => Graft::new(graph, kept, model),
            _ => None,
        }
    }

    /// A part of its bytes, a few hundred KB at most; `None` after the last. Together they are what [`Self::from_bytes`] opens.
    pub fn part(&self, part: usize) -> Option<Vec<u8>> {
        match self {
            Self::Hnsw(graph) => graph.part(part),
            Self::Ivf(lists) => lists.part(part),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => graph.part(part),
        }
    }

    /// Opens an index of any kind: its first eight bytes tell which.
    ///
    /// # Errors
    /// `Unsupported` for another version, `Corrupt` with the offset for anything else. Allocates no more than a small multiple of
    /// `bytes.len()`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        match bytes.get(..8) {
            Some(b"EDDYHNSW") => Hnsw::from_bytes(bytes).map(Self::Hnsw),
            Some(b"EDDYLIST") => Ivf::from_bytes(bytes).map(Self::Ivf),
            #[cfg(feature = "hnsw-static")]
            Some(b"EDDYFIXD") => StaticHnsw::from_bytes(bytes).map(Self::Static),
            _ => Err(Error::corrupt("at byte 0: no index (it begins with EDDYHNSW or EDDYLIST)")),
        }
    }

    /// The `k` rows closest to `query` that were found among those covered, closest first; distances are exact. Only rows that `mask`
    /// admits, when there is one. Panics when the query is not of the field's form and dimension.
    pub fn search(
        &self,
        query: &Value,
        k: usize,
        params: &SearchParams,
        mask: Option<&RowMask>,
        source: &Source<'_>,
    ) -> Vec<Neighbor> {
        match self {
            Self::Hnsw(graph) => {
                let ef = params.ef.unwrap_or(k);
                if let (Source::Floats(vectors), Value::Vector(query)) = (source, query) {
                    return graph.search(query, k, ef, mask, *vectors);
                }
                let rows = graph.candidates(vector_of(query), k, ef, mask).map(|mut rows| {
                    rows.sort_unstable();
                    rows
                });
                let all = || 0..graph.len() as u32;
                let rows = rows.unwrap_or_else(|| {
                    all().filter(|&row| mask.is_none_or(|mask| mask.contains(row as usize))).collect()
                });
                source.nearest(&rows, graph.metric(), query, k)
            }
            Self::Ivf(lists) => lists.search(query, k, params, mask, source),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => {
                let mut rows = self.candidates(query, k, params, mask).unwrap_or_else(|| {
                    let all = 0..graph.len() as u32;
                    all.filter(|&row| mask.is_none_or(|mask| mask.contains(row as usize))).collect()
                });
                rows.sort_unstable();
                source.nearest(&rows, graph.metric(), query, k)
            }
        }
    }

    /// The covered rows among which [`Self::search`] takes the closest by their vectors, in no order, for a caller who must read these
    /// first; `None` when all admitted ones should be compared.
    pub fn candidates(
        &self,
        query: &Value,
        k: usize,
        params: &SearchParams,
        mask: Option<&RowMask>,
    ) -> Option<Vec<u32>> {
        match self {
            Self::Hnsw(graph) => graph.candidates(vector_of(query), k, params.ef.unwrap_or(k), mask),
            Self::Ivf(lists) => lists.candidates(query, k, params, mask),
            #[cfg(feature = "hnsw-static")]
            Self::Static(graph) => graph.candidates(vector_of(query).numbers(), k, mask),
        }
    }

    /// How far `rows` are from `query` by what is held of them in memory, in their order, and how near each may be, for a caller who
    /// reads the vectors of the closest candidates of several indexes; `None` of kinds that cannot tell.
    pub fn estimates(&self, query: &Value, rows: &[u32]) -> Option<Vec<(f32, f32)>> {
        match self {
            Self::Hnsw(graph) => Some(graph.estimates(vector_of(query), rows)),
            Self::Ivf(_) => None,
            #[cfg(feature = "hnsw-static")]
            Self::Static(_) => None,
        }
    }
}

/// How many lists a kind has, and what lies in them; `None` of a kind without.
fn lists(kind: IndexKind) -> Option<(u32, ListCode)> {
    match kind {
        IndexKind::IvfFlat { nlist } | IndexKind::BinIvfFlat { nlist } => Some((nlist, ListCode::None)),
        IndexKind::IvfSq8 { nlist } => Some((nlist, ListCode::Sq8)),
        IndexKind::IvfPq { nlist, m, nbits } => Some((nlist, ListCode::Pq { m, nbits })),
        IndexKind::IvfRabitq { nlist } => Some((nlist, ListCode::RaBitQ)),
        IndexKind::Scann { nlist } => Some((nlist, ListCode::Scann)),
        _ => None,
    }
}

/// Hands over what the next row of a graph is made of.
fn with_next<T>(row: u32, metric: Metric, source: &Source<'_>, with: impl FnOnce(VectorRef<'_>) -> T) -> T {
    let mut room = Vec::new();
    let vector = if metric.is_of_bits() {
        source.bytes(row).map(VectorRef::Bits)
    } else {
        source.numbers(row, &mut room).map(VectorRef::Numbers)
    };
    with(vector.unwrap_or(VectorRef::Absent))
}

fn vector_of(query: &Value) -> VectorRef<'_> {
    match query {
        Value::Vector(numbers) => VectorRef::Numbers(numbers),
        Value::Bytes(bits) => VectorRef::Bits(bits),
        _ => unreachable!("the query is of the field's form"),
    }
}
