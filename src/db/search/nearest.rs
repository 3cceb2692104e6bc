use super::words::Words;
use crate::base::{Neighbor, Result, RowMask};
use crate::db::{Collection, SearchResponse};
use crate::distance::Metric;
use crate::index::{SearchParams, VectorIndex, Vectors, flat, stored};
use crate::model::Value;
use crate::query::{Access, SegmentSearch};
use crate::segment::{Blocks, Segment};

/// Bytes of vectors that a scan reads at once.
const READ_VECTOR_BYTES: usize = 1 << 20;

/// What a search of one segment needs to know.
pub(super) struct Nearest<'a> {
    pub(super) field: &'a str,
    /// Whether its vectors are apart from the columns.
    pub(super) apart: bool,
    pub(super) query: &'a Value,
    pub(super) metric: Metric,
    /// What an index of terms is asked.
    pub(super) words: Option<&'a Words>,
    pub(super) k: usize,
    pub(super) ef: usize,
    pub(super) params: SearchParams,
    pub(super) exact: bool,
}

impl Nearest<'_> {
    pub(super) fn numbers(&self) -> &[f32] {
        let Value::Vector(query) = self.query else { unreachable!("such a field is searched by numbers") };
        query
    }

    fn segment_search(&self, segment: &Segment, admitted: usize, index: Option<&VectorIndex>) -> SegmentSearch {
        let ef = index.map_or(self.ef, |index| index.effort(self.k, &self.params));
        let weighs = index.is_some_and(|index| index.graph().is_some());
        SegmentSearch { rows: segment.len(), admitted, k: self.k, ef, indexed: true, weighs, exact: self.exact }
    }

    /// The index of a segment, where using it is worth while.
    fn index<'a>(&self, segment: &'a Segment, admitted: usize) -> Option<&'a VectorIndex> {
        let index = segment.index(self.field).and_then(|index| index.built.as_ref()).filter(|index| !index.is_empty());
        let search = SegmentSearch { indexed: index.is_some(), ..self.segment_search(segment, admitted, index) };
        index.filter(|_| search.access() == Access::Graph)
    }

    /// Whether something of a segment must be read from storage for it.
    pub(super) fn must_read(&self, segment: &Segment) -> bool {
        let answered = self.words.is_some() && segment.terms(self.field).is_some();
        !answered && !segment.has(self.field)
    }

    /// How a segment is searched when so many rows are admitted, and what that costs, in comparisons.
    pub(super) fn planned(&self, segment: &Segment, admitted: usize) -> (Access, f64) {
        if let Some(rows) = self.words.and_then(|words| words.rows(segment, self.field)) {
            return (Access::Graph, rows.min(admitted) as f64);
        }
        let index = self.index(segment, admitted);
        let access = if index.is_some() { Access::Graph } else { Access::Scan };
        (access, self.segment_search(segment, admitted, index).cost(access))
    }

    /// The nearest rows of a segment that has its vectors in memory.
    pub(super) fn search(&self, segment: &Segment, admitted: &RowMask, response: &mut SearchResponse) -> Vec<Neighbor> {
        let count = admitted.count();
        if let Some(found) = self.words.and_then(|words| words.search(segment, self.field, self.k, admitted)) {
            response.segments_by_index += 1;
            return found;
        }
        let mask = (count < segment.len()).then_some(admitted);
        let mut neighbors = Vec::new();
        let mut scanned_from = 0;
        if let Some((index, source)) = self.index(segment, count).zip(segment.source(self.field)) {
            neighbors = index.search(self.query, self.k, &self.params, mask, &source);
            scanned_from = index.len();
            response.segments_by_index += 1;
        } else {
            response.segments_by_scan += 1;
        }
        if scanned_from == segment.len() {
            return neighbors;
        }
        response.rows_scanned += admitted.iter_from(scanned_from).count();
        if let Some(vectors) = segment.vectors(self.field) {
            let tail = scanned_from as u32..segment.len() as u32;
            neighbors.extend(flat::search(vectors, tail, self.metric, self.numbers(), self.k, mask));
            return neighbors;
        }
        for (start, chunk) in segment.chunks() {
            let rows = admitted.iter_from(start.max(scanned_from)).take_while(|row| row - start < chunk.num_rows());
            let column = chunk.column_by_name(self.field).expect("the caller knows that it is here");
            let rows = rows.map(|row| (row - start) as u32);
            let found = stored::search(column, self.metric, self.query, self.k, rows);
            neighbors.extend(found.into_iter().map(|near| Neighbor { row: start as u32 + near.row, ..near }));
        }
        neighbors
    }

    /// The nearest of `rows`, which ascend and whose blocks were read.
    fn compare(&self, segment: &Segment, rows: &[u32], blocks: &Blocks) -> Vec<Neighbor> {
        let found = if self.apart {
            let numbers = segment.gather(self.field, rows, blocks);
            let vectors = Vectors::new(&numbers, self.numbers().len());
            flat::search(vectors, 0..rows.len() as u32, self.metric, self.numbers(), self.k, None)
        } else {
            let batch = segment.pick(rows, &|column| column == self.field, blocks);
            let column = batch.scalars().column_by_name(self.field).expect("every segment has every field");
            stored::search(column, self.metric, self.query, self.k, 0..rows.len() as u32)
        };
        found.into_iter().map(|near| Neighbor { row: rows[near.row as usize], ..near }).collect()
    }
}

