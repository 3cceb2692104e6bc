use std::collections::BTreeMap;
use std::future::poll_fn;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;

use bytes::Bytes;

use crate::base::{Error, ErrorKind, Random, Result};
use crate::platform::Task;
use crate::storage::name::{already_exists, check_range, closed, must_cut, not_found, too_short};
use crate::storage::{Entry, Storage, check_name};

/// What a crash of the machine keeps or loses as one piece of unsynced bytes.
const SECTOR_BYTES: usize = 512;

/// What a storage can be asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`Storage::list`].
    List,
    /// [`Storage::read`] and [`Storage::read_all`].
    Read,
    /// [`Storage::put`].
    Put,
    /// [`Storage::append`].
    Append,
    /// [`Storage::sync`].
    Sync,
    /// [`Storage::truncate`].
    Truncate,
    /// [`Storage::remove`].
    Remove,
}

/// A store in memory that fails and crashes by plan, and then has lost or garbled whatever the contract of [`Storage`] lets it
/// lose. Everything follows from the seed and the operations asked for, on every target. Clones are one handle.
///
/// Each operation lets other tasks run zero to two times before it acts, so that orders which real storage shows come up.
///
/// ```
/// # use eddydb::storage::{FaultStorage, Storage};
/// # async fn check() -> eddydb::base::Result<()> {
/// let storage = FaultStorage::new(7);
/// storage.append("log", "one".into()).await?;
/// storage.sync("log").await?;
/// storage.crash_after(1);
/// storage.append("log", "two".into()).await?; // runs, but is never synced
/// assert!(storage.sync("log").await.is_err());
/// let storage = storage.reopen(); // what a restarted process sees
/// assert!(storage.read_all("log").await?.starts_with(b"one"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FaultStorage {
    disk: Arc<Mutex<Disk>>,
    closed: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Disk {
    seed: u64,
    random: Random,
    objects: BTreeMap<String, Object>,
    /// Removed since the directory was last made durable: a crash may bring them back.
    removed: BTreeMap<String, Object>,
    owner: Weak<AtomicBool>,
    crashed: bool,
    operations: u64,
    history: Vec<(Operation, String)>,
    plan: Plan,
}

#[derive(Debug, Default)]
struct Plan {
    crash_at: Option<u64>,
    fail_at: BTreeMap<u64, ErrorKind>,
    fail_next: Vec<(Operation, ErrorKind)>,
    flip_from: Option<u64>,
    bytes_left: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Object {
    bytes: Vec<u8>,
    /// How much of `bytes` survives a crash of the machine.
    durable_len: usize,
    /// Whether the object's existence does.
    is_durable: bool,
    /// After a failure: what `truncate` must cut to before more is added.
    cut_to: Option<u64>,
    /// Whether a crash may find zeros behind it.
    has_room: bool,
}

/// What the plan says about one operation.
enum Fate {
    Runs,
    Fails(ErrorKind),
    Crashes,
}

impl FaultStorage {
    /// An empty store in which nothing fails until something is planned.
    pub fn new(seed: u64) -> Self {
        let closed = Arc::new(AtomicBool::new(false));
        let disk = Disk {
            seed,
            random: Random::new(seed),
            objects: BTreeMap::new(),
            removed: BTreeMap::new(),
            owner: Arc::downgrade(&closed),
            crashed: false,
            operations: 0,
            history: Vec::new(),
            plan: Plan::default(),
        };
        Self { disk: Arc::new(Mutex::new(disk)), closed }
    }

    /// Lets `operations` more run; the next one is cut off by a crash in its midst, and all later ones fail with `Io`.
    pub fn crash_after(&self, operations: u64) -> &Self {
        let mut disk = self.disk();
        disk.plan.crash_at = Some(disk.operations + operations);
        drop(disk);
        self
    }

    /// Crashes now.
    pub fn crash(&self) -> &Self {
        self.disk().crash();
        self
    }

    /// The `operation`-th operation from now (0 is the next) fails with `kind`, once; of an append, part of the bytes may
    /// have been written.
    pub fn fail_at(&self, operation: u64, kind: ErrorKind) -> &Self {
        let mut disk = self.disk();
        let at = disk.operations + operation;
        disk.plan.fail_at.insert(at, kind);
        drop(disk);
        self
    }

