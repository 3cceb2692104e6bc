use std::sync::Arc;

use arrow_array::RecordBatch;

use super::plan::Relation;
use super::rows::{Rows, Scalar, View, arrow_schema, batch_of};
use crate::model::column::{Column, Finished};
use crate::model::{DataType, Row, Value};

impl Relation {
    /// Rows of this relation as a batch, and those that do not fit, by number, with what is wrong with them. Fields that a row has and the
    /// relation has not are left out.
    pub fn batch(&self, rows: &[Row]) -> (RecordBatch, Vec<(usize, String)>) {
        let mut wrong: Vec<(usize, String)> = vec![];
        let mut columns: Vec<_> =
            self.fields.iter().map(|field| Column::new(field.data_type, false, rows.len())).collect();
        for (number, row) in rows.iter().enumerate() {
            let mut fault = None;
            for (column, field) in columns.iter_mut().zip(&self.fields) {
                let value = row.get(&field.name).unwrap_or(&Value::Null);
                let result = match value {
                    _ if fault.is_some() => Err(String::new()),
                    Value::Null if field.nullable => {
                        column.push_null();
                        continue;
                    }
                    Value::Null => Err("it is null, and may not be".to_owned()),
                    value => column.push(value.into()).map(|_| ()),
                };
                if let Err(what) = result {
                    column.push_null();
                    fault.get_or_insert_with(|| format!("field {:?}: {what}", field.name));
                }
            }
            wrong.extend(fault.map(|fault| (number, fault)));
        }
        let schema = arrow_schema(&self.fields);
        let arrays = columns
            .into_iter()
            .map(|column| match column.finish() {
                Finished::Scalar(array) => array,
                Finished::Vector { .. } => unreachable!("columns are not kept apart"),
            })
            .collect();
        let batch = batch_of(&schema, arrays, rows.len());
        if wrong.is_empty() {
            return (batch, wrong);
        }
        let good: Vec<u32> = (0..rows.len() as u32)
            .filter(|row| wrong.binary_search_by_key(&(*row as usize), |(number, _)| *number).is_err())
            .collect();
        (crate::model::gather::take(&batch, &good), wrong)
    }
}

impl Rows {
    /// The rows by field. JSON is parsed.
    pub fn to_rows(&self, relation: &Relation) -> Vec<Row> {
        let views = View::all(&self.batch);
        let names: Vec<String> = self.batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        (0..self.len())
            .map(|row| {
                let values = names.iter().zip(&views).map(|(name, view)| {
                    let is_json =
                        relation.position(name).is_some_and(|at| relation.fields[at].data_type == DataType::Json);
                    let value = match view.cell(row).keep() {
                        Scalar::Null => Value::Null,
                        Scalar::Bool(value) => Value::Bool(value),
                        Scalar::Int(int) => Value::Int(int),
                        Scalar::Double(double) => Value::Double(double),
                        Scalar::Text(text) if is_json => serde_json::from_str(&text).map_or(Value::Null, Value::Json),
                        Scalar::Text(text) => Value::String(text.into()),
                        Scalar::Vector(numbers) => Value::Vector(numbers.into()),
                    };
                    (name.clone(), value)
                });
                values.collect()
            })
            .collect()
    }

    /// Whether row `row` is taken back.
    pub fn is_retraction(&self, row: usize) -> bool {
        self.is_taken_back(row)
    }

    /// Rows of a batch that stand for themselves.
    pub fn new(batch: RecordBatch, times: impl Into<Arc<[i64]>>) -> Self {
        Self { batch, times: times.into(), taken_back: None }
    }
}
