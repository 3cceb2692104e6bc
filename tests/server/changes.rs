use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::native::Server;
use super::notes;

/// A line of Server-Sent Events.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(server: &Server, query: &str, last: Option<&str>) -> Self {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
        let address = &server.address;
        write!(socket, "GET /api/collections/notes/changes?{query} HTTP/1.1\r\nhost: {address}\r\n{last}\r\n").unwrap();
        Self(BufReader::new(socket))
    }

    /// A live query's.
    fn live(server: &Server, request: &Value) -> Self {
        let mut socket = TcpStream::connect(&server.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (address, body) = (&server.address, request.to_string());
        let head =
            format!("POST /api/collections/notes/live HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json");
        write!(socket, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        Self(BufReader::new(socket))
    }

    /// The id, the kind and the data of the next event.
    fn next(&mut self) -> (Option<String>, String, Value) {
        let (mut id, mut kind) = (None, String::new());
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the line ended");
            // Lines of HTTP and of its chunks are none of an event.
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.trim().to_owned());
            } else if let Some(text) = line.strip_prefix("event: ") {
                kind = text.trim().to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (id, kind, serde_json::from_str(text).unwrap());
            }
        }
    }
}

#[test]
fn changes_come_as_events_and_go_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let rows = |id: i64, title: &str| json!({"rows": [{"id": id, "title": title, "v": [1, 0, 0]}]});
    server.post_well("/api/collections/notes/insert", &rows(1, "one"));
    let mut events = Events::open(&server, "since=full&before=true&outputFields=title&subscription=mail", None);
    let (id, kind, read) = events.next();
    assert_eq!((id, kind.as_str(), &read["token"]), (None, "changes", &Value::Null));
    assert_eq!(read["changes"][0]["op"], "read");
    assert_eq!(read["changes"][0]["after"], json!({"title": "one"}));
    let upserted = server.post_well("/api/collections/notes/upsert", &rows(1, "eins"));
    let (id, _, changed) = events.next();
    let change = &changed["changes"][0];
    assert_eq!(change["before"], json!({"title": "one"}));
    assert_eq!((&change["op"], &change["key"], &change["last"]), (&json!("update"), &json!(1), &json!(true)));
    assert_eq!((&change["timestamp"], &change["local"]), (&upserted["timestamp"], &json!(true)));
    let token = id.unwrap();
    assert_eq!(changed["token"], json!(token));
    // A line that hears nothing is told so, and where it is.
    let mut idle = Events::open(&server, "batchTimeoutMs=1&filter=id%20%3E%205", None);
    assert_eq!(idle.next().2["changes"], json!([]));
    assert_eq!(idle.next().0, Some(token.clone()));

    let refused = |query: &str| server.get(&format!("/api/collections/notes/changes?{query}")).status;
    assert_eq!(
        (refused("since=x"), refused("filter=title+%3E"), refused("misspelt=1"), refused("since=1-1-1-1-1")),
        (400, 400, 400, 410)
    );
    let at = "/api/collections/notes/subscriptions/mail";
    assert_eq!(server.get("/api/collections/notes/subscriptions").json(), json!({"subscriptions": {}}));
    server.post_well(at, &json!({"token": token}));
    drop((events, idle));
    let mut events = Events::open(&server, "subscription=mail", None);
    events.next();
    assert_eq!(server.get("/api/collections/notes/subscriptions").json(), json!({"subscriptions": {"mail": 2}}));
    server.post_well("/api/collections/notes/delete", &json!({"keys": [1]}));
    let (id, _, deleted) = events.next();
    assert_eq!(deleted["changes"][0]["op"], "delete");
    let newest = id.unwrap();
    drop(events);
    server.kill();

    let server = Server::start(directory.path(), &[]);
    let mut events = Events::open(&server, "subscription=mail", None);
    assert_eq!(events.next().2["changes"][0]["op"], "delete", "it was not acknowledged");
    server.post_well(at, &json!({"token": newest}));
    let mut again = Events::open(&server, "", Some(&newest));
    assert_eq!(again.next().2["changes"], json!([]));
    server.post_well("/api/collections/notes/insert", &rows(2, "two"));
    assert_eq!(again.next().2["changes"][0]["key"], 2);
    let delete = |at: &str| server.request("DELETE", at, &[], b"").status;
    assert_eq!((delete(at), delete(at)), (200, 404));
}

#[test]
fn a_live_query_tells_its_answer_then_what_happens_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let row = |id: i64, x: f64| json!({"rows": [{"id": id, "title": "t", "v": [x, 0, 0]}]});
    server.post_well("/api/collections/notes/insert", &row(1, 1.0));
    let near = json!({"vector": [1, 0, 0], "limit": 1, "outputFields": ["title"]});
    let mut events = Events::live(&server, &near);
    let (_, kind, told) = events.next();
    let version = told["answer"][0]["version"].clone();
    let answer = json!([{"key": 1, "score": 1.0, "row": {"title": "t"}, "version": version}]);
    assert_eq!((kind.as_str(), &told["answer"]), ("answer", &answer));
    server.post_well("/api/collections/notes/insert", &row(2, 0.5));
    server.post_well("/api/collections/notes/insert", &row(3, 2.0));
    let (_, kind, told) = events.next();
    assert_eq!((kind.as_str(), told["differences"].as_array().unwrap().len()), ("differences", 2));
    assert_eq!(told["differences"][0], json!({"op": "left", "index": 0, "key": 1}));
    assert_eq!(told["differences"][1]["hit"]["key"], 3);
    let refused = |body: Value| server.post("/api/collections/notes/live", &body).0;
    assert_eq!(refused(json!({"vector": [1, 0]})), 400);
    assert_eq!(refused(json!({"radius": 1})), 400);
}
