use std::sync::Weak;

use super::{Collection, Db};
use crate::base::{Error, Result, Timestamp};
use crate::distance::Metric;
use crate::engine::{CollectionOptions, CollectionSpec, FileEntry, View};
use crate::index::{IndexKind, IndexSpec};
use crate::model::{Field, Schema};
use crate::platform;

/// A change of what a collection is made of.
type Edit = dyn FnOnce(&mut CollectionSpec) -> Result<()> + Send;

impl Db {
    /// Adds a field to a collection, durably: rows that are there read as if they had been written without it, and so do rows that a
    /// caller has made a batch of before. `index` is for a vector.
    ///
    /// In memory the column of every row is there at once; segments get it in storage when they are merged.
    ///
    /// Other replicas keep the fields that they have: a sync between collections of different fields is refused until the field is
    /// added on the other side too.
    ///
    /// # Errors
    /// `NotFound` when there is no such collection, `InvalidArgument` as of [`Schema::with_field`] and
    /// [`CollectionSpec::completed`].
    pub async fn add_field(&self, collection: &str, field: Field, index: Option<IndexSpec>) -> Result<()> {
        let collection = self.collection(collection)?;
        self.alter(&collection, move |spec| {
            let name = field.name.clone();
            spec.schema = spec.schema.with_field(field)?.into();
            spec.indexes.extend(index.map(|index| (name, index)));
            Ok(())
        })
        .await
    }

    /// Has the rows of a collection expire so many seconds after they were written, those that are there too; never with `None`.
    /// Durable. Expired rows are not seen from that moment on, and their space is reclaimed by background work. Each replica says for
    /// itself when rows expire.
    ///
    /// # Errors
    /// `NotFound` when there is no such collection, `InvalidArgument` as of [`Schema::with_ttl`].
    pub async fn set_ttl(&self, collection: &str, seconds: Option<u64>) -> Result<()> {
        let collection = self.collection(collection)?;
        let edit = move |spec: &mut CollectionSpec| {
            spec.schema = Schema::clone(&spec.schema).with_ttl(seconds)?.into();
            Ok(())
        };
        self.alter(&collection, edit).await
    }

    /// Has a collection keep its rows so from now on, durably; what is not said is as usual again. Segments that are there stay as they
    /// are until they are merged.
    ///
    /// # Errors
    /// `NotFound` when there is no such collection, `InvalidArgument` as of [`CollectionSpec::completed`].
    pub async fn set_options(&self, collection: &str, options: CollectionOptions) -> Result<()> {
        let collection = self.collection(collection)?;
        let edit = move |spec: &mut CollectionSpec| {
            spec.options = options;
            Ok(())
        };
        self.alter(&collection, edit).await
    }

    /// Gives a field of a collection an index, durably: of a vector, instead of the one that it has. It is built in the background, a step at a
    /// time, whatever is written, flushed and merged meanwhile; until it is there, searches and filters look at the rows of its segment one
    /// by one, and answer the same. After a crash it is built from where it was written last.
    ///
    /// Other replicas keep the indexes that they have.
    ///
    /// # Errors
    /// `NotFound` when there is no such collection, `InvalidArgument` as of [`CollectionSpec::completed`].
    pub async fn create_index(&self, collection: &str, field: &str, index: IndexSpec) -> Result<()> {
        let collection = self.collection(collection)?;
        let field = field.to_owned();
        let edit = move |spec: &mut CollectionSpec| {
            spec.indexes.insert(spec.index_name(&field)?, index);
            Ok(())
        };
        self.alter(&collection, edit).await
    }

    /// Takes the index of a field away, durably: vectors are scanned from then on (`FLAT`), values are looked at one by one.
    ///
    /// # Errors
    /// `NotFound` when there is no such collection, or no such index.
    pub async fn drop_index(&self, collection: &str, field: &str) -> Result<()> {
        let collection = self.collection(collection)?;
        let field = field.to_owned();
        let edit = move |spec: &mut CollectionSpec| {
            let field = spec.index_name(&field)?;
            let is_vector = spec.schema.field(&field).is_some_and(|field| field.data_type.is_vector());
            match spec.indexes.get_mut(&field) {
                None => return Err(Error::not_found(format!("{field:?} has no index"))),
                Some(index) if is_vector => index.kind = IndexKind::Flat,
                Some(_) => drop(spec.indexes.remove(&field)),
            }
            Ok(())
        };
        self.alter(&collection, edit).await
    }

