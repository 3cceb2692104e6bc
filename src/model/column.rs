use std::sync::Arc;

use arrow_array::builder::{BooleanBufferBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BooleanArray, FixedSizeListArray, ListArray, make_array};
use arrow_buffer::{Buffer, MutableBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType as ArrowType, Field as ArrowField, TimeUnit};
use serde_json::Value as Json;

use super::{DataType, Field, Value, time};
use crate::base::codec::widen_f16;
use crate::base::sort_by_key;

/// JSON nested deeper is refused: well inside what every reader of JSON text can take back.
const JSON_DEPTH_MAX: usize = 100;
/// Offsets of text columns are 32 bits, signed.
const TEXT_BYTES_MAX: usize = i32::MAX as usize;
/// Pairs of a sparse vector.
const PAIRS_MAX: usize = 32_768;
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
    /// A vector as it is kept.
    Bytes(&'a [u8]),
    Sparse(&'a [(u32, f32)]),
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
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Sparse(pairs) => Self::Sparse(pairs),
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
            Self::Bytes(bytes) => format!("{} bytes", bytes.len()),
            Self::Sparse(_) => "a sparse vector".to_owned(),
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
            Self::Moment(_) | Self::Bytes(_) | Self::Sparse(_) | Self::List { .. } | Self::Other(_) => {
                self.expected("a JSON value")
            }
        }
    }

    /// How many values it has, where it is a list of some kind.
    fn list_len(&self) -> Option<usize> {
        match self {
            Self::Json(Json::Array(items)) => Some(items.len()),
            Self::Array(values) => Some(values.len()),
            Self::Floats(values) => Some(values.len()),
            Self::Sparse(pairs) => Some(pairs.len()),
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
        // An index, and above it the bits of its value: in memory the index comes first, as Milvus writes it.
        DataType::SparseFloatVector => ArrowType::List(Arc::new(ArrowField::new("item", ArrowType::UInt64, false))),
        dense => {
            let (item, len) = items(dense);
            ArrowType::FixedSizeList(Arc::new(ArrowField::new("item", item, false)), len as i32)
        }
    }
}

/// What a dense vector's column holds, and how many of that a row.
fn items(data_type: DataType) -> (ArrowType, usize) {
    let dim = data_type.dim().expect("a dense vector has a dimension") as usize;
    match data_type {
        DataType::Float16Vector { .. } => (ArrowType::Float16, dim),
        // Arrow has no such type.
        DataType::BFloat16Vector { .. } => (ArrowType::UInt16, dim),
        DataType::Int8Vector { .. } => (ArrowType::Int8, dim),
        DataType::BinaryVector { .. } => (ArrowType::UInt8, dim / 8),
        _ => (ArrowType::Float32, dim),
    }
}

/// The values of an Arrow column of numbers as they lie in memory, without what a slice leaves out.
pub(crate) fn number_bytes(array: &dyn Array) -> Option<Buffer> {
    let (data, width) = (array.to_data(), array.data_type().primitive_width()?);
    Some(data.buffers().first()?.slice_with_length(data.offset() * width, data.len() * width))
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
    /// Kept apart.
    Vector {
        data: Vec<f32>,
        dim: usize,
    },
    /// Dense vectors as they are kept, of that many bytes each.
    Dense {
        bytes: MutableBuffer,
        width: usize,
    },
    /// Where each row ends among the pairs.
    Sparse {
        ends: Vec<i32>,
        pairs: MutableBuffer,
    },
}

/// A column that is whole.
pub enum Finished {
    Scalar(ArrayRef),
    Vector { dim: usize, data: Vec<f32> },
}

