use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::select_all;
use tokio::sync::watch;

use crate::base::{Error, ErrorKind, Lsn, Result};
use crate::db::{Db, Options};
use crate::platform;
use crate::storage::{FileStorage, Storage};

/// How long the background work waits for a write before it looks whether there are new collections.
const LOOK_AGAIN_MS: u64 = 1_000;

/// Where a store is.
pub(super) enum Place {
    /// A directory.
    Directory(PathBuf),
    /// A bucket, by its URL.
    Bucket(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(directory) => write!(f, "{}", directory.display()),
            Self::Bucket(url) => f.write_str(url),
        }
    }
}

/// Opens the storage of a store; with `create`, makes it when it is not there.
pub(super) async fn open_storage(place: &Place, create: bool) -> Result<Arc<dyn Storage>> {
    let opened = match place {
        Place::Directory(directory) if !create && !directory.is_dir() => {
            return Err(Error::not_found(format!(
                "there is no store in {place}; `eddy import` and `eddy serve` create one"
            )));
        }
        Place::Directory(directory) => {
            FileStorage::open(directory).map(|storage| Arc::new(storage) as Arc<dyn Storage>)
        }
        Place::Bucket(url) => open_bucket(url).await,
    };
    opened.map_err(|error| match error.kind() {
        ErrorKind::Locked => Error::new(
            ErrorKind::Locked,
            format!("{}. A server on it answers at /api, and takes writes of clients while it runs", error.message()),
        ),
        _ => error,
    })
}

#[cfg(feature = "object-store")]
async fn open_bucket(url: &str) -> Result<Arc<dyn Storage>> {
    Ok(Arc::new(crate::storage::ObjectStorage::open_url(url).await?))
}

#[cfg(not(feature = "object-store"))]
async fn open_bucket(url: &str) -> Result<Arc<dyn Storage>> {
    let message = format!("{url}: this build has no object storage; build it with `--features object-store`");
    Err(Error::new(ErrorKind::Unsupported, message))
}

/// Opens the store at `place`; with `create`, makes it when it is not there.
pub(super) async fn open(place: &Place, create: bool) -> Result<Db> {
    open_with(place, create, Options::default()).await
}

/// The same, to behave as `options` say.
pub(super) async fn open_with(place: &Place, create: bool, options: Options) -> Result<Db> {
    let storage = open_storage(place, create).await?;
    Db::open(storage, options).await.map_err(|error| match error.kind() {
        ErrorKind::Corrupt => {
            let message = format!("{}; `eddy repair` says what can be saved", error.message());
            Error::new(ErrorKind::Corrupt, message)
        }
        _ => error,
    })
}

/// Does the background work of `db` until `stop` says so: at once while there is some, then after each write.
pub(super) async fn maintain(db: Db, mut stop: watch::Receiver<bool>) {
    let mut positions = BTreeMap::new();
    while !*stop.borrow() {
        match step(&db).await {
            Ok(true) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => tracing::warn!(kind = error.kind().as_str(), "background work failed: {error}"),
        }
        if !wait(&db, &mut positions, LOOK_AGAIN_MS, &mut stop).await {
            return;
        }
    }
}

/// Runs the pipelines of `db` until `stop` says so: after each write, and when one is due.
pub(super) async fn run_pipelines(db: Db, mut stop: watch::Receiver<bool>) {
    let mut positions = BTreeMap::new();
    let mut pushes = 0;
    while !*stop.borrow() {
        let stepped = {
            let db = db.clone();
            off_worker(async move { db.run_pipelines().await }).await.and_then(|stepped| stepped)
        };
        match stepped {
            Ok(true) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => tracing::warn!(kind = error.kind().as_str(), "running pipelines failed: {error}"),
        }
        let due = db.pipelines_due_ms().unwrap_or(LOOK_AGAIN_MS).clamp(1, LOOK_AGAIN_MS);
        // What is pushed is not seen by those who wait for collections.
        let goes_on = tokio::select! {
            count = db.pushed_after(pushes) => {
                pushes = count;
                true
            }
            goes_on = wait(&db, &mut positions, due, &mut stop) => goes_on,
        };
        if !goes_on {
            return;
        }
    }
}

/// Runs the event bus of `db` until `stop` says so: after each write, push and publication, when a call has ended, and when something is due.
pub(super) async fn run_bus(db: Db, mut stop: watch::Receiver<bool>) {
    let mut positions = BTreeMap::new();
    let (mut pushes, mut moves) = (0, 0);
    while !*stop.borrow() {
        let stepped = {
            let db = db.clone();
            off_worker(async move { db.run_bus().await }).await.and_then(|stepped| stepped)
        };
        match stepped {
            Ok(true) => {
                tokio::task::yield_now().await;
                continue;
            }
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => {
                tracing::warn!(kind = error.kind().as_str(), "running the bus failed: {error}");
                platform::sleep_ms(LOOK_AGAIN_MS).await;
            }
        }
        let due = db.bus_due_ms().unwrap_or(LOOK_AGAIN_MS).clamp(1, LOOK_AGAIN_MS);
        let goes_on = tokio::select! {
            count = db.pushed_after(pushes) => {
                pushes = count;
                true
            }
            count = db.bus_moved_after(moves) => {
                moves = count;
                true
            }
            goes_on = wait(&db, &mut positions, due, &mut stop) => goes_on,
        };
        if !goes_on {
            return;
        }
    }
}

/// Waits for a write, at most so long; false when it is to stop. Positions are taken before the next step, so that a write during it is not
/// missed.
async fn wait(db: &Db, positions: &mut BTreeMap<String, Lsn>, ms: u64, stop: &mut watch::Receiver<bool>) -> bool {
    let collections = db.collections();
    let changes = collections.iter().map(|collection| {
        let lsn = positions.get(collection.name()).copied().unwrap_or_default();
        Box::pin(async move { (collection.name().to_owned(), collection.changed_after(lsn).await) })
    });
    let changes: Vec<_> = changes.collect();
    tokio::select! {
        (name, lsn) = async { if changes.is_empty() { std::future::pending().await } else { select_all(changes).await.0 } } => {
            match lsn {
                Ok(lsn) => { positions.insert(name, lsn); }
                // Dropped, or the store closes: the next step will tell.
                Err(_) => platform::sleep_ms(LOOK_AGAIN_MS).await,
            }
        }
        () = platform::sleep_ms(ms) => {}
        _ = stop.changed() => return false,
    }
    true
}

/// One step of the background work, off the threads that answer requests.
pub(super) async fn step(db: &Db) -> Result<bool> {
    let db = db.clone();
    off_worker(async move { db.maintain().await }).await?
}

/// Runs `task` to its end on a thread that may compute for long. It is not given up when the caller goes away: a write whose
/// client hangs up is still wholly done.
pub(super) async fn off_worker<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || runtime.block_on(task))
        .await
        .map_err(|error| Error::internal(format!("a task did not end: {error}")))
}
