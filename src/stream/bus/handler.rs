use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::group::Groups;
use super::spec::{BusHandler, BusOverflow};
use super::{Call, Event, HandlerStatus, Target, Tried};
use crate::sync::Backoff;

/// So many of what an aggregate comes to are told in one call.
const TOTALS_MAX: usize = 1_000;

/// What is open of which reading: by the number of the source, its partition and the entry there, how much.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tickets(pub BTreeMap<(u64, u32, u64), u64>);

impl Tickets {
    pub fn one(source: u64, partition: u32, entry: u64) -> Self {
        Self(BTreeMap::from([((source, partition, entry), 1)]))
    }

    pub fn add(&mut self, other: Self) {
        for (of, count) in other.0 {
            *self.0.entry(of).or_default() += count;
        }
    }
}

/// Where an event stands in the queue: by priority, then as they came.
type Place = (Reverse<i32>, u64);

/// An event that waits for its handler.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub event: Arc<Event>,
    pub tickets: Tickets,
    pub priority: i32,
    /// The function of the case that it is.
    pub case: Option<Arc<str>>,
    /// Whether it is in memory alone, and may be dropped for want of room.
    pub is_volatile: bool,
    attempts: u32,
    backoff: Backoff,
    came_ms: u64,
    bytes: usize,
}

/// What could not be handled.
#[derive(Debug, Clone)]
pub(super) struct Failed {
    pub event: Arc<Event>,
    pub tickets: Tickets,
    pub attempts: u32,
    pub reason: String,
}

/// What became of a call.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub settled: Vec<Tickets>,
    pub failed: Vec<Failed>,
}

#[derive(Debug)]
struct Running {
    entries: Vec<(Place, Waiting)>,
    begun_ms: u64,
    late_ms: u64,
}

#[derive(Debug, Clone, Default)]
struct Counts {
    events: u64,
    handled: u64,
    failures: u64,
    retries: u64,
    dead: u64,
    dropped: u64,
    calls: u64,
    busy_ms: u64,
    latency_ms: u64,
    latency_ms_max: u64,
    reason: Option<String>,
}

/// A handler: what waits for it, what it is doing, and what it has done.
#[derive(Debug)]
pub(super) struct Handler {
    pub name: Arc<str>,
    pub spec: BusHandler,
    /// It gets no more events, and goes when it has done with those that it has.
    pub is_ending: bool,
    ready: BTreeMap<Place, Waiting>,
    /// Those of `ready` by the time at which they came.
    came: BTreeSet<(u64, Place)>,
    /// What waits for its next try, and until when.
    later: BTreeMap<Place, (u64, Waiting)>,
    due: BTreeSet<(u64, Place)>,
    bytes: usize,
    groups: Groups,
    running: BTreeMap<u64, Running>,
    next: u64,
    counts: Counts,
}

impl Handler {
    pub fn new(name: &str, spec: BusHandler) -> Self {
        Self {
            name: name.into(),
            spec,
            is_ending: false,
            ready: BTreeMap::new(),
            came: BTreeSet::new(),
            later: BTreeMap::new(),
            due: BTreeSet::new(),
            bytes: 0,
            groups: Groups::default(),
            running: BTreeMap::new(),
            next: 0,
            counts: Counts::default(),
        }
    }

    /// It does something else from now on; with what waits for it.
    pub fn change(&mut self, spec: BusHandler, now_ms: u64) {
        self.is_ending = false;
        if self.spec.aggregate != spec.aggregate {
            self.close_window(now_ms);
        }
        self.spec = spec;
    }

    pub fn end(&mut self, now_ms: u64) {
        self.is_ending = true;
        self.close_window(now_ms);
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        self.ready.len() + self.later.len()
    }

    pub fn has_room(&self) -> bool {
        self.len() < self.spec.queue
    }

    pub fn is_idle(&self) -> bool {
        self.len() == 0 && self.running.is_empty() && self.groups.is_empty()
    }

