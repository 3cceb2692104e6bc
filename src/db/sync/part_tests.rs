//! Parts of collections, between stores that crash.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::testing::{Device, PATIENCE, delete, put, row, rows, spec, status_where};
use super::*;
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Access, Action, Admitted, Db, Gate, Grant, WriteOptions};
use crate::model::{Batch, DEFAULT_PARTITION};
use crate::platform::Task;
use crate::platform::socket::{Connect, Connection, duplex};
use crate::sync::{HubOptions, Message};

/// A way to a hub that counts the rows that come.
#[derive(Clone)]
struct Wire {
    hub: SyncHub,
    db: Db,
    rows: Arc<AtomicUsize>,
    /// Whether segments may come: to who gets a part none do.
    may_seed: bool,
}

impl Wire {
    fn to(device: &Device) -> Self {
        Self {
            hub: SyncHub::new(device.db.clone(), HubOptions { seeded_rows_min: 4, ..HubOptions::default() }),
            db: device.db.clone(),
            rows: Arc::default(),
            may_seed: false,
        }
    }

    fn guarded(device: &Device, gate: &Arc<OneRight>) -> Self {
        let hub = SyncHub::with_gate(device.db.clone(), HubOptions::default(), gate.clone());
        Self { hub, ..Self::to(device) }
    }

    fn sync(&self, device: &Device, shape: &Shape) -> SyncSession {
        let shapes = BTreeMap::from([("notes".to_owned(), shape.clone())]);
        device.db.sync_parts_over(vec![Arc::new(self.clone())], vec!["notes".to_owned()], &shapes, None).unwrap()
    }

    fn came(&self) -> usize {
        self.rows.swap(0, Ordering::Relaxed)
    }
}

impl Connect for Wire {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            let (here, there, _) = duplex();
            let hub = self.hub.clone();
            tokio::spawn(async move { hub.serve(there).await });
            Ok(Arc::new(Counting { wire: self.clone(), connection: here }) as Arc<dyn Connection>)
        })
    }
}

struct Counting {
    wire: Wire,
    connection: Arc<dyn Connection>,
}

impl Connection for Counting {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        self.connection.send(message)
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            let frame = self.connection.receive().await?;
            match frame.as_deref().map(Message::decode) {
                Some(Ok(Message::Pull(pull))) if !pull.changes.is_empty() => {
                    let schema = &self.wire.db.collection("notes").unwrap().spec().schema.clone();
                    let changes = crate::engine::ChangeSet::decode(schema, &pull.changes).unwrap();
                    self.wire.rows.fetch_add(changes.len(), Ordering::Relaxed);
                }
                Some(Ok(Message::Offer(_))) if !self.wire.may_seed => {
                    panic!("segments were offered to who gets a part")
                }
                _ => {}
            }
            Ok(frame)
        })
    }

    fn close(&self) -> Task<'_, ()> {
        self.connection.close()
    }
}

/// Lets everybody do the same.
struct OneRight(tokio::sync::watch::Sender<(u64, Access)>);

impl OneRight {
    fn new(grants: Vec<Grant>) -> Arc<Self> {
        Arc::new(Self(tokio::sync::watch::Sender::new((1, Access::of(grants).unwrap()))))
    }

    fn change(&self, grants: Vec<Grant>) {
        self.0.send_modify(|(version, access)| (*version, *access) = (*version + 1, Access::of(grants).unwrap()));
    }
}

impl Gate for OneRight {
    fn admit(&self, _: Option<&str>, _: u64) -> Result<Admitted> {
        Ok(Admitted { access: self.0.borrow().1.clone(), expires_ms: None })
    }

    fn changed(&self, version: u64) -> Task<'static, u64> {
        let mut versions = self.0.subscribe();
        Box::pin(async move { versions.wait_for(|(now, _)| *now > version).await.unwrap().0 })
    }
}

fn grant(actions: &[Action], filter: Option<&str>) -> Grant {
    Grant {
        collections: vec!["notes".to_owned()],
        actions: actions.to_vec(),
        filter: filter.map(str::to_owned),
        filter_params: BTreeMap::new(),
    }
}

