use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::*;
use crate::base::Random;
use crate::db::source::{Asked, Positions, Source, conformance};
use crate::db::{Options, QueryRequest};
use crate::platform::{Environment, block_on};
use crate::storage::{FaultStorage, MemoryDisk};

const SEEDS: u64 = 200;

pub(super) fn row(json: serde_json::Value) -> Row {
    json.as_object().unwrap().iter().map(|(name, one)| (name.clone(), Value::from(one.clone()))).collect()
}

pub(super) fn spec(json: serde_json::Value) -> PushStreamSpec {
    let mut all =
        json!({"fields": [{"name": "id", "type": "int64"}, {"name": "page", "type": "varchar", "nullable": true}]});
    all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    PushStreamSpec::from_json(&all.to_string()).unwrap()
}

pub(super) fn click(id: i64) -> Row {
    row(json!({"id": id, "page": format!("page {}", id % 3)}))
}

async fn open(disk: &MemoryDisk) -> Db {
    Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap()
}

pub(super) fn open_one(db: &Db, stream: &str) -> Result<Box<dyn Source>> {
    let relation = db.push_stream(stream)?.relation().clone();
    db.open_source(CONNECTOR, &Asked { name: stream, reader: "reader", relation: &relation, options: &json!(null) })
}

/// All rows, by partition.
pub(super) async fn rows_of(db: &Db, stream: &str) -> BTreeMap<u32, Vec<Row>> {
    let mut source = open_one(db, stream).unwrap();
    source.connect(&Positions::new()).await.unwrap();
    let mut rows: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
    loop {
        let batch = source.read(7).await.unwrap();
        if batch.position.is_none() {
            return rows;
        }
        rows.entry(batch.partition).or_default().extend(batch.rows);
    }
}

#[test]
fn streams_keep_the_promises_of_a_source_in_memory_and_in_storage() {
    for (name, kind) in [
        ("stored", json!({})),
        ("read back", json!({"memoryBytes": 60})),
        ("dealt", json!({"partitions": 3, "partitionBy": "page", "memoryBytes": 100})),
        ("memory", json!({"durability": "memory"})),
        ("spilt", json!({"durability": "memory", "memoryBytes": 60})),
    ] {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let stream = db.create_push_stream("clicks", spec(kind)).await.unwrap();
            for from in 0..9 {
                stream.push((5 * from..5 * from + 5).map(click).collect()).await.unwrap();
            }
            let expected = conformance::Expected { rows: rows_of(&db, "clicks").await, refused: 0 };
            assert_eq!(expected.rows.values().map(Vec::len).sum::<usize>(), 45, "{name}");
            // Positions name their stream: those of another are refused, or are of what went with the process.
            let other = open_one(&db, "clicks").unwrap().connect(&Positions::from([(0, source::encode(1, 0))])).await;
            if stream.spec().durability == PushDurability::Stored {
                assert_eq!(other.unwrap_err().kind(), ErrorKind::Gone, "{name}");
            }
            assert_eq!(conformance::run(|| open_one(&db, "clicks"), &expected, 7).await, Ok(()), "{name}");
        });
    }
}