    pub fn waiting(
        &self,
        event: Arc<Event>,
        tickets: Tickets,
        priority: i32,
        now_ms: u64,
        is_volatile: bool,
    ) -> Waiting {
        let bytes = event.bytes();
        let backoff = Backoff::new(self.spec.retry.delay_ms, self.spec.retry.delay_ms_max);
        Waiting { event, tickets, priority, case: None, is_volatile, attempts: 0, backoff, came_ms: now_ms, bytes }
    }

    /// Takes an event. What is dropped for it, or it itself, comes back.
    pub fn take(&mut self, waiting: Waiting, now_ms: u64) -> Outcome {
        let mut outcome = Outcome::default();
        self.counts.events += 1;
        if let Some(aggregate) = &self.spec.aggregate {
            let Waiting { event, tickets, priority, .. } = waiting;
            if let Err((reason, tickets)) = self.groups.add(aggregate, &event.row, tickets, priority, now_ms) {
                self.counts.dead += 1;
                outcome.failed.push(Failed { event, tickets, attempts: 0, reason });
            }
            if self.groups.events >= aggregate.events || self.groups.len() >= aggregate.groups {
                self.close_window(now_ms);
            }
            return outcome;
        }
        // What is refused was refused before it came here.
        if waiting.is_volatile && !self.has_room() && self.spec.overflow != BusOverflow::Refuse {
            // Those that a collection or a stream has are not dropped: they would not come again.
            let oldest = self
                .ready
                .iter()
                .filter(|(_, one)| one.is_volatile)
                .map(|(place, _)| *place)
                .min_by_key(|(_, number)| *number);
            self.counts.dropped += 1;
            match oldest.filter(|_| self.spec.overflow == BusOverflow::DropOldest) {
                Some(place) => outcome.settled.extend(self.remove(place).map(|one| one.tickets)),
                None => {
                    outcome.settled.push(waiting.tickets);
                    return outcome;
                }
            }
        }
        self.put(waiting);
        outcome
    }

    fn put(&mut self, waiting: Waiting) {
        let place = (Reverse(waiting.priority), self.next);
        self.next += 1;
        self.put_at(place, waiting);
    }

    fn put_at(&mut self, place: Place, waiting: Waiting) {
        self.bytes += waiting.bytes;
        self.came.insert((waiting.came_ms, place));
        self.ready.insert(place, waiting);
    }

    fn remove(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.ready.remove(&place)?;
        self.bytes -= waiting.bytes;
        self.came.remove(&(waiting.came_ms, place));
        Some(waiting)
    }

    fn close_window(&mut self, now_ms: u64) {
        let Some(aggregate) = &self.spec.aggregate else { return };
        let since_ms = self.groups.since_ms;
        for total in self.groups.close(aggregate) {
            let event = Event {
                source: self.name.clone(),
                kind: "aggregate".into(),
                key: None,
                at_ms: now_ms,
                row: total.row,
                before: None,
                replay: None,
            };
            let waiting = self.waiting(Arc::new(event), total.tickets, total.priority, since_ms, false);
            self.put(waiting);
        }
    }

    /// Takes out what a replay has brought, as far as nobody handles it yet.
    pub fn cancel(&mut self, replay: u64) -> Vec<Tickets> {
        let places: Vec<Place> =
            self.ready.iter().filter(|(_, one)| one.event.replay == Some(replay)).map(|(place, _)| *place).collect();
        let mut gone: Vec<Tickets> =
            places.into_iter().filter_map(|place| self.remove(place)).map(|one| one.tickets).collect();
        let later: Vec<(Place, u64)> = self
            .later
            .iter()
            .filter(|(_, (_, one))| one.event.replay == Some(replay))
            .map(|(place, (due, _))| (*place, *due))
            .collect();
        for (place, due) in later {
            self.due.remove(&(due, place));
            gone.extend(self.later.remove(&place).map(|(_, one)| one.tickets));
        }
        gone
    }

