use std::sync::Arc;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value as JsonValue, json};

use super::App;
use super::caller::Caller;
use super::reply::Failure;
use crate::base::Error;
use crate::server::access::Revocation;
use crate::server::store::off_worker;

/// What looks after tokens.
pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/api/access/revoke", post(revoke))
}

/// Revokes a token, a key or a subject, from now on.
async fn revoke(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(revocation): Json<Revocation>,
) -> Result<Json<JsonValue>, Failure> {
    caller.all()?;
    let tokens = app.tokens.clone();
    let tokens = tokens.ok_or_else(|| Error::invalid("the server asks for no tokens: there is none to revoke"))?;
    off_worker(async move { tokens.revoke(&revocation) }).await??;
    Ok(Json(json!({})))
}
