//! A store with workers answers as the same store without.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::base::Random;
use crate::db::{Options, SearchRequest, Target};
use crate::engine::CollectionSpec;
use crate::model::{Batch, Row, Value};
use crate::platform::block_on;
use crate::query::{Parameters, Rerank};
use crate::storage::MemoryDisk;

const DIM: usize = 8;

/// Workers in this process, some of which may fail.
struct Local {
    workers: Vec<Mutex<PoolWorker>>,
    /// What is said to a worker that fails: 0 nothing, 1 an error, 2 that it is gone, 3 wrong bytes.
    fault: AtomicU32,
    faulty: usize,
    ended: AtomicUsize,
}

impl Local {
    fn new(workers: usize) -> Arc<Self> {
        let workers = (0..workers).map(|_| Mutex::default()).collect();
        Arc::new(Self { workers, fault: AtomicU32::new(0), faulty: 0, ended: AtomicUsize::new(0) })
    }
}

impl SearchPool for Local {
    fn workers(&self) -> usize {
        self.workers.len()
    }

    fn ask(&self, worker: usize, message: Vec<u8>, _patience_ms: u64) -> Task<'static, Result<Vec<u8>>> {
        let fault = if worker == self.faulty { self.fault.load(Ordering::Relaxed) } else { 0 };
        let answer = match fault {
            0 => self.workers[worker].lock().unwrap().answer(&message),
            1 => Err(Error::new(ErrorKind::Unavailable, "it took too long")),
            2 => Err(Error::new(ErrorKind::Closed, "it was ended")),
            _ => Ok(vec![1; 40]),
        };
        Box::pin(async move { answer })
    }

    fn end(&self, _worker: usize) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn comparisons_min(&self) -> usize {
        0
    }
}

fn spec(metric: &str, kind: &str) -> CollectionSpec {
    serde_json::from_str(&format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"group","type":"int64"}},
        {{"name":"text","type":"varchar","maxLength":400}},
        {{"name":"v","type":"float_vector","dim":{DIM}}}],"indexes":{{"v":{{"metric":"{metric}","kind":{kind}}}}}}}"#
    ))
    .unwrap()
}

fn vector(seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    // Few different numbers, so that there are equal distances.
    (0..DIM).map(|_| random.below(9) as f32 - 4.0).collect()
}

fn row(id: u64, round: u64) -> Row {
    Row::from([
        ("id".to_owned(), Value::Int(id as i64)),
        ("group".to_owned(), Value::Int((id % 13) as i64)),
        ("text".to_owned(), Value::String(format!("{id} {}", "wide ".repeat(60)))),
        ("v".to_owned(), Value::Vector(vector(id + (round << 32)))),
    ])
}

async fn settle(db: &Db) {
    while db.maintain().await.unwrap() {}
}

/// A store of `segments` flushed ones and a growing one, with rows that were replaced and deleted since.
async fn filled(metric: &str, kind: &str, segments: u64, seed: u64, limit: Option<usize>) -> (Db, Collection) {
    let mut random = Random::new(seed);
    let merge_policy = crate::db::MergePolicy { small_count: 1_000, dead_share: 1.0, ..Default::default() };
    let options = Options { memory_limit_bytes: limit, merge_policy, ..Options::default() };
    let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), options).await.unwrap();
    let things = db.create_collection("things", spec(metric, kind)).await.unwrap();
    let mut next = 0;
    for _ in 0..segments {
        let count = 200 + random.below(1_000);
        let rows = (next..next + count).map(|id| row(id, 0)).collect();
        things.upsert(Batch::from_rows(&things.spec().schema, rows).unwrap()).await.unwrap();
        next += count;
        db.flush("things").await.unwrap();
        settle(&db).await;
    }
    change(&things, &mut random, next).await;
    (db, things)
}

async fn change(things: &Collection, random: &mut Random, next: u64) {
    let rows = (0..40).map(|_| random.below(next)).collect::<BTreeSet<_>>().into_iter().map(|id| row(id, 1)).collect();
    things.upsert(Batch::from_rows(&things.spec().schema, rows).unwrap()).await.unwrap();
    let gone = (0..60).map(|_| crate::model::Key::Int(random.below(next) as i64)).collect();
    things.delete(Target::Keys(gone)).await.unwrap();
}

