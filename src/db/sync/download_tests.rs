//! First syncs whose files are had by plain requests, and what becomes of them when these fail.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::testing::{Device, converged, delete, put, rows, spec, status_where};
use super::*;
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Access, Action, Admitted, Gate, Grant};
use crate::platform::Task;
use crate::platform::socket::{Connect, Connection, Cut, duplex};
use crate::sync::{FILES_PLACE, HubOptions, Message};

/// What requests meet, from the first one on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Nothing,
    /// Whoever answers does not have the file.
    Absent,
    /// Half of what was asked for comes.
    Short,
    /// The second half of it is something else.
    Wrong,
    /// More comes than was asked for.
    Long,
    /// Half of the first file comes, and with the first frame that brings more everything breaks, once.
    Cut,
}

/// A place with files, and all that was asked of it.
struct Place {
    hub: SyncHub,
    trouble: Arc<Mutex<Trouble>>,
    requests: Mutex<Vec<(String, u64, u64)>>,
    /// Frames by which pieces of files came.
    pieces: Arc<Mutex<usize>>,
}

impl Place {
    fn of(hub: SyncHub, trouble: Trouble) -> Arc<Self> {
        let trouble = Arc::new(Mutex::new(trouble));
        Arc::new(Self { hub, trouble, requests: Mutex::default(), pieces: Arc::default() })
    }

    fn requests(&self) -> Vec<(String, u64, u64)> {
        self.requests.lock().unwrap().clone()
    }

    fn pieces(&self) -> usize {
        *self.pieces.lock().unwrap()
    }
}

/// Counts pieces that come.
struct Counted {
    inner: Arc<dyn Connection>,
    cut: Cut,
    trouble: Arc<Mutex<Trouble>>,
    pieces: Arc<Mutex<usize>>,
}

impl Connection for Counted {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        self.inner.send(message)
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            let received = self.inner.receive().await;
            if let Ok(Some(frame)) = &received
                && matches!(Message::decode(frame), Ok(Message::Piece(_)))
            {
                let mut trouble = self.trouble.lock().unwrap();
                if *trouble == Trouble::Cut {
                    *trouble = Trouble::Nothing;
                    self.cut.now();
                    return Err(Error::new(ErrorKind::Unavailable, "broken"));
                }
                *self.pieces.lock().unwrap() += 1;
            }
            received
        })
    }

    fn close(&self) -> Task<'_, ()> {
        self.inner.close()
    }
}

impl Connect for Place {
    fn connect(&self) -> Task<'_, Result<Arc<dyn Connection>>> {
        Box::pin(async {
            let (inner, there, cut) = duplex();
            let hub = self.hub.clone();
            tokio::spawn(async move { hub.serve(there).await });
            let (trouble, pieces) = (self.trouble.clone(), self.pieces.clone());
            Ok(Arc::new(Counted { inner, cut, trouble, pieces }) as Arc<dyn Connection>)
        })
    }

    fn downloads(&self) -> bool {
        true
    }

    fn download(&self, path: &str, token: Option<&str>, offset: u64, len: u64) -> Task<'static, Result<Vec<u8>>> {
        let mut requests = self.requests.lock().unwrap();
        requests.push((path.to_owned(), offset, len));
        let (hub, path, token) = (self.hub.clone(), path.to_owned(), token.map(str::to_owned));
        let trouble = match *self.trouble.lock().unwrap() {
            Trouble::Cut if requests.len() > 1 => Trouble::Nothing,
            trouble => trouble,
        };
        Box::pin(async move {
            let path = path.strip_prefix(FILES_PLACE).unwrap().strip_prefix('/').unwrap();
            let mut bytes = hub.file(token.as_deref(), path).await?.read(offset, len).await?.to_vec();
            let half = bytes.len() / 2;
            match trouble {
                Trouble::Nothing => {}
                Trouble::Absent => return Err(Error::new(ErrorKind::Unavailable, "404")),
                Trouble::Short | Trouble::Cut => bytes.truncate(half),
                Trouble::Wrong => bytes[half..].iter_mut().for_each(|byte| *byte ^= 1),
                Trouble::Long => bytes.push(7),
            }
            Ok(bytes)
        })
    }
}

fn served(hub: &Device, serves_files: bool) -> SyncHub {
    SyncHub::new(hub.db.clone(), HubOptions { serves_files, ..HubOptions::default() })
}

fn sync(device: &Device, place: &Arc<Place>) -> SyncSession {
    device.db.sync_over(place.clone(), vec!["notes".to_owned()]).unwrap()
}

async fn done(session: &SyncSession) {
    status_where(session, "done", |status| status.last_synced_ms.is_some() && status.download.is_none()).await;
}

/// 2,000 rows in two segments.
async fn hub_of_two_segments() -> Device {
    let hub = Device::new().await;
    hub.db.create_collection("notes", spec()).await.unwrap();
    for part in 0..2 {
        put(&hub.notes(), (0..1_000).map(|id| (part * 1_000 + id, "of the hub"))).await;
        hub.db.flush("notes").await.unwrap();
    }
    hub
}

async fn files_of(device: &Device) -> Vec<(String, u64)> {
    let snapshot = device.db.snapshot().await.unwrap();
    snapshot.manifest().files().map(|file| (format!("{:08x}/{}", file.checksum, file.name), file.len)).collect()
}

