use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch};
use arrow_buffer::ScalarBuffer;
use arrow_schema::DataType;
use bytes::Bytes;

use super::arrow::{FileWriter, batch_of};
use super::files::{encode_tombstones, vector_field};
use super::layout::{self, Group};
use super::statistics::Statistics;
use super::{FileKind, Segment, SegmentFile};
use crate::base::compress::Codec;
use crate::model::VectorColumn;

/// Bytes of a block before compression. A search reads a block for each of its last candidates, so blocks of vectors are small;
/// text and numbers need longer ones to compress well (a quarter of a MiB is within 3 % of a whole column).
const VECTOR_BLOCK_BYTES: usize = 64 << 10;
const COLUMN_BLOCK_BYTES: usize = 256 << 10;
/// Rows of a block at most, so that its statistics tell something.
const BLOCK_ROWS_MAX: usize = 8_192;
/// A text, JSON or array column of more bytes a row than this has a file of its own.
const NARROW_BYTES: usize = 64;

/// A file that is to be made.
#[derive(Debug)]
struct Part {
    kind: FileKind,
    /// Its columns, but for those of versions.
    columns: Vec<String>,
    codec: Codec,
    rows: usize,
    /// How many of them make a block.
    step: usize,
}

/// The file that is being made.
#[derive(Debug)]
struct Open {
    part: Part,
    /// The next row.
    next: usize,
    file: FileWriter,
    names: Vec<String>,
    statistics: Vec<Vec<Statistics>>,
}

/// Makes the files of a segment whose columns are all in memory, a block at a time: compressing all of a large one takes seconds.
/// The segment must stay as it is until the end.
#[derive(Debug)]
pub struct Encoder {
    parts: VecDeque<Part>,
    open: Option<Open>,
    groups: Vec<Group>,
    /// Which of the indexes, and which part of it, comes next.
    index: (usize, usize),
    /// What is done of the file that is being made, and is not taken.
    bytes: Vec<u8>,
    has_layout: bool,
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

/// How many rows make a block when all `rows` take `bytes`.
fn block_rows(rows: usize, bytes: usize, block_bytes: usize) -> usize {
    (block_bytes / (bytes / rows.max(1)).max(1)).clamp(1, BLOCK_ROWS_MAX)
}

fn vector_block(column: &VectorColumn, range: Range<usize>) -> RecordBatch {
    let field = vector_field(column);
    let DataType::FixedSizeList(item, _) = field.data_type().clone() else { unreachable!("vectors are lists") };
    let values = column.data[range.start * column.dim..range.end * column.dim].to_vec();
    let values = Arc::new(Float32Array::new(ScalarBuffer::from(values), None));
    let array = FixedSizeListArray::new(item, column.dim as i32, values, None);
    batch_of([(field, Arc::new(array) as ArrayRef)], range.len())
}

impl Encoder {
    /// Makes the files of `segment`, the columns compressed by `codec`.
    pub fn new(segment: &Segment, codec: Codec) -> Self {
        let rows = segment.len();
        // What every search may ask of each row.
        let asked = [Some(segment.schema().primary_key().name.as_str()), segment.schema().partition_column()];
        let (mut narrow, mut narrow_bytes) = (Vec::new(), segment.versions().memory_bytes());
        let mut parts = VecDeque::new();
        for (name, bytes) in segment.scalar_bytes() {
            if !asked.contains(&Some(name.as_str())) && bytes > NARROW_BYTES * rows {
                let step = block_rows(rows, bytes, COLUMN_BLOCK_BYTES);
                parts.push_back(Part { kind: FileKind::Column(name.clone()), columns: vec![name], codec, rows, step });
            } else {
                narrow.push(name);
                narrow_bytes += bytes;
            }
        }
        let step = block_rows(rows, narrow_bytes, COLUMN_BLOCK_BYTES);
        parts.push_front(Part { kind: FileKind::Rows, columns: narrow, codec, rows, step });
        // Floats hardly shrink (14 % by zstd, nothing by lz4), and uncompressed a block costs no more than reading it.
        parts.extend(segment.vector_columns().iter().map(|column| Part {
            kind: FileKind::Vector(column.field.clone()),
            columns: vec![column.field.clone()],
            codec: Codec::None,
            rows,
            step: block_rows(rows, column.data.len() * 4, VECTOR_BLOCK_BYTES),
        }));
        let rows = segment.deletes.len();
        if rows > 0 {
            parts.push_back(Part { kind: FileKind::Deletes, columns: Vec::new(), codec, rows, step: BLOCK_ROWS_MAX });
        }
        Self { parts, open: None, groups: Vec::new(), index: (0, 0), bytes: Vec::new(), has_layout: false }
    }

