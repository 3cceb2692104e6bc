use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::exact::Exact;
use super::plan::{AggregateFunction as Function, Measure};
use super::rows::{Cell, Scalar};
use super::sketch::{Digest, Distinct, hash_cell, key_of};
use super::state::{Reader, Writer};
use crate::base::{Error, Result};

/// What an aggregate knows of the rows of one key and window.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    Count(i64),
    /// The sum, and of how many.
    Ints(i128, i64),
    Doubles(Exact, i64),
    /// Sum, sum of squares, and of how many.
    Moments(Box<(Exact, Exact)>, i64),
    /// The extreme so far.
    Extreme(Scalar),
    /// The value and what it goes by.
    Edge(Option<Box<(Scalar, Scalar)>>),
    Digest(Box<Digest>),
    Distinct(Box<Distinct>),
    /// How many times each is there.
    Exactly(BTreeMap<Box<[u8]>, i64>),
    List(Vec<Scalar>),
    /// By what they go, the first first.
    Top(Vec<(Scalar, Scalar)>),
    /// Sums by dimension, how many vectors, and the sum of their squared lengths.
    Vectors(Box<[f64]>, i64, f64),
    /// The same, and the first vectors.
    Sample(Box<[f64]>, i64, Vec<Box<[f32]>>),
    /// Values with their vectors.
    Candidates(Vec<(Scalar, Box<[f32]>)>),
}

/// The window that drift is measured against.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Past {
    pub sums: Box<[f64]>,
    pub count: i64,
    pub sample: Vec<Box<[f32]>>,
}

/// `values` of the type that the input has: sums of integers are integers.
pub(super) fn start(function: Function, of_ints: bool) -> State {
    match function {
        Function::Count => State::Count(0),
        Function::Sum | Function::Avg if of_ints => State::Ints(0, 0),
        Function::Sum | Function::Avg => State::Doubles(Exact::default(), 0),
        Function::Variance { .. } | Function::StdDev { .. } => State::Moments(Box::default(), 0),
        Function::Min | Function::Max => State::Extreme(Scalar::Null),
        Function::First | Function::Last => State::Edge(None),
        Function::Quantile(_) => State::Digest(Box::default()),
        Function::ApproxCountDistinct => State::Distinct(Box::default()),
        Function::CountDistinct => State::Exactly(BTreeMap::new()),
        Function::Collect { .. } => State::List(vec![]),
        Function::Top { .. } => State::Top(vec![]),
        Function::Centroid | Function::Spread => State::Vectors(Box::default(), 0, 0.0),
        Function::Drift { .. } => State::Sample(Box::default(), 0, vec![]),
        Function::Nearest => State::Candidates(vec![]),
    }
}

fn double(cell: Cell<'_>) -> f64 {
    match cell {
        Cell::Int(int) => int as f64,
        Cell::Double(double) => double,
        _ => 0.0,
    }
}

fn add_vector(sums: &mut Box<[f64]>, numbers: &[f32]) {
    if sums.is_empty() {
        *sums = vec![0.0; numbers.len()].into();
    }
    sums.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += f64::from(*number));
}

fn add_sums(sums: &mut Box<[f64]>, others: &[f64]) {
    if sums.is_empty() {
        *sums = others.into();
    } else {
        sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
    }
}

/// Puts an entry where it belongs among at most `limit`.
fn rank(entries: &mut Vec<(Scalar, Scalar)>, by: Scalar, value: Scalar, limit: u32, ascending: bool) {
    let behind = |other: &Scalar| {
        let order = other.cell().order(by.cell());
        if ascending { order.is_le() } else { order.is_ge() }
    };
    let at = entries.partition_point(|(other, _)| behind(other));
    if at < limit as usize {
        entries.insert(at, (by, value));
        entries.truncate(limit as usize);
    }
}

