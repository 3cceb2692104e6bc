//! The HTTP side: health, a small JSON API, the console's files, and sync over WebSocket.
//!
//! What is always true: a page of another origin can neither change anything nor open a sync socket unless its origin was
//! allowed; bound to loopback, only requests that name this machine are answered, so that no foreign name that resolves to
//! it gets in; work runs to its end when its client hangs up.

mod access;
mod api;
mod bus;
mod caller;
mod changes;
mod console;
mod cursors;
mod guard;
mod live;
mod pipelines;
mod reply;
mod stop;
mod streams;
mod upkeep;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

pub(super) use api::{description, hits};
pub use guard::Origin;
pub use stop::{Stop, StopGuard, Stopper};
pub(super) use upkeep::{Work, describe_memory, describe_stats};

use super::access::TokenGate;
use super::store;
use super::sync::{self, AllowedOrigins};
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Db, Gate, SyncHub, SyncSession};
use crate::sync::HubOptions;

/// How long requests and sockets that are open may take to end once the server stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How the server is set up.
#[derive(Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The console's files.
    pub console: Option<PathBuf>,
    /// Origins whose pages may write and sync, besides the server's own.
    pub allow_origins: Vec<Origin>,
    /// The largest request body, in bytes.
    pub body_limit_bytes: usize,
    /// Who is let in; everybody, where there is none.
    pub gate: Option<Arc<TokenGate>>,
    /// The sync of the store with a hub, where it is a client of one.
    pub upstream: Option<SyncSession>,
}

/// What requests work with.
pub struct App {
    /// The store.
    pub db: Db,
    /// Who decides what requests may do.
    gate: Option<Arc<dyn Gate>>,
    /// The same, to be told what is revoked.
    tokens: Option<Arc<TokenGate>>,
    /// The sync of the store with a hub, where it is a client of one.
    upstream: Option<SyncSession>,
    /// Tells when to stop.
    pub stop: Stop,
    /// The iterators that clients go through.
    cursors: cursors::Cursors,
    /// How many requests compute at once.
    computing: Semaphore,
}

/// Serves `db` until `stop` is called, then ends what is open. `ready` is told the address that is listened on.
///
/// # Errors
/// `Unavailable` when the address cannot be listened on, `NotFound` when the console's directory is not there.
pub async fn serve(db: Db, settings: &Settings, stop: Stop, ready: impl FnOnce(SocketAddr)) -> Result<()> {
    if let Some(console) = settings.console.as_ref().filter(|console| !console.is_dir()) {
        return Err(Error::not_found(format!("the console's directory {} is not there", console.display())));
    }
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Unavailable, format!("listening on {}: {error}", settings.listen))
    };
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let background = tokio::spawn(store::maintain(db.clone(), stop.receiver()));
    let pipelines = tokio::spawn(store::run_pipelines(db.clone(), stop.receiver()));
    let bus = tokio::spawn(store::run_bus(db.clone(), stop.receiver()));
    let gate = settings.gate.clone().map(|gate| -> Arc<dyn Gate> { gate });
    if let Some(tokens) = &settings.gate {
        tokens.follow();
    }
    let options = HubOptions { serves_files: true, ..HubOptions::default() };
    let hub = match &gate {
        Some(gate) => SyncHub::with_gate(db.clone(), options, gate.clone()),
        None => SyncHub::new(db.clone(), options),
    };
    let app = Arc::new(App {
        db,
        gate,
        tokens: settings.gate.clone(),
        upstream: settings.upstream.clone(),
        stop: stop.clone(),
        cursors: Default::default(),
        computing: Semaphore::new(computing_max()),
    });
    let router = router(app, hub.clone(), settings, address);
    let (mut ending, guard) = (stop.clone(), stop.guard());
    tokio::spawn(async move {
        ending.requested().await;
        hub.stop().await;
        drop(guard);
    });
    ready(address);
    let mut stopping = stop.clone();
    // A change is small, and its client answers each: waiting to fill packets would delay all but the first by the client's delayed answer.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection whose packets wait to be filled");
        }
    });
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stopping.requested().await });
    let mut ending = stop.clone();
    tokio::select! {
        result = async { serving.await } => result.map_err(failed)?,
        () = async { ending.requested().await; tokio::time::sleep(STOP_TIMEOUT).await } => {
            tracing::warn!("some requests did not end within {} s and are cut", STOP_TIMEOUT.as_secs());
        }
    }
    if tokio::time::timeout(STOP_TIMEOUT, stop.wait_for_guards()).await.is_err() {
        tracing::warn!("some sockets did not close within {} s and are cut", STOP_TIMEOUT.as_secs());
    }
    let ended = background.await.and(pipelines.await).and(bus.await);
    ended.map_err(|error| Error::internal(format!("the background work did not end: {error}")))
}

fn computing_max() -> usize {
    4 * std::thread::available_parallelism().map_or(4, usize::from)
}

fn router(app: Arc<App>, hub: SyncHub, settings: &Settings, address: SocketAddr) -> Router {
    let no_sniff =
        SetResponseHeaderLayer::if_not_present(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let no_referrer = SetResponseHeaderLayer::if_not_present(
        HeaderName::from_static("referrer-policy"),
        HeaderValue::from_static("no-referrer"),
    );
    let guard = Arc::new(guard::Guard::new(address, settings.allow_origins.clone()));
    let gate = app.gate.clone();
    Router::new()
        .merge(access::router())
        .merge(api::router())
        .merge(upkeep::router())
        .merge(upstream::router())
        .merge(changes::router())
        .merge(live::router())
        .merge(pipelines::router())
        .merge(streams::router())
        .merge(bus::router())
        .merge(sync::router(hub.clone(), allowed_to_sync(&settings.allow_origins)))
        .fallback_service(console::service(settings.console.as_deref()))
        .layer(axum::middleware::from_fn_with_state(gate, caller::let_in))
        .layer(CompressionLayer::new())
        .merge(sync::files(hub, allowed_to_sync(&settings.allow_origins)))
        .layer(DefaultBodyLimit::max(settings.body_limit_bytes))
        .layer(cors(&settings.allow_origins))
        .layer(axum::middleware::from_fn_with_state(guard, guard::check))
        .layer(no_sniff)
        .layer(no_referrer)
        .layer(TraceLayer::new_for_http())
        .with_state(app)
}

fn allowed_to_sync(allowed: &[Origin]) -> AllowedOrigins {
    match allowed {
        [] => AllowedOrigins::Own,
        _ if allowed.iter().any(Origin::is_any) => AllowedOrigins::Any,
        _ => AllowedOrigins::Listed(allowed.iter().map(|origin| origin.as_str().to_owned()).collect()),
    }
}

/// Lets pages of the allowed origins read what they get.
fn cors(allowed: &[Origin]) -> CorsLayer {
    let origins = if allowed.iter().any(Origin::is_any) {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(allowed.iter().filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok()))
    };
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION, header::RANGE])
        .max_age(Duration::from_secs(3600))
}