impl Column {
    /// An empty column. `rows` is a hint, and may come from outside: what it reserves is bounded.
    /// `apart`: see [`Field::is_apart`](super::Field::is_apart).
    pub fn new(data_type: DataType, apart: bool, rows: usize) -> Self {
        let rows = rows.min(1 << 16);
        let values = match data_type {
            DataType::Bool => Values::Bits(BooleanBufferBuilder::new(rows)),
            DataType::Varchar { .. } | DataType::Json => Values::Text(StringBuilder::with_capacity(rows, rows)),
            DataType::Array { element, .. } => {
                Values::List { ends: vec![0], items: Box::new(Self::new(element.into(), false, rows)) }
            }
            DataType::FloatVector { dim } if apart => {
                let dim = dim as usize;
                Values::Vector { data: Vec::with_capacity((rows * dim).min(1 << 22)), dim }
            }
            DataType::SparseFloatVector => {
                Values::Sparse { ends: vec![0], pairs: MutableBuffer::with_capacity(rows * 64) }
            }
            vector if vector.is_vector() => {
                let (item, len) = items(vector);
                let width = item.primitive_width().expect("vectors are of numbers") * len;
                Values::Dense { bytes: MutableBuffer::with_capacity((rows * width).min(1 << 24)), width }
            }
            _ => Values::Numbers(MutableBuffer::with_capacity(rows * 8)),
        };
        Self { data_type, values, nulls: NullBufferBuilder::new(rows) }
    }

    /// Adds a null. Never to vectors that are kept apart.
    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Bits(bits) => bits.append(false),
            Values::Numbers(numbers) => numbers.extend_zeros(width(self.data_type)),
            Values::Text(text) => return text.append_null(),
            Values::List { ends, .. } | Values::Sparse { ends, .. } => ends.push(ends.last().copied().unwrap_or(0)),
            Values::Dense { bytes, width } => bytes.extend_zeros(*width),
            Values::Vector { .. } => unreachable!("a vector field that is kept apart is not nullable"),
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
            Values::Dense { bytes, width } => push_dense(self.data_type, bytes, *width, cell)?,
            Values::Sparse { ends, pairs } => push_sparse(ends, pairs, cell)?,
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
            Values::Dense { bytes, width } => {
                let rows = bytes.len() / width;
                let ArrowType::FixedSizeList(item, len) = arrow_type(self.data_type) else {
                    unreachable!("a dense vector is a list of fixed size")
                };
                let items = numbers_array(item.data_type().clone(), rows * len as usize, bytes, None);
                Arc::new(FixedSizeListArray::new(item, len, items, nulls))
            }
            Values::Sparse { ends, pairs } => {
                let ArrowType::List(item) = arrow_type(self.data_type) else {
                    unreachable!("a sparse vector is a list of pairs")
                };
                let items = numbers_array(ArrowType::UInt64, pairs.len() / 8, pairs, None);
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
        let mut column = Self::new(data_type, false, 1);
        column.push(Cell::from(value))?;
        Ok(match column.finish() {
            Finished::Scalar(array) => scalar(array.as_ref(), data_type, 0),
            Finished::Vector { .. } => unreachable!("nothing is kept apart here"),
        })
    }
}

