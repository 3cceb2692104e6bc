use super::compress::{Body, Codec};
use crate::base::codec::{Write, checksum, checksum_append};
use crate::base::{CollectionId, Lsn};

/// The first bytes of every log file.
pub(super) const MAGIC: &[u8; 8] = b"EDDYLOG\n";
/// The layout below.
pub(super) const VERSION: u16 = 1;
/// The length of the file header.
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | 8 | `EDDYLOG\n` |
/// | 8 | 2 | version, 1 |
/// | 10 | 2 | zero |
/// | 12 | 8 | collection id |
/// | 20 | 8 | number of the file |
/// | 28 | 4 | CRC-32C of bytes 0 to 28 |
pub const HEADER_BYTES: usize = 32;
/// The length of a frame before its payload.
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | 4 | length of the payload as it lies there |
/// | 4 | 4 | CRC-32C of bytes 0 to 4 and of everything from byte 8 to the frame's end |
/// | 8 | 8 | log sequence number |
/// | 16 | 1 | kind: 1 changes, 2 position, 3 lost |
/// | 17 | 1 | codec of the payload: 0, as it is; 1, length of its head (4 bytes), the head, unpacked length of the rest (4 bytes), an LZ4 frame of it |
/// | 18 | 2 | place in its group, from 0: frames of one group were appended and synced together |
pub const FRAME_HEADER_BYTES: usize = 20;
/// The longest payload, unpacked: well above the largest batch that the model accepts, and a bound for what damaged lengths may claim.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Rows and deletes.
    Changes = 1,
    /// A position that sync has reached, without changes.
    Position = 2,
    /// Frames from this one's number to the one in its payload (8 bytes) were damaged, and left out by a repair. The next frame
    /// has the number after those.
    Lost = 3,
    /// How far a subscription has got.
    Cursor = 4,
}

impl FrameKind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Changes, Self::Position, Self::Lost, Self::Cursor].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The header of log file `number` of a collection.
pub fn encode_header(collection: CollectionId, number: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.put_bytes(MAGIC);
    out.put_u16(VERSION);
    out.put_u16(0);
    out.put_u64(collection.0);
    out.put_u64(number);
    let sum = checksum(&out);
    out.put_u32(sum);
    out
}

/// Appends frame `place` of a group to `out`; its payload is `head`, then `body`. Panics when the payload is longer than
/// [`PAYLOAD_BYTES_MAX`]: the caller bounds batches.
pub fn encode_frame(out: &mut Vec<u8>, lsn: Lsn, place: u16, kind: FrameKind, head: &[u8], body: &Body) {
    let unpacked = head.len() + body.len;
    assert!(unpacked <= PAYLOAD_BYTES_MAX, "a frame of {unpacked} bytes; batches are bounded before");
    let lengths = if body.codec == Codec::Lz4 { 8 } else { 0 };
    let len = lengths + head.len() + body.bytes.len();
    let start = out.len();
    out.reserve(FRAME_HEADER_BYTES + len);
    out.put_u32(len as u32);
    out.put_u32(0);
    out.put_u64(lsn.0);
    out.put_u8(kind as u8);
    out.put_u8(body.codec as u8);
    out.put_u16(place);
    if body.codec == Codec::Lz4 {
        out.put_u32(head.len() as u32);
    }
    out.put_bytes(head);
    if body.codec == Codec::Lz4 {
        out.put_u32(body.len as u32);
    }
    out.put_bytes(&body.bytes);
    let sum = checksum_append(checksum(&out[start..start + 4]), &out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
}
