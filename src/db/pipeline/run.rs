use std::collections::VecDeque;
use std::sync::Arc;

use super::checkpoint::{self, Checkpoint, SinkWrite};
use super::feed::Feed;
use super::load::Load;
use super::outbox::{Outbox, RowsPart};
use super::sink::{self, KeyOf, Letter, Sink};
use super::source::{self, Position, Reading};
use super::spec::{Definition, Guarantee, PipelineOptions, PipelineSource};
use super::{Functions, Inner, lookup};
use crate::base::{Error, ErrorKind, Lsn, Result};
use crate::db::commit::{Request, Step};
use crate::db::source::Positions;
use crate::db::{Collection, Db};
use crate::engine::{ChangeSet, PipelineWrite};
use crate::platform;
use crate::query::Filter;
use crate::stream::{Bottleneck, Given, Job, Operator, Options, Overflow, Plan, Relation, Rows, StageKind};

/// Checkpoints take one part of so many of the time, at most.
const CHECKPOINT_SHARE: u64 = 10;
/// The partition of a source whose rows of the past are still being read: they come by their keys, and no window closes before the last.
const SEEDING: u32 = 1;

/// Why a step did not end.
#[derive(Debug)]
pub(super) enum Fault {
    /// It will not end when it is tried again.
    Lasting(Error),
    /// It may.
    Passing(Error),
}

impl Fault {
    pub fn into_error(self) -> Error {
        match self {
            Self::Lasting(error) | Self::Passing(error) => error,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Io | ErrorKind::Unavailable | ErrorKind::StorageFull | ErrorKind::Locked | ErrorKind::Closed => {
                Self::Passing(error)
            }
            _ => Self::Lasting(error),
        }
    }
}

/// Whatever a job refuses it refuses for good.
fn lasting(error: Error) -> Fault {
    Fault::Lasting(error)
}

/// What is done wrong in a test that plants it.
#[cfg_attr(not(test), expect(dead_code, reason = "tests alone plant faults"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planted {
    /// Checkpoints without how far sources were read.
    NoPosition,
    /// Checkpoints with how far sources were read before the last rows.
    EarlyPosition,
    /// Writes to sinks without their numbers.
    NoNumber,
    /// Rows are written, and not stored with the checkpoint before.
    NoWrites,
    /// Rows for the application are kept after the checkpoint that counts them.
    LateRows,
    /// Rows for the application that no checkpoint counts are taken for such that one does.
    UncountedRows,
}

/// A pipeline as it runs: from its last checkpoint on.
pub(super) struct Run {
    pub job: Job,
    pub readings: Vec<Reading>,
    pub feeds: Vec<Feed>,
    sinks: Vec<Sink>,
    relations: Vec<Relation>,
    letters: Option<Sink>,
    options: PipelineOptions,
    /// Of the last checkpoint.
    number: u64,
    /// Of the last write to a sink.
    sequence: u64,
    committed_ms: u64,
    took_ms: u64,
    /// Whether something came since.
    moved: bool,
    /// Checkpoints that are kept, the oldest first.
    kept: VecDeque<Kept>,
    /// Rows for the application, to be given with the next checkpoint.
    given: Vec<(String, Rows)>,
    /// What has kept it busy.
    load: Load,
    /// Where rows for the application are kept until they are acknowledged.
    outboxes: Vec<Out>,
    /// Whether it read no more, for too many of them are not.
    held: bool,
}

/// A checkpoint that is kept, and how far each source was read at it.
struct Kept {
    number: u64,
    lsns: Vec<Lsn>,
    /// Of those from before this run nobody knows it without reading them.
    positions: Option<Vec<Positions>>,
}

struct Out {
    node: u32,
    outbox: Arc<Outbox>,
    /// The number of the next row.
    next: u64,
}

/// The name of what keeps the past of a source for a pipeline.
pub(super) fn subscription(id: u64, node: usize) -> String {
    format!("{SUBSCRIPTION}{id:016x}-{node}")
}

pub(super) const SUBSCRIPTION: &str = "$pipeline-";

/// What a sink's rows have.
pub(super) fn sink_relation(plan: &Plan, relations: &[Relation], at: usize) -> Relation {
    if !plan.nodes[at].inputs.is_empty() {
        return relations[at].clone();
    }
    // It takes the late rows of a window, which are those that went in.
    let name = &plan.nodes[at].name;
    let windows = plan.nodes.iter().find(|node| match &node.operator {
        Operator::Aggregate(spec) => spec.late.as_ref() == Some(name),
        _ => false,
    });
    let input = windows.and_then(|node| node.inputs.first());
    let from = input.and_then(|input| plan.nodes.iter().position(|node| node.name == *input));
    from.map(|from| Relation { retracts: false, updates: false, ..relations[from].clone() }).unwrap_or_default()
}

