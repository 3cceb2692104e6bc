//! Pipelines: plans of streams that are part of the store, and go on by themselves.
//!
//! A pipeline is a [`Plan`](crate::stream::Plan) whose sources are collections as they change and whose sinks are collections or whoever
//! listens. Its definition is stored; what it has done is in its checkpoints, objects beside the collections.
//!
//! What must be true:
//! - A checkpoint is put before anything of it is written to a sink, and has all that is to be written, under numbers that are never used
//!   again. Each write stands in one frame of its collection's log with its number. So whatever dies when, the latest checkpoint and the
//!   collections tell what is still to be written.
//! - What sources have told since the oldest checkpoint that is kept is held by a subscription, and no further back than
//!   [`PipelineOptions::behind_max`].
//! - No writer waits for a pipeline: it reads the log like everybody else, in bounded steps that the host asks for.
//!
//! Deliberately absent: what operators do (`stream`), and threads and timers: a host calls [`Db::run_pipelines`] as it calls
//! [`Db::maintain`].

mod checkpoint;
mod feed;
mod load;
mod lookup;
mod outbox;
mod rows;
mod run;
#[cfg(test)]
#[cfg(native)]
mod sim_tests;
mod sink;
mod source;
mod spec;
#[cfg(test)]
#[cfg(native)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

pub use checkpoint::{Checkpoint, SinkWrite};
pub use outbox::{RowsPart, UnreadRow};
pub use rows::PipelineRows;
pub use spec::{
    Definition, Guarantee, LookupTime, OnGone, PipelineOptions, PipelineSource, PipelineSpec, PipelineState,
};
pub(super) use spec::{check_name, unframed_text};

use super::Db;
use super::database::Shared;
use super::sql::ZONES;
use crate::base::{Error, ErrorKind, Result};
use crate::db::source::SourceState;
use crate::engine::name;
use crate::model::{Field, Row};
use crate::platform::{self, MaybeSend, MaybeSync, Task};
use crate::stream::sql::{Mode, Table, compile};
use crate::stream::{Bottleneck, Metrics, Operator, Plan, Rows};
use outbox::Outbox;
use rows::Listener;
use run::{Fault, Run, subscription};

/// After a failure that may pass, a pipeline waits so long at first, and twice as long each time.
const RETRY_MS: u64 = 100;
/// At most so long.
const RETRY_MS_MAX: u64 = 30_000;
/// So many reports of damage and recovery are kept.
const REPORTS_MAX: usize = 16;

/// A function of the host, which a plan calls by name for each row.
///
/// What it gives depends on the row alone where results are to be the same after a crash.
pub trait PipelineFunction: MaybeSend + MaybeSync {
    /// The rows that come of each of `rows`, with the fields that the plan promises; or what is wrong with it, and it becomes a dead letter.
    /// What takes long comes to an end by itself, with an error: nobody waits for the pipeline, and the pipeline for nobody else.
    ///
    /// # Errors
    /// `Unavailable` and its like when nothing is known of any of them, and the pipeline tries again; with any other it fails.
    fn call<'a>(&'a self, rows: &'a [Row], fields: &'a [Field]) -> Task<'a, Result<Vec<Result<Vec<Row>>>>>;
}

impl<F: Fn(&Row) -> Result<Vec<Row>> + MaybeSend + MaybeSync> PipelineFunction for F {
    fn call<'a>(&'a self, rows: &'a [Row], _: &'a [Field]) -> Task<'a, Result<Vec<Result<Vec<Row>>>>> {
        Box::pin(async move { Ok(rows.iter().map(self).collect()) })
    }
}

type Functions = BTreeMap<String, Arc<dyn PipelineFunction>>;

/// The pipelines of a store.
pub(super) struct Pipelines {
    by_name: Mutex<BTreeMap<String, Pipeline>>,
    functions: Mutex<Arc<Functions>>,
    /// One is created, dropped or changed at a time.
    changing: async_lock::Mutex<()>,
    tidied: AtomicBool,
}

/// A pipeline of an open store. Cheap to clone.
#[derive(Clone)]
pub struct Pipeline {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    definition: Mutex<Definition>,
    /// Of the definition's object.
    version: AtomicU64,
    run: async_lock::Mutex<Option<Run>>,
    counters: Mutex<Counters>,
    seen: Mutex<Seen>,
    listeners: Mutex<Vec<Weak<Listener>>>,
    /// By node, the rows that the application has not acknowledged. Known once it has run, or somebody has asked.
    outboxes: Mutex<Option<BTreeMap<u32, Arc<Outbox>>>>,
    #[cfg(test)]
    planted: Mutex<Option<run::Planted>>,
}

/// What is counted since the store was opened.
#[derive(Debug, Clone, Default)]
struct Counters {
    checkpoints: u64,
    checkpoint_number: u64,
    checkpoint_bytes: usize,
    checkpoint_took_ms: u64,
    checkpoint_ms: u64,
    dead: u64,
    lookups_beyond: u64,
    reports: Vec<String>,
    retries: u32,
    retry_at_ms: u64,
    error: Option<(String, String)>,
}

/// How a pipeline is doing. Counts are since the store was opened.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PipelineStatus {
    /// Its name.
    pub name: String,
    /// What it does.
    pub state: PipelineState,
    /// Why it failed, or what it is trying again: the kind of the error, and its message.
    pub reason: Option<(String, String)>,
    /// What was damaged, and how it went on.
    pub reports: Vec<String>,
    /// Its sources.
    pub sources: Vec<SourceStatus>,
    /// Its operators.
    pub nodes: Vec<NodeStatus>,
    /// What holds it up, by what was done in the last 10 to 20 seconds; `None` when nothing does.
    pub bottleneck: Option<Bottleneck>,
    /// Its sinks that keep rows for the application.
    pub unread: Vec<UnreadStatus>,
    /// How many rows were given to sinks.
    pub rows_out: u64,
    /// How many rows were not taken.
    pub dead: u64,
    /// How many rows were joined with a collection as it is now, for it is not kept as it was then.
    pub lookups_beyond: u64,
    /// How many checkpoints were made.
    pub checkpoints: u64,
    /// The number of the last one.
    pub checkpoint_number: u64,
    /// Its bytes.
    pub checkpoint_bytes: usize,
    /// How long it took, with the writes to sinks.
    pub checkpoint_took_ms: u64,
    /// When it was made.
    pub checkpoint_ms: u64,
}

/// What is known of a pipeline while it is under way.
#[derive(Debug, Clone, Default)]
struct Seen {
    sources: Vec<SourceStatus>,
    nodes: Vec<NodeStatus>,
    bottleneck: Option<Bottleneck>,
    rows_out: u64,
}

