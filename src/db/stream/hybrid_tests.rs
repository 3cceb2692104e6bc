#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::live_tests::{applied, plain};
use super::*;
use crate::base::{ErrorKind, Random};
use crate::db::{Collection, Db, HybridRequest, Operation, Options, SearchRequest, Target, WriteOptions};
use crate::engine::CollectionSpec;
use crate::model::{Batch, Key, Row, Value};
use crate::platform::block_on;
use crate::query::Rerank;
use crate::storage::{FaultStorage, Storage};

const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"n","type":"int64"},
    {"name":"title","type":"varchar","maxLength":50,"analyzer":"standard"},
    {"name":"v","type":"float_vector","dim":4},{"name":"w","type":"float_vector","dim":3,"nullable":true}],
    "indexes":{"v":{"metric":"L2","kind":"FLAT"},"w":{"metric":"COSINE","kind":"FLAT"}}}"#;

async fn collection() -> (Db, Collection) {
    let storage: Arc<dyn Storage> = Arc::new(FaultStorage::new(1));
    let db = Db::open(storage, Options::default()).await.unwrap();
    let spec: CollectionSpec = serde_json::from_str(SPEC).unwrap();
    let notes = db.create_collection("notes", spec).await.unwrap();
    (db, notes)
}

fn vector(random: &mut Random, dim: usize) -> Vec<f32> {
    (0..dim).map(|_| (random.below(2_000_001) as f32 - 1_000_000.0) / 1e6).collect()
}

fn words(random: &mut Random, most: u64) -> String {
    let words: Vec<&str> =
        (0..1 + random.below(most)).map(|_| *random.pick(&["sea", "tide", "ebb", "swell", "surf"])).collect();
    words.join(" ")
}

fn row(random: &mut Random, id: i64) -> Row {
    let mut row = Row::from([
        ("id".to_owned(), Value::Int(id)),
        ("n".to_owned(), Value::Int(random.below(9) as i64)),
        ("title".to_owned(), Value::String(words(random, 6))),
        ("v".to_owned(), Value::Vector(vector(random, 4))),
    ]);
    if !random.one_in(5) {
        row.insert("w".to_owned(), Value::Vector(vector(random, 3)));
    }
    row
}

fn request(random: &mut Random) -> HybridRequest {
    let search = |random: &mut Random| {
        let (field, vector) = match random.below(3) {
            0 => ("v", vector(random, 4).into()),
            1 => ("w", vector(random, 3).into()),
            _ => ("title", Value::String(words(random, 2))),
        };
        SearchRequest {
            field: Some(field.to_owned()),
            vector,
            limit: 1 + random.below(12) as usize,
            filter: random.one_in(3).then(|| "n % 2 == 0".to_owned()),
            ..SearchRequest::default()
        }
    };
    let searches: Vec<SearchRequest> = (0..1 + random.below(3)).map(|_| search(random)).collect();
    let weights: Vec<f64> = searches.iter().map(|_| (1 + random.below(9)) as f64 / 10.0).collect();
    let rerank = if random.one_in(2) {
        Rerank::Weighted { weights, normalize: random.one_in(2) }
    } else {
        Rerank::Rrf { k: 60.0 }
    };
    let output_fields = random.one_in(2).then(|| vec!["n".to_owned()]);
    HybridRequest {
        searches,
        rerank,
        rankers: Vec::new(),
        limit: 1 + random.below(8) as usize,
        offset: 0,
        output_fields,
    }
}

async fn found(notes: &Collection, request: &HybridRequest) -> Vec<LiveHit> {
    let mut request = request.clone();
    request.searches.iter_mut().for_each(|search| search.exact = true);
    let hits = notes.hybrid_search(&request).await.unwrap().hits;
    let hit = |hit: crate::db::Hit| LiveHit { key: hit.key, score: hit.score, row: hit.row, version: String::new() };
    hits.into_iter().map(hit).collect()
}

