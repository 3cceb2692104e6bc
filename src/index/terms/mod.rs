//! Which rows have a term: the one structure behind full text, sparse vectors and indexes of scalar fields.
//!
//! A term is some bytes: a word, the place of a number in a sparse vector, or a value of a field in a form whose order is that of
//! the values. Of each there is a list of rows, with what the row has of it: how often and where, a weight, or nothing. A
//! [`Builder`] takes rows and can be searched while it does; [`Builder::finish`] makes [`Terms`] of it, which are bytes and are
//! searched as they lie there.
//!
//! # Bytes, version 1
//!
//! Little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `EDDYTERM` |
//! | 4 | version, 1 |
//! | 4 | payload: 0 rows, 1 text, 2 weights |
//! | 4 | number of rows |
//! | 4 | how many of them have a value |
//! | 8 | of text, the sum of their lengths; else 0 |
//! | 4, 4, 4 | number of terms; bytes of all keys; bytes of all lists |
//! | … | of text, the length of each row, in terms, at most 65,534; 65,535 where it has no value (2 bytes each); else a bit for each row, set where it has one |
//! | 4 each | where the key of each term ends; keys ascend |
//! | 4 each | where its list ends |
//! | 4 each | how many rows are in it |
//! | … | keys |
//! | … | lists |
//!
//! A list has blocks of 128 rows, the last perhaps of fewer. Where there is more than one, it begins with 20 bytes for each: its
//! last row (4), where it ends, from the end of these (4), and 12 that bound what it adds to a score: of text four pairs of a
//! frequency (1, 255 for more) and a length (2), such that each of its rows is no better than one of them; of weights the least and
//! the greatest (4 each).
//!
//! Keys of integers and floats are in their order ([`int_key`], [`float_key`]), those of texts are their bytes. Of a place in JSON, and of arrays,
//! a key begins with what it is of ([`json`]): `b`, `n` and `t` of a boolean, a number and a text that stands there, `B`, `N` and `T` of one that an
//! array has which stands there; `A` of an array, `z` of null, `x` of a text that is no JSON. Behind it are a byte for a boolean, the bytes of a
//! text, and for a number its float key, with the exact integer behind it (16, the highest bit turned over, big-endian) from 2^53 on.
//!
//! A block: a width (1), then the difference of each row from the one after the row before, in as many bits, low ones first. Then of
//! text a width (1) and as many bits for how often each row has the term, less one; and for each row the differences of its
//! positions from the one after the position before, as varints. Of weights, 4 bytes for each.

mod build;
mod fuzzy;
pub mod json;
mod list;
mod matches;
#[cfg(test)]
mod tests;
mod top;

use std::borrow::Cow;
use std::ops::Bound;

use bytes::Bytes;
use list::{List, u32_at};

pub use build::{Builder, Finish};
pub use matches::{Matching, TextMatch};
pub use top::{Bm25, Weighted, top};

use crate::base::codec::Reader;
use crate::base::{Error, ErrorKind, Result, RowMask};

const MAGIC: &[u8; 8] = b"EDDYTERM";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 44;
/// The length of a row without a value.
const NO_VALUE: u16 = u16::MAX;
/// The greatest length that is told.
const LENGTH_MAX: u16 = u16::MAX - 1;

/// What a row has of a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    Rows = 0,
    /// How often it occurs, and where.
    Text = 1,
    /// A number.
    Weights = 2,
}

impl Payload {
    /// The bytes that tell of each row whether it has a value.
    fn row_bytes(self, rows: usize) -> usize {
        if self == Self::Text { rows * 2 } else { rows.div_ceil(8) }
    }
}

/// An index that takes no more rows. Cost of opening: one pass over its bytes, which it keeps.
#[derive(Debug, Clone)]
pub struct Terms {
    bytes: Bytes,
    payload: Payload,
    rows: usize,
    rows_with_value: usize,
    total: u64,
    terms: usize,
    /// Where keys and lists begin.
    keys_at: usize,
    lists_at: usize,
}

impl Terms {
    /// Opens bytes that were just made.
    fn from_written(bytes: Bytes) -> Self {
        Self::parse(bytes).expect("what is written can be read")
    }