/// How far a source is read.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// The node.
    pub node: String,
    /// The collection; the name that a connector knows it by.
    pub collection: String,
    /// The connector, where it is none of a collection.
    pub connector: Option<String>,
    /// What a connector's source does.
    pub state: SourceState,
    /// How many rows were read.
    pub rows: u64,
    /// The position in the collection's log; 0 of a connector.
    pub lsn: u64,
    /// How many transactions are to come; rows, of a connector that knows.
    pub behind: u64,
    /// Whether rows that were there at the beginning are still being read.
    pub seeding: bool,
}

/// How far the application is with the rows of a sink.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreadStatus {
    /// The sink.
    pub sink: String,
    /// How many rows it has acknowledged.
    pub acknowledged: u64,
    /// How many it has not.
    pub rows: u64,
    /// Whether the pipeline waits for it.
    pub is_full: bool,
}

/// How an operator is doing.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// How many rows it took.
    pub rows_in: u64,
    /// How many rows it gave.
    pub rows_out: u64,
    /// In how many batches they came.
    pub batches: u64,
    /// For how many microseconds it was at work: without what it asks of collections and functions.
    pub busy_us: u64,
    /// How many rows were late and left out.
    pub late: u64,
    /// How many keys or rows it keeps.
    pub entries: usize,
    /// About how many bytes these take.
    pub state_bytes: usize,
    /// How far time has come, in microseconds since 1970.
    pub watermark: Option<i64>,
    /// How far that is behind the clock, in milliseconds.
    pub watermark_lag_ms: Option<i64>,
}

/// Where a pipeline goes on that is recovered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// At the latest checkpoint that is whole.
    Latest,
    /// At a savepoint. What was written to sinks since stays, until it is written anew.
    Savepoint(String),
    /// At the beginning, after the collections that it has made are emptied.
    Nothing,
}

impl Inner {
    fn new(shared: &Arc<Shared>, definition: Definition, version: u64) -> Self {
        Self {
            shared: shared.clone(),
            definition: Mutex::new(definition),
            version: AtomicU64::new(version),
            run: async_lock::Mutex::new(None),
            counters: Mutex::default(),
            seen: Mutex::default(),
            listeners: Mutex::default(),
            outboxes: Mutex::default(),
            #[cfg(test)]
            planted: Mutex::default(),
        }
    }

    fn definition(&self) -> Definition {
        self.definition.lock().expect("no panic while held").clone()
    }

    fn id(&self) -> u64 {
        self.definition.lock().expect("no panic while held").id
    }

    fn name(&self) -> String {
        self.definition.lock().expect("no panic while held").name.clone()
    }

    fn state(&self) -> PipelineState {
        self.definition.lock().expect("no panic while held").state
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().expect("no panic while held")
    }

    fn report(&self, what: String) {
        let mut counters = self.counters();
        if counters.reports.len() == REPORTS_MAX {
            counters.reports.remove(0);
        }
        counters.reports.push(what);
    }

    /// Gives rows to those who listen.
    fn give(&self, rows: Vec<(String, Rows)>) {
        let mut listeners = self.listeners.lock().expect("no panic while held");
        listeners.retain(|listener| listener.strong_count() > 0);
        if rows.is_empty() || listeners.is_empty() {
            return;
        }
        let definition = self.definition();
        let Some(plan) = &definition.spec.plan else { return };
        let Ok(relations) = plan.check() else { return };
        for (node, rows) in rows {
            let Some(at) = plan.nodes.iter().position(|other| other.name == node) else { continue };
            let relation = run::sink_relation(plan, &relations, at);
            let told: Vec<(Row, bool)> = rows
                .to_rows(&relation)
                .into_iter()
                .enumerate()
                .map(|(at, row)| (row, rows.is_retraction(at)))
                .collect();
            for listener in listeners.iter().filter_map(Weak::upgrade) {
                listener.give(&node, &told);
            }
        }
    }

    fn end_listeners(&self, error: &Error) {
        for listener in self.listeners.lock().expect("no panic while held").drain(..).filter_map(|one| one.upgrade()) {
            listener.end(error.clone());
        }
        for outbox in self.outboxes.lock().expect("no panic while held").iter().flat_map(BTreeMap::values) {
            outbox.end_with(error.clone());
        }
    }

    /// Where rows for the application are kept, by node.
    fn outboxes(&self, definition: &Definition) -> Result<Vec<(u32, Arc<Outbox>)>> {
        let plan = definition.plan()?;
        let relations = plan.check()?;
        let mut outboxes = self.outboxes.lock().expect("no panic while held");
        let outboxes = outboxes.get_or_insert_default();
        for (at, node) in plan.nodes.iter().enumerate() {
            if matches!(&node.operator, Operator::Sink(sink) if sink.collection.is_none()) {
                let new = || {
                    let relation = run::sink_relation(plan, &relations, at);
                    Arc::new(Outbox::new(definition.id, at as u32, &node.name, relation))
                };
                outboxes.entry(at as u32).or_insert_with(new);
            }
        }
        Ok(outboxes.iter().map(|(node, outbox)| (*node, outbox.clone())).collect())
    }

    #[cfg(test)]
    fn planted(&self) -> Option<run::Planted> {
        *self.planted.lock().expect("no panic while held")
    }

    /// Stores a changed definition.
    async fn swap(&self, edit: impl FnOnce(&mut Definition)) -> Result<()> {
        let mut definition = self.definition();
        edit(&mut definition);
        let (id, version) = (definition.id, self.version.load(Ordering::Acquire));
        let storage = &self.shared.storage;
        storage.put(&checkpoint::definition(id, version + 1), definition.encode().into()).await?;
        self.version.store(version + 1, Ordering::Release);
        *self.definition.lock().expect("no panic while held") = definition;
        storage.remove(&checkpoint::definition(id, version)).await
    }

    async fn set_state(&self, state: PipelineState, reason: Option<(String, String)>) -> Result<()> {
        {
            let mut counters = self.counters();
            (counters.error, counters.retries, counters.retry_at_ms) = (None, 0, 0);
        }
        self.swap(|definition| (definition.state, definition.reason) = (state, reason)).await
    }
}

