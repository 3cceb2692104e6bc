use arrow_array::{Array, ArrayRef};
use arrow_buffer::Buffer;
use arrow_schema::DataType;

use super::{flat, stored};
use crate::base::Neighbor;
use crate::distance::Metric;
use crate::model::Value;
use crate::model::column::{number_bytes, widen};

/// The full-precision vectors of a segment's rows, borrowed: `[rows, dim]`, row-major, row 0 first.
#[derive(Debug, Clone, Copy)]
pub struct Vectors<'a> {
    /// `rows * dim` numbers.
    pub data: &'a [f32],
    /// Numbers in a row.
    pub dim: usize,
}

impl<'a> Vectors<'a> {
    /// Views `data` as rows. Panics when it is no whole number of rows, or `dim` is 0.
    pub fn new(data: &'a [f32], dim: usize) -> Self {
        assert!(dim > 0 && data.len().is_multiple_of(dim), "{} numbers are no rows of {dim}", data.len());
        Self { data, dim }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Row `row`. Panics past the end.
    pub fn row(&self, row: u32) -> &'a [f32] {
        &self.data[row as usize * self.dim..][..self.dim]
    }
}

/// The vectors of one field of a segment where they are in memory, in the form in which they are kept.
#[derive(Debug, Clone)]
pub enum Source<'a> {
    /// 32-bit floats, one row after the other; every row has a vector.
    Floats(Vectors<'a>),
    /// Arrow columns of dense vectors, by ascending rows without a gap; a row may have none.
    Columns(Vec<Run<'a>>),
}

/// The dense vectors of consecutive rows.
#[derive(Debug, Clone)]
pub struct Run<'a> {
    /// The number of its first row.
    start: usize,
    column: &'a ArrayRef,
    /// All its numbers, as they are kept.
    bytes: Buffer,
    item: DataType,
    /// Items of a row: numbers, or bytes of bits.
    len: usize,
    width: usize,
}

impl<'a> Run<'a> {
    /// A view of a column whose first row is row `start` of the segment; `None` of a column that is not of dense vectors.
    pub fn new(start: usize, column: &'a ArrayRef) -> Option<Self> {
        let list = column.as_any().downcast_ref::<arrow_array::FixedSizeListArray>()?;
        let bytes = number_bytes(list.values())?;
        let (item, len) = (list.value_type(), list.value_length() as usize);
        let width = item.primitive_width()? * len;
        Some(Self { start, column, bytes, item, len, width })
    }

    fn bytes(&self, row: u32) -> Option<&[u8]> {
        let row = row as usize - self.start;
        self.column.is_valid(row).then(|| &self.bytes[row * self.width..][..self.width])
    }
}

/// A 0 or 1 for each bit.
pub(super) fn spread_bits(bytes: &[u8], numbers: &mut Vec<f32>) {
    numbers.clear();
    numbers.extend(bytes.iter().flat_map(|byte| (0..8).map(move |bit| f32::from(byte >> bit & 1))));
}

impl Source<'_> {
    /// The number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(vectors) => vectors.len(),
            Self::Columns(runs) => runs.last().map_or(0, |run| run.start + run.column.len()),
        }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn run(runs: &[Run<'_>], row: u32) -> usize {
        runs.partition_point(|run| run.start <= row as usize) - 1
    }

    /// The vector of `row` as numbers, a 0 or 1 for each bit; `None` when it has none. `room` is where they are put when they are kept otherwise. Panics past
    /// the end.
    pub fn numbers<'b>(&'b self, row: u32, room: &'b mut Vec<f32>) -> Option<&'b [f32]> {
        match self {
            Self::Floats(vectors) => Some(vectors.row(row)),
            Self::Columns(runs) => {
                let run = &runs[Self::run(runs, row)];
                let bytes = run.bytes(row)?;
                if run.item == DataType::UInt8 {
                    spread_bits(bytes, room);
                } else {
                    room.resize(run.len, 0.0);
                    widen(&run.item, bytes, room);
                }
                Some(room)
            }
        }
    }

    /// The vector of `row` as it is kept; `None` when it has none, or is kept as 32-bit floats. Panics past the end.
    pub fn bytes(&self, row: u32) -> Option<&[u8]> {
        match self {
            Self::Floats(_) => None,
            Self::Columns(runs) => runs[Self::run(runs, row)].bytes(row),
        }
    }

    /// The `k` of `rows`, which ascend, closest to `query`, closest first, by full precision. Panics when the query is of another form or
    /// dimension, or a row is past the end.
    pub fn nearest(&self, rows: &[u32], metric: Metric, query: &Value, k: usize) -> Vec<Neighbor> {
        match (self, query) {
            (Self::Floats(vectors), Value::Vector(query)) => flat::among(*vectors, rows, metric, query, k),
            (Self::Columns(runs), query) => {
                let (mut found, mut rest) = (Vec::new(), rows);
                for run in runs {
                    let end = run.start + run.column.len();
                    let (here, after) = rest.split_at(rest.partition_point(|&row| (row as usize) < end));
                    rest = after;
                    if here.is_empty() {
                        continue;
                    }
                    let local = here.iter().map(|&row| row - run.start as u32);
                    let near = stored::search(run.column, metric, query, k, local);
                    found.extend(near.into_iter().map(|near| Neighbor { row: near.row + run.start as u32, ..near }));
                }
                found.sort_unstable();
                found.truncate(k);
                found
            }
            _ => unreachable!("a query is of its field's form"),
        }
    }
}
