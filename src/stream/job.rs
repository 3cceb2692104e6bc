use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, RecordBatch};

use super::operator::{self, Answer, Context, DeadLetter, Item, Operate, Overflow, Wanted};
use super::plan::{Checked, Operator, Plan, Relation};
use super::rows::{Rows, arrow_schema, batch_of};
use super::source::Progress;
use super::zone::Zones;
use crate::base::{Error, Result};
use crate::model::time::RANGE;

/// How a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How many keys or rows a node may keep.
    pub entries_max: usize,
    /// What happens when it would keep more.
    pub overflow: Overflow,
    /// Which time zones there are. A change of what they say, as with a newer database of them, is true of the rows that come after it.
    pub zones: Zones,
}

impl Default for Options {
    fn default() -> Self {
        Self { entries_max: 1 << 22, overflow: Overflow::Fail, zones: Zones::default() }
    }
}

/// What a job gives.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Rows for sinks, in order: the name of the sink's node, and its rows.
    pub rows: Vec<(String, Rows)>,
    /// What must be answered.
    pub wanted: Vec<Wanted>,
    /// Rows that were not taken.
    pub dead: Vec<DeadLetter>,
}

/// What is told of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metrics {
    /// Its name.
    pub node: String,
    /// How many rows it took.
    pub rows_in: u64,
    /// How many rows it gave.
    pub rows_out: u64,
    /// In how many batches they came.
    pub batches: u64,
    /// For how many microseconds it was at work, by the stopwatch of [`Job::measure`].
    pub busy_us: u64,
    /// How many rows were late and left out.
    pub late: u64,
    /// How many keys or rows it keeps.
    pub entries: usize,
    /// About how many bytes these take.
    pub state_bytes: usize,
    /// How far time has come; `None` before the first watermark.
    pub watermark: Option<i64>,
}

pub(super) struct Running {
    pub operate: Box<dyn Operate>,
    /// By input.
    pub watermarks: Vec<i64>,
    pub watermark: i64,
    pub metrics: Metrics,
}

/// A plan that runs. One call after the other: each takes what is told, and does all that follows from it before it returns; what comes of
/// it is taken by [`Job::poll`].
pub struct Job {
    pub(super) plan: Plan,
    pub(super) checked: Checked,
    pub(super) nodes: Vec<Running>,
    /// By node; `None` of what is no source.
    pub(super) sources: Vec<Option<Progress>>,
    pub(super) now: i64,
    pub(super) given: Given,
    options: Options,
    queue: VecDeque<(usize, usize, Item)>,
    next_wanted: u64,
    failed: Option<Error>,
    stopwatch: Option<Stopwatch>,
}

