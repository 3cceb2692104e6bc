//! `eddy export` and `eddy inspect`.

use serde_json::Value;

use crate::native::{collection_info, eddy, run, run_well, texts, write};

fn rows(count: usize) -> String {
    let row = |id: usize| {
        format!("{{\"id\": {id}, \"title\": \"row, \\\"{id}\\\"\", \"embedding\": [{id}.5, 1.5, -2, 0, 1, 2, 3, 4]}}\n")
    };
    (0..count).map(row).collect()
}

#[test]
fn every_format_comes_back_as_it_went() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = write(directory.path(), "rows.jsonl", rows(250));
    run_well(&data, &["import", "notes", &file, "--key", "id", "--metric", "L2"]);
    let of = |data: &std::path::Path| {
        let path = directory.path().join("all.jsonl");
        run_well(data, &["export", "notes", path.to_str().unwrap()]);
        std::fs::read_to_string(path).unwrap()
    };
    let all = of(&data);
    assert_eq!(all.lines().count(), 250);
    let first: Value = serde_json::from_str(all.lines().next().unwrap()).unwrap();
    assert_eq!((&first["id"], &first["title"]), (&Value::from(0), &Value::from("row, \"0\"")));
    for ending in ["arrow", "parquet", "jsonl"] {
        let path = directory.path().join(format!("notes.{ending}"));
        let told = run_well(&data, &["export", "notes", path.to_str().unwrap(), "--page-rows", "33"]);
        assert!(told.contains("250 rows"), "{told}");
        let again = directory.path().join(format!("again-{ending}"));
        run_well(&again, &["import", "notes", path.to_str().unwrap(), "--key", "id", "--metric", "L2"]);
        assert_eq!(collection_info(&again, "notes")["rows"], 250, "{ending}");
        assert!(of(&again) == all, "{ending}");
    }
    let path = directory.path().join("some.csv");
    run_well(&data, &["export", "notes", path.to_str().unwrap(), "--filter", "id >= 248"]);
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(text.contains("\"row, \"\"249\"\"\""), "{text}");
    // A name that says no format had left an empty file behind.
    let floppy = directory.path().join("notes.floppy");
    let (code, _, error) = run(&data, &["export", "notes", floppy.to_str().unwrap()]);
    assert!(code == 1 && error.contains("which says its format"), "{error}");
    let names = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name.to_string_lossy().contains("floppy")), "nothing is left");
}

#[test]
fn partitions_go_out_and_in() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let plain = write(directory.path(), "plain.jsonl", "{\"id\": 1, \"n\": 1}\n");
    let blue = write(directory.path(), "blue.jsonl", "{\"id\": 2, \"n\": 2}\n{\"id\": 3, \"n\": 3}\n");
    run_well(&data, &["import", "notes", &plain]);
    run_well(&data, &["import", "notes", &blue, "--partition", "blue"]);
    let lines = |data: &std::path::Path, more: &[&str]| {
        let path = directory.path().join("lines.jsonl");
        run_well(data, &[&["export", "notes", path.to_str().unwrap()], more].concat());
        std::fs::read_to_string(path).unwrap()
    };
    let all = lines(&data, &[]);
    assert_eq!(all.lines().count(), 3);
    assert!(all.contains("\"$partition\":\"blue\"") && all.contains("\"$partition\":\"_default\""), "{all}");
    assert_eq!(lines(&data, &["--partition", "blue"]).lines().count(), 2);
    for ending in ["arrow", "parquet", "jsonl"] {
        let path = directory.path().join(format!("notes.{ending}"));
        run_well(&data, &["export", "notes", path.to_str().unwrap()]);
        let again = directory.path().join(format!("again-{ending}"));
        run_well(&again, &["import", "notes", path.to_str().unwrap()]);
        assert_eq!(lines(&again, &[]), all, "{ending}");
        assert_eq!(lines(&again, &["--partition", "blue"]).lines().count(), 2, "{ending}");
    }
    let table = directory.path().join("notes.csv");
    run_well(&data, &["export", "notes", table.to_str().unwrap()]);
    let text = std::fs::read_to_string(&table).unwrap();
    assert!(text.starts_with("id,n,$partition,$meta\n") && text.contains("\n3,3,blue,"), "{text}");
    let (code, _, error) = run(&data, &["import", "notes", &plain, "--partition", "not a name"]);
    assert!(code == 1 && error.contains("not a name"), "{error}");
}

