//! AVX2 with FMA, AVX-VNNI, AVX-512, AVX-512 with VNNI, and that with a count of bits.

use super::super::Kernels;

/// Fastest first.
pub(super) fn available() -> impl DoubleEndedIterator<Item = &'static Kernels> {
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("popcnt");
    let avx512 = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    [
        (
            avx512
                && is_x86_feature_detected!("avx512vnni")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vpopcntdq"),
            &avx512_popcnt::KERNELS,
        ),
        (avx512 && is_x86_feature_detected!("avx512vnni"), &avx512_vnni::KERNELS),
        (avx512, &avx512::KERNELS),
        (avx2 && is_x86_feature_detected!("avxvnni"), &avx_vnni::KERNELS),
        (avx2, &avx2::KERNELS),
    ]
    .into_iter()
    .filter_map(|(present, kernels)| present.then_some(kernels))
}

mod avx2 {
    use std::arch::x86_64::*;

    use super::super::lanes::{Codes, Floats, kernels};
    use crate::distance::Isa;

    kernels!(Isa::Avx2, "avx2,fma,f16c,popcnt", __m256, Bytes);

    // SAFETY of all methods here and below: the traits' callers have the instruction set and the readable elements.
    impl Floats for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as above.
            unsafe { _mm256_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u8) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_sub_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm256_fmadd_ps(self, other, sum) }
        }

        #[inline(always)]
        unsafe fn total(self) -> f32 {
            // SAFETY: as above.
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
    }

    pub(super) struct Bytes;

    impl Codes for Bytes {
        const LANES: usize = 32;
        const SIGNED: usize = 16;
        const ONES: usize = 32;
        const WORDS: usize = 128;
        type Query = __m256i;
        type Sum = __m256i;

        #[inline(always)]
        unsafe fn zero() -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_loadu_si256(from.cast()) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m256i, query: __m256i, row: *const u8) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let pairs = _mm256_maddubs_epi16(_mm256_loadu_si256(row.cast()), query);
                _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn total(sum: __m256i) -> i32 {
            // SAFETY: as above.
            unsafe {
                let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
                let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
                _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
            }
        }

        #[inline(always)]
        unsafe fn add_signed(sum: __m256i, left: *const i8, right: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let left = _mm256_cvtepi8_epi16(_mm_loadu_si128(left.cast()));
                let right = _mm256_cvtepi8_epi16(_mm_loadu_si128(right.cast()));
                _mm256_add_epi32(sum, _mm256_madd_epi16(left, right))
            }
        }

        #[inline(always)]
        unsafe fn add_squares(sum: __m256i, left: *const i8, right: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let left = _mm256_cvtepi8_epi16(_mm_loadu_si128(left.cast()));
                let right = _mm256_cvtepi8_epi16(_mm_loadu_si128(right.cast()));
                let difference = _mm256_sub_epi16(left, right);
                _mm256_add_epi32(sum, _mm256_madd_epi16(difference, difference))
            }
        }

        /// The number of each half of a byte is looked up.
        #[inline(always)]
        unsafe fn add_ones<const BOTH: bool>(sum: __m256i, left: *const u8, right: *const u8) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let (left, right) = (_mm256_loadu_si256(left.cast()), _mm256_loadu_si256(right.cast()));
                let bits = if BOTH { _mm256_and_si256(left, right) } else { _mm256_xor_si256(left, right) };
                let nibble = _mm256_set1_epi8(15);
                let table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
                let low = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, nibble));
                let high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble));
                _mm256_add_epi32(sum, _mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256()))
            }
        }

        /// Two tables at once. Sums of even and of odd rows are kept apart, so that bytes need not be widened one by one.
        #[inline(always)]
        unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]) {
            // SAFETY: as above; a pair of tables is 32 bytes, and so are its codes.
            unsafe {
                let (nibble, even) = (_mm256_set1_epi8(15), _mm256_set1_epi16(255));
                let mut sums = [_mm256_setzero_si256(); 4];
                for pair in 0..tables.len().div_ceil(2) {
                    let (table, codes) = if 2 * pair + 1 < tables.len() {
                        let table = _mm256_loadu_si256(tables.as_ptr().add(2 * pair).cast());
                        (table, _mm256_loadu_si256(codes.add(32 * pair).cast()))
                    } else {
                        // The last one alone: beside it is a table of zeros.
                        let table = _mm_loadu_si128(tables.as_ptr().add(2 * pair).cast());
                        let codes = _mm_loadu_si128(codes.add(32 * pair).cast());
                        (_mm256_zextsi128_si256(table), _mm256_zextsi128_si256(codes))
                    };
                    let first = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, nibble));
                    let second = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16::<4>(codes), nibble));
                    sums[0] = _mm256_add_epi16(sums[0], _mm256_and_si256(first, even));
                    sums[1] = _mm256_add_epi16(sums[1], _mm256_srli_epi16::<8>(first));
                    sums[2] = _mm256_add_epi16(sums[2], _mm256_and_si256(second, even));
                    sums[3] = _mm256_add_epi16(sums[3], _mm256_srli_epi16::<8>(second));
                }
                for (half, to) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                    let (a, b) = (sums[2 * half], sums[2 * half + 1]);
                    let a = _mm_add_epi16(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
                    let b = _mm_add_epi16(_mm256_castsi256_si128(b), _mm256_extracti128_si256::<1>(b));
                    _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_unpacklo_epi16(a, b));
                    _mm_storeu_si128(to.as_mut_ptr().add(8).cast(), _mm_unpackhi_epi16(a, b));
                }
            }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    }
}

