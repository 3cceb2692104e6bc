use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;

use super::item::{Item, SAFE_INTEGER_MAX};
use crate::base::{Error, Result, message};
use crate::db::{Change, ChangeBatch, Difference, Hit, LiveHit, SearchResponse};
use crate::model::{DataType, Element, Field, Key, Row, Schema, Value};

/// The rows in `bytes`, each value read as its field's type; the model checks them afterwards. Of `columns`, floats of one field each,
/// those that the model takes as columns stay so; the others become parts of the rows.
///
/// # Errors
/// `InvalidArgument` when the bytes are no array of maps, or a value is none that a field could have.
pub(in super::super) fn decode_rows(schema: &Schema, bytes: &[u8], columns: &[(&str, &[u8])]) -> Result<Vec<Row>> {
    let mut deserializer = message::Decoder::<false>::new(bytes);
    let rows = RowsSeed { schema }.deserialize(&mut deserializer);
    let mut rows = rows.map_err(|error| Error::invalid(error.to_string()))?;
    for (name, bytes) in columns {
        let field = schema.field(name);
        if !field.is_some_and(Field::is_apart) {
            let width = bytes.len() / rows.len().max(1) / 4 * 4;
            for (row, vector) in rows.iter_mut().zip(bytes.chunks_exact(width.max(4))) {
                let value = Item::Bytes(vector.to_owned()).into_value(field.map(|field| field.data_type))?;
                row.insert((*name).to_owned(), value);
            }
        }
    }
    Ok(rows)
}

struct RowsSeed<'s> {
    schema: &'s Schema,
}

impl<'de> DeserializeSeed<'de> for RowsSeed<'_> {
    type Value = Vec<Row>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Row>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for RowsSeed<'_> {
    type Value = Vec<Row>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Row>, A::Error> {
        let mut rows = Vec::new();
        while let Some(row) = items.next_element_seed(RowSeed { schema: self.schema, row: rows.len() })? {
            rows.push(row);
        }
        Ok(rows)
    }
}

struct RowSeed<'s> {
    schema: &'s Schema,
    row: usize,
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Row;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Row, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Row;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} to be an object", self.row)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Row, A::Error> {
        let mut row = Row::new();
        while let Some((name, item)) = entries.next_entry::<String, Item>()? {
            let data_type = self.schema.field(&name).map(|field| field.data_type);
            let value = item
                .into_value(data_type)
                .map_err(|error| serde::de::Error::custom(format_args!("row {}: field {name:?}: {error}", self.row)))?;
            row.insert(name, value);
        }
        Ok(row)
    }
}

/// Rows on their way out: `{ rows, vectors, int8s, bits, integers }`, where the others name the dense vectors, those of them that
/// JavaScript has an `Int8Array` or a `Uint8Array` of instead of a `Float32Array`, and, for a `bigint` request, what becomes
/// `bigint`.
pub(in super::super) struct RowsMessage<'a> {
    schema: &'a Schema,
    rows: &'a [Row],
    bigint: bool,
}

impl<'a> RowsMessage<'a> {
    /// The message of `rows`.
    ///
    /// # Errors
    /// `InvalidArgument` for an integer that a JavaScript number cannot hold, unless `bigint`.
    pub(in super::super) fn new(schema: &'a Schema, rows: &'a [Row], bigint: bool) -> Result<Self> {
        if !bigint {
            rows.iter().try_for_each(check_row)?;
        }
        Ok(Self { schema, rows, bigint })
    }

    /// Its bytes.
    pub(in super::super) fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }
}

impl Serialize for RowsMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(5))?;
        serialize_field_names(&mut map, self.schema, self.bigint)?;
        map.serialize_entry("rows", &self.rows.iter().map(RowOut).collect::<Vec<_>>())?;
        map.end()
    }
}

