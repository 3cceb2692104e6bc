//! Exact search over vectors in an Arrow column: as they are kept, of 16-bit floats, bytes, bits or pairs.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_buffer::Buffer;
use arrow_schema::DataType;

use super::{Vectors, flat};
use crate::base::{Neighbor, TopK};
use crate::distance::{Metric, Sum, dot_sparse, kernels};
use crate::model::Value;
use crate::model::column::{number_bytes, unpair, widen};

/// Rows that are compared at once: they stay in the second-level cache for a second look.
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
            let mut kept = Kept::new(item.data_type(), *len as usize, &bytes, metric, query);
            let (mut block, mut distances) = (Vec::with_capacity(BLOCK), [0.0; BLOCK]);
            loop {
                block.clear();
                block.extend(rows.by_ref().take(BLOCK));
                if block.is_empty() {
                    break;
                }
                let distances = &mut distances[..block.len()];
                kept.distances(&block, distances);
                for (&row, &distance) in block.iter().zip(&*distances) {
                    closest.push(Neighbor { row, distance });
                }
            }
        }
        _ => unreachable!("a vector column is a list of numbers or of pairs"),
    }
    closest.into_sorted()
}

/// Rows in the form in which they are kept, and a query that is compared with them.
struct Kept<'a> {
    metric: Metric,
    bytes: &'a [u8],
    numbers: Numbers<'a>,
    /// One over the length of the query, where the metric asks for it.
    per_length: f32,
}

enum Numbers<'a> {
    Bits(&'a [u8]),
    F16(&'a [f32]),
    Bf16(&'a [f32]),
    /// Signed bytes, of which the query's numbers are ones too.
    Bytes(Vec<i8>),
    /// 32-bit floats.
    Floats(flat::Measure<'a>),
    /// Anything else is made 32-bit floats, block by block.
    Other {
        item: &'a DataType,
        query: &'a [f32],
        room: Vec<f32>,
    },
}

impl<'a> Kept<'a> {
    fn new(item: &'a DataType, len: usize, bytes: &'a Buffer, metric: Metric, query: &'a Value) -> Self {
        let query = match query {
            Value::Bytes(query) => {
                assert_eq!(query.len(), len, "a query of another dimension");
                return Self { metric, bytes, numbers: Numbers::Bits(query), per_length: 0.0 };
            }
            Value::Vector(query) => query,
            _ => unreachable!("a query is of its field's kind"),
        };
        assert_eq!(query.len(), len, "a query of another dimension");
        let whole = |&number: &f32| f32::from(number as i8) == number;
        let numbers = match item {
            DataType::Float16 => Numbers::F16(query),
            DataType::UInt16 => Numbers::Bf16(query),
            DataType::Int8 if query.iter().all(whole) => Numbers::Bytes(query.iter().map(|&x| x as i8).collect()),
            DataType::Float32 => {
                Numbers::Floats(flat::Measure::new(Vectors::new(bytes.typed_data(), len), metric, query))
            }
            _ => Numbers::Other { item, query, room: Vec::new() },
        };
        let per_length = match metric {
            Metric::Cosine => flat::per_length(kernels().dot(query, query)),
            _ => 1.0,
        };
        Self { metric, bytes, numbers, per_length }
    }

    /// The distances of `rows`, in their order, into `out`.
    fn distances(&mut self, rows: &[u32], out: &mut [f32]) {
        let (kernels, bytes) = (kernels(), self.bytes);
        match &mut self.numbers {
            Numbers::Bits(query) => return kernels.bits_gather(self.metric, query, bytes, rows, out),
            Numbers::Floats(measure) => return out.copy_from_slice(measure.gathered(rows)),
            Numbers::Other { item, query, room } => {
                let (dim, width) = (query.len(), item.primitive_width().unwrap_or(1) * query.len());
                room.resize(rows.len() * dim, 0.0);
                for (&row, numbers) in rows.iter().zip(room.chunks_exact_mut(dim)) {
                    widen(item, &bytes[row as usize * width..][..width], numbers);
                }
                let mut measure = flat::Measure::new(Vectors::new(room, dim), self.metric, query);
                return out.copy_from_slice(measure.consecutive(0..rows.len() as u32));
            }
            _ => {}
        }
        let sum = |sum: Sum, out: &mut [f32]| match &self.numbers {
            Numbers::F16(query) => kernels.f16_gather(sum, query, bytes, rows, out),
            Numbers::Bf16(query) => kernels.bf16_gather(sum, query, bytes, rows, out),
            Numbers::Bytes(query) => {
                let mut sums = [0; BLOCK];
                let sums = &mut sums[..rows.len()];
                kernels.i8_gather(sum, query, bytes, rows, sums);
                out.iter_mut().zip(sums).for_each(|(out, sum)| *out = *sum as f32);
            }
            _ => {}
        };
        sum(if self.metric == Metric::L2 { Sum::Squares } else { Sum::Products }, out);
        match self.metric {
            Metric::Ip => out.iter_mut().for_each(|product| *product = -*product),
            Metric::Cosine => {
                let mut own = [0.0; BLOCK];
                sum(Sum::Own, &mut own[..rows.len()]);
                for (out, own) in out.iter_mut().zip(own) {
                    *out = 1.0 - *out * self.per_length * flat::per_length(own);
                }
            }
            _ => {}
        }
    }
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
