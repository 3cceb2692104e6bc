#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, Sequence, Timestamp, Version};
use crate::engine::{ChangeSet, CollectionSpec};
use crate::model::{Batch, Key, Row, Value};
use crate::platform::block_on;
use crate::storage::{FaultStorage, MemoryDisk, Operation as Stored, Storage};

const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
    {"name":"name","type":"varchar","maxLength":100,"nullable":true},
    {"name":"embedding","type":"float_vector","dim":8}],
    "dynamic":true,"indexes":{"embedding":{"metric":"L2","kind":{"HNSW":{"m":8,"ef_construction":64}}}}}"#;

fn spec() -> CollectionSpec {
    serde_json::from_str(SPEC).unwrap()
}

/// A vector that is the same for the same number, and far from those of others.
fn vector(number: u64) -> Vec<f32> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    std::iter::repeat_with(next).take(8).collect()
}

fn row(id: i64, name: &str) -> Row {
    Row::from([
        ("id".to_owned(), Value::Int(id)),
        ("name".to_owned(), Value::String(name.to_owned())),
        ("embedding".to_owned(), Value::Vector(vector(id as u64))),
    ])
}

fn rows(collection: &Collection, rows: impl IntoIterator<Item = Row>) -> Batch {
    Batch::from_rows(&collection.spec().schema, rows.into_iter().collect()).unwrap()
}

fn names(rows: &[Row]) -> Vec<(i64, String)> {
    let name = |row: &Row| match (&row["id"], &row["name"]) {
        (Value::Int(id), Value::String(name)) => (*id, name.clone()),
        other => panic!("{other:?}"),
    };
    rows.iter().map(name).collect()
}

async fn open(disk: &MemoryDisk) -> Db {
    Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap()
}

async fn settle(db: &Db) {
    while db.maintain().await.unwrap() {}
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.err().expect("an error").kind()
}

#[test]
fn rows_are_written_read_replaced_deleted_and_outlive_the_process() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let written = notes.insert(rows(&notes, [row(1, "one"), row(2, "two"), row(3, "three")])).await.unwrap();
        assert_eq!((written.count, written.lsn), (3, Lsn(1)));
        notes.upsert(rows(&notes, [row(2, "zwei"), row(4, "vier")])).await.unwrap();
        assert_eq!(notes.delete(Target::Keys(vec![3.into(), 3.into(), 99.into()])).await.unwrap().count, 1);
        assert_eq!(notes.delete(Target::Filter("name == \"vier\"".to_owned())).await.unwrap().count, 1);
        let expected = [(1, "one".to_owned()), (2, "zwei".to_owned())];
        assert_eq!(names(&notes.query(&QueryRequest::default()).await.unwrap()), expected);
        db.close().await.unwrap();
        assert_eq!(kind(notes.query(&QueryRequest::default()).await), ErrorKind::Closed);
        assert_eq!(kind(notes.upsert(rows(&notes, [row(1, "late")])).await), ErrorKind::Closed);
        for _ in 0..2 {
            let db = open(&disk).await;
            let notes = db.collection("notes").unwrap();
            assert_eq!(names(&notes.query(&QueryRequest::default()).await.unwrap()), expected);
            assert_eq!(names(&notes.get(&[2.into(), 3.into(), 1.into()], None).await.unwrap())[0].1, "zwei");
            let request = SearchRequest { vector: vector(2).into(), limit: 1, ..Default::default() };
            let response = notes.search(&request).await.unwrap();
            assert_eq!((&response.hits[0].key, response.hits[0].score), (&Key::Int(2), 0.0));
            db.close().await.unwrap();
        }
    });
}

#[test]
fn a_graph_is_built_behind_the_writes_kept_and_searched_with_what_it_lacks() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        for start in (0..3_000).step_by(500) {
            notes.insert(rows(&notes, (start..start + 500).map(|id| row(id, "x")))).await.unwrap();
            db.maintain().await.unwrap();
        }
        let request = |id: i64| SearchRequest { vector: vector(id as u64).into(), limit: 3, ..Default::default() };
        let nearest = |response: SearchResponse| response.hits[0].key.clone();
        assert!(notes.stats().await.unwrap().rows_unindexed > 0);
        assert_eq!(nearest(notes.search(&request(2_999)).await.unwrap()), Key::Int(2_999));
        db.close().await.unwrap();
        // The half-built graph was kept; the rest is built after the restart, and kept too.
        let db = open(&disk).await;
        let notes = db.collection("notes").unwrap();
        assert!((1..3_000).contains(&notes.stats().await.unwrap().rows_unindexed));
        settle(&db).await;
        let stats = notes.stats().await.unwrap();
        assert_eq!((stats.rows, stats.rows_unindexed), (3_000, 0));
        notes.delete(Target::Keys((0..1_500).map(Key::Int).collect())).await.unwrap();
        db.close().await.unwrap();
        let db = open(&disk).await;
        let notes = db.collection("notes").unwrap();
        assert_eq!(notes.stats().await.unwrap().rows_unindexed, 0);
        for id in [1_500, 2_000, 2_999] {
            assert_eq!(nearest(notes.search(&request(id)).await.unwrap()), Key::Int(id));
        }
        let deleted = notes.search(&request(3)).await.unwrap();
        assert!(deleted.hits.iter().all(|hit| hit.key >= Key::Int(1_500)));
        // Half of the segment is dead: it is rewritten.
        settle(&db).await;
        let stats = notes.stats().await.unwrap();
        assert_eq!((stats.rows, stats.rows_dead), (1_500, 0));
        assert_eq!(nearest(notes.search(&request(2_000)).await.unwrap()), Key::Int(2_000));
        assert_eq!(notes.count(Some("id < 1600")).await.unwrap(), 100);
    });
}