/// A search's hits: `{ hits: [{ key, score, row }], rowsScanned, segmentsByIndex, segmentsByScan, ms, vectors, integers }`.
pub(in super::super) struct SearchResponseMessage<'a> {
    schema: &'a Schema,
    response: &'a SearchResponse,
    ms: f64,
    bigint: bool,
}

impl<'a> SearchResponseMessage<'a> {
    /// The message of `response`. Errors as in [`RowsMessage::new`].
    pub(in super::super) fn new(
        schema: &'a Schema,
        response: &'a SearchResponse,
        ms: f64,
        bigint: bool,
    ) -> Result<Self> {
        if !bigint {
            for hit in response.hits.iter().chain(response.results.iter().flatten()) {
                check_key(&hit.key)?;
                check_row(&hit.row)?;
            }
        }
        Ok(Self { schema, response, ms, bigint })
    }

    /// Its bytes.
    pub(in super::super) fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }
}

impl Serialize for SearchResponseMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let covered = self.response.covered;
        let entries = 9 + usize::from(!self.response.results.is_empty()) + usize::from(covered.is_some());
        let mut map = serializer.serialize_map(Some(entries))?;
        serialize_field_names(&mut map, self.schema, self.bigint)?;
        map.serialize_entry("hits", &self.response.hits.iter().map(HitOut).collect::<Vec<_>>())?;
        if !self.response.results.is_empty() {
            let results = self.response.results.iter().map(|hits| hits.iter().map(HitOut).collect::<Vec<_>>());
            map.serialize_entry("results", &results.collect::<Vec<_>>())?;
        }
        map.serialize_entry("rowsScanned", &(self.response.rows_scanned as f64))?;
        map.serialize_entry("segmentsByIndex", &(self.response.segments_by_index as f64))?;
        map.serialize_entry("segmentsByScan", &(self.response.segments_by_scan as f64))?;
        if let Some(covered) = covered {
            map.serialize_entry("covered", &covered)?;
        }
        map.serialize_entry("ms", &self.ms)?;
        map.end()
    }
}

pub(super) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    rmp_serde::to_vec_named(message).map_err(|error| Error::internal(format!("a response was not encoded: {error}")))
}

fn serialize_field_names<M: SerializeMap>(map: &mut M, schema: &Schema, bigint: bool) -> Result<(), M::Error> {
    let names = |wanted: fn(DataType) -> bool| -> Vec<&str> {
        schema.fields().iter().filter(|field| wanted(field.data_type)).map(|field| field.name.as_str()).collect()
    };
    map.serialize_entry("vectors", &names(|data_type| data_type.dim().is_some()))?;
    map.serialize_entry("int8s", &names(|data_type| matches!(data_type, DataType::Int8Vector { .. })))?;
    map.serialize_entry("bits", &names(|data_type| matches!(data_type, DataType::BinaryVector { .. })))?;
    let integers = if bigint { names(is_wide) } else { Vec::new() };
    map.serialize_entry("integers", &integers)
}

/// Whether its values, or those in it, may be past what JavaScript's numbers hold.
fn is_wide(data_type: DataType) -> bool {
    matches!(
        data_type,
        DataType::Int64 | DataType::Timestamp | DataType::Array { element: Element::Int64 | Element::Timestamp, .. }
    )
}

fn check_integer(value: i64, name: &str) -> Result<()> {
    if value.unsigned_abs() > SAFE_INTEGER_MAX {
        return Err(Error::invalid(format!(
            "field {name:?} holds {value}, which a JavaScript number cannot hold exactly: open the database with bigint: true"
        )));
    }
    Ok(())
}

fn check_key(key: &Key) -> Result<()> {
    match key {
        Key::Int(key) => check_integer(*key, "primary key"),
        Key::String(_) => Ok(()),
    }
}

pub(super) fn check_row(row: &Row) -> Result<()> {
    fn check(name: &str, value: &Value) -> Result<()> {
        match value {
            Value::Int(value) => check_integer(*value, name),
            Value::Array(values) => values.iter().try_for_each(|value| check(name, value)),
            _ => Ok(()),
        }
    }
    row.iter().try_for_each(|(name, value)| check(name, value))
}

