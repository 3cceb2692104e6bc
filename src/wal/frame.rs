use bytes::Bytes;

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
    /// A batch that a hub has refused for good.
    Refused = 5,
    /// Which part of a hub's rows is kept here.
    Part = 6,
}

impl FrameKind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Changes, Self::Position, Self::Lost, Self::Cursor, Self::Refused, Self::Part]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
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
    let packed = body.codec == Codec::Lz4;
    let lengths = if packed { 8 } else { 0 };
    let start = out.len();
    out.reserve(FRAME_HEADER_BYTES + lengths + head.len() + body.stored().len());
    out.put_bytes(&encode_frame_header(lsn, place, kind, head, body));
    if packed {
        out.put_u32(head.len() as u32);
    }
    out.put_bytes(head);
    if packed {
        out.put_u32(body.len as u32);
    }
    out.put_bytes(body.stored());
    sign(&mut out[start..]);
}

/// The start of a frame, without its checksum.
fn encode_frame_header(lsn: Lsn, place: u16, kind: FrameKind, head: &[u8], body: &Body) -> [u8; FRAME_HEADER_BYTES] {
    let unpacked = head.len() + body.len;
    assert!(unpacked <= PAYLOAD_BYTES_MAX, "a frame of {unpacked} bytes; batches are bounded before");
    let lengths = if body.codec == Codec::Lz4 { 8 } else { 0 };
    let len = lengths + head.len() + body.stored().len();
    let mut out = [0; FRAME_HEADER_BYTES];
    out[..4].copy_from_slice(&(len as u32).to_le_bytes());
    out[8..16].copy_from_slice(&lsn.0.to_le_bytes());
    out[16] = kind as u8;
    out[17] = body.codec as u8;
    out[18..].copy_from_slice(&place.to_le_bytes());
    out
}

/// Puts the checksum of a whole frame in its place.
fn sign(frame: &mut [u8]) {
    let sum = checksum_append(checksum(&frame[..4]), &frame[8..]);
    frame[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Frames that go into a log file together.
#[derive(Debug, Default)]
pub struct Frames {
    /// The header of the file, where there is none yet, and frames.
    bytes: Vec<u8>,
    /// The one that comes then. As long as no other follows, nobody knows whether it has to be moved.
    last: Option<(Lsn, u16, FrameKind, Vec<u8>, Body)>,
    len: usize,
}

impl Frames {
    /// The first of a file, which begins with `header`; of one that has begun with none.
    pub fn new(header: Vec<u8>) -> Self {
        Self { len: header.len(), bytes: header, last: None }
    }

    /// Goes on in a buffer that was used before, where that is larger.
    pub fn reuse(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > self.bytes.capacity() {
            buffer.clear();
            buffer.extend_from_slice(&self.bytes);
            self.bytes = buffer;
        }
    }

    /// Adds one: see [`encode_frame`].
    pub fn push(&mut self, lsn: Lsn, place: u16, kind: FrameKind, head: Vec<u8>, body: Body) {
        self.put_last();
        self.len += FRAME_HEADER_BYTES + head.len() + body.stored().len();
        self.last = Some((lsn, place, kind, head, body));
    }

    fn put_last(&mut self) {
        if let Some((lsn, place, kind, head, body)) = self.last.take() {
            encode_frame(&mut self.bytes, lsn, place, kind, &head, &body);
        }
    }

    /// About how many bytes they are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Their bytes: a single one whose body has room before it stays where it is.
    pub fn into_bytes(mut self) -> Bytes {
        let before = self.bytes.len() + FRAME_HEADER_BYTES;
        match self.last.take() {
            Some((lsn, place, kind, head, mut body))
                if body.codec == Codec::Plain && before + head.len() <= body.room =>
            {
                let header = encode_frame_header(lsn, place, kind, &head, &body);
                let frame = body.room - head.len() - FRAME_HEADER_BYTES;
                let start = frame - self.bytes.len();
                body.bytes[start..frame].copy_from_slice(&self.bytes);
                body.bytes[frame..frame + FRAME_HEADER_BYTES].copy_from_slice(&header);
                body.bytes[frame + FRAME_HEADER_BYTES..body.room].copy_from_slice(&head);
                sign(&mut body.bytes[frame..]);
                Bytes::from(body.bytes).slice(start..)
            }
            last => {
                self.last = last;
                self.put_last();
                self.bytes.into()
            }
        }
    }
}
