use serde::{Deserialize, Serialize};

use super::access::forbidden;
use super::{Collection, Db, SearchRequest};
use crate::base::{Error, Random, Result, sort_by, sort_by_key};
use crate::engine::View;
use crate::model::{Key, Value};
use crate::platform;

/// Candidates that a graph keeps, as an evaluation tries them when none are named.
const LADDER: [usize; 12] = [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
/// More candidates than these are not tried.
const EF_MAX: usize = 4_096;
/// The most rows of a sample, and neighbours of each: every one is compared with every row.
const SAMPLE_MAX: usize = 10_000;
const K_MAX: usize = 1_000;
/// How often the range is halved in which the least sufficient `ef` lies.
const HALVINGS: usize = 4;

/// How good searches are by how long they take: what is evaluated.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EvaluateRequest {
    /// The vector field; the only one with `None`.
    pub field: Option<String>,
    /// Neighbours looked for, 1 to 1,000; 10.
    pub k: usize,
    /// How many of the collection's own vectors are looked for, 1 to 10,000; 100. Of fewer rows, all.
    pub sample: usize,
    /// Which ones: the same seed takes the same of the same rows.
    pub seed: u64,
    /// The `ef` to try, of 1 to 4,096; with none, some from 10 to 512 until nothing is missed. At least `k` counts.
    pub ef: Vec<usize>,
}

impl Default for EvaluateRequest {
    fn default() -> Self {
        Self { field: None, k: 10, sample: 100, seed: 0, ef: Vec::new() }
    }
}

/// How long searches took, in milliseconds, and how much they found.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EvaluationPoint {
    /// Candidates that the graph kept; 0 for exact search.
    pub ef: usize,
    /// The share of the true neighbours that was found.
    pub recall: f64,
    /// On average.
    pub mean_ms: f64,
    /// Half of the searches took less.
    pub p50_ms: f64,
    /// All but one in a hundred.
    pub p99_ms: f64,
}

/// Recall and latency by `ef`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// The vector field.
    pub field: String,
    /// Neighbours looked for.
    pub k: usize,
    /// Vectors looked for; of rows that have one.
    pub sample: usize,
    /// Exact search, with which the others are compared.
    pub exact: EvaluationPoint,
    /// By ascending `ef`.
    pub curve: Vec<EvaluationPoint>,
}

/// Which `ef` is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneRequest {
    /// On what it is tried; its `ef` is not looked at.
    pub evaluate: EvaluateRequest,
    /// The recall that is to be reached, above 0, at most 1; 0.95.
    pub recall: f64,
    /// Whether it becomes what searches of the collection keep that do not say otherwise.
    pub store: bool,
}

impl Default for TuneRequest {
    fn default() -> Self {
        Self { evaluate: EvaluateRequest::default(), recall: 0.95, store: false }
    }
}

/// What reaches a recall fastest.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tuning {
    /// The least `ef` that was enough; `None` where none was, or exact search takes no longer.
    pub ef: Option<usize>,
    /// What was chosen, and what it reaches.
    pub chosen: EvaluationPoint,
    /// Whether it is kept as the collection's default.
    pub stored: bool,
    /// All that was tried.
    pub tried: Evaluation,
}

/// A sample with its truth.
struct Sample<'a> {
    collection: &'a Collection,
    field: String,
    k: usize,
    queries: Vec<(Key, Value)>,
    /// The score of the last true neighbour of each, and how many there are.
    truth: Vec<(f32, usize)>,
    /// Whether greater scores are nearer.
    rising: bool,
    exact: EvaluationPoint,
}

