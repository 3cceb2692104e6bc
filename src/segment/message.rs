use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
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
    let mut builder = FlatBufferBuilder::new();
    let schema = encode_schema(&mut builder, schema);
    finish(builder, MessageHeader::Schema, schema.as_union_value(), &[])
}

/// The message of a record batch, its buffers compressed with `codec`; with `dictionary`, that of a dictionary of that number, whose
/// values are the only column. Panics on a column of a type that collections do not have.
pub(super) fn batch_message(batch: &RecordBatch, codec: Codec, dictionary: Option<i64>) -> Vec<u8> {
    // What compresses whole files compresses no buffer.
    let codec = if codec.is_stream() { Codec::None } else { codec };
    let mut body = Body { codec, nodes: Vec::new(), places: Vec::new(), bytes: Vec::new() };
    for column in batch.columns() {
        body.push(column);
    }
    record_batch_message(batch.num_rows() as i64, &body.nodes, &body.places, codec, &body.bytes, dictionary)
}

/// The message of a record batch whose buffers are compressed with `codec` already.
pub(super) fn record_batch_message(
    rows: i64,
    nodes: &[FieldNode],
    places: &[Buffer],
    codec: Codec,
    body: &[u8],
    dictionary: Option<i64>,
) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
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
        length: rows,
        nodes: Some(nodes),
        buffers: Some(buffers),
        compression,
        variadicBufferCounts: None,
    };
    let batch = arrow_ipc::RecordBatch::create(&mut builder, &args);
    let Some(id) = dictionary else {
        return finish(builder, MessageHeader::RecordBatch, batch.as_union_value(), body);
    };
    let args = DictionaryBatchArgs { id, data: Some(batch), isDelta: false };
    let dictionary = DictionaryBatch::create(&mut builder, &args);
    finish(builder, MessageHeader::DictionaryBatch, dictionary.as_union_value(), body)
}

fn finish(
    mut builder: FlatBufferBuilder<'_>,
    header_type: MessageHeader,
    header: WIPOffset<UnionWIPOffset>,
    body: &[u8],
) -> Vec<u8> {
    let args = MessageArgs {
        version: MetadataVersion::V5,
        header_type,
        header: Some(header),
        bodyLength: body.len() as i64,
        custom_metadata: None,
    };
    let message = Message::create(&mut builder, &args);
    builder.finish(message, None);
    let metadata = builder.finished_data();
    let padded = metadata.len().next_multiple_of(8);
    let mut out = Vec::with_capacity(8 + padded + body.len());
    out.put_u32(u32::MAX);
    out.put_u32(padded as u32);
    out.put_bytes(metadata);
    out.resize(8 + padded, 0);
    out.put_bytes(body);
    out
}

/// The buffers of columns, depth first.
struct Body {
    codec: Codec,
    nodes: Vec<FieldNode>,
    places: Vec<Buffer>,
    bytes: Vec<u8>,
}

impl Body {
    fn push(&mut self, array: &dyn Array) {
        self.nodes.push(FieldNode::new(array.len() as i64, array.null_count() as i64));
        match array.nulls().filter(|nulls| nulls.null_count() > 0) {
            Some(nulls) => self.buffer(nulls.inner().sliced().as_slice()),
            None => self.buffer(&[]),
        }
        match array.data_type() {
            DataType::Boolean => self.buffer(array.as_boolean().values().sliced().as_slice()),
            DataType::Utf8 => {
                let text = array.as_string::<i32>();
                let (first, last) = self.offsets(text.value_offsets());
                self.buffer(&text.value_data()[first..last]);
            }
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                let (first, last) = self.offsets(list.value_offsets());
                self.push(&list.values().slice(first, last - first));
            }
            DataType::FixedSizeList(..) => self.push(array.as_fixed_size_list().values()),
            other => {
                let width = other.primitive_width().unwrap_or_else(|| panic!("no column of a collection is {other}"));
                let data = array.to_data();
                self.buffer(&data.buffers()[0].as_slice()[data.offset() * width..][..data.len() * width]);
            }
        }
    }

    /// Offsets that begin at 0; where the values begin and end.
    fn offsets(&mut self, offsets: &[i32]) -> (usize, usize) {
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        let bytes: Vec<u8> = offsets.iter().flat_map(|offset| (offset - first).to_le_bytes()).collect();
        self.buffer(&bytes);
        (first as usize, last as usize)
    }

    fn buffer(&mut self, bytes: &[u8]) {
        let start = self.bytes.len();
        if self.codec == Codec::None || bytes.is_empty() {
            self.bytes.extend_from_slice(bytes);
        } else {
            self.bytes.extend(compress_buffer(self.codec, bytes));
        }
        self.places.push(Buffer::new(start as i64, (self.bytes.len() - start) as i64));
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}
