//! Hubs that ask who a client is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::testing::{Device, PATIENCE, converged, delete, put, row, rows, spec, status_where};
use super::*;
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Access, Action, Admitted, Gate, Grant};
use crate::platform::socket::{Connect, Connection, duplex};
use crate::platform::{Task, now_ms};
use crate::sync::HubOptions;

/// Tokens by name.
struct Doorkeeper {
    known: Mutex<BTreeMap<String, Admitted>>,
    version: tokio::sync::watch::Sender<u64>,
}

impl Doorkeeper {
    fn new() -> Arc<Self> {
        Arc::new(Self { known: Mutex::default(), version: tokio::sync::watch::Sender::new(1) })
    }

    fn grant(&self, token: &str, actions: &[Action], filter: Option<&str>, expires_ms: Option<u64>) {
        let grant = Grant {
            collections: vec!["notes".to_owned()],
            actions: actions.to_vec(),
            filter: filter.map(str::to_owned),
            filter_params: BTreeMap::new(),
        };
        let access = Access::of(if actions.is_empty() { Vec::new() } else { vec![grant] }).unwrap();
        self.known.lock().unwrap().insert(token.to_owned(), Admitted { access, expires_ms });
        self.version.send_modify(|version| *version += 1);
    }
}

impl Gate for Doorkeeper {
    fn admit(&self, token: Option<&str>, now_ms: u64) -> Result<Admitted> {
        let known = self.known.lock().unwrap();
        let admitted = token.and_then(|token| known.get(token)).cloned();
        let admitted = admitted.filter(|admitted| admitted.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms));
        admitted.ok_or_else(|| Error::new(ErrorKind::Unauthorized, format!("who is {token:?}?")))
    }

    fn changed(&self, version: u64) -> Task<'static, u64> {
        let mut versions = self.version.subscribe();
        Box::pin(async move { *versions.wait_for(|now| *now > version).await.unwrap() })
    }
}

#[derive(Clone)]
struct Wire {
    hub: SyncHub,
    connections: Arc<AtomicUsize>,
}

impl Wire {
    fn to(device: &Device, gate: &Arc<Doorkeeper>) -> Self {
        let hub = SyncHub::with_gate(device.db.clone(), HubOptions::default(), gate.clone());
        Self { hub, connections: Arc::default() }
    }

    fn sync(&self, device: &Device, tokens: impl TokenSource + 'static) -> SyncSession {
        device.db.sync_over_as(Arc::new(self.clone()), vec!["notes".to_owned()], Arc::new(tokens)).unwrap()
    }
}

impl Connect for Wire {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            self.connections.fetch_add(1, Ordering::Relaxed);
            let (here, there, _) = duplex();
            let hub = self.hub.clone();
            tokio::spawn(async move { hub.serve(there).await });
            Ok(here)
        })
    }
}

/// Each time another token, which ends soon.
struct Fresh(Arc<Doorkeeper>, AtomicUsize);

impl TokenSource for Fresh {
    fn token(&self) -> Task<'static, Result<String>> {
        let token = format!("fresh {}", self.1.fetch_add(1, Ordering::Relaxed));
        self.0.grant(&token, &[Action::Admin], None, Some(now_ms() + 400));
        Box::pin(async move { Ok(token) })
    }
}

#[tokio::test]
async fn nothing_is_done_for_whom_the_gate_does_not_know() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let gate = Doorkeeper::new();
    let wire = Wire::to(&hub, &gate);
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&a.notes(), [(1, "one"), (2, "two")]).await;
    let is_refused =
        |status: &SyncStatus| status.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Unauthorized);
    let nameless = a.db.sync_over(Arc::new(wire.clone()), vec!["notes".to_owned()]).unwrap();
    status_where(&nameless, "told that a token is needed", is_refused).await;
    nameless.stop();
    let session = wire.sync(&a, "ann".to_owned());
    let status = status_where(&session, "told who she is not", is_refused).await;
    assert_eq!(status.pending, 2);
    assert!(hub.db.collection("notes").is_err());
    // May write, but not make the collection: that fails, and is tried again.
    gate.grant("ann", &[Action::Write], None, None);
    session.resume();
    let is_forbidden =
        |status: &SyncStatus| status.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Forbidden);
    status_where(&session, "forbidden to create", is_forbidden).await;
    hub.db.create_collection("notes", spec()).await.unwrap();
    gate.grant("ann", &[Action::Admin], None, None);
    session.stop();
    let session = wire.sync(&a, "ann".to_owned());
    converged(&hub.db, &[&a.db], 2).await;
    session.stop();
}

#[tokio::test]
async fn a_session_goes_on_with_newer_tokens_on_one_connection() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let gate = Doorkeeper::new();
    let wire = Wire::to(&hub, &gate);
    a.db.create_collection("notes", spec()).await.unwrap();
    let session = wire.sync(&a, Fresh(gate.clone(), AtomicUsize::new(0)));
    let mut id = 0;
    while gate.known.lock().unwrap().len() < 4 {
        id += 1;
        put(&a.notes(), [(id, "more")]).await;
        converged(&hub.db, &[&a.db], id as usize).await;
    }
    assert_eq!(wire.connections.load(Ordering::Relaxed), 1);
    session.stop();
    // One that never gets a newer one is told when the time comes, and keeps what it has to send.
    gate.grant("short", &[Action::Admin], None, Some(now_ms() + 300));
    let session = wire.sync(&a, "short".to_owned());
    let is_over =
        |status: &SyncStatus| status.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Unauthorized);
    status_where(&session, "told that the token has expired", is_over).await;
    put(&a.notes(), [(id + 1, "kept")]).await;
    status_where(&session, "with a change that waits", |status| status.pending == 1).await;
    gate.grant("short", &[Action::Admin], None, None);
    session.resume();
    converged(&hub.db, &[&a.db], id as usize + 1).await;
}

