//! Product codes of a graph: their words are trained on the first 1,000 rows, and anew on the first 4,000 and 16,000 when it has grown
//! to that; then all rows are encoded anew. Links stay as they are. The old words serve until the new codes are there.

use crate::distance::{Kernels, Metric};
use crate::index::{Source, TRAINED_ROWS_MIN};
use crate::quant::{PqQuery, PqRows, PqTraining, spread};

/// Rows of which words are trained, at most.
const SAMPLE_ROWS: usize = 4_096;
/// Words are not trained anew after so many.
const TRAINED_ROWS_MAX: usize = 16_000;
/// What a step may cost: products of single numbers. As many as an insertion into a graph takes.
const STEP_PRODUCTS: usize = 1 << 20;
/// Rows that a step encodes.
const STEP_ROWS: usize = 8;

/// The codes, and their words on their way.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub(super) dim: usize,
    pub(super) metric: Metric,
    pub(super) num_sub_vectors: usize,
    pub(super) nbits: u32,
    /// How many rows the words were chosen from; 0 while there are none.
    pub(super) trained: usize,
    pub(super) rows: Option<PqRows>,
    next: Option<Box<Next>>,
}

#[derive(Debug, Clone)]
struct Next {
    trained: usize,
    training: Option<PqTraining>,
    rows: Option<PqRows>,
}

/// What a step of training will write.
#[derive(Debug)]
pub struct CodesStep(Kind);

#[derive(Debug)]
enum Kind {
    /// The nearest words of some rows of the sample.
    Words(Vec<u32>),
    /// The next rows, encoded.
    Rows(PqRows),
}

/// From how many of the first rows words are chosen while there are `rows`.
fn trained_rows(rows: usize) -> usize {
    let mut trained = TRAINED_ROWS_MIN;
    while trained < TRAINED_ROWS_MAX && trained * 4 <= rows {
        trained *= 4;
    }
    trained
}

impl Words {
    pub(super) fn new(dim: usize, metric: Metric, num_sub_vectors: u32, nbits: u32) -> Self {
        let num_sub_vectors = (num_sub_vectors as usize).clamp(1, dim);
        let nbits = if nbits == 4 { 4 } else { 8 };
        Self { dim, metric, num_sub_vectors, nbits, trained: 0, rows: None, next: None }
    }

    /// Whether these can be words of a graph: what was read is checked by it.
    pub(super) fn is_level(trained: usize) -> bool {
        trained == 0 || (trained <= TRAINED_ROWS_MAX && trained_rows(trained) == trained)
    }

    /// No rows, with the same words.
    pub(super) fn none_like(&self) -> Self {
        Self { rows: self.rows.as_ref().map(PqRows::none_like), next: None, ..*self }
    }

    pub(super) fn rows(&self) -> &PqRows {
        self.rows.as_ref().expect("words are trained before a row is begun")
    }

    pub(super) fn rows_mut(&mut self) -> &mut PqRows {
        self.rows.as_mut().expect("words are trained before a row is begun")
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let next = self.next.as_ref().map_or(0, |next| {
            next.training.as_ref().map_or(0, PqTraining::memory_bytes)
                + next.rows.as_ref().map_or(0, PqRows::memory_bytes)
        });
        self.rows.as_ref().map_or(0, PqRows::memory_bytes) + next
    }

    /// Begins a step of training, where it is time for that; tells whether it is.
    pub(super) fn begin(&mut self, source: &Source<'_>) -> bool {
        let trained = trained_rows(self.rows.as_ref().map_or(0, PqRows::len));
        if self.next.is_none() && self.trained < trained {
            let (mut sample, mut room, mut prepared) = (Vec::new(), Vec::new(), Vec::new());
            for row in spread(trained.min(source.len()), SAMPLE_ROWS) {
                if let Some(numbers) = source.numbers(row as u32, &mut room) {
                    PqRows::prepare(self.metric, numbers, &mut prepared);
                    sample.extend_from_slice(&prepared);
                }
            }
            if sample.is_empty() {
                // No row has a vector.
                sample.resize(self.dim, 0.0);
            }
            let training = PqTraining::new(self.dim, self.num_sub_vectors, self.nbits, 1.0, sample, Vec::new());
            self.next = Some(Box::new(Next { trained, training: Some(training), rows: None }));
        }
        self.is_training()
    }

    pub(super) fn is_training(&self) -> bool {
        self.next.is_some()
    }

    /// Finds out what the step that was begun will write.
    pub(super) fn look_up(&self, kernels: &Kernels, source: &Source<'_>) -> CodesStep {
        let next = self.next.as_ref().expect("a step was begun");
        CodesStep(match (&next.training, &next.rows) {
            (Some(training), _) => Kind::Words(training.look_up(kernels, STEP_PRODUCTS)),
            (None, rows) => {
                let rows = rows.as_ref().expect("they follow the training");
                let mut part = rows.none_like();
                let (mut room, mut query) = (Vec::new(), PqQuery::default());
                let none = vec![0.0; self.dim];
                let end = self.rows.as_ref().map_or(0, PqRows::len).min(rows.len() + STEP_ROWS);
                for row in rows.len()..end {
                    part.push(source.numbers(row as u32, &mut room).unwrap_or(&none), &mut query);
                }
                Kind::Rows(part)
            }
        })
    }

    /// Takes the step.
    pub(super) fn apply(&mut self, step: CodesStep) {
        let Some(next) = &mut self.next else { panic!("a step was begun") };
        match step.0 {
            Kind::Words(nearest) => {
                let training = next.training.as_mut().expect("the step was looked up in it");
                if let Some(pq) = training.apply(&nearest) {
                    next.training = None;
                    next.rows = Some(PqRows::new(self.metric, pq));
                }
            }
            Kind::Rows(part) => {
                let rows = next.rows.as_mut().expect("the step was looked up in them");
                (0..part.len() as u32).for_each(|row| rows.copy(&part, row));
            }
        }
        let len = self.rows.as_ref().map_or(0, PqRows::len);
        if next.rows.as_ref().is_some_and(|rows| rows.len() == len) {
            self.trained = next.trained;
            self.rows = next.rows.take();
            self.next = None;
        }
    }
}
