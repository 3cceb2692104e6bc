use std::sync::Mutex;

use crate::base::{Lsn, Result};
use crate::db::{Collection, HybridRequest, QueryRequest, SearchRequest, SearchResponse};
use crate::engine::CollectionSpec;
use crate::model::{Key, Row, Value};
use crate::query::Parameters;

/// What of the memory limit the kept answers of one collection take at most.
const LIMIT_SHARE: usize = 16;
/// What an answer takes besides what it holds.
const ENTRY_BYTES: usize = 512;

/// What was asked, in a form that is the same for the same.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::db) enum Asked {
    Search(Box<SearchRequest>),
    Hybrid(Box<HybridRequest>),
    Query(QueryRequest),
}

/// What was answered.
#[derive(Debug, Clone)]
pub(in crate::db) enum Told {
    Hits(SearchResponse),
    Rows(Vec<Row>),
}

/// What of a collection answers were made of: what was written, what it is made of, and which segments there are, by which scores of words
/// differ a little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::db) struct State {
    lsn: Lsn,
    spec: usize,
    segments: u64,
}

/// The answers of one collection that were asked for last, as long as they are right.
#[derive(Debug, Default)]
pub(in crate::db) struct Results(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    entries: Vec<Entry>,
    state: Option<State>,
    bytes: usize,
    /// Counts the looks, to tell which answer was asked for longest ago.
    turn: u64,
    reused: u64,
}

#[derive(Debug)]
struct Entry {
    digest: u64,
    asked: Asked,
    told: Told,
    bytes: usize,
    used: u64,
}

impl Held {
    /// Gives up what is right no more.
    fn see(&mut self, state: State) {
        if self.state != Some(state) {
            self.entries.clear();
            (self.bytes, self.state) = (0, Some(state));
        }
    }
}

impl Results {
    fn get(&self, asked: &Asked, state: State) -> Option<Told> {
        let mut held = self.0.lock().expect("no panic while held");
        held.see(state);
        held.turn += 1;
        let (turn, digest) = (held.turn, digest(asked));
        let entry = held.entries.iter_mut().find(|entry| entry.digest == digest && entry.asked == *asked)?;
        entry.used = turn;
        let told = entry.told.clone();
        held.reused += 1;
        Some(told)
    }

    fn keep(&self, asked: Asked, told: &Told, state: State, capacity: usize) {
        let bytes = bytes_of(&asked, told);
        let mut held = self.0.lock().expect("no panic while held");
        held.see(state);
        if bytes > capacity || held.entries.iter().any(|entry| entry.asked == asked) {
            return;
        }
        while held.bytes + bytes > capacity {
            let oldest = held.entries.iter().enumerate().min_by_key(|(_, entry)| entry.used).map(|(at, _)| at);
            let Some(oldest) = oldest else { break };
            held.bytes -= held.entries.swap_remove(oldest).bytes;
        }
        held.bytes += bytes;
        let entry = Entry { digest: digest(&asked), asked, told: told.clone(), bytes, used: held.turn };
        held.entries.push(entry);
    }

    /// What they take.
    pub(in crate::db) fn bytes(&self) -> usize {
        self.0.lock().expect("no panic while held").bytes
    }

    /// How many answers were given again.
    pub(in crate::db) fn reused(&self) -> u64 {
        self.0.lock().expect("no panic while held").reused
    }
}

impl Collection {
    /// The answer to a request about what is there now: one that was kept, where it is right still, or what `read` gives.
    pub(in crate::db) async fn answered(
        &self,
        asked: impl FnOnce() -> Asked,
        read: impl Future<Output = Result<Told>>,
    ) -> Result<Told> {
        let spec = self.spec();
        let wanted = spec.options.result_cache_bytes.unwrap_or(0) as usize;
        // Rows that expire do so without being written.
        if wanted == 0 || spec.schema.ttl_seconds().is_some() || !self.limits.read.is_all() {
            return read.await;
        }
        let limit = self.inner.shared.options.memory_limit_bytes;
        let capacity = limit.map_or(wanted, |limit| wanted.min(limit / LIMIT_SHARE));
        let asked = self.normal(asked())?;
        let before = self.state_read(spec);
        if let Some(told) = self.inner.results.get(&asked, before) {
            return Ok(told);
        }
        let told = read.await?;
        // What was written meanwhile it may have seen, or not.
        if self.state_read(self.spec()) == before {
            self.inner.results.keep(asked, &told, before, capacity);
        }
        Ok(told)
    }

