use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::database::Shared;
use super::recovery::{open_collection, read_checked};
use super::{Collection, Db};
use crate::base::codec::checksum_append;
use crate::base::{CollectionId, Error, ErrorKind, Result};
use crate::engine::{CollectionManifest, FileEntry, Manifest, Progress, archive, name};
use crate::model::check_partition;
use crate::platform;

/// How much of a file is read at once.
const PIECE_BYTES: u64 = 2 << 20;

/// Everything that a store held at one moment, while it goes on. Its files stay until it is dropped.
pub struct StoreSnapshot {
    shared: Arc<Shared>,
    manifest: Manifest,
}

impl StoreSnapshot {
    /// What is there. It names no log: all that was acknowledged before is in the segments.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The bytes of a file that the manifest names. `Corrupt` when they are not what was written.
    pub async fn read(&self, file: &FileEntry) -> Result<Bytes> {
        read_checked(&*self.shared.storage, file).await
    }

    /// The snapshot as an archive, without the files that `is_there` knows.
    pub fn into_archive(self, is_there: impl Fn(&FileEntry) -> bool) -> ArchivePieces {
        let files = self.manifest.files().filter(|file| !is_there(file)).cloned().collect();
        ArchivePieces { snapshot: self, files, part: Part::Start }
    }
}

/// A snapshot as an archive, piece by piece, each of them small.
pub struct ArchivePieces {
    snapshot: StoreSnapshot,
    /// Those that are still to come.
    files: VecDeque<FileEntry>,
    part: Part,
}

enum Part {
    Start,
    /// The first file, of which so much was told, with that checksum.
    File(u64, u32),
    Ended,
}

impl ArchivePieces {
    /// The next bytes; `None` after the last.
    ///
    /// # Errors
    /// `Corrupt` when a file is not what was written: what was told before is no archive then.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let (offset, sum) = match self.part {
            Part::Start => {
                self.part = Part::File(0, 0);
                return Ok(Some(archive::start(&self.snapshot.manifest)));
            }
            Part::File(offset, sum) => (offset, sum),
            Part::Ended => return Ok(None),
        };
        let Some(file) = self.files.front() else {
            self.part = Part::Ended;
            return Ok(Some(archive::end()));
        };
        let len = (file.len - offset).min(PIECE_BYTES);
        let bytes = self.snapshot.shared.storage.read(&file.name, offset, len).await?;
        let sum = checksum_append(sum, &bytes);
        let last = offset + len == file.len;
        if bytes.len() as u64 != len || (last && sum != file.checksum) {
            return Err(Error::corrupt(format!("{}: at byte {offset}: not what was written", file.name)));
        }
        let mut piece = if offset == 0 { archive::file_head(file) } else { Vec::new() };
        piece.extend_from_slice(&bytes);
        self.part = if last { Part::File(0, 0) } else { Part::File(offset + len, sum) };
        if last {
            self.files.pop_front();
        }
        Ok(Some(piece))
    }
}

impl Drop for StoreSnapshot {
    fn drop(&mut self) {
        self.shared.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    /// Removes a file that no manifest names any more, now or when no snapshot has it.
    pub(super) async fn remove_file(&self, name: String) -> Result<()> {
        self.garbage.lock().expect("no panic while held").push(name);
        self.remove_garbage().await
    }

    /// Removes the files of so many collections from that id on, unless a manifest that names them may have been written.
    async fn remove_unnamed(&self, first: CollectionId, count: usize) -> Result<()> {
        let current = self.manifest().await;
        let manifests = self.storage.list(name::MANIFESTS).await?;
        if current.next_collection > first
            || manifests.iter().any(|entry| name::number(&entry.name) > Some(current.version))
        {
            return Ok(());
        }
        let mut id = first;
        for _ in 0..count {
            for entry in self.storage.list(&name::collection(id)).await? {
                self.remove_file(entry.name).await?;
            }
            id = id.next();
        }
        Ok(())
    }

    /// Removes what waited for snapshots, when there are none. What a crash leaves the next open sweeps.
    pub(super) async fn remove_garbage(&self) -> Result<()> {
        if self.pins.load(Ordering::Acquire) > 0 {
            return Ok(());
        }
        let names = std::mem::take(&mut *self.garbage.lock().expect("no panic while held"));
        for name in names {
            self.storage.remove(&name).await?;
        }
        Ok(())
    }
}

impl Db {
    /// A snapshot of the whole store. Flushes first, so that everything acknowledged is in it; each collection is whole, as it was at
    /// one moment.
    pub async fn snapshot(&self) -> Result<StoreSnapshot> {
        let db = self.clone();
        platform::run_to_end(async move {
            for collection in db.collections() {
                db.flush_collection(&collection).await?;
            }
            let shared = db.inner.shared.clone();
            // Before the manifest is read: a file that it names is then kept.
            shared.pins.fetch_add(1, Ordering::AcqRel);
            let mut snapshot = StoreSnapshot { manifest: Manifest::new(shared.replica), shared };
            snapshot.manifest = snapshot.shared.manifest().await;
            Ok(snapshot)
        })
        .await
    }

