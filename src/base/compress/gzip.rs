//! Members of gzip files (RFC 1952) in deflate (RFC 1951).

use super::bits::{BitWriter, bits_at};
use super::{Seen, copy_match, match_len};

/// Method deflate, no flags, no time, no name, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
const WINDOW: usize = 1 << 15;
const MATCH_MIN: usize = 4;
const MATCH_MAX: usize = 258;
const NOTED_MAX: usize = 32;
/// Bytes that share their codes.
const BLOCK_BYTES: usize = 1 << 18;
const CODE_BITS_MAX: u32 = 15;
const END: usize = 256;
const LENGTHS: usize = 29;
const DISTANCES: usize = 30;
/// In which order the lengths of the codes for lengths are told.
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
/// Runs of zeros among lengths: of at least 3, and of at least 11.
const ZEROS: [(usize, usize, u32); 2] = [(18, 11, 7), (17, 3, 3)];

/// The least match length of a code, and how many bits tell the rest.
fn length_code(code: usize) -> (usize, u32) {
    match code {
        0..8 => (code + 3, 0),
        28 => (258, 0),
        _ => (((4 + code % 4) << (code / 4 - 1)) + 3, code as u32 / 4 - 1),
    }
}

/// The same of a distance.
fn distance_code(code: usize) -> (usize, u32) {
    match code {
        0..4 => (code + 1, 0),
        _ => (((2 + code % 2) << (code / 2 - 1)) + 1, code as u32 / 2 - 1),
    }
}

/// The code of `value`, of `count` codes that `least` describes.
fn code_of(least: impl Fn(usize) -> (usize, u32), count: usize, value: usize) -> usize {
    (0..count).rev().find(|&code| least(code).0 <= value).unwrap_or_default()
}

/// CRC-32 of IEEE 802.3, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    let of_byte = |byte: u32| (0..8).fold(byte, |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 });
    let table: Vec<u32> = (0..256).map(of_byte).collect();
    !bytes.iter().fold(u32::MAX, |crc, &byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize])
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut bits = BitWriter::default();
    let mut seen = Seen::new(bytes.len());
    let mut start = 0;
    loop {
        let end = bytes.len().min(start + BLOCK_BYTES);
        bits.put(u64::from(end == bytes.len()), 1);
        put_block(&mut bits, bytes, start..end, &mut seen);
        if end == bytes.len() {
            break;
        }
        start = end;
    }
    let mut out = HEADER.to_vec();
    out.extend(bits.into_bytes());
    out.extend_from_slice(&crc32(bytes).to_le_bytes());
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out
}

/// What a block is made of: a byte, or a match by its length and distance.
fn steps(bytes: &[u8], range: std::ops::Range<usize>, seen: &mut Seen) -> Vec<(u16, u16)> {
    let mut steps = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let found = if at + MATCH_MIN <= range.end { seen.replace(bytes, at) } else { None };
        match found.filter(|from| at - from <= WINDOW) {
            Some(from) => {
                let end = range.end.min(at + MATCH_MAX);
                let len = MATCH_MIN + match_len(bytes, from + MATCH_MIN, at + MATCH_MIN, end);
                steps.push((len as u16, (at - from) as u16));
                // What is inside of a short match is found again; noting all of a long one would cost more than it finds.
                let noted = (at + len.min(NOTED_MAX)).min(range.end.saturating_sub(MATCH_MIN));
                for inner in at + 1..noted {
                    seen.replace(bytes, inner);
                }
                at += len;
            }
            None => {
                steps.push((u16::from(bytes[at]), 0));
                at += 1;
            }
        }
    }
    steps
}

fn put_block(bits: &mut BitWriter, bytes: &[u8], range: std::ops::Range<usize>, seen: &mut Seen) {
    let steps = steps(bytes, range, seen);
    // By step: the symbol, and what follows it, each with its bits.
    let of_step = |&(value, distance): &(u16, u16)| {
        if distance == 0 {
            return (usize::from(value), 0, None);
        }
        let (value, distance) = (usize::from(value), usize::from(distance));
        let code = code_of(length_code, LENGTHS, value);
        (END + 1 + code, value - length_code(code).0, Some((code_of(distance_code, DISTANCES, distance), distance)))
    };
    let (mut literals, mut distances) = (vec![0; END + 1 + LENGTHS], vec![0; DISTANCES]);
    literals[END] = 1;
    // Readers want a tree of two, though it may have no use.
    distances[0] = 1;
    for step in &steps {
        let (symbol, _, distance) = of_step(step);
        literals[symbol] += 1;
        distance.into_iter().for_each(|(code, _)| distances[code] += 1);
    }
    let lengths = [code_lengths(&literals, CODE_BITS_MAX), code_lengths(&distances, CODE_BITS_MAX)];
    bits.put(2, 2);
    put_lengths(bits, &lengths);
    let [literals, distances] = lengths.map(|lengths| codes(&lengths));
    let put = |bits: &mut BitWriter, (code, len): (u32, u32)| bits.put(u64::from(code), len);
    for step in &steps {
        let (symbol, more, distance) = of_step(step);
        put(bits, literals[symbol]);
        if let Some((code, distance)) = distance {
            bits.put(more as u64, length_code(symbol - END - 1).1);
            put(bits, distances[code]);
            let (least, more) = distance_code(code);
            bits.put((distance - least) as u64, more);
        }
    }
    put(bits, literals[END]);
}

