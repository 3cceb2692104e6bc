//! What the fuzzer found and keeps, once more through the same functions: the corpus, and every input that was ever wrong.
//!
//! `EDDY_WRITE_FUZZ_SEEDS=1 cargo test --test fuzz` writes the inputs that fuzzing begins with anew, from files as they are written now.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "the test reads files of the repository, and names the one that is wrong"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Float32Array, Int64Array, RecordBatch, StringArray};
use eddydb::base::compress::Codec;
use eddydb::base::{CollectionId, Lsn, ReplicaId, SegmentId, Sequence, Timestamp, Version};
use eddydb::db::{Db, Options, Target};
use eddydb::engine::{ChangeSet, CollectionSpec, Manifest, Record, RequestId, Source, SyncPosition};
use eddydb::model::{Batch, Row, Schema, Value};
use eddydb::platform::{Environment, block_on};
use eddydb::segment::{Segment, Tombstone, encode};
use eddydb::storage::MemoryStorage;
use eddydb::sync::{
    Capabilities, Channel, Fetch, Hello, HelloCollection, Message, Offer, Piece, Pull, PullAck, Push, PushAck,
    StartPull, Welcome, WelcomeCollection,
};
use eddydb::wal;

#[path = "../../fuzz/targets.rs"]
mod targets;

fn directory(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", name].iter().collect()
}