#[test]
fn many_small_segments_become_one_while_rows_change() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        for part in 0..6 {
            notes.insert(rows(&notes, (part * 10..part * 10 + 10).map(|id| row(id, "old")))).await.unwrap();
            db.flush("notes").await.unwrap();
        }
        assert_eq!(notes.stats().await.unwrap().segments, 6);
        assert!(db.maintain().await.unwrap(), "a merge begins");
        notes.upsert(rows(&notes, [row(5, "new")])).await.unwrap();
        notes.delete(Target::Keys(vec![7.into()])).await.unwrap();
        settle(&db).await;
        let check = async |notes: &Collection| {
            let rows = names(&notes.query(&QueryRequest::default()).await.unwrap());
            assert_eq!(rows.len(), 59);
            assert!(rows.contains(&(5, "new".to_owned())) && !rows.iter().any(|(id, _)| *id == 7));
        };
        check(&notes).await;
        assert!(notes.stats().await.unwrap().segments <= 2);
        db.close().await.unwrap();
        check(&open(&disk).await.collection("notes").unwrap()).await;
    });
}

#[test]
fn bad_requests_are_refused_whole_and_say_what_is_wrong() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(rows(&notes, [row(1, "one")])).await.unwrap();
        let says = |error: Error, words: &str| assert!(error.message().contains(words), "{error}: expected {words:?}");

        let error = notes.insert(rows(&notes, [row(2, "two"), row(1, "again")])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        says(error, "row 1: primary key 1");
        assert_eq!(notes.count(None).await.unwrap(), 1, "no row of a refused batch is there");

        let search = async |request: SearchRequest| notes.search(&request).await.unwrap_err();
        let good = SearchRequest { vector: vector(1).into(), limit: 1, ..Default::default() };
        says(
            search(SearchRequest { vector: vec![0.0; 7].into(), ..good.clone() }).await,
            "field \"embedding\": a vector of 7 numbers, expected 8",
        );
        says(search(SearchRequest { vector: vec![f32::NAN; 8].into(), ..good.clone() }).await, "number 0 is NaN");
        says(search(SearchRequest { limit: 0, ..good.clone() }).await, "limit 0");
        says(search(SearchRequest { limit: 20_000, ..good.clone() }).await, "limit 20000");
        says(search(SearchRequest { field: Some("x".to_owned()), ..good.clone() }).await, "no vector field \"x\"");
        says(search(SearchRequest { ef: Some(0), ..good.clone() }).await, "ef 0");
        let broken = search(SearchRequest { filter: Some("id > ".to_owned()), ..good.clone() }).await;
        assert_eq!((broken.kind(), broken.position()), (ErrorKind::InvalidArgument, Some(5)), "{broken}");

        says(notes.get(&["x".into()], None).await.unwrap_err(), "primary key \"id\"");
        says(notes.delete(Target::Keys(vec!["x".into()])).await.unwrap_err(), "primary key \"id\"");
        assert_eq!(kind(db.create_collection("notes", spec()).await), ErrorKind::AlreadyExists);
        assert_eq!(kind(db.create_collection("no/tes", spec()).await), ErrorKind::InvalidArgument);
        says(db.collection("other").err().expect("an error"), "there are: notes");
    });
}

#[test]
fn who_waits_for_changes_of_a_dropped_collection_is_told_at_once() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        db.drop_collection("notes").await.unwrap();
        let mut waits = std::pin::pin!(notes.changed_after(notes.lsn()));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match waits.as_mut().poll(&mut context) {
            std::task::Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Closed),
            other => panic!("nobody will wake it: {other:?}"),
        }
    });
}

#[test]
fn a_dropped_collection_is_gone_with_its_bytes() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(rows(&notes, (0..100).map(|id| row(id, "x")))).await.unwrap();
        db.flush("notes").await.unwrap();
        notes.insert(rows(&notes, [row(100, "x")])).await.unwrap();
        assert!(Storage::list(&storage, "c").await.unwrap().len() >= 3);
        db.drop_collection("notes").await.unwrap();
        assert_eq!(kind(notes.insert(rows(&notes, [row(1, "late")])).await), ErrorKind::Closed);
        assert_eq!(kind(db.drop_collection("notes").await), ErrorKind::NotFound);
        assert_eq!(Storage::list(&storage, "c").await.unwrap(), []);
        let again = db.create_collection("notes", spec()).await.unwrap();
        assert_eq!(again.count(None).await.unwrap(), 0);
    });
}

#[test]
fn a_full_disk_refuses_the_write_and_loses_nothing() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(rows(&notes, [row(1, "one")])).await.unwrap();
        for room in [0, 10, 1_000] {
            storage.set_room(Some(room));
            let error = notes.insert(rows(&notes, (2..100).map(|id| row(id, "x")))).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            assert_eq!(kind(db.flush("notes").await), ErrorKind::StorageFull);
        }
        assert_eq!(notes.count(None).await.unwrap(), 1);
        storage.set_room(None);
        notes.insert(rows(&notes, [row(2, "two")])).await.unwrap();
        db.flush("notes").await.unwrap();
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        assert_eq!(db.collection("notes").unwrap().count(None).await.unwrap(), 2);
    });
}

#[test]
fn a_failed_sync_stops_writing_until_the_store_is_opened_again() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(rows(&notes, [row(1, "one")])).await.unwrap();
        storage.fail_next(crate::storage::Operation::Sync, ErrorKind::Io);
        assert_eq!(kind(notes.insert(rows(&notes, [row(2, "two")])).await), ErrorKind::Io);
        let error = notes.insert(rows(&notes, [row(3, "three")])).await.unwrap_err();
        assert!(error.message().contains("open the store again"), "{error}");
        assert_eq!(notes.count(None).await.unwrap(), 1);
    });
}

