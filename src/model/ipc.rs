use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::RecordBatchDecoder;
use arrow_ipc::{
    DateUnit, Field, Footer, Message, MessageHeader, Precision, RecordBatch, Schema, Type, root_as_footer,
    root_as_message,
};

use crate::base::{Error, ErrorKind, Result};

const MAGIC: &[u8; 6] = b"ARROW1";
/// Longest metadata of one message: a few bytes a column.
const METADATA_LEN_MAX: u64 = 16 << 20;
/// Compressed data may claim to grow this much at most; LZ4 reaches 255, zstd more only on constant data.
const COMPRESSION_RATIO_MAX: u64 = 4096;

/// Checks the framing of an Arrow IPC file or stream, told apart by their first bytes, before it is decoded: the decoder
/// asserts that the lengths written in the bytes are true, and would end the process where they are not. Tells the number
/// of rows. Reads metadata only, and never allocates by a length that lies outside of the bytes.
///
/// # Errors
/// `Corrupt` that names the byte where a length leads out of the bytes, or a message out of its body; `Io` from `reader`.
pub fn check_ipc(reader: &mut (impl Read + Seek)) -> Result<u64> {
    let len = reader.seek(SeekFrom::End(0)).map_err(|error| io(&error))?;
    let mut bytes = Bytes { reader, len };
    let is_file = len >= MAGIC.len() as u64 && bytes.read(0, MAGIC.len() as u64)? == MAGIC;
    if is_file { check_file(&mut bytes) } else { check_stream(&mut bytes) }
}

fn io(error: &std::io::Error) -> Error {
    Error::new(ErrorKind::Io, error.to_string())
}

/// The schema and the record batches of an Arrow IPC file or stream, decoded one at a time.
///
/// arrow-ipc's own readers also put pieces of dictionaries together, for which they bring the concatenation of every Arrow type:
/// a tenth of what a browser downloads. Here a dictionary comes whole, or is refused.
#[derive(Debug)]
pub struct IpcReader {
    bytes: bytes::Bytes,
    schema: arrow_schema::SchemaRef,
    batches: std::vec::IntoIter<Framed>,
    dictionaries: HashMap<i64, ArrayRef>,
}

