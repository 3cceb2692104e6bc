use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use crate::index::IndexSpec;
use crate::index::terms::{Builder, Finish, Payload, Source, Terms, float_key, int_key, json};
use crate::model::column::{list_json, number_bytes, unpair};
use crate::model::path::value_at;
use crate::model::text::Analyzer;
use crate::model::{self, FieldPath, Schema, Step};

/// What the terms of a field are.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Words.
    Text(Arc<Analyzer>),
    /// Places of a sparse vector.
    Sparse,
    /// Values.
    Scalar,
    /// What stands at a place of JSON, or in arrays.
    Place(Vec<Step>),
}

impl Kind {
    fn payload(&self) -> Payload {
        match self {
            Self::Text(_) => Payload::Text,
            Self::Sparse => Payload::Weights,
            Self::Scalar | Self::Place(_) => Payload::Rows,
        }
    }
}

/// The index of one field of a segment that tells which rows have a term: of all rows, at every time.
#[derive(Debug, Clone)]
pub struct FieldTerms {
    /// What it is named by: the field, or the place in it.
    field: String,
    column: String,
    kind: Kind,
    /// While the segment takes rows, and until somebody writes it.
    builder: Option<Builder>,
    sealed: OnceLock<Terms>,
    /// Whether its segment is in storage without it.
    unsaved: bool,
}

/// The indexes that a schema and its specs call for.
pub(super) fn wanted(schema: &Schema, indexes: &BTreeMap<String, IndexSpec>) -> Vec<FieldTerms> {
    let new = |field: &str, column: &str, kind: Kind| FieldTerms {
        field: field.to_owned(),
        column: column.to_owned(),
        builder: Some(Builder::new(kind.payload())),
        kind,
        sealed: OnceLock::new(),
        unsaved: false,
    };
    let of_field = |field: &model::Field| {
        let indexed = indexes.get(&field.name).is_some_and(|spec| spec.kind.is_terms());
        let kind = match (field.data_type, &field.analyzer) {
            (_, Some(analyzer)) => Kind::Text(analyzer.clone()),
            (model::DataType::SparseFloatVector, _) if indexed => Kind::Sparse,
            (model::DataType::Json | model::DataType::Array { .. }, _) if indexed => Kind::Place(Vec::new()),
            _ if indexed => Kind::Scalar,
            _ => return None,
        };
        Some(new(&field.name, &field.name, kind))
    };
    let of_place = |name: &String| {
        let path = FieldPath::parse(name).ok().filter(|path| !path.steps.is_empty())?;
        Some(new(name, &path.column, Kind::Place(path.steps)))
    };
    schema.fields().iter().filter_map(of_field).chain(indexes.keys().filter_map(of_place)).collect()
}

impl FieldTerms {
    /// What it is named by: the field, or the place in it.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The column whose values it knows.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Whether it is of that place in a column.
    pub(super) fn is_of(&self, column: &str, steps: &[Step]) -> bool {
        let own = if let Kind::Place(steps) = &self.kind { steps.as_slice() } else { &[] };
        self.column == column && own == steps
    }

