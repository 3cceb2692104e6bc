//! The loops, once for all instruction sets: one row at a time, and four rows in one pass over the query, which loads the
//! query once for four rows and keeps four cache misses in flight.
//!
//! Everything here is inlined into a function that enables the instruction set ([`kernels`]), or it would be slow. Hence no
//! intrinsics in closures: a closure handed to `std::array::from_fn` is compiled without the instruction set, each intrinsic
//! in it as a call.

/// Lanes of 32-bit floats.
///
/// # Safety
/// Every method needs the instruction set of the implementing type; `load` also `LANES` readable floats.
pub(super) trait Floats: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    /// From an address of any alignment.
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    /// `self * other + sum`, rounded once or twice.
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self;
    /// The sum of the lanes.
    unsafe fn total(self) -> f32;
}

/// Lanes of bytes: a query's, signed in -127..=127, and a row's, in 0..=127; and the 32-bit sums of their products. With 7 bits on
/// one side two products fit into 16 bits whatever they are, and no instruction set has to saturate or to extend.
///
/// # Safety
/// Every method needs the instruction set of the implementing type; `query` and `add_product` also `LANES` readable bytes at
/// any alignment.
pub(super) trait Codes {
    const LANES: usize;
    /// A part of the query, prepared for several rows.
    type Query: Copy;
    type Sum: Copy;
    unsafe fn zero() -> Self::Sum;
    unsafe fn query(from: *const i8) -> Self::Query;
    unsafe fn add_product(sum: Self::Sum, query: Self::Query, row: *const u8) -> Self::Sum;
    unsafe fn total(sum: Self::Sum) -> i32;
    /// The sums of a block of 32 rows: see [`Kernels::lookup_blocks`](crate::distance::Kernels::lookup_blocks). There are 16 readable bytes
    /// of codes for each table.
    unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]);
    /// Asks for the cache line of a readable byte.
    unsafe fn prefetch(_at: *const u8) {}
}

/// What is summed up over the elements of two float vectors.
pub(super) trait Term {
    unsafe fn add<F: Floats>(sum: F, left: F, right: F) -> F;
    fn scalar(left: f32, right: f32) -> f32;
}

pub(super) struct Product;
pub(super) struct Square;

impl Term for Product {
    #[inline(always)]
    unsafe fn add<F: Floats>(sum: F, left: F, right: F) -> F {
        // SAFETY: the caller has the instruction set of `F`.
        unsafe { left.mul_add(right, sum) }
    }

    #[inline(always)]
    fn scalar(left: f32, right: f32) -> f32 {
        left * right
    }
}

impl Term for Square {
    #[inline(always)]
    unsafe fn add<F: Floats>(sum: F, left: F, right: F) -> F {
        // SAFETY: the caller has the instruction set of `F`.
        unsafe {
            let difference = left.sub(right);
            difference.mul_add(difference, sum)
        }
    }

    #[inline(always)]
    fn scalar(left: f32, right: f32) -> f32 {
        (left - right) * (left - right)
    }
}

/// One number for each of `N` rows of `query.len()` floats, with `U` sums a row so that additions need not wait for each other.
///
/// # Safety
/// The instruction set of `F`; every row has `query.len()` readable floats.
#[inline(always)]
unsafe fn floats<F: Floats, T: Term, const N: usize, const U: usize>(query: &[f32], rows: [*const f32; N]) -> [f32; N] {
    // SAFETY: `at + LANES` stays within `query.len()`, for the query and for the rows.
    unsafe {
        let len = query.len();
        let mut sums = [[F::zero(); U]; N];
        let mut at = 0;
        while at + U * F::LANES <= len {
            let mut parts = [F::zero(); U];
            for (unrolled, part) in parts.iter_mut().enumerate() {
                *part = F::load(query.as_ptr().add(at + unrolled * F::LANES));
            }
            for (sums, row) in sums.iter_mut().zip(rows) {
                for (unrolled, sum) in sums.iter_mut().enumerate() {
                    *sum = T::add(*sum, parts[unrolled], F::load(row.add(at + unrolled * F::LANES)));
                }
            }
            at += U * F::LANES;
        }
        while at + F::LANES <= len {
            let part = F::load(query.as_ptr().add(at));
            for (sums, row) in sums.iter_mut().zip(rows) {
                sums[0] = T::add(sums[0], part, F::load(row.add(at)));
            }
            at += F::LANES;
        }
        let mut totals = [0.0; N];
        for ((total, sums), row) in totals.iter_mut().zip(sums).zip(rows) {
            let mut sum = sums[0];
            for &other in &sums[1..] {
                sum = sum.add(other);
            }
            *total = sum.total();
            for (offset, &element) in query[at..].iter().enumerate() {
                *total += T::scalar(element, *row.add(at + offset));
            }
        }
        totals
    }
}

