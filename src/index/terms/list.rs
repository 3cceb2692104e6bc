use std::borrow::Cow;

use super::Payload;
use crate::base::RowMask;

/// Postings of a block: enough to pack them well, and few enough that one block is read for one row.
pub(super) const BLOCK: usize = 128;
/// What a list of more than one block tells of each: its last row, where it ends, and what is best in it.
const SKIP_BYTES: usize = 8 + BEST_BYTES;
const BEST_BYTES: usize = 12;
/// A frequency that stands for any that is as great or greater.
const FREQUENCY_MAX: u32 = 255;
/// The row of a cursor that is at its end.
pub(super) const END: u32 = u32::MAX;

/// One row of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Posting {
    pub(super) row: u32,
    /// How often the term occurs there, or the bits of its weight.
    pub(super) value: u32,
}

/// The rows that have one term, ascending, as they are written.
#[derive(Debug, Clone)]
pub(super) struct List<'a> {
    payload: Payload,
    count: usize,
    data: Cow<'a, [u8]>,
}

/// What a block at best adds to a score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Best {
    /// Pairs of a frequency and a length, such that no row of the block has a greater frequency with a smaller length than all.
    Text([(u8, u16); 4]),
    /// The least and the greatest weight.
    Weights(f32, f32),
    Nothing,
}

impl Best {
    pub(super) fn of(payload: Payload, postings: &[Posting], length: &dyn Fn(u32) -> u16) -> Self {
        match payload {
            Payload::Rows => Self::Nothing,
            Payload::Weights => {
                let weights = postings.iter().map(|posting| f32::from_bits(posting.value));
                let (least, most) = weights.fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), weight| {
                    (least.min(weight), most.max(weight))
                });
                Self::Weights(least, most)
            }
            Payload::Text => {
                // By descending frequency, those that are shorter than all before.
                let pair = |posting: &Posting| {
                    (u32::from(u8::MAX) - posting.value.min(FREQUENCY_MAX)) << 16 | u32::from(length(posting.row))
                };
                let mut pairs: Vec<u32> = postings.iter().map(pair).collect();
                pairs.sort_unstable();
                let pairs = pairs.into_iter().map(|pair| (u8::MAX - (pair >> 16) as u8, pair as u16));
                let mut best = [(0, u16::MAX); 4];
                let mut count = 0;
                let mut shortest = u32::MAX;
                for (frequency, length) in pairs {
                    if u32::from(length) < shortest {
                        shortest = u32::from(length);
                        if count < best.len() {
                            best[count] = (frequency, length);
                            count += 1;
                        } else {
                            // The last stands for all that have no room: as often as the first of them, as short as the last.
                            best[count - 1].1 = length;
                        }
                    }
                }
                Self::Text(best)
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; BEST_BYTES];
        match self {
            Self::Text(pairs) => {
                for (bytes, (frequency, length)) in bytes.chunks_exact_mut(3).zip(pairs) {
                    bytes[0] = *frequency;
                    bytes[1..].copy_from_slice(&length.to_le_bytes());
                }
            }
            Self::Weights(least, most) => {
                bytes[..4].copy_from_slice(&least.to_le_bytes());
                bytes[4..8].copy_from_slice(&most.to_le_bytes());
            }
            Self::Nothing => {}
        }
        out.extend_from_slice(&bytes);
    }

    fn read(payload: Payload, bytes: &[u8]) -> Self {
        match payload {
            Payload::Rows => Self::Nothing,
            Payload::Weights => Self::Weights(f32::from_bits(u32_at(bytes, 0)), f32::from_bits(u32_at(bytes, 4))),
            Payload::Text => {
                let mut pairs = [(0, u16::MAX); 4];
                for (pair, bytes) in pairs.iter_mut().zip(bytes.chunks_exact(3)) {
                    *pair = (bytes[0], u16::from_le_bytes([bytes[1], bytes[2]]));
                }
                Self::Text(pairs)
            }
        }
    }
}

