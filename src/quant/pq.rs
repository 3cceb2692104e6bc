use super::sums::dot;
use super::{KMeans, KMeansRoom, spread};
use crate::distance::Kernels;

/// Rows of a block of codes of 4 bits.
const BLOCK_ROWS: usize = 32;
/// Bytes of a block for each subvector: two rows a byte.
const BLOCK_BYTES: usize = 16;
/// Passes over the sample for each codebook.
const PASSES: usize = 6;
/// Times that subvectors are chosen anew for the sake of the others.
const SWEEPS: usize = 3;

/// Product codes: a vector is cut into `num_sub_vectors` (M) runs, and each is replaced by the nearest of `2^nbits` words of its own
/// codebook. A product with a query is a sum of as many numbers looked up in a table.
///
/// Source: Jégou, Douze & Schmid, "Product Quantization for Nearest Neighbor Search" (2011). With `eta` above 1 words are chosen so that
/// the error along the vector costs `eta` times as much as that across it, which keeps large products right: Guo et al., "Accelerating
/// Large-Scale Inference with Anisotropic Vector Quantization" (2020), sections 3 and 4. Codebooks are trained by plain k-means first, then
/// for that cost: see [`PqTraining`].
///
/// Codes of 8 bits lie row by row. Those of 4 bits lie in blocks of 32 rows, so that one instruction looks up 16 of them: for each
/// subvector 16 bytes, of which byte `n` has row `n` in its lower and row `16 + n` in its upper half.
#[derive(Debug, Clone)]
pub struct Pq {
    dim: usize,
    m: usize,
    nbits: u32,
    eta: f32,
    /// `[m, 2^nbits, dsub]`; the numbers of a subvector that reaches past the end are 0 there.
    words: Vec<f32>,
}

/// A table of products for each word of each subvector, and room to work in.
#[derive(Debug, Clone, Default)]
pub struct Table {
    products: Vec<f32>,
    /// The same in steps, for codes of 4 bits.
    steps: Vec<[u8; 16]>,
    step: f32,
    least: f32,
    sums: Vec<u16>,
}

/// Codebooks while they are trained, by steps that are looked up first and taken then.
///
/// Where errors along a vector cost more, words that k-means has found are improved by turns: the sample is encoded, then each word is put where
/// the rows that have it cost least, the other words of these rows being what they are: a small linear system for each word, one
/// codebook after the other.
#[derive(Debug, Clone)]
pub struct PqTraining {
    pq: Pq,
    /// `[rows, dim]`.
    sample: Vec<f32>,
    /// Of each row, the vector along which errors cost more; empty where none do.
    along: Vec<f32>,
    improving: Option<Improving>,
    means: Option<KMeans>,
    /// Where training is: subvector, pass, row.
    at: (usize, usize, usize),
}

impl Pq {
    /// No words yet. Panics when there are more subvectors than dimensions, or `nbits` is neither 4 nor 8.
    fn new(dim: usize, m: usize, nbits: u32, eta: f32) -> Self {
        assert!((1..=dim).contains(&m) && matches!(nbits, 4 | 8), "{m} subvectors of {dim} dimensions, {nbits} bits");
        Self { dim, m, nbits, eta, words: Vec::new() }
    }

    /// With these words, `[m, 2^nbits, dsub]`. Panics as [`PqTraining::new`] does, and when there are more or fewer words.
    pub fn with_words(dim: usize, m: usize, nbits: u32, eta: f32, words: Vec<f32>) -> Self {
        let pq = Self { words, ..Self::new(dim, m, nbits, eta) };
        assert_eq!(pq.words.len(), pq.words_len(), "words of all codebooks");
        pq
    }

    /// The words, as [`Self::with_words`] takes them.
    pub fn words(&self) -> &[f32] {
        &self.words
    }

    /// Numbers in all words.
    fn words_len(&self) -> usize {
        self.m * self.book_len()
    }

    /// Numbers in the words of one subvector.
    fn book_len(&self) -> usize {
        self.dsub() << self.nbits
    }

    fn dsub(&self) -> usize {
        self.dim.div_ceil(self.m)
    }

    /// The bytes of one code before it is appended.
    pub fn width(&self) -> usize {
        if self.nbits == 4 { self.m.div_ceil(2) } else { self.m }
    }

