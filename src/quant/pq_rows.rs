use std::ops::Range;

use super::sums::{dot, tame};
use super::{Factors, Pq};
use crate::base::codec::{Reader, Write as _};
use crate::base::{Result, make_room};
use crate::distance::Metric;

/// Product codes of rows that are compared one by one, in any order, with a query or with each other: what a graph needs. See [`Pq`] for
/// the codes.
///
/// A query is compared by a table of its products with all words, a row by the words that it stands for. For COSINE rows are
/// brought to length 1 before they are encoded.
#[derive(Debug, Clone)]
pub struct PqRows {
    metric: Metric,
    pq: Pq,
    codes: Vec<u8>,
    factors: Vec<Factors>,
}

/// A query, or a row taken out for use as one.
#[derive(Debug, Clone, Default)]
pub struct PqQuery {
    /// Its product with each word, `[m, 2^nbits]`; empty of a row.
    products: Vec<f32>,
    /// The numbers of a row.
    numbers: Vec<f32>,
    factors: Factors,
    tamed: Vec<f32>,
    code: Vec<u8>,
}

impl PqRows {
    /// No rows.
    pub fn new(metric: Metric, pq: Pq) -> Self {
        Self { metric, pq, codes: Vec::new(), factors: Vec::new() }
    }

    /// No rows, with the words of this one.
    #[must_use]
    pub fn none_like(&self) -> Self {
        Self::new(self.metric, self.pq.clone())
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.factors.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.factors.is_empty()
    }

    /// How many bytes are held.
    pub fn memory_bytes(&self) -> usize {
        self.pq.memory_bytes() + self.codes.capacity() + self.factors.capacity() * size_of::<Factors>()
    }

    /// Gives back what was taken in advance for more rows.
    pub fn settle(&mut self) {
        self.codes.shrink_to_fit();
        self.factors.shrink_to_fit();
    }

    /// What words are trained on for a vector: its numbers, those that are none as zeros, for COSINE of length 1.
    pub fn prepare(metric: Metric, vector: &[f32], prepared: &mut Vec<f32>) {
        tame(vector, prepared);
        if metric == Metric::Cosine {
            let square = dot(prepared, prepared);
            let per_length = if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 };
            prepared.iter_mut().for_each(|x| *x *= per_length);
        }
    }

    /// Of a vector with these numbers.
    fn factors(&self, numbers: &[f32]) -> Factors {
        let square = dot(numbers, numbers);
        match self.metric {
            Metric::L2 => Factors { scale: std::f32::consts::SQRT_2, offset: square },
            Metric::Cosine => Factors { scale: if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }, offset: 0.5 },
            _ => Factors { scale: 1.0, offset: square },
        }
    }

    /// Appends a row. Panics when it has another dimension.
    pub fn push(&mut self, vector: &[f32], query: &mut PqQuery) {
        let PqQuery { numbers, tamed, code, .. } = query;
        Self::prepare(self.metric, vector, tamed);
        code.clear();
        code.resize(self.pq.width(), 0);
        self.pq.encode(tamed, tamed, code, numbers);
        let mut factors = self.factors(numbers);
        if tamed.iter().all(|&x| x == 0.0) {
            // No word stands for it: it has no product with anything.
            factors = Factors { scale: 0.0, ..factors };
        }
        make_room(&mut self.codes, code.len());
        self.codes.extend_from_slice(code);
        make_room(&mut self.factors, 1);
        self.factors.push(factors);
    }

    /// Appends row `row` of `other`, which has the same words.
    pub fn copy(&mut self, other: &Self, row: u32) {
        let code = other.code(row);
        make_room(&mut self.codes, code.len());
        self.codes.extend_from_slice(code);
        make_room(&mut self.factors, 1);
        self.factors.push(other.factors[row as usize]);
    }

    /// Encodes `vector` into `query`, whose memory is used again. Panics when it has another dimension.
    pub fn encode(&self, vector: &[f32], query: &mut PqQuery) {
        Self::prepare(self.metric, vector, &mut query.tamed);
        query.factors = self.factors(&query.tamed);
        self.pq.products_of_words(&query.tamed, &mut query.products);
    }

    fn code(&self, row: u32) -> &[u8] {
        &self.codes[row as usize * self.pq.width()..][..self.pq.width()]
    }

    /// Takes row `row` out into `query`.
    pub fn load(&self, row: u32, query: &mut PqQuery) {
        query.products.clear();
        query.numbers.clear();
        self.pq.decode(self.code(row), &mut query.numbers);
        query.factors = self.factors[row as usize];
    }

    /// Whether two rows have the same code with the same factors: no distance can tell them apart.
    pub fn are_same(&self, left: u32, right: u32) -> bool {
        self.factors[left as usize] == self.factors[right as usize] && self.code(left) == self.code(right)
    }

    /// Whether a row is the zero vector.
    pub fn is_zero(&self, row: u32) -> bool {
        self.factors[row as usize].scale == 0.0
    }

    /// Puts the distance of `query` to every one of `rows`, in their order, into `out`, which has as many.
    pub fn distances(&self, query: &PqQuery, rows: &[u32], out: &mut [f32]) {
        for (out, &row) in out.iter_mut().zip(rows) {
            let product = if query.products.is_empty() {
                self.pq.product_with(self.code(row), &query.numbers)
            } else {
                self.pq.looked_up(self.code(row), &query.products)
            };
            let own = self.factors[row as usize];
            let offset = if self.metric == Metric::Ip { 0.0 } else { query.factors.offset + own.offset };
            *out = offset - query.factors.scale * own.scale * product;
        }
    }

    /// By how much the distance of `query` to a row is wrong, about: one standard deviation.
    pub fn deviation(&self, query: &PqQuery, row: u32) -> f32 {
        // Of a vector's length, what words of so many bits a dimension leave of embeddings.
        let (m, nbits) = self.pq.shape();
        let share = [0.8, 0.6, 0.35][(m * nbits as usize / self.pq.dim()).min(2)];
        let lengths = (query.factors.offset * self.factors[row as usize].offset).sqrt();
        let lengths = match self.metric {
            Metric::L2 => 2.0 * lengths,
            Metric::Cosine => 1.0,
            _ => lengths,
        };
        lengths * share / (self.pq.dim() as f32).sqrt()
    }

    /// The words, as [`Pq::with_words`] takes them.
    pub fn write_words(&self, bytes: &mut Vec<u8>) {
        self.pq.words().iter().for_each(|&x| bytes.put_f32(x));
    }

    /// The codes of some rows, `[rows, width]` bytes.
    pub fn write_codes(&self, bytes: &mut Vec<u8>, rows: Range<usize>) {
        bytes.extend_from_slice(&self.codes[rows.start * self.pq.width()..rows.end * self.pq.width()]);
    }

    /// What goes with the codes, `[rows, 2]`: f32 scale, f32 offset.
    pub fn write_factors(&self, bytes: &mut Vec<u8>, rows: Range<usize>) {
        self.factors[rows].iter().for_each(|factors| factors.write(bytes));
    }

    /// Reads `rows` rows of which all codes were written, then all factors.
    ///
    /// # Errors
    /// `Corrupt`, with the offset, when there are fewer bytes.
    pub fn read_from(reader: &mut Reader<'_>, metric: Metric, pq: Pq, rows: usize) -> Result<Self> {
        let codes = reader.bytes(rows.saturating_mul(pq.width()))?.to_vec();
        let factors = Factors::read(reader, rows)?;
        Ok(Self { metric, pq, codes, factors })
    }
}