#[test]
fn damaged_files_are_named_and_nothing_panics() {
    let built = |storage: &FaultStorage| {
        let storage = storage.clone();
        block_on(async move {
            let db = Db::open(Arc::new(storage), Options::default()).await.unwrap();
            let notes = db.create_collection("notes", spec()).await.unwrap();
            notes.insert(rows(&notes, (0..1_200).map(|id| row(id, "x")))).await.unwrap();
            settle(&db).await;
            db.flush("notes").await.unwrap();
            settle(&db).await;
            notes.delete(Target::Keys(vec![5.into()])).await.unwrap();
            db.flush("notes").await.unwrap();
            for id in 2_000..2_003 {
                notes.insert(rows(&notes, [row(id, "logged")])).await.unwrap();
            }
        });
    };
    let list = FaultStorage::new(0);
    built(&list);
    let entries = block_on(Storage::list(&list, "")).unwrap();
    assert!(entries.len() >= 7, "manifest, log, rows, vectors, index, deletes: {entries:?}");
    let whole = block_on(async {
        let db = Db::open(Arc::new(list.reopen()), Options::default()).await?;
        db.collection("notes")?
            .query(&QueryRequest { output_fields: Some(vec!["*".into()]), ..Default::default() })
            .await
    });
    let whole = whole.unwrap();
    // A damaged copy of the manifest is made anew without a word, and so is its outline.
    let unread = |name: &str| name.starts_with("manifest-copy/") || name.starts_with("outline/");
    for entry in entries.into_iter().filter(|entry| !unread(&entry.name)) {
        for at in [0, 8, 12, entry.len / 3, entry.len / 2] {
            let storage = FaultStorage::new(0);
            built(&storage);
            assert!(storage.tamper(&entry.name, |bytes| bytes[at as usize] ^= 0x41));
            // What stays in storage at first is read by background work.
            let read = block_on(async {
                let db = Db::open(Arc::new(storage.reopen()), Options::default()).await?;
                while db.maintain().await? {}
                db.collection("notes")?
                    .query(&QueryRequest { output_fields: Some(vec!["*".into()]), ..Default::default() })
                    .await
            });
            // The head and the foot of its file are for other readers: it has checksums of its own.
            if (entry.name.contains("/vector") || entry.name.contains("/column"))
                && let Ok(read) = &read
            {
                assert!(*read == whole, "{} byte {at}: other rows", entry.name);
                continue;
            }
            let error = read.err().unwrap_or_else(|| panic!("{} byte {at}: opened", entry.name));
            assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}");
            assert!(error.message().contains(&entry.name), "{error}: expected {}", entry.name);
        }
        if !entry.name.contains("/log/") {
            let storage = FaultStorage::new(0);
            built(&storage);
            storage.tamper(&entry.name, |bytes| bytes.truncate(bytes.len() / 2));
            let opened = block_on(Db::open(Arc::new(storage.reopen()), Options::default()));
            assert_eq!(kind(opened), ErrorKind::Corrupt, "{}", entry.name);
        }
    }
}

/// The log files of the store, with their lengths.
async fn logs(storage: &FaultStorage) -> Vec<crate::storage::Entry> {
    let mut entries = Storage::list(storage, "c").await.unwrap();
    entries.retain(|entry| entry.name.contains("/log/"));
    entries
}

#[test]
fn the_log_rolls_over_and_a_restart_replays_no_more_than_two_checkpoints() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let options = || Options { checkpoint_bytes: 20_000, ..Options::default() };
        let db = Db::open(Arc::new(storage.clone()), options()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let (mut files_max, mut bytes_max) = (0, 0);
        // Nobody has background work done: the writers themselves wait for a flush.
        for id in 0..200 {
            notes.insert(rows(&notes, [row(id, "x")])).await.unwrap();
            let logs = logs(&storage).await;
            files_max = files_max.max(logs.len());
            bytes_max = bytes_max.max(logs.iter().map(|entry| entry.len).sum::<u64>());
        }
        assert!(files_max >= 6, "{files_max} files of a quarter of a checkpoint");
        assert!((40_000..45_000).contains(&bytes_max), "{bytes_max} bytes to replay");
        assert!(notes.stats().await.unwrap().segments > 1);
        let storage = storage.reopen();
        let db = Db::open(Arc::new(storage.clone()), options()).await.unwrap();
        let notes = db.collection("notes").unwrap();
        assert_eq!(notes.count(None).await.unwrap(), 200);
        settle(&db).await;
        notes.insert(rows(&notes, [row(200, "x")])).await.unwrap();
        db.flush("notes").await.unwrap();
        assert_eq!(logs(&storage).await, [], "what is in segments is not in the log");
    });
}

#[test]
fn a_missing_log_file_in_the_middle_is_damage() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let options = Options { checkpoint_bytes: 20_000, ..Options::default() };
        let db = Db::open(Arc::new(storage.clone()), options).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        for id in 0..20 {
            notes.insert(rows(&notes, [row(id, "x")])).await.unwrap();
        }
        let names: Vec<String> = logs(&storage).await.into_iter().map(|entry| entry.name).collect();
        assert!(names.len() > 2);
        // Not before the crash, which might bring it back.
        let storage = storage.reopen();
        Storage::remove(&storage, &names[1]).await.unwrap();
        let error = Db::open(Arc::new(storage), Options::default()).await.err().expect("an error");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains(&format!("{}: missing", names[1])), "{error}");
    });
}

/// A log file that could not be created was once skipped: the segment before it was sealed as if the file were there, and the
/// next restart found it missing.
#[test]
fn sealing_while_the_newest_log_file_is_not_there_yet_leaves_no_gap() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let options = Options { checkpoint_bytes: 4_000, ..Options::default() };
        let db = Db::open(Arc::new(storage.clone()), options).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(rows(&notes, [row(1, "x")])).await.unwrap();
        storage.fail_next(crate::storage::Operation::Append, ErrorKind::Io);
        assert_eq!(kind(notes.insert(rows(&notes, [row(2, "x")])).await), ErrorKind::Io);
        notes.seal().await.unwrap();
        notes.insert(rows(&notes, [row(3, "x")])).await.unwrap();
        assert_eq!(logs(&storage).await.len(), 2);
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        assert_eq!(db.collection("notes").unwrap().count(None).await.unwrap(), 2);
    });
}

#[test]
fn buffered_writes_are_synced_by_background_work_and_lost_only_from_the_end() {
    use crate::storage::Operation;
    let syncs = |storage: &FaultStorage| {
        storage.history().iter().filter(|(what, name)| *what == Operation::Sync && name.contains("/log/")).count()
    };
    for seed in 0..20 {
        block_on(async {
            let storage = FaultStorage::new(seed);
            let options = Options { durability: Durability::Buffered, ..Options::default() };
            let db = Db::open(Arc::new(storage.clone()), options.clone()).await.unwrap();
            let notes = db.create_collection("notes", spec()).await.unwrap();
            for id in 0..10 {
                notes.insert(rows(&notes, [row(id, "x")])).await.unwrap();
            }
            assert_eq!(syncs(&storage), 0);
            if seed == 0 {
                while syncs(&storage) == 0 {
                    db.maintain().await.unwrap();
                }
            }
            let db = Db::open(Arc::new(storage.reopen()), options).await.unwrap();
            let left = names(&db.collection("notes").unwrap().query(&QueryRequest::default()).await.unwrap());
            assert!(left.iter().map(|(id, _)| *id).eq(0..left.len() as i64), "seed {seed}: {left:?}");
            assert!(seed > 0 || left.len() == 10, "what was synced is there");
        });
    }
}

