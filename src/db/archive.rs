use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::database::Shared;
use super::recovery::{open_collection, read_checked};
use super::{Collection, Db};
use crate::base::codec::checksum_append;
use crate::base::{CollectionId, Error, ErrorKind, Result, Timestamp};
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

    /// What it says of one collection.
    pub(super) fn take(&mut self, id: CollectionId) -> Option<CollectionManifest> {
        let collections = &mut self.manifest.collections;
        collections.iter().position(|collection| collection.id == id).map(|at| collections.swap_remove(at))
    }

    /// The file of a collection that is the wanted one.
    #[cfg(hosted)]
    pub(super) fn find(&self, is_it: impl Fn(&FileEntry) -> bool) -> Option<(CollectionId, FileEntry)> {
        let find_in = |collection: &CollectionManifest| {
            let mut files = collection.segments.iter().flat_map(|segment| &segment.files);
            Some((collection.id, files.find(|file| is_it(file))?.clone()))
        };
        self.manifest.collections.iter().find_map(find_in)
    }

    /// A part of them, which nobody has checked.
    ///
    /// # Errors
    /// `InvalidArgument` when the file has no such part.
    pub(super) async fn read_part(&self, file: &FileEntry, offset: u64, len: u64) -> Result<Bytes> {
        if offset.checked_add(len).is_none_or(|end| end > file.len) {
            let all = file.len;
            return Err(Error::invalid(format!("{len} bytes from {offset} of {}, which has {all}", file.name)));
        }
        self.shared.storage.read(&file.name, offset, len).await
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

    /// Whether a manifest past that version is there, or may be.
    async fn may_be_past(&self, version: u64) -> bool {
        let listed = self.storage.list(name::MANIFESTS).await;
        listed.map_or(true, |entries| entries.iter().any(|entry| name::number(&entry.name) > Some(version)))
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
            Ok(db.pin().await)
        })
        .await
    }

    /// What is in segments at this moment, whose files stay.
    pub(super) async fn pin(&self) -> StoreSnapshot {
        let shared = self.inner.shared.clone();
        // Before the manifest is read: a file that it names is then kept.
        shared.pins.fetch_add(1, Ordering::AcqRel);
        let mut snapshot = StoreSnapshot { manifest: Manifest::new(shared.replica), shared };
        snapshot.manifest = snapshot.shared.manifest().await;
        snapshot
    }

    /// Adds the collections of an archive that [`StoreSnapshot::into_archive`] made, with their indexes; tells their names. Rows keep their
    /// versions; positions of sync are left out, for they were another store's.
    ///
    /// # Errors
    /// As of [`ArchiveImport`]. Nothing is imported then, whatever went wrong, and nothing of it left in storage.
    pub async fn import_archive(&self, archive: Bytes) -> Result<Vec<String>> {
        let mut import = self.import()?;
        import.push(archive).await?;
        import.finish().await
    }

    /// The same for an archive that comes in pieces.
    ///
    /// # Errors
    /// `Closed` when the store is.
    pub fn import(&self) -> Result<ArchiveImport> {
        self.inner.shared.check_open()?;
        Ok(ArchiveImport { import: Some(Import::new(self.clone())) })
    }
}

/// An archive on its way in, a piece after the other, written as it comes: no more than a piece is held in memory. Nothing of it is
/// seen before [`Self::finish`]; when anything fails, or this is dropped before, its files are removed.
///
/// Its calls give `Corrupt` for an archive that is not what was written, `AlreadyExists` when a collection of a name in it is there, and
/// what the storage says. After an error every further call gives `InvalidArgument`.
pub struct ArchiveImport {
    /// While nothing has failed.
    import: Option<Import>,
}

struct Import {
    db: Db,
    unpacker: archive::Unpacker,
    /// What the archive's manifest has, under the ids and the files' names that it gets here.
    collections: Vec<CollectionManifest>,
    clock: Timestamp,
    /// The names here, by those in the archive.
    names: BTreeMap<String, String>,
    /// The files that were begun.
    written: Vec<String>,
}

impl ArchiveImport {
    /// Takes the next piece, of any size.
    pub async fn push(&mut self, piece: Bytes) -> Result<()> {
        let mut import = self.import.take().ok_or_else(ended)?;
        // To its end, though nobody may wait for it any more.
        self.import = Some(
            platform::run_to_end(async move {
                match import.take_piece(piece).await {
                    Ok(()) => Ok(import),
                    Err(error) => {
                        import.remove_all().await;
                        Err(error)
                    }
                }
            })
            .await?,
        );
        Ok(())
    }

    /// Adds the collections, which are there from now on; tells their names.
    pub async fn finish(mut self) -> Result<Vec<String>> {
        let mut import = self.import.take().ok_or_else(ended)?;
        platform::run_to_end(async move {
            let db = import.db.clone();
            let _one = db.inner.maintenance.lock().await;
            let version = db.inner.shared.manifest().await.version;
            let names = import.add().await;
            // Those of a manifest that was written all the same are the next open's to find, or to sweep.
            if names.is_ok() || db.inner.shared.may_be_past(version).await {
                import.written.clear();
            }
            import.remove_all().await;
            names
        })
        .await
    }

