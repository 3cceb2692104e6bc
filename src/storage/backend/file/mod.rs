#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this backend is where bytes meet the file system"
)]

mod room;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LockResult, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use self::room::{Maker, Room};
use super::claim::Claim;
use crate::base::{Error, ErrorKind, Result};
use crate::platform::{Task, blocking};
use crate::storage::name::{
    already_exists, check_range, closed, from_file_name, must_cut, not_found, to_file_name, too_short,
};
use crate::storage::{Entry, Storage, check_name};

// Names of objects have no capitals, so neither of these can be one.
const LOCK_FILE: &str = "LOCK";
const TEMPORARY_PREFIX: &str = "TMP-";

/// How many files that were appended to stay open. A store appends to one log per collection; those beyond this many pay
/// an `open` per append.
const OPEN_FILES_MAX: usize = 64;

/// A store in a directory of the file system, one file an object, `/` in names written as `~`.
///
/// `put` writes a temporary file, syncs it, links it under its name (which fails when the name is taken) and syncs the directory:
/// whole or absent, whatever happens. `sync` is `fdatasync`, and `fsync` of the directory once per object.
///
/// Who appends and syncs again and again (a log) gets **room in advance**: zeros behind what was appended, written and synced by another
/// thread while the disk would be idle. The next ones take their place, and the file system has no new length and no new blocks to note in
/// its journal, which takes it as long again as 100 kB. Readers are told the length without them; they go when the object is let go of, and
/// a crash leaves them.
///
/// The owner holds an advisory lock on the file `LOCK`, which the operating system drops with the process, and a claim: a file
/// `.lock.PID-STARTED-BOOT-TOKEN`, as processes of Node leave one, which cannot lock. Where the lock means nothing (some network file
/// systems, a machine that slept through its lease), whoever takes over removes the claim; this one then acknowledges nothing any
/// more, and fails with `Locked`.
#[derive(Debug)]
pub struct FileStorage {
    directory: PathBuf,
    /// Operations hold it for reading while they run, so `close` waits for them before it unlocks.
    open: RwLock<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    /// Held until this is dropped.
    lock: Lock,
    /// Objects that were appended to, synced or cut. Never locked while an `Object` is, except to try.
    objects: Mutex<HashMap<String, Arc<Shared>>>,
    temporary_count: AtomicU64,
    maker: Maker,
}

#[derive(Debug)]
struct Shared {
    object: Mutex<Object>,
    /// What readers are told the length is at most: the file may be longer by its room.
    len_max: AtomicU64,
}

#[derive(Debug, Default)]
struct Object {
    file: Option<OpenFile>,
    /// After a failure: what `truncate` must cut to before more is added.
    cut_to: Option<u64>,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// Of what was appended.
    len: u64,
    room: Room,
    /// The length last synced, or found at opening.
    synced_len: u64,
    /// Whether the directory was synced since this owner may have created the file.
    entry_is_synced: bool,
}

