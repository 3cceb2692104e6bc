#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::*;
use crate::base::{ErrorKind, Lsn};
use crate::engine::{CollectionSpec, Memory};
use crate::model::{Batch, Key, Row, Value};
use crate::platform::block_on;
use crate::storage::{FaultStorage, MemoryDisk, Operation, Storage};

const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
    {"name":"kind","type":"varchar","maxLength":20},
    {"name":"text","type":"varchar"},
    {"name":"facts","type":"json","nullable":true},
    {"name":"embedding","type":"float_vector","dim":32},
    {"name":"codes","type":"int8_vector","dim":96}],
    "dynamic":true,"indexes":{"embedding":{"metric":"L2","kind":{"HNSW":{"m":8,"ef_construction":40}}}}}"#;

fn random(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    })
}

fn vector(seed: u64) -> Vec<f32> {
    random(seed).take(32).map(|number| (number % 1000) as f32 / 1000.0).collect()
}

fn row(id: i64) -> Row {
    let text: Vec<String> = random(id as u64 + 7).take(90).map(|number| format!("{:x}", number % 0xf_ffff)).collect();
    let codes = random(id as u64 + 3).take(96).map(|number| (number % 200) as f32 - 100.0).collect();
    Row::from([
        ("id".to_owned(), Value::Int(id)),
        ("kind".to_owned(), Value::String(["a", "b", "c"][id as usize % 3].to_owned())),
        ("text".to_owned(), Value::String(format!("{id} {}", text.join(" ")))),
        ("facts".to_owned(), Value::Json(serde_json::json!({ "group": id % 10, "padding": text[..20].concat() }))),
        ("embedding".to_owned(), Value::Vector(vector(id as u64))),
        ("codes".to_owned(), Value::Vector(codes)),
        ("extra".to_owned(), Value::Int(id * 2)),
    ])
}

async fn open(storage: impl Storage + 'static, memory_limit_bytes: Option<usize>) -> Db {
    Db::open(Arc::new(storage), Options { memory_limit_bytes, ..Options::default() }).await.unwrap()
}

async fn settle(db: &Db) {
    while db.maintain().await.unwrap() {}
}

async fn fill(db: &Db, rows: i64) -> Collection {
    let spec: CollectionSpec = serde_json::from_str(SPEC).unwrap();
    let notes = db.create_collection("notes", spec).await.unwrap();
    for ids in (0..rows).collect::<Vec<_>>().chunks(500) {
        let rows = ids.iter().map(|&id| row(id)).collect();
        notes.insert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
        if ids[0] % 1500 == 0 {
            settle(db).await;
            db.flush("notes").await.unwrap();
        }
    }
    settle(db).await;
    db.flush("notes").await.unwrap();
    settle(db).await;
    notes
}

fn search(seed: u64, filter: Option<&str>, exact: bool) -> SearchRequest {
    SearchRequest {
        vector: Value::Vector(vector(seed)),
        field: Some("embedding".to_owned()),
        limit: 10,
        filter: filter.map(str::to_owned),
        output_fields: Some(vec!["id".to_owned(), "text".to_owned(), "extra".to_owned()]),
        exact,
        ..SearchRequest::default()
    }
}

/// Everything that can be asked, answered.
async fn answers(notes: &Collection) -> Vec<String> {
    let mut answers = Vec::new();
    let filters = [None, Some("kind == 'b'"), Some("facts['group'] == 3"), Some("text like '12%' and extra < 3000")];
    for (seed, filter) in filters.into_iter().enumerate() {
        for exact in [false, true] {
            let response = notes.search(&search(seed as u64 + 50_000, filter, exact)).await.unwrap();
            // Together with other rows a sum may come out another way in its last bit.
            let hits = response.hits.iter().map(|hit| format!("{:?} {:.4} {:?}", hit.key, hit.score, hit.row));
            answers.push(format!("{:?} {}", hits.collect::<Vec<_>>(), response.rows_scanned));
        }
        answers.push(notes.count(filter).await.unwrap().to_string());
        for output_fields in [None, Some(vec!["*".to_owned()]), Some(vec!["facts".to_owned()])] {
            let request = QueryRequest {
                filter: filter.map(str::to_owned),
                output_fields,
                limit: Some(40),
                offset: 5,
                ..Default::default()
            };
            answers.push(format!("{:?}", notes.query(&request).await.unwrap()));
        }
    }
    let codes = SearchRequest {
        field: Some("codes".to_owned()),
        vector: row(77)["codes"].clone(),
        ..search(0, Some("id > 10"), false)
    };
    answers.push(format!("{:?}", notes.search(&codes).await.unwrap().hits));
    let keys: Vec<Key> = [2999, 5, 1500, 10_000].map(Key::Int).into();
    answers.push(format!("{:?}", notes.get(&keys, Some(&["text".to_owned(), "embedding".to_owned()])).await.unwrap()));
    let (mut changes, lsn) = notes.changes_after(Lsn(0), &BTreeMap::new(), usize::MAX).await.unwrap();
    changes.deletes.sort_by(|(left, _), (right, _)| left.cmp(right));
    answers.push(format!("{lsn} {:?}", changes.encode()));
    answers
}

