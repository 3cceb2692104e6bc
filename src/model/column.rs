use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;
use serde_json::Value as Json;

use super::{DataType, Value};

/// JSON nested deeper is refused: well inside what every reader of JSON text can take back.
const JSON_DEPTH_MAX: usize = 100;
/// Offsets of text columns are 32 bits, signed.
const TEXT_BYTES_MAX: usize = i32::MAX as usize;

/// A value on its way into a column, wherever it comes from.
#[derive(Clone, Copy)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// An integer beyond `i64`.
    Unsigned(u64),
    Double(f64),
    Text(&'a str),
    /// An array or object.
    Json(&'a Json),
    Floats(&'a [f32]),
    /// `len` numbers of an Arrow column from `start`; scaled to unit length when `normalized`.
    Numbers {
        column: &'a dyn Array,
        start: usize,
        len: usize,
        normalized: bool,
    },
    /// Of an Arrow type that nothing is read from.
    Other(&'a ArrowType),
}

impl<'a> From<&'a Value> for Cell<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Int(value) => Self::Int(*value),
            Value::Double(value) => Self::Double(*value),
            Value::String(value) => Self::Text(value),
            Value::Json(value) => Self::from(value),
            Value::Vector(values) => Self::Floats(values),
        }
    }
}

impl<'a> From<&'a Json> for Cell<'a> {
    fn from(value: &'a Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::String(value) => Self::Text(value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(integer), _) => Self::Int(integer),
                (_, Some(integer)) => Self::Unsigned(integer),
                _ => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::Array(_) | Json::Object(_) => Self::Json(value),
        }
    }
}

impl Cell<'_> {
    /// What was got, for messages.
    fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => format!("the bool {value}"),
            Self::Int(value) => format!("the integer {value}"),
            Self::Unsigned(value) => format!("the integer {value}, which is beyond int64"),
            Self::Double(value) => format!("the double {value}"),
            Self::Text(_) => "a string".to_owned(),
            Self::Json(Json::Array(_)) => "an array".to_owned(),
            Self::Json(_) => "an object".to_owned(),
            Self::Floats(values) => format!("a vector of {} numbers", values.len()),
            Self::Numbers { len, .. } => format!("a list of {len}"),
            Self::Other(arrow) => format!("Arrow's {arrow}"),
        }
    }

    fn expected<T>(&self, what: impl std::fmt::Display) -> Result<T, String> {
        Err(format!("expected {what}, got {}", self.describe()))
    }

    /// The cell as JSON, a string as a string.
    pub fn to_json(self) -> Result<Json, String> {
        let double = |value: f64| {
            serde_json::Number::from_f64(value)
                .map(Json::Number)
                .ok_or_else(|| format!("{value} is no JSON number: use null"))
        };
        match self {
            Self::Null => Ok(Json::Null),
            Self::Bool(value) => Ok(value.into()),
            Self::Int(value) => Ok(value.into()),
            Self::Unsigned(value) => Ok(value.into()),
            Self::Double(value) => double(value),
            Self::Text(value) => Ok(value.into()),
            Self::Json(value) => check_depth(value).map(|()| value.clone()),
            Self::Floats(values) => {
                values.iter().map(|&value| double(f64::from(value))).collect::<Result<Vec<_>, _>>().map(Json::Array)
            }
            Self::Numbers { .. } | Self::Other(_) => self.expected("a JSON value"),
        }
    }
}

/// That `json` is nested no deeper than can be read back.
pub fn check_depth(json: &Json) -> Result<(), String> {
    fn fits(json: &Json, left: usize) -> bool {
        match json {
            Json::Array(items) => left > 0 && items.iter().all(|item| fits(item, left - 1)),
            Json::Object(entries) => left > 0 && entries.values().all(|item| fits(item, left - 1)),
            _ => true,
        }
    }
    if fits(json, JSON_DEPTH_MAX) { Ok(()) } else { Err(format!("JSON nested deeper than {JSON_DEPTH_MAX} levels")) }
}

