//! What a graph compares: codes of its rows, in memory whole.

use std::ops::Range;

use super::words::Words;
use crate::base::codec::{Reader, Write as _};
use crate::base::{Error, Result};
use crate::distance::{AlignedVec, Kernels, Metric};
pub(super) use crate::quant::Lead;
use crate::quant::{BitQuery, Pq, PqQuery, PqRows, Query, RaBitQ, Room as BitRoom, Sq8};

/// What a graph keeps of a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphCodes {
    /// A byte a dimension: [`Sq8`].
    #[default]
    Sq8,
    /// Two bits a dimension: [`RaBitQ`].
    RaBitQ,
    /// A word for each of some runs of dimensions: [`Pq`]. Words are trained, so that a graph of these begins with 1,000 rows.
    Pq {
        /// Runs, of which the dimension is a multiple.
        num_sub_vectors: u32,
        /// Bits of a word, 4 or 8.
        nbits: u32,
    },
}

impl GraphCodes {
    /// Whether nothing else was said.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// Bits a dimension of RaBitQ codes. With one, rows of a neighbourhood are hardly told apart while a graph is built.
const BITS: u32 = 2;

/// A vector as it comes: the numbers of a dense one, or the bytes of a binary one.
#[derive(Debug, Clone, Copy)]
pub enum VectorRef<'a> {
    /// One number a dimension.
    Numbers(&'a [f32]),
    /// One bit a dimension.
    Bits(&'a [u8]),
    /// None: the row is in no list, and is not found.
    Absent,
}

impl<'a> From<&'a [f32]> for VectorRef<'a> {
    fn from(numbers: &'a [f32]) -> Self {
        Self::Numbers(numbers)
    }
}

impl<'a> VectorRef<'a> {
    /// The numbers of a dense one.
    pub(in crate::index) fn numbers(self) -> &'a [f32] {
        let Self::Numbers(numbers) = self else { unreachable!("codes of numbers are made of numbers") };
        numbers
    }

    fn bits(self, width: usize) -> &'a [u8] {
        let Self::Bits(bits) = self else { unreachable!("codes of bits are made of bits") };
        assert_eq!(bits.len(), width, "a vector of another dimension");
        bits
    }
}

/// The codes of all rows of a graph.
#[derive(Debug, Clone)]
pub(super) enum Codes {
    Sq8(Sq8),
    RaBitQ(RaBitQ),
    Pq(Words),
    Bits(Bits),
}

/// An encoded query, or a row taken out for use as one, and room to work in.
#[derive(Debug, Clone, Default)]
pub(super) struct CodeQuery {
    numbers: Query,
    rotated: BitQuery,
    words: PqQuery,
    bits: Vec<u8>,
}

/// Room for what is compared at once.
#[derive(Debug, Clone, Default)]
pub(super) struct Room {
    products: Vec<i32>,
    numbers: Vec<u32>,
    bits: BitRoom,
    distances: Vec<f32>,
    /// What was compared in it, ever.
    #[cfg(test)]
    pub(super) compared: usize,
}

/// Binary vectors as they are: their own codes.
#[derive(Debug, Clone)]
pub(super) struct Bits {
    metric: Metric,
    width: usize,
    rows: AlignedVec<u8>,
}

impl Bits {
    fn row(&self, row: u32) -> &[u8] {
        &self.rows[row as usize * self.width..][..self.width]
    }
}

