use super::{Ivf, ListCode, Lists, Room, SAMPLE_PER_LIST, Space, lists_of, trained_rows};
use crate::base::make_room;
use crate::distance::{Kernels, Metric};
use crate::index::Source;
use crate::quant::sums::dot;
use crate::quant::{Coder, KMeans, KMeansRoom, PqTraining, spread};

/// Passes over the sample: the centroids hardly move after.
const PASSES: usize = 8;
/// What a step may cost: products of single numbers. As many as an insertion into a graph takes.
const STEP_PRODUCTS: usize = 1 << 22;
/// Rows that codebooks are trained on.
const CODEBOOK_ROWS: usize = 4_096;
/// Rows of a step at most.
const STEP_ROWS: usize = 64;

/// Lists on their way.
#[derive(Debug, Clone)]
pub(super) struct Building {
    lists: Lists,
    stage: Stage,
    /// Where the stage is among the sample.
    at: usize,
    sample: Vec<u32>,
    /// What is left of rows of the sample, for the codebooks.
    residuals: Vec<f32>,
    /// These rows themselves, where errors along them count as more.
    along: Vec<f32>,
    training: Option<PqTraining>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Centroids are trained, in this pass.
    Cells(usize),
    /// Rows for the codebooks are gathered.
    Residuals,
    /// Codebooks are trained.
    Words,
    /// Rows are put into their lists.
    Rows,
}

/// What a step will write.
#[derive(Debug)]
pub struct IvfStep(Kind);

#[derive(Debug)]
enum Kind {
    /// Rows of the sample that were looked at; the centroids of those with a vector, and their vectors.
    Cells { read: usize, nearest: Vec<u32>, vectors: Vec<f32> },
    /// Rows of the sample that were looked at, and what is left of those with a vector.
    Residuals { read: usize, residuals: Vec<f32>, along: Vec<f32> },
    /// The nearest words of the next subvectors.
    Words(Vec<u32>),
    /// Rows that were looked at; those with a vector, with their lists and factors, and their codes.
    Rows { read: usize, rows: Vec<(u32, u32, [f32; 2])>, codes: Vec<u8> },
    /// Nothing is left to do.
    Nothing,
}

impl Building {
    pub(super) fn memory_bytes(&self) -> usize {
        let training = self.training.as_ref().map_or(0, PqTraining::memory_bytes);
        let room = self.sample.capacity() + self.residuals.capacity() + self.along.capacity();
        self.lists.memory_bytes() + room * 4 + training
    }
}

impl Ivf {
    /// Begins a step: see [`VectorIndex`](crate::index::VectorIndex).
    pub fn begin(&mut self, source: &Source<'_>) {
        let rows = source.len();
        let trained = trained_rows(rows, self.nlist);
        let is_current = self.serving.as_ref().is_some_and(|lists| lists.trained == trained);
        if rows < trained || is_current || self.next.is_some() {
            return;
        }
        let lists = lists_of(trained, self.nlist);
        let sample: Vec<u32> = spread(trained, SAMPLE_PER_LIST * lists).map(|row| row as u32).collect();
        let mut room = Room::default();
        let mut centroids = Vec::with_capacity(lists * self.space.len());
        for at in spread(sample.len(), lists) {
            // One after the other of those that have a vector; equal ones part when their cells turn out empty.
            let found = sample[at..].iter().chain(&sample[..at]).find(|&&row| self.space.take(source, row, &mut room));
            if found.is_none() {
                room.vector.clear();
                room.vector.resize(self.space.len(), 0.0);
            }
            centroids.extend_from_slice(&room.vector);
        }
        let means = KMeans::new(self.space.len(), centroids);
        let lists = Lists::new(trained, means, self.coder());
        self.next = Some(Box::new(Building {
            lists,
            stage: Stage::Cells(0),
            at: 0,
            sample,
            residuals: Vec::new(),
            along: Vec::new(),
            training: None,
        }));
    }

    /// Finds out what the step that was begun will write.
    pub fn look_up(&self, source: &Source<'_>) -> IvfStep {
        let rows = source.len();
        IvfStep(match (&self.next, &self.serving) {
            (Some(next), _) => match next.stage {
                Stage::Cells(_) => self.assign(next, source),
                Stage::Residuals => self.leave(next, source),
                Stage::Words => {
                    let training = next.training.as_ref().expect("it is the stage of training");
                    Kind::Words(training.look_up(self.kernels, STEP_PRODUCTS / 4))
                }
                Stage::Rows => self.put(&next.lists, source),
            },
            (None, Some(lists)) if lists.len < rows => self.put(lists, source),
            _ => Kind::Nothing,
        })
    }

