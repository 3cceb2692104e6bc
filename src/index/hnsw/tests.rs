use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::base::{ErrorKind, RowMask};
use crate::index::{Source, Vectors, flat};

const METRICS: [Metric; 3] = [Metric::L2, Metric::Ip, Metric::Cosine];

/// Numbers that look random and are the same everywhere (splitmix64).
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut hash = self.0;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^ (hash >> 31)
    }

    /// In 0..1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// About normal: the sum of four uniform numbers, variance 1.
    fn normal(&mut self) -> f32 {
        ((0..4).map(|_| self.unit()).sum::<f32>() - 2.0) * 1.732
    }
}

/// Vectors around centres, as embeddings are, with lengths that differ by a factor of up to three.
struct Clustered {
    random: Seeded,
    centres: Vec<Vec<f32>>,
    dim: usize,
}

impl Clustered {
    fn new(seed: u64, dim: usize, clusters: usize) -> Self {
        let mut random = Seeded(seed);
        let centres = (0..clusters).map(|_| (0..dim).map(|_| random.normal()).collect()).collect();
        Self { random, centres, dim }
    }

    fn vector(&mut self) -> Vec<f32> {
        let centre = self.random.next() as usize % self.centres.len();
        let length = 0.5 + self.random.unit();
        (0..self.dim).map(|i| length * (self.centres[centre][i] + 0.7 * self.random.normal())).collect()
    }

    fn vectors(&mut self, rows: usize) -> Vec<f32> {
        (0..rows).flat_map(|_| self.vector()).collect()
    }
}

fn build(data: &[f32], dim: usize, metric: Metric, m: u32, ef_construction: u32) -> Hnsw {
    let vectors = Vectors::new(data, dim);
    let mut index = Hnsw::new(dim, metric, m, ef_construction);
    while index.len() < vectors.len() {
        index.insert_next(vectors);
    }
    index
}

/// The share of the true `k` nearest that the index finds, over `queries` queries.
fn recall(index: &Hnsw, data: &[f32], queries: &[f32], k: usize, ef: usize, mask: Option<&RowMask>) -> f64 {
    let vectors = Vectors::new(data, index.dim());
    let (mut hits, mut expected) = (0, 0);
    for query in queries.chunks_exact(index.dim()) {
        let truth = flat::search(vectors, 0..vectors.len() as u32, index.metric(), query, k, mask);
        let found = index.search(query, k, ef, mask, vectors);
        assert!(found.is_sorted(), "closest first");
        assert!(found.iter().all(|neighbor| mask.is_none_or(|mask| mask.contains(neighbor.row as usize))));
        let rows: HashSet<u32> = found.iter().map(|neighbor| neighbor.row).collect();
        assert_eq!(rows.len(), found.len(), "no row twice");
        // A row as close as the last true one is as good as it.
        let last = truth.last().map_or(f32::INFINITY, |neighbor| neighbor.distance);
        hits += found.iter().filter(|neighbor| neighbor.distance <= last).count();
        expected += truth.len();
    }
    hits as f64 / expected as f64
}

#[test]
fn finds_what_brute_force_finds_by_every_metric() {
    for (seed, metric) in (1..).zip(METRICS) {
        let mut source = Clustered::new(seed, 48, 60);
        let data = source.vectors(4_000);
        let queries = source.vectors(100);
        let index = build(&data, 48, metric, 16, 100);
        let all = recall(&index, &data, &queries, 10, 64, None);
        assert!(all >= 0.95, "{metric:?}: recall {all}, seed {seed}");
        for share in [0.5f32, 0.1] {
            let mask: RowMask = (0..4_000).map(|_| source.random.unit() < share).collect();
            let masked = recall(&index, &data, &queries, 10, 64, Some(&mask));
            assert!(masked >= 0.95, "{metric:?}: recall {masked} of a share of {share}, seed {seed}");
        }
    }
}

#[test]
fn finds_neighbours_beyond_a_filter_that_hides_the_nearest_clusters() {
    let mut source = Clustered::new(11, 32, 20);
    let data = source.vectors(3_000);
    let index = build(&data, 32, Metric::L2, 16, 100);
    let vectors = Vectors::new(&data, 32);
    for seed in 0..20 {
        let query = source.vector();
        // Not admitted: the third of all rows that is nearest.
        let hidden = flat::search(vectors, 0..3_000, Metric::L2, &query, 1_000, None);
        let mut mask = RowMask::all(3_000);
        hidden.iter().for_each(|neighbor| mask.remove(neighbor.row as usize));
        let recall = recall(&index, &data, &query, 10, 64, Some(&mask));
        assert!(recall >= 0.8, "query {seed}: {recall}");
    }
}

