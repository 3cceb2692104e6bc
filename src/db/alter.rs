use super::{Collection, Db};
use crate::base::{Error, Result, Timestamp};
use crate::engine::{CollectionOptions, CollectionSpec, View};
use crate::index::IndexSpec;
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
            let mut spec = collection.spec().clone();
            edit(&mut spec)?;
            let spec = spec.completed()?;
            let id = collection.id();
            db.inner
                .shared
                .swap_manifest(|manifest| {
                    let described = manifest.collection_mut(id);
                    described.ok_or_else(|| Error::not_found("the collection was dropped"))?.spec = spec.clone();
                    Ok(())
                })
                .await?;
            let mut state = collection.inner.state.write().expect("no panic while held");
            state.grow(spec.clone());
            collection.inner.specs.push(spec);
            Ok(())
        })
        .await
    }
}

impl Collection {
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
    use crate::db::{Options, QueryRequest};
    use crate::engine::{ChangeSet, SealPolicy};
    use crate::model::{Batch, DataType, Row, Value};
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
                .create_collection("rows", ids(CollectionOptions { codec: Some(Codec::Gzip), seal: few, ef: None }))
                .await;
            let rows = rows.unwrap();
            put(&rows, 0..99).await;
            work(&db).await;
            assert_eq!(flushed(&rows).await, 0);
            put(&rows, 99..100).await;
            work(&db).await;
            db.set_options("rows", CollectionOptions { codec: Some(Codec::Snappy), seal: few, ef: Some(48) })
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
            let refused = CollectionOptions { codec: None, seal: SealPolicy { rows: Some(0), ..few }, ef: None };
            assert_eq!(db.set_options("rows", refused).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
            assert_eq!(
                db.create_collection("other", ids(refused)).await.err().map(|error| error.kind()),
                Some(ErrorKind::InvalidArgument)
            );
            db.set_options("rows", CollectionOptions { codec: Some(Codec::Lz4), seal: few, ef: None }).await.unwrap();
            drop(rows);
            db.close().await.unwrap();
            let db = open(&disk).await;
            let rows = db.collection("rows").unwrap();
            assert_eq!((codecs(&rows), rows.count(None).await.unwrap()), (expected.to_vec(), 300));
            assert_eq!(rows.spec().options, CollectionOptions { codec: Some(Codec::Lz4), seal: few, ef: None });
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
}
