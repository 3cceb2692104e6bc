use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_data::ArrayData;
use arrow_ipc::{Buffer, CompressionType, FieldNode, Footer, FooterArgs, Message, MetadataVersion, root_as_message};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use flatbuffers::FlatBufferBuilder;

use super::message::{Part, batch_message, encode_schema, record_batch_message, schema_message};
use crate::base::codec::{Reader, Write, checksum};
use crate::base::compress::{Codec, compress, decompress, decompress_stream};
use crate::base::{Error, Result};
use crate::model::IpcReader;

/// One record batch of these columns, all of `rows` rows.
pub(crate) fn batch_of(columns: impl IntoIterator<Item = (Field, ArrayRef)>, rows: usize) -> RecordBatch {
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .expect("columns made here have their fields' types and one length")
}

/// The bytes of the values of a column: what it holds alone, even where it is a part of what was read at once.
pub(crate) fn column_bytes(array: &dyn Array) -> usize {
    fn bytes(data: &ArrayData) -> usize {
        let buffers: usize = data.buffers().iter().map(|buffer| buffer.len()).sum();
        buffers + data.nulls().map_or(0, |nulls| nulls.len() / 8) + data.child_data().iter().map(bytes).sum::<usize>()
    }
    bytes(&array.to_data())
}

/// The same of all columns.
pub(crate) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column_bytes(column)).sum()
}

const MAGIC: &[u8; 8] = b"ARROW1\0\0";
/// What ends a stream: the marker of a message, of no length.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// A compressed buffer begins with its length when decompressed, or with this when it is as it was.
const STORED: i64 = -1;
/// How much a compressed buffer may claim to grow: zstd gets there on constant columns only.
const RATIO_MAX: u64 = 1 << 16;

/// A run of rows in an Arrow file: one record batch, which can be read without the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// How many rows.
    pub rows: u32,
    /// Where its message begins in the file.
    pub offset: u64,
    /// How long the message is, body and all.
    pub len: u32,
    /// CRC-32C of those bytes.
    pub checksum: u32,
}

/// One message of an Arrow stream.
struct Framed<'a> {
    message: Message<'a>,
    body: &'a [u8],
    /// Of all of it.
    len: usize,
}

/// The message at the start of `bytes`.
fn split_message(bytes: &[u8]) -> Result<Framed<'_>> {
    let mut reader = Reader::new(bytes);
    let marker = reader.u32()?;
    let len = reader.u32()? as usize;
    let wrong = |what: &dyn std::fmt::Display| Error::corrupt(format!("no Arrow message: {what}"));
    if marker != u32::MAX {
        return Err(wrong(&format_args!("it begins with {marker:08x}")));
    }
    let message = root_as_message(reader.bytes(len)?).map_err(|error| wrong(&error))?;
    let body = reader.bytes(usize::try_from(message.bodyLength()).map_err(|error| wrong(&error))?)?;
    Ok(Framed { message, body, len: reader.offset() })
}

/// The message of a record batch with every buffer decompressed.
fn decompressed(framed: &Framed<'_>, codec: Codec) -> Result<Vec<u8>> {
    let missing = || Error::corrupt("an Arrow message that is no plain record batch");
    let batch = framed.message.header_as_record_batch().ok_or_else(missing)?;
    let (nodes, buffers) = batch.nodes().zip(batch.buffers()).ok_or_else(missing)?;
    if batch.variadicBufferCounts().is_some() {
        return Err(missing());
    }
    let mut body = Vec::new();
    let mut places = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let (offset, len) = (buffer.offset() as usize, buffer.length() as usize);
        let bytes = framed.body.get(offset..offset.saturating_add(len)).ok_or_else(missing)?;
        let plain = if bytes.is_empty() { Vec::new() } else { decompress_buffer(codec, bytes)? };
        places.push(Buffer::new(body.len() as i64, plain.len() as i64));
        body.extend_from_slice(&plain);
        body.resize(body.len().next_multiple_of(8), 0);
    }
    let nodes: Vec<FieldNode> = nodes.iter().copied().collect();
    let (rows, mut out) = (batch.length() as usize, Vec::new());
    record_batch_message(rows, &nodes, &places, Codec::None, &[Part::Bytes(&body)], None, &mut out);
    Ok(out)
}

