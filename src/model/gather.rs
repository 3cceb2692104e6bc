use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, FixedSizeListArray, ListArray, RecordBatch, RecordBatchOptions};
use arrow_buffer::{BooleanBuffer, MutableBuffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, SchemaRef};

use super::column::{number_bytes, numbers_array};

// Arrow's own kernels for this serve every type there is, and cost the browser three times what the rest of Arrow does.
// Columns of batches are bits, numbers of four widths, text, lists of these, or vectors, which are a number of bytes each.

/// A row of one of several parts.
type Pick = (u32, u32);

/// The rows at `rows`, in that order. Panics past the end.
pub(crate) fn take(batch: &RecordBatch, rows: &[u32]) -> RecordBatch {
    let picks: Vec<Pick> = rows.iter().map(|&row| (0, row)).collect();
    gather(batch.schema(), &[batch], &picks)
}

/// All rows of `batches`, which have `schema`, one batch after the other.
pub(crate) fn concat(schema: &SchemaRef, batches: &[&RecordBatch]) -> RecordBatch {
    if let [only] = batches {
        return (*only).clone();
    }
    let picks: Vec<Pick> = (0u32..)
        .zip(batches)
        .flat_map(|(part, batch)| (0..batch.num_rows() as u32).map(move |row| (part, row)))
        .collect();
    gather(schema.clone(), batches, &picks)
}

/// The rows at `picks`, each the number of a batch and of a row in it. Panics past the end.
pub(crate) fn gather(schema: SchemaRef, batches: &[&RecordBatch], picks: &[Pick]) -> RecordBatch {
    let columns = (0..schema.fields().len())
        .map(|index| {
            let parts: Vec<&dyn Array> = batches.iter().map(|batch| batch.column(index).as_ref()).collect();
            column(schema.field(index).data_type(), &parts, picks)
        })
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(picks.len()));
    RecordBatch::try_new_with_options(schema, columns, &options).expect("columns of the schema's types and one length")
}

fn column(data_type: &DataType, parts: &[&dyn Array], picks: &[Pick]) -> ArrayRef {
    let nulls = parts.iter().any(|part| part.null_count() > 0).then(|| {
        NullBuffer::new(BooleanBuffer::collect_bool(picks.len(), |at| {
            let (part, row) = picks[at];
            parts[part as usize].is_valid(row as usize)
        }))
    });
    match data_type {
        DataType::Boolean => {
            let parts: Vec<&BooleanArray> = parts.iter().map(|part| part.as_boolean()).collect();
            let bits = BooleanBuffer::collect_bool(picks.len(), |at| {
                let (part, row) = picks[at];
                parts[part as usize].value(row as usize)
            });
            Arc::new(BooleanArray::new(bits, nulls))
        }
        DataType::Utf8 => {
            let parts: Vec<_> = parts.iter().map(|part| part.as_string::<i32>()).collect();
            let mut builder = StringBuilder::with_capacity(picks.len(), 0);
            for &(part, row) in picks {
                let (part, row) = (parts[part as usize], row as usize);
                builder.append_option(part.is_valid(row).then(|| part.value(row)));
            }
            Arc::new(builder.finish())
        }
        DataType::List(item) => {
            let parts: Vec<&ListArray> = parts.iter().map(|part| part.as_list::<i32>()).collect();
            let mut items: Vec<Pick> = Vec::new();
            let lens = picks.iter().map(|&(part, row)| {
                let offsets = parts[part as usize].value_offsets();
                let range = offsets[row as usize] as u32..offsets[row as usize + 1] as u32;
                let len = range.len();
                items.extend(range.map(|item| (part, item)));
                len
            });
            let offsets = OffsetBuffer::from_lengths(lens.collect::<Vec<_>>());
            let values: Vec<&dyn Array> = parts.iter().map(|part| part.values().as_ref()).collect();
            Arc::new(ListArray::new(item.clone(), offsets, column(item.data_type(), &values, &items), nulls))
        }
        DataType::FixedSizeList(item, len) => {
            let width = item.data_type().primitive_width().expect("vectors are of numbers") * *len as usize;
            let parts: Vec<_> = parts
                .iter()
                .map(|part| number_bytes(part.as_fixed_size_list().values()).expect("vectors are of numbers"))
                .collect();
            let mut numbers = MutableBuffer::with_capacity(picks.len() * width);
            for &(part, row) in picks {
                numbers.extend_from_slice(&parts[part as usize][row as usize * width..(row as usize + 1) * width]);
            }
            let items = numbers_array(item.data_type().clone(), picks.len() * *len as usize, numbers, None);
            Arc::new(FixedSizeListArray::new(item.clone(), *len, items, nulls))
        }
        other => {
            let width = other.primitive_width().expect("other columns of batches are numbers");
            let mut numbers = MutableBuffer::from_len_zeroed(picks.len() * width);
            let parts: Vec<_> =
                parts.iter().map(|part| number_bytes(*part).expect("other columns of batches are numbers")).collect();
            let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_slice()).collect();
            match width {
                1 => copy::<1>(&parts, picks, &mut numbers),
                2 => copy::<2>(&parts, picks, &mut numbers),
                4 => copy::<4>(&parts, picks, &mut numbers),
                8 => copy::<8>(&parts, picks, &mut numbers),
                _ => unreachable!("batches have no column of type {other}"),
            }
            numbers_array(other.clone(), picks.len(), numbers, nulls)
        }
    }
}

