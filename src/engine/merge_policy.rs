//! Which segments are merged into one, and when: a policy looks at rows and sizes and returns a choice.
//!
//! Searches look into every segment, so many of them make a search slow; a merge makes them fewer, and writes rows that were written
//! before. The kinds of merging differ in how much they pay of the one for the other. The same trade is known from trees of sorted files and
//! from text indexes:
//!
//! - Tiers of about equal size ([`MergeKind::Hierarchical`]) write a row once a tier, which is the least that keeps the number of segments
//!   bounded: [Lucene's `TieredMergePolicy`](https://lucene.apache.org/core/10_4_0/core/org/apache/lucene/index/TieredMergePolicy.html),
//!   universal compaction in [RocksDB](https://github.com/facebook/rocksdb/wiki/Universal-Compaction).
//! - Merging what comes into what is there at once ([`MergeKind::Sequential`]) keeps reads cheapest and writes most, as the
//!   [leveled compaction](https://github.com/facebook/rocksdb/wiki/Leveled-Compaction) of RocksDB does in comparison with its universal one.
//! - Several merges at once ([`MergeKind::Parallel`]) have the work done sooner where there are threads, as
//!   [Lucene's `ConcurrentMergeScheduler`](https://lucene.apache.org/core/10_4_0/core/org/apache/lucene/index/ConcurrentMergeScheduler.html)
//!   and RocksDB's `max_background_jobs` have it.
//!
//! As in Milvus, a segment has a greatest size, and segments that fit into none of that size stay: its
//! [compaction](https://milvus.io/docs/force-merge.md) leaves those of middle size, too.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::compaction::SEAL_ROWS;
use crate::base::{Error, Result, SegmentId};

/// Which segments are merged with which, when nothing in them is wasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MergeKind {
    /// Those of about the same size become one of the next: a row is written about once for each size. So of segments that are not full there
    /// are a few of each size.
    #[default]
    Hierarchical,
    /// The newest one is merged at once into the latest one that has room for it: of segments that are not full there is hardly more than
    /// one, so searches stay fast, and a row is written again with every flush until its segment is full.
    Sequential,
    /// Like `Hierarchical` in smaller groups, several of them at once: as many as there are threads for background work, which is natively
    /// under a runtime of several threads. Where there is one thread, as in WebAssembly, they are merged one after the other.
    Parallel,
}

impl MergeKind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Hierarchical, Self::Sequential, Self::Parallel];

    /// The name by which options and manifests call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hierarchical => "hierarchical",
            Self::Sequential => "sequential",
            Self::Parallel => "parallel",
        }
    }

    /// With so many segments a merge has its turn while rows are being indexed: each search looks into all of them.
    pub const fn segments_pressing(self) -> usize {
        match self {
            Self::Sequential => 2,
            Self::Hierarchical | Self::Parallel => 8,
        }
    }
}

impl FromStr for MergeKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid(format!("merge policy {name:?}; expected one of: {names}"))
        })
    }
}

/// When segments are merged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MergePolicy {
    /// Which with which, in collections that do not say: see [`CollectionOptions::merge_policy`](super::CollectionOptions::merge_policy).
    pub kind: MergeKind,
    /// How many merges of a collection go on at once with [`MergeKind::Parallel`]; half as many as the machine has cores with `None`, and one
    /// where there is one thread. There, more than one take turns. Under a memory limit they share what one may take.
    pub merges_max: Option<usize>,
    /// Segments of fewer living rows and deletes than this are small; 16,384.
    pub small_rows: usize,
    /// So many small ones become one; 4. At least 2.
    pub small_count: usize,
    /// A segment is rewritten when a greater share of its rows is dead; 0.3. Dead rows are still in its graph, and lead on.
    pub dead_share: f64,
    /// A segment is rewritten, with a new graph, when a greater share of its rows is in a graph in which no way leads to them, so that
    /// searches miss them; 0.001.
    pub unreachable_share: f64,
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self {
            kind: MergeKind::default(),
            merges_max: None,
            small_rows: 16_384,
            small_count: 4,
            dead_share: 0.3,
            unreachable_share: 0.001,
        }
    }
}

impl MergePolicy {
    /// Merges all that can be merged: every dead row is too much, and every segment is small that another one fits beside.
    pub const WHOLE: Self = Self {
        kind: MergeKind::Hierarchical,
        merges_max: None,
        small_rows: SEAL_ROWS,
        small_count: 2,
        dead_share: 0.0,
        unreachable_share: 0.0,
    };
}

