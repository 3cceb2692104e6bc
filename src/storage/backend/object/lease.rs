use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion};
use serde::{Deserialize, Serialize};

use super::failed;
use crate::base::{Error, ErrorKind, Result};
use crate::storage::backend::claim::Claimant;

/// How long a lease holds that nobody renews.
const LEASE: Duration = if cfg!(test) { Duration::from_millis(900) } else { Duration::from_secs(10) };
/// The holder stops this much earlier: clocks of different machines run at slightly different speeds.
const MARGIN: Duration = LEASE.checked_div(10).expect("not by zero");
const RENEW_AFTER: Duration = LEASE.checked_div(3).expect("not by zero");
/// How long a store of this very process is waited for: what still works in the background on one that was dropped lets go of it in the end,
/// on a slow storage late.
const LETTING_GO: Duration = LEASE.saturating_mul(3);
const LOOK_AGAIN_AFTER: Duration = LEASE.checked_div(40).expect("not by zero");

/// What the lease object says, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// Counts the holders.
    fence: u64,
    /// Counts renewals, so that each one is another object to a conditional put.
    renewal: u64,
    /// Given up: free at once.
    released: bool,
    token: u64,
    pid: u32,
    started: u64,
    boot: u64,
    /// Whose process ids these are: containers on one machine have their own.
    namespace: String,
}

/// Processes that could be asked whether they live.
fn namespace() -> String {
    std::fs::read_link("/proc/self/ns/pid").map(|path| path.display().to_string()).unwrap_or_default()
}

impl Record {
    /// What this process can tell about the holder.
    fn holder(&self, own: &Self) -> Holder {
        if self.boot == 0 || self.namespace.is_empty() || (self.boot, &self.namespace) != (own.boot, &own.namespace) {
            return Holder::Unknown;
        }
        let claimant = Claimant { pid: self.pid, started: self.started, boot: self.boot, token: self.token };
        if (self.pid, self.started) == (own.pid, own.started) {
            let held = HELD.lock().unwrap_or_else(PoisonError::into_inner).contains(&self.token);
            if held { Holder::ThisProcess } else { Holder::Gone }
        } else if claimant.is_alive() {
            Holder::Alive
        } else {
            Holder::Gone
        }
    }
}

/// Who has a lease, as far as it can be told from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// A process that ended, or what this one has dropped.
    Gone,
    /// A store of this process: in use, or dropped without being closed and about to be let go of by what still works on it in the background.
    ThisProcess,
    /// Another process of this machine.
    Alive,
    /// On another machine.
    Unknown,
}

/// The tokens of the leases that this process holds.
static HELD: Mutex<BTreeSet<u64>> = Mutex::new(BTreeSet::new());

/// Until when a lease holds. A machine that sleeps stops the one clock, a clock that is set moves the other: both must agree.
#[derive(Debug, Clone, Copy)]
struct Validity {
    monotonic: Instant,
    wall: SystemTime,
}

impl Validity {
    fn now() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Whether a lease that was asked for then holds now.
    fn holds(self) -> bool {
        let bound = LEASE - MARGIN;
        self.monotonic.elapsed() < bound && self.wall.elapsed().is_ok_and(|since| since < bound)
    }
}

/// Ownership of a prefix: an object that its holder renews, each time by a conditional put on the version that it wrote before.
///
/// A newcomer takes the lease over when it was released, when its holder is a dead process of the same machine, or when it has
/// watched it stay the same for as long as it holds. The holder acknowledges nothing when its last renewal is older than that, and
/// cannot renew a lease that was taken over.
#[derive(Debug)]
pub(super) struct Lease {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// What is written, and its version.
    current: async_lock::Mutex<(Record, UpdateVersion)>,
    asked: Mutex<Validity>,
    lost: AtomicBool,
    held: Held,
}

/// A token that is among [`HELD`].
#[derive(Debug)]
struct Held(u64);

