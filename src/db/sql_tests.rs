#![expect(clippy::unwrap_used, reason = "a test says what went wrong by its panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::base::ErrorKind;
use crate::engine::CollectionSpec;
use crate::model::{Batch, Row, Value};
use crate::platform::block_on;
use crate::query::Parameters;
use crate::storage::MemoryDisk;

fn spec(text: &str) -> CollectionSpec {
    serde_json::from_str(text).unwrap()
}

fn row(json: serde_json::Value) -> Row {
    let value = |value: serde_json::Value| match value {
        serde_json::Value::Array(numbers) => {
            Value::Vector(numbers.iter().map(|n| n.as_f64().unwrap() as f32).collect())
        }
        other => Value::from(other),
    };
    json.as_object().unwrap().iter().map(|(name, one)| (name.clone(), value(one.clone()))).collect()
}

/// Books by their authors; some of no author, some without a price.
async fn library() -> Db {
    let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), Options::default()).await.unwrap();
    let books = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"title","type":"varchar","maxLength":100},
        {"name":"author","type":"varchar","maxLength":20,"nullable":true},{"name":"price","type":"double","nullable":true},
        {"name":"sold","type":"timestamp"},{"name":"v","type":"float_vector","dim":2}],"indexes":{"v":{"metric":"L2","kind":"FLAT"}}}"#;
    let authors = r#"{"fields":[{"name":"name","type":"varchar","maxLength":20,"primaryKey":true},{"name":"born","type":"int32"},
        {"name":"v","type":"float_vector","dim":2}]}"#;
    let books = db.create_collection("books", spec(books)).await.unwrap();
    let authors = db.create_collection("authors", spec(authors)).await.unwrap();
    let minute = 60_000_000i64;
    let of = |id: i64, title: &str, author: Option<&str>, price: Option<f64>| {
        row(
            serde_json::json!({"id": id, "title": title, "author": author, "price": price, "sold": id * minute, "v": [id as f64, 0.0]}),
        )
    };
    let rows = vec![
        of(1, "Sand", Some("Ada"), Some(10.0)),
        of(2, "Rain", Some("Ben"), Some(30.0)),
        of(3, "Wind", Some("Ada"), Some(20.0)),
        of(4, "Snow", None, None),
        of(5, "Hail", Some("Cid"), Some(5.0)),
    ];
    books.insert(Batch::from_rows(&books.spec().schema, rows).unwrap()).await.unwrap();
    let rows = [("Ada", 1950), ("Ben", 1970)]
        .map(|(name, born)| row(serde_json::json!({"name": name, "born": born, "v": [1.0, 1.0]})));
    authors.insert(Batch::from_rows(&authors.spec().schema, rows.to_vec()).unwrap()).await.unwrap();
    db
}

/// Each row as JSON, its columns in their order.
async fn asked(db: &Db, text: &str) -> Vec<String> {
    let parameters = Parameters::from([("q".to_owned(), Value::Vector(vec![2.2, 0.0]))]);
    let request = SqlRequest { text: text.to_owned(), parameters, timeout_ms: None };
    let SqlResponse { columns, rows, .. } = db.sql(&request).await.unwrap_or_else(|error| panic!("{text}: {error}"));
    let shown = |row: &Row| {
        let values: Vec<_> = columns.iter().map(|column| serde_json::to_string(&row[&column.name]).unwrap()).collect();
        values.join(" ").replace('"', "")
    };
    rows.iter().map(shown).collect()
}

