use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int8Array, Int16Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use bytes::Bytes;
use hashbrown::HashMap;

use super::arrow::{FileWriter, batch_bytes, batch_of, column_bytes};
use super::files::{encode_tombstones, vector_batch};
use super::layout::{self, Encoding, Group};
use super::statistics::Statistics;
use super::{FileKind, KeyFilter, Segment, SegmentFile};
use crate::base::compress::Codec;
use crate::index::terms::Finish;
use crate::model::VectorColumn;

/// Bytes of a block before compression. A search reads a block for each of its last candidates, so blocks of vectors are small;
/// text and numbers need longer ones to compress well (a quarter of a MiB is within 3 % of a whole column).
const VECTOR_BLOCK_BYTES: usize = 64 << 10;
const COLUMN_BLOCK_BYTES: usize = 256 << 10;
/// What of an index of terms is made in one step: a millisecond or so.
const TERMS_STEP_BYTES: usize = 64 << 10;
/// Rows of a block at most, so that its statistics tell something.
const BLOCK_ROWS_MAX: usize = 8_192;
/// A text, JSON or array column of more bytes a row than this has a file of its own.
const NARROW_BYTES: usize = 64;
/// Rows of the first block of a column that is not in memory: nobody knows yet how long they are.
const GIVEN_ROWS: usize = 64;

/// What a dictionary has at most: so many values, and one for so many rows.
const DICTIONARY_VALUES_MAX: usize = 1_024;
const DICTIONARY_SHARE: usize = 8;

/// A file that is to be made.
#[derive(Debug)]
struct Part {
    kind: FileKind,
    /// Its columns; of deletes, none.
    columns: Vec<String>,
    codec: Codec,
    rows: usize,
    /// How many of them make a block.
    step: usize,
    /// Whether its only column is not in memory: blocks of it are handed over.
    is_left: bool,
}

/// The file that is being made.
#[derive(Debug)]
struct Open {
    part: Part,
    /// The next row.
    next: usize,
    file: FileWriter,
    names: Vec<String>,
    dictionaries: Vec<Option<Dictionary>>,
    statistics: Vec<Vec<Statistics>>,
}

/// Makes the files of a segment, a block at a time: compressing all of a large one takes seconds. The segment must stay as it is until
/// the end. Wide columns and vectors that it does not have in memory are handed over by the block, see [`Encoder::wants`].
#[derive(Debug)]
pub struct Encoder {
    parts: VecDeque<Part>,
    open: Option<Open>,
    groups: Vec<Group>,
    /// Which of the indexes, and which part of it, comes next.
    index: (usize, usize),
    /// Which of the indexes of terms comes next.
    terms: usize,
    /// The one that is being made.
    finish: Option<Finish>,
    /// Whether only those are written that are in no file.
    only_unsaved: bool,
    /// What is done of the file that is being made, and is not taken.
    bytes: Vec<u8>,
    codec: Codec,
    keys: Option<(u32, KeyFilter)>,
    has_layout: bool,
    /// The next block of a column that is not in memory.
    given: Option<RecordBatch>,
    /// Whether it stops once, after the layout: indexes of columns that are not in memory are made from what was written.
    pauses: bool,
}

/// The values of a column of text that has few, and the number of each.
#[derive(Debug)]
struct Dictionary {
    values: StringArray,
    numbers: HashMap<String, i16>,
}

impl Dictionary {
    /// Of that column, when with each value eight times and more they take an eighth of it at most, so that the layout stays small.
    fn new(segment: &Segment, column: &str) -> Option<Self> {
        let values_max = DICTIONARY_VALUES_MAX.min(segment.len() / DICTIONARY_SHARE);
        let mut numbers: HashMap<String, i16> = HashMap::new();
        let (mut values, mut bytes) = (Vec::new(), 0);
        for (_, chunk) in segment.chunks() {
            let array = chunk.column_by_name(column)?;
            bytes += column_bytes(array);
            for value in array.as_any().downcast_ref::<StringArray>()?.iter().flatten() {
                if !numbers.contains_key(value) {
                    if values.len() == values_max || value.len() > usize::from(u16::MAX) {
                        return None;
                    }
                    numbers.insert(value.to_owned(), values.len() as i16);
                    values.push(value);
                }
            }
        }
        let share = values.iter().map(|value| value.len()).sum::<usize>() * DICTIONARY_SHARE;
        (!values.is_empty() && share <= bytes).then(|| Self { values: StringArray::from_iter_values(values), numbers })
    }

