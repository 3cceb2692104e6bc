//! A store's snapshot in one file.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{FileEntry, Manifest};
use crate::base::codec::{Reader, Write, checksum, checksum_append};
use crate::base::{Error, ErrorKind, Result, map_of};

const MAGIC: &[u8; 8] = b"EDDYARC\n";
const VERSION: u16 = 1;

/// The name of the entry that comes first; no file has it, for theirs have a `/`.
const MANIFEST: &str = "manifest";

/// The start of an archive: a store's snapshot in one file.
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | 8 | `EDDYARC\n` |
/// | 8 | 2 | version of the layout, 1 |
/// | 10 | 2 | zero |
///
/// Then entries: the [`Manifest`], under the name `manifest`, and every file that it names, in its order; then one with an empty name
/// and no bytes, and nothing after it.
///
/// | bytes | what |
/// |---|---|
/// | 2 | length of the name |
/// | 8 | length of the bytes |
/// | 4 | CRC-32C of the bytes |
/// | … | name |
/// | 4 | CRC-32C of everything of the entry before |
/// | … | bytes |
pub fn start(manifest: &Manifest) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_bytes(MAGIC);
    out.put_u16(VERSION);
    out.put_u16(0);
    let bytes = manifest.encode();
    put_head(&mut out, MANIFEST, bytes.len() as u64, checksum(&bytes));
    out.put_bytes(&bytes);
    out
}

/// What comes before the bytes of a file in an archive.
pub fn file_head(entry: &FileEntry) -> Vec<u8> {
    let mut out = Vec::new();
    put_head(&mut out, &entry.name, entry.len, entry.checksum);
    out
}

/// The end of an archive.
pub fn end() -> Vec<u8> {
    let mut out = Vec::new();
    put_head(&mut out, "", 0, checksum(&[]));
    out
}

fn put_head(out: &mut Vec<u8>, name: &str, len: u64, sum: u32) {
    let at = out.len();
    out.put_u16(u16::try_from(name.len()).expect("a name of storage is short"));
    out.put_u64(len);
    out.put_u32(sum);
    out.put_bytes(name.as_bytes());
    let sum = checksum(&out[at..]);
    out.put_u32(sum);
}

/// Something that an [`Unpacker`] has read.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// What the store was: comes first.
    Manifest(Box<Manifest>),
    /// The next bytes of a file.
    File {
        /// The file, as the manifest names it.
        file: FileEntry,
        /// Where they begin in it.
        offset: u64,
        /// The bytes. Whether they are what was written is known with the last of them.
        bytes: Bytes,
        /// Whether the file ends with them; all of it is checked then.
        last: bool,
    },
}

/// Reads an archive that comes in pieces, of any size, and keeps no more of it than the head of an entry or the manifest. What it was
/// given may not be told at an end: [`Self::finish`] says whether all of it was there.
#[derive(Debug, Default)]
pub struct Unpacker {
    /// What came of something that is not whole yet.
    pending: Vec<u8>,
    state: State,
    /// Where in the archive the next bytes are.
    at: u64,
    /// The files that are still to come, by name.
    missing: BTreeMap<String, FileEntry>,
    has_manifest: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Start,
    /// Before an entry.
    Head,
    /// The manifest, of so many bytes and with that checksum, which began there.
    Manifest(usize, u32, u64),
    /// A file, of which that offset is reached with that checksum; the entry began there.
    File(FileEntry, u64, u32, u64),
    Ended,
}

