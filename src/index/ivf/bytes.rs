use super::{Ivf, List, ListCode, Lists, NLIST_MAX, trained_rows};
use crate::base::codec::{Reader, Write as _};
use crate::base::{Error, ErrorKind, Result};
use crate::distance::Metric;
use crate::index::bytes::{DIM_MAX, field};
use crate::quant::{Coder, KMeans, Pq};

pub(in crate::index) const MAGIC: &[u8; 8] = b"EDDYLIST";
const VERSION: u32 = 1;
const METRICS: [Metric; 5] = [Metric::L2, Metric::Ip, Metric::Cosine, Metric::Hamming, Metric::Jaccard];
/// Centroids of a part.
const PART_CENTROIDS: usize = 256;

impl Ivf {
    /// A part of its bytes: see [`VectorIndex::part`](crate::index::VectorIndex::part).
    ///
    /// Little-endian, version 1. `len` is the dimension, for codes of bits rounded up to a multiple of 64. Codes of a list of `n` rows take
    /// no bytes without codes, `n` times the dimension rounded up to a multiple of 64 with a byte a dimension, `n * len / 8` with a bit,
    /// `n * m` with words of 8 bits, and with words of 4 bits `16 * m` for each 32 rows begun. The blob carries no checksum: whoever stores
    /// it does.
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 8 | `EDDYLIST` |
    /// | 4 | version, 1 |
    /// | 4 | code: 0 none, 1 a byte a dimension, 2 a bit a dimension, 3 words, 4 words of 4 bits for two dimensions each |
    /// | 4 | `m`: words of a code 3, 1 to the dimension; 0 of others |
    /// | 4 | bits of a word of a code 3, 4 or 8; 0 of others |
    /// | 4 | dimension, 1 to 32,768 |
    /// | 4 | metric: 0 L2, 1 IP, 2 COSINE, 3 HAMMING, 4 JACCARD |
    /// | 4 | `nlist`, 1 to 65,536 |
    /// | 4 | `trained`: rows from which the centroids were chosen |
    /// | 4 | `rows`: rows covered |
    /// | 4 | `lists`: how many there are, 0 before there are rows enough |
    /// | lists * len * 4 | centroids, f32 |
    /// | … | words of codes 3 and 4, f32: for each run of `dsub` dimensions (of a code 4 two, else the dimension divided by `m` and rounded up) `2^bits` words of `dsub` numbers |
    /// | of each list: 4 | its rows, `n` |
    /// | n * 4 | their numbers, u32, ascending |
    /// | … | codes |
    /// | n * 8 | a row's scale and offset, f32, where there are codes |
    pub fn part(&self, part: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let centroids = self.serving.as_ref().map_or(&[][..], |lists| lists.means.centroids());
        let mut parts = centroids.chunks(PART_CENTROIDS * self.space.len());
        let Some(part) = part.checked_sub(1) else {
            bytes.put_bytes(MAGIC);
            bytes.put_u32(VERSION);
            let place = |found: Option<usize>| found.expect("all are listed") as u32;
            let (code, m, nbits) = match self.code {
                ListCode::None => (0, 0, 0),
                ListCode::Sq8 => (1, 0, 0),
                ListCode::RaBitQ => (2, 0, 0),
                ListCode::Pq { m, nbits } => (3, m, nbits),
                ListCode::Scann => (4, 0, 0),
            };
            [code, m, nbits].iter().for_each(|&number| bytes.put_u32(number));
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
        let lists = self.serving.as_ref()?;
        if part == before
            && let Some(Coder::Pq(pq)) = &lists.coder
        {
            pq.words().iter().for_each(|&x| bytes.put_f32(x));
        }
        let list = lists.lists.get(part - before)?;
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
        let code_at = reader.offset();
        let code = [reader.u32()?, reader.u32()?, reader.u32()?];
        let dim = field(&mut reader, "dimension", 1, DIM_MAX)? as usize;
        let code = match code {
            [0, 0, 0] => ListCode::None,
            [1, 0, 0] => ListCode::Sq8,
            [2, 0, 0] => ListCode::RaBitQ,
            [3, m, nbits @ (4 | 8)] if (1..=dim).contains(&(m as usize)) => ListCode::Pq { m, nbits },
            [4, 0, 0] => ListCode::Scann,
            _ => return Err(Error::corrupt(format!("at byte {code_at}: code {code:?}"))),
        };
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
        let coder = match code.product(dim, metric) {
            Some((m, nbits, eta)) => {
                let words = reader.bytes(((m * dim.div_ceil(m)) << nbits) * 4)?;
                Some(Coder::Pq(Pq::with_words(dim, m, nbits, eta, floats(words))))
            }
            None => index.coder(),
        };
        let mut opened = Lists::new(trained, KMeans::new(len, floats(centroids)), coder);
        opened.len = rows;
        for list in &mut opened.lists {
            *list = read_list(&mut reader, rows, opened.coder.as_ref())?;
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

fn read_list(reader: &mut Reader<'_>, rows_max: usize, coder: Option<&Coder>) -> Result<List> {
    let count = reader.u32()? as usize;
    let at = reader.offset();
    let rows: Vec<u32> =
        reader.bytes(count.saturating_mul(4))?.as_chunks().0.iter().map(|&four| u32::from_le_bytes(four)).collect();
    if rows.last().is_some_and(|&last| last as usize >= rows_max) || !rows.is_sorted_by(|a, b| a < b) {
        return Err(Error::corrupt(format!("at byte {at}: a list whose rows do not ascend below {rows_max}")));
    }
    let codes = reader.bytes(coder.map_or(0, |coder| coder.codes_len(count)))?.to_vec();
    let factors = reader.bytes(if coder.is_some() { count.saturating_mul(8) } else { 0 })?;
    let factors = floats(factors).as_chunks().0.to_vec();
    Ok(List { rows, codes, factors })
}
