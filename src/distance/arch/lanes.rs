//! The loops, once for all instruction sets: one row at a time, and four rows in one pass over the query, which loads the
//! query once for four rows and keeps four cache misses in flight.
//!
//! Everything here is inlined into a function that enables the instruction set ([`kernels`]), or it would be slow. Hence no
//! intrinsics in closures: a closure handed to `std::array::from_fn` is compiled without the instruction set, each intrinsic
//! in it as a call. And every sum has its own name: a loop over an array of sums is left a loop when the compiler is told to keep code
//! small, as it is for browsers, and its sums are in memory then. (Measured: exact search took 7.6 times as long.)

use super::super::bits::jaccard_of;
use crate::base::codec::widen_f16;

/// Lanes of 32-bit floats.
///
/// # Safety
/// Every method needs the instruction set of the implementing type; those that load also `LANES` readable numbers.
pub(super) trait Floats: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    /// From an address of any alignment.
    unsafe fn load(from: *const f32) -> Self;
    /// From 16-bit floats, at any address.
    unsafe fn load_f16(from: *const u8) -> Self;
    /// From the upper halves of 32-bit floats, at any address.
    unsafe fn load_bf16(from: *const u8) -> Self;
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
/// any alignment, those that take two addresses as many as their constant says at each.
pub(super) trait Codes {
    const LANES: usize;
    /// A part of the query, prepared for several rows.
    type Query: Copy;
    type Sum: Copy;
    unsafe fn zero() -> Self::Sum;
    unsafe fn query(from: *const i8) -> Self::Query;
    unsafe fn add_product(sum: Self::Sum, query: Self::Query, row: *const u8) -> Self::Sum;
    unsafe fn total(sum: Self::Sum) -> i32;
    /// Bytes that [`Self::add_signed`] and [`Self::add_squares`] take at once.
    const SIGNED: usize;
    /// Bytes that [`Self::add_ones`] takes at once.
    const ONES: usize;
    /// Rows of fewer bytes have their bits counted by words, four rows at once: what is shorter than a few registers takes longer to add up in
    /// the end than to count.
    const WORDS: usize = 0;
    /// Adds the products of bytes that may have any sign and size.
    unsafe fn add_signed(sum: Self::Sum, left: *const i8, right: *const i8) -> Self::Sum;
    /// Adds the squares of their differences.
    unsafe fn add_squares(sum: Self::Sum, left: *const i8, right: *const i8) -> Self::Sum;
    /// Adds the number of bits that are in `BOTH`, or that differ.
    unsafe fn add_ones<const BOTH: bool>(sum: Self::Sum, left: *const u8, right: *const u8) -> Self::Sum;
    /// The sums of a block of 32 rows: see [`Kernels::lookup_blocks`](crate::distance::Kernels::lookup_blocks). There are 16 readable bytes
    /// of codes for each table.
    unsafe fn lookup_block(tables: &[[u8; 16]], codes: *const u8, out: &mut [u16; 32]);
    /// Whether the lines of rows of floats are asked for ahead of them, as those of shorter rows are.
    const AHEAD: bool = false;
    /// Asks for the cache line of a readable byte.
    unsafe fn prefetch(_at: *const u8) {}
    /// How many bits of two vectors are in `BOTH`, or differ. The row has `query.len()` readable bytes.
    #[inline(always)]
    unsafe fn ones<const BOTH: bool>(query: &[u8], row: *const u8) -> i32
    where
        Self: Sized,
    {
        // SAFETY: the caller's.
        unsafe { ones::<Self, BOTH>(query, row) }
    }
}

/// What is summed up over the elements of two vectors.
pub(super) trait Term {
    unsafe fn add<F: Floats>(sum: F, left: F, right: F) -> F;
    fn scalar(left: f32, right: f32) -> f32;
    unsafe fn add_bytes<C: Codes>(sum: C::Sum, left: *const i8, right: *const i8) -> C::Sum;
    fn scalar_bytes(left: i32, right: i32) -> i32;
}