/// An export that died between two pages: the note tells where, and half a page after it is cut.
#[test]
fn an_interrupted_export_goes_on_after_the_last_row_that_was_noted() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = write(directory.path(), "rows.jsonl", rows(100));
    run_well(&data, &["import", "notes", &file, "--key", "id"]);
    let path = directory.path().join("out.jsonl");
    let out = path.to_str().unwrap();
    run_well(&data, &["export", "notes", out]);
    let whole = std::fs::read_to_string(&path).unwrap();
    let noted: usize = whole.lines().take(40).map(|line| line.len() + 1).sum();
    std::fs::remove_file(&path).unwrap();
    write(directory.path(), "out.jsonl.partial", &whole[..noted + 17]);
    write(directory.path(), "out.jsonl.partial.json", format!("{{\"bytes\":{noted},\"rows\":40,\"key\":\"39\"}}"));
    // Less is there than was noted: the missing part must not be filled with zeros.
    write(directory.path(), "out.jsonl.partial", &whole[..noted - 1]);
    let (code, _, error) = run(&data, &["export", "notes", out, "--resume"]);
    assert!(code == 1 && error.contains("were noted"), "{error}");
    write(directory.path(), "out.jsonl.partial", &whole[..noted + 17]);
    let told = run_well(&data, &["export", "notes", out, "--resume"]);
    assert!(told.contains("wrote 100 rows"), "{told}");
    assert!(std::fs::read_to_string(&path).unwrap() == whole);
    assert!(!directory.path().join("out.jsonl.partial.json").exists());
    let (code, _, error) = run(&data, &["export", "notes", "x.parquet", "--resume"]);
    assert!(code == 1 && error.contains("invalid_argument"), "{error}");
}

#[test]
fn inspect_says_what_is_in_every_file() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = write(directory.path(), "rows.jsonl", rows(100));
    run_well(&data, &["import", "notes", &file, "--key", "id"]);
    let path = data.to_str().unwrap();
    let inspect = |args: &[&str]| texts(&eddy().arg("inspect").args(args).output().unwrap());
    let well = |args: &[&str]| {
        let (code, out, error) = inspect(args);
        assert_eq!(code, 0, "{out}{error}");
        out
    };
    let all = well(&[path]);
    for kind in ["manifest (", "arrow (", "layout ("] {
        assert!(all.contains(kind), "{kind} is missing in\n{all}");
    }
    assert!(!all.contains("unknown"), "{all}");
    let json: Value = serde_json::from_str(&well(&[path, "--json"])).unwrap();
    let manifest = json.as_array().unwrap().iter().find(|file| file["kind"] == "manifest").unwrap();
    assert_eq!(manifest["content"]["collections"][0]["name"], "notes");
    let shown = well(&[manifest["file"].as_str().unwrap()]);
    assert!(shown.contains("collection 1 \"notes\""), "{shown}");

    let layout = json.as_array().unwrap().iter().find(|file| file["kind"] == "layout").unwrap();
    assert_eq!((&layout["content"]["rows"], &layout["content"]["files"][0]["codec"]), (&100.into(), &"zstd".into()));
    let shown = well(&[layout["file"].as_str().unwrap()]);
    assert!(shown.contains("  id: plain") && shown.contains("keys: 100 of 100 rows"), "{shown}");
    let golden = |name: &str| format!("{}/tests/golden/segment-v1/{name}.arrow", env!("CARGO_MANIFEST_DIR"));
    let shown = well(&[&golden("snappy-layout")]);
    assert!(shown.contains("rows: snappy, 500 rows") && shown.contains("  kind: dictionary of 3 values"), "{shown}");
    assert!(well(&[&golden("gzip-rows")]).contains("gzip ("));

    let log = write(directory.path(), "log", std::fs::read("tests/golden/log-v1.bin").unwrap());
    assert!(well(&[&log]).contains("byte 32: frame"));
    let victim = manifest["file"].as_str().unwrap();
    let mut bytes = std::fs::read(victim).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(victim, bytes).unwrap();
    let (code, out, error) = inspect(&[path]);
    assert_eq!(code, 1);
    assert!(out.contains("corrupt: ") && error.contains("1 file(s) cannot be read"), "{out}{error}");
}
