use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::*;
use crate::db::{Options, PushStreamSpec, QueryRequest, SqlRequest, Target};
use crate::engine::CollectionSpec;
use crate::model::{Batch, Key, Value};
use crate::platform::{Environment, block_on};
use crate::storage::{MemoryDisk, Storage};
use crate::stream::StageKind;

const SECOND: i64 = 1_000_000;

pub(super) fn spec(text: &str) -> CollectionSpec {
    serde_json::from_str(text).unwrap()
}

pub(super) fn row(json: serde_json::Value) -> Row {
    json.as_object().unwrap().iter().map(|(name, one)| (name.clone(), Value::from(one.clone()))).collect()
}

pub(super) const CLICKS: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
    {"name":"page","type":"varchar","maxLength":100},{"name":"at","type":"timestamp"}]}"#;

pub(super) const MINUTES: &str = "
    CREATE STREAM clicks (id BIGINT NOT NULL, page VARCHAR NOT NULL, at TIMESTAMP NOT NULL,
        WATERMARK FOR at AS at - INTERVAL '5' SECOND);
    CREATE MATERIALIZED VIEW minutes AS
    SELECT page, window_end, count(*) AS clicks
    FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(at), INTERVAL '1' MINUTE))
    GROUP BY page, window_start, window_end
    EMIT ON WINDOW CLOSE";

async fn open(disk: &MemoryDisk) -> Db {
    open_with(disk, Options::default()).await
}

async fn open_with(disk: &MemoryDisk, options: Options) -> Db {
    Db::open(Arc::new(disk.open().unwrap()), options).await.unwrap()
}

pub(super) async fn write(db: &Db, collection: &str, rows: Vec<serde_json::Value>) {
    let collection = db.collection(collection).unwrap();
    let rows = rows.into_iter().map(row).collect();
    collection.upsert(Batch::from_rows(&collection.spec().schema, rows).unwrap()).await.unwrap();
}

fn click(id: i64, page: &str, seconds: i64) -> serde_json::Value {
    json!({"id": id, "page": page, "at": seconds * SECOND})
}

/// The rows of a collection by key, some fields of each as text.
pub(super) async fn told(db: &Db, collection: &str, fields: &[&str]) -> Vec<String> {
    let rows = db.collection(collection).unwrap().query(&QueryRequest::default()).await.unwrap();
    let shown = |row: &Row| {
        let values: Vec<_> = fields.iter().map(|name| serde_json::to_string(&row[*name]).unwrap()).collect();
        values.join(" ").replace('"', "")
    };
    rows.iter().map(shown).collect()
}

#[test]
fn a_view_in_sql_is_kept_across_restarts() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        // What is there by its keys, not by its times: no window may close before all was read.
        write(&db, "clicks", vec![click(1, "b", 130), click(2, "a", 10), click(3, "a", 20)]).await;
        let pipeline = db.create_pipeline("minutes", PipelineSpec::sql(MINUTES)).await.unwrap();
        assert!(db.create_pipeline("minutes", PipelineSpec::sql(MINUTES)).await.is_err());
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "minutes", &["page", "window_end", "clicks"]).await, ["a 60000000 2"]);
        write(&db, "clicks", vec![click(4, "a", 128)]).await;
        let status = pipeline.status().await;
        assert!(status.state == PipelineState::Active && status.sources[0].behind > 0, "{status:?}");
        drop(pipeline);
        db.close().await.unwrap();

        let db = open(&disk).await;
        let pipeline = db.pipeline("minutes").unwrap();
        write(&db, "clicks", vec![click(5, "a", 300), click(1, "b", 400)]).await;
        pipeline.settle().await.unwrap();
        // An event counts once: that its row was written again does not matter.
        let rows = told(&db, "minutes", &["page", "window_end", "clicks"]).await;
        assert_eq!(rows, ["a 60000000 2", "a 180000000 1", "b 180000000 1"]);
        let text = pipeline.explain().await.unwrap();
        assert!(text.contains("aggregate: aggregate tumbling 1 min by page"), "{text}");
        assert!(text.contains("aggregate: ") && text.contains(" in, "), "{text}");
        db.drop_pipeline("minutes").await.unwrap();
        assert_eq!(pipeline.state(), PipelineState::Closed);
        assert!(db.collection("clicks").unwrap().subscriptions().is_empty());
        assert!(db.pipelines().is_empty() && db.pipeline("minutes").is_err());
        assert_eq!(db.inner.shared.storage.list(name::PIPELINES).await.unwrap(), []);
        assert_eq!(db.collection("minutes").unwrap().count(None).await.unwrap(), 3);
    });
}

#[test]
fn what_rows_of_a_collection_come_to_follows_their_changes() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let clicks = db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        write(&db, "clicks", (0..10).map(|id| click(id, if id % 2 == 0 { "even" } else { "odd" }, id)).collect()).await;
        let text =
            "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS clicks FROM clicks GROUP BY page EMIT CHANGES";
        let pipeline = db.create_pipeline("pages", PipelineSpec::sql(text)).await.unwrap();
        write(&db, "clicks", vec![click(0, "odd", 0), click(20, "new", 0)]).await;
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["even 4", "new 1", "odd 6"]);
        clicks.delete(Target::Keys(vec![Key::Int(2), Key::Int(20)])).await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["even 3", "odd 6"]);
        // Nothing came: nothing is written, and no checkpoint made.
        let before = (db.collection("pages").unwrap().lsn(), pipeline.status().await.checkpoints);
        pipeline.settle().await.unwrap();
        assert_eq!((db.collection("pages").unwrap().lsn(), pipeline.status().await.checkpoints), before);
    });
}

