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

#[test]
fn segments_are_merged_as_the_server_or_the_collection_says() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--merge-policy", "sequential"]);
    let mut other = notes();
    other["name"] = json!("other");
    other["options"] = json!({"mergePolicy": "hierarchical"});
    server.post_well("/api/collections", &notes());
    let made = server.post_well("/api/collections", &other);
    assert_eq!(made["options"], json!({"mergePolicy": "hierarchical"}));
    let of = |name: &str| server.get(&format!("/api/collections/{name}/stats")).json()["collections"][0].clone();
    // Background work merges when it has nothing else to do.
    let wait = |name: &str, merges: u64| {
        let started = std::time::Instant::now();
        // A merge counts before its segment has taken the place of the others.
        while of(name)["merges"]["finished"] != merges || of(name)["segments"]["flushed"] != 1 {
            assert!(started.elapsed().as_secs() < 60, "{name}: {}", of(name));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    for name in ["notes", "other"] {
        for part in 0..3 {
            server.post_well(&format!("/api/collections/{name}/insert"), &rows(part * 10..part * 10 + 10));
            server.post_well(&format!("/api/collections/{name}/flush"), &json!({}));
            if name == "notes" {
                wait(name, part as u64);
            }
        }
    }
    let stats = of("notes");
    assert_eq!((&stats["mergePolicy"], &stats["segments"]["flushed"]), (&json!("sequential"), &json!(1)), "{stats}");
    let counts = json!({"finished": 2, "rows": 50, "rowsFlushed": 30, "writeAmplification": 50.0 / 30.0});
    assert_eq!(stats["merges"], counts);
    let stats = of("other");
    let counts = json!({"finished": 0, "rows": 0, "rowsFlushed": 30, "writeAmplification": 0.0});
    assert_eq!((&stats["mergePolicy"], &stats["merges"]), (&json!("hierarchical"), &counts));

    let put = |body: &str| {
        let headers = [("content-type", "application/json")];
        let answer = server.request("PUT", "/api/collections/other/options", &headers, body.as_bytes());
        (answer.status, answer.json())
    };
    let (status, answer) = put(r#"{"mergePolicy": "tiered"}"#);
    let message = answer["error"]["message"].as_str().unwrap();
    assert_eq!((status, &answer["error"]["kind"]), (400, &json!("invalid_argument")), "{answer}");
    for name in ["tiered", "hierarchical", "sequential", "parallel"] {
        assert!(message.contains(name), "{name} is missing in {message}");
    }
    assert_eq!(put(r#"{"mergePolicy": "sequential"}"#).1["options"], json!({"mergePolicy": "sequential"}));
    wait("other", 1);
    assert_eq!(of("other")["segments"]["flushed"], 1);
    server.kill();
    let server = Server::start(directory.path(), &[]);
    let stats = server.get("/api/collections/other/stats").json()["collections"][0].clone();
    assert_eq!((&stats["mergePolicy"], &stats["merges"]["rows"]), (&json!("sequential"), &json!(30)), "{stats}");
}
