//! From statements to a plan: names are found, windows, keys and join conditions are told apart from plain values.

use std::collections::{BTreeMap, BTreeSet};

use super::aggregates::{self, Called};
use super::ast::{
    Declaration, Emit, Expr, Item, Kind, Name, Operator as Sign, Query, SinkRows, Source as From, Statement,
    Window as Span,
};
use super::settings::{self, SinkSettings};
use super::{Catalog, Compiled, Mode, Origin, Read, RunSettings, Table};
use crate::base::Error;
use crate::model::{DataType, Field, Value};
use crate::query::Parameters;
use crate::query::compute::{Expression, Function, canonical};
use crate::query::fault::{Fault, closest};
use crate::stream::{
    Aggregate, Dedupe, Join, JoinKind, JoinScope, Lookup, Nearest, Node, Operator, Output, Pace, Plan, Relation, Sink,
    Source, SourceField, Top, Trigger, WINDOW_END, WINDOW_START, Watermark, Window, WindowAggregate,
};

/// How far behind the rows of a stored collection time is: they come in any order, and windows close when all have come.
const UNORDERED: i64 = 400_000 * 86_400_000_000;

/// The last second of the year 9999.
const FOREVER: i64 = 253_402_300_799_000_000;

type Result<T, E = Fault> = std::result::Result<T, E>;

/// Rows under way: a node, and what the columns of SQL are of its fields. What a sub-select computes is computed where it is used.
#[derive(Clone)]
pub(super) struct Rows {
    node: String,
    columns: Vec<Column>,
    /// The field that is the event time, but for so many microseconds.
    time: Option<(String, i64)>,
    frame: Frame,
    /// The fields that tell its rows apart, when it is known.
    keys: Vec<String>,
    /// The collection that it is, whole.
    collection: Option<String>,
}

/// Whether rows have the bounds of a window.
#[derive(Clone, Copy, PartialEq)]
enum Frame {
    None,
    /// Named, not yet given.
    Pending {
        window: Window,
        processing_time: bool,
    },
    /// As fields. Whether one bound tells the other.
    Attached {
        either: bool,
    },
}

#[derive(Clone)]
struct Column {
    of: Option<String>,
    name: String,
    value: Meaning,
}

#[derive(Clone, PartialEq)]
enum Meaning {
    Is(Expression),
    /// `PROCTIME()`: known to windows only.
    Now,
}

/// A source that the text declares.
struct Declared {
    table: Table,
    origin: Option<Origin>,
}

/// What rows have become by `GROUP BY`.
struct Groups {
    /// Each value that rows were grouped by, and the field that has it.
    keys: Vec<(Expression, String)>,
    aggregates: Vec<(Called, String)>,
    /// The function in `GROUP BY` that made the windows.
    window: Option<(String, Vec<Expr>)>,
    windowed: bool,
}

/// Where the names of a value are looked up.
#[derive(Clone, Copy)]
struct Scope<'a> {
    rows: &'a Rows,
    /// The fields of the rows, against which types are checked.
    fields: Option<&'a [Field]>,
    groups: Option<&'a Groups>,
}

pub(super) struct Lowering<'a> {
    catalog: &'a Catalog,
    parameters: &'a Parameters,
    mode: Mode,
    plan: Plan,
    relations: Vec<Relation>,
    declared: BTreeMap<String, Declared>,
    views: BTreeMap<String, Rows>,
    /// Sinks that were declared, where, and whether something goes into them.
    sinks: BTreeMap<String, (SinkSettings, usize, bool)>,
    settings: RunSettings,
    /// The columns that the text names; `None` when it has a star.
    wanted: Option<BTreeSet<String>>,
    reads: Vec<Read>,
}

/// The plan of `statements`.
pub(super) fn lower(
    statements: &[Statement],
    catalog: &Catalog,
    parameters: &Parameters,
    mode: Mode,
) -> Result<Compiled> {
    let planned = |wanted| {
        let (declared, views, sinks) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (plan, relations, reads, settings) = (Plan::default(), vec![], vec![], RunSettings::default());
        Lowering { catalog, parameters, mode, plan, relations, declared, views, sinks, settings, wanted, reads }
            .all(statements)
    };
    // What is wrong is told beside all columns that there are, not those alone that the text names.
    planned(wanted(statements)).or_else(|_| planned(None))
}

