use std::io::{IsTerminal as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_ipc::writer::FileWriter;
use arrow_schema::ArrowError;
use clap::Args;
use parquet::arrow::ArrowWriter;
use serde_json::{Value as Json, json};

use super::{DataDirectory, output};
use crate::base::{Error, ErrorKind, Result};
use crate::db::QueryRequest;
use crate::model::{Batch, Key, META_COLUMN, PARTITION_COLUMN, Row, Schema};
use crate::server::store;

/// Write the rows of a collection to a file: Arrow, Parquet, CSV or JSON Lines
///
/// All fields of all rows, by ascending key. The file has its name only when it is whole. `eddy import` makes the same rows of Arrow,
/// Parquet and JSON Lines again; JSON fields are text in Arrow and Parquet, and in CSV so are
/// vectors, arrays and, under `$meta`, names that the schema does not know. `$partition` names each row's partition.
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy export --data ./eddy-data notes notes.parquet
  eddy export --data ./eddy-data notes notes.jsonl --filter 'done == false'
  eddy export --data ./eddy-data notes notes.csv --resume   go on where an export of .csv or .jsonl was interrupted")]
pub(super) struct Export {
    /// The collection.
    collection: String,

    /// The file, whose ending says the format: .arrow, .parquet, .csv, .jsonl.
    file: PathBuf,

    #[command(flatten)]
    directory: DataDirectory,

    /// Only rows for which this is true.
    #[arg(long)]
    filter: Option<String>,

    /// Only of this partition; can be repeated.
    #[arg(long = "partition", value_name = "NAME")]
    partitions: Vec<String>,

    /// Rows that are read at once.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    page_rows: u32,

    /// Go on with an export that was interrupted: rows after the last one that was written.
    #[arg(long)]
    resume: bool,
}

pub(super) async fn run(command: Export) -> Result<()> {
    let db = store::open(&command.directory.place(), false).await?;
    let collection = db.collection(&command.collection)?;
    let schema = collection.spec().schema.clone();
    let key_field = schema.primary_key().name.clone();
    let (mut writer, mut progress) = Writer::open(&command.file, &schema, command.resume)?;
    let terminal = std::io::stderr().is_terminal();
    let mut output_fields = vec!["*".to_owned()];
    output_fields.extend(schema.partitioned().then(|| PARTITION_COLUMN.to_owned()));
    loop {
        let after = progress.key.as_ref().map(|key| format!("{key_field} > {}", literal(key)));
        let filter = match (&command.filter, after) {
            (Some(filter), Some(after)) => Some(format!("({filter}) && {after}")),
            (filter, after) => filter.clone().or(after),
        };
        let request = QueryRequest {
            filter,
            partitions: command.partitions.clone(),
            output_fields: Some(output_fields.clone()),
            limit: Some(command.page_rows as usize),
            ..QueryRequest::default()
        };
        let rows = collection.query(&request).await?;
        if rows.is_empty() {
            break;
        }
        progress.rows += rows.len() as u64;
        progress.key = writer.write(&schema, rows)?.or(progress.key);
        writer.note(&progress)?;
        if terminal {
            output::error(&format!("{} rows", output::number(progress.rows)));
        }
    }
    let bytes = writer.finish(&schema)?;
    let shown = command.file.display();
    output::line(&format!("wrote {} rows to {shown} ({})", output::number(progress.rows), output::bytes(bytes)))?;
    db.close().await
}

/// A key as the filter language writes it.
fn literal(key: &Key) -> String {
    match key {
        Key::Int(key) => key.to_string(),
        Key::String(key) => Json::from(&**key).to_string(),
    }
}

/// How far an export has come.
#[derive(Default)]
struct Progress {
    rows: u64,
    key: Option<Key>,
}

#[expect(clippy::disallowed_types, reason = "the command line writes the file that it is asked for")]
type File = std::fs::File;

enum Format {
    Lines(File),
    Csv(File),
    Arrow(Option<Box<FileWriter<File>>>),
    Parquet(Option<Box<ArrowWriter<File>>>),
}

/// Writes to a file beside the one that is asked for, which takes its name when it is whole.
struct Writer {
    format: Format,
    path: PathBuf,
    partial: PathBuf,
    /// How far the partial file has come, for formats that can go on.
    notes: PathBuf,
}

impl Writer {
    fn open(path: &Path, schema: &Arc<Schema>, resume: bool) -> Result<(Self, Progress)> {
        let beside = |ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let (partial, notes) = (beside(".partial"), beside(".partial.json"));
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        // Before anything is made: a wrong name leaves nothing behind.
        if !matches!(ending, "jsonl" | "ndjson" | "csv" | "arrow" | "feather" | "parquet") {
            return Err(Error::invalid(format!(
                "{}: a file ends with .arrow, .parquet, .csv or .jsonl, which says its format",
                path.display()
            )));
        }
        let can_resume = matches!(ending, "jsonl" | "ndjson" | "csv");
        if resume && !can_resume {
            return Err(Error::invalid(format!(
                "--resume: .csv and .jsonl files can be gone on with, {ending:?} files cannot"
            )));
        }
        let noted = if resume { read_notes(&notes)? } else { None };
        let options = |truncate: bool| {
            let file = File::options().create(true).write(true).read(true).truncate(truncate).open(&partial);
            file.map_err(|error| failed(&partial, &error))
        };
        let mut progress = Progress::default();
        let file = match noted {
            Some((len, noted)) => {
                let mut file = options(false)?;
                let there = file.metadata().map_err(|error| failed(&partial, &error))?.len();
                if there < len {
                    return Err(Error::corrupt(format!(
                        "{}: {there} bytes, of which {len} were noted; export without --resume",
                        partial.display()
                    )));
                }
                // What came after the note is cut: it may be half a row.
                file.set_len(len)
                    .and_then(|()| file.seek(SeekFrom::End(0)))
                    .map_err(|error| failed(&partial, &error))?;
                progress = noted;
                file
            }
            None => {
                let mut file = options(true)?;
                if ending == "csv" {
                    let mut names: Vec<&str> = schema.columns().iter().map(|field| field.name.as_str()).collect();
                    names.extend(schema.dynamic().then_some(META_COLUMN));
                    write_csv(&mut file, names).map_err(|error| failed(&partial, &error))?;
                }
                file
            }
        };
        let format = match ending {
            "jsonl" | "ndjson" => Format::Lines(file),
            "csv" => Format::Csv(file),
            "arrow" | "feather" => {
                let arrow = Batch::empty(schema).to_arrow().schema();
                let writer = FileWriter::try_new(file, &arrow).map_err(|error| wrong(&partial, &error))?;
                Format::Arrow(Some(Box::new(writer)))
            }
            _ => {
                let arrow = Batch::empty(schema).to_arrow().schema();
                let writer = ArrowWriter::try_new(file, arrow, None)
                    .map_err(|error| Error::new(ErrorKind::Io, format!("{}: {error}", partial.display())))?;
                Format::Parquet(Some(Box::new(writer)))
            }
        };
        Ok((Self { format, path: path.to_owned(), partial, notes }, progress))
    }

    /// Writes rows; tells the last key.
    fn write(&mut self, schema: &Arc<Schema>, rows: Vec<Row>) -> Result<Option<Key>> {
        let partial = &self.partial;
        let io = |error: std::io::Error| failed(partial, &error);
        let last = |rows: &[Row]| -> Result<Option<Key>> {
            let Some(row) = rows.last() else { return Ok(None) };
            Ok(Some(Batch::from_rows(schema, vec![row.clone()])?.key(0)))
        };
        match &mut self.format {
            Format::Lines(file) => {
                let mut text = Vec::new();
                for row in &rows {
                    serde_json::to_writer(&mut text, row).map_err(|error| Error::invalid(error.to_string()))?;
                    text.push(b'\n');
                }
                file.write_all(&text).map_err(io)?;
                last(&rows)
            }
            Format::Csv(file) => {
                let mut text = Vec::new();
                for row in &rows {
                    let mut json = serde_json::to_value(row).map_err(|error| Error::invalid(error.to_string()))?;
                    let mut cells: Vec<String> =
                        schema.columns().iter().map(|field| cell(json.get_mut(&field.name).map(Json::take))).collect();
                    if schema.dynamic() {
                        if let Some(rest) = json.as_object_mut() {
                            rest.retain(|name, _| schema.columns().iter().all(|field| field.name != *name));
                        }
                        cells.push(json.to_string());
                    }
                    write_csv(&mut text, cells).map_err(io)?;
                }
                file.write_all(&text).map_err(io)?;
                last(&rows)
            }
            Format::Arrow(writer) => {
                let batch = Batch::from_rows(schema, rows)?;
                let writer = writer.as_mut().expect("open until it is finished");
                writer.write(&batch.to_arrow()).map_err(|error| wrong(partial, &error))?;
                Ok(batch.len().checked_sub(1).map(|row| batch.key(row)))
            }
            Format::Parquet(writer) => {
                let batch = Batch::from_rows(schema, rows)?;
                let writer = writer.as_mut().expect("open until it is finished");
                let io = |error: parquet::errors::ParquetError| {
                    Error::new(ErrorKind::Io, format!("{}: {error}", partial.display()))
                };
                writer.write(&batch.to_arrow()).map_err(io)?;
                Ok(batch.len().checked_sub(1).map(|row| batch.key(row)))
            }
        }
    }

    /// Notes how far it has come, where one can go on from that.
    #[expect(clippy::disallowed_methods, reason = "the command line writes the files that it is asked for")]
    fn note(&mut self, progress: &Progress) -> Result<()> {
        let (Format::Lines(file) | Format::Csv(file)) = &mut self.format else { return Ok(()) };
        let io = |error: std::io::Error| failed(&self.partial, &error);
        let key = match &progress.key {
            Some(Key::Int(key)) => json!(key.to_string()),
            Some(Key::String(key)) => json!([key]),
            None => Json::Null,
        };
        file.sync_data().map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        let note = json!({ "bytes": len, "rows": progress.rows, "key": key }).to_string();
        std::fs::write(&self.notes, note).map_err(|error| failed(&self.notes, &error))
    }

    /// Gives the file its name; tells its length.
    #[expect(clippy::disallowed_methods, reason = "the command line removes the notes that it made")]
    fn finish(self, schema: &Arc<Schema>) -> Result<u64> {
        let partial = &self.partial;
        let io = |error: std::io::Error| failed(partial, &error);
        let _ = schema;
        let file = match self.format {
            Format::Lines(file) | Format::Csv(file) => file,
            Format::Arrow(writer) => {
                let mut writer = writer.expect("open until it is finished");
                writer.finish().map_err(|error| wrong(partial, &error))?;
                writer.into_inner().map_err(|error| wrong(partial, &error))?
            }
            Format::Parquet(writer) => {
                let writer = writer.expect("open until it is finished");
                writer
                    .into_inner()
                    .map_err(|error| Error::new(ErrorKind::Io, format!("{}: {error}", partial.display())))?
            }
        };
        file.sync_all().map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        std::fs::rename(partial, &self.path).map_err(io)?;
        // Its absence is what it says.
        let _ = std::fs::remove_file(&self.notes);
        Ok(len)
    }
}

#[expect(clippy::disallowed_methods, reason = "the command line reads the notes that it made")]
fn read_notes(path: &Path) -> Result<Option<(u64, Progress)>> {
    let text = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|error| failed(path, &error))?,
    };
    let wrong =
        || Error::corrupt(format!("{}: no notes of an export; without --resume it starts anew", path.display()));
    let note: Json = serde_json::from_slice(&text).map_err(|_| wrong())?;
    let number = |name: &str| note[name].as_u64().ok_or_else(wrong);
    let key = match &note["key"] {
        Json::String(key) => Some(Key::Int(key.parse().map_err(|_| wrong())?)),
        Json::Array(key) => Some(Key::String(key.first().and_then(Json::as_str).ok_or_else(wrong)?.into())),
        _ => None,
    };
    Ok(Some((number("bytes")?, Progress { rows: number("rows")?, key })))
}

fn write_csv<T: AsRef<[u8]>>(out: &mut impl std::io::Write, cells: impl IntoIterator<Item = T>) -> std::io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(cells).map_err(std::io::Error::other)?;
    writer.flush()
}

/// A value as a cell: texts as they are, nothing for null, the rest as JSON.
fn cell(value: Option<Json>) -> String {
    match value {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text,
        Some(other) => other.to_string(),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::StorageFull { ErrorKind::StorageFull } else { ErrorKind::Io };
    Error::new(kind, format!("{}: {error}", path.display()))
}

fn wrong(path: &Path, error: &ArrowError) -> Error {
    Error::new(ErrorKind::Io, format!("{}: {error}", path.display()))
}