/// The files of `fuzz/KIND/TARGET`, by name.
fn inputs(kind: &str, target: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory(kind).join(target)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// One test a target, so that one that fails does not hide the others.
fn replay(target: &str) {
    let (_, run) = targets::TARGETS.iter().find(|(name, _)| *name == target).unwrap();
    let kept = inputs("corpus", target);
    assert!(!kept.is_empty(), "no corpus in fuzz/corpus/{target}");
    for path in kept.into_iter().chain(inputs("found", target)) {
        let bytes = std::fs::read(&path).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| run(&bytes)) {
            eprintln!("the input is {}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
}

macro_rules! replays {
    ($($target:ident)*) => {
        mod replayed {
            $(#[test] fn $target() { super::replay(stringify!($target)); })*
        }

        #[test]
        fn every_target_is_replayed() {
            let names: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($target)),*]);
        }
    };
}

replays! { archive arrow csv filter jsonl log manifest npy parquet pipeline segment sync terms }

#[test]
fn what_is_kept_is_small() {
    let bytes = |(target, _): &(&str, targets::Target)| -> u64 {
        let inputs = inputs("corpus", target).into_iter().chain(inputs("found", target));
        inputs.map(|path| path.metadata().unwrap().len()).sum()
    };
    let all: u64 = targets::TARGETS.iter().map(bytes).sum();
    assert!(all <= 1 << 20, "{all} bytes of corpus");
}

/// Writes what fuzzing begins with.
#[test]
fn seeds_are_written_when_asked_for() {
    if std::env::var_os("EDDY_WRITE_FUZZ_SEEDS").is_none() {
        return;
    }
    for (target, seeds) in seeds() {
        std::fs::create_dir_all(directory("corpus").join(target)).unwrap();
        for (name, bytes) in seeds {
            std::fs::write(directory("corpus").join(target).join(name), bytes).unwrap();
        }
    }
}

type Seeds = BTreeMap<&'static str, Vec<(String, Vec<u8>)>>;

fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    let mut add = |target, name: &str, bytes: Vec<u8>| {
        seeds.entry(target).or_default().push((format!("seed-{name}"), bytes));
    };
    let golden =
        |name: &str| std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)).unwrap();

    let (manifest, archive) = store();
    add("manifest", "whole", manifest);
    add("archive", "whole", archive);

    add("log", "golden", golden("log-v1.bin"));
    add("pipeline", "definition", golden("pipeline-v1.bin"));
    add("pipeline", "checkpoint", golden("pipeline-checkpoint-v1.bin"));
    add("terms", "text", golden("terms-v1-text.bin"));
    add("terms", "weights", golden("terms-v1-weights.bin"));
    add("log", "frames", log());

    for codec in Codec::ALL {
        add("segment", codec.as_str(), targets::join_files(&encode(&segment(20), codec)));
    }
    add("segment", "empty", targets::join_files(&encode(&segment(0), Codec::Zstd)));

    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sync")).unwrap() {
        let entry = entry.unwrap();
        add(
            "sync",
            entry.file_name().to_str().unwrap().trim_end_matches(".v1.bin"),
            std::fs::read(entry.path()).unwrap(),
        );
    }
    add("sync", "session", session(false));
    add("sync", "seeded", session(true));

    for (number, text) in [
        "id in [1, 2] and price > 1.5",
        "name like 'n%' or not ok",
        "exists extra[\"a\"] and extra[\"b\"] == true",
        "json_contains(facts[\"a\"][\"b\"], 1) && array_contains(tags, \"x\")",
        "at > iso \"2026-11-21T00:00:00Z\" - interval \"P1D\"",
        "1 < n <= 5 and (n & 3) << 2 == {p} ** 2",
        "extra[\"a\"][0] + 1.5 >= n and tags == [\"x\", \"1\"]",
        "price is null or $meta['extra'] is not null",
        "array_length(tags) == 2 and name not in ['a', {q}] and n in {list}",
    ]
    .iter()
    .enumerate()
    {
        add("filter", &number.to_string(), text.as_bytes().to_vec());
    }

    let csv =
        "id,name,price,ok,v,facts\n1,\"a \"\"b\"\", c\",1.5,true,\"[1, 2]\",\"{\"\"a\"\": 1}\"\n2,,-3,false,1 2,\n";
    add("csv", "quoted", csv.into());
    add("csv", "plain", "\u{feff}key,First name,7\r\nx,y,2026-11-21\r\n".into());
    let jsonl = "{\"id\":1,\"name\":\"a\",\"v\":[1,2.5],\"facts\":{\"a\":[null]}}\n\n{\"id\":2,\"n\":9007199254740993,\"ok\":true,\"v\":[0,1]}\n";
    add("jsonl", "rows", jsonl.into());
    add(
        "jsonl",
        "text-keys",
        "{\"key\":\"x\",\"name\":null,\"v\":[1]}\n{\"key\":\"y\",\"at\":\"2026-11-21T10:00:00Z\"}\n".into(),
    );

    let batch = columns();
    let mut stream = Vec::new();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut stream, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    add("arrow", "stream", stream);
    let mut file = Vec::new();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.write(&batch.slice(1, 1)).unwrap();
    writer.finish().unwrap();
    drop(writer);
    add("arrow", "file", file);
    let rows = encode(&segment(8), Codec::Lz4).swap_remove(0).bytes.to_vec();
    add("arrow", "rows-of-a-segment", rows);

    use parquet::basic::{Compression, ZstdLevel};
    for (name, compression) in [
        ("plain", Compression::UNCOMPRESSED),
        ("snappy", Compression::SNAPPY),
        ("zstd", Compression::ZSTD(ZstdLevel::default())),
    ] {
        let properties = parquet::file::properties::WriterProperties::builder().set_compression(compression).build();
        let mut file = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        add("parquet", name, file);
    }

    for (name, version, element, len) in [("f4", 1u8, "<f4", 4), ("f8", 2, "<f8", 8), ("f2", 3, "<f2", 2)] {
        let mut header = format!("{{'descr': '{element}', 'fortran_order': False, 'shape': (3, 2), }}");
        header += &" ".repeat(64 - (header.len() + 13) % 64);
        header.push('\n');
        let mut bytes = b"\x93NUMPY".to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend((0..6 * len).map(|byte| if byte % len == len - 1 { 0x3c } else { 0 }));
        add("npy", name, bytes);
    }
    seeds
}

const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
    {"name":"text","type":"varchar","maxLength":1000,"nullable":true},
    {"name":"embedding","type":"float_vector","dim":2}]}"#;

