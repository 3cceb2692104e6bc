use super::ast::{
    ColumnType, Declaration, Emit, Expr, Item, Kind, Name, Operator, Order, Query, Setting, SinkRows, Source,
    Statement, Window, power,
};
use super::token::{Lexer, Spanned, Token, out_of_range};
use super::{DEPTH_MAX, JOINS_MAX, STATEMENTS_MAX, TEXT_BYTES_MAX, time};
use crate::model::DataType;
use crate::query::fault::Fault;
use crate::stream::{Nearness, ZoneName};

/// Reads statements by recursive descent, and expressions by operator precedence.
///
/// Source: Pratt, "Top Down Operator Precedence" (1973).
pub(super) struct Parser<'a> {
    lexer: Lexer<'a>,
    next: Spanned,
    depth: usize,
}

/// Words that are no names unless they are quoted: those that may follow a name.
pub(super) const RESERVED: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "BETWEEN",
    "BY",
    "CASE",
    "CREATE",
    "CROSS",
    "DISTINCT",
    "ELSE",
    "EMIT",
    "END",
    "EXCEPT",
    "EXISTS",
    "FALSE",
    "FETCH",
    "FOR",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NATURAL",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RIGHT",
    "SELECT",
    "TABLE",
    "THEN",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Statements that other databases have.
const STATEMENTS_LATER: &[&str] = &[
    "ALTER", "ANALYZE", "BEGIN", "COMMIT", "DECLARE", "DELETE", "DESCRIBE", "DROP", "MERGE", "REPLACE", "ROLLBACK",
    "SET", "SHOW", "TRUNCATE", "UPDATE", "USE", "VALUES", "WITH",
];

pub(super) fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}

/// The statements of `text`, which semicolons part.
pub(super) fn parse(text: &str) -> Result<Vec<Statement>, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Fault::new(0, format!("the text has {} bytes, expected at most {TEXT_BYTES_MAX}", text.len())));
    }
    let mut lexer = Lexer::new(text);
    let next = lexer.next()?;
    let mut parser = Parser { lexer, next, depth: 0 };
    let mut statements = vec![];
    loop {
        while parser.taken(";")? {}
        if parser.next.token == Token::End {
            return Ok(statements);
        }
        if statements.len() == STATEMENTS_MAX {
            return Err(Fault::new(parser.next.at, format!("these are more than {STATEMENTS_MAX} statements")));
        }
        statements.push(parser.statement()?);
        if parser.next.token != Token::End && !parser.sees(";") {
            return Err(parser.unexpected("`;` or the end"));
        }
    }
}

