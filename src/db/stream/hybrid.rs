use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::live::{Entry, LiveQueries, entries_of};
use super::{LiveHit, LiveRequest, LiveUpdate, live};
use crate::base::{Error, ErrorKind, Result, sort_by};
use crate::db::search::share;
use crate::db::{HybridRequest, SearchRequest};
use crate::distance::Metric;
use crate::model::{Key, Value};

/// The queries whose answers are several searches', ranked together.
#[derive(Default)]
pub(super) struct Hybrids {
    by_id: BTreeMap<u64, Hybrid>,
    /// By each of their searches that are kept current as queries of their own.
    of_part: HashMap<u64, u64>,
    /// Those of which a search has another answer.
    stale: BTreeSet<u64>,
}

struct Hybrid {
    request: HybridRequest,
    /// In the order of its searches.
    parts: Vec<Part>,
    answer: Vec<Ranked>,
}

/// One of the searches.
#[derive(Clone, Copy)]
enum Part {
    /// It is kept current as a query of that number, and its field has that metric.
    Kept(u64, Metric),
    /// It is of text: every write changes the scores of all rows, so it is done anew each time.
    Words,
}

/// A row of an answer, and its score as it is summed up.
struct Ranked {
    score: f64,
    entry: Entry,
}

impl Hybrids {
    /// Whether a query is a search of another one.
    pub(super) fn has_part(&self, id: u64) -> bool {
        self.of_part.contains_key(&id)
    }

    /// The same; the other one is not current any more.
    pub(super) fn touch(&mut self, part: u64) -> bool {
        let hybrid = self.of_part.get(&part);
        self.stale.extend(hybrid);
        hybrid.is_some()
    }

    /// How many there are, and how many of their searches are queries of their own.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.by_id.len(), self.of_part.len())
    }

    pub(super) fn answer(&self, id: u64) -> Option<Vec<LiveHit>> {
        Some(self.by_id.get(&id)?.hits())
    }

    /// Forgets one, and tells which queries were its searches.
    pub(super) fn remove(&mut self, id: u64) -> Option<Vec<u64>> {
        let hybrid = self.by_id.remove(&id)?;
        self.stale.remove(&id);
        self.of_part.retain(|_, of| *of != id);
        Some(hybrid.kept().collect())
    }
}

impl Hybrid {
    fn hits(&self) -> Vec<LiveHit> {
        self.answer.iter().map(|ranked| ranked.entry.hit.clone()).collect()
    }

    fn kept(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().filter_map(|part| if let Part::Kept(id, _) = part { Some(*id) } else { None })
    }

    fn has_words(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Words))
    }
}

