use super::frame::{FRAME_HEADER_BYTES, FrameKind, HEADER_BYTES, MAGIC, PAYLOAD_BYTES_MAX, VERSION};
use crate::base::codec::{Reader, checksum, checksum_append};
use crate::base::{CollectionId, Error, ErrorKind, Lsn, Result};

/// One frame of a log file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame<'a> {
    /// Its position in the collection's log.
    pub lsn: Lsn,
    /// What the payload is.
    pub kind: FrameKind,
    /// The payload.
    pub payload: &'a [u8],
    /// Its place in the group that was appended with it, from 0.
    pub place: u16,
    /// Where the frame starts in the file.
    pub offset: usize,
}

/// What a log file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Replay<'a> {
    /// The frames in order.
    pub frames: Vec<Frame<'a>>,
    /// The length up to the end of the last whole frame; what follows is a torn tail, to be cut. 0 when even the header is
    /// torn: the file was being created when the process died, and nothing in it was acknowledged.
    pub valid_len: usize,
}

/// Reads log file `number` of `collection`, called `name` in errors; its first frame has number `next`, each further one the
/// one after.
///
/// Frames that were appended together become durable in any order. So damage with whole frames after it is still a torn
/// tail while those belong to the same group, and damage of what was acknowledged as soon as a later group begins.
///
/// # Errors
/// `Corrupt` for a file of another collection or number, for damage before the tail, and for a log sequence number that
/// does not follow; `Unsupported` for another version. The message names the file and the offset.
pub fn replay<'a>(name: &str, bytes: &'a [u8], collection: CollectionId, number: u64, next: Lsn) -> Result<Replay<'a>> {
    let mut replay = Replay::default();
    if bytes.len() < HEADER_BYTES {
        return Ok(replay);
    }
    let mut next = next;
    if let Err(error) = check_header(bytes, collection, number) {
        let torn = error.kind() == ErrorKind::Corrupt
            && checksum(&bytes[..HEADER_BYTES - 4]).to_le_bytes() != bytes[HEADER_BYTES - 4..HEADER_BYTES]
            && later_group(bytes, HEADER_BYTES, next).is_none();
        return if torn { Ok(replay) } else { Err(error.context(name)) };
    }
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() {
        match read_frame(bytes, offset) {
            Ok(frame) if frame.lsn == next => {
                offset += FRAME_HEADER_BYTES + frame.payload.len();
                next = next.next();
                replay.frames.push(frame);
            }
            Ok(frame) => {
                return Err(Error::corrupt(format!(
                    "{name}: at byte {offset}: log sequence number {}, expected {next}",
                    frame.lsn
                )));
            }
            Err(found) => {
                if let Some(later) = later_group(bytes, offset + 1, next) {
                    return Err(Error::corrupt(format!(
                        "{name}: at byte {offset}: damaged frame ({found}), with a later whole one at byte {later}"
                    )));
                }
                break;
            }
        }
    }
    replay.valid_len = offset;
    Ok(replay)
}

fn check_header(bytes: &[u8], collection: CollectionId, number: u64) -> Result<()> {
    let mut reader = Reader::new(bytes);
    let magic = reader.bytes(8)?;
    if magic != MAGIC {
        return Err(Error::corrupt(format!("at byte 0: {magic:02x?} is not the start of a log file")));
    }
    let version = reader.u16()?;
    let _zero = reader.u16()?;
    let (found_collection, found_number) = (CollectionId(reader.u64()?), reader.u64()?);
    if reader.u32()? != checksum(&bytes[..HEADER_BYTES - 4]) {
        return Err(Error::corrupt("at byte 28: the header's checksum does not fit"));
    }
    if version != VERSION {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("log version {version}; this build reads version {VERSION}"),
        ));
    }
    if (found_collection, found_number) != (collection, number) {
        return Err(Error::corrupt(format!(
            "at byte 12: file {found_number} of collection {found_collection}, expected file {number} of collection {collection}"
        )));
    }
    Ok(())
}

fn read_frame(bytes: &[u8], offset: usize) -> Result<Frame<'_>, &'static str> {
    let mut reader = Reader::new(&bytes[offset..]);
    let mut header = || -> Result<(usize, u32, Lsn, u8, u8, u16)> {
        let (length, sum, lsn) = (reader.u32()? as usize, reader.u32()?, Lsn(reader.u64()?));
        Ok((length, sum, lsn, reader.u8()?, reader.u8()?, reader.u16()?))
    };
    let (length, sum, lsn, kind, codec, place) = header().map_err(|_| "its header is cut short")?;
    if length > PAYLOAD_BYTES_MAX {
        return Err("its length is beyond the limit");
    }
    let payload = reader.bytes(length).map_err(|_| "it is cut short")?;
    let start = &bytes[offset..];
    let computed = checksum_append(checksum_append(checksum(&start[..4]), &start[8..FRAME_HEADER_BYTES]), payload);
    if computed != sum {
        return Err("its checksum does not fit");
    }
    let kind = FrameKind::from_byte(kind).ok_or("its kind is unknown")?;
    if codec != 0 {
        return Err("its codec is unknown");
    }
    Ok(Frame { lsn, kind, payload, place, offset })
}

/// The offset, from `start` on, of a whole frame of a group that begins after frame `next`.
fn later_group(bytes: &[u8], start: usize, next: Lsn) -> Option<usize> {
    // A frame lost in the damage skips few numbers; the bound keeps checksums from being computed at every byte.
    let lsn_max = next.0.saturating_add(1 << 20);
    (start..bytes.len().saturating_sub(FRAME_HEADER_BYTES - 1)).find(|&offset| {
        let lsn = u64::from_le_bytes(bytes[offset + 8..offset + 16].try_into().expect("8 bytes"));
        (next.0..=lsn_max).contains(&lsn)
            && read_frame(bytes, offset).is_ok_and(|frame| frame.lsn.0.saturating_sub(u64::from(frame.place)) > next.0)
    })
}
