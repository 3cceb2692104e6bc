//! `eddy backup` and `eddy restore`.

use std::path::Path;

use crate::native::{Server, collection_info, run, run_well, write};

fn rows(first: usize, count: usize) -> String {
    (first..first + count).map(|id| format!("{{\"id\": {id}, \"embedding\": [{id}, 1, 2]}}\n")).collect()
}

fn store(directory: &Path, name: &str, first: usize, count: usize) -> std::path::PathBuf {
    let data = directory.join(name);
    let file = write(directory, "rows.jsonl", rows(first, count));
    run_well(&data, &["import", "notes", &file, "--key", "id"]);
    data
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_second_backup_copies_only_what_is_new_and_each_can_be_restored() {
    let directory = tempfile::tempdir().unwrap();
    let data = store(directory.path(), "data", 0, 100);
    let destination = directory.path().join("backup");
    let first = run_well(&data, &["backup", text(&destination)]);
    assert!(first.starts_with("backup 1: ") && first.contains(", 0 were there"), "{first}");
    let again = run_well(&data, &["backup", text(&destination)]);
    assert!(again.starts_with("backup 2: ") && again.contains(" 0 copied (0 B)"), "{again}");
    store(directory.path(), "data", 100, 50);
    run_well(&data, &["backup", text(&destination)]);

    for (number, count) in [(Some("1"), 100), (Some("2"), 100), (None, 150)] {
        let restored = directory.path().join(format!("restored-{number:?}").to_lowercase());
        let mut args = vec!["restore", text(&destination)];
        args.extend(number.into_iter().flat_map(|number| ["--number", number]));
        run_well(&restored, &args);
        assert_eq!(collection_info(&restored, "notes")["rows"], count, "{number:?}");
        let (code, _, error) = run(&restored, &args);
        assert_eq!(code, 1);
        assert!(error.contains("already_exists: ") && error.contains("an empty place only"), "{error}");
    }
    let (code, _, error) = run(&directory.path().join("none"), &["restore", text(&destination), "--number", "9"]);
    assert_eq!(code, 1);
    assert!(error.contains("not_found: no such backup; there are: 1, 2, 3"), "{error}");

    run_well(&data, &["backup", text(&destination), "--keep", "1"]);
    assert!(run_well(&data, &["restore", text(&destination), "--check"]).contains("all as they were copied"));
    let (code, ..) = run(&directory.path().join("none"), &["restore", text(&destination), "--number", "3"]);
    assert_eq!(code, 1, "all but the newest are gone");
}

#[test]
fn a_damaged_backup_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = store(directory.path(), "data", 0, 100);
    let destination = directory.path().join("backup");
    run_well(&data, &["backup", text(&destination)]);
    let mut copied = std::fs::read_dir(&destination).unwrap().map(|entry| entry.unwrap().path());
    let victim = copied.find(|path| text(path).contains("~rows~")).unwrap();
    let mut bytes = std::fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&victim, bytes).unwrap();
    for args in [vec!["restore", text(&destination), "--check"], vec!["restore", text(&destination)]] {
        let (code, _, error) = run(&directory.path().join("restored"), &args);
        assert_eq!(code, 1);
        assert!(error.contains("corrupt: file/c") && error.contains("/rows/"), "{error}");
    }
    std::fs::remove_file(&victim).unwrap();
    let (_, _, error) = run(&data, &["restore", text(&destination), "--check"]);
    assert!(error.contains("is missing"), "{error}");
}

#[test]
fn a_store_goes_through_a_file_and_out_of_a_running_server() {
    let directory = tempfile::tempdir().unwrap();
    let data = store(directory.path(), "data", 0, 100);
    let file = directory.path().join("notes.eddy");
    run_well(&data, &["backup", text(&file)]);
    let restored = directory.path().join("restored");
    run_well(&restored, &["restore", text(&file)]);
    assert_eq!(collection_info(&restored, "notes")["rows"], 100);

    let server = Server::start(&restored, &[]);
    server.post_well(
        "/api/collections/notes/insert",
        &serde_json::json!({"rows": [{"id": 1000, "embedding": [1, 2, 3]}]}),
    );
    let (code, _, error) = run(&restored, &["backup", text(&directory.path().join("b"))]);
    assert!(code == 1 && error.contains("locked"), "{error}");
    let url = format!("http://{}", server.address);
    let destination = directory.path().join("live");
    run_well(&restored, &["backup", "--from", &url, text(&destination)]);
    server.post_well(
        "/api/collections/notes/insert",
        &serde_json::json!({"rows": [{"id": 1001, "embedding": [1, 2, 3]}]}),
    );
    let second = run_well(&restored, &["backup", "--from", &url, text(&destination)]);
    assert!(!second.contains(" 0 were there"), "the second copies what is new: {second}");
    // What is there is not sent again.
    let there = std::fs::read_dir(&destination).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let there: Vec<String> =
        there.map(|name| name.replace('~', "/")).filter(|name| name.starts_with("file/")).collect();
    let body = serde_json::to_vec(&serde_json::json!({"without": there})).unwrap();
    let (part, whole) = (server.request("POST", "/api/archive", &[], &body), server.get("/api/archive"));
    assert!((part.status, whole.status) == (200, 200) && part.body.len() * 2 < whole.body.len(), "{}", part.body.len());
    let third = run_well(&restored, &["backup", "--from", &url, text(&destination)]);
    assert!(third.contains(" 0 copied"), "{third}");
    run_well(&restored, &["backup", "--from", &url, text(&directory.path().join("live.eddy"))]);
    run_well(&directory.path().join("of-file"), &["restore", text(&directory.path().join("live.eddy"))]);
    server.kill();
    let again = directory.path().join("again");
    run_well(&again, &["restore", text(&destination)]);
    assert_eq!(collection_info(&again, "notes")["rows"], 102);

    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 5]).unwrap();
    let (code, _, error) = run(&directory.path().join("none"), &["restore", text(&file)]);
    assert!(code == 1 && error.contains("corrupt: the archive is cut short"), "{error}");
}
