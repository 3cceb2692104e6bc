//! What is fuzzed: a function for everything that reads bytes or text from outside. Each says by panicking that something is wrong;
//! an error is the right answer to most inputs. `fuzz/main.rs` hands them to libFuzzer, `tests/fuzz` gives them what was found before.
//!
//! A checksum stops a fuzzer at once, so what has checksums is read twice: as it came, and with those put right that can be.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use eddydb::base::codec::{checksum, checksum_append};
use eddydb::base::{CollectionId, Error, ErrorKind, Lsn, ReplicaId, SegmentId, Sequence, Timestamp, message};
use eddydb::db::{Checkpoint, Definition, PushStreamDefinition};
use eddydb::engine::{ChangeSet, CollectionManifest, CollectionSpec, Manifest, Record, archive};
use eddydb::index::terms::{Bm25, Matching, Payload, Source, Terms, TextMatch, Weighted, top};
use eddydb::index::{SearchParams, VectorIndex};
use eddydb::model::text::Analyzer;
use eddydb::model::{Batch, Row, Schema, Value};
use eddydb::query::Filter;
use eddydb::segment::{self, FileKind, StoredFile};
use eddydb::server::import::{Format, Plan, rehearse};
use eddydb::stream::{Job, Piece};
use eddydb::sync::{
    Changes, Channel, Client, ClientAction, ClientCollection, ClientInput, Hub, HubAction, HubInput, HubOptions, Item,
    Items, Message, Opened, OwnChanges, RANGES_BYTES, Relay, Start, Want,
};
use eddydb::wal;

/// Reads an input, and panics when what comes of it cannot be.
pub type Target = fn(&[u8]);

/// By name.
pub const TARGETS: &[(&str, Target)] = &[
    ("archive", read_archive),
    ("arrow", |bytes| import(bytes, Format::Arrow, "arrow")),
    ("csv", |bytes| import(bytes, Format::Csv, "csv")),
    ("filter", filter),
    ("jsonl", |bytes| import(bytes, Format::Jsonl, "jsonl")),
    ("log", log),
    ("manifest", manifest),
    ("npy", npy),
    ("parquet", |bytes| import(bytes, Format::Parquet, "parquet")),
    ("pipeline", pipeline),
    ("segment", read_segment),
    ("sync", sync),
    ("terms", read_terms),
];

/// What is wrong with bytes is one of these; `Internal` would be our own mistake.
fn understood(error: &Error) {
    assert!(
        !matches!(error.kind(), ErrorKind::Internal | ErrorKind::Closed | ErrorKind::Locked | ErrorKind::StorageFull),
        "{:?}: {error}",
        error.kind()
    );
}

/// What is stored of a pipeline: its definition, a checkpoint, and in it the state of a job and writes for sinks. And of a push stream: its
/// definition, and rows.
fn pipeline(bytes: &[u8]) {
    let mended = |bytes: &[u8]| {
        let body = &bytes[..bytes.len().saturating_sub(4)];
        [body, &checksum(body).to_le_bytes()].concat()
    };
    match Piece::decode(bytes) {
        Ok(piece) => assert_eq!(Piece::decode(&piece.encode()).map(|again| again.encode()), Ok(piece.encode())),
        Err(error) => understood(&error),
    }
    for bytes in [bytes.to_vec(), mended(bytes)] {
        match PushStreamDefinition::decode(&bytes) {
            Ok(definition) => {
                assert_eq!(PushStreamDefinition::decode(&definition.encode()).as_ref(), Ok(&definition));
            }
            Err(error) => understood(&error),
        }
        match Definition::decode(&bytes) {
            Ok(definition) => {
                assert_eq!(Definition::decode(&definition.encode()).as_ref(), Ok(&definition));
                if let Some(plan) = &definition.spec.plan {
                    drop(plan.check());
                }
            }
            Err(error) => understood(&error),
        }
        match Checkpoint::decode(&bytes) {
            Ok(checkpoint) => {
                assert_eq!(checkpoint.encode(), bytes);
                for write in &checkpoint.writes {
                    if let Err(error) = ChangeSet::decode(&spec().schema, &write.changes) {
                        understood(&error);
                    }
                }
                for job in [checkpoint.job.clone(), mended(&checkpoint.job)] {
                    if let Err(error) = Job::restore(job_plan(), eddydb::stream::Options::default(), &job) {
                        understood(&error);
                    }
                }
            }
            Err(error) => understood(&error),
        }
    }
}