    /// Changes what a collection is made of in a way that all of its rows fit.
    pub(super) async fn alter(
        &self,
        collection: &Collection,
        edit: impl FnOnce(&mut CollectionSpec) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        self.alter_boxed(collection, Box::new(edit)).await
    }

    /// The same, of no type: every change would have a copy of all this.
    async fn alter_boxed(&self, collection: &Collection, edit: Box<Edit>) -> Result<()> {
        self.inner.shared.check_open()?;
        let (db, collection) = (self.clone(), collection.clone());
        platform::run_to_end(async move {
            let _one = db.inner.maintenance.lock().await;
            // It would bring rows as they were.
            db.stop_work(&collection).await?;
            // Whoever holds it is the one writer: what comes after finds the collection grown.
            let log = collection.inner.log.lock().await;
            if let Some(error) = log.closed() {
                return Err(error);
            }
            let before = collection.spec();
            let mut spec = before.clone();
            edit(&mut spec)?;
            let spec = spec.completed()?;
            // Files of an index that is to be another fit it no more.
            let is_old = |file: &FileEntry| {
                let index =
                    |spec: &CollectionSpec| spec.indexes.get(file.field.as_deref().unwrap_or_default()).copied();
                let is_index = file.kind == "index" || (file.kind == "terms" && index(before).is_some());
                is_index && index(before) != index(&spec)
            };
            let id = collection.id();
            let old = db
                .inner
                .shared
                .swap_manifest(|manifest| {
                    let described = manifest.collection_mut(id);
                    let described = described.ok_or_else(|| Error::not_found("the collection was dropped"))?;
                    described.spec = spec.clone();
                    let mut old = Vec::new();
                    for segment in &mut described.segments {
                        old.extend(segment.files.extract_if(.., |file| is_old(file)));
                    }
                    Ok(old)
                })
                .await?;
            db.inner.shared.discard(Weak::new(), old);
            let mut state = collection.inner.state.write().expect("no panic while held");
            state.grow(spec.clone());
            collection.inner.specs.push(spec);
            Ok(())
        })
        .await
    }
}

impl Collection {
    /// An index of a field; what is not said is as it is, and where there is none, as usual.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no field.
    pub fn index_of(&self, field: &str, metric: Option<Metric>, kind: Option<IndexKind>) -> Result<IndexSpec> {
        let spec = self.spec();
        let name = spec.index_name(field)?;
        let place = IndexSpec { metric: Metric::L2, kind: IndexKind::Inverted };
        let usual = || spec.schema.field(&name).map_or(place, CollectionSpec::usual_index);
        let usual = spec.indexes.get(&name).copied().unwrap_or_else(usual);
        Ok(IndexSpec { metric: metric.unwrap_or(usual.metric), kind: kind.unwrap_or(usual.kind) })
    }

    /// The view with what has expired left out.
    pub(super) fn view(&self, view: View) -> View {
        View { since: self.expired_before(), ..view }
    }

    /// Rows that were written before have expired.
    pub(super) fn expired_before(&self) -> Timestamp {
        self.spec()
            .schema
            .ttl_seconds()
            .map_or(View::NOW.since, |seconds| expired_before(seconds, self.inner.shared.options.environment.now_ms()))
    }
}

/// What was written before has expired at `now_ms`: a row lasts for all of its seconds, and is gone when they are over.
fn expired_before(ttl_seconds: u64, now_ms: u64) -> Timestamp {
    Timestamp::new((now_ms + 1).saturating_sub(ttl_seconds.saturating_mul(1000)), 0)
}

/// Whether rows of `earlier` are rows of `schema` but for fields that were added.
pub(super) fn has_grown_from(schema: &Schema, earlier: &Schema) -> bool {
    schema.fields().starts_with(earlier.fields())
        && (earlier.dynamic(), earlier.auto_id()) == (schema.dynamic(), schema.auto_id())
        && earlier.partition_key() == schema.partition_key()
        && earlier.partitioned() <= schema.partitioned()
        && earlier.primary_key() == schema.primary_key()
}

