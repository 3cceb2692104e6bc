use proptest::prelude::*;

use super::*;
use crate::base::{CollectionId, ErrorKind, Lsn};

const COLLECTION: CollectionId = CollectionId(7);

fn log(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = encode_header(COLLECTION, 3);
    let mut ends = vec![bytes.len()];
    for (index, payload) in payloads.iter().enumerate() {
        encode_frame(&mut bytes, Lsn(index as u64 + 10), 0, FrameKind::Changes, payload);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..8)
}

proptest! {
    #[test]
    fn whole_logs_come_back(payloads in payloads()) {
        let (bytes, _) = log(&payloads);
        let replay = replay("log-3", &bytes, COLLECTION, 3, Lsn(10)).unwrap();
        prop_assert_eq!(replay.valid_len, bytes.len());
        let read: Vec<Vec<u8>> = replay.frames.iter().map(|frame| frame.payload.to_vec()).collect();
        prop_assert_eq!(read, payloads);
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
        let replay = replay("log-3", &torn, COLLECTION, 3, Lsn(10)).unwrap();
        prop_assert_eq!(replay.frames.len(), whole);
        prop_assert_eq!(replay.valid_len, if cut < HEADER_BYTES { 0 } else { ends[whole] });
    }

    #[test]
    fn a_flipped_byte_before_the_last_frame_is_refused(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 2..8), at in any::<prop::sample::Index>(), flip in 1u8..) {
        let (mut bytes, ends) = log(&payloads);
        let at = at.index(ends[ends.len() - 2]);
        bytes[at] ^= flip;
        let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10)).unwrap_err();
        prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{}", error);
        prop_assert!(error.message().starts_with("log-3"), "{}", error);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), with_header in any::<bool>()) {
        let mut file = if with_header { encode_header(COLLECTION, 3) } else { Vec::new() };
        file.extend(bytes);
        let _ = replay("log-3", &file, COLLECTION, 3, Lsn(10));
    }
}

#[test]
fn another_version_is_named() {
    let mut bytes = encode_header(COLLECTION, 3);
    bytes[8] = 9;
    let sum = crate::base::codec::checksum(&bytes[..28]).to_le_bytes();
    bytes[28..].copy_from_slice(&sum);
    let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("version 9"), "{error}");
}

#[test]
fn a_file_of_another_collection_is_refused() {
    let error = replay("log-3", &encode_header(CollectionId(8), 3), COLLECTION, 3, Lsn(10)).unwrap_err();
    assert!(error.message().contains("collection 8"), "{error}");
}

#[test]
fn a_group_that_arrived_out_of_order_is_a_torn_tail() {
    let mut bytes = encode_header(COLLECTION, 3);
    encode_frame(&mut bytes, Lsn(10), 0, FrameKind::Changes, b"acknowledged");
    let end = bytes.len();
    encode_frame(&mut bytes, Lsn(11), 0, FrameKind::Changes, b"lost");
    let lost = bytes.len();
    encode_frame(&mut bytes, Lsn(12), 1, FrameKind::Changes, b"written first");
    bytes[end..lost].fill(0);
    let read = replay("log-3", &bytes, COLLECTION, 3, Lsn(10)).unwrap();
    assert_eq!((read.frames.len(), read.valid_len), (1, end));
    encode_frame(&mut bytes, Lsn(13), 0, FrameKind::Changes, b"a later group was acknowledged");
    let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10)).unwrap_err();
    assert!(error.message().contains("damaged frame"), "{error}");
}

#[test]
fn a_skipped_number_is_refused() {
    let mut bytes = encode_header(COLLECTION, 3);
    encode_frame(&mut bytes, Lsn(11), 0, FrameKind::Changes, b"x");
    let error = replay("log-3", &bytes, COLLECTION, 3, Lsn(10)).unwrap_err();
    assert!(error.message().contains("at byte 32: log sequence number 11, expected 10"), "{error}");
}
