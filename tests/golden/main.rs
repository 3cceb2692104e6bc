//! Files of every format of version 1, opened by this build: whole stores, archives, backups and datasets as they were written when the
//! formats were made. (The log, segments, graphs and frames of sync have golden files of their own, opened beside their code.)
//!
//! `EDDY_WRITE_GOLDEN=1 cargo test --test golden` writes them anew, which only a format that nobody has may need.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "the test reads files of the repository, and says what is wrong by its panic"
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Int64Array, RecordBatch, StringArray};
use eddydb::db::{
    Checkpoint, Db, Definition, Operation, Options, PipelineSource, PipelineSpec, PipelineState, QueryRequest,
    RowsPart, SearchRequest, SinkWrite, Target, WriteOptions, WriteRequest,
};
use eddydb::engine::{CollectionSpec, Manifest, RequestId};
use eddydb::model::{Batch, Row, Value};
use eddydb::platform::{Environment, block_on};
use eddydb::server::backup::{Source, backup, restore};
use eddydb::storage::{FileStorage, MemoryStorage, Storage};
use eddydb::stream::{self, Job, Plan};

const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
    {"name":"title","type":"varchar","maxLength":200,"nullable":true},
    {"name":"text","type":"varchar"},
    {"name":"small","type":"int16","default":7},
    {"name":"price","type":"double","nullable":true},
    {"name":"done","type":"bool"},
    {"name":"at","type":"timestamp"},
    {"name":"facts","type":"json","nullable":true},
    {"name":"tags","type":"array","elementType":"varchar","maxLength":10,"maxCapacity":4,"nullable":true},
    {"name":"embedding","type":"float_vector","dim":4},
    {"name":"half","type":"float16_vector","dim":2},
    {"name":"bits","type":"binary_vector","dim":8},
    {"name":"words","type":"sparse_float_vector"}],
    "dynamic":true,"indexes":{"embedding":{"metric":"L2","kind":{"HNSW":{"m":4,"ef_construction":20}}}}}"#;

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

