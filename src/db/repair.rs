use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::recovery::{file_entry, read_checked, read_segment};
use crate::base::{CollectionId, Error, ErrorKind, Lsn, ReplicaId, Result, SegmentId, Timestamp};
use crate::engine::{Adopted, CollectionManifest, CollectionSpec, Manifest, Progress, Record, SegmentManifest, name};
use crate::segment::{self, FileKind, Segment};
use crate::storage::{Entry, Storage};
use crate::wal::{self, Frame, FrameKind};

/// What is wrong with a store, and what a repair does about it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RepairReport {
    /// In the order in which they were found.
    pub findings: Vec<Finding>,
    /// Damaged files and the names under which they are kept, which the store ignores.
    pub set_aside: Vec<(String, String)>,
    /// Whether the repair was written; else this is what it would do.
    pub written: bool,
}

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The file.
    pub file: String,
    /// Where the damage starts in it.
    pub offset: u64,
    /// How many bytes are damaged; 0 when the file is missing.
    pub bytes: u64,
    /// What is wrong with them.
    pub what: String,
    /// What is lost with them.
    pub loss: Loss,
}

impl Finding {
    /// Whether it is not known yet how much is lost.
    fn is_open(&self) -> bool {
        matches!(self.loss, Loss::Frames { last: None, .. })
    }
}

/// What damage takes along.
#[derive(Debug, Clone, PartialEq)]
pub enum Loss {
    /// There is another copy, or it is made anew from what is there.
    Nothing,
    /// Rows of a flushed segment; where they had replaced or deleted others, those are back.
    Rows {
        /// Their collection.
        collection: String,
        /// How many, dead ones included.
        rows: u64,
    },
    /// Deletes: the rows that they removed are back unless those were rewritten since.
    Deletes {
        /// Their collection.
        collection: String,
    },
    /// Writes in the log.
    Frames {
        /// Their collection.
        collection: String,
        /// The first lost one.
        first: Lsn,
        /// The last lost one; `None` when nobody knows how many there were.
        last: Option<Lsn>,
    },
    /// What only the manifest tells: it was made anew from an outline, the segments and the logs. The past, how far subscriptions and sync
    /// have got, what hubs have refused and answers that clients may ask for again are forgotten; of what was dropped in the last
    /// moment something may be back.
    Manifest,
    /// Nobody knows: files that no collection accounts for. They may be what a crash or a drop has left.
    Unknown,
    /// Everything since an older manifest.
    Newer {
        /// Its version.
        manifest: u64,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing is lost"),
            Self::Rows { collection, rows } => write!(f, "{rows} rows of {collection:?} are lost"),
            Self::Deletes { collection } => write!(f, "deletes of {collection:?} are lost: rows may be back"),
            Self::Frames { collection, first, last: Some(last) } if first == last => {
                write!(f, "write {first} of {collection:?} is lost")
            }
            Self::Frames { collection, first, last: Some(last) } => {
                write!(f, "writes {first} to {last} of {collection:?} are lost")
            }
            Self::Frames { collection, first, last: None } => {
                write!(f, "writes from {first} on of {collection:?} are lost, if any was acknowledged")
            }
            Self::Manifest => f.write_str(
                "made anew from segments and logs: the past, places of subscriptions, progress of sync, refused batches and answers that \
                 clients may ask for again are forgotten",
            ),
            Self::Unknown => f.write_str("perhaps left over by a crash or a drop; what was in it is lost if not"),
            Self::Newer { manifest } => write!(f, "what was flushed since manifest {manifest} is lost"),
        }
    }
}

