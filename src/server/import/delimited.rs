use std::io::BufReader;
use std::path::Path;

use csv::{Position, Reader, ReaderBuilder, StringRecord};

use super::infer::Guess;
use super::{Chunk, CountingFile, Source};
use crate::base::{Error, ErrorKind, Result};
use crate::model::{DataType, Field, Row, Schema, Value};

/// A table of text with a header line: comma-separated (RFC 4180, quotes allowed) or tab-separated (no quotes at all: a
/// quotation mark is a character like any other there).
pub(super) struct Delimited {
    reader: Reader<BufReader<CountingFile>>,
    name: String,
    header: Vec<String>,
    columns: Vec<Column>,
    record: StringRecord,
}

enum Column {
    /// Of a field of the schema.
    Field(Field),
    /// Kept in the dynamic field.
    Dynamic,
}

impl Delimited {
    /// Opens a table and reads its header.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no header, or when it names a column twice or not at all.
    pub(super) fn open(path: &Path, delimiter: u8) -> Result<Self> {
        let name = path.display().to_string();
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .quoting(delimiter != b'\t')
            .from_reader(BufReader::with_capacity(1 << 18, CountingFile::open(path)?));
        let header: Vec<String> =
            reader.headers().map_err(|error| wrong_record(&name, &error))?.iter().map(super::field_name).collect();
        if header.is_empty() {
            return Err(Error::invalid(format!("{name}: the file is empty; its first line names the columns")));
        }
        for (index, column) in header.iter().enumerate() {
            if column.is_empty() {
                return Err(Error::invalid(format!("{name}:1: column {} has no name", index + 1)));
            }
            if header[..index].contains(column) {
                return Err(Error::invalid(format!("{name}:1: two columns are named {column:?}")));
            }
        }
        Ok(Self { reader, name, header, columns: Vec::new(), record: StringRecord::new() })
    }

    /// Matches the columns to the fields of `schema`.
    ///
    /// # Errors
    /// `InvalidArgument` for a column that the schema does not have, when it has no dynamic field to keep it.
    pub(super) fn bind(mut self, schema: &Schema) -> Result<Self> {
        self.columns = self
            .header
            .iter()
            .map(|column| match schema.column(column) {
                Some(field) => Ok(Column::Field(field.clone())),
                None if schema.dynamic() => Ok(Column::Dynamic),
                None => Err(super::unknown_column(&self.name, column, schema)),
            })
            .collect::<Result<_>>()?;
        Ok(self)
    }

    /// What the cells of each column look like, over the whole file.
    pub(super) fn guess(mut self) -> Result<Vec<(String, Guess)>> {
        let mut guesses = vec![Guess::default(); self.header.len()];
        while self.read_record()? {
            for (guess, cell) in guesses.iter_mut().zip(&self.record) {
                guess.add_text(cell);
            }
        }
        Ok(self.header.into_iter().zip(guesses).collect())
    }

    fn read_record(&mut self) -> Result<bool> {
        self.reader.read_record(&mut self.record).map_err(|error| wrong_record(&self.name, &error))
    }
}

impl Source for Delimited {
    fn next_chunk(&mut self, rows_max: usize) -> Result<Option<Chunk>> {
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        while rows.len() < rows_max && self.read_record()? {
            let line = self.record.position().map_or(0, Position::line);
            let mut row = Row::new();
            for (index, (cell, column)) in self.record.iter().zip(&self.columns).enumerate() {
                let name = &self.header[index];
                let value = match column {
                    Column::Field(field) => field_value(cell, field).map_err(|reason| {
                        Error::invalid(format!("{}:{line}: column {} ({name}): {reason}", self.name, index + 1))
                    })?,
                    Column::Dynamic => dynamic_value(cell),
                };
                if let Some(value) = value {
                    row.insert(name.clone(), value);
                }
            }
            rows.push(row);
            lines.push(line);
        }
        Ok((!rows.is_empty()).then_some(Chunk::Rows { rows, lines }))
    }

