//! Two owners at once, as a lock that was lost leaves them. The storage here has no lock that could tell.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::sync::Arc;

use super::*;
use crate::base::ErrorKind;
use crate::engine::{CollectionSpec, name};
use crate::model::{Batch, Row, Value};
use crate::platform::block_on;
use crate::storage::{FaultStorage, MemoryStorage, Storage};

fn spec() -> CollectionSpec {
    let json = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"v","type":"float_vector","dim":2}],
        "dynamic":false,"indexes":{"v":{"metric":"L2","kind":"FLAT"}}}"#;
    serde_json::from_str(json).unwrap()
}

async fn write(db: &Db, ids: std::ops::Range<i64>) {
    let notes = db.collection("notes").unwrap();
    let rows = ids.map(|id| {
        Row::from([("id".to_owned(), Value::Int(id)), ("v".to_owned(), Value::Vector(vec![id as f32, 1.0]))])
    });
    notes.upsert(Batch::from_rows(&notes.spec().schema, rows.collect()).unwrap()).await.unwrap();
}

async fn ids(db: &Db) -> Vec<i64> {
    let rows = db.collection("notes").unwrap().query(&QueryRequest::default()).await.unwrap();
    let id = |row: &Row| match row["id"] {
        Value::Int(id) => id,
        _ => panic!("{row:?}"),
    };
    rows.iter().map(id).collect()
}

async fn open(storage: &MemoryStorage) -> Db {
    Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap()
}

#[test]
fn an_owner_that_lost_the_store_swaps_no_manifest_and_spoils_nothing() {
    block_on(async {
        let storage = MemoryStorage::new();
        let lost = open(&storage).await;
        lost.create_collection("notes", spec()).await.unwrap();
        write(&lost, 0..10).await;
        let owner = open(&storage).await;
        assert_eq!(ids(&owner).await.len(), 10);
        // The one that lost goes on writing its log, before and after the other begins its own, and into a new file of it.
        write(&lost, 100..105).await;
        write(&owner, 10..15).await;
        write(&lost, 105..109).await;
        for error in
            [lost.flush("notes").await.unwrap_err(), lost.create_collection("more", spec()).await.err().unwrap()]
        {
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
            assert!(error.message().contains("another owner has taken over"), "{error}");
        }
        write(&lost, 109..112).await;
        write(&owner, 15..20).await;
        let expected: Vec<i64> = (0..20).collect();
        assert_eq!(ids(&owner).await, expected);

        // A third one after a crash reads what the first wrote in time, then what the second did.
        let third = open(&storage).await;
        assert_eq!(ids(&third).await, expected);
        assert_eq!(owner.flush("notes").await.unwrap_err().kind(), ErrorKind::Locked);
        third.flush("notes").await.unwrap();
        write(&third, 20..22).await;
        let fourth = open(&storage).await;
        assert_eq!(ids(&fourth).await, (0..22).collect::<Vec<_>>());
        fourth.close().await.unwrap();
    });
}

/// The new owner had written the manifest after the next one already, so the name that the lost one was about to use was free
/// again.
#[test]
fn a_version_that_is_free_again_is_not_taken_for_the_next() {
    block_on(async {
        let storage = MemoryStorage::new();
        let lost = open(&storage).await;
        let owner = open(&storage).await;
        owner.create_collection("notes", spec()).await.unwrap();
        let before = storage.list(name::MANIFESTS).await.unwrap();
        assert_eq!(lost.create_collection("more", spec()).await.err().unwrap().kind(), ErrorKind::Locked);
        assert_eq!(storage.list(name::MANIFESTS).await.unwrap(), before);
        assert_eq!(owner.collections().len(), 1);
    });
}

#[test]
fn a_log_that_does_not_reach_the_next_owners_is_damage() {
    block_on(async {
        let storage = MemoryStorage::new();
        let first = open(&storage).await;
        first.create_collection("notes", spec()).await.unwrap();
        write(&first, 0..3).await;
        write(&first, 3..6).await;
        let log = storage.list("c").await.unwrap().pop().unwrap();
        let second = open(&storage).await;
        write(&second, 6..9).await;
        storage.truncate(&log.name, log.len - 1).await.unwrap();
        let error = Db::open(Arc::new(storage.clone()), Options::default()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.message().contains(&log.name), "{error}");
    });
}

