//! What the tests of the real binary share: running it, killing it, and talking HTTP to it.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A process that hangs fails its test instead of stopping all of them.
const PATIENCE: Duration = Duration::from_secs(120);

/// The command `eddy`, without the environment of whoever runs the tests.
pub fn eddy() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eddy"));
    for name in ["EDDY_DATA", "EDDY_LISTEN", "EDDY_CONSOLE", "EDDY_ALLOW_ORIGIN", "EDDY_LOG", "EDDY_WORDS", "RUST_LOG"]
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Runs `eddy` with a store in `data`, and gives its exit code, standard output and standard error.
pub fn run(data: &Path, args: &[&str]) -> (i32, String, String) {
    let output = eddy().args(&args[..1]).arg("--data").arg(data).args(&args[1..]).output().unwrap();
    texts(&output)
}

/// The same for a command that must succeed; gives its standard output.
pub fn run_well(data: &Path, args: &[&str]) -> String {
    let (code, out, err) = run(data, args);
    assert_eq!(code, 0, "eddy {args:?}\n{out}\n{err}");
    out
}

/// Exit code, standard output, standard error.
pub fn texts(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// What `eddy info --json` says of one collection.
pub fn collection_info(data: &Path, name: &str) -> Value {
    let info: Value = serde_json::from_str(&run_well(data, &["info", "--json"])).unwrap();
    let collections = info["collections"].as_array().unwrap();
    collections.iter().find(|collection| collection["name"] == name).cloned().unwrap_or(Value::Null)
}

/// Writes a file of `directory`, and gives its path as text.
pub fn write(directory: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Sends `signal` to a process.
pub fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until a process ends.
pub fn wait(child: &mut Child) -> i32 {
    let started = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("the process did not end within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running `eddy serve`; killed when it is dropped.
pub struct Server {
    pub child: Child,
    pub address: String,
    pub data: PathBuf,
    out: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server on a free port, and waits until it says that it listens.
    pub fn start(data: &Path, args: &[&str]) -> Self {
        Self::start_by(eddy(), "127.0.0.1:0", data, args)
    }

    /// The same by a command that may have an environment of its own, at an address.
    pub fn start_by(mut command: Command, listen: &str, data: &Path, args: &[&str]) -> Self {
        let mut child = command
            .args(["serve", "--listen", listen, "--data"])
            .arg(data)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").unwrap_or_else(|| {
            let _ = child.kill();
            panic!("the server said {line:?}")
        });
        Self { address: address.to_owned(), child, data: data.to_owned(), out }
    }

    /// What the server printed after the line that it listens; waits until it ends.
    pub fn rest(&mut self) -> String {
        let mut text = String::new();
        self.out.read_to_string(&mut text).unwrap();
        text
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        request(&self.address, method, path, headers, body).unwrap()
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// Posts JSON; the status and the JSON of the answer.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self.request("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes());
        (response.status, response.json())
    }

    /// Posts JSON that must be taken.
    pub fn post_well(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "POST {path} {body}: {answer}");
        answer
    }

    /// Kills the server as a power cut would, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer over HTTP.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    /// The header of that name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{} is no JSON", String::from_utf8_lossy(&self.body)))
    }
}

/// One request over a connection of its own, written byte by byte here so that tests can say what no client library would.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += &format!("host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("content-length: {}\r\n", body.len());
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    // A server that refuses a body early closes while it is written; its answer is still there to read.
    let _ = stream.write_all(body);
    read_response(&mut BufReader::new(stream))
}

fn read_response(reader: &mut impl BufRead) -> std::io::Result<Response> {
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let find = |name: &str| headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.clone());
    let mut body = Vec::new();
    if find("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim(), 16).map_err(|_| cut())?;
            let start = body.len();
            body.resize(start + size, 0);
            reader.read_exact(&mut body[start..])?;
            reader.read_line(&mut String::new())?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(len) = find("content-length") {
        body.resize(len.parse().map_err(|_| cut())?, 0);
        reader.read_exact(&mut body)?;
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Response { status, headers, body })
}