/// The plan whose checkpoint the corpus begins with.
fn job_plan() -> eddydb::stream::Plan {
    let text = r#"{"nodes":[{"name":"clicks","operator":{"source":{"fields":[{"name":"page","type":"varchar"},{"name":"at","type":"timestamp"}],
        "time":"at","watermark":{"delay":5000000}}}},{"name":"minutes","inputs":["clicks"],"operator":{"aggregate":{
        "window":{"tumbling":{"size":60000000}},"keys":["page"],"aggregates":[{"name":"clicks","function":"count"}]}}},
        {"name":"out","inputs":["minutes"],"operator":{"sink":{"collection":"minutes","keys":["page","window_end"]}}}]}"#;
    eddydb::stream::Plan::from_json(text).expect("a plan")
}

fn spec() -> &'static CollectionSpec {
    static SPEC: OnceLock<CollectionSpec> = OnceLock::new();
    SPEC.get_or_init(|| {
        let json = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
            {"name":"text","type":"varchar","maxLength":1000,"nullable":true},
            {"name":"embedding","type":"float_vector","dim":2}]}"#;
        serde_json::from_str::<CollectionSpec>(json).expect("a spec").completed().expect("a good spec")
    })
}

// The log.

fn log(bytes: &[u8]) {
    read_log(bytes);
    let mut mended = bytes.to_vec();
    mend_log(&mut mended);
    read_log(&mended);
}

/// Puts the checksums right of the header and of the frames, as far as their lengths lead from one to the next.
fn mend_log(bytes: &mut [u8]) {
    if bytes.len() < wal::HEADER_BYTES {
        return;
    }
    let sum = checksum(&bytes[..28]).to_le_bytes();
    bytes[28..32].copy_from_slice(&sum);
    let mut rest = &mut bytes[wal::HEADER_BYTES..];
    while rest.len() >= wal::FRAME_HEADER_BYTES {
        let len = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
        let Some(end) = len.checked_add(wal::FRAME_HEADER_BYTES).filter(|&end| end <= rest.len()) else { return };
        let (frame, after) = rest.split_at_mut(end);
        let sum = checksum_append(checksum(&frame[..4]), &frame[8..]).to_le_bytes();
        frame[4..8].copy_from_slice(&sum);
        rest = after;
    }
}

