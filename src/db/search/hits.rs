use std::collections::HashMap;
use std::sync::Arc;

use super::LIMIT_MAX;
use super::admit::Later;
use super::explain::Clock;
use super::nearest::Nearest;
use super::pool::{Asked, Offer};
use super::remaining::Remaining;
use super::rows::{At, Found};
use super::shown::Shown;
use super::words::Words;
use crate::base::{Error, Neighbor, Result, RowMask, sort_by};
use crate::db::{Collection, Hit, SearchRequest, SearchResponse, Snapshot};
use crate::distance::Metric;
use crate::engine::{CollectionState, Slot, View};
use crate::index::SearchParams;
use crate::model::{DataType, Field, Key, Row, Value, column};
use crate::platform;
use crate::query::{Filter, group_key};
use crate::segment::Segment;

/// Candidates that a graph search keeps when the request does not say.
const EF_MIN: usize = 64;
/// Queries of one request, as in Milvus.
const QUERIES_MAX: usize = 16_384;
/// What a round of a search that has to leave rows out looks for at first, and at most.
const ROUND_MIN: usize = 64;
const ROUND_MAX: usize = 65_536;
/// Fewer comparisons than this are done before other threads have begun.
pub(super) const COMPARISONS_MIN: usize = 4_096;

/// A search whose request was checked.
pub(super) struct Search<'a> {
    pub(super) request: &'a SearchRequest,
    pub(super) filter: Option<Filter>,
    /// The output fields, and what else must be read of every row that is found.
    pub(super) fields: Option<Vec<String>>,
    shown: Shown<'a>,
    pub(super) field: &'a Field,
    pub(super) metric: Metric,
    queries: Vec<Query>,
    /// Of a request that does not say, where the collection does.
    ef_usual: Option<usize>,
}

/// What the nearest rows are looked for of.
struct Query {
    vector: Value,
    /// What it asks of an index of terms, where that can answer it.
    words: Option<Words>,
    /// The row whose vector it is, which is not an answer.
    key: Option<Key>,
}

/// A row that was found, and its distance.
pub(super) type Near = (f32, Found);

/// The rows of a segment that are admitted, and how long it took to find out; or what must be read for that.
pub(super) type Mask = (Result<RowMask, Later>, f64);

/// What tells which rows are admitted.
#[derive(Clone, Copy)]
pub(super) enum Masked<'m> {
    /// They were found out.
    Known(&'m [Mask]),
    /// What a view sees, and the filter says.
    Seen(&'m View),
}

/// What was found in memory, by query, where else is to be looked, and what others look through.
pub(super) type Begun = (Vec<Vec<Near>>, Vec<Later>, Asked);

impl Search<'_> {
    /// How many rows of an answer are looked at.
    fn end(&self) -> usize {
        self.request.limit + self.request.offset
    }

    /// Whether the nearest rows may have to be left out, so that one round may not do.
    pub(super) fn has_rounds(&self) -> bool {
        self.request.range_filter.is_some() || self.request.group_by.is_some()
    }

    /// The search for that query's `k` nearest rows.
    pub(super) fn nearest(&self, query: usize, k: usize, exact: bool) -> Nearest<'_> {
        let query = &self.queries[query];
        let given = self.request.ef.or(self.request.params.search_list);
        let ef = given.or(self.ef_usual).unwrap_or(EF_MIN).max(k);
        Nearest {
            field: &self.field.name,
            apart: self.field.is_apart(),
            query: &query.vector,
            metric: self.metric,
            words: query.words.as_ref(),
            k,
            ef,
            params: SearchParams { ef: Some(ef), ..self.request.params },
            exact: exact || self.request.exact,
        }
    }

    /// How many rows of each query the first round looks for.
    fn first_k(&self) -> usize {
        let own = usize::from(self.queries.iter().any(|query| query.key.is_some()));
        let groups = self.end().saturating_mul(self.request.group_size.max(1));
        own + if self.has_rounds() { (groups * 2).clamp(ROUND_MIN, ROUND_MAX) } else { self.end() }
    }

    /// The searches of the first round, one a query.
    pub(super) fn first(&self) -> Vec<Nearest<'_>> {
        let k = self.first_k();
        (0..self.queries.len()).map(|query| self.nearest(query, k, false)).collect()
    }

    /// Whether its vector is a query.
    pub(super) fn is_own(&self, key: &Key) -> bool {
        self.queries.iter().any(|query| query.key.as_ref() == Some(key))
    }

    /// Whether a row of that distance is too far, and if not, whether it is too near.
    pub(super) fn range(&self, distance: f32) -> Range {
        let score = self.metric.score(distance);
        if self.request.radius.is_some_and(|radius| !is_better(self.metric, score, radius)) {
            Range::Beyond
        } else if self.request.range_filter.is_some_and(|near| is_better(self.metric, score, near)) {
            Range::Before
        } else {
            Range::Inside
        }
    }
}

