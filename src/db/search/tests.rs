//! Every form of search against what looking at each row comes to, over segments in memory, in storage and growing.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::Random;
use crate::db::{Collection, Db, Hit, HybridRequest, Options, QueryRequest, SearchRequest};
use crate::engine::{CollectionSpec, View};
use crate::model::{Batch, Key, Row, Value};
use crate::platform::block_on;
use crate::query::{Decay, DecayFunction, Ranker, Rerank};
use crate::storage::MemoryDisk;

const DIM: usize = 8;
const ROWS: i64 = 4_000;

fn spec(metric: &str) -> CollectionSpec {
    serde_json::from_str(&format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},
            {{"name":"group","type":"int64","nullable":true}},
            {{"name":"price","type":"double","nullable":true}},
            {{"name":"text","type":"varchar","maxLength":3000}},
            {{"name":"v","type":"float_vector","dim":{DIM}}}],
            "dynamic":true,"indexes":{{"v":{{"metric":"{metric}","kind":{{"HNSW":{{"m":8,"ef_construction":64}}}}}}}}}}"#
    ))
    .unwrap()
}

fn vector(seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..DIM).map(|_| (random.below(2_001) as f32 - 1_000.0) / 1_000.0).collect()
}

fn row(id: i64, round: u64) -> Row {
    let mut random = Random::new(id as u64 * 7 + round);
    let mut row = Row::from([
        ("id".to_owned(), Value::Int(id)),
        ("text".to_owned(), Value::String(format!("{id} {}", "long ".repeat(300)))),
        ("v".to_owned(), Value::Vector(vector(id as u64 + (round << 32)))),
        ("shelf".to_owned(), Value::String(format!("S{}", id % 5))),
    ]);
    if id % 11 != 0 {
        // Few rows of most groups, many of one.
        let group = if random.below(3) == 0 { 0 } else { random.below(40) as i64 };
        row.insert("group".to_owned(), Value::Int(group));
    }
    if id % 7 != 0 {
        row.insert("price".to_owned(), Value::Double(random.below(1_000) as f64 / 4.0));
    }
    row
}

/// What is in the collection, by key.
type Rows = BTreeMap<i64, Row>;

/// Flushed segments, some rows of which were replaced or deleted, and a growing one; in storage but for what must be in memory when `is_cold`.
async fn filled(metric: &str, is_cold: bool) -> (Db, Collection, Rows) {
    let options = Options { memory_limit_bytes: is_cold.then_some(1 << 20), ..Options::default() };
    let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), options).await.unwrap();
    let things = db.create_collection("things", spec(metric)).await.unwrap();
    let mut rows = Rows::new();
    for ids in (0..ROWS).collect::<Vec<_>>().chunks(500) {
        let mut batch: Vec<Row> = ids.iter().map(|&id| row(id, 0)).collect();
        if ids[0] > 0 {
            batch.extend((0..20).map(|at| row(ids[0] - 1 - at * 3, 1)));
        }
        rows.extend(batch.iter().map(|row| (id_of(row), row.clone())));
        things.upsert(Batch::from_rows(&things.spec().schema, batch).unwrap()).await.unwrap();
        let gone: Vec<i64> = (0..10).map(|at| ids[0] + 100 + at * 7).collect();
        gone.iter().for_each(|id| drop(rows.remove(id)));
        things.delete(crate::db::Target::Keys(gone.into_iter().map(Key::Int).collect())).await.unwrap();
        if ids[0] % 1_000 == 0 {
            while db.maintain().await.unwrap() {}
            db.flush("things").await.unwrap();
        }
    }
    while db.maintain().await.unwrap() {}
    (db, things, rows)
}

fn id_of(row: &Row) -> i64 {
    match row["id"] {
        Value::Int(id) => id,
        _ => panic!("{row:?}"),
    }
}

fn score(metric: &str, query: &[f32], row: &Row) -> f32 {
    let Value::Vector(vector) = &row["v"] else { panic!() };
    let pairs = query.iter().zip(vector);
    if metric == "L2" { pairs.map(|(a, b)| (a - b) * (a - b)).sum() } else { pairs.map(|(a, b)| a * b).sum() }
}

/// All rows that pass, the nearest first.
fn ranked<'r>(metric: &str, query: &[f32], rows: &'r Rows, pass: impl Fn(&Row) -> bool) -> Vec<(i64, f32, &'r Row)> {
    let passing = rows.values().filter(|row| pass(row));
    let mut ranked: Vec<_> = passing.map(|row| (id_of(row), score(metric, query, row), row)).collect();
    ranked.sort_by(|a, b| {
        let order = if metric == "L2" { a.1.total_cmp(&b.1) } else { b.1.total_cmp(&a.1) };
        order.then(a.0.cmp(&b.0))
    });
    ranked
}

