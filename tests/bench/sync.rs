//! The native side of the sync bench: many replicas of one hub, a long queue of writes made offline, and what a hub had lost. Prints one JSON
//! object.
//!
//! `sync_native fan-out URL PROCESS REPLICAS RATE SECONDS`, `sync_native queue URL PROCESS ROWS DIRECTORY`, `sync_native reconcile ROWS LOST
//! DIRECTORY`; PROCESS is the id of the hub's process, whose memory and processor time are read. Most of the replicas keep no rows: a thousand stores would be measured instead of the hub. They
//! are the client of `sync` with a socket and nothing else, and look at each change that comes; a few are whole stores.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "a bench reads the clock"
)]

mod reconcile;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eddydb::base::{Lsn, Random, ReplicaId, Result, Sequence};
use eddydb::db::{Collection, Db, Options, SyncOptions, SyncState, SyncStatus};
use eddydb::engine::{ChangeSet, CollectionSpec};
use eddydb::model::{Batch, Key, Row, Schema, Value};
use eddydb::platform::now_ms;
use eddydb::platform::socket::{Connect, WebSocketUrl};
use eddydb::storage::{FileStorage, MemoryStorage};
use eddydb::sync::{Client, ClientAction, ClientCollection, ClientInput, OwnChanges, Start};
use serde_json::{Value as Json, json};

const DIM: usize = 384;
/// Replicas that are whole stores.
const STORES: usize = 5;
/// Connections that are made at once.
const TOGETHER: usize = 50;
/// Writers of the queue: an application that is offline writes row by row, not in one batch.
const WRITERS: usize = 64;
/// Nothing takes so long unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(150);

fn spec() -> CollectionSpec {
    let text = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"embedding","type":"float_vector","dim":{DIM}}}],
        "dynamic":false,"indexes":{{"embedding":{{"metric":"IP","kind":{{"HNSW":{{"m":16,"ef_construction":100}}}}}}}}}}"#
    );
    serde_json::from_str(&text).expect("a spec")
}

fn batch(schema: &Arc<Schema>, id: usize, random: &mut Random) -> Batch {
    let mut unit = || (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    let vector = (0..DIM).map(|_| unit()).collect::<Vec<f32>>();
    let row = Row::from([("id".to_owned(), Value::Int(id as i64)), ("embedding".to_owned(), Value::Vector(vector))]);
    Batch::from_rows(schema, vec![row]).expect("a row that fits")
}

/// What a process holds and has used, where the system tells it (Linux).
struct Process {
    resident_bytes: f64,
    processor_seconds: f64,
}

impl Process {
    fn of(id: &str) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{id}/{name}")).unwrap_or_default();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let resident_bytes =
            resident.and_then(|kilobytes| kilobytes.trim().parse::<f64>().ok()).map_or(f64::NAN, |n| n * 1024.0);
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
        // A tick is a hundredth of a second for every program, whatever the kernel counts in.
        Self { resident_bytes, processor_seconds: (ticks(11) + ticks(12)) / 100.0 }
    }
}

/// When each row was written, and how long it took to come to each replica.
struct Board {
    sent: Vec<Mutex<Option<Instant>>>,
    arrived: AtomicUsize,
    latencies: Mutex<Vec<f32>>,
    of_stores: Mutex<Vec<f32>>,
    /// Change sets that were taken apart: the same bytes go to many.
    read: Mutex<HashMap<Vec<u8>, Arc<Vec<usize>>>>,
    pulls: AtomicUsize,
    bytes: AtomicUsize,
    connected: AtomicUsize,
}

impl Board {
    fn new(rows: usize) -> Self {
        Self {
            sent: (0..rows).map(|_| Mutex::default()).collect(),
            arrived: AtomicUsize::new(0),
            latencies: Mutex::default(),
            of_stores: Mutex::default(),
            read: Mutex::default(),
            pulls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            connected: AtomicUsize::new(0),
        }
    }

