use crate::base::codec::{Reader, Write};
use crate::base::{Error, Result};
use crate::model::Key;

/// Hashes are mapped to this many cells, of which two determine the third.
const ARITY: usize = 3;
/// A window has at most this many cells.
const WINDOW_BITS_MAX: u32 = 18;
/// Whether another seed can help is known after a few: each fails with a probability of a few percent.
const SEEDS_MAX: u64 = 64;

/// The finalizer of MurmurHash3 (Appleby), a bijection of 64 bits.
fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// The hash of a key that is an integer: it is stored in filters, and must never change.
pub fn hash_int(key: i64) -> u64 {
    mix(key as u64)
}

/// The same of text: FNV-1a of its bytes, mixed.
pub fn hash_text(key: &str) -> u64 {
    mix(key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// The key of a row, where it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KeyRef<'a> {
    /// An integer.
    Int(i64),
    /// Text.
    Text(&'a str),
}

impl KeyRef<'_> {
    /// Its hash.
    pub fn hash(self) -> u64 {
        match self {
            Self::Int(key) => hash_int(key),
            Self::Text(key) => hash_text(key),
        }
    }
}

impl PartialEq<Key> for KeyRef<'_> {
    fn eq(&self, other: &Key) -> bool {
        match (self, other) {
            (Self::Int(left), Key::Int(right)) => left == right,
            (Self::Text(left), Key::String(right)) => **left == **right,
            _ => false,
        }
    }
}

/// The hash of a key.
pub fn hash_key(key: &Key) -> u64 {
    match key {
        Key::Int(key) => hash_int(*key),
        Key::String(key) => hash_text(key),
    }
}

/// Tells of most keys that a segment does not have them: a binary fuse filter with fingerprints of 16 bits (Graf and Lemire, "Binary
/// Fuse Filters: Fast and Smaller Than Xor Filters", 2022, sections 3 and 4).
///
/// A key that is there is never denied; one that is not is with odds of 65,535 to 65,536. It takes 2.3 to 2.6 bytes a key. We depart
/// from the paper in sizes that come from integers, so that every target makes the same filter.
///
/// | bytes | what |
/// |---|---|
/// | 1 | 0: there is none, and nothing follows; 1 |
/// | 1 | the binary logarithm of the cells of a window, W |
/// | 4 | in how many windows the first cell of a hash can lie, N |
/// | 8 | the seed |
/// | 2 (N + 2) W | the cells: the XOR of the three cells of a key is its fingerprint |
///
/// A key's hash is that of MurmurHash3's finalizer over an integer, or over the FNV-1a hash of a text's UTF-8, and that over it plus the
/// seed. Its first cell is at the high 64 bits of the hash times N W; the second in the next window at the bits from 18 on, the third in
/// the window after that at the bits from 0 on, each XORed with the place of the first in its window. Its fingerprint is the low 16 bits
/// of the hash XORed with those from 32 on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct KeyFilter {
    window_bits: u32,
    windows: u32,
    seed: u64,
    /// None where there is no filter.
    cells: Vec<u16>,
}

impl KeyFilter {
    /// Of keys with these hashes, which ascend without repetition.
    pub(super) fn new(hashes: &[u64]) -> Self {
        if hashes.is_empty() {
            return Self::default();
        }
        // The paper's fit for three hashes: the logarithm to base 3.33, plus 2.25, rounded down.
        let (mut window_bits, mut reach) = (2, 2.466);
        while hashes.len() as f64 >= reach && window_bits < WINDOW_BITS_MAX {
            window_bits += 1;
            reach *= 3.33;
        }
        // Cells for each key, in 1,024ths: 0.875 + 0.25 ln(10^6) / ln(keys), and at least 1.125.
        let share = (896 + 5_102 / hashes.len().ilog2().max(1) as usize).max(1_152);
        let windows = (hashes.len() * share / 1_024).div_ceil(1 << window_bits).saturating_sub(ARITY - 1).max(1);
        let mut filter = Self { window_bits, windows: windows as u32, seed: 0, cells: Vec::new() };
        // Without one that fits, which does not come about, every key may be there.
        (0..SEEDS_MAX).find(|seed| {
            filter.seed = mix(*seed);
            filter.fill(hashes)
        });
        filter
    }

    fn len(&self) -> usize {
        (self.windows as usize + ARITY - 1) << self.window_bits
    }

    /// The cells and the fingerprint of a hash.
    fn places(&self, hash: u64) -> ([usize; ARITY], u16) {
        let hash = mix(hash.wrapping_add(self.seed));
        let (window, mask) = (1usize << self.window_bits, (1usize << self.window_bits) - 1);
        let first = ((u128::from(hash) * ((self.windows as usize) << self.window_bits) as u128) >> 64) as usize;
        let second = (first + window) ^ ((hash >> 18) as usize & mask);
        let third = (first + 2 * window) ^ (hash as usize & mask);
        ([first, second, third], (hash ^ hash >> 32) as u16)
    }

