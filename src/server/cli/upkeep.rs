use clap::Args;
use serde_json::Value as JsonValue;

use super::{DataDirectory, output, remote};
use crate::base::Result;
use crate::db::Db;
use crate::server::http::{Work, describe_memory, describe_stats};
use crate::server::store;

/// The store, or the server that has it open.
#[derive(Args)]
pub(super) struct Target {
    #[command(flatten)]
    directory: DataDirectory,

    /// The address of a server that has the store open.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Merge segments until no space is wasted, and wait for it
///
/// Background work leaves alone what is not worth it. This writes the log to segments, then merges these until there is no dead row
/// and nothing small; searches go on meanwhile.
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy compact --data ./eddy-data                          all collections
  eddy compact --url http://localhost:7700 notes           while a server runs")]
pub(super) struct Compact {
    /// The collection; without it, all.
    #[arg(value_name = "COLLECTION")]
    collection: Option<String>,

    #[command(flatten)]
    target: Target,
}

/// Write what is only in the log to segments, and drop the log
///
/// Nothing is lost without it: a restart replays the log. After it, there is nothing to replay.
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy flush --url http://localhost:7700                   before the machine is copied or stopped
  eddy flush --data ./eddy-data notes")]
pub(super) struct Flush {
    /// The collection; without it, all.
    #[arg(value_name = "COLLECTION")]
    collection: Option<String>,

    #[command(flatten)]
    target: Target,
}

/// Say what collections hold and have written: rows, segments by state, files, bytes, merges
#[derive(Args)]
#[command(after_help = "\
The last column names the policy of merging, and says how many merges came to their end since the collection was created, how many rows
they wrote, and how often that is for each row that came.

Examples:
  eddy stats --data ./eddy-data
  eddy stats --url http://localhost:7700 notes --json | jq '.collections[0].written'")]
pub(super) struct Stats {
    /// The collection; without it, all.
    #[arg(value_name = "COLLECTION")]
    collection: Option<String>,

    #[command(flatten)]
    target: Target,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Say what a store holds in memory, by kind
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy memory --url http://localhost:7700
  eddy memory --data ./eddy-data --json                    what opening it takes")]
pub(super) struct Memory {
    #[command(flatten)]
    target: Target,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// Where something is asked.
pub(super) enum Asked {
    Server(String),
    Store(Db),
}

impl Target {
    pub(super) async fn open(self) -> Result<Asked> {
        match self.url {
            Some(url) => Ok(Asked::Server(url)),
            None => Ok(Asked::Store(store::open(&self.directory.place(), false).await?)),
        }
    }
}

pub(super) fn path(collection: Option<&str>, what: &str) -> String {
    collection.map_or_else(|| format!("/api/{what}"), |name| format!("/api/collections/{}/{what}", escaped(name)))
}

/// A name in a path: collections have names in every script.
fn escaped(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(byte).collect()
}

impl Asked {
    async fn stats(&self, collection: Option<&str>) -> Result<JsonValue> {
        match self {
            Self::Server(url) => remote::ask_json("--url", url, "GET", &path(collection, "stats")),
            Self::Store(db) => describe_stats(db, collection).await,
        }
    }

    async fn run(&self, work: Work, collection: Option<&str>) -> Result<()> {
        match self {
            Self::Server(url) => {
                let what = if work == Work::Flush { "flush" } else { "compact" };
                remote::ask("--url", url, "POST", &path(collection, what), "").map(drop)
            }
            Self::Store(db) => work.run(db, collection).await,
        }
    }