impl Pipelines {
    /// Those that are stored.
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<Self> {
        let storage = &shared.storage;
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in storage.list(name::PIPELINES).await? {
            let id = entry.name.split('/').nth(1).unwrap_or_default().to_owned();
            found.entry(id).or_default().push(entry.name);
        }
        let mut by_name = BTreeMap::new();
        for (id, files) in found {
            let is_definition = |file: &&String| file.split('/').nth(2) == Some("definition");
            let mut definitions: Vec<&String> = files.iter().filter(is_definition).collect();
            definitions.sort_unstable_by(|left, right| right.cmp(left));
            let mut opened: Option<(Definition, u64)> = None;
            let mut damaged: Option<Error> = None;
            for file in definitions {
                if opened.is_some() {
                    storage.remove(file).await?;
                    continue;
                }
                let bytes = match storage.read_all(file).await {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == ErrorKind::Corrupt => Default::default(),
                    Err(error) => return Err(error),
                };
                match Definition::decode(&bytes) {
                    Ok(definition) => opened = Some((definition, name::number(file).unwrap_or_default())),
                    // A crash cut it short before it counted, if there is one before it.
                    Err(error) => {
                        tracing::warn!("{}", error.clone().context(file));
                        damaged = Some(error.context(file));
                    }
                }
            }
            match (opened, damaged) {
                (Some((definition, version)), damaged) => {
                    if damaged.is_some() {
                        for file in files.iter().filter(is_definition) {
                            if name::number(file) > Some(version) {
                                storage.remove(file).await?;
                            }
                        }
                    }
                    let name = definition.name.clone();
                    by_name.insert(name, Pipeline { inner: Arc::new(Inner::new(shared, definition, version)) });
                }
                // Its creation or its end was cut short.
                (None, None) => {
                    for file in &files {
                        storage.remove(file).await?;
                    }
                }
                (None, Some(error)) => {
                    let has_checkpoints = files.iter().any(|file| file.split('/').nth(2) == Some("checkpoint"));
                    if !has_checkpoints {
                        for file in &files {
                            storage.remove(file).await?;
                        }
                        continue;
                    }
                    // It can be looked at, and dropped.
                    let reason = Some((error.kind().as_str().to_owned(), error.message().to_owned()));
                    let definition = Definition {
                        id: u64::from_str_radix(&id, 16).unwrap_or_default(),
                        name: id.clone(),
                        spec: PipelineSpec::default(),
                        state: PipelineState::Failed,
                        reason,
                        made: vec![],
                    };
                    let version = files.iter().filter(is_definition).filter_map(|file| name::number(file)).max();
                    let inner = Inner::new(shared, definition, version.unwrap_or_default());
                    by_name.insert(id, Pipeline { inner: Arc::new(inner) });
                }
            }
        }
        Ok(Self {
            by_name: Mutex::new(by_name),
            functions: Mutex::default(),
            changing: async_lock::Mutex::new(()),
            tidied: AtomicBool::new(false),
        })
    }

    fn functions(&self) -> Arc<Functions> {
        self.functions.lock().expect("no panic while held").clone()
    }

    fn all(&self) -> Vec<Pipeline> {
        self.by_name.lock().expect("no panic while held").values().cloned().collect()
    }
}