#[tokio::test]
async fn what_may_not_be_written_comes_back_with_the_reason_and_holds_nothing_up() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let gate = Doorkeeper::new();
    let wire = Wire::to(&hub, &gate);
    hub.db.create_collection("notes", spec()).await.unwrap();
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), [(1, "hers"), (2, "his"), (3, "hers"), (9, "his")]).await;
    let grants = |action, filter: Option<&str>| Grant {
        collections: vec!["notes".to_owned()],
        actions: vec![action],
        filter: filter.map(str::to_owned),
        filter_params: BTreeMap::new(),
    };
    let both = Access::of(vec![grants(Action::Read, None), grants(Action::Write, Some("title == 'hers'"))]).unwrap();
    gate.known.lock().unwrap().insert("ann".to_owned(), Admitted { access: both, expires_ms: None });
    let session = wire.sync(&a, "ann".to_owned());
    converged(&hub.db, &[&a.db], 4).await;
    // A row of someone else made hers, one of hers given away, one deleted that is not hers; and between them what is right.
    put(&a.notes(), [(2, "hers")]).await;
    put(&a.notes(), [(4, "hers")]).await;
    put(&a.notes(), [(1, "his")]).await;
    delete(&a.notes(), &[3]).await;
    delete(&a.notes(), &[9]).await;
    let status = status_where(&session, "refused three times and done", |status| {
        status.refusals.len() == 3 && status.pending == 0 && status.state == SyncState::Live
    });
    for refusal in status.await.refusals {
        assert_eq!(refusal.error.kind(), ErrorKind::Forbidden, "{refusal:?}");
    }
    let titles: Vec<_> = rows(&hub.db).await.iter().map(|row| (row["id"].clone(), row["title"].clone())).collect();
    let expected = [(1, "hers"), (2, "his"), (4, "hers"), (9, "his")];
    assert_eq!(titles, expected.map(|(id, title)| (id.into(), title.into())));
    tokio::time::timeout(PATIENCE, wire.hub.stop()).await.unwrap();
}

/// What was written after the rights were gone was refused for good once, one batch after the other, and stayed behind when they came back.
#[tokio::test]
async fn rights_that_are_taken_away_end_what_goes_on_and_lose_nothing() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let gate = Doorkeeper::new();
    let wire = Wire::to(&hub, &gate);
    hub.db.create_collection("notes", spec()).await.unwrap();
    gate.grant("ann", &[Action::Read, Action::Write], None, None);
    let session = wire.sync(&a, "ann".to_owned());
    put(&hub.notes(), [(1, "one")]).await;
    converged(&hub.db, &[&a.db], 1).await;
    gate.grant("ann", &[], None, None);
    put(&hub.notes(), [(2, "secret")]).await;
    for id in 3..8 {
        put(&a.notes(), [(id, "kept")]).await;
        tokio::task::yield_now().await;
    }
    let is_forbidden = |status: &SyncStatus| {
        status.pending > 0 && status.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Forbidden)
    };
    let status = status_where(&session, "told that it may not any more", is_forbidden).await;
    assert_eq!(status.refusals, []);
    assert!(rows(&a.db).await.iter().all(|row| row["title"] != "secret".into()));
    gate.grant("ann", &[Action::Read, Action::Write], None, None);
    session.stop();
    let session = wire.sync(&a, "ann".to_owned());
    converged(&hub.db, &[&a.db], 7).await;
    assert_eq!(session.status().refusals, []);
}

/// An edge whose token lets it read and write, and not speak for others: what is pushed to it stays there and its session says so, while its
/// own changes go on; once it may, it passes on what has waited.
#[tokio::test]
async fn an_edge_that_may_not_relay_says_so_and_goes_on_with_its_own() {
    let (hub, edge, a) = (Device::new().await, Device::new().await, Device::new().await);
    let gate = Doorkeeper::new();
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), [(1, "of the hub")]).await;
    gate.grant("edge", &[Action::Read, Action::Write], None, None);
    let up = Wire::to(&hub, &gate).sync(&edge, "edge".to_owned());
    converged(&hub.db, &[&edge.db], 1).await;
    let below = Wire { hub: SyncHub::new(edge.db.clone(), HubOptions::default()), connections: Arc::default() };
    let at_a = a.db.sync_over(Arc::new(below), vec!["notes".to_owned()]).unwrap();
    converged(&edge.db, &[&a.db], 1).await;

    put(&a.notes(), [(2, "of a")]).await;
    let refused = |status: &SyncStatus| status.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Forbidden);
    let error = status_where(&up, "told that it may not relay", refused).await.error.unwrap();
    assert!(error.message().contains("notes") && error.message().contains("admin"), "{error}");
    put(&edge.notes(), [(3, "of the edge")]).await;
    put(&a.notes(), [(4, "of a, later")]).await;
    converged(&edge.db, &[&a.db], 4).await;
    let own = |status: &SyncStatus| status.pending == 0 && refused(status);
    assert!(status_where(&up, "done with its own", own).await.refusals.is_empty());
    assert_eq!(rows(&hub.db).await, [row(1, "of the hub"), row(3, "of the edge")]);
    // Nothing of it is the client's business.
    assert_eq!(at_a.status().error, None);

    gate.grant("edge", &[Action::Admin], None, None);
    up.pause();
    up.resume();
    converged(&hub.db, &[&edge.db, &a.db], 4).await;
    status_where(&up, "right again", |status| status.state == SyncState::Live && status.error.is_none()).await;
}
