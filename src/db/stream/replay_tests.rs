//! Changes that come again at a chosen speed, on a clock that the tests move.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::base::{ErrorKind, Random};
use crate::db::{Collection, Db, Options};
use crate::engine::CollectionSpec;
use crate::model::{Batch, Key, Row, Value};
use crate::platform::{Environment, block_on};
use crate::storage::MemoryStorage;

const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"n","type":"int64"}]}"#;
const BEGUN_MS: u64 = 1_700_000_000_000;

struct World {
    clock: Arc<AtomicU64>,
    db: Db,
    notes: Collection,
}

impl World {
    async fn open() -> Self {
        let clock = Arc::new(AtomicU64::new(BEGUN_MS));
        let told = clock.clone();
        let environment = Environment::following(1, move || told.load(Ordering::Relaxed));
        let options = Options { environment, ..Options::default() };
        let db = Db::open(Arc::new(MemoryStorage::new()), options).await.unwrap();
        let spec: CollectionSpec = serde_json::from_str(SPEC).unwrap();
        let notes = db.create_collection("notes", spec).await.unwrap();
        Self { clock, db, notes }
    }

    async fn write(&self, ids: &[i64]) {
        let row = |id: &i64| Row::from([("id".to_owned(), Value::Int(*id)), ("n".to_owned(), Value::Int(0))]);
        let rows = Batch::from_rows(&self.notes.spec().schema, ids.iter().map(row).collect()).unwrap();
        self.notes.upsert(rows).await.unwrap();
    }

    fn after(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    async fn follow(&self, since: Since, speed: Option<f64>) -> Replay {
        let request = ChangesRequest { since, ..ChangesRequest::default() };
        self.notes.changes(request).await.unwrap().at_speed(speed).unwrap()
    }
}

fn keys(batch: &ChangeBatch) -> Vec<i64> {
    let key = |change: &Change| match change.key {
        Key::Int(key) => key,
        Key::String(_) => unreachable!("keys are numbers"),
    };
    batch.changes.iter().map(key).collect()
}

#[test]
fn what_was_written_comes_again_so_many_times_as_fast() {
    block_on(async {
        let world = World::open().await;
        world.write(&[1]).await;
        world.after(1_000);
        world.write(&[2, 3]).await;
        world.after(3_000);
        world.write(&[4]).await;
        world.after(60_000);
        let mut replay = world.follow(Since::Earliest, Some(2.0)).await;
        let now = 5_000_000;
        let first = replay.ready(now).await.unwrap();
        assert_eq!(keys(&first), [1]);
        assert_eq!(replay.due_ms(), Some(now + 500));
        let nothing = replay.ready(now + 499).await.unwrap();
        assert_eq!((keys(&nothing), nothing.is_caught_up), (vec![], false));
        assert_eq!(keys(&replay.ready(now + 500).await.unwrap()), [2, 3], "a transaction comes whole");
        assert_eq!(keys(&replay.ready(now + 1_999).await.unwrap()), [0; 0]);
        let last = replay.ready(now + 2_000).await.unwrap();
        assert_eq!((keys(&last), last.is_caught_up, replay.due_ms()), (vec![4], true, None));
        // What is written now happened later than the replay has got to, at twice the speed of time.
        world.write(&[5]).await;
        assert_eq!(keys(&replay.ready(now + 2_000).await.unwrap()), [0; 0]);
        assert_eq!(keys(&replay.ready(now + 32_000).await.unwrap()), [5]);
        // Whoever goes on after the first has the rest to come.
        let mut rest = world.follow(Since::Token(first.token.unwrap()), None).await;
        assert_eq!(keys(&rest.ready(0).await.unwrap()), [2, 3, 4, 5]);
        drop(world.db);
    });
}

#[test]
fn rows_that_were_there_did_not_happen_and_come_at_once() {
    block_on(async {
        let world = World::open().await;
        for id in 1..=3 {
            world.write(&[id]).await;
            world.after(1_000);
        }
        let mut replay = world.follow(Since::Full, Some(0.001)).await;
        assert_eq!(keys(&replay.ready(0).await.unwrap()), [1, 2, 3]);
        for speed in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let stream = world.notes.changes(ChangesRequest::default()).await.unwrap();
            assert_eq!(stream.at_speed(Some(speed)).err().unwrap().kind(), ErrorKind::InvalidArgument, "{speed}");
        }
    });
}

/// Whatever the speed, the steps of the clock and the sizes of batches: the same changes in the same order, whole transactions, none before it is
/// due, and every token goes on where it says.
#[test]
fn every_replay_is_the_same_changes() {
    for seed in 0..200_u64 {
        block_on(async {
            let mut random = Random::new(seed);
            let world = World::open().await;
            let mut written = Vec::new();
            for _ in 0..1 + random.below(12) {
                let mut ids: Vec<i64> = (0..1 + random.below(3)).map(|_| random.below(20) as i64).collect();
                ids.sort_unstable();
                ids.dedup();
                world.write(&ids).await;
                written.push((world.clock.load(Ordering::Relaxed), ids));
                world.after(random.below(5_000));
            }
            let speed = [0.5, 1.0, 3.0, 100.0][random.below(4) as usize];
            let request = ChangesRequest {
                since: Since::Earliest,
                batch_size: 1 + random.below(5) as usize,
                ..ChangesRequest::default()
            };
            let straight = world.notes.changes(request.clone()).await.unwrap();
            let mut replay = straight.at_speed(Some(speed)).unwrap();
            let mut all = world.follow(Since::Earliest, None).await;
            let mut expected: Vec<Change> = Vec::new();
            loop {
                let batch = all.ready(0).await.unwrap();
                expected.extend(batch.changes);
                if batch.is_caught_up {
                    break;
                }
            }
            let (begun, mut now, mut told) = (7_000_u64, 7_000_u64, Vec::<Change>::new());
            let first_ms = expected.first().map_or(0, |change| change.version.timestamp.physical_ms());
            loop {
                let batch = replay.ready(now).await.unwrap();
                for change in &batch.changes {
                    let after = change.version.timestamp.physical_ms().saturating_sub(first_ms) as f64 / speed;
                    assert!(now >= begun + after as u64, "seed {seed}: told at {now}, before it was due");
                }
                told.extend(batch.changes);
                if let Some(last) = told.last().filter(|_| random.below(3) == 0) {
                    let token = batch.token.unwrap();
                    let whole = expected.get(told.len()).is_none_or(|next| next.lsn != last.lsn);
                    assert!(whole && token.lsn >= last.lsn, "seed {seed}: it ends within a transaction");
                    let mut rest = world.follow(Since::Token(token), None).await;
                    let rest = rest.ready(0).await.unwrap().changes;
                    assert_eq!(rest, expected[told.len()..], "seed {seed}: after {token}");
                }
                if batch.is_caught_up {
                    break;
                }
                now += random.below(3_000);
            }
            assert_eq!(told, expected, "seed {seed}");
        });
    }
}