    fn parse(bytes: Bytes) -> Result<Self> {
        let mut reader = Reader::new(&bytes);
        if reader.bytes(8)? != MAGIC {
            return Err(Error::corrupt("at byte 0: no index of terms (it begins with EDDYTERM)"));
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("at byte 8: an index of terms of version {version}; this build reads version {VERSION}"),
            ));
        }
        let payload = match reader.u32()? {
            0 => Payload::Rows,
            1 => Payload::Text,
            2 => Payload::Weights,
            other => return Err(Error::corrupt(format!("at byte 12: payload {other}, expected 0 to 2"))),
        };
        let (rows, rows_with_value) = (reader.u32()? as usize, reader.u32()? as usize);
        let total = reader.u64()?;
        let (terms, key_bytes, list_bytes) = (reader.u32()? as usize, reader.u32()? as usize, reader.u32()? as usize);
        reader.bytes(payload.row_bytes(rows))?;
        reader.bytes(terms.saturating_mul(12))?;
        let keys_at = reader.offset();
        reader.bytes(key_bytes)?;
        let lists_at = reader.offset();
        reader.bytes(list_bytes)?;
        if reader.remaining() != 0 {
            return Err(Error::corrupt(format!("at byte {}: {} bytes too many", reader.offset(), reader.remaining())));
        }
        Ok(Self { payload, rows, rows_with_value, total, terms, keys_at, lists_at, bytes })
    }

    /// Opens what [`Self::bytes`] gave. All of it is checked.
    ///
    /// # Errors
    /// `Unsupported` for another version, `Corrupt` with the offset for anything else. Allocates next to nothing.
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        let terms = Self::parse(bytes)?;
        let wrong = |at: usize, what: String| Err(Error::corrupt(format!("at byte {at}: {what}")));
        let ends_at = HEAD_BYTES + terms.payload.row_bytes(terms.rows);
        let (mut key_end, mut list_end) = (0, 0);
        for term in 0..terms.terms {
            let at = ends_at + term * 4;
            let (key, list) = (terms.key_end(term), terms.list_end(term));
            if key < key_end || key > terms.lists_at - terms.keys_at {
                return wrong(at, format!("the key of term {term} ends at {key}"));
            }
            if list < list_end || list > terms.bytes.len() - terms.lists_at {
                return wrong(at, format!("the list of term {term} ends at {list}"));
            }
            (key_end, list_end) = (key, list);
            if term > 0 && terms.key(term - 1) >= terms.key(term) {
                return wrong(at, format!("the key of term {term} is not after the one before"));
            }
            let list = terms.list_at(term);
            if list.count() == 0 || list.count() > terms.rows {
                return wrong(at, format!("term {term} is in {} of {} rows", list.count(), terms.rows));
            }
            if let Err(what) = list.check(terms.rows) {
                return wrong(terms.lists_at + if term == 0 { 0 } else { terms.list_end(term - 1) }, what);
            }
        }
        if key_end != terms.lists_at - terms.keys_at || list_end != terms.bytes.len() - terms.lists_at {
            return wrong(ends_at, "the last term does not end where terms do".to_owned());
        }
        let (count, total) = match terms.payload {
            Payload::Text => {
                let lengths = (0..terms.rows as u32).map(|row| terms.length(row)).filter(|&length| length != NO_VALUE);
                lengths.fold((0, 0), |(count, total), length| (count + 1, total + u64::from(length)))
            }
            _ => (terms.present().count(), 0),
        };
        if (count, total) != (terms.rows_with_value, terms.total) {
            return wrong(
                20,
                format!("{} rows of {} terms, expected {count} of {total}", terms.rows_with_value, terms.total),
            );
        }
        Ok(terms)
    }

    /// The index as bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What rows have of terms.
    pub fn payload(&self) -> Payload {
        self.payload
    }

    fn length(&self, row: u32) -> u16 {
        let at = HEAD_BYTES + row as usize * 2;
        self.bytes.get(at..at + 2).map_or(NO_VALUE, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn present(&self) -> RowMask {
        if self.payload == Payload::Text {
            return (0..self.rows as u32).map(|row| self.length(row) != NO_VALUE).collect();
        }
        let bits = &self.bytes[HEAD_BYTES..HEAD_BYTES + self.rows.div_ceil(8)];
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        RowMask::from_words(bits.chunks(8).map(word).collect(), self.rows)
    }

    /// The number in one of the three tables of terms.
    fn entry(&self, table: usize, term: usize) -> usize {
        u32_at(&self.bytes, self.keys_at - (3 - table) * self.terms * 4 + term * 4) as usize
    }

    fn key_end(&self, term: usize) -> usize {
        self.entry(0, term)
    }

    fn list_end(&self, term: usize) -> usize {
        self.entry(1, term)
    }

    fn key(&self, term: usize) -> &[u8] {
        let start = if term == 0 { 0 } else { self.key_end(term - 1) };
        self.bytes.get(self.keys_at + start..self.keys_at + self.key_end(term)).unwrap_or_default()
    }

    fn list_at(&self, term: usize) -> List<'_> {
        let start = if term == 0 { 0 } else { self.list_end(term - 1) };
        let bytes = self.bytes.get(self.lists_at + start..self.lists_at + self.list_end(term)).unwrap_or_default();
        List::new(self.payload, self.entry(2, term), Cow::Borrowed(bytes))
    }

    /// The first term whose key is not less.
    fn lower_bound(&self, key: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.terms);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        let term = self.lower_bound(key);
        (term < self.terms && self.key(term) == key).then_some(term)
    }
}