fn requests(seed: u64) -> Vec<SearchRequest> {
    let mut random = Random::new(seed);
    let output_fields = Some(vec!["id".to_owned(), "group".to_owned()]);
    let one = SearchRequest {
        vector: Value::Vector(vector(random.next_u64())),
        limit: 1 + random.below(30) as usize,
        output_fields,
        ..Default::default()
    };
    let filter = Some(["group < 7", "group == 3", "id < 50", "group == 99"][random.below(4) as usize].to_owned());
    let vectors = (0..5).map(|_| Value::Vector(vector(random.next_u64()))).collect();
    vec![
        one.clone(),
        SearchRequest { exact: true, ..one.clone() },
        SearchRequest { filter: filter.clone(), offset: 3, ..one.clone() },
        SearchRequest { filter, exact: true, ..one.clone() },
        SearchRequest { vector: Value::Null, vectors, ..one.clone() },
        SearchRequest { group_by: Some("group".to_owned()), group_size: 2, ..one.clone() },
        SearchRequest { ef: Some(7), ..one },
    ]
}

/// What `db` answers to `requests`, as text: keys, scores, rows, and how much was looked at.
async fn answers(things: &Collection, seed: u64) -> Vec<String> {
    let mut all = Vec::new();
    for request in requests(seed) {
        let found = things.search(&request).await.unwrap();
        let looked = (found.segments_by_index, found.segments_by_scan, found.rows_scanned);
        all.push(format!("{:?} {:?} {looked:?}", found.hits, found.results));
    }
    all
}