/// After every few writes, each answer is what a fresh hybrid search of exact searches finds, and the differences lead to it.
#[test]
fn answers_are_those_of_a_hybrid_search_at_the_same_moment() {
    let (mut entered, mut moved) = (0, 0);
    for seed in 0..80 {
        block_on(async {
            let mut random = Random::new(seed);
            let (db, notes) = collection().await;
            let mut live = notes.live().await.unwrap();
            let mut answers: BTreeMap<u64, (HybridRequest, Vec<LiveHit>)> = BTreeMap::new();
            for step in 0..60 {
                match random.below(10) {
                    0 | 1 if answers.len() < 6 => {
                        let request = request(&mut random);
                        // Added in between, it is at the moment that the others are at.
                        live.update().await.unwrap();
                        let (id, answer) = live.add_hybrid(request.clone()).await.unwrap();
                        assert_eq!(plain(&answer), found(&notes, &request).await, "seed {seed}, step {step}");
                        for (id, (_, answer)) in &mut answers {
                            *answer = live.answer(*id).unwrap();
                        }
                        answers.insert(id, (request, answer));
                    }
                    2 if !answers.is_empty() => {
                        let id = *random.pick(&answers.keys().copied().collect::<Vec<_>>());
                        assert!(live.remove(id) && !live.remove(id), "seed {seed}");
                        answers.remove(&id);
                        assert_eq!(live.len(), answers.len(), "seed {seed}: its searches went with it");
                    }
                    3 => db.flush("notes").await.unwrap(),
                    4 => while db.maintain().await.unwrap() {},
                    _ => {
                        let ids: std::collections::BTreeSet<i64> =
                            (0..random.below(6)).map(|_| random.below(60) as i64).collect();
                        let puts = ids.iter().map(|id| row(&mut random, *id)).collect();
                        let gone: Vec<i64> = (0..random.below(5)).map(|_| random.below(60) as i64).collect();
                        let gone = gone.into_iter().filter(|id| !ids.contains(id)).map(Key::Int).collect();
                        let puts = Batch::from_rows(&notes.spec().schema, puts).unwrap();
                        let operations = vec![Operation::Delete(Target::Keys(gone)), Operation::Upsert(puts)];
                        notes.batch(operations, WriteOptions::default()).await.unwrap();
                    }
                }
                if random.one_in(2) {
                    for update in live.update().await.unwrap() {
                        let (_, answer) = answers.get_mut(&update.id).expect("a search is told of as its whole");
                        for difference in &update.differences {
                            entered += usize::from(matches!(difference, Difference::Entered(..)));
                            moved += usize::from(matches!(difference, Difference::Moved(..)));
                        }
                        *answer = applied(std::mem::take(answer), &update.differences);
                    }
                    for (id, (request, answer)) in &answers {
                        let wanted = found(&notes, request).await;
                        assert_eq!(plain(answer), wanted, "seed {seed}, step {step}, query {id}: {request:?}");
                        assert_eq!(live.answer(*id).unwrap(), *answer, "seed {seed}, step {step}");
                    }
                }
            }
        });
    }
    assert!(entered > 100 && moved > 100, "{entered} entered, {moved} moved: the seeds try nothing");
}

#[test]
fn what_no_row_alone_decides_is_refused_and_leaves_nothing() {
    block_on(async {
        let (_db, notes) = collection().await;
        let mut live = notes.live().await.unwrap();
        let near = SearchRequest { field: Some("v".into()), vector: vec![0.0; 4].into(), ..SearchRequest::default() };
        let words = SearchRequest {
            field: Some("title".into()),
            vector: Value::String("tide".to_owned()),
            ..SearchRequest::default()
        };
        let of = |searches: Vec<SearchRequest>| HybridRequest {
            searches,
            rerank: Rerank::default(),
            rankers: Vec::new(),
            limit: 3,
            offset: 0,
            output_fields: None,
        };
        let mut refused = async |request: HybridRequest, kind: ErrorKind| {
            assert_eq!(live.add_hybrid(request).await.unwrap_err().kind(), kind);
            assert!(live.is_empty(), "a search of what was refused is left");
        };
        let grouped = SearchRequest { group_by: Some("n".to_owned()), ..words.clone() };
        refused(of(vec![near.clone(), grouped]), ErrorKind::Unsupported).await;
        let shown = SearchRequest { highlight: Some(Default::default()), ..words.clone() };
        refused(of(vec![near.clone(), shown]), ErrorKind::Unsupported).await;
        let nowhere = SearchRequest { field: Some("n".into()), ..words };
        refused(of(vec![near.clone(), nowhere]), ErrorKind::InvalidArgument).await;
        refused(HybridRequest { offset: 1, ..of(vec![near.clone()]) }, ErrorKind::Unsupported).await;
        refused(of(vec![]), ErrorKind::InvalidArgument).await;
        let weights = Rerank::Weighted { weights: vec![1.0, 2.0], normalize: true };
        refused(HybridRequest { rerank: weights, ..of(vec![near.clone()]) }, ErrorKind::InvalidArgument).await;
        let wrong = SearchRequest { vector: vec![0.0; 5].into(), ..near.clone() };
        refused(of(vec![near, wrong]), ErrorKind::InvalidArgument).await;
    });
}
