use std::borrow::Cow;

use hashbrown::HashMap;

use super::list::{List, Posting, put_varint, take_varint, write_list};
use super::{HEAD_BYTES, LENGTH_MAX, MAGIC, NO_VALUE, Payload, Terms, VERSION};
use crate::base::codec::Write;
use crate::base::{RowMask, sort_by};
use crate::model::text::Analyzer;

/// An index that takes rows. What it has of each term is one run of bytes, so that a row costs little.
#[derive(Debug, Clone)]
pub struct Builder {
    payload: Payload,
    /// The number of each term in `lists`.
    terms: HashMap<Box<[u8]>, u32>,
    lists: Vec<Growing>,
    /// Of text, the number of terms of each row, or [`NO_VALUE`].
    lengths: Vec<u16>,
    /// Of the others, the rows that have a value.
    present: RowMask,
    rows: u32,
    rows_with_value: u32,
    total: u64,
    /// The numbers of the terms of the row that is being added, with their positions.
    row_terms: Vec<(u32, u32)>,
    bytes: usize,
}

/// The rows of a term: for each the difference from the row after the one before, then how often it has the term and where, or its
/// weight.
#[derive(Debug, Clone, Default)]
struct Growing {
    bytes: Vec<u8>,
    count: u32,
    next: u32,
}

