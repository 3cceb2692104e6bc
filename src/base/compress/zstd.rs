//! Zstandard frames (RFC 8878).

use super::bits::{BitReader, BitWriter};
use super::fse::{self, Encoder, Table};
use super::{Seen, copy_match, match_len, word};

const MAGIC: u32 = 0xfd2f_b528;
/// A block decodes to at most this much.
const BLOCK_BYTES_MAX: usize = 128 << 10;
/// Longest code of a literal, in bits.
const CODE_BITS_MAX: u32 = 11;
/// A match shorter than this costs more than its literals.
const MATCH_MIN: usize = 4;

/// Tables of fewer sequences than this are not worth describing.
const DESCRIBED_MIN: usize = 48;

/// One of the three codes of a sequence.
struct Kind {
    log_max: u32,
    symbols: usize,
    default_log: u32,
    default: &'static [i16],
}

/// Literal lengths, offsets, match lengths: in the order in which a block describes their tables.
const KINDS: [Kind; 3] = [
    Kind {
        log_max: 9,
        symbols: 36,
        default_log: 6,
        default: &[
            4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1,
            -1,
        ],
    },
    Kind {
        log_max: 8,
        symbols: 32,
        default_log: 5,
        default: &[1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1],
    },
    Kind {
        log_max: 9,
        symbols: 53,
        default_log: 6,
        default: &[
            1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
            1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
        ],
    },
];

/// By code: the least length, and how many bits tell how much more.
type Lengths<const N: usize> = [(u32, u8); N];

/// The first `plain` codes stand for one length each; the bits of the others are `bits`, then one more each.
const fn lengths<const N: usize>(first: u32, plain: usize, bits: &[u8]) -> Lengths<N> {
    let mut all = [(0, 0); N];
    let mut least = first;
    let mut code = 0;
    while code < N {
        let more = if code < plain {
            0
        } else if code - plain < bits.len() {
            bits[code - plain]
        } else {
            all[code - 1].1 + 1
        };
        all[code] = (least, more);
        least += 1 << more;
        code += 1;
    }
    all
}

static LITERAL_LENGTHS: Lengths<36> = lengths(0, 16, &[1, 1, 1, 1, 2, 2, 3, 3, 4, 6]);
static MATCH_LENGTHS: Lengths<53> = lengths(3, 32, &[1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7]);

fn code_of(lengths: &[(u32, u8)], len: usize) -> u8 {
    (lengths.partition_point(|(least, _)| *least as usize <= len) - 1) as u8
}

/// The three offsets used last, the last one first.
#[derive(Clone, Copy)]
struct Recent([usize; 3]);

impl Recent {
    const START: Self = Self([1, 4, 8]);

    /// The offset that `value` stands for after `literals` literals.
    fn take(&mut self, value: usize, literals: usize) -> Option<usize> {
        let Self(recent) = self;
        // Without literals the last offset would have made the match before longer, so it has no number.
        let which = value - 1 + usize::from(literals == 0);
        let offset = match which {
            _ if value > 3 => value - 3,
            3 => recent[0].checked_sub(1).filter(|&offset| offset > 0)?,
            _ => recent[which],
        };
        let moved = if value > 3 { 2 } else { which.min(2) };
        recent.copy_within(0..moved, 1);
        recent[0] = offset;
        Some(offset)
    }

    /// The number of `offset`; counts it as used.
    fn put(&mut self, offset: usize, literals: usize) -> usize {
        let first = usize::from(literals == 0);
        let known = (first..3).find(|&which| self.0[which] == offset).map(|which| which + 1 - first);
        let value = known.unwrap_or(offset + 3);
        self.take(value, literals);
        value
    }
}

/// Decoding table of literals: by the next `bits` bits, a byte and how many of them it takes.
struct Huffman {
    bits: u32,
    cells: Vec<(u8, u8)>,
}