#[test]
fn definitions_of_version_1_are_read() {
    let bytes = "45445053017b226964223a372c226e616d65223a22636c69636b73222c2273706563223a7b226669656c6473223a5b7b226e616d65223a226964222c2274797065223a22696e743634227d5d2c22706172746974696f6e73223a327d2c2272656164657273223a7b2261223a5b332c345d7d7d511ee2a6";
    let mut bytes: Vec<u8> =
        (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap()).collect();
    let definition = PushStreamDefinition::decode(&bytes).unwrap();
    assert_eq!((definition.id, definition.name.as_str(), definition.spec.partitions), (7, "clicks", 2));
    assert_eq!(definition.readers, BTreeMap::from([("a".to_owned(), vec![3, 4])]));
    assert_eq!(PushStreamDefinition::decode(&definition.encode()).unwrap(), definition);
    for at in 0..bytes.len() {
        bytes[at] ^= 1;
        assert_eq!(PushStreamDefinition::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
        bytes[at] ^= 1;
    }
}

#[test]
fn what_does_not_fit_is_refused_with_its_reason_and_put_aside() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        let kind = spec(json!({
            "checks": [{"filter": "id >= 0"}, {"filter": "page != 'bad'", "reason": "a bad page"}],
            "deadLetters": "dead", "transform": "double",
        }));
        let stream = db.create_push_stream("clicks", kind).await.unwrap();
        let error = stream.push(vec![click(1)]).await.unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.message().contains("\"double\""), "{error}");
        db.set_function("double", |row: &Row| match row.get("id") {
            Some(Value::Int(13)) => Err(Error::invalid("unlucky")),
            _ => Ok(vec![row.clone()]),
        });
        let rows = vec![
            click(1),
            row(json!({"id": -1})),
            row(json!({"id": "one"})),
            row(json!({"id": 2, "page": "bad"})),
            row(json!({"page": "home"})),
            row(json!({"id": 13})),
            row(json!({"id": 3, "page": "home", "more": 1})),
        ];
        let answer = stream.push(rows).await.unwrap();
        assert_eq!(answer.accepted, 2);
        let numbers: Vec<usize> = answer.refused.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
        for ((_, reason), part) in answer.refused.iter().zip(["id >= 0", "\"id\"", "a bad page", "null", "unlucky"]) {
            assert!(reason.contains(part), "{reason}");
        }
        let dead = db.collection("dead").unwrap().query(&QueryRequest::default()).await.unwrap();
        assert_eq!(dead.len(), 5);
        assert!(dead.iter().all(|row| row["pipeline"] == Value::from("clicks")), "{dead:?}");
        assert_eq!(rows_of(&db, "clicks").await[&0], [click(1), row(json!({"id": 3, "page": "home"}))]);
        assert_eq!((stream.status().pushed, stream.status().refused), (2, 5));
        for wrong in [
            json!({"fields": []}),
            json!({"partitions": 0}),
            json!({"partitionBy": "other"}),
            json!({"checks": [{"filter": "other > 1"}]}),
        ] {
            let error = db.create_push_stream("wrong", spec(wrong)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        assert_eq!(
            db.create_push_stream("clicks", spec(json!({}))).await.unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
    });
}

#[test]
fn a_full_stream_refuses_until_something_was_read() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        let stream = db.create_push_stream("clicks", spec(json!({"bytesMax": 400}))).await.unwrap();
        let mut taken = 0;
        let error = loop {
            match stream.push(vec![click(taken)]).await {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
        };
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("400"), "{error}");
        assert!((2..100).contains(&taken), "{taken}");
        assert_eq!(stream.status().full, 1);
        let mut source = open_one(&db, "clicks").unwrap();
        source.connect(&Positions::new()).await.unwrap();
        let batch = source.read(100).await.unwrap();
        assert_eq!(batch.rows.len() as i64, taken);
        // That it was read is not enough: it may be asked for again.
        assert_eq!(stream.push(vec![click(taken)]).await.unwrap_err().kind(), ErrorKind::Unavailable);
        source.commit(&Positions::from([(0, batch.position.unwrap())])).await.unwrap();
        stream.push(vec![click(taken)]).await.unwrap();
        assert_eq!(source.read(100).await.unwrap().rows, [click(taken)]);
        assert_eq!(
            source.connect(&Positions::from([(0, source::encode(stream.id(), 0))])).await.unwrap_err().kind(),
            ErrorKind::Gone
        );
        // Nothing is kept for one that does not come again, but what comes then.
        source.retire().await.unwrap();
        assert!(stream.status().readers.is_empty());
        db.drop_push_stream("clicks").await.unwrap();
        assert_eq!(stream.push(vec![click(0)]).await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(db.inner.shared.storage.list(name::PUSH_STREAMS).await.unwrap(), []);
    });
}

