//! HNSW_STATIC: the graph of the crate [`instant_distance`], as one more kind of index, so that it can be compared with our own.
//!
//! It is built at once, over all rows of a segment that takes no more, on one thread, with a fixed seed; it keeps its own copy of the
//! vectors as floats, has 32 neighbours a node (64 on the lowest level), and its `ef` is chosen when it is built. It knows no
//! filter: what a search finds is filtered after, and where too little is left all admitted rows are compared.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use instant_distance::{Builder, Hnsw, Search};
use serde::{Deserialize, Serialize};

use super::Source;
use super::bytes::{DIM_MAX, field};
use crate::base::codec::{Reader, Write as _};
use crate::base::{Error, ErrorKind, Result, RowMask};
use crate::distance::Metric;
use crate::quant::sums::{dot, tame};

const MAGIC: &[u8; 8] = b"EDDYFIXD";
const VERSION: u32 = 1;
/// Neighbours of a node on upper levels, twice as many on the lowest.
const M: usize = 32;
/// The largest `ef`, of building and of searching.
pub(super) const EF_MAX: u32 = 65_536;
const METRICS: [Metric; 3] = [Metric::L2, Metric::Ip, Metric::Cosine];
/// Bytes of a part.
const PART_BYTES: usize = 256 << 10;
/// What levels are drawn by: the same graph comes of the same rows.
const SEED: u64 = 0x0ec0_de0f_5135_7357;

/// A vector as the graph knows it.
#[derive(Debug, Clone)]
struct Point {
    /// Of length 1 for COSINE.
    numbers: Vec<f32>,
    /// The squared length for L2, else nothing.
    offset: Option<f32>,
}

impl Point {
    fn new(metric: Metric, vector: &[f32]) -> Self {
        let mut numbers = Vec::new();
        tame(vector, &mut numbers);
        let square = dot(&numbers, &numbers);
        if metric == Metric::Cosine && square > 0.0 {
            let per_length = 1.0 / square.sqrt();
            numbers.iter_mut().for_each(|x| *x *= per_length);
        }
        Self { numbers, offset: (metric == Metric::L2).then_some(square) }
    }
}

impl instant_distance::Point for Point {
    fn distance(&self, other: &Self) -> f32 {
        let product = dot(&self.numbers, &other.numbers);
        match (self.offset, other.offset) {
            (Some(left), Some(right)) => left + right - 2.0 * product,
            _ => -product,
        }
    }
}

/// A byte that tells whether it is compared by L2, then the numbers.
impl Serialize for Point {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut bytes = vec![u8::from(self.offset.is_some())];
        self.numbers.iter().for_each(|&x| bytes.put_f32(x));
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let bytes = serde_bytes::ByteBuf::deserialize(deserializer)?;
        let (is_l2, numbers) = bytes.split_first().unwrap_or((&0, &[]));
        let numbers: Vec<f32> = numbers.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
        let offset = (*is_l2 == 1).then(|| dot(&numbers, &numbers));
        Ok(Self { numbers, offset })
    }
}

/// The same bytes as the graph's own, to see what is in them before it is believed.
#[derive(Deserialize)]
struct Seen(usize, Vec<Point>, Vec<Vec<u32>>, Vec<Vec<Vec<u32>>>);

/// The graph over the first `len` rows of a segment.
#[derive(Clone)]
pub struct StaticHnsw {
    dim: usize,
    metric: Metric,
    ef_construction: u32,
    ef_search: u32,
    built: Option<Arc<Built>>,
}

struct Built {
    graph: Hnsw<Point>,
    /// Of each point, its row.
    rows: Vec<u32>,
    searches: Mutex<Vec<Search>>,
    /// What is written of it, while it is.
    packed: OnceLock<Vec<u8>>,
}

impl std::fmt::Debug for StaticHnsw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StaticHnsw of {} rows", self.len())
    }
}

/// What building will write.
#[derive(Debug)]
pub struct StaticStep(StaticHnsw);