/// Filters, projections, rows as they are, one pipeline behind the other.
#[test]
fn pipelines_stand_behind_each_other_and_never_in_a_circle() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        let clicks = db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let late = "CREATE MATERIALIZED VIEW late AS SELECT id, page, at FROM clicks WHERE at >= TIMESTAMP '1970-01-01 00:01:00'";
        db.create_pipeline("late", PipelineSpec::sql(late)).await.unwrap();
        let named = "CREATE MATERIALIZED VIEW named AS SELECT id, page || '!' AS page FROM late";
        db.create_pipeline("named", PipelineSpec::sql(named)).await.unwrap();
        let circle = "INSERT INTO clicks SELECT id, page, TIMESTAMP '2024-01-01 00:00:00' AS at FROM named";
        let error = db.create_pipeline("circle", PipelineSpec::sql(circle)).await.unwrap_err();
        assert!(error.message().contains("would read what it writes"), "{error}");
        write(&db, "clicks", vec![click(1, "a", 10), click(2, "b", 70), click(3, "c", 80)]).await;
        clicks.delete(Target::Keys(vec![Key::Int(3)])).await.unwrap();
        for name in ["late", "named"] {
            db.pipeline(name).unwrap().settle().await.unwrap();
        }
        assert_eq!(told(&db, "named", &["id", "page"]).await, ["2 b!"]);
        // What no longer is for the first is deleted behind the second.
        write(&db, "clicks", vec![click(2, "b", 1)]).await;
        while db.run_pipelines().await.unwrap() {}
        for name in ["late", "named"] {
            db.pipeline(name).unwrap().settle().await.unwrap();
        }
        assert_eq!(told(&db, "named", &["id", "page"]).await, [""; 0]);
    });
}

#[test]
fn rows_are_joined_with_collections_as_they_were() {
    block_on(async {
        let environment = Environment::simulated(7, 1_000_000);
        let options = Options { environment: environment.clone(), retention_ms: 3_600_000, ..Options::default() };
        let db = open_with(&MemoryDisk::new(), options).await;
        let orders = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"sku","type":"varchar","maxLength":10},
            {"name":"at","type":"timestamp"}]}"#;
        let prices = r#"{"fields":[{"name":"sku","type":"varchar","maxLength":10,"primaryKey":true},{"name":"price","type":"int64"}]}"#;
        db.create_collection("orders", spec(orders)).await.unwrap();
        db.create_collection("prices", spec(prices)).await.unwrap();
        let mut moments = vec![];
        for price in [5, 7, 9] {
            write(&db, "prices", vec![json!({"sku": "x", "price": price})]).await;
            environment.advance_ms(1_000);
            moments.push(environment.now_ms() as i64 * 1_000);
            environment.advance_ms(1_000);
        }
        let text = "
            CREATE STREAM orders (id BIGINT NOT NULL, sku VARCHAR NOT NULL, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at);
            CREATE MATERIALIZED VIEW priced AS
            SELECT orders.id AS id, prices.price AS price FROM orders LEFT JOIN prices ON orders.sku = prices.sku";
        let pipeline = db.create_pipeline("priced", PipelineSpec::sql(text)).await.unwrap();
        let rows = moments.iter().enumerate().map(|(id, at)| json!({"id": id, "sku": "x", "at": at})).collect();
        write(&db, "orders", rows).await;
        write(
            &db,
            "orders",
            vec![json!({"id": 3, "sku": "y", "at": moments[0]}), json!({"id": 4, "sku": "x", "at": 1})],
        )
        .await;
        pipeline.settle().await.unwrap();
        let rows = told(&db, "priced", &["id", "price"]).await;
        // Nothing has been forgotten yet: then there was no price.
        assert_eq!(rows, ["0 5", "1 7", "2 9", "3 null", "4 null"]);
        environment.advance_ms(7_200_000);
        db.maintain().await.unwrap();
        // A time that is not kept any more is told as of now, and counted.
        write(&db, "orders", vec![json!({"id": 5, "sku": "x", "at": moments[0]})]).await;
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "priced", &["id", "price"]).await[5], "5 9");
        assert_eq!(pipeline.status().await.lookups_beyond, 1);
    });
}

fn plan(text: serde_json::Value) -> Plan {
    Plan::from_json(&text.to_string()).unwrap()
}

fn calling() -> Plan {
    plan(json!({"nodes": [
        {"name": "clicks", "operator": {"source": {"fields": [{"name": "id", "type": "int64"}, {"name": "page", "type": "varchar"}]}}},
        {"name": "words", "inputs": ["clicks"], "operator": {"call": {"function": "split",
            "fields": [{"name": "word", "type": "varchar"}]}}},
        {"name": "out", "inputs": ["words"], "operator": {"sink": {"collection": "words"}}},
        {"name": "live", "inputs": ["words"], "operator": {"sink": {}}}
    ]}))
}

fn split(row: &Row) -> Result<Vec<Row>> {
    let Some(Value::String(page)) = row.get("page") else { return Err(Error::invalid("no page")) };
    if page.contains("bad") {
        return Err(Error::invalid("a bad page"));
    }
    Ok(page.split(' ').map(|word| Row::from([("word".to_owned(), word.into())])).collect())
}

#[test]
fn a_row_that_fails_is_put_aside_or_ends_the_pipeline() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let options = PipelineOptions { dead_letters: Some("dead".into()), ..PipelineOptions::default() };
        let kind = PipelineSpec { options, ..PipelineSpec::plan(calling()) };
        let pipeline = db.create_pipeline("words", kind).await.unwrap();
        let mut live = pipeline.rows("live").unwrap();
        assert!(pipeline.rows("out").is_err());
        write(&db, "clicks", vec![click(1, "one two", 0), click(2, "a bad one", 0), click(3, "three", 0)]).await;
        // A function that is not there yet is waited for.
        let error = pipeline.settle().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("\"split\""), "{error}");
        assert_eq!(pipeline.state(), PipelineState::Active);
        assert_eq!(live.ready(10).unwrap(), []);
        db.set_function("split", split);
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "words", &["row", "word"]).await, ["0 one", "1 two", "2 three"]);
        assert_eq!(live.ready(10).unwrap().len(), 3);
        assert_eq!(told(&db, "dead", &["node", "reason"]).await, ["words split: a bad page"]);
        assert_eq!(pipeline.status().await.dead, 1);

        let strict = plan(json!({"nodes": [
            {"name": "clicks", "operator": {"source": {"fields": [{"name": "page", "type": "varchar"}]}}},
            {"name": "out", "inputs": ["clicks"], "operator": {"sink": {"collection": "short", "keys": ["page"]}}}
        ]}));
        let short = r#"{"fields":[{"name":"page","type":"varchar","maxLength":5,"primaryKey":true}]}"#;
        db.create_collection("short", spec(short)).await.unwrap();
        let pipeline = db.create_pipeline("short", PipelineSpec::plan(strict)).await.unwrap();
        let error = pipeline.settle().await.unwrap_err();
        assert!(error.message().contains("did not take a row") && error.message().contains("short"), "{error}");
        db.close().await.unwrap();
        // That it failed, and why, is known after a restart.
        let db = open(&disk).await;
        let status = db.pipeline("short").unwrap().status().await;
        assert_eq!(status.state, PipelineState::Failed);
        assert!(status.reason.unwrap().1.contains("did not take a row"));
    });
}

