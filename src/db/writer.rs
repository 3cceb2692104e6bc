use std::ops::Range;

use arrow_array::RecordBatch;
use bytes::Bytes;

use super::recovery::file_entry;
use super::{Collection, Db};
use crate::base::codec::checksum_append;
use crate::base::{ErrorKind, Result, map_of};
use crate::engine::{FileEntry, SegmentManifest, name};
use crate::segment::{self, Encoder, FileKind, Piece, Segment};
use crate::storage::Storage;

/// A file of more bytes than this is appended to, a piece at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// A segment on its way into files that no manifest names yet.
pub(super) struct SegmentWriter {
    encoder: Encoder,
    /// Index files are told apart by it from those written before.
    generation: usize,
    /// The file that has its first pieces.
    open: Option<FileEntry>,
    files: Vec<(FileKind, FileEntry)>,
    layout: Option<Bytes>,
}

impl SegmentWriter {
    fn new(encoder: Encoder, generation: usize) -> Self {
        Self { encoder, generation, open: None, files: Vec::new(), layout: None }
    }

    /// The rows of a column that are to be handed over next, where the segment leaves columns in storage.
    pub(super) fn wants(&mut self, segment: &Segment) -> Option<(String, Range<usize>)> {
        self.encoder.wants(segment)
    }

    /// Hands them over.
    pub(super) fn give(&mut self, rows: RecordBatch) {
        self.encoder.give(rows);
    }

    /// Whether all columns are written, and perhaps indexes.
    pub(super) fn has_columns(&self) -> bool {
        self.layout.is_some()
    }

    /// What it holds in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.encoder.encoded()
    }

    /// Its files, with the one that is not whole yet.
    pub(super) fn into_files(self) -> Vec<FileEntry> {
        self.files.into_iter().map(|(_, entry)| entry).chain(self.open).collect()
    }
}

impl Db {
    /// Writes all of `segment`.
    pub(super) fn segment_writer(&self, collection: &Collection, segment: &Segment) -> SegmentWriter {
        let codec = collection.spec().options.codec.unwrap_or(self.inner.shared.options.codec);
        SegmentWriter::new(Encoder::new(segment, codec), 0)
    }

    /// Writes its indexes, which have grown or are new. `generation` is a number that they were never written by.
    pub(super) fn index_writer(generation: usize) -> SegmentWriter {
        SegmentWriter::new(Encoder::of_indexes(), generation)
    }

    /// Encodes and writes the next `bytes_max` bytes or some more, or until the writer wants rows; tells whether that was not all. Where rows
    /// were handed over it says so once, too, when all columns are written.
    ///
    /// # Errors
    /// What the storage says. What is there of the segment is of no use then.
    pub(super) async fn write_some(
        &self,
        collection: &Collection,
        segment: &Segment,
        writer: &mut SegmentWriter,
        bytes_max: usize,
    ) -> Result<bool> {
        // A small store writes small pieces too.
        let piece_bytes = PIECE_BYTES.min(self.inner.shared.options.checkpoint_bytes / 64) as usize;
        let mut encoded = 0;
        while encoded < bytes_max && writer.wants(segment).is_none() {
            let before = writer.encoder.encoded();
            let Some(step) = writer.encoder.step(segment) else { return Ok(false) };
            let piece = match step {
                Some(piece) => piece,
                None => {
                    encoded += writer.encoder.encoded().saturating_sub(before);
                    if writer.encoder.len() < piece_bytes {
                        continue;
                    }
                    writer.encoder.take_part(segment)
                }
            };
            encoded += piece.bytes.len().saturating_sub(before);
            self.write_piece(collection, segment, writer, piece).await?;
        }
        Ok(true)
    }

    async fn write_piece(
        &self,
        collection: &Collection,
        segment: &Segment,
        writer: &mut SegmentWriter,
        piece: Piece,
    ) -> Result<()> {
        let Piece { kind, bytes, last } = piece;
        let storage = &*self.inner.shared.storage;
        if kind == FileKind::Layout {
            writer.layout = Some(bytes.clone());
        }
        let entry = match writer.open.take() {
            None => {
                let name = file_name(collection, segment, &kind, writer.generation);
                if last {
                    put_fresh(storage, &name, &bytes).await?;
                } else {
                    // Whatever an attempt that failed has left.
                    storage.remove(&name).await?;
                    storage.append(&name, bytes.clone()).await?;
                }
                file_entry(&kind, name, &bytes)
            }
            Some(mut entry) => {
                let appended = storage.append(&entry.name, bytes.clone()).await;
                let synced = if last && appended.is_ok() { storage.sync(&entry.name).await } else { appended };
                if let Err(error) = synced {
                    // On a full disk it would be in the way of what comes next.
                    let _ = storage.remove(&entry.name).await;
                    return Err(error);
                }
                entry.len += bytes.len() as u64;
                entry.checksum = checksum_append(entry.checksum, &bytes);
                entry
            }
        };
        if last {
            writer.files.push((kind, entry));
        } else {
            writer.open = Some(entry);
        }
        Ok(())
    }

    /// Has the segment know where its columns lie, when they are written.
    pub(super) fn place_columns(segment: &Segment, writer: &SegmentWriter) -> Result<()> {
        let layout = writer.files.iter().find(|(kind, _)| *kind == FileKind::Layout);
        let (name, bytes) = layout.zip(writer.layout.as_ref()).expect("every segment has a layout");
        let names = map_of(writer.files.iter().map(|(kind, entry)| (kind.clone(), entry.name.clone())));
        segment.store(segment::layout(segment.schema(), &name.1.name, bytes, &names)?);
        Ok(())
    }

    /// The segment as a manifest names it, when all is written; and the segment knows where its columns lie.
    pub(super) fn written(segment: &Segment, writer: SegmentWriter) -> Result<SegmentManifest> {
        Self::place_columns(segment, &writer)?;
        Ok(SegmentManifest { id: segment.id(), rows: segment.len() as u64, files: writer.into_files(), adopted: None })
    }
}

fn file_name(collection: &Collection, segment: &Segment, kind: &FileKind, generation: usize) -> String {
    let ordinal = |field: &str| segment.indexes().iter().position(|index| index.field == field).unwrap_or_default();
    let fields = segment.schema().fields();
    let base = match kind {
        FileKind::Layout => "layout".to_owned(),
        FileKind::Rows => "rows".to_owned(),
        FileKind::Deletes => "deletes".to_owned(),
        // The dynamic field comes after all others.
        FileKind::Column(column) => {
            let at = fields.iter().position(|field| field.name == *column).unwrap_or(fields.len());
            format!("column-{at}")
        }
        FileKind::Vector(field) => format!("vector-{}", ordinal(field)),
        FileKind::Terms(field) => {
            let place = || fields.len() + segment.terms_position(field);
            let at = fields.iter().position(|other| other.name == *field).unwrap_or_else(place);
            match generation {
                0 => format!("terms-{at}"),
                generation => format!("terms-{at}-{generation}"),
            }
        }
        FileKind::Index(field) => format!("index-{}-{generation}", ordinal(field)),
    };
    name::segment_file(collection.id(), segment.id(), &base)
}

/// Puts a file that no manifest names yet, over whatever an attempt that failed has left.
pub(super) async fn put_fresh(storage: &dyn Storage, name: &str, bytes: &Bytes) -> Result<()> {
    match storage.put(name, bytes.clone()).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            storage.remove(name).await?;
            storage.put(name, bytes.clone()).await
        }
        done => done,
    }
}
