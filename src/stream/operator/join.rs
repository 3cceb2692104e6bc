use super::waiting::{Entry, Waiting};
use super::{Context, Item, Operate};
use crate::base::{Error, Result};
use crate::model::Field;
use crate::query::compute::Computed;
use crate::stream::plan::{Join, JoinKind, JoinScope, Relation, WINDOW_END, WINDOW_START, Window};
use crate::stream::rows::{Cell, Making, Rows, View, arrow_schema, write_row};
use crate::stream::span::Spans;
use crate::stream::state::{Reader, Writer};
use crate::stream::zone::Zones;

/// Pairs of rows of two inputs with one key.
pub(super) struct Joiner {
    kind: JoinKind,
    scope: JoinScope,
    spans: Spans,
    condition: Option<Computed>,
    keys: [Vec<usize>; 2],
    /// The fields of each input that come out.
    fields: [Vec<usize>; 2],
    bounds: [[usize; 2]; 2],
    making: Making,
    /// Pairs, to ask the condition of.
    pairs: Making,
    waiting: Waiting,
    watermark: i64,
    /// The number of the next row without a key.
    lone: u64,
}

impl Joiner {
    pub fn new(join: &Join, zones: Zones, [left, right]: [&Relation; 2], gives: &Relation) -> Result<Self> {
        let in_window = matches!(join.scope, JoinScope::Window(_));
        let is_bound = |field: &Field| in_window && (field.name == WINDOW_START || field.name == WINDOW_END);
        let fields = [left, right].map(|relation| {
            (0..relation.fields.len()).filter(|at| !is_bound(&relation.fields[*at])).collect::<Vec<_>>()
        });
        let bounds = [left, right]
            .map(|relation| [WINDOW_START, WINDOW_END].map(|name| relation.position(name).unwrap_or_default()));
        let find = |relation: &Relation, name: &str| relation.position(name).unwrap_or_default();
        let keys = [
            join.keys.iter().map(|(name, _)| find(left, name)).collect(),
            join.keys.iter().map(|(_, name)| find(right, name)).collect(),
        ];
        let mut pair: Vec<Field> = fields[0].iter().map(|at| left.fields[*at].clone()).collect();
        for at in &fields[1] {
            let field = &right.fields[*at];
            let taken = fields[0].iter().any(|at| left.fields[*at].name == field.name);
            let name = if taken { format!("right_{}", field.name) } else { field.name.clone() };
            pair.push(Field { name, ..field.clone() });
        }
        let window = if let JoinScope::Window(window) = join.scope { window } else { Window::Attached };
        Ok(Self {
            kind: join.kind,
            scope: join.scope,
            spans: Spans::new(window, zones),
            condition: join.condition.as_ref().map(|condition| condition.bind(&pair)).transpose()?,
            keys,
            fields,
            bounds,
            making: Making::new(&arrow_schema(&gives.fields), &gives.fields),
            pairs: Making::new(&arrow_schema(&pair), &pair),
            waiting: Waiting::default(),
            watermark: i64::MIN,
            lone: 0,
        })
    }

    /// Those of the other side that a row of `time` may be a pair with, in the order of time.
    fn partners(&self, side: usize, group: u32, time: i64) -> impl Iterator<Item = u32> {
        let (from, to) = match self.scope {
            JoinScope::Interval { lower, upper } if side == 0 => (time + lower, time + upper),
            JoinScope::Interval { lower, upper } => (time - upper, time - lower),
            _ => (i64::MIN, i64::MAX),
        };
        self.waiting.between(group, 1 - side, from, to)
    }

