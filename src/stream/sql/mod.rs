#![doc = include_str!("../../docs/sql.md")]

mod aggregates;
mod ast;
mod lower;
#[cfg(test)]
mod nexmark;
mod parser;
mod print;
#[cfg(test)]
mod run_tests;
mod settings;
#[cfg(test)]
mod tests;
mod time;
mod token;

use std::collections::BTreeMap;

use super::{Plan, SourceField, SourceMode, Watermark};
use crate::base::Result;
use crate::query::Parameters;

/// Longest text: room for a vector of some thousand numbers.
const TEXT_BYTES_MAX: usize = 256 << 10;

/// Deepest nesting of the text, and deepest tree of a value: about a kilobyte of stack each, of the 1 MiB that WebAssembly has.
const DEPTH_MAX: usize = 64;

/// Most joins of a query.
const JOINS_MAX: usize = 16;

/// Most statements of a text.
const STATEMENTS_MAX: usize = 256;

/// What names in SQL stand for, beside what the text itself declares.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Streams and collections, by name.
    pub tables: BTreeMap<String, Table>,
}

/// A stream or a collection.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// What its rows have.
    pub fields: Vec<SourceField>,
    /// The field with the event time; `None` for none.
    pub time: Option<String>,
    /// How far event time has come, of a stream.
    pub watermark: Watermark,
    /// The primary key of a collection; `None` of a stream.
    pub key: Option<String>,
}

/// What becomes of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They keep coming. Rows of a collection are its changes; a group without a window tells each of its changes.
    Stream,
    /// They are all there, and end: everything is told once, in order where there is one.
    Snapshot,
}

/// A text that became a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The plan. Its sinks are called as the view or the collection that they fill, and `output` for `SELECT`.
    pub plan: Plan,
    /// What its sources are.
    pub reads: Vec<Read>,
    /// What its sinks say of how it runs.
    pub settings: RunSettings,
    /// Whether the plan is to be shown and not run.
    pub explain: bool,
}

/// A source of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    /// The name of the source's node.
    pub node: String,
    /// The name of the stream or the collection.
    pub name: String,
    /// Whether it is a collection that the text does not declare.
    pub collection: bool,
    /// Where its rows come from, when the text says so.
    pub origin: Option<Origin>,
}

/// What `CREATE SOURCE … WITH (…)` says of where rows come from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Origin {
    /// The connector; `None` for a collection.
    pub connector: Option<String>,
    /// The collection.
    pub collection: Option<String>,
    /// Where it begins: `now`, `earliest`, `full` or the number of a hybrid time.
    pub since: Option<String>,
    /// The column that takes the time of the write.
    pub commit_time: Option<String>,
    /// When rows of a connector are taken.
    pub mode: SourceMode,
    /// So many times as fast as they happened; as fast as they can be read, with `None`.
    pub pace: Option<f64>,
    /// What the connector is told.
    pub options: serde_json::Value,
}

/// What `CREATE SINK … WITH (…)` says of the whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunSettings {
    /// The collection that takes rows that were not taken.
    pub dead_letters: Option<String>,
    /// How many rows are kept for the application.
    pub keep_rows: Option<usize>,
}

/// The plan of the statements of `text`; `{name}` in it stands for the value of that name.
///
/// # Errors
/// `InvalidArgument` for what is wrong, `Unsupported` for what SQL has and this version does not. Both have a
/// [position](crate::base::Error::position), and a message that says what was found there, what was expected, and shows the line.
pub fn compile(text: &str, catalog: &Catalog, parameters: &Parameters, mode: Mode) -> Result<Compiled> {
    let lowered = parser::parse(text).and_then(|statements| lower::lower(&statements, catalog, parameters, mode));
    lowered.map_err(|fault| fault.into_error(text))
}

/// Whether the last statement of `text` is only to be shown, by `EXPLAIN`. Of a text that is no SQL it is not.
pub fn is_explain(text: &str) -> bool {
    let mut lexer = token::Lexer::new(text);
    let (mut begins, mut explain) = (true, false);
    loop {
        match lexer.next().map(|spanned| spanned.token) {
            Ok(token::Token::End) => return explain,
            Ok(token::Token::Sign(";")) => begins = true,
            Ok(token) if begins => {
                begins = false;
                explain = matches!(token, token::Token::Word(word) if word.eq_ignore_ascii_case("EXPLAIN"));
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}
