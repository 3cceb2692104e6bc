use serde_json::{Value, json};

use crate::native::Server;
use crate::notes;

#[test]
fn partitions() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let at = |partition: &str| format!("/api/collections/notes/partitions/{partition}");
    let ask = |method: &str, partition: &str| server.request(method, &at(partition), &[], b"").status;
    assert_eq!((ask("PUT", "blue"), ask("PUT", "blue"), ask("PUT", "9"), ask("DELETE", "red")), (200, 409, 400, 404));
    let row = |id: i64| json!([{"id": id, "title": "t", "v": [1, 0, 0]}]);
    server.post_well("/api/collections/notes/insert", &json!({"rows": row(1)}));
    server.post_well("/api/collections/notes/insert", &json!({"rows": row(2), "partition": "blue"}));
    server.post_well("/api/collections/notes/upsert", &json!({"rows": row(3), "partition": "blue"}));
    let listed = server.get("/api/collections/notes/partitions").json();
    assert_eq!(listed, json!({"partitions": [{"name": "_default", "rows": 1}, {"name": "blue", "rows": 2}]}));
    let query = json!({"partitions": ["blue"], "outputFields": ["id", "$partition"], "limit": 1});
    let found = server.post_well("/api/collections/notes/query", &query);
    assert_eq!(found, json!({"rows": [{"id": 2, "$partition": "blue"}]}));
    let search = json!({"partitions": ["_default"], "vector": [1, 0, 0]});
    assert_eq!(server.post_well("/api/collections/notes/search", &search)["hits"][0]["key"], 1);
    let got = server.post_well("/api/collections/notes/get", &json!({"keys": [1, 2], "partitions": ["blue"]}));
    assert_eq!(got["rows"].as_array().unwrap().len(), 1);
    let count = server.post_well("/api/collections/notes/count", &json!({"partitions": ["blue", "_default"]}));
    assert_eq!(count["count"], 3);
    assert_eq!(server.post("/api/collections/notes/query", &json!({"partitions": ["red"]})).0, 404);
    let deleted = json!({"keys": [1, 2], "partition": "blue"});
    assert_eq!(server.post_well("/api/collections/notes/delete", &deleted)["count"], 1);
    assert_eq!(ask("DELETE", "blue"), 200);
    assert_eq!(server.get("/api/collections/notes").json()["partitions"], json!({"_default": 1}));
    assert_eq!(ask("DELETE", "_default"), 400);
}

#[test]
fn sql() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let rows = json!([
        {"id": 1, "title": "one", "n": 2, "v": [1, 0, 0]},
        {"id": 2, "title": "two", "n": 5, "v": [0, 1, 0]},
        {"id": 3, "title": "three", "n": 5, "v": [0, 0, 1]},
    ]);
    server.post_well("/api/collections/notes/insert", &json!({"rows": rows}));
    let text = "SELECT n, count(*) AS many FROM notes WHERE inner_product(v, {q}) < 1 GROUP BY n ORDER BY n";
    let found = server.post_well("/api/sql", &json!({"sql": text, "params": {"q": [1, 0, 0]}}));
    let columns = json!([{"name": "n", "type": "double"}, {"name": "many", "type": "int64"}]);
    assert_eq!(found, json!({"columns": columns, "rows": [{"n": 5.0, "many": 2}]}));
    let plan = server.post_well("/api/sql", &json!({"sql": "EXPLAIN SELECT id FROM notes"}));
    assert_eq!(plan, json!({"plan": "output: sink -> (id int64)\n  notes: source -> (id int64)\n"}));
    let (status, answer) = server.post("/api/sql", &json!({"sql": "SELECT titel FROM notes"}));
    assert_eq!((status, &answer["error"]["kind"]), (400, &json!("invalid_argument")));
    assert!(answer["error"]["message"].as_str().unwrap().contains("did you mean `title`?, at position 7"));
    let (_, answer) = server.post("/api/sql", &json!({"sql": "SELECT id FROM notes OFFSET 3"}));
    assert_eq!(answer["error"]["kind"], "unsupported");
}

