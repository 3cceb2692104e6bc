//! The event bus of a store: what happens to collections, what is pushed, and what the application tells, handed to handlers.
//!
//! What must be true:
//! - What a collection or a push stream tells is handled at least once, whatever dies when: how far the bus has got is noted only when all
//!   that was read before is handled or put aside as a dead letter, and a subscription keeps what comes after.
//! - The configuration is stored before it counts, and what was read before goes on from where it is.
//! - No writer waits for the bus: it reads like everybody else, in steps that the host asks for, and never waits for a function.
//!
//! Deliberately absent: which event goes where, queues, retries and what is done ([`crate::stream::bus`]), and threads and timers.

mod call;
mod definition;
mod source;
#[cfg(test)]
#[cfg(native)]
mod tests;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use futures_channel::oneshot;

use super::Db;
use super::stream::{Pace, Since};
use crate::base::{Error, ErrorKind, Result};
use crate::platform;
use crate::stream::bus::{BusSource, BusSpec, Call, Event, HandlerStatus, Letter, Tried};
use call::Running;
pub use source::Published;
use source::{RETRY_MS, Reading, Replaying, shape, subscription};

/// What names of what the bus keeps begin with.
const NAME: &str = "$bus";
/// How far a source is done is noted so often, at most: what is not noted comes again after a crash.
const NOTE_MS: u64 = 100;
/// How far a source was read with nothing to handle is noted after so many transactions.
const NOTE_TRANSACTIONS: u64 = 1_000;
/// How many dead letters are stored at once.
const LETTERS_MAX: usize = 100;
/// How many replays run at once, and how many that are over are remembered.
const REPLAYS_MAX: usize = 16;

/// A call that has come to its end: its number, whose it is, and what it came to.
type Finished = (u64, Arc<str>, Vec<Tried>);

/// What is done wrong in a test that plants it.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planted {
    /// How far a source was read is noted before what was read is handled.
    EarlyNote,
    /// Dead letters count as stored, and are not.
    ForgottenLetters,
    /// What a handler fails at counts as handled.
    FailureIsDone,
}

/// What a store has of its bus.
pub(super) struct Buses {
    core: Mutex<Core>,
    /// The sources; none before it was started.
    reading: async_lock::Mutex<Option<Readings>>,
    running: Mutex<Vec<Running>>,
    /// What is under way while it is asked whether it has come to its end is none of those.
    finished: Mutex<Vec<Finished>>,
    /// That which is stored, with its version.
    stored: Mutex<Option<(BusSpec, u64)>>,
    bell: Arc<Bell>,
    #[cfg(test)]
    planted: Mutex<Option<Planted>>,
}

#[derive(Default)]
struct Core {
    bus: crate::stream::bus::Bus,
    sources: Vec<BusSourceStatus>,
    replays: BTreeMap<u64, ReplayStatus>,
    next_replay: u64,
    /// Not before then, for dead letters could not be stored.
    letters_at_ms: u64,
    letters_reason: Option<String>,
    due_ms: Option<u64>,
    is_started: bool,
    /// How many events the application has published, by source.
    published: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Readings {
    sources: Vec<Reading>,
    replays: Vec<Replaying>,
    noted_ms: u64,
}

/// How a source of the bus is doing. Counts are since the store was opened.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BusSourceStatus {
    /// Its name.
    pub name: String,
    /// How many events were read, or published.
    pub events: u64,
    /// How many transactions of a collection, or rows of a push stream, are to be read.
    pub behind: u64,
    /// Where a replay begins that is to have what comes from now on: the token after what was read of a collection.
    pub token: Option<String>,
    /// What is wrong with it, and is tried again: the kind of the error, and its message.
    pub reason: Option<(String, String)>,
}

/// How a replay is doing.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayStatus {
    /// Its number.
    pub id: u64,
    /// The source.
    pub source: String,
    /// What it does.
    pub state: ReplayState,
    /// How many events it has brought.
    pub events: u64,
    /// Why it failed.
    pub reason: Option<(String, String)>,
}

/// What a replay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplayState {
    /// It brings events.
    Running,
    /// It has brought all of them.
    Done,
    /// It was cancelled.
    Cancelled,
    /// What it needs is not there any more.
    Failed,
}

