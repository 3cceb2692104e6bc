//! Exact search: every admitted row is compared. The truth for every other index.

use std::ops::Range;

use super::Vectors;
use crate::base::{Neighbor, RowMask, TopK};
use crate::distance::{Kernels, Metric, kernels};

/// Rows compared between two looks at the bound: their vectors still fit into the first-level cache when a second pass wants
/// their lengths.
const BLOCK: usize = 16;

/// The `k` rows of `rows` closest to `query`, closest first; of equal distances the lower row number. Only rows that `mask`
/// admits, when there is one; a row past its end is not admitted. Rows past the end of `vectors` do not exist.
///
/// Distances are the metric's (see [`Metric`]), in full precision. A NaN in either vector gives a NaN distance, which counts as
/// farther than everything. Panics when `query` has another dimension than `vectors`.
pub fn search(
    vectors: Vectors<'_>,
    rows: Range<u32>,
    metric: Metric,
    query: &[f32],
    k: usize,
    mask: Option<&RowMask>,
) -> Vec<Neighbor> {
    let mut measure = Measure::new(vectors, metric, query);
    let mut closest = TopK::new(k);
    let end = rows.end.min(vectors.len() as u32);
    if k == 0 || rows.start >= end {
        return Vec::new();
    }
    match mask {
        None => {
            for start in (rows.start..end).step_by(BLOCK) {
                let block = start..end.min(start + BLOCK as u32);
                let distances = measure.consecutive(block.clone());
                for (row, &distance) in block.zip(distances) {
                    closest.push(Neighbor { row, distance });
                }
            }
        }
        Some(mask) => {
            let mut admitted =
                mask.iter_from(rows.start as usize).take_while(|&row| row < end as usize).map(|row| row as u32);
            let mut block = Vec::with_capacity(BLOCK);
            loop {
                block.clear();
                block.extend(admitted.by_ref().take(BLOCK));
                if block.is_empty() {
                    break;
                }
                for (&row, &distance) in block.iter().zip(measure.gathered(&block)) {
                    closest.push(Neighbor { row, distance });
                }
            }
        }
    }
    closest.into_sorted()
}

/// The `k` of `rows` closest to `query`, as [`search`] says. Panics when a row does not exist.
pub fn among(vectors: Vectors<'_>, rows: &[u32], metric: Metric, query: &[f32], k: usize) -> Vec<Neighbor> {
    let mut closest = TopK::new(k);
    let mut measure = Measure::new(vectors, metric, query);
    for block in rows.chunks(BLOCK) {
        for (&row, &distance) in block.iter().zip(measure.gathered(block)) {
            closest.push(Neighbor { row, distance });
        }
    }
    closest.into_sorted()
}

/// Full-precision distances of one query to rows.
pub(super) struct Measure<'a> {
    kernels: &'static Kernels,
    vectors: Vectors<'a>,
    metric: Metric,
    query: &'a [f32],
    /// One over the length of the query, 0 for the zero vector; only for [`Metric::Cosine`].
    per_length: f32,
    distances: Vec<f32>,
}

impl<'a> Measure<'a> {
    pub(super) fn new(vectors: Vectors<'a>, metric: Metric, query: &'a [f32]) -> Self {
        assert_eq!(query.len(), vectors.dim, "a query of another dimension");
        let kernels = kernels();
        let per_length = if metric == Metric::Cosine { per_length(kernels.dot(query, query)) } else { 1.0 };
        Self { kernels, vectors, metric, query, per_length, distances: Vec::new() }
    }

    pub(super) fn consecutive(&mut self, rows: Range<u32>) -> &[f32] {
        let dim = self.vectors.dim;
        let data = &self.vectors.data[rows.start as usize * dim..rows.end as usize * dim];
        self.distances.resize(rows.len(), 0.0);
        match self.metric {
            Metric::L2 => self.kernels.l2_rows(self.query, data, &mut self.distances),
            _ => self.kernels.dot_rows(self.query, data, &mut self.distances),
        }
        self.finish(|index| rows.start + index as u32);
        &self.distances
    }