    /// The next operation of this sort fails with `kind`, once.
    pub fn fail_next(&self, operation: Operation, kind: ErrorKind) -> &Self {
        self.disk().plan.fail_next.push((operation, kind));
        self
    }

    /// The first read that returns bytes, from the `operation`-th operation on, has one bit wrong; what is stored stays right.
    pub fn flip_at(&self, operation: u64) -> &Self {
        let mut disk = self.disk();
        disk.plan.flip_from = Some(disk.operations + operation);
        drop(disk);
        self
    }

    /// Nothing that was planned comes any more, but that a full disk stays full.
    pub fn end_plans(&self) -> &Self {
        let mut disk = self.disk();
        disk.plan = Plan { bytes_left: disk.plan.bytes_left, ..Plan::default() };
        drop(disk);
        self
    }

    /// The disk has room for this many more bytes; `None` for any number. It stays full over [`Self::reopen`]; what
    /// `remove` and `truncate` free counts.
    pub fn set_room(&self, bytes: Option<u64>) -> &Self {
        self.disk().plan.bytes_left = bytes;
        self
    }

    /// Changes stored bytes behind the store's back, durably: corruption, a cut, a swapped file. Nothing happens when
    /// `name` is not there; tells whether it was.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut disk = self.disk();
        let Some(object) = disk.objects.get_mut(name) else { return false };
        change(&mut object.bytes);
        object.durable_len = object.bytes.len();
        true
    }

    /// How many operations were begun since this handle was opened, failed ones included.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// What was begun since this handle was opened, in order, with the names (a prefix for `list`).
    pub fn history(&self) -> Vec<(Operation, String)> {
        self.disk().history.clone()
    }

    /// Whether it has crashed.
    pub fn crashed(&self) -> bool {
        self.disk().crashed
    }

    /// The seed, for the message of a failing test.
    pub fn seed(&self) -> u64 {
        self.disk().seed
    }

    /// Kills this handle, if it has not crashed by plan, and opens what a restarted process sees. Plans end, but a full
    /// disk stays full.
    #[must_use]
    pub fn reopen(&self) -> Self {
        self.disk().crash();
        self.open_again().expect("a crashed handle owns nothing")
    }

    /// A copy of all that is there now, as a backup of the whole disk: another store, which fails by the same seed.
    #[must_use]
    pub fn backup(&self) -> Self {
        let disk = self.disk();
        let copied = |(name, object): (&String, &Object)| {
            let (bytes, durable_len) = (object.bytes.clone(), object.bytes.len());
            (name.clone(), Object { bytes, durable_len, is_durable: true, ..Object::default() })
        };
        let copy = Self::new(disk.seed.wrapping_add(disk.operations));
        copy.disk().objects.extend(disk.objects.iter().map(copied));
        copy
    }