/// Once 779 of 5,000 nodes could not be reached by inner product, and 5 of 5,000 by distance: lists that shrank had dropped the only
/// link to a node. Now each node stays in a list of one before it.
#[test]
fn every_node_can_be_reached_from_every_other() {
    for (m, metric) in [(8, Metric::L2), (4, Metric::Ip), (8, Metric::Ip), (2, Metric::Cosine)] {
        let mut source = Clustered::new(5, 16, 200);
        let data = source.vectors(5_000);
        let mut index = build(&data, 16, metric, m, 60);
        let stats = index.look();
        assert_eq!((stats.unreachable, stats.rows), (0, 5_000), "{metric:?}, m {m}");
        assert!(stats.mean_degree() > f64::from(m) / 2.0, "{metric:?}, m {m}: {stats:?}");
        for from in [0, 17, 2_500, 4_999] {
            index.entry = Some(from);
            assert_eq!(index.look().unreachable, 0, "{metric:?}, m {m}, from {from}");
        }
        assert_eq!(index.parents, index.links.parents(), "what is counted while rows are inserted");
    }
}

#[test]
fn a_thousand_copies_take_one_place_in_the_graph() {
    for metric in METRICS {
        let mut source = Clustered::new(7, 24, 10);
        let mut data = source.vectors(500);
        let copy = source.vector();
        for _ in 0..1_000 {
            data.extend(&copy);
        }
        data.extend(source.vectors(500));
        let index = build(&data, 24, metric, 8, 60);
        let vectors = Vectors::new(&data, 24);
        let found = index.search(&copy, 40, 64, None, vectors);
        assert_eq!(found.len(), 40);
        if metric != Metric::Ip {
            assert!(found.iter().all(|neighbor| (500..1_500).contains(&neighbor.row)), "{metric:?}");
        }
        let queries = source.vectors(50);
        let all = recall(&index, &data, &queries, 10, 64, None);
        assert!(all >= 0.95, "{metric:?}: {all}");
        // The head of the chain is deleted, and most of the copies: the others are found in its place.
        let mask: RowMask = (0..2_000).map(|row| !(500..1_490).contains(&row)).collect();
        let found = index.search(&copy, 10, 64, Some(&mask), vectors);
        if metric != Metric::Ip {
            assert!(found.iter().all(|neighbor| (1_490..1_500).contains(&neighbor.row)), "{metric:?} {found:?}");
        }
    }
}

#[test]
fn zero_vectors_are_found_where_they_belong() {
    for metric in METRICS {
        let mut source = Clustered::new(9, 16, 4);
        // All in one half space, so that the zero vectors are nearest to a query in the other one.
        let mut data: Vec<f32> = source.vectors(600).into_iter().map(f32::abs).collect();
        for row in [3, 77, 599] {
            data[row * 16..][..16].fill(0.0);
        }
        let index = build(&data, 16, metric, 8, 60);
        let found = index.search(&[-1.0; 16], 3, 64, None, Vectors::new(&data, 16));
        let rows: HashSet<u32> = found.iter().map(|neighbor| neighbor.row).collect();
        assert_eq!(rows, HashSet::from([3, 77, 599]), "{metric:?}");
        let found = index.search(&[0.0; 16], 5, 64, None, Vectors::new(&data, 16));
        assert_eq!(found.len(), 5);
    }
}

#[test]
fn small_cases() {
    for metric in METRICS {
        let empty = Hnsw::new(4, metric, 16, 200);
        assert!(empty.is_empty());
        assert!(empty.search(&[0.0; 4], 10, 10, None, Vectors::new(&[], 4)).is_empty());
        let mut source = Clustered::new(3, 4, 2);
        let data = source.vectors(30);
        let index = build(&data, 4, metric, 2, 2);
        let vectors = Vectors::new(&data, 4);
        let query = source.vector();
        assert!(index.search(&query, 0, 10, None, vectors).is_empty());
        let all = index.search(&query, 100, 0, None, vectors);
        assert_eq!(
            all,
            flat::search(vectors, 0..30, metric, &query, 100, None),
            "k above the number of rows finds all"
        );
        assert!(index.search(&query, 5, 10, Some(&RowMask::none(30)), vectors).is_empty());
        assert!(index.search(&query, 5, 10, Some(&RowMask::default()), vectors).is_empty());
        let longer: RowMask = (0..1000).map(|row| row == 17 || row >= 30).collect();
        let found = index.search(&query, 5, 10, Some(&longer), vectors);
        assert_eq!(found.iter().map(|neighbor| neighbor.row).collect::<Vec<_>>(), [17]);
        assert!(index.memory_bytes() > 30 * 64);
    }
}

#[test]
fn numbers_at_the_edge_of_floats_end_in_an_answer() {
    for metric in METRICS {
        let mut data: Vec<f32> = Clustered::new(2, 8, 3).vectors(100);
        for (row, value) in
            [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-45, -f32::MAX].into_iter().enumerate()
        {
            data[row * 8..row * 8 + 4].fill(value);
        }
        let index = build(&data, 8, metric, 4, 20);
        for query in data.chunks_exact(8).take(8) {
            assert_eq!(index.search(query, 10, 20, None, Vectors::new(&data, 8)).len(), 10);
        }
    }
}

fn sample(metric: Metric) -> (Vec<f32>, Hnsw) {
    let mut data = Clustered::new(21, 10, 5).vectors(120);
    for row in [5, 6, 90] {
        data.copy_within(10..20, row * 10);
        data[(row + 10) * 10..][..10].fill(0.0);
    }
    let index = build(&data, 10, metric, 3, 20);
    (data, index)
}