    fn encode(&self, field: &Field, column: &ArrayRef) -> (Field, ArrayRef) {
        let text = column.as_string::<i32>();
        // A null has any number.
        let numbers = text.iter().map(|value| value.map_or(0, |value| self.numbers[value]));
        let nulls = text.nulls().cloned();
        let numbers: ArrayRef = match Encoding::index_type(self.values.len()) {
            DataType::Int8 => Arc::new(Int8Array::new(numbers.map(|number| number as i8).collect(), nulls)),
            _ => Arc::new(Int16Array::new(numbers.collect(), nulls)),
        };
        (field.clone().with_data_type(numbers.data_type().clone()), numbers)
    }
}

/// A part of a file.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Of which.
    pub kind: FileKind,
    /// What comes next in it.
    pub bytes: Bytes,
    /// Whether it ends here.
    pub last: bool,
}

impl Open {
    fn new(part: Part, segment: &Segment) -> Self {
        // Of what is in storage only, a block would not be small any more when it is read.
        let dictionary = |column: &String| match part.kind {
            FileKind::Rows => Dictionary::new(segment, column),
            _ => None,
        };
        let dictionaries: Vec<Option<Dictionary>> = part.columns.iter().map(dictionary).collect();
        let values = |(at, dictionary): (usize, &Option<Dictionary>)| {
            Some((at, Arc::new(dictionary.as_ref()?.values.clone()) as ArrayRef))
        };
        let file = FileWriter::new(part.codec, dictionaries.iter().enumerate().filter_map(values).collect());
        Self { part, next: 0, file, names: Vec::new(), dictionaries, statistics: Vec::new() }
    }
}

/// How many rows make a block when all `rows` take `bytes`.
fn block_rows(rows: usize, bytes: usize, block_bytes: usize) -> usize {
    (block_bytes / (bytes / rows.max(1)).max(1)).clamp(1, BLOCK_ROWS_MAX)
}

fn vector_block(column: &VectorColumn, range: Range<usize>) -> RecordBatch {
    let data = column.data[range.start * column.dim..range.end * column.dim].to_vec();
    vector_batch(VectorColumn { field: column.field.clone(), dim: column.dim, data })
}

impl Encoder {
    /// Makes the files of `segment`, the columns compressed by `codec`.
    pub fn new(segment: &Segment, codec: Codec) -> Self {
        let rows = segment.len();
        // What every search may ask of each row.
        let asked = [Some(segment.schema().primary_key().name.as_str()), segment.schema().partition_column()];
        let (mut narrow, mut narrow_bytes) = (Vec::new(), 0);
        let mut parts = VecDeque::new();
        for (name, bytes) in segment.scalar_bytes() {
            if !segment.has(&name) {
                let kind = FileKind::Column(name.clone());
                parts.push_back(Part { kind, columns: vec![name], codec, rows, step: GIVEN_ROWS, is_left: true });
            } else if !asked.contains(&Some(name.as_str())) && bytes > NARROW_BYTES * rows {
                let step = block_rows(rows, bytes, COLUMN_BLOCK_BYTES);
                let kind = FileKind::Column(name.clone());
                parts.push_back(Part { kind, columns: vec![name], codec, rows, step, is_left: false });
            } else {
                narrow.push(name);
                narrow_bytes += bytes;
            }
        }
        let step = block_rows(rows, narrow_bytes, COLUMN_BLOCK_BYTES);
        parts.push_front(Part { kind: FileKind::Rows, columns: narrow, codec, rows, step, is_left: false });
        // Floats hardly shrink (14 % by zstd, nothing by lz4), and uncompressed a block costs no more than reading it.
        parts.extend(segment.vector_columns().iter().map(|column| Part {
            kind: FileKind::Vector(column.field.clone()),
            columns: vec![column.field.clone()],
            codec: Codec::None,
            rows,
            step: block_rows(rows, rows * column.dim * 4, VECTOR_BLOCK_BYTES),
            is_left: !segment.has(&column.field),
        }));
        let pauses = parts.iter().any(|part| part.is_left);
        let (rows, columns, step) = (segment.deletes.len(), Vec::new(), BLOCK_ROWS_MAX);
        if rows > 0 {
            parts.push_back(Part { kind: FileKind::Deletes, columns, codec, rows, step, is_left: false });
        }
        Self { parts, codec, has_layout: false, only_unsaved: false, pauses, ..Self::of_indexes() }
    }

