//! The loops, once for all instruction sets: one row at a time, and four rows in one pass over the query, which loads the
//! query once for four rows and keeps four cache misses in flight.
//!
//! Everything here is inlined into a function that enables the instruction set ([`kernels`]), or it would be slow. Hence no
//! intrinsics in closures: a closure handed to `std::array::from_fn` is compiled without the instruction set, each intrinsic
//! in it as a call. And every sum has its own name: a loop over an array of sums is left a loop when the compiler is told to keep code
//! small, as it is for browsers, and its sums are in memory then. (Measured: exact search took 7.6 times as long.)

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

/// One number for each of four rows of `query.len()` floats, with two sums a row so that additions need not wait for each other.
///
/// # Safety
/// The instruction set of `F`; every row has `query.len()` readable floats.
#[inline(always)]
unsafe fn four<F: Floats, T: Term>(query: &[f32], [a, b, c, d]: [*const f32; 4]) -> [f32; 4] {
    // SAFETY: `at + LANES` stays within `query.len()`, for the query and for the rows.
    unsafe {
        let (from, len) = (query.as_ptr(), query.len());
        let (mut a0, mut b0, mut c0, mut d0) = (F::zero(), F::zero(), F::zero(), F::zero());
        let (mut a1, mut b1, mut c1, mut d1) = (F::zero(), F::zero(), F::zero(), F::zero());
        let mut at = 0;
        while at + 2 * F::LANES <= len {
            let next = at + F::LANES;
            let (part, part_next) = (F::load(from.add(at)), F::load(from.add(next)));
            a0 = T::add(a0, part, F::load(a.add(at)));
            a1 = T::add(a1, part_next, F::load(a.add(next)));
            b0 = T::add(b0, part, F::load(b.add(at)));
            b1 = T::add(b1, part_next, F::load(b.add(next)));
            c0 = T::add(c0, part, F::load(c.add(at)));
            c1 = T::add(c1, part_next, F::load(c.add(next)));
            d0 = T::add(d0, part, F::load(d.add(at)));
            d1 = T::add(d1, part_next, F::load(d.add(next)));
            at += 2 * F::LANES;
        }
        if at + F::LANES <= len {
            let part = F::load(from.add(at));
            a0 = T::add(a0, part, F::load(a.add(at)));
            b0 = T::add(b0, part, F::load(b.add(at)));
            c0 = T::add(c0, part, F::load(c.add(at)));
            d0 = T::add(d0, part, F::load(d.add(at)));
            at += F::LANES;
        }
        let (mut ta, mut tb, mut tc, mut td) =
            (a0.add(a1).total(), b0.add(b1).total(), c0.add(c1).total(), d0.add(d1).total());
        while at < len {
            let element = *from.add(at);
            ta += T::scalar(element, *a.add(at));
            tb += T::scalar(element, *b.add(at));
            tc += T::scalar(element, *c.add(at));
            td += T::scalar(element, *d.add(at));
            at += 1;
        }
        [ta, tb, tc, td]
    }
}

/// The same for one row, with four sums.
///
/// # Safety
/// The instruction set of `F`; the row has `query.len()` readable floats.
#[inline(always)]
unsafe fn one<F: Floats, T: Term>(query: &[f32], row: *const f32) -> f32 {
    // SAFETY: `at + LANES` stays within `query.len()`, for the query and for the row.
    unsafe {
        let (from, len) = (query.as_ptr(), query.len());
        let (mut a, mut b, mut c, mut d) = (F::zero(), F::zero(), F::zero(), F::zero());
        let mut at = 0;
        while at + 4 * F::LANES <= len {
            a = T::add(a, F::load(from.add(at)), F::load(row.add(at)));
            b = T::add(b, F::load(from.add(at + F::LANES)), F::load(row.add(at + F::LANES)));
            c = T::add(c, F::load(from.add(at + 2 * F::LANES)), F::load(row.add(at + 2 * F::LANES)));
            d = T::add(d, F::load(from.add(at + 3 * F::LANES)), F::load(row.add(at + 3 * F::LANES)));
            at += 4 * F::LANES;
        }
        while at + F::LANES <= len {
            a = T::add(a, F::load(from.add(at)), F::load(row.add(at)));
            at += F::LANES;
        }
        let mut total = a.add(b).add(c).add(d).total();
        while at < len {
            total += T::scalar(*from.add(at), *row.add(at));
            at += 1;
        }
        total
    }
}

