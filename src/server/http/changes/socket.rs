//! Changes over a WebSocket: as text messages that are JSON, the other way what the client has done and how much more it takes.
//!
//! A client that says how many batches it takes (`credits`) is read for no further than that: what comes after waits where it is, in the log.

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value as JsonValue, json};

use super::{ChangesQuery, Line, ended, error_as_json, told_as_json};
use crate::base::{Error, ErrorKind, Result};
use crate::db::{ChangeBatch, ResumeToken};
use crate::platform::sleep_ms;
use crate::server::http::caller::Caller;
use crate::server::http::reply::Failure;

/// The longest message of a client, in bytes: options, a token.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How long a client may take to say what it wants.
const OPTIONS_MS_MAX: u64 = 10_000;
/// The longest reason that a closing frame has room for, in bytes.
const REASON_BYTES_MAX: usize = 120;

/// What a client says once it follows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Said {
    /// It takes so many batches more.
    Credits(u64),
    /// Its subscription has got so far.
    Acknowledge(String),
}

/// Answers a request that asks for a WebSocket. With options in the query it is refused as any other; without, they are the first message.
pub(super) async fn upgraded(
    upgrade: WebSocketUpgrade,
    caller: Caller,
    name: String,
    query: Option<ChangesQuery>,
) -> Result<Response, Failure> {
    let begun = match query {
        Some(query) => {
            let credits = query.credits;
            Some((query.follow(&caller, &name).await?, credits))
        }
        None => {
            caller.read(&name)?;
            None
        }
    };
    let upgrade = upgrade.max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.on_upgrade(move |mut socket| async move {
        let _open = caller.app.stop.guard();
        let end = serve(&mut socket, &caller, &name, begun).await;
        // Whoever is gone is not told why.
        let _ = close(&mut socket, end.err()).await;
    }))
}

/// Tells what happens until the client leaves or the server stops.
async fn serve(socket: &mut WebSocket, caller: &Caller, name: &str, begun: Option<(Line, Option<u64>)>) -> Result<()> {
    let (mut line, credits) = match begun {
        Some(begun) => begun,
        None => {
            let text = tokio::select! {
                text = receive(socket) => text?,
                error = ended(caller.clone(), caller.app.stop.clone()) => return error.map_or(Ok(()), Err),
                () = sleep_ms(OPTIONS_MS_MAX) => {
                    return Err(Error::invalid(format!("no options came in {} s", OPTIONS_MS_MAX / 1_000)));
                }
            };
            let Some(text) = text else { return Ok(()) };
            let query: ChangesQuery =
                serde_json::from_str(&text).map_err(|error| Error::invalid(format!("the first message: {error}")))?;
            let credits = query.credits;
            (query.follow(caller, name).await?, credits)
        }
    };
    let mut credits = credits.unwrap_or(u64::MAX);
    loop {
        // Only waiting is given up for what the client says.
        let came = {
            let (mut said, mut over) = (None, false);
            let ends = async {
                tokio::select! {
                    text = receive(socket) => {
                        said = Some(text);
                        None
                    }
                    error = ended(caller.clone(), caller.app.stop.clone()) => {
                        over = true;
                        error
                    }
                }
            };
            let batch = match credits {
                0 => ends.await.map_or(Ok(None), Err),
                _ => line.next(ends).await,
            };
            match (batch?, said) {
                (Some(batch), _) => Came::Batch(batch),
                (None, Some(text)) => Came::Said(text?),
                (None, None) => Came::Stop,
            }
        };
        match came {
            Came::Batch(batch) => {
                // That the line holds costs nothing.
                credits = credits.saturating_sub(u64::from(credits < u64::MAX && !batch.changes.is_empty()));
                let mut told = told_as_json(&batch, line.replica);
                told["event"] = json!("changes");
                send(socket, &told).await?;
            }
            Came::Said(Some(text)) => {
                let said: Said = serde_json::from_str(&text).map_err(|error| {
                    let expected = r#"expected {"credits": 10} or {"acknowledge": "TOKEN"}"#;
                    Error::invalid(format!("a message that says nothing: {error}; {expected}"))
                })?;
                match said {
                    Said::Credits(more) => credits = credits.saturating_add(more),
                    Said::Acknowledge(token) => {
                        line.stream.acknowledge(&token.parse::<ResumeToken>()?).await?;
                        send(socket, &json!({"event": "acknowledged", "token": token})).await?;
                    }
                }
            }
            Came::Said(None) | Came::Stop => return Ok(()),
        }
    }
}

/// What ends waiting.
enum Came {
    Batch(ChangeBatch),
    /// A message; `None` when the client has left.
    Said(Option<String>),
    Stop,
}

/// The next message of the client; `None` when it has left.
async fn receive(socket: &mut WebSocket) -> Result<Option<String>> {
    loop {
        return match socket.recv().await {
            Some(Ok(Message::Text(text))) => Ok(Some(text.to_string())),
            Some(Ok(Message::Binary(_))) => Err(Error::invalid("a binary message; messages are text")),
            // The library answers pings by itself.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(_))) | None => Ok(None),
            Some(Err(error)) => Err(Error::invalid(format!("the socket: {error}"))),
        };
    }
}

async fn send(socket: &mut WebSocket, told: &JsonValue) -> Result<()> {
    let sent = socket.send(Message::Text(told.to_string().into())).await;
    sent.map_err(|error| Error::new(ErrorKind::Unavailable, format!("the socket: {error}")))
}

/// Says why it is over, and closes: 1001 when the server stops, 4000 and the status of the same error over HTTP otherwise.
async fn close(socket: &mut WebSocket, error: Option<Error>) -> Result<()> {
    let (code, reason) = match error {
        None => (1001, "the server stops".to_owned()),
        Some(error) => {
            let told = json!({"event": "error", "error": error_as_json(&error)});
            send(socket, &told).await?;
            let mut reason = format!("{}: {}", error.kind().as_str(), error.message());
            let cut = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
            reason.truncate(cut.unwrap_or(0));
            (4_000 + Failure::from(error).0.as_u16(), reason)
        }
    };
    let frame = CloseFrame { code, reason: reason.into() };
    let sent = socket.send(Message::Close(Some(frame))).await;
    sent.map_err(|error| Error::new(ErrorKind::Unavailable, format!("the socket: {error}")))
}
