//! Exact search over vectors in an Arrow column: as they are kept, of 16-bit floats, bytes, bits or pairs.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;

use super::{Vectors, flat};
use crate::base::{Neighbor, TopK};
use crate::distance::{Metric, dot_sparse, hamming, jaccard};
use crate::model::Value;
use crate::model::column::{number_bytes, unpair, widen};

/// Rows that are made 32-bit floats at once: their numbers stay in the second-level cache.
const BLOCK: usize = 64;

/// The `k` rows of `rows` closest to `query`, closest first; of equal distances the lower row number. Rows without a vector are
/// not found, nor sparse ones that have no index in common with the query. `query` is in the form in which a row's value is read: [`Value::Vector`], [`Value::Bytes`] or [`Value::Sparse`].
///
/// Distances are the metric's, in full precision of what is kept. Panics when the query is of another kind or dimension than
/// the column, or when a row is past its end.
pub fn search(
    column: &ArrayRef,
    metric: Metric,
    query: &Value,
    k: usize,
    rows: impl Iterator<Item = u32>,
) -> Vec<Neighbor> {
    let mut rows = rows.filter(|&row| column.is_valid(row as usize));
    let mut closest = TopK::new(k);
    match (column.data_type(), query) {
        (DataType::List(_), Value::Sparse(query)) => {
            let lists = column.as_list::<i32>();
            let pairs = number_bytes(lists.values()).expect("pairs are numbers");
            let pairs = pairs.typed_data::<u64>();
            for row in rows {
                let range =
                    lists.value_offsets()[row as usize] as usize..lists.value_offsets()[row as usize + 1] as usize;
                if let Some(product) = dot_sparse(query, pairs[range].iter().map(|&pair| unpair(pair))) {
                    closest.push(Neighbor { row, distance: 0.0 - product });
                }
            }
        }
        (DataType::FixedSizeList(item, len), query) => {
            let bytes = number_bytes(column.as_fixed_size_list().values()).expect("vectors are of numbers");
            let width = item.data_type().primitive_width().unwrap_or(1) * *len as usize;
            let vector = |row: u32| &bytes[row as usize * width..(row as usize + 1) * width];
            match query {
                Value::Bytes(query) => {
                    let measure = if metric == Metric::Jaccard { jaccard } else { hamming };
                    rows.for_each(|row| closest.push(Neighbor { row, distance: measure(query, vector(row)) }));
                }
                Value::Vector(query) => {
                    let (dim, mut numbers, mut block) = (*len as usize, Vec::new(), Vec::new());
                    loop {
                        block.clear();
                        block.extend(rows.by_ref().take(BLOCK));
                        if block.is_empty() {
                            break;
                        }
                        numbers.resize(block.len() * dim, 0.0);
                        for (&row, numbers) in block.iter().zip(numbers.chunks_exact_mut(dim)) {
                            widen(item.data_type(), vector(row), numbers);
                        }
                        let all = 0..block.len() as u32;
                        for near in flat::search(Vectors::new(&numbers, dim), all, metric, query, k, None) {
                            closest.push(Neighbor { row: block[near.row as usize], distance: near.distance });
                        }
                    }
                }
                _ => unreachable!("a query is of its field's kind"),
            }
        }
        _ => unreachable!("a vector column is a list of numbers or of pairs"),
    }
    closest.into_sorted()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Batch, DataType, Field, Row, Schema};

    fn column(data_type: DataType, vectors: &[Option<Value>]) -> ArrayRef {
        let fields = vec![Field::new("id", DataType::Int64), Field::new("v", data_type).nullable()];
        let rows = vectors.iter().enumerate().map(|(id, vector)| {
            let vector = vector.clone().unwrap_or_default();
            Row::from([("id".to_owned(), Value::Int(id as i64)), ("v".to_owned(), vector)])
        });
        let schema = Arc::new(Schema::new(fields, "id", false).unwrap());
        Batch::from_rows(&schema, rows.collect()).unwrap().scalars().column(1).clone()
    }

    /// The truth, in 64 bits.
    fn distance(metric: Metric, query: &[f32], row: &[f32]) -> f64 {
        let pairs = || query.iter().zip(row).map(|(&left, &right)| (f64::from(left), f64::from(right)));
        let dot: f64 = pairs().map(|(left, right)| left * right).sum();
        let square = |side: &[f32]| side.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        match metric {
            Metric::L2 => pairs().map(|(left, right)| (left - right) * (left - right)).sum(),
            Metric::Ip => -dot,
            _ if square(query) == 0.0 || square(row) == 0.0 => 1.0,
            _ => 1.0 - dot / (square(query) * square(row)).sqrt(),
        }
    }

    proptest! {
        /// Values that every type holds exactly, so that the order is that of the truth.
        #[test]
        fn dense_ones_are_found_as_the_truth_says(
            data_type in prop::sample::select(vec![
                DataType::FloatVector { dim: 5 }, DataType::Float16Vector { dim: 5 },
                DataType::BFloat16Vector { dim: 5 }, DataType::Int8Vector { dim: 5 },
            ]),
            metric in prop::sample::select(vec![Metric::L2, Metric::Ip, Metric::Cosine]),
            rows in prop::collection::vec(prop::option::weighted(0.8, prop::collection::vec(-9i8..9, 5)), 0..150),
            query in prop::collection::vec(-9i8..9, 5),
            (start, k) in (0u32..20, 0usize..20),
        ) {
            let floats = |vector: Vec<i8>| vector.into_iter().map(f32::from).collect::<Vec<f32>>();
            let rows: Vec<Option<Vec<f32>>> = rows.into_iter().map(|row| row.map(floats)).collect();
            let query = floats(query);
            let values: Vec<Option<Value>> = rows.iter().map(|row| row.clone().map(Value::Vector)).collect();
            let wanted = start..(rows.len() as u32).max(start);
            let found = search(&column(data_type, &values), metric, &Value::Vector(query.clone()), k, wanted.clone());
            let mut truth: Vec<f64> = wanted
                .filter_map(|row| rows[row as usize].as_ref())
                .map(|row| distance(metric, &query, row))
                .collect();
            truth.sort_by(f64::total_cmp);
            truth.truncate(k);
            prop_assert_eq!(found.len(), truth.len());
            for (found, truth) in found.iter().zip(truth) {
                let row = rows[found.row as usize].as_ref().unwrap();
                // Products of small integers are exact; a cosine is rounded three times.
                prop_assert!((f64::from(found.distance) - truth).abs() <= 1e-6);
                prop_assert!((distance(metric, &query, row) - truth).abs() <= 1e-6);
            }
        }
    }

    #[test]
    fn bits_and_pairs_are_found() {
        let bits: Vec<Option<Value>> = [Some(vec![0b1111, 0]), None, Some(vec![0b0111, 0]), Some(vec![0, 0])]
            .map(|row| row.map(Value::Bytes))
            .into();
        let bits = column(DataType::BinaryVector { dim: 16 }, &bits);
        let found = |metric, k| -> Vec<(u32, f32)> {
            let found = search(&bits, metric, &Value::Bytes(vec![0b0011, 0]), k, 0..4);
            found.into_iter().map(|found| (found.row, found.distance)).collect()
        };
        assert_eq!(found(Metric::Hamming, 9), [(2, 1.0), (0, 2.0), (3, 2.0)]);
        assert_eq!(found(Metric::Jaccard, 2), [(2, 1.0 - 2.0 / 3.0), (0, 0.5)]);
        let pairs: Vec<Option<Value>> = [Some(vec![(1, 1.0), (7, 2.0)]), None, Some(vec![]), Some(vec![(7, 3.0)])]
            .map(|row| row.map(Value::Sparse))
            .into();
        let pairs = column(DataType::SparseFloatVector, &pairs);
        let query = Value::Sparse(vec![(1, 5.0), (7, 2.0), (9, 9.0)]);
        let found = search(&pairs.slice(1, 3), Metric::Ip, &query, 9, 0..3);
        assert_eq!(found.iter().map(|found| (found.row, found.distance)).collect::<Vec<_>>(), [(2, -6.0)]);
        assert_eq!(search(&pairs, Metric::Ip, &query, 1, 0..4)[0], Neighbor { row: 0, distance: -9.0 });
    }
}