    /// The bytes of so many rows' codes.
    pub fn codes_len(&self, rows: usize) -> usize {
        if self.nbits == 4 { rows.div_ceil(BLOCK_ROWS) * BLOCK_BYTES * self.m } else { rows * self.m }
    }

    /// Subvector `at`, and how many of its numbers there are.
    fn part<'a>(&self, vector: &'a [f32], at: usize) -> &'a [f32] {
        let dsub = self.dsub();
        &vector[(at * dsub).min(self.dim)..((at + 1) * dsub).min(self.dim)]
    }

    fn word(&self, at: usize, word: usize) -> &[f32] {
        &self.words[at * self.book_len() + word * self.dsub()..][..self.dsub()]
    }

    /// Writes the code of `vector`, `width` bytes that were 0, two subvectors a byte where they have 4 bits; puts what it stands for into
    /// `decoded`. `along` is the direction along which errors count more.
    pub fn encode(&self, vector: &[f32], along: &[f32], code: &mut [u8], decoded: &mut Vec<f32>) {
        let words = 1 << self.nbits;
        let length = dot(along, along).sqrt();
        let per_length = if length > f32::MIN_POSITIVE { 1.0 / length } else { 0.0 };
        // Of each word the squared error, and the error along the direction.
        let mut errors = vec![(0f32, 0f32); self.m * words];
        let mut chosen = vec![0usize; self.m];
        let mut total = 0.0;
        for at in 0..self.m {
            let (part, direction) = (self.part(vector, at), self.part(along, at));
            let mut least = f32::INFINITY;
            for word in 0..words {
                let (mut square, mut parallel) = (0f32, 0f32);
                for ((x, w), u) in part.iter().zip(self.word(at, word)).zip(direction) {
                    square += (x - w) * (x - w);
                    parallel += (x - w) * u;
                }
                errors[at * words + word] = (square, parallel * per_length);
                if square < least {
                    (least, chosen[at]) = (square, word);
                }
            }
            total += errors[at * words + chosen[at]].1;
        }
        for _ in 0..if self.eta > 1.0 { SWEEPS } else { 0 } {
            let mut changed = false;
            for at in 0..self.m {
                let errors = &errors[at * words..][..words];
                let others = total - errors[chosen[at]].1;
                let cost = |(square, parallel): (f32, f32)| {
                    square + (self.eta - 1.0) * (others + parallel) * (others + parallel)
                };
                let mut best = chosen[at];
                for (word, &error) in errors.iter().enumerate() {
                    if cost(error) < cost(errors[best]) {
                        best = word;
                    }
                }
                changed |= best != chosen[at];
                chosen[at] = best;
                total = others + errors[best].1;
            }
            if !changed {
                break;
            }
        }
        decoded.clear();
        for (at, &word) in chosen.iter().enumerate() {
            decoded.extend_from_slice(&self.word(at, word)[..self.part(vector, at).len()]);
            if self.nbits == 4 {
                code[at / 2] |= (word as u8) << (at % 2 * 4);
            } else {
                code[at] = word as u8;
            }
        }
    }

    /// The dimension of its vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Subvectors, and bits of a word.
    pub fn shape(&self) -> (usize, u32) {
        (self.m, self.nbits)
    }

    fn word_at(&self, code: &[u8], at: usize) -> usize {
        usize::from(if self.nbits == 4 { code[at / 2] >> (at % 2 * 4) & 15 } else { code[at] })
    }

    /// Appends what a code of [`Self::encode`] stands for.
    pub fn decode(&self, code: &[u8], numbers: &mut Vec<f32>) {
        for at in 0..self.m {
            let word = self.word(at, self.word_at(code, at));
            let left = self.dim - (at * self.dsub()).min(self.dim);
            numbers.extend_from_slice(&word[..word.len().min(left)]);
        }
    }

    /// The products of a query with all words, `[m, 2^nbits]`.
    pub fn products_of_words(&self, query: &[f32], products: &mut Vec<f32>) {
        products.clear();
        for at in 0..self.m {
            let part = self.part(query, at);
            let product = |word: usize| self.word(at, word).iter().zip(part).map(|(w, q)| w * q).sum::<f32>();
            products.extend((0..1 << self.nbits).map(product));
        }
    }

    /// The product of a query, of whose products with the words these are, with what a code of [`Self::encode`] stands for.
    pub fn looked_up(&self, code: &[u8], products: &[f32]) -> f32 {
        self.sum(|at| products[at << self.nbits | self.word_at(code, at)])
    }

    /// The product of `numbers` with what a code of [`Self::encode`] stands for.
    pub fn product_with(&self, code: &[u8], numbers: &[f32]) -> f32 {
        let product = |at: usize| {
            let word = self.word(at, self.word_at(code, at));
            word.iter().zip(self.part(numbers, at)).map(|(w, x)| w * x).sum::<f32>()
        };
        self.sum(product)
    }

    /// The sum over all subvectors, in an order that is the same everywhere and lets additions go on beside each other.
    fn sum(&self, of: impl Fn(usize) -> f32) -> f32 {
        let mut sums = [0f32; 4];
        for at in 0..self.m {
            sums[at % 4] += of(at);
        }
        (sums[0] + sums[1]) + (sums[2] + sums[3])
    }

    /// Appends a code that [`Self::encode`] wrote to those of `rows` rows.
    pub fn append(&self, codes: &mut Vec<u8>, rows: usize, code: &[u8]) {
        if self.nbits != 4 {
            codes.extend_from_slice(code);
            return;
        }
        codes.resize(self.codes_len(rows + 1), 0);
        let start = rows / BLOCK_ROWS * BLOCK_BYTES * self.m + rows % BLOCK_BYTES;
        let shift = if rows % BLOCK_ROWS < BLOCK_BYTES { 0 } else { 4 };
        for at in 0..self.m {
            codes[start + at * BLOCK_BYTES] |= (code[at / 2] >> (at % 2 * 4) & 15) << shift;
        }
    }

    /// Makes the table of a query.
    pub fn prepare(&self, query: &[f32], table: &mut Table) {
        self.products_of_words(query, &mut table.products);
        if self.nbits != 4 {
            return;
        }
        let bounds = table.products.chunks_exact(16).map(|book| {
            book.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), &x| (least.min(x), most.max(x)))
        });
        let widest = bounds.clone().fold(0f32, |widest, (least, most)| widest.max(most - least));
        table.least = bounds.clone().map(|(least, _)| least).sum();
        // Sums have 16 bits.
        let levels = (65_535 / self.m).min(255) as f32;
        table.step = widest / levels;
        let per_step = if table.step >= f32::MIN_POSITIVE { 1.0 / table.step } else { 0.0 };
        table.steps.clear();
        for (book, (least, _)) in table.products.chunks_exact(16).zip(bounds) {
            table.steps.push(std::array::from_fn(|word| ((book[word] - least) * per_step + 0.5).min(levels) as u8));
        }
    }

    /// The products of the query with `rows` rows, whose codes these are.
    pub fn products(&self, kernels: &Kernels, codes: &[u8], rows: usize, table: &mut Table, out: &mut Vec<f32>) {
        out.clear();
        if self.nbits == 4 {
            table.sums.resize(rows.div_ceil(BLOCK_ROWS) * BLOCK_ROWS, 0);
            kernels.lookup_blocks(&table.steps, codes, &mut table.sums);
            out.extend(table.sums[..rows].iter().map(|&sum| table.least + table.step * f32::from(sum)));
            return;
        }
        for code in codes.chunks_exact(self.m) {
            // Several sums, so that additions need not wait for each other, each by its own name: see `distance/arch/lanes.rs`.
            let (mut a, mut b, mut c, mut d) = (0f32, 0f32, 0f32, 0f32);
            let (fours, rest) = code.as_chunks::<4>();
            let (four_books, rest_books) = table.products.as_chunks::<1024>();
            for (words, books) in fours.iter().zip(four_books) {
                a += books[usize::from(words[0])];
                b += books[256 + usize::from(words[1])];
                c += books[512 + usize::from(words[2])];
                d += books[768 + usize::from(words[3])];
            }
            for (&word, book) in rest.iter().zip(rest_books.as_chunks::<256>().0) {
                a += book[usize::from(word)];
            }
            out.push((a + b) + (c + d));
        }
    }

    /// How many bytes are held.
    pub fn memory_bytes(&self) -> usize {
        self.words.capacity() * 4
    }
}

