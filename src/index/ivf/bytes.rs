use super::{Ivf, List, ListCode, Lists, NLIST_MAX, trained_rows};
use crate::base::codec::{Reader, Write as _};
use crate::base::{Error, ErrorKind, Result};
use crate::distance::Metric;
use crate::index::bytes::{DIM_MAX, field};
use crate::quant::{Coder, KMeans};

pub(in crate::index) const MAGIC: &[u8; 8] = b"EDDYLIST";
const VERSION: u32 = 1;
const METRICS: [Metric; 5] = [Metric::L2, Metric::Ip, Metric::Cosine, Metric::Hamming, Metric::Jaccard];
const CODES: [ListCode; 3] = [ListCode::None, ListCode::Sq8, ListCode::RaBitQ];
/// Centroids of a part.
const PART_CENTROIDS: usize = 256;

impl Ivf {
    /// A part of its bytes: see [`VectorIndex::part`](crate::index::VectorIndex::part).
    ///
    /// Little-endian, version 1. `len` is the dimension, for codes of bits rounded up to a multiple of 64; `width` the bytes of a code:
    /// 0 without codes, the dimension rounded up to a multiple of 64 for bytes, `len / 8` for bits. The blob carries no checksum:
    /// whoever stores it does.
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 8 | `EDDYLIST` |
    /// | 4 | version, 1 |
    /// | 4 | code: 0 none, 1 a byte a dimension, 2 a bit a dimension |
    /// | 4 | dimension, 1 to 32,768 |
    /// | 4 | metric: 0 L2, 1 IP, 2 COSINE, 3 HAMMING, 4 JACCARD |
    /// | 4 | `nlist`, 1 to 65,536 |
    /// | 4 | `trained`: rows from which the centroids were chosen |
    /// | 4 | `rows`: rows covered |
    /// | 4 | `lists`: how many there are, 0 before there are rows enough |
    /// | lists * len * 4 | centroids, f32 |
    /// | of each list: 4 | its rows, `n` |
    /// | n * 4 | their numbers, u32, ascending |
    /// | n * width | codes |
    /// | n * 8 | a row's scale and offset, f32, where there are codes |
    pub fn part(&self, part: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let centroids = self.serving.as_ref().map_or(&[][..], |lists| lists.means.centroids());
        let mut parts = centroids.chunks(PART_CENTROIDS * self.space.len());
        let Some(part) = part.checked_sub(1) else {
            bytes.put_bytes(MAGIC);
            bytes.put_u32(VERSION);
            let place = |found: Option<usize>| found.expect("all are listed") as u32;
            bytes.put_u32(place(CODES.iter().position(|&code| code == self.code)));
            bytes.put_u32(self.space.dim as u32);
            bytes.put_u32(place(METRICS.iter().position(|&metric| metric == self.space.metric)));
            bytes.put_u32(self.nlist);
            let (trained, len, lists) =
                self.serving.as_ref().map_or((0, 0, 0), |lists| (lists.trained, lists.len, lists.lists.len()));
            bytes.put_u32(trained as u32);
            bytes.put_u32(len as u32);
            bytes.put_u32(lists as u32);
            return Some(bytes);
        };
        if let Some(centroids) = parts.nth(part) {
            centroids.iter().for_each(|&x| bytes.put_f32(x));
            return Some(bytes);
        }
        let before = centroids.len().div_ceil(PART_CENTROIDS * self.space.len());
        let list = self.serving.as_ref()?.lists.get(part - before)?;
        bytes.put_u32(list.rows.len() as u32);
        list.rows.iter().for_each(|&row| bytes.put_u32(row));
        bytes.put_bytes(&list.codes);
        list.factors.as_flattened().iter().for_each(|&x| bytes.put_f32(x));
        Some(bytes)
    }

    /// Opens what [`Self::part`] wrote. Numbers that only make a search find the wrong rows are not checked.
    ///
    /// # Errors
    /// `Unsupported` for another version, `Corrupt` with the offset for anything else. Allocates no more than a small multiple of
    /// `bytes.len()`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(8)? != MAGIC {
            return Err(Error::corrupt("at byte 0: no inverted lists (they begin with EDDYLIST)"));
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("at byte 8: inverted lists of version {version}; this build reads version {VERSION}"),
            ));
        }
        let code = CODES[field(&mut reader, "code", 0, CODES.len() as u32 - 1)? as usize];
        let dim = field(&mut reader, "dimension", 1, DIM_MAX)? as usize;
        let metric = METRICS[field(&mut reader, "metric", 0, METRICS.len() as u32 - 1)? as usize];
        let nlist = field(&mut reader, "nlist", 1, NLIST_MAX)?;
        let at = reader.offset();
        let [trained, rows] = [reader.u32()? as usize, reader.u32()? as usize];
        let lists = field(&mut reader, "lists", 0, nlist)? as usize;
        let is_level = trained_rows(trained, nlist) == trained;
        let fits = if lists == 0 { (trained, rows) == (0, 0) } else { is_level && trained <= rows };
        if !fits || (code != ListCode::None && matches!(metric, Metric::Hamming | Metric::Jaccard)) {
            return Err(Error::corrupt(format!("at byte {at}: {rows} rows, trained on {trained}, in {lists} lists")));
        }
        let mut index = Self::new(dim, metric, nlist, code);
        if lists == 0 {
            return end(&reader).map(|()| index);
        }
        let len = index.space.len();
        let centroids = reader.bytes(lists.saturating_mul(len).saturating_mul(4))?;
        let mut opened = Lists::new(trained, KMeans::new(len, floats(centroids)), index.coder());
        opened.len = rows;
        let width = opened.coder.as_ref().map_or(0, Coder::width);
        for list in &mut opened.lists {
            *list = read_list(&mut reader, rows, width)?;
        }
        end(&reader)?;
        index.serving = Some(opened);
        Ok(index)
    }
}

fn end(reader: &Reader<'_>) -> Result<()> {
    match reader.remaining() {
        0 => Ok(()),
        more => Err(Error::corrupt(format!("at byte {}: {more} bytes too many", reader.offset()))),
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect()
}

fn read_list(reader: &mut Reader<'_>, rows_max: usize, width: usize) -> Result<List> {
    let count = reader.u32()? as usize;
    let at = reader.offset();
    let rows: Vec<u32> =
        reader.bytes(count.saturating_mul(4))?.as_chunks().0.iter().map(|&four| u32::from_le_bytes(four)).collect();
    if rows.last().is_some_and(|&last| last as usize >= rows_max) || !rows.is_sorted_by(|a, b| a < b) {
        return Err(Error::corrupt(format!("at byte {at}: a list whose rows do not ascend below {rows_max}")));
    }
    let codes = reader.bytes(count.saturating_mul(width))?.to_vec();
    let factors = reader.bytes(if width > 0 { count.saturating_mul(8) } else { 0 })?;
    let factors = floats(factors).as_chunks().0.to_vec();
    Ok(List { rows, codes, factors })
}