/// Where a distance lies.
pub(super) enum Range {
    Before,
    Inside,
    Beyond,
}

/// Whether `score` is closer than `other`.
pub(super) fn is_better(metric: Metric, score: f32, other: f32) -> bool {
    // Of products and cosines the larger is closer.
    if metric.score(1.0) < metric.score(0.0) { score > other } else { score < other }
}

/// The rows of an answer while it is put together: without groups a group a row.
struct Answer<'s> {
    search: &'s Search<'s>,
    groups: Vec<Vec<Near>>,
    /// The groups by their value, as text that is the same for the same value.
    by_value: HashMap<String, usize>,
    is_over: bool,
}

impl Answer<'_> {
    /// Takes the next nearest row.
    fn offer(&mut self, near: Near, group: Option<&Value>) {
        match self.search.range(near.0) {
            Range::Before => return,
            Range::Beyond => {
                self.is_over = true;
                return;
            }
            Range::Inside => {}
        }
        let end = self.search.end();
        let Some(value) = group else {
            if self.groups.len() < end {
                self.groups.push(vec![near]);
            }
            return;
        };
        let value = group_key(std::slice::from_ref(value));
        let at = match self.by_value.get(&value) {
            Some(&at) => at,
            None if self.groups.len() == end => return,
            None => {
                self.by_value.insert(value, self.groups.len());
                self.groups.push(Vec::new());
                self.groups.len() - 1
            }
        };
        if self.groups[at].len() < self.search.request.group_size.max(1) {
            self.groups[at].push(near);
        }
    }

    fn is_full(&self) -> bool {
        let request = self.search.request;
        let filled = |group: &Vec<Near>| !request.strict_group_size || group.len() >= request.group_size.max(1);
        self.is_over || (self.groups.len() >= self.search.end() && self.groups.iter().all(filled))
    }

    fn into_found(self) -> Vec<Near> {
        let Self { search, groups, .. } = self;
        groups.into_iter().skip(search.request.offset).take(search.request.limit).flatten().collect()
    }
}

/// The order of hits.
fn closest(a: &(f32, &Key), b: &(f32, &Key)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then_with(|| a.1.cmp(b.1))
}

/// Takes what was found in a segment that does not change among the `k` best.
fn add(best: &mut Vec<Near>, segment: &Arc<Segment>, neighbors: &[Neighbor], k: usize) {
    best.extend(neighbors.iter().map(|near| {
        let key = segment.key(near.row as usize);
        let place = (segment.id(), near.row);
        (near.distance, Found { key, place, at: At::Stored(segment.clone(), near.row) })
    }));
    sort_by(best, |(a, left), (b, right)| closest(&(*a, &left.key), &(*b, &right.key)));
    best.truncate(k);
}

impl Collection {
    pub(in crate::db) async fn read_nearest(&self, request: &SearchRequest, view: &View) -> Result<SearchResponse> {
        if !request.rankers.is_empty() {
            return self.read_reranked(request, view).await;
        }
        let search = self.checked_search(request, view).await?;
        let mut response = SearchResponse::default();
        let lists = self.find_nearest(&search, view, None, &mut response).await?;
        let counts: Vec<usize> = lists.iter().map(Vec::len).collect();
        let hits = self.read_hits(&search, lists.into_iter().flatten().collect()).await?;
        let mut hits = hits.into_iter();
        if request.is_batch() {
            response.results = counts.into_iter().map(|count| hits.by_ref().take(count).collect()).collect();
        } else {
            response.hits = hits.collect();
        }
        Ok(response)
    }

