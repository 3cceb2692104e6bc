use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};

use super::LIMIT_MAX;
use super::explain::Clock;
use super::hits::{COMPARISONS_MIN, Masked, Near, Search, is_better};
use crate::base::{Error, Result, SegmentId, sort_by};
use crate::db::{Collection, Hit, HybridRequest, SearchRequest, SearchResponse};
use crate::distance::Metric;
use crate::engine::{CollectionState, View};
use crate::model::{Key, Row, Value};
use crate::platform;
use crate::query::{Curve, Decay, Filter, Parameters, Ranker, Rerank};
use crate::segment::{Blocks, Segment};

/// Searches of one request, as in Milvus.
const SEARCHES_MAX: usize = 1_024;
/// A search whose hits are ranked anew looks at so many for each that it gives, and at so many at least.
const CANDIDATES: usize = 10;
const CANDIDATES_MIN: usize = 100;

/// `score` from 0 to 1, the larger the closer, by Milvus's formulas.
fn normalized(metric: Metric, is_vector: bool, score: f32) -> f64 {
    let score = f64::from(score);
    let turn = score.atan() / std::f64::consts::PI;
    match metric {
        // Of words: never below 0.
        _ if !is_vector => 2.0 * turn,
        Metric::Cosine => (1.0 + score) / 2.0,
        Metric::Jaccard => 1.0 - score,
        _ if is_better(metric, 1.0, 0.0) => 0.5 + turn,
        _ => 1.0 - 2.0 * turn,
    }
}

/// `score`, the larger the closer.
fn ascending(metric: Metric, score: f32) -> f64 {
    if is_better(metric, 1.0, 0.0) { f64::from(score) } else { -f64::from(score) }
}

/// What a row gets for being at a place, from 0, of the search of that number, with that score.
pub(in crate::db) fn share(
    rerank: &Rerank,
    at: usize,
    place: usize,
    metric: Metric,
    is_vector: bool,
    score: f32,
) -> f64 {
    match rerank {
        Rerank::Rrf { k } => 1.0 / (k + place as f64 + 1.0),
        Rerank::Weighted { weights, normalize: true } => weights[at] * normalized(metric, is_vector, score),
        Rerank::Weighted { weights, normalize: false } => weights[at] * ascending(metric, score),
    }
}

/// One of several searches that are ranked together, and what it found.
pub(super) struct Part<'a> {
    pub(super) search: Search<'a>,
    pub(super) found: Vec<Near>,
    pub(super) response: SearchResponse,
    pub(super) ms: f64,
}

/// Searches as parts of several: their hits are read when it is known which count.
pub(super) fn bare(request: &HybridRequest) -> Vec<SearchRequest> {
    let bare =
        |search: &SearchRequest| SearchRequest { output_fields: Some(Vec::new()), highlight: None, ..search.clone() };
    request.searches.iter().map(bare).collect()
}

impl Collection {
    /// The hits of several searches, ranked together.
    pub(in crate::db) async fn read_hybrid(&self, request: &HybridRequest, view: &View) -> Result<SearchResponse> {
        let held = view.is_latest().then(|| self.snapshot()).transpose()?;
        // All searches see the same.
        let view = held.as_ref().map_or(*view, |held| View { lsn: held.lsn(), ..*view });
        let bare = bare(request);
        let parts = self.parts(request, &bare, &view, false).await?;
        let mut response = SearchResponse::default();
        parts.iter().for_each(|part| response.count(&part.response));
        response.hits = self.fuse(request, &parts, &view).await?;
        Ok(response)
    }

    /// Refuses what is wrong with a request.
    pub(in crate::db) fn check_hybrid(request: &HybridRequest) -> Result<()> {
        if request.searches.is_empty() || request.searches.len() > SEARCHES_MAX {
            return Err(Error::invalid(format!(
                "{} searches in one request; expected 1 to {SEARCHES_MAX}",
                request.searches.len()
            )));
        }
        if request.limit == 0 || request.limit.saturating_add(request.offset) > LIMIT_MAX {
            return Err(Error::invalid(format!(
                "limit {} and offset {}; expected a limit of at least 1, and at most {LIMIT_MAX} together",
                request.limit, request.offset
            )));
        }
        if let Rerank::Weighted { weights, .. } = &request.rerank
            && weights.len() != request.searches.len()
        {
            return Err(Error::invalid(format!(
                "{} weights for {} searches; expected one each",
                weights.len(),
                request.searches.len()
            )));
        }
        if request.searches.iter().any(|search| search.is_batch() || !search.rankers.is_empty()) {
            return Err(Error::invalid("each search of several has one vector, and no rankers of its own"));
        }
        Ok(())
    }

