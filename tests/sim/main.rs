//! Seeded runs of one store against a model, with a crash at any operation of the storage: what was acknowledged is there
//! after the restart, what was not is wholly there or wholly absent. A failing seed is printed; `EDDY_SIM_SEEDS` sets how many
//! are run, `EDDY_SIM_SEED` runs one.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what went wrong by its panic and its output"
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use eddydb::base::ErrorKind;
use eddydb::db::{Collection, Db, Options, QueryRequest, SearchRequest, Target};
use eddydb::engine::CollectionSpec;
use eddydb::model::{Batch, Key, Row, Schema, Value};
use eddydb::platform::block_on;
use eddydb::storage::FaultStorage;

/// A small generator that is the same everywhere: SplitMix64 (Steele, Lea, Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

fn spec() -> CollectionSpec {
    let json = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"text","type":"varchar","maxLength":100},
        {"name":"embedding","type":"float_vector","dim":4}],"dynamic":true,"indexes":{"embedding":{"metric":"L2","kind":"FLAT"}}}"#;
    serde_json::from_str(json).unwrap()
}

type Model = BTreeMap<i64, (String, Vec<f32>)>;

fn batch(schema: &Arc<Schema>, rows: &Model) -> Batch {
    let rows = rows.iter().map(|(key, (text, vector))| {
        Row::from([
            ("id".to_owned(), Value::Int(*key)),
            ("text".to_owned(), Value::String(text.clone())),
            ("embedding".to_owned(), Value::Vector(vector.clone())),
        ])
    });
    Batch::from_rows(schema, rows.collect()).unwrap()
}

async fn contents(collection: &Collection) -> Model {
    let request = QueryRequest { output_fields: Some(vec!["*".to_owned()]), ..Default::default() };
    let rows = collection.query(&request).await.unwrap();
    rows.into_iter()
        .map(|row| {
            let (Value::Int(key), Value::String(text), Value::Vector(vector)) =
                (&row["id"], &row["text"], &row["embedding"])
            else {
                panic!("a row of other types: {row:?}")
            };
            (*key, (text.clone(), vector.clone()))
        })
        .collect()
}

/// What the store may hold: exactly `sure`, or that with the one write that was under way.
struct Expected {
    sure: Model,
    maybe: Option<Model>,
}

async fn check(collection: &Collection, expected: &mut Expected) {
    let found = contents(collection).await;
    if found != expected.sure {
        let maybe = expected.maybe.take();
        assert_eq!(
            Some(&found),
            maybe.as_ref(),
            "neither what was acknowledged ({:?}) nor with the last write",
            expected.sure
        );
        expected.sure = found;
    }
    expected.maybe = None;
    if let Some((key, (_, vector))) = expected.sure.iter().next() {
        let request = SearchRequest { vector: vector.clone().into(), limit: 1_000, ..Default::default() };
        let hits = collection.search(&request).await.unwrap().hits;
        assert_eq!(hits.len(), expected.sure.len());
        assert!(
            hits.iter().any(|hit| hit.key == Key::Int(*key) && hit.score == 0.0),
            "row {key} is not its own nearest"
        );
    }
}

async fn run(seed: u64) {
    let mut random = Random(seed);
    let mut storage = FaultStorage::new(seed);
    let mut expected = Expected { sure: Model::new(), maybe: None };
    let mut version = 0;
    let mut created = false;
    for life in 0..4 {
        if life < 3 {
            storage.crash_after(1 + random.below(60));
        }
        let opened = Db::open(Arc::new(storage.clone()), Options::default()).await;
        if let Ok(db) = opened {
            live(&db, &mut random, &mut expected, &mut version, &mut created, life == 3).await;
        } else {
            let error = opened.err().expect("it was not opened");
            assert!(storage.crashed(), "recovery failed without a crash: {error}");
        }
        if std::env::var_os("EDDY_SIM_SEED").is_some() {
            println!("life {life}: {:#?}", storage.history());
        }
        storage = storage.reopen();
    }
}

async fn live(
    db: &Db,
    random: &mut Random,
    expected: &mut Expected,
    version: &mut u64,
    created: &mut bool,
    last: bool,
) {
    let collection = match db.collection("notes") {
        Ok(collection) => collection,
        Err(error) => {
            assert!(error.kind() == ErrorKind::NotFound && !*created, "an acknowledged collection is gone: {error}");
            let Ok(collection) = db.create_collection("notes", spec()).await else { return };
            collection
        }
    };
    *created = true;
    check(&collection, expected).await;
    for _ in 0..if last { 0 } else { 30 } {
        let mut next = expected.sure.clone();
        let done = match random.below(10) {
            0..=5 => {
                let rows: Model = (0..1 + random.below(4))
                    .map(|_| {
                        *version += 1;
                        let vector = (0..4).map(|_| random.below(1000) as f32).collect();
                        (random.below(12) as i64, (format!("version {version}"), vector))
                    })
                    .collect();
                next.extend(rows.clone());
                let batch = batch(&collection.spec().schema, &rows);
                collection.upsert(batch).await.map(drop)
            }
            6..=7 => {
                let key = random.below(12) as i64;
                next.remove(&key);
                collection.delete(Target::Keys(vec![Key::Int(key)])).await.map(drop)
            }
            8 => db.flush("notes").await,
            _ => loop {
                match db.maintain().await {
                    Ok(true) => {}
                    Ok(false) => break Ok(()),
                    Err(error) => break Err(error),
                }
            },
        };
        match done {
            Ok(()) => expected.sure = next,
            Err(_) => {
                expected.maybe = Some(next);
                return;
            }
        }
    }
    check(&collection, expected).await;
    // What cannot be flushed is still in the log.
    let _ = db.close().await;
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("EDDY_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("EDDY_SIM_SEEDS").unwrap_or(2_000)).collect(),
    }
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_process_dies() {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(|| block_on(run(seed)));
        assert!(outcome.is_ok(), "seed {seed} failed: repeat it with EDDY_SIM_SEED={seed}");
    }
}