impl IpcReader {
    /// Checks `bytes` as [`check_ipc`] does, and decodes the schema and the dictionaries.
    ///
    /// # Errors
    /// As [`check_ipc`], and `Corrupt` or `Unsupported` for what cannot be decoded.
    pub fn new(bytes: bytes::Bytes) -> Result<Self> {
        check_ipc(&mut Cursor::new(&bytes))?;
        let mut source = Bytes { len: bytes.len() as u64, reader: &mut Cursor::new(&bytes) };
        let mut messages = Vec::new();
        let schema;
        if bytes.starts_with(MAGIC) {
            let end = bytes.len() - 10;
            let footer_len = u32::from_le_bytes([bytes[end], bytes[end + 1], bytes[end + 2], bytes[end + 3]]) as usize;
            let footer = root_as_footer(&bytes[end - footer_len..end]).map_err(|error| wrong(end as u64, error))?;
            schema = footer.schema().map(try_fb_to_schema);
            let blocks =
                footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten());
            for block in blocks {
                messages.extend(read_message(&mut source, block.offset().unsigned_abs())?);
            }
        } else {
            let first = read_message(&mut source, 0)?.ok_or_else(|| wrong(0, "no Arrow file and no Arrow stream"))?;
            let message = root_as_message(&first.metadata).map_err(|error| wrong(0, error))?;
            schema = message.header_as_schema().map(try_fb_to_schema);
            let mut offset = first.body_offset + first.body_len;
            while offset < source.len {
                let Some(message) = read_message(&mut source, offset)? else { break };
                offset = message.body_offset + message.body_len;
                messages.push(message);
            }
        }
        let schema = schema.ok_or_else(|| wrong(0, "no schema"))?.map_err(|error| wrong(0, error))?;
        let (dictionaries, batches): (Vec<Framed>, Vec<Framed>) = messages.into_iter().partition(|framed| {
            root_as_message(&framed.metadata).is_ok_and(|message| message.header_as_dictionary_batch().is_some())
        });
        let mut reader =
            Self { bytes, schema: Arc::new(schema), batches: batches.into_iter(), dictionaries: HashMap::new() };
        for framed in dictionaries {
            reader.add_dictionary(&framed)?;
        }
        Ok(reader)
    }

    /// The schema.
    pub fn schema(&self) -> &arrow_schema::SchemaRef {
        &self.schema
    }

    /// How many record batches are left.
    pub fn batches_left(&self) -> usize {
        self.batches.len()
    }

    fn add_dictionary(&mut self, framed: &Framed) -> Result<()> {
        let at = framed.metadata_offset;
        let message = root_as_message(&framed.metadata).map_err(|error| wrong(at, error))?;
        let missing = || wrong(at, "a message without its header");
        let dictionary = message.header_as_dictionary_batch().ok_or_else(missing)?;
        #[expect(deprecated, reason = "what replaces it is in the bytes only, where it was checked")]
        let values =
            self.schema.fields_with_dict_id(dictionary.id()).first().and_then(|field| match field.data_type() {
                arrow_schema::DataType::Dictionary(_, values) => Some((**values).clone()),
                _ => None,
            });
        let Some(values) = values.filter(|_| !dictionary.isDelta()) else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("at byte {at}: a dictionary in pieces; write it as one, or the column plainly"),
            ));
        };
        let schema = arrow_schema::Schema::new(vec![arrow_schema::Field::new("values", values, true)]);
        let batch = self.decode(framed, dictionary.data().ok_or_else(missing)?, Arc::new(schema), message.version())?;
        self.dictionaries.insert(dictionary.id(), batch.column(0).clone());
        Ok(())
    }

    fn decode(
        &self,
        framed: &Framed,
        batch: RecordBatch<'_>,
        schema: arrow_schema::SchemaRef,
        version: arrow_ipc::MetadataVersion,
    ) -> Result<arrow_array::RecordBatch> {
        let start = framed.body_offset as usize;
        let body = Buffer::from(self.bytes.slice(start..start + framed.body_len as usize));
        RecordBatchDecoder::try_new(&body, batch, schema, &self.dictionaries, &version)
            .and_then(RecordBatchDecoder::read_record_batch)
            .map_err(|error| wrong(framed.metadata_offset, error))
    }
}

impl Iterator for IpcReader {
    type Item = Result<arrow_array::RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let framed = self.batches.next()?;
        let at = framed.metadata_offset;
        Some(root_as_message(&framed.metadata).map_err(|error| wrong(at, error)).and_then(|message| {
            let batch = message.header_as_record_batch().ok_or_else(|| wrong(at, "a message without its header"))?;
            self.decode(&framed, batch, self.schema.clone(), message.version())
        }))
    }
}

struct Bytes<'a, R> {
    reader: &'a mut R,
    len: u64,
}

impl<R: Read + Seek> Bytes<'_, R> {
    fn read(&mut self, offset: u64, len: u64) -> Result<Vec<u8>> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(wrong(offset, format!("{len} bytes expected, there are {} in all", self.len)));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| wrong(offset, "too long for this machine"))?];
        self.reader.seek(SeekFrom::Start(offset)).map_err(|error| io(&error))?;
        self.reader.read_exact(&mut bytes).map_err(|error| io(&error))?;
        Ok(bytes)
    }
}

fn wrong(offset: u64, message: impl std::fmt::Display) -> Error {
    Error::corrupt(format!("at byte {offset}: {message}"))
}

