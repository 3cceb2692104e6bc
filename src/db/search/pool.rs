//! Sealed segments that workers beside the engine hold copies of and search while it searches the others: for hosts where an engine has
//! one thread. What they find is what the engine would find, for they run the same code over the same bytes; which rows count is the
//! engine's to say. Nothing depends on them: where one gives no answer the engine looks itself.

mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::admit::Later;
use super::nearest::Nearest;
use crate::base::codec::Write;
use crate::base::{CollectionId, Error, ErrorKind, Neighbor, Result, RowMask, SegmentId};
use crate::db::{Collection, Db, SearchResponse};
use crate::engine::Slot;
use crate::index::{IndexSpec, VectorIndex};
use crate::platform::{MaybeSend, MaybeSync, Task};
use crate::query::Access;
use crate::segment::Segment;
pub use worker::PoolWorker;

/// Segments are copied in pieces of about so many bytes: reads of the engine wait for each of them.
const PIECE_BYTES: usize = 1 << 20;
/// Fewer comparisons than this are done before a worker has been told of them.
const COMPARISONS_MIN: usize = 4_096;
/// How long an answer may take, at least, and how many comparisons a worker makes in a millisecond, at least: a tenth of what one without
/// vector instructions makes of 768 dimensions.
const PATIENCE_MS: u64 = 2_000;
const COMPARISONS_PER_MS: u64 = 100;
/// How long a worker may take to open an index.
const LOAD_PATIENCE_MS: u64 = 60_000;
/// A worker that fails so often in a row is given up.
const STRIKES_MAX: u32 = 3;

/// What carries messages to workers and their answers back. Each worker hands what it is given to a [`PoolWorker`] of its own.
///
/// Implementers promise: a message is on its way when [`Self::ask`] returns, before anybody waits for its answer; a worker answers its
/// messages in their order; every answer comes to an end, with an error of kind [`ErrorKind::Closed`] when the worker is gone for good,
/// and of any other when it failed or took longer than `patience_ms`.
pub trait SearchPool: MaybeSend + MaybeSync {
    /// How many workers there are. They are called by numbers from 0.
    fn workers(&self) -> usize;

    /// Gives a worker a message, and waits for its answer.
    fn ask(&self, worker: usize, message: Vec<u8>, patience_ms: u64) -> Task<'static, Result<Vec<u8>>>;

    /// Ends a worker. Safe to call again.
    fn end(&self, worker: usize);

    /// From how many comparisons on a search is worth a message.
    fn comparisons_min(&self) -> usize {
        COMPARISONS_MIN
    }
}

/// What a pool of workers does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolStats {
    /// Workers that run.
    pub workers: usize,
    /// Segments, by their vector fields, that a worker holds.
    pub segments: usize,
    /// The bytes of these copies.
    pub bytes: usize,
    /// How many messages with searches were answered.
    pub searches: u64,
    /// How often a worker failed; the engine did its work then.
    pub failures: u64,
    /// The last failure.
    pub error: Option<String>,
}

/// The vectors of a field of a segment.
type Key = (CollectionId, SegmentId, String);

/// The pool of a store, when it was given one.
#[derive(Default)]
pub(in crate::db) struct Pool(OnceLock<(Arc<dyn SearchPool>, Mutex<State>)>);

#[derive(Default)]
struct State {
    workers: Vec<Worker>,
    copies: BTreeMap<Key, Held>,
    handles: u64,
    searches: u64,
    failures: u64,
    error: Option<String>,
}

#[derive(Default, Clone)]
struct Worker {
    is_gone: bool,
    /// Whether it is opening an index: a search would wait for it.
    is_busy: bool,
    /// Comparisons that it was asked for and has not answered.
    asked: u64,
    strikes: u32,
}

/// A copy that a worker has, or is given.
struct Held {
    worker: usize,
    /// What the worker knows it by.
    handle: u64,
    bytes: usize,
    /// By which index it was made: a collection may change it.
    spec: IndexSpec,
    stage: Stage,
}

