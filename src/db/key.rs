use super::Collection;
use crate::base::{Error, ReplicaId, Result, Timestamp};
use crate::model::{Batch, DataType, Row, Schema, Value};

/// Where the milliseconds of made integers begin: 2024-01-01. They have 41 bits, and end in 2093.
const EPOCH_MS: u64 = 1_704_067_200_000;
/// What tells the rows of one millisecond apart: 256 of one replica, and its clock goes on in the next one.
const COUNTER_BITS: u32 = 8;
/// What tells replicas apart.
const NUMBER_BITS: u32 = 14;
/// The greatest number that a replica can have.
pub(super) const NUMBER_MAX: u16 = (1 << NUMBER_BITS) - 1;
/// Digits of base 32 whose order is that of their bytes (Crockford's).
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Refuses to share rows whose keys another replica may make too.
///
/// # Errors
/// `InvalidArgument` for made `int64` keys when the store has no number.
#[cfg(hosted)]
pub(super) fn check_shared(name: &str, schema: &Schema, number: Option<u16>) -> Result<()> {
    if schema.auto_id() && schema.primary_key().data_type == DataType::Int64 && number.is_none() {
        return Err(Error::invalid(format!(
            "collection {name:?} makes int64 keys, which are unique among replicas with different numbers only: open this store with \
             replicaNumber, or have varchar keys"
        )));
    }
    Ok(())
}

impl Collection {
    /// `rows` as a batch of this collection; where the schema says so, those that lack a primary key get one.
    ///
    /// # Errors
    /// As of [`Batch::from_rows`].
    pub fn to_batch(&self, rows: Vec<Row>) -> Result<Batch> {
        self.to_batch_beside(rows, &[])
    }

    /// The same of rows whose vectors come [beside them](Batch::from_rows_beside).
    pub(crate) fn to_batch_beside(&self, mut rows: Vec<Row>, vectors: &[(&str, &[u8])]) -> Result<Batch> {
        let schema = &self.spec().schema;
        if schema.auto_id() {
            let name = &schema.primary_key().name;
            for row in &mut rows {
                if row.get(name).is_none_or(|key| *key == Value::Null) {
                    row.insert(name.clone(), self.make_key());
                }
            }
        }
        Batch::from_rows_beside(schema, rows, vectors)
    }

    /// A primary key that no row has: they ascend on one replica and are never given twice there.
    ///
    /// A `varchar` holds the hybrid time and the replica's id, each as 13 digits of base 32, so that no two replicas ever make the same.
    /// An `int64` has, from its highest bit on:
    ///
    /// | bits | what |
    /// |---|---|
    /// | 1 | 0 |
    /// | 41 | milliseconds since 2024 of the hybrid time |
    /// | 14 | the replica's number: [`Options::replica_number`](super::Options::replica_number) |
    /// | 8 | counts up within the millisecond; after 256 the hybrid clock goes on in the next one |
    ///
    /// So two replicas of different numbers never make the same, and to see that they are different is up to who gives them. A
    /// store without a number takes bits of its id instead: one in 16,384 pairs of such stores has those in common, and can make the same
    /// key in the same millisecond. That is why they do not sync such a collection. Such integers are past what JavaScript's
    /// numbers hold.
    pub fn make_key(&self) -> Value {
        let shared = &self.inner.shared;
        let now_ms = shared.options.environment.now_ms();
        let mut clock = shared.clock.lock().expect("no panic while held");
        match self.spec().schema.primary_key().data_type {
            DataType::Varchar { .. } => Value::String(text(clock.tick(now_ms), shared.replica)),
            _ => {
                let number = shared.replica_number.map_or_else(|| some_number(shared.replica), u64::from);
                Value::Int(integer(clock.tick_within(now_ms, COUNTER_BITS), number))
            }
        }
    }
}

/// Bits of an id, for a replica that has no number (Fibonacci hashing).
fn some_number(replica: ReplicaId) -> u64 {
    replica.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - NUMBER_BITS)
}