/// A function of the host that answers when it likes.
struct Slow;

impl PipelineFunction for Slow {
    fn call<'a>(&'a self, rows: &'a [Row], _: &'a [Field]) -> Task<'a, Result<Vec<Result<Vec<Row>>>>> {
        Box::pin(async move {
            if rows.iter().any(|row| row["page"] == Value::from("few")) {
                return Ok(vec![]);
            }
            Err(Error::new(ErrorKind::Unavailable, "not now"))
        })
    }
}

#[test]
fn a_function_that_gives_no_answer_is_asked_again_and_one_that_gives_too_few_ends_it() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        db.set_function("split", Slow);
        let pipeline = db.create_pipeline("words", PipelineSpec::plan(calling())).await.unwrap();
        write(&db, "clicks", vec![click(1, "one two", 0)]).await;
        assert_eq!(pipeline.settle().await.unwrap_err().message(), "not now");
        assert_eq!(pipeline.state(), PipelineState::Active);
        assert_eq!(pipeline.status().await.reason.unwrap().0, "unavailable");
        db.set_function("split", split);
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "words", &["word"]).await, ["one", "two"]);
        db.set_function("split", Slow);
        write(&db, "clicks", vec![click(2, "few", 0)]).await;
        let error = pipeline.settle().await.unwrap_err();
        assert!(error.message().contains("answered 0 of 1 rows"), "{error}");
        assert_eq!(pipeline.state(), PipelineState::Failed);
    });
}

fn positions(rows: &[UnreadRow]) -> Vec<(u64, String)> {
    let page = |row: &UnreadRow| format!("{:?}", row.row["page"]).replace("String(\"", "").replace("\")", "");
    rows.iter().map(|row| (row.position, page(row))).collect()
}

#[test]
fn rows_for_the_application_are_kept_until_it_acknowledges_them() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let given = plan(json!({"nodes": [
            {"name": "clicks", "operator": {"source": {"fields": [{"name": "id", "type": "int64"}, {"name": "page", "type": "varchar"}]}}},
            {"name": "live", "inputs": ["clicks"], "operator": {"sink": {}}}
        ]}));
        let options = PipelineOptions { keep_rows: 4, batch_rows: 2, checkpoint_interval_ms: 0, ..Default::default() };
        let spec = PipelineSpec { options, ..PipelineSpec::plan(given.clone()) };
        let pipeline = db.create_pipeline("live", spec).await.unwrap();
        for (id, page) in [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")] {
            write(&db, "clicks", vec![click(id, page, id)]).await;
        }
        // Two at a time, until four wait.
        let error = pipeline.settle().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("not acknowledged"), "{error}");
        let four: Vec<(u64, String)> =
            [(0, "a"), (1, "b"), (2, "c"), (3, "d")].map(|(at, page)| (at, page.into())).into();
        assert_eq!(positions(&pipeline.unread("live", None, 10).await.unwrap()), four);
        assert_eq!(positions(&pipeline.unread("live", Some(1), 2).await.unwrap()), four[1..3]);
        let unread = |acknowledged, rows, is_full| UnreadStatus { sink: "live".into(), acknowledged, rows, is_full };
        assert_eq!(pipeline.status().await.unread, [unread(0, 4, true)]);
        assert_eq!(db.pipelines_due_ms(), None);
        let error = pipeline.acknowledge("live", 4).await.unwrap_err();
        assert!(error.message().contains("row 4 was not told"), "{error}");
        assert_eq!(pipeline.unread("out", None, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
        pipeline.acknowledge("live", 0).await.unwrap();
        assert_eq!(db.pipelines_due_ms(), Some(0));
        drop((pipeline, db));

        // Nothing was closed: what was acknowledged does not come again, and everything else does.
        let db = open(&disk).await;
        let pipeline = db.pipeline("live").unwrap();
        assert_eq!(positions(&pipeline.unread("live", None, 10).await.unwrap()), four[1..]);
        pipeline.acknowledge("live", 2).await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(positions(&pipeline.unread("live", None, 10).await.unwrap()), [(3, "d".into()), (4, "e".into())]);
        pipeline.wait_for_row("live", 4).await.unwrap();
        pipeline.acknowledge("live", 4).await.unwrap();
        pipeline.acknowledge("live", 1).await.unwrap();
        assert_eq!(pipeline.status().await.unread, [unread(5, 0, false)]);
        let files = db.inner.shared.storage.list("pipeline/").await.unwrap();
        let kept: Vec<&str> = files.iter().filter_map(|file| file.name.split("/rows/").nth(1)).collect();
        assert_eq!(kept, ["00001/done-00000000000000000005"]);

        // From the beginning, all come anew, under numbers of their own; from a savepoint, those since then.
        pipeline.savepoint("five").await.unwrap();
        write(&db, "clicks", vec![click(6, "f", 6)]).await;
        pipeline.settle().await.unwrap();
        pipeline.recover(Recovery::Savepoint("five".into())).await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(positions(&pipeline.unread("live", None, 10).await.unwrap()), [(5, "f".into()), (6, "f".into())]);
        pipeline.recover(Recovery::Nothing).await.unwrap();
        assert!(pipeline.unread("live", None, 10).await.unwrap().is_empty());
        let _ = pipeline.settle().await;
        let again = pipeline.unread("live", None, 10).await.unwrap();
        assert_eq!(positions(&again)[..2], [(7, "a".to_owned()), (8, "b".to_owned())]);

        // Who keeps none has none to acknowledge.
        let pipeline = db.create_pipeline("none", PipelineSpec::plan(given)).await.unwrap();
        let error = pipeline.unread("live", None, 1).await.unwrap_err();
        assert!(error.message().contains("keepRows"), "{error}");
        db.drop_pipeline("live").await.unwrap();
        let left = db.inner.shared.storage.list("pipeline/").await.unwrap();
        assert!(left.iter().all(|file| !file.name.contains("/rows/")), "{left:?}");
    });
}

