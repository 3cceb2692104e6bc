use serde_json::Value;

use crate::native::{collection_info, run, run_well, write};

/// A store of two imports; the names of its log files.
fn store(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let rows =
        |from: usize| (from..from + 3).map(|id| format!("{{\"id\":{id},\"v\":[{id}.5,1.0]}}\n")).collect::<String>();
    let data = directory.join("data");
    for from in [0, 3] {
        let file = write(directory, "rows.jsonl", rows(from));
        run_well(&data, &["import", "notes", &file]);
    }
    let mut files: Vec<_> = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn named(files: &[std::path::PathBuf], part: &str) -> std::path::PathBuf {
    files
        .iter()
        .find(|path| path.to_str().unwrap().contains(part))
        .unwrap_or_else(|| panic!("{part}: {files:?}"))
        .clone()
}

fn flip(path: &std::path::Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0xff;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_store_is_reported_repaired_and_opens_again() {
    let directory = tempfile::tempdir().unwrap();
    let files = store(directory.path());
    let data = directory.path().join("data");
    let path = data.to_str().unwrap();
    assert!(run_well(&data, &["repair"]).contains("Nothing is damaged."));
    flip(&named(&files, "~rows"));
    flip(&named(&files, "manifest~"));
    let (code, _, err) = run(&data, &["info"]);
    assert!(code == 1 && err.contains("eddy repair"), "{err}");

    let before = std::fs::read_dir(&data).unwrap().count();
    let (code, out, err) = run(&data, &["repair"]);
    assert_eq!(code, 1, "{out}\n{err}");
    assert!(out.contains("3 rows of \"notes\" are lost") && out.contains("nothing is lost"), "{out}");
    assert!(err.contains("--write repairs it"), "{err}");
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), before, "nothing was changed");

    let out = crate::native::eddy().args(["repair", path, "--write", "--json"]).output().unwrap();
    let (code, out, err) = crate::native::texts(&out);
    assert_eq!(code, 0, "{out}\n{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((report["written"].clone(), report["findings"].as_array().unwrap().len()), (Value::Bool(true), 2));
    assert_eq!(collection_info(&data, "notes")["rows"], 3);
    let kept = std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(kept.filter(|name| name.starts_with("aside~")).count() >= 2, "the damaged files are kept");
    assert!(run_well(&data, &["repair"]).contains("Nothing is damaged."));
}

#[test]
fn a_store_whose_manifest_and_copy_are_damaged_keeps_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let files = store(directory.path());
    let data = directory.path().join("data");
    flip(&named(&files, "manifest~"));
    flip(&named(&files, "manifest-copy~"));
    let (code, out, err) = run(&data, &["repair"]);
    assert!(code == 1 && out.contains("made anew from segments and logs"), "{out}\n{err}");
    assert!(run_well(&data, &["repair", "--write"]).contains("Repaired."));
    assert_eq!(collection_info(&data, "notes")["rows"], 6);
    assert!(run_well(&data, &["repair"]).contains("Nothing is damaged."));
}

#[test]
fn a_directory_that_is_not_there_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let (code, _, err) = run(&directory.path().join("none"), &["repair"]);
    assert!(code == 1 && err.contains("there is no store in"), "{err}");
}
