//! Stores that went back to older backups, and others that compare what they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::testing::{Device, PATIENCE, converged, delete, put, rows, spec, status_where};
use super::*;
use crate::base::{ErrorKind, Result};
use crate::db::{Access, Action, Admitted, Gate, Grant};
use crate::model::Value;
use crate::platform::socket::{Connect, Connection, duplex};
use crate::platform::{Task, now_ms};
use crate::sync::{HubOptions, Reconciled};

/// The way to a hub.
struct Wire(SyncHub);

impl Wire {
    fn to(hub: &Device) -> Arc<Self> {
        Arc::new(Self(SyncHub::new(hub.db.clone(), HubOptions::default())))
    }
}

impl Connect for Wire {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            let (here, there, _) = duplex();
            let hub = self.0.clone();
            tokio::spawn(async move { hub.serve(there).await });
            Ok(here as Arc<dyn Connection>)
        })
    }
}

fn sync(device: &Device, hub: &Device) -> SyncSession {
    device.db.sync_over(Wire::to(hub), vec!["notes".to_owned()]).unwrap()
}

async fn reconcile(session: &SyncSession) -> Reconciled {
    let changed = tokio::time::timeout(PATIENCE, session.reconcile(None)).await.expect("an answer").unwrap();
    changed["notes"]
}

async fn live(session: &SyncSession) {
    let done =
        |status: &SyncStatus| status.state == SyncState::Live && status.pending == 0 && status.last_synced_ms.is_some();
    assert_eq!(status_where(session, "live and done", done).await.error, None);
}

async fn hub() -> Device {
    let hub = Device::new().await;
    hub.db.create_collection("notes", spec()).await.unwrap();
    hub
}

/// What a restored store writes from then on is later than what it wrote before.
async fn a_while() {
    let before = now_ms();
    while now_ms() <= before {
        tokio::task::yield_now().await;
    }
}

/// What a hub had written itself after the backup that it was restored from stayed with its clients only, and never came to other clients.
#[tokio::test]
async fn a_hub_that_went_back_gets_what_it_wrote_from_who_has_it() {
    let (hub, a) = (hub().await, Device::new().await);
    let session = sync(&a, &hub);
    put(&hub.notes(), [(1, "one"), (2, "two"), (3, "three")]).await;
    put(&a.notes_once().await, [(4, "four, of a")]).await;
    converged(&hub.db, &[&a.db], 4).await;
    live(&session).await;
    let backup = hub.storage.backup();
    put(&hub.notes(), [(5, "five"), (1, "one again")]).await;
    delete(&hub.notes(), &[2]).await;
    put(&a.notes(), [(6, "six, of a")]).await;
    converged(&hub.db, &[&a.db], 5).await;
    live(&session).await;
    session.stop();
    let before = rows(&a.db).await;
    drop(hub);
    // The log of the hub has gone back, which is seen.
    let hub = Device::on(backup).await;
    let session = sync(&a, &hub);
    converged(&hub.db, &[&a.db], 5).await;
    assert_eq!(rows(&hub.db).await, before);
    live(&session).await;
    assert_eq!(reconcile(&session).await, Reconciled::default());
    // What came by that is known after a crash, and to who comes anew.
    session.stop();
    let (hub, b) = (hub.crash().await, Device::new().await);
    let _session = sync(&b, &hub);
    converged(&hub.db, &[&b.db], 5).await;
    assert_eq!(rows(&b.db).await, before);
}

/// Once a restored hub has written again, all up to there counts as known to who has that: what is missing, and comes from somewhere else
/// later, was sent to nobody.
#[tokio::test]
async fn what_comes_late_goes_on_to_who_takes_it_for_known() {
    let (hub, a) = (hub().await, Device::new().await);
    let session = sync(&a, &hub);
    put(&hub.notes(), [(1, "one")]).await;
    converged(&hub.db, &[&a.db], 1).await;
    let backup = hub.storage.backup();
    put(&hub.notes(), [(2, "two"), (3, "three")]).await;
    delete(&hub.notes(), &[1]).await;
    converged(&hub.db, &[&a.db], 2).await;
    live(&session).await;
    session.stop();
    drop(hub);
    a_while().await;
    let hub = Device::on(backup).await;
    for id in 10..30 {
        put(&hub.notes(), [(id, "written anew")]).await;
    }
    // It has all that the hub has, up to its last batch, and serves others itself.
    let (edge, below) = (Device::new().await, Device::new().await);
    let above = sync(&edge, &hub);
    converged(&hub.db, &[&edge.db], 21).await;
    let _under = sync(&below, &edge);
    converged(&hub.db, &[&edge.db, &below.db], 21).await;
    live(&above).await;
    // Nothing shows the client that its position is of another past.
    let session = sync(&a, &hub);
    live(&session).await;
    put(&a.notes(), [(40, "of a")]).await;
    converged(&hub.db, &[&edge.db, &below.db], 22).await;
    // Another round trip, so that what is waited for is not just on its way.
    put(&hub.notes(), [(41, "of the hub")]).await;
    live(&session).await;
    let changed = reconcile(&session).await;
    assert!(changed.sent >= 3, "{changed:?}");
    converged(&hub.db, &[&a.db, &edge.db, &below.db], 24).await;
    assert_eq!(reconcile(&session).await, Reconciled::default());
    assert_eq!(reconcile(&above).await, Reconciled::default());
}

