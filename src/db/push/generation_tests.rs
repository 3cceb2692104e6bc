use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::future::join;
use serde_json::json;

use super::tests::{click, id_of, key, open_one, row, rows_of, spec};
use super::*;
use crate::base::Random;
use crate::db::source::{Positions, conformance};
use crate::db::{Options, PipelineOptions, PipelineSpec, QueryRequest, Recovery};
use crate::platform::{Environment, block_on};
use crate::storage::{FaultStorage, MemoryDisk};

const SEEDS: u64 = 300;
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// What the pipeline waits for rows that are late.
const DELAY: i64 = 5 * SECOND;

const MINUTES: &str = "
    CREATE SOURCE clicks (id BIGINT, page VARCHAR, n BIGINT, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at - INTERVAL '5' SECOND)
        WITH (connector = 'stream');
    CREATE MATERIALIZED VIEW minutes AS
    SELECT page, window_end, count(*) AS clicks, sum(id) AS ids
    FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(at), INTERVAL '1' MINUTE))
    GROUP BY page, window_start, window_end
    EMIT ON WINDOW CLOSE";
/// How often each row has come.
const SEEN: &str = "CREATE MATERIALIZED VIEW seen AS SELECT id, count(*) AS times FROM clicks GROUP BY id EMIT CHANGES";

