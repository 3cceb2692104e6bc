use super::pq::Table;
use super::rabitq::{self, BitQuery, Room};
use super::{Pq, Query, Sq8};
use crate::distance::{Kernels, Metric};

/// Codes of vectors that are less a centroid, for lists: a row's product with a query is estimated as the row's scale times what
/// [`Self::products`] gives.
#[derive(Debug, Clone)]
pub enum Coder {
    /// One byte a dimension, of which 7 bits are used: see [`Sq8`].
    Sq8(Sq8),
    /// Bits, of rotated vectors: see [`RaBitQ`](super::RaBitQ).
    RaBitQ {
        /// Numbers of a rotated vector, a multiple of 64.
        len: usize,
        /// Bits a number.
        bits: u32,
    },
    /// Words of codebooks.
    Pq(Pq),
}

/// A query for codes of one coder, and room to work in.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    query: Query,
    bits: BitQuery,
    step: f32,
    room: Room,
    products: Vec<i32>,
    numbers: Vec<u32>,
    table: Table,
}

impl Coder {
    /// One byte for each of `dim` dimensions.
    pub fn sq8(dim: usize) -> Self {
        Self::Sq8(Sq8::new(dim, Metric::Ip))
    }

    /// How many bytes are held.
    pub fn memory_bytes(&self) -> usize {
        if let Self::Pq(pq) = self { pq.memory_bytes() } else { 0 }
    }

    /// The bytes of a code before it is appended.
    pub fn width(&self) -> usize {
        match self {
            Self::Sq8(codes) => codes.stride(),
            Self::RaBitQ { len, bits } => rabitq::code_bytes(*len, *bits),
            Self::Pq(pq) => pq.width(),
        }
    }

    /// The bytes of so many rows' codes.
    pub fn codes_len(&self, rows: usize) -> usize {
        if let Self::Pq(pq) = self { pq.codes_len(rows) } else { rows.saturating_mul(self.width()) }
    }

    /// Appends a code to those of `rows` rows.
    pub fn append(&self, codes: &mut Vec<u8>, rows: usize, code: &[u8]) {
        match self {
            Self::Pq(pq) => pq.append(codes, rows, code),
            _ => codes.extend_from_slice(code),
        }
    }

    /// Whether a product is right on average over all vectors with a code, and not the product with the one that the code stands for.
    pub fn is_unbiased(&self) -> bool {
        matches!(self, Self::RaBitQ { .. })
    }

    /// Writes the code of a vector at the end of `codes`, gives its scale, and puts what the code stands for into `decoded`: its product
    /// with a vector is the estimate. `along` is what a product with is to be right. Panics when the vector has another dimension.
    pub fn encode(&self, vector: &[f32], along: &[f32], codes: &mut Vec<u8>, decoded: &mut Vec<f32>) -> f32 {
        let start = codes.len();
        codes.resize(start + self.width(), 0);
        let code = &mut codes[start..];
        match self {
            Self::Sq8(coder) => {
                let mut query = Query::default();
                let step = coder.encode_row(vector, code, &mut query);
                decoded.clear();
                decoded.extend(code[..vector.len()].iter().map(|&code| step * (f32::from(code) - 64.0)));
                step
            }
            Self::RaBitQ { bits, .. } => {
                let scale = rabitq::encode(*bits, vector, code);
                rabitq::decode(*bits, code, vector.len(), scale, decoded);
                scale
            }
            Self::Pq(pq) => {
                pq.encode(vector, along, code, decoded);
                1.0
            }
        }
    }

    /// Takes the numbers of a query. Panics when it has another dimension.
    pub fn prepare(&self, query: &[f32], prepared: &mut Prepared) {
        match self {
            Self::Sq8(codes) => codes.encode(query, &mut prepared.query),
            Self::RaBitQ { bits, .. } => prepared.step = prepared.bits.set(*bits, query),
            Self::Pq(pq) => pq.prepare(query, &mut prepared.table),
        }
    }

    /// For each of the `rows` rows whose codes these are, what times the row's scale is its product with the query.
    pub fn products(&self, kernels: &Kernels, codes: &[u8], rows: usize, prepared: &mut Prepared, out: &mut Vec<f32>) {
        let Prepared { query, bits: bit_query, step, room, products, numbers, table } = prepared;
        let known = numbers.len() as u32;
        numbers.extend(known..known.max(rows as u32));
        let numbers = &numbers[..rows];
        out.clear();
        match self {
            Self::Sq8(_) => {
                products.resize(rows, 0);
                query.products(kernels, codes, numbers, products);
                out.extend(products.iter().map(|&product| query.step() * product as f32));
            }
            Self::RaBitQ { bits, .. } => {
                rabitq::products(kernels, *bits, bit_query, codes, numbers, room);
                out.extend(room.products().iter().map(|&product| *step * product as f32));
            }
            Self::Pq(pq) => pq.products(kernels, codes, rows, table, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sums::dot;
    use super::*;
    use crate::base::Random;
    use crate::distance::kernels;

    proptest! {
        /// What is scored is the product with what a code stands for, but for the rounding of the query.
        #[test]
        fn products_are_those_with_the_decoded_vector(
            seed in any::<u64>(),
            words in 1usize..5,
            rows in 1usize..40,
            which in 0usize..4,
        ) {
            let dim = words * 64;
            let coder = [
                Coder::sq8(dim),
                Coder::RaBitQ { len: dim, bits: 1 },
                Coder::RaBitQ { len: dim, bits: 2 },
                Coder::RaBitQ { len: dim, bits: 4 },
            ][which].clone();
            let mut random = Random::new(seed);
            let mut vector = || -> Vec<f32> { (0..dim).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect() };
            let query = vector();
            let (mut codes, mut decoded, mut expected, mut scales) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..rows {
                let row = vector();
                let scale = coder.encode(&row, &row, &mut codes, &mut decoded);
                // Half a step of the query for every number.
                let step = if which == 1 { 1.0 / 7.0 } else { 1.0 / 127.0 };
                let size = decoded.iter().map(|x| x.abs()).sum::<f32>();
                expected.push((dot(&query, &decoded), 0.51 * step * size));
                scales.push(scale);
            }
            let mut prepared = Prepared::default();
            let mut found = Vec::new();
            coder.prepare(&query, &mut prepared);
            coder.products(kernels(), &codes, rows, &mut prepared, &mut found);
            for ((found, scale), (expected, tolerance)) in found.iter().zip(&scales).zip(expected) {
                prop_assert!((found * scale - expected).abs() <= tolerance, "{} {expected} +- {tolerance}", found * scale);
            }
        }
    }
}