fn change(collection: &Collection, row: Row, timestamp: u64, origin: u64, sequence: u64) -> ChangeSet {
    let version = Version { timestamp: Timestamp(timestamp), origin: ReplicaId(origin), sequence: Sequence(sequence) };
    let puts = rows(collection, [row]);
    ChangeSet { puts, put_versions: vec![version], deletes: Vec::new() }
}

#[test]
fn the_last_writer_wins_whatever_the_order_and_however_often() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let writes = [(5, 1, 1, "a"), (9, 2, 1, "b"), (9, 3, 1, "c"), (7, 1, 2, "d")];
        for (timestamp, origin, sequence, name) in writes.into_iter().chain(writes.into_iter().rev()) {
            notes.apply(change(&notes, row(1, name), timestamp, origin, sequence), None).await.unwrap();
        }
        let rows = notes.query(&QueryRequest::default()).await.unwrap();
        assert_eq!(names(&rows), [(1, "c".to_owned())]);
        let seen =
            BTreeMap::from([(ReplicaId(1), Sequence(2)), (ReplicaId(2), Sequence(1)), (ReplicaId(3), Sequence(1))]);
        assert_eq!(notes.seen(), seen);
        // A hub's position moves with the changes, and alone.
        let hub = ReplicaId(77);
        assert_eq!(notes.apply(change(&notes, row(1, "old"), 1, 4, 1), Some((hub, Lsn(30)))).await.unwrap(), 0);
        notes.mark_pushed(hub, Sequence(12)).await.unwrap();
        let position = notes.sync_position(hub);
        assert_eq!((position.pulled, position.pushed), (Lsn(30), Sequence(12)));
        db.close().await.unwrap();
        let reopened = open(&disk).await.collection("notes").unwrap();
        assert_eq!(reopened.sync_position(hub), position);
        // A clock that is years ahead is refused.
        let ahead = change(&reopened, row(2, "future"), u64::MAX / 2, 5, 1);
        assert_eq!(kind(reopened.apply(ahead, None).await), ErrorKind::InvalidArgument);
    });
}

#[test]
fn changes_are_handed_out_in_whole_batches_and_without_what_is_known() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let newest = || notes.seen()[&db.replica_id()];
        let mut fourth = Sequence(0);
        for batch in 0..5 {
            notes.insert(rows(&notes, (batch * 10..batch * 10 + 10).map(|id| row(id, "x")))).await.unwrap();
            fourth = if batch == 3 { newest() } else { fourth };
        }
        notes.delete(Target::Keys(vec![0.into()])).await.unwrap();
        db.flush("notes").await.unwrap();
        let (mut reached, mut sizes) = (Lsn(0), Vec::new());
        loop {
            let (changes, lsn) = notes.changes_after(reached, &BTreeMap::new(), 1).await.unwrap();
            if changes.is_empty() {
                assert_eq!(lsn, reached);
                break;
            }
            sizes.push(changes.len());
            reached = lsn;
        }
        assert_eq!((sizes, reached), (vec![9, 10, 10, 10, 10, 1], Lsn(6)));
        let known = BTreeMap::from([(db.replica_id(), newest())]);
        let (changes, lsn) = notes.changes_after(Lsn(0), &known, usize::MAX).await.unwrap();
        assert_eq!((changes.len(), lsn), (0, Lsn(6)));
        let (own, sequence) = notes.own_changes_after(fourth, usize::MAX).await.unwrap();
        assert_eq!((own.len(), sequence, notes.pending_after(fourth)), (11, newest(), 11));
        let decoded = ChangeSet::decode(&notes.spec().schema, &own.encode()).unwrap();
        assert_eq!((decoded.puts, decoded.put_versions, decoded.deletes), (own.puts, own.put_versions, own.deletes));
        let (first, lsn) = notes.changes_after(Lsn(0), &BTreeMap::new(), 0).await.unwrap();
        assert_eq!((first.len(), lsn), (9, Lsn(1)), "a batch at least");
    });
}

#[test]
fn a_change_set_with_any_byte_changed_is_refused_or_valid_and_never_panics() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(rows(&notes, [row(1, "one"), row(2, "two")])).await.unwrap();
        notes.delete(Target::Keys(vec![1.into()])).await.unwrap();
        let bytes = notes.changes_after(Lsn(0), &BTreeMap::new(), usize::MAX).await.unwrap().0.encode();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= flip;
                let _ = ChangeSet::decode(&notes.spec().schema, &changed);
            }
            assert!(ChangeSet::decode(&notes.spec().schema, &bytes[..at]).is_err(), "cut at {at}");
        }
    });
}

#[test]
fn writes_that_wait_together_share_a_sync() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let storage = FaultStorage::new(3);
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let before = storage.operations();
        let writes = (0..50).map(|id| {
            let notes = notes.clone();
            tokio::spawn(async move { notes.insert(rows(&notes, [row(id % 40, "x")])).await })
        });
        let mut refused = 0;
        for write in writes.collect::<Vec<_>>() {
            refused += usize::from(write.await.unwrap().is_err());
        }
        assert_eq!(refused, 10, "keys that an earlier write of the same group has taken");
        assert_eq!(notes.count(None).await.unwrap(), 40);
        assert!(storage.operations() - before < 20, "{} operations for 50 writes", storage.operations() - before);
    });
}

/// Each writer once waited for its own turn at the log after its write was done, and so came too late for the group of the next one:
/// after the first round every group was one write long.
#[test]
fn writers_that_write_on_and_on_share_their_syncs() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let storage = FaultStorage::new(3);
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let syncs = || storage.history().iter().filter(|(operation, _)| *operation == Stored::Sync).count();
        let before = syncs();
        let writers = (0..16).map(|writer| {
            let notes = notes.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    notes.insert(rows(&notes, [row(writer * 10 + round, "x")])).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert_eq!(notes.count(None).await.unwrap(), 160);
        assert!(syncs() - before <= 20, "{} syncs for 10 writes by each of 16", syncs() - before);
    });
}

