//! The native side of the storage bench: durable writes beside the bare file system, reopening, bytes on disk, compaction, memory. Prints
//! one JSON object.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "a bench reads the clock and writes bare files"
)]

mod metered;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eddydb::base::compress::Codec;
use eddydb::base::{Random, Result};
use eddydb::db::{Collection, Db, HybridRequest, Options, SearchRequest};
use eddydb::engine::CollectionSpec;
use eddydb::model::{Batch, Row, Value};
use eddydb::query::Rerank;
use eddydb::storage::FileStorage;
use metered::Metered;
use serde_json::{Value as Json, json};

const DIM: usize = 384;
const WRITES: usize = 640;
const TOGETHER: usize = 64;
/// As often as that 64 writers write together, and a bare file is appended to.
const ROUNDS: usize = 8;
const BATCH: usize = 1_000;
const BATCHES: usize = 30;
/// The segments that are merged, and their rows.
const MERGED: usize = 3;
const MERGED_BATCHES: usize = 5;
/// As many rows as the largest of the real sets has.
const ROWS: usize = 63_166;

async fn open(directory: &Path, options: Options) -> Result<Db> {
    Db::open(Arc::new(FileStorage::open(directory)?), options).await
}

fn spec(index: &str) -> CollectionSpec {
    let text = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"embedding","type":"float_vector","dim":{DIM}}}],
        "dynamic":false,"indexes":{{"embedding":{{"metric":"IP","kind":{index}}}}}}}"#
    );
    serde_json::from_str(&text).expect("a spec")
}

/// Vectors around a thousand centres, seeded: an index over pure noise would be no index.
struct Rows {
    random: Random,
    centres: Vec<Vec<f32>>,
}

impl Rows {
    fn new() -> Self {
        let mut random = Random::new(1);
        let centres = (0..1_000).map(|_| (0..DIM).map(|_| unit(&mut random)).collect()).collect();
        Self { random, centres }
    }

    fn vector(&mut self) -> Vec<f32> {
        let centre = self.random.below(self.centres.len() as u64) as usize;
        let random = &mut self.random;
        let mut vector: Vec<f32> = self.centres[centre].iter().map(|x| x + 0.5 * unit(random)).collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= length);
        vector
    }

    fn batch(&mut self, collection: &Collection, from: usize, count: usize) -> Batch {
        let rows = (from..from + count).map(|id| {
            Row::from([
                ("id".to_owned(), Value::Int(id as i64)),
                ("embedding".to_owned(), Value::Vector(self.vector())),
            ])
        });
        Batch::from_rows(&collection.spec().schema, rows.collect()).expect("rows that fit")
    }
}

