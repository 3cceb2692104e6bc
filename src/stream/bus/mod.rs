//! The event bus: which events go to which handlers, in what order, how often they are tried, and how far their sources are done.
//!
//! What must be true:
//! - What was read of a source counts as done when every handler that it went to has managed it, or it was put aside as a dead letter: not
//!   before, and in the order in which it was read, whatever order handlers finish in.
//! - An event goes to a handler once for each time that it comes, whatever is configured meanwhile.
//! - Nothing grows without bound: a source is asked for more only while there is room in the queue of every handler that it reaches.
//!
//! Deliberately absent: reading sources, calling functions, storing dead letters, and the clock: `db` does that, and tells what came of it.

mod event;
mod group;
mod handler;
mod progress;
mod route;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub use event::Event;
use handler::{Failed, Handler, Outcome, Tickets};
use progress::Progress;
pub use route::Shape;
use route::Ways;
pub use spec::{
    BusAggregate, BusBatch, BusCase, BusFunction, BusHandler, BusOverflow, BusRetry, BusRoute, BusSource, BusSpec,
    BusValue,
};

use crate::base::{Error, ErrorKind, Result};

/// While so many dead letters wait to be stored, no handler is called.
const LETTERS_MAX: usize = 1_000;

/// A call that is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Its number, for [`Bus::finish`].
    pub id: u64,
    /// Whose it is.
    pub handler: Arc<str>,
    /// Whom it calls.
    pub target: Target,
    /// The events, and which try it is of each, from 1 on.
    pub events: Vec<(Arc<Event>, u32)>,
}

/// Whom a handler calls.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A function of the host.
    Function(String),
    /// A collection that takes rows.
    Collection(String),
    /// A push stream that takes rows.
    Stream(String),
}

/// What a call came to for one of its events.
#[derive(Debug, Clone, PartialEq)]
pub enum Tried {
    /// It is handled.
    Done,
    /// It is not, for this reason.
    Failed(String),
    /// Nobody knows: whoever should have answered is not there for now. It is tried again, and that is no attempt.
    Unknown(String),
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// By whom; `routes` for an event that could not even be routed.
    pub handler: Arc<str>,
    /// The event.
    pub event: Arc<Event>,
    /// How often it was tried.
    pub attempts: u32,
    /// What was wrong at last.
    pub reason: String,
}

/// How a handler is doing. Counts are since the store was opened, or since it was configured first.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HandlerStatus {
    /// Its name.
    pub name: String,
    /// It is not configured any more, and goes when it has done with what it has.
    pub is_ending: bool,
    /// How many events came to it.
    pub events: u64,
    /// How many it has managed; of an aggregating one, groups.
    pub handled: u64,
    /// How often an event was tried in vain.
    pub failures: u64,
    /// How often one is or was to be tried again.
    pub retries: u64,
    /// How many became dead letters.
    pub dead: u64,
    /// How many were dropped for want of room.
    pub dropped: u64,
    /// How many calls were made.
    pub calls: u64,
    /// How many events wait.
    pub queued: usize,
    /// How many of them wait for their next try.
    pub retrying: usize,
    /// How many are in the window of an aggregate that is open.
    pub gathered: usize,
    /// How many are being handled.
    pub in_flight: usize,
    /// How long its calls took, in milliseconds.
    pub busy_ms: u64,
    /// How long after they came events were handled, in milliseconds.
    pub latency_ms_mean: f64,
    /// The longest of these.
    pub latency_ms_max: u64,
    /// Why one was last tried in vain.
    pub reason: Option<String>,
}

struct SourceState {
    /// Tells it apart from one of the same name that is read elsewhere.
    id: u64,
    ways: Ways,
}

/// A bus: a state that events, calls' results and the time are told, and that says what is to be done.
#[derive(Default)]
pub struct Bus {
    spec: BusSpec,
    sources: BTreeMap<String, SourceState>,
    progress: BTreeMap<(u64, u32), Progress>,
    handlers: BTreeMap<Arc<str>, Handler>,
    letters: VecDeque<(Letter, Tickets)>,
    next_call: u64,
    next_source: u64,
}

impl Bus {
    /// What it does.
    pub fn spec(&self) -> &BusSpec {
        &self.spec
    }

