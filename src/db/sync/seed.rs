//! The first sync by segments: what a hub offers, and how a replica takes it in.
//!
//! An offer is what the hub's manifest says of the collection, as MessagePack. Its files are counted through all segments. A replica
//! keeps pieces of files in the storage, where the next connection finds them, and takes a segment into the collection as soon as it has
//! all of it; so a download that is cut goes on where it ended, and rows are found before everything is here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::session::start_of;
use crate::base::codec::{checksum, checksum_append};
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, SegmentId, Sequence, message};
use crate::db::access::{Access, forbidden};
use crate::db::archive::StoreSnapshot;
use crate::db::recovery::file_kind;
use crate::db::writer::put_fresh;
use crate::db::{Collection, Db};
use crate::engine::{CollectionManifest, FileEntry, Progress, SegmentManifest, name};
use crate::index::IndexSpec;
use crate::sync::{CONTROL_BYTES_MAX, Start, Want};

/// How much of a file that is here in part is read at once.
const READ_BYTES: u64 = 2 << 20;

/// What a hub has offered to one client.
pub(super) struct Offered {
    snapshot: StoreSnapshot,
    files: Vec<FileEntry>,
}

impl Offered {
    /// A part of file `file`.
    pub(super) async fn read(&self, file: u32, offset: u64, len: u32) -> Result<Vec<u8>> {
        let entry = self
            .files
            .get(file as usize)
            .ok_or_else(|| Error::invalid(format!("file {file} of an offer of {}", self.files.len())))?;
        Ok(self.snapshot.read_part(entry, offset, u64::from(len)).await?.to_vec())
    }
}

/// Where plain requests find a file: a path never means other bytes.
fn path_of(file: &FileEntry) -> String {
    format!("{:08x}/{}", file.checksum, file.name)
}

/// A file of a flushed segment, for a plain request. It stays while this is there.
pub struct HubFile {
    snapshot: StoreSnapshot,
    entry: FileEntry,
    private: bool,
}

impl HubFile {
    /// That of `path`, for who has `access`: only who may read all rows of a collection may have its files.
    pub(super) async fn find(db: &Db, access: &Access, path: &str, private: bool) -> Result<Self> {
        let not_found = || Error::not_found(format!("no file {path:?} (any more)"));
        let snapshot = db.pin().await;
        let (id, entry) = snapshot.find(|file| path_of(file) == path).ok_or_else(not_found)?;
        let collections = db.collections();
        let collection = collections.iter().find(|collection| collection.id() == id).ok_or_else(not_found)?;
        if !collection.limited(access)?.limits.read.is_all() || !collection.is_whole() {
            return Err(forbidden(format!("collection {:?}: not all of it may be read", collection.name())));
        }
        Ok(Self { snapshot, entry, private })
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.entry.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their CRC-32C.
    pub fn checksum(&self) -> u32 {
        self.entry.checksum
    }

    /// Whether not everybody may have it.
    pub fn is_private(&self) -> bool {
        self.private
    }

    /// A part of it, which nobody has checked.
    ///
    /// # Errors
    /// `InvalidArgument` when the file has no such part, and what the storage says.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Bytes> {
        self.snapshot.read_part(&self.entry, offset, len).await
    }
}

/// What to tell a client that has all up to `after` and what is `known`; nothing when segments would not help it.
pub(super) async fn offer(
    db: &Db,
    collection: &Collection,
    after: Lsn,
    known: &BTreeMap<ReplicaId, Sequence>,
    rows_min: usize,
) -> Result<Option<(Vec<u8>, Offered)>> {
    if !collection.limits.read.is_all() {
        return Ok(None);
    }
    match collection.lies_in_segments(after, known, rows_min) {
        (false, false) => return Ok(None),
        // Most of it is in the log only: after a load, say.
        (false, true) => db.flush(collection.name()).await?,
        (true, _) => {}
    }
    // Rows that were let go of lie in segments still. Who takes these in is not told of that, and of a delete nobody here may know.
    if collection.inner.state.read().expect("no panic while held").has_evictions() {
        return Ok(None);
    }
    let mut snapshot = db.pin().await;
    let Some(described) = snapshot.take(collection.id()) else { return Ok(None) };
    if described.progress.lsn <= after || described.segments.is_empty() {
        return Ok(None);
    }
    let offered = CollectionManifest {
        // Whom else this hub has met is nobody's business.
        progress: Progress {
            positions: BTreeMap::new(),
            answers: Default::default(),
            cursors: Default::default(),
            refused: Default::default(),
            parts: Default::default(),
            ..described.progress
        },
        ..described
    };
    let bytes = rmp_serde::to_vec_named(&offered)
        .map_err(|error| Error::internal(format!("an offer could not be encoded: {error}")))?;
    if bytes.len() > CONTROL_BYTES_MAX - 64 {
        return Ok(None);
    }
    let files = offered.segments.into_iter().flat_map(|segment| segment.files).collect();
    Ok(Some((bytes, Offered { snapshot, files })))
}

