//! The bench of what follows a store: change streams, live queries, and a pipeline that joins rows with their nearest ones.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eddydb::base::{Random, Result};
use eddydb::db::{ChangesRequest, Collection, Db, LiveRequest, MergeKind, Options, PipelineSpec, SearchRequest};
use eddydb::engine::{CollectionOptions, CollectionSpec};
use eddydb::model::{Batch, Row, Value};
use eddydb::storage::FileStorage;
use serde_json::{Value as Json, json};

const DIM: usize = 384;
const BATCH: usize = 1_000;

async fn open(directory: &Path) -> Result<Db> {
    Db::open(Arc::new(FileStorage::open(directory)?), Options::default()).await
}

fn spec(index: &str) -> CollectionSpec {
    let text = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"embedding","type":"float_vector","dim":{DIM}}}],
        "indexes":{{"embedding":{{"metric":"COSINE","kind":{index}}}}}}}"#
    );
    serde_json::from_str(&text).expect("a spec")
}

/// Vectors around a thousand centres, seeded.
struct Vectors {
    random: Random,
    centres: Vec<Vec<f32>>,
}

impl Vectors {
    fn new() -> Self {
        let mut random = Random::new(11);
        let centres = (0..1_000).map(|_| (0..DIM).map(|_| unit(&mut random)).collect()).collect();
        Self { random, centres }
    }

    fn next(&mut self) -> Vec<f32> {
        let centre = self.random.below(self.centres.len() as u64) as usize;
        let random = &mut self.random;
        self.centres[centre].iter().map(|value| value + 0.5 * unit(random)).collect()
    }

    fn batch(&mut self, collection: &Collection, first: usize, count: usize) -> Result<Batch> {
        let row = |at| {
            let vector = Value::Vector(self.next());
            Row::from([("id".to_owned(), Value::Int((first + at) as i64)), ("embedding".to_owned(), vector)])
        };
        Batch::from_rows(&collection.spec().schema, (0..count).map(row).collect())
    }

    async fn fill(&mut self, db: &Db, collection: &Collection, rows: usize) -> Result<()> {
        for first in (0..rows).step_by(BATCH) {
            let batch = self.batch(collection, first, BATCH.min(rows - first))?;
            collection.upsert(batch).await?;
            while db.maintain().await? {}
        }
        Ok(())
    }
}

