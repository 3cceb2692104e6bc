use std::sync::OnceLock;

use super::{Metric, arch};

/// An instruction set that kernels were written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust: the truth that all others are tested against.
    Scalar,
    /// What every processor of aarch64 has.
    Neon,
    /// The same with products of bytes.
    NeonDot,
    /// WebAssembly's 128 bits; in every module compiled with `-C target-feature=+simd128`.
    Simd128,
    /// The same with the relaxed instructions, `+relaxed-simd`: fused products of floats, products of bytes.
    RelaxedSimd,
    /// AVX2 and FMA.
    Avx2,
    /// AVX2, FMA and the 256-bit byte products of recent client processors.
    AvxVnni,
    /// AVX-512 F and BW.
    Avx512,
    /// AVX-512 F, BW and VNNI.
    Avx512Vnni,
    /// AVX-512 F, BW, VL, VNNI and VPOPCNTDQ.
    Avx512Popcnt,
}

/// What is summed up over the numbers of a query and a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// Their products.
    Products,
    /// The squares of their differences.
    Squares,
    /// The squares of the row's alone.
    Own,
}

/// Query, data, numbers of rows, results.
type Gather<Q, T, R> = fn(&[Q], &[T], &[u32], &mut [R]);

/// The kernels of one instruction set.
///
/// Vectors are `[dim]`, rows `[rows, dim]` row-major and contiguous. Nothing needs to be aligned. A query's
/// codes lie in -127..=127 and a row's in 0..=127; others give a wrong product on some targets. Integer results are exact up
/// to 32,768 dimensions.
#[derive(Debug, Clone, Copy)]
pub struct Kernels {
    pub(super) isa: Isa,
    pub(super) dot: fn(&[f32], &[f32]) -> f32,
    pub(super) l2: fn(&[f32], &[f32]) -> f32,
    pub(super) dot_rows: fn(&[f32], &[f32], &mut [f32]),
    pub(super) l2_rows: fn(&[f32], &[f32], &mut [f32]),
    pub(super) dot_gather: Gather<f32, f32, f32>,
    pub(super) l2_gather: Gather<f32, f32, f32>,
    pub(super) dot_codes_gather: Gather<i8, u8, i32>,
    pub(super) dot_bits_gather: Gather<[u64; 4], u8, i32>,
    pub(super) lookup_blocks: fn(&[[u8; 16]], &[u8], &mut [u16]),
    /// One for each [`Sum`], as of the next two.
    pub(super) f16_gather: [Gather<f32, u8, f32>; 3],
    pub(super) bf16_gather: [Gather<f32, u8, f32>; 3],
    pub(super) i8_gather: [Gather<i8, u8, i32>; 3],
    pub(super) hamming_gather: Gather<u8, u8, f32>,
    pub(super) jaccard_gather: Gather<u8, u8, f32>,
}

static CHOSEN: OnceLock<&'static Kernels> = OnceLock::new();

/// The fastest kernels that this processor runs, chosen at the first call.
pub fn kernels() -> &'static Kernels {
    CHOSEN.get_or_init(|| arch::available()[0])
}

