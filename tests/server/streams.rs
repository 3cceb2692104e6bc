use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::native::Server;

/// Asks until it is so: what is asked for comes beside requests.
fn await_that(what: &str, is_so: impl Fn() -> Result<(), String>) {
    let until = Instant::now() + Duration::from_secs(30);
    while let Err(found) = is_so() {
        assert!(Instant::now() < until, "{what}: {found}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stream(server: &Server, more: Value) -> (u16, Value) {
    let mut body = json!({"name": "posts", "fields": [{"name": "id", "type": "int64"}, {"name": "page", "type": "varchar", "nullable": true}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/api/streams", &body)
}

/// Killed after the rows are stored and before anybody has read the answer: the same push again is answered as it was, and takes nothing.
#[test]
fn a_push_that_comes_again_with_its_key_is_taken_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let checks = json!([{"filter": "id > 0", "reason": "no id"}]);
    assert_eq!(stream(&server, json!({"checks": checks, "deadLetters": "dead"})).0, 200);
    let body = json!([{"id": 1}, {"id": 0}, {"id": 2}]);
    let path = "/api/streams/posts?producer=phone-7&sequence=1";
    let mut socket = TcpStream::connect(&server.address).unwrap();
    let text = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json", server.address);
    write!(socket, "{head}\r\ncontent-length: {}\r\n\r\n{text}", text.len()).unwrap();
    await_that("the rows", || {
        let told = server.get("/api/streams/posts").json();
        if told["partitions"] == json!([[0, 2]]) { Ok(()) } else { Err(told.to_string()) }
    });
    server.kill();
    drop(socket);

    let server = Server::start(directory.path(), &[]);
    let answer = json!({"accepted": 2, "refused": [{"row": 1, "reason": "no id"}], "repeated": true});
    assert_eq!(server.post_well(path, &body), answer);
    assert_eq!(server.post_well(path, &json!({"rows": body})), answer, "by another connection, in another form");
    let told = server.get("/api/streams/posts").json();
    assert_eq!(
        (&told["partitions"], &told["repeated"], &told["producers"], &told["pushed"]),
        (&json!([[0, 2]]), &json!(2), &json!(1), &json!(0)),
        "{told}"
    );
    assert_eq!(server.post_well("/api/collections/dead/count", &json!({}))["count"], 1);
    // The next number is another push.
    let next = "/api/streams/posts?producer=phone-7&sequence=2";
    assert_eq!(server.post_well(next, &json!([{"id": 3}])), json!({"accepted": 1, "refused": []}));
    for sequence in 3..30 {
        server.post_well(&format!("/api/streams/posts?producer=phone-7&sequence={sequence}"), &json!([{"id": 3}]));
    }
    for (path, body, expected) in [
        (path, &body, (410, "gone")),
        ("/api/streams/posts?producer=phone-7&sequence=20", &body, (400, "invalid_argument")),
        ("/api/streams/posts?producer=phone-7", &body, (400, "invalid_argument")),
        ("/api/streams/posts?sequence=3", &body, (400, "invalid_argument")),
        ("/api/streams/posts?producer=&sequence=3", &body, (400, "invalid_argument")),
        ("/api/streams/posts?producer=a&sequence=-3", &body, (400, "invalid_argument")),
        ("/api/streams/posts?producer=a&sequence=3&key=4", &body, (400, "invalid_argument")),
    ] {
        let (status, error) = server.post(path, body);
        assert_eq!((status, &error["error"]["kind"]), (expected.0, &json!(expected.1)), "{path}: {error}");
    }
    assert_eq!(server.get("/api/streams/posts").json()["partitions"], json!([[0, 30]]));
}

/// `eddy inspect` tells the definition of a stream, the rows of each partition, and damage with its place.
fn inspect_says_what_was_pushed(directory: &std::path::Path) {
    let eddy = |args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_eddy")).arg("inspect").args(args).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (well, told) = eddy(&[directory.to_str().unwrap(), "--json"]);
    assert!(well, "{told}");
    let all: Vec<Value> = serde_json::from_str(&told).unwrap();
    let of = |kind: &str| all.iter().filter(|file| file["kind"] == kind).collect::<Vec<_>>();
    let definition = of("push stream")[0];
    assert_eq!(definition["content"]["name"], "posts");
    let (_, told) = eddy(&[definition["file"].as_str().unwrap()]);
    for part in [
        "\"posts\", id ",
        "1 partitions, 1 readers",
        "  partitions 0 to 2 of before\n",
        "rows are kept from [0, 0, 0, 0, 0, 0, 0, 0]",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let pushed = of("pushed rows");
    assert_eq!(pushed.len(), 8, "{told}");
    let last = pushed.iter().find(|file| file["content"]["partition"] == 7).unwrap();
    assert_eq!((&last["content"]["first"], &last["content"]["next"]), (&json!(0), &json!(11)));
    let path = last["file"].as_str().unwrap();
    let (_, told) = eddy(&[path]);
    assert!(told.contains("partition 7 of stream ") && told.contains(", rows 0 to 11 in 2 frames"), "{told}");
    assert!(
        told.contains("  byte 32: frame 1, rows 0 to 10\n") && told.contains("frame 2, rows 10 to 11, 1 keys\n"),
        "{told}"
    );
    let mut bytes = std::fs::read(path).unwrap();
    bytes[60] ^= 1;
    let copy = directory.with_extension("damaged");
    std::fs::create_dir(&copy).unwrap();
    let copied = copy.join(std::path::Path::new(path).file_name().unwrap());
    std::fs::write(&copied, bytes).unwrap();
    let (_, told) = eddy(&[copied.to_str().unwrap()]);
    std::fs::remove_dir_all(&copy).unwrap();
    assert!(told.contains("in 1 frames, and bytes that are not whole") && told.contains("  byte 32: "), "{told}");
}

/// Partitions are changed while rows wait, and stay so: what was pushed is read on from where it was.
#[test]
fn partitions_are_changed_while_rows_wait() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    assert_eq!(stream(&server, json!({"partitions": 2})).0, 200);
    let text = "CREATE MATERIALIZED VIEW seen AS SELECT id, count(*) AS times FROM posts GROUP BY id EMIT CHANGES";
    server.post_well("/api/pipelines", &json!({"name": "seen", "sql": text}));
    server.post_well("/api/pipelines/seen/pause", &json!({}));
    let push = |from: i64| {
        let rows: Vec<Value> = (from..from + 10).map(|id| json!({"id": id})).collect();
        server.post_well("/api/streams/posts", &json!(rows));
    };
    push(0);
    let put = |body: Value| {
        let headers = [("content-type", "application/json")];
        let answer = server.request("PUT", "/api/streams/posts/partitions", &headers, body.to_string().as_bytes());
        (answer.status, answer.json())
    };
    let (status, told) = put(json!({"partitions": 5}));
    assert_eq!((status, &told["spec"]["partitions"]), (200, &json!(5)), "{told}");
    assert_eq!(told["partitions"], json!([[0, 0], [0, 0], [0, 0], [0, 0], [0, 0]]));
    assert_eq!(told["pastPartitions"], json!([[0, 5], [0, 5]]));
    push(10);
    assert_eq!(put(json!({"partitions": 1})).0, 200);
    push(20);
    for (body, kind) in [
        (json!({"partitions": 0}), "invalid_argument"),
        (json!({"partitions": 65}), "invalid_argument"),
        (json!({"partitions": "2"}), "invalid_argument"),
        (json!({"partitions": 2, "by": "id"}), "invalid_argument"),
        (json!({}), "invalid_argument"),
    ] {
        let (status, told) = put(body.clone());
        assert_eq!((status, &told["error"]["kind"]), (400, &json!(kind)), "{body}: {told}");
    }
    let missing = server.request("PUT", "/api/streams/none/partitions", &[], br#"{"partitions": 2}"#);
    assert_eq!(missing.status, 404);
    server.post_well("/api/streams/posts?producer=a&sequence=1", &json!([{"id": 30}]));
    server.kill();
    inspect_says_what_was_pushed(directory.path());
    let server = Server::start(directory.path(), &[]);
    let told = server.get("/api/streams/posts").json();
    assert_eq!((&told["spec"]["partitions"], &told["partitions"]), (&json!(1), &json!([[0, 11]])), "{told}");
    server.post_well("/api/pipelines/seen/resume", &json!({"from": "latest"}));
    await_that("the rows", || {
        let rows = server.post_well("/api/collections/seen/query", &json!({"filter": "times == 1"}));
        if rows["rows"].as_array().is_some_and(|rows| rows.len() == 31) { Ok(()) } else { Err(rows.to_string()) }
    });
}

#[test]
fn rows_that_are_near_to_one_before_are_told_with_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let fields = json!([{"name": "id", "type": "int64"}, {"name": "v", "type": "float_vector", "dim": 2}]);
    let dedupe = |threshold: f64| json!({"fields": fields, "dedupe": {"field": "v", "threshold": threshold, "windowMs": 600_000, "metric": "l2", "key": "id"}});
    let (status, error) = stream(&server, dedupe(-1.0));
    assert!(status == 400 && error["error"]["message"].as_str().unwrap().contains("threshold is -1"), "{error}");
    assert_eq!(stream(&server, dedupe(0.5)).0, 200);
    let rows = json!([{"id": 1, "v": [0, 0]}, {"id": 2, "v": [0.25, 0]}, {"id": 3, "v": [4, 0]}]);
    let answer = server.post_well("/api/streams/posts?producer=a&sequence=1", &rows);
    assert_eq!((&answer["accepted"], &answer["refused"][0]["row"]), (&json!(2), &json!(1)), "{answer}");
    assert_eq!(answer["near"], json!([{"row": 1, "of": 1, "distance": 0.25}]));
    server.kill();
    let server = Server::start(directory.path(), &[]);
    let mut again = server.post_well("/api/streams/posts?producer=a&sequence=1", &rows);
    assert_eq!(again.as_object_mut().unwrap().remove("repeated"), Some(json!(true)));
    assert_eq!(again, answer, "as it was at first, and not as what is near to itself");
    let answer = server.post_well("/api/streams/posts", &json!([{"id": 4, "v": [4.25, 0]}]));
    assert_eq!((&answer["accepted"], &answer["near"][0]["of"]), (&json!(0), &json!(3)), "{answer}");
    let told = server.get("/api/streams/posts").json();
    assert_eq!((&told["near"], &told["refused"], &told["nearForgotten"]), (&json!(1), &json!(1), &json!(0)), "{told}");
}

#[test]
fn pushed_rows_of_the_past_come_at_their_pace() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let fields = json!([{"name": "id", "type": "int64"}, {"name": "at", "type": "timestamp"}]);
    assert_eq!(stream(&server, json!({ "fields": fields })).0, 200);
    server.post_well("/api/streams/posts", &json!([{"id": 1, "at": 0}, {"id": 2, "at": 600_000}]));
    let text = |pace: &str| {
        format!(
            "CREATE SOURCE past (id BIGINT NOT NULL, at TIMESTAMP NOT NULL, WATERMARK FOR at AS at)
                WITH (connector = 'stream', stream = 'posts', pace = {pace});
             CREATE SINK copy FROM past WITH (keys = 'id')"
        )
    };
    let (status, error) = server.post("/api/pipelines", &json!({"name": "copy", "sql": text("1e9")}));
    assert!(status == 400 && error["error"]["message"].as_str().unwrap().contains("pace is 1000000000"), "{error}");
    let started = Instant::now();
    let options = json!({"checkpointIntervalMs": 5});
    server.post_well("/api/pipelines", &json!({"name": "copy", "sql": text("2"), "options": options}));
    await_that("both rows", || {
        let (_, told) = server.post("/api/collections/copy/count", &json!({}));
        if told["count"] == json!(2) { Ok(()) } else { Err(told.to_string()) }
    });
    // Twice as fast as they happened, and no faster.
    assert!(started.elapsed() >= Duration::from_millis(298), "{:?}", started.elapsed());
}

#[test]
fn batches_that_follow_the_load_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let adaptive =
        |rows_min: u64| json!({"batching": {"adaptive": {"latencyMs": 20, "rowsMin": rows_min, "rowsMax": 50}}});
    let (status, error) = stream(&server, adaptive(51));
    assert!(status == 400 && error["error"]["message"].as_str().unwrap().contains("rowsMin is 51"), "{error}");
    let (status, made) = stream(&server, adaptive(3));
    assert_eq!((status, &made["spec"]["batching"]["adaptive"]["latencyMs"]), (200, &json!(20)), "{made}");
    let text = "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS posts FROM posts GROUP BY page EMIT CHANGES";
    server.post_well("/api/pipelines", &json!({"sql": text, "options": {"checkpointIntervalMs": 5}}));
    for id in 0..20 {
        server.post_well("/api/streams/posts", &json!([{"id": id, "page": "home"}]));
    }
    // The last rows come though they are fewer than a batch waits for.
    await_that("all rows", || {
        let found = server.post("/api/collections/pages/query", &json!({"outputFields": ["posts"]})).1;
        if found["rows"][0]["posts"] == json!(20) { Ok(()) } else { Err(found.to_string()) }
    });
    let told = server.get("/api/streams/posts").json();
    let sizes: Vec<&Value> = told["batchRows"].as_object().unwrap().values().collect();
    assert!(sizes.len() == 1 && (3..=50).contains(&sizes[0][0].as_u64().unwrap()), "{told}");
}
