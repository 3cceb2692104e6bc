use proptest::prelude::*;

use super::*;
use crate::base::{CollectionId, ErrorKind, Lsn};

const COLLECTION: CollectionId = CollectionId(7);

fn log(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = encode_header(COLLECTION, 3);
    let mut ends = vec![bytes.len()];
    for (index, payload) in payloads.iter().enumerate() {
        let (head, body) = payload.split_at(payload.len() / 9);
        encode_frame(&mut bytes, Lsn(index as u64 + 10), 0, FrameKind::Changes, head, &Body::pack(body.to_vec()));
        ends.push(bytes.len());
    }
    (bytes, ends)
}

/// Short and long, of bytes that shrink and of bytes that do not.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec(any::<u8>(), 100..400),
        (prop::collection::vec(any::<u8>(), 1..20), 10..40usize).prop_map(|(bytes, times)| bytes.repeat(times)),
    ]
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(payload(), 1..8)
}

proptest! {
    #[test]
    fn whole_logs_come_back(payloads in payloads()) {
        let (bytes, _) = log(&payloads);
        let replay = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap();
        prop_assert_eq!(replay.valid_len, bytes.len());
        let read: Vec<Vec<u8>> = replay.frames.iter().map(|frame| frame.payload.to_vec()).collect();
        prop_assert_eq!(read, payloads);
    }

    /// One that stays where it was encoded is the same as one that is put there.
    #[test]
    fn frames_are_the_same_however_they_come_together(payloads in payloads(), room in 0..140usize, begins in any::<bool>()) {
        let header = if begins { encode_header(COLLECTION, 3) } else { Vec::new() };
        let (mut expected, mut frames) = (header.clone(), Frames::new(header));
        for (place, payload) in (0..).zip(&payloads) {
            let (head, body) = payload.split_at(payload.len() / 9);
            let lsn = Lsn(10 + u64::from(place));
            encode_frame(&mut expected, lsn, place, FrameKind::Changes, head, &Body::plain(body.to_vec()));
            let behind = [&vec![0xee; room][..], body].concat();
            frames.push(lsn, place, FrameKind::Changes, head.to_vec(), Body::plain_behind(room, behind));
            prop_assert_eq!(frames.len(), expected.len());
        }
        prop_assert_eq!(&frames.into_bytes()[..], &expected[..]);
    }

    #[test]
    fn a_cut_anywhere_keeps_every_whole_frame(payloads in payloads(), cut in any::<prop::sample::Index>(), garbage in prop::collection::vec(any::<u8>(), 0..40)) {
        let (bytes, ends) = log(&payloads);
        let cut = cut.index(bytes.len());
        let mut torn = bytes[..cut].to_vec();
        if cut >= HEADER_BYTES {
            torn.extend(garbage);
        }
        let whole = ends.iter().filter(|&&end| end <= cut).count().saturating_sub(1);
        let replay = replay("log-3", &torn, COLLECTION, 3, Lsn(10), None).unwrap();
        prop_assert_eq!(replay.frames.len(), whole);
        prop_assert_eq!(replay.valid_len, if cut < HEADER_BYTES { 0 } else { ends[whole] });
    }

    #[test]
    fn a_flipped_byte_before_the_last_frame_is_refused(payloads in prop::collection::vec(payload(), 2..8), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let (mut bytes, ends) = log(&payloads);
        let at = at.index(ends[ends.len() - 2]);
        bytes[at] ^= flip;
        let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap_err();
        prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{}", error);
        prop_assert!(error.message().starts_with("log-3"), "{}", error);
    }

    #[test]
    fn salvage_gives_every_frame_that_damage_did_not_touch(
        payloads in payloads(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (mut bytes, ends) = log(&payloads);
        let mut touched = Vec::new();
        for (at, flip) in &hits {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            touched.push(at);
        }
        let len = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
        let salvage = salvage(&bytes[..len], COLLECTION, 3, Lsn(10), None).unwrap();
        let original = log(&payloads).0;
        // Two flips of one byte may undo each other.
        touched.retain(|&at| bytes[at] != original[at]);
        for (index, payload) in payloads.iter().enumerate() {
            let (start, end) = (ends[index], ends[index + 1]);
            let whole = end <= len && !touched.iter().any(|at| (start..end).contains(at));
            let found = salvage.frames.iter().find(|frame| frame.lsn == Lsn(index as u64 + 10));
            prop_assert_eq!(found.is_some(), whole, "frame {}", index);
            prop_assert!(found.is_none_or(|frame| *frame.payload == *payload));
        }
        let accounted = salvage.frames.iter().map(|frame| frame.end - frame.offset).sum::<usize>()
            + salvage.damage.iter().map(|damage| damage.len).sum::<usize>();
        let header = if salvage.damage.first().is_some_and(|damage| damage.offset == 0) { 0 } else { HEADER_BYTES };
        // A frame that is cut in its first bytes may be nothing but zeros.
        let room = bytes[..len].iter().rev().take_while(|byte| **byte == 0).count();
        let all = accounted + header;
        prop_assert!((len - room..=len).contains(&all), "every byte is whole or damaged: {:?}", salvage.damage);
        let ends_whole = ends.iter().any(|end| (len - room..=len).contains(end));
        prop_assert_eq!(salvage.damage.is_empty(), touched.iter().all(|at| *at >= len) && ends_whole);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), with_header in any::<bool>()) {
        let mut file = if with_header { encode_header(COLLECTION, 3) } else { Vec::new() };
        file.extend(bytes);
        let _ = replay("log-3", &file, COLLECTION, 3, Lsn(10), None);
        let _ = salvage(&file, COLLECTION, 3, Lsn(10), None);
    }

    #[test]
    fn hostile_packed_payloads_are_refused_without_their_memory(claimed in any::<u32>(), block in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut stored = vec![2, 0, 0, 0, 7, 7];
        stored.extend(claimed.to_le_bytes());
        stored.extend(&block);
        if let Ok(payload) = compress::unpack(compress::Codec::Lz4, &stored) {
            prop_assert_eq!(payload.len(), 2 + claimed as usize);
        }
        let _ = compress::unpack(compress::Codec::Lz4, &stored[6..]);
    }
}

