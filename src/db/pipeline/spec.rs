use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::base::codec::checksum;
use crate::base::{Error, ErrorKind, Result};
use crate::db::source::{SourceMode, SourceSettings};
use crate::query::Parameters;
use crate::stream::sql::Origin;
use crate::stream::{Operator, Plan};

const MAGIC: &[u8; 4] = b"EDPD";
const VERSION: u8 = 1;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// What a pipeline is made of. As JSON, as HTTP takes it: `{"sql": "CREATE MATERIALIZED VIEW …"}` or `{"plan": {"nodes": […]}}`, and
/// `sources` and `options` where they are to be other than usual.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PipelineSpec {
    /// The plan as SQL; see [`crate::stream::sql`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// What `{name}` stands for in it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: Parameters,
    /// The plan. Of a pipeline that is there it is always known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// By source: the name of the plan's node, or of the table in SQL.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, PipelineSource>,
    /// How it runs.
    pub options: PipelineOptions,
}

impl PipelineSpec {
    /// That of a plan.
    pub fn plan(plan: Plan) -> Self {
        Self { plan: Some(plan), ..Self::default() }
    }

    /// That of a text of SQL.
    pub fn sql(text: impl Into<String>) -> Self {
        Self { sql: Some(text.into()), ..Self::default() }
    }

    /// Whether it is SQL whose last statement is only to be shown, by `EXPLAIN`.
    pub fn is_explain(&self) -> bool {
        self.sql.as_deref().is_some_and(crate::stream::sql::is_explain)
    }

    /// How it is done, as text: its plan, where the rows of sources come from, and where what is not taken goes.
    pub(super) fn explain(&self, plan: &Plan) -> Result<String> {
        let mut text = plan.explain_with(&|node| match &node.operator {
            Operator::Source(_) => {
                self.sources.get(&node.name).map_or(String::new(), |source| source.describe(&node.name))
            }
            Operator::Sink(sink) if sink.collection.is_none() && self.options.keep_rows > 0 => {
                format!(", {} rows kept until they are acknowledged", self.options.keep_rows)
            }
            _ => String::new(),
        })?;
        if let Some(letters) = &self.options.dead_letters {
            let _ = writeln!(text, "dead letters: into {letters}");
        }
        Ok(text)
    }

    /// The specification in a JSON text.
    ///
    /// # Errors
    /// `InvalidArgument` that says what was found where.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::invalid(format!("the pipeline: {error}")))
    }
}

/// Where the rows of a source come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PipelineSource {
    /// The collection; the one that is called as the node, with `None`.
    pub collection: Option<String>,
    /// Where it begins, as in [`Since`](crate::db::Since): `full`, all rows that are there, then what is written, is usual; `now`,
    /// `earliest`, or a hybrid time.
    pub since: Option<String>,
    /// In SQL, the field with the event time of a collection that the text does not declare as a stream. Its rows are events then: each
    /// counts when it is inserted, and what becomes of it later does not.
    pub time: Option<String>,
    /// How much earlier than the latest row so far a row may come, in milliseconds, with `time`.
    pub delay_ms: u64,
    /// After how many milliseconds without a row it is waited for no longer, with `time`.
    pub idle_ms: Option<u64>,
    /// A `timestamp` field of the source that no row has: it takes the time of the write.
    pub commit_time: Option<String>,
    /// Where its rows come from that are no collection's: `stream`, or one that the host has given by
    /// [`Db::set_connector`](crate::db::Db::set_connector). They are events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// What the connector is told.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub options: serde_json::Value,
    /// When rows of a connector are taken.
    #[serde(skip_serializing_if = "SourceMode::is_default")]
    pub mode: SourceMode,
    /// So many times as fast as they happened, rows are taken: those of a connector by their event time, those of a collection, in the order
    /// of its log until its end is reached, by the time of their write. As fast as they can be read, with `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pace: Option<f64>,
}

impl From<Origin> for PipelineSource {
    fn from(origin: Origin) -> Self {
        let Origin { connector, collection, since, commit_time, mode, pace, options } = origin;
        Self { connector, collection, since, commit_time, mode, pace, options, ..Self::default() }
    }
}