    pub(super) async fn close(self) -> Result<()> {
        match self {
            Self::Server(_) => Ok(()),
            Self::Store(db) => db.close().await,
        }
    }
}

pub(super) fn pretty(json: &JsonValue) -> String {
    serde_json::to_string_pretty(json).expect("JSON values are written")
}

fn number(json: &JsonValue) -> u64 {
    json.as_u64().unwrap_or_default()
}

fn each(stats: &JsonValue) -> impl Iterator<Item = &JsonValue> {
    stats["collections"].as_array().into_iter().flatten()
}

fn segments(collection: &JsonValue) -> u64 {
    ["sealed", "flushed", "compacting"].iter().map(|state| number(&collection["segments"][state])).sum()
}

pub(super) async fn compact(command: Compact) -> Result<()> {
    work(command.target, Work::Compact, command.collection.as_deref()).await
}

pub(super) async fn flush(command: Flush) -> Result<()> {
    work(command.target, Work::Flush, command.collection.as_deref()).await
}

async fn work(target: Target, work: Work, collection: Option<&str>) -> Result<()> {
    let asked = target.open().await?;
    let before = asked.stats(collection).await?;
    asked.run(work, collection).await?;
    let after = asked.stats(collection).await?;
    for after in each(&after) {
        let Some(before) = each(&before).find(|before| before["name"] == after["name"]) else { continue };
        output::line(&format!(
            "{}: {} segments, were {}; {} dead rows, were {}; {} of log, were {}; {} in storage, were {}",
            after["name"].as_str().unwrap_or_default(),
            segments(after),
            segments(before),
            output::number(number(&after["rowsDead"])),
            output::number(number(&before["rowsDead"])),
            output::bytes(number(&after["files"]["log"])),
            output::bytes(number(&before["files"]["log"])),
            output::bytes(number(&after["storageBytes"])),
            output::bytes(number(&before["storageBytes"])),
        ))?;
    }
    asked.close().await
}

pub(super) async fn stats(command: Stats) -> Result<()> {
    let asked = command.target.open().await?;
    let stats = asked.stats(command.collection.as_deref()).await?;
    if command.json {
        output::line(&pretty(&stats))?;
    } else {
        let header =
            ["collection", "rows", "dead", "unindexed", "segments", "memory", "storage", "log", "written", "merged"];
        let row = |collection: &JsonValue| {
            let written = &collection["written"];
            let flushed = number(&written["flushed"]) + number(&written["compacted"]);
            let merges = &collection["merges"];
            vec![
                collection["name"].as_str().unwrap_or_default().to_owned(),
                output::number(number(&collection["rows"])),
                output::number(number(&collection["rowsDead"])),
                output::number(number(&collection["rowsUnindexed"])),
                output::number(segments(collection)),
                output::bytes(number(&collection["memoryBytes"])),
                output::bytes(number(&collection["storageBytes"])),
                output::bytes(number(&collection["files"]["log"])),
                format!("{} log, {} segments", output::bytes(number(&written["logged"])), output::bytes(flushed)),
                format!(
                    "{}, {} merges of {} rows, {:.2} times each",
                    collection["mergePolicy"].as_str().unwrap_or_default(),
                    output::number(number(&merges["finished"])),
                    output::number(number(&merges["rows"])),
                    merges["writeAmplification"].as_f64().unwrap_or_default(),
                ),
            ]
        };
        let rows: Vec<Vec<String>> = each(&stats).map(row).collect();
        output::table(&header.map(str::to_owned), &rows)?;
    }
    asked.close().await
}

pub(super) async fn memory(command: Memory) -> Result<()> {
    let asked = command.target.open().await?;
    let memory = match &asked {
        Asked::Server(url) => remote::ask_json("--url", url, "GET", "/api/memory")?,
        Asked::Store(db) => describe_memory(&db.memory()),
    };
    if command.json {
        output::line(&pretty(&memory))?;
    } else {
        let kinds = [
            ("total", "all of it"),
            ("rows", "narrow columns and versions"),
            ("columns", "wide columns"),
            ("vectors", "vectors in full precision"),
            ("indexes", "graphs and codes"),
            ("keys", "primary keys, deleted ones too"),
            ("cache", "blocks that were read from storage"),
        ];
        let row =
            |(kind, what): (&str, &str)| vec![kind.to_owned(), output::bytes(number(&memory[kind])), what.to_owned()];
        output::table(&["kind", "bytes", "what"].map(str::to_owned), &kinds.map(row))?;
    }
    asked.close().await
}