/// Segments on their way into a collection.
pub(super) struct Seeding {
    hub: ReplicaId,
    /// Which of the connections that bring segments.
    turn: u64,
    there: Progress,
    segments: Vec<Coming>,
    /// By number in the offer.
    files: Vec<Option<Part>>,
}

struct Coming {
    /// Its id at the hub.
    there: SegmentId,
    /// As the manifest here will name it.
    described: SegmentManifest,
    /// How many of its files are not whole.
    left: usize,
}

struct Part {
    /// Whose it is.
    segment: usize,
    entry: FileEntry,
    /// Where plain requests find it.
    path: Arc<str>,
    /// How much is here, with which checksum.
    len: u64,
    sum: u32,
    /// Some of it was here before this connection: a crash may have left it torn.
    resumed: bool,
    /// Plain requests have brought some of it: whatever lies between the hub and here may have spoiled it.
    requested: bool,
    /// Something was added on this connection.
    appended: bool,
}

/// Looks what of an offer is not here.
pub(super) async fn plan(
    db: &Db,
    collection: &Collection,
    hub: ReplicaId,
    offer: &[u8],
) -> Result<(Seeding, Vec<Want>)> {
    let offered: CollectionManifest =
        message::decode(offer).map_err(|error| Error::corrupt(format!("an offer of segments: {error}")))?;
    // A piece that an earlier connection has got may still be on its way into storage.
    let mut turn = collection.inner.seeding.lock().await;
    *turn += 1;
    if offered.spec.schema.partitioned() {
        db.divide(collection).await?;
    }
    let mut seeding = Seeding { hub, turn: *turn, there: offered.progress, segments: Vec::new(), files: Vec::new() };
    let here = db.adopted(collection, hub).await;
    let storage = &*db.inner.shared.storage;
    let prefix = name::incoming_from(collection.id(), hub);
    let lens: BTreeMap<String, u64> =
        storage.list(&prefix).await?.into_iter().map(|entry| (entry.name, entry.len)).collect();
    let mut wants = Vec::new();
    for segment in offered.segments {
        if here.contains(&segment.id) {
            seeding.files.extend(segment.files.iter().map(|_| None));
            continue;
        }
        let id = db.inner.shared.next_segment();
        let mut coming = Coming {
            there: segment.id,
            described: SegmentManifest { id, rows: segment.rows, files: Vec::new(), adopted: None },
            left: 0,
        };
        let mut names = BTreeSet::new();
        for file in segment.files {
            file_kind(&file)?;
            // An index that is of another kind here is built here.
            let fits =
                |field: &String| index_of(&offered.spec.indexes, field) == index_of(&collection.spec().indexes, field);
            if matches!(file.kind.as_str(), "index" | "terms") && !file.field.as_ref().is_some_and(fits) {
                seeding.files.push(None);
                continue;
            }
            let path: Arc<str> = path_of(&file).into();
            let entry = FileEntry { name: name::incoming_file(collection.id(), hub, segment.id, &file), ..file };
            if !names.insert(entry.name.clone()) {
                return Err(Error::corrupt(format!("an offer of segments names {} twice", entry.name)));
            }
            let (len, sum) = part_here(db, &entry, lens.get(&entry.name).copied()).await?;
            if len < entry.len {
                coming.left += 1;
                let file = seeding.files.len() as u32;
                wants.push(Want { file, offset: len, len: entry.len - len, path: path.clone() });
            }
            coming.described.files.push(entry.clone());
            seeding.files.push(Some(Part {
                segment: seeding.segments.len(),
                entry,
                path,
                len,
                sum,
                resumed: len > 0,
                requested: false,
                appended: false,
            }));
        }
        seeding.segments.push(coming);
    }
    for index in 0..seeding.segments.len() {
        if seeding.segments[index].left == 0 {
            seeding.adopt(db, collection, index).await?;
        }
    }
    Ok((seeding, wants))
}

