use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::columnar::Columnar;
use super::delimited::Delimited;
use super::infer::{Guess, Wishes, spec_from_guesses, spec_from_types};
use super::jsonl::JsonLines;
use super::npy::Npy;
use super::record::{Identity, Position, Record};
use super::{Chunk, Source};
use crate::base::{Error, ErrorKind, Lsn, Result};
use crate::db::{Collection, Db, Operation, WriteOptions};
use crate::distance::Metric;
use crate::engine::CollectionSpec;
use crate::model::{Batch, Key, Row, Schema, Value};

/// The field that vectors of a `.npy` file go to unless another is named.
const VECTOR_FIELD: &str = "embedding";
/// The metadata by which an Arrow file says what collection it is.
const SPEC_METADATA: &str = "eddy.spec";

/// The formats of files that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Arrow IPC, file or stream.
    Arrow,
    /// Parquet.
    Parquet,
    /// Comma-separated values with a header line.
    Csv,
    /// Tab-separated values with a header line, without quotes.
    Tsv,
    /// One JSON object a line.
    Jsonl,
}

impl Format {
    /// By the name's ending, else by the first bytes.
    pub(super) fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("").to_ascii_lowercase();
        match extension.as_str() {
            "arrow" | "arrows" | "feather" | "ipc" => return Ok(Self::Arrow),
            "parquet" | "pq" => return Ok(Self::Parquet),
            "csv" => return Ok(Self::Csv),
            "tsv" | "tab" => return Ok(Self::Tsv),
            "jsonl" | "ndjson" => return Ok(Self::Jsonl),
            "npy" => {
                return Err(Error::invalid(format!(
                    "{}: vectors alone are no rows; give the table beside them, and this file with --vectors",
                    path.display()
                )));
            }
            _ => {}
        }
        let mut magic = [0; 6];
        let mut file = super::open_file(path)?;
        match std::io::Read::read_exact(&mut file, &mut magic) {
            Ok(()) if &magic == b"ARROW1" => Ok(Self::Arrow),
            Ok(()) if magic.starts_with(b"PAR1") => Ok(Self::Parquet),
            _ => Err(Error::invalid(format!(
                "{}: the format cannot be told from the name; say it with --format",
                path.display()
            ))),
        }
    }

    fn is_text(self) -> bool {
        matches!(self, Self::Csv | Self::Tsv)
    }
}

/// What to import.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Into which collection; it is created when it is not there.
    pub collection: String,
    /// The files, in this order: a later row replaces an earlier one of the same key.
    pub files: Vec<PathBuf>,
    /// Their format; told from each file with `None`.
    pub format: Option<Format>,
    /// A `.npy` file with the vectors of the rows of the one table in `files`.
    pub vectors: Option<PathBuf>,
    /// The field of these vectors; or a column that is one however short.
    pub vector_field: Option<String>,
    /// The primary key of a collection that is created; `id` with `None`.
    pub key: Option<String>,
    /// The metric of a collection that is created; COSINE with `None`.
    pub metric: Option<Metric>,
    /// Rows written at once, at least 1.
    pub batch_rows: usize,
    /// The partition that rows go into, which is created when it is not there; the default one with `None`.
    pub partition: Option<String>,
    /// Start at the beginning, even if this import was interrupted before.
    pub restart: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Rows read from the files and written.
    pub rows: u64,
    /// Rows that an earlier run had written.
    pub rows_before: u64,
    /// Rows left out because a later one in the same batch has the same key.
    pub rows_replaced: u64,
    /// Whether the collection was created.
    pub created: bool,
}

/// Is told how an import goes.
pub trait Observer {
    /// Something to know.
    fn note(&mut self, text: &str);
    /// `done` of `total` of `file` is written (in bytes, rows or batches of rows), and `rows` of all files, where that is known.
    fn progress(&mut self, file: &Path, rows: Option<u64>, done: u64, total: u64);
}

