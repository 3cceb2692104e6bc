//! Inverted lists: rows lie in the list of their nearest centroid, and a search looks into the lists whose centroids are nearest.
//!
//! One structure serves every kind that has lists; they differ in the codes that lie in them ([`ListCode`]): none (IVF_FLAT,
//! BIN_IVF_FLAT: the rows' own vectors are compared), or those of a [`Coder`], which choose the rows worth comparing.
//! Codebooks are trained after the centroids, on what is left of 4,096 rows of their sample.
//!
//! Lists begin when there are [`TRAINED_ROWS_MIN`] rows. Centroids are trained on a spread of the first 1,000 rows, and anew on the first
//! 4,000, 16,000 and so on when the segment has grown to that, until there are 64 rows for each of `nlist` lists: so a small segment
//! has fewer lists, a large one as many as asked for, and all follows from the rows. The old lists serve until the new ones hold as much.
//!
//! Vectors are taken as they are for L2 and IP. For COSINE and JACCARD they are brought to length 1, bits are zeros and ones, and for
//! RaBitQ all are rotated first: lists know only such prepared vectors, and products are what they estimate. For a row `x = c + r` of the
//! list with centroid `c`, `<q, x>` is `<q, c>` plus what the code says of `<q, r>`; what else belongs to the distance is the row's
//! `offset`.

mod build;
mod bytes;
mod search;
#[cfg(test)]
mod tests;

use super::{Source, TRAINED_ROWS_MIN};
use crate::distance::{Kernels, Metric, kernels};
use crate::model::Value;
use crate::quant::sums::{dot, tame};
use crate::quant::{Coder, KMeans, Rotation};
use build::Building;
pub use build::IvfStep;

/// Lists at most.
pub const NLIST_MAX: u32 = 65_536;
/// Rows of the sample for each centroid.
const SAMPLE_PER_LIST: usize = 64;
/// Trained rows for each list at least.
const TRAINED_PER_LIST: usize = 32;

/// What lies in the lists beside row numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListCode {
    /// Nothing.
    None,
    /// A byte a dimension.
    Sq8,
    /// A bit a dimension.
    RaBitQ,
    /// A word for each of `m` runs of dimensions, of `nbits` bits: 4 or 8.
    Pq {
        /// Runs.
        m: u32,
        /// Bits of a word.
        nbits: u32,
    },
    /// A word of 4 bits for each two dimensions, chosen so that large products are right.
    Scann,
}

impl ListCode {
    /// Runs of dimensions, bits of a word, and how many times as much an error along the vector counts as one across it, of product codes.
    fn product(self, dim: usize, metric: Metric) -> Option<(usize, u32, f32)> {
        match self {
            Self::Pq { m, nbits } => Some((m as usize, nbits, 1.0)),
            Self::Scann => {
                // Guo et al., theorem 3.4, with the threshold 0.2 that they use; of distances no error counts more than another.
                let eta = if metric == Metric::L2 { 1.0 } else { (dim as f32 - 1.0) * 0.04 / 0.96 };
                Some((dim.div_ceil(2), 4, eta.max(1.0)))
            }
            _ => None,
        }
    }
}

/// Inverted lists over the first `len` rows of a segment.
#[derive(Debug, Clone)]
pub struct Ivf {
    space: Space,
    code: ListCode,
    nlist: u32,
    kernels: &'static Kernels,
    serving: Option<Lists>,
    /// What will serve next.
    next: Option<Box<Building>>,
}

/// Where distances are those of prepared vectors.
#[derive(Debug, Clone)]
struct Space {
    metric: Metric,
    dim: usize,
    rotation: Option<Rotation>,
}

/// Lists with rows.
#[derive(Debug, Clone)]
struct Lists {
    /// How many rows the centroids were chosen from.
    trained: usize,
    means: KMeans,
    /// The centroids' squared lengths.
    squares: Vec<f32>,
    coder: Option<Coder>,
    lists: Vec<List>,
    /// Rows covered, with a vector or without.
    len: usize,
}

/// The rows of one list, ascending.
#[derive(Debug, Clone, Default)]
struct List {
    rows: Vec<u32>,
    codes: Vec<u8>,
    /// A row's scale and offset, where there are codes.
    factors: Vec<[f32; 2]>,
}

/// Room for a vector on its way.
#[derive(Debug, Clone, Default)]
struct Room {
    kept: Vec<f32>,
    tamed: Vec<f32>,
    vector: Vec<f32>,
}

