#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;

use super::{
    Collection, Db, Durability, MergeCounts, MergeKind, MergePolicy, Options, QueryRequest, SearchRequest, Target,
    WriteOptions,
};
use crate::base::{ErrorKind, Random, ReplicaId, Sequence, Timestamp, Version};
use crate::engine::{ChangeSet, CollectionOptions, CollectionSpec, SealPolicy};
use crate::model::{Batch, Key, Row, Value};
use crate::platform::{Environment, Task, block_on};
use crate::storage::{Entry, FaultStorage, MemoryDisk, Storage};

fn spec(kind: &str) -> CollectionSpec {
    let json = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"text","type":"varchar","maxLength":2000}},
        {{"name":"v","type":"float_vector","dim":2}}],"dynamic":false,"indexes":{{"v":{{"metric":"L2","kind":{kind}}}}}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

/// By key, the text.
type State = BTreeMap<i64, String>;

fn batch(collection: &Collection, rows: &State) -> Batch {
    let row = |(key, text): (&i64, &String)| {
        Row::from([
            ("id".to_owned(), Value::Int(*key)),
            ("text".to_owned(), Value::String(text.clone())),
            ("v".to_owned(), Value::Vector(vec![*key as f32, 1.0])),
        ])
    };
    Batch::from_rows(&collection.spec().schema, rows.iter().map(row).collect()).unwrap()
}

fn state(rows: &[Row]) -> State {
    let pair = |row: &Row| match (&row["id"], &row["text"]) {
        (Value::Int(key), Value::String(text)) => (*key, text.clone()),
        other => panic!("{other:?}"),
    };
    rows.iter().map(pair).collect()
}

async fn now(collection: &Collection) -> State {
    state(&collection.query(&QueryRequest::default()).await.unwrap())
}

async fn open(storage: &FaultStorage, options: Options) -> Db {
    Db::open(Arc::new(storage.clone()), options).await.unwrap()
}