fn ids(hits: &[Hit]) -> Vec<i64> {
    hits.iter().map(|hit| if let Key::Int(id) = hit.key { id } else { panic!() }).collect()
}

fn request(vector: Vec<f32>, limit: usize) -> SearchRequest {
    let output_fields = Some(vec!["id".to_owned()]);
    SearchRequest { vector: vector.into(), limit, exact: true, output_fields, ..Default::default() }
}

/// Distances are added up in another order than here.
fn same_but_for_ties(found: &[i64], expected: &[(i64, f32, &Row)]) {
    assert_eq!(found.len(), expected.len());
    for (at, id) in found.iter().enumerate() {
        let score = expected.iter().find(|row| row.0 == *id).unwrap_or_else(|| panic!("{id} is too far")).1;
        assert!((score - expected[at].1).abs() < 1e-4, "{id} at {at}");
    }
}

#[test]
fn a_range_has_what_lies_between_its_bounds() {
    block_on(async {
        for (metric, is_cold) in [("L2", false), ("IP", false), ("L2", true)] {
            let (_db, things, rows) = filled(metric, is_cold).await;
            let query = vector(9_001);
            let all = ranked(metric, &query, &rows, |_| true);
            // Between two scores that no row has.
            let between = |at: usize| (all[at - 1].1 + all[at].1) / 2.0;
            for (near, far) in [
                (None, Some(300)),
                (Some(40), Some(300)),
                (Some(700), None),
                (Some(3_000), Some(3_100)),
                (None, Some(1)),
            ] {
                let ranged = SearchRequest {
                    range_filter: near.map(between),
                    radius: far.map(between),
                    ..request(query.clone(), 100)
                };
                let found = things.search(&ranged).await.unwrap();
                let expected = &all[near.unwrap_or(0)..far.unwrap_or(all.len())];
                same_but_for_ties(&ids(&found.hits), &expected[..expected.len().min(100)]);
                // An index may not find all, but nothing outside.
                let by_index = things.search(&SearchRequest { exact: false, ..ranged }).await.unwrap();
                assert!(
                    ids(&by_index.hits).iter().all(|id| expected.iter().any(|row| row.0 == *id)),
                    "{near:?} {far:?}"
                );
            }
            let wrong =
                SearchRequest { range_filter: Some(between(300)), radius: Some(between(40)), ..request(query, 10) };
            assert!(things.search(&wrong).await.unwrap_err().message().contains("nearer bound"));
        }
    });
}

#[test]
fn groups_are_those_of_the_best_rows() {
    block_on(async {
        for is_cold in [false, true] {
            let (_db, things, rows) = filled("L2", is_cold).await;
            for (field, size, strict, limit, offset) in [
                ("group", 1, false, 10, 0),
                ("group", 3, true, 8, 2),
                ("group", 2, true, 60, 0),
                ("shelf", 4, true, 5, 0),
                ("shelf", 2, false, 3, 1),
            ] {
                let query = vector(9_002);
                let grouped = SearchRequest {
                    group_by: Some(field.to_owned()),
                    group_size: size,
                    strict_group_size: strict,
                    offset,
                    ..request(query.clone(), limit)
                };
                let found = things.search(&grouped).await.unwrap().hits;
                let mut order: Vec<&Value> = Vec::new();
                let mut members: BTreeMap<usize, Vec<i64>> = BTreeMap::new();
                for (id, _, row) in ranked("L2", &query, &rows, |_| true) {
                    let value = row.get(field).unwrap_or(&Value::Null);
                    let at = order.iter().position(|there| *there == value).unwrap_or_else(|| {
                        order.push(value);
                        order.len() - 1
                    });
                    let group = members.entry(at).or_default();
                    if group.len() < size {
                        group.push(id);
                    }
                }
                let expected: Vec<Vec<i64>> = members.into_values().skip(offset).take(limit).collect();
                if strict || size == 1 {
                    assert_eq!(ids(&found), expected.concat(), "{field} {size}");
                } else {
                    let firsts: Vec<i64> = expected.iter().map(|group| group[0]).collect();
                    assert!(firsts.iter().all(|id| ids(&found).contains(id)));
                    assert!(ids(&found).iter().all(|id| expected.concat().contains(id)));
                }
                assert!(found.iter().all(|hit| hit.row.get(field)
                    == rows[&id_of(&hit.row)].get(field).or(if field == "group" { Some(&Value::Null) } else { None })));
            }
            let wrong = SearchRequest { group_by: Some("v".to_owned()), ..request(vector(1), 10) };
            assert!(things.search(&wrong).await.unwrap_err().message().contains("vector field"));
            let wrong = SearchRequest { group_size: 2, ..request(vector(1), 10) };
            assert!(things.search(&wrong).await.unwrap_err().message().contains("need groupBy"));
        }
    });
}