/// Words while they are improved.
#[derive(Debug, Clone, Default)]
struct Improving {
    /// The words of each row, `[rows, m]`.
    chosen: Vec<u8>,
    /// Of each row the error along its direction, which has length 1, once all have words.
    errors: Vec<f32>,
    /// The next codebook.
    at: usize,
    turns: usize,
}

/// Times that words are improved.
const TURNS: usize = 3;
/// Codebooks that a step improves.
const BOOKS: usize = 16;

impl PqTraining {
    /// Training on a sample, `[rows, dim]`; `along`, which may be empty with an `eta` of 1, has the vectors along which errors cost more. Panics
    /// when the sample is empty, there are more subvectors than dimensions, or `nbits` is neither 4 nor 8.
    pub fn new(dim: usize, m: usize, nbits: u32, eta: f32, sample: Vec<f32>, along: Vec<f32>) -> Self {
        assert!(!sample.is_empty() && sample.len().is_multiple_of(dim), "whole rows");
        assert!(eta == 1.0 || along.len() == sample.len(), "a direction for each row");
        let pq = Pq::new(dim, m, nbits, eta);
        let mut training = Self { pq, sample, along, improving: None, means: None, at: (0, 0, 0) };
        training.begin();
        training
    }

    fn rows(&self) -> usize {
        self.sample.len() / self.pq.dim
    }

