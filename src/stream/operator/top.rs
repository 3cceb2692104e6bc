use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::{Context, Item, Operate};
use crate::base::Result;
use crate::query::compute::Computed;
use crate::stream::plan::{Relation, Top, WINDOW_END};
use crate::stream::rows::{Cell, Making, Rows, Scalar, View, arrow_schema, write_row};
use crate::stream::state::{Reader, Writer};

/// Where the end of a window is among the keys of a node, when it is.
fn end_among(keys: &[String], input: &Relation) -> Option<usize> {
    keys.iter()
        .any(|key| key == WINDOW_END)
        .then(|| input.position(WINDOW_END))
        .flatten()
        .filter(|_| input.is_windowed())
}

/// The first row of each key.
pub(super) struct Distinct {
    keys: Vec<usize>,
    end: Option<usize>,
    seen: BTreeSet<Box<[u8]>>,
    ends: BTreeSet<(i64, Box<[u8]>)>,
    watermark: i64,
}

impl Distinct {
    pub fn new(keys: &[String], input: &Relation) -> Self {
        let find = |key: &String| input.position(key).unwrap_or_default();
        let end = end_among(keys, input);
        Self {
            keys: keys.iter().map(find).collect(),
            end,
            seen: BTreeSet::new(),
            ends: BTreeSet::new(),
            watermark: i64::MIN,
        }
    }
}

impl Operate for Distinct {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        let keys = View::some(&rows.batch, &self.keys);
        let end = self.end.map(|at| View::new(rows.batch.column(at)));
        let (mut picks, mut key) = (vec![], Writer::default());
        for row in 0..rows.len() {
            key.0.clear();
            write_row(&keys, row, &mut key);
            if self.seen.contains(&key.0[..]) {
                continue;
            }
            let end = end.as_ref().and_then(|view| match view.cell(row) {
                Cell::Int(end) => Some(end),
                _ => None,
            });
            if end.is_some_and(|end| end - 1 <= self.watermark) {
                cx.late += 1;
                continue;
            }
            if !cx.admits(self.seen.len(), &rows, row)? {
                continue;
            }
            let kept: Box<[u8]> = key.0[..].into();
            if let Some(end) = end {
                self.ends.insert((end, kept.clone()));
            }
            self.seen.insert(kept);
            picks.push(row as u32);
        }
        if !picks.is_empty() {
            cx.out.push(Item::Rows(rows.take(&picks)));
        }
        Ok(())
    }

    fn watermark(&mut self, watermark: i64, cx: &mut Context<'_>) -> Result<()> {
        self.watermark = watermark;
        while self.ends.first().is_some_and(|(end, _)| end - 1 <= watermark) {
            if let Some((_, key)) = self.ends.pop_first() {
                self.seen.remove(&key);
            }
        }
        cx.out.push(Item::Watermark(watermark));
        Ok(())
    }

    fn held(&self) -> (usize, usize) {
        (self.seen.len(), self.seen.iter().map(|key| 24 + key.len()).sum())
    }

    fn save(&self, out: &mut Writer) {
        out.i64(self.watermark);
        out.len(self.seen.len());
        self.seen.iter().for_each(|key| out.bytes(key));
        out.len(self.ends.len());
        for (end, key) in &self.ends {
            out.i64(*end);
            out.bytes(key);
        }
    }

    fn load(&mut self, reader: &mut Reader<'_>, _cx: &mut Context<'_>) -> Result<()> {
        self.watermark = reader.i64()?;
        for _ in 0..reader.count(1)? {
            self.seen.insert(reader.bytes()?.into());
        }
        for _ in 0..reader.count(9)? {
            self.ends.insert((reader.i64()?, reader.bytes()?.into()));
        }
        Ok(())
    }
}

/// A row among the first.
struct Ranked {
    order: Vec<Scalar>,
    time: i64,
    bytes: Box<[u8]>,
}

/// The first rows of each key by an order.
pub(super) struct Ranking {
    keys: Vec<usize>,
    end: Option<usize>,
    order: Vec<(Computed, bool)>,
    limit: usize,
    rank: bool,
    making: Making,
    /// By end of the window (0 without) and key.
    groups: BTreeMap<(i64, Box<[u8]>), Vec<Ranked>>,
    held: usize,
    watermark: i64,
}

impl Ranking {
    pub fn new(spec: &Top, input: &Relation, gives: &Relation) -> Result<Self> {
        let order = spec.order.iter().map(|(value, descending)| Ok((value.bind(&input.fields)?, *descending)));
        Ok(Self {
            keys: spec.keys.iter().map(|key| input.position(key).unwrap_or_default()).collect(),
            end: end_among(&spec.keys, input),
            order: order.collect::<Result<_>>()?,
            limit: if spec.limit == 0 { usize::MAX } else { spec.limit as usize },
            rank: spec.rank.is_some(),
            making: Making::new(&arrow_schema(&gives.fields), &gives.fields),
            groups: BTreeMap::new(),
            held: 0,
            watermark: i64::MIN,
        })
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        if let Some(rows) = self.making.finish() {
            cx.out.push(Item::Rows(rows));
        }
    }
}

