use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use super::database::{Shared, write_outline};
use super::log::Log;
use super::{Collection, Options};
use crate::base::codec::checksum;
use crate::base::{Error, ErrorKind, HybridClock, Lsn, ReplicaId, Result, SegmentId, map_of, sort_by};
use crate::engine::{
    CollectionManifest, CollectionSpec, CollectionState, FileEntry, Manifest, Record, SegmentManifest, name,
};
use crate::platform::Environment;
use crate::segment::{self, FileKind, Segment, StoredFile};
use crate::storage::{Entry, Storage};
use crate::wal;

/// How often a takeover is tried when other owners get in between.
const TAKEOVERS_MAX: usize = 8;

/// Reads a store: the newest whole manifest, the segments that it names, then the logs after them. Removes what a crash left.
pub(super) async fn open(
    storage: Arc<dyn Storage>,
    options: Options,
) -> Result<(Arc<Shared>, BTreeMap<String, Collection>)> {
    let (manifest, fenced) = take_over(&*storage, &options).await?;
    let entries = storage.list("").await?;
    let mut states = Vec::new();
    let mut clock = manifest.clock;
    let mut next_segment = manifest.next_segment;
    for described in &manifest.collections {
        let fence = fenced.then_some(manifest.fence);
        let opened = open_collection(&*storage, described, &entries, next_segment, fence).await?;
        clock = clock.max(opened.state.progress().timestamp);
        next_segment = next_segment.next();
        states.push((described, opened));
    }
    sweep(&*storage, &manifest, &entries).await?;
    refresh_copy(&*storage, &manifest, &entries).await?;
    refresh_outline(&*storage, &manifest, &entries).await?;
    let shared = Manifest { next_segment, ..manifest.clone() };
    let shared = Arc::new(Shared::new(storage, options, shared, HybridClock::starting_after(clock)));
    let collections = states.into_iter().map(|(described, opened)| {
        let (state, log, partitions) = (opened.state, opened.log, described.partitions.clone());
        let collection = Collection::new(shared.clone(), described.id, &described.name, state, log, partitions);
        (described.name.clone(), collection)
    });
    let collections = map_of(collections);
    Ok((shared, collections))
}