    /// Subvector `at` of a row, with zeros past the end.
    fn part(&self, row: usize, at: usize, part: &mut Vec<f32>) {
        let vector = &self.sample[row * self.pq.dim..][..self.pq.dim];
        part.clear();
        part.extend_from_slice(self.pq.part(vector, at));
        part.resize(self.pq.dsub(), 0.0);
    }

    fn begin(&mut self) {
        let (at, mut first, mut part) = (self.at.0, Vec::with_capacity(self.pq.book_len()), Vec::new());
        let rows: Vec<usize> = spread(self.rows(), 1 << self.pq.nbits).collect();
        for word in 0..1 << self.pq.nbits {
            self.part(rows[word % rows.len()], at, &mut part);
            first.extend_from_slice(&part);
        }
        self.means = Some(KMeans::new(self.pq.dsub(), first));
    }

    /// The nearest words of some of the sample's next subvectors, for [`Self::apply`]; none when it is done.
    pub fn look_up(&self, kernels: &Kernels, products_max: usize) -> Vec<u32> {
        if let Some(improving) = &self.improving {
            return self.encode_some(improving, products_max);
        }
        let (Some(means), (at, _, row)) = (&self.means, self.at) else { return Vec::new() };
        let count = (products_max / self.pq.book_len()).max(1);
        let (mut room, mut part) = (KMeansRoom::default(), Vec::new());
        (row..self.rows().min(row + count))
            .map(|row| {
                self.part(row, at, &mut part);
                means.nearest(kernels, &part, &mut room)
            })
            .collect()
    }

    /// Takes that step; gives the codes when it was the last one.
    pub fn apply(&mut self, nearest: &[u32]) -> Option<Pq> {
        if self.improving.is_some() {
            return self.improve(nearest);
        }
        let mut part = Vec::new();
        for (row, &word) in (self.at.2..).zip(nearest) {
            self.part(row, self.at.0, &mut part);
            self.means.as_mut()?.add(word, &part);
        }
        self.at.2 += nearest.len();
        if self.at.2 < self.rows() {
            return None;
        }
        let means = self.means.as_mut()?;
        means.end_pass();
        (self.at.1, self.at.2) = (self.at.1 + 1, 0);
        if self.at.1 < PASSES {
            return None;
        }
        self.pq.words.extend_from_slice(means.centroids());
        self.at = (self.at.0 + 1, 0, 0);
        if self.at.0 < self.pq.m {
            self.begin();
            return None;
        }
        self.means = None;
        if self.pq.eta > 1.0 && self.pq.dsub() == 2 {
            self.improving = Some(Improving::default());
            return None;
        }
        Some(self.pq.clone())
    }

    /// The words of the next rows of the sample, while not all have some.
    fn encode_some(&self, improving: &Improving, products_max: usize) -> Vec<u32> {
        let (m, dim) = (self.pq.m, self.pq.dim);
        let from = improving.chosen.len() / m;
        let count = (products_max / self.pq.words_len()).max(1);
        let (mut words, mut code, mut decoded) = (Vec::new(), vec![0; self.pq.width()], Vec::new());
        for row in from..self.rows().min(from + count) {
            code.fill(0);
            let part = row * dim..(row + 1) * dim;
            self.pq.encode(&self.sample[part.clone()], &self.along[part], &mut code, &mut decoded);
            words.extend((0..m).map(|at| self.pq.word_at(&code, at) as u32));
        }
        words
    }