#[test]
fn a_write_that_is_given_up_before_its_turn_is_not_done() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let busy = notes.inner.log.lock().await;
        let mut given_up = Box::pin(notes.insert(rows(&notes, [row(1, "x")])));
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(given_up.as_mut().poll(context))).await.is_pending()
        );
        drop((given_up, busy));
        notes.insert(rows(&notes, [row(2, "x")])).await.unwrap();
        assert_eq!(names(&notes.query(&QueryRequest::default()).await.unwrap()), [(2, "x".to_owned())]);
    });
}

type Objects = BTreeMap<String, bytes::Bytes>;

async fn objects(storage: &FaultStorage) -> Objects {
    let mut objects = Objects::new();
    for entry in Storage::list(storage, "").await.unwrap() {
        objects.insert(entry.name.clone(), storage.read_all(&entry.name).await.unwrap());
    }
    objects
}

async fn storage_of(objects: &Objects) -> FaultStorage {
    let storage = FaultStorage::new(0);
    for (name, bytes) in objects {
        storage.put(name, bytes.clone()).await.unwrap();
    }
    storage
}

/// A store with everything in it that can be damaged: a segment with a graph, one with deletes, and two log files. With its rows.
async fn sample() -> (Objects, BTreeMap<i64, String>) {
    let storage = FaultStorage::new(0);
    let options = Options { checkpoint_bytes: 20_000, ..Options::default() };
    let db = Db::open(Arc::new(storage.clone()), options).await.unwrap();
    let notes = db.create_collection("notes", spec()).await.unwrap();
    notes.insert(rows(&notes, (0..1_100).map(|id| row(id, "x")))).await.unwrap();
    settle(&db).await;
    db.flush("notes").await.unwrap();
    settle(&db).await;
    notes.delete(Target::Keys(vec![5.into()])).await.unwrap();
    notes.insert(rows(&notes, [row(1_500, "y")])).await.unwrap();
    db.flush("notes").await.unwrap();
    for id in 2_000..2_015 {
        notes.insert(rows(&notes, [row(id, &format!("logged {id}"))])).await.unwrap();
    }
    let rows = names(&notes.query(&QueryRequest::default()).await.unwrap());
    (objects(&storage).await, rows.into_iter().collect())
}

/// Rows of the repaired store, after it was opened twice.
async fn repaired(storage: &FaultStorage) -> BTreeMap<i64, String> {
    let mut found = BTreeMap::new();
    for _ in 0..2 {
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        let notes = db.collection("notes").unwrap();
        found = names(&notes.query(&QueryRequest::default()).await.unwrap()).into_iter().collect();
        settle(&db).await;
        db.close().await.unwrap();
    }
    found
}

#[test]
fn a_store_damaged_anywhere_is_repaired_and_loses_what_the_report_says() {
    block_on(async {
        let (whole, all) = sample().await;
        let named = |part: &str| whole.keys().filter(|name| name.contains(part)).count();
        assert!(named("/log/") >= 2 && named("/index-") >= 1 && named("/deletes") >= 1, "{:?}", whole.keys());
        let storage = storage_of(&whole).await;
        assert_eq!(repair(&storage, true).await.unwrap(), RepairReport::default());
        for (name, bytes) in &whole {
            // Every byte of what is short, and about sixty of what is long, its first and last ones among them.
            let stride = (bytes.len() / 60).max(1);
            for at in (0..bytes.len()).step_by(stride).chain([bytes.len() - 1]) {
                let storage = storage_of(&whole).await;
                storage.tamper(name, |bytes| bytes[at] ^= 0x41);
                check_repair(&storage, &whole, &all, &format!("{name} byte {at}")).await;
            }
            let storage = storage_of(&whole).await;
            Storage::remove(&storage, name).await.unwrap();
            check_repair(&storage, &whole, &all, &format!("{name} missing")).await;
            let storage = storage_of(&whole).await;
            storage.tamper(name, |bytes| bytes.truncate(bytes.len() / 2));
            check_repair(&storage, &whole, &all, &format!("{name} cut")).await;
        }
    });
}

async fn check_repair(storage: &FaultStorage, whole: &Objects, all: &BTreeMap<i64, String>, what: &str) {
    let before = objects(storage).await;
    let planned = repair(storage, false).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(objects(storage).await, before, "{what}: a dry run changes nothing");
    let report = repair(storage, true).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(report, RepairReport { written: report.written, ..planned }, "{what}");
    assert_eq!(report.written, !report.findings.is_empty(), "{what}");
    for (file, aside) in &report.set_aside {
        assert_eq!(storage.read_all(aside).await.unwrap(), before[file], "{what}");
    }
    let found = repaired(storage).await;
    let lost = |finding: &Finding| finding.loss != Loss::Nothing;
    if !report.findings.iter().any(lost) {
        // Nothing was said of a log's end that is torn or missing: what it held may never have been acknowledged.
        let torn = before.iter().map(|(name, bytes)| (name, bytes.len())).collect::<Vec<_>>()
            != whole.iter().map(|(name, bytes)| (name, bytes.len())).collect::<Vec<_>>()
            || report.findings.is_empty();
        let lacking = all.keys().filter(|key| !found.contains_key(key)).collect::<Vec<_>>();
        assert!(
            lacking.is_empty() || torn && lacking.iter().all(|key| **key >= 2_000),
            "{what}: {lacking:?} {report:?}"
        );
    }
    for (key, name) in &found {
        // A row that was deleted comes back when its delete is lost.
        assert!(all.get(key) == Some(name) || *key == 5 && report.findings.iter().any(lost), "{what}: {key} {name}");
    }
    assert!(found.keys().filter(|key| **key >= 2_000).count() >= 1 || what.contains("/log/"), "{what}: {report:?}");
}

