use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::base::{Error, ErrorKind};

/// An error as an answer: `{"error": {"kind", "message", "position"}}`.
#[derive(Debug)]
pub(super) struct Failure(pub(super) StatusCode, pub(super) Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Gone => StatusCode::GONE,
            ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorKind::Forbidden => StatusCode::FORBIDDEN,
            ErrorKind::Locked => StatusCode::LOCKED,
            ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Unavailable | ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        if status.is_server_error() {
            tracing::error!(kind = error.kind().as_str(), "{error}");
        }
        let mut body = json!({"kind": error.kind().as_str(), "message": error.message()});
        if let Some(position) = error.position() {
            body["position"] = position.into();
        }
        (status, Json(json!({"error": body}))).into_response()
    }
}
