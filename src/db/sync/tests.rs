//! Real stores and a real hub: over a connection inside the process, and over WebSockets on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::base::{Error, ErrorKind, Result};
use crate::db::sync::testing::{Device, PATIENCE, converged, delete, put, row, rows, spec, status_where};
use crate::db::{Db, Operation, Options, WriteOptions};
use crate::engine::CollectionSpec;
use crate::model::{DataType, Field, Schema};
use crate::platform::socket::{Connect, Connection, Cut, duplex};
use crate::platform::{Task, now_ms};
use crate::storage::FaultStorage;
use crate::sync::HubOptions;

/// Connects to a hub in this process, and breaks the connection on request.
#[derive(Clone)]
struct Wire {
    hub: Arc<Mutex<Option<SyncHub>>>,
    cuts: Arc<Mutex<Vec<Cut>>>,
}

impl Wire {
    fn to(device: &Device) -> Self {
        let hub = SyncHub::new(device.db.clone(), HubOptions::default());
        Self { hub: Arc::new(Mutex::new(Some(hub))), cuts: Arc::default() }
    }

    fn cut(&self) {
        self.cuts.lock().unwrap().drain(..).for_each(|cut| cut.now());
    }

    fn plug(&self, hub: Option<SyncHub>) {
        *self.hub.lock().unwrap() = hub;
        self.cut();
    }
}

impl Connect for Wire {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            let Some(hub) = self.hub.lock().unwrap().clone() else {
                return Err(Error::new(ErrorKind::Unavailable, "nobody there"));
            };
            let (here, there, cut) = duplex();
            self.cuts.lock().unwrap().push(cut);
            tokio::spawn(async move { hub.serve(there).await });
            Ok(here)
        })
    }
}

fn sync(device: &Device, wire: &Wire) -> SyncSession {
    device.db.sync_over(Arc::new(wire.clone()), vec!["notes".to_owned()]).unwrap()
}

#[tokio::test]
async fn two_stores_converge_through_a_hub() {
    let (hub, a, b) = (Device::new().await, Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&a.notes(), [(1, "one"), (2, "two"), (3, "three")]).await;
    // The hub gets the collection from a, b gets it from the hub.
    let at_a = sync(&a, &wire);
    converged(&hub.db, &[&a.db], 3).await;
    let at_b = sync(&b, &wire);
    converged(&hub.db, &[&a.db, &b.db], 3).await;
    assert_eq!(b.notes().spec(), a.notes().spec());
    // Live, both ways; rows, replacements and deletes.
    put(&b.notes(), [(4, "four"), (2, "two, by b")]).await;
    delete(&b.notes(), &[1]).await;
    converged(&hub.db, &[&a.db, &b.db], 3).await;
    put(&a.notes(), [(5, "five"), (1, "one again")]).await;
    put(&hub.notes(), [(6, "of the hub")]).await;
    converged(&hub.db, &[&a.db, &b.db], 6 - 1 + 1).await;
    for session in [&at_a, &at_b] {
        let status = status_where(session, "live and done", |status| {
            status.state == SyncState::Live && status.pending == 0 && status.last_synced_ms.is_some()
        });
        assert_eq!(status.await.error, None);
    }
    at_a.stop();
    let mut listener = at_a.listen();
    while let Some(status) = tokio::time::timeout(PATIENCE, listener.next()).await.unwrap() {
        assert!(matches!(status.state, SyncState::Live | SyncState::Stopped), "{status:?}");
    }
    at_a.resume();
    assert_eq!(at_a.status().state, SyncState::Stopped);
}

