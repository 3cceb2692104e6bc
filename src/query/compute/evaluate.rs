use std::cmp::Ordering;
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow_buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow_schema::{DataType as ArrowType, Field as ArrowField};

use super::bind::Bound;
use super::{Computed, Function};
use crate::model::path::value_at;
use crate::model::{DataType, Value, time};
use crate::query::expression::Arithmetic;
use crate::query::number::compare_exact;

/// A column, or one value for all rows.
enum Data {
    Bools(BooleanBuffer),
    Ints(ScalarBuffer<i64>),
    Doubles(ScalarBuffer<f64>),
    Texts(StringArray),
    Vectors(Float32Array, usize),
    One(Value),
}

struct Lane {
    data: Data,
    nulls: Option<NullBuffer>,
}

/// One value of a lane.
#[derive(Clone, Copy)]
enum Cell<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(&'a str),
    Vector(&'a [f32]),
}

/// One result.
enum Out {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(String),
}

impl Computed {
    /// Its values for the rows of `batch`, whose columns are those it was bound to.
    ///
    /// # Panics
    /// When `batch` lacks a column, or has another type there.
    pub fn evaluate(&self, batch: &RecordBatch) -> ArrayRef {
        if let Bound::Column(at) = self.bound {
            return batch.column(at).clone();
        }
        let rows = batch.num_rows();
        self.lane(batch).into_array(self.data_type, rows)
    }

    /// The rows for which it, a condition, is true: not those where it is null.
    pub fn truth(&self, batch: &RecordBatch) -> BooleanBuffer {
        let rows = batch.num_rows();
        let lane = self.lane(batch);
        let truth = match lane.data {
            Data::Bools(bits) => bits,
            Data::One(Value::Bool(true)) => BooleanBuffer::new_set(rows),
            _ => BooleanBuffer::new_unset(rows),
        };
        match lane.nulls {
            Some(nulls) => &truth & nulls.inner(),
            None => truth,
        }
    }

    fn lane(&self, batch: &RecordBatch) -> Lane {
        let rows = batch.num_rows();
        match &self.bound {
            Bound::Column(at) => Lane::of(batch.column(*at)),
            Bound::Literal(value) => Lane { data: Data::One(value.clone()), nulls: None },
            Bound::Condition(filter) => {
                let mask = filter.evaluate(batch);
                let bits = BooleanBuffer::collect_bool(rows, |row| mask.contains(row));
                Lane { data: Data::Bools(bits), nulls: None }
            }
            Bound::Call(function, arguments) => {
                let lanes: Vec<Lane> = arguments.iter().map(|argument| argument.lane(batch)).collect();
                fast(*function, &lanes, rows).unwrap_or_else(|| {
                    let mut cells = Vec::with_capacity(lanes.len());
                    Lane::collect(self.data_type, rows, |row| {
                        // The cells borrow from the lanes, which outlive the loop.
                        cells.clear();
                        cells.extend(lanes.iter().map(|lane| lane.cell(row)));
                        called(*function, &cells, self.data_type)
                    })
                })
            }
            Bound::Like(text, pattern) => {
                let lane = text.lane(batch);
                Lane::collect(DataType::Bool, rows, |row| match lane.cell(row) {
                    Cell::Text(text) => Out::Bool(pattern.matches(text)),
                    _ => Out::Null,
                })
            }
            Bound::Json(function, json, steps) => {
                let lane = json.lane(batch);
                Lane::collect(self.data_type, rows, |row| {
                    let Cell::Text(text) = lane.cell(row) else { return Out::Null };
                    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else { return Out::Null };
                    let Some(found) = value_at(&json, steps) else { return Out::Null };
                    match function {
                        Function::JsonInt => found.as_i64().map_or(Out::Null, Out::Int),
                        Function::JsonDouble => found.as_f64().map_or(Out::Null, Out::Double),
                        _ => match found {
                            serde_json::Value::Null => Out::Null,
                            serde_json::Value::String(text) => Out::Text(text.clone()),
                            other => Out::Text(other.to_string()),
                        },
                    }
                })
            }
            Bound::Case(branches, otherwise) => {
                let branches: Vec<(BooleanBuffer, Lane)> =
                    branches.iter().map(|(when, value)| (when.truth(batch), value.lane(batch))).collect();
                let otherwise = otherwise.as_ref().map(|value| value.lane(batch));
                if self.data_type.is_vector() {
                    return Lane::vectors(self.data_type, rows, |row| {
                        let chosen = branches.iter().find(|(when, _)| when.value(row)).map(|(_, lane)| lane);
                        chosen.or(otherwise.as_ref()).map_or(Cell::Null, |lane| lane.cell(row))
                    });
                }
                Lane::collect(self.data_type, rows, |row| {
                    let chosen = branches.iter().find(|(when, _)| when.value(row)).map(|(_, lane)| lane);
                    chosen.or(otherwise.as_ref()).map_or(Out::Null, |lane| lane.cell(row).out(self.data_type))
                })
            }
        }
    }
}

impl Lane {
    fn of(array: &ArrayRef) -> Self {
        let data = match array.data_type() {
            ArrowType::Boolean => Data::Bools(array.as_boolean().values().clone()),
            ArrowType::Int64 => Data::Ints(array.as_primitive::<Int64Type>().values().clone()),
            ArrowType::Timestamp(..) => Data::Ints(array.as_primitive::<TimestampMicrosecondType>().values().clone()),
            ArrowType::Float64 => Data::Doubles(array.as_primitive::<Float64Type>().values().clone()),
            ArrowType::FixedSizeList(_, dim) => {
                let lists = array.as_fixed_size_list();
                let (start, len) = (lists.value_offset_at(0), lists.len() * *dim as usize);
                let numbers = lists.values().as_primitive::<Float32Type>().slice(start, len);
                Data::Vectors(numbers, *dim as usize)
            }
            _ => Data::Texts(array.as_string::<i32>().clone()),
        };
        Self { data, nulls: array.nulls().cloned() }
    }

    #[inline]
    fn cell(&self, row: usize) -> Cell<'_> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Cell::Null;
        }
        match &self.data {
            Data::Bools(bits) => Cell::Bool(bits.value(row)),
            Data::Ints(ints) => Cell::Int(ints[row]),
            Data::Doubles(doubles) => Cell::Double(doubles[row]),
            Data::Texts(texts) => Cell::Text(texts.value(row)),
            Data::Vectors(numbers, dim) => Cell::Vector(&numbers.values()[row * dim..(row + 1) * dim]),
            Data::One(value) => match value {
                Value::Bool(value) => Cell::Bool(*value),
                Value::Int(int) => Cell::Int(*int),
                Value::Double(double) => Cell::Double(*double),
                Value::String(text) => Cell::Text(text),
                Value::Vector(numbers) => Cell::Vector(numbers),
                _ => Cell::Null,
            },
        }
    }

    /// What `result` says of each row. Not for vectors.
    fn collect(data_type: DataType, rows: usize, mut result: impl FnMut(usize) -> Out) -> Self {
        let mut valid = vec![true; rows];
        let data = match data_type {
            DataType::Bool => Data::Bools(BooleanBuffer::collect_bool(rows, |row| match result(row) {
                Out::Bool(value) => value,
                _ => {
                    valid[row] = false;
                    false
                }
            })),
            DataType::Int64 | DataType::Timestamp => {
                let ints = (0..rows).map(|row| match result(row) {
                    Out::Int(int) => int,
                    _ => {
                        valid[row] = false;
                        0
                    }
                });
                Data::Ints(ints.collect())
            }
            DataType::Double => {
                let doubles = (0..rows).map(|row| match result(row) {
                    Out::Double(double) if double.is_finite() => double,
                    Out::Int(int) => int as f64,
                    _ => {
                        valid[row] = false;
                        0.0
                    }
                });
                Data::Doubles(doubles.collect())
            }
            _ => {
                let mut builder = StringBuilder::with_capacity(rows, rows * 8);
                for (row, valid) in valid.iter_mut().enumerate() {
                    match result(row) {
                        Out::Text(text) => builder.append_value(text),
                        _ => {
                            *valid = false;
                            builder.append_value("");
                        }
                    }
                }
                Data::Texts(builder.finish())
            }
        };
        let nulls = (!valid.iter().all(|valid| *valid)).then(|| NullBuffer::from(valid));
        Self { data, nulls }
    }

    fn vectors<'c>(data_type: DataType, rows: usize, mut result: impl FnMut(usize) -> Cell<'c>) -> Self {
        let dim = data_type.dim().unwrap_or(0) as usize;
        let mut numbers: Vec<f32> = Vec::with_capacity(rows * dim);
        let valid: Vec<bool> = (0..rows)
            .map(|row| match result(row) {
                Cell::Vector(values) => {
                    numbers.extend_from_slice(values);
                    true
                }
                _ => {
                    numbers.resize(numbers.len() + dim, 0.0);
                    false
                }
            })
            .collect();
        Self { data: Data::Vectors(Float32Array::new(numbers.into(), None), dim), nulls: Some(NullBuffer::from(valid)) }
    }

    fn into_array(self, data_type: DataType, rows: usize) -> ArrayRef {
        let nulls = self.nulls;
        match (self.data, data_type) {
            (Data::Bools(bits), _) => Arc::new(BooleanArray::new(bits, nulls)),
            (Data::Ints(ints), DataType::Timestamp) => {
                Arc::new(TimestampMicrosecondArray::new(ints, nulls).with_timezone("UTC"))
            }
            // An integer where another branch is a double.
            (Data::Ints(ints), DataType::Double) => {
                Arc::new(Float64Array::new(ints.iter().map(|int| *int as f64).collect(), nulls))
            }
            (Data::Ints(ints), _) => Arc::new(Int64Array::new(ints, nulls)),
            (Data::Doubles(doubles), _) => Arc::new(Float64Array::new(doubles, nulls)),
            (Data::Texts(texts), _) => {
                let (offsets, bytes, _) = texts.into_parts();
                Arc::new(StringArray::new(offsets, bytes, nulls))
            }
            (Data::Vectors(numbers, dim), _) => {
                let item = Arc::new(ArrowField::new("item", ArrowType::Float32, false));
                Arc::new(FixedSizeListArray::new(item, dim as i32, Arc::new(numbers), nulls))
            }
            (Data::One(value), _) => {
                let one = Self { data: Data::One(value), nulls: None };
                if data_type.is_vector() {
                    return Self::vectors(data_type, rows, |_| one.cell(0)).into_array(data_type, rows);
                }
                Self::collect(data_type, rows, |_| one.cell(0).out(data_type)).into_array(data_type, rows)
            }
        }
    }

    /// Of integers.
    fn ints(&self) -> Option<Many<'_, i64>> {
        match &self.data {
            Data::Ints(ints) => Some(Many::Each(ints)),
            Data::One(Value::Int(int)) => Some(Many::One(*int)),
            _ => None,
        }
    }

    /// Of doubles.
    fn doubles(&self) -> Option<Many<'_, f64>> {
        match &self.data {
            Data::Doubles(doubles) => Some(Many::Each(doubles)),
            Data::One(Value::Double(double)) => Some(Many::One(*double)),
            Data::One(Value::Int(int)) => Some(Many::One(*int as f64)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
enum Many<'a, T> {
    Each(&'a [T]),
    One(T),
}

impl<T: Copy> Many<'_, T> {
    #[inline(always)]
    fn at(&self, row: usize) -> T {
        match self {
            Self::Each(values) => values[row],
            Self::One(value) => *value,
        }
    }
}

impl Cell<'_> {
    fn out(self, data_type: DataType) -> Out {
        match self {
            Cell::Null | Cell::Vector(_) => Out::Null,
            Cell::Bool(value) => Out::Bool(value),
            Cell::Int(int) if data_type == DataType::Double => Out::Double(int as f64),
            Cell::Int(int) => Out::Int(int),
            Cell::Double(double) => Out::Double(double),
            Cell::Text(text) => Out::Text(text.to_owned()),
        }
    }

    fn double(self) -> Option<f64> {
        match self {
            Cell::Int(int) => Some(int as f64),
            Cell::Double(double) => Some(double),
            _ => None,
        }
    }

    /// `None` when one is null, or the types do not fit.
    fn compare(self, other: Self) -> Option<Ordering> {
        Some(match (self, other) {
            (Cell::Int(left), Cell::Int(right)) => left.cmp(&right),
            (Cell::Double(left), Cell::Double(right)) => left.partial_cmp(&right)?,
            (Cell::Int(left), Cell::Double(right)) => compare_exact(left.into(), right)?,
            (Cell::Double(left), Cell::Int(right)) => compare_exact(right.into(), left)?.reverse(),
            (Cell::Text(left), Cell::Text(right)) => left.cmp(right),
            (Cell::Bool(left), Cell::Bool(right)) => left.cmp(&right),
            _ => return None,
        })
    }
}

