use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::RecordBatch;

use super::Versions;
use crate::base::{Lsn, SegmentId, Version};
use crate::index::{Hnsw, IndexKind, IndexSpec, Vectors};
use crate::model::gather;
use crate::model::{Batch, Key, Row, Schema, VectorColumn};

/// A segment of fewer rows than this is always scanned: a scan of a thousand int8 or float rows is as fast as a graph's first
/// hops, and small segments come and go too often to be worth building for.
const INDEXED_ROWS_MIN: usize = 1_000;

/// A deleted key: what remains so that the delete wins over older writes that arrive later.
#[derive(Debug, Clone, PartialEq)]
pub struct Tombstone {
    /// The key.
    pub key: Key,
    /// The version of the delete.
    pub version: Version,
    /// Its position in the local log.
    pub lsn: Lsn,
}

/// The index of one vector field of a segment: a graph over its first rows.
#[derive(Debug)]
pub struct FieldIndex {
    /// The vector field.
    pub field: String,
    /// What it is.
    pub spec: IndexSpec,
    /// The graph; `None` for a flat index and while there are too few rows.
    pub graph: Option<Hnsw>,
}

/// Rows with their versions and indexes.
#[derive(Debug)]
pub struct Segment {
    id: SegmentId,
    schema: Arc<Schema>,
    /// The narrow columns. Runs of one write each would make filters slow, so neighbours of similar size are joined: there
    /// are never more than about log2(rows) of them.
    chunks: Vec<(usize, RecordBatch)>,
    vectors: Vec<VectorColumn>,
    versions: Versions,
    indexes: Vec<FieldIndex>,
    /// Deletes that were applied while this segment was the growing one.
    pub deletes: Vec<Tombstone>,
}

impl Segment {
    /// An empty segment.
    pub fn new(id: SegmentId, schema: &Arc<Schema>, indexes: &BTreeMap<String, IndexSpec>) -> Self {
        let vectors = Batch::empty(schema).vectors().to_vec();
        let indexes = vectors
            .iter()
            .map(|column| {
                let spec = indexes[&column.field];
                FieldIndex { field: column.field.clone(), spec, graph: None }
            })
            .collect();
        Self {
            id,
            schema: schema.clone(),
            chunks: Vec::new(),
            vectors,
            versions: Versions::default(),
            indexes,
            deletes: Vec::new(),
        }
    }

    /// A segment of rows read or merged, with the graphs that were read with them (by field).
    pub fn from_parts(
        id: SegmentId,
        indexes: &BTreeMap<String, IndexSpec>,
        rows: Batch,
        versions: Versions,
        mut graphs: BTreeMap<String, Hnsw>,
        deletes: Vec<Tombstone>,
    ) -> Self {
        assert_eq!(rows.len(), versions.len(), "a version for each row");
        let mut segment = Self::new(id, &rows.schema().clone(), indexes);
        for index in &mut segment.indexes {
            index.graph = graphs.remove(&index.field);
        }
        let (scalars, vectors) = rows.into_parts();
        if scalars.num_rows() > 0 {
            segment.chunks.push((0, scalars));
        }
        segment.vectors = vectors;
        segment.versions = versions;
        segment.deletes = deletes;
        segment
    }

    /// Its id.
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// The number of rows, dead ones included.
    pub fn len(&self) -> usize {
        self.versions.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.versions.is_empty()
    }

    /// The schema of its rows.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Adds all rows of `batch`, with a version each; they get the numbers from [`Self::len`] on.
    pub fn push(&mut self, batch: &Batch, versions: &[Version], lsn: Lsn) {
        assert_eq!(batch.len(), versions.len(), "a version for each row");
        if batch.is_empty() {
            return;
        }
        let mut start = self.len();
        for &version in versions {
            self.versions.push(version, lsn);
        }
        for (column, added) in self.vectors.iter_mut().zip(batch.vectors()) {
            column.data.extend_from_slice(&added.data);
        }
        let mut joined = batch.scalars().clone();
        while let Some((before, chunk)) = self.chunks.pop_if(|(_, chunk)| chunk.num_rows() <= 2 * joined.num_rows()) {
            joined = gather::concat(chunk.schema_ref(), &[&chunk, &joined]);
            start = before;
        }
        self.chunks.push((start, joined));
    }

    /// The narrow columns as runs of rows: the first row's number, and the columns as in [`Batch::scalars`].
    pub fn chunks(&self) -> impl Iterator<Item = (usize, &RecordBatch)> {
        self.chunks.iter().map(|(start, batch)| (*start, batch))
    }