#[test]
fn other_guarantees_keep_rows_for_the_application_too() {
    block_on(async {
        for guarantee in [Guarantee::AtLeastOnce, Guarantee::AtMostOnce] {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            db.create_collection("clicks", spec(CLICKS)).await.unwrap();
            let options =
                PipelineOptions { keep_rows: 100, guarantee, checkpoint_interval_ms: 3_600_000, ..Default::default() };
            let given = plan(json!({"nodes": [
                {"name": "clicks", "operator": {"source": {"fields": [{"name": "id", "type": "int64"}, {"name": "page", "type": "varchar"}]}}},
                {"name": "live", "inputs": ["clicks"], "operator": {"sink": {}}}
            ]}));
            let pipeline =
                db.create_pipeline("live", PipelineSpec { options, ..PipelineSpec::plan(given) }).await.unwrap();
            write(&db, "clicks", vec![click(1, "a", 1)]).await;
            while db.run_pipelines().await.unwrap() {}
            // Before its checkpoint, or with it.
            let early = pipeline.unread("live", None, 10).await.unwrap().len();
            assert_eq!(early, usize::from(guarantee == Guarantee::AtLeastOnce));
            drop((pipeline, db));
            let db = open(&disk).await;
            let pipeline = db.pipeline("live").unwrap();
            pipeline.settle().await.unwrap();
            let rows = positions(&pipeline.unread("live", None, 10).await.unwrap());
            let numbers: Vec<u64> = rows.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, (0..early as u64 + 1).collect::<Vec<_>>(), "{guarantee:?}");
            assert!(rows.iter().all(|(_, page)| page == "a"));
        }
    });
}

#[test]
fn bytes_that_are_no_rows_are_refused() {
    let given = plan(json!({"nodes": [
        {"name": "in", "operator": {"source": {"fields": [{"name": "id", "type": "int64"}, {"name": "text", "type": "varchar", "nullable": true},
            {"name": "vector", "type": "float_vector", "dim": 3}, {"name": "json", "type": "json", "nullable": true}]}}},
        {"name": "live", "inputs": ["in"], "operator": {"sink": {}}}
    ]}));
    let relation = given.check().unwrap()[1].clone();
    let rows = vec![
        row(json!({"id": 1, "text": "one", "vector": [1.0, 2.0, 3.0], "json": {"a": [1]}})),
        row(json!({"id": -2, "vector": [0.0, -1.5, 2.0]})),
    ];
    let (batch, wrong) = relation.batch(&rows);
    assert!(wrong.is_empty(), "{wrong:?}");
    let told = crate::stream::Rows::new(batch, vec![5, -6]);
    let bytes = RowsPart { first: 7, rows: vec![told.clone(), told] }.encode();
    let part = RowsPart::decode(&bytes, &relation).unwrap();
    assert_eq!((part.first, part.rows[0].len()), (7, 4));
    assert_eq!(
        part.rows[0].to_rows(&relation)[2],
        RowsPart::decode(&bytes, &relation).unwrap().rows[0].to_rows(&relation)[0]
    );
    assert_eq!(part.rows[0].to_rows(&relation)[3]["vector"], Value::Vector(vec![0.0, -1.5, 2.0]));
    let mut random = crate::base::Random::new(17);
    for at in 0..bytes.len() {
        assert_eq!(RowsPart::decode(&bytes[..at], &relation).unwrap_err().kind(), ErrorKind::Corrupt, "cut at {at}");
        // A wrong byte is found by the checksum; with a right one, whatever it says is an error or rows.
        let mut wrong = bytes.clone();
        wrong[at] ^= 1 << random.below(8);
        assert!(RowsPart::decode(&wrong, &relation).is_err(), "byte {at}");
        let end = wrong.len() - 4;
        let sum = crate::base::codec::checksum(&wrong[..end]);
        wrong[end..].copy_from_slice(&sum.to_le_bytes());
        let _ = RowsPart::decode(&wrong, &relation);
    }
}

#[test]
fn a_pipeline_is_paused_and_goes_on_from_where_it_is_told() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let text =
            "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS clicks FROM clicks GROUP BY page EMIT CHANGES";
        let pipeline = db.create_pipeline("pages", PipelineSpec::sql(text)).await.unwrap();
        write(&db, "clicks", vec![click(1, "a", 0)]).await;
        pipeline.settle().await.unwrap();
        pipeline.savepoint("first").await.unwrap();
        assert!(pipeline.savepoint("first").await.is_err() && pipeline.savepoint("No").await.is_err());
        pipeline.pause().await.unwrap();
        write(&db, "clicks", vec![click(2, "a", 0), click(1, "b", 0)]).await;
        assert!(pipeline.settle().await.is_err());
        assert!(!db.run_pipelines().await.unwrap());
        db.close().await.unwrap();

        let db = open(&disk).await;
        let pipeline = db.pipeline("pages").unwrap();
        assert_eq!(pipeline.state(), PipelineState::Paused);
        pipeline.resume().await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["a 1", "b 1"]);
        assert_eq!(pipeline.savepoints().await.unwrap(), ["first"]);
        pipeline.recover(Recovery::Savepoint("first".into())).await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["a 1", "b 1"]);
        assert_eq!(pipeline.recover(Recovery::Savepoint("no".into())).await.unwrap_err().kind(), ErrorKind::NotFound);
        // A row that is not the pipeline's is gone when it begins anew, for it has made the collection.
        write(&db, "pages", vec![json!({"page": "other", "clicks": 9})]).await;
        pipeline.recover(Recovery::Nothing).await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["a 1", "b 1"]);
        let numbers = checkpoint::numbers(&*db.inner.shared.storage, pipeline.inner.id()).await.unwrap();
        assert!(numbers.len() <= 3, "{numbers:?}");
        assert!(pipeline.remove_savepoint("first").await.unwrap());
        assert!(!pipeline.remove_savepoint("first").await.unwrap());
    });
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let text =
            "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS clicks FROM clicks GROUP BY page EMIT CHANGES";
        let pipeline = db.create_pipeline("pages", PipelineSpec::sql(text)).await.unwrap();
        for id in 0..6 {
            write(&db, "clicks", vec![click(id, "a", 0), click(100, &format!("page {id}"), 0)]).await;
            pipeline.settle().await.unwrap();
        }
        let id = pipeline.inner.id();
        let numbers = checkpoint::numbers(&*db.inner.shared.storage, id).await.unwrap();
        assert_eq!(numbers, [7, 6, 5]);
        drop(pipeline);
        db.close().await.unwrap();

        let storage = disk.open().unwrap();
        let path = checkpoint::checkpoint(id, 7);
        let mut bytes = storage.read_all(&path).await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        storage.remove(&path).await.unwrap();
        storage.put(&path, bytes.into()).await.unwrap();
        storage.close().await.unwrap();
        let db = open(&disk).await;
        let pipeline = db.pipeline("pages").unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["a 6", "page 5 1"]);
        let status = pipeline.status().await;
        assert!(status.reports[0].contains("its checksum is wrong"), "{:?}", status.reports);
        write(&db, "clicks", vec![click(50, "a", 0)]).await;
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["a 7", "page 5 1"]);
        drop((pipeline, db));

        // With none that is whole it says so, and nothing is written by guess.
        let storage = disk.open().unwrap();
        for entry in storage.list(&checkpoint::checkpoints(id)).await.unwrap() {
            storage.remove(&entry.name).await.unwrap();
            storage.put(&entry.name, b"EDPC"[..].into()).await.unwrap();
        }
        storage.close().await.unwrap();
        let db = open(&disk).await;
        let pipeline = db.pipeline("pages").unwrap();
        assert_eq!(pipeline.settle().await.unwrap_err().kind(), ErrorKind::Corrupt);
        pipeline.recover(Recovery::Nothing).await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["a 7", "page 5 1"]);
    });
}