impl Huffman {
    /// From the weight of every byte up to the last one that has any, which is left out.
    fn new(mut weights: Vec<u8>) -> Option<Self> {
        let sum: u32 = weights.iter().map(|&weight| (1u32 << weight) >> 1).sum();
        if sum == 0 || weights.len() > 255 || weights.iter().any(|&weight| u32::from(weight) > CODE_BITS_MAX) {
            return None;
        }
        let bits = sum.ilog2() + 1;
        let left = (1 << bits) - sum;
        if bits > CODE_BITS_MAX || !left.is_power_of_two() {
            return None;
        }
        weights.push(left.ilog2() as u8 + 1);
        let mut cells = Vec::with_capacity(1 << bits);
        for weight in 1..=bits as u8 {
            for (byte, _) in weights.iter().enumerate().filter(|(_, its)| **its == weight) {
                let cell = (byte as u8, bits as u8 + 1 - weight);
                cells.extend(std::iter::repeat_n(cell, 1 << (weight - 1)));
            }
        }
        (cells.len() == 1 << bits).then_some(Self { bits, cells })
    }

    /// The table described at the start of `bytes`, and the length of its description.
    fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (&head, rest) = bytes.split_first()?;
        let mut weights = Vec::new();
        let used = if head >= 128 {
            let count = usize::from(head) - 127;
            let packed = rest.get(..count.div_ceil(2))?;
            weights.extend(packed.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(count));
            packed.len()
        } else {
            let coded = rest.get(..usize::from(head))?;
            let (table, described) = Table::read(coded, 6, 16)?;
            let mut bits = BitReader::new(&coded[described..])?;
            // Two states take turns; the one that finds no more bits was the last but one.
            let mut states = [table.start(&mut bits), table.start(&mut bits)];
            if bits.is_over() {
                return None;
            }
            for turn in (0..2).cycle() {
                weights.push(table.symbol(states[turn]));
                states[turn] = table.next(states[turn], &mut bits);
                if bits.is_over() {
                    weights.push(table.symbol(states[1 - turn]));
                    break;
                }
                if weights.len() > 255 {
                    return None;
                }
            }
            coded.len()
        };
        Some((Self::new(weights)?, used + 1))
    }

    fn decode(&self, bytes: &[u8], count: usize, out: &mut Vec<u8>) -> Option<()> {
        let mut bits = BitReader::new(bytes)?;
        for _ in 0..count {
            let (byte, used) = self.cells[bits.peek(self.bits) as usize];
            bits.skip(u32::from(used));
            out.push(byte);
            if bits.is_over() {
                return None;
            }
        }
        bits.is_spent().then_some(())
    }
}

/// What blocks of a frame hand on to the next.
struct Decoder {
    out: Vec<u8>,
    len: usize,
    recent: Recent,
    huffman: Option<Huffman>,
    tables: [Option<Table>; 3],
}

/// The `len` bytes of the one frame in `bytes`; `None` when it is damaged or holds more.
pub(super) fn decompress(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    let (head, bytes) = bytes.split_first_chunk::<5>()?;
    let flags = head[4];
    // Dictionaries, and bits without a meaning yet.
    if u32::from_le_bytes([head[0], head[1], head[2], head[3]]) != MAGIC || flags & 0b1011 != 0 {
        return None;
    }
    let single = flags >> 5 & 1;
    let size_len = [usize::from(single), 2, 4, 8][usize::from(flags >> 6)];
    let mut bytes = bytes.get(usize::from(1 - single) + size_len..)?;
    let mut decoder = Decoder {
        out: Vec::with_capacity(len.min(bytes.len() * 8)),
        len,
        recent: Recent::START,
        huffman: None,
        tables: [const { None }; 3],
    };
    loop {
        let (head, rest) = bytes.split_first_chunk::<3>()?;
        let head = u32::from_le_bytes([head[0], head[1], head[2], 0]);
        let size = (head >> 3) as usize;
        let stored = if head >> 1 & 3 == 1 { 1 } else { size };
        let block = rest.get(..stored)?;
        bytes = &rest[stored..];
        if size > BLOCK_BYTES_MAX {
            return None;
        }
        match head >> 1 & 3 {
            0 => decoder.out.extend_from_slice(block),
            1 => decoder.out.resize(decoder.out.len() + size, block[0]),
            2 => decoder.block(block)?,
            _ => return None,
        }
        if decoder.out.len() > len {
            return None;
        }
        if head & 1 == 1 {
            // A checksum of the content may follow.
            return (bytes.len() == usize::from(flags & 4)).then_some(decoder.out);
        }
    }
}

