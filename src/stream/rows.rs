use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array, RecordBatch,
    RecordBatchOptions, StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType as ArrowType, Field as ArrowField, Schema as ArrowSchema, SchemaRef};

use super::plan::Relation;
use super::state::{Reader, Writer};
use crate::base::{Error, Result};
use crate::model::{DataType, Field};

/// Rows on their way from one node to the next.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Their values.
    pub batch: RecordBatch,
    /// Their event times, in microseconds.
    pub times: Arc<[i64]>,
    /// Whether each is taken back; `None` for none of them.
    pub taken_back: Option<Arc<[bool]>>,
}

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    pub(super) fn is_taken_back(&self, row: usize) -> bool {
        self.taken_back.as_ref().is_some_and(|taken| taken[row])
    }

    /// The rows at `picks`, in that order.
    pub(super) fn take(&self, picks: &[u32]) -> Self {
        if picks.len() == self.len() && picks.iter().enumerate().all(|(at, &row)| at == row as usize) {
            return self.clone();
        }
        Self {
            batch: crate::model::gather::take(&self.batch, picks),
            times: picks.iter().map(|&row| self.times[row as usize]).collect(),
            taken_back: self.taken_back.as_ref().map(|taken| picks.iter().map(|&row| taken[row as usize]).collect()),
        }
    }

    /// Appends the rows to `out`, from which [`Self::read`] has them again: of each its length (LEB128), its time (8), 1 when it is taken
    /// back, and its values as states have them.
    pub fn write(&self, out: &mut Vec<u8>) {
        let views = View::all(&self.batch);
        for at in 0..self.len() {
            let mut row = Writer::default();
            row.i64(self.times[at]);
            row.u8(self.is_taken_back(at).into());
            write_row(&views, at, &mut row);
            let mut framed = Writer(std::mem::take(out));
            framed.bytes(&row.0);
            *out = framed.0;
        }
    }

    /// The rows in `bytes`, which are those of `relation`.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are none.
    pub fn read(bytes: &[u8], relation: &Relation) -> Result<Self> {
        let mut making = Making::new(&arrow_schema(&relation.fields), &relation.fields);
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            let mut row = Reader::new(reader.bytes()?);
            let (time, taken_back) = (row.i64()?, row.bool()?);
            let values = making.put_row(0, row.rest())?;
            if values != relation.fields.len() {
                let expected = relation.fields.len();
                return Err(Error::corrupt(format!("a row of {values} values, expected {expected}")));
            }
            making.end_row(time, taken_back);
        }
        let none = || {
            let (batch, _) = relation.batch(&[]);
            Self { batch, times: [].into(), taken_back: None }
        };
        Ok(making.finish().unwrap_or_else(none))
    }

    /// The same rows with other columns.
    pub(super) fn with(&self, schema: &SchemaRef, columns: Vec<ArrayRef>) -> Self {
        Self { batch: batch_of(schema, columns, self.len()), ..self.clone() }
    }
}

/// Columns of the types that the schema says.
pub(super) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .expect("columns of the schema's types and one length")
}