#[test]
fn a_batch_is_what_its_queries_are_one_by_one() {
    block_on(async {
        for is_cold in [false, true] {
            let (_db, things, rows) = filled("IP", is_cold).await;
            let filter = Some("group < 20".to_owned());
            for exact in [true, false] {
                let queries: Vec<Vec<f32>> = (0..20).map(|seed| vector(9_100 + seed)).collect();
                let batch = SearchRequest {
                    vector: Value::Null,
                    vectors: queries.iter().cloned().map(Value::Vector).collect(),
                    filter: filter.clone(),
                    exact,
                    ..request(Vec::new(), 7)
                };
                let together = things.search(&batch).await.unwrap();
                assert!(together.hits.is_empty());
                assert_eq!(together.results.len(), queries.len());
                for (query, hits) in queries.into_iter().zip(together.results) {
                    let alone = SearchRequest { filter: filter.clone(), exact, ..request(query, 7) };
                    assert_eq!(things.search(&alone).await.unwrap().hits, hits);
                }
            }
            let keys: Vec<Key> = [17, 2_345, 17].map(Key::Int).to_vec();
            let alike = SearchRequest { vector: Value::Null, ids: keys, ..request(Vec::new(), 5) };
            let found = things.search(&alike).await.unwrap().results;
            assert_eq!(found.len(), 3);
            for (id, hits) in [17, 2_345, 17].into_iter().zip(&found) {
                let Value::Vector(query) = &rows[&id]["v"] else { panic!() };
                same_but_for_ties(&ids(hits), &ranked("IP", query, &rows, |row| id_of(row) != id)[..5]);
            }
            let missing =
                SearchRequest { vector: Value::Null, ids: vec![Key::Int(ROWS + 1)], ..request(Vec::new(), 5) };
            assert!(things.search(&missing).await.unwrap_err().message().contains("no row with key 4001"));
            let both = SearchRequest { ids: vec![Key::Int(17)], ..request(vector(1), 5) };
            assert!(things.search(&both).await.unwrap_err().message().contains("one of vector, vectors and ids"));
        }
    });
}

/// Whatever is written, flushed and merged meanwhile.
#[test]
fn iterators_neither_repeat_nor_miss() {
    block_on(async {
        for (exact, is_cold) in [(true, false), (false, false), (false, true)] {
            let (db, things, rows) = filled("L2", is_cold).await;
            let query = vector(9_003);
            let filter = "price > 20 or group == 0";
            let pass = |row: &Row| {
                matches!(row.get("price"), Some(Value::Double(price)) if *price > 20.0)
                    || row.get("group") == Some(&Value::Int(0))
            };
            let expected = ranked("L2", &query, &rows, pass);
            let searched = SearchRequest { filter: Some(filter.to_owned()), exact, ..request(query, 0) };
            let queried = QueryRequest {
                filter: Some(filter.to_owned()),
                output_fields: Some(vec!["id".to_owned()]),
                ..Default::default()
            };
            let mut nearest = things.snapshot().unwrap().search_iterator(searched).await.unwrap();
            let mut scan = things.snapshot().unwrap().query_iterator(queried).unwrap();
            let (mut near, mut scanned) = (Vec::new(), Vec::new());
            let mut step = 0;
            loop {
                let hits = nearest.next(1 + step % 400).await.unwrap();
                let rows = scan.next(1 + step % 300).await.unwrap();
                if hits.is_empty() && rows.is_empty() {
                    break;
                }
                near.extend(ids(&hits));
                scanned.extend(rows.iter().map(id_of));
                // The world goes on.
                step += 37;
                let changed: Vec<Row> = (0..40).map(|at| row((step as i64 * 13 + at * 91) % (ROWS + 500), 2)).collect();
                let changed: Rows = changed.into_iter().map(|row| (id_of(&row), row)).collect();
                let changed = changed.into_values().collect();
                things.upsert(Batch::from_rows(&things.spec().schema, changed).unwrap()).await.unwrap();
                if step % 3 == 0 {
                    db.flush("things").await.unwrap();
                }
                db.maintain().await.unwrap();
            }
            let keys: Vec<i64> = expected.iter().map(|row| row.0).collect::<BTreeSet<_>>().into_iter().collect();
            assert_eq!(scanned, keys);
            let distinct: BTreeSet<i64> = near.iter().copied().collect();
            assert_eq!(distinct.len(), near.len(), "none twice");
            assert_eq!(distinct.into_iter().collect::<Vec<_>>(), keys);
            if exact {
                same_but_for_ties(&near, &expected);
            }
        }
    });
}