impl Decoder {
    fn literals<'a>(&mut self, bytes: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
        let &first = bytes.first()?;
        let (kind, form) = (first & 3, usize::from(first >> 2 & 3));
        if kind < 2 {
            let (shift, used) = [(3, 1), (4, 2), (3, 1), (4, 3)][form];
            let head = bytes.get(..used)?.iter().rev().fold(0, |head, &byte| head << 8 | usize::from(byte));
            let (len, rest) = (head >> shift, &bytes[used..]);
            if len > BLOCK_BYTES_MAX {
                return None;
            }
            let stored = if kind == 0 { len } else { 1 };
            let literals = rest.get(..stored)?;
            let literals = if kind == 0 { literals.to_vec() } else { vec![literals[0]; len] };
            return Some((literals, &rest[stored..]));
        }
        let (bits, used) = [(10, 3), (10, 3), (14, 4), (18, 5)][form];
        let head = bytes.get(..used)?.iter().rev().fold(0u64, |head, &byte| head << 8 | u64::from(byte));
        let mask = (1 << bits) - 1;
        let (len, stored) = ((head >> 4 & mask) as usize, (head >> (4 + bits) & mask) as usize);
        let mut coded = bytes.get(used..used + stored)?;
        if len > BLOCK_BYTES_MAX {
            return None;
        }
        if kind == 2 {
            let (huffman, described) = Huffman::read(coded)?;
            self.huffman = Some(huffman);
            coded = &coded[described..];
        }
        let huffman = self.huffman.as_ref()?;
        let mut literals = Vec::with_capacity(len);
        if form == 0 {
            huffman.decode(coded, len, &mut literals)?;
        } else {
            let (jumps, mut streams) = coded.split_first_chunk::<6>()?;
            let part = len.div_ceil(4);
            for at in 0..3 {
                let stored = usize::from(u16::from_le_bytes([jumps[2 * at], jumps[2 * at + 1]]));
                huffman.decode(streams.get(..stored)?, part, &mut literals)?;
                streams = &streams[stored..];
            }
            huffman.decode(streams, len.checked_sub(3 * part)?, &mut literals)?;
        }
        Some((literals, &bytes[used + stored..]))
    }

    fn block(&mut self, bytes: &[u8]) -> Option<()> {
        let (literals, bytes) = self.literals(bytes)?;
        let (&first, mut bytes) = bytes.split_first()?;
        let mut count = usize::from(first);
        if first >= 128 {
            let used = if first == 255 { 2 } else { 1 };
            let more = bytes.get(..used)?;
            count = match *more {
                [low] => ((count - 128) << 8) + usize::from(low),
                _ => usize::from(more[0]) + (usize::from(more[1]) << 8) + 0x7f00,
            };
            bytes = &bytes[used..];
        }
        if count == 0 {
            self.out.extend_from_slice(&literals);
            return bytes.is_empty().then_some(());
        }
        let (&modes, rest) = bytes.split_first()?;
        bytes = rest;
        for (at, kind) in KINDS.iter().enumerate() {
            let table = match modes >> (6 - 2 * at) & 3 {
                0 => Table::new(kind.default_log, kind.default),
                1 => {
                    let (&symbol, rest) = bytes.split_first()?;
                    bytes = rest;
                    if usize::from(symbol) >= kind.symbols {
                        return None;
                    }
                    Table::of_one(symbol)
                }
                2 => {
                    let (table, used) = Table::read(bytes, kind.log_max, kind.symbols)?;
                    bytes = &bytes[used..];
                    table
                }
                _ => continue,
            };
            self.tables[at] = Some(table);
        }
        let [Some(literal_lengths), Some(offsets), Some(match_lengths)] = &self.tables else { return None };
        let mut bits = BitReader::new(bytes)?;
        let mut literal_state = literal_lengths.start(&mut bits);
        let mut offset_state = offsets.start(&mut bits);
        let mut match_state = match_lengths.start(&mut bits);
        let mut literals = literals.as_slice();
        let end = self.out.len() + BLOCK_BYTES_MAX;
        for left in (0..count).rev() {
            let code = u32::from(offsets.symbol(offset_state));
            let value = (1usize << code) + bits.read(code) as usize;
            let (least, more) = MATCH_LENGTHS[usize::from(match_lengths.symbol(match_state))];
            let match_len = least as usize + bits.read(u32::from(more)) as usize;
            let (least, more) = LITERAL_LENGTHS[usize::from(literal_lengths.symbol(literal_state))];
            let literal_len = least as usize + bits.read(u32::from(more)) as usize;
            if literal_len > literals.len() || self.out.len() + literal_len + match_len > end.min(self.len) {
                return None;
            }
            let (now, rest) = literals.split_at(literal_len);
            literals = rest;
            self.out.extend_from_slice(now);
            if !copy_match(&mut self.out, self.recent.take(value, literal_len)?, match_len) {
                return None;
            }
            if left > 0 {
                literal_state = literal_lengths.next(literal_state, &mut bits);
                match_state = match_lengths.next(match_state, &mut bits);
                offset_state = offsets.next(offset_state, &mut bits);
            }
            if bits.is_over() {
                return None;
            }
        }
        self.out.extend_from_slice(literals);
        bits.is_spent().then_some(())
    }
}

