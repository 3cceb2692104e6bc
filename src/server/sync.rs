//! The endpoint `/sync`: a WebSocket on which the store's collections are synced, plain requests in its place, and files for first syncs.

mod exchange;
mod files;

use std::sync::Arc;

use async_lock::Mutex;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tracing::Instrument;

use crate::base::{Error, ErrorKind, Result};
use crate::db::SyncHub;
use crate::platform::Task;
use crate::platform::socket::{Connection, MESSAGE_BYTES_MAX};

/// Each connection holds so much, also while nothing is said: most messages are an answer of a few bytes. The library's own choice is 128 KiB.
const READ_BUFFER_BYTES: usize = 16 << 10;

/// Which pages may open a sync socket, besides those of the server itself. A browser sends the page's origin and lets any page
/// try; other programs send none and are let in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AllowedOrigins {
    /// None.
    #[default]
    Own,
    /// Those of these origins, as browsers write them: `https://example.org`, `http://localhost:5173`.
    Listed(Vec<String>),
    /// All.
    Any,
}

impl AllowedOrigins {
    fn allow(&self, headers: &HeaderMap) -> Result<(), String> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("not text");
        let own = origin.split_once("://").is_some_and(|(_, authority)| {
            headers.get(header::HOST).and_then(|host| host.to_str().ok()).is_some_and(|host| host == authority)
        });
        let listed = match self {
            Self::Own => false,
            Self::Listed(origins) => origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
            Self::Any => true,
        };
        if own || listed { Ok(()) } else { Err(format!("pages of {origin:?} may not sync with this server\n")) }
    }
}

/// The routes for files of segments, below `/sync`: see [`HubOptions::serves_files`](crate::sync::HubOptions::serves_files). What they
/// answer is to go out as it is, not compressed.
pub fn files<S: Clone + Send + Sync + 'static>(hub: SyncHub, allowed: AllowedOrigins) -> Router<S> {
    files::router(hub, Arc::new(allowed))
}

/// The route `/sync`, and those below it for messages.
pub fn router<S: Clone + Send + Sync + 'static>(hub: SyncHub, allowed: AllowedOrigins) -> Router<S> {
    let allowed = Arc::new(allowed);
    let requests = exchange::router(hub.clone(), allowed.clone());
    Router::new().route("/sync", any(upgrade)).with_state((hub, allowed)).merge(requests)
}

async fn upgrade(
    State((hub, allowed)): State<(SyncHub, Arc<AllowedOrigins>)>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return rejection.into_response(),
    };
    if let Err(message) = allowed.allow(&headers) {
        return (StatusCode::FORBIDDEN, message).into_response();
    }
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    upgrade.read_buffer_size(READ_BUFFER_BYTES).on_upgrade(move |socket| {
        let serve = async move {
            match hub.serve(Arc::new(ServerSocket::new(socket))).await {
                Ok(()) => tracing::debug!("sync client left"),
                Err(error) => tracing::info!(kind = error.kind().as_str(), %error, "sync connection ended"),
            }
        };
        serve.instrument(tracing::info_span!("sync"))
    })
}

/// The server's end of a WebSocket.
struct ServerSocket {
    sink: Mutex<SplitSink<WebSocket, Message>>,
    stream: Mutex<SplitStream<WebSocket>>,
}

impl ServerSocket {
    fn new(socket: WebSocket) -> Self {
        let (sink, stream) = socket.split();
        Self { sink: Mutex::new(sink), stream: Mutex::new(stream) }
    }
}

fn to_error(error: axum::Error) -> Error {
    let error = error.into_inner();
    match error.downcast_ref::<tokio_tungstenite::tungstenite::Error>() {
        Some(tokio_tungstenite::tungstenite::Error::Capacity(error)) => Error::invalid(error.to_string()),
        _ => Error::new(ErrorKind::Unavailable, error.to_string()),
    }
}

impl Connection for ServerSocket {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(async move { self.sink.lock().await.send(Message::Binary(message.into())).await.map_err(to_error) })
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            let mut stream = self.stream.lock().await;
            loop {
                return match stream.next().await {
                    Some(Ok(Message::Binary(message))) => Ok(Some(message.into())),
                    Some(Ok(Message::Text(_))) => Err(Error::corrupt("a text message; sync messages are binary")),
                    // The library answers pings by itself.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_))) | None => Ok(None),
                    Some(Err(error)) => Err(to_error(error)),
                };
            }
        })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move {
            // A connection that is broken is closed already.
            let _ = self.sink.lock().await.close().await;
        })
    }
}

#[cfg(test)]
mod tests;