#[test]
fn what_a_repair_left_out_comes_back_from_a_replica() {
    block_on(async {
        let (whole, all) = sample().await;
        let hub = Db::open(Arc::new(storage_of(&whole).await), Options::default()).await.unwrap();
        let hub = hub.collection("notes").unwrap();
        let log = whole.keys().find(|name| name.contains("/log/")).unwrap();
        let rows = whole.keys().find(|name| name.ends_with("/rows")).unwrap();
        let storage = storage_of(&whole).await;
        storage.tamper(log, |bytes| bytes[200] ^= 1);
        storage.tamper(rows, |bytes| bytes[200] ^= 1);
        let report = repair(&storage, true).await.unwrap();
        let frames = |finding: &Finding| matches!(finding.loss, Loss::Frames { last: Some(_), .. });
        assert!(report.findings.iter().any(frames), "{report:?}");
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        drop(db);
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        let notes = db.collection("notes").unwrap();
        assert!(notes.seen().is_empty() && notes.count(None).await.unwrap() < all.len());
        let newest = notes.stats().await.unwrap().lsn;
        let (changes, _) = hub.changes_after(Lsn(0), &notes.seen(), usize::MAX).await.unwrap();
        notes.apply(changes, None).await.unwrap();
        let found: BTreeMap<_, _> = names(&notes.query(&QueryRequest::default()).await.unwrap()).into_iter().collect();
        assert_eq!(found, all);
        assert!(newest > hub.stats().await.unwrap().lsn, "numbers that pullers may have heard of are not used again");
    });
}

fn is_manifest(name: &str) -> bool {
    name.starts_with("manifest/") || name.starts_with("manifest-copy/")
}

/// Opens what a repair without a manifest has left; its rows are `expected`, and the report says what cannot be known.
async fn check_rebuilt(storage: &FaultStorage, expected: &BTreeMap<i64, String>, what: &str) -> RepairReport {
    let before = objects(storage).await;
    let planned = repair(storage, false).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(objects(storage).await, before, "{what}: a dry run changes nothing");
    let report = repair(storage, true).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(report, RepairReport { written: true, ..planned }, "{what}");
    assert!(report.findings.iter().any(|finding| finding.loss == Loss::Manifest), "{what}: {report:?}");
    assert_eq!(repaired(storage).await, *expected, "{what}: {report:?}");
    report
}

/// What collections there are, and of which fields, stood in the manifest alone: damage of it and of its copy took everything.
#[test]
fn without_a_manifest_one_is_made_from_segments_and_logs() {
    block_on(async {
        let (mut whole, all) = sample().await;
        let storage = storage_of(&whole).await;
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        db.create_alias("diary", "notes").await.unwrap();
        db.create_collection("dropped", spec()).await.unwrap();
        db.create_collection("empty", spec()).await.unwrap();
        db.drop_collection("dropped").await.unwrap();
        let replica = db.replica_id();
        drop(db);
        whole = objects(&storage).await;
        type Damage = fn(&mut Vec<u8>);
        let damages: [(&str, Damage); 5] = [
            ("cut", |bytes| bytes.truncate(bytes.len() / 2)),
            ("emptied", Vec::clear),
            ("zeroed", |bytes| bytes.fill(0)),
            ("flipped at its start", |bytes| bytes[3] ^= 1),
            ("flipped in its midst", |bytes| bytes[200] ^= 1),
        ];
        for (what, damage) in damages {
            let storage = storage_of(&whole).await;
            whole.keys().filter(|name| is_manifest(name)).for_each(|name| assert!(storage.tamper(name, damage)));
            check_rebuilt(&storage, &all, what).await;
        }
        let storage = storage_of(&whole).await;
        for name in whole.keys().filter(|name| is_manifest(name)) {
            Storage::remove(&storage, name).await.unwrap();
        }
        check_rebuilt(&storage, &all, "removed").await;
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        assert_eq!(db.replica_id(), replica, "its own changes are still its own");
        assert_eq!(db.aliases(), [("diary".to_owned(), "notes".to_owned())]);
        assert_eq!(db.collections().iter().map(Collection::name).collect::<Vec<_>>(), ["empty", "notes"]);
        let notes = db.collection("notes").unwrap();
        // Numbers go on, and so do writes, merges and searches by an index that was built anew.
        notes.insert(rows(&notes, [row(9_000, "after")])).await.unwrap();
        db.compact("notes").await.unwrap();
        assert_eq!((notes.count(None).await.unwrap(), notes.stats().await.unwrap().rows_unindexed), (all.len() + 1, 0));
        assert!(db.create_collection("dropped", spec()).await.is_ok());
    });
}

/// What a merge or a flush has replaced, and nobody has removed yet, is taken for part of the store then: for every key the newest counts, so
/// that deleted rows stay deleted and replaced ones replaced.
#[test]
fn what_was_replaced_does_not_come_back_without_a_manifest() {
    block_on(async {
        let (before, _) = sample().await;
        let storage = storage_of(&before).await;
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        let notes = db.collection("notes").unwrap();
        notes.delete(Target::Keys((0..500).map(Key::Int).collect())).await.unwrap();
        notes.upsert(rows(&notes, (600..700).map(|id| row(id, "again")))).await.unwrap();
        db.compact("notes").await.unwrap();
        notes.upsert(rows(&notes, [row(1, "back")])).await.unwrap();
        let all = names(&notes.query(&QueryRequest::default()).await.unwrap()).into_iter().collect();
        drop((notes, db));
        let after = objects(&storage).await;
        let old = |name: &String| !is_manifest(name) && !name.starts_with("outline/") && !after.contains_key(name);
        assert!(before.keys().filter(|name| old(name)).count() > 6);
        let without = |objects: &Objects| -> Objects {
            objects
                .iter()
                .filter(|(name, _)| !is_manifest(name))
                .map(|(name, bytes)| (name.clone(), bytes.clone()))
                .collect()
        };
        let (mut both, segments) = (without(&after), without(&before));
        check_rebuilt(&storage_of(&both).await, &all, "as it is").await;
        both.extend(
            segments
                .iter()
                .filter(|(name, _)| old(name) && name.contains("/segment/"))
                .map(|(name, bytes)| (name.clone(), bytes.clone())),
        );
        check_rebuilt(&storage_of(&both).await, &all, "with the segments that were merged").await;
        both.extend(segments.into_iter().filter(|(name, _)| old(name)));
        check_rebuilt(&storage_of(&both).await, &all, "with the log as well").await;
        // One that a flush had not finished, or that is damaged, is left out, and kept aside.
        let rows = both.keys().find(|name| name.contains("/segment/") && name.ends_with("/rows")).unwrap().clone();
        let layout = rows.replace("/rows", "/layout");
        let storage = storage_of(&both).await;
        Storage::remove(&storage, &layout).await.unwrap();
        let report = check_rebuilt(&storage, &all, "with a part of a segment").await;
        assert!(report.set_aside.iter().any(|(file, _)| *file == rows), "{report:?}");
        let file = after.keys().find(|name| name.contains("/segment/") && name.ends_with("/layout")).unwrap();
        for at in [0, 9, 20, after[file].len() / 2, after[file].len() - 3] {
            let storage = storage_of(&without(&after)).await;
            storage.tamper(file, |bytes| bytes[at] ^= 1);
            let report = repair(&storage, true).await;
            let Ok(report) = report else {
                assert_eq!(at, 9, "{report:?}");
                continue;
            };
            assert!(report.set_aside.iter().any(|(aside, _)| aside == file), "byte {at}: {report:?}");
        }
    });
}