#[test]
fn iterators_end_at_their_limit_and_radius() {
    block_on(async {
        let (_db, things, rows) = filled("L2", false).await;
        let query = vector(9_004);
        let all = ranked("L2", &query, &rows, |_| true);
        let limited = SearchRequest {
            radius: Some((all[249].1 + all[250].1) / 2.0),
            range_filter: Some((all[9].1 + all[10].1) / 2.0),
            ..request(query.clone(), 0)
        };
        for (limit, end) in [(0, 250), (33, 43)] {
            let limited = SearchRequest { limit, ..limited.clone() };
            let mut iterator = things.snapshot().unwrap().search_iterator(limited).await.unwrap();
            let mut found = Vec::new();
            loop {
                let hits = iterator.next(20).await.unwrap();
                if hits.is_empty() {
                    break;
                }
                found.extend(ids(&hits));
            }
            same_but_for_ties(&found, &all[10..end]);
        }
        let page = QueryRequest { limit: Some(25), offset: 5, ..Default::default() };
        let expected: Vec<i64> = rows.keys().copied().skip(5).take(25).collect();
        let mut iterator = things.snapshot().unwrap().query_iterator(page).unwrap();
        let mut found = Vec::new();
        for _ in 0..4 {
            found.extend(iterator.next(10).await.unwrap().iter().map(id_of));
        }
        assert_eq!(found, expected);
        let grouped = SearchRequest { group_by: Some("group".to_owned()), ..request(query, 0) };
        assert!(things.snapshot().unwrap().search_iterator(grouped).await.is_err());
    });
}

fn value<'r>(row: &'r Row, field: &str) -> &'r Value {
    row.get(field).unwrap_or(&Value::Null)
}

#[test]
fn rows_come_in_the_order_that_is_asked_for() {
    block_on(async {
        for is_cold in [false, true] {
            let (_db, things, rows) = filled("L2", is_cold).await;
            for (order, offset, limit) in [
                (vec!["price desc"], 0, Some(50)),
                (vec!["group", "price DESC"], 30, Some(200)),
                (vec!["shelf desc", "group asc", "id desc"], 0, None),
                (vec!["text"], 3_800, Some(500)),
            ] {
                let request = QueryRequest {
                    filter: Some("id >= 50".to_owned()),
                    order_by: order.iter().map(|&field| field.to_owned()).collect(),
                    output_fields: Some(vec!["id".to_owned()]),
                    offset,
                    limit,
                    ..Default::default()
                };
                let found: Vec<i64> = things.query(&request).await.unwrap().iter().map(id_of).collect();
                let mut expected: Vec<&Row> = rows.values().filter(|row| id_of(row) >= 50).collect();
                expected.sort_by(|a, b| {
                    let order = order.iter().map(|order| {
                        let (field, down) = match order.split_once(' ') {
                            Some((field, word)) => (field, word.eq_ignore_ascii_case("desc")),
                            None => (*order, false),
                        };
                        match (value(a, field), value(b, field)) {
                            (Value::Null, Value::Null) => std::cmp::Ordering::Equal,
                            (Value::Null, _) => std::cmp::Ordering::Greater,
                            (_, Value::Null) => std::cmp::Ordering::Less,
                            (Value::Int(a), Value::Int(b)) => {
                                if down {
                                    b.cmp(a)
                                } else {
                                    a.cmp(b)
                                }
                            }
                            (Value::Double(a), Value::Double(b)) => {
                                if down {
                                    b.total_cmp(a)
                                } else {
                                    a.total_cmp(b)
                                }
                            }
                            (Value::String(a), Value::String(b)) => {
                                if down {
                                    b.cmp(a)
                                } else {
                                    a.cmp(b)
                                }
                            }
                            other => panic!("{other:?}"),
                        }
                    });
                    order.chain([id_of(a).cmp(&id_of(b))]).find(|order| order.is_ne()).unwrap()
                });
                let expected: Vec<i64> =
                    expected.into_iter().skip(offset).take(limit.unwrap_or(usize::MAX)).map(id_of).collect();
                assert_eq!(found, expected, "{order:?}");
            }
            for (field, message) in [("v", "no order and no groups"), ("embedding desc", "")] {
                let request = QueryRequest { order_by: vec![field.to_owned()], ..Default::default() };
                match things.query(&request).await {
                    Err(error) => assert!(error.message().contains(message), "{error}"),
                    // A key that no row has: all are alike.
                    Ok(all) => assert_eq!(all.len(), rows.len()),
                }
            }
        }
    });
}