impl Codes {
    pub(super) fn new(dim: usize, metric: Metric, codes: GraphCodes) -> Self {
        match (metric, codes) {
            (Metric::Hamming | Metric::Jaccard, _) => {
                Self::Bits(Bits { metric, width: dim.div_ceil(8), rows: AlignedVec::new() })
            }
            (_, GraphCodes::Sq8) => Self::Sq8(Sq8::new(dim, metric)),
            (_, GraphCodes::RaBitQ) => Self::RaBitQ(RaBitQ::new(dim, metric, BITS)),
            (_, GraphCodes::Pq { num_sub_vectors, nbits }) => Self::Pq(Words::new(dim, metric, num_sub_vectors, nbits)),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Sq8(codes) => codes.len(),
            Self::RaBitQ(codes) => codes.len(),
            Self::Pq(words) => words.rows.as_ref().map_or(0, PqRows::len),
            Self::Bits(bits) => bits.rows.len() / bits.width,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Sq8(codes) => codes.memory_bytes(),
            Self::RaBitQ(codes) => codes.memory_bytes(),
            Self::Pq(words) => words.memory_bytes(),
            Self::Bits(bits) => bits.rows.memory_bytes(),
        }
    }

    /// Appends a row. Panics when it is of another form or dimension.
    pub(super) fn push(&mut self, vector: VectorRef<'_>, dim: usize, query: &mut CodeQuery) {
        let none;
        let vector = match (vector, &*self) {
            (VectorRef::Absent, Self::Bits(bits)) => {
                none = (Vec::new(), vec![0; bits.width]);
                VectorRef::Bits(&none.1)
            }
            (VectorRef::Absent, _) => {
                none = (vec![0.0; dim], Vec::new());
                VectorRef::Numbers(&none.0)
            }
            _ => vector,
        };
        match self {
            Self::Sq8(codes) => codes.push(vector.numbers(), &mut query.numbers),
            Self::RaBitQ(codes) => codes.push(vector.numbers(), &mut query.rotated),
            Self::Pq(words) => words.rows_mut().push(vector.numbers(), &mut query.words),
            Self::Bits(bits) => {
                let (start, row) = (bits.rows.len(), vector.bits(bits.width));
                bits.rows.grow(start + bits.width);
                bits.rows[start..].copy_from_slice(row);
            }
        }
    }

    /// Appends row `row` of `other`, codes of the same kind.
    pub(super) fn copy(&mut self, other: &Self, row: u32) {
        match (self, other) {
            (Self::Sq8(codes), Self::Sq8(other)) => codes.copy(other, row),
            (Self::RaBitQ(codes), Self::RaBitQ(other)) => codes.copy(other, row),
            (Self::Pq(words), Self::Pq(other)) => words.rows_mut().copy(other.rows(), row),
            (Self::Bits(bits), Self::Bits(other)) => {
                let start = bits.rows.len();
                bits.rows.grow(start + bits.width);
                bits.rows[start..].copy_from_slice(other.row(row));
            }
            _ => unreachable!("codes of one kind"),
        }
    }

    /// Gives back what was taken in advance for more rows.
    pub(super) fn settle(&mut self) {
        match self {
            Self::Sq8(codes) => codes.settle(),
            Self::RaBitQ(codes) => codes.settle(),
            Self::Pq(words) => words.rows.iter_mut().for_each(PqRows::settle),
            Self::Bits(bits) => bits.rows.settle(),
        }
    }

    pub(super) fn encode(&self, vector: VectorRef<'_>, query: &mut CodeQuery) {
        match self {
            Self::Sq8(codes) => codes.encode(vector.numbers(), &mut query.numbers),
            Self::RaBitQ(codes) => codes.encode(vector.numbers(), &mut query.rotated),
            Self::Pq(words) => words.rows().encode(vector.numbers(), &mut query.words),
            Self::Bits(bits) => {
                query.bits.clear();
                query.bits.extend_from_slice(vector.bits(bits.width));
            }
        }
    }

    /// Takes row `row` out into `query`.
    pub(super) fn load(&self, row: u32, query: &mut CodeQuery) {
        match self {
            Self::Sq8(codes) => codes.load(row, &mut query.numbers),
            Self::RaBitQ(codes) => codes.load(row, &mut query.rotated),
            Self::Pq(words) => words.rows().load(row, &mut query.words),
            Self::Bits(bits) => self.encode(VectorRef::Bits(bits.row(row)), query),
        }
    }