fn job_options(options: &PipelineOptions) -> Options {
    let overflow = if options.refuse_overflow { Overflow::Refuse } else { Overflow::Fail };
    Options { entries_max: options.entries_max, overflow, zones: crate::db::sql::ZONES }
}

impl Run {
    /// From the latest checkpoint that is whole; from nothing where there was never one.
    pub async fn start(db: &Db, pipeline: &Inner) -> Result<Self, Fault> {
        let definition = pipeline.definition();
        let storage = &*db.inner.shared.storage;
        let (mut found, mut numbers) = (None, checkpoint::numbers(storage, definition.id).await?);
        while let Some(&number) = numbers.first() {
            let path = checkpoint::checkpoint(definition.id, number);
            match checkpoint::read(storage, &path).await? {
                Ok(read) => {
                    found = Some(read);
                    break;
                }
                Err(error) => {
                    let unwritten = numbers.len() == 1 && pipeline.counters().checkpoints == 0 && number == 1;
                    if numbers.len() == 1 && !unwritten {
                        let message = format!(
                            "{}; no checkpoint is whole: recover it from a savepoint, or from nothing",
                            error.message()
                        );
                        return Err(lasting(Error::corrupt(message)));
                    }
                    pipeline.report(format!("{}; it goes on from the checkpoint before", error.message()));
                    tracing::warn!(pipeline = definition.name, "{error}");
                    storage.remove(&path).await?;
                    numbers.remove(0);
                }
            }
        }
        match found {
            Some(checkpoint) => Self::restore(db, pipeline, &definition, checkpoint, &numbers).await,
            None => Self::begin(db, pipeline, &definition, false, 0).await,
        }
    }

    /// From nothing. With `clears`, the collections that the pipeline has made are emptied.
    pub async fn begin(
        db: &Db,
        pipeline: &Inner,
        definition: &Definition,
        clears: bool,
        number: u64,
    ) -> Result<Self, Fault> {
        let plan = definition.plan()?;
        let relations = plan.check().map_err(lasting)?;
        let mut positions = vec![];
        for (at, source, collection) in definition.sources()? {
            let collection = db.collection(&collection)?;
            source::check(&collection, &source, &relations[at])?;
            positions.push(source::begin(&collection, &source, &subscription(definition.id, at)).await?);
        }
        let mut job = Job::new(plan.clone(), job_options(&definition.spec.options)).map_err(lasting)?;
        let now = now(db);
        for ((at, ..), position) in definition.sources()?.iter().zip(&positions) {
            let node = &plan.nodes[*at].name;
            job.open(node, 0, now).map_err(lasting)?;
            if position.seeding.is_some() {
                job.open(node, SEEDING, now).map_err(lasting)?;
            }
            let (none, _) = relations[*at].batch(&[]);
            job.push(node, 0, &position.encode(), &none, None, now).map_err(lasting)?;
        }
        let next_rows = Self::told(db, pipeline, definition).await?;
        let empty = Checkpoint { number, next_rows, ..Checkpoint::default() };
        let mut run = Self::build(db, pipeline, definition, job, &empty, VecDeque::new()).await?;
        let before: Vec<u64> = run.outboxes.iter().map(|out| out.next).collect();
        if clears {
            for sink in
                run.sinks.iter_mut().filter(|sink| definition.made.iter().any(|name| name == sink.collection.name()))
            {
                sink.clears = true;
            }
        }
        run.commit(db, pipeline).await?;
        run.forget_before(db, definition.id).await?;
        // What was told before comes anew. Not earlier than here: a crash before would lose it.
        for (out, before) in run.outboxes.iter().zip(before).filter(|_| clears) {
            out.outbox.forget_before(&*db.inner.shared.storage, before).await?;
        }
        Ok(run)
    }

    /// Removes the checkpoints before the last one, from which it is not to go on any more.
    async fn forget_before(&mut self, db: &Db, id: u64) -> Result<(), Fault> {
        let storage = &*db.inner.shared.storage;
        for number in checkpoint::numbers(storage, id).await? {
            if number < self.number {
                storage.remove(&checkpoint::checkpoint(id, number)).await?;
            }
        }
        self.kept.retain(|kept| kept.number == self.number);
        Ok(())
    }

