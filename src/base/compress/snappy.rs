//! Streams of the Snappy framing format (`framing_format.txt` of google/snappy).

use super::{Seen, copy_match, match_len};
use crate::base::codec::checksum;

const BEGIN: [u8; 10] = *b"\xff\x06\x00\x00sNaPpY";
const COMPRESSED: u8 = 0;
const STORED: u8 = 1;
/// Bytes of a chunk before compression, at most.
const CHUNK_BYTES_MAX: usize = 1 << 16;
const MATCH_MIN: usize = 4;
/// The longest copy of one element.
const COPY_MAX: usize = 64;

/// The checksum of a chunk: CRC-32C, turned and shifted so that checksums of data with checksums in it are none of themselves.
fn masked(bytes: &[u8]) -> u32 {
    checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = BEGIN.to_vec();
    for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
        let coded = compress_chunk(chunk);
        let (kind, stored) = if coded.len() < chunk.len() { (COMPRESSED, coded.as_slice()) } else { (STORED, chunk) };
        out.push(kind);
        out.extend_from_slice(&(stored.len() as u32 + 4).to_le_bytes()[..3]);
        out.extend_from_slice(&masked(chunk).to_le_bytes());
        out.extend_from_slice(stored);
    }
    out
}

fn compress_chunk(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut len = bytes.len();
    while len >= 128 {
        out.push(len as u8 | 128);
        len >>= 7;
    }
    out.push(len as u8);
    let mut seen = Seen::new(bytes.len());
    let (mut at, mut anchor) = (0, 0);
    while at + MATCH_MIN <= bytes.len() {
        let Some(from) = seen.replace(bytes, at) else {
            at += 1 + ((at - anchor) >> 5);
            continue;
        };
        put_literals(&mut out, &bytes[anchor..at]);
        let mut len = MATCH_MIN + match_len(bytes, from + MATCH_MIN, at + MATCH_MIN, bytes.len());
        let offset = (at - from) as u16;
        at += len;
        anchor = at;
        while len > 0 {
            let some = len.min(COPY_MAX);
            if (MATCH_MIN..12).contains(&some) && offset < 2_048 {
                out.extend_from_slice(&[(offset >> 8 << 5) as u8 | (some as u8 - 4) << 2 | 1, offset as u8]);
            } else {
                out.push((some as u8 - 1) << 2 | 2);
                out.extend_from_slice(&offset.to_le_bytes());
            }
            len -= some;
        }
    }
    put_literals(&mut out, &bytes[anchor..]);
    out
}

fn put_literals(out: &mut Vec<u8>, literals: &[u8]) {
    let Some(last) = literals.len().checked_sub(1) else { return };
    match last {
        0..60 => out.push((last as u8) << 2),
        60..256 => out.extend_from_slice(&[60 << 2, last as u8]),
        _ => out.extend_from_slice(&[61 << 2, last as u8, (last >> 8) as u8]),
    }
    out.extend_from_slice(literals);
}

pub(super) fn decompress(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut rest = bytes.strip_prefix(&BEGIN)?;
    let mut out = Vec::new();
    while let Some((head, after)) = rest.split_first_chunk::<4>() {
        let size = u32::from_le_bytes([head[1], head[2], head[3], 0]) as usize;
        let chunk = after.get(..size)?;
        rest = &after[size..];
        match head[0] {
            COMPRESSED => decompress_chunk(chunk.get(4..)?, &mut out, len)?,
            STORED => out.extend_from_slice(chunk.get(4..).filter(|chunk| chunk.len() <= CHUNK_BYTES_MAX)?),
            // What may be left out, and another beginning.
            0x80.. => {}
            _ => return None,
        }
        if out.len() > len {
            return None;
        }
    }
    rest.is_empty().then_some(out)
}

fn decompress_chunk(mut bytes: &[u8], out: &mut Vec<u8>, len: usize) -> Option<()> {
    let (mut claim, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = bytes.split_first()?;
        bytes = rest;
        claim |= usize::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            break;
        }
        if shift > 14 {
            return None;
        }
    }
    if claim > CHUNK_BYTES_MAX {
        return None;
    }
    let start = out.len();
    let end = start + claim;
    // Copies reach back into this chunk only.
    let mut chunk = Vec::with_capacity(claim.min(bytes.len() * COPY_MAX));
    while let Some((&tag, rest)) = bytes.split_first() {
        bytes = rest;
        let mut take = |count: usize| {
            let (some, rest) = bytes.split_at_checked(count)?;
            bytes = rest;
            Some(some.iter().rev().fold(0usize, |number, &byte| number << 8 | usize::from(byte)))
        };
        let (offset, count) = match tag & 3 {
            0 => {
                let last = usize::from(tag >> 2);
                let count = 1 + if last < 60 { last } else { take(last - 59)? };
                let (literals, rest) = bytes.split_at_checked(count)?;
                bytes = rest;
                chunk.extend_from_slice(literals);
                continue;
            }
            1 => (take(1)? | usize::from(tag >> 5) << 8, 4 + usize::from(tag >> 2 & 7)),
            2 => (take(2)?, 1 + usize::from(tag >> 2)),
            _ => (take(4)?, 1 + usize::from(tag >> 2)),
        };
        if count > claim.saturating_sub(chunk.len()) || !copy_match(&mut chunk, offset, count) {
            return None;
        }
    }
    if chunk.len() != claim || end > len {
        return None;
    }
    out.extend(chunk);
    Some(())
}
