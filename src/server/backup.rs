//! Backups: the files of a snapshot under names that say what is in them, so that the next backup copies only what is new.
//!
//! | name | what |
//! |---|---|
//! | `backup/NNNNNNNNNN` | backup `N`: the manifest of the store at that moment |
//! | `file/NAME/CHECKSUM-LENGTH` | file `NAME` of the store, with its CRC-32C in hexadecimal and its length |

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::base::codec::checksum;
use crate::base::{Error, ErrorKind, Result};
use crate::db::StoreSnapshot;
use crate::engine::{FileEntry, Manifest, name};
use crate::storage::{Entry, Storage};

const BACKUPS: &str = "backup/";
const FILES: &str = "file/";

/// What a backup or a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The number of the backup.
    pub number: u64,
    /// Files that belong to it.
    pub files: usize,
    /// Of these, how many were copied.
    pub copied: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Where the files of a backup come from.
pub enum Source<'a> {
    /// A store that is open.
    Snapshot(&'a StoreSnapshot),
    /// An archive that was read, perhaps without files that are there.
    Archive(&'a Manifest, &'a BTreeMap<String, Bytes>),
}

impl Source<'_> {
    fn manifest(&self) -> &Manifest {
        match self {
            Self::Snapshot(snapshot) => snapshot.manifest(),
            Self::Archive(manifest, _) => manifest,
        }
    }

    async fn read(&self, file: &FileEntry) -> Result<Bytes> {
        match self {
            Self::Snapshot(snapshot) => snapshot.read(file).await,
            Self::Archive(_, files) => {
                files.get(&file.name).cloned().ok_or_else(|| Error::not_found(file.name.clone()))
            }
        }
    }
}

/// The name of the bytes of a file in a backup.
pub fn file_name(file: &FileEntry) -> String {
    format!("{FILES}{}/{:08x}-{}", file.name, file.checksum, file.len)
}

/// Which files are in `storage` already, wholly.
pub async fn files_there(storage: &dyn Storage) -> Result<BTreeSet<String>> {
    let entries = storage.list(FILES).await?;
    let whole = |entry: &Entry| entry.name.rsplit('-').next().is_some_and(|len| len.parse() == Ok(entry.len));
    Ok(entries.into_iter().filter(whole).map(|entry| entry.name).collect())
}

fn backup_name(number: u64) -> String {
    format!("{BACKUPS}{number:010}")
}

/// The backups in `storage` and their manifests, oldest first. One that a crash cut short is none.
async fn backups(storage: &dyn Storage) -> Result<BTreeMap<u64, Manifest>> {
    let mut found = BTreeMap::new();
    for entry in storage.list(BACKUPS).await? {
        let Some(number) = name::number(&entry.name) else { continue };
        let manifest = Manifest::decode(&storage.read_all(&entry.name).await?);
        if let Some(manifest) = manifest.map_err(|error| error.context(&entry.name))? {
            found.insert(number, manifest);
        }
    }
    Ok(found)
}