#[tokio::test]
async fn partitions_go_wherever_rows_go() {
    let (hub, a, b) = (Device::new().await, Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    for device in [&a, &b] {
        device.db.create_collection("notes", spec()).await.unwrap();
    }
    put(&b.notes(), [(1, "in none")]).await;
    let (at_a, at_b) = (sync(&a, &wire), sync(&b, &wire));
    converged(&hub.db, &[&a.db, &b.db], 1).await;
    // Neither the hub nor b has heard of partitions when rows in one come.
    a.db.create_partition("notes", "blue").await.unwrap();
    let into = |partition: &str| WriteOptions { partition: Some(partition.to_owned()), ..Default::default() };
    let write = async |device: &Device, id: i64, partition: &str| {
        let rows = device.notes().to_batch(vec![row(id, partition)]).unwrap();
        device.notes().batch(vec![Operation::Upsert(rows)], into(partition)).await.unwrap();
    };
    write(&a, 2, "blue").await;
    write(&a, 3, "blue").await;
    converged(&hub.db, &[&a.db, &b.db], 3).await;
    write(&b, 4, "blue").await;
    write(&b, 3, "_default").await;
    converged(&hub.db, &[&a.db, &b.db], 4).await;
    let blue = vec!["blue".to_owned()];
    for device in [&hub, &a, &b] {
        assert_eq!(device.notes().partitions(), ["_default", "blue"]);
        assert_eq!(device.notes().count_within(None, &blue).await.unwrap(), 2);
        assert_eq!(device.notes().count_within(Some("id == 3"), &["_default".to_owned()]).await.unwrap(), 1);
    }
    // The list of partitions of who had heard of none is known after a crash too.
    at_b.stop();
    let b = b.crash().await;
    assert_eq!(b.notes().partitions(), ["_default", "blue"]);
    let _at_b = sync(&b, &wire);
    b.db.drop_partition("notes", "blue").await.unwrap();
    converged(&hub.db, &[&a.db, &b.db], 2).await;
    assert_eq!((a.notes().partitions().len(), b.notes().partitions().len()), (2, 1));
    // And is known again with the next row.
    write(&a, 5, "blue").await;
    converged(&hub.db, &[&a.db, &b.db], 3).await;
    assert_eq!(b.notes().count_within(None, &blue).await.unwrap(), 1);
    at_a.stop();
}

/// Two stores that made integers as keys could make the same ones, and one row would be lost in the other: they say so instead.
#[tokio::test]
async fn made_integers_are_synced_by_stores_with_numbers_only() {
    let with_number = async |number| {
        let storage = FaultStorage::new(7);
        let options = Options { replica_number: number, ..Options::default() };
        let db = Db::open(Arc::new(storage.clone()), options).await.unwrap();
        Device { storage, db }
    };
    let (hub, a, b) = (with_number(Some(0)).await, with_number(Some(1)).await, with_number(None).await);
    let schema = Schema::new(vec![Field::new("id", DataType::Int64)], "id", true).unwrap().with_auto_id().unwrap();
    let spec = CollectionSpec { schema: schema.into(), indexes: BTreeMap::new(), options: Default::default() };
    a.db.create_collection("notes", spec.clone()).await.unwrap();
    let write = async |device: &Device| {
        let rows = device.notes().to_batch(vec![Default::default(); 700]).unwrap();
        device.notes().insert(rows).await.unwrap();
    };
    write(&a).await;
    let wire = Wire::to(&hub);
    let (_at_a, at_b) = (sync(&a, &wire), sync(&b, &wire));
    converged(&hub.db, &[&a.db], 700).await;
    write(&hub).await;
    converged(&hub.db, &[&a.db], 1_400).await;
    at_b.pause();
    at_b.resume();
    let named =
        |status: &SyncStatus| status.error.as_ref().is_some_and(|error| error.message().contains("replicaNumber"));
    status_where(&at_b, "refused", named).await;
    assert!(b.db.collection("notes").is_err());
    let unnumbered = Device::new().await;
    unnumbered.db.create_collection("notes", spec).await.unwrap();
    let wire = Wire::to(&unnumbered);
    let at_a = sync(&a, &wire);
    status_where(&at_a, "refused by the hub", named).await;
}

#[tokio::test]
async fn edits_while_apart_are_counted_and_the_last_writer_wins() {
    let (hub, a, b) = (Device::new().await, Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&a.notes(), [(1, "one"), (2, "two")]).await;
    let (at_a, at_b) = (sync(&a, &wire), sync(&b, &wire));
    converged(&hub.db, &[&a.db], 2).await;
    // b may have come before a's collection was there.
    at_b.pause();
    at_b.resume();
    converged(&hub.db, &[&a.db, &b.db], 2).await;
    at_a.pause();
    status_where(&at_a, "paused", |status| status.state == SyncState::Offline && status.pending == 0).await;
    put(&a.notes(), [(1, "one by a, earlier"), (7, "seven")]).await;
    delete(&a.notes(), &[2]).await;
    let status = status_where(&at_a, "3 pending", |status| status.pending == 3).await;
    assert_eq!(status.state, SyncState::Offline);
    // b writes later, so b wins; hybrid clocks tell, even within one millisecond, once they have met. Here they have not, so
    // b writes in a later millisecond.
    let written = now_ms();
    while now_ms() == written {
        tokio::task::yield_now().await;
    }
    put(&b.notes(), [(1, "one by b, later"), (8, "eight")]).await;
    // a is closed and opened again while it is offline: what is pending is still known.
    at_a.stop();
    a.db.close().await.unwrap();
    let a = Device::on(a.storage.open_again().unwrap()).await;
    wire.plug(None);
    let at_a = sync(&a, &wire);
    let status = status_where(&at_a, "offline with an error", |status| {
        status.state == SyncState::Offline && status.error.is_some()
    });
    let status = status.await;
    assert_eq!((status.pending, status.error.unwrap().kind()), (3, ErrorKind::Unavailable));
    wire.plug(Some(SyncHub::new(hub.db.clone(), HubOptions::default())));
    at_a.resume();
    at_b.resume();
    converged(&hub.db, &[&a.db, &b.db], 3).await;
    assert_eq!(rows(&hub.db).await, [row(1, "one by b, later"), row(7, "seven"), row(8, "eight")]);
    status_where(&at_a, "done", |status| status.pending == 0 && status.state == SyncState::Live).await;
}

#[tokio::test]
async fn whatever_is_cut_and_whoever_crashes_nothing_acknowledged_is_lost() {
    let (mut hub, mut a, b) = (Device::new().await, Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    for device in [&a, &b, &hub] {
        device.db.create_collection("notes", spec()).await.unwrap();
    }
    let mut at_a = sync(&a, &wire);
    let _at_b = sync(&b, &wire);
    let mut len = 0;
    for round in 0..12_i64 {
        for step in 0..20 {
            let id = round * 100 + step;
            put(&a.notes(), [(id, "of a"), (5_000 + id, "of a too")]).await;
            put(&b.notes(), [(10_000 + id, "of b")]).await;
            len += 3;
            if step % 6 == 5 {
                wire.cut();
            }
        }
        match round % 3 {
            // The hub crashes in mid-push: its unsynced bytes are gone.
            0 => {
                wire.plug(None);
                hub = hub.crash().await;
                wire.plug(Some(SyncHub::new(hub.db.clone(), HubOptions::default())));
                at_a.resume();
            }
            // The client crashes in mid-pull.
            1 => {
                at_a.stop();
                a = a.crash().await;
                at_a = sync(&a, &wire);
            }
            _ => {}
        }
    }
    at_a.resume();
    converged(&hub.db, &[&a.db, &b.db], len).await;
}

/// A log that starts again has small positions; a client that had come further in the old one would wait for ever.
#[tokio::test]
async fn a_collection_that_the_hub_makes_anew_is_pulled_from_its_start() {
    let (hub, a) = (Device::new().await, Device::new().await);
    hub.db.create_collection("notes", spec()).await.unwrap();
    for id in 0..10 {
        put(&hub.notes(), [(id, "old")]).await;
    }
    let wire = Wire::to(&hub);
    let _at_a = sync(&a, &wire);
    converged(&hub.db, &[&a.db], 10).await;
    hub.db.drop_collection("notes").await.unwrap();
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), [(20, "new")]).await;
    wire.cut();
    let wait = async {
        while rows(&a.db).await.len() < 11 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    assert!(rows(&a.db).await.contains(&row(20, "new")));
}

/// The same at the client: what it writes first in the new collection must not pass for what the hub has seen of the old one.
#[tokio::test]
async fn a_collection_that_the_client_makes_anew_is_pushed_from_its_start() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    a.db.create_collection("notes", spec()).await.unwrap();
    for id in 0..10 {
        put(&a.notes(), [(id, "old")]).await;
    }
    let at_a = sync(&a, &wire);
    converged(&hub.db, &[&a.db], 10).await;
    at_a.stop();
    a.db.drop_collection("notes").await.unwrap();
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&a.notes(), [(20, "new"), (3, "new too")]).await;
    let _at_a = sync(&a, &wire);
    converged(&hub.db, &[&a.db], 11).await;
    assert!(rows(&hub.db).await.contains(&row(3, "new too")));
}

