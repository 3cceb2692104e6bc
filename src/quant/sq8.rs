use std::ops::Range;

use super::Factors;
use crate::base::codec::Reader;
use crate::base::{Result, make_room};
use crate::distance::{AlignedVec, Kernels, Metric};

/// Codes are padded with zeros to whole cache lines: no kernel has a tail, no row straddles a line.
const STRIDE_MULTIPLE: usize = 64;

/// The first numbers of a query have at least one part in so many of its squared length, or say too little.
const LEAD_SHARE_MAX: f32 = 16.0;
/// The most that a code of a row is away from its zero.
const ROW_LEVELS: i8 = 63;
/// The most that a code of a query is away from 0.
const QUERY_LEVELS: i8 = 127;
/// What is added to a row's codes, so that they are not negative.
const ZERO: i8 = 64;

/// An encoded query, or a row taken out for use as one.
#[derive(Debug, Clone, Default)]
pub struct Query {
    code: AlignedVec<i8>,
    /// What the product with any row is too large by, because of [`ZERO`].
    bias: i32,
    factors: Factors,
    /// Of what is encoded.
    length: f32,
}

/// The first numbers of codes, from which the distance can be guessed.
#[derive(Debug, Clone, Copy)]
pub struct Lead {
    /// How many they are.
    len: usize,
    /// What their product with any row is too large by, because of [`ZERO`].
    bias: i32,
    /// Of the query's squared length, one over what they have.
    per_share: f32,
}

/// Vectors as one byte per dimension, of which 7 bits are used, each row with its own step: `x[i] = (code[i] - 64) * max(|x|) / 63`.
/// Queries have 8 bits, -127..=127.
///
/// With 7 bits no two products exceed 16 bits, so AVX2, VNNI and WebAssembly's relaxed SIMD multiply and add in one to three
/// instructions, without a change of signs. Measured in Chromium: a search takes two thirds of the time that plain simd128 takes, at the
/// recall after rerank that 8 bits gave.
///
/// No training: a row's code depends on nothing but the row, so rows can be appended forever and codes are the same on every
/// replica. One formula serves every metric, hence one kernel.
#[derive(Debug, Clone)]
pub struct Sq8 {
    metric: Metric,
    dim: usize,
    stride: usize,
    codes: AlignedVec<u8>,
    factors: Vec<Factors>,
}

impl Sq8 {
    /// No rows of `dim` dimensions.
    pub fn new(dim: usize, metric: Metric) -> Self {
        Self {
            metric,
            dim,
            stride: dim.next_multiple_of(STRIDE_MULTIPLE),
            codes: AlignedVec::new(),
            factors: Vec::new(),
        }
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
        self.codes.memory_bytes() + self.factors.capacity() * size_of::<Factors>()
    }

    /// Appends a row. Panics when it has another dimension. `query` is room to work in.
    ///
    /// The zero vector has the zero code; its cosine with everything is 0. A NaN is encoded as 0, an infinity as if all else
    /// were 0.
    pub fn push(&mut self, vector: &[f32], query: &mut Query) {
        self.quantize(vector, ROW_LEVELS, query);
        let start = self.codes.len();
        self.codes.grow(start + self.stride);
        for (code, &signed) in self.codes[start..].iter_mut().zip(&*query.code) {
            *code = (signed + ZERO) as u8;
        }
        make_room(&mut self.factors, 1);
        self.factors.push(query.factors);
    }

    /// Appends row `row` of `other`, which has the same dimension and metric.
    pub fn copy(&mut self, other: &Self, row: u32) {
        let start = self.codes.len();
        self.codes.grow(start + self.stride);
        self.codes[start..].copy_from_slice(other.code(row));
        make_room(&mut self.factors, 1);
        self.factors.push(other.factors[row as usize]);
    }

    /// Gives back what was taken in advance for more rows.
    pub fn settle(&mut self) {
        self.codes.settle();
        self.factors.shrink_to_fit();
    }

    /// Encodes `vector` into `query`, whose memory is used again. Panics when it has another dimension. Special values as in
    /// [`Sq8::push`].
    pub fn encode(&self, vector: &[f32], query: &mut Query) {
        self.quantize(vector, QUERY_LEVELS, query);
    }