/// What has been pushed, and what a reader has seen of it.
#[derive(Default)]
struct Clicks {
    /// Those that were acknowledged, each with its page and time.
    taken: BTreeMap<i64, (String, i64)>,
    next: i64,
    latest: i64,
    /// Of each page, the number of its next row.
    numbers: BTreeMap<String, i64>,
    /// The push that was not answered yet, and the number of its key.
    open: Option<Vec<Row>>,
    sequence: u64,
    /// How far a reader has read, what it has put away, and the last number of each page.
    positions: Positions,
    seen: BTreeSet<i64>,
    last: BTreeMap<String, i64>,
    counts: Tried,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tried {
    rescaled: usize,
    failed: usize,
    repeated: usize,
    recovered: usize,
    past: usize,
}

/// Pushes rows as out of order as the pipeline waits for, of pages that each have an order of their own; what was not answered comes again first.
async fn push(stream: &PushStream, random: &mut Random, clicks: &mut Clicks) -> Result<()> {
    let rows = clicks.open.take().unwrap_or_else(|| {
        clicks.sequence += 1;
        let rows = (0..1 + random.below(5)).map(|_| {
            clicks.latest += random.below(12) as i64 * SECOND;
            let at = clicks.latest - random.below(5) as i64 * SECOND;
            let page = format!("page {}", random.below(7));
            let n = clicks.numbers.entry(page.clone()).or_default();
            *n += 1;
            clicks.next += 1;
            row(json!({"id": clicks.next, "page": page, "n": *n, "at": at}))
        });
        rows.collect()
    });
    clicks.open = Some(rows.clone());
    let answer = stream.push_once(rows.clone(), key("one", clicks.sequence)).await;
    let answer = answer.inspect_err(|_| clicks.counts.failed += 1)?;
    assert_eq!(answer.accepted, rows.len());
    clicks.counts.repeated += usize::from(answer.repeated);
    clicks.open = None;
    for row in rows {
        let (Value::String(page), Value::Int(at)) = (&row["page"], &row["at"]) else { panic!("{row:?}") };
        clicks.taken.insert(id_of(&row), (page.clone(), *at));
    }
    Ok(())
}

/// Reads on from where it was put away, and puts it away again with what was read: each row once, those of a page in order.
async fn read(db: &Db, random: &mut Random, clicks: &mut Clicks, is_dealt: bool) -> Result<()> {
    let mut source = open_one(db, "clicks")?;
    source.connect(&clicks.positions).await?;
    for _ in 0..1 + random.below(6) {
        let partitions = source.partitions();
        let batch = source.read(1 + random.below(9) as usize).await?;
        if source.partitions() != partitions {
            clicks.positions = source.begins();
        }
        for row in &batch.rows {
            assert!(clicks.seen.insert(id_of(row)), "row {row:?} came twice");
            let (Value::String(page), Value::Int(n)) = (&row["page"], &row["n"]) else { panic!("{row:?}") };
            let last = clicks.last.insert(page.clone(), *n);
            assert!(!is_dealt || last.unwrap_or_default() + 1 == *n || page == "end", "{row:?} after {last:?}");
        }
        let Some(position) = batch.position else { break };
        clicks.positions.insert(batch.partition, position);
        if random.one_in(2) {
            source.commit(&clicks.positions).await?;
        }
    }
    Ok(())
}

fn rescaled(told: Result<()>, clicks: &mut Clicks) -> Result<()> {
    match told {
        // So many changes were not read to their end.
        Err(error) if error.message().contains("change it again later") => {}
        told => told?,
    }
    clicks.counts.rescaled += 1;
    Ok(())
}

async fn live(seed: u64, counts: &mut Tried) {
    let mut random = Random::new(seed);
    let environment = Environment::simulated(seed, 1_700_000_000_000);
    let mut disk = FaultStorage::new(seed);
    let mut clicks = Clicks { latest: 1_000 * MINUTE, ..Clicks::default() };
    let is_dealt = !random.one_in(4);
    // Some runs never change the partitions: what comes of the others is the same.
    let rescales = !random.one_in(8);
    let lives = 3 + random.below(4);
    for life in 0..=lives {
        let options = || Options { environment: environment.clone(), checkpoint_bytes: 1 << 16, ..Options::default() };
        let Ok(db) = Db::open(Arc::new(disk.clone()), options()).await else {
            disk = disk.reopen();
            continue;
        };
        if life > 0 && life < lives {
            disk.crash_after(1 + random.below(150));
        }
        let died = one_life(&db, &mut random, &mut clicks, life == 0, is_dealt, rescales).await;
        if let Err(error) = died {
            assert!(life > 0 && life < lives && disk.crashed(), "{error}");
        }
        if life == lives {
            finish(&db, &mut random, &mut clicks, is_dealt).await;
            let Tried { rescaled, failed, repeated, recovered, past } = clicks.counts;
            counts.rescaled += rescaled;
            counts.failed += failed;
            counts.repeated += repeated;
            counts.recovered += recovered;
            counts.past += past;
            return;
        }
        drop(db);
        disk = disk.reopen();
    }
    panic!("the store did not open");
}

async fn one_life(
    db: &Db,
    random: &mut Random,
    clicks: &mut Clicks,
    is_first: bool,
    is_dealt: bool,
    rescales: bool,
) -> Result<()> {
    if is_first {
        let kind = json!({
            "fields": [
                {"name": "id", "type": "int64"}, {"name": "page", "type": "varchar"}, {"name": "n", "type": "int64"},
                {"name": "at", "type": "timestamp"},
            ],
            "partitions": 1 + random.below(4), "partitionBy": is_dealt.then_some("page"), "memoryBytes": 60 + random.below(2_000),
        });
        db.create_push_stream("clicks", PushStreamSpec::from_json(&kind.to_string())?).await?;
        let mut source = open_one(db, "clicks")?;
        source.connect(&Positions::new()).await?;
        clicks.positions = source.begins();
    }
    for (name, text) in [("minutes", MINUTES), ("seen", SEEN)] {
        if db.pipeline(name).is_err() {
            let options = PipelineOptions {
                checkpoint_interval_ms: random.below(40),
                checkpoints: 1 + random.below(3) as usize,
                batch_rows: 1 + random.below(20) as usize,
                staged_rows: 1 + random.below(30) as usize,
                ..PipelineOptions::default()
            };
            db.create_pipeline(name, PipelineSpec { options, ..PipelineSpec::sql(text) }).await?;
        }
    }
    let stream = db.push_stream("clicks")?;
    for _ in 0..10 + random.below(50) {
        match random.below(16) {
            0..=4 => push(&stream, random, clicks).await?,
            5..=7 => drop(db.run_pipelines().await?),
            8 => drop(db.maintain().await?),
            9..=10 => read(db, random, clicks, is_dealt).await?,
            11 => {
                let name = *random.pick(&["minutes", "seen"]);
                let pipeline = db.pipeline(name)?;
                match random.below(4) {
                    0 => {
                        pipeline.remove_savepoint("here").await?;
                        pipeline.savepoint("here").await?;
                    }
                    1 if !pipeline.savepoints().await?.is_empty() => {
                        match pipeline.recover(Recovery::Savepoint("here".to_owned())).await {
                            Ok(()) => clicks.counts.recovered += 1,
                            // What was read since is kept for checkpoints alone.
                            // A crash has cut it short.
                            Err(error) if error.kind() == ErrorKind::Corrupt => pipeline.resume().await?,
                            Err(error) if error.kind() == ErrorKind::Gone => pipeline.resume().await?,
                            Err(error) => return Err(error),
                        }
                    }
                    2 => pipeline.pause().await?,
                    _ => pipeline.resume().await?,
                }
            }
            12 if rescales => {
                rescaled(stream.rescale(1 + random.below(6) as u32).await, clicks)?;
            }
            13 if rescales => {
                // A push is under way, and waits for what writes.
                let held = stream.inner.lanes.lock().await;
                let (more, partitions) = (stream.clone(), 1 + random.below(6) as u32);
                let first = random.one_in(2);
                let mut push = Box::pin(push(&stream, random, clicks));
                let mut rescale = Box::pin(more.rescale(partitions));
                if first {
                    assert!(futures_util::poll!(push.as_mut()).is_pending());
                }
                assert!(futures_util::poll!(rescale.as_mut()).is_pending());
                drop(held);
                let (pushed, told) = join(push, rescale).await;
                pushed?;
                rescaled(told, clicks)?;
            }
            _ => db.inner.shared.options.environment.advance_ms(random.below(200)),
        }
        for pipeline in db.pipelines() {
            let status = pipeline.status().await;
            assert!(status.state != crate::db::PipelineState::Failed, "{status:?}");
        }
        clicks.counts.past = clicks.counts.past.max(stream.status().past_partitions.len());
    }
    Ok(())
}

async fn finish(db: &Db, random: &mut Random, clicks: &mut Clicks, is_dealt: bool) {
    let stream = db.push_stream("clicks").unwrap();
    while clicks.open.is_some() {
        push(&stream, random, clicks).await.unwrap();
    }
    // The end of all windows, in each partition.
    let closed = clicks.latest - DELAY;
    let at = clicks.latest + 1_000 * MINUTE;
    let before = stream.status().partitions;
    for number in 0.. {
        if stream.status().partitions.iter().zip(&before).all(|(now, before)| now.1 > before.1) {
            break;
        }
        assert!(number < 1_000, "rows go into all partitions: {before:?}");
        clicks.next += 1;
        let page = format!("end {number}");
        let end = row(json!({"id": clicks.next, "page": page, "n": 1, "at": at}));
        stream.push(vec![end]).await.unwrap();
        clicks.taken.insert(clicks.next, (page, at));
    }
    for pipeline in db.pipelines() {
        pipeline.resume().await.unwrap();
        pipeline.settle().await.unwrap();
    }
    let mut minutes: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
    for (id, (page, at)) in clicks.taken.iter().filter(|(_, (_, time))| *time < at) {
        let window = minutes.entry((page.clone(), at.div_euclid(MINUTE) * MINUTE + MINUTE)).or_default();
        *window = (window.0 + 1, window.1 + id);
    }
    assert!(minutes.keys().all(|(_, end)| *end <= closed + 2 * MINUTE));
    let mut found = BTreeMap::new();
    for row in db.collection("minutes").unwrap().query(&QueryRequest::default()).await.unwrap() {
        let (Value::String(page), Value::Int(end)) = (&row["page"], &row["window_end"]) else { panic!("{row:?}") };
        let (Value::Int(count), Value::Int(ids)) = (&row["clicks"], &row["ids"]) else { panic!("{row:?}") };
        found.insert((page.clone(), *end), (*count, *ids));
    }
    assert_eq!(found, minutes, "windows");
    let mut times = BTreeMap::new();
    for row in db.collection("seen").unwrap().query(&QueryRequest::default()).await.unwrap() {
        let Value::Int(count) = row["times"] else { panic!("{row:?}") };
        times.insert(id_of(&row), count);
    }
    let expected: BTreeMap<i64, i64> = clicks.taken.keys().map(|id| (*id, 1)).collect();
    assert_eq!(times, expected, "how often each row came");
    // Whoever reads it by hand has seen each row once, and those of before are gone then.
    while clicks.seen.len() < clicks.taken.len() {
        let before = (clicks.seen.len(), clicks.positions.clone());
        read(db, random, clicks, is_dealt).await.unwrap();
        assert!(before != (clicks.seen.len(), clicks.positions.clone()), "{} rows of {}", before.0, clicks.taken.len());
    }
    assert!(clicks.seen.iter().eq(clicks.taken.keys()));
    let mut source = open_one(db, "clicks").unwrap();
    source.connect(&clicks.positions).await.unwrap();
    assert_eq!(source.read(9).await.unwrap().rows, Vec::<Row>::new());
    source.commit(&source.begins()).await.unwrap();
    for pipeline in db.pipelines() {
        // Of as many checkpoints as are kept, the oldest is after all that was pushed before.
        for _ in 0..4 {
            stream.push(vec![row(json!({"id": 0, "page": "end", "n": 0, "at": at}))]).await.unwrap();
            db.inner.shared.options.environment.advance_ms(1_000);
            pipeline.settle().await.unwrap();
        }
    }
    assert_eq!(stream.status().past_partitions, [], "{:?}", stream.status());
}

/// Whatever the partitions become, whenever, and wherever the store dies: windows have the rows that were taken, each once; rows of a page come in
/// their order; who goes on does so from where it was; and a push that is repeated until it is answered is there once.
#[test]
fn results_are_the_same_however_often_partitions_change() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let mut counts = Tried::default();
    if let Some(seed) = number("EDDY_SIM_SEED") {
        return block_on(live(seed, &mut counts));
    }
    let seeds = number("EDDY_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| block_on(live(seed, &mut counts))));
        if let Err(panic) = outcome {
            println!("seed {seed} failed: repeat it with EDDY_SIM_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
    println!("{counts:?} in {seeds} seeds");
    if seeds >= SEEDS {
        let Tried { rescaled, failed, repeated, recovered, past } = counts;
        let tries = rescaled > 1_000 && failed > 30 && repeated > 5 && recovered > 50 && past > 1_000;
        assert!(tries, "the seeds try little: {counts:?}");
    }
}

/// All promises of a source hold of rows in the partitions of several changes, whether they are in memory or in storage.
#[test]
fn streams_that_were_rescaled_keep_the_promises_of_a_source() {
    for kind in [json!({"partitionBy": "page"}), json!({"memoryBytes": 60}), json!({"durability": "memory"})] {
        block_on(async {
            let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), Options::default()).await.unwrap();
            let stream = db.create_push_stream("clicks", spec(kind)).await.unwrap();
            for (at, partitions) in [2, 5, 1, 1, 3].into_iter().enumerate() {
                stream.rescale(partitions).await.unwrap();
                let from = 10 * at as i64;
                stream.push((from..from + 10).map(click).collect()).await.unwrap();
            }
            let expected = conformance::Expected { rows: rows_of(&db, "clicks").await, refused: 0 };
            assert_eq!(expected.rows.values().map(Vec::len).sum::<usize>(), 50);
            assert_eq!(conformance::run(|| open_one(&db, "clicks"), &expected, 7).await, Ok(()));
        });
    }
}

#[test]
fn what_is_out_of_bounds_is_refused_and_changes_nothing() {
    block_on(async {
        let disk = MemoryDisk::new();
        let db = Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap();
        let stream = db.create_push_stream("clicks", spec(json!({"partitions": 2}))).await.unwrap();
        for (partitions, part) in [(0, "partitions is 0, expected 1 to 64"), (65, "partitions is 65, expected 1 to 64")]
        {
            let error = stream.rescale(partitions).await.unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidArgument && error.message() == part, "{error}");
        }
        stream.rescale(2).await.unwrap();
        assert_eq!(stream.status().partitions, [(0, 0), (0, 0)]);
        // Nothing was in those of before: nobody waits for them.
        stream.rescale(64).await.unwrap();
        assert_eq!((stream.spec().partitions, stream.status().past_partitions.len()), (64, 0));
        let mut error = None;
        for number in 0..40 {
            stream.push(vec![click(number)]).await.unwrap();
            error = stream.rescale(1 + number as u32 % 2).await.err();
            if error.is_some() {
                break;
            }
        }
        let error = error.expect("nobody reads");
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("32 changes"), "{error}");
        let there = rows_of(&db, "clicks").await;
        assert_eq!(there.values().map(Vec::len).sum::<usize>(), 33);
        // Who has read them, and says so, makes room.
        let mut reader = open_one(&db, "clicks").unwrap();
        reader.connect(&Positions::new()).await.unwrap();
        while reader.read(100).await.unwrap().position.is_some() {}
        reader.commit(&reader.begins()).await.unwrap();
        assert_eq!(stream.status().past_partitions, []);
        stream.rescale(7).await.unwrap();
        // Those that are there no more are known to have been read; but not that they were not.
        drop(reader);
        let mut reader = open_one(&db, "clicks").unwrap();
        let first = *there.keys().next().unwrap();
        let at = |number| Positions::from([(first, source::encode(stream.id(), number))]);
        let error = reader.connect(&at(0)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Gone && error.message().contains("is kept no more"), "{error}");
        let error = reader.connect(&Positions::from([(9_999, source::encode(stream.id(), 0))])).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Gone && error.message().contains("partition 9999"), "{error}");
        db.drop_push_stream("clicks").await.unwrap();
        assert_eq!(stream.rescale(3).await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(db.inner.shared.storage.list(name::PUSH_STREAMS).await.unwrap(), []);
    });
}

