#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::*;
use crate::base::{ErrorKind, Random};
use crate::engine::CollectionSpec;
use crate::index::SearchParams;
use crate::model::{Batch, Key, Row, Value};
use crate::platform::block_on;
use crate::storage::{MemoryDisk, Storage};

const DIM: usize = 32;
const ROWS: i64 = 2_400;

async fn open(storage: impl Storage + 'static, memory_limit_bytes: Option<usize>) -> Db {
    Db::open(Arc::new(storage), Options { memory_limit_bytes, ..Options::default() }).await.unwrap()
}

async fn settle(db: &Db) {
    while db.maintain().await.unwrap() {}
}

fn spec(vector_type: &str, metric: &str, kind: &str) -> CollectionSpec {
    let dim = if vector_type.contains("binary") { 8 * DIM } else { DIM };
    let text = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"group","type":"int64"}},
        {{"name":"v",{vector_type},"dim":{dim}}}],"indexes":{{"v":{{"metric":"{metric}","kind":{kind}}}}}}}"#
    );
    serde_json::from_str::<CollectionSpec>(&text).unwrap()
}

/// Numbers around one of forty centers; of bits, a center's with some turned over.
fn vector(of_bits: bool, id: i64) -> Value {
    let mut center = Random::new(1_000_000 + id as u64 % 40);
    let mut own = Random::new(id as u64);
    if of_bits {
        return Value::Bytes((0..DIM).map(|_| center.next_u64() as u8 ^ (1 << own.below(24).min(8)) as u8).collect());
    }
    let number = |random: &mut Random, size: u64| random.below(2 * size + 1) as f32 - size as f32;
    Value::Vector((0..DIM).map(|_| number(&mut center, 80) + number(&mut own, 30)).collect())
}

fn row(of_bits: bool, nullable: bool, id: i64) -> Row {
    let vector = if nullable && id % 7 == 3 { Value::Null } else { vector(of_bits, id) };
    Row::from([("id".to_owned(), Value::Int(id)), ("group".to_owned(), Value::Int(id / 40)), ("v".to_owned(), vector)])
}

fn search(of_bits: bool, id: i64, exact: bool, filter: Option<&str>) -> SearchRequest {
    let vector = vector(of_bits, ROWS + id);
    SearchRequest { vector, limit: 10, exact, filter: filter.map(str::to_owned), ..Default::default() }
}

async fn recall(notes: &Collection, of_bits: bool, filter: Option<&str>, indexed: bool) -> f64 {
    let (mut found, mut all) = (0, 0);
    for id in 0..20 {
        let truth = notes.search(&search(of_bits, id, true, filter)).await.unwrap();
        let response = notes.search(&search(of_bits, id, false, filter)).await.unwrap();
        assert!(!indexed || response.segments_by_index > 0, "{response:?}");
        // Bits have many equal distances: what counts is how near the hits are.
        let farthest = truth.hits.last().unwrap().score;
        let scores: Vec<f32> = response.hits.iter().map(|hit| hit.score).collect();
        let keys: BTreeSet<&Key> = truth.hits.iter().map(|hit| &hit.key).collect();
        found += response.hits.iter().filter(|hit| keys.contains(&hit.key) || hit.score == farthest).count().min(10);
        assert_eq!(scores.len(), truth.hits.len());
        all += truth.hits.len();
    }
    found as f64 / all as f64
}