fn unit(random: &mut Random) -> f32 {
    (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
}

/// From the acknowledgement of a write until a follower in the same process has it, and from the call that wrote it.
pub async fn changes(directory: &Path) -> Result<Json> {
    const WRITES: usize = 2_000;
    let db = open(&directory.join("changes")).await?;
    let collection = db.create_collection("rows", spec("\"FLAT\"")).await?;
    let mut stream = collection.changes(ChangesRequest { after: true, ..ChangesRequest::default() }).await?;
    let mut vectors = Vectors::new();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let follower = tokio::spawn(async move {
        let mut count = 0;
        while count < WRITES {
            let batch = stream.next().await?;
            count += batch.changes.len();
            batch.changes.iter().for_each(|_| told.send(Instant::now()).expect("the writer listens"));
        }
        Ok::<_, eddydb::base::Error>(())
    });
    let (mut since_call, mut since_commit) = (Vec::new(), Vec::new());
    for at in 0..WRITES {
        let batch = vectors.batch(&collection, at, 1)?;
        let called = Instant::now();
        collection.upsert(batch).await?;
        let committed = Instant::now();
        let here = heard.recv().await.expect("the follower tells");
        since_call.push(here.duration_since(called));
        // It may be here before the writer has gone on.
        since_commit.push(here.saturating_duration_since(committed));
    }
    follower.await.expect("the follower ends")?;
    db.close().await?;
    Ok(json!({
        "writes": WRITES,
        "from_commit_p50_ms": quantile(&mut since_commit, 0.5), "from_commit_p99_ms": quantile(&mut since_commit, 0.99),
        "from_call_p50_ms": quantile(&mut since_call, 0.5), "from_call_p99_ms": quantile(&mut since_call, 0.99),
    }))
}

/// What a row costs that is written under many live queries, beside searching all of them again.
pub async fn standing(directory: &Path, rows: usize, queries: usize) -> Result<Json> {
    const INSERTS: usize = 200;
    const SAMPLE: usize = 50;
    const K: usize = 10;
    let db = open(&directory.join("standing")).await?;
    let collection = db.create_collection("rows", spec("\"FLAT\"")).await?;
    let mut vectors = Vectors::new();
    vectors.fill(&db, &collection, rows).await?;
    let mut live = collection.live().await?;
    let mut asked = Vec::new();
    let start = Instant::now();
    for _ in 0..queries {
        let request =
            SearchRequest { vector: vectors.next().into(), limit: K, exact: true, ..SearchRequest::default() };
        let (id, _) = live.add(LiveRequest::Nearest(Box::new(request.clone()))).await?;
        asked.push((id, request));
    }
    let added_seconds = start.elapsed().as_secs_f64();
    let (mut updating, mut updates) = (Duration::ZERO, 0);
    for at in 0..INSERTS {
        let batch = vectors.batch(&collection, rows + at, 1)?;
        collection.upsert(batch).await?;
        let start = Instant::now();
        updates += live.update().await?.len();
        updating += start.elapsed();
    }
    let mut exact = 0;
    let start = Instant::now();
    for at in 0..SAMPLE {
        let (id, request) = &asked[at * queries / SAMPLE];
        let found: Vec<_> = collection.search(request).await?.hits.into_iter().map(|hit| hit.key).collect();
        let kept = live.answer(*id).unwrap_or_default();
        exact += usize::from(kept.into_iter().map(|hit| hit.key).eq(found));
    }
    let search_ms = start.elapsed().as_secs_f64() * 1e3 / SAMPLE as f64;
    let update_ms = updating.as_secs_f64() * 1e3 / INSERTS as f64;
    db.close().await?;
    Ok(json!({
        "rows": rows, "queries": queries, "inserts": INSERTS, "updates": updates, "added_seconds": added_seconds,
        "update_ms": update_ms, "search_ms": search_ms, "times_cheaper": search_ms * queries as f64 / update_ms,
        "exact": exact as f64 / SAMPLE as f64,
    }))
}

/// Events that a pipeline joins with their nearest rows.
pub async fn nearest(directory: &Path, rows: usize) -> Result<Json> {
    const EVENTS: usize = 10_000;
    let db = open(&directory.join("nearest")).await?;
    let collection = db.create_collection("rows", spec(r#"{"HNSW":{"m":16,"ef_construction":100}}"#)).await?;
    let mut vectors = Vectors::new();
    vectors.fill(&db, &collection, rows).await?;
    let fields = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"at","type":"timestamp"}},
        {{"name":"embedding","type":"float_vector","dim":{DIM}}}],"indexes":{{"embedding":{{"metric":"COSINE","kind":"FLAT"}}}}}}"#
    );
    let events = db.create_collection("events", serde_json::from_str(&fields).expect("a spec")).await?;
    let text = format!(
        "CREATE STREAM events (id BIGINT NOT NULL, at TIMESTAMP NOT NULL, embedding VECTOR({DIM}), WATERMARK FOR at AS at);
        CREATE MATERIALIZED VIEW found AS
        SELECT e.id AS event, n.id AS near, n.distance AS distance FROM events e, nearest(rows, e.embedding, 10) n"
    );
    let pipeline = db.create_pipeline("found", PipelineSpec::sql(text)).await?;
    for first in (0..EVENTS).step_by(BATCH) {
        let row = |at| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
            Row::from([
                ("id".to_owned(), Value::Int((first + at) as i64)),
                ("at".to_owned(), Value::Int(now as i64)),
                ("embedding".to_owned(), Value::Vector(vectors.next())),
            ])
        };
        let batch = Batch::from_rows(&events.spec().schema, (0..BATCH).map(row).collect())?;
        events.upsert(batch).await?;
    }
    let start = Instant::now();
    pipeline.settle().await?;
    let seconds = start.elapsed().as_secs_f64();
    let joined = db.collection("found")?.count(None).await?;
    drop(pipeline);
    db.close().await?;
    Ok(json!({ "rows": rows, "events": EVENTS, "joined": joined, "events_per_second": EVENTS as f64 / seconds }))
}

/// How long a search takes while rows come at an even rate and are indexed and merged, beside one of a store at rest; and whether a row is found
/// as soon as its write is acknowledged. Then the same by each policy of merging, with a segment every thousand rows, so that there is much to merge.
pub async fn ingest(directory: &Path, rows: usize) -> Result<Json> {
    let mut told = ingest_by(&directory.join("ingest"), rows, None).await?;
    let mut policies = Vec::new();
    for kind in MergeKind::ALL {
        policies.push(ingest_by(&directory.join(format!("ingest-{}", kind.as_str())), rows, Some(kind)).await?);
    }
    told["policies"] = policies.into();
    Ok(told)
}