#[test]
fn collections_rows_and_searches() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let health = server.get("/health").json();
    assert_eq!((&health["status"], &health["collections"]), (&json!("ok"), &json!(0)));
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert!(health["replica"].as_u64().unwrap() < 1 << 53);
    let created = server.post_well("/api/collections", &notes());
    assert_eq!((&created["name"], &created["rows"]), (&json!("notes"), &json!(0)));
    assert_eq!(created["indexes"]["v"]["metric"], "IP");
    assert_eq!(server.post("/api/collections", &notes()).0, 409);

    let rows = json!({"rows": [
        {"id": 1, "title": "one", "v": [1, 0, 0]},
        {"id": 2, "title": "two", "n": 2, "v": [0, 1, 0], "color": "red"},
    ]});
    let written = server.post_well("/api/collections/notes/insert", &rows);
    assert_eq!(written["count"], 2);
    assert!(written["timestamp"].as_str().unwrap().parse::<u64>().unwrap() > 0 && written["lsn"].is_u64());
    let (status, answer) = server.post("/api/collections/notes/insert", &rows);
    assert_eq!((status, &answer["error"]["kind"]), (409, &json!("already_exists")));
    let third =
        json!({"rows": [{"id": 3, "title": "three", "v": [0, 0, 1]}, {"id": 1, "title": "uno", "v": [1, 0, 0]}]});
    assert_eq!(server.post_well("/api/collections/notes/upsert", &third)["count"], 2);

    let got = server.post_well("/api/collections/notes/get", &json!({"keys": [3, 9, 1], "outputFields": ["title"]}));
    assert_eq!(got, json!({"rows": [{"title": "three"}, {"title": "uno"}]}));
    let query = json!({"filter": "id >= 1", "outputFields": ["id", "color"], "limit": 2, "offset": 1});
    assert_eq!(
        server.post_well("/api/collections/notes/query", &query),
        json!({"rows": [{"id": 2, "color": "red"}, {"id": 3}]})
    );
    assert_eq!(
        server.post_well("/api/collections/notes/count", &json!({"filter": "title like \"t%\""})),
        json!({"count": 2})
    );
    let search = json!({"vector": [0.1, 0.9, 0.2], "limit": 2, "filter": "id != 1", "outputFields": ["title"]});
    let found = server.post_well("/api/collections/notes/search", &search);
    assert_eq!(found["hits"][0]["key"], 2);
    assert_eq!(found["hits"][1]["row"], json!({"title": "three"}));
    assert!((found["hits"][0]["score"].as_f64().unwrap() - 0.9).abs() < 1e-6);
    for counter in ["rowsScanned", "segmentsByIndex", "segmentsByScan", "ms"] {
        assert!(found[counter].is_number(), "{counter}");
    }

    assert_eq!(server.post_well("/api/collections/notes/delete", &json!({"keys": [1, 77]}))["count"], 1);
    assert_eq!(server.post_well("/api/collections/notes/delete", &json!({"filter": "color == \"red\""}))["count"], 1);
    let list = server.get("/api/collections").json();
    assert_eq!(list["collections"][0]["rows"], 1);
    assert_eq!(server.get("/api/collections/notes").json()["schema"]["fields"][3]["dim"], 3);
    assert_eq!(server.request("DELETE", "/api/collections/notes", &[], b"").status, 200);
    assert_eq!(server.get("/health").json()["collections"], 0);
}

