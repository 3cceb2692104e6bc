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

/// Indexes of places in JSON, of the dynamic field and of arrays admit what looking at the rows admits, whatever the values are:
/// while rows are taken, in storage, opened again, merged, and made later than the rows.
#[test]
fn indexes_of_json_and_arrays_change_no_answer() {
    use serde_json::{Value as Json, json};

    const FIELDS: &str = r#""fields":[{"name":"id","type":"int64","primaryKey":true},
        {"name":"meta","type":"json","nullable":true},{"name":"v","type":"float_vector","dim":1},
        {"name":"tags","type":"array","elementType":"varchar","maxLength":20,"maxCapacity":9,"nullable":true},
        {"name":"nums","type":"array","elementType":"int32","maxCapacity":9}],"dynamic":true"#;
    const PLACES: [&str; 6] = ["meta['a']", "meta[\"b\"][\"c\"]", "meta['l'][1]", "tags", "nums", "color"];
    let mut random = crate::base::Random::new(17);
    let mut below = |bound: usize| random.below(bound as u64) as usize;
    let scalars = [
        json!(true),
        json!(false),
        json!(0),
        json!(-3),
        json!(2),
        json!(2.0),
        json!(2.5),
        json!(-0.0),
        json!(1e300),
        json!(9007199254740992i64),
        json!(9007199254740993i64),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e19),
        json!(""),
        json!("a"),
        json!("ab"),
        json!("a\u{10ffff}"),
        json!("b"),
        json!("true"),
        json!("2"),
        json!(null),
    ];
    let any = |below: &mut dyn FnMut(usize) -> usize| -> Json {
        match below(6) {
            0 => Json::Array((0..below(4)).map(|_| scalars[below(scalars.len())].clone()).collect()),
            1 => json!({"c": scalars[below(scalars.len())]}),
            2 => json!([[1, "a"], scalars[below(scalars.len())], {"x": 1}]),
            _ => scalars[below(scalars.len())].clone(),
        }
    };
    let rows: Vec<Row> = (0..600i64)
        .map(|id| {
            let mut row = Row::from([("id".to_owned(), Value::Int(id)), ("v".to_owned(), Value::Vector(vec![1.0]))]);
            let mut meta = serde_json::Map::new();
            for key in ["a", "b", "l"] {
                if below(5) > 0 {
                    meta.insert(key.to_owned(), any(&mut below));
                }
            }
            match below(12) {
                0 => {}
                1 => drop(row.insert("meta".to_owned(), Value::Json(any(&mut below)))),
                _ => drop(row.insert("meta".to_owned(), Value::Json(meta.into()))),
            }
            if below(4) > 0 {
                row.insert("color".to_owned(), Value::Json(any(&mut below)));
            }
            if below(6) > 0 {
                let tags = (0..below(4)).map(|_| Value::from(["a", "ab", "b", ""][below(4)])).collect();
                row.insert("tags".to_owned(), Value::Array(tags));
            }
            let nums = (0..below(4)).map(|_| Value::Int(below(5) as i64 - 2)).collect();
            row.insert("nums".to_owned(), Value::Array(nums));
            row
        })
        .collect();
    let mut filters: Vec<String> = Vec::new();
    for place in ["meta['a']", "meta['b']['c']", "meta['l'][1]", "color"] {
        for literal in ["2", "2.0", "2.5", "-3", "9007199254740993", "9007199254740992.0", "1e19", "'a'", "''", "'2'"] {
            for sign in ["==", "!=", "<", "<=", ">", ">="] {
                filters.push(format!("{place} {sign} {literal}"));
            }
        }
        for rest in [
            "== true",
            "!= false",
            "in [2, 'a', true]",
            "in ['ab']",
            "not in [0, -3]",
            "in [2, [1]]",
            "like 'a%'",
            "like '%b'",
            "is null",
            "is not null",
            "=~ '^a'",
            "== [1, 'a']",
        ] {
            filters.push(format!("{place} {rest}"));
            filters.push(format!("not ({place} {rest})"));
        }
        filters.push(format!("exists {place}"));
        filters.push(format!("{place} > 0 and id < 300 or {place} == 'b'"));
        filters.push(format!("{place} + 1 > 2"));
        for list in ["[2, 'a']", "[]", "[true]", "[[1, 'a']]", "[2.0]"] {
            filters.push(format!("json_contains_all({place}, {list})"));
            filters.push(format!("not json_contains_any({place}, {list})"));
        }
        filters.push(format!("json_contains({place}, 2)"));
        filters.push(format!("array_length({place}) == 2"));
    }
    for filter in [
        "array_contains(tags, 'ab')",
        "not array_contains(tags, 'a')",
        "array_contains_all(tags, ['a', 'b'])",
        "array_contains_any(tags, ['a', ''])",
        "tags is null",
        "tags[0] == 'a'",
        "array_length(tags) > 1",
        "array_contains(nums, -2)",
        "array_contains_all(nums, [])",
        "array_contains_any(nums, [0, 2])",
        "tags == ['a', 'b']",
    ] {
        filters.push(filter.to_owned());
    }
    let matching = async |collection: &Collection, filter: &str| {
        let request = QueryRequest {
            filter: Some(filter.to_owned()),
            output_fields: Some(vec!["id".to_owned()]),
            ..QueryRequest::default()
        };
        let rows = collection.query(&request).await.map_err(|error| error.message().to_owned())?;
        Ok::<Vec<Value>, String>(rows.iter().map(|row| row["id"].clone()).collect())
    };
    block_on(async {
        let disk = MemoryDisk::new();
        let mut db = Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap();
        let indexes: Vec<String> = PLACES
            .iter()
            .map(|place| format!("{}:{{\"kind\":\"INVERTED\"}}", serde_json::to_string(place).unwrap()))
            .collect();
        for (name, spec) in [
            ("plain", format!("{{{FIELDS}}}")),
            ("indexed", format!("{{{FIELDS},\"indexes\":{{{}}}}}", indexes.join(","))),
            ("later", format!("{{{FIELDS}}}")),
        ] {
            let collection = db.create_collection(name, serde_json::from_str(&spec).unwrap()).await.unwrap();
            for (at, part) in rows.chunks(130).enumerate() {
                let batch = Batch::from_rows(&collection.spec().schema, part.to_vec()).unwrap();
                collection.upsert(batch).await.unwrap();
                if at % 2 == 1 {
                    db.flush(name).await.unwrap();
                }
            }
            collection.delete(Target::Filter("id % 17 == 3".to_owned())).await.unwrap();
        }
        for place in PLACES {
            let index = serde_json::from_str(r#"{"kind":"BITMAP"}"#).unwrap();
            db.create_index("later", place, index).await.unwrap();
        }
        let mut answered = 0;
        for state in ["written", "built", "opened", "merged", "opened again"] {
            match state {
                "built" => while db.maintain().await.unwrap() {},
                "opened" | "opened again" => {
                    db.close().await.unwrap();
                    db = Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap();
                }
                "merged" => db.compact_all().await.unwrap(),
                _ => {}
            }
            let [plain, indexed, later] = ["plain", "indexed", "later"].map(|name| db.collection(name).unwrap());
            for filter in &filters {
                let expected = matching(&plain, filter).await;
                assert_eq!(matching(&indexed, filter).await, expected, "{filter}, {state}");
                assert_eq!(matching(&later, filter).await, expected, "{filter}, {state}, made later");
                let parsed = crate::query::Filter::parse(filter, &indexed.spec().schema);
                let state = indexed.inner.state.read().unwrap();
                let slot = state.slots().next().unwrap();
                answered += parsed.map_or(0, |parsed| {
                    usize::from(!parsed.ask(&|column, steps| slot.segment.terms_at(column, steps)).is_empty())
                });
            }
        }
        assert!(answered > 5 * filters.len() * 3 / 4, "{answered} of {} were asked of indexes", 5 * filters.len());
        let spec = db.collection("indexed").unwrap().spec().clone();
        assert!(spec.indexes.contains_key("$meta[\"color\"]") && spec.indexes.contains_key("meta[\"a\"]"));
        for (place, kind) in
            [("meta['a'", "INVERTED"), ("tags[0]", "INVERTED"), ("meta['a']", "STL_SORT"), ("$x", "INVERTED")]
        {
            let index = serde_json::from_str(&format!("{{\"kind\":\"{kind}\"}}")).unwrap();
            let error = db.create_index("plain", place, index).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{place}");
        }
        db.drop_index("later", "meta[\"a\"]").await.unwrap();
        assert_eq!(db.drop_index("later", "meta['a']").await.unwrap_err().kind(), ErrorKind::NotFound);
    });
}