/// Adds a backup to `storage`: files that an earlier one has copied are not copied again. With `keep`, only so many backups stay.
pub async fn backup(source: &Source<'_>, storage: &dyn Storage, keep: Option<usize>) -> Result<Summary> {
    let entries = storage.list("").await?;
    if let Some(entry) = entries.iter().find(|entry| !entry.name.starts_with(BACKUPS) && !entry.name.starts_with(FILES))
    {
        let message = format!(
            "{} is there, which is no part of a backup: give an empty directory or an earlier backup",
            entry.name
        );
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    let there: BTreeMap<&str, u64> = entries.iter().map(|entry| (entry.name.as_str(), entry.len)).collect();
    let number = entries
        .iter()
        .filter(|entry| entry.name.starts_with(BACKUPS))
        .filter_map(|entry| name::number(&entry.name))
        .max()
        .map_or(1, |number| number + 1);
    let mut summary = Summary { number, files: 0, copied: 0, bytes: 0 };
    for file in source.manifest().files() {
        summary.files += 1;
        let path = file_name(file);
        match there.get(path.as_str()) {
            Some(len) if *len == file.len => continue,
            // Cut short by a crash, where the storage allows that.
            Some(_) => storage.remove(&path).await?,
            None => {}
        }
        storage.put(&path, source.read(file).await?).await?;
        summary.copied += 1;
        summary.bytes += file.len;
    }
    // Last, so that a backup that is there is whole.
    storage.put(&backup_name(number), source.manifest().encode().into()).await?;
    if let Some(keep) = keep {
        prune(storage, keep.max(1)).await?;
    }
    Ok(summary)
}

/// Removes all but the newest `keep` backups, and the files that no backup names.
async fn prune(storage: &dyn Storage, keep: usize) -> Result<()> {
    let mut kept = backups(storage).await?;
    while kept.len() > keep {
        if let Some((number, _)) = kept.pop_first() {
            storage.remove(&backup_name(number)).await?;
        }
    }
    let named: BTreeSet<String> = kept.values().flat_map(Manifest::files).map(file_name).collect();
    for entry in storage.list(FILES).await? {
        if !named.contains(&entry.name) {
            storage.remove(&entry.name).await?;
        }
    }
    Ok(())
}

/// Writes backup `number` of `storage`, or the newest, as a store into `target`, which must be empty; without a target, only reads
/// and checks all of it.
///
/// # Errors
/// `NotFound` when there is no such backup, `Corrupt` when a file is not what was copied, `AlreadyExists` when the target holds
/// something.
pub async fn restore(storage: &dyn Storage, number: Option<u64>, target: Option<&dyn Storage>) -> Result<Summary> {
    let backups = backups(storage).await?;
    let found = match number {
        Some(number) => backups.get_key_value(&number),
        None => backups.last_key_value(),
    };
    let (&number, manifest) = found.ok_or_else(|| {
        let numbers: Vec<String> = backups.keys().map(u64::to_string).collect();
        Error::not_found(format!("no such backup; there are: {}", numbers.join(", ")))
    })?;
    check_empty(target).await?;
    let mut summary = Summary { number, files: 0, copied: 0, bytes: 0 };
    for file in manifest.files() {
        let path = file_name(file);
        let bytes = storage.read_all(&path).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::corrupt(format!("{path} is missing")),
            _ => error,
        })?;
        if (bytes.len() as u64, checksum(&bytes)) != (file.len, file.checksum) {
            return Err(Error::corrupt(format!("{path}: its bytes are not those that were copied")));
        }
        write(target, file, bytes, &mut summary).await?;
    }
    finish(target, manifest).await?;
    Ok(summary)
}

/// The same from an archive.
pub async fn restore_archive(
    manifest: &Manifest,
    files: &BTreeMap<String, Bytes>,
    target: Option<&dyn Storage>,
) -> Result<Summary> {
    check_empty(target).await?;
    let mut summary = Summary { number: 0, files: 0, copied: 0, bytes: 0 };
    for file in manifest.files() {
        write(target, file, files[&file.name].clone(), &mut summary).await?;
    }
    finish(target, manifest).await?;
    Ok(summary)
}

async fn check_empty(target: Option<&dyn Storage>) -> Result<()> {
    let Some(target) = target else { return Ok(()) };
    match target.list("").await?.first() {
        None => Ok(()),
        Some(entry) => {
            let message = format!("{} is there: a store is restored to an empty place only", entry.name);
            Err(Error::new(ErrorKind::AlreadyExists, message))
        }
    }
}

async fn write(target: Option<&dyn Storage>, file: &FileEntry, bytes: Bytes, summary: &mut Summary) -> Result<()> {
    summary.files += 1;
    if let Some(target) = target {
        target.put(&file.name, bytes).await?;
        summary.copied += 1;
        summary.bytes += file.len;
    }
    Ok(())
}

async fn finish(target: Option<&dyn Storage>, manifest: &Manifest) -> Result<()> {
    match target {
        Some(target) => target.put(&name::manifest(manifest.version.max(1)), manifest.encode().into()).await,
        None => Ok(()),
    }
}
