use super::links::NONE;
use crate::base::make_room;

/// Chains of rows with equal codes, each behind its head, which is a node of the graph (or the zero row).
///
/// `next[row]` is the next row of the chain. The newest twin comes first after the head, so numbers fall along a chain after its
/// first step: that is what lets a reader see that a chain ends.
#[derive(Debug, Clone, Default)]
pub(super) struct Twins {
    /// Empty while there is no twin.
    next: Vec<u32>,
    is_twin: Vec<bool>,
}

impl Twins {
    /// Puts `row`, the newest one, behind `head`.
    pub(super) fn add(&mut self, head: u32, row: u32) {
        let more = row as usize + 1 - self.next.len();
        make_room(&mut self.next, more);
        make_room(&mut self.is_twin, more);
        self.next.resize(row as usize + 1, NONE);
        self.is_twin.resize(row as usize + 1, false);
        self.next[row as usize] = self.next[head as usize];
        self.next[head as usize] = row;
        self.is_twin[row as usize] = true;
    }

    /// Whether `row` is in a chain, not at its head.
    pub(super) fn contains(&self, row: u32) -> bool {
        self.is_twin.get(row as usize).copied().unwrap_or(false)
    }

    /// The twins behind `head`, newest first.
    #[inline]
    pub(super) fn of(&self, head: u32) -> impl Iterator<Item = u32> + '_ {
        let next = |row: u32| self.next.get(row as usize).copied().filter(|&row| row != NONE);
        std::iter::successors(next(head), move |&row| next(row))
    }

    /// Every link `(row, next)`, by row.
    pub(super) fn links(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.next.iter().enumerate().filter(|(_, next)| **next != NONE).map(|(row, &next)| (row as u32, next))
    }

    /// The chains with these links, in ascending order of `row`; or what is wrong with them and in which link.
    pub(super) fn from_links(rows: usize, links: &[(u32, u32)]) -> Result<Self, (usize, String)> {
        let mut twins = Self::default();
        if links.is_empty() {
            return Ok(twins);
        }
        twins.next = vec![NONE; rows];
        twins.is_twin = vec![false; rows];
        for (index, &(row, next)) in links.iter().enumerate() {
            if row as usize >= rows || next as usize >= rows || row == next {
                return Err((index, format!("twins {row} and {next} of {rows} rows")));
            }
            if index > 0 && links[index - 1].0 >= row {
                return Err((index, format!("twin link of row {row} after that of row {}", links[index - 1].0)));
            }
            if std::mem::replace(&mut twins.is_twin[next as usize], true) {
                return Err((index, format!("row {next} in two chains of twins")));
            }
            twins.next[row as usize] = next;
        }
        for (index, &(row, next)) in links.iter().enumerate() {
            // A head's link may rise; every other one must fall, so that no chain turns back on itself.
            let is_head = !twins.is_twin[row as usize];
            if is_head != (next > row) {
                return Err((index, format!("chain of twins goes from row {row} to row {next}")));
            }
        }
        Ok(twins)
    }

    /// Gives back what was taken in advance for more rows.
    pub(super) fn settle(&mut self) {
        self.next.shrink_to_fit();
        self.is_twin.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.next.capacity() * 4 + self.is_twin.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_survive_bytes_and_wrong_ones_are_refused() {
        let mut twins = Twins::default();
        for (head, row) in [(0, 2), (0, 3), (1, 4), (0, 5)] {
            twins.add(head, row);
        }
        assert_eq!(twins.of(0).collect::<Vec<_>>(), [5, 3, 2]);
        assert_eq!(twins.of(1).collect::<Vec<_>>(), [4]);
        assert_eq!(twins.of(100).count(), 0);
        assert!(twins.contains(3) && !twins.contains(0) && !twins.contains(100));
        let links: Vec<_> = twins.links().collect();
        let again = Twins::from_links(7, &links).unwrap();
        assert_eq!(again.links().collect::<Vec<_>>(), links);
        assert_eq!(again.of(0).collect::<Vec<_>>(), [5, 3, 2]);
        // A cycle, a fork, a row out of range, one behind itself, a falling head.
        for wrong in [&[(0, 1), (1, 0)][..], &[(0, 2), (1, 2)], &[(0, 7)], &[(3, 3)], &[(3, 1)], &[(2, 3), (0, 1)]] {
            assert!(Twins::from_links(7, wrong).is_err(), "{wrong:?}");
        }
    }
}
