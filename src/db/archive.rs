use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::database::Shared;
use super::recovery::{open_collection, read_checked};
use super::{Collection, Db};
use crate::base::{Error, ErrorKind, Result};
use crate::engine::{CollectionManifest, FileEntry, Manifest, Progress, archive, name};
use crate::platform;

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

    /// The snapshot as an archive, piece by piece: piece 0, 1, … until there is none.
    pub async fn piece(&self, number: usize) -> Result<Option<Vec<u8>>> {
        let Some(number) = number.checked_sub(1) else { return Ok(Some(archive::start(&self.manifest))) };
        let mut files = self.manifest.files();
        match files.nth(number) {
            Some(file) => Ok(Some(archive::file(file, &self.read(file).await?))),
            None if number == self.manifest.files().count() => Ok(Some(archive::end())),
            None => Ok(None),
        }
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

    /// Adds the collections of an archive that [`StoreSnapshot::piece`] made, with their indexes; tells their names. Rows keep their
    /// versions; positions of sync are left out, for they were another store's.
    ///
    /// # Errors
    /// `Corrupt` for an archive that is not what was written, `AlreadyExists` when a collection of that name is there. Nothing is
    /// imported then.
    pub async fn import_archive(&self, archive: Bytes) -> Result<Vec<String>> {
        self.inner.shared.check_open()?;
        let (manifest, files) = archive::decode(&archive)?;
        let db = self.clone();
        platform::run_to_end(async move {
            let _one = db.inner.maintenance.lock().await;
            let shared = &db.inner.shared;
            for described in &manifest.collections {
                super::database::check_name(&described.name)?;
                if db.collection(&described.name).is_ok() {
                    let message =
                        format!("collection {:?} exists already: drop it, or import elsewhere", described.name);
                    return Err(Error::new(ErrorKind::AlreadyExists, message));
                }
            }
            shared.clock.lock().expect("no panic while held").observe(manifest.clock, platform::now_ms())?;
            // No other takes this number while maintenance is ours.
            let mut next = shared.manifest().await.next_collection;
            let mut imported = Vec::new();
            for described in manifest.collections {
                let mut described = CollectionManifest {
                    id: next,
                    log_start: 1,
                    progress: Progress { positions: Default::default(), ..described.progress },
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
                let limited = shared.options.memory_limit_bytes.is_some();
                let growing = shared.next_segment();
                let entries = shared.storage.list(&name::collection(described.id)).await?;
                let opened = open_collection(&*shared.storage, &described, &entries, growing, None, limited).await?;
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
                db.insert_collection(collection);
                names.push(name);
            }
            Ok(names)
        })
        .await
    }
}
