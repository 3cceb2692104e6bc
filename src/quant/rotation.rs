/// Times that signs are drawn and numbers are mixed.
const ROUNDS: usize = 4;

/// A rotation that spreads what a vector holds evenly over all its numbers, so that a bit of each tells about the same.
///
/// A random orthogonal matrix would take `dim²` steps a vector. Instead signs are flipped and a Walsh-Hadamard transform mixes as many
/// of the first numbers as the largest power of two that fits, then as many of the last ones, twice each: the two runs overlap, so
/// everything reaches everything (as the fast transform of Ailon and Chazelle, "The Fast Johnson-Lindenstrauss Transform", 2009, with
/// overlapping runs in place of padding to a power of two). All signs come from one fixed seed: the rotation of a number of dimensions
/// is the same everywhere.
#[derive(Debug, Clone)]
pub struct Rotation {
    dim: usize,
    /// One bit a number and round.
    signs: Vec<u64>,
}

impl Rotation {
    /// The rotation of vectors of `dim` dimensions.
    pub fn new(dim: usize) -> Self {
        let mut random = crate::base::Random::new(0x0ec0_de0f_5167_7357);
        let words = dim.div_ceil(64);
        Self { dim, signs: (0..words * ROUNDS).map(|_| random.next_u64()).collect() }
    }

    /// How many numbers a rotated vector has: `dim` rounded up to a multiple of 64.
    pub fn len(&self) -> usize {
        self.signs.len() / ROUNDS * 64
    }

    /// Whether it rotates nothing.
    pub fn is_empty(&self) -> bool {
        self.dim == 0
    }

    /// The rotated vector, with zeros added before: lengths and products stay what they were. Panics when it has another dimension.
    pub fn apply(&self, vector: &[f32], rotated: &mut Vec<f32>) {
        assert_eq!(vector.len(), self.dim, "a vector of another dimension");
        let len = self.len();
        rotated.clear();
        rotated.extend_from_slice(vector);
        rotated.resize(len, 0.0);
        if len == 0 {
            return;
        }
        let mixed = 1 << len.ilog2();
        let factor = 1.0 / (mixed as f32).sqrt();
        for (round, signs) in self.signs.chunks_exact(len / 64).enumerate() {
            for (numbers, &word) in rotated.as_chunks_mut::<64>().0.iter_mut().zip(signs) {
                for (at, number) in numbers.iter_mut().enumerate() {
                    *number = f32::from_bits(number.to_bits() ^ (((word >> at) as u32) << 31));
                }
            }
            let start = if round % 2 == 0 { 0 } else { len - mixed };
            let run = &mut rotated[start..start + mixed];
            mix(run);
            run.iter_mut().for_each(|number| *number *= factor);
        }
    }
}

/// The Walsh-Hadamard transform, without its factor.
fn mix(numbers: &mut [f32]) {
    let mut half = 1;
    while half < numbers.len() {
        for pair in numbers.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (left, right) in left.iter_mut().zip(right) {
                (*left, *right) = (*left + *right, *left - *right);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::super::sums::dot;
    use super::*;
    use crate::base::Random;

    #[test]
    fn lengths_and_products_stay() {
        let mut random = Random::new(1);
        for dim in [1, 2, 63, 64, 65, 100, 128, 192, 384, 700, 960, 1536] {
            let rotation = Rotation::new(dim);
            let mut vector = || -> Vec<f32> { (0..dim).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect() };
            let (left, right) = (vector(), vector());
            let (mut a, mut b) = (Vec::new(), Vec::new());
            rotation.apply(&left, &mut a);
            rotation.apply(&right, &mut b);
            assert_eq!(a.len(), rotation.len());
            let (before, after) = (dot(&left, &right), dot(&a, &b));
            let size = (dot(&left, &left) * dot(&right, &right)).sqrt();
            assert!((before - after).abs() <= 1e-5 * size, "{dim}: {before} {after}");
        }
    }

    /// One number is spread over all, none of which keeps much of it.
    #[test]
    fn spreads_what_there_is() {
        for dim in [128, 192, 384, 960, 1536] {
            let rotation = Rotation::new(dim);
            for at in [0, 1, dim / 2, dim - 1] {
                let mut vector = vec![0.0; dim];
                vector[at] = 1.0;
                let mut rotated = Vec::new();
                rotation.apply(&vector, &mut rotated);
                let largest = rotated.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                assert!(largest < 0.45, "{dim}, {at}: {largest}");
                let used = rotated.iter().filter(|x| x.abs() > 1e-6).count();
                assert!(used * 3 >= dim, "{dim}, {at}: {used}");
            }
        }
    }
}