fn titled(filter: &str) -> Shape {
    Shape { filter: Some(filter.to_owned()), ..Shape::default() }
}

async fn found(db: &Db) -> Vec<(i64, String)> {
    let Ok(_) = db.collection("notes") else { return Vec::new() };
    let told = rows(db).await.into_iter().map(|row| {
        let (crate::model::Value::Int(id), crate::model::Value::String(title)) = (&row["id"], &row["title"]) else {
            panic!("{row:?}")
        };
        (*id, title.clone())
    });
    told.collect()
}

/// Waits until a store has these rows.
async fn has(db: &Db, expected: &[(i64, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(id, title)| (*id, (*title).to_owned())).collect();
    let wait = async {
        while found(db).await != expected {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("found {:?}, expected {expected:?}", found(db).await);
    }
}

async fn settled(session: &SyncSession) {
    status_where(session, "at rest", |status| {
        status.state == SyncState::Live
            && status.pending == 0
            && status.error.is_none()
            && status.last_synced_ms.is_some()
    })
    .await;
}

#[tokio::test]
async fn a_replica_has_the_rows_of_its_part_and_lets_go_of_those_that_leave_it() {
    let (hub, mut a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), (0..40).map(|id| (id, if id % 8 == 0 { "red" } else { "blue" }))).await;
    hub.db.flush("notes").await.unwrap();
    let red = titled("title == 'red'");
    let session = wire.sync(&a, &red);
    has(&a.db, &[(0, "red"), (8, "red"), (16, "red"), (24, "red"), (32, "red")]).await;
    settled(&session).await;
    assert_eq!(wire.came(), 5);
    // One leaves, one comes, one is deleted, one of those that never were here changes.
    put(&hub.notes(), [(0, "blue"), (1, "red"), (2, "green")]).await;
    delete(&hub.notes(), &[8]).await;
    let expected = [(1, "red"), (16, "red"), (24, "red"), (32, "red")];
    has(&a.db, &expected).await;
    // What has left can come back as it was, and go again, and stays gone after a crash, in segments and in the log.
    put(&hub.notes(), [(0, "red")]).await;
    has(&a.db, &[(0, "red"), (1, "red"), (16, "red"), (24, "red"), (32, "red")]).await;
    a.db.flush("notes").await.unwrap();
    put(&hub.notes(), [(0, "blue")]).await;
    has(&a.db, &expected).await;
    session.stop();
    a = a.crash().await;
    has(&a.db, &expected).await;
    a.db.flush("notes").await.unwrap();
    while a.db.maintain().await.unwrap() {}
    a = a.crash().await;
    has(&a.db, &expected).await;
    // Nothing of that was a delete to the hub.
    let session = wire.sync(&a, &red);
    put(&a.notes(), [(50, "red")]).await;
    settled(&session).await;
    assert_eq!(found(&hub.db).await.len(), 40);
    assert!(hub.notes().own_changes_after(Default::default(), usize::MAX).await.unwrap().0.deletes.len() == 1);
}

#[tokio::test]
async fn another_part_moves_only_the_difference() {
    let (hub, mut a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), (0..30).map(|id| (id, ["red", "blue", "green"][id as usize % 3]))).await;
    let session = wire.sync(&a, &titled("title in ['red', 'blue']"));
    settled(&session).await;
    assert_eq!(wire.came(), 20);
    session.stop();
    put(&hub.notes(), [(30, "green")]).await;
    let session = wire.sync(&a, &titled("title in ['blue', 'green']"));
    settled(&session).await;
    assert_eq!(wire.came(), 11);
    let expected: Vec<_> = found(&hub.db).await.into_iter().filter(|(_, title)| title != "red").collect();
    assert_eq!(found(&a.db).await, expected);
    session.stop();
    a = a.crash().await;
    // All of it, and then less.
    let session = wire.sync(&a, &Shape::default());
    settled(&session).await;
    assert_eq!(found(&a.db).await, found(&hub.db).await);
    assert_eq!(wire.came(), 10);
    session.stop();
    let session = wire.sync(&a, &titled("id < 2"));
    settled(&session).await;
    has(&a.db, &[(0, "red"), (1, "blue")]).await;
    assert_eq!(wire.came(), 0);
    session.stop();
    // What was let go of in an earlier part comes again as it is.
    let session = wire.sync(&a, &titled("id < 5"));
    has(&a.db, &[(0, "red"), (1, "blue"), (2, "green"), (3, "red"), (4, "blue")]).await;
    assert_eq!(wire.came(), 3);
    drop(session);
}

