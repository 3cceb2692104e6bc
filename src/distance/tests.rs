//! Every instruction set against the truth. These tests run natively and in WebAssembly, there with and without simd128 and the relaxed
//! instructions.

#[cfg(browser)]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Lengths on both sides of every boundary: 4 to 64 lanes, and four times unrolled; and those of real embeddings.
fn lengths() -> impl Iterator<Item = usize> {
    let around = |lanes: usize| lanes.saturating_sub(1)..=lanes + 1;
    let boundaries = [0, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256];
    boundaries.into_iter().flat_map(around).chain([100, 300, 384, 768, 1000, 1536])
}

struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn float(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }

    fn code(&mut self) -> i8 {
        ((self.next() % 255) as i16 - 127) as i8
    }
}

/// The sum in double precision, and what a sum in single precision may be off by: each of the `n` terms is rounded once or
/// twice and then takes part in at most `n` rounded additions, so `(n + 2)` times half a unit in the last place of the sum of
/// the terms' sizes (Higham, "Accuracy and Stability of Numerical Algorithms", 3.1), plus what underflows.
fn exact(terms: impl Iterator<Item = f64>) -> (f64, f64) {
    let (mut n, mut sum, mut size) = (0.0, 0.0, 0.0);
    for term in terms {
        n += 1.0;
        sum += term;
        size += term.abs();
    }
    (sum, (n + 2.0) * (size * f64::from(f32::EPSILON) + f64::from(f32::MIN_POSITIVE)))
}

fn exact_dot(left: &[f32], right: &[f32]) -> (f64, f64) {
    exact(left.iter().zip(right).map(|(&a, &b)| f64::from(a) * f64::from(b)))
}

fn exact_l2(left: &[f32], right: &[f32]) -> (f64, f64) {
    exact(left.iter().zip(right).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)))
}

#[track_caller]
fn assert_near(found: f32, (expected, tolerance): (f64, f64), context: std::fmt::Arguments<'_>) {
    assert!((f64::from(found) - expected).abs() <= tolerance, "{context}: {found}, expected {expected} +- {tolerance}");
}

#[test]
fn floats_are_near_the_truth_at_every_length_and_start() {
    for kernels in Kernels::available() {
        let mut random = Seeded(1);
        for len in lengths() {
            for start in 0..4 {
                let isa = kernels.isa();
                // Starts at any multiple of four bytes, rows that follow each other without a gap.
                let query: Vec<f32> = (0..start + len).map(|_| random.float()).collect();
                let query = &query[start..];
                let rows = 11;
                let data: Vec<f32> = (0..start + rows * len).map(|_| random.float()).collect();
                let data = &data[start..];
                let row = |row: usize| &data[row * len..][..len];
                let numbers: Vec<u32> = (0..rows as u32).rev().chain([3, 3]).collect();
                let (mut dots, mut l2s) = (vec![f32::NAN; rows], vec![f32::NAN; rows]);
                kernels.dot_rows(query, data, &mut dots);
                kernels.l2_rows(query, data, &mut l2s);
                for n in 0..rows {
                    let (dot, l2) = (exact_dot(query, row(n)), exact_l2(query, row(n)));
                    assert_near(dots[n], dot, format_args!("{isa:?} dot_rows, length {len}, start {start}, row {n}"));
                    assert_near(l2s[n], l2, format_args!("{isa:?} l2_rows, length {len}, start {start}, row {n}"));
                    assert_near(kernels.dot(query, row(n)), dot, format_args!("{isa:?} dot, length {len}"));
                    assert_near(kernels.l2(query, row(n)), l2, format_args!("{isa:?} l2, length {len}"));
                }
                let (mut dots, mut l2s) = (vec![f32::NAN; numbers.len()], vec![f32::NAN; numbers.len()]);
                kernels.dot_gather(query, data, &numbers, &mut dots);
                kernels.l2_gather(query, data, &numbers, &mut l2s);
                for (at, &n) in numbers.iter().enumerate() {
                    let row = row(n as usize);
                    assert_near(dots[at], exact_dot(query, row), format_args!("{isa:?} dot_gather, length {len}"));
                    assert_near(l2s[at], exact_l2(query, row), format_args!("{isa:?} l2_gather, length {len}"));
                }
            }
        }
    }
}