    /// Goes on from where it has been put back to: keeps the past from there, and makes that its latest checkpoint.
    pub async fn settle_here(&mut self, db: &Db, pipeline: &Inner) -> Result<(), Fault> {
        let id = pipeline.id();
        for at in 0..self.readings.len() {
            let reading = &self.readings[at];
            let (collection, lsn) = (reading.collection.clone(), reading.position.lsn);
            collection.inner.state.read().expect("no panic while held").check_feed(lsn)?;
            let node = self.job.plan().nodes.iter().position(|node| node.name == reading.node);
            collection.hold_from(&subscription(id, node.unwrap_or_default()), lsn).await?;
        }
        self.commit(db, pipeline).await?;
        self.forget_before(db, id).await
    }

    /// From a checkpoint. `numbers` are those that are kept, the latest first.
    pub async fn restore(
        db: &Db,
        pipeline: &Inner,
        definition: &Definition,
        checkpoint: Checkpoint,
        numbers: &[u64],
    ) -> Result<Self, Fault> {
        let options = job_options(&definition.spec.options);
        let (job, _) = Job::restore(definition.plan()?.clone(), options, &checkpoint.job).map_err(lasting)?;
        // What is kept for those before is known to the subscriptions alone.
        let mut oldest = vec![];
        for (at, _, collection) in definition.sources()? {
            let collection = db.collection(&collection)?;
            let held = collection.subscriptions().get(&subscription(definition.id, at)).copied();
            oldest.push(held.unwrap_or_default());
        }
        let kept = |number: &u64| Kept { number: *number, lsns: oldest.clone(), positions: None };
        let kept = numbers.iter().rev().map(kept).collect();
        let mut run = Self::build(db, pipeline, definition, job, &checkpoint, kept).await?;
        if definition.spec.options.guarantee == Guarantee::ExactlyOnce {
            run.apply(db, definition.id, &checkpoint.writes, true, None).await?;
        }
        // Time has passed since, and partitions may be idle now.
        run.settle(db, pipeline).await?;
        Ok(run)
    }

    async fn build(
        db: &Db,
        pipeline: &Inner,
        definition: &Definition,
        job: Job,
        checkpoint: &Checkpoint,
        kept: VecDeque<Kept>,
    ) -> Result<Self, Fault> {
        let plan = definition.plan()?;
        let options = definition.spec.options.clone();
        let relations = plan.check().map_err(lasting)?;
        let mut readings = vec![];
        for (at, source, collection) in definition.sources()? {
            let collection = db.collection(&collection)?;
            let node = &plan.nodes[at].name;
            source::check(&collection, &source, &relations[at])?;
            let position = job.position(node, 0).map_err(lasting)?;
            let position =
                position.ok_or_else(|| lasting(Error::corrupt(format!("source {node:?} has no position"))))?;
            let position = Position::decode(position)?;
            let relation = relations[at].clone();
            readings.push(Reading::new(node, collection, &source, relation, options.batch_rows, position)?);
        }
        let mut feeds = vec![];
        for (at, source, name) in definition.feeds()? {
            let mut positions: Positions = job.positions(&plan.nodes[at].name).map_err(lasting)?.into_iter().collect();
            positions.retain(|_, position| !position.is_empty());
            feeds.push(Feed::connect(db, definition, at, &source, &name, &relations[at], positions).await?);
        }
        let next_row = |node: u32| checkpoint.next_rows.iter().find(|(at, _)| *at == node).map_or(0, |(_, next)| *next);
        let mut sinks = vec![];
        for (at, node) in plan.nodes.iter().enumerate() {
            let Operator::Sink(spec) = &node.operator else { continue };
            let Some(name) = &spec.collection else { continue };
            let collection = db.collection(name)?;
            let relation = sink_relation(plan, &relations, at);
            let key = sink::key_in(spec, &relation, &collection.spec().schema)
                .map_err(|error| error.context(format!("sink {:?} into collection {name:?}", node.name)))?;
            sinks.push(Sink::new(at as u32, &node.name, collection, key, next_row(at as u32)));
        }
        let letters = match &options.dead_letters {
            Some(name) => {
                let collection = db.collection(name)?;
                sink::letters_fit(&collection)?;
                let (node, key) = (SinkWrite::DEAD_LETTERS, KeyOf::Letters(definition.id));
                Some(Sink::new(node, "dead letters", collection, key, next_row(node)))
            }
            None => None,
        };
        let outboxes = Self::outboxes(db, pipeline, definition, checkpoint, planted(pipeline)).await?;
        let relations = (0..plan.nodes.len()).map(|at| match &plan.nodes[at].operator {
            Operator::Sink(_) => sink_relation(plan, &relations, at),
            _ => relations[at].clone(),
        });
        let mut run = Self {
            relations: relations.collect(),
            job,
            readings,
            feeds,
            sinks,
            letters,
            options,
            number: checkpoint.number,
            sequence: checkpoint.sequence,
            committed_ms: db.inner.shared.options.environment.now_ms(),
            took_ms: 0,
            moved: false,
            kept,
            given: vec![],
            load: Load::default(),
            outboxes,
            held: false,
        };
        let environment = db.inner.shared.options.environment.clone();
        run.job.measure(move || environment.now_us());
        for at in 0..run.feeds.len() {
            run.turn(db, at)?;
        }
        // After a checkpoint that was not the latest, numbers are not used again.
        let written = run.all_sinks().map(|sink| written(&sink.collection, definition.id)).max().unwrap_or(0);
        run.sequence = run.sequence.max(written);
        Ok(run)
    }

