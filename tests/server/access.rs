use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};

use crate::native::{Response, Server, eddy, texts, write};
use crate::notes;

pub(super) const SECRET: &str = "a secret that only tests know, and servers";

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

pub(super) fn token(claims: &Value) -> String {
    let signed = format!("{}.{}", part(&json!({"alg": "HS256"})), part(claims));
    let mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

pub(super) fn grant(collection: &str, actions: &[&str], filter: Option<&str>) -> Value {
    json!({"collections": [collection], "actions": actions, "filter": filter})
}

fn ask(server: &Server, token: &str, method: &str, path: &str, body: &Value) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = if method == "GET" { String::new() } else { body.to_string() };
    server.request(method, path, &headers, body.as_bytes())
}

pub(super) fn well(server: &Server, token: &str, path: &str, body: &Value) -> Value {
    let response = ask(server, token, "POST", path, body);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    response.json()
}

#[test]
fn tokens_say_what_requests_may_do() {
    let directory = tempfile::tempdir().unwrap();
    let revoked = directory.path().join("revoked");
    let server = Server::start(
        &directory.path().join("data"),
        &["--token-secret", SECRET, "--tokens-revoked", revoked.to_str().unwrap()],
    );
    let admin = token(&json!({"eddy": [grant("*", &["admin"], None)]}));
    well(&server, &admin, "/api/collections", &notes());
    let rows = |ids: &[i64]| {
        let row = |id: &i64| json!({"id": id, "title": if id % 2 == 0 { "ann" } else { "bob" }, "v": [1, 0, *id]});
        json!({"rows": ids.iter().map(row).collect::<Vec<_>>()})
    };
    well(&server, &admin, "/api/collections/notes/insert", &rows(&[1, 2, 3, 4]));
    // Nobody without a token, but for the health.
    assert_eq!(server.get("/health").status, 200);
    for (method, path) in [
        ("GET", "/api/collections"),
        ("GET", "/api/archive"),
        ("POST", "/api/collections/notes/count"),
        ("POST", "/api/access/revoke"),
        ("GET", "/api/collections/notes/changes"),
    ] {
        for headers in [&[][..], &[("authorization", "Bearer a.b.c")], &[("authorization", "Basic eDp5")]] {
            let response = server.request(method, path, headers, b"{}");
            assert_eq!(
                (response.status, &response.json()["error"]["kind"]),
                (401, &json!("unauthorized")),
                "{method} {path}"
            );
        }
    }
    // Ann reads and writes her rows, and nothing else.
    let ann =
        token(&json!({"sub": "ann", "jti": "1", "eddy": [grant("notes", &["read", "write"], Some("title == 'ann'"))]}));
    assert_eq!(well(&server, &ann, "/api/collections/notes/count", &json!({}))["count"], 2);
    let sneaky = json!({"filter": "title == 'ann' or title != 'ann'"});
    assert_eq!(well(&server, &ann, "/api/collections/notes/query", &sneaky)["rows"].as_array().unwrap().len(), 2);
    for filter in ["id > 0) or (id > 0", "id > 0 or (true"] {
        let broken = ask(&server, &ann, "POST", "/api/collections/notes/query", &json!({"filter": filter}));
        assert_eq!(broken.status, 400, "{}", broken.text());
    }
    let found = well(&server, &ann, "/api/collections/notes/search", &json!({"vector": [1, 0, 3]}));
    assert_eq!(found["hits"].as_array().unwrap().len(), 2);
    let got = well(&server, &ann, "/api/collections/notes/get", &json!({"keys": [1, 2, 3, 4], "outputFields": ["id"]}));
    assert_eq!(got, json!({"rows": [{"id": 2}, {"id": 4}]}));
    let begun = well(&server, &ann, "/api/collections/notes/query-iterator", &json!({"outputFields": ["id"]}));
    assert_eq!(begun["rows"], json!([{"id": 2}, {"id": 4}]));
    well(&server, &ann, "/api/collections/notes/upsert", &rows(&[2, 6]));
    for (path, body) in [
        ("/api/collections/notes/upsert", rows(&[3])),
        ("/api/collections/notes/upsert", json!({"rows": [{"id": 3, "title": "ann", "v": [1, 0, 0]}]})),
        ("/api/collections/notes/delete", json!({"keys": [1]})),
        ("/api/collections/notes/evaluate", json!({})),
        ("/api/collections/notes/flush", json!({})),
        ("/api/collections/others/count", json!({})),
        ("/api/collections", json!({"name": "more", "fields": []})),
        ("/api/compact", json!({})),
        ("/api/access/revoke", json!({"token": "1"})),
    ] {
        let response = ask(&server, &ann, "POST", path, &body);
        if path == "/api/collections" {
            assert!(matches!(response.status, 400 | 403));
            continue;
        }
        assert_eq!(
            (response.status, &response.json()["error"]["kind"]),
            (403, &json!("forbidden")),
            "{path}: {}",
            response.text()
        );
    }
    let (alias, ttl) = (json!({"collection": "notes"}), json!({"ttlSeconds": 3}));
    for (method, path, body) in [
        ("DELETE", "/api/collections/notes", &json!({})),
        ("GET", "/api/memory", &json!({})),
        ("GET", "/api/stats", &json!({})),
        ("GET", "/api/archive", &json!({})),
        ("PUT", "/api/aliases/x", &alias),
        ("PUT", "/api/collections/notes/ttl", &ttl),
        ("PUT", "/api/collections/notes/partitions/x", &json!({})),
        ("GET", "/api/collections/notes/subscriptions", &json!({})),
        // Lost rows are of anybody.
        ("GET", "/api/collections/notes/conflicts", &json!({})),
        ("GET", "/api/collections/notes/stats", &json!({})),
    ] {
        assert_eq!(ask(&server, &ann, method, path, body).status, 403, "{method} {path}");
    }
    assert_eq!(well(&server, &ann, "/api/collections/notes/delete", &json!({"filter": "id > 0"}))["count"], 3);
    assert_eq!(well(&server, &admin, "/api/collections/notes/count", &json!({}))["count"], 2);
    // Another name of the collection is no way around.
    assert_eq!(ask(&server, &admin, "PUT", "/api/aliases/mine", &json!({"collection": "notes"})).status, 200);
    let of_alias = token(&json!({"eddy": [grant("mine", &["read"], None)]}));
    assert_eq!(ask(&server, &of_alias, "POST", "/api/collections/mine/count", &json!({})).status, 403);
    assert_eq!(well(&server, &ann, "/api/collections/mine/count", &json!({}))["count"], 0);
    let listed = |token: &str| {
        ask(&server, token, "GET", "/api/collections", &json!({})).json()["collections"].as_array().unwrap().len()
    };
    assert_eq!((listed(&admin), listed(&ann), listed(&of_alias)), (1, 1, 0));
    // Revoked by its id: known, and may do nothing.
    well(&server, &admin, "/api/access/revoke", &json!({"token": "1"}));
    assert_eq!(ask(&server, &ann, "POST", "/api/collections/notes/count", &json!({})).status, 403);
    assert!(std::fs::read_to_string(&revoked).unwrap().contains("{\"token\":\"1\"}"));
    // Commands take the token of their environment.
    let stats = |token: Option<&str>| {
        let mut command = eddy();
        command.args(["stats", "--url", &format!("http://{}", server.address), "--json"]).env_remove("EDDY_TOKEN");
        command.envs(token.map(|token| ("EDDY_TOKEN", token)));
        texts(&command.output().unwrap())
    };
    assert_eq!(stats(Some(&admin)).0, 0);
    let (code, _, err) = stats(None);
    assert!(code != 0 && err.contains("a token is needed"), "{err}");
}

