use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::near::PushDedupe;
use crate::base::codec::checksum;
use crate::base::{Error, Result};
use crate::model::{Row, Value};
use crate::stream::{Batching, Node, Operator, Plan, PushKey, Relation, Source, SourceField};

const MAGIC: &[u8; 4] = b"EDPS";
/// Of a stream whose partitions are the first ones.
const VERSION: u8 = 1;
/// Of one that had others before.
const VERSION_WITH_PAST: u8 = 2;
const WHAT: &str = "a push stream's definition";
/// The most partitions.
pub(super) const PARTITIONS_MAX: u32 = 64;
/// The most validators.
const CHECKS_MAX: usize = 100;

/// What rows that are pushed have, and how they are kept until they are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PushStreamSpec {
    /// What each row has. Others of its fields are left out.
    pub fields: Vec<SourceField>,
    /// What an acknowledgement means.
    pub durability: PushDurability,
    /// In how many partitions rows are kept: in each of them they have an order, and a time of their own.
    pub partitions: u32,
    /// The field by which rows are dealt out to them; one after the other, with `None`.
    pub partition_by: Option<String>,
    /// How many bytes are kept in memory, to be read from there. What is over that is in storage alone.
    pub memory_bytes: usize,
    /// How many bytes are kept at all. A push that is over that is refused as `unavailable`, until something was read.
    pub bytes_max: u64,
    /// When rows that wait are given to who reads.
    pub batching: Batching,
    /// A function of the host, by [`Db::set_function`](crate::db::Db::set_function), through which each row goes first.
    pub transform: Option<String>,
    /// What must be true of a row, in their order.
    pub checks: Vec<RowCheck>,
    /// Which rows are refused for saying nothing new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedupe: Option<PushDedupe>,
    /// The collection that takes what is refused, and why; with `None` only who pushes is told.
    pub dead_letters: Option<String>,
}

impl Default for PushStreamSpec {
    fn default() -> Self {
        Self {
            fields: vec![],
            durability: PushDurability::default(),
            partitions: 1,
            partition_by: None,
            memory_bytes: 16 << 20,
            bytes_max: 1 << 30,
            batching: Batching::default(),
            transform: None,
            checks: vec![],
            dedupe: None,
            dead_letters: None,
        }
    }
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PushDurability {
    /// The rows are in storage, and synced: they survive a crash at any instant.
    #[default]
    Stored,
    /// The rows are in memory, or in storage for want of memory: they are there until the store is closed or the process ends.
    Memory,
}

/// A condition for rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RowCheck {
    /// A filter that is true of good rows.
    pub filter: String,
    /// What is said of others; the filter, with `None`.
    #[serde(default)]
    pub reason: Option<String>,
}

impl PushStreamSpec {
    /// The specification in a JSON text.
    ///
    /// # Errors
    /// `InvalidArgument` that says what was found where.
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::invalid(format!("the stream: {error}")))
    }

    /// Into which of so many partitions a row goes, where that follows from it or from who pushes.
    pub(super) fn part_of(&self, partitions: u32, row: &Row, key: Option<&PushKey>) -> Option<u32> {
        let sum = match (&self.partition_by, key) {
            _ if partitions == 1 => 0,
            (Some(field), _) => {
                checksum(&serde_json::to_vec(row.get(field).unwrap_or(&Value::Null)).unwrap_or_default())
            }
            (None, Some(key)) => checksum(key.producer().as_bytes()),
            (None, None) => return None,
        };
        Some(sum % partitions)
    }

    /// What its rows have.
    pub(super) fn relation(&self) -> Result<Relation> {
        if self.fields.is_empty() {
            return Err(Error::invalid("a stream has a field at least"));
        }
        check_partitions(self.partitions)?;
        if self.checks.len() > CHECKS_MAX {
            return Err(Error::invalid(format!("{} checks, expected {CHECKS_MAX} at most", self.checks.len())));
        }
        let source = Source { fields: self.fields.clone(), time: None, watermark: Default::default(), changes: false };
        let node = Node { name: "rows".to_owned(), inputs: vec![], operator: Operator::Source(source) };
        let sink = Node {
            name: "out".to_owned(),
            inputs: vec!["rows".to_owned()],
            operator: Operator::Sink(crate::stream::Sink::default()),
        };
        let relation = Plan { nodes: vec![node, sink] }.check()?.swap_remove(0);
        if let Some(field) = self.partition_by.as_ref().filter(|field| relation.position(field).is_none()) {
            return Err(Error::invalid(format!("partitionBy is {field:?}, which is no field of the stream")));
        }
        if let Some(adaptive) = &self.batching.adaptive {
            adaptive.check()?;
        }
        if let Some(dedupe) = &self.dedupe {
            dedupe.check(&relation)?;
        }
        Ok(relation)
    }
}