/// A column of `rows` rows that lack `field`. Not for fields that are kept apart, or that rows must have.
pub(crate) fn absent(field: &Field, rows: usize) -> ArrayRef {
    let mut column = Column::new(field.data_type, false, rows);
    for _ in 0..rows {
        match &field.default {
            Some(default) => drop(column.push(Cell::from(default)).expect("a default fits its field")),
            None => column.push_null(),
        }
    }
    match column.finish() {
        Finished::Scalar(array) => array,
        Finished::Vector { .. } => unreachable!("nothing is kept apart here"),
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

/// Adds a dense vector as it is kept, and tells how many bytes that takes.
fn push_dense(data_type: DataType, bytes: &mut MutableBuffer, width: usize, cell: Cell<'_>) -> Result<usize, String> {
    let (item, len) = items(data_type);
    let start = bytes.len();
    match cell {
        Cell::Bytes(raw) if raw.len() == width => bytes.extend_from_slice(raw),
        Cell::Bytes(raw) => return Err(format!("a vector of {} bytes, expected {width}", raw.len())),
        // Bits of 16 are such ones, whichever of the two kinds of floats the field has.
        Cell::List { column, start, len: given, normalized: false }
            if given == len
                && column.null_count() == 0
                && (column.data_type() == &item || width == 2 * len && column.data_type() == &ArrowType::UInt16) =>
        {
            let raw = number_bytes(column).expect("a column of numbers");
            bytes.extend_from_slice(&raw[start * (width / len)..(start + len) * (width / len)]);
        }
        cell => {
            if let DataType::FloatVector { dim } = data_type {
                let mut numbers = Vec::with_capacity(len);
                push_vector(&mut numbers, dim as usize, cell)?;
                numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
                return Ok(width);
            }
            let what = if item == ArrowType::UInt8 { "bytes" } else { "numbers" };
            let Some(given) = cell.list_len() else {
                return cell.expected(format_args!("a vector of {len} {what}"));
            };
            if given != len {
                return Err(format!("a vector of {given} {what}, expected {len}"));
            }
            for at in 0..len {
                let number = match cell.item(at) {
                    Cell::Int(value) => value as f64,
                    Cell::Double(value) => value,
                    other => return other.expected(format_args!("a number at {at}")),
                };
                let (least, most) = match item {
                    ArrowType::UInt8 => (0.0, 255.0),
                    _ => (-128.0, 127.0),
                };
                match item {
                    ArrowType::Float16 => bytes.extend_from_slice(&half::f16::from_f64(number).to_le_bytes()),
                    ArrowType::UInt16 => bytes.extend_from_slice(&half::bf16::from_f64(number).to_le_bytes()),
                    _ if number.fract() == 0.0 && (least..=most).contains(&number) => bytes.push(number as i16 as u8),
                    _ => return Err(format!("number {at} is {number}, expected an integer from {least} to {most}")),
                }
            }
        }
    }
    // All bits of the exponent are set in what is infinite or no number.
    let exponent: u32 = match item {
        ArrowType::Float16 => 0x7c00,
        ArrowType::UInt16 => 0x7f80,
        ArrowType::Float32 => 0x7f80_0000,
        _ => return Ok(width),
    };
    for (at, number) in bytes[start..].chunks_exact(width / len).enumerate() {
        let bits = number.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        if bits & exponent == exponent {
            return Err(format!("number {at} is out of range, expected finite floats of {} bits", width / len * 8));
        }
    }
    Ok(width)
}

/// The numbers of dense vectors, from the bytes that they are kept in.
pub(crate) fn widen(item: &ArrowType, bytes: &[u8], numbers: &mut [f32]) {
    match item {
        ArrowType::Float16 => widen_f16(bytes, numbers),
        ArrowType::UInt16 => {
            for (number, half) in numbers.iter_mut().zip(bytes.as_chunks().0) {
                *number = f32::from_bits(u32::from(u16::from_le_bytes(*half)) << 16);
            }
        }
        ArrowType::Int8 => numbers.iter_mut().zip(bytes).for_each(|(number, &byte)| *number = f32::from(byte as i8)),
        _ => {
            for (number, bytes) in numbers.iter_mut().zip(bytes.as_chunks().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
    }
}

/// A pair as a number: ordered like their indexes.
fn pair(index: u32, value: f32) -> u64 {
    u64::from(value.to_bits()) << 32 | u64::from(index)
}

/// The reverse of [`pair`].
pub(crate) fn unpair(pair: u64) -> (u32, f32) {
    (pair as u32, f32::from_bits((pair >> 32) as u32))
}

/// Adds a sparse vector, and tells how many bytes it takes.
fn push_sparse(ends: &mut Vec<i32>, pairs: &mut MutableBuffer, cell: Cell<'_>) -> Result<usize, String> {
    let expected = "a sparse vector: indexes and their numbers";
    let number = |cell: Cell<'_>, index: u32| match cell {
        Cell::Int(value) => Ok(value as f32),
        Cell::Double(value) => Ok(value as f32),
        other => other.expected(format_args!("a number at index {index}")),
    };
    let index_of = |cell: Cell<'_>| match cell {
        Cell::Int(index) if (0..i64::from(u32::MAX)).contains(&index) => Ok(index as u32),
        other => other.expected(format_args!("an index from 0 to {}", u32::MAX - 1)),
    };
    let mut found: Vec<(u32, f32)> = Vec::new();
    match cell {
        Cell::Sparse(given) => found.extend_from_slice(given),
        Cell::List { column, start, len, .. }
            if column.data_type() == &ArrowType::UInt64 && column.null_count() == 0 =>
        {
            found.extend(
                column.as_primitive::<UInt64Type>().values()[start..start + len].iter().map(|&one| unpair(one)),
            );
        }
        Cell::Json(Json::Object(entries)) => {
            for (key, value) in entries {
                let index = key.parse().map_or(Cell::Text(key), Cell::Int);
                let index = index_of(index)?;
                found.push((index, number(Cell::from(value), index)?));
            }
            sort_by_key(&mut found, |(index, _)| *index);
        }
        Cell::Json(Json::Array(items)) => {
            for item in items {
                let Json::Array(item) = item else {
                    return Cell::from(item).expected("a pair of an index and a number");
                };
                let [index, value] = item.as_slice() else {
                    return Err(format!("{} values, expected a pair of an index and a number", item.len()));
                };
                let index = index_of(Cell::from(index))?;
                found.push((index, number(Cell::from(value), index)?));
            }
        }
        other => return other.expected(expected),
    }
    if found.len() > PAIRS_MAX {
        return Err(format!("a sparse vector of {} pairs, at most {PAIRS_MAX} are allowed", found.len()));
    }
    for (at, &(index, value)) in found.iter().enumerate() {
        if at > 0 && found[at - 1].0 >= index {
            return Err(format!("index {index} after {}, but indexes ascend and none comes twice", found[at - 1].0));
        }
        if index == u32::MAX || !value.is_finite() {
            return Err(format!("{value} at index {index}, expected finite 32-bit floats below index {}", u32::MAX));
        }
        pairs.extend_from_slice(&pair(index, value).to_le_bytes());
    }
    let end = ends.last().map_or(0, |&end| end as usize) + found.len();
    if end > ITEMS_MAX {
        return Err(format!("its column holds more than {ITEMS_MAX} pairs: make batches smaller"));
    }
    ends.push(end as i32);
    Ok(4 + found.len() * 8)
}

/// The value of a row in a finished column.
pub fn scalar(array: &dyn Array, data_type: DataType, row: usize) -> Value {
    if data_type.is_vector() {
        return match cell(array, row, false) {
            Cell::List { column, start, len, .. } => {
                let bytes = number_bytes(column).expect("vectors are of numbers");
                let width = column.data_type().primitive_width().unwrap_or(1);
                let bytes = &bytes[start * width..(start + len) * width];
                match data_type {
                    DataType::BinaryVector { .. } => Value::Bytes(bytes.to_vec()),
                    DataType::SparseFloatVector => Value::Sparse(
                        bytes.as_chunks().0.iter().map(|pair| unpair(u64::from_le_bytes(*pair))).collect(),
                    ),
                    _ => {
                        let mut numbers = vec![0.0; len];
                        widen(column.data_type(), bytes, &mut numbers);
                        Value::Vector(numbers)
                    }
                }
            }
            _ => Value::Null,
        };
    }
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
    let len = match cell {
        Cell::Bytes(bytes) if bytes.len() % 4 == 0 => Some(bytes.len() / 4),
        _ => cell.list_len(),
    };
    let Some(len) = len else { return cell.expected(format_args!("a vector of {dim} numbers")) };
    if len != dim {
        return Err(format!("a vector of {len} numbers, expected {dim}"));
    }
    let before = data.len();
    match cell {
        Cell::Floats(values) => data.extend_from_slice(values),
        Cell::Bytes(bytes) => data.extend(bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number))),
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
