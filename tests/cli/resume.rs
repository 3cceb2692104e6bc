//! An import that is killed and run again ends as one that was not.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::native::{collection_info, eddy, run_well, write};

const ROWS: usize = 30_000;
const BATCH_ROWS: usize = 50;

/// Kills an import after some of its positions were noted, runs it again, and looks at what is there.
#[test]
fn killed_in_the_middle_and_run_again() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let text: String = (0..ROWS).map(|id| format!("{{\"id\":{id},\"v\":[1,{}]}}\n", id % 97)).collect();
    let file = write(directory.path(), "rows.jsonl", text);
    let batch_rows = BATCH_ROWS.to_string();
    let args = ["import", "rows", &file, "--vector-field", "v", "--batch-rows", &batch_rows];
    let note = || {
        let entries = std::fs::read_dir(&data).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let note = names.filter(|name| name.starts_with("IMPORT-") && name.ends_with(".json")).last()?;
        let text = std::fs::read(data.join(note)).ok()?;
        serde_json::from_slice::<Value>(&text).ok()?["position"]["rows"].as_u64()
    };
    let mut noted = 0;
    for kill in 1..=3u64 {
        let mut child =
            eddy().args(args).arg("--data").arg(&data).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The import tells no moment, so its notes are watched until it has got further than the last time.
        loop {
            assert!(child.try_wait().unwrap().is_none(), "kill {kill}: the import ended before it could be killed");
            if note().is_some_and(|rows| rows >= noted + kill * 7 * BATCH_ROWS as u64) {
                break;
            }
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        noted = note().unwrap();
        assert!(noted < ROWS as u64, "killed too late to show anything");
        // What was noted is there, and at most the one batch that was not noted yet.
        let rows = collection_info(&data, "rows")["rows"].as_u64().unwrap();
        assert!((noted..=noted + BATCH_ROWS as u64).contains(&rows), "kill {kill}: {noted} noted, {rows} there");
    }
    let mut last =
        eddy().args(args).arg("--data").arg(&data).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(last.stderr.take().unwrap()).lines().map(Result::unwrap).collect::<Vec<_>>().join("\n");
    let summary = std::io::read_to_string(last.stdout.take().unwrap()).unwrap();
    assert!(last.wait().unwrap().success(), "{said}");
    assert!(said.contains(&format!("going on after {noted} rows")), "{said}");
    assert!(summary.contains("were there from an earlier run"), "{summary}");
    assert_eq!(collection_info(&data, "rows")["rows"], ROWS);
    assert_eq!(note(), None, "a finished import leaves no note");
    let out =
        run_well(&data, &["search", "rows", "--vector", "[1, 0]", "--filter", "id in [0, 14999, 29999]", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["hits"].as_array().unwrap().len(), 3);
    // Once more: a finished import starts at the beginning, and changes nothing.
    run_well(&data, &args);
    assert_eq!(collection_info(&data, "rows")["rows"], ROWS);
}