fn unit(random: &mut Random) -> f32 {
    (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// A bare file that is appended to and synced, with nothing around it.
struct Bare {
    file: std::fs::File,
    path: PathBuf,
    times: usize,
    seconds: f64,
}

impl Bare {
    fn new(directory: &Path) -> Self {
        let path = directory.join("bare");
        let file = OpenOptions::new().create(true).append(true).open(&path).expect("the bare file is made");
        Self { file, path, times: 0, seconds: 0.0 }
    }

    fn append(&mut self, bytes: usize, times: usize) {
        let bytes = vec![7; bytes];
        let start = Instant::now();
        for _ in 0..times {
            self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).expect("the bare file is written");
        }
        self.times += times;
        self.seconds += start.elapsed().as_secs_f64();
    }

    /// How many a second.
    fn rate(self) -> f64 {
        std::fs::remove_file(self.path).expect("the bare file goes");
        self.times as f64 / self.seconds
    }
}

/// The sample: filling, indexing, opening again.
async fn sample(bytes: Vec<u8>, directory: &Path) -> Result<Json> {
    let store = directory.join("sample");
    let start = Instant::now();
    let db = open(&store, Options::default()).await?;
    db.load_dataset("symbols", bytes.into(), |_, _| {}).await?;
    while db.maintain().await? {}
    let fill_seconds = start.elapsed().as_secs_f64();
    db.close().await?;
    drop(db);
    let start = Instant::now();
    let db = open(&store, Options::default()).await?;
    first_result(&db, "symbols", DIM).await?;
    let open_seconds = start.elapsed().as_secs_f64();
    db.close().await?;
    Ok(json!({ "fill_seconds": fill_seconds, "open_seconds": open_seconds }))
}

async fn first_result(db: &Db, name: &str, dim: usize) -> Result<()> {
    let request = SearchRequest { vector: vec![0.05; dim].into(), limit: 10, ..Default::default() };
    assert_eq!(db.collection(name)?.search(&request).await?.hits.len(), 10, "{name} answers");
    Ok(())
}

/// Durable writes, in turn with bare appends and syncs of as many bytes: how fast a disk syncs changes from one second to the next.
async fn writes(directory: &Path) -> Result<Json> {
    let db = open(&directory.join("writes"), Options::default()).await?;
    let collection = db.create_collection("rows", spec("\"FLAT\"")).await?;
    let mut rows = Rows::new();

    let before = db.storage_bytes().await?;
    collection.upsert(rows.batch(&collection, 0, BATCH)).await?;
    let batch_bytes = (db.storage_bytes().await? - before) as usize;
    let batches: Vec<Batch> = (1..=BATCHES).map(|n| rows.batch(&collection, n * BATCH, BATCH)).collect();
    let (mut seconds, mut bare) = (0.0, Bare::new(directory));
    for batch in batches {
        let start = Instant::now();
        collection.upsert(batch).await?;
        seconds += start.elapsed().as_secs_f64();
        bare.append(batch_bytes, 1);
    }
    let (batches_rate, bare_batches) = (BATCHES as f64 / seconds, bare.rate());

    let single_bytes = 4 * DIM + 400;
    let singles: Vec<Batch> = (0..WRITES).map(|n| rows.batch(&collection, 1_000_000 + n, 1)).collect();
    let (mut seconds, mut bare) = (0.0, Bare::new(directory));
    for batch in singles {
        let start = Instant::now();
        collection.upsert(batch).await?;
        seconds += start.elapsed().as_secs_f64();
        bare.append(single_bytes, 1);
    }
    let (alone, bare_singles) = (WRITES as f64 / seconds, bare.rate());

    // Each of 64 writers waits for its own row, then writes the next.
    let (mut seconds, mut bare) = (0.0, Bare::new(directory));
    for round in 0..ROUNDS {
        let mut shares: Vec<Vec<Batch>> = (0..TOGETHER).map(|_| Vec::new()).collect();
        let first = 2_000_000 + round * WRITES;
        for (n, batch) in (0..WRITES).map(|n| (n, rows.batch(&collection, first + n, 1))) {
            shares[n % TOGETHER].push(batch);
        }
        let start = Instant::now();
        let writers = shares.into_iter().map(|share| {
            let collection = collection.clone();
            tokio::spawn(async move {
                for batch in share {
                    collection.upsert(batch).await?;
                }
                Ok::<_, eddydb::base::Error>(())
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.expect("a writer ends")?;
        }
        seconds += start.elapsed().as_secs_f64();
        bare.append(single_bytes, WRITES / ROUNDS);
    }
    let together = (WRITES * ROUNDS) as f64 / seconds;
    db.close().await?;
    Ok(json!({
        "batch_rows_per_second": batches_rate * BATCH as f64, "bare_batch_rows_per_second": bare_batches * BATCH as f64,
        "writes_per_second": alone, "bare_per_second": bare_singles,
        "writes_together_per_second": together, "bare_beside_together_per_second": bare.rate(),
    }))
}

/// Opens a large store whose files are not in the page cache, where the system lets us drop them.
async fn large(directory: &Path) -> Result<Json> {
    let store = directory.join("large");
    let db = open(&store, Options::default()).await?;
    let collection = db.create_collection("rows", spec(r#"{"HNSW":{"m":16,"ef_construction":100}}"#)).await?;
    let mut rows = Rows::new();
    for from in (0..ROWS).step_by(BATCH) {
        let batch = rows.batch(&collection, from, BATCH.min(ROWS - from));
        collection.upsert(batch).await?;
    }
    while db.maintain().await? {}
    db.flush("rows").await?;
    while db.maintain().await? {}
    let held = db.memory();
    let everything = held.total();
    db.close().await?;
    drop((collection, db));

    // Cold where this process may say so; the figure tells which it was.
    let cold = std::process::Command::new("sync").status().is_ok()
        && std::fs::OpenOptions::new()
            .write(true)
            .open("/proc/sys/vm/drop_caches")
            .and_then(|mut file| file.write_all(b"3"))
            .is_ok();
    let start = Instant::now();
    let db = open(&store, Options::default()).await?;
    first_result(&db, "rows", DIM).await?;
    let open_seconds = start.elapsed().as_secs_f64();
    db.close().await?;
    drop(db);

    let limit = everything / 3;
    let db = open(&store, Options { memory_limit_bytes: Some(limit), ..Options::default() }).await?;
    let collection = db.collection("rows")?;
    let mut most = 0;
    let start = Instant::now();
    for _ in 0..200 {
        let request = SearchRequest { vector: rows.vector().into(), limit: 10, ..Default::default() };
        collection.search(&request).await?;
        while db.maintain().await? {}
        most = most.max(db.memory().total());
    }
    let limited_ms = start.elapsed().as_secs_f64() * 1e3 / 200.0;
    db.close().await?;
    Ok(
        json!({ "rows": ROWS, "open_seconds": open_seconds, "cold": cold, "memory_bytes": everything, "limit_bytes": limit,
        "limited_memory_bytes": most, "limited_search_ms": limited_ms }),
    )
}

/// Bytes on disk of a row of the sample, by codec.
async fn codecs(bytes: &[u8], directory: &Path) -> Result<Json> {
    let mut told = serde_json::Map::new();
    for codec in Codec::ALL {
        let store = directory.join(format!("codec-{}", codec.as_str()));
        let db = open(&store, Options { codec, ..Options::default() }).await?;
        let collection = db.load_dataset("symbols", bytes.to_vec().into(), |_, _| {}).await?;
        db.flush("symbols").await?;
        let stats = collection.stats().await?;
        told.insert(codec.as_str().to_owned(), json!(stats.storage_bytes as f64 / stats.rows as f64));
        db.close().await?;
    }
    Ok(told.into())
}

/// What merging writes, and what searches beside it wait. The segments are indexed before, so that searches do the same work with
/// and without a merge beside them: it takes their place when it is at its end.
async fn compaction(directory: &Path) -> Result<Json> {
    let (storage, written) = Metered::new(FileStorage::open(directory.join("compaction"))?);
    let db = Db::open(Arc::new(storage), Options::default()).await?;
    let collection = db.create_collection("rows", spec(r#"{"HNSW":{"m":16,"ef_construction":100}}"#)).await?;
    let mut rows = Rows::new();
    let queries: Vec<Vec<f32>> = (0..64).map(|_| rows.vector()).collect();
    for segment in 0..MERGED {
        for part in 0..MERGED_BATCHES {
            let batch = rows.batch(&collection, (segment * MERGED_BATCHES + part) * BATCH, BATCH);
            collection.upsert(batch).await?;
        }
        db.flush("rows").await?;
    }
    // As many as nobody merges unless he is asked to.
    while db.maintain().await? {}
    assert_eq!(collection.stats().await?.segments, MERGED, "segments before the merge");
    let put = written.load(Ordering::Relaxed);
    let search = |seconds: Option<f64>, stop: &Arc<AtomicBool>| {
        let (collection, queries, stop) = (collection.clone(), queries.clone(), stop.clone());
        tokio::spawn(async move {
            let (start, mut waits) = (Instant::now(), Vec::new());
            let mut at = 0;
            while seconds.map_or(!stop.load(Ordering::Relaxed), |seconds| start.elapsed().as_secs_f64() < seconds) {
                let request = SearchRequest {
                    vector: queries[at % queries.len()].clone().into(),
                    limit: 10,
                    ..Default::default()
                };
                let begun = Instant::now();
                collection.search(&request).await.expect("searches answer");
                waits.push(begun.elapsed());
                at += 1;
                tokio::task::yield_now().await;
            }
            waits
        })
    };
    let stop = Arc::new(AtomicBool::new(false));
    let without = search(Some(2.0), &stop).await.expect("searches end");
    let start = Instant::now();
    let beside = search(None, &stop);
    db.compact("rows").await?;
    let seconds = start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let with = beside.await.expect("searches end");
    assert_eq!(collection.stats().await?.segments, 1, "segments after the merge");
    let after = search(Some(1.0), &stop).await.expect("searches end");
    let merged = written.load(Ordering::Relaxed);
    db.close().await?;
    let ms = |waits: &[Duration], share: f64| percentile(waits, share).as_secs_f64() * 1e3;
    Ok(json!({ "flushed_bytes": put, "merged_bytes": merged - put, "write_amplification": merged as f64 / put as f64,
        "segments": MERGED, "rows": MERGED * MERGED_BATCHES * BATCH, "seconds": seconds, "searches": with.len(),
        "p99_with_ms": ms(&with, 0.99), "p99_without_ms": ms(&without, 0.99), "p99_after_ms": ms(&after, 0.99),
        "p50_with_ms": ms(&with, 0.5), "p50_without_ms": ms(&without, 0.5), "max_with_ms": ms(&with, 1.0) }))
}

fn percentile(waits: &[Duration], share: f64) -> Duration {
    let mut waits = waits.to_vec();
    waits.sort_unstable();
    waits[((waits.len() - 1) as f64 * share) as usize]
}

/// A store of `count` rows with their indexes as an archive, and the nearest rows of some queries by brute force.
async fn archive(directory: &Path, count: usize) -> Result<Json> {
    const QUERIES: usize = 100;
    const K: usize = 10;
    let db = open(&directory.join("store"), Options::default()).await?;
    let collection =
        db.create_collection("rows", spec(r#"{"HNSW":{"m":16,"ef_construction":100,"codes":"rabitq"}}"#)).await?;
    let mut rows = Rows::new();
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|_| rows.vector()).collect();
    let mut nearest: Vec<Vec<(f32, usize)>> = vec![Vec::new(); QUERIES];
    let start = Instant::now();
    for from in (0..count).step_by(BATCH) {
        let vectors: Vec<Vec<f32>> = (from..count.min(from + BATCH)).map(|_| rows.vector()).collect();
        for (query, nearest) in queries.iter().zip(&mut nearest) {
            let product = |vector: &Vec<f32>| -vector.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
            nearest.extend(vectors.iter().enumerate().map(|(at, vector)| (product(vector), from + at)));
            nearest.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
            nearest.truncate(K);
        }
        let row = |(at, vector)| {
            Row::from([
                ("id".to_owned(), Value::Int((from + at) as i64)),
                ("embedding".to_owned(), Value::Vector(vector)),
            ])
        };
        let rows = vectors.into_iter().enumerate().map(row).collect();
        collection.upsert(Batch::from_rows(&collection.spec().schema, rows)?).await?;
        while db.maintain().await? {}
    }
    db.flush("rows").await?;
    while db.maintain().await? {}
    let seconds = start.elapsed().as_secs_f64();
    let path = directory.join("rows.eddy");
    let mut file = std::fs::File::create(&path).expect("the archive is made");
    let mut pieces = db.snapshot().await?.into_archive(|_| false);
    while let Some(piece) = pieces.next().await? {
        file.write_all(&piece).expect("the archive is written");
    }
    drop(pieces);
    let segments = collection.stats().await?.segments;
    db.close().await?;
    std::fs::remove_dir_all(directory.join("store")).expect("the store goes");
    let truth: Vec<Vec<usize>> = nearest.iter().map(|found| found.iter().map(|(_, id)| *id).collect()).collect();
    Ok(json!({ "rows": count, "segments": segments, "seconds": seconds, "queries": queries, "truth": truth,
        "bytes": std::fs::metadata(&path).expect("the archive is there").len(), "path": path }))
}

/// Searches by vector, by text and by both of the same rows in turn, microseconds each; `lines` are rows in JSON, `id`, `body` and
/// `embedding`, and then the queries, which have no `id`.
async fn hybrid(lines: &[u8], directory: &Path) -> Result<Json> {
    let lines: Vec<Json> =
        serde_json::Deserializer::from_slice(lines).into_iter().map(|line| line.expect("JSON")).collect();
    let (rows, queries): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.get("id").is_some());
    let floats = |line: &Json| -> Vec<f32> { serde_json::from_value(line["embedding"].clone()).expect("numbers") };
    let text = |line: &Json| line["body"].as_str().expect("a text").to_owned();
    let db = open(&directory.join("hybrid"), Options::default()).await?;
    let spec = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"body","type":"varchar","analyzer":"english"},
        {"name":"embedding","type":"float_vector","dim":384}],
        "dynamic":false,"indexes":{"embedding":{"metric":"IP","kind":{"HNSW":{"m":16,"ef_construction":200}}}}}"#;
    let collection = db.create_collection("rows", serde_json::from_str(spec).expect("a spec")).await?;
    for part in rows.chunks(BATCH) {
        let rows = part.iter().map(|line| {
            Row::from([
                ("id".to_owned(), Value::Int(line["id"].as_i64().expect("a number"))),
                ("body".to_owned(), Value::String(text(line))),
                ("embedding".to_owned(), Value::Vector(floats(line))),
            ])
        });
        collection.upsert(Batch::from_rows(&collection.spec().schema, rows.collect())?).await?;
    }
    db.flush_all().await?;
    while db.maintain().await? {}
    let mut seconds = [f64::INFINITY; 3];
    let requests: Vec<[SearchRequest; 2]> = queries
        .iter()
        .map(|line| {
            let of = |field: &str, vector| SearchRequest {
                field: Some(field.to_owned()),
                vector,
                limit: 10,
                ..Default::default()
            };
            [of("embedding", Value::Vector(floats(line))), of("body", Value::String(text(line)))]
        })
        .collect();
    for _ in 0..5 * ROUNDS {
        for (at, seconds) in seconds.iter_mut().enumerate() {
            let start = Instant::now();
            for both in &requests {
                let hits = match both.get(at) {
                    Some(one) => collection.search(one).await?.hits,
                    None => {
                        let request = HybridRequest {
                            searches: both.to_vec(),
                            rerank: Rerank::Rrf { k: 60.0 },
                            limit: 10,
                            ..Default::default()
                        };
                        collection.hybrid_search(&request).await?.hits
                    }
                };
                assert!(hits.len() <= 10, "no more than were asked for");
            }
            *seconds = seconds.min(start.elapsed().as_secs_f64());
        }
    }
    db.close().await?;
    let [vector, text, hybrid] = seconds.map(|seconds| seconds / requests.len() as f64 * 1e6);
    Ok(json!({ "rows": rows.len(), "queries": queries.len(), "vector": vector, "text": text, "hybrid": hybrid }))
}

async fn measure(bytes: Vec<u8>, directory: PathBuf) -> Result<Json> {
    Ok(json!({
        "writes": writes(&directory).await?,
        "codecs": codecs(&bytes, &directory).await?,
        "compaction": compaction(&directory).await?,
        "sample": sample(bytes, &directory).await?,
        "large": large(&directory).await?,
    }))
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(sample), Some(directory)) = (arguments.next(), arguments.next()) else {
        println!("run by: npm run bench -- storage");
        return;
    };
    let sample = std::fs::read(sample).expect("the sample can be read");
    let directory = PathBuf::from(directory);
    let told = match arguments.next().as_deref() {
        Some("compaction") => compaction(&directory).await,
        Some("writes") => writes(&directory).await,
        Some("hybrid") => hybrid(&sample, &directory).await,
        Some(rows) => archive(&directory, rows.parse().expect("a bench, or how many rows an archive has")).await,
        None => measure(sample, directory).await,
    };
    println!("{}", told.expect("the store works"));
}