impl FileStorage {
    /// Opens the store in `directory`, which is created when it is not there, and removes what unfinished writes left.
    ///
    /// # Errors
    /// `Locked` when a process (this one too) has it open: the message names the directory and, where known, the process.
    /// `Io` when the directory cannot be created, read or locked.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref().to_owned();
        blocking(|| {
            create_directory(&directory).map_err(|error| failed(&directory, "create the data directory", &error))?;
            let lock = lock(&directory)?;
            sweep(&directory).map_err(|error| failed(&directory, "remove unfinished files", &error))?;
            let open =
                Open { lock, objects: Mutex::default(), temporary_count: AtomicU64::new(0), maker: Maker::default() };
            Ok(Self { directory, open: RwLock::new(Some(open)) })
        })
    }

    /// The directory as it was given.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs `call`, which changes what is stored, while the store is ours; what it did counts only when the store still is afterwards.
    fn change<T>(&self, call: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        self.run(|open| {
            self.check_owner(open)?;
            let done = call(open);
            // A failure of its own says more, unless it comes from what the new owner did.
            self.check_owner(open)?;
            done
        })
    }

    fn check_owner(&self, open: &Open) -> Result<()> {
        match open.lock.claim.is_held() {
            Ok(true) => Ok(()),
            // The claim went with everything else.
            Ok(false) if !self.directory.is_dir() => {
                Err(failed(&self.directory, "find the data directory", &io::ErrorKind::NotFound.into()))
            }
            Ok(false) => {
                let directory = self.directory.display();
                let message = format!("another owner has taken over {directory}: open it again, once that one is gone");
                Err(Error::new(ErrorKind::Locked, message))
            }
            Err(error) => Err(failed(&self.directory, "look for the claim", &error)),
        }
    }

    /// Runs `call` on the open store, where it may block.
    fn run<T>(&self, call: impl FnOnce(&Open) -> Result<T>) -> Result<T> {
        blocking(|| {
            // A panic inside leaves at worst an object that has to be cut; what is on disk speaks for itself.
            let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
            call(open.as_ref().ok_or_else(closed)?)
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(to_file_name(name))
    }

    fn failed(&self, operation: &str, name: &str, error: &io::Error) -> Error {
        failed(&self.directory, &format!("{operation} {name}"), error)
    }

    fn list_now(&self, open: &Open, prefix: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(from_file_name) else { continue };
            if !name.starts_with(prefix) {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) if metadata.is_file() => {
                    let len = metadata.len().min(open.len_max(&name));
                    entries.push(Entry { name, len });
                }
                Ok(_) => {}
                // Removed while we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort();
        Ok(entries)
    }

    /// The range, or the whole with `None`.
    fn read_now(&self, open: &Open, name: &str, range: Option<(u64, u64)>) -> Result<Bytes> {
        let io = |error: &io::Error| self.failed("read", name, error);
        let mut file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_found(name)),
            Err(error) => return Err(io(&error)),
        };
        let total = file.metadata().map_err(|error| io(&error))?.len().min(open.len_max(name));
        let (offset, len) = range.unwrap_or((0, total));
        check_range(name, offset, len, total)?;
        if offset > 0 {
            file.seek(SeekFrom::Start(offset)).map_err(|error| io(&error))?;
        }
        let mut bytes = Vec::with_capacity(len as usize);
        file.take(len).read_to_end(&mut bytes).map_err(|error| io(&error))?;
        // Cut by another process between the two looks at it.
        check_range(name, 0, len, bytes.len() as u64)?;
        Ok(bytes.into())
    }

    fn put_now(&self, open: &Open, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        if path.exists() {
            return Err(already_exists(name));
        }
        let number = open.temporary_count.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!("{TEMPORARY_PREFIX}{number}"));
        let written = write_new(&temporary, bytes).and_then(|()| link_new(&temporary, &path));
        // Left behind by a failure here or a crash above, it is swept at the next open.
        let _ = fs::remove_file(&temporary);
        let synced = written.and_then(|()| {
            sync_directory(&self.directory).inspect_err(|_| {
                let _ = fs::remove_file(&path);
            })
        });
        synced.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => already_exists(name),
            _ => self.failed("put", name, &error),
        })
    }

    fn append_now(&self, object: &mut Object, name: &str, bytes: &[u8]) -> Result<()> {
        if let Some(len) = object.cut_to {
            return Err(must_cut(name, len));
        }
        let io = |error: &io::Error| self.failed("append", name, error);
        let open_file = self.open_file(object, name, true).map_err(|error| io(&error))?;
        match open_file.write(bytes) {
            Ok(()) => Ok(()),
            Err(error) => {
                object.cut_to = Some(open_file.len);
                Err(io(&error))
            }
        }
    }

    fn append_and_sync_now(
        &self,
        open: &Open,
        (object, shared): (&mut Object, &Shared),
        name: &str,
        bytes: &[u8],
    ) -> Result<Result<()>> {
        self.append_now(object, name, bytes)?;
        let synced = self.sync_now(object, name);
        if let Some(OpenFile { len, room, .. }) = &mut object.file
            && synced.is_ok()
            && room.is_wanted(bytes.len(), *len)
        {
            // Before the file grows by it.
            shared.len_max.store(*len, Ordering::Release);
            room.make(&self.path(name), bytes.len(), &open.maker);
        }
        Ok(synced)
    }

    fn sync_now(&self, object: &mut Object, name: &str) -> Result<()> {
        if let Some(len) = object.cut_to {
            return Err(must_cut(name, len));
        }
        let open_file = self.existing_file(object, "sync", name)?;
        let synced = open_file.file.sync_data().and_then(|()| self.sync_entry(open_file));
        match synced {
            Ok(()) => {
                open_file.synced_len = open_file.len;
                Ok(())
            }
            Err(error) => {
                // The kernel may have dropped the pages that it could not write and report success the next time
                // (Rebello et al., "Can applications recover from fsync failures?", 2020): never ask again for the same bytes.
                object.cut_to = Some(open_file.synced_len);
                Err(self.failed("sync", name, &error))
            }
        }
    }

    fn truncate_now(&self, object: &mut Object, name: &str, len: u64) -> Result<()> {
        let cut_to = object.cut_to;
        let open_file = self.existing_file(object, "truncate", name)?;
        let io = |error: &io::Error| self.failed("truncate", name, error);
        open_file.room.settle(None);
        let total = match open_file.has_room() {
            true => open_file.len,
            // Asked, not remembered: a failed append or truncate may have left any length.
            false => open_file.file.metadata().map_err(|error| io(&error))?.len(),
        };
        if len > total {
            return Err(too_short(name, len, total));
        }
        let cut = open_file.file.set_len(len).and_then(|()| open_file.file.sync_all());
        match cut.and_then(|()| self.sync_entry(open_file)) {
            Ok(()) => {
                open_file.len = len;
                open_file.room = Room::none(len);
                let cut_to = cut_to.filter(|cut_to| *cut_to < len);
                if cut_to.is_none() {
                    open_file.synced_len = len;
                }
                object.cut_to = cut_to;
                Ok(())
            }
            Err(error) => {
                object.cut_to = Some(cut_to.unwrap_or(u64::MAX).min(len));
                Err(io(&error))
            }
        }
    }

    fn remove_now(&self, object: &mut Object, name: &str) -> Result<()> {
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed("remove", name, &error)),
            _ => {
                *object = Object::default();
                Ok(())
            }
        }
    }

    fn sync_entry(&self, open_file: &mut OpenFile) -> io::Result<()> {
        if !open_file.entry_is_synced {
            sync_directory(&self.directory)?;
            open_file.entry_is_synced = true;
        }
        Ok(())
    }

    fn open_file<'a>(&self, object: &'a mut Object, name: &str, create: bool) -> io::Result<&'a mut OpenFile> {
        if object.file.is_none() {
            let options =
                OpenOptions::new().read(true).write(true).create(create).truncate(false).open(self.path(name));
            let file = options?;
            let len = file.metadata()?.len();
            let open_file = OpenFile { file, len, room: Room::none(len), synced_len: len, entry_is_synced: false };
            object.file = Some(open_file);
        }
        Ok(object.file.as_mut().expect("opened above"))
    }

    fn existing_file<'a>(&self, object: &'a mut Object, operation: &str, name: &str) -> Result<&'a mut OpenFile> {
        self.open_file(object, name, false).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => not_found(name),
            _ => self.failed(operation, name, &error),
        })
    }
}