#[test]
fn a_collection_three_times_the_limit_answers_the_same() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(disk.open().unwrap(), None).await;
        let notes = fill(&db, 3_000).await;
        let expected = answers(&notes).await;
        let whole = db.memory();
        drop(notes);
        db.close().await.unwrap();

        let limit = whole.total() / 3;
        let db = open(disk.open().unwrap(), Some(limit)).await;
        let notes = db.collection("notes").unwrap();
        for (answer, expected) in answers(&notes).await.iter().zip(&expected) {
            assert!(answer == expected, "{answer}\nexpected {expected}");
        }
        let held = db.memory();
        assert!(held.total() <= limit, "{held:?} of at most {limit}; {whole:?} without a limit");
        assert!(held.cache > 0 && held.columns + held.vectors < (whole.columns + whole.vectors) / 2, "{held:?}");

        // Writes go on, by filters on what is not in memory, and are merged and flushed.
        let deleted = notes.delete(Target::Filter("facts['group'] == 4".to_owned())).await.unwrap();
        assert_eq!(deleted.count, 300);
        notes.delete(Target::Filter("kind == 'c'".to_owned())).await.unwrap();
        settle(&db).await;
        db.flush("notes").await.unwrap();
        settle(&db).await;
        let stats = notes.stats().await.unwrap();
        assert_eq!(stats.rows, 1_800, "{stats:?}");
        assert!(db.memory().total() <= limit, "{:?} of at most {limit}", db.memory());
        let after = answers(&notes).await;
        drop(notes);
        db.close().await.unwrap();
        let db = open(disk.open().unwrap(), None).await;
        let notes = db.collection("notes").unwrap();
        for (answer, expected) in after.iter().zip(answers(&notes).await) {
            assert!(*answer == expected, "{answer}\nexpected {expected}");
        }
    });
}

/// A column that had compressed well was taken for smaller than it is: at some limits it was loaded because it seemed to fit, and
/// given up because it did not, for ever.
#[test]
fn loading_and_unloading_ends_at_every_limit() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(disk.open().unwrap(), None).await;
        let spec: CollectionSpec = serde_json::from_str(
            r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"text","type":"varchar","maxLength":1000},
            {"name":"embedding","type":"float_vector","dim":4}],"dynamic":false}"#,
        )
        .unwrap();
        let notes = db.create_collection("notes", spec).await.unwrap();
        let row = |id: i64| {
            Row::from([
                ("id".to_owned(), Value::Int(id)),
                ("text".to_owned(), Value::String("rain on the river ".repeat(20))),
                ("embedding".to_owned(), Value::Vector(vec![id as f32; 4])),
            ])
        };
        notes.insert(Batch::from_rows(&notes.spec().schema, (0..500).map(row).collect()).unwrap()).await.unwrap();
        db.flush("notes").await.unwrap();
        let whole = db.memory().total();
        drop(notes);
        db.close().await.unwrap();
        for step in 1..=40 {
            let limit = whole * step / 20;
            let db = open(disk.open().unwrap(), Some(limit)).await;
            let mut moves = 0;
            while db.maintain().await.unwrap() {
                moves += 1;
                assert!(moves < 100, "with {limit} bytes of {whole}: {:?}", db.memory());
            }
            db.close().await.unwrap();
        }
    });
}