    fn keys(&self, schema: &Arc<Schema>, bytes: Vec<u8>) -> Result<Arc<Vec<usize>>> {
        if let Some(keys) = self.read.lock().expect("no panic").get(&bytes) {
            return Ok(keys.clone());
        }
        let changes = ChangeSet::decode(schema, &bytes)?;
        let keys = (0..changes.puts.len()).map(|row| match changes.puts.key(row) {
            Key::Int(id) => id as usize,
            Key::String(_) => unreachable!("keys are integers"),
        });
        let keys = Arc::new(keys.collect::<Vec<_>>());
        let mut read = self.read.lock().expect("no panic");
        if read.len() > 2_000 {
            read.clear();
        }
        read.insert(bytes, keys.clone());
        Ok(keys)
    }

    fn note(&self, keys: &[usize], latencies: &Mutex<Vec<f32>>) {
        let now = Instant::now();
        let took = keys.iter().map(|&key| {
            let sent = self.sent[key].lock().expect("no panic").expect("it was written");
            now.duration_since(sent).as_secs_f32() * 1_000.0
        });
        let took: Vec<f32> = took.collect();
        latencies.lock().expect("no panic").extend(took);
        self.arrived.fetch_add(keys.len(), Ordering::Relaxed);
    }
}

/// A replica that keeps nothing, until the connection ends.
async fn replica(place: &WebSocketUrl, spec: &CollectionSpec, board: &Board, id: u64) -> Result<()> {
    let connection = place.connect().await?;
    let text = serde_json::to_string(spec).expect("a spec is JSON");
    let wanted = ClientCollection { name: "rows".to_owned(), spec: Some(text), part: None };
    let mut client = Client::new(ReplicaId(id), vec![wanted], 0, now_ms());
    let (mut seen, mut counted) = (vec![false; board.sent.len()], false);
    loop {
        while let Some(action) = client.poll(now_ms()) {
            let done = match action {
                ClientAction::Send(frame) => {
                    connection.send(frame).await?;
                    continue;
                }
                ClientAction::Open { channel, .. } => {
                    let start = Start { pulled: Lsn(0), pushed: Sequence(0), ..Start::default() };
                    ClientInput::Opened(channel, Ok(start))
                }
                ClientAction::ReadOwn { channel, after, .. } => {
                    ClientInput::Own(channel, Ok(OwnChanges { changes: Vec::new(), through: after }))
                }
                ClientAction::ReadRelay { channel, .. } => ClientInput::Relay(channel, Ok(None)),
                ClientAction::MarkPushed { channel, .. } => ClientInput::Marked(channel, Ok(())),
                ClientAction::Apply { channel, changes, .. } => {
                    board.pulls.fetch_add(1, Ordering::Relaxed);
                    board.bytes.fetch_add(changes.len(), Ordering::Relaxed);
                    if !changes.is_empty() {
                        let keys = board.keys(&spec.schema, changes)?;
                        board.note(&keys, &board.latencies);
                        for &key in &*keys {
                            assert!(!std::mem::replace(&mut seen[key], true), "row {key} came twice");
                        }
                    }
                    ClientInput::Applied(channel, Ok(()))
                }
                ClientAction::Close(error) => return Err(error),
                action => unreachable!("nothing of the kind is asked of a hub without segments: {action:?}"),
            };
            client.receive(done, now_ms());
        }
        if client.caught_up() && !std::mem::replace(&mut counted, true) {
            board.connected.fetch_add(1, Ordering::Relaxed);
        }
        let wait = Duration::from_millis(client.deadline_ms().saturating_sub(now_ms()));
        tokio::select! {
            frame = connection.receive() => match frame? {
                Some(frame) => client.receive(ClientInput::Frame(frame), now_ms()),
                None => return Ok(()),
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn sync(db: &Db, url: &str) -> Result<eddydb::db::SyncSession> {
    db.sync(SyncOptions { urls: vec![url.to_owned()], collections: vec!["rows".to_owned()], ..SyncOptions::default() })
}

async fn settled(session: &eddydb::db::SyncSession, what: &str) -> SyncStatus {
    let mut listener = session.listen();
    let wait = async {
        loop {
            let status = listener.next().await.expect("it goes on");
            if status.state == SyncState::Live && status.pending == 0 && status.last_synced_ms.is_some() {
                return status;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: {:?}", session.status()))
}

/// Notes each row as soon as the store has it: they are written in the order of their keys.
async fn follow(collection: Collection, board: Arc<Board>) -> Result<()> {
    let (mut next, mut lsn) = (0, Lsn(0));
    while next < board.sent.len() {
        lsn = collection.changed_after(lsn).await?;
        let first = next;
        while next < board.sent.len() && !collection.get(&[Key::Int(next as i64)], None).await?.is_empty() {
            next += 1;
        }
        board.note(&(first..next).collect::<Vec<_>>(), &board.of_stores);
    }
    Ok(())
}

fn percentile(sorted: &[f32], share: f64) -> f32 {
    sorted
        .get(((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f32::NAN)
}

fn told(latencies: &Mutex<Vec<f32>>) -> Json {
    let mut sorted = std::mem::take(&mut *latencies.lock().expect("no panic"));
    sorted.sort_by(f32::total_cmp);
    let at = |share| percentile(&sorted, share);
    json!({ "count": sorted.len(), "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": sorted.last() })
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn fan_out(url: &str, hub: &str, replicas: usize, rate: usize, seconds: usize) -> Result<Json> {
    let (rows, spec) = (rate * seconds, spec());
    let board = Arc::new(Board::new(rows));
    let writer = Db::open(Arc::new(MemoryStorage::new()), Options::default()).await?;
    let written = writer.create_collection("rows", spec.clone()).await?;
    let session = sync(&writer, url)?;
    settled(&session, "the writer is connected").await;
    let alone = Process::of(hub);

    // Ids beside which nobody else draws one.
    let mut random = Random::new(7);
    let (mut tasks, begun) = (Vec::new(), Instant::now());
    for first in (0..replicas - STORES).step_by(TOGETHER) {
        let last = (first + TOGETHER).min(replicas - STORES);
        for _ in first..last {
            let (place, spec, board) = (WebSocketUrl::new(url)?, spec.clone(), board.clone());
            let id = random.next_u64() >> 11;
            tasks.push(tokio::spawn(async move { replica(&place, &spec, &board, id).await }));
        }
        until("replicas to connect", || {
            assert!(!tasks.iter().any(|task| task.is_finished()), "a replica ended");
            board.connected.load(Ordering::Relaxed) == last
        })
        .await;
    }
    let connect_seconds = begun.elapsed().as_secs_f64();
    let connected = Process::of(hub);

    let mut stores = Vec::new();
    let mut followers = Vec::new();
    for _ in 0..STORES {
        let db = Db::open(Arc::new(MemoryStorage::new()), Options::default()).await?;
        let session = sync(&db, url)?;
        settled(&session, "a store is connected").await;
        followers.push(tokio::spawn(follow(db.collection("rows")?, board.clone())));
        stores.push((db, session));
    }

    let before = Process::of(hub);
    let mut random = Random::new(1);
    let batches: Vec<Batch> = (0..rows).map(|id| batch(&spec.schema, id, &mut random)).collect();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let begun = Instant::now();
    for (id, batch) in batches.into_iter().enumerate() {
        ticks.tick().await;
        *board.sent[id].lock().expect("no panic") = Some(Instant::now());
        written.upsert(batch).await?;
    }
    let write_seconds = begun.elapsed().as_secs_f64();
    let during = Process::of(hub);
    let expected = rows * replicas;
    until("all rows at all replicas", || board.arrived.load(Ordering::Relaxed) >= expected).await;
    let all_seconds = begun.elapsed().as_secs_f64();
    let after = Process::of(hub);
    for follower in followers {
        follower.await.expect("it ends")?;
    }
    let ended = tasks.iter().filter(|task| task.is_finished()).count();
    assert_eq!(ended, 0, "replicas whose connection ended");
    let pulls = board.pulls.load(Ordering::Relaxed);
    Ok(json!({
        "replicas": replicas,
        "stores": STORES,
        "rows": rows,
        "rows_per_second": rows as f64 / write_seconds,
        "delivered": board.arrived.load(Ordering::Relaxed),
        "expected": expected,
        "latency": told(&board.latencies),
        "latency_of_stores": told(&board.of_stores),
        "behind_ms": (all_seconds - write_seconds) * 1_000.0,
        "connect_seconds": connect_seconds,
        "rows_per_pull": rows as f64 * (replicas - STORES) as f64 / pulls as f64,
        "bytes": board.bytes.load(Ordering::Relaxed),
        "bytes_per_connection_idle": (connected.resident_bytes - alone.resident_bytes) / (replicas - STORES) as f64,
        "bytes_per_connection_busy": (during.resident_bytes - alone.resident_bytes) / replicas as f64,
        "resident_bytes": { "alone": alone.resident_bytes, "idle": before.resident_bytes, "busy": during.resident_bytes, "after": after.resident_bytes },
        "hub_processors": (after.processor_seconds - before.processor_seconds) / all_seconds,
    }))
}

async fn queue(url: &str, hub: &str, rows: usize, directory: &str) -> Result<Json> {
    let spec = spec();
    let db = Db::open(Arc::new(FileStorage::open(directory)?), Options::default()).await?;
    let collection = db.create_collection("rows", spec.clone()).await?;
    let begun = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let (collection, schema) = (collection.clone(), spec.schema.clone());
        tokio::spawn(async move {
            let mut random = Random::new(1 + writer as u64);
            for id in (writer..rows).step_by(WRITERS) {
                collection.upsert(batch(&schema, id, &mut random)).await?;
            }
            Ok::<_, eddydb::base::Error>(())
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.expect("a writer ends")?;
    }
    let write_seconds = begun.elapsed().as_secs_f64();
    let before = Process::of(hub);
    let begun = Instant::now();
    let session = sync(&db, url)?;
    let mut listener = session.listen();
    let (mut pending, mut gaps, mut last) = (rows, Vec::new(), begun);
    let drain = async {
        loop {
            let status = listener.next().await.expect("it goes on");
            assert!(status.refusals.is_empty() && status.pending <= pending, "{status:?} after {pending}");
            if status.pending < pending {
                let now = Instant::now();
                gaps.push((now.duration_since(last).as_secs_f32() * 1_000.0, rows - pending));
                (pending, last) = (status.pending, now);
            }
            if pending == 0 && status.state == SyncState::Live {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, drain).await.unwrap_or_else(|_| panic!("{:?}", session.status()));
    let seconds = last.duration_since(begun).as_secs_f64();
    let after = Process::of(hub);
    let (longest, at) = gaps.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0)).expect("there was one");
    let mut sorted: Vec<f32> = gaps.iter().map(|gap| gap.0).collect();
    sorted.sort_by(f32::total_cmp);
    db.close().await?;
    Ok(json!({
        "rows": rows,
        "write_seconds": write_seconds,
        "seconds": seconds,
        "rows_per_second": rows as f64 / seconds,
        "acknowledgements": gaps.len(),
        "gap_p50_ms": percentile(&sorted, 0.5),
        "gap_p99_ms": percentile(&sorted, 0.99),
        "gap_longest_ms": longest,
        "gap_longest_after_rows": at,
        "hub_processors": (after.processor_seconds - before.processor_seconds) / seconds,
    }))
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("{text:?}: a number expected"))
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let told = match arguments[..] {
        ["fan-out", url, hub, replicas, rate, seconds] => {
            fan_out(url, hub, number(replicas), number(rate), number(seconds)).await
        }
        ["queue", url, hub, rows, directory] => queue(url, hub, number(rows), directory).await,
        ["reconcile", rows, lost, directory] => reconcile::run(number(rows), number(lost), Path::new(directory)).await,
        _ => panic!(
            "fan-out URL PROCESS REPLICAS RATE SECONDS, queue URL PROCESS ROWS DIRECTORY, or reconcile ROWS LOST DIRECTORY"
        ),
    };
    println!("{}", told.expect("the bench runs to its end"));
}