/// Imports files into a collection of `db`, noting positions in `directory`, the store's own.
///
/// # Errors
/// What the files, the schema or the store object to, with the file and the line or row. Everything before the batch in
/// which an error is found stays written.
pub async fn run(db: &Db, directory: &Path, plan: &Plan, observer: &mut (dyn Observer + Send)) -> Result<Summary> {
    let formats = check(plan)?;
    let mut summary = Summary::default();
    let existing = match db.collection(&plan.collection) {
        Ok(collection) => Some(collection),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(bytes) = dataset(plan, &formats)? {
        let path = &plan.files[0];
        let before = match &existing {
            Some(collection) => collection.stats().await?.rows as u64,
            None => 0,
        };
        let collection = db
            .load_dataset(&plan.collection, bytes, |done, batches| {
                observer.progress(path, None, done as u64, batches as u64)
            })
            .await?;
        let rows = collection.stats().await?.rows as u64;
        observer.progress(path, Some(rows), 1, 1);
        let rows_before = before.min(rows);
        return Ok(Summary { rows: rows - rows_before, rows_before, created: existing.is_none(), ..summary });
    }
    let into = match &plan.partition {
        Some(partition) => format!("{}/{partition}", plan.collection),
        None => plan.collection.clone(),
    };
    let record = Record::new(directory, Identity::of(&into, plan.files.iter().chain(&plan.vectors))?);
    let mut position = Position::default();
    let collection = match existing {
        Some(collection) => {
            if !plan.restart {
                position = record.load();
            }
            if collection.stats().await?.lsn < position.lsn || position.files > plan.files.len() {
                position = Position::default();
            }
            collection
        }
        None => {
            summary.created = true;
            db.create_collection(&plan.collection, infer(plan, &formats)?).await?
        }
    };
    if let Some(partition) = plan.partition.as_deref().filter(|partition| !collection.has_partition(partition)) {
        db.create_partition(&plan.collection, partition).await?;
    }
    let options = WriteOptions { partition: plan.partition.clone(), ..Default::default() };
    let schema = collection.spec().schema.clone();
    for (index, (path, &format)) in plan.files.iter().zip(&formats).enumerate().skip(position.files) {
        let mut source = open(path, format, plan, &schema)?;
        if position.rows > 0 {
            let skipped = source.skip(position.rows)?;
            summary.rows_before += skipped;
            observer.note(&format!("{}: going on after {skipped} rows of an earlier run", path.display()));
        }
        while let Some(chunk) = source.next_chunk(plan.batch_rows)? {
            let rows = chunk.len() as u64;
            let lsn = write(db, &collection, path, chunk, &options, &mut summary).await?;
            summary.rows += rows;
            position = Position { files: index, rows: position.rows + rows, lsn };
            record.store(position)?;
            let (done, total) = source.progress();
            observer.progress(path, Some(summary.rows + summary.rows_before), done, total);
        }
        position = Position { files: index + 1, rows: 0, lsn: position.lsn };
        record.store(position)?;
    }
    record.remove()?;
    Ok(summary)
}

fn check(plan: &Plan) -> Result<Vec<Format>> {
    if plan.files.is_empty() {
        return Err(Error::invalid("no file to import"));
    }
    if plan.batch_rows == 0 {
        return Err(Error::invalid("a batch of 0 rows; at least 1 row is written at once"));
    }
    let formats: Vec<Format> =
        plan.files.iter().map(|path| plan.format.map_or_else(|| Format::of(path), Ok)).collect::<Result<_>>()?;
    if plan.vectors.is_some() && (plan.files.len() != 1 || matches!(formats[0], Format::Arrow | Format::Parquet)) {
        return Err(Error::invalid("--vectors goes with exactly one table of text: a CSV, TSV or JSON Lines file"));
    }
    Ok(formats)
}

/// The bytes of the one file of `plan` when it says itself what collection it is.
#[expect(clippy::disallowed_methods, reason = "the importer reads the user's own files")]
fn dataset(plan: &Plan, formats: &[Format]) -> Result<Option<bytes::Bytes>> {
    let ([path], [Format::Arrow]) = (plan.files.as_slice(), formats) else { return Ok(None) };
    if Columnar::open_arrow(path)?.metadata(SPEC_METADATA).is_none() {
        return Ok(None);
    }
    if plan.key.is_some() || plan.metric.is_some() || plan.vector_field.is_some() || plan.partition.is_some() {
        return Err(Error::invalid(format!(
            "{}: the file says itself what its key, metric, vectors and rows are; leave out --key, --metric, --vector-field \
             and --partition",
            path.display()
        )));
    }
    let bytes = std::fs::read(path).map_err(|error| super::io_error(&path.display().to_string(), &error))?;
    Ok(Some(bytes.into()))
}

/// The collection that the files call for.
fn infer(plan: &Plan, formats: &[Format]) -> Result<CollectionSpec> {
    let wishes = Wishes {
        key: plan.key.clone(),
        metric: plan.metric,
        vector_field: plan.vector_field.clone().or_else(|| plan.vectors.as_ref().map(|_| VECTOR_FIELD.to_owned())),
    };
    let (path, format) = (&plan.files[0], formats[0]);
    let name = path.display().to_string();
    if matches!(format, Format::Arrow | Format::Parquet) {
        let mut columnar = open_columnar(path, format)?;
        let types = columnar.types()?;
        return spec_from_types(&types, &wishes, columnar.is_dynamic(), &name);
    }
    let mut columns: Vec<(String, Guess)> = Vec::new();
    for (index, (path, &format)) in plan.files.iter().zip(formats).enumerate() {
        let guesses = match format {
            Format::Csv | Format::Tsv => Delimited::open(path, delimiter(format))?.guess()?,
            Format::Jsonl => JsonLines::open(path)?.guess()?,
            Format::Arrow | Format::Parquet => continue,
        };
        for (known, guess) in &mut columns {
            if !guesses.iter().any(|(column, _)| column == known) {
                guess.add_absent();
            }
        }
        for (column, mut guess) in guesses {
            match columns.iter_mut().find(|(known, _)| *known == column) {
                Some((_, known)) => known.merge(guess, format.is_text()),
                None => {
                    if index > 0 {
                        guess.add_absent();
                    }
                    columns.push((column, guess));
                }
            }
        }
    }
    if let Some(vectors) = &plan.vectors {
        let field = wishes.vector_field.clone().unwrap_or_else(|| VECTOR_FIELD.to_owned());
        columns.retain(|(column, _)| *column != field);
        columns.push((field, Guess::vector(Npy::open(vectors)?.dim())));
    }
    // Rows of JSON may each have names of their own; a table says all of its names in its header.
    spec_from_guesses(&columns, &wishes, format == Format::Jsonl, &name)
}

fn delimiter(format: Format) -> u8 {
    if format == Format::Tsv { b'\t' } else { b',' }
}

fn open_columnar(path: &Path, format: Format) -> Result<Columnar> {
    if format == Format::Arrow { Columnar::open_arrow(path) } else { Columnar::open_parquet(path) }
}

/// The rows of a file, as a collection of `schema` wants them.
pub(super) fn open_table(path: &Path, format: Format, schema: &Arc<Schema>) -> Result<Box<dyn Source>> {
    Ok(match format {
        Format::Csv | Format::Tsv => Box::new(Delimited::open(path, delimiter(format))?.bind(schema)?),
        Format::Jsonl => Box::new(JsonLines::open(path)?),
        Format::Arrow | Format::Parquet => Box::new(open_columnar(path, format)?.bind(schema)?),
    })
}

fn open(path: &Path, format: Format, plan: &Plan, schema: &Arc<Schema>) -> Result<Box<dyn Source>> {
    let table = || open_table(path, format, schema);
    let Some(vectors) = &plan.vectors else { return table() };
    let npy = Npy::open(vectors)?;
    let field = plan.vector_field.as_deref().unwrap_or(VECTOR_FIELD);
    match schema.field(field).map(|field| field.data_type) {
        Some(vector) if vector.dim().is_some_and(|dim| dim as usize == npy.dim()) => {}
        Some(vector) if vector.is_vector() => {
            let dim = vector.dim().unwrap_or(0);
            return Err(Error::invalid(format!(
                "{}: rows of {} numbers where the vector field {field:?} has {dim}",
                vectors.display(),
                npy.dim()
            )));
        }
        _ => {
            return Err(Error::invalid(format!(
                "the collection has no vector field {field:?}; name the field of the vectors with --vector-field"
            )));
        }
    }
    // Before anything is written: the two files must be of the same rows.
    let rows = table()?.skip(u64::MAX)?;
    if rows != npy.rows() {
        return Err(Error::invalid(format!(
            "{} has {rows} rows and {} has {}: they must be of the same rows",
            path.display(),
            vectors.display(),
            npy.rows()
        )));
    }
    Ok(Box::new(WithVectors { table: table()?, npy, field: field.to_owned() }))
}

/// A table whose rows get their vector from a `.npy` file.
struct WithVectors {
    table: Box<dyn Source>,
    npy: Npy,
    field: String,
}

impl Source for WithVectors {
    fn next_chunk(&mut self, rows_max: usize) -> Result<Option<Chunk>> {
        let mut chunk = self.table.next_chunk(rows_max)?;
        if let Some(Chunk::Rows { rows, .. }) = &mut chunk {
            for row in rows {
                let vector = self.npy.next_row()?;
                let vector = vector.ok_or_else(|| Error::invalid("the table has grown while it was read"))?;
                if row.insert(self.field.clone(), Value::Vector(vector)).is_some() {
                    return Err(Error::invalid(format!(
                        "field {:?} is in the table and in the file of vectors",
                        self.field
                    )));
                }
            }
        }
        Ok(chunk)
    }

    fn skip(&mut self, rows: u64) -> Result<u64> {
        let skipped = self.table.skip(rows)?;
        self.npy.seek(skipped)?;
        Ok(skipped)
    }

    fn progress(&self) -> (u64, u64) {
        self.table.progress()
    }
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Self::Rows { rows, .. } => rows.len(),
            Self::Columns { batch, .. } => batch.num_rows(),
        }
    }
}

