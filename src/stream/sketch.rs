use super::rows::{Cell, Scalar};
use super::state::{Reader, Writer};
use crate::base::{Error, Result};

/// So many values are kept as they are: up to there a quantile is exact, and in whatever order they came the same.
const EXACT_MAX: usize = 512;
/// The compression of the digest: about as many centroids.
const COMPRESSION: f64 = 200.0;

/// Quantiles of a stream: Dunning's t-digest, by merging, with the bound `4 n q (1 - q) / compression` on what a centroid weighs, which
/// needs neither sine nor logarithm.
///
/// Source: Dunning, Ertl, "Computing Extremely Accurate Quantiles Using t-Digests" (2019).
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Digest {
    /// By ascending mean: mean and weight.
    centroids: Vec<(f64, f64)>,
    buffer: Vec<f64>,
    least: f64,
    greatest: f64,
}

impl Digest {
    pub fn add(&mut self, value: f64) {
        if self.centroids.is_empty() && self.buffer.is_empty() {
            (self.least, self.greatest) = (value, value);
        }
        (self.least, self.greatest) = (self.least.min(value), self.greatest.max(value));
        self.buffer.push(value);
        if self.buffer.len() >= EXACT_MAX * 2 {
            self.compress();
        }
    }

    pub fn merge(&mut self, other: &Self) {
        if other.centroids.is_empty() {
            other.buffer.iter().for_each(|value| self.add(*value));
            return;
        }
        let empty = self.centroids.is_empty() && self.buffer.is_empty();
        (self.least, self.greatest) = match empty {
            true => (other.least, other.greatest),
            false => (self.least.min(other.least), self.greatest.max(other.greatest)),
        };
        self.centroids.extend_from_slice(&other.centroids);
        self.buffer.extend_from_slice(&other.buffer);
        self.compress();
    }

    fn compress(&mut self) {
        let mut all = std::mem::take(&mut self.centroids);
        all.extend(self.buffer.drain(..).map(|value| (value, 1.0)));
        all.sort_by(|left, right| left.0.total_cmp(&right.0));
        let total: f64 = all.iter().map(|centroid| centroid.1).sum();
        let mut before = 0.0;
        for (mean, weight) in all {
            if let Some(last) = self.centroids.last_mut() {
                let middle = (before + (last.1 + weight) / 2.0) / total;
                if last.1 + weight <= (4.0 * total * middle * (1.0 - middle) / COMPRESSION).max(1.0) {
                    last.1 += weight;
                    last.0 += (mean - last.0) * weight / last.1;
                    continue;
                }
                before += last.1;
            }
            self.centroids.push((mean, weight));
        }
    }

    /// The value below which that share of all lie; `None` of none. Between two values of those kept as they are, in proportion.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        if self.centroids.is_empty() {
            let mut values = self.buffer.clone();
            values.sort_by(f64::total_cmp);
            let last = values.len().checked_sub(1)?;
            let place = share * last as f64;
            let below = place.floor();
            let (low, high) = (values[below as usize], values[(below as usize + 1).min(last)]);
            return Some(low + (high - low) * (place - below));
        }
        let mut whole = self.clone();
        whole.compress();
        let total: f64 = whole.centroids.iter().map(|centroid| centroid.1).sum();
        let wanted = share * total;
        let (mut before, mut last) = (0.0, (self.least, 0.0));
        for (mean, weight) in whole.centroids {
            let middle = before + weight / 2.0;
            if wanted < middle {
                let (from, at) = last;
                return Some(from + (mean - from) * (wanted - at) / (middle - at));
            }
            last = (mean, middle);
            before += weight;
        }
        let (from, at) = last;
        Some(if total > at { from + (self.greatest - from) * (wanted - at) / (total - at) } else { self.greatest })
    }

    pub fn save(&self, out: &mut Writer) {
        out.f64(self.least);
        out.f64(self.greatest);
        out.len(self.centroids.len());
        for (mean, weight) in &self.centroids {
            out.f64(*mean);
            out.f64(*weight);
        }
        out.len(self.buffer.len());
        self.buffer.iter().for_each(|value| out.f64(*value));
    }

    pub fn load(reader: &mut Reader<'_>) -> Result<Self> {
        let (least, greatest) = (reader.f64()?, reader.f64()?);
        let count = reader.count(16)?;
        let centroids = (0..count).map(|_| Ok((reader.f64()?, reader.f64()?))).collect::<Result<_>>()?;
        let count = reader.count(8)?;
        let buffer = (0..count).map(|_| reader.f64()).collect::<Result<_>>()?;
        Ok(Self { centroids, buffer, least, greatest })
    }

    pub fn bytes(&self) -> usize {
        self.centroids.len() * 16 + self.buffer.len() * 8
    }
}

/// Registers as bits of the hash: the standard error is 1.04 / 2^7.
const BITS: u32 = 14;
/// So many hashes are kept as they are: up to there the count is exact, but for two values of one hash.
const HASHES_MAX: usize = 1_024;

/// How many different values, about.
///
/// Source: Flajolet et al., "HyperLogLog" (2007), with Ertl's estimator, "New cardinality estimation algorithms for HyperLogLog sketches"
/// (2017), section 4, whose two functions are sums and need no logarithm.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Distinct {
    /// Ascending.
    Hashes(Vec<u64>),
    Registers(Box<[u8]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Hashes(vec![])
    }
}

pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0x9e37_79b9_7f4a_7c15u64 ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = mix(hash ^ u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = mix(hash ^ u64::from_le_bytes(last));
    }
    mix(hash)
}

/// SplitMix64's finish.
#[inline]
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

