//! The native side of the bench of streams: the queries of Nexmark through a job, on one core; change streams, live queries and a join with the
//! nearest rows on a store of files. Prints one JSON object with the parts that are asked for.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "a bench reads the clock"
)]

mod follow;
mod nexmark;

use std::path::PathBuf;
use std::time::Instant;

use eddydb::base::{Random, Result};
use eddydb::model::{Row, Value as Told};
use eddydb::stream::{Job, Options, Plan};
use nexmark::{EVENTS, Query};
use serde_json::{Value as Json, json};

/// The rows under live queries, and how many of these there are.
const STANDING_ROWS: usize = 100_000;
const STANDING_QUERIES: usize = 10_000;
/// The rows that events are joined with.
const JOINED_ROWS: usize = 20_000;
/// The rows that are there before others come beside searches.
const INGESTED_INTO: usize = 20_000;
/// The events of which those are left out that are near to one before.
const DEDUPED: usize = 30_000;
/// The best of so many runs counts.
const RUNS: usize = 3;

fn nexmark(name: &str) -> Result<Json> {
    let query = Query::new(name)?;
    let mut best: Option<Json> = None;
    for _ in 0..RUNS {
        let start = Instant::now();
        let (job, rows_out) = query.run()?;
        let seconds = start.elapsed().as_secs_f64();
        let state: usize = job.metrics().iter().map(|node| node.state_bytes).sum();
        let start = Instant::now();
        let checkpoint = job.checkpoint(1)?;
        let checkpoint_ms = start.elapsed().as_secs_f64() * 1_000.0;
        // What a generator makes counts, as Nexmark counts: also events of streams that a query does not read.
        let rate = EVENTS as f64 / seconds;
        if best.as_ref().is_none_or(|best| best["events_per_second"].as_f64().unwrap_or(0.0) < rate) {
            best = Some(json!({
                "query": name, "events": EVENTS, "rows_in": query.rows_in(), "rows_out": rows_out, "seconds": seconds,
                "events_per_second": rate, "rows_per_second": query.rows_in() as f64 / seconds, "state_bytes": state,
                "checkpoint_bytes": checkpoint.len(), "checkpoint_ms": checkpoint_ms,
            }));
        }
    }
    Ok(best.unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, parts @ ..] = &arguments[..] else {
        println!("run by: npm run bench -- streams");
        return Ok(());
    };
    let directory = PathBuf::from(directory);
    let mut told = json!({});
    for part in parts {
        told[part] = match part.as_str() {
            "nexmark" => {
                let mut queries = vec![];
                for name in nexmark::queries() {
                    eprint_progress(name);
                    queries.push(nexmark(name)?);
                }
                json!({ "events": EVENTS, "queries": queries })
            }
            "changes" => follow::changes(&directory).await?,
            "standing" => follow::standing(&directory, STANDING_ROWS, STANDING_QUERIES).await?,
            "nearest" => follow::nearest(&directory, JOINED_ROWS).await?,
            "dedupe" => dedupe()?,
            "ingest" => follow::ingest(&directory, INGESTED_INTO).await?,
            other => panic!("no part {other:?}"),
        };
        eprint_progress(part);
    }
    println!("{told}");
    Ok(())
}

/// Events with vectors of which every second one is almost one of the 10,000 before: those are left out, exactly.
fn dedupe() -> Result<Json> {
    let plan = Plan::from_json(
        r#"{"nodes": [
            {"name": "in", "operator": {"source": {"fields": [{"name": "id", "type": "int64"}, {"name": "v", "type": "float_vector", "dim": 384},
                {"name": "at", "type": "timestamp"}], "time": "at"}}},
            {"name": "work", "inputs": ["in"], "operator": {"dedupe": {"vector": "v", "radius": 0.05, "within": 10000}}},
            {"name": "out", "inputs": ["work"], "operator": {"sink": {}}}
        ]}"#,
    )?;
    let mut random = Random::new(7);
    let mut number = || random.below(2_001) as f32 / 1_000.0 - 1.0;
    let mut vectors: Vec<Vec<f32>> = vec![];
    for at in 0..DEDUPED {
        let first: Vec<f32> = (0..384).map(|_| number()).collect();
        // Of an even one, an eighth of another vector away: a distance of about 0.01.
        let before = if at % 2 == 0 { None } else { vectors.get(at.saturating_sub(1 + at % 5_000 / 2 * 2)) };
        let vector = match before {
            Some(before) => before.iter().zip(&first).map(|(before, first)| before + first / 8.0).collect(),
            None => first,
        };
        vectors.push(vector);
    }
    let row = |(at, vector): (usize, Vec<f32>)| {
        let at = at as i64;
        Row::from([("id".into(), Told::Int(at)), ("v".into(), Told::Vector(vector)), ("at".into(), Told::Int(at))])
    };
    let rows: Vec<Row> = vectors.into_iter().enumerate().map(row).collect();
    let mut job = Job::new(plan, Options::default())?;
    let batches: Vec<_> = rows
        .chunks(1_000)
        .map(|rows| job.relation("in").map(|relation| relation.batch(rows).0))
        .collect::<Result<_>>()?;
    let (mut told, begun) = (0, Instant::now());
    for batch in &batches {
        job.push("in", 0, b"", batch, None, 0)?;
        told += job.poll().rows.iter().map(|(_, rows)| rows.len()).sum::<usize>();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let kept = job.metrics()[1].entries;
    job.end("in", 0, 0)?;
    told += job.poll().rows.iter().map(|(_, rows)| rows.len()).sum::<usize>();
    Ok(json!({ "events": DEDUPED, "told": told, "kept": kept, "events_per_second": DEDUPED as f64 / seconds }))
}

/// Says on the other line what is under way.
#[expect(clippy::print_stderr, reason = "a bench says how far it is")]
fn eprint_progress(name: &str) {
    eprintln!("{name}");
}