    /// Takes these words; improves some codebooks when all rows have some. Gives the codes when that was the last step.
    fn improve(&mut self, words: &[u32]) -> Option<Pq> {
        let (m, dim, rows) = (self.pq.m, self.pq.dim, self.rows());
        let mut improving = self.improving.take()?;
        improving.chosen.extend(words.iter().map(|&word| word as u8));
        if improving.chosen.len() < rows * m {
            self.improving = Some(improving);
            return None;
        }
        let direction = |row: usize| {
            let along = &self.along[row * dim..][..dim];
            let length = dot(along, along).sqrt();
            (along, if length > f32::MIN_POSITIVE { 1.0 / length } else { 0.0 })
        };
        // What is left of a subvector, and its direction: two numbers each, of which one may be past the end.
        let left = |pq: &Pq, chosen: &[u8], row: usize, at: usize| {
            let word = pq.word(at, usize::from(chosen[row * m + at]));
            let (along, per_length) = direction(row);
            let (x, u) = (pq.part(&self.sample[row * dim..][..dim], at), pq.part(along, at));
            let get = |of: &[f32], n: usize| of.get(n).copied().unwrap_or(0.0);
            let x = [get(x, 0), get(x, 1)];
            let u = [get(u, 0) * per_length, get(u, 1) * per_length];
            (x, u, (x[0] - word[0]) * u[0] + (x[1] - word[1]) * u[1])
        };
        if improving.errors.is_empty() {
            let error = |row| (0..m).map(|at| left(&self.pq, &improving.chosen, row, at).2).sum::<f32>();
            improving.errors = (0..rows).map(error).collect();
        }
        let more = self.pq.eta - 1.0;
        let end = m.min(improving.at + BOOKS);
        let mut pq = self.pq.clone();
        for at in improving.at..end {
            // Of each word the matrix, which is symmetric, and the right side.
            let mut systems = vec![([0f32; 3], [0f32; 2]); 1 << pq.nbits];
            for row in 0..rows {
                let (x, u, own) = left(&pq, &improving.chosen, row, at);
                let others = improving.errors[row] - own;
                let (matrix, right) = &mut systems[usize::from(improving.chosen[row * m + at])];
                matrix[0] += 1.0 + more * u[0] * u[0];
                matrix[1] += more * u[0] * u[1];
                matrix[2] += 1.0 + more * u[1] * u[1];
                let wanted = more * (others + x[0] * u[0] + x[1] * u[1]);
                right[0] += x[0] + wanted * u[0];
                right[1] += x[1] + wanted * u[1];
                improving.errors[row] = others;
            }
            for (word, ([a, b, c], [x, y])) in systems.into_iter().enumerate() {
                let determinant = a * c - b * b;
                if determinant > 0.0 {
                    let start = at * pq.book_len() + word * 2;
                    pq.words[start] = (c * x - b * y) / determinant;
                    pq.words[start + 1] = (a * y - b * x) / determinant;
                }
            }
            for row in 0..rows {
                improving.errors[row] += left(&pq, &improving.chosen, row, at).2;
            }
        }
        self.pq = pq;
        improving.at = end;
        if end == m {
            improving = Improving { turns: improving.turns + 1, ..Improving::default() };
            if improving.turns == TURNS {
                return Some(self.pq.clone());
            }
        }
        self.improving = Some(improving);
        None
    }