impl Ivf {
    /// Empty lists, `nlist` of them once there are rows enough, for vectors of `dim` dimensions. Panics when `dim` is 0.
    pub fn new(dim: usize, metric: Metric, nlist: u32, code: ListCode) -> Self {
        assert!(dim > 0, "vectors have at least one dimension");
        let rotation = (code == ListCode::RaBitQ).then(|| Rotation::new(dim));
        Self {
            space: Space { metric, dim, rotation },
            code,
            nlist: nlist.clamp(1, NLIST_MAX),
            kernels: kernels(),
            serving: None,
            next: None,
        }
    }

    /// How many rows are covered: rows `0..len`.
    pub fn len(&self) -> usize {
        self.serving.as_ref().map_or(0, |lists| lists.len)
    }

    /// Whether no row is covered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The dimension of its vectors.
    pub fn dim(&self) -> usize {
        self.space.dim
    }

    /// The metric that it was built for.
    pub fn metric(&self) -> Metric {
        self.space.metric
    }

    /// What lies in its lists.
    pub fn code(&self) -> ListCode {
        self.code
    }

    /// How many lists there are to be.
    pub fn nlist(&self) -> u32 {
        self.nlist
    }

    /// Gives back what was taken in advance for more rows.
    pub fn settle(&mut self) {
        self.serving.iter_mut().for_each(Lists::settle);
    }

    /// How many bytes are held, without the vectors.
    pub fn memory_bytes(&self) -> usize {
        self.serving.as_ref().map_or(0, Lists::memory_bytes) + self.next.as_ref().map_or(0, |next| next.memory_bytes())
    }

    /// Whether there is a step to take when the segment has `rows` rows.
    pub fn has_work(&self, rows: usize) -> bool {
        rows >= TRAINED_ROWS_MIN
            && self
                .serving
                .as_ref()
                .is_none_or(|lists| lists.len < rows || lists.trained != trained_rows(rows, self.nlist))
    }
}

/// From how many of a segment's first rows its centroids are chosen.
fn trained_rows(rows: usize, nlist: u32) -> usize {
    let mut trained = TRAINED_ROWS_MIN;
    while trained < SAMPLE_PER_LIST * nlist as usize && trained * 4 <= rows {
        trained *= 4;
    }
    trained
}

/// How many lists they make.
fn lists_of(trained: usize, nlist: u32) -> usize {
    (nlist as usize).min(trained / TRAINED_PER_LIST).max(1)
}

impl Space {
    /// Numbers of a prepared vector.
    fn len(&self) -> usize {
        self.rotation.as_ref().map_or(self.dim, Rotation::len)
    }

    /// Puts the prepared vector of a row into `room.vector`; false when it has none.
    fn take(&self, source: &Source<'_>, row: u32, room: &mut Room) -> bool {
        let Room { kept, tamed, vector } = room;
        let Some(numbers) = source.numbers(row, kept) else { return false };
        self.prepare(numbers, tamed, vector);
        true
    }

    /// The same of a query. Panics when it is of another form or dimension.
    fn take_query(&self, query: &Value, room: &mut Room) {
        let Room { kept, tamed, vector } = room;
        let numbers = match query {
            Value::Vector(numbers) => numbers,
            Value::Bytes(bytes) => {
                super::vectors::spread_bits(bytes, kept);
                &*kept
            }
            _ => unreachable!("a query is of its field's form"),
        };
        assert_eq!(numbers.len(), self.dim, "a query of another dimension");
        self.prepare(numbers, tamed, vector);
    }

    fn prepare(&self, numbers: &[f32], tamed: &mut Vec<f32>, vector: &mut Vec<f32>) {
        tame(numbers, tamed);
        if matches!(self.metric, Metric::Cosine | Metric::Jaccard) {
            let square = dot(tamed, tamed);
            let per_length = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
            tamed.iter_mut().for_each(|x| *x *= per_length);
        }
        match &self.rotation {
            Some(rotation) => rotation.apply(tamed, vector),
            None => vector.clone_from(tamed),
        }
    }
}

impl Lists {
    /// Lists without rows around these centroids.
    fn new(trained: usize, means: KMeans, coder: Option<Coder>) -> Self {
        let lists = vec![List::default(); means.len()];
        Self { trained, squares: means.squares(), means, coder, lists, len: 0 }
    }

    /// Gives back what was taken in advance for more rows.
    fn settle(&mut self) {
        for list in &mut self.lists {
            list.rows.shrink_to_fit();
            list.codes.shrink_to_fit();
            list.factors.shrink_to_fit();
        }
    }

    fn memory_bytes(&self) -> usize {
        let list = |list: &List| list.rows.capacity() * 4 + list.codes.capacity() + list.factors.capacity() * 8;
        let lists: usize = self.lists.iter().map(list).sum();
        lists
            + self.lists.capacity() * size_of::<List>()
            + self.means.memory_bytes()
            + self.coder.as_ref().map_or(0, Coder::memory_bytes)
    }
}
