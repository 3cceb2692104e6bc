use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::{DataDirectory, output};
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Db, Durability, MergeKind, MergePolicy, Options, SyncOptions, TokenSource};
use crate::server::access::TokenGate;
use crate::server::http::{Origin, Settings, Stop, serve};
use crate::server::import::FileConnector;
use crate::server::store;
use crate::stream::bus::BusSpec;

/// Serve a store: the console, a JSON API, and sync for browsers and other replicas
#[derive(Args)]
#[command(after_help = "\
When it is ready it prints one line: `listening on http://ADDRESS`. SIGINT or SIGTERM stop it: open requests end, the
store is flushed; a second signal ends it at once, and nothing that was acknowledged is lost then either.

Who gets in: on a loopback address (the default), only this machine. Pages of other origins may neither write nor sync
unless --allow-origin names them. With --token-keys or --token-secret, /api and /sync ask for tokens, which say what their
holders may do; a public address needs them, and TLS in front.

Addresses:
  /                       the console
  /health                 status, version, replica, collections
  /sync                   sync over WebSocket; /sync/http by requests; /sync/files for first syncs, which caches may keep
  /api/collections        collections; /api/collections/NAME/{search,query,count,get,insert,upsert,delete,batch} take JSON
  /api/stats, /api/memory what is held; POST /api/flush and /api/compact do background work now

Examples:
  eddy serve --data ./eddy-data --console www/dist
  eddy serve --sample www/sample/symbols.arrow --sample www/sample/words.arrow
  eddy serve --storage s3://bucket/store
  eddy serve --listen 0.0.0.0:7700 --allow-origin https://notes.example
  eddy serve --upstream ws://first.internal:7700/sync --upstream-collections notes,tags
  curl -s localhost:7700/api/collections/symbols/search -d '{\"text\": \"rain and storm\", \"limit\": 3}'")]
pub(super) struct Serve {
    #[command(flatten)]
    directory: DataDirectory,

    /// The address to listen on; port 0 takes a free one.
    #[arg(long, env = "EDDY_LISTEN", default_value = "127.0.0.1:7700", value_name = "ADDRESS")]
    listen: String,

    /// The directory of the console's files.
    #[arg(long, env = "EDDY_CONSOLE", value_name = "DIR")]
    console: Option<PathBuf>,

    /// An origin whose pages may write and sync, such as `https://notes.example`; `*` for every one. Can be repeated.
    #[arg(long = "allow-origin", env = "EDDY_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    allow_origins: Vec<Origin>,

    /// A file of keys (JSON Web Key Set) that tokens are signed with: then nobody is let in without a token.
    #[arg(long, env = "EDDY_TOKEN_KEYS", value_name = "FILE")]
    token_keys: Option<PathBuf>,

    /// A secret of at least 32 bytes that tokens are signed with (HS256): the same, without a file.
    #[arg(long, env = "EDDY_TOKEN_SECRET", value_name = "SECRET", hide_env_values = true)]
    token_secret: Option<String>,

    /// The file of what is revoked, which is also written; where nothing is said, the one of the keys with `.revoked` behind its name.
    #[arg(long, env = "EDDY_TOKENS_REVOKED", value_name = "FILE")]
    tokens_revoked: Option<PathBuf>,

    /// A hub to be in step with, as a client of it: `ws://HOST/sync`, or `wss://` with a certificate that the system trusts. Repeated, the first that is there, in this order.
    #[arg(
        long = "upstream",
        env = "EDDY_UPSTREAM",
        value_name = "URL",
        value_delimiter = ',',
        requires = "upstream_collections"
    )]
    upstreams: Vec<String>,

    /// The collections to sync with it. Can be repeated.
    #[arg(long, env = "EDDY_UPSTREAM_COLLECTIONS", value_name = "NAME", value_delimiter = ',', requires = "upstreams")]
    upstream_collections: Vec<String>,

    /// Who this store is there: a token with `admin` of the collections, for it passes on what its own clients write.
    #[arg(long, env = "EDDY_UPSTREAM_TOKEN", value_name = "TOKEN", hide_env_values = true, requires = "upstreams")]
    upstream_token: Option<String>,

    /// A dataset (Arrow file with its collection in it) to load when the store is empty. Can be repeated.
    #[arg(long = "sample", value_name = "FILE")]
    samples: Vec<PathBuf>,

    /// The directory whose files (Arrow, Parquet, CSV, JSON Lines) pipelines may read, by the connector `files`.
    #[arg(long, env = "EDDY_SOURCES", value_name = "DIR")]
    sources: Option<PathBuf>,

    /// A file of JSON with what the event bus does: in place of what the store has of it. It is read when the server starts.
    #[arg(long, env = "EDDY_BUS", value_name = "FILE")]
    bus: Option<PathBuf>,

    /// Acknowledge writes before they are synced, which follows within half a second: a crash of the machine may lose the last ones.
    #[arg(long, env = "EDDY_BUFFERED")]
    buffered: bool,

    /// How long rows that were replaced or deleted can still be read by the option `at` of requests, in seconds.
    #[arg(long, env = "EDDY_RETENTION", default_value_t = 0, value_name = "SECONDS")]
    retention: u32,

    /// The number of this store among its replicas, 0 to 16383, for int64 keys that it makes: each replica needs another one.
    #[arg(long, env = "EDDY_REPLICA_NUMBER", value_name = "NUMBER")]
    replica_number: Option<u16>,

    /// How much memory collections may take, in MiB: vectors and long columns that do not fit are read from storage by the block.
    #[arg(long, env = "EDDY_MEMORY_LIMIT", value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    memory_limit: Option<u32>,

    /// Which segments are merged with which, in collections that do not say: `hierarchical`, those of about the same size; `sequential`, the newest
    /// at once into the latest that has room, for the fastest searches and the most writing; `parallel`, several groups at once.
    #[arg(long, env = "EDDY_MERGE_POLICY", default_value = MergeKind::Hierarchical.as_str(), value_name = "POLICY")]
    merge_policy: MergeKind,

    /// The largest request, in MiB.
    #[arg(long, env = "EDDY_BODY_LIMIT", default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u16).range(1..=1024))]
    body_limit: u16,
}