#[test]
fn wrong_requests_are_answered_with_kind_message_and_position() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--body-limit", "1"]);
    server.post_well("/api/collections", &notes());
    let at = |path: &str| format!("/api/collections/notes/{path}");
    let row = |v: Value| json!({"rows": [{"id": 1, "title": "one", "v": v}]});
    for (path, body, status, kind, words) in [
        (at("insert"), row(json!([1, 0])), 400, "invalid_argument", "\"v\""),
        (at("insert"), row(json!([1, 0, 1e39])), 400, "invalid_argument", "\"v\""),
        (at("insert"), row(json!("abc")), 400, "invalid_argument", "\"v\""),
        (
            at("insert"),
            json!({"rows": [{"id": 1, "title": "a", "v": [1, 2, 3]}, {"id": 1, "title": "b", "v": [1, 2, 3]}]}),
            400,
            "invalid_argument",
            "1",
        ),
        (at("insert"), json!({"rowz": []}), 400, "invalid_argument", "rowz"),
        (at("search"), json!({"vector": [1, 2]}), 400, "invalid_argument", "3"),
        (at("search"), json!({}), 400, "invalid_argument", "one of \"vector\""),
        (at("search"), json!({"vector": [1, 2, 3], "limit": 0}), 400, "invalid_argument", "limit"),
        (at("search"), json!({"text": "rain"}), 404, "not_found", "words"),
        (at("delete"), json!({}), 400, "invalid_argument", "either \"keys\" or \"filter\""),
        ("/api/collections/nothing/query".to_owned(), json!({}), 404, "not_found", "nothing"),
        ("/api/collections/notes/explode".to_owned(), json!({}), 404, "not_found", "explode"),
    ] {
        let (got, answer) = server.post(&path, &body);
        let error = &answer["error"];
        assert_eq!((got, error["kind"].as_str().unwrap()), (status, kind), "{path} {body}: {answer}");
        assert!(error["message"].as_str().unwrap().contains(words), "{path} {body}: {answer}");
    }
    let (status, answer) = server.post(&at("query"), &json!({"filter": "id = 1"}));
    assert_eq!((status, &answer["error"]["position"]), (400, &json!(3)), "{answer}");
    for body in [&b"{"[..], b"", b"[]", b"\xff\xfe", b"{\"rows\": [", &[b'['; 100_000]] {
        let response = server.request("POST", &at("insert"), &[], body);
        assert_eq!((response.status, &response.json()["error"]["kind"]), (400, &json!("invalid_argument")));
    }
    let large = vec![b' '; (1 << 20) + 1];
    let response = server.request("POST", &at("insert"), &[], &large);
    assert_eq!((response.status, &response.json()["error"]["kind"]), (413, &json!("invalid_argument")));
    assert_eq!(server.request("PUT", &at("insert"), &[], b"").status, 405);
    assert_eq!(server.request("GET", &at("insert"), &[], b"").json()["error"]["kind"], "invalid_argument");
    assert_eq!(server.get("/nothing").status, 404);
    assert_eq!(server.post_well(&at("count"), &json!({})), json!({"count": 0}), "no part of a wrong batch is there");
}

#[test]
fn the_index_is_built_while_the_server_is_idle() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let rows: Vec<Value> =
        (0..500).map(|id| json!({"id": id, "title": "", "v": [f64::from(id), 1, f64::from(id % 7)]})).collect();
    server.post_well("/api/collections/notes/insert", &json!({ "rows": rows }));
    let started = std::time::Instant::now();
    while server.get("/api/collections/notes").json()["rowsUnindexed"] != 0 {
        assert!(started.elapsed().as_secs() < 60, "the rows are not indexed");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let found = server.post_well("/api/collections/notes/search", &json!({"vector": [1, 0, 0], "limit": 1}));
    assert_eq!(found["hits"][0]["key"], 499);
}