impl StaticHnsw {
    /// An empty index for vectors of `dim` dimensions; both `ef` are brought into 1..=65,536.
    pub fn new(dim: usize, metric: Metric, ef_construction: u32, ef_search: u32) -> Self {
        let [ef_construction, ef_search] = [ef_construction, ef_search].map(|ef| ef.clamp(1, EF_MAX));
        Self { dim, metric, ef_construction, ef_search, built: None }
    }

    /// How many rows it covers.
    pub fn len(&self) -> usize {
        self.built.as_ref().map_or(0, |built| built.rows.len())
    }

    /// Whether it covers no row.
    pub fn is_empty(&self) -> bool {
        self.built.is_none()
    }

    /// The dimension of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The metric that it was built for.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// As how many candidates a search keeps.
    pub fn ef_search(&self) -> usize {
        self.ef_search as usize
    }

    /// Whether it was made by the same parameters as `other`.
    pub fn is_like(&self, other: &Self) -> bool {
        let shape = |of: &Self| (of.dim, of.metric, of.ef_construction, of.ef_search);
        shape(self) == shape(other)
    }

    /// Gives back what was only needed to write it.
    pub fn settle(&mut self) {
        if let Some(built) = self.built.as_mut().and_then(Arc::get_mut) {
            built.packed.take();
        }
    }

    /// How many bytes are held, about: with its own copy of the vectors.
    pub fn memory_bytes(&self) -> usize {
        let Some(built) = &self.built else { return 0 };
        // As the crate sizes its levels, each of 1 / ln(32) of the one below.
        let (mut nodes, mut level) = (0, built.rows.len());
        while level >= M {
            level = (level as f32 * 0.288_539) as usize;
            nodes += level;
        }
        let point = size_of::<Point>() + self.dim * 4 + 2 * M * 4 + 4;
        built.rows.len() * point + nodes * M * 4 + built.packed.get().map_or(0, Vec::len)
    }