/// Pushes, reads and commits on a disk that crashes at any call: what was acknowledged is there, once and in order.
async fn live(seed: u64) {
    let mut random = Random::new(seed);
    let environment = Environment::simulated(seed, 1_700_000_000_000);
    let mut disk = FaultStorage::new(seed);
    let (mut next, mut acknowledged, mut unsure) = (0i64, BTreeSet::new(), BTreeSet::new());
    let mut seen: BTreeSet<i64> = BTreeSet::new();
    let mut committed = Positions::new();
    for life in 0..6 {
        let options = Options { environment: environment.clone(), ..Options::default() };
        let Ok(db) = Db::open(Arc::new(disk.clone()), options).await else {
            disk = disk.reopen();
            continue;
        };
        if db.push_stream("clicks").is_err() {
            assert!(acknowledged.is_empty(), "seed {seed}: the stream is gone");
            let kind = json!({"memoryBytes": 40 + random.below(2_000), "partitions": 1 + random.below(3)});
            if db.create_push_stream("clicks", spec(kind)).await.is_err() {
                disk = disk.reopen();
                continue;
            }
        }
        let stream = db.push_stream("clicks").unwrap();
        let mut source = open_one(&db, "clicks").unwrap();
        source.connect(&committed).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        // What was seen and not committed comes again.
        let mut told = seen.clone();
        if life < 5 {
            disk.crash_after(1 + random.below(60));
        }
        for _ in 0..random.below(40) {
            if random.below(3) > 0 {
                let rows: Vec<i64> = (next..next + 1 + random.below(4) as i64).collect();
                next += rows.len() as i64;
                match stream.push(rows.iter().map(|id| click(*id)).collect()).await {
                    Ok(answer) => {
                        assert_eq!(answer.accepted, rows.len());
                        acknowledged.extend(rows);
                    }
                    Err(_) => unsure.extend(rows),
                }
                continue;
            }
            let Ok(batch) = source.read(1 + random.below(9) as usize).await else { break };
            for row in &batch.rows {
                let Value::Int(id) = row["id"] else { panic!("{row:?}") };
                assert!(told.insert(id), "seed {seed}: row {id} came twice");
                assert!(acknowledged.contains(&id) || unsure.contains(&id), "seed {seed}: row {id} was never pushed");
            }
            let Some(position) = batch.position else { continue };
            let mut positions = committed.clone();
            positions.insert(batch.partition, position);
            // Whoever commits has put its own state away first, with these rows.
            seen.extend(batch.rows.iter().map(|row| if let Value::Int(id) = row["id"] { id } else { -1 }));
            committed = positions;
            if source.commit(&committed).await.is_err() {
                break;
            }
        }
        drop((source, stream, db));
        disk = disk.reopen();
    }
    let options = Options { environment, ..Options::default() };
    let db = Db::open(Arc::new(disk), options).await.unwrap();
    if let Ok(mut source) = open_one(&db, "clicks") {
        source.connect(&committed).await.unwrap();
        loop {
            let batch = source.read(10).await.unwrap();
            if batch.position.is_none() {
                break;
            }
            for row in batch.rows {
                let Value::Int(id) = row["id"] else { panic!("{row:?}") };
                assert!(seen.insert(id), "seed {seed}: row {id} came twice");
            }
        }
    }
    let lost: Vec<_> = acknowledged.difference(&seen).collect();
    assert!(lost.is_empty(), "seed {seed}: lost {lost:?}");
}

#[test]
fn what_was_acknowledged_is_read_once_whatever_dies_when() {
    for seed in 0..SEEDS {
        block_on(live(seed));
    }
}

#[test]
fn pushes_that_wait_together_share_a_write() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        let stream = db.create_push_stream("clicks", spec(json!({}))).await.unwrap();
        let held = stream.inner.lanes.lock().await;
        let mut pushes: Vec<_> = (0..10).map(|id| Box::pin(stream.push(vec![click(id)]))).collect();
        for push in &mut pushes {
            assert!(futures_util::poll!(push.as_mut()).is_pending());
        }
        drop(held);
        for push in pushes {
            assert_eq!(push.await.unwrap().accepted, 1);
        }
        let path = &db.inner.shared.storage.list(&name::push_files(stream.id(), 0)).await.unwrap()[0].name;
        let bytes = db.inner.shared.storage.read_all(path).await.unwrap();
        let replay =
            crate::wal::replay(path, &bytes, crate::base::CollectionId(stream.id()), 0, crate::base::Lsn(1), None);
        assert_eq!(replay.unwrap().frames.len(), 1);
        assert_eq!(rows_of(&db, "clicks").await[&0].len(), 10);
    });
}

fn near_spec(more: serde_json::Value) -> PushStreamSpec {
    let mut all = json!({
        "fields": [
            {"name": "id", "type": "int64"}, {"name": "lang", "type": "varchar"}, {"name": "v", "type": "float_vector", "dim": 2, "nullable": true},
        ],
        "dedupe": {"field": "v", "threshold": 0.5, "windowMs": 1_000, "metric": "l2", "key": "id", "by": ["lang"]},
    });
    for (name, value) in more.as_object().unwrap() {
        all[name] = value.clone();
    }
    PushStreamSpec::from_json(&all.to_string()).unwrap()
}

fn post(id: i64, lang: &str, v: [f32; 2]) -> Row {
    Row::from([
        ("id".to_owned(), id.into()),
        ("lang".to_owned(), lang.into()),
        ("v".to_owned(), Value::Vector(v.to_vec())),
    ])
}