impl Lowering<'_> {
    fn all(mut self, statements: &[Statement]) -> Result<Compiled> {
        let last = statements.len();
        for (index, statement) in statements.iter().enumerate() {
            if matches!(statement, Statement::Explain(_)) && index + 1 < last {
                return Err(Fault::new(0, "`EXPLAIN` stands before the last statement only"));
            }
            self.statement(statement)?;
        }
        self.finish(matches!(statements.last(), Some(Statement::Explain(_))))
    }

    fn statement(&mut self, statement: &Statement) -> Result<()> {
        match statement {
            Statement::Create(declaration) => self.declare(declaration),
            Statement::View { name, materialized, query } => {
                self.is_new(name)?;
                let rows = self.query(query, true)?;
                if *materialized {
                    let into = SinkSettings { collection: Some(name.text.clone()), ..SinkSettings::default() };
                    self.sink(rows.clone(), &name.text, into, name.at, query.emit)?;
                }
                self.views.insert(name.text.clone(), rows.renamed(&name.text));
                Ok(())
            }
            Statement::Insert { into, query } => {
                let rows = self.query(query, true)?;
                let settings = match self.sinks.get_mut(&into.text) {
                    Some((settings, _, is_fed)) => {
                        *is_fed = true;
                        settings.clone()
                    }
                    None => SinkSettings { collection: Some(into.text.clone()), ..SinkSettings::default() },
                };
                self.sink(rows, &into.text, settings, into.at, query.emit)
            }
            Statement::Sink { name, of, settings } => {
                self.is_new(name)?;
                let settings = settings::sink(settings, self.parameters, name)?;
                self.sinks.insert(name.text.clone(), (settings.clone(), name.at, of.is_some()));
                self.set_up(&settings)?;
                match of {
                    None => Ok(()),
                    Some(SinkRows::From(view)) => {
                        let rows = self.named(view)?.renamed(&view.text);
                        self.sink(rows, &name.text, settings, name.at, None)
                    }
                    Some(SinkRows::As(query)) => {
                        let rows = self.query(query, true)?;
                        self.sink(rows, &name.text, settings, name.at, query.emit)
                    }
                }
            }
            Statement::Select(query) => {
                let rows = self.query(query, true)?;
                self.sink(rows, "output", SinkSettings::default(), 0, query.emit)
            }
            Statement::Explain(inner) => self.statement(inner),
        }
    }

    fn is_new(&self, name: &Name) -> Result<()> {
        let of = &name.text;
        if self.views.contains_key(of) || self.declared.contains_key(of) || self.sinks.contains_key(of) {
            return Err(Fault::new(name.at, format!("`{}` is there already", name.text)));
        }
        Ok(())
    }

    fn declare(&mut self, declaration: &Declaration) -> Result<()> {
        let Declaration { name, columns, watermark, settings } = declaration;
        self.is_new(name)?;
        let told = settings::source(settings, self.parameters, name)?;
        let mut table = Table::default();
        for (column, kind) in columns {
            let data_type = canonical(kind.data_type).unwrap_or(kind.data_type);
            let field = SourceField::new(&column.text, data_type);
            table.fields.push(if kind.not_null { field } else { field.nullable() });
        }
        let known = self.origin_table(name, told.origin.as_ref());
        if columns.is_empty() {
            let Some(known) = known else {
                let message =
                    format!("the columns of `{}` are known to nobody: expected `(` and the columns", name.text);
                return Err(Fault::new(name.at, message));
            };
            table.fields.clone_from(&known.fields);
        }
        if let Some(at) = told.changes {
            let Some(key) = known.and_then(|known| known.key.as_ref()) else {
                return Err(Fault::new(at, "the changes of a collection that is not there"));
            };
            if !table.fields.iter().any(|field| field.name == *key) {
                return Err(Fault::new(
                    at,
                    format!("rows that are taken back have their key, `{key}`, among the columns"),
                ));
            }
            table.key = Some(key.clone());
        }
        if let Some(commit) = told.origin.as_ref().and_then(|origin| origin.commit_time.as_ref())
            && !table.fields.iter().any(|field| field.name == *commit)
        {
            table.fields.push(SourceField::new(commit, DataType::Timestamp));
        }
        if let Some((column, delay)) = watermark {
            let names: Vec<&str> = table.fields.iter().map(|field| &*field.name).collect();
            let Some(field) = table.fields.iter().find(|field| field.name == column.text) else {
                return Err(unknown(column.at, &column.text, names.into_iter()));
            };
            if field.type_name != DataType::Timestamp.name() {
                return Err(Fault::new(
                    column.at,
                    format!("`{}` is {}, expected TIMESTAMP", column.text, field.type_name),
                ));
            }
            table.time = Some(column.text.clone());
            table.watermark.delay = *delay;
        }
        table.watermark.idle = told.idle;
        self.declared.insert(name.text.clone(), Declared { table, origin: told.origin });
        Ok(())
    }

    /// What is known of the rows that a source names; of those of its own name when it names none.
    fn origin_table(&self, name: &Name, origin: Option<&Origin>) -> Option<&Table> {
        let Some(origin) = origin else { return self.catalog.tables.get(&name.text) };
        let stream = || origin.options.get("stream").and_then(|stream| stream.as_str());
        let found = self.catalog.tables.get(origin.collection.as_deref().or_else(stream)?)?;
        (found.key.is_some() == origin.collection.is_some()).then_some(found)
    }

    /// What a sink says of the pipeline that it is a part of.
    fn set_up(&mut self, sink: &SinkSettings) -> Result<()> {
        let twice =
            |at, what: &str| Err(Fault::new(at, format!("a pipeline has one {what}, and another sink names another")));
        if let Some((letters, at)) = &sink.dead_letters {
            if self.settings.dead_letters.as_ref().is_some_and(|other| other != letters) {
                return twice(*at, "collection for dead letters");
            }
            self.settings.dead_letters = Some(letters.clone());
        }
        if let Some((rows, at)) = sink.keep_rows {
            if self.settings.keep_rows.is_some_and(|other| other != rows) {
                return twice(at, "number of rows that sinks keep");
            }
            self.settings.keep_rows = Some(rows);
        }
        Ok(())
    }

    /// Adds a node, unless there is one like it; tells its name.
    fn push(&mut self, name: &str, inputs: &[&str], operator: Operator, at: usize) -> Result<String> {
        let inputs: Vec<String> = inputs.iter().map(|input| (*input).to_owned()).collect();
        if !matches!(operator, Operator::Sink(_))
            && let Some(same) = self.plan.nodes.iter().find(|node| node.inputs == inputs && node.operator == operator)
        {
            return Ok(same.name.clone());
        }
        let mut own = name.to_owned();
        let mut number = 1;
        while self.plan.node(&own).is_some() {
            number += 1;
            own = format!("{name}_{number}");
        }
        self.plan.nodes.push(Node { name: own.clone(), inputs, operator });
        self.check(at)?;
        Ok(own)
    }

    fn check(&mut self, at: usize) -> Result<()> {
        self.relations = self.plan.check().map_err(|error| fault(at, &error))?;
        Ok(())
    }

    fn fields(&self, node: &str) -> &[Field] {
        let at = self.plan.nodes.iter().position(|other| other.name == node);
        at.and_then(|at| self.relations.get(at)).map_or(&[], |relation| &relation.fields)
    }

    /// The fields of the rows, with the bounds of a window that is not yet given.
    fn fields_of(&self, rows: &Rows) -> Vec<Field> {
        let mut fields = self.fields(&rows.node).to_vec();
        if matches!(rows.frame, Frame::Pending { .. }) {
            fields.extend([WINDOW_START, WINDOW_END].map(|name| Field::new(name, DataType::Timestamp)));
        }
        fields
    }

    /// Sends rows out.
    fn sink(&mut self, rows: Rows, name: &str, into: SinkSettings, at: usize, emit: Option<Emit>) -> Result<()> {
        let SinkSettings { collection, keys, .. } = into;
        let named: Result<Option<Vec<String>>> = keys.map(|keys| rows.keys_named(keys)).transpose();
        let keys: Option<Vec<String>> = named?.or_else(|| {
            let column = |key: &String| rows.columns.iter().find(|column| column.is_field(key));
            rows.keys.iter().map(|key| column(key).map(|column| column.name.clone())).collect()
        });
        let rows = self.settled(rows, at)?;
        let relation = self.plan.nodes.iter().position(|node| node.name == rows.node).map(|at| &self.relations[at]);
        if relation.is_some_and(|relation| relation.updates) && keys.as_ref().is_none_or(Vec::is_empty) {
            let emit = if emit.is_some() { "`EMIT CHANGES`" } else { "rows that change" };
            return Err(Fault::new(
                at,
                format!("{emit} needs the columns of `GROUP BY` among those of `SELECT`, by which rows are told apart"),
            ));
        }
        self.push(name, &[&rows.node], Operator::Sink(Sink { collection, keys: keys.unwrap_or_default() }), at)
            .map(|_| ())
    }

    /// The same rows, whose fields are the columns.
    fn settled(&mut self, rows: Rows, at: usize) -> Result<Rows> {
        let fields = self.fields(&rows.node);
        if fields.len() == rows.columns.len()
            && fields
                .iter()
                .zip(&rows.columns)
                .all(|(field, column)| column.name == field.name && column.is_field(&field.name))
        {
            return Ok(rows);
        }
        let rows = self.attached(rows, at)?;
        let mut columns = vec![];
        for column in &rows.columns {
            let Meaning::Is(value) = &column.value else { return Err(only_in_windows(at)) };
            columns.push((column.name.clone(), value.clone()));
        }
        let node = self.push("project", &[&rows.node], Operator::Project { columns }, at)?;
        let renamed = |field: &String| {
            rows.columns.iter().find(|column| column.is_field(field)).map(|column| column.name.clone())
        };
        let kept = |bound: &str| rows.columns.iter().any(|column| column.name == bound && column.is_field(bound));
        Ok(Rows {
            time: rows.time.as_ref().and_then(|(field, offset)| Some((renamed(field)?, *offset))),
            keys: rows.keys.iter().map(renamed).collect::<Option<_>>().unwrap_or_default(),
            frame: if kept(WINDOW_START) && kept(WINDOW_END) { rows.frame } else { Frame::None },
            columns: rows
                .columns
                .iter()
                .map(|column| Column { of: column.of.clone(), ..Column::field(&column.name) })
                .collect(),
            collection: None,
            node,
        })
    }

    /// The same rows with the bounds of their window as fields.
    fn attached(&mut self, rows: Rows, at: usize) -> Result<Rows> {
        let Frame::Pending { window, processing_time } = rows.frame else { return Ok(rows) };
        if matches!(window, Window::Session { .. }) {
            return Err(Fault::unsupported(at, "a session without `GROUP BY window_start, window_end`"));
        }
        let node = self.push("window", &[&rows.node], Operator::Window { window, processing_time }, at)?;
        let either = !matches!(window, Window::Cumulate { .. });
        Ok(Rows { node, frame: Frame::Attached { either }, collection: None, ..rows })
    }

    /// What becomes of the rows of `from`; with `outermost` as what a sink takes.
    fn query(&mut self, query: &Query, outermost: bool) -> Result<Rows> {
        let mut pool = vec![];
        query.filter.iter().for_each(|filter| conjuncts(filter, &mut pool));
        let all = pool.clone();
        let mut rows = self.source(&query.from, &mut pool)?;
        for term in &all {
            each_column(term, &mut |of, name, at| rows.find(of, name, at).map(|_| ()))?;
        }
        rows = self.filtered(rows, &pool)?;

        let at = query
            .items
            .iter()
            .find_map(|item| if let Item::One(value, _) = item { Some(value.at) } else { None })
            .unwrap_or(0);
        let has_aggregate =
            query.items.iter().any(|item| matches!(item, Item::One(value, _) if aggregates::has(value)))
                || query.having.iter().any(aggregates::has)
                || query.order.iter().any(|order| aggregates::has(&order.by));
        let mut groups = None;
        if has_aggregate || !query.groups.is_empty() {
            let (grouped, found) = self.grouped(rows, query, outermost, at)?;
            rows = grouped;
            groups = Some(found);
        } else if let Some(having) = &query.having {
            return Err(Fault::new(having.at, "`HAVING` needs `GROUP BY` or an aggregate"));
        } else if query.emit == Some(Emit::OnWindowClose) && rows.frame == Frame::None {
            return Err(Fault::new(at, "`EMIT ON WINDOW CLOSE` needs a window"));
        }
        if let Some(having) = &query.having {
            let condition = self.value(having, &rows, groups.as_ref())?;
            rows.node = self.push("having", &[&rows.node], Operator::Filter { condition }, having.at)?;
        }

        // What is selected, by the names that it will have.
        let mut columns: Vec<Column> = vec![];
        for (index, item) in query.items.iter().enumerate() {
            match item {
                Item::All(of) => {
                    if groups.is_some() {
                        return Err(Fault::new(
                            of.as_ref().map_or(at, |of| of.at),
                            "`*` cannot stand beside `GROUP BY`",
                        ));
                    }
                    let before = columns.len();
                    for column in &rows.columns {
                        if of.as_ref().is_none_or(|of| column.of.as_ref() == Some(&of.text)) {
                            columns.push(Column { of: None, ..column.clone() });
                        }
                    }
                    if let Some(of) = of.as_ref().filter(|_| columns.len() == before) {
                        return Err(Fault::new(of.at, format!("there is nothing of the name `{}`", of.text)));
                    }
                }
                Item::One(value, alias) => {
                    let name = alias.as_ref().map_or_else(|| name_of(value, index), |alias| alias.text.clone());
                    let meaning = match &value.kind {
                        Kind::Call { name, arguments, .. } if name == "proctime" && arguments.is_empty() => {
                            Meaning::Now
                        }
                        Kind::Column { of, name } if groups.is_none() => {
                            rows.find(of.as_deref(), name, value.at)?.value.clone()
                        }
                        _ => Meaning::Is(self.value(value, &rows, groups.as_ref())?),
                    };
                    columns.push(Column { of: None, name, value: meaning });
                }
            }
        }
        for at in 0..columns.len() {
            let mut number = 1;
            while columns[..at].iter().any(|other| other.name == columns[at].name) {
                number += 1;
                let stem =
                    columns[at].name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('_').to_owned();
                columns[at].name = format!("{stem}_{number}");
            }
        }

        // An order is of what is selected, or of what it is selected from.
        let mut order = vec![];
        for one in &query.order {
            let selected = match &one.by.kind {
                Kind::Int(number) => match usize::try_from(*number - 1).ok().and_then(|at| columns.get(at)) {
                    Some(column) => Some(column),
                    None => {
                        return Err(Fault::new(
                            one.by.at,
                            format!("found the number {number} of {} columns", columns.len()),
                        ));
                    }
                },
                Kind::Column { of: None, name } => columns.iter().find(|column| column.name == *name),
                _ => None,
            };
            let value = match selected {
                Some(Column { value: Meaning::Is(value), .. }) => value.clone(),
                Some(_) => return Err(only_in_windows(one.by.at)),
                None => self.value(&one.by, &rows, groups.as_ref())?,
            };
            order.push((value, one.descending));
        }

        let order_at = query.order.first().map_or(at, |order| order.by.at);
        rows.columns = columns;
        rows.collection = None;
        if query.distinct {
            rows = self.settled(rows, at)?;
            for (value, _) in &mut order {
                // What is ordered by must be one of the columns now.
                *value = self.among(&rows, query, value, order_at)?;
            }
            let keys: Vec<String> = rows.columns.iter().map(|column| column.name.clone()).collect();
            rows.node = self.push("distinct", &[&rows.node], Operator::Distinct { keys: keys.clone() }, at)?;
            rows.keys = keys;
        }
        if !order.is_empty() || query.limit.is_some() {
            let limit = match query.limit {
                Some(limit) => u32::try_from(limit).ok().filter(|limit| *limit > 0).ok_or_else(|| {
                    Fault::new(order_at, format!("found the limit {limit}, expected 1 to {}", u32::MAX))
                })?,
                None => 0,
            };
            rows = self.top(rows, order, limit, order_at)?;
        }
        Ok(rows)
    }

    /// `value` where the columns of a distinct query are all that is left.
    fn among(&self, rows: &Rows, query: &Query, value: &Expression, at: usize) -> Result<Expression> {
        let names = rows.columns.iter().map(|column| &column.name);
        for (item, name) in query.items.iter().zip(names) {
            if let Item::One(_, _) = item
                && (value.as_column() == Some(name))
            {
                return Ok(Expression::column(name));
            }
        }
        match value.as_column() {
            Some(name) if rows.columns.iter().any(|column| column.name == name) => Ok(value.clone()),
            _ => Err(Fault::unsupported(at, "an order by anything but the columns of `SELECT DISTINCT`")),
        }
    }

    fn top(&mut self, rows: Rows, order: Vec<(Expression, bool)>, limit: u32, at: usize) -> Result<Rows> {
        if self.mode == Mode::Snapshot {
            // All rows are of one window, which closes when they have come: they are told in order, and none is taken back.
            let mut columns: Vec<(String, Expression)> = vec![];
            let mut names = vec![];
            for column in &rows.columns {
                let Meaning::Is(value) = &column.value else { return Err(only_in_windows(at)) };
                let name = if is_bound(&column.name) { format!("{}_", column.name) } else { column.name.clone() };
                columns.push((name.clone(), value.clone()));
                names.push((column.name.clone(), name));
            }
            let mut by = vec![];
            for (index, (value, descending)) in order.into_iter().enumerate() {
                let name = format!("order_{}", index + 1);
                columns.push((name.clone(), value));
                by.push((Expression::Column(name), descending));
            }
            let rows = self.attached(rows, at)?;
            for bound in [WINDOW_START, WINDOW_END] {
                let moment = if bound == WINDOW_START { 0i64 } else { FOREVER };
                columns
                    .push((bound.to_owned(), Expression::call(Function::ToTimestamp, [Expression::literal(moment)])));
            }
            let node = self.push("sort", &[&rows.node], Operator::Project { columns }, at)?;
            let top = Top { keys: vec![WINDOW_START.into(), WINDOW_END.into()], order: by, limit, rank: None };
            let node = self.push("top", &[&node], Operator::Top(top), at)?;
            let columns = names.into_iter().map(|(name, field)| Column { name, ..Column::field(&field) }).collect();
            return Ok(Rows { node, columns, time: None, frame: Frame::None, keys: vec![], collection: None });
        }
        let rows = self.attached(rows, at)?;
        let keys = match rows.frame {
            Frame::Attached { .. } => vec![WINDOW_START.to_owned(), WINDOW_END.to_owned()],
            _ => vec![],
        };
        let node = self.push("top", &[&rows.node], Operator::Top(Top { keys, order, limit, rank: None }), at)?;
        Ok(Rows { node, ..rows })
    }

    /// The rows of which all `terms` are true.
    fn filtered(&mut self, rows: Rows, terms: &[Expr]) -> Result<Rows> {
        let Some(first) = terms.first() else { return Ok(rows) };
        let conditions = terms.iter().map(|term| self.value(term, &rows, None)).collect::<Result<Vec<_>>>()?;
        let condition = all_of(conditions);
        let rows = if mentions(&condition, WINDOW_START) || mentions(&condition, WINDOW_END) {
            self.attached(rows, first.at)?
        } else {
            rows
        };
        let node = self.push("filter", &[&rows.node], Operator::Filter { condition }, first.at)?;
        Ok(Rows { node, collection: None, ..rows })
    }

    /// The rows of `from`. Terms of `pool` that are conditions of its joins are taken out.
    fn source(&mut self, from: &From, pool: &mut Vec<Expr>) -> Result<Rows> {
        match from {
            From::Named { name, alias } => {
                let rows = self.named(name)?;
                Ok(rows.renamed(&alias.as_ref().unwrap_or(name).text))
            }
            From::Query { query, alias } => {
                let rows = self.query(query, false)?;
                Ok(match alias {
                    Some(alias) => rows.renamed(&alias.text),
                    None => rows,
                })
            }
            From::Window { window, of, time, zone, alias } => {
                let rows = self.source(of, &mut vec![])?;
                let rows = self.windowed(rows, span(*window).in_zone(*zone), time)?;
                Ok(match (alias, &**of) {
                    (Some(name), _) | (None, From::Named { name, .. }) => rows.renamed(&name.text),
                    _ => rows,
                })
            }
            From::Dedupe { of, keys, vector, radius, within, metric, alias } => {
                let rows = self.source(of, &mut vec![])?;
                let mut rows = self.attached(rows, vector.at)?;
                let field = |value: &Expr| match &value.kind {
                    Kind::Column { of, name } => match &rows.find(of.as_deref(), name, value.at)?.value {
                        Meaning::Is(found) if found.as_column().is_some() => {
                            Ok(found.as_column().unwrap_or_default().to_owned())
                        }
                        _ => Err(Fault::unsupported(value.at, "a value that was computed, in `DEDUPE`,")),
                    },
                    _ => Err(Fault::new(value.at, format!("found `{value}`, expected a column"))),
                };
                let dedupe = Dedupe {
                    keys: keys.iter().map(field).collect::<Result<_>>()?,
                    vector: field(vector)?,
                    metric: *metric,
                    radius: *radius,
                    within: *within,
                    duplicates: None,
                };
                rows.node = self.push("dedupe", &[&rows.node], Operator::Dedupe(dedupe), vector.at)?;
                rows.collection = None;
                Ok(match (alias, &**of) {
                    (Some(name), _) | (None, From::Named { name, .. }) => rows.renamed(&name.text),
                    _ => rows,
                })
            }
            From::Nearest { collection, .. } => Err(Fault::new(
                collection.at,
                "`nearest` is joined with what stands on its left: `FROM events, nearest(…)`",
            )),
            From::Join { left, right, outer, on } => self.join(left, right, *outer, on.as_deref(), pool),
        }
    }

    /// A stream, a collection or a view.
    fn named(&mut self, name: &Name) -> Result<Rows> {
        if let Some(rows) = self.views.get(&name.text) {
            return Ok(rows.clone());
        }
        let declared = self.declared.get(&name.text);
        let origin = declared.and_then(|declared| declared.origin.clone());
        let is_declared = declared.is_some();
        let table = match declared.map(|declared| &declared.table).or_else(|| self.catalog.tables.get(&name.text)) {
            Some(table) => table.clone(),
            None => {
                let names = self.views.keys().chain(self.declared.keys()).chain(self.catalog.tables.keys());
                let hint = closest(&name.text, names.map(String::as_str))
                    .map_or(String::new(), |near| format!(": did you mean `{near}`?"));
                return Err(Fault::new(
                    name.at,
                    format!("found `{}`, which is no stream, collection or view{hint}", name.text),
                ));
            }
        };
        let is_wanted = |field: &SourceField| {
            let by_name = self.wanted.as_ref().is_none_or(|wanted| wanted.contains(&field.name));
            by_name || table.time.as_ref() == Some(&field.name) || table.key.as_ref() == Some(&field.name)
        };
        let fields: Vec<SourceField> = table.fields.iter().filter(|field| is_wanted(field)).cloned().collect();
        let fields = if fields.is_empty() { table.fields[..1.min(table.fields.len())].to_vec() } else { fields };
        let columns = fields.iter().map(|field| Column::field(&field.name)).collect();
        let snapshot = self.mode == Mode::Snapshot;
        let watermark = if snapshot { Watermark { delay: UNORDERED, idle: None } } else { table.watermark };
        let source = Source { fields, time: table.time.clone(), watermark, changes: table.key.is_some() && !snapshot };
        let already = self.reads.iter().find(|read| read.name == name.text).map(|read| read.node.clone());
        let node = match already {
            Some(node) => node,
            None => {
                // Two streams of the same fields are two sources.
                let mut own = name.text.clone();
                while self.plan.node(&own).is_some() {
                    own.push('_');
                }
                self.plan.nodes.push(Node { name: own.clone(), inputs: vec![], operator: Operator::Source(source) });
                self.check(name.at)?;
                let collection = table.key.is_some() && !is_declared;
                self.reads.push(Read {
                    node: own.clone(),
                    name: name.text.clone(),
                    collection,
                    origin: origin.clone(),
                });
                own
            }
        };
        let time = match self.plan.node(&node).map(|node| &node.operator) {
            Some(Operator::Source(source)) => source.time.clone().map(|field| (field, 0)),
            _ => None,
        };
        let collection = match origin {
            Some(origin) => origin.collection,
            None => Some(name.text.clone()),
        };
        let collection = collection.filter(|_| table.key.is_some());
        Ok(Rows { node, columns, time, frame: Frame::None, keys: table.key.into_iter().collect(), collection })
    }

    /// The rows in windows over `time`.
    fn windowed(&mut self, mut rows: Rows, window: Window, time: &Expr) -> Result<Rows> {
        if rows.frame != Frame::None {
            return Err(Fault::unsupported(time.at, "a window over rows of a window"));
        }
        let meaning = match &time.kind {
            Kind::Column { of, name } => rows.find(of.as_deref(), name, time.at)?.value.clone(),
            Kind::Call { name, .. } if name == "proctime" => Meaning::Now,
            _ => return Err(Fault::new(time.at, format!("found `{time}`, expected a column"))),
        };
        let processing_time = meaning == Meaning::Now;
        if let Meaning::Is(value) = &meaning {
            let field = value.as_column().unwrap_or_default().to_owned();
            if rows.time.is_none() && self.mode == Mode::Snapshot && !field.is_empty() {
                self.set_time(&rows, &field, time.at)?;
                rows.time = Some((field.clone(), 0));
            }
            match &rows.time {
                Some((known, 0)) if *known == field => {}
                Some((known, 0)) => {
                    return Err(Fault::new(time.at, format!("found `{time}`, expected the event time, `{known}`")));
                }
                _ => {
                    let hint =
                        "these rows have no event time: declare one by `WATERMARK FOR column AS column - INTERVAL …`";
                    return Err(Fault::new(time.at, hint));
                }
            }
        }
        rows.columns.retain(|column| !is_bound(&column.name));
        rows.columns.extend([WINDOW_START, WINDOW_END].map(Column::field));
        rows.frame = Frame::Pending { window, processing_time };
        rows.collection = None;
        Ok(rows)
    }

    /// Names the event time of a source that has none: of a stored collection, whose rows are all there.
    fn set_time(&mut self, rows: &Rows, field: &str, at: usize) -> Result<()> {
        let mut node = rows.node.clone();
        loop {
            let Some(found) = self.plan.nodes.iter_mut().find(|other| other.name == node) else { return Ok(()) };
            match &mut found.operator {
                Operator::Source(source) => {
                    if source.time.as_deref().is_some_and(|time| time != field) {
                        return Err(Fault::unsupported(at, "a second event time of the same rows"));
                    }
                    source.time = Some(field.to_owned());
                    return self.check(at);
                }
                Operator::Filter { .. } => node = found.inputs[0].clone(),
                _ => return Ok(()),
            }
        }
    }

    fn join(
        &mut self,
        left: &From,
        right: &From,
        outer: bool,
        on: Option<&Expr>,
        pool: &mut Vec<Expr>,
    ) -> Result<Rows> {
        let mut left = self.source(left, pool)?;
        let mut terms = vec![];
        on.iter().for_each(|on| conjuncts(on, &mut terms));
        terms.retain(|term| term.kind != Kind::Bool(true));
        if let From::Nearest { collection, vector, limit, alias } = right {
            if let Some(term) = terms.first() {
                return Err(Fault::unsupported(term.at, "a condition of a join with `nearest`"));
            }
            return self.nearest(left, collection, vector, *limit, alias.as_ref(), outer);
        }
        let mut right = self.source(right, &mut vec![])?;
        let at = on.map_or(0, |on| on.at);
        // Of an inner join, `WHERE` is as good as `ON`; of an outer one, what it says of the left side.
        let mut after = vec![];
        for term in std::mem::take(pool) {
            match sides(&term, &left, &right)? {
                Some(side) if !outer || side == Side::Left => terms.push(term),
                Some(_) => after.push(term),
                None => pool.push(term),
            }
        }
        let mut both = vec![];
        let (mut of_left, mut of_right) = (vec![], vec![]);
        for term in terms {
            match sides(&term, &left, &right)? {
                // What `ON` says of the left side leaves no row of it out of an outer join.
                Some(Side::Left) if !outer || !on.is_some_and(|on| contains(on, &term)) => of_left.push(term),
                Some(Side::Right) => of_right.push(term),
                Some(_) => both.push(term),
                None => {
                    // Tells which name is not there.
                    each_column(&term, &mut |of, name, at| find_in(&[&left, &right], of, name, at))?;
                    both.push(term);
                }
            }
        }
        left = self.filtered(left, &of_left)?;

        let lookup = right.collection.clone().filter(|_| self.mode == Mode::Stream || outer);
        if let (Some(collection), [key]) = (lookup, &right.keys[..]) {
            let key = key.clone();
            if let Some(found) = both.iter().position(|term| {
                equality(term, &left, &right).is_some_and(|(_, r)| right_field(&right, &r) == Some(&key))
            }) {
                let (of_left, _) = equality(&both.remove(found), &left, &right).expect("it is an equality");
                let rest: Vec<Expr> = both.into_iter().chain(of_right).collect();
                if outer && !rest.is_empty() {
                    return Err(Fault::unsupported(rest[0].at, "a further condition of a left join with a collection"));
                }
                after.extend(rest);
                let rows = self.lookup(left, &right, collection, &of_left, outer, at)?;
                return self.filtered(rows, &after);
            }
        }
        right = self.filtered(right, &of_right)?;
        let rows = self.pairs(left, right, outer, both, at)?;
        self.filtered(rows, &after)
    }

    /// The join of two streams.
    fn pairs(&mut self, mut left: Rows, mut right: Rows, outer: bool, terms: Vec<Expr>, at: usize) -> Result<Rows> {
        let (mut keys, mut rest) = (vec![], vec![]);
        let (mut starts, mut ends) = (false, false);
        let (mut lower, mut upper): (Option<i64>, Option<i64>) = (None, None);
        let (mut spans, mut bounds) = (vec![], vec![]);
        for term in terms {
            if let Some((l, r)) = equality(&term, &left, &right) {
                let (l, r) = (self.value(&l, &left, None)?, self.value(&r, &right, None)?);
                let both_framed = left.frame != Frame::None && right.frame != Frame::None;
                match (l.as_column(), r.as_column()) {
                    (Some(WINDOW_START), Some(WINDOW_START)) if both_framed => {
                        starts = true;
                        bounds.push(term);
                    }
                    (Some(WINDOW_END), Some(WINDOW_END)) if both_framed => {
                        ends = true;
                        bounds.push(term);
                    }
                    _ => keys.push((l, r, term.at)),
                }
                continue;
            }
            match self.difference(&term, &left, &right)? {
                Some((low, high)) => {
                    lower = low.map(|low| lower.map_or(low, |known| known.max(low))).or(lower);
                    upper = high.map(|high| upper.map_or(high, |known| known.min(high))).or(upper);
                    spans.push(term);
                }
                None => rest.push(term),
            }
        }
        let scope = if starts && ends {
            rest.append(&mut spans);
            match (left.frame, right.frame) {
                (
                    Frame::Pending { window: l, processing_time: false },
                    Frame::Pending { window: r, processing_time: false },
                ) if l == r => JoinScope::Window(l),
                _ => {
                    left = self.attached(left, at)?;
                    right = self.attached(right, at)?;
                    JoinScope::Window(Window::Attached)
                }
            }
        } else {
            left = self.attached(left, at)?;
            right = self.attached(right, at)?;
            for term in bounds {
                if let Some((l, r)) = equality(&term, &left, &right) {
                    keys.push((self.value(&l, &left, None)?, self.value(&r, &right, None)?, term.at));
                }
            }
            match (lower, upper) {
                (Some(lower), Some(upper)) if lower <= upper => JoinScope::Interval { lower, upper },
                _ => {
                    rest.append(&mut spans);
                    JoinScope::Unbounded
                }
            }
        };
        if keys.is_empty() && matches!(scope, JoinScope::Unbounded) && rest.is_empty() {
            return Err(Fault::unsupported(at, "a join without a condition"));
        }
        let mut pairs = vec![];
        for (l, r, at) in keys {
            let l = self.as_field(&mut left, l, "key", at)?;
            let r = self.as_field(&mut right, r, "key", at)?;
            if !pairs.contains(&(l.clone(), r.clone())) {
                pairs.push((l, r));
            }
        }

        // What the fields of the right side are called in the pair.
        let in_window = matches!(scope, JoinScope::Window(_));
        let taken: BTreeSet<String> = self
            .fields(&left.node)
            .iter()
            .map(|field| field.name.clone())
            .filter(|name| !(in_window && is_bound(name)))
            .collect();
        let rename = |field: &str| {
            if taken.contains(field) && !(in_window && is_bound(field)) {
                format!("right_{field}")
            } else {
                field.to_owned()
            }
        };
        let mut columns = left.columns.clone();
        for column in &right.columns {
            let value = match &column.value {
                Meaning::Is(value) => Meaning::Is(substituted(value, &rename)),
                Meaning::Now => Meaning::Now,
            };
            columns.push(Column { value, ..column.clone() });
        }
        let frame = if in_window {
            Frame::Attached { either: matches!(left.frame, Frame::Attached { either: true } | Frame::Pending { .. }) }
        } else {
            Frame::None
        };
        let mut rows = Rows { node: String::new(), columns, time: None, frame, keys: vec![], collection: None };
        let condition = if rest.is_empty() {
            None
        } else {
            let scope = Scope { rows: &rows, fields: None, groups: None };
            Some(all_of(rest.iter().map(|term| self.value_in(term, scope)).collect::<Result<_>>()?))
        };
        let kind = if outer { JoinKind::Left } else { JoinKind::Inner };
        rows.node = self.push(
            "join",
            &[&left.node, &right.node],
            Operator::Join(Join { kind, keys: pairs, scope, condition }),
            at,
        )?;
        Ok(rows)
    }

    /// The name of the field that has `value`, which is added when there is none.
    fn as_field(&mut self, rows: &mut Rows, value: Expression, stem: &str, at: usize) -> Result<String> {
        if let Some(name) = value.as_column() {
            return Ok(name.to_owned());
        }
        let fields = self.fields(&rows.node);
        let mut columns: Vec<(String, Expression)> =
            fields.iter().map(|field| (field.name.clone(), Expression::column(&field.name))).collect();
        let mut number = 1;
        while columns.iter().any(|(name, _)| *name == format!("{stem}_{number}")) {
            number += 1;
        }
        let name = format!("{stem}_{number}");
        columns.push((name.clone(), value));
        rows.node = self.push("compute", &[&rows.node], Operator::Project { columns }, at)?;
        rows.collection = None;
        Ok(name)
    }

    /// What `term` says of the right side's event time minus the left one's: at least, and at most.
    fn difference(&self, term: &Expr, left: &Rows, right: &Rows) -> Result<Option<(Option<i64>, Option<i64>)>> {
        let Kind::Binary { operator, left: first, right: second } = &term.kind else { return Ok(None) };
        let (first, second, operator) = match (sides(first, left, right)?, sides(second, left, right)?) {
            (Some(Side::Left), Some(Side::Right)) => (first, second, *operator),
            (Some(Side::Right), Some(Side::Left)) => (
                second,
                first,
                match operator {
                    Sign::Lt => Sign::Gt,
                    Sign::Le => Sign::Ge,
                    Sign::Gt => Sign::Lt,
                    Sign::Ge => Sign::Le,
                    other => *other,
                },
            ),
            _ => return Ok(None),
        };
        let (l, r) = (self.value(first, left, None)?, self.value(second, right, None)?);
        // Both are an event time and some microseconds.
        let (Some(l), Some(r)) = (left.distance(&l), right.distance(&r)) else { return Ok(None) };
        let Some(span) = l.checked_sub(r) else { return Ok(None) };
        Ok(match operator {
            Sign::Le => Some((Some(span), None)),
            Sign::Lt => Some((span.checked_add(1), None)),
            Sign::Ge => Some((None, Some(span))),
            Sign::Gt => Some((None, span.checked_sub(1))),
            _ => None,
        })
    }

    fn lookup(
        &mut self,
        left: Rows,
        right: &Rows,
        collection: String,
        key: &Expr,
        outer: bool,
        at: usize,
    ) -> Result<Rows> {
        let left = self.attached(left, at)?;
        let key = self.value(key, &left, None)?;
        let fields = self.source_fields(&collection, &right.columns);
        let before: BTreeSet<String> = self.fields(&left.node).iter().map(|field| field.name.clone()).collect();
        let lookup = Lookup { collection, key, fields, inner: !outer };
        let node = self.push("lookup", &[&left.node], Operator::Lookup(lookup), at)?;
        Ok(left.beside(node, &right.columns, &before))
    }

    fn nearest(
        &mut self,
        left: Rows,
        collection: &Name,
        vector: &Expr,
        limit: u64,
        alias: Option<&Name>,
        outer: bool,
    ) -> Result<Rows> {
        let Some(table) = self.catalog.tables.get(&collection.text).filter(|table| table.key.is_some()) else {
            let names =
                self.catalog.tables.iter().filter(|(_, table)| table.key.is_some()).map(|(name, _)| name.as_str());
            return Err(unknown_collection(collection, names));
        };
        let fields = table.fields.iter().filter(|field| match &self.wanted {
            Some(wanted) => wanted.contains(&field.name),
            None => field.dim.is_none(),
        });
        let columns: Vec<Column> = fields
            .map(|field| Column { of: Some(alias.unwrap_or(collection).text.clone()), ..Column::field(&field.name) })
            .collect();
        let left = self.attached(left, vector.at)?;
        let value = self.value(vector, &left, None)?;
        let fields = self.source_fields(&collection.text, &columns);
        let before: BTreeSet<String> = self.fields(&left.node).iter().map(|field| field.name.clone()).collect();
        let mut distance = "distance".to_owned();
        while before.contains(&distance) || fields.iter().any(|field| field.name == distance) {
            distance.push('_');
        }
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let nearest = Nearest {
            collection: collection.text.clone(),
            field: None,
            vector: value,
            limit,
            filter: None,
            fields,
            distance: Some(distance.clone()),
            inner: !outer,
        };
        let node = self.push("nearest", &[&left.node], Operator::Nearest(nearest), vector.at)?;
        let mut rows = left.beside(node, &columns, &before);
        rows.columns.push(Column {
            of: Some(alias.unwrap_or(collection).text.clone()),
            name: "distance".into(),
            value: Meaning::Is(Expression::Column(distance)),
        });
        Ok(rows)
    }

    /// The fields of a collection that the columns are.
    fn source_fields(&self, collection: &str, columns: &[Column]) -> Vec<SourceField> {
        let fields = self.catalog.tables.get(collection).map_or(&[][..], |table| &table.fields);
        fields.iter().filter(|field| columns.iter().any(|column| column.is_field(&field.name))).cloned().collect()
    }

    /// One row for each group.
    fn grouped(&mut self, mut rows: Rows, query: &Query, outermost: bool, at: usize) -> Result<(Rows, Groups)> {
        let mut groups = Groups { keys: vec![], aggregates: vec![], window: None, windowed: false };
        let (mut start, mut end) = (false, false);
        let mut values = vec![];
        for group in &query.groups {
            let group = self.selected(group, query, &rows);
            if let Kind::Call { name, arguments, .. } = &group.kind
                && let Some(window) = group_window(name, arguments, group.at)?
            {
                let Some(time) = arguments.first() else {
                    return Err(Fault::new(group.at, format!("found `{group}`, expected a column first")));
                };
                rows = self.windowed(rows, window, time)?;
                groups.window = Some((name.clone(), arguments.clone()));
                (start, end) = (true, true);
                continue;
            }
            if aggregates::has(group) {
                return Err(Fault::new(group.at, "an aggregate cannot be grouped by"));
            }
            let value = self.value(group, &rows, None)?;
            match value.as_column() {
                Some(WINDOW_START) if rows.frame != Frame::None => start = true,
                Some(WINDOW_END) if rows.frame != Frame::None => end = true,
                _ if values.iter().any(|(known, _)| *known == value) => {}
                _ => values.push((value, group.at)),
            }
        }
        // Whether the groups are those of windows.
        let window = match rows.frame {
            Frame::Pending { window, processing_time }
                if (start && end) || ((start || end) && !matches!(window, Window::Cumulate { .. })) =>
            {
                Some((window, processing_time))
            }
            Frame::Attached { either } if (start && end) || (either && (start || end)) => {
                Some((Window::Attached, false))
            }
            _ => None,
        };
        if window.is_none() {
            rows = self.attached(rows, at)?;
            for (there, bound) in [(start, WINDOW_START), (end, WINDOW_END)] {
                if there {
                    values.push((Expression::column(bound), at));
                }
            }
        }
        for (value, at) in values {
            let field = self.as_field(&mut rows, value.clone(), "group", at)?;
            groups.keys.push((value, field));
        }
        groups.windowed = window.is_some();

        let mut found = vec![];
        for item in &query.items {
            if let Item::One(value, alias) = item {
                self.aggregates_of(value, alias.as_ref(), &rows, &mut found)?;
            }
        }
        for value in query.having.iter().chain(query.order.iter().map(|order| &order.by)) {
            self.aggregates_of(value, None, &rows, &mut found)?;
        }
        let mut columns = vec![];
        let mut taken: Vec<String> = groups.keys.iter().map(|(_, field)| field.clone()).collect();
        if window.is_some() {
            taken.extend([WINDOW_START.to_owned(), WINDOW_END.to_owned()]);
        }
        for (called, alias) in found {
            let stem = alias.unwrap_or_else(|| called.function.name().to_ascii_lowercase());
            let mut name = stem.clone();
            let mut number = 1;
            while taken.contains(&name) {
                number += 1;
                name = format!("{stem}_{number}");
            }
            taken.push(name.clone());
            let aggregate = Aggregate {
                name: name.clone(),
                function: called.function,
                input: called.input.clone(),
                filter: None,
                by: called.by.clone(),
            };
            columns.push(aggregate);
            groups.aggregates.push((called, name));
        }

        let keys: Vec<String> = groups.keys.iter().map(|(_, field)| field.clone()).collect();
        let mut trigger =
            Trigger { processing_time: window.is_some_and(|(_, processing)| processing), ..Trigger::default() };
        let mut output = Output::Close;
        let changes = match query.emit {
            Some(Emit::Changes) => true,
            Some(Emit::OnWindowClose) if window.is_none() && self.mode == Mode::Stream => {
                return Err(Fault::new(at, "`EMIT ON WINDOW CLOSE` needs a window among `GROUP BY`"));
            }
            Some(Emit::OnWindowClose) => false,
            // Groups of all time never close.
            None => window.is_none() && self.mode == Mode::Stream,
        };
        if changes && self.mode == Mode::Stream {
            trigger.early = Some(Pace::Batch);
            // Rows of later nodes cannot be told apart by the keys of this one.
            let plain = outermost
                && query.having.is_none()
                && !query.distinct
                && query.order.is_empty()
                && query.limit.is_none();
            let has_keys = !keys.is_empty() || window.is_some();
            output = if plain && has_keys { Output::Accumulating } else { Output::Retracting };
        }
        let (window, _) = window.unwrap_or((Window::Global, false));
        let aggregate = WindowAggregate {
            window,
            keys: keys.clone(),
            aggregates: columns,
            trigger,
            lateness: 0,
            output,
            late: None,
            evictor: None,
        };
        let node = self.push("aggregate", &[&rows.node], Operator::Aggregate(aggregate), at)?;
        let mut unique = keys;
        let either = match rows.frame {
            Frame::Pending { window, .. } => !matches!(window, Window::Cumulate { .. }),
            Frame::Attached { either } => either,
            Frame::None => true,
        };
        let (frame, time) = if groups.windowed {
            unique.extend([WINDOW_START.to_owned(), WINDOW_END.to_owned()]);
            // The last moment of the window.
            (Frame::Attached { either }, Some((WINDOW_END.to_owned(), -1)))
        } else {
            (Frame::None, None)
        };
        // One of the bounds is enough to tell windows of one length apart.
        if either && groups.windowed && start != end {
            unique.retain(|key| key != if start { WINDOW_END } else { WINDOW_START });
        }
        Ok((Rows { node, time, frame, keys: unique, collection: None, columns: rows.columns.clone() }, groups))
    }

    /// What a name or a number in `GROUP BY` stands for.
    fn selected<'q>(&self, group: &'q Expr, query: &'q Query, rows: &Rows) -> &'q Expr {
        let item = match &group.kind {
            Kind::Int(number) => usize::try_from(*number - 1).ok().and_then(|at| query.items.get(at)),
            Kind::Column { of: None, name } if rows.find(None, name, group.at).is_err() => {
                query.items.iter().find(|item| matches!(item, Item::One(_, Some(alias)) if alias.text == *name))
            }
            _ => None,
        };
        match item {
            Some(Item::One(value, _)) => value,
            _ => group,
        }
    }

    /// The aggregates in `value`; one that is all of it is called as it is.
    fn aggregates_of(
        &self,
        value: &Expr,
        alias: Option<&Name>,
        rows: &Rows,
        found: &mut Vec<(Called, Option<String>)>,
    ) -> Result<()> {
        if aggregates::is(value) {
            for part in value.kind.parts() {
                if aggregates::has(part) {
                    return Err(Fault::new(part.at, "an aggregate cannot stand inside of another"));
                }
            }
            let called = aggregates::called(value, &|argument| self.value(argument, rows, None))?;
            let alias = alias.map(|alias| alias.text.clone());
            match found.iter_mut().find(|(known, _)| *known == called) {
                Some((_, name)) => *name = name.take().or(alias),
                None => found.push((called, alias)),
            }
            return Ok(());
        }
        value.kind.parts().into_iter().try_for_each(|part| self.aggregates_of(part, None, rows, found))
    }

    fn value(&self, expr: &Expr, rows: &Rows, groups: Option<&Groups>) -> Result<Expression> {
        let fields = self.fields_of(rows);
        self.value_in(expr, Scope { rows, fields: Some(&fields), groups })
    }

    fn value_in(&self, expr: &Expr, scope: Scope<'_>) -> Result<Expression> {
        if let Some(found) = self.of_group(expr, scope)? {
            return Ok(found);
        }
        let value = self.plain_value(expr, scope)?;
        if let (Some(fields), Expression::Call(..) | Expression::Case(..) | Expression::Literal(_)) =
            (scope.fields, &value)
        {
            value.bind(fields).map_err(|error| fault(expr.at, &error))?;
        }
        Ok(value)
    }

    /// What was grouped by, or an aggregate.
    fn of_group(&self, expr: &Expr, scope: Scope<'_>) -> Result<Option<Expression>> {
        let Some(groups) = scope.groups else { return Ok(None) };
        if aggregates::is(expr) {
            // Its arguments are of the rows before they were grouped, whose columns are still known.
            let before = Scope { groups: None, fields: None, ..scope };
            let called = aggregates::called(expr, &|argument| self.value_in(argument, before))?;
            let found = groups.aggregates.iter().find(|(known, _)| *known == called);
            return Ok(found.map(|(_, field)| Expression::column(field)));
        }
        if let (Kind::Call { name, arguments, .. }, Some((window, of))) = (&expr.kind, &groups.window)
            && let Some(bound) = name.strip_prefix(window.as_str())
        {
            let bound = match bound {
                "_start" => WINDOW_START,
                "_end" => WINDOW_END,
                _ => return Err(Fault::unsupported(expr.at, &format!("`{name}`"))),
            };
            if arguments != of {
                return Err(Fault::new(
                    expr.at,
                    format!("found `{expr}`, expected the arguments of `{window}` in `GROUP BY`"),
                ));
            }
            return Ok(Some(Expression::column(bound)));
        }
        if aggregates::has(expr) {
            return Ok(None);
        }
        let before = Scope { groups: None, fields: None, ..scope };
        if let Kind::Column { .. } = expr.kind {
            let value = self.plain_value(expr, before)?;
            if groups.windowed && value.as_column().is_some_and(is_bound) {
                return Ok(Some(value));
            }
            return match groups.keys.iter().find(|(known, _)| *known == value) {
                Some((_, field)) => Ok(Some(Expression::column(field))),
                None => Err(Fault::new(expr.at, format!("`{expr}` is neither in `GROUP BY` nor in an aggregate"))),
            };
        }
        if expr.kind.parts().is_empty() {
            return Ok(None);
        }
        let value = self.plain_value(expr, before).ok();
        Ok(groups
            .keys
            .iter()
            .find(|(known, _)| Some(known) == value.as_ref())
            .map(|(_, field)| Expression::column(field)))
    }

    fn plain_value(&self, expr: &Expr, scope: Scope<'_>) -> Result<Expression> {
        let of = |part: &Expr| self.value_in(part, scope);
        let call = |function: Function, parts: &[&Expr]| -> Result<Expression> {
            Ok(Expression::Call(function, parts.iter().map(|part| of(part)).collect::<Result<_>>()?))
        };
        let negated = |value: Expression, not: bool| if not { Expression::call(Function::Not, [value]) } else { value };
        Ok(match &expr.kind {
            Kind::Null => Expression::Literal(Value::Null),
            Kind::Bool(value) => Expression::literal(*value),
            Kind::Int(number) => Expression::literal(*number),
            Kind::Float(number) => Expression::literal(*number),
            Kind::Text(text) => Expression::literal(text.clone()),
            Kind::Interval(micros) => Expression::literal(*micros),
            Kind::Timestamp(micros) => Expression::call(Function::ToTimestamp, [Expression::literal(*micros)]),
            Kind::Parameter(name) => match self.parameters.get(name) {
                Some(value) => Expression::Literal(value.clone()),
                None => return Err(Fault::new(expr.at, format!("found parameter `{name}`, which was given no value"))),
            },
            Kind::Column { of, name } => match &scope.rows.find(of.as_deref(), name, expr.at)?.value {
                Meaning::Is(value) => value.clone(),
                Meaning::Now => return Err(only_in_windows(expr.at)),
            },
            Kind::List(list) => {
                let number = |value: &Expr| match value.kind {
                    Kind::Int(number) => Ok(number as f32),
                    Kind::Float(number) => Ok(number as f32),
                    _ => Err(Fault::new(value.at, format!("found `{value}`, expected a number of a vector"))),
                };
                Expression::Literal(Value::Vector(list.iter().map(number).collect::<Result<_>>()?))
            }
            Kind::Negative(value) => call(Function::Neg, &[value])?,
            Kind::Not(value) => call(Function::Not, &[value])?,
            Kind::Logic { any, terms } => {
                let function = if *any { Function::Or } else { Function::And };
                // At most 255 arguments: of more, a tree.
                let mut level = terms.iter().map(of).collect::<Result<Vec<_>>>()?;
                while level.len() > 1 {
                    level = level
                        .chunks(255)
                        .map(
                            |few| {
                                if few.len() == 1 { few[0].clone() } else { Expression::Call(function, few.to_vec()) }
                            },
                        )
                        .collect();
                }
                level.remove(0)
            }
            Kind::Binary { operator, left, right } => {
                let function = match operator {
                    Sign::Eq => Function::Eq,
                    Sign::Ne => Function::Ne,
                    Sign::Lt => Function::Lt,
                    Sign::Le => Function::Le,
                    Sign::Gt => Function::Gt,
                    Sign::Ge => Function::Ge,
                    Sign::Add => Function::Add,
                    Sign::Sub => Function::Sub,
                    Sign::Mul => Function::Mul,
                    Sign::Div => Function::Div,
                    Sign::Rem => Function::Rem,
                    Sign::Concat => Function::Concat,
                };
                call(function, &[left, right])?
            }
            Kind::IsNull { value, not } => negated(call(Function::IsNull, &[value])?, *not),
            Kind::Between { value, low, high, not } => {
                let inside = Expression::call(
                    Function::And,
                    [call(Function::Ge, &[value, low])?, call(Function::Le, &[value, high])?],
                );
                negated(inside, *not)
            }
            Kind::In { value, list, not } => {
                let parts: Vec<&Expr> = std::iter::once(&**value).chain(list).collect();
                negated(call(Function::In, &parts)?, *not)
            }
            Kind::Like { value, pattern, not } => negated(call(Function::Like, &[value, pattern])?, *not),
            Kind::Case { of: operand, branches, otherwise } => {
                let mut cases = vec![];
                for (when, then) in branches {
                    let condition = match operand {
                        Some(operand) => call(Function::Eq, &[operand, when])?,
                        None => of(when)?,
                    };
                    cases.push((condition, of(then)?));
                }
                Expression::Case(cases, otherwise.as_ref().map(|value| of(value).map(Box::new)).transpose()?)
            }
            Kind::Cast { value, to } => {
                let function = match canonical(*to) {
                    Some(DataType::Int64) => Function::ToInt,
                    Some(DataType::Double) => Function::ToDouble,
                    Some(DataType::Varchar { .. }) => Function::ToText,
                    Some(DataType::Timestamp) => Function::ToTimestamp,
                    _ => {
                        return Err(Fault::unsupported(expr.at, &format!("`CAST` to {}", super::print::type_name(to))));
                    }
                };
                call(function, &[value])?
            }
            Kind::CountAll => return Err(Fault::new(expr.at, "an aggregate cannot stand here")),
            Kind::Call { name, distinct, arguments } => {
                if aggregates::is(expr) {
                    return Err(Fault::new(expr.at, format!("the aggregate `{name}` cannot stand here")));
                }
                if *distinct {
                    return Err(Fault::new(expr.at, format!("`DISTINCT` belongs to aggregates, `{name}` is none")));
                }
                let parts: Vec<&Expr> = arguments.iter().collect();
                match (&**name, &parts[..]) {
                    ("if", [condition, then, otherwise]) => {
                        Expression::Case(vec![(of(condition)?, of(then)?)], Some(Box::new(of(otherwise)?)))
                    }
                    ("date_trunc", [unit, time]) => {
                        let micros = match &unit.kind {
                            Kind::Text(text) => super::time::unit(text),
                            _ => None,
                        };
                        let Some(micros) = micros.filter(|micros| *micros <= 86_400_000_000) else {
                            return Err(Fault::new(
                                unit.at,
                                format!("found {unit}, expected 'day', 'hour', 'minute' or 'second'"),
                            ));
                        };
                        Expression::call(Function::TimeFloor, [of(time)?, Expression::literal(micros)])
                    }
                    ("proctime" | "now" | "current_timestamp", []) => return Err(only_in_windows(expr.at)),
                    _ => match function(name) {
                        Some(function) => call(function, &parts)?,
                        None => return Err(unknown_function(expr.at, name)),
                    },
                }
            }
        })
    }

    /// The plan, without what no sink takes.
    fn finish(mut self, explain: bool) -> Result<Compiled> {
        let mut needed: BTreeSet<String> = BTreeSet::new();
        for node in self.plan.nodes.iter().rev() {
            if matches!(node.operator, Operator::Sink(_)) || needed.contains(&node.name) {
                needed.insert(node.name.clone());
                needed.extend(node.inputs.iter().cloned());
            }
        }
        self.plan.nodes.retain(|node| needed.contains(&node.name));
        self.reads.retain(|read| needed.contains(&read.node));
        if let Some((name, (_, at, _))) = self.sinks.iter().find(|(_, (_, _, is_fed))| !is_fed) {
            let message =
                format!("nothing goes into the sink `{name}`: expected `FROM`, `AS` or an `INSERT INTO {name}`");
            return Err(Fault::new(*at, message));
        }
        Ok(Compiled { plan: self.plan, reads: self.reads, settings: self.settings, explain })
    }
}

