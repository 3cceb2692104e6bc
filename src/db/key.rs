use super::Collection;
use crate::base::{ReplicaId, Result, Timestamp};
use crate::model::{Batch, DataType, Row, Value};

/// Where the milliseconds of made integers begin: 2024-01-01. They have 41 bits, and end in 2093.
const EPOCH_MS: u64 = 1_704_067_200_000;
/// What tells the rows of one millisecond apart.
const REST_BITS: u32 = 22;
/// Digits of base 32 whose order is that of their bytes (Crockford's).
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

impl Collection {
    /// `rows` as a batch of this collection; where the schema says so, those that lack a primary key get one.
    ///
    /// # Errors
    /// As of [`Batch::from_rows`].
    pub fn to_batch(&self, mut rows: Vec<Row>) -> Result<Batch> {
        let schema = &self.spec().schema;
        if schema.auto_id() {
            let name = &schema.primary_key().name;
            for row in &mut rows {
                if row.get(name).is_none_or(|key| *key == Value::Null) {
                    row.insert(name.clone(), self.make_key());
                }
            }
        }
        Batch::from_rows(schema, rows)
    }

    /// A primary key that no row has.
    ///
    /// They ascend on one replica and are never given twice there. A `varchar` holds the hybrid time and the replica's id, each as 13
    /// digits of base 32, so that no two replicas ever make the same. An `int64` has 41 bits for the milliseconds and 22 for the rest:
    /// two replicas that write so many rows as `a` and `b` in the same millisecond make one key in common with odds of about `a * b` to
    /// four million. Such integers are past what JavaScript's numbers hold.
    pub fn make_key(&self) -> Value {
        let shared = &self.inner.shared;
        let time = shared.clock.lock().expect("no panic while held").tick(shared.options.environment.now_ms());
        match self.spec().schema.primary_key().data_type {
            DataType::Varchar { .. } => Value::String(text(time, shared.replica)),
            _ => Value::Int(integer(time, shared.replica)),
        }
    }
}

fn integer(time: Timestamp, replica: ReplicaId) -> i64 {
    // Each replica counts from a place of its own (Fibonacci hashing), so that those that write at once seldom meet.
    let place = replica.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - REST_BITS);
    let rest = (place + time.counter()) & ((1 << REST_BITS) - 1);
    ((time.physical_ms().saturating_sub(EPOCH_MS) << REST_BITS | rest) & i64::MAX as u64) as i64
}

fn text(time: Timestamp, replica: ReplicaId) -> String {
    let digit = |number: u64, at: u32| char::from(DIGITS[(number >> (5 * at) & 31) as usize]);
    [time.0, replica.0].iter().flat_map(|&number| (0..13).rev().map(move |at| digit(number, at))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn keys_of_a_replica_ascend_and_those_of_two_differ() {
        let (ours, theirs) = (ReplicaId(0x1234_5678_9abc), ReplicaId(0x1234_5678_9abd));
        let times = (0..3).flat_map(|ms| (0..1000).map(move |counter| Timestamp::new(EPOCH_MS + 5_000 + ms, counter)));
        let mut integers = BTreeSet::new();
        let mut texts = Vec::new();
        for time in times {
            assert!(integers.insert(integer(time, ours)) && integers.insert(integer(time, theirs)));
            texts.push(text(time, ours));
            assert_ne!(text(time, ours), text(time, theirs));
        }
        assert!(texts.is_sorted() && texts.iter().all(|text| text.len() == 26));
        assert!(integers.iter().all(|&integer| integer > 0));
        assert_eq!(text(Timestamp(u64::MAX), ReplicaId(0)), "FZZZZZZZZZZZZ0000000000000");
    }

    /// The counter may be near its end when a replica begins near the end of the rest: it goes round, and stays in its millisecond.
    #[test]
    fn the_rest_goes_round_within_its_millisecond() {
        for replica in (1..200).map(|seed: u64| ReplicaId(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) >> 11)) {
            for counter in [0, 1, (1 << 18) - 1] {
                let key = integer(Timestamp::new(EPOCH_MS + 7, counter), replica);
                assert_eq!(key >> REST_BITS, 7);
            }
        }
    }
}
