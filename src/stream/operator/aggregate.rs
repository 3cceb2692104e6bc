use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_buffer::BooleanBuffer;
use hashbrown::HashTable;

use super::{Context, Item, Operate};
use crate::base::{Error, Result};
use crate::model::DataType;
use crate::query::compute::Computed;
use crate::stream::accumulate::{Past, State, start};
use crate::stream::plan::{
    AggregateFunction as Function, Evictor, Keep, Output, Pace, Reference, Relation, Trigger, WINDOW_END, WINDOW_START,
    Window, WindowAggregate, delta_fields,
};
use crate::stream::rows::{Cell, Making, Rows, Scalar, View, arrow_schema, write_row};
use crate::stream::sketch::hash;
use crate::stream::span::Spans;
use crate::stream::state::{Reader, Writer};
use crate::stream::zone::Zones;

/// One column of the result.
struct Column {
    function: Function,
    input: Option<Computed>,
    filter: Option<Computed>,
    by: Option<Computed>,
    of_ints: bool,
}

/// Its values for the rows of a batch.
struct Inputs {
    input: Option<ArrayRef>,
    by: Option<ArrayRef>,
    filter: Option<BooleanBuffer>,
}

impl Inputs {
    fn all(columns: &[Column], batch: &RecordBatch) -> Vec<Self> {
        let one = |column: &Column| Self {
            input: column.input.as_ref().map(|input| input.evaluate(batch)),
            by: column.by.as_ref().map(|by| by.evaluate(batch)),
            filter: column.filter.as_ref().map(|filter| filter.truth(batch)),
        };
        columns.iter().map(one).collect()
    }

    fn views(all: &[Self]) -> Vec<[Option<View<'_>>; 2]> {
        all.iter().map(|inputs| [inputs.input.as_ref().map(View::new), inputs.by.as_ref().map(View::new)]).collect()
    }
}

/// The value of row `row` and what it goes by; `None` when the aggregate does not take it.
fn taken<'a>(
    column: &Column,
    inputs: &Inputs,
    views: &[Option<View<'a>>; 2],
    row: usize,
    time: i64,
) -> Option<(Cell<'a>, Cell<'a>)> {
    let admitted = inputs.filter.as_ref().is_none_or(|filter| filter.value(row));
    let value = views[0].as_ref().map_or(Cell::Bool(true), |view| view.cell(row));
    let by = match &views[1] {
        Some(view) => view.cell(row),
        None if matches!(column.function, Function::Top { .. }) => value,
        None => Cell::Int(time),
    };
    (admitted && !value.is_null() && !(views[1].is_some() && by.is_null())).then_some((value, by))
}

/// How windows let go of rows.
struct Eviction {
    keep: Keep,
    after: bool,
    /// What a delta is computed of.
    delta: Option<(Computed, Making)>,
    /// The rows of a window as a batch.
    making: Making,
}

impl Eviction {
    fn new(spec: &Evictor, input: &Relation) -> Result<Self> {
        let delta = match &spec.keep {
            Keep::Delta { by, .. } => {
                let fields = delta_fields(&input.fields)?;
                Some((by.bind(&fields)?, Making::new(&arrow_schema(&fields), &fields)))
            }
            Keep::Count(_) | Keep::Time(_) => None,
        };
        let making = Making::new(&arrow_schema(&input.fields), &input.fields);
        Ok(Self { keep: spec.keep.clone(), after: spec.after, delta, making })
    }

