//! A client whose connection broke asks again, of the same owner of the store or of the next: nothing is done twice.
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::sync::Arc;

use super::*;
use crate::base::{ErrorKind, Result};
use crate::engine::{CollectionSpec, RequestId};
use crate::model::{Batch, Row, Value};
use crate::platform::block_on;
use crate::storage::FaultStorage;

fn spec(auto_id: bool) -> CollectionSpec {
    let spec = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true,"autoId":{auto_id}}},
        {{"name":"v","type":"float_vector","dim":1}}],"indexes":{{"v":{{"metric":"L2","kind":"FLAT"}}}}}}"#
    );
    serde_json::from_str(&spec).unwrap()
}

async fn write(collection: &Collection, operation: Operation, number: u64, again: bool) -> Result<WriteResponse> {
    let id = RequestId { client: 77, number };
    let request = Some(WriteRequest { id, settled: 0, again });
    collection.batch(vec![operation], WriteOptions { request, ..Default::default() }).await
}

fn insert(collection: &Collection, ids: &[i64]) -> Operation {
    let row = |id: &i64| Row::from([("id".into(), Value::Int(*id)), ("v".into(), Value::Vector(vec![*id as f32]))]);
    Operation::Insert(Batch::from_rows(&collection.spec().schema, ids.iter().map(row).collect()).unwrap())
}

/// Tabs share one store; when the tab that held it died, a write of another tab that was under way ended with an error that said to try
/// again, although it may have been done: an insert that was tried again failed with `already_exists`, and an upsert or a delete was
/// done a second time, over what others had written in between.
#[test]
fn a_write_that_is_asked_for_again_is_done_once_and_answered_the_same() {
    block_on(async {
        let mut storage = FaultStorage::new(1);
        let mut db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        db.create_collection("notes", spec(false)).await.unwrap();
        let notes = db.collection("notes").unwrap();
        let first = write(&notes, insert(&notes, &[1, 2]), 1, false).await.unwrap();
        let deleted = write(&notes, Operation::Delete(Target::Keys(vec![2.into()])), 2, false).await.unwrap();
        assert_eq!((first.count, deleted.count), (2, 1));
        // Somebody else writes what would be deleted again.
        notes.batch(vec![insert(&notes, &[2])], WriteOptions::default()).await.unwrap();
        for round in 0..4 {
            let notes = db.collection("notes").unwrap();
            let again = write(&notes, insert(&notes, &[1, 2]), 1, true).await.unwrap();
            assert_eq!(again, first, "round {round}");
            let again = write(&notes, Operation::Delete(Target::Keys(vec![2.into()])), 2, true).await.unwrap();
            assert_eq!(again, deleted, "round {round}");
            assert_eq!(notes.count(None).await.unwrap(), 2);
            // What was never done is done, once.
            let number = 10 + round;
            let new = write(&notes, insert(&notes, &[number as i64]), number, true).await.unwrap();
            assert_eq!(write(&notes, insert(&notes, &[number as i64]), number, true).await.unwrap(), new);
            notes.delete(Target::Keys(vec![(number as i64).into()])).await.unwrap();
            match round {
                // From the log.
                0 => {}
                // From the manifest.
                1 => db.flush("notes").await.unwrap(),
                _ => db.close().await.unwrap(),
            }
            storage = storage.reopen();
            db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        }
    });
}

#[test]
fn keys_that_the_collection_made_are_told_again() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec(true)).await.unwrap();
        write(&notes, insert(&notes, &[5, 4]), 1, false).await.unwrap();
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        let notes = db.collection("notes").unwrap();
        // The client's rows have no keys, and are given others.
        let again = write(&notes, insert(&notes, &[8, 9]), 1, true).await.unwrap();
        assert_eq!(again.keys, [5.into(), 4.into()]);
        assert_eq!(notes.count(None).await.unwrap(), 2);
    });
}

#[test]
fn a_client_is_told_when_it_cannot_be_known() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec(false)).await.unwrap();
        for number in 0..1030 {
            write(&notes, insert(&notes, &[number]), number as u64, false).await.unwrap();
        }
        let error = write(&notes, insert(&notes, &[3]), 3, true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(write(&notes, insert(&notes, &[1029]), 1029, true).await.unwrap().count, 1);
        // The client has all answers but the newest: nothing else is kept, in memory or in the manifest.
        let id = RequestId { client: 77, number: 2000 };
        let request = Some(WriteRequest { id, settled: 2000, again: false });
        notes.batch(vec![insert(&notes, &[2000])], WriteOptions { request, ..Default::default() }).await.unwrap();
        db.flush("notes").await.unwrap();
        let manifest = db.snapshot().await.unwrap().manifest().encode();
        assert!(manifest.len() < 2_000, "{} bytes of manifest", manifest.len());
    });
}
