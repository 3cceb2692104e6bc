//! `eddy stats`, `memory`, `flush` and `compact`, on a directory and through a server that has it open.

use std::path::Path;

use serde_json::{Value, json};

use crate::native::{Server, eddy, run, run_well, texts, write};

fn store(directory: &Path, name: &str) -> std::path::PathBuf {
    let data = directory.join(name);
    for part in 0..2 {
        let rows = |id: usize| format!("{{\"id\": {id}, \"embedding\": [{id}, 1, {part}]}}\n");
        let file = write(directory, "rows.jsonl", (part * 50..part * 50 + 60).map(rows).collect::<String>());
        run_well(&data, &["import", "notes", &file, "--key", "id"]);
    }
    data
}

fn well(args: &[&str]) -> String {
    let (code, out, err) = texts(&eddy().args(args).output().unwrap());
    assert_eq!(code, 0, "eddy {args:?}\n{out}\n{err}");
    out
}

fn notes(text: &str) -> Value {
    let stats: Value = serde_json::from_str(text).unwrap();
    stats["collections"].as_array().unwrap().iter().find(|one| one["name"] == "notes").cloned().unwrap()
}

#[test]
fn a_directory_is_compacted() {
    let directory = tempfile::tempdir().unwrap();
    let data = store(directory.path(), "data");
    let before = notes(&run_well(&data, &["stats", "--json"]));
    assert_eq!((&before["rows"], &before["rowsDead"]), (&json!(110), &json!(10)), "{before}");
    let done = run_well(&data, &["compact", "notes"]);
    assert!(done.starts_with("notes: 1 segments, were 2; 0 dead rows, were 10; 0 B of log"), "{done}");
    let after = notes(&run_well(&data, &["stats", "notes", "--json"]));
    assert_eq!(
        (&after["rows"], &after["rowsDead"], &after["segments"]["flushed"]),
        (&json!(110), &json!(0), &json!(1))
    );
    let table = run_well(&data, &["stats"]);
    assert!(table.contains("collection") && table.contains("notes"), "{table}");
    assert!(table.contains("hierarchical, 1 merges of 110 rows, "), "{table}");
    assert_eq!(after["merges"]["finished"], 1, "{after}");
    let memory = run_well(&data, &["memory"]);
    assert!(memory.contains("graphs and codes") && memory.starts_with("kind"), "{memory}");
    assert!(run_well(&data, &["flush"]).starts_with("notes: 1 segments, were 1"));
    for command in ["compact", "flush", "stats"] {
        let (code, _, error) = run(&data, &[command, "none"]);
        assert_eq!(code, 1);
        assert!(error.contains("not_found: no collection \"none\"; there are: notes"), "{error}");
    }
}

#[test]
fn a_server_does_it_while_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let data = store(directory.path(), "data");
    let server = Server::start(&data, &[]);
    let url = format!("http://{}", server.address);
    server.post_well("/api/collections/notes/delete", &json!({"keys": [1, 2]}));
    let done = well(&["flush", "--url", &url]);
    assert!(done.contains("0 B of log, were "), "{done}");
    let done = well(&["compact", "notes", "--url", &url]);
    assert!(done.starts_with("notes: 1 segments") && done.contains("; 0 dead rows, were "), "{done}");
    assert_eq!(notes(&well(&["stats", "--url", &url, "--json"]))["rows"], 108);
    let memory: Value = serde_json::from_str(&well(&["memory", "--url", &url, "--json"])).unwrap();
    assert!(memory["total"].as_u64().unwrap() > 0, "{memory}");
    let (code, _, error) = texts(&eddy().args(["stats", "no te", "--url", &url]).output().unwrap());
    assert_eq!(code, 1);
    assert!(error.contains("not_found: ") && error.contains("no collection \"no te\""), "{error}");
    let (code, _, error) = texts(&eddy().args(["stats", "--url", "notes.example"]).output().unwrap());
    assert_eq!(code, 1);
    assert!(error.contains("--url \"notes.example\": expected the address of a server"), "{error}");
}