fn read_log(bytes: &[u8]) {
    let (collection, number, next) = (CollectionId(7), 3, Lsn(20));
    for until in [None, Some(Lsn(22))] {
        match wal::replay("log", bytes, collection, number, next, until) {
            Ok(replay) => {
                assert!(replay.valid_len <= bytes.len());
                let mut offset = wal::HEADER_BYTES;
                for frame in &replay.frames {
                    assert_eq!(frame.offset, offset);
                    offset = frame.end;
                    if let Err(error) = Record::decode(&spec().schema, frame.kind, &frame.payload) {
                        understood(&error);
                    }
                }
                assert!(replay.frames.is_empty() || offset == replay.valid_len);
                // A log that was cut at its valid end reads the same.
                let again = wal::replay("log", &bytes[..replay.valid_len], collection, number, next, until);
                assert_eq!(again.expect("what was read once").frames, replay.frames);
                // And a repair finds all of it, but for what a later owner's file takes the place of.
                // It looks further, though, and may find a frame of a later version in the torn tail.
                if let (true, Ok(salvage)) =
                    (replay.valid_len > 0, wal::salvage(bytes, collection, number, next, until))
                {
                    assert_eq!(salvage.frames[..replay.frames.len()], replay.frames);
                }
            }
            Err(error) => understood(&error),
        }
        if let Err(error) = wal::salvage(bytes, collection, number, next, until) {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
    wal::first_lsn(bytes);
}

// The manifest.

fn manifest(bytes: &[u8]) {
    read_manifest(bytes);
    let mut mended = bytes.to_vec();
    mend_manifest(&mut mended);
    read_manifest(&mended);
}

fn mend_manifest(bytes: &mut [u8]) {
    const HEADER: usize = 24;
    if bytes.len() < HEADER {
        return;
    }
    let sum = checksum(&bytes[HEADER..]).to_le_bytes();
    let len = (bytes.len() - HEADER) as u64;
    bytes[12..16].copy_from_slice(&sum);
    bytes[16..24].copy_from_slice(&len.to_le_bytes());
}

fn read_manifest(bytes: &[u8]) {
    match Manifest::decode(bytes) {
        Ok(Some(manifest)) => {
            let again = Manifest::decode(&manifest.encode()).expect("what was read is written").expect("and whole");
            assert_eq!(again, manifest);
            for collection in manifest.collections {
                if let Err(error) = collection.spec.completed() {
                    understood(&error);
                }
            }
        }
        Ok(None) => {}
        Err(error) => understood(&error),
    }
}

// The archive.

fn read_archive(bytes: &[u8]) {
    let read = |bytes: Vec<u8>| match archive::decode(&bytes.into()) {
        Ok((manifest, files)) => {
            for file in manifest.files() {
                assert_eq!(files[&file.name].len() as u64, file.len);
            }
        }
        Err(error) => understood(&error),
    };
    read(bytes.to_vec());
    let mut mended = bytes.to_vec();
    mend_archive(&mut mended);
    read(mended);
}

/// Puts the checksums of the entries right, and of the manifest in the first of them.
fn mend_archive(bytes: &mut [u8]) {
    const START: usize = 12;
    const HEAD: usize = 14;
    let mut at = START;
    while let Some(head) = bytes.get(at..at + HEAD) {
        let name_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
        let len = u64::from_le_bytes(head[2..10].try_into().expect("8 bytes")) as usize;
        let start = at + HEAD + name_len + 4;
        let Some(end) = start.checked_add(len).filter(|&end| end <= bytes.len()) else { return };
        if at == START {
            mend_manifest(&mut bytes[start..end]);
        }
        let sum = checksum(&bytes[start..end]).to_le_bytes();
        bytes[at + 10..at + HEAD].copy_from_slice(&sum);
        let sum = checksum(&bytes[at..start - 4]).to_le_bytes();
        bytes[start - 4..start].copy_from_slice(&sum);
        at = end;
    }
}

// Segments.

/// What `segment` reads: the files of a segment one after the other, each with a byte for its kind and the length of its bytes (4).
pub fn join_files(files: &[segment::SegmentFile]) -> Vec<u8> {
    let mut out = Vec::new();
    for file in files {
        let kind = KINDS.iter().position(|kind| kind() == file.kind).expect("a file of the fuzzed spec");
        // What is changed by the fuzzer would have a wrong checksum: a layout is given one when it is read.
        let (head, rest) = if file.kind == FileKind::Layout { (10, 14) } else { (0, 0) };
        out.push(kind as u8);
        out.extend(((head + file.bytes.len() - rest) as u32).to_le_bytes());
        out.extend(&file.bytes[..head]);
        out.extend(&file.bytes[rest..]);
    }
    out
}

const KINDS: [fn() -> FileKind; 6] = [
    || FileKind::Layout,
    || FileKind::Rows,
    || FileKind::Column("text".to_owned()),
    || FileKind::Vector("embedding".to_owned()),
    || FileKind::Index("embedding".to_owned()),
    || FileKind::Deletes,
];

fn read_segment(bytes: &[u8]) {
    let mut files = BTreeMap::new();
    let mut rest = bytes;
    while let Some((&[kind, a, b, c, d], after)) = rest.split_first_chunk() {
        let Some(kind) = KINDS.get(usize::from(kind)) else { break };
        let (bytes, after) = after.split_at(after.len().min(u32::from_le_bytes([a, b, c, d]) as usize));
        rest = after;
        files.insert(kind(), Bytes::copy_from_slice(bytes));
    }
    if let Some(bytes) = files.get(&FileKind::Index("embedding".to_owned())) {
        match VectorIndex::from_bytes(bytes) {
            Ok(index) => {
                let query = Value::Vector(vec![0.25; index.dim()]);
                index.candidates(&query, 3, &SearchParams { ef: Some(8), ..SearchParams::default() }, None);
                let again: usize = (0..).map_while(|part| index.part(part)).map(|part| part.len()).sum();
                assert_eq!(again, bytes.len());
            }
            Err(error) => understood(&error),
        }
    }
    let Some(layout) = files.get(&FileKind::Layout) else { return };
    let CollectionSpec { schema, indexes, .. } = spec();
    let name = |kind: &FileKind| format!("{kind:?}");
    let names = files.keys().map(|kind| (kind.clone(), name(kind))).collect();
    let (head, body) = layout.split_at(layout.len().min(10));
    let layout = [head, &checksum(body).to_le_bytes(), body].concat();
    let layout = match segment::layout(schema, "layout", &layout, &names) {
        Ok(layout) => layout,
        Err(error) => return understood(&error),
    };
    // One block after the other, as a search reads them, their checksums put right.
    for group in &layout.groups {
        for (index, block) in group.blocks.iter().enumerate() {
            let start = usize::try_from(block.offset).unwrap_or(usize::MAX);
            let Some(bytes) = files[&group.kind].get(start..start.saturating_add(block.len as usize)) else { continue };
            let mut group = group.clone();
            group.blocks[index].checksum = checksum(bytes);
            match group.read(index, bytes) {
                Ok(rows) => assert_eq!(rows.num_rows(), block.rows as usize),
                Err(error) => understood(&error),
            }
        }
    }
    let stored = |(kind, bytes): (&FileKind, &Bytes)| {
        (kind.clone(), StoredFile { name: name(kind), bytes: Some(bytes.clone()) })
    };
    let files = files.iter().map(stored).collect();
    match segment::decode(SegmentId(7), schema, indexes, layout, &files) {
        Ok(segment) => {
            let rows: Vec<u32> = (0..segment.len() as u32).collect();
            let (batch, versions) = segment.take(&rows, &Default::default());
            assert_eq!((batch.len(), versions.len()), (rows.len(), rows.len()));
            segment.keys();
        }
        Err(error) => understood(&error),
    }
}

// Filters.

fn filter_schema() -> &'static Arc<Schema> {
    static SCHEMA: OnceLock<Arc<Schema>> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let json = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
            {"name":"name","type":"varchar","nullable":true},{"name":"n","type":"int32","nullable":true},
            {"name":"price","type":"double","nullable":true},{"name":"ok","type":"bool","nullable":true},
            {"name":"at","type":"timestamp","nullable":true},{"name":"facts","type":"json","nullable":true},
            {"name":"tags","type":"array","elementType":"varchar","maxCapacity":8,"nullable":true},
            {"name":"v","type":"float_vector","dim":2}],"dynamic":true}"#;
        Arc::new(serde_json::from_str(json).expect("a schema"))
    })
}

