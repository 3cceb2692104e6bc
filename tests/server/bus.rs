use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::native::{Server, run};

fn collection(server: &Server, name: &str) {
    let fields = json!([{"name": "id", "type": "int64", "primaryKey": true}, {"name": "page", "type": "varchar", "nullable": true}]);
    server.post_well("/api/collections", &json!({"name": name, "fields": fields}));
}

fn put(server: &Server, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let answer = server.request("PUT", "/api/bus", &[("content-type", "application/json")], body.as_bytes());
    (answer.status, answer.json())
}

/// Asks until a collection has those rows: the bus runs beside requests.
fn await_ids(server: &Server, collection: &str, expected: &[i64]) {
    await_that(server, collection, &format!("{expected:?}"), |ids| ids == expected);
}

fn await_that(server: &Server, collection: &str, expected: &str, is_so: impl Fn(&[i64]) -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let found = server.post_well(&format!("/api/collections/{collection}/query"), &json!({"outputFields": ["id"]}));
        let mut ids: Vec<i64> =
            found["rows"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        ids.sort_unstable();
        if is_so(&ids) {
            return;
        }
        assert!(Instant::now() < until, "{found}, expected {expected}; {}", server.get("/api/bus").json());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn events_are_handled_while_the_server_runs_and_after_it_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    for name in ["clicks", "big", "said"] {
        collection(&server, name);
    }
    server.post_well("/api/streams", &json!({"name": "orders", "fields": [{"name": "id", "type": "int64"}]}));
    let spec = json!({
        "sources": {"clicks": {"collection": "clicks"}, "orders": {"stream": "orders"}, "app": {}},
        "handlers": {"big": {"collection": "big"}, "said": {"collection": "said", "batch": {"events": 10, "delayMs": 5}}},
        "routes": [{"from": ["clicks", "orders"], "filter": "id > 5", "to": ["big"]}, {"from": ["app"], "kinds": ["said"], "to": ["said"]}],
    });
    let (status, told) = put(&server, &spec);
    assert_eq!((status, &told["spec"]["handlers"]["big"]["collection"]), (200, &json!("big")), "{told}");
    let (status, error) = put(&server, &json!({"handlers": {"a": {"function": "f", "retry": {"attempts": "x"}}}}));
    assert_eq!((status, &error["error"]["kind"]), (400, &json!("invalid_argument")));
    assert!(error["error"]["message"].as_str().unwrap().contains("handlers.a.retry.attempts"), "{error}");
    server.post_well("/api/collections/clicks/insert", &json!({"rows": [{"id": 1}, {"id": 7}]}));
    server.post_well("/api/streams/orders", &json!([{"id": 2}, {"id": 8}]));
    let answer = server.post_well(
        "/api/bus/events/app",
        &json!([{"kind": "said", "row": {"id": 3}}, {"kind": "sung", "row": {"id": 4}}]),
    );
    assert_eq!(answer, json!({"handlers": [1, 0]}));
    await_ids(&server, "big", &[7, 8]);
    await_ids(&server, "said", &[3]);
    let told = server.get("/api/bus").json();
    assert_eq!((&told["handlers"][0]["handled"], &told["handlers"][0]["queued"]), (&json!(2), &json!(0)), "{told}");
    // Again, though it was handled.
    server.post_well("/api/collections/big/delete", &json!({"filter": "id == 7"}));
    let answer = server.post_well("/api/bus/replays", &json!({"source": "clicks"}));
    await_ids(&server, "big", &[7, 8]);
    let id = &answer["id"];
    let until = Instant::now() + Duration::from_secs(30);
    while server.get("/api/bus").json()["replays"][0]["state"] != "done" && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let cancelled = server.request("DELETE", &format!("/api/bus/replays/{id}"), &[], b"");
    assert_eq!(cancelled.json(), json!({"cancelled": false}));
    assert_eq!(server.post("/api/bus/replays", &json!({"source": "none"})).0, 404);
    assert_eq!(server.post("/api/bus/events/none", &json!([])).0, 404);
    assert_eq!(server.post("/api/bus/events/clicks", &json!([])).0, 400);
    server.kill();

    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections/clicks/insert", &json!({"rows": [{"id": 9}]}));
    server.post_well("/api/streams/orders", &json!([{"id": 10}]));
    await_ids(&server, "big", &[7, 8, 9, 10]);
    server.kill();

    // From a file.
    let path = directory.path().with_extension("bus.json");
    std::fs::write(&path, json!({"handlers": {"big": {"collections": "big"}}}).to_string()).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let (code, _, refused) = run(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--bus", &path]);
    assert!(code != 0 && refused.contains("handlers.big.collections") && refused.contains(&path), "{refused}");
    let mut changed = spec;
    changed["routes"][0]["to"] = json!(["said"]);
    std::fs::write(&path, changed.to_string()).unwrap();
    let server = Server::start(directory.path(), &["--bus", &path]);
    server.post_well("/api/collections/clicks/insert", &json!({"rows": [{"id": 11}]}));
    // What was handled and not noted yet when the server was killed comes again, by the new routes.
    await_that(&server, "said", "3 and 11", |ids| ids.contains(&3) && ids.contains(&11));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn rows_of_a_pipeline_are_acknowledged_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    collection(&server, "clicks");
    let plan = json!({"nodes": [
        {"name": "clicks", "operator": {"source": {"fields": [{"name": "id", "type": "int64"}]}}},
        {"name": "told", "inputs": ["clicks"], "operator": {"sink": {}}}]});
    let options = json!({"keepRows": 100, "checkpointIntervalMs": 0});
    server.post_well("/api/pipelines", &json!({"name": "told", "plan": plan, "options": options}));
    assert_eq!(server.get("/api/pipelines/told/unread/told").json(), json!({"rows": []}));
    server.post_well("/api/collections/clicks/insert", &json!({"rows": [{"id": 5}, {"id": 6}, {"id": 7}]}));
    let row = |position: u64, id: i64| json!({"position": position, "op": "insert", "row": {"id": id}});
    let found = server.get("/api/pipelines/told/unread/told?waitMs=30000&count=2").json();
    assert_eq!(found, json!({"rows": [row(0, 5), row(1, 6)]}));
    assert_eq!(server.post("/api/pipelines/told/unread/told", &json!({"position": 3})).0, 400);
    server.post_well("/api/pipelines/told/unread/told", &json!({"position": 1}));
    server.kill();

    let server = Server::start(directory.path(), &[]);
    assert_eq!(server.get("/api/pipelines/told/unread/told").json(), json!({"rows": [row(2, 7)]}));
    assert_eq!(server.get("/api/pipelines/told/unread/told?from=3").json(), json!({"rows": []}));
    assert_eq!(server.get("/api/pipelines/told/unread/none").status, 404);
}
