//! LZ4 frames of independent blocks.

use super::{Seen, copy_match, match_len};

const MAGIC: u32 = 0x184d_2204;
/// Version 1, independent blocks, no checksums, the content's length in the header; blocks of at most 4 MiB.
const FLAGS: u8 = 0b0110_1000;
const BLOCK_SIZE: u8 = 7 << 4;
const BLOCK_BYTES_MAX: usize = 4 << 20;
/// The high bit of a block's length: it is stored as it is.
const STORED: u32 = 1 << 31;
const MATCH_MIN: usize = 4;
/// The format wants a block to end in this many literals, and the last match to begin this far before the end.
const END_LITERALS: usize = 5;
const END_MATCH: usize = 12;

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_le_bytes().to_vec();
    out.extend_from_slice(&[FLAGS, BLOCK_SIZE]);
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.push((xxh32(&out[4..]) >> 8) as u8);
    for block in bytes.chunks(BLOCK_BYTES_MAX) {
        let coded = compress_block(block);
        let (flag, stored) = if coded.len() < block.len() { (0, coded.as_slice()) } else { (STORED, block) };
        out.extend_from_slice(&(stored.len() as u32 | flag).to_le_bytes());
        out.extend_from_slice(stored);
    }
    out.extend_from_slice(&[0; 4]);
    out
}

fn compress_block(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut seen = Seen::new(bytes.len());
    let (mut at, mut anchor) = (0, 0);
    while at + END_MATCH <= bytes.len() {
        let Some(from) = seen.replace(bytes, at).filter(|from| at - from <= usize::from(u16::MAX)) else {
            at += 1 + ((at - anchor) >> 6);
            continue;
        };
        let end = bytes.len() - END_LITERALS;
        let more = match_len(bytes, from + MATCH_MIN, at + MATCH_MIN, end);
        put_sequence(&mut out, &bytes[anchor..at], Some((at - from, more)));
        at += MATCH_MIN + more;
        anchor = at;
    }
    put_sequence(&mut out, &bytes[anchor..], None);
    out
}

fn put_sequence(out: &mut Vec<u8>, literals: &[u8], found: Option<(usize, usize)>) {
    let more = found.map_or(0, |(_, more)| more);
    out.push((literals.len().min(15) << 4 | more.min(15)) as u8);
    put_length(out, literals.len());
    out.extend_from_slice(literals);
    if let Some((offset, _)) = found {
        out.extend_from_slice(&(offset as u16).to_le_bytes());
        put_length(out, more);
    }
}

/// What of a length does not fit the token's four bits.
fn put_length(out: &mut Vec<u8>, len: usize) {
    let Some(mut rest) = len.checked_sub(15) else { return };
    while rest >= 255 {
        out.push(255);
        rest -= 255;
    }
    out.push(rest as u8);
}

pub(super) fn decompress(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    let (head, rest) = bytes.split_first_chunk::<6>()?;
    let flags = head[4];
    // Version 1, and neither a dictionary nor a bit without a meaning.
    if u32::from_le_bytes([head[0], head[1], head[2], head[3]]) != MAGIC || flags & 0b1100_0011 != 0b0100_0000 {
        return None;
    }
    let mut bytes = rest.get(usize::from(flags & 8) + 1..)?;
    let mut out = Vec::with_capacity(len.min(bytes.len() * 8));
    loop {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        let head = u32::from_le_bytes(*head);
        if head == 0 {
            // A checksum of the content may follow.
            return (rest.len() == usize::from(flags & 4)).then_some(out);
        }
        let stored = (head & !STORED) as usize;
        let block = rest.get(..stored)?;
        bytes = rest.get(stored + if flags & 16 != 0 { 4 } else { 0 }..)?;
        if head & STORED != 0 {
            out.extend_from_slice(block);
        } else {
            decompress_block(block, &mut out, len)?;
        }
        if out.len() > len {
            return None;
        }
    }
}

fn decompress_block(mut bytes: &[u8], out: &mut Vec<u8>, len: usize) -> Option<()> {
    loop {
        let (&token, rest) = bytes.split_first()?;
        bytes = rest;
        let literals = length(&mut bytes, token >> 4)?;
        let now = bytes.get(..literals)?;
        bytes = &bytes[literals..];
        out.extend_from_slice(now);
        if bytes.is_empty() {
            return Some(());
        }
        let (offset, rest) = bytes.split_first_chunk::<2>()?;
        bytes = rest;
        let more = MATCH_MIN.checked_add(length(&mut bytes, token & 15)?)?;
        if more > len.saturating_sub(out.len()) || !copy_match(out, usize::from(u16::from_le_bytes(*offset)), more) {
            return None;
        }
    }
}

fn length(bytes: &mut &[u8], nibble: u8) -> Option<usize> {
    let mut len = usize::from(nibble);
    if nibble == 15 {
        loop {
            let (&more, rest) = bytes.split_first()?;
            *bytes = rest;
            len = len.checked_add(usize::from(more))?;
            if more < 255 {
                break;
            }
        }
    }
    Some(len)
}

/// xxHash32 with seed 0 of fewer than 16 bytes: what the frame header is checked with.
fn xxh32(bytes: &[u8]) -> u32 {
    const PRIMES: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
    let mut hash = PRIMES[4].wrapping_add(bytes.len() as u32);
    let (words, rest) = bytes.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(PRIMES[2]));
        hash = hash.rotate_left(17).wrapping_mul(PRIMES[3]);
    }
    for &byte in rest {
        hash = hash.wrapping_add(u32::from(byte).wrapping_mul(PRIMES[4]));
        hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(PRIMES[1]);
    hash = (hash ^ hash >> 13).wrapping_mul(PRIMES[2]);
    hash ^ hash >> 16
}