/// Rows that say nothing new are refused, and told with which they are near to; across restarts, partitions, and readers that have read.
#[test]
fn rows_that_are_near_to_one_before_are_refused_with_its_key() {
    block_on(async {
        let disk = MemoryDisk::new();
        let now_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
        let open = async |disk: &MemoryDisk| {
            let clock = now_ms.clone();
            let environment = Environment::following(7, move || clock.load(Ordering::Relaxed));
            let options = Options { environment, ..Options::default() };
            Db::open(Arc::new(disk.open().unwrap()), options).await.unwrap()
        };
        let db = open(&disk).await;
        for (wrong, part) in [
            (json!({"field": "id", "threshold": 1.0, "windowMs": 1}), "field \"id\" is int64, expected a float_vector"),
            (json!({"field": "w", "threshold": 1.0, "windowMs": 1}), "\"w\", which is no field"),
            (json!({"field": "v", "threshold": 2.5, "windowMs": 1}), "threshold is 2.5, expected 0 to 2"),
            (json!({"field": "v", "threshold": 1.0, "windowMs": 0}), "windowMs is 0"),
            (json!({"field": "v", "threshold": 1.0, "windowMs": 1, "rowsMax": 0}), "rowsMax is 0"),
            (json!({"field": "v", "threshold": 1.0, "windowMs": 1, "key": "v"}), "key is \"v\", which is a vector"),
            (json!({"field": "v", "threshold": 1.0, "windowMs": 1, "by": ["x"]}), "by is \"x\", which is no field"),
        ] {
            let error = db.create_push_stream("wrong", near_spec(json!({"dedupe": wrong}))).await.unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains(part), "{error}");
        }
        let kind = near_spec(json!({"partitions": 2, "partitionBy": "id", "deadLetters": "dead"}));
        let stream = db.create_push_stream("posts", kind).await.unwrap();
        let mut reader = open_one(&db, "posts").unwrap();
        reader.connect(&Positions::new()).await.unwrap();
        // In one push, in another language, and one without a vector.
        let mut none = post(5, "de", [0.0, 0.0]);
        none.insert("v".to_owned(), Value::Null);
        let rows = vec![
            post(1, "de", [0.0, 0.0]),
            post(2, "de", [0.3, 0.3]),
            post(3, "en", [0.0, 0.0]),
            post(4, "de", [0.6, 0.0]),
            none,
        ];
        let answer = stream.push(rows).await.unwrap();
        assert_eq!(answer.accepted, 4);
        let distance = (2.0 * f64::from(0.3f32) * f64::from(0.3f32)).sqrt();
        assert_eq!(answer.near, [NearRow { row: 1, of: Value::Int(1), distance }]);
        assert!(answer.refused.len() == 1 && answer.refused[0].0 == 1, "{answer:?}");
        assert!(
            answer.refused[0].1.starts_with("its vector is 0.42") && answer.refused[0].1.ends_with(" from that of 1"),
            "{answer:?}"
        );
        let dead = db.collection("dead").unwrap().query(&QueryRequest::default()).await.unwrap();
        assert!(
            dead.len() == 1 && matches!(&dead[0]["reason"], Value::String(reason) if reason.ends_with("that of 1")),
            "{dead:?}"
        );
        assert_eq!((stream.status().pushed, stream.status().refused, stream.status().near), (4, 1, 1));

        // What was read and committed is compared with all the same, also after a restart.
        let mut positions = Positions::new();
        loop {
            let batch = reader.read(100).await.unwrap();
            let Some(position) = batch.position else { break };
            positions.insert(batch.partition, position);
        }
        reader.commit(&positions).await.unwrap();
        let firsts: Vec<u64> = stream.status().partitions.iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, [0, 0], "what others are compared with is kept");
        drop((reader, stream));
        db.close().await.unwrap();
        now_ms.fetch_add(1_000, Ordering::Relaxed);
        let db = open(&disk).await;
        let stream = db.push_stream("posts").unwrap();
        let answer = stream.push(vec![post(6, "en", [0.1, 0.0]), post(7, "de", [9.0, 9.0])]).await.unwrap();
        assert_eq!(answer.near.iter().map(|one| (one.row, one.of.clone())).collect::<Vec<_>>(), [(0, Value::Int(3))]);
        // A moment later the first rows are over, and the one that was refused has left no trace.
        now_ms.fetch_add(1, Ordering::Relaxed);
        let answer = stream.push(vec![post(8, "en", [0.1, 0.0]), post(9, "de", [9.0, 9.1])]).await.unwrap();
        assert_eq!(answer.near.iter().map(|one| (one.row, one.of.clone())).collect::<Vec<_>>(), [(1, Value::Int(7))]);
        // And are let go of.
        let mut reader = open_one(&db, "posts").unwrap();
        reader.connect(&positions).await.unwrap();
        let left: u64 = stream.status().partitions.iter().map(|(first, next)| next - first).sum();
        assert_eq!(left, 2, "{:?}", stream.status());
    });
}

