use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{CollectionSpec, MergeCounts, Progress};
use crate::base::codec::{Reader, Write, checksum};
use crate::base::{CollectionId, Error, ErrorKind, Lsn, ReplicaId, Result, SegmentId, Timestamp, message};

const MAGIC: &[u8; 8] = b"EDDYMAN\n";
const VERSION: u16 = 1;

/// Everything that is live in a store, at one version. A manifest is written whole under a new name and never changed; the
/// newest whole one counts.
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | 8 | `EDDYMAN\n` |
/// | 8 | 2 | version of the layout, 1 |
/// | 10 | 2 | zero |
/// | 12 | 4 | CRC-32C of the payload |
/// | 16 | 8 | length of the payload |
/// | 24 | … | MessagePack of this struct, by name |
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts up with every change.
    pub version: u64,
    /// Counts the owners that the store has had: each writes a manifest before it reads anything else, and no owner before it
    /// can write one after that.
    pub fence: u64,
    /// This replica.
    pub replica: ReplicaId,
    /// Its number in the keys that it makes, when it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_number: Option<u16>,
    /// A timestamp at or after every one in the segments.
    pub clock: Timestamp,
    /// Greater than every segment id ever used.
    pub next_segment: SegmentId,
    /// Greater than every collection id ever used.
    pub next_collection: CollectionId,
    /// The collections.
    pub collections: Vec<CollectionManifest>,
    /// Other names of collections.
    #[serde(default)]
    pub aliases: BTreeMap<String, CollectionId>,
}

/// One collection of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CollectionManifest {
    /// Its id.
    pub id: CollectionId,
    /// Its name.
    pub name: String,
    /// Its schema and indexes.
    pub spec: CollectionSpec,
    /// What the segments contain: the log continues from here.
    pub progress: Progress,
    /// The first log file that is not wholly in the segments.
    pub log_start: u64,
    /// The segments, by id.
    pub segments: Vec<SegmentManifest>,
    /// Its partitions by name, but for the default one and those that only rows from elsewhere have named.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub partitions: BTreeSet<String>,
    /// What was merged of it.
    #[serde(default, skip_serializing_if = "MergeCounts::is_none")]
    pub merges: MergeCounts,
}

/// One segment of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentManifest {
    /// Its id.
    pub id: SegmentId,
    /// Its rows, dead ones included.
    pub rows: u64,
    /// Its files.
    pub files: Vec<FileEntry>,
    /// When it came whole from elsewhere: from where, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
}

/// A segment that another replica wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// From which hub.
    pub hub: ReplicaId,
    /// Its id there.
    pub segment: SegmentId,
    /// At which position of the log here all of its rows and deletes came: those in its files are of the log there.
    pub lsn: Lsn,
}

/// One file of a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// `layout`, `rows`, `deletes`, `column`, `vector` or `index`.
    pub kind: String,
    /// The field, for the last three.
    pub field: Option<String>,
    /// Its name in the storage.
    pub name: String,
    /// Its length in bytes.
    pub len: u64,
    /// CRC-32C of its bytes.
    pub checksum: u32,
}

impl Manifest {
    /// The manifest of a new store.
    pub fn new(replica: ReplicaId) -> Self {
        Self {
            version: 0,
            fence: 0,
            replica,
            replica_number: None,
            clock: Timestamp::default(),
            next_segment: SegmentId(1),
            next_collection: CollectionId(1),
            collections: Vec::new(),
            aliases: BTreeMap::new(),
        }
    }

    /// What of it segments and logs do not tell: the replica, and which collections there are, of what, under which names. With that a
    /// repair makes a manifest when none can be read. It has no version and no segments.
    pub fn outline(&self) -> Self {
        let of_collection = |collection: &CollectionManifest| CollectionManifest {
            id: collection.id,
            name: collection.name.clone(),
            spec: collection.spec.clone(),
            progress: Progress::default(),
            log_start: 0,
            segments: Vec::new(),
            partitions: collection.partitions.clone(),
            merges: MergeCounts::default(),
        };
        Self {
            replica_number: self.replica_number,
            next_collection: self.next_collection,
            collections: self.collections.iter().map(of_collection).collect(),
            aliases: self.aliases.clone(),
            ..Self::new(self.replica)
        }
    }

    /// All files that it names, in its order.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        self.collections.iter().flat_map(|collection| &collection.segments).flat_map(|segment| &segment.files)
    }

    /// The collection of that id.
    pub fn collection_mut(&mut self, id: CollectionId) -> Option<&mut CollectionManifest> {
        self.collections.iter_mut().find(|collection| collection.id == id)
    }

    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let payload = rmp_serde::to_vec_named(self).expect("a manifest is plain data");
        let mut out = Vec::with_capacity(24 + payload.len());
        out.put_bytes(MAGIC);
        out.put_u16(VERSION);
        out.put_u16(0);
        out.put_u32(checksum(&payload));
        out.put_u64(payload.len() as u64);
        out.put_bytes(&payload);
        out
    }

    /// The manifest in `bytes`; `None` when they are cut short, as a crash while writing leaves them.
    ///
    /// # Errors
    /// `Corrupt` when they are whole but wrong, `Unsupported` for another layout.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        let mut reader = Reader::new(bytes);
        let Ok(magic) = reader.bytes(8) else { return Ok(None) };
        if magic != MAGIC {
            // Bytes that were allocated but never written read as zeros.
            return if bytes.iter().all(|&byte| byte == 0) {
                Ok(None)
            } else {
                Err(Error::corrupt(format!("at byte 0: {magic:02x?} is not the start of a manifest")))
            };
        }
        let Ok(header) = reader.bytes(16) else { return Ok(None) };
        let mut header = Reader::new(header);
        let version = header.u16()?;
        let _zero = header.u16()?;
        let (sum, len) = (header.u32()?, header.u64()?);
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("manifest version {version}; this build reads version {VERSION}"),
            ));
        }
        if len > reader.remaining() as u64 {
            return Ok(None);
        }
        let payload = reader.bytes(len as usize)?;
        if checksum(payload) != sum {
            return Err(Error::corrupt("at byte 12: the checksum does not fit the payload"));
        }
        message::decode(payload).map(Some).map_err(|error| Error::corrupt(format!("at byte 24: {error}")))
    }
}