/// Parses the text of a stored or imported JSON value.
pub fn parse_json(text: &str) -> Result<Json, String> {
    let json = serde_json::from_str(text).map_err(|error| format!("not JSON text: {error}"))?;
    check_depth(&json).map(|()| json)
}

/// Reads the cells of one Arrow column: [`Cell::Other`] for a type that nothing is read from.
pub fn cells<'a>(array: &'a dyn Array, normalized: bool) -> Box<dyn Fn(usize) -> Cell<'a> + 'a> {
    macro_rules! cells {
        ($typed:expr, |$value:ident| $cell:expr) => {{
            let typed = $typed;
            Box::new(move |row| {
                if typed.is_null(row) {
                    return Cell::Null;
                }
                let $value = typed.value(row);
                $cell
            })
        }};
    }
    match array.data_type() {
        ArrowType::Null => Box::new(|_| Cell::Null),
        ArrowType::Boolean => cells!(array.as_boolean(), |value| Cell::Bool(value)),
        ArrowType::Int8 => cells!(array.as_primitive::<Int8Type>(), |value| Cell::Int(value.into())),
        ArrowType::Int16 => cells!(array.as_primitive::<Int16Type>(), |value| Cell::Int(value.into())),
        ArrowType::Int32 => cells!(array.as_primitive::<Int32Type>(), |value| Cell::Int(value.into())),
        ArrowType::Int64 => cells!(array.as_primitive::<Int64Type>(), |value| Cell::Int(value)),
        ArrowType::UInt8 => cells!(array.as_primitive::<UInt8Type>(), |value| Cell::Int(value.into())),
        ArrowType::UInt16 => cells!(array.as_primitive::<UInt16Type>(), |value| Cell::Int(value.into())),
        ArrowType::UInt32 => cells!(array.as_primitive::<UInt32Type>(), |value| Cell::Int(value.into())),
        ArrowType::UInt64 => cells!(array.as_primitive::<UInt64Type>(), |value| {
            i64::try_from(value).map_or(Cell::Unsigned(value), Cell::Int)
        }),
        ArrowType::Float16 => cells!(array.as_primitive::<Float16Type>(), |value| Cell::Double(value.into())),
        ArrowType::Float32 => cells!(array.as_primitive::<Float32Type>(), |value| Cell::Double(value.into())),
        ArrowType::Float64 => cells!(array.as_primitive::<Float64Type>(), |value| Cell::Double(value)),
        ArrowType::Utf8 => cells!(array.as_string::<i32>(), |value| Cell::Text(value)),
        ArrowType::LargeUtf8 => cells!(array.as_string::<i64>(), |value| Cell::Text(value)),
        ArrowType::Utf8View => cells!(array.as_string_view(), |value| Cell::Text(value)),
        ArrowType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            // Only rows that are all null have no value to point at.
            if dictionary.values().is_empty() {
                return Box::new(|_| Cell::Null);
            }
            let keys = dictionary.normalized_keys();
            let values = cells(dictionary.values().as_ref(), normalized);
            Box::new(move |row| if array.is_null(row) { Cell::Null } else { values(keys[row]) })
        }
        ArrowType::List(_) => {
            let list = array.as_list::<i32>();
            numbers(array, list.values().as_ref(), normalized, |row| {
                (list.value_offsets()[row] as usize, list.value_length(row) as usize)
            })
        }
        ArrowType::LargeList(_) => {
            let list = array.as_list::<i64>();
            numbers(array, list.values().as_ref(), normalized, |row| {
                (list.value_offsets()[row] as usize, list.value_length(row) as usize)
            })
        }
        ArrowType::FixedSizeList(..) => {
            let list = array.as_fixed_size_list();
            numbers(array, list.values().as_ref(), normalized, |row| {
                (list.value_offset_at(row), list.value_length() as usize)
            })
        }
        other => Box::new(move |row| if array.is_null(row) { Cell::Null } else { Cell::Other(other) }),
    }
}

