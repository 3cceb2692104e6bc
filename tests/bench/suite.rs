//! What is measured, in the same words natively and in WebAssembly. The host loads a set, names an operation and holds the watch.

use eddydb::base::RowMask;
use eddydb::distance::{AlignedVec, Metric, Sum, kernels};
use eddydb::index::{Hnsw, Vectors, flat};
#[cfg(feature = "hnsw-static")]
use eddydb::index::{Source, StaticHnsw};

/// Results a query asks for.
const K: usize = 10;
/// Queries that have a filter each, at most: the truth of each is a scan.
const FILTERED_QUERIES: usize = 100;
/// Rows a graph search compares at once, about.
const BATCH: usize = 16;
/// Bytes that a kernel reads to be measured: more than processors' caches hold.
const KERNEL_BYTES: usize = 128 << 20;

/// Rows, queries and the rows that are truly nearest to each query, by inner product.
pub struct Suite {
    dim: usize,
    vectors: Vec<f32>,
    queries: Vec<f32>,
    truth: Vec<u32>,
    codes: AlignedVec<u8>,
    code: Vec<i8>,
    shuffled: Vec<u32>,
    index: Hnsw,
    #[cfg(feature = "hnsw-static")]
    fixed: StaticHnsw,
    /// A filter for each query, and what is truly nearest among the rows that it admits.
    filters: Vec<(RowMask, Vec<u32>)>,
    /// What kernels read: the same bytes as floats, and as anything else.
    kernel_floats: Vec<f32>,
    kernel_bytes: Vec<u8>,
}

impl Suite {
    /// Reads a set: u32 dimension, rows, queries, then the rows and the queries as f32, all little-endian. The truth is found
    /// here, by the exact search that the crate's own tests check.
    pub fn new(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let [dim, rows, queries] = [word(0) as usize, word(4) as usize, word(8) as usize];
        let float = |bytes: &[u8]| f32::from_le_bytes(bytes.try_into().expect("four bytes"));
        let floats: Vec<f32> = bytes[12..].chunks_exact(4).map(float).collect();
        assert_eq!(floats.len(), (rows + queries) * dim, "a whole set");
        let (vectors, queries) = floats.split_at(rows * dim);
        let mut codes = AlignedVec::new();
        codes.grow(vectors.len());
        for (code, x) in codes.iter_mut().zip(vectors) {
            *code = (x * 63.0 + 64.0) as u8;
        }
        let code = queries[..dim].iter().map(|x| (x * 127.0) as i8).collect();
        // A walk over all rows with a stride that has no common divisor with most counts: no prefetcher foresees it.
        let shuffled = (0..rows as u64).map(|n| (n * 2_654_435_761 % rows as u64) as u32).collect();
        let mut suite = Self {
            dim,
            vectors: vectors.to_vec(),
            queries: queries.to_vec(),
            truth: Vec::new(),
            codes,
            code,
            shuffled,
            index: Hnsw::new(dim, Metric::Ip, 16, 200),
            #[cfg(feature = "hnsw-static")]
            fixed: StaticHnsw::new(dim, Metric::Ip, 200, 0),
            filters: Vec::new(),
            kernel_floats: Vec::new(),
            kernel_bytes: Vec::new(),
        };
        for query in 0..suite.query_count() {
            let found = suite.exact(query);
            suite.truth.extend(found);
        }
        suite
    }

    pub fn query_count(&self) -> usize {
        self.queries.len() / self.dim
    }

    pub fn row_count(&self) -> usize {
        self.vectors.len() / self.dim
    }

    fn query(&self, query: usize) -> &[f32] {
        &self.queries[query * self.dim..][..self.dim]
    }

    fn exact(&self, query: usize) -> Vec<u32> {
        let vectors = Vectors::new(&self.vectors, self.dim);
        let rows = 0..self.row_count() as u32;
        let found = flat::search(vectors, rows, Metric::Ip, self.query(query), K, None);
        found.iter().map(|neighbor| neighbor.row).collect()
    }

    fn recall(&self, mut search: impl FnMut(usize) -> Vec<u32>) -> f64 {
        let mut hits = 0;
        for query in 0..self.query_count() {
            let truth = &self.truth[query * K..][..K];
            hits += search(query).iter().filter(|row| truth.contains(row)).count();
        }
        hits as f64 / self.truth.len() as f64
    }

    fn nearest(&self, query: &[f32], count: usize, mask: Option<&RowMask>) -> Vec<u32> {
        let vectors = Vectors::new(&self.vectors, self.dim);
        let found = flat::search(vectors, 0..self.row_count() as u32, Metric::Ip, query, count, mask);
        found.iter().map(|neighbor| neighbor.row).collect()
    }

