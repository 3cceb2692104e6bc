//! A store's snapshot in one file.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{FileEntry, Manifest};
use crate::base::codec::{Reader, Write, checksum};
use crate::base::{Error, ErrorKind, Result};

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
    let cut = |at: usize| Error::corrupt(format!("the archive is cut short at byte {at}"));
    let mut reader = Reader::new(archive);
    let magic = reader.bytes(8).map_err(|_| cut(archive.len()))?;
    if magic != MAGIC {
        return Err(Error::corrupt(format!("at byte 0: {magic:02x?} is not the start of an archive")));
    }
    let version = reader.u16().map_err(|_| cut(archive.len()))?;
    if version != VERSION {
        let message = format!("archive version {version}; this build reads version {VERSION}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    reader.u16().map_err(|_| cut(archive.len()))?;
    let mut manifest = None;
    let mut files = BTreeMap::new();
    loop {
        let at = reader.offset();
        let damaged = |what: &str| Error::corrupt(format!("at byte {at} of the archive: {what}"));
        let mut head =
            || -> Result<(usize, u64, u32)> { Ok((usize::from(reader.u16()?), reader.u64()?, reader.u32()?)) };
        let (name_len, len, sum) = head().map_err(|_| cut(archive.len()))?;
        let name = reader.bytes(name_len).map_err(|_| cut(archive.len()))?;
        let head_end = reader.offset();
        if reader.u32().map_err(|_| cut(archive.len()))? != checksum(&archive[at..head_end]) {
            return Err(damaged("the checksum of an entry's head does not fit"));
        }
        if len > reader.remaining() as u64 {
            return Err(cut(archive.len()));
        }
        let start = reader.offset();
        if checksum(reader.bytes(len as usize)?) != sum {
            return Err(damaged("the checksum of an entry's bytes does not fit"));
        }
        let name = std::str::from_utf8(name).map_err(|_| damaged("a name is no text"))?;
        match name {
            "" => break,
            MANIFEST if manifest.is_none() => {
                let decoded = Manifest::decode(&archive[start..reader.offset()])?;
                manifest = Some(decoded.ok_or_else(|| damaged("the manifest is cut short"))?);
            }
            _ => {
                files.insert(name.to_owned(), archive.slice(start..reader.offset()));
            }
        }
    }
    if reader.remaining() > 0 {
        return Err(Error::corrupt(format!("{} bytes follow the end of the archive", reader.remaining())));
    }
    let manifest = manifest.ok_or_else(|| Error::corrupt("the archive has no manifest"))?;
    for file in manifest.files() {
        let found = files.get(&file.name).map(|bytes| (bytes.len() as u64, checksum(bytes)));
        if found != Some((file.len, file.checksum)) && (found.is_some() || !is_there(file)) {
            return Err(Error::corrupt(format!("the archive lacks {}, as its manifest names it", file.name)));
        }
    }
    Ok((manifest, files))
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
            segments: vec![SegmentManifest { id: SegmentId(1), rows: 1, files: files.clone() }],
            partitions: Default::default(),
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

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), start in any::<bool>()) {
            let mut archive = if start { archive()[..12].to_vec() } else { Vec::new() };
            archive.extend(bytes);
            prop_assert!(decode(&archive.into()).is_err());
        }
    }
}
