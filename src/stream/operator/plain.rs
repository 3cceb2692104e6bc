use std::sync::Arc;

use arrow_array::Array as _;
use arrow_array::cast::AsArray;
use arrow_schema::SchemaRef;

use super::{Context, Item, Operate};
use crate::base::Result;
use crate::model::DataType;
use crate::query::compute::{Computed, Expression};
use crate::stream::plan::Relation;
use crate::stream::rows::{Build, Cell, Rows, arrow_schema};
use crate::stream::span::Spans;

/// The same rows, under the names that this node gives them.
pub(super) struct Pass {
    schema: SchemaRef,
}

impl Pass {
    pub fn new(gives: &Relation) -> Self {
        Self { schema: arrow_schema(&gives.fields) }
    }
}

impl Operate for Pass {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        // Without inputs a sink takes late rows, whatever they are.
        let rows = if self.schema.fields().len() == rows.batch.num_columns() {
            rows.with(&self.schema, rows.batch.columns().to_vec())
        } else {
            rows
        };
        cx.out.push(Item::Rows(rows));
        Ok(())
    }
}

pub(super) struct Filter {
    condition: Computed,
}

impl Filter {
    pub fn new(condition: &Expression, input: &Relation) -> Result<Self> {
        Ok(Self { condition: condition.bind(&input.fields)? })
    }
}

impl Operate for Filter {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        let picks: Vec<u32> = self.condition.truth(&rows.batch).set_indices().map(|row| row as u32).collect();
        if !picks.is_empty() {
            cx.out.push(Item::Rows(rows.take(&picks)));
        }
        Ok(())
    }
}

pub(super) struct Project {
    columns: Vec<Computed>,
    schema: SchemaRef,
}

impl Project {
    pub fn new(columns: &[(String, Expression)], input: &Relation, gives: &Relation) -> Result<Self> {
        let columns = columns.iter().map(|(_, value)| value.bind(&input.fields)).collect::<Result<_>>()?;
        Ok(Self { columns, schema: arrow_schema(&gives.fields) })
    }
}

impl Operate for Project {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        let columns = self.columns.iter().map(|column| column.evaluate(&rows.batch)).collect();
        cx.out.push(Item::Rows(rows.with(&self.schema, columns)));
        Ok(())
    }
}

pub(super) struct Unnest {
    at: usize,
    item: DataType,
    schema: SchemaRef,
}

impl Unnest {
    pub fn new(field: &str, input: &Relation, gives: &Relation) -> Self {
        let at = input.position(field).unwrap_or_default();
        let item = gives.fields.last().map_or(DataType::Json, |field| field.data_type);
        Self { at, item, schema: arrow_schema(&gives.fields) }
    }
}

impl Operate for Unnest {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        let (mut picks, mut items) = (vec![], Build::new(self.item));
        let texts = rows.batch.column(self.at).as_string::<i32>();
        for row in (0..rows.len()).filter(|row| texts.is_valid(*row)) {
            let Ok(serde_json::Value::Array(values)) = serde_json::from_str(texts.value(row)) else { continue };
            for value in values {
                picks.push(row as u32);
                let text;
                items.push(match (self.item, &value) {
                    (_, serde_json::Value::Null) => Cell::Null,
                    (DataType::Json, value) => {
                        text = value.to_string();
                        Cell::Text(&text)
                    }
                    (DataType::Varchar { .. }, serde_json::Value::String(text)) => Cell::Text(text),
                    (DataType::Bool, serde_json::Value::Bool(value)) => Cell::Bool(*value),
                    (DataType::Int64 | DataType::Timestamp, value) => value.as_i64().map_or(Cell::Null, Cell::Int),
                    (DataType::Double, value) => value.as_f64().map_or(Cell::Null, Cell::Double),
                    _ => Cell::Null,
                });
            }
        }
        if !picks.is_empty() {
            let taken = rows.take(&picks);
            let mut columns = taken.batch.columns().to_vec();
            columns.push(items.finish());
            cx.out.push(Item::Rows(taken.with(&self.schema, columns)));
        }
        Ok(())
    }
}

/// Gives rows the bounds of their windows.
pub(super) struct Attach {
    spans: Spans,
    processing_time: bool,
    schema: SchemaRef,
}

impl Attach {
    pub fn new(spans: Spans, processing_time: bool, gives: &Relation) -> Self {
        Self { spans, processing_time, schema: arrow_schema(&gives.fields) }
    }
}

impl Operate for Attach {
    fn rows(&mut self, _input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()> {
        let (mut picks, mut found) = (Vec::with_capacity(rows.len()), vec![]);
        let [mut starts, mut ends] = [Build::new(DataType::Timestamp), Build::new(DataType::Timestamp)];
        let mut times = Vec::with_capacity(rows.len());
        for row in 0..rows.len() {
            let time = if self.processing_time { cx.now } else { rows.times[row] };
            self.spans.of(time, &mut found);
            for (start, end) in &found {
                picks.push(row as u32);
                times.push(time);
                starts.push(Cell::Int(*start));
                ends.push(Cell::Int(*end));
            }
        }
        let taken = Rows { times: Arc::from(times), ..rows.take(&picks) };
        let mut columns = taken.batch.columns().to_vec();
        columns.extend([starts.finish(), ends.finish()]);
        cx.out.push(Item::Rows(taken.with(&self.schema, columns)));
        Ok(())
    }
}