impl Db {
    /// Creates a pipeline, durably, with the collections of its sinks that are not there. It begins to run when background work is done:
    /// [`Db::run_pipelines`].
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken. `InvalidArgument` and `Unsupported` for a plan that cannot be (with its
    /// [position](Error::position) in SQL), sources and sinks that do not fit their collections, and a pipeline that would feed itself.
    /// `NotFound` for a source that is not there.
    pub async fn create_pipeline(&self, name: &str, spec: PipelineSpec) -> Result<Pipeline> {
        self.inner.shared.check_open()?;
        spec::check_name(name)?;
        let (db, name) = (self.clone(), name.to_owned());
        platform::run_to_end(async move {
            let _one = db.inner.pipelines.changing.lock().await;
            if db.inner.pipelines.by_name.lock().expect("no panic while held").contains_key(&name) {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("pipeline {name:?} exists already")));
            }
            if spec.is_explain() {
                return Err(Error::invalid("`EXPLAIN` shows a pipeline, and makes none: ask `explain_pipeline`"));
            }
            let spec = db.completed(spec)?;
            let shared = &db.inner.shared;
            // 53 bits, so that JavaScript can hold it.
            let id = (shared.options.environment.random_u64() >> 11).max(1);
            let mut definition =
                Definition { id, name: name.clone(), spec, state: PipelineState::Active, reason: None, made: vec![] };
            let missing = db.check_pipeline(&definition)?;
            definition.made = missing.iter().map(|(name, _)| name.clone()).collect();
            for (collection, spec) in missing {
                db.create_collection(&collection, spec).await?;
            }
            let storage = &shared.storage;
            let first = checkpoint::definition(id, 1);
            storage.put(&first, definition.encode().into()).await?;
            let pipeline = Pipeline { inner: Arc::new(Inner::new(shared, definition, 1)) };
            // Where its sources begin is decided now.
            match Run::start(&db, &pipeline.inner).await {
                Ok(run) => *pipeline.inner.run.lock().await = Some(run),
                Err(Fault::Lasting(error) | Fault::Passing(error)) => {
                    db.remove_pipeline(&pipeline).await?;
                    return Err(error);
                }
            }
            db.inner.pipelines.by_name.lock().expect("no panic while held").insert(name, pipeline.clone());
            Ok(pipeline)
        })
        .await
    }

    /// The pipeline of that name; `NotFound` lists those that exist.
    pub fn pipeline(&self, name: &str) -> Result<Pipeline> {
        self.inner.shared.check_open()?;
        let pipelines = self.inner.pipelines.by_name.lock().expect("no panic while held");
        pipelines.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = pipelines.keys().map(String::as_str).collect();
            Error::not_found(format!("no pipeline {name:?}; there are: {}", names.join(", ")))
        })
    }

    /// All pipelines, by name.
    pub fn pipelines(&self) -> Vec<Pipeline> {
        self.inner.pipelines.all()
    }

    /// Ends a pipeline for good, and removes its checkpoints and savepoints. The collections of its sinks stay.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    pub async fn drop_pipeline(&self, name: &str) -> Result<()> {
        let pipeline = self.pipeline(name)?;
        let db = self.clone();
        platform::run_to_end(async move {
            let _one = db.inner.pipelines.changing.lock().await;
            let mut run = pipeline.inner.run.lock().await;
            *run = None;
            db.remove_pipeline(&pipeline).await?;
            db.inner.pipelines.by_name.lock().expect("no panic while held").remove(&pipeline.inner.name());
            pipeline.inner.definition.lock().expect("no panic while held").state = PipelineState::Closed;
            pipeline.inner.end_listeners(&Error::new(ErrorKind::Closed, "the pipeline was dropped"));
            Ok(())
        })
        .await
    }

    /// Removes what is stored of a pipeline: first what says that there is one.
    async fn remove_pipeline(&self, pipeline: &Pipeline) -> Result<()> {
        let (id, storage) = (pipeline.inner.id(), &self.inner.shared.storage);
        for entry in storage.list(&checkpoint::definitions(id)).await? {
            storage.remove(&entry.name).await?;
        }
        let definition = pipeline.inner.definition();
        for (at, _, collection) in definition.sources().unwrap_or_default() {
            let Ok(collection) = self.collection(&collection) else { continue };
            let name = subscription(id, at);
            if collection.subscriptions().contains_key(&name) {
                collection.unsubscribe(&name).await?;
            }
        }
        if definition.plan().is_ok() {
            feed::retire(self, &definition).await?;
        }
        for entry in storage.list(&name::pipeline(id)).await? {
            storage.remove(&entry.name).await?;
        }
        Ok(())
    }

    /// A function that pipelines call.
    pub(super) fn function(&self, name: &str) -> Option<Arc<dyn PipelineFunction>> {
        self.inner.pipelines.functions().get(name).cloned()
    }

    /// Gives a function to pipelines whose plans call it by that name, and to handlers of the [bus](Db::bus), in place of the one before.
    /// They are gone when the store is closed. Who waits for one goes on.
    pub fn set_function(&self, name: &str, function: impl PipelineFunction + 'static) {
        {
            let mut functions = self.inner.pipelines.functions.lock().expect("no panic while held");
            Arc::make_mut(&mut functions).insert(name.to_owned(), Arc::new(function));
        }
        for pipeline in self.pipelines() {
            pipeline.inner.counters().retry_at_ms = 0;
        }
        self.inner.bus.wake();
    }

    /// Takes a function away: pipelines and handlers that call it wait until it is there again.
    pub fn remove_function(&self, name: &str) {
        let mut functions = self.inner.pipelines.functions.lock().expect("no panic while held");
        Arc::make_mut(&mut functions).remove(name);
    }

    /// How a pipeline would be done, as text.
    ///
    /// # Errors
    /// As of [`Db::create_pipeline`].
    pub fn explain_pipeline(&self, spec: PipelineSpec) -> Result<String> {
        let spec = self.completed(spec)?;
        spec.explain(spec.plan.as_ref().ok_or_else(|| Error::internal("no plan"))?)
    }

    /// The plan that a pipeline would have.
    ///
    /// # Errors
    /// As of [`Db::create_pipeline`].
    pub fn plan_pipeline(&self, spec: PipelineSpec) -> Result<Plan> {
        self.completed(spec)?.plan.ok_or_else(|| Error::internal("no plan"))
    }

    /// The specification with its plan.
    fn completed(&self, mut spec: PipelineSpec) -> Result<PipelineSpec> {
        spec.options.check()?;
        let Some(sql) = &spec.sql else {
            if spec.plan.is_none() {
                return Err(Error::invalid("a pipeline is made of `sql` or of a `plan`, got neither"));
            }
            self.find_push_streams(&mut spec);
            return Ok(spec);
        };
        if spec.plan.is_some() {
            return Err(Error::invalid("a pipeline is made of `sql` or of a `plan`, got both"));
        }
        let mut catalog = self.catalog();
        for stream in self.push_streams() {
            let fields = stream.spec().fields;
            catalog.tables.entry(stream.name()).or_insert_with(|| Table { fields, ..Table::default() });
        }
        for (name, source) in &spec.sources {
            let stream = source.options.get("stream").and_then(|name| name.as_str());
            let from = source.collection.as_deref().or(stream).unwrap_or(name);
            let Some(mut table) = catalog.tables.get(from).cloned() else { continue };
            if let Some(commit) = &source.commit_time {
                table.fields.push(crate::stream::SourceField::new(commit, crate::model::DataType::Timestamp));
            }
            if source.time.is_some() {
                table.time.clone_from(&source.time);
                table.key = None;
                table.watermark.delay = micros(source.delay_ms);
                table.watermark.idle = source.idle_ms.map(micros);
            }
            catalog.tables.insert(name.clone(), table);
        }
        let compiled = compile(sql, &catalog, &spec.params, Mode::Stream)?;
        // Sources are known by their nodes from here on.
        for read in &compiled.reads {
            let mut source = spec.sources.remove(&read.name);
            if let Some(origin) = read.origin.clone() {
                if source.is_some() {
                    let message =
                        format!("source {:?} is described by `WITH` and by `sources`: expected one", read.name);
                    return Err(Error::invalid(message));
                }
                source = Some(origin.into());
            }
            let mut source = source.unwrap_or_default();
            source.collection.get_or_insert_with(|| read.name.clone());
            spec.sources.insert(read.node.clone(), source);
        }
        // What the text says counts before what is said beside it.
        spec.options.dead_letters = compiled.settings.dead_letters.or(spec.options.dead_letters);
        spec.options.keep_rows = compiled.settings.keep_rows.unwrap_or(spec.options.keep_rows);
        spec.plan = Some(compiled.plan);
        self.find_push_streams(&mut spec);
        Ok(spec)
    }

    /// A source that names no connector, and no collection that is there, is the push stream of that name.
    fn find_push_streams(&self, spec: &mut PipelineSpec) {
        let nodes = spec.plan.iter().flat_map(|plan| &plan.nodes);
        for node in nodes.filter(|node| matches!(node.operator, Operator::Source(_))) {
            let source = spec.sources.get(&node.name);
            let name = source.and_then(|source| source.collection.as_deref()).unwrap_or(&node.name).to_owned();
            let is_named = source.is_some_and(|source| source.connector.is_some());
            if !is_named && self.collection(&name).is_err() && self.push_stream(&name).is_ok() {
                let source = spec.sources.entry(node.name.clone()).or_default();
                (source.connector, source.collection) = (Some(super::push::CONNECTOR.to_owned()), Some(name));
            }
        }
    }

    /// That a pipeline can be; the collections that it lacks.
    fn check_pipeline(&self, definition: &Definition) -> Result<Vec<(String, crate::engine::CollectionSpec)>> {
        let plan = definition.plan()?;
        let relations = plan.check()?;
        plan.check_zones(ZONES)?;
        let mut missing = vec![];
        let mut sources = BTreeSet::new();
        for (at, source, collection) in definition.sources()? {
            run::check_source(&self.collection(&collection)?, &source, &relations[at])
                .map_err(|error| error.context(format!("source {:?}", plan.nodes[at].name)))?;
            sources.insert(collection);
        }
        let feeds = definition.feeds()?;
        for (at, source, name) in &feeds {
            feed::check(self, definition, *at, source, name, &relations[*at])
                .map_err(|error| error.context(format!("source {:?}", plan.nodes[*at].name)))?;
        }
        if sources.is_empty() && feeds.is_empty() {
            return Err(Error::invalid("a pipeline has a source at least"));
        }
        let mut sinks = BTreeSet::new();
        for (at, node) in plan.nodes.iter().enumerate() {
            let Operator::Sink(spec) = &node.operator else { continue };
            let Some(name) = &spec.collection else { continue };
            let relation = run::sink_relation(plan, &relations, at);
            let context = |error: Error| error.context(format!("sink {:?} into collection {name:?}", node.name));
            if !sinks.insert(name.clone()) {
                return Err(context(Error::invalid("another sink has that collection")));
            }
            match self.collection(name) {
                Ok(there) => drop(sink::key_in(spec, &relation, &there.spec().schema).map_err(context)?),
                Err(_) => missing.push((name.clone(), sink::derive(spec, &relation).map_err(context)?)),
            }
        }
        if let Some(letters) = &definition.spec.options.dead_letters {
            if !sinks.insert(letters.clone()) {
                return Err(Error::invalid(format!("collection {letters:?} is a sink, and cannot take dead letters")));
            }
            match self.collection(letters) {
                Ok(there) => sink::letters_fit(&there)?,
                Err(_) => missing.push((letters.clone(), sink::letters_spec()?)),
            }
        }
        self.check_circles(&definition.name, &sources, &sinks)?;
        Ok(missing)
    }

    /// That no row goes around in a circle of pipelines.
    fn check_circles(&self, name: &str, sources: &BTreeSet<String>, sinks: &BTreeSet<String>) -> Result<()> {
        let mut reached = sinks.clone();
        loop {
            let before = reached.len();
            for other in self.pipelines() {
                let definition = other.inner.definition();
                let reads = definition.sources().unwrap_or_default();
                if reads.iter().any(|(_, _, collection)| reached.contains(collection)) {
                    let nodes = definition.spec.plan.iter().flat_map(|plan| &plan.nodes);
                    reached.extend(nodes.filter_map(|node| match &node.operator {
                        Operator::Sink(sink) => sink.collection.clone(),
                        _ => None,
                    }));
                    reached.extend(definition.spec.options.dead_letters.clone());
                }
            }
            if let Some(circle) = sources.iter().find(|source| reached.contains(*source)) {
                return Err(Error::invalid(format!(
                    "pipeline {name:?} would read what it writes, in collection {circle:?}"
                )));
            }
            if reached.len() == before {
                return Ok(());
            }
        }
    }

    /// Does a step of each pipeline that is active: some rows of each source, a checkpoint when it is due. Tells whether there are more
    /// rows to be read now. The host calls it beside [`Db::maintain`]: after writes, while there is more, and when
    /// [`Db::pipelines_due_ms`] says so. Does nothing for a pipeline that is under way.
    ///
    /// # Errors
    /// `Closed` when the store is. What goes wrong in a pipeline is told by its [status](Pipeline::status), and tried again where it may pass.
    pub async fn run_pipelines(&self) -> Result<bool> {
        self.tidy().await?;
        let mut more = false;
        for pipeline in self.pipelines() {
            let Some(mut run) = pipeline.inner.run.try_lock() else { continue };
            more |= self.run_one(&pipeline, &mut run, false).await?;
        }
        Ok(more)
    }

    /// The same of one pipeline: for a host whose functions may be slow, and keep no other pipeline waiting.
    ///
    /// # Errors
    /// As of [`Self::run_pipelines`]; `NotFound` when there is none of that name.
    pub async fn run_pipeline(&self, name: &str) -> Result<bool> {
        self.tidy().await?;
        let pipeline = self.pipeline(name)?;
        let Some(mut run) = pipeline.inner.run.try_lock() else { return Ok(false) };
        self.run_one(&pipeline, &mut run, false).await
    }

    async fn tidy(&self) -> Result<()> {
        self.inner.shared.check_open()?;
        if !self.inner.pipelines.tidied.swap(true, Ordering::AcqRel) {
            self.let_go_of_ended().await?;
        }
        Ok(())
    }

    /// In how many milliseconds a pipeline has something to do though nothing is written; `None` when none has.
    pub fn pipelines_due_ms(&self) -> Option<u64> {
        let now_ms = self.inner.shared.options.environment.now_ms();
        let due = |pipeline: &Pipeline| {
            if pipeline.inner.state() != PipelineState::Active {
                return None;
            }
            let run = pipeline.inner.run.try_lock()?;
            let Some(run) = &*run else {
                return Some(pipeline.inner.counters().retry_at_ms.saturating_sub(now_ms));
            };
            let commit = run.waits().then(|| run.due_ms());
            match run.is_held() {
                Some(true) => return commit.map(|at| at.saturating_sub(now_ms)),
                Some(false) => return Some(0),
                None => {}
            }
            let clock = run.job.next_advance().map(|at| u64::try_from(at).unwrap_or(0).div_ceil(1_000));
            commit.into_iter().chain(clock).chain(run.wake_ms()).min().map(|at| at.saturating_sub(now_ms))
        };
        self.pipelines().iter().filter_map(due).min()
    }

    /// Lets go of what was kept for pipelines that are no more.
    async fn let_go_of_ended(&self) -> Result<()> {
        let ids: BTreeSet<String> = self.pipelines().iter().map(|one| format!("{:016x}", one.inner.id())).collect();
        for collection in self.collections() {
            for name in collection.subscriptions().into_keys() {
                let Some(rest) = name.strip_prefix(run::SUBSCRIPTION) else { continue };
                if !ids.contains(rest.split('-').next().unwrap_or_default()) {
                    collection.unsubscribe(&name).await?;
                }
            }
        }
        for stream in self.push_streams() {
            for name in stream.status().readers.into_keys() {
                let Some(rest) = name.strip_prefix(run::SUBSCRIPTION) else { continue };
                if !ids.contains(rest.split('-').next().unwrap_or_default()) {
                    stream.retire(&name).await?;
                }
            }
        }
        Ok(())
    }

    /// A step of one pipeline; what goes wrong is noted.
    async fn run_one(&self, pipeline: &Pipeline, run: &mut Option<Run>, all: bool) -> Result<bool> {
        let inner = &pipeline.inner;
        let now_ms = self.inner.shared.options.environment.now_ms();
        self.let_go_of_slow(inner, run).await?;
        if inner.state() != PipelineState::Active || inner.counters().retry_at_ms > now_ms {
            return Ok(false);
        }
        let stepped = async {
            if run.is_none() {
                *run = Some(Run::start(self, inner).await?);
            }
            match run {
                Some(run) => run.step(self, inner, all).await,
                None => Ok(false),
            }
        };
        let error = match stepped.await {
            Ok(more) => {
                let mut counters = inner.counters();
                (counters.error, counters.retries, counters.retry_at_ms) = (None, 0, 0);
                return Ok(more);
            }
            Err(fault) => {
                *run = None;
                self.inner.shared.check_open()?;
                fault
            }
        };
        match error {
            Fault::Lasting(error) if error.kind() == ErrorKind::Gone && self.reseeds(inner) => {
                inner.report(format!("{}; it began anew", error.message()));
                let definition = inner.definition();
                let storage = &*self.inner.shared.storage;
                let number = checkpoint::numbers(storage, definition.id).await?.first().copied().unwrap_or_default();
                match Run::begin(self, inner, &definition, true, number).await {
                    Ok(begun) => *run = Some(begun),
                    Err(Fault::Lasting(error)) => self.fail(inner, &error).await?,
                    Err(Fault::Passing(error)) => self.try_again(inner, &error),
                }
                Ok(true)
            }
            // A collection was dropped under it.
            Fault::Passing(error) if error.kind() == ErrorKind::Closed => {
                self.fail(inner, &error).await?;
                Ok(false)
            }
            Fault::Passing(error) => {
                self.try_again(inner, &error);
                Ok(false)
            }
            Fault::Lasting(error) => {
                self.fail(inner, &error).await?;
                Ok(false)
            }
        }
    }

    fn reseeds(&self, inner: &Inner) -> bool {
        inner.definition.lock().expect("no panic while held").spec.options.gone == OnGone::Reseed
    }

    fn try_again(&self, inner: &Inner, error: &Error) {
        tracing::warn!(pipeline = inner.name(), "{error}");
        let now_ms = self.inner.shared.options.environment.now_ms();
        let mut counters = inner.counters();
        let wait = RETRY_MS.saturating_mul(1 << counters.retries.min(16)).min(RETRY_MS_MAX);
        counters.retries += 1;
        counters.retry_at_ms = now_ms.saturating_add(wait);
        counters.error = Some((error.kind().as_str().to_owned(), error.message().to_owned()));
    }

    async fn fail(&self, inner: &Inner, error: &Error) -> Result<()> {
        tracing::error!(pipeline = inner.name(), "the pipeline failed: {error}");
        let reason = Some((error.kind().as_str().to_owned(), error.message().to_owned()));
        inner.end_listeners(error);
        if let Err(lost) = inner.set_state(PipelineState::Failed, reason.clone()).await {
            // Told all the same; the next open finds it active, and tries.
            tracing::warn!(pipeline = inner.name(), "that it failed was not stored: {lost}");
            let mut definition = inner.definition.lock().expect("no panic while held");
            (definition.state, definition.reason) = (PipelineState::Failed, reason);
        }
        Ok(())
    }

    /// Lets go of the past that is kept for a pipeline which has fallen too far behind.
    async fn let_go_of_slow(&self, inner: &Inner, run: &mut Option<Run>) -> Result<()> {
        let definition = inner.definition();
        for (at, _, name) in definition.sources().unwrap_or_default() {
            let Ok(collection) = self.collection(&name) else { continue };
            let name = subscription(definition.id, at);
            let Some(held) = collection.subscriptions().get(&name).copied() else { continue };
            let behind = collection.lsn().0.saturating_sub(held.0);
            // One that has read on, and has not made its checkpoint yet, makes it in this step.
            let has_read = run
                .as_ref()
                .is_some_and(|run| run.readings.iter().all(|one| one.behind() <= definition.spec.options.behind_max));
            if behind > definition.spec.options.behind_max && !has_read {
                inner.report(format!(
                    "{behind} transactions behind in collection {:?}, more than {}: what they replaced is not kept any more",
                    collection.name(),
                    definition.spec.options.behind_max
                ));
                collection.unsubscribe(&name).await?;
                *run = None;
            }
        }
        Ok(())
    }
}