impl OpenFile {
    fn has_room(&self) -> bool {
        self.room.is_behind(self.len)
    }

    /// Writes behind what was appended, over the room that is there.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.len + bytes.len() as u64;
        self.room.settle(Some(end));
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.write_all(bytes)?;
        self.len = end;
        self.room.appended(end);
        Ok(())
    }
}

/// The claim, given up first, and the locked file `LOCK`.
#[derive(Debug)]
struct Lock {
    claim: Claim,
    _file: LockedFile,
}

/// A file that is unlocked when dropped.
#[derive(Debug)]
struct LockedFile(File);

impl Drop for LockedFile {
    fn drop(&mut self) {
        // So that nobody is told the number of a process that has let go.
        let _ = self.0.set_len(0);
        // Closing the file is not enough: while another thread starts a process, that one has a copy of the open file until
        // it becomes its program, and the lock lives as long as any copy.
        let _ = self.0.unlock();
    }
}

impl Open {
    /// Runs `call` on the state of `name`, alone.
    fn with_object<T>(&self, name: &str, call: impl FnOnce(&mut Object, &Shared) -> T) -> T {
        let shared = {
            let mut objects = ignore_poison(self.objects.lock());
            if objects.len() >= OPEN_FILES_MAX && !objects.contains_key(name) {
                objects.retain(|_, shared| !is_idle(shared));
            }
            objects.entry(name.to_owned()).or_default().clone()
        };
        let mut object = ignore_poison(shared.object.lock());
        let done = call(&mut object, &shared);
        let with_room = object.file.as_ref().filter(|open_file| open_file.has_room());
        shared.len_max.store(with_room.map_or(u64::MAX, |open_file| open_file.len), Ordering::Release);
        done
    }

