//! How far an import has got, in a file of the store's directory that is no object of the store: those names begin with a
//! small letter or a digit.
#![expect(clippy::disallowed_methods, reason = "the importer keeps its own notes beside the store")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::io_error;
use crate::base::{Lsn, Result, codec};

/// Which import this is: another collection, another file or a changed one makes it another import.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Identity {
    collection: String,
    files: Vec<FileIdentity>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FileIdentity {
    path: PathBuf,
    len: u64,
    modified_ns: u64,
}

impl Identity {
    pub(super) fn of<'a>(collection: &str, files: impl Iterator<Item = &'a PathBuf>) -> Result<Self> {
        let files = files
            .map(|path| {
                let failed = |error: std::io::Error| io_error(&path.display().to_string(), &error);
                let metadata = fs::metadata(path).map_err(failed)?;
                let modified = metadata.modified().map_err(failed)?;
                Ok(FileIdentity {
                    path: fs::canonicalize(path).map_err(failed)?,
                    len: metadata.len(),
                    modified_ns: modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { collection: collection.to_owned(), files })
    }
}

/// Everything before this is in the collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Position {
    /// Files that are wholly in.
    pub(super) files: usize,
    /// Rows of the next file that are in.
    pub(super) rows: u64,
    /// Where the collection's log was then: a collection whose log is behind this is another one of the same name.
    pub(super) lsn: Lsn,
}

#[derive(Serialize, Deserialize)]
struct Content {
    import: Identity,
    position: Position,
}

/// The note of one import.
pub(super) struct Record {
    path: PathBuf,
    identity: Identity,
}

impl Record {
    pub(super) fn new(directory: &Path, identity: Identity) -> Self {
        let text = serde_json::to_vec(&identity).expect("an identity is plain data");
        let path = directory.join(format!("IMPORT-{:08x}.json", codec::checksum(&text)));
        Self { path, identity }
    }

    /// Where the import was left; the start when there is no note, or one that is not whole or of another import.
    pub(super) fn load(&self) -> Position {
        fs::read(&self.path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Content>(&bytes).ok())
            .filter(|content| content.import == self.identity)
            .map_or_else(Position::default, |content| content.position)
    }

    /// Notes `position`. The file is replaced as a whole; it is not synced, because a lost note costs time only.
    pub(super) fn store(&self, position: Position) -> Result<()> {
        let failed = |error: std::io::Error| io_error(&self.path.display().to_string(), &error);
        let content = Content { import: self.identity.clone(), position };
        let text = serde_json::to_vec(&content).expect("a note is plain data");
        let fresh = self.path.with_extension("tmp");
        fs::write(&fresh, text).map_err(failed)?;
        fs::rename(&fresh, &self.path).map_err(failed)
    }

    /// Drops the note: the import is done.
    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io_error(&self.path.display().to_string(), &error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_of_one_import_of_unchanged_files() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rows.csv");
        fs::write(&file, "id\n1\n").unwrap();
        let files = [file.clone()];
        let record = || Record::new(directory.path(), Identity::of("notes", files.iter()).unwrap());
        assert_eq!(record().load(), Position::default());
        let position = Position { files: 0, rows: 7, lsn: Lsn(3) };
        record().store(position).unwrap();
        assert_eq!(record().load(), position);
        let other = Record::new(directory.path(), Identity::of("others", files.iter()).unwrap());
        assert_eq!(other.load(), Position::default());
        fs::write(&record().path, "{\"import\":").unwrap();
        assert_eq!(record().load(), Position::default(), "a note that was cut is no note");
        record().store(position).unwrap();
        fs::write(&file, "id\n1\n2\n").unwrap();
        assert_eq!(record().load(), Position::default(), "the file has changed");
        record().remove().unwrap();
        record().remove().unwrap();
    }

    #[test]
    fn names_are_no_objects_of_the_store() {
        let identity = Identity { collection: "notes".into(), files: Vec::new() };
        let record = Record::new(Path::new("."), identity);
        let name = record.path.file_name().unwrap().to_str().unwrap();
        assert!(crate::storage::check_name(name).is_err(), "{name}");
    }
}