pub(super) async fn run(command: Serve) -> Result<()> {
    let mut settings = Settings {
        listen: address(&command.listen)?,
        console: command.console,
        allow_origins: command.allow_origins,
        body_limit_bytes: usize::from(command.body_limit) << 20,
        gate: gate(command.token_keys, command.token_secret, command.tokens_revoked)?,
        upstream: None,
    };
    let options = Options {
        durability: if command.buffered { Durability::Buffered } else { Durability::Synced },
        retention_ms: u64::from(command.retention) * 1_000,
        replica_number: command.replica_number,
        memory_limit_bytes: command.memory_limit.map(|mib| (mib as usize) << 20),
        merge_policy: MergePolicy { kind: command.merge_policy, ..MergePolicy::default() },
        ..Options::default()
    };
    let db = store::open_with(&command.directory.place(), true, options).await?;
    if let Some(directory) = &command.sources {
        if !directory.is_dir() {
            return Err(Error::not_found(format!("the directory of sources {} is not there", directory.display())));
        }
        db.set_connector("files", FileConnector::new(directory));
    }
    if db.collections().is_empty() {
        for sample in &command.samples {
            load(&db, sample).await?;
        }
    }
    if let Some(path) = &command.bus {
        configure_bus(&db, path).await?;
    }
    if !command.upstreams.is_empty() {
        let (urls, collections) = (command.upstreams, command.upstream_collections);
        let tokens = command.upstream_token.map(|token| Arc::new(token) as Arc<dyn TokenSource>);
        // It ends with the store.
        settings.upstream = Some(db.sync_as(SyncOptions { urls, collections, ..SyncOptions::default() }, tokens)?);
    }
    let (mut stopper, stop) = Stop::new();
    let mut signals = Signals::new()?;
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping: requests that are open end first; a second signal stops at once");
        stopper.stop();
        signals.next().await;
        std::process::exit(1);
    });
    let served = serve(db.clone(), &settings, stop, |address| {
        tracing::info!(%address, data = %command.directory.place(), "serving");
        // Nobody may be reading: the server serves all the same.
        let _ = output::line(&format!("listening on http://{address}"));
    });
    let served = served.await;
    let closed = db.close().await;
    served.and(closed)?;
    tracing::info!("stopped");
    Ok(())
}

/// Loads a dataset into the collection that is called as the file is.
#[expect(clippy::disallowed_methods, reason = "the server reads the files that it is given")]
async fn load(db: &Db, path: &Path) -> Result<()> {
    let shown = path.display();
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let bytes = std::fs::read(path).map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
        Error::new(kind, format!("{shown}: {error}"))
    })?;
    let collection = db.load_dataset(name, bytes.into(), |_, _| {}).await.map_err(|error| error.context(shown))?;
    let rows = collection.stats().await?.rows;
    tracing::info!(collection = name, rows, "sample loaded");
    Ok(())
}

/// Has the event bus do what a file says; nothing where it does that already.
async fn configure_bus(db: &Db, path: &Path) -> Result<()> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
        Error::new(kind, format!("{shown}: {error}"))
    })?;
    let spec = BusSpec::from_json(&text).map_err(|error| error.context(&shown))?;
    if db.bus().spec() != spec {
        db.bus().configure(spec).await.map_err(|error| error.context(&shown))?;
    }
    Ok(())
}

/// Who lets in, where there are keys.
fn gate(keys: Option<PathBuf>, secret: Option<String>, revoked: Option<PathBuf>) -> Result<Option<Arc<TokenGate>>> {
    let beside = || {
        let mut name = keys.clone()?.into_os_string();
        name.push(".revoked");
        Some(PathBuf::from(name))
    };
    if keys.is_none() && secret.is_none() {
        return match revoked {
            Some(_) => Err(Error::invalid("--tokens-revoked needs --token-keys or --token-secret")),
            None => Ok(None),
        };
    }
    let revoked = revoked.or_else(beside).unwrap_or_else(|| PathBuf::from("eddy-tokens.revoked"));
    TokenGate::open(keys, secret, revoked).map(Some)
}

fn address(text: &str) -> Result<SocketAddr> {
    let wrong = |reason: String| {
        Error::invalid(format!("--listen {text:?}: {reason}; expected an address such as 127.0.0.1:7700"))
    };
    text.to_socket_addrs()
        .map_err(|error| wrong(error.to_string()))?
        .next()
        .ok_or_else(|| wrong("no address".to_owned()))
}

/// The signals that ask a process to stop.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error: std::io::Error| Error::internal(format!("listening for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "the same signature everywhere")]
    fn new() -> Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) {
        // An error is a host without this signal: then nobody can send it.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