#[test]
fn what_an_opening_leaves_in_storage_comes_in_pieces() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(disk.open().unwrap(), None).await;
        let notes = fill(&db, 3_000).await;
        let (expected, whole) = (answers(&notes).await, db.memory());
        drop(notes);
        db.close().await.unwrap();

        let db = open(disk.open().unwrap(), None).await;
        let notes = db.collection("notes").unwrap();
        let opened = db.memory();
        assert_eq!((opened.vectors, opened.columns), (0, 0), "{opened:?}");
        assert_eq!(answers(&notes).await, expected);
        let mut steps = 0;
        while db.maintain().await.unwrap() {
            steps += 1;
            let held = db.memory();
            // A block's bits take whole bytes.
            let most = whole.columns + whole.vectors + 1_024;
            assert!(held.columns + held.vectors + held.cache <= most, "{held:?} of {whole:?}");
        }
        assert!(steps > 2, "{steps} steps");
        let settled = db.memory();
        assert_eq!(
            (settled.vectors, settled.columns, settled.cache),
            (3_000 * 32 * 4, whole.columns, 0),
            "{settled:?}"
        );
        assert_eq!(answers(&notes).await, expected);
    });
}

#[test]
fn an_index_is_built_though_the_vectors_do_not_fit_together() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(disk.open().unwrap(), None).await;
        let spec: CollectionSpec = serde_json::from_str(SPEC).unwrap();
        let notes = db.create_collection("notes", spec).await.unwrap();
        for start in [0, 1_500] {
            let rows = (start..start + 1_500).map(row).collect();
            notes.insert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
            db.flush("notes").await.unwrap();
        }
        drop(notes);
        db.close().await.unwrap();

        let limit = 850_000;
        let db = open(disk.open().unwrap(), Some(limit)).await;
        let notes = db.collection("notes").unwrap();
        assert_eq!(notes.stats().await.unwrap().rows_unindexed, 3_000);
        let mut vectors = BTreeSet::from([db.memory().vectors]);
        while db.maintain().await.unwrap() {
            vectors.insert(db.memory().vectors);
        }
        assert_eq!(vectors, [0, 1_500 * 32 * 4].into(), "the vectors of one segment at a time: {:?}", db.memory());
        assert_eq!(notes.stats().await.unwrap().rows_unindexed, 0, "{:?}", db.memory());
        assert_eq!(db.memory().vectors, 0, "the graphs alone exceed the limit: {:?}", db.memory());
        let response = notes.search(&search(9, None, false)).await.unwrap();
        assert!(response.segments_by_index > 0, "{response:?}");
    });
}

#[test]
fn dead_rows_are_given_up_within_the_limit() {
    block_on(async {
        let disk = MemoryDisk::new();
        let limit = 3_000_000;
        let db = open(disk.open().unwrap(), Some(limit)).await;
        let notes = fill(&db, 2_000).await;
        notes.delete(Target::Filter("facts['group'] < 6".to_owned())).await.unwrap();
        settle(&db).await;
        db.flush("notes").await.unwrap();
        settle(&db).await;
        let stats = notes.stats().await.unwrap();
        assert_eq!((stats.rows, stats.rows_dead), (800, 0), "{stats:?}");
        assert!(db.memory().total() <= limit, "{:?} of at most {limit}", db.memory());
        assert_eq!(notes.count(Some("text like '% %' and facts['group'] > 5")).await.unwrap(), 800);
    });
}

#[test]
fn damage_of_what_stays_in_storage_is_found_when_it_is_read() {
    block_on(async {
        let storage = FaultStorage::new(1);
        let db = open(storage.clone(), None).await;
        drop(fill(&db, 600).await);
        db.close().await.unwrap();
        let entries = Storage::list(&storage.reopen(), "").await.unwrap();
        let column = entries.iter().find(|entry| entry.name.contains("/column-2")).unwrap();
        let storage = storage.reopen();
        assert!(storage.tamper(&column.name, |bytes| bytes[5_000] ^= 1));
        let db = open(storage, Some(1)).await;
        let notes = db.collection("notes").unwrap();
        assert_eq!(notes.count(Some("kind == 'a'")).await.unwrap(), 200);
        let error = notes.count(Some("text like '1%'")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.message().contains(&column.name), "{error}");
    });
}