/// Of more rows than are to be compared with the oldest are forgotten.
#[test]
fn rows_that_are_compared_with_are_bounded() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let dedupe = json!({"field": "v", "threshold": 0.5, "windowMs": 1_000_000, "metric": "l2", "rowsMax": 2});
        let stream =
            db.create_push_stream("posts", near_spec(json!({"dedupe": dedupe, "durability": "memory"}))).await.unwrap();
        let at = |id: i64| post(id, "de", [10.0 * id as f32, 0.0]);
        stream.push((1..=3).map(at).collect()).await.unwrap();
        let answer = stream.push(vec![at(2), at(3), at(1)]).await.unwrap();
        assert_eq!(
            answer.near.iter().map(|one| (one.row, one.of.clone())).collect::<Vec<_>>(),
            [(0, Value::Null), (1, Value::Null)]
        );
        assert_eq!(stream.status().near_forgotten, 2);
    });
}

/// Whatever fails, and wherever the store dies: of rows that are near to each other one is taken, and no row is refused for one that is not there.
#[test]
fn a_row_is_refused_only_for_one_that_is_there() {
    for seed in 0..SEEDS {
        block_on(live_near(seed));
    }
}

pub(super) fn id_of(row: &Row) -> i64 {
    match row["id"] {
        Value::Int(id) => id,
        _ => unreachable!("it is an int64"),
    }
}

async fn live_near(seed: u64) {
    let mut random = Random::new(seed);
    let environment = Environment::simulated(seed, 1_700_000_000_000);
    let mut disk = FaultStorage::new(seed);
    let dedupe = json!({"field": "v", "threshold": 0.5, "windowMs": 1_000_000_000, "metric": "l2", "key": "id"});
    let kind = json!({"dedupe": dedupe, "partitions": 2, "partitionBy": "lang", "memoryBytes": 300});
    let (mut next, mut taken, mut named) = (0, BTreeSet::new(), BTreeSet::new());
    for life in 0..6 {
        let options = || Options { environment: environment.clone(), ..Options::default() };
        let db =
            Db::open(Arc::new(disk.clone()), options()).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let stream = match db.push_stream("posts") {
            Ok(stream) => stream,
            Err(_) => db.create_push_stream("posts", near_spec(kind.clone())).await.unwrap(),
        };
        if life < 5 && random.one_in(2) {
            disk.crash_after(1 + random.below(12));
        }
        for _ in 0..random.below(8) {
            if random.one_in(3) {
                disk.fail_at(random.below(3), ErrorKind::Io);
            }
            let rows: Vec<Row> = (next..next + 1 + random.below(4) as i64)
                .map(|id| post(id, if random.one_in(2) { "a" } else { "b" }, [random.below(12) as f32, 0.0]))
                .collect();
            next += rows.len() as i64;
            if let Ok(answer) = stream.push(rows.clone()).await {
                let is_near = |number| answer.near.iter().any(|one| one.row == number);
                taken
                    .extend(rows.iter().enumerate().filter(|(number, _)| !is_near(*number)).map(|(_, row)| id_of(row)));
                named.extend(answer.near.iter().map(|one| if let Value::Int(of) = one.of { of } else { -1 }));
            }
            if !disk.crashed() {
                disk.end_plans();
            }
        }
        drop((stream, db));
        disk = disk.reopen();
    }
    let db = Db::open(Arc::new(disk), Options { environment, ..Options::default() }).await.unwrap();
    let rows = rows_of(&db, "posts").await;
    let there: Vec<&Row> = rows.values().flatten().collect();
    let ids: BTreeSet<i64> = there.iter().map(|row| id_of(row)).collect();
    let lost: Vec<_> = taken.difference(&ids).collect();
    assert!(lost.is_empty(), "seed {seed}: {lost:?} were acknowledged and are not there");
    let lost: Vec<_> = named.difference(&ids).collect();
    assert!(lost.is_empty(), "seed {seed}: rows were refused for {lost:?}, which are not there");
    // A push that failed may have left rows all the same.
    let there: Vec<&&Row> = there.iter().filter(|row| taken.contains(&id_of(row))).collect();
    let places: BTreeSet<String> = there.iter().map(|row| serde_json::to_string(&row["v"]).unwrap()).collect();
    assert_eq!(places.len(), there.len(), "seed {seed}: rows that are the same are there twice");
}

pub(super) fn key(producer: &str, sequence: u64) -> PushKey {
    PushKey::new(producer, sequence).unwrap()
}