impl PipelineSource {
    /// Where the rows of the node come from, as text.
    fn describe(&self, node: &str) -> String {
        let mut text = String::new();
        match (&self.connector, &self.collection) {
            (Some(connector), _) => {
                let _ = write!(text, ", from {connector}");
                match &self.options {
                    serde_json::Value::Null => {}
                    options => drop(write!(text, " {options}")),
                }
            }
            (None, Some(collection)) if collection != node => drop(write!(text, ", from collection {collection}")),
            (None, _) => {}
        }
        if let Some(since) = &self.since {
            let _ = write!(text, ", since {since}");
        }
        if let Some(field) = &self.commit_time {
            let _ = write!(text, ", {field} is the time of the write");
        }
        match self.mode {
            SourceMode::RealTime => {}
            SourceMode::NearRealTime { every_ms } => drop(write!(text, ", every {every_ms} ms")),
            SourceMode::Batch => text.push_str(", to its end"),
        }
        if let Some(pace) = self.pace {
            let _ = write!(text, ", {pace} times as fast as it happened");
        }
        text
    }

    /// How a connector's source is read for a source of the plan.
    pub(super) fn settings(&self, source: &crate::stream::Source) -> SourceSettings {
        SourceSettings { mode: self.mode, pace: self.pace, time: source.time.clone() }
    }
}

/// How a pipeline runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PipelineOptions {
    /// What a crash may do to the rows of sinks.
    pub guarantee: Guarantee,
    /// How long rows for sinks may wait for a checkpoint, which they come with. One that takes long is made more seldom: checkpoints take
    /// a tenth of the time at most.
    pub checkpoint_interval_ms: u64,
    /// How many checkpoints are kept, 1 to 100: when the latest is damaged, the one before counts.
    pub checkpoints: usize,
    /// How many rows a source gives at once, whole transactions.
    pub batch_rows: usize,
    /// How many rows wait for a checkpoint at most, before one is made.
    pub staged_rows: usize,
    /// How many transactions of a source the pipeline may be behind. What it needs of the past is kept that far, paused or not; beyond, it
    /// is let go of.
    pub behind_max: u64,
    /// What happens when what a source has told since is gone.
    pub gone: OnGone,
    /// The collection that takes rows that were not taken, and why. With `None` the first such row ends the pipeline.
    pub dead_letters: Option<String>,
    /// As of when collections are asked, by joins.
    pub lookup: LookupTime,
    /// How many rows of each sink that is no collection are kept until they are [acknowledged](super::Pipeline::acknowledge); with more the
    /// pipeline waits. 0 keeps none: who [listens](super::Pipeline::rows) gets what comes meanwhile.
    #[serde(skip_serializing_if = "is_zero")]
    pub keep_rows: usize,
    /// How many keys or rows an operator may keep.
    pub entries_max: usize,
    /// Whether rows beyond that are refused (dead letters), or end the pipeline.
    pub refuse_overflow: bool,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            guarantee: Guarantee::default(),
            checkpoint_interval_ms: 1_000,
            checkpoints: 3,
            batch_rows: 1_000,
            staged_rows: 10_000,
            behind_max: 1_000_000,
            gone: OnGone::default(),
            dead_letters: None,
            lookup: LookupTime::default(),
            keep_rows: 0,
            entries_max: 1 << 22,
            refuse_overflow: false,
        }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl PipelineOptions {
    pub(super) fn check(&self) -> Result<()> {
        let range = |name: &str, value: usize, max: usize| {
            if (1..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::invalid(format!("{name} is {value}, expected 1 to {max}")))
        };
        range("checkpoints", self.checkpoints, 100)?;
        range("batchRows", self.batch_rows, 100_000)?;
        range("stagedRows", self.staged_rows, 1_000_000)?;
        range("entriesMax", self.entries_max, usize::MAX)
    }
}

/// What a crash may do to the rows of sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Guarantee {
    /// Each has its effect once: rows are stored with the checkpoint first, and written to their collections with the number of the write
    /// in the same frame of the log.
    #[default]
    ExactlyOnce,
    /// Some may be written twice: rows are written as they come, and checkpoints made from time to time.
    AtLeastOnce,
    /// Some may be lost, and none is written twice: rows are written after the checkpoint, which does not have them.
    AtMostOnce,
}

/// What happens when a pipeline needs what its source does not keep any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnGone {
    /// It fails with the error `gone`.
    #[default]
    Fail,
    /// It begins anew with all rows that are there, after the collections that it has made are emptied.
    Reseed,
}

/// As of when a join sees a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LookupTime {
    /// At the row's event time, as far back as [`Options::retention_ms`](crate::db::Options::retention_ms) keeps the past; as it is now
    /// beyond that, which is counted.
    #[default]
    EventOrNow,
    /// At the row's event time; beyond what is kept, the row is a dead letter.
    Event,
    /// As it is now.
    Now,
}