    /// Where rows for the application are kept, as the checkpoint says from which the pipeline goes on.
    async fn outboxes(
        db: &Db,
        pipeline: &Inner,
        definition: &Definition,
        checkpoint: &Checkpoint,
        planted: Option<Planted>,
    ) -> Result<Vec<Out>, Fault> {
        let mut outboxes = vec![];
        if definition.spec.options.keep_rows == 0 {
            return Ok(outboxes);
        }
        let told_before =
            definition.spec.options.guarantee == Guarantee::AtLeastOnce || planted == Some(Planted::UncountedRows);
        for (node, outbox) in pipeline.outboxes(definition)? {
            let counted = checkpoint.next_rows.iter().find(|(at, _)| *at == node).map_or(0, |(_, next)| *next);
            let next = outbox.load(&*db.inner.shared.storage, counted, told_before).await?;
            outboxes.push(Out { node, outbox, next });
        }
        Ok(outboxes)
    }

    /// How many rows the application was told, by sink.
    pub async fn told(db: &Db, pipeline: &Inner, definition: &Definition) -> Result<Vec<(u32, u64)>, Fault> {
        let mut told = vec![];
        if definition.spec.options.keep_rows == 0 {
            return Ok(told);
        }
        let storage = &*db.inner.shared.storage;
        let mut latest = None;
        for number in checkpoint::numbers(storage, definition.id).await? {
            if let Ok(read) = checkpoint::read(storage, &checkpoint::checkpoint(definition.id, number)).await? {
                latest = Some(read);
                break;
            }
        }
        for (node, outbox) in pipeline.outboxes(definition)? {
            let of_checkpoint = latest.iter().flat_map(|latest| &latest.next_rows).find(|(at, _)| *at == node);
            let next = match of_checkpoint {
                Some((_, next)) => *next,
                None => outbox.load(storage, u64::MAX, true).await?.min(outbox.end()),
            };
            told.push((node, next));
        }
        Ok(told)
    }

    fn all_sinks(&self) -> impl Iterator<Item = &Sink> {
        self.sinks.iter().chain(&self.letters)
    }