impl Rows {
    /// The same rows, called `name`.
    fn renamed(mut self, name: &str) -> Self {
        self.columns.iter_mut().for_each(|column| column.of = Some(name.to_owned()));
        self
    }

    /// Columns by which a sink tells rows apart.
    fn keys_named(&self, keys: Vec<(String, usize)>) -> Result<Vec<String>> {
        let found = keys.into_iter().map(|(key, at)| match self.columns.iter().any(|column| column.name == key) {
            true => Ok(key),
            false => Err(unknown(at, &key, self.columns.iter().map(|column| &*column.name))),
        });
        found.collect()
    }

    fn find(&self, of: Option<&str>, name: &str, at: usize) -> Result<&Column> {
        let mut found = self
            .columns
            .iter()
            .filter(|column| column.name == name && of.is_none_or(|of| column.of.as_deref() == Some(of)));
        match (found.next(), found.next()) {
            (Some(column), None) => Ok(column),
            (Some(_), Some(_)) => {
                Err(Fault::new(at, format!("`{name}` may be one of several columns: write whose it is before it")))
            }
            (None, _) => {
                if let Some(of) = of
                    && !self.columns.iter().any(|column| column.of.as_deref() == Some(of))
                {
                    return Err(Fault::new(at, format!("there is nothing of the name `{of}` here")));
                }
                Err(unknown(at, name, self.columns.iter().map(|column| &*column.name)))
            }
        }
    }

