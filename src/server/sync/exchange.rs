//! Sync over plain requests, for clients to which no WebSocket gets through: the messages of a connection, several in one body, each behind
//! its length (4 bytes, little-endian). Both directions count their messages, so that a request that is made twice does nothing twice.
//!
//! The requests and their answers: "Without WebSockets" in `src/docs/sync.md`.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::Instrument;

use super::AllowedOrigins;
use crate::base::{Error, ErrorKind, Result};
use crate::db::SyncHub;
use crate::platform::socket::{Connection, MESSAGE_BYTES_MAX};
use crate::platform::{Task, random_u64};

/// A request for messages is answered after so long without any: hosts between give up on those that wait longer than half a minute.
const WAIT: Duration = Duration::from_secs(25);
/// A client that asks for nothing for so long has gone.
const IDLE: Duration = Duration::from_secs(60);
/// What the server sent last can be asked for until so long after the connection was closed.
const LINGER: Duration = Duration::from_secs(30);
/// Messages are put into one answer until it has so many bytes, and more than so many do not wait for a client.
const ANSWER_BYTES: usize = 1 << 20;
/// Messages that were taken in and not looked at.
const TAKEN_MAX: usize = 16;
/// Connections at one time. Each costs next to nothing until it is greeted, but anyone can begin one.
const CONNECTIONS_MAX: usize = 16_384;

/// The routes below `/sync/http`.
pub(super) fn router<S: Clone + Send + Sync + 'static>(hub: SyncHub, allowed: Arc<AllowedOrigins>) -> Router<S> {
    Router::new()
        .route("/sync/http", post(begin))
        .route("/sync/http/{name}", get(tell).post(take).delete(close))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX + ANSWER_BYTES))
        .with_state(Exchanges { hub, allowed, open: Arc::default() })
}

/// The connections that are there.
#[derive(Clone)]
struct Exchanges {
    hub: SyncHub,
    allowed: Arc<AllowedOrigins>,
    open: Arc<Mutex<HashMap<String, Arc<Exchange>>>>,
}

#[derive(Deserialize)]
struct At {
    at: u64,
}

type Refused = (StatusCode, String);

async fn begin(State(exchanges): State<Exchanges>, headers: HeaderMap) -> Result<Response, Refused> {
    exchanges.allowed.allow(&headers).map_err(|message| (StatusCode::FORBIDDEN, message))?;
    let name = format!("{:016x}{:016x}", random_u64(), random_u64());
    let exchange = Arc::new(Exchange::new());
    {
        let mut open = lock(&exchanges.open);
        if open.len() >= CONNECTIONS_MAX {
            return Err((StatusCode::SERVICE_UNAVAILABLE, format!("{CONNECTIONS_MAX} connections are open\n")));
        }
        open.insert(name.clone(), exchange.clone());
    }
    let (hub, open, key) = (exchanges.hub.clone(), exchanges.open.clone(), name.clone());
    let serve = async move {
        match hub.serve(exchange.clone()).await {
            Ok(()) => tracing::debug!("sync client left"),
            Err(error) => tracing::info!(kind = error.kind().as_str(), %error, "sync connection ended"),
        }
        exchange.end();
        // Nobody looks at what would still be taken in.
        exchange.taken.lock().await.close();
        tokio::time::sleep(LINGER).await;
        lock(&open).remove(&key);
    };
    tokio::spawn(serve.instrument(tracing::info_span!("sync over http")));
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], name).into_response())
}

async fn take(
    State(exchanges): State<Exchanges>,
    Path(name): Path<String>,
    Query(At { at }): Query<At>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<StatusCode, Refused> {
    let exchange = exchanges.find(&name, &headers)?;
    let _asking = exchange.asking();
    exchange.take(at, &body).await.map(|()| StatusCode::NO_CONTENT)
}

async fn tell(
    State(exchanges): State<Exchanges>,
    Path(name): Path<String>,
    Query(At { at }): Query<At>,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let exchange = exchanges.find(&name, &headers)?;
    let _asking = exchange.asking();
    let bytes = exchange.tell(at).await?;
    let headers = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, bytes).into_response())
}

async fn close(
    State(exchanges): State<Exchanges>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Refused> {
    exchanges.find(&name, &headers)?.leave();
    Ok(StatusCode::NO_CONTENT)
}

impl Exchanges {
    fn find(&self, name: &str, headers: &HeaderMap) -> Result<Arc<Exchange>, Refused> {
        self.allowed.allow(headers).map_err(|message| (StatusCode::FORBIDDEN, message))?;
        let found = lock(&self.open).get(name).cloned();
        found.ok_or_else(|| (StatusCode::NOT_FOUND, format!("no connection {name:?}: begin another\n")))
    }
}

/// The server's end of a connection that is made of requests.
struct Exchange {
    /// None when the client has left.
    taken_in: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    taken: async_lock::Mutex<mpsc::Receiver<Vec<u8>>>,
    /// How many messages of the client were taken in; held by the request that brings more.
    count: async_lock::Mutex<u64>,
    told: Mutex<Told>,
    /// Something of `told` has changed.
    changed: Notify,
    asks: Mutex<Asks>,
}

/// Messages for the client.
#[derive(Default)]
struct Told {
    /// The number of the first that the client may not have.
    first: u64,
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    ended: bool,
}

/// Requests of the client.
struct Asks {
    under_way: usize,
    last: Instant,
}

struct Asking<'a>(&'a Exchange);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut asks = lock(&self.0.asks);
        asks.under_way -= 1;
        asks.last = Instant::now();
    }
}

