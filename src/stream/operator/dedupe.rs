use std::collections::{BTreeMap, VecDeque};

use super::{Context, Item, Operate};
use crate::base::{Error, Result};
use crate::distance::kernels;
use crate::query::compute::{Function, distance};
use crate::stream::plan::{Dedupe, Nearness, Relation};
use crate::stream::rows::{Cell, Making, Rows, Scalar, View, arrow_schema, write_row};
use crate::stream::state::{Reader, Writer};

/// Beyond these, products of single precision overflow or vanish, and nothing is told from them.
const NORMS: std::ops::Range<f64> = 1e-12..1e12;

/// A row that nothing before it was near to.
struct Kept {
    norm: f64,
    /// The value that stands for it.
    name: Scalar,
}

/// Those of one key, by time, and their vectors one after the other.
#[derive(Default)]
struct Group {
    kept: VecDeque<Kept>,
    vectors: Vec<f32>,
    /// How many numbers of `vectors` are of rows that are not kept any more.
    gone: usize,
}

impl Group {
    fn push(&mut self, kept: Kept, vector: &[f32]) {
        self.kept.push_back(kept);
        self.vectors.extend_from_slice(vector);
    }

    fn pop(&mut self, dim: usize) {
        if self.kept.pop_front().is_some() {
            self.gone += dim;
        }
        // Each number is moved once for each that has gone, at most.
        if self.gone * 2 >= self.vectors.len() {
            self.vectors.drain(..self.gone);
            self.gone = 0;
        }
    }

    fn vectors(&self) -> &[f32] {
        &self.vectors[self.gone..]
    }
}

/// Rows to which no row before them was near.
///
/// Rows wait until the watermark has come to their time, and are then taken by time, those of one time by their values: so what is told does
/// not depend on the order in which they came. Vectors are compared in single precision first; those that may be near enough, with room for
/// what that may be wrong by, are compared in the order of their numbers in `f64`, which has the same bits on every target.
pub(super) struct Deduper {
    keys: Vec<usize>,
    fields: usize,
    vector: usize,
    dim: usize,
    metric: Nearness,
    radius: f64,
    within: i64,
    /// The field that stands for a row, when duplicates are told.
    name: Option<usize>,
    has_distance: bool,
    making: Making,
    /// By time and values, how often.
    waiting: BTreeMap<(i64, Box<[u8]>), u64>,
    groups: BTreeMap<Box<[u8]>, Group>,
    /// The time and the key of all that is kept, by time.
    order: VecDeque<(i64, Box<[u8]>)>,
    held: usize,
    found: Vec<f32>,
    watermark: i64,
}

impl Deduper {
    pub fn new(spec: &Dedupe, input: &Relation, gives: &Relation) -> Self {
        let find = |name: &String| input.position(name).unwrap_or_default();
        let vector = find(&spec.vector);
        Self {
            keys: spec.keys.iter().map(find).collect(),
            fields: input.fields.len(),
            vector,
            dim: input.fields.get(vector).and_then(|field| field.data_type.dim()).unwrap_or_default() as usize,
            metric: spec.metric,
            radius: spec.radius,
            within: spec.within,
            name: spec.duplicates.as_ref().map(|duplicates| find(&duplicates.of)),
            has_distance: spec.duplicates.as_ref().is_some_and(|duplicates| duplicates.distance.is_some()),
            making: Making::new(&arrow_schema(&gives.fields), &gives.fields),
            waiting: BTreeMap::new(),
            groups: BTreeMap::new(),
            order: VecDeque::new(),
            held: 0,
            found: vec![],
            watermark: i64::MIN,
        }
    }

    /// Forgets the rows of before `time`.
    fn forget(&mut self, time: i64) {
        while self.order.front().is_some_and(|(kept, _)| *kept < time) {
            let Some((_, key)) = self.order.pop_front() else { break };
            self.held -= 1;
            if let Some(group) = self.groups.get_mut(&key) {
                group.pop(self.dim);
                if group.kept.is_empty() {
                    self.groups.remove(&key);
                }
            }
        }
    }

    /// The nearest row that is near enough, the first of equals, and how far it is.
    fn nearest(&mut self, key: &[u8], vector: &[f32], norm: f64) -> Option<(usize, f64)> {
        let group = self.groups.get(key)?;
        let vectors = group.vectors();
        self.found.clear();
        self.found.resize(group.kept.len(), 0.0);
        // What sums of single precision may be wrong by, for numbers that neither overflow nor vanish.
        let slack = (self.dim as f64 + 16.0) * f64::from(f32::EPSILON);
        let function = match self.metric {
            Nearness::Cosine => {
                kernels().dot_rows(vector, vectors, &mut self.found);
                Function::CosineDistance
            }
            Nearness::L2 => {
                kernels().l2_rows(vector, vectors, &mut self.found);
                Function::L2Distance
            }
        };
        let mut best: Option<(usize, f64)> = None;
        for (at, (kept, found)) in group.kept.iter().zip(&self.found).enumerate() {
            let found = f64::from(*found);
            let may_be = match self.metric {
                Nearness::Cosine => {
                    let is_safe = NORMS.contains(&norm) && NORMS.contains(&kept.norm);
                    !is_safe || 1.0 - found / (norm * kept.norm) <= self.radius + slack
                }
                Nearness::L2 => found <= self.radius * self.radius * (1.0 + 2.0 * slack),
            };
            // What is no number tells nothing.
            if !may_be && found.is_finite() {
                continue;
            }
            let other = &vectors[at * self.dim..(at + 1) * self.dim];
            let Some(distance) = distance(function, vector, other).filter(|distance| *distance <= self.radius) else {
                continue;
            };
            if best.is_none_or(|(_, least)| distance < least) {
                best = Some((at, distance));
            }
        }
        best
    }