fn arithmetic(function: Function) -> Option<Arithmetic> {
    Some(match function {
        Function::Add => Arithmetic::Add,
        Function::Sub => Arithmetic::Sub,
        Function::Mul => Arithmetic::Mul,
        Function::Div => Arithmetic::Div,
        Function::Rem => Arithmetic::Rem,
        _ => return None,
    })
}

fn holds(function: Function, order: Ordering) -> bool {
    match function {
        Function::Eq => order.is_eq(),
        Function::Ne => order.is_ne(),
        Function::Lt => order.is_lt(),
        Function::Le => order.is_le(),
        Function::Gt => order.is_gt(),
        _ => order.is_ge(),
    }
}

fn is_comparison(function: Function) -> bool {
    use Function as F;
    matches!(function, F::Eq | F::Ne | F::Lt | F::Le | F::Gt | F::Ge)
}

/// Whole columns of numbers at once, where that is what they are; `None` where each row must be looked at.
fn fast(function: Function, lanes: &[Lane], rows: usize) -> Option<Lane> {
    let [left, right] = lanes else { return None };
    let nulls = NullBuffer::union(left.nulls.as_ref(), right.nulls.as_ref());
    if let Some(arithmetic) = arithmetic(function) {
        let mut lost = Vec::new();
        let data = if let (Some(l), Some(r)) = (left.ints(), right.ints()) {
            let ints = (0..rows).map(|row| {
                arithmetic.ints(l.at(row), r.at(row)).unwrap_or_else(|| {
                    lost.push(row);
                    0
                })
            });
            Data::Ints(ints.collect())
        } else {
            let (l, r) = (left.doubles()?, right.doubles()?);
            let doubles = (0..rows).map(|row| {
                arithmetic.floats(l.at(row), r.at(row)).unwrap_or_else(|| {
                    lost.push(row);
                    0.0
                })
            });
            Data::Doubles(doubles.collect())
        };
        if lost.is_empty() {
            return Some(Lane { data, nulls });
        }
        let mut valid: Vec<bool> = nulls.map_or_else(|| vec![true; rows], |nulls| nulls.iter().collect());
        lost.iter().for_each(|row| valid[*row] = false);
        return Some(Lane { data, nulls: Some(NullBuffer::from(valid)) });
    }
    if is_comparison(function) {
        let bits = if let (Some(l), Some(r)) = (left.ints(), right.ints()) {
            compare_all(function, l, r, rows)
        } else if let (Data::Texts(texts), Data::One(Value::String(text))) = (&left.data, &right.data) {
            BooleanBuffer::collect_bool(rows, |row| holds(function, texts.value(row).cmp(text)))
        } else if let (Data::Doubles(_), Data::Doubles(_) | Data::One(Value::Double(_))) = (&left.data, &right.data) {
            compare_all(function, left.doubles()?, right.doubles()?, rows)
        } else {
            return None;
        };
        return Some(Lane { data: Data::Bools(bits), nulls });
    }
    if let (Function::And | Function::Or, Data::Bools(l), Data::Bools(r), None) =
        (function, &left.data, &right.data, &nulls)
    {
        let bits = if function == Function::And { l & r } else { l | r };
        return Some(Lane { data: Data::Bools(bits), nulls: None });
    }
    None
}