#[tokio::test]
async fn schemas_that_do_not_agree_are_told_apart() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let mut fields = spec().schema.fields().to_vec();
    fields[1] = Field::new("title", DataType::Varchar { max_length: 100 });
    let other = CollectionSpec {
        schema: Arc::new(Schema::new(fields, "id", true).unwrap()),
        indexes: BTreeMap::new(),
        options: Default::default(),
    };
    hub.db.create_collection("notes", other).await.unwrap();
    for name in ["notes", "tags"] {
        a.db.create_collection(name, spec()).await.unwrap();
    }
    let wire = Wire::to(&hub);
    let at_a = a.db.sync_over(Arc::new(wire), vec!["notes".into(), "tags".into()]).unwrap();
    let status =
        status_where(&at_a, "live with an error", |status| status.state == SyncState::Live && status.error.is_some());
    let error = status.await.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.message().contains("field \"title\" is varchar(100)"), "{error}");
    // The other one goes on.
    put(&a.db.collection("tags").unwrap(), [(1, "one")]).await;
    let wait = async {
        while hub.db.collection("tags").is_err() || hub.db.collection("tags").unwrap().count(None).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
}

#[tokio::test]
async fn a_hub_that_may_not_create_says_so() {
    let (hub, a) = (Device::new().await, Device::new().await);
    a.db.create_collection("notes", spec()).await.unwrap();
    let wire = Wire::to(&hub);
    let options = HubOptions { create_collections: false, ..HubOptions::default() };
    wire.plug(Some(SyncHub::new(hub.db.clone(), options)));
    let at_a = sync(&a, &wire);
    let status = status_where(&at_a, "an error", |status| status.error.is_some()).await;
    assert_eq!(status.error.unwrap().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_collection_that_nobody_had_is_synced_once_it_is_made() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    let at_a = sync(&a, &wire);
    let status = status_where(&at_a, "an error", |status| status.error.is_some()).await;
    assert_eq!(status.error.unwrap().kind(), ErrorKind::NotFound);
    a.db.create_collection("tags", spec()).await.unwrap();
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&a.notes(), [(1, "a")]).await;
    // Twice as long later it would try by itself.
    tokio::time::timeout(PATIENCE / 2, converged(&hub.db, &[&a.db], 1)).await.unwrap();
    assert_eq!(status_where(&at_a, "no error", |status| status.error.is_none()).await.state, SyncState::Live);
}

#[tokio::test]
async fn what_can_be_wrong_with_a_session_is_said_at_once() {
    let a = Device::new().await;
    for (url, collections) in [
        ("ftp://host/sync", vec!["notes".to_owned()]),
        ("host", vec!["notes".to_owned()]),
        ("ws://host/sync", vec![]),
        ("ws://host/sync", vec!["notes".to_owned(), "notes".to_owned()]),
    ] {
        let error =
            a.db.sync(SyncOptions { urls: vec![url.to_owned()], collections, ..SyncOptions::default() }).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
    }
}

/// What a read at a replica asks for is there when it is answered, whatever the hub and the network do; and where it cannot be, the
/// answer is an error, in time.
#[tokio::test]
async fn reads_see_as_much_as_they_ask_for() {
    use crate::db::Consistency;

    const LONG_MS: u64 = 60_000;
    let (hub, near) = (Device::new().await, Device::new().await);
    for device in [&hub, &near] {
        device.db.create_collection("notes", spec()).await.unwrap();
    }
    let titles = |device: &Device| {
        let db = device.db.clone();
        async move { rows(&db).await.len() }
    };
    // Alone it is up to date.
    near.notes().at_least(&Consistency::Strong, 0).await.unwrap();
    let wire = Wire::to(&hub);
    let session = sync(&near, &wire);
    for id in 0..40 {
        put(&hub.notes(), [(id, "a")]).await;
        let seen = match id % 3 {
            0 => Consistency::Strong,
            1 => Consistency::Bounded(0),
            _ => {
                let row = crate::model::Batch::from_rows(&hub.notes().spec().schema, vec![row(id, "b")]).unwrap();
                let written = hub.notes().upsert(row).await.unwrap();
                let token = written.session_token().to_string();
                Consistency::of("session", None, &[token]).unwrap()
            }
        };
        near.notes().at_least(&seen, LONG_MS).await.unwrap();
        assert_eq!(titles(&near).await, id as usize + 1, "{seen:?}");
        if id % 7 == 6 {
            wire.cut();
        }
    }
    // A write of the replica is at the hub when the hub is asked for it.
    let row = crate::model::Batch::from_rows(&near.notes().spec().schema, vec![row(100, "near")]).unwrap();
    let written = near.notes().upsert(row).await.unwrap();
    let seen = Consistency::Session(vec![written.session_token()]);
    hub.notes().at_least(&seen, LONG_MS).await.unwrap();
    assert_eq!(titles(&hub).await, 41);
    near.notes().at_least(&seen, 0).await.unwrap();
    // What was overwritten before it could come here is not waited for where its hub says that all is here.
    wire.plug(None);
    let row = crate::model::Batch::from_rows(&hub.notes().spec().schema, vec![self::row(1, "lost")]).unwrap();
    let lost = hub.notes().upsert(row).await.unwrap();
    put(&hub.notes(), [(1, "won")]).await;
    let seen = Consistency::Session(vec![lost.session_token()]);
    let error = near.notes().at_least(&seen, 20).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("after 20 ms"), "{error}");
    let error = near.notes().at_least(&Consistency::Strong, 20).await.err().unwrap();
    assert!(error.message().contains("does not have what hub"), "{error}");
    near.notes().at_least(&Consistency::Bounded(10_000_000), 0).await.unwrap();
    near.notes().at_least(&Consistency::Eventually, 0).await.unwrap();
    wire.plug(Some(SyncHub::new(hub.db.clone(), HubOptions::default())));
    near.notes().at_least(&seen, LONG_MS).await.unwrap();
    // A session that was stopped is asked nothing.
    session.stop();
    status_where(&session, "stopped", |status| status.state == SyncState::Stopped).await;
    put(&hub.notes(), [(200, "late")]).await;
    while near.notes().at_least(&Consistency::Strong, 0).await.is_err() {
        tokio::task::yield_now().await;
    }
}