/// Tells the lengths of all codes, themselves in codes.
fn put_lengths(bits: &mut BitWriter, lengths: &[Vec<u8>; 2]) {
    let all = lengths.concat();
    // The symbol, and the bits that follow it.
    let mut symbols = Vec::new();
    let mut at = 0;
    while at < all.len() {
        let zeros = all[at..].iter().take_while(|&&len| len == 0).count();
        let run = ZEROS.into_iter().find(|(_, least, _)| zeros >= *least);
        let Some((symbol, least, width)) = run else {
            symbols.push((usize::from(all[at]), 0, 0));
            at += 1;
            continue;
        };
        let count = zeros.min(least + (1 << width) - 1);
        symbols.push((symbol, (count - least) as u64, width));
        at += count;
    }
    let mut counts = vec![0; ORDER.len()];
    symbols.iter().for_each(|&(symbol, ..)| counts[symbol] += 1);
    let own = code_lengths(&counts, 7);
    let told = ORDER.iter().rposition(|&symbol| own[symbol] > 0).unwrap_or_default().max(3) + 1;
    bits.put((END + 1 + LENGTHS - 257) as u64, 5);
    bits.put((DISTANCES - 1) as u64, 5);
    bits.put((told - 4) as u64, 4);
    ORDER[..told].iter().for_each(|&symbol| bits.put(u64::from(own[symbol]), 3));
    let own = codes(&own);
    for (symbol, more, width) in symbols {
        bits.put(u64::from(own[symbol].0), own[symbol].1);
        bits.put(more, width);
    }
}

/// The lengths of the codes of symbols that come so often, none longer than `bits_max`; of at least two symbols, so that every bit
/// string has a meaning.
fn code_lengths(counts: &[u32], bits_max: u32) -> Vec<u8> {
    let mut counts = counts.to_vec();
    for count in 0..2 {
        // Symbols that never come, where there are too few that do.
        if counts.iter().filter(|&&count| count > 0).count() < 2 {
            counts[count] = counts[count].max(1);
        }
    }
    loop {
        // Huffman's algorithm with two queues: leaves by count, and the nodes made of them, which come in order by themselves.
        let leaf = |(symbol, &count): (usize, &u32)| u64::from(count) << 16 | symbol as u64;
        let mut leaves: Vec<u64> = counts.iter().enumerate().filter(|(_, count)| **count > 0).map(leaf).collect();
        leaves.sort_unstable();
        let total = 2 * leaves.len() - 1;
        let mut nodes: Vec<u64> = leaves.iter().map(|leaf| leaf >> 16).collect();
        let mut parents = vec![0; total];
        let (mut leaf, mut inner) = (0, leaves.len());
        while nodes.len() < total {
            let mut sum = 0;
            for _ in 0..2 {
                let take_leaf = leaf < leaves.len() && (inner >= nodes.len() || nodes[leaf] <= nodes[inner]);
                let next = if take_leaf { &mut leaf } else { &mut inner };
                sum += nodes[*next];
                parents[*next] = nodes.len();
                *next += 1;
            }
            nodes.push(sum);
        }
        let mut depths = vec![0u8; total];
        for node in (0..total - 1).rev() {
            depths[node] = depths[parents[node]] + 1;
        }
        if depths.iter().all(|&depth| u32::from(depth) <= bits_max) {
            let mut lengths = vec![0; counts.len()];
            leaves.iter().zip(depths).for_each(|(leaf, depth)| lengths[(leaf & 0xffff) as usize] = depth);
            return lengths;
        }
        // Flatter, until the tree is.
        counts.iter_mut().filter(|count| **count > 0).for_each(|count| *count = (*count / 2) | 1);
    }
}

/// The code of each symbol and its length, as it is written from the lowest bit on: codes of one length count up, shorter ones come
/// first.
fn codes(lengths: &[u8]) -> Vec<(u32, u32)> {
    let mut codes = vec![(0, 0); lengths.len()];
    let mut next = 0u32;
    for len in 1..=CODE_BITS_MAX {
        next <<= 1;
        for (symbol, _) in lengths.iter().enumerate().filter(|(_, its)| u32::from(**its) == len) {
            codes[symbol] = (next.reverse_bits() >> (32 - len), len);
            next = next.wrapping_add(1);
        }
    }
    codes
}

