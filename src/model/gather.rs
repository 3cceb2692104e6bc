use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, BooleanArray, PrimitiveArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, SchemaRef};

// Arrow's own kernels for this serve every type there is, and cost the browser three times what the rest of Arrow does.
// Batches have columns of four types.

/// The rows at `rows`, in that order. Panics past the end.
pub(crate) fn take(batch: &RecordBatch, rows: &[u32]) -> RecordBatch {
    let pick = || rows.iter().map(|&row| (0, row as usize));
    gather(batch.schema(), &[batch], rows.len(), pick)
}

/// All rows of `batches`, which have `schema`, one batch after the other.
pub(crate) fn concat(schema: &SchemaRef, batches: &[&RecordBatch]) -> RecordBatch {
    if let [only] = batches {
        return (*only).clone();
    }
    let rows = batches.iter().map(|batch| batch.num_rows()).sum();
    let pick =
        || batches.iter().enumerate().flat_map(|(part, batch)| (0..batch.num_rows()).map(move |row| (part, row)));
    gather(schema.clone(), batches, rows, pick)
}

fn gather<I: Iterator<Item = (usize, usize)>>(
    schema: SchemaRef,
    batches: &[&RecordBatch],
    rows: usize,
    pick: impl Fn() -> I,
) -> RecordBatch {
    let column = |(index, field): (usize, &Arc<arrow_schema::Field>)| -> ArrayRef {
        let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
        match field.data_type() {
            DataType::Boolean => {
                let parts: Vec<&BooleanArray> = parts.iter().map(|part| part.as_boolean()).collect();
                let value = |(part, row): (usize, usize)| parts[part].is_valid(row).then(|| parts[part].value(row));
                Arc::new(pick().map(value).collect::<BooleanArray>())
            }
            DataType::Int64 => Arc::new(numbers::<Int64Type>(&parts, pick())),
            DataType::Float64 => Arc::new(numbers::<Float64Type>(&parts, pick())),
            DataType::Utf8 => {
                let parts: Vec<_> = parts.iter().map(|part| part.as_string::<i32>()).collect();
                let mut builder = StringBuilder::with_capacity(rows, 0);
                for (part, row) in pick() {
                    builder.append_option(parts[part].is_valid(row).then(|| parts[part].value(row)));
                }
                Arc::new(builder.finish())
            }
            other => unreachable!("batches have no column of type {other}"),
        }
    };
    let columns = schema.fields().iter().enumerate().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, columns, &options).expect("columns of the schema's types and one length")
}

fn numbers<T: ArrowPrimitiveType>(
    parts: &[&dyn Array],
    pick: impl Iterator<Item = (usize, usize)>,
) -> PrimitiveArray<T> {
    let parts: Vec<&PrimitiveArray<T>> = parts.iter().map(|part| part.as_primitive::<T>()).collect();
    pick.map(|(part, row)| parts[part].is_valid(row).then(|| parts[part].value(row))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BooleanArray, Float64Array, Int64Array, StringArray};
    use arrow_schema::{Field, Schema};
    use proptest::prelude::*;

    use super::*;

    type Row = (Option<bool>, Option<i64>, Option<f64>, Option<String>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let field = |name, data_type| Field::new(name, data_type, true);
        let schema = Schema::new(vec![
            field("a", DataType::Boolean),
            field("b", DataType::Int64),
            field("c", DataType::Float64),
            field("d", DataType::Utf8),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.3.clone()).collect::<StringArray>()),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    proptest! {
        #[test]
        fn rows_come_as_asked(
            rows in prop::collection::vec(any::<(Option<bool>, Option<i64>, Option<i32>, Option<String>)>(), 1..40),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<Row> = rows.into_iter().map(|(a, b, c, d)| (a, b, c.map(f64::from), d)).collect();
            let whole = batch(&rows);
            let at: Vec<u32> = at.iter().map(|index| index.index(rows.len()) as u32).collect();
            let taken: Vec<Row> = at.iter().map(|&row| rows[row as usize].clone()).collect();
            prop_assert_eq!(take(&whole, &at), batch(&taken));
            let (left, right) = rows.split_at(cut.index(rows.len() + 1));
            prop_assert_eq!(concat(&whole.schema(), &[&batch(left), &batch(&[]), &batch(right)]), whole);
        }
    }
}