/// Their product.
pub(super) struct Product;
/// The square of their difference.
pub(super) struct Square;
/// The square of the right one.
pub(super) struct Own;

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

    #[inline(always)]
    unsafe fn add_bytes<C: Codes>(sum: C::Sum, left: *const i8, right: *const i8) -> C::Sum {
        // SAFETY: the caller has the instruction set of `C` and the bytes.
        unsafe { C::add_signed(sum, left, right) }
    }

    #[inline(always)]
    fn scalar_bytes(left: i32, right: i32) -> i32 {
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

    #[inline(always)]
    unsafe fn add_bytes<C: Codes>(sum: C::Sum, left: *const i8, right: *const i8) -> C::Sum {
        // SAFETY: the caller has the instruction set of `C` and the bytes.
        unsafe { C::add_squares(sum, left, right) }
    }

    #[inline(always)]
    fn scalar_bytes(left: i32, right: i32) -> i32 {
        (left - right) * (left - right)
    }
}

impl Term for Own {
    #[inline(always)]
    unsafe fn add<F: Floats>(sum: F, _: F, right: F) -> F {
        // SAFETY: the caller has the instruction set of `F`.
        unsafe { right.mul_add(right, sum) }
    }

    #[inline(always)]
    fn scalar(_: f32, right: f32) -> f32 {
        right * right
    }

    #[inline(always)]
    unsafe fn add_bytes<C: Codes>(sum: C::Sum, _: *const i8, right: *const i8) -> C::Sum {
        // SAFETY: the caller has the instruction set of `C` and the bytes.
        unsafe { C::add_signed(sum, right, right) }
    }

    #[inline(always)]
    fn scalar_bytes(_: i32, right: i32) -> i32 {
        right * right
    }
}

/// How the numbers of rows are kept.
pub(super) trait Element {
    const BYTES: usize;
    /// `LANES` of them, at any address.
    unsafe fn load<F: Floats>(from: *const u8) -> F;
    unsafe fn value(from: *const u8) -> f32;
}

/// 32-bit floats.
pub(super) struct Single;
/// 16-bit floats.
pub(super) struct Half;
/// The upper halves of 32-bit floats.
pub(super) struct Brain;

impl Element for Single {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<F: Floats>(from: *const u8) -> F {
        // SAFETY: the caller has the instruction set of `F` and the numbers.
        unsafe { F::load(from.cast()) }
    }

    #[inline(always)]
    unsafe fn value(from: *const u8) -> f32 {
        // SAFETY: the caller has the number.
        unsafe { from.cast::<f32>().read_unaligned() }
    }
}

impl Element for Half {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<F: Floats>(from: *const u8) -> F {
        // SAFETY: the caller has the instruction set of `F` and the numbers.
        unsafe { F::load_f16(from) }
    }

    #[inline(always)]
    unsafe fn value(from: *const u8) -> f32 {
        // SAFETY: the caller has the number.
        widened(unsafe { from.cast::<[u8; 2]>().read() })
    }
}

