use serde_json::json;

use crate::native::Server;

#[test]
fn fields_of_every_type_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let collection = json!({"name": "kinds", "fields": [
        {"name": "id", "type": "varchar", "primaryKey": true, "autoId": true},
        {"name": "tiny", "type": "int8"},
        {"name": "at", "type": "timestamp"},
        {"name": "tags", "type": "array", "elementType": "varchar", "maxCapacity": 3},
        {"name": "half", "type": "float16_vector", "dim": 2, "nullable": true},
        {"name": "bits", "type": "binary_vector", "dim": 8},
        {"name": "terms", "type": "sparse_float_vector", "default": {"1": 0.5}},
    ]});
    let created = server.post_well("/api/collections", &collection);
    assert_eq!(created["schema"]["fields"][0]["autoId"], true);
    assert_eq!(created["indexes"]["bits"], json!({"metric": "HAMMING", "kind": "FLAT"}));
    let rows = json!({"rows": [
        {"tiny": 1, "at": "2024-05-01T12:00:00Z", "tags": ["a", "b"], "half": [1, 0.1], "bits": [255]},
        {"id": "own", "tiny": 2, "at": 5, "tags": [], "bits": [1], "terms": [[7, 2]]},
    ]});
    let written = server.post_well("/api/collections/kinds/insert", &rows);
    assert_eq!((written["keys"][0].as_str().unwrap().len(), &written["keys"][1]), (26, &json!("own")));
    let query = |body| server.post_well("/api/collections/kinds/query", &body)["rows"].clone();
    assert_eq!(
        query(json!({"filter": "array_contains(tags, 'b')", "outputFields": ["at", "half", "bits", "terms"]})),
        json!([{"at": 1_714_564_800_000_000i64, "half": [1.0, 0.099_975_585_937_5], "bits": [255], "terms": {"1": 0.5}}])
    );
    assert_eq!(query(json!({"filter": "tiny == 2"})), json!([{"id": "own", "tiny": 2, "at": 5, "tags": []}]));
    for (field, vector, key) in [
        ("half", json!([1, 0]), written["keys"][0].clone()),
        ("bits", json!([3]), json!("own")),
        ("terms", json!({"7": 1}), json!("own")),
    ] {
        let found = server.post_well("/api/collections/kinds/search", &json!({"field": field, "vector": vector}));
        assert_eq!(found["hits"][0]["key"], key, "{field}: {found}");
    }
    let bad = json!({"rows": [{"tiny": 200, "at": 5, "tags": [], "bits": [1]}]});
    let (status, answer) = server.post("/api/collections/kinds/insert", &bad);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("row 0, field \"tiny\": 200 is out of range"), "{status} {message}");
}

#[test]
fn aliases_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    for name in ["blue", "green"] {
        let fields = json!([{"name": "id", "type": "int64", "primaryKey": true}]);
        server.post_well("/api/collections", &json!({"name": name, "fields": fields}));
    }
    server.post_well("/api/collections/blue/insert", &json!({"rows": [{"id": 1}]}));
    let count = || server.post_well("/api/collections/live/count", &json!({}))["count"].clone();
    let put = |collection: &str| {
        let body = json!({"collection": collection}).to_string();
        let headers = [("content-type", "application/json")];
        server.request("PUT", "/api/aliases/live", &headers, body.as_bytes()).status
    };
    let delete = || server.request("DELETE", "/api/aliases/live", &[], b"").status;
    assert_eq!(put("blue"), 200);
    assert_eq!(count(), 1);
    assert_eq!(put("green"), 200);
    assert_eq!(count(), 0);
    assert_eq!(put("red"), 404);
    assert_eq!(server.get("/api/aliases").json(), json!({"aliases": [{"alias": "live", "collection": "green"}]}));
    assert_eq!(delete(), 200);
    assert_eq!(delete(), 404);
    assert_eq!(server.post("/api/collections/live/count", &json!({})).0, 404);
}

#[test]
fn fields_are_added_over_http() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let fields = json!([{"name": "id", "type": "int64", "primaryKey": true}]);
    server.post_well("/api/collections", &json!({"name": "rows", "fields": fields}));
    server.post_well("/api/collections/rows/insert", &json!({"rows": [{"id": 1}]}));
    let add = |field| server.post("/api/collections/rows/fields", &json!({ "field": field }));
    let (status, described) = add(json!({"name": "n", "type": "int16", "default": -3}));
    assert_eq!((status, &described["schema"]["fields"][1]["type"]), (200, &json!("int16")));
    let rows = server.post_well("/api/collections/rows/query", &json!({"filter": "n < 0"}));
    assert_eq!(rows, json!({"rows": [{"id": 1, "n": -3}]}));
    let (status, answer) = add(json!({"name": "m", "type": "int16"}));
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(status == 400 && message.contains("nullable or has a default"), "{status} {message}");
}
