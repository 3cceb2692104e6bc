use std::sync::{Arc, OnceLock};

use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use hashbrown::HashMap;

use super::arrow::{Block, BlockReader, batch_bytes, batch_of};
use super::statistics::{Range, Statistics};
use super::{FileKind, KeyFilter, Versions};
use crate::base::codec::{Reader, Write, checksum};
use crate::base::compress::Codec;
use crate::base::{Error, ErrorKind, Result};
use crate::model::column::number_bytes;

const MAGIC: &[u8; 8] = b"EDDYSEG\n";
const VERSION: u16 = 1;
/// Where begins what the checksum is of.
const BODY: usize = 14;

/// How a column is written.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Encoding {
    /// Each value after the other.
    #[default]
    Plain,
    /// Text as numbers of these values: as `Int8` where there are at most 128, else as `Int16`.
    Dictionary(StringArray),
}

impl Encoding {
    /// The type of a column in blocks.
    fn data_type(&self, plain: &DataType) -> DataType {
        match self {
            Self::Plain => plain.clone(),
            Self::Dictionary(values) => Self::index_type(values.len()),
        }
    }

    /// The type of the numbers of so many values.
    pub(super) fn index_type(values: usize) -> DataType {
        if values <= 128 { DataType::Int8 } else { DataType::Int16 }
    }

    /// The name by which tools call it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Dictionary(_) => "dictionary",
        }
    }

    /// The values of a column of a block.
    fn decode(&self, field: &Field, stored: &ArrayRef) -> Result<(Field, ArrayRef)> {
        let Self::Dictionary(values) = self else { return Ok((field.clone(), stored.clone())) };
        let numbers = (number_bytes(stored), stored.data_type());
        let value = |row: usize| {
            if stored.is_null(row) {
                return Ok(None);
            }
            let number = match &numbers {
                (Some(bytes), DataType::Int8) => isize::from(bytes.typed_data::<i8>()[row]),
                (Some(bytes), _) => isize::from(bytes.typed_data::<i16>()[row]),
                (None, _) => -1,
            };
            let known = usize::try_from(number).ok().filter(|number| *number < values.len());
            let wrong = || Error::corrupt(format!("column {:?}: value {number} of {}", field.name(), values.len()));
            known.map(|number| Some(values.value(number))).ok_or_else(wrong)
        };
        let text = (0..stored.len()).map(value).collect::<Result<StringArray>>()?;
        Ok((field.clone().with_data_type(DataType::Utf8), Arc::new(text)))
    }
}

/// All that is known of a segment without reading its columns.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The files of columns.
    pub groups: Vec<Group>,
    /// The versions of the rows.
    pub versions: Versions,
    /// How many keys the rows have: fewer than there are rows where some were replaced.
    pub keys: u32,
    /// Which keys they do not have.
    pub filter: KeyFilter,
}

/// Between what the values of that column of `rows` lie, when they are integers.
pub(super) fn key_range(groups: &[Group], column: &str) -> Option<(i64, i64)> {
    let rows = groups.iter().find(|group| group.kind == FileKind::Rows)?;
    let at = rows.columns.iter().position(|name| name == column)?;
    rows.statistics.iter().try_fold((i64::MAX, i64::MIN), |(least, most), block| match block[at].range {
        Range::Int(from, to) => Some((least.min(from), most.max(to))),
        _ => None,
    })
}

