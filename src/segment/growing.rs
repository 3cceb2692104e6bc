use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};

use super::arrow::{batch_bytes, column_bytes};
use super::files::{floats, vector_batch, vector_field};
use super::layout::key_range;
use super::terms::{self, FieldTerms};
use super::{BlockRef, Blocks, FileKind, Group, KeyFilter, KeyRef, Known, Layout, Versions, hash_int, hash_text};
use crate::base::{Lsn, RowMask, SegmentId, Timestamp, Version};
use crate::index::terms::{Source as TermSource, Terms};
use crate::index::{Graft, GraphStats, Hnsw, IndexSpec, Run, Source, Step, VectorIndex, Vectors};
use crate::model::batch::grow;
use crate::model::gather;
use crate::model::partition::PartitionColumn;
use crate::model::{
    Batch, DEFAULT_PARTITION, Key, META_COLUMN, PartitionSet, Row, Schema, Step as PathStep, VectorColumn,
};

/// A segment of fewer rows than this is always scanned: a scan of a thousand int8 or float rows is as fast as a graph's first
/// hops, and small segments come and go too often to be worth building for.
const INDEXED_ROWS_MIN: usize = 1_000;
/// Runs of so many rows are long enough for filters.
const CHUNK_ROWS_MAX: usize = 8_192;

/// What a row of a graph takes beside its code, about, with `m` 16.
const GRAPH_ROW_BYTES: usize = 200;

/// No system has smaller pages.
const PAGE_BYTES: usize = 4_096;

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

/// The index of one vector field of a segment.
#[derive(Debug, Clone)]
pub struct FieldIndex {
    /// The vector field.
    pub field: String,
    /// What it is.
    pub spec: IndexSpec,
    /// What was built over its first rows; `None` for kinds that are a scan, and while there are too few rows.
    pub built: Option<VectorIndex>,
}

impl FieldIndex {
    /// Whether there is to be something when the segment `is_closed`, or is not.
    fn is_wanted(&self, is_closed: bool) -> bool {
        self.spec.kind.is_built() && (is_closed || !self.spec.kind.is_static())
    }

    /// Whether there is a step to take when the segment has `rows` rows.
    fn lags(&self, rows: usize, is_closed: bool) -> bool {
        self.is_wanted(is_closed) && self.built.as_ref().is_none_or(|built| built.has_work(rows))
    }
}

/// The indexes of a segment, of which nothing is built yet: one for each vector field.
fn field_indexes(schema: &Schema, specs: &BTreeMap<String, IndexSpec>) -> Vec<FieldIndex> {
    let index = |(field, _): (&crate::model::Field, usize)| FieldIndex {
        field: field.name.clone(),
        spec: specs[&field.name],
        built: None,
    };
    schema.vectors().map(index).collect()
}

/// What is known of a segment that is in storage.
#[derive(Debug, Clone)]
struct Stored {
    groups: Vec<Arc<Group>>,
    keys: usize,
    /// Between what its keys lie, when they are integers.
    key_range: Option<(i64, i64)>,
    filter: KeyFilter,
}

/// Rows with their versions and indexes.
#[derive(Debug, Clone)]
pub struct Segment {
    id: SegmentId,
    schema: Arc<Schema>,
    /// The narrow columns. Runs of one write each would make filters slow, so neighbours of similar size are joined: there
    /// are never more than about log2(rows) of them.
    chunks: Vec<(usize, RecordBatch)>,
    vectors: Vec<VectorColumn>,
    versions: Versions,
    indexes: Vec<FieldIndex>,
    /// Which rows have a term: always of all rows.
    terms: Vec<FieldTerms>,
    /// Where its columns lie in storage, once they do.
    stored: OnceLock<Stored>,
    /// The partitions of its rows, once somebody asked.
    partitions: OnceLock<PartitionSet>,
    /// Whether it takes no more rows though it is not in storage yet.
    is_merged: bool,
    /// Deletes that were applied while this segment was the growing one.
    pub deletes: Vec<Tombstone>,
}

impl Segment {
    /// An empty segment.
    pub fn new(id: SegmentId, schema: &Arc<Schema>, specs: &BTreeMap<String, IndexSpec>) -> Self {
        let vectors = Batch::empty(schema).vectors().to_vec();
        let indexes = field_indexes(schema, specs);
        let terms = terms::wanted(schema, specs);
        Self {
            id,
            schema: schema.clone(),
            chunks: Vec::new(),
            vectors,
            versions: Versions::default(),
            indexes,
            terms,
            stored: OnceLock::new(),
            partitions: OnceLock::new(),
            is_merged: false,
            deletes: Vec::new(),
        }
    }

    /// A segment of rows read or merged, with the indexes that were read with them (by field). Columns that are only in storage
    /// are missing in `scalars`, or have no data.
    #[expect(clippy::too_many_arguments, reason = "the parts of a segment, named where they are made")]
    pub(crate) fn from_parts(
        id: SegmentId,
        schema: &Arc<Schema>,
        indexes: &BTreeMap<String, IndexSpec>,
        scalars: RecordBatch,
        vectors: Vec<VectorColumn>,
        versions: Versions,
        mut built: BTreeMap<String, VectorIndex>,
        mut terms: BTreeMap<String, Terms>,
        deletes: Vec<Tombstone>,
    ) -> Self {
        assert_eq!(scalars.num_rows(), versions.len(), "a version for each row");
        let mut segment = Self::new(id, schema, indexes);
        for index in &mut segment.indexes {
            index.built = built.remove(&index.field);
        }
        if scalars.num_rows() > 0 {
            segment.chunks.push((0, scalars));
        }
        segment.vectors = vectors;
        segment.versions = versions;
        segment.deletes = deletes;
        for index in &mut segment.terms {
            if let Some(terms) = terms.remove(index.field()) {
                index.open(terms);
            }
        }
        segment.add_terms(|_| true);
        segment
    }