    /// Tells the pairs for which the condition is true.
    fn settle(&mut self, pairs: &[(u32, u32)]) -> Result<()> {
        let mut holds = vec![true; pairs.len()];
        if let Some(condition) = &self.condition {
            for (left, right) in pairs {
                let next = self.pairs.put_row(0, &self.waiting[*left].bytes)?;
                self.pairs.put_row(next, &self.waiting[*right].bytes)?;
                self.pairs.end_row(0, false);
            }
            if let Some(rows) = self.pairs.finish() {
                holds = condition.truth(&rows.batch).iter().collect();
            }
        }
        for ((left, right), _) in pairs.iter().zip(holds).filter(|(_, holds)| *holds) {
            let first = !self.waiting[*left].matched;
            for slot in [left, right] {
                self.waiting[*slot].matched = true;
            }
            match self.kind {
                JoinKind::Anti => {}
                JoinKind::Semi if !first => {}
                JoinKind::Semi => self.tell([Some(*left), None])?,
                _ => self.tell([Some(*left), Some(*right)])?,
            }
        }
        Ok(())
    }

    fn tell(&mut self, pair: [Option<u32>; 2]) -> Result<()> {
        let mut at = 0;
        let (mut time, mut bounds) = (i64::MIN, (0, 0));
        let alone = matches!(self.kind, JoinKind::Semi | JoinKind::Anti);
        for (side, slot) in pair.into_iter().enumerate().take(if alone { 1 } else { 2 }) {
            match slot {
                Some(slot) => {
                    let entry = &self.waiting[slot];
                    at = self.making.put_row(at, &entry.bytes)?;
                    (time, bounds) = (time.max(entry.time), entry.bounds);
                }
                None => {
                    for _ in &self.fields[side] {
                        self.making.column(at).push(Cell::Null);
                        at += 1;
                    }
                }
            }
        }
        if let JoinScope::Window(_) = self.scope {
            self.making.column(at).push(Cell::Int(bounds.0));
            self.making.column(at + 1).push(Cell::Int(bounds.1));
            time = bounds.1 - 1;
        }
        self.making.end_row(time, false);
        Ok(())
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        if let Some(rows) = self.making.finish() {
            cx.out.push(Item::Rows(rows));
        }
    }

    /// When a row of `side` and `time` can have no partner any more.
    fn until(&self, side: usize, time: i64, end: i64) -> i64 {
        match self.scope {
            JoinScope::Window(_) => end - 1,
            JoinScope::Interval { upper, .. } if side == 0 => time.max(time + upper),
            JoinScope::Interval { lower, .. } => time.max(time - lower),
            JoinScope::Unbounded => i64::MAX,
        }
    }
}

impl Operate for Joiner {
    fn rows(&mut self, side: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        let keys = View::some(&rows.batch, &self.keys[side]);
        let values = View::some(&rows.batch, &self.fields[side]);
        let bounds = View::some(&rows.batch, &self.bounds[side]);
        let in_window = matches!(self.scope, JoinScope::Window(_));
        let mut found = vec![];
        let mut pairs = vec![];
        let (mut key, mut bytes) = (Writer::default(), Writer::default());
        for row in 0..rows.len() {
            let time = rows.times[row];
            found.clear();
            match self.scope {
                JoinScope::Window(Window::Attached) => {
                    if let (Cell::Int(start), Cell::Int(end)) = (bounds[0].cell(row), bounds[1].cell(row)) {
                        found.push((start, end));
                    }
                }
                JoinScope::Window(_) => self.spans.of(time, &mut found),
                _ => found.push((0, 0)),
            }
            let over = |end: i64| match self.scope {
                JoinScope::Window(_) => end - 1 <= self.watermark,
                JoinScope::Interval { .. } => time <= self.watermark,
                JoinScope::Unbounded => false,
            };
            if found.iter().all(|(_, end)| over(*end)) {
                cx.late += 1;
                continue;
            }
            found.retain(|(_, end)| !over(*end));
            for &(start, end) in &found {
                if !cx.admits(self.waiting.len(), &rows, row)? {
                    continue;
                }
                key.0.clear();
                write_row(&keys, row, &mut key);
                if in_window {
                    key.i64(start);
                    key.i64(end);
                }
                // Null equals nothing.
                if keys.iter().any(|view| view.cell(row).is_null()) {
                    key.0.extend_from_slice(b"alone");
                    key.i64(self.lone as i64);
                    self.lone += 1;
                }
                bytes.0.clear();
                write_row(&values, row, &mut bytes);
                let group = self.waiting.group_of(&key.0);
                let until = self.until(side, time, end);
                let (bounds, bytes) = ((start, end), Box::from(&bytes.0[..]));
                let slot = self.waiting.insert(Entry { side, group, bounds, time, bytes, matched: false, until });
                if !in_window {
                    let partners = self.partners(side, group, time);
                    pairs.extend(partners.map(|other| if side == 0 { (slot, other) } else { (other, slot) }));
                }
            }
        }
        self.settle(&pairs)?;
        self.flush(cx);
        Ok(())
    }