    /// What can be asked.
    pub fn source(&self) -> Source<'_> {
        match (&self.builder, self.sealed.get()) {
            (_, Some(terms)) => Source::Sealed(terms),
            (Some(builder), None) => Source::Growing(builder),
            (None, None) => unreachable!("an index grows or is sealed"),
        }
    }

    /// Whether it is of the same field, and tells the same.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        (&self.field, &self.kind) == (&other.field, &other.kind)
    }

    /// Whether it is one of words, which each segment has at every time.
    pub(super) fn is_text(&self) -> bool {
        self.kind.payload() == Payload::Text
    }

    /// The rows that it knows: the first ones.
    pub(super) fn rows(&self) -> usize {
        self.source().rows()
    }

    /// Notes that its segment is in storage without it.
    pub(super) fn note_unsaved(&mut self) {
        self.unsaved = true;
    }

    /// Whether its segment is in storage without it.
    pub(super) fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    /// Whether its index is of that payload and so many rows.
    pub(super) fn fits(&self, terms: &Terms, rows: usize) -> bool {
        terms.payload() == self.kind.payload() && terms.rows() == rows
    }

    /// Is `terms` from now on.
    pub(super) fn open(&mut self, terms: Terms) {
        self.builder = None;
        self.sealed = OnceLock::from(terms);
    }

    /// The index as it is written; it takes no more rows.
    pub(super) fn seal(&self) -> &Terms {
        self.sealed.get_or_init(|| self.builder.as_ref().expect("an index grows or is sealed").finish())
    }

    /// Makes the index as it is written, about so many bytes of it; tells whether that was all.
    pub(super) fn seal_some(&self, finish: &mut Option<Finish>, bytes_max: usize) -> bool {
        let Some(builder) = self.builder.as_ref().filter(|_| self.sealed.get().is_none()) else { return true };
        let begun = finish.get_or_insert_with(|| builder.begin_finish());
        let Some(terms) = builder.finish_some(begun, bytes_max) else { return false };
        *finish = None;
        // Whoever was first has said the same.
        let _ = self.sealed.set(terms);
        true
    }

    /// Lets go of what it was built by.
    pub(super) fn settle(&mut self) {
        if self.sealed.get().is_some() {
            self.builder = None;
            self.unsaved = false;
        }
    }

    /// Adds rows.
    pub(super) fn push(&mut self, column: &ArrayRef) {
        let builder = self.builder.as_mut().expect("only a growing segment takes rows");
        let valid = |row: usize| column.is_valid(row);
        match &self.kind {
            Kind::Text(analyzer) => {
                let text = column.as_string::<i32>();
                (0..text.len()).for_each(|row| builder.push_text(analyzer, valid(row).then(|| text.value(row))));
            }
            Kind::Sparse => {
                let lists = column.as_list::<i32>();
                let pairs = number_bytes(lists.values()).expect("pairs are numbers");
                let pairs = pairs.typed_data::<u64>();
                for row in 0..lists.len() {
                    let range = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
                    let mut weights = pairs[range].iter().map(|&pair| unpair(pair));
                    builder.push_weights(if valid(row) { Some(&mut weights) } else { None });
                }
            }
            Kind::Place(steps) => {
                let mut keys = Vec::new();
                for row in 0..column.len() {
                    let is_value = if let Some(texts) = column.as_string_opt::<i32>() {
                        match valid(row).then(|| serde_json::from_str(texts.value(row))).transpose() {
                            Ok(value) => json::keys(value.as_ref().and_then(|value| value_at(value, steps)), &mut keys),
                            Err(_) => {
                                keys.push(json::BROKEN.to_vec());
                                false
                            }
                        }
                    } else {
                        json::keys(list_json(column, row).as_ref(), &mut keys)
                    };
                    builder.push_keys(&mut keys, is_value);
                }
            }
            Kind::Scalar => {
                for row in 0..column.len() {
                    if valid(row) {
                        with_key(column, row, &mut |key| builder.push_key(Some(key)));
                    } else {
                        builder.push_key(None);
                    }
                }
            }
        }
    }

    /// The bytes held in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.builder.as_ref().map_or(0, Builder::memory_bytes)
            + self.sealed.get().map_or(0, |terms| terms.bytes().len())
    }
}

/// Calls `each` with the key of a value.
fn with_key(column: &ArrayRef, row: usize, each: &mut dyn FnMut(&[u8])) {
    let int = match column.data_type() {
        DataType::Boolean => return each(&[u8::from(column.as_boolean().value(row))]),
        DataType::Float32 => return each(&float_key(f64::from(column.as_primitive::<Float32Type>().value(row)))),
        DataType::Float64 => return each(&float_key(column.as_primitive::<Float64Type>().value(row))),
        DataType::Int8 => i64::from(column.as_primitive::<Int8Type>().value(row)),
        DataType::Int16 => i64::from(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => i64::from(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row),
        DataType::Timestamp(..) => column.as_primitive::<TimestampMicrosecondType>().value(row),
        _ => return each(column.as_string::<i32>().value(row).as_bytes()),
    };
    each(&int_key(int));
}