    fn target(&self, case: Option<&Arc<str>>) -> Target {
        let spec = &self.spec;
        match (case, &spec.function, &spec.collection, &spec.stream) {
            (Some(function), ..) => Target::Function(function.to_string()),
            (None, Some(function), ..) => Target::Function(function.clone()),
            (None, None, Some(collection), _) => Target::Collection(collection.clone()),
            (None, None, None, Some(stream)) => Target::Stream(stream.clone()),
            // Its cases came after the event: the function for all others is left.
            (None, None, None, None) => Target::Function(spec.otherwise.clone().unwrap_or_default()),
        }
    }

    /// The next call, if one is due to who is there.
    pub fn call(&mut self, id: u64, now_ms: u64, is_there: &dyn Fn(&Target) -> bool) -> Option<Call> {
        if let Some(aggregate) = &self.spec.aggregate
            && !self.groups.is_empty()
            && now_ms >= self.groups.since_ms.saturating_add(aggregate.delay_ms)
        {
            self.close_window(now_ms);
        }
        while let Some(&(due_ms, place)) = self.due.first().filter(|(due_ms, _)| *due_ms <= now_ms) {
            self.due.remove(&(due_ms, place));
            if let Some((_, waiting)) = self.later.remove(&place) {
                self.put_at(place, waiting);
            }
        }
        if self.running.len() >= self.spec.concurrency as usize || self.batch_due_ms()? > now_ms {
            return None;
        }
        let (most, most_bytes) = match (&self.spec.batch, &self.spec.aggregate) {
            (Some(batch), _) => (batch.events, batch.bytes),
            (None, Some(_)) => (TOTALS_MAX, usize::MAX),
            (None, None) => (1, usize::MAX),
        };
        // One that has its turn and waits holds up those behind it.
        let held = self.later.keys().next().copied().filter(|_| self.spec.ordered);
        let case = self.next_case(is_there)?;
        let (mut places, mut bytes) = (vec![], 0usize);
        for (place, waiting) in &self.ready {
            bytes = bytes.saturating_add(waiting.bytes);
            let is_over = places.len() >= most || (bytes > most_bytes && !places.is_empty());
            if is_over || held.is_some_and(|held| *place > held) {
                break;
            }
            if waiting.case == case {
                places.push(*place);
            } else if self.spec.ordered {
                break;
            } else {
                bytes -= waiting.bytes;
            }
        }
        if places.is_empty() {
            return None;
        }
        let entries: Vec<(Place, Waiting)> =
            places.into_iter().filter_map(|place| Some((place, self.remove(place)?))).collect();
        let events = entries.iter().map(|(_, one)| (one.event.clone(), one.attempts + 1)).collect();
        let running = Running { entries, begun_ms: now_ms, late_ms: now_ms.saturating_add(self.spec.timeout_ms) };
        self.running.insert(id, running);
        self.counts.calls += 1;
        Some(Call { id, handler: self.name.clone(), target: self.target(case.as_ref()), events })
    }

    /// The case of the next event whose function is there.
    fn next_case(&self, is_there: &dyn Fn(&Target) -> bool) -> Option<Option<Arc<str>>> {
        let mut absent: Vec<Option<Arc<str>>> = vec![];
        for waiting in self.ready.values() {
            if !absent.contains(&waiting.case) {
                if is_there(&self.target(waiting.case.as_ref())) {
                    return Some(waiting.case.clone());
                }
                absent.push(waiting.case.clone());
            }
            if self.spec.ordered {
                return None;
            }
        }
        None
    }

    /// When what is ready is to be given out.
    fn batch_due_ms(&self) -> Option<u64> {
        let &(came_ms, _) = self.came.first()?;
        let Some(batch) = &self.spec.batch else { return Some(0) };
        // One that was tried before waits for nobody.
        let is_enough = self.is_ending || self.ready.len() >= batch.events || self.bytes >= batch.bytes;
        Some(if is_enough { 0 } else { came_ms.saturating_add(batch.delay_ms) })
    }