    /// Adds the collections of an archive that [`StoreSnapshot::into_archive`] made, with their indexes; tells their names. Rows keep their
    /// versions; positions of sync are left out, for they were another store's.
    ///
    /// # Errors
    /// `Corrupt` for an archive that is not what was written, `AlreadyExists` when a collection of that name is there. Nothing is
    /// imported then, whatever went wrong, and nothing of it left in storage.
    pub async fn import_archive(&self, archive: Bytes) -> Result<Vec<String>> {
        self.inner.shared.check_open()?;
        let (manifest, files) = archive::decode(&archive)?;
        let db = self.clone();
        platform::run_to_end(async move {
            let _one = db.inner.maintenance.lock().await;
            let shared = &db.inner.shared;
            // No other takes this number while maintenance is ours.
            let first = shared.manifest().await.next_collection;
            let count = manifest.collections.len();
            let imported = db.import(manifest, &files, first).await;
            if imported.is_err() {
                // What cannot be removed now the next open sweeps.
                if let Err(error) = shared.remove_unnamed(first, count).await {
                    tracing::warn!("what a failed import has written stays until the next open: {error}");
                }
            }
            imported
        })
        .await
    }

    async fn import(
        &self,
        manifest: Manifest,
        files: &BTreeMap<String, Bytes>,
        first: CollectionId,
    ) -> Result<Vec<String>> {
        let shared = &self.inner.shared;
        let mut names = BTreeSet::new();
        for described in &manifest.collections {
            super::database::check_name(&described.name)?;
            described.partitions.iter().try_for_each(|name| check_partition(name))?;
            if !names.insert(&described.name) {
                return Err(Error::corrupt(format!("the archive has two collections {:?}", described.name)));
            }
            if self.collection(&described.name).is_ok() {
                let message = format!("collection {:?} exists already: drop it, or import elsewhere", described.name);
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
        }
        shared.clock.lock().expect("no panic while held").observe(manifest.clock, platform::now_ms())?;
        let mut next = first;
        let mut imported = Vec::new();
        for described in manifest.collections {
            let mut described = CollectionManifest {
                id: next,
                log_start: 1,
                progress: Progress { positions: Default::default(), answers: Default::default(), ..described.progress },
                ..described
            };
            next = next.next();
            for segment in &mut described.segments {
                segment.id = shared.next_segment();
                for file in &mut segment.files {
                    let bytes = files[&file.name].clone();
                    let base = file.name.rsplit('/').next().unwrap_or_default();
                    file.name = name::segment_file(described.id, segment.id, base);
                    super::writer::put_fresh(&*shared.storage, &file.name, &bytes).await?;
                }
            }
            let growing = shared.next_segment();
            let entries = shared.storage.list(&name::collection(described.id)).await?;
            let opened = open_collection(&*shared.storage, &described, &entries, growing, None).await?;
            imported.push((described, opened));
        }
        shared
            .swap_manifest(|manifest| {
                manifest.next_collection = next;
                manifest.collections.extend(imported.iter().map(|(described, _)| described.clone()));
                Ok(())
            })
            .await?;
        let mut names = Vec::new();
        for (described, opened) in imported {
            let name = described.name;
            let (state, log) = (opened.state, opened.log);
            let collection = Collection::new(shared.clone(), described.id, &name, state, log, described.partitions);
            self.insert_collection(collection);
            names.push(name);
        }
        Ok(names)
    }
}