fn filter_rows() -> &'static Batch {
    static ROWS: OnceLock<Batch> = OnceLock::new();
    ROWS.get_or_init(|| {
        let row = |id: i64| {
            let mut row = Row::from([
                ("id".to_owned(), Value::Int(id)),
                ("v".to_owned(), Value::Vector(vec![id as f32, 1.0])),
                ("extra".to_owned(), Value::Json(serde_json::json!({ "a": [id, "b", null], "b": id % 2 == 0 }))),
            ]);
            if id % 3 != 0 {
                row.extend([
                    ("name".to_owned(), Value::String(format!("néme {id}%_"))),
                    ("n".to_owned(), Value::Int(id - 3)),
                    ("price".to_owned(), Value::Double(id as f64 / 3.0)),
                    ("ok".to_owned(), Value::Bool(id % 2 == 0)),
                    ("at".to_owned(), Value::String(format!("2026-11-2{}T10:00:00Z", id % 8))),
                    ("facts".to_owned(), Value::Json(serde_json::json!({ "a": { "b": [1, 2.5, "x"] }, "c": id }))),
                    ("tags".to_owned(), Value::Json(serde_json::json!(["x", id.to_string()]))),
                ]);
            }
            row
        };
        Batch::from_rows(filter_schema(), (0..9).map(row).collect()).expect("rows that fit")
    })
}