/// Four bytes; past the end they are zero.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The varint at `at`, which moves behind it; past the end it is 0.
pub(super) fn take_varint(bytes: &[u8], at: &mut usize) -> u32 {
    let (mut value, mut shift) = (0, 0);
    while let Some(&byte) = bytes.get(*at) {
        *at += 1;
        if shift < 32 {
            value |= u32::from(byte & 127) << shift;
        }
        shift += 7;
        if byte < 128 {
            break;
        }
    }
    value
}

/// So many bits of each number, low ones first.
fn pack(numbers: &[u32], width: u32, out: &mut Vec<u8>) {
    let (mut bits, mut held) = (0u64, 0);
    for &number in numbers {
        bits |= u64::from(number) << held;
        held += width;
        while held >= 8 {
            out.push(bits as u8);
            bits >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        out.push(bits as u8);
    }
}

fn unpack(bytes: &[u8], width: u32, numbers: &mut [u32]) {
    if width == 0 {
        numbers.fill(0);
        return;
    }
    let mask = u64::MAX >> (64 - width);
    let (mut bits, mut held) = (0u64, 0);
    let mut bytes = bytes.iter();
    for number in numbers {
        while held < width {
            bits |= u64::from(bytes.next().copied().unwrap_or(0)) << held;
            held += 8;
        }
        *number = (bits & mask) as u32;
        bits >>= width;
        held -= width;
    }
}

const fn packed_len(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

fn width_of(numbers: &[u32]) -> u32 {
    32 - numbers.iter().fold(0, |all, number| all | number).leading_zeros()
}

/// Writes a list. `positions` are the bytes of each posting's positions.
pub(super) fn write_list(
    payload: Payload,
    postings: &[Posting],
    positions: &dyn Fn(usize) -> std::ops::Range<usize>,
    position_bytes: &[u8],
    length: &dyn Fn(u32) -> u16,
    out: &mut Vec<u8>,
) {
    let blocks = postings.chunks(BLOCK);
    let skips = out.len();
    let has_skips = blocks.len() > 1;
    if has_skips {
        out.resize(skips + blocks.len() * SKIP_BYTES, 0);
    }
    let start = out.len();
    let mut next = 0;
    for (index, block) in blocks.enumerate() {
        let mut numbers = [0; BLOCK];
        for (number, posting) in numbers.iter_mut().zip(block) {
            *number = posting.row - next;
            next = posting.row + 1;
        }
        let rows_width = width_of(&numbers[..block.len()]);
        out.push(rows_width as u8);
        pack(&numbers[..block.len()], rows_width, out);
        match payload {
            Payload::Rows => {}
            Payload::Weights => block.iter().for_each(|posting| out.extend_from_slice(&posting.value.to_le_bytes())),
            Payload::Text => {
                for (number, posting) in numbers.iter_mut().zip(block) {
                    *number = posting.value - 1;
                }
                let width = width_of(&numbers[..block.len()]);
                out.push(width as u8);
                pack(&numbers[..block.len()], width, out);
                for at in 0..block.len() {
                    out.extend_from_slice(&position_bytes[positions(index * BLOCK + at)]);
                }
            }
        }
        if has_skips {
            let mut skip = Vec::with_capacity(SKIP_BYTES);
            skip.extend_from_slice(&block[block.len() - 1].row.to_le_bytes());
            skip.extend_from_slice(&((out.len() - start) as u32).to_le_bytes());
            Best::of(payload, block, length).write(&mut skip);
            out[skips + index * SKIP_BYTES..][..SKIP_BYTES].copy_from_slice(&skip);
        }
    }
}

impl<'a> List<'a> {
    pub(super) fn new(payload: Payload, count: usize, data: Cow<'a, [u8]>) -> Self {
        Self { payload, count, data }
    }

    /// How many rows have the term.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn blocks(&self) -> usize {
        self.count.div_ceil(BLOCK)
    }

    fn block_len(&self, block: usize) -> usize {
        BLOCK.min(self.count - block * BLOCK)
    }

    fn skip(&self, block: usize) -> &[u8] {
        self.data.get(block * SKIP_BYTES..(block + 1) * SKIP_BYTES).unwrap_or_default()
    }

    /// The last row of a block, where that is known without reading it.
    fn last_row(&self, block: usize) -> u32 {
        if self.count > BLOCK { u32_at(self.skip(block), 0) } else { END - 1 }
    }

    /// The bytes of a block.
    fn block_bytes(&self, block: usize) -> &[u8] {
        if self.count <= BLOCK {
            return &self.data;
        }
        let base = self.blocks() * SKIP_BYTES;
        let start = if block == 0 { 0 } else { u32_at(self.skip(block - 1), 4) as usize };
        let end = u32_at(self.skip(block), 4) as usize;
        self.data.get(base.saturating_add(start)..base.saturating_add(end)).unwrap_or_default()
    }

    /// Reads the rows and values of a block; tells where its positions begin.
    fn read(&self, block: usize, rows: &mut [u32; BLOCK], values: &mut [u32; BLOCK]) -> usize {
        let len = self.block_len(block);
        let bytes = self.block_bytes(block);
        let mut next = if block == 0 { 0 } else { self.last_row(block - 1).wrapping_add(1) };
        let width = u32::from(bytes.first().copied().unwrap_or(0)).min(32);
        let mut at = 1 + packed_len(len, width);
        unpack(bytes.get(1..).unwrap_or_default(), width, &mut rows[..len]);
        for row in &mut rows[..len] {
            *row = row.wrapping_add(next);
            next = row.wrapping_add(1);
        }
        match self.payload {
            Payload::Rows => {}
            Payload::Weights => {
                for (index, value) in values[..len].iter_mut().enumerate() {
                    *value = u32_at(bytes, at + index * 4);
                }
                at += len * 4;
            }
            Payload::Text => {
                let width = u32::from(bytes.get(at).copied().unwrap_or(0)).min(32);
                unpack(bytes.get(at + 1..).unwrap_or_default(), width, &mut values[..len]);
                values[..len].iter_mut().for_each(|value| *value = value.wrapping_add(1));
                at += 1 + packed_len(len, width);
            }
        }
        at
    }

    /// Puts its rows into `mask`.
    pub(super) fn union_into(&self, mask: &mut RowMask) {
        let (mut rows, mut values) = ([0; BLOCK], [0; BLOCK]);
        for block in 0..self.blocks() {
            self.read(block, &mut rows, &mut values);
            rows[..self.block_len(block)].iter().for_each(|&row| mask.insert(row as usize));
        }
    }

    /// Checks that its rows ascend below `rows`, that frequencies and weights are some, and that its blocks have the bytes that
    /// they need and no more.
    pub(super) fn check(&self, rows: usize) -> Result<(), String> {
        let (mut block_rows, mut values) = ([0; BLOCK], [0; BLOCK]);
        let mut next = 0;
        if self.count > BLOCK {
            let mut end = 0;
            for block in 0..self.blocks() {
                let here = u32_at(self.skip(block), 4);
                if here < end {
                    return Err(format!("block {block} ends before it begins"));
                }
                end = here;
            }
            if self.blocks() * SKIP_BYTES + end as usize != self.data.len() {
                return Err(format!("its blocks end at {end}"));
            }
        }
        for block in 0..self.blocks() {
            let len = self.block_len(block);
            let mut at = self.read(block, &mut block_rows, &mut values);
            for &row in &block_rows[..len] {
                if row < next || row as usize >= rows {
                    return Err(format!("row {row} after {next} of {rows}"));
                }
                next = row + 1;
            }
            if self.count > BLOCK && self.last_row(block) != next - 1 {
                return Err(format!("block {block} ends with row {}", next - 1));
            }
            let bytes = self.block_bytes(block);
            if self.payload == Payload::Text {
                for &frequency in &values[..len] {
                    if frequency == 0 || frequency as usize > bytes.len() {
                        return Err(format!("a frequency of {frequency}"));
                    }
                    for _ in 0..frequency {
                        take_varint(bytes, &mut at);
                    }
                }
            }
            let finite = |value: &u32| f32::from_bits(*value).is_finite();
            if self.payload == Payload::Weights && !values[..len].iter().all(finite) {
                return Err("a weight that is no number".to_owned());
            }
            if at != bytes.len() {
                return Err(format!("block {block} has {} bytes, and needs {at}", bytes.len()));
            }
        }
        Ok(())
    }
}

/// Goes through a list.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    list: List<'a>,
    block: usize,
    at: usize,
    len: usize,
    positions_at: usize,
    rows: [u32; BLOCK],
    values: [u32; BLOCK],
}