/// Writes a manifest that differs from the newest in its fencing number only, and in the replica's where that was given. From then on an owner before this one, should it
/// still be there (a machine that slept, a network file system that forgot a lock), cannot write a manifest: see
/// [`Shared::swap_manifest`]. What it may still append to a log is told apart when that is replayed. False when the disk is too full
/// for that: then the storage's own lock has to do, and the store can at least be read.
async fn take_over(storage: &dyn Storage, options: &Options) -> Result<(Manifest, bool)> {
    let mut tries = 0;
    loop {
        let entries = storage.list("").await?;
        let current = newest_manifest(storage, &entries, &options.environment).await?;
        let mut next = current.clone();
        next.version += 1;
        next.fence += 1;
        next.replica_number = options.replica_number.or(current.replica_number);
        next.next_segment = SegmentId(name::first_of_owner(next.fence, next.next_segment.0));
        let path = name::manifest(next.version);
        tries += 1;
        match storage.put(&path, next.encode().into()).await {
            Ok(()) => {
                if current.version > 0 {
                    storage.remove(&name::manifest(current.version)).await?;
                }
                return Ok((next, true));
            }
            Err(error) if error.kind() == ErrorKind::StorageFull && current.version > 0 => {
                storage.remove(&path).await?;
                tracing::warn!("the disk is full: what is there can be read, and hardly anything written");
                return Ok((current, false));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists && tries < TAKEOVERS_MAX => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Error::new(ErrorKind::Locked, format!("{path}: other owners keep writing to this store")));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The newest whole manifest. One that a crash cut short counts only as long as no older one is there: the older one is
/// removed before the newer is acknowledged, and everything that it names after that. Of a new store it has version 0, and is
/// nowhere yet.
async fn newest_manifest(storage: &dyn Storage, entries: &[Entry], environment: &Environment) -> Result<Manifest> {
    let names: Vec<&str> =
        entries.iter().map(|entry| entry.name.as_str()).filter(|name| name.starts_with(name::MANIFESTS)).collect();
    let mut torn = Vec::new();
    let (mut found, mut damage) = (None, None);
    for (index, path) in names.iter().enumerate().rev() {
        let bytes = storage.read_all(path).await?;
        match Manifest::decode(&bytes) {
            Ok(Some(manifest)) => {
                found = Some((index, manifest));
                break;
            }
            Ok(None) => torn.push(*path),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                torn.push(*path);
                damage = Some(error.context(path));
            }
            Err(error) => return Err(error.context(path)),
        }
    }
    if let Some((index, manifest)) = found {
        for path in torn.iter().chain(&names[..index]) {
            storage.remove(path).await?;
        }
        return Ok(manifest);
    }
    // A first start that crashed leaves at most a part of the first manifest.
    let first = name::manifest(1);
    if let Some(entry) = entries.iter().find(|entry| entry.name != first) {
        return Err(damage.unwrap_or_else(|| {
            Error::corrupt(format!(
                "{}: there is {} but no whole manifest; repair the store, or restore it from a replica or a backup",
                name::MANIFESTS,
                entry.name
            ))
        }));
    }
    for path in torn {
        storage.remove(path).await?;
    }
    // 53 bits, so that JavaScript can hold it; never 0, which is nobody.
    Ok(Manifest::new(ReplicaId((environment.random_u64() >> 11).max(1))))
}

pub(super) struct Opened {
    pub(super) state: CollectionState,
    pub(super) log: Log,
}

pub(super) async fn open_collection(
    storage: &dyn Storage,
    described: &CollectionManifest,
    entries: &[Entry],
    growing: SegmentId,
    fence: Option<u64>,
) -> Result<Opened> {
    let spec = described.spec.clone().completed()?;
    let schema = spec.schema.clone();
    let mut state = CollectionState::new(spec, growing, described.progress.clone());
    let mut arrived = Lsn(0);
    let mut segments = Vec::new();
    for segment in &described.segments {
        segments.push(read_segment(storage, entries, state.spec(), segment, false).await?);
        arrived = arrived.max(segment.adopted.map_or(Lsn(0), |adopted| adopted.lsn));
    }
    segments.iter().for_each(|segment| state.note_evictions(segment));
    segments.into_iter().for_each(|segment| state.add_flushed(segment));
    let prefix = name::logs(described.id);
    let mut logs: Vec<(u64, &str)> = entries
        .iter()
        .filter(|entry| entry.name.starts_with(&prefix))
        .filter_map(|entry| Some((name::number(&entry.name)?, entry.name.as_str())))
        .filter(|(number, _)| *number >= described.log_start)
        .collect();
    sort_by(&mut logs, Ord::cmp);
    let mut lengths = BTreeMap::new();
    let mut expected = described.log_start;
    for (index, &(number, path)) in logs.iter().enumerate() {
        if number != expected && !name::begins_owner(number) {
            return Err(Error::corrupt(format!("{}: missing, but {path} is there", name::log(described.id, expected))));
        }
        expected = number + 1;
        let bytes = storage.read_all(path).await?;
        let later = later_owner(storage, &logs[index + 1..]).await?;
        let until = later.map(|(lsn, _)| lsn);
        let replay = wal::replay(path, &bytes, described.id, number, state.progress().frame.next(), until)?;
        for frame in &replay.frames {
            let record = Record::decode(&schema, frame.kind, &frame.payload)
                .map_err(|error| Error::corrupt(format!("{path}: at byte {}: {error}", frame.offset)))?;
            match record {
                Record::Changes { from, changes } => {
                    state.apply(frame.lsn, &changes, from);
                }
                Record::Position { hub, position } => state.set_position(frame.lsn, hub, position),
                Record::Lost { last } => state.set_lost(last),
                Record::Cursor { name, lsn } => state.set_cursor(frame.lsn, &name, lsn),
                Record::Refused(refused) => state.set_refused(frame.lsn, refused),
                Record::Part { hub, pulled, kept } => state.set_part(frame.lsn, hub, pulled, kept),
            }
        }
        let next = state.progress().frame.next();
        if until != Some(next) && replay.valid_len < bytes.len() {
            let of_same_owner = logs.get(index + 1).map(|(next, path)| (!name::begins_owner(*next), *path));
            let later = later.map(|(_, path)| path).or(of_same_owner.and_then(|(same, path)| same.then_some(path)));
            if let Some(later) = later.filter(|_| replay.is_torn) {
                return Err(Error::corrupt(format!(
                    "{path}: at byte {}: cut short, but a later log file, {later}, is there",
                    replay.valid_len
                )));
            }
            if replay.is_torn {
                tracing::warn!(
                    file = path,
                    bytes = bytes.len() - replay.valid_len,
                    "cut a torn tail that was never acknowledged"
                );
            }
            if replay.valid_len == 0 {
                storage.remove(path).await?;
            } else {
                storage.truncate(path, replay.valid_len as u64).await?;
            }
        }
        if replay.valid_len > 0 {
            // The process may have died between an append and its sync: what readers are about to see must not be lost again.
            storage.sync(path).await?;
        }
        lengths.insert(number, replay.valid_len as u64);
    }
    state.note_arrival(arrived);
    if let Some(fence) = fence {
        // Not the file that an earlier owner may still be appending to.
        let last = lengths.last_key_value().map_or(described.log_start, |(number, _)| *number);
        lengths.insert(name::first_of_owner(fence, last), 0);
    }
    Ok(Opened { state, log: Log::new(described.log_start, lengths) })
}

/// The first frame of the first later owner that has a whole one, and its file.
async fn later_owner<'a>(storage: &dyn Storage, logs: &[(u64, &'a str)]) -> Result<Option<(Lsn, &'a str)>> {
    for (_, path) in logs.iter().filter(|(number, _)| name::begins_owner(*number)) {
        if let Some(lsn) = wal::first_lsn(&storage.read_all(path).await?) {
            return Ok(Some((lsn, path)));
        }
    }
    Ok(None)
}

