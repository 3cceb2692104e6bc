use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use super::{DataDirectory, output};
use crate::base::{Error, ErrorKind, Result};
use crate::db::Db;
use crate::distance::Metric;
use crate::server::http::Stop;
use crate::server::import::{self, Format, Observer, Plan};
use crate::server::store;

/// How often a line tells how far the import is, where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Read files into a collection: Arrow, Parquet, CSV, TSV, JSON Lines, and vectors in .npy
#[derive(Args)]
#[command(after_help = "\
A collection that is not there is created: its fields from what the files hold, every one but the key and the vectors
nullable. A list of at least 8 numbers in every row is a vector. Rows whose key is there are replaced.

An import that was interrupted goes on where it was when the same command is run again, without doubles or loss.

Examples:
  eddy import notes notes.jsonl
  eddy import notes more.csv --key slug
  eddy import films films.tsv --vectors films.npy --vector-field embedding --metric IP
  eddy import films part-1.parquet part-2.parquet
  eddy import symbols www/sample/symbols.arrow")]
pub(super) struct Import {
    /// The collection to read into.
    collection: String,

    /// The files, in this order.
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    directory: DataDirectory,

    /// The format of the files, where their names do not tell.
    #[arg(long)]
    format: Option<Format>,

    /// A .npy file with a vector for each row of the one table: 16-, 32- or 64-bit floats, [rows, numbers].
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,

    /// The field of the vectors of --vectors [default: embedding], or the column that holds vectors.
    #[arg(long, value_name = "FIELD")]
    vector_field: Option<String>,

    /// The column that identifies a row, for a collection that is created. [default: id]
    #[arg(long, value_name = "FIELD")]
    key: Option<String>,

    /// How vectors are compared, for a collection that is created. [default: cosine]
    #[arg(long, ignore_case = true)]
    metric: Option<MetricName>,

    /// How many rows are written at once.
    #[arg(long, default_value_t = 1000, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_rows: u32,

    /// The partition that rows go into; it is created when it is not there.
    #[arg(long, value_name = "NAME")]
    partition: Option<String>,

    /// Start at the beginning, even if this import was interrupted before.
    #[arg(long)]
    restart: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MetricName {
    /// Squared Euclidean distance.
    L2,
    /// Inner product.
    Ip,
    /// Cosine.
    Cosine,
}

impl From<MetricName> for Metric {
    fn from(name: MetricName) -> Self {
        match name {
            MetricName::L2 => Self::L2,
            MetricName::Ip => Self::Ip,
            MetricName::Cosine => Self::Cosine,
        }
    }
}

pub(super) async fn run(command: Import) -> Result<()> {
    let plan = Plan {
        collection: command.collection,
        files: command.files,
        format: command.format,
        vectors: command.vectors,
        vector_field: command.vector_field,
        key: command.key,
        metric: command.metric.map(Metric::from),
        batch_rows: command.batch_rows as usize,
        partition: command.partition,
        restart: command.restart,
    };
    let db = store::open(&command.directory.place(), true).await?;
    let directory = command.directory.data;
    if command.directory.storage.is_some() {
        // What has been read of the files is noted on this machine, beside a store or not.
        let io = |error| Error::new(ErrorKind::Io, format!("create {}: {error}", directory.display()));
        tokio::fs::create_dir_all(&directory).await.map_err(io)?;
    }
    let (mut stopper, stop) = Stop::new();
    let background = tokio::spawn(store::maintain(db.clone(), stop.receiver()));
    let mut progress = Progress::new();
    let imported = import::run(&db, &directory, &plan, &mut progress).await;
    stopper.stop();
    let background = background.await;
    let indexed = match &imported {
        Ok(_) => index(&db, &plan.collection, &mut progress).await,
        Err(_) => Ok(()),
    };
    progress.bar.finish_and_clear();
    let closed = db.close().await;
    let summary = imported?;
    indexed.and(closed)?;
    background.map_err(|error| crate::base::Error::internal(format!("the background work did not end: {error}")))?;
    let seconds = progress.started.elapsed().as_secs_f64();
    let mut text = format!(
        "{} {} rows into {:?} in {seconds:.1} s",
        if summary.created { "created and imported" } else { "imported" },
        output::number(summary.rows),
        plan.collection,
    );
    if summary.rows_before > 0 {
        text += &format!("; {} were there from an earlier run", output::number(summary.rows_before));
    }
    if summary.rows_replaced > 0 {
        text += &format!("; {} were replaced by later ones of the same key", output::number(summary.rows_replaced));
    }
    output::line(&text)
}

/// Brings the index up to the last row, so that the first search finds it ready.
async fn index(db: &Db, collection: &str, progress: &mut Progress) -> Result<()> {
    let collection = db.collection(collection)?;
    let total = collection.stats().await?.rows_unindexed as u64;
    if total > 0 {
        progress.note(&format!("indexing {} rows", output::number(total)));
    }
    while store::step(db).await? {
        let left = collection.stats().await?.rows_unindexed as u64;
        progress.show("index", None, total.saturating_sub(left), total);
    }
    Ok(())
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: ProgressBar,
    started: Instant,
    told: Instant,
}

impl Progress {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3}% {msg} {elapsed} (left: {eta})")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
        let now = Instant::now();
        Self { bar, started: now, told: now }
    }

    fn show(&mut self, what: &str, rows: Option<u64>, done: u64, total: u64) {
        let rows = rows.map_or_else(String::new, |rows| format!("{} rows", output::number(rows)));
        if self.bar.is_hidden() {
            if self.told.elapsed() >= LINE_INTERVAL {
                self.told = Instant::now();
                let percent = (100 * done).checked_div(total).unwrap_or(100);
                output::error(format!("{what}: {percent}% {rows}").trim_end());
            }
            return;
        }
        self.bar.set_prefix(what.to_owned());
        self.bar.set_message(rows);
        self.bar.set_length(total);
        self.bar.set_position(done.min(total));
    }
}

impl Observer for Progress {
    fn note(&mut self, text: &str) {
        self.bar.suspend(|| output::error(text));
    }

    fn progress(&mut self, file: &Path, rows: Option<u64>, done: u64, total: u64) {
        let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        self.show(&name, rows, done, total);
    }
}