    /// Finds for each hash a cell that no hash after it needs; false when there is none for some.
    fn fill(&mut self, hashes: &[u64]) -> bool {
        // By cell: how many hashes lie in it that have no cell of their own yet, and the XOR of their numbers.
        let mut cells = vec![(0u32, 0u32); self.len()];
        for (number, &hash) in hashes.iter().enumerate() {
            for place in self.places(hash).0 {
                cells[place].0 += 1;
                cells[place].1 ^= number as u32;
            }
        }
        let mut single: Vec<usize> = (0..cells.len()).filter(|&cell| cells[cell].0 == 1).collect();
        let mut order = Vec::with_capacity(hashes.len());
        while let Some(cell) = single.pop() {
            if cells[cell].0 != 1 {
                continue;
            }
            let number = cells[cell].1;
            order.push((number, cell));
            for place in self.places(hashes[number as usize]).0 {
                cells[place].0 -= 1;
                cells[place].1 ^= number;
                if cells[place].0 == 1 {
                    single.push(place);
                }
            }
        }
        if order.len() < hashes.len() {
            return false;
        }
        self.cells = vec![0; self.len()];
        for (number, cell) in order.into_iter().rev() {
            let (places, fingerprint) = self.places(hashes[number as usize]);
            self.cells[cell] = places.iter().fold(fingerprint, |xor, &place| xor ^ self.cells[place]);
        }
        true
    }

    /// Whether a key of that hash may be there.
    pub fn may_have(&self, hash: u64) -> bool {
        let (places, fingerprint) = self.places(hash);
        self.cells.is_empty() || places.iter().fold(fingerprint, |xor, &place| xor ^ self.cells[place]) == 0
    }

    /// The bytes that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.cells.len() * 2
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(!self.cells.is_empty()));
        if self.cells.is_empty() {
            return;
        }
        out.put_u8(self.window_bits as u8);
        out.put_u32(self.windows);
        out.put_u64(self.seed);
        self.cells.iter().for_each(|&cell| out.put_u16(cell));
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let at = reader.offset();
        match reader.u8()? {
            0 => return Ok(Self::default()),
            1 => {}
            other => return Err(Error::corrupt(format!("at byte {at}: a filter of kind {other}"))),
        }
        let (window_bits, windows) = (u32::from(reader.u8()?), reader.u32()?);
        let wrong = || Error::corrupt(format!("at byte {at}: a filter of {windows} windows of 2^{window_bits} cells"));
        if window_bits > WINDOW_BITS_MAX || windows == 0 || windows as usize > reader.remaining() >> window_bits {
            return Err(wrong());
        }
        let mut filter = Self { window_bits, windows, seed: reader.u64()?, cells: Vec::new() };
        let cells = reader.bytes(filter.len() * 2).map_err(|_| wrong())?;
        filter.cells = cells.as_chunks::<2>().0.iter().map(|cell| u16::from_le_bytes(*cell)).collect();
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hashes(seed: i64, count: i64) -> Vec<u64> {
        let mut hashes: Vec<u64> = (0..count).map(|key| hash_int(key.wrapping_mul(7).wrapping_add(seed))).collect();
        hashes.sort_unstable();
        hashes
    }

    #[test]
    fn few_strangers_are_let_in_and_a_key_takes_few_bytes() {
        for (count, bytes_max) in [(1_000, 3.1), (8_000, 2.7), (63_000, 2.5), (131_072, 2.5)] {
            let filter = KeyFilter::new(&hashes(0, count));
            let strangers = (0..200_000).filter(|key| filter.may_have(hash_text(&format!("stranger {key}")))).count();
            assert!(strangers <= 15, "{strangers} of 200,000, of which 3 are expected");
            let bytes = filter.memory_bytes() as f64 / count as f64;
            assert!(bytes <= bytes_max, "{bytes} bytes a key of {count}");
        }
    }

    /// They are in files: of what is stored, none may change.
    #[test]
    fn hashes_stay_what_they_are() {
        let text = ["", "a", "amber"].map(hash_text);
        assert_eq!([hash_int(0), hash_int(1), hash_int(-1)], [0, 0xb456_bcfc_34c2_cb2c, 0x64b5_720b_4b82_5f21]);
        assert_eq!(text, [0xefd0_1f60_ba99_2926, 0x82a2_a958_a9be_ce5b, 0x1528_be07_a15a_8d18]);
        assert_eq!(hash_key(&Key::from("amber")), text[2]);
    }

    proptest! {
        #[test]
        fn no_key_is_denied_and_bytes_come_back(seed in any::<i64>(), count in 0i64..3_000) {
            let hashes = hashes(seed, count);
            let filter = KeyFilter::new(&hashes);
            prop_assert_eq!(filter.cells.is_empty(), count == 0);
            prop_assert!(hashes.iter().all(|&hash| filter.may_have(hash)));
            let mut bytes = Vec::new();
            filter.encode(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(&KeyFilter::decode(&mut reader).unwrap(), &filter);
            prop_assert_eq!(reader.remaining(), 0);
        }

        #[test]
        fn damage_never_panics(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            KeyFilter::new(&hashes(1, 50)).encode(&mut bytes);
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Ok(filter) = KeyFilter::decode(&mut Reader::new(&bytes)) {
                filter.may_have(7);
            }
        }
    }
}