/// What a pipeline does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PipelineState {
    /// It runs, whenever background work is done.
    Active,
    /// It does not, until it is resumed. What it needs is kept.
    Paused,
    /// Something is wrong that does not pass by itself.
    Failed,
    /// It was dropped.
    Closed,
}

impl PipelineState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Closed => "closed",
        }
    }
}

/// What is stored of a pipeline beside its checkpoints.
///
/// | bytes | |
/// |---|---|
/// | 4 | `EDPD` |
/// | 1 | version, 1 |
/// | n | the definition as JSON |
/// | 4 | CRC-32C of all before |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Definition {
    /// By which its writes are told apart; random, and never used again.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What it is made of, with its plan.
    pub spec: PipelineSpec,
    /// What it does.
    pub state: PipelineState,
    /// Why it failed: the kind of the error, and its message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<(String, String)>,
    /// The collections that it has made.
    #[serde(default)]
    pub made: Vec<String>,
}

impl Definition {
    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(VERSION);
        let json = serde_json::to_vec(self).expect("a definition is made of texts, numbers and lists");
        out.extend_from_slice(&json);
        let sum = checksum(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        out
    }

    /// The definition in `bytes`.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are none, `Unsupported` for those of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let json = unframed_text(bytes, MAGIC, VERSION, "a pipeline's definition")?;
        serde_json::from_str(json).map_err(|error| Error::corrupt(format!("a pipeline's definition: {error}")))
    }

    pub(super) fn plan(&self) -> Result<&Plan> {
        self.spec.plan.as_ref().ok_or_else(|| Error::corrupt("a pipeline's definition has no plan"))
    }

    /// The nodes that are sources, with what was said of them, and their collections.
    pub(super) fn sources(&self) -> Result<Vec<(usize, PipelineSource, String)>> {
        let mut sources = self.all_sources()?;
        sources.retain(|(_, source, _)| source.connector.is_none());
        Ok(sources)
    }

    /// The nodes whose rows come from connectors, with what was said of them, and the names that they go by.
    pub(super) fn feeds(&self) -> Result<Vec<(usize, PipelineSource, String)>> {
        let mut sources = self.all_sources()?;
        sources.retain(|(_, source, _)| source.connector.is_some());
        Ok(sources)
    }

    fn all_sources(&self) -> Result<Vec<(usize, PipelineSource, String)>> {
        let plan = self.plan()?;
        let of = |(at, node): (usize, &crate::stream::Node)| {
            matches!(node.operator, Operator::Source(_)).then(|| {
                let source = self.spec.sources.get(&node.name).cloned().unwrap_or_default();
                let name = source.collection.clone().unwrap_or_else(|| node.name.clone());
                (at, source, name)
            })
        };
        Ok(plan.nodes.iter().enumerate().filter_map(of).collect())
    }
}

/// What stands between the head and the checksum.
pub(in crate::db) fn unframed<'b>(bytes: &'b [u8], magic: &[u8; 4], version: u8, what: &str) -> Result<&'b [u8]> {
    let corrupt = |why: &str| Error::corrupt(format!("{what}: {why}"));
    let Some((body, sum)) = bytes.split_last_chunk::<4>() else { return Err(corrupt("too short")) };
    if checksum(body) != u32::from_le_bytes(*sum) {
        return Err(corrupt("its checksum is wrong"));
    }
    let Some((head, rest)) = body.split_first_chunk::<4>() else { return Err(corrupt("too short")) };
    let Some((found, rest)) = rest.split_first() else { return Err(corrupt("too short")) };
    if head != magic {
        return Err(corrupt("it begins with other bytes"));
    }
    if *found != version {
        let message = format!("{what} of version {found}, this version reads {version}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(rest)
}

/// The same, as a text: JSON is then read by the code that reads what an application gives. That for bytes would be there beside it, which pages
/// download.
pub(in crate::db) fn unframed_text<'b>(bytes: &'b [u8], magic: &[u8; 4], version: u8, what: &str) -> Result<&'b str> {
    let text = unframed(bytes, magic, version, what)?;
    std::str::from_utf8(text).map_err(|error| Error::corrupt(format!("{what}: {error}")))
}

pub(in crate::db) fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        return Err(Error::invalid(format!(
            "pipeline name {name:?}: expected 1 to {NAME_BYTES_MAX} bytes of letters, digits, '_', '-' and '.'"
        )));
    }
    Ok(())
}