/// All keys were in a map, with where their rows are: 85 bytes a row, as much as all of its narrow columns.
#[test]
fn keys_of_flushed_segments_take_little_memory() {
    block_on(async {
        let disk = MemoryDisk::new();
        let mut db = open(disk.open().unwrap(), None).await;
        let json = r#"{"fields":[{"name":"id","type":"varchar","primaryKey":true},{"name":"n","type":"int64"}]}"#;
        let words = db.create_collection("words", serde_json::from_str(json).unwrap()).await.unwrap();
        let key = |id: i64| Value::String(format!("{:016x}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)));
        let rows = |words: &Collection, ids: std::ops::Range<i64>, n: i64| {
            let row = |id| Row::from([("id".to_owned(), key(id)), ("n".to_owned(), Value::Int(n))]);
            Batch::from_rows(&words.spec().schema, ids.map(row).collect()).unwrap()
        };
        for part in 0..3 {
            words.insert(rows(&words, part * 4_000..part * 4_000 + 4_000, 1)).await.unwrap();
            db.flush("words").await.unwrap();
        }
        drop(words);
        for reopened in [false, true] {
            if reopened {
                db.close().await.unwrap();
                db = open(disk.open().unwrap(), None).await;
            }
            let held = db.memory().keys;
            assert!(held <= 12_000 * 3, "{held} bytes of keys of 12,000 rows, reopened: {reopened}");
        }
        let words = db.collection("words").unwrap();
        assert_eq!(words.insert(rows(&words, 11_999..12_001, 2)).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        // New keys add themselves, and find nothing.
        words.insert(rows(&words, 12_000..12_100, 2)).await.unwrap();
        let held = db.memory().keys;
        assert!(held <= 12_000 * 3 + 100 * 30, "{held} bytes of keys");
        // Old ones are found, in whichever segment they are.
        words.upsert(rows(&words, 3_990..8_010, 3)).await.unwrap();
        words.delete(Target::Filter("n == 2".to_owned())).await.unwrap();
        for (filter, count) in [("n == 1", 7_980), ("n == 2", 0), ("n == 3", 4_020)] {
            assert_eq!(words.count(Some(filter)).await.unwrap(), count, "{filter}");
        }
        db.flush("words").await.unwrap();
        settle(&db).await;
        drop(words);
        db.close().await.unwrap();
        let db = open(disk.open().unwrap(), None).await;
        let words = db.collection("words").unwrap();
        assert_eq!((words.count(None).await.unwrap(), words.count(Some("n == 3")).await.unwrap()), (12_000, 4_020));
        db.compact("words").await.unwrap();
        assert_eq!(words.count(Some("n == 1")).await.unwrap(), 7_980);
        let held = db.memory().keys;
        assert!(held <= 12_000 * 3 + 100 * 128, "{held} bytes of keys, deleted ones among them");
    });
}

/// What statistics rule out is not read: neither a file of a segment where no row can match, nor blocks between those that can.
#[test]
fn statistics_keep_blocks_from_being_read() {
    block_on(async {
        let storage = FaultStorage::new(5);
        let db = open(storage.clone(), None).await;
        let notes = fill(&db, 3_000).await;
        // As the statistics of a segment whose rows were replaced still count them.
        let replaced = (100..104).map(row).collect();
        notes.upsert(Batch::from_rows(&notes.spec().schema, replaced).unwrap()).await.unwrap();
        drop(notes);
        db.close().await.unwrap();
        let storage = storage.reopen();
        let db = open(storage.clone(), Some(1)).await;
        let notes = db.collection("notes").unwrap();
        let blocks = notes.with_blocks(|state, _| {
            let groups = state.slots().flat_map(|slot| slot.segment.stored());
            let texts = groups.filter(|group| group.kind == crate::segment::FileKind::Column("text".to_owned()));
            Ok::<_, Vec<crate::segment::BlockRef>>(texts.map(|group| group.blocks.len()).sum::<usize>())
        });
        let blocks = blocks.await.unwrap();
        assert!(blocks >= 6, "{blocks}");
        for (filter, count, reads_max) in [
            ("text like '9%' and text > '~'", 0, 0),
            ("id > 5000 and text like '%1%'", 0, 0),
            ("id in [1200, 1201] and text like '120%'", 2, 1),
            ("text == 'x' or id < 0", 0, 0),
            ("text like '%0%' or id < 0", 3_000, blocks),
        ] {
            let before = storage.history().len();
            assert_eq!(notes.count(Some(filter)).await.unwrap(), count, "{filter}");
            let history = storage.history();
            let reads = history[before..].iter().filter(|(operation, _)| *operation == Operation::Read).count();
            assert!(reads <= reads_max && (reads > 0) == (reads_max > 0), "{filter}: {reads} reads of {blocks} blocks");
        }
    });
}

#[test]
fn compaction_leaves_no_dead_row_and_tells_how_it_goes_on() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(disk.open().unwrap(), None).await;
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let listener = told.clone();
        db.on_progress(move |progress: WorkProgress| listener.lock().unwrap().push(progress));
        let notes = fill(&db, 1_200).await;
        notes.delete(Target::Filter("id < 7".to_owned())).await.unwrap();
        settle(&db).await;
        let before = notes.stats().await.unwrap();
        assert_eq!((before.rows_dead, before.states.growing), (7, 1), "{before:?}");
        assert!(before.states.flushed > 1 && before.written.flushed > 0, "{before:?}");
        db.compact("notes").await.unwrap();
        let after = notes.stats().await.unwrap();
        assert_eq!((after.rows, after.rows_dead, after.rows_unindexed), (1_193, 0, 0), "{after:?}");
        assert_eq!(after.states, SegmentStates { growing: 1, flushed: 1, ..SegmentStates::default() });
        assert!(after.written.compacted > 0 && after.written.logged == before.written.logged, "{after:?}");
        assert!(after.files["column"] > 0 && after.files["index"] > 0 && !after.files.contains_key("log"), "{after:?}");
        assert_eq!(after.files.values().sum::<u64>(), after.storage_bytes);
        let told = told.lock().unwrap();
        let ended = |work| told.iter().any(|told| (told.work, told.rows_done) == (work, told.rows) && told.rows > 0);
        assert!(ended(Work::Flush) && ended(Work::Compaction), "{told:?}");
    });
}