fn numbers<'a>(
    list: &'a dyn Array,
    column: &'a dyn Array,
    normalized: bool,
    range: impl Fn(usize) -> (usize, usize) + 'a,
) -> Box<dyn Fn(usize) -> Cell<'a> + 'a> {
    Box::new(move |row| {
        if list.is_null(row) {
            return Cell::Null;
        }
        let (start, len) = range(row);
        Cell::Numbers { column, start, len, normalized }
    })
}

/// Appends `len` numbers of `column` to `data`.
fn append_numbers(data: &mut Vec<f32>, column: &dyn Array, start: usize, len: usize) -> Result<(), String> {
    if column.null_count() > 0
        && let Some(at) = (0..len).find(|at| column.is_null(start + at))
    {
        return Err(format!("number {at} is null"));
    }
    let end = start + len;
    match column.data_type() {
        ArrowType::Float32 => data.extend_from_slice(&column.as_primitive::<Float32Type>().values()[start..end]),
        ArrowType::Float16 => {
            data.extend(column.as_primitive::<Float16Type>().values()[start..end].iter().map(|value| value.to_f32()));
        }
        ArrowType::Int8 => {
            data.extend(column.as_primitive::<Int8Type>().values()[start..end].iter().map(|&value| f32::from(value)));
        }
        _ => {
            let cells = cells(column, false);
            for at in 0..len {
                data.push(match cells(start + at) {
                    Cell::Int(value) => value as f32,
                    Cell::Unsigned(value) => value as f32,
                    Cell::Double(value) => value as f32,
                    other => return other.expected(format_args!("a number at {at}")),
                });
            }
        }
    }
    Ok(())
}

/// Scales a direction to unit length; `f64` sums in order, so that every replica gets the same bits.
fn normalize(vector: &mut [f32]) -> Result<(), String> {
    let norm = vector.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
    if norm == 0.0 {
        return Err("a vector of zeros has no direction to scale to unit length".to_owned());
    }
    vector.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    Ok(())
}

/// One column while rows are added: the only place where values are checked against their type.
pub enum Column {
    Bool(BooleanBuilder),
    Int64(Int64Builder),
    Double(Float64Builder),
    Varchar { text: StringBuilder, max_length: u32 },
    Json(StringBuilder),
    Vector { data: Vec<f32>, dim: usize },
}

/// A column that is whole.
pub enum Finished {
    Scalar(ArrayRef),
    Vector { dim: usize, data: Vec<f32> },
}

impl Column {
    /// An empty column. `rows` is a hint, and may come from outside: what it reserves is bounded.
    pub fn new(data_type: DataType, rows: usize) -> Self {
        let rows = rows.min(1 << 16);
        match data_type {
            DataType::Bool => Self::Bool(BooleanBuilder::with_capacity(rows)),
            DataType::Int64 => Self::Int64(Int64Builder::with_capacity(rows)),
            DataType::Double => Self::Double(Float64Builder::with_capacity(rows)),
            DataType::Varchar { max_length } => {
                Self::Varchar { text: StringBuilder::with_capacity(rows, rows), max_length }
            }
            DataType::Json => Self::Json(StringBuilder::with_capacity(rows, rows)),
            DataType::FloatVector { dim } => {
                let dim = dim as usize;
                Self::Vector { data: Vec::with_capacity((rows * dim).min(1 << 22)), dim }
            }
        }
    }

    /// Adds a null. Never to a vector.
    pub fn push_null(&mut self) {
        match self {
            Self::Bool(column) => column.append_null(),
            Self::Int64(column) => column.append_null(),
            Self::Double(column) => column.append_null(),
            Self::Varchar { text, .. } => text.append_null(),
            Self::Json(column) => column.append_null(),
            Self::Vector { .. } => unreachable!("a vector field is never nullable"),
        }
    }

