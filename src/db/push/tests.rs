use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::base::Random;
use crate::db::source::{Asked, Positions, Source, conformance};
use crate::db::{Options, QueryRequest};
use crate::platform::{Environment, block_on};
use crate::storage::{FaultStorage, MemoryDisk};

const SEEDS: u64 = 200;

fn row(json: serde_json::Value) -> Row {
    json.as_object().unwrap().iter().map(|(name, one)| (name.clone(), Value::from(one.clone()))).collect()
}

fn spec(json: serde_json::Value) -> PushStreamSpec {
    let mut all =
        json!({"fields": [{"name": "id", "type": "int64"}, {"name": "page", "type": "varchar", "nullable": true}]});
    all.as_object_mut().unwrap().extend(json.as_object().unwrap().clone());
    PushStreamSpec::from_json(&all.to_string()).unwrap()
}

fn click(id: i64) -> Row {
    row(json!({"id": id, "page": format!("page {}", id % 3)}))
}

async fn open(disk: &MemoryDisk) -> Db {
    Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap()
}

fn open_one(db: &Db, stream: &str) -> Result<Box<dyn Source>> {
    let relation = db.push_stream(stream)?.relation().clone();
    db.open_source(CONNECTOR, &Asked { name: stream, reader: "reader", relation: &relation, options: &json!(null) })
}

/// All rows, by partition.
async fn rows_of(db: &Db, stream: &str) -> BTreeMap<u32, Vec<Row>> {
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
        let held = stream.inner.logs.lock().await;
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
