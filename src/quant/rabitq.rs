use std::ops::Range;

use super::sums::{dot, tame};
use super::{Factors, Rotation};
use crate::base::codec::Reader;
use crate::base::{Result, make_room};
use crate::distance::{AlignedVec, Kernels, Metric};

/// Numbers of a query are -7 to 7 where rows have one bit, so that they fit the four bits of the kernel; else -127 to 127.
const QUERY_LEVELS: [i8; 2] = [7, 127];
/// Rows of more than a bit that are unpacked at once.
const UNPACKED_ROWS: usize = 16;

/// Vectors as 1, 2 or 4 bits a dimension, whose products with a query are estimated without bias.
///
/// Source: Gao & Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate Nearest Neighbor
/// Search" (2024), and Gao et al., "Practical and Asymptotically Optimal Quantization of High-Dimensional Vectors in Euclidean Space for
/// Approximate Nearest Neighbor Search" (2024) for more bits. A rotated vector `x` gets the code `u` whose grid point
/// `g = u - (2^bits - 1) / 2` has nearly its direction; then `<x, q>` is estimated as `<g, q> |x|² / <g, x>`. Where we depart from them:
/// the rotation is a fast one ([`Rotation`]), the query is rounded to the nearest step and not at random, and of several bits the
/// best of eight step sizes is taken, not the best of all.
///
/// No training: a row's code depends on nothing but the row. With one bit the error of a product is about `0.75 |x| |q| / sqrt(dim)`.
#[derive(Debug, Clone)]
pub struct RaBitQ {
    metric: Metric,
    bits: u32,
    rotation: Rotation,
    codes: AlignedVec<u8>,
    factors: Vec<Factors>,
}

/// An encoded query, or a row taken out for use as one.
#[derive(Debug, Clone, Default)]
pub struct BitQuery {
    /// For rows of one bit.
    planes: Vec<[u64; 4]>,
    /// For rows of several bits; the codes of either.
    numbers: AlignedVec<i8>,
    sum: i32,
    factors: Factors,
    rotated: Vec<f32>,
}

/// Room to work in.
#[derive(Debug, Clone, Default)]
pub struct Room {
    products: Vec<i32>,
    unpacked: AlignedVec<u8>,
}

impl RaBitQ {
    /// No rows of `dim` dimensions. Panics when `bits` is not 1, 2 or 4.
    pub fn new(dim: usize, metric: Metric, bits: u32) -> Self {
        assert!(matches!(bits, 1 | 2 | 4), "{bits} bits a dimension");
        Self { metric, bits, rotation: Rotation::new(dim), codes: AlignedVec::new(), factors: Vec::new() }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.factors.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.factors.is_empty()
    }

    /// Bits a dimension.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// How many bytes are held.
    pub fn memory_bytes(&self) -> usize {
        self.codes.memory_bytes() + self.factors.capacity() * size_of::<Factors>()
    }

    fn width(&self) -> usize {
        code_bytes(self.rotation.len(), self.bits)
    }

    /// Appends a row. Panics when it has another dimension. `query` is room to work in.
    ///
    /// The zero vector's product with everything is 0. A NaN is encoded as 0.
    pub fn push(&mut self, vector: &[f32], query: &mut BitQuery) {
        let square = self.rotate(vector, query);
        let (start, width) = (self.codes.len(), self.width());
        self.codes.grow(start + width);
        let scale = encode(self.bits, &query.rotated, &mut self.codes[start..]);
        make_room(&mut self.factors, 1);
        self.factors.push(factors(self.metric, scale, square));
    }

    /// Appends row `row` of `other`, which has the same dimension, metric and bits.
    pub fn copy(&mut self, other: &Self, row: u32) {
        let start = self.codes.len();
        self.codes.grow(start + self.width());
        self.codes[start..].copy_from_slice(other.code(row));
        make_room(&mut self.factors, 1);
        self.factors.push(other.factors[row as usize]);
    }

    /// Gives back what was taken in advance for more rows.
    pub fn settle(&mut self) {
        self.codes.settle();
        self.factors.shrink_to_fit();
    }

    /// Encodes `vector` into `query`, whose memory is used again. Panics when it has another dimension.
    pub fn encode(&self, vector: &[f32], query: &mut BitQuery) {
        let square = self.rotate(vector, query);
        let rotated = std::mem::take(&mut query.rotated);
        let step = query.set(self.bits, &rotated);
        query.rotated = rotated;
        query.factors = factors(self.metric, step, square);
    }