/// Some literals, then a match.
struct Step {
    literals: usize,
    offset: usize,
    len: usize,
}

/// One frame of `bytes`, which are less than 4 GiB: the whole of them is its window.
pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() / 2 + 16);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    let len = u32::try_from(bytes.len()).expect("buffers of segments and logs are far below 4 GiB");
    // One segment, with its length in 4 bytes.
    out.push(0b1010_0000);
    out.extend_from_slice(&len.to_le_bytes());
    let mut seen = Seen::new(bytes.len());
    let mut recent = Recent::START;
    let mut start = 0;
    loop {
        let end = bytes.len().min(start + BLOCK_BYTES_MAX);
        let steps = find(bytes, start, end, &mut seen, recent.0[0]);
        let block = &bytes[start..end];
        let mut after = recent;
        let coded = encode(block, &steps, &mut after).filter(|coded| coded.len() < block.len());
        let (kind, stored) = match &coded {
            Some(coded) => {
                recent = after;
                (2, coded.as_slice())
            }
            None => (0, block),
        };
        let head = u32::from(end == bytes.len()) | kind << 1 | (stored.len() as u32) << 3;
        out.extend_from_slice(&head.to_le_bytes()[..3]);
        out.extend_from_slice(stored);
        if end == bytes.len() {
            return out;
        }
        start = end;
    }
}

/// Matches of `bytes[start..end]` with what came before: the first that is found is taken.
fn find(bytes: &[u8], start: usize, end: usize, seen: &mut Seen, mut last: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut at, mut anchor) = (start, start);
    while at + 8 <= end {
        let found = seen.replace(bytes, at);
        // The offset that was used last costs next to nothing.
        let again = at + 1;
        let (mut from, mut to) = if last <= again && word(bytes, again) == word(bytes, again - last) {
            (again - last, again)
        } else if let Some(found) = found {
            (found, at)
        } else {
            at += 1 + ((at - anchor) >> 7);
            continue;
        };
        let mut len = MATCH_MIN + match_len(bytes, from + MATCH_MIN, to + MATCH_MIN, end);
        while to > anchor && from > 0 && bytes[to - 1] == bytes[from - 1] {
            (to, from, len) = (to - 1, from - 1, len + 1);
        }
        last = to - from;
        steps.push(Step { literals: to - anchor, offset: last, len });
        at = to + len;
        anchor = at;
        if at + 8 <= end {
            seen.replace(bytes, at - 2);
        }
    }
    steps
}