/// Rows whose vectors are worth reading, the closest of which are an answer.
pub(super) struct Candidates {
    pub(super) rows: Vec<u32>,
    /// How far each is, about, and how near it may be, where that is known.
    pub(super) estimates: Option<Vec<(f32, f32)>>,
    /// The rows from this one on are not among them.
    covered: usize,
}

impl Nearest<'_> {
    /// Those that the index of a segment has; `None` where all admitted rows must be compared.
    pub(super) fn candidates(&self, segment: &Segment, admitted: &RowMask) -> Option<Candidates> {
        let count = admitted.count();
        let mask = (count < segment.len()).then_some(admitted);
        let index = self.index(segment, count)?;
        let rows = index.candidates(self.query, self.k, &self.params, mask)?;
        Some(Candidates { estimates: index.estimates(self.query, &rows), rows, covered: index.len() })
    }
}

impl Collection {
    /// The nearest of some rows, which ascend, of a segment whose vectors must be read.
    pub(super) async fn compare_later(
        &self,
        segment: &Segment,
        rows: &[u32],
        nearest: &Nearest<'_>,
    ) -> Result<Vec<Neighbor>> {
        let mut blocks = Blocks::default();
        let needs = segment.needs(rows, &|column| column == nearest.field, &blocks);
        self.inner.shared.fetch(needs, &mut blocks, true).await?;
        Ok(nearest.compare(segment, rows, &blocks))
    }

    /// The nearest of the rows that are not covered by `candidates`, of a segment whose vectors must be read.
    pub(super) async fn scan_later(
        &self,
        segment: &Segment,
        admitted: &RowMask,
        candidates: Option<&Candidates>,
        nearest: &Nearest<'_>,
        response: &mut SearchResponse,
    ) -> Result<Vec<Neighbor>> {
        let scanned_from = candidates.map_or(0, |candidates| candidates.covered);
        if candidates.is_some() {
            response.segments_by_index += 1;
        } else {
            response.segments_by_scan += 1;
        }
        let wanted = |column: &str| column == nearest.field;
        let mut neighbors: Vec<Neighbor> = Vec::new();
        let mut rows = admitted.iter_from(scanned_from).map(|row| row as u32);
        let step = (READ_VECTOR_BYTES / (segment.row_bytes())).max(1);
        loop {
            let part: Vec<u32> = rows.by_ref().take(step).collect();
            if part.is_empty() {
                return Ok(neighbors);
            }
            response.rows_scanned += part.len();
            let mut blocks = Blocks::default();
            let needs = segment.needs(&part, &wanted, &blocks);
            self.inner.shared.fetch(needs, &mut blocks, false).await?;
            neighbors.extend(nearest.compare(segment, &part, &blocks));
            neighbors.sort_unstable();
            neighbors.truncate(nearest.k);
        }
    }
}