    /// Whether no distance can tell two rows apart.
    pub(super) fn are_same(&self, left: u32, right: u32) -> bool {
        match self {
            Self::Sq8(codes) => codes.are_same(left, right),
            Self::RaBitQ(codes) => codes.are_same(left, right),
            Self::Pq(words) => words.rows().are_same(left, right),
            Self::Bits(bits) => bits.row(left) == bits.row(right),
        }
    }

    /// Whether a row has the same distance to all others, so that a graph could not lead to it.
    pub(super) fn is_nowhere(&self, row: u32, metric: Metric) -> bool {
        match self {
            Self::Sq8(codes) => metric != Metric::L2 && codes.is_zero(row),
            Self::RaBitQ(codes) => metric != Metric::L2 && codes.is_zero(row),
            Self::Pq(words) => metric != Metric::L2 && words.rows().is_zero(row),
            Self::Bits(bits) => metric == Metric::Jaccard && bits.row(row).iter().all(|&byte| byte == 0),
        }
    }

    /// The distance of `query` to every one of `rows`, in their order.
    pub(super) fn distances<'a>(
        &self,
        kernels: &Kernels,
        query: &CodeQuery,
        rows: &[u32],
        room: &'a mut Room,
    ) -> &'a [f32] {
        #[cfg(test)]
        {
            room.compared += rows.len();
        }
        let Room { products, bits: bit_room, distances, .. } = room;
        if distances.len() < rows.len() {
            distances.resize(rows.len(), 0.0);
        }
        let distances = &mut distances[..rows.len()];
        match self {
            Self::Sq8(codes) => codes.distances(kernels, &query.numbers, rows, products, distances),
            Self::RaBitQ(codes) => codes.distances(kernels, &query.rotated, rows, bit_room, distances),
            Self::Pq(words) => words.rows().distances(&query.words, rows, distances),
            Self::Bits(bits) => kernels.bits_gather(bits.metric, &query.bits, &bits.rows, rows, distances),
        }
        distances
    }

    /// Whether a code is few bytes that are compared as they are.
    pub(super) fn are_short(&self) -> bool {
        match self {
            Self::Sq8(codes) => codes.is_short(),
            Self::Bits(bits) => bits.width <= 192,
            Self::RaBitQ(_) | Self::Pq(_) => false,
        }
    }

    /// What of a row's code a scan may compare first; `None` of codes that have no such part.
    pub(super) fn lead(&self, query: &CodeQuery) -> Option<Lead> {
        let Self::Sq8(codes) = self else { return None };
        codes.lead(&query.numbers)
    }

    /// What the first part of its code says about the distance of `query` to every one of `rows`, in their order, into `distances`.
    pub(super) fn lead_distances(
        &self,
        kernels: &Kernels,
        query: &CodeQuery,
        lead: Lead,
        rows: &[u32],
        room: &mut Room,
        distances: &mut [f32],
    ) {
        let Self::Sq8(codes) = self else { unreachable!("these codes have no lead") };
        let Room { products, numbers, .. } = room;
        codes.lead_distances(kernels, &query.numbers, lead, rows, (numbers, products), distances);
    }

    /// Which codes they are, but for bits, which are their own.
    pub(super) fn kind(&self) -> GraphCodes {
        match self {
            Self::RaBitQ(_) => GraphCodes::RaBitQ,
            Self::Pq(words) => GraphCodes::Pq { num_sub_vectors: words.num_sub_vectors as u32, nbits: words.nbits },
            _ => GraphCodes::Sq8,
        }
    }

    /// By how much `distance`, that of `query` to a row, is wrong, about: one standard deviation.
    pub(super) fn deviation(&self, query: &CodeQuery, row: u32, distance: f32) -> f32 {
        match self {
            Self::Sq8(codes) => codes.deviation(&query.numbers, row, distance),
            Self::RaBitQ(codes) => codes.deviation(&query.rotated, row),
            Self::Pq(words) => words.rows().deviation(&query.words, row),
            Self::Bits(_) => 0.0,
        }
    }

    /// How many candidates of a walk with `ef` are compared by their vectors. Of bytes, among twice `k` by code were all true neighbours
    /// that were among the candidates at all (measured on real embeddings); reading every candidate's full vector would cost a third of
    /// a search.
    pub(super) fn reranked(&self, k: usize, ef: usize) -> usize {
        let times = if matches!(self, Self::RaBitQ(_) | Self::Pq(_)) { 6 } else { 2 };
        (times * k).max(k + 10).min(ef)
    }

    /// What comes before these: the words of product codes.
    pub(super) fn write_words(&self, bytes: &mut Vec<u8>) {
        if let Self::Pq(words) = self {
            bytes.put_u32(words.trained as u32);
            words.rows.iter().for_each(|rows| rows.write_words(bytes));
        }
    }

    /// Takes over what `other`, codes of the same kind, has learned.
    pub(super) fn learn_from(&mut self, other: &Self) {
        if let (Self::Pq(words), Self::Pq(other)) = (self, other) {
            *words = other.none_like();
        }
    }

    /// How many arrays hold the codes.
    pub(super) fn arrays(&self) -> usize {
        match self {
            Self::Sq8(_) | Self::RaBitQ(_) | Self::Pq(_) => 2,
            Self::Bits(_) => 1,
        }
    }

    /// Of the `array`th of these, the bytes of some rows.
    pub(super) fn write(&self, bytes: &mut Vec<u8>, array: usize, rows: Range<usize>) {
        match (self, array) {
            (Self::Sq8(codes), 0) => codes.write_codes(bytes, rows),
            (Self::Sq8(codes), _) => codes.write_factors(bytes, rows),
            (Self::RaBitQ(codes), 0) => codes.write_codes(bytes, rows),
            (Self::RaBitQ(codes), _) => codes.write_factors(bytes, rows),
            (Self::Pq(words), 0) => words.rows().write_codes(bytes, rows),
            (Self::Pq(words), _) => words.rows().write_factors(bytes, rows),
            (Self::Bits(bits), _) => {
                bytes.extend_from_slice(&bits.rows[rows.start * bits.width..rows.end * bits.width]);
            }
        }
    }

    /// Reads `rows` rows, one array after the other.
    ///
    /// # Errors
    /// `Corrupt`, with the offset, when there are fewer bytes.
    pub(super) fn read_from(
        reader: &mut Reader<'_>,
        dim: usize,
        metric: Metric,
        codes: GraphCodes,
        rows: usize,
    ) -> Result<Self> {
        Ok(match Self::new(dim, metric, codes) {
            Self::Sq8(_) => Self::Sq8(Sq8::read_from(reader, dim, metric, rows)?),
            Self::RaBitQ(_) => Self::RaBitQ(RaBitQ::read_from(reader, dim, metric, BITS, rows)?),
            Self::Pq(mut words) => {
                let at = reader.offset();
                words.trained = reader.u32()? as usize;
                if !Words::is_level(words.trained) || (words.trained == 0 && rows > 0) {
                    return Err(Error::corrupt(format!("at byte {at}: words trained on {} rows", words.trained)));
                }
                if words.trained > 0 {
                    let (m, nbits) = (words.num_sub_vectors, words.nbits);
                    let numbers = reader.bytes(((m * dim.div_ceil(m)) << nbits) * 4)?.as_chunks().0;
                    let numbers = numbers.iter().map(|&four| f32::from_le_bytes(four)).collect();
                    let pq = Pq::with_words(dim, m, nbits, 1.0, numbers);
                    words.rows = Some(PqRows::read_from(reader, metric, pq, rows)?);
                }
                Self::Pq(words)
            }
            Self::Bits(mut bits) => {
                let read = reader.bytes(rows.saturating_mul(bits.width))?;
                bits.rows.grow(read.len());
                bits.rows.copy_from_slice(read);
                Self::Bits(bits)
            }
        })
    }
}