mod avx_vnni {
    use std::arch::x86_64::*;

    use super::super::lanes::{Codes, kernels};
    use super::avx2;
    use crate::distance::Isa;

    kernels!(Isa::AvxVnni, "avx2,fma,f16c,popcnt,avxvnni", __m256, Bytes);

    struct Bytes;

    /// As AVX2, with the two multiplications and the addition in one instruction.
    impl Codes for Bytes {
        const LANES: usize = 32;
        const SIGNED: usize = 16;
        const ONES: usize = 32;
        const WORDS: usize = 128;
        type Query = __m256i;
        type Sum = __m256i;

        #[inline(always)]
        unsafe fn zero() -> __m256i {
            // SAFETY: as above.
            unsafe { avx2::Bytes::zero() }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe { avx2::Bytes::query(from) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m256i, query: __m256i, row: *const u8) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_dpbusd_avx_epi32(sum, _mm256_loadu_si256(row.cast()), query) }
        }

        #[inline(always)]
        unsafe fn total(sum: __m256i) -> i32 {
            // SAFETY: as above.
            unsafe { avx2::Bytes::total(sum) }
        }

        #[inline(always)]
        unsafe fn add_signed(sum: __m256i, left: *const i8, right: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe { avx2::Bytes::add_signed(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn add_squares(sum: __m256i, left: *const i8, right: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe { avx2::Bytes::add_squares(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn add_ones<const BOTH: bool>(sum: __m256i, left: *const u8, right: *const u8) -> __m256i {
            // SAFETY: as above.
            unsafe { avx2::Bytes::add_ones::<BOTH>(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]) {
            // SAFETY: as above.
            unsafe { avx2::Bytes::lookup_block(tables, codes, out) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: as above.
            unsafe { avx2::Bytes::prefetch(at) }
        }
    }
}

mod avx512 {
    use std::arch::x86_64::*;

    use super::super::lanes::{Codes, Floats, kernels, ones};
    use super::avx2;
    use crate::distance::Isa;

    kernels!(Isa::Avx512, "avx2,fma,f16c,popcnt,avx512f,avx512bw", __m512, Bytes);

    impl Floats for __m512 {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as above.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u8) -> Self {
            // SAFETY: as above.
            unsafe {
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()))))
            }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_sub_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
            // SAFETY: as above.
            unsafe { _mm512_fmadd_ps(self, other, sum) }
        }

        #[inline(always)]
        unsafe fn total(self) -> f32 {
            // SAFETY: as above.
            unsafe { _mm512_reduce_add_ps(self) }
        }
    }

    pub(super) struct Bytes;

    impl Codes for Bytes {
        const LANES: usize = 64;
        const SIGNED: usize = 32;
        const ONES: usize = 64;
        const WORDS: usize = 64;
        const AHEAD: bool = true;
        type Query = __m512i;
        type Sum = __m512i;

        #[inline(always)]
        unsafe fn zero() -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512i, query: __m512i, row: *const u8) -> __m512i {
            // SAFETY: as above.
            unsafe {
                let pairs = _mm512_maddubs_epi16(_mm512_loadu_si512(row.cast()), query);
                _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn total(sum: __m512i) -> i32 {
            // SAFETY: as above.
            unsafe { _mm512_reduce_add_epi32(sum) }
        }

        #[inline(always)]
        unsafe fn add_signed(sum: __m512i, left: *const i8, right: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe {
                let left = _mm512_cvtepi8_epi16(_mm256_loadu_si256(left.cast()));
                let right = _mm512_cvtepi8_epi16(_mm256_loadu_si256(right.cast()));
                _mm512_add_epi32(sum, _mm512_madd_epi16(left, right))
            }
        }

        #[inline(always)]
        unsafe fn add_squares(sum: __m512i, left: *const i8, right: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe {
                let left = _mm512_cvtepi8_epi16(_mm256_loadu_si256(left.cast()));
                let right = _mm512_cvtepi8_epi16(_mm256_loadu_si256(right.cast()));
                let difference = _mm512_sub_epi16(left, right);
                _mm512_add_epi32(sum, _mm512_madd_epi16(difference, difference))
            }
        }

        /// The number of each half of a byte is looked up.
        #[inline(always)]
        unsafe fn add_ones<const BOTH: bool>(sum: __m512i, left: *const u8, right: *const u8) -> __m512i {
            // SAFETY: as above.
            unsafe {
                let (left, right) = (_mm512_loadu_si512(left.cast()), _mm512_loadu_si512(right.cast()));
                let bits = if BOTH { _mm512_and_si512(left, right) } else { _mm512_xor_si512(left, right) };
                let nibble = _mm512_set1_epi8(15);
                let table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
                let low = _mm512_shuffle_epi8(table, _mm512_and_si512(bits, nibble));
                let high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16::<4>(bits), nibble));
                _mm512_add_epi32(sum, _mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512()))
            }
        }

        #[inline(always)]
        unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]) {
            // SAFETY: as above.
            unsafe { super::avx2::Bytes::lookup_block(tables, codes, out) }
        }

        /// Of what is shorter than a register of 64 bytes one of 32 takes more, and leaves fewer single words.
        #[inline(always)]
        unsafe fn ones<const BOTH: bool>(query: &[u8], row: *const u8) -> i32 {
            // SAFETY: as above; AVX-512 comes with AVX2.
            unsafe {
                if query.len() < Self::ONES {
                    ones::<avx2::Bytes, BOTH>(query, row)
                } else {
                    ones::<Self, BOTH>(query, row)
                }
            }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    }
}