    /// Gives it up.
    pub async fn abort(mut self) {
        if let Some(mut import) = self.import.take() {
            platform::run_to_end(async move { import.remove_all().await }).await;
        }
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        // Background work removes them, or the next open.
        let written = std::mem::take(&mut self.written);
        self.db.inner.shared.garbage.lock().expect("no panic while held").extend(written);
    }
}

fn ended() -> Error {
    Error::invalid("this import has failed before; begin another one")
}

impl Import {
    fn new(db: Db) -> Self {
        Self {
            db,
            unpacker: archive::Unpacker::new(),
            collections: Vec::new(),
            clock: Timestamp::default(),
            names: BTreeMap::new(),
            written: Vec::new(),
        }
    }

    async fn take_piece(&mut self, piece: Bytes) -> Result<()> {
        let shared = self.db.inner.shared.clone();
        shared.check_open()?;
        for part in self.unpacker.push(piece)? {
            match part {
                archive::Part::Manifest(manifest) => self.begin(*manifest).await?,
                archive::Part::File { file, offset, bytes, last } => {
                    let name = &self.names[&file.name];
                    if offset == 0 {
                        self.written.push(name.clone());
                    }
                    if offset == 0 && last {
                        super::writer::put_fresh(&*shared.storage, name, &bytes).await?;
                        continue;
                    }
                    if offset == 0 {
                        shared.storage.remove(name).await?;
                    }
                    shared.storage.append(name, bytes).await?;
                    if last {
                        shared.storage.sync(name).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks what is to come, and finds places for it.
    async fn begin(&mut self, manifest: Manifest) -> Result<()> {
        let shared = self.db.inner.shared.clone();
        let mut names = BTreeSet::new();
        for described in &manifest.collections {
            super::database::check_name(&described.name)?;
            described.partitions.iter().try_for_each(|name| check_partition(name))?;
            if !names.insert(&described.name) {
                return Err(Error::corrupt(format!("the archive has two collections {:?}", described.name)));
            }
            check_free(&self.db, &described.name)?;
        }
        let mut id = shared.reserve_collections(manifest.collections.len()).await;
        self.clock = manifest.clock;
        for described in manifest.collections {
            let mut described = CollectionManifest {
                id,
                log_start: 1,
                progress: Progress {
                    positions: Default::default(),
                    answers: Default::default(),
                    pipelines: Default::default(),
                    cursors: Default::default(),
                    refused: Default::default(),
                    ..described.progress
                },
                ..described
            };
            id = id.next();
            for segment in &mut described.segments {
                segment.id = shared.next_segment();
                for file in &mut segment.files {
                    let base = file.name.rsplit('/').next().unwrap_or_default();
                    let name = name::segment_file(described.id, segment.id, base);
                    self.names.insert(std::mem::replace(&mut file.name, name.clone()), name);
                }
            }
            self.collections.push(described);
        }
        Ok(())
    }

    async fn add(&mut self) -> Result<Vec<String>> {
        let shared = self.db.inner.shared.clone();
        shared.check_open()?;
        if let Some(file) = std::mem::take(&mut self.unpacker).finish()?.keys().next() {
            return Err(Error::corrupt(format!("the archive lacks {file}, as its manifest names it")));
        }
        shared.clock.lock().expect("no panic while held").observe(self.clock, platform::now_ms())?;
        let mut opened = Vec::new();
        for described in &self.collections {
            check_free(&self.db, &described.name)?;
            let entries = shared.storage.list(&name::collection(described.id)).await?;
            opened.push(open_collection(&*shared.storage, described, &entries, shared.next_segment(), None).await?);
        }
        shared
            .swap_manifest(|manifest| {
                manifest.collections.extend(self.collections.iter().cloned());
                Ok(())
            })
            .await?;
        let mut names = Vec::new();
        for (described, opened) in std::mem::take(&mut self.collections).into_iter().zip(opened) {
            let name = described.name;
            let (state, log) = (opened.state, opened.log);
            let collection = Collection::new(shared.clone(), described.id, &name, state, log, described.partitions);
            self.db.insert_collection(collection);
            names.push(name);
        }
        self.db.fit_cache();
        Ok(names)
    }

    async fn remove_all(&mut self) {
        let storage = self.db.inner.shared.storage.clone();
        for name in self.written.drain(..) {
            if let Err(error) = storage.remove(&name).await {
                tracing::warn!("{name}, of an import that failed, stays until the next open: {error}");
            }
        }
    }
}

fn check_free(db: &Db, name: &str) -> Result<()> {
    if db.collection(name).is_err() {
        return Ok(());
    }
    let message = format!("collection {name:?} exists already: drop it, or import elsewhere");
    Err(Error::new(ErrorKind::AlreadyExists, message))
}