/// A push of which some partitions were written, and some not, when the partitions changed: what is missing is taken, and nothing else, also when
/// those of before are long gone.
#[test]
fn a_push_that_failed_halfway_is_completed_in_other_partitions() {
    for gone in [false, true] {
        block_on(async {
            let environment = Environment::simulated(7, 1_700_000_000_000);
            let options = || Options { environment: environment.clone(), ..Options::default() };
            let disk = FaultStorage::new(7);
            let db = Db::open(Arc::new(disk.clone()), options()).await.unwrap();
            let kind = spec(json!({"partitions": 3, "partitionBy": "page"}));
            let stream = db.create_push_stream("clicks", kind).await.unwrap();
            let rows = || (0..9).map(|id| row(json!({"id": id, "page": format!("{id}")}))).collect::<Vec<_>>();
            // The second of three partitions fails: each takes an addition and a sync.
            disk.fail_at(2, ErrorKind::Io);
            assert!(stream.push_once(rows(), key("a", 1)).await.is_err());
            disk.end_plans();
            let there: usize = rows_of(&db, "clicks").await.values().map(Vec::len).sum();
            assert!(there > 0 && there < 9, "{there}");
            for partitions in [2, 1, 5, 4] {
                stream.rescale(partitions).await.unwrap();
                if gone {
                    let mut reader = open_one(&db, "clicks").unwrap();
                    reader.connect(&Positions::new()).await.unwrap();
                    while reader.read(100).await.unwrap().position.is_some() {}
                    reader.commit(&reader.begins()).await.unwrap();
                    assert_eq!(stream.status().past_partitions, []);
                }
            }
            drop((stream, db));
            let db = Db::open(Arc::new(disk.reopen()), options()).await.unwrap();
            let stream = db.push_stream("clicks").unwrap();
            let answer = stream.push_once(rows(), key("a", 1)).await.unwrap();
            assert_eq!((answer.accepted, answer.repeated), (9, false));
            let all: usize = rows_of(&db, "clicks").await.values().map(Vec::len).sum();
            assert_eq!(all, if gone { 9 - there } else { 9 });
            stream.rescale(2).await.unwrap();
            assert!(stream.push_once(rows(), key("a", 1)).await.unwrap().repeated);
            let error = stream.push_once(vec![click(1)], key("a", 1)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        });
    }
}

/// A window that closes because a partition has become idle since the savepoint is told after it.
#[test]
fn a_savepoint_goes_on_when_a_partition_is_idle_by_then() {
    block_on(async {
        let environment = Environment::simulated(7, 1_700_000_000_000);
        let options = Options { environment: environment.clone(), ..Options::default() };
        let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), options).await.unwrap();
        let kind = r#"{"fields": [{"name": "page", "type": "varchar"}, {"name": "at", "type": "timestamp"}], "partitions": 2, "partitionBy": "page"}"#;
        let stream = db.create_push_stream("clicks", PushStreamSpec::from_json(kind).unwrap()).await.unwrap();
        let plan = r#"{"nodes": [
            {"name": "clicks", "operator": {"source": {
                "fields": [{"name": "page", "type": "varchar"}, {"name": "at", "type": "timestamp"}], "time": "at", "watermark": {"idle": 1000000}}}},
            {"name": "minutes", "inputs": ["clicks"], "operator": {"aggregate": {
                "window": {"tumbling": {"size": 60000000}}, "aggregates": [{"name": "clicks", "function": "count"}]}}},
            {"name": "out", "inputs": ["minutes"], "operator": {"sink": {"collection": "minutes"}}}]}"#;
        let source = crate::db::PipelineSource { connector: Some(CONNECTOR.to_owned()), ..Default::default() };
        let plan = PipelineSpec::plan(crate::stream::Plan::from_json(plan).unwrap());
        let spec = PipelineSpec { sources: BTreeMap::from([("clicks".to_owned(), source)]), ..plan };
        let pipeline = db.create_pipeline("minutes", spec).await.unwrap();
        let click = |at: i64| row(json!({"page": "home", "at": at}));
        stream.push(vec![click(1), click(2), click(2 * MINUTE)]).await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(db.collection("minutes").unwrap().count(None).await.unwrap(), 0, "another partition may have more");
        pipeline.savepoint("before").await.unwrap();
        environment.advance_ms(2_000);
        pipeline.recover(Recovery::Savepoint("before".to_owned())).await.unwrap();
        pipeline.settle().await.unwrap();
        assert_eq!(db.collection("minutes").unwrap().count(Some("clicks == 2")).await.unwrap(), 1);
    });
}