    /// How many microseconds `value` is after the event time; `None` when it is anything else.
    fn distance(&self, value: &Expression) -> Option<i64> {
        let (time, offset) = self.time.as_ref()?;
        match value {
            Expression::Call(function @ (Function::Add | Function::Sub), parts) => match &parts[..] {
                [base, Expression::Literal(Value::Int(micros))] => {
                    let base = self.distance(base)?;
                    if *function == Function::Add { base.checked_add(*micros) } else { base.checked_sub(*micros) }
                }
                _ => None,
            },
            other => (other.as_column()? == time).then(|| -offset),
        }
    }

    /// With columns of a collection beside it, whose fields the node has added.
    fn beside(self, node: String, columns: &[Column], before: &BTreeSet<String>) -> Self {
        let rename = |field: &str| if before.contains(field) { format!("right_{field}") } else { field.to_owned() };
        let mut all = self.columns.clone();
        for column in columns {
            if let Meaning::Is(value) = &column.value {
                all.push(Column { value: Meaning::Is(substituted(value, &rename)), ..column.clone() });
            }
        }
        Self { node, columns: all, keys: vec![], collection: None, ..self }
    }
}

impl Column {
    /// A field under its own name.
    fn field(name: &str) -> Self {
        Self { of: None, name: name.to_owned(), value: Meaning::Is(Expression::column(name)) }
    }