impl<'a> Sample<'a> {
    async fn take(collection: &'a Collection, request: &EvaluateRequest) -> Result<Self> {
        let field = collection.vector_field(request.field.as_deref())?.name.clone();
        for (name, value, most) in [("k", request.k, K_MAX), ("sample", request.sample, SAMPLE_MAX)] {
            if value == 0 || value > most {
                return Err(Error::invalid(format!("{name} {value}; expected 1 to {most}")));
            }
        }
        if let Some(ef) = request.ef.iter().find(|ef| !(1..=EF_MAX).contains(*ef)) {
            return Err(Error::invalid(format!("ef {ef}; expected 1 to {EF_MAX}")));
        }
        let keys = collection.sample_keys(request.sample, request.seed);
        let fields = [collection.spec().schema.primary_key().name.clone(), field.clone()];
        let rows = collection.read_keys(&keys, Some(&fields), &[], &collection.view(View::NOW)).await?;
        let query = |mut row: crate::model::Row| {
            let key = match row.remove(&fields[0])? {
                Value::Int(key) => Key::Int(key),
                Value::String(key) => Key::String(key.into()),
                _ => return None,
            };
            let vector = row.remove(&fields[1]).filter(|vector| *vector != Value::Null)?;
            Some((key, vector))
        };
        let queries: Vec<(Key, Value)> = rows.into_iter().filter_map(query).collect();
        if queries.is_empty() {
            return Err(Error::invalid(format!(
                "no row has a vector in field {field:?}: there is nothing to look for"
            )));
        }
        let rising =
            collection.spec().indexes[&field].metric.score(-1.0) > collection.spec().indexes[&field].metric.score(1.0);
        let mut sample = Self {
            collection,
            field,
            k: request.k,
            queries,
            truth: Vec::new(),
            rising,
            exact: EvaluationPoint::default(),
        };
        sample.exact = EvaluationPoint { recall: 1.0, ..sample.measure(None).await? };
        Ok(sample)
    }

    /// Looks for all of the sample, and notes the truth when it looks exactly. A row itself does not count: everything finds it.
    async fn measure(&mut self, ef: Option<usize>) -> Result<EvaluationPoint> {
        let environment = &self.collection.inner.shared.options.environment;
        let view = self.collection.view(View::NOW);
        let mut times = Vec::with_capacity(self.queries.len());
        let (mut found, mut wanted) = (0, 0);
        for (at, (key, vector)) in self.queries.iter().enumerate() {
            let request = SearchRequest {
                field: Some(self.field.clone()),
                vector: vector.clone(),
                limit: self.k + 1,
                output_fields: Some(Vec::new()),
                ef,
                exact: ef.is_none(),
                ..SearchRequest::default()
            };
            let started = environment.now_us();
            let response = self.collection.read_nearest(&request, &view).await?;
            times.push(environment.now_us().saturating_sub(started) as f64 / 1e3);
            let mut scores: Vec<f32> =
                response.hits.iter().filter(|hit| hit.key != *key).map(|hit| hit.score).collect();
            scores.truncate(self.k);
            match ef {
                None => self.truth.push((scores.last().copied().unwrap_or_default(), scores.len())),
                Some(_) => {
                    // A row as near as the last true one is as good as it.
                    let (last, count) = self.truth[at];
                    let is_true = |score: &&f32| if self.rising { **score >= last } else { **score <= last };
                    found += scores.iter().filter(is_true).count();
                    wanted += count;
                }
            }
            // Others have their turn.
            platform::yield_now().await;
        }
        let mean_ms = times.iter().sum::<f64>() / times.len() as f64;
        sort_by(&mut times, f64::total_cmp);
        let percentile = |share: usize| times[(times.len() - 1) * share / 100];
        let recall = if wanted == 0 { 1.0 } else { found as f64 / wanted as f64 };
        Ok(EvaluationPoint { ef: ef.unwrap_or(0), recall, mean_ms, p50_ms: percentile(50), p99_ms: percentile(99) })
    }

    fn evaluation(self, mut curve: Vec<EvaluationPoint>) -> Evaluation {
        sort_by_key(&mut curve, |point| point.ef);
        Evaluation { field: self.field, k: self.k, sample: self.queries.len(), exact: self.exact, curve }
    }
}

