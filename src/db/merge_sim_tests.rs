//! Seeded runs of stores in which merges of every kind go on beside writes and deletes, several at once, on a simulated disk that crashes and
//! fails at any call. After each life every acknowledged row is there once, and at the end dead rows are gone and segments are as few as their
//! kind promises. A failing seed is printed; `EDDY_SIM_SEEDS` sets how many are run, `EDDY_SIM_SEED` runs one.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::merge::Planted;
use super::{Collection, Db, MergeKind, MergePolicy, Options, QueryRequest, SearchRequest, Target};
use crate::base::{ErrorKind, Random, Result};
use crate::engine::{CollectionOptions, CollectionSpec, SealPolicy};
use crate::model::{Batch, Key, Row, Value};
use crate::platform::{Environment, block_on};
use crate::storage::FaultStorage;

const SEEDS: u64 = 100;
const SEEDS_TO_CATCH: u64 = 100;
const LIVES: usize = 4;
const KEYS: u64 = 400;

/// What of each key is certain; and of those whose write was not acknowledged, what it may be instead.
#[derive(Default)]
struct Expected {
    rows: BTreeMap<i64, i64>,
    unsure: BTreeMap<i64, Vec<Option<i64>>>,
    next: i64,
}

impl Expected {
    fn write(&mut self, change: &BTreeMap<i64, Option<i64>>, done: bool) {
        for (key, value) in change {
            if done {
                match value {
                    Some(value) => self.rows.insert(*key, *value),
                    None => self.rows.remove(key),
                };
                self.unsure.remove(key);
            } else {
                self.unsure.entry(*key).or_default().push(*value);
            }
        }
    }

    fn check(&mut self, found: &BTreeMap<i64, i64>, when: &str) {
        let keys: BTreeSet<i64> = self.rows.keys().chain(found.keys()).chain(self.unsure.keys()).copied().collect();
        for key in keys {
            let (found, expected) = (found.get(&key).copied(), self.rows.get(&key).copied());
            let may_be = self.unsure.get(&key).is_some_and(|values| values.contains(&found));
            assert!(found == expected || may_be, "{when}: key {key} is {found:?}, and was written as {expected:?}");
        }
    }

    fn settle(&mut self, found: BTreeMap<i64, i64>) {
        self.rows = found;
        self.unsure.clear();
    }
}

fn spec(random: &mut Random) -> CollectionSpec {
    let kind = *random.pick(&[r#""FLAT""#, r#"{"HNSW":{"m":4,"ef_construction":8}}"#]);
    let json = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"n","type":"int64"}},
        {{"name":"text","type":"varchar","maxLength":2000}},{{"name":"v","type":"float_vector","dim":2}}],
        "indexes":{{"v":{{"metric":"L2","kind":{kind}}}}}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

fn batch(collection: &Collection, rows: &BTreeMap<i64, Option<i64>>) -> Batch {
    let row = |(key, n): (&i64, &Option<i64>)| {
        let n = n.unwrap_or_default();
        Row::from([
            ("id".to_owned(), Value::Int(*key)),
            ("n".to_owned(), Value::Int(n)),
            ("text".to_owned(), Value::String(format!("{n} ").repeat(30))),
            ("v".to_owned(), Value::Vector(vec![*key as f32, 1.0])),
        ])
    };
    Batch::from_rows(&collection.spec().schema, rows.iter().map(row).collect()).unwrap()
}

async fn read(collection: &Collection) -> Result<BTreeMap<i64, i64>> {
    let rows = collection.query(&QueryRequest::default()).await?;
    let count = rows.len();
    let pair = |row: Row| match (&row["id"], &row["n"]) {
        (Value::Int(key), Value::Int(n)) => (*key, *n),
        other => panic!("{other:?}"),
    };
    let found: BTreeMap<i64, i64> = rows.into_iter().map(pair).collect();
    assert_eq!(found.len(), count, "a row is there twice");
    Ok(found)
}

