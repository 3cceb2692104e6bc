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

    use super::super::lanes::{Codes, kernels, ones};
    use super::{avx2, avx512_vnni};
    use crate::distance::Isa;

    kernels!(
        Isa::Avx512Popcnt,
        "avx2,fma,f16c,popcnt,avx512f,avx512bw,avx512vl,avx512vnni,avx512vpopcntdq",
        __m512,
        Bytes
    );

    struct Bytes;

    /// As AVX-512 with VNNI, but for the count of bits.
    impl Codes for Bytes {
        const LANES: usize = 64;
        const SIGNED: usize = 32;
        const ONES: usize = 64;
        const WORDS: usize = 64;
        type Query = __m512i;
        type Sum = __m512i;

        #[inline(always)]
        unsafe fn zero() -> __m512i {
            // SAFETY: as above.
            unsafe { avx512_vnni::Bytes::zero() }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { avx512_vnni::Bytes::query(from) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512i, query: __m512i, row: *const u8) -> __m512i {
            // SAFETY: as above.
            unsafe { avx512_vnni::Bytes::add_product(sum, query, row) }
        }

        #[inline(always)]
        unsafe fn add_signed(sum: __m512i, left: *const i8, right: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { avx512_vnni::Bytes::add_signed(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn add_squares(sum: __m512i, left: *const i8, right: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { avx512_vnni::Bytes::add_squares(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn add_ones<const BOTH: bool>(sum: __m512i, left: *const u8, right: *const u8) -> __m512i {
            // SAFETY: as above.
            unsafe {
                let (left, right) = (_mm512_loadu_si512(left.cast()), _mm512_loadu_si512(right.cast()));
                let bits = if BOTH { _mm512_and_si512(left, right) } else { _mm512_xor_si512(left, right) };
                _mm512_add_epi32(sum, _mm512_popcnt_epi64(bits))
            }
        }

        #[inline(always)]
        unsafe fn total(sum: __m512i) -> i32 {
            // SAFETY: as above.
            unsafe { avx512_vnni::Bytes::total(sum) }
        }

        #[inline(always)]
        unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]) {
            // SAFETY: as above.
            unsafe { avx512_vnni::Bytes::lookup_block(tables, codes, out) }
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
            unsafe { avx512_vnni::Bytes::prefetch(at) }
        }
    }
}
