use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use super::watch::Watch;
use crate::base::ReplicaId;
use crate::platform::{Task, now_us};
use crate::sync::{Channel, Client};

/// Why something that was waited for is looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::db) enum Wake {
    /// It may have come.
    Again,
    /// It is too late.
    Timer,
}

/// The sync sessions of a store that run or are paused, for reads that must see what their hubs have.
#[derive(Default)]
pub(in crate::db) struct Syncs {
    sessions: Mutex<Vec<(Vec<String>, Weak<Session>)>>,
    last: AtomicU64,
    /// How many collections were made since the store was opened.
    pub(super) made: Watch<u64>,
    /// Whether a hub serves the store, or has.
    pub(in crate::db) is_hub: AtomicBool,
}

impl Syncs {
    /// A collection is there now.
    pub(in crate::db) fn note_made(&self) {
        self.made.update(|made| *made += 1);
    }

    /// Notes a session, which lasts as long as what is given.
    pub(super) fn begin(&self, url: Option<&str>, names: &[String]) -> Arc<Session> {
        let url = url.unwrap_or(NAMELESS).to_owned();
        let hub = Known { url, hub: None, reached: vec![0; names.len()], amid: vec![false; names.len()] };
        let session = Session { known: Watch::new(hub), wanted: Watch::new(0) };
        let session = Arc::new(session);
        let mut sessions = self.sessions.lock().expect("no panic while held");
        sessions.retain(|(_, session)| session.strong_count() > 0);
        sessions.push((names.to_vec(), Arc::downgrade(&session)));
        session
    }

    /// Those that a collection is in.
    pub(in crate::db) fn of(&self, name: &str) -> Vec<Told> {
        let sessions = self.sessions.lock().expect("no panic while held");
        let told = |(names, session): &(Vec<String>, Weak<Session>)| {
            let channel = names.iter().position(|other| other == name)?;
            Some(Told { session: session.upgrade()?, channel })
        };
        sessions.iter().filter_map(told).collect()
    }

    /// A moment: the microseconds of a clock that nobody sets, but never the same ones twice.
    pub(in crate::db) fn mark(&self) -> u64 {
        let now = now_us();
        let next = |last: u64| Some((last + 1).max(now));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_else(|last| last);
        (last + 1).max(now)
    }
}

/// A hub that has no URL.
const NAMELESS: &str = "at the other end";

/// What is known of the hub of one session.
pub(super) struct Session {
    known: Watch<Known>,
    /// The moment for which the hub is to be asked.
    wanted: Watch<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    url: String,
    hub: Option<ReplicaId>,
    /// By collection: the moment of which everything is here that this hub had.
    reached: Vec<u64>,
    /// Whether something came, and more is to come with it.
    amid: Vec<bool>,
}

impl Session {
    /// The moment for which the hub is to be asked, and the version of that wish.
    pub(super) fn wanted(&self) -> (u64, u64) {
        self.wanted.get()
    }

    /// The next such wish.
    pub(super) async fn wanted_after(&self, version: u64) -> u64 {
        self.wanted.after(version).await.1
    }

    /// Takes what the client's end of a connection knows.
    pub(super) fn learn(&self, client: &Client, url: Option<&str>) {
        let mut known = self.known.get().0;
        if client.hub().is_some() && client.hub() != known.hub {
            // What another one had says nothing of what this one has.
            known.reached.fill(0);
            known.hub = client.hub();
            known.url = url.unwrap_or(NAMELESS).to_owned();
        }
        for (index, reached) in known.reached.iter_mut().enumerate() {
            let channel = Channel(index as u32);
            *reached = client.reached(channel).max(*reached);
            known.amid[index] = client.is_amid(channel);
        }
        self.known.set(known);
    }
}

/// What a session tells of one collection.
pub(in crate::db) struct Told {
    session: Arc<Session>,
    channel: usize,
}

impl Told {
    /// The other end.
    pub(in crate::db) fn url(&self) -> String {
        self.session.known.get().0.url
    }

    /// The hub, once it was met.
    pub(in crate::db) fn hub(&self) -> Option<ReplicaId> {
        self.session.known.get().0.hub
    }

    /// Whether everything is here that the hub had at that moment.
    pub(in crate::db) fn reached(&self, mark: u64) -> bool {
        self.session.known.get().0.reached[self.channel] >= mark
    }

    /// Whether changes came, and others that belong to them are on their way.
    pub(in crate::db) fn is_amid(&self) -> bool {
        self.session.known.get().0.amid[self.channel]
    }

    /// Has the hub asked what it has at that moment.
    pub(in crate::db) fn ask(&self, mark: u64) {
        self.session.wanted.update(|wanted| *wanted = mark.max(*wanted));
    }

    /// Counts the changes of what it tells.
    pub(in crate::db) fn version(&self) -> u64 {
        self.session.known.get().1
    }

    /// The next change.
    pub(in crate::db) fn changed(&self, version: u64) -> Task<'static, Wake> {
        let session = self.session.clone();
        Box::pin(async move {
            session.known.after(version).await;
            Wake::Again
        })
    }
}