/// A buffer as Arrow wants it compressed.
pub(super) fn compress_buffer(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    let packed = compress(codec, bytes);
    let (claim, packed) =
        if packed.len() < bytes.len() { (bytes.len() as i64, packed.as_slice()) } else { (STORED, bytes) };
    let mut out = Vec::with_capacity(8 + packed.len());
    out.put_u64(claim as u64);
    out.put_bytes(packed);
    out
}

fn decompress_buffer(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut reader = Reader::new(bytes);
    let claim = reader.u64()?;
    let packed = reader.bytes(reader.remaining())?;
    if claim as i64 == STORED {
        return Ok(packed.to_vec());
    }
    if claim > (packed.len() as u64).saturating_mul(RATIO_MAX) {
        return Err(Error::corrupt(format!("{} compressed bytes that claim to hold {claim}", packed.len())));
    }
    decompress(codec, packed, claim as usize)
}

/// Writes an Arrow IPC file, one record batch after the other. Arrow counts its bytes as they are; codecs of whole files compress
/// them piece by piece.
#[derive(Debug)]
pub(super) struct FileWriter {
    codec: Codec,
    /// Columns that batches tell as numbers of these values.
    dictionaries: Vec<(usize, ArrayRef)>,
    schema: Option<Schema>,
    len: u64,
    plain_len: u64,
    blocks: Vec<Block>,
    places: Vec<arrow_ipc::Block>,
    dictionary_places: Vec<arrow_ipc::Block>,
}

impl FileWriter {
    pub(super) fn new(codec: Codec, dictionaries: Vec<(usize, ArrayRef)>) -> Self {
        Self {
            codec,
            dictionaries,
            schema: None,
            len: 0,
            plain_len: 0,
            blocks: Vec::new(),
            places: Vec::new(),
            dictionary_places: Vec::new(),
        }
    }

    /// Adds a piece that can be read by itself; tells how long it is there.
    fn put(&mut self, piece: &[u8], out: &mut Vec<u8>) -> usize {
        let start = out.len();
        if self.codec.is_stream() {
            out.extend(compress(self.codec, piece));
        } else {
            out.put_bytes(piece);
        }
        self.plain_len += piece.len() as u64;
        self.len += (out.len() - start) as u64;
        out.len() - start
    }

    /// Adds a message; tells where Arrow finds it, and how long it is there.
    fn put_message(&mut self, message: &[u8], out: &mut Vec<u8>) -> (arrow_ipc::Block, usize) {
        let body_len = split_message(message).expect("Arrow reads what it wrote").body.len();
        let place = arrow_ipc::Block::new(self.plain_len as i64, (message.len() - body_len) as i32, body_len as i64);
        (place, self.put(message, out))
    }

    /// Adds what comes before the first batch, which is like `batch`.
    fn begin(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) {
        let of_field = |(index, field): (usize, &Arc<Field>)| {
            let field = field.as_ref().clone();
            match self.dictionaries.iter().find(|(column, _)| *column == index) {
                Some((_, values)) => {
                    let numbers = field.data_type().clone();
                    field.with_data_type(DataType::Dictionary(numbers.into(), values.data_type().clone().into()))
                }
                None => field,
            }
        };
        let schema = Schema::new(batch.schema_ref().fields().iter().enumerate().map(of_field).collect::<Vec<Field>>());
        self.put(&[MAGIC.as_slice(), &schema_message(&schema)].concat(), out);
        self.schema = Some(schema);
        for (id, (_, values)) in (0..).zip(self.dictionaries.clone()) {
            let len = values.len();
            let values = batch_of([(Field::new("values", values.data_type().clone(), false), values)], len);
            let place = self.put_message(&batch_message(&values, self.codec, Some(id)), out).0;
            self.dictionary_places.push(place);
        }
    }

    /// Adds a batch, of the same schema as those before, to `out`, which has some of the bytes before it, or none.
    pub(super) fn push(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) {
        if self.schema.is_none() {
            self.begin(batch, out);
        }
        let (start, offset) = (out.len(), self.len);
        let (place, len) = self.put_message(&batch_message(batch, self.codec, None), out);
        let checksum = checksum(&out[start..]);
        self.places.push(place);
        let len = u32::try_from(len).expect("blocks are small");
        self.blocks.push(Block { rows: batch.num_rows() as u32, offset, len, checksum });
    }