/// With durability `memory` rows go with the process, and partitions stay as many as they were made.
#[test]
fn rows_in_memory_go_and_partitions_stay() {
    block_on(async {
        let disk = MemoryDisk::new();
        let open = async || Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap();
        let db = open().await;
        let stream = db.create_push_stream("clicks", spec(json!({"durability": "memory"}))).await.unwrap();
        let mut reader = open_one(&db, "clicks").unwrap();
        reader.connect(&Positions::new()).await.unwrap();
        stream.push(vec![click(1)]).await.unwrap();
        stream.rescale(3).await.unwrap();
        stream.push((2..9).map(click).collect()).await.unwrap();
        let batch = reader.read(1).await.unwrap();
        let positions = Positions::from([(batch.partition, batch.position.unwrap())]);
        drop((stream, reader));
        db.close().await.unwrap();
        let db = open().await;
        let stream = db.push_stream("clicks").unwrap();
        assert_eq!(stream.status().partitions, [(0, 0); 3]);
        let mut reader = open_one(&db, "clicks").unwrap();
        reader.connect(&positions).await.unwrap();
        stream.push(vec![click(9)]).await.unwrap();
        assert_eq!(reader.read(10).await.unwrap().rows, [click(9)]);
        stream.rescale(1).await.unwrap();
        assert_eq!(rows_of(&db, "clicks").await.values().flatten().count(), 1);
    });
}

