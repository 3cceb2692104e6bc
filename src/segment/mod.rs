//! A run of rows with their versions and indexes: growing while it takes rows, then immutable.
//!
//! In files (byte table in `src/docs/formats.md`): `rows` (narrow columns and versions, Arrow IPC), one `vector` file for each
//! vector field (Arrow IPC), one `index` file for each index, `deletes` (Arrow IPC). The segment makes and reads those bytes
//! and never sees a file: names, lengths and checksums are the manifest's. Which rows are still alive is not the segment's
//! business either: it follows from the versions of all segments together.

mod arrow;
mod files;
mod growing;
mod versions;

pub(crate) use arrow::batch_of;
pub use arrow::{read_stream, write_stream};
pub use files::{FileKind, SegmentFile, decode, encode, encode_indexes};
pub(crate) use files::{decode_tombstones, encode_tombstones};
pub use growing::{FieldIndex, Segment, Tombstone};
pub use versions::Versions;
