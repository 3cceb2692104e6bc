use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::base::{Error, Result};
use crate::distance::Metric;
use crate::engine::CollectionSpec;
use crate::index::{IndexKind, IndexSpec};
use crate::model::{DataType, Field, PARTITION_COLUMN, Schema};

/// A list of numbers at least this long in every row is taken for a vector without being named.
const VECTOR_DIM_MIN: usize = 8;
/// The longest text that a field can hold.
const VARCHAR_LENGTH_MAX: u32 = 65_535;

/// What the values of one column have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Guess {
    kind: Option<Kind>,
    absent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    Double,
    /// A list of this many numbers.
    Numbers(usize),
    /// What only JSON can hold.
    Json,
    Text,
    /// Text in some rows, other JSON values in others: JSON when it was read as JSON.
    Mixed,
}

impl Guess {
    /// Of a column that always holds `dim` numbers.
    pub(super) const fn vector(dim: usize) -> Self {
        Self { kind: Some(Kind::Numbers(dim)), absent: false }
    }

    /// Takes note of a cell of a text table.
    pub(super) fn add_text(&mut self, cell: &str) {
        if cell.is_empty() {
            self.absent = true;
            return;
        }
        let kind = match cell {
            "true" | "false" => Kind::Bool,
            _ => match serde_json::from_str::<Json>(cell) {
                Ok(Json::Number(number)) if number.is_u64() && !number.is_i64() => Kind::Text,
                Ok(json @ (Json::Number(_) | Json::Array(_) | Json::Object(_))) => json_kind(&json),
                _ => Kind::Text,
            },
        };
        // A table has nothing but text: what does not agree is text again.
        self.merge(Self { kind: Some(kind), absent: false }, true);
    }

    /// Takes note of a JSON value.
    pub(super) fn add_json(&mut self, json: &Json) {
        match json {
            Json::Null => self.absent = true,
            json => self.add(json_kind(json)),
        }
    }

    /// Takes note of a row that lacks the column.
    pub(super) fn add_absent(&mut self) {
        self.absent = true;
    }

    /// What this column and the same one of another file have in common; `text` when they are text tables.
    pub(super) fn merge(&mut self, other: Self, text: bool) {
        self.absent |= other.absent;
        if let Some(kind) = other.kind {
            self.add(kind);
        }
        if text && self.kind == Some(Kind::Mixed) {
            self.kind = Some(Kind::Text);
        }
    }

    fn add(&mut self, kind: Kind) {
        self.kind = Some(self.kind.map_or(kind, |seen| merge(seen, kind)));
    }

    fn data_type(self, named_vector: bool) -> DataType {
        match self.kind {
            Some(Kind::Bool) => DataType::Bool,
            Some(Kind::Int) => DataType::Int64,
            Some(Kind::Double) => DataType::Double,
            Some(Kind::Numbers(dim)) if !self.absent && dim > 0 && (named_vector || dim >= VECTOR_DIM_MIN) => {
                DataType::FloatVector { dim: u32::try_from(dim).unwrap_or(u32::MAX) }
            }
            Some(Kind::Numbers(_) | Kind::Json | Kind::Mixed) => DataType::Json,
            Some(Kind::Text) | None => DataType::Varchar { max_length: VARCHAR_LENGTH_MAX },
        }
    }
}

fn json_kind(json: &Json) -> Kind {
    match json {
        Json::Bool(_) => Kind::Bool,
        Json::Number(number) if number.is_i64() => Kind::Int,
        // Above 2^63 a double would round: an identifier must not change.
        Json::Number(number) if number.is_u64() => Kind::Json,
        Json::Number(_) => Kind::Double,
        Json::String(_) => Kind::Text,
        Json::Array(items) if items.iter().all(Json::is_number) => Kind::Numbers(items.len()),
        Json::Null | Json::Array(_) | Json::Object(_) => Kind::Json,
    }
}

fn merge(seen: Kind, kind: Kind) -> Kind {
    match (seen, kind) {
        (seen, kind) if seen == kind => kind,
        (Kind::Int | Kind::Double, Kind::Int | Kind::Double) => Kind::Double,
        (Kind::Numbers(_) | Kind::Json, Kind::Numbers(_) | Kind::Json) => Kind::Json,
        _ => Kind::Mixed,
    }
}

/// What the caller says about a collection that is not there yet.
#[derive(Debug, Clone, Default)]
pub(super) struct Wishes {
    /// The primary key; `id` when it is not named.
    pub(super) key: Option<String>,
    /// How vectors are compared.
    pub(super) metric: Option<Metric>,
    /// A column to take for a vector however short its lists are.
    pub(super) vector_field: Option<String>,
}

/// The collection that columns of these guesses call for; `dynamic` keeps what later rows bring beyond them.
pub(super) fn spec_from_guesses(
    columns: &[(String, Guess)],
    wishes: &Wishes,
    dynamic: bool,
    name: &str,
) -> Result<CollectionSpec> {
    let columns: Vec<(String, DataType)> = columns
        .iter()
        .map(|(column, guess)| (column.clone(), guess.data_type(wishes.vector_field.as_ref() == Some(column))))
        .collect();
    spec_from_types(&columns, wishes, dynamic, name)
}