/// Looks at everything in a store that is not open, whether it opens or not, and says what is wrong; with `write`, makes it one that
/// opens and holds all that is whole.
///
/// Damaged frames of a log are left out and the others kept; a segment whose rows or vectors are damaged is left out; a damaged
/// graph is built again by background work; a damaged manifest is replaced by its copy, or by the newest that is whole. Where
/// something is lost, the store forgets how far it had got with its hubs, so that the next sync sends it what they have of it, and
/// rows that only they deleted are deleted again. Damaged files stay under `aside/`. A crash in between leaves the store as it was
/// or repaired.
///
/// When no manifest and no copy of one can be read, one is made from the store's outline, which tells its collections, from all segments
/// that are whole, and from all logs. A segment that was replaced already, and not yet removed, changes nothing by coming back: for every key
/// the newest version counts. Graphs and other indexes are built anew.
///
/// # Errors
/// `Corrupt` when no manifest, no copy and no outline of one can be read, `Unsupported` for files of a later version, and what the storage says
/// of its own failures.
pub async fn repair(storage: &dyn Storage, write: bool) -> Result<RepairReport> {
    let entries = storage.list("").await?;
    let mut repair = Repair { storage, entries, report: RepairReport::default(), damaged: BTreeSet::new() };
    let Some((mut manifest, mut changed)) = repair.manifest().await? else { return Ok(repair.report) };
    let rebuilt = manifest.version == 0;
    let mut logs = Vec::new();
    for collection in &mut manifest.collections {
        let lost = repair.segments(collection, &mut changed).await? || rebuilt;
        let files = repair.log_files(collection);
        let damaged = repair.log(collection, &files, None).await?;
        if lost || damaged {
            changed = true;
            if !files.is_empty() {
                logs.push((collection.id, files));
            }
        }
        if lost {
            collection.progress.seen.clear();
            collection.progress.positions.clear();
        }
    }
    if changed {
        let is_numbered = |name: &str| name::is_manifest_or_copy(name) || name.starts_with(name::OUTLINES);
        let number = |entry: &Entry| name::number(&entry.name).filter(|_| is_numbered(&entry.name));
        manifest.fence += 1;
        manifest.version = repair.entries.iter().filter_map(number).max().unwrap_or_default().max(manifest.version) + 1;
    }
    let aside = |file: &String| (file.clone(), name::aside(manifest.version, file));
    repair.report.set_aside = repair.damaged.iter().map(aside).collect();
    if write && changed {
        repair.write(manifest, &logs).await?;
        repair.report.written = true;
    }
    Ok(repair.report)
}

struct Repair<'a> {
    storage: &'a dyn Storage,
    entries: Vec<Entry>,
    report: RepairReport,
    /// Files that are there and not as they should be.
    damaged: BTreeSet<String>,
}

/// A damaged or missing file is what a repair is for; a later version, a lock or a lost connection is not.
fn damage<T>(read: Result<T>) -> Result<Result<T, String>> {
    match read {
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound | ErrorKind::Io) => {
            Ok(Err(error.message().to_owned()))
        }
        Err(error) => Err(error),
        Ok(value) => Ok(Ok(value)),
    }
}

