use std::sync::{Arc, OnceLock};

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use hashbrown::HashMap;

use super::FileKind;
use super::arrow::{Block, BlockReader};
use super::statistics::Statistics;
use crate::base::codec::{Reader, Write};
use crate::base::compress::Codec;
use crate::base::{Error, ErrorKind, Result};

const MAGIC: &[u8; 8] = b"EDDYSEG\n";
const VERSION: u16 = 1;
const CODECS: [Codec; 3] = [Codec::None, Codec::Lz4, Codec::Zstd];

/// Columns that lie in one file, and where its blocks are.
#[derive(Debug, Clone)]
pub struct Group {
    /// Which file.
    pub kind: FileKind,
    /// The name of the file.
    pub name: Arc<str>,
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// How it is compressed.
    pub codec: Codec,
    /// Its blocks, in order of their rows.
    pub blocks: Vec<Block>,
    /// By block, then by column.
    pub statistics: Vec<Vec<Statistics>>,
    /// The number of the first row of each block.
    starts: Vec<u32>,
    reader: Option<BlockReader>,
    /// What its columns take in memory, once somebody has seen it.
    memory: OnceLock<usize>,
}

impl Group {
    pub(super) fn new(
        kind: FileKind,
        columns: Vec<String>,
        codec: Codec,
        blocks: Vec<Block>,
        statistics: Vec<Vec<Statistics>>,
    ) -> Self {
        let mut next = 0;
        let start = |block: &Block| {
            next += block.rows;
            next - block.rows
        };
        let starts = blocks.iter().map(start).collect();
        Self {
            kind,
            name: "".into(),
            columns,
            codec,
            blocks,
            statistics,
            starts,
            reader: None,
            memory: OnceLock::new(),
        }
    }

    /// Says where it lies and what its columns are: from then on it can be read.
    pub(super) fn place(&mut self, name: &str, schema: &Schema) {
        self.name = name.into();
        self.reader = Some(BlockReader::new(schema));
    }

    /// All its blocks.
    pub fn all(self: &Arc<Self>) -> Vec<BlockRef> {
        (0..self.blocks.len()).map(|index| BlockRef { group: self.clone(), index }).collect()
    }

    /// Whether its columns may stay in storage.
    pub fn is_movable(&self) -> bool {
        matches!(self.kind, FileKind::Column(_) | FileKind::Vector(_))
    }

    /// The number of its rows.
    pub fn rows(&self) -> usize {
        self.blocks.iter().map(|block| block.rows as usize).sum()
    }

    /// The block that `row` is in. Panics past the end.
    pub fn block_of(&self, row: u32) -> usize {
        self.starts.partition_point(|&start| start <= row) - 1
    }

    /// Whether the column lies there.
    pub(super) fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|name| name == column)
    }

    /// The numbers of the first rows of all blocks.
    pub(super) fn starts(&self) -> &[u32] {
        &self.starts
    }

    /// The number of the first row of a block.
    pub fn start(&self, block: usize) -> u32 {
        self.starts[block]
    }

    /// Notes how many bytes its columns take in memory.
    pub fn note_memory_bytes(&self, bytes: usize) {
        // It is the same every time.
        let _ = self.memory.set(bytes);
    }

    /// How many bytes its columns take in memory: as was noted, or about.
    pub fn memory_bytes(&self) -> usize {
        if let Some(bytes) = self.memory.get() {
            return *bytes;
        }
        let stored: usize = self.blocks.iter().map(|block| block.len as usize).sum();
        // What compressed columns grow to is not written down: text and numbers come to about three times.
        if self.codec == Codec::None { stored } else { stored * 3 }
    }

    /// The rows of a block, from its bytes.
    ///
    /// # Errors
    /// `Corrupt` when they are not those that were written; the file and the place in it are named.
    pub fn read(&self, block: usize, bytes: &[u8]) -> Result<RecordBatch> {
        let reader = self.reader.as_ref().expect("groups are placed before they are read");
        reader.read(&self.blocks[block], bytes).map_err(|error| error.context(&self.name))
    }

    /// All blocks, from the bytes of the file, whose checksum the caller has checked.
    pub(super) fn read_all(&self, bytes: &[u8]) -> Result<Vec<RecordBatch>> {
        let of_block = |(index, block): (usize, &Block)| {
            let start = usize::try_from(block.offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(block.len as usize);
            let cut = || Error::corrupt(format!("{}: {} bytes; block {index} ends at {end}", self.name, bytes.len()));
            let reader = self.reader.as_ref().expect("groups are placed before they are read");
            reader.decode(block, bytes.get(start..end).ok_or_else(cut)?).map_err(|error| error.context(&self.name))
        };
        self.blocks.iter().enumerate().map(of_block).collect()
    }
}

