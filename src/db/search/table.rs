use std::collections::HashMap;

use arrow_array::{ArrayRef, RecordBatch};

use super::READ_ROWS;
use crate::base::{Error, Result, map_of, sort_by};
use crate::db::{Collection, QueryRequest};
use crate::engine::{Slot, View};
use crate::model::{DataType, Key, META_COLUMN, Row, Schema, Value, column};
use crate::platform::MaybeSend;
use crate::query::{Accumulator, Aggregate, Filter, Order, compare, group_key};
use crate::segment::{Blocks, Segment};

/// What looks at the values of rows.
trait Visitor: MaybeSend {
    fn visit(&mut self, segment: &Segment, row: u32, values: Vec<Value>);
}

/// Groups of rows, and what has become of them so far.
struct Groups {
    /// The values of the fields by which they are made, and the functions.
    groups: Vec<(Vec<Value>, Vec<Accumulator>)>,
    by_key: HashMap<String, usize>,
    /// How many of the values that are visited make the group.
    by: usize,
    /// Which value each function is of; of rows with `None`.
    aggregates: Vec<(Aggregate, Option<usize>)>,
}

impl Groups {
    fn group(&mut self, values: &[Value]) -> usize {
        let key = group_key(values);
        let next = self.groups.len();
        let at = *self.by_key.entry(key).or_insert(next);
        if at == next {
            let functions = self.aggregates.iter().map(|(aggregate, _)| Accumulator::new(aggregate.function));
            self.groups.push((values.to_vec(), functions.collect()));
        }
        at
    }
}

impl Visitor for Groups {
    fn visit(&mut self, _: &Segment, _: u32, values: Vec<Value>) {
        let at = self.group(&values[..self.by]);
        for (total, (_, field)) in self.groups[at].1.iter_mut().zip(&self.aggregates) {
            total.add(field.map_or(&Value::Bool(true), |field| &values[field]));
        }
    }
}

/// The first rows by an order.
struct Sorted {
    order: Order,
    rows: Vec<(Vec<Value>, Key)>,
    end: usize,
}

impl Sorted {
    fn cut(&mut self) {
        let Self { order, rows, end } = self;
        sort_by(rows, |a, b| order.compare(&a.0, &b.0).then_with(|| a.1.cmp(&b.1)));
        rows.truncate(*end);
    }
}

impl Visitor for Sorted {
    fn visit(&mut self, segment: &Segment, row: u32, values: Vec<Value>) {
        self.rows.push((values, segment.key(row as usize)));
        if self.rows.len() >= self.end.saturating_mul(2).max(READ_ROWS) {
            self.cut();
        }
    }
}

/// Reads the values of fields from the columns of a batch.
struct Reader<'a> {
    /// The column of each field; `None` where it is a key of the dynamic field.
    columns: Vec<Option<(&'a ArrayRef, DataType)>>,
    names: &'a [String],
    meta: Option<&'a ArrayRef>,
}

impl<'a> Reader<'a> {
    fn new(schema: &Schema, names: &'a [String], batch: &'a RecordBatch) -> Self {
        let column = |name: &String| Some((batch.column_by_name(name)?, schema.field(name)?.data_type));
        let columns: Vec<_> = names.iter().map(column).collect();
        let meta = if columns.iter().any(Option::is_none) { batch.column_by_name(META_COLUMN) } else { None };
        Self { columns, names, meta }
    }

    fn read(&self, row: usize) -> Vec<Value> {
        let dynamic = match self.meta.map(|meta| column::scalar(meta.as_ref(), DataType::Json, row)) {
            Some(Value::Json(serde_json::Value::Object(entries))) => entries,
            _ => serde_json::Map::new(),
        };
        let value = |(column, name): (&Option<(&ArrayRef, DataType)>, &String)| match column {
            Some((array, data_type)) => column::scalar(array.as_ref(), *data_type, row),
            None => dynamic.get(name).map_or(Value::Null, |json| Value::from(json.clone())),
        };
        self.columns.iter().zip(self.names).map(value).collect()
    }
}

impl Collection {
    /// Shows the values of `fields` in all rows that a filter admits.
    async fn visit(
        &self,
        filter: Option<&Filter>,
        view: &View,
        fields: &[String],
        visitor: &mut dyn Visitor,
    ) -> Result<()> {
        let schema = &self.spec().schema;
        let is_wanted = |column: &str| match column {
            META_COLUMN => fields.iter().any(|field| schema.field(field).is_none()),
            column => fields.iter().any(|field| field == column),
        };
        let mut later = Vec::new();
        {
            let state = self.state();
            let slots: Vec<&Slot> = state.slots().collect();
            for slot in slots {
                let segment = &slot.segment;
                let rows = match self.admitted(slot, filter, view) {
                    Ok(rows) => rows,
                    Err(segment) => {
                        later.push(segment);
                        continue;
                    }
                };
                let mut columns = schema.fields().iter().map(|field| field.name.as_str()).chain([META_COLUMN]);
                if columns.any(|column| is_wanted(column) && !segment.has(column)) {
                    let segment = segment.clone();
                    later.push(super::admit::Later { segment, visible: rows.clone(), admitted: Some(rows) });
                    continue;
                }
                for (start, chunk) in segment.chunks() {
                    let reader = Reader::new(schema, fields, chunk);
                    for row in rows.iter_from(start).take_while(|row| row - start < chunk.num_rows()) {
                        visitor.visit(segment, row as u32, reader.read(row - start));
                    }
                }
            }
        }
        for mut later in later {
            let rows = self.admitted_of(&mut later, filter).await?;
            let mut rows = rows.iter().map(|row| row as u32);
            loop {
                let part: Vec<u32> = rows.by_ref().take(READ_ROWS).collect();
                if part.is_empty() {
                    break;
                }
                let mut blocks = Blocks::default();
                let needs = later.segment.needs(&part, &is_wanted, &blocks);
                self.inner.shared.fetch(needs, &mut blocks, false).await?;
                let batch = later.segment.pick(&part, &is_wanted, &blocks);
                let reader = Reader::new(schema, fields, batch.scalars());
                part.iter().enumerate().for_each(|(at, &row)| visitor.visit(&later.segment, row, reader.read(at)));
            }
        }
        Ok(())
    }