/// What is merged under one policy.
#[derive(Clone)]
struct Plan {
    policy: MergePolicy,
    seal_rows: u64,
    memory_limit_bytes: Option<usize>,
    environment: Environment,
}

impl Plan {
    fn options(&self) -> Options {
        Options {
            merge_policy: self.policy,
            memory_limit_bytes: self.memory_limit_bytes,
            environment: self.environment.clone(),
            ..Options::default()
        }
    }

    fn of_collection(&self, merge_policy: Option<MergeKind>) -> CollectionOptions {
        let seal = SealPolicy { rows: Some(self.seal_rows), ..SealPolicy::default() };
        CollectionOptions { seal, merge_policy, ..CollectionOptions::default() }
    }
}

/// How many merges were under way at once at most, over all seeds that ran.
async fn run(seed: u64, planted: Option<Planted>) -> usize {
    let mut random = Random::new(seed);
    let kind = *random.pick(&MergeKind::ALL);
    let kind = if planted.is_some() { MergeKind::Parallel } else { kind };
    let plan = Plan {
        policy: MergePolicy {
            kind,
            merges_max: Some(1 + random.below(4) as usize),
            small_rows: 20 + random.below(100) as usize,
            small_count: 2 + random.below(3) as usize,
            ..MergePolicy::default()
        },
        seal_rows: 5 + random.below(20),
        memory_limit_bytes: random.one_in(3).then_some(200_000),
        environment: Environment::simulated(seed, 1_700_000_000_000),
    };
    let mut storage = FaultStorage::new(seed);
    let mut expected = Expected::default();
    let spec = CollectionSpec { options: plan.of_collection(None), ..spec(&mut random) };
    let mut at_once = 0;
    let (mut created, mut finished) = (false, 0);
    for life in 0..=LIVES {
        let last = life == LIVES;
        if life > 0 && !last {
            storage.crash_after(1 + random.below(400));
            if random.one_in(2) {
                storage.fail_at(random.below(300), ErrorKind::Io);
            }
        }
        let opened = Db::open(Arc::new(storage.clone()), plan.options()).await;
        let Ok(db) = opened else {
            assert!(!last, "seed {seed}: nothing fails any more: {:?}", opened.err());
            storage = storage.reopen();
            continue;
        };
        if !created {
            db.create_collection("notes", spec.clone()).await.unwrap();
            created = true;
        }
        let notes = db.collection("notes").unwrap();
        notes.inner.planted.store(planted == Some(Planted::Overlapping), Ordering::Relaxed);
        if let Ok(found) = read(&notes).await {
            expected.check(&found, &format!("seed {seed}, life {life}, opened"));
            expected.settle(found);
        }
        let stats = notes.stats().await;
        if let Ok(stats) = &stats {
            assert!(stats.merges.finished >= finished, "seed {seed}: merges that were counted are forgotten");
        }
        if !last {
            finished = live(&db, &notes, &plan, &mut random, &mut expected, &mut at_once, seed).await.max(finished);
        } else {
            rest(&db, &notes, &plan, &mut expected, seed).await;
            drop(notes);
            db.close().await.unwrap();
        }
        storage = storage.reopen();
    }
    at_once
}

/// Writes, deletes and steps of background work; tells how many merges are known to be durable.
async fn live(
    db: &Db,
    notes: &Collection,
    plan: &Plan,
    random: &mut Random,
    expected: &mut Expected,
    at_once: &mut usize,
    seed: u64,
) -> u64 {
    let mut finished = 0;
    for step in 0..150 {
        let keys = (0..1 + random.below(8)).map(|_| random.below(KEYS) as i64);
        let mut change: BTreeMap<i64, Option<i64>> = keys.map(|key| (key, None)).collect();
        let done = if random.one_in(4) {
            let keys = change.keys().copied().map(Key::Int).collect();
            notes.delete(Target::Keys(keys)).await
        } else {
            for value in change.values_mut() {
                expected.next += 1;
                *value = Some(expected.next);
            }
            notes.upsert(batch(notes, &change)).await
        };
        expected.write(&change, done.is_ok());
        for _ in 0..random.below(12) {
            let _ = db.maintain().await;
            *at_once = (*at_once).max(notes.inner.merges.lock().await.len());
        }
        if random.one_in(40) {
            // On a living collection, whatever is being merged.
            let kind = random.one_in(2).then(|| *random.pick(&MergeKind::ALL));
            let _ = db.set_options("notes", plan.of_collection(kind)).await;
        }
        if random.one_in(60) {
            db.begin_compaction(notes);
        }
        if random.one_in(10)
            && let Ok(found) = read(notes).await
        {
            expected.check(&found, &format!("seed {seed}, step {step}"));
        }
        if let Ok(stats) = notes.stats().await {
            finished = stats.merges.finished;
        }
    }
    finished
}