/// A compressed block; `None` when it has no matches and its literals no code.
fn encode(block: &[u8], steps: &[Step], recent: &mut Recent) -> Option<Vec<u8>> {
    let mut literals = Vec::with_capacity(block.len());
    let mut codes = Vec::with_capacity(steps.len());
    let mut at = 0;
    for step in steps {
        literals.extend_from_slice(&block[at..at + step.literals]);
        at += step.literals + step.len;
        let value = recent.put(step.offset, step.literals);
        let code = [code_of(&LITERAL_LENGTHS, step.literals), value.ilog2() as u8, code_of(&MATCH_LENGTHS, step.len)];
        codes.push((code, value));
    }
    literals.extend_from_slice(&block[at..]);
    let coded = encode_literals(&literals);
    if coded.is_none() && steps.is_empty() {
        return None;
    }
    let mut out = coded.unwrap_or_else(|| {
        let mut raw = (((literals.len() as u32) << 4) | 0b1100).to_le_bytes()[..3].to_vec();
        raw.extend_from_slice(&literals);
        raw
    });
    let count = steps.len();
    match count {
        0..128 => out.push(count as u8),
        128..0x7f00 => out.extend_from_slice(&[(count >> 8) as u8 + 128, count as u8]),
        _ => out.extend_from_slice(&[255, (count - 0x7f00) as u8, ((count - 0x7f00) >> 8) as u8]),
    }
    if count == 0 {
        return Some(out);
    }
    let mut modes = 0;
    let mut tables = Vec::new();
    let encoders: Vec<Encoder> = KINDS
        .iter()
        .enumerate()
        .map(|(at, kind)| {
            let mut counts = vec![0; kind.symbols];
            codes.iter().for_each(|(code, _)| counts[usize::from(code[at])] += 1);
            let first = codes[0].0[at];
            let (mode, table) = if counts[usize::from(first)] as usize == count {
                tables.push(first);
                (1, Table::of_one(first))
            } else if count < DESCRIBED_MIN && counts[kind.default.len()..].iter().all(|&count| count == 0) {
                (0, Table::new(kind.default_log, kind.default))
            } else {
                let (table, described) = fse::describe(&counts, kind.log_max);
                tables.extend(described);
                (2, table)
            };
            modes |= mode << (6 - 2 * at);
            Encoder::new(table)
        })
        .collect();
    out.push(modes);
    out.extend(tables);
    let mut bits = BitWriter::default();
    let mut states = [0; 3];
    for (index, (step, (code, value))) in steps.iter().zip(&codes).enumerate().rev() {
        // What is read first is written last: literal lengths, match lengths, offsets are read in this order between sequences.
        for at in [1, 2, 0] {
            let encoder = &encoders[at];
            let symbol = code[at];
            states[at] =
                if index + 1 == count { encoder.last(symbol) } else { encoder.put(&mut bits, symbol, states[at]) };
        }
        let (least, more) = LITERAL_LENGTHS[usize::from(code[0])];
        bits.put((step.literals - least as usize) as u64, u32::from(more));
        let (least, more) = MATCH_LENGTHS[usize::from(code[2])];
        bits.put((step.len - least as usize) as u64, u32::from(more));
        bits.put((value - (1 << code[1])) as u64, u32::from(code[1]));
    }
    for at in [2, 1, 0] {
        encoders[at].finish(&mut bits, states[at]);
    }
    out.extend(bits.into_stream());
    Some(out)
}

/// Literals in codes of their own; `None` when that is not worth it.
fn encode_literals(literals: &[u8]) -> Option<Vec<u8>> {
    let mut counts = [0u32; 256];
    literals.iter().for_each(|&byte| counts[usize::from(byte)] += 1);
    if literals.len() < 64 {
        return None;
    }
    let weights = weights(&counts)?;
    let mut coded = describe_weights(&weights)?;
    let bits = weights.iter().map(|&weight| (1u32 << weight) >> 1).sum::<u32>().ilog2();
    // By byte: its code and the length of it. Cells go to the bytes of the lowest weight first.
    let mut codes = [(0u64, 0u32); 256];
    let mut cell = 0;
    for weight in 1..=bits {
        for (byte, _) in weights.iter().enumerate().filter(|(_, its)| u32::from(**its) == weight) {
            codes[byte] = (cell >> (weight - 1), bits + 1 - weight);
            cell += 1 << (weight - 1);
        }
    }
    let stream = |part: &[u8]| {
        let mut bits = BitWriter::default();
        for &byte in part.iter().rev() {
            let (code, len) = codes[usize::from(byte)];
            bits.put(code, len);
        }
        bits.into_stream()
    };
    let len = literals.len();
    let (form, width) = match len {
        0..1024 => (0, 10),
        1024..16_384 => (2, 14),
        _ => (3, 18),
    };
    if form == 0 {
        coded.extend(stream(literals));
    } else {
        let streams: Vec<Vec<u8>> = literals.chunks(len.div_ceil(4)).map(stream).collect();
        for stream in &streams[..3] {
            coded.extend_from_slice(&(stream.len() as u16).to_le_bytes());
        }
        streams.iter().for_each(|stream| coded.extend_from_slice(stream));
    }
    if coded.len() >= len - len / 32 {
        return None;
    }
    let head = 2 | form << 2 | (len as u64) << 4 | (coded.len() as u64) << (4 + width);
    let mut out = head.to_le_bytes()[..[3, 0, 4, 5][form as usize]].to_vec();
    out.extend(coded);
    Some(out)
}