/// Upserts a chunk, and tells where the collection's log is then.
async fn write(
    db: &Db,
    collection: &Collection,
    path: &Path,
    chunk: Chunk,
    options: &WriteOptions,
    summary: &mut Summary,
) -> Result<Lsn> {
    let rows = chunk.len();
    let batches = batches(&collection.spec().schema, path, chunk, || collection.make_key())?;
    let kept: usize = batches.iter().map(Batch::len).sum();
    summary.rows_replaced += (rows - kept) as u64;
    let mut lsn = Lsn::default();
    for batch in batches {
        for partition in batch.partitions().into_iter().filter(|partition| !collection.has_partition(partition)) {
            db.create_partition(collection.name(), partition).await?;
        }
        lsn = collection.batch(vec![Operation::Upsert(batch)], options.clone()).await?.lsn;
    }
    Ok(lsn)
}

/// The rows of a chunk in batches, each key once.
fn batches(schema: &Arc<Schema>, path: &Path, chunk: Chunk, make_key: impl Fn() -> Value) -> Result<Vec<Batch>> {
    let mut batches = Vec::new();
    match chunk {
        Chunk::Rows { rows, lines } => {
            let mut rows = rows;
            if schema.auto_id() {
                for row in &mut rows {
                    row.entry(schema.primary_key().name.clone()).or_insert_with(&make_key);
                }
            }
            let rows = last_of_each_key(schema, rows.into_iter().zip(lines).collect());
            from_rows(schema, path, &rows, &mut batches)?;
        }
        Chunk::Columns { batch, first } => from_columns(schema, path, &batch, first, &mut batches)?,
    }
    Ok(batches)
}