/// The collection that columns of these types call for. Every field but the key and the vectors may be absent.
pub(super) fn spec_from_types(
    columns: &[(String, DataType)],
    wishes: &Wishes,
    dynamic: bool,
    name: &str,
) -> Result<CollectionSpec> {
    // An integer of any width may be the key, and a key is an int64.
    let is_key = |column: &String| column == wishes.key.as_deref().unwrap_or("id");
    let partitioned = columns.iter().any(|(column, _)| column == PARTITION_COLUMN);
    let columns: Vec<(String, DataType)> = columns
        .iter()
        .filter(|(column, _)| column != PARTITION_COLUMN)
        .map(|(column, data_type)| match data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 if is_key(column) => (column.clone(), DataType::Int64),
            _ => (column.clone(), *data_type),
        })
        .collect();
    let names = || columns.iter().map(|(column, _)| column.as_str()).collect::<Vec<_>>().join(", ");
    let key = wishes.key.as_deref().unwrap_or("id");
    let Some((_, key_type)) = columns.iter().find(|(column, _)| column == key) else {
        let hint = if wishes.key.is_some() { "" } else { "; name the one that identifies a row with --key" };
        return Err(Error::invalid(format!("{name}: no column is named {key:?}{hint}. The columns are: {}", names())));
    };
    if !matches!(key_type, DataType::Int64 | DataType::Varchar { .. }) {
        return Err(Error::invalid(format!(
            "{name}: column {key:?} cannot be the primary key: its values are neither whole numbers nor texts"
        )));
    }
    if let Some(field) = &wishes.vector_field
        && !columns.iter().any(|(column, data_type)| column == field && data_type.is_vector())
    {
        return Err(Error::invalid(format!(
            "{name}: {field:?} is no column of equally many numbers in every row. The columns are: {}",
            names()
        )));
    }
    let fields = columns
        .iter()
        .map(|(column, data_type)| Field {
            name: column.clone(),
            data_type: *data_type,
            nullable: column != key && !data_type.is_vector(),
            default: None,
            analyzer: None,
        })
        .collect();
    let mut schema = Schema::new(fields, key, dynamic).map_err(|error| error.context(name))?;
    if partitioned {
        schema = schema.with_partitions()?;
    }
    let metric = wishes.metric.unwrap_or(Metric::Cosine);
    let indexes: BTreeMap<String, IndexSpec> = columns
        .iter()
        .filter(|(_, data_type)| data_type.is_vector())
        .map(|(column, _)| (column.clone(), IndexSpec { metric, kind: IndexKind::HNSW }))
        .collect();
    Ok(CollectionSpec { schema: Arc::new(schema), indexes, options: Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(cells: &[&str]) -> DataType {
        let mut guess = Guess::default();
        cells.iter().for_each(|cell| guess.add_text(cell));
        guess.data_type(false)
    }

    fn json(values: &[Json]) -> DataType {
        let mut guess = Guess::default();
        values.iter().for_each(|value| guess.add_json(value));
        guess.data_type(false)
    }

    const VARCHAR: DataType = DataType::Varchar { max_length: VARCHAR_LENGTH_MAX };

    #[test]
    fn cells_tell_their_type_over_the_whole_column() {
        assert_eq!(text(&["1", "", "-3"]), DataType::Int64);
        assert_eq!(text(&["1", "2.5"]), DataType::Double);
        assert_eq!(text(&["true", "false"]), DataType::Bool);
        assert_eq!(text(&["true", "1"]), VARCHAR);
        assert_eq!(text(&["1", "x", "2"]), VARCHAR);
        assert_eq!(text(&["{\"a\":1}", "x", "{\"a\":1}"]), VARCHAR);
        assert_eq!(text(&["1", "18446744073709551615"]), VARCHAR);
        assert_eq!(text(&["007"]), VARCHAR, "a leading zero would be lost");
        assert_eq!(text(&["NaN"]), VARCHAR);
        assert_eq!(text(&["null"]), VARCHAR);
        assert_eq!(text(&["{\"a\":1}", "[1,2]"]), DataType::Json);
        assert_eq!(text(&["[1,2,3,4,5,6,7,8]", "[0,0,0,0,0,0,0,0.5]"]), DataType::FloatVector { dim: 8 });
        assert_eq!(text(&["[1,2,3,4,5,6,7,8]", ""]), DataType::Json, "a vector is never absent");
        assert_eq!(text(&[]), VARCHAR);
    }

    #[test]
    fn json_values_tell_their_type() {
        use serde_json::json as j;
        assert_eq!(json(&[j!(1), j!(null), j!(2)]), DataType::Int64);
        assert_eq!(json(&[j!(1), j!(2.5)]), DataType::Double);
        assert_eq!(json(&[j!(u64::MAX)]), DataType::Json);
        assert_eq!(json(&[j!("a"), j!(1)]), DataType::Json);
        assert_eq!(json(&[j!([1, 2]), j!([1, 2, 3])]), DataType::Json);
        assert_eq!(json(&[j!([1, 2])]), DataType::Json);
        let mut guess = Guess::default();
        guess.add_json(&j!([1, 2]));
        assert_eq!(guess.data_type(true), DataType::FloatVector { dim: 2 });
    }
}