    /// Does something else from now on. What came before stays with the handlers that it went to, and these do with it what they do now; one
    /// that is not there any more does with it what it did, and then goes. `shapes` are what the rows of each source have.
    ///
    /// # Errors
    /// `InvalidArgument` that names the member that is wrong; then nothing has changed.
    pub fn configure(&mut self, spec: BusSpec, mut shapes: BTreeMap<String, Shape>, now_ms: u64) -> Result<()> {
        spec.check()?;
        let mut sources = BTreeMap::new();
        for (name, source) in &spec.sources {
            let shape =
                shapes.remove(name).ok_or_else(|| Error::internal(format!("source {name:?} without a shape")))?;
            let ways = Ways::new(&spec, name, shape).map_err(|error| error.context("the bus"))?;
            let before = self.spec.sources.get(name).zip(self.sources.get(name));
            let is_same = |before: &BusSource| before.collection == source.collection && before.stream == source.stream;
            let id = match before.filter(|(before, _)| is_same(before)) {
                Some((_, state)) => state.id,
                None => {
                    self.next_source += 1;
                    self.next_source
                }
            };
            sources.insert(name.clone(), SourceState { id, ways });
        }
        self.sources = sources;
        for (name, handler) in &mut self.handlers {
            match spec.handlers.get(&**name) {
                Some(spec) => handler.change(spec.clone(), now_ms),
                None => handler.end(now_ms),
            }
        }
        for (name, handler) in &spec.handlers {
            self.handlers.entry(name.as_str().into()).or_insert_with(|| Handler::new(name, handler.clone()));
        }
        self.spec = spec;
        self.sweep();
        Ok(())
    }

    /// Whether there is room for more events of a source, with every handler that they may go to.
    pub fn has_room(&self, source: &str) -> bool {
        let Some(source) = self.sources.get(source) else { return false };
        let has_room = |name: &Arc<str>| self.handlers.get(name).is_none_or(Handler::has_room);
        self.letters.len() < LETTERS_MAX && source.ways.handlers().all(has_room)
    }

    /// Takes events that were read of a partition of a source, up to `position`. Of a replay, nobody counts how far it is.
    ///
    /// # Errors
    /// `NotFound` for a source that is none.
    pub fn offer(
        &mut self,
        source: &str,
        partition: u32,
        events: Vec<Event>,
        position: Option<Vec<u8>>,
        now_ms: u64,
    ) -> Result<()> {
        let state = self.sources.get(source).ok_or_else(|| Error::not_found(format!("no source {source:?}")))?;
        let (id, routed) = (state.id, routed(&state.ways, &events));
        // An event that cannot be routed becomes a letter: that is one thing to be done.
        let open = routed.iter().map(|steps| steps.as_ref().map_or(1, Vec::len) as u64).sum();
        let entry = self.progress.entry((id, partition)).or_default().begin(position, open, events.len() as u64);
        for (event, steps) in events.into_iter().zip(routed) {
            self.deal(event, steps, &Tickets::one(id, partition, entry), now_ms, false);
        }
        Ok(())
    }

    /// Takes events that come again, for these handlers alone, or for all that they go to.
    ///
    /// # Errors
    /// As of [`Self::offer`].
    pub fn offer_again(&mut self, source: &str, events: Vec<Event>, handlers: &[String], now_ms: u64) -> Result<()> {
        let state = self.sources.get(source).ok_or_else(|| Error::not_found(format!("no source {source:?}")))?;
        let routed = routed(&state.ways, &events);
        for (event, mut steps) in events.into_iter().zip(routed) {
            if let Ok(steps) = &mut steps
                && !handlers.is_empty()
            {
                steps.retain(|step| handlers.iter().any(|name| **name == *step.handler));
            }
            self.deal(event, steps, &Tickets::default(), now_ms, false);
        }
        Ok(())
    }