/// The bytes of a segment's file, when they are those that were written.
pub(super) async fn read_checked(storage: &dyn Storage, file: &FileEntry) -> Result<Bytes> {
    let bytes = storage.read_all(&file.name).await?;
    if bytes.len() as u64 != file.len || checksum(&bytes) != file.checksum {
        return Err(Error::corrupt(format!(
            "{}: {} bytes with checksum {:08x}; expected {} with {:08x}",
            file.name,
            bytes.len(),
            checksum(&bytes),
            file.len,
            file.checksum
        )));
    }
    Ok(bytes)
}

/// A segment that a manifest names; unless `whole`, without what can be read when it is asked for: wide columns and vectors are most of
/// the bytes, and a first search needs little of them.
pub(super) async fn read_segment(
    storage: &dyn Storage,
    entries: &[Entry],
    spec: &CollectionSpec,
    described: &SegmentManifest,
    whole: bool,
) -> Result<Segment> {
    let mut files = BTreeMap::new();
    for file in &described.files {
        let kind = file_kind(file)?;
        // Its index must be built anew from it when that is not there.
        let lacks_terms = |column: &String| {
            let is_there = |name: &str| {
                described.files.iter().any(|other| other.kind == "terms" && other.field.as_deref() == Some(name))
            };
            spec.terms_of(column).any(|name| !is_there(name))
        };
        let stays = !whole
            && match &kind {
                FileKind::Column(field) => !lacks_terms(field),
                kind => matches!(kind, FileKind::Vector(_)),
            };
        let bytes = if stays { None } else { Some(read_checked(storage, file).await?) };
        if stays {
            let found = entries.iter().find(|entry| entry.name == file.name).map_or(0, |entry| entry.len);
            if found != file.len {
                return Err(Error::corrupt(format!("{}: {found} bytes; expected {}", file.name, file.len)));
            }
        }
        files.insert(kind, StoredFile { name: file.name.clone(), bytes });
    }
    let names = map_of(files.iter().map(|(kind, file)| (kind.clone(), file.name.clone())));
    let layout = files.get(&FileKind::Layout).and_then(|file| Some((&file.name, file.bytes.as_ref()?)));
    let (layout, bytes) =
        layout.ok_or_else(|| Error::corrupt(format!("segment {}: the manifest names no layout", described.id)))?;
    let layout = segment::layout(&spec.schema, layout, bytes, &names)?;
    let mut segment = segment::decode(described.id, &spec.schema, &spec.indexes, layout, &files)?;
    if let Some(adopted) = &described.adopted {
        segment.arrive(adopted.lsn);
    }
    Ok(segment)
}