    /// Opens what is there, as a second process would.
    ///
    /// # Errors
    /// `Locked` while the owner is neither closed, dropped nor crashed.
    pub fn open_again(&self) -> Result<Self> {
        let mut disk = self.disk();
        if !disk.crashed && disk.owner.upgrade().is_some_and(|closed| !closed.load(Ordering::Acquire)) {
            return Err(Error::new(ErrorKind::Locked, "this store is open already: close, drop or crash it"));
        }
        let closed = Arc::new(AtomicBool::new(false));
        disk.owner = Arc::downgrade(&closed);
        disk.crashed = false;
        disk.operations = 0;
        disk.history.clear();
        disk.plan = Plan { bytes_left: disk.plan.bytes_left, ..Plan::default() };
        for object in disk.objects.values_mut() {
            object.cut_to = None;
        }
        Ok(Self { disk: self.disk.clone(), closed })
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // `tamper` runs a caller's closure under the lock; if that panics, the bytes are whatever it made of them.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation: lets other tasks run, counts it and asks the plan.
    async fn begin(&self, operation: Operation, name: &str) -> Result<(MutexGuard<'_, Disk>, Fate)> {
        let mut yields = self.disk().random.below(3);
        poll_fn(|context| {
            if yields == 0 {
                return Poll::Ready(());
            }
            yields -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        if operation != Operation::List {
            check_name(name)?;
        }
        let mut disk = self.disk();
        if self.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        // A handle that was reopened over is dead, as its process would be.
        if disk.crashed || !std::ptr::eq(disk.owner.as_ptr(), Arc::as_ptr(&self.closed)) {
            return Err(crashed());
        }
        let fate = disk.fate(operation, name);
        Ok((disk, fate))
    }
}

impl Disk {
    fn fate(&mut self, operation: Operation, name: &str) -> Fate {
        let at = self.operations;
        self.operations += 1;
        self.history.push((operation, name.to_owned()));
        if self.plan.crash_at.is_some_and(|crash_at| at >= crash_at) {
            return Fate::Crashes;
        }
        if let Some(kind) = self.plan.fail_at.remove(&at) {
            return Fate::Fails(kind);
        }
        match self.plan.fail_next.iter().position(|(planned, _)| *planned == operation) {
            Some(position) => Fate::Fails(self.plan.fail_next.remove(position).1),
            None => Fate::Runs,
        }
    }

    /// Takes room for `bytes`; tells how many of them fit.
    fn take_room(&mut self, bytes: usize) -> usize {
        let Some(left) = self.plan.bytes_left.as_mut() else { return bytes };
        let fits = bytes.min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= fits as u64;
        fits
    }

    fn free_room(&mut self, bytes: usize) {
        if let Some(left) = self.plan.bytes_left.as_mut() {
            *left = left.saturating_add(bytes as u64);
        }
    }

    /// Every directory operation before this one is durable too, as on file systems with ordered metadata.
    fn make_directory_durable(&mut self) {
        self.removed.clear();
    }

    fn crash(&mut self) {
        if self.crashed {
            return;
        }
        self.crashed = true;
        self.lose();
        for object in self.objects.values_mut() {
            if std::mem::take(&mut object.has_room) {
                let room = self.random.below(3) as usize * SECTOR_BYTES;
                object.bytes.resize(object.bytes.len() + room, 0);
                object.durable_len = object.bytes.len();
            }
        }
    }

    /// What a crash takes of what was not made durable.
    fn lose(&mut self) {
        // One crash in four kills the process only: the host keeps what it was given, durable or not.
        if self.random.below(4) == 0 {
            return;
        }
        for (name, object) in std::mem::take(&mut self.removed) {
            if self.random.below(2) == 0 {
                self.objects.entry(name).or_insert(object);
            }
        }
        let random = &mut self.random;
        self.objects.retain(|_, object| {
            if !object.is_durable && random.below(3) == 0 {
                return false;
            }
            lose_unsynced(&mut object.bytes, object.durable_len, random);
            object.durable_len = object.bytes.len();
            object.is_durable = true;
            true
        });
    }
}

/// What a crash of the machine makes of the bytes from `durable_len` on.
fn lose_unsynced(bytes: &mut Vec<u8>, durable_len: usize, random: &mut Random) {
    let unsynced = bytes.len() - durable_len;
    if unsynced == 0 {
        return;
    }
    match random.below(4) {
        0 => bytes.truncate(durable_len),
        1 => bytes.truncate(durable_len + random.below(unsynced as u64 + 1) as usize),
        2 => {}
        // The length was written before the bytes: sectors are there, zero or old garbage, in any order.
        _ => {
            bytes.truncate(durable_len + random.below(unsynced as u64 + 1) as usize);
            for sector in bytes[durable_len..].chunks_mut(SECTOR_BYTES) {
                match random.below(3) {
                    0 => {}
                    1 => sector.fill(0),
                    _ => sector.fill_with(|| random.next_u64() as u8),
                }
            }
        }
    }
}

fn crashed() -> Error {
    Error::new(ErrorKind::Io, "the storage has crashed, by plan")
}

fn planned(kind: ErrorKind, operation: &str, name: &str) -> Error {
    Error::new(kind, format!("{operation} {name}: failed, by plan"))
}

impl Storage for FaultStorage {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>> {
        Box::pin(async move {
            let (mut disk, fate) = self.begin(Operation::List, prefix).await?;
            match fate {
                Fate::Runs => {
                    let from_prefix = disk.objects.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
                    let entries = from_prefix.take_while(|(name, _)| name.starts_with(prefix));
                    Ok(entries
                        .map(|(name, object)| Entry { name: name.clone(), len: object.bytes.len() as u64 })
                        .collect())
                }
                Fate::Fails(kind) => Err(planned(kind, "list", prefix)),
                Fate::Crashes => {
                    disk.crash();
                    Err(crashed())
                }
            }
        })
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>> {
        Box::pin(self.read_range(name, Some((offset, len))))
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>> {
        Box::pin(self.read_range(name, None))
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(async move {
            let (mut disk, fate) = self.begin(Operation::Put, name).await?;
            if disk.objects.contains_key(name) {
                return Err(already_exists(name));
            }
            match fate {
                Fate::Runs => {
                    let fits = disk.take_room(bytes.len());
                    if fits < bytes.len() {
                        disk.free_room(fits);
                        return Err(Error::new(ErrorKind::StorageFull, format!("put {name}: no room, by plan")));
                    }
                    let object =
                        Object { durable_len: bytes.len(), is_durable: true, bytes: bytes.into(), ..Object::default() };
                    disk.objects.insert(name.to_owned(), object);
                    disk.make_directory_durable();
                    Ok(())
                }
                Fate::Fails(kind) => Err(planned(kind, "put", name)),
                Fate::Crashes => {
                    // Nothing, or an object that holds all, part or none of the bytes.
                    if disk.random.below(3) != 0 {
                        let written = disk.random.below(bytes.len() as u64 + 1) as usize;
                        let object = Object { bytes: bytes[..written].to_vec(), ..Object::default() };
                        disk.objects.insert(name.to_owned(), object);
                    }
                    disk.crash();
                    Err(crashed())
                }
            }
        })
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(async move {
            let (mut disk, fate) = self.begin(Operation::Append, name).await?;
            if let Some(len) = disk.objects.get(name).and_then(|object| object.cut_to) {
                return Err(must_cut(name, len));
            }
            let (written, failure) = match fate {
                Fate::Runs => {
                    let fits = disk.take_room(bytes.len());
                    let full = || Error::new(ErrorKind::StorageFull, format!("append {name}: no room, by plan"));
                    (fits, (fits < bytes.len()).then(full))
                }
                Fate::Fails(kind) => {
                    let part = disk.random.below(bytes.len() as u64 + 1) as usize;
                    (disk.take_room(part), Some(planned(kind, "append", name)))
                }
                Fate::Crashes => (disk.random.below(bytes.len() as u64 + 1) as usize, Some(crashed())),
            };
            let object = disk.objects.entry(name.to_owned()).or_default();
            let len_before = object.bytes.len() as u64;
            object.bytes.extend_from_slice(&bytes[..written]);
            let Some(failure) = failure else { return Ok(()) };
            object.cut_to = Some(len_before);
            if matches!(fate, Fate::Crashes) {
                disk.crash();
            }
            Err(failure)
        })
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(async move {
            let (mut disk, fate) = self.begin(Operation::Sync, name).await?;
            let done_before_the_crash = disk.random.below(2) == 0;
            let object = disk.objects.get_mut(name).ok_or_else(|| not_found(name))?;
            if let Some(len) = object.cut_to {
                return Err(must_cut(name, len));
            }
            if let Fate::Fails(kind) = fate {
                object.cut_to = Some(object.durable_len as u64);
                return Err(planned(kind, "sync", name));
            }
            if matches!(fate, Fate::Runs) || done_before_the_crash {
                object.durable_len = object.bytes.len();
                if !std::mem::replace(&mut object.is_durable, true) {
                    disk.make_directory_durable();
                }
            }
            if matches!(fate, Fate::Crashes) {
                disk.crash();
                return Err(crashed());
            }
            Ok(())
        })
    }

    fn append_and_sync<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<Result<()>>> {
        Box::pin(async move {
            self.append(name, bytes).await?;
            if let Some(object) = self.disk().objects.get_mut(name) {
                object.has_room = true;
            }
            Ok(self.sync(name).await)
        })
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>> {
        Box::pin(async move {
            let (mut disk, fate) = self.begin(Operation::Truncate, name).await?;
            let done_anyway = disk.random.below(2) == 0;
            let object = disk.objects.get_mut(name).ok_or_else(|| not_found(name))?;
            let len_before = object.bytes.len();
            if len > len_before as u64 {
                return Err(too_short(name, len, len_before as u64));
            }
            let len = len as usize;
            if matches!(fate, Fate::Runs) || done_anyway {
                object.bytes.truncate(len);
                object.durable_len = object.durable_len.min(len);
            }
            match fate {
                Fate::Runs => {
                    object.has_room = false;
                    object.cut_to = object.cut_to.filter(|cut_to| *cut_to < len as u64);
                    if object.cut_to.is_none() {
                        object.durable_len = len;
                        object.is_durable = true;
                    }
                    disk.free_room(len_before - len);
                    Ok(())
                }
                Fate::Fails(kind) => {
                    object.cut_to = Some(object.cut_to.unwrap_or(u64::MAX).min(len as u64));
                    Err(planned(kind, "truncate", name))
                }
                Fate::Crashes => {
                    disk.crash();
                    Err(crashed())
                }
            }
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(async move {
            let (mut disk, fate) = self.begin(Operation::Remove, name).await?;
            let done_anyway = disk.random.below(2) == 0;
            if (matches!(fate, Fate::Runs) || done_anyway)
                && let Some(object) = disk.objects.remove(name)
            {
                disk.free_room(object.bytes.len());
                if object.is_durable {
                    disk.removed.insert(name.to_owned(), object);
                }
            }
            match fate {
                Fate::Runs => Ok(()),
                Fate::Fails(kind) => Err(planned(kind, "remove", name)),
                Fate::Crashes => {
                    disk.crash();
                    Err(crashed())
                }
            }
        })
    }

    fn close(&self) -> Task<'_, Result<()>> {
        Box::pin(async move {
            self.closed.store(true, Ordering::Release);
            Ok(())
        })
    }
}

impl FaultStorage {
    async fn read_range(&self, name: &str, range: Option<(u64, u64)>) -> Result<Bytes> {
        let (mut disk, fate) = self.begin(Operation::Read, name).await?;
        match fate {
            Fate::Runs => {}
            Fate::Fails(kind) => return Err(planned(kind, "read", name)),
            Fate::Crashes => {
                disk.crash();
                return Err(crashed());
            }
        }
        let object = disk.objects.get(name).ok_or_else(|| not_found(name))?;
        let total = object.bytes.len() as u64;
        let (offset, len) = range.unwrap_or((0, total));
        let range = check_range(name, offset, len, total)?;
        let mut bytes = object.bytes[range.start as usize..range.end as usize].to_vec();
        if !bytes.is_empty() && disk.plan.flip_from.is_some_and(|from| disk.operations > from) {
            disk.plan.flip_from = None;
            let bit = disk.random.below(bytes.len() as u64 * 8);
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        Ok(bytes.into())
    }
}

#[cfg(all(test, native))]
mod tests {
    use super::*;
    use crate::platform::block_on;

    /// What a process knows: what it was told is durable, what may be there beyond that, per name.
    #[derive(Default, Clone, Debug)]
    struct Known {
        acknowledged: Vec<u8>,
        exists_for_certain: bool,
    }

    async fn write(storage: &FaultStorage, known: &mut BTreeMap<&'static str, Known>) -> Result<()> {
        for round in 0..6u8 {
            for name in ["log", "log/2"] {
                let bytes = vec![round + 1; 700];
                storage.append(name, bytes.clone().into()).await?;
                storage.append(name, bytes.clone().into()).await?;
                storage.sync(name).await?;
                let known = known.entry(name).or_default();
                known.acknowledged.extend_from_slice(&bytes);
                known.acknowledged.extend_from_slice(&bytes);
                known.exists_for_certain = true;
            }
            let name = ["p0", "p1", "p2", "p3", "p4", "p5"][usize::from(round)];
            storage.put(name, vec![round; 999].into()).await?;
            known.insert(name, Known { acknowledged: vec![round; 999], exists_for_certain: true });
        }
        Ok(())
    }

    #[test]
    fn a_crash_at_any_operation_keeps_what_was_acknowledged() {
        let whole = FaultStorage::new(0);
        block_on(write(&whole, &mut BTreeMap::new())).unwrap();
        let operations = whole.operations();
        let mut endings = std::collections::BTreeSet::new();
        for seed in 0..20 {
            for crash_after in 0..=operations {
                let storage = FaultStorage::new(seed);
                storage.crash_after(crash_after);
                let mut known = BTreeMap::new();
                let written = block_on(write(&storage, &mut known));
                assert_eq!(written.is_ok(), crash_after == operations, "seed {seed}, crash after {crash_after}");
                assert_eq!(storage.crashed(), written.is_err());
                let storage = storage.reopen();
                for (name, known) in &known {
                    let read = block_on(storage.read_all(name)).unwrap();
                    assert!(
                        read.starts_with(&known.acknowledged),
                        "seed {seed}, crash after {crash_after}: {name} lost what was acknowledged"
                    );
                    endings.insert(read.len() - known.acknowledged.len());
                }
            }
        }
        assert!(endings.len() > 20, "tails of {} lengths only: {endings:?}", endings.len());
    }

    #[test]
    fn unsynced_bytes_are_kept_lost_and_garbled_by_seed() {
        let (mut absent, mut lost, mut part, mut kept, mut garbled) = (0, 0, 0, 0, 0);
        for seed in 0..200 {
            let storage = FaultStorage::new(seed);
            block_on(storage.append("log", vec![7; 2_000].into())).unwrap();
            match block_on(storage.reopen().read_all("log")) {
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound);
                    absent += 1;
                }
                Ok(read) if read.iter().any(|byte| *byte != 7) => garbled += 1,
                Ok(read) if read.is_empty() => lost += 1,
                Ok(read) if read.len() < 2_000 => part += 1,
                Ok(_) => kept += 1,
            }
        }
        for count in [absent, lost, part, kept, garbled] {
            assert!(count >= 10, "{absent} absent, {lost} lost, {part} part, {kept} kept, {garbled} garbled");
        }
    }

    #[test]
    fn what_a_killed_process_left_may_go_at_the_next_crash() {
        let survived_then_lost = (0..400).any(|seed| {
            let storage = FaultStorage::new(seed);
            block_on(storage.append("log", vec![7; 2_000].into())).unwrap();
            let storage = storage.reopen();
            if !block_on(storage.read_all("log")).is_ok_and(|read| read == vec![7; 2_000]) {
                return false;
            }
            !block_on(storage.reopen().read_all("log")).is_ok_and(|read| read == vec![7; 2_000])
        });
        assert!(survived_then_lost);
        for seed in 0..100 {
            let storage = FaultStorage::new(seed);
            block_on(storage.append("log", vec![7; 2_000].into())).unwrap();
            let storage = storage.reopen();
            if block_on(storage.sync("log")).is_ok() {
                let read = block_on(storage.read_all("log")).unwrap();
                assert_eq!(block_on(storage.reopen().read_all("log")).unwrap(), read, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_failure_is_cut_before_more_is_added() {
        let storage = FaultStorage::new(3);
        block_on(async {
            storage.append("log", vec![1; 100].into()).await.unwrap();
            storage.sync("log").await.unwrap();
            storage.append("log", vec![2; 100].into()).await.unwrap();

            storage.fail_next(Operation::Append, ErrorKind::Io);
            assert_eq!(storage.append("log", vec![3; 1_000].into()).await.unwrap_err().kind(), ErrorKind::Io);
            assert!(storage.append("log", vec![4; 1].into()).await.unwrap_err().message().contains("cut it to 200"));
            assert!(storage.sync("log").await.unwrap_err().message().contains("cut it to 200"));
            storage.truncate("log", 200).await.unwrap();
            storage.append("log", vec![4; 1].into()).await.unwrap();

            storage.fail_next(Operation::Sync, ErrorKind::Io);
            assert_eq!(storage.sync("log").await.unwrap_err().kind(), ErrorKind::Io);
            storage.truncate("log", 201).await.unwrap();
            assert!(storage.sync("log").await.unwrap_err().message().contains("cut it to 200"));
            storage.truncate("log", 200).await.unwrap();
            storage.sync("log").await.unwrap();
            assert_eq!(storage.read_all("log").await.unwrap(), [vec![1; 100], vec![2; 100]].concat());
        });
    }

    #[test]
    fn a_full_disk_takes_part_of_an_append_and_nothing_of_a_put() {
        let storage = FaultStorage::new(4);
        block_on(async {
            storage.append("log", vec![1; 100].into()).await.unwrap();
            storage.set_room(Some(50));
            assert_eq!(storage.put("a", vec![0; 51].into()).await.unwrap_err().kind(), ErrorKind::StorageFull);
            assert_eq!(storage.list("a").await.unwrap(), []);
            assert_eq!(storage.append("log", vec![2; 51].into()).await.unwrap_err().kind(), ErrorKind::StorageFull);
            assert_eq!(storage.read_all("log").await.unwrap().len(), 150);
            storage.truncate("log", 100).await.unwrap();
            let storage = storage.reopen();
            storage.put("a", vec![0; 50].into()).await.unwrap();
            assert_eq!(storage.put("b", vec![0; 1].into()).await.unwrap_err().kind(), ErrorKind::StorageFull);
            storage.remove("a").await.unwrap();
            storage.put("b", vec![0; 1].into()).await.unwrap();
            storage.set_room(None);
            storage.put("c", vec![0; 1 << 16].into()).await.unwrap();
        });
    }

    #[test]
    fn flips_tampering_planned_failures_and_history() {
        let storage = FaultStorage::new(5);
        block_on(async {
            storage.put("a", vec![0; 64].into()).await.unwrap();
            storage.flip_at(1);
            assert_eq!(storage.read_all("a").await.unwrap(), vec![0; 64]);
            let flipped = storage.read("a", 8, 16).await.unwrap();
            assert_eq!(flipped.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
            assert_eq!(storage.read_all("a").await.unwrap(), vec![0; 64]);

            assert!(storage.tamper("a", |bytes| bytes.truncate(3)));
            assert!(!storage.tamper("b", Vec::clear));
            assert_eq!(storage.read_all("a").await.unwrap(), vec![0; 3]);

            storage.fail_at(1, ErrorKind::Unavailable);
            storage.list("").await.unwrap();
            assert_eq!(storage.list("").await.unwrap_err().kind(), ErrorKind::Unavailable);
            storage.list("").await.unwrap();
            assert_eq!(storage.operations(), 8);
            assert_eq!(storage.history()[0], (Operation::Put, "a".to_owned()));
            assert_eq!(storage.history()[7], (Operation::List, String::new()));
        });
    }

    #[test]
    fn a_handle_that_was_reopened_over_is_dead() {
        let storage = FaultStorage::new(6);
        assert_eq!(storage.open_again().unwrap_err().kind(), ErrorKind::Locked);
        let next = storage.reopen();
        block_on(async {
            assert_eq!(storage.list("").await.unwrap_err().kind(), ErrorKind::Io);
            storage.close().await.unwrap();
            assert_eq!(storage.list("").await.unwrap_err().kind(), ErrorKind::Closed);
            assert_eq!(next.list("").await.unwrap(), []);
        });
    }

    #[test]
    fn the_seed_and_the_operations_decide_everything() {
        let run = || {
            let storage = FaultStorage::new(8);
            storage.crash_after(11);
            let _ = block_on(write(&storage, &mut BTreeMap::new()));
            let storage = storage.reopen();
            block_on(async {
                let mut found = Vec::new();
                for entry in storage.list("").await.unwrap() {
                    found.push((entry.name.clone(), storage.read_all(&entry.name).await.unwrap()));
                }
                found
            })
        };
        assert_eq!(run(), run());
    }
}