    /// Filters that admit `per_mille` thousandths of the rows each: `random` ones, those `near` the query, those `far` from it, or those
    /// near some row `elsewhere`.
    fn filter(&mut self, kind: &str, per_mille: usize) {
        let rows = self.row_count();
        let count = (rows * per_mille / 1000).max(1);
        let mut filters = Vec::new();
        for query in 0..self.query_count().min(FILTERED_QUERIES) {
            let some_row = (query as u64 * 2_654_435_761 % rows as u64) as usize;
            let admitted = match kind {
                "near" => self.nearest(self.query(query), count, None),
                "elsewhere" => self.nearest(&self.vectors[some_row * self.dim..][..self.dim], count, None),
                "far" => self.nearest(self.query(query), rows, None).split_off(rows - count),
                "random" => {
                    // SplitMix64's finalizer, of query and row.
                    let hash = |row: u32| {
                        let mut hash = ((query as u64) << 32 | u64::from(row)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                        hash ^ (hash >> 27)
                    };
                    (0..rows as u32).filter(|&row| hash(row) % 1000 < per_mille as u64).collect()
                }
                other => panic!("no filter {other}"),
            };
            let mut mask = RowMask::none(rows);
            admitted.into_iter().for_each(|row| mask.insert(row as usize));
            let truth = self.nearest(self.query(query), K, Some(&mask));
            filters.push((mask, truth));
        }
        self.filters = filters;
    }

    /// Does `operation` once and tells its result: a recall, or a number that must be the same everywhere.
    pub fn run(&mut self, operation: &str, argument: usize) -> f64 {
        match operation {
            // The bare kernels: every row once, for one query.
            "scan-f32" => {
                let mut out = vec![0.0; self.row_count()];
                kernels().dot_rows(self.query(0), &self.vectors, &mut out);
                f64::from(out[0])
            }
            "scan-i8" => {
                let rows: Vec<u32> = (0..self.row_count() as u32).collect();
                self.gather(&rows)
            }
            "random-i8" => self.gather(&self.shuffled),
            "exact" => self.recall(|query| self.exact(query)),
            "build" => {
                self.index = Hnsw::new(self.dim, Metric::Ip, 16, 200);
                let vectors = Vectors::new(&self.vectors, self.dim);
                while self.index.len() < vectors.len() {
                    self.index.insert_next(vectors);
                }
                // As when it was written: without room for more rows.
                self.index.settle();
                self.index.memory_bytes() as f64 / self.row_count() as f64
            }
            // The crate instant-distance: what it holds of a row, with `argument` as its `ef`.
            #[cfg(feature = "hnsw-static")]
            "static-build" => {
                self.fixed = StaticHnsw::new(self.dim, Metric::Ip, 200, argument as u32);
                let step = self.fixed.look_up(&Source::Floats(Vectors::new(&self.vectors, self.dim)));
                self.fixed.apply(step);
                self.fixed.memory_bytes() as f64 / self.row_count() as f64
            }
            #[cfg(feature = "hnsw-static")]
            "static" => self.recall(|query| {
                let found = self.fixed.candidates(self.query(query), K, None).unwrap_or_default();
                found.into_iter().take(K).collect()
            }),
            "checksum" => f64::from(eddydb::base::codec::checksum(&self.index.to_bytes())),
            "hnsw" => {
                let vectors = Vectors::new(&self.vectors, self.dim);
                self.recall(|query| {
                    let found = self.index.search(self.query(query), K, argument, None, vectors);
                    found.iter().map(|neighbor| neighbor.row).collect()
                })
            }
            // What comes before "filtered": how the rows are chosen, and how many thousandths of them.
            "filter-random" | "filter-near" | "filter-far" | "filter-elsewhere" => {
                self.filter(&operation["filter-".len()..], argument);
                self.filters.iter().map(|(mask, _)| mask.count()).sum::<usize>() as f64
            }
            "filtered" => {
                let vectors = Vectors::new(&self.vectors, self.dim);
                let (mut hits, mut expected) = (0, 0);
                for (query, (mask, truth)) in self.filters.iter().enumerate() {
                    let found = self.index.search(self.query(query), K, argument, Some(mask), vectors);
                    hits += found.iter().filter(|neighbor| truth.contains(&neighbor.row)).count();
                    expected += truth.len();
                }
                hits as f64 / expected as f64
            }
            kernel if kernel.starts_with("kernel-") => self.kernel(&kernel["kernel-".len()..]),
            other => panic!("no operation {other}"),
        }
    }

    /// One query against all rows of [`KERNEL_BYTES`], in order, a batch at a time; or, as the limit, a bare loop that adds up all the
    /// words that there are.
    fn kernel(&mut self, name: &str) -> f64 {
        if self.kernel_bytes.is_empty() {
            // Of no form is any of these a NaN, too large, or so small that a processor takes long over it.
            self.kernel_bytes =
                (0..KERNEL_BYTES as u64).map(|n| (((n * 0x9e37_79b9) >> 13) as u8 & 0x0b) | 0x30).collect();
            let float = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
            self.kernel_floats = self.kernel_bytes.as_chunks().0.iter().map(float).collect();
        }
        let Self { dim, kernel_bytes: bytes, kernel_floats: floats, queries, code, .. } = self;
        let (dim, query) = (*dim, &queries[..*dim]);
        let signed: &[i8] = code;
        let bits: Vec<u8> =
            query.chunks(8).map(|eight| eight.iter().fold(0, |byte, x| byte << 1 | u8::from(*x > 0.0))).collect();
        let planes: Vec<[u64; 4]> = (0..dim as u64 / 64)
            .map(|n| [n, 3 * n, 5 * n, 7 * n].map(|x| x.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let kernels = kernels();
        let mut total = 0.0;
        let mut sum = |width: usize, gather: &mut dyn FnMut(&[u32], &mut [f32])| {
            let (mut numbers, mut out) = ([0; BATCH], [0.0; BATCH]);
            for first in (0..(KERNEL_BYTES / width / BATCH * BATCH) as u32).step_by(BATCH) {
                numbers.iter_mut().zip(first..).for_each(|(number, row)| *number = row);
                gather(&numbers, &mut out);
                total += f64::from(out[0]);
            }
        };
        let mut whole = [0; BATCH];
        match name {
            "limit" => {
                let words = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
                total = words.fold(0u64, u64::wrapping_add) as f64;
            }
            "f32-dot" => sum(4 * dim, &mut |rows, out| kernels.dot_gather(query, floats, rows, out)),
            "f32-l2" => sum(4 * dim, &mut |rows, out| kernels.l2_gather(query, floats, rows, out)),
            "f16-dot" => sum(2 * dim, &mut |rows, out| kernels.f16_gather(Sum::Products, query, bytes, rows, out)),
            "f16-l2" => sum(2 * dim, &mut |rows, out| kernels.f16_gather(Sum::Squares, query, bytes, rows, out)),
            "bf16-dot" => sum(2 * dim, &mut |rows, out| kernels.bf16_gather(Sum::Products, query, bytes, rows, out)),
            "bf16-l2" => sum(2 * dim, &mut |rows, out| kernels.bf16_gather(Sum::Squares, query, bytes, rows, out)),
            "int8-dot" => sum(dim, &mut |rows, out| {
                kernels.i8_gather(Sum::Products, signed, bytes, rows, &mut whole);
                out[0] = whole[0] as f32;
            }),
            "int8-l2" => sum(dim, &mut |rows, out| {
                kernels.i8_gather(Sum::Squares, signed, bytes, rows, &mut whole);
                out[0] = whole[0] as f32;
            }),
            "codes-dot" => sum(dim, &mut |rows, out| {
                kernels.dot_codes_gather(signed, bytes, rows, &mut whole);
                out[0] = whole[0] as f32;
            }),
            "bits-hamming" => {
                sum(dim / 8, &mut |rows, out| kernels.bits_gather(Metric::Hamming, &bits, bytes, rows, out))
            }
            "bits-jaccard" => {
                sum(dim / 8, &mut |rows, out| kernels.bits_gather(Metric::Jaccard, &bits, bytes, rows, out))
            }
            "rabitq-dot" => sum(dim / 64 * 8, &mut |rows, out| {
                kernels.dot_bits_gather(&planes, bytes, rows, &mut whole);
                out[0] = whole[0] as f32;
            }),
            // A word of 4 bits for every two dimensions, in blocks of 32 rows.
            "pq-lookup" => {
                let (tables, mut out) = (vec![[7; 16]; dim / 2], [0; 32]);
                for block in bytes.chunks_exact(dim / 2 * 16) {
                    kernels.lookup_blocks(&tables, block, &mut out);
                    total += f64::from(out[0]);
                }
            }
            other => panic!("no kernel {other}"),
        }
        total
    }

    fn gather(&self, rows: &[u32]) -> f64 {
        let mut out = [0; BATCH];
        let mut sum = 0i64;
        for rows in rows.chunks(BATCH) {
            kernels().dot_codes_gather(&self.code, &self.codes, rows, &mut out[..rows.len()]);
            sum += i64::from(out[0]);
        }
        sum as f64
    }
}