pub(super) fn file_kind(file: &FileEntry) -> Result<FileKind> {
    match (file.kind.as_str(), &file.field) {
        ("layout", None) => Ok(FileKind::Layout),
        ("rows", None) => Ok(FileKind::Rows),
        ("column", Some(field)) => Ok(FileKind::Column(field.clone())),
        ("deletes", None) => Ok(FileKind::Deletes),
        ("vector", Some(field)) => Ok(FileKind::Vector(field.clone())),
        ("index", Some(field)) => Ok(FileKind::Index(field.clone())),
        ("terms", Some(field)) => Ok(FileKind::Terms(field.clone())),
        (kind, _) => Err(Error::new(
            ErrorKind::Unsupported,
            format!("{}: segment files of kind {kind:?} are of a later version", file.name),
        )),
    }
}

/// The entry of a segment's file in the manifest.
pub(super) fn file_entry(kind: &FileKind, name: String, bytes: &[u8]) -> FileEntry {
    let (kind, field) = match kind {
        FileKind::Layout => ("layout", None),
        FileKind::Rows => ("rows", None),
        FileKind::Column(field) => ("column", Some(field.clone())),
        FileKind::Deletes => ("deletes", None),
        FileKind::Vector(field) => ("vector", Some(field.clone())),
        FileKind::Index(field) => ("index", Some(field.clone())),
        FileKind::Terms(field) => ("terms", Some(field.clone())),
    };
    FileEntry { kind: kind.to_owned(), field, name, len: bytes.len() as u64, checksum: checksum(bytes) }
}

/// Makes the copy of the manifest that a crash or damage has taken, and removes those of others.
async fn refresh_copy(storage: &dyn Storage, manifest: &Manifest, entries: &[Entry]) -> Result<()> {
    let (path, bytes) = (name::copy(manifest.version), Bytes::from(manifest.encode()));
    for entry in entries.iter().filter(|entry| entry.name.starts_with(name::COPIES)) {
        if entry.name == path && storage.read_all(&path).await.is_ok_and(|found| found == bytes) {
            return Ok(());
        }
        storage.remove(&entry.name).await?;
    }
    match storage.put(&path, bytes).await {
        // What is there can be read all the same.
        Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
        put => put,
    }
}

/// Makes the outline of the manifest that a crash or damage has taken.
async fn refresh_outline(storage: &dyn Storage, manifest: &Manifest, entries: &[Entry]) -> Result<()> {
    let outline = manifest.outline();
    let bytes = outline.encode();
    let mut there = entries.iter().filter(|entry| entry.name.starts_with(name::OUTLINES));
    if let (Some(only), None) = (there.next(), there.next())
        && storage.read_all(&only.name).await.is_ok_and(|found| found == bytes)
    {
        return Ok(());
    }
    match write_outline(storage, &outline, manifest.version).await {
        Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
        written => written,
    }
}

/// Removes files that the manifest does not name: segments whose flush did not end, logs that are wholly in segments,
/// collections that were dropped.
async fn sweep(storage: &dyn Storage, manifest: &Manifest, entries: &[Entry]) -> Result<()> {
    let named: BTreeSet<&str> = manifest
        .collections
        .iter()
        .flat_map(|collection| &collection.segments)
        .flat_map(|segment| &segment.files)
        .map(|file| file.name.as_str())
        .collect();
    // What a pipeline does not need any more it removes itself.
    let kept =
        [name::MANIFESTS, name::COPIES, name::OUTLINES, name::ASIDE, name::PIPELINES, name::PUSH_STREAMS, name::BUS];
    let swept = |entry: &&Entry| !kept.iter().any(|prefix| entry.name.starts_with(prefix));
    for entry in entries.iter().filter(swept) {
        let is_live_log = manifest.collections.iter().any(|collection| {
            entry.name.starts_with(&name::logs(collection.id))
                && name::number(&entry.name).is_some_and(|number| number >= collection.log_start)
        });
        // The files of a segment that is on its way from elsewhere: it goes on where it ended.
        let comes =
            manifest.collections.iter().any(|collection| entry.name.starts_with(&name::incoming(collection.id)));
        // What lost is looked at when somebody asks.
        let is_kept =
            manifest.collections.iter().any(|collection| entry.name.starts_with(&name::conflicts(collection.id)));
        if !is_live_log && !comes && !is_kept && !named.contains(entry.name.as_str()) {
            tracing::debug!(file = entry.name, "removed a file that no manifest names");
            storage.remove(&entry.name).await?;
        }
    }
    Ok(())
}