/// A NaN or an infinity anywhere gives what it gives in plain arithmetic; tiny and huge numbers too.
#[test]
fn special_floats_are_not_lost_in_any_lane() {
    for kernels in Kernels::available() {
        for len in [1, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129] {
            for at in 0..len {
                let context = format!("{:?}, length {len}, element {at}", kernels.isa());
                let with = |value: f32| {
                    let mut vector = vec![0.5; len];
                    vector[at] = value;
                    vector
                };
                let ones = vec![1.0; len];
                let mut four = [0.0; 4];
                kernels.dot_rows(
                    &ones,
                    &[with(f32::NAN), ones.clone(), ones.clone(), with(f32::INFINITY)].concat(),
                    &mut four,
                );
                assert!(four[0].is_nan() && four[3] == f32::INFINITY, "{context}");
                assert_eq!(four[1], len as f32, "{context}: no neighbour's NaN");
                assert!(kernels.dot(&with(f32::NAN), &ones).is_nan(), "{context}");
                assert!(kernels.l2(&with(f32::NAN), &ones).is_nan(), "{context}");
                assert_eq!(kernels.dot(&with(f32::NEG_INFINITY), &ones), f32::NEG_INFINITY, "{context}");
                assert_eq!(kernels.l2(&with(f32::NEG_INFINITY), &ones), f32::INFINITY, "{context}");
                assert!(kernels.dot(&with(f32::INFINITY), &with(0.0)).is_nan(), "{context}: infinity times zero");
                assert!(kernels.l2(&with(f32::INFINITY), &with(f32::INFINITY)).is_nan(), "{context}");
                assert_eq!(kernels.l2(&with(f32::MAX), &with(f32::MIN)), f32::INFINITY, "{context}: overflow");
                let tiny = with(f32::from_bits(1));
                assert_near(kernels.dot(&tiny, &ones), exact_dot(&tiny, &ones), format_args!("{context}: subnormal"));
                assert_eq!(kernels.dot(&vec![-0.0; len], &ones), 0.0, "{context}");
            }
        }
    }
}

#[test]
fn codes_are_exact_at_every_length_and_start() {
    for kernels in Kernels::available() {
        let mut random = Seeded(2);
        for len in lengths().chain([32_768]) {
            for start in [0, 1, 2, 3, 7, 31, 63] {
                let context = format!("{:?}, length {len}, start {start}", kernels.isa());
                let rows = if len > 2_000 { 2 } else { 9 };
                let mut query: Vec<i8> = (0..start + len).map(|_| random.code()).collect();
                let mut data: Vec<u8> = (0..start + rows * len).map(|_| random.code().unsigned_abs()).collect();
                if start == 7 {
                    // The largest products that there are, of either sign.
                    data.fill(127);
                    query.iter_mut().enumerate().for_each(|(n, code)| *code = if n / 50 % 2 == 0 { 127 } else { -127 });
                }
                let (query, data) = (&query[start..], &data[start..]);
                let dot = |row: &[u8]| query.iter().zip(row).map(|(&a, &b)| i32::from(a) * i32::from(b)).sum::<i32>();
                for count in 0..=rows {
                    let numbers: Vec<u32> = (0..count as u32).map(|n| (n * 5 + 1) % rows as u32).collect();
                    let mut found = vec![i32::MIN; count];
                    kernels.dot_codes_gather(query, data, &numbers, &mut found);
                    let expected: Vec<i32> = numbers.iter().map(|&n| dot(&data[n as usize * len..][..len])).collect();
                    assert_eq!(found, expected, "{context}, {count} rows");
                }
            }
        }
    }
}

