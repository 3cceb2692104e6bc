//! What tests of sync share: devices that crash, rows, and waiting for an end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{SyncSession, SyncStatus};
use crate::db::{Collection, Db, Options, QueryRequest, Target};
use crate::engine::CollectionSpec;
use crate::model::{Batch, DataType, Field, Key, Row, Schema, Value};
use crate::storage::FaultStorage;

/// No test waits so long unless something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A store on a disk that a crash of the machine can be played on.
pub(crate) struct Device {
    pub(crate) storage: FaultStorage,
    pub(crate) db: Db,
}

impl Device {
    pub(crate) async fn new() -> Self {
        Self::on(FaultStorage::new(7)).await
    }

    pub(crate) async fn on(storage: FaultStorage) -> Self {
        let db = Db::open(Arc::new(storage.clone()), Options::default()).await.unwrap();
        Self { storage, db }
    }

    /// Loses what is not synced, and comes back.
    pub(crate) async fn crash(self) -> Self {
        Self::on(self.storage.reopen()).await
    }

    /// The collection, once it is there.
    pub(crate) async fn notes_once(&self) -> Collection {
        let wait = async {
            loop {
                if let Ok(notes) = self.db.collection("notes") {
                    return notes;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the collection comes")
    }

    pub(crate) fn notes(&self) -> Collection {
        self.db.collection("notes").unwrap()
    }
}

pub(crate) fn spec() -> CollectionSpec {
    let fields = vec![
        Field::new("id", DataType::Int64),
        Field::new("title", DataType::Varchar { max_length: 200 }),
        Field::new("embedding", DataType::FloatVector { dim: 4 }),
    ];
    CollectionSpec {
        schema: Arc::new(Schema::new(fields, "id", true).unwrap()),
        indexes: BTreeMap::new(),
        options: Default::default(),
    }
}

pub(crate) fn row(id: i64, title: &str) -> Row {
    [
        ("id".to_owned(), Value::Int(id)),
        ("title".to_owned(), Value::from(title)),
        ("embedding".to_owned(), Value::from(vec![id as f32, 1.0, -0.5, 0.25])),
        ("extra".to_owned(), Value::Json(serde_json::json!({"of": id}))),
    ]
    .into()
}

pub(crate) async fn put(notes: &Collection, rows: impl IntoIterator<Item = (i64, &str)>) {
    let rows = rows.into_iter().map(|(id, title)| row(id, title)).collect();
    notes.upsert(Batch::from_rows(&notes.spec().schema, rows).unwrap()).await.unwrap();
}

pub(crate) async fn delete(notes: &Collection, ids: &[i64]) {
    notes.delete(Target::Keys(ids.iter().map(|&id| Key::from(id)).collect())).await.unwrap();
}

/// Every row with every field.
pub(crate) async fn rows(db: &Db) -> Vec<Row> {
    let output_fields = Some(vec!["*".to_owned(), "extra".to_owned()]);
    let request = QueryRequest { output_fields, ..QueryRequest::default() };
    db.collection("notes").unwrap().query(&request).await.unwrap()
}

pub(crate) async fn status_where(
    session: &SyncSession,
    what: &str,
    wanted: impl Fn(&SyncStatus) -> bool,
) -> SyncStatus {
    let mut listener = session.listen();
    let wait = async {
        loop {
            let status = listener.next().await.expect("the session goes on");
            if wanted(&status) {
                return status;
            }
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(status) => status,
        Err(_) => panic!("never {what}: {:?}", session.status()),
    }
}

/// Waits until `devices` hold the same rows as `hub`, and these are `len`.
pub(crate) async fn converged(hub: &Db, devices: &[&Db], len: usize) {
    let wait = async {
        loop {
            let expected = match hub.collection("notes") {
                Ok(_) => rows(hub).await,
                Err(_) => Vec::new(),
            };
            let mut same = expected.len() == len && hub.collection("notes").is_ok();
            for device in devices {
                same = same && device.collection("notes").is_ok() && rows(device).await == expected;
            }
            if same {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        let mut lens = Vec::new();
        for db in devices.iter().chain([&hub]) {
            lens.push(rows(db).await.len());
        }
        panic!("not the same {len} rows everywhere: {lens:?} (the hub last)");
    }
}