/// A search had been reading a segment whose files a merge took away: it failed, though nothing was wrong.
#[test]
fn files_stay_while_somebody_reads_them() {
    block_on(async {
        let storage = FaultStorage::new(3);
        let db = open(storage.clone(), Some(1 << 20)).await;
        let notes = fill(&db, 600).await;
        let reader = notes.with_blocks(|state, _| {
            Ok::<_, Vec<crate::segment::BlockRef>>(state.slots().map(|slot| slot.segment.clone()).next().unwrap())
        });
        let reader = reader.await.unwrap();
        notes.delete(Target::Filter("id % 2 == 0".to_owned())).await.unwrap();
        db.compact("notes").await.unwrap();
        let name = reader.stored()[0].name.clone();
        let is_there = || block_on(Storage::list(&storage, &name)).unwrap().len() == 1;
        assert!(is_there() && notes.stats().await.unwrap().states.dropped == 1);
        drop(reader);
        settle(&db).await;
        assert!(!is_there() && notes.stats().await.unwrap().states.dropped == 0);
    });
}

/// Of many segments in storage a search read as many vectors of each as of a single one: of 40 segments 800, for ten rows.
#[test]
fn of_many_segments_the_closest_candidates_alone_are_read() {
    block_on(async {
        let storage = FaultStorage::new(5);
        let policy = MergePolicy { small_count: usize::MAX, ..Default::default() };
        let options = |limit| Options { memory_limit_bytes: limit, merge_policy: policy, ..Options::default() };
        let db = Db::open(Arc::new(storage.clone()), options(None)).await.unwrap();
        let notes = db.create_collection("notes", serde_json::from_str(SPEC).unwrap()).await.unwrap();
        for part in 0..16 {
            let rows = (part * 200..part * 200 + 200).map(row).collect();
            notes.insert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
            settle(&db).await;
            db.flush("notes").await.unwrap();
        }
        settle(&db).await;
        assert_eq!(notes.stats().await.unwrap().segments, 16);
        let keys = async |notes: &Collection| {
            let mut keys = Vec::new();
            for seed in 0..20 {
                let request = SearchRequest { output_fields: None, ..search(60_000 + seed, None, false) };
                keys.extend(notes.search(&request).await.unwrap().hits.into_iter().map(|hit| hit.key));
            }
            keys
        };
        let expected = keys(&notes).await;
        drop(notes);
        db.close().await.unwrap();

        let db = Db::open(Arc::new(storage.open_again().unwrap()), options(Some(1 << 20))).await.unwrap();
        settle(&db).await;
        let before = storage.history().len();
        let found = keys(&db.collection("notes").unwrap()).await;
        let same = found
            .chunks(10)
            .zip(expected.chunks(10))
            .flat_map(|(found, expected)| found.iter().filter(|key| expected.contains(key)));
        assert!(same.count() >= 198, "{found:?}\nexpected {expected:?}");
        let reads = storage.history()[before..].iter().filter(|(operation, _)| *operation == Operation::Read).count();
        assert!((20..=20 * 20).contains(&reads), "{reads} reads for 20 searches");
    });
}