mod avx512_vnni {
    use std::arch::x86_64::*;

    use super::super::lanes::{Codes, kernels, ones};
    use super::avx2;
    use crate::distance::Isa;

    kernels!(Isa::Avx512Vnni, "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512vnni", __m512, Bytes);

    pub(super) struct Bytes;

    impl Codes for Bytes {
        const LANES: usize = 64;
        const SIGNED: usize = 32;
        const ONES: usize = 64;
        const WORDS: usize = 64;
        const AHEAD: bool = true;
        type Query = __m512i;
        type Sum = __m512i;

        #[inline(always)]
        unsafe fn zero() -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_setzero_si512() }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_loadu_si512(from.cast()) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512i, query: __m512i, row: *const u8) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(row.cast()), query) }
        }

        #[inline(always)]
        unsafe fn total(sum: __m512i) -> i32 {
            // SAFETY: as above.
            unsafe { _mm512_reduce_add_epi32(sum) }
        }

        #[inline(always)]
        unsafe fn add_signed(sum: __m512i, left: *const i8, right: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { super::avx512::Bytes::add_signed(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn add_squares(sum: __m512i, left: *const i8, right: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { super::avx512::Bytes::add_squares(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn add_ones<const BOTH: bool>(sum: __m512i, left: *const u8, right: *const u8) -> __m512i {
            // SAFETY: as above.
            unsafe { super::avx512::Bytes::add_ones::<BOTH>(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]) {
            // SAFETY: as above.
            unsafe { super::avx2::Bytes::lookup_block(tables, codes, out) }
        }

        /// Of what is shorter than a register of 64 bytes one of 32 takes more, and leaves fewer single words.
        #[inline(always)]
        unsafe fn ones<const BOTH: bool>(query: &[u8], row: *const u8) -> i32 {
            // SAFETY: as above; AVX-512 comes with AVX2.
            unsafe {
                if query.len() < Self::ONES {
                    ones::<avx2::Bytes, BOTH>(query, row)
                } else {
                    ones::<Self, BOTH>(query, row)
                }
            }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    }
}

mod avx512_popcnt {
    use std::arch::x86_64::*;

    use super::super::lanes::{Rows, check_rows, kernel};
    use super::avx512_vnni::{self, Bytes};
    use crate::distance::bits::jaccard_of;
    use crate::distance::{Isa, Kernels};

    /// Rows of up to so many bytes are counted eight at once: what is shorter than a few registers takes longer to add up in the end than to
    /// count. Longer ones are faster by themselves (measured on an AMD EPYC: 48 bytes 0.65 times as long, 128 bytes the same).
    const EIGHT_HAMMING: usize = 64;
    const EIGHT_JACCARD: usize = 128;

    macro_rules! gather {
        ($query:ty, $out:ty, $of:expr) => {
            kernel!(
                "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512vl,avx512vnni,avx512vpopcntdq",
                |query: &[$query], data: &[u8], rows: &[u32], out: &mut [$out]|,
                $of(query, data, rows, out)
            )
        };
    }

    /// As AVX-512 with VNNI, but for the count of bits.
    pub(in crate::distance) static KERNELS: Kernels = Kernels {
        isa: Isa::Avx512Popcnt,
        dot_bits_gather: gather!([u64; 4], i32, gather_bits),
        hamming_gather: gather!(u8, f32, gather_ones::<false>),
        jaccard_gather: gather!(u8, f32, gather_ones::<true>),
        ..avx512_vnni::KERNELS
    };

    /// How many bits of the query and each of eight rows differ, and, for `JACCARD`, how many are in both.
    ///
    /// # Safety
    /// The instruction set; every row has `query.len()` readable bytes.
    #[inline(always)]
    unsafe fn eight_ones<const JACCARD: bool>(query: &[u8], rows: [*const u8; 8]) -> ([u32; 8], [u32; 8]) {
        // SAFETY: the caller's; the masks leave out what is behind the end.
        unsafe {
            let (mut differ, mut both) = ([_mm512_setzero_si512(); 8], [_mm512_setzero_si512(); 8]);
            let mut at = 0;
            while at < query.len() {
                let mask = u64::MAX >> (64 - (query.len() - at).min(64));
                let left = _mm512_maskz_loadu_epi8(mask, query.as_ptr().add(at).cast());
                for ((row, differ), both) in rows.iter().zip(&mut differ).zip(&mut both) {
                    let right = _mm512_maskz_loadu_epi8(mask, row.add(at).cast());
                    *differ = _mm512_add_epi64(*differ, _mm512_popcnt_epi64(_mm512_xor_si512(left, right)));
                    if JACCARD {
                        *both = _mm512_add_epi64(*both, _mm512_popcnt_epi64(_mm512_and_si512(left, right)));
                    }
                }
                at += 64;
            }
            (totals(differ), if JACCARD { totals(both) } else { [0; 8] })
        }
    }

    /// The same of one row.
    ///
    /// # Safety
    /// The instruction set; the row has `query.len()` readable bytes.
    #[inline(always)]
    unsafe fn one_ones<const JACCARD: bool>(query: &[u8], row: *const u8) -> (u32, u32) {
        // SAFETY: the caller's; the masks leave out what is behind the end.
        unsafe {
            let (mut differ, mut both) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            let mut at = 0;
            while at + 64 <= query.len() {
                let left = _mm512_loadu_si512(query.as_ptr().add(at).cast());
                let right = _mm512_loadu_si512(row.add(at).cast());
                differ = _mm512_add_epi64(differ, _mm512_popcnt_epi64(_mm512_xor_si512(left, right)));
                if JACCARD {
                    both = _mm512_add_epi64(both, _mm512_popcnt_epi64(_mm512_and_si512(left, right)));
                }
                at += 64;
            }
            if at < query.len() {
                let mask = u64::MAX >> (64 - (query.len() - at));
                let left = _mm512_maskz_loadu_epi8(mask, query.as_ptr().add(at).cast());
                let right = _mm512_maskz_loadu_epi8(mask, row.add(at).cast());
                differ = _mm512_add_epi64(differ, _mm512_popcnt_epi64(_mm512_xor_si512(left, right)));
                if JACCARD {
                    both = _mm512_add_epi64(both, _mm512_popcnt_epi64(_mm512_and_si512(left, right)));
                }
            }
            (_mm512_reduce_add_epi64(differ) as u32, _mm512_reduce_add_epi64(both) as u32)
        }
    }

    /// See [`Kernels::bits_gather`]: Hamming's distances, or Jaccard's.
    ///
    /// # Safety
    /// The instruction set; `numbers` and `out` have the same length. Row numbers are checked here.
    #[inline(always)]
    unsafe fn gather_ones<const JACCARD: bool>(query: &[u8], data: &[u8], numbers: &[u32], out: &mut [f32]) {
        debug_assert_eq!(numbers.len(), out.len(), "checked by the caller");
        check_rows(numbers, query.len(), data.len());
        let row = Rows { data: data.as_ptr(), width: query.len() };
        let is_short = query.len() <= if JACCARD { EIGHT_JACCARD } else { EIGHT_HAMMING };
        let eights = if is_short { numbers.len() / 8 * 8 } else { 0 };
        let mut ahead = numbers.get(8..).unwrap_or_default();
        let (eight_numbers, numbers) = numbers.split_at(eights);
        let (eight_out, out) = out.split_at_mut(eights);
        for (out, &[a, b, c, d, e, f, g, h]) in
            eight_out.as_chunks_mut::<8>().0.iter_mut().zip(eight_numbers.as_chunks::<8>().0)
        {
            let (next, rest) = ahead.split_at(ahead.len().min(8));
            ahead = rest;
            // SAFETY: every row was checked to lie within `data`, with `query.len()` bytes.
            let (differ, both) = unsafe {
                row.prefetch::<Bytes>(next);
                let rows = [row.at(a), row.at(b), row.at(c), row.at(d), row.at(e), row.at(f), row.at(g), row.at(h)];
                eight_ones::<JACCARD>(query, rows)
            };
            for ((out, differ), both) in out.iter_mut().zip(differ).zip(both) {
                *out = if JACCARD { jaccard_of(both, both + differ) } else { differ as f32 };
            }
        }
        let mut ahead = numbers.get(4..).unwrap_or_default();
        for (out, &number) in out.iter_mut().zip(numbers) {
            // SAFETY: as above.
            let (differ, both) = unsafe {
                if let [next, rest @ ..] = ahead {
                    row.prefetch::<Bytes>(std::slice::from_ref(next));
                    ahead = rest;
                }
                one_ones::<JACCARD>(query, row.at(number))
            };
            *out = if JACCARD { jaccard_of(both, both + differ) } else { differ as f32 };
        }
    }

    /// The planes of eight words of a query, each in a register; of fewer words the rest is 0.
    ///
    /// # Safety
    /// The instruction set.
    #[inline(always)]
    unsafe fn planes(words: &[[u64; 4]]) -> [__m512i; 4] {
        let mask = (u32::MAX >> (32 - 4 * words.len())).to_le_bytes();
        // SAFETY: the caller's; the masks leave out what is behind the end.
        unsafe {
            let at = words.as_ptr().cast::<i64>();
            // Two words a register, of each the four planes one after the other.
            let one = _mm512_maskz_loadu_epi64(mask[0], at);
            let two = _mm512_maskz_loadu_epi64(mask[1], at.wrapping_add(8));
            let three = _mm512_maskz_loadu_epi64(mask[2], at.wrapping_add(16));
            let four = _mm512_maskz_loadu_epi64(mask[3], at.wrapping_add(24));
            // Of four words the first plane and the second one, and the other two.
            let low = _mm512_setr_epi64(0, 4, 8, 12, 1, 5, 9, 13);
            let high = _mm512_setr_epi64(2, 6, 10, 14, 3, 7, 11, 15);
            let (ab, ab_next) = (_mm512_permutex2var_epi64(one, low, two), _mm512_permutex2var_epi64(three, low, four));
            let (cd, cd_next) =
                (_mm512_permutex2var_epi64(one, high, two), _mm512_permutex2var_epi64(three, high, four));
            [
                _mm512_shuffle_i64x2::<0x44>(ab, ab_next),
                _mm512_shuffle_i64x2::<0xee>(ab, ab_next),
                _mm512_shuffle_i64x2::<0x44>(cd, cd_next),
                _mm512_shuffle_i64x2::<0xee>(cd, cd_next),
            ]
        }
    }

    /// The sums of the query's numbers where eight rows have a bit.
    ///
    /// # Safety
    /// The instruction set; every row has `8 * query.len()` readable bytes.
    #[inline(always)]
    unsafe fn eight_bits(query: &[[u64; 4]], rows: [*const u8; 8]) -> [i32; 8] {
        let mut at = 0;
        // SAFETY: the caller's; the masks leave out what is behind the end.
        unsafe {
            let mut sums = [_mm512_setzero_si512(); 8];
            for words in query.chunks(8) {
                let mask = u8::MAX >> (8 - words.len());
                let [one, two, four, eight] = planes(words);
                for (row, sum) in rows.iter().zip(&mut sums) {
                    let row = _mm512_maskz_loadu_epi64(mask, row.add(at).cast());
                    let one = _mm512_popcnt_epi64(_mm512_and_si512(row, one));
                    let two = _mm512_popcnt_epi64(_mm512_and_si512(row, two));
                    let four = _mm512_popcnt_epi64(_mm512_and_si512(row, four));
                    let eight = _mm512_popcnt_epi64(_mm512_and_si512(row, eight));
                    let fours = _mm512_sub_epi64(four, _mm512_add_epi64(eight, eight));
                    let twos = _mm512_add_epi64(two, _mm512_add_epi64(fours, fours));
                    let ones = _mm512_add_epi64(one, _mm512_add_epi64(twos, twos));
                    *sum = _mm512_add_epi64(*sum, ones);
                }
                at += 64;
            }
            totals(sums).map(|sum| sum as i32)
        }
    }

    /// # Safety
    /// The instruction set; `numbers` and `out` have the same length. Row numbers are checked here.
    #[inline(always)]
    unsafe fn gather_bits(query: &[[u64; 4]], data: &[u8], numbers: &[u32], out: &mut [i32]) {
        debug_assert_eq!(numbers.len(), out.len(), "checked by the caller");
        check_rows(numbers, query.len() * 8, data.len());
        let row = Rows { data: data.as_ptr(), width: query.len() * 8 };
        let mut ahead = numbers.get(8..).unwrap_or_default();
        let (eights, rest_out) = out.as_chunks_mut::<8>();
        let (eight_numbers, rest_numbers) = numbers.as_chunks::<8>();
        for (out, &[a, b, c, d, e, f, g, h]) in eights.iter_mut().zip(eight_numbers) {
            let (next, rest) = ahead.split_at(ahead.len().min(8));
            ahead = rest;
            // SAFETY: every row was checked to lie within `data`.
            *out = unsafe {
                row.prefetch::<Bytes>(next);
                let rows = [row.at(a), row.at(b), row.at(c), row.at(d), row.at(e), row.at(f), row.at(g), row.at(h)];
                eight_bits(query, rows)
            };
        }
        let Some(&last) = rest_numbers.last() else { return };
        // One of the rows stands for those that are not there.
        let mut rows = [row.at(last); 8];
        for (at, &number) in rows.iter_mut().zip(rest_numbers) {
            *at = row.at(number);
        }
        // SAFETY: as above.
        let sums = unsafe { eight_bits(query, rows) };
        for (out, sum) in rest_out.iter_mut().zip(sums) {
            *out = sum;
        }
    }

    /// The sum of the eight numbers in each of eight registers, the lower half of it.
    ///
    /// # Safety
    /// The instruction set.
    #[inline(always)]
    unsafe fn totals([a, b, c, d, e, f, g, h]: [__m512i; 8]) -> [u32; 8] {
        let mut out = [0; 8];
        // SAFETY: the caller's; `out` has the 32 bytes that are stored.
        unsafe {
            let ab = _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
            let cd = _mm512_add_epi64(_mm512_unpacklo_epi64(c, d), _mm512_unpackhi_epi64(c, d));
            let ef = _mm512_add_epi64(_mm512_unpacklo_epi64(e, f), _mm512_unpackhi_epi64(e, f));
            let gh = _mm512_add_epi64(_mm512_unpacklo_epi64(g, h), _mm512_unpackhi_epi64(g, h));
            let abcd = _mm512_add_epi64(_mm512_shuffle_i64x2::<0x88>(ab, cd), _mm512_shuffle_i64x2::<0xdd>(ab, cd));
            let efgh = _mm512_add_epi64(_mm512_shuffle_i64x2::<0x88>(ef, gh), _mm512_shuffle_i64x2::<0xdd>(ef, gh));
            let all =
                _mm512_add_epi64(_mm512_shuffle_i64x2::<0x88>(abcd, efgh), _mm512_shuffle_i64x2::<0xdd>(abcd, efgh));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtepi64_epi32(all));
        }
        out
    }
}
