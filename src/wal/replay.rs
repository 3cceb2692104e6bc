use std::borrow::Cow;

use super::compress::{Codec, unpack};
use super::frame::{FRAME_HEADER_BYTES, FrameKind, HEADER_BYTES, MAGIC, PAYLOAD_BYTES_MAX, VERSION};
use crate::base::codec::{Reader, checksum, checksum_append};
use crate::base::{CollectionId, Error, ErrorKind, Lsn, Result};

/// One frame of a log file.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame<'a> {
    /// Its position in the collection's log.
    pub lsn: Lsn,
    /// What the payload is.
    pub kind: FrameKind,
    /// The payload, unpacked.
    pub payload: Cow<'a, [u8]>,
    /// Its place in the group that was appended with it, from 0.
    pub place: u16,
    /// Where the frame starts in the file.
    pub offset: usize,
    /// Where it ends.
    pub end: usize,
}

impl Frame<'_> {
    /// The number that the next frame has.
    ///
    /// # Errors
    /// `Corrupt` for a [`FrameKind::Lost`] that names no number at or after its own.
    pub fn next(&self) -> Result<Lsn> {
        if self.kind != FrameKind::Lost {
            return Ok(self.lsn.next());
        }
        match self.payload.as_ref().try_into().map(u64::from_le_bytes) {
            Ok(last) if (self.lsn.0..u64::MAX).contains(&last) => Ok(Lsn(last + 1)),
            _ => Err(Error::corrupt("its payload names no lost frames")),
        }
    }
}

/// A frame whose checksum fits: where its parts lie.
struct Raw<'a> {
    lsn: Lsn,
    kind: u8,
    codec: u8,
    place: u16,
    stored: &'a [u8],
}

impl<'a> Raw<'a> {
    /// The number of the first frame of its group.
    fn group(&self) -> u64 {
        self.lsn.0.saturating_sub(u64::from(self.place))
    }

    /// The frame that starts at `offset`.
    ///
    /// # Errors
    /// `Unsupported` for a kind or codec of a later version, `Corrupt` when the payload does not unpack.
    fn open(self, offset: usize) -> Result<Frame<'a>> {
        let (Some(kind), Some(codec)) = (FrameKind::from_byte(self.kind), Codec::from_byte(self.codec)) else {
            let message = format!("a frame of kind {} and codec {}: of a later version", self.kind, self.codec);
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let payload = unpack(codec, self.stored)?;
        let end = offset + FRAME_HEADER_BYTES + self.stored.len();
        Ok(Frame { lsn: self.lsn, kind, payload, place: self.place, offset, end })
    }
}

/// What a log file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Replay<'a> {
    /// The frames in order.
    pub frames: Vec<Frame<'a>>,
    /// The length up to the end of the last whole frame; what follows is a torn tail, to be cut. 0 when even the header is
    /// torn: the file was being created when the process died, and nothing in it was acknowledged.
    pub valid_len: usize,
    /// Whether what follows is more than zeros, which a storage may have put behind a log to have room in advance.
    pub is_torn: bool,
}