async fn maintained(device: &Device) {
    while device.db.maintain().await.unwrap() {}
}

/// 3,000 rows in three segments with graphs, some of them replaced and deleted since, and a tail that is in the log only.
async fn grown_hub() -> (Device, usize) {
    let hub = Device::new().await;
    hub.db.create_collection("notes", spec()).await.unwrap();
    for part in 0..3 {
        put(&hub.notes(), (0..1_000).map(|id| (part * 1_000 + id, "of the hub"))).await;
        delete(&hub.notes(), &[part * 1_000 + 5]).await;
        hub.db.flush("notes").await.unwrap();
    }
    put(&hub.notes(), (0..100).map(|id| (id * 7 + 1_000, "of the hub, again"))).await;
    delete(&hub.notes(), &[10, 20]).await;
    maintained(&hub).await;
    hub.db.flush("notes").await.unwrap();
    put(&hub.notes(), [(1, "in the log only"), (9_000, "new in the log")]).await;
    delete(&hub.notes(), &[30]).await;
    let rows = rows(&hub.db).await.len();
    (hub, rows)
}

/// The segments that came whole, of all that have rows.
async fn adopted(device: &Device) -> (usize, usize) {
    let snapshot = device.db.snapshot().await.unwrap();
    let segments: Vec<_> = snapshot.manifest().collections.iter().flat_map(|collection| &collection.segments).collect();
    (segments.iter().filter(|segment| segment.adopted.is_some()).count(), segments.len())
}

#[tokio::test]
async fn a_new_replica_gets_segments_with_their_indexes_and_then_the_log() {
    let (hub, rows_there) = grown_hub().await;
    let (a, b) = (Device::new().await, Device::new().await);
    // b has the collection already, and wrote while it was alone: one row that the hub has too, one that it has not.
    b.db.create_collection("notes", spec()).await.unwrap();
    put(&b.notes(), [(40, "by b, later"), (-1, "by b alone")]).await;
    delete(&b.notes(), &[50]).await;
    let wire = Wire::to(&hub);
    let (at_a, at_b) = (sync(&a, &wire), sync(&b, &wire));
    converged(&hub.db, &[&a.db, &b.db], rows_there + 1).await;
    let all = rows(&hub.db).await;
    assert!(all.contains(&row(40, "by b, later")) && all.contains(&row(1, "in the log only")));
    for (device, session) in [(&a, &at_a), (&b, &at_b)] {
        status_where(session, "done", |status| status.last_synced_ms.is_some() && status.download.is_none()).await;
        // Nothing was indexed here: the graphs came along.
        assert!(device.notes().stats().await.unwrap().rows_unindexed < 200);
        let (came, _) = adopted(device).await;
        assert!(came >= 3, "{came} segments came whole");
    }
    // What has come is like all else: it is changed, deleted, merged, pushed on, and there after a crash.
    put(&a.notes(), [(100, "by a"), (2_000, "by a")]).await;
    delete(&a.notes(), &[101]).await;
    converged(&hub.db, &[&a.db, &b.db], rows_there).await;
    at_b.stop();
    let b = b.crash().await;
    assert_eq!(rows(&b.db).await, rows(&hub.db).await);
    b.db.compact("notes").await.unwrap();
    assert_eq!(rows(&b.db).await, rows(&hub.db).await);
    assert_eq!(adopted(&b).await.0, 0);
    // A replica of the replica gets them from there, whatever their positions at the first hub were.
    let (c, d) = (Device::new().await, Device::new().await);
    let at_a_as_hub = Wire::to(&a);
    let _at_c = sync(&c, &at_a_as_hub);
    converged(&a.db, &[&c.db], rows_there).await;
    assert!(adopted(&c).await.0 >= 3);
    put(&a.notes(), [(102, "by a, live")]).await;
    converged(&a.db, &[&hub.db, &c.db], rows_there).await;
    // And one that asks for the log alone, as peers that know nothing of segments do, finds the same there.
    d.db.create_collection("notes", spec()).await.unwrap();
    let (changes, lsn) = c.notes().changes_after(Default::default(), &BTreeMap::new(), usize::MAX).await.unwrap();
    assert_eq!(lsn, c.notes().lsn());
    d.notes().apply(changes, None).await.unwrap();
    assert_eq!(rows(&d.db).await, rows(&a.db).await);
    // Who comes again has all of it.
    let at_a = sync(&a, &wire);
    status_where(&at_a, "done", |status| status.last_synced_ms.is_some()).await;
}

/// Breaks each connection after so many frames more than the one before.
struct Brittle {
    wire: Wire,
    frames: Mutex<usize>,
}

struct BrittleEnd {
    inner: Arc<dyn Connection>,
    left: Mutex<usize>,
}

impl Connect for Brittle {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            let inner = self.wire.connect().await?;
            let mut frames = self.frames.lock().unwrap();
            *frames += 1;
            Ok(Arc::new(BrittleEnd { inner, left: Mutex::new(*frames) }) as Arc<dyn Connection>)
        })
    }
}

impl Connection for BrittleEnd {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        self.inner.send(message)
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        let over = {
            let mut left = self.left.lock().unwrap();
            let over = *left == 0;
            *left = left.saturating_sub(1);
            over
        };
        if over {
            return Box::pin(async { Err(Error::new(ErrorKind::Unavailable, "broken")) });
        }
        self.inner.receive()
    }

    fn close(&self) -> Task<'_, ()> {
        self.inner.close()
    }
}