/// Changes: `{ changes: [{ op, key, before, after, version, lsn }], token, grown, caughtUp, vectors, int8s, bits, integers }`.
pub(in super::super) struct ChangesOut<'a> {
    schema: &'a Schema,
    batch: &'a ChangeBatch,
    bigint: bool,
}

impl<'a> ChangesOut<'a> {
    /// The message of `batch`. Errors as in [`RowsMessage::new`].
    pub(in super::super) fn new(schema: &'a Schema, batch: &'a ChangeBatch, bigint: bool) -> Result<Self> {
        if !bigint {
            for change in &batch.changes {
                check_key(&change.key)?;
                change.before.iter().chain(&change.after).try_for_each(check_row)?;
            }
        }
        Ok(Self { schema, batch, bigint })
    }

    /// Its bytes.
    pub(in super::super) fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }
}

impl Serialize for ChangesOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(8))?;
        serialize_field_names(&mut map, self.schema, self.bigint)?;
        map.serialize_entry("changes", &self.batch.changes.iter().map(ChangeOut).collect::<Vec<_>>())?;
        map.serialize_entry("token", &self.batch.token.map(|token| token.to_string()))?;
        map.serialize_entry("grown", &self.batch.schema.is_some())?;
        map.serialize_entry("caughtUp", &self.batch.is_caught_up)?;
        map.end()
    }
}

/// What became of an answer: `{ id, lsn, answer: [hit], differences: [{ op, index, from, … hit }], vectors, int8s, bits, integers }`,
/// where a hit is `{ key, score, row, version }`.
pub(in super::super) struct LiveOut<'a> {
    pub(in super::super) schema: &'a Schema,
    pub(in super::super) id: u64,
    pub(in super::super) lsn: u64,
    pub(in super::super) answer: &'a [LiveHit],
    pub(in super::super) differences: &'a [Difference],
    pub(in super::super) bigint: bool,
}

impl LiveOut<'_> {
    /// Its bytes. Errors as in [`RowsMessage::new`].
    pub(in super::super) fn encode(&self) -> Result<Vec<u8>> {
        if !self.bigint {
            let hit = |difference| match difference {
                &Difference::Left(..) => None,
                Difference::Entered(_, hit) | Difference::Moved(_, _, hit) | Difference::Changed(_, hit) => Some(hit),
            };
            for hit in self.answer.iter().chain(self.differences.iter().filter_map(hit)) {
                check_key(&hit.key)?;
                check_row(&hit.row)?;
            }
        }
        encode(self)
    }
}

impl Serialize for LiveOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(8))?;
        serialize_field_names(&mut map, self.schema, self.bigint)?;
        map.serialize_entry("id", &(self.id as f64))?;
        map.serialize_entry("lsn", &(self.lsn as f64))?;
        map.serialize_entry("answer", &self.answer.iter().map(|hit| LiveHitOut(None, hit)).collect::<Vec<_>>())?;
        let differences = self.differences.iter().map(|difference| match difference {
            Difference::Left(at, key) => DifferenceOut::Left(*at, key),
            Difference::Entered(at, hit) => DifferenceOut::Other(LiveHitOut(Some(("entered", *at, None)), hit)),
            Difference::Moved(from, at, hit) => {
                DifferenceOut::Other(LiveHitOut(Some(("moved", *at, Some(*from))), hit))
            }
            Difference::Changed(at, hit) => DifferenceOut::Other(LiveHitOut(Some(("changed", *at, None)), hit)),
        });
        map.serialize_entry("differences", &differences.collect::<Vec<_>>())?;
        map.end()
    }
}

