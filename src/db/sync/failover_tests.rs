//! Clients that know of several hubs, which come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::base::{Error, ErrorKind, Result};
use crate::db::sync::testing::{Device, PATIENCE, converged, put, row, rows, spec, status_where};
use crate::db::{Consistency, Db, Durability, Operation, Options, WriteOptions};
use crate::platform::socket::{Connect, Connection, Cut, duplex};
use crate::platform::{Environment, Task, now_ms};
use crate::storage::FaultStorage;
use crate::sync::{HubOptions, Message};

/// A hub that is there or not, and what was seen on the connections to it.
#[derive(Clone)]
struct Place {
    hub: SyncHub,
    up: Arc<AtomicBool>,
    /// It takes in connections, and says nothing.
    mute: Arc<AtomicBool>,
    url: &'static str,
    cuts: Arc<Mutex<Vec<Cut>>>,
    dialled: Arc<AtomicUsize>,
    /// Changes that came from it.
    pulled: Arc<AtomicUsize>,
}

impl Place {
    fn of(device: &Device, url: &'static str) -> Self {
        Self {
            hub: SyncHub::new(device.db.clone(), HubOptions::default()),
            up: Arc::new(AtomicBool::new(true)),
            mute: Arc::default(),
            url,
            cuts: Arc::default(),
            dialled: Arc::default(),
            pulled: Arc::default(),
        }
    }

    fn go(&self) {
        self.up.store(false, Ordering::SeqCst);
        self.cuts.lock().unwrap().drain(..).for_each(|cut| cut.now());
    }

    fn come(&self) {
        self.up.store(true, Ordering::SeqCst);
    }
}

struct Watched {
    inner: Arc<dyn Connection>,
    device: Db,
    pulled: Arc<AtomicUsize>,
}

impl Connection for Watched {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        self.inner.send(message)
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async {
            let frame = self.inner.receive().await?;
            if let Some(frame) = &frame
                && let Message::Pull(pull) = Message::decode(frame)?
                && !pull.changes.is_empty()
            {
                let schema = self.device.collection("notes")?.spec().schema.clone();
                let changes = crate::engine::ChangeSet::decode(&schema, &pull.changes)?;
                self.pulled.fetch_add(changes.len(), Ordering::SeqCst);
            }
            Ok(frame)
        })
    }

    fn close(&self) -> Task<'_, ()> {
        self.inner.close()
    }
}

struct Route(Place, Db);

impl Connect for Route {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            let Self(place, device) = self;
            place.dialled.fetch_add(1, Ordering::SeqCst);
            if !place.up.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Unavailable, "nobody there"));
            }
            let (here, there, cut) = duplex();
            place.cuts.lock().unwrap().push(cut);
            let (hub, mute) = (place.hub.clone(), place.mute.load(Ordering::SeqCst));
            tokio::spawn(async move {
                if mute {
                    tokio::time::sleep(Duration::from_secs(3_600)).await;
                }
                // Why it ended, the client knows best.
                let _ = hub.serve(there).await;
            });
            Ok(Arc::new(Watched { inner: here, device: device.clone(), pulled: place.pulled.clone() })
                as Arc<dyn Connection>)
        })
    }

    fn url(&self) -> Option<&str> {
        Some(self.0.url)
    }
}

fn sync(device: &Device, places: &[&Place]) -> SyncSession {
    let route = |place: &&Place| Arc::new(Route((*place).clone(), device.db.clone())) as Arc<dyn Connect>;
    let routes = places.iter().map(route).collect();
    device.db.sync_parts_over(routes, vec!["notes".to_owned()], &BTreeMap::new(), None).unwrap()
}

/// One whose clock goes with the timers, which a test may have stand still.
async fn device(seed: u64) -> Device {
    let begun = tokio::time::Instant::now();
    let begun_ms = now_ms();
    let clock = move || begun_ms + begun.elapsed().as_millis() as u64;
    let options = Options { environment: Environment::following(seed, clock), ..Options::default() };
    let storage = FaultStorage::new(seed);
    let db = Db::open(Arc::new(storage.clone()), options).await.unwrap();
    Device { storage, db }
}

