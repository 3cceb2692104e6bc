/// A set of row numbers of one segment, as a bit per row.
///
/// Shape: `len` rows, bit `row` of word `row / 64`; bits past `len` are always zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowMask {
    words: Vec<u64>,
    len: usize,
}

impl RowMask {
    /// No row of `len`.
    pub fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)], len }
    }

    /// Every row of `len`.
    pub fn all(len: usize) -> Self {
        let mut mask = Self { words: vec![u64::MAX; len.div_ceil(64)], len };
        mask.clear_tail();
        mask
    }

    /// The rows whose bit is set in `words`, lowest rows first. Bits past `len` are ignored, words that lack are zero.
    pub fn from_words(mut words: Vec<u64>, len: usize) -> Self {
        words.resize(len.div_ceil(64), 0);
        let mut mask = Self { words, len };
        mask.clear_tail();
        mask
    }

    /// The number of rows that the mask speaks of (set or not).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the mask speaks of no row at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `row` is in the set; false past the end.
    #[inline]
    pub fn contains(&self, row: usize) -> bool {
        self.words.get(row / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Puts `row` in the set. Panics past the end.
    #[inline]
    pub fn insert(&mut self, row: usize) {
        assert!(row < self.len, "row {row} of a mask of {} rows", self.len);
        self.words[row / 64] |= 1 << (row % 64);
    }

    /// Takes `row` out of the set. Panics past the end.
    #[inline]
    pub fn remove(&mut self, row: usize) {
        assert!(row < self.len, "row {row} of a mask of {} rows", self.len);
        self.words[row / 64] &= !(1 << (row % 64));
    }

    /// Appends one row, in the set or not.
    pub fn push(&mut self, contained: bool) {
        self.grow(self.len + 1);
        if contained {
            self.insert(self.len - 1);
        }
    }

    /// Appends rows that are not in the set until there are `len`. A smaller `len` changes nothing.
    pub fn grow(&mut self, len: usize) {
        if len > self.len {
            self.words.resize(len.div_ceil(64), 0);
            self.len = len;
        }
    }

    /// How many rows are in the set. Cost: one popcount per 64 rows.
    pub fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many rows before `end` are in the set. Cost as of [`Self::count`].
    pub fn count_before(&self, end: usize) -> usize {
        let whole: usize = self.words.iter().take(end / 64).map(|word| word.count_ones() as usize).sum();
        let last = self.words.get(end / 64).map_or(0, |word| word & ((1 << (end % 64)) - 1));
        whole + last.count_ones() as usize
    }

    /// Keeps the rows that are in both. Panics when the lengths differ.
    pub fn intersect(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "masks of different segments");
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
    }

    /// Adds the rows of `other`. Panics when the lengths differ.
    pub fn union(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "masks of different segments");
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
    }

    /// Takes the rows of `other` out. Panics when the lengths differ.
    pub fn subtract(&mut self, other: &Self) {
        assert_eq!(self.len, other.len, "masks of different segments");
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }

    /// The rows that are not in the set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut mask = Self { words: self.words.iter().map(|word| !word).collect(), len: self.len };
        mask.clear_tail();
        mask
    }

    /// The rows in the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.iter_from(0)
    }

    /// The rows in the set from `start` on, ascending.
    pub fn iter_from(&self, start: usize) -> impl Iterator<Item = usize> + '_ {
        let first = start / 64;
        self.words.iter().enumerate().skip(first).flat_map(move |(index, &word)| {
            let word = if index == first { word & (u64::MAX << (start % 64)) } else { word };
            std::iter::successors((word != 0).then_some(word), |word| {
                let rest = word & (word - 1);
                (rest != 0).then_some(rest)
            })
            .map(move |word| index * 64 + word.trailing_zeros() as usize)
        })
    }

    /// The 64-row words, lowest rows first; bits past the end are zero.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    fn clear_tail(&mut self) {
        if !self.len.is_multiple_of(64)
            && let Some(last) = self.words.last_mut()
        {
            *last &= (1 << (self.len % 64)) - 1;
        }
    }
}

impl FromIterator<bool> for RowMask {
    fn from_iter<I: IntoIterator<Item = bool>>(rows: I) -> Self {
        let mut mask = Self::default();
        for contained in rows {
            if mask.len.is_multiple_of(64) {
                mask.words.push(0);
            }
            *mask.words.last_mut().expect("a word was pushed for this row") |= u64::from(contained) << (mask.len % 64);
            mask.len += 1;
        }
        mask
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_list_of_booleans(rows in prop::collection::vec(any::<(bool, bool)>(), 0..200)) {
            let left: RowMask = rows.iter().map(|pair| pair.0).collect();
            let right: RowMask = rows.iter().map(|pair| pair.1).collect();
            prop_assert_eq!(left.len(), rows.len());
            prop_assert_eq!(left.count(), rows.iter().filter(|pair| pair.0).count());
            let listed: Vec<usize> = left.iter().collect();
            let expected: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].0).collect();
            prop_assert_eq!(&listed, &expected);
            for start in [0, 1, 63, 64, 65, 150, 250] {
                prop_assert_eq!(left.count_before(start), expected.iter().filter(|&&row| row < start).count());
                let expected: Vec<usize> = expected.iter().copied().filter(|&row| row >= start).collect();
                prop_assert_eq!(left.iter_from(start).collect::<Vec<_>>(), expected);
            }
            let mut both = left.clone();
            both.intersect(&right);
            prop_assert_eq!(both, rows.iter().map(|pair| pair.0 && pair.1).collect::<RowMask>());
            let mut either = left.clone();
            either.union(&right);
            prop_assert_eq!(either, rows.iter().map(|pair| pair.0 || pair.1).collect::<RowMask>());
            let mut without = left.clone();
            without.subtract(&right);
            prop_assert_eq!(without, rows.iter().map(|pair| pair.0 && !pair.1).collect::<RowMask>());
            prop_assert_eq!(left.complement(), rows.iter().map(|pair| !pair.0).collect::<RowMask>());
            prop_assert_eq!(RowMask::all(rows.len()).count(), rows.len());
            let mut words = left.words().to_vec();
            words.push(u64::MAX);
            prop_assert_eq!(RowMask::from_words(words, rows.len()), left);
            prop_assert_eq!(RowMask::from_words(vec![u64::MAX; 4], rows.len()), RowMask::all(rows.len()));
        }
    }

    #[test]
    fn grows_with_unset_rows() {
        let mut mask = RowMask::all(3);
        mask.push(false);
        mask.push(true);
        mask.grow(130);
        assert_eq!(mask.iter().collect::<Vec<_>>(), [0, 1, 2, 4]);
        assert!(!mask.contains(500));
    }
}