/// That a stream can have so many partitions.
pub(super) fn check_partitions(partitions: u32) -> Result<()> {
    if !(1..=PARTITIONS_MAX).contains(&partitions) {
        return Err(Error::invalid(format!("partitions is {partitions}, expected 1 to {PARTITIONS_MAX}")));
    }
    Ok(())
}

/// What is stored of a push stream beside its rows.
///
/// | bytes | |
/// |---|---|
/// | 4 | `EDPS` |
/// | 1 | version: 1, or 2 with `past` |
/// | n | the definition as JSON |
/// | 4 | CRC-32C of all before |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushStreamDefinition {
    /// By which its rows are told apart from those of others of its name; random, and never used again.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// What it is made of.
    pub spec: PushStreamSpec,
    /// The partitions that were before those of now, the oldest first. Each has the numbers after those before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastPartitions>,
    /// Who reads it, and from which number on rows of each partition that is there are kept for it; perhaps more are.
    #[serde(default)]
    pub readers: BTreeMap<String, Vec<u64>>,
}

/// Partitions that take no more rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PastPartitions {
    /// The number of the first one.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// When they are there no more, for all rows were read: the number after the last row of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Vec<u64>>,
}

impl PastPartitions {
    /// Their numbers.
    pub(super) fn range(&self) -> Range<u32> {
        self.first..self.first + self.count
    }
}

impl PushStreamDefinition {
    /// The numbers of the partitions that take rows.
    pub(super) fn now(&self) -> Range<u32> {
        let first = self.past.last().map_or(0, |past| past.range().end);
        first..first + self.spec.partitions
    }

    /// The numbers of all partitions that are there.
    pub(super) fn there(&self) -> Range<u32> {
        let now = self.now();
        let first = self.past.iter().find(|past| past.ends.is_none()).map_or(now.start, |past| past.first);
        first..now.end
    }

    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(if self.past.is_empty() { VERSION } else { VERSION_WITH_PAST });
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
        let version = if bytes.get(MAGIC.len()) == Some(&VERSION_WITH_PAST) { VERSION_WITH_PAST } else { VERSION };
        let json = crate::db::pipeline::unframed_text(bytes, MAGIC, version, WHAT)?;
        let found: Self = serde_json::from_str(json).map_err(|error| Error::corrupt(format!("{WHAT}: {error}")))?;
        found.check().map_err(|what| Error::corrupt(format!("{WHAT}: {what}")))?;
        if found.past.is_empty() != (version == VERSION) {
            return Err(Error::corrupt(format!("{WHAT}: version {version} with {} past", found.past.len())));
        }
        Ok(found)
    }

    fn check(&self) -> Result<(), String> {
        let mut next: Option<u32> = None;
        let mut there = false;
        for past in &self.past {
            let end = past.first.checked_add(past.count).filter(|end| *end <= u32::MAX - PARTITIONS_MAX);
            let is_next = next.is_none_or(|next| next == past.first);
            let is_told = past.ends.as_ref().is_none_or(|ends| !there && ends.len() == past.count as usize);
            let Some(end) = end.filter(|_| is_next && is_told && (1..=PARTITIONS_MAX).contains(&past.count)) else {
                return Err(format!("{past:?} after partitions up to {next:?}"));
            };
            (next, there) = (Some(end), there || past.ends.is_none());
        }
        if !(1..=PARTITIONS_MAX).contains(&self.spec.partitions) {
            return Err(format!("{} partitions", self.spec.partitions));
        }
        let partitions = self.there().len();
        match self.readers.iter().find(|(_, from)| from.len() != partitions) {
            Some((reader, from)) => {
                Err(format!("reader {reader:?} has {} positions in {partitions} partitions", from.len()))
            }
            None => Ok(()),
        }
    }
}