    fn skip(&mut self, rows: u64) -> Result<u64> {
        let mut skipped = 0;
        while skipped < rows && self.read_record()? {
            skipped += 1;
        }
        Ok(skipped)
    }

    fn progress(&self) -> (u64, u64) {
        self.reader.get_ref().get_ref().progress()
    }
}

fn wrong_record(name: &str, error: &csv::Error) -> Error {
    let line = error.position().map_or(1, Position::line);
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => Error::invalid(format!(
            "{name}:{line}: {len} columns where the header has {expected_len}{}",
            if len > expected_len { "; put quotes around a cell that contains the separator" } else { "" }
        )),
        csv::ErrorKind::Utf8 { err, .. } => Error::invalid(format!(
            "{name}:{line}: column {}: not UTF-8 at byte {} of the cell",
            err.field() + 1,
            err.valid_up_to()
        )),
        csv::ErrorKind::Io(error) => Error::new(ErrorKind::Io, format!("{name}: {error}")),
        _ => Error::invalid(format!("{name}:{line}: {error}")),
    }
}

/// The value of a cell. An empty cell is an absent value, but for a text that must be there: then it is the empty text.
fn field_value(cell: &str, field: &Field) -> Result<Option<Value>, String> {
    let absent_allowed = field.nullable || field.default.is_some();
    if cell.is_empty() && (absent_allowed || !matches!(field.data_type, DataType::Varchar { .. })) {
        return if absent_allowed { Ok(None) } else { Err("is empty, and the field needs a value".to_owned()) };
    }
    let shown = || super::shorten(cell);
    let value = match field.data_type {
        DataType::Bool => match cell.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Value::Bool(true),
            "false" | "0" | "no" => Value::Bool(false),
            _ => return Err(format!("{} is no bool (true or false)", shown())),
        },
        // The batch knows how instants are written.
        DataType::Timestamp => match cell.trim().parse() {
            Ok(micros) => Value::Int(micros),
            Err(_) => Value::String(cell.trim().to_owned()),
        },
        integer @ (DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            let (min, max) = integer.int_range().expect("it is an integer");
            let number = cell.trim().parse::<i64>().ok().filter(|number| (min..=max).contains(number));
            let bits = 64 - max.leading_zeros();
            Value::Int(number.ok_or_else(|| format!("{} is no {integer} (a whole number below 2^{bits})", shown()))?)
        }
        float @ (DataType::Float | DataType::Double) => match cell.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Double(number),
            _ => return Err(format!("{} is no finite {float}", shown())),
        },
        DataType::Array { .. } => match serde_json::from_str(cell) {
            Ok(json @ serde_json::Value::Array(_)) => Value::Json(json),
            _ => return Err(format!("{} is no JSON array", shown())),
        },
        DataType::Varchar { .. } => Value::String(cell.to_owned()),
        DataType::Json => match serde_json::from_str(cell) {
            Ok(json) => Value::Json(json),
            Err(error) => return Err(format!("{} is no JSON: {error}", shown())),
        },
        DataType::SparseFloatVector => match serde_json::from_str(cell) {
            Ok(json) => Value::Json(json),
            Err(error) => return Err(format!("{} is no JSON: {error}", shown())),
        },
        DataType::BinaryVector { dim } => Value::Json(vector(cell, dim / 8)?.into_iter().map(whole).collect()),
        dense => Value::Vector(vector(cell, dense.dim().unwrap_or(0))?),
    };
    Ok(Some(value))
}

/// A byte as the integer that it is, and what is none as the number that the batch refuses.
fn whole(number: f32) -> serde_json::Value {
    if number.fract() == 0.0 { (number as i64).into() } else { number.into() }
}

