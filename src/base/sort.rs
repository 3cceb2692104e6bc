use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Sorts stably, by little code: of the standard library's sort each type that is sorted has a copy of 12 kB in what a browser
/// downloads. Calls `compare` through a pointer, and needs 8 bytes an item besides: right for what is sorted once a call, not in loops.
///
/// Panics on more than `u32::MAX` items.
pub fn sort_by<T>(items: &mut [T], mut compare: impl FnMut(&T, &T) -> Ordering) {
    let mut order = order(items.len(), &mut |a, b| compare(&items[a as usize], &items[b as usize]));
    // Each cycle of the permutation is walked once: what is at its place points to itself.
    for start in 0..order.len() {
        let mut at = start;
        loop {
            let from = std::mem::replace(&mut order[at], at as u32) as usize;
            if from == start || from == at {
                break;
            }
            items.swap(at, from);
            at = from;
        }
    }
}

/// [`sort_by`] a key.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], mut key: impl FnMut(&T) -> K) {
    sort_by(items, |a, b| key(a).cmp(&key(b)));
}

/// Keeps the `count` least of `items`, in any order. Cost: as many comparisons as there are items, about twice.
pub fn keep_least<T>(items: &mut Vec<T>, count: usize, mut compare: impl FnMut(&T, &T) -> Ordering) {
    if count >= items.len() {
        return;
    }
    let mut kept = vec![false; items.len()];
    least(&mut kept, count, &mut |a, b| compare(&items[a as usize], &items[b as usize]));
    let mut kept = kept.into_iter();
    items.retain(|_| kept.next().expect("one for each item"));
}

/// Sets the `count` least.
fn least(kept: &mut [bool], count: usize, compare: &mut dyn FnMut(u32, u32) -> Ordering) {
    let mut order: Vec<u32> = numbers(kept.len());
    if count > 0 {
        order.select_nth_unstable_by(count - 1, |a, b| compare(*a, *b));
    }
    order[..count].iter().for_each(|&item| kept[item as usize] = true);
}

/// A map of `entries`, the last of those with the same key. (`collect` sorts them first, by a sort of its own for each type.)
pub fn map_of<K: Ord, V>(entries: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(entries);
    map
}

/// The numbers of items in their order.
fn order(len: usize, compare: &mut dyn FnMut(u32, u32) -> Ordering) -> Vec<u32> {
    let mut order = numbers(len);
    order.sort_by(|a, b| compare(*a, *b));
    order
}

fn numbers(len: usize) -> Vec<u32> {
    (0..u32::try_from(len).expect("less than 2^32 items are sorted")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_sort_of_the_standard_library(items in prop::collection::vec(0u8..20, 0..200)) {
            let mut expected: Vec<(u8, usize)> = items.into_iter().enumerate().map(|(at, item)| (item, at)).collect();
            let mut sorted = expected.clone();
            sort_by_key(&mut sorted, |(item, _)| *item);
            expected.sort_by_key(|(item, _)| *item);
            prop_assert_eq!(sorted, expected);
        }

        #[test]
        fn the_least_are_kept(mut items in prop::collection::vec(0u8..20, 0..200), count in 0usize..220) {
            let mut expected = items.clone();
            expected.sort_unstable();
            expected.truncate(count);
            keep_least(&mut items, count, Ord::cmp);
            items.sort_unstable();
            prop_assert_eq!(items, expected);
        }
    }
}
