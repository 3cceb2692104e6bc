//! NEON, which every processor of this kind has, and NEON with the products of bytes.

use super::super::Kernels;

/// Fastest first.
pub(super) fn available() -> impl DoubleEndedIterator<Item = &'static Kernels> {
    [(std::arch::is_aarch64_feature_detected!("dotprod"), &dotprod::KERNELS), (true, &neon::KERNELS)]
        .into_iter()
        .filter_map(|(present, kernels)| present.then_some(kernels))
}

mod neon {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::super::lanes::{Codes, Floats, kernels};
    use crate::distance::Isa;

    kernels!(Isa::Neon, "neon", float32x4_t, Bytes);

    // SAFETY of all methods here and below: the traits' callers have the instruction set and the readable elements.
    impl Floats for float32x4_t {
        const LANES: usize = 4;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as above.
            unsafe { vdupq_n_f32(0.0) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as above.
            unsafe { vld1q_f32(from) }
        }

        #[inline(always)]
        unsafe fn load_f16(from: *const u8) -> Self {
            // SAFETY: as above; four numbers of 2 bytes. (The intrinsic is newer than what the crate asks for.)
            unsafe {
                let (halves, numbers): (uint16x4_t, Self) = (vld1_u16(from.cast()), Self::zero());
                let mut numbers = numbers;
                asm!(
                    "fcvtl {numbers:v}.4s, {halves:v}.4h",
                    numbers = inout(vreg) numbers, halves = in(vreg) halves,
                    options(pure, nomem, nostack, preserves_flags),
                );
                numbers
            }
        }

        #[inline(always)]
        unsafe fn load_bf16(from: *const u8) -> Self {
            // SAFETY: as above; four numbers of 2 bytes.
            unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
        }

        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { vsubq_f32(self, other) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            unsafe { vaddq_f32(self, other) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
            // SAFETY: as above.
            unsafe { vfmaq_f32(sum, self, other) }
        }

        #[inline(always)]
        unsafe fn total(self) -> f32 {
            // SAFETY: as above.
            unsafe { vaddvq_f32(self) }
        }
    }

    pub(super) struct Bytes;

    impl Codes for Bytes {
        const LANES: usize = 16;
        const SIGNED: usize = 16;
        const ONES: usize = 16;
        type Query = int8x16_t;
        type Sum = int32x4_t;

        #[inline(always)]
        unsafe fn zero() -> int32x4_t {
            // SAFETY: as above.
            unsafe { vdupq_n_s32(0) }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> int8x16_t {
            // SAFETY: as above.
            unsafe { vld1q_s8(from) }
        }

        /// A row has 7 bits, so its bytes are signed ones as well.
        #[inline(always)]
        unsafe fn add_product(sum: int32x4_t, query: int8x16_t, row: *const u8) -> int32x4_t {
            // SAFETY: as above.
            unsafe {
                let row = vld1q_s8(row.cast());
                let low = vmull_s8(vget_low_s8(query), vget_low_s8(row));
                vpadalq_s16(vpadalq_s16(sum, low), vmull_high_s8(query, row))
            }
        }

        #[inline(always)]
        unsafe fn total(sum: int32x4_t) -> i32 {
            // SAFETY: as above.
            unsafe { vaddvq_s32(sum) }
        }

        #[inline(always)]
        unsafe fn add_signed(sum: int32x4_t, left: *const i8, right: *const i8) -> int32x4_t {
            // SAFETY: as above.
            unsafe {
                let (left, right) = (vld1q_s8(left), vld1q_s8(right));
                let low = vmull_s8(vget_low_s8(left), vget_low_s8(right));
                vpadalq_s16(vpadalq_s16(sum, low), vmull_high_s8(left, right))
            }
        }

        /// A difference has 8 bits without its sign.
        #[inline(always)]
        unsafe fn add_squares(sum: int32x4_t, left: *const i8, right: *const i8) -> int32x4_t {
            // SAFETY: as above.
            unsafe {
                let size = vreinterpretq_u8_s8(vabdq_s8(vld1q_s8(left), vld1q_s8(right)));
                let low = vmull_u8(vget_low_u8(size), vget_low_u8(size));
                let sum = vpadalq_u16(vpadalq_u16(vreinterpretq_u32_s32(sum), low), vmull_high_u8(size, size));
                vreinterpretq_s32_u32(sum)
            }
        }

        #[inline(always)]
        unsafe fn add_ones<const BOTH: bool>(sum: int32x4_t, left: *const u8, right: *const u8) -> int32x4_t {
            // SAFETY: as above.
            unsafe {
                let (left, right) = (vld1q_u8(left), vld1q_u8(right));
                let bits = if BOTH { vandq_u8(left, right) } else { veorq_u8(left, right) };
                let pairs = vpaddlq_u8(vcntq_u8(bits));
                vreinterpretq_s32_u32(vpadalq_u16(vreinterpretq_u32_s32(sum), pairs))
            }
        }

        /// Sums of even and of odd rows are kept apart, so that bytes need not be widened one by one.
        #[inline(always)]
        unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]) {
            // SAFETY: as above; a table is 16 bytes, and so are its codes; 32 numbers of 2 bytes are four stores of 16 bytes.
            unsafe {
                let (nibble, even, zero) = (vdupq_n_u8(15), vdupq_n_u16(255), vdupq_n_u16(0));
                let (mut first_even, mut first_odd, mut second_even, mut second_odd) = (zero, zero, zero, zero);
                for (at, table) in tables.iter().enumerate() {
                    let (table, codes) = (vld1q_u8(table.as_ptr()), vld1q_u8(codes.add(16 * at)));
                    let first = vreinterpretq_u16_u8(vqtbl1q_u8(table, vandq_u8(codes, nibble)));
                    let second = vreinterpretq_u16_u8(vqtbl1q_u8(table, vshrq_n_u8::<4>(codes)));
                    first_even = vaddq_u16(first_even, vandq_u16(first, even));
                    first_odd = vsraq_n_u16::<8>(first_odd, first);
                    second_even = vaddq_u16(second_even, vandq_u16(second, even));
                    second_odd = vsraq_n_u16::<8>(second_odd, second);
                }
                let to = out.as_mut_ptr();
                vst1q_u16(to, vzip1q_u16(first_even, first_odd));
                vst1q_u16(to.add(8), vzip2q_u16(first_even, first_odd));
                vst1q_u16(to.add(16), vzip1q_u16(second_even, second_odd));
                vst1q_u16(to.add(24), vzip2q_u16(second_even, second_odd));
            }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: a hint, which touches no memory that the program sees. (The intrinsic is not stable.)
            unsafe { asm!("prfm pldl1keep, [{at}]", at = in(reg) at, options(nostack, preserves_flags, readonly)) }
        }
    }
}