#[test]
fn without_any_manifest_a_repair_says_so_and_an_empty_store_is_whole() {
    block_on(async {
        let (mut whole, _) = sample().await;
        whole.retain(|name, _| !is_manifest(name) && !name.starts_with("outline/"));
        let error = repair(&storage_of(&whole).await, true).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains("no manifest and no copy of one"), "{error}");
        assert_eq!(repair(&FaultStorage::new(0), true).await.unwrap(), RepairReport::default());
    });
}

#[test]
fn snapshots_do_not_move_whatever_is_written_flushed_and_merged() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let mut held = Vec::new();
        for round in 0..8 {
            let name = format!("round {round}");
            notes.upsert(rows(&notes, (0..40).map(|id| row(id, &name)))).await.unwrap();
            notes.delete(Target::Keys((round..round + 3).map(Key::Int).collect())).await.unwrap();
            held.push((notes.snapshot().unwrap(), names(&notes.query(&QueryRequest::default()).await.unwrap())));
            db.flush("notes").await.unwrap();
            db.maintain().await.unwrap();
        }
        let check = async |held: &[(Snapshot, Vec<(i64, String)>)]| {
            for (snapshot, expected) in held {
                assert_eq!(names(&snapshot.query(&QueryRequest::default()).await.unwrap()), *expected);
                assert_eq!(snapshot.count(None).await.unwrap(), expected.len());
                let filter = format!("name == \"{}\"", expected[5].1);
                assert_eq!(snapshot.count(Some(&filter)).await.unwrap(), expected.len());
                let keys: Vec<Key> = (0..50).map(Key::Int).collect();
                assert_eq!(names(&snapshot.get(&keys, None).await.unwrap()), *expected);
                let request = SearchRequest { vector: vector(7).into(), limit: 100, ..Default::default() };
                let found = snapshot.search(&request).await.unwrap().hits;
                let mut found = names(&found.into_iter().map(|hit| hit.row).collect::<Vec<_>>());
                found.sort();
                assert_eq!(found, *expected);
            }
        };
        check(&held).await;
        settle(&db).await;
        check(&held).await;
        let kept = notes.stats().await.unwrap().rows_dead;
        assert!(kept >= 7 * 37, "{kept} dead rows are kept for snapshots");
        held.truncate(1);
        notes.upsert(rows(&notes, (0..200).map(|id| row(id, "late")))).await.unwrap();
        db.flush("notes").await.unwrap();
        settle(&db).await;
        check(&held).await;
        drop(held);
        db.flush("notes").await.unwrap();
        settle(&db).await;
        assert_eq!(notes.stats().await.unwrap().rows_dead, 0, "nobody reads them any more");
        let gone = notes.snapshot_at(Timestamp::new(1_000, 0)).err().expect("an error");
        assert_eq!(gone.kind(), ErrorKind::Gone);
        assert!(gone.message().contains("option retention"), "{gone}");
    });
}

#[test]
fn the_past_can_be_read_inside_the_retention_window_and_after_restarts() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let options = || Options { retention_ms: 3_600_000, ..Options::default() };
        let mut db = Db::open(Arc::new(storage.clone()), options()).await.unwrap();
        let mut notes = db.create_collection("notes", spec()).await.unwrap();
        let mut past = Vec::new();
        for round in 0..9 {
            let name = format!("round {round}");
            notes.upsert(rows(&notes, (0..10).map(|id| row(id + round % 3, &name)))).await.unwrap();
            let written = notes.delete(Target::Keys(vec![(round % 12).into()])).await.unwrap();
            past.push((written.timestamp, names(&notes.query(&QueryRequest::default()).await.unwrap())));
            if round % 2 == 0 {
                db.flush("notes").await.unwrap();
            }
            if round % 3 == 1 {
                drop((notes, db));
                db = Db::open(Arc::new(storage.reopen()), options()).await.unwrap();
                notes = db.collection("notes").unwrap();
            }
            settle(&db).await;
            for (timestamp, expected) in &past {
                let then = notes.snapshot_at(*timestamp).unwrap();
                assert_eq!(names(&then.query(&QueryRequest::default()).await.unwrap()), *expected, "round {round}");
                let keys: Vec<Key> = (0..12).map(Key::Int).collect();
                assert_eq!(names(&then.get(&keys, None).await.unwrap()), *expected, "round {round}");
            }
        }
        // A session without retention lets the past go for good; a later one with it says so.
        drop((notes, db));
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        settle(&db).await;
        assert_eq!(db.collection("notes").unwrap().stats().await.unwrap().rows_dead, 0);
        db.close().await.unwrap();
        let db = Db::open(Arc::new(storage.open_again().unwrap()), options()).await.unwrap();
        let notes = db.collection("notes").unwrap();
        assert_eq!(kind(notes.snapshot_at(past[3].0)), ErrorKind::Gone);
        let (newest, expected) = past.pop().unwrap();
        let then = notes.snapshot_at(newest).unwrap();
        assert_eq!(names(&then.query(&QueryRequest::default()).await.unwrap()), expected);
    });
}