impl Operate for Ranking {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        let keys = View::some(&rows.batch, &self.keys);
        let all = View::all(&rows.batch);
        let end = self.end.map(|at| View::new(rows.batch.column(at)));
        let order: Vec<_> = self.order.iter().map(|(value, _)| value.evaluate(&rows.batch)).collect();
        let order: Vec<View<'_>> = order.iter().map(View::new).collect();
        for row in 0..rows.len() {
            let mut key = Writer::default();
            write_row(&keys, row, &mut key);
            let end = match end.as_ref().map(|view| view.cell(row)) {
                Some(Cell::Int(end)) if end - 1 <= self.watermark => {
                    cx.late += 1;
                    continue;
                }
                Some(Cell::Int(end)) => end,
                _ => 0,
            };
            let group = self.groups.entry((end, key.0.into())).or_default();
            let before = |other: &Ranked| {
                for (at, (_, descending)) in self.order.iter().enumerate() {
                    let found = other.order[at].cell().order(order[at].cell(row));
                    let found = if *descending { found.reverse() } else { found };
                    if found != Ordering::Equal {
                        return found == Ordering::Less;
                    }
                }
                // Of equals the one that came first.
                true
            };
            let at = group.partition_point(before);
            if at >= self.limit {
                continue;
            }
            if group.len() < self.limit {
                if !cx.admits(self.held, &rows, row)? {
                    continue;
                }
                self.held += 1;
            }
            let mut bytes = Writer::default();
            write_row(&all, row, &mut bytes);
            let ranked = Ranked {
                order: order.iter().map(|view| view.cell(row).keep()).collect(),
                time: rows.times[row],
                bytes: bytes.0.into(),
            };
            if self.end.is_none() {
                self.making.put_row(0, &ranked.bytes)?;
            }
            group.insert(at, ranked);
            let leaves = if group.len() > self.limit { group.pop() } else { None };
            if self.end.is_none() {
                self.making.end_row(rows.times[row], false);
                if let Some(leaves) = leaves {
                    self.making.put_row(0, &leaves.bytes)?;
                    self.making.end_row(leaves.time, true);
                }
            }
        }
        self.flush(cx);
        Ok(())
    }

    fn watermark(&mut self, watermark: i64, cx: &mut Context<'_>) -> Result<()> {
        self.watermark = watermark;
        while self.end.is_some() && self.groups.first_key_value().is_some_and(|((end, _), _)| end - 1 <= watermark) {
            let Some(((end, _), group)) = self.groups.pop_first() else { break };
            self.held -= group.len();
            for (place, ranked) in group.iter().enumerate() {
                let next = self.making.put_row(0, &ranked.bytes)?;
                if self.rank {
                    self.making.column(next).push(Cell::Int(place as i64 + 1));
                }
                self.making.end_row(end - 1, false);
            }
        }
        self.flush(cx);
        cx.out.push(Item::Watermark(watermark));
        Ok(())
    }

    fn held(&self) -> (usize, usize) {
        let bytes = self.groups.iter().map(|((_, key), group)| {
            key.len()
                + group
                    .iter()
                    .map(|ranked| size_of::<Ranked>() + 24 * ranked.order.len() + ranked.bytes.len())
                    .sum::<usize>()
        });
        (self.held, bytes.sum())
    }

    fn save(&self, out: &mut Writer) {
        out.i64(self.watermark);
        out.len(self.groups.len());
        for ((end, key), group) in &self.groups {
            out.i64(*end);
            out.bytes(key);
            out.len(group.len());
            for ranked in group {
                ranked.order.iter().for_each(|value| value.cell().write(out));
                out.i64(ranked.time);
                out.bytes(&ranked.bytes);
            }
        }
    }

    fn load(&mut self, reader: &mut Reader<'_>, _cx: &mut Context<'_>) -> Result<()> {
        self.watermark = reader.i64()?;
        for _ in 0..reader.count(10)? {
            let key = (reader.i64()?, reader.bytes()?.into());
            let mut group = vec![];
            for _ in 0..reader.count(9)? {
                let order = (0..self.order.len()).map(|_| Scalar::read(reader)).collect::<Result<_>>()?;
                group.push(Ranked { order, time: reader.i64()?, bytes: reader.bytes()?.into() });
            }
            self.held += group.len();
            self.groups.insert(key, group);
        }
        Ok(())
    }
}