    fn state_read(&self, spec: &CollectionSpec) -> State {
        let state = self.state();
        let segments = state.slots().fold(0, |all, slot| mixed(all, slot.segment.id().0));
        State { lsn: state.progress().lsn, spec: std::ptr::from_ref(spec).addr(), segments }
    }

    /// The same with filters in their normal form, without parameters.
    fn normal(&self, mut asked: Asked) -> Result<Asked> {
        let filter = |text: &mut Option<String>, parameters: &mut Parameters, partitions: &[String]| -> Result<()> {
            let normal = self.filter(text.as_deref(), parameters, partitions)?;
            *text = normal.map(|filter| filter.to_string());
            parameters.clear();
            Ok(())
        };
        match &mut asked {
            Asked::Search(search) => filter(&mut search.filter, &mut search.filter_params, &search.partitions),
            Asked::Query(query) => filter(&mut query.filter, &mut query.filter_params, &query.partitions),
            Asked::Hybrid(hybrid) => hybrid
                .searches
                .iter_mut()
                .try_for_each(|search| filter(&mut search.filter, &mut search.filter_params, &search.partitions)),
        }
        .map(|()| asked)
    }
}

fn mixed(all: u64, number: u64) -> u64 {
    (all ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// A number that is the same for the same request, and mostly another for another.
fn digest(asked: &Asked) -> u64 {
    let text = |all: u64, text: &str| text.bytes().fold(all, |all, byte| mixed(all, u64::from(byte)));
    let value = |all: u64, value: &Value| match value {
        Value::Vector(numbers) => numbers.iter().fold(all, |all, number| mixed(all, u64::from(number.to_bits()))),
        Value::String(words) => text(all, words),
        _ => all,
    };
    let search = |all: u64, search: &SearchRequest| {
        let all = std::iter::once(&search.vector).chain(&search.vectors).fold(all, value);
        let all = search.filter.iter().chain(&search.field).fold(all, |all, part| text(all, part));
        mixed(mixed(all, search.limit as u64), search.offset as u64)
    };
    match asked {
        Asked::Search(request) => search(1, request),
        Asked::Hybrid(request) => request.searches.iter().fold(request.limit as u64, search),
        Asked::Query(query) => {
            let all = query.filter.iter().chain(&query.order_by).fold(2, |all, part| text(all, part));
            mixed(mixed(all, query.limit.unwrap_or(0) as u64), query.offset as u64)
        }
    }
}

/// About what an answer takes in memory, with what was asked.
fn bytes_of(asked: &Asked, told: &Told) -> usize {
    let of_search = |search: &SearchRequest| {
        let queries = std::iter::once(&search.vector).chain(&search.vectors).map(bytes_of_value).sum::<usize>();
        ENTRY_BYTES + queries + search.filter.as_ref().map_or(0, String::len) + search.ids.len() * size_of::<Key>()
    };
    let of_row = |row: &Row| row.iter().map(|(name, value)| 48 + name.len() + bytes_of_value(value)).sum::<usize>();
    let asked = match asked {
        Asked::Search(search) => of_search(search),
        Asked::Hybrid(hybrid) => hybrid.searches.iter().map(of_search).sum(),
        Asked::Query(query) => query.filter.as_ref().map_or(0, String::len),
    };
    let told = match told {
        Told::Rows(rows) => rows.iter().map(|row| 24 + of_row(row)).sum(),
        Told::Hits(response) => {
            let hits = response.hits.iter().chain(response.results.iter().flatten());
            let shown =
                |hit: &crate::db::Hit| hit.highlights.values().flatten().map(|part| 24 + part.len()).sum::<usize>();
            hits.map(|hit| 96 + of_row(&hit.row) + shown(hit)).sum::<usize>()
        }
    };
    ENTRY_BYTES + asked + told
}

fn bytes_of_value(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Vector(numbers) => numbers.len() * 4,
            Value::Bytes(bytes) => bytes.len(),
            Value::Sparse(pairs) => pairs.len() * 8,
            Value::Array(values) => values.iter().map(bytes_of_value).sum(),
            Value::Json(json) => json.to_string().len() * 2,
            _ => 0,
        }
}

#[cfg(native)]
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::db::{Db, Options, Target};
    use crate::engine::CollectionOptions;
    use crate::model::Batch;
    use crate::platform::block_on;
    use crate::storage::MemoryDisk;

    /// Answers that are kept are those that would be given now, whatever happens in between; the same question in other words is the same.
    #[test]
    fn kept_answers_are_right_or_gone() {
        block_on(async {
            let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), Options::default()).await.unwrap();
            let spec = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},{"name":"n","type":"int32"},
                {"name":"v","type":"float_vector","dim":2}],"options":{"resultCacheBytes":100000}}"#;
            let rows = db.create_collection("rows", serde_json::from_str(spec).unwrap()).await.unwrap();
            let put = async |ids: std::ops::Range<i64>| {
                let row = |id: i64| {
                    Row::from([
                        ("id".to_owned(), Value::Int(id)),
                        ("n".to_owned(), Value::Int(id % 10)),
                        ("v".to_owned(), Value::Vector(vec![id as f32, 1.0])),
                    ])
                };
                let rows_of = ids.map(row).collect();
                rows.upsert(Batch::from_rows(&rows.spec().schema, rows_of).unwrap()).await.unwrap();
            };
            let reused = || rows.inner.results.reused();
            let ask = async |filter: &str, limit: usize| {
                let search = SearchRequest {
                    vector: vec![3.0, 1.0].into(),
                    filter: Some(filter.to_owned()),
                    limit,
                    ..Default::default()
                };
                let hybrid = HybridRequest { searches: vec![search.clone()], limit, ..Default::default() };
                let query = QueryRequest { filter: Some(filter.to_owned()), limit: Some(limit), ..Default::default() };
                let snapshot = rows.snapshot().unwrap();
                let (hits, mixed, found) =
                    (rows.search(&search).await, rows.hybrid_search(&hybrid).await, rows.query(&query).await);
                assert_eq!(hits.unwrap().hits, snapshot.search(&search).await.unwrap().hits);
                assert_eq!(mixed.unwrap().hits, snapshot.hybrid_search(&hybrid).await.unwrap().hits);
                assert_eq!(found.unwrap(), snapshot.query(&query).await.unwrap());
            };
            put(0..50).await;
            ask("n in [3, 4] and id > 2", 5).await;
            assert_eq!(reused(), 0);
            ask("id > 2 and n in [4, 3, 3]", 5).await;
            assert_eq!(reused(), 3, "the same in other words");
            ask("id > 2 and n in [3, 4]", 6).await;
            assert_eq!(reused(), 3);
            put(50..51).await;
            ask("id > 2 and n in [3, 4]", 5).await;
            rows.delete(Target::Keys(vec![3.into()])).await.unwrap();
            ask("id > 2 and n in [3, 4]", 5).await;
            db.flush("rows").await.unwrap();
            ask("id > 2 and n in [3, 4]", 5).await;
            assert_eq!(reused(), 3, "each time it was another state");
            ask("id > 2 and n in [3, 4]", 5).await;
            assert_eq!(reused(), 6);
            let held = rows.inner.results.bytes();
            assert!(held > 0 && db.memory().cache >= held);
            assert_eq!(rows.stats().await.unwrap().results_reused, 6);
            for limit in 1..200 {
                ask("id >= 0", limit).await;
                assert!(rows.inner.results.bytes() <= 100_000);
            }
            ask("id >= 0", 199).await;
            assert!(reused() >= 7);
            let before = reused();
            db.set_ttl("rows", Some(3_600)).await.unwrap();
            ask("id >= 0", 199).await;
            ask("id >= 0", 199).await;
            db.set_ttl("rows", None).await.unwrap();
            db.set_options("rows", CollectionOptions::default()).await.unwrap();
            ask("id >= 0", 199).await;
            ask("id >= 0", 199).await;
            assert_eq!(reused(), before, "off where rows expire, and where nothing is said");
        });
    }
}
