//! Sync with the real server, killed as by a power cut in the midst of pushes and pulls.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test of real processes, with real clocks"
)]

#[path = "../native/mod.rs"]
mod native;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use eddydb::base::Result;
use eddydb::db::{Collection, Db, Options, QueryRequest, SyncSession, SyncState};
use eddydb::engine::CollectionSpec;
use eddydb::model::{Batch, Row, Value};
use eddydb::platform::Task;
use eddydb::platform::socket::{Connect, Connection, WebSocketUrl};
use eddydb::storage::MemoryStorage;
use serde_json::json;

use native::Server;

/// No step takes so long unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the server is now: it comes back on another port.
#[derive(Clone)]
struct Place(Arc<Mutex<String>>);

impl Connect for Place {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        let url = format!("ws://{}/sync", self.0.lock().unwrap());
        Box::pin(async move { WebSocketUrl::new(&url)?.connect().await })
    }
}

fn spec() -> CollectionSpec {
    let spec = json!({
        "fields": [
            {"name": "id", "type": "int64", "primaryKey": true},
            {"name": "title", "type": "varchar", "maxLength": 100},
            {"name": "v", "type": "float_vector", "dim": 64},
        ],
        "indexes": {"v": {"metric": "L2", "kind": "FLAT"}},
    });
    serde_json::from_value(spec).unwrap()
}

async fn put(notes: &Collection, ids: std::ops::Range<i64>, title: &str) {
    let row = |id: i64| -> Row {
        [
            ("id".to_owned(), Value::from(id)),
            ("title".to_owned(), Value::from(title)),
            ("v".to_owned(), Value::from(vec![id as f32; 64])),
        ]
        .into()
    };
    notes.upsert(Batch::from_rows(&notes.spec().schema, ids.map(row).collect()).unwrap()).await.unwrap();
}

async fn titles(notes: &Collection) -> BTreeMap<i64, String> {
    let rows = notes.query(&QueryRequest::default()).await.unwrap();
    let titles = rows.iter().map(|row| match (&row["id"], &row["title"]) {
        (Value::Int(id), Value::String(title)) => (*id, title.clone()),
        other => panic!("{other:?}"),
    });
    titles.collect()
}

/// Rows written here of which the client has not noted that they are at the server.
fn unacknowledged(notes: &Collection) -> usize {
    let pushed = notes.sync_positions().values().map(|position| position.pushed).max();
    notes.pending_after(pushed.unwrap_or_default())
}

fn titles_at(server: &Server) -> BTreeMap<i64, String> {
    let (status, answer) = server.post("/api/collections/notes/query", &json!({"outputFields": ["id", "title"]}));
    if status == 404 {
        return BTreeMap::new();
    }
    assert_eq!(status, 200, "{answer}");
    let rows = answer["rows"].as_array().unwrap();
    rows.iter().map(|row| (row["id"].as_i64().unwrap(), row["title"].as_str().unwrap().to_owned())).collect()
}

/// Waits until the session is done, and both sides hold `expected`.
async fn converged(session: &SyncSession, notes: &Collection, server: &Server, expected: &BTreeMap<i64, String>) {
    let started = Instant::now();
    loop {
        let status = session.status();
        let done = status.state == SyncState::Live && status.pending == 0;
        if done && titles(notes).await == *expected && titles_at(server) == *expected {
            return;
        }
        let (here, there) = (titles(notes).await.len(), titles_at(server).len());
        assert!(
            started.elapsed() < PATIENCE,
            "{here} rows here, {there} there, {} expected: {status:?}",
            expected.len()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client pushes while the server is killed under it, again and again; what the server acknowledged is there when it comes
/// back, and in the end both hold everything, what was written at the server included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_mid_push_loses_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(Arc::new(MemoryStorage::new()), Options::default()).await.unwrap();
    let notes = db.create_collection("notes", spec()).await.unwrap();
    let mut server = Server::start(directory.path(), &[]);
    let place = Place(Arc::new(Mutex::new(server.address.clone())));
    let session = db.sync_over(Arc::new(place.clone()), vec!["notes".to_owned()]).unwrap();
    let mut expected = BTreeMap::new();
    let mut killed_in_mid_push = 0;
    for round in 0..6_i64 {
        // Some of it is at the server before the kill, the rest is on its way: about five pushes of half a megabyte.
        let first = round * 10_000;
        for part in 0..40 {
            let ids = first + part * 250..first + (part + 1) * 250;
            let title = format!("round {round}, part {part}");
            put(&notes, ids.clone(), &title).await;
            expected.extend(ids.map(|id| (id, title.clone())));
        }
        let total = expected.len();
        let started = Instant::now();
        // The kill comes when a part was acknowledged, as the client has noted, and not all.
        while unacknowledged(&notes) == 10_000 {
            assert!(started.elapsed() < PATIENCE, "{:?}", session.status());
            tokio::task::yield_now().await;
        }
        let pending = unacknowledged(&notes);
        native::signal(&server.child, "KILL");
        server.kill();
        killed_in_mid_push += usize::from(pending > 0);
        server = Server::start(directory.path(), &[]);
        let there = titles_at(&server);
        assert!(there.len() + pending >= total, "{} there, {pending} pending, {total} written", there.len());
        assert!(there.iter().all(|(id, title)| expected.get(id) == Some(title)));
        let of_server = json!({"rows": [{"id": first, "title": "by the server", "v": vec![1; 64]}]});
        if !there.is_empty() {
            server.post_well("/api/collections/notes/upsert", &of_server);
            expected.insert(first, "by the server".to_owned());
        }
        *place.0.lock().unwrap() = server.address.clone();
        session.resume();
        converged(&session, &notes, &server, &expected).await;
    }
    assert!(killed_in_mid_push > 0, "no kill came in the midst of a push");
}