fn micros(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX / 2_000).saturating_mul(1_000)
}

impl Pipeline {
    /// Its name.
    pub fn name(&self) -> String {
        self.inner.name()
    }

    /// What it is made of, with its plan.
    pub fn spec(&self) -> PipelineSpec {
        self.inner.definition().spec
    }

    /// What it does.
    pub fn state(&self) -> PipelineState {
        self.inner.state()
    }

    fn db(&self) -> Result<Db> {
        self.inner.shared.check_open()?;
        self.inner.shared.db().ok_or_else(|| Error::new(ErrorKind::Closed, "the store was closed"))
    }

    /// Makes a checkpoint, and stops until it is resumed, also after a restart. What it needs of the past is kept meanwhile, as far as
    /// [`PipelineOptions::behind_max`] says.
    ///
    /// # Errors
    /// `Conflict` for one that failed or was dropped.
    pub async fn pause(&self) -> Result<()> {
        let db = self.db()?;
        let this = self.clone();
        platform::run_to_end(async move {
            let mut run = this.inner.run.lock().await;
            this.check_state(&[PipelineState::Active, PipelineState::Paused])?;
            if let Some(run) = &mut *run
                && run.waits()
            {
                run.commit(&db, &this.inner).await.map_err(Fault::into_error)?;
            }
            *run = None;
            this.inner.set_state(PipelineState::Paused, None).await
        })
        .await
    }

