//! What it takes to find, and bring over, the rows that a hub lost when it was restored from a backup: whole stores, and a connection that
//! counts what goes over it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use eddydb::base::{Error, ErrorKind, Random, Result, Timestamp};
use eddydb::db::{Collection, Db, Options, SyncHub};
use eddydb::engine::CollectionSpec;
use eddydb::model::{Batch, Row, Value};
use eddydb::platform::Task;
use eddydb::platform::socket::{Connect, Connection};
use eddydb::storage::FileStorage;
use eddydb::sync::{Comparison, HubOptions, Item, Items, Message, RANGES_BYTES};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;

use super::settled;

/// Rows that are written in one batch, and so have one time.
const BATCH: usize = 100;
/// Rows are texts of so many bytes, each other ones.
const TEXT_BYTES: usize = 48;
const NAME: &str = "rows";

/// What went over a connection, both ways.
#[derive(Default)]
struct Counts {
    /// Frames that carry rows.
    rows: AtomicUsize,
    /// All other frames.
    other: AtomicUsize,
    frames: AtomicUsize,
}

impl Counts {
    fn note(&self, frame: &[u8]) {
        let carries_rows = matches!(Message::decode(frame), Ok(Message::Give(_) | Message::Found(_)));
        let bytes = if carries_rows { &self.rows } else { &self.other };
        bytes.fetch_add(frame.len(), Ordering::Relaxed);
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    fn take(&self) -> (usize, usize, usize) {
        let taken = |count: &AtomicUsize| count.swap(0, Ordering::Relaxed);
        (taken(&self.rows), taken(&self.other), taken(&self.frames))
    }
}

/// One end of a connection within the process.
struct End {
    sender: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    receiver: tokio::sync::Mutex<mpsc::Receiver<Vec<u8>>>,
    counts: Arc<Counts>,
}

impl Connection for End {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(async move {
            let sender = self.sender.lock().expect("no panic while held").clone();
            let gone = || Error::new(ErrorKind::Unavailable, "the connection is closed");
            self.counts.note(&message);
            sender.ok_or_else(gone)?.send(message).await.map_err(|_| gone())
        })
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move { Ok(self.receiver.lock().await.recv().await) })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move { drop(self.sender.lock().expect("no panic while held").take()) })
    }
}

/// The way to a hub in this process.
struct Wire {
    hub: SyncHub,
    counts: Arc<Counts>,
}

impl Connect for Wire {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        let (up, from_up) = mpsc::channel(1);
        let (down, from_down) = mpsc::channel(1);
        let end = |sender, receiver| -> Arc<dyn Connection> {
            let (sender, receiver) = (Mutex::new(Some(sender)), tokio::sync::Mutex::new(receiver));
            Arc::new(End { sender, receiver, counts: self.counts.clone() })
        };
        let (here, there) = (end(up, from_down), end(down, from_up));
        let hub = self.hub.clone();
        tokio::spawn(async move { hub.serve(there).await });
        Box::pin(async move { Ok(here) })
    }
}

async fn open(directory: &Path) -> Result<Db> {
    Db::open(Arc::new(FileStorage::open(directory)?), Options::default()).await
}