fn check_file(bytes: &mut Bytes<'_, impl Read + Seek>) -> Result<u64> {
    let trailer_offset = bytes.len.checked_sub(10).filter(|&offset| offset >= 8);
    let Some(trailer_offset) = trailer_offset else {
        return Err(wrong(bytes.len, "the file ends inside its magic"));
    };
    let trailer = bytes.read(trailer_offset, 10)?;
    if &trailer[4..] != MAGIC {
        return Err(wrong(trailer_offset + 4, "the file does not end as an Arrow file does: it was cut"));
    }
    let footer_len = u64::from(u32::from_le_bytes([trailer[0], trailer[1], trailer[2], trailer[3]]));
    if footer_len > METADATA_LEN_MAX.min(trailer_offset - 8) {
        return Err(wrong(trailer_offset, format!("a footer of {footer_len} bytes")));
    }
    let text = bytes.read(trailer_offset - footer_len, footer_len)?;
    let footer: Footer<'_> = root_as_footer(&text).map_err(|error| wrong(trailer_offset - footer_len, error))?;
    let schema = footer.schema().ok_or_else(|| wrong(trailer_offset - footer_len, "the footer has no schema"))?;
    let layout = Layout::of_schema(&schema)?;
    let mut rows = 0;
    let blocks = footer.dictionaries().into_iter().flatten().chain(footer.recordBatches().into_iter().flatten());
    for block in blocks.copied().collect::<Vec<_>>() {
        let place = (|| {
            let offset = u64::try_from(block.offset()).ok()?;
            let metadata_len = u64::try_from(block.metaDataLength()).ok()?;
            let body_len = u64::try_from(block.bodyLength()).ok()?;
            let end = offset.checked_add(metadata_len)?.checked_add(body_len)?;
            (end <= trailer_offset && metadata_len >= 8).then_some((offset, metadata_len, body_len))
        })();
        let Some((offset, metadata_len, body_len)) = place else {
            return Err(wrong(trailer_offset - footer_len, "a block that lies outside of the file"));
        };
        let message = read_message(bytes, offset)?.ok_or_else(|| wrong(offset, "a block that holds no message"))?;
        if message.body_offset != offset + metadata_len || message.body_len != body_len {
            return Err(wrong(offset, "a block that is not as long as its message"));
        }
        rows += check_message(bytes, &message, &layout)?;
    }
    Ok(rows)
}

fn check_stream(bytes: &mut Bytes<'_, impl Read + Seek>) -> Result<u64> {
    let Some(first) = read_message(bytes, 0)? else {
        return Err(wrong(0, "no Arrow file and no Arrow stream"));
    };
    let schema = root_as_message(&first.metadata).ok().and_then(|message| message.header_as_schema());
    let layout = Layout::of_schema(&schema.ok_or_else(|| wrong(0, "an Arrow stream begins with its schema"))?)?;
    let (mut offset, mut rows) = (first.body_offset + first.body_len, 0);
    while offset < bytes.len {
        let Some(message) = read_message(bytes, offset)? else { break };
        rows += check_message(bytes, &message, &layout)?;
        // The decoder reads on from here, so an empty message must not hold it.
        offset = message.body_offset + message.body_len;
    }
    Ok(rows)
}

#[derive(Debug)]
struct Framed {
    metadata: Vec<u8>,
    metadata_offset: u64,
    body_offset: u64,
    body_len: u64,
}