    /// What was found, with its output fields.
    pub(super) async fn read_hits(&self, search: &Search<'_>, found: Vec<Near>) -> Result<Vec<Hit>> {
        let (distances, found): (Vec<f32>, Vec<Found>) = found.into_iter().unzip();
        let rows = self.read_rows(found, search.fields.as_deref()).await?;
        let hit = |(distance, (key, mut row))| {
            let highlights = search.shown.highlights(&mut row);
            Hit { key, score: search.metric.score(distance), row, highlights }
        };
        Ok(distances.into_iter().zip(rows).map(hit).collect())
    }

    /// What a request asks for.
    ///
    /// # Errors
    /// `InvalidArgument` for what is wrong with it, `NotFound` for a row whose vector is to be searched and that is not there.
    pub(super) async fn checked_search<'a>(&'a self, request: &'a SearchRequest, view: &View) -> Result<Search<'a>> {
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        let mut fields = self.output_fields(request.output_fields.as_deref())?;
        let is_text = matches!(request.vectors.first().unwrap_or(&request.vector), Value::String(_));
        let (field, metric) = if is_text {
            // Scores are like products: larger is better.
            (self.text_field(request.field.as_deref())?, Metric::Ip)
        } else {
            let field = self.vector_field(request.field.as_deref())?;
            (field, self.spec().indexes[&field.name].metric)
        };
        check(request, metric)?;
        if let Some(group) = &request.group_by {
            self.check_column(group, "groupBy")?;
            if let Some(fields) = fields.as_mut().filter(|fields| !fields.contains(group)) {
                fields.push(group.clone());
            }
        }
        let one = (request.vectors.is_empty() && request.ids.is_empty()).then_some(&request.vector);
        let mut queries = Vec::new();
        for vector in one.into_iter().chain(&request.vectors) {
            let vector = query_of(field, vector)?;
            queries.push(Query { words: self.words(field, &vector, request)?, vector, key: None });
        }
        if !request.ids.is_empty() {
            let output = [self.spec().schema.primary_key().name.clone(), field.name.clone()];
            let rows = self.read_keys(&request.ids, Some(&output), &[], view).await?;
            let mut rows = rows.into_iter().peekable();
            for key in &request.ids {
                let is_it = |row: &Row| match (row.get(&output[0]), key) {
                    (Some(Value::Int(there)), Key::Int(key)) => there == key,
                    (Some(Value::String(there)), Key::String(key)) => **there == **key,
                    _ => false,
                };
                let vector = match rows.next_if(is_it) {
                    Some(mut row) => row.remove(&output[1]).unwrap_or_default(),
                    None => {
                        return Err(Error::not_found(format!("no row with key {key}, whose vector is to be searched")));
                    }
                };
                if vector == Value::Null {
                    return Err(Error::invalid(format!(
                        "the row with key {key} has no vector in field {:?}",
                        field.name
                    )));
                }
                let vector = query_of(field, &vector)?;
                queries.push(Query { words: self.words(field, &vector, request)?, vector, key: Some(key.clone()) });
            }
        }
        let ef_usual = self.spec().options.ef.map(|ef| ef as usize);
        let shown = self.shown(request, field, &mut fields)?;
        Ok(Search { request, filter, fields, shown, field, metric, queries, ef_usual })
    }