    /// Puts the rotated vector into `query`; gives its squared length.
    fn rotate(&self, vector: &[f32], query: &mut BitQuery) -> f32 {
        let mut tamed = Vec::new();
        tame(vector, &mut tamed);
        self.rotation.apply(&tamed, &mut query.rotated);
        dot(&tamed, &tamed)
    }

    fn code(&self, row: u32) -> &[u8] {
        &self.codes[row as usize * self.width()..][..self.width()]
    }

    /// Takes row `row` out into `query`, decoded to where its product with its own code is right. Products of two codes are shrunk for
    /// rows that are not nearly the same: of one bit by up to a third, of two by an eighth, of four by a hundredth.
    pub fn load(&self, row: u32, query: &mut BitQuery) {
        let len = self.rotation.len();
        query.numbers.grow(len);
        let mut unpacked = AlignedVec::new();
        unpacked.grow(len);
        unpack(self.bits, self.code(row), &mut unpacked);
        let odd = (1i8 << self.bits) - 1;
        let mut square = 0;
        for (number, &code) in query.numbers.iter_mut().zip(&*unpacked) {
            *number = 2 * code as i8 - odd;
            square += i32::from(*number) * i32::from(*number);
        }
        query.planes.clear();
        if self.bits == 1 {
            query.planes.extend(query.numbers.as_chunks::<64>().0.iter().map(planes));
        }
        query.sum = query.numbers.iter().map(|&number| i32::from(number)).sum();
        let own = self.factors[row as usize];
        // What makes the estimate for the row itself its true product: `scale² square` would be too large by the square of the
        // cosine between the vector and its code.
        let exact = self.square(own);
        let times = own.scale * own.scale * square as f32;
        query.factors = own;
        query.factors.scale = if times > 0.0 { own.scale * (exact / times) } else { 0.0 };
    }

    /// What `scale * scale * product` is for a row and itself.
    fn square(&self, own: Factors) -> f32 {
        match self.metric {
            // Twice the squared length.
            Metric::L2 => 2.0 * own.offset,
            Metric::Cosine => 1.0,
            _ => own.offset,
        }
    }

    /// Whether two rows have the same code with the same factors: no distance can tell them apart.
    pub fn are_same(&self, left: u32, right: u32) -> bool {
        self.factors[left as usize] == self.factors[right as usize] && self.code(left) == self.code(right)
    }

    /// Whether a row is the zero vector.
    pub fn is_zero(&self, row: u32) -> bool {
        self.factors[row as usize].scale == 0.0
    }

    /// Puts the distance of `query` to every one of `rows`, in their order, into `out`, which has as many; `room` is to work in.
    #[inline(always)]
    pub fn distances(&self, kernels: &Kernels, query: &BitQuery, rows: &[u32], room: &mut Room, out: &mut [f32]) {
        products(kernels, self.bits, query, &self.codes, rows, room);
        for ((out, &row), &product) in out.iter_mut().zip(rows).zip(&*room.products) {
            let own = self.factors[row as usize];
            let offset = if self.metric == Metric::Ip { 0.0 } else { query.factors.offset + own.offset };
            *out = offset - query.factors.scale * own.scale * product as f32;
        }
    }

    /// By how much the distance of `query` to a row is wrong, about: one standard deviation.
    pub fn deviation(&self, query: &BitQuery, row: u32) -> f32 {
        let share = [0.75, 0.3, 0.1][self.bits as usize / 2];
        let lengths = (query.factors.offset * self.factors[row as usize].offset).sqrt();
        let lengths = match self.metric {
            Metric::L2 => 2.0 * lengths,
            Metric::Cosine => 1.0,
            _ => lengths,
        };
        lengths * share / (self.rotation.len() as f32).sqrt()
    }

    /// The codes of some rows, `[rows, width]` bytes.
    pub fn write_codes(&self, bytes: &mut Vec<u8>, rows: Range<usize>) {
        bytes.extend_from_slice(&self.codes[rows.start * self.width()..rows.end * self.width()]);
    }

    /// What goes with the codes, `[rows, 2]`: f32 scale, f32 offset.
    pub fn write_factors(&self, bytes: &mut Vec<u8>, rows: Range<usize>) {
        self.factors[rows].iter().for_each(|factors| factors.write(bytes));
    }

    /// Reads `rows` rows of which all codes were written, then all factors.
    ///
    /// # Errors
    /// `Corrupt`, with the offset, when there are fewer bytes.
    pub fn read_from(reader: &mut Reader<'_>, dim: usize, metric: Metric, bits: u32, rows: usize) -> Result<Self> {
        let mut read = Self::new(dim, metric, bits);
        let codes = reader.bytes(rows.saturating_mul(read.width()))?;
        read.codes.grow(codes.len());
        read.codes.copy_from_slice(codes);
        read.factors = Factors::read(reader, rows)?;
        Ok(read)
    }
}

