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
    /// Whether the index sees the filter's mask and weighs a scan by itself, as graphs do:
    /// [`Hnsw::candidates`](crate::index::Hnsw::candidates).
    pub weighs: bool,
    /// Whether the request forbids what is not exact.
    pub exact: bool,
}

/// Comparisons of an unfiltered walk for each candidate that it keeps, in comparisons of a scan.
const COMPARISONS_PER_CANDIDATE: f64 = 12.0;

impl SegmentSearch {
    /// The cheaper way; where both cost the same the exact one.
    ///
    /// A scan makes `admitted` comparisons. A walk that nothing filters costs as much as 12 of them for each of the
    /// `max(ef, k)` candidates that it keeps: fewer than the 2 * `m` neighbours of a node, because most were seen before, and
    /// over codes of a quarter of the bytes, but at random places. When one row in `n` is admitted, the walk goes on until as
    /// many admitted ones are kept; it has to pass `n` times as many, but they lie close together and share their neighbours,
    /// so that it costs `sqrt(n)` times as much.
    ///
    /// Measured natively on 20,000 sentence embeddings of 384 dimensions, random masks, `k` 10, `m` 16 (microseconds a query;
    /// recall of the walk at least 0.98 wherever it is chosen with `ef` of 64 or more):
    ///
    /// | admitted | scan | `ef` 16 | 64 | 128 | 256 |
    /// |---|---|---|---|---|---|
    /// | all | 4524 | 84 | 184 | 334 | 556 |
    /// | 30% | 2312 | 99 | 399 | 668 | 1234 |
    /// | 20% | 1186 | 221 | 435 | 862 | 1601 |
    /// | 15% | 659 | 162 | 476 | 802 | 1577 |
    /// | 10% | 420 | 168 | 655 | 1167 | 1811 |
    /// | 5% | 137 | 459 | 1319 | 2318 | 3602 |
    ///
    /// The rule changes over at 4.5%, 11%, 18% and 29% for these four `ef`; the times cross at about 8%, 12%, 17% and 23%.
    pub fn access(&self) -> Access {
        if self.exact || !self.indexed || self.admitted == 0 {
            return Access::Scan;
        }
        if self.weighs {
            // Then so few are compared by their vectors at once, and an index sees to the rest.
            return if self.admitted <= self.ef.max(self.k) { Access::Scan } else { Access::Graph };
        }
        if self.cost(Access::Scan) <= self.cost(Access::Graph) { Access::Scan } else { Access::Graph }
    }

    /// What a way costs, in comparisons.
    pub fn cost(&self, access: Access) -> f64 {
        let (rows, admitted, kept) = (self.rows as f64, self.admitted as f64, self.ef.max(self.k) as f64);
        match access {
            Access::Scan => admitted,
            Access::Graph => COMPARISONS_PER_CANDIDATE * kept * (rows / admitted.max(1.0)).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(rows: usize, admitted: usize, ef: usize) -> Access {
        SegmentSearch { rows, admitted, k: 10, ef, indexed: true, weighs: false, exact: false }.access()
    }

    #[test]
    fn few_survivors_are_scanned() {
        assert_eq!(access(100_000, 100_000, 64), Access::Graph);
        assert_eq!(access(100_000, 5_000, 64), Access::Graph);
        assert_eq!(access(100_000, 3_000, 64), Access::Scan);
        assert_eq!(access(100_000, 0, 64), Access::Scan);
        assert_eq!(access(500, 500, 64), Access::Scan);
        assert_eq!(access(0, 0, 64), Access::Scan);
    }

    #[test]
    fn changes_over_where_it_says() {
        for (ef, share) in [(16, 0.045), (64, 0.114), (128, 0.181), (256, 0.287)] {
            assert_eq!(access(20_000, (20_000.0 * (share - 0.002)) as usize, ef), Access::Scan, "{ef}");
            assert_eq!(access(20_000, (20_000.0 * (share + 0.002)) as usize, ef), Access::Graph, "{ef}");
        }
    }

    #[test]
    fn a_wider_walk_makes_scans_more_worthwhile() {
        assert_eq!(access(100_000, 20_000, 1_000), Access::Scan);
        let search = SegmentSearch {
            rows: 100_000,
            admitted: 20_000,
            k: 1_000,
            ef: 10,
            indexed: true,
            weighs: false,
            exact: false,
        };
        assert_eq!(search.access(), Access::Scan);
        assert_eq!(access(usize::MAX, usize::MAX, usize::MAX), Access::Scan);
    }

    #[test]
    fn an_index_that_weighs_by_itself_is_asked_unless_all_would_be_kept() {
        let search =
            SegmentSearch { rows: 100_000, admitted: 65, k: 10, ef: 64, indexed: true, weighs: true, exact: false };
        assert_eq!(search.access(), Access::Graph);
        assert_eq!(SegmentSearch { admitted: 64, ..search }.access(), Access::Scan);
        assert_eq!(SegmentSearch { admitted: 10, ef: 1, ..search }.access(), Access::Scan);
        assert_eq!(SegmentSearch { exact: true, ..search }.access(), Access::Scan);
    }

    #[test]
    fn exact_or_without_graph_is_a_scan() {
        let search = SegmentSearch {
            rows: 100_000,
            admitted: 100_000,
            k: 10,
            ef: 64,
            indexed: true,
            weighs: false,
            exact: false,
        };
        assert_eq!(SegmentSearch { exact: true, ..search }.access(), Access::Scan);
        assert_eq!(SegmentSearch { indexed: false, ..search }.access(), Access::Scan);
    }
}
