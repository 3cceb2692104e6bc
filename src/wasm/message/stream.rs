use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::item::Item;
use super::request::{ParameterItems, parameters};
use super::rows::{RowOut, check_row, encode};
use crate::base::{Error, Result};
use crate::db::{SqlRequest, SqlResponse, UnreadRow};
use crate::model::{Field, Row, Value};

/// A query in SQL.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct SqlMessage {
    text: String,
    #[serde(default)]
    params: ParameterItems,
    timeout_ms: Option<f64>,
    #[serde(default)]
    pub(in super::super) bigint: bool,
}

impl SqlMessage {
    pub(in super::super) fn into_request(self) -> Result<SqlRequest> {
        let timeout_ms = self.timeout_ms.map(|ms| ms as u64);
        Ok(SqlRequest { text: self.text, parameters: parameters(self.params)?, timeout_ms })
    }
}

/// Which fields are what MessagePack has no type for, told from the values: rows on their way through a plan have no other vectors than
/// those of floats.
fn serialize_names<'r, M: SerializeMap>(
    map: &mut M,
    rows: impl Iterator<Item = &'r Row>,
    bigint: bool,
) -> Result<(), M::Error> {
    let (mut vectors, mut integers) = (BTreeSet::new(), BTreeSet::new());
    for (name, value) in rows.flatten() {
        match value {
            Value::Vector(_) => drop(vectors.insert(name)),
            Value::Int(_) if bigint => drop(integers.insert(name)),
            _ => {}
        }
    }
    map.serialize_entry("vectors", &vectors)?;
    map.serialize_entry("int8s", &[(); 0])?;
    map.serialize_entry("bits", &[(); 0])?;
    map.serialize_entry("integers", &integers)
}

/// Rows that were not acknowledged: `{ rows: [{ position, row, takenBack }], vectors, int8s, bits, integers }`.
pub(in super::super) struct UnreadOut<'a> {
    pub(in super::super) rows: &'a [UnreadRow],
    pub(in super::super) bigint: bool,
}

impl UnreadOut<'_> {
    /// Its bytes. Errors as of rows.
    pub(in super::super) fn encode(&self) -> Result<Vec<u8>> {
        if !self.bigint {
            self.rows.iter().try_for_each(|unread| check_row(&unread.row))?;
        }
        encode(self)
    }
}

impl Serialize for UnreadOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct One<'a>(&'a UnreadRow);
        impl Serialize for One<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(Some(3))?;
                map.serialize_entry("position", &(self.0.position as f64))?;
                map.serialize_entry("row", &RowOut(&self.0.row))?;
                map.serialize_entry("takenBack", &self.0.taken_back)?;
                map.end()
            }
        }
        let mut map = serializer.serialize_map(Some(5))?;
        serialize_names(&mut map, self.rows.iter().map(|unread| &unread.row), self.bigint)?;
        map.serialize_entry("rows", &self.rows.iter().map(One).collect::<Vec<_>>())?;
        map.end()
    }
}

/// How something is doing, and what it is made of, as JSON. The two are put together in JavaScript: serde would need code for each of both in
/// another form.
#[derive(serde::Serialize)]
pub(in super::super) struct StatusOut<S, P> {
    pub(in super::super) status: S,
    pub(in super::super) spec: P,
}

impl<S: serde::Serialize, P: serde::Serialize> StatusOut<S, P> {
    /// `{ status, spec }`.
    pub(in super::super) fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|error| Error::internal(format!("a status is no JSON: {error}")))
    }
}

/// What a query came to: `{ columns: [{ name, type }], rows, plan, vectors, int8s, bits, integers }`.
pub(in super::super) struct SqlOut<'a> {
    pub(in super::super) response: &'a SqlResponse,
    pub(in super::super) bigint: bool,
}

impl SqlOut<'_> {
    /// Its bytes. Errors as of rows.
    pub(in super::super) fn encode(&self) -> Result<Vec<u8>> {
        if !self.bigint {
            self.response.rows.iter().try_for_each(check_row)?;
        }
        encode(self)
    }
}

impl Serialize for SqlOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let SqlResponse { columns, rows, plan } = self.response;
        let column =
            |field: &Field| BTreeMap::from([("name", field.name.clone()), ("type", field.data_type.name().to_owned())]);
        let mut map = serializer.serialize_map(Some(7))?;
        serialize_names(&mut map, rows.iter(), self.bigint)?;
        map.serialize_entry("columns", &columns.iter().map(column).collect::<Vec<_>>())?;
        map.serialize_entry("rows", &rows.iter().map(RowOut).collect::<Vec<_>>())?;
        map.serialize_entry("plan", plan)?;
        map.end()
    }
}

/// Rows for a function of the host: `{ rows, vectors, int8s, bits, integers }`.
pub(in super::super) struct CallOut<'a> {
    pub(in super::super) rows: &'a [Row],
    pub(in super::super) bigint: bool,
}

impl CallOut<'_> {
    /// Its bytes. Errors as of rows.
    pub(in super::super) fn encode(&self) -> Result<Vec<u8>> {
        if !self.bigint {
            self.rows.iter().try_for_each(check_row)?;
        }
        encode(self)
    }
}

impl Serialize for CallOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        serialize_names(&mut map, self.rows.iter(), self.bigint)?;
        map.serialize_entry("rows", &self.rows.iter().map(RowOut).collect::<Vec<_>>())?;
        map.end()
    }
}

/// What a function of the host says of one row.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerMessage {
    #[serde(default)]
    rows: Vec<BTreeMap<String, Item>>,
    error: Option<String>,
}

/// What it says of each row, with the fields that it promises.
pub(in super::super) fn decode_answers(bytes: &[u8], fields: &[Field]) -> Result<Vec<Result<Vec<Row>>>> {
    let answers: Vec<AnswerMessage> = super::decode("what a function gave", bytes)?;
    let row = |items: BTreeMap<String, Item>| {
        let value = |(name, item): (String, Item)| {
            let data_type = fields.iter().find(|field| field.name == name).map(|field| field.data_type);
            let value = item.into_value(data_type).map_err(|error| error.context(format_args!("field {name:?}")))?;
            Ok((name, value))
        };
        items.into_iter().map(value).collect::<Result<Row>>()
    };
    let answer = |answer: AnswerMessage| match answer.error {
        Some(error) => Err(Error::invalid(error)),
        None => answer.rows.into_iter().map(row).collect(),
    };
    Ok(answers.into_iter().map(answer).collect())
}
