//! Storages that break one promise each, as a bug in a store or a backend would. A simulation that does not notice them proves nothing.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use eddydb::base::Result;
use eddydb::base::codec::checksum;
use eddydb::platform::Task;
use eddydb::storage::{Entry, FaultStorage, Storage};

/// The promise that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `sync` of a log answers without syncing.
    SkippedSync,
    /// `sync` answers first and syncs with the next operation.
    LateSync,
    /// `put` answers before its bytes are durable.
    SoftPut,
    /// A manifest is put before the files that it names.
    ManifestFirst,
    /// Files are removed before the manifest that does without them is there.
    RemoveFirst,
    /// `truncate` does nothing: a torn tail stays.
    ForgottenTruncate,
    /// An append is written twice.
    DoubledAppend,
    /// A read gives a damaged log frame whose checksum fits: as if none were checked.
    UncheckedChecksum,
    /// Segment files are stored with a wrong bit.
    WrongSegment,
    /// The end of every log is cut by one group: acknowledged, and then taken for torn.
    ShortLog,
    /// The words of a segment are stored under the name of another one's: whole, and of other rows.
    SwappedTerms,
}

pub const FAULTS: [Fault; 11] = [
    Fault::SkippedSync,
    Fault::LateSync,
    Fault::SoftPut,
    Fault::ManifestFirst,
    Fault::RemoveFirst,
    Fault::ForgottenTruncate,
    Fault::DoubledAppend,
    Fault::UncheckedChecksum,
    Fault::WrongSegment,
    Fault::ShortLog,
    Fault::SwappedTerms,
];

/// A storage with that fault.
pub struct Planted {
    storage: FaultStorage,
    fault: Option<Fault>,
    late: Mutex<Vec<Late>>,
    /// What was stored last of a segment's words.
    terms: Mutex<Option<Bytes>>,
}

enum Late {
    Sync(String),
    Put(String, Bytes),
}

impl Planted {
    pub fn new(storage: FaultStorage, fault: Option<Fault>) -> Arc<Self> {
        Arc::new(Self { storage, fault, late: Mutex::new(Vec::new()), terms: Mutex::new(None) })
    }

    /// Does what was promised earlier.
    async fn catch_up(&self) -> Result<()> {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        for operation in late {
            match operation {
                Late::Sync(name) => self.storage.sync(&name).await?,
                Late::Put(name, bytes) => self.storage.put(&name, bytes).await?,
            }
        }
        Ok(())
    }

    fn later(&self, operation: Late) -> Result<()> {
        self.late.lock().unwrap().push(operation);
        Ok(())
    }

    /// Damages the payload of the first log frame, or a byte in the middle of a segment file.
    fn damage(&self, name: &str, bytes: Bytes) -> Bytes {
        const HEADER: usize = 32;
        let frame = name.contains("/log/") && self.fault == Some(Fault::UncheckedChecksum) && bytes.len() > HEADER + 20;
        let mut bytes = bytes.to_vec();
        if frame {
            let length = u32::from_le_bytes(bytes[HEADER..HEADER + 4].try_into().unwrap()) as usize;
            if bytes.len() >= HEADER + 20 + length && length > 64 {
                bytes[HEADER + 20 + length - 40] ^= 4;
                let summed = [&bytes[HEADER..HEADER + 4], &bytes[HEADER + 8..HEADER + 20 + length]].concat();
                bytes[HEADER + 4..HEADER + 8].copy_from_slice(&checksum(&summed).to_le_bytes());
            }
        }
        if name.contains("/log/") && self.fault == Some(Fault::ShortLog) && bytes.len() > HEADER {
            let mut ends = vec![HEADER];
            let mut at = HEADER;
            while at + 20 <= bytes.len() {
                at += 20 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
                if at <= bytes.len() {
                    ends.push(at);
                }
            }
            let keep = ends[ends.len().saturating_sub(2)];
            bytes.truncate(keep);
        }
        bytes.into()
    }
}

impl Storage for Planted {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>> {
        self.storage.list(prefix)
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>> {
        self.storage.read(name, offset, len)
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>> {
        Box::pin(async move { Ok(self.damage(name, self.storage.read_all(name).await?)) })
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(async move {
            let is_manifest = name.starts_with("manifest/");
            match self.fault {
                Some(Fault::SoftPut) => self.storage.append(name, bytes).await,
                Some(Fault::ManifestFirst) if !is_manifest => self.later(Late::Put(name.to_owned(), bytes)),
                Some(Fault::RemoveFirst) if is_manifest => {
                    self.catch_up().await?;
                    self.later(Late::Put(name.to_owned(), bytes))
                }
                Some(Fault::WrongSegment) if name.contains("/segment/") && bytes.len() > 600 => {
                    let mut bytes = bytes.to_vec();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    self.storage.put(name, bytes.into()).await
                }
                Some(Fault::SwappedTerms) if name.contains("/terms-") => {
                    let before = self.terms.lock().unwrap().replace(bytes.clone());
                    self.storage.put(name, before.unwrap_or(bytes)).await
                }
                _ => {
                    self.storage.put(name, bytes).await?;
                    self.catch_up().await
                }
            }
        })
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        Box::pin(async move {
            self.catch_up().await?;
            if self.fault == Some(Fault::DoubledAppend) {
                self.storage.append(name, bytes.clone()).await?;
            }
            self.storage.append(name, bytes).await
        })
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(async move {
            match self.fault {
                Some(Fault::SkippedSync) => Ok(()),
                Some(Fault::LateSync) => self.later(Late::Sync(name.to_owned())),
                _ => self.storage.sync(name).await,
            }
        })
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>> {
        Box::pin(async move {
            if self.fault == Some(Fault::ForgottenTruncate) { Ok(()) } else { self.storage.truncate(name, len).await }
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        Box::pin(async move {
            self.storage.remove(name).await?;
            self.catch_up().await
        })
    }

    fn close(&self) -> Task<'_, Result<()>> {
        Box::pin(async move {
            self.catch_up().await?;
            self.storage.close().await
        })
    }
}