#[cfg(native)]
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::base::compress::Codec;
    use crate::base::{ErrorKind, ReplicaId, Sequence, Version};
    use crate::db::{Options, QueryRequest, SearchRequest};
    use crate::engine::{ChangeSet, SealPolicy};
    use crate::model::{Batch, DataType, Key, Row, Value};
    use crate::platform::{Environment, block_on};
    use crate::storage::MemoryDisk;

    async fn put(collection: &Collection, ids: std::ops::Range<i64>) {
        let rows = ids.map(|id| Row::from([("id".to_owned(), Value::Int(id))])).collect();
        collection.upsert(Batch::from_rows(&collection.spec().schema, rows).unwrap()).await.unwrap();
    }

    async fn work(db: &Db) {
        while db.maintain().await.unwrap() {}
    }

    async fn flushed(collection: &Collection) -> usize {
        collection.stats().await.unwrap().states.flushed
    }

    fn ids(options: CollectionOptions) -> CollectionSpec {
        let schema = Schema::new(vec![Field::new("id", DataType::Int64)], "id", false).unwrap();
        CollectionSpec { schema: schema.into(), indexes: BTreeMap::new(), options }
    }

    #[test]
    fn segments_are_sealed_by_age_and_when_nothing_was_written_for_long() {
        block_on(async {
            let environment = Environment::simulated(1, 1_000_000);
            let options = Options { environment: environment.clone(), ..Options::default() };
            let db = Db::open(Arc::new(MemoryDisk::new().open().unwrap()), options).await.unwrap();
            let seal = |age_ms, idle_ms| CollectionOptions {
                seal: SealPolicy { age_ms, idle_ms, ..SealPolicy::default() },
                ..CollectionOptions::default()
            };
            let old = db.create_collection("old", ids(seal(Some(10_000), None))).await.unwrap();
            let idle = db.create_collection("idle", ids(seal(None, Some(4_000)))).await.unwrap();
            work(&db).await;
            environment.advance_ms(60_000);
            assert_eq!(db.seal_due_ms(), None, "nothing was written");
            for at in 0..4 {
                put(&old, at * 3..at * 3 + 3).await;
                put(&idle, at * 3..at * 3 + 3).await;
                work(&db).await;
                assert!(db.seal_due_ms().unwrap() <= 4_000);
                environment.advance_ms(3_000);
                work(&db).await;
                assert_eq!((flushed(&old).await, flushed(&idle).await), (usize::from(at == 3), 0), "after {at}");
            }
            environment.advance_ms(1_500);
            work(&db).await;
            assert_eq!((flushed(&old).await, flushed(&idle).await), (1, 1));
            assert_eq!(db.seal_due_ms(), None);
            // A delete alone is a change like others.
            idle.delete(crate::db::Target::Keys(vec![1.into()])).await.unwrap();
            work(&db).await;
            environment.advance_ms(5_000);
            work(&db).await;
            assert_eq!((flushed(&idle).await, idle.count(None).await.unwrap()), (2, 11));
        });
    }

    #[test]
    fn options_of_a_collection_come_before_those_of_the_store_and_last() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let few = SealPolicy { rows: Some(100), ..SealPolicy::default() };
            let rows = db
                .create_collection(
                    "rows",
                    ids(CollectionOptions {
                        codec: Some(Codec::Gzip),
                        seal: few,
                        ef: None,
                        ..CollectionOptions::default()
                    }),
                )
                .await;
            let rows = rows.unwrap();
            put(&rows, 0..99).await;
            work(&db).await;
            assert_eq!(flushed(&rows).await, 0);
            put(&rows, 99..100).await;
            work(&db).await;
            db.set_options(
                "rows",
                CollectionOptions {
                    codec: Some(Codec::Snappy),
                    seal: few,
                    ef: Some(48),
                    ..CollectionOptions::default()
                },
            )
            .await
            .unwrap();
            put(&rows, 100..200).await;
            work(&db).await;
            db.set_options("rows", CollectionOptions::default()).await.unwrap();
            put(&rows, 200..300).await;
            work(&db).await;
            assert_eq!(flushed(&rows).await, 2);
            db.flush("rows").await.unwrap();
            let codecs = |collection: &Collection| {
                let state = collection.inner.state.read().unwrap();
                let stored = state.slots().filter_map(|slot| Some(slot.segment.stored().first()?.codec));
                stored.collect::<Vec<_>>()
            };
            let expected = [Codec::Gzip, Codec::Snappy, Codec::Zstd];
            assert_eq!(codecs(&rows), expected);
            let refused = CollectionOptions {
                codec: None,
                seal: SealPolicy { rows: Some(0), ..few },
                ef: None,
                ..CollectionOptions::default()
            };
            assert_eq!(db.set_options("rows", refused).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
            assert_eq!(
                db.create_collection("other", ids(refused)).await.err().map(|error| error.kind()),
                Some(ErrorKind::InvalidArgument)
            );
            db.set_options(
                "rows",
                CollectionOptions { codec: Some(Codec::Lz4), seal: few, ef: None, ..CollectionOptions::default() },
            )
            .await
            .unwrap();
            drop(rows);
            db.close().await.unwrap();
            let db = open(&disk).await;
            let rows = db.collection("rows").unwrap();
            assert_eq!((codecs(&rows), rows.count(None).await.unwrap()), (expected.to_vec(), 300));
            assert_eq!(
                rows.spec().options,
                CollectionOptions { codec: Some(Codec::Lz4), seal: few, ef: None, ..CollectionOptions::default() }
            );
            db.compact("rows").await.unwrap();
            assert_eq!((codecs(&rows), rows.count(Some("id >= 100")).await.unwrap()), (vec![Codec::Lz4], 200));
        });
    }

    #[test]
    fn a_row_lasts_for_all_of_its_seconds() {
        assert_eq!(expired_before(2, 10_000), Timestamp::new(8_001, 0));
        assert_eq!(expired_before(u64::MAX, 10_000), Timestamp(0));
    }

    async fn open(disk: &MemoryDisk) -> Db {
        Db::open(Arc::new(disk.open().unwrap()), Options::default()).await.unwrap()
    }

    /// Rows of another replica, written an hour ago and now.
    async fn fill(collection: &Collection) {
        let schema = &collection.spec().schema;
        for (id, age_ms) in [(1, 3_600_000), (2, 3_600_000), (3, 0)] {
            let row = Row::from([("id".to_owned(), Value::Int(id))]);
            let puts = Batch::from_rows(schema, vec![row]).unwrap();
            let timestamp = Timestamp::new(Options::default().environment.now_ms() - age_ms, 0);
            let version = Version { timestamp, origin: ReplicaId(7), sequence: Sequence(id as u64) };
            let changes = ChangeSet { puts, put_versions: vec![version], deletes: vec![] };
            collection.apply(changes, None).await.unwrap();
        }
    }

    async fn keys(collection: &Collection) -> Vec<Value> {
        let rows = collection.query(&QueryRequest::default()).await.unwrap();
        rows.iter().map(|row| row["id"].clone()).collect()
    }

    #[test]
    fn expired_rows_are_gone_at_once_and_reclaimed_later() {
        block_on(async {
            let disk = MemoryDisk::new();
            let db = open(&disk).await;
            let schema = Schema::new(vec![Field::new("id", DataType::Int64)], "id", false).unwrap();
            let spec = CollectionSpec { schema: schema.into(), indexes: BTreeMap::new(), options: Default::default() };
            let rows = db.create_collection("rows", spec).await.unwrap();
            fill(&rows).await;
            db.flush("rows").await.unwrap();
            let snapshot = rows.snapshot().unwrap();
            assert_eq!(keys(&rows).await.len(), 3);
            db.set_ttl("rows", Some(1_800)).await.unwrap();
            assert_eq!(keys(&rows).await, [Value::Int(3)]);
            assert_eq!(rows.count(None).await.unwrap(), 1);
            assert_eq!(snapshot.count(None).await.unwrap(), 1);
            assert_eq!(rows.get(&[1.into(), 3.into()], None).await.unwrap().len(), 1);
            drop(snapshot);
            // Their keys are free again.
            let again = rows.to_batch(vec![Row::from([("id".to_owned(), Value::Int(1))])]).unwrap();
            rows.insert(again).await.unwrap();
            assert_eq!(keys(&rows).await, [Value::Int(1), Value::Int(3)]);
            while db.maintain().await.unwrap() {}
            assert_eq!((rows.stats().await.unwrap().rows, rows.count(None).await.unwrap()), (2, 2));
            db.flush("rows").await.unwrap();
            while db.maintain().await.unwrap() {}
            assert_eq!(rows.stats().await.unwrap().rows_dead, 0, "what has expired was compacted away");
            db.close().await.unwrap();

            let db = open(&disk).await;
            let rows = db.collection("rows").unwrap();
            assert_eq!(rows.spec().schema.ttl_seconds(), Some(1_800));
            assert_eq!(keys(&rows).await, [Value::Int(1), Value::Int(3)]);
            // What comes late has expired on arrival.
            fill(&rows).await;
            assert_eq!(keys(&rows).await, [Value::Int(1), Value::Int(3)]);
            let error = db.set_ttl("rows", Some(0)).await.unwrap_err();
            assert!(error.message().contains("ttlSeconds is 0"), "{error}");
            db.set_ttl("rows", None).await.unwrap();
            assert_eq!(rows.spec().schema.ttl_seconds(), None);
            db.close().await.unwrap();
        });
    }

    const INDEXED: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
        {"name":"n","type":"int16","nullable":true},{"name":"t","type":"varchar","nullable":true},
        {"name":"s","type":"sparse_float_vector","nullable":true},{"name":"v","type":"float_vector","dim":4}],
        "indexes":{"v":{"metric":"L2","kind":"FLAT"},"s":{"metric":"IP","kind":"FLAT"}}}"#;

    async fn put_indexed(collection: &Collection, ids: std::ops::Range<i64>) {
        let row = |id: i64| {
            let mut row = Row::from([("id".to_owned(), Value::Int(id))]);
            let x = id as f32;
            row.insert("v".to_owned(), Value::Vector(vec![x.sin(), (x * 0.7).sin(), (x * 1.3).sin(), (x * 2.1).sin()]));
            if id % 5 > 0 {
                row.insert("n".to_owned(), Value::Int(id * 7 % 31));
                row.insert("t".to_owned(), Value::String(format!("k{}", id % 17)));
                row.insert("s".to_owned(), Value::Sparse(vec![((id % 13) as u32, 1.5), (20 + (id % 7) as u32, 0.25)]));
            }
            row
        };
        let rows = ids.map(row).collect();
        collection.upsert(Batch::from_rows(&collection.spec().schema, rows).unwrap()).await.unwrap();
    }

    /// What filters and searches of sparse vectors answer, as text, and the keys that are nearest to a vector.
    async fn answers(collection: &Collection) -> (Vec<String>, Vec<Vec<Key>>) {
        let (mut answers, mut near) = (Vec::new(), Vec::new());
        for filter in ["n == 3", "n > 12 and t like 'k1%'", "not (n in [1, 2, 3])", "t is null", "t >= 'k3' or n < 2"] {
            let request = QueryRequest { filter: Some(filter.to_owned()), ..Default::default() };
            let rows = collection.query(&request).await.unwrap();
            answers.push(format!("{filter}: {:?}", rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>()));
        }
        for filter in [None, Some("n > 5".to_owned())] {
            let request = |field: &str, vector: Value| SearchRequest {
                field: Some(field.to_owned()),
                vector,
                filter: filter.clone(),
                limit: 10,
                ..Default::default()
            };
            let sparse = request("s", Value::Sparse(vec![(3, 1.0), (22, 2.0)]));
            let hits = collection.search(&sparse).await.unwrap().hits;
            // Which of those that are as close come depends on how rows lie in segments.
            answers.push(format!("{:?}", hits.iter().map(|hit| hit.score).collect::<Vec<_>>()));
            let params = crate::index::SearchParams { nprobe: Some(64), reorder_k: Some(400), ..Default::default() };
            let request =
                SearchRequest { ef: Some(400), params, ..request("v", Value::Vector(vec![0.3, -0.2, 0.9, 0.1])) };
            near.push(collection.search(&request).await.unwrap().hits.into_iter().map(|hit| hit.key).collect());
        }
        (answers, near)
    }

    /// What is exact must be the same; of what is near, nine of ten.
    fn check((found, near): &(Vec<String>, Vec<Vec<Key>>), expected: &(Vec<String>, Vec<Vec<Key>>), when: &str) {
        for (found, expected) in found.iter().zip(&expected.0) {
            assert!(found == expected, "{when}: {found:.300} instead of {expected:.300}");
        }
        for (found, expected) in near.iter().zip(&expected.1) {
            let common = found.iter().filter(|key| expected.contains(key)).count();
            assert!(found.len() == expected.len() && common >= 9, "{when}: {found:?} instead of {expected:?}");
        }
    }

    async fn by_index(collection: &Collection, field: &str) -> (usize, usize) {
        let vector = if field == "v" { Value::Vector(vec![1.0; 4]) } else { Value::Sparse(vec![(3, 1.0)]) };
        let request = SearchRequest { field: Some(field.to_owned()), vector, limit: 5, ..Default::default() };
        let response = collection.search(&request).await.unwrap();
        (response.segments_by_index, response.segments_by_scan)
    }

    /// Indexes that come and go change no answer, at no step of the work behind them, whatever is written meanwhile, and not after a
    /// crash in the midst of it.
    #[test]
    fn indexes_come_and_go_on_a_living_collection() {
        block_on(async {
            let storage = crate::storage::FaultStorage::new(11);
            let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
            for name in ["rows", "plain"] {
                let spec = serde_json::from_str(INDEXED).unwrap();
                let rows = db.create_collection(name, spec).await.unwrap();
                put_indexed(&rows, 0..1_600).await;
                db.flush(name).await.unwrap();
                put_indexed(&rows, 1_500..2_700).await;
                db.flush(name).await.unwrap();
                put_indexed(&rows, 2_700..4_000).await;
                rows.delete(crate::db::Target::Filter("id % 19 == 4".to_owned())).await.unwrap();
            }
            let kind = |json: &str| serde_json::from_str::<IndexSpec>(json).unwrap();
            let mut next = 4_000;
            let mut db = db;
            let changes: [(&str, Option<&str>); 9] = [
                ("n", Some(r#"{"kind":"INVERTED"}"#)),
                ("t", Some(r#"{"kind":"TRIE"}"#)),
                ("s", Some(r#"{"metric":"IP","kind":"SPARSE_INVERTED_INDEX"}"#)),
                ("v", Some(r#"{"metric":"L2","kind":{"IVF_SQ8":{"nlist":16}}}"#)),
                ("v", Some(r#"{"metric":"IP","kind":{"HNSW":{"m":8,"ef_construction":40}}}"#)),
                ("n", None),
                ("n", Some(r#"{"kind":"BITMAP"}"#)),
                ("s", None),
                ("v", None),
            ];
            for (at, (field, index)) in changes.into_iter().enumerate() {
                match index {
                    Some(index) => db.create_index("rows", field, kind(index)).await.unwrap(),
                    None => db.drop_index("rows", field).await.unwrap(),
                }
                if field == "v"
                    && let Some(index) = index
                {
                    let flat = IndexSpec { kind: IndexKind::Flat, ..kind(index) };
                    db.create_index("plain", field, flat).await.unwrap();
                }
                let mut steps = 0;
                loop {
                    let (rows, plain) = (db.collection("rows").unwrap(), db.collection("plain").unwrap());
                    if steps % 40 < 3 {
                        let when = format!("{field} {index:?}, step {steps}");
                        check(&answers(&rows).await, &answers(&plain).await, &when);
                    }
                    if steps == 2 {
                        for collection in [&rows, &plain] {
                            put_indexed(collection, next..next + 50).await;
                        }
                        next += 50;
                    }
                    if steps == 3 && at % 2 == 1 {
                        // The process dies in the midst.
                        db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
                    }
                    steps += 1;
                    if !db.maintain().await.unwrap() {
                        break;
                    }
                }
                let (rows, plain) = (db.collection("rows").unwrap(), db.collection("plain").unwrap());
                let expected = answers(&plain).await;
                check(&answers(&rows).await, &expected, &format!("{field} {index:?}, built"));
                if field != "n" && field != "t" {
                    let (built, scanned) = by_index(&rows, field).await;
                    assert_eq!(index.is_some(), built > 0, "{field} {index:?}: {built} {scanned}");
                }
                let has = |field: &str| {
                    let state = rows.inner.state.read().unwrap();
                    state.slots().all(|slot| slot.segment.terms(field).is_some())
                };
                assert!(field != "n" && field != "t" || has(field) == index.is_some());
                drop(rows);
                db.close().await.unwrap();
                db = Db::open(Arc::new(storage.reopen()), Options::default()).await.unwrap();
                let again = answers(&db.collection("rows").unwrap()).await;
                check(&again, &expected, &format!("{field} {index:?}, opened"));
            }
            let rows = db.collection("rows").unwrap();
            let files = rows.stats().await.unwrap().files;
            assert!(files["terms"] > 0 && !files.contains_key("index"), "{files:?}");
            for (field, index, error) in [
                ("x", r#"{"kind":"INVERTED"}"#, ErrorKind::InvalidArgument),
                ("v", r#"{"metric":"IP","kind":"TRIE"}"#, ErrorKind::InvalidArgument),
            ] {
                assert_eq!(db.create_index("rows", field, kind(index)).await.unwrap_err().kind(), error);
            }
            assert_eq!(db.drop_index("rows", "s").await.err(), None, "a vector is scanned then");
            assert_eq!(db.drop_index("rows", "id").await.unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!(db.drop_index("gone", "id").await.unwrap_err().kind(), ErrorKind::NotFound);
        });
    }
}