impl Held {
    /// Whether the segment is still what it is a copy of.
    fn is_of(&self, segment: &Segment, field: &str) -> bool {
        segment.index(field).is_some_and(|index| index.spec == self.spec) && is_whole(segment, field)
    }
}

/// What of a copy comes next.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Begin,
    IndexPart(usize),
    VectorsFrom(usize),
    Open,
    Done,
}

/// What a worker is told, and of which copy that makes what.
struct Step {
    worker: usize,
    message: Vec<u8>,
    copy: Option<(Key, u64, Stage)>,
}

/// Where a copy is.
#[derive(Clone, Copy)]
pub(super) struct Place {
    worker: usize,
    handle: u64,
}

/// A segment that a worker may search, and the rows that count.
pub(super) struct Offer<'s> {
    pub(super) slot: &'s Slot,
    pub(super) mask: RowMask,
    pub(super) place: Place,
}

/// Searches that are under way in workers.
#[derive(Default)]
pub(super) struct Asked(Vec<Part>);

struct Part {
    worker: usize,
    comparisons: u64,
    segments: Vec<(Arc<Segment>, RowMask, bool)>,
    answer: Task<'static, Result<Vec<u8>>>,
}

/// What workers found: of each segment the rows for each query; and those segments that are to be searched here after all.
pub(super) struct Answered {
    pub(super) found: Vec<(Arc<Segment>, Vec<Vec<Neighbor>>)>,
    pub(super) failed: Vec<Later>,
}

impl State {
    /// What a worker has failed at; gives it up when there is no hope.
    fn fail(&mut self, pool: &dyn SearchPool, worker: usize, error: &Error, is_fatal: bool) {
        self.failures += 1;
        self.error = Some(error.message().to_owned());
        let failed = &mut self.workers[worker];
        failed.strikes += 1;
        if is_fatal || error.kind() == ErrorKind::Closed || failed.strikes >= STRIKES_MAX {
            failed.is_gone = true;
            self.copies.retain(|_, held| held.worker != worker);
            pool.end(worker);
        }
    }

    /// Gives a copy up.
    fn drop_copy(&mut self, key: &Key) -> Option<Step> {
        let held = self.copies.remove(key)?;
        Some(Step { worker: held.worker, message: worker::drop_message(held.handle), copy: None })
    }

    fn bytes(&self) -> usize {
        self.copies.values().map(|held| held.bytes).sum()
    }
}

impl Pool {
    fn get(&self) -> Option<(&Arc<dyn SearchPool>, MutexGuard<'_, State>)> {
        let (pool, state) = self.0.get()?;
        Some((pool, state.lock().expect("no panic while held")))
    }

    /// The bytes of all copies, those on their way included.
    pub(in crate::db) fn bytes(&self) -> usize {
        self.get().map_or(0, |(_, state)| state.bytes())
    }

    /// Ends all workers.
    pub(in crate::db) fn end(&self) {
        if let Some((pool, mut state)) = self.get() {
            state.copies.clear();
            for (at, worker) in state.workers.iter_mut().enumerate() {
                worker.is_gone = true;
                pool.end(at);
            }
        }
    }

    /// The worker that has the vectors of a field, where one has.
    pub(super) fn place(&self, collection: CollectionId, segment: &Segment, field: &str) -> Option<Place> {
        let (_, state) = self.get()?;
        if state.copies.is_empty() {
            return None;
        }
        let held = state.copies.get(&(collection, segment.id(), field.to_owned()))?;
        let is_ready = held.stage == Stage::Done && !state.workers[held.worker].is_busy && held.is_of(segment, field);
        is_ready.then_some(Place { worker: held.worker, handle: held.handle })
    }