    /// Takes the next rows of each source; tells whether there are more. With `all`, what waits is committed at the end, due or not.
    pub async fn step(&mut self, db: &Db, pipeline: &Inner, all: bool) -> Result<bool, Fault> {
        let mut more = false;
        let environment = &db.inner.shared.options.environment;
        let Self { load, job, .. } = self;
        load.turn(environment.now_us(), || job.metrics());
        self.held = self.is_full();
        if self.held {
            if self.is_due(db) || (all && self.waits()) {
                self.commit(db, pipeline).await?;
            }
            return Ok(false);
        }
        for at in 0..self.readings.len() {
            let now = now(db);
            let reading = &mut self.readings[at];
            let node = reading.node.clone();
            let before = reading.position.clone();
            if before.seeding.is_some() {
                // It is not idle.
                self.job.watermark(&node, SEEDING, i64::MIN, now).map_err(lasting)?;
            }
            let begun_us = environment.now_us();
            let came = reading.next(environment.now_ms()).await?;
            let took_us = environment.now_us().saturating_sub(begun_us);
            self.load.took(&node, StageKind::Source, took_us, came.batch.num_rows() as u64);
            more |= !came.is_caught_up;
            let position = self.readings[at].position.clone();
            let mut told = position.encode();
            match planted(pipeline) {
                Some(Planted::NoPosition) => told = Position { lsn: Lsn(0), ..position.clone() }.encode(),
                Some(Planted::EarlyPosition) => told = before.encode(),
                _ => {}
            }
            for (row, reason) in came.wrong {
                self.refuse(db, pipeline, Letter { node: node.clone(), reason, row })?;
            }
            if position != before || came.batch.num_rows() > 0 {
                self.moved = true;
                let taken_back = came.taken_back.as_deref();
                self.job.push(&node, 0, &told, &came.batch, taken_back, now).map_err(lasting)?;
            }
            if before.seeding.is_some() && position.seeding.is_none() {
                self.job.end(&node, SEEDING, now).map_err(lasting)?;
            }
            self.settle(db, pipeline).await?;
            platform::yield_now().await;
        }
        for at in 0..self.feeds.len() {
            more |= self.step_feed(db, pipeline, at).await?;
            platform::yield_now().await;
        }
        let now = now(db);
        if self.job.next_advance().is_some_and(|due| due <= now) {
            self.moved = true;
            self.job.advance(now).map_err(lasting)?;
            self.settle(db, pipeline).await?;
        }
        if self.options.guarantee == Guarantee::AtLeastOnce {
            let writes = self.take_writes(db, pipeline)?;
            self.apply(db, pipeline.id(), &writes, false, planted(pipeline)).await?;
            let parts = self.take_parts();
            self.put_parts(db, &parts).await?;
            self.tell(pipeline, &parts);
        }
        if self.is_due(db) || (all && !more && self.waits()) {
            self.commit(db, pipeline).await?;
        }
        Ok(more)
    }

    /// Tells the job which partitions the rows of a connector's source come from, and from where on, when they are others than it knows.
    fn turn(&mut self, db: &Db, at: usize) -> Result<(), Fault> {
        let feed = &mut self.feeds[at];
        let partitions = feed.reader.partitions();
        if feed.partitions == partitions {
            return Ok(());
        }
        let now = now(db);
        self.job.turn(&feed.node, partitions.clone(), now).map_err(lasting)?;
        let (none, _) = self.job.relation(&feed.node).map_err(lasting)?.batch(&[]);
        for (partition, position) in feed.reader.positions().clone() {
            if self.job.position(&feed.node, partition).map_err(lasting)?.is_none() {
                self.job.push(&feed.node, partition, &position, &none, None, now).map_err(lasting)?;
            }
        }
        // What a restart finds it finds again.
        self.moved |= !feed.partitions.is_empty();
        feed.partitions = partitions;
        Ok(())
    }

    /// Takes the next rows of a connector's source.
    async fn step_feed(&mut self, db: &Db, pipeline: &Inner, at: usize) -> Result<bool, Fault> {
        let environment = &db.inner.shared.options.environment;
        let now = now(db);
        let feed = &mut self.feeds[at];
        let node = feed.node.clone();
        let begun_us = environment.now_us();
        let fed = feed.next(self.options.batch_rows, environment.now_ms()).await?;
        let took_us = environment.now_us().saturating_sub(begun_us);
        self.load.took(&node, StageKind::Source, took_us, fed.batch.num_rows() as u64);
        for letter in fed.letters {
            self.refuse(db, pipeline, letter)?;
        }
        self.turn(db, at)?;
        if let Some(mut position) = fed.position {
            match planted(pipeline) {
                Some(Planted::NoPosition) => position.clear(),
                Some(Planted::EarlyPosition) => {
                    position = self.job.position(&node, fed.partition).map_err(lasting)?.unwrap_or_default().to_vec();
                }
                _ => {}
            }
            self.moved = true;
            self.job.push(&node, fed.partition, &position, &fed.batch, None, now).map_err(lasting)?;
        }
        if fed.ends {
            self.moved = true;
            for partition in self.feeds[at].reader.partitions() {
                self.job.end(&node, partition, now).map_err(lasting)?;
            }
        }
        self.settle(db, pipeline).await?;
        Ok(fed.has_more)
    }

    /// When a source is to be read again though nothing comes until then.
    pub fn wake_ms(&self) -> Option<u64> {
        let feeds = self.feeds.iter().filter_map(|feed| feed.reader.wake_ms());
        feeds.chain(self.readings.iter().filter_map(Reading::wake_ms)).min()
    }