    fn is_field(&self, name: &str) -> bool {
        matches!(&self.value, Meaning::Is(value) if value.as_column() == Some(name))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
    Both,
    Neither,
}

/// Whose columns `term` reads; `None` when one is of neither.
fn sides(term: &Expr, left: &Rows, right: &Rows) -> Result<Option<Side>> {
    let (mut of_left, mut of_right, mut unknown) = (false, false, false);
    each_column(term, &mut |of, name, at| {
        match (left.find(of, name, at).is_ok(), right.find(of, name, at).is_ok()) {
            (true, true) => {
                return Err(Fault::new(
                    at,
                    format!("`{name}` may be one of several columns: write whose it is before it"),
                ));
            }
            (true, false) => of_left = true,
            (false, true) => of_right = true,
            (false, false) => unknown = true,
        }
        Ok(())
    })?;
    Ok(match (unknown, of_left, of_right) {
        (true, ..) => None,
        (_, true, true) => Some(Side::Both),
        (_, true, false) => Some(Side::Left),
        (_, false, true) => Some(Side::Right),
        _ => Some(Side::Neither),
    })
}

fn find_in(all: &[&Rows], of: Option<&str>, name: &str, at: usize) -> Result<()> {
    let mut first = None;
    for rows in all {
        match rows.find(of, name, at) {
            Ok(_) => return Ok(()),
            Err(fault) => first = Some(first.unwrap_or(fault)),
        }
    }
    first.map_or(Ok(()), Err)
}

/// The sides of `left value = right value`.
fn equality(term: &Expr, left: &Rows, right: &Rows) -> Option<(Expr, Expr)> {
    let Kind::Binary { operator: Sign::Eq, left: first, right: second } = &term.kind else { return None };
    match (sides(first, left, right).ok()??, sides(second, left, right).ok()??) {
        (Side::Left, Side::Right) => Some(((**first).clone(), (**second).clone())),
        (Side::Right, Side::Left) => Some(((**second).clone(), (**first).clone())),
        _ => None,
    }
}

/// The field that a column of `rows` is.
fn right_field<'r>(rows: &'r Rows, expr: &Expr) -> Option<&'r str> {
    let Kind::Column { of, name } = &expr.kind else { return None };
    match &rows.find(of.as_deref(), name, expr.at).ok()?.value {
        Meaning::Is(value) => value.as_column(),
        Meaning::Now => None,
    }
}

