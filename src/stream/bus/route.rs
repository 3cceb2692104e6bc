use std::collections::BTreeMap;
use std::sync::Arc;

use super::Event;
use super::spec::BusSpec;
use crate::base::{Error, Result, RowMask};
use crate::model::{Batch, DataType, Field, Row, Schema, Value};
use crate::query::{Filter, Parameters};

/// What the rows of a source's events have: what filters are checked with.
#[derive(Debug, Clone)]
pub struct Shape {
    schema: Arc<Schema>,
    /// A field that no row has: the number of the event among those that are looked at together.
    number: String,
}

impl Shape {
    /// Rows with these fields, and with others if `dynamic`. Vectors are not looked at.
    ///
    /// # Errors
    /// `InvalidArgument` for fields that are none.
    pub fn new(fields: &[Field], dynamic: bool) -> Result<Self> {
        let scalars = || fields.iter().filter(|field| !field.data_type.is_vector());
        let mut number = "event_number".to_owned();
        while scalars().any(|field| field.name == number) {
            number.push('_');
        }
        let mut all = vec![Field::new(&number, DataType::Int64)];
        all.extend(scalars().map(|field| Field::new(&field.name, field.data_type).nullable()));
        Ok(Self { schema: Arc::new(Schema::new(all, &number, dynamic)?), number })
    }

    /// Rows as filters look at them.
    ///
    /// # Errors
    /// `InvalidArgument` for rows that are none of this shape.
    pub fn batch(&self, rows: impl Iterator<Item = Row>) -> Result<Batch> {
        let fit = |(at, mut row): (usize, Row)| {
            row.retain(|name, value| {
                let is_known = self.schema.field(name).is_some() || self.schema.dynamic();
                is_known
                    && *name != self.number
                    && !matches!(value, Value::Vector(_) | Value::Sparse(_) | Value::Bytes(_))
            });
            row.insert(self.number.clone(), Value::Int(at as i64));
            row
        };
        Batch::from_rows(&self.schema, rows.enumerate().map(fit).collect())
    }

    fn filter(&self, text: &str) -> Result<Filter> {
        Filter::parse(text, &self.schema)
    }
}

/// A route as it is for the events of one source.
#[derive(Debug)]
struct Way {
    kinds: Vec<String>,
    key: Option<Filter>,
    filter: Option<Filter>,
    priority: i32,
    to: Vec<Arc<str>>,
}

/// A handler's cases for the events of one source.
#[derive(Debug)]
struct Cases {
    cases: Vec<(Filter, Arc<str>)>,
    otherwise: Option<Arc<str>>,
}

/// Where the events of a source go.
#[derive(Debug)]
pub(super) struct Ways {
    ways: Vec<Way>,
    cases: BTreeMap<Arc<str>, Cases>,
    shape: Shape,
    keys: Shape,
}

/// One way of an event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub handler: Arc<str>,
    pub priority: i32,
    /// The function of a handler with cases. None of them: there is nothing to do.
    pub case: Option<Option<Arc<str>>>,
}

const KEY: &str = "key";

