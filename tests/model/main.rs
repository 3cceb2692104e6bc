//! Seeded runs of one store against a `BTreeMap` that remembers every state it had: writes, batches, conditional writes, snapshots
//! and reads of the past, with flushes, merges, restarts and crashes in between. A failing seed is printed; `EDDY_MODEL_SEEDS`
//! sets how many are run, `EDDY_MODEL_SEED` runs one.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use eddydb::base::{ErrorKind, Timestamp, Version};
use eddydb::db::{
    Collection, Condition, Db, Durability, Operation, Options, QueryRequest, SearchRequest, Snapshot, Target,
    WriteOptions,
};
use eddydb::engine::CollectionSpec;
use eddydb::model::{Batch, Key, Row, Value};
use eddydb::platform::block_on;
use eddydb::storage::FaultStorage;

const KEYS: u64 = 12;

/// A small generator that is the same everywhere: SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn key(&mut self) -> i64 {
        self.below(KEYS) as i64
    }
}

fn spec() -> CollectionSpec {
    let json = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"number","type":"int64"},
        {"name":"embedding","type":"float_vector","dim":2}],"dynamic":false,"indexes":{"embedding":{"metric":"L2","kind":"FLAT"}}}"#;
    serde_json::from_str(json).unwrap()
}

/// By key, the number that was written last.
type State = BTreeMap<i64, i64>;

fn batch(collection: &Collection, rows: &State) -> Batch {
    let row = |(key, number): (&i64, &i64)| {
        Row::from([
            ("id".to_owned(), Value::Int(*key)),
            ("number".to_owned(), Value::Int(*number)),
            ("embedding".to_owned(), Value::Vector(vec![*key as f32, *number as f32])),
        ])
    };
    Batch::from_rows(&collection.spec().schema, rows.iter().map(row).collect()).unwrap()
}

fn state(rows: &[Row]) -> State {
    let pair = |row: &Row| match (&row["id"], &row["number"]) {
        (Value::Int(key), Value::Int(number)) => (*key, *number),
        other => panic!("{other:?}"),
    };
    rows.iter().map(pair).collect()
}

fn keys() -> Vec<Key> {
    (0..KEYS as i64).map(Key::Int).collect()
}

struct Run {
    random: Random,
    storage: FaultStorage,
    options: Options,
    /// The newest number that was written.
    number: i64,
    now: State,
    /// The state after each write, by its time; oldest first.
    past: Vec<(Timestamp, State)>,
    /// Of each row that is there.
    versions: BTreeMap<i64, Version>,
}

impl Run {
    fn rows(&mut self) -> State {
        let count = 1 + self.random.below(4);
        let row = |run: &mut Self| {
            run.number += 1;
            (run.random.key(), run.number)
        };
        (0..count).map(|_| row(self)).collect()
    }

    /// One to three operations, and what they make of the state; `None` when one of them must be refused.
    fn operations(&mut self, collection: &Collection) -> (Vec<Operation>, Option<State>) {
        let mut next = Some(self.now.clone());
        let mut operations = Vec::new();
        for _ in 0..[1, 1, 1, 2, 3][self.random.below(5) as usize] {
            operations.push(match self.random.below(5) {
                0 => {
                    let rows = self.rows();
                    if next.as_ref().is_some_and(|next| rows.keys().any(|key| next.contains_key(key))) {
                        next = None;
                    }
                    if let Some(next) = &mut next {
                        next.extend(rows.clone());
                    }
                    Operation::Insert(batch(collection, &rows))
                }
                1..=2 => {
                    let rows = self.rows();
                    if let Some(next) = &mut next {
                        next.extend(rows.clone());
                    }
                    Operation::Upsert(batch(collection, &rows))
                }
                3 => {
                    let keys = [self.random.key(), self.random.key()];
                    if let Some(next) = &mut next {
                        next.retain(|key, _| !keys.contains(key));
                    }
                    Operation::Delete(Target::Keys(keys.map(Key::Int).to_vec()))
                }
                _ => {
                    let (low, high) = (self.random.key(), self.random.key());
                    if let Some(next) = &mut next {
                        // A filter looks at what was there before the batch.
                        next.retain(|key, _| !(low..=high).contains(key) || !self.now.contains_key(key));
                    }
                    Operation::Delete(Target::Filter(format!("id >= {low} and id <= {high}")))
                }
            });
        }
        (operations, next)
    }