    fn quantize(&self, vector: &[f32], levels: i8, query: &mut Query) {
        assert_eq!(vector.len(), self.dim, "a vector of another dimension");
        let largest = vector.iter().fold(0f32, |largest, x| largest.max(x.abs())).min(f32::MAX);
        query.code.grow(self.stride);
        // A step below the smallest normal number would lose the code to rounding; such a vector is the zero vector.
        let step = largest / f32::from(levels);
        let per_step = if step >= f32::MIN_POSITIVE { 1.0 / step } else { 0.0 };
        let (mut sum, mut square) = (0i32, 0i32);
        for (code, &x) in query.code.iter_mut().zip(vector) {
            // Adding and taking away 1.5 * 2^23 rounds to the nearest integer, ties to even, on every target alike and without a
            // call; `as` saturates and turns NaN into 0.
            let rounded = ((x * per_step + 12_582_912.0) - 12_582_912.0) as i8;
            *code = rounded.clamp(-levels, levels);
            sum += i32::from(*code);
            square += i32::from(*code) * i32::from(*code);
        }
        query.bias = sum * i32::from(ZERO);
        let square = square as f32;
        query.length = step * square.sqrt();
        query.factors = match self.metric {
            Metric::L2 => Factors { scale: step * std::f32::consts::SQRT_2, offset: step * step * square },
            Metric::Ip => Factors { scale: step, offset: 0.0 },
            Metric::Hamming | Metric::Jaccard => unreachable!("bits have no codes"),
            Metric::Cosine => Factors { scale: if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }, offset: 0.5 },
        };
    }

    /// The bytes of a code.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// Writes the code of a row that is kept elsewhere, `stride` bytes; gives its step. For [`Metric::Ip`].
    pub(crate) fn encode_row(&self, vector: &[f32], code: &mut [u8], query: &mut Query) -> f32 {
        self.quantize(vector, ROW_LEVELS, query);
        code.iter_mut().zip(&*query.code).for_each(|(code, &signed)| *code = (signed + ZERO) as u8);
        query.factors.scale
    }

    fn code(&self, row: u32) -> &[u8] {
        &self.codes[row as usize * self.stride..][..self.stride]
    }

    /// Takes row `row` out into `query`.
    pub fn load(&self, row: u32, query: &mut Query) {
        query.code.grow(self.stride);
        let words = self.stride / 8;
        let codes = &self.codes.words()[row as usize * words..][..words];
        let mut sum = 0;
        // Eight codes at once: a graph is built by taking rows out all the time.
        for (signed, &codes) in query.code.words_mut().iter_mut().zip(codes) {
            // 64 less is bit 6 turned over; below 0, which is where that sets it, bit 7 is set as well.
            let turned = codes ^ u64::from_ne_bytes([ZERO as u8; 8]);
            *signed = turned | (turned & u64::from_ne_bytes([ZERO as u8; 8])) << 1;
            // Neighbours are added up into 16 bits, and the multiplication adds up the four sums in the topmost.
            let even = 0x00ff_00ff_00ff_00ff;
            let pairs = (codes & even) + (codes >> 8 & even);
            sum += (pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48) as i32;
        }
        query.bias = (sum - self.stride as i32 * i32::from(ZERO)) * i32::from(ZERO);
        query.factors = self.factors[row as usize];
    }

    /// Whether two rows have the same code with the same factors: no distance can tell them apart.
    pub fn are_same(&self, left: u32, right: u32) -> bool {
        self.factors[left as usize] == self.factors[right as usize] && self.code(left) == self.code(right)
    }

    /// Whether every dimension of a row is 0.
    pub fn is_zero(&self, row: u32) -> bool {
        self.code(row).iter().all(|&code| code == ZERO as u8)
    }

    /// By how much `distance`, that of `query` to a row, is wrong, about: one standard deviation. Each number of the row is off by up to
    /// half a step, as likely by any amount.
    pub fn deviation(&self, query: &Query, row: u32, distance: f32) -> f32 {
        let length = match self.metric {
            // The error of the row's own length takes away what is not in the direction from one to the other.
            Metric::L2 => (2.0 * distance.max(0.0)).sqrt(),
            Metric::Cosine => 1.0,
            _ => query.length,
        };
        length * self.factors[row as usize].scale / 12f32.sqrt()
    }

    /// Puts the distance of `query` to every one of `rows`, in their order, into `out`, which has as many; `products` is room to work in.
    #[inline(always)]
    pub fn distances(&self, kernels: &Kernels, query: &Query, rows: &[u32], products: &mut Vec<i32>, out: &mut [f32]) {
        if products.len() < rows.len() {
            products.resize(rows.len(), 0);
        }
        let products = &mut products[..rows.len()];
        kernels.dot_codes_gather(&query.code, &self.codes, rows, products);
        for ((out, &row), &product) in out.iter_mut().zip(rows).zip(&*products) {
            *out = query.factors.distance(self.factors[row as usize], product - query.bias);
        }
    }

    /// Whether a code is three lines of the cache at most.
    pub fn is_short(&self) -> bool {
        self.stride <= 3 * STRIDE_MULTIPLE
    }

    /// The first numbers of codes, where these are a small part of them: two lines or three of the cache, which are read much faster than
    /// the whole. `None` as well where they have hardly a part in the query.
    pub fn lead(&self, query: &Query) -> Option<Lead> {
        let lines = self.stride / STRIDE_MULTIPLE;
        let lead = [2, 3].into_iter().find(|&lead| lines.is_multiple_of(lead) && lines > 3)?;
        let len = lead * STRIDE_MULTIPLE;
        // As rows of that length they are numbered.
        u32::try_from(self.codes.len() / len).ok()?;
        let square = |codes: &[i8]| codes.iter().map(|&code| i32::from(code) * i32::from(code)).sum::<i32>();
        let (first, all) = (&query.code[..len], square(&query.code));
        let per_share = all as f32 / square(first).max(1) as f32;
        let bias = first.iter().map(|&code| i32::from(code)).sum::<i32>() * i32::from(ZERO);
        (all > 0 && per_share < LEAD_SHARE_MAX).then_some(Lead { len, bias, per_share })
    }

    /// Puts into `out` what the distance of `query` to every one of `rows` would be if the numbers behind the first ones had as much
    /// in common with it as these: [`Sq8::distances`] without most of what that reads.
    pub fn lead_distances(
        &self,
        kernels: &Kernels,
        query: &Query,
        lead: Lead,
        rows: &[u32],
        (numbers, products): (&mut Vec<u32>, &mut Vec<i32>),
        out: &mut [f32],
    ) {
        let times = (self.stride / lead.len) as u32;
        numbers.clear();
        numbers.extend(rows.iter().map(|&row| row * times));
        if products.len() < rows.len() {
            products.resize(rows.len(), 0);
        }
        let products = &mut products[..rows.len()];
        kernels.dot_codes_gather(&query.code[..lead.len], &self.codes, numbers, products);
        let scale = query.factors.scale * lead.per_share;
        for ((out, &row), &product) in out.iter_mut().zip(rows).zip(&*products) {
            let own = self.factors[row as usize];
            *out = query.factors.offset + own.offset - scale * own.scale * (product - lead.bias) as f32;
        }
    }

    /// The codes of some rows, `[rows, stride]` bytes.
    pub fn write_codes(&self, bytes: &mut Vec<u8>, rows: Range<usize>) {
        bytes.extend_from_slice(&self.codes[rows.start * self.stride..rows.end * self.stride]);
    }

    /// What goes with the codes, `[rows, 2]`: f32 scale, f32 offset.
    pub fn write_factors(&self, bytes: &mut Vec<u8>, rows: Range<usize>) {
        self.factors[rows].iter().for_each(|factors| factors.write(bytes));
    }

    /// Reads `rows` rows of which all codes were written, then all factors.
    ///
    /// # Errors
    /// `Corrupt`, with the offset, when there are fewer bytes.
    pub fn read_from(reader: &mut Reader<'_>, dim: usize, metric: Metric, rows: usize) -> Result<Self> {
        let mut read = Self::new(dim, metric);
        let codes = reader.bytes(rows.saturating_mul(read.stride))?;
        read.codes.grow(codes.len());
        for (to, &from) in read.codes.iter_mut().zip(codes) {
            *to = from.clamp(1, 127);
        }
        read.factors = Factors::read(reader, rows)?;
        Ok(read)
    }
}