/// A store below another one brings what both of those above lack, and take for known.
#[tokio::test]
async fn what_is_given_below_goes_up() {
    let (hub, edge, a) = (hub().await, Device::new().await, Device::new().await);
    let above = sync(&edge, &hub);
    put(&hub.notes(), [(1, "one")]).await;
    converged(&hub.db, &[&edge.db], 1).await;
    live(&above).await;
    let (old_hub, old_edge) = (hub.storage.backup(), edge.storage.backup());
    let below = sync(&a, &edge);
    put(&hub.notes(), [(2, "two")]).await;
    converged(&hub.db, &[&edge.db, &a.db], 2).await;
    live(&below).await;
    below.stop();
    above.stop();
    drop((hub, edge));
    a_while().await;
    let (hub, edge) = (Device::on(old_hub).await, Device::on(old_edge).await);
    for id in 10..30 {
        put(&hub.notes(), [(id, "written anew")]).await;
    }
    let above = sync(&edge, &hub);
    converged(&hub.db, &[&edge.db], 21).await;
    live(&above).await;
    let below = sync(&a, &edge);
    live(&below).await;
    reconcile(&below).await;
    converged(&hub.db, &[&edge.db, &a.db], 22).await;
    assert_eq!(reconcile(&above).await, Reconciled::default());
}

#[tokio::test]
async fn a_client_that_went_back_gets_its_own_changes_and_keeps_new_ones() {
    let (hub, a) = (hub().await, Device::new().await);
    let session = sync(&a, &hub);
    put(&a.notes_once().await, [(1, "one"), (2, "two")]).await;
    converged(&hub.db, &[&a.db], 2).await;
    live(&session).await;
    let backup = a.storage.backup();
    put(&a.notes(), [(3, "three"), (1, "one again")]).await;
    delete(&a.notes(), &[2]).await;
    converged(&hub.db, &[&a.db], 2).await;
    live(&session).await;
    session.stop();
    drop(a);
    a_while().await;
    let a = Device::on(backup).await;
    put(&a.notes(), [(4, "written offline")]).await;
    let session = sync(&a, &hub);
    converged(&hub.db, &[&a.db], 3).await;
    live(&session).await;
    let titles: Vec<Value> = rows(&hub.db).await.into_iter().map(|row| row["title"].clone()).collect();
    assert_eq!(titles, ["one again", "three", "written offline"].map(Value::from));
    assert_eq!(reconcile(&session).await, Reconciled::default());
}

/// Lets everybody read and write, and nobody do more.
struct ReadersAndWriters;

impl Gate for ReadersAndWriters {
    fn admit(&self, _: Option<&str>, _: u64) -> Result<Admitted> {
        let grant = Grant {
            collections: vec!["*".to_owned()],
            actions: vec![Action::Read, Action::Write],
            filter: None,
            filter_params: BTreeMap::new(),
        };
        Ok(Admitted { access: Access::of(vec![grant])?, expires_ms: None })
    }

    fn changed(&self, _: u64) -> Task<'static, u64> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_with_the_reason() {
    let (hub, a, b, c) = (hub().await, Device::new().await, Device::new().await, Device::new().await);
    put(&hub.notes(), [(1, "one"), (2, "two")]).await;
    let session = sync(&a, &hub);
    converged(&hub.db, &[&a.db], 2).await;
    let other = session.reconcile(Some(&["tags".to_owned()])).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidArgument, "{other}");
    assert!(other.message().contains("\"tags\""), "{other}");
    session.pause();
    assert_eq!(session.reconcile(None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    session.stop();
    assert_eq!(session.reconcile(None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    // Only a part of the rows is kept.
    let shape = Shape { filter: Some("id > 1".to_owned()), ..Shape::default() };
    let shapes = BTreeMap::from([("notes".to_owned(), shape)]);
    let part = b.db.sync_parts_over(vec![Wire::to(&hub)], vec!["notes".to_owned()], &shapes, None).unwrap();
    let error = tokio::time::timeout(PATIENCE, part.reconcile(None)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // What others wrote is given by administrators only; what is one's own, by whom it is.
    let gate = Arc::new(ReadersAndWriters);
    let guarded = Arc::new(Wire(SyncHub::with_gate(hub.db.clone(), HubOptions::default(), gate)));
    let session = c.db.sync_over(guarded, vec!["notes".to_owned()]).unwrap();
    converged(&hub.db, &[&c.db], 2).await;
    assert_eq!(reconcile(&session).await, Reconciled::default());
    let foreign = crate::engine::ChangeSet {
        puts: c.notes().to_batch(vec![super::testing::row(9, "of nobody here")]).unwrap(),
        put_versions: vec![crate::base::Version {
            timestamp: crate::base::Timestamp::new(1_700_000_000_000, 0),
            origin: crate::base::ReplicaId(12_345),
            sequence: crate::base::Sequence(7),
        }],
        deletes: Vec::new(),
    };
    c.notes().take_in(foreign).await.unwrap();
    let error = tokio::time::timeout(PATIENCE, session.reconcile(None)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    assert_eq!(rows(&hub.db).await.len(), 2);
}

/// Rows that were written while both sides compare are there in the end, and the waiting one is told at any rate.
#[tokio::test]
async fn writing_goes_on_while_both_sides_compare() {
    let (hub, a) = (hub().await, Device::new().await);
    let session = sync(&a, &hub);
    converged(&hub.db, &[&a.db], 0).await;
    let writers = [hub.notes(), a.notes()].into_iter().enumerate().map(|(side, notes)| async move {
        for id in 0..150 {
            put(&notes, [(id * 2 + side as i64, "written meanwhile")]).await;
            if id % 10 == 9 {
                delete(&notes, &[id * 2 + side as i64]).await;
            }
        }
    });
    let compared = async {
        for _ in 0..10 {
            reconcile(&session).await;
        }
    };
    futures_util::future::join(futures_util::future::join_all(writers), compared).await;
    converged(&hub.db, &[&a.db], 270).await;
    live(&session).await;
    assert_eq!(reconcile(&session).await, Reconciled::default());
}
