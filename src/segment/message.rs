use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_buffer::{Buffer as ArrowBuffer, ToByteSlice};
use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::DictionaryTracker;
use arrow_ipc::{
    BodyCompression, BodyCompressionArgs, BodyCompressionMethod, Buffer, CompressionType, DictionaryBatch,
    DictionaryBatchArgs, FieldNode, Message, MessageArgs, MessageHeader, MetadataVersion, RecordBatchArgs,
};
use arrow_schema::{DataType, Schema};
use flatbuffers::{FlatBufferBuilder, UnionWIPOffset, WIPOffset};

use super::arrow::compress_buffer;
use crate::base::codec::Write;
use crate::base::compress::Codec;
use crate::model::column::number_bytes;
use crate::model::{Batch, BatchColumn, VectorColumn};

// arrow-ipc's writer serves dictionaries and every other type there is, and compares arrays to do so: 30 kB of what a browser
// downloads. Columns of collections are bits, numbers, text, and lists of these.

/// A schema, whose dictionaries are numbered in its order.
pub(super) fn encode_schema<'a>(
    builder: &mut FlatBufferBuilder<'a>,
    schema: &Schema,
) -> WIPOffset<arrow_ipc::Schema<'a>> {
    let mut tracker = DictionaryTracker::new(false);
    IpcSchemaEncoder::new().with_dictionary_tracker(&mut tracker).schema_to_fb_offset(builder, schema)
}

/// The message that tells a schema.
pub(super) fn schema_message(schema: &Schema) -> Vec<u8> {
    let (mut builder, mut out) = (FlatBufferBuilder::new(), Vec::new());
    let schema = encode_schema(&mut builder, schema);
    finish(builder, MessageHeader::Schema, schema.as_union_value(), &[], &mut out);
    out
}

/// The message of a record batch, its buffers compressed with `codec`; with `dictionary`, that of a dictionary of that number, whose
/// values are the only column. Panics on a column of a type that collections do not have.
pub(super) fn batch_message(batch: &RecordBatch, codec: Codec, dictionary: Option<i64>) -> Vec<u8> {
    // What compresses whole files compresses no buffer.
    let codec = if codec.is_stream() { Codec::None } else { codec };
    let mut body = Body::new(codec);
    for column in batch.columns() {
        body.push(column);
    }
    let mut out = Vec::new();
    record_batch_message(batch.num_rows(), &body.nodes, &body.places, codec, &body.parts, dictionary, &mut out);
    out
}

/// Rows as an Arrow IPC stream of [`Batch::to_arrow`], without the mark of its end: whoever keeps it knows its length. Each byte of the
/// vectors is copied once.
pub fn write_rows(batch: &Batch) -> Vec<u8> {
    RowsWriter::new(batch).write(Vec::new(), 0, batch)
}

/// Writes rows of one schema: what tells it is a third of the work that a single row makes, and made once.
#[derive(Debug)]
pub struct RowsWriter {
    of: Arc<crate::model::Schema>,
    schema: Vec<u8>,
}

impl RowsWriter {
    /// For rows like these.
    pub fn new(batch: &Batch) -> Self {
        Self { of: batch.schema().clone(), schema: schema_message(&batch.arrow_schema()) }
    }

    /// Whether it is for these.
    pub fn fits(&self, batch: &Batch) -> bool {
        Arc::ptr_eq(&self.of, batch.schema())
    }

    /// What [`write_rows`] makes of them, behind `room` zeros, in place of what `out` holds.
    pub fn write(&self, out: Vec<u8>, room: usize, batch: &Batch) -> Vec<u8> {
        debug_assert!(*self.of == **batch.schema(), "rows of another schema");
        write_rows_behind(out, room, &self.schema, batch)
    }
}

fn write_rows_behind(mut out: Vec<u8>, room: usize, schema: &[u8], batch: &Batch) -> Vec<u8> {
    let mut body = Body::new(Codec::None);
    for column in batch.columns() {
        match column {
            BatchColumn::Scalars(_, array) => body.push(array),
            BatchColumn::Vectors(column) => body.push_vectors(column, batch.len()),
        }
    }
    out.clear();
    // All at once: memory that grows is copied, with what is not written yet.
    out.reserve(room + schema.len() + body.len + 1_024 + 64 * body.parts.len());
    out.resize(room, 0);
    out.put_bytes(schema);
    record_batch_message(batch.len(), &body.nodes, &body.places, Codec::None, &body.parts, None, &mut out);
    out
}

