//! Handles that may not do everything.

use std::collections::BTreeSet;

use serde_json::json;

use super::sync_testing::{Device, delete, put, row, spec};
use super::*;
use crate::base::{ErrorKind, ReplicaId, Result, Sequence, Timestamp, Version};
use crate::engine::ChangeSet;
use crate::model::{Batch, Key, Value};

fn grants(text: serde_json::Value) -> Access {
    Access::of(serde_json::from_value(text).unwrap()).unwrap()
}

/// Rows 1 to 6; rows 1 to 3 may be read, rows 2 to 4 written.
async fn device() -> (Device, Collection) {
    let device = Device::new().await;
    device.db.create_collection("notes", spec()).await.unwrap();
    put(&device.notes(), (1..=6).map(|id| (id, if id % 2 == 0 { "even" } else { "odd" }))).await;
    let access = grants(json!([
        {"collections": ["no*"], "actions": ["read"], "filter": "id <= {most}", "filterParams": {"most": 3}},
        {"collections": ["notes"], "actions": ["write"], "filter": "id in [2, 3]"},
        {"collections": ["notes"], "actions": ["write"], "filter": "extra[\"of\"] == 4"},
    ]));
    let limited = device.notes().limited(&access).unwrap();
    (device, limited)
}

fn keys(rows: &[crate::model::Row]) -> BTreeSet<i64> {
    let key = |row: &crate::model::Row| match row["id"] {
        Value::Int(id) => id,
        ref other => panic!("{other:?}"),
    };
    rows.iter().map(key).collect()
}

fn is_forbidden<T: std::fmt::Debug>(result: Result<T>, part: &str) {
    let error = result.unwrap_err();
    assert!(error.kind() == ErrorKind::Forbidden && error.message().contains(part), "{error}");
}