#[test]
fn history_is_kept_so_far_and_no_further() {
    block_on(async {
        for gone in [OnGone::Fail, OnGone::Reseed] {
            let db = open(&MemoryDisk::new()).await;
            db.create_collection("clicks", spec(CLICKS)).await.unwrap();
            let text = "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS clicks FROM clicks GROUP BY page EMIT CHANGES";
            let options = PipelineOptions { behind_max: 5, gone, ..PipelineOptions::default() };
            let kind = PipelineSpec { options, ..PipelineSpec::sql(text) };
            let pipeline = db.create_pipeline("pages", kind).await.unwrap();
            write(&db, "clicks", vec![click(1, "a", 0), click(2, "z", 0)]).await;
            pipeline.settle().await.unwrap();
            pipeline.pause().await.unwrap();
            for id in 0..20 {
                write(&db, "clicks", vec![click(1, &format!("page {id}"), 0)]).await;
                db.run_pipelines().await.unwrap();
            }
            assert!(db.collection("clicks").unwrap().subscriptions().is_empty());
            assert!(pipeline.status().await.reports[0].contains("behind in collection"));
            db.compact("clicks").await.unwrap();
            write(&db, "clicks", vec![click(1, "end", 0)]).await;
            pipeline.resume().await.unwrap();
            match gone {
                OnGone::Fail => {
                    assert_eq!(pipeline.settle().await.unwrap_err().kind(), ErrorKind::Gone);
                    assert_eq!(pipeline.state(), PipelineState::Failed);
                    pipeline.recover(Recovery::Nothing).await.unwrap();
                    pipeline.settle().await.unwrap();
                }
                OnGone::Reseed => pipeline.settle().await.unwrap(),
            }
            assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["end 1", "z 1"]);
            assert_eq!(db.collection("clicks").unwrap().subscriptions().len(), 1);
        }
    });
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_made() {
    block_on(async {
        let db = open(&MemoryDisk::new()).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let wrong = async |spec: PipelineSpec| {
            let error = db.create_pipeline("p", spec).await.unwrap_err();
            assert_eq!((db.pipelines().len(), db.collections().len()), (0, 1), "{error}");
            assert_eq!(db.inner.shared.storage.list(name::PIPELINES).await.unwrap(), [], "{error}");
            error.message().to_owned()
        };
        assert!(wrong(PipelineSpec::default()).await.contains("got neither"));
        assert!(wrong(PipelineSpec::sql("CREATE MATERIALIZED VIEW v AS SELECT x FROM clicks")).await.contains("`x`"));
        let unkeyed = wrong(PipelineSpec::sql("CREATE MATERIALIZED VIEW v AS SELECT at FROM clicks")).await;
        assert!(unkeyed.contains("told apart"), "{unkeyed}");
        let circle = wrong(PipelineSpec::sql("INSERT INTO clicks SELECT id, page, at FROM clicks")).await;
        assert!(circle.contains("read what it writes"), "{circle}");
        let source = |field: &str, kind: &str| {
            plan(json!({"nodes": [
                {"name": "clicks", "operator": {"source": {"fields": [{"name": field, "type": kind}]}}},
                {"name": "out", "inputs": ["clicks"], "operator": {"sink": {"collection": "v"}}}
            ]}))
        };
        assert!(wrong(PipelineSpec::plan(source("nothing", "int64"))).await.contains("no field `nothing`"));
        assert!(wrong(PipelineSpec::plan(source("page", "int64"))).await.contains("is varchar"));
        let options = PipelineOptions { checkpoints: 0, ..PipelineOptions::default() };
        assert!(
            wrong(PipelineSpec { options, ..PipelineSpec::plan(source("page", "varchar")) })
                .await
                .contains("checkpoints is 0")
        );
        assert!(PipelineSpec::from_json(r#"{"sql": "", "option": {}}"#).unwrap_err().message().contains("option"));
    });
}

#[test]
fn time_of_the_write_can_be_the_event_time() {
    block_on(async {
        let environment = Environment::simulated(3, 1_000_000);
        let options = Options { environment: environment.clone(), ..Options::default() };
        let db = open_with(&MemoryDisk::new(), options).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let text = "CREATE MATERIALIZED VIEW seconds AS
            SELECT window_end, count(*) AS clicks FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(written), INTERVAL '10' SECONDS))
            GROUP BY window_start, window_end";
        let of = PipelineSource {
            time: Some("written".into()),
            commit_time: Some("written".into()),
            ..PipelineSource::default()
        };
        let kind = PipelineSpec { sources: BTreeMap::from([("clicks".to_owned(), of)]), ..PipelineSpec::sql(text) };
        let pipeline = db.create_pipeline("seconds", kind).await.unwrap();
        for id in 0..4 {
            write(&db, "clicks", vec![click(id, "a", 0)]).await;
            environment.advance_ms(10_000);
        }
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "seconds", &["clicks"]).await, ["1", "1", "1"]);
        assert!(pipeline.spec().plan.is_some());
    });
}