/// Nothing fails any more, and the policy is the store's again.
async fn rest(db: &Db, notes: &Collection, plan: &Plan, expected: &mut Expected, seed: u64) {
    db.set_options("notes", plan.of_collection(None)).await.unwrap();
    db.flush("notes").await.unwrap();
    let mut steps = 0;
    while db.maintain().await.unwrap() {
        steps += 1;
        assert!(steps < 50_000, "seed {seed}: it does not end");
    }
    let found = read(notes).await.unwrap();
    expected.check(&found, &format!("seed {seed}, at the end"));
    assert_eq!(notes.count(None).await.unwrap(), found.len(), "seed {seed}");
    for key in found.keys().take(5) {
        let vector = Value::Vector(vec![*key as f32, 1.0]);
        let request = SearchRequest { vector, limit: 1, ef: Some(64), ..Default::default() };
        let hits = notes.search(&request).await.unwrap().hits;
        assert_eq!(hits[0].key, Key::Int(*key), "seed {seed}");
    }
    let stats = notes.stats().await.unwrap();
    assert_eq!(stats.merge_policy, plan.policy.kind, "seed {seed}");
    let dead = stats.rows_dead as f64 / (stats.rows + stats.rows_dead).max(1) as f64;
    assert!(dead <= 0.3, "seed {seed}: {stats:?}");
    if plan.memory_limit_bytes.is_none() {
        let small = match plan.policy.kind {
            MergeKind::Sequential => 1,
            // All rows and deletes of keys fit into so many levels.
            _ => (plan.policy.small_count - 1) * 6 + 1,
        };
        assert!(stats.states.flushed <= small, "seed {seed}, {:?}: {stats:?}", plan.policy);
    }
    // No file stays of a merge that was given up, failed or died.
    let named: BTreeSet<String> = db.inner.shared.manifest().await.files().map(|file| file.name.clone()).collect();
    let entries = db.inner.shared.storage.list("").await.unwrap();
    let orphans: Vec<_> = entries
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| name.contains("/segment/") && !named.contains(name))
        .collect();
    assert!(orphans.is_empty(), "seed {seed}: nobody names {orphans:?}");
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_row_is_lost_or_doubled_by_merges_of_any_kind() {
    if let Some(seed) = number("EDDY_SIM_SEED") {
        block_on(run(seed, None));
        return;
    }
    let mut at_once = 0;
    for seed in 0..number("EDDY_SIM_SEEDS").unwrap_or(SEEDS) {
        let outcome = catch_unwind(AssertUnwindSafe(|| block_on(run(seed, None))));
        match outcome {
            Ok(merges) => at_once = at_once.max(merges),
            Err(panic) => {
                println!("seed {seed} failed: repeat it with EDDY_SIM_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(at_once > 1, "at most {at_once} merges were under way at once");
}

#[test]
fn merges_that_overlap_are_noticed() {
    let fault = Planted::Overlapping;
    let noticed =
        (0..SEEDS_TO_CATCH).find(|seed| catch_unwind(AssertUnwindSafe(|| block_on(run(*seed, Some(fault))))).is_err());
    println!("{fault:?}: noticed by seed {noticed:?}");
    assert!(noticed.is_some(), "{fault:?} was not noticed by {SEEDS_TO_CATCH} seeds");
}
