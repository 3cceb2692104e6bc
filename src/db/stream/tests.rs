#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::base::{ErrorKind, Lsn, Random, Timestamp};
use crate::db::{Collection, Db, MergePolicy, Operation, Options, Target, WriteOptions};
use crate::engine::CollectionSpec;
use crate::model::{Batch, Field, Key, Row, Value};
use crate::platform::block_on;
use crate::storage::{FaultStorage, Storage};

const SPEC: &str = r#"{"fields":[{"name":"id","type":"varchar","maxLength":20,"primaryKey":true},
    {"name":"n","type":"int64"},{"name":"v","type":"float_vector","dim":2}],
    "indexes":{"v":{"metric":"L2","kind":"FLAT"}}}"#;

fn spec() -> CollectionSpec {
    serde_json::from_str(SPEC).unwrap()
}

fn row(id: &str, n: i64) -> Row {
    Row::from([
        ("id".to_owned(), Value::String(id.to_owned())),
        ("n".to_owned(), Value::Int(n)),
        ("v".to_owned(), Value::Vector(vec![n as f32, 1.0])),
    ])
}

fn batch(collection: &Collection, rows: impl IntoIterator<Item = Row>) -> Batch {
    Batch::from_rows(&collection.spec().schema, rows.into_iter().collect()).unwrap()
}

async fn open(storage: &FaultStorage, retention_ms: u64) -> Db {
    let policy = MergePolicy { small_count: 2, ..MergePolicy::default() };
    let options = Options { retention_ms, merge_policy: policy, ..Options::default() };
    Db::open(Arc::new(storage.clone()) as Arc<dyn Storage>, options).await.unwrap()
}

fn number(row: Option<&Row>) -> Option<i64> {
    row.map(|row| match row["n"] {
        Value::Int(n) => n,
        ref other => panic!("{other:?}"),
    })
}