    /// The distances of `rows`, in their order.
    pub(super) fn gathered(&mut self, rows: &[u32]) -> &[f32] {
        self.distances.resize(rows.len(), 0.0);
        match self.metric {
            Metric::L2 => self.kernels.l2_gather(self.query, self.vectors.data, rows, &mut self.distances),
            _ => {
                self.kernels.dot_gather(self.query, self.vectors.data, rows, &mut self.distances);
            }
        }
        self.finish(|index| rows[index]);
        &self.distances
    }

    /// Turns products into distances; squared distances are.
    fn finish(&mut self, row_of: impl Fn(usize) -> u32) {
        match self.metric {
            Metric::L2 => {}
            Metric::Hamming | Metric::Jaccard => unreachable!("floats have no such metric"),
            Metric::Ip => self.distances.iter_mut().for_each(|product| *product = -*product),
            Metric::Cosine => {
                for (index, product) in self.distances.iter_mut().enumerate() {
                    let row = self.vectors.row(row_of(index));
                    let cosine = *product * self.per_length * per_length(self.kernels.dot(row, row));
                    *product = 1.0 - cosine;
                }
            }
        }
    }
}

pub(super) fn per_length(square: f32) -> f32 {
    if square > 0.0 { 1.0 / square.sqrt() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected(
        data: &[Vec<f32>],
        rows: Range<u32>,
        metric: Metric,
        query: &[f32],
        k: usize,
        mask: Option<&RowMask>,
    ) -> Vec<Neighbor> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let mut all: Vec<Neighbor> = rows
            .filter(|&row| (row as usize) < data.len() && mask.is_none_or(|mask| mask.contains(row as usize)))
            .map(|row| {
                let x = &data[row as usize];
                let distance = match metric {
                    Metric::Hamming | Metric::Jaccard => panic!("of bits"),
                    Metric::L2 => x.iter().zip(query).map(|(a, b)| (a - b) * (a - b)).sum(),
                    Metric::Ip => -dot(x, query),
                    Metric::Cosine if dot(x, x) == 0.0 || dot(query, query) == 0.0 => 1.0,
                    Metric::Cosine => 1.0 - dot(x, query) / (dot(x, x).sqrt() * dot(query, query).sqrt()),
                };
                Neighbor { row, distance }
            })
            .collect();
        all.sort();
        all.truncate(k);
        all
    }

    proptest! {
        #[test]
        fn equals_sorting_everything(
            data in prop::collection::vec(prop::collection::vec(-3i8..4, 5), 0..70),
            query in prop::collection::vec(-3i8..4, 5),
            metric in prop::sample::select(vec![Metric::L2, Metric::Ip, Metric::Cosine]),
            (start, end, k) in (0u32..80, 0u32..80, 0usize..80),
            mask in prop::option::of(prop::collection::vec(any::<bool>(), 0..80)),
        ) {
            let data: Vec<Vec<f32>> = data.into_iter().map(|row| row.into_iter().map(f32::from).collect()).collect();
            let query: Vec<f32> = query.into_iter().map(f32::from).collect();
            let mask: Option<RowMask> = mask.map(RowMask::from_iter);
            let flat: Vec<f32> = data.concat();
            let found = search(Vectors::new(&flat, 5), start..end, metric, &query, k, mask.as_ref());
            let expected = expected(&data, start..end, metric, &query, k, mask.as_ref());
            prop_assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                // Small integers: products and squared distances are exact. A cosine is rounded three times on each side.
                let tolerance = if metric == Metric::Cosine { 1e-6 } else { 0.0 };
                prop_assert!((found.distance - expected.distance).abs() <= tolerance, "{found:?} {expected:?}");
                prop_assert!(metric == Metric::Cosine || found.row == expected.row);
            }
        }
    }
}