/// Bits read from the lowest on.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// `None` past the end.
    fn take(&mut self, count: u32) -> Option<usize> {
        let bits = bits_at(self.bytes, self.at) & ((1 << count) - 1);
        self.at += count as usize;
        (self.at <= self.bytes.len() * 8).then_some(bits as usize)
    }

    fn symbol(&mut self, tree: &Tree) -> Option<usize> {
        let cell = *tree.cells.get(bits_at(self.bytes, self.at) as usize & (tree.cells.len() - 1))?;
        self.at += usize::from(cell & 15);
        (cell > 0 && self.at <= self.bytes.len() * 8).then_some(usize::from(cell >> 4))
    }
}

/// By the bits that come next: the symbol, and in the low four bits the length of its code; 0 where there is none.
struct Tree {
    cells: Vec<u16>,
}

impl Tree {
    /// `None` for lengths of more codes than there are.
    fn new(lengths: &[u8]) -> Option<Self> {
        let used: u32 = lengths.iter().filter(|&&len| len > 0).map(|&len| 1 << (CODE_BITS_MAX - u32::from(len))).sum();
        if used > 1 << CODE_BITS_MAX {
            return None;
        }
        let mut cells = vec![0; 1 << lengths.iter().copied().max().unwrap_or_default().max(1)];
        for (symbol, (code, len)) in codes(lengths).into_iter().enumerate().filter(|(_, (_, len))| *len > 0) {
            for cell in (code as usize..cells.len()).step_by(1 << len) {
                cells[cell] = (symbol << 4) as u16 | len as u16;
            }
        }
        Some(Self { cells })
    }
}

/// How many bytes the last member of `bytes` says that it holds.
pub(super) fn claim(bytes: &[u8]) -> usize {
    bytes.last_chunk::<4>().map_or(0, |len| u32::from_le_bytes(*len) as usize)
}

pub(super) fn decompress(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    // The operating system and the level may be any.
    let coded = bytes.strip_prefix(&HEADER[..4])?.get(6..)?;
    let mut bits = Bits { bytes: coded, at: 0 };
    let mut out = Vec::new();
    loop {
        let last = bits.take(1)? == 1;
        let [literals, distances] = match bits.take(2)? {
            0 => {
                let start = bits.at.div_ceil(8);
                let (size, rest) = coded.get(start..)?.split_first_chunk::<4>()?;
                let size = usize::from(u16::from_le_bytes([size[0], size[1]]));
                out.extend_from_slice(rest.get(..size)?);
                bits.at = (start + 4 + size) * 8;
                if out.len() > len {
                    return None;
                }
                if last {
                    break;
                }
                continue;
            }
            1 => {
                let fixed = |symbol: usize| match symbol {
                    144..256 => 9,
                    256..280 => 7,
                    _ => 8,
                };
                [Tree::new(&(0..288).map(fixed).collect::<Vec<u8>>())?, Tree::new(&[5; 32])?]
            }
            2 => trees(&mut bits)?,
            _ => return None,
        };
        loop {
            match bits.symbol(&literals)? {
                byte @ 0..END => out.push(byte as u8),
                END => break,
                symbol => {
                    let code = symbol - END - 1;
                    if code >= LENGTHS {
                        return None;
                    }
                    let (least, more) = length_code(code);
                    let count = least + bits.take(more)?;
                    let (least, more) = distance_code(bits.symbol(&distances).filter(|&code| code < DISTANCES)?);
                    let distance = least + bits.take(more)?;
                    if count > len.saturating_sub(out.len()) || !copy_match(&mut out, distance, count) {
                        return None;
                    }
                }
            }
            if out.len() > len {
                return None;
            }
        }
        if last {
            break;
        }
    }
    // What is behind the trailer is another member, which nobody asked for.
    (coded.len() == bits.at.div_ceil(8) + 8).then_some(out)
}

fn trees(bits: &mut Bits<'_>) -> Option<[Tree; 2]> {
    let (literals, distances, told) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
    let mut own = [0; ORDER.len()];
    for &symbol in &ORDER[..told] {
        own[symbol] = bits.take(3)? as u8;
    }
    let own = Tree::new(&own)?;
    let mut lengths: Vec<u8> = Vec::with_capacity(literals + distances);
    while lengths.len() < literals + distances {
        let (len, count) = match bits.symbol(&own)? {
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            len => (len as u8, 1),
        };
        lengths.extend(std::iter::repeat_n(len, count));
    }
    if lengths.len() > literals + distances {
        return None;
    }
    Some([Tree::new(&lengths[..literals])?, Tree::new(&lengths[literals..])?])
}