/// How the bus is doing.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BusStatus {
    /// Its sources.
    pub sources: Vec<BusSourceStatus>,
    /// Its handlers.
    pub handlers: Vec<HandlerStatus>,
    /// Its replays: those that run, and the last that are over.
    pub replays: Vec<ReplayStatus>,
    /// Why dead letters cannot be stored: then no handler is called once many wait.
    pub letters_reason: Option<String>,
}

/// What is to come again.
#[derive(Debug, Clone, PartialEq, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReplayRequest {
    /// The source, a collection.
    pub source: String,
    /// Where it begins: `earliest` (also with `None`), `full`, a token, or a hybrid time. It ends with what is there when it is asked for.
    pub since: Option<String>,
    /// So many times as fast as it happened; as fast as handlers take it, with `None`.
    pub speed: Option<f64>,
    /// The handlers that get it; all to which the routes lead, without any.
    pub handlers: Vec<String>,
}

/// The event bus of a store: one, which does nothing before it is configured.
#[derive(Clone)]
pub struct Bus {
    db: Db,
}

impl Buses {
    /// That which is stored.
    pub(super) async fn open(shared: &Arc<super::database::Shared>) -> Result<Self> {
        let stored = definition::read(&*shared.storage).await?;
        Ok(Self {
            core: Mutex::default(),
            reading: async_lock::Mutex::new(None),
            running: Mutex::default(),
            finished: Mutex::default(),
            stored: Mutex::new(stored),
            bell: Arc::default(),
            #[cfg(test)]
            planted: Mutex::default(),
        })
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().expect("no panic while held")
    }

    #[cfg(test)]
    fn has(&self, planted: Planted) -> bool {
        *self.planted.lock().expect("no panic while held") == Some(planted)
    }

    /// Something is to be done.
    pub(super) fn wake(&self) {
        self.bell.state().moves += 1;
        self.bell.ring();
    }

    /// Asks the calls that are under way whether they have come to their end; true when one has. Whoever asks, when one can be asked again
    /// all are told who wait: the one who asked last may have stopped waiting.
    fn poll_calls(&self) -> bool {
        let waker = Waker::from(self.bell.clone());
        let context = &mut Context::from_waker(&waker);
        let rings = self.bell.state().rings;
        let running = std::mem::take(&mut *self.running.lock().expect("no panic while held"));
        let (mut left, mut ended) = (vec![], vec![]);
        for mut one in running {
            match Pin::new(&mut one.task).poll(context) {
                Poll::Ready(answers) => ended.push((one.id, one.handler, answers)),
                Poll::Pending => left.push(one),
            }
        }
        self.running.lock().expect("no panic while held").append(&mut left);
        let has_ended = !ended.is_empty();
        self.finished.lock().expect("no panic while held").append(&mut ended);
        // Who was told meanwhile may have looked while they were none of those under way.
        if self.bell.state().rings != rings {
            self.bell.ring();
        }
        has_ended
    }
}

/// What those wait for who drive the bus.
#[derive(Default)]
struct Bell {
    state: Mutex<BellState>,
}

#[derive(Default)]
struct BellState {
    /// How often something was to be done.
    moves: u64,
    /// How often it was rung: for that, or for a call that may have come to its end.
    rings: u64,
    waiters: Vec<oneshot::Sender<()>>,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, BellState> {
        self.state.lock().expect("no panic while held")
    }