/// An index, whether it takes rows or not.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// It does.
    Growing(&'a Builder),
    /// It does not.
    Sealed(&'a Terms),
}

impl<'a> Source<'a> {
    /// The number of rows.
    pub fn rows(self) -> usize {
        match self {
            Self::Growing(builder) => builder.rows(),
            Self::Sealed(terms) => terms.rows,
        }
    }

    /// What rows have of terms.
    pub fn payload(self) -> Payload {
        match self {
            Self::Growing(builder) => builder.payload(),
            Self::Sealed(terms) => terms.payload,
        }
    }

    /// The rows that have a value.
    pub fn present(self) -> RowMask {
        match self {
            Self::Growing(builder) => builder.present(),
            Self::Sealed(terms) => terms.present(),
        }
    }

    /// How many rows have a value, and the sum of their lengths.
    pub fn totals(self) -> (usize, u64) {
        match self {
            Self::Growing(builder) => (builder.rows_with_value(), builder.total_length()),
            Self::Sealed(terms) => (terms.rows_with_value, terms.total),
        }
    }

    /// How many rows have a term.
    pub fn count(self, key: &[u8]) -> usize {
        match self {
            Self::Growing(builder) => builder.count(key),
            Self::Sealed(terms) => terms.find(key).map_or(0, |term| terms.entry(2, term)),
        }
    }

    fn length(self, row: u32) -> u16 {
        match self {
            Self::Growing(builder) => builder.length(row),
            Self::Sealed(terms) => terms.length(row),
        }
    }

    fn list(self, key: &[u8]) -> Option<List<'a>> {
        match self {
            Self::Growing(builder) => builder.list(key),
            Self::Sealed(terms) => terms.find(key).map(|term| terms.list_at(term)),
        }
    }

    /// The rows of all terms whose keys are in between, and for which `wanted` says yes.
    pub fn between(self, low: Bound<&[u8]>, high: Bound<&[u8]>, wanted: &dyn Fn(&[u8]) -> bool) -> RowMask {
        let mut mask = RowMask::none(self.rows());
        let is_below = |key: &[u8]| match high {
            Bound::Unbounded => true,
            Bound::Included(high) => key <= high,
            Bound::Excluded(high) => key < high,
        };
        match self {
            Self::Growing(builder) => {
                let is_above = |key: &[u8]| match low {
                    Bound::Unbounded => true,
                    Bound::Included(low) => key >= low,
                    Bound::Excluded(low) => key > low,
                };
                for key in builder.keys().filter(|key| is_above(key) && is_below(key) && wanted(key)) {
                    builder.list(key).iter().for_each(|list| list.union_into(&mut mask));
                }
            }
            Self::Sealed(terms) => {
                let first = match low {
                    Bound::Unbounded => 0,
                    Bound::Included(low) => terms.lower_bound(low),
                    Bound::Excluded(low) => terms.lower_bound(low) + usize::from(terms.find(low).is_some()),
                };
                for term in (first..terms.terms).take_while(|&term| is_below(terms.key(term))) {
                    if wanted(terms.key(term)) {
                        terms.list_at(term).union_into(&mut mask);
                    }
                }
            }
        }
        mask
    }
}

/// A key of an integer: keys are in the order of the integers.
pub fn int_key(value: i64) -> [u8; 8] {
    (value as u64 ^ 1 << 63).to_be_bytes()
}

/// A key of a float: keys are in the order of the floats; both zeros have the same. Not of NaN.
pub fn float_key(value: f64) -> [u8; 8] {
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    ordered.to_be_bytes()
}
