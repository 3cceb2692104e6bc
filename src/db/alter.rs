use super::{Collection, Db};
use crate::base::{Error, Result, Timestamp};
use crate::engine::{CollectionSpec, View};
use crate::index::IndexSpec;
use crate::model::{Field, Schema};
use crate::platform;

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

    /// Changes what a collection is made of in a way that all of its rows fit.
    pub(super) async fn alter(
        &self,
        collection: &Collection,
        edit: impl FnOnce(&mut CollectionSpec) -> Result<()> + Send + 'static,
    ) -> Result<()> {
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
    use crate::base::{ReplicaId, Sequence, Version};
    use crate::db::{Options, QueryRequest};
    use crate::engine::ChangeSet;
    use crate::model::{Batch, DataType, Row, Value};
    use crate::platform::block_on;
    use crate::storage::MemoryDisk;

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
            let spec = CollectionSpec { schema: schema.into(), indexes: BTreeMap::new() };
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