impl State {
    /// Takes a row: its value, which is not null (of a count without input, any), what it goes by (its time without a `by`), and whether
    /// it is taken back.
    pub fn add(&mut self, function: Function, value: Cell<'_>, by: Cell<'_>, back: bool, scratch: &mut Writer) {
        let sign: i64 = if back { -1 } else { 1 };
        match self {
            Self::Count(count) => *count += sign,
            Self::Ints(sum, count) => {
                if let Cell::Int(int) = value {
                    *sum += i128::from(int) * i128::from(sign);
                }
                *count += sign;
            }
            Self::Doubles(sum, count) => {
                sum.add(double(value) * sign as f64);
                *count += sign;
            }
            Self::Moments(sums, count) => {
                let value = double(value);
                sums.0.add(value);
                sums.1.add_product(value, value);
                *count += 1;
            }
            Self::Extreme(extreme) => {
                let wanted = if function == Function::Min { Ordering::Less } else { Ordering::Greater };
                if *extreme == Scalar::Null || value.order(extreme.cell()) == wanted {
                    *extreme = value.keep();
                }
            }
            Self::Edge(edge) => {
                let wins = match edge {
                    None => true,
                    Some(edge) => match by.order(edge.1.cell()) {
                        Ordering::Less => function == Function::First,
                        Ordering::Equal => function == Function::Last,
                        Ordering::Greater => function == Function::Last,
                    },
                };
                if wins {
                    *edge = Some(Box::new((value.keep(), by.keep())));
                }
            }
            Self::Digest(digest) => digest.add(double(value)),
            Self::Distinct(distinct) => distinct.add(hash_cell(value, scratch)),
            Self::Exactly(values) => {
                scratch.0.clear();
                value.write(scratch);
                match values.get_mut(&scratch.0[..]) {
                    Some(count) => *count += 1,
                    None => {
                        values.insert(scratch.0[..].into(), 1);
                    }
                }
            }
            Self::List(values) => {
                if let Function::Collect { limit } = function
                    && values.len() < limit as usize
                {
                    values.push(value.keep());
                }
            }
            Self::Top(entries) => {
                if let Function::Top { limit, ascending } = function {
                    rank(entries, by.keep(), value.keep(), limit, ascending);
                }
            }
            Self::Vectors(sums, count, squares) => {
                if let Cell::Vector(numbers) = value {
                    add_vector(sums, numbers);
                    *count += 1;
                    *squares += numbers.iter().map(|number| f64::from(*number) * f64::from(*number)).sum::<f64>();
                }
            }
            Self::Sample(sums, count, sample) => {
                if let (Cell::Vector(numbers), Function::Drift { measure, .. }) = (value, function) {
                    add_vector(sums, numbers);
                    *count += 1;
                    if let Measure::Discrepancy { sample: most } = measure
                        && sample.len() < most as usize
                    {
                        sample.push(numbers.into());
                    }
                }
            }
            Self::Candidates(candidates) => {
                if let Cell::Vector(numbers) = by {
                    candidates.push((value.keep(), numbers.into()));
                }
            }
        }
    }

    /// Takes what another knows, whose rows come after these.
    pub fn merge(&mut self, function: Function, other: Self) {
        match (self, other) {
            (Self::Count(count), Self::Count(more)) => *count += more,
            (Self::Ints(sum, count), Self::Ints(more, rows)) => {
                *sum += more;
                *count += rows;
            }
            (Self::Doubles(sum, count), Self::Doubles(more, rows)) => {
                sum.merge(&more);
                *count += rows;
            }
            (Self::Moments(sums, count), Self::Moments(more, rows)) => {
                sums.0.merge(&more.0);
                sums.1.merge(&more.1);
                *count += rows;
            }
            (state @ Self::Extreme(_), Self::Extreme(extreme)) if extreme != Scalar::Null => {
                state.add(function, extreme.cell(), Cell::Null, false, &mut Writer::default());
            }
            (state @ Self::Edge(_), Self::Edge(Some(edge))) => {
                state.add(function, edge.0.cell(), edge.1.cell(), false, &mut Writer::default());
            }
            (Self::Digest(digest), Self::Digest(more)) => digest.merge(&more),
            (Self::Distinct(distinct), Self::Distinct(more)) => distinct.merge(&more),
            (Self::Exactly(values), Self::Exactly(more)) => {
                more.into_iter().for_each(|(value, count)| *values.entry(value).or_default() += count);
            }
            (Self::List(values), Self::List(more)) => {
                if let Function::Collect { limit } = function {
                    values.extend(more);
                    values.truncate(limit as usize);
                }
            }
            (Self::Top(entries), Self::Top(more)) => {
                if let Function::Top { limit, ascending } = function {
                    more.into_iter().for_each(|(by, value)| rank(entries, by, value, limit, ascending));
                }
            }
            (Self::Vectors(sums, count, squares), Self::Vectors(more, rows, lengths)) => {
                add_sums(sums, &more);
                *count += rows;
                *squares += lengths;
            }
            (Self::Sample(sums, count, sample), Self::Sample(more, rows, vectors)) => {
                add_sums(sums, &more);
                *count += rows;
                if let Function::Drift { measure: Measure::Discrepancy { sample: most }, .. } = function {
                    sample.extend(vectors);
                    sample.truncate(most as usize);
                }
            }
            (Self::Candidates(candidates), Self::Candidates(more)) => candidates.extend(more),
            // Both are of one function.
            _ => {}
        }
    }