    /// Lets go of rows that do not stay.
    fn evict(&mut self, kept: &mut Vec<(i64, Box<[u8]>)>) -> Result<()> {
        match &self.keep {
            Keep::Count(most) => {
                let over = kept.len().saturating_sub(usize::try_from(*most).unwrap_or(usize::MAX));
                kept.drain(..over);
            }
            Keep::Time(span) => {
                let latest = kept.iter().map(|(time, _)| *time).max().unwrap_or(0);
                kept.retain(|(time, _)| *time > latest.saturating_sub(*span));
            }
            Keep::Delta { threshold, .. } => {
                let (Some((by, making)), Some((_, last))) = (&mut self.delta, kept.last()) else { return Ok(()) };
                for (time, row) in kept.iter() {
                    let next = making.put_row(0, row)?;
                    making.put_row(next, last)?;
                    making.end_row(*time, false);
                }
                let Some(rows) = making.finish() else { return Ok(()) };
                let values = by.evaluate(&rows.batch);
                let view = View::new(&values);
                let mut at = 0..;
                kept.retain(|_| match view.cell(at.next().unwrap_or_default()) {
                    Cell::Int(delta) => (delta as f64) < *threshold,
                    Cell::Double(delta) => delta < *threshold,
                    _ => true,
                });
            }
        }
        Ok(())
    }
}

/// The values of one row, by aggregate, that a sliding count window keeps: value and by, or nothing.
type Kept = Vec<Option<(Scalar, Scalar)>>;

/// A key of a window.
struct Group {
    key: Box<[u8]>,
    start: i64,
    end: i64,
    states: Vec<State>,
    /// How many rows are in it.
    rows: i64,
    /// How many came since it was told.
    pending: u64,
    /// The latest time of its rows.
    latest: i64,
    /// What was told of it; empty where nobody needs to know.
    told: Option<Box<[u8]>>,
    deadline: Option<i64>,
    last: VecDeque<Kept>,
    /// With an evictor, its rows in the order in which they came: their times, and their values.
    kept: Vec<(i64, Box<[u8]>)>,
}

/// The aggregates of each key of a window.
pub(super) struct Aggregator {
    window: Window,
    spans: Spans,
    trigger: Trigger,
    lateness: i64,
    output: Output,
    /// Whether rows are replaced that may have to be taken back, for the group may lose all of its own.
    empties: bool,
    eviction: Option<Eviction>,
    /// How many a row has.
    fields: usize,
    /// How many rows all groups keep for it.
    kept: usize,
    late: Option<usize>,
    keys: Vec<usize>,
    /// The fields of the bounds of an attached window.
    bounds: [usize; 2],
    columns: Vec<Column>,
    making: Making,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    held: usize,
    /// By key and bounds; not of sessions.
    index: HashTable<u32>,
    /// The sessions of a key.
    sessions: BTreeMap<Box<[u8]>, Vec<u32>>,
    ends: BTreeSet<(i64, u32)>,
    deadlines: BTreeSet<(i64, u32)>,
    /// Those that a batch has changed.
    changed: Vec<u32>,
    watermark: i64,
    /// What drift is measured against, by key and aggregate.
    past: BTreeMap<(Box<[u8]>, usize), Past>,
    scratch: Writer,
}

