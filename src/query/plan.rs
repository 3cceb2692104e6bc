//! How a segment is searched, decided from numbers alone.

/// How one segment answers a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every admitted row is compared, in full precision: exact.
    Scan,
    /// The graph is walked; rows that are not admitted lead on but are not found.
    Graph,
}

/// What is known of a search of one segment before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSearch {
    /// Its rows, in its graph or not yet.
    pub rows: usize,
    /// Those of them that live and that the filter admits.
    pub admitted: usize,
    /// Neighbours wanted.
    pub k: usize,
    /// Candidates that the graph keeps.
    pub ef: usize,
    /// Whether there is a graph.
    pub indexed: bool,
    /// Whether the request forbids what is not exact.
    pub exact: bool,
}

/// Comparisons that a walk makes for each candidate that it keeps: of the 2 * `m` neighbours of a node, those that it has not seen.
const COMPARISONS_PER_CANDIDATE: usize = 16;

impl SegmentSearch {
    /// The cheaper way; where both cost the same the exact one.
    ///
    /// A scan makes `admitted` comparisons. A walk makes about [`COMPARISONS_PER_CANDIDATE`] for each of the
    /// `max(ef, k)` candidates that it keeps, and since only one in `rows / admitted` of the rows that it meets is kept, that
    /// many times more. One comparison of a walk costs as much as one of a scan: its codes are a quarter of the bytes, but lie
    /// anywhere, and each is marked as seen and sorted in. So a scan is taken up to
    /// `admitted² <= 16 * max(ef, k) * rows`: at 100,000 rows and `ef` 64 up to 10% of them.
    pub fn access(&self) -> Access {
        if self.exact || !self.indexed {
            return Access::Scan;
        }
        let kept = self.ef.max(self.k) as u128;
        let walked = (kept * COMPARISONS_PER_CANDIDATE as u128).saturating_mul(self.rows as u128);
        if (self.admitted as u128).pow(2) <= walked { Access::Scan } else { Access::Graph }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(rows: usize, admitted: usize, ef: usize) -> Access {
        SegmentSearch { rows, admitted, k: 10, ef, indexed: true, exact: false }.access()
    }

    #[test]
    fn few_survivors_are_scanned() {
        assert_eq!(access(100_000, 100_000, 64), Access::Graph);
        assert_eq!(access(100_000, 20_000, 64), Access::Graph);
        assert_eq!(access(100_000, 5_000, 64), Access::Scan);
        assert_eq!(access(100_000, 0, 64), Access::Scan);
        assert_eq!(access(500, 500, 64), Access::Scan);
        assert_eq!(access(0, 0, 64), Access::Scan);
    }

    #[test]
    fn a_wider_walk_makes_scans_more_worthwhile() {
        assert_eq!(access(100_000, 20_000, 1_000), Access::Scan);
        let search = SegmentSearch { rows: 100_000, admitted: 20_000, k: 1_000, ef: 10, indexed: true, exact: false };
        assert_eq!(search.access(), Access::Scan);
        assert_eq!(access(usize::MAX, usize::MAX, usize::MAX), Access::Scan);
    }

    #[test]
    fn exact_or_without_graph_is_a_scan() {
        let search = SegmentSearch { rows: 100_000, admitted: 100_000, k: 10, ef: 64, indexed: true, exact: false };
        assert_eq!(SegmentSearch { exact: true, ..search }.access(), Access::Scan);
        assert_eq!(SegmentSearch { indexed: false, ..search }.access(), Access::Scan);
    }
}
