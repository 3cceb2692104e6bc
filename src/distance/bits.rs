//! Distances of bits, eight a byte: the truth for the kernels.

/// Bits of `combine` of both sides.
fn count(left: &[u8], right: &[u8], combine: impl Fn(u64, u64) -> u64) -> u32 {
    let ((left, left_rest), (right, right_rest)) = (left.as_chunks(), right.as_chunks());
    let words =
        left.iter().zip(right).map(|(l, r)| combine(u64::from_le_bytes(*l), u64::from_le_bytes(*r)).count_ones());
    let rest = left_rest.iter().zip(right_rest).map(|(&l, &r)| combine(l.into(), r.into()).count_ones());
    words.sum::<u32>() + rest.sum::<u32>()
}

/// How many bits differ. Panics when the lengths do.
pub fn hamming(left: &[u8], right: &[u8]) -> f32 {
    assert_eq!(left.len(), right.len(), "vectors of different dimensions");
    count(left, right, |left, right| left ^ right) as f32
}

/// One minus the share of bits set in both among those set in any; 0 where no bit is set in either. Panics when the lengths
/// differ.
pub fn jaccard(left: &[u8], right: &[u8]) -> f32 {
    assert_eq!(left.len(), right.len(), "vectors of different dimensions");
    let any = count(left, right, |left, right| left | right);
    jaccard_of(count(left, right, |left, right| left & right), any)
}

/// The distance of two vectors of which so many bits are in both, and so many in any.
#[inline(always)]
pub(super) fn jaccard_of(both: u32, any: u32) -> f32 {
    if any == 0 { 0.0 } else { 1.0 - both as f32 / any as f32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_bits_are_alike() {
        assert_eq!((hamming(&[], &[]), jaccard(&[], &[])), (0.0, 0.0));
        assert_eq!((hamming(&[0; 9], &[0; 9]), jaccard(&[0; 9], &[0; 9])), (0.0, 0.0));
        assert_eq!((hamming(&[0; 9], &[255; 9]), jaccard(&[0; 9], &[255; 9])), (72.0, 1.0));
    }

    proptest! {
        /// Bit by bit; lengths around every boundary of a word.
        #[test]
        fn counts_every_bit(pairs in prop::collection::vec(any::<(u8, u8)>(), 0..40)) {
            let (left, right): (Vec<u8>, Vec<u8>) = pairs.into_iter().unzip();
            let (mut differ, mut both, mut any) = (0, 0, 0);
            for bit in 0..left.len() * 8 {
                let [l, r] = [&left, &right].map(|side| side[bit / 8] >> (bit % 8) & 1 == 1);
                differ += i32::from(l != r);
                both += i32::from(l && r);
                any += i32::from(l || r);
            }
            prop_assert_eq!(hamming(&left, &right), differ as f32);
            let truth = if any == 0 { 0.0 } else { 1.0 - f64::from(both) / f64::from(any) };
            // A quotient and a difference, each rounded once.
            prop_assert!((f64::from(jaccard(&left, &right)) - truth).abs() <= 1.2e-7);
        }
    }
}