impl Collection {
    /// Compares searches with exact ones, over a sample of the collection's own vectors: how much they find, and how long they take, by
    /// `ef`. A row that is looked for is not counted among what is found. Cost: `sample` scans of all rows, and as many searches
    /// for each `ef`.
    ///
    /// # Errors
    /// `InvalidArgument` for numbers out of range, and when there is no vector to look for.
    pub async fn evaluate(&self, request: &EvaluateRequest) -> Result<Evaluation> {
        self.inner.shared.check_open()?;
        if !self.limits.read.is_all() {
            return Err(forbidden("an evaluation looks at all rows of the collection"));
        }
        let mut sample = Sample::take(self, request).await?;
        let mut efs = if request.ef.is_empty() { LADDER.to_vec() } else { request.ef.clone() };
        efs.iter_mut().for_each(|ef| *ef = (*ef).max(request.k));
        sort_by(&mut efs, Ord::cmp);
        efs.dedup();
        let mut curve = Vec::new();
        for ef in efs {
            let point = sample.measure(Some(ef)).await?;
            curve.push(point);
            if request.ef.is_empty() && point.recall >= 1.0 {
                break;
            }
        }
        Ok(sample.evaluation(curve))
    }

    /// Keys of living rows, `count` at most, in an order that the seed decides.
    fn sample_keys(&self, count: usize, seed: u64) -> Vec<Key> {
        let state = self.inner.state.read().expect("no panic while held");
        let mut places: Vec<(usize, u32)> = Vec::with_capacity(state.rows());
        let slots: Vec<_> = state.slots().collect();
        for (at, slot) in slots.iter().enumerate() {
            places.extend(slot.live.iter().map(|row| (at, row as u32)));
        }
        let mut random = Random::new(seed);
        for at in 0..count.min(places.len()) {
            let other = at + random.below((places.len() - at) as u64) as usize;
            places.swap(at, other);
        }
        places.truncate(count);
        places.into_iter().map(|(slot, row)| slots[slot].segment.key(row as usize)).collect()
    }
}

impl Db {
    /// Finds the least `ef` with which searches of a collection reach a recall, over a sample of its own vectors, and tells all that it
    /// tried; keeps it as what searches take that do not say otherwise, when that is asked for.
    ///
    /// # Errors
    /// As [`Collection::evaluate`].
    pub async fn tune(&self, collection: &str, request: &TuneRequest) -> Result<Tuning> {
        let collection = self.collection(collection)?;
        if !(request.recall > 0.0 && request.recall <= 1.0) {
            return Err(Error::invalid(format!("recall {}; expected above 0, at most 1", request.recall)));
        }
        let mut sample =
            Sample::take(&collection, &EvaluateRequest { ef: Vec::new(), ..request.evaluate.clone() }).await?;
        let mut tried: Vec<EvaluationPoint> = Vec::new();
        let (mut ef, mut too_small) = (request.evaluate.k, 0);
        let mut chosen = loop {
            let point = sample.measure(Some(ef)).await?;
            tried.push(point);
            if point.recall >= request.recall {
                break Some(point);
            }
            if ef >= EF_MAX {
                break None;
            }
            too_small = ef;
            ef = (2 * ef).min(EF_MAX);
        };
        for _ in 0..HALVINGS {
            let Some(enough) = chosen.as_mut().filter(|enough| enough.ef > too_small + 1 && too_small > 0) else {
                break;
            };
            let point = sample.measure(Some(usize::midpoint(too_small, enough.ef))).await?;
            tried.push(point);
            if point.recall >= request.recall {
                *enough = point;
            } else {
                too_small = point.ef;
            }
        }
        let chosen = chosen.filter(|point| point.mean_ms <= sample.exact.mean_ms);
        let (ef, stored) = (chosen.map(|point| point.ef), request.store && chosen.is_some());
        if stored {
            let options = collection.spec().options;
            self.set_options(
                collection.name(),
                crate::engine::CollectionOptions { ef: ef.map(|ef| ef as u32), ..options },
            )
            .await?;
        }
        Ok(Tuning { ef, chosen: chosen.unwrap_or(sample.exact), stored, tried: sample.evaluation(tried) })
    }
}