type Stopwatch = Arc<dyn Fn() -> u64 + Send + Sync>;

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("nodes", &self.plan.nodes.len()).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Job {
    /// A job that has seen nothing.
    ///
    /// # Errors
    /// As of [`Plan::check`] and [`Plan::check_zones`].
    pub fn new(plan: Plan, options: Options) -> Result<Self> {
        let checked = plan.checked()?;
        plan.check_zones(options.zones)?;
        let (mut nodes, mut sources) = (vec![], vec![]);
        for (at, node) in plan.nodes.iter().enumerate() {
            nodes.push(Running {
                operate: operator::build(&plan, &checked, at, options.zones)?,
                watermarks: vec![i64::MIN; checked.inputs[at].len()],
                watermark: i64::MIN,
                metrics: Metrics { node: node.name.clone(), ..Metrics::default() },
            });
            sources.push(match &node.operator {
                Operator::Source(source) => Some(Progress::new(source.watermark, source.time.is_some())),
                _ => None,
            });
        }
        Ok(Self {
            plan,
            checked,
            nodes,
            sources,
            now: i64::MIN,
            given: Given::default(),
            options,
            queue: VecDeque::new(),
            next_wanted: 0,
            failed: None,
            stopwatch: None,
        })
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Measures from now on how long each node is at work, in the microseconds of `stopwatch`. What a job gives does not depend on it.
    pub fn measure(&mut self, stopwatch: impl Fn() -> u64 + Send + Sync + 'static) {
        self.stopwatch = Some(Arc::new(stopwatch));
    }

    /// What a node gives.
    ///
    /// # Errors
    /// `NotFound` without a node of that name.
    pub fn relation(&self, node: &str) -> Result<&Relation> {
        Ok(&self.checked.relations[self.find(node)?])
    }

    fn find(&self, node: &str) -> Result<usize> {
        let found = self.plan.nodes.iter().position(|other| other.name == node);
        found.ok_or_else(|| Error::not_found(format!("the plan has no node {node:?}")))
    }

    fn source(&mut self, name: &str) -> Result<(usize, &mut Progress)> {
        let at = self.find(name)?;
        match &mut self.sources[at] {
            Some(source) => Ok((at, source)),
            None => Err(Error::invalid(format!("node {name:?} is no source"))),
        }
    }

    fn begin(&mut self, now: i64) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        // A clock that goes back stands still here.
        self.now = self.now.max(now);
        Ok(())
    }

    /// Waits for rows of a partition of a source, which may have none for a while.
    ///
    /// # Errors
    /// `NotFound` or `InvalidArgument` for what is no source.
    pub fn open(&mut self, source: &str, partition: u32, now: i64) -> Result<()> {
        self.begin(now)?;
        let now = self.now;
        self.source(source)?.1.open(partition, now);
        Ok(())
    }

    /// From now on rows of a source come from `partitions` alone. Those that are new are waited for, and hold the watermark where it is until they
    /// have rows, or are idle; the others have come to their end, and are forgotten. Partitions that are there already stay as they are.
    ///
    /// # Errors
    /// As of [`Job::push`], and `InvalidArgument` for no partition.
    pub fn turn(&mut self, source: &str, partitions: Range<u32>, now: i64) -> Result<()> {
        self.begin(now)?;
        let now = self.now;
        let (_, progress) = self.source(source)?;
        if partitions.is_empty() {
            return Err(Error::invalid(format!("source {source:?}: it has a partition at least, got {partitions:?}")));
        }
        progress.turn(partitions, now);
        self.run()
    }

    /// Takes rows of a source: columns as its fields, in their order, and which rows are taken back, if any. `position` is how far the
    /// partition has been read with them, in the source's own words. Rows without an event time, where one is needed, become dead
    /// letters.
    ///
    /// # Errors
    /// `NotFound` or `InvalidArgument` for what is no source, and for other columns, and the job is as before. `StorageFull` when a node
    /// would keep more than it may: then the job is done, and a new one begins at a checkpoint.
    pub fn push(
        &mut self,
        source: &str,
        partition: u32,
        position: &[u8],
        batch: &RecordBatch,
        taken_back: Option<&[bool]>,
        now: i64,
    ) -> Result<()> {
        self.begin(now)?;
        let (at, _) = self.source(source)?;
        let fields = &self.checked.relations[at].fields;
        let schema = arrow_schema(fields);
        for (index, field) in schema.fields().iter().enumerate() {
            let found = batch.columns().get(index).map(|column| column.data_type());
            if found != Some(field.data_type()) || batch.num_columns() != fields.len() {
                return Err(Error::invalid(format!(
                    "source {source:?}: column {index} is {}, expected {} as {}",
                    found.map_or("not there".to_owned(), ToString::to_string),
                    field.name(),
                    field.data_type()
                )));
            }
        }
        if let Some(taken_back) = taken_back
            && (taken_back.len() != batch.num_rows() || !self.checked.relations[at].retracts)
        {
            return Err(Error::invalid(format!("source {source:?}: its rows are not taken back")));
        }
        let batch = batch_of(&schema, batch.columns().to_vec(), batch.num_rows());
        let (rows, unfit) = self.timed(at, batch, taken_back);
        let now = self.now;
        let latest = rows.times.iter().max().copied();
        self.source(source)?.1.came(partition, position, latest.filter(|_| !rows.is_empty()), now);
        if let Some(rows) = unfit {
            let (node, reason) =
                (source.to_owned(), "it has no event time, or one outside of the years 1 to 9999".to_owned());
            self.given.dead.push(DeadLetter { node, rows, reason });
        }
        if !rows.is_empty() {
            self.queue.push_back((at, 0, Item::Rows(rows)));
        }
        self.run()
    }

    /// The rows with their times, and those that have none.
    fn timed(&self, at: usize, batch: RecordBatch, taken_back: Option<&[bool]>) -> (Rows, Option<Rows>) {
        let taken_back: Option<std::sync::Arc<[bool]>> =
            taken_back.filter(|taken| taken.contains(&true)).map(std::convert::Into::into);
        let time = match &self.plan.nodes[at].operator {
            Operator::Source(source) => source.time.as_ref().and_then(|time| self.checked.relations[at].position(time)),
            _ => None,
        };
        let Some(time) = time else {
            let times = vec![self.now; batch.num_rows()].into();
            return (Rows { batch, times, taken_back }, None);
        };
        let column = batch.column(time).as_primitive::<TimestampMicrosecondType>().clone();
        let fits = |row: usize| column.is_valid(row) && (RANGE.0..=RANGE.1).contains(&column.value(row));
        let times = column.values().iter().copied().collect();
        let rows = Rows { batch, times, taken_back };
        if (0..rows.len()).all(fits) {
            return (rows, None);
        }
        let (good, bad): (Vec<u32>, Vec<u32>) = (0..rows.len() as u32).partition(|row| fits(*row as usize));
        (rows.take(&good), Some(rows.take(&bad)))
    }

    /// No row of `watermark` or before comes any more from a partition of a source that knows: beside what the plan's watermark says, of
    /// which the greater counts.
    ///
    /// # Errors
    /// As of [`Job::push`].
    pub fn watermark(&mut self, source: &str, partition: u32, watermark: i64, now: i64) -> Result<()> {
        self.begin(now)?;
        let now = self.now;
        self.source(source)?.1.tell(partition, watermark.min(RANGE.1), now);
        self.run()
    }

    /// No more rows come from a partition of a source. When that is true of all partitions of all sources, all windows close.
    ///
    /// # Errors
    /// As of [`Job::push`].
    pub fn end(&mut self, source: &str, partition: u32, now: i64) -> Result<()> {
        self.begin(now)?;
        let now = self.now;
        self.source(source)?.1.end(partition, now);
        self.run()
    }

    /// Time has passed: windows of processing time close, intervals of triggers are over, partitions become idle.
    ///
    /// # Errors
    /// As of [`Job::push`].
    pub fn advance(&mut self, now: i64) -> Result<()> {
        self.begin(now)?;
        for at in 0..self.nodes.len() {
            self.at_node(at, |operate, cx| operate.clock(cx))?;
        }
        self.run()
    }

    /// The next moment of `now` at which [`Job::advance`] has something to do, if there is one.
    pub fn next_advance(&self) -> Option<i64> {
        let clocks = self.nodes.iter().filter_map(|node| node.operate.next_clock());
        let idle = self.sources.iter().flatten().filter_map(|source| source.next_idle(self.now));
        clocks.chain(idle).min()
    }

    /// Tells what was wanted.
    ///
    /// # Errors
    /// `NotFound` for a number that nothing is wanted by, `InvalidArgument` for an answer that does not fit; the job is as before.
    pub fn answer(&mut self, id: u64, answer: &Answer, now: i64) -> Result<()> {
        self.begin(now)?;
        let mut taken = false;
        for at in 0..self.nodes.len() {
            // What does not fit leaves the job as it is.
            let failed = self.failed.clone();
            let result = self.at_node(at, |operate, cx| {
                taken = operate.answer(id, answer, cx)?;
                Ok(())
            });
            if let Err(error) = result {
                self.failed = failed;
                return Err(error);
            }
            if taken {
                return self.run();
            }
        }
        Err(Error::not_found(format!("nothing is wanted by the number {id}")))
    }

    /// Takes what has come of all calls so far.
    pub fn poll(&mut self) -> Given {
        std::mem::take(&mut self.given)
    }

    /// How far a partition of a source has been read; `None` when nothing was.
    ///
    /// # Errors
    /// `NotFound` or `InvalidArgument` for what is no source.
    pub fn position(&self, source: &str, partition: u32) -> Result<Option<&[u8]>> {
        let at = self.find(source)?;
        match &self.sources[at] {
            Some(source) => Ok(source.position(partition).filter(|position| !position.is_empty())),
            None => Err(Error::invalid(format!("node {source:?} is no source"))),
        }
    }

    /// How far each partition of a source has been read.
    ///
    /// # Errors
    /// As of [`Job::position`].
    pub fn positions(&self, source: &str) -> Result<Vec<(u32, Vec<u8>)>> {
        let at = self.find(source)?;
        match &self.sources[at] {
            Some(source) => Ok(source.partitions().map(|(number, position)| (number, position.to_vec())).collect()),
            None => Err(Error::invalid(format!("node {source:?} is no source"))),
        }
    }

    /// What is told of each node, in the order of the plan.
    pub fn metrics(&self) -> Vec<Metrics> {
        self.nodes
            .iter()
            .map(|node| {
                let (entries, state_bytes) = node.operate.held();
                let watermark = Some(node.watermark).filter(|watermark| *watermark > i64::MIN);
                Metrics { entries, state_bytes, watermark, ..node.metrics.clone() }
            })
            .collect()
    }

    /// Calls an operator, and queues what it gives.
    pub(super) fn at_node(
        &mut self,
        at: usize,
        call: impl FnOnce(&mut dyn Operate, &mut Context<'_>) -> Result<()>,
    ) -> Result<()> {
        let node = &mut self.nodes[at];
        let mut cx = Context {
            now: self.now,
            out: vec![],
            aside: vec![],
            wanted: vec![],
            first_wanted: self.next_wanted,
            dead: vec![],
            late: 0,
            entries_max: self.options.entries_max,
            overflow: self.options.overflow,
            name: &self.plan.nodes[at].name,
        };
        let begun = self.stopwatch.as_ref().map(|stopwatch| stopwatch());
        let result = call(&mut *node.operate, &mut cx);
        if let (Some(stopwatch), Some(begun)) = (&self.stopwatch, begun) {
            node.metrics.busy_us += stopwatch().saturating_sub(begun);
        }
        node.metrics.late += cx.late;
        let name = &self.plan.nodes[at].name;
        for (kind, id) in cx.wanted.into_iter().zip(self.next_wanted..) {
            self.given.wanted.push(Wanted { id, node: name.clone(), kind });
            self.next_wanted = id + 1;
        }
        self.given.dead.extend(cx.dead);
        let is_sink = matches!(self.plan.nodes[at].operator, Operator::Sink(_));
        for item in cx.out {
            if let Item::Rows(rows) = &item {
                node.metrics.rows_out += rows.len() as u64;
                if is_sink {
                    self.given.rows.push((name.clone(), rows.clone()));
                }
            }
            for (to, input) in &self.checked.outputs[at] {
                self.queue.push_back((*to, *input, item.clone()));
            }
        }
        for (sink, rows) in cx.aside {
            self.queue.push_back((sink, 0, Item::Rows(rows)));
        }
        if let Err(error) = result {
            let error = error.context(format!("node {name:?}"));
            self.failed = Some(error.clone());
            return Err(error);
        }
        Ok(())
    }

    /// Does all that is to be done.
    fn run(&mut self) -> Result<()> {
        loop {
            while let Some((at, input, item)) = self.queue.pop_front() {
                match item {
                    Item::Rows(rows) => {
                        self.nodes[at].metrics.rows_in += rows.len() as u64;
                        self.nodes[at].metrics.batches += 1;
                        self.at_node(at, |operate, cx| operate.rows(input, rows, cx))?;
                    }
                    Item::Watermark(watermark) => {
                        let node = &mut self.nodes[at];
                        if let Some(of_input) = node.watermarks.get_mut(input) {
                            *of_input = watermark.max(*of_input);
                        }
                        let least = node.watermarks.iter().copied().min().unwrap_or(watermark);
                        if least > node.watermark {
                            node.watermark = least;
                            self.at_node(at, |operate, cx| operate.watermark(least, cx))?;
                        }
                    }
                }
            }
            // Rows first, then how far time has come with them.
            let now = self.now;
            let active = self.sources.iter().flatten().filter(|source| !source.is_all_idle(now) && !source.is_ended());
            let others = active.map(Progress::watermark).min();
            let mut went_on = false;
            for at in 0..self.sources.len() {
                let Some(source) = &mut self.sources[at] else { continue };
                if let Some(watermark) = source.advance(now, others) {
                    self.queue.push_back((at, 0, Item::Watermark(watermark)));
                    went_on = true;
                }
            }
            if !went_on {
                return Ok(());
            }
        }
    }
}
