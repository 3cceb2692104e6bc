//! Killed as by a power cut: what was acknowledged is there afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use eddydb::base::Random;
use serde_json::{Value, json};

use crate::native::{Server, eddy, request};
use crate::notes;

const WRITERS: u64 = 4;
/// Each writer has keys of its own, so few that most are written again and again.
const KEYS_EACH: u64 = 60;
/// Kills in a normal run; `npm run kills -- --count N` sets another number.
const KILLS: u64 = 6;

/// What the rows of one writer are: key to the number of the write that made them so.
type Rows = BTreeMap<u64, u64>;

/// One write: what it makes of each key; `None` deletes. All of it is applied, or nothing.
#[derive(Clone, Debug)]
struct Write {
    changes: BTreeMap<u64, Option<u64>>,
}

impl Write {
    fn random(random: &mut Random, writer: u64, number: u64) -> Self {
        let count = 1 + random.below(20);
        let change = |random: &mut Random| {
            let key = writer * 1_000 + random.below(KEYS_EACH);
            (key, (!random.one_in(3)).then_some(number))
        };
        Self { changes: (0..count).map(|_| change(random)).collect() }
    }

    /// The path and the body of its request.
    fn request(&self) -> (&'static str, Value) {
        let row = |(&key, number): (&u64, &Option<u64>)| {
            let number = (*number)?;
            Some(
                json!({"id": key, "title": format!("{number}"), "n": number as f64, "v": [key as f64, number as f64, 0]}),
            )
        };
        let rows: Vec<Value> = self.changes.iter().filter_map(row).collect();
        let keys: Vec<u64> = self.changes.iter().filter(|(_, number)| number.is_none()).map(|(&key, _)| key).collect();
        match (rows.is_empty(), keys.is_empty()) {
            (false, true) => ("upsert", json!({ "rows": rows })),
            (true, _) => ("delete", json!({ "keys": keys })),
            _ => ("batch", json!({"operations": [{"delete": {"keys": keys}}, {"upsert": rows}]})),
        }
    }

    fn apply(&self, rows: &mut Rows) {
        for (&key, number) in &self.changes {
            match number {
                Some(number) => rows.insert(key, *number),
                None => rows.remove(&key),
            };
        }
    }
}

/// What one writer knows.
#[derive(Default)]
struct Record {
    /// After every write that was acknowledged.
    rows: Rows,
    acknowledged: u64,
    /// The write that was under way when the server was killed.
    open: Option<Write>,
}

/// Writers write until the server is killed under them, while flushes and merges go on; then every acknowledged write is there, and
/// the one of each writer whose answer never came is wholly there or wholly absent. Again and again, on the same store; now and
/// then the server is killed while it starts, too.
#[test]
fn acknowledged_writes_survive_being_killed() {
    let kills = std::env::var("EDDY_KILLS").map_or(KILLS, |text| text.parse().expect("EDDY_KILLS is a number"));
    let seed =
        std::env::var("EDDY_KILLS_SEED").map_or(kills, |text| text.parse().expect("EDDY_KILLS_SEED is a number"));
    println!("{kills} kills, seed {seed}");
    let mut random = Random::new(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut records: Vec<Record> = (0..WRITERS).map(|_| Record::default()).collect();
    let (mut survived, mut lost, mut while_starting, mut flushes) = (0, 0, 0, 0);
    let number = AtomicU64::new(1);
    let mut server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    for kill in 0..kills {
        let (killed, done, flushed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        // Often in the first writes after a start, sometimes after flushes and merges.
        let most = if random.one_in(4) { 400 } else { 40 };
        let enough = random.below(most);
        let address = server.address.clone();
        let write = |record: &mut Record, writer: u64, mut random: Random| {
            while !killed.load(Ordering::Acquire) {
                let write = Write::random(&mut random, writer, number.fetch_add(1, Ordering::Relaxed));
                let (path, body) = write.request();
                let path = format!("/api/collections/notes/{path}");
                match request(&address, "POST", &path, &[], body.to_string().as_bytes()) {
                    Ok(response) => {
                        assert_eq!(response.status, 200, "{}", response.text());
                        write.apply(&mut record.rows);
                        record.acknowledged += 1;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => record.open = Some(write),
                }
                if record.open.is_some() {
                    break;
                }
            }
        };
        // An archive begins with a flush; many small segments are merged.
        let flush = || {
            while !killed.load(Ordering::Acquire) {
                if request(&address, "GET", "/api/archive", &[], b"").is_ok_and(|response| response.status == 200) {
                    flushed.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let started = std::time::Instant::now();
        std::thread::scope(|scope| {
            for (writer, record) in (0..).zip(&mut records) {
                let random = Random::new(random.next_u64());
                let write = &write;
                scope.spawn(move || write(record, writer, random));
            }
            scope.spawn(flush);
            while done.load(Ordering::Relaxed) < enough {
                assert!(started.elapsed().as_secs() < 60, "only {} writes were done", done.load(Ordering::Relaxed));
                std::thread::yield_now();
            }
            // SIGKILL, while the writers write.
            server.kill();
            killed.store(true, Ordering::Release);
        });
        flushes += flushed.into_inner();
        if random.one_in(3) {
            kill_while_starting(directory.path(), random.below(400));
            while_starting += 1;
        }
        server = Server::start(directory.path(), &[]);
        let mut found = found(&server);
        for (writer, record) in (0..).zip(&mut records) {
            let found = found.remove(&writer).unwrap_or_default();
            let open = record.open.take();
            let with_open = open.as_ref().map(|open| {
                let mut rows = record.rows.clone();
                open.apply(&mut rows);
                rows
            });
            if with_open.as_ref() == Some(&found) && found != record.rows {
                survived += 1;
                record.rows = found;
            } else {
                lost += u64::from(open.is_some());
                assert_eq!(found, record.rows, "kill {kill}, writer {writer}, under way: {open:?}");
            }
        }
        assert!(found.is_empty(), "rows that nobody wrote: {found:?}");
    }
    let acknowledged: u64 = records.iter().map(|record| record.acknowledged).sum();
    println!(
        "{kills} kills under load and {while_starting} while starting: {acknowledged} acknowledged writes, all there; of those under \
         way {survived} were there and {lost} were not; {flushes} flushes"
    );
    assert!(acknowledged >= kills * 10, "{acknowledged} acknowledged writes");
}

/// Starts a server and kills it after it has been given the processor so often: somewhere in its recovery, or before or after.
fn kill_while_starting(data: &std::path::Path, yields: u64) {
    let mut child = eddy()
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let claimed = || {
        std::fs::read_dir(data).unwrap().any(|entry| entry.unwrap().file_name().to_string_lossy().starts_with(".lock."))
    };
    while !claimed() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    for _ in 0..yields * 100 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The rows of the store, by writer.
fn found(server: &Server) -> BTreeMap<u64, Rows> {
    let rows = server.post_well("/api/collections/notes/query", &json!({"outputFields": ["id", "title", "n", "v"]}));
    let mut found = BTreeMap::<u64, Rows>::new();
    for row in rows["rows"].as_array().unwrap() {
        let (key, number) = (row["id"].as_u64().unwrap(), row["n"].as_f64().unwrap());
        // A row is wholly that of one write.
        assert_eq!(row["title"], format!("{number}"));
        assert_eq!(row["v"], json!([key as f64, number, 0.0]));
        assert!(found.entry(key / 1_000).or_default().insert(key, number as u64).is_none(), "key {key} is there twice");
    }
    found
}