#[test]
fn groups_of_rows_are_counted_and_added_up() {
    block_on(async {
        for is_cold in [false, true] {
            let (_db, things, rows) = filled("L2", is_cold).await;
            let ask = |output: &[&str], group: &[&str], order: &[&str], limit| QueryRequest {
                filter: Some("price < 200 or price is null".to_owned()),
                output_fields: Some(output.iter().map(|&field| field.to_owned()).collect()),
                group_by: group.iter().map(|&field| field.to_owned()).collect(),
                order_by: order.iter().map(|&field| field.to_owned()).collect(),
                limit,
                ..Default::default()
            };
            let passing: Vec<&Row> = rows
                .values()
                .filter(|row| !matches!(row.get("price"), Some(Value::Double(price)) if *price >= 200.0))
                .collect();
            let functions =
                ["count(*)", "count(price)", "sum(price)", "min(price)", "max(id)", "avg(price)", "sum(id)"];
            for groups in [vec!["group"], vec!["shelf", "group"], vec![]] {
                let found = things.query(&ask(&functions, &groups, &[], None)).await.unwrap();
                let mut expected: Vec<(Vec<&Value>, Vec<&Row>)> = Vec::new();
                for row in &passing {
                    let key: Vec<&Value> = groups.iter().map(|field| value(row, field)).collect();
                    match expected.iter_mut().find(|(there, _)| *there == key) {
                        Some((_, rows)) => rows.push(row),
                        None => expected.push((key, vec![row])),
                    }
                }
                assert_eq!(found.len(), expected.len());
                for row in &found {
                    let key: Vec<&Value> = groups.iter().map(|field| &row[*field]).collect();
                    let (_, rows) = expected.iter().find(|(there, _)| *there == key).unwrap();
                    let prices: Vec<f64> = rows
                        .iter()
                        .filter_map(
                            |row| if let Value::Double(price) = value(row, "price") { Some(*price) } else { None },
                        )
                        .collect();
                    let sum: f64 = prices.iter().sum();
                    let least = prices.iter().copied().reduce(f64::min).map_or(Value::Null, Value::Double);
                    let (mean, total) = if prices.is_empty() {
                        (Value::Null, Value::Null)
                    } else {
                        (Value::Double(sum / prices.len() as f64), Value::Double(sum))
                    };
                    let ids = rows.iter().map(|row| id_of(row));
                    let wanted = [
                        Value::Int(rows.len() as i64),
                        Value::Int(prices.len() as i64),
                        total,
                        least,
                        Value::Int(ids.clone().max().unwrap()),
                        mean,
                        Value::Int(ids.sum()),
                    ];
                    for (function, wanted) in functions.iter().zip(wanted) {
                        assert_eq!(row[*function], wanted, "{function} of {key:?}");
                    }
                }
            }
            let largest =
                things.query(&ask(&["count(*)", "group"], &["group"], &["count(*) desc"], Some(1))).await.unwrap();
            assert_eq!((largest.len(), &largest[0]["group"]), (1, &Value::Int(0)));
            let none =
                QueryRequest { filter: Some("id < 0".to_owned()), ..ask(&["count(*)", "sum(id)"], &[], &[], None) };
            let row = &things.query(&none).await.unwrap()[0];
            assert_eq!((&row["count(*)"], &row["sum(id)"]), (&Value::Int(0), &Value::Null));
            for (request, message) in [
                (ask(&["count(*)", "text"], &["group"], &[], None), "\"text\" beside groups"),
                (ask(&["count(*)"], &["v"], &[], None), "no order and no groups"),
                (ask(&["count(*)"], &["group"], &["price"], None), "orderBy \"price\""),
            ] {
                assert!(things.query(&request).await.unwrap_err().message().contains(message));
            }
        }
    });
}

