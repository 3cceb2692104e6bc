//! Finite state entropy (RFC 8878, 4.1): a decoding table, and encoding as its inverse.

use super::bits::{BitReader, BitWriter, bits_at};

/// What a state decodes to: its symbol, and the state that follows, `base` plus the next `bits` bits.
#[derive(Clone, Copy, Default)]
pub(super) struct Cell {
    pub(super) symbol: u8,
    bits: u8,
    base: u16,
}

/// A decoding table of `1 << log` states.
#[derive(Clone)]
pub(super) struct Table {
    log: u32,
    cells: Vec<Cell>,
}

impl Table {
    /// The table of a distribution whose sum is `1 << log`, where -1 is a chance below one part and counts as one.
    pub(super) fn new(log: u32, distribution: &[i16]) -> Self {
        let size = 1usize << log;
        let mut cells = vec![Cell::default(); size];
        let mut end = size;
        let mut next: Vec<u32> = distribution.iter().map(|chance| u32::from(chance.unsigned_abs())).collect();
        for (symbol, _) in distribution.iter().enumerate().filter(|(_, chance)| **chance == -1) {
            end -= 1;
            cells[end].symbol = symbol as u8;
        }
        let mut at = 0;
        for (symbol, &chance) in distribution.iter().enumerate() {
            for _ in 0..chance.max(0) {
                cells[at].symbol = symbol as u8;
                loop {
                    at = (at + (size >> 1) + (size >> 3) + 3) & (size - 1);
                    if at < end {
                        break;
                    }
                }
            }
        }
        for cell in &mut cells {
            let state = &mut next[cell.symbol as usize];
            let bits = log - state.ilog2();
            (cell.bits, cell.base) = (bits as u8, ((*state << bits) as usize - size) as u16);
            *state += 1;
        }
        Self { log, cells }
    }

    /// The table of one symbol.
    pub(super) fn of_one(symbol: u8) -> Self {
        Self { log: 0, cells: vec![Cell { symbol, ..Cell::default() }] }
    }

    /// The table described at the start of `bytes` and the length of its description.
    pub(super) fn read(bytes: &[u8], log_max: u32, symbols_max: usize) -> Option<(Self, usize)> {
        let log = (bits_at(bytes, 0) & 15) as u32 + 5;
        if log > log_max {
            return None;
        }
        let mut at = 4;
        let mut left = 1i32 << log;
        let mut distribution: Vec<i16> = Vec::new();
        while left > 0 {
            // One of `left + 2` values, in as few bits as they need: the lowest take one less.
            let bits = (left + 1).ilog2() + 1;
            let short = (1 << bits) - 2 - left;
            let low = (bits_at(bytes, at) & ((1 << (bits - 1)) - 1)) as i32;
            let value = if low < short {
                at += bits as usize - 1;
                low
            } else {
                let value = (bits_at(bytes, at) & ((1 << bits) - 1)) as i32;
                at += bits as usize;
                if value >= 1 << (bits - 1) { value - short } else { value }
            };
            let chance = value - 1;
            left -= chance.abs();
            distribution.push(chance as i16);
            if chance == 0 {
                loop {
                    let more = bits_at(bytes, at) & 3;
                    at += 2;
                    distribution.extend(std::iter::repeat_n(0, more as usize));
                    if more < 3 || distribution.len() > symbols_max {
                        break;
                    }
                }
            }
            if distribution.len() > symbols_max {
                return None;
            }
        }
        let used = at.div_ceil(8);
        (left == 0 && used <= bytes.len()).then(|| (Self::new(log, &distribution), used))
    }

    /// The first state.
    pub(super) fn start(&self, bits: &mut BitReader<'_>) -> usize {
        bits.read(self.log) as usize
    }

    pub(super) fn symbol(&self, state: usize) -> u8 {
        self.cells[state].symbol
    }

    /// The state after `state`.
    pub(super) fn next(&self, state: usize, bits: &mut BitReader<'_>) -> usize {
        let cell = self.cells[state];
        usize::from(cell.base) + bits.read(u32::from(cell.bits)) as usize
    }

    fn symbols(&self) -> usize {
        self.cells.iter().map(|cell| usize::from(cell.symbol) + 1).max().unwrap_or_default()
    }
}

/// Writes symbols, the last one first.
pub(super) struct Encoder {
    table: Table,
    /// By symbol and following state: the state that decodes to both.
    before: Vec<u16>,
}

impl Encoder {
    pub(super) fn new(table: Table) -> Self {
        let size = table.cells.len();
        let mut before = vec![0; table.symbols() * size];
        for (state, cell) in table.cells.iter().enumerate() {
            let from = usize::from(cell.symbol) * size + usize::from(cell.base);
            before[from..from + (1 << cell.bits)].fill(state as u16);
        }
        Self { table, before }
    }

    /// A state that decodes to the last symbol and has bits to read after it.
    pub(super) fn last(&self, symbol: u8) -> usize {
        self.table.cells.iter().position(|cell| cell.symbol == symbol).expect("the table was made for this symbol")
    }

    /// The state that decodes to `symbol` and leads to `state`, with the bits that tell so.
    pub(super) fn put(&self, bits: &mut BitWriter, symbol: u8, state: usize) -> usize {
        let before = usize::from(self.before[usize::from(symbol) * self.table.cells.len() + state]);
        let cell = self.table.cells[before];
        bits.put((state - usize::from(cell.base)) as u64, u32::from(cell.bits));
        before
    }

    /// Writes the first state.
    pub(super) fn finish(&self, bits: &mut BitWriter, state: usize) {
        bits.put(state as u64, self.table.log);
    }
}

/// A distribution near `counts`, of which at least two are not zero, and its description.
pub(super) fn describe(counts: &[u32], log_max: u32) -> (Table, Vec<u8>) {
    let total: u32 = counts.iter().sum();
    let distinct = counts.iter().filter(|&&count| count > 0).count();
    let log = (total.ilog2().saturating_sub(1)).max(distinct.ilog2() + 1).clamp(5, log_max);
    let size = 1u32 << log;
    let part = |count: u32| (u64::from(count) * u64::from(size) / u64::from(total)) as i16;
    let mut distribution: Vec<i16> =
        counts.iter().map(|&count| if count == 0 { 0 } else { part(count).max(1) }).collect();
    while distribution.last() == Some(&0) {
        distribution.pop();
    }
    let mut off = size as i16 - distribution.iter().sum::<i16>();
    while off != 0 {
        let most = distribution.iter_mut().max().expect("there are symbols");
        // What rounding up gave to the rare ones is taken from the most frequent, a half of one at most at a time.
        let change = off.max(-(*most / 2));
        *most += change;
        off -= change;
    }
    let mut bits = BitWriter::default();
    bits.put(u64::from(log - 5), 4);
    let mut left = size as i32;
    let mut symbol = 0;
    while left > 0 {
        let chance = i32::from(distribution[symbol]);
        let count = (left + 1).ilog2() + 1;
        let short = (1 << count) - 2 - left;
        let value = chance + 1;
        if value < short {
            bits.put(value as u64, count - 1);
        } else {
            let value = if value >= 1 << (count - 1) { value + short } else { value };
            bits.put(value as u64, count);
        }
        left -= chance;
        symbol += 1;
        if chance == 0 {
            let zeros = distribution[symbol..].iter().take_while(|&&chance| chance == 0).count();
            symbol += zeros;
            for _ in 0..zeros / 3 {
                bits.put(3, 2);
            }
            bits.put((zeros % 3) as u64, 2);
        }
    }
    (Table::new(log, &distribution), bits.into_bytes())
}