/// A change as the tests write it down: its position, what, the key, and the numbers before and after.
type Told = (u64, &'static str, String, Option<i64>, Option<i64>);

fn told(batch: &ChangeBatch) -> Vec<Told> {
    let told = |change: &Change| {
        let Key::String(key) = &change.key else { panic!("{change:?}") };
        let (before, after) = (number(change.before.as_ref()), number(change.after.as_ref()));
        (change.lsn.0, change.kind.as_str(), key.to_string(), before, after)
    };
    batch.changes.iter().map(told).collect()
}

/// All that is there.
async fn drain(stream: &mut ChangeStream) -> Vec<Told> {
    let mut all = Vec::new();
    loop {
        let batch = stream.ready().await.unwrap();
        all.extend(told(&batch));
        if batch.is_caught_up {
            return all;
        }
    }
}

fn request() -> ChangesRequest {
    ChangesRequest { before: true, ..ChangesRequest::default() }
}

fn kind<T>(result: crate::base::Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn tells_what_came_what_was_replaced_and_what_went() {
    block_on(async {
        let db = open(&FaultStorage::new(1), 0).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(batch(&notes, [row("before", 0)])).await.unwrap();
        let mut stream = notes.changes(request()).await.unwrap();
        assert_eq!(drain(&mut stream).await, []);
        notes.insert(batch(&notes, [row("b", 1), row("a", 2)])).await.unwrap();
        notes.upsert(batch(&notes, [row("a", 3), row("c", 4)])).await.unwrap();
        let operations =
            vec![Operation::Delete(Target::Keys(vec!["b".into()])), Operation::Upsert(batch(&notes, [row("c", 5)]))];
        let written = notes.batch(operations, WriteOptions::default()).await.unwrap();
        notes.insert(batch(&notes, [row("b", 6)])).await.unwrap();
        // Nothing of a delete of what is not there.
        notes.delete(Target::Keys(vec!["x".into()])).await.unwrap();
        let batch = stream.next().await.unwrap();
        let expected = [
            (2, "insert", "a".to_owned(), None, Some(2)),
            (2, "insert", "b".to_owned(), None, Some(1)),
            (3, "update", "a".to_owned(), Some(2), Some(3)),
            (3, "insert", "c".to_owned(), None, Some(4)),
            (4, "delete", "b".to_owned(), Some(1), None),
            (4, "update", "c".to_owned(), Some(4), Some(5)),
            (5, "insert", "b".to_owned(), None, Some(6)),
        ];
        assert_eq!(told(&batch), expected);
        assert_eq!(batch.changes[4].version, written.version, "of a delete too");
        assert!(batch.is_caught_up && batch.schema.is_none());
        // Whole transactions: the third change belongs to the second one.
        let token = |lsn| ResumeToken { lsn: Lsn(lsn), ..batch.token.unwrap() };
        let mut again =
            notes.changes(ChangesRequest { since: Since::Token(token(2)), batch_size: 1, ..request() }).await.unwrap();
        assert_eq!(told(&again.ready().await.unwrap()), expected[2..4]);
        assert_eq!(again.token().unwrap(), token(3));
        assert_eq!(drain(&mut again).await, expected[4..]);
    });
}

#[test]
fn filters_by_operation_key_and_either_row_and_moves_on_without_changes() {
    block_on(async {
        let db = open(&FaultStorage::new(1), 0).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let follow = |request: ChangesRequest| notes.changes(request);
        let filter = ChangesRequest { filter: Some("n >= 10".to_owned()), ..request() };
        let mut large = follow(filter).await.unwrap();
        let mut deletes =
            follow(ChangesRequest { operations: vec![ChangeKind::Delete], after: false, ..request() }).await.unwrap();
        let mut keys = follow(ChangesRequest {
            key_pattern: Some("a%".to_owned()),
            before: false,
            output_fields: Some(vec!["n".to_owned(), "$version".to_owned()]),
            ..request()
        })
        .await
        .unwrap();
        notes.insert(batch(&notes, [row("a", 1), row("ab", 10)])).await.unwrap();
        notes.upsert(batch(&notes, [row("a", 11), row("ab", 2)])).await.unwrap();
        notes.delete(Target::Keys(vec!["ab".into()])).await.unwrap();
        notes.upsert(batch(&notes, [row("b", 3)])).await.unwrap();
        let expected = [
            (1, "insert", "ab".to_owned(), None, Some(10)),
            (2, "update", "a".to_owned(), Some(1), Some(11)),
            (2, "update", "ab".to_owned(), Some(10), Some(2)),
        ];
        assert_eq!(drain(&mut large).await, expected);
        assert_eq!(large.token().unwrap().lsn, Lsn(4), "past what it does not follow");
        assert_eq!(drain(&mut deletes).await, [(3, "delete", "ab".to_owned(), Some(2), None)]);
        let some = keys.next().await.unwrap();
        assert_eq!(some.changes.len(), 5);
        assert_eq!(some.changes[0].after.as_ref().unwrap().len(), 2);
        for wrong in [
            ChangesRequest { filter: Some("m > 1".to_owned()), ..request() },
            ChangesRequest { output_fields: Some(vec!["m".to_owned()]), ..request() },
            ChangesRequest { subscription: Some(String::new()), ..request() },
        ] {
            assert_eq!(kind(notes.changes(wrong).await), ErrorKind::InvalidArgument);
        }
        let mut token = large.token().unwrap();
        token.replica.0 += 1;
        assert_eq!(kind(follow(ChangesRequest { since: Since::Token(token), ..request() }).await), ErrorKind::Gone);
        assert_eq!(token.to_string().parse::<ResumeToken>().unwrap(), token);
        for wrong in ["", "1", "2-1-1-1-1", "1-1-1-1", "1-1-1-1-1-1", "1-1-x-1-1"] {
            assert_eq!(kind(wrong.parse::<ResumeToken>()), ErrorKind::InvalidArgument);
        }
    });
}

#[test]
fn begins_with_all_rows_or_at_a_time_and_tells_of_new_fields() {
    block_on(async {
        let db = open(&FaultStorage::new(1), 3_600_000).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let first = notes.insert(batch(&notes, [row("a", 1), row("b", 2), row("c", 3)])).await.unwrap();
        let second = notes.upsert(batch(&notes, [row("b", 4)])).await.unwrap();
        let full = ChangesRequest { since: Since::Full, filter: Some("n != 3".to_owned()), batch_size: 1, ..request() };
        let mut stream = notes.changes(full).await.unwrap();
        let one = stream.ready().await.unwrap();
        assert_eq!(told(&one), [(2, "read", "a".to_owned(), None, Some(1))]);
        assert_eq!((one.token, one.changes[0].version), (None, first.version));
        // Between the two, neither a gap nor a row twice.
        notes.upsert(batch(&notes, [row("b", 5), row("d", 6)])).await.unwrap();
        assert_eq!(told(&stream.ready().await.unwrap()), [(2, "read", "b".to_owned(), None, Some(4))]);
        let rest = [(3, "update", "b".to_owned(), Some(4), Some(5)), (3, "insert", "d".to_owned(), None, Some(6))];
        assert_eq!(drain(&mut stream).await, rest);

        let since = |timestamp| notes.changes(ChangesRequest { since: Since::Time(timestamp), ..request() });
        let mut later = since(second.timestamp).await.unwrap();
        assert_eq!(drain(&mut later).await.len(), 3);
        let mut earliest = notes.changes(ChangesRequest { since: Since::Earliest, ..request() }).await.unwrap();
        assert_eq!(drain(&mut earliest).await.len(), 6);

        let token = later.token().unwrap();
        let field: Field = serde_json::from_str(r#"{"name":"extra","type":"int64","nullable":true}"#).unwrap();
        db.add_field("notes", field, None).await.unwrap();
        notes.delete(Target::Keys(vec!["a".into()])).await.unwrap();
        for mut stream in
            [later, notes.changes(ChangesRequest { since: Since::Token(token), ..request() }).await.unwrap()]
        {
            let grown = stream.next().await.unwrap();
            assert_eq!(grown.schema.unwrap().fields().len(), 4);
            assert_eq!(grown.changes.len(), 1);
            assert!(stream.ready().await.unwrap().schema.is_none());
        }
    });
}

#[test]
fn history_that_is_gone_is_an_error_and_nobody_waits_for_the_slow() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = open(&storage, 0).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(batch(&notes, [row("a", 0)])).await.unwrap();
        let mut slow = notes.changes(ChangesRequest { buffer_size: 3, ..request() }).await.unwrap();
        let mut other = notes.changes(request()).await.unwrap();
        let token = slow.token().unwrap();
        for n in 1..=3 {
            notes.upsert(batch(&notes, [row("a", n)])).await.unwrap();
        }
        // Three behind is not too far.
        let mut fast = notes.changes(ChangesRequest { since: Since::Token(token), ..request() }).await.unwrap();
        assert_eq!(drain(&mut fast).await.len(), 3);
        notes.upsert(batch(&notes, [row("a", 4)])).await.unwrap();
        assert_eq!(drain(&mut other).await.len(), 4, "whoever is held still has all");
        drop((other, fast));
        notes.upsert(batch(&notes, [row("a", 5)])).await.unwrap();
        while db.maintain().await.unwrap() {}
        assert_eq!(kind(slow.ready().await), ErrorKind::Gone);
        let from = |since| notes.changes(ChangesRequest { since, ..request() });
        assert_eq!(kind(from(Since::Token(token)).await), ErrorKind::Gone);
        assert_eq!(kind(from(Since::Time(Timestamp(1))).await), ErrorKind::Gone);
        let ahead = ResumeToken { lsn: Lsn(99), ..token };
        assert_eq!(kind(from(Since::Token(ahead)).await), ErrorKind::Gone, "a crash took it back");
        let mut waiting = from(Since::Now).await.unwrap();
        let newest = waiting.token().unwrap();
        db.close().await.unwrap();
        assert_eq!(kind(waiting.next().await), ErrorKind::Closed);
        drop((slow, waiting, notes, db));
        // Whoever had come to the end before a restart has missed nothing.
        let db = open(&storage.reopen(), 0).await;
        let notes = db.collection("notes").unwrap();
        let mut stream = notes.changes(ChangesRequest { since: Since::Token(newest), ..request() }).await.unwrap();
        notes.upsert(batch(&notes, [row("a", 6)])).await.unwrap();
        assert_eq!(drain(&mut stream).await, [(7, "update", "a".to_owned(), Some(5), Some(6))]);
    });
}