impl LiveQueries {
    /// Adds several searches whose hits are ranked together, and tells its number and its answer at the moment that the others are at.
    ///
    /// The answer is what [`Collection::hybrid_search`](crate::db::Collection::hybrid_search) of exact searches finds at that moment. Each search
    /// for a vector is kept current like any other query, so a write that touches none of them costs nothing more, and one that does has their
    /// kept hits ranked anew: as many as their limits come to, and the rows of the answer read. One for text is done anew with each
    /// [`update`](Self::update), for all scores depend on all rows.
    ///
    /// # Errors
    /// `InvalidArgument` for what is wrong with the request, `Unsupported` for rankers, groups, offsets and highlights.
    pub async fn add_hybrid(&mut self, request: HybridRequest) -> Result<(u64, Vec<LiveHit>)> {
        crate::db::Collection::check_hybrid(&request)?;
        let takes_no =
            |search: &SearchRequest| search.group_by.is_some() || search.offset > 0 || search.highlight.is_some();
        if !request.rankers.is_empty() || request.offset > 0 || request.searches.iter().any(takes_no) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a live query takes no groups, rankers, offset and highlight",
            ));
        }
        let mut hybrid = Hybrid { request, parts: Vec::new(), answer: Vec::new() };
        if let Err(error) = self.begin_hybrid(&mut hybrid).await {
            for part in hybrid.kept() {
                self.remove(part);
            }
            return Err(error);
        }
        let id = self.number();
        let hits = hybrid.hits();
        let hybrids = &mut self.hybrids;
        hybrids.of_part.extend(hybrid.kept().map(|part| (part, id)));
        hybrids.by_id.insert(id, hybrid);
        Ok((id, hits))
    }

    async fn begin_hybrid(&mut self, hybrid: &mut Hybrid) -> Result<()> {
        for search in &hybrid.request.searches {
            if is_words(search) {
                hybrid.parts.push(Part::Words);
                continue;
            }
            let field = self.collection().vector_field(search.field.as_deref())?;
            let metric = self.collection().spec().indexes[&field.name].metric;
            let search = SearchRequest { output_fields: Some(Vec::new()), ..search.clone() };
            let (part, _) = self.add(LiveRequest::Nearest(Box::new(search))).await?;
            hybrid.parts.push(Part::Kept(part, metric));
        }
        hybrid.answer = self.fused(hybrid).await?;
        Ok(())
    }

    /// Ranks anew what is not current, once its searches are.
    pub(super) async fn update_hybrids(&mut self) -> Result<Vec<LiveUpdate>> {
        let hybrids = &mut self.hybrids;
        hybrids.stale.extend(hybrids.by_id.iter().filter(|(_, hybrid)| hybrid.has_words()).map(|(id, _)| *id));
        let mut updates = Vec::new();
        while let Some(id) = self.hybrids.stale.first().copied() {
            // It stays where it is: the storage may fail, and whoever waits for this may give up.
            let answer = self.fused(&self.hybrids.by_id[&id]).await?;
            let lsn = self.lsn();
            let hybrids = &mut self.hybrids;
            let hybrid = hybrids.by_id.get_mut(&id).expect("those that are stale are there");
            let before = std::mem::replace(&mut hybrid.answer, answer);
            // One that was not written has another score when others have come before it.
            let rests = |from: usize, to: usize| {
                let (before, after) = (&before[from], &hybrid.answer[to]);
                before.score.to_bits() == after.score.to_bits() && before.entry.hit.version == after.entry.hit.version
            };
            let plain = |ranked: &[Ranked]| ranked.iter().map(|ranked| ranked.entry.clone()).collect::<Vec<_>>();
            let differences = live::differences(&plain(&before), &plain(&hybrid.answer), rests);
            hybrids.stale.remove(&id);
            if !differences.is_empty() {
                updates.push(LiveUpdate { id, lsn, differences });
            }
        }
        Ok(updates)
    }

    /// What its searches' answers come to.
    async fn fused(&self, hybrid: &Hybrid) -> Result<Vec<Ranked>> {
        let Hybrid { request, parts, .. } = hybrid;
        let mut scores: HashMap<Key, f64> = HashMap::new();
        for (at, part) in parts.iter().enumerate() {
            let (metric, is_vector, hits): (_, _, Vec<(Key, f32)>) = match part {
                Part::Kept(id, metric) => {
                    let told = self.told(*id).expect("the searches of a query are there as long as it is");
                    (*metric, true, told.iter().map(|entry| (entry.hit.key.clone(), entry.hit.score)).collect())
                }
                Part::Words => {
                    let search = SearchRequest { output_fields: Some(Vec::new()), ..request.searches[at].clone() };
                    let found = self.collection().read_nearest(&search, &self.view()).await?;
                    (Metric::Ip, false, found.hits.into_iter().map(|hit| (hit.key, hit.score)).collect())
                }
            };
            for (place, (key, score)) in hits.into_iter().enumerate() {
                *scores.entry(key).or_default() += share(&request.rerank, at, place, metric, is_vector, score);
            }
        }
        let mut ranked: Vec<(f64, Key)> = scores.into_iter().map(|(key, score)| (score, key)).collect();
        sort_by(&mut ranked, |a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        ranked.truncate(request.limit);
        let keys: Vec<Key> = ranked.iter().map(|(_, key)| key.clone()).collect();
        let fields = self.collection().versioned(request.output_fields.as_deref())?;
        let rows = self.collection().read_keys(&keys, Some(&fields), &[], &self.view()).await?;
        let found = ranked.iter().zip(rows).map(|((score, key), row)| (key.clone(), *score as f32, row)).collect();
        let entries = entries_of(self.collection(), found, request.output_fields.as_deref(), -1.0)?;
        Ok(ranked.into_iter().zip(entries).map(|((score, _), entry)| Ranked { score, entry }).collect())
    }
}

fn is_words(search: &SearchRequest) -> bool {
    matches!(search.vector, Value::String(_))
}
