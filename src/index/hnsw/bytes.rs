use super::codes::{Codes, GraphCodes};
use super::links::{Links, NONE, level_of};
use super::twins::Twins;
use super::{ALPHA_PERCENT_MAX, EF_CONSTRUCTION_MAX, Hnsw, M_MAX, ROWS_MAX};
use crate::base::codec::{Reader, Write as _};
use crate::base::{Error, ErrorKind, Result};
use crate::distance::{AlignedVec, Metric, kernels};

const MAGIC: &[u8; 8] = b"EDDYHNSW";
const VERSION: u32 = 1;
/// As large as the model allows a vector to be; keeps `dim` from deciding an allocation alone.
const DIM_MAX: u32 = 32_768;
/// And of bits.
const BITS_MAX: u32 = 262_144;
const METRICS: [Metric; 5] = [Metric::L2, Metric::Ip, Metric::Cosine, Metric::Hamming, Metric::Jaccard];
/// What is added to the metric's number for RaBitQ codes.
const RABITQ: u32 = 256;
/// And for product codes.
const PRODUCT: u32 = 2 * RABITQ;
/// Rows of one part.
const PART_ROWS: usize = 512;

impl Hnsw {
    /// The index as bytes. The same rows give the same bytes on every target.
    ///
    /// Little-endian, version 1. `stride` is `dim` rounded up to a multiple of 64, `m0` is `2 * m`; a neighbour list ends at its
    /// last slot or at the first slot with 0xffff_ffff. The blob carries no checksum: whoever stores it does.
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 8 | `EDDYHNSW` |
    /// | 4 | version, 1 |
    /// | 4 | dimension, 1 to 32,768; of bits to 262,144 |
    /// | 4 | metric: 0 L2, 1 IP, 2 COSINE, 3 HAMMING, 4 JACCARD; 256 more for the first three with RaBitQ, 512 with product codes |
    /// | 4 | `m`, 2 to 2,048 |
    /// | 4 | `ef_construction`, `m` to 65,536 |
    /// | 4 | `alpha` in hundredths, 100 to 200 |
    /// | 4, 4 | runs of dimensions and bits of a word of product codes; 0 of others |
    /// | 4 | `rows` |
    /// | 4 | the entry's row, 0xffff_ffff when the graph has no node |
    /// | 4 | the zero row, 0xffff_ffff for none |
    /// | 4 | `lists`: how many lists there are on upper levels (follows from `m` and `rows`, as levels do) |
    /// | 4 | `twins`: how many links between twins |
    /// | 4, … | of product codes: how many rows the words are of, 0 for none; the words, f32: for each run `2^bits` of the dimension divided by the runs and rounded up |
    /// | rows * stride | codes, u8: 64 is zero, 1 to 127; RaBitQ: two bits for each of `dim` rounded up to a multiple of 64; product codes: a byte for each run, or for two of them, the first in the lower half; bits: `dim / 8` bytes as they are |
    /// | rows * 8 | a row's scale and offset, f32; not of bits |
    /// | rows * m0 * 4 | neighbours on level 0, u32 |
    /// | lists * m * 4 | neighbours on the upper levels, u32: by row, level 1 first |
    /// | twins * 8 | row and the next one in its chain, u32, ascending by row |
    pub fn to_bytes(&self) -> Vec<u8> {
        (0..).map_while(|part| self.part(part)).flatten().collect()
    }

    /// A part of these bytes, a few hundred KB at most; `None` after the last.
    pub fn part(&self, part: usize) -> Option<Vec<u8>> {
        let rows = self.len();
        let parts = rows.div_ceil(PART_ROWS);
        let (level_0, upper) = self.links.arrays();
        let rows_of = |part: usize| part * PART_ROWS..rows.min((part + 1) * PART_ROWS);
        let arrays = self.codes.arrays();
        let mut bytes = Vec::new();
        match part.checked_sub(1) {
            None => self.write_head(&mut bytes),
            Some(part) if part < arrays * parts => self.codes.write(&mut bytes, part / parts, rows_of(part % parts)),
            Some(part) if part < (arrays + 1) * parts => {
                let rows = rows_of(part - arrays * parts);
                put_lists(&mut bytes, &level_0[rows.start * 2 * self.m..rows.end * 2 * self.m]);
            }
            Some(part) if part == (arrays + 1) * parts => {
                put_lists(&mut bytes, upper);
                for (row, next) in self.twins.links() {
                    bytes.put_u32(row);
                    bytes.put_u32(next);
                }
            }
            Some(_) => return None,
        }
        Some(bytes)
    }

