//! CRC-32C where the host has no instruction for it that we can reach.

use std::sync::OnceLock;

/// Castagnoli's polynomial, its bits reversed.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Each step looks up what it needs of the step before, so one chain of them leaves most of a processor idle: four parts of a block are
/// summed side by side, and put together at its end.
const LANES: usize = 4;
/// The words of eight bytes in a part: a power of two.
const LANE_WORDS: usize = 256;
const BLOCK_WORDS: usize = LANES * LANE_WORDS;
const BLOCK_BYTES: usize = BLOCK_WORDS * 8;

/// Made when they are first needed: tables would be 8 kB of what a browser downloads.
struct Tables {
    /// What a byte comes to that so many other bytes follow ("slicing by 8": Kounavis and Berry, "Novel Table Lookup-Based Algorithms
    /// for High-Performance CRC Generation", 2008).
    bytes: [[u32; 256]; 8],
    /// What each bit of a sum comes to behind as many zeros as a part of a block has bytes.
    behind_lane: [u32; 32],
}

impl Tables {
    fn get() -> &'static Self {
        static TABLES: OnceLock<Box<Tables>> = OnceLock::new();
        TABLES.get_or_init(|| {
            let mut bytes = [[0; 256]; 8];
            let step = |sum: u32| sum >> 1 ^ (POLYNOMIAL & (sum & 1).wrapping_neg());
            bytes[0] = std::array::from_fn(|byte| (0..8).fold(byte as u32, |sum, _| step(sum)));
            for at in 1..8 {
                let behind = |before: u32| before >> 8 ^ bytes[0][before as usize & 255];
                bytes[at] = bytes[at - 1].map(behind);
            }
            // Behind eight zeros first; then twice as many, until it is a part.
            let mut behind: [u32; 32] = std::array::from_fn(|bit| word(&bytes, 1 << bit, 0));
            for _ in 0..LANE_WORDS.ilog2() {
                behind = std::array::from_fn(|bit| apply(&behind, behind[bit]));
            }
            Box::new(Self { bytes, behind_lane: behind })
        })
    }
}

/// The sum after eight more bytes, little-endian in `next`.
#[inline(always)]
fn word(tables: &[[u32; 256]; 8], sum: u32, next: u64) -> u32 {
    // No `map` over an array: where code is built for size that is a call for each byte.
    let next = next ^ u64::from(sum);
    tables[7][usize::from(next as u8)]
        ^ tables[6][usize::from((next >> 8) as u8)]
        ^ tables[5][usize::from((next >> 16) as u8)]
        ^ tables[4][usize::from((next >> 24) as u8)]
        ^ tables[3][usize::from((next >> 32) as u8)]
        ^ tables[2][usize::from((next >> 40) as u8)]
        ^ tables[1][usize::from((next >> 48) as u8)]
        ^ tables[0][usize::from((next >> 56) as u8)]
}

/// The sum of what the bits of `sum` come to.
fn apply(bits: &[u32; 32], sum: u32) -> u32 {
    bits.iter().enumerate().fold(0, |all, (bit, it)| all ^ (it & (sum >> bit & 1).wrapping_neg()))
}

/// Continues the checksum `crc` with more bytes.
pub(super) fn append(crc: u32, bytes: &[u8]) -> u32 {
    let Tables { bytes: tables, behind_lane } = Tables::get();
    let mut sum = !crc;
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    for block in blocks {
        let words: &[[u8; 8]; BLOCK_WORDS] = block.as_chunks().0.first_chunk().expect("a block is so many words");
        let mut sums = [sum, 0, 0, 0];
        for at in 0..LANE_WORDS {
            sums = [
                word(tables, sums[0], u64::from_le_bytes(words[at])),
                word(tables, sums[1], u64::from_le_bytes(words[LANE_WORDS + at])),
                word(tables, sums[2], u64::from_le_bytes(words[2 * LANE_WORDS + at])),
                word(tables, sums[3], u64::from_le_bytes(words[3 * LANE_WORDS + at])),
            ];
        }
        sum = sums.into_iter().reduce(|all, lane| apply(behind_lane, all) ^ lane).expect("there are four");
    }
    let (words, rest) = rest.as_chunks::<8>();
    for &next in words {
        sum = word(tables, sum, u64::from_le_bytes(next));
    }
    for &byte in rest {
        sum = sum >> 8 ^ tables[0][(sum as u8 ^ byte) as usize];
    }
    !sum
}

#[cfg(all(test, native))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_are_those_of_the_instruction(
            seed in any::<u64>(),
            len in prop_oneof![0..40usize, BLOCK_BYTES - 20..BLOCK_BYTES + 20, 0..4 * BLOCK_BYTES],
            skip in 0..9usize,
            before in any::<u32>(),
        ) {
            let mut random = crate::base::Random::new(seed);
            let bytes: Vec<u8> = (0..len + skip).map(|_| random.next_u64() as u8).collect();
            prop_assert_eq!(append(before, &bytes[skip..]), crc32c::crc32c_append(before, &bytes[skip..]));
        }
    }
}
