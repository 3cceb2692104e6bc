/// Rows evaluated together: so few that what lies between two operators stays in the first-level cache, and so many that
/// the cost of visiting a node disappears (measured: no difference from 2,048 to 16,384 rows).
pub(super) const CHUNK_ROWS: usize = 4096;

/// True, false or unknown for each row of a chunk (Kleene's logic), as two bits a row. Bits past the last row are zero.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ternary {
    /// Rows for which it is true; a subset of `known`.
    pub(super) truth: Vec<u64>,
    /// Rows for which it is true or false.
    pub(super) known: Vec<u64>,
}

impl Ternary {
    /// `truth` where it is `known`.
    pub(super) fn new(mut truth: Vec<u64>, known: Vec<u64>) -> Self {
        truth.iter_mut().zip(&known).for_each(|(truth, known)| *truth &= known);
        Self { truth, known }
    }

    pub(super) fn not(mut self) -> Self {
        self.truth.iter_mut().zip(&self.known).for_each(|(truth, known)| *truth ^= known);
        self
    }

    /// False where either is false, true where both are.
    pub(super) fn and(&mut self, other: &Self) {
        for (((truth, known), other_truth), other_known) in
            self.truth.iter_mut().zip(&mut self.known).zip(&other.truth).zip(&other.known)
        {
            *known = (*known & other_known) | (*known & !*truth) | (other_known & !other_truth);
            *truth &= other_truth;
        }
    }

    /// True where either is true, false where both are.
    pub(super) fn or(&mut self, other: &Self) {
        for (((truth, known), other_truth), other_known) in
            self.truth.iter_mut().zip(&mut self.known).zip(&other.truth).zip(&other.known)
        {
            *known = (*known & other_known) | *truth | other_truth;
            *truth |= other_truth;
        }
    }

    /// True where both are true or both are false; unknown where either is.
    pub(super) fn same(&self, other: &Self) -> Self {
        let known: Vec<u64> = self.known.iter().zip(&other.known).map(|(left, right)| left & right).collect();
        Self::new(self.truth.iter().zip(&other.truth).map(|(left, right)| !(left ^ right)).collect(), known)
    }

    /// Rows of `active` that are not false (with `any`: not true), and so decide on what stands beside.
    pub(super) fn open(&self, active: &[u64], any: bool) -> Vec<u64> {
        let rows = active.iter().zip(&self.truth).zip(&self.known);
        rows.map(|((active, truth), known)| active & if any { !truth } else { truth | !known }).collect()
    }
}

/// A bit a row for `len` rows, all set.
pub(super) fn ones(len: usize) -> Vec<u64> {
    let mut words = vec![u64::MAX; len.div_ceil(64)];
    if !len.is_multiple_of(64)
        && let Some(last) = words.last_mut()
    {
        *last = (1 << (len % 64)) - 1;
    }
    words
}

/// The rows whose value passes `test`, as bits.
#[inline]
pub(super) fn pack<T: Copy>(values: &[T], test: impl Fn(T) -> bool) -> Vec<u64> {
    let mut words = Vec::with_capacity(values.len().div_ceil(64));
    let (chunks, rest) = values.as_chunks::<64>();
    // A byte a row first: compilers turn that loop into vector compares, and the packing into one multiplication a word.
    let mut flags = [0u8; 64];
    for chunk in chunks {
        for (flag, &value) in flags.iter_mut().zip(chunk) {
            *flag = u8::from(test(value));
        }
        words.push(pack_flags(&flags));
    }
    if !rest.is_empty() {
        flags = [0; 64];
        for (flag, &value) in flags.iter_mut().zip(rest) {
            *flag = u8::from(test(value));
        }
        words.push(pack_flags(&flags));
    }
    words
}

/// As [`pack`], for pairs.
#[inline]
pub(super) fn pack_pairs<T: Copy, U: Copy>(left: &[T], right: &[U], test: impl Fn(T, U) -> bool) -> Vec<u64> {
    let mut words = Vec::with_capacity(left.len().div_ceil(64));
    for (left, right) in left.chunks(64).zip(right.chunks(64)) {
        let mut flags = [0u8; 64];
        for ((flag, &left), &right) in flags.iter_mut().zip(left).zip(right) {
            *flag = u8::from(test(left, right));
        }
        words.push(pack_flags(&flags));
    }
    words
}

/// Eight 0-or-1 bytes become eight bits of the highest byte when multiplied so that none of the partial products carry.
#[inline]
fn pack_flags(flags: &[u8; 64]) -> u64 {
    let (groups, _) = flags.as_chunks::<8>();
    groups
        .iter()
        .rev()
        .fold(0, |word, group| word << 8 | u64::from_le_bytes(*group).wrapping_mul(0x0102_0408_1020_4080) >> 56)
}

/// The rows of `active` that pass `test`, one by one: for tests that cost more than the walk.
#[inline]
pub(super) fn pick(active: &[u64], mut test: impl FnMut(usize) -> bool) -> Vec<u64> {
    active
        .iter()
        .enumerate()
        .map(|(index, &word)| {
            let (mut rest, mut picked) = (word, 0);
            while rest != 0 {
                let bit = rest.trailing_zeros();
                picked |= u64::from(test(index * 64 + bit as usize)) << bit;
                rest &= rest - 1;
            }
            picked
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[Option<bool>]) -> Ternary {
        let bits = |wanted: &dyn Fn(&Option<bool>) -> bool| {
            pack(&(0..values.len()).collect::<Vec<_>>(), |row| wanted(&values[row]))
        };
        Ternary { truth: bits(&|value| *value == Some(true)), known: bits(&Option::is_some) }
    }

    fn kleene_and(left: Option<bool>, right: Option<bool>) -> Option<bool> {
        match (left, right) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        }
    }

    fn kleene_or(left: Option<bool>, right: Option<bool>) -> Option<bool> {
        kleene_and(left.map(|l| !l), right.map(|r| !r)).map(|both| !both)
    }

    proptest! {
        #[test]
        fn follows_kleene(rows in prop::collection::vec(any::<(Option<bool>, Option<bool>)>(), 0..200)) {
            let (l, r): (Vec<_>, Vec<_>) = rows.iter().copied().unzip();
            let by_row = |f: &dyn Fn(Option<bool>, Option<bool>) -> Option<bool>| {
                of(&rows.iter().map(|&(left, right)| f(left, right)).collect::<Vec<_>>())
            };
            let (left, right) = (of(&l), of(&r));
            let mut and = left.clone();
            and.and(&right);
            prop_assert_eq!(and, by_row(&kleene_and));
            let mut or = left.clone();
            or.or(&right);
            prop_assert_eq!(or, by_row(&kleene_or));
            prop_assert_eq!(left.same(&right), by_row(&|l, r| Some(l? == r?)));
            prop_assert_eq!(left.clone().not(), by_row(&|l, _| Some(!l?)));
            let all = ones(rows.len());
            prop_assert_eq!(pick(&left.open(&all, false), |_| true), pick(&all, |row| l[row] != Some(false)));
            prop_assert_eq!(left.open(&all, true), pick(&all, |row| l[row] != Some(true)));
        }

        #[test]
        fn packs_bits_in_order(values in prop::collection::vec(any::<i8>(), 0..300)) {
            let expected = pick(&ones(values.len()), |row| values[row] > 3);
            prop_assert_eq!(pack(&values, |value| value > 3), expected.clone());
            prop_assert_eq!(pack_pairs(&values, &vec![3i8; values.len()], |l, r| l > r), expected);
        }
    }
}
