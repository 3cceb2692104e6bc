use proptest::prelude::*;

use super::*;
use crate::base::{ErrorKind, Random, RowMask};
use crate::index::{SearchParams, Vectors, flat};

const CODES: [ListCode; 6] = [
    ListCode::None,
    ListCode::Sq8,
    ListCode::RaBitQ,
    ListCode::Pq { m: 5, nbits: 8 },
    ListCode::Pq { m: 3, nbits: 4 },
    ListCode::Scann,
];
const METRICS: [Metric; 3] = [Metric::L2, Metric::Ip, Metric::Cosine];

/// Rows around centers, by a seed.
pub(super) fn clustered(seed: u64, dim: usize, clusters: usize, rows: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    let mut number = move || (0..3).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).sum::<f32>();
    let centers: Vec<f32> = (0..clusters * dim).map(|_| number()).collect();
    let mut which = Random::new(seed + 1);
    (0..rows)
        .flat_map(|_| {
            let center = which.below(clusters as u64) as usize * dim;
            centers[center..center + dim].iter().map(|x| x + 0.4 * number()).collect::<Vec<f32>>()
        })
        .collect()
}

fn grow(index: &mut Ivf, source: &Source<'_>) -> usize {
    let mut steps = 0;
    while index.has_work(source.len()) {
        index.begin(source);
        let step = index.look_up(source);
        index.apply(step);
        steps += 1;
    }
    steps
}

fn build(data: &[f32], dim: usize, metric: Metric, nlist: u32, code: ListCode) -> Ivf {
    let mut index = Ivf::new(dim, metric, nlist, code);
    grow(&mut index, &Source::Floats(Vectors::new(data, dim)));
    index
}

fn bytes(index: &Ivf) -> Vec<u8> {
    (0..).map_while(|part| index.part(part)).flatten().collect()
}

fn recall(index: &Ivf, data: &[f32], queries: &[f32], params: &SearchParams, mask: Option<&RowMask>) -> f64 {
    let (dim, vectors) = (index.dim(), Vectors::new(data, index.dim()));
    let (mut found, mut all) = (0, 0);
    for query in queries.chunks_exact(dim) {
        let truth = flat::search(vectors, 0..index.len() as u32, index.metric(), query, 10, mask);
        let near = index.search(&Value::Vector(query.to_vec()), 10, params, mask, &Source::Floats(vectors));
        assert!(near.is_sorted());
        found += truth.iter().filter(|truth| near.iter().any(|near| near.row == truth.row)).count();
        all += truth.len();
    }
    found as f64 / all as f64
}

/// The same code with as many words as are usual: one for two or four dimensions.
fn fine(code: ListCode) -> ListCode {
    match code {
        ListCode::Pq { nbits: 8, .. } => ListCode::Pq { m: 20, nbits: 8 },
        ListCode::Pq { .. } => ListCode::Pq { m: 33, nbits: 4 },
        other => other,
    }
}

#[test]
fn nearest_rows_are_found() {
    for (dim, rows) in [(48, 6_000), (100, 3_000)] {
        let all = clustered(3, dim, 60, rows + 50);
        let (data, queries) = all.split_at(rows * dim);
        for metric in METRICS {
            for code in CODES.map(fine) {
                let index = build(data, dim, metric, 64, code);
                assert_eq!(index.len(), rows);
                let usual = recall(&index, data, queries, &SearchParams::default(), None);
                assert!(usual >= 0.93, "{metric:?} {code:?} {dim}: {usual}");
                let all = SearchParams { nprobe: Some(64), reorder_k: Some(200), ..SearchParams::default() };
                let all = recall(&index, data, queries, &all, None);
                assert!(all >= 0.99, "{metric:?} {code:?} {dim}, all lists: {all}");
            }
        }
    }
}

#[test]
fn filters_lose_nothing() {
    let dim = 48;
    let all = clustered(4, dim, 60, 8_050);
    let (data, queries) = all.split_at(8_000 * dim);
    for code in CODES.map(fine) {
        let index = build(data, dim, Metric::L2, 64, code);
        for share in [2, 10, 100, 500] {
            let mask: RowMask = (0..8_000).map(|row| row % share == 1).collect();
            let recall = recall(&index, data, queries, &SearchParams::default(), Some(&mask));
            assert!(recall >= 0.93, "{code:?}, one in {share}: {recall}");
        }
        // Only rows far from the query are admitted.
        let mut sum = 0.0;
        for query in queries.chunks_exact(dim).take(10) {
            let near = flat::search(Vectors::new(data, dim), 0..8_000, Metric::L2, query, 4_000, None);
            let mut mask = RowMask::all(8_000);
            near.iter().for_each(|near| mask.remove(near.row as usize));
            sum += recall(&index, data, query, &SearchParams::default(), Some(&mask));
        }
        assert!(sum >= 8.0, "{code:?}: {sum} of 10");
        let query = &queries[..dim];
        let few: RowMask = (0..8_000).map(|row| row == 17).collect();
        let source = Source::Floats(Vectors::new(data, dim));
        let found = index.search(&Value::Vector(query.to_vec()), 10, &SearchParams::default(), Some(&few), &source);
        assert_eq!(found.iter().map(|near| near.row).collect::<Vec<_>>(), [17]);
    }
}

