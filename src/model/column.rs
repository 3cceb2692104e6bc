use std::sync::Arc;

use arrow_array::builder::{BooleanBufferBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, ListArray, make_array};
use arrow_buffer::{MutableBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType as ArrowType, Field as ArrowField, TimeUnit};
use serde_json::Value as Json;

use super::{DataType, Value, time};

/// JSON nested deeper is refused: well inside what every reader of JSON text can take back.
const JSON_DEPTH_MAX: usize = 100;
/// Offsets of text columns are 32 bits, signed.
const TEXT_BYTES_MAX: usize = i32::MAX as usize;
/// Offsets of array columns are 32 bits, signed.
const ITEMS_MAX: usize = i32::MAX as usize;

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
    /// An instant of an Arrow column, in microseconds since 1970.
    Moment(i64),
    /// An array or object.
    Json(&'a Json),
    Array(&'a [Value]),
    Floats(&'a [f32]),
    /// `len` values of an Arrow column from `start`; as a vector scaled to unit length when `normalized`.
    List {
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
            Value::Float(value) => Self::Double(f64::from(*value)),
            Value::Double(value) => Self::Double(*value),
            Value::String(value) => Self::Text(value),
            Value::Json(value) => Self::from(value),
            Value::Array(values) => Self::Array(values),
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
            Self::Moment(_) => "an instant".to_owned(),
            Self::Json(Json::Array(_)) | Self::Array(_) => "an array".to_owned(),
            Self::Json(_) => "an object".to_owned(),
            Self::Floats(values) => format!("a vector of {} numbers", values.len()),
            Self::List { len, .. } => format!("a list of {len}"),
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
            Self::Array(values) => {
                values.iter().map(|value| Cell::from(value).to_json()).collect::<Result<_, _>>().map(Json::Array)
            }
            Self::Moment(_) | Self::List { .. } | Self::Other(_) => self.expected("a JSON value"),
        }
    }

    /// How many values it has, where it is a list of some kind.
    fn list_len(&self) -> Option<usize> {
        match self {
            Self::Json(Json::Array(items)) => Some(items.len()),
            Self::Array(values) => Some(values.len()),
            Self::Floats(values) => Some(values.len()),
            Self::List { len, .. } => Some(*len),
            _ => None,
        }
    }

    /// Value `at` of a list.
    fn item(self, at: usize) -> Self {
        match self {
            Self::Json(Json::Array(items)) => Self::from(&items[at]),
            Self::Array(values) => Self::from(&values[at]),
            Self::Floats(values) => Self::Double(f64::from(values[at])),
            Self::List { column, start, .. } => cell(column, start + at, false),
            _ => Self::Null,
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

/// Row `row` of an Arrow column: [`Cell::Other`] for a type that nothing is read from, and for an instant that is no whole
/// microsecond.
pub fn cell(array: &dyn Array, row: usize, normalized: bool) -> Cell<'_> {
    if array.is_null(row) {
        return Cell::Null;
    }
    macro_rules! value {
        ($type:ty) => {
            array.as_primitive::<$type>().value(row)
        };
    }
    let instant = |micros: Option<i64>| micros.map_or(Cell::Other(array.data_type()), Cell::Moment);
    fn list(column: &ArrayRef, start: usize, end: usize, normalized: bool) -> Cell<'_> {
        Cell::List { column: column.as_ref(), start, len: end - start, normalized }
    }
    match array.data_type() {
        ArrowType::Null => Cell::Null,
        ArrowType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        ArrowType::Int8 => Cell::Int(value!(Int8Type).into()),
        ArrowType::Int16 => Cell::Int(value!(Int16Type).into()),
        ArrowType::Int32 => Cell::Int(value!(Int32Type).into()),
        ArrowType::Int64 => Cell::Int(value!(Int64Type)),
        ArrowType::UInt8 => Cell::Int(value!(UInt8Type).into()),
        ArrowType::UInt16 => Cell::Int(value!(UInt16Type).into()),
        ArrowType::UInt32 => Cell::Int(value!(UInt32Type).into()),
        ArrowType::UInt64 => {
            let value = value!(UInt64Type);
            i64::try_from(value).map_or(Cell::Unsigned(value), Cell::Int)
        }
        ArrowType::Float16 => Cell::Double(value!(Float16Type).into()),
        ArrowType::Float32 => Cell::Double(value!(Float32Type).into()),
        ArrowType::Float64 => Cell::Double(value!(Float64Type)),
        ArrowType::Timestamp(TimeUnit::Second, _) => instant(value!(TimestampSecondType).checked_mul(1_000_000)),
        ArrowType::Timestamp(TimeUnit::Millisecond, _) => instant(value!(TimestampMillisecondType).checked_mul(1000)),
        ArrowType::Timestamp(TimeUnit::Microsecond, _) => instant(Some(value!(TimestampMicrosecondType))),
        ArrowType::Timestamp(TimeUnit::Nanosecond, _) => {
            let nanos = value!(TimestampNanosecondType);
            instant((nanos % 1000 == 0).then_some(nanos / 1000))
        }
        ArrowType::Date32 => instant(Some(i64::from(value!(Date32Type)) * 86_400_000_000)),
        ArrowType::Date64 => instant(value!(Date64Type).checked_mul(1000)),
        ArrowType::Utf8 => Cell::Text(array.as_string::<i32>().value(row)),
        ArrowType::LargeUtf8 => Cell::Text(array.as_string::<i64>().value(row)),
        ArrowType::Utf8View => Cell::Text(array.as_string_view().value(row)),
        ArrowType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            match cell(dictionary.keys(), row, false) {
                Cell::Int(key) => cell(dictionary.values().as_ref(), key as usize, normalized),
                _ => Cell::Null,
            }
        }
        ArrowType::List(_) => {
            let lists = array.as_list::<i32>();
            let offsets = lists.value_offsets();
            list(lists.values(), offsets[row] as usize, offsets[row + 1] as usize, normalized)
        }
        ArrowType::LargeList(_) => {
            let lists = array.as_list::<i64>();
            let offsets = lists.value_offsets();
            list(lists.values(), offsets[row] as usize, offsets[row + 1] as usize, normalized)
        }
        ArrowType::FixedSizeList(..) => {
            let fixed = array.as_fixed_size_list();
            let start = fixed.value_offset_at(row);
            list(fixed.values(), start, start + fixed.value_length() as usize, normalized)
        }
        other => Cell::Other(other),
    }
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

/// The Arrow type of a column of `data_type`. Not for vectors.
pub fn arrow_type(data_type: DataType) -> ArrowType {
    match data_type {
        DataType::Bool => ArrowType::Boolean,
        DataType::Int8 => ArrowType::Int8,
        DataType::Int16 => ArrowType::Int16,
        DataType::Int32 => ArrowType::Int32,
        DataType::Int64 => ArrowType::Int64,
        DataType::Float => ArrowType::Float32,
        DataType::Double => ArrowType::Float64,
        DataType::Timestamp => ArrowType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Varchar { .. } | DataType::Json => ArrowType::Utf8,
        DataType::Array { element, .. } => {
            ArrowType::List(Arc::new(ArrowField::new("item", arrow_type(element.into()), false)))
        }
        DataType::FloatVector { .. } => unreachable!("vectors are not among the scalar columns"),
    }
}

/// One column while rows are added: the only place where values are checked against their type.
pub struct Column {
    data_type: DataType,
    values: Values,
    /// Of every kind but text and vectors.
    nulls: NullBufferBuilder,
}

/// By what one value takes, so that types of one width share their code.
enum Values {
    Bits(BooleanBufferBuilder),
    /// Little-endian, as wide as [`number`] says.
    Numbers(MutableBuffer),
    Text(StringBuilder),
    /// Where each row ends among the items.
    List {
        ends: Vec<i32>,
        items: Box<Column>,
    },
    Vector {
        data: Vec<f32>,
        dim: usize,
    },
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
        let values = match data_type {
            DataType::Bool => Values::Bits(BooleanBufferBuilder::new(rows)),
            DataType::Varchar { .. } | DataType::Json => Values::Text(StringBuilder::with_capacity(rows, rows)),
            DataType::Array { element, .. } => {
                Values::List { ends: vec![0], items: Box::new(Self::new(element.into(), rows)) }
            }
            DataType::FloatVector { dim } => {
                let dim = dim as usize;
                Values::Vector { data: Vec::with_capacity((rows * dim).min(1 << 22)), dim }
            }
            _ => Values::Numbers(MutableBuffer::with_capacity(rows * 8)),
        };
        Self { data_type, values, nulls: NullBufferBuilder::new(rows) }
    }

    /// Adds a null. Never to a vector.
    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Bits(bits) => bits.append(false),
            Values::Numbers(numbers) => numbers.extend_zeros(width(self.data_type)),
            Values::Text(text) => return text.append_null(),
            Values::List { ends, .. } => ends.push(ends.last().copied().unwrap_or(0)),
            Values::Vector { .. } => unreachable!("a vector field is never nullable"),
        }
        self.nulls.append_null();
    }

    /// Adds a value, and tells how many bytes it takes; on an error says what was got and what was expected.
    pub fn push(&mut self, cell: Cell<'_>) -> Result<usize, String> {
        let bytes = match &mut self.values {
            Values::Bits(bits) => match cell {
                Cell::Bool(value) => {
                    bits.append(value);
                    1
                }
                other => return other.expected("a bool"),
            },
            Values::Numbers(numbers) => {
                let width = width(self.data_type);
                numbers.extend_from_slice(&number(self.data_type, cell)?[..width]);
                width
            }
            Values::Text(text) => {
                return match (self.data_type, cell) {
                    (DataType::Varchar { max_length }, Cell::Text(value)) if value.len() > max_length as usize => {
                        Err(format!("a string of {} bytes, at most {max_length} are allowed", value.len()))
                    }
                    (DataType::Varchar { .. }, Cell::Text(value)) => append_text(text, value),
                    (DataType::Varchar { .. }, other) => other.expected("a string"),
                    (_, other) => append_text(text, &other.to_json()?.to_string()),
                };
            }
            Values::List { ends, items } => push_list(self.data_type, ends, items, cell)?,
            Values::Vector { data, dim } => return push_vector(data, *dim, cell),
        };
        self.nulls.append_non_null();
        Ok(bytes)
    }

    /// The values.
    pub fn finish(mut self) -> Finished {
        let nulls = self.nulls.finish();
        Finished::Scalar(match self.values {
            Values::Bits(mut bits) => Arc::new(BooleanArray::new(bits.finish(), nulls)),
            Values::Numbers(numbers) => {
                let rows = numbers.len() / width(self.data_type);
                numbers_array(arrow_type(self.data_type), rows, numbers, nulls)
            }
            Values::Text(mut text) => Arc::new(text.finish()),
            Values::List { ends, items } => {
                let (ArrowType::List(item), Finished::Scalar(items)) = (arrow_type(self.data_type), items.finish())
                else {
                    unreachable!("an array is a list of scalars")
                };
                Arc::new(ListArray::new(item, OffsetBuffer::new(ScalarBuffer::from(ends)), items, nulls))
            }
            Values::Vector { mut data, dim } => {
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

/// An array of `rows` numbers of one width.
pub fn numbers_array(
    arrow_type: ArrowType,
    rows: usize,
    numbers: MutableBuffer,
    nulls: Option<arrow_buffer::NullBuffer>,
) -> ArrayRef {
    let data = ArrayData::builder(arrow_type).len(rows).add_buffer(numbers.into()).nulls(nulls).build();
    make_array(data.expect("the buffer has one number a row"))
}

/// The bytes of one number.
const fn width(data_type: DataType) -> usize {
    match data_type {
        DataType::Int8 => 1,
        DataType::Int16 => 2,
        DataType::Int32 | DataType::Float => 4,
        _ => 8,
    }
}

/// A number as it is kept in a column of that type: the first [`width`] bytes.
fn number(data_type: DataType, cell: Cell<'_>) -> Result<[u8; 8], String> {
    let Some((min, max)) = data_type.int_range() else {
        let value = match cell {
            Cell::Double(value) if value.is_finite() => value,
            Cell::Int(value) => value as f64,
            Cell::Unsigned(value) => value as f64,
            other => return other.expected(format_args!("a finite {data_type}")),
        };
        if data_type == DataType::Double {
            return Ok(value.to_le_bytes());
        }
        let narrow = value as f32;
        if narrow.is_infinite() {
            return Err(format!("{value} is beyond the range of a float, expected {:e} at most", f32::MAX));
        }
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&narrow.to_le_bytes());
        return Ok(bytes);
    };
    let value = match (data_type, cell) {
        (_, Cell::Int(value)) => value,
        (DataType::Timestamp, Cell::Moment(value)) => value,
        (DataType::Timestamp, Cell::Text(text)) => time::parse(text).ok_or_else(|| {
            format!("{text:?} is no timestamp, expected RFC 3339 of the years 1 to 9999, such as 2024-05-01T12:30:00Z")
        })?,
        (DataType::Timestamp, other) => return other.expected("a timestamp"),
        (_, other) => return other.expected(format_args!("an {data_type}")),
    };
    if value < min || value > max {
        return Err(format!("{value} is out of range, expected {min} to {max}"));
    }
    Ok(value.to_le_bytes())
}

fn push_list(data_type: DataType, ends: &mut Vec<i32>, items: &mut Column, cell: Cell<'_>) -> Result<usize, String> {
    let max_capacity = match data_type {
        DataType::Array { max_capacity, .. } => max_capacity as usize,
        _ => unreachable!("only arrays have items"),
    };
    let Some(len) = cell.list_len() else { return cell.expected(data_type) };
    if len > max_capacity {
        return Err(format!("an array of {len} values, at most {max_capacity} are allowed"));
    }
    let end = ends.last().map_or(0, |&end| end as usize) + len;
    if end > ITEMS_MAX {
        return Err(format!("its column holds more than {ITEMS_MAX} values: make batches smaller"));
    }
    let mut bytes = 4;
    for at in 0..len {
        let pushed = match cell.item(at) {
            Cell::Null => Err("null, which an array cannot hold".to_owned()),
            item => items.push(item),
        };
        bytes += pushed.map_err(|what| format!("value {at}: {what}"))?;
    }
    ends.push(end as i32);
    Ok(bytes)
}

/// The value of a row in a finished column.
pub fn scalar(array: &dyn Array, data_type: DataType, row: usize) -> Value {
    match (data_type, cell(array, row, false)) {
        (_, Cell::Null) => Value::Null,
        (_, Cell::Bool(value)) => Value::Bool(value),
        (_, Cell::Int(value) | Cell::Moment(value)) => Value::Int(value),
        (DataType::Float, Cell::Double(value)) => Value::Float(value as f32),
        (_, Cell::Double(value)) => Value::Double(value),
        (DataType::Json, Cell::Text(text)) => {
            let json: Json = serde_json::from_str(text).expect("JSON was parsed when it came in");
            Value::from(json)
        }
        (_, Cell::Text(text)) => Value::String(text.to_owned()),
        (DataType::Array { element, .. }, Cell::List { column, start, len, .. }) => {
            Value::Array((start..start + len).map(|at| scalar(column, element.into(), at)).collect())
        }
        _ => unreachable!("a column of the schema has its type"),
    }
}

/// The values of a row in a column of arrays, as JSON; `None` for null.
pub(crate) fn list_json(array: &dyn Array, row: usize) -> Option<Json> {
    let json = |cell: Cell<'_>| match cell {
        Cell::Moment(micros) => Json::from(micros),
        other => other.to_json().unwrap_or(Json::Null),
    };
    match cell(array, row, false) {
        Cell::List { column, start, len, .. } => {
            Some(Json::Array((start..start + len).map(|at| json(cell(column, at, false))).collect()))
        }
        _ => None,
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
    let Some(len) = cell.list_len() else { return cell.expected(format_args!("a vector of {dim} numbers")) };
    if len != dim {
        return Err(format!("a vector of {len} numbers, expected {dim}"));
    }
    let before = data.len();
    match cell {
        Cell::Floats(values) => data.extend_from_slice(values),
        Cell::List { column, start, len, .. }
            if column.null_count() == 0 && column.data_type() == &ArrowType::Float32 =>
        {
            data.extend_from_slice(&column.as_primitive::<Float32Type>().values()[start..start + len]);
        }
        _ => {
            for at in 0..len {
                data.push(match cell.item(at) {
                    Cell::Int(value) => value as f32,
                    Cell::Unsigned(value) => value as f32,
                    Cell::Double(value) => value as f32,
                    Cell::Null => return Err(format!("number {at} is null")),
                    other => return other.expected(format_args!("a number at {at}")),
                });
            }
        }
    }
    let vector = &mut data[before..];
    if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
        return Err(format!("number {at} is {}, expected finite 32-bit floats", vector[at]));
    }
    if matches!(cell, Cell::List { normalized: true, .. }) {
        normalize(vector)?;
    }
    Ok(dim * 4)
}