/// Windows of the clock close though nothing is written.
#[test]
fn processing_time_goes_by_the_clock_of_the_store() {
    block_on(async {
        let environment = Environment::simulated(3, 1_000_000);
        let options = Options { environment: environment.clone(), ..Options::default() };
        let db = open_with(&MemoryDisk::new(), options).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let plan = plan(json!({"nodes": [
            {"name": "clicks", "operator": {"source": {"fields": [{"name": "page", "type": "varchar"}]}}},
            {"name": "count", "inputs": ["clicks"], "operator": {"aggregate": {"window": {"tumbling": {"size": 10_000_000}},
                "keys": ["page"], "trigger": {"processingTime": true}, "aggregates": [{"name": "clicks", "function": "count"}]}}},
            {"name": "out", "inputs": ["count"], "operator": {"sink": {"collection": "counts", "keys": ["page", "window_end"]}}}
        ]}));
        let pipeline = db.create_pipeline("counts", PipelineSpec::plan(plan)).await.unwrap();
        write(&db, "clicks", vec![click(1, "a", 0), click(2, "a", 0)]).await;
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "counts", &["clicks"]).await, [""; 0]);
        let due = db.pipelines_due_ms().unwrap();
        assert!(due <= 10_000, "{due}");
        environment.advance_ms(due + 1);
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "counts", &["clicks"]).await, ["2"]);
    });
}

#[test]
fn other_guarantees_end_at_the_same_rows_when_nothing_dies() {
    block_on(async {
        for guarantee in [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce, Guarantee::AtMostOnce] {
            let db = open(&MemoryDisk::new()).await;
            db.create_collection("clicks", spec(CLICKS)).await.unwrap();
            let options = PipelineOptions { guarantee, batch_rows: 3, staged_rows: 5, ..PipelineOptions::default() };
            let text = "INSERT INTO copies SELECT id, page FROM clicks";
            db.create_collection(
                "copies",
                spec(r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"page","type":"varchar"}]}"#),
            )
            .await
            .unwrap();
            let kind = PipelineSpec { options, ..PipelineSpec::sql(text) };
            write(&db, "clicks", (0..40).map(|id| click(id, "a", 0)).collect()).await;
            let pipeline = db.create_pipeline("copy", kind).await.unwrap();
            write(&db, "clicks", (30..60).map(|id| click(id, "b", 0)).collect()).await;
            pipeline.settle().await.unwrap();
            let rows = told(&db, "copies", &["id", "page"]).await;
            assert_eq!((rows.len(), &*rows[0], &*rows[59]), (60, "0 a", "59 b"), "{guarantee:?}");
        }
    });
}

#[test]
fn definitions_and_checkpoints_come_back_or_are_refused() {
    let definition = Definition {
        id: 7,
        name: "minutes".into(),
        spec: PipelineSpec::plan(calling()),
        state: PipelineState::Failed,
        reason: Some(("gone".into(), "no more".into())),
        made: vec!["words".into()],
    };
    let bytes = definition.encode();
    assert_eq!(Definition::decode(&bytes).unwrap(), definition);
    let write = SinkWrite { node: 3, number: 9, clears: true, changes: b"changes".to_vec() };
    let point = Checkpoint {
        number: 5,
        created_ms: 6,
        sequence: 9,
        next_rows: vec![(3, 17)],
        writes: vec![write],
        job: b"job".to_vec(),
    };
    let checkpoint = point.encode();
    assert_eq!(Checkpoint::decode(&checkpoint).unwrap(), point);
    for at in 0..bytes.len() {
        assert!(Definition::decode(&bytes[..at]).is_err());
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert!(Definition::decode(&other).is_err());
    }
    for at in 0..checkpoint.len() {
        assert!(Checkpoint::decode(&checkpoint[..at]).is_err());
        let mut other = checkpoint.clone();
        other[at] ^= 1;
        assert!(Checkpoint::decode(&other).is_err());
    }
}

#[test]
fn the_bottleneck_is_the_function_that_takes_the_time() {
    block_on(async {
        let disk = MemoryDisk::new();
        let environment = Environment::simulated(7, 1_700_000_000_000);
        let db = open_with(&disk, Options { environment: environment.clone(), ..Options::default() }).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        db.set_function("split", move |row: &Row| {
            environment.advance_ms(500);
            split(row)
        });
        let pipeline = db.create_pipeline("words", PipelineSpec::plan(calling())).await.unwrap();
        assert_eq!(pipeline.status().await.bottleneck, None);
        write(&db, "clicks", vec![click(1, "one two", 0), click(2, "three", 0)]).await;
        pipeline.settle().await.unwrap();
        let status = pipeline.status().await;
        let bottleneck = status.bottleneck.unwrap();
        assert_eq!((bottleneck.node.as_str(), bottleneck.kind), ("words", StageKind::Lookup), "{}", bottleneck.text);
        assert!(bottleneck.text.contains("looking up"), "{}", bottleneck.text);
        assert!(pipeline.explain().await.unwrap().contains("bottleneck: words: looking up"));
    });
}

