/// Bits that are written from the lowest on.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    word: u64,
    count: u32,
}

impl BitWriter {
    /// Appends the low `count` bits of `value`, which has no others; at most 32.
    pub(super) fn put(&mut self, value: u64, count: u32) {
        self.word |= value << self.count;
        self.count += count;
        while self.count >= 8 {
            self.bytes.push(self.word as u8);
            self.word >>= 8;
            self.count -= 8;
        }
    }

    /// The bytes, the last one filled up with zeros.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.word as u8);
        }
        self.bytes
    }

    /// The bytes of a stream that is read from its end: a one marks it.
    pub(super) fn into_stream(mut self) -> Vec<u8> {
        self.put(1, 1);
        self.into_bytes()
    }
}

/// The up to 57 bits of `bytes` from bit `at` on, zeros past the end.
pub(super) fn bits_at(bytes: &[u8], at: usize) -> u64 {
    let start = (at / 8).min(bytes.len());
    let word = match bytes.get(start..start + 8) {
        Some(word) => u64::from_le_bytes(word.try_into().expect("eight bytes")),
        None => bytes[start..].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
    };
    word >> (at % 8)
}

/// Bits that are read from the end, where a one marks it, to the start.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    left: usize,
    over: bool,
}

impl<'a> BitReader<'a> {
    /// `None` without the mark.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let mark = bytes.last().filter(|&&byte| byte != 0)?.leading_zeros() as usize + 1;
        Some(Self { bytes, left: bytes.len() * 8 - mark, over: false })
    }

    /// The next `count` bits, zeros where there are none; at most 32.
    pub(super) fn peek(&self, count: u32) -> u64 {
        let missing = (count as usize).saturating_sub(self.left);
        let bits = bits_at(self.bytes, self.left.saturating_sub(count as usize));
        (bits & ((1 << (count as usize - missing)) - 1)) << missing
    }

    /// Passes `count` bits.
    pub(super) fn skip(&mut self, count: u32) {
        self.over |= count as usize > self.left;
        self.left = self.left.saturating_sub(count as usize);
    }

    /// The next `count` bits; at most 32.
    pub(super) fn read(&mut self, count: u32) -> u64 {
        let bits = self.peek(count);
        self.skip(count);
        bits
    }

    /// Whether more was read than there was.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether all was read, and no more.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0 && !self.over
    }
}