/// A block that is wanted.
#[derive(Debug, Clone)]
pub struct BlockRef {
    /// Whose.
    pub group: Arc<Group>,
    /// Which of its blocks.
    pub index: usize,
}

impl BlockRef {
    /// Where it lies.
    pub fn place(&self) -> &Block {
        &self.group.blocks[self.index]
    }

    /// Whether it is compressed.
    pub fn is_packed(&self) -> bool {
        self.group.codec != Codec::None
    }
}

/// Blocks that were read, by file and number.
#[derive(Debug, Default, Clone)]
pub struct Blocks(HashMap<(Arc<str>, usize), Arc<RecordBatch>>);

impl Blocks {
    /// The rows of that block.
    pub fn get(&self, group: &Group, index: usize) -> Option<&Arc<RecordBatch>> {
        self.0.get(&(group.name.clone(), index))
    }

    /// Adds the rows of a block.
    pub fn insert(&mut self, block: &BlockRef, rows: Arc<RecordBatch>) {
        self.0.insert((block.group.name.clone(), block.index), rows);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u16(text.len() as u16);
    out.put_bytes(text.as_bytes());
}

fn text(reader: &mut Reader<'_>) -> Result<String> {
    let len = usize::from(reader.u16()?);
    String::from_utf8(reader.bytes(len)?.to_vec()).map_err(|error| Error::corrupt(error.to_string()))
}

/// The bytes of a layout: see the table in `src/docs/formats.md`.
pub(super) fn encode(groups: &[Group]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u16(VERSION);
    out.put_u16(groups.len() as u16);
    for group in groups {
        let (kind, field) = match &group.kind {
            FileKind::Column(field) => (1, field.as_str()),
            FileKind::Vector(field) => (2, field.as_str()),
            FileKind::Deletes => (3, ""),
            _ => (0, ""),
        };
        out.put_u8(kind);
        out.put_u8(CODECS.iter().position(|codec| *codec == group.codec).unwrap_or_default() as u8);
        put_text(&mut out, field);
        out.put_u16(group.columns.len() as u16);
        group.columns.iter().for_each(|column| put_text(&mut out, column));
        out.put_u32(group.blocks.len() as u32);
        for (block, statistics) in group.blocks.iter().zip(&group.statistics) {
            out.put_u32(block.rows);
            out.put_u64(block.offset);
            out.put_u32(block.len);
            out.put_u32(block.checksum);
            statistics.iter().for_each(|column| column.encode(&mut out));
        }
    }
    out
}

/// The groups in `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Group>> {
    let mut reader = Reader::new(bytes);
    if reader.bytes(8)? != MAGIC {
        return Err(Error::corrupt("at byte 0: not the start of a layout"));
    }
    let version = reader.u16()?;
    if version != VERSION {
        let what = format!("layout version {version}; this build reads version {VERSION}");
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    let count = reader.u16()?;
    let mut groups = Vec::new();
    for _ in 0..count {
        let at = reader.offset();
        let (kind, codec) = (reader.u8()?, reader.u8()?);
        let field = text(&mut reader)?;
        let kind = match kind {
            0 => FileKind::Rows,
            1 => FileKind::Column(field),
            2 => FileKind::Vector(field),
            3 => FileKind::Deletes,
            other => return Err(Error::corrupt(format!("at byte {at}: files of kind {other}"))),
        };
        let unknown = || Error::corrupt(format!("at byte {}: codec {codec}", at + 1));
        let codec = *CODECS.get(usize::from(codec)).ok_or_else(unknown)?;
        let columns = (0..reader.u16()?).map(|_| text(&mut reader)).collect::<Result<Vec<_>>>()?;
        let (mut blocks, mut statistics) = (Vec::new(), Vec::new());
        let mut rows = 0u32;
        for _ in 0..reader.u32()? {
            let at = reader.offset();
            let block =
                Block { rows: reader.u32()?, offset: reader.u64()?, len: reader.u32()?, checksum: reader.u32()? };
            rows =
                rows.checked_add(block.rows).ok_or_else(|| Error::corrupt(format!("at byte {at}: too many rows")))?;
            blocks.push(block);
            statistics.push(columns.iter().map(|_| Statistics::decode(&mut reader)).collect::<Result<Vec<_>>>()?);
        }
        groups.push(Group::new(kind, columns, codec, blocks, statistics));
    }
    if reader.remaining() > 0 {
        return Err(Error::corrupt(format!("at byte {}: bytes after the end of a layout", reader.offset())));
    }
    Ok(groups)
}