impl Repair<'_> {
    fn find(&mut self, file: &str, offset: u64, bytes: u64, what: String, loss: Loss) {
        if self.entries.iter().any(|entry| entry.name == file) {
            self.damaged.insert(file.to_owned());
        }
        self.report.findings.push(Finding { file: file.to_owned(), offset, bytes, what, loss });
    }

    fn len(&self, file: &str) -> u64 {
        self.entries.iter().find(|entry| entry.name == file).map_or(0, |entry| entry.len)
    }

    /// The newest manifest that can be read, and whether it must be written again; one of version 0 when it was made anew. `None` for an
    /// empty store.
    async fn manifest(&mut self) -> Result<Option<(Manifest, bool)>> {
        let names: Vec<String> = self.entries.iter().map(|entry| entry.name.clone()).collect();
        let mut best: Option<(Manifest, bool)> = None;
        let mut unreadable = Vec::new();
        // Ascending, copies first: of equal versions the manifest itself is taken.
        for file in names.iter().filter(|file| name::is_manifest_or_copy(file)) {
            let is_copy = !file.starts_with(name::MANIFESTS);
            match damage(self.storage.read_all(file).await.and_then(|bytes| Manifest::decode(&bytes)))? {
                Ok(Some(found)) => {
                    if best.as_ref().is_none_or(|(best, _)| found.version >= best.version) {
                        best = Some((found, is_copy));
                    }
                }
                Ok(None) => unreadable.push((file, "it is cut short".to_owned())),
                Err(what) => unreadable.push((file, what)),
            }
        }
        let Some((best, from_copy)) = best else {
            if names.is_empty() {
                return Ok(None);
            }
            if let Some(outline) = self.outline(&names).await? {
                let missing = (name::manifest(0), "no manifest is there".to_owned());
                let lost = unreadable.iter().map(|(file, what)| (file.to_string(), what.clone()));
                let lost: Vec<_> = if unreadable.is_empty() { vec![missing] } else { lost.collect() };
                for (file, what) in lost {
                    let len = self.len(&file);
                    self.find(&file, 0, len, what, Loss::Manifest);
                }
                return Ok(Some((self.rebuilt(outline).await?, true)));
            }
            let why = unreadable.first().map_or_else(String::new, |(file, what)| format!(" ({file}: {what})"));
            return Err(Error::corrupt(format!(
                "no manifest and no copy of one can be read{why}: restore the store from a replica or a backup"
            )));
        };
        let mut changed = from_copy;
        for (file, what) in unreadable {
            let version = name::number(file).unwrap_or_default();
            let is_copy = !file.starts_with(name::MANIFESTS);
            // A newer one that a crash cut short was never acknowledged: the next open removes it.
            let torn = !is_copy && !from_copy && what == "it is cut short";
            if torn {
                continue;
            }
            changed = true;
            let loss = match version <= best.version || is_copy {
                true => Loss::Nothing,
                false => Loss::Newer { manifest: best.version },
            };
            let len = self.len(file);
            self.find(file, 0, len, what, loss);
        }
        for file in names.iter().filter(|file| file.starts_with(name::OUTLINES)) {
            if let Err(what) = damage(self.storage.read_all(file).await.and_then(|bytes| read_outline(&bytes)))? {
                changed = true;
                let len = self.len(file);
                self.find(file, 0, len, what, Loss::Nothing);
            }
        }
        if from_copy && !names.iter().any(|file| file.starts_with(name::MANIFESTS)) {
            self.find(&name::manifest(best.version), 0, 0, "it is missing".to_owned(), Loss::Nothing);
        }
        Ok(Some((best, changed)))
    }

    /// The newest outline that can be read.
    async fn outline(&mut self, names: &[String]) -> Result<Option<Manifest>> {
        for file in names.iter().rev().filter(|file| file.starts_with(name::OUTLINES)) {
            match damage(self.storage.read_all(file).await.and_then(|bytes| read_outline(&bytes)))? {
                Ok(outline) => return Ok(Some(outline)),
                Err(what) => {
                    let len = self.len(file);
                    self.find(file, 0, len, what, Loss::Nothing);
                }
            }
        }
        Ok(None)
    }

    /// A manifest of what is there.
    async fn rebuilt(&mut self, mut manifest: Manifest) -> Result<Manifest> {
        // Ids are the store's, not a collection's.
        let id_of = |entry: &Entry| entry.name.split_once("/segment/")?.1.split('/').next()?.parse::<u64>().ok();
        let mut used = self.entries.iter().filter_map(id_of).max().unwrap_or_default();
        for collection in &mut manifest.collections {
            self.rebuild(collection, &mut used).await?;
            manifest.clock = manifest.clock.max(collection.progress.timestamp);
            let spans = collection.segments.iter().map(|segment| segment.id.0).chain(self.log_files(collection));
            // Numbers tell owners: none after the greatest of them has written anything.
            manifest.fence = spans.map(name::owner_of).fold(manifest.fence, u64::max);
        }
        manifest.next_segment = SegmentId(used + 1);
        let of_collection = |name: &str| {
            let id = name.strip_prefix('c')?.split_once('/')?.0.parse().ok()?;
            Some(CollectionId(id))
        };
        let mut unknown = Vec::new();
        for entry in &self.entries {
            let Some(id) = of_collection(&entry.name) else { continue };
            manifest.next_collection = manifest.next_collection.max(CollectionId(id.0 + 1));
            if manifest.collections.iter().all(|collection| collection.id != id) {
                unknown.push(entry.name.clone());
            }
        }
        for file in unknown {
            self.find(&file, 0, 0, "of a collection that the outline does not have".to_owned(), Loss::Unknown);
        }
        Ok(manifest)
    }

    /// Finds the segments of a collection, and where its log begins; `used` is the greatest id of a segment.
    async fn rebuild(&mut self, collection: &mut CollectionManifest, used: &mut u64) -> Result<()> {
        let spec = collection.spec.clone().completed()?;
        let (own, incoming) = (name::segments(collection.id), name::incoming(collection.id));
        let mut directories: BTreeMap<(bool, String), Vec<String>> = BTreeMap::new();
        for entry in &self.entries {
            let comes = entry.name.starts_with(&incoming);
            let rest = entry.name.strip_prefix(if comes { &incoming } else { &own });
            if let Some((directory, _)) = rest.and_then(|rest| rest.split_once('/')) {
                directories.entry((comes, directory.to_owned())).or_default().push(entry.name.clone());
            }
        }
        let (mut newest, mut lsn) = (Timestamp::default(), Lsn(0));
        let mut found = Vec::new();
        // Those that were written here come first.
        for ((comes, directory), files) in directories {
            let adopted = directory.split_once('-').and_then(|(hub, segment)| {
                let hub = ReplicaId(u64::from_str_radix(hub, 16).ok()?);
                Some(Adopted { hub, segment: SegmentId(segment.parse().ok()?), lsn: lsn.next() })
            });
            let id = if comes { Some(*used + 1).filter(|_| adopted.is_some()) } else { directory.parse().ok() };
            let described = match id {
                Some(id) => self.rebuild_segment(&spec, SegmentId(id), adopted, &files).await?,
                None => Err("it has no number".to_owned()),
            };
            match described {
                Ok((described, segment)) => {
                    *used = (*used).max(described.id.0);
                    newest = newest.max(segment.newest());
                    let deletes = segment.deletes.iter().map(|delete| delete.lsn);
                    lsn = deletes.fold(lsn.max(segment.versions().lsn_max()), Lsn::max);
                    found.push(described);
                }
                // What is on its way goes on where it ended.
                Err(_) if comes => {}
                Err(what) => {
                    self.damaged.extend(files.iter().cloned());
                    let what = format!("its segment is not whole: {what}");
                    self.find(&files[0], 0, 0, what, Loss::Unknown);
                }
            }
        }
        collection.segments = found;
        let files = self.log_files(collection);
        let mut first = None;
        for &number in &files {
            let path = name::log(collection.id, number);
            let Ok(bytes) = damage(self.storage.read_all(&path).await)? else { continue };
            let salvage = wal::salvage(&bytes, collection.id, number, Lsn(0), None);
            first = salvage.map_err(|error| error.context(&path))?.frames.first().map(|frame| frame.lsn);
            if first.is_some() {
                break;
            }
        }
        collection.log_start = files.first().copied().unwrap_or_default();
        let frame = first.map_or(lsn, |first| Lsn(first.0.saturating_sub(1)));
        collection.progress =
            Progress { frame, lsn, timestamp: newest, history: newest, gone: lsn, ..Progress::default() };
        Ok(())
    }

    /// The segment in `files`, without its indexes, when it is whole; else what is wrong.
    async fn rebuild_segment(
        &mut self,
        spec: &CollectionSpec,
        id: SegmentId,
        adopted: Option<Adopted>,
        files: &[String],
    ) -> Result<Result<(SegmentManifest, Segment), String>> {
        let mut described = SegmentManifest { id, rows: 0, files: Vec::new(), adopted };
        let base = |file: &str| file.rsplit('/').next().unwrap_or_default().to_owned();
        let is = |file: &String, wanted: &str| {
            let base = base(file);
            base == wanted || adopted.is_some() && base.rsplit_once('-').is_some_and(|(base, _)| base == wanted)
        };
        let of_kind = |wanted: &str| files.iter().find(|file| is(file, wanted)).cloned();
        let Some(layout) = of_kind("layout") else { return Ok(Err("its layout is missing".to_owned())) };
        let bytes = match damage(self.storage.read_all(&layout).await)? {
            Ok(bytes) => bytes,
            Err(what) => return Ok(Err(what)),
        };
        let kinds = match damage(segment::kinds(&bytes))? {
            Ok(kinds) => kinds,
            Err(what) => return Ok(Err(format!("{layout}: {what}"))),
        };
        described.files.push(file_entry(&FileKind::Layout, layout, &bytes));
        let fields = spec.schema.fields();
        for kind in kinds {
            let name = match &kind {
                FileKind::Rows => of_kind("rows"),
                FileKind::Deletes => of_kind("deletes"),
                FileKind::Vector(field) => {
                    let at = spec.schema.vectors().position(|(vector, _)| vector.name == *field).unwrap_or_default();
                    of_kind(&format!("vector-{at}"))
                }
                FileKind::Column(field) => match fields.iter().position(|known| known.name == *field) {
                    Some(at) => of_kind(&format!("column-{at}")),
                    // The dynamic field came after all others that there were.
                    None => (0..=fields.len()).rev().find_map(|at| of_kind(&format!("column-{at}"))),
                },
                _ => None,
            };
            let read = match &name {
                Some(name) => damage(self.storage.read_all(name).await)?,
                None => Err("it is missing".to_owned()),
            };
            match (read, name) {
                (Ok(bytes), Some(name)) => described.files.push(file_entry(&kind, name, &bytes)),
                (Err(what), name) => {
                    let what = format!("{kind:?}: {what}");
                    if kind != FileKind::Deletes {
                        return Ok(Err(what));
                    }
                    self.find(&name.unwrap_or_else(|| files[0].clone()), 0, 0, what, Loss::Unknown);
                }
                (Ok(_), None) => unreachable!("what has no name was not read"),
            }
        }
        let segment = match damage(read_segment(self.storage, &[], spec, &described, true).await)? {
            Ok(segment) => segment,
            Err(what) => return Ok(Err(what)),
        };
        // No manifest tells checksums of the files, but the layout has those of all their blocks.
        for group in segment.stored() {
            let Ok(bytes) = damage(self.storage.read_all(&group.name).await)? else { continue };
            for (index, block) in group.blocks.iter().enumerate() {
                let start = usize::try_from(block.offset).unwrap_or(usize::MAX);
                let bytes = bytes.get(start..start.saturating_add(block.len as usize)).unwrap_or_default();
                if let Err(what) = damage(group.read(index, bytes))? {
                    return Ok(Err(what));
                }
            }
        }
        described.rows = segment.len() as u64;
        Ok(Ok((described, segment)))
    }

    /// Leaves out of `collection` what is damaged of its segments; tells whether something is lost.
    async fn segments(&mut self, collection: &mut CollectionManifest, changed: &mut bool) -> Result<bool> {
        let spec = collection.spec.clone().completed()?;
        let mut lost = false;
        let mut kept = Vec::new();
        for mut segment in std::mem::take(&mut collection.segments) {
            let mut files = Vec::new();
            let mut rows_lost = false;
            for file in std::mem::take(&mut segment.files) {
                let Err(what) = damage(read_checked(self.storage, &file).await.map(drop))? else {
                    files.push(file);
                    continue;
                };
                *changed = true;
                let loss = match file.kind.as_str() {
                    "index" | "terms" => Loss::Nothing,
                    "deletes" => Loss::Deletes { collection: collection.name.clone() },
                    // Said once a segment.
                    _ if rows_lost => Loss::Nothing,
                    _ => Loss::Rows { collection: collection.name.clone(), rows: segment.rows },
                };
                rows_lost |= matches!(loss, Loss::Rows { .. });
                lost |= loss != Loss::Nothing;
                let len = self.len(&file.name);
                self.find(&file.name, 0, len, what, loss);
            }
            segment.files = files;
            if rows_lost {
                self.set_aside(&segment);
                continue;
            }
            match damage(read_segment(self.storage, &[], &spec, &segment, true).await.map(drop))? {
                Ok(()) => kept.push(segment),
                Err(what) => {
                    (*changed, lost) = (true, true);
                    let loss = Loss::Rows { collection: collection.name.clone(), rows: segment.rows };
                    let file = segment.files.first().map_or_else(String::new, |file| file.name.clone());
                    self.find(&file, 0, 0, what, loss);
                    self.set_aside(&segment);
                }
            }
        }
        collection.segments = kept;
        Ok(lost)
    }

    /// Keeps what is whole of a segment that is left out: somebody may make something of it.
    fn set_aside(&mut self, segment: &SegmentManifest) {
        self.damaged.extend(segment.files.iter().map(|file| file.name.clone()));
    }

    /// The numbers of the log files that count.
    fn log_files(&self, collection: &CollectionManifest) -> Vec<u64> {
        let prefix = name::logs(collection.id);
        let logs = self.entries.iter().filter(|entry| entry.name.starts_with(&prefix));
        logs.filter_map(|entry| name::number(&entry.name)).filter(|number| *number >= collection.log_start).collect()
    }

    /// Reads the log and says what is wrong with it, or, with `to`, writes what is whole to files from that number on, and finds
    /// nothing. Tells whether something must be left out.
    async fn log(&mut self, collection: &CollectionManifest, files: &[u64], to: Option<u64>) -> Result<bool> {
        let mut next = collection.progress.frame.next();
        let mut found: Vec<Finding> = Vec::new();
        for (index, &number) in files.iter().enumerate() {
            let path = name::log(collection.id, number);
            let last = index + 1 == files.len();
            let expected = index.checked_sub(1).map_or(collection.log_start, |before| files[before] + 1);
            // Each owner begins at a number of its own.
            for missing in expected..if name::begins_owner(number) { expected } else { number } {
                found.push(self.lost_file(collection, missing, next));
            }
            let until = self.later_owner(collection, &files[index + 1..]).await?;
            let bytes = match damage(self.storage.read_all(&path).await)? {
                Ok(bytes) => bytes,
                Err(what) => {
                    let loss = Loss::Frames { collection: collection.name.clone(), first: next, last: None };
                    found.push(Finding { file: path, offset: 0, bytes: self.len_of(collection, number), what, loss });
                    continue;
                }
            };
            let (frames, damaged) = whole_frames(collection, number, &bytes, next, until, last)?;
            let mut out = wal::encode_header(collection.id, to.unwrap_or_default() + index as u64);
            let mut damaged = damaged.into_iter().peekable();
            let lose = |damage: wal::Damage, first: Lsn| Finding {
                file: path.clone(),
                offset: damage.offset as u64,
                bytes: damage.len as u64,
                what: damage.what,
                loss: if damage.offset == 0 && damage.len <= wal::HEADER_BYTES {
                    Loss::Nothing
                } else {
                    Loss::Frames { collection: collection.name.clone(), first, last: None }
                },
            };
            for frame in frames {
                while let Some(damage) = damaged.next_if(|damage| damage.offset < frame.offset) {
                    found.push(lose(damage, next));
                }
                if frame.lsn > next {
                    let last = Lsn(frame.lsn.0 - 1);
                    if !found.iter().any(Finding::is_open) {
                        let (path, what) = (path.clone(), "the writes before it are missing".to_owned());
                        let loss = Loss::Frames { collection: collection.name.clone(), first: next, last: None };
                        found.push(Finding { file: path, offset: frame.offset as u64, bytes: 0, what, loss });
                    }
                    settle(&mut found, last);
                    wal::encode_frame(&mut out, next, 0, FrameKind::Lost, &last.0.to_le_bytes(), &wal::Body::empty());
                }
                let body = wal::Body::pack(frame.payload.to_vec());
                wal::encode_frame(&mut out, frame.lsn, 0, frame.kind, &[], &body);
                next = frame.next()?;
                settle(&mut found, Lsn(frame.lsn.0 - 1));
            }
            found.extend(damaged.map(|damage| lose(damage, next)));
            if let Some(to) = to {
                if last {
                    // After everything else: replayed last, it makes the store ask its hubs for what is lost.
                    // Nor is a number used again that a segment has.
                    let end = next.max(collection.progress.lsn);
                    wal::encode_frame(&mut out, next, 0, FrameKind::Lost, &end.0.to_le_bytes(), &wal::Body::empty());
                }
                let path = name::log(collection.id, to + index as u64);
                self.storage.append(&path, out.into()).await?;
                self.storage.sync(&path).await?;
            }
        }
        let damaged = !found.is_empty();
        if to.is_none() {
            for finding in found {
                self.find(&finding.file, finding.offset, finding.bytes, finding.what, finding.loss);
            }
        }
        Ok(damaged)
    }

    /// The first frame of the first later owner: what an owner before it wrote from there on does not count.
    async fn later_owner(&self, collection: &CollectionManifest, later: &[u64]) -> Result<Option<Lsn>> {
        for &number in later.iter().filter(|number| name::begins_owner(**number)) {
            let path = name::log(collection.id, number);
            if let Some(lsn) = damage(self.storage.read_all(&path).await)?.ok().and_then(|bytes| wal::first_lsn(&bytes))
            {
                return Ok(Some(lsn));
            }
        }
        Ok(None)
    }

    fn len_of(&self, collection: &CollectionManifest, number: u64) -> u64 {
        self.len(&name::log(collection.id, number))
    }

    fn lost_file(&self, collection: &CollectionManifest, number: u64, first: Lsn) -> Finding {
        let loss = Loss::Frames { collection: collection.name.clone(), first, last: None };
        Finding { file: name::log(collection.id, number), offset: 0, bytes: 0, what: "it is missing".to_owned(), loss }
    }

    /// Damaged files aside, whole frames into new log files, then the manifest, which makes all of it count at once; the next open
    /// removes what it does not name.
    async fn write(&mut self, mut manifest: Manifest, logs: &[(CollectionId, Vec<u64>)]) -> Result<()> {
        for (file, aside) in &self.report.set_aside {
            // What cannot be read cannot be kept either.
            if let Ok(bytes) = damage(self.storage.read_all(file).await)? {
                self.storage.remove(aside).await?;
                self.storage.put(aside, bytes).await?;
            }
        }
        for (id, files) in logs {
            let collection = manifest.collection_mut(*id).expect("the collection was just looked at").clone();
            let start = name::first_of_owner(manifest.fence, *files.last().expect("there is a log to rewrite"));
            for index in 0..files.len() as u64 {
                // Left over from a repair that did not come to its end.
                self.storage.remove(&name::log(*id, start + index)).await?;
            }
            self.log(&collection, files, Some(start)).await?;
            manifest.collection_mut(*id).expect("the collection was just looked at").log_start = start;
        }
        self.storage.put(&name::manifest(manifest.version), manifest.encode().into()).await?;
        for entry in self.entries.iter().filter(|entry| name::is_manifest_or_copy(&entry.name)) {
            self.storage.remove(&entry.name).await?;
        }
        Ok(())
    }
}