/// The Arrow schema of `fields`. Every column may have nulls: what is checked is checked where rows come in.
pub(super) fn arrow_schema(fields: &[Field]) -> SchemaRef {
    let fields = fields
        .iter()
        .map(|field| ArrowField::new(&field.name, crate::model::column::arrow_type(field.data_type), true));
    Arc::new(ArrowSchema::new(fields.collect::<Vec<_>>()))
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(&'a str),
    Vector(&'a [f32]),
}

/// One value that is kept.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Box<str>),
    Vector(Box<[f32]>),
}

impl<'a> Cell<'a> {
    pub fn is_null(self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn keep(self) -> Scalar {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(value) => Scalar::Bool(value),
            Self::Int(int) => Scalar::Int(int),
            Self::Double(double) => Scalar::Double(double),
            Self::Text(text) => Scalar::Text(text.into()),
            Self::Vector(numbers) => Scalar::Vector(numbers.into()),
        }
    }

    /// Null is greater than all.
    pub fn order(self, other: Cell<'_>) -> Ordering {
        match (self, other) {
            (Self::Int(left), Cell::Int(right)) => left.cmp(&right),
            // -0 equals 0.
            (Self::Double(left), Cell::Double(right)) => left.partial_cmp(&right).unwrap_or(Ordering::Equal),
            (Self::Text(left), Cell::Text(right)) => left.cmp(right),
            (Self::Bool(left), Cell::Bool(right)) => left.cmp(&right),
            (left, right) => left.is_null().cmp(&right.is_null()),
        }
    }

    /// Appends what tells it apart from all other values of its type; equal values have equal bytes.
    pub fn write(self, out: &mut Writer) {
        match self {
            Self::Null => out.u8(0),
            Self::Bool(value) => out.u8(1 + u8::from(value)),
            Self::Int(int) => {
                out.u8(3);
                out.i64(int);
            }
            Self::Double(double) => {
                out.u8(4);
                // There is one zero.
                out.i64((double + 0.0).to_bits() as i64);
            }
            Self::Text(text) => {
                out.u8(5);
                out.bytes(text.as_bytes());
            }
            Self::Vector(numbers) => {
                out.u8(6);
                out.len(numbers.len());
                numbers.iter().for_each(|number| out.0.extend_from_slice(&number.to_le_bytes()));
            }
        }
    }
}

impl Scalar {
    pub fn cell(&self) -> Cell<'_> {
        match self {
            Self::Null => Cell::Null,
            Self::Bool(value) => Cell::Bool(*value),
            Self::Int(int) => Cell::Int(*int),
            Self::Double(double) => Cell::Double(*double),
            Self::Text(text) => Cell::Text(text),
            Self::Vector(numbers) => Cell::Vector(numbers),
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(match reader.u8()? {
            0 => Self::Null,
            1 => Self::Bool(false),
            2 => Self::Bool(true),
            3 => Self::Int(reader.i64()?),
            4 => Self::Double(f64::from_bits(reader.i64()? as u64)),
            5 => Self::Text(reader.text()?.into()),
            6 => {
                let bytes = reader.len()?.checked_mul(4).ok_or_else(|| Error::corrupt("a vector of no length"))?;
                let (numbers, _) = reader.take(bytes)?.as_chunks::<4>();
                Self::Vector(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
            other => return Err(Error::corrupt(format!("a value of kind {other}"))),
        })
    }

    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(int) => (*int).into(),
            Self::Double(double) => (*double).into(),
            Self::Text(text) => (**text).into(),
            Self::Vector(numbers) => numbers.iter().map(|&number| serde_json::Value::from(f64::from(number))).collect(),
        }
    }
}

enum Values<'a> {
    Bools(&'a BooleanArray),
    Ints(&'a [i64]),
    Doubles(&'a [f64]),
    Texts(&'a StringArray),
    Vectors(&'a [f32], usize),
}

/// A column whose type was looked at once.
pub(super) struct View<'a> {
    values: Values<'a>,
    nulls: Option<&'a NullBuffer>,
}

impl<'a> View<'a> {
    pub fn new(array: &'a ArrayRef) -> Self {
        let values = match array.data_type() {
            ArrowType::Boolean => Values::Bools(array.as_boolean()),
            ArrowType::Int64 => Values::Ints(array.as_primitive::<Int64Type>().values()),
            ArrowType::Timestamp(..) => Values::Ints(array.as_primitive::<TimestampMicrosecondType>().values()),
            ArrowType::Float64 => Values::Doubles(array.as_primitive::<Float64Type>().values()),
            ArrowType::FixedSizeList(_, dim) => {
                let (lists, dim) = (array.as_fixed_size_list(), *dim as usize);
                let start = if lists.is_empty() { 0 } else { lists.value_offset_at(0) };
                Values::Vectors(&lists.values().as_primitive::<Float32Type>().values()[start..], dim)
            }
            _ => Values::Texts(array.as_string::<i32>()),
        };
        Self { values, nulls: array.nulls().filter(|nulls| nulls.null_count() > 0) }
    }

    pub fn all(batch: &'a RecordBatch) -> Vec<Self> {
        batch.columns().iter().map(Self::new).collect()
    }

    pub fn some(batch: &'a RecordBatch, at: &[usize]) -> Vec<Self> {
        at.iter().map(|&at| Self::new(batch.column(at))).collect()
    }

    #[inline]
    pub fn cell(&self, row: usize) -> Cell<'a> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return Cell::Null;
        }
        match &self.values {
            Values::Bools(bools) => Cell::Bool(bools.value(row)),
            Values::Ints(ints) => Cell::Int(ints[row]),
            Values::Doubles(doubles) => Cell::Double(doubles[row]),
            Values::Texts(texts) => Cell::Text(texts.value(row)),
            Values::Vectors(numbers, dim) => Cell::Vector(&numbers[row * dim..(row + 1) * dim]),
        }
    }
}

/// The values of `views` in one row, one after the other.
pub(super) fn write_row(views: &[View<'_>], row: usize, out: &mut Writer) {
    views.iter().for_each(|view| view.cell(row).write(out));
}

/// A column that grows by a value at a time.
pub(super) struct Build {
    data_type: DataType,
    valid: Vec<bool>,
    bools: Vec<bool>,
    ints: Vec<i64>,
    doubles: Vec<f64>,
    text: Vec<u8>,
    ends: Vec<i32>,
    numbers: Vec<f32>,
}

impl Build {
    pub fn new(data_type: DataType) -> Self {
        Self {
            data_type,
            valid: vec![],
            bools: vec![],
            ints: vec![],
            doubles: vec![],
            text: vec![],
            ends: vec![0],
            numbers: vec![],
        }
    }

    pub fn of(fields: &[Field]) -> Vec<Self> {
        fields.iter().map(|field| Self::new(field.data_type)).collect()
    }

    /// A value of its type, or null.
    pub fn push(&mut self, cell: Cell<'_>) {
        self.valid.push(!cell.is_null());
        match self.data_type {
            DataType::Bool => self.bools.push(cell == Cell::Bool(true)),
            DataType::Int64 | DataType::Timestamp => self.ints.push(match cell {
                Cell::Int(int) => int,
                _ => 0,
            }),
            DataType::Double => self.doubles.push(match cell {
                Cell::Double(double) => double,
                _ => 0.0,
            }),
            DataType::FloatVector { dim } => match cell {
                Cell::Vector(numbers) if numbers.len() == dim as usize => self.numbers.extend_from_slice(numbers),
                _ => self.numbers.resize(self.numbers.len() + dim as usize, 0.0),
            },
            _ => {
                if let Cell::Text(text) = cell {
                    self.text.extend_from_slice(text.as_bytes());
                }
                self.ends.push(self.text.len() as i32);
            }
        }
    }

    pub fn finish(self) -> ArrayRef {
        let rows = self.valid.len();
        let nulls = (!self.valid.iter().all(|valid| *valid)).then(|| NullBuffer::from(self.valid));
        match self.data_type {
            DataType::Bool => Arc::new(BooleanArray::new(self.bools.into(), nulls)),
            DataType::Int64 => Arc::new(Int64Array::new(self.ints.into(), nulls)),
            DataType::Timestamp => {
                Arc::new(TimestampMicrosecondArray::new(self.ints.into(), nulls).with_timezone("UTC"))
            }
            DataType::Double => Arc::new(Float64Array::new(self.doubles.into(), nulls)),
            DataType::FloatVector { dim } => {
                let item = Arc::new(ArrowField::new("item", ArrowType::Float32, false));
                let numbers = Float32Array::new(self.numbers.into(), None);
                debug_assert_eq!(numbers.len(), rows * dim as usize);
                Arc::new(FixedSizeListArray::new(item, dim as i32, Arc::new(numbers), nulls))
            }
            _ => Arc::new(StringArray::new(OffsetBuffer::new(self.ends.into()), self.text.into(), nulls)),
        }
    }
}

/// Rows that are made one after the other.
pub(super) struct Making {
    schema: SchemaRef,
    columns: Vec<Build>,
    fields: Vec<Field>,
    times: Vec<i64>,
    taken_back: Vec<bool>,
}

impl Making {
    pub fn new(schema: &SchemaRef, fields: &[Field]) -> Self {
        Self {
            schema: schema.clone(),
            columns: Build::of(fields),
            fields: fields.to_vec(),
            times: vec![],
            taken_back: vec![],
        }
    }

    /// Ends the row whose values were put into the columns.
    pub fn end_row(&mut self, time: i64, taken_back: bool) {
        self.times.push(time);
        self.taken_back.push(taken_back);
    }

    pub fn column(&mut self, at: usize) -> &mut Build {
        &mut self.columns[at]
    }

    /// Puts the values that [`write_row`] wrote into the columns from `at` on.
    pub fn put_row(&mut self, at: usize, bytes: &[u8]) -> Result<usize> {
        let mut reader = Reader::new(bytes);
        let mut next = at;
        while !reader.is_empty() {
            let value = Scalar::read(&mut reader)?;
            let Some(column) = self.columns.get_mut(next) else {
                return Err(Error::corrupt("a row of too many values"));
            };
            column.push(value.cell());
            next += 1;
        }
        Ok(next)
    }

    /// What was made, and nothing is left; `None` when there is nothing.
    pub fn finish(&mut self) -> Option<Rows> {
        if self.times.is_empty() {
            return None;
        }
        let columns = std::mem::replace(&mut self.columns, Build::of(&self.fields));
        let times = std::mem::take(&mut self.times);
        let taken_back = std::mem::take(&mut self.taken_back);
        let columns = columns.into_iter().map(Build::finish).collect();
        Some(Rows {
            batch: batch_of(&self.schema, columns, times.len()),
            times: times.into(),
            taken_back: taken_back.contains(&true).then(|| taken_back.into()),
        })
    }
}