/// Adds the message of a record batch whose buffers are compressed with `codec` already.
pub(super) fn record_batch_message(
    rows: usize,
    nodes: &[FieldNode],
    places: &[Buffer],
    codec: Codec,
    parts: &[Part<'_>],
    dictionary: Option<i64>,
    out: &mut Vec<u8>,
) {
    // One that begins without any doubles until it fits, and copies each time: for a single row that took as long as all else.
    let mut builder = FlatBufferBuilder::with_capacity(512 + size_of_val(nodes) + size_of_val(places));
    let (nodes, buffers) = (builder.create_vector(nodes), builder.create_vector(places));
    let codec = match codec {
        Codec::None | Codec::Gzip | Codec::Snappy => None,
        Codec::Lz4 => Some(CompressionType::LZ4_FRAME),
        Codec::Zstd => Some(CompressionType::ZSTD),
    };
    let compression = codec.map(|codec| {
        BodyCompression::create(&mut builder, &BodyCompressionArgs { codec, method: BodyCompressionMethod::BUFFER })
    });
    let args = RecordBatchArgs {
        length: rows as i64,
        nodes: Some(nodes),
        buffers: Some(buffers),
        compression,
        variadicBufferCounts: None,
    };
    let batch = arrow_ipc::RecordBatch::create(&mut builder, &args);
    let Some(id) = dictionary else {
        return finish(builder, MessageHeader::RecordBatch, batch.as_union_value(), parts, out);
    };
    let args = DictionaryBatchArgs { id, data: Some(batch), isDelta: false };
    let dictionary = DictionaryBatch::create(&mut builder, &args);
    finish(builder, MessageHeader::DictionaryBatch, dictionary.as_union_value(), parts, out);
}

fn finish(
    mut builder: FlatBufferBuilder<'_>,
    header_type: MessageHeader,
    header: WIPOffset<UnionWIPOffset>,
    parts: &[Part<'_>],
    out: &mut Vec<u8>,
) {
    let body: usize = parts.iter().map(|part| part.bytes().len().next_multiple_of(8)).sum();
    let args = MessageArgs {
        version: MetadataVersion::V5,
        header_type,
        header: Some(header),
        bodyLength: body as i64,
        custom_metadata: None,
    };
    let message = Message::create(&mut builder, &args);
    builder.finish(message, None);
    let metadata = builder.finished_data();
    let padded = metadata.len().next_multiple_of(8);
    out.reserve(8 + padded + body);
    out.put_u32(u32::MAX);
    out.put_u32(padded as u32);
    let mut put = |bytes: &[u8]| {
        out.put_bytes(bytes);
        out.resize(out.len() + bytes.len().next_multiple_of(8) - bytes.len(), 0);
    };
    put(metadata);
    parts.iter().for_each(|part| put(part.bytes()));
}

/// A buffer of a message; it is followed by zeros up to a multiple of eight bytes.
pub(super) enum Part<'a> {
    Shared(ArrowBuffer),
    Bytes(&'a [u8]),
}

impl Part<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(buffer) => buffer.as_slice(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The buffers of columns, depth first.
struct Body<'a> {
    codec: Codec,
    nodes: Vec<FieldNode>,
    places: Vec<Buffer>,
    parts: Vec<Part<'a>>,
    len: usize,
}

impl<'a> Body<'a> {
    fn new(codec: Codec) -> Self {
        Self {
            codec,
            nodes: Vec::with_capacity(8),
            places: Vec::with_capacity(16),
            parts: Vec::with_capacity(16),
            len: 0,
        }
    }

    fn push(&mut self, array: &dyn Array) {
        self.nodes.push(FieldNode::new(array.len() as i64, array.null_count() as i64));
        match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            Some(nulls) => self.buffer(nulls.inner().sliced()),
            None => self.part(Part::Bytes(&[])),
        }
        match array.data_type() {
            DataType::Boolean => self.buffer(array.as_boolean().values().sliced()),
            DataType::Utf8 => {
                let text = array.as_string::<i32>();
                let (first, last) = self.offsets(text.value_offsets());
                self.buffer(text.values().slice_with_length(first, last - first));
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let (first, last) = self.offsets(list.value_offsets());
                self.push(&list.values().slice(first, last - first));
            }
            DataType::FixedSizeList(..) => self.push(array.as_fixed_size_list().values()),
            other => self.buffer(number_bytes(array).unwrap_or_else(|| panic!("no column of a collection is {other}"))),
        }
    }

    /// What [`Body::push`] makes of them as an array of lists.
    fn push_vectors(&mut self, column: &'a VectorColumn, rows: usize) {
        for len in [rows, column.data.len()] {
            self.nodes.push(FieldNode::new(len as i64, 0));
            self.part(Part::Bytes(&[]));
        }
        self.part(Part::Bytes(column.data.to_byte_slice()));
    }

    /// Offsets that begin at 0; where the values begin and end.
    fn offsets(&mut self, offsets: &[i32]) -> (usize, usize) {
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        let bytes: Vec<u8> = offsets.iter().flat_map(|offset| (offset - first).to_le_bytes()).collect();
        self.buffer(bytes.into());
        (first as usize, last as usize)
    }

    fn buffer(&mut self, bytes: ArrowBuffer) {
        let packed = self.codec != Codec::None && !bytes.is_empty();
        self.part(Part::Shared(if packed { compress_buffer(self.codec, &bytes).into() } else { bytes }));
    }

    fn part(&mut self, part: Part<'a>) {
        let len = part.bytes().len();
        self.places.push(Buffer::new(self.len as i64, len as i64));
        self.len += len.next_multiple_of(8);
        self.parts.push(part);
    }
}
