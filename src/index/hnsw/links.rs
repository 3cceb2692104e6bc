use crate::base::make_room;
use crate::distance::AlignedVec;

/// Ends a neighbour list that is not full.
pub(super) const NONE: u32 = u32::MAX;
/// No node is higher: at `m` = 2 one row in 4 billion would be.
const LEVEL_MAX: u32 = 32;

/// The neighbour lists of all nodes: fixed slots, filled from the front, [`NONE`] after the last.
///
/// Level 0 is one array of `m0 = 2 m` slots a row. The lists of the upper levels stand one after the other in another array,
/// a row's lists together, level 1 first.
#[derive(Debug, Clone)]
pub(super) struct Links {
    m: usize,
    level_0: AlignedVec<u32>,
    upper: AlignedVec<u32>,
    /// Where a row's lists begin in `upper`, counted in lists.
    upper_starts: Vec<u32>,
}

/// The highest level of a row: `level >= l` for one row in `m^l`, decided by a hash of the row number (splitmix64's
/// finalizer) and integers alone, so that every target agrees.
pub(super) fn level_of(row: u32, m: usize) -> u32 {
    let mut hash = u64::from(row).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let mut level = 0;
    let mut below = u64::MAX / m as u64;
    while hash < below && level < LEVEL_MAX {
        level += 1;
        below /= m as u64;
    }
    level
}

impl Links {
    pub(super) fn new(m: usize) -> Self {
        Self { m, level_0: AlignedVec::new(), upper: AlignedVec::new(), upper_starts: Vec::new() }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.upper_starts.len()
    }

    /// Appends a row without neighbours.
    pub(super) fn push(&mut self) {
        let row = self.upper_starts.len() as u32;
        make_room(&mut self.upper_starts, 1);
        self.upper_starts.push((self.upper.len() / self.m) as u32);
        let (len_0, len) = (self.level_0.len(), self.upper.len());
        self.level_0.grow(len_0 + 2 * self.m);
        self.level_0[len_0..].fill(NONE);
        self.upper.grow(len + level_of(row, self.m) as usize * self.m);
        self.upper[len..].fill(NONE);
    }

    /// How many slots a list has on `level`.
    #[inline(always)]
    pub(super) fn slots(&self, level: u32) -> usize {
        if level == 0 { 2 * self.m } else { self.m }
    }

    #[inline(always)]
    fn start(&self, row: u32, level: u32) -> usize {
        if level == 0 {
            row as usize * 2 * self.m
        } else {
            (self.upper_starts[row as usize] + level - 1) as usize * self.m
        }
    }

    /// All slots of a list.
    #[inline(always)]
    pub(super) fn list(&self, row: u32, level: u32) -> &[u32] {
        let start = self.start(row, level);
        let array = if level == 0 { &self.level_0 } else { &self.upper };
        &array[start..start + self.slots(level)]
    }

    /// The neighbours in a list.
    pub(super) fn neighbors(&self, row: u32, level: u32) -> impl Iterator<Item = u32> + Clone + '_ {
        self.list(row, level).iter().copied().take_while(|&neighbor| neighbor != NONE)
    }

    /// Replaces a list; what does not fit into its slots must not be given.
    pub(super) fn set(&mut self, row: u32, level: u32, neighbors: impl IntoIterator<Item = u32>) {
        let (start, slots) = (self.start(row, level), self.slots(level));
        let array = if level == 0 { &mut self.level_0 } else { &mut self.upper };
        let list = &mut array[start..start + slots];
        let mut filled = 0;
        for neighbor in neighbors {
            list[filled] = neighbor;
            filled += 1;
        }
        list[filled..].fill(NONE);
    }

    /// Of each row, how many of the rows before it have it in their list on level 0.
    pub(super) fn parents(&self) -> Vec<u32> {
        let mut parents = vec![0; self.len()];
        for row in 0..self.len() as u32 {
            self.neighbors(row, 0).filter(|&child| child > row).for_each(|child| parents[child as usize] += 1);
        }
        parents
    }

    /// The two arrays, for writing.
    pub(super) fn arrays(&self) -> (&[u32], &[u32]) {
        (&self.level_0, &self.upper)
    }

    /// `rows` rows with these arrays, whose lengths are right.
    pub(super) fn from_arrays(m: usize, rows: usize, level_0: AlignedVec<u32>, upper: AlignedVec<u32>) -> Self {
        let mut upper_starts = Vec::with_capacity(rows);
        let mut start = 0;
        for row in 0..rows as u32 {
            upper_starts.push(start);
            start += level_of(row, m);
        }
        assert_eq!(level_0.len(), rows * 2 * m, "a list a row");
        assert_eq!(upper.len(), start as usize * m, "the lists that the levels ask for");
        Self { m, level_0, upper, upper_starts }
    }

    /// Gives back what was taken in advance for more rows.
    pub(super) fn settle(&mut self) {
        self.level_0.settle();
        self.upper.settle();
        self.upper_starts.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.level_0.memory_bytes() + self.upper.memory_bytes() + self.upper_starts.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_spread_as_the_paper_asks() {
        for m in [2, 16, 48] {
            let rows = 200_000u32;
            let upper = (0..rows).filter(|&row| level_of(row, m) >= 1).count() as f64;
            let expected = f64::from(rows) / m as f64;
            assert!((upper - expected).abs() < 5.0 * expected.sqrt(), "m {m}: {upper}, expected {expected}");
        }
        assert!((0..1000).all(|row| level_of(row, 16) <= 3), "fixed for ever: files depend on it");
    }
}
