use serde_json::{Value, json};

use crate::native::{eddy, run, run_well, texts, write};

fn store() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let symbols = write(
        directory.path(),
        "symbols.jsonl",
        "{\"id\": 1, \"symbol\": \"☔\", \"category\": \"So\", \"v\": [1, 0, 0]}\n\
         {\"id\": 2, \"symbol\": \"⛈\", \"category\": \"So\", \"v\": [0.8, 0.6, 0]}\n\
         {\"id\": 3, \"symbol\": \"¥\", \"category\": \"Sc\", \"v\": [0, 0, 1]}\n",
    );
    run_well(&data, &["import", "symbols", &symbols, "--vector-field", "v", "--metric", "ip"]);
    let words = write(
        directory.path(),
        "words.jsonl",
        "{\"word\": \"rain\", \"rank\": 1000, \"v\": [1, 0, 0]}\n\
         {\"word\": \"and\", \"rank\": 0, \"v\": [0, 0, 1]}\n\
         {\"word\": \"storm\", \"rank\": 1000, \"v\": [0, 1, 0]}\n",
    );
    run_well(&data, &["import", "words", &words, "--key", "word", "--vector-field", "v"]);
    (directory, data)
}

#[test]
fn words_find_what_is_meant() {
    let (_directory, data) = store();
    let out = run_well(&data, &["search", "symbols", "Rain and storm!"]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("score") && lines[0].contains("symbol"), "{out}");
    assert_eq!(lines.len(), 4, "{out}");
    assert!(lines[1].contains('⛈') && lines[2].contains('☔') && lines[3].contains('¥'), "{out}");
    // The rare words weigh ln 1002 each, the frequent one ln 2.
    let (rare, frequent) = (1002f64.ln(), 2f64.ln());
    let expected = (0.8 + 0.6) * rare / (2.0 * rare * rare + frequent * frequent).sqrt();
    assert!(lines[1].starts_with(&format!("{expected:.4}")), "{out} {expected}");
    let (code, _, err) = run(&data, &["search", "symbols", "storm of qwertz", "--limit", "1"]);
    assert_eq!(code, 0);
    assert!(err.contains("does not know of, qwertz"), "{err}");
    let (code, _, err) = run(&data, &["search", "symbols", "qwertz"]);
    assert_eq!((code, err.trim()), (1, "error: invalid_argument: collection \"words\" knows no word of \"qwertz\""));
}

#[test]
fn vectors_filters_and_fields() {
    let (directory, data) = store();
    let search = |args: &[&str]| -> Value {
        let args: Vec<&str> = ["search", "symbols"].iter().chain(args).chain(&["--json"]).copied().collect();
        serde_json::from_str(&run_well(&data, &args)).unwrap()
    };
    let answer = search(&["--vector", "[0, 0, 1]", "--limit", "2"]);
    assert_eq!(answer["hits"][0], json!({"key": 3, "score": 1.0, "row": {"id": 3, "symbol": "¥", "category": "Sc"}}));
    assert_eq!(answer["hits"].as_array().unwrap().len(), 2);
    assert!(answer["ms"].as_f64().unwrap() >= 0.0 && answer["rowsScanned"].is_u64());
    let answer =
        search(&["--vector", "[0, 0, 1]", "--filter", "category == \"So\" and id < 2", "--output-fields", "symbol"]);
    assert_eq!(answer["hits"], json!([{"key": 1, "score": 0.0, "row": {"symbol": "☔"}}]));
    let answer = search(&["--vector", "[1, 0, 0]", "--offset", "1", "--limit", "1", "--exact"]);
    assert_eq!(answer["hits"][0]["key"], 2);
    let file = write(directory.path(), "query.json", "[0, 0, 1]\n");
    assert_eq!(search(&["--vector-file", &file])["hits"][0]["key"], 3);
    let out = run_well(&data, &["search", "symbols", "--vector", "[0, 0, 1]", "--filter", "id > 7"]);
    assert_eq!(out.trim(), "No row is found.");
    // From standard input.
    let piped = eddy()
        .args(["search", "symbols", "--json", "--vector-file", "-", "--data"])
        .arg(&data)
        .stdin(std::fs::File::open(file).unwrap())
        .output()
        .unwrap();
    let (code, out, err) = texts(&piped);
    assert_eq!(code, 0, "{err}");
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["hits"][0]["key"], 3);
}

#[test]
fn wrong_questions_are_told_where() {
    let (_directory, data) = store();
    for (args, words) in [
        (&["search", "symbols", "--vector", "[1, 0]"][..], &["invalid_argument", "2", "3"][..]),
        (
            &["search", "symbols", "--vector", "[1, 0, \"x\"]"][..],
            &["\"v\"", "expected a number at 2, got a string"][..],
        ),
        (&["search", "symbols", "--vector", "1"][..], &["--vector is no JSON list of numbers"][..]),
        (
            &["search", "symbols", "--vector", "[1, 0, 0]", "--filter", "category = 'So'"][..],
            &["invalid_argument", "character 10"][..],
        ),
        (&["search", "symbols", "--vector", "[1, 0, 0]", "--limit", "0"][..], &["invalid_argument"][..]),
        (&["search", "nothing", "--vector", "[1, 0, 0]"][..], &["not_found", "symbols"][..]),
        (&["search", "symbols", "--vector-file", "/nowhere.json"][..], &["not_found", "/nowhere.json"][..]),
    ] {
        let (code, out, err) = run(&data, args);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?} {err}");
        assert_eq!(err.lines().count(), 1, "one line: {err}");
        for word in words {
            assert!(err.contains(word), "{args:?}: {word} is missing in {err}");
        }
    }
}
