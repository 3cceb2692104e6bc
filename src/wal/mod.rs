//! Log frames and their replay: bytes only, no files.
//!
//! A log file is a header and frames; each frame carries one applied batch and is checked by CRC-32C. A torn tail is what a
//! crash leaves and is cut; damage before the tail is an error that names file and offset. What a payload means is the
//! engine's business, and when a new file begins is its writer's.

mod compress;
mod frame;
mod replay;

pub use compress::Body;
pub use frame::{FRAME_HEADER_BYTES, FrameKind, Frames, HEADER_BYTES, PAYLOAD_BYTES_MAX, encode_frame, encode_header};
pub use replay::{Damage, Frame, Replay, Salvage, first_lsn, replay, salvage};

#[cfg(test)]
mod tests;