#[tokio::test]
async fn a_download_that_is_cut_and_crashes_goes_on_where_it_ended() {
    let (hub, rows_there) = grown_hub().await;
    let mut b = Device::new().await;
    let brittle = Arc::new(Brittle { wire: Wire::to(&hub), frames: Mutex::new(0) });
    for round in 0..60 {
        let session = b.db.sync_over(brittle.clone(), vec!["notes".to_owned()]).unwrap();
        let mut listener = session.listen();
        // Each connection breaks once; then the machine crashes in every third round.
        while let Some(status) = tokio::time::timeout(PATIENCE, listener.next()).await.unwrap() {
            // A listener may miss that it was live in between.
            if status.last_synced_ms.is_some() || (status.state == SyncState::Offline && status.error.is_some()) {
                break;
            }
        }
        let done = session.status().last_synced_ms.is_some();
        session.stop();
        while tokio::time::timeout(PATIENCE, listener.next()).await.unwrap().is_some() {}
        // What is here is right at any time.
        if let Ok(notes) = b.db.collection("notes") {
            assert!(notes.count(None).await.unwrap() <= rows_there + 3, "round {round}");
        }
        if done {
            break;
        }
        if round % 3 == 2 {
            b = b.crash().await;
        }
    }
    assert_eq!(rows(&b.db).await, rows(&hub.db).await);
    assert_eq!(rows(&b.db).await.len(), rows_there);
    assert!(adopted(&b).await.0 >= 3);
    // Nothing of what came in part is left.
    let b = b.crash().await;
    let named: usize =
        b.db.snapshot().await.unwrap().manifest().files().filter(|file| file.name.contains("/incoming/")).count();
    let stored = crate::storage::Storage::list(&b.storage, "").await.unwrap();
    assert_eq!(stored.iter().filter(|entry| entry.name.contains("/incoming/")).count(), named);
}

/// What a hub offers that has 50 rows in a segment.
async fn offer_of(hub: &Device) -> (Vec<u8>, seed::Offered) {
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), (0..50).map(|id| (id, "from the hub"))).await;
    hub.db.flush("notes").await.unwrap();
    let offered = seed::offer(&hub.db, &hub.notes(), crate::base::Lsn(0), &BTreeMap::new(), 1).await.unwrap();
    offered.expect("all rows are in a segment")
}

/// Plans and stores what is offered, until something fails.
async fn take_in(device: &Device, hub: &Device, (offer, files): &(Vec<u8>, seed::Offered)) -> Result<()> {
    let notes = device.notes();
    let (mut coming, mut wants) = seed::plan(&device.db, &notes, hub.db.replica_id(), offer).await?;
    while let Some(want) = wants.pop() {
        let bytes = files.read(want.file, want.offset, want.len as u32).await.unwrap();
        // One that a crash had torn is wanted again.
        wants.extend(coming.store(&device.db, &notes, want.file, want.offset, bytes, false).await?);
    }
    Ok(())
}

/// A download had stored the last piece of a file and was gone before it synced it. The next connection found the file whole, did not
/// sync it either, and took the segment in; after a power cut the manifest named an empty file, and the store did not open.
#[tokio::test]
async fn a_file_that_was_found_whole_is_synced_before_it_is_taken_in() {
    let hub = Device::new().await;
    let offered = offer_of(&hub).await;
    for seed in 0..40 {
        let device = Device::on(FaultStorage::new(seed)).await;
        device.db.create_collection("notes", spec()).await.unwrap();
        // The list of files, then an append, and in the midst of its sync all is over.
        device.storage.crash_after(2);
        assert!(take_in(&device, &hub, &offered).await.is_err());
        let device = device.crash().await;
        take_in(&device, &hub, &offered).await.unwrap();
        let device = device.crash().await;
        assert_eq!(rows(&device.db).await, rows(&hub.db).await, "seed {seed}");
    }
}

/// After an append or a sync that fails, a storage takes no more of a file until that is cut off. A download that met one failed
/// whenever it went on with that file, until the store was opened anew.
#[tokio::test]
async fn a_download_goes_on_after_a_call_that_failed() {
    use crate::storage::Operation::{Append, Remove, Sync, Truncate};
    let hub = Device::new().await;
    let offered = offer_of(&hub).await;
    for fails in [&[Append][..], &[Sync], &[Append, Truncate], &[Append, Truncate, Remove], &[Sync, Remove]] {
        let device = Device::new().await;
        device.db.create_collection("notes", spec()).await.unwrap();
        for operation in fails {
            device.storage.fail_next(*operation, ErrorKind::StorageFull);
        }
        assert!(take_in(&device, &hub, &offered).await.is_err(), "{fails:?}");
        let mut tries = 0;
        while let Err(error) = take_in(&device, &hub, &offered).await {
            tries += 1;
            assert!(tries < 3, "{fails:?}: {error}");
        }
        assert_eq!(rows(&device.db).await, rows(&hub.db).await, "{fails:?}");
    }
}