/// All that a pipeline is made of stands in its text: sources of each kind, a pace, sinks, and where refused rows go.
#[test]
fn a_text_alone_is_a_pipeline() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        write(&db, "clicks", vec![click(1, "old", 10)]).await;
        let pushed = r#"{"fields": [{"name": "page", "type": "varchar"}, {"name": "n", "type": "int64"}]}"#;
        let pushed = db.create_push_stream("pushed", PushStreamSpec::from_json(pushed).unwrap()).await.unwrap();
        let text = "
            CREATE SOURCE seen (page VARCHAR, n BIGINT) WITH (connector = 'stream', stream = 'pushed', mode = 'batch');
            CREATE SOURCE written (id BIGINT NOT NULL, page VARCHAR NOT NULL, at TIMESTAMP NOT NULL, came TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '5' SECOND)
                WITH (connector = 'collection', collection = 'clicks', since = 'now', commitTime = 'came');
            CREATE SOURCE living WITH (connector = 'collection', collection = 'clicks', changes = TRUE);
            CREATE SINK totals AS SELECT page, sum(n) AS n FROM seen GROUP BY page EMIT CHANGES WITH (deadLetters = 'dead');
            CREATE SINK late AS SELECT id, page, at, came > TIMESTAMP '2000-01-01 00:00:00' AS is_new FROM written WITH (keys = 'id');
            CREATE SINK pages AS SELECT page, count(*) AS clicks FROM living GROUP BY page EMIT CHANGES;
            CREATE SINK told WITH (connector = 'application', keepRows = 100);
            INSERT INTO told SELECT page FROM written";
        let explained = db.explain_pipeline(PipelineSpec::sql(text)).unwrap();
        for part in [
            "seen: source, from stream {\"stream\":\"pushed\"}, to its end -> ",
            "watermark 5 s behind, from collection clicks, since now, came is the time of the write -> ",
            "living: source, from collection clicks -> ",
            "told: sink, 100 rows kept until they are acknowledged -> ",
            "dead letters: into dead\n",
        ] {
            assert!(explained.contains(part), "{part:?} in {explained}");
        }
        let mut doubled = PipelineSpec::sql(text);
        doubled.sources.insert("written".to_owned(), PipelineSource::default());
        let error = db.create_pipeline("all", doubled).await.unwrap_err();
        assert!(error.message().contains("`WITH` and by `sources`"), "{error}");
        let pipeline = db.create_pipeline("all", PipelineSpec::sql(text)).await.unwrap();
        assert!(pipeline.explain().await.unwrap().contains("since now, came is"));
        let rows = [("a", 1), ("b", 2), ("a", 3)];
        pushed.push(rows.map(|(page, n)| row(json!({"page": page, "n": n}))).to_vec()).await.unwrap();
        write(&db, "clicks", vec![click(2, "new", 20), click(3, "new", 30)]).await;
        pipeline.settle().await.unwrap();
        write(&db, "clicks", vec![click(3, "other", 30)]).await;
        drop((pipeline, pushed));
        db.close().await.unwrap();
        let db = open(&disk).await;
        let pipeline = db.pipeline("all").unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(told(&db, "totals", &["page", "n"]).await, ["a 4", "b 2"]);
        assert_eq!(told(&db, "late", &["id", "page", "is_new"]).await, ["2 new true", "3 new true"]);
        assert_eq!(told(&db, "pages", &["page", "clicks"]).await, ["new 1", "old 1", "other 1"]);
        let unread = pipeline.unread("told", None, 10).await.unwrap();
        assert_eq!(
            unread.iter().map(|one| one.row["page"].clone()).collect::<Vec<_>>(),
            [Value::from("new"), "new".into()]
        );
        assert_eq!(db.collection("dead").unwrap().count(None).await.unwrap(), 0);
    });
}

/// History comes as fast as it is asked for, and what is written later at once.
#[test]
fn the_past_of_a_collection_comes_at_its_pace() {
    block_on(async {
        let (disk, clock) = (MemoryDisk::new(), Arc::new(AtomicU64::new(1_700_000_000_000)));
        let now = clock.clone();
        let environment = Environment::following(7, move || now.load(Ordering::Relaxed));
        let db = open_with(&disk, Options { environment, ..Options::default() }).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        for (id, after_ms) in [(1, 0), (2, 1_000), (3, 4_000)] {
            clock.fetch_add(after_ms, Ordering::Relaxed);
            write(&db, "clicks", vec![click(id, "a", id), click(10 * id, "b", id)]).await;
        }
        let text = |with: &str| {
            format!(
                "CREATE SOURCE past WITH (connector = 'collection', collection = 'clicks', {with}); CREATE SINK copy FROM past WITH (keys = 'id')"
            )
        };
        for (with, part) in [
            ("pace = 2", "with `since` other than `full`"),
            ("pace = 1e9, since = 'earliest'", "pace is 1000000000, expected more than 0 and at most"),
        ] {
            let error = db.create_pipeline("copy", PipelineSpec::sql(text(with))).await.unwrap_err();
            assert!(error.message().contains(part), "{error}");
        }
        let from_start = PipelineSpec::sql(text("pace = 2, since = 'earliest'"));
        assert!(
            db.explain_pipeline(from_start.clone()).unwrap().contains("since earliest, 2 times as fast as it happened")
        );
        let pipeline = db.create_pipeline("copy", from_start).await.unwrap();
        let copied = async || {
            pipeline.settle().await.unwrap();
            db.collection("copy").unwrap().count(None).await.unwrap()
        };
        assert_eq!((copied().await, db.pipelines_due_ms()), (2, Some(500)));
        clock.fetch_add(499, Ordering::Relaxed);
        assert_eq!((copied().await, db.pipelines_due_ms()), (2, Some(1)));
        clock.fetch_add(1, Ordering::Relaxed);
        assert_eq!((copied().await, db.pipelines_due_ms()), (4, Some(2_000)));
        assert_eq!(pipeline.status().await.sources[0].behind, 1);
        clock.fetch_add(2_000, Ordering::Relaxed);
        assert_eq!((copied().await, db.pipelines_due_ms()), (6, None));
        // Long after the past: at once.
        clock.fetch_add(60_000, Ordering::Relaxed);
        write(&db, "clicks", vec![click(4, "a", 4)]).await;
        clock.fetch_add(60_000, Ordering::Relaxed);
        write(&db, "clicks", vec![click(5, "a", 5)]).await;
        assert_eq!(copied().await, 8);
        // However slowly the past came.
        let slowly = text("pace = 0.5, since = 'earliest'").replace("copy", "slow");
        let slow = db.create_pipeline("slow", PipelineSpec::sql(slowly)).await.unwrap();
        slow.settle().await.unwrap();
        while let Some(due_ms) = db.pipelines_due_ms() {
            clock.fetch_add(due_ms, Ordering::Relaxed);
            slow.settle().await.unwrap();
        }
        clock.fetch_add(1_000, Ordering::Relaxed);
        write(&db, "clicks", vec![click(6, "a", 6)]).await;
        slow.settle().await.unwrap();
        assert_eq!((db.collection("slow").unwrap().count(None).await.unwrap(), db.pipelines_due_ms()), (9, None));
    });
}

