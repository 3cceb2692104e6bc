use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result, message};
use crate::model::{DataType, Row, Value};
use crate::stream::{Nearness, Piece, Recent, Relation};

/// The longest time that rows are compared over: ten years.
const WINDOW_MS_MAX: u64 = 10 * 366 * 86_400_000;
/// The most rows that are kept to be compared with.
const ROWS_MAX: usize = 10_000_000;

/// Which rows say nothing new: those whose vector is near to that of a row that was taken shortly before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PushDedupe {
    /// The field with the vector, a `float_vector`. A row without one is near to none.
    pub field: String,
    /// A row is refused that is no farther than this from one before.
    pub threshold: f64,
    /// For how many milliseconds, by the clock, a row that was taken is compared with. So long it is kept, read or not.
    pub window_ms: u64,
    /// How distances are measured.
    #[serde(default)]
    pub metric: Nearness,
    /// The field whose value stands for a row where another is refused for it.
    #[serde(default)]
    pub key: Option<String>,
    /// Fields whose values part rows: those of different values are not compared.
    #[serde(default)]
    pub by: Vec<String>,
    /// How many rows are compared with at most: of more, the oldest are forgotten before their time, which is counted.
    #[serde(default = "rows_max")]
    pub rows_max: usize,
}

fn rows_max() -> usize {
    100_000
}

/// A row that was refused for one before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NearRow {
    /// Its number among those that were pushed.
    pub row: usize,
    /// The value of the field `key` of the row that it is near to; null without such a field.
    pub of: Value,
    /// How far it is from it.
    pub distance: f64,
}

impl NearRow {
    pub(super) fn reason(&self) -> String {
        let of = match &self.of {
            Value::Null => "a row that was taken shortly before".to_owned(),
            of => serde_json::to_string(of).unwrap_or_default(),
        };
        format!("its vector is {} from that of {of}", self.distance)
    }
}

