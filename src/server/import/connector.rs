use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{Field as ArrowField, Schema as ArrowSchema};
use serde::Deserialize;

use super::run::{Format, open_table};
use super::{Chunk, Source as Table};
use crate::base::codec::{Reader, Write, checksum};
use crate::base::{Error, ErrorKind, Result};
use crate::db::Db;
use crate::db::source::{Asked, Connector, Flow, Positions, RefusedRow, Source, SourceBatch};
use crate::model::column::arrow_type;
use crate::model::{DataType, Field, Row, Schema};
use crate::platform::Task;
use crate::stream::{Relation, Rows};

/// Files of rows as sources of pipelines: those that lie in one directory. One file after the other is read, each to its end, and the last
/// one's is the end of the source.
pub struct FileConnector {
    directory: PathBuf,
}

/// What is said of a source.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileOptions {
    /// Their paths in the directory.
    paths: Vec<String>,
    /// Their format; told from each file with `None`.
    format: Option<Format>,
}

impl FileConnector {
    /// The files in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// A file in the directory, wherever links lead.
    fn find(&self, path: &str) -> Result<PathBuf> {
        let is_inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        let io = |error: &std::io::Error| super::io_error(path, error);
        let directory = std::fs::canonicalize(&self.directory)
            .map_err(|error| super::io_error(&self.directory.display().to_string(), &error))?;
        let outside =
            || Error::new(ErrorKind::Forbidden, format!("{path}: files are read from one directory, and below it"));
        if path.is_empty() || !is_inside {
            return Err(outside());
        }
        let found = std::fs::canonicalize(directory.join(path)).map_err(|error| io(&error))?;
        if found.starts_with(&directory) { Ok(found) } else { Err(outside()) }
    }
}

impl Connector for FileConnector {
    fn open(&self, _db: &Db, asked: &Asked<'_>) -> Result<Box<dyn Source>> {
        let options: FileOptions = serde_json::from_value(asked.options.clone())
            .map_err(|error| Error::invalid(format!("connector \"files\": {error}")))?;
        if options.paths.is_empty() {
            return Err(Error::invalid("connector \"files\": no path is named"));
        }
        let mut files = vec![];
        for path in &options.paths {
            let found = self.find(path)?;
            let format = options.format.map_or_else(|| Format::of(&found), Ok)?;
            files.push(File { name: path.clone(), path: found, format });
        }
        // Whatever else a row has is left out: so names that no field has are no fault of a file.
        let mut key = "row".to_owned();
        while asked.relation.position(&key).is_some() {
            key.push('_');
        }
        let mut fields = vec![Field::new(&key, DataType::Int64)];
        fields.extend(asked.relation.fields.iter().cloned().map(|field| Field { nullable: true, ..field }));
        let schema = Arc::new(Schema::new(fields, &key, true)?);
        let relation = asked.relation.clone();
        let source = FileSource { files, relation, schema, at: 0, records: 0, rows: None, identity: 0 };
        Ok(Box::new(source))
    }
}

struct File {
    name: String,
    path: PathBuf,
    format: Format,
}

struct FileSource {
    files: Vec<File>,
    relation: Relation,
    schema: Arc<Schema>,
    /// The file that is read, and how many of its records were.
    at: usize,
    records: u64,
    rows: Option<Box<dyn Table>>,
    /// Of the files as they were when it was connected.
    identity: u32,
}

impl FileSource {
    /// | bytes | |
    /// |---|---|
    /// | 4 | which files they are: a checksum of their names, lengths and times |
    /// | 4 | the number of the file |
    /// | 8 | how many of its records were read |
    fn position(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        out.put_u32(self.identity);
        out.put_u32(self.at as u32);
        out.put_u64(self.records);
        out
    }

    fn identify(&self) -> Result<u32> {
        let mut text = String::new();
        for file in &self.files {
            let failed = |error: std::io::Error| super::io_error(&file.name, &error);
            let metadata = std::fs::metadata(&file.path).map_err(failed)?;
            let modified = metadata.modified().map_err(failed)?;
            let modified_ns = modified.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
            text.push_str(&format!("{:?} {} {modified_ns}\n", file.name, metadata.len()));
        }
        Ok(checksum(text.as_bytes()))
    }