#[tokio::test]
async fn what_is_written_outside_of_the_part_goes_once_the_hub_has_it() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    hub.db.create_collection("notes", spec()).await.unwrap();
    let red = titled("title == 'red'");
    let session = wire.sync(&a, &red);
    settled(&session).await;
    session.pause();
    put(&a.notes(), [(1, "blue"), (2, "red")]).await;
    has(&a.db, &[(1, "blue"), (2, "red")]).await;
    session.resume();
    has(&hub.db, &[(1, "blue"), (2, "red")]).await;
    has(&a.db, &[(2, "red")]).await;
    // It may be written again, also to what it was, and comes when the part is another one.
    put(&a.notes(), [(1, "red")]).await;
    has(&hub.db, &[(1, "red"), (2, "red")]).await;
    put(&a.notes(), [(1, "blue")]).await;
    has(&hub.db, &[(1, "blue"), (2, "red")]).await;
    has(&a.db, &[(2, "red")]).await;
    settled(&session).await;
    session.stop();
    let session = wire.sync(&a, &titled("title == 'blue'"));
    has(&a.db, &[(1, "blue")]).await;
    settled(&session).await;
    has(&hub.db, &[(1, "blue"), (2, "red")]).await;
}

/// A client that could not see how late the clock of the hub was wrote under a row that it did not have, and kept what had lost.
#[tokio::test]
async fn a_write_over_a_row_that_is_not_here_is_later_than_that_row() {
    let (hub, mut a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    hub.db.create_collection("notes", spec()).await.unwrap();
    // Two hours ahead.
    let ahead = crate::base::Timestamp::new(crate::platform::now_ms() + 7_200_000, 0);
    let version = crate::base::Version {
        timestamp: ahead,
        origin: crate::base::ReplicaId(77),
        sequence: crate::base::Sequence(1),
    };
    let puts = Batch::from_rows(&spec().schema, vec![row(1, "blue")]).unwrap();
    let changes = crate::engine::ChangeSet { puts, put_versions: vec![version], deletes: Vec::new() };
    hub.notes().apply(changes, None).await.unwrap();
    let session = wire.sync(&a, &titled("title == 'red'"));
    settled(&session).await;
    assert_eq!(found(&a.db).await, []);
    session.stop();
    put(&a.notes(), [(9, "red")]).await;
    a = a.crash().await;
    put(&a.notes(), [(1, "red")]).await;
    let session = wire.sync(&a, &titled("title == 'red'"));
    has(&hub.db, &[(1, "red"), (9, "red")]).await;
    has(&a.db, &[(1, "red"), (9, "red")]).await;
    drop(session);
}

#[tokio::test]
async fn partitions_make_a_part() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    hub.db.create_collection("notes", spec()).await.unwrap();
    let shape = |names: &[&str]| Shape {
        partitions: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Shape::default()
    };
    put(&hub.notes(), [(1, "one")]).await;
    let session = wire.sync(&a, &shape(&["work"]));
    settled(&session).await;
    assert_eq!(found(&a.db).await, []);
    hub.db.create_partition("notes", "work").await.unwrap();
    let batch = Batch::from_rows(&hub.notes().spec().schema, vec![row(2, "two")]).unwrap();
    let options = WriteOptions { partition: Some("work".to_owned()), ..WriteOptions::default() };
    hub.notes().batch(vec![crate::db::Operation::Upsert(batch)], options).await.unwrap();
    has(&a.db, &[(2, "two")]).await;
    session.stop();
    let session = wire.sync(&a, &shape(&[DEFAULT_PARTITION]));
    has(&a.db, &[(1, "one")]).await;
    session.stop();
    let session = wire.sync(&a, &shape(&[DEFAULT_PARTITION, "work"]));
    has(&a.db, &[(1, "one"), (2, "two")]).await;
    drop(session);
}