/// Reads the files of `plan` as an import into a new collection would, and writes nothing; tells how many rows it would have. For
/// fuzzing, where a store would take most of the time.
#[doc(hidden)]
pub fn rehearse(plan: &Plan) -> Result<u64> {
    let formats = check(plan)?;
    dataset(plan, &formats)?;
    let schema = infer(plan, &formats)?.completed()?.schema;
    let mut rows = 0;
    for (path, &format) in plan.files.iter().zip(&formats) {
        let mut source = open(path, format, plan, &schema)?;
        while let Some(chunk) = source.next_chunk(plan.batch_rows)? {
            rows +=
                batches(&schema, path, chunk, || Value::Int(0))?.iter().map(|batch| batch.len() as u64).sum::<u64>();
        }
    }
    Ok(rows)
}

/// The rows without those whose key comes again.
fn last_of_each_key(schema: &Schema, rows: Vec<(Row, u64)>) -> Vec<(Row, u64)> {
    let key = &schema.primary_key().name;
    let mut seen = HashSet::new();
    let mut kept: Vec<(Row, u64)> = rows
        .into_iter()
        .rev()
        .filter(|(row, _)| match row.get(key) {
            Some(Value::Int(key)) => seen.insert(Key::Int(*key)),
            Some(Value::String(key)) => seen.insert(Key::from(key.as_str())),
            // No key: the batch will say so.
            _ => true,
        })
        .collect();
    kept.reverse();
    kept
}

