use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{DataDirectory, output};
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Db, SearchRequest};
use crate::index::SearchParams;
use crate::model::Value;
use crate::server::{http, store, words};

/// Find the nearest rows of a collection to a text or a vector
#[derive(Args)]
#[command(after_help = "\
A text is turned into a vector by the collection `words` of the same store (--words names another one): a row a word,
with the word as its key, its `rank` in order of frequency, and its vector. No model is needed, and none is loaded.

Examples:
  eddy search symbols 'rain and storm'
  eddy search symbols 'wild animals' --limit 5 --filter 'category == \"So\"' --output-fields symbol,name
  eddy search notes --vector '[0.12, -0.4, 0.7]' --json
  embed 'my question' | eddy search notes --vector-file -")]
pub(super) struct Search {
    /// The collection to search.
    collection: String,

    /// What to look for, in words.
    #[arg(required_unless_present_any = ["vector", "vector_file"])]
    text: Option<String>,

    #[command(flatten)]
    directory: DataDirectory,

    /// What to look for, as a JSON list of numbers.
    #[arg(long, value_name = "JSON", conflicts_with = "text")]
    vector: Option<String>,

    /// A file with such a list; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text", "vector"])]
    vector_file: Option<PathBuf>,

    /// The collection that turns words into vectors.
    #[arg(long, env = "EDDY_WORDS", default_value = "words", value_name = "COLLECTION")]
    words: String,

    /// The vector field to search, where there are several.
    #[arg(long)]
    field: Option<String>,

    /// Only among rows for which this is true, such as `price < 10 and tags[0] == "new"`.
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,

    /// How many hits.
    #[arg(long, default_value_t = 10)]
    limit: usize,

    /// Leave out this many of the best first.
    #[arg(long, default_value_t = 0)]
    offset: usize,

    /// Only of this partition; can be repeated.
    #[arg(long = "partition", value_name = "NAME")]
    partitions: Vec<String>,

    /// Fields to show, with commas between them; every one but the vectors by default.
    #[arg(long, value_delimiter = ',', value_name = "FIELDS")]
    output_fields: Option<Vec<String>>,

    /// How many candidates the index keeps; more find more and take longer.
    #[arg(long)]
    ef: Option<usize>,

    /// How many inverted lists are looked into, of an index that has them.
    #[arg(long)]
    nprobe: Option<usize>,

    /// How many rows are compared by their vectors, of an index with codes in lists.
    #[arg(long)]
    reorder_k: Option<usize>,

    /// Compare with every row, without the index.
    #[arg(long)]
    exact: bool,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Search) -> Result<()> {
    let db = store::open(&command.directory.place(), false).await?;
    let found = search(&db, &command).await;
    let closed = db.close().await;
    found.and(closed)
}

async fn search(db: &Db, command: &Search) -> Result<()> {
    let collection = db.collection(&command.collection)?;
    let mut unknown = Vec::new();
    let vector = match (&command.text, &command.vector, &command.vector_file) {
        (Some(text), ..) if collection.has_text_field(command.field.as_deref()) => text.clone().into(),
        (Some(text), ..) => {
            let found = words::text_vector(&db.collection(&command.words)?, text).await?;
            unknown = found.unknown;
            found.vector.into()
        }
        (None, Some(text), _) => parse_vector(text, "--vector")?,
        (None, None, Some(path)) => parse_vector(&read(path)?, &path.display().to_string())?,
        (None, None, None) => {
            return Err(Error::invalid("nothing to look for: give a text, --vector or --vector-file"));
        }
    };
    let request = SearchRequest {
        field: command.field.clone(),
        vector,
        limit: command.limit,
        offset: command.offset,
        filter: command.filter.clone(),
        partitions: command.partitions.clone(),
        output_fields: command.output_fields.clone(),
        ef: command.ef,
        params: SearchParams { nprobe: command.nprobe, reorder_k: command.reorder_k, ..Default::default() },
        exact: command.exact,
        ..SearchRequest::default()
    };
    let started = tokio::time::Instant::now();
    let response = collection.search(&request).await?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    if !unknown.is_empty() {
        output::error(&format!("note: {:?} does not know {}", command.words, unknown.join(", ")));
    }
    if command.json {
        let mut answer = http::hits(&response);
        answer["ms"] = json!(ms);
        return output::line(&serde_json::to_string_pretty(&answer).expect("JSON values are written"));
    }
    if response.hits.is_empty() {
        return output::line("No row is found.");
    }
    // The columns of all hits: rows may have dynamic fields of their own.
    let key = &collection.spec().schema.primary_key().name;
    let mut fields: Vec<&String> = command.output_fields.iter().flatten().filter(|field| *field != "*").collect();
    for field in collection.spec().schema.fields().iter().map(|field| &field.name) {
        if field != key && !fields.contains(&field) && response.hits.iter().any(|hit| hit.row.contains_key(field)) {
            fields.push(field);
        }
    }
    for field in response.hits.iter().flat_map(|hit| hit.row.keys()) {
        if field != key && !fields.contains(&field) {
            fields.push(field);
        }
    }
    fields.retain(|field| *field != key);
    let header: Vec<String> = ["score", key.as_str()]
        .into_iter()
        .chain(fields.iter().map(|field| field.as_str()))
        .map(str::to_owned)
        .collect();
    let rows: Vec<Vec<String>> = response
        .hits
        .iter()
        .map(|hit| {
            let key = output::cell(&json!(hit.key));
            let values = fields
                .iter()
                .map(|field| hit.row.get(*field).map_or_else(String::new, |value| output::cell(&json!(value))));
            [format!("{:.4}", hit.score), key].into_iter().chain(values).collect()
        })
        .collect();
    output::table(&header, &rows)
}

fn parse_vector(text: &str, from: &str) -> Result<Value> {
    let value = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("{from} is no JSON list of numbers: {error}")))?;
    match value {
        Value::Json(_) => Ok(value),
        _ => Err(Error::invalid(format!("{from} is no JSON list of numbers"))),
    }
}

fn read(path: &PathBuf) -> Result<String> {
    let text =
        if path.as_os_str() == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    text.map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
        Error::new(kind, format!("{}: {error}", path.display()))
    })
}