#[test]
fn hits_of_several_searches_are_ranked_together() {
    block_on(async {
        for is_cold in [false, true] {
            let (_db, things, rows) = filled("L2", is_cold).await;
            let (first, second) = (vector(9_201), vector(9_202));
            let searches = vec![
                SearchRequest { filter: Some("group < 20".to_owned()), ..request(first.clone(), 60) },
                request(second.clone(), 40),
            ];
            let below = |row: &Row| matches!(value(row, "group"), Value::Int(group) if *group < 20);
            let lists = [
                ranked("L2", &first, &rows, below)[..60].to_vec(),
                ranked("L2", &second, &rows, |_| true)[..40].to_vec(),
            ];
            let norm = |score: f32| 1.0 - 2.0 * f64::from(score).atan() / std::f64::consts::PI;
            type Part = Box<dyn Fn(usize, usize, f32) -> f64>;
            let cases: [(Rerank, Part); 3] = [
                (Rerank::Rrf { k: 10.0 }, Box::new(|_, rank, _| 1.0 / (11.0 + rank as f64))),
                (
                    Rerank::Weighted { weights: vec![0.7, 0.3], normalize: true },
                    Box::new(move |at, _, score| [0.7, 0.3][at] * norm(score)),
                ),
                (
                    Rerank::Weighted { weights: vec![1.0, 2.0], normalize: false },
                    Box::new(|at, _, score| -[1.0, 2.0][at] * f64::from(score)),
                ),
            ];
            let decay = Decay {
                field: "price".to_owned(),
                function: DecayFunction::Gauss,
                origin: 100.0,
                scale: 50.0,
                offset: 10.0,
                decay: 0.5,
            };
            let curve = decay.curve();
            let boost =
                Ranker::Boost { filter: "shelf == 'S3'".to_owned(), filter_params: Default::default(), weight: 3.0 };
            for (rerank, part) in &cases {
                for rankers in [vec![], vec![Ranker::Decay(decay.clone()), boost.clone()]] {
                    let mut scores: BTreeMap<i64, f64> = BTreeMap::new();
                    for (at, list) in lists.iter().enumerate() {
                        for (rank, (id, score, _)) in list.iter().enumerate() {
                            *scores.entry(*id).or_default() += part(at, rank, *score);
                        }
                    }
                    if !rankers.is_empty() {
                        for (id, score) in &mut scores {
                            *score *= curve.factor(rows[id].get("price"));
                            *score *= if rows[id]["shelf"] == Value::String("S3".to_owned()) { 3.0 } else { 1.0 };
                        }
                    }
                    let mut expected: Vec<f64> = scores.values().copied().collect();
                    expected.sort_by(|a, b| b.total_cmp(a));
                    let hybrid = HybridRequest {
                        searches: searches.clone(),
                        rerank: rerank.clone(),
                        rankers,
                        limit: 20,
                        offset: 3,
                        output_fields: Some(vec!["price".to_owned()]),
                    };
                    let found = things.hybrid_search(&hybrid).await.unwrap().hits;
                    assert_eq!(found.len(), 20);
                    for (at, hit) in found.iter().enumerate() {
                        let id = ids(std::slice::from_ref(hit))[0];
                        assert!((f64::from(hit.score) - expected[at + 3]).abs() < 1e-4, "{rerank:?} at {at}");
                        assert!((f64::from(hit.score) - scores[&id]).abs() < 1e-4, "{rerank:?} at {at}");
                        assert_eq!(value(&hit.row, "price"), value(&rows[&id], "price"));
                    }
                }
            }
            // One search, ranked anew: of a hundred candidates.
            let reranked = SearchRequest { rankers: vec![boost], ..request(first.clone(), 5) };
            let found = things.search(&reranked).await.unwrap().hits;
            let mut expected: Vec<(f64, i64)> = ranked("L2", &first, &rows, |_| true)[..100]
                .iter()
                .map(|(id, score, row)| {
                    (norm(*score) * if row["shelf"] == Value::String("S3".to_owned()) { 3.0 } else { 1.0 }, *id)
                })
                .collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (hit, expected) in found.iter().zip(&expected) {
                assert!((f64::from(hit.score) - expected.0).abs() < 1e-4);
            }
            let wrong = HybridRequest {
                rerank: Rerank::Weighted { weights: vec![1.0], normalize: true },
                searches,
                limit: 5,
                ..Default::default()
            };
            assert!(things.hybrid_search(&wrong).await.unwrap_err().message().contains("1 weights for 2 searches"));
        }
    });
}