/// Rows change in every step of a merge: while they are gathered, indexed, written, and while they take their places.
#[test]
fn rows_that_change_in_any_step_of_a_merge_are_as_they_were_written() {
    for seed in 0..4 {
        block_on(async {
            let kind = if seed % 2 == 0 { r#""FLAT""# } else { r#"{"HNSW":{"m":4,"ef_construction":8}}"# };
            let storage = FaultStorage::new(seed);
            let mut random = Random::new(seed);
            let limit = (seed > 1).then_some(4 << 20);
            let options = || Options {
                // Small pieces, so that files are appended to.
                checkpoint_bytes: 4 << 20,
                memory_limit_bytes: limit,
                environment: Environment::simulated(seed, 1_700_000_000_000),
                ..Options::default()
            };
            let db = open(&storage, options()).await;
            let notes = db.create_collection("notes", spec(kind)).await.unwrap();
            let mut expected = State::new();
            for part in 0..3i64 {
                let rows: State =
                    (0..1_100).map(|id| (part * 700 + id, format!("{part} {}", "x".repeat(100)))).collect();
                notes.upsert(batch(&notes, &rows)).await.unwrap();
                expected.extend(rows);
                db.flush("notes").await.unwrap();
            }
            let before = expected.clone();
            let held = notes.snapshot().unwrap();
            let mut steps = 0;
            db.begin_compaction(&notes);
            while db.maintain().await.unwrap() || db.is_compacting(&notes) {
                steps += 1;
                let key = random.below(2_600) as i64;
                if random.one_in(3) {
                    notes.delete(Target::Keys(vec![Key::Int(key)])).await.unwrap();
                    expected.remove(&key);
                } else {
                    let rows = State::from([(key, format!("step {steps}"))]);
                    notes.upsert(batch(&notes, &rows)).await.unwrap();
                    expected.extend(rows);
                }
                assert_eq!(notes.count(None).await.unwrap(), expected.len(), "seed {seed}, step {steps}");
                if steps % 16 == 0 {
                    assert_eq!(now(&notes).await, expected, "seed {seed}, step {steps}");
                }
                assert!(steps < 20_000, "seed {seed}: it does not end");
            }
            assert!(steps > 15, "seed {seed}: {steps} steps, which are too large");
            assert_eq!(now(&notes).await, expected, "seed {seed}");
            assert_eq!(state(&held.query(&QueryRequest::default()).await.unwrap()), before, "seed {seed}");
            drop((held, notes, db));
            let db = open(&storage.reopen(), options()).await;
            assert_eq!(now(&db.collection("notes").unwrap()).await, expected, "seed {seed}, after a crash");
        });
    }
}

/// A merge left out a row that had been replaced by one that was only buffered: a crash took the new one, and the old one, which
/// had been durable for long, was nowhere.
#[test]
fn a_crash_never_takes_a_row_with_what_had_replaced_it() {
    for seed in 0..10 {
        block_on(async {
            let storage = FaultStorage::new(seed);
            let db = open(&storage, Options::default()).await;
            let notes = db.create_collection("notes", spec(r#""FLAT""#)).await.unwrap();
            notes.upsert(batch(&notes, &State::from([(1, "old".to_owned())]))).await.unwrap();
            db.flush("notes").await.unwrap();
            let options = WriteOptions { durability: Some(Durability::Buffered), ..Default::default() };
            let new = batch(&notes, &State::from([(1, "new".to_owned())]));
            notes.batch(vec![super::Operation::Upsert(new)], options).await.unwrap();
            // The segment has nothing but a dead row.
            for _ in 0..20 {
                db.maintain().await.unwrap();
            }
            let stats = notes.stats().await.unwrap();
            assert_eq!((stats.rows_dead, stats.states.flushed), (0, 0), "nothing was left of it");
            let db = open(&storage.reopen(), Options::default()).await;
            assert_eq!(now(&db.collection("notes").unwrap()).await.len(), 1, "seed {seed}");
        });
    }
}

async fn deletes_bytes(notes: &Collection) -> u64 {
    notes.stats().await.unwrap().files.get("deletes").copied().unwrap_or_default()
}

#[test]
fn deletes_go_when_their_keys_were_written_again_and_stay_while_others_may_ask() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = open(&storage, Options::default()).await;
        let notes = db.create_collection("notes", spec(r#""FLAT""#)).await.unwrap();
        let rows: State = (0..100).map(|id| (id, "one".to_owned())).collect();
        notes.upsert(batch(&notes, &rows)).await.unwrap();
        db.flush("notes").await.unwrap();
        notes.delete(Target::Keys((0..100).map(Key::Int).collect())).await.unwrap();
        db.flush("notes").await.unwrap();
        let all = deletes_bytes(&notes).await;
        assert!(all > 0);
        let again: State = (1..100).map(|id| (id, "two".to_owned())).collect();
        notes.upsert(batch(&notes, &again)).await.unwrap();
        db.compact("notes").await.unwrap();
        let left = deletes_bytes(&notes).await;
        assert!(left > 0 && left < all, "one of a hundred is left: {left} of {all} bytes");
        // The one that is left wins over an older write, here and after a restart.
        let old = |notes: &Collection| ChangeSet {
            puts: batch(notes, &State::from([(0, "late".to_owned())])),
            put_versions: vec![Version { timestamp: Timestamp(5), origin: ReplicaId(9), sequence: Sequence(1) }],
            deletes: Vec::new(),
        };
        assert_eq!(notes.apply(old(&notes), None).await.unwrap(), 0);
        let db = open(&storage.reopen(), Options::default()).await;
        let notes = db.collection("notes").unwrap();
        assert_eq!(notes.apply(old(&notes), None).await.unwrap(), 0);
        assert_eq!(now(&notes).await, again);
        // When its key is written, too, there is none.
        notes.upsert(batch(&notes, &State::from([(0, "three".to_owned())]))).await.unwrap();
        db.compact("notes").await.unwrap();
        assert_eq!(deletes_bytes(&notes).await, 0);
        let db = open(&storage.reopen(), Options::default()).await;
        assert_eq!(db.collection("notes").unwrap().count(None).await.unwrap(), 100);
    });
}

#[test]
fn deletes_stay_as_long_as_the_past_is_told() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let environment = Environment::simulated(1, 1_700_000_000_000);
        let options = || Options { retention_ms: 60_000, environment: environment.clone(), ..Options::default() };
        let db = open(&storage, options()).await;
        let notes = db.create_collection("notes", spec(r#""FLAT""#)).await.unwrap();
        let write = async |notes: &Collection, text: &str| {
            let rows = State::from([(1, text.to_owned())]);
            notes.upsert(batch(notes, &rows)).await.unwrap().timestamp
        };
        write(&notes, "one").await;
        db.flush("notes").await.unwrap();
        let deleted = notes.delete(Target::Keys(vec![1.into()])).await.unwrap().timestamp;
        db.flush("notes").await.unwrap();
        write(&notes, "two").await;
        db.compact("notes").await.unwrap();
        let db = open(&storage.reopen(), options()).await;
        let notes = db.collection("notes").unwrap();
        assert_eq!(notes.snapshot_at(deleted).unwrap().count(None).await.unwrap(), 0, "it was gone for a while");
    });
}

#[test]
fn a_store_merges_as_its_policy_says() {
    block_on(async {
        for (small_count, segments) in [(2, 1), (4, 3)] {
            let merge_policy = MergePolicy { small_count, ..MergePolicy::default() };
            let db = open(&FaultStorage::new(1), Options { merge_policy, ..Options::default() }).await;
            let notes = db.create_collection("notes", spec(r#""FLAT""#)).await.unwrap();
            for id in 0..3 {
                notes.upsert(batch(&notes, &State::from([(id, "x".to_owned())]))).await.unwrap();
                db.flush("notes").await.unwrap();
            }
            while db.maintain().await.unwrap() {}
            assert_eq!(notes.stats().await.unwrap().states.flushed, segments);
        }
    });
}

/// Graphs are checked by upkeep, without anybody's asking, and one that has come apart is made anew: rows that a search could not find
/// are found again.
#[test]
fn upkeep_makes_a_graph_anew_that_has_come_apart() {
    block_on(async {
        let db = open(&FaultStorage::new(1), Options::default()).await;
        let notes = db.create_collection("notes", spec(r#"{"HNSW":{"m":4,"ef_construction":16}}"#)).await.unwrap();
        let rows: State = (0..1_500).map(|id| (id, "x".to_owned())).collect();
        notes.upsert(batch(&notes, &rows)).await.unwrap();
        db.flush("notes").await.unwrap();
        while db.maintain().await.unwrap() {}
        let segments = |notes: &Collection| -> Vec<_> {
            notes.inner.state.read().unwrap().flushed_segments(None).iter().map(|segment| segment.id).collect()
        };
        let before = segments(&notes);
        {
            let mut state = notes.inner.state.write().unwrap();
            let graph = state.segment_mut(before[0]).unwrap().graph_mut("v").unwrap();
            (100..104).for_each(|row| graph.cut_off(row));
            // As it is when it was read.
            *graph = crate::index::Hnsw::from_bytes(&graph.to_bytes()).unwrap();
        }
        while db.maintain().await.unwrap() {}
        assert_ne!(segments(&notes), before);
        let graphs = notes.stats().await.unwrap().graphs;
        assert_eq!((graphs.rows, graphs.unreachable), (1_500, 0));
        assert_eq!(now(&notes).await, rows);
    });
}

/// A merge takes over the graph of its largest input, without what is dead in it, and finds what is there.
#[test]
fn a_merge_takes_over_the_largest_graph() {
    block_on(async {
        let db = open(&FaultStorage::new(1), Options::default()).await;
        let notes = db.create_collection("notes", spec(r#"{"HNSW":{"m":8,"ef_construction":40}}"#)).await.unwrap();
        let mut expected = State::new();
        for (from, until) in [(4_000, 5_100), (0, 3_000), (6_000, 6_500)] {
            let rows: State = (from..until).map(|id| (id, "x".to_owned())).collect();
            notes.upsert(batch(&notes, &rows)).await.unwrap();
            expected.extend(rows);
            db.flush("notes").await.unwrap();
            while db.maintain().await.unwrap() {}
        }
        notes.delete(Target::Keys((1_000..1_600).map(Key::Int).collect())).await.unwrap();
        expected.retain(|key, _| !(1_000..1_600).contains(key));
        db.compact("notes").await.unwrap();
        let stats = notes.stats().await.unwrap();
        assert_eq!((stats.states.flushed, stats.graphs.rows, stats.graphs.dead), (1, 4_000, 0));
        assert_eq!(stats.graphs.unreachable, 0);
        assert_eq!(now(&notes).await, expected);
        for key in [0, 999, 1_600, 2_999, 4_000, 5_099, 6_250] {
            let vector = Value::Vector(vec![key as f32, 1.0]);
            let request = SearchRequest { vector, limit: 3, ef: Some(32), ..Default::default() };
            let found = notes.search(&request).await.unwrap();
            assert_eq!(found.hits[0].key, Key::Int(key));
            assert_eq!(found.segments_by_index, 1);
        }
    });
}

/// Of very many segments every second turn is for merging them. When none was to be merged that turn told that nothing is left to do, and
/// whoever had asked stopped: of a million rows 350,000 were indexed.
#[test]
fn rows_are_indexed_beside_very_many_segments_that_nobody_merges() {
    block_on(async {
        let merge_policy = MergePolicy { small_count: usize::MAX, ..MergePolicy::default() };
        let db = open(&FaultStorage::new(1), Options { merge_policy, ..Options::default() }).await;
        let notes = db.create_collection("notes", spec(r#"{"HNSW":{"m":4,"ef_construction":16}}"#)).await.unwrap();
        for part in 0..20 {
            let rows: State = (part * 1_100..part * 1_100 + 1_100).map(|id| (id, "x".to_owned())).collect();
            notes.upsert(batch(&notes, &rows)).await.unwrap();
            db.flush("notes").await.unwrap();
        }
        while db.maintain().await.unwrap() {}
        let stats = notes.stats().await.unwrap();
        assert_eq!((stats.states.flushed, stats.rows_unindexed), (20, 0));
    });
}

/// Under a memory limit columns go from file to file, and the new graph is built from what was written. A crash at any call of the storage
/// leaves the segments of before or the new one, and a call that fails is made up for.
#[test]
fn a_merge_under_a_memory_limit_survives_a_crash_at_every_call() {
    block_on(async {
        let kind = r#"{"HNSW":{"m":4,"ef_construction":8}}"#;
        let options = || Options { memory_limit_bytes: Some(600_000), checkpoint_bytes: 4 << 20, ..Options::default() };
        let mut calls = 0;
        for call in 0.. {
            // Reads of neighbouring blocks are alike.
            if call > 40 && call % 5 != 0 {
                continue;
            }
            let storage = FaultStorage::new(call);
            let db = open(&storage, options()).await;
            let notes = db.create_collection("notes", spec(kind)).await.unwrap();
            let mut expected = State::new();
            for (from, until) in [(0, 1_050), (900, 1_400)] {
                let rows: State = (from..until).map(|id| (id, format!("{id} {}", "x".repeat(200)))).collect();
                notes.upsert(batch(&notes, &rows)).await.unwrap();
                expected.extend(rows);
                db.flush("notes").await.unwrap();
            }
            while db.maintain().await.unwrap() {}
            db.begin_compaction(&notes);
            let crashes = call % 2 == 0;
            let before = storage.operations();
            if crashes {
                storage.crash_after(call / 2);
            } else {
                storage.fail_at(call / 2, ErrorKind::Io);
            }
            let mut failed = false;
            while db.is_compacting(&notes) && !storage.crashed() {
                failed |= db.maintain().await.is_err();
            }
            let reached = failed || storage.crashed();
            calls = calls.max(storage.operations() - before);
            drop((notes, db));
            let db = open(&storage.reopen(), options()).await;
            let notes = db.collection("notes").unwrap();
            assert_eq!(now(&notes).await, expected, "call {call}");
            db.compact("notes").await.unwrap();
            assert_eq!(now(&notes).await, expected, "call {call}");
            let stats = notes.stats().await.unwrap();
            assert_eq!((stats.states.flushed, stats.rows_unindexed, stats.graphs.rows), (1, 0, 1_400), "call {call}");
            let request = SearchRequest { vector: Value::Vector(vec![1_234.0, 1.0]), limit: 1, ..Default::default() };
            assert_eq!(notes.search(&request).await.unwrap().hits[0].key, Key::Int(1_234), "call {call}");
            if !reached {
                break;
            }
        }
        assert!(calls > 20, "{calls} calls: the merge does not go by blocks");
    });
}

fn threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A storage in which, once it is armed, the first to write a file of a segment waits for a second one who writes another.
struct Meeting {
    storage: Box<dyn Storage>,
    armed: AtomicBool,
    /// Which segments' files are being written.
    here: Mutex<Vec<String>>,
    came: Condvar,
    met: AtomicUsize,
}

impl Meeting {
    fn meet(&self, name: &str) {
        let Some((segment, _)) = name.rsplit_once('/').filter(|_| name.contains("/segment/")) else { return };
        if !self.armed.load(Ordering::Relaxed) {
            return;
        }
        let mut here = self.here.lock().unwrap();
        here.push(segment.to_owned());
        self.came.notify_all();
        let alone = |here: &mut Vec<String>| here.iter().all(|other| other == segment);
        // Whoever waits in vain has the test fail, and others go on.
        let (here, waited) = self.came.wait_timeout_while(here, Duration::from_secs(20), alone).unwrap();
        drop(here);
        self.met.fetch_add(usize::from(!waited.timed_out()), Ordering::Relaxed);
        self.armed.store(false, Ordering::Relaxed);
    }
}

impl Storage for Meeting {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, crate::base::Result<Vec<Entry>>> {
        self.storage.list(prefix)
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, crate::base::Result<Bytes>> {
        self.storage.read(name, offset, len)
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, crate::base::Result<Bytes>> {
        self.storage.read_all(name)
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, crate::base::Result<()>> {
        self.meet(name);
        self.storage.put(name, bytes)
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, crate::base::Result<()>> {
        self.meet(name);
        self.storage.append(name, bytes)
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, crate::base::Result<()>> {
        self.storage.sync(name)
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, crate::base::Result<()>> {
        self.storage.truncate(name, len)
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, crate::base::Result<()>> {
        self.storage.remove(name)
    }

    fn close(&self) -> Task<'_, crate::base::Result<()>> {
        self.storage.close()
    }
}

/// Several merges of one collection go on at once, each on a thread of its own, while rows change under them.
#[test]
fn merges_go_on_side_by_side() {
    threads().block_on(async {
        let disk = MemoryDisk::new();
        let storage = Arc::new(Meeting {
            storage: Box::new(disk.open().unwrap()),
            armed: AtomicBool::new(false),
            here: Mutex::default(),
            came: Condvar::new(),
            met: AtomicUsize::new(0),
        });
        let merge_policy = MergePolicy { kind: MergeKind::Parallel, merges_max: Some(3), ..MergePolicy::default() };
        let db = Db::open(storage.clone(), Options { merge_policy, ..Options::default() }).await.unwrap();
        let notes = db.create_collection("notes", spec(r#""FLAT""#)).await.unwrap();
        let mut expected = State::new();
        for part in 0..16 {
            let rows: State = (part * 40..part * 40 + 50).map(|id| (id, format!("part {part}"))).collect();
            notes.upsert(batch(&notes, &rows)).await.unwrap();
            expected.extend(rows);
            db.flush("notes").await.unwrap();
        }
        storage.armed.store(true, Ordering::Relaxed);
        let (mut steps, mut at_once) = (0, 0);
        while db.maintain().await.unwrap() {
            at_once = at_once.max(notes.inner.merges.lock().await.len());
            let key = steps % 600;
            if steps % 5 == 0 {
                notes.delete(Target::Keys(vec![Key::Int(key)])).await.unwrap();
                expected.remove(&key);
            }
            steps += 1;
            if steps % 16 == 0 {
                assert_eq!(now(&notes).await, expected, "step {steps}");
            }
        }
        assert_eq!(at_once, 3);
        assert!(storage.met.load(Ordering::Relaxed) >= 2, "no merge wrote while another one did");
        assert_eq!(now(&notes).await, expected);
        drop(notes);
        db.close().await.unwrap();
        let db = Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap();
        assert_eq!(now(&db.collection("notes").unwrap()).await, expected);
    });
}

/// Writes, deletes and searches without end while a server's upkeep runs: by each policy every row is found at once, none is lost or doubled, and
/// segments become as few as the policy says.
#[test]
fn each_policy_keeps_up_with_continuous_ingest() {
    for kind in MergeKind::ALL {
        threads().block_on(async {
            let merge_policy = MergePolicy { kind, small_rows: 1_000, merges_max: Some(2), ..MergePolicy::default() };
            let disk = MemoryDisk::new();
            let options = Options { merge_policy, ..Options::default() };
            let db = Db::open(Arc::new(disk.open().unwrap()), options).await.unwrap();
            let seal = SealPolicy { rows: Some(100), ..SealPolicy::default() };
            let options = CollectionOptions { seal, ..CollectionOptions::default() };
            let spec = CollectionSpec { options, ..spec(r#"{"HNSW":{"m":4,"ef_construction":8}}"#) };
            let notes = db.create_collection("notes", spec).await.unwrap();
            let ends = Arc::new(AtomicBool::new(false));
            let upkeep = tokio::spawn({
                let (db, ends) = (db.clone(), ends.clone());
                async move {
                    while db.maintain().await.unwrap() || !ends.load(Ordering::Relaxed) {
                        tokio::task::yield_now().await;
                    }
                }
            });
            let mut expected = State::new();
            for part in 0..120 {
                let rows: State = (part * 20..part * 20 + 25).map(|id| (id, format!("part {part}"))).collect();
                notes.upsert(batch(&notes, &rows)).await.unwrap();
                expected.extend(rows);
                let gone = part * 13 % 1_000;
                notes.delete(Target::Keys(vec![Key::Int(gone)])).await.unwrap();
                expected.remove(&gone);
                let key = part * 20 + 24;
                let vector = Value::Vector(vec![key as f32, 1.0]);
                let request = SearchRequest { vector, limit: 1, ..Default::default() };
                assert_eq!(notes.search(&request).await.unwrap().hits[0].key, Key::Int(key), "{kind:?}, part {part}");
                if part % 8 == 0 {
                    assert_eq!(now(&notes).await, expected, "{kind:?}, part {part}");
                }
            }
            ends.store(true, Ordering::Relaxed);
            upkeep.await.unwrap();
            assert_eq!(now(&notes).await, expected, "{kind:?}");
            let stats = notes.stats().await.unwrap();
            let most = if kind == MergeKind::Sequential { 1 } else { 6 };
            assert!(stats.states.flushed <= most && stats.merges.finished > 0, "{kind:?}: {stats:?}");
            assert!(stats.merges.rows_flushed >= 2_500, "{kind:?}: {stats:?}");
            drop(notes);
            db.close().await.unwrap();
            let db = Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap();
            assert_eq!(now(&db.collection("notes").unwrap()).await, expected, "{kind:?}");
        });
    }
}

/// Counts change with the manifest, and are there after a crash.
#[test]
fn merges_are_counted_for_good() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let merge_policy = MergePolicy { kind: MergeKind::Sequential, ..MergePolicy::default() };
        let options = || Options { merge_policy, ..Options::default() };
        let db = open(&storage, options()).await;
        let notes = db.create_collection("notes", spec(r#""FLAT""#)).await.unwrap();
        for part in 0..3 {
            notes
                .upsert(batch(&notes, &(part * 10..part * 10 + 10).map(|id| (id, "x".to_owned())).collect()))
                .await
                .unwrap();
            db.flush("notes").await.unwrap();
            while db.maintain().await.unwrap() {}
        }
        let counts = MergeCounts { finished: 2, rows: 50, rows_flushed: 30 };
        let told = async |db: &Db| {
            let stats = db.collection("notes").unwrap().stats().await.unwrap();
            (stats.merge_policy, stats.merges, stats.states.flushed)
        };
        assert_eq!(told(&db).await, (MergeKind::Sequential, counts, 1));
        assert_eq!(format!("{:.2}", counts.write_amplification()), "1.67");
        let db = open(&storage.reopen(), Options::default()).await;
        assert_eq!(told(&db).await, (MergeKind::Hierarchical, counts, 1));
        assert_eq!(MergeCounts::default().write_amplification(), 0.0);
    });
}