fn compare_all<T: Copy + PartialOrd>(function: Function, l: Many<'_, T>, r: Many<'_, T>, rows: usize) -> BooleanBuffer {
    match function {
        Function::Eq => BooleanBuffer::collect_bool(rows, |row| l.at(row) == r.at(row)),
        Function::Ne => BooleanBuffer::collect_bool(rows, |row| l.at(row) != r.at(row)),
        Function::Lt => BooleanBuffer::collect_bool(rows, |row| l.at(row) < r.at(row)),
        Function::Le => BooleanBuffer::collect_bool(rows, |row| l.at(row) <= r.at(row)),
        Function::Gt => BooleanBuffer::collect_bool(rows, |row| l.at(row) > r.at(row)),
        _ => BooleanBuffer::collect_bool(rows, |row| l.at(row) >= r.at(row)),
    }
}

/// `function` of one row.
fn called(function: Function, cells: &[Cell<'_>], data_type: DataType) -> Out {
    use Function as F;
    match function {
        F::IsNull => return Out::Bool(matches!(cells[0], Cell::Null)),
        F::And | F::Or => {
            let decides = function == F::Or;
            let mut unknown = false;
            for cell in cells {
                match cell {
                    Cell::Bool(value) if *value == decides => return Out::Bool(decides),
                    Cell::Bool(_) => {}
                    _ => unknown = true,
                }
            }
            return if unknown { Out::Null } else { Out::Bool(!decides) };
        }
        F::Coalesce => {
            let first = cells.iter().find(|cell| !matches!(cell, Cell::Null));
            return first.map_or(Out::Null, |cell| cell.out(data_type));
        }
        F::NullIf => {
            let same = cells[0].compare(cells[1]) == Some(Ordering::Equal);
            return if same { Out::Null } else { cells[0].out(data_type) };
        }
        F::Concat => {
            let texts = cells.iter().filter_map(|cell| match cell {
                Cell::Text(text) => Some(*text),
                _ => None,
            });
            return Out::Text(texts.collect());
        }
        F::In => {
            let [first, others @ ..] = cells else { return Out::Null };
            if matches!(first, Cell::Null) {
                return Out::Null;
            }
            if others.iter().any(|other| first.compare(*other) == Some(Ordering::Equal)) {
                return Out::Bool(true);
            }
            let unknown = others.iter().any(|other| matches!(other, Cell::Null));
            return if unknown { Out::Null } else { Out::Bool(false) };
        }
        _ => {}
    }
    if cells.iter().any(|cell| matches!(cell, Cell::Null)) {
        return Out::Null;
    }
    result(function, cells, data_type).unwrap_or(Out::Null)
}

/// Of cells that are not null; `None` when the result is.
fn result(function: Function, cells: &[Cell<'_>], data_type: DataType) -> Option<Out> {
    use Function as F;
    if is_comparison(function) {
        return Some(Out::Bool(holds(function, cells[0].compare(cells[1])?)));
    }
    if let Some(arithmetic) = arithmetic(function) {
        return match (cells[0], cells[1]) {
            (Cell::Int(left), Cell::Int(right)) => arithmetic.ints(left, right).map(Out::Int),
            (left, right) => arithmetic.floats(left.double()?, right.double()?).map(Out::Double),
        };
    }
    let text = |at: usize| match cells.get(at) {
        Some(Cell::Text(text)) => Some(*text),
        _ => None,
    };
    let int = |at: usize| match cells.get(at) {
        Some(Cell::Int(int)) => Some(*int),
        _ => None,
    };
    Some(match function {
        F::Not => match cells[0] {
            Cell::Bool(value) => Out::Bool(!value),
            _ => return None,
        },
        F::Neg => match cells[0] {
            Cell::Int(int) => Out::Int(int.checked_neg()?),
            cell => Out::Double(-cell.double()?),
        },
        F::Abs => match cells[0] {
            Cell::Int(int) => Out::Int(int.checked_abs()?),
            cell => Out::Double(cell.double()?.abs()),
        },
        F::Least | F::Greatest => {
            let wanted = if function == F::Least { Ordering::Less } else { Ordering::Greater };
            let mut best = cells[0];
            for cell in &cells[1..] {
                if cell.compare(best)? == wanted {
                    best = *cell;
                }
            }
            best.out(data_type)
        }
        F::ToInt => match cells[0] {
            Cell::Bool(value) => Out::Int(value.into()),
            Cell::Int(int) => Out::Int(int),
            // The doubles next to the ends of i64 are exact.
            Cell::Double(double) if (i64::MIN as f64..-(i64::MIN as f64)).contains(&double) => Out::Int(double as i64),
            Cell::Text(text) => Out::Int(text.trim().parse().ok()?),
            _ => return None,
        },
        F::ToDouble => match cells[0] {
            Cell::Text(text) => Out::Double(text.trim().parse().ok()?),
            cell => Out::Double(cell.double()?),
        },
        F::ToText => Out::Text(match cells[0] {
            Cell::Bool(value) => value.to_string(),
            Cell::Int(int) => int.to_string(),
            Cell::Double(double) => double.to_string(),
            Cell::Text(text) => text.to_owned(),
            Cell::Null | Cell::Vector(_) => return None,
        }),
        F::ToTimestamp => {
            let micros = match cells[0] {
                Cell::Int(int) => int,
                Cell::Text(text) => time::parse(text)?,
                _ => return None,
            };
            Out::Int(Some(micros).filter(|micros| (time::RANGE.0..=time::RANGE.1).contains(micros))?)
        }
        F::Floor | F::Ceil | F::Round => match cells[0] {
            Cell::Int(int) => Out::Int(int),
            cell => {
                let double = cell.double()?;
                Out::Double(match function {
                    F::Floor => double.floor(),
                    F::Ceil => double.ceil(),
                    _ => double.round(),
                })
            }
        },
        F::Sqrt => Out::Double(Some(cells[0].double()?).filter(|double| *double >= 0.0)?.sqrt()),
        F::Lower => Out::Text(text(0)?.to_lowercase()),
        F::Upper => Out::Text(text(0)?.to_uppercase()),
        F::Trim => Out::Text(text(0)?.trim().to_owned()),
        F::Length => Out::Int(text(0)?.chars().count() as i64),
        F::Substring => {
            let (text, from) = (text(0)?, int(1)?);
            let end = match cells.get(2) {
                Some(_) => from.saturating_add(int(2)?.max(0)),
                None => i64::MAX,
            };
            let (skip, end) = (from.max(1) - 1, end.max(1) - 1);
            Out::Text(text.chars().skip(skip as usize).take((end - skip).max(0) as usize).collect())
        }
        F::SplitPart => {
            let (text, delimiter, at) = (text(0)?, text(1)?, int(2)?);
            let at = usize::try_from(at.checked_sub(1)?).ok()?;
            if delimiter.is_empty() {
                return Some(Out::Text(if at == 0 { text.to_owned() } else { String::new() }));
            }
            Out::Text(text.split(delimiter).nth(at).unwrap_or_default().to_owned())
        }
        F::TimeFloor => {
            let (micros, unit) = (int(0)?, int(1)?);
            if unit <= 0 {
                return None;
            }
            Out::Int(micros.checked_sub(micros.rem_euclid(unit))?)
        }
        F::Year | F::Month | F::Day => {
            let (year, month, day) = time::date(int(0)?);
            Out::Int(match function {
                F::Year => year,
                F::Month => month,
                _ => day,
            })
        }
        F::Hour => Out::Int(int(0)?.rem_euclid(86_400_000_000) / 3_600_000_000),
        F::Minute => Out::Int(int(0)?.rem_euclid(3_600_000_000) / 60_000_000),
        F::Second => Out::Int(int(0)?.rem_euclid(60_000_000) / 1_000_000),
        F::CosineDistance | F::L2Distance | F::InnerProduct => {
            let (Cell::Vector(left), Cell::Vector(right)) = (cells[0], cells[1]) else { return None };
            Out::Double(distance(function, left, right)?)
        }
        F::Norm => {
            let Cell::Vector(vector) = cells[0] else { return None };
            Out::Double(dot(vector, vector).sqrt())
        }
        _ => return None,
    })
}

/// In order, in `f64`: the same bits on every target.
fn dot(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
}

/// The distance of two vectors, or their product, the same bits on every target; `None` for two of different lengths, and for the cosine
/// with one of zero length.
pub(crate) fn distance(function: Function, left: &[f32], right: &[f32]) -> Option<f64> {
    if left.len() != right.len() {
        return None;
    }
    Some(match function {
        Function::InnerProduct => dot(left, right),
        Function::L2Distance => {
            let squares = left.iter().zip(right).map(|(left, right)| {
                let difference = f64::from(*left) - f64::from(*right);
                difference * difference
            });
            squares.sum::<f64>().sqrt()
        }
        _ => {
            let norms = (dot(left, left) * dot(right, right)).sqrt();
            if norms == 0.0 {
                return None;
            }
            1.0 - (dot(left, right) / norms).clamp(-1.0, 1.0)
        }
    })
}