impl Ways {
    /// Those of `source`, whose rows are of `shape`.
    pub fn new(spec: &BusSpec, source: &str, shape: Shape) -> Result<Self> {
        let keys = Shape::new(&[Field::new(KEY, DataType::Varchar { max_length: 65_535 })], false)?;
        let mut ways = vec![];
        for (at, route) in spec.routes.iter().enumerate() {
            if !route.from.is_empty() && !route.from.iter().any(|name| name == source) {
                continue;
            }
            let of = |member: &str, error: Error| error.context(format!("routes[{at}].{member} (source {source:?})"));
            let key = route.key_pattern.as_ref().map(|pattern| {
                let parameters = Parameters::from([("pattern".to_owned(), Value::String(pattern.clone()))]);
                Filter::parse_with("key like {pattern}", &keys.schema, &parameters)
                    .map_err(|error| of("keyPattern", Error::invalid(error.message())))
            });
            let filter = route.filter.as_ref().map(|text| shape.filter(text).map_err(|error| of("filter", error)));
            ways.push(Way {
                kinds: route.kinds.clone(),
                key: key.transpose()?,
                filter: filter.transpose()?,
                priority: route.priority,
                to: route.to.iter().map(|name| name.as_str().into()).collect(),
            });
        }
        let mut cases = BTreeMap::new();
        let is_reached = |name: &str| ways.iter().any(|way| way.to.iter().any(|to| **to == *name));
        for (name, handler) in spec.handlers.iter().filter(|(name, of)| !of.cases.is_empty() && is_reached(name)) {
            let case = |(at, case): (usize, &super::spec::BusCase)| {
                let filter = shape.filter(&case.filter).map_err(|error| {
                    error.context(format!("handlers.{name}.cases[{at}].filter (source {source:?})"))
                })?;
                Ok((filter, case.function.as_str().into()))
            };
            let of = handler.cases.iter().enumerate().map(case).collect::<Result<_>>()?;
            let otherwise = handler.otherwise.as_deref().map(Into::into);
            cases.insert(name.as_str().into(), Cases { cases: of, otherwise });
        }
        Ok(Self { ways, cases, shape, keys })
    }

    /// The handlers that events of the source may go to.
    pub fn handlers(&self) -> impl Iterator<Item = &Arc<str>> {
        self.ways.iter().flat_map(|way| &way.to)
    }

    /// For each event, where it goes: to each handler once, with the greatest priority of the routes that it fits.
    ///
    /// # Errors
    /// `InvalidArgument` for rows that are none of the source's shape.
    pub fn of(&self, events: &[Event]) -> Result<Vec<Vec<Step>>> {
        let has_filters = !self.cases.is_empty() || self.ways.iter().any(|way| way.filter.is_some());
        let rows = has_filters.then(|| self.shape.batch(events.iter().map(|event| event.row.clone()))).transpose()?;
        let key = |event: &Event| Row::from([(KEY.to_owned(), event.key_text().map_or(Value::Null, Value::String))]);
        let has_keys = self.ways.iter().any(|way| way.key.is_some());
        let keys = has_keys.then(|| self.keys.batch(events.iter().map(key))).transpose()?;
        let mask = |filter: &Option<Filter>, batch: &Option<Batch>| {
            filter.as_ref().zip(batch.as_ref()).map(|(filter, batch)| filter.evaluate(batch.scalars()))
        };
        let admits = |mask: &Option<RowMask>, at: usize| mask.as_ref().is_none_or(|mask| mask.contains(at));
        let mut steps: Vec<Vec<Step>> = vec![vec![]; events.len()];
        for way in &self.ways {
            let (passed, fits) = (mask(&way.filter, &rows), mask(&way.key, &keys));
            for (at, event) in events.iter().enumerate() {
                let is_kind = way.kinds.is_empty() || way.kinds.iter().any(|kind| **kind == *event.kind);
                if !is_kind || !admits(&passed, at) || !admits(&fits, at) {
                    continue;
                }
                for handler in &way.to {
                    match steps[at].iter_mut().find(|step| step.handler == *handler) {
                        Some(step) => step.priority = step.priority.max(way.priority),
                        None => {
                            steps[at].push(Step { handler: handler.clone(), priority: way.priority, case: None });
                        }
                    }
                }
            }
        }
        for (name, Cases { cases, otherwise }) in &self.cases {
            let masks: Vec<Option<RowMask>> =
                cases.iter().map(|(filter, _)| rows.as_ref().map(|rows| filter.evaluate(rows.scalars()))).collect();
            for (at, steps) in steps.iter_mut().enumerate() {
                for step in steps.iter_mut().filter(|step| step.handler == *name) {
                    let found = masks.iter().position(|mask| admits(mask, at)).map(|case| cases[case].1.clone());
                    step.case = Some(found.or_else(|| otherwise.clone()));
                }
            }
        }
        Ok(steps)
    }
}