/// Three devices with the collection.
async fn three() -> (Device, Device, Device) {
    let (a, b, client) = (device(1).await, device(2).await, device(3).await);
    for device in [&a, &b, &client] {
        device.db.create_collection("notes", spec()).await.unwrap();
    }
    (a, b, client)
}

async fn served_by(session: &SyncSession, url: &str) {
    let is_done = |status: &SyncStatus| {
        status.state == SyncState::Live && status.url.as_deref() == Some(url) && status.pending == 0
    };
    let status = status_where(session, &format!("served by {url}"), is_done).await;
    assert_eq!(status.error, None);
}

#[tokio::test(start_paused = true)]
async fn the_next_hub_serves_at_once_and_the_first_one_again_when_it_is_back() {
    let (a, b, client) = three().await;
    let (at_a, at_b) = (Place::of(&a, "a"), Place::of(&b, "b"));
    // b is a client of a, so what one gets both have, once they reach each other.
    let between = sync(&b, &[&at_a]);
    put(&client.notes(), [(1, "one")]).await;
    let session = sync(&client, &[&at_a, &at_b]);
    converged(&a.db, &[&b.db, &client.db], 1).await;
    served_by(&session, "a").await;
    // While the first one serves, nobody looks elsewhere.
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(at_b.dialled.load(Ordering::SeqCst), 0);

    let gone = tokio::time::Instant::now();
    at_a.go();
    put(&client.notes(), [(2, "two")]).await;
    converged(&b.db, &[&client.db], 2).await;
    served_by(&session, "b").await;
    assert!(gone.elapsed() < Duration::from_secs(2), "{:?}", gone.elapsed());
    put(&b.notes(), [(3, "three")]).await;
    converged(&b.db, &[&client.db], 3).await;

    // One that takes in connections and does not serve is not returned to.
    at_a.mute.store(true, Ordering::SeqCst);
    at_a.come();
    let before = at_a.dialled.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(at_a.dialled.load(Ordering::SeqCst) > before);
    served_by(&session, "b").await;
    at_a.mute.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(32 * 60 + 60)).await;
    served_by(&session, "a").await;
    put(&client.notes(), [(4, "four")]).await;
    converged(&a.db, &[&b.db, &client.db], 4).await;
    served_by(&session, "a").await;
    for session in [between, session] {
        session.stop();
    }
}

/// A client that came to another hub than before was told that this one had more of its changes than it had noted for it, as after a past that
/// was lost. It pushed nothing before all of its own changes had come back to it.
#[tokio::test]
async fn own_changes_that_another_hub_has_do_not_come_back() {
    let (a, b, client) = three().await;
    let (at_a, at_b) = (Place::of(&a, "a"), Place::of(&b, "b"));
    put(&client.notes(), (0..40).map(|id| (id, "at both"))).await;
    let session = sync(&client, &[&at_a, &at_b]);
    served_by(&session, "a").await;
    let between = sync(&b, &[&at_a]);
    converged(&a.db, &[&b.db], 40).await;
    // b stays behind: of what comes now, only the first hub has anything.
    between.stop();
    status_where_stopped(&between).await;
    put(&client.notes(), (30..60).map(|id| (id, "at the first"))).await;
    converged(&a.db, &[&client.db], 60).await;
    served_by(&session, "a").await;
    noted(&client, 1).await;
    at_a.go();
    put(&client.notes(), [(60, "at none yet")]).await;
    served_by(&session, "b").await;
    converged(&b.db, &[&client.db], 61).await;
    assert_eq!(at_b.pulled.load(Ordering::SeqCst), 0, "what the client has written came back to it");
    // And the first one, which lacks what the second has got.
    session.stop();
    status_where_stopped(&session).await;
    let before = at_a.pulled.load(Ordering::SeqCst);
    at_a.come();
    let session = sync(&client, &[&at_a, &at_b]);
    converged(&a.db, &[&b.db, &client.db], 61).await;
    served_by(&session, "a").await;
    assert_eq!(at_a.pulled.load(Ordering::SeqCst), before);
}