    /// Builds it over all rows of `source`: all at once.
    pub fn look_up(&self, source: &Source<'_>) -> StaticStep {
        let mut room = Vec::new();
        let none = vec![0.0; self.dim];
        let point = |row| Point::new(self.metric, source.numbers(row, &mut room).unwrap_or(&none));
        let points: Vec<Point> = (0..source.len() as u32).map(point).collect();
        let builder = Builder::default()
            .seed(SEED)
            .ef_construction(self.ef_construction as usize)
            .ef_search(self.ef_search as usize);
        let build = || builder.build_hnsw(points);
        // On several threads what comes of it would depend on which is first.
        let (graph, places) = match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
            Ok(pool) => pool.install(build),
            Err(_) => build(),
        };
        let mut rows = vec![0; places.len()];
        for (row, place) in (0..).zip(places) {
            rows[place.into_inner() as usize] = row;
        }
        StaticStep(Self { built: Some(Arc::new(Built::new(graph, rows))), ..self.clone() })
    }

    /// Takes what was built.
    pub fn apply(&mut self, step: StaticStep) {
        *self = step.0;
    }

    /// The rows closest to `query` among those that `mask` admits, closest first; `None` when all admitted ones should be compared:
    /// when more than `ef_search` are wanted, or too few of those found are admitted.
    pub fn candidates(&self, query: &[f32], k: usize, mask: Option<&RowMask>) -> Option<Vec<u32>> {
        let built = self.built.as_ref().filter(|built| k <= self.ef_search().min(built.rows.len()))?;
        let searches = || built.searches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut search = searches().pop().unwrap_or_default();
        let query = Point::new(self.metric, query);
        let found = built.graph.search(&query, &mut search).map(|item| built.rows[item.pid.into_inner() as usize]);
        let mut found: Vec<u32> = found.collect();
        searches().push(search);
        found.retain(|&row| mask.is_none_or(|mask| mask.contains(row as usize)));
        found.truncate(2 * k);
        (found.len() >= k).then_some(found)
    }

    /// A part of its bytes; `None` after the last. Little-endian, version 1:
    ///
    /// | bytes | what |
    /// |---|---|
    /// | 8 | `EDDYFIXD` |
    /// | 4 | version, 1 |
    /// | 4 | dimension, 1 to 32,768 |
    /// | 4 | metric: 0 L2, 1 IP, 2 COSINE |
    /// | 4, 4 | `ef` of building and of searching, 1 to 65,536 |
    /// | 4 | `rows` |
    /// | rows * 4 | the row of each point, u32 |
    /// | … | the graph as `instant-distance` 0.6 serialises it, in MessagePack; of points a byte that is 1 for L2, and the numbers, f32 |
    pub fn part(&self, part: usize) -> Option<Vec<u8>> {
        if let Some(part) = part.checked_sub(1) {
            let built = self.built.as_ref()?;
            let packed = built.packed.get_or_init(|| rmp_serde::to_vec(&built.graph).unwrap_or_default());
            let start = part.checked_mul(PART_BYTES).filter(|start| *start < packed.len())?;
            return Some(packed[start..packed.len().min(start + PART_BYTES)].to_vec());
        }
        let mut bytes = Vec::new();
        bytes.put_bytes(MAGIC);
        let metric = METRICS.iter().position(|metric| *metric == self.metric).unwrap_or(0);
        let rows = self.built.as_ref().map_or(&[][..], |built| &built.rows);
        let head = [VERSION, self.dim as u32, metric as u32, self.ef_construction, self.ef_search, rows.len() as u32];
        head.iter().chain(rows).for_each(|&number| bytes.put_u32(number));
        Some(bytes)
    }

    /// Opens what [`Self::part`] wrote. All that a search follows is checked first.
    ///
    /// # Errors
    /// `Unsupported` for another version, `Corrupt` with the offset for anything else. Allocates no more than a small multiple of
    /// `bytes.len()`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.bytes(8)? != MAGIC {
            return Err(Error::corrupt("at byte 0: no static graph (it begins with EDDYFIXD)"));
        }
        let version = reader.u32()?;
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("at byte 8: a static graph of version {version}; this build reads version {VERSION}"),
            ));
        }
        let dim = field(&mut reader, "dimension", 1, DIM_MAX)? as usize;
        let metric = METRICS[field(&mut reader, "metric", 0, 2)? as usize];
        let ef_construction = field(&mut reader, "ef of building", 1, EF_MAX)?;
        let ef_search = field(&mut reader, "ef of searching", 1, EF_MAX)?;
        let count = reader.u32()? as usize;
        let at = reader.offset();
        let rows = reader.bytes(count.saturating_mul(4))?.as_chunks().0;
        let rows: Vec<u32> = rows.iter().map(|&four| u32::from_le_bytes(four)).collect();
        let mut seen = RowMask::none(count);
        for &row in &rows {
            if row as usize >= count || seen.contains(row as usize) {
                return Err(Error::corrupt(format!("at byte {at}: row {row} of {count}, twice or past the end")));
            }
            seen.insert(row as usize);
        }
        let empty = Self::new(dim, metric, ef_construction, ef_search);
        let at = reader.offset();
        let packed = reader.bytes(reader.remaining())?;
        if count == 0 && packed.is_empty() {
            return Ok(empty);
        }
        let wrong = |what: &str| Error::corrupt(format!("at byte {at}: a static graph {what}"));
        let seen: Seen = rmp_serde::from_slice(packed).map_err(|error| wrong(&error.to_string()))?;
        check(&seen, count, dim, metric).map_err(wrong)?;
        if seen.0 != ef_search as usize {
            return Err(wrong("of another ef"));
        }
        drop(seen);
        let graph: Hnsw<Point> = rmp_serde::from_slice(packed).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { built: Some(Arc::new(Built::new(graph, rows))), ..empty })
    }
}