mod dotprod {
    use std::arch::aarch64::*;
    use std::arch::asm;

    use super::super::lanes::{Codes, kernels};
    use super::neon;
    use crate::distance::Isa;

    kernels!(Isa::NeonDot, "neon,dotprod", float32x4_t, Bytes);

    struct Bytes;

    /// As NEON, with four products and their sum in one instruction.
    impl Codes for Bytes {
        const LANES: usize = 16;
        const SIGNED: usize = 16;
        const ONES: usize = 16;
        type Query = int8x16_t;
        type Sum = int32x4_t;

        #[inline(always)]
        unsafe fn zero() -> int32x4_t {
            // SAFETY: as above.
            unsafe { neon::Bytes::zero() }
        }

        #[inline(always)]
        unsafe fn query(from: *const i8) -> int8x16_t {
            // SAFETY: as above.
            unsafe { neon::Bytes::query(from) }
        }

        #[inline(always)]
        unsafe fn add_product(mut sum: int32x4_t, query: int8x16_t, row: *const u8) -> int32x4_t {
            // SAFETY: as above. (The intrinsic is not stable.)
            unsafe {
                let row = vld1q_s8(row.cast());
                asm!(
                    "sdot {sum:v}.4s, {query:v}.16b, {row:v}.16b",
                    sum = inout(vreg) sum, query = in(vreg) query, row = in(vreg) row,
                    options(pure, nomem, nostack, preserves_flags),
                );
                sum
            }
        }

        #[inline(always)]
        unsafe fn total(sum: int32x4_t) -> i32 {
            // SAFETY: as above.
            unsafe { neon::Bytes::total(sum) }
        }

        #[inline(always)]
        unsafe fn add_signed(sum: int32x4_t, left: *const i8, right: *const i8) -> int32x4_t {
            // SAFETY: as above.
            unsafe { neon::Bytes::add_signed(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn add_squares(sum: int32x4_t, left: *const i8, right: *const i8) -> int32x4_t {
            // SAFETY: as above.
            unsafe { neon::Bytes::add_squares(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn add_ones<const BOTH: bool>(sum: int32x4_t, left: *const u8, right: *const u8) -> int32x4_t {
            // SAFETY: as above.
            unsafe { neon::Bytes::add_ones::<BOTH>(sum, left, right) }
        }

        #[inline(always)]
        unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]) {
            // SAFETY: as above.
            unsafe { neon::Bytes::lookup_block(tables, codes, out) }
        }

        #[inline(always)]
        unsafe fn prefetch(at: *const u8) {
            // SAFETY: as above.
            unsafe { neon::Bytes::prefetch(at) }
        }
    }
}