/// # Safety
/// The instruction set of `F`; the lengths are equal.
#[inline(always)]
pub(super) unsafe fn pair<F: Floats, T: Term>(left: &[f32], right: &[f32]) -> f32 {
    debug_assert_eq!(left.len(), right.len(), "checked by the caller");
    // SAFETY: the caller's.
    unsafe { floats::<F, T, 1, 4>(left, [right.as_ptr()])[0] }
}

/// # Safety
/// The instruction set of `F`; `rows` holds `out.len()` rows of `query.len()`.
#[inline(always)]
pub(super) unsafe fn rows<F: Floats, T: Term>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    debug_assert_eq!(rows.len(), query.len() * out.len(), "checked by the caller");
    let dim = query.len();
    let (fours, rest) = out.as_chunks_mut::<4>();
    // SAFETY: row `n` begins at `n * dim`, and there are `out.len()` rows.
    unsafe {
        let mut row = rows.as_ptr();
        for out in &mut *fours {
            *out = floats::<F, T, 4, 2>(query, [row, row.add(dim), row.add(2 * dim), row.add(3 * dim)]);
            row = row.add(4 * dim);
        }
        for out in rest {
            [*out] = floats::<F, T, 1, 4>(query, [row]);
            row = row.add(dim);
        }
    }
}

/// # Safety
/// The instruction set of `F`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather<F: Floats, T: Term>(query: &[f32], data: &[f32], numbers: &[u32], out: &mut [f32]) {
    debug_assert_eq!(numbers.len(), out.len(), "checked by the caller");
    let dim = query.len();
    check_rows(numbers, dim, data.len());
    let row = |number: u32| data.as_ptr().wrapping_add(number as usize * dim);
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (four_numbers, rest_numbers) = numbers.as_chunks::<4>();
    // SAFETY: every row was checked to lie within `data`.
    unsafe {
        for (out, numbers) in fours.iter_mut().zip(four_numbers) {
            *out = floats::<F, T, 4, 2>(query, numbers.map(row));
        }
        for (out, &number) in rest.iter_mut().zip(rest_numbers) {
            [*out] = floats::<F, T, 1, 4>(query, [row(number)]);
        }
    }
}

/// The products of the query with `N` rows.
///
/// # Safety
/// The instruction set of `C`; every row has `query.len()` readable bytes.
#[inline(always)]
unsafe fn codes<C: Codes, const N: usize>(query: &[i8], rows: [*const u8; N]) -> [i32; N] {
    // SAFETY: `at + LANES` stays within `query.len()`, for the query and for the rows.
    unsafe {
        let len = query.len();
        let mut sums = [C::zero(); N];
        let mut at = 0;
        while at + C::LANES <= len {
            let part = C::query(query.as_ptr().add(at));
            for (sum, row) in sums.iter_mut().zip(rows) {
                *sum = C::add_product(*sum, part, row.add(at));
            }
            at += C::LANES;
        }
        let mut totals = [0; N];
        for ((total, sum), row) in totals.iter_mut().zip(sums).zip(rows) {
            *total = C::total(sum);
            for (offset, &code) in query[at..].iter().enumerate() {
                *total += i32::from(code) * i32::from(*row.add(at + offset));
            }
        }
        totals
    }
}

