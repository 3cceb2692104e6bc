use serde_json::{Value, json};

use crate::native::Server;
use crate::notes;

fn rows(ids: std::ops::Range<usize>) -> Value {
    let row = |id: usize| json!({"id": id, "title": "t", "v": [id, 1, 0]});
    json!({ "rows": ids.map(row).collect::<Vec<_>>() })
}

#[test]
fn stores_are_flushed_compacted_and_looked_into() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--memory-limit", "64"]);
    server.post_well("/api/collections", &notes());
    for _ in 0..2 {
        server.post_well("/api/collections/notes/upsert", &rows(0..50));
        assert_eq!(server.post_well("/api/collections/notes/flush", &json!({})), json!({}));
    }
    server.post_well("/api/collections/notes/delete", &json!({"keys": [7]}));
    server.post_well("/api/flush", &json!({}));
    let stats = server.get("/api/collections/notes/stats").json();
    let notes = &stats["collections"][0];
    assert_eq!((&notes["rows"], &notes["files"]["log"]), (&json!(49), &Value::Null), "{stats}");
    assert!(notes["written"]["flushed"].as_u64().unwrap() > 0, "{stats}");

    server.post_well("/api/collections/notes/compact", &json!({}));
    server.post_well("/api/compact", &json!({}));
    let stats = server.get("/api/stats").json();
    let notes = &stats["collections"][0];
    assert_eq!((&notes["rowsDead"], &notes["segments"]["flushed"]), (&json!(0), &json!(1)), "{stats}");
    assert!(notes["written"]["compacted"].as_u64().unwrap() > 0 && stats["storageBytes"].as_u64().unwrap() > 0);
    let memory = server.get("/api/memory").json();
    let sum: u64 = ["rows", "columns", "vectors", "indexes", "keys", "cache"]
        .iter()
        .map(|kind| memory[kind].as_u64().unwrap())
        .sum();
    assert_eq!(memory["total"], sum);
    for path in ["/api/collections/none/flush", "/api/collections/none/compact"] {
        let (status, answer) = server.post(path, &json!({}));
        assert_eq!((status, &answer["error"]["kind"]), (404, &json!("not_found")));
    }
    assert_eq!(server.get("/api/collections/none/stats").status, 404);
    assert_eq!(server.get("/api/flush").status, 405, "a page that is only looked at must not do work");
}
