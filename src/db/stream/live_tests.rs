#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::base::{ErrorKind, Random};
use crate::db::{Collection, Db, Operation, Options, QueryRequest, SearchRequest, Target, WriteOptions};
use crate::engine::CollectionSpec;
use crate::model::{Batch, Key, Row, Value};
use crate::platform::block_on;
use crate::storage::{FaultStorage, Storage};

fn spec(metric: &str) -> CollectionSpec {
    let spec = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"n","type":"int64"},
        {"name":"v","type":"float_vector","dim":4}],"indexes":{"v":{"metric":"METRIC","kind":"FLAT"}}}"#;
    serde_json::from_str(&spec.replace("METRIC", metric)).unwrap()
}

fn vector(random: &mut Random) -> Vec<f32> {
    (0..4).map(|_| (random.below(2_000_001) as f32 - 1_000_000.0) / 1e6).collect()
}

fn row(id: i64, n: i64, vector: Vec<f32>) -> Row {
    Row::from([
        ("id".to_owned(), Value::Int(id)),
        ("n".to_owned(), Value::Int(n)),
        ("v".to_owned(), Value::Vector(vector)),
    ])
}

async fn collection(metric: &str) -> (Db, Collection) {
    let storage: Arc<dyn Storage> = Arc::new(FaultStorage::new(1));
    let db = Db::open(storage, Options::default()).await.unwrap();
    let notes = db.create_collection("notes", spec(metric)).await.unwrap();
    (db, notes)
}

/// What a search of the same moment finds, exactly.
async fn found(notes: &Collection, request: &LiveRequest) -> Vec<LiveHit> {
    match request {
        LiveRequest::Nearest(request) => {
            let request = SearchRequest { exact: true, ..SearchRequest::clone(request) };
            let hits = notes.search(&request).await.unwrap().hits;
            hits.into_iter()
                .map(|hit| LiveHit { key: hit.key, score: hit.score, row: hit.row, version: String::new() })
                .collect()
        }
        LiveRequest::Rows(request) => {
            let rows = notes.query(request).await.unwrap();
            let key = |row: &Row| match row["id"] {
                Value::Int(id) => Key::Int(id),
                ref other => panic!("{other:?}"),
            };
            rows.into_iter().map(|row| LiveHit { key: key(&row), score: 0.0, row, version: String::new() }).collect()
        }
    }
}

/// Without versions, which a search does not tell.
pub(super) fn plain(answer: &[LiveHit]) -> Vec<LiveHit> {
    answer.iter().map(|hit| LiveHit { version: String::new(), ..hit.clone() }).collect()
}

/// What whoever has the old answer makes of the differences.
pub(super) fn applied(mut answer: Vec<LiveHit>, differences: &[Difference]) -> Vec<LiveHit> {
    for difference in differences {
        match difference {
            Difference::Left(_, key) => answer.retain(|hit| hit.key != *key),
            Difference::Moved(_, _, hit) => answer.retain(|there| there.key != hit.key),
            _ => {}
        }
    }
    for difference in differences {
        match difference {
            Difference::Entered(at, hit) | Difference::Moved(_, at, hit) => answer.insert(*at, hit.clone()),
            Difference::Changed(at, hit) => {
                assert_eq!(answer[*at].key, hit.key);
                answer[*at] = hit.clone();
            }
            Difference::Left(..) => {}
        }
    }
    answer
}

/// After every few writes, each answer is what a search finds anew, and the differences lead to it.
#[test]
fn answers_are_those_of_a_search_at_the_same_moment() {
    for (seed, metric) in (0..60).zip(["L2", "IP", "COSINE"].into_iter().cycle()) {
        block_on(async {
            let mut random = Random::new(seed);
            let (db, notes) = collection(metric).await;
            let mut live = notes.live().await.unwrap();
            let mut answers: BTreeMap<u64, (LiveRequest, Vec<LiveHit>)> = BTreeMap::new();
            for step in 0..60 {
                match random.below(10) {
                    0 if answers.len() < 12 => {
                        let filter = random.one_in(3).then(|| "n % 2 == 0".to_owned());
                        let limit = 1 + random.below(6) as usize;
                        let request = if random.one_in(4) {
                            LiveRequest::Rows(Box::new(QueryRequest {
                                filter,
                                limit: Some(limit),
                                ..Default::default()
                            }))
                        } else {
                            let radius = random.one_in(3).then(|| if metric == "L2" { 1.0 } else { 0.2 });
                            let vector = vector(&mut random).into();
                            LiveRequest::Nearest(Box::new(SearchRequest {
                                vector,
                                filter,
                                limit,
                                radius,
                                ..Default::default()
                            }))
                        };
                        live.update().await.unwrap();
                        let (id, answer) = live.add(request.clone()).await.unwrap();
                        assert_eq!(plain(&answer), found(&notes, &request).await, "seed {seed}, step {step}");
                        for (id, (_, answer)) in &mut answers {
                            *answer = live.answer(*id).unwrap();
                        }
                        answers.insert(id, (request, answer));
                    }
                    1 if !answers.is_empty() => {
                        let id = *random.pick(&answers.keys().copied().collect::<Vec<_>>());
                        assert!(live.remove(id) && !live.remove(id));
                        answers.remove(&id);
                    }
                    2 => db.flush("notes").await.unwrap(),
                    3 => while db.maintain().await.unwrap() {},
                    _ => {
                        let mut puts = BTreeMap::new();
                        for _ in 0..random.below(6) {
                            let id = random.below(80) as i64;
                            puts.insert(id, row(id, random.below(9) as i64, vector(&mut random)));
                        }
                        let deletes = (0..random.below(8)).map(|_| Key::Int(random.below(80) as i64));
                        let deletes =
                            deletes.filter(|key| !matches!(key, Key::Int(id) if puts.contains_key(id))).collect();
                        let puts = Batch::from_rows(&notes.spec().schema, puts.into_values().collect()).unwrap();
                        let operations = vec![Operation::Delete(Target::Keys(deletes)), Operation::Upsert(puts)];
                        notes.batch(operations, WriteOptions::default()).await.unwrap();
                    }
                }
                if random.one_in(2) {
                    for update in live.update().await.unwrap() {
                        let (_, answer) = answers.get_mut(&update.id).unwrap();
                        *answer = applied(std::mem::take(answer), &update.differences);
                    }
                    for (id, (request, answer)) in &answers {
                        assert_eq!(
                            plain(answer),
                            found(&notes, request).await,
                            "seed {seed}, step {step}, query {id}: {request:?}"
                        );
                        assert_eq!(live.answer(*id).unwrap(), *answer, "seed {seed}, step {step}");
                    }
                }
            }
        });
    }
}

