use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::{DataDirectory, output, remote};
use crate::base::{Error, ErrorKind, Result};
use crate::db::Db;
use crate::engine::{FileEntry, archive};
use crate::server::backup::{self, Source, Summary};
use crate::server::store::{self, Place};

/// The end of an archive's file name.
const ARCHIVE: &str = ".eddy";

/// Copy a store to another place; the next time, only what is new
///
/// A backup is all collections with their indexes, each as it was at one moment. Its files are checked when it is made and when it is
/// restored. A store that a server has open is copied through the server: --from.
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy backup --data ./eddy-data /mnt/backup               the first copies everything, later ones what is new
  eddy backup --data ./eddy-data --keep 7 s3://bucket/b    to a bucket; all but the newest 7 backups are removed
  eddy backup --data ./eddy-data notes.eddy                one file, which browsers and Node can import
  eddy backup --from http://localhost:7700 /mnt/backup     while a server runs
  eddy restore /mnt/backup --check                         reads and checks everything")]
pub(super) struct Backup {
    /// A directory, a bucket's URL, or a file that ends with `.eddy`.
    #[arg(value_name = "DEST")]
    destination: String,

    #[command(flatten)]
    directory: DataDirectory,

    /// The address of a server that has the store open.
    #[arg(long, value_name = "URL")]
    from: Option<String>,

    /// Keep this many backups in DEST, the newest; without it, all.
    #[arg(long, value_name = "COUNT")]
    keep: Option<usize>,
}

/// Make a store of a backup
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy restore /mnt/backup --data ./restored               the newest backup
  eddy restore /mnt/backup --number 3 --data ./restored
  eddy restore notes.eddy --data ./restored
  eddy restore /mnt/backup --check                         only read and check it")]
pub(super) struct Restore {
    /// The directory, bucket or file that `eddy backup` wrote.
    #[arg(value_name = "SOURCE")]
    source: String,

    #[command(flatten)]
    directory: DataDirectory,

    /// Which backup; without it, the newest.
    #[arg(long, value_name = "NUMBER")]
    number: Option<u64>,

    /// Read and check everything, and write nothing.
    #[arg(long)]
    check: bool,
}

pub(super) async fn backup(command: Backup) -> Result<()> {
    let db = match &command.from {
        Some(_) => None,
        None => Some(store::open(&command.directory.place(), false).await?),
    };
    let done = copy(&command, db.as_ref()).await;
    let closed = match db {
        Some(db) => db.close().await,
        None => Ok(()),
    };
    done.and(closed)
}

/// Copies `db`, or what a server has.
async fn copy(command: &Backup, db: Option<&Db>) -> Result<()> {
    let from = command.from.as_deref().unwrap_or_default();
    if command.destination.ends_with(ARCHIVE) {
        let path = Path::new(&command.destination);
        let bytes = match db {
            Some(db) => {
                let mut pieces = db.snapshot().await?.into_archive(|_| false);
                write_archive(path, async || pieces.next().await).await?
            }
            None => {
                let mut whole = Some(download(from, None)?);
                archive::decode(whole.as_ref().unwrap_or(&Bytes::new()))?;
                write_archive(path, async || Ok(whole.take().map(Vec::from))).await?
            }
        };
        return output::line(&format!("wrote {} ({})", command.destination, output::bytes(bytes)));
    }
    let storage = store::open_storage(&place(&command.destination), true).await?;
    let copy = async || match db {
        Some(db) => {
            let snapshot = db.snapshot().await?;
            backup::backup(&Source::Snapshot(&snapshot), &*storage, command.keep).await
        }
        None => {
            let there = backup::files_there(&*storage).await?;
            let archive = download(from, Some(&there))?;
            let is_there = |file: &FileEntry| there.contains(&backup::file_name(file));
            let (manifest, files) = archive::decode_without(&archive, &is_there)?;
            backup::backup(&Source::Archive(&manifest, &files), &*storage, command.keep).await
        }
    };
    let done = copy().await;
    let closed = storage.close().await;
    let Summary { number, files, copied, bytes } = done?;
    closed?;
    output::line(&format!(
        "backup {number}: {files} files, {copied} copied ({}), {} were there",
        output::bytes(bytes),
        files - copied
    ))
}

pub(super) async fn restore(command: Restore) -> Result<()> {
    let target = match command.check {
        true => None,
        false => Some(store::open_storage(&command.directory.place(), true).await?),
    };
    let done = if command.source.ends_with(ARCHIVE) {
        let (manifest, files) = archive::decode(&read_file(Path::new(&command.source))?)?;
        backup::restore_archive(&manifest, &files, target.as_deref()).await
    } else {
        let storage = store::open_storage(&place(&command.source), false).await?;
        let done = backup::restore(&*storage, command.number, target.as_deref()).await;
        storage.close().await.and(done)
    };
    let closed = match &target {
        Some(target) => target.close().await,
        None => Ok(()),
    };
    let Summary { files, bytes, .. } = done?;
    closed?;
    match target {
        Some(_) => {
            output::line(&format!("restored {files} files ({}) to {}", output::bytes(bytes), command.directory.place()))
        }
        None => output::line(&format!("{files} files, all as they were copied")),
    }
}

fn place(text: &str) -> Place {
    if text.contains("://") { Place::Bucket(text.to_owned()) } else { Place::Directory(PathBuf::from(text)) }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::StorageFull => ErrorKind::StorageFull,
        _ => ErrorKind::Io,
    };
    Error::new(kind, format!("{}: {error}", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "the command line reads the files that it is given")]
fn read_file(path: &Path) -> Result<Bytes> {
    std::fs::read(path).map(Bytes::from).map_err(|error| failed(path, &error))
}

/// Writes the archive beside its place first, so that what has the name is whole.
#[expect(clippy::disallowed_types, reason = "the command line writes the file that it is asked for")]
async fn write_archive(path: &Path, mut next: impl AsyncFnMut() -> Result<Option<Vec<u8>>>) -> Result<u64> {
    let partial = path.with_extension("eddy-partial");
    let io = |error: std::io::Error| failed(&partial, &error);
    let mut file = std::fs::File::create(&partial).map_err(io)?;
    let mut bytes = 0;
    while let Some(piece) = next().await? {
        file.write_all(&piece).map_err(io)?;
        bytes += piece.len() as u64;
    }
    file.sync_all().and_then(|()| std::fs::rename(&partial, path)).map_err(io)?;
    Ok(bytes)
}

/// The archive of the store that a server has open, without files that are there.
fn download(url: &str, there: Option<&BTreeSet<String>>) -> Result<Bytes> {
    match there {
        None => remote::ask("--from", url, "GET", "/api/archive", ""),
        Some(there) => remote::ask("--from", url, "POST", "/api/archive", &json!({ "without": there }).to_string()),
    }
}