#[test]
fn batches_conditions_and_the_past() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &["--retention", "3600", "--buffered"]);
    server.post_well("/api/collections", &notes());
    let at = |what: &str| format!("/api/collections/notes/{what}");
    let row = |id: i64, title: &str| json!({"id": id, "title": title, "v": [id, 1, 0]});
    let first = server.post_well(&at("upsert"), &json!({"rows": [row(1, "a"), row(2, "a")], "ifAbsent": true}));
    let (version, then) = (&first["version"], &first["timestamp"]);
    let read = server.post_well(&at("get"), &json!({"keys": [1], "outputFields": ["title", "$version"]}));
    assert_eq!(read["rows"], json!([{"title": "a", "$version": version}]));
    let (status, answer) = server.post(&at("upsert"), &json!({"rows": [row(2, "b"), row(3, "b")], "ifAbsent": true}));
    assert_eq!((status, &answer["error"]["kind"]), (409, &json!("conflict")), "{answer}");
    let operations = json!([
        {"upsert": [row(1, "b")], "ifVersion": version},
        {"delete": {"keys": [2]}, "ifVersion": [version]},
        {"insert": [row(4, "b")]},
    ]);
    let written = server.post_well(&at("batch"), &json!({"operations": operations, "durability": "synced"}));
    assert_eq!(written["count"], 3);
    let (status, answer) = server.post(&at("batch"), &json!({"operations": operations}));
    assert_eq!((status, &answer["error"]["kind"]), (409, &json!("conflict")), "{answer}");
    for (body, what) in [
        (json!({"operations": [{}]}), "one of"),
        (json!({"operations": [{"delete": {"filter": "id > 0"}, "ifVersion": [version]}]}), "takes no versions"),
        (json!({"operations": [{"upsert": [row(1, "c")], "ifVersion": "x"}]}), "is no version"),
        (json!({"operations": [{"upsert": [row(1, "c")], "ifVersion": [version, version]}]}), "2 versions for 1 rows"),
        (json!({"operations": [], "durability": "perhaps"}), "perhaps"),
    ] {
        let (status, answer) = server.post(&at("batch"), &body);
        assert_eq!((status, &answer["error"]["kind"]), (400, &json!("invalid_argument")), "{body}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(what), "{answer}");
    }
    let titles = |body: Value| server.post_well(&at("query"), &body)["rows"].clone();
    let fields = json!(["id", "title"]);
    assert_eq!(titles(json!({"outputFields": fields})), json!([{"id": 1, "title": "b"}, {"id": 4, "title": "b"}]));
    let past = json!([{"id": 1, "title": "a"}, {"id": 2, "title": "a"}]);
    assert_eq!(titles(json!({"outputFields": fields, "at": then})), past);
    assert_eq!(server.post_well(&at("count"), &json!({"at": then})), json!({"count": 2}));
    assert_eq!(
        server.post_well(&at("get"), &json!({"keys": [2], "outputFields": ["id"], "at": then}))["rows"][0]["id"],
        2
    );
    let found = server.post_well(&at("search"), &json!({"vector": [4, 1, 0], "at": then}));
    assert_eq!(found["hits"].as_array().unwrap().len(), 2);
    let (status, answer) = server.post(&at("count"), &json!({"at": 1}));
    assert_eq!((status, &answer["error"]["kind"]), (410, &json!("gone")), "{answer}");
}

#[test]
fn forms_of_search_and_query() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let row =
        |id: i64, v: [f64; 3]| json!({"id": id, "title": if id % 2 == 0 { "even" } else { "odd" }, "n": id, "v": v});
    let rows = [row(1, [1.0, 0.0, 0.0]), row(2, [0.8, 0.6, 0.0]), row(3, [0.0, 1.0, 0.0]), row(4, [0.0, 0.0, 1.0])];
    server.post_well("/api/collections/notes/insert", &json!({"rows": rows}));
    let ask = |path: &str, body: Value| server.post_well(&format!("/api/collections/notes/{path}"), &body);
    let keys = |hits: &Value| -> Vec<i64> {
        hits.as_array().unwrap().iter().map(|hit| hit["key"].as_i64().unwrap()).collect()
    };
    let batch = ask("search", json!({"vectors": [[1, 0, 0], [0, 1, 0]], "limit": 2}));
    assert_eq!((keys(&batch["results"][0]), keys(&batch["results"][1])), (vec![1, 2], vec![3, 2]));
    assert!(batch.get("hits").is_none());
    assert_eq!(keys(&ask("search", json!({"ids": [3], "limit": 1}))["results"][0]), [2]);
    let ranged = json!({"vector": [1, 0, 0], "radius": 0.5, "rangeFilter": 0.9});
    assert_eq!(keys(&ask("search", ranged)["hits"]), [2]);
    let grouped = json!({"vector": [1, 0, 0], "groupBy": "title", "limit": 2});
    assert_eq!(keys(&ask("search", grouped)["hits"]), [1, 2]);
    let filtered = json!({"vector": [1, 0, 0], "filter": "n in {wanted}", "filterParams": {"wanted": [3, 4]}});
    assert_eq!(keys(&ask("search", filtered)["hits"]), [3, 4]);
    let hybrid = json!({
        "searches": [{"vector": [1, 0, 0], "limit": 2}, {"vector": [0, 1, 0], "limit": 2}],
        "rerank": {"type": "rrf", "k": 1},
        "rankers": [{"boost": 10, "filter": "n == 3"}],
        "limit": 3,
    });
    assert_eq!(keys(&ask("hybrid-search", hybrid)["hits"]), [3, 2, 1]);
    let ordered = json!({"orderBy": ["title", "n desc"], "outputFields": ["n"]});
    assert_eq!(ask("query", ordered)["rows"], json!([{"n": 4.0}, {"n": 2.0}, {"n": 3.0}, {"n": 1.0}]));
    let counted = json!({"groupBy": ["title"], "outputFields": ["title", "count(*)", "sum(n)"]});
    let rows = json!([{"title": "even", "count(*)": 2, "sum(n)": 6.0}, {"title": "odd", "count(*)": 2, "sum(n)": 4.0}]);
    assert_eq!(ask("query", counted)["rows"], rows);
    let planned = ask("search", json!({"vector": [1, 0, 0], "explain": "plan"}));
    assert!(planned["text"].as_str().unwrap().contains("nearest v by IP") && planned["plan"].get("actual").is_none());
    let profiled = ask("query", json!({"filter": "id == 2", "explain": "profile"}));
    assert_eq!(profiled["plan"]["actual"]["rows"], 1.0);
    let (status, error) = server.post("/api/collections/notes/hybrid-search", &json!({"searches": []}));
    assert_eq!((status, &error["error"]["kind"]), (400, &json!("invalid_argument")));
}