/// A write that was not synced reached a hub, and a crash took it from the client. The next hub got what the client wrote then, and so took
/// the lost write for known: it never had it from the first.
#[tokio::test]
async fn what_a_crash_may_take_is_not_shown_to_one_of_several_hubs() {
    let (a, b, client) = three().await;
    let (at_a, at_b) = (Place::of(&a, "a"), Place::of(&b, "b"));
    let session = sync(&client, &[&at_a, &at_b]);
    served_by(&session, "a").await;
    let rows_of = |id: i64| client.notes().to_batch(vec![row(id, "buffered")]).unwrap();
    let buffered = WriteOptions { durability: Some(Durability::Buffered), ..WriteOptions::default() };
    client.notes().batch(vec![Operation::Upsert(rows_of(1))], buffered).await.unwrap();
    converged(&a.db, &[&client.db], 1).await;
    session.stop();
    status_where_stopped(&session).await;
    at_a.go();
    let client = client.crash().await;
    put(&client.notes(), [(2, "after the crash")]).await;
    let session = sync(&client, &[&at_a, &at_b]);
    served_by(&session, "b").await;
    at_a.come();
    let _between = sync(&b, &[&at_a]);
    converged(&a.db, &[&b.db, &client.db], 2).await;
}

/// What all was here of one hub says nothing of another.
#[tokio::test]
async fn a_read_that_wants_all_asks_the_hub_that_serves() {
    let (a, b, client) = three().await;
    let (at_a, at_b) = (Place::of(&a, "a"), Place::of(&b, "b"));
    let session = sync(&client, &[&at_a, &at_b]);
    served_by(&session, "a").await;
    client.notes().at_least(&Consistency::Strong, 60_000).await.unwrap();
    at_a.go();
    at_b.go();
    put(&b.notes(), [(1, "of the second")]).await;
    at_b.come();
    served_by(&session, "b").await;
    client.notes().at_least(&Consistency::Bounded(3_600_000), 60_000).await.unwrap();
    assert_eq!(rows(&client.db).await.len(), 1);
    at_b.go();
    let error = client.notes().at_least(&Consistency::Strong, 20).await.err().unwrap();
    assert!(error.message().contains("what hub b has"), "{error}");
}

#[tokio::test]
async fn lists_that_cannot_be_are_refused() {
    let (a, b, client) = three().await;
    let collections = || vec!["notes".to_owned()];
    let sync_with = |urls: &[&str], shapes: BTreeMap<String, Shape>| {
        let urls = urls.iter().map(|url| (*url).to_owned()).collect();
        client.db.sync(SyncOptions { urls, collections: collections(), shapes }).err().unwrap()
    };
    let red =
        || BTreeMap::from([("notes".to_owned(), Shape { filter: Some("id > 3".to_owned()), ..Shape::default() })]);
    for (urls, shapes, what) in [
        (&[][..], BTreeMap::new(), "one URL at least"),
        (&["ws://a/sync", "ftp://b/sync"], BTreeMap::new(), "\"ftp://b/sync\""),
        (&["ws://a/sync", "ws://b/sync", "http://a/sync"], BTreeMap::new(), "\"http://a/sync\" is there twice"),
        (&["ws://a/sync", "ws://b/sync"], red(), "is synced with one hub"),
    ] {
        let error = sync_with(urls, shapes);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().contains(what), "{error}");
    }
    // What is kept of a collection in part is not synced with others.
    let (at_a, at_b) = (Place::of(&a, "a"), Place::of(&b, "b"));
    let route = Arc::new(Route(at_a.clone(), client.db.clone()));
    let part = client.db.sync_parts_over(vec![route], collections(), &red(), None).unwrap();
    served_by(&part, "a").await;
    part.stop();
    status_where_stopped(&part).await;
    let session = sync(&client, &[&at_b, &at_a]);
    let status = status_where(&session, "refused", |status| status.error.is_some()).await;
    assert_eq!(status.error.unwrap().kind(), ErrorKind::Unsupported);
}

async fn status_where_stopped(session: &SyncSession) {
    let mut listener = session.listen();
    while tokio::time::timeout(PATIENCE, listener.next()).await.unwrap().is_some() {}
}

/// Waits until the last own change is noted for so many hubs.
async fn noted(client: &Device, hubs: usize) {
    let newest = client.notes().seen()[&client.db.replica_id()];
    let wait = async {
        while client.notes().sync_positions().values().filter(|position| position.pushed == newest).count() < hubs {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}