    /// Says where its columns lie in storage.
    pub fn store(&self, layout: Layout) {
        let key_range = key_range(&layout.groups, &self.schema.primary_key().name);
        let groups = layout.groups.into_iter().map(Arc::new).collect();
        // The first to say so has said it all: a segment never changes.
        let _ = self.stored.set(Stored { groups, keys: layout.keys as usize, key_range, filter: layout.filter });
    }

    /// Where its columns lie in storage; nowhere before it is flushed.
    pub fn stored(&self) -> &[Arc<Group>] {
        self.stored.get().map_or(&[], |stored| &stored.groups)
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

    /// Has the indexes of terms that have no rows yet, and that `wanted` names, take all of them.
    fn add_terms(&mut self, wanted: fn(&FieldTerms) -> bool) {
        let rows = self.len();
        for index in self.terms.iter_mut().filter(|index| index.rows() < rows && wanted(index)) {
            for (_, chunk) in &self.chunks {
                index.push(chunk.column_by_name(index.column()).expect("what has no index yet is in memory"));
            }
        }
    }

    /// Which rows have a term of that field, where it has such an index, and that knows all rows.
    pub fn terms(&self, field: &str) -> Option<TermSource<'_>> {
        self.terms_at(field, &[])
    }

    /// The same of a place in the values of a column.
    pub fn terms_at(&self, column: &str, steps: &[PathStep]) -> Option<TermSource<'_>> {
        let index = self.terms.iter().find(|index| index.is_of(column, steps) && index.rows() == self.len())?;
        Some(index.source())
    }

    /// Whether an index of terms lacks rows whose column is in memory.
    fn can_add_terms(&self) -> bool {
        self.terms.iter().any(|index| index.rows() < self.len() && self.has(index.column()))
    }

    /// Has an index of terms that was asked for later than its rows were written take some more of them, about `rows_max`. Tells whether
    /// there was something to do, and, when the segment is in storage without an index that is whole now, that it is to be written.
    pub fn add_some_terms(&mut self, rows_max: usize) -> (bool, bool) {
        let (len, is_stored) = (self.len(), self.stored.get().is_some());
        let chunks = &self.chunks;
        let has = |field: &str| chunks.first().is_none_or(|(_, chunk)| chunk.column_by_name(field).is_some());
        let Some(index) = self.terms.iter_mut().find(|index| index.rows() < len && has(index.column())) else {
            return (false, false);
        };
        let first = index.rows();
        for (start, chunk) in chunks.iter().filter(|(start, chunk)| start + chunk.num_rows() > first) {
            let from = first.max(*start) - start;
            let rows = (chunk.num_rows() - from).min((first + rows_max).saturating_sub(start + from));
            if rows > 0 {
                let column = chunk.column_by_name(index.column()).expect("all runs have the same columns");
                index.push(&column.slice(from, rows));
            }
        }
        let is_whole = index.rows() == len;
        if is_whole && is_stored {
            index.note_unsaved();
        }
        (true, is_whole && is_stored)
    }

    /// Where the index of terms of that name is among them.
    pub(crate) fn terms_position(&self, name: &str) -> usize {
        self.terms.iter().position(|index| index.field() == name).unwrap_or_default()
    }

    /// The indexes of terms.
    pub(super) fn all_terms(&self) -> &[FieldTerms] {
        &self.terms
    }

    /// Lets go of what indexes were built by, once they are written.
    pub fn settle(&mut self) {
        self.terms.iter_mut().for_each(FieldTerms::settle);
        let rows = self.len();
        let built = self.indexes.iter_mut().filter_map(|index| index.built.as_mut());
        built.filter(|built| !built.has_work(rows)).for_each(VectorIndex::settle);
    }

    /// The indexes, by their place in [`Self::indexes`], that can begin with those rows of `base` that are `kept`, which are the first ones
    /// here: see [`VectorIndex::graft`].
    pub fn grafts(&self, base: &Self, kept: &RowMask, memory_limit_bytes: Option<usize>) -> Vec<(usize, Graft)> {
        let graft = |(at, index): (usize, &FieldIndex)| {
            let built = base.index(&index.field)?.built.as_ref().filter(|built| built.len() == base.len())?;
            let field = self.schema.field(&index.field)?;
            let kind = index.spec.kind.chosen(field, self.len(), memory_limit_bytes);
            Some((at, built.graft(&IndexSpec { kind, ..index.spec }, kept)?))
        };
        let wanted = |rows: usize| rows >= INDEXED_ROWS_MIN;
        self.indexes.iter().enumerate().filter(|_| wanted(self.len())).filter_map(graft).collect()
    }

    /// Whether it has a graph over all of its rows.
    pub fn has_graph(&self) -> bool {
        self.graphs().any(|graph| graph.len() == self.len())
    }

    /// Takes a step of what [`Self::grafts`] began, and the index once it is done; tells whether there are more.
    pub fn graft_some(&mut self, base: &Self, grafts: &mut Vec<(usize, Graft)>, rows_max: usize) -> bool {
        let Some((at, graft)) = grafts.last_mut() else { return false };
        let field = &self.indexes[*at].field;
        let graph = base.index(field).and_then(|index| index.built.as_ref()).and_then(VectorIndex::graph);
        if graph.is_some_and(|graph| graft.step(graph, rows_max)) {
            return true;
        }
        if let Some((at, graft)) = grafts.pop() {
            self.indexes[at].built = graft.finish().map(VectorIndex::Hnsw);
        }
        !grafts.is_empty()
    }

    /// Takes on fields that its rows may lack (see [`Schema::with_field`]), and other indexes, which are built later.
    pub fn grow(&mut self, schema: &Arc<Schema>, specs: &BTreeMap<String, IndexSpec>) {
        let mut before = std::mem::take(&mut self.indexes);
        self.indexes = field_indexes(schema, specs);
        for index in &mut self.indexes {
            // One that is to be another is built anew; until then its field is scanned.
            let same = before.iter_mut().find(|other| (&other.field, &other.spec) == (&index.field, &index.spec));
            index.built = same.and_then(|same| same.built.take());
        }
        for (_, chunk) in &mut self.chunks {
            *chunk = grow(chunk, &self.schema, schema);
        }
        self.schema = schema.clone();
        self.partitions.take();
        let mut wanted = terms::wanted(schema, specs);
        self.terms.retain(|index| wanted.iter().any(|other| other.is_as(index)));
        wanted.retain(|index| !self.terms.iter().any(|other| other.is_as(index)));
        self.terms.extend(wanted);
        // What asks for words finds them in each segment; the others take rows in the background.
        self.add_terms(FieldTerms::is_text);
    }

    /// Adds all rows of `batch`, with a version each; they get the numbers from [`Self::len`] on.
    pub fn push(&mut self, batch: &Batch, versions: &[Version], lsn: Lsn) {
        self.push_all(&[(batch, versions, lsn)]);
    }

    /// The same of several batches, in their order.
    pub fn push_all(&mut self, parts: &[(&Batch, &[Version], Lsn)]) {
        let mut scalars = Vec::with_capacity(parts.len());
        for (batch, versions, lsn) in parts.iter().filter(|(batch, ..)| !batch.is_empty()) {
            assert_eq!(batch.len(), versions.len(), "a version for each row");
            versions.iter().for_each(|&version| self.versions.push(version, *lsn));
            self.push_vectors(batch);
            scalars.push(batch.scalars());
        }
        match scalars.as_slice() {
            [] => {}
            [one] => self.push_scalars(RecordBatch::clone(one), usize::MAX),
            [first, ..] => self.push_scalars(gather::concat(first.schema_ref(), &scalars), usize::MAX),
        }
    }

    /// Makes the memory of so many more vectors ready: the system hands out a page when it is first touched, and for vectors that takes
    /// longer than to copy them.
    pub fn make_room(&mut self, rows: usize) {
        for column in &mut self.vectors {
            let numbers = rows * column.dim;
            reserve(&mut column.data, numbers);
            for page in column.data.spare_capacity_mut()[..numbers].chunks_mut(PAGE_BYTES / size_of::<f32>()) {
                page[0].write(0.0);
            }
        }
    }

    /// Adds rows of another segment, with what is known of their writes.
    pub(crate) fn append(&mut self, batch: &Batch, versions: &Versions) {
        assert_eq!(batch.len(), versions.len(), "a version for each row");
        self.versions.append(versions);
        // A segment that is made at once is written and read in parts: there is no use in joining them all.
        self.push_vectors(batch);
        self.push_scalars(batch.scalars().clone(), CHUNK_ROWS_MAX);
    }

    fn push_vectors(&mut self, batch: &Batch) {
        for (column, added) in self.vectors.iter_mut().zip(batch.vectors()) {
            reserve(&mut column.data, added.data.len());
            column.data.extend_from_slice(&added.data);
        }
    }

    fn push_scalars(&mut self, mut joined: RecordBatch, chunk_rows_max: usize) {
        if let Some(partitions) = self.partitions.get_mut() {
            partitions.insert_rows(&self.schema, &joined);
        }
        let mut start = self.len() - joined.num_rows();
        for index in self.terms.iter_mut().filter(|index| index.rows() == start) {
            // Of a column that a merge leaves in storage they are made when it is written.
            joined.column_by_name(index.column()).into_iter().for_each(|column| index.push(column));
        }
        while joined.num_rows() < chunk_rows_max
            && let Some((before, chunk)) = self.chunks.pop_if(|(_, chunk)| chunk.num_rows() <= 2 * joined.num_rows())
        {
            joined = gather::concat(chunk.schema_ref(), &[&chunk, &joined]);
            start = before;
        }
        self.chunks.push((start, joined));
    }

    /// Has the indexes of terms of a column that is not in memory take its values in some rows, from row `start` on, unless they have.
    pub(crate) fn add_terms_of(&mut self, column: &str, start: usize, values: &ArrayRef) {
        let behind = self.terms.iter_mut().filter(|index| index.column() == column && index.rows() == start);
        behind.for_each(|index| index.push(values));
    }

    /// The narrow columns as runs of rows: the first row's number, and the columns as in [`Batch::scalars`].
    pub fn chunks(&self) -> impl Iterator<Item = (usize, &RecordBatch)> {
        self.chunks.iter().map(|(start, batch)| (*start, batch))
    }

    /// The partitions of its rows, dead ones too. Cost: one pass over them the first time.
    pub fn partitions(&self) -> &PartitionSet {
        self.partitions.get_or_init(|| {
            let mut partitions = PartitionSet::default();
            self.chunks.iter().for_each(|(_, chunk)| partitions.insert_rows(&self.schema, chunk));
            partitions
        })
    }

    /// The partition of `row`. Panics past the end.
    pub fn partition(&self, row: usize) -> String {
        let at = self.chunks.partition_point(|(start, _)| *start <= row) - 1;
        let (start, chunk) = &self.chunks[at];
        PartitionColumn::new(&self.schema, chunk)
            .map_or_else(|| DEFAULT_PARTITION.to_owned(), |column| column.of(row - start).name())
    }

    /// Has all its rows and deletes have come at one position of the local log: it is another replica's.
    pub fn arrive(&mut self, lsn: Lsn) {
        self.versions.arrive(lsn);
        self.deletes.iter_mut().for_each(|delete| delete.lsn = lsn);
    }

    /// The greatest timestamp of its rows and deletes.
    pub fn newest(&self) -> Timestamp {
        let rows = (0..self.len()).map(|row| self.versions.version(row).timestamp);
        rows.chain(self.deletes.iter().map(|delete| delete.version.timestamp)).max().unwrap_or_default()
    }

    /// The versions of the rows.
    pub fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The vectors of a field, when they are in memory.
    pub fn vectors(&self, field: &str) -> Option<Vectors<'_>> {
        let column = self.vectors.iter().find(|column| column.field == field)?;
        self.has_vectors(column).then(|| Vectors::new(&column.data, column.dim))
    }

    /// The vector fields, without data where they are only in storage.
    pub(super) fn vector_columns(&self) -> &[VectorColumn] {
        &self.vectors
    }

    fn has_vectors(&self, column: &VectorColumn) -> bool {
        column.data.len() == self.len() * column.dim
    }

    /// Whether the column is in memory.
    pub fn has(&self, column: &str) -> bool {
        match self.vectors.iter().find(|vectors| vectors.field == column) {
            Some(vectors) => self.has_vectors(vectors),
            None => self.chunks.first().is_none_or(|(_, chunk)| chunk.column_by_name(column).is_some()),
        }
    }

    /// The blocks in storage without which those columns of `rows`, which ascend, cannot be told, but for those in `have`.
    pub fn needs(&self, rows: &[u32], wanted: &dyn Fn(&str) -> bool, have: &Blocks) -> Vec<BlockRef> {
        let mut needs = Vec::new();
        for group in self.stored() {
            let cold = group.is_movable() && group.columns.iter().any(|column| wanted(column) && !self.has(column));
            if !cold {
                continue;
            }
            let mut last = None;
            for index in rows.iter().map(|&row| group.block_of(row)) {
                if last.replace(index) != Some(index) && have.get(group, index).is_none() {
                    needs.push(BlockRef { group: group.clone(), index });
                }
            }
        }
        needs
    }

    /// The columns of `rows`, which ascend: those wanted, and perhaps others; what is neither in memory nor in `blocks` and not
    /// wanted is null, or a vector without data. Panics when a block that [`Self::needs`] names is not there.
    pub fn pick(&self, rows: &[u32], wanted: &dyn Fn(&str) -> bool, blocks: &Blocks) -> Batch {
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
        let empty = Batch::empty(&self.schema);
        let all = empty.scalars().schema();
        let hot = parts.first().map_or_else(|| all.clone(), |part| part.schema());
        let hot = gather::concat(&hot, &parts.iter().collect::<Vec<_>>());
        let column = |field: &Arc<arrow_schema::Field>| {
            let field = field.as_ref().clone();
            match hot.column_by_name(field.name()) {
                Some(array) => (field, array.clone()),
                None if wanted(field.name()) => {
                    let array = self.gather_cold(field.name(), rows, blocks).column(0).clone();
                    (field, array)
                }
                None => {
                    let array = arrow_array::new_null_array(field.data_type(), rows.len());
                    (field.with_nullable(true), array)
                }
            }
        };
        let scalars = if hot.num_columns() == all.fields().len() {
            hot
        } else {
            super::batch_of(all.fields().iter().map(column), rows.len())
        };
        let of_column = |column: &VectorColumn| {
            let mut data = Vec::new();
            if self.has_vectors(column) {
                data.reserve_exact(rows.len() * column.dim);
                for &row in rows {
                    data.extend_from_slice(&column.data[row as usize * column.dim..][..column.dim]);
                }
            } else if wanted(&column.field) {
                self.gather_vectors(column, rows, blocks, &mut data);
            }
            VectorColumn { field: column.field.clone(), dim: column.dim, data }
        };
        let vectors = self.vectors.iter().map(of_column).collect();
        Batch::from_parts(self.schema.clone(), scalars, vectors)
    }

    /// Runs of rows, one after the other, of which `may_admit` does not say no. It is asked about runs that are in one block of each
    /// of `columns`, with what tells a column's number of rows and statistics there; a segment that is not in storage has none, and
    /// is one run.
    pub fn runs(&self, columns: &BTreeSet<&str>, may_admit: &dyn Fn(Known<'_>) -> bool) -> Vec<std::ops::Range<u32>> {
        let places: Vec<(&str, &Arc<Group>, usize)> = columns
            .iter()
            .filter_map(|column| {
                let group = self.stored().iter().find(|group| group.kind != FileKind::Deletes && group.has(column))?;
                Some((*column, group, group.columns.iter().position(|name| name == column)?))
            })
            .collect();
        let mut starts: Vec<u32> = places.iter().flat_map(|(_, group, _)| group.starts()).copied().chain([0]).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut runs: Vec<std::ops::Range<u32>> = Vec::new();
        for (at, &start) in starts.iter().enumerate() {
            let end = starts.get(at + 1).map_or(self.len() as u32, |&end| end);
            let known = |column: &str| {
                let (_, group, column) = places.iter().find(|(name, ..)| *name == column)?;
                let block = group.block_of(start);
                Some((group.blocks[block].rows, &group.statistics[block][*column]))
            };
            if start >= end || !may_admit(&known) {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.end == start => run.end = end,
                _ => runs.push(start..end),
            }
        }
        runs
    }

    fn group_of(&self, column: &str) -> &Group {
        let group = self.stored().iter().find(|group| group.columns.iter().any(|name| name == column));
        group.expect("a column is in memory or in storage")
    }

    fn gather_cold(&self, column: &str, rows: &[u32], blocks: &Blocks) -> RecordBatch {
        let group = self.group_of(column);
        let mut parts: Vec<&RecordBatch> = Vec::new();
        let mut picks = Vec::with_capacity(rows.len());
        let mut last = None;
        for &row in rows {
            let index = group.block_of(row);
            if last.replace(index) != Some(index) {
                parts.push(blocks.get(group, index).expect("the caller has read what is needed"));
            }
            picks.push((parts.len() as u32 - 1, row - group.start(index)));
        }
        gather::gather(parts[0].schema(), &parts, &picks)
    }

    fn gather_vectors(&self, column: &VectorColumn, rows: &[u32], blocks: &Blocks, data: &mut Vec<f32>) {
        let group = self.group_of(&column.field);
        for &row in rows {
            let index = group.block_of(row);
            let block = blocks.get(group, index).expect("the caller has read what is needed");
            let numbers = floats(block, column).expect("blocks are checked when they are read");
            data.extend_from_slice(&numbers[(row - group.start(index)) as usize * column.dim..][..column.dim]);
        }
    }

    /// The vectors of `rows`, which ascend, one after the other. Panics as [`Self::pick`] does.
    pub fn gather(&self, field: &str, rows: &[u32], blocks: &Blocks) -> Vec<f32> {
        let mut data = Vec::new();
        if let Some(column) = self.vectors.iter().find(|column| column.field == field) {
            self.gather_vectors(column, rows, blocks, &mut data);
        }
        data
    }

    /// Takes the columns of a file into memory, from all its blocks. Panics when one is missing.
    pub fn load(&mut self, group: &Group, blocks: &Blocks) {
        let parts: Vec<&RecordBatch> = (0..group.blocks.len())
            .map(|index| blocks.get(group, index).expect("the caller has read the whole file").as_ref())
            .collect();
        match &group.kind {
            FileKind::Vector(field) => {
                let rows = self.len();
                let Some(column) = self.vectors.iter_mut().find(|column| column.field == *field) else { return };
                let mut data = Vec::with_capacity(rows * column.dim);
                for part in parts {
                    data.extend_from_slice(floats(part, column).expect("blocks are checked when they are read"));
                }
                column.data = data;
            }
            FileKind::Column(field) if !self.has(field) => {
                let added = gather::concat(parts[0].schema_ref(), &parts);
                let all = Batch::empty(&self.schema).scalars().schema();
                for (start, chunk) in &mut self.chunks {
                    let added = added.slice(*start, chunk.num_rows());
                    let column = |field: &Arc<arrow_schema::Field>| {
                        let array =
                            chunk.column_by_name(field.name()).or_else(|| added.column_by_name(field.name()))?;
                        Some((field.as_ref().clone(), array.clone()))
                    };
                    let columns: Vec<_> = all.fields().iter().filter_map(column).collect();
                    *chunk = super::batch_of(columns, chunk.num_rows());
                }
            }
            _ => {}
        }
    }

    /// Forgets what is in storage of these files; tells how many bytes that was.
    pub fn unload(&mut self, kind: &FileKind) -> usize {
        let before = self.memory_bytes();
        match kind {
            FileKind::Vector(field) => {
                if let Some(column) = self.vectors.iter_mut().find(|column| column.field == *field) {
                    column.data = Vec::new();
                }
            }
            FileKind::Column(field) => {
                for (_, chunk) in &mut self.chunks {
                    if let Ok(index) = chunk.schema_ref().index_of(field) {
                        chunk.remove_column(index);
                    }
                }
            }
            _ => {}
        }
        before - self.memory_bytes()
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

    /// The fields of `row` that `fields` names; every scalar field, and the dynamic ones, with `None`. Panics past the end, and
    /// as [`Self::pick`] does.
    pub fn row(&self, row: usize, fields: Option<&[String]>, blocks: &Blocks) -> Row {
        let wanted = self.wanted(fields);
        let cold = |column: &&Arc<Group>| column.columns.iter().any(|column| wanted(column) && !self.has(column));
        if self.chunks.first().is_some_and(|(_, chunk)| chunk.num_columns() < self.scalar_count())
            || self.stored().iter().filter(|group| matches!(group.kind, FileKind::Vector(_))).any(|group| cold(&group))
        {
            let (scalars, mut vectors) = self.pick(&[row as u32], &wanted, blocks).into_parts();
            if fields.is_none() {
                // Vectors are told only when they are named.
                vectors.clear();
            }
            return Batch::from_parts(self.schema.clone(), scalars, vectors).row(0, fields);
        }
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

    fn scalar_count(&self) -> usize {
        self.schema.columns().len() - self.vectors.len() + usize::from(self.schema.dynamic())
    }

    /// Which columns output fields call for.
    pub fn wanted(&self, fields: Option<&[String]>) -> impl Fn(&str) -> bool {
        move |column: &str| match fields {
            None => !self.vectors.iter().any(|vectors| vectors.field == column),
            Some(fields) if column == META_COLUMN => fields.iter().any(|field| self.schema.field(field).is_none()),
            Some(fields) => fields.iter().any(|field| field == column),
        }
    }

    /// These rows, which ascend. Panics as [`Self::pick`] does.
    pub fn take(&self, rows: &[u32], blocks: &Blocks) -> (Batch, Vec<Version>) {
        let versions = rows.iter().map(|&row| self.versions.version(row as usize)).collect();
        (self.pick(rows, &|_| true, blocks), versions)
    }

    /// Those scalar columns, which are in memory, of some rows.
    pub(super) fn block(&self, columns: &[String], rows: Range<usize>) -> RecordBatch {
        let mut parts = Vec::new();
        for (start, chunk) in &self.chunks {
            let from = rows.start.max(*start);
            let until = rows.end.min(start + chunk.num_rows());
            if from < until {
                parts.push(chunk.slice(from - start, until - from));
            }
        }
        let all = Batch::empty(&self.schema).scalars().schema();
        let here = parts.first().map_or_else(|| all.clone(), |part| part.schema());
        let joined = gather::concat(&here, &parts.iter().collect::<Vec<_>>());
        let column = |name: &String| {
            let field = all.field_with_name(name).expect("a column of the schema").clone();
            (field, joined.column_by_name(name).expect("all columns are in memory").clone())
        };
        super::batch_of(columns.iter().map(column), rows.len())
    }

    /// One column of `rows`, which ascend. Panics as [`Self::pick`] does.
    pub(crate) fn column_of(&self, column: &str, rows: &[u32], blocks: &Blocks) -> RecordBatch {
        if let Some(vectors) = self.vectors.iter().find(|vectors| vectors.field == column) {
            let mut data = Vec::with_capacity(rows.len() * vectors.dim);
            if self.has_vectors(vectors) {
                rows.iter().for_each(|&row| {
                    data.extend_from_slice(&vectors.data[row as usize * vectors.dim..][..vectors.dim])
                });
            } else {
                self.gather_vectors(vectors, rows, blocks, &mut data);
            }
            return vector_batch(VectorColumn { field: column.to_owned(), dim: vectors.dim, data });
        }
        if !self.has(column) {
            return self.gather_cold(column, rows, blocks);
        }
        let chunks: Vec<RecordBatch> = self.chunks.iter().filter_map(|(_, chunk)| only(chunk, column)).collect();
        let pick = |&row: &u32| {
            let at = self.chunks.partition_point(|(start, _)| *start <= row as usize) - 1;
            (at as u32, row - self.chunks[at].0 as u32)
        };
        let picks: Vec<(u32, u32)> = rows.iter().map(pick).collect();
        gather::gather(chunks[0].schema(), &chunks.iter().collect::<Vec<_>>(), &picks)
    }

    /// Pieces of one column, of [`Self::column_of`] of several segments, as one block of it.
    pub(crate) fn join(&self, column: &str, pieces: &[RecordBatch]) -> RecordBatch {
        let vectors = self.vectors.iter().find(|vectors| vectors.field == column).map(vector_field);
        let all = Batch::empty(&self.schema).scalars().schema();
        let field = vectors.or_else(|| all.field_with_name(column).ok().cloned()).expect("a column of the schema");
        // One piece is taken as it is, by the name that it has in its file.
        let joined = gather::concat(&pieces[0].schema(), &pieces.iter().collect::<Vec<_>>());
        super::batch_of([(field, joined.column(0).clone())], joined.num_rows())
    }

    /// The block in storage that `row` of that column is in, and the rows that it has; `None` where the column is in memory.
    pub(crate) fn block_around(&self, column: &str, row: u32) -> Option<Range<u32>> {
        if self.has(column) {
            return None;
        }
        let group = self.group_of(column);
        let start = group.start(group.block_of(row));
        Some(start..start + group.blocks[group.block_of(row)].rows)
    }

    /// Whether a merge of so many rows can leave that column in storage: what is built of it takes one row after the other.
    pub(crate) fn can_leave(&self, column: &str, rows: usize, memory_limit_bytes: Option<usize>) -> bool {
        let field = self.schema.field(column);
        self.index(column).zip(field).is_none_or(|(index, field)| {
            let kind = index.spec.kind;
            !kind.is_built() || kind.chosen(field, rows, memory_limit_bytes).goes_row_by_row()
        })
    }

    /// The columns in storage that a merge of so many rows can leave there.
    pub(crate) fn leavable(&self, rows: usize, memory_limit_bytes: Option<usize>) -> Vec<String> {
        let movable = self.stored().iter().filter(|group| group.is_movable()).flat_map(|group| &group.columns);
        movable.filter(|column| self.can_leave(column, rows, memory_limit_bytes)).cloned().collect()
    }

    /// What a merge holds in memory of each row, about, when it leaves those columns in storage.
    pub(crate) fn merged_row_bytes(&self, left: &[String]) -> usize {
        let is_held = |column: &str| !left.iter().any(|name| name == column);
        let scalars = self.scalar_bytes().into_iter().filter(|(name, _)| is_held(name)).map(|(_, bytes)| bytes);
        let cold = |group: &&Arc<Group>| matches!(&group.kind, FileKind::Column(column) if is_held(column) && !self.has(column));
        let cold = self.stored().iter().filter(cold).map(|group| group.memory_bytes());
        let vectors = self.vectors.iter().filter(|column| is_held(&column.field)).map(|column| column.dim * 4);
        let of_index = |index: &FieldIndex| {
            let built = index.built.as_ref().map_or(0, |built| built.memory_bytes() / built.len().max(1));
            let dim = self.schema.field(&index.field).and_then(|field| field.data_type.dim()).unwrap_or(0) as usize;
            // What a graph takes while it grows: an eighth more than the codes, and its lists of neighbours.
            built.max(if index.spec.kind.is_built() { dim * 9 / 8 + GRAPH_ROW_BYTES } else { 0 })
        };
        let rows = self.len().max(1);
        let terms = self.terms.iter().map(FieldTerms::memory_bytes).sum::<usize>();
        let all = scalars.sum::<usize>() + cold.sum::<usize>() + terms + self.versions.memory_bytes();
        all / rows + vectors.sum::<usize>() + self.indexes.iter().map(of_index).sum::<usize>()
    }

    /// The scalar columns, and what they take in memory.
    pub(super) fn scalar_bytes(&self) -> Vec<(String, usize)> {
        let all = Batch::empty(&self.schema).scalars().schema();
        let of_column = |field: &Arc<arrow_schema::Field>| {
            let columns = self.chunks.iter().filter_map(|(_, chunk)| chunk.column_by_name(field.name()));
            (field.name().clone(), columns.map(|column| column_bytes(column)).sum())
        };
        all.fields().iter().map(of_column).collect()
    }

    /// The hashes of the primary keys of all rows.
    pub fn key_hashes(&self) -> Vec<u64> {
        let mut hashes = Vec::with_capacity(self.len());
        for (_, chunk) in &self.chunks {
            let column = self.key_column(chunk);
            match column.as_any().downcast_ref::<Int64Array>() {
                Some(keys) => hashes.extend(keys.values().iter().map(|&key| hash_int(key))),
                None => hashes.extend(column.as_string::<i32>().iter().flatten().map(hash_text)),
            }
        }
        hashes
    }

    fn key_column<'a>(&self, chunk: &'a RecordBatch) -> &'a ArrayRef {
        chunk.column_by_name(&self.schema.primary_key().name).expect("keys are in memory")
    }

    /// The key of `row`, where it lies. Panics past the end.
    pub fn key_ref(&self, row: usize) -> KeyRef<'_> {
        let at = self.chunks.partition_point(|(start, _)| *start <= row) - 1;
        let (start, chunk) = &self.chunks[at];
        let column = self.key_column(chunk);
        match column.as_any().downcast_ref::<Int64Array>() {
            Some(keys) => KeyRef::Int(keys.value(row - start)),
            None => KeyRef::Text(column.as_string::<i32>().value(row - start)),
        }
    }

    /// Whether no two rows have the same key; false when that is not known.
    pub fn has_distinct_keys(&self) -> bool {
        self.stored.get().is_some_and(|stored| stored.keys == self.len())
    }

    /// Whether a row may have that key, of that hash; anything is thought before it is in storage.
    pub fn may_have_key(&self, key: &Key, hash: u64) -> bool {
        self.stored.get().is_none_or(|stored| {
            let lies_between = match (key, stored.key_range) {
                (Key::Int(key), Some((least, most))) => (least..=most).contains(key),
                _ => true,
            };
            lies_between && stored.filter.may_have(hash)
        })
    }

    /// The bytes of the filter of keys in memory.
    pub fn key_filter_bytes(&self) -> usize {
        self.stored.get().map_or(0, |stored| stored.filter.memory_bytes())
    }

    /// The primary keys of all rows.
    pub fn keys(&self) -> Vec<Key> {
        let chunk_keys = |chunk: &RecordBatch| Batch::from_parts(self.schema.clone(), chunk.clone(), Vec::new()).keys();
        self.chunks.iter().flat_map(|(_, chunk)| chunk_keys(chunk)).collect()
    }

    /// About how many bytes a row is on the wire.
    pub fn row_bytes(&self) -> usize {
        let vectors: usize = self.vectors.iter().map(|column| column.dim * 4).sum();
        let here: usize = self.chunks.iter().map(|(_, chunk)| batch_bytes(chunk)).sum();
        let left = self.stored().iter().filter(|group| {
            matches!(group.kind, FileKind::Column(_)) && !group.columns.iter().all(|column| self.has(column))
        });
        let left: usize = left.map(|group| group.memory_bytes()).sum();
        vectors + (here + left) / self.len().max(1) + 32
    }

    /// The indexes that there are to be, whether they were begun or not.
    fn built(&self) -> impl Iterator<Item = Option<&VectorIndex>> {
        let is_closed = self.is_closed();
        let wanted = self.indexes.iter().filter(move |index| index.is_wanted(is_closed));
        wanted.filter(|_| self.len() >= INDEXED_ROWS_MIN).map(|index| index.built.as_ref())
    }

    /// Rows that are to be in an index, over all indexes.
    pub fn rows_to_index(&self) -> usize {
        self.built().count() * self.len()
    }

    /// Rows that their index does not cover yet, over all indexes.
    pub fn rows_unindexed(&self) -> usize {
        self.built().map(|index| self.len() - index.map_or(0, VectorIndex::len)).sum()
    }

    /// How its graphs hang together, and how many of their rows are not among `live`. See [`Hnsw::stats`].
    pub fn graph_stats(&self, live: &RowMask) -> GraphStats {
        let mut all = GraphStats::default();
        for graph in self.graphs() {
            all += GraphStats {
                dead: graph.len() - live.count_before(graph.len()),
                ..graph.stats(graph.len() < self.len())
            };
        }
        all
    }

    /// Looks at some nodes of a graph of which it is not known how it hangs together; false when it is known of all.
    pub fn look_some(&self, nodes_max: usize) -> bool {
        self.graphs().any(|graph| graph.len() == self.len() && graph.look_some(nodes_max))
    }

    /// The graph of a field, to do damage to.
    #[cfg(test)]
    pub(crate) fn graph_mut(&mut self, field: &str) -> Option<&mut Hnsw> {
        let index = self.indexes.iter_mut().find(|index| index.field == field)?;
        if let Some(VectorIndex::Hnsw(graph)) = &mut index.built { Some(graph) } else { None }
    }

    /// Nodes of its graphs to which no way leads, as far as somebody has looked.
    pub fn unreachable_known(&self) -> usize {
        self.graphs().map(Hnsw::unreachable_known).sum()
    }

    fn graphs(&self) -> impl Iterator<Item = &Hnsw> {
        self.built().flatten().filter_map(VectorIndex::graph)
    }

    /// Whether a step of indexing has something to do: an index that lags behind, and vectors in memory.
    pub fn can_index(&self) -> bool {
        let closed = self.is_closed();
        self.can_add_terms()
            || self.len() >= INDEXED_ROWS_MIN
                && self.indexes.iter().any(|index| index.lags(self.len(), closed) && self.has(&index.field))
    }

    /// Whether it takes no more rows.
    fn is_closed(&self) -> bool {
        self.is_merged || self.stored.get().is_some()
    }

    /// Says that it takes no more rows.
    pub fn close(&mut self) {
        self.is_merged = true;
    }

    /// Whether the vectors of that field are to stay in storage: all their rows are in an index that leaves them there.
    pub fn leaves(&self, field: &str) -> bool {
        let leaves = |index: &FieldIndex| index.spec.kind.leaves_vectors() && index.built.is_some();
        self.index(field).is_some_and(leaves) && !self.lags(field)
    }

    /// Whether an index of that field lags behind, so that its vectors or values are needed in memory.
    pub fn lags(&self, field: &str) -> bool {
        let closed = self.is_closed();
        self.terms.iter().any(|index| index.column() == field && index.rows() < self.len())
            || self.len() >= INDEXED_ROWS_MIN && self.index(field).is_some_and(|index| index.lags(self.len(), closed))
    }

    /// The vectors of a field in the form in which they are kept, when they are in memory.
    pub fn source(&self, field: &str) -> Option<Source<'_>> {
        source(&self.vectors, &self.chunks, self.len(), field)
    }

    /// Begins a step of an index that lags behind, and tells of which; `None` when none does. The step is done after
    /// [`Self::look_up`], which takes nearly all of the time and changes nothing, and [`Self::insert`].
    pub fn begin_row(&mut self, memory_limit_bytes: Option<usize>) -> Option<usize> {
        let len = self.len();
        if len < INDEXED_ROWS_MIN {
            return None;
        }
        let is_closed = self.is_closed();
        for (at, index) in self.indexes.iter_mut().enumerate() {
            if !index.lags(len, is_closed) {
                continue;
            }
            let Some(source) = source(&self.vectors, &self.chunks, len, &index.field) else { continue };
            if index.built.is_none() {
                let field = self.schema.field(&index.field)?;
                let spec = IndexSpec { kind: index.spec.kind.chosen(field, len, memory_limit_bytes), ..index.spec };
                index.built = VectorIndex::new(&spec, field.data_type.dim().unwrap_or(0) as usize);
            }
            index.built.as_mut()?.begin(&source);
            return Some(at);
        }
        None
    }

    /// Finds out what the step that was begun of that index will write; `None` when its vectors are in memory no more.
    pub fn look_up(&self, index: usize) -> Option<Step> {
        let index = &self.indexes[index];
        Some(index.built.as_ref()?.look_up(&self.source(&index.field)?))
    }

    /// Takes that step.
    pub fn insert(&mut self, index: usize, step: Step) {
        self.indexes[index].built.as_mut().expect("the step was looked up in it").apply(step);
    }

    /// Takes at most `rows_max` steps of indexing; tells how many.
    pub fn index_some(&mut self, rows_max: usize, memory_limit_bytes: Option<usize>) -> usize {
        for done in 0..rows_max {
            let Some(index) = self.begin_row(memory_limit_bytes) else { return done };
            let Some(step) = self.look_up(index) else { return done };
            self.insert(index, step);
        }
        rows_max
    }

    /// Adds a row to an index whose vectors are in storage only and that takes one after the other; false when there is none, and the
    /// block that it needs besides `blocks` when there is one.
    pub(crate) fn index_left(&mut self, blocks: &Blocks, memory_limit_bytes: Option<usize>) -> Result<bool, BlockRef> {
        let (len, is_closed) = (self.len(), self.is_closed());
        for at in 0..self.indexes.len() {
            let index = &self.indexes[at];
            if len < INDEXED_ROWS_MIN || !index.lags(len, is_closed) || self.has(&index.field) {
                continue;
            }
            if !self.can_leave(&index.field, len, memory_limit_bytes) {
                continue;
            }
            let Some(field) = self.schema.field(&index.field) else { continue };
            let row = index.built.as_ref().map_or(0, VectorIndex::len) as u32;
            let is_it = |group: &&Arc<Group>| group.is_movable() && group.has(&index.field);
            let Some(group) = self.stored().iter().find(is_it) else { continue };
            let block = BlockRef { index: group.block_of(row), group: group.clone() };
            let Some(rows) = blocks.get(group, block.index) else { return Err(block) };
            let column = rows.column_by_name(&index.field);
            let run = column.and_then(|column| Run::new(group.start(block.index) as usize, column));
            let source = Source::Columns(vec![run.expect("blocks are checked when they are read")]);
            let kind = index.spec.kind.chosen(field, len, memory_limit_bytes);
            let (spec, dim) = (IndexSpec { kind, ..index.spec }, field.data_type.dim().unwrap_or(0) as usize);
            let Some(mut built) = self.indexes[at].built.take().or_else(|| VectorIndex::new(&spec, dim)) else {
                continue;
            };
            built.begin(&source);
            let step = built.look_up(&source);
            built.apply(step);
            self.indexes[at].built = Some(built);
            return Ok(true);
        }
        Ok(false)
    }

    /// The bytes held in memory: rows with their versions, wide columns, vectors, indexes.
    pub fn memory(&self) -> [usize; 4] {
        let wide = |name: &str| {
            self.stored().iter().any(|group| matches!(&group.kind, FileKind::Column(column) if column == name))
        };
        let (mut rows, mut columns) = (self.versions.memory_bytes(), 0);
        for (_, chunk) in &self.chunks {
            for (field, array) in chunk.schema_ref().fields().iter().zip(chunk.columns()) {
                *if wide(field.name()) { &mut columns } else { &mut rows } += column_bytes(array);
            }
        }
        let vectors = self.vectors.iter().map(|column| column.data.len() * 4).sum();
        let built = self.indexes.iter().filter_map(|index| index.built.as_ref());
        let indexes = built.map(VectorIndex::memory_bytes).sum::<usize>();
        let indexes = indexes + self.terms.iter().map(FieldTerms::memory_bytes).sum::<usize>();
        [rows, columns, vectors, indexes]
    }

    /// The bytes that these columns take in memory.
    pub fn columns_bytes(&self, names: &[String]) -> usize {
        let scalars = self.chunks.iter().flat_map(|(_, chunk)| chunk.schema_ref().fields().iter().zip(chunk.columns()));
        let scalars = scalars.filter(|(field, _)| names.contains(field.name())).map(|(_, array)| column_bytes(array));
        let vectors = self.vectors.iter().filter(|column| names.contains(&column.field));
        scalars.sum::<usize>() + vectors.map(|column| column.data.len() * 4).sum::<usize>()
    }

    /// All bytes held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory().iter().sum()
    }
}

