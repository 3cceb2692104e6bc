use std::io::{Read, Write};

use proptest::prelude::*;

use super::*;

/// Bytes with something to find: runs, repeats at a distance, text, noise.
fn sample(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let count = (next() % 300) as usize;
        match next() % 5 {
            0 => bytes.extend(std::iter::repeat_n(next() as u8, count)),
            1 if !bytes.is_empty() => {
                let from = next() as usize % bytes.len();
                let to = (from + count).min(bytes.len());
                bytes.extend_from_within(from..to);
            }
            2 => bytes.extend((0..count).map(|_| b" etaoinshrdlu"[(next() % 13) as usize])),
            3 => (0..count / 8).for_each(|at| bytes.extend((seed + at as u64).to_le_bytes())),
            _ => bytes.extend((0..count / 4).map(|_| next() as u8)),
        }
    }
    bytes.truncate(len);
    bytes
}

fn samples() -> impl Iterator<Item = Vec<u8>> {
    let lens = [0, 1, 5, 11, 12, 13, 63, 64, 255, 256, 1023, 1024, 5_000, 16_383, 16_384, 131_072, 131_073, 700_000];
    let same = [1, 63, 64, 1000, 200_000].map(|len| vec![7; len]);
    let every = (0..=255u8).cycle().take(70_000).collect();
    // Counts that double give the deepest tree that there is, deeper than codes may be.
    let skewed = (0..16u8).flat_map(|byte| std::iter::repeat_n(byte * 16, 1 << byte)).collect();
    let floats = (0..20_000).flat_map(|at| (at as f32).sin().to_le_bytes()).collect();
    let of_len = lens.into_iter().flat_map(|len| (0..4).map(move |seed| sample(seed * 977 + len as u64, len)));
    of_len.chain(same).chain([every, skewed, floats])
}

#[test]
fn other_readers_open_what_is_written() {
    for bytes in samples() {
        let frame = compress(Codec::Zstd, &bytes);
        let read = ::zstd::bulk::decompress(&frame, bytes.len()).unwrap();
        assert!(read == bytes, "zstd, {} bytes", bytes.len());
        assert!(decompress(Codec::Zstd, &frame, bytes.len()).unwrap() == bytes, "zstd, {} bytes", bytes.len());
        let frame = compress(Codec::Lz4, &bytes);
        let mut read = Vec::new();
        lz4_flex::frame::FrameDecoder::new(frame.as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == bytes, "lz4, {} bytes", bytes.len());
        assert!(decompress(Codec::Lz4, &frame, bytes.len()).unwrap() == bytes, "lz4, {} bytes", bytes.len());
        let stream = compress(Codec::Gzip, &bytes);
        let mut read = Vec::new();
        flate2::read::MultiGzDecoder::new([stream.clone(), stream.clone()].concat().as_slice())
            .read_to_end(&mut read)
            .unwrap();
        assert!(read == [bytes.clone(), bytes.clone()].concat(), "gzip, {} bytes", bytes.len());
        assert!(decompress_stream(Codec::Gzip, &stream).unwrap() == bytes, "gzip, {} bytes", bytes.len());
        let stream = compress(Codec::Snappy, &bytes);
        let mut read = Vec::new();
        snap::read::FrameDecoder::new([stream.clone(), stream.clone()].concat().as_slice())
            .read_to_end(&mut read)
            .unwrap();
        assert!(read == [bytes.clone(), bytes.clone()].concat(), "snappy, {} bytes", bytes.len());
        assert!(decompress_stream(Codec::Snappy, &stream).unwrap() == bytes, "snappy, {} bytes", bytes.len());
    }
}

#[test]
fn what_other_writers_write_is_read() {
    for bytes in samples() {
        for level in [1, 3, 9, 19] {
            let frame = ::zstd::bulk::compress(&bytes, level).unwrap();
            assert!(decompress(Codec::Zstd, &frame, bytes.len()).unwrap() == bytes, "{} bytes", bytes.len());
        }
        let mut writer = lz4_flex::frame::FrameEncoder::new(Vec::new());
        writer.write_all(&bytes).unwrap();
        let frame = writer.finish().unwrap();
        assert!(decompress(Codec::Lz4, &frame, bytes.len()).unwrap() == bytes, "{} bytes", bytes.len());
        for level in [0, 1, 6, 9] {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
            writer.write_all(&bytes).unwrap();
            let stream = writer.finish().unwrap();
            assert!(decompress_stream(Codec::Gzip, &stream).unwrap() == bytes, "{} bytes", bytes.len());
        }
        let mut writer = snap::write::FrameEncoder::new(Vec::new());
        writer.write_all(&bytes).unwrap();
        let stream = writer.into_inner().unwrap();
        // Of nothing, that writer writes nothing.
        assert!(
            bytes.is_empty() || decompress_stream(Codec::Snappy, &stream).unwrap() == bytes,
            "{} bytes",
            bytes.len()
        );
    }
}

#[test]
fn text_shrinks_nearly_as_much_as_with_the_reference() {
    let text = include_str!("zstd.rs");
    let ours = compress(Codec::Zstd, text.as_bytes()).len();
    let reference = ::zstd::bulk::compress(text.as_bytes(), 1).unwrap().len();
    assert!(ours < reference + reference / 8, "{ours} bytes; the reference needs {reference} of {}", text.len());
    let ours = compress(Codec::Gzip, text.as_bytes()).len();
    let mut reference = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(1));
    reference.write_all(text.as_bytes()).unwrap();
    let reference = reference.finish().unwrap().len();
    assert!(ours < reference + reference / 8, "{ours} bytes; the reference needs {reference} of {}", text.len());
    let ours = compress(Codec::Snappy, text.as_bytes()).len();
    let reference = snap::raw::Encoder::new().compress_vec(text.as_bytes()).unwrap().len();
    assert!(ours < reference + reference / 8, "{ours} bytes; the reference needs {reference} of {}", text.len());
}

proptest! {
    #[test]
    fn damage_is_an_error_or_other_bytes(
        seed in any::<u64>(),
        len in 0usize..3000,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
        codec in 1usize..5,
    ) {
        let codec = Codec::ALL[codec];
        let bytes = sample(seed, len);
        let mut frame = compress(codec, &bytes);
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len()));
        }
        for len in [0, len, 1 << 20] {
            if let Ok(decoded) = decompress(codec, &frame, len) {
                prop_assert_eq!(decoded.len(), len);
            }
        }
        if let Ok(decoded) = decompress_stream(codec, &frame) {
            // No codec holds more than this in a byte.
            prop_assert!(decoded.len() <= frame.len() * 1_100);
        }
    }
}