fn each_column(expr: &Expr, visit: &mut impl FnMut(Option<&str>, &str, usize) -> Result<()>) -> Result<()> {
    if let Kind::Column { of, name } = &expr.kind {
        visit(of.as_deref(), name, expr.at)?;
    }
    expr.kind.parts().into_iter().try_for_each(|part| each_column(part, visit))
}

/// Whether `term` is a part of `of`, by its place.
fn contains(of: &Expr, term: &Expr) -> bool {
    (of.at == term.at && of == term) || of.kind.parts().into_iter().any(|part| contains(part, term))
}

/// What must all be true for `expr` to be true.
fn conjuncts(expr: &Expr, into: &mut Vec<Expr>) {
    match &expr.kind {
        Kind::Logic { any: false, terms } => terms.iter().for_each(|term| conjuncts(term, into)),
        Kind::Between { value, low, high, not: false } => {
            let half = |operator, bound: &Expr| {
                Expr::new(expr.at, Kind::Binary { operator, left: value.clone(), right: Box::new(bound.clone()) })
            };
            into.extend([half(Sign::Ge, low), half(Sign::Le, high)]);
        }
        _ => into.push(expr.clone()),
    }
}

fn all_of(mut conditions: Vec<Expression>) -> Expression {
    while conditions.len() > 1 {
        conditions = conditions
            .chunks(255)
            .map(|few| if few.len() == 1 { few[0].clone() } else { Expression::Call(Function::And, few.to_vec()) })
            .collect();
    }
    conditions.pop().unwrap_or_else(|| Expression::literal(true))
}