impl Kernels {
    /// The kernels of every instruction set that this processor runs, fastest first, scalar last.
    pub fn available() -> &'static [&'static Kernels] {
        arch::available()
    }

    /// Makes [`kernels`] return these from now on. For measuring one instruction set; call it before anything else.
    ///
    /// # Errors
    /// The kernels that were chosen already.
    pub fn choose(&'static self) -> Result<(), &'static Kernels> {
        CHOSEN.set(self).map_err(|_| kernels())
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The inner product. Panics when the lengths differ.
    #[inline(always)]
    pub fn dot(&self, left: &[f32], right: &[f32]) -> f32 {
        assert_eq!(left.len(), right.len(), "vectors of different dimensions");
        (self.dot)(left, right)
    }

    /// The squared Euclidean distance. Panics when the lengths differ.
    #[inline(always)]
    pub fn l2(&self, left: &[f32], right: &[f32]) -> f32 {
        assert_eq!(left.len(), right.len(), "vectors of different dimensions");
        (self.l2)(left, right)
    }

    /// The inner product of `query` with each of `out.len()` consecutive rows. Panics when `rows` has another length.
    pub fn dot_rows(&self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        assert_eq!(rows.len(), query.len() * out.len(), "rows of different dimensions");
        (self.dot_rows)(query, rows, out);
    }

    /// The squared distance of `query` to each of `out.len()` consecutive rows. Panics when `rows` has another length.
    pub fn l2_rows(&self, query: &[f32], rows: &[f32], out: &mut [f32]) {
        assert_eq!(rows.len(), query.len() * out.len(), "rows of different dimensions");
        (self.l2_rows)(query, rows, out);
    }

    /// The inner product of `query` with the rows of `data` whose numbers are in `rows`. Panics when a row is outside `data`,
    /// or `rows` and `out` differ in length.
    pub fn dot_gather(&self, query: &[f32], data: &[f32], rows: &[u32], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len(), "one result a row");
        (self.dot_gather)(query, data, rows, out);
    }

    /// As [`Kernels::dot_gather`], with the squared distance.
    pub fn l2_gather(&self, query: &[f32], data: &[f32], rows: &[u32], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len(), "one result a row");
        (self.l2_gather)(query, data, rows, out);
    }

    /// As [`Kernels::dot_gather`], over codes.
    #[inline(always)]
    pub fn dot_codes_gather(&self, query: &[i8], codes: &[u8], rows: &[u32], out: &mut [i32]) {
        assert_eq!(rows.len(), out.len(), "one result a row");
        (self.dot_codes_gather)(query, codes, rows, out);
    }

    /// The sum of those of the query's numbers at whose places a row has a bit, for each of `rows` of `codes`: rows of 8 bytes for each
    /// element of `query`, bit `n % 8` of byte `n / 8` for number `n`. An element has 64 numbers of -8 to 7 in two's complement, bit
    /// `n % 64` of each, lowest first. Panics as [`Kernels::dot_gather`] does.
    #[inline(always)]
    pub fn dot_bits_gather(&self, query: &[[u64; 4]], codes: &[u8], rows: &[u32], out: &mut [i32]) {
        assert_eq!(rows.len(), out.len(), "one result a row");
        (self.dot_bits_gather)(query, codes, rows, out);
    }

    /// As [`Kernels::dot_gather`], over rows of 16-bit floats, little-endian. They are finite: what is not, and no schema admits, is a
    /// number on some targets.
    pub fn f16_gather(&self, sum: Sum, query: &[f32], data: &[u8], rows: &[u32], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len(), "one result a row");
        (self.f16_gather[sum as usize])(query, data, rows, out);
    }

    /// As [`Kernels::dot_gather`], over rows of bfloat16, the upper halves of 32-bit floats, little-endian.
    pub fn bf16_gather(&self, sum: Sum, query: &[f32], data: &[u8], rows: &[u32], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len(), "one result a row");
        (self.bf16_gather[sum as usize])(query, data, rows, out);
    }

    /// As [`Kernels::dot_gather`], over rows of signed bytes; exact.
    pub fn i8_gather(&self, sum: Sum, query: &[i8], data: &[u8], rows: &[u32], out: &mut [i32]) {
        assert_eq!(rows.len(), out.len(), "one result a row");
        (self.i8_gather[sum as usize])(query, data, rows, out);
    }

    /// The distance by [`Metric::Hamming`] or [`Metric::Jaccard`] of `query` to rows of bits; the same number on every target. Panics as
    /// [`Kernels::dot_gather`] does, and for another metric.
    pub fn bits_gather(&self, metric: Metric, query: &[u8], data: &[u8], rows: &[u32], out: &mut [f32]) {
        assert!(rows.len() == out.len() && metric.is_of_bits(), "one result a row, of bits");
        let kernel = if metric == Metric::Hamming { self.hamming_gather } else { self.jaccard_gather };
        kernel(query, data, rows, out);
    }

    /// The sums of what 4-bit codes of blocks of 32 rows look up in `tables`, one for each number of a code: 16 bytes a table, of which byte
    /// `n` has the number of row `n` in its lower and that of row `16 + n` in its upper half. Sums of more than 16 bits wrap around. Panics
    /// when `codes` are not as many blocks as `out` has room for.
    pub fn lookup_blocks(&self, tables: &[[u8; 16]], codes: &[u8], out: &mut [u16]) {
        assert!(out.len().is_multiple_of(32) && codes.len() == out.len() / 2 * tables.len(), "whole blocks");
        (self.lookup_blocks)(tables, codes, out);
    }
}
