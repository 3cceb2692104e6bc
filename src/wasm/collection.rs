use std::cell::RefCell;
use std::rc::Rc;

use wasm_bindgen::prelude::*;

use super::changes::ChangeStream;
use super::error::{OrThrow, Thrown};
use super::iterator::{RowIterator, Source};
use super::live::LiveQueries;
use super::message::{
    self, ChangesMessage, FieldMessage, GetMessage, IndexMessage, QueryMessage, RowsMessage, SchemaMessage,
    SearchMessage, SearchResponseMessage, StatsMessage, WriteMessage, WriteRequestMessage,
};
use crate::base::{Error, ErrorKind, Lsn, Timestamp};
use crate::db::{CONSISTENCY_TIMEOUT_MS, Consistency, Db, Snapshot, TuneRequest, WriteRequest};
use crate::engine::RequestId;
use crate::model::{Key, Row, Value};

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
    view: RefCell<Reads>,
}

/// What reads see.
enum Reads {
    Now,
    Snapshot(Rc<Snapshot>),
    Nothing,
}

impl Collection {
    pub(super) fn new(db: &Db, collection: crate::db::Collection) -> Self {
        Self { db: db.clone(), collection, view: RefCell::new(Reads::Now) }
    }

    /// A snapshot of what is read.
    fn held(&self) -> Thrown<Snapshot> {
        match self.snapshot_read()? {
            Some(snapshot) => Ok(snapshot.again()),
            None => self.collection.snapshot().or_throw(),
        }
    }

