use wasm_bindgen::prelude::*;

use super::error::{OrThrow, Thrown};
use super::message::{
    self, DeleteMessage, FieldMessage, GetMessage, QueryMessage, RowsMessage, SchemaMessage, SearchMessage,
    SearchResponseMessage, StatsMessage, WriteMessage,
};
use crate::base::Lsn;
use crate::db::{Db, WriteResponse};
use crate::model::{Batch, Key};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
}

/// A collection of an open store.
#[wasm_bindgen]
pub struct Collection {
    db: Db,
    collection: crate::db::Collection,
}

impl Collection {
    pub(super) fn new(db: &Db, collection: crate::db::Collection) -> Self {
        Self { db: db.clone(), collection }
    }

    fn batch(&self, rows: &[u8]) -> Thrown<Batch> {
        let schema = &self.collection.spec().schema;
        message::decode_rows(schema, rows).and_then(|rows| self.collection.to_batch(rows)).or_throw()
    }

    /// What was written, with the keys of rows that may have got theirs here.
    fn written(&self, written: WriteResponse, keys: Vec<Key>) -> Vec<u8> {
        let keys = self.collection.spec().schema.auto_id().then_some(keys);
        message::encode(&WriteMessage::new(&written, keys))
    }
}

#[wasm_bindgen]
impl Collection {
    /// Its schema, in the form that `createCollection` takes.
    pub fn describe(&self) -> Vec<u8> {
        message::encode(&SchemaMessage::from(self.collection.spec()))
    }

    /// Adds a field that rows may lack.
    #[wasm_bindgen(js_name = addField)]
    pub async fn add_field(&self, field: Vec<u8>) -> Thrown<()> {
        let field =
            message::decode::<FieldMessage>("the field", &field).and_then(FieldMessage::into_added).or_throw()?;
        self.db.add_field(self.collection.name(), field.0, field.1).await.or_throw()
    }

    /// Adds rows, all or none.
    pub async fn insert(&self, rows: Vec<u8>) -> Thrown<Vec<u8>> {
        let batch = self.batch(&rows)?;
        let keys = batch.keys();
        Ok(self.written(self.collection.insert(batch).await.or_throw()?, keys))
    }

    /// Adds or replaces rows, all or none.
    pub async fn upsert(&self, rows: Vec<u8>) -> Thrown<Vec<u8>> {
        let batch = self.batch(&rows)?;
        let keys = batch.keys();
        Ok(self.written(self.collection.upsert(batch).await.or_throw()?, keys))
    }

    /// Deletes rows by key or filter.
    pub async fn delete(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let target = message::decode::<DeleteMessage>("the request", &request)
            .and_then(|request| request.into_target(&self.collection.spec().schema))
            .or_throw()?;
        let written = self.collection.delete(target).await.or_throw()?;
        Ok(message::encode(&WriteMessage::new(&written, None)))
    }

    /// Rows by key.
    pub async fn get(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<GetMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let schema = &self.collection.spec().schema;
        let (keys, fields) = request.into_keys(schema).or_throw()?;
        let rows = self.collection.get(&keys, fields.as_deref()).await.or_throw()?;
        RowsMessage::new(schema, &rows, bigint).and_then(|rows| rows.encode()).or_throw()
    }

    /// Rows by filter.
    pub async fn query(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<QueryMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let rows = self.collection.query(&request.into()).await.or_throw()?;
        RowsMessage::new(&self.collection.spec().schema, &rows, bigint).and_then(|rows| rows.encode()).or_throw()
    }

    /// How many rows a filter selects.
    pub async fn count(&self, filter: Option<String>) -> Thrown<f64> {
        Ok(self.collection.count(filter.as_deref()).await.or_throw()? as f64)
    }

    /// The nearest rows.
    pub async fn search(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<SearchMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let request = request.into_request(&self.collection.spec().schema).or_throw()?;
        let started = performance_now();
        let response = self.collection.search(&request).await.or_throw()?;
        let ms = performance_now() - started;
        SearchResponseMessage::new(&self.collection.spec().schema, &response, ms, bigint)
            .and_then(|response| response.encode())
            .or_throw()
    }

    /// Writes the growing segment to storage.
    pub async fn flush(&self) -> Thrown<()> {
        self.db.flush(self.collection.name()).await.or_throw()
    }

    /// What it holds.
    pub async fn stats(&self) -> Thrown<Vec<u8>> {
        let stats = self.collection.stats().await.or_throw()?;
        Ok(message::encode(&StatsMessage::from((self.collection.name(), &stats))))
    }

    /// Waits until the local log is past `lsn`, and tells its newest position.
    #[wasm_bindgen(js_name = changedAfter)]
    pub async fn changed_after(&self, lsn: f64) -> Thrown<f64> {
        Ok(self.collection.changed_after(Lsn(lsn as u64)).await.or_throw()?.0 as f64)
    }
}