/// Makes room for so many more numbers. WebAssembly cannot move pages, only copy them, and the system hands out a page when it is first touched:
/// there memory that is not touched yet costs less than to move what is, and a segment that fills is followed as far as it usually gets.
fn reserve(data: &mut Vec<f32>, more: usize) {
    let [filling, full] = [1 << 20, 64 << 20].map(|bytes| bytes / size_of::<f32>());
    if cfg!(browser) && data.capacity() - data.len() < more && (filling..full).contains(&data.len()) {
        data.reserve_exact(more.max((8 * data.len()).min(full) - data.len()));
    }
    data.reserve(more);
}

/// That column alone.
fn only(batch: &RecordBatch, column: &str) -> Option<RecordBatch> {
    batch.project(&[batch.schema_ref().index_of(column).ok()?]).ok()
}

/// The vectors of a field where they are in memory: see [`Segment::source`].
fn source<'a>(
    vectors: &'a [VectorColumn],
    chunks: &'a [(usize, RecordBatch)],
    rows: usize,
    field: &str,
) -> Option<Source<'a>> {
    match vectors.iter().find(|column| column.field == field) {
        Some(column) if column.data.len() == rows * column.dim => {
            Some(Source::Floats(Vectors::new(&column.data, column.dim)))
        }
        Some(_) => None,
        None => {
            let run = |(start, chunk): &'a (usize, RecordBatch)| Run::new(*start, chunk.column_by_name(field)?);
            chunks.iter().map(run).collect::<Option<_>>().map(Source::Columns)
        }
    }
}
