//! A storage that counts what is written to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use eddydb::base::Result;
use eddydb::platform::Task;
use eddydb::storage::{Entry, FileStorage, Storage};

/// Files, and the bytes that were put or appended.
pub struct Metered {
    files: FileStorage,
    written: Arc<AtomicU64>,
}

impl Metered {
    pub fn new(files: FileStorage) -> (Self, Arc<AtomicU64>) {
        let written = Arc::new(AtomicU64::new(0));
        (Self { files, written: written.clone() }, written)
    }

    fn count(&self, bytes: &Bytes) {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

impl Storage for Metered {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>> {
        self.files.list(prefix)
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>> {
        self.files.read(name, offset, len)
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>> {
        self.files.read_all(name)
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        self.count(&bytes);
        self.files.put(name, bytes)
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        self.count(&bytes);
        self.files.append(name, bytes)
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        self.files.sync(name)
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>> {
        self.files.truncate(name, len)
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        self.files.remove(name)
    }

    fn close(&self) -> Task<'_, Result<()>> {
        self.files.close()
    }
}
