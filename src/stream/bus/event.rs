use std::sync::Arc;

use crate::model::{Key, Row, Value};

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Where it comes from: a source of the bus; of what an aggregate comes to, the handler.
    pub source: Arc<str>,
    /// What it is: `insert`, `update`, `delete` or `read` of a collection, `push` of a push stream, `aggregate`, or what the application says.
    pub kind: Arc<str>,
    /// The key that it is about.
    pub key: Option<Key>,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: u64,
    /// The row after; of a delete that before, where it is told.
    pub row: Row,
    /// The row before, where it is told.
    pub before: Option<Row>,
    /// Of a replay, its number.
    pub replay: Option<u64>,
}

impl Event {
    /// It as a row, for functions and dead letters: the fields of its row, and beside them `$source`, `$kind`, `$key`, `$at` in microseconds,
    /// `$handler`, `$attempt` from 1 on, `$replayed` and `$before`.
    pub fn to_row(&self, handler: &str, attempt: u32) -> Row {
        let mut row = self.row.clone();
        let mut tell = |name: &str, value: Value| drop(row.insert(name.to_owned(), value));
        tell("$source", Value::String((*self.source).to_owned()));
        tell("$kind", Value::String((*self.kind).to_owned()));
        tell("$at", Value::Int(i64::try_from(self.at_ms).unwrap_or(i64::MAX / 1_000).saturating_mul(1_000)));
        tell("$handler", Value::String(handler.to_owned()));
        tell("$attempt", Value::Int(i64::from(attempt)));
        tell("$replayed", Value::Bool(self.replay.is_some()));
        match &self.key {
            Some(Key::Int(key)) => tell("$key", Value::Int(*key)),
            Some(Key::String(key)) => tell("$key", Value::String(key.to_string())),
            None => {}
        }
        if let Some(before) = &self.before {
            tell("$before", Value::Json(serde_json::to_value(before).unwrap_or_default()));
        }
        row
    }

    /// About the bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        let rows = [Some(&self.row), self.before.as_ref()];
        64 + rows.into_iter().flatten().flatten().map(|(name, value)| name.len() + 16 + bytes_of(value)).sum::<usize>()
    }

    pub(super) fn key_text(&self) -> Option<String> {
        self.key.as_ref().map(|key| match key {
            Key::Int(key) => key.to_string(),
            Key::String(key) => key.to_string(),
        })
    }
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Vector(numbers) => 4 * numbers.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Json(json) => json.to_string().len(),
        Value::Array(values) => values.iter().map(bytes_of).sum(),
        _ => 8,
    }
}
