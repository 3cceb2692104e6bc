use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use super::checkpoint::SinkWrite;
use crate::base::{Error, Result, Version};
use crate::db::Collection;
use crate::engine::{ChangeSet, CollectionSpec};
use crate::model::{Batch, DataType, Field, Key, Row, Schema, Value};
use crate::query::compute::canonical;
use crate::stream::{Relation, Rows, Sink as SinkSpec};

const TEXT: DataType = DataType::Varchar { max_length: 65_535 };
/// How many rows one write has at most. More would be a frame of the log that is long to read.
const WRITE_ROWS_MAX: usize = 4_096;
/// About how many bytes.
const WRITE_BYTES_MAX: usize = 16 << 20;
/// The field that dead letters are told apart by.
const LETTER_KEY: &str = "row";
/// The longest text of a row that is told in a dead letter, in bytes.
const LETTER_BYTES_MAX: usize = 60_000;

/// How a sink's rows are told apart in their collection.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum KeyOf {
    /// By one of their fields.
    Field(String),
    /// By the JSON array of some fields.
    Fields(String, Vec<String>),
    /// They are not: each gets the next number.
    Number(String),
    /// Dead letters of a pipeline, by its id and their number.
    Letters(u64),
}

impl KeyOf {
    fn name(&self) -> &str {
        match self {
            Self::Field(name) | Self::Fields(name, _) | Self::Number(name) => name,
            Self::Letters(_) => LETTER_KEY,
        }
    }
}

/// A name that no field has.
fn free_name(relation: &Relation, name: &str) -> String {
    let mut name = name.to_owned();
    while relation.position(&name).is_some() {
        name.push('_');
    }
    name
}

/// The collection that rows of `relation` can go into, told apart by `sink.keys`.
pub(super) fn derive(sink: &SinkSpec, relation: &Relation) -> Result<CollectionSpec> {
    check_changing(sink, relation)?;
    let key = match &sink.keys[..] {
        [one] if is_key(relation, one) => KeyOf::Field(one.clone()),
        [] => KeyOf::Number(free_name(relation, "row")),
        keys => KeyOf::Fields(free_name(relation, "key"), keys.to_vec()),
    };
    let mut fields = vec![];
    match &key {
        KeyOf::Field(_) | KeyOf::Letters(_) => {}
        KeyOf::Fields(name, _) => fields.push(Field::new(name, TEXT)),
        KeyOf::Number(name) => fields.push(Field::new(name, DataType::Int64)),
    }
    fields.extend(relation.fields.iter().cloned());
    let schema = Schema::new(fields, key.name(), false)?;
    CollectionSpec { schema: Arc::new(schema), indexes: BTreeMap::new(), options: Default::default() }.completed()
}

fn is_key(relation: &Relation, name: &str) -> bool {
    let field = relation.position(name).map(|at| &relation.fields[at]);
    field.is_some_and(|field| !field.nullable && matches!(field.data_type, DataType::Int64 | DataType::Varchar { .. }))
}

fn check_changing(sink: &SinkSpec, relation: &Relation) -> Result<()> {
    if (relation.retracts || relation.updates) && sink.keys.is_empty() {
        return Err(Error::invalid(
            "its rows may be taken back: name the fields by which they are told apart, as the sink's keys (in SQL: have them among those of `SELECT`)",
        ));
    }
    Ok(())
}

/// How rows of `relation` are told apart in a collection that is there.
///
/// # Errors
/// `InvalidArgument` when they do not fit into it.
pub(super) fn key_in(sink: &SinkSpec, relation: &Relation, schema: &Schema) -> Result<KeyOf> {
    check_changing(sink, relation)?;
    let primary = schema.primary_key();
    if schema.auto_id() {
        return Err(Error::invalid(format!(
            "its primary key `{}` is made by the collection, expected one of the rows",
            primary.name
        )));
    }
    for field in &relation.fields {
        match schema.field(&field.name) {
            Some(there) if canonical(there.data_type) == Some(field.data_type) => {}
            Some(there) => {
                return Err(Error::invalid(format!(
                    "its field `{}` is {}, the rows have {}",
                    field.name,
                    there.data_type.name(),
                    field.data_type.name()
                )));
            }
            None if schema.dynamic() => {}
            None => return Err(Error::invalid(format!("it has no field `{}`, which the rows have", field.name))),
        }
    }
    for field in schema.fields() {
        let is_given = relation.position(&field.name).is_some() || field.name == primary.name;
        if !is_given && !field.nullable && field.default.is_none() {
            return Err(Error::invalid(format!(
                "its field `{}` is wanted of every row, and the rows have none",
                field.name
            )));
        }
    }
    let is_text = matches!(primary.data_type, DataType::Varchar { .. });
    let key = match &sink.keys[..] {
        [] if relation.position(&primary.name).is_some() => KeyOf::Field(primary.name.clone()),
        [one] if *one == primary.name => KeyOf::Field(primary.name.clone()),
        [] if !is_text => KeyOf::Number(primary.name.clone()),
        keys if is_text && !keys.is_empty() && relation.position(&primary.name).is_none() => {
            KeyOf::Fields(primary.name.clone(), keys.to_vec())
        }
        keys => {
            return Err(Error::invalid(format!(
                "its primary key is `{}`, the rows are told apart by {}",
                primary.name,
                if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") }
            )));
        }
    };
    Ok(key)
}