/// A merge removes the files of its inputs; a snapshot that names them still reads them.
#[test]
fn a_snapshot_keeps_its_files_until_it_is_dropped_and_becomes_a_store() {
    block_on(async {
        let storage = MemoryStorage::new();
        let db = open(&storage).await;
        db.create_collection("notes", spec()).await.unwrap();
        for batch in 0..6 {
            write(&db, batch * 10..batch * 10 + 10).await;
            db.flush("notes").await.unwrap();
        }
        let snapshot = db.snapshot().await.unwrap();
        write(&db, 60..70).await;
        db.flush("notes").await.unwrap();
        while db.maintain().await.unwrap() {}
        let files: Vec<_> = snapshot.manifest().files().cloned().collect();
        for file in &files {
            snapshot.read(file).await.unwrap();
        }
        let mut archive = Vec::new();
        let mut pieces = snapshot.into_archive(|_| false);
        while let Some(piece) = pieces.next().await.unwrap() {
            archive.extend(piece);
        }
        drop(pieces);
        db.maintain().await.unwrap();
        assert!(storage.read_all(&files[0].name).await.is_err(), "the merge has removed it by now");

        let other = open(&MemoryStorage::new()).await;
        other.create_collection("other", spec()).await.unwrap();
        assert_eq!(other.import_archive(archive.clone().into()).await.unwrap(), ["notes"]);
        assert_eq!(ids(&other).await, (0..60).collect::<Vec<_>>());
        write(&other, 60..65).await;
        let again = other.import_archive(archive.into()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(ids(&other).await.len(), 65);
    });
}

/// The disk is full in the middle of an import: its files took the room that everything else needs until the store was opened again.
#[test]
fn a_failed_import_leaves_nothing() {
    block_on(async {
        let from = open(&MemoryStorage::new()).await;
        from.create_collection("notes", spec()).await.unwrap();
        for batch in 0..3 {
            write(&from, batch * 10..batch * 10 + 10).await;
            from.flush("notes").await.unwrap();
        }
        let mut pieces = from.snapshot().await.unwrap().into_archive(|_| false);
        let mut archive = Vec::new();
        while let Some(piece) = pieces.next().await.unwrap() {
            archive.extend(piece);
        }
        let archive = bytes::Bytes::from(archive);
        let storage = FaultStorage::new(3);
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        db.create_collection("other", spec()).await.unwrap();
        let names = async || {
            let entries = storage.list("").await.unwrap();
            entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>()
        };
        let before = names().await;
        let mut failures = 0;
        loop {
            // Each operation in turn, the put of the manifest at last.
            storage.fail_at(failures, ErrorKind::StorageFull);
            let imported = async {
                let mut import = db.import()?;
                for at in (0..archive.len()).step_by(1_000) {
                    import.push(archive.slice(at..(at + 1_000).min(archive.len()))).await?;
                }
                import.finish().await
            };
            match imported.await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}"),
            }
            assert_eq!(names().await, before, "after operation {failures}");
            failures += 1;
        }
        assert!(failures > 12, "{failures}");
        assert_eq!(ids(&db).await, (0..30).collect::<Vec<_>>());
    });
}

/// A tab that imports is closed in the middle of it.
#[test]
fn an_import_that_is_given_up_leaves_nothing_and_takes_no_name() {
    block_on(async {
        let from = open(&MemoryStorage::new()).await;
        from.create_collection("notes", spec()).await.unwrap();
        write(&from, 0..40).await;
        from.flush("notes").await.unwrap();
        let mut archive = Vec::new();
        let mut pieces = from.snapshot().await.unwrap().into_archive(|_| false);
        while let Some(piece) = pieces.next().await.unwrap() {
            archive.extend(piece);
        }
        let archive = bytes::Bytes::from(archive);
        let storage = MemoryStorage::new();
        let db = open(&storage).await;
        let files = async || storage.list("c").await.unwrap().len();
        for dropped in [true, false] {
            let mut import = db.import().unwrap();
            import.push(archive.slice(..archive.len() - 100)).await.unwrap();
            assert!(files().await > 0);
            if dropped {
                drop(import);
                db.maintain().await.unwrap();
            } else {
                import.abort().await;
            }
            assert_eq!(files().await, 0, "{dropped}");
        }
        // Two at once: the second finds the name taken when it is at its end.
        let (mut one, mut two) = (db.import().unwrap(), db.import().unwrap());
        one.push(archive.clone()).await.unwrap();
        two.push(archive.clone()).await.unwrap();
        assert_eq!(one.finish().await.unwrap(), ["notes"]);
        let left = files().await;
        assert_eq!(two.finish().await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(files().await < left);
        assert_eq!(ids(&db).await, (0..40).collect::<Vec<_>>());
        let mut broken = db.import().unwrap();
        broken.push(vec![7; 100].into()).await.unwrap_err();
        let error = broken.push(archive).await.unwrap_err();
        assert!(error.message().contains("failed before"), "{error}");
        // What is not named after a restart is gone.
        db.close().await.unwrap();
        assert_eq!(ids(&open(&storage.disk().open().unwrap()).await).await.len(), 40);
    });
}
