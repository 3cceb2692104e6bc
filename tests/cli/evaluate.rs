//! `eddy evaluate`, on a directory and through a server that has it open.

use serde_json::Value;

use crate::native::{Server, run, run_well, write};

#[test]
fn recall_is_told_and_tuned() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut state = 7u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state >> 40
    };
    let rows: String = (0..1_500)
        .map(|id| format!("{{\"id\": {id}, \"embedding\": [{}, {}, {}, {}]}}\n", next(), next(), next(), next()))
        .collect();
    let file = write(directory.path(), "rows.jsonl", rows);
    run_well(&data, &["import", "notes", &file, "--key", "id", "--vector-field", "embedding", "--metric", "L2"]);
    let table = run_well(&data, &["evaluate", "notes", "--sample", "20"]);
    assert!(table.starts_with("ef") && table.contains("p99 ms") && table.contains("exact"), "{table}");
    let found: Value =
        serde_json::from_str(&run_well(&data, &["evaluate", "notes", "--sample", "20", "--ef", "16,40", "--json"]))
            .unwrap();
    assert_eq!((&found["sample"], &found["curve"][1]["ef"]), (&20.into(), &40.into()), "{found}");
    let said = run_well(&data, &["evaluate", "notes", "--recall", "0.9", "--store"]);
    assert!(said.contains("is enough; searches keep so many") || said.contains("No ef reaches it"), "{said}");
    let (code, _, error) = run(&data, &["evaluate", "notes", "--recall", "2"]);
    assert_eq!(code, 1);
    assert!(error.contains("recall 2; expected above 0, at most 1"), "{error}");

    let server = Server::start(&data, &[]);
    let url = format!("http://{}", server.address);
    let found: Value =
        serde_json::from_str(&run_well(&data, &["evaluate", "notes", "--url", &url, "--recall", "0.5", "--json"]))
            .unwrap();
    assert!(found["tried"]["curve"][0]["recall"].as_f64().unwrap() > 0.0, "{found}");
    let found = run_well(&data, &["evaluate", "notes", "--url", &url, "--k", "3", "--ef", "9"]);
    assert!(found.contains("\n9 ") || found.contains(" 9 "), "{found}");
}