/// A push that comes again is answered as it was at first, and takes nothing: across restarts, after its rows were read and their files are gone,
/// and with rows that were refused.
#[test]
fn a_push_with_a_key_is_taken_once() {
    for durability in ["stored", "memory"] {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let kind = json!({"durability": durability, "checks": [{"filter": "id >= 0", "reason": "below 0"}], "deadLetters": "dead", "partitions": 2});
            let stream = db.create_push_stream("clicks", spec(kind)).await.unwrap();
            let rows = || vec![click(1), click(-1), click(2)];
            let first = stream.push_once(rows(), key("a", 5)).await.unwrap();
            assert_eq!((first.accepted, first.refused.len(), first.repeated), (2, 1, false));
            let again = PushAnswer { repeated: true, ..first };
            assert_eq!(stream.push_once(rows(), key("a", 5)).await.unwrap(), again, "{durability}");
            let dead = async |db: &Db| db.collection("dead").unwrap().count(None).await.unwrap();
            assert_eq!(dead(&db).await, 1, "a letter is put aside once");
            // Another producer, another number, and none.
            for (number, pushed) in [
                stream.push_once(rows(), key("b", 5)).await.unwrap(),
                stream.push_once(rows(), key("a", 4)).await.unwrap(),
                stream.push(rows()).await.unwrap(),
            ]
            .into_iter()
            .enumerate()
            {
                assert_eq!((pushed.accepted, pushed.repeated), (2, false), "{number}");
            }
            let error = stream.push_once(vec![click(1)], key("a", 5)).await.unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains("other rows"), "{error}");
            let status = stream.status();
            assert_eq!((status.pushed, status.refused, status.repeated), (8, 4, 1));
            assert!((1..=2).contains(&status.producers), "{status:?}");
            // A round in which nothing is left to be taken.
            let none = stream.push_once(vec![click(-1)], key("c", 1)).await.unwrap();
            assert_eq!((none.accepted, none.refused.len(), none.repeated), (0, 1, false));
            if durability == "memory" {
                return;
            }
            let rows_there = rows_of(&db, "clicks").await.values().map(Vec::len).sum::<usize>();
            drop(stream);
            db.close().await.unwrap();
            let db = open(&disk).await;
            let stream = db.push_stream("clicks").unwrap();
            assert_eq!(stream.push_once(rows(), key("a", 5)).await.unwrap(), again, "after a restart");
            assert_eq!(rows_of(&db, "clicks").await.values().map(Vec::len).sum::<usize>(), rows_there);
            for sequence in 6..30 {
                stream.push_once(vec![click(1)], key("a", sequence)).await.unwrap();
            }
            let error = stream.push_once(rows(), key("a", 5)).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Gone && error.message().contains("remembered from 14 on"), "{error}");
        });
    }
}

/// Pushes of one key that wait together are one, and what is known outlives the files of the rows, however often files follow each other.
#[test]
fn keys_outlive_the_rows_and_wait_together() {
    block_on(async {
        let disk = MemoryDisk::new();
        let mut db = open(&disk).await;
        let stream = db.create_push_stream("clicks", spec(json!({}))).await.unwrap();
        let held = stream.inner.lanes.lock().await;
        let mut pushes: Vec<_> =
            (0..6).map(|at| Box::pin(stream.push_once(vec![click(at / 2)], key("a", at as u64 / 2)))).collect();
        for push in &mut pushes {
            assert!(futures_util::poll!(push.as_mut()).is_pending());
        }
        drop(held);
        let mut repeated = vec![];
        for push in pushes {
            repeated.push(push.await.unwrap().repeated);
        }
        assert_eq!(repeated, [false, true, false, true, false, true]);
        let mut reader = open_one(&db, "clicks").unwrap();
        reader.connect(&Positions::new()).await.unwrap();
        drop(stream);
        let wide = |id: u64| (0..6).map(|_| row(json!({"id": id, "page": "x".repeat(60_000)}))).collect::<Vec<_>>();
        for number in 0..16u64 {
            let stream = db.push_stream("clicks").unwrap();
            let answer = stream.push_once(wide(number), key("b", number)).await.unwrap();
            assert_eq!((answer.accepted, answer.repeated), (6, false));
            let mut positions = Positions::new();
            loop {
                let batch = reader.read(100).await.unwrap();
                let Some(position) = batch.position else { break };
                positions.insert(batch.partition, position);
            }
            reader.commit(&positions).await.unwrap();
            let files = db.inner.shared.storage.list(&name::push_files(stream.id(), 0)).await.unwrap();
            assert!(files.len() <= 2, "files of rows that were read go");
            drop((stream, reader));
            db.close().await.unwrap();
            db = open(&disk).await;
            reader = open_one(&db, "clicks").unwrap();
            reader.connect(&positions).await.unwrap();
        }
        let stream = db.push_stream("clicks").unwrap();
        for number in 0..3 {
            let answer = stream.push_once(vec![click(number)], key("a", number as u64)).await.unwrap();
            assert!(answer.repeated && answer.accepted == 1, "push {number}: {answer:?}");
        }
        assert!(stream.push_once(wide(0), key("b", 0)).await.unwrap().repeated);
        assert!(stream.status().partitions[0].0 > 60, "their rows are gone: {:?}", stream.status());
    });
}

