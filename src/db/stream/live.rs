use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use serde_json::Value as Json;

use super::{ChangeStream, ChangesRequest};
use crate::base::{Error, ErrorKind, Lsn, Result, sort_by};
use crate::db::{Collection, QueryRequest, SearchRequest};
use crate::distance::{Metric, kernels};
use crate::engine::View;
use crate::model::{DataType, Key, Row, Value};
use crate::query::Parameters;

/// The output field that tells a row's version.
const VERSION_FIELD: &str = "$version";
/// Of an answer at least so many rows are kept besides those that are told, so that one that leaves is seldom a reason to search anew.
const SPARE_MIN: usize = 16;
/// The most rows of one search.
const KEPT_MAX: usize = 16_384;
/// By how much two ways to sum up a product may differ, of the squares of both lengths: many times what they do.
const SLACK: f32 = 1e-4;

/// What is kept an answer to.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveRequest {
    /// The nearest rows, or those inside of a radius: one query, exact, without groups, rankers and offset.
    Nearest(Box<SearchRequest>),
    /// The rows that a filter selects, by ascending key.
    Rows(Box<QueryRequest>),
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveHit {
    /// Its key.
    pub key: Key,
    /// Its score, of the nearest rows; 0 otherwise.
    pub score: f32,
    /// Its output fields.
    pub row: Row,
    /// As `$version` tells it.
    pub version: String,
}

/// What happened to a row of an answer. Rows that were not written keep their order, and are not told when others come between them.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// It is in the answer now, at that place of the new one.
    Entered(usize, LiveHit),
    /// It is no more; where it was in the old one.
    Left(usize, Key),
    /// It was written, and went from a place of the old answer to one of the new.
    Moved(usize, usize, LiveHit),
    /// It was written, and stays where it was among the others: its place in the new answer.
    Changed(usize, LiveHit),
}

/// What happened to an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveUpdate {
    /// Of which query.
    pub id: u64,
    /// The position in the log of which it is the answer now.
    pub lsn: Lsn,
    /// Those that left, by ascending place of the old answer, then the others by ascending place of the new one.
    pub differences: Vec<Difference>,
}

/// Queries of a collection whose answers are kept current, at little cost for those that a write does not touch.
///
/// Each answer is what an exact search would find at the same moment; of rows that are equally far, either is at the end of it. For every
/// query more rows are kept than are told, and what was written is compared with the worst of them, for all queries of a vector field in
/// one pass over their vectors; a query that it touches is asked about the written rows alone. Only when more rows have left than are kept
/// in reserve is all of the collection searched. Where rows expire, every query is searched anew each time.
pub struct LiveQueries {
    collection: Collection,
    stream: ChangeStream,
    queries: BTreeMap<u64, Live>,
    /// Which queries keep a row.
    keepers: HashMap<Key, Vec<u64>>,
    /// By vector field.
    fields: BTreeMap<String, Group>,
    /// Those whose answers must be found anew.
    stale: BTreeSet<u64>,
    #[cfg(feature = "streams")]
    pub(super) hybrids: super::hybrid::Hybrids,
    next: u64,
}

/// The vectors of queries, side by side.
struct Group {
    metric: Metric,
    dim: usize,
    ids: Vec<u64>,
    data: Vec<f32>,
}

struct Live {
    request: LiveRequest,
    /// Of the field that it searches, where smaller scores are closer.
    sign: f32,
    /// The field of the group that it is in.
    group: Option<String>,
    limit: usize,
    /// The best rows, best first: all that are no worse than `bound`.
    kept: Vec<Entry>,
    /// The worst that would be known; `None` when all rows are.
    bound: Option<(f32, Key)>,
}

#[derive(Clone)]
pub(super) struct Entry {
    /// Smaller is better.
    rank: f32,
    pub(super) hit: LiveHit,
}

impl Entry {
    fn is_within(&self, bound: Option<&(f32, Key)>) -> bool {
        bound.is_none_or(|(rank, key)| self.rank.total_cmp(rank).then_with(|| self.hit.key.cmp(key)).is_le())
    }
}

impl Live {
    fn kept_max(&self) -> usize {
        self.limit.saturating_add(self.limit.max(SPARE_MIN)).min(match self.request {
            LiveRequest::Nearest(_) => KEPT_MAX.max(self.limit),
            LiveRequest::Rows(_) => usize::MAX,
        })
    }

    /// The worst rank that counts.
    fn worst(&self) -> f32 {
        let radius = match &self.request {
            LiveRequest::Nearest(request) => request.radius.map(|radius| radius * self.sign),
            LiveRequest::Rows(_) => None,
        };
        let bound = self.bound.as_ref().map_or(f32::INFINITY, |(rank, _)| *rank);
        radius.map_or(bound, |radius| radius.min(bound))
    }

