use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use crate::index::IndexSpec;
use crate::index::terms::{Builder, Payload, Source, Terms, float_key, int_key};
use crate::model::column::{number_bytes, unpair};
use crate::model::text::Analyzer;
use crate::model::{self, Schema};

/// What the terms of a field are.
#[derive(Debug, Clone, PartialEq)]
enum Kind {
    /// Words.
    Text(Arc<Analyzer>),
    /// Places of a sparse vector.
    Sparse,
    /// Values.
    Scalar,
}

impl Kind {
    fn payload(&self) -> Payload {
        match self {
            Self::Text(_) => Payload::Text,
            Self::Sparse => Payload::Weights,
            Self::Scalar => Payload::Rows,
        }
    }
}

/// The index of one field of a segment that tells which rows have a term: of all rows, at every time.
#[derive(Debug, Clone)]
pub struct FieldTerms {
    field: String,
    kind: Kind,
    /// While the segment takes rows, and until somebody writes it.
    builder: Option<Builder>,
    sealed: OnceLock<Terms>,
}

/// The indexes that a schema and its specs call for.
pub(super) fn wanted(schema: &Schema, indexes: &BTreeMap<String, IndexSpec>) -> Vec<FieldTerms> {
    let of_field = |field: &model::Field| {
        let indexed = indexes.get(&field.name).is_some_and(|spec| spec.kind.is_terms());
        let kind = match (field.data_type, &field.analyzer) {
            (_, Some(analyzer)) => Kind::Text(analyzer.clone()),
            (model::DataType::SparseFloatVector, _) if indexed => Kind::Sparse,
            _ if indexed => Kind::Scalar,
            _ => return None,
        };
        let builder = Some(Builder::new(kind.payload()));
        Some(FieldTerms { field: field.name.clone(), kind, builder, sealed: OnceLock::new() })
    };
    schema.fields().iter().filter_map(of_field).collect()
}

impl FieldTerms {
    /// The field.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What can be asked.
    pub fn source(&self) -> Source<'_> {
        match (&self.builder, self.sealed.get()) {
            (_, Some(terms)) => Source::Sealed(terms),
            (Some(builder), None) => Source::Growing(builder),
            (None, None) => unreachable!("an index grows or is sealed"),
        }
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

    /// Lets go of what it was built by.
    pub(super) fn settle(&mut self) {
        if self.sealed.get().is_some() {
            self.builder = None;
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
