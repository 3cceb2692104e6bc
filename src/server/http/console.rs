use std::path::Path;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tower_http::services::ServeDir;

use super::reply::Failure;
use crate::base::Error;

/// What `/` says when the server was given no console.
const NO_CONSOLE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Eddy</title>\
    <body style='font:16px/1.5 system-ui;max-width:40em;margin:4em auto;padding:0 1em'>\
    <h1>Eddy is running</h1><p>This server was started without the console: <code>eddy serve --console DIR</code> serves it.</p>\
    <p><a href=/health>/health</a> &middot; <a href=/api/collections>/api/collections</a></p>";

/// The console's files; precompressed ones (`app.js.br`, `app.js.gz`) are sent where the browser takes them.
pub(super) fn service(directory: Option<&Path>) -> Router {
    match directory {
        Some(directory) => {
            let files = ServeDir::new(directory)
                .precompressed_br()
                .precompressed_gzip()
                .fallback(axum::handler::Handler::with_state(not_found, ()));
            Router::new().fallback_service(files).layer(from_fn(headers))
        }
        None => Router::new().route("/", get(|| async { Html(NO_CONSOLE) })).fallback(not_found),
    }
}

async fn not_found(uri: Uri) -> Response {
    Failure(StatusCode::NOT_FOUND, Error::not_found(format!("there is nothing at {}", uri.path()))).into_response()
}

/// Says how long a file may be kept, and the type of Arrow files, which is in no list yet.
async fn headers(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED {
        let cache = if is_hashed(&path) { "public, max-age=31536000, immutable" } else { "no-cache" };
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
        if path.ends_with(".arrow") {
            let arrow = HeaderValue::from_static("application/vnd.apache.arrow.file");
            response.headers_mut().insert(header::CONTENT_TYPE, arrow);
        }
    }
    response
}

/// Whether the file's name tells its content, as `app-5f3a9c01.js` does. Taking a hash for a name costs a question to the
/// server at each visit; the other mistake would keep an old file for a year, so a doubtful name is a name.
fn is_hashed(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or("");
    let Some((stem, _)) = name.rsplit_once('.') else { return false };
    let Some((_, hash)) = stem.rsplit_once(['-', '.']) else { return false };
    let hexadecimal = hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && hash.bytes().any(|byte| byte.is_ascii_digit())
        && hash.bytes().any(|byte| byte.is_ascii_lowercase());
    let built = path.contains("/assets/") && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    hash.len() >= 8 && (hexadecimal || built)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_hash_are_kept_for_good() {
        for path in ["/app-5f3a9c01.js", "/assets/index-BXyaQKdw.js", "/eddy.0123456789abcdef.wasm"] {
            assert!(is_hashed(path), "{path}");
        }
        for path in [
            "/",
            "/index.html",
            "/service-worker.js",
            "/photo-20240101.png",
            "/my-component.js",
            "/sample/symbols.arrow",
        ] {
            assert!(!is_hashed(path), "{path}");
        }
    }
}