/// Whether a search follows links to points only that are there.
fn check(seen: &Seen, count: usize, dim: usize, metric: Metric) -> std::result::Result<(), &'static str> {
    let Seen(_, points, zero, layers) = seen;
    let is_l2 = metric == Metric::L2;
    if count == 0 || points.len() != count || zero.len() != count {
        return Err("of another number of rows");
    }
    if points.iter().any(|point| point.numbers.len() != dim || point.offset.is_some() != is_l2) {
        return Err("of vectors of another dimension or metric");
    }
    if points.iter().any(|point| point.numbers.iter().any(|x| !x.is_finite())) {
        return Err("of vectors that are no numbers");
    }
    let is_list = |list: &[u32], slots: usize, nodes: usize| {
        list.len() == slots && list.iter().all(|&other| other == u32::MAX || (other as usize) < nodes)
    };
    if !zero.iter().all(|list| is_list(list, 2 * M, count)) {
        return Err("whose lists lead out of it");
    }
    // A search goes down from the last one: a node of a level is on all below.
    let mut below = count;
    for layer in layers {
        if layer.is_empty() || layer.len() > below || !layer.iter().all(|list| is_list(list, M, layer.len())) {
            return Err("whose upper lists lead out of it");
        }
        below = layer.len();
    }
    Ok(())
}

impl Built {
    fn new(graph: Hnsw<Point>, rows: Vec<u32>) -> Self {
        Self { graph, rows, searches: Mutex::default(), packed: OnceLock::new() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::Random;
    use crate::index::{Vectors, flat};

    const DIM: usize = 16;

    fn sample(rows: usize) -> Vec<f32> {
        let mut random = Random::new(3);
        (0..rows * DIM).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect()
    }

    fn build(metric: Metric, data: &[f32]) -> StaticHnsw {
        let mut index = StaticHnsw::new(DIM, metric, 60, 80);
        let step = index.look_up(&Source::Floats(Vectors::new(data, DIM)));
        index.apply(step);
        index
    }

    fn bytes(index: &StaticHnsw) -> Vec<u8> {
        (0..).map_while(|part| index.part(part)).flatten().collect()
    }

    #[test]
    fn finds_what_a_scan_finds_and_survives_bytes() {
        let data = sample(3_000);
        let vectors = Vectors::new(&data, DIM);
        for metric in METRICS {
            let index = build(metric, &data);
            let written = bytes(&index);
            assert!(written == bytes(&build(metric, &data)), "the same rows give the same graph");
            let opened = StaticHnsw::from_bytes(&written).unwrap();
            assert!(opened.is_like(&index) && bytes(&opened) == written);
            let mask: RowMask = (0..3_000).map(|row| row % 2 == 0).collect();
            for mask in [None, Some(&mask)] {
                let mut hits = 0;
                for query in sample(20).chunks_exact(DIM) {
                    let found = opened.candidates(query, 10, mask).unwrap();
                    let truth = flat::search(vectors, 0..3_000, metric, query, 10, mask);
                    hits += truth.iter().filter(|truth| found.contains(&truth.row)).count();
                    assert!(found.iter().all(|&row| mask.is_none_or(|mask| mask.contains(row as usize))));
                }
                assert!(hits >= 180, "{metric:?}: {hits} of 200");
            }
            assert!(opened.candidates(&data[..DIM], 81, None).is_none(), "more than it keeps");
            let few: RowMask = (0..3_000).map(|row| row < 3).collect();
            assert!(opened.candidates(&data[..DIM], 10, Some(&few)).is_none(), "too few are admitted");
            assert!(index.memory_bytes() > 3_000 * (DIM * 4 + 256));
        }
        let empty = StaticHnsw::new(DIM, Metric::Ip, 60, 80);
        assert!(StaticHnsw::from_bytes(&bytes(&empty)).unwrap().is_empty());
    }

    #[test]
    fn every_truncation_is_corrupt_and_another_version_unsupported() {
        let mut written = bytes(&build(Metric::Cosine, &sample(100)));
        for len in (0..written.len()).step_by(7) {
            let error = StaticHnsw::from_bytes(&written[..len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{len}: {error}");
            assert!(error.message().contains("at byte"), "{error}");
        }
        written[8] = 2;
        assert_eq!(StaticHnsw::from_bytes(&written).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    proptest! {
        #[test]
        fn flipped_bytes_are_refused_or_harmless(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut written = bytes(&build(Metric::L2, &sample(100)));
            for (at, value) in flips {
                let at = at.index(written.len());
                written[at] = value;
            }
            match StaticHnsw::from_bytes(&written) {
                Ok(index) => {
                    index.candidates(&vec![0.5; index.dim()], 5, None);
                }
                Err(error) => {
                    prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported));
                }
            }
        }
    }
}
