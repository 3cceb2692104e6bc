use super::sums::dot;
use super::{Query, Sq8};
use crate::distance::{Kernels, Metric};

/// From so many dimensions on, a vector is compared with the centroids' codes; below, with the centroids number by number.
const CODED_DIM_MIN: usize = 32;

/// Lloyd's k-means, by squared distance, one vector at a time: [`Self::nearest`] of each vector of a pass, [`Self::add`], then
/// [`Self::end_pass`].
///
/// What comes out follows from the first centroids and the vectors alone, on every target. Vectors of many dimensions are compared by
/// [`Sq8`] codes, whose products are exact integers and much faster; a vector at the border of two cells may so go to the wrong one,
/// which moves their centroids by less than where they are told apart.
#[derive(Debug, Clone)]
pub struct KMeans {
    dim: usize,
    centroids: Vec<f32>,
    codes: Sq8,
    /// The centroids by dimension, `[dim, k]`.
    columns: Vec<f32>,
    numbers: Vec<u32>,
    sums: Vec<f32>,
    counts: Vec<u32>,
}

/// Room to work in.
#[derive(Debug, Clone, Default)]
pub struct KMeansRoom {
    query: Query,
    products: Vec<i32>,
    distances: Vec<f32>,
}

impl KMeans {
    /// With these first centroids, `[k, dim]`. Panics when there is none.
    pub fn new(dim: usize, centroids: Vec<f32>) -> Self {
        assert!(dim > 0 && !centroids.is_empty() && centroids.len().is_multiple_of(dim), "whole centroids");
        let k = centroids.len() / dim;
        let mut means = Self {
            dim,
            codes: Sq8::new(dim, Metric::L2),
            columns: Vec::new(),
            numbers: (0..k as u32).collect(),
            sums: Vec::new(),
            counts: vec![0; k],
            centroids,
        };
        means.set();
        means
    }

    /// How many centroids there are.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The centroids, `[k, dim]`.
    pub fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// One centroid.
    pub fn centroid(&self, number: u32) -> &[f32] {
        &self.centroids[number as usize * self.dim..][..self.dim]
    }

    /// How many bytes are held.
    pub fn memory_bytes(&self) -> usize {
        (self.centroids.len() + self.columns.len() + self.sums.len()) * 4 + self.codes.memory_bytes() + self.len() * 8
    }

    fn set(&mut self) {
        if self.dim >= CODED_DIM_MIN {
            self.codes = Sq8::new(self.dim, Metric::L2);
            let mut query = Query::default();
            self.centroids.chunks_exact(self.dim).for_each(|centroid| self.codes.push(centroid, &mut query));
        } else {
            let k = self.len();
            self.columns.resize(self.centroids.len(), 0.0);
            for (number, centroid) in self.centroids.chunks_exact(self.dim).enumerate() {
                centroid.iter().enumerate().for_each(|(at, &x)| self.columns[at * k + number] = x);
            }
        }
    }

    /// The nearest centroid; of equally near ones the first. Panics when the vector has another dimension.
    pub fn nearest(&self, kernels: &Kernels, vector: &[f32], room: &mut KMeansRoom) -> u32 {
        assert_eq!(vector.len(), self.dim, "a vector of another dimension");
        let (mut nearest, mut least) = (0, f32::INFINITY);
        room.distances.clear();
        room.distances.resize(self.len(), 0.0);
        if self.dim >= CODED_DIM_MIN {
            self.codes.encode(vector, &mut room.query);
            self.codes.distances(kernels, &room.query, &self.numbers, &mut room.products, &mut room.distances);
        } else {
            for (&x, column) in vector.iter().zip(self.columns.chunks_exact(self.len())) {
                for (distance, &c) in room.distances.iter_mut().zip(column) {
                    *distance += (x - c) * (x - c);
                }
            }
        }
        for (number, &distance) in (0..).zip(&room.distances) {
            if distance < least {
                (nearest, least) = (number, distance);
            }
        }
        nearest
    }

    /// Counts a vector to a centroid.
    pub fn add(&mut self, nearest: u32, vector: &[f32]) {
        self.sums.resize(self.centroids.len(), 0.0);
        self.counts[nearest as usize] += 1;
        let sums = &mut self.sums[nearest as usize * self.dim..][..self.dim];
        sums.iter_mut().zip(vector).for_each(|(sum, &x)| *sum += x);
    }

