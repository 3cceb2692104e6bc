//! Every kind of index against brute force, over the sample that the console shows: real embeddings of 384 dimensions. Each kind has a
//! floor, with what is usual where nothing is said.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

mod filters;

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::Int8Type;
use eddydb::base::RowMask;
use eddydb::distance::Metric;
use eddydb::index::{GraphCodes, IndexKind, IndexSpec, SearchParams, Source, VectorIndex, Vectors, flat};
use eddydb::model::Value;

const DIM: usize = 384;
const K: usize = 10;
/// One row in so many is a query, and not in the index.
const QUERY_EVERY: usize = 30;

struct Sample {
    rows: Vec<f32>,
    queries: Vec<Vec<f32>>,
}

#[expect(clippy::disallowed_types, reason = "a test reads the sample")]
fn sample() -> Sample {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("www/sample/symbols.arrow");
    let reader = arrow_ipc::reader::FileReader::try_new(std::fs::File::open(path).unwrap(), None).unwrap();
    let (mut rows, mut queries, mut count) = (Vec::new(), Vec::new(), 0);
    for batch in reader {
        let batch = batch.unwrap();
        let column = batch.columns().iter().find_map(|column| column.as_fixed_size_list_opt()).unwrap();
        let numbers = column.values().as_primitive::<Int8Type>().values();
        for vector in numbers.chunks_exact(DIM) {
            let square: f32 = vector.iter().map(|&x| f32::from(x) * f32::from(x)).sum();
            let unit = vector.iter().map(|&x| f32::from(x) / square.sqrt());
            count += 1;
            if count % QUERY_EVERY == 0 { queries.push(unit.collect()) } else { rows.extend(unit) }
        }
    }
    Sample { rows, queries }
}

impl Sample {
    fn vectors(&self) -> Vectors<'_> {
        Vectors::new(&self.rows, DIM)
    }

    fn build(&self, metric: Metric, kind: IndexKind) -> VectorIndex {
        let mut index = VectorIndex::new(&IndexSpec { metric, kind }, DIM).unwrap();
        let source = Source::Floats(self.vectors());
        while index.has_work(source.len()) {
            index.begin(&source);
            let step = index.look_up(&source);
            index.apply(step);
        }
        index.settle();
        index
    }

    fn recall(&self, index: &VectorIndex, metric: Metric, params: &SearchParams, mask: Option<&RowMask>) -> f64 {
        let (mut hits, mut all) = (0, 0);
        for query in &self.queries {
            let truth = flat::search(self.vectors(), 0..index.len() as u32, metric, query, K, mask);
            let found = index.search(&Value::Vector(query.clone()), K, params, mask, &Source::Floats(self.vectors()));
            hits += truth.iter().filter(|truth| found.iter().any(|found| found.row == truth.row)).count();
            all += truth.len();
        }
        hits as f64 / all as f64
    }
}

#[test]
fn every_kind_reaches_its_floor() {
    let sample = sample();
    assert!(sample.vectors().len() > 5_000 && sample.queries.len() > 100);
    let nlist = 128;
    let kinds = [
        (IndexKind::HNSW, 0.97),
        (IndexKind::IvfFlat { nlist }, 0.95),
        (IndexKind::IvfSq8 { nlist }, 0.95),
        (IndexKind::IvfPq { nlist, m: 96, nbits: 8 }, 0.95),
        (IndexKind::IvfPq { nlist, m: 96, nbits: 4 }, 0.90),
        (IndexKind::IvfRabitq { nlist }, 0.95),
        (IndexKind::Scann { nlist }, 0.95),
        (IndexKind::Hnsw { m: 16, ef_construction: 200, codes: GraphCodes::RaBitQ }, 0.97),
        (
            IndexKind::Hnsw { m: 16, ef_construction: 200, codes: GraphCodes::Pq { num_sub_vectors: 96, nbits: 8 } },
            0.97,
        ),
        (IndexKind::DiskAnn { max_degree: 56, search_list_size: 100, codes: GraphCodes::RaBitQ }, 0.97),
        (IndexKind::DiskAnn { max_degree: 56, search_list_size: 100, codes: GraphCodes::Sq8 }, 0.97),
    ];
    #[cfg(feature = "hnsw-static")]
    let kinds = kinds.into_iter().chain([(IndexKind::HnswStatic { ef_construction: 100, ef_search: 100 }, 0.97)]);
    let some: RowMask = (0..sample.vectors().len()).map(|row| row % 10 == 3).collect();
    let mut low = Vec::new();
    for (kind, floor) in kinds {
        let is_graph = matches!(kind, IndexKind::Hnsw { .. } | IndexKind::DiskAnn { .. });
        // Of unit vectors both order alike, but codes hold something else for each.
        for metric in if is_graph { &[Metric::Cosine][..] } else { &[Metric::Cosine, Metric::L2] } {
            let metric = *metric;
            let index = sample.build(metric, kind);
            let usual = SearchParams { ef: Some(64), ..SearchParams::default() };
            let found = sample.recall(&index, metric, &usual, None);
            let filtered = sample.recall(&index, metric, &usual, Some(&some));
            let wide = SearchParams { ef: Some(400), nprobe: Some(128), reorder_k: Some(400), search_list: None };
            let most = sample.recall(&index, metric, &wide, None);
            let bytes = index.memory_bytes() / index.len();
            // Vectors that a search compares, which it reads where they are in storage.
            let read = |query: &Vec<f32>| {
                let rows = index.candidates(&Value::Vector(query.clone()), K, &usual, None);
                rows.map_or(index.len(), |rows| rows.len())
            };
            let reads = sample.queries.iter().map(read).sum::<usize>() / sample.queries.len();
            println!(
                "{kind:?} {}: recall {found:.4}, of one row in ten {filtered:.4}, wide {most:.4}; {bytes} bytes a row, {reads} vectors read",
                metric.name()
            );
            if is_graph && reads > 6 * K {
                low.push((kind, metric, reads as f64, 0.0, 0.0));
            }
            if found < floor || filtered < floor.min(0.95) || most < 0.98 {
                low.push((kind, metric, found, filtered, most));
            }
        }
    }
    assert!(low.is_empty(), "below their floors: {low:?}");
}
