//! Files of segments as plain resources, for clients that lack most of a collection: they never change, so anybody between may keep them.
//!
//! The requests and their answers: "Files by requests" in `src/docs/sync.md`.

use std::ops::Range;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;

use super::AllowedOrigins;
use crate::base::{Error, ErrorKind};
use crate::db::{HubFile, SyncHub};
use crate::sync::FILES_PLACE;

/// What is read of a file at once.
const READ_BYTES: u64 = 512 << 10;
/// As long as a cache keeps anything: a year.
const AGE_SECONDS: u64 = 31_536_000;

/// The routes below `/sync/files`. Their answers must not be compressed on the way: ranges are those of the bytes as they are.
pub(super) fn router<S: Clone + Send + Sync + 'static>(hub: SyncHub, allowed: Arc<AllowedOrigins>) -> Router<S> {
    Router::new().route(&format!("/sync/{FILES_PLACE}/{{*path}}"), get(tell)).with_state((hub, allowed))
}

async fn tell(
    State((hub, allowed)): State<(SyncHub, Arc<AllowedOrigins>)>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    if let Err(message) = allowed.allow(&headers) {
        return refused(StatusCode::FORBIDDEN, message);
    }
    match hub.file(bearer(&headers), &path).await {
        Ok(file) => answer(file, &headers),
        Err(error) => {
            let status = match error.kind() {
                ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
                ErrorKind::Forbidden => StatusCode::FORBIDDEN,
                ErrorKind::NotFound => StatusCode::NOT_FOUND,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            refused(status, format!("{}\n", error.message()))
        }
    }
}

/// What is so now may be otherwise soon.
fn refused(status: StatusCode, message: String) -> Response {
    let mut response = (status, [(header::CACHE_CONTROL, "no-store")], message).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn answer(file: HubFile, headers: &HeaderMap) -> Response {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (len, tag) = (file.len(), format!("\"{:08x}\"", file.checksum()));
    let whose = if file.is_private() { "private" } else { "public" };
    let always = [
        (header::CACHE_CONTROL, format!("{whose}, max-age={AGE_SECONDS}, immutable")),
        (header::ETAG, tag.clone()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let is_it = |tags: &str| tags == "*" || tags.split(',').any(|other| other.trim().trim_start_matches("W/") == tag);
    if text(header::IF_NONE_MATCH).is_some_and(is_it) {
        return (StatusCode::NOT_MODIFIED, always).into_response();
    }
    // Of something else that the client has a part of, all is told.
    let range = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|other| other == tag));
    let (status, part) = match range.and_then(|range| part_of(range, len)) {
        None => (StatusCode::OK, 0..len),
        Some(Some(part)) => (StatusCode::PARTIAL_CONTENT, part),
        Some(None) => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{len}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, always, all).into_response();
        }
    };
    let mut response = (status, always, body(file, part.clone())).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, (part.end - part.start).into());
    if status == StatusCode::PARTIAL_CONTENT {
        let told = format!("bytes {}-{}/{len}", part.start, part.end - 1);
        headers.insert(header::CONTENT_RANGE, told.try_into().expect("digits are a header's text"));
    }
    response
}

/// The bytes that a range is about; `None` for what is none, or several, which is as if none were asked for, and `Some(None)` for one of
/// which the file has nothing.
fn part_of(range: &str, len: u64) -> Option<Option<Range<u64>>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    // `parse` takes a sign.
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let part = match (first.trim(), last.trim()) {
        ("", suffix) => len.saturating_sub(number(suffix)?)..len,
        (first, "") => number(first)?..len,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..last.saturating_add(1).min(len)
        }
    };
    Some((part.start < part.end).then_some(part))
}

/// A part of a file, read as it goes.
fn body(file: HubFile, part: Range<u64>) -> Body {
    let pieces = stream::try_unfold((file, part), |(file, part)| async move {
        if part.is_empty() {
            return Ok::<_, Error>(None);
        }
        let len = (part.end - part.start).min(READ_BYTES);
        let piece = file.read(part.start, len).await.inspect_err(|error| {
            tracing::error!(kind = error.kind().as_str(), %error, "a file of a segment could not be read");
        })?;
        Ok(Some((piece, (file, part.start + len..part.end))))
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests;