    fn watermark(&mut self, watermark: i64, cx: &mut Context<'_>) -> Result<()> {
        self.watermark = self.watermark.max(watermark);
        let mut gone = vec![];
        while let Some(slot) = self.waiting.pop_expired(watermark) {
            gone.push(slot);
        }
        gone.sort_by(|left, right| {
            let place = |slot: u32| {
                let entry = &self.waiting[slot];
                (entry.until, self.waiting.key(slot), entry.side, entry.time, &entry.bytes)
            };
            place(*left).cmp(&place(*right))
        });
        if matches!(self.scope, JoinScope::Window(_)) {
            let mut pairs = vec![];
            for slot in gone.iter().filter(|slot| self.waiting[**slot].side == 0) {
                let entry = &self.waiting[*slot];
                let mut others: Vec<u32> = self.partners(0, entry.group, entry.time).collect();
                others.sort_by(|left, right| {
                    let place = |slot: u32| (self.waiting[slot].time, &self.waiting[slot].bytes);
                    place(*left).cmp(&place(*right))
                });
                pairs.extend(others.into_iter().map(|other| (*slot, other)));
            }
            self.settle(&pairs)?;
        }
        for slot in gone {
            let entry = &self.waiting[slot];
            let alone = match (self.kind, entry.side) {
                (JoinKind::Left | JoinKind::Full | JoinKind::Anti, 0) => !entry.matched,
                (JoinKind::Right | JoinKind::Full, 1) => !entry.matched,
                _ => false,
            };
            if alone {
                let pair = if entry.side == 0 { [Some(slot), None] } else { [None, Some(slot)] };
                self.tell(pair)?;
            }
            self.waiting.remove(slot);
        }
        self.flush(cx);
        cx.out.push(Item::Watermark(watermark));
        Ok(())
    }

    fn held(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting.bytes())
    }

    fn save(&self, out: &mut Writer) {
        out.i64(self.watermark);
        out.i64(self.lone as i64);
        // By key and time: pairs come in this order.
        out.len(self.waiting.len());
        for slot in self.waiting.in_order() {
            let entry = &self.waiting[slot];
            out.u8(entry.side as u8 | u8::from(entry.matched) << 1);
            out.bytes(self.waiting.key(slot));
            out.i64(entry.bounds.0);
            out.i64(entry.bounds.1);
            out.i64(entry.time);
            out.i64(entry.until);
            out.bytes(&entry.bytes);
        }
    }

    fn load(&mut self, reader: &mut Reader<'_>, _cx: &mut Context<'_>) -> Result<()> {
        self.watermark = reader.i64()?;
        self.lone = reader.i64()? as u64;
        for _ in 0..reader.count(35)? {
            let marks = reader.u8()?;
            if marks > 3 {
                return Err(Error::corrupt(format!("marks {marks} of a row")));
            }
            let key = reader.bytes()?;
            let bounds = (reader.i64()?, reader.i64()?);
            let (time, until) = (reader.i64()?, reader.i64()?);
            let bytes = reader.bytes()?.into();
            let (side, matched) = (usize::from(marks & 1), marks & 2 != 0);
            let group = self.waiting.group_of(key);
            self.waiting.insert(Entry { side, group, bounds, time, bytes, matched, until });
        }
        Ok(())
    }
}