/// Long searches of a hybrid are done side by side, short ones one after the other, and both come to the same.
#[test]
fn searches_of_a_hybrid_side_by_side_find_what_they_find_in_turn() {
    block_on(async {
        let spec: CollectionSpec = serde_json::from_str(
            r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"a","type":"float_vector","dim":8},
                {"name":"b","type":"float_vector","dim":8}],
                "dynamic":false,"indexes":{"a":{"metric":"L2","kind":"FLAT"},"b":{"metric":"L2","kind":"FLAT"}}}"#,
        )
        .unwrap();
        let disk = MemoryDisk::new();
        let open = |threads| {
            Db::open(Arc::new(disk.open().unwrap()), Options { threads: Some(threads), ..Options::default() })
        };
        let db = open(4).await.unwrap();
        let pairs = db.create_collection("pairs", spec).await.unwrap();
        let searches = |limit: usize| {
            let search = |field: &str, seed: u64| SearchRequest {
                field: Some(field.to_owned()),
                ..request(vector(seed), limit)
            };
            vec![
                search("a", 1),
                search("b", 2),
                SearchRequest { filter: Some("id % 3 == 0".to_owned()), ..search("a", 3) },
            ]
        };
        let threads_of = |pairs: &Collection| {
            let bare = searches(10);
            let view = pairs.view(View::NOW);
            let checked: Vec<_> =
                bare.iter().map(|search| block_on(pairs.checked_search(search, &view)).unwrap()).collect();
            pairs.threads_of(&checked, &pairs.state())
        };
        let hybrid = HybridRequest { searches: searches(50), limit: 40, ..Default::default() };
        for ids in (0..6_000).collect::<Vec<i64>>().chunks(1_500) {
            let row = |&id: &i64| {
                let vectors = [("a", 0u64), ("b", 1)]
                    .map(|(name, turn)| (name.to_owned(), Value::Vector(vector(id as u64 + (turn << 32)))));
                Row::from_iter([("id".to_owned(), Value::Int(id))].into_iter().chain(vectors))
            };
            let rows = ids.iter().map(row).collect();
            pairs.upsert(Batch::from_rows(&pairs.spec().schema, rows).unwrap()).await.unwrap();
            db.flush("pairs").await.unwrap();
            if ids[0] == 0 {
                assert_eq!(threads_of(&pairs), 1, "1,500 rows are looked at sooner than a thread has begun");
            }
        }
        assert_eq!(threads_of(&pairs), 4);
        let beside = pairs.hybrid_search(&hybrid).await.unwrap().hits;
        assert_eq!(beside.len(), 40);
        db.close().await.unwrap();
        let db = open(1).await.unwrap();
        let pairs = db.collection("pairs").unwrap();
        assert_eq!(threads_of(&pairs), 1);
        assert_eq!(pairs.hybrid_search(&hybrid).await.unwrap().hits, beside);
    });
}

/// What names keys is answered by looking them up, now and of the past, and comes to the same.
#[test]
fn keys_are_looked_up() {
    block_on(async {
        for is_cold in [false, true] {
            let (db, things, rows) = filled("L2", is_cold).await;
            let then = things.snapshot().unwrap();
            let keys = [3i64, 499, 500, 1_107, 2_345, 3_999, 4_000, -1];
            let list = keys.map(|key| key.to_string()).join(", ");
            for (filter, pass) in [
                (format!("id in [{list}]"), (|_: &Row| true) as fn(&Row) -> bool),
                (format!("id in [{list}] and group >= 5"), |row| matches!(value(row, "group"), Value::Int(5..))),
                (
                    format!("(id == 3 or id in [{list}]) and text like '%499%'"),
                    |row| matches!(value(row, "text"), Value::String(text) if text.contains("499")),
                ),
            ] {
                let query = QueryRequest {
                    filter: Some(filter.clone()),
                    output_fields: Some(vec!["id".to_owned()]),
                    ..Default::default()
                };
                let expected: Vec<i64> =
                    rows.values().filter(|row| keys.contains(&id_of(row)) && pass(row)).map(id_of).collect();
                let found: Vec<i64> = things.query(&query).await.unwrap().iter().map(id_of).collect();
                assert_eq!(found, expected, "{filter}");
                let plan = things.explain_query(&query, false).await.unwrap();
                assert!(plan.steps.iter().any(|segment| segment.steps[0].step == "look up"), "{plan}");
                let near = SearchRequest { filter: Some(filter.clone()), ..request(vector(5), 100) };
                let found: BTreeSet<i64> = ids(&things.search(&near).await.unwrap().hits).into_iter().collect();
                assert_eq!(found.into_iter().collect::<Vec<_>>(), expected, "{filter}");
            }
            things.delete(crate::db::Target::Keys(vec![Key::Int(3)])).await.unwrap();
            let changed = vec![row(499, 3)];
            things.upsert(Batch::from_rows(&things.spec().schema, changed).unwrap()).await.unwrap();
            db.flush("things").await.unwrap();
            let query = QueryRequest { filter: Some("id in [3, 499]".to_owned()), ..Default::default() };
            let before = then.query(&query).await.unwrap();
            assert_eq!(
                before.iter().map(id_of).collect::<Vec<_>>(),
                rows.keys().copied().filter(|id| [3, 499].contains(id)).collect::<Vec<_>>()
            );
            assert!(before.iter().all(|row| row["group"] == *value(&rows[&id_of(row)], "group")));
            assert_eq!(things.query(&query).await.unwrap().iter().map(id_of).collect::<Vec<_>>(), [499]);
        }
    });
}