impl BitQuery {
    /// Takes the numbers of a rotated query for rows of so many bits; gives the value of one step, halved: the estimated product with a
    /// row is that times the row's scale times the integer of [`products`].
    pub(crate) fn set(&mut self, bits: u32, rotated: &[f32]) -> f32 {
        let levels = QUERY_LEVELS[usize::from(bits > 1)];
        let largest = rotated.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let step = largest / f32::from(levels);
        let per_step = if step >= f32::MIN_POSITIVE { 1.0 / step } else { 0.0 };
        self.numbers.grow(rotated.len());
        self.sum = 0;
        for (number, &x) in self.numbers.iter_mut().zip(rotated) {
            // Rounds to the nearest integer, as in `Sq8`.
            *number = (((x * per_step + 12_582_912.0) - 12_582_912.0) as i8).clamp(-levels, levels);
            self.sum += i32::from(*number);
        }
        self.planes.clear();
        if bits == 1 {
            self.planes.extend(self.numbers.as_chunks::<64>().0.iter().map(planes));
        }
        step * 0.5
    }
}

impl Room {
    /// What [`products`] gave.
    pub(crate) fn products(&self) -> &[i32] {
        &self.products
    }
}

/// The bits of 64 numbers, lowest first.
fn planes(numbers: &[i8; 64]) -> [u64; 4] {
    let mut planes = [0; 4];
    for (at, &number) in numbers.iter().enumerate() {
        for (bit, plane) in planes.iter_mut().enumerate() {
            *plane |= u64::from(number as u8 >> bit & 1) << at;
        }
    }
    planes
}

/// The bytes of a code of `len` numbers, a multiple of 64.
pub(crate) fn code_bytes(len: usize, bits: u32) -> usize {
    len / 8 * bits as usize
}

fn factors(metric: Metric, scale: f32, square: f32) -> Factors {
    match metric {
        Metric::L2 => Factors { scale: scale * std::f32::consts::SQRT_2, offset: square },
        // The offset is no part of the distance: it is what a row that is taken out needs to know of itself.
        Metric::Ip => Factors { scale, offset: square },
        Metric::Cosine => Factors { scale: if square > 0.0 { scale / square.sqrt() } else { 0.0 }, offset: 0.5 },
        Metric::Hamming | Metric::Jaccard => unreachable!("bits have no codes"),
    }
}

/// Writes the code of a rotated vector; gives its scale, 0 for the zero vector.
///
/// Of one bit, bit `n % 8` of byte `n / 8` is that of number `n`. Of more, the numbers are as many runs as a byte has codes, and byte
/// `n` has number `n` of each run, the first run's lowest.
pub(crate) fn encode(bits: u32, rotated: &[f32], code: &mut [u8]) -> f32 {
    let square = dot(rotated, rotated);
    if square < f32::MIN_POSITIVE {
        code.fill(0);
        return 0.0;
    }
    if bits == 1 {
        let mut sum = [0f32; 8];
        for (byte, eight) in code.iter_mut().zip(rotated.as_chunks::<8>().0) {
            *byte = 0;
            for (bit, (&x, sum)) in eight.iter().zip(&mut sum).enumerate() {
                *byte |= u8::from(x >= 0.0) << bit;
                *sum += x.abs();
            }
        }
        let [a, b, c, d, e, f, g, h] = sum;
        // The grid's points are half a step from zero.
        return square / (0.5 * (((a + e) + (c + g)) + ((b + f) + (d + h))));
    }
    let (levels, half) = ((1 << bits) as f32, ((1 << bits) - 1) as f32 * 0.5);
    // Steps around the one that is best for numbers distributed normally (Max, "Quantizing for Minimum Distortion", 1960), of which a
    // rotation gives nearly such ones.
    let usual = if bits == 2 { 0.996 } else { 0.335 } * (square / rotated.len() as f32).sqrt();
    let at = |x: f32, per_step: f32| ((x * per_step + levels * 0.5) as i32).clamp(0, levels as i32 - 1);
    let (mut best, mut per_step, mut scale) = (-1.0, 0.0, 0.0);
    let mut points = vec![0.0; rotated.len()];
    for tried in [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5] {
        let tried = 1.0 / (usual * tried);
        points.iter_mut().zip(rotated).for_each(|(point, &x)| *point = at(x, tried) as f32 - half);
        let (product, length) = (dot(&points, rotated), dot(&points, &points));
        let cosine = product * (product / length);
        if cosine > best {
            (best, per_step, scale) = (cosine, tried, square / product);
        }
    }
    let runs = rotated.chunks_exact(code.len());
    code.fill(0);
    for (run, numbers) in runs.enumerate() {
        for (byte, &x) in code.iter_mut().zip(numbers) {
            *byte |= (at(x, per_step) as u8) << (run as u32 * bits);
        }
    }
    scale
}