    fn told(&self) -> &[Entry] {
        &self.kept[..self.kept.len().min(self.limit)]
    }

    /// Takes what was found as the best rows, more of which there may be.
    fn take(&mut self, found: Vec<Entry>) {
        let kept_max = self.kept_max();
        self.kept = found;
        self.kept.truncate(kept_max);
        let last = (self.kept.len() == kept_max).then(|| self.kept.last()).flatten();
        self.bound = last.map(|last| (last.rank, last.hit.key.clone()));
    }
}

impl Collection {
    /// Begins to keep answers current: none yet.
    pub async fn live(&self) -> Result<LiveQueries> {
        Ok(LiveQueries {
            collection: self.clone(),
            stream: self.changes(keys_only()).await?,
            queries: BTreeMap::new(),
            keepers: HashMap::new(),
            fields: BTreeMap::new(),
            stale: BTreeSet::new(),
            #[cfg(feature = "streams")]
            hybrids: Default::default(),
            next: 1,
        })
    }
}

fn keys_only() -> ChangesRequest {
    ChangesRequest { after: false, ..ChangesRequest::default() }
}

impl LiveQueries {
    /// Adds a query, and tells its number and its answer at the moment that the others are at.
    ///
    /// # Errors
    /// `InvalidArgument` for what is wrong with the request, `Unsupported` for one that no row alone decides: of text, with groups, rankers,
    /// aggregates or another order.
    pub async fn add(&mut self, request: LiveRequest) -> Result<(u64, Vec<LiveHit>)> {
        let mut live = self.checked(request)?;
        let found = self.ask(&live, None).await?;
        live.take(found);
        let id = self.number();
        if let (Some(name), LiveRequest::Nearest(request)) = (&live.group, &live.request)
            && let Value::Vector(query) = &request.vector
        {
            let metric = self.collection.spec().indexes[name].metric;
            let group = self.fields.entry(name.clone()).or_insert_with(|| Group {
                metric,
                dim: query.len(),
                ids: Vec::new(),
                data: Vec::new(),
            });
            group.ids.push(id);
            group.data.extend_from_slice(query);
        }
        let answer = live.told().iter().map(|entry| entry.hit.clone()).collect();
        self.keep(id, &live.kept);
        self.queries.insert(id, live);
        Ok((id, answer))
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    #[cfg(feature = "streams")]
    pub(super) fn collection(&self) -> &Collection {
        &self.collection
    }

    /// Ends a query; false when there is none of that number.
    pub fn remove(&mut self, id: u64) -> bool {
        #[cfg(feature = "streams")]
        if self.hybrids.has_part(id) {
            return false;
        } else if let Some(parts) = self.hybrids.remove(id) {
            return parts.into_iter().all(|part| self.remove(part));
        }
        let Some(live) = self.queries.remove(&id) else { return false };
        self.stale.remove(&id);
        self.let_go(id, &live.kept);
        if let Some(group) = live.group.as_ref().and_then(|name| self.fields.get_mut(name))
            && let Some(at) = group.ids.iter().position(|there| *there == id)
        {
            group.ids.remove(at);
            group.data.drain(at * group.dim..(at + 1) * group.dim);
        }
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        #[cfg(feature = "streams")]
        let (hybrids, parts) = self.hybrids.count();
        #[cfg(not(feature = "streams"))]
        let (hybrids, parts) = (0, 0);
        self.queries.len() - parts + hybrids
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The position in the log that all answers are at.
    pub fn lsn(&self) -> Lsn {
        self.stream.position()
    }

    /// The answer to a query.
    pub fn answer(&self, id: u64) -> Option<Vec<LiveHit>> {
        #[cfg(feature = "streams")]
        if let Some(answer) = self.hybrids.answer(id) {
            return Some(answer);
        }
        Some(self.told(id)?.iter().map(|entry| entry.hit.clone()).collect())
    }

    /// The entries of its answer, of a query that is kept itself.
    pub(super) fn told(&self, id: u64) -> Option<&[Entry]> {
        Some(self.queries.get(&id)?.told())
    }

    /// Waits until something was written since; may be given up.
    ///
    /// # Errors
    /// `Closed` when the store was closed or the collection dropped.
    pub async fn waits(&self) -> Result<()> {
        self.stream.waits().await
    }

    /// Brings all answers to the end of the log, and tells what happened to those that are others now.
    ///
    /// # Errors
    /// What the storage says. Answers that were not brought up then are with the next call.
    pub async fn update(&mut self) -> Result<Vec<LiveUpdate>> {
        let mut changed = BTreeSet::new();
        loop {
            match self.stream.ready().await {
                Ok(batch) => {
                    changed.extend(batch.changes.into_iter().map(|change| change.key));
                    if batch.is_caught_up {
                        break;
                    }
                }
                // Nobody asked for long. What is there now is all that counts.
                Err(error) if error.kind() == ErrorKind::Gone => {
                    self.stream = self.collection.changes(keys_only()).await?;
                    self.stale.extend(self.queries.keys());
                }
                Err(error) => return Err(error),
            }
        }
        if self.collection.spec().schema.ttl_seconds().is_some() {
            self.stale.extend(self.queries.keys());
        }
        let changed: Vec<Key> = changed.into_iter().collect();
        let touched = match self.touched(&changed).await {
            Ok(touched) => touched,
            Err(error) => {
                self.stale.extend(self.queries.keys());
                return Err(error);
            }
        };
        let anew = std::mem::take(&mut self.stale);
        // Until each is done.
        self.stale = touched.union(&anew).copied().collect();
        let mut updates = Vec::new();
        for id in self.stale.clone() {
            let live = &self.queries[&id];
            let next =
                if anew.contains(&id) { self.searched(live).await? } else { self.merged(live, &changed).await? };
            let (before, after) = (live.told(), next.told());
            let rests = |from: usize, to: usize| before[from].hit.version == after[to].hit.version;
            let differences = differences(before, after, rests);
            let before = self.queries.insert(id, next).expect("it was there");
            self.let_go(id, &before.kept);
            let kept = std::mem::take(&mut self.queries.get_mut(&id).expect("it is there").kept);
            self.keep(id, &kept);
            self.queries.get_mut(&id).expect("it is there").kept = kept;
            self.stale.remove(&id);
            #[cfg(feature = "streams")]
            if !differences.is_empty() && self.hybrids.touch(id) {
                continue;
            }
            if !differences.is_empty() {
                updates.push(LiveUpdate { id, lsn: self.lsn(), differences });
            }
        }
        #[cfg(feature = "streams")]
        updates.extend(self.update_hybrids().await?);
        Ok(updates)
    }

    fn checked(&self, request: LiveRequest) -> Result<Live> {
        let unsupported = |what: &str| Err(Error::new(ErrorKind::Unsupported, format!("a live query takes no {what}")));
        let (request, sign, group, limit) = match request {
            LiveRequest::Nearest(request) => {
                if request.group_by.is_some() || !request.rankers.is_empty() || request.offset > 0 {
                    return unsupported("groups, rankers and offset");
                }
                if request.is_batch() || matches!(request.vector, Value::String(_)) {
                    return unsupported("text, and no more than one vector");
                }
                let field = self.collection.vector_field(request.field.as_deref())?;
                let metric = self.collection.spec().indexes[&field.name].metric;
                let dense = matches!((field.data_type, &request.vector), (DataType::FloatVector { dim }, Value::Vector(query)) if query.len() == dim as usize);
                let group = dense.then(|| field.name.clone());
                let sign = if metric.score(1.0) < metric.score(0.0) { -1.0 } else { 1.0 };
                let limit = request.limit;
                (LiveRequest::Nearest(request), sign, group, limit)
            }
            LiveRequest::Rows(request) => {
                if !request.order_by.is_empty() || !request.group_by.is_empty() || request.offset > 0 {
                    return unsupported("orderBy, groupBy and offset");
                }
                let limit = request.limit.unwrap_or(usize::MAX);
                (LiveRequest::Rows(request), 1.0, None, limit)
            }
        };
        Ok(Live { request, sign, group, limit, kept: Vec::new(), bound: None })
    }

    /// The queries whose answers may be others: they keep a row that was written, or it may be near enough now.
    pub(super) async fn touched(&self, changed: &[Key]) -> Result<BTreeSet<u64>> {
        let mut touched = BTreeSet::new();
        if changed.is_empty() {
            return Ok(touched);
        }
        touched.extend(changed.iter().filter_map(|key| self.keepers.get(key)).flatten());
        touched.extend(self.queries.iter().filter(|(_, live)| live.group.is_none()).map(|(id, _)| id));
        for (name, group) in &self.fields {
            let fields = [name.clone()];
            let rows = self.collection.read_keys(changed, Some(&fields), &[], &self.view()).await?;
            let square = |vector: &[f32]| vector.iter().map(|number| number * number).sum::<f32>();
            let lengths: Vec<f32> = group.data.chunks_exact(group.dim.max(1)).map(square).collect();
            let mut products = vec![0.0; group.ids.len()];
            for row in &rows {
                let Some(Value::Vector(vector)) = row.get(name) else { continue };
                kernels().dot_rows(vector, &group.data, &mut products);
                let length = square(vector);
                for ((id, product), query) in group.ids.iter().zip(&products).zip(&lengths) {
                    let (rank, slack) = match group.metric {
                        Metric::L2 => (query + length - 2.0 * product, SLACK * (query + length)),
                        Metric::Ip => (-product, SLACK * (query + length)),
                        _ if query * length > 0.0 => (-product / (query * length).sqrt(), SLACK),
                        _ => (0.0, SLACK),
                    };
                    // What is no number is looked at.
                    let is_too_far = rank - slack > self.queries[id].worst();
                    if !is_too_far {
                        touched.insert(*id);
                    }
                }
            }
        }
        Ok(touched)
    }

    /// The moment that answers are brought to.
    pub(super) fn view(&self) -> View {
        self.collection.view(View { lsn: self.lsn(), ..View::NOW })
    }

    /// The query with its answer found anew.
    async fn searched(&self, live: &Live) -> Result<Live> {
        let found = self.ask(live, None).await?;
        let mut next = live.again();
        next.take(found);
        Ok(next)
    }

    /// The query with its answer after these rows were written.
    async fn merged(&self, live: &Live, changed: &[Key]) -> Result<Live> {
        let mut next = live.again();
        next.bound = live.bound.clone();
        let is_written = |key: &Key| changed.binary_search(key).is_ok();
        next.kept.extend(live.kept.iter().filter(|entry| !is_written(&entry.hit.key)).cloned());
        let found = self.ask(live, Some(changed)).await?;
        next.kept.extend(found.into_iter().filter(|entry| entry.is_within(live.bound.as_ref())));
        sort_by(&mut next.kept, |a, b| a.rank.total_cmp(&b.rank).then_with(|| a.hit.key.cmp(&b.hit.key)));
        if next.kept.len() > next.kept_max() {
            let kept = std::mem::take(&mut next.kept);
            next.take(kept);
        } else if next.kept.len() < next.limit && next.bound.is_some() {
            return self.searched(live).await;
        }
        Ok(next)
    }

    /// The best rows, best first; of these keys alone, when some are given.
    async fn ask(&self, live: &Live, keys: Option<&[Key]>) -> Result<Vec<Entry>> {
        let schema = &self.collection.spec().schema;
        let key_name = &schema.primary_key().name;
        let among = |filter: &Option<String>, parameters: &Parameters| {
            let Some(keys) = keys else { return (filter.clone(), parameters.clone()) };
            let mut parameters = parameters.clone();
            let mut name = "keys".to_owned();
            while parameters.contains_key(&name) {
                name.push('_');
            }
            let filter = filter.as_ref().filter(|filter| !filter.trim().is_empty());
            let filter = filter.map_or_else(String::new, |filter| format!("({filter}) and "));
            let filter = format!("{filter}{key_name} in {{{name}}}");
            let json = |key: &Key| match key {
                Key::Int(key) => Json::from(*key),
                Key::String(key) => Json::from(&**key),
            };
            parameters.insert(name, Value::Json(Json::Array(keys.iter().map(json).collect())));
            (Some(filter), parameters)
        };
        let limit = keys.map_or(live.kept_max(), <[Key]>::len).clamp(1, live.kept_max().max(1));
        let found: Vec<(Key, f32, Row)> = match &live.request {
            LiveRequest::Nearest(request) => {
                let mut request = SearchRequest::clone(request);
                (request.filter, request.filter_params) = among(&request.filter, &request.filter_params);
                request.output_fields = Some(self.collection.versioned(request.output_fields.as_deref())?);
                request.exact = true;
                request.limit = limit;
                let response = self.collection.read_nearest(&request, &self.view()).await?;
                response.hits.into_iter().map(|hit| (hit.key, hit.score, hit.row)).collect()
            }
            LiveRequest::Rows(request) => {
                let mut request = QueryRequest::clone(request);
                (request.filter, request.filter_params) = among(&request.filter, &request.filter_params);
                request.output_fields = Some(self.collection.versioned(request.output_fields.as_deref())?);
                request.limit = Some(limit);
                let rows = self.collection.read_query(&request, &self.view()).await?;
                rows.into_iter().map(|row| Ok((key_of(&row, key_name)?, 0.0, row))).collect::<Result<_>>()?
            }
        };
        let wanted = match &live.request {
            LiveRequest::Nearest(request) => &request.output_fields,
            LiveRequest::Rows(request) => &request.output_fields,
        };
        entries_of(&self.collection, found, wanted.as_deref(), live.sign)
    }

    fn keep(&mut self, id: u64, kept: &[Entry]) {
        for entry in kept {
            self.keepers.entry(entry.hit.key.clone()).or_default().push(id);
        }
    }

    fn let_go(&mut self, id: u64, kept: &[Entry]) {
        for entry in kept {
            if let Some(ids) = self.keepers.get_mut(&entry.hit.key) {
                ids.retain(|there| *there != id);
                if ids.is_empty() {
                    self.keepers.remove(&entry.hit.key);
                }
            }
        }
    }
}

impl Live {
    /// The same query without an answer.
    fn again(&self) -> Self {
        let (request, group) = (self.request.clone(), self.group.clone());
        Self { request, sign: self.sign, group, limit: self.limit, kept: Vec::new(), bound: None }
    }
}

/// Rows that were read with their version, as entries with the fields that are wanted.
pub(super) fn entries_of(
    collection: &Collection,
    found: Vec<(Key, f32, Row)>,
    wanted: Option<&[String]>,
    sign: f32,
) -> Result<Vec<Entry>> {
    let key_name = &collection.spec().schema.primary_key().name;
    let is_told = |name: &str, all: bool| match wanted {
        None => all,
        Some(wanted) => wanted.iter().any(|field| field == name || (all && field == "*")),
    };
    let (key_told, version_told) = (is_told(key_name, true), is_told(VERSION_FIELD, false));
    let entry = |(key, score, mut row): (Key, f32, Row)| {
        let version = match row.get(VERSION_FIELD) {
            Some(Value::String(version)) => version.clone(),
            _ => return Err(Error::internal("a row without its version")),
        };
        if !version_told {
            row.remove(VERSION_FIELD);
        }
        if !key_told {
            row.remove(key_name);
        }
        Ok(Entry { rank: score * sign, hit: LiveHit { key, score, row, version } })
    };
    found.into_iter().map(entry).collect()
}

pub(in crate::db) fn key_of(row: &Row, name: &str) -> Result<Key> {
    match row.get(name) {
        Some(Value::Int(key)) => Ok(Key::Int(*key)),
        Some(Value::String(key)) => Ok(Key::from(key.as_str())),
        _ => Err(Error::internal("a row without its key")),
    }
}

/// What happened between two answers; `rests` tells of the place of a row in both whether it is as it was.
pub(super) fn differences(before: &[Entry], after: &[Entry], rests: impl Fn(usize, usize) -> bool) -> Vec<Difference> {
    let places = |entries: &[Entry]| -> HashMap<Key, usize> {
        entries.iter().enumerate().map(|(at, entry)| (entry.hit.key.clone(), at)).collect()
    };
    let (old, new) = (places(before), places(after));
    let left = before.iter().enumerate().filter(|(_, entry)| !new.contains_key(&entry.hit.key));
    let mut all: Vec<Difference> = left.map(|(at, entry)| Difference::Left(at, entry.hit.key.clone())).collect();
    // Those that rest are in their old order: where another one is among them tells whether it has moved.
    let counted = |is_rest: &mut dyn Iterator<Item = bool>| -> Vec<usize> {
        let mut count = 0;
        let place = |is_rest| {
            count += usize::from(is_rest);
            count
        };
        is_rest.map(place).collect()
    };
    let place = |places: &HashMap<Key, usize>, entry: &Entry| places.get(&entry.hit.key).copied();
    let unwritten = |(to, entry): (usize, &Entry)| place(&old, entry).is_some_and(|from| rests(from, to));
    let still = |(from, entry): (usize, &Entry)| place(&new, entry).is_some_and(|to| rests(from, to));
    let rests_before = counted(&mut before.iter().enumerate().map(still));
    let rests_after = counted(&mut after.iter().enumerate().map(unwritten));
    let written =
        after.iter().enumerate().filter(|(at, entry)| place(&old, entry).is_some() && !unwritten((*at, entry)));
    let written = written.count();
    for (at, entry) in after.iter().enumerate() {
        let hit = || entry.hit.clone();
        match old.get(&entry.hit.key) {
            None => all.push(Difference::Entered(at, hit())),
            Some(_) if unwritten((at, entry)) => {}
            // With another that was written their order among each other counts too.
            Some(&from) if rests_before[from] != rests_after[at] || (written > 1 && from != at) => {
                all.push(Difference::Moved(from, at, hit()));
            }
            Some(_) => all.push(Difference::Changed(at, hit())),
        }
    }
    all
}