    /// The result. `past` is the window that drift is measured against.
    pub fn result(&self, function: Function, past: Option<&Past>) -> Scalar {
        let text;
        let numbers: Vec<f32>;
        let finite = |double: f64| if double.is_finite() { Cell::Double(double) } else { Cell::Null };
        let cell = match self {
            Self::Count(count) => Cell::Int(*count),
            Self::Ints(_, 0) | Self::Doubles(_, 0) => Cell::Null,
            Self::Ints(sum, count) if function == Function::Avg => finite(*sum as f64 / *count as f64),
            Self::Ints(sum, _) => i64::try_from(*sum).map_or(Cell::Null, Cell::Int),
            Self::Doubles(sum, count) if function == Function::Avg => finite(sum.value() / *count as f64),
            Self::Doubles(sum, _) => finite(sum.value()),
            Self::Moments(sums, count) => {
                let sample =
                    matches!(function, Function::Variance { sample: true } | Function::StdDev { sample: true });
                let (count, below) = (*count as f64, *count as f64 - f64::from(u8::from(sample)));
                if below <= 0.0 {
                    Cell::Null
                } else {
                    let variance = (sums.0.deviation(&sums.1, count) / count / below).max(0.0);
                    finite(if matches!(function, Function::StdDev { .. }) { variance.sqrt() } else { variance })
                }
            }
            Self::Extreme(value) => value.cell(),
            Self::Edge(edge) => edge.as_ref().map_or(Cell::Null, |edge| edge.0.cell()),
            Self::Digest(digest) => match function {
                Function::Quantile(share) => digest.quantile(share).map_or(Cell::Null, Cell::Double),
                _ => Cell::Null,
            },
            Self::Distinct(distinct) => Cell::Int(distinct.count()),
            Self::Exactly(values) => Cell::Int(values.len() as i64),
            Self::List(values) => {
                text = serde_json::Value::from_iter(values.iter().map(Scalar::json)).to_string();
                Cell::Text(&text)
            }
            Self::Top(entries) => {
                text = serde_json::Value::from_iter(entries.iter().map(|(_, value)| value.json())).to_string();
                Cell::Text(&text)
            }
            Self::Vectors(_, 0, _) => Cell::Null,
            Self::Vectors(sums, count, squares) => {
                let count = *count as f64;
                if function == Function::Centroid {
                    numbers = sums.iter().map(|sum| (sum / count) as f32).collect();
                    Cell::Vector(&numbers)
                } else {
                    let length: f64 = sums.iter().map(|sum| (sum / count) * (sum / count)).sum();
                    finite((squares / count - length).max(0.0))
                }
            }
            Self::Sample(sums, count, sample) => match (function, past) {
                (Function::Drift { measure, .. }, Some(past)) if *count > 0 => match measure {
                    Measure::Cosine => cosine_distance(sums, &past.sums).map_or(Cell::Null, finite),
                    Measure::Discrepancy { .. } => discrepancy(sample, &past.sample).map_or(Cell::Null, finite),
                },
                _ => Cell::Null,
            },
            Self::Candidates(candidates) => match nearest(candidates) {
                Some(at) => candidates[at].0.cell(),
                None => Cell::Null,
            },
        };
        cell.keep()
    }