impl Element for Brain {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<F: Floats>(from: *const u8) -> F {
        // SAFETY: the caller has the instruction set of `F` and the numbers.
        unsafe { F::load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn value(from: *const u8) -> f32 {
        // SAFETY: the caller has the number.
        f32::from_bits(u32::from(u16::from_le_bytes(unsafe { from.cast::<[u8; 2]>().read() })) << 16)
    }
}

/// A 16-bit float. Apart: a processor that has an instruction for it has it in [`Floats`].
#[inline(never)]
fn widened(bytes: [u8; 2]) -> f32 {
    let mut number = [0.0];
    widen_f16(&bytes, &mut number);
    number[0]
}

/// One number for each of four rows of `query.len()` floats, with two sums a row so that additions need not wait for each other. Where four
/// others are `AHEAD`, their lines are asked for on the way.
///
/// # Safety
/// The instruction set of `F` and `C`; every row has `query.len()` readable floats.
#[inline(always)]
unsafe fn four<F: Floats, C: Codes, T: Term, const AHEAD: bool>(
    query: &[f32],
    [a, b, c, d]: [*const f32; 4],
    ahead: [*const f32; 4],
) -> [f32; 4] {
    // SAFETY: `at + LANES` stays within `query.len()`, for the query and for the rows.
    unsafe {
        let (from, len) = (query.as_ptr(), query.len());
        let (mut a0, mut b0, mut c0, mut d0) = (F::zero(), F::zero(), F::zero(), F::zero());
        let (mut a1, mut b1, mut c1, mut d1) = (F::zero(), F::zero(), F::zero(), F::zero());
        let mut at = 0;
        while at + 2 * F::LANES <= len {
            let next = at + F::LANES;
            if AHEAD {
                let mut line = at;
                while line < at + 2 * F::LANES {
                    for row in ahead {
                        C::prefetch(row.wrapping_add(line).cast());
                    }
                    line += 16;
                }
            }
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
/// The instruction set of `F`; the row has `query.len()` readable numbers.
#[inline(always)]
unsafe fn one<F: Floats, T: Term, E: Element>(query: &[f32], row: *const u8) -> f32 {
    // SAFETY: `at + LANES` stays within `query.len()`, for the query and for the row.
    unsafe {
        let (from, len) = (query.as_ptr(), query.len());
        let (mut a, mut b, mut c, mut d) = (F::zero(), F::zero(), F::zero(), F::zero());
        let mut at = 0;
        while at + 4 * F::LANES <= len {
            a = T::add(a, F::load(from.add(at)), E::load(row.add(E::BYTES * at)));
            b = T::add(b, F::load(from.add(at + F::LANES)), E::load(row.add(E::BYTES * (at + F::LANES))));
            c = T::add(c, F::load(from.add(at + 2 * F::LANES)), E::load(row.add(E::BYTES * (at + 2 * F::LANES))));
            d = T::add(d, F::load(from.add(at + 3 * F::LANES)), E::load(row.add(E::BYTES * (at + 3 * F::LANES))));
            at += 4 * F::LANES;
        }
        while at + F::LANES <= len {
            a = T::add(a, F::load(from.add(at)), E::load(row.add(E::BYTES * at)));
            at += F::LANES;
        }
        let mut total = a.add(b).add(c).add(d).total();
        while at < len {
            total += T::scalar(*from.add(at), E::value(row.add(E::BYTES * at)));
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
    unsafe { one::<F, T, Single>(left, right.as_ptr().cast()) }
}

/// # Safety
/// The instruction set of `F` and `C`; `rows` holds `out.len()` rows of `query.len()`.
#[inline(always)]
pub(super) unsafe fn rows<F: Floats, C: Codes, T: Term>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    debug_assert_eq!(rows.len(), query.len() * out.len(), "checked by the caller");
    let (dim, mut row) = (query.len(), rows.as_ptr());
    let (fours, rest) = out.as_chunks_mut::<4>();
    // SAFETY: row `n` begins at `n * dim`, and there are `out.len()` rows.
    unsafe {
        for out in fours {
            let four_rows = [row, row.add(dim), row.add(2 * dim), row.add(3 * dim)];
            *out = four::<F, C, T, false>(query, four_rows, four_rows);
            row = row.add(4 * dim);
        }
        for out in rest {
            *out = one::<F, T, Single>(query, row.cast());
            row = row.add(dim);
        }
    }
}

/// # Safety
/// The instruction set of `F` and `C`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather<F: Floats, C: Codes, T: Term>(
    query: &[f32],
    data: &[f32],
    numbers: &[u32],
    out: &mut [f32],
) {
    debug_assert_eq!(numbers.len(), out.len(), "checked by the caller");
    let dim = query.len();
    check_rows(numbers, dim, data.len());
    let row = Rows { data: data.as_ptr(), width: dim };
    let (fours, rest) = out.as_chunks_mut::<4>();
    let (four_numbers, rest_numbers) = numbers.as_chunks::<4>();
    // SAFETY: every row was checked to lie within `data`.
    unsafe {
        let mut ahead = four_numbers.iter().skip(1);
        for (out, &[a, b, c, d]) in fours.iter_mut().zip(four_numbers) {
            let four_rows = [row.at(a), row.at(b), row.at(c), row.at(d)];
            *out = match ahead.next() {
                Some(&[a, b, c, d]) if C::AHEAD => {
                    four::<F, C, T, true>(query, four_rows, [row.at(a), row.at(b), row.at(c), row.at(d)])
                }
                _ => four::<F, C, T, false>(query, four_rows, four_rows),
            };
        }
        for (out, &number) in rest.iter_mut().zip(rest_numbers) {
            *out = one::<F, T, Single>(query, row.at(number).cast());
        }
    }
}

/// Rows of `width` elements, one after the other.
#[derive(Clone, Copy)]
pub(super) struct Rows<E> {
    pub(super) data: *const E,
    pub(super) width: usize,
}

impl<E> Rows<E> {
    /// Where a row begins; it must have been checked before anything there is read.
    #[inline(always)]
    pub(super) fn at(self, number: u32) -> *const E {
        self.data.wrapping_add(number as usize * self.width)
    }
}

impl Rows<u8> {
    /// Asks for the lines of some rows.
    ///
    /// # Safety
    /// The instruction set of `C`; the rows are readable.
    #[inline(always)]
    pub(super) unsafe fn prefetch<C: Codes>(self, numbers: &[u32]) {
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
        // Eight rows ahead, of short ones more: about as many lines as a core fetches at once, and what four rows take to compare hides
        // the rest.
        let first = if dim > 192 { 8 } else { 32 };
        row.prefetch::<C>(&numbers[..numbers.len().min(first)]);
        let mut ahead = numbers.get(first..).unwrap_or_default();
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

/// Each of some rows by itself, the next few on their way: `$value` of where it begins. A macro, because in a closure intrinsics would be
/// calls.
macro_rules! each_row {
    ($codes:ty, $width:expr, $data:expr, $numbers:expr, $out:expr, |$row:ident| $value:expr) => {
        debug_assert_eq!($numbers.len(), $out.len(), "checked by the caller");
        check_rows($numbers, $width, $data.len());
        let rows = Rows { data: $data.as_ptr(), width: $width };
        let mut ahead = $numbers.get(4..).unwrap_or_default();
        for (out, &number) in $out.iter_mut().zip($numbers) {
            if let [next, rest @ ..] = ahead {
                rows.prefetch::<$codes>(std::slice::from_ref(next));
                ahead = rest;
            }
            let $row = rows.at(number);
            *out = $value;
        }
    };
}

/// One number for each of some rows, whose numbers are kept as `E` says.
///
/// # Safety
/// The instruction set of `F` and `C`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather_kept<F: Floats, C: Codes, T: Term, E: Element>(
    query: &[f32],
    data: &[u8],
    numbers: &[u32],
    out: &mut [f32],
) {
    // SAFETY: rows are checked to lie within `data`, each with `query.len()` numbers.
    unsafe {
        each_row!(C, query.len() * E::BYTES, data, numbers, out, |row| one::<F, T, E>(query, row));
    }
}

/// One number for two vectors of bytes of any sign.
///
/// # Safety
/// The instruction set of `C`; the row has `query.len()` readable bytes.
#[inline(always)]
unsafe fn one_signed<C: Codes, T: Term>(query: &[i8], row: *const i8) -> i32 {
    // SAFETY: `at + SIGNED` stays within `query.len()`, for the query and for the row.
    unsafe {
        let (from, len) = (query.as_ptr(), query.len());
        let (mut sum, mut at) = (C::zero(), 0);
        while at + C::SIGNED <= len {
            sum = T::add_bytes::<C>(sum, from.add(at), row.add(at));
            at += C::SIGNED;
        }
        let mut total = C::total(sum);
        while at < len {
            total += T::scalar_bytes(i32::from(*from.add(at)), i32::from(*row.add(at)));
            at += 1;
        }
        total
    }
}

/// One number for each of some rows of bytes of any sign.
///
/// # Safety
/// The instruction set of `C`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather_signed<C: Codes, T: Term>(query: &[i8], data: &[u8], numbers: &[u32], out: &mut [i32]) {
    // SAFETY: rows are checked to lie within `data`, each with `query.len()` bytes.
    unsafe {
        each_row!(C, query.len(), data, numbers, out, |row| one_signed::<C, T>(query, row.cast()));
    }
}

/// How many bits of two vectors are in `BOTH`, or differ.
///
/// # Safety
/// The instruction set of `C`; the row has `query.len()` readable bytes.
#[inline(always)]
pub(super) unsafe fn ones<C: Codes, const BOTH: bool>(query: &[u8], row: *const u8) -> i32 {
    // SAFETY: `at + ONES` stays within `query.len()`, for the query and for the row.
    unsafe {
        let (from, len) = (query.as_ptr(), query.len());
        let (mut sum, mut at) = (C::zero(), 0);
        while at + C::ONES <= len {
            sum = C::add_ones::<BOTH>(sum, from.add(at), row.add(at));
            at += C::ONES;
        }
        let mut total = C::total(sum) as u32;
        while at + 8 <= len {
            let (left, right) =
                (from.add(at).cast::<u64>().read_unaligned(), row.add(at).cast::<u64>().read_unaligned());
            total += if BOTH { left & right } else { left ^ right }.count_ones();
            at += 8;
        }
        while at < len {
            let (left, right) = (*from.add(at), *row.add(at));
            total += if BOTH { left & right } else { left ^ right }.count_ones();
            at += 1;
        }
        total as i32
    }
}

/// How many bits of the query and each of four rows differ, and, for `JACCARD`, how many are in both.
///
/// # Safety
/// Every row has `query.len()` readable bytes.
#[inline(always)]
unsafe fn four_ones<const JACCARD: bool>(query: &[u8], rows: [*const u8; 4]) -> ([u32; 4], [u32; 4]) {
    let (mut differ, mut both) = ([0; 4], [0; 4]);
    let (words, rest) = query.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let left = u64::from_ne_bytes(*word);
        for ((row, differ), both) in rows.iter().zip(&mut differ).zip(&mut both) {
            // SAFETY: the word lies as far into the row as into the query.
            let right = unsafe { row.add(8 * at).cast::<u64>().read_unaligned() };
            *differ += (left ^ right).count_ones();
            if JACCARD {
                *both += (left & right).count_ones();
            }
        }
    }
    for (at, &left) in rest.iter().enumerate() {
        for ((row, differ), both) in rows.iter().zip(&mut differ).zip(&mut both) {
            // SAFETY: the byte lies as far into the row as into the query.
            let right = unsafe { *row.add(8 * words.len() + at) };
            *differ += (left ^ right).count_ones();
            if JACCARD {
                *both += (left & right).count_ones();
            }
        }
    }
    (differ, both)
}

/// See [`Kernels::bits_gather`](crate::distance::Kernels::bits_gather): Hamming's distances, or Jaccard's.
///
/// # Safety
/// The instruction set of `C`; `numbers` and `out` have the same length. Row numbers are checked here.
#[inline(always)]
pub(super) unsafe fn gather_ones<C: Codes, const JACCARD: bool>(
    query: &[u8],
    data: &[u8],
    numbers: &[u32],
    out: &mut [f32],
) {
    let fours = if query.len() < C::WORDS { numbers.len() / 4 * 4 } else { 0 };
    let (four_numbers, numbers) = numbers.split_at(fours);
    let (four_out, out) = out.split_at_mut(fours);
    check_rows(four_numbers, query.len(), data.len());
    let row = Rows { data: data.as_ptr(), width: query.len() };
    let mut ahead = four_numbers.get(8..).unwrap_or_default();
    for (out, &[a, b, c, d]) in four_out.as_chunks_mut::<4>().0.iter_mut().zip(four_numbers.as_chunks::<4>().0) {
        let (next, rest) = ahead.split_at(ahead.len().min(4));
        ahead = rest;
        // SAFETY: every row was checked to lie within `data`, with `query.len()` bytes.
        let (differ, both) = unsafe {
            row.prefetch::<C>(next);
            four_ones::<JACCARD>(query, [row.at(a), row.at(b), row.at(c), row.at(d)])
        };
        for ((out, differ), both) in out.iter_mut().zip(differ).zip(both) {
            *out = if JACCARD { jaccard_of(both, both + differ) } else { differ as f32 };
        }
    }
    // SAFETY: rows are checked to lie within `data`, each with `query.len()` bytes; `ones` reads no more.
    unsafe {
        each_row!(C, query.len(), data, numbers, out, |row| {
            let differ = C::ones::<false>(query, row) as u32;
            if JACCARD {
                let both = C::ones::<true>(query, row) as u32;
                jaccard_of(both, both + differ)
            } else {
                differ as f32
            }
        });
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
pub(super) fn check_rows(numbers: &[u32], dim: usize, len: usize) {
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

/// A function that enables an instruction set around what is inlined into it, as a pointer.
macro_rules! kernel {
    ($features:literal, |$($argument:ident: $of:ty),*| $(-> $result:ty)?, $call:expr) => {{
        #[target_feature(enable = $features)]
        unsafe fn kernel($($argument: $of),*) $(-> $result)? {
            // SAFETY: this function has the instruction set, `Kernels` checked the lengths.
            unsafe { $call }
        }
        // SAFETY: `available` hands this table out only where the processor has the instruction set.
        |$($argument: $of),*| unsafe { kernel($($argument),*) }
    }};
}
pub(super) use kernel;

/// Defines `KERNELS` of one instruction set: the loops above, inlined into functions that enable it.
macro_rules! kernels {
    ($isa:expr, $features:literal, $floats:ty, $codes:ty) => {
        pub(in crate::distance) static KERNELS: $crate::distance::Kernels = {
            use $crate::distance::arch::lanes::{self, Brain, Half, Own, Product, Square, kernel};

            macro_rules! gather {
                ($query:ty, $data:ty, $out:ty, $of:expr) => {
                    kernel!($features, |query: &[$query], data: &[$data], rows: &[u32], out: &mut [$out]|, $of(query, data, rows, out))
                };
            }
            $crate::distance::Kernels {
                isa: $isa,
                dot: kernel!($features, |left: &[f32], right: &[f32]| -> f32, lanes::pair::<$floats, Product>(left, right)),
                l2: kernel!($features, |left: &[f32], right: &[f32]| -> f32, lanes::pair::<$floats, Square>(left, right)),
                dot_rows: kernel!($features, |query: &[f32], rows: &[f32], out: &mut [f32]|, lanes::rows::<$floats, $codes, Product>(query, rows, out)),
                l2_rows: kernel!($features, |query: &[f32], rows: &[f32], out: &mut [f32]|, lanes::rows::<$floats, $codes, Square>(query, rows, out)),
                dot_gather: gather!(f32, f32, f32, lanes::gather::<$floats, $codes, Product>),
                l2_gather: gather!(f32, f32, f32, lanes::gather::<$floats, $codes, Square>),
                dot_codes_gather: gather!(i8, u8, i32, lanes::gather_codes::<$codes>),
                dot_bits_gather: gather!([u64; 4], u8, i32, lanes::gather_bits::<$codes>),
                lookup_blocks: kernel!($features, |tables: &[[u8; 16]], codes: &[u8], out: &mut [u16]|, lanes::lookup_blocks::<$codes>(tables, codes, out)),
                f16_gather: [
                    gather!(f32, u8, f32, lanes::gather_kept::<$floats, $codes, Product, Half>),
                    gather!(f32, u8, f32, lanes::gather_kept::<$floats, $codes, Square, Half>),
                    gather!(f32, u8, f32, lanes::gather_kept::<$floats, $codes, Own, Half>),
                ],
                bf16_gather: [
                    gather!(f32, u8, f32, lanes::gather_kept::<$floats, $codes, Product, Brain>),
                    gather!(f32, u8, f32, lanes::gather_kept::<$floats, $codes, Square, Brain>),
                    gather!(f32, u8, f32, lanes::gather_kept::<$floats, $codes, Own, Brain>),
                ],
                i8_gather: [
                    gather!(i8, u8, i32, lanes::gather_signed::<$codes, Product>),
                    gather!(i8, u8, i32, lanes::gather_signed::<$codes, Square>),
                    gather!(i8, u8, i32, lanes::gather_signed::<$codes, Own>),
                ],
                hamming_gather: gather!(u8, u8, f32, lanes::gather_ones::<$codes, false>),
                jaccard_gather: gather!(u8, u8, f32, lanes::gather_ones::<$codes, true>),
            }
        };
    };
}
pub(super) use kernels;