/// # Safety
/// The instruction set of `C`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather_codes<C: Codes>(query: &[i8], data: &[u8], numbers: &[u32], out: &mut [i32]) {
    debug_assert_eq!(numbers.len(), out.len(), "checked by the caller");
    let dim = query.len();
    check_rows(numbers, dim, data.len());
    let row = |number: u32| data.as_ptr().wrapping_add(number as usize * dim);
    let prefetch = |numbers: &[u32]| {
        for &number in numbers {
            for line in (0..dim).step_by(64) {
                // SAFETY: the row was checked to lie within `data`.
                unsafe { C::prefetch(row(number).wrapping_add(line)) };
            }
        }
    };
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (four_numbers, rest_numbers) = numbers.as_chunks::<4>();
    // Eight rows ahead: about as many lines as a core fetches at once, and what four rows take to compare hides the rest.
    prefetch(&numbers[..numbers.len().min(8)]);
    // SAFETY: every row was checked to lie within `data`.
    unsafe {
        for (chunk, (out, four)) in fours.iter_mut().zip(four_numbers).enumerate() {
            prefetch(&numbers[numbers.len().min(chunk * 4 + 8)..numbers.len().min(chunk * 4 + 12)]);
            *out = codes::<C, 4>(query, four.map(row));
        }
        for (out, &number) in rest.iter_mut().zip(rest_numbers) {
            [*out] = codes::<C, 1>(query, [row(number)]);
        }
    }
}

/// The sum of the query's numbers where the row has a bit. The compiler makes of it what the instruction set has for counting.
///
/// # Safety
/// The row has `8 * query.len()` readable bytes.
#[inline(always)]
unsafe fn bits(query: &[[u64; 4]], row: *const u8) -> i32 {
    let mut sums = [0u64; 4];
    for (at, planes) in query.iter().enumerate() {
        // SAFETY: the caller's.
        let word = u64::from_le(unsafe { row.add(at * 8).cast::<u64>().read_unaligned() });
        for (sum, plane) in sums.iter_mut().zip(planes) {
            *sum += u64::from((word & plane).count_ones());
        }
    }
    let [one, two, four, eight] = sums.map(|sum| sum as i32);
    one + 2 * two + 4 * four - 8 * eight
}

/// # Safety
/// The instruction set of `C`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather_bits<C: Codes>(query: &[[u64; 4]], data: &[u8], numbers: &[u32], out: &mut [i32]) {
    debug_assert_eq!(numbers.len(), out.len(), "checked by the caller");
    let width = query.len() * 8;
    check_rows(numbers, width, data.len());
    let row = |number: u32| data.as_ptr().wrapping_add(number as usize * width);
    for (at, (out, &number)) in out.iter_mut().zip(numbers).enumerate() {
        // SAFETY: every row was checked to lie within `data`.
        unsafe {
            if let Some(&ahead) = numbers.get(at + 8) {
                (0..width).step_by(64).for_each(|line| C::prefetch(row(ahead).wrapping_add(line)));
            }
            *out = bits(query, row(number));
        }
    }
}

/// # Safety
/// The instruction set of `C`; `codes` are 16 bytes a table for each 32 of `out`.
#[inline(always)]
pub(super) unsafe fn lookup_blocks<C: Codes>(tables: &[[u8; 16]], codes: &[u8], out: &mut [u16]) {
    debug_assert_eq!(codes.len(), out.len() / 2 * tables.len(), "checked by the caller");
    for (block, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        // SAFETY: the caller's.
        unsafe { C::lookup_block(tables, codes.as_ptr().add(block * tables.len() * 16), out) };
    }
}