/// The codes of a row, one a byte.
fn unpack(bits: u32, code: &[u8], unpacked: &mut [u8]) {
    if bits == 1 {
        for (eight, &byte) in unpacked.as_chunks_mut::<8>().0.iter_mut().zip(code) {
            eight.iter_mut().enumerate().for_each(|(bit, to)| *to = byte >> bit & 1);
        }
        return;
    }
    let mask = 0x0101_0101_0101_0101 * ((1u64 << bits) - 1);
    for (run, to) in unpacked.chunks_exact_mut(code.len()).enumerate() {
        let shift = run as u32 * bits;
        // Eight bytes at once; a code is a multiple of 16.
        for (to, code) in to.as_chunks_mut::<8>().0.iter_mut().zip(code.as_chunks::<8>().0) {
            *to = (u64::from_le_bytes(*code) >> shift & mask).to_le_bytes();
        }
    }
}

/// What a code of `len` numbers stands for: its product with any vector is the estimate.
pub(crate) fn decode(bits: u32, code: &[u8], len: usize, scale: f32, decoded: &mut Vec<f32>) {
    let mut unpacked = vec![0; len];
    unpack(bits, code, &mut unpacked);
    let half = ((1 << bits) - 1) as f32 * 0.5;
    decoded.clear();
    decoded.extend(unpacked.iter().map(|&u| scale * (f32::from(u) - half)));
}

