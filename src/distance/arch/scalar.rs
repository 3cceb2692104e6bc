//! The truth: plain loops, in the order of the elements.

use super::super::bits::{hamming, jaccard};
use super::super::{Isa, Kernels};
use crate::base::codec::widen_f16;

pub(in super::super) static KERNELS: Kernels = Kernels {
    isa: Isa::Scalar,
    dot,
    l2,
    dot_rows: |query, rows, out| each_row(query, rows, out, dot),
    l2_rows: |query, rows, out| each_row(query, rows, out, l2),
    dot_gather: |query, data, rows, out| gather(query, data, rows, out, dot),
    l2_gather: |query, data, rows, out| gather(query, data, rows, out, l2),
    dot_codes_gather: |query, data, rows, out| gather(query, data, rows, out, dot_codes),
    lookup_blocks: |tables, codes, out| {
        for (at, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
            lookup_block(tables, &codes[at * tables.len() * 16..][..tables.len() * 16], out);
        }
    },
    f16_gather: [
        |query, data, rows, out| wide(query, data, rows, out, f16, dot),
        |query, data, rows, out| wide(query, data, rows, out, f16, l2),
        |query, data, rows, out| wide(query, data, rows, out, f16, |_, row| dot(row, row)),
    ],
    bf16_gather: [
        |query, data, rows, out| wide(query, data, rows, out, bf16, dot),
        |query, data, rows, out| wide(query, data, rows, out, bf16, l2),
        |query, data, rows, out| wide(query, data, rows, out, bf16, |_, row| dot(row, row)),
    ],
    i8_gather: [
        |query, data, rows, out| bytes(query, data, rows, out, |left, right| left * right),
        |query, data, rows, out| bytes(query, data, rows, out, |left, right| (left - right) * (left - right)),
        |query, data, rows, out| bytes(query, data, rows, out, |_, right| right * right),
    ],
    hamming_gather: |query, data, rows, out| gather(query, data, rows, out, hamming),
    jaccard_gather: |query, data, rows, out| gather(query, data, rows, out, jaccard),
    dot_bits_gather: |query, data, rows, out| {
        for (out, &row) in out.iter_mut().zip(rows) {
            *out = dot_bits(query, &data[row as usize * query.len() * 8..][..query.len() * 8]);
        }
    },
};

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(a, b)| a * b).sum()
}

fn l2(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn dot_codes(query: &[i8], row: &[u8]) -> i32 {
    query.iter().zip(row).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
}

fn lookup_block(tables: &[[u8; 16]], codes: &[u8], out: &mut [u16; 32]) {
    out.fill(0);
    for (table, codes) in tables.iter().zip(codes.as_chunks::<16>().0) {
        for (row, &code) in codes.iter().enumerate() {
            out[row] = out[row].wrapping_add(table[usize::from(code & 15)].into());
            out[row + 16] = out[row + 16].wrapping_add(table[usize::from(code >> 4)].into());
        }
    }
}

fn f16(bytes: &[u8; 2]) -> f32 {
    let mut number = [0.0];
    widen_f16(bytes, &mut number);
    number[0]
}

fn bf16(bytes: &[u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16)
}

/// Rows of numbers of two bytes.
fn wide(
    query: &[f32],
    data: &[u8],
    rows: &[u32],
    out: &mut [f32],
    number: fn(&[u8; 2]) -> f32,
    kernel: fn(&[f32], &[f32]) -> f32,
) {
    let mut wide = Vec::with_capacity(query.len());
    for (out, &row) in out.iter_mut().zip(rows) {
        let row = &data[row as usize * query.len() * 2..][..query.len() * 2];
        wide.clear();
        wide.extend(row.as_chunks().0.iter().map(number));
        *out = kernel(query, &wide);
    }
}

/// Rows of signed bytes.
fn bytes(query: &[i8], data: &[u8], rows: &[u32], out: &mut [i32], term: fn(i32, i32) -> i32) {
    gather(query, data, rows, out, |query, row| {
        query.iter().zip(row).map(|(&left, &right)| term(left.into(), (right as i8).into())).sum()
    });
}

fn dot_bits(query: &[[u64; 4]], row: &[u8]) -> i32 {
    let number = |n: usize| {
        let [one, two, four, eight] = query[n / 64].map(|plane| (plane >> (n % 64) & 1) as i32);
        one + 2 * two + 4 * four - 8 * eight
    };
    (0..row.len() * 8).filter(|n| row[n / 8] >> (n % 8) & 1 == 1).map(number).sum()
}

fn each_row<T>(query: &[f32], rows: &[f32], out: &mut [T], kernel: impl Fn(&[f32], &[f32]) -> T) {
    // `max(1)`: without dimensions every row is the same empty slice, and there is nothing to cut.
    let rows = rows.chunks_exact(query.len().max(1)).chain(std::iter::repeat(&[][..]));
    for (out, row) in out.iter_mut().zip(rows) {
        *out = kernel(query, row);
    }
}

fn gather<Q, T, R>(query: &[Q], data: &[T], rows: &[u32], out: &mut [R], kernel: impl Fn(&[Q], &[T]) -> R) {
    for (out, &row) in out.iter_mut().zip(rows) {
        *out = kernel(query, &data[row as usize * query.len()..][..query.len()]);
    }
}