/// Panics when a row of `dim` elements does not lie within `len` elements.
#[inline(always)]
fn check_rows(numbers: &[u32], dim: usize, len: usize) {
    let end = numbers.iter().fold(0, |end, &number| end.max(u64::from(number) + 1));
    // In 64 bits: on a 32-bit target the product could wrap around.
    assert!(end * dim as u64 <= len as u64, "row {} of {len} elements, {dim} a row", end.wrapping_sub(1));
}

#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
/// Defines `KERNELS` of one instruction set: the loops above, inlined into functions that enable it.
macro_rules! kernels {
    ($isa:expr, $features:literal, $floats:ty, $codes:ty) => {
        pub(in crate::distance) static KERNELS: $crate::distance::Kernels = {
            use $crate::distance::arch::lanes::{self, Product, Square};

            #[target_feature(enable = $features)]
            unsafe fn dot(left: &[f32], right: &[f32]) -> f32 {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::pair::<$floats, Product>(left, right) }
            }
            #[target_feature(enable = $features)]
            unsafe fn l2(left: &[f32], right: &[f32]) -> f32 {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::pair::<$floats, Square>(left, right) }
            }
            #[target_feature(enable = $features)]
            unsafe fn dot_rows(query: &[f32], rows: &[f32], out: &mut [f32]) {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::rows::<$floats, Product>(query, rows, out) }
            }
            #[target_feature(enable = $features)]
            unsafe fn l2_rows(query: &[f32], rows: &[f32], out: &mut [f32]) {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::rows::<$floats, Square>(query, rows, out) }
            }
            #[target_feature(enable = $features)]
            unsafe fn dot_gather(query: &[f32], data: &[f32], rows: &[u32], out: &mut [f32]) {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::gather::<$floats, Product>(query, data, rows, out) }
            }
            #[target_feature(enable = $features)]
            unsafe fn l2_gather(query: &[f32], data: &[f32], rows: &[u32], out: &mut [f32]) {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::gather::<$floats, Square>(query, data, rows, out) }
            }
            #[target_feature(enable = $features)]
            unsafe fn dot_codes_gather(query: &[i8], data: &[u8], rows: &[u32], out: &mut [i32]) {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::gather_codes::<$codes>(query, data, rows, out) }
            }

            #[target_feature(enable = $features)]
            unsafe fn dot_bits_gather(query: &[[u64; 4]], data: &[u8], rows: &[u32], out: &mut [i32]) {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::gather_bits::<$codes>(query, data, rows, out) }
            }

            #[target_feature(enable = $features)]
            unsafe fn lookup_blocks(tables: &[[u8; 16]], codes: &[u8], out: &mut [u16]) {
                // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
                unsafe { lanes::lookup_blocks::<$codes>(tables, codes, out) }
            }

            // SAFETY of all: `available` hands this table out only where the processor has the instruction set.
            $crate::distance::Kernels {
                isa: $isa,
                // SAFETY: as above.
                dot: |left, right| unsafe { dot(left, right) },
                // SAFETY: as above.
                l2: |left, right| unsafe { l2(left, right) },
                // SAFETY: as above.
                dot_rows: |query, rows, out| unsafe { dot_rows(query, rows, out) },
                // SAFETY: as above.
                l2_rows: |query, rows, out| unsafe { l2_rows(query, rows, out) },
                // SAFETY: as above.
                dot_gather: |query, data, rows, out| unsafe { dot_gather(query, data, rows, out) },
                // SAFETY: as above.
                l2_gather: |query, data, rows, out| unsafe { l2_gather(query, data, rows, out) },
                // SAFETY: as above.
                dot_codes_gather: |query, data, rows, out| unsafe { dot_codes_gather(query, data, rows, out) },
                // SAFETY: as above.
                lookup_blocks: |tables, codes, out| unsafe { lookup_blocks(tables, codes, out) },
                // SAFETY: as above.
                dot_bits_gather: |query, data, rows, out| unsafe { dot_bits_gather(query, data, rows, out) },
            }
        };
    };
}
#[cfg(any(target_arch = "x86_64", target_feature = "simd128"))]
pub(super) use kernels;