fn filter(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let parameters = BTreeMap::from([
        ("p".to_owned(), Value::Int(3)),
        ("q".to_owned(), Value::String("a".to_owned())),
        ("list".to_owned(), Value::Json(serde_json::json!([1, 2, 3]))),
    ]);
    if let Err(error) = Filter::parameters(text) {
        understood(&error);
    }
    match Filter::parse_with(text, filter_schema(), &parameters) {
        Ok(filter) => {
            let found = filter.evaluate(filter_rows().scalars());
            let normal = filter.to_string();
            match Filter::parse(&normal, filter_schema()) {
                Ok(again) => {
                    assert_eq!(again, filter, "{normal}");
                    assert_eq!(again.evaluate(filter_rows().scalars()), found, "{normal}");
                }
                // What `--x` becomes nests more deeply than it.
                Err(error) => assert!(error.message().contains("nested too deeply"), "{normal}: {error}"),
            }
            filter.fields();
        }
        Err(error) => {
            understood(&error);
            assert!(error.position().is_none_or(|at| at <= text.len()), "{error}");
        }
    }
}

// Sync.

/// A zero byte and frames, each after its length (2 bytes); anything else is one frame.
fn sync(bytes: &[u8]) {
    let Some((0, mut rest)) = bytes.split_first() else { return session(&[bytes]) };
    let mut frames = Vec::new();
    while let Some((&[low, high], after)) = rest.split_first_chunk() {
        let (frame, after) = after.split_at(after.len().min(usize::from(u16::from_le_bytes([low, high]))));
        frames.push(frame);
        rest = after;
    }
    session(&frames);
}