    /// Goes on from its last checkpoint: one that was paused, or that failed for what has been mended.
    ///
    /// # Errors
    /// `Conflict` for one that was dropped.
    pub async fn resume(&self) -> Result<()> {
        self.recover(Recovery::Latest).await
    }

    /// Goes on from elsewhere.
    ///
    /// # Errors
    /// `NotFound` for a savepoint that is not there, `Corrupt` for one that is damaged, `InvalidArgument` for one of another plan, `Gone`
    /// when sources do not keep what came since: it is as before then.
    pub async fn recover(&self, from: Recovery) -> Result<()> {
        let db = self.db()?;
        let this = self.clone();
        platform::run_to_end(async move {
            let mut run = this.inner.run.lock().await;
            this.check_state(&[PipelineState::Active, PipelineState::Paused, PipelineState::Failed])?;
            let definition = this.inner.definition();
            let storage = &*db.inner.shared.storage;
            let whole = Fault::into_error;
            let numbers = checkpoint::numbers(storage, definition.id).await?;
            let latest = numbers.first().copied().unwrap_or_default();
            match from {
                Recovery::Latest => {}
                Recovery::Savepoint(label) => {
                    let path = checkpoint::savepoint(definition.id, &label)?;
                    let mut found = checkpoint::read(storage, &path).await??;
                    found.number = latest;
                    found.writes.clear();
                    // Rows of which the application was told keep their numbers.
                    let told = Run::told(&db, &this.inner, &definition).await.map_err(whole)?;
                    found.next_rows.retain(|(node, _)| told.iter().all(|(at, _)| at != node));
                    found.next_rows.extend(told);
                    let restored = Run::restore(&db, &this.inner, &definition, found, &[]).await;
                    let mut restored = restored.map_err(whole)?;
                    restored.settle_here(&db, &this.inner).await.map_err(whole)?;
                    *run = Some(restored);
                }
                Recovery::Nothing => {
                    *run = None;
                    *run = Some(Run::begin(&db, &this.inner, &definition, true, latest).await.map_err(whole)?);
                }
            }
            this.inner.set_state(PipelineState::Active, None).await
        })
        .await
    }