/// By byte, one more than the longest code is longer than its own, 0 for none; `None` for fewer than two bytes.
fn weights(counts: &[u32; 256]) -> Option<Vec<u8>> {
    let mut counts = *counts;
    loop {
        // Leaves first, by count, then the nodes over them, in the order of their making, which is by count too.
        let mut nodes: Vec<(u32, usize)> =
            counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(byte, &count)| (count, byte)).collect();
        let leaves = nodes.len();
        // The library's sort is thirty times the size of this one, which a browser would load for 256 numbers.
        for end in 1..leaves {
            let mut at = end;
            while at > 0 && nodes[at] < nodes[at - 1] {
                nodes.swap(at, at - 1);
                at -= 1;
            }
        }
        if leaves < 2 {
            return None;
        }
        let mut parents = vec![0; 2 * leaves - 1];
        let (mut leaf, mut inner) = (0, leaves);
        for made in leaves..2 * leaves - 1 {
            let mut sum = 0;
            for _ in 0..2 {
                let of_leaf = leaf < leaves && (inner >= made || nodes[leaf].0 <= nodes[inner].0);
                let child = if of_leaf { &mut leaf } else { &mut inner };
                parents[*child] = made;
                sum += nodes[*child].0;
                *child += 1;
            }
            nodes.push((sum, 0));
        }
        let mut depths = vec![0u8; 2 * leaves - 1];
        for node in (0..2 * leaves - 2).rev() {
            depths[node] = depths[parents[node]] + 1;
        }
        let deepest = depths.iter().copied().max().unwrap_or_default();
        if u32::from(deepest) > CODE_BITS_MAX {
            // Flatter counts give a flatter tree.
            counts.iter_mut().for_each(|count| *count = count.div_ceil(2));
            continue;
        }
        let last = counts.iter().rposition(|&count| count > 0)?;
        let mut weights = vec![0; last + 1];
        for (node, &depth) in nodes[..leaves].iter().zip(&depths) {
            weights[node.1] = deepest + 1 - depth;
        }
        return Some(weights);
    }
}

/// The description of `weights`, of which the last follows from the others.
fn describe_weights(weights: &[u8]) -> Option<Vec<u8>> {
    let weights = &weights[..weights.len() - 1];
    let mut counts = [0; 16];
    weights.iter().for_each(|&weight| counts[usize::from(weight)] += 1);
    let count = weights.len();
    let coded = (count > 2 && counts.iter().filter(|&&count| count > 0).count() > 1).then(|| {
        let (table, mut coded) = fse::describe(&counts, 6);
        let encoder = Encoder::new(table);
        let mut bits = BitWriter::default();
        let mut states = [0; 2];
        for (at, &weight) in weights.iter().enumerate().rev() {
            states[at % 2] =
                if at + 2 >= count { encoder.last(weight) } else { encoder.put(&mut bits, weight, states[at % 2]) };
        }
        encoder.finish(&mut bits, states[1]);
        encoder.finish(&mut bits, states[0]);
        coded.extend(bits.into_stream());
        coded
    });
    let coded = coded.filter(|coded| coded.len() < 128 && (count > 128 || coded.len() < count.div_ceil(2)));
    let mut out = Vec::new();
    match coded {
        Some(coded) => {
            out.push(coded.len() as u8);
            out.extend(coded);
        }
        None if count <= 128 => {
            out.push((127 + count) as u8);
            out.extend(weights.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or_default()));
        }
        None => return None,
    }
    Some(out)
}