impl Held {
    fn new(token: u64) -> Self {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).insert(token);
        Self(token)
    }

    fn let_go(&self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Lease {
    /// Takes the lease, waiting for a holder that may be dead.
    pub(super) async fn take(store: Arc<dyn ObjectStore>, path: Path) -> Result<Arc<Self>> {
        let Claimant { pid, started, boot, token } = Claimant::this_process();
        let own = Record { fence: 0, renewal: 0, released: false, token, pid, started, boot, namespace: namespace() };
        Self::take_as(own, store, path).await
    }

    async fn take_as(own: Record, store: Arc<dyn ObjectStore>, path: Path) -> Result<Arc<Self>> {
        let begun = Instant::now();
        let mut seen: Option<(UpdateVersion, Instant)> = None;
        loop {
            let asked = Validity::now();
            let (before, mode) = match store.get(&path).await {
                Err(StoreError::NotFound { .. }) => (None, PutMode::Create),
                Err(error) => return Err(failed("read", path.as_ref(), &error)),
                Ok(found) => {
                    let version =
                        UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
                    let bytes = found.bytes().await.map_err(|error| failed("read", path.as_ref(), &error))?;
                    let record: Record = serde_json::from_slice(&bytes)
                        .map_err(|error| Error::corrupt(format!("{path}: no lease: {error}")))?;
                    let unchanged = seen.as_ref().map(|(before, since)| (*before == version, since.elapsed()));
                    match (record.holder(&own), unchanged) {
                        (Holder::Gone, _) => {}
                        _ if record.released => {}
                        (Holder::Unknown, Some((true, since))) if since >= LEASE => {}
                        (Holder::ThisProcess, _) if begun.elapsed() < LETTING_GO => {
                            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                            continue;
                        }
                        (Holder::ThisProcess | Holder::Alive, _) | (Holder::Unknown, Some((false, _))) => {
                            let message = format!("it is in use, by process {}: stop that first", record.pid);
                            return Err(Error::new(ErrorKind::Locked, message));
                        }
                        (Holder::Unknown, unchanged) => {
                            if unchanged.is_none() {
                                tracing::warn!(lease = %path, "another owner may be there: waiting {LEASE:?} for a sign of it");
                                seen = Some((version, Instant::now()));
                            }
                            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
                            continue;
                        }
                    }
                    (Some(record.fence), PutMode::Update(version))
                }
            };
            let record = Record { fence: before.unwrap_or(0) + 1, ..own.clone() };
            // Before it is written: a lease of this process is never seen without.
            let held = Held::new(record.token);
            match write(&*store, &path, &record, mode).await {
                Ok(version) => {
                    let lease = Arc::new(Self {
                        store,
                        path,
                        current: async_lock::Mutex::new((record, version)),
                        asked: Mutex::new(asked),
                        lost: AtomicBool::new(false),
                        held,
                    });
                    tokio::spawn(renew_while_held(Arc::downgrade(&lease)));
                    return Ok(lease);
                }
                // Someone else was faster, or this very put was tried twice: look again.
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
                Err(error) => return Err(failed("write", path.as_ref(), &error)),
            }
        }
    }

    /// Whether this is still the owner. Costs nothing while the lease is fresh.
    pub(super) async fn check(&self) -> Result<()> {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.lost.load(Ordering::Acquire) && asked.holds() { Ok(()) } else { self.renew().await }
    }

    /// Renews the lease; when that is done, nobody else had it in between.
    pub(super) async fn renew(&self) -> Result<()> {
        let mut current = self.current.lock().await;
        if self.lost.load(Ordering::Acquire) {
            return Err(self.lost());
        }
        let (record, version) = &mut *current;
        let next = Record { renewal: record.renewal + 1, ..record.clone() };
        let asked = Validity::now();
        let written = match write(&*self.store, &self.path, &next, PutMode::Update(version.clone())).await {
            // A put whose answer got lost is tried again, and then finds its own first try.
            Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => {
                match self.read_own(&next).await? {
                    Some(version) => version,
                    None => {
                        self.lost.store(true, Ordering::Release);
                        return Err(self.lost());
                    }
                }
            }
            Err(error) => return Err(failed("renew", self.path.as_ref(), &error)),
            Ok(version) => version,
        };
        *current = (next, written);
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        Ok(())
    }

    async fn read_own(&self, own: &Record) -> Result<Option<UpdateVersion>> {
        let io = |error: StoreError| failed("read", self.path.as_ref(), &error);
        let found = match self.store.get(&self.path).await {
            Err(StoreError::NotFound { .. }) => return Ok(None),
            found => found.map_err(io)?,
        };
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let record: Option<Record> = serde_json::from_slice(&found.bytes().await.map_err(io)?).ok();
        let is_own = record.is_some_and(|record| (record.token, record.renewal) == (own.token, own.renewal));
        Ok(is_own.then_some(version))
    }

    fn lost(&self) -> Error {
        let message =
            format!("{}: another owner has taken over: open the store again, once that one is gone", self.path);
        Error::new(ErrorKind::Locked, message)
    }

    /// Gives it up, so that the next owner need not wait. When that fails the next one waits.
    pub(super) async fn release(&self) {
        let current = self.current.lock().await;
        if !self.lost.swap(true, Ordering::AcqRel) {
            self.held.let_go();
            let (record, version) = &*current;
            let released = Record { released: true, renewal: record.renewal + 1, ..record.clone() };
            if let Err(error) = write(&*self.store, &self.path, &released, PutMode::Update(version.clone())).await {
                tracing::warn!(lease = %self.path, "not released: {error}");
            }
        }
    }
}

async fn renew_while_held(lease: Weak<Lease>) {
    loop {
        tokio::time::sleep(RENEW_AFTER).await;
        let Some(lease) = lease.upgrade() else { return };
        match lease.renew().await {
            Err(error) if error.kind() == ErrorKind::Locked => return,
            // Tried again by the next round, and by whoever wants to write.
            Err(error) => tracing::warn!("{error}"),
            Ok(()) => {}
        }
    }
}

async fn write(
    store: &dyn ObjectStore,
    path: &Path,
    record: &Record,
    mode: PutMode,
) -> Result<UpdateVersion, StoreError> {
    let bytes = serde_json::to_vec(record).expect("a lease is plain data");
    let options = PutOptions { mode, ..PutOptions::default() };
    let put = store.put_opts(path, bytes.into(), options).await?;
    Ok(UpdateVersion { e_tag: put.e_tag, version: put.version })
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    /// A process of a machine of its own: nobody else can tell whether it lives.
    fn elsewhere(token: u64) -> Record {
        let namespace = "elsewhere".to_owned();
        Record { fence: 0, renewal: 0, released: false, token, pid: 1, started: 1, boot: token, namespace }
    }

    fn kind<T>(result: Result<T>) -> ErrorKind {
        result.err().expect("an error").kind()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_lease_that_is_renewed_keeps_others_out_and_one_given_up_does_not() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let take = |token| Lease::take_as(elsewhere(token), store.clone(), Path::from("LEASE"));
        let holder = take(1).await.unwrap();
        assert_eq!(kind(take(2).await), ErrorKind::Locked);
        holder.check().await.unwrap();
        holder.release().await;
        assert_eq!(kind(holder.check().await), ErrorKind::Locked);
        let next = take(3).await.unwrap();
        assert_eq!(next.current.lock().await.0.fence, 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_that_slept_through_its_lease_is_replaced_and_learns_it() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let take = |token| Lease::take_as(elsewhere(token), store.clone(), Path::from("LEASE"));
        let slept = take(1).await.unwrap();
        // Held for good, so the task that renews waits: as in a machine that sleeps.
        let asleep = slept.current.lock().await;
        let started = Instant::now();
        let next = take(2).await.unwrap();
        assert!(started.elapsed() >= LEASE);
        next.check().await.unwrap();
        drop(asleep);
        assert_eq!(kind(slept.check().await), ErrorKind::Locked);
        assert_eq!(kind(slept.renew().await), ErrorKind::Locked);
        next.renew().await.unwrap();
        // One that nobody has taken in the meantime is renewed, however late.
        {
            let _asleep = next.current.lock().await;
            tokio::time::sleep(LEASE).await;
        }
        next.check().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_holder_on_this_machine_is_asked_for() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let Claimant { pid, boot, .. } = Claimant::this_process();
        let record = |pid, token| Record { pid, started: 0, boot, namespace: namespace(), ..elsewhere(token) };
        let take = |record| Lease::take_as(record, store.clone(), Path::from("LEASE"));
        let at = Instant::now();
        // The first process lives as long as the machine.
        let holder = take(record(1, 1)).await.unwrap();
        assert_eq!(kind(take(record(pid, 2)).await), ErrorKind::Locked);
        holder.release().await;
        // Past the largest process id of Linux.
        let path = Path::from("LEASE");
        write(&*store, &path, &record((1 << 22) + 1, 3), PutMode::Overwrite).await.unwrap();
        take(record(pid, 4)).await.unwrap();
        assert!(at.elapsed() < LEASE, "nobody waited");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_of_this_process_is_waited_for_until_it_is_let_go_of() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let take = || Lease::take(store.clone(), Path::from("LEASE"));
        let holder = take().await.unwrap();
        let (next, ()) = tokio::join!(take(), holder.release());
        // Dropped without a word, after it was renewed.
        let next = next.unwrap();
        let let_go = async move {
            while next.current.lock().await.0.renewal < 2 {
                tokio::time::sleep(LOOK_AGAIN_AFTER).await;
            }
        };
        let (last, ()) = tokio::join!(take(), let_go);
        last.as_ref().unwrap().check().await.unwrap();
        assert_eq!(kind(take().await), ErrorKind::Locked);
        last.unwrap().check().await.unwrap();
    }
}
