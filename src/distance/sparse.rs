/// The inner product of two sparse vectors, each by ascending index: the indexes that both have. `right` is any iterator, so that
/// it can be read from where it is kept. Summed in 64 bits, in order, so that every target gives the same number.
/// `None` when there is none.
pub fn dot_sparse(left: &[(u32, f32)], right: impl IntoIterator<Item = (u32, f32)>) -> Option<f32> {
    let (mut rest, mut sum, mut meet) = (left, 0.0, false);
    for (index, value) in right {
        while let Some(&(own, weight)) = rest.first()
            && own <= index
        {
            if own == index {
                meet = true;
                sum += f64::from(weight) * f64::from(value);
            }
            rest = &rest[1..];
        }
    }
    meet.then_some(sum as f32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_the_dense_product(
            left in prop::collection::btree_map(0u32..60, -9f32..9.0, 0..30),
            right in prop::collection::btree_map(0u32..60, -9f32..9.0, 0..30),
        ) {
            let pairs = |map: &BTreeMap<u32, f32>| map.iter().map(|(&index, &value)| (index, value)).collect::<Vec<_>>();
            let dense = |map: &BTreeMap<u32, f32>, index| f64::from(map.get(&index).copied().unwrap_or(0.0));
            let truth: f64 = (0..60).map(|index| dense(&left, index) * dense(&right, index)).sum();
            // Only the result is rounded.
            let found = dot_sparse(&pairs(&left), pairs(&right));
            prop_assert_eq!(found.unwrap_or(0.0), truth as f32);
            prop_assert_eq!(found.is_some(), left.keys().any(|index| right.contains_key(index)));
        }
    }
}
