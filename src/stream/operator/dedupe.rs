use std::collections::BTreeMap;

use super::{Context, Item, Operate};
use crate::base::{Error, Result};
use crate::stream::plan::{Dedupe, Relation};
use crate::stream::recent::Recent;
use crate::stream::rows::{Cell, Making, Rows, Scalar, View, arrow_schema, write_row};
use crate::stream::state::{Reader, Writer};

/// Rows to which no row before them was near.
///
/// Rows wait until the watermark has come to their time, and are then taken by time, those of one time by their values: so what is told does
/// not depend on the order in which they came.
pub(super) struct Deduper {
    keys: Vec<usize>,
    fields: usize,
    vector: usize,
    dim: usize,
    within: i64,
    /// The field that stands for a row, when duplicates are told.
    name: Option<usize>,
    has_distance: bool,
    making: Making,
    /// By time and values, how often.
    waiting: BTreeMap<(i64, Box<[u8]>), u64>,
    recent: Recent<Scalar>,
    held: usize,
    watermark: i64,
}

impl Deduper {
    pub fn new(spec: &Dedupe, input: &Relation, gives: &Relation) -> Self {
        let find = |name: &String| input.position(name).unwrap_or_default();
        let vector = find(&spec.vector);
        let dim = input.fields.get(vector).and_then(|field| field.data_type.dim()).unwrap_or_default() as usize;
        Self {
            keys: spec.keys.iter().map(find).collect(),
            fields: input.fields.len(),
            vector,
            dim,
            within: spec.within,
            name: spec.duplicates.as_ref().map(|duplicates| find(&duplicates.of)),
            has_distance: spec.duplicates.as_ref().is_some_and(|duplicates| duplicates.distance.is_some()),
            making: Making::new(&arrow_schema(&gives.fields), &gives.fields),
            waiting: BTreeMap::new(),
            recent: Recent::new(dim, spec.metric, spec.radius),
            held: 0,
            watermark: i64::MIN,
        }
    }

    /// Forgets the rows of before `time`.
    fn forget(&mut self, time: i64) {
        self.held -= self.recent.forget(time);
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
            same = self.recent.nearest(&key.0, vector).map(|(name, distance)| (name.clone(), distance));
            if same.is_none() {
                let name = self.name.map_or(Scalar::Null, |at| cells[at].clone());
                self.recent.push(time, key.0.into(), name, vector);
                self.held += 1;
            } else if self.name.is_none() {
                return Ok(());
            } else if let Some((name, distance)) = &same {
                let next = self.making.put_row(0, bytes)?;
                self.making.column(next).push(name.cell());
                if self.has_distance {
                    self.making.column(next + 1).push(Cell::Double(*distance));
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
        (self.held, waiting + self.recent.bytes())
    }

    fn save(&self, out: &mut Writer) {
        out.i64(self.watermark);
        out.len(self.held - self.recent.len());
        for ((time, bytes), count) in &self.waiting {
            for _ in 0..*count {
                out.i64(*time);
                out.bytes(bytes);
            }
        }
        out.len(self.recent.len());
        self.recent.each(|time, key, name, vector| {
            out.i64(time);
            out.bytes(key);
            name.cell().write(out);
            Cell::Vector(vector).write(out);
        });
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
            self.recent.push(time, key, name, &vector);
            self.held += 1;
        }
        Ok(())
    }
}
