use std::path::Path;

use serde_json::{Value, json};

use crate::native::{Server, eddy};
use crate::notes;

/// A server that is a client of `hub`.
fn below(hub: &str, data: &Path) -> Server {
    Server::start(data, &["--upstream", &format!("ws://{hub}/sync"), "--upstream-collections", "notes"])
}

/// What a server says of the one above it, once `holds`.
fn upstream(server: &Server, holds: impl Fn(&Value) -> bool) -> Value {
    loop {
        let told = server.get("/api/upstream").json();
        if holds(&told) {
            return told;
        }
        std::thread::yield_now();
    }
}

fn keys(server: &Server) -> Value {
    server.post_well("/api/collections/notes/query", &json!({"outputFields": ["id"]}))["rows"].clone()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn a_server_tells_of_the_one_above_and_compares_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (data, backup) = (directory.path().join("hub"), directory.path().join("backup"));
    let hub = Server::start(&data, &[]);
    hub.post_well("/api/collections", &notes());
    let insert = |server: &Server, id: i64| {
        let row = json!({"id": id, "title": "a row", "v": [1, 0, 0]});
        server.post_well("/api/collections/notes/insert", &json!({"rows": [row]}))
    };
    insert(&hub, 1);
    assert_eq!(hub.get("/api/upstream").status, 404, "it is nobody's client");
    assert_eq!(hub.post("/api/upstream/reconcile", &json!({})).0, 404);
    let address = hub.address.clone();
    hub.kill();
    copy(&data, &backup);

    // What comes after the backup is at both, and then at one only.
    let again = |data: &Path| Server::start_by(eddy(), &address, data, &[]);
    let hub = again(&data);
    let server = below(&address, &directory.path().join("below"));
    upstream(&server, |told| told["lastSyncedAt"].is_u64());
    insert(&hub, 2);
    insert(&hub, 3);
    while keys(&server).as_array().unwrap().len() < 3 {
        std::thread::yield_now();
    }
    hub.kill();
    let told = upstream(&server, |told| told["state"] == "offline");
    assert_eq!(told["error"]["kind"], "unavailable", "{told}");
    let hub = again(&backup);
    // More than was lost: nothing shows that something was.
    for id in 10..20 {
        insert(&hub, id);
    }
    let done = server.post_well("/api/upstream/reconcile", &json!({"collections": ["notes"]}));
    assert!(done["collections"]["notes"]["sent"].is_u64(), "{done}");
    let told = upstream(&server, |told| told["state"] == "live" && told["pending"] == 0);
    assert_eq!(told["url"], json!(format!("ws://{address}/sync")));
    assert_eq!(told["refusals"], json!([]));
    let done = server.post_well("/api/upstream/reconcile", &json!({}));
    assert_eq!(done["collections"], json!({"notes": {"sent": 0, "received": 0}}));
    let all: Vec<Value> = [1, 2, 3].into_iter().chain(10..20).map(|id| json!({"id": id})).collect();
    assert_eq!(keys(&hub), json!(all));
    assert_eq!(keys(&server), json!(all));

    let (status, error) = server.post("/api/upstream/reconcile", &json!({"collections": ["others"]}));
    assert_eq!((status, error["error"]["kind"].as_str()), (400, Some("invalid_argument")), "{error}");
    let (status, error) = server.post("/api/upstream/reconcile", &json!({"collection": "notes"}));
    assert_eq!(status, 400, "{error}");
}