/// What a policy of compaction knows of a flushed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: SegmentId,
    /// Its rows.
    pub rows: usize,
    /// Those of them that somebody may read.
    pub live: usize,
    /// Its deletes.
    pub deletes: usize,
    /// What a merge holds of the living rows in memory, about.
    pub bytes: usize,
    /// Nodes of its graphs to which no way leads, as far as somebody has looked.
    pub unreachable: usize,
}

impl Candidate {
    fn dead_share(&self) -> f64 {
        (self.rows - self.live) as f64 / self.rows.max(1) as f64
    }

    fn is_wasteful(&self, policy: &MergePolicy) -> bool {
        self.dead_share() > policy.dead_share
            || self.unreachable as f64 > policy.unreachable_share * self.rows.max(1) as f64
    }

    fn live(&self) -> usize {
        self.live
    }

    fn size(&self) -> usize {
        self.live + self.deletes
    }
}

/// What has been merged of a collection since it was created. In a manifest these are three numbers, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64)", into = "(u64, u64, u64)")]
pub struct MergeCounts {
    /// Merges that came to their end.
    pub finished: u64,
    /// Rows that they wrote.
    pub rows: u64,
    /// Rows that came to segments in storage otherwise: out of the log, or whole from elsewhere.
    pub rows_flushed: u64,
}

impl From<(u64, u64, u64)> for MergeCounts {
    fn from((finished, rows, rows_flushed): (u64, u64, u64)) -> Self {
        Self { finished, rows, rows_flushed }
    }
}

impl From<MergeCounts> for (u64, u64, u64) {
    fn from(counts: MergeCounts) -> Self {
        (counts.finished, counts.rows, counts.rows_flushed)
    }
}

impl MergeCounts {
    /// Whether nothing was counted.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// How often a row that came was written again by merges, on average; 0 while none has come.
    pub fn write_amplification(&self) -> f64 {
        self.rows as f64 / self.rows_flushed.max(1) as f64
    }
}

/// Which segments to merge into one of at most `bytes_max`; none when all is well. Comes first what frees most: the segment with the
/// greatest share of dead rows, when that is too great, or with a graph that has come apart; then what the kind of the policy says. Of
/// `segments`, which ascend by id, none is being merged.
///
/// Segments of fewer than `small_rows` are on no level; others are on level `n` when they are of at least `small_rows * small_count^n`. When
/// there are `small_count` on one, so small that as many fit into a segment, they become one of the next. Logs of deletes, which are segments
/// without rows, have levels of their own whatever the kind, so that a delete is rewritten once a level and there are few logs.
pub fn choose_merge(segments: &[Candidate], bytes_max: usize, policy: &MergePolicy) -> Vec<SegmentId> {
    let small_count = policy.small_count.max(2);
    // Of those that are merged side by side there are no more in a group than make one.
    let count_max = if policy.kind == MergeKind::Parallel { small_count } else { usize::MAX };
    let wasteful = segments.iter().filter(|segment| segment.is_wasteful(policy) && segment.bytes <= bytes_max);
    let most = wasteful.max_by(|a, b| a.dead_share().total_cmp(&b.dead_share()));
    let level = |segment: &Candidate| (segment.size() / policy.small_rows.max(1)).checked_ilog(small_count);
    let chosen = if policy.kind == MergeKind::Sequential {
        into_latest(segments, bytes_max)
    } else {
        let mut small = segments.iter().filter(|segment| segment.size() < policy.small_rows);
        together(&mut small, Candidate::live, bytes_max, small_count..=count_max)
    };
    match most {
        // One among others that are merged anyway is written once then.
        Some(most) if !chosen.contains(&most.id) => return vec![most.id],
        _ if !chosen.is_empty() => return chosen,
        _ => {}
    }
    for at in 0..usize::BITS * 2 {
        let is_on_it = |segment: &&Candidate| {
            level(segment) == Some(at / 2)
                && (segment.rows > 0) == (at % 2 > 0)
                && segment.live <= SEAL_ROWS / small_count
        };
        let chosen =
            together(&mut segments.iter().filter(is_on_it), Candidate::live, bytes_max, small_count..=count_max);
        if !chosen.is_empty() {
            return chosen;
        }
    }
    Vec::new()
}

