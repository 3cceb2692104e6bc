//! simd128, with the relaxed instructions where the module is compiled for them. An engine without them needs a module that was
//! compiled without them: there is nothing to detect at run time.

use std::arch::wasm32::*;

use super::lanes::{Codes, Floats, kernels};
use crate::distance::Isa;

#[cfg(not(target_feature = "relaxed-simd"))]
kernels!(Isa::Simd128, "simd128", Lanes, Bytes);
#[cfg(target_feature = "relaxed-simd")]
kernels!(Isa::RelaxedSimd, "simd128,relaxed-simd", Lanes, Bytes);

#[derive(Clone, Copy)]
struct Lanes(v128);

// SAFETY of all methods below: the traits' callers have the readable elements; a module with simd128 only loads where it runs.
impl Floats for Lanes {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(f32x4_splat(0.0))
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { Self(v128_load(from.cast())) }
    }

    /// There is no instruction for it. Exponent and fraction are put into their places and multiplied by two to the power of what the
    /// exponents differ by, which is right for numbers below the normal ones too.
    #[inline(always)]
    unsafe fn load_f16(from: *const u8) -> Self {
        // SAFETY: as above; four numbers of 2 bytes.
        let bits = unsafe { u32x4_load_extend_u16x4(from.cast()) };
        let size = u32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
        let number = f32x4_mul(size, f32x4_splat(f32::from_bits(0x7780_0000)));
        let sign = u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
        Self(v128_or(number, sign))
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const u8) -> Self {
        // SAFETY: as above; four numbers of 2 bytes.
        Self(u32x4_shl(unsafe { u32x4_load_extend_u16x4(from.cast()) }, 16))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(f32x4_sub(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(f32x4_add(self.0, other.0))
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
        #[cfg(target_feature = "relaxed-simd")]
        return Self(f32x4_relaxed_madd(self.0, other.0, sum.0));
        #[cfg(not(target_feature = "relaxed-simd"))]
        Self(f32x4_add(sum.0, f32x4_mul(self.0, other.0)))
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        let two = f32x4_add(self.0, i32x4_shuffle::<2, 3, 0, 1>(self.0, self.0));
        f32x4_extract_lane::<0>(two) + f32x4_extract_lane::<1>(two)
    }
}

struct Bytes;

impl Codes for Bytes {
    const LANES: usize = 16;
    const SIGNED: usize = 16;
    const ONES: usize = 16;
    /// The codes as 16-bit numbers, low half and high half.
    #[cfg(not(target_feature = "relaxed-simd"))]
    type Query = (v128, v128);
    #[cfg(target_feature = "relaxed-simd")]
    type Query = v128;
    type Sum = v128;

    #[inline(always)]
    unsafe fn zero() -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    unsafe fn query(from: *const i8) -> Self::Query {
        // SAFETY: as above; 16 bytes are two halves of 8.
        #[cfg(not(target_feature = "relaxed-simd"))]
        return unsafe { (i16x8_load_extend_i8x8(from), i16x8_load_extend_i8x8(from.add(8))) };
        // SAFETY: as above.
        #[cfg(target_feature = "relaxed-simd")]
        unsafe {
            v128_load(from.cast())
        }
    }

    #[cfg(not(target_feature = "relaxed-simd"))]
    #[inline(always)]
    unsafe fn add_product(sum: v128, (low, high): (v128, v128), row: *const u8) -> v128 {
        // SAFETY: as above.
        unsafe {
            let (row_low, row_high) = Self::query(row.cast());
            let products = i32x4_add(i32x4_dot_i16x8(low, row_low), i32x4_dot_i16x8(high, row_high));
            i32x4_add(sum, products)
        }
    }

    /// A row has 7 bits, so no engine may choose what comes out.
    #[cfg(target_feature = "relaxed-simd")]
    #[inline(always)]
    unsafe fn add_product(sum: v128, query: v128, row: *const u8) -> v128 {
        // SAFETY: as above.
        unsafe { i32x4_relaxed_dot_i8x16_i7x16_add(query, v128_load(row.cast()), sum) }
    }

    #[inline(always)]
    unsafe fn total(sum: v128) -> i32 {
        let two = i32x4_add(sum, i32x4_shuffle::<2, 3, 0, 1>(sum, sum));
        i32x4_extract_lane::<0>(two) + i32x4_extract_lane::<1>(two)
    }

    #[inline(always)]
    unsafe fn add_signed(sum: v128, left: *const i8, right: *const i8) -> v128 {
        // SAFETY: as above; 16 bytes are two halves of 8.
        unsafe {
            let low = i32x4_dot_i16x8(i16x8_load_extend_i8x8(left), i16x8_load_extend_i8x8(right));
            let high = i32x4_dot_i16x8(i16x8_load_extend_i8x8(left.add(8)), i16x8_load_extend_i8x8(right.add(8)));
            i32x4_add(sum, i32x4_add(low, high))
        }
    }

    #[inline(always)]
    unsafe fn add_squares(sum: v128, left: *const i8, right: *const i8) -> v128 {
        // SAFETY: as above; 16 bytes are two halves of 8.
        unsafe {
            let low = i16x8_sub(i16x8_load_extend_i8x8(left), i16x8_load_extend_i8x8(right));
            let high = i16x8_sub(i16x8_load_extend_i8x8(left.add(8)), i16x8_load_extend_i8x8(right.add(8)));
            i32x4_add(sum, i32x4_add(i32x4_dot_i16x8(low, low), i32x4_dot_i16x8(high, high)))
        }
    }

    #[inline(always)]
    unsafe fn add_ones<const BOTH: bool>(sum: v128, left: *const u8, right: *const u8) -> v128 {
        // SAFETY: as above.
        let (left, right) = unsafe { (v128_load(left.cast()), v128_load(right.cast())) };
        let bits = if BOTH { v128_and(left, right) } else { v128_xor(left, right) };
        i32x4_add(sum, u32x4_extadd_pairwise_u16x8(u16x8_extadd_pairwise_u8x16(u8x16_popcnt(bits))))
    }

    /// Sums of even and of odd rows are kept apart, so that bytes need not be widened one by one.
    #[inline(always)]
    unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]) {
        let (nibble, even) = (u8x16_splat(15), u16x8_splat(255));
        let zero = u16x8_splat(0);
        let (mut first_even, mut first_odd, mut second_even, mut second_odd) = (zero, zero, zero, zero);
        let mut codes = codes;
        for table in tables {
            // SAFETY: as above; a table is 16 bytes, and so are its codes.
            let (table, code) = unsafe { (v128_load(table.as_ptr().cast()), v128_load(codes.cast())) };
            codes = codes.wrapping_add(16);
            let first = u8x16_swizzle(table, v128_and(code, nibble));
            let second = u8x16_swizzle(table, u8x16_shr(code, 4));
            first_even = u16x8_add(first_even, v128_and(first, even));
            first_odd = u16x8_add(first_odd, u16x8_shr(first, 8));
            second_even = u16x8_add(second_even, v128_and(second, even));
            second_odd = u16x8_add(second_odd, u16x8_shr(second, 8));
        }
        let to = out.as_mut_ptr();
        // SAFETY: 32 numbers of 2 bytes are four stores of 16 bytes.
        unsafe {
            v128_store(to.cast(), u16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(first_even, first_odd));
            v128_store(to.add(8).cast(), u16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(first_even, first_odd));
            v128_store(to.add(16).cast(), u16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(second_even, second_odd));
            v128_store(to.add(24).cast(), u16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(second_even, second_odd));
        }
    }

    /// There is no prefetch instruction. A load whose result nobody waits for does nearly the same: the processor goes on while the
    /// line comes.
    #[inline(always)]
    unsafe fn prefetch(at: *const u8) {
        // SAFETY: as above; volatile, or the compiler would leave it out.
        unsafe { at.read_volatile() };
    }
}