impl<'a> Cursor<'a> {
    /// At the first row.
    pub(super) fn new(list: List<'a>) -> Self {
        let mut cursor = Self { list, block: 0, at: 0, len: 0, positions_at: 0, rows: [0; BLOCK], values: [0; BLOCK] };
        cursor.enter(0);
        cursor
    }

    fn enter(&mut self, block: usize) {
        (self.block, self.at) = (block, 0);
        if block < self.list.blocks() {
            self.len = self.list.block_len(block);
            self.positions_at = self.list.read(block, &mut self.rows, &mut self.values);
        } else {
            self.len = 0;
        }
    }

    /// The row that it is at; [`END`] behind the last.
    pub(super) fn row(&self) -> u32 {
        if self.at < self.len { self.rows[self.at] } else { END }
    }

    /// What its row has.
    pub(super) fn value(&self) -> u32 {
        self.values[self.at.min(BLOCK - 1)]
    }

    pub(super) fn advance(&mut self) {
        self.at += 1;
        if self.at >= self.len && self.len > 0 {
            self.enter(self.block + 1);
        }
    }

    /// The block that `row` is in or would be; it begins with the one that the cursor is in.
    fn block_of(&self, row: u32) -> usize {
        let mut block = self.block;
        while block < self.list.blocks() && self.list.last_row(block) < row {
            block += 1;
        }
        block
    }