fn integer(time: Timestamp, number: u64) -> i64 {
    let ms = time.physical_ms().saturating_sub(EPOCH_MS);
    (((ms << NUMBER_BITS | number) << COUNTER_BITS | time.counter()) & i64::MAX as u64) as i64
}

fn text(time: Timestamp, replica: ReplicaId) -> String {
    let digit = |number: u64, at: u32| char::from(DIGITS[(number >> (5 * at) & 31) as usize]);
    [time.0, replica.0].iter().flat_map(|&number| (0..13).rev().map(move |at| digit(number, at))).collect()
}

#[cfg(native)]
#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::*;
    use crate::base::HybridClock;
    use crate::db::{Db, Options};
    use crate::engine::CollectionSpec;
    use crate::model::{Field, Key};
    use crate::platform::block_on;
    use crate::storage::MemoryDisk;

    #[test]
    fn texts_of_a_replica_ascend_and_those_of_two_differ() {
        let (ours, theirs) = (ReplicaId(0x1234_5678_9abc), ReplicaId(0x1234_5678_9abd));
        let times = (0..3).flat_map(|ms| (0..1000).map(move |counter| Timestamp::new(EPOCH_MS + 5_000 + ms, counter)));
        let mut texts = Vec::new();
        for time in times {
            texts.push(text(time, ours));
            assert_ne!(text(time, ours), text(time, theirs));
        }
        assert!(texts.is_sorted() && texts.iter().all(|text| text.len() == 26));
        assert_eq!(text(Timestamp(u64::MAX), ReplicaId(0)), "FZZZZZZZZZZZZ0000000000000");
    }

    /// Replicas whose clocks show the same all the time, and jump, and are moved by what they hear of.
    #[test]
    fn integers_of_replicas_with_different_numbers_differ() {
        let mut all = BTreeSet::new();
        for number in [0, 1, 2, 255, 256, 8_191, 8_192, NUMBER_MAX] {
            let mut clock = HybridClock::default();
            let mut before = -1;
            for step in 0..3_000 {
                let now_ms = EPOCH_MS + step / 600;
                if step % 500 == 7 {
                    clock.observe(Timestamp::new(now_ms + 3, 200_000), now_ms).unwrap();
                }
                let key = integer(clock.tick_within(now_ms, COUNTER_BITS), u64::from(number));
                assert!(key > before && all.insert(key), "{number}: {key} after {before}");
                before = key;
            }
        }
        let last = Timestamp::new(EPOCH_MS + (1 << 41) - 1, 255);
        assert_eq!(integer(last, u64::from(NUMBER_MAX)), i64::MAX);
        assert!((0..1_000).all(|id| some_number(ReplicaId(id << 13)) <= u64::from(NUMBER_MAX)));
    }

    #[test]
    fn a_store_keeps_its_number_until_it_is_given_another() {
        block_on(async {
            let disk = MemoryDisk::new();
            let open = async |replica_number| {
                let options = Options { replica_number, ..Options::default() };
                Db::open(Arc::new(disk.open().unwrap()), options).await
            };
            assert!(open(Some(16_384)).await.err().unwrap().message().contains("16383"));
            let mut keys = BTreeSet::new();
            for (given, number) in [(Some(5), 5), (None, 5), (Some(NUMBER_MAX), NUMBER_MAX), (None, NUMBER_MAX)] {
                let db = open(given).await.unwrap();
                let rows = match db.collection("rows") {
                    Ok(rows) => rows,
                    Err(_) => {
                        let schema = Schema::new(vec![Field::new("id", DataType::Int64)], "id", false).unwrap();
                        let spec = CollectionSpec {
                            schema: schema.with_auto_id().unwrap().into(),
                            indexes: Default::default(),
                            options: Default::default(),
                        };
                        db.create_collection("rows", spec).await.unwrap()
                    }
                };
                let batch = rows.to_batch(vec![Row::new(); 1_000]).unwrap();
                for key in batch.keys() {
                    let Key::Int(key) = key else { panic!("{key}") };
                    assert_eq!(key >> COUNTER_BITS & i64::from(NUMBER_MAX), i64::from(number));
                    assert!(keys.insert(key));
                }
                rows.insert(batch).await.unwrap();
            }
        });
    }
}
