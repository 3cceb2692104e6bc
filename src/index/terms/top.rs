use super::list::{Best, Cursor, END};
use super::{NO_VALUE, Source};
use crate::base::{Neighbor, RowMask, TopK};

/// Rows that are looked at together: what the lists can add at best is known for so many at once.
const WINDOW: u32 = 4_096;
/// Sums of floats in another order differ by less than this part of them.
const SLACK: f64 = 1e-9;

/// How BM25 weighs: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", in the form that Lucene
/// gives it: with an inverse document frequency that is never negative, and without the constant factor `k1 + 1`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bm25 {
    /// How soon more occurrences add no more. Usual: 1.2.
    pub k1: f64,
    /// How much the length of a row counts, 0 to 1. Usual: 0.75.
    pub b: f64,
    /// The average length of all rows of the collection.
    pub average_length: f64,
}

impl Bm25 {
    /// The weight of a term that `count` of `rows` rows have.
    pub fn inverse_frequency(count: usize, rows: usize) -> f64 {
        let (count, rows) = (count as f64, rows as f64);
        (1.0 + (rows - count + 0.5) / (count + 0.5)).ln()
    }

    /// What a term of that weight adds to the score of a row of so many terms that has it so often.
    fn score(&self, weight: f64, frequency: f64, length: f64) -> f64 {
        // So written it rises with the frequency, and falls with the length, in spite of rounding.
        let normal = self.k1 * (1.0 - self.b + self.b * length / self.average_length);
        weight / (1.0 + normal / frequency)
    }
}

/// A term of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Weighted {
    /// Its key.
    pub key: Vec<u8>,
    /// By what it counts.
    pub weight: f64,
}

/// One list on its way.
struct Way<'a> {
    cursor: Cursor<'a>,
    weight: f64,
    /// The most that it adds to a row of the window.
    most: f64,
    /// What it adds to the row that is being looked at.
    adds: f64,
}

/// What rows score by.
struct Scores<'a> {
    source: Source<'a>,
    bm25: Option<Bm25>,
}

impl Scores<'_> {
    fn of(&self, weight: f64, row: u32, value: u32) -> f64 {
        match &self.bm25 {
            Some(bm25) => {
                let length = self.source.length(row);
                bm25.score(weight, f64::from(value), f64::from(if length == NO_VALUE { 0 } else { length }))
            }
            None => weight * f64::from(f32::from_bits(value)),
        }
    }

    /// The most that a block adds; a row that lacks the term gets nothing.
    fn most(&self, weight: f64, best: Best) -> f64 {
        match (best, &self.bm25) {
            (Best::Text(pairs), Some(bm25)) => {
                let pairs = pairs.iter().filter(|(frequency, _)| *frequency > 0);
                let score = |&(frequency, length): &(u8, u16)| {
                    let frequency = if frequency == u8::MAX { f64::INFINITY } else { f64::from(frequency) };
                    bm25.score(weight, frequency, f64::from(length))
                };
                pairs.map(score).fold(0.0, f64::max)
            }
            (Best::Weights(least, most), _) => (weight * f64::from(least)).max(weight * f64::from(most)).max(0.0),
            _ => f64::INFINITY,
        }
    }
}

/// The `k` rows that score most by the terms of a query, best first, with their scores negated as distances; of equal ones the lower
/// row number. Only rows that have one of the terms, and that `mask` admits, when there is one. By BM25, or else by the inner
/// product with weights.
///
/// Windows of rows are gone through in order. In each, lists that together cannot lift a row into the best so far are not walked,
/// only asked about rows that others have (MaxScore, by Turtle and Flood), as far as the bounds of their blocks leave it open (block-max
/// indexes, by Ding and Suel). The result is that of scoring every row, to the bit.
pub fn top(
    source: Source<'_>,
    terms: &[Weighted],
    bm25: Option<Bm25>,
    k: usize,
    mask: Option<&RowMask>,
) -> Vec<Neighbor> {
    let scores = Scores { source, bm25 };
    let way = |term: &Weighted| {
        let list = source.list(&term.key)?;
        Some(Way { cursor: Cursor::new(list), weight: term.weight, most: 0.0, adds: 0.0 })
    };
    let mut ways: Vec<Way<'_>> = terms.iter().filter_map(way).collect();
    let mut best = TopK::new(k);
    if k == 0 {
        return Vec::new();
    }
    let length = |row: u32| source.length(row);
    // By how much they add at most, and for each how much it and those before add together.
    let mut order: Vec<usize> = (0..ways.len()).collect();
    let mut sums = vec![0.0; ways.len()];
    let rows = source.rows() as u32;
    let mut from = 0;
    while from < rows {
        let end = rows.min(from.saturating_add(WINDOW)) - 1;
        let start = std::mem::replace(&mut from, end + 1);
        if let Some(mask) = mask {
            match mask.iter_from(start as usize).next() {
                None => break,
                Some(row) if row > end as usize => {
                    from = row as u32;
                    continue;
                }
                Some(_) => {}
            }
        }
        for way in &mut ways {
            let (mut most, weight) = (0.0, way.weight);
            way.cursor.best_in(start, end, &length, &mut |best| most = f64::max(most, scores.most(weight, best)));
            way.most = most;
        }
        order.sort_by(|&a, &b| ways[a].most.total_cmp(&ways[b].most));
        let mut sum = 0.0;
        for (total, &at) in sums.iter_mut().zip(&order) {
            sum += ways[at].most;
            *total = sum;
        }
        let mut first = 0;
        loop {
            let bound = -best.bound();
            let is_hopeless = |most: f64, size: f64| ((most + SLACK * size) as f32) <= bound;
            while first < order.len() && is_hopeless(sums[first], sums[first]) {
                first += 1;
            }
            let mut row = END;
            for &at in &order[first..] {
                ways[at].cursor.seek(start);
                row = row.min(ways[at].cursor.row());
            }
            if row > end {
                break;
            }
            let admitted = mask.is_none_or(|mask| mask.contains(row as usize));
            // What it has so far, and how large the numbers are that are in it.
            let (mut sum, mut size) = (0.0, sums.last().copied().unwrap_or(0.0));
            for &at in &order[first..] {
                let way = &mut ways[at];
                way.adds = 0.0;
                if way.cursor.row() == row {
                    if admitted {
                        way.adds = scores.of(way.weight, row, way.cursor.value());
                        sum += way.adds;
                        size += way.adds.abs();
                    }
                    way.cursor.advance();
                }
            }
            if !admitted {
                continue;
            }
            let mut is_open = true;
            for index in (0..first).rev() {
                if is_hopeless(sum + sums[index], size) {
                    is_open = false;
                    break;
                }
                let way = &mut ways[order[index]];
                way.adds = 0.0;
                let block = way.cursor.best_at(row).map_or(way.most, |best| scores.most(way.weight, best));
                let others = if index == 0 { 0.0 } else { sums[index - 1] };
                if is_hopeless(sum + others + block, size) {
                    is_open = false;
                    break;
                }
                way.cursor.seek(row);
                if way.cursor.row() == row {
                    way.adds = scores.of(way.weight, row, way.cursor.value());
                    sum += way.adds;
                    size += way.adds.abs();
                }
            }
            if is_open {
                // In the order of the query, whatever order they were found in.
                let score: f64 = ways.iter().map(|way| way.adds).sum();
                // Not the negative, so that zero is one number.
                best.push(Neighbor { row, distance: 0.0 - score as f32 });
            }
        }
    }
    best.into_sorted()
}