/// Writes rows `from` to `to`, and tells how many bytes they are.
async fn write(collection: &Collection, from: usize, to: usize) -> Result<usize> {
    let schema = collection.spec().schema.clone();
    let mut random = Random::new(from as u64);
    let mut bytes = 0;
    for first in (from..to).step_by(BATCH) {
        let row = |id: usize| {
            let digits = (0..TEXT_BYTES / 16).map(|_| format!("{:016x}", random.next_u64()));
            let text = digits.collect::<String>();
            bytes += size_of::<i64>() + text.len();
            Row::from([("id".to_owned(), Value::Int(id as i64)), ("text".to_owned(), Value::String(text))])
        };
        let rows = (first..to.min(first + BATCH)).map(row).collect();
        collection.upsert(Batch::from_rows(&schema, rows)?).await?;
    }
    Ok(bytes)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// A hub of about `rows` rows goes back to a backup and has lost `lost`, written one after the other. What it writes then lies, so far, at positions
/// that the client has passed and takes for known: so much is missing at each side.
pub(super) async fn run(rows: usize, lost: usize, directory: &Path) -> Result<Json> {
    let (place, backup) = (directory.join("hub"), directory.join("backup"));
    let text = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"text","type":"varchar"}],"dynamic":false,"indexes":{}}"#;
    let spec: CollectionSpec = serde_json::from_str(text).expect("a spec");
    let (half, whole) = ((rows - lost) / 2, rows - lost);
    let hub = open(&place).await?;
    write(&hub.create_collection(NAME, spec).await?, 0, half).await?;
    hub.close().await?;
    copy(&place, &backup).expect("a backup");

    let client = open(&directory.join("client")).await?;
    let counts = Arc::new(Counts::default());
    let way =
        |hub: &Db| Arc::new(Wire { hub: SyncHub::new(hub.clone(), HubOptions::default()), counts: counts.clone() });
    let hub = open(&place).await?;
    let lost_bytes = write(&hub.collection(NAME)?, whole, rows).await?;
    let session = client.sync_over(way(&hub), vec![NAME.to_owned()])?;
    settled(&session, "the rows that will be lost").await;
    session.stop();
    hub.close().await?;

    std::fs::remove_dir_all(&place).and_then(|()| copy(&backup, &place)).expect("the backup in its place");
    let hub = open(&place).await?;
    // So much that its log is past the position that the client has, by which it would be seen.
    write(&hub.collection(NAME)?, half, whole).await?;
    let session = client.sync_over(way(&hub), vec![NAME.to_owned()])?;
    settled(&session, "the rows that were written after the restore").await;
    counts.take();
    let begun = Instant::now();
    let changed = session.reconcile(None).await?[NAME];
    let seconds = begun.elapsed().as_secs_f64();
    let (row_frames, other, frames) = counts.take();
    assert_eq!((changed.sent, changed.received), (lost as u64, lost as u64), "rows that differ");
    let differing = (2 * lost) as f64;
    let bytes_of_rows = lost_bytes as f64 / lost as f64;
    let begun = Instant::now();
    session.reconcile(None).await?;
    let equal_seconds = begun.elapsed().as_secs_f64();
    let (_, equal_bytes, _) = counts.take();
    session.stop();
    client.close().await?;
    hub.close().await?;
    Ok(json!({
        "differing": differing,
        "seconds": seconds,
        "frames": frames,
        "bytes_beyond_rows": (row_frames + other) as f64 / differing - bytes_of_rows,
        "bytes_to_find": other as f64 / differing,
        "bytes_of_rows": bytes_of_rows,
        "equal_bytes": equal_bytes,
        "equal_seconds": equal_seconds,
        "scattered_bytes_to_find": scattered(rows, 2 * lost)? as f64 / differing,
    }))
}

/// Bytes of the messages by which `lost` items that lie anywhere are found, without rows and frames.
fn scattered(rows: usize, lost: usize) -> Result<usize> {
    let mut random = Random::new(7);
    let item = |at: usize, id| Item { timestamp: Timestamp((at / BATCH) as u64), id };
    let here: Vec<Item> = (0..rows).map(|at| item(at, random.next_u64())).collect();
    let is_lost: std::collections::HashSet<usize> = {
        let mut chosen = std::collections::HashSet::new();
        while chosen.len() < lost {
            chosen.insert(random.next_u64() as usize % rows);
        }
        chosen
    };
    let there = here.iter().enumerate().filter(|(at, _)| !is_lost.contains(at)).map(|(_, item)| *item);
    let there = Items::new(there.collect());
    let mut comparison = Comparison::new(Items::new(here), RANGES_BYTES);
    let mut told = there.begin();
    let mut bytes = told.len();
    while let Some(said) = comparison.take_in(&told)? {
        told = there.answer(&said, RANGES_BYTES)?;
        bytes += said.len() + told.len();
    }
    assert_eq!((comparison.have.len(), comparison.need.len()), (lost, 0));
    Ok(bytes)
}
