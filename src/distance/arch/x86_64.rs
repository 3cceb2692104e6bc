//! AVX2 with FMA, AVX-VNNI, AVX-512 and AVX-512 with VNNI.

use super::super::Kernels;

/// Fastest first.
pub(super) fn available() -> impl DoubleEndedIterator<Item = &'static Kernels> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
    [
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

    kernels!(Isa::Avx2, "avx2,fma", __m256, Bytes);

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
        /// The codes and their absolute values: `vpmaddubsw` multiplies unsigned with signed, so the query's signs go to the row.
        /// Two products of at most 127 * 127 fit into 16 bits.
        type Query = (__m256i, __m256i);
        type Sum = __m256i;

        #[inline(always)]
        unsafe fn zero() -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> Self::Query {
            // SAFETY: as above.
            unsafe {
                let codes = _mm256_loadu_si256(from.cast());
                (codes, _mm256_abs_epi8(codes))
            }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m256i, (signs, values): Self::Query, row: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let row = _mm256_sign_epi8(_mm256_loadu_si256(row.cast()), signs);
                let pairs = _mm256_maddubs_epi16(values, row);
                _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            }
        }

        #[inline(always)]
        unsafe fn add_square(sum: __m256i, left: *const i8, right: *const i8) -> __m256i {
            // SAFETY: as above; 32 bytes are two halves of 16.
            unsafe {
                let mut sum = sum;
                for half in [0, 16] {
                    let left = _mm256_cvtepi8_epi16(_mm_loadu_si128(left.add(half).cast()));
                    let right = _mm256_cvtepi8_epi16(_mm_loadu_si128(right.add(half).cast()));
                    let difference = _mm256_sub_epi16(left, right);
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(difference, difference));
                }
                sum
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
        unsafe fn prefetch(at: *const i8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at) }
        }
    }
}

mod avx_vnni {
    use std::arch::x86_64::*;

    use super::super::lanes::{Codes, kernels};
    use super::avx2;
    use crate::distance::Isa;

    kernels!(Isa::AvxVnni, "avx2,fma,avxvnni", __m256, Bytes);

    struct Bytes;

    /// As AVX2, with the two multiplications and the addition in one instruction.
    impl Codes for Bytes {
        const LANES: usize = 32;
        type Query = (__m256i, __m256i);
        type Sum = __m256i;

        #[inline(always)]
        unsafe fn zero() -> __m256i {
            // SAFETY: as above.
            unsafe { avx2::Bytes::zero() }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> Self::Query {
            // SAFETY: as above.
            unsafe { avx2::Bytes::query(from) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m256i, (signs, values): Self::Query, row: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let row = _mm256_sign_epi8(_mm256_loadu_si256(row.cast()), signs);
                _mm256_dpbusd_avx_epi32(sum, values, row)
            }
        }

        #[inline(always)]
        unsafe fn add_square(sum: __m256i, left: *const i8, right: *const i8) -> __m256i {
            // SAFETY: as above.
            unsafe { avx2::Bytes::add_square(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn total(sum: __m256i) -> i32 {
            // SAFETY: as above.
            unsafe { avx2::Bytes::total(sum) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const i8) {
            // SAFETY: as above.
            unsafe { avx2::Bytes::prefetch(at) }
        }
    }
}

mod avx512 {
    use std::arch::x86_64::*;

    use super::super::lanes::{Codes, Floats, kernels};
    use crate::distance::Isa;

    kernels!(Isa::Avx512, "avx2,fma,avx512f,avx512bw", __m512, Bytes);

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
        const LANES: usize = 32;
        /// The codes as 16-bit numbers: there is no 512-bit `vpsignb`.
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
            unsafe { _mm512_cvtepi8_epi16(_mm256_loadu_si256(from.cast())) }
        }

        #[inline(always)]
        unsafe fn add_product(sum: __m512i, query: __m512i, row: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_add_epi32(sum, _mm512_madd_epi16(query, Self::query(row))) }
        }

        #[inline(always)]
        unsafe fn add_square(sum: __m512i, left: *const i8, right: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe {
                let difference = _mm512_sub_epi16(Self::query(left), Self::query(right));
                _mm512_add_epi32(sum, _mm512_madd_epi16(difference, difference))
            }
        }

        #[inline(always)]
        unsafe fn total(sum: __m512i) -> i32 {
            // SAFETY: as above.
            unsafe { _mm512_reduce_add_epi32(sum) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const i8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at) }
        }
    }
}

mod avx512_vnni {
    use std::arch::x86_64::*;

    use super::super::lanes::{Codes, kernels};
    use super::avx512;
    use crate::distance::Isa;

    kernels!(Isa::Avx512Vnni, "avx2,fma,avx512f,avx512bw,avx512vnni", __m512, Bytes);

    struct Bytes;

    impl Codes for Bytes {
        const LANES: usize = 64;
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

        /// `vpdpbusd` multiplies unsigned with signed: 128 is added to every code of the row, hence the bias.
        #[inline(always)]
        unsafe fn add_product(sum: __m512i, query: __m512i, row: *const i8) -> __m512i {
            // SAFETY: as above.
            unsafe {
                let row = _mm512_xor_si512(_mm512_loadu_si512(row.cast()), _mm512_set1_epi8(-128));
                _mm512_dpbusd_epi32(sum, row, query)
            }
        }

        #[inline(always)]
        unsafe fn bias(query: &[i8]) -> i32 {
            // SAFETY: as above; a chunk is 64 bytes.
            unsafe {
                let mut sum = _mm512_setzero_si512();
                for chunk in query.chunks_exact(64) {
                    sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(-128), Self::query(chunk.as_ptr()));
                }
                Self::total(sum)
            }
        }

        #[inline(always)]
        unsafe fn add_square(sum: __m512i, left: *const i8, right: *const i8) -> __m512i {
            // SAFETY: as above; 64 bytes are two halves of 32.
            unsafe {
                let sum = avx512::Bytes::add_square(sum, left, right);
                avx512::Bytes::add_square(sum, left.add(32), right.add(32))
            }
        }

        #[inline(always)]
        unsafe fn total(sum: __m512i) -> i32 {
            // SAFETY: as above.
            unsafe { _mm512_reduce_add_epi32(sum) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const i8) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(at) }
        }
    }
}
