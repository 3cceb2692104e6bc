use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;

use crate::native::{Server, collection_info, signal, wait};
use crate::notes;

#[test]
fn a_signal_stops_it_after_what_is_open() {
    for name in ["TERM", "INT"] {
        let directory = tempfile::tempdir().unwrap();
        let mut server = Server::start(directory.path(), &[]);
        server.post_well("/api/collections", &notes());
        // A request of which the server has the head when the signal comes, and the body after it.
        let body = r#"{"rows": [{"id": 1, "title": "one", "v": [1, 2, 3]}]}"#;
        let mut open = TcpStream::connect(&server.address).unwrap();
        let head = format!(
            "POST /api/collections/notes/insert HTTP/1.1\r\nhost: {}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            server.address,
            body.len()
        );
        open.write_all(head.as_bytes()).unwrap();
        // The server asks for the body, so it has begun with the request.
        let mut answer = [0; 25];
        open.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
        signal(&server.child, name);
        while TcpStream::connect(&server.address).is_ok() {
            std::thread::yield_now();
        }
        open.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        open.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
        assert_eq!(wait(&mut server.child), 0, "{name}");
        assert_eq!(server.rest(), "");
        assert_eq!(collection_info(directory.path(), "notes")["rows"], 1, "{name}");
    }
}

#[test]
fn a_second_signal_stops_it_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    server.post_well("/api/collections/notes/insert", &json!({"rows": [{"id": 1, "title": "one", "v": [1, 2, 3]}]}));
    let mut open = TcpStream::connect(&server.address).unwrap();
    let head = "POST /api/collections/notes/insert HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n";
    open.write_all(head.as_bytes()).unwrap();
    open.read_exact(&mut [0; 25]).unwrap();
    signal(&server.child, "TERM");
    while TcpStream::connect(&server.address).is_ok() {
        std::thread::yield_now();
    }
    signal(&server.child, "TERM");
    assert_eq!(wait(&mut server.child), 1);
    assert_eq!(collection_info(directory.path(), "notes")["rows"], 1);
}