#[test]
fn bytes_hold_the_whole_index() {
    for metric in METRICS {
        let (data, index) = sample(metric);
        let bytes = index.to_bytes();
        let opened = Hnsw::from_bytes(&bytes).unwrap();
        assert_eq!(opened.to_bytes(), bytes);
        let vectors = Vectors::new(&data, 10);
        for query in data.chunks_exact(10) {
            assert_eq!(opened.search(query, 5, 20, None, vectors), index.search(query, 5, 20, None, vectors));
        }
        // Stopping, storing and going on gives what going on alone gives.
        let mut resumed = build(&data[..500], 10, metric, 3, 20);
        resumed = Hnsw::from_bytes(&resumed.to_bytes()).unwrap();
        while resumed.len() < 120 {
            resumed.insert_next(vectors);
        }
        assert_eq!(resumed.to_bytes(), bytes);
        let empty = Hnsw::new(10, metric, 3, 20);
        assert_eq!(Hnsw::from_bytes(&empty.to_bytes()).unwrap().len(), 0);
    }
}

/// The graph and codes of these rows are part of the format: a store written by one release or target is opened by all.
#[test]
#[expect(clippy::disallowed_methods, reason = "written anew when that is asked for")]
fn bytes_are_those_of_the_golden_file() {
    let (_, index) = sample(Metric::Cosine);
    if std::env::var_os("EDDY_WRITE_GOLDEN").is_some() {
        std::fs::write("tests/golden/hnsw-v1.bin", index.to_bytes()).unwrap();
        return;
    }
    let golden = include_bytes!("../../../tests/golden/hnsw-v1.bin").as_slice();
    assert!(index.to_bytes() == golden, "the layout, the codes or the graph changed: a new version is needed");
    assert_eq!(Hnsw::from_bytes(golden).unwrap().len(), 120);
}