    /// What encodes rows, where nothing has to be learned for it.
    pub(super) fn coder(&self) -> Option<Coder> {
        match self.code {
            ListCode::None => None,
            ListCode::Sq8 => Some(Coder::sq8(self.space.len())),
            ListCode::RaBitQ => Some(Coder::RaBitQ { len: self.space.len(), bits: 1 }),
            ListCode::Pq { .. } | ListCode::Scann => None,
        }
    }

    fn step_rows(&self, lists: &Lists) -> usize {
        (STEP_PRODUCTS / lists.means.centroids().len().max(1)).clamp(1, STEP_ROWS)
    }

    fn assign(&self, next: &Building, source: &Source<'_>) -> Kind {
        let (mut room, mut near) = (Room::default(), KMeansRoom::default());
        let sample = &next.sample[next.at..];
        let sample = &sample[..sample.len().min(self.step_rows(&next.lists))];
        let (mut nearest, mut vectors) = (Vec::new(), Vec::new());
        for &row in sample {
            if self.space.take(source, row, &mut room) {
                nearest.push(next.lists.means.nearest(self.kernels, &room.vector, &mut near));
                vectors.extend_from_slice(&room.vector);
            }
        }
        Kind::Cells { read: sample.len(), nearest, vectors }
    }

    /// What is left of rows of the sample, of which only some are for codebooks.
    fn leave(&self, next: &Building, source: &Source<'_>) -> Kind {
        let (mut room, mut near) = (Room::default(), KMeansRoom::default());
        let rows: Vec<usize> = spread(next.sample.len(), CODEBOOK_ROWS).collect();
        let read = (rows.len() - next.at).min(self.step_rows(&next.lists));
        let (mut residuals, mut along) = (Vec::new(), Vec::new());
        let is_along = self.code == ListCode::Scann;
        for &at in &rows[next.at..next.at + read] {
            if self.space.take(source, next.sample[at], &mut room) {
                let centroid = next.lists.means.nearest(self.kernels, &room.vector, &mut near);
                let centroid = next.lists.means.centroid(centroid);
                residuals.extend(room.vector.iter().zip(centroid).map(|(x, c)| x - c));
                along.extend(room.vector.iter().filter(|_| is_along));
            }
        }
        Kind::Residuals { read, residuals, along }
    }

    fn put(&self, lists: &Lists, source: &Source<'_>) -> Kind {
        let (mut rows, mut codes) = (Vec::new(), Vec::new());
        let mut encoder = Encoder { space: &self.space, kernels: self.kernels, lists, room: Encoding::default() };
        let read = (source.len() - lists.len).min(self.step_rows(lists));
        for row in lists.len as u32..(lists.len + read) as u32 {
            if let Some((list, factors)) = encoder.encode(source, row, &mut codes) {
                rows.push((row, list, factors));
            }
        }
        Kind::Rows { read, rows, codes }
    }