    fn connect_at(&mut self, positions: &Positions) -> Result<()> {
        self.identity = self.identify()?;
        (self.at, self.records, self.rows) = (0, 0, None);
        let Some(position) = positions.get(&0).filter(|position| !position.is_empty()) else { return Ok(()) };
        let mut reader = Reader::new(position);
        let (identity, at, records) = (reader.u32()?, reader.u32()? as usize, reader.u64()?);
        if identity != self.identity || at > self.files.len() {
            let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
            let message = format!("{}: they have changed since they were read", names.join(", "));
            return Err(Error::new(ErrorKind::Gone, message));
        }
        self.at = at;
        if records > 0 {
            self.skip(records)?;
        }
        Ok(())
    }

    fn open(&mut self) -> Result<&mut Box<dyn Table>> {
        if self.rows.is_none() {
            let file = &self.files[self.at];
            self.rows = Some(open_table(&file.path, file.format, &self.schema)?);
        }
        self.rows.as_mut().ok_or_else(|| Error::internal("a file that is not open"))
    }

    /// Passes over records, good and bad ones.
    fn skip(&mut self, records: u64) -> Result<()> {
        let is_table = matches!(self.files[self.at].format, Format::Arrow | Format::Parquet);
        let rows = self.open()?;
        if is_table {
            rows.skip(records)?;
        } else {
            for _ in 0..records {
                match rows.skip(1) {
                    Err(error) if error.kind() != ErrorKind::InvalidArgument => return Err(error),
                    _ => {}
                }
            }
        }
        self.records = records;
        Ok(())
    }

    fn read_next(&mut self, rows_max: usize) -> Result<SourceBatch> {
        let mut batch = SourceBatch::default();
        while batch.rows.len() + batch.refused.len() < rows_max {
            if self.at == self.files.len() {
                batch.flow = Flow::Ended;
                break;
            }
            let left = rows_max - batch.rows.len() - batch.refused.len();
            let is_table = matches!(self.files[self.at].format, Format::Arrow | Format::Parquet);
            // A record of a text that is none is refused alone.
            let chunk = match self.open() {
                Ok(rows) => rows.next_chunk(if is_table { left } else { 1 }),
                Err(error) => Err(error),
            };
            match chunk {
                Ok(Some(Chunk::Rows { rows, .. })) => {
                    self.records += rows.len() as u64;
                    batch.rows.extend(rows);
                }
                Ok(Some(Chunk::Columns { batch: columns, first })) => {
                    self.records += columns.num_rows() as u64;
                    self.take_columns(&columns, first, &mut batch);
                }
                Ok(None) => {
                    (self.at, self.records, self.rows) = (self.at + 1, 0, None);
                }
                Err(error) if error.kind() == ErrorKind::InvalidArgument && !is_table && self.rows.is_some() => {
                    let place = format!("{}: record {}", self.files[self.at].name, self.records);
                    self.records += 1;
                    batch.refused.push(RefusedRow { place, reason: error.message().to_owned(), row: Row::new() });
                }
                Err(error) => return Err(error),
            }
        }
        batch.position = Some(self.position());
        Ok(batch)
    }

    /// The rows of columns; where one does not fit, it is found by halves, and refused.
    fn take_columns(&self, columns: &RecordBatch, first: u64, batch: &mut SourceBatch) {
        match self.rows_of(columns) {
            Ok(rows) => batch.rows.extend(rows),
            Err(error) if columns.num_rows() <= 1 => {
                let place = format!("{}: row {first}", self.files[self.at].name);
                batch.refused.push(RefusedRow { place, reason: error.message().to_owned(), row: Row::new() });
            }
            Err(_) => {
                let half = columns.num_rows() / 2;
                self.take_columns(&columns.slice(0, half), first, batch);
                self.take_columns(&columns.slice(half, columns.num_rows() - half), first + half as u64, batch);
            }
        }
    }

    fn rows_of(&self, columns: &RecordBatch) -> Result<Vec<Row>> {
        let (mut fields, mut arrays): (Vec<ArrowField>, Vec<ArrayRef>) = (vec![], vec![]);
        let there = columns.schema();
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        for field in &self.relation.fields {
            let wanted = arrow_type(field.data_type);
            let at = there.fields().iter().position(|other| super::field_name(other.name()) == field.name);
            arrays.push(match at {
                Some(at) => cast_with_options(columns.column(at), &wanted, &strict)
                    .map_err(|error| Error::invalid(format!("column {:?}: {error}", field.name)))?,
                None => new_null_array(&wanted, columns.num_rows()),
            });
            fields.push(ArrowField::new(&field.name, wanted, true));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(columns.num_rows()));
        let schema = Arc::new(ArrowSchema::new(fields));
        let fitted = RecordBatch::try_new_with_options(schema, arrays, &options)
            .map_err(|error| Error::invalid(error.to_string()))?;
        Ok(Rows::new(fitted, vec![0; columns.num_rows()]).to_rows(&self.relation))
    }
}

