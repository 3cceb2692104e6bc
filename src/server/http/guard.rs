use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use super::reply::Failure;
use crate::base::Error;

/// The origin of a page: `https://notes.example`, with a port where it is not the usual one; or `*` for every one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// As browsers write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_any(&self) -> bool {
        self.0 == "*"
    }

    fn host(&self) -> Option<&str> {
        self.0.split_once("://").map(|(_, authority)| host_of(authority))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim_end_matches('/').to_ascii_lowercase();
        let valid = text == "*"
            || text.parse::<Uri>().is_ok_and(|uri| {
                uri.scheme().is_some()
                    && uri.host().is_some_and(|host| !host.is_empty())
                    && uri.path() == "/"
                    && uri.query().is_none()
            });
        if valid {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is no origin, such as https://notes.example or http://localhost:5173"))
        }
    }
}

/// Which requests are let in.
pub(super) struct Guard {
    /// Bound to loopback: only names of this machine are answered.
    loopback: bool,
    allowed: Vec<Origin>,
}

impl Guard {
    pub(super) fn new(address: SocketAddr, allowed: Vec<Origin>) -> Self {
        Self { loopback: address.ip().is_loopback(), allowed }
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Failure> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("").to_ascii_lowercase());
        let authority = text(header::HOST).or_else(|| uri.authority().map(|authority| authority.as_str().to_owned()));
        let authority = authority.unwrap_or_default();
        let host = host_of(&authority);
        if self.loopback && !is_loopback_name(host) && !self.allowed.iter().any(|origin| origin.host() == Some(host)) {
            let message = format!(
                "host {host:?} is not this machine: the server listens on loopback only; allow the site with --allow-origin"
            );
            return Err(Failure(StatusCode::MISDIRECTED_REQUEST, Error::invalid(message)));
        }
        // Of a WebSocket a browser keeps no page away by itself, whatever it reads.
        let is_open = headers.contains_key(header::UPGRADE) || is_sync(uri.path());
        let changes = is_open || !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        match text(header::ORIGIN) {
            Some(origin) if changes && !self.allows(&origin, &authority) => {
                let message = format!(
                    "pages of {origin:?} may not write, sync or follow here; allow them with --allow-origin {origin}"
                );
                Err(Failure(StatusCode::FORBIDDEN, Error::invalid(message)))
            }
            _ => Ok(()),
        }
    }

    fn allows(&self, origin: &str, authority: &str) -> bool {
        let own = origin.split_once("://").is_some_and(|(_, of_page)| !of_page.is_empty() && of_page == authority);
        own || self.allowed.iter().any(|allowed| allowed.is_any() || allowed.as_str() == origin)
    }
}

fn is_sync(path: &str) -> bool {
    path.strip_prefix("/sync").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Result<Response, Failure> {
    guard.check(request.method(), request.uri(), request.headers())?;
    Ok(next.run(request).await)
}

/// The host of `host`, `host:port` or `[v6]:port`.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or("");
    }
    authority.split(':').next().unwrap_or("")
}

fn is_loopback_name(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn check(guard: &Guard, method: Method, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let headers = headers
            .iter()
            .map(|(name, value)| (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        match guard.check(&method, &path.parse().unwrap(), &headers.collect()) {
            Ok(()) => 200,
            Err(Failure(status, _)) => status.as_u16(),
        }
    }

    #[test]
    fn names_that_only_resolve_to_loopback_are_refused() {
        let guard = Guard::new("127.0.0.1:7700".parse().unwrap(), vec!["https://notes.example".parse().unwrap()]);
        for host in ["localhost:7700", "127.0.0.1:7700", "[::1]:7700", "eddy.localhost", "LOCALHOST", "notes.example"] {
            assert_eq!(check(&guard, Method::GET, "/health", &[("host", host)]), 200, "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "192.168.0.7:7700", "localhost.evil.example", ""] {
            assert_eq!(check(&guard, Method::GET, "/health", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(check(&guard, Method::GET, "/health", &[]), 421);
        let open = Guard::new("0.0.0.0:7700".parse().unwrap(), Vec::new());
        assert_eq!(check(&open, Method::GET, "/health", &[("host", "eddy.lan")]), 200);
    }

    #[test]
    fn pages_of_other_origins_neither_write_nor_sync() {
        let own = ("host", "127.0.0.1:7700");
        let guard = Guard::new("127.0.0.1:7700".parse().unwrap(), vec!["https://notes.example".parse().unwrap()]);
        let path = "/api/collections/notes/insert";
        assert_eq!(check(&guard, Method::POST, path, &[own]), 200, "no browser");
        assert_eq!(check(&guard, Method::POST, path, &[own, ("origin", "http://127.0.0.1:7700")]), 200);
        assert_eq!(check(&guard, Method::POST, path, &[own, ("origin", "https://notes.example")]), 200);
        for origin in
            ["http://127.0.0.1:7701", "https://evil.example", "null", "", "https://notes.example.evil.example"]
        {
            assert_eq!(check(&guard, Method::POST, path, &[own, ("origin", origin)]), 403, "{origin}");
            for path in ["/sync", "/sync/http/0"] {
                assert_eq!(check(&guard, Method::GET, path, &[own, ("origin", origin)]), 403, "{origin}");
            }
            assert_eq!(check(&guard, Method::GET, "/health", &[own, ("origin", origin)]), 200, "{origin}");
            let (path, upgrade) = ("/api/collections/notes/changes", ("upgrade", "websocket"));
            assert_eq!(check(&guard, Method::GET, path, &[own, upgrade, ("origin", origin)]), 403, "{origin}");
        }
        let any = Guard::new("127.0.0.1:7700".parse().unwrap(), vec!["*".parse().unwrap()]);
        assert_eq!(check(&any, Method::POST, path, &[own, ("origin", "https://evil.example")]), 200);
    }

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        assert_eq!("https://Notes.example/".parse::<Origin>().unwrap().as_str(), "https://notes.example");
        assert_eq!("http://localhost:5173".parse::<Origin>().unwrap().host(), Some("localhost"));
        for text in ["notes.example", "https://", "https://a.example/path", "", "https://a.example?x"] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