fn read_word(bytes: &mut Bytes<'_, impl Read + Seek>, offset: u64) -> Result<u32> {
    let word = bytes.read(offset, 4)?;
    Ok(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

/// The message at `offset`, or `None` where the stream says that it ends.
fn read_message(bytes: &mut Bytes<'_, impl Read + Seek>, offset: u64) -> Result<Option<Framed>> {
    // Before version 0.15 a message began with its length; since then with a marker and its length.
    let (metadata_offset, metadata_len) = match read_word(bytes, offset)? {
        u32::MAX => (offset + 8, read_word(bytes, offset + 4)?),
        len => (offset + 4, len),
    };
    let metadata_len = u64::from(metadata_len);
    if metadata_len == 0 {
        return Ok(None);
    }
    if metadata_len > METADATA_LEN_MAX {
        return Err(wrong(
            offset,
            format!("a message of {metadata_len} bytes of metadata: no Arrow file and no Arrow stream"),
        ));
    }
    let metadata = bytes.read(metadata_offset, metadata_len)?;
    let message = root_as_message(&metadata).map_err(|error| wrong(metadata_offset, error))?;
    let body_offset = metadata_offset + metadata_len;
    let body_len = u64::try_from(message.bodyLength()).unwrap_or(u64::MAX);
    if body_offset.checked_add(body_len).is_none_or(|end| end > bytes.len) {
        return Err(wrong(metadata_offset, format!("a body of {body_len} bytes, which the file does not have")));
    }
    Ok(Some(Framed { metadata, metadata_offset, body_offset, body_len }))
}

/// The buffers that a record batch must have: by which lengths its columns are counted.
#[derive(Default)]
struct Layout {
    columns: Shape,
    /// By dictionary id.
    dictionaries: BTreeMap<i64, Shape>,
}

const VARIADIC: u64 = 0;

/// The nodes and buffers of some columns, depth first.
#[derive(Default)]
struct Shape {
    nodes: usize,
    /// The unit of each buffer's length, in bytes; [`VARIADIC`] stands for as many buffers as the batch says.
    units: Vec<u64>,
}

impl Layout {
    fn of_schema(schema: &Schema<'_>) -> Result<Self> {
        let mut layout = Self::default();
        let mut columns = Shape::default();
        for field in schema.fields().iter().flatten() {
            layout.add(&field, &mut columns)?;
        }
        layout.columns = columns;
        Ok(layout)
    }

    /// Adds `field` to `shape`; a column of dictionary keys, and its values to the dictionaries.
    fn add(&mut self, field: &Field<'_>, shape: &mut Shape) -> Result<()> {
        let Some(dictionary) = field.dictionary() else { return self.add_values(field, shape) };
        shape.nodes += 1;
        shape.units.extend([1, int_len(dictionary.indexType().map_or(32, |index| index.bitWidth()))?]);
        let mut values = Shape::default();
        self.add_values(field, &mut values)?;
        self.dictionaries.insert(dictionary.id(), values);
        Ok(())
    }

    fn add_values(&mut self, field: &Field<'_>, shape: &mut Shape) -> Result<()> {
        let unit = match field.type_type() {
            Type::Null => None,
            Type::Int => Some(int_len(field.type_as_int().map_or(0, |int| int.bitWidth()))?),
            Type::FloatingPoint => match field.type_as_floating_point().map(|float| float.precision()) {
                Some(Precision::HALF) => Some(2),
                Some(Precision::SINGLE) => Some(4),
                Some(Precision::DOUBLE) => Some(8),
                _ => return Err(unsupported(field)),
            },
            Type::Decimal => match field.type_as_decimal().map(|decimal| decimal.bitWidth()) {
                Some(bits @ (32 | 64 | 128 | 256)) => Some(u64::from(bits.unsigned_abs()) / 8),
                _ => return Err(unsupported(field)),
            },
            Type::Date => {
                Some(if field.type_as_date().is_some_and(|date| date.unit() == DateUnit::DAY) { 4 } else { 8 })
            }
            Type::Time => Some(int_len(field.type_as_time().map_or(0, |time| time.bitWidth()))?),
            Type::Timestamp | Type::Duration => Some(8),
            Type::Bool => Some(1),
            Type::Utf8 | Type::Binary | Type::List | Type::Map => Some(4),
            Type::LargeUtf8 | Type::LargeBinary | Type::LargeList => Some(8),
            Type::Utf8View | Type::BinaryView => Some(16),
            Type::Struct_ | Type::FixedSizeList => None,
            _ => return Err(unsupported(field)),
        };
        shape.nodes += 1;
        if field.type_type() != Type::Null {
            shape.units.push(1);
        }
        shape.units.extend(unit);
        match field.type_type() {
            Type::Utf8 | Type::Binary | Type::LargeUtf8 | Type::LargeBinary => shape.units.push(1),
            Type::Utf8View | Type::BinaryView => shape.units.push(VARIADIC),
            _ => {}
        }
        for child in field.children().iter().flatten() {
            self.add(&child, shape)?;
        }
        Ok(())
    }
}

fn int_len(bits: i32) -> Result<u64> {
    match bits {
        8 | 16 | 32 | 64 => Ok(u64::from(bits.unsigned_abs()) / 8),
        _ => Err(Error::corrupt(format!("a column of integers of {bits} bits"))),
    }
}

fn unsupported(field: &Field<'_>) -> Error {
    let type_name = field.type_type().variant_name().unwrap_or("an unknown type");
    Error::new(ErrorKind::Unsupported, format!("column {:?} is of type {type_name}", field.name().unwrap_or("")))
}

/// Checks that everything that a message points at lies in its body, and tells its rows.
fn check_message(bytes: &mut Bytes<'_, impl Read + Seek>, framed: &Framed, layout: &Layout) -> Result<u64> {
    let message: Message<'_> =
        root_as_message(&framed.metadata).map_err(|error| wrong(framed.metadata_offset, error))?;
    let missing = || wrong(framed.metadata_offset, "a message without its header");
    match message.header_type() {
        MessageHeader::RecordBatch => {
            check_batch(bytes, framed, &message.header_as_record_batch().ok_or_else(missing)?, &layout.columns)
        }
        MessageHeader::DictionaryBatch => {
            let dictionary = message.header_as_dictionary_batch().ok_or_else(missing)?;
            let batch = dictionary.data().ok_or_else(missing)?;
            let shape = layout.dictionaries.get(&dictionary.id()).ok_or_else(|| {
                wrong(framed.metadata_offset, format!("dictionary {}, of which no column is", dictionary.id()))
            })?;
            check_batch(bytes, framed, &batch, shape).map(|_| 0)
        }
        other => Err(wrong(framed.metadata_offset, format!("a message of kind {other:?}"))),
    }
}

/// The unit of each buffer of `batch`; `None` when there are not as many as it says itself.
fn expand(shape: &Shape, batch: &RecordBatch<'_>, buffers: usize) -> Option<Vec<u64>> {
    let mut counts = batch.variadicBufferCounts().into_iter().flatten();
    let mut units = Vec::new();
    for &unit in &shape.units {
        let count = if unit == VARIADIC { usize::try_from(counts.next()?).ok()? } else { 1 };
        if count > buffers {
            return None;
        }
        units.extend(std::iter::repeat_n(unit.max(1), count));
    }
    counts.next().is_none().then_some(units)
}

fn check_batch(
    bytes: &mut Bytes<'_, impl Read + Seek>,
    framed: &Framed,
    batch: &RecordBatch<'_>,
    shape: &Shape,
) -> Result<u64> {
    let at = framed.metadata_offset;
    let rows = u64::try_from(batch.length()).map_err(|_| wrong(at, "a batch of less than no rows"))?;
    let nodes = batch.nodes().map_or(0, |nodes| nodes.len());
    let buffers = batch.buffers().map_or(0, |buffers| buffers.len());
    let units = expand(shape, batch, buffers);
    let Some(units) = units.filter(|units| nodes == shape.nodes && units.len() == buffers) else {
        return Err(wrong(at, format!("{nodes} columns in {buffers} buffers, which is not what the schema calls for")));
    };
    for node in batch.nodes().iter().flatten() {
        if node.length() < 0 || !(0..=node.length()).contains(&node.null_count()) {
            return Err(wrong(at, format!("a column of {} rows, {} of them null", node.length(), node.null_count())));
        }
    }
    for (index, buffer) in batch.buffers().iter().flatten().enumerate() {
        let place = (|| {
            let (offset, len) = (u64::try_from(buffer.offset()).ok()?, u64::try_from(buffer.length()).ok()?);
            // The format promises 8-byte alignment, and the decoder asserts it.
            (offset.checked_add(len)? <= framed.body_len && offset.is_multiple_of(8)).then_some((offset, len))
        })();
        let Some((offset, len)) = place else {
            return Err(wrong(
                at,
                format!(
                    "a buffer of {} bytes at {} in a body of {}",
                    buffer.length(),
                    buffer.offset(),
                    framed.body_len
                ),
            ));
        };
        let mut len_decoded = len;
        if batch.compression().is_some() && len > 0 {
            // A compressed buffer begins with its length when decompressed, or -1 for bytes that are as they are.
            let claimed = bytes.read(framed.body_offset + offset, 8.min(len))?;
            let claimed = <[u8; 8]>::try_from(claimed.as_slice())
                .map(i64::from_le_bytes)
                .map_err(|_| wrong(at, "a compressed buffer without its length"))?;
            if claimed < -1 || claimed.unsigned_abs() > len.saturating_mul(COMPRESSION_RATIO_MAX) {
                return Err(wrong(
                    framed.body_offset + offset,
                    format!("{len} compressed bytes that claim to hold {claimed}"),
                ));
            }
            len_decoded = if claimed < 0 { len - 8 } else { claimed.unsigned_abs() };
        }
        let unit = units[index];
        if !len_decoded.is_multiple_of(unit) {
            return Err(wrong(at, format!("a buffer of {len_decoded} bytes for values of {unit}")));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::sync::Arc;

    use arrow_array::types::{Float32Type, Int32Type};
    use arrow_array::{
        ArrayRef, BooleanArray, DictionaryArray, FixedSizeListArray, Int64Array, ListArray, RecordBatch, StringArray,
        StringViewArray,
    };

    use arrow_ipc::writer::{FileWriter, StreamWriter};
    use proptest::prelude::*;

    use super::*;

    fn batch() -> RecordBatch {
        let columns: [(&str, ArrayRef); 7] = [
            ("id", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            ("name", Arc::new(StringArray::from(vec!["a", "bb", ""]))),
            ("kind", Arc::new(["x", "y", "x"].into_iter().collect::<DictionaryArray<Int32Type>>())),
            ("on", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
            ("view", Arc::new(StringViewArray::from(vec![Some("longer than twelve bytes"), None, Some("short")]))),
            (
                "vector",
                Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
                    (0..3).map(|row| Some([Some(row as f32), Some(0.5)])),
                    2,
                )),
            ),
            (
                "list",
                Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>(
                    (0..3).map(|row| (row != 1).then(|| vec![Some(row as f32); row])),
                )),
            ),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
    }

    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FileWriter::try_new(&mut bytes, &batch().schema()).unwrap();
        writer.write(&batch()).unwrap();
        writer.finish().unwrap();
        drop(writer);
        bytes
    }

    fn stream() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &batch().schema()).unwrap();
        writer.write(&batch()).unwrap();
        writer.write(&batch()).unwrap();
        writer.finish().unwrap();
        drop(writer);
        bytes
    }

    /// What passes the check is decoded without a panic; wrong values are the decoder's errors.
    fn check_then_decode(bytes: &[u8]) {
        if let Ok(reader) = IpcReader::new(bytes::Bytes::copy_from_slice(bytes)) {
            reader.for_each(drop);
        }
    }

    /// What is read is what was written, dictionaries too.
    #[test]
    fn files_and_streams_are_read_as_they_were_written() {
        let read = |bytes: Vec<u8>| -> Vec<arrow_array::RecordBatch> {
            IpcReader::new(bytes.into()).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(read(file()), [batch()]);
        assert_eq!(read(stream()), [batch(), batch()]);
        assert_eq!(IpcReader::new(file().into()).unwrap().batches_left(), 1);
    }

    #[test]
    fn whole_files_and_streams_pass_with_their_rows() {
        assert_eq!(check_ipc(&mut Cursor::new(file())).unwrap(), 3);
        assert_eq!(check_ipc(&mut Cursor::new(stream())).unwrap(), 6);
    }

    #[test]
    fn every_cut_is_an_error_or_an_end() {
        let file = file();
        for len in 0..file.len() {
            assert!(check_ipc(&mut Cursor::new(&file[..len])).is_err(), "cut to {len} of {}", file.len());
        }
        let stream = stream();
        for len in 0..stream.len() {
            check_then_decode(&stream[..len]);
        }
        for text in ["", "id,name\n1,a\n", "PAR1", "{\"id\": 1}\n"] {
            assert!(check_ipc(&mut Cursor::new(text.as_bytes())).is_err(), "{text:?}");
        }
    }

    #[test]
    fn every_flipped_byte_is_an_error_or_a_value() {
        for bytes in [file(), stream()] {
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at] ^ 0x10] {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    check_then_decode(&bytes);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn damage_anywhere_never_panics(
            which in any::<bool>(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = if which { file() } else { stream() };
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            check_then_decode(&bytes);
        }
    }
}