#[test]
fn a_subscription_goes_on_after_what_was_acknowledged() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = open(&storage, 0).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let named = |since| ChangesRequest { since, subscription: Some("mail".to_owned()), ..request() };
        notes.insert(batch(&notes, [row("a", 0)])).await.unwrap();
        let mut full = notes.changes(named(Since::Full)).await.unwrap();
        assert_eq!(told(&full.ready().await.unwrap()).len(), 1);
        assert!(notes.subscriptions().is_empty(), "who is interrupted now begins anew");
        let token = full.ready().await.unwrap().token.unwrap();
        full.acknowledge(&token).await.unwrap();
        drop(full);
        for n in 1..=6 {
            notes.upsert(batch(&notes, [row("a", n)])).await.unwrap();
            db.flush("notes").await.unwrap();
            while db.maintain().await.unwrap() {}
        }
        notes.delete(Target::Keys(vec!["a".into()])).await.unwrap();
        db.compact("notes").await.unwrap();
        drop((notes, db));
        let db = open(&storage.reopen(), 0).await;
        let notes = db.collection("notes").unwrap();
        assert_eq!(notes.subscriptions(), BTreeMap::from([("mail".to_owned(), Lsn(1))]));
        let mut stream = notes.changes(named(Since::Now)).await.unwrap();
        let all = drain(&mut stream).await;
        assert_eq!(
            all.iter().map(|told| (told.3, told.4)).collect::<Vec<_>>(),
            [
                (Some(0), Some(1)),
                (Some(1), Some(2)),
                (Some(2), Some(3)),
                (Some(3), Some(4)),
                (Some(4), Some(5)),
                (Some(5), Some(6)),
                (Some(6), None),
            ]
        );
        let token = stream.token().unwrap();
        stream.acknowledge(&token).await.unwrap();
        assert_eq!(kind(notes.acknowledge("other", &token).await), ErrorKind::NotFound);
        assert!(notes.unsubscribe("mail").await.unwrap() && !notes.unsubscribe("mail").await.unwrap());
        assert_eq!(kind(stream.acknowledge(&token).await), ErrorKind::NotFound);
    });
}