    /// The column and the rows of it that the next step needs from elsewhere, for they are not in memory: [`Self::give`] takes them.
    pub fn wants(&mut self, segment: &Segment) -> Option<(String, Range<usize>)> {
        if self.open.is_none() && self.parts.front().is_some_and(|part| part.is_left) {
            self.open = self.parts.pop_front().map(|part| Open::new(part, segment));
        }
        let Open { part, next, .. } = self.open.as_ref().filter(|open| open.part.is_left && self.given.is_none())?;
        Some((part.columns[0].clone(), *next..part.rows.min(next + part.step)))
    }

    /// Takes the rows that [`Self::wants`] asked for, of that one column.
    pub fn give(&mut self, block: RecordBatch) {
        self.given = Some(block);
    }

    /// The bytes that were made of what was not given yet.
    pub fn encoded(&self) -> usize {
        self.bytes.len() + self.finish.as_ref().map_or(0, Finish::len)
    }

    /// The bytes that the next call of `take` gives.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes one more block of `segment`; the end of a file when that was the last of it, `None` when there are no more files; and once
    /// when all columns are written, where some were handed over: then the segment can be told where they lie. Panics when it
    /// [`Self::wants`] a block.
    pub fn step(&mut self, segment: &Segment) -> Option<Option<Piece>> {
        let open = match &mut self.open {
            Some(open) => open,
            None => match self.parts.pop_front() {
                Some(part) => self.open.insert(Open::new(part, segment)),
                None if !self.has_layout => {
                    let Some((keys, filter)) = &self.keys else {
                        self.keys = Some(self.keys_of(segment));
                        return Some(None);
                    };
                    self.has_layout = true;
                    self.bytes = layout::encode(&self.groups, segment.versions(), self.codec, *keys, filter);
                    return Some(Some(self.take(FileKind::Layout, true)));
                }
                None if std::mem::take(&mut self.pauses) => return None,
                None if self.terms < segment.all_terms().len() => {
                    let index = &segment.all_terms()[self.terms];
                    // One that lacks rows is written when it has them.
                    let is_written = index.rows() == segment.len() && (!self.only_unsaved || index.is_unsaved());
                    if is_written && !index.seal_some(&mut self.finish, TERMS_STEP_BYTES) {
                        return Some(None);
                    }
                    self.terms += 1;
                    if !is_written {
                        return Some(None);
                    }
                    self.bytes = index.seal().bytes().to_vec();
                    return Some(Some(self.take(FileKind::Terms(index.field().to_owned()), true)));
                }
                None => return self.index_step(segment),
            },
        };
        let range = open.next..open.part.rows.min(open.next + open.part.step);
        let block = match &open.part.kind {
            _ if open.part.is_left => {
                let block = self.given.take().expect("it has been asked what it wants");
                if let FileKind::Column(_) = open.part.kind {
                    open.part.step = block_rows(block.num_rows(), batch_bytes(&block), COLUMN_BLOCK_BYTES);
                }
                block
            }
            FileKind::Vector(field) => {
                let column = segment.vector_columns().iter().find(|column| column.field == *field);
                vector_block(column.expect("the segment has not changed"), range.clone())
            }
            FileKind::Deletes => encode_tombstones(segment.schema(), &segment.deletes[range.clone()]),
            _ => segment.block(&open.part.columns, range.clone()),
        };
        let statistics = |column: &ArrayRef| match open.part.kind {
            FileKind::Vector(_) => Statistics::default(),
            _ => Statistics::of(column),
        };
        open.statistics.push(block.columns().iter().map(statistics).collect());
        if open.next == 0 {
            open.names = block.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
        }
        let fields = block.schema();
        let columns = fields.fields().iter().zip(block.columns()).enumerate();
        let stored = columns.map(|(at, (field, column))| match open.dictionaries.get(at) {
            Some(Some(dictionary)) => dictionary.encode(field, column),
            _ => (field.as_ref().clone(), column.clone()),
        });
        open.file.push(&batch_of(stored, block.num_rows()), &mut self.bytes);
        open.next = range.end;
        if open.next < open.part.rows {
            return Some(None);
        }
        let Open { part, file, names, statistics, dictionaries, .. } = self.open.take().expect("it is open");
        let blocks = file.finish(&mut self.bytes);
        let mut encodings: Vec<Encoding> = vec![Encoding::Plain; names.len()];
        for (encoding, dictionary) in encodings.iter_mut().zip(dictionaries) {
            *encoding = dictionary.map_or(Encoding::Plain, |dictionary| Encoding::Dictionary(dictionary.values));
        }
        self.groups.push(Group::new(part.kind.clone(), names, encodings, part.codec, blocks, statistics));
        Some(Some(self.take(part.kind, true)))
    }