#[test]
fn iterators_neither_repeat_nor_miss_a_row() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let row = |id: i64| json!({"id": id, "title": "t", "v": [1, id, 0]});
    let rows: Vec<Value> = (0..25).map(row).collect();
    server.post_well("/api/collections/notes/insert", &json!({"rows": rows}));
    let walk = |first: Value, field: &str| {
        let (mut ids, mut answer) = (Vec::new(), first);
        loop {
            let rows = answer[field].as_array().unwrap().clone();
            ids.extend(rows.iter().map(|row| row.get("key").unwrap_or(&row["id"]).as_i64().unwrap()));
            let Some(next) = answer["next"].as_str() else { return ids };
            // What is written meanwhile is not seen.
            server.post_well("/api/collections/notes/delete", &json!({"keys": [ids.len()]}));
            let next = format!("/api/iterators/{next}");
            answer = server.get(&next).json();
            // An answer that was lost can be asked for again.
            assert_eq!(server.get(&next).json(), answer);
        }
    };
    let first = server.post_well("/api/collections/notes/query-iterator", &json!({"batchSize": 4, "limit": 22}));
    assert_eq!(walk(first, "rows"), (0..22).collect::<Vec<i64>>());
    server.post_well("/api/collections/notes/upsert", &json!({"rows": rows}));
    let search = json!({"vector": [0, 1, 0], "batchSize": 7, "filter": "id >= {least}", "filterParams": {"least": 5}});
    let first = server.post_well("/api/collections/notes/search-iterator", &search);
    assert_eq!(walk(first, "hits"), (5..25).rev().collect::<Vec<i64>>());

    let began = server.post_well("/api/collections/notes/query-iterator", &json!({"batchSize": 2}));
    let next = began["next"].as_str().unwrap().to_owned();
    let second = server.get(&format!("/api/iterators/{next}")).json();
    server.get(&format!("/api/iterators/{}", second["next"].as_str().unwrap()));
    let error = |answer: crate::native::Response| (answer.status, answer.json()["error"]["kind"].clone());
    assert_eq!(error(server.get(&format!("/api/iterators/{next}"))), (410, json!("gone")), "two batches ago");
    assert_eq!(server.request("DELETE", &format!("/api/iterators/{next}"), &[], b"").status, 200);
    assert_eq!(error(server.get(&format!("/api/iterators/{next}"))), (410, json!("gone")), "it was ended");
    assert_eq!(error(server.get("/api/iterators/x")).0, 400);
    for (path, body) in [
        ("query-iterator", json!({"batchSize": 0})),
        ("query-iterator", json!({"keepMs": 600_001})),
        ("query-iterator", json!({"explain": "plan"})),
        ("query-iterator", json!({"orderBy": ["id"]})),
        ("search-iterator", json!({"vector": [1, 0, 0], "offset": 3})),
        ("query", json!({"batchSize": 3})),
        ("search", json!({"vector": [1, 0, 0], "keepMs": 3})),
    ] {
        assert_eq!(server.post(&format!("/api/collections/notes/{path}"), &body).0, 400, "{body}");
    }
    // Nobody asks for this one, so it goes by itself.
    let began = server.post_well("/api/collections/notes/query-iterator", &json!({"batchSize": 2, "keepMs": 1}));
    let path = format!("/api/iterators/{}", began["next"].as_str().unwrap());
    while server.get(&path).status != 410 {}
    let mut open = Vec::new();
    let refused = loop {
        let (status, answer) = server.post("/api/collections/notes/query-iterator", &json!({"batchSize": 2}));
        if status != 200 {
            break (status, answer);
        }
        open.push(answer["next"].as_str().unwrap().to_owned());
    };
    assert_eq!((open.len(), refused.0, &refused.1["error"]["kind"]), (64, 503, &json!("unavailable")));
    assert_eq!(server.request("DELETE", &format!("/api/iterators/{}", open[0]), &[], b"").status, 200);
    server.post_well("/api/collections/notes/query-iterator", &json!({}));
}