/// Copies numbers of `WIDTH` bytes.
fn copy<const WIDTH: usize>(parts: &[&[u8]], picks: &[Pick], to: &mut [u8]) {
    let parts: Vec<&[[u8; WIDTH]]> = parts.iter().map(|part| part.as_chunks().0).collect();
    for (to, &(part, row)) in to.as_chunks_mut::<WIDTH>().0.iter_mut().zip(picks) {
        *to = parts[part as usize][row as usize];
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int16Type;
    use arrow_array::{BooleanArray, Float32Array, Float64Array, Int8Array, Int64Array, StringArray};
    use arrow_schema::{Field, Schema};
    use proptest::prelude::*;

    use super::*;

    type Row = (Option<bool>, Option<i64>, Option<f64>, Option<String>, Option<i8>, Option<Vec<i16>>);

    fn batch(rows: &[Row]) -> RecordBatch {
        let field = |name, data_type| Field::new(name, data_type, true);
        let schema = Schema::new(vec![
            field("a", DataType::Boolean),
            field("b", DataType::Int64),
            field("c", DataType::Float64),
            field("d", DataType::Utf8),
            field("e", DataType::Int8),
            field("f", DataType::Float32),
            field("g", DataType::new_list(DataType::Int16, true)),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.iter().map(|row| row.0).collect::<BooleanArray>()),
            Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()),
            Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
            Arc::new(rows.iter().map(|row| row.3.clone()).collect::<StringArray>()),
            Arc::new(rows.iter().map(|row| row.4).collect::<Int8Array>()),
            Arc::new(rows.iter().map(|row| row.4.map(f32::from)).collect::<Float32Array>()),
            Arc::new(ListArray::from_iter_primitive::<Int16Type, _, _>(
                rows.iter().map(|row| row.5.as_ref().map(|list| list.iter().map(|&value| Some(value)))),
            )),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    proptest! {
        #[test]
        fn rows_come_as_asked(
            rows in prop::collection::vec(
                any::<(Option<bool>, Option<i64>, Option<i32>, Option<String>, Option<i8>, Option<Vec<i16>>)>(), 1..20),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let rows: Vec<Row> = rows.into_iter().map(|(a, b, c, d, e, f)| (a, b, c.map(f64::from), d, e, f)).collect();
            let whole = batch(&rows);
            let at: Vec<u32> = at.iter().map(|index| index.index(rows.len()) as u32).collect();
            let taken: Vec<Row> = at.iter().map(|&row| rows[row as usize].clone()).collect();
            prop_assert_eq!(take(&whole, &at), batch(&taken));
            let (left, right) = rows.split_at(cut.index(rows.len() + 1));
            prop_assert_eq!(concat(&whole.schema(), &[&batch(left), &batch(&[]), &batch(right)]), whole);
        }
    }
}