#[test]
fn tells_what_entered_left_moved_and_changed() {
    block_on(async {
        let (_db, notes) = collection("L2").await;
        let put = |id: i64, n: i64, x: f32| {
            Batch::from_rows(&notes.spec().schema, vec![row(id, n, vec![x, 0.0, 0.0, 0.0])]).unwrap()
        };
        for id in 1..=4 {
            notes.insert(put(id, 0, id as f32)).await.unwrap();
        }
        let mut live = notes.live().await.unwrap();
        let request = SearchRequest { vector: vec![0.0; 4].into(), limit: 3, ..Default::default() };
        let (id, answer) = live.add(LiveRequest::Nearest(Box::new(request.clone()))).await.unwrap();
        assert_eq!(answer.iter().map(|hit| hit.key.clone()).collect::<Vec<_>>(), [1.into(), 2.into(), 3.into()]);
        let told = async |live: &mut LiveQueries| {
            let updates = live.update().await.unwrap();
            assert!(updates.iter().all(|update| update.id == id));
            let differences = updates.into_iter().flat_map(|update| update.differences);
            let told = |difference| match difference {
                Difference::Entered(at, hit) => format!("{} entered at {at}", hit.key),
                Difference::Left(at, key) => format!("{key} left {at}"),
                Difference::Moved(from, at, hit) => format!("{} moved from {from} to {at}", hit.key),
                Difference::Changed(at, hit) => format!("{} changed at {at}", hit.key),
            };
            differences.map(told).collect::<Vec<String>>()
        };
        assert_eq!(told(&mut live).await, [""; 0]);
        notes.upsert(put(2, 1, 2.0)).await.unwrap();
        assert_eq!(told(&mut live).await, ["2 changed at 1"]);
        notes.upsert(put(3, 1, 0.5)).await.unwrap();
        assert_eq!(told(&mut live).await, ["3 moved from 2 to 0"]);
        notes.insert(put(9, 0, 0.75)).await.unwrap();
        assert_eq!(told(&mut live).await, ["2 left 2", "9 entered at 1"]);
        notes.delete(Target::Keys(vec![3.into(), 1.into()])).await.unwrap();
        assert_eq!(told(&mut live).await, ["3 left 0", "1 left 2", "2 entered at 1", "4 entered at 2"]);
        notes.insert(put(10, 0, 50.0)).await.unwrap();
        assert_eq!(told(&mut live).await, [""; 0], "far away");
        let refused = [
            SearchRequest { offset: 1, ..request.clone() },
            SearchRequest { group_by: Some("n".to_owned()), ..request.clone() },
            SearchRequest { vectors: vec![vec![0.0; 4].into(); 2], ..request.clone() },
        ];
        for request in refused {
            let error = live.add(LiveRequest::Nearest(Box::new(request))).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
        let wrong = SearchRequest { vector: vec![0.0; 3].into(), ..request };
        assert_eq!(
            live.add(LiveRequest::Nearest(Box::new(wrong))).await.unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
        assert_eq!((live.len(), live.is_empty()), (1, false));
    });
}

#[test]
fn a_write_costs_only_the_queries_that_it_touches() {
    block_on(async {
        let (_db, notes) = collection("L2").await;
        let mut random = Random::new(7);
        let rows = (0..2_000).map(|id| row(id, 0, vector(&mut random))).collect();
        notes.insert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
        let mut live = notes.live().await.unwrap();
        for _ in 0..500 {
            let request = SearchRequest { vector: vector(&mut random).into(), limit: 10, ..Default::default() };
            live.add(LiveRequest::Nearest(Box::new(request))).await.unwrap();
        }
        let mut touched = 0;
        for id in 2_000..2_100 {
            let one = Batch::from_rows(&notes.spec().schema, vec![row(id, 0, vector(&mut random))]).unwrap();
            notes.insert(one).await.unwrap();
            touched += live.touched(&[Key::Int(id)]).await.unwrap().len();
            live.update().await.unwrap();
        }
        // A row is among the 26 that a query keeps of 2,000 with a chance of about 1.3 %: 6.5 of 500 queries.
        assert!(touched < 100 * 20, "{touched} queries were asked for 100 rows");
    });
}