#[test]
fn another_version_is_unsupported() {
    let mut bytes = sample(Metric::L2).1.to_bytes();
    bytes[8] = 2;
    assert_eq!(Hnsw::from_bytes(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn every_truncation_is_corrupt() {
    let bytes = sample(Metric::L2).1.to_bytes();
    for len in 0..bytes.len() {
        let error = Hnsw::from_bytes(&bytes[..len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("at byte"), "{error}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Hnsw::from_bytes(&longer).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn huge_counts_allocate_nothing() {
    let bytes = sample(Metric::L2).1.to_bytes();
    for field in (12..60).step_by(4) {
        for value in [u32::MAX, u32::MAX - 1, 1 << 31, 1 << 20] {
            let mut wrong = bytes.clone();
            wrong[field..field + 4].copy_from_slice(&value.to_le_bytes());
            if let Err(error) = Hnsw::from_bytes(&wrong) {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "field at {field}");
            }
        }
    }
}

/// Opens bytes that may be wrong; what opens must answer and take a row, whatever it answers.
fn open_and_use(bytes: &[u8], data: &[f32]) {
    match Hnsw::from_bytes(bytes) {
        Ok(mut index) => {
            let dim = index.dim();
            let mut data = data.to_vec();
            data.resize((index.len() + 1) * dim, 0.5);
            let vectors = Vectors::new(&data, dim);
            let query = vec![0.25; dim];
            index.search(&query, 5, 20, None, vectors);
            index.search(&query, 5, 20, Some(&(0..index.len()).map(|row| row % 3 == 0).collect()), vectors);
            index.insert_next(vectors);
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported));
            assert!(error.message().contains("at byte"), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn flipped_bytes_are_refused_or_harmless(
        metric in prop::sample::select(&METRICS[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_links in any::<bool>(),
    ) {
        let (data, index) = sample(metric);
        let mut bytes = index.to_bytes();
        let from = if in_links { 60 + 120 * 72 } else { 0 };
        for (at, value) in flips {
            let at = from + at.index(bytes.len() - from);
            bytes[at] = value;
        }
        open_and_use(&bytes, &data);
    }

    #[test]
    fn swapped_neighbours_are_refused_or_harmless(
        swaps in prop::collection::vec((any::<prop::sample::Index>(), 0u32..125), 1..40),
    ) {
        let (data, index) = sample(Metric::Cosine);
        let mut bytes = index.to_bytes();
        let start = 60 + 120 * 72;
        for (at, value) in swaps {
            let at = start + at.index((bytes.len() - start) / 4) * 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        open_and_use(&bytes, &data);
    }

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        open_and_use(&bytes, &[]);
        let mut led = b"EDDYHNSW\x01\0\0\0".to_vec();
        led.extend(bytes);
        open_and_use(&led, &[]);
    }
}

/// Rows of the repository's sample: unit vectors of 384 dimensions.
fn symbols() -> Vec<f32> {
    use arrow_array::cast::AsArray as _;
    let file = include_bytes!("../../../www/sample/symbols.arrow").as_slice();
    let reader = arrow_ipc::reader::FileReader::try_new(std::io::Cursor::new(file), None).unwrap();
    let mut data = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let column = batch.column_by_name("embedding").unwrap().as_fixed_size_list();
        for row in column.values().as_primitive::<arrow_array::types::Int8Type>().values().chunks_exact(384) {
            let length = row.iter().map(|&x| f32::from(x).powi(2)).sum::<f32>().sqrt();
            data.extend(row.iter().map(|&x| f32::from(x) / length));
        }
    }
    data
}

/// Filters of a share of the rows, by what they have to do with the query.
#[derive(Debug, Clone, Copy)]
enum Filtering {
    Random,
    /// The rows nearest to the query.
    Near,
    /// Those farthest from it.
    Far,
    /// Those nearest to another row.
    Elsewhere,
    /// Random ones, near the query a tenth as often.
    Rarer,
}

fn mask_of(
    filtering: Filtering,
    share: f64,
    query: &[f32],
    index: &Hnsw,
    data: &[f32],
    random: &mut Seeded,
) -> RowMask {
    let vectors = Vectors::new(data, index.dim());
    let rows = vectors.len();
    let count = ((rows as f64 * share) as usize).max(1);
    let nearest = |query: &[f32], count: usize| -> Vec<u32> {
        let found = flat::search(vectors, 0..rows as u32, index.metric(), query, count, None);
        found.into_iter().map(|neighbor| neighbor.row).collect()
    };
    let of = |found: Vec<u32>| {
        let mut mask = RowMask::none(rows);
        found.into_iter().for_each(|row| mask.insert(row as usize));
        mask
    };
    match filtering {
        Filtering::Random => (0..rows).map(|_| f64::from(random.unit()) < share).collect(),
        Filtering::Near => of(nearest(query, count)),
        Filtering::Far => of(nearest(query, rows - count)).complement(),
        Filtering::Elsewhere => of(nearest(vectors.row(random.next() as u32 % rows as u32), count)),
        Filtering::Rarer => {
            let near = of(nearest(query, rows / 4));
            let admits = |row| f64::from(random.unit()) < if near.contains(row) { share / 10.0 } else { share };
            (0..rows).map(admits).collect()
        }
    }
}

/// Recall at 10, and comparisons as `filtered` counts their cost, of a search that nothing filters and of filtered ones.
fn check_filters(name: &str, index: &Hnsw, data: &[f32], queries: &[f32], ef: usize) {
    let (vectors, dim) = (Vectors::new(data, index.dim()), index.dim());
    let count = queries.len() / dim;
    let mut effort = Effort::default();
    for query in queries.chunks_exact(dim) {
        index.candidates_counted(query, 10, ef, None, &mut effort);
    }
    let unfiltered = effort.compared as f64 / count as f64;
    println!(
        "{name}, ef {ef}, unfiltered: recall {:.3}, cost {unfiltered:.0}",
        recall(index, data, queries, 10, ef, None)
    );
    let (mut random, mut failed) = (Seeded(77), false);
    for filtering in [Filtering::Random, Filtering::Near, Filtering::Elsewhere, Filtering::Far, Filtering::Rarer] {
        for share in [0.5, 0.1, 0.01, 0.001] {
            let (mut hits, mut expected, mut cost, mut scans) = (0, 0, 0.0, 0);
            for query in queries.chunks_exact(dim) {
                let mask = mask_of(filtering, share, query, index, data, &mut random);
                let truth = flat::search(vectors, 0..vectors.len() as u32, index.metric(), query, 10, Some(&mask));
                let mut effort = Effort::default();
                let _ = index.candidates_counted(query, 10, ef, Some(&mask), &mut effort);
                cost += effort.cost() as f64;
                scans += usize::from(effort.scanned + effort.begun > 0);
                let found = index.search(query, 10, ef, Some(&mask), vectors);
                assert!(found.iter().all(|near| mask.contains(near.row as usize)));
                assert_eq!(found.len(), truth.len());
                hits += found.iter().filter(|near| truth.iter().any(|truth| truth.row == near.row)).count();
                expected += truth.len();
            }
            let (recall, cost) = (hits as f64 / expected.max(1) as f64, cost / count as f64);
            let said = format!(
                "{name}, ef {ef}, {filtering:?} {share}: recall {recall:.3}, cost {cost:.0}, scans {scans} of {count}"
            );
            println!("{said}");
            // Where what is near the query is hidden, only looking at all rows is sure to find the nearest.
            let (least, most) = match filtering {
                Filtering::Far | Filtering::Rarer => (0.95, 20.0 * unfiltered),
                _ => (0.95, 3.0 * unfiltered),
            };
            failed |= (recall < least && expected > 0) || cost > most;
        }
    }
    assert!(!failed, "{name}, ef {ef}: see above");
}

#[test]
fn filters_lose_nothing_of_the_sample_and_cost_little() {
    let data = symbols();
    let vectors = Vectors::new(&data, 384);
    let index = build(&data, 384, Metric::Ip, 16, 100);
    let mut random = Seeded(3);
    let query = |n: u32| vectors.row(n * 191).iter().map(|x| x + 0.02 * random.normal()).collect::<Vec<_>>();
    let queries: Vec<f32> = (0..40).flat_map(query).collect();
    for ef in [24, 64] {
        check_filters("symbols", &index, &data, &queries, ef);
    }
}

#[test]
fn filters_lose_nothing_of_clusters_and_cost_little() {
    let mut source = Clustered::new(31, 48, 300);
    let data = source.vectors(40_000);
    let queries = source.vectors(30);
    let index = build(&data, 48, Metric::L2, 16, 60);
    for ef in [24, 64] {
        check_filters("clusters", &index, &data, &queries, ef);
    }
}

/// A graph over two bits a dimension holds a quarter of a KB a row, and finds as much when more rows are compared by their vectors.
#[test]
fn codes_of_two_bits_take_little_and_lose_little() {
    let data = symbols();
    let vectors = Vectors::new(&data, 384);
    let mut index = Hnsw::with_codes(384, Metric::Ip, 16, 100, GraphCodes::RaBitQ);
    while index.len() < vectors.len() {
        index.insert_next(vectors);
    }
    // As it is when it was read, without what only inserting needs.
    let index = Hnsw::from_bytes(&index.to_bytes()).unwrap();
    assert_eq!((index.codes(), index.look().unreachable), (GraphCodes::RaBitQ, 0));
    let mut random = Seeded(5);
    let query = |n: u32| vectors.row(n * 79).iter().map(|x| x + 0.02 * random.normal()).collect::<Vec<_>>();
    let queries: Vec<f32> = (0..100).flat_map(query).collect();
    let found = recall(&index, &data, &queries, 10, 64, None);
    assert!(found >= 0.95, "recall {found}");
    let bytes = index.memory_bytes() / index.len();
    assert!(bytes <= 250, "{bytes} bytes a row");
    let mask: RowMask = (0..vectors.len()).map(|_| random.unit() < 0.1).collect();
    let filtered = recall(&index, &data, &queries, 10, 64, Some(&mask));
    assert!(filtered >= 0.95, "recall {filtered} under a filter");
    println!("rabitq: recall {found}, filtered {filtered}, {bytes} bytes a row");
}

/// Bits around centres, of which each bit is another one in a fifth of the rows.
fn bits(rows: usize, width: usize, random: &mut Seeded) -> Vec<Vec<u8>> {
    let centres: Vec<Vec<u8>> = (0..40).map(|_| (0..width).map(|_| random.next() as u8).collect()).collect();
    let row = |_| {
        let centre = &centres[random.next() as usize % centres.len()];
        let noise = |random: &mut Seeded| (0..8).fold(0, |byte, bit| byte | u8::from(random.unit() < 0.2) << bit);
        centre.iter().map(|byte| byte ^ noise(random)).collect()
    };
    (0..rows).map(row).collect()
}

#[test]
fn bits_have_graphs_and_rows_without_a_vector_are_not_found() {
    for metric in [Metric::Hamming, Metric::Jaccard] {
        let mut random = Seeded(8);
        let rows = bits(2_000, 16, &mut random);
        let mut index = Hnsw::new(128, metric, 8, 60);
        for (at, row) in rows.iter().enumerate() {
            let vector = if at % 10 == 3 { VectorRef::Absent } else { VectorRef::Bits(row) };
            index.begin(vector);
            let insertion = index.look_up(vector);
            index.insert(insertion);
        }
        let opened = Hnsw::from_bytes(&index.to_bytes()).unwrap();
        assert_eq!(opened.to_bytes(), index.to_bytes());
        assert_eq!((opened.look().nodes, opened.look().unreachable), (1_800, 0));
        let measure = if metric == Metric::Jaccard { crate::distance::jaccard } else { crate::distance::hamming };
        let (mut hits, mut filtered_hits) = (0, 0);
        let mask: RowMask = (0..2_000).map(|row| row % 2 == 1).collect();
        for query in bits(40, 16, &mut random).iter().chain(&rows[..20]) {
            let nearest = |admits: &dyn Fn(usize) -> bool| {
                let present = (0..2_000).filter(|row| row % 10 != 3 && admits(*row));
                let mut all: Vec<f32> = present.map(|row| measure(query, &rows[row])).collect();
                all.sort_by(f32::total_cmp);
                all[9]
            };
            let count = |found: Vec<u32>, last: f32| {
                assert!(found.iter().all(|row| row % 10 != 3), "it has no vector");
                found.into_iter().filter(|&row| measure(query, &rows[row as usize]) <= last).count().min(10)
            };
            let found = opened.candidates(VectorRef::Bits(query), 10, 80, None).unwrap();
            hits += count(found, nearest(&|_| true));
            let found = opened.candidates(VectorRef::Bits(query), 10, 80, Some(&mask)).unwrap();
            filtered_hits += count(found, nearest(&|row| row % 2 == 1));
        }
        assert!(hits >= 540 && filtered_hits >= 570, "{metric:?}: {hits} and {filtered_hits} of 600");
    }
}

proptest! {
    #[test]
    fn flipped_bytes_of_other_codes_are_refused_or_harmless(
        of_bits in any::<bool>(),
        of_words in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut random = Seeded(4);
        let mut index = if of_bits {
            Hnsw::new(32, Metric::Jaccard, 3, 20)
        } else {
            let words = GraphCodes::Pq { num_sub_vectors: 5, nbits: 4 };
            Hnsw::with_codes(10, Metric::L2, 3, 20, if of_words { words } else { GraphCodes::RaBitQ })
        };
        let numbers = Clustered::new(6, 10, 4).vectors(80);
        let source = Source::Floats(Vectors::new(&numbers, 10));
        while index.begin_codes(&source) {
            let step = index.look_up_codes(&source);
            index.apply_codes(step);
        }
        for (row, numbers) in bits(80, 4, &mut random).iter().zip(numbers.chunks_exact(10)) {
            let vector = if of_bits { VectorRef::Bits(row) } else { VectorRef::Numbers(numbers) };
            index.begin(vector);
            let insertion = index.look_up(vector);
            index.insert(insertion);
        }
        let mut bytes = index.to_bytes();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(mut opened) = Hnsw::from_bytes(&bytes) {
            let (numbers, row) = (vec![0.5; opened.dim()], vec![5; opened.dim().div_ceil(8)]);
            let vector = if opened.metric().is_of_bits() { VectorRef::Bits(&row) } else { VectorRef::Numbers(&numbers) };
            opened.candidates(vector, 3, 9, None);
            opened.candidates(vector, 3, 9, Some(&(0..opened.len()).map(|row| row % 3 == 0).collect()));
            let numbers = vec![0.5; opened.dim() * (opened.len() + 1)];
            let source = Source::Floats(Vectors::new(&numbers, opened.dim()));
            while opened.begin_codes(&source) {
                let step = opened.look_up_codes(&source);
                opened.apply_codes(step);
            }
            opened.begin(vector);
            let insertion = opened.look_up(vector);
            opened.insert(insertion);
        }
    }
}

/// What is left of `base`, as a merge takes it over, and the comparisons that it took.
fn graft(base: &Hnsw, kept: &RowMask, rows_max: usize) -> (Hnsw, usize) {
    let model = Hnsw::with_codes(base.dim, base.metric, base.m as u32, base.ef_construction as u32, base.codes());
    let mut graft = Graft::new(base, kept, model).unwrap();
    let mut steps = 1;
    while graft.step(base, rows_max) {
        steps += 1;
        assert!(steps < 1_000_000, "it does not end");
    }
    let graph = graft.finish().unwrap();
    let compared = compared(&graph);
    (graph, compared)
}

fn compared(graph: &Hnsw) -> usize {
    graph.scratch.with(|scratch| scratch.room.compared)
}

/// The rows of `data` that are kept, one after the other.
fn kept_of(data: &[f32], dim: usize, kept: &RowMask) -> Vec<f32> {
    kept.iter().flat_map(|row| data[row * dim..][..dim].iter().copied()).collect()
}

/// What holds of every graph that was built.
fn check_ties(graph: &Hnsw) {
    let stats = graph.look();
    assert_eq!(stats.unreachable, 0, "{stats:?}");
    let node = |row: &u32| graph.zero != Some(*row) && !graph.twins.contains(*row) && !graph.is_absent(*row);
    let parents = graph.links.parents();
    for row in (0..graph.len() as u32).filter(node).skip(1) {
        assert!(parents[row as usize] > 0, "no node before {row} leads to it");
        assert!(graph.links.neighbors(row, 0).any(|other| other < row), "{row} leads to no node before it");
    }
    assert_eq!(Hnsw::from_bytes(&graph.to_bytes()).unwrap().to_bytes(), graph.to_bytes());
}

/// The largest input of a merge keeps its graph, the rows of the others are inserted: as much is found as in a graph that is built
/// from nothing, for a part of the comparisons.
#[test]
fn a_merge_by_insertion_finds_as_much_as_a_graph_built_anew() {
    let dim = 32;
    let mut low = Vec::new();
    for (seed, metric) in (40..).zip(METRICS) {
        let mut source = Clustered::new(seed, dim, 80);
        let (data, others, queries) = (source.vectors(6_000), source.vectors(2_000), source.vectors(200));
        let base = build(&data, dim, metric, 16, 100);
        let near = flat::search(Vectors::new(&data, dim), 0..6_000, metric, &queries[..dim], 2_000, None);
        let mut without_near = RowMask::all(6_000);
        near.iter().for_each(|near| without_near.remove(near.row as usize));
        let mut random = |share: f32| (0..6_000).map(|_| source.random.unit() >= share).collect::<RowMask>();
        let masks = [
            ("none", RowMask::all(6_000)),
            ("5 % of the rows", random(0.05)),
            ("30 % of the rows", random(0.3)),
            ("45 % of the rows", random(0.45)),
            ("a third, all near a point", without_near),
        ];
        for (name, kept) in masks {
            let mut rows = kept_of(&data, dim, &kept);
            let (mut merged, mended) = graft(&base, &kept, 16);
            check_ties(&merged);
            rows.extend(&others);
            let vectors = Vectors::new(&rows, dim);
            while merged.len() < vectors.len() {
                merged.insert_next(vectors);
            }
            assert_eq!(merged.parents, merged.links.parents());
            check_ties(&merged);
            let anew = build(&rows, dim, metric, 16, 100);
            let (took, would_take) = (compared(&merged), compared(&anew));
            let [merged_recall, anew_recall] =
                [&merged, &anew].map(|graph| recall(graph, &rows, &queries, 10, 24, None));
            println!(
                "{metric:?} without {name}: recall {merged_recall:.4}, built anew {anew_recall:.4}; {took} comparisons, \
                 {mended} of them to mend, built anew {would_take}"
            );
            if merged_recall < anew_recall - 0.01 || took * 2 > would_take {
                low.push((metric, name));
            }
        }
    }
    assert!(low.is_empty(), "{low:?}: see above");
}

#[test]
fn what_is_grafted_does_not_depend_on_the_steps_and_a_whole_one_is_the_same() {
    for metric in METRICS {
        let (data, index) = sample(metric);
        let (same, compared) = graft(&index, &RowMask::all(120), 1);
        assert_eq!((same.to_bytes() == index.to_bytes(), compared), (true, 0));
        // A mask may be longer: rows that are not indexed are no matter.
        let kept: RowMask = (0..200).map(|row| row % 5 != 1).collect();
        let (small, large) = (graft(&index, &kept, 1).0, graft(&index, &kept, 1_000).0);
        assert!(small.to_bytes() == large.to_bytes());
        assert_eq!(small.len(), 96);
        // It goes on growing.
        let mut grown = small;
        let mut rows = kept_of(&data, 10, &(0..120).map(|row| row % 5 != 1).collect());
        rows.extend(&data);
        while grown.len() < 216 {
            grown.insert_next(Vectors::new(&rows, 10));
        }
        check_ties(&grown);
    }
}

#[test]
fn little_is_worth_grafting_only_when_half_is_left_and_it_hangs_together() {
    let (_, mut index) = sample(Metric::L2);
    let model = || Hnsw::new(10, Metric::L2, 3, 20);
    let few: RowMask = (0..120).map(|row| row < 59).collect();
    assert!(Graft::new(&index, &few, model()).is_none());
    let all = RowMask::all(120);
    assert!(Graft::new(&index, &all, Hnsw::new(10, Metric::Ip, 3, 20)).is_none());
    assert!(Graft::new(&index, &all, Hnsw::new(10, Metric::L2, 4, 20)).is_none());
    assert!(Graft::new(&index, &all, model()).is_some());
    index.cut_off(70);
    let mut steps = 0;
    while index.look_some(7) {
        steps += 1;
    }
    assert!(steps > 20 && index.unreachable_known() == 1, "{steps} steps");
    assert_eq!(index.stats(false), index.look());
    assert!(Graft::new(&index, &all, model()).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever is left out, all that is left can be reached and found: copies, zeros and rows without a vector among them.
    #[test]
    fn all_that_is_kept_can_be_reached(
        seed in any::<u64>(),
        metric in prop::sample::select(&METRICS[..]),
        m in 2u32..6,
        share in 0.0f32..0.5,
    ) {
        let mut source = Clustered::new(seed, 6, 4);
        let rows = 40 + source.random.next() as usize % 200;
        let mut vectors: Vec<Option<Vec<f32>>> = Vec::new();
        for row in 0..rows {
            let vector = match source.random.next() % 10 {
                0 => None,
                1 => Some(vec![0.0; 6]),
                2 | 3 if row > 0 => vectors[source.random.next() as usize % row].clone(),
                _ => Some(source.vector()),
            };
            vectors.push(vector);
        }
        let mut index = Hnsw::new(6, metric, m, 16);
        for vector in &vectors {
            let vector = vector.as_deref().map_or(VectorRef::Absent, VectorRef::Numbers);
            index.begin(vector);
            let insertion = index.look_up(vector);
            index.insert(insertion);
        }
        let kept: RowMask = (0..rows).map(|_| source.random.unit() >= share).collect();
        prop_assume!(kept.count() * 2 >= rows);
        let model = Hnsw::new(6, metric, m, 16);
        let mut graft = Graft::new(&index, &kept, model).unwrap();
        while graft.step(&index, 1) {}
        // With two or three slots a level a list may be full of rows that nothing else leads to.
        let Some(graph) = graft.finish() else { return Ok(()) };
        check_ties(&graph);
        prop_assert_eq!(graph.len(), kept.count());
        let found = graph.candidates(&[0.3f32; 6][..], rows, rows, None);
        prop_assert!(found.is_none(), "all are compared");
        let zero_rows = graph.zero.into_iter().flat_map(|head| std::iter::once(head).chain(graph.twins.of(head))).count();
        let nodes = graph.look().nodes;
        let chained = (0..graph.len() as u32).filter(|&row| graph.twins.contains(row)).count();
        let absent = (0..graph.len() as u32).filter(|&row| graph.is_absent(row)).count();
        let expected = kept.iter().filter(|&row| vectors[row].is_none()).count();
        prop_assert_eq!(absent, expected);
        prop_assert_eq!(nodes + chained + absent + usize::from(graph.zero.is_some()), graph.len());
        if metric != Metric::L2 {
            let zeros = kept.iter().filter(|&row| vectors[row].as_ref().is_some_and(|v| v.iter().all(|&x| x == 0.0)));
            prop_assert_eq!(zero_rows, zeros.count());
        }
    }
}

/// Arrays that grow had twice the room that they needed, and counts of parents stayed: 873 bytes a row, where the same graph takes 560
/// when it is opened.
#[test]
fn a_finished_graph_takes_hardly_more_than_an_opened_one() {
    let data = symbols();
    let rows = &data[..384 * 2_600];
    let mut index = build(rows, 384, Metric::Cosine, 16, 40);
    let opened = Hnsw::from_bytes(&index.to_bytes()).unwrap();
    let (growing, least) = (index.memory_bytes(), opened.memory_bytes());
    assert!(growing <= least * 9 / 8 + 2_600 * 5, "{growing} while it grows, {least} opened");
    index.settle();
    let settled = index.memory_bytes();
    println!("a row: {} while it grows, {} settled, {} opened", growing / 2_600, settled / 2_600, least / 2_600);
    assert!(settled <= least * 105 / 100, "{settled} settled, {least} opened");
    // It can grow on.
    index.insert_next(Vectors::new(&data[..384 * 2_601], 384));
    assert_eq!(index.len(), 2_601);
}

/// Words are trained anew when there are 4,000 rows. What comes of it does not depend on when steps are taken, nor on whether the graph
/// was stored in between, and rows are found all the time.
#[test]
fn words_are_trained_as_the_graph_grows() {
    let (dim, codes) = (12, GraphCodes::Pq { num_sub_vectors: 6, nbits: 4 });
    for metric in METRICS {
        let mut source = Clustered::new(91, dim, 30);
        let mut data = source.vectors(4_100);
        data[dim * 50..dim * 51].fill(0.0);
        let vectors = Vectors::new(&data, dim);
        let mut index = Hnsw::with_codes(dim, metric, 4, 24, codes);
        for at in [1_500, 3_999, 4_000, 4_100] {
            while index.len() < at {
                index.insert_next(vectors);
            }
            check_ties(&index);
            index = Hnsw::from_bytes(&index.to_bytes()).unwrap();
        }
        assert_eq!(index.codes(), codes);
        let spec = crate::index::IndexSpec {
            metric,
            kind: crate::index::IndexKind::Hnsw { m: 4, ef_construction: 24, codes },
        };
        let mut stepped = crate::index::VectorIndex::new(&spec, dim).unwrap();
        for rows in [1_000, 2_345, 4_050, 4_100] {
            let source = Source::Floats(Vectors::new(&data[..rows * dim], dim));
            while stepped.has_work(rows) {
                stepped.begin(&source);
                let step = stepped.look_up(&source);
                stepped.apply(step);
            }
            let crate::index::VectorIndex::Hnsw(graph) = &stepped else { panic!() };
            let found = recall(graph, &data[..rows * dim], &data[..20 * dim], 5, 64, None);
            assert!(found >= 0.8, "{metric:?}, {rows} rows: {found}");
        }
        let bytes = |part| stepped.part(part);
        let stepped: Vec<u8> = (0..).map_while(bytes).flatten().collect();
        assert!(index.to_bytes() == stepped, "{metric:?}");
        // A merge takes the words over.
        let kept: RowMask = (0..4_100).map(|row| row % 4 != 1).collect();
        let (merged, _) = graft(&index, &kept, 16);
        check_ties(&merged);
        let rows = kept_of(&data, dim, &kept);
        let found = recall(&merged, &rows, &data[..20 * dim], 5, 64, None);
        assert!(found >= 0.8, "{metric:?}, merged: {found}");
    }
}

/// Pruning as of Vamana keeps more links, and a search that keeps as many candidates finds more.
#[test]
fn lists_that_are_spread_out_lead_faster() {
    let dim = 48;
    let mut source = Clustered::new(15, dim, 400);
    let (data, queries) = (source.vectors(6_000), source.vectors(200));
    let build = |alpha: u32| {
        let mut index = Hnsw::new(dim, Metric::L2, 16, 60).spread_out(alpha);
        while index.len() < 6_000 {
            index.insert_next(Vectors::new(&data, dim));
        }
        index
    };
    let (plain, spread) = (build(100), build(120));
    check_ties(&spread);
    assert!(spread.look().mean_degree() > plain.look().mean_degree());
    for ef in [12, 16, 24, 48] {
        let [plain, spread] = [&plain, &spread].map(|index| {
            let mut effort = Effort::default();
            for query in queries.chunks_exact(dim) {
                index.candidates_counted(query, 10, ef, None, &mut effort);
            }
            (recall(index, &data, &queries, 10, ef, None), effort.compared / 200)
        });
        println!(
            "ef {ef}: alpha 1.0 recall {:.4}, {} compared; alpha 1.2 {:.4}, {}",
            plain.0, plain.1, spread.0, spread.1
        );
        assert!(spread.0 >= plain.0 - 0.002, "ef {ef}");
    }
    let ip = Hnsw::new(4, Metric::Ip, 4, 8).spread_out(150);
    assert_eq!(ip.alpha_percent, 100, "a product is no distance");
}