    /// What readers are told the length of `name` is at most.
    fn len_max(&self, name: &str) -> u64 {
        let objects = ignore_poison(self.objects.lock());
        objects.get(name).map_or(u64::MAX, |shared| shared.len_max.load(Ordering::Acquire))
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self { object: Mutex::default(), len_max: AtomicU64::new(u64::MAX) }
    }
}

impl Drop for Open {
    /// Before the lock is given up: the next owner may write where the room was.
    fn drop(&mut self) {
        let held = self.lock.claim.is_held().is_ok_and(|held| held);
        for shared in ignore_poison(self.objects.get_mut()).values() {
            if let Some(OpenFile { file, len, room, .. }) = &mut ignore_poison(shared.object.lock()).file {
                match held {
                    true => room.give_up(file, *len),
                    false => room.settle(None),
                }
            }
        }
    }
}

/// Whether nothing is lost when an object's state is forgotten: nobody uses it, and a later open finds the same.
fn is_idle(shared: &Arc<Shared>) -> bool {
    Arc::strong_count(shared) == 1
        && shared.object.try_lock().is_ok_and(|mut object| {
            object.cut_to.is_none()
                && object.file.as_mut().is_none_or(|open_file| {
                    open_file.room.give_up(&open_file.file, open_file.len);
                    open_file.len == open_file.synced_len && !open_file.has_room()
                })
        })
}

fn ignore_poison<T>(locked: LockResult<T>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}

/// Says what failed where. A file that may not grow further has no room, whoever set the limit.
fn failed(directory: &Path, what: &str, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::StorageFull
        }
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{what} in {}: {error}", directory.display()))
}

/// Creates `directory` and the missing ones above it, durably.
fn create_directory(directory: &Path) -> io::Result<()> {
    let missing: Vec<&Path> =
        directory.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
    fs::create_dir_all(directory)?;
    for path in missing {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<Lock> {
    let io = |error: &io::Error| failed(directory, &format!("lock {LOCK_FILE}"), error);
    let path = directory.join(LOCK_FILE);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut lock = options.map_err(|error| io(&error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // The owner writes its number after it has locked, so there may be none yet.
            let mut owner = String::new();
            let _ = lock.take(20).read_to_string(&mut owner);
            let owner = match owner.trim().parse::<u32>() {
                Ok(id) if id == std::process::id() => ", by this process".to_owned(),
                Ok(id) => format!(", by process {id}"),
                Err(_) => String::new(),
            };
            let message = format!("the data directory {} is in use{owner}: stop that first", directory.display());
            return Err(Error::new(ErrorKind::Locked, message));
        }
        Err(TryLockError::Error(error)) => return Err(io(&error)),
    }
    // The number is a courtesy to whoever comes second: on a full disk the lock holds without it.
    let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    let file = LockedFile(lock);
    let claim = Claim::take(directory).map_err(|error| failed(directory, "claim the data directory", &error))?;
    let claim = claim.map_err(|(owner, path)| {
        let (directory, path) = (directory.display(), path.display());
        Error::new(
            ErrorKind::Locked,
            format!(
                "the data directory {directory} is in use, by process {}: stop that first (should it be no Eddy, remove {path})",
                owner.pid
            ),
        )
    })?;
    Ok(Lock { claim, _file: file })
}

/// Removes the temporary files of writes that a crash cut off.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives the file `from` the name `to`, which must be free; `from` may go away by it.
fn link_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        // File systems without links (FAT, some network and phone ones). The lock and the caller keep others off the name.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied) => {
            rename_new(from, to)
        }
        result => result,
    }
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Elsewhere a directory cannot be opened as a file, and the file system orders its own metadata.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