#[tokio::test]
async fn every_read_sees_only_what_may_be_seen() {
    let (device, limited) = device().await;
    let all = Some(vec!["id".to_owned()]);
    let query = |filter: Option<&str>| QueryRequest {
        filter: filter.map(str::to_owned),
        output_fields: all.clone(),
        ..Default::default()
    };
    assert_eq!(keys(&limited.query(&query(None)).await.unwrap()), [1, 2, 3].into());
    // A filter of the request narrows, whatever it says.
    for (filter, expected) in [
        ("id > 2", vec![3]),
        ("id > 4 or id < 2", vec![1]),
        ("not (id > 4)", vec![1, 2, 3]),
        ("id in [5, 6]", vec![]),
        ("id == 5 or true", vec![1, 2, 3]),
    ] {
        assert_eq!(
            keys(&limited.query(&query(Some(filter))).await.unwrap()),
            expected.into_iter().collect(),
            "{filter}"
        );
    }
    assert_eq!(limited.count(None).await.unwrap(), 3);
    assert_eq!(limited.count(Some("title == 'even'")).await.unwrap(), 1);
    let asked = [6, 3, 5, 1].map(Key::Int);
    let got = limited.get(&asked, all.as_deref()).await.unwrap();
    assert_eq!(got.iter().map(|row| row["id"].clone()).collect::<Vec<_>>(), [Value::Int(3), Value::Int(1)]);
    let search =
        |ids: Vec<Key>, vector: Value| SearchRequest { vector, ids, limit: 10, exact: true, ..Default::default() };
    let nearest = limited.search(&search(Vec::new(), vec![6.0, 1.0, -0.5, 0.25].into())).await.unwrap();
    assert_eq!(nearest.hits.iter().map(|hit| hit.key.clone()).collect::<BTreeSet<_>>(), [1, 2, 3].map(Key::Int).into());
    // Nor is the vector of a row that may not be seen a query.
    let error = limited.search(&search(vec![Key::Int(5)], Value::Null)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let snapshot = limited.snapshot().unwrap();
    assert_eq!(keys(&snapshot.query(&query(None)).await.unwrap()), [1, 2, 3].into());
    assert_eq!(snapshot.get(&asked, None).await.unwrap().len(), 2);
    let mut iterator = snapshot.query_iterator(query(None)).unwrap();
    assert_eq!(keys(&iterator.next(10).await.unwrap()), [1, 2, 3].into());
    is_forbidden(limited.evaluate(&EvaluateRequest::default()).await, "all rows");
    // Answers that are kept are no one else's.
    let group = QueryRequest { output_fields: Some(vec!["count(*)".to_owned()]), ..Default::default() };
    assert_eq!(limited.query(&group).await.unwrap()[0]["count(*)"], Value::Int(3));
    assert_eq!(device.notes().query(&group).await.unwrap()[0]["count(*)"], Value::Int(6));
    drop(device);
}

#[tokio::test]
async fn changes_tell_nothing_of_rows_that_may_not_be_seen() {
    let device = Device::new().await;
    device.db.create_collection("notes", spec()).await.unwrap();
    let access = grants(json!([{"collections": ["*"], "actions": ["read"], "filter": "title == 'mine'"}]));
    let limited = device.notes().limited(&access).unwrap();
    let mut changes = limited.changes(ChangesRequest { before: true, ..Default::default() }).await.unwrap();
    let told = async |changes: &mut ChangeStream| {
        let batch = changes.ready().await.unwrap();
        let told = |change: &Change| {
            (change.kind.as_str(), change.key.clone(), change.before.is_some(), change.after.is_some())
        };
        batch.changes.iter().map(told).collect::<Vec<_>>()
    };
    put(&device.notes(), [(1, "mine"), (2, "other")]).await;
    assert_eq!(told(&mut changes).await, [("insert", Key::Int(1), false, true)]);
    // One leaves, the other comes: for who looks, they are deleted and inserted, and what is hidden stays hidden.
    put(&device.notes(), [(1, "other"), (2, "mine")]).await;
    assert_eq!(told(&mut changes).await, [("delete", Key::Int(1), true, false), ("insert", Key::Int(2), false, true)]);
    put(&device.notes(), [(1, "still other"), (3, "other")]).await;
    delete(&device.notes(), &[1, 3]).await;
    assert_eq!(told(&mut changes).await, []);
    delete(&device.notes(), &[2]).await;
    assert_eq!(told(&mut changes).await, [("delete", Key::Int(2), true, false)]);
    let mut live = limited.live().await.unwrap();
    let (_, answer) = live.add(LiveRequest::Rows(Box::default())).await.unwrap();
    assert_eq!(answer.len(), 0);
    put(&device.notes(), [(1, "other"), (4, "mine")]).await;
    let update = live.update().await.unwrap().pop().unwrap();
    assert!(matches!(&update.differences[..], [Difference::Entered(0, hit)] if hit.key == Key::Int(4)), "{update:?}");
}

#[tokio::test]
async fn only_rows_that_may_be_written_are_made_replaced_and_deleted() {
    let (device, limited) = device().await;
    let of = |id: i64, title: &str| Batch::from_rows(&limited.spec().schema, vec![row(id, title)]).unwrap();
    limited.upsert(of(2, "new")).await.unwrap();
    limited.upsert(of(4, "new")).await.unwrap();
    is_forbidden(limited.upsert(of(5, "new")).await, "primary key 5");
    is_forbidden(limited.insert(of(9, "new")).await, "primary key 9");
    assert_eq!(limited.insert(of(3, "new")).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    // What it would become may be written; what it replaces may not.
    put(&device.notes(), [(3, "moved")]).await;
    let access = grants(json!([{"collections": ["notes"], "actions": ["write"], "filter": "title == 'mine'"}]));
    let mine = device.notes().limited(&access).unwrap();
    is_forbidden(mine.upsert(of(3, "mine")).await, "primary key 3");
    is_forbidden(mine.delete(Target::Keys(vec![3.into()])).await, "primary key 3");
    mine.upsert(of(10, "mine")).await.unwrap();
    assert_eq!(mine.delete(Target::Keys(vec![10.into(), 11.into()])).await.unwrap().count, 1);
    // Who may only write does not find out by a delete, or otherwise, what is there.
    is_forbidden(mine.delete(Target::Filter("id > 0".into())).await, "granted");
    is_forbidden(mine.count(None).await, "granted");
    // By a filter, what is deleted may be written and read: rows 2 and 3.
    assert_eq!(limited.delete(Target::Filter("id > 0".into())).await.unwrap().count, 2);
    assert_eq!(device.notes().count(None).await.unwrap(), 4);
    // All or nothing, and conditions of the caller count too.
    let steps = vec![Operation::Upsert(of(2, "again")), Operation::Delete(Target::Keys(vec![5.into()]))];
    is_forbidden(limited.batch(steps, WriteOptions::default()).await, "primary key 5");
    assert_eq!(device.notes().count(Some("id == 2")).await.unwrap(), 0);
    let conditions = vec![Condition { key: 2.into(), version: Some(Default::default()) }];
    let options = WriteOptions { conditions, ..Default::default() };
    let conflict = limited.batch(vec![Operation::Upsert(of(2, "again"))], options).await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
}

/// What came by sync was looked at before it was applied: whoever wrote in between had a row replaced that the token's holder may not touch.
#[tokio::test]
async fn a_row_given_to_somebody_else_while_a_change_is_on_its_way_stays_his() {
    let (device, limited) = device().await;
    let notes = device.notes();
    let newer = |id: i64| {
        let puts = Batch::from_rows(&notes.spec().schema, vec![row(id, "hers")]).unwrap();
        let timestamp = Timestamp((crate::platform::now_ms() + 60_000) << 18);
        let version = Version { timestamp, origin: ReplicaId(7), sequence: Sequence(timestamp.0) };
        ChangeSet { puts, put_versions: vec![version], deletes: Vec::new() }
    };
    is_forbidden(limited.check_changes(&newer(5)).await, "row 0");
    let change = newer(3);
    let conditions = limited.check_changes(&change).await.unwrap();
    assert_eq!(conditions.len(), 1);
    // A write in between, though it is older than what is on its way.
    put(&notes, [(3, "his")]).await;
    let refused = limited.apply_if(change.clone(), None, Vec::new(), conditions).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    let title = async || notes.get(&[Key::Int(3)], None).await.unwrap()[0]["title"].clone();
    assert_eq!(title().await, "his".into());
    // Looked at again it may be: the row is still one that she may write.
    limited.apply_limited(change, None, Vec::new()).await.unwrap();
    assert_eq!(title().await, "hers".into());
}

#[tokio::test]
async fn grants_add_up_and_what_is_not_named_is_not_allowed() {
    let access = grants(json!([
        {"collections": ["a"], "actions": ["read"], "filter": "id > 3"},
        {"collections": ["a", "b*"], "actions": ["read", "write"]},
        {"collections": ["c"], "actions": ["admin"]},
    ]));
    for (name, action, allowed) in [
        ("a", Action::Read, true),
        ("a", Action::Admin, false),
        ("b", Action::Write, true),
        ("b2", Action::Write, true),
        ("c", Action::Read, true),
        ("c", Action::Admin, true),
        ("d", Action::Read, false),
        ("ab", Action::Read, false),
    ] {
        assert_eq!(access.allows(name, action), allowed, "{name} {action:?}");
    }
    assert!(access.check_all().is_err() && Access::ALL.check_all().is_ok());
    assert!(grants(json!([{"collections": ["*"], "actions": ["admin"]}])).check_all().is_ok());
    let device = Device::new().await;
    let notes = device.db.create_collection("notes", spec()).await.unwrap();
    is_forbidden(notes.limited(&access).map(|_| ()), "\"notes\"");
    let wrong = grants(json!([{"collections": ["notes"], "actions": ["read"], "filter": "no_such + 3"}]));
    is_forbidden(notes.limited(&wrong).map(|_| ()), "filter");
}