    /// Takes the step. Panics when another was taken since it was looked up.
    pub fn apply(&mut self, step: IvfStep) {
        match (step.0, &mut self.next) {
            (Kind::Cells { read, nearest, vectors }, Some(next)) => {
                let Stage::Cells(pass) = next.stage else { panic!("the step was looked up in this stage") };
                for (nearest, vector) in nearest.into_iter().zip(vectors.chunks_exact(self.space.len())) {
                    next.lists.means.add(nearest, vector);
                }
                next.at += read;
                if next.at == next.sample.len() {
                    next.lists.means.end_pass();
                    next.at = 0;
                    next.stage = match self.code {
                        _ if pass + 1 < PASSES => Stage::Cells(pass + 1),
                        ListCode::Pq { .. } | ListCode::Scann => Stage::Residuals,
                        _ => Stage::Rows,
                    };
                    next.lists.squares = next.lists.means.squares();
                }
            }
            (Kind::Residuals { read, residuals, along }, Some(next)) => {
                next.residuals.extend_from_slice(&residuals);
                next.along.extend_from_slice(&along);
                next.at += read;
                if next.at == next.sample.len().min(CODEBOOK_ROWS) {
                    let mut sample = std::mem::take(&mut next.residuals);
                    if sample.is_empty() {
                        // No row has a vector.
                        sample.resize(self.space.len(), 0.0);
                        next.along.resize(self.space.len(), 0.0);
                    }
                    let along = std::mem::take(&mut next.along);
                    let (dim, metric) = (self.space.dim, self.space.metric);
                    let (m, nbits, eta) = self.code.product(dim, metric).expect("only product codes are trained");
                    next.training = Some(PqTraining::new(dim, m, nbits, eta, sample, along));
                    next.stage = Stage::Words;
                }
            }
            (Kind::Words(nearest), Some(next)) => {
                let training = next.training.as_mut().expect("the step was looked up in it");
                if let Some(pq) = training.apply(&nearest) {
                    next.lists.coder = Some(Coder::Pq(pq));
                    next.training = None;
                    next.stage = Stage::Rows;
                }
            }
            (Kind::Rows { read, rows, codes }, next) => {
                let lists = match (next, &mut self.serving) {
                    (Some(next), _) => &mut next.lists,
                    (None, Some(lists)) => lists,
                    (None, None) => panic!("the step was looked up in lists"),
                };
                lists.push(read, rows, &codes);
                let covered = self.serving.as_ref().map_or(0, |lists| lists.len);
                if let Some(next) = self
                    .next
                    .take_if(|next| next.stage == Stage::Rows && next.lists.len >= covered.max(next.lists.trained))
                {
                    self.serving = Some(next.lists);
                }
            }
            (Kind::Nothing, _) => {}
            (_, None) => panic!("the step was looked up in lists on their way"),
        }
    }
}

impl Lists {
    fn push(&mut self, read: usize, rows: Vec<(u32, u32, [f32; 2])>, codes: &[u8]) {
        let width = self.coder.as_ref().map_or(0, Coder::width);
        for (at, (row, list, factors)) in rows.into_iter().enumerate() {
            let list = &mut self.lists[list as usize];
            make_room(&mut list.rows, 1);
            if let Some(coder) = &self.coder {
                let more = coder.codes_len(list.rows.len() + 1) - list.codes.len();
                make_room(&mut list.codes, more);
                make_room(&mut list.factors, 1);
                coder.append(&mut list.codes, list.rows.len(), &codes[at * width..][..width]);
                list.factors.push(factors);
            }
            list.rows.push(row);
        }
        self.len += read;
    }
}

/// Room to encode in.
#[derive(Debug, Default)]
struct Encoding {
    vector: Room,
    near: KMeansRoom,
    residual: Vec<f32>,
    decoded: Vec<f32>,
}

struct Encoder<'a> {
    space: &'a Space,
    kernels: &'static Kernels,
    lists: &'a Lists,
    room: Encoding,
}

impl Encoder<'_> {
    /// The list of a row and its factors, its code appended to `codes`; `None` when it has no vector.
    fn encode(&mut self, source: &Source<'_>, row: u32, codes: &mut Vec<u8>) -> Option<(u32, [f32; 2])> {
        let Encoding { vector, near, residual, decoded } = &mut self.room;
        if !self.space.take(source, row, vector) {
            return None;
        }
        let x = &vector.vector;
        let means = &self.lists.means;
        let list = means.nearest(self.kernels, x, near);
        let Some(coder) = &self.lists.coder else { return Some((list, [0.0; 2])) };
        let c = means.centroid(list);
        residual.clear();
        residual.extend(x.iter().zip(c).map(|(x, c)| x - c));
        let scale = coder.encode(residual, x, codes, decoded);
        let is_l2 = self.space.metric == Metric::L2;
        let times = if is_l2 { 2.0 } else { 1.0 };
        let offset = if coder.is_unbiased() {
            // As if the query had been less the centroid too when it was encoded, which is more exact: the estimate of the centroid's
            // part is taken back, and its true value put there.
            times * (dot(c, decoded) - dot(c, residual)) + if is_l2 { dot(x, x) } else { 0.0 }
        } else if is_l2 {
            // The distance is that to what the code stands for.
            decoded.iter_mut().zip(c).for_each(|(r, c)| *r += c);
            dot(decoded, decoded)
        } else {
            0.0
        };
        Some((list, [times * scale, offset]))
    }
}
