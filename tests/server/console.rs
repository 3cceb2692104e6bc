use std::process::Stdio;

use crate::native::{Server, eddy, texts, write};

#[test]
fn files_have_types_and_ages() {
    let directory = tempfile::tempdir().unwrap();
    let console = directory.path().join("console");
    std::fs::create_dir_all(console.join("assets")).unwrap();
    write(&console, "index.html", "<!doctype html><title>Console</title>");
    write(&console, "assets/app-5f3a9c01.js", "export {};");
    write(&console, "assets/eddy-0123abcd.wasm", b"\0asm\x01\0\0\0");
    write(&console, "symbols.arrow", "ARROW1");
    write(&console, "big.js", "plain");
    write(&console, "big.js.br", "not really brotli");
    write(directory.path(), "secret.txt", "secret");
    let server = Server::start(&directory.path().join("data"), &["--console", console.to_str().unwrap()]);
    for (path, kind, cache) in [
        ("/", "text/html", "no-cache"),
        ("/index.html", "text/html", "no-cache"),
        ("/assets/app-5f3a9c01.js", "text/javascript", "public, max-age=31536000, immutable"),
        ("/assets/eddy-0123abcd.wasm", "application/wasm", "public, max-age=31536000, immutable"),
        ("/symbols.arrow", "application/vnd.apache.arrow.file", "no-cache"),
    ] {
        let response = server.get(path);
        assert_eq!(response.status, 200, "{path}");
        assert_eq!(response.header("content-type").unwrap().split(';').next(), Some(kind), "{path}");
        assert_eq!(response.header("cache-control"), Some(cache), "{path}");
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{path}");
        let modified = response.header("last-modified").unwrap();
        let again = server.request("GET", path, &[("if-modified-since", modified)], b"");
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
    }
    let brotli = server.request("GET", "/big.js", &[("accept-encoding", "gzip, br")], b"");
    assert_eq!((brotli.header("content-encoding"), brotli.text()), (Some("br"), "not really brotli"));
    assert_eq!(server.get("/big.js").text(), "plain");
    for path in ["/nothing.js", "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//secret.txt", "/%00"] {
        let response = server.get(path);
        assert!((400..500).contains(&response.status), "{path}: {}", response.status);
        assert!(!response.text().contains("secret\n") && response.text() != "secret", "{path}");
    }
    assert_eq!(server.get("/nothing.js").json()["error"]["kind"], "not_found");
    assert_eq!(server.get("/health").json()["status"], "ok", "the console does not hide the API");
}

#[test]
fn without_a_console_the_front_page_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let front = server.get("/");
    assert_eq!(front.status, 200);
    assert!(front.text().contains("eddy serve --console"), "{}", front.text());
}

#[test]
fn what_cannot_be_served_is_said_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let owner = Server::start(&directory.path().join("first"), &[]);
    for (args, kind, words) in [
        (&["--listen", owner.address.as_str()][..], "unavailable", owner.address.as_str()),
        (&["--console", "/nowhere/dist"][..], "not_found", "/nowhere/dist"),
        (&["--listen", "nonsense"][..], "invalid_argument", "127.0.0.1:7700"),
        (&["--sample", "/nowhere.arrow"][..], "not_found", "/nowhere.arrow"),
    ] {
        let data = directory.path().join("second");
        let output = eddy()
            .env("EDDY_LISTEN", "127.0.0.1:0")
            .args(["serve", "--data"])
            .arg(&data)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (code, out, err) = texts(&output);
        assert_eq!((code, out.as_str()), (1, ""), "{args:?}: {err}");
        let last = err.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("error: {kind}: ")) && last.contains(words), "{args:?}: {err}");
    }
}