    async fn write(&mut self, collection: &Collection) {
        let (operations, mut next) = self.operations(collection);
        let mut refused = ErrorKind::AlreadyExists;
        let mut conditions = Vec::new();
        if self.random.below(3) == 0 {
            let key = self.random.key();
            let there = self.versions.get(&key).copied();
            let wrong = self.random.below(2) == 0;
            let version = match (wrong, there) {
                (false, there) => there,
                (true, Some(_)) => None,
                (true, None) => Some(Version { timestamp: Timestamp(7), ..Version::default() }),
            };
            if wrong {
                (next, refused) = (None, ErrorKind::Conflict);
            }
            conditions.push(Condition { key: Key::Int(key), version });
        }
        let durability = [None, Some(Durability::Synced), Some(Durability::Buffered)][self.random.below(3) as usize];
        let written = collection.batch(operations, WriteOptions { durability, conditions, ..Default::default() }).await;
        let Some(next) = next else {
            assert_eq!(written.unwrap_err().kind(), refused);
            return;
        };
        let written = written.unwrap();
        if written.count > 0 {
            for (key, number) in &next {
                if self.now.get(key) != Some(number) {
                    self.versions.insert(*key, written.version);
                }
            }
            self.versions.retain(|key, _| next.contains_key(key));
            self.past.push((written.timestamp, next.clone()));
        }
        assert_eq!(written.count == 0, next == self.now);
        self.now = next;
    }

    async fn check_past(&mut self, collection: &Collection) {
        if self.past.is_empty() {
            return;
        }
        let at = self.random.below(self.past.len() as u64) as usize;
        let (timestamp, expected) = &self.past[at];
        let then = collection.snapshot_at(*timestamp).unwrap();
        check(&then, expected).await;
        // A moment earlier it was not so yet.
        let before = at.checked_sub(1).map(|at| self.past[at].1.clone()).unwrap_or_default();
        let then = collection.snapshot_at(Timestamp(timestamp.0 - 1)).unwrap();
        check(&then, &before).await;
    }

    async fn live(&mut self, db: &Db) {
        let collection = match db.collection("notes") {
            Ok(collection) => collection,
            Err(_) => db.create_collection("notes", spec()).await.unwrap(),
        };
        check_now(&collection, &self.now).await;
        let mut held: Vec<(Snapshot, State)> = Vec::new();
        for _ in 0..20 + self.random.below(40) {
            match self.random.below(20) {
                0..=10 => self.write(&collection).await,
                11..=12 => held.push((collection.snapshot().unwrap(), self.now.clone())),
                13 => {
                    if let Some((snapshot, expected)) = held.pop() {
                        check(&snapshot, &expected).await;
                    }
                }
                14 if !self.past.is_empty() => {
                    let at = self.random.below(self.past.len() as u64) as usize;
                    let (timestamp, expected) = self.past[at].clone();
                    held.push((collection.snapshot_at(timestamp).unwrap(), expected));
                }
                15 if self.random.below(3) == 0 => db.compact("notes").await.unwrap(),
                15 => db.flush("notes").await.unwrap(),
                16..=17 => {
                    for _ in 0..self.random.below(6) {
                        db.maintain().await.unwrap();
                    }
                }
                _ => self.check_past(&collection).await,
            }
        }
        for (snapshot, expected) in &held {
            check(snapshot, expected).await;
        }
        check_now(&collection, &self.now).await;
    }
}

async fn check(snapshot: &Snapshot, expected: &State) {
    assert_eq!(state(&snapshot.query(&QueryRequest::default()).await.unwrap()), *expected);
    assert_eq!(state(&snapshot.get(&keys(), None).await.unwrap()), *expected);
    assert_eq!(snapshot.count(None).await.unwrap(), expected.len());
    assert_eq!(snapshot.count(Some("id >= 6")).await.unwrap(), expected.range(6..).count());
    let request = SearchRequest { vector: vec![3.0, 3.0].into(), limit: 100, ..Default::default() };
    let rows: Vec<Row> = snapshot.search(&request).await.unwrap().hits.into_iter().map(|hit| hit.row).collect();
    assert_eq!(state(&rows), *expected);
}

async fn check_now(collection: &Collection, expected: &State) {
    assert_eq!(state(&collection.query(&QueryRequest::default()).await.unwrap()), *expected);
    assert_eq!(state(&collection.get(&keys(), None).await.unwrap()), *expected);
    assert_eq!(collection.count(None).await.unwrap(), expected.len());
}

async fn run(seed: u64) {
    let mut random = Random(seed);
    let checkpoint_bytes = [2_000, 20_000, 64 << 20][random.below(3) as usize];
    let mut run = Run {
        random,
        storage: FaultStorage::new(seed),
        options: Options { retention_ms: 3_600_000, checkpoint_bytes, ..Options::default() },
        number: 0,
        now: State::new(),
        past: Vec::new(),
        versions: BTreeMap::new(),
    };
    for _ in 0..4 {
        let db = Db::open(Arc::new(run.storage.clone()), run.options.clone()).await.unwrap();
        run.live(&db).await;
        // What was only buffered is durable after a flush or a close, and so it is after a restart by crash.
        if run.random.below(2) == 0 {
            db.close().await.unwrap()
        } else {
            db.flush("notes").await.unwrap()
        }
        drop(db);
        run.storage = run.storage.reopen();
    }
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("EDDY_MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("EDDY_MODEL_SEEDS").unwrap_or(300)).collect(),
    }
}

#[test]
fn the_store_is_a_map_with_a_past() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| block_on(run(seed)));
        assert!(outcome.is_ok(), "seed {seed} failed: repeat it with EDDY_MODEL_SEED={seed}");
    }
}