impl Distinct {
    pub fn add(&mut self, hash: u64) {
        match self {
            Self::Hashes(hashes) => {
                if let Err(at) = hashes.binary_search(&hash) {
                    hashes.insert(at, hash);
                    if hashes.len() > HASHES_MAX {
                        let mut dense = Self::Registers(vec![0; 1 << BITS].into());
                        hashes.iter().for_each(|hash| dense.add(*hash));
                        *self = dense;
                    }
                }
            }
            Self::Registers(registers) => {
                let register = &mut registers[(hash >> (64 - BITS)) as usize];
                let rank = (hash << BITS).leading_zeros().min(64 - BITS) as u8 + 1;
                *register = rank.max(*register);
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        match other {
            Self::Hashes(hashes) => hashes.iter().for_each(|hash| self.add(*hash)),
            Self::Registers(theirs) => {
                if let Self::Hashes(hashes) = self {
                    let mut dense = other.clone();
                    hashes.iter().for_each(|hash| dense.add(*hash));
                    *self = dense;
                } else if let Self::Registers(ours) = self {
                    ours.iter_mut().zip(theirs).for_each(|(our, their)| *our = (*our).max(*their));
                }
            }
        }
    }

    pub fn count(&self) -> i64 {
        let registers = match self {
            Self::Hashes(hashes) => return hashes.len() as i64,
            Self::Registers(registers) => registers,
        };
        const RANKS: usize = (64 - BITS) as usize + 2;
        let mut counts = [0u32; RANKS];
        registers.iter().for_each(|rank| counts[usize::from(*rank).min(RANKS - 1)] += 1);
        let size = registers.len() as f64;
        let mut sum = size * tau(1.0 - f64::from(counts[RANKS - 1]) / size);
        for rank in (1..RANKS - 1).rev() {
            sum = (sum + f64::from(counts[rank])) * 0.5;
        }
        sum += size * sigma(f64::from(counts[0]) / size);
        // 1 / (2 ln 2)
        (0.721_347_520_444_481_7 * size * size / sum).round() as i64
    }

    pub fn save(&self, out: &mut Writer) {
        match self {
            Self::Hashes(hashes) => {
                out.u8(0);
                out.len(hashes.len());
                hashes.iter().for_each(|hash| out.i64(*hash as i64));
            }
            Self::Registers(registers) => {
                out.u8(1);
                out.0.extend_from_slice(registers);
            }
        }
    }

    pub fn load(reader: &mut Reader<'_>) -> Result<Self> {
        match reader.u8()? {
            0 => {
                let count = reader.count(8)?;
                let hashes = (0..count).map(|_| reader.i64().map(|hash| hash as u64)).collect::<Result<Vec<_>>>()?;
                if !hashes.is_sorted() {
                    return Err(Error::corrupt("hashes out of order"));
                }
                Ok(Self::Hashes(hashes))
            }
            1 => Ok(Self::Registers(reader.take(1 << BITS)?.into())),
            other => Err(Error::corrupt(format!("a sketch of kind {other}"))),
        }
    }

    pub fn bytes(&self) -> usize {
        match self {
            Self::Hashes(hashes) => hashes.len() * 8,
            Self::Registers(registers) => registers.len(),
        }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * y;
        y += y;
        if sum == before {
            return sum;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        y *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * y;
        if sum == before {
            return sum / 3.0;
        }
    }
}

/// The hash of a value.
pub(super) fn hash_cell(cell: Cell<'_>, scratch: &mut Writer) -> u64 {
    scratch.0.clear();
    cell.write(scratch);
    hash(&scratch.0)
}

/// The same of one that is kept.
pub(super) fn key_of(scalar: &Scalar) -> Box<[u8]> {
    let mut out = Writer::default();
    scalar.cell().write(&mut out);
    out.0.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_have_exact_quantiles() {
        let mut digest = Digest::default();
        [5.0, 1.0, 3.0, 2.0, 4.0].iter().for_each(|value| digest.add(*value));
        let quantiles = [0.0, 0.25, 0.5, 0.9, 1.0].map(|share| digest.quantile(share).unwrap());
        assert_eq!(quantiles, [1.0, 2.0, 3.0, 4.6, 5.0]);
        assert_eq!(Digest::default().quantile(0.5), None);
    }

    #[test]
    fn quantiles_of_many_values_are_near() {
        let mut random = crate::base::Random::new(7);
        let mut halves = [Digest::default(), Digest::default()];
        let mut values: Vec<f64> = (0..100_000).map(|_| random.below(1_000_000) as f64).collect();
        values.iter().enumerate().for_each(|(at, value)| halves[at % 2].add(*value));
        let [mut digest, other] = halves;
        digest.merge(&other);
        values.sort_by(f64::total_cmp);
        for share in [0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999] {
            let found = digest.quantile(share).unwrap();
            let place = values.partition_point(|value| *value < found) as f64 / values.len() as f64;
            // A centroid there weighs at most 4 q (1 - q) / 200 of all.
            assert!((place - share).abs() <= 0.02 * share.max(0.005).sqrt(), "{share}: {place}");
        }
        assert!(digest.bytes() < 32_768, "{}", digest.bytes());
    }

    #[test]
    fn distinct_values_are_counted_about() {
        for count in [0u64, 1, 1_000, 5_000, 100_000, 1_000_000] {
            let mut parts = [Distinct::default(), Distinct::default()];
            for value in 0..count {
                let bytes = value.to_le_bytes();
                parts[(value % 2) as usize].add(hash(&bytes));
                parts[0].add(hash(&bytes));
            }
            let [mut whole, other] = parts;
            whole.merge(&other);
            let error = (whole.count() - count as i64).abs() as f64 / count.max(1) as f64;
            assert!(if count <= 1_000 { error == 0.0 } else { error < 0.03 }, "{count}: {}", whole.count());
        }
    }
}