/// Dead letters. Whoever puts them there says so in their key, so that none takes the place of another's.
pub(super) fn letters_spec() -> Result<CollectionSpec> {
    let fields = vec![
        Field::new(LETTER_KEY, TEXT),
        Field::new("pipeline", TEXT),
        Field::new("node", TEXT),
        Field::new("reason", TEXT),
        Field::new("content", DataType::Json).nullable(),
        Field::new("at", DataType::Timestamp),
    ];
    let schema = Arc::new(Schema::new(fields, LETTER_KEY, false)?);
    CollectionSpec { schema, indexes: BTreeMap::new(), options: Default::default() }.completed()
}

/// That a collection has the fields of [`letters_spec`]. Of those that were made before keys were texts the key is a number.
pub(super) fn letters_fit(collection: &Collection) -> Result<()> {
    let spec = letters_spec()?;
    let there = &collection.spec().schema;
    for field in spec.schema.fields() {
        let fits = |other: &Field| {
            other.data_type == field.data_type || field.name == LETTER_KEY && other.data_type == DataType::Int64
        };
        if !there.field(&field.name).is_some_and(fits) {
            return Err(Error::invalid(format!(
                "collection {:?} takes no dead letters: expected a field `{}` of type {}",
                collection.name(),
                field.name,
                field.data_type.name()
            )));
        }
    }
    Ok(())
}

/// Gives a dead letter its key, and tells it. Where keys are numbers, it is a hash of the text, beyond the numbers that were given out before.
pub(super) fn put_letter_key(letter: &mut Row, text: String, schema: &Schema) -> Key {
    let (key, value) = if schema.field(LETTER_KEY).is_some_and(|field| field.data_type == DataType::Int64) {
        let number = (1 << 62 | siphasher::sip::SipHasher24::new().hash(text.as_bytes()) >> 2) as i64;
        (Key::Int(number), Value::Int(number))
    } else {
        (Key::from(text.as_str()), Value::String(text))
    };
    letter.insert(LETTER_KEY.to_owned(), value);
    key
}

/// A row that was not taken.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub node: String,
    pub reason: String,
    pub row: Row,
}

impl Letter {
    pub fn into_row(self, pipeline: &str, now: i64) -> Row {
        let value = |value: &Value| serde_json::to_value(value).unwrap_or(Json::Null);
        let content: Json = Json::Object(self.row.iter().map(|(name, one)| (name.clone(), value(one))).collect());
        let fits = content.to_string().len() <= LETTER_BYTES_MAX;
        let mut reason = self.reason;
        let end = (0..=LETTER_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or_default());
        Row::from([
            ("pipeline".to_owned(), Value::String(pipeline.to_owned())),
            ("node".to_owned(), Value::String(self.node)),
            ("reason".to_owned(), Value::String(reason)),
            ("content".to_owned(), if fits { Value::Json(content) } else { Value::Null }),
            ("at".to_owned(), Value::Int(now)),
        ])
    }
}

/// Where rows of a sink go, and those that wait for the next checkpoint: of each key, what it comes to.
pub(super) struct Sink {
    /// The number of its node in the plan, or [`SinkWrite::DEAD_LETTERS`].
    pub node: u32,
    pub name: String,
    pub collection: Collection,
    pub key: KeyOf,
    pub next_row: u64,
    pub clears: bool,
    staged: BTreeMap<Key, Option<Row>>,
    pub rows: u64,
}

impl Sink {
    pub fn new(node: u32, name: &str, collection: Collection, key: KeyOf, next_row: u64) -> Self {
        let name = name.to_owned();
        Self { node, name, collection, key, next_row, clears: false, staged: BTreeMap::new(), rows: 0 }
    }