/// A definition of version 2, as it was first written, and that damage of its structure is told.
#[test]
fn definitions_with_partitions_of_before_are_read() {
    let text = r#"{"id":7,"name":"clicks","spec":{"fields":[{"name":"id","type":"int64"}],"partitions":3},"past":[{"first":0,"count":2,"ends":[5,6]},{"first":2,"count":1}],"readers":{"a":[4,0,0,0]}}"#;
    let sealed = |version: u8, text: &str| {
        let mut bytes = [b"EDPS", &[version][..], text.as_bytes()].concat();
        let sum = crate::base::codec::checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    };
    let definition = PushStreamDefinition::decode(&sealed(2, text)).unwrap();
    assert_eq!((definition.now(), definition.there()), (3..6, 2..6));
    assert_eq!(definition.generation(1), Some((0..2, Some(&[5, 6][..]))));
    assert_eq!((definition.generation(2), definition.generation(6)), (Some((2..3, None)), None));
    assert_eq!(PushStreamDefinition::decode(&definition.encode()).unwrap(), definition);
    assert_eq!(definition.encode()[4], 2);
    for (from, to) in [
        (r#""first":2"#, r#""first":3"#),
        (r#""ends":[5,6]"#, r#""ends":[5]"#),
        (r#""count":1"#, r#""count":0"#),
        (r#""count":1"#, r#""count":4294967295"#),
        (r#""count":1"#, r#""count":1,"ends":[0]"#),
        (r#","ends":[5,6]"#, ""),
        (r#""partitions":3"#, r#""partitions":0"#),
        ("[4,0,0,0]", "[4,0,0]"),
    ] {
        let wrong = text.replace(from, to);
        assert_ne!(wrong, text);
        let error = PushStreamDefinition::decode(&sealed(2, &wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{to}: {error}");
    }
    assert_eq!(PushStreamDefinition::decode(&sealed(1, text)).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(PushStreamDefinition::decode(&sealed(3, text)).unwrap_err().kind(), ErrorKind::Unsupported);
}