/// # Safety
/// The instruction set of `F`; the lengths are equal.
#[inline(always)]
pub(super) unsafe fn pair<F: Floats, T: Term>(left: &[f32], right: &[f32]) -> f32 {
    debug_assert_eq!(left.len(), right.len(), "checked by the caller");
    // SAFETY: the caller's.
    unsafe { one::<F, T>(left, right.as_ptr()) }
}

/// # Safety
/// The instruction set of `F`; `rows` holds `out.len()` rows of `query.len()`.
#[inline(always)]
pub(super) unsafe fn rows<F: Floats, T: Term>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    debug_assert_eq!(rows.len(), query.len() * out.len(), "checked by the caller");
    let (dim, mut row) = (query.len(), rows.as_ptr());
    let (fours, rest) = out.as_chunks_mut::<4>();
    // SAFETY: row `n` begins at `n * dim`, and there are `out.len()` rows.
    unsafe {
        for out in fours {
            *out = four::<F, T>(query, [row, row.add(dim), row.add(2 * dim), row.add(3 * dim)]);
            row = row.add(4 * dim);
        }
        for out in rest {
            *out = one::<F, T>(query, row);
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
    let row = Rows { data: data.as_ptr(), width: dim };
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (four_numbers, rest_numbers) = numbers.as_chunks::<4>();
    // SAFETY: every row was checked to lie within `data`.
    unsafe {
        for (out, &[a, b, c, d]) in fours.iter_mut().zip(four_numbers) {
            *out = four::<F, T>(query, [row.at(a), row.at(b), row.at(c), row.at(d)]);
        }
        for (out, &number) in rest.iter_mut().zip(rest_numbers) {
            *out = one::<F, T>(query, row.at(number));
        }
    }
}

/// Rows of `width` elements, one after the other.
#[derive(Clone, Copy)]
struct Rows<E> {
    data: *const E,
    width: usize,
}

impl<E> Rows<E> {
    /// Where a row begins; it must have been checked before anything there is read.
    #[inline(always)]
    fn at(self, number: u32) -> *const E {
        self.data.wrapping_add(number as usize * self.width)
    }
}

impl Rows<u8> {
    /// Asks for the lines of some rows.
    ///
    /// # Safety
    /// The instruction set of `C`; the rows are readable.
    #[inline(always)]
    unsafe fn prefetch<C: Codes>(self, numbers: &[u32]) {
        for &number in numbers {
            let mut line = 0;
            while line < self.width {
                // SAFETY: the caller's.
                unsafe { C::prefetch(self.at(number).wrapping_add(line)) };
                line += 64;
            }
        }
    }
}

/// The products of the query with four rows.
///
/// # Safety
/// The instruction set of `C`; every row has `query.len()` readable bytes.
#[inline(always)]
unsafe fn four_codes<C: Codes>(query: &[i8], [a, b, c, d]: [*const u8; 4]) -> [i32; 4] {
    // SAFETY: `at + LANES` stays within `query.len()`, for the query and for the rows.
    unsafe {
        let (from, len) = (query.as_ptr(), query.len());
        let (mut sa, mut sb, mut sc, mut sd) = (C::zero(), C::zero(), C::zero(), C::zero());
        let mut at = 0;
        while at + C::LANES <= len {
            let part = C::query(from.add(at));
            sa = C::add_product(sa, part, a.add(at));
            sb = C::add_product(sb, part, b.add(at));
            sc = C::add_product(sc, part, c.add(at));
            sd = C::add_product(sd, part, d.add(at));
            at += C::LANES;
        }
        let (mut ta, mut tb, mut tc, mut td) = (C::total(sa), C::total(sb), C::total(sc), C::total(sd));
        while at < len {
            let code = i32::from(*from.add(at));
            ta += code * i32::from(*a.add(at));
            tb += code * i32::from(*b.add(at));
            tc += code * i32::from(*c.add(at));
            td += code * i32::from(*d.add(at));
            at += 1;
        }
        [ta, tb, tc, td]
    }
}

/// The same for one row.
///
/// # Safety
/// The instruction set of `C`; the row has `query.len()` readable bytes.
#[inline(always)]
unsafe fn one_code<C: Codes>(query: &[i8], row: *const u8) -> i32 {
    // SAFETY: `at + LANES` stays within `query.len()`, for the query and for the row.
    unsafe {
        let (from, len) = (query.as_ptr(), query.len());
        let (mut sum, mut at) = (C::zero(), 0);
        while at + C::LANES <= len {
            sum = C::add_product(sum, C::query(from.add(at)), row.add(at));
            at += C::LANES;
        }
        let mut total = C::total(sum);
        while at < len {
            total += i32::from(*from.add(at)) * i32::from(*row.add(at));
            at += 1;
        }
        total
    }
}

/// # Safety
/// The instruction set of `C`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather_codes<C: Codes>(query: &[i8], data: &[u8], numbers: &[u32], out: &mut [i32]) {
    debug_assert_eq!(numbers.len(), out.len(), "checked by the caller");
    let dim = query.len();
    check_rows(numbers, dim, data.len());
    let row = Rows { data: data.as_ptr(), width: dim };
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (four_numbers, rest_numbers) = numbers.as_chunks::<4>();
    // SAFETY: every row was checked to lie within `data`.
    unsafe {
        // Eight rows ahead: about as many lines as a core fetches at once, and what four rows take to compare hides the rest.
        row.prefetch::<C>(&numbers[..numbers.len().min(8)]);
        let mut ahead = numbers.get(8..).unwrap_or_default();
        for (out, &[a, b, c, d]) in fours.iter_mut().zip(four_numbers) {
            let (next, rest) = ahead.split_at(ahead.len().min(4));
            row.prefetch::<C>(next);
            ahead = rest;
            *out = four_codes::<C>(query, [row.at(a), row.at(b), row.at(c), row.at(d)]);
        }
        for (out, &number) in rest.iter_mut().zip(rest_numbers) {
            *out = one_code::<C>(query, row.at(number));
        }
    }
}

