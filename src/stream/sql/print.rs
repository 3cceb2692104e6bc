//! Statements as text that is read as the same statements again.

use std::fmt::{Display, Formatter, Result};

use super::ast::{Emit, Expr, Item, Kind, Name, Query, Setting, SinkRows, Source, Statement, Window, power};
use super::{parser, time};
use crate::model::DataType;
use crate::stream::Nearness;

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Create(declaration) => {
                write!(f, "CREATE STREAM {}", declaration.name)?;
                let mut separator = " (";
                for (name, column) in &declaration.columns {
                    let null = if column.not_null { " NOT NULL" } else { "" };
                    write!(f, "{separator}{name} {}{null}", type_name(&column.data_type))?;
                    separator = ", ";
                }
                if let Some((column, delay)) = &declaration.watermark {
                    write!(f, "{separator}WATERMARK FOR {column} AS {column} - {}", time::show_interval(*delay))?;
                    separator = ", ";
                }
                f.write_str(if separator == ", " { ")" } else { "" })?;
                with(f, &declaration.settings)
            }
            Self::Sink { name, of, settings } => {
                write!(f, "CREATE SINK {name}")?;
                match of {
                    Some(SinkRows::From(view)) => write!(f, " FROM {view}")?,
                    Some(SinkRows::As(query)) => write!(f, " AS {query}")?,
                    None => {}
                }
                with(f, settings)
            }
            Self::View { name, materialized, query } => {
                write!(f, "CREATE {}VIEW {name} AS {query}", if *materialized { "MATERIALIZED " } else { "" })
            }
            Self::Insert { into, query } => write!(f, "INSERT INTO {into} {query}"),
            Self::Select(query) => write!(f, "{query}"),
            Self::Explain(statement) => write!(f, "EXPLAIN {statement}"),
        }
    }
}

impl Display for Query {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(if self.distinct { "SELECT DISTINCT " } else { "SELECT " })?;
        for (index, item) in self.items.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            match item {
                Item::All(None) => f.write_str("*")?,
                Item::All(Some(name)) => write!(f, "{name}.*")?,
                Item::One(value, None) => write!(f, "{value}")?,
                Item::One(value, Some(alias)) => write!(f, "{value} AS {alias}")?,
            }
        }
        write!(f, " FROM {}", self.from)?;
        if let Some(filter) = &self.filter {
            write!(f, " WHERE {filter}")?;
        }
        if !self.groups.is_empty() {
            f.write_str(" GROUP BY ")?;
            listed(f, &self.groups)?;
        }
        if let Some(having) = &self.having {
            write!(f, " HAVING {having}")?;
        }
        for (index, order) in self.order.iter().enumerate() {
            f.write_str(if index > 0 { ", " } else { " ORDER BY " })?;
            write!(f, "{}{}", order.by, if order.descending { " DESC" } else { "" })?;
        }
        if let Some(limit) = self.limit {
            write!(f, " LIMIT {limit}")?;
        }
        match self.emit {
            None => Ok(()),
            Some(Emit::OnWindowClose) => f.write_str(" EMIT ON WINDOW CLOSE"),
            Some(Emit::Changes) => f.write_str(" EMIT CHANGES"),
        }
    }
}

