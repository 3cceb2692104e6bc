use super::{Collection, Db};
use crate::base::{Error, Result};
use crate::engine::CollectionSpec;
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
            *collection.inner.merge.lock().await = None;
            let mut state = collection.inner.state.write().expect("no panic while held");
            state.grow(spec.clone());
            collection.inner.specs.push(spec);
            Ok(())
        })
        .await
    }
}

/// Whether rows of `earlier` are rows of `schema` but for fields that were added.
pub(super) fn has_grown_from(schema: &Schema, earlier: &Schema) -> bool {
    earlier.fields().len() < schema.fields().len()
        && schema.fields().starts_with(earlier.fields())
        && (earlier.dynamic(), earlier.auto_id()) == (schema.dynamic(), schema.auto_id())
        && earlier.primary_key() == schema.primary_key()
}