/// A vector written as a JSON list or as numbers with spaces, commas or semicolons between them.
fn vector(cell: &str, dim: u32) -> Result<Vec<f32>, String> {
    let text = cell.trim();
    let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let mut numbers = Vec::new();
    for part in text.split(|c: char| c == ',' || c == ';' || c.is_ascii_whitespace()).filter(|part| !part.is_empty()) {
        match part.parse::<f32>() {
            Ok(number) if number.is_finite() => numbers.push(number),
            _ => return Err(format!("{} at place {} is no finite number", super::shorten(part), numbers.len() + 1)),
        }
    }
    if numbers.len() == dim as usize {
        Ok(numbers)
    } else {
        Err(format!("{} numbers where the vector field has {dim}", numbers.len()))
    }
}

/// A cell without a field: a number, a boolean, a list or an object where it is written as JSON writes them, else text.
fn dynamic_value(cell: &str) -> Option<Value> {
    if cell.is_empty() {
        return None;
    }
    Some(match serde_json::from_str(cell) {
        Ok(serde_json::Value::Null | serde_json::Value::String(_)) | Err(_) => Value::String(cell.to_owned()),
        Ok(json) => Value::from(json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(data_type: DataType, nullable: bool) -> Field {
        Field { name: "f".to_owned(), data_type, nullable, default: None, analyzer: None }
    }

    #[test]
    fn cells_become_values() {
        let value = |data_type, cell| field_value(cell, &field(data_type, false));
        assert_eq!(value(DataType::Bool, "TRUE"), Ok(Some(Value::Bool(true))));
        assert_eq!(value(DataType::Int64, " -7"), Ok(Some(Value::Int(-7))));
        assert_eq!(value(DataType::Double, "1e3"), Ok(Some(Value::Double(1000.0))));
        assert_eq!(value(DataType::Varchar { max_length: 9 }, ""), Ok(Some(Value::String(String::new()))));
        assert_eq!(value(DataType::Json, "{\"a\":[1]}"), Ok(Some(Value::Json(serde_json::json!({"a": [1]})))));
        let dim3 = DataType::FloatVector { dim: 3 };
        for text in ["[1, 2.5,-3]", "1 2.5 -3", "1;2.5;-3", " [1\t2.5 -3] "] {
            assert_eq!(value(dim3, text), Ok(Some(Value::Vector(vec![1.0, 2.5, -3.0]))), "{text}");
        }
        assert_eq!(field_value("", &field(DataType::Int64, true)), Ok(None));
        assert_eq!(field_value("", &field(DataType::Varchar { max_length: 9 }, true)), Ok(None));
    }

    #[test]
    fn wrong_cells_say_why() {
        let reason = |data_type, cell| field_value(cell, &field(data_type, false)).unwrap_err();
        assert!(reason(DataType::Int64, "").contains("is empty"));
        assert!(reason(DataType::Int64, "9223372036854775808").contains("is no int64"));
        assert!(reason(DataType::Double, "NaN").contains("is no finite double"));
        assert!(reason(DataType::Bool, "maybe").contains("is no bool"));
        assert!(reason(DataType::Json, "{").contains("is no JSON"));
        let dim2 = DataType::FloatVector { dim: 2 };
        assert!(reason(dim2, "[1]").contains("1 numbers where the vector field has 2"));
        assert!(reason(dim2, "[1, nan]").contains("\"nan\" at place 2"));
        assert!(reason(dim2, "[1, 1e39]").contains("\"1e39\" at place 2"));
    }

    #[test]
    fn dynamic_cells_keep_what_json_would_change() {
        assert_eq!(dynamic_value("007"), Some(Value::String("007".to_owned())));
        assert_eq!(dynamic_value("7"), Some(Value::Int(7)));
        assert_eq!(dynamic_value("\"quoted\""), Some(Value::String("\"quoted\"".to_owned())));
        assert_eq!(dynamic_value("null"), Some(Value::String("null".to_owned())));
        assert_eq!(dynamic_value(""), None);
    }
}