    /// Goes to the first row from `row` on; never back.
    pub(super) fn seek(&mut self, row: u32) {
        if self.row() >= row {
            return;
        }
        let block = self.block_of(row);
        if block != self.block {
            self.enter(block);
        }
        self.at += self.rows[self.at..self.len.max(self.at)].partition_point(|&here| here < row);
        if self.at >= self.len && self.len > 0 {
            self.enter(self.block + 1);
        }
    }

    /// Calls `each` with what is best in every block that has rows of `from..=end`, and may have some that the cursor has not left.
    pub(super) fn best_in(&self, from: u32, end: u32, length: &dyn Fn(u32) -> u16, each: &mut dyn FnMut(Best)) {
        if self.len == 0 || self.row() > end {
            return;
        }
        if self.list.count <= BLOCK {
            let pairs = self.rows.iter().zip(&self.values).take(self.len);
            let within = pairs.filter(|(row, _)| (from..=end).contains(*row));
            let postings: Vec<Posting> = within.map(|(&row, &value)| Posting { row, value }).collect();
            if !postings.is_empty() {
                each(Best::of(self.list.payload, &postings, length));
            }
            return;
        }
        for block in self.block_of(from)..self.list.blocks() {
            each(Best::read(self.list.payload, &self.list.skip(block)[8..]));
            if self.list.last_row(block) >= end {
                return;
            }
        }
    }

    /// What is best in the block that `row` is in or would be.
    pub(super) fn best_at(&self, row: u32) -> Option<Best> {
        let block = self.block_of(row);
        let is_known = self.list.count > BLOCK && block < self.list.blocks();
        is_known.then(|| Best::read(self.list.payload, &self.list.skip(block)[8..]))
    }

    /// Where the term occurs in the row that it is at.
    pub(super) fn positions(&self, positions: &mut Vec<u32>) {
        positions.clear();
        let bytes = self.list.block_bytes(self.block);
        let mut at = self.positions_at;
        let before: u32 = self.values[..self.at].iter().sum();
        for _ in 0..before {
            take_varint(bytes, &mut at);
        }
        let mut next = 0u32;
        for _ in 0..self.value() {
            let position = next.wrapping_add(take_varint(bytes, &mut at));
            positions.push(position);
            next = position.wrapping_add(1);
        }
    }
}
