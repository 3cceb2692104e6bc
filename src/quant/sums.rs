//! Sums of floats in one fixed order on every target, for what goes into bytes: kernels of [`crate::distance`] add in the order that
//! their lanes choose. Written so that any compiler can use lanes; multiplications and additions are never fused.

/// The inner product, in eight interleaved sums.
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let mut sums = [0f32; 8];
    for (left, right) in left.iter().zip(right) {
        for ((sum, l), r) in sums.iter_mut().zip(left).zip(right) {
            *sum += l * r;
        }
    }
    for ((sum, l), r) in sums.iter_mut().zip(left_rest).zip(right_rest) {
        *sum += l * r;
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// The largest size that a number is taken for: squares of as many as a vector has do not overflow.
const LARGEST: f32 = 1e16;

/// Copies numbers: NaN as 0, those too large to square as large ones.
pub(crate) fn tame(from: &[f32], to: &mut Vec<f32>) {
    to.clear();
    to.extend(from.iter().map(|&x| if x.is_nan() { 0.0 } else { x.clamp(-LARGEST, LARGEST) }));
}