impl Unpacker {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next bytes and hands over what is in them.
    ///
    /// # Errors
    /// `Corrupt`, with the offset in the archive, when they are not what was written; `Unsupported` for another version. Nothing may be
    /// read after that.
    pub fn push(&mut self, mut input: Bytes) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        loop {
            match std::mem::take(&mut self.state) {
                State::Start => {
                    let Some(start) = self.take(&mut input, 12, State::Start) else { return Ok(parts) };
                    check_start(&start)?;
                    self.state = State::Head;
                }
                State::Head => {
                    let entry_at = self.at - self.pending.len() as u64;
                    let Some(head) = self.take_head(&mut input) else { return Ok(parts) };
                    self.begin_entry(&head, entry_at)?;
                }
                State::Manifest(len, sum, entry_at) => {
                    let state = State::Manifest(len, sum, entry_at);
                    let Some(bytes) = self.take(&mut input, len, state) else { return Ok(parts) };
                    if checksum(&bytes) != sum {
                        return Err(damaged(entry_at, "the checksum of an entry's bytes does not fit"));
                    }
                    let manifest =
                        Manifest::decode(&bytes)?.ok_or_else(|| damaged(entry_at, "the manifest is cut short"))?;
                    self.missing = map_of(manifest.files().map(|file| (file.name.clone(), file.clone())));
                    self.has_manifest = true;
                    parts.push(Part::Manifest(Box::new(manifest)));
                    self.state = State::Head;
                }
                State::File(file, offset, sum, entry_at) => {
                    let len = (file.len - offset).min(input.len() as u64);
                    if len == 0 && offset < file.len {
                        self.state = State::File(file, offset, sum, entry_at);
                        return Ok(parts);
                    }
                    let bytes = input.split_to(len as usize);
                    self.at += len;
                    let sum = checksum_append(sum, &bytes);
                    let last = offset + len == file.len;
                    if last && sum != file.checksum {
                        return Err(damaged(entry_at, "the checksum of an entry's bytes does not fit"));
                    }
                    self.state = match last {
                        true => State::Head,
                        false => State::File(file.clone(), offset + len, sum, entry_at),
                    };
                    parts.push(Part::File { file, offset, bytes, last });
                }
                State::Ended => {
                    self.state = State::Ended;
                    if !input.is_empty() {
                        return Err(damaged(self.at, "bytes follow the end"));
                    }
                    return Ok(parts);
                }
            }
        }
    }

    /// The files that the manifest names and that did not come.
    ///
    /// # Errors
    /// `Corrupt` when the archive did not come to its end.
    pub fn finish(self) -> Result<BTreeMap<String, FileEntry>> {
        match self.state {
            State::Ended => Ok(self.missing),
            _ => Err(Error::corrupt(format!("the archive is cut short at byte {}", self.at))),
        }
    }

    /// The next `need` bytes, with those that were put by; when there are fewer, puts these by and `state` back.
    fn take(&mut self, input: &mut Bytes, need: usize, state: State) -> Option<Bytes> {
        let more = need.saturating_sub(self.pending.len()).min(input.len());
        self.at += more as u64;
        let bytes = input.split_to(more);
        if self.pending.is_empty() && more == need {
            return Some(bytes);
        }
        self.pending.extend_from_slice(&bytes);
        if self.pending.len() < need {
            self.state = state;
            return None;
        }
        Some(std::mem::take(&mut self.pending).into())
    }

    /// The head of an entry: its length is in its first bytes.
    fn take_head(&mut self, input: &mut Bytes) -> Option<Bytes> {
        if self.pending.len() < FIXED_HEAD {
            let fixed = self.take(input, FIXED_HEAD, State::Head)?;
            self.pending = fixed.into();
        }
        let name = usize::from(u16::from_le_bytes([self.pending[0], self.pending[1]]));
        self.take(input, FIXED_HEAD + name + 4, State::Head)
    }

    fn begin_entry(&mut self, head: &[u8], entry_at: u64) -> Result<()> {
        let (fields, sum) = head.split_at(head.len() - 4);
        if Reader::new(sum).u32()? != checksum(fields) {
            return Err(damaged(entry_at, "the checksum of an entry's head does not fit"));
        }
        let mut reader = Reader::new(fields);
        let name_len = usize::from(reader.u16()?);
        let (len, sum) = (reader.u64()?, reader.u32()?);
        let name = std::str::from_utf8(reader.bytes(name_len)?).map_err(|_| damaged(entry_at, "a name is no text"))?;
        self.state = match name {
            "" if !self.has_manifest => return Err(Error::corrupt("the archive has no manifest")),
            "" if len > 0 => return Err(damaged(entry_at, "the end has bytes")),
            "" => State::Ended,
            MANIFEST if !self.has_manifest => {
                let len = usize::try_from(len).map_err(|_| damaged(entry_at, "the manifest has too many bytes"))?;
                State::Manifest(len, sum, entry_at)
            }
            _ if !self.has_manifest => return Err(damaged(entry_at, "a file comes before the manifest")),
            _ => {
                let file = self.missing.remove(name);
                let file = file.filter(|file| (file.len, file.checksum) == (len, sum));
                let file = file.ok_or_else(|| {
                    damaged(entry_at, &format!("{name}, of {len} bytes, is none of the files that are still to come"))
                })?;
                State::File(file, 0, 0, entry_at)
            }
        };
        Ok(())
    }
}