    pub fn len(&self) -> usize {
        self.staged.len()
    }

    pub fn is_empty(&self) -> bool {
        self.staged.is_empty() && !self.clears
    }

    /// Takes rows, in order.
    pub fn stage(&mut self, rows: &Rows, relation: &Relation) -> Vec<Letter> {
        let mut letters = vec![];
        for (at, row) in rows.to_rows(relation).into_iter().enumerate() {
            letters.extend(self.stage_row(row, rows.is_retraction(at)));
        }
        letters
    }

    pub fn stage_row(&mut self, mut row: Row, taken_back: bool) -> Option<Letter> {
        let key = match &self.key {
            KeyOf::Field(name) => match row.get(name) {
                Some(Value::Int(int)) => Key::Int(*int),
                Some(Value::String(text)) => Key::from(text.as_str()),
                _ => {
                    let reason = format!("its key `{name}` is null");
                    return Some(Letter { node: self.name.clone(), reason, row });
                }
            },
            KeyOf::Fields(name, fields) => {
                let value = |field: &String| serde_json::to_value(row.get(field).unwrap_or(&Value::Null));
                let values: Vec<Json> = fields.iter().map(|field| value(field).unwrap_or(Json::Null)).collect();
                let text = Json::Array(values).to_string();
                row.insert(name.clone(), Value::String(text.clone()));
                Key::from(text.as_str())
            }
            KeyOf::Number(name) => {
                let number = self.next_row as i64;
                self.next_row += 1;
                row.insert(name.clone(), Value::Int(number));
                Key::Int(number)
            }
            KeyOf::Letters(pipeline) => {
                let text = format!("{pipeline:016x}-{:016x}", self.next_row);
                self.next_row += 1;
                put_letter_key(&mut row, text, &self.collection.spec().schema)
            }
        };
        self.rows += 1;
        if !taken_back {
            self.staged.insert(key, Some(row));
        } else if !matches!(self.staged.get(&key), Some(Some(newer)) if *newer != row) {
            // What has replaced it already stays.
            self.staged.insert(key, None);
        }
        None
    }

    /// What waits, as writes with the numbers after `number`, and the rows that the collection would not take.
    pub fn take(&mut self, number: &mut u64) -> Result<(Vec<SinkWrite>, Vec<Letter>)> {
        let schema = self.collection.spec().schema.clone();
        let (mut writes, mut letters) = (vec![], vec![]);
        let mut part: (Vec<Row>, Vec<Key>, usize) = Default::default();
        let staged = std::mem::take(&mut self.staged);
        let mut clears = std::mem::take(&mut self.clears);
        let mut end =
            |(rows, deletes, _): (Vec<Row>, Vec<Key>, usize), clears: bool, letters: &mut Vec<Letter>| -> Result<()> {
                let puts = match Batch::from_rows(&schema, rows.clone()) {
                    Ok(puts) => puts,
                    Err(_) => {
                        let mut good = vec![];
                        for row in rows {
                            match Batch::from_rows(&schema, vec![row.clone()]) {
                                Ok(_) => good.push(row),
                                Err(error) => letters.push(Letter {
                                    node: self.name.clone(),
                                    reason: format!("collection {:?}: {}", self.collection.name(), error.message()),
                                    row,
                                }),
                            }
                        }
                        Batch::from_rows(&schema, good)?
                    }
                };
                let mut changes = ChangeSet::empty(&schema);
                changes.put_versions = vec![Version::default(); puts.len()];
                changes.puts = puts;
                changes.deletes = deletes.into_iter().map(|key| (key, Version::default())).collect();
                if changes.is_empty() && !clears {
                    return Ok(());
                }
                *number += 1;
                writes.push(SinkWrite { node: self.node, number: *number, clears, changes: changes.encode() });
                Ok(())
            };
        for (key, row) in staged {
            match row {
                Some(row) => {
                    part.2 += row.values().map(bytes_of).sum::<usize>();
                    part.0.push(row);
                }
                None => part.1.push(key),
            }
            if part.0.len() + part.1.len() >= WRITE_ROWS_MAX || part.2 >= WRITE_BYTES_MAX {
                end(std::mem::take(&mut part), std::mem::take(&mut clears), &mut letters)?;
            }
        }
        end(part, clears, &mut letters)?;
        Ok((writes, letters))
    }
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Vector(numbers) => 4 * numbers.len(),
        Value::Json(json) => json.to_string().len(),
        _ => 8,
    }
}