impl Builder {
    /// An index of nothing.
    pub fn new(payload: Payload) -> Self {
        Self {
            payload,
            terms: HashMap::new(),
            lists: Vec::new(),
            lengths: Vec::new(),
            present: RowMask::none(0),
            rows: 0,
            rows_with_value: 0,
            total: 0,
            row_terms: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds a row with its terms as `text` has them.
    pub fn push_text(&mut self, analyzer: &Analyzer, text: Option<&str>) {
        let mut terms = std::mem::take(&mut self.row_terms);
        terms.clear();
        if let Some(text) = text {
            analyzer.analyze(text, &mut |token| terms.push((self.number_of(token.term.as_bytes()), token.position)));
        }
        let length = if text.is_some() { terms.len().min(usize::from(LENGTH_MAX)) as u16 } else { NO_VALUE };
        terms.sort_unstable();
        for same in terms.chunk_by(|(left, _), (right, _)| left == right) {
            let bytes = self.open(same[0].0);
            put_varint(bytes, same.len() as u32);
            let mut next = 0;
            for (_, position) in same {
                put_varint(bytes, position - next);
                next = position + 1;
            }
            self.bytes += 4 + same.len();
        }
        self.lengths.push(length);
        self.total += if text.is_some() { u64::from(length) } else { 0 };
        self.row_terms = terms;
        self.end_row(text.is_some());
    }

    /// Adds a row that has this key; `None` for one without a value.
    pub fn push_key(&mut self, key: Option<&[u8]>) {
        if let Some(key) = key {
            let number = self.number_of(key);
            self.open(number);
            self.bytes += 2;
        }
        self.end_row(key.is_some());
    }

    /// Adds a row that has all of these keys.
    pub fn push_keys(&mut self, keys: &mut Vec<Vec<u8>>, has_value: bool) {
        sort_by(keys, Ord::cmp);
        keys.dedup();
        for key in keys.drain(..) {
            let number = self.number_of(&key);
            self.open(number);
            self.bytes += 2;
        }
        self.end_row(has_value);
    }

    /// Adds a row that has these numbers at these places.
    pub fn push_weights(&mut self, weights: Option<&mut dyn Iterator<Item = (u32, f32)>>) {
        let has_value = weights.is_some();
        for (place, weight) in weights.into_iter().flatten() {
            let number = self.number_of(&place.to_be_bytes());
            self.open(number).extend_from_slice(&weight.to_le_bytes());
            self.bytes += 6;
        }
        self.end_row(has_value);
    }

    fn number_of(&mut self, key: &[u8]) -> u32 {
        if let Some(&number) = self.terms.get(key) {
            return number;
        }
        let number = self.lists.len() as u32;
        self.terms.insert(key.into(), number);
        self.lists.push(Growing::default());
        self.bytes += key.len() + 80;
        number
    }

    /// Notes that the row that is being added has that term; what it has of it comes behind.
    fn open(&mut self, number: u32) -> &mut Vec<u8> {
        let growing = &mut self.lists[number as usize];
        put_varint(&mut growing.bytes, self.rows - growing.next);
        growing.next = self.rows + 1;
        growing.count += 1;
        &mut growing.bytes
    }

    fn end_row(&mut self, has_value: bool) {
        if self.payload != Payload::Text {
            self.present.push(has_value);
        }
        self.rows_with_value += u32::from(has_value);
        self.rows += 1;
    }

    pub(super) fn payload(&self) -> Payload {
        self.payload
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows as usize
    }

    pub(super) fn rows_with_value(&self) -> usize {
        self.rows_with_value as usize
    }

    pub(super) fn total_length(&self) -> u64 {
        self.total
    }

    pub(super) fn length(&self, row: u32) -> u16 {
        self.lengths.get(row as usize).copied().unwrap_or(NO_VALUE)
    }

    pub(super) fn present(&self) -> RowMask {
        match self.payload {
            Payload::Text => self.lengths.iter().map(|&length| length != NO_VALUE).collect(),
            _ => self.present.clone(),
        }
    }

    fn growing(&self, key: &[u8]) -> Option<&Growing> {
        self.terms.get(key).map(|&number| &self.lists[number as usize])
    }

    pub(super) fn list(&self, key: &[u8]) -> Option<List<'_>> {
        let growing = self.growing(key)?;
        let mut data = Vec::new();
        self.write(growing, &mut data);
        Some(List::new(self.payload, growing.count as usize, Cow::Owned(data)))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.terms.keys().map(|key| &**key)
    }

    pub(super) fn count(&self, key: &[u8]) -> usize {
        self.growing(key).map_or(0, |growing| growing.count as usize)
    }

    fn write(&self, growing: &Growing, out: &mut Vec<u8>) {
        let mut postings = Vec::with_capacity(growing.count as usize);
        let mut positions = Vec::new();
        let (bytes, mut at, mut next) = (&growing.bytes, 0, 0);
        for _ in 0..growing.count {
            let row = next + take_varint(bytes, &mut at);
            next = row + 1;
            let value = match self.payload {
                Payload::Rows => 0,
                Payload::Weights => {
                    at += 4;
                    super::list::u32_at(bytes, at - 4)
                }
                Payload::Text => {
                    let frequency = take_varint(bytes, &mut at);
                    let start = at;
                    for _ in 0..frequency {
                        take_varint(bytes, &mut at);
                    }
                    positions.push(start..at);
                    frequency
                }
            };
            postings.push(Posting { row, value });
        }
        let length = |row: u32| self.length(row);
        write_list(self.payload, &postings, &|at| positions[at].clone(), bytes, &length, out);
    }

    /// The bytes that it holds, about.
    pub fn memory_bytes(&self) -> usize {
        self.bytes + self.lengths.capacity() * 2
    }

    /// The index of all rows that were added, as it is written.
    pub fn finish(&self) -> Terms {
        let mut finish = self.begin_finish();
        loop {
            if let Some(terms) = self.finish_some(&mut finish, usize::MAX) {
                return terms;
            }
        }
    }

    /// Begins to make the index of all rows that were added, of which there will be no more.
    pub fn begin_finish(&self) -> Finish {
        let mut order: Vec<(Box<[u8]>, u32)> = self.terms.iter().map(|(key, &number)| (key.clone(), number)).collect();
        sort_by(&mut order, |(left, _), (right, _)| left.cmp(right));
        Finish { ends: Vec::with_capacity(order.len()), order, lists: Vec::new() }
    }

    /// Writes lists of `bytes_max` bytes or some more; the index when that was all.
    pub fn finish_some(&self, finish: &mut Finish, bytes_max: usize) -> Option<Terms> {
        let Finish { order, lists, ends } = finish;
        let until = lists.len().saturating_add(bytes_max);
        while let Some((_, number)) = order.get(ends.len()) {
            if lists.len() >= until {
                return None;
            }
            self.write(&self.lists[*number as usize], lists);
            ends.push(lists.len() as u32);
        }
        let key_bytes: usize = order.iter().map(|(key, _)| key.len()).sum();
        let row_bytes = self.payload.row_bytes(self.rows());
        let mut bytes = Vec::with_capacity(HEAD_BYTES + row_bytes + order.len() * 12 + key_bytes + lists.len());
        bytes.put_bytes(MAGIC);
        bytes.put_u32(VERSION);
        bytes.put_u32(self.payload as u32);
        bytes.put_u32(self.rows);
        bytes.put_u32(self.rows_with_value);
        bytes.put_u64(self.total);
        bytes.put_u32(order.len() as u32);
        bytes.put_u32(key_bytes as u32);
        bytes.put_u32(lists.len() as u32);
        match self.payload {
            Payload::Text => self.lengths.iter().for_each(|&length| bytes.put_u16(length)),
            _ => {
                let words = self.present.words().iter().flat_map(|word| word.to_le_bytes());
                bytes.extend(words.take(row_bytes));
            }
        }
        let mut end = 0;
        for (key, _) in &*order {
            end += key.len() as u32;
            bytes.put_u32(end);
        }
        ends.iter().for_each(|&end| bytes.put_u32(end));
        order.iter().for_each(|(_, number)| bytes.put_u32(self.lists[*number as usize].count));
        order.iter().for_each(|(key, _)| bytes.put_bytes(key));
        bytes.put_bytes(lists);
        Some(Terms::from_written(bytes.into()))
    }
}

/// An index on its way into bytes, a few lists at a time.
#[derive(Debug)]
pub struct Finish {
    /// All terms by their keys, with their numbers.
    order: Vec<(Box<[u8]>, u32)>,
    /// The lists that are written, and where each ends.
    lists: Vec<u8>,
    ends: Vec<u32>,
}

impl Finish {
    /// The bytes that are written.
    pub fn len(&self) -> usize {
        self.lists.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }
}