enum DifferenceOut<'a> {
    Left(usize, &'a Key),
    Other(LiveHitOut<'a>),
}

impl Serialize for DifferenceOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Left(at, key) => {
                let mut map = serializer.serialize_map(Some(3))?;
                map.serialize_entry("op", "left")?;
                map.serialize_entry("index", at)?;
                map.serialize_entry("key", key)?;
                map.end()
            }
            Self::Other(hit) => hit.serialize(serializer),
        }
    }
}

/// A row of an answer, and what happened to it, where to, where from.
struct LiveHitOut<'a>(Option<(&'static str, usize, Option<usize>)>, &'a LiveHit);

impl Serialize for LiveHitOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(what, LiveHit { key, score, row, version }) = self;
        let count = 4 + what.map_or(0, |(.., from)| 2 + usize::from(from.is_some()));
        let mut map = serializer.serialize_map(Some(count))?;
        if let Some((op, index, from)) = what {
            map.serialize_entry("op", op)?;
            map.serialize_entry("index", index)?;
            if let Some(from) = from {
                map.serialize_entry("from", from)?;
            }
        }
        map.serialize_entry("key", key)?;
        map.serialize_entry("score", &f64::from(*score))?;
        map.serialize_entry("row", &RowOut(row))?;
        map.serialize_entry("version", version)?;
        map.end()
    }
}

/// One change.
struct ChangeOut<'a>(&'a Change);

impl Serialize for ChangeOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Change { kind, key, before, after, version, lsn } = self.0;
        let count = 4 + usize::from(before.is_some()) + usize::from(after.is_some());
        let mut map = serializer.serialize_map(Some(count))?;
        map.serialize_entry("op", kind.as_str())?;
        map.serialize_entry("key", key)?;
        map.serialize_entry("version", &version.to_string())?;
        map.serialize_entry("lsn", &(lsn.0 as f64))?;
        for (name, row) in [("before", before), ("after", after)] {
            if let Some(row) = row {
                map.serialize_entry(name, &RowOut(row))?;
            }
        }
        map.end()
    }
}

/// One row as a map.
pub(super) struct RowOut<'a>(pub(super) &'a Row);

impl Serialize for RowOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, ValueOut(value))))
    }
}

/// One hit as `{ key, score, row }`, with `highlights` where there are some.
struct HitOut<'a>(&'a Hit);

impl Serialize for HitOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Hit { key, score, row, highlights } = self.0;
        let mut map = serializer.serialize_map(Some(3 + usize::from(!highlights.is_empty())))?;
        map.serialize_entry("key", key)?;
        map.serialize_entry("score", &f64::from(*score))?;
        map.serialize_entry("row", &RowOut(row))?;
        if !highlights.is_empty() {
            map.serialize_entry("highlights", highlights)?;
        }
        map.end()
    }
}

/// One value.
pub(super) struct ValueOut<'a>(pub(super) &'a Value);

impl Serialize for ValueOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f32(*value),
            Value::Double(value) => serializer.serialize_f64(*value),
            Value::String(value) => serializer.serialize_str(value),
            Value::Json(value) => JsonOut(value).serialize(serializer),
            Value::Array(values) => serializer.collect_seq(values.iter().map(ValueOut)),
            Value::Vector(numbers) => {
                let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                serializer.serialize_bytes(&bytes)
            }
            Value::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Value::Sparse(pairs) => {
                serializer.collect_map(pairs.iter().map(|(index, value)| (index.to_string(), value)))
            }
        }
    }
}

/// JSON as JavaScript's own parser reads it: an integer past 32 bits is a double, never a `bigint`.
struct JsonOut<'a>(&'a Json);

impl Serialize for JsonOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Number(number) => match number.as_i64().map(i32::try_from) {
                Some(Ok(small)) => serializer.serialize_i32(small),
                _ => serializer.serialize_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::Array(items) => serializer.collect_seq(items.iter().map(JsonOut)),
            Json::Object(entries) => serializer.collect_map(entries.iter().map(|(name, value)| (name, JsonOut(value)))),
            plain => plain.serialize(serializer),
        }
    }
}