    /// Whether something waits for a checkpoint.
    pub fn waits(&self) -> bool {
        self.moved || !self.given.is_empty() || self.all_sinks().any(|sink| !sink.is_empty())
    }

    fn is_due(&self, db: &Db) -> bool {
        let staged: usize = self.all_sinks().map(Sink::len).sum();
        let given: usize = self.given.iter().map(|(_, rows)| rows.len()).sum();
        let now_ms = db.inner.shared.options.environment.now_ms();
        staged + given >= self.options.staged_rows || self.waits() && now_ms >= self.due_ms()
    }

    /// Whether more rows for the application wait than are kept.
    fn is_full(&self) -> bool {
        self.outboxes.iter().any(|out| {
            let waiting = self.given.iter().filter(|(node, _)| *node == out.outbox.sink);
            let waiting: usize = waiting.map(|(_, rows)| rows.len()).sum();
            out.outbox.counts().1 + waiting as u64 >= self.options.keep_rows as u64
        })
    }

    /// Whether the last step read nothing, for too many rows for the application wait: and whether they still do.
    pub fn is_held(&self) -> Option<bool> {
        self.held.then(|| self.is_full())
    }

    /// Rows for the application that have come, by where they are kept, with their numbers.
    fn take_parts(&mut self) -> Vec<(usize, RowsPart)> {
        let mut parts = vec![];
        for (at, out) in self.outboxes.iter_mut().enumerate() {
            let rows = self.given.iter().filter(|(node, rows)| *node == out.outbox.sink && !rows.is_empty());
            let rows: Vec<Rows> = rows.map(|(_, rows)| rows.clone()).collect();
            let count: usize = rows.iter().map(Rows::len).sum();
            if count > 0 {
                parts.push((at, RowsPart { first: out.next, rows }));
                out.next += count as u64;
            }
        }
        parts
    }

    async fn put_parts(&mut self, db: &Db, parts: &[(usize, RowsPart)]) -> Result<(), Fault> {
        for (at, part) in parts {
            self.outboxes[*at].outbox.put(&*db.inner.shared.storage, part).await?;
        }
        Ok(())
    }

    /// Gives the application what has come.
    fn tell(&mut self, pipeline: &Inner, parts: &[(usize, RowsPart)]) {
        for (at, part) in parts {
            self.outboxes[*at].outbox.add(part);
        }
        pipeline.give(std::mem::take(&mut self.given));
    }

    /// When the next checkpoint is due.
    pub fn due_ms(&self) -> u64 {
        self.committed_ms.saturating_add(self.options.checkpoint_interval_ms.max(CHECKPOINT_SHARE * self.took_ms))
    }

    /// Takes what has come of the rows, and answers what is asked, until nothing is left to do.
    async fn settle(&mut self, db: &Db, pipeline: &Inner) -> Result<(), Fault> {
        let functions: Arc<Functions> = db.inner.pipelines.functions();
        loop {
            let Given { rows, wanted, dead } = self.job.poll();
            for letter in dead {
                let relation = self.job.relation(&letter.node).map_err(lasting)?.clone();
                for row in letter.rows.to_rows(&relation) {
                    self.refuse(
                        db,
                        pipeline,
                        Letter { node: letter.node.clone(), reason: letter.reason.clone(), row },
                    )?;
                }
            }
            for (node, rows) in rows {
                let letters = match self.sinks.iter_mut().find(|sink| sink.name == node) {
                    Some(sink) => sink.stage(&rows, &self.relations[sink.node as usize]),
                    None => {
                        self.given.push((node, rows));
                        vec![]
                    }
                };
                for letter in letters {
                    self.refuse(db, pipeline, letter)?;
                }
            }
            if wanted.is_empty() {
                return Ok(());
            }
            for one in wanted {
                let environment = &db.inner.shared.options.environment;
                let begun_us = environment.now_us();
                let answered = lookup::answer(db, self.job.plan(), &one, self.options.lookup, &functions).await?;
                let took_us = environment.now_us().saturating_sub(begun_us);
                self.load.took(&one.node, StageKind::Lookup, took_us, one.kind.len() as u64);
                pipeline.counters().lookups_beyond += answered.beyond;
                for letter in answered.letters {
                    self.refuse(db, pipeline, letter)?;
                }
                self.job.answer(one.id, &answered.answer, now(db)).map_err(lasting)?;
            }
        }
    }

