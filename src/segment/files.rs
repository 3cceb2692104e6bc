use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field};
use bytes::Bytes;

use super::arrow::batch_of;
use super::layout::{self, Layout};
use super::{Segment, Tombstone, Versions};
use crate::base::{Error, Result, SegmentId};
use crate::index::terms::Terms;
use crate::index::{IndexSpec, VectorIndex};
use crate::model::column::absent;
use crate::model::{Batch, Key, Schema, VectorColumn, gather};

/// What one of a segment's files holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// Where the blocks of the others lie, their checksums and statistics.
    Layout,
    /// The narrow columns.
    Rows,
    /// This wide column.
    Column(String),
    /// The vectors of this field.
    Vector(String),
    /// The graph of this field.
    Index(String),
    /// Which rows have a term of this field.
    Terms(String),
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

/// A file that a manifest names.
#[derive(Debug, Clone)]
pub struct StoredFile {
    /// Its name.
    pub name: String,
    /// Its bytes; `None` for one that stays in storage until its rows are asked for.
    pub bytes: Option<Bytes>,
}

pub(super) fn vector_field(column: &VectorColumn) -> Field {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    Field::new(&column.field, DataType::FixedSizeList(item, column.dim as i32), false)
}

/// Vectors as a column of a file.
pub(super) fn vector_batch(column: VectorColumn) -> RecordBatch {
    let (field, rows) = (vector_field(&column), column.data.len() / column.dim);
    let DataType::FixedSizeList(item, _) = field.data_type().clone() else { unreachable!("vectors are lists") };
    let values = Arc::new(Float32Array::new(column.data.into(), None));
    let array: ArrayRef = Arc::new(FixedSizeListArray::new(item, column.dim as i32, values, None));
    batch_of([(field, array)], rows)
}

/// The layout in the bytes of `name`, whose files have the names in `names`.
///
/// # Errors
/// `Corrupt` when it is none, or describes a file that is not named or columns that the schema does not have.
pub fn layout(schema: &Arc<Schema>, name: &str, bytes: &[u8], names: &BTreeMap<FileKind, String>) -> Result<Layout> {
    let empty = Batch::empty(schema);
    let mut known: Vec<Field> =
        empty.scalars().schema_ref().fields().iter().map(|field| field.as_ref().clone()).collect();
    known.extend(empty.vectors().iter().map(vector_field));
    known.extend(Versions::default().to_arrow(0..0).map(|(field, _)| field));
    let mut layout = layout::decode(bytes).map_err(|error| error.context(name))?;
    let groups = &mut layout.groups;
    // A repair leaves deletes out that it could not read.
    groups.retain(|group| group.kind != FileKind::Deletes || names.contains_key(&group.kind));
    for group in groups {
        let missing = || Error::corrupt(format!("{name}: the manifest names no file for its {:?}", group.kind));
        let file = names.get(&group.kind).ok_or_else(missing)?;
        let column = |column: &String| {
            let unknown = || Error::corrupt(format!("{name}: column {column:?}, which the schema does not have"));
            known.iter().find(|field| field.name() == column).cloned().ok_or_else(unknown)
        };
        let fields = group.columns.iter().map(column).collect::<Result<Vec<Field>>>()?;
        group.place(file, &arrow_schema::Schema::new(fields));
    }
    Ok(layout)
}

