use crate::base::{Error, Neighbor, Result, RowMask, sort_by};
use crate::db::{Collection, SearchRequest};
use crate::index::terms::{Bm25, Weighted, top};
use crate::model::{Field, Value};
use crate::segment::Segment;

/// The usual parameters of BM25, as in Lucene and Milvus.
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// A query that an index of terms answers: the terms with their weights.
pub(super) struct Words {
    terms: Vec<Weighted>,
    bm25: Option<Bm25>,
}

impl Words {
    /// How many rows of a segment have one of the terms, each counted for each; `None` where it has no such index.
    pub(super) fn rows(&self, segment: &Segment, field: &str) -> Option<usize> {
        let source = segment.terms(field)?;
        Some(self.terms.iter().map(|term| source.count(&term.key)).sum())
    }

    /// The best rows of a segment, with their scores negated; `None` where it has no such index.
    pub(super) fn search(&self, segment: &Segment, field: &str, k: usize, admitted: &RowMask) -> Option<Vec<Neighbor>> {
        let source = segment.terms(field)?;
        let mask = (admitted.count() < segment.len()).then_some(admitted);
        Some(top(source, &self.terms, self.bm25, k, mask))
    }
}

impl Collection {
    /// Whether `field` is one whose text is searched by its words.
    pub fn has_text_field(&self, field: Option<&str>) -> bool {
        field.is_some() && self.text_field(field).is_ok()
    }

    /// The field whose text a query is about.
    pub(super) fn text_field(&self, wanted: Option<&str>) -> Result<&Field> {
        let fields = self.spec().schema.fields().iter().filter(|field| field.analyzer.is_some());
        let fields: Vec<&Field> = fields.collect();
        let found = match (wanted, fields.as_slice()) {
            (None, [only]) => Some(*only),
            (None, _) => None,
            (Some(wanted), fields) => fields.iter().find(|field| field.name == wanted).copied(),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Error::invalid(format!("a search of text names a varchar field that has an analyzer; there are: {names}"))
        })
    }

    /// What a query asks of an index of terms; `None` for one that none answers.
    ///
    /// Rows and terms are counted over all segments, whatever the filter, so that scores do not depend on where rows lie. Rows that
    /// were replaced or deleted count until a compaction has taken them out.
    pub(super) fn words(&self, field: &Field, query: &Value, request: &SearchRequest) -> Result<Option<Words>> {
        if let Value::Sparse(pairs) = query {
            let indexed = self.spec().indexes.get(&field.name).is_some_and(|index| index.kind.is_terms());
            let ratio = request.drop_ratio.unwrap_or(0.0);
            if !(0.0..1.0).contains(&ratio) {
                return Err(Error::invalid(format!("dropRatioSearch {ratio}; expected at least 0 and less than 1")));
            }
            return Ok((indexed && !request.exact).then(|| Words { terms: weighted(pairs, ratio), bm25: None }));
        }
        let (Value::String(text), Some(analyzer)) = (query, &field.analyzer) else { return Ok(None) };
        let options = request.bm25.unwrap_or_default();
        let (k1, b) = (options.k1.map_or(K1, f64::from), options.b.map_or(B, f64::from));
        if !(0.0..=1_000.0).contains(&k1) || !(0.0..=1.0).contains(&b) {
            return Err(Error::invalid(format!("bm25: k1 {k1} and b {b}; expected 0 to 1000, and 0 to 1")));
        }
        let mut counted: Vec<(String, usize)> = Vec::new();
        for (term, _) in analyzer.terms(text) {
            match counted.iter_mut().find(|(other, _)| *other == term) {
                Some((_, count)) => *count += 1,
                None => counted.push((term, 1)),
            }
        }
        let state = self.state();
        let sources = || state.slots().filter_map(|slot| slot.segment.terms(&field.name));
        let (rows, total) =
            sources().map(|source| source.totals()).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        let weighted = |(term, times): (String, usize)| {
            let count = sources().map(|source| source.count(term.as_bytes())).sum();
            Weighted { key: term.into_bytes(), weight: Bm25::inverse_frequency(count, rows) * times as f64 }
        };
        let terms = counted.into_iter().map(weighted).collect();
        let bm25 = Bm25 { k1, b, average_length: total as f64 / (rows as f64).max(1.0) };
        Ok(Some(Words { terms, bm25: Some(bm25) }))
    }
}