    /// Asks workers for the nearest rows of what is offered, which is gone then; all of it stays when that is not worth a message.
    pub(super) fn ask(&self, offers: &mut Vec<Offer<'_>>, nearest: &[Nearest<'_>]) -> Asked {
        let Some((pool, mut state)) = self.get().filter(|_| !offers.is_empty()) else { return Asked::default() };
        let planned: Vec<(Access, f64)> =
            offers.iter().map(|offer| nearest[0].planned(&offer.slot.segment, offer.mask.count())).collect();
        let queries = nearest.len() as f64;
        if planned.iter().map(|(_, cost)| cost * queries).sum::<f64>() < pool.comparisons_min() as f64 {
            return Asked::default();
        }
        let mut parts: BTreeMap<usize, (Vec<u8>, f64, Vec<_>)> = BTreeMap::new();
        for (Offer { slot, mask, place }, (access, cost)) in offers.drain(..).zip(planned) {
            let by_index = access == Access::Graph;
            let part = parts.entry(place.worker).or_insert_with(|| (nearest[0].head(nearest), 0.0, Vec::new()));
            worker::put_segment(&mut part.0, place.handle, by_index, &mask);
            part.1 += cost * queries;
            part.2.push((slot.segment.clone(), mask, by_index));
        }
        let part = |(worker, (message, cost, segments)): (usize, (Vec<u8>, f64, Vec<_>))| {
            let comparisons = cost as u64;
            let asked = &mut state.workers[worker].asked;
            *asked += comparisons;
            let answer = pool.ask(worker, message, PATIENCE_MS + *asked / COMPARISONS_PER_MS);
            Part { worker, comparisons, segments, answer }
        };
        Asked(parts.into_iter().map(part).collect())
    }

    /// Waits for what workers were asked.
    pub(super) async fn answers(&self, asked: Asked, queries: usize, response: &mut SearchResponse) -> Answered {
        let mut answered = Answered { found: Vec::new(), failed: Vec::new() };
        for Part { worker, comparisons, segments, answer } in asked.0 {
            let lens: Vec<usize> = segments.iter().map(|(segment, ..)| segment.len()).collect();
            let answer = answer.await.and_then(|bytes| worker::read_found(&bytes, &lens, queries));
            let Some((pool, mut state)) = self.get() else { continue };
            let asked = &mut state.workers[worker];
            asked.asked = asked.asked.saturating_sub(comparisons);
            match answer {
                Ok(found) => {
                    asked.strikes = 0;
                    state.searches += 1;
                    for ((segment, mask, by_index), found) in segments.into_iter().zip(found) {
                        if by_index {
                            response.segments_by_index += queries;
                        } else {
                            response.segments_by_scan += queries;
                            response.rows_scanned += mask.count() * queries;
                        }
                        response.profiled(segment.id(), |profile| profile.by_index |= by_index);
                        answered.found.push((segment, found));
                    }
                }
                Err(error) => {
                    state.fail(&**pool, worker, &error, false);
                    let later = |(segment, mask, _)| Later { segment, visible: RowMask::none(0), admitted: Some(mask) };
                    answered.failed.extend(segments.into_iter().map(later));
                }
            }
        }
        answered
    }
}

impl Nearest<'_> {
    /// The beginning of a message that asks for the nearest rows of several queries that differ in their vectors alone.
    fn head(&self, nearest: &[Self]) -> Vec<u8> {
        let mut message = vec![worker::SEARCH];
        message.put_u32(self.k as u32);
        let params = &self.params;
        for param in [params.ef, params.nprobe, params.reorder_k, params.search_list] {
            // None of them is 0.
            message.put_u32(param.unwrap_or(0).min(u32::MAX as usize) as u32);
        }
        message.put_u32(nearest.len() as u32);
        message.put_u32(self.numbers().len() as u32);
        for nearest in nearest {
            nearest.numbers().iter().for_each(|&number| message.put_f32(number));
        }
        message
    }
}

/// A copy that may be made.
struct Candidate {
    key: Key,
    bytes: usize,
    spec: IndexSpec,
}