/// An outline is written as a manifest is.
fn read_outline(bytes: &[u8]) -> Result<Manifest> {
    Manifest::decode(bytes)?.ok_or_else(|| Error::corrupt("it is cut short"))
}

/// Writes down the last lost frame where it was not known yet.
fn settle(found: &mut [Finding], lost_to: Lsn) {
    for finding in found {
        if let Loss::Frames { first, last: last @ None, .. } = &mut finding.loss {
            if *first <= lost_to {
                *last = Some(lost_to);
            } else {
                // The frames on both sides follow each other: nothing that counts was there.
                finding.loss = Loss::Nothing;
            }
        }
    }
}

/// The frames of a log file that can be replayed, and the bytes that cannot. A torn tail of the last file is none of them.
fn whole_frames<'b>(
    collection: &CollectionManifest,
    number: u64,
    bytes: &'b [u8],
    next: Lsn,
    until: Option<Lsn>,
    last: bool,
) -> Result<(Vec<Frame<'b>>, Vec<wal::Damage>)> {
    let path = name::log(collection.id, number);
    let mut salvage = match damage(wal::replay(&path, bytes, collection.id, number, next, until))? {
        Ok(replay) if last || reaches(&replay, next, until) || !replay.is_torn => {
            wal::Salvage { frames: replay.frames, damage: Vec::new() }
        }
        _ => wal::salvage(bytes, collection.id, number, next, until).map_err(|error| error.context(&path))?,
    };
    let mut wrong = Vec::new();
    let mut frames = Vec::new();
    for frame in salvage.frames {
        match damage(Record::decode(&collection.spec.schema, frame.kind, &frame.payload).map(drop)).or_else(
            |error| {
                // Rows that the schema refuses were written by nobody.
                if error.kind() == ErrorKind::InvalidArgument {
                    Ok(Err(error.message().to_owned()))
                } else {
                    Err(error)
                }
            },
        )? {
            Ok(()) => frames.push(frame),
            Err(what) => wrong.push(wal::Damage { offset: frame.offset, len: frame.end - frame.offset, what }),
        }
    }
    salvage.damage.extend(wrong);
    salvage.damage.sort_by_key(|damage| damage.offset);
    Ok((frames, salvage.damage))
}

/// Whether the frames of a file lead up to the later owner's: what follows them is of an owner that had lost the store.
fn reaches(replay: &wal::Replay<'_>, next: Lsn, until: Option<Lsn>) -> bool {
    let end = replay.frames.last().and_then(|frame| frame.next().ok()).unwrap_or(next);
    until == Some(end)
}