/// Until the first step of background work the cache took as much as if nothing else was in memory.
#[test]
fn a_store_that_was_just_opened_keeps_to_its_limit() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(disk.open().unwrap(), None).await;
        fill(&db, 3_000).await;
        let whole = db.memory();
        db.close().await.unwrap();

        let limit = (whole.rows + whole.indexes + whole.keys) * 11 / 10;
        let db = open(disk.open().unwrap(), Some(limit)).await;
        let (held, cache) = (db.memory(), db.inner.shared.cache_capacity());
        assert!(held.total() + cache <= limit, "{held:?} and {cache} of cache, of at most {limit}");
    });
}

/// What a query that compares every vector, and reads texts, answers.
async fn exact_answers(notes: &Collection) -> Vec<String> {
    let mut answers = Vec::new();
    for (seed, filter) in [None, Some("kind == 'b'"), Some("text like '1%' and extra < 3000")].into_iter().enumerate() {
        let response = notes.search(&search(seed as u64 + 50_000, filter, true)).await.unwrap();
        let hits = response.hits.iter().map(|hit| format!("{:?} {:.4} {:?}", hit.key, hit.score, hit.row));
        answers.push(format!("{:?}", hits.collect::<Vec<_>>()));
        answers.push(notes.count(filter).await.unwrap().to_string());
    }
    let keys: Vec<Key> = [2_999, 5, 1_500, 10_000].map(Key::Int).into();
    let fields = ["text", "facts", "codes", "embedding"].map(str::to_owned);
    answers.push(format!("{:?}", notes.get(&keys, Some(&fields)).await.unwrap()));
    answers
}

