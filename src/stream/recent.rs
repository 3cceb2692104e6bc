use std::collections::{BTreeMap, VecDeque};

use super::plan::Nearness;
use crate::distance::kernels;
use crate::query::compute::{Function, distance};

/// Beyond these, products of single precision overflow or vanish, and nothing is told from them.
const NORMS: std::ops::Range<f64> = 1e-12..1e12;

/// A row that nothing before it was near to.
struct Kept<N> {
    norm: f64,
    /// What stands for it.
    name: N,
}

/// Those of one key, by time, and their vectors one after the other.
struct Group<N> {
    kept: VecDeque<Kept<N>>,
    vectors: Vec<f32>,
    /// How many numbers of `vectors` are of rows that are not kept any more.
    gone: usize,
}

impl<N> Default for Group<N> {
    fn default() -> Self {
        Self { kept: VecDeque::new(), vectors: vec![], gone: 0 }
    }
}

impl<N> Group<N> {
    fn push(&mut self, kept: Kept<N>, vector: &[f32]) {
        self.kept.push_back(kept);
        self.vectors.extend_from_slice(vector);
    }

    fn pop(&mut self, dim: usize) {
        if self.kept.pop_front().is_some() {
            self.gone += dim;
        }
        // Each number is moved once for each that has gone, at most.
        if self.gone * 2 >= self.vectors.len() {
            self.vectors.drain(..self.gone);
            self.gone = 0;
        }
    }

    fn vectors(&self) -> &[f32] {
        &self.vectors[self.gone..]
    }
}

/// Rows of the last while with their vectors, and which of them is near to another.
///
/// It is exact: every row that is kept is compared with, of the same key. Vectors are compared in single precision first; those that may be near
/// enough, with room for what that may be wrong by, are compared in the order of their numbers in `f64`, which has the same bits on every
/// target.
pub(crate) struct Recent<N> {
    dim: usize,
    metric: Nearness,
    radius: f64,
    groups: BTreeMap<Box<[u8]>, Group<N>>,
    /// The time and the key of all that is kept, in the order in which they were pushed: by time.
    order: VecDeque<(i64, Box<[u8]>)>,
    found: Vec<f32>,
}

impl<N> Recent<N> {
    /// Of vectors of `dim` numbers, those no farther than `radius`.
    pub(crate) fn new(dim: usize, metric: Nearness, radius: f64) -> Self {
        Self { dim, metric, radius, groups: BTreeMap::new(), order: VecDeque::new(), found: vec![] }
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// About the bytes that all take.
    pub(crate) fn bytes(&self) -> usize {
        self.order.iter().map(|(_, key)| 2 * key.len() + 4 * self.dim + size_of::<Kept<N>>() + 32).sum()
    }

    /// Keeps a row, which is none earlier than the last.
    pub(crate) fn push(&mut self, time: i64, key: Box<[u8]>, name: N, vector: &[f32]) {
        let norm = distance(Function::InnerProduct, vector, vector).unwrap_or_default().sqrt();
        self.groups.entry(key.clone()).or_default().push(Kept { norm, name }, vector);
        self.order.push_back((time, key));
    }

    fn pop_first(&mut self) {
        let Some((_, key)) = self.order.pop_front() else { return };
        let Some(group) = self.groups.get_mut(&key) else { return };
        group.pop(self.dim);
        if group.kept.is_empty() {
            self.groups.remove(&key);
        }
    }

    /// Forgets the rows of before `time`; tells how many.
    pub(crate) fn forget(&mut self, time: i64) -> usize {
        let before = self.len();
        while self.order.front().is_some_and(|(kept, _)| *kept < time) {
            self.pop_first();
        }
        before - self.len()
    }

    /// What stands for the nearest row that is near enough, the first of equals, and how far it is.
    pub(crate) fn nearest(&mut self, key: &[u8], vector: &[f32]) -> Option<(&N, f64)> {
        let group = self.groups.get(key)?;
        let norm = distance(Function::InnerProduct, vector, vector).unwrap_or_default().sqrt();
        let vectors = group.vectors();
        self.found.clear();
        self.found.resize(group.kept.len(), 0.0);
        // What sums of single precision may be wrong by, for numbers that neither overflow nor vanish.
        let slack = (self.dim as f64 + 16.0) * f64::from(f32::EPSILON);
        let function = match self.metric {
            Nearness::Cosine => {
                kernels().dot_rows(vector, vectors, &mut self.found);
                Function::CosineDistance
            }
            Nearness::L2 => {
                kernels().l2_rows(vector, vectors, &mut self.found);
                Function::L2Distance
            }
        };
        let mut best: Option<(&N, f64)> = None;
        for (at, (kept, found)) in group.kept.iter().zip(&self.found).enumerate() {
            let found = f64::from(*found);
            let may_be = match self.metric {
                Nearness::Cosine => {
                    let is_safe = NORMS.contains(&norm) && NORMS.contains(&kept.norm);
                    !is_safe || 1.0 - found / (norm * kept.norm) <= self.radius + slack
                }
                Nearness::L2 => found <= self.radius * self.radius * (1.0 + 2.0 * slack),
            };
            // What is no number tells nothing.
            if !may_be && found.is_finite() {
                continue;
            }
            let other = &vectors[at * self.dim..(at + 1) * self.dim];
            let Some(distance) = distance(function, vector, other).filter(|distance| *distance <= self.radius) else {
                continue;
            };
            if best.is_none_or(|(_, least)| distance < least) {
                best = Some((&kept.name, distance));
            }
        }
        best
    }

    /// All that is kept, in order: the time, the key, what stands for it, and its vector.
    pub(crate) fn each(&self, mut visit: impl FnMut(i64, &[u8], &N, &[f32])) {
        let mut next: BTreeMap<&[u8], usize> = BTreeMap::new();
        for (time, key) in &self.order {
            let at = next.entry(key).or_default();
            let group = &self.groups[key];
            visit(*time, key, &group.kept[*at].name, &group.vectors()[*at * self.dim..(*at + 1) * self.dim]);
            *at += 1;
        }
    }
}

/// What push streams ask.
#[cfg(feature = "streams")]
impl<N> Recent<N> {
    /// The time of the latest row.
    pub(crate) fn latest(&self) -> Option<i64> {
        self.order.back().map(|(time, _)| *time)
    }

    /// Forgets the first rows until no more than `count` are left; tells how many.
    pub(crate) fn forget_beyond(&mut self, count: usize) -> usize {
        let before = self.len();
        while self.len() > count {
            self.pop_first();
        }
        before - self.len()
    }

    /// Takes back what was pushed after the first `count`.
    pub(crate) fn take_back(&mut self, count: usize) {
        while self.len() > count {
            let Some((_, key)) = self.order.pop_back() else { return };
            let Some(group) = self.groups.get_mut(&key) else { continue };
            group.kept.pop_back();
            group.vectors.truncate(group.vectors.len() - self.dim);
            if group.kept.is_empty() {
                self.groups.remove(&key);
            }
        }
    }
}