fn spec() -> CollectionSpec {
    serde_json::from_str::<CollectionSpec>(SPEC).unwrap().completed().unwrap()
}

fn row(id: i64) -> Row {
    Row::from([
        ("id".to_owned(), Value::Int(id)),
        ("text".to_owned(), if id % 5 == 4 { Value::Null } else { Value::String(format!("{id} ").repeat(40)) }),
        ("embedding".to_owned(), Value::Vector(vec![id as f32, -0.5])),
    ])
}

fn batch(schema: &Arc<Schema>, ids: std::ops::Range<i64>) -> Batch {
    Batch::from_rows(schema, ids.map(row).collect()).unwrap()
}

fn version(sequence: u64) -> Version {
    Version { timestamp: Timestamp::new(1_700_000_000_000, 3), origin: ReplicaId(2), sequence: Sequence(sequence) }
}

/// The manifest and the archive of a small store.
fn store() -> (Vec<u8>, Vec<u8>) {
    let environment = Environment::simulated(1, 1_700_000_000_000);
    let options = Options { environment, ..Options::default() };
    block_on(async {
        let db = Db::open(Arc::new(MemoryStorage::new()), options).await.unwrap();
        let notes = db.create_collection("notes", spec()).await.unwrap();
        notes.insert(batch(&spec().schema, 0..6)).await.unwrap();
        notes.delete(Target::Keys(vec![3.into()])).await.unwrap();
        db.create_collection("none", spec()).await.unwrap();
        db.create_alias("other", "notes").await.unwrap();
        let snapshot = db.snapshot().await.unwrap();
        let mut archive = Vec::new();
        let manifest = snapshot.manifest().encode();
        let mut pieces = snapshot.into_archive(|_| false);
        while let Some(piece) = pieces.next().await.unwrap() {
            archive.extend(piece);
        }
        (manifest, archive)
    })
}

fn segment(rows: i64) -> Segment {
    let CollectionSpec { schema, indexes, .. } = spec();
    let mut segment = Segment::new(SegmentId(7), &schema, &indexes);
    let batch = batch(&schema, 0..rows);
    segment.push(&batch, &vec![version(1); batch.len()], Lsn(1));
    segment.index_some(rows as usize, None);
    segment.deletes.push(Tombstone { key: (-5).into(), version: version(9), lsn: Lsn(9) });
    segment
}

fn changes() -> ChangeSet {
    let puts = batch(&spec().schema, 0..3);
    let put_versions = (4..7).map(version).collect();
    ChangeSet { puts, put_versions, deletes: vec![(9.into(), version(7))] }
}

fn log() -> Vec<u8> {
    let position = SyncPosition { pushed: Sequence(4), pulled: Lsn(3) };
    let records = [
        Record::Changes { from: Source::Client(RequestId { client: 5, number: 6 }), changes: changes() },
        Record::Position { hub: ReplicaId(1), position },
        Record::Changes { from: Source::Hub { hub: ReplicaId(1), pulled: Lsn(8), late: false }, changes: changes() },
    ];
    let mut bytes = wal::encode_header(CollectionId(7), 3);
    for (place, record) in (0..).zip(&records) {
        let body = wal::Body::pack(record.encode_rows());
        wal::encode_frame(&mut bytes, Lsn(20 + u64::from(place)), place, record.kind(), &record.encode_head(), &body);
    }
    bytes
}