#[tokio::test]
async fn files_come_by_requests_where_both_sides_can_do_that() {
    let hub = hub_of_two_segments().await;
    let place = Place::of(served(&hub, true), Trouble::Nothing);
    let a = Device::new().await;
    done(&sync(&a, &place)).await;
    assert_eq!(rows(&a.db).await, rows(&hub.db).await);
    assert_eq!(place.pieces(), 0);
    let asked: BTreeSet<(String, u64)> =
        place.requests().into_iter().map(|(path, _, len)| (path[FILES_PLACE.len() + 1..].to_owned(), len)).collect();
    let there: BTreeSet<(String, u64)> = files_of(&hub).await.into_iter().filter(|(_, len)| *len > 0).collect();
    assert_eq!(asked, there, "each file, whole");
    // A hub that serves none is asked for none.
    let place = Place::of(served(&hub, false), Trouble::Nothing);
    let b = Device::new().await;
    done(&sync(&b, &place)).await;
    assert_eq!((place.requests().len(), rows(&b.db).await), (0, rows(&hub.db).await));
    assert!(place.pieces() > 0);
}

#[tokio::test]
async fn frames_bring_what_requests_do_not() {
    let hub = hub_of_two_segments().await;
    let whole: u64 = files_of(&hub).await.iter().map(|(_, len)| len).sum();
    for trouble in [Trouble::Absent, Trouble::Short, Trouble::Wrong, Trouble::Long] {
        let place = Place::of(served(&hub, true), trouble);
        let a = Device::new().await;
        let session = sync(&a, &place);
        done(&session).await;
        assert_eq!(rows(&a.db).await, rows(&hub.db).await, "{trouble:?}");
        assert_eq!(session.status().error, None, "{trouble:?}");
        assert!(place.pieces() > 0, "{trouble:?}");
        let asked: u64 = place.requests().iter().map(|(_, _, len)| len).sum();
        assert!(asked > 0 && asked <= whole, "{trouble:?}: not asked for again, {asked} of {whole} bytes");
        let a = a.crash().await;
        assert_eq!(rows(&a.db).await, rows(&hub.db).await, "{trouble:?}");
    }
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_in_the_midst_of_a_file() {
    let hub = hub_of_two_segments().await;
    let place = Place::of(served(&hub, true), Trouble::Cut);
    let a = Device::new().await;
    done(&sync(&a, &place)).await;
    assert_eq!(rows(&a.db).await, rows(&hub.db).await);
    assert_eq!(place.pieces(), 0);
    // The next connection asks for the rest of what came in half.
    let requests = place.requests();
    let (path, _, len) = &requests[0];
    let again: Vec<_> = requests[1..].iter().filter(|(other, _, _)| other == path).collect();
    assert_eq!(again, [&(path.clone(), len / 2, len - len / 2)], "{requests:?}");
}

struct Doorkeeper;

impl Gate for Doorkeeper {
    fn admit(&self, token: Option<&str>, _: u64) -> Result<Admitted> {
        let filter = match token {
            Some("all") => None,
            Some("some") => Some("id < 10".to_owned()),
            _ => return Err(Error::new(ErrorKind::Unauthorized, "who is there?")),
        };
        let (collections, actions) = (vec!["notes".to_owned()], vec![Action::Read]);
        let grant = Grant { collections, actions, filter, filter_params: Default::default() };
        Ok(Admitted { access: Access::of(vec![grant])?, expires_ms: None })
    }

    fn changed(&self, _: u64) -> Task<'static, u64> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn files_are_for_who_may_read_all_of_the_collection() {
    let device = hub_of_two_segments().await;
    let options = HubOptions { serves_files: true, ..HubOptions::default() };
    let hub = SyncHub::with_gate(device.db.clone(), options, Arc::new(Doorkeeper));
    let files = files_of(&device).await;
    let (path, len) = files.iter().find(|(_, len)| *len > 1).unwrap();
    let file = hub.file(Some("all"), path).await.unwrap();
    assert!(file.is_private());
    assert_eq!((file.len(), file.read(1, len - 1).await.unwrap().len() as u64), (*len, len - 1));
    assert_eq!(file.read(1, *len).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    for (token, path, kind) in [
        (None, path.as_str(), ErrorKind::Unauthorized),
        (Some("nobody"), path, ErrorKind::Unauthorized),
        (Some("some"), path, ErrorKind::Forbidden),
        (Some("all"), &path[1..], ErrorKind::NotFound),
        (Some("all"), &path.replacen('/', "//", 1), ErrorKind::NotFound),
        (Some("all"), "00000000/../LOCK", ErrorKind::NotFound),
        (Some("all"), "", ErrorKind::NotFound),
        (None, "", ErrorKind::Unauthorized),
    ] {
        assert_eq!(hub.file(token, path).await.err().map(|error| error.kind()), Some(kind), "{token:?} {path}");
    }
    // A client shows them the token that it shows the hub.
    let place = Place::of(hub.clone(), Trouble::Nothing);
    let a = Device::new().await;
    let session = a.db.sync_over_as(place.clone(), vec!["notes".to_owned()], Arc::new("all".to_owned())).unwrap();
    done(&session).await;
    assert_eq!((rows(&a.db).await, place.pieces()), (rows(&device.db).await, 0));
    // What was merged away is not there any more; who has begun to read it comes to its end.
    delete(&device.notes(), &[1]).await;
    device.db.compact("notes").await.unwrap();
    assert_eq!(hub.file(Some("all"), path).await.err().unwrap().kind(), ErrorKind::NotFound);
    assert_eq!(file.read(0, *len).await.unwrap().len() as u64, *len);
    converged(&device.db, &[&a.db], 1_999).await;
}
