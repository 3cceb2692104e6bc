use std::collections::VecDeque;

use crate::base::{CollectionId, Error, ErrorKind, Lsn, Result};
use crate::engine::name;
use crate::model::Row;
use crate::storage::Storage;
use crate::stream::{Buffer, KeyedPush, Piece, Producers};
use crate::wal::{self, Body, FrameKind};

/// From this length on a file is followed by another.
const FILE_BYTES: u64 = 1 << 20;

/// The files of a partition: logs as those of collections, each named by the number of its first row, whose frames are pieces.
#[derive(Debug, Clone, Default)]
pub(super) struct PieceLog {
    id: u64,
    partition: u32,
    /// Their numbers, ascending.
    files: VecDeque<u64>,
    /// Of the last one.
    len: u64,
    frames: u64,
    /// The last one may be longer than `len`, and takes nothing before it was cut.
    is_torn: bool,
    /// Who has pushed into it with keys.
    producers: Producers,
}

impl PieceLog {
    pub fn new(id: u64, partition: u32) -> Self {
        Self { id, partition, ..Self::default() }
    }

    /// Who has pushed into it with keys.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    fn path(&self, file: u64) -> String {
        name::push_file(self.id, self.partition, file)
    }

    /// Finds what is there, and tells the buffer, and `seen`.
    ///
    /// # Errors
    /// `Corrupt` for damage of what was acknowledged.
    pub async fn open(
        &mut self,
        storage: &dyn Storage,
        buffer: &mut Buffer,
        now_ms: u64,
        seen: &mut Vec<(u32, Piece)>,
    ) -> Result<()> {
        let entries = storage.list(&name::push_files(self.id, self.partition)).await?;
        let files: Vec<(u64, u64)> =
            entries.iter().filter_map(|entry| Some((name::number(&entry.name)?, entry.len))).collect();
        for (at, (file, len)) in files.iter().enumerate() {
            let path = self.path(*file);
            let bytes = storage.read_all(&path).await?;
            let (pieces, valid_len) = self.pieces(*file, &bytes)?;
            let is_last = at + 1 == files.len();
            // After a crash zeros may follow what was added last: see `Storage::append_and_sync`.
            let has_room = bytes.iter().skip(valid_len as usize).all(|byte| *byte == 0);
            if valid_len < *len && !is_last && !has_room {
                return Err(Error::corrupt(format!(
                    "{path}: damaged from byte {valid_len} on, and a later file follows"
                )));
            }
            if is_last && at > 0 && pieces.is_empty() {
                // It was being made. The one before says how far the numbers have got.
                storage.remove(&path).await?;
                break;
            }
            if is_last && valid_len == 0 {
                storage.remove(&path).await?;
                break;
            }
            if is_last || valid_len < *len {
                storage.truncate(&path, valid_len).await?;
                storage.sync(&path).await?;
            }
            if at == 0 {
                buffer.begin(self.partition, *file);
            }
            self.files.push_back(*file);
            (self.len, self.frames) = (valid_len, pieces.len() as u64);
            for mut piece in pieces {
                if piece.first != buffer.next(self.partition) {
                    let next = buffer.next(self.partition);
                    return Err(Error::corrupt(format!(
                        "{path}: rows from number {} on, expected {next}",
                        piece.first
                    )));
                }
                let bytes = piece.encode().len();
                if self.files.len() == 1 && piece.producers.count() > 0 {
                    // The files before it are gone.
                    self.producers = std::mem::take(&mut piece.producers);
                }
                piece.keyed.drain(..).for_each(|push| self.producers.note(push));
                if piece.came_ms.is_some() {
                    seen.push((self.partition, piece.clone()));
                }
                let keep = buffer.room(bytes) == crate::stream::Room::Memory;
                buffer.push(self.partition, piece, bytes, now_ms, Some(*file), keep);
            }
        }
        Ok(())
    }

    fn pieces(&self, file: u64, bytes: &[u8]) -> Result<(Vec<Piece>, u64)> {
        let path = self.path(file);
        let replay = wal::replay(&path, bytes, CollectionId(self.id), file, Lsn(1), None)?;
        let piece = |frame: &wal::Frame<'_>| {
            Piece::decode(&frame.payload).map_err(|error| error.context(format!("{path}: at byte {}", frame.offset)))
        };
        let pieces = replay.frames.iter().map(piece).collect::<Result<_>>()?;
        Ok((pieces, replay.valid_len as u64))
    }

    /// The pieces of a file.
    pub async fn read(id: u64, partition: u32, storage: &dyn Storage, file: u64) -> Result<Vec<Piece>> {
        let log = Self::new(id, partition);
        let bytes = storage.read_all(&log.path(file)).await?;
        Ok(log.pieces(file, &bytes)?.0)
    }

    /// Whether a piece whose first row has number `first` begins a file.
    fn begins_file(&self, first: u64) -> bool {
        // A file is named by its first row: one without rows, of pushes that had none in the end, is never followed by another of its name.
        self.len == 0 || self.files.back().is_none_or(|last| self.len >= FILE_BYTES && *last < first)
    }

    /// The next piece, as it is to be written.
    pub fn piece(&self, first: u64, came_ms: Option<u64>, keyed: Vec<KeyedPush>, rows: Vec<Row>) -> Piece {
        // So files before it can go.
        let producers = if self.begins_file(first) { self.producers.clone() } else { Producers::default() };
        Piece { first, came_ms, producers, keyed, rows }
    }

    /// A piece is kept, in memory at least.
    pub fn note(&mut self, keyed: &[KeyedPush]) {
        keyed.iter().for_each(|push| self.producers.note(push.clone()));
    }

    /// Writes a [`piece`](Self::piece), and tells the file that it stands in. With `sync` it is durable then.
    ///
    /// # Errors
    /// What the storage says: then it does not count, and is cut off before the next.
    pub async fn append(&mut self, storage: &dyn Storage, piece: &Piece, bytes: Vec<u8>, sync: bool) -> Result<u64> {
        if self.is_torn {
            let path = self.path(self.files.back().copied().unwrap_or_default());
            match storage.truncate(&path, self.len).await {
                // It never came to be.
                Err(error) if self.len == 0 && error.kind() == ErrorKind::NotFound => {}
                cut => cut?,
            }
            self.is_torn = false;
        }
        if self.begins_file(piece.first) && self.files.back() != Some(&piece.first) {
            self.files.push_back(piece.first);
            (self.len, self.frames) = (0, 0);
        }
        let file = self.files.back().copied().unwrap_or(piece.first);
        let path = self.path(file);
        let mut out = if self.len == 0 { wal::encode_header(CollectionId(self.id), file) } else { vec![] };
        wal::encode_frame(&mut out, Lsn(self.frames + 1), 0, FrameKind::Changes, &[], &Body::plain(bytes));
        let len = out.len() as u64;
        let written = if sync {
            storage.append_and_sync(&path, out.into()).await.and_then(|synced| synced)
        } else {
            storage.append(&path, out.into()).await
        };
        if let Err(error) = written {
            self.is_torn = true;
            return Err(error);
        }
        self.len += len;
        self.frames += 1;
        Ok(file)
    }

    /// Takes the files of which no row from number `first` on is in: all but the last, which says how far the numbers have got.
    pub fn take_before(&mut self, first: u64) -> Vec<String> {
        let mut gone = vec![];
        // One that nothing is in yet says nothing.
        let is_said = |files: &VecDeque<u64>| files.len() > 2 || self.len > 0;
        while self.files.get(1).is_some_and(|next| *next <= first) && is_said(&self.files) {
            gone.extend(self.files.pop_front().map(|file| self.path(file)));
        }
        gone
    }
}