/// | bytes | |
/// |---|---|
/// | n | a MessagePack list, of each row a list of its number, what it is near to and how far it is; nothing for none |
pub(super) fn encode(near: &[NearRow]) -> Vec<u8> {
    let list: Vec<(usize, &Value, f64)> = near.iter().map(|one| (one.row, &one.of, one.distance)).collect();
    if list.is_empty() { vec![] } else { rmp_serde::to_vec(&list).expect("rows have numbers and values") }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<NearRow>> {
    if bytes.is_empty() {
        return Ok(vec![]);
    }
    let mut decoder = message::Decoder::<false>::new(bytes);
    let list = <Vec<(usize, Value, f64)> as Deserialize>::deserialize(&mut decoder);
    let list = list.map_err(|error| Error::corrupt(format!("rows that are near to others: {error}")))?;
    Ok(list.into_iter().map(|(row, of, distance)| NearRow { row, of, distance }).collect())
}

impl PushDedupe {
    /// That rows of `relation` can be compared so.
    pub(super) fn check(&self, relation: &Relation) -> Result<()> {
        let invalid = |what: String| Err(Error::invalid(format!("dedupe: {what}")));
        let type_of = |field: &str| relation.position(field).map(|at| relation.fields[at].data_type);
        match type_of(&self.field) {
            Some(DataType::FloatVector { .. }) => {}
            Some(other) => {
                return invalid(format!("field {:?} is {}, expected a float_vector", self.field, other.name()));
            }
            None => return invalid(format!("field is {:?}, which is no field of the stream", self.field)),
        }
        let most = if self.metric == Nearness::Cosine { 2.0 } else { f64::MAX };
        if !(0.0..=most).contains(&self.threshold) {
            return invalid(format!("threshold is {}, expected 0 to {most}", self.threshold));
        }
        if !(1..=WINDOW_MS_MAX).contains(&self.window_ms) {
            return invalid(format!("windowMs is {}, expected 1 to {WINDOW_MS_MAX}", self.window_ms));
        }
        if !(1..=ROWS_MAX).contains(&self.rows_max) {
            return invalid(format!("rowsMax is {}, expected 1 to {ROWS_MAX}", self.rows_max));
        }
        for (what, field) in self.key.iter().map(|key| ("key", key)).chain(self.by.iter().map(|by| ("by", by))) {
            match type_of(field) {
                Some(found) if !found.is_vector() => {}
                Some(_) => return invalid(format!("{what} is {field:?}, which is a vector")),
                None => return invalid(format!("{what} is {field:?}, which is no field of the stream")),
            }
        }
        Ok(())
    }
}

/// The rows that others are compared with, and which rows of the log they are.
pub(super) struct Near {
    spec: PushDedupe,
    recent: Recent<Value>,
    /// By partition, when pieces came that are compared with, and the number of their first row.
    pieces: BTreeMap<u32, VecDeque<(u64, u64)>>,
    /// How many were forgotten before their time.
    pub forgotten: u64,
}

impl Near {
    pub fn new(spec: PushDedupe, relation: &Relation) -> Self {
        let field = relation.position(&spec.field).map(|at| &relation.fields[at]);
        let dim = field.and_then(|field| field.data_type.dim()).unwrap_or_default() as usize;
        let recent = Recent::new(dim, spec.metric, spec.threshold);
        Self { spec, recent, pieces: BTreeMap::new(), forgotten: 0 }
    }

    fn key(&self, row: &Row) -> Box<[u8]> {
        let values: Vec<&Value> = self.spec.by.iter().map(|field| row.get(field).unwrap_or(&Value::Null)).collect();
        serde_json::to_vec(&values).unwrap_or_default().into()
    }

    /// Forgets what is over at `now_ms`.
    pub fn forget(&mut self, now_ms: u64) {
        let from_ms = now_ms.saturating_sub(self.spec.window_ms);
        self.recent.forget(time(from_ms));
        self.pieces.retain(|_, pieces| {
            while pieces.front().is_some_and(|(came_ms, _)| *came_ms < from_ms) {
                pieces.pop_front();
            }
            !pieces.is_empty()
        });
    }

    /// How many rows are kept: where [`Self::take_back`] goes back to.
    pub fn len(&self) -> usize {
        self.recent.len()
    }

    /// Keeps a row that came at `now_ms`, unless it is near to one that is kept: then it tells which.
    pub fn admit(&mut self, number: usize, row: &Row, now_ms: u64) -> Option<NearRow> {
        let Some(Value::Vector(vector)) = row.get(&self.spec.field) else { return None };
        let key = self.key(row);
        if let Some((of, distance)) = self.recent.nearest(&key, vector) {
            return Some(NearRow { row: number, of: of.clone(), distance });
        }
        self.keep(key, row, vector, now_ms);
        None
    }

    fn keep(&mut self, key: Box<[u8]>, row: &Row, vector: &[f32], came_ms: u64) {
        let name = self.spec.key.as_ref().and_then(|key| row.get(key)).cloned().unwrap_or_default();
        // A clock that was put back makes no row older than those before it.
        let at = time(came_ms).max(self.recent.latest().unwrap_or(i64::MIN));
        self.recent.push(at, key, name, vector);
    }

    /// Rows after the first `count` were not written, but for those of `written`.
    pub fn take_back(&mut self, count: usize, written: &[Vec<Row>], now_ms: u64) {
        self.recent.take_back(count);
        for row in written.iter().flatten() {
            if let Some(Value::Vector(vector)) = row.get(&self.spec.field) {
                self.keep(self.key(row), row, vector, now_ms);
            }
        }
    }

    /// What was admitted stays.
    pub fn settle(&mut self) {
        self.forgotten += self.recent.forget_beyond(self.spec.rows_max) as u64;
    }

    /// A piece is in the log.
    pub fn wrote(&mut self, partition: u32, came_ms: u64, first: u64) {
        let pieces = self.pieces.entry(partition).or_default();
        let came_ms = came_ms.max(pieces.back().map_or(0, |(came_ms, _)| *came_ms));
        pieces.push_back((came_ms, first));
    }

    /// Takes the pieces that a log has, each with its partition.
    pub fn recover(&mut self, mut pieces: Vec<(u32, Piece)>, now_ms: u64) {
        let from_ms = now_ms.saturating_sub(self.spec.window_ms);
        // What was written before the stream told the time is of no window.
        pieces.retain(|(_, piece)| piece.came_ms.is_some_and(|came_ms| came_ms >= from_ms));
        pieces.sort_by_key(|(partition, piece)| (piece.came_ms, *partition, piece.first));
        for (partition, piece) in &pieces {
            let came_ms = piece.came_ms.unwrap_or_default();
            self.wrote(*partition, came_ms, piece.first);
            for row in &piece.rows {
                if let Some(Value::Vector(vector)) = row.get(&self.spec.field) {
                    self.keep(self.key(row), row, vector, came_ms);
                }
            }
        }
        self.recent.forget_beyond(self.spec.rows_max);
    }

    /// The first row of a partition that is to be kept for it.
    pub fn floor(&self, partition: u32) -> Option<u64> {
        self.pieces.get(&partition)?.front().map(|(_, first)| *first)
    }
}

fn time(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}
