use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;

use super::access::{SECRET, grant, token, well};
use super::native::{Server, write};
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

    // Several searches, ranked together.
    let to = |x: f64| json!({"vector": [x, 0, 0], "limit": 2});
    let rerank = json!({"type": "weighted", "weights": [1.0, 0.5], "normalize": false});
    let hybrid = json!({"searches": [to(1.0), to(-1.0)], "limit": 2, "rerank": rerank, "outputFields": ["title"]});
    let mut events = Events::live(&server, &json!({"hybrid": hybrid}));
    let (_, _, told) = events.next();
    let found = server.post_well("/api/collections/notes/hybrid-search", &hybrid);
    let hits = |hits: &Value| -> Vec<(Value, Value, Value)> {
        let hit = |hit: &Value| (hit["key"].clone(), hit["score"].clone(), hit["row"].clone());
        hits.as_array().unwrap().iter().map(hit).collect()
    };
    assert_eq!(hits(&told["answer"]).len(), 2);
    assert_eq!(hits(&told["answer"]), hits(&found["hits"]));
    server.post_well("/api/collections/notes/insert", &row(4, 9.0));
    let (_, kind, told) = events.next();
    assert_eq!((kind.as_str(), &told["differences"][1]["hit"]["key"]), ("differences", &json!(4)));
    assert_eq!(refused(json!({"hybrid": {"searches": []}})), 400);
    assert_eq!(refused(json!({"hybrid": hybrid, "limit": 3})), 400);
    assert_eq!(refused(json!({"hybrid": {"searches": [{"filter": "id > 1"}]}})), 400);
    assert_eq!(refused(json!({"hybrid": {"searches": [{"hybrid": hybrid}]}})), 400);
}

/// A WebSocket that follows the collection `notes`.
struct Socket(tungstenite::WebSocket<TcpStream>);