    /// What each search finds; `bare` are those of the request. They are done side by side where there are threads, as far as nothing must be
    /// read for them.
    pub(super) async fn parts<'a>(
        &'a self,
        request: &HybridRequest,
        bare: &'a [SearchRequest],
        view: &View,
        profile: bool,
    ) -> Result<Vec<Part<'a>>> {
        Self::check_hybrid(request)?;
        self.checked_rankers(&request.rankers)?;
        let mut searches = Vec::new();
        for search in bare {
            searches.push(self.checked_search(search, view).await?);
        }
        let begun = {
            let state = self.state();
            let threads = self.threads_of(&searches, &state);
            // A filter that several have is asked once.
            let first = |search: &Search<'_>| searches.iter().position(|other| other.filter == search.filter);
            let firsts: Vec<Option<usize>> =
                searches.iter().map(|search| search.filter.as_ref().and_then(|_| first(search))).collect();
            let masks = platform::map(threads, searches.len(), |at| {
                let is_shared = firsts[at] == Some(at) && firsts[at + 1..].contains(&Some(at));
                is_shared.then(|| self.masks(&state, searches[at].filter.as_ref(), view, &[], profile))
            });
            platform::map(threads, searches.len(), |at| {
                let (clock, mut response) = (Clock::new(profile), SearchResponse::default());
                response.profile = profile.then(Vec::new);
                let search = &searches[at];
                let known = firsts[at].and_then(|first| masks[first].as_deref());
                let masked = known.map_or(Masked::Seen(view), Masked::Known);
                let begun = (!search.has_rounds())
                    .then(|| self.begin_round(&state, search, &search.first(), masked, None, &mut response));
                (begun, response, clock.ms())
            })
        };
        let mut parts = Vec::new();
        for (search, (begun, mut response, begun_ms)) in searches.into_iter().zip(begun) {
            let clock = Clock::new(profile);
            let lists = self.find_nearest(&search, view, begun, &mut response).await?;
            let found = lists.into_iter().flatten().collect();
            parts.push(Part { search, found, response, ms: begun_ms + clock.ms() });
        }
        Ok(parts)
    }

    /// On how many threads the searches are worth doing: the longest one is waited for whatever the others do, so what counts is all the rest.
    pub(super) fn threads_of(&self, searches: &[Search<'_>], state: &CollectionState) -> usize {
        if !cfg!(native) {
            return 1;
        }
        // In comparisons; a filter is asked of every row.
        let cost = |search: &Search<'_>| -> f64 {
            let first = search.first();
            let segments = state.slots().map(|slot| &slot.segment).filter(|segment| !segment.is_empty());
            let planned = segments.filter_map(|segment| Some(first.first()?.planned(segment, segment.len()).1));
            planned.sum::<f64>() + if search.filter.is_some() { state.rows() as f64 } else { 0.0 }
        };
        let costs: Vec<f64> = searches.iter().map(cost).collect();
        let beside = costs.iter().sum::<f64>() - costs.iter().copied().fold(0.0, f64::max);
        if beside < COMPARISONS_MIN as f64 { 1 } else { self.threads() }
    }

    /// The hits of all of them, ranked together.
    pub(super) async fn fuse(&self, request: &HybridRequest, parts: &[Part<'_>], view: &View) -> Result<Vec<Hit>> {
        let mut output = self.output_fields(request.output_fields.as_deref())?;
        let mut shown = Vec::new();
        for search in request.searches.iter().filter(|search| search.highlight.is_some()) {
            shown.push(self.shown(search, self.text_field(search.field.as_deref())?, &mut output)?);
        }
        let rankers = self.checked_rankers(&request.rankers)?;
        let mut scores: HashMap<Key, f64> = HashMap::new();
        for (at, Part { search, found, .. }) in parts.iter().enumerate() {
            let is_vector = search.field.data_type.is_vector();
            for (place, (distance, found)) in found.iter().enumerate() {
                let score = search.metric.score(*distance);
                let part = share(&request.rerank, at, place, search.metric, is_vector, score);
                *scores.entry(found.key.clone()).or_default() += part;
            }
        }
        let mut hits = self.ranked(scores, &rankers, view, (request.offset, request.limit), output.as_deref()).await?;
        for hit in &mut hits {
            // The first that needs a field takes it out of the row, so it comes last.
            shown.iter().rev().for_each(|shown| hit.highlights.extend(shown.highlights(&mut hit.row)));
        }
        Ok(hits)
    }

    /// The hits of one search, ranked anew.
    pub(super) async fn read_reranked(&self, request: &SearchRequest, view: &View) -> Result<SearchResponse> {
        self.read_hybrid(&reranked(request)?, view).await
    }

    /// The rankers, with their filters parsed.
    fn checked_rankers<'r>(&self, rankers: &'r [Ranker]) -> Result<Vec<Checked<'r>>> {
        let checked = |ranker: &'r Ranker| match ranker {
            Ranker::Decay(decay) => {
                decay.check()?;
                self.check_column(&decay.field, "decay of")?;
                Ok(Checked::Decay(decay, decay.curve()))
            }
            Ranker::Boost { filter, filter_params, weight } => {
                if !weight.is_finite() || *weight < 0.0 {
                    return Err(Error::invalid(format!("a boost of {weight}; expected a number of at least 0")));
                }
                let filter = self.boost(filter, filter_params)?;
                Ok(Checked::Boost(Box::new(filter), *weight))
            }
        };
        rankers.iter().map(checked).collect()
    }

    fn boost(&self, filter: &str, parameters: &Parameters) -> Result<Filter> {
        Filter::parse_with(filter, &self.spec().schema, parameters)
    }

    /// The rows with the best scores, after the rankers have had their say.
    async fn ranked(
        &self,
        mut scores: HashMap<Key, f64>,
        rankers: &[Checked<'_>],
        view: &View,
        (offset, limit): (usize, usize),
        output_fields: Option<&[String]>,
    ) -> Result<Vec<Hit>> {
        let keys: Vec<Key> = scores.keys().cloned().collect();
        for ranker in rankers {
            match ranker {
                Checked::Decay(decay, curve) => {
                    let fields = [self.spec().schema.primary_key().name.clone(), decay.field.clone()];
                    for mut row in self.read_keys(&keys, Some(&fields), &[], view).await? {
                        let factor = curve.factor(row.get(&fields[1]));
                        if let Some(score) = key_of(&mut row, &fields[0]).and_then(|key| scores.get_mut(&key)) {
                            *score *= factor;
                        }
                    }
                }
                Checked::Boost(filter, weight) => {
                    for key in self.passing(&keys, filter, view).await? {
                        if let Some(score) = scores.get_mut(&key) {
                            *score *= weight;
                        }
                    }
                }
            }
        }
        let mut ranked: Vec<(f64, Key)> = scores.into_iter().map(|(key, score)| (score, key)).collect();
        sort_by(&mut ranked, |a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let ranked: Vec<(f64, Key)> = ranked.into_iter().skip(offset).take(limit).collect();
        let keys: Vec<Key> = ranked.iter().map(|(_, key)| key.clone()).collect();
        let rows = self.read_keys(&keys, output_fields, &[], view).await?;
        let hit = |((score, key), row)| Hit { key, score: score as f32, row, highlights: BTreeMap::new() };
        Ok(ranked.into_iter().zip(rows).map(hit).collect())
    }

    /// The keys of those rows for which a filter is true.
    pub(super) async fn passing(&self, keys: &[Key], filter: &Filter, view: &View) -> Result<HashSet<Key>> {
        let fields = filter.fields();
        let wanted = |column: &str| fields.contains(column);
        let mut passing = HashSet::new();
        let mut test = |segment: &Segment, rows: &[u32], blocks: &Blocks| {
            let batch = segment.pick(rows, &wanted, blocks);
            passing.extend(filter.evaluate(batch.scalars()).iter().map(|at| segment.key(rows[at] as usize)));
        };
        let mut later = Vec::new();
        {
            let state = self.state();
            let mut places: BTreeMap<SegmentId, Vec<u32>> = BTreeMap::new();
            for (segment, row) in state.find_all(keys, view) {
                places.entry(segment.id()).or_default().push(row);
            }
            for (id, mut rows) in places {
                rows.sort_unstable();
                rows.dedup();
                let segment = &state.slot(id).expect("rows are found in segments that are there").segment;
                if fields.iter().all(|field| segment.has(field)) {
                    test(segment, &rows, &Blocks::default());
                } else {
                    later.push((segment.clone(), rows));
                }
            }
        }
        for (segment, rows) in later {
            let mut blocks = Blocks::default();
            let needs = segment.needs(&rows, &wanted, &blocks);
            self.inner.shared.fetch(needs, &mut blocks, false).await?;
            test(&segment, &rows, &blocks);
        }
        Ok(passing)
    }
}

/// A search with rankers, as the only one of several.
pub(super) fn reranked(request: &SearchRequest) -> Result<HybridRequest> {
    if request.group_by.is_some() {
        return Err(Error::invalid("a search with rankers has no groups"));
    }
    let end = request.limit.saturating_add(request.offset).min(LIMIT_MAX);
    let candidates = (end * CANDIDATES).clamp(CANDIDATES_MIN, LIMIT_MAX);
    let search = SearchRequest { limit: candidates, offset: 0, rankers: Vec::new(), ..request.clone() };
    Ok(HybridRequest {
        searches: vec![search],
        rerank: Rerank::Weighted { weights: vec![1.0], normalize: true },
        rankers: request.rankers.clone(),
        limit: request.limit,
        offset: request.offset,
        output_fields: request.output_fields.clone(),
    })
}

/// A ranker that was checked.
enum Checked<'r> {
    Decay(&'r Decay, Curve),
    Boost(Box<Filter>, f64),
}

fn key_of(row: &mut Row, field: &str) -> Option<Key> {
    match row.remove(field) {
        Some(Value::Int(key)) => Some(Key::Int(key)),
        Some(Value::String(key)) => Some(Key::String(key.into())),
        _ => None,
    }
}