/// Only what fitted into half of the limit was merged: a store larger than its limit was never made smaller, and each search looked into ever
/// more segments. Columns and vectors go from file to file now, and graphs are built from what was written.
#[test]
fn a_collection_three_times_the_limit_is_merged_within_it() {
    block_on(async {
        let disk = MemoryDisk::new();
        let merge_policy = MergePolicy { small_count: usize::MAX, ..MergePolicy::default() };
        let options = Options { merge_policy, ..Options::default() };
        let db = Db::open(Arc::new(disk.open().unwrap()), options).await.unwrap();
        let notes = db.create_collection("notes", serde_json::from_str(SPEC).unwrap()).await.unwrap();
        for start in [0, 1_000, 2_000, 500] {
            let long = |id| {
                let mut row = row(id);
                let words: Vec<String> = random(id as u64 + 11).take(300).map(|word| format!("{word:x}")).collect();
                row.insert("text".to_owned(), Value::String(format!("{id} {}", words.join(" "))));
                row
            };
            let rows = (start..start + 1_100).map(long).collect();
            notes.upsert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
            db.flush("notes").await.unwrap();
            settle(&db).await;
        }
        notes.delete(Target::Filter("id % 50 == 3".to_owned())).await.unwrap();
        db.flush("notes").await.unwrap();
        settle(&db).await;
        let (expected, whole) = (exact_answers(&notes).await, db.memory());
        drop(notes);
        db.close().await.unwrap();

        let limit = whole.total() / 3;
        let db = open(disk.open().unwrap(), Some(limit)).await;
        let notes = db.collection("notes").unwrap();
        assert!(notes.stats().await.unwrap().states.flushed >= 4);
        let (mut steps, mut most) = (0, Memory::default());
        db.begin_compaction(&notes);
        while db.is_compacting(&notes) {
            db.maintain().await.unwrap();
            let held = db.memory();
            if held.total() > most.total() {
                most = held;
            }
            steps += 1;
            if steps % 64 == 0 {
                assert_eq!(exact_answers(&notes).await, expected, "after {steps} steps");
            }
            assert!(steps < 20_000, "it does not end");
        }
        assert!(most.total() <= limit, "{most:?} of at most {limit}; {whole:?} without a limit");
        assert!(
            most.columns + most.vectors <= (whole.columns + whole.vectors) / 8,
            "{most:?}; {whole:?} without a limit"
        );
        let stats = notes.stats().await.unwrap();
        assert_eq!((stats.states.flushed, stats.rows_dead, stats.rows_unindexed), (1, 0, 0), "{stats:?}");
        assert_eq!((stats.graphs.rows, stats.graphs.unreachable), (stats.rows, 0), "{stats:?}");
        settle(&db).await;
        assert!(db.memory().total() <= limit, "{:?} of at most {limit}", db.memory());
        assert_eq!(exact_answers(&notes).await, expected);
        let response = notes.search(&search(1_234, None, false)).await.unwrap();
        assert_eq!((response.hits[0].key.clone(), response.segments_by_index), (Key::Int(1_234), 1));
        drop(notes);
        db.close().await.unwrap();
        let db = open(disk.open().unwrap(), None).await;
        let notes = db.collection("notes").unwrap();
        settle(&db).await;
        assert_eq!(exact_answers(&notes).await, expected);
        assert_eq!(notes.search(&search(1_234, None, false)).await.unwrap().hits[0].key, Key::Int(1_234));
    });
}

/// Merges that go on at once hold no more together than one may hold alone; where there is room for them, there are several.
#[test]
fn merges_side_by_side_keep_to_the_limit_together() {
    block_on(async {
        let storage = FaultStorage::new(3);
        let policy = |small_count| MergePolicy {
            kind: MergeKind::Parallel,
            merges_max: Some(4),
            small_count,
            ..MergePolicy::default()
        };
        let options = Options { merge_policy: policy(usize::MAX), ..Options::default() };
        let db = Db::open(Arc::new(storage.clone()), options).await.unwrap();
        let notes = db.create_collection("notes", serde_json::from_str(SPEC).unwrap()).await.unwrap();
        for part in 0..12 {
            let rows = (part * 150..part * 150 + 150).map(row).collect();
            notes.insert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
            db.flush("notes").await.unwrap();
        }
        settle(&db).await;
        let whole = db.memory().total();
        let expected = exact_answers(&notes).await;
        drop(notes);
        db.close().await.unwrap();
        let mut most_at_once = Vec::new();
        for limit in [whole * 3, whole / 4, whole / 6] {
            let options = Options { merge_policy: policy(3), memory_limit_bytes: Some(limit), ..Options::default() };
            let db = Db::open(Arc::new(storage.backup()), options).await.unwrap();
            let notes = db.collection("notes").unwrap();
            let mut most = 0;
            while db.maintain().await.unwrap() {
                let merges = notes.inner.merges.lock().await;
                // Not of one whose rows take their places: these are rows of the collection by now.
                let going_on = merges.iter().filter(|merging| merging.old.is_none());
                let planned: usize = going_on.map(|merging| merging.merge.bytes()).sum();
                // As when they began: nothing was written since.
                assert!(planned <= db.free_memory(), "{planned} of {}, of {}", db.free_memory(), merges.len());
                most = most.max(merges.len());
                drop(merges);
                assert!(db.memory().total() <= limit, "{:?} of at most {limit}", db.memory());
            }
            most_at_once.push(most);
            assert!(notes.stats().await.unwrap().merges.rows >= 12 * 150);
            assert_eq!(exact_answers(&notes).await, expected);
        }
        assert!(most_at_once.is_sorted_by(|more, fewer| more > fewer), "{most_at_once:?} at once");
    });
}