    /// Moves every centroid to the mean of what was counted to it. One without anything takes half of the fullest one's place: both
    /// move a little apart.
    pub fn end_pass(&mut self) {
        if self.sums.is_empty() {
            return;
        }
        let dim = self.dim;
        for (number, &count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let range = number * dim..(number + 1) * dim;
            let per_count = 1.0 / count as f32;
            for (centroid, &sum) in self.centroids[range.clone()].iter_mut().zip(&self.sums[range]) {
                *centroid = sum * per_count;
            }
        }
        for empty in 0..self.len() {
            if self.counts[empty] > 0 {
                continue;
            }
            let fullest = (0..self.len()).max_by_key(|&number| (self.counts[number], std::cmp::Reverse(number)));
            let Some(fullest) = fullest.filter(|&number| self.counts[number] > 1) else { break };
            for at in 0..dim {
                let x = self.centroids[fullest * dim + at];
                let apart = if at % 2 == 0 { x * (1.0 / 1024.0) } else { x * (-1.0 / 1024.0) };
                self.centroids[empty * dim + at] = x + apart;
                self.centroids[fullest * dim + at] = x - apart;
            }
            self.counts[empty] = self.counts[fullest] / 2;
            self.counts[fullest] -= self.counts[empty];
        }
        self.sums = Vec::new();
        self.counts.fill(0);
        self.set();
    }

    /// The squared lengths of the centroids.
    pub fn squares(&self) -> Vec<f32> {
        self.centroids.chunks_exact(self.dim).map(|centroid| dot(centroid, centroid)).collect()
    }
}

/// `count` of `0..len`, evenly spread, or all.
pub fn spread(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(len);
    (0..count).map(move |n| (n as u64 * len as u64 / count as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;
    use crate::distance::Kernels;

    fn clustered(dim: usize, clusters: usize, rows: usize) -> Vec<f32> {
        let mut random = Random::new(9);
        let mut number = || random.below(2001) as f32 / 1000.0 - 1.0;
        let centers: Vec<f32> = (0..clusters * dim).map(|_| number()).collect();
        (0..rows * dim).map(|at| centers[at / dim % clusters * dim + at % dim] + 0.05 * number()).collect()
    }

    fn run(kernels: &Kernels, dim: usize, data: &[f32], first: Vec<f32>) -> KMeans {
        let mut means = KMeans::new(dim, first);
        let mut room = KMeansRoom::default();
        for _ in 0..8 {
            for vector in data.chunks_exact(dim) {
                let nearest = means.nearest(kernels, vector, &mut room);
                means.add(nearest, vector);
            }
            means.end_pass();
        }
        means
    }

    /// Every instruction set gives the same centroids, bit for bit, and every cluster gets one.
    #[test]
    fn finds_clusters_alike_everywhere() {
        for dim in [6, 40] {
            let data = clustered(dim, 12, 600);
            let first: Vec<f32> = spread(600, 24).flat_map(|row| data[row * dim..][..dim].to_vec()).collect();
            let all: Vec<KMeans> =
                Kernels::available().iter().map(|kernels| run(kernels, dim, &data, first.clone())).collect();
            for means in &all {
                assert_eq!(means.centroids(), all[0].centroids());
            }
            let mut room = KMeansRoom::default();
            let worst = data.chunks_exact(dim).map(|vector| {
                let nearest = all[0].nearest(Kernels::available()[0], vector, &mut room);
                let centroid = all[0].centroid(nearest);
                vector.iter().zip(centroid).map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
            });
            assert!(worst.fold(0f32, f32::max) < 0.02 * dim as f32, "{dim}");
        }
    }

    #[test]
    fn empty_cells_split_full_ones() {
        let dim = 3;
        let data = clustered(dim, 4, 400);
        // All start at the same place: all but one are empty at first.
        let first = data[..dim].repeat(8);
        let means = run(Kernels::available()[0], dim, &data, first);
        let mut counts = vec![0; 8];
        let mut room = KMeansRoom::default();
        for vector in data.chunks_exact(dim) {
            counts[means.nearest(Kernels::available()[0], vector, &mut room) as usize] += 1;
        }
        assert!(counts.iter().filter(|&&count| count > 0).count() >= 4, "{counts:?}");
        assert!(counts.iter().max() <= Some(&200), "{counts:?}");
    }

    #[test]
    fn rows_are_spread_evenly() {
        assert_eq!(spread(10, 5).collect::<Vec<_>>(), [0, 2, 4, 6, 8]);
        assert_eq!(spread(3, 5).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(0, 5).count(), 0);
    }
}