/// Columns that lie in one file, and where its blocks are.
#[derive(Debug, Clone)]
pub struct Group {
    /// Which file.
    pub kind: FileKind,
    /// The name of the file.
    pub name: Arc<str>,
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// How each is written.
    pub encodings: Vec<Encoding>,
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
        encodings: Vec<Encoding>,
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
            encodings,
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
        let stored = schema
            .fields()
            .iter()
            .zip(&self.encodings)
            .map(|(field, encoding)| field.as_ref().clone().with_data_type(encoding.data_type(field.data_type())));
        self.reader = Some(BlockReader::new(&Schema::new(stored.collect::<Vec<Field>>()), self.codec));
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
        let stored = reader.read(&self.blocks[block], bytes);
        stored.and_then(|stored| self.decoded(stored)).map_err(|error| error.context(&self.name))
    }

    /// The columns of a block as they are in memory.
    fn decoded(&self, stored: RecordBatch) -> Result<RecordBatch> {
        if self.encodings.iter().all(|encoding| *encoding == Encoding::Plain) {
            return Ok(stored);
        }
        let fields = stored.schema();
        let columns = fields.fields().iter().zip(stored.columns()).zip(&self.encodings);
        let columns =
            columns.map(|((field, column), encoding)| encoding.decode(field, column)).collect::<Result<Vec<_>>>()?;
        Ok(batch_of(columns, stored.num_rows()))
    }

    /// All blocks, from the bytes of the file, whose checksum the caller has checked.
    pub(super) fn read_all(&self, bytes: &[u8]) -> Result<Vec<RecordBatch>> {
        let of_block = |(index, block): (usize, &Block)| {
            let start = usize::try_from(block.offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(block.len as usize);
            let cut = || Error::corrupt(format!("{}: {} bytes; block {index} ends at {end}", self.name, bytes.len()));
            let reader = self.reader.as_ref().expect("groups are placed before they are read");
            let stored = reader.decode(block, bytes.get(start..end).ok_or_else(cut)?);
            stored.and_then(|stored| self.decoded(stored)).map_err(|error| error.context(&self.name))
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

    /// What they take.
    pub fn memory_bytes(&self) -> usize {
        self.0.values().map(|rows| batch_bytes(rows)).sum()
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
pub(super) fn encode(groups: &[Group], versions: &Versions, codec: Codec, keys: u32, filter: &KeyFilter) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.put_u16(VERSION);
    // Not at the end: a file that ends with its own CRC has the same one as all that do.
    out.put_u32(0);
    out.put_u16(groups.len() as u16);
    for group in groups {
        let (kind, field) = match &group.kind {
            FileKind::Column(field) => (1, field.as_str()),
            FileKind::Vector(field) => (2, field.as_str()),
            FileKind::Deletes => (3, ""),
            _ => (0, ""),
        };
        out.put_u8(kind);
        out.put_u8(group.codec as u8);
        put_text(&mut out, field);
        out.put_u16(group.columns.len() as u16);
        for (column, encoding) in group.columns.iter().zip(&group.encodings) {
            put_text(&mut out, column);
            match encoding {
                Encoding::Plain => out.put_u8(0),
                Encoding::Dictionary(values) => {
                    out.put_u8(1);
                    out.put_u16(values.len() as u16);
                    values.iter().flatten().for_each(|value| put_text(&mut out, value));
                }
            }
        }
        out.put_u32(group.blocks.len() as u32);
        for (block, statistics) in group.blocks.iter().zip(&group.statistics) {
            out.put_u32(block.rows);
            out.put_u64(block.offset);
            out.put_u32(block.len);
            out.put_u32(block.checksum);
            statistics.iter().for_each(|column| column.encode(&mut out));
        }
    }
    versions.encode(codec, &mut out);
    out.put_u32(keys);
    filter.encode(&mut out);
    let sum = checksum(&out[BODY..]);
    out[BODY - 4..BODY].copy_from_slice(&sum.to_le_bytes());
    out
}

fn encoding(reader: &mut Reader<'_>) -> Result<Encoding> {
    let at = reader.offset();
    match reader.u8()? {
        0 => Ok(Encoding::Plain),
        1 => {
            let values = (0..reader.u16()?).map(|_| text(reader)).collect::<Result<Vec<String>>>()?;
            Ok(Encoding::Dictionary(StringArray::from_iter_values(values)))
        }
        other => Err(Error::corrupt(format!("at byte {at}: encoding {other}"))),
    }
}

/// The layout in `bytes`, for tools: its files have no names and cannot be read.
///
/// # Errors
/// `Corrupt` when it is none, `Unsupported` for one of another version.
#[cfg(feature = "server")]
pub fn describe(bytes: &[u8]) -> Result<Layout> {
    decode(bytes)
}

/// Which files a layout in `bytes` describes.
///
/// # Errors
/// As of [`decode`].
#[cfg(native)]
pub(crate) fn kinds(bytes: &[u8]) -> Result<Vec<FileKind>> {
    Ok(decode(bytes)?.groups.into_iter().map(|group| group.kind).collect())
}

/// The layout in `bytes`.
pub(super) fn decode(bytes: &[u8]) -> Result<Layout> {
    let mut reader = Reader::new(bytes);
    if reader.bytes(8)? != MAGIC {
        return Err(Error::corrupt("at byte 0: not the start of a layout"));
    }
    let version = reader.u16()?;
    if version != VERSION {
        let what = format!("layout version {version}; this build reads version {VERSION}");
        return Err(Error::new(ErrorKind::Unsupported, what));
    }
    if reader.u32()? != checksum(&bytes[BODY..]) {
        return Err(Error::corrupt(format!("at byte {}: the checksum does not fit the layout", BODY - 4)));
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
        let codec = *Codec::ALL.get(usize::from(codec)).ok_or_else(unknown)?;
        let columns = (0..reader.u16()?).map(|_| Ok((text(&mut reader)?, encoding(&mut reader)?)));
        let (columns, encodings): (Vec<_>, Vec<_>) = columns.collect::<Result<Vec<_>>>()?.into_iter().unzip();
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
        groups.push(Group::new(kind, columns, encodings, codec, blocks, statistics));
    }
    let (versions, keys) = (Versions::decode(&mut reader)?, reader.u32()?);
    let filter = KeyFilter::decode(&mut reader)?;
    if reader.remaining() > 0 {
        return Err(Error::corrupt(format!("at byte {}: bytes after the end of a layout", reader.offset())));
    }
    Ok(Layout { groups, versions, keys, filter })
}