/// Random writes, flushes, merges, crashes and followers that come and go: every follower is told every change once, in order, whether
/// it goes on from a token, from a subscription, or was there all along.
#[test]
fn every_change_is_told_once_whatever_happens() {
    for seed in 0..120 {
        block_on(run(seed));
    }
}

async fn run(seed: u64) {
    let mut random = Random::new(seed);
    let retention_ms = [0, 3_600_000][random.below(2) as usize];
    let mut storage = FaultStorage::new(seed);
    let mut db = open(&storage, retention_ms).await;
    let mut notes = db.create_collection("notes", spec()).await.unwrap();
    let mut model: BTreeMap<String, i64> = BTreeMap::new();
    let mut expected: Vec<Told> = Vec::new();
    let named = || ChangesRequest { subscription: Some("s".to_owned()), batch_size: 3, ..request() };
    let mut stream = notes.changes(named()).await.unwrap();
    let (mut seen, mut acknowledged) = (0, 0);
    let mut by_token: Option<(ResumeToken, usize)> = None;
    for n in 0..60 {
        match random.below(12) {
            0..6 => {
                let mut puts = BTreeMap::new();
                let mut deletes = Vec::new();
                for _ in 0..=random.below(3) {
                    let key = format!("k{}", random.below(6));
                    if model.contains_key(&key) && random.one_in(3) {
                        puts.remove(&key);
                        deletes.push(key);
                    } else if !deletes.contains(&key) {
                        puts.insert(key, n);
                    }
                }
                deletes.sort();
                deletes.dedup();
                let keys = deletes.iter().map(|key| key.as_str().into()).collect();
                let rows = puts.iter().map(|(key, n)| row(key, *n));
                let operations = vec![Operation::Delete(Target::Keys(keys)), Operation::Upsert(batch(&notes, rows))];
                let lsn = notes.batch(operations, WriteOptions::default()).await.unwrap().lsn.0;
                let mut changes: Vec<Told> = Vec::new();
                for (key, n) in puts {
                    let before = model.insert(key.clone(), n);
                    changes.push((lsn, if before.is_some() { "update" } else { "insert" }, key, before, Some(n)));
                }
                for key in deletes {
                    let before = model.remove(&key);
                    changes.push((lsn, "delete", key, before, None));
                }
                changes.sort_by(|a, b| a.2.cmp(&b.2));
                expected.extend(changes);
            }
            6 => db.flush("notes").await.unwrap(),
            7 => while db.maintain().await.unwrap() {},
            8 => db.compact("notes").await.unwrap(),
            9 => {
                let some = stream.ready().await.unwrap();
                let some_told = told(&some);
                assert_eq!(some_told, expected[seen..seen + some_told.len()], "seed {seed}, step {n}");
                seen += some_told.len();
                if random.one_in(2) {
                    stream.acknowledge(&some.token.unwrap()).await.unwrap();
                    acknowledged = seen;
                } else {
                    by_token = Some((some.token.unwrap(), seen));
                }
            }
            10 if by_token.is_some() => {
                let (token, from) = by_token.unwrap();
                match notes.changes(ChangesRequest { since: Since::Token(token), batch_size: 2, ..request() }).await {
                    Ok(mut stream) => assert_eq!(drain(&mut stream).await, expected[from..], "seed {seed}, step {n}"),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Gone, "seed {seed}, step {n}");
                        assert_eq!(retention_ms, 0, "seed {seed}, step {n}: {error}");
                    }
                }
            }
            _ => {
                drop((stream, notes, db));
                storage = storage.reopen();
                db = open(&storage, retention_ms).await;
                notes = db.collection("notes").unwrap();
                stream = notes.changes(named()).await.unwrap();
                // An acknowledgement may be taken back by a crash.
                let first = expected.get(acknowledged).map_or(u64::MAX, |told| told.0);
                let position = stream.token().unwrap().lsn.0;
                assert!(position < first, "seed {seed}, step {n}: {position} of {first}");
                seen = expected.partition_point(|told| told.0 <= position);
            }
        }
    }
    let rest = drain(&mut stream).await;
    assert_eq!(rest, expected[seen..], "seed {seed}");
}