fn hash_of(key: &[u8], start: i64, end: i64) -> u64 {
    hash(key)
        ^ (start as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (end as u64).rotate_left(32).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

impl Aggregator {
    pub fn new(
        spec: &WindowAggregate,
        late: Option<usize>,
        zones: Zones,
        input: &Relation,
        gives: &Relation,
    ) -> Result<Self> {
        let find = |name: &str| input.position(name).unwrap_or_default();
        let attached = spec.window == Window::Attached;
        let is_bound = |name: &&String| *name == WINDOW_START || *name == WINDOW_END;
        let columns = spec.aggregates.iter().map(|aggregate| {
            let bind = |value: &Option<crate::query::compute::Expression>| {
                value.as_ref().map(|value| value.bind(&input.fields)).transpose()
            };
            let value = bind(&aggregate.input)?;
            let of_ints = value.as_ref().is_some_and(|value| value.data_type == DataType::Int64);
            Ok(Column {
                function: aggregate.function,
                input: value,
                filter: bind(&aggregate.filter)?,
                by: bind(&aggregate.by)?,
                of_ints,
            })
        });
        Ok(Self {
            window: spec.window,
            spans: Spans::new(spec.window, zones),
            trigger: spec.trigger,
            lateness: spec.lateness,
            output: spec.output,
            empties: spec.output == Output::Accumulating && input.retracts,
            eviction: spec.evictor.as_ref().map(|evictor| Eviction::new(evictor, input)).transpose()?,
            fields: input.fields.len(),
            kept: 0,
            late,
            keys: spec.keys.iter().filter(|key| !attached || !is_bound(key)).map(|key| find(key)).collect(),
            bounds: [find(WINDOW_START), find(WINDOW_END)],
            columns: columns.collect::<Result<_>>()?,
            making: Making::new(&arrow_schema(&gives.fields), &gives.fields),
            groups: vec![],
            free: vec![],
            held: 0,
            index: HashTable::new(),
            sessions: BTreeMap::new(),
            ends: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            changed: vec![],
            watermark: i64::MIN,
            past: BTreeMap::new(),
            scratch: Writer::default(),
        })
    }

    fn group(&self, slot: u32) -> &Group {
        self.groups[slot as usize].as_ref().expect("slots in use have a group")
    }

    fn group_mut(&mut self, slot: u32) -> &mut Group {
        self.groups[slot as usize].as_mut().expect("slots in use have a group")
    }

    fn states(&self) -> Vec<State> {
        self.columns.iter().map(|column| start(column.function, column.of_ints)).collect()
    }

    /// Puts a group into its slot and all indexes.
    fn insert(&mut self, group: Group) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.groups.push(None);
            self.groups.len() as u32 - 1
        });
        self.ends.insert((group.end, slot));
        if let Some(deadline) = group.deadline {
            self.deadlines.insert((deadline, slot));
        }
        if matches!(self.window, Window::Session { .. }) {
            self.sessions.entry(group.key.clone()).or_default().push(slot);
        } else {
            let groups = &self.groups;
            self.index.insert_unique(hash_of(&group.key, group.start, group.end), slot, |&other| {
                groups[other as usize].as_ref().map_or(0, |other| hash_of(&other.key, other.start, other.end))
            });
        }
        self.kept += group.kept.len();
        self.groups[slot as usize] = Some(group);
        self.held += 1;
        slot
    }

    fn remove(&mut self, slot: u32) -> Group {
        let group = self.groups[slot as usize].take().expect("slots in use have a group");
        self.free.push(slot);
        self.held -= 1;
        self.kept -= group.kept.len();
        self.ends.remove(&(group.end, slot));
        if let Some(deadline) = group.deadline {
            self.deadlines.remove(&(deadline, slot));
        }
        if matches!(self.window, Window::Session { .. }) {
            if let Some(slots) = self.sessions.get_mut(&group.key) {
                slots.retain(|other| *other != slot);
                if slots.is_empty() {
                    self.sessions.remove(&group.key);
                }
            }
        } else if let Ok(entry) =
            self.index.find_entry(hash_of(&group.key, group.start, group.end), |&other| other == slot)
        {
            entry.remove();
        }
        group
    }

    /// The group of the key in `key` and of a window, which may be new: `None` when there is no room.
    fn find(
        &mut self,
        key: &[u8],
        start: i64,
        end: i64,
        rows: &Rows,
        row: usize,
        cx: &mut Context<'_>,
    ) -> Result<Option<u32>> {
        let groups = &self.groups;
        let found = self.index.find(hash_of(key, start, end), |&slot| {
            groups[slot as usize]
                .as_ref()
                .is_some_and(|group| group.start == start && group.end == end && *group.key == *key)
        });
        if let Some(slot) = found {
            return Ok(Some(*slot));
        }
        if !cx.admits(self.held, rows, row)? {
            return Ok(None);
        }
        Ok(Some(self.insert(self.fresh(key, start, end))))
    }

    fn fresh(&self, key: &[u8], start: i64, end: i64) -> Group {
        Group {
            key: key.into(),
            start,
            end,
            states: self.states(),
            rows: 0,
            pending: 0,
            latest: i64::MIN,
            told: None,
            deadline: None,
            last: VecDeque::new(),
            kept: vec![],
        }
    }

    /// The session of a key that a row of `time` makes or grows, together with all that it joins. `None` when it is late, with an error
    /// text where there is no room.
    fn session(
        &mut self,
        key: &[u8],
        time: i64,
        gap: i64,
        rows: &Rows,
        row: usize,
        cx: &mut Context<'_>,
    ) -> Result<Session> {
        let (mut start, mut end) = (time, time + gap);
        let mut touched = vec![];
        for slot in self.sessions.get(key).into_iter().flatten() {
            let group = self.group(*slot);
            if group.start <= end && group.end >= start {
                touched.push(*slot);
            }
        }
        for slot in &touched {
            let group = self.group(*slot);
            (start, end) = (start.min(group.start), end.max(group.end));
        }
        if self.is_over(end) {
            return Ok(Session::Late);
        }
        if let [slot] = touched[..]
            && (self.group(slot).start, self.group(slot).end) == (start, end)
        {
            return Ok(Session::In(slot));
        }
        if touched.is_empty() && !cx.admits(self.held, rows, row)? {
            return Ok(Session::Refused);
        }
        // By time, so that what came first stays first.
        touched.sort_by_key(|slot| self.group(*slot).start);
        let mut whole = self.fresh(key, start, end);
        for slot in touched {
            let group = self.remove(slot);
            for (at, state) in group.states.into_iter().enumerate() {
                whole.states[at].merge(self.columns[at].function, state);
            }
            whole.kept.extend(group.kept);
            whole.rows += group.rows;
            whole.pending += group.pending;
            whole.latest = whole.latest.max(group.latest);
            whole.deadline = [whole.deadline, group.deadline].into_iter().flatten().min();
            if let Some(told) = group.told {
                // What was told of a part is not true of the whole.
                if self.output == Output::Retracting && !told.is_empty() {
                    self.take_back(&group.key, group.start, group.end, group.latest, &told)?;
                }
            }
        }
        Ok(Session::In(self.insert(whole)))
    }

    /// Whether one more row may be kept, where rows are.
    fn has_room(&self, rows: &Rows, row: usize, cx: &mut Context<'_>) -> Result<bool> {
        Ok(self.eviction.is_none() || cx.admits(self.held + self.kept, rows, row)?)
    }

    /// Whether a window that ends there takes no more rows.
    fn is_over(&self, end: i64) -> bool {
        self.window.is_timed() && (end - 1).saturating_add(self.lateness) <= self.watermark
    }

    /// Puts row `row` into a group, and tells it when it is time.
    #[expect(clippy::too_many_arguments, reason = "one row in its parts, which the loop over rows has at hand")]
    fn add(
        &mut self,
        slot: u32,
        row: usize,
        time: i64,
        back: bool,
        inputs: &[Inputs],
        views: &[[Option<View<'_>>; 2]],
        now: i64,
    ) -> Result<()> {
        let counted = match self.window {
            Window::Count { size, slide } if slide < size => Some((size, slide)),
            _ => None,
        };
        let group = self.groups[slot as usize].as_mut().expect("slots in use have a group");
        let mut kept: Kept = vec![];
        for (at, column) in self.columns.iter().enumerate() {
            let wanted = taken(column, &inputs[at], &views[at], row, time);
            if counted.is_some() {
                kept.push(wanted.map(|(value, by)| (value.keep(), by.keep())));
            } else if let Some((value, by)) = wanted
                && self.eviction.is_none()
            {
                group.states[at].add(column.function, value, by, back, &mut self.scratch);
            }
        }
        group.rows += if back { -1 } else { 1 };
        group.pending += 1;
        group.latest = group.latest.max(time);
        if let Some((size, slide)) = counted {
            group.last.push_back(kept);
            if group.last.len() as u64 > size {
                group.last.pop_front();
            }
            if group.pending >= slide {
                let last = std::mem::take(&mut group.last);
                let mut states = self.states();
                for (at, state) in states.iter_mut().enumerate() {
                    for (value, by) in last.iter().filter_map(|kept| kept[at].as_ref()) {
                        state.add(self.columns[at].function, value.cell(), by.cell(), false, &mut self.scratch);
                    }
                }
                let group = self.group_mut(slot);
                group.states = states;
                self.tell(slot)?;
                self.group_mut(slot).last = last;
            }
            return Ok(());
        }
        if let Window::Count { size, .. } = self.window {
            if group.pending >= size {
                self.tell(slot)?;
                self.purge(slot);
            }
            return Ok(());
        }
        let on_time = self.window.is_timed() && group.end - 1 <= self.watermark;
        let pace = if on_time { Some(self.trigger.late.unwrap_or(Pace::Count(1))) } else { self.trigger.early };
        match pace {
            Some(Pace::Count(rows)) if group.pending >= rows => self.tell(slot)?,
            Some(Pace::Batch) if self.changed.last() != Some(&slot) => self.changed.push(slot),
            Some(Pace::Interval(span)) if group.deadline.is_none() => {
                let deadline = now.saturating_add(span);
                group.deadline = Some(deadline);
                self.deadlines.insert((deadline, slot));
            }
            _ => {}
        }
        Ok(())
    }

    fn take_back(&mut self, key: &[u8], start: i64, end: i64, latest: i64, told: &[u8]) -> Result<()> {
        let at = self.head(key, start, end)?;
        self.making.put_row(at, told)?;
        self.making.end_row(time_of(end, latest), true);
        Ok(())
    }

    /// Puts the key and the bounds into the row that is made: the number of the first aggregate's column.
    fn head(&mut self, key: &[u8], start: i64, end: i64) -> Result<usize> {
        let mut at = self.making.put_row(0, key)?;
        if self.window.is_timed() {
            self.making.column(at).push(Cell::Int(start));
            self.making.column(at + 1).push(Cell::Int(end));
            at += 2;
        }
        Ok(at)
    }

    /// Tells what a group has come to, when something has changed.
    fn tell(&mut self, slot: u32) -> Result<()> {
        let group = self.groups[slot as usize].as_mut().expect("slots in use have a group");
        if let Some(deadline) = group.deadline.take() {
            self.deadlines.remove(&(deadline, slot));
        }
        if std::mem::take(&mut group.pending) == 0 {
            return Ok(());
        }
        let mut group = self.groups[slot as usize].take().expect("slots in use have a group");
        let told = std::mem::take(&mut group.told);
        self.made_anew(&mut group)?;
        let results: Vec<Scalar> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let past = match column.function {
                    Function::Drift { .. } => self.past.get(&(group.key.clone(), at)),
                    _ => None,
                };
                group.states[at].result(column.function, past)
            })
            .collect();
        let mut bytes = Writer::default();
        if self.output == Output::Retracting || self.empties {
            results.iter().for_each(|result| result.cell().write(&mut bytes));
        }
        let same =
            told.as_ref().is_some_and(|told| self.output == Output::Retracting && **told == bytes.0 && group.rows > 0);
        if !same {
            if let Some(told) = &told
                && (self.output == Output::Retracting || self.empties && group.rows <= 0)
                && !told.is_empty()
            {
                self.take_back(&group.key, group.start, group.end, group.latest, told)?;
            }
            if group.rows > 0 || self.keys.is_empty() {
                let first = self.head(&group.key, group.start, group.end)?;
                for (at, result) in results.iter().enumerate() {
                    self.making.column(first + at).push(result.cell());
                }
                self.making.end_row(time_of(group.end, group.latest), false);
            }
        }
        group.told = (group.rows > 0 || self.keys.is_empty()).then(|| bytes.0.into());
        let gone = group.rows <= 0 && !self.keys.is_empty();
        if let Some(eviction) = self.eviction.as_mut().filter(|eviction| eviction.after) {
            self.kept -= group.kept.len();
            eviction.evict(&mut group.kept)?;
            self.kept += group.kept.len();
        }
        self.groups[slot as usize] = Some(group);
        if gone {
            self.remove(slot);
        } else if self.trigger.purge || self.output == Output::Discarding {
            self.purge(slot);
        }
        Ok(())
    }

    /// What the aggregates come to of the rows that a group keeps, when it lets go of some.
    fn made_anew(&mut self, group: &mut Group) -> Result<()> {
        let Some(eviction) = &mut self.eviction else { return Ok(()) };
        if !eviction.after {
            self.kept -= group.kept.len();
            eviction.evict(&mut group.kept)?;
            self.kept += group.kept.len();
        }
        for (time, row) in &group.kept {
            eviction.making.put_row(0, row)?;
            eviction.making.end_row(*time, false);
        }
        let rows = eviction.making.finish();
        group.states = self.states();
        group.rows = group.kept.len() as i64;
        let Some(rows) = rows else { return Ok(()) };
        let inputs = Inputs::all(&self.columns, &rows.batch);
        let views = Inputs::views(&inputs);
        for (at, column) in self.columns.iter().enumerate() {
            for (row, time) in rows.times.iter().enumerate() {
                if let Some((value, by)) = taken(column, &inputs[at], &views[at], row, *time) {
                    group.states[at].add(column.function, value, by, false, &mut self.scratch);
                }
            }
        }
        Ok(())
    }

    /// Keeps row `row` in a group, whether or not it will stay.
    fn keep(&mut self, slot: u32, time: i64, values: &[View<'_>], row: usize) {
        if self.eviction.is_some() {
            let mut bytes = Writer::default();
            write_row(values, row, &mut bytes);
            self.group_mut(slot).kept.push((time, bytes.0.into()));
            self.kept += 1;
        }
    }

    fn purge(&mut self, slot: u32) {
        let states = self.states();
        let group = self.group_mut(slot);
        group.states = states;
        (group.rows, group.pending) = (0, 0);
        self.kept -= std::mem::take(&mut self.group_mut(slot).kept).len();
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        if let Some(rows) = self.making.finish() {
            cx.out.push(Item::Rows(rows));
        }
    }

    /// Time has come to `watermark`: windows end, and later are over.
    fn advance(&mut self, watermark: i64) -> Result<()> {
        if watermark <= self.watermark {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.watermark, watermark);
        // What happens to which group when; a window is told before it is over.
        let mut due: Vec<(i64, bool, u32)> = vec![];
        for &(end, slot) in &self.ends {
            if end - 1 > watermark {
                break;
            }
            if end - 1 > before || before == i64::MIN {
                due.push((end - 1, false, slot));
            }
            let over = (end - 1).saturating_add(self.lateness);
            if over <= watermark || watermark == i64::MAX {
                due.push((over, true, slot));
            }
        }
        due.sort_by(|left, right| {
            let place = |slot: u32| {
                let group = self.group(slot);
                (group.end, group.start, &group.key)
            };
            (left.0, left.1).cmp(&(right.0, right.1)).then_with(|| place(left.2).cmp(&place(right.2)))
        });
        for (_, is_over, slot) in due {
            // Told to be empty, a group is gone.
            if self.groups[slot as usize].is_none() {
                continue;
            }
            if !is_over {
                self.tell(slot)?;
            } else {
                if self.group(slot).pending > 0 && !matches!(self.window, Window::Count { .. }) {
                    self.tell(slot)?;
                }
                if self.groups[slot as usize].is_some() {
                    let group = self.remove(slot);
                    self.keep_past(group);
                }
            }
        }
        Ok(())
    }

    fn keep_past(&mut self, group: Group) {
        for (at, column) in self.columns.iter().enumerate() {
            let Function::Drift { reference, .. } = column.function else { continue };
            let Some(past) = group.states[at].past() else { continue };
            let key = (group.key.clone(), at);
            if reference == Reference::Previous || !self.past.contains_key(&key) {
                self.past.insert(key, past);
            }
        }
    }
}