impl Socket {
    /// The socket, or the status of the answer that refuses it.
    fn open(server: &Server, query: &str, headers: &[(&str, &str)]) -> Result<Self, u16> {
        let stream = TcpStream::connect(&server.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let url = format!("ws://{}/api/collections/notes/changes{query}", server.address);
        let mut request = tungstenite::client::IntoClientRequest::into_client_request(url).unwrap();
        for (name, value) in headers {
            let name: tungstenite::http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(answer))) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn say(&mut self, message: &Value) {
        self.0.send(tungstenite::Message::text(message.to_string())).unwrap();
    }

    fn next(&mut self) -> Value {
        match self.0.read().unwrap() {
            tungstenite::Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The error that it ends with, and the code that it is closed with.
    fn end(&mut self) -> (String, u16) {
        let told = self.next();
        assert_eq!(told["event"], "error", "{told}");
        match self.0.read().unwrap() {
            tungstenite::Message::Close(Some(frame)) => {
                (told["error"]["kind"].as_str().unwrap().to_owned(), frame.code.into())
            }
            other => panic!("{other:?}"),
        }
    }
}

fn titled(id: i64, title: &str) -> Value {
    json!({"rows": [{"id": id, "title": title, "v": [1, 0, 0]}]})
}

#[test]
fn a_websocket_tells_the_changes_that_its_client_takes() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let insert = |id: i64| server.post_well("/api/collections/notes/insert", &titled(id, "one"));
    insert(1);
    // Options in the first message; and no more batches than credits, whatever happens meanwhile.
    let mut socket = Socket::open(&server, "", &[]).unwrap();
    socket.say(
        &json!({"since": "earliest", "outputFields": "title", "batchSize": 1, "subscription": "mail", "credits": 1}),
    );
    let told = socket.next();
    assert_eq!((&told["event"], &told["changes"][0]["key"]), (&json!("changes"), &json!(1)));
    assert_eq!(told["changes"][0]["after"], json!({"title": "one"}));
    let token = told["token"].as_str().unwrap().to_owned();
    insert(2);
    insert(3);
    socket.say(&json!({"acknowledge": token}));
    assert_eq!(
        socket.next(),
        json!({"event": "acknowledged", "token": token}),
        "nothing before it: there was no credit"
    );
    assert_eq!(server.get("/api/collections/notes/subscriptions").json(), json!({"subscriptions": {"mail": 1}}));
    socket.say(&json!({"credits": 1}));
    assert_eq!(socket.next()["changes"][0]["key"], 2);
    socket.say(&json!({"credits": 5}));
    assert_eq!(socket.next()["changes"][0]["key"], 3);
    insert(4);
    let told = socket.next();
    assert_eq!(told["changes"][0]["key"], 4);
    drop(socket);

    // The same events as Server-Sent Events tell, from the same token on.
    let query = format!("?since={token}");
    let mut socket = Socket::open(&server, &query, &[]).unwrap();
    let (_, _, mut event) = Events::open(&server, &query[1..], None).next();
    event["event"] = json!("changes");
    let told = socket.next();
    assert_eq!((&told, told["changes"].as_array().unwrap().len()), (&event, 3));
    // A line that hears nothing is told so.
    let mut idle = Socket::open(&server, "?batchTimeoutMs=1", &[]).unwrap();
    assert_eq!((&idle.next()["changes"], &idle.next()["changes"]), (&json!([]), &json!([])));

    // What is wrong is refused before the upgrade when it is in the query, and ends the socket when it is in a message.
    let refused = |query: &str, headers: &[(&str, &str)]| Socket::open(&server, query, headers).err();
    assert_eq!(refused("?since=x", &[]), Some(400));
    assert_eq!(refused("?speed=0", &[]), Some(400));
    assert_eq!(refused("?since=1-1-1-1-1", &[]), Some(410));
    assert_eq!(refused("", &[("origin", "https://evil.example")]), Some(403));
    assert_eq!(server.get("/api/collections/notes/changes?credits=1").status, 400);
    let ended = |messages: &[&str]| {
        let mut socket = Socket::open(&server, "", &[]).unwrap();
        for message in messages {
            socket.0.send(tungstenite::Message::text(*message)).unwrap();
        }
        if messages.len() > 1 {
            socket.next();
        }
        socket.end()
    };
    assert_eq!(ended(&["{\"misspelt\": 1}"]), ("invalid_argument".to_owned(), 4400));
    assert_eq!(ended(&["{\"since\": \"1-1-1-1-1\"}"]), ("gone".to_owned(), 4410));
    assert_eq!(ended(&["{}", "{\"credit\": 1}"]), ("invalid_argument".to_owned(), 4400));
    assert_eq!(
        ended(&["{}", "{\"acknowledge\": \"1-1-1-1-1\"}"]),
        ("invalid_argument".to_owned(), 4400),
        "no subscription"
    );
    let mut socket = Socket::open(&server, "?subscription=mail", &[]).unwrap();
    socket.next();
    socket.say(&json!({"acknowledge": "1-1-1-1-1"}));
    assert_eq!(socket.end(), ("gone".to_owned(), 4410));

    // The collection goes, and with it who follows it; the server stops, and says so.
    let mut socket = Socket::open(&server, "?since=now", &[]).unwrap();
    socket.next();
    server.post_well("/api/collections", &{
        let mut other = notes();
        other["name"] = json!("others");
        other
    });
    assert_eq!(server.request("DELETE", "/api/collections/notes", &[], b"").status, 200);
    assert_eq!(socket.end(), ("gone".to_owned(), 4410));
    server.post_well("/api/collections", &notes());
    let mut socket = Socket::open(&server, "?since=now", &[]).unwrap();
    socket.next();
    super::native::signal(&server.child, "TERM");
    match socket.0.read().unwrap() {
        tungstenite::Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1001),
        other => panic!("{other:?}"),
    }
    drop(socket);
    assert_eq!(super::native::wait(&mut server.child), 0);
}

/// Who follows is told that its token has ended, and is let go; the token before that is no use, and one that still holds goes on where it was.
#[test]
fn a_websocket_ends_with_its_token() {
    let directory = tempfile::tempdir().unwrap();
    let key = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(SECRET);
    let keys = json!({"keys": [{"kty": "oct", "alg": "HS256", "k": key}], "leewaySeconds": 0});
    let keys = write(directory.path(), "keys.json", keys.to_string());
    let server = Server::start(&directory.path().join("data"), &["--token-keys", &keys]);
    let admin = token(&json!({"eddy": [grant("*", &["admin"], None)]}));
    well(&server, &admin, "/api/collections", &notes());
    well(&server, &admin, "/api/collections/notes/insert", &titled(1, "one"));
    let claims = |more: Value| {
        let mut claims = json!({"eddy": [grant("notes", &["read"], None)]});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("Bearer {}", token(&claims))
    };
    let now_s = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    // However slow the machine is: with a token that holds for long enough to be let in.
    let mut holds_s = 1;
    let (mut socket, ending, ends_s) = loop {
        let ends_s = now_s() + holds_s;
        let ending = claims(json!({ "exp": ends_s }));
        match Socket::open(&server, "?since=earliest", &[("authorization", &ending)]) {
            Ok(socket) => break (socket, ending, ends_s),
            Err(status) => assert_eq!(status, 401),
        }
        holds_s *= 2;
        assert!(holds_s < 100, "it is never let in");
    };
    let told = socket.next();
    // Unless it had ended before anything was told.
    let token_before = (told["event"] == "changes").then(|| {
        assert_eq!(told["changes"][0]["key"], 1);
        assert_eq!(socket.end(), ("unauthorized".to_owned(), 4401));
        told["token"].as_str().unwrap().to_owned()
    });
    assert!(now_s() >= ends_s, "not before it has ended");
    assert_eq!(Socket::open(&server, "", &[("authorization", &ending)]).err(), Some(401));

    let lasting = claims(json!({"jti": "7"}));
    let since = token_before.map_or("earliest".to_owned(), |token| token);
    well(&server, &admin, "/api/collections/notes/insert", &titled(2, "two"));
    let mut socket = Socket::open(&server, &format!("?since={since}"), &[("authorization", &lasting)]).unwrap();
    let told = socket.next();
    assert_eq!(told["changes"].as_array().unwrap().last().unwrap()["key"], 2, "{told}");
    // One that is revoked ends as well, while nothing happens.
    well(&server, &admin, "/api/access/revoke", &json!({"token": "7"}));
    let (kind, code) = socket.end();
    assert!(
        (kind.as_str(), code) == ("unauthorized", 4401) || (kind.as_str(), code) == ("forbidden", 4403),
        "{kind}, {code}"
    );
}

#[test]
fn a_replay_takes_as_long_as_its_speed_says() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let insert = |id: i64| server.post_well("/api/collections/notes/insert", &titled(id, "one"))["timestamp"].clone();
    let time = |timestamp: Value| timestamp.as_str().unwrap().parse::<u64>().unwrap() >> 18;
    let first = time(insert(1));
    std::thread::sleep(Duration::from_millis(40));
    let between = time(insert(2)) - first;
    assert!(between >= 40);
    // A tenth as fast: it takes ten times as long, and never less.
    let started = std::time::Instant::now();
    let mut events = Events::open(&server, "since=earliest&speed=0.1", None);
    assert_eq!(events.next().2["changes"][0]["key"], 1);
    let mut socket = Socket::open(&server, "?since=earliest&speed=1000000", &[]).unwrap();
    let told = socket.next();
    assert_eq!((&told["changes"][0]["key"], &told["changes"][1]["key"]), (&json!(1), &json!(2)), "as good as at once");
    assert_eq!(events.next().2["changes"][0]["key"], 2);
    assert!(started.elapsed() >= Duration::from_millis(between * 10 - 1));
}