    fn check_state(&self, states: &[PipelineState]) -> Result<()> {
        let state = self.inner.state();
        if states.contains(&state) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, format!("pipeline {:?} is {}", self.name(), state.as_str())))
    }

    /// Stores where it is under a name, until it is [removed](Self::remove_savepoint): for going back there. What sources tell from then on
    /// is not kept for it beyond what the pipeline needs itself.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, `InvalidArgument` for one that is none: 1 to 64 of a-z, 0-9, `.`, `_` and `-`.
    pub async fn savepoint(&self, label: &str) -> Result<()> {
        let db = self.db()?;
        let this = self.clone();
        let path = checkpoint::savepoint(self.inner.id(), label)?;
        platform::run_to_end(async move {
            let mut run = this.inner.run.lock().await;
            this.check_state(&[PipelineState::Active, PipelineState::Paused])?;
            let whole = Fault::into_error;
            if run.is_none() {
                *run = Some(Run::start(&db, &this.inner).await.map_err(whole)?);
            }
            let Some(run) = &mut *run else { return Err(Error::internal("no run")) };
            // What waits is written first: a savepoint has nothing to be written.
            if run.waits() {
                run.commit(&db, &this.inner).await.map_err(whole)?;
            }
            let now_ms = db.inner.shared.options.environment.now_ms();
            let bytes = run.snapshot(now_ms, &[], this.inner.counters().checkpoint_number).map_err(whole)?;
            checkpoint::store(&*db.inner.shared.storage, &path, bytes).await
        })
        .await
    }

    /// The names of its savepoints.
    pub async fn savepoints(&self) -> Result<Vec<String>> {
        let prefix = checkpoint::savepoints(self.inner.id());
        let entries = self.inner.shared.storage.list(&prefix).await?;
        Ok(entries.iter().filter_map(|entry| entry.name.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    /// Removes a savepoint; false when it is not there.
    pub async fn remove_savepoint(&self, label: &str) -> Result<bool> {
        let there = self.savepoints().await?.iter().any(|name| name == label);
        self.inner.shared.storage.remove(&checkpoint::savepoint(self.inner.id(), label)?).await?;
        Ok(there)
    }

    /// Runs it until it has read all that is there, and its sinks have what came of it. For tools and tests; otherwise
    /// [`Db::run_pipelines`] is called.
    ///
    /// # Errors
    /// Why it does not run, or failed.
    pub async fn settle(&self) -> Result<()> {
        let db = self.db()?;
        let mut run = self.inner.run.lock().await;
        loop {
            let more = db.run_one(self, &mut run, true).await?;
            let definition = self.inner.definition();
            if definition.state != PipelineState::Active {
                let (kind, message) = definition.reason.unwrap_or(("conflict".to_owned(), String::new()));
                let message = format!("pipeline {:?} is {}: {message}", definition.name, definition.state.as_str());
                return Err(Error::new(ErrorKind::from_name(&kind), message));
            }
            if let Some((kind, message)) = self.inner.counters().error.clone() {
                return Err(Error::new(ErrorKind::from_name(&kind), message));
            }
            if run.as_ref().is_some_and(|run| run.is_held() == Some(true)) {
                let message = format!("pipeline {:?} waits: too many rows were not acknowledged", definition.name);
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// The rows of a sink that is no collection, from now on. They come with the checkpoint that has them; those of a checkpoint after which
    /// the store died before they were given do not come again.
    ///
    /// # Errors
    /// `NotFound` when the plan has no such sink.
    pub fn rows(&self, sink: &str) -> Result<PipelineRows> {
        let definition = self.inner.definition();
        self.check_for_application(&definition, sink)?;
        let (listener, rows) = rows::listen(sink);
        self.inner.listeners.lock().expect("no panic while held").push(Arc::downgrade(&listener));
        Ok(rows)
    }

    /// Rows of a sink that is no collection, at most `count`, which were not [acknowledged](Self::acknowledge): from the first, or from number
    /// `from` on. None when there are none now; whoever asks again, after a crash too, gets them again.
    ///
    /// # Errors
    /// `NotFound` when the plan has no such sink, `InvalidArgument` when the pipeline [keeps](PipelineOptions::keep_rows) none. Once all were
    /// read that came before, why no more come.
    pub async fn unread(&self, sink: &str, from: Option<u64>, count: usize) -> Result<Vec<UnreadRow>> {
        let db = self.db()?;
        self.outbox(&db, sink).await?.read(&*db.inner.shared.storage, from, count).await
    }

    /// Ends when there is a row of number `from` or later, or no more come. May be given up.
    ///
    /// # Errors
    /// As of [`Self::unread`].
    pub async fn wait_for_row(&self, sink: &str, from: u64) -> Result<()> {
        let outbox = self.outbox(&self.db()?, sink).await?;
        outbox.wait(from).await;
        Ok(())
    }

    /// Notes, durably, that the application is done with the rows of a sink up to number `position`. They do not come again.
    ///
    /// # Errors
    /// As of [`Self::unread`]; `InvalidArgument` for a row that was not told.
    pub async fn acknowledge(&self, sink: &str, position: u64) -> Result<()> {
        let db = self.db()?;
        let outbox = self.outbox(&db, sink).await?;
        platform::run_to_end(async move { outbox.acknowledge(&*db.inner.shared.storage, position).await }).await
    }

    async fn outbox(&self, db: &Db, sink: &str) -> Result<Arc<Outbox>> {
        let definition = self.inner.definition();
        let node = definition.plan()?.nodes.iter().position(|node| node.name == sink);
        let node = self.check_for_application(&definition, sink).map(|()| node.unwrap_or_default() as u32)?;
        if definition.spec.options.keep_rows == 0 {
            let name = &definition.name;
            return Err(Error::invalid(format!("pipeline {name:?} keeps no rows for an application: `keepRows` is 0")));
        }
        let known = |inner: &Inner| {
            let outboxes = inner.outboxes.lock().expect("no panic while held");
            outboxes.as_ref().and_then(|outboxes| outboxes.get(&node).cloned())
        };
        if let Some(outbox) = known(&self.inner) {
            return Ok(outbox);
        }
        // It has not run yet: what no checkpoint counts was never told.
        let run = self.inner.run.lock().await;
        if run.is_none() && known(&self.inner).is_none() {
            let told = Run::told(db, &self.inner, &definition).await.map_err(Fault::into_error)?;
            let told_before = definition.spec.options.guarantee == Guarantee::AtLeastOnce;
            for (node, outbox) in self.inner.outboxes(&definition)? {
                let next = told.iter().find(|(at, _)| *at == node).map_or(0, |(_, next)| *next);
                outbox.load(&*db.inner.shared.storage, next, told_before).await?;
            }
        }
        known(&self.inner).ok_or_else(|| Error::internal("no place for rows"))
    }

    fn check_for_application(&self, definition: &Definition, sink: &str) -> Result<()> {
        let node = definition.plan()?.node(sink);
        if matches!(node.map(|node| &node.operator), Some(Operator::Sink(spec)) if spec.collection.is_none()) {
            return Ok(());
        }
        Err(Error::not_found(format!("pipeline {:?} has no sink {sink:?} for an application", definition.name)))
    }

    /// How it is doing.
    pub async fn status(&self) -> PipelineStatus {
        // One that is under way, in a function of the host maybe, is told as it was before.
        if let Some(run) = self.inner.run.try_lock() {
            let seen = run.as_ref().map_or_else(Seen::default, |run| self.seen(run));
            *self.inner.seen.lock().expect("no panic while held") = seen;
        }
        let seen = self.inner.seen.lock().expect("no panic while held").clone();
        let (definition, counters) = (self.inner.definition(), self.inner.counters().clone());
        PipelineStatus {
            unread: self.unread_status(definition.spec.options.keep_rows),
            name: definition.name,
            state: definition.state,
            reason: definition.reason.or(counters.error),
            reports: counters.reports,
            sources: seen.sources,
            nodes: seen.nodes,
            bottleneck: seen.bottleneck,
            rows_out: seen.rows_out,
            dead: counters.dead,
            lookups_beyond: counters.lookups_beyond,
            checkpoints: counters.checkpoints,
            checkpoint_number: counters.checkpoint_number,
            checkpoint_bytes: counters.checkpoint_bytes,
            checkpoint_took_ms: counters.checkpoint_took_ms,
            checkpoint_ms: counters.checkpoint_ms,
        }
    }

    /// What a run knows of itself.
    fn seen(&self, run: &Run) -> Seen {
        let now = i64::try_from(self.inner.shared.options.environment.now_ms()).unwrap_or(i64::MAX);
        let node = |metrics: Metrics| NodeStatus {
            name: metrics.node,
            rows_in: metrics.rows_in,
            rows_out: metrics.rows_out,
            batches: metrics.batches,
            busy_us: metrics.busy_us,
            late: metrics.late,
            entries: metrics.entries,
            state_bytes: metrics.state_bytes,
            watermark: metrics.watermark,
            watermark_lag_ms: metrics.watermark.filter(|at| *at < i64::MAX).map(|at| now.saturating_sub(at / 1_000)),
        };
        let source = |reading: &source::Reading| SourceStatus {
            node: reading.node.clone(),
            collection: reading.collection.name().to_owned(),
            connector: None,
            state: SourceState::Active,
            rows: reading.read,
            lsn: reading.position.lsn.0,
            behind: reading.behind(),
            seeding: reading.position.seeding.is_some(),
        };
        let fed = |feed: &feed::Feed| SourceStatus {
            node: feed.node.clone(),
            collection: feed.name.clone(),
            connector: Some(feed.connector.clone()),
            state: feed.reader.state(),
            rows: feed.reader.counts().0,
            lsn: 0,
            behind: feed.reader.waiting().unwrap_or_default(),
            seeding: false,
        };
        let readings = run.readings.iter().map(source);
        Seen {
            sources: readings.chain(run.feeds.iter().map(fed)).collect(),
            nodes: run.job.metrics().into_iter().map(node).collect(),
            bottleneck: self.inner.shared.db().and_then(|db| run.bottleneck(&db)),
            rows_out: run.written_rows(),
        }
    }

    fn unread_status(&self, keep_rows: usize) -> Vec<UnreadStatus> {
        let outboxes = self.inner.outboxes.lock().expect("no panic while held");
        let told = |outbox: &Arc<Outbox>| {
            let (acknowledged, rows) = outbox.counts();
            UnreadStatus { sink: outbox.sink.clone(), acknowledged, rows, is_full: rows >= keep_rows as u64 }
        };
        outboxes.iter().flat_map(BTreeMap::values).filter(|_| keep_rows > 0).map(told).collect()
    }

    /// Its graph as text, and what each operator has done.
    ///
    /// # Errors
    /// `Corrupt` when its definition is damaged.
    pub async fn explain(&self) -> Result<String> {
        let definition = self.inner.definition();
        let mut text = definition.spec.explain(definition.plan()?)?;
        let status = self.status().await;
        for node in status.nodes {
            let NodeStatus { name, rows_in, rows_out, late, entries, state_bytes, watermark_lag_ms, busy_us, .. } =
                node;
            let lag = watermark_lag_ms.map_or(String::new(), |ms| format!(", watermark {ms} ms behind"));
            let late = if late == 0 { String::new() } else { format!(", {late} late") };
            let _ = writeln!(
                text,
                "{name}: {rows_in} in, {rows_out} out{late}, {entries} entries of {state_bytes} B, {} ms{lag}",
                busy_us / 1_000
            );
        }
        if let Some(bottleneck) = status.bottleneck {
            let _ = writeln!(text, "bottleneck: {}", bottleneck.text);
        }
        Ok(text)
    }
}

/// The collection for dead letters of that name, made when it is not there.
pub(super) async fn letters(db: &Db, name: &str) -> Result<super::Collection> {
    let collection = match db.collection(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => db.create_collection(name, sink::letters_spec()?).await?,
        found => found?,
    };
    sink::letters_fit(&collection)?;
    Ok(collection)
}

/// Puts rows aside that were not taken by what is called `from`: each with where it was and why. A key makes one the same as another of that
/// key.
pub(super) async fn put_letters(
    db: &Db,
    name: &str,
    from: &str,
    rows: Vec<(Option<String>, String, Row, String)>,
) -> Result<()> {
    let collection = letters(db, name).await?;
    let environment = &db.inner.shared.options.environment;
    let schema = collection.spec().schema.clone();
    let made = rows.into_iter().map(|(key, node, row, reason)| {
        let mut letter = sink::Letter { node, reason, row }.into_row(from, run::now(db));
        let random = || environment.random_u64();
        let key = key.unwrap_or_else(|| format!("{:013}-{:016x}{:016x}", environment.now_ms(), random(), random()));
        sink::put_letter_key(&mut letter, key, &schema);
        letter
    });
    let batch = crate::model::Batch::from_rows(&schema, made.collect())?;
    collection.upsert(batch).await.map(drop)
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("name", &self.name()).finish_non_exhaustive()
    }
}