    /// A field whose values can be ordered and counted.
    pub(super) fn check_column(&self, name: &str, what: &str) -> Result<()> {
        let schema = &self.spec().schema;
        match schema.field(name) {
            Some(field) if field.data_type.is_vector() => {
                Err(Error::invalid(format!("{what} {name:?}: a vector field has no order and no groups")))
            }
            None if !schema.dynamic() => {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name.as_str()).collect();
                Err(Error::invalid(format!("{what} {name:?}: no such field; there are: {}", names.join(", "))))
            }
            _ => Ok(()),
        }
    }

    /// The rows that the functions among the output fields come to, a row a group.
    pub(super) async fn read_groups(&self, request: &QueryRequest, view: &View) -> Result<Vec<Row>> {
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        let mut fields = request.group_by.clone();
        let mut aggregates = Vec::new();
        for name in request.output_fields.iter().flatten() {
            let Some(aggregate) = Aggregate::parse(name) else {
                if request.group_by.contains(name) {
                    continue;
                }
                return Err(Error::invalid(format!(
                    "output field {name:?} beside groups: expected count(*), or count, sum, min, max or avg of a field, or one of groupBy"
                )));
            };
            let at = aggregate.field.as_ref().map(|field| {
                fields.iter().position(|name| name == field).unwrap_or_else(|| {
                    fields.push(field.clone());
                    fields.len() - 1
                })
            });
            aggregates.push((aggregate, at));
        }
        for name in &fields {
            self.check_column(name, "group or function of")?;
        }
        let order = Order::parse(&request.order_by);
        let by = request.group_by.len();
        let names: Vec<&String> =
            request.group_by.iter().chain(aggregates.iter().map(|(aggregate, _)| &aggregate.name)).collect();
        let place = |field: &str| {
            let place = names.iter().position(|name| *name == field);
            place.ok_or_else(|| {
                Error::invalid(format!("orderBy {field:?}: expected one of groupBy, or an output field"))
            })
        };
        let places = order.fields().map(place).collect::<Result<Vec<usize>>>()?;
        let mut groups = Groups { groups: Vec::new(), by_key: HashMap::new(), by, aggregates: aggregates.clone() };
        if by == 0 {
            // Of no row there is a group too.
            groups.group(&[]);
        }
        self.visit(filter.as_ref(), view, &fields, &mut groups).await?;
        let finished = |(mut values, totals): (Vec<Value>, Vec<Accumulator>)| {
            values.extend(totals.into_iter().map(Accumulator::finish));
            values
        };
        let mut rows: Vec<Vec<Value>> = groups.groups.into_iter().map(finished).collect();
        let ordered = |row: &[Value]| places.iter().map(|&at| row[at].clone()).collect::<Vec<Value>>();
        sort_by(&mut rows, |a, b| {
            let wanted = order.compare(&ordered(a), &ordered(b));
            let mut groups = a.iter().zip(b).take(by).map(|(a, b)| compare(a, b));
            wanted.then_with(|| groups.find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal))
        });
        let rows = rows.into_iter().skip(request.offset).take(request.limit.unwrap_or(usize::MAX));
        Ok(rows.map(|row| map_of(names.iter().map(|name| (*name).clone()).zip(row))).collect())
    }

    /// The rows of a query by the order that it asks for; rows that it leaves alike by ascending key.
    pub(super) async fn read_ordered(&self, request: &QueryRequest, view: &View) -> Result<Vec<Row>> {
        let filter = self.filter(request.filter.as_deref(), &request.filter_params, &request.partitions)?;
        self.output_fields(request.output_fields.as_deref())?;
        let order = Order::parse(&request.order_by);
        order.fields().try_for_each(|field| self.check_column(field, "orderBy"))?;
        // The rows are read by their keys afterwards.
        let held = view.is_latest().then(|| self.snapshot()).transpose()?;
        let view = held.as_ref().map_or(*view, |held| View { lsn: held.lsn(), ..*view });
        let end = request.limit.map_or(usize::MAX, |limit| limit.saturating_add(request.offset));
        let fields: Vec<String> = order.fields().map(str::to_owned).collect();
        let mut sorted = Sorted { order, rows: Vec::new(), end };
        self.visit(filter.as_ref(), &view, &fields, &mut sorted).await?;
        sorted.cut();
        let keys: Vec<Key> = sorted.rows.into_iter().skip(request.offset).map(|(_, key)| key).collect();
        self.read_keys(&keys, request.output_fields.as_deref(), &[], &view).await
    }
}