    /// Adds the end to `out`, and tells where each batch lies. After one batch at least.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) -> Vec<Block> {
        let mut tail = END.to_vec();
        let mut builder = FlatBufferBuilder::new();
        let dictionaries = builder.create_vector(&self.dictionary_places);
        let places = builder.create_vector(&self.places);
        let schema = encode_schema(&mut builder, self.schema.as_ref().expect("at least one batch"));
        let args = FooterArgs {
            version: MetadataVersion::V5,
            schema: Some(schema),
            dictionaries: Some(dictionaries),
            recordBatches: Some(places),
            ..FooterArgs::default()
        };
        let footer = Footer::create(&mut builder, &args);
        builder.finish(footer, None);
        tail.extend_from_slice(builder.finished_data());
        tail.put_u32(builder.finished_data().len() as u32);
        tail.extend_from_slice(&MAGIC[..6]);
        self.put(&tail, out);
        self.blocks
    }
}

/// Reads blocks of files whose columns are known.
#[derive(Debug, Clone)]
pub(super) struct BlockReader {
    /// The message that tells the schema.
    head: Vec<u8>,
    /// Of the file.
    codec: Codec,
}

impl BlockReader {
    pub(super) fn new(schema: &Schema, codec: Codec) -> Self {
        Self { head: schema_message(schema), codec }
    }

    /// The rows of a block, from its bytes.
    ///
    /// # Errors
    /// `Corrupt` when the bytes are not those that were written, or not of this schema.
    pub(super) fn read(&self, block: &Block, bytes: &[u8]) -> Result<RecordBatch> {
        let found = checksum(bytes);
        if bytes.len() != block.len as usize || found != block.checksum {
            return Err(Error::corrupt(format!(
                "at byte {}: {} bytes with checksum {found:08x}; expected {} with {:08x}",
                block.offset,
                bytes.len(),
                block.len,
                block.checksum
            )));
        }
        self.decode(block, bytes)
    }

    /// The same of bytes that were checked.
    pub(super) fn decode(&self, block: &Block, bytes: &[u8]) -> Result<RecordBatch> {
        let plain = if self.codec.is_stream() { Some(decompress_stream(self.codec, bytes)) } else { None };
        let plain = plain.transpose().map_err(|error| error.context(format!("at byte {}", block.offset)))?;
        self.decode_stream(block, plain.as_deref().unwrap_or(bytes))
            .map_err(|error| error.context(format!("at byte {}", block.offset)))
    }

    fn decode_stream(&self, block: &Block, bytes: &[u8]) -> Result<RecordBatch> {
        let framed = split_message(bytes)?;
        let compression = framed.message.header_as_record_batch().and_then(|batch| batch.compression());
        let mut stream = self.head.clone();
        match compression.map(|compression| compression.codec()) {
            None => stream.extend_from_slice(&bytes[..framed.len]),
            Some(codec) => {
                let codec = if codec == CompressionType::LZ4_FRAME { Codec::Lz4 } else { Codec::Zstd };
                stream.extend(decompressed(&framed, codec)?);
            }
        }
        stream.extend_from_slice(&END);
        let batch = read_stream(&stream)?;
        if batch.num_rows() != block.rows as usize {
            return Err(Error::corrupt(format!("{} rows; expected {}", batch.num_rows(), block.rows)));
        }
        Ok(batch)
    }
}

/// The one record batch of an Arrow IPC stream.
///
/// # Errors
/// `Corrupt` when it is no such stream.
pub fn read_stream(bytes: &[u8]) -> Result<RecordBatch> {
    // A change set from a hostile peer has a checksum of its own making: the reader checks it before it decodes.
    let mut reader = IpcReader::new(Bytes::copy_from_slice(bytes))?;
    match (reader.next(), reader.next()) {
        (Some(batch), None) => batch,
        (first, _) => Err(Error::corrupt(format!(
            "an Arrow stream of {} record batches; expected 1",
            if first.is_none() { "0" } else { "several" }
        ))),
    }
}