/// When steps are taken, and how many rows there are at the time, does not show in the end.
#[test]
fn bytes_follow_from_the_rows_alone() {
    let dim = 20;
    let data = clustered(5, dim, 30, 4_500);
    for code in CODES {
        let whole = build(&data, dim, Metric::Cosine, 100, code);
        assert_eq!(whole.serving.as_ref().unwrap().trained, 4_000);
        let mut grown = Ivf::new(dim, Metric::Cosine, 100, code);
        let mut covered = 0;
        for rows in [10, 999, 1_000, 1_001, 2_500, 3_999, 4_100, 4_500] {
            let source = Source::Floats(Vectors::new(&data[..rows * dim], dim));
            grow(&mut grown, &source);
            assert!(grown.len() >= covered);
            covered = grown.len();
            assert_eq!(covered, if rows < 1_000 { 0 } else { rows });
            // Stored and opened between.
            grown = Ivf::from_bytes(&bytes(&grown)).unwrap();
        }
        assert!(bytes(&grown) == bytes(&whole), "{code:?}");
        // Rows come while centroids are being trained.
        let mut late = Ivf::new(dim, Metric::Cosine, 100, code);
        for rows in (1_000..=4_500).step_by(7) {
            let source = Source::Floats(Vectors::new(&data[..rows * dim], dim));
            late.begin(&source);
            let step = late.look_up(&source);
            late.apply(step);
        }
        grow(&mut late, &Source::Floats(Vectors::new(&data, dim)));
        assert!(bytes(&late) == bytes(&whole), "{code:?}");
    }
}

#[test]
fn special_vectors_end_in_an_answer() {
    let dim = 9;
    let mut data = clustered(6, dim, 3, 1_200);
    let odd = [f32::NAN, f32::INFINITY, f32::MAX, 1e-45, -f32::MAX, 0.0];
    for (row, value) in odd.into_iter().enumerate() {
        data[row * dim..(row + 1) * dim].fill(value);
    }
    // All alike: one list has them all.
    data[600 * dim..].fill(0.5);
    for metric in METRICS {
        for code in CODES {
            let index = build(&data, dim, metric, 16, code);
            let source = Source::Floats(Vectors::new(&data, dim));
            for query in data.chunks_exact(dim).take(8) {
                let found = index.search(&Value::Vector(query.to_vec()), 10, &SearchParams::default(), None, &source);
                assert_eq!(found.len(), 10);
            }
        }
    }
}

fn sample(code: ListCode) -> (Vec<f32>, Ivf) {
    let data = clustered(21, 10, 5, 1_100);
    let index = build(&data, 10, Metric::L2, 8, code);
    (data, index)
}

#[cfg_attr(native, expect(clippy::disallowed_methods, reason = "a test writes the golden files"))]
#[test]
fn bytes_are_those_of_the_golden_files() {
    let golden: [(&str, &[u8]); 6] = [
        ("flat", include_bytes!("../../../tests/golden/ivf-flat-v1.bin")),
        ("sq8", include_bytes!("../../../tests/golden/ivf-sq8-v1.bin")),
        ("rabitq", include_bytes!("../../../tests/golden/ivf-rabitq-v1.bin")),
        ("pq8", include_bytes!("../../../tests/golden/ivf-pq8-v1.bin")),
        ("pq4", include_bytes!("../../../tests/golden/ivf-pq4-v1.bin")),
        ("scann", include_bytes!("../../../tests/golden/ivf-scann-v1.bin")),
    ];
    for (code, (name, golden)) in CODES.into_iter().zip(golden) {
        let (data, index) = sample(code);
        #[cfg(native)]
        if std::env::var_os("EDDY_WRITE_GOLDEN").is_some() {
            let path = format!("{}/tests/golden/ivf-{name}-v1.bin", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, bytes(&index)).unwrap();
            continue;
        }
        assert!(bytes(&index) == golden, "{name}: the layout, the lists or the codes changed: a new version is needed");
        let opened = Ivf::from_bytes(golden).unwrap();
        let source = Source::Floats(Vectors::new(&data, 10));
        for query in data.chunks_exact(10).take(20) {
            let query = Value::Vector(query.to_vec());
            let search = |index: &Ivf| index.search(&query, 5, &SearchParams::default(), None, &source);
            assert_eq!(search(&opened), search(&index));
        }
    }
}

#[test]
fn damaged_bytes_are_refused() {
    let bytes = bytes(&sample(ListCode::Sq8).1);
    let mut other = bytes.clone();
    other[8] = 2;
    assert_eq!(Ivf::from_bytes(&other).unwrap_err().kind(), ErrorKind::Unsupported);
    for len in (0..500).chain([bytes.len() - 1]) {
        let error = Ivf::from_bytes(&bytes[..len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("at byte"), "{error}");
    }
    for field in (12..52).step_by(4) {
        for value in [u32::MAX, 1 << 31, 1 << 20, 0] {
            let mut wrong = bytes.clone();
            wrong[field..field + 4].copy_from_slice(&value.to_le_bytes());
            if let Err(error) = Ivf::from_bytes(&wrong) {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "field at {field}");
            }
        }
    }
    let untrained = Ivf::new(4, Metric::Ip, 10, ListCode::RaBitQ);
    let opened = Ivf::from_bytes(&super::tests::bytes(&untrained)).unwrap();
    assert_eq!((opened.len(), opened.code()), (0, ListCode::RaBitQ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn flipped_bytes_are_refused_or_harmless(
        code in prop::sample::select(&CODES[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (data, index) = sample(code);
        let mut bytes = bytes(&index);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let Ok(mut opened) = Ivf::from_bytes(&bytes) else { return Ok(()) };
        if opened.dim() != 10 || opened.len() > 1_100 || opened.metric() != index.metric() {
            return Ok(());
        }
        let source = Source::Floats(Vectors::new(&data, 10));
        let query = Value::Vector(data[..10].to_vec());
        opened.search(&query, 5, &SearchParams::default(), None, &source);
        opened.search(&query, 5, &SearchParams::default(), Some(&(0..1_100).map(|row| row % 3 == 0).collect()), &source);
        opened.begin(&source);
        let step = opened.look_up(&source);
        opened.apply(step);
    }
}