    /// The versions of the rows.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The vectors of a field.
    pub fn vectors(&self, field: &str) -> Option<Vectors<'_>> {
        self.vectors.iter().find(|column| column.field == field).map(|column| Vectors::new(&column.data, column.dim))
    }

    /// The index of a field.
    pub fn index(&self, field: &str) -> Option<&FieldIndex> {
        self.indexes.iter().find(|index| index.field == field)
    }

    /// All indexes, in schema order of their fields.
    pub fn indexes(&self) -> &[FieldIndex] {
        &self.indexes
    }

    fn chunk_of(&self, row: usize) -> (Batch, usize) {
        let at = self.chunks.partition_point(|(start, _)| *start <= row) - 1;
        let (start, scalars) = &self.chunks[at];
        (Batch::from_parts(self.schema.clone(), scalars.clone(), Vec::new()), row - start)
    }

    /// The primary key of `row`. Panics past the end.
    pub fn key(&self, row: usize) -> Key {
        let (batch, row) = self.chunk_of(row);
        batch.key(row)
    }

    /// The fields of `row` that `fields` names; every scalar field, and the dynamic ones, with `None`. Panics past the end.
    pub fn row(&self, row: usize, fields: Option<&[String]>) -> Row {
        let (batch, at) = self.chunk_of(row);
        let mut out = batch.row(at, fields);
        for column in &self.vectors {
            if fields.is_some_and(|fields| fields.contains(&column.field)) {
                let vector = column.data[row * column.dim..(row + 1) * column.dim].to_vec();
                out.insert(column.field.clone(), crate::model::Value::Vector(vector));
            }
        }
        out
    }

    /// These rows, which ascend.
    pub fn take(&self, rows: &[u32]) -> (Batch, Vec<Version>) {
        let mut parts = Vec::new();
        let mut rest = rows;
        for (start, chunk) in &self.chunks {
            let end = start + chunk.num_rows();
            let (here, after) = rest.split_at(rest.partition_point(|&row| (row as usize) < end));
            if !here.is_empty() {
                let local: Vec<u32> = here.iter().map(|&row| row - *start as u32).collect();
                parts.push(gather::take(chunk, &local));
            }
            rest = after;
        }
        assert!(rest.is_empty(), "row {:?} of a segment of {}", rest.first(), self.len());
        let scalars = self.join(parts.iter());
        let gather = |column: &VectorColumn| {
            let row = |row: u32| &column.data[row as usize * column.dim..(row as usize + 1) * column.dim];
            let data = rows.iter().flat_map(|&at| row(at).iter().copied()).collect();
            VectorColumn { field: column.field.clone(), dim: column.dim, data }
        };
        let vectors = self.vectors.iter().map(gather).collect();
        let versions = rows.iter().map(|&row| self.versions.version(row as usize)).collect();
        (Batch::from_parts(self.schema.clone(), scalars, vectors), versions)
    }

    fn join<'a>(&self, parts: impl Iterator<Item = &'a RecordBatch>) -> RecordBatch {
        let empty = Batch::empty(&self.schema);
        gather::concat(empty.scalars().schema_ref(), &parts.collect::<Vec<_>>())
    }

    /// The primary keys of all rows.
    pub fn keys(&self) -> Vec<Key> {
        let chunk_keys = |chunk: &RecordBatch| Batch::from_parts(self.schema.clone(), chunk.clone(), Vec::new()).keys();
        self.chunks.iter().flat_map(|(_, chunk)| chunk_keys(chunk)).collect()
    }

    /// About how many bytes a row is on the wire.
    pub fn row_bytes(&self) -> usize {
        let vectors: usize = self.vectors.iter().map(|column| column.dim * 4).sum();
        let narrow: usize = self.chunks.iter().map(|(_, chunk)| chunk.get_array_memory_size()).sum();
        vectors + narrow / self.len().max(1) + 32
    }

    /// All rows as one batch.
    pub fn to_batch(&self) -> Batch {
        let scalars = self.join(self.chunks.iter().map(|(_, chunk)| chunk));
        Batch::from_parts(self.schema.clone(), scalars, self.vectors.clone())
    }

    /// Rows that their index does not cover yet, over all indexes.
    pub fn rows_unindexed(&self) -> usize {
        if self.len() < INDEXED_ROWS_MIN {
            return 0;
        }
        let graphs = self.indexes.iter().filter(|index| matches!(index.spec.kind, IndexKind::Hnsw { .. }));
        graphs.map(|index| self.len() - index.graph.as_ref().map_or(0, Hnsw::len)).sum()
    }

    /// Adds at most `rows_max` rows to the indexes; tells how many.
    pub fn index_some(&mut self, rows_max: usize) -> usize {
        let len = self.len();
        if len < INDEXED_ROWS_MIN {
            return 0;
        }
        let mut done = 0;
        for (index, column) in self.indexes.iter_mut().zip(&self.vectors) {
            let IndexKind::Hnsw { m, ef_construction } = index.spec.kind else { continue };
            let graph = index.graph.get_or_insert_with(|| Hnsw::new(column.dim, index.spec.metric, m, ef_construction));
            let vectors = Vectors::new(&column.data, column.dim);
            while graph.len() < len && done < rows_max {
                graph.insert_next(vectors);
                done += 1;
            }
        }
        done
    }

    /// The bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|(_, chunk)| chunk.get_array_memory_size()).sum();
        let vectors: usize = self.vectors.iter().map(|column| column.data.capacity() * 4).sum();
        let graphs: usize = self.indexes.iter().filter_map(|index| index.graph.as_ref()).map(Hnsw::memory_bytes).sum();
        chunks + vectors + graphs + self.versions.memory_bytes()
    }
}