#[test]
fn public_keys_are_enough() {
    let directory = tempfile::tempdir().unwrap();
    let signing = SigningKey::from_bytes(&[42; 32]);
    let x = URL_SAFE_NO_PAD.encode(signing.verifying_key().as_bytes());
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "2026", "x": x}], "audience": "eddy"});
    let keys = write(directory.path(), "keys.json", keys.to_string());
    let server = Server::start(&directory.path().join("data"), &["--token-keys", &keys]);
    let token = |claims: Value| {
        let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "2026"})), part(&claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signing.sign(signed.as_bytes()).to_bytes()))
    };
    let admin = json!([grant("*", &["admin"], None)]);
    let good = token(json!({"aud": ["eddy", "x"], "eddy": admin}));
    well(&server, &good, "/api/collections", &notes());
    let bad = token(json!({"aud": "x", "eddy": admin}));
    assert_eq!(ask(&server, &bad, "GET", "/api/collections", &json!({})).status, 401);
    let expired = token(json!({"aud": "eddy", "exp": 1_000, "eddy": admin}));
    assert_eq!(ask(&server, &expired, "GET", "/api/collections", &json!({})).status, 401);
    well(&server, &good, "/api/access/revoke", &json!({"key": "2026"}));
    assert_eq!(ask(&server, &good, "GET", "/api/collections/notes", &json!({})).status, 403);
    assert!(directory.path().join("keys.json.revoked").is_file());
}