/// What is stored of a pipeline.
#[test]
fn pipelines_of_version_1_are_read() {
    let plan = r#"{"nodes":[{"name":"clicks","operator":{"source":{"fields":[{"name":"page","type":"varchar"},{"name":"at","type":"timestamp"}],
        "time":"at","watermark":{"delay":5000000}}}},{"name":"minutes","inputs":["clicks"],"operator":{"aggregate":{
        "window":{"tumbling":{"size":60000000}},"keys":["page"],"aggregates":[{"name":"clicks","function":"count"}]}}},
        {"name":"out","inputs":["minutes"],"operator":{"sink":{"collection":"minutes","keys":["page","window_end"]}}}]}"#;
    let plan = Plan::from_json(plan).unwrap();
    let mut job = Job::new(plan.clone(), stream::Options::default()).unwrap();
    let relation = job.relation("clicks").unwrap().clone();
    let click = |at: i64| Row::from([("page".to_owned(), "home".into()), ("at".to_owned(), Value::Int(at))]);
    job.push("clicks", 0, b"17", &relation.batch(&[click(1_000_000), click(2_000_000)]).0, None, 0).unwrap();
    let source = PipelineSource { since: Some("now".into()), ..PipelineSource::default() };
    let spec = PipelineSpec { sources: [("clicks".to_owned(), source)].into(), ..PipelineSpec::plan(plan.clone()) };
    let definition = Definition {
        id: 77,
        name: "minutes".into(),
        spec,
        state: PipelineState::Paused,
        reason: None,
        made: vec!["minutes".into()],
    };
    let checkpoint = Checkpoint {
        number: 12,
        created_ms: 1_700_000_000_000,
        sequence: 30,
        next_rows: vec![(2, 9)],
        writes: vec![SinkWrite { node: 2, number: 30, clears: false, changes: b"changes".to_vec() }],
        job: job.checkpoint(12).unwrap(),
    };
    for (name, bytes) in [("pipeline-v1.bin", definition.encode()), ("pipeline-checkpoint-v1.bin", checkpoint.encode())]
    {
        if writes() {
            std::fs::write(path(name), &bytes).unwrap();
        }
        assert_eq!(std::fs::read(path(name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(Definition::decode(&std::fs::read(path("pipeline-v1.bin")).unwrap()).unwrap(), definition);
    let read = Checkpoint::decode(&std::fs::read(path("pipeline-checkpoint-v1.bin")).unwrap()).unwrap();
    assert_eq!(read, checkpoint);
    let (job, number) = Job::restore(plan, stream::Options::default(), &read.job).unwrap();
    assert_eq!((number, job.position("clicks", 0).unwrap()), (12, Some(&b"17"[..])));
}

/// Rows of a pipeline that wait for the application.
#[test]
fn rows_of_pipelines_of_version_1_are_read() {
    let plan = r#"{"nodes":[{"name":"clicks","operator":{"source":{"fields":[{"name":"page","type":"varchar"},{"name":"at","type":"timestamp"}]}}},
        {"name":"out","inputs":["clicks"],"operator":{"sink":{}}}]}"#;
    let relation = Plan::from_json(plan).unwrap().check().unwrap()[1].clone();
    let click = |at: i64| Row::from([("page".to_owned(), "home".into()), ("at".to_owned(), Value::Int(at))]);
    let batch = relation.batch(&[click(1_000_000), click(2_000_000)]).0;
    let bytes = RowsPart { first: 40, rows: vec![stream::Rows::new(batch, vec![1_000_000, 2_000_000])] }.encode();
    let file = path("pipeline-rows-v1.bin");
    if writes() {
        std::fs::write(&file, &bytes).unwrap();
    }
    let stored = std::fs::read(&file).unwrap();
    assert_eq!(stored, bytes);
    let read = RowsPart::decode(&stored, &relation).unwrap();
    assert_eq!((read.first, read.rows[0].to_rows(&relation)), (40, vec![click(1_000_000), click(2_000_000)]));
}

fn writes() -> bool {
    std::env::var_os("EDDY_WRITE_GOLDEN").is_some()
}

fn options() -> Options {
    Options { environment: Environment::simulated(1, 1_700_000_000_000), ..Options::default() }
}

fn spec() -> CollectionSpec {
    serde_json::from_str(SPEC).unwrap()
}

fn row(id: i64) -> Row {
    let json = |json: serde_json::Value| Value::Json(json);
    Row::from([
        ("id".to_owned(), Value::Int(id)),
        ("title".to_owned(), if id % 4 == 0 { Value::Null } else { Value::String(format!("ünder {id}")) }),
        ("text".to_owned(), Value::String(format!("row {id}: ") + &"rain on the river, ".repeat(9))),
        ("small".to_owned(), Value::Int(id % 100 - 50)),
        ("price".to_owned(), if id % 5 == 0 { Value::Null } else { Value::Double(id as f64 / 8.0) }),
        ("done".to_owned(), Value::Bool(id % 2 == 0)),
        ("at".to_owned(), Value::String(format!("2026-11-21T10:00:{:02}Z", id % 60))),
        ("facts".to_owned(), json(serde_json::json!({ "id": id, "list": [1, null, "x"] }))),
        ("tags".to_owned(), json(serde_json::json!(["a", format!("t{id}")]))),
        ("embedding".to_owned(), Value::Vector((0..4).map(|at| (id * (at + 1) % 31) as f32 / 4.0).collect())),
        ("half".to_owned(), Value::Vector(vec![id as f32 / 2.0, -0.5])),
        ("bits".to_owned(), json(serde_json::json!([id % 256]))),
        ("words".to_owned(), json(serde_json::json!({ "3": 0.5, (id + 10).to_string(): 1.0 }))),
        ("extra".to_owned(), json(serde_json::json!({ "of": id }))),
    ])
}

fn batch(spec: &CollectionSpec, ids: impl IntoIterator<Item = i64>) -> Batch {
    Batch::from_rows(&spec.schema, ids.into_iter().map(row).collect()).unwrap()
}

/// Makes the store: flushed segments with deletes beside them, a log that is not flushed, partitions, aliases, a write that may be asked
/// for again, an added field, a second collection.
async fn make(db: &Db) {
    let notes = db.create_collection("notes", spec()).await.unwrap();
    notes.insert(batch(notes.spec(), 0..60)).await.unwrap();
    db.create_alias("diary", "notes").await.unwrap();
    while db.maintain().await.unwrap() {}
    db.flush("notes").await.unwrap();
    notes.delete(Target::Filter("id % 10 == 3".to_owned())).await.unwrap();
    db.create_partition("notes", "old").await.unwrap();
    let old = WriteOptions { partition: Some("old".to_owned()), ..Default::default() };
    notes.batch(vec![Operation::Upsert(batch(notes.spec(), 50..70))], old).await.unwrap();
    db.flush("notes").await.unwrap();
    let field = serde_json::from_str(r#"{"name":"added","type":"int64","nullable":true}"#).unwrap();
    db.add_field("notes", field, None).await.unwrap();
    notes.delete(Target::Keys(vec![1.into(), 69.into()])).await.unwrap();
    let request = WriteRequest { id: RequestId { client: 5, number: 6 }, settled: 6, again: false };
    let asked = WriteOptions { request: Some(request), ..Default::default() };
    notes.batch(vec![Operation::Insert(batch(notes.spec(), 70..74))], asked).await.unwrap();
    db.create_collection("none", spec()).await.unwrap();
    db.set_ttl("none", Some(60)).await.unwrap();
}

/// The keys that [`make`] leaves.
fn ids() -> Vec<i64> {
    (0..74).filter(|id| ![1, 69].contains(id) && (*id >= 50 || id % 10 != 3)).collect()
}

/// Looks at everything that [`make`] made.
async fn check(db: &Db, partitions: &[&str]) {
    let names: Vec<String> = db.collections().iter().map(|collection| collection.name().to_owned()).collect();
    assert_eq!(names, ["none", "notes"]);
    assert_eq!(db.aliases(), [("diary".to_owned(), "notes".to_owned())]);
    assert_eq!(db.collection("none").unwrap().spec().schema.ttl_seconds(), Some(60));
    let notes = db.collection("diary").unwrap();
    assert_eq!(notes.partitions(), partitions);
    let fields = Some(vec!["*".to_owned()]);
    let found = notes.query(&QueryRequest { output_fields: fields.clone(), ..Default::default() }).await.unwrap();
    let keys: Vec<i64> = found.iter().map(|row| if let Value::Int(id) = row["id"] { id } else { -1 }).collect();
    assert_eq!(keys, ids());
    // As the same rows are, written and read by this build.
    let fresh = Db::open(Arc::new(MemoryStorage::new()), options()).await.unwrap();
    let same = fresh.create_collection("notes", spec()).await.unwrap();
    same.insert(batch(same.spec(), ids())).await.unwrap();
    let expected = same.query(&QueryRequest { output_fields: fields, ..Default::default() }).await.unwrap();
    for (found, expected) in found.iter().zip(expected) {
        let mut found = found.clone();
        assert_eq!(found.remove("added"), Some(Value::Null));
        assert_eq!(found, expected);
    }
    let old = notes.count_within(None, &["old".to_owned()]).await.unwrap();
    assert_eq!(old, 19);
    for exact in [false, true] {
        let request = SearchRequest {
            field: Some("embedding".to_owned()),
            vector: Value::Vector(vec![1.0, 2.0, 3.0, 4.0]),
            limit: 5,
            offset: 0,
            filter: None,
            partitions: Vec::new(),
            output_fields: None,
            ef: None,
            params: Default::default(),
            exact,
            ..Default::default()
        };
        let hits = notes.search(&request).await.unwrap().hits;
        assert_eq!(hits.len(), 5);
    }
    // The answer to a write of another time.
    let request = WriteRequest { id: RequestId { client: 5, number: 6 }, settled: 6, again: true };
    let again = WriteOptions { request: Some(request), ..Default::default() };
    let written = notes.batch(vec![Operation::Insert(batch(notes.spec(), 70..74))], again).await;
    assert_eq!(written.unwrap().count, 4);
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// A directory as `eddy` leaves it when it dies: manifest and copy, log, segments, and the claim of the process that was.
#[test]
fn a_store_of_version_1_is_opened() {
    let golden = path("store-v1");
    let claim = ".lock.4000000-77-00000000000000aa-00000000000000bb";
    if writes() {
        let _ = std::fs::remove_dir_all(&golden);
        std::fs::create_dir_all(&golden).unwrap();
        let directory = tempfile::tempdir().unwrap();
        block_on(async {
            let db = Db::open(Arc::new(FileStorage::open(directory.path()).unwrap()), options()).await.unwrap();
            make(&db).await;
            // Not closed, which would flush the log away.
            copy(directory.path(), &golden);
        });
        for entry in std::fs::read_dir(&golden).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name == "LOCK" || name.starts_with(".lock.") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        std::fs::write(golden.join(claim), []).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    copy(&golden, directory.path());
    block_on(async {
        let db = Db::open(Arc::new(FileStorage::open(directory.path()).unwrap()), options()).await.unwrap();
        assert!(!directory.path().join(claim).exists(), "the process of that claim is gone");
        check(&db, &["_default", "old"]).await;
        db.close().await.unwrap();
    });
}

#[test]
fn a_manifest_of_version_1_is_read() {
    let golden = path("manifest-v1.bin");
    if writes() {
        block_on(async {
            let db = Db::open(Arc::new(MemoryStorage::new()), options()).await.unwrap();
            make(&db).await;
            std::fs::write(&golden, db.snapshot().await.unwrap().manifest().encode()).unwrap();
        });
    }
    let bytes = std::fs::read(golden).unwrap();
    let manifest = Manifest::decode(&bytes).unwrap().unwrap();
    let notes = &manifest.collections[0];
    assert!(notes.merges.is_none() && notes.spec.options.merge_policy.is_none(), "it is older than both");
    assert_eq!((notes.name.as_str(), notes.segments.len()), ("notes", 3));
    assert_eq!(notes.segments.iter().map(|segment| segment.rows).sum::<u64>(), 84);
    assert_eq!(notes.spec.schema.fields().last().unwrap().name, "added");
    assert!(notes.partitions.contains("old"));
    assert!(notes.progress.answers.find(RequestId { client: 5, number: 6 }).is_some());
    assert_eq!(manifest.aliases["diary"], notes.id);
    // What this build writes of it is the same, byte for byte.
    assert_eq!(manifest.encode(), bytes);
}

#[test]
fn an_archive_of_version_1_is_imported() {
    let golden = path("archive-v1.eddy");
    if writes() {
        block_on(async {
            let db = Db::open(Arc::new(MemoryStorage::new()), options()).await.unwrap();
            make(&db).await;
            let mut pieces = db.snapshot().await.unwrap().into_archive(|_| false);
            let mut bytes = Vec::new();
            while let Some(piece) = pieces.next().await.unwrap() {
                bytes.extend(piece);
            }
            std::fs::write(&golden, bytes).unwrap();
        });
    }
    block_on(async {
        let db = Db::open(Arc::new(MemoryStorage::new()), options()).await.unwrap();
        let names = db.import_archive(std::fs::read(golden).unwrap().into()).await.unwrap();
        assert_eq!(names, ["notes", "none"]);
        assert_eq!(db.collection("notes").unwrap().count(None).await.unwrap(), ids().len());
    });
}

#[test]
fn a_backup_of_version_1_is_restored() {
    let golden = path("backup-v1");
    if writes() {
        let _ = std::fs::remove_dir_all(&golden);
        block_on(async {
            let db = Db::open(Arc::new(MemoryStorage::new()), options()).await.unwrap();
            make(&db).await;
            let directory = tempfile::tempdir().unwrap();
            let storage = FileStorage::open(directory.path()).unwrap();
            backup(&Source::Snapshot(&db.snapshot().await.unwrap()), &storage, None).await.unwrap();
            storage.close().await.unwrap();
            std::fs::create_dir_all(&golden).unwrap();
            copy(directory.path(), &golden);
            let _ = std::fs::remove_file(golden.join("LOCK"));
        });
    }
    let directory = tempfile::tempdir().unwrap();
    copy(&golden, directory.path());
    block_on(async {
        let target = Arc::new(MemoryStorage::new());
        restore(&FileStorage::open(directory.path()).unwrap(), None, Some(&*target)).await.unwrap();
        check(&Db::open(target, options()).await.unwrap(), &["_default", "old"]).await;
    });
}

#[test]
fn a_dataset_of_version_1_is_loaded() {
    let golden = path("dataset-v1.arrow");
    if writes() {
        let vectors = [Some(vec![Some(1i8), Some(-2)]), Some(vec![Some(3), Some(4)])];
        let item = arrow_schema::DataType::FixedSizeList(
            Arc::new(arrow_schema::Field::new("item", arrow_schema::DataType::Int8, true)),
            2,
        );
        let metadata = HashMap::from([("eddy.normalized".to_owned(), "true".to_owned())]);
        let fields = vec![
            arrow_schema::Field::new("id", arrow_schema::DataType::Int64, false),
            arrow_schema::Field::new("name", arrow_schema::DataType::Utf8, false),
            arrow_schema::Field::new("v", item, false).with_metadata(metadata),
        ];
        let spec = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
            {"name":"name","type":"varchar"},{"name":"v","type":"float_vector","dim":2}],
            "indexes":{"v":{"metric":"IP","kind":"FLAT"}}}"#;
        let metadata = [("eddy.spec", spec), ("eddy.origin", "12"), ("eddy.timestamp", "445644800000000")];
        let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let schema = Arc::new(arrow_schema::Schema::new_with_metadata(fields, metadata));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 2])),
            Arc::new(StringArray::from(vec!["a", "b"])),
            Arc::new(FixedSizeListArray::from_iter_primitive::<arrow_array::types::Int8Type, _, _>(vectors, 2)),
        ];
        let mut file = Vec::new();
        let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut file, &schema).unwrap();
        writer.write(&RecordBatch::try_new(schema.clone(), columns).unwrap()).unwrap();
        writer.finish().unwrap();
        drop(writer);
        std::fs::write(&golden, file).unwrap();
    }
    block_on(async {
        let db = Db::open(Arc::new(MemoryStorage::new()), options()).await.unwrap();
        let bytes = std::fs::read(golden).unwrap();
        let words = db.load_dataset("words", bytes.into(), |_, _| {}).await.unwrap();
        let fields = Some(["id", "v", "$version"].map(str::to_owned).to_vec());
        let rows = words.get(&[2.into()], fields.as_deref()).await.unwrap();
        let (found, expected) = (&rows[0]["v"], Value::Vector(vec![0.6, 0.8]));
        assert_eq!(found, &expected);
        assert_eq!(rows[0]["$version"], Value::String("1954fc4000000-c-1".to_owned()));
    });
}