fn session(frames: &[&[u8]]) {
    for frame in frames {
        match Message::decode(frame) {
            Ok(message) => {
                let again = message.encode().expect("what was read is written");
                assert_eq!(Message::decode(&again).expect("and read"), message);
            }
            Err(error) => understood(&error),
        }
    }
    let changes = |bytes: &[u8]| match ChangeSet::decode(&spec().schema, bytes) {
        Ok(changes) => {
            let again = ChangeSet::decode(&spec().schema, &changes.encode()).expect("what was read is written");
            assert_eq!(again.versions().collect::<Vec<_>>(), changes.versions().collect::<Vec<_>>());
            Ok(())
        }
        Err(error) => {
            understood(&error);
            Err(error)
        }
    };
    let options = HubOptions { gated: frames.len() % 2 == 1, ..HubOptions::default() };
    let mut hub = Hub::new(ReplicaId(1), options, 0);
    let collection = ClientCollection { name: "notes".to_owned(), spec: Some("{}".to_owned()), part: None };
    let mut client = Client::new(ReplicaId(2), vec![collection], 0, 0);
    client.allow_downloads();
    client.reconcile(Channel(0), 1);
    for (now, frame) in (1..).zip(frames) {
        hub.receive(HubInput::Frame(frame.to_vec()), now);
        while let Some(action) = hub.poll(now) {
            let input = match action {
                HubAction::Send(frame) => {
                    Message::decode(&frame).expect("a frame of our own");
                    continue;
                }
                HubAction::Open { channel, .. } => HubInput::Opened(
                    channel,
                    Ok(Opened { acknowledged: Sequence(4), incarnation: 1, spec: None, part: None }),
                ),
                HubAction::Read { channel, after, .. } => {
                    let lsn = Lsn(after.0.saturating_add(2));
                    let seen = BTreeMap::from([(ReplicaId(3), Sequence(now))]);
                    HubInput::Read(channel, Ok(Changes { changes: vec![1], lsn, newest: lsn, seen, left: None }))
                }
                HubAction::Apply { channel, changes: bytes, .. } => HubInput::Applied(channel, changes(&bytes)),
                HubAction::Offer { channel, after, .. } => {
                    // To who has nothing, so that both ways are gone.
                    HubInput::Offered(channel, Ok((after == Lsn(0)).then(|| vec![1])))
                }
                HubAction::ReadPiece { channel, file, offset, len } => HubInput::PieceRead(
                    channel,
                    if u64::from(file) + offset < 4 {
                        Ok(vec![0; len as usize])
                    } else {
                        Err(Error::invalid("no part"))
                    },
                ),
                HubAction::Compare { channel, ranges } => HubInput::Compared(
                    channel,
                    match ranges {
                        None => Ok(([1, 2], held().begin())),
                        Some(ranges) => held().answer(&ranges, RANGES_BYTES).map(|said| ([1, 2], said)),
                    },
                ),
                HubAction::ReadItems { channel, items, .. } => HubInput::ItemsRead(channel, Ok((items.len(), vec![1]))),
                HubAction::TakeIn { channel, changes: bytes, .. } => {
                    HubInput::TakenIn(channel, changes(&bytes).map(|()| (1, Lsn(now))))
                }
                HubAction::Admit { token } => HubInput::Admitted(match token {
                    Some(token) => Ok(Some(now + token.len() as u64)),
                    None => Err(Error::invalid("no token")),
                }),
                HubAction::Close(_) => break,
            };
            hub.receive(input, now);
        }
        client.receive(ClientInput::Frame(frame.to_vec()), now);
        while let Some(action) = client.poll(now) {
            let input = match action {
                ClientAction::Send(frame) => {
                    Message::decode(&frame).expect("a frame of our own");
                    continue;
                }
                ClientAction::Refused(_) | ClientAction::Reconciled { .. } => continue,
                ClientAction::Summarize { channel, .. } => ClientInput::Summarized(channel, Ok(held())),
                ClientAction::TakeIn { channel, changes: bytes } => {
                    ClientInput::TakenIn(channel, changes(&bytes).map(|()| 1))
                }
                ClientAction::ReadItems { channel, items, .. } => {
                    ClientInput::ItemsRead(channel, Ok((items.len(), vec![1])))
                }
                ClientAction::Refresh => ClientInput::Token(Ok("a.b.c".to_owned())),
                ClientAction::Open { channel, .. } => {
                    let start = Start { pulled: Lsn(2), pushed: Sequence(3), ..Start::default() };
                    ClientInput::Opened(channel, Ok(start))
                }
                ClientAction::ReadOwn { channel, after, .. } => {
                    let through = Sequence(after.0.saturating_add(1).min(6));
                    let changes = if through > after { vec![1] } else { Vec::new() };
                    ClientInput::Own(channel, Ok(OwnChanges { changes, through }))
                }
                ClientAction::ReadRelay { channel, there, .. } => {
                    let origin = ReplicaId(3);
                    let after = there.get(&origin).copied().unwrap_or_default();
                    let relay = Relay { origin, after, through: Sequence(6), changes: vec![1] };
                    ClientInput::Relay(channel, Ok((after < Sequence(6)).then_some(relay)))
                }
                ClientAction::Apply { channel, changes: bytes, .. } => {
                    let applied = if bytes.is_empty() { Ok(()) } else { changes(&bytes) };
                    ClientInput::Applied(channel, applied)
                }
                ClientAction::MarkPushed { channel, .. } => ClientInput::Marked(channel, Ok(())),
                ClientAction::Plan { channel, offer, .. } => {
                    let wants = match message::decode::<CollectionManifest>(&offer) {
                        Ok(described) => {
                            let files = described.segments.into_iter().flat_map(|segment| segment.files);
                            let want = |(file, entry): (u32, eddydb::engine::FileEntry)| Want {
                                file,
                                offset: 0,
                                len: entry.len,
                                path: entry.name.into(),
                            };
                            Ok((0..).zip(files).map(want).filter(|want| want.len > 0).collect())
                        }
                        Err(failure) => Err(Error::corrupt(failure.to_string())),
                    };
                    ClientInput::Planned(channel, wants)
                }
                ClientAction::Download { channel, file, offset, len, .. } => {
                    // More than was asked for, all of it, or less.
                    let bytes = vec![1; (len + 1).saturating_sub(offset % 3).min(64) as usize];
                    ClientInput::Downloaded(channel, file, offset, bytes)
                }
                ClientAction::Store { channel, .. } => ClientInput::Stored(channel, Ok(None)),
                ClientAction::EndSeed { channel, .. } => {
                    let start = Start { pulled: Lsn(2), pushed: Sequence(3), ..Start::default() };
                    ClientInput::Seeded(channel, Ok(start))
                }
                ClientAction::Close(_) => break,
            };
            client.receive(input, now);
        }
    }
}