/// Batches of `rows`. What is refused is halved: a batch that is too large then fits, and a wrong row stands alone with its
/// line.
fn from_rows(schema: &Arc<Schema>, path: &Path, rows: &[(Row, u64)], batches: &mut Vec<Batch>) -> Result<()> {
    match (Batch::from_rows(schema, rows.iter().map(|(row, _)| row.clone()).collect()), rows) {
        (Ok(batch), _) => batches.push(batch),
        (Err(error), [(_, line)]) => return Err(of_one_row(&error, &format!("{}:{line}", path.display()))),
        (Err(_), rows) => {
            let (first, second) = rows.split_at(rows.len() / 2);
            from_rows(schema, path, first, batches)?;
            from_rows(schema, path, second, batches)?;
        }
    }
    Ok(())
}

fn from_columns(
    schema: &Arc<Schema>,
    path: &Path,
    columns: &arrow_array::RecordBatch,
    first: u64,
    batches: &mut Vec<Batch>,
) -> Result<()> {
    let error = match Batch::from_arrow(schema, columns) {
        Ok(batch) => {
            batches.push(batch);
            return Ok(());
        }
        Err(error) => error,
    };
    let rows = columns.num_rows();
    if rows == 1 {
        return Err(of_one_row(&error, &format!("{}: row {first}", path.display())));
    }
    if let Ok(batch) = Batch::from_stored(schema, columns)
        && batch.memory_bytes() <= Batch::BYTES_MAX
    {
        // Every row fits, so a key occurs twice.
        let mut seen = HashSet::new();
        let mut kept: Vec<u32> = (0..rows as u32).rev().filter(|&row| seen.insert(batch.key(row as usize))).collect();
        kept.reverse();
        batches.push(batch.take(&kept));
        return Ok(());
    }
    let half = rows / 2;
    from_columns(schema, path, &columns.slice(0, half), first, batches)?;
    from_columns(schema, path, &columns.slice(half, rows - half), first + half as u64, batches)
}

/// The error of a batch of one row, which calls it "row 0", at its place in the file.
fn of_one_row(error: &Error, place: &str) -> Error {
    let message = error.message();
    Error::new(error.kind(), message.strip_prefix("row 0, ").unwrap_or(message)).context(place)
}
