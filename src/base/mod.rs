//! What every room stands on: errors, ids, hybrid timestamps, the little-endian codec, MessagePack as it is
//! read, compressed frames, row masks, bounded top-k and a seeded generator.
//!
//! Nothing here knows what a collection is. Everything is a value: no IO, no clock, no randomness, no global state.

pub mod codec;
pub mod compress;
#[cfg(any(browser, test))]
mod crc;
mod error;
mod id;
mod mask;
pub mod message;
mod random;
mod room;
mod sort;
mod time;
mod topk;
mod version;

pub use error::{Error, ErrorKind, Result};
pub use id::{CollectionId, Lsn, ReplicaId, SegmentId, Sequence};
pub use mask::RowMask;
pub use random::Random;
pub use room::make_room;
pub use sort::{keep_least, map_of, sort_by, sort_by_key};
pub use time::{HybridClock, Timestamp};
pub use topk::{Neighbor, TopK, ordered_bits};
pub use version::Version;