/// Frames of both sides, one after the other: each side takes those in that are for it.
fn session(by_segments: bool) -> Vec<u8> {
    let (channel, error) = (Channel(0), None);
    let messages = [
        Message::Hello(Hello {
            replica: ReplicaId(2),
            capabilities: Capabilities::ALL,
            collections: vec![HelloCollection { name: "notes".into(), spec: Some(SPEC.into()), part: None }],
        }),
        Message::Start(StartPull {
            channel,
            pulled: Lsn(2),
            known: BTreeMap::from([(ReplicaId(1), Sequence(3))]),
            reshape: None,
        }),
        Message::Push(Push {
            channel,
            origin: ReplicaId(2),
            after: Sequence(4),
            through: Sequence(7),
            changes: changes().encode(),
        }),
        Message::PullAck(PullAck { channel, lsn: Lsn(4) }),
        Message::Ping,
        Message::Ask,
    ];
    let seeded = [
        Message::Hello(Hello {
            replica: ReplicaId(2),
            capabilities: Capabilities::ALL,
            collections: vec![HelloCollection { name: "notes".into(), spec: Some(SPEC.into()), part: None }],
        }),
        Message::Welcome(Welcome {
            replica: ReplicaId(1),
            capabilities: Capabilities::SEGMENTS,
            collections: vec![WelcomeCollection {
                acknowledged: Sequence(3),
                incarnation: 1,
                spec: None,
                part: None,
                error: None,
            }],
        }),
        Message::Start(StartPull { channel, pulled: Lsn(0), known: BTreeMap::new(), reshape: None }),
        Message::Offer(Offer { channel, segments: offer(), files: None }),
        Message::Fetch(Fetch { channel, file: 0, offset: 0, len: 3 }),
        Message::Piece(Piece { channel, file: 0, offset: 0, bytes: vec![1, 2, 3] }),
        Message::Start(StartPull { channel, pulled: Lsn(2), known: BTreeMap::new(), reshape: None }),
    ];
    let answers = [
        Message::Welcome(Welcome {
            replica: ReplicaId(1),
            capabilities: Capabilities::ALL,
            collections: vec![WelcomeCollection {
                acknowledged: Sequence(3),
                incarnation: 1,
                spec: None,
                part: None,
                error: None,
            }],
        }),
        Message::PushAck(PushAck { channel, through: Sequence(4), error }),
        Message::Pull(Pull {
            channel,
            lsn: Lsn(5),
            caught_up: true,
            seen: BTreeMap::from([(ReplicaId(3), Sequence(2))]),
            changes: changes().encode(),
            part: None,
        }),
    ];
    let mut bytes = vec![0];
    let alternating =
        messages.iter().zip(answers.iter().map(Some).chain(std::iter::repeat(None))).flat_map(|(a, b)| [Some(a), b]);
    for message in if by_segments { seeded.iter().collect::<Vec<_>>() } else { alternating.flatten().collect() } {
        let frame = message.encode().unwrap();
        bytes.extend((frame.len() as u16).to_le_bytes());
        bytes.extend(frame);
    }
    bytes
}

/// What a hub says of two segments.
fn offer() -> Vec<u8> {
    let manifest = Manifest::decode(&store().0).unwrap().unwrap();
    rmp_serde::to_vec_named(&manifest.collections[0]).unwrap()
}

/// Columns of many types, as other tools write them.
fn columns() -> RecordBatch {
    use arrow_array::types::{Float32Type, Int32Type};
    use arrow_array::{
        ArrayRef, BooleanArray, Date32Array, DictionaryArray, FixedSizeListArray, ListArray, StructArray,
        TimestampMillisecondArray,
    };
    let vectors = [Some(vec![Some(1.0), Some(2.0)]), Some(vec![Some(0.5), Some(-1.0)])];
    let lists = [Some(vec![Some(1), None]), None];
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, 8]));
    let columns: [(&str, ArrayRef); 9] = [
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("key", Arc::new(StringArray::from(vec!["a", "b"]))),
        ("embedding", Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vectors, 2))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists))),
        ("ok", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("day", Arc::new(Date32Array::from(vec![1, 20_000]))),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![Some(1), None]).with_timezone("UTC"))),
        ("word", Arc::new(DictionaryArray::<Int32Type>::from_iter([Some("x"), None]))),
        ("parts", Arc::new(StructArray::try_from(vec![("n", numbers)]).unwrap())),
    ];
    let nested: ArrayRef = Arc::new(Float32Array::from(vec![Some(1.0), None]));
    RecordBatch::try_from_iter(columns.into_iter().chain([("score", nested)])).unwrap()
}