fn mentions(expression: &Expression, field: &str) -> bool {
    match expression {
        Expression::Column(name) => name == field,
        Expression::Call(_, parts) => parts.iter().any(|part| mentions(part, field)),
        Expression::Case(branches, otherwise) => {
            branches.iter().any(|(when, then)| mentions(when, field) || mentions(then, field))
                || otherwise.as_ref().is_some_and(|value| mentions(value, field))
        }
        _ => false,
    }
}

fn substituted(expression: &Expression, rename: &impl Fn(&str) -> String) -> Expression {
    let of = |part: &Expression| substituted(part, rename);
    match expression {
        Expression::Column(name) => Expression::Column(rename(name)),
        Expression::Call(function, parts) => Expression::Call(*function, parts.iter().map(of).collect()),
        Expression::Case(branches, otherwise) => {
            let branches = branches.iter().map(|(when, then)| (of(when), of(then))).collect();
            Expression::Case(branches, otherwise.as_ref().map(|value| Box::new(of(value))))
        }
        other => other.clone(),
    }
}

fn is_bound(name: &str) -> bool {
    name == WINDOW_START || name == WINDOW_END
}

const fn span(window: Span) -> Window {
    match window {
        Span::Tumble { size, offset } => Window::Tumbling { size, offset, zone: None },
        Span::Hop { slide, size, offset } => Window::Sliding { size, slide, offset, zone: None },
        Span::Cumulate { step, size, offset } => Window::Cumulate { size, step, offset, zone: None },
        Span::Session { gap } => Window::Session { gap },
    }
}