#[tokio::test]
async fn a_part_that_fits_nothing_is_refused_with_the_reason() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    hub.db.create_collection("notes", spec()).await.unwrap();
    let near = |metric, centers: Vec<Vec<f32>>, radius| Shape {
        near: Some(Near { field: "embedding".to_owned(), metric, centers, radius }),
        ..Shape::default()
    };
    use crate::distance::Metric;
    for (shape, reason) in [
        (titled("title == 3"), "title"),
        (near(Metric::Ip, vec![vec![0.0; 4]], 1.0), "L2 or COSINE"),
        (near(Metric::L2, vec![vec![0.0; 3]], 1.0), "4 finite ones"),
        (near(Metric::L2, vec![], 1.0), "0 centers"),
        (near(Metric::Cosine, vec![vec![0.0; 4]], 1.0), "no direction"),
        (near(Metric::L2, vec![vec![0.0; 4]], -1.0), "radius -1"),
    ] {
        let session = wire.sync(&a, &shape);
        let status = status_where(&session, "refused", |status| status.error.is_some()).await;
        let error = status.error.unwrap();
        assert!(error.kind() == ErrorKind::InvalidArgument && error.message().contains(reason), "{error}");
        session.stop();
    }
    let unknown = BTreeMap::from([("others".to_owned(), Shape::default())]);
    let wire: Arc<dyn Connect> = Arc::new(wire);
    let error = a.db.sync_parts_over(vec![wire], vec!["notes".to_owned()], &unknown, None).err().unwrap();
    assert!(error.message().contains("others"), "{error}");
}

#[tokio::test]
async fn a_neighbourhood_is_a_part() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let wire = Wire::to(&hub);
    hub.db.create_collection("notes", spec()).await.unwrap();
    // The embedding of row n is (n, 1, -0.5, 0.25).
    put(&hub.notes(), (0..20).map(|id| (id, "x"))).await;
    let near = |at: f32, radius: f32| Shape {
        near: Some(Near {
            field: "embedding".to_owned(),
            metric: crate::distance::Metric::L2,
            centers: vec![vec![at, 1.0, -0.5, 0.25], vec![19.0, 1.0, -0.5, 0.25]],
            radius,
        }),
        ..Shape::default()
    };
    let session = wire.sync(&a, &near(5.0, 1.0));
    has(&a.db, &[(4, "x"), (5, "x"), (6, "x"), (18, "x"), (19, "x")]).await;
    settled(&session).await;
    wire.came();
    session.stop();
    let session = wire.sync(&a, &near(6.5, 1.5));
    has(&a.db, &[(5, "x"), (6, "x"), (7, "x"), (8, "x"), (18, "x"), (19, "x")]).await;
    assert_eq!(wire.came(), 2);
    drop(session);
}