async fn ingest_by(directory: &Path, rows: usize, merge_policy: Option<MergeKind>) -> Result<Json> {
    const SEARCHES: usize = 1_000;
    const TOGETHER: usize = 10;
    const BATCHES: usize = 1_000;
    const EVERY: Duration = Duration::from_millis(10);
    /// Batches that are a segment.
    const SEALED: usize = 100;
    let db = open(directory).await?;
    let collection = db.create_collection("rows", spec(r#"{"HNSW":{"m":16,"ef_construction":100}}"#)).await?;
    let mut vectors = Vectors::new();
    vectors.fill(&db, &collection, rows).await?;
    if merge_policy.is_some() {
        db.flush("rows").await?;
        while db.maintain().await? {}
        db.set_options("rows", CollectionOptions { merge_policy, ..CollectionOptions::default() }).await?;
    }
    let before = collection.stats().await?.merges;
    let search = async |vector: Vec<f32>, limit: usize| {
        let request = SearchRequest { vector: vector.into(), limit, ..SearchRequest::default() };
        let start = Instant::now();
        collection.search(&request).await.map(|found| (found, start.elapsed()))
    };
    let mut at_rest = Vec::new();
    for _ in 0..SEARCHES {
        at_rest.push(search(vectors.next(), 10).await?.1);
    }
    // As a server does it.
    let upkeep = tokio::spawn({
        let db = db.clone();
        async move {
            loop {
                if !db.maintain().await? {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            #[expect(unreachable_code, reason = "says what errors there are")]
            Ok::<(), eddydb::base::Error>(())
        }
    });
    let writer = tokio::spawn({
        let (db, collection) = (db.clone(), collection.clone());
        // Around the same centres, and none that is there already.
        let mut vectors = Vectors { random: Random::new(12), ..Vectors::new() };
        async move {
            let begun = Instant::now();
            let (mut found, mut late) = (0, Duration::ZERO);
            for at in 0..BATCHES {
                let due = begun + EVERY * at as u32;
                late = late.max(Instant::now().saturating_duration_since(due));
                tokio::time::sleep_until(due.into()).await;
                let first = rows + at * TOGETHER;
                let batch = vectors.batch(&collection, first, TOGETHER)?;
                let (key, written) = (batch.key(0), batch.clone());
                collection.upsert(batch).await?;
                let Some(Value::Vector(vector)) = written.row(0, None).remove("embedding") else { continue };
                let request = SearchRequest { vector: vector.into(), limit: 1, ..SearchRequest::default() };
                found += usize::from(collection.search(&request).await?.hits.first().is_some_and(|hit| hit.key == key));
                if merge_policy.is_some() && (at + 1) % SEALED == 0 {
                    db.flush("rows").await?;
                }
            }
            Ok::<_, eddydb::base::Error>((found, begun.elapsed(), late))
        }
    });
    let mut beside = Vec::new();
    while !writer.is_finished() {
        beside.push(search(vectors.next(), 10).await?.1);
    }
    let (found, seconds, late) = writer.await.expect("the writer ends")?;
    upkeep.abort();
    // What was left for later counts as well.
    while db.maintain().await? {}
    let stats = collection.stats().await?;
    db.close().await?;
    let (merges, merged) = (stats.merges.finished - before.finished, stats.merges.rows - before.rows);
    Ok(json!({
        "policy": stats.merge_policy.as_str(), "merges": merges, "rows_merged": merged,
        "write_amplification": merged as f64 / (BATCHES * TOGETHER) as f64, "rows_unindexed": stats.rows_unindexed,
        "rows": rows, "written": BATCHES * TOGETHER, "rows_per_second": (BATCHES * TOGETHER) as f64 / seconds.as_secs_f64(),
        "writer_late_ms": late.as_secs_f64() * 1e3, "found_at_once": found as f64 / BATCHES as f64, "searches": beside.len(), "segments": stats.segments,
        "p50_ms": quantile(&mut beside, 0.5), "p99_ms": quantile(&mut beside, 0.99),
        "at_rest_p50_ms": quantile(&mut at_rest, 0.5), "at_rest_p99_ms": quantile(&mut at_rest, 0.99),
    }))
}