impl Source for FileSource {
    fn connect<'a>(&'a mut self, positions: &'a Positions) -> Task<'a, Result<()>> {
        Box::pin(async move { self.connect_at(positions) })
    }

    fn read(&mut self, rows_max: usize) -> Task<'_, Result<SourceBatch>> {
        Box::pin(async move { self.read_next(rows_max) })
    }

    fn commit<'a>(&'a mut self, _positions: &'a Positions) -> Task<'a, Result<()>> {
        // Files are kept by who has put them there.
        Box::pin(async { Ok(()) })
    }

    fn partitions(&self) -> std::ops::Range<u32> {
        0..1
    }

    fn waiting(&self) -> Option<u64> {
        None
    }

    fn retire(&mut self) -> Task<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the files that are read are written")]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int32Array, StringArray};
    use serde_json::json;

    use super::*;
    use crate::db::source::conformance::{self, Expected};
    use crate::db::{Db, Options, PipelineSpec, QueryRequest};
    use crate::model::Value;
    use crate::platform::block_on;
    use crate::storage::MemoryStorage;

    fn relation() -> Relation {
        let plan = r#"{"nodes": [{"name": "clicks", "operator": {"source": {"fields": [
            {"name": "id", "type": "int64"}, {"name": "page", "type": "varchar", "nullable": true}]}}},
            {"name": "out", "inputs": ["clicks"], "operator": {"sink": {}}}]}"#;
        crate::stream::Plan::from_json(plan).unwrap().check().unwrap().swap_remove(0)
    }

    fn row(id: i64) -> Row {
        Row::from([("id".to_owned(), Value::Int(id)), ("page".to_owned(), format!("page {id}").as_str().into())])
    }

    fn open(db: &Db, connector: &FileConnector, options: serde_json::Value) -> Result<Box<dyn Source>> {
        let relation = relation();
        connector.open(db, &Asked { name: "clicks", reader: "reader", relation: &relation, options: &options })
    }

    /// A directory with the same rows in each format, and lines that are none in the texts.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let (mut csv, mut jsonl) = ("id,page\n".to_owned(), String::new());
        for id in 0..10 {
            csv.push_str(&format!("{id},page {id}\n"));
            jsonl.push_str(&format!("{{\"id\": {id}, \"page\": \"page {id}\"}}\n"));
            if id == 4 {
                csv.push_str("5,too,many\nfive,page 5\n");
                jsonl.push_str("{\"id\": 5,\n\n[5]\n");
            }
        }
        std::fs::write(directory.path().join("clicks.csv"), csv).unwrap();
        std::fs::write(directory.path().join("clicks.jsonl"), jsonl).unwrap();
        let schema = Arc::new(ArrowSchema::new(vec![
            ArrowField::new("id", arrow_schema::DataType::Int32, false),
            ArrowField::new("page", arrow_schema::DataType::Utf8, true),
        ]));
        let pages: Vec<String> = (0..10).map(|id| format!("page {id}")).collect();
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from((0..10).collect::<Vec<i32>>())), Arc::new(StringArray::from(pages))];
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut writer = arrow_ipc::writer::FileWriter::try_new(vec![], &schema).unwrap();
        writer.write(&batch).unwrap();
        std::fs::write(directory.path().join("clicks.arrow"), writer.into_inner().unwrap()).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(vec![], schema, None).unwrap();
        writer.write(&batch).unwrap();
        std::fs::write(directory.path().join("clicks.parquet"), writer.into_inner().unwrap()).unwrap();
        directory
    }

    #[test]
    fn files_keep_the_promises_of_a_source() {
        let directory = directory();
        let connector = FileConnector::new(directory.path());
        block_on(async {
            let db = Db::open(Arc::new(MemoryStorage::new()), Options::default()).await.unwrap();
            let names = ["clicks.csv", "clicks.jsonl", "clicks.arrow", "clicks.parquet"];
            let refused = [2, 2, 0, 0];
            for (name, refused) in names.iter().zip(refused) {
                let rows = [(0, (0..10).map(row).collect())].into();
                let source = || open(&db, &connector, json!({"paths": [name]}));
                assert_eq!(conformance::run(source, &Expected { rows, refused }, 3).await, Ok(()), "{name}");
            }
            let rows = [(0, (0..40).map(|at| row(at % 10)).collect())].into();
            let source = || open(&db, &connector, json!({"paths": names}));
            assert_eq!(conformance::run(source, &Expected { rows, refused: 4 }, 4).await, Ok(()));
            // A file that has changed is another one.
            let mut source = source().unwrap();
            source.connect(&Positions::new()).await.unwrap();
            let position = source.read(3).await.unwrap().position.unwrap();
            std::fs::write(directory.path().join("clicks.csv"), "id,page\n").unwrap();
            let error = source.connect(&[(0, position)].into()).await.unwrap_err();
            assert!(error.kind() == ErrorKind::Gone && error.message().contains("clicks.csv"), "{error}");
        });
    }

    #[test]
    fn files_outside_of_the_directory_are_not_read() {
        let (directory, other) = (directory(), directory());
        let connector = FileConnector::new(directory.path());
        block_on(async {
            let db = Db::open(Arc::new(MemoryStorage::new()), Options::default()).await.unwrap();
            let secret = other.path().join("clicks.csv");
            std::os::unix::fs::symlink(&secret, directory.path().join("link.csv")).unwrap();
            let absolute = secret.display().to_string();
            for path in ["../clicks.csv", "./../clicks.csv", absolute.as_str(), "link.csv", ""] {
                let error = open(&db, &connector, json!({"paths": [path]})).err().unwrap();
                assert_eq!(error.kind(), ErrorKind::Forbidden, "{path}: {error}");
            }
            let error = open(&db, &connector, json!({"paths": ["none.csv"]})).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            for options in [json!({}), json!({"paths": []}), json!({"paths": ["clicks.csv"], "colour": 1})] {
                assert_eq!(open(&db, &connector, options).err().unwrap().kind(), ErrorKind::InvalidArgument);
            }
        });
    }

    #[test]
    fn a_pipeline_counts_what_is_in_files_to_their_end() {
        let directory = directory();
        block_on(async {
            let view = "CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS clicks, sum(id) AS ids FROM clicks GROUP BY page EMIT CHANGES";
            let by_sources = json!({
                "sql": format!("CREATE STREAM clicks (id BIGINT NOT NULL, page VARCHAR NOT NULL); {view}"),
                "sources": {"clicks": {"connector": "files", "options": {"paths": ["clicks.csv", "clicks.parquet"]}}},
                "options": {"deadLetters": "dead"},
            });
            // The same by the text alone.
            let text = "CREATE SOURCE clicks (id BIGINT NOT NULL, page VARCHAR NOT NULL)
                    WITH (connector = 'files', paths = ['clicks.csv', {more}]);
                CREATE SINK pages AS SELECT page, count(*) AS clicks, sum(id) AS ids FROM clicks GROUP BY page EMIT CHANGES
                    WITH (connector = 'collection', deadLetters = 'dead')";
            let by_text = json!({"sql": text, "params": {"more": "clicks.parquet"}});
            for spec in [by_sources, by_text] {
                let db = Db::open(Arc::new(MemoryStorage::new()), Options::default()).await.unwrap();
                db.set_connector("files", FileConnector::new(directory.path()));
                let pipeline =
                    db.create_pipeline("pages", PipelineSpec::from_json(&spec.to_string()).unwrap()).await.unwrap();
                pipeline.settle().await.unwrap();
                assert_eq!(db.collection("pages").unwrap().count(Some("clicks == 2")).await.unwrap(), 10);
                let dead = db.collection("dead").unwrap().query(&QueryRequest::default()).await.unwrap();
                assert_eq!(dead.len(), 2);
                assert!(
                    dead.iter().all(
                        |row| matches!(&row["reason"], Value::String(reason) if reason.contains("clicks.csv: record"))
                    ),
                    "{dead:?}"
                );
                assert_eq!(pipeline.status().await.sources[0].state, crate::db::source::SourceState::Closed);
            }
        });
    }
}