impl Parser<'_> {
    fn statement(&mut self) -> Result<Statement, Fault> {
        if self.has("EXPLAIN")? {
            if self.is("EXPLAIN") {
                return Err(self.unexpected("a statement after `EXPLAIN`"));
            }
            return self.statement().map(|statement| Statement::Explain(Box::new(statement)));
        }
        if self.has("CREATE")? {
            return self.create();
        }
        if self.has("INSERT")? {
            self.keyword("INTO")?;
            let into = self.name("the name of a collection or a sink")?;
            if self.sees("(") {
                return Err(self.unsupported("a list of columns after `INSERT INTO`"));
            }
            return Ok(Statement::Insert { into, query: self.query()? });
        }
        if self.is("SELECT") {
            return self.query().map(Statement::Select);
        }
        match STATEMENTS_LATER.iter().find(|word| self.is(word)) {
            Some(word) => Err(self.unsupported(&format!("`{word}`"))),
            None => Err(self.unexpected("`SELECT`, `CREATE`, `INSERT` or `EXPLAIN`")),
        }
    }

    /// What follows `CREATE`.
    fn create(&mut self) -> Result<Statement, Fault> {
        let materialized = self.has("MATERIALIZED")?;
        if materialized || self.is("VIEW") {
            self.keyword("VIEW")?;
            self.no_condition()?;
            let name = self.name("the name of the view")?;
            if self.sees("(") {
                return Err(self.unsupported("a list of columns after the name of a view"));
            }
            self.keyword("AS")?;
            return Ok(Statement::View { name, materialized, query: self.query()? });
        }
        if self.has("SINK")? {
            return self.sink();
        }
        if !(self.has("STREAM")? || self.has("SOURCE")? || self.has("TABLE")?) {
            for word in ["OR", "TEMPORARY", "FUNCTION", "INDEX", "DATABASE", "SCHEMA", "CATALOG"] {
                if self.is(word) {
                    return Err(self.unsupported(&format!("`CREATE {word}`")));
                }
            }
            return Err(self.unexpected("`STREAM`, `SOURCE`, `TABLE`, `SINK`, `VIEW` or `MATERIALIZED VIEW`"));
        }
        self.no_condition()?;
        let name = self.name("the name of the stream")?;
        let (mut columns, mut watermark) = (vec![], None);
        // What a source names by `WITH` may know its columns.
        if !self.is("WITH") {
            (columns, watermark) = self.columns()?;
        }
        Ok(Statement::Create(Declaration { name, columns, watermark, settings: self.settings()? }))
    }

    /// What follows `CREATE SINK`.
    fn sink(&mut self) -> Result<Statement, Fault> {
        self.no_condition()?;
        let name = self.name("the name of the sink")?;
        let of = if self.has("FROM")? {
            Some(SinkRows::From(self.name("the name of a view, a stream or a collection")?))
        } else if self.has("AS")? {
            Some(SinkRows::As(Box::new(self.query()?)))
        } else if self.is("WITH") {
            None
        } else {
            return Err(self.unexpected("`FROM` and a view, `AS` and a query, or `WITH`"));
        };
        Ok(Statement::Sink { name, of, settings: self.settings()? })
    }

    /// The columns of a stream and its watermark, in brackets.
    #[expect(clippy::type_complexity, reason = "two parts of what a statement declares")]
    fn columns(&mut self) -> Result<(Vec<(Name, ColumnType)>, Option<(Name, i64)>), Fault> {
        let mut columns: Vec<(Name, ColumnType)> = vec![];
        let mut watermark = None;
        let bracket = self.next.at;
        self.expect("(", "`(` and the columns, or `WITH`")?;
        loop {
            if self.is("WATERMARK") {
                if watermark.is_some() {
                    return Err(self.unexpected("one `WATERMARK` only"));
                }
                watermark = Some(self.watermark()?);
            } else if self.is("PRIMARY") || self.is("CONSTRAINT") || self.is("UNIQUE") {
                let written = self.next.written.clone();
                return Err(self.unsupported(&written));
            } else {
                let column = self.name("the name of a column")?;
                if self.is("AS") {
                    return Err(self.unsupported("a computed column"));
                }
                let data_type = self.data_type()?;
                let not_null = if self.has("NOT")? {
                    self.keyword("NULL")?;
                    true
                } else {
                    self.has("NULL")?;
                    false
                };
                if self.is("PRIMARY") || self.is("DEFAULT") || self.is("METADATA") {
                    let written = self.next.written.clone();
                    return Err(self.unsupported(&written));
                }
                columns.push((column, ColumnType { data_type, not_null }));
            }
            if !self.taken(",")? {
                break;
            }
        }
        self.expect(")", &format!("`,` or `)` for the bracket at position {bracket}"))?;
        Ok((columns, watermark))
    }

    /// `WITH (key = value, …)`, if it comes next.
    fn settings(&mut self) -> Result<Vec<Setting>, Fault> {
        let mut settings = vec![];
        if !self.has("WITH")? {
            return Ok(settings);
        }
        self.expect("(", "`(` and options")?;
        loop {
            let key = match &self.next.token {
                Token::Text(text) => {
                    let name = Name { text: text.clone(), at: self.next.at };
                    self.advance()?;
                    name
                }
                Token::Word(_) | Token::Quoted(_) => {
                    let mut name = self.name("the name of an option")?;
                    while self.taken(".")? {
                        name.text = format!("{}.{}", name.text, self.name("the rest of the name")?.text);
                    }
                    name
                }
                _ => return Err(self.unexpected("the name of an option")),
            };
            self.expect("=", "`=` and a value")?;
            let value = self.expression(power::UNARY)?;
            let is_plain = |value: &Expr| {
                matches!(value.kind, Kind::Text(_) | Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) | Kind::Parameter(_))
            };
            let is_known = match &value.kind {
                Kind::Interval(_) | Kind::Timestamp(_) => true,
                Kind::List(list) => list.iter().all(is_plain),
                _ => is_plain(&value),
            };
            if !is_known {
                return Err(Fault::new(
                    value.at,
                    format!(
                        "found `{value}`, expected a text in quotes, a number, TRUE, FALSE, an interval or a list of them"
                    ),
                ));
            }
            settings.push(Setting { key, value });
            if !self.taken(",")? {
                break;
            }
        }
        self.expect(")", "`,` or `)` after an option")?;
        Ok(settings)
    }

    /// `WATERMARK FOR column AS column - INTERVAL …`.
    fn watermark(&mut self) -> Result<(Name, i64), Fault> {
        self.advance()?;
        self.keyword("FOR")?;
        let column = self.name("the name of a column")?;
        self.keyword("AS")?;
        let same = self.name("the same column")?;
        if same != column {
            return Err(Fault::new(same.at, format!("found `{}`, expected `{}`", same.text, column.text)));
        }
        let mut delay = 0;
        if self.taken("-")? {
            let at = self.next.at;
            delay = self.interval()?;
            if delay < 0 {
                return Err(Fault::new(at, "this delay is negative"));
            }
        }
        Ok((column, delay))
    }

    fn no_condition(&mut self) -> Result<(), Fault> {
        if self.is("IF") {
            return Err(self.unsupported("`IF NOT EXISTS`"));
        }
        Ok(())
    }

    fn data_type(&mut self) -> Result<DataType, Fault> {
        let Spanned { token, at, written } = self.advance()?;
        let Token::Word(word) = &token else { return Err(Fault::new(at, format!("found {written}, expected a type"))) };
        let number = |of: &mut Self, what: &str| -> Result<u32, Fault> {
            of.expect("(", &format!("`(` and {what}"))?;
            let found = of.advance()?;
            let Token::Int(number) = found.token else {
                return Err(Fault::new(found.at, format!("found {}, expected {what}", found.written)));
            };
            of.expect(")", "`)`")?;
            u32::try_from(number).map_err(|_| out_of_range(&number.to_string(), found.at))
        };
        Ok(match &*word.to_ascii_uppercase() {
            "BOOLEAN" | "BOOL" => DataType::Bool,
            "TINYINT" => DataType::Int8,
            "SMALLINT" => DataType::Int16,
            "INT" | "INTEGER" => DataType::Int32,
            "BIGINT" => DataType::Int64,
            "REAL" | "FLOAT" => DataType::Float,
            "DOUBLE" => {
                self.has("PRECISION")?;
                DataType::Double
            }
            "TIMESTAMP" | "TIMESTAMP_LTZ" | "TIMESTAMPTZ" => {
                // All instants are kept to the microsecond, whatever is asked for.
                if self.sees("(") {
                    number(self, "a precision")?;
                }
                for kind in ["WITH", "WITHOUT"] {
                    if self.is(kind) {
                        self.advance()?;
                        self.keyword("TIME")?;
                        self.keyword("ZONE")?;
                        break;
                    }
                }
                DataType::Timestamp
            }
            "VARCHAR" if self.sees("(") => {
                let length = number(self, "a length in bytes")?;
                if !(1..=65_535).contains(&length) {
                    return Err(Fault::new(at, format!("found a length of {length}, expected 1 to 65535")));
                }
                DataType::Varchar { max_length: length }
            }
            "VARCHAR" | "STRING" | "TEXT" => DataType::Varchar { max_length: 65_535 },
            "JSON" | "JSONB" => DataType::Json,
            "VECTOR" => {
                let dim = number(self, "a dimension")?;
                if !(1..=32_768).contains(&dim) {
                    return Err(Fault::new(at, format!("found a dimension of {dim}, expected 1 to 32768")));
                }
                DataType::FloatVector { dim }
            }
            _ => return Err(Fault::unsupported(at, &format!("the type {written}"))),
        })
    }

    /// A query, from `SELECT`.
    fn query(&mut self) -> Result<Query, Fault> {
        self.deeper()?;
        if self.is("WITH") {
            return Err(self.unsupported("`WITH`"));
        }
        self.keyword("SELECT")?;
        let distinct = self.has("DISTINCT")?;
        if self.is("ON") {
            return Err(self.unsupported("`DISTINCT ON`"));
        }
        if !distinct {
            self.has("ALL")?;
        }
        let mut items = vec![];
        loop {
            items.push(self.item()?);
            if !self.taken(",")? {
                break;
            }
        }
        if !self.has("FROM")? {
            return Err(self.unexpected("`,` or `FROM`"));
        }
        let from = self.sources()?;
        let filter = if self.has("WHERE")? { Some(self.expression(0)?) } else { None };
        let mut groups = vec![];
        if self.has("GROUP")? {
            self.keyword("BY")?;
            loop {
                for word in ["ROLLUP", "CUBE", "GROUPING"] {
                    if self.is(word) {
                        return Err(self.unsupported(&format!("`{word}`")));
                    }
                }
                groups.push(self.expression(0)?);
                if !self.taken(",")? {
                    break;
                }
            }
        }
        let having = if self.has("HAVING")? { Some(self.expression(0)?) } else { None };
        if self.is("WINDOW") || self.is("QUALIFY") {
            let written = self.next.written.clone();
            return Err(self.unsupported(&written));
        }
        let mut order = vec![];
        if self.has("ORDER")? {
            self.keyword("BY")?;
            loop {
                let by = self.expression(0)?;
                let descending = self.has("DESC")? || {
                    self.has("ASC")?;
                    false
                };
                if self.is("NULLS") {
                    return Err(self.unsupported("`NULLS FIRST` and `NULLS LAST`"));
                }
                order.push(Order { by, descending });
                if !self.taken(",")? {
                    break;
                }
            }
        }
        let limit = if self.has("LIMIT")? { Some(self.count()?) } else { None };
        for word in ["OFFSET", "FETCH", "UNION", "INTERSECT", "EXCEPT", "FOR"] {
            if self.is(word) {
                return Err(self.unsupported(&format!("`{word}`")));
            }
        }
        let emit = if self.has("EMIT")? { Some(self.emit()?) } else { None };
        self.depth -= 1;
        Ok(Query { distinct, items, from, filter, groups, having, order, limit, emit })
    }

    fn emit(&mut self) -> Result<Emit, Fault> {
        if self.has("CHANGES")? {
            return Ok(Emit::Changes);
        }
        if self.has("ON")? {
            self.keyword("WINDOW")?;
            self.keyword("CLOSE")?;
            return Ok(Emit::OnWindowClose);
        }
        Err(self.unexpected("`ON WINDOW CLOSE` or `CHANGES` after `EMIT`"))
    }

    fn item(&mut self) -> Result<Item, Fault> {
        if self.taken("*")? {
            return Ok(Item::All(None));
        }
        // `name.*`: the parser of expressions knows no star after a dot.
        if self.is_name() {
            let mut ahead = self.lexer.clone();
            if ahead.next()?.token == Token::Sign(".") && ahead.next()?.token == Token::Sign("*") {
                let name = self.name("a name")?;
                self.advance()?;
                self.advance()?;
                return Ok(Item::All(Some(name)));
            }
        }
        let value = self.expression(0)?;
        Ok(Item::One(value, self.alias()?))
    }

    /// `AS name`, or a name alone.
    fn alias(&mut self) -> Result<Option<Name>, Fault> {
        if self.has("AS")? {
            return self.name("a name after `AS`").map(Some);
        }
        if self.is_name() { self.name("a name").map(Some) } else { Ok(None) }
    }

    /// What follows `FROM`.
    fn sources(&mut self) -> Result<Source, Fault> {
        let mut left = self.source()?;
        let mut joins = 0;
        loop {
            let at = self.next.at;
            let mut outer = false;
            let mut with_condition = true;
            if self.taken(",")? {
                with_condition = false;
            } else if self.has("CROSS")? {
                self.keyword("JOIN")?;
                with_condition = false;
            } else if self.has("LEFT")? {
                self.has("OUTER")?;
                self.keyword("JOIN")?;
                outer = true;
            } else if self.has("INNER")? {
                self.keyword("JOIN")?;
            } else if !self.has("JOIN")? {
                for word in ["RIGHT", "FULL", "NATURAL"] {
                    if self.is(word) {
                        return Err(self.unsupported(&format!("`{word} JOIN`")));
                    }
                }
                return Ok(left);
            }
            joins += 1;
            if joins > JOINS_MAX {
                return Err(Fault::new(at, format!("these are more than {JOINS_MAX} joins")));
            }
            let right = self.source()?;
            if self.is("USING") {
                return Err(self.unsupported("`USING`"));
            }
            let is_nearest = matches!(right, Source::Nearest { .. });
            let on = if with_condition && (!is_nearest || self.is("ON")) {
                self.keyword("ON")?;
                Some(Box::new(self.expression(0)?))
            } else {
                None
            };
            left = Source::Join { left: Box::new(left), right: Box::new(right), outer, on };
        }
    }

    fn source(&mut self) -> Result<Source, Fault> {
        self.deeper()?;
        let source = self.source_inside()?;
        self.depth -= 1;
        Ok(source)
    }

    fn source_inside(&mut self) -> Result<Source, Fault> {
        if self.sees("(") {
            let at = self.next.at;
            self.advance()?;
            if !self.is("SELECT") && !self.is("WITH") {
                return Err(Fault::unsupported(self.next.at, "a join in brackets"));
            }
            let query = Box::new(self.query()?);
            self.expect(")", &format!("`)` for the bracket at position {at}"))?;
            return Ok(Source::Query { query, alias: self.alias()? });
        }
        if self.is("LATERAL") || self.is("UNNEST") {
            let written = self.next.written.clone();
            return Err(self.unsupported(&written));
        }
        if self.has("TABLE")? {
            self.expect("(", "`(` and a window after `TABLE`")?;
            let mut source = self.function()?;
            self.expect(")", "`)` for the bracket after `TABLE`")?;
            let named = self.alias()?;
            if let Some(alias) = source.alias() {
                *alias = named;
            }
            return Ok(source);
        }
        let mut ahead = self.lexer.clone();
        if matches!(self.next.token, Token::Word(_)) && self.is_name() && ahead.next()?.token == Token::Sign("(") {
            let mut source = self.function()?;
            let named = self.alias()?;
            if let Some(alias) = source.alias() {
                *alias = named;
            }
            return Ok(source);
        }
        let name = self.name("the name of a stream or a collection, a window or a query in brackets")?;
        if self.sees(".") {
            return Err(self.unsupported("a name with a catalog or a schema"));
        }
        if self.is("FOR") {
            return Err(self.unsupported("`FOR SYSTEM_TIME AS OF`"));
        }
        Ok(Source::Named { name, alias: self.alias()? })
    }

    /// `TUMBLE(…)` and its like, or `nearest(…)`.
    fn function(&mut self) -> Result<Source, Fault> {
        let Spanned { token, at, written } = self.advance()?;
        let Token::Word(word) = token else {
            return Err(Fault::new(at, format!("found {written}, expected a window")));
        };
        let word = word.to_ascii_uppercase();
        if word == "NEAREST" {
            self.expect("(", "`(` and a collection, a vector and how many")?;
            let collection = self.name("the name of a collection")?;
            self.expect(",", "`,` and a vector")?;
            let vector = Box::new(self.expression(0)?);
            self.expect(",", "`,` and how many")?;
            let limit = self.count()?;
            self.expect(")", "`)`")?;
            return Ok(Source::Nearest { collection, vector, limit, alias: None });
        }
        if !["TUMBLE", "HOP", "CUMULATE", "SESSION", "DEDUPE"].contains(&&*word) {
            let what = if ["SLIDE", "STEP", "GENERATE_SERIES", "UNNEST", "JSON_TABLE"].contains(&&*word) {
                return Err(Fault::unsupported(at, &written));
            } else {
                "`TUMBLE`, `HOP`, `CUMULATE`, `SESSION`, `DEDUPE` or `nearest`"
            };
            return Err(Fault::new(at, format!("found {written}, which is no table function: expected {what}")));
        }
        self.expect("(", "`(` and a table")?;
        self.has("TABLE")?;
        let of = if self.sees("(") {
            self.source()?
        } else {
            Source::Named { name: self.name("the name of a stream")?, alias: None }
        };
        if let Source::Query { alias: Some(alias), .. } = &of {
            return Err(Fault::new(alias.at, format!("found `{}`, expected `,`", alias.text)));
        }
        if word == "DEDUPE" {
            return self.dedupe(of);
        }
        if self.is("PARTITION") {
            return Err(self.unsupported("`PARTITION BY` in a window: the columns of `GROUP BY` part sessions"));
        }
        self.expect(",", "`,` and `DESCRIPTOR(column)`")?;
        let (time, zone) = self.clock()?;
        let mut spans = vec![];
        while self.taken(",")? {
            let at = self.next.at;
            spans.push((self.interval()?, at));
        }
        let close = self.next.at;
        self.expect(")", "`,` and an interval, or `)`")?;
        let window = window(&word, &spans, close)?;
        if let (Window::Session { .. }, Some((_, at))) = (window, &zone) {
            return Err(Fault::new(*at, "a session ends after a gap, by no clock: expected no time zone"));
        }
        let zone = zone.map(|(zone, _)| zone);
        Ok(Source::Window { window, of: Box::new(of), time: Box::new(time), zone, alias: None })
    }

    /// `DESCRIPTOR(column AT TIME ZONE 'Europe/Berlin')`: the column, and by whose clocks, with the place of that name.
    fn clock(&mut self) -> Result<(Expr, Option<(ZoneName, usize)>), Fault> {
        let bracket = self.has("DESCRIPTOR")?;
        if bracket {
            self.expect("(", "`(` and a column")?;
        }
        let column = self.expression(0)?;
        let mut zone = None;
        if self.has("AT")? {
            self.keyword("TIME")?;
            self.keyword("ZONE")?;
            let at = self.next.at;
            let Token::Text(text) = &self.next.token else {
                return Err(self.unexpected("'Europe/Berlin' or its like"));
            };
            zone = Some((ZoneName::new(text).map_err(|error| Fault::new(at, error.message().to_owned()))?, at));
            self.advance()?;
        }
        if bracket {
            self.expect(")", "`)`")?;
        }
        Ok((column, zone))
    }

    /// `DESCRIPTOR(column)`, or the column alone.
    fn descriptor(&mut self) -> Result<Expr, Fault> {
        if !self.is("DESCRIPTOR") {
            return self.expression(0);
        }
        self.advance()?;
        self.expect("(", "`(` and a column")?;
        let column = self.expression(0)?;
        self.expect(")", "`)`")?;
        Ok(column)
    }

    /// What follows the table of `DEDUPE`.
    fn dedupe(&mut self, of: Source) -> Result<Source, Fault> {
        let mut keys = vec![];
        if self.has("PARTITION")? {
            self.keyword("BY")?;
            loop {
                keys.push(self.expression(0)?);
                // A comma may be followed by the vector as well, which must be named by its word then.
                let is_vector = |token| matches!(token, Token::Word(word) if word.eq_ignore_ascii_case("DESCRIPTOR"));
                if !self.sees(",") || is_vector(self.lexer.clone().next()?.token) {
                    break;
                }
                self.advance()?;
            }
        }
        self.expect(",", "`,` and `DESCRIPTOR(vector)`")?;
        let vector = Box::new(self.descriptor()?);
        self.expect(",", "`,` and how far apart rows are that are the same")?;
        let radius = match self.next.token {
            Token::Float(number) => number,
            Token::Int(number) => number as f64,
            _ => return Err(self.unexpected("a distance")),
        };
        self.advance()?;
        self.expect(",", "`,` and an interval")?;
        let at = self.next.at;
        let within = self.interval()?;
        if within <= 0 {
            return Err(Fault::new(at, "this interval is not positive"));
        }
        let mut metric = Nearness::Cosine;
        if self.taken(",")? {
            metric = match &self.next.token {
                Token::Text(text) if text == "cosine" => Nearness::Cosine,
                Token::Text(text) if text == "l2" => Nearness::L2,
                _ => return Err(self.unexpected("'cosine' or 'l2'")),
            };
            self.advance()?;
        }
        self.expect(")", "`)`")?;
        Ok(Source::Dedupe { of: Box::new(of), keys, vector, radius, within, metric, alias: None })
    }

    /// A number that is not negative.
    fn count(&mut self) -> Result<u64, Fault> {
        match self.next.token {
            Token::Int(count) if i64::try_from(count).is_ok() => {
                self.advance()?;
                Ok(count)
            }
            _ => Err(self.unexpected("a whole number")),
        }
    }

    /// `INTERVAL '10' SECOND`, in microseconds.
    fn interval(&mut self) -> Result<i64, Fault> {
        self.keyword("INTERVAL")?;
        self.interval_text()
    }

    /// The same, from its text.
    fn interval_text(&mut self) -> Result<i64, Fault> {
        let Spanned { token, at, written } = self.advance()?;
        let Token::Text(text) = token else {
            return Err(Fault::new(at, format!("found {written}, expected a number in quotes")));
        };
        let unit = match &self.next.token {
            Token::Word(word) if time::unit(word).is_some() => Some(word.clone()),
            Token::Word(word)
                if ["YEAR", "YEARS", "MONTH", "MONTHS", "QUARTER"].contains(&&*word.to_ascii_uppercase()) =>
            {
                return Err(self.unsupported("an interval of months, whose length differs,"));
            }
            _ => None,
        };
        if unit.is_some() {
            self.advance()?;
            if self.is("TO") || self.sees("(") {
                return Err(self.unsupported("an interval of several units"));
            }
        }
        time::interval(&text, unit.as_deref()).ok_or_else(|| {
            Fault::new(at, format!("found {written}, expected a number of days, hours, minutes or seconds, such as `INTERVAL '10' SECOND`"))
        })
    }

    /// A value whose operators all bind at least as tight as `power_min`.
    fn expression(&mut self, power_min: u8) -> Result<Expr, Fault> {
        self.deeper()?;
        let mut left = self.prefix(power_min)?;
        // Comparisons do not follow one another.
        let mut compared = false;
        loop {
            let at = left.at;
            let sign = self.next.clone();
            let (any, logic) = (self.is("OR"), if self.is("OR") { power::OR } else { power::AND });
            if any || self.is("AND") {
                if logic < power_min {
                    break;
                }
                let mut terms = vec![left];
                while self.is(if any { "OR" } else { "AND" }) {
                    self.advance()?;
                    terms.push(self.expression(logic + 1)?);
                }
                left = node(at, Kind::Logic { any, terms })?;
                continue;
            }
            let operator = match sign.token {
                Token::Sign("=" | "==") => Operator::Eq,
                Token::Sign("<>" | "!=") => Operator::Ne,
                Token::Sign("<") => Operator::Lt,
                Token::Sign("<=") => Operator::Le,
                Token::Sign(">") => Operator::Gt,
                Token::Sign(">=") => Operator::Ge,
                Token::Sign("+") => Operator::Add,
                Token::Sign("-") => Operator::Sub,
                Token::Sign("*") => Operator::Mul,
                Token::Sign("/") => Operator::Div,
                Token::Sign("%") => Operator::Rem,
                Token::Sign("||") => Operator::Concat,
                Token::Sign("::" | "[") => return Err(self.unsupported(&sign.written)),
                Token::Word(_) if power::COMPARISON >= power_min && !compared => match self.condition(left)? {
                    Ok(whole) => {
                        compared = true;
                        left = whole;
                        continue;
                    }
                    Err(unchanged) => {
                        left = unchanged;
                        break;
                    }
                },
                _ => break,
            };
            if operator.power() < power_min {
                break;
            }
            if operator.power() == power::COMPARISON && std::mem::replace(&mut compared, true) {
                return Err(self.unexpected("`AND` between two comparisons"));
            }
            self.advance()?;
            let right = self.expression(operator.power() + 1)?;
            left = node(at, Kind::Binary { operator, left: Box::new(left), right: Box::new(right) })?;
        }
        self.depth -= 1;
        Ok(left)
    }

    /// `left` with `IS NULL`, `IN`, `LIKE` or `BETWEEN`, or `left` again when something else follows.
    fn condition(&mut self, left: Expr) -> Result<Result<Expr, Expr>, Fault> {
        let at = left.at;
        if self.has("IS")? {
            let not = self.has("NOT")?;
            if !self.is("NULL") {
                return Err(self.unsupported("`IS` with anything but `NULL`"));
            }
            self.advance()?;
            return node(at, Kind::IsNull { value: Box::new(left), not }).map(Ok);
        }
        let not = self.is("NOT");
        if not {
            self.advance()?;
        }
        let value = Box::new(left);
        let operand = power::COMPARISON + 1;
        if self.has("IN")? {
            let bracket = self.next.at;
            self.expect("(", "`(` and a list after `IN`")?;
            let list = self.arguments(bracket)?;
            if list.is_empty() {
                return Err(Fault::new(bracket, "this list is empty"));
            }
            return node(at, Kind::In { value, list, not }).map(Ok);
        }
        if self.has("BETWEEN")? {
            if self.is("SYMMETRIC") {
                return Err(self.unsupported("`SYMMETRIC`"));
            }
            let low = Box::new(self.expression(operand)?);
            self.keyword("AND")?;
            let high = Box::new(self.expression(operand)?);
            return node(at, Kind::Between { value, low, high, not }).map(Ok);
        }
        if self.has("LIKE")? {
            let pattern = Box::new(self.expression(operand)?);
            if self.is("ESCAPE") {
                return Err(self.unsupported("`ESCAPE`"));
            }
            return node(at, Kind::Like { value, pattern, not }).map(Ok);
        }
        for word in ["ILIKE", "SIMILAR", "RLIKE", "REGEXP"] {
            if self.is(word) {
                return Err(self.unsupported(&format!("`{word}`")));
            }
        }
        if not {
            return Err(self.unexpected("`IN`, `LIKE` or `BETWEEN` after `NOT`"));
        }
        Ok(Err(*value))
    }

    fn prefix(&mut self, power_min: u8) -> Result<Expr, Fault> {
        let at = self.next.at;
        if self.is("NOT") {
            if power_min > power::NOT {
                return Err(self.unexpected("a value: `NOT` here needs brackets"));
            }
            self.advance()?;
            let value = self.expression(power::NOT)?;
            return node(at, Kind::Not(Box::new(value)));
        }
        if self.taken("+")? {
            return self.expression(power::UNARY);
        }
        if !self.taken("-")? {
            return self.atom();
        }
        match self.next.token {
            Token::Int(number) => {
                let written = self.advance()?.written;
                match 0i64.checked_sub_unsigned(number) {
                    Some(number) => node(at, Kind::Int(number)),
                    None => Err(out_of_range(written.trim_matches('`'), at)),
                }
            }
            Token::Float(number) => {
                self.advance()?;
                node(at, Kind::Float(-number))
            }
            _ => {
                let value = self.expression(power::UNARY)?;
                node(at, Kind::Negative(Box::new(value)))
            }
        }
    }

    fn atom(&mut self) -> Result<Expr, Fault> {
        let at = self.next.at;
        if self.is("CASE") {
            return self.case();
        }
        if self.is("EXISTS") || self.is("SELECT") {
            return Err(self.unsupported("a sub-select in an expression"));
        }
        let Spanned { token, written, .. } = self.advance()?;
        match token {
            Token::Int(number) => match i64::try_from(number) {
                Ok(number) => node(at, Kind::Int(number)),
                Err(_) => Err(out_of_range(written.trim_matches('`'), at)),
            },
            Token::Float(number) => node(at, Kind::Float(number)),
            Token::Text(text) => node(at, Kind::Text(text)),
            Token::Sign("(") => {
                if self.is("SELECT") {
                    return Err(self.unsupported("a sub-select in an expression"));
                }
                let value = self.expression(0)?;
                if self.sees(",") {
                    return Err(self.unsupported("a row of several values"));
                }
                self.expect(")", &format!("`)` for the bracket at position {at}"))?;
                // Its place is where the bracket is: no operator binds through it.
                Ok(Expr { at, ..value })
            }
            Token::Sign("[") => {
                let mut list = vec![];
                if !self.sees("]") {
                    loop {
                        list.push(self.expression(0)?);
                        if !self.taken(",")? {
                            break;
                        }
                    }
                }
                self.expect("]", &format!("`,` or `]` for the bracket at position {at}"))?;
                node(at, Kind::List(list))
            }
            Token::Sign("{") => {
                let Spanned { token, at: name_at, written } = self.advance()?;
                let Token::Word(name) = token else {
                    return Err(Fault::new(name_at, format!("found {written}, expected the name of a parameter")));
                };
                self.expect("}", "`}`")?;
                node(at, Kind::Parameter(name))
            }
            Token::Word(word) if word.eq_ignore_ascii_case("NULL") => node(at, Kind::Null),
            Token::Word(word) if word.eq_ignore_ascii_case("TRUE") => node(at, Kind::Bool(true)),
            Token::Word(word) if word.eq_ignore_ascii_case("FALSE") => node(at, Kind::Bool(false)),
            Token::Word(word) if is_reserved(&word) => Err(Fault::new(
                at,
                format!("found {written}, expected a value: a column of this name is written in double quotes"),
            )),
            Token::Word(word) if self.sees("(") => self.call(&word, at),
            Token::Word(word) if matches!(self.next.token, Token::Text(_)) => self.literal(&word, at),
            Token::Word(name) | Token::Quoted(name) => {
                if !self.taken(".")? {
                    return node(at, Kind::Column { of: None, name });
                }
                let column = self.name("the name of a column")?.text;
                if self.sees(".") {
                    return Err(self.unsupported("a name of more than two parts"));
                }
                node(at, Kind::Column { of: Some(name), name: column })
            }
            _ => Err(Fault::new(at, format!("found {written}, expected a value"))),
        }
    }

    /// `INTERVAL '…'` or `TIMESTAMP '…'`, from its text.
    fn literal(&mut self, word: &str, at: usize) -> Result<Expr, Fault> {
        match &*word.to_ascii_uppercase() {
            "INTERVAL" => {
                let interval = self.interval_text()?;
                node(at, Kind::Interval(interval))
            }
            "TIMESTAMP" => {
                let Spanned { token, at: text_at, written } = self.advance()?;
                let Token::Text(text) = token else {
                    return Err(Fault::new(text_at, format!("found {written}, expected an instant")));
                };
                match time::instant(&text) {
                    Some(micros) => node(at, Kind::Timestamp(micros)),
                    None => Err(Fault::new(
                        text_at,
                        format!("found {written}, expected an instant such as `2024-05-01 12:30:00`"),
                    )),
                }
            }
            "DATE" | "TIME" => Err(Fault::unsupported(at, &format!("`{word} '…'`"))),
            _ => Err(self.unexpected("an operator or the end")),
        }
    }

    /// A function, from its bracket.
    fn call(&mut self, word: &str, at: usize) -> Result<Expr, Fault> {
        let bracket = self.advance()?.at;
        let name = word.to_ascii_lowercase();
        if name == "cast" {
            let value = Box::new(self.expression(0)?);
            self.keyword("AS")?;
            let to = self.data_type()?;
            self.expect(")", &format!("`)` for the bracket at position {bracket}"))?;
            return node(at, Kind::Cast { value, to });
        }
        if ["extract", "position", "overlay", "try_cast"].contains(&&*name) {
            return Err(Fault::unsupported(at, &format!("`{word}`")));
        }
        let kind = if self.taken("*")? {
            self.expect(")", "`)`")?;
            if name != "count" {
                return Err(Fault::new(at, format!("found `{word}(*)`, expected `count(*)`")));
            }
            Kind::CountAll
        } else {
            let distinct = self.has("DISTINCT")?;
            let arguments = self.arguments(bracket)?;
            Kind::Call { name, distinct, arguments }
        };
        for word in ["OVER", "FILTER", "WITHIN", "RESPECT", "IGNORE"] {
            if self.is(word) && (word == "OVER" || self.followed_by_bracket_or_word()?) {
                return Err(self.unsupported(&format!("`{word}` after a function")));
            }
        }
        node(at, kind)
    }

    /// Whether `FILTER (` or `WITHIN GROUP` is what follows, and not an alias.
    fn followed_by_bracket_or_word(&self) -> Result<bool, Fault> {
        let next = self.lexer.clone().next()?;
        Ok(match next.token {
            Token::Sign("(") => true,
            Token::Word(word) => ["GROUP", "NULLS"].contains(&&*word.to_ascii_uppercase()),
            _ => false,
        })
    }

    /// Values between commas, up to `)`.
    fn arguments(&mut self, bracket: usize) -> Result<Vec<Expr>, Fault> {
        let mut values = vec![];
        if !self.sees(")") {
            loop {
                values.push(self.expression(0)?);
                if !self.taken(",")? {
                    break;
                }
            }
        }
        self.expect(")", &format!("`,` or `)` for the bracket at position {bracket}"))?;
        Ok(values)
    }

    fn case(&mut self) -> Result<Expr, Fault> {
        let at = self.advance()?.at;
        let of = if self.is("WHEN") { None } else { Some(Box::new(self.expression(0)?)) };
        let mut branches = vec![];
        while self.has("WHEN")? {
            let when = self.expression(0)?;
            self.keyword("THEN")?;
            branches.push((when, self.expression(0)?));
        }
        if branches.is_empty() {
            return Err(self.unexpected("`WHEN`"));
        }
        let otherwise = if self.has("ELSE")? { Some(Box::new(self.expression(0)?)) } else { None };
        self.keyword("END")?;
        node(at, Kind::Case { of, branches, otherwise })
    }

    /// One level further inside.
    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(too_deep(self.next.at)) } else { Ok(()) }
    }

    fn is_name(&self) -> bool {
        match &self.next.token {
            Token::Quoted(_) => true,
            Token::Word(word) => !is_reserved(word),
            _ => false,
        }
    }

    fn name(&mut self, expected: &str) -> Result<Name, Fault> {
        if !self.is_name() {
            return Err(self.unexpected(expected));
        }
        let Spanned { token, at, .. } = self.advance()?;
        match token {
            Token::Word(text) | Token::Quoted(text) => Ok(Name { text, at }),
            _ => unreachable!("a name comes next"),
        }
    }

    /// Whether the keyword `word` comes next.
    fn is(&self, word: &str) -> bool {
        matches!(&self.next.token, Token::Word(next) if next.eq_ignore_ascii_case(word))
    }

    /// The same, and takes it.
    fn has(&mut self, word: &str) -> Result<bool, Fault> {
        let is = self.is(word);
        if is {
            self.advance()?;
        }
        Ok(is)
    }

    fn keyword(&mut self, word: &str) -> Result<(), Fault> {
        if self.has(word)? { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"))) }
    }

    fn sees(&self, sign: &'static str) -> bool {
        self.next.token == Token::Sign(sign)
    }

    fn taken(&mut self, sign: &'static str) -> Result<bool, Fault> {
        let sees = self.sees(sign);
        if sees {
            self.advance()?;
        }
        Ok(sees)
    }

    fn expect(&mut self, sign: &'static str, expected: &str) -> Result<(), Fault> {
        if self.taken(sign)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn advance(&mut self) -> Result<Spanned, Fault> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn unexpected(&self, expected: &str) -> Fault {
        Fault::new(self.next.at, format!("found {}, expected {expected}", self.next.written))
    }

    /// `what`, which comes next.
    fn unsupported(&self, what: &str) -> Fault {
        Fault::unsupported(self.next.at, what)
    }
}

fn too_deep(at: usize) -> Fault {
    Fault::new(at, format!("the text is nested too deeply here: more than {DEPTH_MAX} levels"))
}

fn node(at: usize, kind: Kind) -> Result<Expr, Fault> {
    let expr = Expr::new(at, kind);
    if expr.depth > DEPTH_MAX { Err(too_deep(at)) } else { Ok(expr) }
}

/// The window of the function `word`, from its intervals and where they stand; `close` is where its bracket ends.
fn window(word: &str, spans: &[(i64, usize)], close: usize) -> Result<Window, Fault> {
    let needed = if matches!(word, "HOP" | "CUMULATE") { 2 } else { 1 };
    let most = if word == "SESSION" { 1 } else { needed + 1 };
    if spans.len() < needed {
        return Err(Fault::new(close, format!("found {} intervals, expected {needed} of `{word}`", spans.len())));
    }
    if let Some((_, at)) = spans.get(most) {
        return Err(Fault::new(*at, format!("found a further interval, expected at most {most} of `{word}`")));
    }
    if let Some((_, at)) = spans[..needed].iter().find(|(span, _)| *span <= 0) {
        return Err(Fault::new(*at, "this interval is not positive"));
    }
    let offset = spans.get(needed).map_or(0, |(offset, _)| *offset);
    let size = spans[needed - 1].0;
    let window = match word {
        "TUMBLE" => Window::Tumble { size, offset },
        "HOP" => Window::Hop { slide: spans[0].0, size, offset },
        "CUMULATE" => Window::Cumulate { step: spans[0].0, size, offset },
        _ => Window::Session { gap: size },
    };
    if let Window::Cumulate { step, size, .. } = window
        && size % step != 0
    {
        return Err(Fault::new(spans[1].1, "this interval is no multiple of the one before"));
    }
    Ok(window)
}