/// What both sides hold.
fn held() -> Items {
    Items::new(
        (0..100).map(|at| Item { timestamp: Timestamp(1_000 + at / 3), id: at.wrapping_mul(0x9e37_79b9) }).collect(),
    )
}

// Importing.

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, bytes).expect("a temporary file is written");
        path
    }
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| Place { directory: tempfile::tempdir().expect("a temporary directory") })
}

fn plan(file: PathBuf, format: Format) -> Plan {
    Plan {
        collection: "rows".to_owned(),
        files: vec![file],
        format: Some(format),
        vectors: None,
        vector_field: None,
        key: None,
        metric: None,
        batch_rows: 5,
        partition: None,
        restart: false,
    }
}

fn import(bytes: &[u8], format: Format, name: &str) {
    let file = place().write(name, bytes);
    for key in [None, Some("key".to_owned())] {
        if let Err(error) = rehearse(&Plan { key, ..plan(file.clone(), format) }) {
            understood(&error);
        }
    }
}

/// Vectors for a table of three rows.
fn npy(bytes: &[u8]) {
    let vectors = place().write("npy", bytes);
    let table = place().write("table", b"{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n");
    let plan = Plan { vectors: Some(vectors), ..plan(table, Format::Jsonl) };
    match rehearse(&plan) {
        Ok(rows) => assert_eq!(rows, 3),
        Err(error) => understood(&error),
    }
}

// Indexes of terms.

/// What can be opened can be searched: rows lie in the index, and a search ends.
fn read_terms(bytes: &[u8]) {
    let terms = match Terms::from_bytes(Bytes::copy_from_slice(bytes)) {
        Ok(terms) => terms,
        Err(error) => return understood(&error),
    };
    let source = Source::Sealed(&terms);
    let weighted = |key: &[u8]| Weighted { key: key.to_vec(), weight: 1.5 };
    let bm25 = Bm25 { k1: 1.2, b: 0.75, average_length: 5.0 };
    let (keys, bm25): (Vec<Weighted>, _) = match terms.payload() {
        Payload::Weights => ((0..9u32).map(|place| weighted(&place.to_be_bytes())).collect(), None),
        _ => (["all", "again", "w1", "w2"].map(|word| weighted(word.as_bytes())).to_vec(), Some(bm25)),
    };
    if terms.payload() != Payload::Rows {
        let found = top(source, &keys, bm25, 5, None);
        assert!(found.len() <= 5 && found.iter().all(|near| (near.row as usize) < terms.rows()));
    }
    assert!(source.present().count() <= terms.rows());
    if terms.payload() == Payload::Text {
        let analyzer = Arc::new(Analyzer::standard());
        for matching in [Matching::Any { least: 2 }, Matching::Phrase { slop: 2 }, Matching::Fuzzy { distance: 1 }] {
            TextMatch::new(analyzer.clone(), "all again w1", matching).rows(source);
        }
    }
}