    /// The nearest rows of each query, best first. `begun` is what [`Self::begin_round`] gave for its [`first`](Search::first) round, of a
    /// search that has but one.
    pub(super) async fn find_nearest(
        &self,
        search: &Search<'_>,
        view: &View,
        begun: Option<Begun>,
        response: &mut SearchResponse,
    ) -> Result<Vec<Vec<Near>>> {
        let rounds = search.has_rounds();
        // All rounds see the same.
        let held: Option<Snapshot> = (rounds && view.is_latest()).then(|| self.snapshot()).transpose()?;
        let view = held.as_ref().map_or(*view, |held| View { lsn: held.lsn(), ..*view });
        let (k, nearest) = (search.first_k(), search.first());
        let mut first = rounds.then(Remaining::default);
        let found = match begun {
            Some(begun) => self.end_round(search, &nearest, begun, None, response).await?,
            None => self.round(search, &nearest, &view, first.as_mut(), response).await?,
        };
        let mut lists = Vec::with_capacity(found.len());
        for (at, mut found) in found.into_iter().enumerate() {
            let query = &search.queries[at];
            let mut answer = Answer { search, groups: Vec::new(), by_value: HashMap::new(), is_over: false };
            let mut remaining = first.clone();
            let (mut k, mut exact) = (k, search.request.exact);
            loop {
                let count = found.len();
                if let Some(remaining) = &mut remaining {
                    found.iter().for_each(|(_, found)| remaining.give(found));
                }
                self.offer_all(&mut answer, query, found).await?;
                let Some(remaining) = remaining.as_mut().filter(|_| !answer.is_full()) else { break };
                if count < k && exact {
                    break;
                }
                // Where an index has come to an end, what is left is looked at one by one.
                exact |= count < k;
                k = (k * 4).min(ROUND_MAX);
                let nearest = [search.nearest(at, k, exact)];
                let mut round = self.round(search, &nearest, &view, Some(remaining), response).await?;
                found = round.pop().unwrap_or_default();
            }
            lists.push(answer.into_found());
        }
        Ok(lists)
    }

    async fn offer_all(&self, answer: &mut Answer<'_>, query: &Query, mut found: Vec<Near>) -> Result<()> {
        if let Some(key) = &query.key {
            found.retain(|(_, found)| found.key != *key);
        }
        let Some(field) = &answer.search.request.group_by else {
            found.into_iter().for_each(|near| answer.offer(near, None));
            return Ok(());
        };
        let (distances, found): (Vec<f32>, Vec<Found>) = found.into_iter().unzip();
        let values = self.read_values(&found, field).await?;
        for ((distance, found), value) in distances.into_iter().zip(found).zip(&values) {
            answer.offer((distance, found), Some(value));
        }
        Ok(())
    }