/// The frame at `offset`, whose header is changed and its checksum made to fit again.
fn with_header(bytes: &mut [u8], offset: usize, change: impl Fn(&mut [u8])) {
    let frame = &mut bytes[offset..];
    change(frame);
    let sum = crate::base::codec::checksum(&[&frame[..4], &frame[8..]].concat());
    frame[4..8].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn another_version_is_named() {
    let mut bytes = encode_header(COLLECTION, 3);
    bytes[8] = 9;
    let sum = crate::base::codec::checksum(&bytes[..28]).to_le_bytes();
    bytes[28..].copy_from_slice(&sum);
    let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 9"), "{error}");
}

#[test]
fn a_file_of_another_collection_is_refused() {
    let error = replay("log-3", &encode_header(CollectionId(8), 3), COLLECTION, 3, Lsn(10), None).unwrap_err();
    assert!(error.message().contains("collection 8"), "{error}");
}

#[test]
fn a_group_that_arrived_out_of_order_is_a_torn_tail() {
    let mut bytes = encode_header(COLLECTION, 3);
    encode_frame(&mut bytes, Lsn(10), 0, FrameKind::Changes, b"acknowledged", &Body::empty());
    let end = bytes.len();
    encode_frame(&mut bytes, Lsn(11), 0, FrameKind::Changes, b"lost", &Body::empty());
    let lost = bytes.len();
    encode_frame(&mut bytes, Lsn(12), 1, FrameKind::Changes, b"written first", &Body::empty());
    bytes[end..lost].fill(0);
    let read = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap();
    assert_eq!((read.frames.len(), read.valid_len), (1, end));
    encode_frame(&mut bytes, Lsn(13), 0, FrameKind::Changes, b"a later group was acknowledged", &Body::empty());
    let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap_err();
    assert!(error.message().contains("damaged frame"), "{error}");
}

/// Where a storage made room in advance.
#[test]
fn zeros_behind_whole_frames_are_no_torn_tail_and_no_damage() {
    let (whole, ends) = log(&[vec![1; 10], vec![0; 30]]);
    for (cut, zeros, torn) in [(0, 0, false), (0, 1, false), (0, 70_000, false), (1, 5_000, true), (40, 5_000, true)] {
        let mut bytes = whole[..whole.len() - cut].to_vec();
        bytes.resize(bytes.len() + zeros, 0);
        let read = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap();
        // Of the last frame the end is zeros, and those that are cut off come back.
        let expected = if cut == 40 { ends[1] } else { whole.len() };
        assert_eq!((read.valid_len, read.is_torn), (expected, torn && cut == 40), "{cut} bytes less, {zeros} zeros");
        assert_eq!(salvage(&bytes, COLLECTION, 3, Lsn(10), None).unwrap().damage.is_empty(), !read.is_torn);
    }
}

#[test]
fn a_skipped_number_is_refused() {
    let mut bytes = encode_header(COLLECTION, 3);
    encode_frame(&mut bytes, Lsn(11), 0, FrameKind::Changes, b"x", &Body::empty());
    let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap_err();
    assert!(error.message().contains("at byte 32: log sequence number 11, expected 10"), "{error}");
}

/// A frame of a kind or codec that this build does not know was once taken for a torn tail, and cut off: opening a store with an
/// older build would have removed what a newer one had acknowledged.
#[test]
fn a_whole_frame_of_a_later_version_is_refused_and_not_cut() {
    for (at, value) in [(16, 9), (17, 9)] {
        let (mut bytes, ends) = log(&[vec![1; 10], vec![2; 10]]);
        with_header(&mut bytes, ends[1], |frame| frame[at] = value);
        for error in [
            replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap_err(),
            salvage(&bytes, COLLECTION, 3, Lsn(10), None).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.message().contains("of a later version"), "{error}");
        }
    }
}

