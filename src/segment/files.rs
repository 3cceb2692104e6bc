use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field};
use bytes::Bytes;

use super::arrow::{batch_of, read_file, write_file};
use super::{Segment, Tombstone, Versions};
use crate::base::{Error, Result, SegmentId};
use crate::index::{Hnsw, IndexSpec};
use crate::model::{Batch, Key, Schema, VectorColumn};

/// What one of a segment's files holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// The narrow columns and the versions.
    Rows,
    /// The vectors of this field.
    Vector(String),
    /// The graph of this field.
    Index(String),
    /// Keys that were deleted.
    Deletes,
}

/// One of a segment's files.
#[derive(Debug, Clone)]
pub struct SegmentFile {
    /// What it holds.
    pub kind: FileKind,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The files of a segment.
pub fn encode(segment: &Segment) -> Vec<SegmentFile> {
    let mut files = Vec::new();
    let (scalars, vectors) = segment.to_batch().into_parts();
    let fields = scalars.schema();
    let columns = fields.fields().iter().map(|field| field.as_ref().clone()).zip(scalars.columns().iter().cloned());
    let rows = batch_of(columns.chain(segment.versions().to_arrow()), scalars.num_rows());
    files.push(SegmentFile { kind: FileKind::Rows, bytes: write_file(&rows).into() });
    for column in vectors {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values = Arc::new(Float32Array::new(ScalarBuffer::from(column.data), None));
        let array = FixedSizeListArray::new(item, column.dim as i32, values, None);
        let field = Field::new(&column.field, array.data_type().clone(), false);
        let batch = batch_of([(field, Arc::new(array) as ArrayRef)], rows.num_rows());
        files.push(SegmentFile { kind: FileKind::Vector(column.field), bytes: write_file(&batch).into() });
    }
    files.extend(encode_indexes(segment));
    if !segment.deletes.is_empty() {
        let bytes = write_file(&encode_tombstones(segment.schema(), &segment.deletes));
        files.push(SegmentFile { kind: FileKind::Deletes, bytes: bytes.into() });
    }
    files
}

/// The index files of a segment: as much of each graph as there is.
pub fn encode_indexes(segment: &Segment) -> Vec<SegmentFile> {
    let graphs = segment.indexes().iter().filter_map(|index| Some((&index.field, index.graph.as_ref()?)));
    graphs
        .map(|(field, graph)| SegmentFile { kind: FileKind::Index(field.clone()), bytes: graph.to_bytes().into() })
        .collect()
}

/// The segment in `files`, which `name` names in errors.
///
/// # Errors
/// `Corrupt` when a file is missing, is not what it should be, or does not fit the others or the schema.
pub fn decode(
    id: SegmentId,
    schema: &Arc<Schema>,
    indexes: &BTreeMap<String, IndexSpec>,
    files: &BTreeMap<FileKind, (String, Bytes)>,
) -> Result<Segment> {
    let file = |kind: &FileKind| {
        files
            .get(kind)
            .ok_or_else(|| Error::corrupt(format!("segment {id}: no {kind:?} file is named in the manifest")))
    };
    let (name, bytes) = file(&FileKind::Rows)?;
    let (scalars, versions) =
        read_file(bytes).and_then(|batch| Versions::split(&batch)).map_err(|error| error.context(name))?;
    let empty = Batch::empty(schema);
    let expected = empty.scalars().schema();
    let same = scalars.num_columns() == expected.fields().len()
        && scalars
            .schema_ref()
            .fields()
            .iter()
            .zip(expected.fields())
            .all(|(found, expected)| (found.name(), found.data_type()) == (expected.name(), expected.data_type()));
    if !same {
        return Err(Error::corrupt(format!("{name}: columns {}; expected {expected}", scalars.schema_ref())));
    }
    // The columns as the schema says them: metadata and nullability flags of the file do not travel into memory.
    let scalars = RecordBatch::try_new_with_options(
        expected,
        scalars.columns().to_vec(),
        &arrow_array::RecordBatchOptions::new().with_row_count(Some(scalars.num_rows())),
    )
    .map_err(|error| Error::corrupt(format!("{name}: {error}")))?;
    let rows = scalars.num_rows();
    let mut vectors = Vec::new();
    let mut graphs = BTreeMap::new();
    for column in empty.vectors() {
        let (name, bytes) = file(&FileKind::Vector(column.field.clone()))?;
        let column = decode_vectors(column, rows, bytes).map_err(|error| error.context(name))?;
        if let Some((name, bytes)) = files.get(&FileKind::Index(column.field.clone())) {
            let graph = Hnsw::from_bytes(bytes).map_err(|error| error.context(name))?;
            let spec = indexes.get(&column.field).map(|spec| spec.metric);
            if graph.len() > rows || graph.dim() != column.dim || Some(graph.metric()) != spec {
                return Err(Error::corrupt(format!(
                    "{name}: a graph of {} rows of {} dimensions by {:?}, over {rows} rows of {} by {spec:?}",
                    graph.len(),
                    graph.dim(),
                    graph.metric(),
                    column.dim
                )));
            }
            graphs.insert(column.field.clone(), graph);
        }
        vectors.push(column);
    }
    let deletes = match files.get(&FileKind::Deletes) {
        Some((name, bytes)) => {
            read_file(bytes).and_then(|batch| decode_tombstones(schema, &batch)).map_err(|error| error.context(name))?
        }
        None => Vec::new(),
    };
    let batch = Batch::from_parts(schema.clone(), scalars, vectors);
    Ok(Segment::from_parts(id, indexes, batch, versions, graphs, deletes))
}

fn decode_vectors(expected: &VectorColumn, rows: usize, bytes: &[u8]) -> Result<VectorColumn> {
    let batch = read_file(bytes)?;
    let list =
        batch.column_by_name(&expected.field).and_then(|array| array.as_any().downcast_ref::<FixedSizeListArray>());
    let values = list
        .filter(|list| list.value_length() as usize == expected.dim && list.len() == rows)
        .and_then(|list| list.values().as_any().downcast_ref::<Float32Array>())
        .ok_or_else(|| {
            Error::corrupt(format!(
                "{} rows of {}; expected {rows} rows of {} as {} 32-bit floats",
                batch.num_rows(),
                batch.schema_ref(),
                expected.field,
                expected.dim
            ))
        })?;
    Ok(VectorColumn { field: expected.field.clone(), dim: expected.dim, data: values.values().to_vec() })
}

/// Tombstones as Arrow: the key under the primary key's name, and the version columns.
pub(crate) fn encode_tombstones(schema: &Schema, deletes: &[Tombstone]) -> RecordBatch {
    let mut versions = Versions::default();
    deletes.iter().for_each(|delete| versions.push(delete.version, delete.lsn));
    let keys: ArrayRef = if matches!(schema.primary_key().data_type, crate::model::DataType::Int64) {
        Arc::new(Int64Array::from_iter_values(deletes.iter().map(|delete| match &delete.key {
            Key::Int(key) => *key,
            Key::String(_) => unreachable!("keys were checked against the schema"),
        })))
    } else {
        Arc::new(StringArray::from_iter_values(deletes.iter().map(|delete| match &delete.key {
            Key::String(key) => key,
            Key::Int(_) => unreachable!("keys were checked against the schema"),
        })))
    };
    let field = Field::new(&schema.primary_key().name, keys.data_type().clone(), false);
    batch_of(std::iter::once((field, keys)).chain(versions.to_arrow()), deletes.len())
}

/// The reverse of [`encode_tombstones`]; `Corrupt` when the columns are others.
pub(crate) fn decode_tombstones(schema: &Schema, batch: &RecordBatch) -> Result<Vec<Tombstone>> {
    let (rest, versions) = Versions::split(batch)?;
    let name = &schema.primary_key().name;
    let wrong = || Error::corrupt(format!("deletes with columns {}; expected key {name:?}", rest.schema_ref()));
    let array = rest.column_by_name(name).filter(|array| array.null_count() == 0).ok_or_else(wrong)?;
    let keys: Vec<Key> = match schema.primary_key().data_type {
        crate::model::DataType::Int64 => {
            let array = array.as_any().downcast_ref::<Int64Array>().ok_or_else(wrong)?;
            array.values().iter().map(|&key| Key::Int(key)).collect()
        }
        _ => {
            let array = array.as_any().downcast_ref::<StringArray>().ok_or_else(wrong)?;
            (0..array.len()).map(|row| Key::from(array.value(row))).collect()
        }
    };
    let tombstone = |(row, key)| Tombstone { key, version: versions.version(row), lsn: versions.lsn(row) };
    Ok(keys.into_iter().enumerate().map(tombstone).collect())
}