/// The sum of the query's numbers where the row has a bit. The compiler makes of it what the instruction set has for counting.
///
/// # Safety
/// The row has `8 * query.len()` readable bytes.
#[inline(always)]
unsafe fn bits(query: &[[u64; 4]], row: *const u8) -> i32 {
    let (mut one, mut two, mut four, mut eight) = (0u64, 0u64, 0u64, 0u64);
    let mut at = row.cast::<u64>();
    for &[a, b, c, d] in query {
        // SAFETY: the caller's.
        let word = u64::from_le(unsafe { at.read_unaligned() });
        at = at.wrapping_add(1);
        one += u64::from((word & a).count_ones());
        two += u64::from((word & b).count_ones());
        four += u64::from((word & c).count_ones());
        eight += u64::from((word & d).count_ones());
    }
    (one + 2 * two + 4 * four) as i32 - 8 * eight as i32
}

/// # Safety
/// The instruction set of `C`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather_bits<C: Codes>(query: &[[u64; 4]], data: &[u8], numbers: &[u32], out: &mut [i32]) {
    debug_assert_eq!(numbers.len(), out.len(), "checked by the caller");
    let width = query.len() * 8;
    check_rows(numbers, width, data.len());
    let row = Rows { data: data.as_ptr(), width };
    let mut ahead = numbers.get(8..).unwrap_or_default();
    for (out, &number) in out.iter_mut().zip(numbers) {
        // SAFETY: every row was checked to lie within `data`.
        unsafe {
            if let [next, rest @ ..] = ahead {
                row.prefetch::<C>(std::slice::from_ref(next));
                ahead = rest;
            }
            *out = bits(query, row.at(number));
        }
    }
}

/// # Safety
/// The instruction set of `C`; `codes` are 16 bytes a table for each 32 of `out`.
#[inline(always)]
pub(super) unsafe fn lookup_blocks<C: Codes>(tables: &[[u8; 16]], codes: &[u8], out: &mut [u16]) {
    debug_assert_eq!(codes.len(), out.len() / 2 * tables.len(), "checked by the caller");
    let mut codes = codes.as_ptr();
    for out in out.as_chunks_mut::<32>().0 {
        // SAFETY: the caller's.
        unsafe { C::lookup_block(tables, codes, out) };
        codes = codes.wrapping_add(tables.len() * 16);
    }
}

/// Panics when a row of `dim` elements does not lie within `len` elements.
#[inline(always)]
fn check_rows(numbers: &[u32], dim: usize, len: usize) {
    let mut last = 0;
    for &number in numbers {
        last = if number > last { number } else { last };
    }
    // In 64 bits: on a 32-bit target the product could wrap around.
    if !numbers.is_empty() && (u64::from(last) + 1) * dim as u64 > len as u64 {
        outside(last, dim, len);
    }
}

#[cold]
#[inline(never)]
fn outside(row: u32, dim: usize, len: usize) -> ! {
    panic!("row {row} of {len} elements, {dim} a row");
}

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
pub(super) use kernels;