/// Whatever fails, and wherever the store dies: whoever pushes again with the same key until it is answered has each row once.
#[test]
fn what_is_pushed_again_until_it_is_answered_is_there_once() {
    let (mut failed, mut repeated) = (0, 0);
    for seed in 0..SEEDS {
        block_on(live_keyed(seed, &mut failed, &mut repeated));
    }
    assert!(failed > 100 && repeated > 20, "{failed} failed, {repeated} were there: the seeds try little");
}

async fn live_keyed(seed: u64, failed: &mut usize, repeated: &mut usize) {
    let mut random = Random::new(seed);
    let environment = Environment::simulated(seed, 1_700_000_000_000);
    let mut disk = FaultStorage::new(seed);
    let partition_by = random.one_in(2).then_some("page");
    let mut kind = json!({"partitions": 1 + random.below(3), "partitionBy": partition_by, "memoryBytes": 40 + random.below(2_000)});
    let near = random.one_in(3);
    if near {
        let dedupe = json!({"field": "v", "threshold": 0.5, "windowMs": 1_000_000_000, "metric": "l2", "key": "id"});
        kind["dedupe"] = dedupe;
        kind["partitionBy"] = json!("lang");
    }
    let made = |kind: &serde_json::Value| if near { near_spec(kind.clone()) } else { spec(kind.clone()) };
    let (mut next, mut sequences) = (0, [0u64; 2]);
    let mut open_pushes: [Option<(Vec<Row>, PushKey)>; 2] = [None, None];
    let (mut taken, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for life in 0..8 {
        let options = Options { environment: environment.clone(), ..Options::default() };
        let Ok(db) = Db::open(Arc::new(disk.clone()), options).await else {
            disk = disk.reopen();
            continue;
        };
        let stream = match db.push_stream("rows") {
            Ok(stream) => stream,
            Err(_) => match db.create_push_stream("rows", made(&kind)).await {
                Ok(stream) => stream,
                Err(_) => {
                    disk = disk.reopen();
                    continue;
                }
            },
        };
        let is_last = life == 7;
        if !is_last && random.one_in(2) {
            disk.crash_after(1 + random.below(20));
        }
        for _ in 0..random.below(12) {
            if !is_last && random.one_in(3) {
                disk.fail_at(random.below(3), ErrorKind::Io);
            }
            let who = random.below(2) as usize;
            let (rows, key) = open_pushes[who].take().unwrap_or_else(|| {
                let rows = (next..next + 1 + random.below(4) as i64).map(|id| {
                    let lang = if random.one_in(2) { "a" } else { "b" };
                    if near { post(id, lang, [random.below(12) as f32, 0.0]) } else { click(id) }
                });
                let rows: Vec<Row> = rows.collect();
                next += rows.len() as i64;
                sequences[who] += 1;
                (rows, key(["one", "two"][who], sequences[who]))
            });
            match stream.push_once(rows.clone(), key.clone()).await {
                Ok(answer) => {
                    *repeated += usize::from(answer.repeated);
                    let near: BTreeSet<usize> = answer.near.iter().map(|one| one.row).collect();
                    assert_eq!(answer.accepted + near.len(), rows.len(), "seed {seed}");
                    for (number, row) in rows.iter().enumerate() {
                        if near.contains(&number) {
                            refused.insert(id_of(row))
                        } else {
                            taken.insert(id_of(row))
                        };
                    }
                    // Now and then the answer does not arrive.
                    if random.one_in(4) {
                        let again = stream.push_once(rows.clone(), key.clone()).await;
                        if let Ok(again) = again {
                            *repeated += 1;
                            assert_eq!(again, PushAnswer { repeated: true, ..answer }, "seed {seed}");
                        }
                    }
                }
                Err(_) => {
                    *failed += 1;
                    open_pushes[who] = Some((rows, key));
                }
            }
            if !disk.crashed() {
                disk.end_plans();
            }
        }
        if is_last {
            for (rows, key) in open_pushes.iter_mut().filter_map(Option::take) {
                let answer = stream.push_once(rows.clone(), key).await.unwrap();
                let near: BTreeSet<usize> = answer.near.iter().map(|one| one.row).collect();
                for (number, row) in rows.iter().enumerate() {
                    if near.contains(&number) {
                        refused.insert(id_of(row))
                    } else {
                        taken.insert(id_of(row))
                    };
                }
            }
            let there: Vec<i64> = rows_of(&db, "rows").await.values().flatten().map(id_of).collect();
            let once: BTreeSet<i64> = there.iter().copied().collect();
            assert_eq!(once.len(), there.len(), "seed {seed}: rows are there twice: {there:?}");
            assert_eq!(once, taken, "seed {seed}");
            assert_eq!(taken.len() + refused.len(), next as usize, "seed {seed}");
            return;
        }
        drop((stream, db));
        disk = disk.reopen();
    }
    panic!("seed {seed}: the store did not open");
}

/// What says how far the numbers have got goes only once something else does.
#[test]
fn numbers_are_not_used_again_when_a_new_file_fails() {
    // Of the file that fails nothing may be there, or its beginning.
    for seed in 0..40 {
        block_on(numbers_go_on(seed));
    }
}

async fn numbers_go_on(seed: u64) {
    let environment = Environment::simulated(seed, 1_700_000_000_000);
    let options = || Options { environment: environment.clone(), ..Options::default() };
    let disk = FaultStorage::new(seed);
    let db = Db::open(Arc::new(disk.clone()), options()).await.unwrap();
    let stream = db.create_push_stream("clicks", spec(json!({}))).await.unwrap();
    let mut reader = open_one(&db, "clicks").unwrap();
    reader.connect(&Positions::new()).await.unwrap();
    let wide = || row(json!({"id": 0, "page": "x".repeat(60_000)}));
    assert_eq!(stream.push((0..18).map(|_| wide()).collect()).await.unwrap().accepted, 18);
    disk.fail_at(0, ErrorKind::Io);
    assert!(stream.push(vec![click(1)]).await.is_err());
    disk.end_plans();
    let batch = reader.read(100).await.unwrap();
    let positions = Positions::from([(batch.partition, batch.position.unwrap())]);
    reader.commit(&positions).await.unwrap();
    drop((stream, reader, db));
    let db = Db::open(Arc::new(disk.reopen()), options()).await.unwrap();
    let mut reader = open_one(&db, "clicks").unwrap();
    reader.connect(&positions).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    db.push_stream("clicks").unwrap().push(vec![click(2)]).await.unwrap();
    assert_eq!(reader.read(10).await.unwrap().rows, [click(2)], "seed {seed}");
}

/// Batches follow the load of their reader, inside their bounds, and the status tells their size.
#[test]
fn batches_follow_the_load() {
    block_on(async {
        let now_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
        let clock = now_ms.clone();
        let environment = Environment::following(7, move || clock.load(Ordering::Relaxed));
        let options = Options { environment, ..Options::default() };
        let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), options).await.unwrap();
        for wrong in [json!({"latencyMs": 0}), json!({"latencyMs": 5, "rowsMin": 9, "rowsMax": 8})] {
            let kind = spec(json!({"batching": {"adaptive": wrong}}));
            let error = db.create_push_stream("wrong", kind).await.unwrap_err();
            assert!(error.message().starts_with("batching.adaptive: "), "{error}");
        }
        let adaptive = json!({"latencyMs": 100, "rowsMin": 2, "rowsMax": 60});
        let stream = db.create_push_stream("clicks", spec(json!({"batching": {"adaptive": adaptive}}))).await.unwrap();
        let mut reader = open_one(&db, "clicks").unwrap();
        reader.connect(&Positions::new()).await.unwrap();
        assert_eq!(stream.status().batch_rows, BTreeMap::from([("reader".to_owned(), vec![2])]));
        // A row every two milliseconds; who reads needs 20 for a batch.
        let (mut id, mut sizes, mut busy_until) = (0, vec![], 0);
        for _ in 0..4_000 {
            let now = now_ms.fetch_add(2, Ordering::Relaxed) + 2;
            stream.push(vec![click(id)]).await.unwrap();
            id += 1;
            if now < busy_until {
                continue;
            }
            let batch = reader.read(1_000).await.unwrap();
            if batch.rows.is_empty() {
                assert!(reader.due_ms().is_some_and(|due_ms| due_ms > now && due_ms <= now + 100));
            } else {
                sizes.push(batch.rows.len());
                busy_until = now + 20;
            }
        }
        // 40 come in the 80 ms that remain of 100.
        let rest = &sizes[sizes.len() / 2..];
        assert!(rest.iter().all(|size| (36..=44).contains(size)), "{sizes:?}");
        let told = stream.status().batch_rows["reader"][0];
        assert!((36..=44).contains(&told), "{told}");
        // A hundred times as many: no batch has more than it may.
        for _ in 0..100 {
            stream.push((0..50).map(click).collect()).await.unwrap();
            now_ms.fetch_add(1, Ordering::Relaxed);
            assert!(reader.read(1_000).await.unwrap().rows.len() <= 60);
        }
        assert_eq!(stream.status().batch_rows["reader"], [60]);
        // What is kept of the specification is what was given.
        let kept = stream.spec().batching.adaptive.unwrap();
        assert_eq!((kept.latency_ms, kept.rows_min, kept.rows_max), (100, 2, 60));
    });
}