    /// What a later window's drift may be measured against.
    pub fn past(&self) -> Option<Past> {
        match self {
            Self::Sample(sums, count, sample) if *count > 0 => {
                Some(Past { sums: sums.clone(), count: *count, sample: sample.clone() })
            }
            _ => None,
        }
    }

    /// About what it takes beyond its own size.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Count(_) | Self::Ints(..) | Self::Doubles(..) | Self::Extreme(_) => 0,
            Self::Edge(_) | Self::Moments(..) => 64,
            Self::Digest(digest) => digest.bytes(),
            Self::Distinct(distinct) => distinct.bytes(),
            Self::Exactly(values) => values.len() * 48,
            Self::List(values) => values.len() * 24,
            Self::Top(entries) => entries.len() * 48,
            Self::Vectors(sums, ..) => sums.len() * 8,
            Self::Sample(sums, _, sample) => sums.len() * 8 + sample.len() * sums.len() * 4,
            Self::Candidates(candidates) => candidates.iter().map(|(_, vector)| 40 + vector.len() * 4).sum(),
        }
    }

    pub fn save(&self, out: &mut Writer) {
        match self {
            Self::Count(count) => out.i64(*count),
            Self::Ints(sum, count) => {
                out.0.extend_from_slice(&sum.to_le_bytes());
                out.i64(*count);
            }
            Self::Doubles(sum, count) => {
                sum.save(out);
                out.i64(*count);
            }
            Self::Moments(sums, count) => {
                sums.0.save(out);
                sums.1.save(out);
                out.i64(*count);
            }
            Self::Extreme(value) => value.cell().write(out),
            Self::Edge(edge) => {
                out.u8(edge.is_some().into());
                if let Some(edge) = edge {
                    edge.0.cell().write(out);
                    edge.1.cell().write(out);
                }
            }
            Self::Digest(digest) => digest.save(out),
            Self::Distinct(distinct) => distinct.save(out),
            Self::Exactly(values) => {
                out.len(values.len());
                for (value, count) in values {
                    out.bytes(value);
                    out.i64(*count);
                }
            }
            Self::List(values) => {
                out.len(values.len());
                values.iter().for_each(|value| value.cell().write(out));
            }
            Self::Top(entries) => {
                out.len(entries.len());
                for (by, value) in entries {
                    by.cell().write(out);
                    value.cell().write(out);
                }
            }
            Self::Vectors(sums, count, squares) => {
                save_sums(sums, out);
                out.i64(*count);
                out.f64(*squares);
            }
            Self::Sample(sums, count, sample) => {
                Past { sums: sums.clone(), count: *count, sample: sample.clone() }.save(out);
            }
            Self::Candidates(candidates) => {
                out.len(candidates.len());
                for (value, vector) in candidates {
                    value.cell().write(out);
                    Cell::Vector(vector).write(out);
                }
            }
        }
    }

    /// What a state of the same function and input saved.
    pub fn load(&mut self, reader: &mut Reader<'_>) -> Result<()> {
        match self {
            Self::Count(count) => *count = reader.i64()?,
            Self::Ints(sum, count) => {
                *sum = i128::from_le_bytes(reader.take(16)?.try_into().expect("sixteen bytes"));
                *count = reader.i64()?;
            }
            Self::Doubles(sum, count) => {
                *sum = Exact::load(reader)?;
                *count = reader.i64()?;
            }
            Self::Moments(sums, count) => {
                **sums = (Exact::load(reader)?, Exact::load(reader)?);
                *count = reader.i64()?;
            }
            Self::Extreme(value) => *value = Scalar::read(reader)?,
            Self::Edge(edge) => {
                *edge = match reader.bool()? {
                    true => Some(Box::new((Scalar::read(reader)?, Scalar::read(reader)?))),
                    false => None,
                };
            }
            Self::Digest(digest) => **digest = Digest::load(reader)?,
            Self::Distinct(distinct) => **distinct = Distinct::load(reader)?,
            Self::Exactly(values) => {
                for _ in 0..reader.count(9)? {
                    let value = key_of(&Scalar::read(&mut Reader::new(reader.bytes()?))?);
                    values.insert(value, reader.i64()?);
                }
            }
            Self::List(values) => {
                let count = reader.count(1)?;
                *values = (0..count).map(|_| Scalar::read(reader)).collect::<Result<_>>()?;
            }
            Self::Top(entries) => {
                let count = reader.count(2)?;
                *entries =
                    (0..count).map(|_| Ok((Scalar::read(reader)?, Scalar::read(reader)?))).collect::<Result<_>>()?;
            }
            Self::Vectors(sums, count, squares) => {
                *sums = load_sums(reader)?;
                *count = reader.i64()?;
                *squares = reader.f64()?;
            }
            Self::Sample(sums, count, sample) => {
                let past = Past::load(reader)?;
                (*sums, *count, *sample) = (past.sums, past.count, past.sample);
            }
            Self::Candidates(candidates) => {
                let count = reader.count(2)?;
                *candidates =
                    (0..count).map(|_| Ok((Scalar::read(reader)?, load_vector(reader)?))).collect::<Result<_>>()?;
            }
        }
        Ok(())
    }
}