/// The window of `TUMBLE(column, interval)` and its like in `GROUP BY`.
fn group_window(name: &str, arguments: &[Expr], at: usize) -> Result<Option<Window>> {
    let spans: Option<Vec<i64>> = arguments
        .iter()
        .skip(1)
        .map(|argument| if let Kind::Interval(micros) = argument.kind { Some(micros) } else { None })
        .collect();
    let window = match (name, spans.as_deref()) {
        ("tumble", Some([size])) => Window::Tumbling { size: *size, offset: 0, zone: None },
        ("hop", Some([slide, size])) => Window::Sliding { size: *size, slide: *slide, offset: 0, zone: None },
        ("session", Some([gap])) => Window::Session { gap: *gap },
        ("tumble" | "hop" | "session", _) => {
            return Err(Fault::new(
                at,
                format!("`{name}` in `GROUP BY` takes a column and intervals: one, of `hop` two"),
            ));
        }
        _ => return Ok(None),
    };
    Ok(Some(window))
}

fn function(name: &str) -> Option<Function> {
    Some(match name {
        "mod" => Function::Rem,
        "nullif" => Function::NullIf,
        "ceiling" => Function::Ceil,
        "substr" => Function::Substring,
        "char_length" | "character_length" => Function::Length,
        "json_value" => Function::JsonText,
        _ => Function::parse(name)?,
    })
}

fn unknown_function(at: usize, name: &str) -> Fault {
    let names = Function::names().chain(aggregates::NAMES.iter().copied());
    let hint = closest(name, names).map_or(String::new(), |near| format!(": did you mean `{near}`?"));
    Fault::new(at, format!("found `{name}`, which is no function{hint}"))
}

fn unknown<'n>(at: usize, name: &str, names: impl Iterator<Item = &'n str> + Clone) -> Fault {
    let hint = match closest(name, names.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let names: Vec<String> = names.take(20).map(|name| format!("`{name}`")).collect();
            format!("expected one of {}", names.join(", "))
        }
    };
    Fault::new(at, format!("found `{name}`, which is no column here: {hint}"))
}

fn unknown_collection<'n>(name: &Name, names: impl Iterator<Item = &'n str>) -> Fault {
    let hint = closest(&name.text, names).map_or(String::new(), |near| format!(": did you mean `{near}`?"));
    Fault::new(name.at, format!("found `{}`, which is no collection{hint}", name.text))
}

fn only_in_windows(at: usize) -> Fault {
    Fault::unsupported(at, "the time of processing anywhere but as the time of a window")
}

/// What is wrong with a plan, at the text that asked for it.
fn fault(at: usize, error: &Error) -> Fault {
    let message = error.message();
    let message = match message.strip_prefix("node \"").and_then(|rest| rest.split_once("\": ")) {
        Some((_, message)) => message,
        None => message,
    };
    Fault { kind: error.kind(), at, message: message.to_owned() }
}

/// How a column without an alias is called.
fn name_of(value: &Expr, index: usize) -> String {
    match &value.kind {
        Kind::Column { name, .. } => name.clone(),
        Kind::Call { name, .. } => name.clone(),
        Kind::CountAll => "count".into(),
        Kind::Cast { value, .. } => name_of(value, index),
        _ => format!("column_{}", index + 1),
    }
}

/// The columns that the text names; `None` when it has a star.
fn wanted(statements: &[Statement]) -> Option<BTreeSet<String>> {
    fn of_expr(expr: &Expr, names: &mut BTreeSet<String>) {
        if let Kind::Column { name, .. } = &expr.kind {
            names.insert(name.clone());
        }
        expr.kind.parts().into_iter().for_each(|part| of_expr(part, names));
    }
    fn of_source(from: &From, names: &mut BTreeSet<String>) -> bool {
        match from {
            From::Named { .. } => true,
            From::Query { query, .. } => of_query(query, names),
            From::Window { of, time, .. } => {
                of_expr(time, names);
                of_source(of, names)
            }
            From::Dedupe { of, keys, vector, .. } => {
                keys.iter().chain([&**vector]).for_each(|value| of_expr(value, names));
                of_source(of, names)
            }
            From::Nearest { vector, .. } => {
                of_expr(vector, names);
                true
            }
            From::Join { left, right, on, .. } => {
                on.iter().for_each(|on| of_expr(on, names));
                of_source(left, names) && of_source(right, names)
            }
        }
    }
    fn of_query(query: &Query, names: &mut BTreeSet<String>) -> bool {
        for item in &query.items {
            match item {
                Item::All(_) => return false,
                Item::One(value, _) => of_expr(value, names),
            }
        }
        let values = query
            .filter
            .iter()
            .chain(&query.groups)
            .chain(&query.having)
            .chain(query.order.iter().map(|order| &order.by));
        values.for_each(|value| of_expr(value, names));
        of_source(&query.from, names)
    }
    fn of_statement(statement: &Statement, names: &mut BTreeSet<String>) -> bool {
        match statement {
            Statement::Create(_) | Statement::Sink { of: None, .. } => true,
            // All of its columns.
            Statement::Sink { of: Some(SinkRows::From(_)), .. } => false,
            Statement::Sink { of: Some(SinkRows::As(query)), .. } => of_query(query, names),
            Statement::View { query, .. } | Statement::Insert { query, .. } | Statement::Select(query) => {
                of_query(query, names)
            }
            Statement::Explain(inner) => of_statement(inner, names),
        }
    }
    let mut names = BTreeSet::new();
    statements.iter().all(|statement| of_statement(statement, &mut names)).then_some(names)
}