/// As many of these as fit into one segment, in this order, each for as many rows as `rows` says; none when they are too few.
fn together(
    segments: &mut dyn Iterator<Item = &Candidate>,
    rows: fn(&Candidate) -> usize,
    bytes_max: usize,
    counts: RangeInclusive<usize>,
) -> Vec<SegmentId> {
    let (mut room, mut bytes, mut taken) = (SEAL_ROWS, bytes_max, Vec::new());
    for segment in segments {
        let rows = rows(segment);
        if rows <= room && segment.bytes <= bytes && taken.len() < *counts.end() {
            room -= rows;
            bytes -= segment.bytes;
            taken.push(segment.id);
        }
    }
    if taken.len() < *counts.start() {
        taken.clear();
    }
    taken
}

/// The newest segment that fits beside another one, and those before it that do, the latest first. Deletes count as rows here: they are written
/// with every merge.
fn into_latest(segments: &[Candidate], bytes_max: usize) -> Vec<SegmentId> {
    let mut counts = (2..=segments.len()).rev();
    let chosen = |count: usize| {
        let chosen = together(&mut segments[..count].iter().rev(), Candidate::size, bytes_max, 2..=usize::MAX);
        (!chosen.is_empty()).then_some(chosen)
    };
    counts.find_map(chosen).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn segment(id: u64, rows: usize, live: usize) -> Candidate {
        Candidate { id: SegmentId(id), rows, live, deletes: 0, bytes: live * 100, unreachable: 0 }
    }

    fn log(id: u64, deletes: usize) -> Candidate {
        Candidate { id: SegmentId(id), rows: 0, live: 0, deletes, bytes: 0, unreachable: 0 }
    }

    fn of(kind: MergeKind) -> MergePolicy {
        MergePolicy { kind, ..MergePolicy::default() }
    }

    fn chosen_by(policy: &MergePolicy, segments: &[Candidate], bytes_max: usize) -> Vec<u64> {
        choose_merge(segments, bytes_max, policy).into_iter().map(|id| id.0).collect()
    }

    fn chosen(segments: &[Candidate], bytes_max: usize) -> Vec<u64> {
        chosen_by(&MergePolicy::default(), segments, bytes_max)
    }

    #[test]
    fn the_most_wasteful_segment_comes_first() {
        let segments = [segment(1, 1000, 650), segment(2, 1000, 100), segment(3, 1000, 1000), segment(4, 0, 0)];
        assert_eq!(chosen(&segments[..3], usize::MAX), [2]);
        assert_eq!(chosen(&segments, usize::MAX), [1, 2, 3, 4], "it is among small ones that are many");
        assert_eq!(chosen(&segments[..1], usize::MAX), [1]);
        assert_eq!(chosen(&segments[2..], usize::MAX), [0; 0]);
        assert_eq!(chosen(&segments[..1], 64_999), [0; 0], "it would not fit into memory");
        let policy = MergePolicy { dead_share: 0.4, ..MergePolicy::default() };
        assert_eq!(choose_merge(&segments[..1], usize::MAX, &policy), []);
        // Whatever the kind; nothing else fits beside the first.
        let dead = [segment(1, 130_000, 130_000), segment(2, 100_000, 60_000), segment(3, 131_072, 131_072)];
        for kind in MergeKind::ALL {
            assert_eq!(chosen_by(&of(kind), &dead, usize::MAX), [2], "{kind:?}");
            let apart = Candidate { unreachable: 200, ..dead[0] };
            assert_eq!(chosen_by(&of(kind), &[apart], usize::MAX), [1], "{kind:?}");
        }
    }

    #[test]
    fn many_small_segments_become_one_that_fits() {
        let small: Vec<Candidate> = (1..=6).map(|id| segment(id, 10_000, 10_000)).collect();
        assert_eq!(chosen(&small[..3], usize::MAX), [0; 0]);
        assert_eq!(chosen(&small[..4], usize::MAX), [1, 2, 3, 4]);
        assert_eq!(chosen(&small, 5_000_000), [1, 2, 3, 4, 5]);
        assert_eq!(chosen(&small, 3_000_000), [0; 0], "three are not worth it");
        let large = [segment(7, 20_000, 20_000), segment(8, 20_000, 20_000)];
        let both: Vec<Candidate> = small[..4].iter().chain(&large).copied().collect();
        assert_eq!(chosen(&both, usize::MAX), [1, 2, 3, 4]);
        let whole = |segments: &[Candidate]| choose_merge(segments, usize::MAX, &MergePolicy::WHOLE).len();
        assert_eq!((whole(&both), whole(&small[..2]), whole(&small[..1])), (6, 2, 0));
        assert_eq!(whole(&[segment(1, 1000, 999)]), 1);
    }

    #[test]
    fn segments_of_one_size_become_one_of_the_next() {
        let sizes: Vec<Candidate> = (1..=4).map(|id| segment(id, 30_000, 30_000)).collect();
        assert_eq!(chosen(&sizes, usize::MAX), [1, 2, 3, 4]);
        assert_eq!(chosen(&sizes[..3], usize::MAX), [0; 0]);
        let sizes: Vec<Candidate> = (1..=4).map(|id| segment(id, 40_000, 40_000)).collect();
        assert_eq!(chosen(&sizes, usize::MAX), [0; 0], "four do not fit into one");
        // Two large ones do not keep smaller ones of their level from being merged.
        let sizes = [60_000, 60_000, 17_000, 18_000, 19_000, 20_000].into_iter().zip(1..);
        let sizes: Vec<Candidate> = sizes.map(|(rows, id)| segment(id, rows, rows)).collect();
        assert_eq!(chosen(&sizes, usize::MAX), [3, 4, 5, 6]);
    }

    #[test]
    fn side_by_side_no_group_is_larger_than_it_must_be() {
        let small: Vec<Candidate> = (1..=9).map(|id| segment(id, 1_000, 1_000)).collect();
        let parallel = of(MergeKind::Parallel);
        assert_eq!(chosen_by(&parallel, &small, usize::MAX), [1, 2, 3, 4]);
        assert_eq!(chosen_by(&parallel, &small[4..], usize::MAX), [5, 6, 7, 8]);
        assert_eq!(chosen_by(&parallel, &small[8..], usize::MAX), [0; 0]);
        assert_eq!(chosen(&small, usize::MAX).len(), 9);
    }

    #[test]
    fn what_is_new_goes_at_once_into_the_latest_that_has_room() {
        let sequential = of(MergeKind::Sequential);
        let segments = [segment(1, 90_000, 90_000), segment(2, 130_000, 130_000), segment(3, 2_000, 2_000)];
        assert_eq!(chosen_by(&sequential, &segments, usize::MAX), [3, 1]);
        assert_eq!(chosen_by(&sequential, &segments[..2], usize::MAX), [0; 0], "they are no segment together");
        assert_eq!(chosen_by(&sequential, &segments[..1], usize::MAX), [0; 0]);
        let waiting = [segment(1, 90_000, 90_000), segment(2, 20_000, 20_000), segment(3, 2_000, 2_000), log(4, 100)];
        assert_eq!(chosen_by(&sequential, &waiting, usize::MAX), [4, 3, 2, 1], "all that wait are written once");
        assert_eq!(chosen_by(&sequential, &waiting, 2_200_000), [4, 3, 2], "as memory lets them");
        assert_eq!(
            chosen_by(&sequential, &[log(1, 131_000), segment(2, 100, 100)], usize::MAX),
            [0; 0],
            "deletes count"
        );
    }

    #[test]
    fn logs_of_deletes_are_merged_level_by_level() {
        let logs: Vec<Candidate> = (1..=4).map(|id| log(id, 20_000)).collect();
        assert_eq!(chosen(&logs[..3], usize::MAX), [0; 0]);
        assert_eq!(chosen(&logs, usize::MAX), [1, 2, 3, 4]);
        let mixed: Vec<Candidate> =
            logs[..3].iter().copied().chain([log(5, 80_000), segment(6, 50_000, 50_000)]).collect();
        assert_eq!(chosen(&mixed, usize::MAX), [0; 0], "those of one level only");
        // Small logs go with small segments.
        let small = [log(1, 10), segment(2, 10, 10), log(3, 10), segment(4, 10, 10)];
        assert_eq!(chosen(&small, usize::MAX), [1, 2, 3, 4]);
        let large: Vec<Candidate> = (1..=4).map(|id| log(id, 100_000)).collect();
        for kind in MergeKind::ALL {
            assert_eq!(chosen_by(&of(kind), &large, usize::MAX), [1, 2, 3, 4], "{kind:?}");
        }
    }

    #[test]
    fn a_kind_has_a_name() {
        for kind in MergeKind::ALL {
            assert_eq!(kind.as_str().parse::<MergeKind>().unwrap(), kind);
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("{:?}", kind.as_str()));
        }
        let error = "tiered".parse::<MergeKind>().unwrap_err();
        assert_eq!(error.kind(), crate::base::ErrorKind::InvalidArgument);
        assert!(error.message().contains("\"tiered\"; expected one of: hierarchical, sequential, parallel"), "{error}");
    }

    /// Segments of a store, by a model of it: flushes come, rows die, merges begin and end.
    struct Model {
        policy: MergePolicy,
        segments: Vec<Candidate>,
        /// What goes into each merge that is under way.
        merging: Vec<Vec<SegmentId>>,
        next: u64,
        flushed: usize,
        written: usize,
    }

    impl Model {
        fn new(policy: MergePolicy) -> Self {
            Self { policy, segments: Vec::new(), merging: Vec::new(), next: 1, flushed: 0, written: 0 }
        }

        fn add(&mut self, rows: usize, deletes: usize) {
            self.segments.push(Candidate { deletes, ..segment(self.next, rows, rows) });
            self.next += 1;
        }

        fn flush(&mut self, rows: usize, deletes: usize) {
            self.add(rows, deletes);
            self.flushed += rows + deletes;
        }

        /// Begins a merge, if there is one to begin, of what no other one has.
        fn begin(&mut self, bytes_max: usize) -> bool {
            let taken: BTreeSet<SegmentId> = self.merging.iter().flatten().copied().collect();
            let free: Vec<Candidate> =
                self.segments.iter().filter(|segment| !taken.contains(&segment.id)).copied().collect();
            let chosen = choose_merge(&free, bytes_max, &self.policy);
            if chosen.is_empty() {
                return false;
            }
            let inputs: Vec<&Candidate> = free.iter().filter(|segment| chosen.contains(&segment.id)).collect();
            assert_eq!(inputs.len(), chosen.len(), "{chosen:?} of {free:?}: each once, and none that is being merged");
            let (live, bytes) = inputs.iter().fold((0, 0), |sum, one| (sum.0 + one.live, sum.1 + one.bytes));
            assert!(inputs.len() == 1 || live <= SEAL_ROWS, "{live} rows do not fit into one");
            assert!(bytes <= bytes_max, "{bytes} bytes of {bytes_max}");
            assert!(inputs.len() > 1 || inputs[0].is_wasteful(&self.policy), "{inputs:?} is written for nothing");
            self.merging.push(chosen);
            true
        }

        fn end(&mut self, at: usize) {
            let inputs = self.merging.remove(at);
            let of_input = self.segments.iter().filter(|segment| inputs.contains(&segment.id));
            let (live, deletes) = of_input.fold((0, 0), |sum, one| (sum.0 + one.live, sum.1 + one.deletes));
            self.segments.retain(|segment| !inputs.contains(&segment.id));
            self.written += live + deletes;
            if live + deletes > 0 {
                self.add(live, deletes);
            }
        }

        /// Merges until nothing is left to merge, one after the other.
        fn settle(&mut self) {
            let mut merges = 0;
            while self.begin(usize::MAX) {
                self.end(0);
                merges += 1;
                assert!(merges < 10_000, "it does not end: {:?}", self.segments);
            }
        }

        fn rows(&self) -> usize {
            self.segments.iter().map(Candidate::size).sum()
        }
    }

    fn kinds() -> impl Strategy<Value = MergeKind> {
        prop_oneof![Just(MergeKind::Hierarchical), Just(MergeKind::Sequential), Just(MergeKind::Parallel)]
    }

    proptest! {
        /// Whatever segments there are: what is chosen are some of them, each once, that fit; and merging comes to an end.
        #[test]
        fn a_choice_is_of_segments_that_are_there_and_fit(
            kind in kinds(),
            sizes in prop::collection::vec((0usize..140_000, 0usize..=100, 0usize..40_000, 0usize..50), 0..60),
            bytes_max in prop_oneof![Just(usize::MAX), 0usize..20_000_000],
            small_count in 2usize..6,
            small_rows in prop_oneof![Just(16_384usize), 1usize..100_000],
        ) {
            let mut model = Model::new(MergePolicy { small_count, small_rows, ..of(kind) });
            for (rows, live_percent, deletes, unreachable) in sizes {
                let rows = rows.min(SEAL_ROWS);
                let live = rows * live_percent / 100;
                let one = Candidate { deletes, unreachable, ..segment(model.next, rows, live) };
                model.segments.push(one);
                model.next += 1;
            }
            let before: usize = model.rows();
            if model.begin(bytes_max) {
                model.end(0);
            }
            model.settle();
            prop_assert_eq!(model.rows(), before, "nothing is lost and nothing doubled");
            let wasteful: Vec<_> = model.segments.iter().filter(|segment| segment.is_wasteful(&model.policy)).collect();
            prop_assert!(wasteful.is_empty(), "dead rows are merged away whatever the kind: {:?}", wasteful);
        }

        /// Several merges at once, begun and ended in any order while rows come and die: no two of them have a segment in common.
        #[test]
        fn merges_at_once_have_no_segment_in_common(
            kind in kinds(),
            steps in prop::collection::vec((0u8..4, 0usize..20_000, 0usize..100), 1..200),
        ) {
            let mut model = Model::new(of(kind));
            for (step, rows, share) in steps {
                match step {
                    0 | 1 => model.flush(rows, share * 10),
                    2 if model.merging.len() < 4 => drop(model.begin(usize::MAX)),
                    3 if !model.merging.is_empty() => model.end(share % model.merging.len()),
                    _ => {
                        let count = model.segments.len().max(1);
                        if let Some(segment) = model.segments.get_mut(share % count) {
                            segment.live -= segment.live * share / 100;
                        }
                    }
                }
                let all: Vec<SegmentId> = model.merging.iter().flatten().copied().collect();
                let distinct: BTreeSet<SegmentId> = all.iter().copied().collect();
                prop_assert_eq!(all.len(), distinct.len());
            }
        }

        /// How many segments are left when small ones come one after the other, and how often a row is written for that.
        #[test]
        fn segments_are_as_few_as_the_kind_promises(
            kind in kinds(), flushes in 1usize..200, rows in 1usize..16_000, deletes in 0usize..50,
        ) {
            let mut model = Model::new(of(kind));
            for _ in 0..flushes {
                model.flush(rows, deletes);
                model.settle();
                let (count, total) = (model.segments.len(), model.rows());
                let bound = match kind {
                    // Full ones lack less than what came last; and the one that is being filled.
                    MergeKind::Sequential => total.div_ceil(SEAL_ROWS - rows - deletes) + 1,
                    // Four that do not fit together are each of a quarter on average; and three on each of the levels below.
                    MergeKind::Hierarchical | MergeKind::Parallel => 4 * total / SEAL_ROWS + 3 * 3,
                };
                prop_assert!(count <= bound, "{count} segments of {total} rows; at most {bound}: {:?}", model.segments);
            }
            let times = match kind {
                // Half of what a segment has at most, a flush.
                MergeKind::Sequential => SEAL_ROWS.div_ceil(2 * (rows + deletes)) + 2,
                // A segment that is still small is written with every few flushes; later once a level.
                MergeKind::Hierarchical | MergeKind::Parallel => {
                    16_384usize.div_ceil(rows + deletes).div_ceil(3) + 3
                }
            };
            prop_assert!(model.written <= times * model.flushed, "{} of {}, {times} times", model.written, model.flushed);
        }

        /// Of segments of any size, no two are left that would fit into one by sequential merging.
        #[test]
        fn sequential_merging_leaves_no_two_that_fit(sizes in prop::collection::vec(1usize..=131_072, 1..40)) {
            let mut model = Model::new(of(MergeKind::Sequential));
            for rows in sizes {
                model.flush(rows, 0);
                model.settle();
            }
            let (count, total) = (model.segments.len(), model.rows());
            prop_assert!(count <= 2 * total / SEAL_ROWS + 1, "{count} segments of {total} rows");
        }

        /// A delete is written again once a level, not with every flush: so often as levels that its log has gone through.
        #[test]
        fn deletes_are_rewritten_a_few_times(flushes in 1usize..300, deletes in 1usize..40_000) {
            let mut model = Model::new(MergePolicy::default());
            for _ in 0..flushes {
                model.flush(0, deletes);
                model.settle();
            }
            let policy = MergePolicy::default();
            let small = policy.small_rows.div_ceil(deletes).max(1);
            let levels = |logs: usize| logs.checked_ilog(policy.small_count).map_or(0, |levels| levels as usize + 1);
            let (written, total) = (model.written, flushes * deletes);
            prop_assert!(model.segments.len() <= policy.small_count * (2 + levels(flushes)), "{} logs", model.segments.len());
            // A log that is still small is rewritten by every few flushes; later ones once a level.
            prop_assert!(written <= total * (small.div_ceil(policy.small_count - 1) + 1 + levels(flushes)), "{written} of {total}");
        }
    }
}
