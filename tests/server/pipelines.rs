use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::native::Server;

fn clicks(server: &Server) {
    let fields = json!([{"name": "id", "type": "int64", "primaryKey": true}, {"name": "page", "type": "varchar"},
        {"name": "at", "type": "timestamp"}]);
    server.post_well("/api/collections", &json!({"name": "clicks", "fields": fields}));
}

fn write(server: &Server, rows: Value) {
    server.post_well("/api/collections/clicks/upsert", &json!({ "rows": rows }));
}

/// Asks until the answer is that one: pipelines run beside requests.
fn await_rows(server: &Server, collection: &str, expected: &Value) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let path = format!("/api/collections/{collection}/query");
        let found = server.post_well(&path, &json!({"outputFields": ["page", "clicks"]}));
        let plain: Vec<Value> =
            found["rows"].as_array().unwrap().iter().map(|row| json!([row["page"], row["clicks"]])).collect();
        if json!(plain) == *expected {
            return;
        }
        assert!(
            Instant::now() < until,
            "{found}, expected {expected}; {}",
            server.get(&format!("/api/pipelines/{collection}")).json()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn rows_that_are_pushed_are_counted_once_though_the_server_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let fields = json!([{"name": "page", "type": "varchar"}]);
    let checks = json!([{"filter": "page != ''", "reason": "no page"}]);
    server.post_well("/api/streams", &json!({"name": "clicks", "fields": fields, "checks": checks}));
    assert_eq!(server.get("/api/streams").json(), json!({"streams": ["clicks"]}));
    let (status, error) = server.post("/api/streams", &json!({"name": "clicks", "fields": fields}));
    assert_eq!((status, &error["error"]["kind"]), (409, &json!("already_exists")), "{error}");
    let (status, error) = server.post("/api/streams", &json!({"name": "other", "fields": fields, "colour": 1}));
    assert_eq!(status, 400, "{error}");
    let answer = server.post_well("/api/streams/clicks", &json!([{"page": "home"}, {"page": ""}, {"page": 3}]));
    assert_eq!((&answer["accepted"], answer["refused"].as_array().map(Vec::len)), (&json!(1), Some(2)), "{answer}");
    assert_eq!(answer["refused"][0], json!({"row": 1, "reason": "no page"}));
    let text =
        "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS clicks FROM clicks GROUP BY page EMIT CHANGES";
    server.post_well("/api/pipelines", &json!({"sql": text, "options": {"checkpointIntervalMs": 10}}));
    await_rows(&server, "pages", &json!([["home", 1]]));
    for _ in 0..20 {
        server.post_well("/api/streams/clicks", &json!({"rows": [{"page": "home"}, {"page": "about"}]}));
    }
    drop(server);
    let server = Server::start(directory.path(), &[]);
    await_rows(&server, "pages", &json!([["about", 20], ["home", 21]]));
    let told = server.get("/api/pipelines/pages").json();
    assert_eq!(told["sources"][0]["connector"], json!("stream"), "{told}");
    assert_eq!(server.post("/api/streams/none", &json!([])).0, 404);
}

#[test]
fn a_view_is_kept_while_the_server_runs_and_after_it_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    clicks(&server);
    write(&server, json!([{"id": 1, "page": "a", "at": 0}]));
    let text =
        "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS clicks FROM clicks GROUP BY page EMIT CHANGES";
    let plan = server.post_well("/api/pipelines", &json!({"sql": format!("EXPLAIN {text}")}));
    assert!(plan["plan"].as_str().unwrap().starts_with("pages: sink into pages"), "{plan}");
    let options = json!({"checkpointIntervalMs": 10});
    let made = server.post_well("/api/pipelines", &json!({"sql": text, "options": options}));
    assert_eq!((&made["name"], &made["state"]), (&json!("pages"), &json!("active")), "{made}");
    await_rows(&server, "pages", &json!([["a", 1]]));
    write(&server, json!([{"id": 2, "page": "a", "at": 0}, {"id": 1, "page": "b", "at": 0}]));
    await_rows(&server, "pages", &json!([["a", 1], ["b", 1]]));
    assert_eq!(server.get("/api/pipelines").json(), json!({"pipelines": [{"name": "pages", "state": "active"}]}));
    let (status, error) = server.post("/api/pipelines", &json!({"sql": text}));
    assert_eq!((status, &error["error"]["kind"]), (409, &json!("already_exists")));
    let (status, error) =
        server.post("/api/pipelines", &json!({"sql": "CREATE MATERIALIZED VIEW v AS SELECT x FROM clicks"}));
    assert_eq!((status, error["error"]["position"].is_number()), (400, true), "{error}");
    server.post_well("/api/pipelines/pages/savepoints/here", &json!({}));
    server.kill();

    let server = Server::start(directory.path(), &[]);
    write(&server, json!([{"id": 3, "page": "c", "at": 0}]));
    await_rows(&server, "pages", &json!([["a", 1], ["b", 1], ["c", 1]]));
    let plan = server.get("/api/pipelines/pages/explain").json();
    assert!(plan["plan"].as_str().unwrap().contains(" in, "), "{plan}");
    let paused = server.post_well("/api/pipelines/pages/pause", &json!({}));
    assert_eq!(paused["state"], "paused");
    write(&server, json!([{"id": 4, "page": "d", "at": 0}]));
    assert_eq!(server.get("/api/pipelines/pages/savepoints").json(), json!({"savepoints": ["here"]}));
    server.post_well("/api/pipelines/pages/resume", &json!({"from": {"savepoint": "here"}}));
    await_rows(&server, "pages", &json!([["a", 1], ["b", 1], ["c", 1], ["d", 1]]));
    assert_eq!(server.request("DELETE", "/api/pipelines/pages", &[], b"").status, 200);
    assert_eq!(server.get("/api/pipelines/pages").status, 404);
}