    /// Puts a row aside that was not taken; without a place for it, that is the end.
    fn refuse(&mut self, db: &Db, pipeline: &Inner, letter: Letter) -> Result<(), Fault> {
        pipeline.counters().dead += 1;
        let Some(letters) = &mut self.letters else {
            let message = format!("node {:?} did not take a row: {}", letter.node, letter.reason);
            return Err(lasting(Error::invalid(message)));
        };
        let _ = letters.stage_row(letter.into_row(&pipeline.name(), now(db)), false);
        Ok(())
    }

    fn take_writes(&mut self, db: &Db, pipeline: &Inner) -> Result<Vec<SinkWrite>, Fault> {
        let mut writes = vec![];
        let mut sequence = self.sequence;
        let mut refused = vec![];
        for sink in &mut self.sinks {
            let (taken, letters) = sink.take(&mut sequence)?;
            writes.extend(taken);
            refused.extend(letters);
        }
        for letter in refused {
            self.refuse(db, pipeline, letter)?;
        }
        if let Some(letters) = &mut self.letters {
            let (taken, wrong) = letters.take(&mut sequence)?;
            writes.extend(taken);
            if let Some(letter) = wrong.first() {
                return Err(lasting(Error::invalid(format!("a dead letter is refused: {}", letter.reason))));
            }
        }
        self.sequence = sequence;
        Ok(writes)
    }

    /// Makes a checkpoint, then writes what it has for the sinks.
    pub async fn commit(&mut self, db: &Db, pipeline: &Inner) -> Result<(), Fault> {
        let environment = &db.inner.shared.options.environment;
        let begun_ms = environment.now_ms();
        let writes = self.take_writes(db, pipeline)?;
        // A crash must not take back what was read.
        for reading in &self.readings {
            let collection = &reading.collection;
            collection.sync_log(&mut *collection.inner.log.lock().await).await?;
        }
        let stored = self.options.guarantee == Guarantee::ExactlyOnce && planted(pipeline) != Some(Planted::NoWrites);
        let parts = self.take_parts();
        let late = self.options.guarantee == Guarantee::AtMostOnce || planted(pipeline) == Some(Planted::LateRows);
        if !late {
            self.put_parts(db, &parts).await?;
        }
        let bytes = self.snapshot(begun_ms, if stored { &writes } else { &[] }, self.number + 1)?;
        let len = bytes.len();
        self.number += 1;
        let (id, storage) = (pipeline.id(), &*db.inner.shared.storage);
        checkpoint::store(storage, &checkpoint::checkpoint(id, self.number), bytes).await?;
        self.moved = false;
        if late {
            self.put_parts(db, &parts).await?;
        }
        self.tell(pipeline, &parts);
        self.apply(db, id, &writes, false, planted(pipeline)).await?;
        self.kept.push_back(Kept {
            number: self.number,
            lsns: self.readings.iter().map(|reading| reading.position.lsn).collect(),
            positions: Some(self.feeds.iter().map(|feed| feed.reader.positions().clone()).collect()),
        });
        while self.kept.len() > self.options.checkpoints {
            let Some(Kept { number, .. }) = self.kept.pop_front() else { break };
            storage.remove(&checkpoint::checkpoint(id, number)).await?;
        }
        self.let_go(id).await?;
        self.committed_ms = environment.now_ms();
        self.took_ms = self.committed_ms.saturating_sub(begun_ms);
        let mut counters = pipeline.counters();
        counters.checkpoints += 1;
        counters.checkpoint_number = self.number;
        counters.checkpoint_bytes = len;
        counters.checkpoint_took_ms = self.took_ms;
        counters.checkpoint_ms = self.committed_ms;
        Ok(())
    }

    /// The bytes of a checkpoint of what is now.
    pub fn snapshot(&self, created_ms: u64, writes: &[SinkWrite], number: u64) -> Result<Vec<u8>, Fault> {
        let job = self.job.checkpoint(number).map_err(lasting)?;
        let kept = self.outboxes.iter().map(|out| (out.node, out.next));
        let next_rows = self.all_sinks().map(|sink| (sink.node, sink.next_row)).chain(kept).collect();
        let (sequence, writes) = (self.sequence, writes.to_vec());
        Ok(Checkpoint { number, created_ms, sequence, next_rows, writes, job }.encode())
    }