    /// How many bytes are held.
    pub fn memory_bytes(&self) -> usize {
        (self.sample.capacity() + self.along.capacity()) * 4
            + self.pq.memory_bytes()
            + self.means.as_ref().map_or(0, KMeans::memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Random;
    use crate::distance::{Kernels, kernels};

    fn sample(seed: u64, rows: usize, dim: usize) -> Vec<f32> {
        let mut random = Random::new(seed);
        (0..rows * dim).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect()
    }

    fn train(kernels: &Kernels, dim: usize, m: usize, nbits: u32, eta: f32, data: &[f32]) -> Pq {
        train_until(kernels, dim, m, nbits, eta, data, usize::MAX)
    }

    /// Without more than so many turns of improving words.
    fn train_until(kernels: &Kernels, dim: usize, m: usize, nbits: u32, eta: f32, data: &[f32], turns: usize) -> Pq {
        let mut training = PqTraining::new(dim, m, nbits, eta, data.to_vec(), data.to_vec());
        loop {
            if training.improving.as_ref().is_some_and(|improving| improving.turns == turns) {
                return training.pq;
            }
            let nearest = training.look_up(kernels, 1 << 14);
            if let Some(pq) = training.apply(&nearest) {
                return pq;
            }
        }
    }

    /// Words that are trained for the cost by which they are chosen cost less than those of k-means.
    #[test]
    fn words_are_trained_for_their_cost() {
        for (dim, rows) in [(32usize, 1_000), (31, 600)] {
            let (m, eta) = (dim.div_ceil(2), 5.0);
            let data = sample(7, rows, dim);
            let cost = |turns: usize| {
                let pq = train_until(kernels(), dim, m, 4, eta, &data, turns);
                let (mut decoded, mut cost) = (Vec::new(), 0.0);
                for vector in data.chunks_exact(dim) {
                    pq.encode(vector, vector, &mut vec![0; pq.width()], &mut decoded);
                    let rest: Vec<f32> = vector.iter().zip(&decoded).map(|(x, y)| x - y).collect();
                    cost += dot(&rest, &rest) + (eta - 1.0) * dot(&rest, vector).powi(2) / dot(vector, vector);
                }
                cost
            };
            let costs = [cost(0), cost(1), cost(usize::MAX)];
            println!("{dim} dimensions: {costs:?}");
            assert!(costs[1] < costs[0] && costs[2] < costs[1], "{dim}: {costs:?}");
        }
    }

    /// Products are those with what a code stands for, however rows fall into blocks, on every instruction set.
    #[test]
    fn products_are_those_with_the_decoded_vector() {
        for (dim, m, nbits) in [(24, 12, 4), (7, 4, 4), (9, 9, 4), (24, 6, 8), (10, 5, 8), (6, 1, 8)] {
            let data = sample(3, 600, dim);
            let pq = train(kernels(), dim, m, nbits, 1.0, &data);
            for kernels in Kernels::available() {
                assert_eq!(train(kernels, dim, m, nbits, 1.0, &data[..dim * 300]).words.len(), pq.words.len());
                for rows in [1, 15, 16, 17, 31, 32, 33, 100] {
                    let (mut codes, mut decoded, mut all) = (Vec::new(), Vec::new(), Vec::new());
                    for row in 0..rows {
                        let vector = &data[row * dim..][..dim];
                        let mut code = vec![0; pq.width()];
                        pq.encode(vector, vector, &mut code, &mut decoded);
                        pq.append(&mut codes, row, &code);
                        all.push(decoded.clone());
                    }
                    assert_eq!(codes.len(), pq.codes_len(rows));
                    let query = sample(4, 1, dim);
                    let (mut table, mut found) = (Table::default(), Vec::new());
                    pq.prepare(&query, &mut table);
                    pq.products(kernels, &codes, rows, &mut table, &mut found);
                    assert_eq!(found.len(), rows);
                    // Half a step of the table for every subvector.
                    let tolerance = if nbits == 4 { 0.51 * table.step * m as f32 } else { 1e-5 };
                    for (found, decoded) in found.iter().zip(&all) {
                        let expected = dot(&query, decoded);
                        assert!((found - expected).abs() <= tolerance + 1e-5, "{dim} {m} {nbits}: {found} {expected}");
                    }
                }
            }
        }
    }

    /// Errors along the vector shrink at the cost of those across it.
    #[test]
    fn anisotropic_words_keep_the_length() {
        let (dim, m) = (32, 16);
        let data = sample(5, 1_000, dim);
        let error = |eta: f32| {
            let pq = train(kernels(), dim, m, 4, eta, &data);
            let (mut decoded, mut parallel, mut square) = (Vec::new(), 0.0, 0.0);
            for vector in data.chunks_exact(dim) {
                let mut code = vec![0; pq.width()];
                pq.encode(vector, vector, &mut code, &mut decoded);
                let rest: Vec<f32> = vector.iter().zip(&decoded).map(|(x, y)| x - y).collect();
                parallel += dot(&rest, vector).powi(2) / dot(vector, vector);
                square += dot(&rest, &rest);
            }
            (parallel, square)
        };
        let (plain, anisotropic) = (error(1.0), error(4.0));
        assert!(anisotropic.0 < plain.0 * 0.5, "{plain:?} {anisotropic:?}");
        assert!(anisotropic.1 >= plain.1 && anisotropic.1 < plain.1 * 1.5, "{plain:?} {anisotropic:?}");
    }
}