fn save_sums(sums: &[f64], out: &mut Writer) {
    out.len(sums.len());
    sums.iter().for_each(|sum| out.f64(*sum));
}

fn load_sums(reader: &mut Reader<'_>) -> Result<Box<[f64]>> {
    let count = reader.count(8)?;
    (0..count).map(|_| reader.f64()).collect()
}

fn load_vector(reader: &mut Reader<'_>) -> Result<Box<[f32]>> {
    match Scalar::read(reader)? {
        Scalar::Vector(numbers) => Ok(numbers),
        _ => Err(Error::corrupt("a vector expected")),
    }
}

impl Past {
    pub fn save(&self, out: &mut Writer) {
        save_sums(&self.sums, out);
        out.i64(self.count);
        out.len(self.sample.len());
        self.sample.iter().for_each(|vector| Cell::Vector(vector).write(out));
    }

    pub fn load(reader: &mut Reader<'_>) -> Result<Self> {
        let (sums, count) = (load_sums(reader)?, reader.i64()?);
        let vectors = reader.count(2)?;
        Ok(Self { sums, count, sample: (0..vectors).map(|_| load_vector(reader)).collect::<Result<_>>()? })
    }
}

/// Of the directions of two sums.
fn cosine_distance(left: &[f64], right: &[f64]) -> Option<f64> {
    let dot = |left: &[f64], right: &[f64]| left.iter().zip(right).map(|(left, right)| left * right).sum::<f64>();
    let norms = (dot(left, left) * dot(right, right)).sqrt();
    (norms > 0.0).then(|| 1.0 - (dot(left, right) / norms).clamp(-1.0, 1.0))
}

fn squared(left: &[f32], right: &[f32]) -> f64 {
    left.iter()
        .zip(right)
        .map(|(left, right)| {
            let difference = f64::from(*left) - f64::from(*right);
            difference * difference
        })
        .sum()
}

/// Maximum mean discrepancy, squared and biased, with the kernel `1 / (1 + squared distance)`.
///
/// Source: Gretton et al., "A Kernel Two-Sample Test" (2012), equation 5.
fn discrepancy(left: &[Box<[f32]>], right: &[Box<[f32]>]) -> Option<f64> {
    let mean = |left: &[Box<[f32]>], right: &[Box<[f32]>]| {
        let sum: f64 =
            left.iter().map(|left| right.iter().map(|right| 1.0 / (1.0 + squared(left, right))).sum::<f64>()).sum();
        sum / (left.len() * right.len()) as f64
    };
    if left.is_empty() || right.is_empty() {
        return None;
    }
    Some((mean(left, left) + mean(right, right) - 2.0 * mean(left, right)).max(0.0))
}

/// The first of those nearest to the centroid of all.
fn nearest(candidates: &[(Scalar, Box<[f32]>)]) -> Option<usize> {
    let mut sums = Box::default();
    candidates.iter().for_each(|(_, vector)| add_vector(&mut sums, vector));
    let count = candidates.len() as f64;
    let distance = |vector: &[f32]| -> f64 {
        vector
            .iter()
            .zip(&sums)
            .map(|(number, sum)| (f64::from(*number) - sum / count) * (f64::from(*number) - sum / count))
            .sum()
    };
    (0..candidates.len())
        .min_by(|left, right| distance(&candidates[*left].1).total_cmp(&distance(&candidates[*right].1)))
}
