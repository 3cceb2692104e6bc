//! What the engine and its workers say to each other, and the worker's side of it. A message begins with a byte that says what it is; all
//! numbers are little-endian. Both sides are of one build: nothing of this is stored, or understood by another version.

use std::collections::BTreeMap;

use crate::base::codec::{Reader, Write};
use crate::base::{Error, ErrorKind, Neighbor, Result, RowMask};
use crate::distance::Metric;
use crate::index::{SearchParams, Source, VectorIndex, Vectors, flat};
use crate::model::Value;

const BEGIN: u8 = 0;
const INDEX: u8 = 1;
const VECTORS: u8 = 2;
const OPEN: u8 = 3;
const DROP: u8 = 4;
/// The most usual message: its head is made where the search is known.
pub(super) const SEARCH: u8 = 5;

const METRICS: [Metric; 5] = [Metric::L2, Metric::Ip, Metric::Cosine, Metric::Hamming, Metric::Jaccard];

fn message_to(what: u8, handle: u64, room: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(room + 9);
    message.put_u8(what);
    message.put_u64(handle);
    message
}

pub(super) fn begin_message(handle: u64, metric: Metric, dim: usize, rows: usize) -> Vec<u8> {
    let mut message = message_to(BEGIN, handle, 9);
    message.put_u8(METRICS.iter().position(|&one| one == metric).unwrap_or(METRICS.len()) as u8);
    message.put_u32(dim as u32);
    message.put_u32(rows as u32);
    message
}

pub(super) fn index_message(handle: u64, bytes: &[u8]) -> Vec<u8> {
    let mut message = message_to(INDEX, handle, bytes.len());
    message.put_bytes(bytes);
    message
}

pub(super) fn vectors_message(handle: u64, numbers: &[f32]) -> Vec<u8> {
    let mut message = message_to(VECTORS, handle, 4 * numbers.len());
    numbers.iter().for_each(|&number| message.put_f32(number));
    message
}

pub(super) fn open_message(handle: u64) -> Vec<u8> {
    message_to(OPEN, handle, 0)
}

pub(super) fn drop_message(handle: u64) -> Vec<u8> {
    message_to(DROP, handle, 0)
}

/// Adds a segment to a search: its handle, whether its index is used, and the rows that count unless all do.
pub(super) fn put_segment(message: &mut Vec<u8>, handle: u64, by_index: bool, mask: &RowMask) {
    let is_masked = mask.count() < mask.len();
    message.put_u64(handle);
    message.put_u8(u8::from(by_index) | u8::from(is_masked) << 1);
    if is_masked {
        mask.words().iter().for_each(|&word| message.put_u64(word));
    }
}

/// The rows found in segments of so many rows, for so many queries each.
///
/// # Errors
/// `Corrupt` for anything that is not such an answer.
pub(super) fn read_found(bytes: &[u8], lens: &[usize], queries: usize) -> Result<Vec<Vec<Vec<Neighbor>>>> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::with_capacity(lens.len());
    for &len in lens {
        let mut of_segment = Vec::with_capacity(queries);
        for _ in 0..queries {
            let count = reader.u32()? as usize;
            let mut near = Reader::new(reader.bytes(count.saturating_mul(8))?);
            let mut found = Vec::with_capacity(count);
            while near.remaining() > 0 {
                let neighbor = Neighbor { row: near.u32()?, distance: near.f32()? };
                if neighbor.row as usize >= len {
                    return Err(Error::corrupt(format!("a worker found row {} of {len}", neighbor.row)));
                }
                found.push(neighbor);
            }
            of_segment.push(found);
        }
        all.push(of_segment);
    }
    match reader.remaining() {
        0 => Ok(all),
        left => Err(Error::corrupt(format!("a worker's answer has {left} bytes too many"))),
    }
}

/// What a worker holds: copies of the vectors and indexes of segments, which it searches. It belongs to one engine, does what each message
/// says and nothing else.
#[derive(Default)]
pub struct PoolWorker {
    copies: BTreeMap<u64, Copy>,
}

struct Copy {
    metric: Metric,
    dim: usize,
    rows: usize,
    /// The index's, until it is opened.
    bytes: Vec<u8>,
    vectors: Vec<f32>,
    index: Option<VectorIndex>,
    is_open: bool,
}