impl Storage for FileStorage {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>> {
        Box::pin(async move {
            self.run(|open| self.list_now(open, prefix).map_err(|error| self.failed("list", prefix, &error)))
        })
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>> {
        Box::pin(async move {
            check_name(name)?;
            self.run(|open| self.read_now(open, name, Some((offset, len))))
        })
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>> {
        Box::pin(async move {
            check_name(name)?;
            self.run(|open| self.read_now(open, name, None))
        })
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            self.change(|open| open.with_object(name, |_, _| self.put_now(open, name, &bytes)))
        })
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            self.change(|open| open.with_object(name, |object, _| self.append_now(object, name, &bytes)))
        })
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            self.change(|open| open.with_object(name, |object, _| self.sync_now(object, name)))
        })
    }

    fn append_and_sync<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<Result<()>>> {
        Box::pin(async move {
            check_name(name)?;
            self.change(|open| {
                open.with_object(name, |object, shared| self.append_and_sync_now(open, (object, shared), name, &bytes))
            })
        })
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            self.change(|open| open.with_object(name, |object, _| self.truncate_now(object, name, len)))
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            self.change(|open| open.with_object(name, |object, _| self.remove_now(object, name)))
        })
    }

    fn close(&self) -> Task<'_, Result<()>> {
        Box::pin(async move {
            blocking(|| {
                drop(self.open.write().unwrap_or_else(PoisonError::into_inner).take());
            });
            Ok(())
        })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::platform::block_on;

    /// A pipe can be neither synced nor cut: what a file on a failing disk answers.
    #[test]
    fn bytes_that_a_failed_sync_covered_are_never_acknowledged_later() {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(directory.path()).unwrap();
        let swap = |file: &mut File| {
            let open = storage.open.read().unwrap();
            open.as_ref().unwrap().with_object("log", |object, _| {
                std::mem::swap(&mut object.file.as_mut().unwrap().file, file);
            });
        };
        block_on(async {
            storage.append("log", "kept".into()).await.unwrap();
            storage.sync("log").await.unwrap();
            storage.append("log", "lost".into()).await.unwrap();
            let (_reader, writer) = io::pipe().unwrap();
            let mut file = File::from(OwnedFd::from(writer));
            swap(&mut file);
            let error = storage.sync("log").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io);
            assert!(error.message().contains("sync log in"), "{error}");
            swap(&mut file);
            // The disk works again, but nobody knows what it holds after the first four bytes.
            for error in [storage.sync("log").await.unwrap_err(), storage.append("log", "x".into()).await.unwrap_err()]
            {
                assert!(error.message().contains("cut it to 4 bytes"), "{error}");
            }
            storage.truncate("log", 6).await.unwrap();
            assert!(storage.sync("log").await.is_err());
            storage.truncate("log", 4).await.unwrap();
            storage.append("log", ", and more".into()).await.unwrap();
            storage.sync("log").await.unwrap();
            assert_eq!(storage.read_all("log").await.unwrap(), "kept, and more");
        });
    }

    /// Waits for the room that is being made for `log`.
    fn settle(storage: &FileStorage) {
        let open = storage.open.read().expect("no panic while held");
        let open = open.as_ref().expect("not closed");
        open.with_object("log", |object, _| object.file.as_mut().expect("appended to").room.settle(None));
    }

    #[test]
    fn room_in_advance_is_there_for_appends_that_are_synced_and_goes_with_the_owner() {
        let directory = tempfile::tempdir().unwrap();
        let len = || fs::metadata(directory.path().join("log")).unwrap().len();
        let storage = FileStorage::open(directory.path()).unwrap();
        let append = |bytes: usize| {
            block_on(storage.append_and_sync("log", vec![7; bytes].into())).unwrap().unwrap();
            settle(&storage);
        };
        (1..room::APPENDS_MIN).for_each(|_| append(100));
        assert_eq!(len(), 700);
        append(100);
        let with_room = len();
        assert_eq!(with_room, 800 + *room::BYTES.start() as u64);
        append(100);
        let more = len();
        assert_eq!(more, with_room + *room::BYTES.start() as u64, "before it is used up");
        (0..600).for_each(|_| append(100));
        assert_eq!(len(), more, "no new length");
        let mut whole = 60_900;
        append(room::APPEND_BYTES_MAX + 1);
        whole += room::APPEND_BYTES_MAX + 1;
        assert_eq!(len(), whole as u64, "none for what is large");
        append(2_000);
        whole += 2_000;
        assert!(len() > whole as u64);
        let bytes = block_on(storage.read_all("log")).unwrap();
        assert!(bytes.len() == whole && bytes.iter().all(|&byte| byte == 7), "{}", bytes.len());
        // What a crash leaves.
        let crashed = tempfile::tempdir().unwrap();
        fs::copy(directory.path().join("log"), crashed.path().join("log")).unwrap();
        let after = FileStorage::open(crashed.path()).unwrap();
        let bytes = block_on(after.read_all("log")).unwrap();
        assert!(bytes.len() > whole && bytes[..whole].iter().all(|&byte| byte == 7), "{}", bytes.len());
        assert!(bytes[whole..].iter().all(|&byte| byte == 0));
        // Cut, and written on.
        block_on(storage.truncate("log", 1_000)).unwrap();
        assert_eq!(len(), 1_000);
        (0..room::APPENDS_MIN).for_each(|_| append(1));
        assert!(len() > 2_000);
        whole = 1_000 + room::APPENDS_MIN as usize;

        // So many others have come that this one is let go of.
        for other in 0..OPEN_FILES_MAX {
            block_on(storage.append_and_sync(&format!("other-{other}"), vec![1].into())).unwrap().unwrap();
        }
        assert_eq!(len(), whole as u64);
        (0..room::APPENDS_MIN).for_each(|_| append(1));
        assert!(len() > whole as u64 + 1_000);
        drop(storage);
        assert_eq!(len(), whole as u64 + u64::from(room::APPENDS_MIN));
    }

    /// Nobody waits for the room but who writes over it: the bytes are there, in order, whatever thread was faster.
    #[test]
    fn what_is_appended_while_room_is_made_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(directory.path()).unwrap();
        let mut expected = Vec::new();
        for round in 0..120usize {
            let bytes = vec![round as u8 + 1; [10, 3_000, 70_000, 200_000, 20, 300_000][round % 6] + round];
            expected.extend_from_slice(&bytes);
            match round % 17 {
                5 => block_on(storage.append("log", bytes.into())).unwrap(),
                _ => block_on(storage.append_and_sync("log", bytes.into())).unwrap().unwrap(),
            }
            if round % 23 == 22 {
                expected.truncate(expected.len() - 5);
                block_on(storage.truncate("log", expected.len() as u64)).unwrap();
            }
            assert_eq!(block_on(storage.list("log")).unwrap()[0].len, expected.len() as u64);
        }
        assert!(block_on(storage.read_all("log")).unwrap() == expected);
        drop(storage);
        assert!(fs::read(directory.path().join("log")).unwrap() == expected);
    }

    /// It is not this owner's any more: who has taken over may write there.
    #[test]
    fn an_owner_that_lost_the_store_cuts_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let storage = FileStorage::open(directory.path()).unwrap();
        for _ in 0..room::APPENDS_MIN {
            block_on(storage.append_and_sync("log", vec![7].into())).unwrap().unwrap();
        }
        settle(&storage);
        let claim = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
        let claim = claim.filter(|entry| entry.file_name().to_str().unwrap().starts_with(".lock."));
        claim.for_each(|entry| fs::remove_file(entry.path()).unwrap());
        let len = fs::metadata(directory.path().join("log")).unwrap().len();
        assert!(len > 1_000);
        drop(storage);
        assert_eq!(fs::metadata(directory.path().join("log")).unwrap().len(), len);
    }

    /// Stores that were closed seemed open for a moment while another thread started a process, which until it becomes its
    /// program has a copy of every open file.
    #[test]
    fn a_closed_store_is_free_although_a_new_process_has_a_copy_of_the_lock_file() {
        let directory = tempfile::tempdir().unwrap();
        for close in [true, false] {
            let storage = FileStorage::open(directory.path()).unwrap();
            let copy = storage.open.read().unwrap().as_ref().unwrap().lock._file.0.try_clone().unwrap();
            if close {
                block_on(storage.close()).unwrap();
            }
            drop(storage);
            drop(FileStorage::open(directory.path()).unwrap());
            drop(copy);
        }
    }

    #[test]
    fn where_there_are_no_links_a_name_is_still_never_taken_twice() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["TMP-0", "a"].map(|name| directory.path().join(name));
        fs::write(&from, b"first").unwrap();
        rename_new(&from, &to).unwrap();
        fs::write(&from, b"second").unwrap();
        assert_eq!(rename_new(&from, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"first");
    }
}
