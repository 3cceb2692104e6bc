//! Sums of floats in one fixed order on every target, for what goes into bytes: kernels of [`crate::distance`] add in the order that
//! their lanes choose. Written so that any compiler can use lanes; multiplications and additions are never fused.

/// The inner product, in eight interleaved sums.
pub(crate) fn dot(left: &[f32], right: &[f32]) -> f32 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks::<8>(), right.as_chunks::<8>());
    let (mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h) = (0f32, 0f32, 0f32, 0f32, 0f32, 0f32, 0f32, 0f32);
    // Each by its own name, so that none is in memory where the compiler unrolls nothing.
    for (l, r) in left.iter().zip(right) {
        a += l[0] * r[0];
        b += l[1] * r[1];
        c += l[2] * r[2];
        d += l[3] * r[3];
        e += l[4] * r[4];
        f += l[5] * r[5];
        g += l[6] * r[6];
        h += l[7] * r[7];
    }
    let mut sums = [a, b, c, d, e, f, g, h];
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