    /// Takes a row whose turn it is.
    fn take(&mut self, time: i64, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader::new(bytes);
        let mut cells = vec![];
        while !reader.is_empty() {
            cells.push(Scalar::read(&mut reader)?);
        }
        if cells.len() != self.fields {
            return Err(Error::corrupt(format!("a row of {} values, expected {}", cells.len(), self.fields)));
        }
        let mut same = None;
        if let Scalar::Vector(vector) = &cells[self.vector] {
            if vector.len() != self.dim {
                return Err(Error::corrupt(format!("a vector of {} numbers, expected {}", vector.len(), self.dim)));
            }
            self.forget(time.saturating_sub(self.within));
            let mut key = Writer::default();
            for at in &self.keys {
                cells[*at].cell().write(&mut key);
            }
            let norm = distance(Function::InnerProduct, vector, vector).unwrap_or_default().sqrt();
            same = self.nearest(&key.0, vector, norm);
            if same.is_none() {
                let key: Box<[u8]> = key.0.into();
                let name = self.name.map_or(Scalar::Null, |at| cells[at].clone());
                self.groups.entry(key.clone()).or_default().push(Kept { norm, name }, vector);
                self.order.push_back((time, key));
                self.held += 1;
            } else if self.name.is_none() {
                return Ok(());
            } else if let Some((at, distance)) = same {
                let next = self.making.put_row(0, bytes)?;
                let name = self.groups.get(&key.0[..]).and_then(|group| group.kept.get(at)).map(|kept| &kept.name);
                self.making.column(next).push(name.map_or(Cell::Null, Scalar::cell));
                if self.has_distance {
                    self.making.column(next + 1).push(Cell::Double(distance));
                }
            }
        }
        if same.is_none() {
            let next = self.making.put_row(0, bytes)?;
            if self.name.is_some() {
                self.making.column(next).push(Cell::Null);
            }
            if self.has_distance {
                self.making.column(next + 1).push(Cell::Null);
            }
        }
        self.making.end_row(time, false);
        Ok(())
    }
}

impl Operate for Deduper {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        let all = View::all(&rows.batch);
        for row in 0..rows.len() {
            let time = rows.times[row];
            if time <= self.watermark {
                cx.late += 1;
                continue;
            }
            if !cx.admits(self.held, &rows, row)? {
                continue;
            }
            let mut bytes = Writer::default();
            write_row(&all, row, &mut bytes);
            *self.waiting.entry((time, bytes.0.into())).or_default() += 1;
            self.held += 1;
        }
        Ok(())
    }

    fn watermark(&mut self, watermark: i64, cx: &mut Context<'_>) -> Result<()> {
        self.watermark = watermark;
        while let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= watermark) {
            let ((time, bytes), count) = first.remove_entry();
            for _ in 0..count {
                self.held -= 1;
                self.take(time, &bytes)?;
            }
        }
        // Whatever comes is later than the watermark.
        self.forget(watermark.saturating_add(1).saturating_sub(self.within));
        if let Some(rows) = self.making.finish() {
            cx.out.push(Item::Rows(rows));
        }
        cx.out.push(Item::Watermark(watermark));
        Ok(())
    }

    fn held(&self) -> (usize, usize) {
        let waiting = self.waiting.keys().map(|(_, bytes)| 40 + bytes.len()).sum::<usize>();
        let kept =
            self.order.iter().map(|(_, key)| 2 * key.len() + 4 * self.dim + size_of::<Kept>() + 32).sum::<usize>();
        (self.held, waiting + kept)
    }

    fn save(&self, out: &mut Writer) {
        out.i64(self.watermark);
        out.len(self.held - self.order.len());
        for ((time, bytes), count) in &self.waiting {
            for _ in 0..*count {
                out.i64(*time);
                out.bytes(bytes);
            }
        }
        let mut next: BTreeMap<&[u8], usize> = BTreeMap::new();
        out.len(self.order.len());
        for (time, key) in &self.order {
            let at = next.entry(key).or_default();
            let group = self.groups.get(key);
            out.i64(*time);
            out.bytes(key);
            let name = group.and_then(|group| group.kept.get(*at)).map_or(Cell::Null, |kept| kept.name.cell());
            name.write(out);
            let numbers = group.map_or(&[][..], |group| &group.vectors()[*at * self.dim..(*at + 1) * self.dim]);
            Cell::Vector(numbers).write(out);
            *at += 1;
        }
    }

    fn load(&mut self, reader: &mut Reader<'_>, _cx: &mut Context<'_>) -> Result<()> {
        self.watermark = reader.i64()?;
        for _ in 0..reader.count(9)? {
            *self.waiting.entry((reader.i64()?, reader.bytes()?.into())).or_default() += 1;
            self.held += 1;
        }
        for _ in 0..reader.count(11)? {
            let (time, key): (i64, Box<[u8]>) = (reader.i64()?, reader.bytes()?.into());
            let (name, vector) = (Scalar::read(reader)?, Scalar::read(reader)?);
            let Scalar::Vector(vector) = vector else { return Err(Error::corrupt("a row that is kept has no vector")) };
            if vector.len() != self.dim {
                return Err(Error::corrupt(format!("a vector of {} numbers, expected {}", vector.len(), self.dim)));
            }
            let norm = distance(Function::InnerProduct, &vector, &vector).unwrap_or_default().sqrt();
            self.groups.entry(key.clone()).or_default().push(Kept { norm, name }, &vector);
            self.order.push_back((time, key));
            self.held += 1;
        }
        Ok(())
    }
}