#[tokio::test]
async fn rights_make_a_part_and_what_they_do_not_allow_any_more_leaves() {
    let (hub, a) = (Device::new().await, Device::new().await);
    let gate = OneRight::new(vec![grant(&[Action::Read, Action::Write], Some("title == 'hers'"))]);
    let wire = Wire::guarded(&hub, &gate);
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), [(1, "hers"), (2, "his"), (3, "hers"), (4, "ours")]).await;
    // What she wants may be more than what she gets.
    let session = wire.sync(&a, &titled("id < 100"));
    has(&a.db, &[(1, "hers"), (3, "hers")]).await;
    put(&a.notes(), [(5, "hers")]).await;
    has(&hub.db, &[(1, "hers"), (2, "his"), (3, "hers"), (4, "ours"), (5, "hers")]).await;
    // Over a row that she does not see, and into what she may not write: refused, and kept.
    put(&a.notes(), [(2, "hers")]).await;
    put(&a.notes(), [(6, "his")]).await;
    let status = status_where(&session, "refused twice", |status| status.refusals.len() == 2 && status.pending == 0);
    assert!(status.await.refusals.iter().all(|refusal| refusal.error.kind() == ErrorKind::Forbidden));
    has(&a.db, &[(1, "hers"), (2, "hers"), (3, "hers"), (5, "hers"), (6, "his")]).await;
    // Given to somebody else.
    put(&hub.notes(), [(3, "his")]).await;
    has(&a.db, &[(1, "hers"), (2, "hers"), (5, "hers"), (6, "his")]).await;
    // Other rights: what she has written and the hub has, goes as well; what was refused is all that is left of it.
    gate.change(vec![grant(&[Action::Read], Some("title == 'ours'"))]);
    has(&a.db, &[(2, "hers"), (4, "ours"), (6, "his")]).await;
    gate.change(vec![]);
    has(&a.db, &[(2, "hers"), (6, "his")]).await;
    let is_forbidden =
        |status: &SyncStatus| status.error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Forbidden);
    status_where(&session, "told so", is_forbidden).await;
    gate.change(vec![grant(&[Action::Admin], None)]);
    session.stop();
    let session = wire.sync(&a, &Shape::default());
    has(&a.db, &[(1, "hers"), (2, "hers"), (3, "his"), (4, "ours"), (5, "hers"), (6, "his")]).await;
    // What was refused is sent again when a session begins, and is right now.
    has(&hub.db, &[(1, "hers"), (2, "hers"), (3, "his"), (4, "ours"), (5, "hers"), (6, "his")]).await;
    drop(session);
}

/// Who once kept a part and keeps all now has let go of rows that lie in its segments, and knows of no delete of theirs.
#[tokio::test]
async fn rows_that_were_let_go_of_do_not_live_again_at_clients() {
    let (hub, edge) = (Device::new().await, Device::new().await);
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), (1..=8).map(|id| (id, "a"))).await;
    let session = Wire::to(&hub).sync(&edge, &titled("title == 'a'"));
    settled(&session).await;
    edge.db.flush("notes").await.unwrap();
    delete(&hub.notes(), &[1, 2]).await;
    settled(&session).await;
    has(&edge.db, &(3..=8).map(|id| (id, "a")).collect::<Vec<_>>()).await;
    session.stop();
    let session = Wire::to(&hub).sync(&edge, &Shape::default());
    settled(&session).await;
    edge.db.flush("notes").await.unwrap();
    let client = Device::new().await;
    let below = Wire { may_seed: true, ..Wire::to(&edge) }.sync(&client, &Shape::default());
    settled(&below).await;
    assert_eq!(rows(&client.db).await, rows(&hub.db).await);
}

#[tokio::test]
async fn who_keeps_a_part_is_no_hub_and_syncs_one_part_at_a_time() {
    let (hub, a, b) = (Device::new().await, Device::new().await, Device::new().await);
    hub.db.create_collection("notes", spec()).await.unwrap();
    put(&hub.notes(), [(1, "red"), (2, "blue")]).await;
    let wire = Wire::to(&hub);
    let session = wire.sync(&a, &titled("title == 'red'"));
    has(&a.db, &[(1, "red")]).await;
    let below = Wire::to(&a).sync(&b, &Shape::default());
    let status = status_where(&below, "refused", |status| status.error.is_some()).await;
    assert!(status.error.unwrap().message().contains("only a part"));
    below.stop();
    let other = wire.sync(&a, &titled("title == 'blue'"));
    has(&a.db, &[(2, "blue")]).await;
    put(&hub.notes(), [(3, "red")]).await;
    let told = |status: &SyncStatus| {
        status.error.as_ref().is_some_and(|error: &Error| error.message().contains("another session"))
    };
    status_where(&session, "told of the other one", told).await;
    assert_eq!(found(&a.db).await, [(2, "blue".to_owned())]);
    drop(other);
}