/// Which copy a worker should have next: the largest whose worker has no more to look through then than the engine had before. `loads`
/// are the bytes of each worker that runs, `engine` those that the engine looks through itself; no copy takes more than `room`.
fn choose_copy(
    loads: &[(usize, usize)],
    engine: usize,
    candidates: &[Candidate],
    room: usize,
) -> Option<(usize, usize)> {
    let &(load, worker) = loads.iter().min()?;
    let fits = |bytes: usize| bytes <= room && load + bytes <= engine;
    let fitting = candidates.iter().enumerate().filter(|(_, candidate)| fits(candidate.bytes));
    let (at, _) = fitting.max_by_key(|(at, candidate)| (candidate.bytes, std::cmp::Reverse(*at)))?;
    Some((at, worker))
}

/// Whether the index of a field of a segment is all built, where it has one.
fn is_whole(segment: &Segment, field: &str) -> bool {
    let built = segment.index(field).and_then(|index| index.built.as_ref());
    !segment.lags(field) && built.is_none_or(|built| built.len() == segment.len() || built.is_empty())
}

fn built_of<'a>(segment: &'a Segment, field: &str) -> Option<&'a VectorIndex> {
    segment.index(field).and_then(|index| index.built.as_ref()).filter(|built| !built.is_empty())
}

impl Db {
    /// Has workers search sealed segments from now on. A store takes one pool, and keeps it until it is closed.
    pub fn use_pool(&self, pool: Arc<dyn SearchPool>) {
        let state = State { workers: vec![Worker::default(); pool.workers()], ..State::default() };
        // A second one has nothing to do.
        let _ = self.inner.shared.pool.0.set((pool, Mutex::new(state)));
    }

    /// What its pool does; `None` when it has none.
    pub fn pool_stats(&self) -> Option<PoolStats> {
        let (_, state) = self.inner.shared.pool.get()?;
        let done = state.copies.values().filter(|held| held.stage == Stage::Done);
        Some(PoolStats {
            workers: state.workers.iter().filter(|worker| !worker.is_gone).count(),
            segments: done.count(),
            bytes: state.bytes(),
            searches: state.searches,
            failures: state.failures,
            error: state.error.clone(),
        })
    }

    /// A step towards each worker having its share of what is searched: a piece of a copy, or the end of one; false when all is well.
    pub(in crate::db) async fn fill_pool(&self) -> bool {
        let shared = &self.inner.shared;
        let Some(Step { worker, message, copy }) = self.next_step() else { return false };
        let Some((pool, _)) = shared.pool.0.get() else { return false };
        let answer = pool.ask(worker, message, LOAD_PATIENCE_MS).await;
        let Some((pool, mut state)) = shared.pool.get() else { return false };
        state.workers[worker].is_busy = false;
        if let Err(error) = &answer {
            // One that cannot take a copy, for want of memory perhaps, would be given it again and again.
            state.fail(&**pool, worker, error, true);
        } else if let Some((key, handle, next)) = copy
            && let Some(held) = state.copies.get_mut(&key).filter(|held| held.handle == handle)
        {
            held.stage = next;
        }
        true
    }