    fn write_head(&self, bytes: &mut Vec<u8>) {
        bytes.put_bytes(MAGIC);
        bytes.put_u32(VERSION);
        bytes.put_u32(self.dim as u32);
        let metric = METRICS.iter().position(|metric| *metric == self.metric).unwrap_or(0);
        let (codes, runs, nbits) = match self.codes.kind() {
            GraphCodes::Sq8 => (0, 0, 0),
            GraphCodes::RaBitQ => (RABITQ, 0, 0),
            GraphCodes::Pq { num_sub_vectors, nbits } => (PRODUCT, num_sub_vectors, nbits),
        };
        bytes.put_u32(metric as u32 + codes);
        bytes.put_u32(self.m as u32);
        bytes.put_u32(self.ef_construction as u32);
        [self.alpha_percent, runs, nbits].iter().for_each(|&number| bytes.put_u32(number));
        bytes.put_u32(self.len() as u32);
        bytes.put_u32(self.entry.unwrap_or(NONE));
        bytes.put_u32(self.zero.unwrap_or(NONE));
        bytes.put_u32((self.links.arrays().1.len() / self.m) as u32);
        bytes.put_u32(self.twins.links().count() as u32);
        self.codes.write_words(bytes);
    }

    /// Opens what [`Hnsw::to_bytes`] wrote. Everything that could make a search read outside the rows or never end is checked;
    /// numbers that only make it find the wrong rows are not.
    ///
    /// # Errors
    /// `Unsupported` for another version, `Corrupt` with the offset for anything else. Allocates no more than a small multiple
    /// of `bytes.len()`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(8)? != MAGIC {
            return Err(Error::corrupt("at byte 0: no HNSW index (it begins with EDDYHNSW)"));
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("at byte 8: an HNSW index of version {version}; this build reads version {VERSION}"),
            ));
        }
        let dim_at = reader.offset();
        let dim = field(&mut reader, "dimension", 1, BITS_MAX)?;
        let metric_at = reader.offset();
        let number = reader.u32()?;
        let metric = METRICS.get((number % RABITQ) as usize).copied();
        let metric = metric.filter(|metric| number < RABITQ || (number < 3 * RABITQ && !metric.is_of_bits()));
        let Some(metric) = metric else {
            return Err(Error::corrupt(format!(
                "at byte {metric_at}: metric {number}, expected 0 to 4 and 0, 256 or 512"
            )));
        };
        if dim > DIM_MAX && !metric.is_of_bits() {
            return Err(Error::corrupt(format!("at byte {dim_at}: dimension {dim}, expected 1 to {DIM_MAX}")));
        }
        let dim = dim as usize;
        let m = field(&mut reader, "m", 2, M_MAX)?;
        let ef_construction = field(&mut reader, "ef_construction", m, EF_CONSTRUCTION_MAX)? as usize;
        let m = m as usize;
        let alpha_percent = field(&mut reader, "alpha", 100, ALPHA_PERCENT_MAX)?;
        let runs_at = reader.offset();
        let codes = match (number / RABITQ, reader.u32()?, reader.u32()?) {
            (0, 0, 0) => GraphCodes::Sq8,
            (1, 0, 0) => GraphCodes::RaBitQ,
            (2, num_sub_vectors, nbits @ (4 | 8)) if (1..=dim).contains(&(num_sub_vectors as usize)) => {
                GraphCodes::Pq { num_sub_vectors, nbits }
            }
            (_, runs, nbits) => {
                return Err(Error::corrupt(format!(
                    "at byte {runs_at}: {runs} words of {nbits} bits of {dim} dimensions"
                )));
            }
        };
        let rows = field(&mut reader, "rows", 0, ROWS_MAX as u32)? as usize;
        let entry = optional_row(&mut reader, "entry", rows)?;
        let zero = optional_row(&mut reader, "zero row", rows)?;
        let lists_at = reader.offset();
        let lists = reader.u32()?;
        let twins = reader.u32()? as usize;
        let codes = Codes::read_from(&mut reader, dim, metric, codes, rows)?;
        // The codes of all rows were there, so `rows` is a number of work that the bytes have paid for.
        let lists_expected: u64 = (0..rows as u32).map(|row| u64::from(level_of(row, m))).sum();
        if u64::from(lists) != lists_expected {
            return Err(Error::corrupt(format!(
                "at byte {lists_at}: {lists} lists on upper levels, {rows} rows have {lists_expected}"
            )));
        }
        let level_0 = neighbors(&mut reader, rows, 2 * m, rows)?;
        let upper_at = reader.offset();
        let upper = neighbors(&mut reader, lists as usize, m, rows)?;
        check_levels(&upper, m, rows, upper_at)?;
        let twins_at = reader.offset();
        let twins: Vec<(u32, u32)> = reader
            .bytes(twins.saturating_mul(8))?
            .chunks_exact(8)
            .map(|pair| {
                let [row, next] =
                    [0, 4].map(|at| u32::from_le_bytes([pair[at], pair[at + 1], pair[at + 2], pair[at + 3]]));
                (row, next)
            })
            .collect();
        if reader.remaining() != 0 {
            return Err(Error::corrupt(format!("at byte {}: {} bytes too many", reader.offset(), reader.remaining())));
        }
        let twins = Twins::from_links(rows, &twins)
            .map_err(|(index, what)| Error::corrupt(format!("at byte {}: {what}", twins_at + index * 8)))?;
        let mut graph = Self {
            dim,
            metric,
            m,
            ef_construction,
            alpha_percent,
            kernels: kernels(),
            codes,
            links: Links::from_arrays(m, rows, level_0, upper),
            twins,
            entry,
            zero,
            parents: Vec::new(),
            looked: Default::default(),
            has_absent: false,
            scratch: Default::default(),
        };
        graph.has_absent = (0..rows as u32).any(|row| graph.is_absent(row));
        Ok(graph)
    }
}