    /// How many keys the rows have, and what tells which they have not.
    fn keys_of(&self, segment: &Segment) -> (u32, KeyFilter) {
        let mut hashes = segment.key_hashes();
        hashes.sort_unstable();
        hashes.dedup();
        let range = layout::key_range(&self.groups, &segment.schema().primary_key().name);
        let keys = hashes.len() as u64;
        // Integers without gaps need none: their range tells.
        let dense = range.is_some_and(|(least, most)| most.wrapping_sub(least).wrapping_add(1) as u64 == keys);
        (keys as u32, if dense { KeyFilter::default() } else { KeyFilter::new(&hashes) })
    }

    /// The same of the indexes: as much as there is of each.
    fn index_step(&mut self, segment: &Segment) -> Option<Option<Piece>> {
        loop {
            let index = segment.indexes().get(self.index.0)?;
            let part = index.built.as_ref().and_then(|built| built.part(self.index.1));
            if let Some(bytes) = part {
                self.index.1 += 1;
                self.bytes.extend(bytes);
                return Some(None);
            }
            self.index = (self.index.0 + 1, 0);
            if index.built.is_some() {
                return Some(Some(self.take(FileKind::Index(index.field.clone()), true)));
            }
        }
    }

    fn take(&mut self, kind: FileKind, last: bool) -> Piece {
        Piece { kind, bytes: std::mem::take(&mut self.bytes).into(), last }
    }

    /// What is there of the file that is being made.
    pub fn take_part(&mut self, segment: &Segment) -> Piece {
        let kind = match &self.open {
            Some(open) => open.part.kind.clone(),
            None => FileKind::Index(segment.indexes()[self.index.0].field.clone()),
        };
        self.take(kind, false)
    }

    /// Only the indexes of a segment, of terms those that are in no file.
    pub fn of_indexes() -> Self {
        Self {
            parts: VecDeque::new(),
            open: None,
            groups: Vec::new(),
            index: (0, 0),
            terms: 0,
            finish: None,
            only_unsaved: true,
            bytes: Vec::new(),
            codec: Codec::None,
            keys: None,
            has_layout: true,
            given: None,
            pauses: false,
        }
    }
}

/// The files of a segment whose columns are all in memory, the columns compressed by `codec`.
pub fn encode(segment: &Segment, codec: Codec) -> Vec<SegmentFile> {
    let mut encoder = Encoder::new(segment, codec);
    let pieces = std::iter::from_fn(|| encoder.step(segment)).flatten();
    pieces.map(|piece| SegmentFile { kind: piece.kind, bytes: piece.bytes }).collect()
}
