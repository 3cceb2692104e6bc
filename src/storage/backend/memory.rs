use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use crate::base::{Error, ErrorKind, Result};
use crate::platform::Task;
use crate::storage::name::{already_exists, check_range, closed, not_found, too_short};
use crate::storage::{Entry, Storage, check_name};

/// Bytes in memory that outlive the storage opened on them, so that a test can drop everything and open again. Clones are
/// the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk {
    content: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    objects: BTreeMap<String, Vec<u8>>,
    /// Whether the owner is open; dropped with the owner's last clone.
    owner: Weak<AtomicBool>,
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens it.
    ///
    /// # Errors
    /// `Locked` while an earlier [`MemoryStorage`], or a clone of it, is neither closed nor dropped.
    pub fn open(&self) -> Result<MemoryStorage> {
        let mut content = self.content();
        if content.owner.upgrade().is_some_and(|open| open.load(Ordering::Acquire)) {
            return Err(Error::new(ErrorKind::Locked, "this memory disk is open already: close or drop that storage"));
        }
        let open = Arc::new(AtomicBool::new(true));
        content.owner = Arc::downgrade(&open);
        Ok(MemoryStorage { disk: self.clone(), open })
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // No code that can panic runs while the lock is held, so a poisoned one holds whole content.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store in memory: the fastest, gone with its last handle. Clones are one handle.
#[derive(Debug, Clone)]
pub struct MemoryStorage {
    disk: MemoryDisk,
    open: Arc<AtomicBool>,
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStorage {
    /// A store on a disk of its own.
    pub fn new() -> Self {
        MemoryDisk::new().open().expect("a new disk has no owner")
    }

    /// The disk that it is on, to open again later.
    pub fn disk(&self) -> MemoryDisk {
        self.disk.clone()
    }

    fn content(&self) -> Result<MutexGuard<'_, Content>> {
        if self.open.load(Ordering::Acquire) { Ok(self.disk.content()) } else { Err(closed()) }
    }
}

impl Storage for MemoryStorage {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>> {
        Box::pin(async move {
            let content = self.content()?;
            let from_prefix = content.objects.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
            let entries = from_prefix.take_while(|(name, _)| name.starts_with(prefix));
            Ok(entries.map(|(name, bytes)| Entry { name: name.clone(), len: bytes.len() as u64 }).collect())
        })
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>> {
        Box::pin(async move {
            check_name(name)?;
            let content = self.content()?;
            let bytes = content.objects.get(name).ok_or_else(|| not_found(name))?;
            let range = check_range(name, offset, len, bytes.len() as u64)?;
            Ok(Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize]))
        })
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>> {
        Box::pin(async move {
            check_name(name)?;
            let content = self.content()?;
            content.objects.get(name).map(|bytes| Bytes::copy_from_slice(bytes)).ok_or_else(|| not_found(name))
        })
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            let mut content = self.content()?;
            if content.objects.contains_key(name) {
                return Err(already_exists(name));
            }
            content.objects.insert(name.to_owned(), bytes.into());
            Ok(())
        })
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            let mut content = self.content()?;
            match content.objects.get_mut(name) {
                Some(object) => object.extend_from_slice(&bytes),
                None => {
                    content.objects.insert(name.to_owned(), bytes.into());
                }
            }
            Ok(())
        })
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            self.content()?.objects.contains_key(name).then_some(()).ok_or_else(|| not_found(name))
        })
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            let mut content = self.content()?;
            let bytes = content.objects.get_mut(name).ok_or_else(|| not_found(name))?;
            if len > bytes.len() as u64 {
                return Err(too_short(name, len, bytes.len() as u64));
            }
            bytes.truncate(len as usize);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(async move {
            check_name(name)?;
            self.content()?.objects.remove(name);
            Ok(())
        })
    }

    fn close(&self) -> Task<'_, Result<()>> {
        Box::pin(async move {
            self.open.store(false, Ordering::Release);
            Ok(())
        })
    }
}