/// Every finite 16-bit float there is reads as it should, and sums of finite ones are near the truth, at every length and start.
#[test]
fn halves_are_near_the_truth_at_every_length_and_start() {
    let f16 = |bytes: [u8; 2]| half::f16::from_le_bytes(bytes).to_f64();
    let bf16 = |bytes: [u8; 2]| half::bf16::from_le_bytes(bytes).to_f64();
    type Widen = fn([u8; 2]) -> f64;
    let kinds: [(&str, Widen); 2] = [("f16", f16), ("bf16", bf16)];
    for kernels in Kernels::available() {
        for (kind, number) in kinds {
            let gather = if kind == "f16" { Kernels::f16_gather } else { Kernels::bf16_gather };
            // 16 of them a row, all but one made zero by the query.
            let all: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let numbers: Vec<u32> = (0..1 << 12).collect();
            let mut found = vec![0.0; numbers.len()];
            for at in [0, 5, 15] {
                let mut query = [0.0; 16];
                query[at] = 1.0;
                gather(kernels, Sum::Products, &query, &all, &numbers, &mut found);
                for (row, &found) in found.iter().enumerate() {
                    let row = &all[row * 32..][..32];
                    let truth = number([row[2 * at], row[2 * at + 1]]);
                    // No field holds others. Where one of the row is none, the sum is anything.
                    if row.as_chunks::<2>().0.iter().all(|&bytes| number(bytes).is_finite()) {
                        assert_eq!(f64::from(found), truth, "{:?} {kind}", kernels.isa());
                    }
                }
            }
            let mut random = Seeded(5);
            for len in lengths() {
                for start in [0, 1, 2, 3] {
                    let rows = 6;
                    let query: Vec<f32> = (0..len).map(|_| random.float()).collect();
                    let mut data = vec![0; start];
                    for _ in 0..rows * len {
                        let x = random.float() * 3.0;
                        let bytes = if kind == "f16" {
                            half::f16::from_f32(x).to_le_bytes()
                        } else {
                            half::bf16::from_f32(x).to_le_bytes()
                        };
                        data.extend(bytes);
                    }
                    let data = &data[start..];
                    let rows: Vec<u32> = [5, 0, 3, 3, 1, 2, 4].into();
                    for sum in [Sum::Products, Sum::Squares, Sum::Own] {
                        let mut found = vec![f32::NAN; rows.len()];
                        gather(kernels, sum, &query, data, &rows, &mut found);
                        for (&row, &found) in rows.iter().zip(&found) {
                            let row = &data[row as usize * len * 2..][..len * 2];
                            let pairs =
                                query.iter().zip(row.as_chunks::<2>().0).map(|(&x, &y)| (f64::from(x), number(y)));
                            let truth = exact(pairs.map(|(x, y)| match sum {
                                Sum::Products => x * y,
                                Sum::Squares => (x - y).powi(2),
                                Sum::Own => y * y,
                            }));
                            assert_near(found, truth, format_args!("{:?} {kind} {sum:?}, length {len}", kernels.isa()));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn signed_bytes_are_exact_at_every_length_and_start() {
    for kernels in Kernels::available() {
        let mut random = Seeded(6);
        for len in lengths().chain([32_768]) {
            for start in [0, 1, 7] {
                let rows = if len > 2_000 { 2 } else { 6 };
                let mut query: Vec<i8> = (0..len).map(|_| random.next() as i8).collect();
                let mut data: Vec<u8> = (0..start + rows * len).map(|_| random.next() as u8).collect();
                if start == 7 {
                    // The largest differences that there are.
                    query.fill(127);
                    data.fill(128);
                }
                let data = &data[start..];
                let numbers: Vec<u32> = (0..rows as u32).rev().chain([0, 0, 1]).collect();
                for sum in [Sum::Products, Sum::Squares, Sum::Own] {
                    let mut found = vec![i32::MIN; numbers.len()];
                    kernels.i8_gather(sum, &query, data, &numbers, &mut found);
                    for (&row, &found) in numbers.iter().zip(&found) {
                        let row = &data[row as usize * len..][..len];
                        let pairs = query.iter().zip(row).map(|(&x, &y)| (i32::from(x), i32::from(y as i8)));
                        let truth: i32 = pairs
                            .map(|(x, y)| match sum {
                                Sum::Products => x * y,
                                Sum::Squares => (x - y) * (x - y),
                                Sum::Own => y * y,
                            })
                            .sum();
                        assert_eq!(found, truth, "{:?} {sum:?}, length {len}, start {start}", kernels.isa());
                    }
                }
            }
        }
    }
}

#[test]
fn distances_of_bits_are_the_truth_at_every_length_and_start() {
    for kernels in Kernels::available() {
        let mut random = Seeded(7);
        for len in lengths() {
            for start in [0, 1, 7] {
                let query: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
                let mut data: Vec<u8> = (0..start + 6 * len).map(|_| random.next() as u8).collect();
                // A row of no bits, and one of all.
                data[start..start + len].fill(0);
                data[start + len..start + 2 * len].fill(255);
                let data = &data[start..];
                // Twice eight, and some that stand alone.
                let numbers = [5, 0, 1, 3, 3, 2, 4, 0, 1, 5, 2, 2, 0, 4, 3, 1, 0, 5, 4, 2, 1];
                for (metric, truth) in
                    [(Metric::Hamming, hamming as fn(&[u8], &[u8]) -> f32), (Metric::Jaccard, jaccard)]
                {
                    for query in [&query, &vec![0; len], &vec![255; len]] {
                        let mut found = [f32::NAN; 21];
                        kernels.bits_gather(metric, query, data, &numbers, &mut found);
                        let truth = numbers.map(|row| truth(query, &data[row as usize * len..][..len]));
                        assert_eq!(found, truth, "{:?} {metric:?}, length {len}, start {start}", kernels.isa());
                    }
                }
            }
        }
    }
}

#[test]
fn bits_are_exact_at_every_length_and_start() {
    for kernels in Kernels::available() {
        let mut random = Seeded(3);
        for words in (0..20).chain([63, 64, 65, 512]) {
            for start in [0, 1, 7] {
                let rows = 5;
                let mut word = || random.next() << 40 ^ random.next() << 20 ^ random.next();
                let mut query: Vec<[u64; 4]> = (0..words).map(|_| [word(), word(), word(), word()]).collect();
                let mut data: Vec<u8> = (0..start + rows * words * 8).map(|_| word() as u8).collect();
                if start == 7 {
                    // The least sum that there is.
                    query.fill([0, 0, 0, u64::MAX]);
                    data.fill(255);
                }
                let data = &data[start..];
                let number = |n: usize| {
                    let [one, two, four, eight] = query[n / 64].map(|plane| (plane >> (n % 64) & 1) as i32);
                    one + 2 * two + 4 * four - 8 * eight
                };
                let expected = |row: usize| -> i32 {
                    let row = &data[row * words * 8..][..words * 8];
                    (0..words * 64).map(|n| if row[n / 8] >> (n % 8) & 1 == 1 { number(n) } else { 0 }).sum()
                };
                let numbers: Vec<u32> = (0..rows as u32).rev().cycle().take(16).chain([2, 2, 4]).collect();
                let mut found = vec![i32::MIN; numbers.len()];
                kernels.dot_bits_gather(&query, data, &numbers, &mut found);
                let truth: Vec<i32> = numbers.iter().map(|&n| expected(n as usize)).collect();
                assert_eq!(found, truth, "{:?}, {words} words, start {start}", kernels.isa());
            }
        }
    }
}

#[test]
fn lookups_are_exact_for_any_number_of_tables() {
    for kernels in Kernels::available() {
        let mut random = Seeded(4);
        for tables in (0..12).chain([96, 97, 257]) {
            for (blocks, start) in [(0, 0), (1, 0), (3, 1), (2, 7)] {
                let table: Vec<[u8; 16]> = (0..tables)
                    .map(|_| std::array::from_fn(|_| if start == 7 { 255 } else { random.next() as u8 }))
                    .collect();
                let codes: Vec<u8> = (0..start + blocks * tables * 16).map(|_| random.next() as u8).collect();
                let codes = &codes[start..];
                let expected = |row: usize| -> u16 {
                    let code = |at: usize| codes[(row / 32 * tables + at) * 16 + row % 16] >> (row % 32 / 16 * 4) & 15;
                    (0..tables).map(|at| u16::from(table[at][usize::from(code(at))])).sum()
                };
                let mut found = vec![u16::MAX; blocks * 32];
                kernels.lookup_blocks(&table, codes, &mut found);
                let truth: Vec<u16> = (0..blocks * 32).map(expected).collect();
                assert_eq!(found, truth, "{:?}, {tables} tables, {blocks} blocks", kernels.isa());
            }
        }
    }
}

#[cfg(native)]
#[test]
fn a_row_outside_the_data_is_refused() {
    for kernels in Kernels::available() {
        let (data, codes) = ([0.0; 20], [0u8; 20]);
        for row in [2, 1 << 30, u32::MAX] {
            let outside = |check: &mut dyn FnMut()| {
                assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err(), "{:?}", kernels.isa());
            };
            outside(&mut || kernels.dot_gather(&[0.0; 9], &data, &[0, row], &mut [0.0; 2]));
            outside(&mut || kernels.l2_gather(&[0.0; 9], &data, &[row, 0], &mut [0.0; 2]));
            outside(&mut || kernels.dot_codes_gather(&[0; 9], &codes, &[row], &mut [0; 1]));
            outside(&mut || kernels.dot_bits_gather(&[[0; 4]], &codes, &[row], &mut [0; 1]));
            outside(&mut || kernels.f16_gather(Sum::Products, &[0.0; 5], &codes, &[row], &mut [0.0; 1]));
            outside(&mut || kernels.bf16_gather(Sum::Own, &[0.0; 5], &codes, &[row], &mut [0.0; 1]));
            outside(&mut || kernels.i8_gather(Sum::Squares, &[0; 9], &codes, &[row], &mut [0; 1]));
            outside(&mut || kernels.bits_gather(Metric::Hamming, &[0; 9], &codes, &[row], &mut [0.0; 1]));
            outside(&mut || kernels.bits_gather(Metric::Jaccard, &[0; 9], &codes, &[row], &mut [0.0; 1]));
        }
    }
}

#[test]
fn the_best_is_chosen_once() {
    assert_eq!(kernels().isa(), Kernels::available()[0].isa());
    assert_eq!(Kernels::available().last().map(|kernels| kernels.isa()), Some(Isa::Scalar));
    #[cfg(target_feature = "relaxed-simd")]
    assert_eq!(kernels().isa(), Isa::RelaxedSimd);
    #[cfg(all(target_feature = "simd128", not(target_feature = "relaxed-simd")))]
    assert_eq!(kernels().isa(), Isa::Simd128);
}