    /// Adds a value, and tells how many bytes it takes; on an error says what was got and what was expected.
    pub fn push(&mut self, cell: Cell<'_>) -> Result<usize, String> {
        match self {
            Self::Bool(column) => match cell {
                Cell::Bool(value) => column.append_value(value),
                other => return other.expected("a bool"),
            },
            Self::Int64(column) => match cell {
                Cell::Int(value) => column.append_value(value),
                other => return other.expected("an int64"),
            },
            Self::Double(column) => column.append_value(match cell {
                Cell::Double(value) if value.is_finite() => value,
                Cell::Int(value) => value as f64,
                Cell::Unsigned(value) => value as f64,
                other => return other.expected("a finite double"),
            }),
            Self::Varchar { text, max_length } => match cell {
                Cell::Text(value) if value.len() > *max_length as usize => {
                    return Err(format!("a string of {} bytes, at most {max_length} are allowed", value.len()));
                }
                Cell::Text(value) => return append_text(text, value),
                other => return other.expected("a string"),
            },
            Self::Json(column) => return append_text(column, &cell.to_json()?.to_string()),
            Self::Vector { data, dim } => return push_vector(data, *dim, cell),
        }
        Ok(8)
    }

    /// The values.
    pub fn finish(self) -> Finished {
        Finished::Scalar(match self {
            Self::Bool(mut column) => Arc::new(column.finish()),
            Self::Int64(mut column) => Arc::new(column.finish()),
            Self::Double(mut column) => Arc::new(column.finish()),
            Self::Varchar { mut text, .. } => Arc::new(text.finish()),
            Self::Json(mut column) => Arc::new(column.finish()),
            Self::Vector { mut data, dim } => {
                data.shrink_to_fit();
                return Finished::Vector { dim, data };
            }
        })
    }

    /// The form that `value` has in a column of that type.
    pub fn normalize(data_type: DataType, value: &Value) -> Result<Value, String> {
        let mut column = Self::new(data_type, 1);
        column.push(Cell::from(value))?;
        Ok(match column.finish() {
            Finished::Scalar(array) => scalar(array.as_ref(), data_type, 0),
            Finished::Vector { data, .. } => Value::Vector(data),
        })
    }
}

/// The value of a row in a finished column.
pub fn scalar(array: &dyn Array, data_type: DataType, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match data_type {
        DataType::Bool => Value::Bool(array.as_boolean().value(row)),
        DataType::Int64 => Value::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Double => Value::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Varchar { .. } => Value::String(array.as_string::<i32>().value(row).to_owned()),
        DataType::Json => {
            let text = array.as_string::<i32>().value(row);
            let json: Json = serde_json::from_str(text).expect("JSON was parsed when it came in");
            Value::from(json)
        }
        DataType::FloatVector { .. } => unreachable!("vectors are not among the scalar columns"),
    }
}

/// Adds text, and tells how many bytes it takes.
pub fn append_text(column: &mut StringBuilder, text: &str) -> Result<usize, String> {
    let before = column.values_slice().len();
    if before + text.len() > TEXT_BYTES_MAX {
        return Err(format!("its column holds more than {TEXT_BYTES_MAX} bytes of text: make batches smaller"));
    }
    column.append_value(text);
    Ok(text.len() + 4)
}

fn push_vector(data: &mut Vec<f32>, dim: usize, cell: Cell<'_>) -> Result<usize, String> {
    let len = match cell {
        Cell::Floats(values) => values.len(),
        Cell::Numbers { len, .. } => len,
        Cell::Json(Json::Array(items)) => items.len(),
        other => return other.expected(format_args!("a vector of {dim} numbers")),
    };
    if len != dim {
        return Err(format!("a vector of {len} numbers, expected {dim}"));
    }
    let before = data.len();
    match cell {
        Cell::Floats(values) => data.extend_from_slice(values),
        Cell::Numbers { column, start, len, .. } => append_numbers(data, column, start, len)?,
        Cell::Json(Json::Array(items)) => {
            for (at, item) in items.iter().enumerate() {
                let number = item
                    .as_f64()
                    .ok_or_else(|| format!("expected a number at {at}, got {}", Cell::from(item).describe()))?;
                data.push(number as f32);
            }
        }
        _ => unreachable!("other cells were refused above"),
    }
    let vector = &mut data[before..];
    if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
        return Err(format!("number {at} is {}, expected finite 32-bit floats", vector[at]));
    }
    if matches!(cell, Cell::Numbers { normalized: true, .. }) {
        normalize(vector)?;
    }
    Ok(dim * 4)
}