impl PoolWorker {
    /// A worker that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what `message` says; gives what it is answered.
    ///
    /// # Errors
    /// `Corrupt` for a message that the engine does not write, `NotFound` for a copy that is not there, `Unavailable` without the memory
    /// for it. The copy that is meant is not to be used then.
    pub fn answer(&mut self, message: &[u8]) -> Result<Vec<u8>> {
        let mut reader = Reader::new(message);
        let what = reader.u8()?;
        if what == SEARCH {
            return self.search(&mut reader);
        }
        let handle = reader.u64()?;
        if what == BEGIN {
            let metric = METRICS.get(usize::from(reader.u8()?)).copied();
            let metric = metric.ok_or_else(|| Error::corrupt("at byte 9: no metric"))?;
            let (dim, rows) = (reader.u32()? as usize, reader.u32()? as usize);
            let mut vectors = Vec::new();
            let numbers = rows.saturating_mul(dim);
            if dim == 0 || vectors.try_reserve_exact(numbers).is_err() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("a worker has no memory for {numbers} numbers"),
                ));
            }
            let copy = Copy { metric, dim, rows, bytes: Vec::new(), vectors, index: None, is_open: false };
            self.copies.insert(handle, copy);
            return Ok(Vec::new());
        }
        if what == DROP {
            self.copies.remove(&handle);
            return Ok(Vec::new());
        }
        let copy = self.copies.get_mut(&handle).ok_or_else(|| missing(handle))?;
        match what {
            INDEX => copy.bytes.put_bytes(reader.bytes(reader.remaining())?),
            VECTORS => {
                let (numbers, _) = reader.bytes(reader.remaining())?.as_chunks::<4>();
                copy.vectors.extend(numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)));
            }
            OPEN => copy.open()?,
            _ => return Err(Error::corrupt(format!("at byte 0: no message {what}"))),
        }
        Ok(Vec::new())
    }

    fn search(&self, reader: &mut Reader<'_>) -> Result<Vec<u8>> {
        let k = reader.u32()? as usize;
        let mut param = || reader.u32().map(|number| (number > 0).then_some(number as usize));
        let params = SearchParams { ef: param()?, nprobe: param()?, reorder_k: param()?, search_list: param()? };
        let (queries, dim) = (reader.u32()? as usize, reader.u32()? as usize);
        let (numbers, _) = reader.bytes(queries.saturating_mul(dim).saturating_mul(4))?.as_chunks::<4>();
        let numbers: Vec<f32> = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let queries: Vec<Value> = numbers.chunks_exact(dim.max(1)).map(|query| Value::Vector(query.to_vec())).collect();
        let mut answer = Vec::with_capacity(queries.len() * (4 + 8 * k.min(1_024)));
        while reader.remaining() > 0 {
            let (handle, flags) = (reader.u64()?, reader.u8()?);
            let copy = self.copies.get(&handle).filter(|copy| copy.is_open).ok_or_else(|| missing(handle))?;
            if copy.dim != dim {
                return Err(Error::corrupt(format!("queries of {dim} dimensions, copy {handle} has {}", copy.dim)));
            }
            let mut mask = None;
            if flags & 2 > 0 {
                let (words, _) = reader.bytes(copy.rows.div_ceil(64) * 8)?.as_chunks::<8>();
                let words = words.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
                mask = Some(RowMask::from_words(words, copy.rows));
            }
            for query in &queries {
                let found = copy.search(query, k, &params, flags & 1 > 0, mask.as_ref());
                answer.put_u32(found.len() as u32);
                for near in found {
                    answer.put_u32(near.row);
                    answer.put_f32(near.distance);
                }
            }
        }
        Ok(answer)
    }
}

impl Copy {
    fn open(&mut self) -> Result<()> {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.index = Some(VectorIndex::from_bytes(&bytes)?);
        }
        let covers = self.index.as_ref().is_none_or(|index| index.len() == self.rows && index.dim() == self.dim);
        if self.vectors.len() != self.rows * self.dim || !covers {
            return Err(Error::corrupt("a copy is not whole"));
        }
        self.is_open = true;
        Ok(())
    }

    fn search(
        &self,
        query: &Value,
        k: usize,
        params: &SearchParams,
        by_index: bool,
        mask: Option<&RowMask>,
    ) -> Vec<Neighbor> {
        let vectors = Vectors::new(&self.vectors, self.dim);
        match (self.index.as_ref().filter(|_| by_index), query) {
            (Some(index), query) => index.search(query, k, params, mask, &Source::Floats(vectors)),
            (None, Value::Vector(query)) => flat::search(vectors, 0..self.rows as u32, self.metric, query, k, mask),
            (None, _) => Vec::new(),
        }
    }
}

fn missing(handle: u64) -> Error {
    Error::not_found(format!("a worker has no copy {handle}"))
}
