use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::Bytes;
use serde_json::Value as JsonValue;

use crate::base::{Error, ErrorKind, Result};

/// Asks the server at `url`, which the user gave as `option`. As HTTP/1.0, so that the answer is the bytes and nothing else: whether all
/// of them came is seen by what they are.
///
/// # Errors
/// What the server says; `Unavailable` when nobody answers, `InvalidArgument` for an address that is none.
pub(super) fn ask(option: &str, url: &str, method: &str, path: &str, body: &str) -> Result<Bytes> {
    let address = url.trim_end_matches('/').strip_prefix("http://");
    let address = address.filter(|address| !address.contains('/')).ok_or_else(|| {
        Error::invalid(format!("{option} {url:?}: expected the address of a server, such as http://localhost:7700"))
    })?;
    let io = |error: std::io::Error| Error::new(ErrorKind::Unavailable, format!("{url}: {error}"));
    let mut stream = TcpStream::connect(address).map_err(io)?;
    let len = body.len();
    let token = token()?.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: {address}\r\n{token}content-length: {len}\r\n\r\n{body}")
        .map_err(io)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(io)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let answer = Bytes::from(answer);
    let Some(end) = end.filter(|_| answer.starts_with(b"HTTP/1.")) else {
        return Err(Error::new(ErrorKind::Unavailable, format!("{url}: no answer of a server")));
    };
    let body = answer.slice(end..);
    if answer[9..].starts_with(b"200") {
        return Ok(body);
    }
    let said = serde_json::from_slice::<JsonValue>(&body).unwrap_or_default();
    match (said["error"]["kind"].as_str(), said["error"]["message"].as_str()) {
        (Some(kind), Some(message)) => Err(Error::new(ErrorKind::from_name(kind), format!("{url}: {message}"))),
        _ => {
            let said = String::from_utf8_lossy(&body).chars().take(200).collect::<String>();
            Err(Error::new(ErrorKind::Unavailable, format!("{url} does not do that: {said}")))
        }
    }
}

/// The token of whoever runs the command: of the environment, so that it is in no list of processes.
fn token() -> Result<Option<String>> {
    let Some(token) = std::env::var("EDDY_TOKEN").ok().filter(|token| !token.is_empty()) else { return Ok(None) };
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid("EDDY_TOKEN: a token has no spaces, and nothing but ASCII"));
    }
    Ok(Some(token))
}

/// The same without a body, for an answer in JSON.
pub(super) fn ask_json(option: &str, url: &str, method: &str, path: &str) -> Result<JsonValue> {
    let answer = ask(option, url, method, path, "")?;
    serde_json::from_slice(&answer)
        .map_err(|error| Error::new(ErrorKind::Unavailable, format!("{url}: an answer that is no JSON: {error}")))
}