impl Display for Source {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let alias = match self {
            Self::Named { name, alias } => {
                write!(f, "{name}")?;
                alias
            }
            Self::Query { query, alias } => {
                write!(f, "({query})")?;
                alias
            }
            Self::Window { window, of, time, zone, alias } => {
                let word = match window {
                    Window::Tumble { .. } => "TUMBLE",
                    Window::Hop { .. } => "HOP",
                    Window::Cumulate { .. } => "CUMULATE",
                    Window::Session { .. } => "SESSION",
                };
                write!(f, "TABLE({word}(TABLE {of}, DESCRIPTOR({time}")?;
                if let Some(zone) = zone {
                    write!(f, " AT TIME ZONE '{zone}'")?;
                }
                f.write_str(")")?;
                let (spans, offset) = match *window {
                    Window::Tumble { size, offset } => (vec![size], offset),
                    Window::Hop { slide, size, offset } => (vec![slide, size], offset),
                    Window::Cumulate { step, size, offset } => (vec![step, size], offset),
                    Window::Session { gap } => (vec![gap], 0),
                };
                for span in spans.into_iter().chain((offset != 0).then_some(offset)) {
                    write!(f, ", {}", time::show_interval(span))?;
                }
                f.write_str("))")?;
                alias
            }
            Self::Dedupe { of, keys, vector, radius, within, metric, alias } => {
                write!(f, "TABLE(DEDUPE(TABLE {of}")?;
                if !keys.is_empty() {
                    f.write_str(" PARTITION BY ")?;
                    listed(f, keys)?;
                }
                write!(f, ", DESCRIPTOR({vector}), {radius:?}, {}", time::show_interval(*within))?;
                f.write_str(if *metric == Nearness::L2 { ", 'l2'))" } else { "))" })?;
                alias
            }
            Self::Nearest { collection, vector, limit, alias } => {
                write!(f, "nearest({collection}, {vector}, {limit})")?;
                alias
            }
            Self::Join { left, right, outer, on } => {
                let word = match (outer, on, &**right) {
                    (true, ..) => " LEFT JOIN ",
                    (false, None, _) => ", ",
                    (false, Some(_), _) => " JOIN ",
                };
                write!(f, "{left}{word}{right}")?;
                return match on {
                    Some(on) => write!(f, " ON {on}"),
                    None => Ok(()),
                };
            }
        };
        alias.as_ref().map_or(Ok(()), |alias| write!(f, " AS {alias}"))
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match &self.kind {
            Kind::Null => f.write_str("NULL"),
            Kind::Bool(true) => f.write_str("TRUE"),
            Kind::Bool(false) => f.write_str("FALSE"),
            Kind::Int(number) => write!(f, "{number}"),
            Kind::Float(number) => write!(f, "{number:?}"),
            Kind::Text(value) => f.write_str(&text(value)),
            Kind::Interval(micros) => f.write_str(&time::show_interval(*micros)),
            Kind::Timestamp(micros) => f.write_str(&time::show_instant(*micros)),
            Kind::Parameter(name) => write!(f, "{{{name}}}"),
            Kind::Column { of, name } => {
                if let Some(of) = of {
                    write!(f, "{}.", quoted(of))?;
                }
                f.write_str(&quoted(name))
            }
            Kind::List(list) => {
                f.write_str("[")?;
                listed(f, list)?;
                f.write_str("]")
            }
            Kind::Negative(value) => {
                f.write_str("-")?;
                // Two signs would begin a comment, and a number would be read as one with its sign.
                match value.kind {
                    Kind::Negative(_) | Kind::Int(_) | Kind::Float(_) => write!(f, "({value})"),
                    _ => inside(f, value, power::UNARY),
                }
            }
            Kind::Not(value) => {
                f.write_str("NOT ")?;
                inside(f, value, power::NOT)
            }
            Kind::Logic { any, terms } => {
                let (word, inner) = if *any { (" OR ", power::AND) } else { (" AND ", power::NOT) };
                for (index, term) in terms.iter().enumerate() {
                    f.write_str(if index > 0 { word } else { "" })?;
                    inside(f, term, inner)?;
                }
                Ok(())
            }
            Kind::Binary { operator, left, right } => {
                let power = operator.power();
                inside(f, left, if power == power::COMPARISON { power + 1 } else { power })?;
                write!(f, " {} ", operator.sign())?;
                inside(f, right, power + 1)
            }
            Kind::IsNull { value, not } => {
                inside(f, value, power::SUM)?;
                f.write_str(if *not { " IS NOT NULL" } else { " IS NULL" })
            }
            Kind::Between { value, low, high, not } => {
                inside(f, value, power::SUM)?;
                write!(f, "{} BETWEEN ", negation(*not))?;
                inside(f, low, power::SUM)?;
                f.write_str(" AND ")?;
                inside(f, high, power::SUM)
            }
            Kind::In { value, list, not } => {
                inside(f, value, power::SUM)?;
                write!(f, "{} IN (", negation(*not))?;
                listed(f, list)?;
                f.write_str(")")
            }
            Kind::Like { value, pattern, not } => {
                inside(f, value, power::SUM)?;
                write!(f, "{} LIKE ", negation(*not))?;
                inside(f, pattern, power::SUM)
            }
            Kind::Case { of, branches, otherwise } => {
                f.write_str("CASE")?;
                if let Some(of) = of {
                    write!(f, " {of}")?;
                }
                for (when, then) in branches {
                    write!(f, " WHEN {when} THEN {then}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {otherwise}")?;
                }
                f.write_str(" END")
            }
            Kind::Cast { value, to } => write!(f, "CAST({value} AS {})", type_name(to)),
            Kind::Call { name, distinct, arguments } => {
                write!(f, "{name}({}", if *distinct { "DISTINCT " } else { "" })?;
                listed(f, arguments)?;
                f.write_str(")")
            }
            Kind::CountAll => f.write_str("count(*)"),
        }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&quoted(&self.text))
    }
}

/// What `WITH` says, if it says something.
fn with(f: &mut Formatter<'_>, settings: &[Setting]) -> Result {
    for (index, Setting { key, value }) in settings.iter().enumerate() {
        write!(f, "{}{} = {value}", if index > 0 { ", " } else { " WITH (" }, text(&key.text))?;
    }
    f.write_str(if settings.is_empty() { "" } else { ")" })
}

const fn negation(not: bool) -> &'static str {
    if not { " NOT" } else { "" }
}

fn listed(f: &mut Formatter<'_>, list: &[Expr]) -> Result {
    for (index, value) in list.iter().enumerate() {
        write!(f, "{}{value}", if index > 0 { ", " } else { "" })?;
    }
    Ok(())
}

/// `value`, in brackets when it holds together less tight than `power_min`.
fn inside(f: &mut Formatter<'_>, value: &Expr, power_min: u8) -> Result {
    if value.kind.power() < power_min { write!(f, "({value})") } else { write!(f, "{value}") }
}

fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

/// A name, in quotes when it needs them.
fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // Words that begin a statement, a window or a literal are quoted as well.
    let special = [
        "constraint",
        "cube",
        "descriptor",
        "grouping",
        "if",
        "primary",
        "rollup",
        "symmetric",
        "unique",
        "unnest",
        "watermark",
    ];
    if plain && !parser::is_reserved(name) && !special.iter().any(|word| word.eq_ignore_ascii_case(name)) {
        name.to_string()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}

/// The type as `CREATE STREAM` names it.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Bool => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float => "REAL".into(),
        DataType::Double => "DOUBLE".into(),
        DataType::Timestamp => "TIMESTAMP".into(),
        DataType::Varchar { max_length } => format!("VARCHAR({max_length})"),
        DataType::Json => "JSON".into(),
        DataType::FloatVector { dim } => format!("VECTOR({dim})"),
        other => other.name().to_ascii_uppercase(),
    }
}