/// Every kind over every type that can have it: built behind the writes, searched, filtered, deleted from, opened again, searched with the
/// vectors in storage.
#[test]
fn every_kind_finds_what_a_scan_finds() {
    let lists = [
        r#"{"IVF_FLAT":{"nlist":32}}"#,
        r#"{"IVF_SQ8":{"nlist":32}}"#,
        r#"{"IVF_PQ":{"nlist":32,"m":16,"nbits":8}}"#,
        r#"{"IVF_PQ":{"nlist":32,"m":16,"nbits":4}}"#,
        r#"{"IVF_RABITQ":{"nlist":32}}"#,
        r#"{"SCANN":{"nlist":32}}"#,
    ];
    let mut cases = Vec::new();
    for kind in lists {
        for (vector_type, metric) in [
            (r#""type":"float_vector""#, "L2"),
            (r#""type":"float_vector""#, "COSINE"),
            (r#""type":"float_vector","nullable":true"#, "L2"),
            (r#""type":"float16_vector""#, "COSINE"),
            (r#""type":"bfloat16_vector""#, "L2"),
            (r#""type":"int8_vector""#, "IP"),
        ] {
            cases.push((vector_type, metric, kind));
        }
    }
    for metric in ["HAMMING", "JACCARD"] {
        cases.push((r#""type":"binary_vector""#, metric, r#"{"BIN_IVF_FLAT":{"nlist":32}}"#));
        cases.push((r#""type":"binary_vector""#, metric, r#"{"HNSW":{"m":8,"ef_construction":60}}"#));
    }
    for (vector_type, metric) in [
        (r#""type":"float_vector","nullable":true"#, "L2"),
        (r#""type":"float16_vector""#, "COSINE"),
        (r#""type":"bfloat16_vector""#, "L2"),
        (r#""type":"int8_vector""#, "IP"),
    ] {
        cases.push((vector_type, metric, r#"{"HNSW":{"m":8,"ef_construction":60}}"#));
    }
    cases.push((r#""type":"float_vector""#, "COSINE", r#"{"HNSW":{"m":8,"ef_construction":60,"codes":"rabitq"}}"#));
    for (vector_type, metric, kind) in cases {
        let context = format!("{vector_type} {metric} {kind}");
        let (of_bits, nullable) = (vector_type.contains("binary"), vector_type.contains("nullable"));
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(disk.open().unwrap(), None).await;
            let notes = db.create_collection("notes", spec(vector_type, metric, kind)).await.unwrap();
            for start in (0..ROWS).step_by(600) {
                let rows = (start..start + 600).map(|id| row(of_bits, nullable, id)).collect();
                notes.insert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
            }
            settle(&db).await;
            assert_eq!(notes.stats().await.unwrap().rows_unindexed, 0, "{context}");
            let found = recall(&notes, of_bits, None, true).await;
            assert!(found >= 0.9, "{context}: {found}");
            let found = recall(&notes, of_bits, Some("group % 3 == 1"), false).await;
            assert!(found >= 0.9, "{context}, filtered: {found}");
            notes.delete(Target::Filter("group % 4 == 0".to_owned())).await.unwrap();
            let found = recall(&notes, of_bits, None, true).await;
            assert!(found >= 0.9, "{context}, after deletes: {found}");
            let all = SearchRequest {
                params: SearchParams { nprobe: Some(32), reorder_k: Some(400), ..Default::default() },
                ef: Some(600),
                ..search(of_bits, 5, false, None)
            };
            let expected = notes.search(&search(of_bits, 5, true, None)).await.unwrap().hits;
            assert_eq!(notes.search(&all).await.unwrap().hits, expected, "{context}");
            db.close().await.unwrap();

            // Nothing but the index fits into memory.
            let db = open(disk.open().unwrap(), Some(1)).await;
            let notes = db.collection("notes").unwrap();
            assert_eq!(notes.stats().await.unwrap().rows_unindexed, 0, "{context}");
            settle(&db).await;
            assert_eq!(db.memory().vectors, 0, "{context}");
            assert_eq!(notes.search(&all).await.unwrap().hits, expected, "{context}");
            db.close().await.unwrap();

            // What is merged is indexed anew.
            let db = open(disk.open().unwrap(), None).await;
            db.compact("notes").await.unwrap();
            settle(&db).await;
            let notes = db.collection("notes").unwrap();
            let stats = notes.stats().await.unwrap();
            assert_eq!((stats.rows_unindexed, stats.rows_dead), (0, 0), "{context}");
            assert_eq!(notes.search(&all).await.unwrap().hits, expected, "{context}");
            db.close().await.unwrap();
        });
    }
}

#[test]
fn diskann_leaves_vectors_in_storage() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(disk.open().unwrap(), None).await;
        let kind = r#"{"DISKANN":{"max_degree":32,"search_list_size":100}}"#;
        let notes = db.create_collection("notes", spec(r#""type":"float_vector""#, "L2", kind)).await.unwrap();
        let rows = (0..ROWS).map(|id| row(false, false, id)).collect();
        notes.insert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
        db.flush("notes").await.unwrap();
        settle(&db).await;
        assert_eq!(notes.stats().await.unwrap().rows_unindexed, 0);
        assert_eq!(db.memory().vectors, 0, "{:?}", db.memory());
        let found = recall(&notes, false, None, true).await;
        assert!(found >= 0.95, "{found}");
        assert_eq!(db.memory().vectors, 0, "searches load nothing: {:?}", db.memory());
        let wide = SearchParams { search_list: Some(300), ..Default::default() };
        let response = notes.search(&SearchRequest { params: wide, ..search(false, 3, false, None) }).await.unwrap();
        assert_eq!(response.hits, notes.search(&search(false, 3, true, None)).await.unwrap().hits);
        drop(notes);
        db.close().await.unwrap();
        let db = open(disk.open().unwrap(), None).await;
        settle(&db).await;
        assert_eq!(db.memory().vectors, 0, "{:?}", db.memory());
        let notes = db.collection("notes").unwrap();
        assert!(recall(&notes, false, Some("group % 3 == 1"), false).await >= 0.95);
        db.close().await.unwrap();
    });
}

#[test]
fn autoindex_chooses_by_type_and_memory() {
    for (vector_type, metric, limit, magic) in [
        (r#""type":"float_vector""#, "COSINE", None, b"EDDYHNSW"),
        (r#""type":"float_vector""#, "L2", Some(300_000), b"EDDYLIST"),
        (r#""type":"float16_vector""#, "L2", None, b"EDDYLIST"),
        (r#""type":"binary_vector""#, "JACCARD", None, b"EDDYLIST"),
    ] {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(disk.open().unwrap(), limit).await;
            let notes = db.create_collection("notes", spec(vector_type, metric, r#""AUTOINDEX""#)).await.unwrap();
            let of_bits = vector_type.contains("binary");
            let rows = (0..ROWS).map(|id| row(of_bits, false, id)).collect();
            notes.insert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
            db.flush("notes").await.unwrap();
            settle(&db).await;
            assert_eq!(notes.stats().await.unwrap().rows_unindexed, 0, "{vector_type}");
            let found = recall(&notes, of_bits, None, true).await;
            assert!(found >= 0.9, "{vector_type}: {found}");
            drop(notes);
            db.close().await.unwrap();
            let storage = disk.open().unwrap();
            let files = storage.list("").await.unwrap();
            let file = files.iter().rfind(|file| file.name.contains("/index-")).unwrap();
            assert_eq!(&storage.read(&file.name, 0, 8).await.unwrap()[..], magic, "{vector_type}");
            storage.close().await.unwrap();
            // What was chosen is opened under another limit too.
            let db = open(disk.open().unwrap(), None).await;
            let notes = db.collection("notes").unwrap();
            assert_eq!(notes.stats().await.unwrap().rows_unindexed, 0, "{vector_type}");
            db.close().await.unwrap();
        });
    }
}

#[test]
fn what_a_field_cannot_have_is_refused_with_what_it_can() {
    block_on(async {
        let db = open(MemoryDisk::new().open().unwrap(), None).await;
        let refused = async |vector_type: &str, metric: &str, kind: &str, says: &[&str]| {
            let error = db.create_collection("x", spec(vector_type, metric, kind)).await.err().expect("an error");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            for says in says {
                assert!(error.message().contains(says), "{says:?} in {error}");
            }
        };
        let floats = r#""type":"float_vector""#;
        refused(floats, "L2", r#"{"IVF_FLAT":{"nlist":0}}"#, &["\"v\"", "nlist 0", "1 to 65536"]).await;
        refused(floats, "L2", r#""BIN_FLAT""#, &["BIN_FLAT", "float_vector can have", "IVF_SQ8"]).await;
        refused(floats, "HAMMING", r#"{"IVF_SQ8":{"nlist":8}}"#, &["HAMMING", "L2 or IP or COSINE"]).await;
        let pq = r#"{"IVF_PQ":{"nlist":8,"m":7,"nbits":8}}"#;
        refused(floats, "L2", pq, &["m 7", "divides the dimension 32", "nbits 4 or 8"]).await;
        refused(floats, "L2", r#"{"IVF_PQ":{"nlist":8,"m":8,"nbits":5}}"#, &["nbits 5"]).await;
        let bits = r#""type":"binary_vector""#;
        refused(bits, "HAMMING", r#"{"IVF_FLAT":{"nlist":8}}"#, &["binary_vector can have", "BIN_IVF_FLAT"]).await;
        refused(bits, "COSINE", r#""BIN_FLAT""#, &["COSINE", "HAMMING or JACCARD"]).await;
        let notes = db.create_collection("y", spec(floats, "L2", r#"{"IVF_SQ8":{"nlist":8}}"#)).await.unwrap();
        for (params, says) in [
            (SearchParams { nprobe: Some(0), ..Default::default() }, "nprobe 0"),
            (SearchParams { reorder_k: Some(0), ..Default::default() }, "reorderK 0"),
        ] {
            let error = notes.search(&SearchRequest { params, ..search(false, 1, false, None) }).await.unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
        db.close().await.unwrap();
    });
}