/// What an entry's head has before the name: two lengths and a checksum.
const FIXED_HEAD: usize = 14;

fn damaged(at: u64, what: &str) -> Error {
    Error::corrupt(format!("at byte {at} of the archive: {what}"))
}

fn check_start(start: &[u8]) -> Result<()> {
    let (magic, rest) = start.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Error::corrupt(format!("at byte 0: {magic:02x?} is not the start of an archive")));
    }
    let version = Reader::new(rest).u16()?;
    if version != VERSION {
        let message = format!("archive version {version}; this build reads version {VERSION}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    Ok(())
}

/// Reads an archive: the manifest, and the bytes of every file that it names. All of it is checked before anything is told.
///
/// # Errors
/// `Corrupt`, with the offset, when it is cut short or not what was written, `Unsupported` for another version.
pub fn decode(archive: &Bytes) -> Result<(Manifest, BTreeMap<String, Bytes>)> {
    decode_without(archive, &|_| false)
}

/// The same of an archive that may lack files that `is_there` knows.
///
/// # Errors
/// As of [`decode`].
pub fn decode_without(
    archive: &Bytes,
    is_there: &dyn Fn(&FileEntry) -> bool,
) -> Result<(Manifest, BTreeMap<String, Bytes>)> {
    let mut unpacker = Unpacker::new();
    let (mut manifest, mut files) = (None, BTreeMap::new());
    for part in unpacker.push(archive.clone())? {
        match part {
            Part::Manifest(read) => manifest = Some(*read),
            // All of it came at once.
            Part::File { file, bytes, .. } => {
                files.insert(file.name, bytes);
            }
        }
    }
    let missing = unpacker.finish()?;
    if let Some(file) = missing.values().find(|file| !is_there(file)) {
        return Err(Error::corrupt(format!("the archive lacks {}, as its manifest names it", file.name)));
    }
    Ok((manifest.expect("an archive that ended has one"), files))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::{CollectionId, ReplicaId, SegmentId};
    use crate::engine::{CollectionManifest, Progress, SegmentManifest};

    fn archive() -> Vec<u8> {
        let spec = serde_json::from_str(
            r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
            {"name":"v","type":"float_vector","dim":2}],"dynamic":false,"indexes":{"v":{"metric":"L2","kind":"FLAT"}}}"#,
        );
        let mut manifest = Manifest::new(ReplicaId(7));
        let entry = |name: &str, bytes: &[u8]| FileEntry {
            kind: "rows".into(),
            field: None,
            name: name.into(),
            len: bytes.len() as u64,
            checksum: checksum(bytes),
        };
        let files = vec![entry("c000001/segment/1/rows", b"rows"), entry("c000001/segment/1/deletes", b"")];
        manifest.collections.push(CollectionManifest {
            id: CollectionId(1),
            name: "notes".into(),
            spec: spec.unwrap(),
            progress: Progress::default(),
            log_start: 1,
            segments: vec![SegmentManifest { id: SegmentId(1), rows: 1, files: files.clone(), adopted: None }],
            partitions: Default::default(),
            merges: Default::default(),
        });
        [start(&manifest), file_head(&files[0]), b"rows".to_vec(), file_head(&files[1]), end()].concat()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let (manifest, files) = decode(&archive().into()).unwrap();
        assert_eq!(manifest.collections[0].name, "notes");
        assert_eq!(files["c000001/segment/1/rows"], "rows");
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn files_that_are_there_may_be_left_out() {
        let whole = archive();
        let (manifest, _) = decode(&whole.clone().into()).unwrap();
        let rows = manifest.files().next().unwrap().clone();
        let without = [start(&manifest), file_head(manifest.files().nth(1).unwrap()), end()].concat();
        let error = decode(&without.clone().into()).unwrap_err();
        assert!(error.message().contains("lacks c000001/segment/1/rows"), "{error}");
        let (_, files) = decode_without(&without.into(), &|file| *file == rows).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!(decode_without(&whole.into(), &|_| true).unwrap().1.len(), 2);
    }

    #[test]
    fn an_archive_that_is_cut_or_longer_or_changed_is_refused() {
        let whole = archive();
        for len in 0..whole.len() {
            let error = decode(&whole[..len].to_vec().into()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}: {error}");
        }
        assert_eq!(decode(&[&whole[..], b"x"].concat().into()).unwrap_err().kind(), ErrorKind::Corrupt);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x40;
            // Two bytes of the start are for later versions.
            if !(10..12).contains(&at) {
                decode(&changed.into()).unwrap_err();
            }
        }
    }

    #[test]
    fn it_may_come_in_any_pieces() {
        let whole = Bytes::from(archive());
        let (manifest, files) = decode(&whole).unwrap();
        for size in 1..whole.len() {
            let mut unpacker = Unpacker::new();
            let (mut read, mut came) = (None, BTreeMap::<String, Vec<u8>>::new());
            for at in (0..whole.len()).step_by(size) {
                for part in unpacker.push(whole.slice(at..(at + size).min(whole.len()))).unwrap() {
                    match part {
                        Part::Manifest(manifest) => read = Some(*manifest),
                        Part::File { file, offset, bytes, last } => {
                            let so_far = came.entry(file.name.clone()).or_default();
                            assert_eq!(so_far.len() as u64, offset);
                            so_far.extend_from_slice(&bytes);
                            assert_eq!(last, so_far.len() as u64 == file.len);
                        }
                    }
                }
            }
            assert!(unpacker.finish().unwrap().is_empty());
            assert_eq!(read.unwrap(), manifest);
            assert_eq!(came.len(), files.len());
            assert!(came.iter().all(|(name, bytes)| files[name] == *bytes));
        }
    }

    #[test]
    fn files_that_nobody_named_are_refused() {
        let (manifest, _) = decode(&archive().into()).unwrap();
        let files: Vec<&FileEntry> = manifest.files().collect();
        let other = FileEntry { name: "c000001/segment/1/other".into(), ..files[0].clone() };
        let longer = FileEntry { len: 5, ..files[0].clone() };
        let start = start(&manifest);
        for (heads, at) in
            [(vec![&other], start.len()), (vec![&longer], start.len()), (vec![files[1], files[1]], start.len() + 43)]
        {
            let archive = [start.clone(), heads.into_iter().flat_map(file_head).collect(), b"rows!".to_vec(), end()];
            let error = decode(&archive.concat().into()).unwrap_err();
            assert!(error.message().contains(&format!("at byte {at} of the archive: c000001")), "{error}");
        }
        let error = decode(&[&archive()[..12], &file_head(files[1])].concat().into()).unwrap_err();
        assert!(error.message().contains("a file comes before the manifest"), "{error}");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), start in any::<bool>()) {
            let mut archive = if start { archive()[..12].to_vec() } else { Vec::new() };
            archive.extend(bytes);
            prop_assert!(decode(&archive.into()).is_err());
        }
    }
}