/// The segment in `files`; columns of files without bytes stay in storage.
///
/// # Errors
/// `Corrupt` when a file is missing, is not what it should be, or does not fit the others or the schema.
pub fn decode(
    id: SegmentId,
    schema: &Arc<Schema>,
    indexes: &BTreeMap<String, IndexSpec>,
    mut layout: Layout,
    files: &BTreeMap<FileKind, StoredFile>,
) -> Result<Segment> {
    let missing = |what: &str| Error::corrupt(format!("segment {id}: no file has its {what}"));
    let bytes = |kind: &FileKind| files.get(kind).and_then(|file| file.bytes.as_ref());
    let mut columns: BTreeMap<String, ArrayRef> = BTreeMap::new();
    let versions = std::mem::take(&mut layout.versions);
    let groups = &layout.groups;
    let mut vectors = BTreeMap::new();
    let mut deletes = Vec::new();
    for group in groups {
        let Some(bytes) = bytes(&group.kind) else { continue };
        let parts = group.read_all(bytes)?;
        match &group.kind {
            FileKind::Vector(field) => {
                vectors.insert(field.clone(), parts);
            }
            FileKind::Deletes => {
                for part in &parts {
                    deletes.extend(decode_tombstones(schema, part).map_err(|error| error.context(&group.name))?);
                }
            }
            _ => {
                let rest = parts;
                let Some(first) = rest.first() else { continue };
                // Copied even when it is one part, of which a single column would keep all others in memory.
                let row = |(part, batch): (u32, &RecordBatch)| (0..batch.num_rows() as u32).map(move |row| (part, row));
                let picks: Vec<(u32, u32)> = (0u32..).zip(&rest).flat_map(row).collect();
                let joined = gather::gather(first.schema(), &rest.iter().collect::<Vec<_>>(), &picks);
                let names = joined.schema();
                columns.extend(
                    names.fields().iter().map(|field| field.name().clone()).zip(joined.columns().iter().cloned()),
                );
            }
        }
    }
    let rows = versions.len();
    let group_of = |column: &str| groups.iter().find(|group| group.columns.iter().any(|name| name == column));
    if let Some(group) = groups.iter().find(|group| group.kind != FileKind::Deletes && group.rows() != rows) {
        return Err(Error::corrupt(format!("{}: {} rows; the segment has {rows}", group.name, group.rows())));
    }
    let empty = Batch::empty(schema);
    let mut scalars = Vec::new();
    for field in empty.scalars().schema_ref().fields() {
        match columns.remove(field.name()) {
            // As the schema says it: metadata and nullability flags of the file do not travel into memory.
            Some(array) if array.data_type() == field.data_type() => scalars.push((field.as_ref().clone(), array)),
            Some(array) => {
                return Err(missing(&format!(
                    "{:?} as {}, but as {}",
                    field.name(),
                    field.data_type(),
                    array.data_type()
                )));
            }
            None if group_of(field.name()).is_some() => {}
            // Written before the field was added.
            None => match schema.column(field.name()).filter(|field| field.nullable || field.default.is_some()) {
                Some(added) => scalars.push((field.as_ref().clone(), absent(added, rows))),
                None => return Err(missing(&format!("column {:?}", field.name()))),
            },
        }
    }
    if let Some((field, _)) = scalars.iter().find(|(field, array)| !field.is_nullable() && array.null_count() > 0) {
        return Err(missing(&format!("column {:?} without nulls", field.name())));
    }
    let mut built = BTreeMap::new();
    let mut vector_columns = Vec::new();
    for column in empty.vectors() {
        let group = group_of(&column.field).ok_or_else(|| missing(&format!("vectors {:?}", column.field)))?;
        let mut data = Vec::new();
        if let Some(parts) = vectors.remove(&column.field) {
            data.reserve_exact(rows * column.dim);
            for part in &parts {
                data.extend_from_slice(floats(part, column).map_err(|error| error.context(&group.name))?);
            }
        }
        vector_columns.push(VectorColumn { data, ..column.clone() });
    }
    for (field, dim) in schema.vectors() {
        let file = files.get(&FileKind::Index(field.name.clone()));
        let Some((file, bytes)) = file.and_then(|file| Some((&file.name, file.bytes.as_ref()?))) else { continue };
        let spec = indexes.get(&field.name);
        // Another build has made it; here it is a scan.
        if spec.is_some_and(|spec| spec.kind.is_static() && !spec.kind.is_built()) {
            continue;
        }
        let index = VectorIndex::from_bytes(bytes).map_err(|error| error.context(file))?;
        if index.len() > rows || !spec.is_some_and(|spec| index.fits(spec, dim)) {
            return Err(Error::corrupt(format!(
                "{file}: an index of {} rows; it does not fit {rows} rows of {dim} dimensions with {spec:?}",
                index.len()
            )));
        }
        built.insert(field.name.clone(), index);
    }
    let scalars = batch_of(scalars, rows);
    let mut terms = BTreeMap::new();
    for wanted in super::terms::wanted(schema, indexes) {
        let field = wanted.field();
        if let Some((name, bytes)) =
            files.get(&FileKind::Terms(field.to_owned())).and_then(|file| Some((&file.name, file.bytes.as_ref()?)))
        {
            let found = Terms::from_bytes(bytes.clone()).map_err(|error| error.context(name))?;
            if !wanted.fits(&found, rows) {
                return Err(Error::corrupt(format!(
                    "{name}: an index of {:?} of {} rows, over {rows} rows of {field:?}",
                    found.payload(),
                    found.rows()
                )));
            }
            terms.insert(field.to_owned(), found);
        } else if scalars.column_by_name(wanted.column()).is_none() {
            return Err(missing(&format!("terms of {field:?}, nor the column")));
        }
    }
    let segment = Segment::from_parts(id, schema, indexes, scalars, vector_columns, versions, built, terms, deletes);
    segment.store(layout);
    Ok(segment)
}

/// The numbers of a block of vectors of `column`'s field.
pub(super) fn floats<'a>(block: &'a RecordBatch, column: &VectorColumn) -> Result<&'a [f32]> {
    block
        .column_by_name(&column.field)
        .and_then(|array| array.as_any().downcast_ref::<FixedSizeListArray>())
        .filter(|list| list.value_length() as usize == column.dim && list.offset() == 0)
        .and_then(|list| list.values().as_any().downcast_ref::<Float32Array>())
        .map(|values| &**values.values())
        .filter(|values| values.len() == block.num_rows() * column.dim)
        .ok_or_else(|| {
            Error::corrupt(format!("{}; expected {} as {} 32-bit floats", block.schema_ref(), column.field, column.dim))
        })
}

/// Tombstones as Arrow: the key under the primary key's name, and the version columns.
pub(super) fn encode_tombstones(schema: &Schema, deletes: &[Tombstone]) -> RecordBatch {
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
    batch_of(std::iter::once((field, keys)).chain(versions.to_arrow(0..deletes.len())), deletes.len())
}

/// The reverse of [`encode_tombstones`]; `Corrupt` when the columns are others.
pub(super) fn decode_tombstones(schema: &Schema, batch: &RecordBatch) -> Result<Vec<Tombstone>> {
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