impl Query {
    /// The value of one step. For [`Metric::Ip`].
    pub(crate) fn step(&self) -> f32 {
        self.factors.scale
    }

    /// The products with rows that are kept elsewhere, in steps of both.
    pub(crate) fn products(&self, kernels: &Kernels, codes: &[u8], rows: &[u32], products: &mut [i32]) {
        kernels.dot_codes_gather(&self.code, codes, rows, products);
        products.iter_mut().for_each(|product| *product -= self.bias);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distance::kernels;

    proptest! {
        /// A component is off by half a step at most, so a product is off by half a step times the sum of the other side's
        /// components, for each of the two.
        #[test]
        fn distances_are_near_the_true_ones(
            pair in prop::collection::vec((-1f32..1.0, -1f32..1.0), 1..200),
            metric in prop::sample::select(vec![Metric::L2, Metric::Ip, Metric::Cosine]),
        ) {
            let (left, right): (Vec<f32>, Vec<f32>) = pair.into_iter().unzip();
            let mut codes = Sq8::new(left.len(), metric);
            let mut query = Query::default();
            codes.push(&right, &mut query);
            codes.encode(&left, &mut query);
            let distance = distance(&codes, &query);
            let product: f32 = left.iter().zip(&right).map(|(a, b)| a * b).sum();
            let (square_l, square_r) = (left.iter().map(|a| a * a).sum::<f32>(), right.iter().map(|a| a * a).sum::<f32>());
            let error = left.len() as f32 * (0.55 / 127.0 + 0.55 / 63.0);
            match metric {
                Metric::Hamming | Metric::Jaccard => unreachable!("not drawn"),
                Metric::L2 => prop_assert!((distance - (square_l + square_r - 2.0 * product)).abs() <= 4.0 * error),
                Metric::Ip => prop_assert!((distance + product).abs() <= error),
                Metric::Cosine => {
                    let length = (square_l * square_r).sqrt();
                    prop_assume!(length > 1e-3);
                    prop_assert!((distance - 1.0 + product / length).abs() <= 4.0 * error / length);
                }
            }
        }
    }

    fn distance(codes: &Sq8, query: &Query) -> f32 {
        let mut distance = [f32::NAN];
        codes.distances(kernels(), query, &[0], &mut Vec::new(), &mut distance);
        distance[0]
    }

    #[test]
    fn a_row_is_its_own_query() {
        let mut query = Query::default();
        for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
            let mut codes = Sq8::new(70, metric);
            let vector: Vec<f32> = (0..70).map(|n| (n as f32 * 0.37).sin()).collect();
            codes.push(&vector, &mut query);
            let pushed = query.clone();
            codes.load(0, &mut query);
            assert_eq!((&*query.code, query.bias, query.factors), (&*pushed.code, pushed.bias, pushed.factors));
            let square: f32 = vector.iter().map(|x| x * x).sum();
            let expected = if metric == Metric::Ip { -square } else { 0.0 };
            assert!((distance(&codes, &query) - expected).abs() < 1e-4 * square + 0.01 * expected.abs());
        }
    }

    #[test]
    fn special_values_are_encoded_without_a_panic() {
        for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
            let mut codes = Sq8::new(3, metric);
            let mut query = Query::default();
            codes.push(&[0.0, -0.0, 0.0], &mut query);
            codes.push(&[1e-45, 0.0, 1e-40], &mut query);
            assert!(codes.is_zero(0));
            assert!(codes.is_zero(1), "too small to be told from zero");
            codes.encode(&[f32::NAN, -2.0, 1.0], &mut query);
            assert_eq!(&query.code[..3], [0, -127, 64]);
            codes.encode(&[f32::NEG_INFINITY, f32::MAX, f32::INFINITY], &mut query);
            assert_eq!(&query.code[..3], [-127, 127, 127]);
            codes.push(&[f32::NEG_INFINITY, f32::MAX, f32::INFINITY], &mut query);
            assert_eq!(codes.code(2)[..3], [1, 127, 127]);
        }
    }
}