/// Reads log file `number` of `collection`, called `name` in errors; its first frame has number `next`, each further one the
/// one after.
///
/// Reading ends before frame `until`, where a later owner's log begins: what follows was written by an owner that had lost the
/// store, and was never acknowledged.
///
/// Frames that were appended together become durable in any order. So damage with whole frames after it is still a torn
/// tail while those belong to the same group, and damage of what was acknowledged as soon as a later group begins.
///
/// # Errors
/// `Corrupt` for a file of another collection or number, for damage before the tail, and for a log sequence number that
/// does not follow; `Unsupported` for another version, and for a whole frame of a later one. The message names the file and
/// the offset.
pub fn replay<'a>(
    name: &str,
    bytes: &'a [u8],
    collection: CollectionId,
    number: u64,
    next: Lsn,
    until: Option<Lsn>,
) -> Result<Replay<'a>> {
    let mut replay = Replay::default();
    if bytes.len() < HEADER_BYTES {
        replay.is_torn = !bytes.is_empty();
        return Ok(replay);
    }
    let mut next = next;
    if let Err(error) = check_header(bytes, collection, number) {
        let torn = error.kind() == ErrorKind::Corrupt
            && checksum(&bytes[..HEADER_BYTES - 4]).to_le_bytes() != bytes[HEADER_BYTES - 4..HEADER_BYTES]
            && later_group(bytes, HEADER_BYTES, next).is_none();
        replay.is_torn = torn;
        return if torn { Ok(replay) } else { Err(error.context(name)) };
    }
    let mut offset = HEADER_BYTES;
    while offset < bytes.len() && until != Some(next) {
        match read_frame(bytes, offset) {
            Ok(raw) => {
                let here = |error: Error| error.context(format_args!("{name}: at byte {offset}"));
                if raw.lsn != next {
                    let message = format!("log sequence number {}, expected {next}", raw.lsn);
                    return Err(here(Error::corrupt(message)));
                }
                let frame = raw.open(offset).map_err(here)?;
                next = frame.next().map_err(here)?;
                offset = frame.end;
                replay.frames.push(frame);
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
    replay.is_torn = !is_room(&bytes[offset..]);
    Ok(replay)
}

/// Whether a storage may have put these bytes behind a log, to have room in advance.
fn is_room(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// The number of the first frame of a log file, when that is whole.
pub fn first_lsn(bytes: &[u8]) -> Option<Lsn> {
    (bytes.len() > HEADER_BYTES).then(|| read_frame(bytes, HEADER_BYTES).ok()).flatten().map(|frame| frame.lsn)
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

/// The frame at `offset` when it is whole and its checksum fits.
fn read_frame(bytes: &[u8], offset: usize) -> Result<Raw<'_>, &'static str> {
    let mut reader = Reader::new(&bytes[offset..]);
    let header = reader.bytes(FRAME_HEADER_BYTES).map_err(|_| "its header is cut short")?;
    let mut fields = Reader::new(header);
    let mut read = || -> Result<(usize, u32, Lsn, u8, u8, u16)> {
        let (length, sum, lsn) = (fields.u32()? as usize, fields.u32()?, Lsn(fields.u64()?));
        Ok((length, sum, lsn, fields.u8()?, fields.u8()?, fields.u16()?))
    };
    let (length, sum, lsn, kind, codec, place) = read().map_err(|_| "its header is cut short")?;
    if length > PAYLOAD_BYTES_MAX {
        return Err("its length is beyond the limit");
    }
    let stored = reader.bytes(length).map_err(|_| "it is cut short")?;
    if checksum_append(checksum_append(checksum(&header[..4]), &header[8..]), stored) != sum {
        return Err("its checksum does not fit");
    }
    Ok(Raw { lsn, kind, codec, place, stored })
}

/// The offset, from `start` on, of a whole frame of a group that begins after frame `next`.
fn later_group(bytes: &[u8], start: usize, next: Lsn) -> Option<usize> {
    whole_frame(bytes, start, next, |raw| raw.group() > next.0)
}

/// The offset, from `start` on, of a whole frame numbered `next` or somewhat later that `wanted` takes.
fn whole_frame(bytes: &[u8], start: usize, next: Lsn, wanted: impl Fn(&Raw<'_>) -> bool) -> Option<usize> {
    // A frame lost in the damage skips few numbers; the bound keeps checksums from being computed at every byte.
    let lsn_max = next.0.saturating_add(1 << 20);
    (start..bytes.len().saturating_sub(FRAME_HEADER_BYTES - 1)).find(|&offset| {
        let lsn = u64::from_le_bytes(bytes[offset + 8..offset + 16].try_into().expect("8 bytes"));
        (next.0..=lsn_max).contains(&lsn) && read_frame(bytes, offset).is_ok_and(|raw| wanted(&raw))
    })
}

/// Bytes of a log file that are no whole frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Damage {
    /// Where they start.
    pub offset: usize,
    /// How many they are.
    pub len: usize,
    /// What is wrong with the first of them.
    pub what: String,
}

/// What can still be read of a damaged log file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Salvage<'a> {
    /// Whole frames with ascending numbers; some may lack in between.
    pub frames: Vec<Frame<'a>>,
    /// Everything else, in order.
    pub damage: Vec<Damage>,
}

/// Reads what is whole in log file `number` of `collection`, wherever it is: its first frame has number `next` or a later one.
///
/// A frame is found again after damage by trying every byte, so bytes inside a damaged payload that look like a frame with a
/// fitting number and checksum are taken for one. Frames numbered `until` and later are those of an owner that had lost the
/// store: they and what follows them are no damage, and left out.
///
/// # Errors
/// `Unsupported` when whole parts of it are of a later version: that is no damage.
pub fn salvage(
    bytes: &[u8],
    collection: CollectionId,
    number: u64,
    next: Lsn,
    until: Option<Lsn>,
) -> Result<Salvage<'_>> {
    let mut salvage = Salvage::default();
    let mut next = next;
    let mut offset = HEADER_BYTES.min(bytes.len());
    let header = if bytes.len() < HEADER_BYTES {
        Err(Error::corrupt("its header is cut short"))
    } else {
        check_header(bytes, collection, number)
    };
    match header {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
        Err(error) => salvage.damage.push(Damage { offset: 0, len: offset, what: error.message().to_owned() }),
        Ok(()) => {}
    }
    while offset < bytes.len() && until != Some(next) {
        let what = match read_frame(bytes, offset) {
            Ok(raw) if until.is_some_and(|until| raw.lsn >= until) => break,
            Ok(raw) if raw.lsn >= next => match raw.open(offset).and_then(|frame| Ok((frame.next()?, frame))) {
                Ok((following, frame)) => {
                    next = following;
                    offset = frame.end;
                    salvage.frames.push(frame);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error),
                Err(error) => error.message().to_owned(),
            },
            Ok(raw) => format!("log sequence number {}, expected {next} or a later one", raw.lsn),
            Err(what) => what.to_owned(),
        };
        if is_room(&bytes[offset..]) {
            break;
        }
        let end = whole_frame(bytes, offset + 1, next, |_| true).unwrap_or(bytes.len());
        salvage.damage.push(Damage { offset, len: end - offset, what });
        offset = end;
    }
    Ok(salvage)
}