    /// The snapshot that is read; `None` for what is there now.
    fn snapshot_read(&self) -> Thrown<Option<Rc<Snapshot>>> {
        match &*self.view.borrow() {
            Reads::Now => Ok(None),
            Reads::Snapshot(snapshot) => Ok(Some(snapshot.clone())),
            Reads::Nothing => {
                Err(Error::new(ErrorKind::Gone, "the snapshot was released; take another one")).or_throw()
            }
        }
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

    /// Gives a field an index, or a vector another one.
    #[wasm_bindgen(js_name = createIndex)]
    pub async fn create_index(&self, field: String, index: Vec<u8>) -> Thrown<()> {
        let index = message::decode::<IndexMessage>("the index", &index).or_throw()?;
        let index = index.into_spec(&self.collection, &field).or_throw()?;
        self.db.create_index(self.collection.name(), &field, index).await.or_throw()
    }

    /// Takes the index of a field away.
    #[wasm_bindgen(js_name = dropIndex)]
    pub async fn drop_index(&self, field: String) -> Thrown<()> {
        self.db.drop_index(self.collection.name(), &field).await.or_throw()
    }

    /// Has it keep its rows so from now on.
    #[wasm_bindgen(js_name = setOptions)]
    pub async fn set_options(&self, options: Vec<u8>) -> Thrown<()> {
        let options = message::decode("options", &options).or_throw()?;
        self.db.set_options(self.collection.name(), options).await.or_throw()
    }

    /// How its rows are kept.
    pub fn options(&self) -> Vec<u8> {
        message::encode(&self.collection.spec().options)
    }

    /// Has its rows expire so many seconds after they were written; never without.
    #[wasm_bindgen(js_name = setTtl)]
    pub async fn set_ttl(&self, seconds: Option<f64>) -> Thrown<()> {
        // What is no whole number of seconds becomes one that is refused.
        let seconds = seconds.map(|seconds| if seconds.fract() == 0.0 { seconds as u64 } else { 0 });
        self.db.set_ttl(self.collection.name(), seconds).await.or_throw()
    }

    /// The names of its partitions.
    pub fn partitions(&self) -> Vec<String> {
        self.collection.partitions()
    }

    /// What has lost against changes of other replicas: rows with their key, versions and time beside their fields.
    pub async fn conflicts(&self, bigint: bool) -> Thrown<Vec<u8>> {
        let told = self.collection.conflicts().await.or_throw()?.into_iter().map(|conflict| {
            let is_deleted = conflict.row.is_none();
            let mut row = conflict.row.unwrap_or_default();
            let key = match conflict.key {
                Key::Int(key) => Value::Int(key),
                Key::String(key) => Value::String(key.to_string()),
            };
            row.insert("$key".to_owned(), key);
            row.insert("$deleted".to_owned(), Value::Bool(is_deleted));
            row.insert("$version".to_owned(), Value::String(conflict.version.to_string()));
            row.insert("$winner".to_owned(), Value::String(conflict.winner.to_string()));
            row.insert("$at".to_owned(), Value::Double(conflict.at_ms as f64));
            row
        });
        let rows: Vec<Row> = told.collect();
        RowsMessage::new(&self.collection.spec().schema, &rows, bigint).and_then(|rows| rows.encode()).or_throw()
    }

    /// Creates a partition.
    #[wasm_bindgen(js_name = createPartition)]
    pub async fn create_partition(&self, partition: String) -> Thrown<()> {
        self.db.create_partition(self.collection.name(), &partition).await.or_throw()
    }

    /// Removes a partition with its rows.
    #[wasm_bindgen(js_name = dropPartition)]
    pub async fn drop_partition(&self, partition: String) -> Thrown<()> {
        self.db.drop_partition(self.collection.name(), &partition).await.or_throw()
    }

    /// Does all of the operations, in order, or none. `mark` says how the client would ask again: its number, that of the request, that of
    /// the first request whose answer it does not have, and whether it does ask again.
    pub async fn write(&self, request: Vec<u8>, mark: Option<Vec<f64>>) -> Thrown<Vec<u8>> {
        let (operations, mut options) = WriteRequestMessage::decode(&request, &self.collection).or_throw()?;
        drop(request);
        if let Some(&[client, number, settled, again]) = mark.as_deref() {
            let id = RequestId { client: client as u64, number: number as u64 };
            options.request = Some(WriteRequest { id, settled: settled as u64, again: again != 0.0 });
        }
        let auto_id = self.collection.spec().schema.auto_id();
        let keys = auto_id.then(|| message::keys_written(&operations));
        let mut written = self.collection.batch(operations, options).await.or_throw()?;
        // Of a write that was done before the keys are those that it has given then.
        let given = std::mem::take(&mut written.keys);
        let keys = if given.is_empty() { keys } else { Some(given) };
        Ok(message::encode(&WriteMessage::new(&written, keys)))
    }

    /// The same collection as it is now, or was at that hybrid time, for reading only.
    pub fn snapshot(&self, at: Option<u64>) -> Thrown<Self> {
        let snapshot = match at {
            Some(at) => self.collection.snapshot_at(Timestamp(at)),
            None => self.collection.snapshot(),
        };
        let view = RefCell::new(Reads::Snapshot(Rc::new(snapshot.or_throw()?)));
        Ok(Self { db: self.db.clone(), collection: self.collection.clone(), view })
    }

    /// Ends a snapshot, after what runs on it.
    pub fn release(&self) {
        self.view.replace(Reads::Nothing);
    }

    /// Rows by key.
    pub async fn get(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let mut request = message::decode::<GetMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let partitions = std::mem::take(&mut request.partitions);
        let schema = &self.collection.spec().schema;
        let (keys, fields) = request.into_keys(schema).or_throw()?;
        let rows = match self.snapshot_read()? {
            Some(snapshot) => snapshot.get_within(&keys, fields.as_deref(), &partitions).await,
            None => self.collection.get_within(&keys, fields.as_deref(), &partitions).await,
        };
        let rows = rows.or_throw()?;
        RowsMessage::new(schema, &rows, bigint).and_then(|rows| rows.encode()).or_throw()
    }

    /// Rows by filter.
    pub async fn query(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<QueryMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let request = request.into_request().or_throw()?;
        let rows = match self.snapshot_read()? {
            Some(snapshot) => snapshot.query(&request).await,
            None => self.collection.query(&request).await,
        };
        let rows = rows.or_throw()?;
        RowsMessage::new(&self.collection.spec().schema, &rows, bigint).and_then(|rows| rows.encode()).or_throw()
    }

    /// How many rows a filter selects.
    pub async fn count(&self, request: Vec<u8>) -> Thrown<f64> {
        let request = message::decode::<QueryMessage>("the request", &request).or_throw()?;
        let request = request.into_request().or_throw()?;
        let count = match self.snapshot_read()? {
            Some(snapshot) => snapshot.count_of(&request).await,
            None => self.collection.count_of(&request).await,
        };
        Ok(count.or_throw()? as f64)
    }

    /// The nearest rows, or the hits of several searches, ranked together.
    pub async fn search(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode::<SearchMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let schema = &self.collection.spec().schema;
        let snapshot = self.snapshot_read()?;
        let started = performance_now();
        let response = if request.is_hybrid() {
            let request = request.into_hybrid(schema).or_throw()?;
            match snapshot {
                Some(snapshot) => snapshot.hybrid_search(&request).await,
                None => self.collection.hybrid_search(&request).await,
            }
        } else {
            let request = request.into_request(schema).or_throw()?;
            match snapshot {
                Some(snapshot) => snapshot.search(&request).await,
                None => self.collection.search(&request).await,
            }
        };
        let response = response.or_throw()?;
        let ms = performance_now() - started;
        SearchResponseMessage::new(schema, &response, ms, bigint).and_then(|response| response.encode()).or_throw()
    }

    /// Waits until reads see as much of what was written elsewhere as `level` asks for.
    #[wasm_bindgen(js_name = atLeast)]
    pub async fn at_least(
        &self,
        level: String,
        bounded_ms: Option<f64>,
        tokens: Vec<String>,
        timeout_ms: Option<f64>,
    ) -> Thrown<()> {
        if self.snapshot_read()?.is_some() {
            return Err(Error::invalid("a snapshot sees what it saw, whatever the consistency")).or_throw();
        }
        let consistency = Consistency::of(&level, bounded_ms.map(|ms| ms as u64), &tokens).or_throw()?;
        let timeout_ms = timeout_ms.map_or(CONSISTENCY_TIMEOUT_MS, |ms| ms as u64);
        self.collection.at_least(&consistency, timeout_ms).await.or_throw().map(drop)
    }

    /// How a search is done, or was with `profile`; of a query with `query`.
    pub async fn explain(&self, request: Vec<u8>, query: bool, profile: bool) -> Thrown<Vec<u8>> {
        let held = self.held()?;
        let plan = if query {
            let request = message::decode::<QueryMessage>("the request", &request).or_throw()?;
            held.explain_query(&request.into_request().or_throw()?, profile).await
        } else {
            let request = message::decode::<SearchMessage>("the request", &request).or_throw()?;
            let schema = &self.collection.spec().schema;
            if request.is_hybrid() {
                held.explain_hybrid(&request.into_hybrid(schema).or_throw()?, profile).await
            } else {
                held.explain_search(&request.into_request(schema).or_throw()?, profile).await
            }
        };
        Ok(message::encode(&plan.or_throw()?))
    }

    /// Begins to go through the rows from the nearest on.
    #[wasm_bindgen(js_name = searchIterator)]
    pub async fn search_iterator(&self, request: Vec<u8>) -> Thrown<RowIterator> {
        let request = message::decode::<SearchMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let request = request.into_request(&self.collection.spec().schema).or_throw()?;
        let iterator = self.held()?.search_iterator(request).await.or_throw()?;
        Ok(RowIterator::new(self.collection.clone(), Source::Search(Box::new(iterator)), bigint))
    }

    /// Begins to go through the rows of a query.
    #[wasm_bindgen(js_name = queryIterator)]
    pub fn query_iterator(&self, request: Vec<u8>) -> Thrown<RowIterator> {
        let request = message::decode::<QueryMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let iterator = self.held()?.query_iterator(request.into_request().or_throw()?).or_throw()?;
        Ok(RowIterator::new(self.collection.clone(), Source::Query(Box::new(iterator)), bigint))
    }

    /// Follows what happens.
    pub async fn changes(&self, request: Vec<u8>) -> Thrown<ChangeStream> {
        let request = message::decode::<ChangesMessage>("the request", &request).or_throw()?;
        let bigint = request.bigint;
        let stream = self.collection.changes(request.into_request().or_throw()?).await.or_throw()?;
        Ok(ChangeStream::new(self.collection.clone(), stream, bigint))
    }

    /// Begins to keep answers current.
    pub async fn live(&self) -> Thrown<LiveQueries> {
        Ok(LiveQueries::new(self.collection.clone(), self.collection.live().await.or_throw()?))
    }

    /// Notes how far a subscription has got.
    pub async fn acknowledge(&self, subscription: String, token: String) -> Thrown<()> {
        let token = token.parse().or_throw()?;
        self.collection.acknowledge(&subscription, &token).await.or_throw()
    }

    /// Ends a subscription.
    pub async fn unsubscribe(&self, subscription: String) -> Thrown<bool> {
        self.collection.unsubscribe(&subscription).await.or_throw()
    }

    /// The names of subscriptions, and how far each has got.
    pub fn subscriptions(&self) -> Vec<u8> {
        let subscriptions = self.collection.subscriptions().into_iter().map(|(name, lsn)| (name, lsn.0 as f64));
        message::encode(&crate::base::map_of(subscriptions))
    }

    /// Recall and latency of searches by `ef`.
    pub async fn evaluate(&self, request: Vec<u8>) -> Thrown<Vec<u8>> {
        let request = message::decode("the request", &request).or_throw()?;
        Ok(message::encode(&self.collection.evaluate(&request).await.or_throw()?))
    }

    /// The least `ef` that reaches a recall.
    pub async fn tune(&self, request: Vec<u8>, recall: f64, store: bool) -> Thrown<Vec<u8>> {
        let evaluate = message::decode("the request", &request).or_throw()?;
        let request = TuneRequest { evaluate, recall, store };
        Ok(message::encode(&self.db.tune(self.collection.name(), &request).await.or_throw()?))
    }

    /// Writes the growing segment to storage.
    pub async fn flush(&self) -> Thrown<()> {
        self.db.flush(self.collection.name()).await.or_throw()
    }

    /// Flushes, and has background work merge what can be merged from then on.
    #[wasm_bindgen(js_name = beginCompaction)]
    pub async fn begin_compaction(&self) -> Thrown<()> {
        self.db.flush(self.collection.name()).await.or_throw()?;
        self.db.begin_compaction(&self.collection);
        Ok(())
    }

    /// Whether that is under way.
    #[wasm_bindgen(js_name = isCompacting)]
    pub fn is_compacting(&self) -> bool {
        self.db.is_compacting(&self.collection)
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