#[cfg(native)]
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::ErrorKind;
    use crate::db::Options;
    use crate::engine::CollectionSpec;
    use crate::model::{Batch, Row};
    use crate::platform::block_on;
    use crate::storage::MemoryDisk;

    const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
        {"name":"v","type":"float_vector","dim":16},{"name":"w","type":"float_vector","dim":2,"nullable":true}],
        "dynamic":false,"indexes":{"v":{"metric":"L2","kind":{"HNSW":{"m":4,"ef_construction":20}}}}}"#;

    fn row(id: i64, random: &mut Random) -> Row {
        let v = (0..16).map(|_| random.below(1_000) as f32).collect();
        let w = if id % 2 == 0 { Value::Vector(vec![id as f32, 1.0]) } else { Value::Null };
        Row::from([("id".to_owned(), Value::Int(id)), ("v".to_owned(), Value::Vector(v)), ("w".to_owned(), w)])
    }

    #[test]
    fn recall_rises_with_ef_and_the_least_sufficient_one_is_kept() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap();
            let spec: CollectionSpec = serde_json::from_str(SPEC).unwrap();
            let rows = db.create_collection("rows", spec).await.unwrap();
            let of = |field: &str| EvaluateRequest { field: Some(field.to_owned()), ..Default::default() };
            assert_eq!(
                rows.evaluate(&of("v")).await.unwrap_err().kind(),
                ErrorKind::InvalidArgument,
                "there is no row"
            );
            let mut random = Random::new(4);
            let batch = (0..2_000).map(|id| row(id, &mut random)).collect();
            rows.insert(Batch::from_rows(&rows.spec().schema, batch).unwrap()).await.unwrap();
            while db.maintain().await.unwrap() {}

            let found = rows.evaluate(&of("v")).await.unwrap();
            assert_eq!((found.k, found.sample, found.exact.recall), (10, 100, 1.0));
            assert!(found.curve.is_sorted_by(|a, b| a.ef < b.ef) && found.curve[0].ef == 10, "{found:?}");
            let (first, last) = (found.curve[0], found.curve[found.curve.len() - 1]);
            assert!(first.recall < last.recall && last.recall > 0.95, "{found:?}");
            assert!(found.curve.iter().all(|point| point.p50_ms <= point.p99_ms && point.mean_ms > 0.0), "{found:?}");
            let again = rows.evaluate(&EvaluateRequest { ef: vec![200, 3, 200], ..of("v") }).await.unwrap();
            assert_eq!(again.curve.iter().map(|point| point.ef).collect::<Vec<_>>(), [10, 200]);
            assert_eq!(again.curve[0].recall, first.recall, "the same sample of the same rows");

            // Rows without a vector are not looked for.
            let sparse = rows.evaluate(&EvaluateRequest { sample: 2_000, k: 3, ef: vec![8], ..of("w") }).await.unwrap();
            assert_eq!((sparse.sample, sparse.curve[0].recall), (1_000, 1.0));

            let tuning = db.tune("rows", &TuneRequest { evaluate: of("v"), recall: 0.9, store: true }).await.unwrap();
            assert!(tuning.tried.curve.len() > 1 && tuning.tried.curve.contains(&tuning.chosen) || tuning.ef.is_none());
            let too_small = tuning.tried.curve.iter().filter(|point| Some(point.ef) < tuning.ef);
            assert!(too_small.into_iter().all(|point| point.recall < 0.9), "{tuning:?}");
            assert_eq!(tuning.stored, tuning.ef.is_some());
            assert_eq!(rows.spec().options.ef.map(|ef| ef as usize), tuning.ef);
            for wrong in [0.0, 1.1, f64::NAN] {
                let request = TuneRequest { evaluate: of("v"), recall: wrong, store: false };
                assert_eq!(db.tune("rows", &request).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
            }
            for wrong in [
                EvaluateRequest { k: 0, ..of("v") },
                EvaluateRequest { sample: 10_001, ..of("v") },
                EvaluateRequest { ef: vec![0], ..of("v") },
                of("x"),
                EvaluateRequest::default(),
            ] {
                let error = rows.evaluate(&wrong).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{wrong:?}: {error}");
            }
        });
    }
}