fn put_lists(bytes: &mut Vec<u8>, lists: &[u32]) {
    bytes.reserve(lists.len() * 4);
    lists.iter().for_each(|neighbor| bytes.put_u32(*neighbor));
}

fn field(reader: &mut Reader<'_>, name: &str, min: u32, max: u32) -> Result<u32> {
    let at = reader.offset();
    let value = reader.u32()?;
    if !(min..=max).contains(&value) {
        return Err(Error::corrupt(format!("at byte {at}: {name} {value}, expected {min} to {max}")));
    }
    Ok(value)
}

fn optional_row(reader: &mut Reader<'_>, name: &str, rows: usize) -> Result<Option<u32>> {
    let at = reader.offset();
    let row = reader.u32()?;
    match row {
        NONE => Ok(None),
        row if (row as usize) < rows => Ok(Some(row)),
        row => Err(Error::corrupt(format!("at byte {at}: {name} {row} of {rows} rows"))),
    }
}

/// `lists` lists of `slots` neighbours, each a row below `rows`, up to the list's end.
fn neighbors(reader: &mut Reader<'_>, lists: usize, slots: usize, rows: usize) -> Result<AlignedVec<u32>> {
    let at = reader.offset();
    let bytes = reader.bytes(lists.saturating_mul(slots).saturating_mul(4))?;
    let mut array = AlignedVec::new();
    array.grow(lists * slots);
    for (to, from) in array.iter_mut().zip(bytes.chunks_exact(4)) {
        *to = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
    }
    if let Some(slot) = array.iter().position(|&neighbor| neighbor != NONE && neighbor as usize >= rows) {
        return Err(Error::corrupt(format!(
            "at byte {}: neighbour {} of list {}, there are {rows} rows",
            at + slot * 4,
            array[slot],
            slot / slots
        )));
    }
    Ok(array)
}

/// A list on an upper level may only name nodes that have a list on that level too: a search reads it next.
fn check_levels(upper: &[u32], m: usize, rows: usize, at: usize) -> Result<()> {
    let mut lists = upper.chunks_exact(m).enumerate();
    for row in 0..rows as u32 {
        for level in 1..=level_of(row, m) {
            let (index, list) = lists.next().expect("the number of lists was checked against the levels");
            let stray = list.iter().position(|&neighbor| neighbor != NONE && level_of(neighbor, m) < level);
            if let Some(slot) = stray {
                return Err(Error::corrupt(format!(
                    "at byte {}: row {row} has neighbour {} on level {level}, which is on level {} at most",
                    at + (index * m + slot) * 4,
                    list[slot],
                    level_of(list[slot], m)
                )));
            }
        }
    }
    Ok(())
}