    /// Lets go of the past that no checkpoint needs which is kept.
    async fn let_go(&mut self, id: u64) -> Result<(), Fault> {
        let Some(Kept { lsns: oldest, positions, .. }) = self.kept.front() else { return Ok(()) };
        for (feed, positions) in self.feeds.iter_mut().zip(positions.iter().flatten()) {
            feed.commit(positions).await?;
        }
        for (reading, lsn) in self.readings.iter().zip(oldest) {
            let at = self.job.plan().nodes.iter().position(|node| node.name == reading.node);
            let name = subscription(id, at.unwrap_or_default());
            let held = reading.collection.subscriptions().get(&name).copied();
            if held.is_some_and(|held| held < *lsn) {
                reading.collection.hold_on(&name, *lsn).await?;
            }
        }
        Ok(())
    }

    /// Writes to the sinks; with `again`, what was not written already.
    async fn apply(
        &mut self,
        db: &Db,
        id: u64,
        writes: &[SinkWrite],
        again: bool,
        planted: Option<Planted>,
    ) -> Result<(), Fault> {
        for write in writes {
            let Some(sink) = self.all_sinks().find(|sink| sink.node == write.node) else {
                return Err(lasting(Error::corrupt(format!("a write for node {}, which is no sink", write.node))));
            };
            let (collection, name) = (sink.collection.clone(), sink.name.clone());
            if again && written(&collection, id) >= write.number {
                continue;
            }
            let environment = &db.inner.shared.options.environment;
            let begun_us = environment.now_us();
            let schema = collection.spec().schema.clone();
            let ChangeSet { puts, deletes, .. } = ChangeSet::decode(&schema, &write.changes)?;
            let rows = (puts.len() + deletes.len()) as u64;
            let mut steps = vec![];
            if write.clears {
                let all = format!("{} is not null", schema.primary_key().name);
                steps.push(Step::DeleteWhere(Box::new(Filter::parse(&all, &schema)?)));
            }
            if !puts.is_empty() {
                steps.push(Step::Upsert(puts));
            }
            if !deletes.is_empty() {
                steps.push(Step::DeleteKeys(deletes.into_iter().map(|(key, _)| key).collect()));
            }
            let pipeline =
                (planted != Some(Planted::NoNumber)).then_some(PipelineWrite { pipeline: id, number: write.number });
            let request = Request::Write { steps, conditions: vec![], request: None, pipeline };
            collection.write(request, None).await?;
            let took_us = environment.now_us().saturating_sub(begun_us);
            self.load.took(&name, StageKind::Sink, took_us, rows);
        }
        Ok(())
    }

    /// What has held it up lately.
    pub fn bottleneck(&self, db: &Db) -> Option<Bottleneck> {
        let environment = &db.inner.shared.options.environment;
        let metrics = self.job.metrics();
        let (elapsed_us, mut stages) = self.load.stages(environment.now_us(), &metrics);
        let now_ms = i64::try_from(environment.now_ms()).unwrap_or(i64::MAX);
        for stage in stages.iter_mut().filter(|stage| stage.kind == StageKind::Source) {
            let reading = self.readings.iter().find(|reading| reading.node == stage.name);
            let feed = || self.feeds.iter().find(|feed| feed.node == stage.name)?.reader.waiting();
            stage.waiting = reading.map(Reading::behind).or_else(feed).unwrap_or_default();
            let watermark = metrics.iter().find(|one| one.node == stage.name).and_then(|one| one.watermark);
            stage.watermark_lag_ms = watermark.filter(|at| *at < i64::MAX).map(|at| now_ms.saturating_sub(at / 1_000));
        }
        crate::stream::bottleneck(elapsed_us, &stages)
    }

    /// How many rows each sink was given.
    pub fn written_rows(&self) -> u64 {
        self.all_sinks().map(|sink| sink.rows).sum()
    }
}

/// The last write of a pipeline that is in a collection.
fn written(collection: &Collection, id: u64) -> u64 {
    let state = collection.inner.state.read().expect("no panic while held");
    state.progress().pipelines.get(&id).copied().unwrap_or(0)
}

/// Microseconds since 1970.
pub(super) fn now(db: &Db) -> i64 {
    i64::try_from(db.inner.shared.options.environment.now_ms().saturating_mul(1_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
fn planted(pipeline: &Inner) -> Option<Planted> {
    pipeline.planted()
}

#[cfg(not(test))]
fn planted(_pipeline: &Inner) -> Option<Planted> {
    None
}

/// That `source` can be one of a node.
pub(super) fn check_source(collection: &Collection, source: &PipelineSource, relation: &Relation) -> Result<()> {
    source::check(collection, source, relation)
}
