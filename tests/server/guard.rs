use serde_json::json;

use crate::native::Server;
use crate::notes;

const UPGRADE: [(&str, &str); 4] = [
    ("upgrade", "websocket"),
    ("connection", "upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[test]
fn other_origins_neither_write_nor_sync() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--allow-origin", "https://notes.example"]);
    server.post_well("/api/collections", &notes());
    let own = format!("http://{}", server.address);
    let body = br#"{"rows": [{"id": 1, "title": "one", "v": [1, 2, 3]}]}"#;
    let insert = |origin: &str| server.request("POST", "/api/collections/notes/upsert", &[("origin", origin)], body);
    assert_eq!(insert(&own).status, 200);
    let allowed = insert("https://notes.example");
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some("https://notes.example")));
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        let refused = insert(origin);
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None), "{origin}");
        assert_eq!(refused.json()["error"]["kind"], "invalid_argument");
        let headers: Vec<_> = UPGRADE.into_iter().chain([("origin", origin)]).collect();
        assert_eq!(server.request("GET", "/sync", &headers, b"").status, 403, "{origin}");
        let delete = server.request("DELETE", "/api/collections/notes", &[("origin", origin)], b"");
        assert_eq!(delete.status, 403, "{origin}");
        // Reading is not refused, but the page is not let near the answer.
        let read = server.request("GET", "/health", &[("origin", origin)], b"");
        assert_eq!((read.status, read.header("access-control-allow-origin")), (200, None));
    }
    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        let response = server.request("OPTIONS", "/api/collections/notes/upsert", &headers, b"");
        response.header("access-control-allow-origin").map(str::to_owned)
    };
    assert_eq!(preflight("https://notes.example").as_deref(), Some("https://notes.example"));
    assert_eq!(preflight("https://evil.example"), None);
    assert_eq!(server.post_well("/api/collections/notes/count", &json!({})), json!({"count": 1}));
}

#[test]
fn foreign_names_of_this_machine_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--allow-origin", "https://notes.example"]);
    let port = server.address.rsplit(':').next().unwrap();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("notes.example".to_owned(), 200),
        (format!("rebound.example:{port}"), 421),
        ("10.0.0.1".to_owned(), 421),
        (String::new(), 421),
    ] {
        let response = server.request("GET", "/health", &[("host", &host)], b"");
        assert_eq!(response.status, status, "{host}");
    }
}