enum Session {
    In(u32),
    Late,
    Refused,
}

/// The time of a row that tells a window.
fn time_of(end: i64, latest: i64) -> i64 {
    if end == i64::MAX { latest } else { end - 1 }
}

impl Operate for Aggregator {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        if self.trigger.processing_time {
            self.clock(cx)?;
        }
        let batch = &rows.batch;
        let inputs = Inputs::all(&self.columns, batch);
        let views = Inputs::views(&inputs);
        let values = if self.eviction.is_some() { View::all(batch) } else { vec![] };
        let keys = View::some(batch, &self.keys);
        let bounds = (self.window == Window::Attached).then(|| View::some(batch, &self.bounds));
        let (mut found, mut key, mut late) = (vec![], Writer::default(), vec![]);
        for row in 0..rows.len() {
            let time = match self.trigger.processing_time {
                // A clock that goes back does not take time with it.
                true => cx.now.max(self.watermark.saturating_add(1)),
                false => rows.times[row],
            };
            let back = rows.is_taken_back(row);
            key.0.clear();
            write_row(&keys, row, &mut key);
            if let Window::Session { gap } = self.window {
                match self.session(&key.0, time, gap, &rows, row, cx)? {
                    Session::In(slot) => {
                        if self.has_room(&rows, row, cx)? {
                            self.keep(slot, time, &values, row);
                            self.add(slot, row, time, back, &inputs, &views, cx.now)?;
                        }
                    }
                    Session::Late => late.push(row as u32),
                    Session::Refused => {}
                }
                continue;
            }
            self.spans.of(time, &mut found);
            if let Some(bounds) = &bounds
                && let (Cell::Int(start), Cell::Int(end)) = (bounds[0].cell(row), bounds[1].cell(row))
            {
                found.push((start, end));
            }
            let mut is_late = true;
            for &(start, end) in &found {
                if self.is_over(end) {
                    continue;
                }
                is_late = false;
                if !self.has_room(&rows, row, cx)? {
                    continue;
                }
                if let Some(slot) = self.find(&key.0, start, end, &rows, row, cx)? {
                    self.keep(slot, time, &values, row);
                    self.add(slot, row, time, back, &inputs, &views, cx.now)?;
                }
            }
            if is_late {
                late.push(row as u32);
            }
        }
        for slot in std::mem::take(&mut self.changed) {
            if self.groups[slot as usize].is_some() {
                self.tell(slot)?;
            }
        }
        if !late.is_empty() {
            cx.late += late.len() as u64;
            if let Some(sink) = self.late {
                cx.aside.push((sink, rows.take(&late)));
            }
        }
        self.flush(cx);
        Ok(())
    }

    fn watermark(&mut self, watermark: i64, cx: &mut Context<'_>) -> Result<()> {
        if !self.trigger.processing_time || watermark == i64::MAX {
            self.advance(watermark)?;
            self.flush(cx);
        }
        cx.out.push(Item::Watermark(watermark));
        Ok(())
    }

    fn clock(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if self.trigger.processing_time {
            self.advance(cx.now - 1)?;
        }
        while let Some(&(deadline, slot)) = self.deadlines.first() {
            if deadline > cx.now {
                break;
            }
            self.tell(slot)?;
        }
        self.flush(cx);
        Ok(())
    }

    fn next_clock(&self) -> Option<i64> {
        let window =
            self.ends.first().filter(|_| self.trigger.processing_time && self.window.is_timed()).map(|(end, _)| *end);
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        [window, deadline].into_iter().flatten().min()
    }

    fn held(&self) -> (usize, usize) {
        let bytes = self.groups.iter().flatten().map(|group| {
            let states: usize = group.states.iter().map(|state| size_of::<State>() + state.bytes()).sum();
            let kept: usize = group.kept.iter().map(|(_, row)| size_of::<(i64, Box<[u8]>)>() + row.len()).sum();
            size_of::<Group>() + group.key.len() + states + group.told.as_ref().map_or(0, |told| told.len()) + kept
        });
        (self.held + self.kept, bytes.sum())
    }

    fn save(&self, out: &mut Writer) {
        out.i64(self.watermark);
        let mut slots: Vec<&Group> = self.groups.iter().flatten().collect();
        slots.sort_by(|left, right| (left.end, left.start, &left.key).cmp(&(right.end, right.start, &right.key)));
        out.len(slots.len());
        for group in slots {
            out.bytes(&group.key);
            out.i64(group.start);
            out.i64(group.end);
            out.i64(group.rows);
            out.i64(group.pending as i64);
            out.i64(group.latest);
            out.u8(u8::from(group.told.is_some()) | u8::from(group.deadline.is_some()) << 1);
            if let Some(told) = &group.told {
                out.bytes(told);
            }
            if let Some(deadline) = group.deadline {
                out.i64(deadline);
            }
            group.states.iter().for_each(|state| state.save(out));
            out.len(group.last.len());
            for kept in group.last.iter().flatten() {
                out.u8(kept.is_some().into());
                if let Some((value, by)) = kept {
                    value.cell().write(out);
                    by.cell().write(out);
                }
            }
            if self.eviction.is_some() {
                out.len(group.kept.len());
                for (time, row) in &group.kept {
                    out.i64(*time);
                    out.bytes(row);
                }
            }
        }
        out.len(self.past.len());
        for ((key, at), past) in &self.past {
            out.bytes(key);
            out.len(*at);
            past.save(out);
        }
    }

    fn load(&mut self, reader: &mut Reader<'_>, _cx: &mut Context<'_>) -> Result<()> {
        self.watermark = reader.i64()?;
        for _ in 0..reader.count(43)? {
            let key = reader.bytes()?;
            let (start, end) = (reader.i64()?, reader.i64()?);
            let mut group = self.fresh(key, start, end);
            (group.rows, group.pending, group.latest) = (reader.i64()?, reader.i64()? as u64, reader.i64()?);
            let marks = reader.u8()?;
            if marks & 1 != 0 {
                group.told = Some(reader.bytes()?.into());
            }
            if marks & 2 != 0 {
                group.deadline = Some(reader.i64()?);
            }
            for state in &mut group.states {
                state.load(reader)?;
            }
            for _ in 0..reader.count(self.columns.len())? {
                let kept = (0..self.columns.len())
                    .map(|_| match reader.bool()? {
                        true => Ok(Some((Scalar::read(reader)?, Scalar::read(reader)?))),
                        false => Ok(None),
                    })
                    .collect::<Result<_>>()?;
                group.last.push_back(kept);
            }
            if self.eviction.is_some() {
                for _ in 0..reader.count(9)? {
                    let (time, row) = (reader.i64()?, reader.bytes()?);
                    let (mut values, mut rest) = (0, Reader::new(row));
                    while !rest.is_empty() {
                        Scalar::read(&mut rest)?;
                        values += 1;
                    }
                    if values != self.fields {
                        return Err(Error::corrupt(format!("a row of {values} values, expected {}", self.fields)));
                    }
                    group.kept.push((time, row.into()));
                }
            }
            self.insert(group);
        }
        for _ in 0..reader.count(3)? {
            let key = (reader.bytes()?.into(), reader.len()?);
            if key.1 >= self.columns.len() {
                return Err(Error::corrupt(format!("aggregate {} of {}", key.1, self.columns.len())));
            }
            self.past.insert(key, Past::load(reader)?);
        }
        Ok(())
    }
}