#[test]
fn payloads_are_packed_where_that_pays_and_only_there() {
    let mut state = 1u64;
    let mut noise = |len: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(len).collect()
    };
    let text = b"rain falls on the river and the rain runs on ".repeat(2_000);
    let half = [noise(50_000), text[..50_000].to_vec()].concat();
    let mostly_noise = [noise(200_000), text[..10_000].to_vec()].concat();
    for (payload, packed) in [
        (noise(100_000), false),
        (text.clone(), true),
        (half, true),
        (mostly_noise, false),
        (text[..100].to_vec(), false),
    ] {
        let (bytes, ends) = log(std::slice::from_ref(&payload));
        assert_eq!(bytes[ends[0] + 17], u8::from(packed));
        assert_eq!(bytes.len() < payload.len(), packed);
        assert_eq!(*replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap().frames[0].payload, payload);
    }
}

#[test]
fn numbers_go_on_after_frames_that_a_repair_left_out() {
    let mut bytes = encode_header(COLLECTION, 3);
    encode_frame(&mut bytes, Lsn(10), 0, FrameKind::Lost, &14u64.to_le_bytes(), &Body::empty());
    encode_frame(&mut bytes, Lsn(15), 0, FrameKind::Changes, b"x", &Body::empty());
    let read = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap();
    assert_eq!(read.frames.iter().map(|frame| frame.lsn.0).collect::<Vec<_>>(), [10, 15]);
    for wrong in [&9u64.to_le_bytes()[..], &u64::MAX.to_le_bytes(), b"short"] {
        let mut bytes = encode_header(COLLECTION, 3);
        encode_frame(&mut bytes, Lsn(10), 0, FrameKind::Lost, wrong, &Body::empty());
        let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), None).unwrap_err();
        assert!(error.message().contains("at byte 32: its payload names no lost frames"), "{error}");
    }
}

#[test]
fn what_a_later_owners_log_repeats_is_not_read() {
    let (bytes, _) = log(&[b"first".to_vec(), b"second".to_vec(), b"third".to_vec()]);
    for (until, count) in [(Some(10), 0), (Some(12), 2), (Some(13), 3), (Some(14), 3), (None, 3)] {
        let replay = replay("log-3", &bytes, COLLECTION, 3, Lsn(10), until.map(Lsn)).unwrap();
        assert_eq!(replay.frames.len(), count, "{until:?}");
    }
    // Whatever stands after the place where the later owner begins, damage too.
    let garbage = [bytes.as_slice(), &[7; 500], &bytes].concat();
    assert_eq!(replay("log-3", &garbage, COLLECTION, 3, Lsn(10), Some(Lsn(13))).unwrap().frames.len(), 3);
    assert_eq!(first_lsn(&bytes), Some(Lsn(10)));
    for torn in [0, HEADER_BYTES, HEADER_BYTES + FRAME_HEADER_BYTES + 4] {
        assert_eq!(first_lsn(&bytes[..torn]), None);
    }
}