    /// The nearest rows of each query among those that the filter admits, and that remain. The filter is asked once for all queries.
    pub(super) async fn round(
        &self,
        search: &Search<'_>,
        nearest: &[Nearest<'_>],
        view: &View,
        mut remaining: Option<&mut Remaining>,
        response: &mut SearchResponse,
    ) -> Result<Vec<Vec<Near>>> {
        let masks = Masked::Seen(view);
        let begun = self.begin_round(&self.state(), search, nearest, masks, remaining.as_deref_mut(), response);
        self.end_round(search, nearest, begun, remaining, response).await
    }

    /// The rows that a view sees and a filter admits of each segment that has any, but for those that are `known`, and how long that took.
    pub(super) fn masks(
        &self,
        state: &CollectionState,
        filter: Option<&Filter>,
        view: &View,
        known: &[Option<RowMask>],
        timed: bool,
    ) -> Vec<Mask> {
        let slots: Vec<&Slot> = state.slots().filter(|slot| !slot.segment.is_empty()).collect();
        let rows: usize = slots.iter().map(|slot| slot.segment.len()).sum();
        // Without a filter a mask is at hand.
        let threads = if filter.is_none() || rows < COMPARISONS_MIN { 1 } else { self.threads() };
        platform::map(threads, slots.len(), |at| {
            let clock = Clock::new(timed);
            let mask = match known.get(at) {
                Some(Some(mask)) => Ok(mask.clone()),
                _ => self.admitted(slots[at], filter, view),
            };
            (mask, clock.ms())
        })
    }

    /// What of a round waits for nothing.
    pub(super) fn begin_round(
        &self,
        state: &CollectionState,
        search: &Search<'_>,
        nearest: &[Nearest<'_>],
        masks: Masked<'_>,
        mut remaining: Option<&mut Remaining>,
        response: &mut SearchResponse,
    ) -> Begun {
        let (Some(k), queries) = (nearest.first().map(|nearest| nearest.k), nearest.len()) else {
            return Begun::default();
        };
        let slots: Vec<&Slot> = state.slots().filter(|slot| !slot.segment.is_empty()).collect();
        let known: Vec<Option<RowMask>> = slots.iter().map(|slot| remaining.as_ref()?.of(&slot.segment)).collect();
        let timed = response.profile.is_some();
        let masks = match masks {
            Masked::Known(masks) => masks.to_vec(),
            Masked::Seen(view) => self.masks(state, search.filter.as_ref(), view, &known, timed),
        };
        let (mut here, mut later, mut comparisons) = (Vec::new(), Vec::new(), 0.0);
        let (mut ready, mut offers, pool) = (Vec::new(), Vec::new(), &self.inner.shared.pool);
        for ((slot, (mask, filter_ms)), known) in slots.iter().zip(masks).zip(&known) {
            let mask = match mask {
                Ok(mask) => mask,
                Err(segment) => {
                    later.push(segment);
                    continue;
                }
            };
            let mask = match remaining.as_mut().filter(|_| known.is_none()) {
                Some(remaining) => remaining.keep(&slot.segment, mask),
                None => mask,
            };
            response.profiled(slot.segment.id(), |profile| {
                profile.admitted = mask.count();
                profile.filter_ms += filter_ms;
            });
            if mask.iter().next().is_none() {
                continue;
            }
            match pool.place(self.id(), &slot.segment, nearest[0].field) {
                Some(place) => offers.push(Offer { slot, mask, place }),
                None => ready.push((*slot, mask)),
            }
        }
        let asked = pool.ask(&mut offers, nearest);
        ready.extend(offers.into_iter().map(|offer| (offer.slot, offer.mask)));
        for (slot, mask) in ready {
            if !nearest[0].must_read(&slot.segment) {
                comparisons += nearest[0].planned(&slot.segment, mask.count()).1;
                here.push((slot, mask));
            } else {
                let (segment, visible) = (slot.segment.clone(), RowMask::none(0));
                later.push(Later { segment, visible, admitted: Some(mask) });
            }
        }
        let is_long = comparisons * queries as f64 >= COMPARISONS_MIN as f64;
        let threads = if is_long { self.threads() } else { 1 };
        let found = platform::map(threads, here.len() * queries, |unit| {
            let ((slot, mask), mut counts) = (&here[unit / queries], SearchResponse::default());
            let clock = Clock::new(timed);
            (nearest[unit % queries].search(&slot.segment, mask, &mut counts), counts, clock.ms())
        });
        let mut best: Vec<Vec<(f32, Key, &Slot, u32)>> = vec![Vec::new(); queries];
        for (unit, (neighbors, counts, search_ms)) in found.into_iter().enumerate() {
            let slot = here[unit / queries].0;
            response.count(&counts);
            response.profiled(slot.segment.id(), |profile| {
                profile.search_ms += search_ms;
                profile.by_index |= counts.segments_by_index > 0;
            });
            best[unit % queries].extend(
                neighbors.into_iter().map(|near| (near.distance, slot.segment.key(near.row as usize), slot, near.row)),
            );
        }
        let own = |(distance, key, slot, row): (f32, Key, &Slot, u32)| {
            (distance, self.found(state, key, slot, row, search.fields.as_deref()))
        };
        let cut = |mut best: Vec<(f32, Key, &Slot, u32)>| {
            sort_by(&mut best, |a, b| closest(&(a.0, &a.1), &(b.0, &b.1)));
            best.truncate(k);
            best.into_iter().map(own).collect::<Vec<Near>>()
        };
        (best.into_iter().map(cut).collect(), later, asked)
    }

    /// The rest of it.
    async fn end_round(
        &self,
        search: &Search<'_>,
        nearest: &[Nearest<'_>],
        (mut best, mut later, asked): Begun,
        mut remaining: Option<&mut Remaining>,
        response: &mut SearchResponse,
    ) -> Result<Vec<Vec<Near>>> {
        let Some(k) = nearest.first().map(|nearest| nearest.k) else { return Ok(Vec::new()) };
        let filter = search.filter.as_ref();
        // Candidates of several segments, and how many one of them has.
        let mut estimated: Vec<(Vec<Estimated>, usize)> = vec![(Vec::new(), 0); nearest.len()];
        let mut asked = Some(asked);
        let mut next = 0;
        loop {
            let at = next;
            next += 1;
            if at == later.len() {
                // Those whom others search come last: they had the time until now.
                let Some(asked) = asked.take() else { break };
                let answered = self.inner.shared.pool.answers(asked, nearest.len(), response).await;
                for (segment, found) in &answered.found {
                    found.iter().zip(&mut best).for_each(|(found, best)| add(best, segment, found, k));
                }
                later.extend(answered.failed);
                next = at;
                continue;
            }
            let later = &mut later[at];
            let (clock, by_index) = (Clock::new(response.profile.is_some()), response.segments_by_index);
            let known = remaining.as_ref().and_then(|remaining| remaining.of(&later.segment));
            let admitted = match known {
                Some(admitted) => admitted,
                None => {
                    let admitted = self.admitted_of(later, filter).await?;
                    match &mut remaining {
                        Some(remaining) => remaining.keep(&later.segment, admitted),
                        None => admitted,
                    }
                }
            };
            let (count, filter_ms) = (admitted.count(), clock.ms());
            response.profiled(later.segment.id(), |profile| {
                profile.admitted = count;
                profile.filter_ms += filter_ms;
            });
            if count == 0 {
                continue;
            }
            let segment = &later.segment;
            for ((nearest, best), estimated) in nearest.iter().zip(&mut best).zip(&mut estimated) {
                if !nearest.must_read(segment) {
                    add(best, segment, &nearest.search(segment, &admitted, response), k);
                    continue;
                }
                let candidates = nearest.candidates(segment, &admitted);
                let rest = self.scan_later(segment, &admitted, candidates.as_ref(), nearest, response).await?;
                add(best, segment, &rest, k);
                let Some(mut candidates) = candidates else { continue };
                let Some(estimates) = candidates.estimates.take() else {
                    candidates.rows.sort_unstable();
                    add(best, segment, &self.compare_later(segment, &candidates.rows, nearest).await?, k);
                    continue;
                };
                let (all, count) = estimated;
                *count = candidates.rows.len().max(*count);
                let of_row = |(row, (distance, least))| Estimated { distance, least, at, row };
                all.extend(candidates.rows.into_iter().zip(estimates).map(of_row));
            }
            let is_by_index = response.segments_by_index > by_index;
            response.profiled(segment.id(), |profile| {
                profile.search_ms += clock.ms() - filter_ms;
                profile.by_index |= is_by_index;
            });
        }
        for ((nearest, best), (mut all, count)) in nearest.iter().zip(&mut best).zip(estimated) {
            // The closest first, as many as of one segment; then those of the others that may be closer than what was found.
            sort_by(&mut all, |a, b| a.distance.total_cmp(&b.distance).then((a.at, a.row).cmp(&(b.at, b.row))));
            let mut rest = all.split_off(count.min(all.len()));
            for is_rest in [false, true] {
                let mut part = if is_rest { std::mem::take(&mut rest) } else { std::mem::take(&mut all) };
                if is_rest && best.len() == k {
                    let bound = best.last().map_or(f32::INFINITY, |last| last.0);
                    part.retain(|candidate| candidate.least <= bound);
                }
                sort_by(&mut part, |a, b| (a.at, a.row).cmp(&(b.at, b.row)));
                for of_one in part.chunk_by(|a, b| a.at == b.at) {
                    let clock = Clock::new(response.profile.is_some());
                    let segment = &later[of_one[0].at].segment;
                    let rows: Vec<u32> = of_one.iter().map(|candidate| candidate.row).collect();
                    add(best, segment, &self.compare_later(segment, &rows, nearest).await?, k);
                    response.profiled(segment.id(), |profile| profile.search_ms += clock.ms());
                }
            }
        }
        Ok(best)
    }

    pub(in crate::db) fn vector_field(&self, wanted: Option<&str>) -> Result<&Field> {
        let fields: Vec<&Field> = self.spec().schema.vectors().map(|(field, _)| field).collect();
        match (wanted, fields.as_slice()) {
            (None, [only]) => Ok(only),
            (None, _) => {
                Err(Error::invalid(format!("{} vector fields; the request must name the one to search", fields.len())))
            }
            (Some(wanted), _) => fields.iter().find(|field| field.name == wanted).copied().ok_or_else(|| {
                let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
                Error::invalid(format!("no vector field {wanted:?}; there are: {}", names.join(", ")))
            }),
        }
    }
}

/// A row whose vector is in storage.
#[derive(Debug, Clone, Copy)]
struct Estimated {
    /// How far it is, about.
    distance: f32,
    /// How near it may be.
    least: f32,
    /// In which segment, and where.
    at: usize,
    row: u32,
}

/// Refuses what no search can be.
fn check(request: &SearchRequest, metric: Metric) -> Result<()> {
    if request.limit == 0 || request.limit.saturating_add(request.offset) > LIMIT_MAX {
        return Err(Error::invalid(format!(
            "limit {} and offset {}; expected a limit of at least 1, and at most {LIMIT_MAX} together",
            request.limit, request.offset
        )));
    }
    if request.ef == Some(0) {
        return Err(Error::invalid("ef 0; expected at least 1"));
    }
    request.params.check()?;
    let given = [request.vector != Value::Null, !request.vectors.is_empty(), !request.ids.is_empty()];
    if given.iter().filter(|given| **given).count() > 1 {
        return Err(Error::invalid("a search takes one of vector, vectors and ids"));
    }
    let queries = request.vectors.len() + request.ids.len();
    if queries > QUERIES_MAX {
        return Err(Error::invalid(format!("{queries} queries in one request; expected at most {QUERIES_MAX}")));
    }
    if let (Some(radius), Some(near)) = (request.radius, request.range_filter)
        && !is_better(metric, near, radius)
    {
        return Err(Error::invalid(format!(
            "rangeFilter {near} and radius {radius}; by {} the first must be the nearer bound",
            metric.name()
        )));
    }
    if [request.radius, request.range_filter].iter().flatten().any(|bound| bound.is_nan()) {
        return Err(Error::invalid("radius and rangeFilter must be numbers"));
    }
    if request.group_by.is_none() && (request.group_size > 1 || request.strict_group_size) {
        return Err(Error::invalid("groupSize and strictGroupSize need groupBy"));
    }
    if request.group_size.saturating_mul(request.limit + request.offset) > LIMIT_MAX {
        return Err(Error::invalid(format!(
            "groupSize {} for {} groups; expected at most {LIMIT_MAX} hits",
            request.group_size,
            request.limit + request.offset
        )));
    }
    Ok(())
}

/// The query in the form of the field's values, checked as they are; numbers for every kind of dense vector but bits.
fn query_of(field: &Field, vector: &Value) -> Result<Value> {
    if field.analyzer.is_some() {
        return match vector {
            Value::String(_) => Ok(vector.clone()),
            _ => Err(Error::invalid(format!("queries for field {:?} are texts, all of them", field.name))),
        };
    }
    let data_type = match (field.data_type.dim(), field.data_type, vector) {
        (_, DataType::BinaryVector { .. } | DataType::SparseFloatVector, _) | (_, _, Value::Bytes(_)) => {
            field.data_type
        }
        (dim, ..) => DataType::FloatVector { dim: dim.unwrap_or(0) },
    };
    column::Column::normalize(data_type, vector)
        .map_err(|what| Error::invalid(format!("query vector for field {:?}: {what}", field.name)))
}