/// For each of `rows` of `codes`, `2 <u, q> - (2^bits - 1) sum(q)`, twice the product of grid point and query in steps of the query,
/// into `room`.
pub(crate) fn products(kernels: &Kernels, bits: u32, query: &BitQuery, codes: &[u8], rows: &[u32], room: &mut Room) {
    let Room { products, unpacked } = room;
    products.resize(rows.len(), 0);
    if bits == 1 {
        kernels.dot_bits_gather(&query.planes, codes, rows, products);
    } else {
        const NUMBERS: [u32; UNPACKED_ROWS] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let len = query.numbers.len();
        let width = code_bytes(len, bits);
        unpacked.grow(len * UNPACKED_ROWS);
        for (rows, products) in rows.chunks(UNPACKED_ROWS).zip(products.chunks_mut(UNPACKED_ROWS)) {
            for (&row, unpacked) in rows.iter().zip(unpacked.chunks_exact_mut(len)) {
                unpack(bits, &codes[row as usize * width..][..width], unpacked);
            }
            kernels.dot_codes_gather(&query.numbers, unpacked, &NUMBERS[..rows.len()], products);
        }
    }
    let bias = ((1 << bits) - 1) * query.sum;
    products.iter_mut().for_each(|product| *product = 2 * *product - bias);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Random;
    use crate::distance::kernels;

    fn vector(random: &mut Random, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| (0..4).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).sum()).collect()
    }

    fn distance(codes: &RaBitQ, query: &BitQuery, row: u32) -> f32 {
        let mut distance = [f32::NAN];
        codes.distances(kernels(), query, &[row], &mut Room::default(), &mut distance);
        distance[0]
    }

    fn truth(metric: Metric, left: &[f32], right: &[f32]) -> f32 {
        let product = dot(left, right);
        match metric {
            Metric::L2 => dot(left, left) + dot(right, right) - 2.0 * product,
            Metric::Ip => -product,
            _ => 1.0 - product / (dot(left, left) * dot(right, right)).sqrt(),
        }
    }

    /// Over many rows the errors are as large as the paper says, and have no bias.
    #[test]
    fn estimates_are_near_and_without_bias() {
        for (bits, expected) in [(1, 0.78), (2, 0.40), (4, 0.13)] {
            for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
                for dim in [100, 384] {
                    let mut random = Random::new(u64::from(bits));
                    let mut codes = RaBitQ::new(dim, metric, bits);
                    let mut query = BitQuery::default();
                    let rows: Vec<Vec<f32>> = (0..400).map(|_| vector(&mut random, dim)).collect();
                    rows.iter().for_each(|row| codes.push(row, &mut query));
                    let (mut sum, mut square, mut count) = (0.0, 0.0, 0.0);
                    for _ in 0..10 {
                        let wanted = vector(&mut random, dim);
                        codes.encode(&wanted, &mut query);
                        for (number, row) in rows.iter().enumerate() {
                            let size = match metric {
                                Metric::L2 => 2.0 * (dot(row, row) * dot(&wanted, &wanted)).sqrt(),
                                Metric::Ip => (dot(row, row) * dot(&wanted, &wanted)).sqrt(),
                                _ => 1.0,
                            };
                            let error = (distance(&codes, &query, number as u32) - truth(metric, &wanted, row)) / size;
                            sum += error;
                            square += error * error;
                            count += 1.0;
                        }
                    }
                    let deviation = (square / count).sqrt() * (dim as f32).sqrt();
                    assert!(deviation < expected * 1.15, "{bits} bits, {metric:?}, {dim}: {deviation}");
                    let bias = sum / count * (dim as f32).sqrt();
                    assert!(bias.abs() < 0.06, "{bits} bits, {metric:?}, {dim}: bias {bias}");
                }
            }
        }
    }

    #[test]
    fn a_row_is_its_own_query() {
        let mut random = Random::new(5);
        for bits in [1, 2, 4] {
            for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
                let mut codes = RaBitQ::new(70, metric, bits);
                let mut query = BitQuery::default();
                let one = vector(&mut random, 70);
                codes.push(&one, &mut query);
                codes.push(&one, &mut query);
                codes.load(0, &mut query);
                let size = if metric == Metric::Cosine { 1.0 } else { dot(&one, &one) };
                let found = distance(&codes, &query, 1);
                assert!((found - truth(metric, &one, &one)).abs() < 1e-3 * size, "{bits} {metric:?}: {found}");
                assert!(codes.are_same(0, 1) && !codes.is_zero(0));
            }
        }
    }

    #[test]
    fn special_values_are_encoded_without_a_panic() {
        for bits in [1, 2, 4] {
            for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
                let mut codes = RaBitQ::new(3, metric, bits);
                let mut query = BitQuery::default();
                codes.push(&[0.0, -0.0, 0.0], &mut query);
                codes.push(&[f32::NAN, f32::INFINITY, -1.0], &mut query);
                codes.push(&[1e-45, 0.0, 1e-40], &mut query);
                codes.push(&[f32::MAX, f32::MIN, 1e30], &mut query);
                assert!(codes.is_zero(0));
                for wanted in [[0.0; 3], [1.0, 2.0, 3.0], [f32::NAN; 3], [f32::INFINITY; 3], [1e-45; 3]] {
                    codes.encode(&wanted, &mut query);
                    for row in 0..4 {
                        assert!(distance(&codes, &query, row).is_finite(), "{bits} {metric:?} {wanted:?} {row}");
                    }
                }
                codes.load(0, &mut query);
                codes.load(3, &mut query);
                assert!(distance(&codes, &query, 1).is_finite());
            }
        }
    }

    proptest! {
        /// The integer that a kernel gives is the product of grid point and numbers, and bytes hold the codes.
        #[test]
        fn products_are_exact_and_bytes_hold_the_codes(
            seed in any::<u64>(),
            dim in 1usize..300,
            bits in prop::sample::select(vec![1u32, 2, 4]),
            rows in 1usize..40,
        ) {
            let mut random = Random::new(seed);
            let mut codes = RaBitQ::new(dim, Metric::L2, bits);
            let mut query = BitQuery::default();
            for _ in 0..rows {
                codes.push(&vector(&mut random, dim), &mut query);
            }
            codes.encode(&vector(&mut random, dim), &mut query);
            let numbers: Vec<u32> = (0..rows as u32).rev().collect();
            let mut room = Room::default();
            products(kernels(), bits, &query, &codes.codes, &numbers, &mut room);
            for (&row, &found) in numbers.iter().zip(&room.products) {
                let mut unpacked = vec![0; codes.rotation.len()];
                unpack(bits, codes.code(row), &mut unpacked);
                let odd = (1 << bits) - 1;
                let expected: i32 =
                    unpacked.iter().zip(&*query.numbers).map(|(&u, &q)| (2 * i32::from(u) - odd) * i32::from(q)).sum();
                prop_assert_eq!(found, expected);
            }
            let mut bytes = Vec::new();
            codes.write_codes(&mut bytes, 0..rows);
            codes.write_factors(&mut bytes, 0..rows);
            let read = RaBitQ::read_from(&mut Reader::new(&bytes), dim, Metric::L2, bits, rows).unwrap();
            prop_assert_eq!(&*read.codes, &*codes.codes);
            prop_assert_eq!(&read.factors, &codes.factors);
            prop_assert!(RaBitQ::read_from(&mut Reader::new(&bytes[1..]), dim, Metric::L2, bits, rows).is_err());
        }
    }
}