#[test]
fn plans_tell_what_is_done() {
    block_on(async {
        for is_cold in [false, true] {
            let (_db, things, rows) = filled("L2", is_cold).await;
            let near =
                SearchRequest { filter: Some("price >= 100".to_owned()), exact: false, ..request(vector(5), 10) };
            let planned = things.explain_search(&near, false).await.unwrap();
            assert!(planned.actual.is_none() && planned.cost > 0.0, "{planned}");
            let done = things.explain_search(&near, true).await.unwrap();
            let found = &done.steps[0];
            assert_eq!(done.actual.unwrap().rows, 10.0);
            let admitted: f64 =
                found.steps.iter().map(|segment| segment.steps[0].actual.map_or(0.0, |actual| actual.rows)).sum();
            let expected =
                rows.values().filter(|row| matches!(value(row, "price"), Value::Double(price) if *price >= 100.0));
            assert_eq!(admitted, expected.count() as f64, "{done}");
            for segment in found.steps.iter().filter(|_| !is_cold) {
                // A sample of 256 rows is off by 3 % of them on average.
                let (plan, rows) = (&segment.steps[0], things.count(None).await.unwrap() as f64);
                assert!((plan.rows - plan.actual.unwrap().rows).abs() <= 0.12 * rows, "{done}");
                assert!(plan.detail.contains("rows by sample") || plan.detail.contains("rows as before"), "{done}");
            }
            assert!(found.actual.unwrap().ms > 0.0 && done.actual.unwrap().ms >= found.actual.unwrap().ms);
            // By their statistics none of the first segments has such rows.
            let last = QueryRequest { filter: Some("id > 3900".to_owned()), limit: Some(5), ..Default::default() };
            let plan = things.explain_query(&last, true).await.unwrap();
            assert_eq!(plan.actual.unwrap().rows, 5.0);
            let skipped = plan.steps.iter().filter(|segment| segment.steps[0].step == "skip").count();
            assert!(skipped > 0, "{plan}");
            assert!(plan.to_string().contains("by its statistics"));
        }
    });
}

/// A filter that was asked of a segment is not asked again, and still sees what was deleted and written since.
#[test]
fn what_a_filter_has_admitted_is_kept() {
    block_on(async {
        let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), Options::default()).await.unwrap();
        let things = db.create_collection("things", spec("L2")).await.unwrap();
        let batch = (0..5_000).map(|id| row(id, 0)).collect();
        things.insert(Batch::from_rows(&things.spec().schema, batch).unwrap()).await.unwrap();
        while db.maintain().await.unwrap() {}
        db.flush("things").await.unwrap();
        let before = db.memory().cache;
        let filter = "shelf == 'S3' and group >= 0";
        let count = things.count(Some(filter)).await.unwrap();
        let kept = db.memory().cache;
        assert!(kept >= before + 5_000 / 8, "{kept} after {before}");
        // Another spelling of the same.
        assert_eq!(things.count(Some("0 <= group AND $meta['shelf'] == \"S3\"")).await.unwrap(), count);
        assert_eq!(db.memory().cache, kept);
        let then = things.snapshot().unwrap();
        let query = QueryRequest { filter: Some(filter.to_owned()), limit: Some(3), ..Default::default() };
        let first: Vec<i64> = things.query(&query).await.unwrap().iter().map(id_of).collect();
        things.delete(crate::db::Target::Keys(first.iter().copied().map(Key::Int).collect())).await.unwrap();
        assert_eq!(things.count(Some(filter)).await.unwrap(), count - 3);
        assert_eq!(then.count(Some(filter)).await.unwrap(), count);
        let again = first.iter().map(|&id| row(id, 0)).collect();
        things.upsert(Batch::from_rows(&things.spec().schema, again).unwrap()).await.unwrap();
        assert_eq!(things.count(Some(filter)).await.unwrap(), count);
        let near = SearchRequest { filter: Some(filter.to_owned()), ..request(vector(5), 5_000) };
        assert_eq!(things.search(&near).await.unwrap().hits.len(), count);
    });
}