impl Exchange {
    fn new() -> Self {
        let (taken_in, taken) = mpsc::channel(TAKEN_MAX);
        Self {
            taken_in: Mutex::new(Some(taken_in)),
            taken: async_lock::Mutex::new(taken),
            count: async_lock::Mutex::new(0),
            told: Mutex::default(),
            changed: Notify::new(),
            asks: Mutex::new(Asks { under_way: 0, last: Instant::now() }),
        }
    }

    fn asking(&self) -> Asking<'_> {
        lock(&self.asks).under_way += 1;
        Asking(self)
    }

    /// Fails when the client has asked for nothing for too long; looks again and again.
    async fn idle(&self) -> Error {
        loop {
            let left = {
                let asks = lock(&self.asks);
                if asks.under_way > 0 { IDLE } else { IDLE.saturating_sub(asks.last.elapsed()) }
            };
            if left.is_zero() {
                return unavailable(format!("the client has asked for nothing for {} s", IDLE.as_secs()));
            }
            tokio::time::sleep(left).await;
        }
    }

    /// Takes in the messages of `body`, the first of which has number `at`.
    async fn take(&self, at: u64, body: &[u8]) -> Result<(), Refused> {
        let messages = split(body).map_err(|message| (StatusCode::BAD_REQUEST, message))?;
        let mut count = self.count.lock().await;
        if at > *count {
            return Err((StatusCode::CONFLICT, format!("message {at}, expected {count} or an earlier one\n")));
        }
        let gone = || (StatusCode::GONE, "the connection is closed\n".to_owned());
        let known = usize::try_from(*count - at).unwrap_or(usize::MAX);
        for message in messages.into_iter().skip(known) {
            // Taken anew for each: whoever leaves takes it away.
            let taken_in = lock(&self.taken_in).clone().ok_or_else(gone)?;
            taken_in.send(message.to_vec()).await.map_err(|_| gone())?;
            *count += 1;
        }
        Ok(())
    }

    /// The messages from number `at` on, once there is one or nobody should wait longer.
    async fn tell(&self, at: u64) -> Result<Vec<u8>, Refused> {
        let waited = tokio::time::sleep(WAIT);
        tokio::pin!(waited);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(bytes) = self.told_from(at)? {
                return Ok(bytes);
            }
            tokio::select! {
                () = changed => {}
                () = &mut waited => return Ok(Vec::new()),
            }
        }
    }

    fn told_from(&self, at: u64) -> Result<Option<Vec<u8>>, Refused> {
        let mut told = lock(&self.told);
        let until = told.first + told.messages.len() as u64;
        if !(told.first..=until).contains(&at) {
            let message = format!("message {at}, expected one from {} to {until}\n", told.first);
            return Err((StatusCode::CONFLICT, message));
        }
        let had = told.first < at;
        while told.first < at {
            let message = told.messages.pop_front().expect("counted above");
            told.bytes -= message.len();
            told.first += 1;
        }
        if had {
            // Whoever waits to send can go on.
            self.changed.notify_waiters();
        }
        if told.messages.is_empty() {
            let gone = (StatusCode::GONE, "the connection is closed\n".to_owned());
            return if told.ended { Err(gone) } else { Ok(None) };
        }
        let mut bytes = Vec::new();
        for message in &told.messages {
            if !bytes.is_empty() && bytes.len() + message.len() > ANSWER_BYTES {
                break;
            }
            bytes.extend((message.len() as u32).to_le_bytes());
            bytes.extend(message);
        }
        Ok(Some(bytes))
    }

    /// The client has left.
    fn leave(&self) {
        *lock(&self.taken_in) = None;
        self.end();
    }

    /// There will be no more for the client than there is.
    fn end(&self) {
        lock(&self.told).ended = true;
        self.changed.notify_waiters();
    }
}

impl Connection for Exchange {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(async move {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let mut told = lock(&self.told);
                    if told.ended {
                        return Err(unavailable("the connection is closed"));
                    }
                    if told.messages.is_empty() || told.bytes + message.len() <= ANSWER_BYTES {
                        told.bytes += message.len();
                        told.messages.push_back(message);
                        break;
                    }
                }
                tokio::select! {
                    () = changed => {}
                    error = self.idle() => return Err(error),
                }
            }
            self.changed.notify_waiters();
            Ok(())
        })
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            let mut taken = self.taken.lock().await;
            tokio::select! {
                message = taken.recv() => Ok(message),
                error = self.idle() => Err(error),
            }
        })
    }

    fn close(&self) -> Task<'_, ()> {
        Box::pin(async move { self.end() })
    }
}

/// The messages of a body.
fn split(mut body: &[u8]) -> Result<Vec<&[u8]>, String> {
    let (whole, mut messages) = (body.len(), Vec::new());
    while let Some((len, rest)) = body.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        if len > rest.len() {
            let at = whole - body.len();
            return Err(format!("at byte {at}: a message of {len} bytes, of which {} are there\n", rest.len()));
        }
        let (message, rest) = rest.split_at(len);
        messages.push(message);
        body = rest;
    }
    if body.is_empty() { Ok(messages) } else { Err(format!("{} bytes behind the last message\n", body.len())) }
}

fn unavailable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, message)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
