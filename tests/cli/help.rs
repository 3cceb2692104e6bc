use crate::native::{eddy, texts};

#[test]
fn help_teaches() {
    let (code, out, _) = texts(&eddy().arg("--help").output().unwrap());
    assert_eq!(code, 0);
    for word in ["serve", "import", "search", "info", "Examples:", "Exit codes", "EDDY_LOG"] {
        assert!(out.contains(word), "{word} is missing in\n{out}");
    }
    for (command, words) in [
        (
            "serve",
            &[
                "--data",
                "./eddy-data",
                "EDDY_DATA",
                "127.0.0.1:7700",
                "EDDY_LISTEN",
                "--allow-origin",
                "--merge-policy",
                "EDDY_MERGE_POLICY",
                "curl",
                "SIGTERM",
            ][..],
        ),
        ("import", &["--vectors", "--key", "--metric", "--batch-rows", "[default: 1000]", "parquet", "Examples:"][..]),
        (
            "search",
            &["--vector-file", "--filter", "--limit", "[default: 10]", "--output-fields", "--json", "words"][..],
        ),
        ("info", &["--json", "Examples:"][..]),
        ("compact", &["--url", "--data", "[COLLECTION]", "Examples:"][..]),
        ("flush", &["--url", "--data", "[COLLECTION]", "Examples:"][..]),
        ("stats", &["--url", "--json", "[COLLECTION]", "Examples:"][..]),
        ("memory", &["--url", "--json", "Examples:"][..]),
    ] {
        let (code, out, _) = texts(&eddy().args(["help", command]).output().unwrap());
        assert_eq!(code, 0);
        for word in words {
            assert!(out.contains(word), "help {command}: {word} is missing in\n{out}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [
        &[][..],
        &["sreve"][..],
        &["search"][..],
        &["search", "notes"][..],
        &["search", "notes", "text", "--vector", "[1]"][..],
        &["import", "notes"][..],
        &["import", "notes", "a.csv", "--batch-rows", "0"][..],
        &["import", "notes", "a.csv", "--metric", "manhattan"][..],
        &["serve", "--allow-origin", "notes.example"][..],
        &["serve", "--merge-policy", "tiered"][..],
        &["info", "--log", "=x=y="][..],
    ] {
        let (code, out, err) = texts(&eddy().args(args).output().unwrap());
        assert_eq!(code, 2, "{args:?}\n{out}\n{err}");
        assert!(out.is_empty() && !err.is_empty(), "{args:?}: help and errors go to standard error");
    }
    let (code, out, _) = texts(&eddy().arg("--version").output().unwrap());
    assert_eq!((code, out.trim()), (0, concat!("eddy ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_policy_that_there_is_not_is_told_with_those_that_there_are() {
    let (code, _, err) = texts(&eddy().args(["serve", "--merge-policy", "tiered"]).output().unwrap());
    assert_eq!(code, 2);
    assert!(err.contains("\"tiered\"; expected one of: hierarchical, sequential, parallel"), "{err}");
}