    /// When it has something to do though nothing comes, and nobody who is not there does.
    pub fn due_ms(&self, is_there: &dyn Fn(&Target) -> bool) -> Option<u64> {
        let window = self.spec.aggregate.as_ref().filter(|_| !self.groups.is_empty());
        let window = window.map(|aggregate| self.groups.since_ms.saturating_add(aggregate.delay_ms));
        let is_free = self.running.len() < self.spec.concurrency as usize;
        let held = self.later.keys().next().copied().filter(|_| self.spec.ordered);
        let is_held = held.is_some_and(|held| self.ready.keys().next().is_none_or(|first| *first > held));
        let ready = self.batch_due_ms().filter(|_| is_free && !is_held && self.next_case(is_there).is_some());
        let late = self.running.values().map(|one| one.late_ms).min();
        [window, ready, self.due.first().map(|(due_ms, _)| *due_ms), late].into_iter().flatten().min()
    }

    /// The calls that take too long.
    pub fn late(&self, now_ms: u64) -> Vec<u64> {
        self.running.iter().filter(|(_, one)| one.late_ms <= now_ms).map(|(id, _)| *id).collect()
    }

    /// How many events a call has that is under way.
    pub fn in_call(&self, id: u64) -> Option<usize> {
        self.running.get(&id).map(|running| running.entries.len())
    }

    /// What a call came to, by event. `random` gives 64 random bits each time.
    pub fn finish(&mut self, id: u64, results: Vec<Tried>, now_ms: u64, random: &mut dyn FnMut() -> u64) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(running) = self.running.remove(&id) else { return outcome };
        self.counts.busy_ms += now_ms.saturating_sub(running.begun_ms);
        let (given, expected) = (results.len(), running.entries.len());
        let results = if given == expected {
            results
        } else {
            vec![Tried::Failed(format!("{given} answers for {expected} events")); expected]
        };
        for ((place, mut waiting), result) in running.entries.into_iter().zip(results) {
            match result {
                Tried::Done => {
                    let latency_ms = now_ms.saturating_sub(waiting.came_ms);
                    self.counts.handled += 1;
                    self.counts.latency_ms += latency_ms;
                    self.counts.latency_ms_max = self.counts.latency_ms_max.max(latency_ms);
                    outcome.settled.push(waiting.tickets);
                }
                Tried::Failed(reason) if waiting.attempts + 1 >= self.spec.retry.attempts => {
                    self.counts.failures += 1;
                    self.counts.dead += 1;
                    self.counts.reason = Some(reason.clone());
                    let Waiting { event, tickets, attempts, .. } = waiting;
                    let attempts = attempts + 1;
                    outcome.failed.push(Failed { event, tickets, attempts, reason });
                }
                tried => {
                    self.counts.failures += 1;
                    self.counts.retries += 1;
                    waiting.attempts += u32::from(matches!(tried, Tried::Failed(_)));
                    if let Tried::Failed(reason) | Tried::Unknown(reason) = tried {
                        self.counts.reason = Some(reason);
                    }
                    let due_ms = now_ms.saturating_add(waiting.backoff.next_ms(random()));
                    self.due.insert((due_ms, place));
                    self.later.insert(place, (due_ms, waiting));
                }
            }
        }
        outcome
    }

    pub fn status(&self) -> HandlerStatus {
        let counts = &self.counts;
        let in_flight = self.running.values().map(|one| one.entries.len()).sum();
        HandlerStatus {
            name: self.name.to_string(),
            is_ending: self.is_ending,
            events: counts.events,
            handled: counts.handled,
            failures: counts.failures,
            retries: counts.retries,
            dead: counts.dead,
            dropped: counts.dropped,
            calls: counts.calls,
            queued: self.len(),
            retrying: self.later.len(),
            gathered: self.groups.events,
            in_flight,
            busy_ms: counts.busy_ms,
            latency_ms_mean: counts.latency_ms as f64 / counts.handled.max(1) as f64,
            latency_ms_max: counts.latency_ms_max,
            reason: counts.reason.clone(),
        }
    }
}