    fn ring(&self) {
        let waiters = {
            let mut state = self.state();
            state.rings += 1;
            std::mem::take(&mut state.waiters)
        };
        for waiter in waiters {
            // One who stopped waiting needs no call.
            let _ = waiter.send(());
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl Db {
    /// The event bus.
    pub fn bus(&self) -> Bus {
        Bus { db: self.clone() }
    }

    /// Does a step of the bus: reads some events of each source, begins calls that are due, and notes what has come of others. Tells whether
    /// there is more to be done now. Never waits for a function. The host calls it as [`Db::run_pipelines`], and when
    /// [`Db::bus_moved_after`] says so. Does nothing while a step is under way.
    ///
    /// # Errors
    /// `Closed` when the store is; what keeps a stored bus from being started. What goes wrong in it is told by its [status](Bus::status).
    pub async fn run_bus(&self) -> Result<bool> {
        self.inner.shared.check_open()?;
        let Some(mut readings) = self.inner.bus.reading.try_lock() else { return Ok(false) };
        self.step_bus(&mut readings, false).await
    }

    /// In how many milliseconds the bus has something to do though nothing comes; `None` when it has not.
    pub fn bus_due_ms(&self) -> Option<u64> {
        let now_ms = self.inner.shared.options.environment.now_ms();
        let core = self.inner.bus.core();
        let of_core = core.bus.due_ms(&|target| call::is_there(self, target));
        of_core.into_iter().chain(core.due_ms).min().map(|at| at.saturating_sub(now_ms))
    }

    /// Resolves when something is to be done that is no write: a call has come to its end, something was published or configured; tells how
    /// often that was. May be given up.
    pub async fn bus_moved_after(&self, seen: u64) -> u64 {
        let bus = &self.inner.bus;
        loop {
            let waiting = {
                let mut state = bus.bell.state();
                if state.moves > seen {
                    return state.moves;
                }
                let (waiter, waiting) = oneshot::channel();
                state.waiters.retain(|waiter| !waiter.is_canceled());
                state.waiters.push(waiter);
                waiting
            };
            if bus.poll_calls() {
                bus.wake();
            }
            // It is told, or the store is gone.
            let _ = waiting.await;
        }
    }

    /// Sets the bus up as it is stored, the first time.
    async fn start_bus(&self, readings: &mut Option<Readings>) -> Result<()> {
        if readings.is_some() {
            return Ok(());
        }
        let spec = self.bus().spec();
        let mut begun = Readings::default();
        self.let_go_of_sources(&spec).await?;
        for (name, source) in &spec.sources {
            let opened = Reading::open(self, name, source).await;
            // What is wrong with one keeps nobody from reading the others.
            begun.sources.push(opened.unwrap_or_else(|error| Reading::missing(name, source, error)));
        }
        let now_ms = self.inner.shared.options.environment.now_ms();
        let shapes = self.shapes_there(&spec)?;
        self.inner.bus.core().bus.configure(spec, shapes, now_ms)?;
        *readings = Some(begun);
        self.inner.bus.core().is_started = true;
        Ok(())
    }

    /// Lets go of what was kept for sources that are no more: a crash came between.
    async fn let_go_of_sources(&self, spec: &BusSpec) -> Result<()> {
        let prefix = subscription("");
        let source = |held: &str| held.strip_prefix(&prefix).map(|name| spec.sources.get(name));
        for collection in self.collections() {
            for held in collection.subscriptions().into_keys() {
                let Some(source) = source(&held) else { continue };
                let of =
                    source.and_then(|source| source.collection.as_ref()).and_then(|name| self.collection(name).ok());
                if of.is_none_or(|of| of.id() != collection.id()) {
                    collection.unsubscribe(&held).await?;
                }
            }
        }
        for stream in self.push_streams() {
            for held in stream.status().readers.into_keys() {
                let Some(source) = source(&held) else { continue };
                if source.and_then(|source| source.stream.as_ref()) != Some(&stream.name()) {
                    stream.retire(&held).await?;
                }
            }
        }
        Ok(())
    }

    async fn step_bus(&self, readings: &mut Option<Readings>, notes_all: bool) -> Result<bool> {
        self.start_bus(readings).await?;
        let Some(readings) = readings else { return Ok(false) };
        let bus = &self.inner.bus;
        let environment = &self.inner.shared.options.environment;
        let mut more = false;
        for reading in &mut readings.sources {
            let now_ms = environment.now_ms();
            if reading.retry_at_ms > now_ms || !bus.core().bus.has_room(&reading.name) {
                continue;
            }
            match self.read_source(reading, now_ms).await {
                Ok(has_more) => {
                    (reading.reason, reading.retry_at_ms) = (None, 0);
                    more |= has_more;
                }
                Err(error) => {
                    self.inner.shared.check_open()?;
                    tracing::warn!(source = reading.name, "the bus: {error}");
                    reading.retry_at_ms = now_ms.saturating_add(RETRY_MS);
                    reading.reason = Some(error);
                }
            }
        }
        more |= self.replay_some(readings).await;
        more |= self.make_calls().await;
        more |= self.put_letters_aside().await?;
        let now_ms = environment.now_ms();
        let is_due = notes_all || now_ms >= readings.noted_ms.saturating_add(NOTE_MS);
        let mut waits = false;
        for reading in &mut readings.sources {
            let settled = bus.core().bus.settled(&reading.name);
            for (partition, position, events) in settled {
                let is_wanted = events > 0 || notes_all_of(reading, &position)?;
                if !is_wanted {
                    continue;
                }
                if !is_due {
                    waits = true;
                    continue;
                }
                match reading.note(partition, &position).await {
                    // A note stands in the log of its collection, and is read past.
                    Ok(()) => {
                        bus.core().bus.noted(&reading.name, partition, &position);
                        more = true;
                    }
                    Err(error) => {
                        self.inner.shared.check_open()?;
                        tracing::warn!(source = reading.name, "how far the bus is was not noted: {error}");
                        waits = true;
                    }
                }
                readings.noted_ms = now_ms;
            }
        }
        let mut core = bus.core();
        core.sources = readings.sources.iter().map(told).collect();
        let note = waits.then(|| readings.noted_ms.saturating_add(NOTE_MS).max(now_ms + 1));
        let sources = readings.sources.iter().filter(|one| core.bus.has_room(&one.name)).filter_map(Reading::due_ms);
        let replays = readings.replays.iter().filter(|one| core.bus.has_room(&one.source)).map(Replaying::due_ms);
        let letters = (!core.bus.letters(1).is_empty()).then_some(core.letters_at_ms);
        let due_ms = sources.chain(replays).chain(note).chain(letters).min();
        core.due_ms = due_ms;
        Ok(more)
    }

    async fn read_source(&self, reading: &mut Reading, now_ms: u64) -> Result<bool> {
        let was_missing = reading.is_missing();
        if was_missing {
            let (name, source) = (reading.name.clone(), reading.spec.clone());
            *reading = Reading::open(self, &name, &source).await?;
        }
        // A field that was added is one that filters may name.
        let has_grown = |reading: &Reading| {
            reading.collection().is_some_and(|collection| collection.spec().schema.fields().len() != reading.fields)
        };
        if was_missing || has_grown(reading) {
            let (_, fields) = shape(self, &reading.spec)?;
            let spec = self.inner.bus.core().bus.spec().clone();
            self.inner.bus.core().bus.configure(spec.clone(), self.shapes_there(&spec)?, now_ms)?;
            reading.fields = fields;
        }
        let came = reading.next(self, now_ms).await?;
        #[cfg(test)]
        if let Some(position) = came.position.as_ref().filter(|_| self.inner.bus.has(Planted::EarlyNote)) {
            reading.note(came.partition, position).await?;
        }
        if !came.events.is_empty() || came.position.is_some() {
            self.inner.bus.core().bus.offer(&reading.name, came.partition, came.events, came.position, now_ms)?;
        }
        Ok(came.has_more)
    }

    async fn replay_some(&self, readings: &mut Readings) -> bool {
        let bus = &self.inner.bus;
        let mut more = false;
        let mut left = vec![];
        for mut replay in readings.replays.drain(..) {
            let now_ms = self.inner.shared.options.environment.now_ms();
            let id = replay.id;
            let is_on = |core: &Core| core.replays.get(&id).is_some_and(|one| one.state == ReplayState::Running);
            if !is_on(&bus.core()) {
                continue;
            }
            if !bus.core().bus.has_room(&replay.source) {
                left.push(replay);
                continue;
            }
            let came = replay.next(now_ms).await;
            let mut core = bus.core();
            // It may have been cancelled meanwhile.
            if !is_on(&core) {
                continue;
            }
            let came = came.and_then(|came| {
                let count = came.events.len() as u64;
                core.bus.offer_again(&replay.source, came.events, &replay.handlers, now_ms)?;
                Ok((count, came.is_over))
            });
            let Some(status) = core.replays.get_mut(&replay.id) else { continue };
            match came {
                Ok((count, is_over)) => {
                    status.events += count;
                    if is_over {
                        status.state = ReplayState::Done;
                    } else {
                        more |= replay.due_ms() <= now_ms;
                        left.push(replay);
                    }
                }
                Err(error) => {
                    status.state = ReplayState::Failed;
                    status.reason = Some((error.kind().as_str().to_owned(), error.message().to_owned()));
                }
            }
        }
        readings.replays = left;
        more
    }

    /// Begins calls, and takes what others have come to.
    async fn make_calls(&self) -> bool {
        let bus = &self.inner.bus;
        let environment = &self.inner.shared.options.environment;
        let mut more = false;
        loop {
            let now_ms = environment.now_ms();
            let late = bus.core().bus.late(now_ms);
            if !late.is_empty() {
                bus.running
                    .lock()
                    .expect("no panic while held")
                    .retain(|one| !late.iter().any(|(id, ..)| *id == one.id));
            }
            for (id, handler, ms) in late {
                let is_over = bus.finished.lock().expect("no panic while held").iter().any(|(other, ..)| *other == id);
                if !is_over {
                    self.finish_call(id, &handler, vec![], Some(ms));
                }
            }
            let calls: Vec<Call> = {
                let mut core = bus.core();
                std::iter::from_fn(|| core.bus.call(now_ms, &|target| call::is_there(self, target)))
                    .take(1_000)
                    .collect()
            };
            more |= !calls.is_empty();
            let begun: Vec<Running> = calls.into_iter().map(|call| call::begin(self, call)).collect();
            bus.running.lock().expect("no panic while held").extend(begun);
            bus.poll_calls();
            let finished = std::mem::take(&mut *bus.finished.lock().expect("no panic while held"));
            if finished.is_empty() {
                return more;
            }
            for (id, handler, answers) in finished {
                self.finish_call(id, &handler, answers, None);
            }
            platform::yield_now().await;
        }
    }

    fn finish_call(&self, id: u64, handler: &str, answers: Vec<Tried>, late_ms: Option<u64>) {
        let environment = &self.inner.shared.options.environment;
        let mut core = self.inner.bus.core();
        let now_ms = environment.now_ms();
        let random = &mut || environment.random_u64();
        #[cfg(test)]
        let answers = match self.inner.bus.has(Planted::FailureIsDone) {
            true => answers.into_iter().map(|_| Tried::Done).collect(),
            false => answers,
        };
        match late_ms {
            Some(ms) => core.bus.fail(id, handler, &format!("no answer in {ms} ms"), now_ms, random),
            None => core.bus.finish(id, handler, answers, now_ms, random),
        }
    }

    /// Stores dead letters; true when some were.
    async fn put_letters_aside(&self) -> Result<bool> {
        let bus = &self.inner.bus;
        let now_ms = self.inner.shared.options.environment.now_ms();
        let (letters, collection) = {
            let core = bus.core();
            if core.letters_at_ms > now_ms {
                return Ok(false);
            }
            (core.bus.letters(LETTERS_MAX), core.bus.spec().letters().to_owned())
        };
        if letters.is_empty() {
            return Ok(false);
        }
        let count = letters.len();
        let row = |Letter { handler, event, attempts, reason }: Letter| {
            (None, handler.to_string(), event.to_row(&handler, attempts), reason)
        };
        #[cfg(test)]
        let letters = if bus.has(Planted::ForgottenLetters) { vec![] } else { letters };
        let stored =
            super::pipeline::put_letters(self, &collection, "bus", letters.into_iter().map(row).collect()).await;
        let mut core = bus.core();
        match stored {
            Ok(()) => {
                core.bus.stored(count);
                core.letters_reason = None;
                Ok(true)
            }
            Err(error) => {
                self.inner.shared.check_open()?;
                tracing::warn!("dead letters of the bus were not stored: {error}");
                core.letters_at_ms = now_ms.saturating_add(RETRY_MS);
                core.letters_reason = Some(error.message().to_owned());
                Ok(false)
            }
        }
    }

    fn shapes(&self, spec: &BusSpec) -> Result<BTreeMap<String, crate::stream::bus::Shape>> {
        let shape = |(name, source): (&String, &BusSource)| {
            let (shape, _) = shape(self, source).map_err(|error| of_source(name, error))?;
            Ok((name.clone(), shape))
        };
        spec.sources.iter().map(shape).collect()
    }

    /// The same, where those that are not there may have any fields.
    fn shapes_there(&self, spec: &BusSpec) -> Result<BTreeMap<String, crate::stream::bus::Shape>> {
        let shape = |(name, source): (&String, &BusSource)| match shape(self, source) {
            Ok((shape, _)) => Ok((name.clone(), shape)),
            Err(_) => Ok((name.clone(), crate::stream::bus::Shape::new(&[], true)?)),
        };
        spec.sources.iter().map(shape).collect()
    }

    /// That what a bus names is there, and that no event goes around.
    async fn check_bus(&self, spec: &BusSpec) -> Result<()> {
        spec.check()?;
        let shapes = self.shapes(spec)?;
        crate::stream::bus::Bus::default().configure(spec.clone(), shapes, 0)?;
        for (name, source) in &spec.sources {
            let of = |member: &str, error: Error| error.context(format!("the bus: sources.{name}.{member}"));
            if let Some(since) = &source.since {
                since.parse::<Since>().map_err(|error| of("since", error))?;
            }
            if let (Some(collection), Some(fields)) = (&source.collection, &source.output_fields) {
                self.collection(collection)?.output_fields(Some(fields)).map_err(|error| of("outputFields", error))?;
            }
        }
        for (name, handler) in &spec.handlers {
            let of = |member: &str, error: Error| error.context(format!("the bus: handlers.{name}.{member}"));
            if let Some(collection) = &handler.collection {
                self.collection(collection).map_err(|error| of("collection", error))?;
            }
            if let Some(stream) = &handler.stream {
                self.push_stream(stream).map_err(|error| of("stream", error))?;
            }
        }
        check_circles(spec)?;
        super::pipeline::letters(self, spec.letters()).await.map_err(|error| error.context("the bus: deadLetters"))?;
        Ok(())
    }
}

fn of_source(name: &str, error: Error) -> Error {
    error.context(format!("the bus: sources.{name}"))
}

/// Whether it is worth noting that a source was read on, though nothing was to be done.
fn notes_all_of(reading: &Reading, position: &[u8]) -> Result<bool> {
    let Some(collection) = reading.collection() else { return Ok(true) };
    let held = collection.subscriptions().get(&subscription(&reading.name)).copied();
    let reached = source::position_of(position)?;
    Ok(held.is_none_or(|held| reached.0.saturating_sub(held.0) >= NOTE_TRANSACTIONS))
}

fn told(reading: &Reading) -> BusSourceStatus {
    let (behind, token) = reading.behind();
    let reason = reading.reason.as_ref().map(|error| (error.kind().as_str().to_owned(), error.message().to_owned()));
    BusSourceStatus { name: reading.name.clone(), events: reading.events, behind, token, reason }
}

/// That nothing that a handler writes, or that becomes a dead letter, comes back as an event along the routes.
fn check_circles(spec: &BusSpec) -> Result<()> {
    let leads = |from: &str| -> Vec<&String> {
        let routes =
            spec.routes.iter().filter(|route| route.from.is_empty() || route.from.iter().any(|name| name == from));
        let handlers: Vec<_> = routes.flat_map(|route| &route.to).filter_map(|name| spec.handlers.get(name)).collect();
        let is_written = |source: &BusSource| {
            let is_letters = !handlers.is_empty() && source.collection.as_deref() == Some(spec.letters());
            is_letters
                || handlers.iter().any(|handler| {
                    (handler.collection.is_some() && handler.collection == source.collection)
                        || (handler.stream.is_some() && handler.stream == source.stream)
                })
        };
        spec.sources.iter().filter(|(_, source)| is_written(source)).map(|(name, _)| name).collect()
    };
    for start in spec.sources.keys() {
        let mut reached: Vec<&String> = leads(start);
        let mut at = 0;
        while at < reached.len() {
            if reached[at] == start {
                let message =
                    format!("the bus: sources.{start}: its events would come back to it, by what handlers write");
                return Err(Error::invalid(message));
            }
            for next in leads(reached[at]) {
                if !reached.contains(&next) {
                    reached.push(next);
                }
            }
            at += 1;
        }
    }
    Ok(())
}

impl Bus {
    /// Whether it has something to do at all.
    pub fn is_configured(&self) -> bool {
        let stored = self.db.inner.bus.stored.lock().expect("no panic while held");
        stored.as_ref().is_some_and(|(spec, _)| *spec != BusSpec::default())
    }

    /// What it does; an empty specification before it was configured.
    pub fn spec(&self) -> BusSpec {
        let stored = self.db.inner.bus.stored.lock().expect("no panic while held");
        stored.as_ref().map(|(spec, _)| spec.clone()).unwrap_or_default()
    }

    /// Does something else from now on, durably. Sources that stay are read on from where they are; what they have brought stays with the
    /// handlers that it went to, and these do with it what they do now. A handler that is not there any more does first what it has. What
    /// was read of a source that is taken out is handled too, but does not come again after a crash.
    ///
    /// # Errors
    /// `InvalidArgument` and `NotFound` that name the member that is wrong; then nothing has changed.
    pub async fn configure(&self, spec: BusSpec) -> Result<()> {
        let db = self.db.clone();
        db.inner.shared.check_open()?;
        let configured = platform::run_to_end(async move {
            let mut readings = db.inner.bus.reading.lock().await;
            db.check_bus(&spec).await?;
            if let Err(error) = db.start_bus(&mut readings).await {
                db.inner.shared.check_open()?;
                // It is what is being mended.
                tracing::warn!("the bus could not be started as it was: {error}");
                *readings = Some(Readings::default());
                db.inner.bus.core().is_started = true;
            }
            let Some(readings) = &mut *readings else { return Err(Error::internal("a bus without sources")) };
            let version =
                db.inner.bus.stored.lock().expect("no panic while held").as_ref().map_or(0, |(_, version)| *version);
            let is_same = |reading: &Reading| {
                let same = |source: &BusSource| {
                    source.collection == reading.spec.collection && source.stream == reading.spec.stream
                };
                !reading.is_missing() && spec.sources.get(&reading.name).is_some_and(same)
            };
            let mut begun = vec![];
            for (name, source) in &spec.sources {
                if !readings.sources.iter().any(|reading| reading.name == *name && is_same(reading)) {
                    begun.push(Reading::open(&db, name, source).await.map_err(|error| of_source(name, error))?);
                }
            }
            let shapes = db.shapes(&spec)?;
            definition::write(&*db.inner.shared.storage, &spec, version).await?;
            *db.inner.bus.stored.lock().expect("no panic while held") = Some((spec.clone(), version + 1));
            let now_ms = db.inner.shared.options.environment.now_ms();
            db.inner.bus.core().bus.configure(spec.clone(), shapes, now_ms)?;
            let (mut left, mut gone) = (vec![], vec![]);
            for reading in readings.sources.drain(..) {
                if is_same(&reading) { left.push(reading) } else { gone.push(reading) }
            }
            for reading in &mut left {
                if let Some(source) = spec.sources.get(&reading.name).filter(|source| **source != reading.spec) {
                    reading.change(&db, source).await?;
                }
            }
            left.extend(begun);
            readings.sources = left;
            for reading in gone {
                reading.retire(&db).await?;
            }
            db.inner.bus.core().sources = readings.sources.iter().map(told).collect();
            db.inner.bus.wake();
            Ok(())
        });
        configured.await
    }

    /// Gives events of the application to the handlers of their routes, all or none: they are in memory alone, and go with the process. What
    /// must not be lost is pushed into a push stream, or written to a collection, that is a source. Tells to how many handlers each went.
    ///
    /// # Errors
    /// `NotFound` for a source that is none, `InvalidArgument` for one that is read, `Unavailable` when a handler has no room for them.
    pub async fn publish(&self, source: &str, events: Vec<Published>) -> Result<Vec<usize>> {
        let bus = &self.db.inner.bus;
        self.db.inner.shared.check_open()?;
        // A function that publishes is called in a step: it must not wait for its end.
        if !bus.core().is_started {
            self.db.start_bus(&mut *bus.reading.lock().await).await?;
        }
        let count = events.len() as u64;
        let (now_ms, name) = (self.db.inner.shared.options.environment.now_ms(), Arc::from(source));
        let events: Vec<Event> = events.into_iter().map(|event| event.into_event(&name, now_ms)).collect();
        let counts = {
            let mut core = bus.core();
            let counts = core.bus.publish(source, events, now_ms)?;
            *core.published.entry(source.to_owned()).or_default() += count;
            counts
        };
        bus.wake();
        Ok(counts)
    }

    /// Has changes of a source come again, marked as such. They are in memory alone: a replay ends with the process. Tells its number.
    ///
    /// # Errors
    /// `NotFound` for a source or handler that is none, `InvalidArgument` for a source that is no collection and a speed that cannot be,
    /// `Gone` when changes after the place where it is to begin are missing.
    pub async fn replay(&self, request: ReplayRequest) -> Result<u64> {
        let bus = &self.db.inner.bus;
        let ReplayRequest { source, since, speed, handlers } = request;
        let pace = Pace::new(speed)?;
        let since: Since =
            since.as_deref().unwrap_or("earliest").parse().map_err(|error: Error| error.context("since"))?;
        let mut readings = bus.reading.lock().await;
        self.db.start_bus(&mut readings).await?;
        let Some(readings) = &mut *readings else { return Err(Error::internal("a bus without sources")) };
        let id = {
            let mut core = bus.core();
            if let Some(name) = handlers.iter().find(|name| !core.bus.spec().handlers.contains_key(*name)) {
                return Err(Error::not_found(format!("the bus has no handler {name:?}")));
            }
            core.next_replay += 1;
            core.next_replay
        };
        if readings.replays.len() >= REPLAYS_MAX {
            return Err(Error::new(ErrorKind::Unavailable, format!("{REPLAYS_MAX} replays run already: cancel one")));
        }
        let reading = readings.sources.iter().find(|reading| reading.name == source);
        let reading = reading.ok_or_else(|| Error::not_found(format!("the bus has no source {source:?}")))?;
        let opening = Replaying::open(id, reading, since, pace, handlers)?;
        readings.replays.push(opening.await?);
        {
            let mut core = bus.core();
            let status = ReplayStatus { id, source, state: ReplayState::Running, events: 0, reason: None };
            core.replays.insert(id, status);
            let over: Vec<u64> =
                core.replays.values().filter(|one| one.state != ReplayState::Running).map(|one| one.id).collect();
            for id in over.iter().rev().skip(REPLAYS_MAX) {
                core.replays.remove(id);
            }
        }
        bus.wake();
        Ok(id)
    }

    /// Ends a replay: what it has brought and no handler has begun with is dropped. False for one that is over, or was none.
    pub fn cancel_replay(&self, id: u64) -> bool {
        let bus = &self.db.inner.bus;
        let mut core = bus.core();
        let is_on = match core.replays.get_mut(&id) {
            Some(status) if status.state == ReplayState::Running => {
                status.state = ReplayState::Cancelled;
                true
            }
            // It has brought all, and handlers have not done with it.
            Some(status) if status.state == ReplayState::Done => false,
            _ => return false,
        };
        let dropped = core.bus.cancel(id);
        drop(core);
        bus.wake();
        is_on || dropped > 0
    }

    /// How it is doing.
    pub fn status(&self) -> BusStatus {
        let core = self.db.inner.bus.core();
        let mut sources = core.sources.clone();
        for source in &mut sources {
            source.events += core.published.get(&source.name).copied().unwrap_or_default();
        }
        BusStatus {
            sources,
            handlers: core.bus.status(),
            replays: core.replays.values().cloned().collect(),
            letters_reason: core.letters_reason.clone(),
        }
    }

    /// Runs until nothing can be done now: what waits for its time, or for a function that is not there, is left; and notes how far it is.
    /// For tools and tests; otherwise [`Db::run_bus`] is called.
    ///
    /// # Errors
    /// As of [`Db::run_bus`].
    pub async fn settle(&self) -> Result<()> {
        let bus = &self.db.inner.bus;
        loop {
            let seen = bus.bell.state().moves;
            let more = self.db.step_bus(&mut *bus.reading.lock().await, true).await?;
            let is_under_way = !bus.running.lock().expect("no panic while held").is_empty();
            if more || !bus.finished.lock().expect("no panic while held").is_empty() {
                continue;
            }
            if !is_under_way {
                return Ok(());
            }
            self.db.bus_moved_after(seen).await;
        }
    }
}

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bus").field("sources", &self.spec().sources.len()).finish_non_exhaustive()
    }
}