#[test]
fn consistency_and_the_plan_of_several_searches() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    server.post_well("/api/collections", &notes());
    let written =
        server.post_well("/api/collections/notes/insert", &json!({"rows": [{"id": 1, "title": "t", "v": [1, 0, 0]}]}));
    let token = written["sessionToken"].as_str().unwrap();
    for seen in [
        json!({"consistency": "strong"}),
        json!({"consistency": "bounded"}),
        json!({"consistency": {"bounded": 0}}),
        json!({"consistency": "session", "sessionToken": token}),
        json!({"sessionToken": [token, token], "timeoutMs": 5}),
        json!({"consistency": "eventually"}),
    ] {
        assert_eq!(server.post_well("/api/collections/notes/count", &seen)["count"], 1);
        assert_eq!(server.post_well("/api/collections/notes/query", &seen)["rows"].as_array().unwrap().len(), 1);
    }
    // Of a replica that was never heard of.
    let later = "1-1";
    let (status, answer) =
        server.post("/api/collections/notes/get", &json!({"keys": [1], "sessionToken": later, "timeoutMs": 5}));
    assert_eq!((status, &answer["error"]["kind"]), (503, &json!("unavailable")));
    for wrong in [
        json!({"consistency": "session"}),
        json!({"consistency": "best"}),
        json!({"consistency": "strong", "sessionToken": token}),
        json!({"sessionToken": "x"}),
        json!({"timeoutMs": 60_001}),
    ] {
        assert_eq!(server.post("/api/collections/notes/count", &wrong).0, 400, "{wrong}");
    }
    let searches = json!([{"vector": [1, 0, 0], "filter": "id > 0"}, {"vector": [0, 1, 0], "limit": 3}]);
    let body = json!({"searches": searches, "rerank": {"type": "weighted", "weights": [0.5, 2]}, "explain": "profile",
        "rankers": [{"boost": 2, "filter": "id == 1"}]});
    let answer = server.post_well("/api/collections/notes/hybrid-search", &body);
    let steps = |plan: &Value| plan["steps"].as_array().unwrap().clone();
    let plan = &answer["plan"];
    let rank = &steps(plan)[0];
    let fuse = &steps(rank)[0];
    assert_eq!((&plan["step"], &rank["step"], &fuse["step"]), (&json!("read"), &json!("rank"), &json!("fuse")));
    assert_eq!((&plan["actual"]["rows"], &fuse["actual"]["rows"]), (&json!(1.0), &json!(2.0)));
    assert_eq!(fuse["detail"], "weighted [0.5, 2.0]");
    assert!(answer["text"].as_str().unwrap().contains("boost 2 where id == 1"), "{}", answer["text"]);
    let parts = steps(fuse);
    assert_eq!(parts.len(), 2);
    assert_eq!(steps(&steps(&parts[0])[0])[0]["step"], "filter");
    let refused = json!({"searches": [{"vector": [1, 0, 0], "consistency": "strong"}]});
    assert_eq!(server.post("/api/collections/notes/hybrid-search", &refused).0, 400);
}