    /// What a worker is to be told next.
    fn next_step(&self) -> Option<Step> {
        let shared = &self.inner.shared;
        shared.pool.0.get()?;
        let collections = self.collections();
        let (mut living, mut candidates, mut engine) = (BTreeMap::new(), Vec::new(), 0);
        for collection in &collections {
            let state = collection.inner.state.read().expect("no panic while held");
            let growing = state.growing().segment.id();
            for segment in state.slots().map(|slot| &slot.segment).filter(|segment| !segment.is_empty()) {
                for index in segment.indexes() {
                    let key = (collection.id(), segment.id(), index.field.clone());
                    if let Some(vectors) = segment.vectors(&index.field) {
                        let built = built_of(segment, &index.field).map_or(0, VectorIndex::memory_bytes);
                        let bytes = vectors.data.len() * 4 + built;
                        if segment.id() != growing && is_whole(segment, &index.field) {
                            candidates.push(Candidate { key: key.clone(), bytes, spec: index.spec });
                        } else {
                            engine += bytes;
                        }
                    }
                    living.insert(key, (index.spec, is_whole(segment, &index.field)));
                }
            }
        }
        let memory = self.memory();
        let used = memory.total() - memory.cache + shared.cache_capacity();
        let limit = shared.options.memory_limit_bytes.unwrap_or(usize::MAX);
        let (_, mut state) = shared.pool.get()?;
        let is_stale = |(key, held): &(&Key, &Held)| living.get(*key) != Some(&(held.spec, true));
        let mut drops: Vec<&Key> = state.copies.iter().filter(is_stale).map(|(key, _)| key).collect();
        if used > limit {
            drops.extend(state.copies.iter().max_by_key(|(_, held)| held.bytes).map(|(key, _)| key));
        }
        if let Some(key) = drops.first().copied().cloned() {
            return state.drop_copy(&key);
        }
        if state.copies.values().all(|held| held.stage == Stage::Done) {
            candidates.retain(|candidate| !state.copies.contains_key(&candidate.key));
            engine += candidates.iter().map(|candidate| candidate.bytes).sum::<usize>();
            let load = |at: usize| state.copies.values().filter(|held| held.worker == at).map(|held| held.bytes).sum();
            let running = state.workers.iter().enumerate().filter(|(_, worker)| !worker.is_gone);
            let loads: Vec<(usize, usize)> = running.map(|(at, _)| (load(at), at)).collect();
            let (at, worker) = choose_copy(&loads, engine, &candidates, limit.saturating_sub(used))?;
            let Candidate { key, bytes, spec } = candidates.swap_remove(at);
            state.handles += 1;
            let held = Held { worker, handle: state.handles, bytes, spec, stage: Stage::Begin };
            state.copies.insert(key, held);
        }
        let (key, held) = state.copies.iter().find(|(_, held)| held.stage != Stage::Done)?;
        let (key, worker, handle, stage, spec) = (key.clone(), held.worker, held.handle, held.stage, held.spec);
        // Searches look at a collection first and at the pool then: nobody may wait the other way round.
        drop(state);
        let collection = collections.iter().find(|collection| collection.id() == key.0);
        let piece = collection.and_then(|collection| piece_of(collection, &key, (handle, stage, spec)));
        let (_, mut state) = shared.pool.get()?;
        let Some((message, next)) = piece else {
            // Its vectors have left memory meanwhile.
            return state.drop_copy(&key);
        };
        state.workers[worker].is_busy = next == Stage::Done;
        Some(Step { worker, message, copy: Some((key, handle, next)) })
    }
}

/// The message with the next piece of a copy, and what comes after it; `None` when it cannot be had.
fn piece_of(
    collection: &Collection,
    key: &Key,
    (handle, stage, spec): (u64, Stage, IndexSpec),
) -> Option<(Vec<u8>, Stage)> {
    let state = collection.inner.state.read().expect("no panic while held");
    let segment = &state.slot(key.1)?.segment;
    let is_same = segment.index(&key.2)?.spec == spec && is_whole(segment, &key.2);
    let vectors = segment.vectors(&key.2).filter(|_| is_same)?;
    let built = built_of(segment, &key.2);
    let vectors_from = |from: usize| {
        let end = vectors.data.len().min(from + PIECE_BYTES / 4);
        let next = if end == vectors.data.len() { Stage::Open } else { Stage::VectorsFrom(end) };
        (worker::vectors_message(handle, &vectors.data[from..end]), next)
    };
    Some(match stage {
        Stage::Begin => (worker::begin_message(handle, spec.metric, vectors.dim, vectors.len()), Stage::IndexPart(0)),
        Stage::IndexPart(part) => match built.and_then(|built| built.part(part)) {
            Some(bytes) => (worker::index_message(handle, &bytes), Stage::IndexPart(part + 1)),
            None => vectors_from(0),
        },
        Stage::VectorsFrom(from) => vectors_from(from),
        Stage::Open | Stage::Done => (worker::open_message(handle), Stage::Done),
    })
}

#[cfg(all(test, feature = "server"))]
mod tests;
