//! Real WebSockets on loopback: clients that behave, and clients that do not.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::db::sync_testing::{Device, PATIENCE, converged, put, spec, status_where};
use crate::db::{SyncOptions, SyncState};
use crate::sync::{Fault, HubOptions, Message as Frame};

struct Server {
    hub: SyncHub,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Serves `device`; on `port`, or any with 0.
    async fn of(device: &Device, port: u16) -> Self {
        let hub = SyncHub::new(device.db.clone(), HubOptions::default());
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router: Router = router(hub.clone(), AllowedOrigins::Own);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { hub, address, task }
    }

    async fn stop(self) {
        tokio::time::timeout(PATIENCE, self.hub.stop()).await.unwrap();
        self.task.abort();
        // The port is free once the listener is dropped with its task.
        let _ = self.task.await;
    }

    fn options(&self) -> SyncOptions {
        SyncOptions {
            urls: vec![format!("http://{}/sync", self.address)],
            collections: vec!["notes".to_owned()],
            ..SyncOptions::default()
        }
    }

    /// Speaks HTTP by hand: the answer's head.
    async fn ask(&self, headers: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET /sync HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).await.unwrap(), 1, "{}", String::from_utf8_lossy(&head));
            head.extend(byte);
        }
        (stream, String::from_utf8(head).unwrap())
    }

    /// A whole request without a WebSocket: the status, and the answer's body.
    async fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let len = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n",
            self.address
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
        let answer = rest(&mut stream).await;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
        let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
        (status, answer[end + 4..].to_vec())
    }

    async fn upgraded(&self) -> TcpStream {
        let (stream, head) = self.ask(UPGRADE).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        stream
    }
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// One masked binary message; the mask is zero, so that the payload stays readable.
fn message(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match u8::try_from(payload.len()) {
        Ok(len) if len < 126 => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Everything until the server closes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A server that resets instead of closing has closed, too.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    bytes
}

/// The fault in the first, short, unmasked binary message of `bytes`.
fn fault(bytes: &[u8]) -> Fault {
    assert_eq!(bytes[0], 0x82, "{bytes:x?}");
    let (start, len) = match bytes[1] {
        126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
        len => (2, usize::from(len)),
    };
    match Frame::decode(&bytes[start..start + len]).unwrap() {
        Frame::Fault(None, fault) => fault,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn stores_converge_over_websockets_and_a_stopped_server_is_found_again() {
    let (hub, a, b) = (Device::new().await, Device::new().await, Device::new().await);
    a.db.create_collection("notes", spec()).await.unwrap();
    hub.db.create_collection("notes", spec()).await.unwrap();
    let server = Server::of(&hub, 0).await;
    let (at_a, at_b) = (a.db.sync(server.options()).unwrap(), b.db.sync(server.options()).unwrap());
    // More than one chunk each way.
    let rows: Vec<(i64, String)> = (0..5_000).map(|id| (id, format!("note {id} {}", "-".repeat(150)))).collect();
    put(&a.notes(), rows.iter().map(|(id, title)| (*id, title.as_str()))).await;
    converged(&hub.db, &[&a.db, &b.db], 5_000).await;
    assert_eq!(server.hub.connections(), 2);

    let port = server.address.port();
    server.stop().await;
    let status = status_where(&at_a, "offline", |status| status.state == SyncState::Offline).await;
    let error = status.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    put(&a.notes(), [(9_000, "while it was away")]).await;
    put(&b.notes(), [(9_001, "while it was away")]).await;
    assert_eq!(at_a.status().state, SyncState::Offline);
    status_where(&at_a, "one pending", |status| status.pending == 1).await;
    let _server = Server::of(&hub, port).await;
    converged(&hub.db, &[&a.db, &b.db], 5_002).await;
    for session in [at_a, at_b] {
        let status = status_where(&session, "live", |status| status.state == SyncState::Live && status.pending == 0);
        assert_eq!(status.await.error, None);
    }
}

#[tokio::test]
async fn a_live_server_outlasts_hostile_clients() {
    let (hub, a) = (Device::new().await, Device::new().await);
    a.db.create_collection("notes", spec()).await.unwrap();
    let server = Server::of(&hub, 0).await;
    let _at_a = a.db.sync(server.options()).unwrap();
    converged(&hub.db, &[&a.db], 0).await;

    // Messages that are no frames, or out of turn: told why, then closed.
    let claims_4_gib = [0x92, 4, 0x94, 0, 0, 1, 0xc6, 0xff, 0xff, 0xff, 0xff, 1, 2];
    let hello_with_4_gi_collections = [0x93, 1, 1, 0x92, 7, 0xdd, 0xff, 0xff, 0xff, 0xff];
    for (payload, kind) in [
        (&b"\xc1\xc1\xc1\xc1"[..], "corrupt"),
        (b"", "corrupt"),
        (b"GET / HTTP/1.1\r\n\r\n", "corrupt"),
        (&claims_4_gib, "corrupt"),
        (&hello_with_4_gi_collections, "corrupt"),
        (&[0x93, 1, 99, 0x92, 0, 0x90], "unsupported"),
        (&[0x92, 120, 0xc0], "unsupported"),
        (&[0x92, 7, 0x92, 0, 0], "corrupt"),
        (&[0x92; 70_000], "corrupt"),
    ] {
        let mut stream = server.upgraded().await;
        stream.write_all(&message(payload)).await.unwrap();
        let fault = fault(&rest(&mut stream).await);
        assert_eq!(fault.kind, kind, "{payload:x?}: {}", fault.message);
    }

    // A WebSocket frame that claims a length beyond everything: closed before anything is allocated for it.
    let mut stream = server.upgraded().await;
    stream.write_all(&[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]).await.unwrap();
    let fault = fault(&rest(&mut stream).await);
    assert_eq!(fault.kind, "invalid_argument", "{}", fault.message);

    // Text, not masked, reserved bits: no protocol at all.
    for bytes in [&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'][..], &[0x82, 1, 0x90], &[0xf2, 0x81, 0, 0, 0, 0, 1]] {
        let mut stream = server.upgraded().await;
        stream.write_all(bytes).await.unwrap();
        rest(&mut stream).await;
    }

    // Cut in the midst of a frame, at every byte.
    let hello = message(
        &Frame::Hello(crate::sync::Hello {
            replica: crate::base::ReplicaId(77),
            capabilities: crate::sync::Capabilities::ALL,
            collections: Vec::new(),
        })
        .encode()
        .unwrap(),
    );
    for len in 0..hello.len() {
        let mut stream = server.upgraded().await;
        stream.write_all(&hello[..len]).await.unwrap();
        drop(stream);
    }

    // The server is up, that client was never disturbed, and all others are gone.
    put(&a.notes(), [(1, "still here")]).await;
    converged(&hub.db, &[&a.db], 1).await;
    let wait = async {
        while server.hub.connections() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn strange_pages_and_plain_requests_are_turned_away() {
    let hub = Device::new().await;
    let server = Server::of(&hub, 0).await;
    let (_, head) = server.ask("").await;
    assert!(head.starts_with("HTTP/1.1 4"), "{head}");
    let (_, head) = server.ask(&format!("{UPGRADE}Origin: https://evil.example\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let (_, head) = server.ask(&format!("{UPGRADE}Origin: http://{}\r\n", server.address)).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // What is no sync server is an error that says so, and no end of the session.
    let a = Device::new().await;
    a.db.create_collection("notes", spec()).await.unwrap();
    let urls = vec![format!("ws://{}/elsewhere", server.address)];
    let session =
        a.db.sync(SyncOptions { urls, collections: vec!["notes".to_owned()], ..SyncOptions::default() }).unwrap();
    let status = status_where(&session, "an error", |status| status.error.is_some()).await;
    let error = status.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("404"), "{error}");
}

#[tokio::test]
async fn requests_in_place_of_a_websocket_are_a_connection_like_any() {
    let hub = Device::new().await;
    let server = Server::of(&hub, 0).await;
    let (status, name) = server.request("POST", "/sync/http", "", b"").await;
    assert_eq!(status, 201);
    let path = format!("/sync/http/{}", String::from_utf8(name).unwrap());
    for (method, path, headers, body, expected) in [
        ("POST", "/sync/http", "Origin: https://evil.example\r\n", &b""[..], 403),
        ("GET", &*format!("{path}?at=0"), "Origin: https://evil.example\r\n", b"", 403),
        ("GET", "/sync/http/0?at=0", "", b"", 404),
        ("POST", "/sync/http/0?at=0", "", b"", 404),
        ("DELETE", "/sync/http/0", "", b"", 404),
        ("GET", &path, "", b"", 400),
        ("GET", &format!("{path}?at=-1"), "", b"", 400),
        ("GET", &format!("{path}?at=1"), "", b"", 409),
        ("POST", &format!("{path}?at=0"), "", b"\x05\0\0\0five", 400),
        ("POST", &format!("{path}?at=1"), "", b"", 409),
    ] {
        let (status, answer) = server.request(method, path, headers, body).await;
        assert_eq!(status, expected, "{method} {path}: {}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(server.hub.connections(), 1);
    // No greeting: the hub says what it takes this for, and closes.
    let (status, _) = server.request("POST", &format!("{path}?at=0"), "", b"\x03\0\0\0one").await;
    assert_eq!(status, 204);
    let (status, told) = server.request("GET", &format!("{path}?at=0"), "", b"").await;
    assert_eq!(status, 200);
    let len = u32::from_le_bytes(told[..4].try_into().unwrap()) as usize;
    assert!(matches!(Frame::decode(&told[4..4 + len]).unwrap(), Frame::Fault(None, _)));
    let (status, _) = server.request("GET", &format!("{path}?at=1"), "", b"").await;
    assert_eq!(status, 410);
    // One that leaves.
    let (_, name) = server.request("POST", "/sync/http", "", b"").await;
    let path = format!("/sync/http/{}", String::from_utf8(name).unwrap());
    let (status, _) = server.request("DELETE", &path, "", b"").await;
    assert_eq!(status, 204);
    let (status, _) = server.request("POST", &format!("{path}?at=0"), "", b"\x03\0\0\0one").await;
    assert_eq!(status, 410);
    server.stop().await;
}

#[test]
fn only_own_and_allowed_pages_and_programs_may_sync() {
    let check = |allowed: &AllowedOrigins, origin: Option<&str>| {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost:7700".parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        allowed.allow(&headers).is_ok()
    };
    let listed = AllowedOrigins::Listed(vec!["https://notes.example".to_owned()]);
    for (allowed, origin, expected) in [
        (&AllowedOrigins::Own, None, true),
        (&AllowedOrigins::Own, Some("http://localhost:7700"), true),
        (&AllowedOrigins::Own, Some("http://localhost:7701"), false),
        (&AllowedOrigins::Own, Some("https://evil.example"), false),
        (&AllowedOrigins::Own, Some("null"), false),
        (&listed, Some("https://notes.example"), true),
        (&listed, Some("https://notes.example.evil"), false),
        (&listed, Some("http://localhost:7700"), true),
        (&AllowedOrigins::Any, Some("https://evil.example"), true),
    ] {
        assert_eq!(check(allowed, origin), expected, "{allowed:?} {origin:?}");
    }
}
