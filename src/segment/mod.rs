//! A run of rows with their versions and indexes: growing while it takes rows, then immutable.
//!
//! In files (byte tables in `src/docs/formats.md`): narrow columns and versions together, each wide column and each vector field
//! alone, as Arrow IPC files of many record batches, the blocks, so that some rows can be read without the others; `layout`, which
//! tells where each block lies, with its checksum and statistics; a file for each index; `deletes`. The segment makes and reads
//! those bytes and says which blocks it needs; it never sees a file. Columns may be left in storage: then rows are put together
//! from blocks that the caller has read. Which rows are still alive is not the segment's business either: it follows from the
//! versions of all segments together.

mod arrow;
mod encoder;
mod files;
mod growing;
mod keys;
mod layout;
mod message;
mod statistics;
mod terms;
#[cfg(test)]
mod tests;
mod versions;

pub use arrow::{Block, read_stream};
pub(crate) use arrow::{batch_bytes, batch_of};
pub use encoder::{Encoder, Piece, encode};
pub use files::{FileKind, SegmentFile, StoredFile, decode, layout};
pub use growing::{FieldIndex, Segment, Tombstone};
pub use keys::{KeyFilter, KeyRef, hash_int, hash_key, hash_text};
#[cfg(feature = "server")]
pub use layout::describe;
#[cfg(native)]
pub(crate) use layout::kinds;
pub use layout::{BlockRef, Blocks, Encoding, Group, Layout};
pub use message::{RowsWriter, write_rows};
pub use statistics::{Known, Range, Statistics};
pub use versions::Versions;
