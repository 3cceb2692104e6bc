//! The native side of the store's bench: appends and syncs of small writes beside the bare file system, and how long a store of the
//! sample takes to fill, and to answer again after it is opened. Prints one JSON object.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "a bench reads the clock and writes bare files"
)]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use eddydb::base::Result;
use eddydb::db::{Collection, Db, Options, SearchRequest};
use eddydb::model::{Batch, Row, Value};
use eddydb::storage::FileStorage;

const WRITES: usize = 500;
const TOGETHER: usize = 50;

async fn open(directory: &Path) -> Result<Db> {
    Db::open(Arc::new(FileStorage::open(directory)?), Options::default()).await
}

/// A row of the sample under a new key.
fn row(collection: &Collection, template: &Row, id: usize) -> Result<Batch> {
    let mut row = template.clone();
    row.insert("id".to_owned(), Value::Int(0x20_0000 + id as i64));
    Batch::from_rows(&collection.spec().schema, vec![row])
}

/// Appends and syncs of as many bytes as a log frame of one such row has, with nothing around them.
fn bare(directory: &Path, frame: usize) -> std::io::Result<f64> {
    let mut file = OpenOptions::new().create(true).append(true).open(directory.join("bare"))?;
    let bytes = vec![7; frame];
    let start = Instant::now();
    for _ in 0..WRITES {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    Ok(WRITES as f64 / start.elapsed().as_secs_f64())
}

async fn measure(sample: Vec<u8>, directory: PathBuf) -> Result<serde_json::Value> {
    let store = directory.join("store");
    let start = Instant::now();
    let db = open(&store).await?;
    let symbols = db.load_dataset("symbols", sample.into(), |_, _| {}).await?;
    while db.maintain().await? {}
    let fill_seconds = start.elapsed().as_secs_f64();
    db.close().await?;

    let start = Instant::now();
    let db = open(&store).await?;
    let reopened = db.collection("symbols")?;
    let request = SearchRequest { vector: vec![0.05; 384].into(), limit: 10, ..Default::default() };
    assert_eq!(reopened.search(&request).await?.hits.len(), 10, "the sample answers");
    let open_seconds = start.elapsed().as_secs_f64();
    drop(symbols);

    let fields = ["*".to_owned()];
    let template = reopened.get(&[0x2614.into()], Some(&fields)).await?.remove(0);
    let before = reopened.stats().await?.storage_bytes;
    let start = Instant::now();
    for id in 0..WRITES {
        reopened.upsert(row(&reopened, &template, id)?).await?;
    }
    let alone = WRITES as f64 / start.elapsed().as_secs_f64();
    let frame = (reopened.stats().await?.storage_bytes - before) as usize / WRITES;

    let start = Instant::now();
    for round in 0..WRITES / TOGETHER {
        let writes = (0..TOGETHER).map(|at| {
            let (collection, batch) = (reopened.clone(), row(&reopened, &template, 1_000 + round * TOGETHER + at));
            tokio::spawn(async move { collection.upsert(batch?).await })
        });
        for write in writes.collect::<Vec<_>>() {
            write.await.expect("a write ends")?;
        }
    }
    let together = WRITES as f64 / start.elapsed().as_secs_f64();
    let bare = bare(&directory, frame).expect("the bare file is written");
    Ok(serde_json::json!({ "fill_seconds": fill_seconds, "open_seconds": open_seconds, "frame_bytes": frame,
        "writes_per_second": alone, "writes_together_per_second": together, "bare_per_second": bare }))
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(sample), Some(directory)) = (arguments.next(), arguments.next()) else {
        panic!("usage: store SAMPLE.arrow DIRECTORY");
    };
    let sample = std::fs::read(sample).expect("the sample can be read");
    println!("{}", measure(sample, directory.into()).await.expect("the store works"));
}