#[test]
fn collections_are_asked_in_sql() {
    block_on(async {
        let db = library().await;
        for (text, expected) in [
            ("SELECT title FROM books WHERE id = 3", &["Wind"][..]),
            (
                "SELECT title, price * 2 AS double FROM books WHERE price BETWEEN 5 AND 10 ORDER BY price",
                &["Hail 10.0", "Sand 20.0"],
            ),
            ("SELECT title FROM books ORDER BY price DESC LIMIT 3", &["Snow", "Rain", "Wind"]),
            (
                "SELECT author, count(*) AS n, sum(price) AS total FROM books GROUP BY author ORDER BY total DESC, author",
                &["null 1 null", "Ada 2 30.0", "Ben 1 30.0", "Cid 1 5.0"],
            ),
            ("SELECT author, avg(price) AS mean FROM books GROUP BY author HAVING count(*) > 1", &["Ada 15.0"]),
            (
                "SELECT count(*), count(author), count(DISTINCT author), min(price), max(title) FROM books",
                &["5 4 3 5.0 Wind"],
            ),
            ("SELECT DISTINCT author FROM books WHERE author IS NOT NULL ORDER BY author DESC", &["Cid", "Ben", "Ada"]),
            (
                "SELECT b.title, a.born FROM books b JOIN authors a ON b.author = a.name ORDER BY b.title",
                &["Rain 1970", "Sand 1950", "Wind 1950"],
            ),
            (
                "SELECT b.title, a.born FROM books b LEFT JOIN authors a ON b.author = a.name ORDER BY b.id",
                &["Sand 1950", "Rain 1970", "Wind 1950", "Snow null", "Hail null"],
            ),
            (
                "SELECT x.title, y.title AS other FROM books x, books y WHERE x.author = y.author AND x.id < y.id",
                &["Sand Wind"],
            ),
            (
                "SELECT title, l2_distance(v, {q}) < 1 AS near FROM books ORDER BY l2_distance(v, {q}) LIMIT 2",
                &["Rain true", "Wind true"],
            ),
            (
                "SELECT a.name, n.title, n.distance FROM authors a, nearest(books, a.v, 2) n ORDER BY a.name, n.distance",
                &["Ada Sand 1.0", "Ada Rain 2.0", "Ben Sand 1.0", "Ben Rain 2.0"],
            ),
            (
                "SELECT window_start, count(*) AS n FROM TUMBLE(books, sold, INTERVAL '2' MINUTES) GROUP BY window_start, window_end ORDER BY window_start",
                &["0 1", "120000000 2", "240000000 2"],
            ),
            (
                "SELECT window_end, count(*) AS n FROM SESSION(books, sold, INTERVAL '90' SECONDS) WHERE id <> 3 GROUP BY window_start, window_end ORDER BY 1",
                &["210000000 2", "390000000 2"],
            ),
            (
                "CREATE VIEW dear AS SELECT title, price FROM books WHERE price > 15; SELECT title FROM dear ORDER BY price",
                &["Wind", "Rain"],
            ),
            (
                "SELECT CASE WHEN price > 15 THEN 'dear' ELSE 'cheap' END AS kind, count(*) AS n FROM books GROUP BY kind ORDER BY kind",
                &["cheap 3", "dear 2"],
            ),
            (
                "SELECT title FROM books WHERE title LIKE '%n%' AND id IN (1, 3, 4) ORDER BY upper(title)",
                &["Sand", "Snow", "Wind"],
            ),
            ("SELECT id FROM books WHERE id > 100", &[]),
            ("SELECT count(*) FROM books WHERE id > 100", &[]),
        ] {
            assert_eq!(asked(&db, text).await, expected, "{text}");
        }
    });
}

#[test]
fn a_query_is_a_snapshot_and_has_an_end() {
    block_on(async {
        let db = library().await;
        let ask = |text: &str, timeout_ms| {
            let request = SqlRequest { text: text.to_owned(), parameters: BTreeMap::new(), timeout_ms };
            let db = db.clone();
            async move { db.sql(&request).await }
        };
        let plan = ask("EXPLAIN SELECT title FROM books WHERE id > 2", None).await.unwrap();
        assert_eq!((plan.rows.len(), plan.plan.unwrap().lines().count()), (0, 4));
        for (text, kind, position) in [
            ("SELECT title FROM boks", ErrorKind::InvalidArgument, Some(18)),
            ("SELECT titel FROM books", ErrorKind::InvalidArgument, Some(7)),
            ("SELECT title FROM books UNION SELECT name FROM authors", ErrorKind::Unsupported, Some(24)),
            ("INSERT INTO books SELECT * FROM books", ErrorKind::Unsupported, None),
            ("CREATE STREAM s (a BIGINT); SELECT a FROM s", ErrorKind::Unsupported, None),
            ("SELECT id FROM books; SELECT id FROM books", ErrorKind::Unsupported, None),
            ("", ErrorKind::Unsupported, None),
        ] {
            let error = ask(text, None).await.unwrap_err();
            assert_eq!((error.kind(), error.position()), (kind, position), "{error}");
        }
        let late = ask("SELECT title FROM books", Some(0)).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Unavailable);
    });
}