fn equal_with_workers(kind: &str, metric: &str, workers: usize, segments: u64, seed: u64) {
    block_on(async {
        let (db, things) = filled(metric, kind, segments, seed, None).await;
        let held = things.snapshot().unwrap();
        let expected = answers(&things, seed).await;
        db.use_pool(Local::new(workers));
        settle(&db).await;
        let stats = db.pool_stats().unwrap();
        assert!(stats.segments > 0 && stats.bytes > 0 && stats.workers == workers, "{stats:?}");
        assert_eq!(db.memory().pool, stats.bytes);
        assert_eq!(answers(&things, seed).await, expected, "seed {seed}");
        let stats = db.pool_stats().unwrap();
        assert!(stats.searches > 0 && stats.failures == 0, "{stats:?}");
        // What is read of the past is not what is there now.
        let request = requests(seed).remove(1);
        let before = format!("{:?}", held.search(&request).await.unwrap().hits);
        change(&things, &mut Random::new(seed + 1), 200).await;
        assert_eq!(format!("{:?}", held.search(&request).await.unwrap().hits), before, "seed {seed}");
        // A merge ends the copies of what it merges.
        drop(held);
        let copies = db.pool_stats().unwrap();
        db.compact("things").await.unwrap();
        settle(&db).await;
        let merged = db.pool_stats().unwrap();
        assert!(merged.segments <= copies.segments && merged.failures == 0, "{copies:?} {merged:?}");
        let with = answers(&things, seed + 2).await;
        db.inner.shared.pool.end();
        assert_eq!(db.pool_stats().unwrap().segments, 0);
        assert_eq!(answers(&things, seed + 2).await, with, "seed {seed}");
        db.close().await.unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Over all kinds of index and metrics, rows replaced and deleted, filters, groups, batches, snapshots.
    #[test]
    fn answers_are_those_of_the_engine_alone(
        kind in 0..5usize,
        metric in 0..3usize,
        (workers, segments) in (1usize..4, 1u64..5),
        seed in any::<u32>(),
    ) {
        let kinds = [
            r#"{"HNSW":{"m":8,"ef_construction":40}}"#, r#""FLAT""#, r#""AUTOINDEX""#, r#"{"IVF_SQ8":{"nlist":16}}"#,
            r#"{"IVF_FLAT":{"nlist":16}}"#,
        ];
        equal_with_workers(kinds[kind], ["L2", "IP", "COSINE"][metric], workers, segments, u64::from(seed));
    }
}

/// Pages, iterators and hybrid searches go the same way.
#[test]
fn every_form_of_search_is_the_same() {
    block_on(async {
        let (db, things) = filled("L2", r#"{"HNSW":{"m":8,"ef_construction":40}}"#, 4, 5, None).await;
        let iterate = async || {
            let mut request = requests(9).remove(0);
            request.limit = 25;
            let mut iterator = things.snapshot().unwrap().search_iterator(request).await.unwrap();
            let mut keys = Vec::new();
            loop {
                let part = iterator.next(25).await.unwrap();
                if part.is_empty() {
                    return keys;
                }
                keys.extend(part.into_iter().map(|hit| format!("{:?}", hit.key)));
            }
        };
        let hybrid = async || {
            let searches = requests(11).into_iter().take(2).collect();
            let rerank = Rerank::Rrf { k: 60.0 };
            let request = crate::db::HybridRequest { searches, rerank, limit: 10, ..Default::default() };
            format!("{:?}", things.hybrid_search(&request).await.unwrap().hits)
        };
        let radius = async || {
            let mut request = requests(3).remove(0);
            (request.radius, request.range_filter) = (Some(60.0), Some(4.0));
            request.filter_params = Parameters::default();
            format!("{:?}", things.search(&request).await.unwrap().hits)
        };
        let expected = (iterate().await, hybrid().await, radius().await);
        db.use_pool(Local::new(2));
        settle(&db).await;
        assert_eq!((iterate().await, hybrid().await, radius().await), expected);
        let stats = db.pool_stats().unwrap();
        assert!(stats.searches > 5 && stats.failures == 0, "{stats:?}");
    });
}

/// Whatever a worker does instead of answering, the answer is there and it is right.
#[test]
fn the_engine_does_what_a_worker_fails_to_do() {
    for fault in 1..=3 {
        block_on(async {
            let (db, things) = filled("IP", r#"{"HNSW":{"m":8,"ef_construction":40}}"#, 4, 7, None).await;
            let expected = answers(&things, 1).await;
            let pool = Local::new(2);
            db.use_pool(pool.clone());
            settle(&db).await;
            let before = db.pool_stats().unwrap();
            pool.fault.store(fault, Ordering::Relaxed);
            assert_eq!(answers(&things, 1).await, expected, "fault {fault}");
            let stats = db.pool_stats().unwrap();
            assert!(stats.failures >= 1 && stats.error.is_some() && stats.workers == 1, "{stats:?}");
            assert!(stats.segments < before.segments, "{stats:?}");
            assert_eq!(pool.ended.load(Ordering::Relaxed), 1);
            // The others take over.
            settle(&db).await;
            assert_eq!(answers(&things, 1).await, expected, "fault {fault}");
            let after = db.pool_stats().unwrap();
            assert!(after.searches > stats.searches && after.failures == stats.failures, "{after:?}");
        });
    }
}

/// A worker that dies while it is given a copy leaves nothing half done.
#[test]
fn a_worker_that_cannot_take_a_copy_has_none() {
    for fault in 1..=2 {
        block_on(async {
            let (db, things) = filled("L2", r#""FLAT""#, 3, 2, None).await;
            let expected = answers(&things, 4).await;
            let pool = Local::new(1);
            pool.fault.store(fault, Ordering::Relaxed);
            db.use_pool(pool);
            settle(&db).await;
            let stats = db.pool_stats().unwrap();
            assert_eq!((stats.workers, stats.segments, stats.bytes), (0, 0, 0));
            assert_eq!(answers(&things, 4).await, expected);
        });
    }
}

/// Copies count, and are what goes first when there is not enough memory.
#[test]
fn copies_stay_within_the_memory_limit() {
    block_on(async {
        let kind = r#"{"HNSW":{"m":8,"ef_construction":40}}"#;
        let (db, things) = filled("L2", kind, 4, 3, None).await;
        let expected = answers(&things, 8).await;
        let alone = db.memory().total() - db.memory().cache;
        drop((db, things));
        let mut segments = Vec::new();
        for limit in [alone / 2, alone * 3 / 2, alone * 4] {
            let (db, things) = filled("L2", kind, 4, 3, Some(limit)).await;
            db.use_pool(Local::new(2));
            settle(&db).await;
            let (memory, stats) = (db.memory(), db.pool_stats().unwrap());
            assert!(stats.segments == 0 || memory.total() <= limit, "{memory:?} of {limit}");
            segments.push(stats.segments);
            if limit > alone {
                assert_eq!(answers(&things, 8).await, expected);
            }
            // What the engine needs by and by is taken from the copies.
            let more = (100_000..100_000 + limit as u64 / 200).map(|id| row(id, 0)).collect();
            things.upsert(Batch::from_rows(&things.spec().schema, more).unwrap()).await.unwrap();
            settle(&db).await;
            let (memory, stats) = (db.memory(), db.pool_stats().unwrap());
            assert!(stats.segments == 0 || memory.total() <= limit, "{memory:?} of {limit}");
        }
        assert!(segments[0] <= segments[1] && segments[1] <= segments[2] && segments[2] > 0, "{segments:?}");
    });
}

/// A segment whose index is changed is the same segment still: its copy must not answer by the old metric.
#[test]
fn an_index_that_is_changed_ends_its_copies() {
    block_on(async {
        let kind = r#"{"HNSW":{"m":8,"ef_construction":40}}"#;
        let (db, things) = filled("L2", kind, 3, 6, None).await;
        db.use_pool(Local::new(2));
        settle(&db).await;
        let copies = db.pool_stats().unwrap();
        assert!(copies.segments > 0);
        for (metric, kind) in [("IP", kind), ("IP", r#""FLAT""#), ("L2", kind)] {
            db.create_index("things", "v", spec(metric, kind).indexes["v"]).await.unwrap();
            let exact = requests(4).remove(1);
            for is_settled in [false, true] {
                if is_settled {
                    settle(&db).await;
                }
                let found = format!("{:?}", things.search(&exact).await.unwrap().hits);
                let other = filled(metric, kind, 3, 6, None).await.1;
                assert_eq!(found, format!("{:?}", other.search(&exact).await.unwrap().hits), "{metric} {kind}");
            }
            assert!(db.pool_stats().unwrap().segments > 0);
        }
        assert_eq!(db.pool_stats().unwrap().failures, 0);
    });
}

#[test]
fn the_engine_keeps_its_share() {
    let key = |at: u64| (CollectionId(1), SegmentId(at), "v".to_owned());
    let spec = spec("L2", r#""FLAT""#).indexes["v"];
    for (workers, segments, room) in [(1, 8, 800), (3, 8, 800), (3, 1, 800), (2, 5, 250)] {
        let mut candidates: Vec<Candidate> =
            (0..segments).map(|at| Candidate { key: key(at), bytes: 100, spec }).collect();
        let mut loads = vec![0; workers];
        let mut left = room;
        loop {
            let running: Vec<(usize, usize)> = loads.iter().copied().zip(0..).collect();
            let engine = candidates.len() * 100;
            let Some((at, worker)) = choose_copy(&running, engine, &candidates, left) else { break };
            left -= candidates.swap_remove(at).bytes;
            loads[worker] += 100;
        }
        let shares = (loads, candidates.len(), left);
        let expected = match (workers, segments) {
            (1, 8) => (vec![400], 4, 400),
            (3, 8) => (vec![200; 3], 2, 200),
            (3, 1) => (vec![100, 0, 0], 0, 700),
            _ => (vec![100, 100], 3, 50),
        };
        assert_eq!(shares, expected);
    }
}

proptest! {
    /// Bytes that nobody of this build writes give errors.
    #[test]
    fn wrong_messages_and_answers_give_errors(bytes in prop::collection::vec(any::<u8>(), 0..80), what in 0u8..7) {
        let mut worker = PoolWorker::new();
        worker.answer(&worker::begin_message(1, crate::distance::Metric::L2, 2, 3)).unwrap();
        worker.answer(&worker::vectors_message(1, &[0.0; 6])).unwrap();
        worker.answer(&worker::open_message(1)).unwrap();
        // Whatever it is, it ends.
        let _ = worker.answer(&[&[what], &bytes[..]].concat());
        if let Ok(found) = worker::read_found(&bytes, &[3], 1) {
            prop_assert!(found[0][0].iter().all(|near| near.row < 3));
        }
    }
}