/// A hub took in segments of its own hub, and had the newest of them first. A client of it got their rows, so it told after a cut that it
/// had all batches of their writer up to the newest one; the older segments came, and their rows were never sent to it.
#[tokio::test]
async fn a_hub_that_is_downloading_keeps_nothing_from_its_clients() {
    let (far, there) = grown_hub().await;
    let nothing = BTreeMap::new();
    let offered = seed::offer(&far.db, &far.notes(), crate::base::Lsn(0), &nothing, 1).await.unwrap();
    let (offer, files) = offered.expect("most rows are in segments");
    let (edge, a) = (Device::new().await, Device::new().await);
    edge.db.create_collection("notes", spec()).await.unwrap();
    let notes = edge.notes();
    let (mut coming, wants) = seed::plan(&edge.db, &notes, far.db.replica_id(), &offer).await.unwrap();
    let mut store = async |wants: &[crate::sync::Want]| {
        for want in wants.iter().rev() {
            let bytes = files.read(want.file, want.offset, want.len as u32).await.unwrap();
            assert_eq!(coming.store(&edge.db, &notes, want.file, want.offset, bytes, false).await.unwrap(), None);
        }
    };
    // The last half of the files, which are those of the later segments.
    let (earlier, later) = wants.split_at(wants.len() / 2);
    store(later).await;
    let here = edge.notes().count(None).await.unwrap();
    assert!(here > 0 && here < there, "{here} of {there}");
    let wire = Wire::to(&edge);
    let row_by_row = HubOptions { seeded_rows_min: usize::MAX, ..HubOptions::default() };
    wire.plug(Some(SyncHub::new(edge.db.clone(), row_by_row)));
    let at_a = sync(&a, &wire);
    converged(&edge.db, &[&a.db], here).await;
    at_a.pause();
    status_where(&at_a, "paused", |status| status.state == SyncState::Offline).await;
    store(earlier).await;
    coming.end(&edge.db, &notes).await.unwrap();
    let there = edge.notes().count(None).await.unwrap();
    assert!(there > here);
    at_a.resume();
    converged(&edge.db, &[&a.db], there).await;
    // By now it is known what is whole.
    let seen = async {
        while a.notes().seen() != edge.notes().seen() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}

/// What was pushed to a hub that is a client of another one stayed there: nobody above heard of it.
#[tokio::test]
async fn a_hub_passes_on_to_its_own_hub_what_is_pushed_to_it() {
    let (far, mut edge, a, b) = (Device::new().await, Device::new().await, Device::new().await, Device::new().await);
    for device in [&far, &a] {
        device.db.create_collection("notes", spec()).await.unwrap();
    }
    put(&a.notes(), [(1, "before all"), (2, "of a")]).await;
    let above = Wire::to(&far);
    let mut at_edge = sync(&edge, &above);
    status_where(&at_edge, "live", |status| status.state == SyncState::Live && status.last_synced_ms.is_some()).await;
    let below = Wire::to(&edge);
    let (at_a, _at_b) = (sync(&a, &below), sync(&b, &above));
    converged(&far.db, &[&edge.db, &a.db, &b.db], 2).await;
    // Both ways, while it lasts.
    put(&b.notes(), [(3, "of b")]).await;
    put(&a.notes(), [(4, "of a too"), (2, "again")]).await;
    put(&edge.notes(), [(5, "of the edge")]).await;
    delete(&a.notes(), &[1]).await;
    converged(&far.db, &[&edge.db, &a.db, &b.db], 4).await;
    // While the edge is cut off from above, and over its crash.
    at_edge.stop();
    for id in 10..40 {
        put(&a.notes(), [(id, "alone")]).await;
    }
    delete(&a.notes(), &[3]).await;
    converged(&edge.db, &[&a.db], 33).await;
    below.plug(None);
    edge = edge.crash().await;
    below.plug(Some(SyncHub::new(edge.db.clone(), HubOptions::default())));
    at_edge = sync(&edge, &above);
    converged(&far.db, &[&edge.db, &b.db], 33).await;
    at_a.resume();
    converged(&far.db, &[&edge.db, &a.db, &b.db], 33).await;
    assert_eq!(at_edge.status().refusals, []);
    // And none of it comes twice: what the far hub has of each replica the edge knows.
    let seen = async {
        while edge.notes().seen() != far.notes().seen() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.unwrap();
}

/// Of two edits of one row, made by replicas that did not know of each other, one was lost without a trace.
#[tokio::test]
async fn what_loses_unseen_is_kept_where_the_two_meet() {
    let (hub, mut a, b) = (Device::new().await, Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&a.notes(), (1..=6).map(|id| (id, "first"))).await;
    let (at_a, at_b) = (sync(&a, &wire), sync(&b, &wire));
    converged(&hub.db, &[&a.db], 6).await;
    at_b.pause();
    at_b.resume();
    converged(&hub.db, &[&a.db, &b.db], 6).await;
    // One after the other, each having seen what was there: no conflict, whoever wrote.
    put(&b.notes(), [(1, "by b"), (2, "by b")]).await;
    converged(&hub.db, &[&a.db, &b.db], 6).await;
    put(&a.notes(), [(1, "by a, who has seen it")]).await;
    delete(&a.notes(), &[2]).await;
    converged(&hub.db, &[&a.db, &b.db], 5).await;
    put(&hub.notes(), [(2, "by the hub, who has seen it")]).await;
    converged(&hub.db, &[&a.db, &b.db], 6).await;
    for device in [&hub, &a, &b] {
        assert_eq!(device.notes().conflicts().await.unwrap(), []);
    }
    // Apart: a is earlier everywhere but with row 5.
    let later = async || {
        let written = now_ms();
        while now_ms() == written {
            tokio::task::yield_now().await;
        }
    };
    let away = async |session: &SyncSession| {
        session.pause();
        status_where(session, "away", |status| status.state == SyncState::Offline).await;
    };
    away(&at_a).await;
    away(&at_b).await;
    put(&b.notes(), [(5, "earlier, by b")]).await;
    later().await;
    put(&a.notes(), [(3, "lost, by a"), (4, "deleted by b"), (5, "later, by a")]).await;
    delete(&a.notes(), &[6]).await;
    later().await;
    put(&b.notes(), [(3, "later, by b"), (6, "later than the delete")]).await;
    delete(&b.notes(), &[4]).await;
    let lost_at_a = a.notes().seen()[&a.db.replica_id()];
    at_b.resume();
    status_where(&at_b, "pushed", |status| status.pending == 0 && status.state == SyncState::Live).await;
    at_a.resume();
    converged(&hub.db, &[&a.db, &b.db], 5).await;
    // The hub had b's changes, so a found what it lost when they came, and the hub what b lost when a's came.
    let told = async |device: &Device| {
        let conflicts = device.notes().conflicts().await.unwrap();
        let title = |row: &Option<crate::model::Row>| row.as_ref().map(|row| format!("{:?}", row["title"]));
        conflicts.iter().map(|lost| (lost.key.to_string(), title(&lost.row), lost.version.origin)).collect::<Vec<_>>()
    };
    let wait = async {
        loop {
            let mut all = told(&a).await;
            all.extend(told(&hub).await);
            all.sort();
            all.dedup();
            if all.len() >= 4 {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all = tokio::time::timeout(PATIENCE, wait).await.unwrap();
    let (by_a, by_b) = (a.db.replica_id(), b.db.replica_id());
    let text = |text: &str| Some(format!("{:?}", crate::model::Value::from(text)));
    let expected = [
        ("3".to_owned(), text("lost, by a"), by_a),
        ("4".to_owned(), text("deleted by b"), by_a),
        ("5".to_owned(), text("earlier, by b"), by_b),
        ("6".to_owned(), None, by_a),
    ];
    assert_eq!(all, expected);
    for lost in a.notes().conflicts().await.unwrap() {
        assert!(lost.version < lost.winner && lost.version.origin != lost.winner.origin, "{lost:?}");
        assert!(lost.version.origin != by_a || lost.version.sequence <= lost_at_a);
    }
    // They are kept over a crash, each once, also when everything comes again.
    let before = told(&a).await;
    at_a.stop();
    a = a.crash().await;
    assert_eq!(told(&a).await, before);
    let _at_a = sync(&a, &wire);
    put(&a.notes(), [(9, "after")]).await;
    converged(&hub.db, &[&a.db, &b.db], 6).await;
    assert_eq!(told(&a).await, before);
    // And go with their collection.
    let count = async |device: &Device| {
        let files = crate::storage::Storage::list(&device.storage, "").await.unwrap();
        files.iter().filter(|entry| entry.name.contains("/conflicts-")).count()
    };
    assert!(count(&a).await + count(&hub).await > 0);
    a.db.drop_collection("notes").await.unwrap();
    assert_eq!(count(&a).await, 0);
}

/// A hub, a store between it and a device, which have one row; and the sessions of the two.
async fn a_row_below_an_edge() -> ([Device; 3], [SyncSession; 2]) {
    let (far, edge, a) = (Device::new().await, Device::new().await, Device::new().await);
    far.db.create_collection("notes", spec()).await.unwrap();
    put(&far.notes(), [(1, "first")]).await;
    let at_edge = sync(&edge, &Wire::to(&far));
    edge.notes_once().await;
    let at_a = sync(&a, &Wire::to(&edge));
    a.notes_once().await;
    converged(&far.db, &[&edge.db, &a.db], 1).await;
    ([far, edge, a], [at_edge, at_a])
}

/// What a store between others had passed on by the connection counted there as not seen by who wrote it anew below it.
#[tokio::test]
async fn edits_one_after_the_other_below_an_edge_are_no_conflict_above_it() {
    let ([far, edge, a], _sessions) = a_row_below_an_edge().await;
    let b = Device::new().await;
    let _at_b = sync(&b, &Wire::to(&edge));
    b.notes_once().await;
    converged(&far.db, &[&b.db], 1).await;
    for title in ["by a", "by b, who has seen it", "by a, who has seen that", "by the edge", "by b, once more"] {
        let writer = if title.starts_with("by a") {
            &a
        } else if title.starts_with("by b") {
            &b
        } else {
            &edge
        };
        put(&writer.notes(), [(1, title)]).await;
        converged(&writer.db, &[&far.db, &edge.db, &a.db, &b.db], 1).await;
    }
    for device in [&far, &edge, &a, &b] {
        assert_eq!(device.notes().conflicts().await.unwrap(), []);
    }
}

/// An edge that comes to its hub again took what was written below it meanwhile for known there: what lost was told nowhere.
#[tokio::test]
async fn what_was_overtaken_below_an_edge_is_told_there() {
    let ([far, edge, a], [at_edge, _at_a]) = a_row_below_an_edge().await;
    at_edge.pause();
    status_where(&at_edge, "away", |status| status.state == SyncState::Offline).await;
    put(&a.notes(), [(1, "lost, by a")]).await;
    converged(&a.db, &[&edge.db], 1).await;
    let written = now_ms();
    while now_ms() == written {
        tokio::task::yield_now().await;
    }
    put(&far.notes(), [(1, "later")]).await;
    at_edge.resume();
    converged(&far.db, &[&edge.db, &a.db], 1).await;
    let conflicts = edge.notes().conflicts().await.unwrap();
    let lost: Vec<_> = conflicts.iter().map(|lost| (lost.row.clone(), lost.version.origin)).collect();
    assert_eq!(lost, [(Some(row(1, "lost, by a")), a.db.replica_id())]);
    assert_eq!(conflicts[0].winner.origin, far.db.replica_id());
}

/// An index that this side has chosen differently is built here, and the rows come all the same.
#[tokio::test]
async fn segments_come_without_the_indexes_that_are_others_here() {
    let (hub, rows_there) = grown_hub().await;
    let a = Device::new().await;
    let flat: CollectionSpec = CollectionSpec {
        indexes: serde_json::from_str(r#"{"embedding":{"metric":"L2","kind":"FLAT"}}"#).unwrap(),
        ..spec()
    };
    a.db.create_collection("notes", flat).await.unwrap();
    let _at_a = sync(&a, &Wire::to(&hub));
    converged(&hub.db, &[&a.db], rows_there).await;
    assert!(adopted(&a).await.0 >= 3);
    assert!(a.db.snapshot().await.unwrap().manifest().files().all(|file| file.kind != "index"));
}

/// What a hub refused was told only by the session that was told of it: after a restart nobody knew why rows were missing elsewhere.
#[tokio::test]
async fn what_was_refused_is_known_after_a_crash_until_it_is_written_anew() {
    const TWO_DAYS_MS: u64 = 2 * 86_400_000;
    let hub = Device::new().await;
    let wire = Wire::to(&hub);
    let environment = crate::platform::Environment::simulated(5, now_ms());
    let storage = FaultStorage::new(7);
    let open = async |storage: &FaultStorage| {
        let options = Options { environment: environment.clone(), ..Options::default() };
        let db = Db::open(Arc::new(storage.clone()), options).await.unwrap();
        Device { storage: storage.clone(), db }
    };
    let a = open(&storage).await;
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&a.notes(), [(1, "in time")]).await;
    let session = sync(&a, &wire);
    converged(&hub.db, &[&a.db], 1).await;
    // Its clock runs ahead, and the hub takes no such timestamp.
    environment.advance_ms(TWO_DAYS_MS);
    put(&a.notes(), [(2, "far ahead")]).await;
    let refused = status_where(&session, "refused", |status| !status.refusals.is_empty()).await.refusals;
    assert_eq!((refused.len(), refused[0].error.kind()), (1, ErrorKind::InvalidArgument));
    session.stop();
    let storage = a.storage.reopen();
    drop(a);
    let a = open(&storage).await;
    assert_eq!(a.notes().refused().len(), 1);
    wire.plug(None);
    let session = sync(&a, &wire);
    assert_eq!(session.status().refusals, refused, "without a hub to ask");
    // Written anew it is another batch, for better or worse.
    put(&a.notes(), [(2, "far ahead, again")]).await;
    assert_eq!(a.notes().refused(), []);
    wire.plug(Some(SyncHub::new(hub.db.clone(), HubOptions::default())));
    session.resume();
    let is_later = |status: &SyncStatus| status.refusals.iter().any(|again| again.through > refused[0].through);
    assert_eq!(status_where(&session, "refused again", is_later).await.refusals.len(), 1);
    a.db.flush("notes").await.unwrap();
    session.stop();
    let a = open(&a.storage.reopen()).await;
    assert_eq!(a.notes().refused().len(), 1);
    assert_eq!(rows(&hub.db).await, [row(1, "in time")]);
}

/// Connects to a hub whose host gives up its memory whenever nothing is under way, while its connections stay.
#[derive(Clone, Default)]
struct Sleeper {
    /// The hub's ends of all connections, and where they stand.
    lines: Arc<Mutex<Vec<Line>>>,
}

struct Line {
    end: Arc<dyn Connection>,
    rested: Option<Vec<u8>>,
    resting: Option<super::Resting>,
    served: Option<tokio::task::JoinHandle<Result<bool>>>,
}

impl Sleeper {
    fn wake(&self, hub: &SyncHub) {
        for line in self.lines.lock().unwrap().iter_mut().filter(|line| line.served.is_none()) {
            let rested = line.rested.take();
            let (resting, serving) = hub.serve_until_rest(line.end.clone(), rested.as_deref()).unwrap();
            (line.resting, line.served) = (Some(resting), Some(tokio::spawn(serving)));
        }
    }

    /// Waits until every connection rests.
    async fn sleep(&self) {
        let mut lines = std::mem::take(&mut *self.lines.lock().unwrap());
        for line in &mut lines {
            let rest = async {
                loop {
                    match line.resting.as_ref().unwrap().ask().await {
                        Some(bytes) => return bytes,
                        None => tokio::task::yield_now().await,
                    }
                }
            };
            line.rested = Some(tokio::time::timeout(PATIENCE, rest).await.expect("it comes to rest"));
            assert!(line.served.take().unwrap().await.unwrap().unwrap(), "it rests");
        }
        *self.lines.lock().unwrap() = lines;
    }
}

impl Connect for Sleeper {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            let (here, end, _) = duplex();
            self.lines.lock().unwrap().push(Line { end, rested: None, resting: None, served: None });
            Ok(here)
        })
    }
}

#[tokio::test]
async fn connections_rest_while_the_store_is_closed_and_nobody_notices() {
    let (hub, a, b) = (Device::new().await, Device::new().await, Device::new().await);
    a.db.create_collection("notes", spec()).await.unwrap();
    put(&a.notes(), [(1, "one"), (2, "two")]).await;
    let sleeper = Sleeper::default();
    let connect = |device: &Device| device.db.sync_over(Arc::new(sleeper.clone()), vec!["notes".to_owned()]).unwrap();
    let at_a = connect(&a);
    let serve = |device: &Device| SyncHub::new(device.db.clone(), HubOptions::default());
    let connected = async |len: usize, hub: &SyncHub| {
        while sleeper.lines.lock().unwrap().len() < len {
            tokio::task::yield_now().await;
        }
        sleeper.wake(hub);
    };
    connected(1, &serve(&hub)).await;
    converged(&hub.db, &[&a.db], 2).await;
    let at_b = connect(&b);
    connected(2, &serve(&hub)).await;
    converged(&hub.db, &[&a.db, &b.db], 2).await;
    let watched = [&at_a, &at_b].map(|session| {
        let mut listener = session.listen();
        tokio::spawn(async move {
            while let Some(status) = listener.next().await {
                let is_over = status.state == SyncState::Stopped;
                assert!(is_over || (status.state == SyncState::Live && status.error.is_none()), "{status:?}");
            }
        })
    });
    let mut hub = hub;
    for round in 0..5 {
        sleeper.sleep().await;
        // Both write while nobody listens; one of them something that the hub has already.
        put(&a.notes(), [(10 + round, "by a"), (1, "one again")]).await;
        delete(&b.notes(), &[2]).await;
        put(&b.notes(), [(20 + round, "by b"), (2, "two again")]).await;
        hub.db.close().await.unwrap();
        hub = hub.crash().await;
        sleeper.wake(&serve(&hub));
        converged(&hub.db, &[&a.db, &b.db], 4 + 2 * round as usize).await;
        put(&hub.notes(), [(30, "of the hub")]).await;
        delete(&hub.notes(), &[30]).await;
        converged(&hub.db, &[&a.db, &b.db], 4 + 2 * round as usize).await;
    }
    assert_eq!(sleeper.lines.lock().unwrap().len(), 2, "nobody has connected again");
    for device in [&a, &b, &hub] {
        assert_eq!(device.notes().conflicts().await.unwrap().len(), 0, "what a replica wrote over its own is none");
    }
    at_a.stop();
    at_b.stop();
    for watched in watched {
        watched.await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_rests_ends_when_its_collection_is_another_one() {
    let (hub, a) = (Device::new().await, Device::new().await);
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), [(1, "one")]).await;
    let sleeper = Sleeper::default();
    let session = a.db.sync_over(Arc::new(sleeper.clone()), vec!["notes".to_owned()]).unwrap();
    while sleeper.lines.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let serving = SyncHub::new(hub.db.clone(), HubOptions::default());
    sleeper.wake(&serving);
    converged(&hub.db, &[&a.db], 1).await;
    sleeper.sleep().await;
    hub.db.drop_collection("notes").await.unwrap();
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), [(2, "two"), (3, "three")]).await;
    sleeper.wake(&serving);
    let status = status_where(&session, "told", |status| status.state == SyncState::Offline && status.error.is_some());
    assert_eq!(status.await.error.unwrap().kind(), ErrorKind::Unavailable);
    // It comes again, and gets what is there now.
    let come = async {
        while sleeper.lines.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, come).await.unwrap();
    sleeper.lines.lock().unwrap().remove(0);
    sleeper.wake(&serving);
    status_where(&session, "live again", |status| status.state == SyncState::Live && status.pending == 0).await;
    for bytes in [&b"nonsense"[..], &[]] {
        let (end, ..) = duplex();
        let refused = serving.serve_until_rest(end, Some(bytes)).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt);
    }
    session.stop();
}
