//! Zstandard, LZ4, gzip and Snappy, read and written in Rust alone, so that every target writes the same bytes.
//!
//! The C libraries do not compile for browsers without a C toolchain, and the Rust crates cost the browser ten times what this
//! does. Frames are those of RFC 8878, of the LZ4 frame format 1.6, of RFC 1952 and of the Snappy framing format: other readers open
//! them. Deliberately absent: dictionaries, and checking the content checksums, for whoever stores frames checks their bytes before.

mod bits;
mod fse;
mod gzip;
mod lz4;
mod snappy;
// Against the C library and another LZ4, which are native.
#[cfg(all(test, native))]
mod tests;
mod zstd;

use serde::{Deserialize, Serialize};

use super::{Error, Result};

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not at all.
    None,
    /// LZ4 frames: larger, and several times faster to write.
    Lz4,
    /// Zstandard frames.
    #[default]
    Zstd,
    /// Members of a gzip file: what every tool opens.
    Gzip,
    /// Snappy's framing format: larger, and the fastest to read.
    Snappy,
}

impl Codec {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::None, Self::Lz4, Self::Zstd, Self::Gzip, Self::Snappy];

    /// The name by which options and manifests call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
        }
    }

    /// Whether streams of it, one after the other, are one stream of the bytes of all: the codecs of whole files.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Gzip | Self::Snappy)
    }
}

impl std::str::FromStr for Codec {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|codec| codec.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid(format!("codec {name:?}; expected one of: {names}"))
        })
    }
}

/// One frame that holds `bytes`; the bytes themselves with [`Codec::None`].
pub fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::None => bytes.to_vec(),
        Codec::Lz4 => lz4::compress(bytes),
        Codec::Zstd => zstd::compress(bytes),
        Codec::Gzip => gzip::compress(bytes),
        Codec::Snappy => snappy::compress(bytes),
    }
}

/// Fewer bytes stay as they are: the search for repeats costs more than it can save.
const SHRUNK_BYTES_MIN: usize = 128;
/// More are judged by pieces of them first, for vectors are most of the bytes and hardly ever shrink: packing 1.5 MB of
/// them in vain takes 580 us, a sample of them 3 us (and one of text 24 us, where the whole then takes 2.5 ms and halves).
const SAMPLE_PIECES: usize = 4;
const SAMPLE_PIECE_BYTES: usize = 4 << 10;

/// An LZ4 frame that holds `bytes`, where it and `beside` more bytes are at most seven eighths of them.
pub fn shrink(bytes: &[u8], beside: usize) -> Option<Vec<u8>> {
    if bytes.len() < SHRUNK_BYTES_MIN || !sample_shrinks(bytes) {
        return None;
    }
    Some(lz4::compress(bytes)).filter(|packed| pays(packed.len() + beside, bytes.len()))
}

fn pays(packed: usize, whole: usize) -> bool {
    packed <= whole - whole / 8
}

fn sample_shrinks(bytes: &[u8]) -> bool {
    if bytes.len() <= SAMPLE_PIECES * SAMPLE_PIECE_BYTES {
        return true;
    }
    // The first piece is left out: the schema in front of rows shrinks always and says nothing about them.
    let stride = bytes.len() / SAMPLE_PIECES;
    let piece = |at: usize| &bytes[(at + 1) * stride - SAMPLE_PIECE_BYTES..][..SAMPLE_PIECE_BYTES];
    let sample: Vec<u8> = (0..SAMPLE_PIECES).flat_map(|at| piece(at).iter().copied()).collect();
    pays(lz4::compress(&sample).len(), sample.len())
}

/// The `len` bytes that a frame holds. Memory grows with what is decoded, not with `len`.
///
/// # Errors
/// `Corrupt` when the frame is damaged or holds another number of bytes.
pub fn decompress(codec: Codec, bytes: &[u8], len: usize) -> Result<Vec<u8>> {
    let decoded = match codec {
        Codec::None => Some(bytes.to_vec()),
        Codec::Lz4 => lz4::decompress(bytes, len),
        Codec::Zstd => zstd::decompress(bytes, len),
        Codec::Gzip => gzip::decompress(bytes, len),
        Codec::Snappy => snappy::decompress(bytes, len),
    };
    decoded
        .filter(|decoded| decoded.len() == len)
        .ok_or_else(|| Error::corrupt(format!("no {} frame of {len} bytes", codec.as_str())))
}

/// All that a stream holds; the bytes themselves with another codec. Memory grows with what is decoded.
///
/// # Errors
/// `Corrupt` when the stream is damaged.
pub fn decompress_stream(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>> {
    let decoded = match codec {
        Codec::Gzip => {
            gzip::decompress(bytes, gzip::claim(bytes)).filter(|decoded| decoded.len() == gzip::claim(bytes))
        }
        Codec::Snappy => snappy::decompress(bytes, usize::MAX),
        _ => Some(bytes.to_vec()),
    };
    decoded.ok_or_else(|| Error::corrupt(format!("no {} stream", codec.as_str())))
}

/// How many bytes from `a` and from `b` on are equal, at most up to `end`; `a < b`.
fn match_len(bytes: &[u8], a: usize, b: usize, end: usize) -> usize {
    bytes[b..end].iter().zip(&bytes[a..]).take_while(|(left, right)| left == right).count()
}

/// Appends `len` bytes that begin `offset` before the end, which they may run over. False when the offset leads too far.
fn copy_match(out: &mut Vec<u8>, offset: usize, len: usize) -> bool {
    if offset == 0 || offset > out.len() {
        return false;
    }
    let start = out.len() - offset;
    let mut left = len;
    while left > 0 {
        // What was copied doubles what can be copied next.
        let some = left.min(out.len() - start);
        out.extend_from_within(start..start + some);
        left -= some;
    }
    true
}

/// Where bytes that begin like those at hand were seen last.
struct Seen {
    bits: u32,
    places: Vec<u32>,
}

impl Seen {
    fn new(len: usize) -> Self {
        let bits = (usize::BITS - len.leading_zeros()).clamp(8, 15);
        Self { bits, places: vec![0; 1 << bits] }
    }

    /// The last place where the four bytes at `at` were seen, and notes this one.
    fn replace(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let word = word(bytes, at);
        // Knuth's multiplicative hash: the golden ratio of 2^32.
        let slot = word.wrapping_mul(2_654_435_761) >> (32 - self.bits);
        let last = std::mem::replace(&mut self.places[slot as usize], at as u32 + 1);
        let last = (last as usize).checked_sub(1)?;
        (self::word(bytes, last) == word).then_some(last)
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
