//! The truth: plain loops, in the order of the elements.

use super::super::{Isa, Kernels};

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