#[test]
fn a_batch_is_done_in_order_and_wholly_or_not_at_all() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let some = |ids: &[i64], name: &str| rows(&notes, ids.iter().map(|id| row(*id, name)));
        notes.insert(some(&[1, 2, 3], "first")).await.unwrap();
        let written = notes
            .batch(
                vec![
                    Operation::Delete(Target::Keys(vec![1.into(), 50.into()])),
                    Operation::Insert(some(&[1, 4, 5], "second")),
                    Operation::Delete(Target::Filter("name == \"first\"".to_owned())),
                    Operation::Upsert(some(&[2, 6], "third")),
                    Operation::Delete(Target::Keys(vec![5.into(), 6.into()])),
                ],
                WriteOptions::default(),
            )
            .await
            .unwrap();
        // The filter looks at the rows before the batch, so it deletes the new row 1 too.
        let expected = [(2, "third".to_owned()), (4, "second".to_owned())];
        assert_eq!(names(&notes.query(&QueryRequest::default()).await.unwrap()), expected);
        assert_eq!((written.count, written.lsn), (4, Lsn(2)));
        let refused = [
            vec![Operation::Upsert(some(&[9], "x")), Operation::Insert(some(&[8, 4], "x"))],
            vec![Operation::Insert(some(&[9], "x")), Operation::Insert(some(&[9], "y"))],
        ];
        for operations in refused {
            assert_eq!(kind(notes.batch(operations, WriteOptions::default()).await), ErrorKind::AlreadyExists);
        }
        let nothing = notes.batch(Vec::new(), WriteOptions::default()).await.unwrap();
        assert_eq!((nothing.count, notes.stats().await.unwrap().lsn), (0, Lsn(2)));
        let db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
        let notes = db.collection("notes").unwrap();
        assert_eq!(names(&notes.query(&QueryRequest::default()).await.unwrap()), expected);
    });
}

#[test]
fn a_conditional_write_is_refused_when_somebody_else_was_first() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let write = async |name: &str, version: Option<Version>| {
            let condition = Condition { key: 1.into(), version };
            let options = WriteOptions { conditions: vec![condition], ..Default::default() };
            notes.batch(vec![Operation::Upsert(rows(&notes, [row(1, name)]))], options).await
        };
        let first = write("first", None).await.unwrap();
        let fields = ["$version".to_owned(), "name".to_owned()];
        let read = notes.get(&[1.into()], Some(&fields)).await.unwrap().remove(0);
        assert_eq!(read["$version"], Value::String(first.version.to_string()));
        let error = write("again", None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.message().contains(&format!("key 1: version {}, expected no row", first.version)), "{error}");
        let second = write("second", Some(first.version)).await.unwrap();
        assert_eq!(kind(write("late", Some(first.version)).await), ErrorKind::Conflict);
        db.flush("notes").await.unwrap();
        let third = write("third", Some(second.version)).await.unwrap();
        notes.delete(Target::Keys(vec![1.into()])).await.unwrap();
        assert_eq!(kind(write("late", Some(third.version)).await), ErrorKind::Conflict);
        write("new", None).await.unwrap();
        assert_eq!(notes.stats().await.unwrap().lsn, Lsn(5), "what was refused is not in the log");
    });
}

#[test]
fn of_writers_that_count_up_together_none_is_lost() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).build().unwrap();
    runtime.block_on(async {
        let db = Db::open(Arc::new(FaultStorage::new(3)), Options::default()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let count = async |notes: Collection, times: usize| {
            let fields = ["$version".to_owned(), "name".to_owned()];
            let mut conflicts = 0;
            for _ in 0..times {
                loop {
                    let read = notes.get(&[1.into()], Some(&fields)).await.unwrap().pop();
                    let text = |field: &str| match read.as_ref().map(|row| &row[field]) {
                        Some(Value::String(text)) => Some(text.clone()),
                        _ => None,
                    };
                    let version = text("$version").map(|version| version.parse().unwrap());
                    let next = text("name").map_or(0, |name| name.parse::<usize>().unwrap()) + 1;
                    let options = WriteOptions {
                        durability: Some(if next % 2 == 0 { Durability::Buffered } else { Durability::Synced }),
                        conditions: vec![Condition { key: 1.into(), version }],
                        ..Default::default()
                    };
                    let operations = vec![Operation::Upsert(rows(&notes, [row(1, &next.to_string())]))];
                    match notes.batch(operations, options).await {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                    }
                    conflicts += 1;
                }
            }
            conflicts
        };
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(count(notes.clone(), 25))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        let rows = notes.query(&QueryRequest::default()).await.unwrap();
        assert_eq!(names(&rows), [(1, "200".to_owned())]);
    });
}

#[test]
fn what_died_before_the_window_goes_when_nobody_holds_it() {
    block_on(async {
        let environment = crate::platform::Environment::simulated(1, 1_700_000_000_000);
        let storage = FaultStorage::new(1);
        let options = || Options { retention_ms: 10_000, environment: environment.clone(), ..Options::default() };
        let db = Db::open(Arc::new(storage.clone()), options()).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        let mut first = None;
        for name in ["a", "b"] {
            let written = notes.upsert(rows(&notes, (0..500).map(|id| row(id, name)))).await.unwrap();
            first = first.or(Some(written.timestamp));
            db.flush("notes").await.unwrap();
        }
        let first = first.unwrap();
        let filter = Some("name == \"a\"");
        environment.advance_ms(5_000);
        settle(&db).await;
        let then = notes.snapshot_at(first).unwrap();
        assert_eq!(then.count(filter).await.unwrap(), 500);
        environment.advance_ms(10_000);
        settle(&db).await;
        assert_eq!(kind(notes.snapshot_at(first)), ErrorKind::Gone);
        assert_eq!(then.count(filter).await.unwrap(), 500, "what is held stays longer than the window");
        assert_eq!(notes.stats().await.unwrap().rows_dead, 500);
        drop(then);
        settle(&db).await;
        let stats = notes.stats().await.unwrap();
        assert_eq!((stats.rows, stats.rows_dead), (500, 0));
        let db = Db::open(Arc::new(storage.reopen()), options()).await.unwrap();
        let notes = db.collection("notes").unwrap();
        assert_eq!(kind(notes.snapshot_at(first)), ErrorKind::Gone);
        assert_eq!(notes.count(filter).await.unwrap(), 0);
    });
}