    /// Takes events of the application, all or none. They are in memory alone. Tells to how many handlers each goes.
    ///
    /// # Errors
    /// `NotFound` for a source that is none, `InvalidArgument` for one that is a collection or a stream and for rows that filters cannot
    /// look at, `Unavailable` when a handler has no room whose overflow is `refuse`.
    pub fn publish(&mut self, source: &str, events: Vec<Event>, now_ms: u64) -> Result<Vec<usize>> {
        let state = self.sources.get(source).ok_or_else(|| {
            let names: Vec<&str> = self.sources.keys().map(String::as_str).collect();
            Error::not_found(format!("the bus has no source {source:?}; there are: {}", names.join(", ")))
        })?;
        if self.spec.sources.get(source).is_some_and(|source| !source.is_application()) {
            let message =
                format!("source {source:?} of the bus is a collection or a push stream: its events are written there");
            return Err(Error::invalid(message));
        }
        let routed = state.ways.of(&events)?;
        let mut more: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for step in routed.iter().flatten() {
            *more.entry(&step.handler).or_default() += 1;
        }
        for (name, more) in more {
            let Some(handler) = self.handlers.get(name) else { continue };
            let is_bounded = handler.spec.overflow == BusOverflow::Refuse && handler.spec.aggregate.is_none();
            // A publication that is larger than the queue is taken when nothing else waits.
            if is_bounded && handler.len() > 0 && handler.len() + more > handler.spec.queue {
                let message = format!(
                    "handler {name:?} of the bus has {} events waiting, and {more} more would be over its {}: publish again later",
                    handler.len(),
                    handler.spec.queue
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        let counts = routed.iter().map(Vec::len).collect();
        for (event, steps) in events.into_iter().zip(routed) {
            self.deal(event, Ok(steps), &Tickets::default(), now_ms, true);
        }
        Ok(counts)
    }

    /// Gives an event to its handlers; each owes as much as `ticket` says.
    fn deal(
        &mut self,
        event: Event,
        steps: Result<Vec<route::Step>, String>,
        ticket: &Tickets,
        now_ms: u64,
        is_volatile: bool,
    ) {
        let event = Arc::new(event);
        let steps = match steps {
            Ok(steps) => steps,
            Err(reason) => {
                let letter = Letter { handler: "routes".into(), event, attempts: 0, reason };
                self.letters.push_back((letter, ticket.clone()));
                return;
            }
        };
        for route::Step { handler: name, priority, case } in steps {
            let Some(handler) = self.handlers.get_mut(&name).filter(|_| case != Some(None)) else {
                self.settle(ticket);
                continue;
            };
            let mut waiting = handler.waiting(event.clone(), ticket.clone(), priority, now_ms, is_volatile);
            waiting.case = case.flatten();
            let outcome = handler.take(waiting, now_ms);
            self.conclude(&name, outcome);
        }
    }

    fn settle(&mut self, tickets: &Tickets) {
        for (&(source, partition, entry), &count) in &tickets.0 {
            if let Some(progress) = self.progress.get_mut(&(source, partition)) {
                progress.settle(entry, count);
            }
        }
    }

    fn conclude(&mut self, name: &Arc<str>, outcome: Outcome) {
        for tickets in &outcome.settled {
            self.settle(tickets);
        }
        for Failed { event, tickets, attempts, reason } in outcome.failed {
            self.letters.push_back((Letter { handler: name.clone(), event, attempts, reason }, tickets));
        }
    }

    /// A call that is due now, to who is there.
    pub fn call(&mut self, now_ms: u64, is_there: &dyn Fn(&Target) -> bool) -> Option<Call> {
        if self.letters.len() >= LETTERS_MAX {
            return None;
        }
        let id = self.next_call;
        let call = self.handlers.values_mut().find_map(|handler| handler.call(id, now_ms, is_there))?;
        self.next_call += 1;
        Some(call)
    }

    /// What a call came to, by event; one that is over counts no more. `random` gives 64 random bits each time.
    pub fn finish(
        &mut self,
        call: u64,
        handler: &str,
        results: Vec<Tried>,
        now_ms: u64,
        random: &mut dyn FnMut() -> u64,
    ) {
        let Some(state) = self.handlers.get_mut(handler) else { return };
        let (name, outcome) = (state.name.clone(), state.finish(call, results, now_ms, random));
        self.conclude(&name, outcome);
        self.sweep();
    }

    /// A call was given up: all of its events have failed.
    pub fn fail(&mut self, call: u64, handler: &str, reason: &str, now_ms: u64, random: &mut dyn FnMut() -> u64) {
        let Some(count) = self.handlers.get(handler).and_then(|handler| handler.in_call(call)) else { return };
        self.finish(call, handler, vec![Tried::Failed(reason.to_owned()); count], now_ms, random);
    }

    /// Calls that have taken too long, whose they are, and how long they may take: they are to be [given up](Self::fail).
    pub fn late(&self, now_ms: u64) -> Vec<(u64, Arc<str>, u64)> {
        let of = |handler: &Handler| {
            let (name, ms) = (handler.name.clone(), handler.spec.timeout_ms);
            handler.late(now_ms).into_iter().map(move |id| (id, name.clone(), ms)).collect::<Vec<_>>()
        };
        self.handlers.values().flat_map(of).collect()
    }

    /// Dead letters that are to be stored, the first first, at most `count`.
    pub fn letters(&self, count: usize) -> Vec<Letter> {
        self.letters.iter().take(count).map(|(letter, _)| letter.clone()).collect()
    }

    /// The first so many dead letters are stored.
    pub fn stored(&mut self, count: usize) {
        for (_, tickets) in self.letters.drain(..count).collect::<Vec<_>>() {
            self.settle(&tickets);
        }
        self.sweep();
    }

    /// Lets go of handlers and sources that are not configured any more and have nothing left to do.
    fn sweep(&mut self) {
        self.handlers.retain(|_, handler| !handler.is_ending || !handler.is_idle());
        let ids: Vec<u64> = self.sources.values().map(|source| source.id).collect();
        self.progress.retain(|(id, _), progress| ids.contains(id) || progress.is_open());
    }

    /// Up to where all is done of the partitions of a source, where that has moved on, and how many events were done on the way.
    pub fn settled(&self, source: &str) -> Vec<(u32, Vec<u8>, u64)> {
        let Some(state) = self.sources.get(source) else { return vec![] };
        let of = self.progress.range((state.id, 0)..=(state.id, u32::MAX));
        of.filter_map(|((_, partition), progress)| {
            let (position, events) = progress.settled()?;
            Some((*partition, position.to_vec(), events))
        })
        .collect()
    }

    /// What [`Self::settled`] has told was noted where it lasts.
    pub fn noted(&mut self, source: &str, partition: u32, position: &[u8]) {
        let Some(state) = self.sources.get(source) else { return };
        if let Some(progress) = self.progress.get_mut(&(state.id, partition)) {
            progress.noted(position);
        }
    }

    /// Takes out what a replay has brought and nobody handles yet.
    pub fn cancel(&mut self, replay: u64) -> usize {
        let gone: Vec<Tickets> = self.handlers.values_mut().flat_map(|handler| handler.cancel(replay)).collect();
        gone.iter().for_each(|tickets| self.settle(tickets));
        gone.len()
    }

    /// When it has something to do though nothing comes; 0 for at once. Dead letters are not counted.
    pub fn due_ms(&self, is_there: &dyn Fn(&Target) -> bool) -> Option<u64> {
        if self.letters.len() >= LETTERS_MAX {
            return None;
        }
        self.handlers.values().filter_map(|handler| handler.due_ms(is_there)).min()
    }

    /// Whether nothing waits, and nothing is being handled.
    pub fn is_idle(&self) -> bool {
        self.letters.is_empty() && self.handlers.values().all(Handler::is_idle)
    }

    /// How its handlers are doing.
    pub fn status(&self) -> Vec<HandlerStatus> {
        self.handlers.values().map(Handler::status).collect()
    }
}

/// Where events go; one that the filters cannot look at does not hold up the others.
fn routed(ways: &Ways, events: &[Event]) -> Vec<Result<Vec<route::Step>, String>> {
    match ways.of(events) {
        Ok(steps) => steps.into_iter().map(Ok).collect(),
        Err(_) => {
            let one = |event| {
                let steps = ways.of(std::slice::from_ref(event)).map_err(|error| error.message().to_owned())?;
                Ok(steps.into_iter().next().unwrap_or_default())
            };
            events.iter().map(one).collect()
        }
    }
}