    /// The bytes that the next call of [`Self::take`] gives.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Makes one more block of `segment`; the end of a file when that was the last of it, `None` when there are no more files.
    pub fn step(&mut self, segment: &Segment) -> Option<Option<Piece>> {
        let open = match &mut self.open {
            Some(open) => open,
            None => match self.parts.pop_front() {
                Some(part) => self.open.insert(Open {
                    part,
                    next: 0,
                    file: FileWriter::default(),
                    names: Vec::new(),
                    statistics: Vec::new(),
                }),
                None if !self.has_layout => {
                    self.has_layout = true;
                    self.bytes = layout::encode(&self.groups);
                    return Some(Some(self.take(FileKind::Layout, true)));
                }
                None => return self.index_step(segment),
            },
        };
        let range = open.next..open.part.rows.min(open.next + open.part.step);
        let block = match &open.part.kind {
            FileKind::Vector(field) => {
                let column = segment.vector_columns().iter().find(|column| column.field == *field);
                vector_block(column.expect("the segment has not changed"), range.clone())
            }
            FileKind::Deletes => encode_tombstones(segment.schema(), &segment.deletes[range.clone()]),
            FileKind::Rows => segment.block(&open.part.columns, range.clone(), true),
            _ => segment.block(&open.part.columns, range.clone(), false),
        };
        let statistics = |column: &ArrayRef| match open.part.kind {
            FileKind::Vector(_) => Statistics::default(),
            _ => Statistics::of(column),
        };
        open.statistics.push(block.columns().iter().map(statistics).collect());
        if open.next == 0 {
            open.names = block.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
        }
        open.file.push(&block, open.part.codec, &mut self.bytes);
        open.next = range.end;
        if open.next < open.part.rows {
            return Some(None);
        }
        let Open { part, file, names, statistics, .. } = self.open.take().expect("it is open");
        let blocks = file.finish(block.schema_ref(), &mut self.bytes);
        self.groups.push(Group::new(part.kind.clone(), names, part.codec, blocks, statistics));
        Some(Some(self.take(part.kind, true)))
    }

    /// The same of the graphs: as much as there is of each.
    fn index_step(&mut self, segment: &Segment) -> Option<Option<Piece>> {
        loop {
            let index = segment.indexes().get(self.index.0)?;
            let part = index.graph.as_ref().and_then(|graph| graph.part(self.index.1));
            if let Some(bytes) = part {
                self.index.1 += 1;
                self.bytes.extend(bytes);
                return Some(None);
            }
            self.index = (self.index.0 + 1, 0);
            if index.graph.is_some() {
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

    /// Only the indexes of a segment.
    pub fn of_indexes() -> Self {
        Self {
            parts: VecDeque::new(),
            open: None,
            groups: Vec::new(),
            index: (0, 0),
            bytes: Vec::new(),
            has_layout: true,
        }
    }
}

/// The files of a segment whose columns are all in memory, the columns compressed by `codec`.
pub fn encode(segment: &Segment, codec: Codec) -> Vec<SegmentFile> {
    let mut encoder = Encoder::new(segment, codec);
    let pieces = std::iter::from_fn(|| encoder.step(segment)).flatten();
    pieces.map(|piece| SegmentFile { kind: piece.kind, bytes: piece.bytes }).collect()
}