fn index_of<'a>(indexes: &'a BTreeMap<String, IndexSpec>, field: &str) -> Option<&'a IndexSpec> {
    indexes.get(field)
}

/// How much of a file is here already, with which checksum. One that is whole and wrong is not here.
async fn part_here(db: &Db, entry: &FileEntry, found: Option<u64>) -> Result<(u64, u32)> {
    let storage = &*db.inner.shared.storage;
    if entry.len == 0 {
        put_fresh(storage, &entry.name, &Bytes::new()).await?;
        return Ok((0, checksum(&[])));
    }
    let Some(found) = found else { return Ok((0, checksum(&[]))) };
    let (mut len, mut sum) = (0, checksum(&[]));
    while len < found.min(entry.len) {
        let bytes = storage.read(&entry.name, len, READ_BYTES.min(found - len)).await?;
        if bytes.is_empty() {
            break;
        }
        len += bytes.len() as u64;
        sum = checksum_append(sum, &bytes);
    }
    if found > entry.len || (len == entry.len && sum != entry.checksum) {
        storage.remove(&entry.name).await?;
        return Ok((0, checksum(&[])));
    }
    if len == entry.len {
        // Whoever wrote its end may have been gone before it was synced.
        if let Err(error) = storage.sync(&entry.name).await {
            // Nothing would be added to it any more; it is fetched anew.
            storage.remove(&entry.name).await?;
            return Err(error);
        }
    }
    Ok((len, sum))
}

impl Seeding {
    /// Stores a piece; tells what has to be fetched again, if anything.
    pub(super) async fn store(
        &mut self,
        db: &Db,
        collection: &Collection,
        file: u32,
        offset: u64,
        bytes: Vec<u8>,
        by_request: bool,
    ) -> Result<Option<Want>> {
        let turn = collection.inner.seeding.lock().await;
        if *turn != self.turn {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "another connection brings the segments of this collection",
            ));
        }
        let stored = bytes.len() as u64;
        let part = self.files.get_mut(file as usize).and_then(Option::as_mut);
        let part = part.filter(|part| part.len == offset && stored <= part.entry.len - part.len);
        let part =
            part.ok_or_else(|| Error::internal(format!("a piece of file {file} from {offset} that nobody wanted")))?;
        let storage = &*db.inner.shared.storage;
        part.sum = checksum_append(part.sum, &bytes);
        if let Err(error) = storage.append(&part.entry.name, bytes.into()).await {
            // More is taken only when this is cut off, or what failed before this connection, which may have been earlier.
            let resumed = part.resumed && !part.appended;
            if resumed || storage.truncate(&part.entry.name, part.len).await.is_err() {
                storage.remove(&part.entry.name).await?;
            }
            return Err(error);
        }
        part.appended = true;
        part.requested |= by_request;
        part.len += stored;
        if part.len < part.entry.len {
            return Ok(None);
        }
        if part.sum != part.entry.checksum {
            storage.remove(&part.entry.name).await?;
            let found = std::mem::replace(&mut part.sum, checksum(&[]));
            part.len = 0;
            if std::mem::take(&mut part.resumed) | std::mem::take(&mut part.requested) {
                return Ok(Some(Want { file, offset: 0, len: part.entry.len, path: part.path.clone() }));
            }
            return Err(Error::corrupt(format!(
                "{}: checksum {:08x} of what came; {:08x} expected",
                part.entry.name, found, part.entry.checksum
            )));
        }
        if let Err(error) = storage.sync(&part.entry.name).await {
            storage.remove(&part.entry.name).await?;
            return Err(error);
        }
        let segment = part.segment;
        self.segments[segment].left -= 1;
        if self.segments[segment].left == 0 {
            self.adopt(db, collection, segment).await?;
        }
        Ok(None)
    }

    async fn adopt(&mut self, db: &Db, collection: &Collection, segment: usize) -> Result<()> {
        let coming = &self.segments[segment];
        let adopted = db.adopt(collection, coming.described.clone(), self.hub, coming.there).await;
        if let Err(error) = &adopted
            && error.kind() == ErrorKind::Corrupt
        {
            // Whole by their checksums and still wrong: they are of no use.
            for file in &coming.described.files {
                db.inner.shared.storage.remove(&file.name).await?;
            }
        }
        adopted
    }

    /// All is stored.
    pub(super) async fn end(self, db: &Db, collection: &Collection) -> Result<Start> {
        db.end_adoption(collection, self.hub, self.there).await?;
        Ok(start_of(collection, self.hub))
    }
}
