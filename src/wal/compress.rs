use std::borrow::Cow;

use super::frame::PAYLOAD_BYTES_MAX;
use crate::base::codec::Reader;
use crate::base::{Error, Result, compress};

/// How a payload lies in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Codec {
    /// As it is.
    Plain = 0,
    /// The length of the head (4 bytes), the head, the unpacked length of the body (4 bytes), and an LZ4 frame of it.
    Lz4 = 1,
}

impl Codec {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Plain, Self::Lz4].into_iter().find(|codec| *codec as u8 == byte)
    }
}

/// The second part of a payload, in the codec that pays. It is most of the bytes, and can be made before the frame has its place in the
/// log.
#[derive(Debug, Clone)]
pub struct Body {
    pub(super) codec: Codec,
    pub(super) len: usize,
    /// Room for what comes before it, then the body.
    pub(super) bytes: Vec<u8>,
    pub(super) room: usize,
}

impl Body {
    /// None.
    pub fn empty() -> Self {
        Self::plain(Vec::new())
    }

    /// `bytes` as they are: right for floats, which hardly ever shrink.
    pub fn plain(bytes: Vec<u8>) -> Self {
        Self::plain_behind(0, bytes)
    }

    /// The same behind the first `room` of them: what comes before it in the file is written there, if it fits, and the body stays where
    /// it is. Panics when there are fewer.
    pub fn plain_behind(room: usize, bytes: Vec<u8>) -> Self {
        Self { codec: Codec::Plain, len: bytes.len() - room, bytes, room }
    }

    /// Packs `bytes` where that saves an eighth.
    pub fn pack(bytes: Vec<u8>) -> Self {
        match compress::shrink(&bytes, 8) {
            Some(packed) => Self { codec: Codec::Lz4, len: bytes.len(), bytes: packed, room: 0 },
            None => Self::plain(bytes),
        }
    }

    /// Its bytes as they are stored.
    pub(super) fn stored(&self) -> &[u8] {
        &self.bytes[self.room..]
    }

    /// Its length, unpacked.
    pub fn unpacked_len(&self) -> usize {
        self.len
    }
}

/// The payload that `stored` holds. Its lengths are believed only as far as the bytes are there and unpack to them.
///
/// # Errors
/// `Corrupt` when the bytes are not those of a head and a [`Body`].
pub(super) fn unpack(codec: Codec, stored: &[u8]) -> Result<Cow<'_, [u8]>> {
    if codec == Codec::Plain {
        return Ok(stored.into());
    }
    let mut reader = Reader::new(stored);
    let mut parts = || {
        let len = reader.u32()? as usize;
        let head = reader.bytes(len)?;
        let len = reader.u32()? as usize;
        Ok((head, len, reader.bytes(reader.remaining())?))
    };
    let (head, len, packed): (&[u8], usize, &[u8]) = parts().map_err(|error: Error| error.context("its payload"))?;
    let wrong = || Error::corrupt("its payload does not unpack to the length that it says");
    if head.len() + len > PAYLOAD_BYTES_MAX {
        return Err(wrong());
    }
    let body = compress::decompress(compress::Codec::Lz4, packed, len).map_err(|_| wrong())?;
    Ok([head, &body].concat().into())
}