/// The places of a sparse query, in their order, without that share of them whose numbers are the smallest.
fn weighted(pairs: &[(u32, f32)], drop_ratio: f32) -> Vec<Weighted> {
    let mut sizes: Vec<f32> = pairs.iter().map(|(_, weight)| weight.abs()).collect();
    sort_by(&mut sizes, f32::total_cmp);
    let least = sizes.get((drop_ratio * sizes.len() as f32) as usize).copied().unwrap_or(0.0);
    let kept = pairs.iter().filter(|(_, weight)| weight.abs() >= least);
    kept.map(|&(place, weight)| Weighted { key: place.to_be_bytes().to_vec(), weight: f64::from(weight) }).collect()
}

#[cfg(native)]
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::db::{Bm25Options, Db, Highlight, Options, QueryRequest, Target};
    use crate::model::{Batch, Row};
    use crate::platform::block_on;
    use crate::storage::MemoryDisk;

    const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
        {"name":"title","type":"varchar","analyzer":"english","nullable":true},
        {"name":"text","type":"varchar","analyzer":"whitespace"},
        {"name":"v","type":"float_vector","dim":2}]}"#;

    async fn open(disk: &MemoryDisk) -> Db {
        Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap()
    }

    async fn put(collection: &Collection, rows: &[(i64, Option<&str>, &str)]) {
        let row = |&(id, title, text): &(i64, Option<&str>, &str)| {
            Row::from([
                ("id".to_owned(), Value::Int(id)),
                ("title".to_owned(), title.map_or(Value::Null, Value::from)),
                ("text".to_owned(), Value::from(text)),
                ("v".to_owned(), Value::Vector(vec![id as f32, 1.0])),
            ])
        };
        let batch = Batch::from_rows(&collection.spec().schema, rows.iter().map(row).collect()).unwrap();
        collection.upsert(batch).await.unwrap();
    }

    async fn search(collection: &Collection, request: SearchRequest) -> Vec<(i64, f32)> {
        let hits = collection.search(&request).await.unwrap().hits;
        let id = |key: &crate::model::Key| match key {
            crate::model::Key::Int(id) => *id,
            crate::model::Key::String(_) => panic!("ids are integers"),
        };
        hits.iter().map(|hit| (id(&hit.key), hit.score)).collect()
    }

    fn words(text: &str) -> SearchRequest {
        SearchRequest { field: Some("text".to_owned()), vector: text.into(), limit: 10, ..Default::default() }
    }

    async fn matching(collection: &Collection, filter: &str) -> Vec<i64> {
        let request = QueryRequest { filter: Some(filter.to_owned()), ..Default::default() };
        let rows = collection.query(&request).await.unwrap();
        rows.iter().map(|row| if let Value::Int(id) = row["id"] { id } else { panic!("ids are integers") }).collect()
    }

    async fn check_fixture(collection: &Collection, queries: &serde_json::Value, state: &str) {
        for query in queries.as_array().unwrap() {
            let found = search(collection, words(query["query"].as_str().unwrap())).await;
            let ids: Vec<i64> = query["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
            assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids, "{query}, {state}");
            for ((_, score), expected) in found.iter().zip(query["scores"].as_array().unwrap()) {
                let expected = expected.as_f64().unwrap();
                assert!((f64::from(*score) - expected).abs() < 1e-4, "{score} {expected}, {state}");
            }
        }
    }

    /// The fixture tells which implementation made it. Wherever the rows lie, in growing segments, in storage, or in one that was
    /// merged.
    #[test]
    fn ranks_and_scores_are_those_of_a_published_implementation() {
        let fixture: serde_json::Value = serde_json::from_str(include_str!("bm25s.json")).unwrap();
        let texts: Vec<&str> = fixture["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let rows: Vec<(i64, Option<&str>, &str)> =
            texts.iter().enumerate().map(|(id, text)| (id as i64, None, *text)).collect();
        let queries = &fixture["queries"];
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let collection = db.create_collection("texts", serde_json::from_str(SPEC).unwrap()).await.unwrap();
            put(&collection, &rows[..10]).await;
            db.flush("texts").await.unwrap();
            put(&collection, &rows[10..35]).await;
            db.flush("texts").await.unwrap();
            for row in &rows[35..] {
                put(&collection, std::slice::from_ref(row)).await;
            }
            check_fixture(&collection, queries, "in three segments").await;
            db.flush("texts").await.unwrap();
            check_fixture(&collection, queries, "flushed").await;
            db.close().await.unwrap();
            let db = open(&disk).await;
            let collection = db.collection("texts").unwrap();
            check_fixture(&collection, queries, "opened again").await;
            assert!(collection.stats().await.unwrap().files["terms"] > 0);
            db.compact("texts").await.unwrap();
            assert_eq!(collection.stats().await.unwrap().states.flushed, 1);
            check_fixture(&collection, queries, "merged").await;
            db.close().await.unwrap();
            let db = open(&disk).await;
            check_fixture(&db.collection("texts").unwrap(), queries, "merged and opened again").await;
        });
    }

    #[test]
    fn text_is_searched_among_the_rows_that_a_filter_admits() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let collection = db.create_collection("texts", serde_json::from_str(SPEC).unwrap()).await.unwrap();
            let long = "the harbour of the old town lies behind the hill where nobody goes in winter ".repeat(3);
            put(
                &collection,
                &[(1, Some("Running rivers"), "a b c"), (2, None, "a"), (3, Some("The river runs"), &long)],
            )
            .await;
            db.flush("texts").await.unwrap();
            put(&collection, &[(4, Some("A fast runner"), "b a"), (5, Some("RIVER of stone"), "")]).await;
            let title = |text: &str, filter: Option<&str>| SearchRequest {
                field: Some("title".to_owned()),
                vector: text.into(),
                limit: 10,
                filter: filter.map(str::to_owned),
                ..Default::default()
            };
            let ids = |found: Vec<(i64, f32)>| found.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
            for reopened in [false, true] {
                let (db, collection) = if reopened {
                    db.flush("texts").await.unwrap();
                    db.close().await.unwrap();
                    let db = open(&disk).await;
                    let collection = db.collection("texts").unwrap();
                    (db, collection)
                } else {
                    (db.clone(), collection.clone())
                };
                assert_eq!(ids(search(&collection, title("runs of the river", None)).await), [1, 3, 5]);
                assert_eq!(ids(search(&collection, title("runs of the river", Some("id > 1"))).await), [3, 5]);
                assert_eq!(ids(search(&collection, title("of the", None)).await), [0; 0]);
                assert_eq!(matching(&collection, "text_match(title, 'rivers stones')").await, [1, 3, 5]);
                assert_eq!(
                    matching(&collection, "text_match(title, 'rivers stones', minimum_should_match=2)").await,
                    [5]
                );
                assert_eq!(
                    matching(&collection, "not text_match(title, 'rivers')").await,
                    [4],
                    "of null it is not known"
                );
                assert_eq!(matching(&collection, "phrase_match(title, 'run river')").await, [1]);
                assert_eq!(
                    matching(&collection, "phrase_match(title, 'river stone')").await,
                    [0; 0],
                    "`of` is between"
                );
                assert_eq!(matching(&collection, "phrase_match(title, 'river stone', 1)").await, [5]);
                assert_eq!(matching(&collection, "text_match_fuzzy(title, 'rivet')").await, [1, 3, 5]);
                assert_eq!(matching(&collection, "text_match(text, 'harbour') and id < 4").await, [3]);
                assert_eq!(matching(&collection, "text_match(text, 'a') and text_match(title, 'run')").await, [1]);
                let all = search(&collection, words("a")).await;
                assert_eq!(ids(all.clone()), [2, 4, 1]);
                let flat = SearchRequest { bm25: Some(Bm25Options { k1: None, b: Some(0.0) }), ..words("a") };
                let flat = search(&collection, flat).await;
                assert!(flat[0].1 == flat[2].1 && all[0].1 > all[1].1, "{flat:?} {all:?}");
                drop(db);
            }
            let db = open(&disk).await;
            let collection = db.collection("texts").unwrap();
            collection.delete(Target::Keys(vec![1.into()])).await.unwrap();
            put(&collection, &[(3, Some("A stone"), "")]).await;
            assert_eq!(ids(search(&collection, title("river", None)).await), [5]);
            let shown = Highlight { fields: vec!["text".to_owned()], fragment_size: Some(30), ..Highlight::default() };
            put(&collection, &[(6, Some("River"), "where the RIVER ends there is a harbour for boats")]).await;
            for wanted in [None, Some(vec!["id".to_owned()])] {
                let request = SearchRequest {
                    highlight: Some(shown.clone()),
                    output_fields: wanted.clone(),
                    ..words("harbour boats")
                };
                let hits = collection.search(&request).await.unwrap().hits;
                assert_eq!(hits[0].highlights["text"], ["is a <em>harbour</em> for <em>boats</em>"]);
                assert_eq!(hits[0].row.contains_key("text"), wanted.is_none());
            }
            for (request, what) in [
                (
                    SearchRequest {
                        highlight: Some(shown),
                        vector: vec![1.0, 2.0].into(),
                        limit: 1,
                        ..Default::default()
                    },
                    "of one text",
                ),
                (SearchRequest { field: None, ..words("a") }, "title, text"),
                (SearchRequest { field: Some("v".to_owned()), ..words("a") }, "has an analyzer"),
                (SearchRequest { bm25: Some(Bm25Options { k1: Some(-1.0), b: None }), ..words("a") }, "k1 -1"),
            ] {
                let error = collection.search(&request).await.unwrap_err();
                assert!(error.message().contains(what), "{error}");
            }
        });
    }

    /// The index of sparse vectors finds what looking at all of them finds, and scalar indexes admit what looking at the rows admits:
    /// in growing segments, in storage and merged.
    #[test]
    fn indexes_change_no_answer() {
        const FIELDS: &str = r#""fields":[{"name":"id","type":"int64","primaryKey":true},
            {"name":"s","type":"sparse_float_vector","nullable":true},
            {"name":"n","type":"int16","nullable":true},{"name":"d","type":"double","nullable":true},
            {"name":"f","type":"float"},{"name":"b","type":"bool","nullable":true},
            {"name":"t","type":"varchar","nullable":true},{"name":"w","type":"timestamp"}]"#;
        let indexed = format!(
            r#"{{{FIELDS},"indexes":{{"s":{{"metric":"IP","kind":"SPARSE_WAND"}},"n":{{"kind":"INVERTED"}},"d":{{"kind":"STL_SORT"}},
            "f":{{"kind":"STL_SORT"}},"b":{{"kind":"BITMAP"}},"t":{{"kind":"TRIE"}},"w":{{"kind":"INVERTED"}},"id":{{"kind":"STL_SORT"}}}}}}"#
        );
        let filters = [
            "n == 3",
            "n != 3",
            "n < 3",
            "n <= 3 and d > 0.5",
            "not (n > 3)",
            "n in [1, 4, 9]",
            "n not in [1, 4]",
            "n is null",
            "n is not null or b",
            "b",
            "not b",
            "b == false",
            "d >= 1",
            "d == 0",
            "d < 0.25 or t == 'k1'",
            "f > 0.1",
            "f == 0.1",
            "t like 'k1%'",
            "t like '%1'",
            "t =~ '^k[12]$'",
            "t > 'k2'",
            "t in ['k1', 'x', '']",
            "t is null and n > 2",
            "id > 100 and id <= 140",
            "w < iso '1970-01-01T00:00:00.000040Z'",
            "n == 2.5",
            "n < 2.5",
            "1 < n <= 5",
            "n + 1 == 3 and b",
        ];
        let mut random = crate::base::Random::new(11);
        let mut below = |bound: u64| random.below(bound);
        let rows: Vec<Row> = (0..400i64)
            .map(|id| {
                let mut row =
                    Row::from([("id".to_owned(), Value::Int(id)), ("w".to_owned(), Value::Int(below(80) as i64))]);
                row.insert("f".to_owned(), Value::Double(below(5) as f64 / 10.0));
                let mut put = |name: &str, value: Value| {
                    if below(6) > 0 {
                        row.insert(name.to_owned(), value);
                    }
                };
                put("n", Value::Int(id * 7 % 11));
                put("d", Value::Double((id % 9) as f64 / 4.0 - 0.5));
                put("b", Value::Bool(id % 3 == 0));
                put("t", Value::String(format!("k{}", id % 13)));
                let pairs: std::collections::BTreeMap<u32, f32> =
                    (0..6).map(|_| (below(40) as u32, below(2_000) as f32 / 777.0 - 0.7)).collect();
                if below(8) > 0 {
                    row.insert("s".to_owned(), Value::Sparse(pairs.into_iter().collect()));
                }
                row
            })
            .collect();
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let plain = serde_json::from_str(&format!(
                "{{{FIELDS},\"indexes\":{{\"s\":{{\"metric\":\"IP\",\"kind\":\"FLAT\"}}}}}}"
            ));
            for (name, spec) in [("plain", plain.unwrap()), ("indexed", serde_json::from_str(&indexed).unwrap())] {
                let collection = db.create_collection(name, spec).await.unwrap();
                for (at, part) in rows.chunks(90).enumerate() {
                    collection
                        .upsert(Batch::from_rows(&collection.spec().schema, part.to_vec()).unwrap())
                        .await
                        .unwrap();
                    if at % 2 == 1 {
                        db.flush(name).await.unwrap();
                    }
                }
                collection.delete(Target::Filter("id % 17 == 3".to_owned())).await.unwrap();
            }
            let mut db = db;
            for state in ["written", "opened", "merged", "opened again"] {
                match state {
                    "opened" | "opened again" => {
                        db.close().await.unwrap();
                        db = open(&disk).await;
                    }
                    "merged" => db.compact_all().await.unwrap(),
                    _ => {}
                }
                let (plain, indexed) = (db.collection("plain").unwrap(), db.collection("indexed").unwrap());
                for filter in filters {
                    assert_eq!(matching(&indexed, filter).await, matching(&plain, filter).await, "{filter}, {state}");
                }
                for query in 0..20u32 {
                    let pairs = vec![(query, 1.5), (query + 3, -0.5), (query + 7, 2.25), (query + 19, 0.125)];
                    let filter = (query % 3 == 0).then(|| "n > 4".to_owned());
                    let request =
                        SearchRequest { vector: Value::Sparse(pairs), limit: 7, filter, ..Default::default() };
                    let found = search(&indexed, request.clone()).await;
                    assert_eq!(found, search(&plain, request.clone()).await, "{state}");
                    assert_eq!(found, search(&indexed, SearchRequest { exact: true, ..request.clone() }).await);
                    let dropped = SearchRequest { drop_ratio: Some(0.5), ..request.clone() };
                    let fewer = Value::Sparse(vec![(query, 1.5), (query + 7, 2.25)]);
                    assert_eq!(
                        search(&indexed, dropped).await,
                        search(&plain, SearchRequest { vector: fewer, ..request }).await
                    );
                }
            }
        });
    }

    /// To leave replaced rows out of the counts of rows and words would mean to go through the list of each word of a query; they count
    /// until a compaction takes them out, and scores are those of the living rows from then on.
    #[test]
    fn replaced_rows_count_until_a_compaction() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let texts =
                |count: i64, first: i64, text: &'static str| -> Vec<(i64, Option<&'static str>, &'static str)> {
                    (first..first + count).map(|id| (id, None, text)).collect()
                };
            let of = async |name: &str, parts: &[Vec<(i64, Option<&str>, &str)>]| {
                let collection = db.create_collection(name, serde_json::from_str(SPEC).unwrap()).await.unwrap();
                for part in parts {
                    put(&collection, part).await;
                    db.flush(name).await.unwrap();
                }
                collection
            };
            let (old, new, rest) = (texts(10, 0, "a b b"), texts(10, 0, "c"), texts(20, 10, "b c d e"));
            let replaced = of("replaced", &[old.clone(), rest.clone(), new.clone()]).await;
            // The same with the replaced rows under other keys, where none of them has the words that are looked for among the living.
            let apart = of("apart", &[texts(10, 100, "a b b"), rest.clone(), new.clone()]).await;
            let living = of("living", &[rest, new]).await;
            let expected = search(&apart, words("d c")).await;
            assert_eq!(search(&replaced, words("d c")).await, expected);
            assert_ne!(search(&living, words("d c")).await, expected);
            db.compact("replaced").await.unwrap();
            assert_eq!(search(&replaced, words("d c")).await, search(&living, words("d c")).await);
        });
    }

    #[test]
    fn indexes_that_cannot_be_are_refused() {
        let spec = |field: &str, kind: &str| {
            let json = format!(
                r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"j","type":"json"}},
                {{"name":"t","type":"varchar","analyzer":"cjk"}},{{"name":"s","type":"sparse_float_vector"}}],
                "indexes":{{"{field}":{{"metric":"IP","kind":"{kind}"}}}}}}"#
            );
            serde_json::from_str::<crate::engine::CollectionSpec>(&json).unwrap().completed()
        };
        for (field, kind, what) in [
            ("j", "STL_SORT", "json can have INVERTED, BITMAP"),
            ("t", "INVERTED", "full-text index"),
            ("s", "INVERTED", "FLAT, SPARSE_INVERTED_INDEX"),
            ("id", "TRIE", "INVERTED, BITMAP, STL_SORT"),
            ("id", "FLAT", "INVERTED"),
            ("x", "INVERTED", "name of a field"),
        ] {
            let error = spec(field, kind).unwrap_err();
            assert!(error.message().contains(what), "{error}");
        }
        assert!(spec("s", "SPARSE_INVERTED_INDEX").is_ok() && spec("id", "BITMAP").is_ok());
    }
}