/// The cases that JavaScript hosts are asked as well, by the database of zones that is in the program; and one that goes on after a restart.
#[test]
fn windows_go_by_the_clocks_of_a_zone() {
    let cases = include_str!("../../../tests/support/zones.mjs");
    let list = &cases[cases.find('[').unwrap()..=cases.rfind(']').unwrap()];
    let cases: Vec<BTreeMap<String, serde_json::Value>> = serde_json::from_str(list).unwrap();
    let micros = |text: &serde_json::Value| crate::model::time::parse(text.as_str().unwrap()).unwrap();
    block_on(async {
        let disk = MemoryDisk::new();
        let db = open(&disk).await;
        db.create_collection("clicks", spec(CLICKS)).await.unwrap();
        let rows = cases.iter().enumerate().map(|(id, case)| json!({"id": id, "page": "a", "at": micros(&case["at"])}));
        write(&db, "clicks", rows.collect()).await;
        for (id, case) in cases.iter().enumerate() {
            let (zone, hours) = (case["zone"].as_str().unwrap(), &case["hours"]);
            let sql = format!(
                "SELECT window_start, window_end FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(at AT TIME ZONE '{zone}'),
                 INTERVAL '{hours}' HOUR)) WHERE id = {id}"
            );
            let request = SqlRequest { text: sql, parameters: BTreeMap::new(), timeout_ms: None };
            let found = db.sql(&request).await.unwrap().rows;
            let bounds = ["window_start", "window_end"].map(|name| found[0][name].clone());
            assert_eq!(bounds, ["start", "end"].map(|name| Value::Int(micros(&case[name]))), "{case:?}");
        }

        let days = |zone: &str| {
            PipelineSpec::sql(
                MINUTES
                    .replace("DESCRIPTOR(at)", &format!("DESCRIPTOR(at AT TIME ZONE '{zone}')"))
                    .replace("'1' MINUTE", "'1' DAY")
                    .replace("'5' SECOND", "'20000' DAY"),
            )
        };
        let error = db.create_pipeline("minutes", days("Europe/Nowhere")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("there is no time zone \"Europe/Nowhere\" here"), "{error}");
        let pipeline = db.create_pipeline("minutes", days("America/Sao_Paulo")).await.unwrap();
        pipeline.settle().await.unwrap();
        drop(pipeline);
        db.close().await.unwrap();
        let db = open(&disk).await;
        write(
            &db,
            "clicks",
            vec![
                json!({"id": -2, "page": "a", "at": 1_550_368_799i64 * SECOND}),
                json!({"id": -1, "page": "b", "at": 40_000 * 86_400 * SECOND}),
            ],
        )
        .await;
        let pipeline = db.pipeline("minutes").unwrap();
        pipeline.settle().await.unwrap();
        let told = told(&db, "minutes", &["page", "window_end", "clicks"]).await;
        // Saturday had its last hour twice: what came before the restart and what came after are in one window.
        let end = crate::model::time::parse("2019-02-17T03:00Z").unwrap();
        assert!(told.contains(&format!("a {end} 2")), "{told:?}");
    });
}

/// Two pipelines, a push stream and a bus may share a collection of dead letters: each number of one was that of the other, whose letter it took the
/// place of. So it is of collections whose keys are still numbers, and letters that are there stay.
#[test]
fn letters_of_several_pipelines_do_not_take_each_others_places() {
    for before in [false, true] {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            if before {
                let spec = r#"{"fields": [{"name": "row", "type": "int64", "primaryKey": true}, {"name": "pipeline", "type": "varchar"},
                    {"name": "node", "type": "varchar"}, {"name": "reason", "type": "varchar"},
                    {"name": "content", "type": "json", "nullable": true}, {"name": "at", "type": "timestamp"}]}"#;
                let dead = db.create_collection("dead", CollectionSpec::from_json(spec).unwrap()).await.unwrap();
                let letters = (0..3)
                    .map(|number| row(json!({"row": number, "pipeline": "old", "node": "n", "reason": "r", "at": 0})));
                let batch = Batch::from_rows(&dead.spec().schema, letters.collect()).unwrap();
                dead.upsert(batch).await.unwrap();
            }
            let pushed = r#"{"fields": [{"name": "id", "type": "int64"}], "checks": [{"filter": "id > 9"}], "deadLetters": "dead"}"#;
            let pushed = db.create_push_stream("pushed", PushStreamSpec::from_json(pushed).unwrap()).await.unwrap();
            db.create_collection("clicks", spec(CLICKS)).await.unwrap();
            let plan = r#"{"nodes": [
                {"name": "clicks", "operator": {"source": {"fields": [{"name": "page", "type": "varchar"}]}}},
                {"name": "bad", "inputs": ["clicks"], "operator": {"call": {"function": "bad", "fields": [{"name": "page", "type": "varchar"}]}}},
                {"name": "out", "inputs": ["bad"], "operator": {"sink": {"collection": "pages", "keys": ["page"]}}}]}"#;
            db.set_function("bad", |_: &Row| Err(Error::invalid("a bad page")));
            write(&db, "clicks", vec![click(1, "a", 1), click(2, "b", 2), click(3, "c", 3)]).await;
            for name in ["one", "two"] {
                let options = PipelineOptions { dead_letters: Some("dead".into()), ..PipelineOptions::default() };
                let plan = Plan::from_json(&plan.replace("pages", name)).unwrap();
                let spec = PipelineSpec { options, ..PipelineSpec::plan(plan) };
                db.create_pipeline(name, spec).await.unwrap().settle().await.unwrap();
            }
            let rows = || vec![row(json!({"id": 1})), row(json!({"id": 2}))];
            pushed.push(rows()).await.unwrap();
            for _ in 0..2 {
                pushed.push_once(rows(), crate::stream::PushKey::new("a", 1).unwrap()).await.unwrap();
            }
            let dead = db.collection("dead").unwrap();
            // What is refused of a push without a row that was taken is not known to have come before; its letters are the same all the same.
            for (pipeline, count) in [("one", 3), ("two", 3), ("pushed", 4), ("old", if before { 3 } else { 0 })] {
                let filter = format!("pipeline == '{pipeline}'");
                assert_eq!(dead.count(Some(&filter)).await.unwrap(), count, "{pipeline}, {before}");
            }
        });
    }
}
