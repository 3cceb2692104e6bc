use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use hashbrown::HashTable;

use crate::base::RowMask;
use crate::model::Key;
use crate::segment::Segment;

/// So often a flushed segment is looked through row by row, for keys that its filter takes for its own, before a table of its keys is
/// made: a table costs about as much as so many looks.
const LOOKS_MAX: u32 = 8;

/// Where the rows of each key of a segment are.
///
/// A growing segment has a table of its rows. A flushed one has a filter of its keys, which was written with it, and gets a table only
/// when keys that it may have are asked for more than a few times. So keys that are new cost a flushed segment nothing, neither time
/// nor memory: a table takes ten bytes a row, a filter two and a half.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    /// Rows by the hash of their key. Rows that died stay: whether a row lives is asked for each that is found.
    rows: OnceLock<HashTable<u32>>,
    looks: AtomicU32,
}

impl KeyTable {
    /// Of a segment that takes rows.
    pub(super) fn growing() -> Self {
        Self { rows: HashTable::new().into(), looks: AtomicU32::new(0) }
    }

    /// The living row of `segment` that has that key, of that hash.
    pub(super) fn find(&self, segment: &Segment, live: &RowMask, key: &Key, hash: u64) -> Option<u32> {
        if !segment.may_have_key(key, hash) {
            return None;
        }
        let fits = |&row: &u32| live.contains(row as usize) && segment.key_ref(row as usize) == *key;
        if self.rows.get().is_none() && self.looks.fetch_add(1, Ordering::Relaxed) < LOOKS_MAX {
            return live.iter().map(|row| row as u32).find(fits);
        }
        let rows = self.rows.get_or_init(|| {
            let mut rows = HashTable::with_capacity(live.count());
            let hash = |row: &u32| segment.key_ref(*row as usize).hash();
            for row in live.iter().map(|row| row as u32) {
                rows.insert_unique(hash(&row), row, hash);
            }
            rows
        });
        rows.find(hash, fits).copied()
    }

    /// Notes that a row lives from now on.
    pub(super) fn insert(&mut self, segment: &Segment, row: u32) {
        if let Some(rows) = self.rows.get_mut() {
            let hash = |row: &u32| segment.key_ref(*row as usize).hash();
            rows.insert_unique(hash(&row), row, hash);
        }
    }

    /// The bytes that it takes: a number and a tag for each place, of which an eighth stays free.
    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.get().map_or(0, |rows| rows.capacity() * 8 / 7 * 5)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::base::compress::Codec;
    use crate::base::{Lsn, SegmentId, Version};
    use crate::model::{Batch, Row, Schema, Value};
    use crate::segment::{self, FileKind};

    /// A flushed segment of every third integer.
    fn stored(rows: i64) -> Segment {
        let json = r#"{"fields":[{"name":"id","type":"varchar","primaryKey":true}]}"#;
        let schema: Arc<Schema> = Arc::new(serde_json::from_str(json).unwrap());
        let mut segment = Segment::new(SegmentId(1), &schema, &BTreeMap::new());
        let row = |id: i64| Row::from([("id".to_owned(), Value::String(format!("key {id}")))]);
        let batch = Batch::from_rows(&schema, (0..rows).map(|id| row(id * 3)).collect()).unwrap();
        segment.push(&batch, &vec![Version::default(); batch.len()], Lsn(1));
        let files = segment::encode(&segment, Codec::Zstd);
        let layout = files.iter().find(|file| file.kind == FileKind::Layout).unwrap();
        let names = files.iter().map(|file| (file.kind.clone(), format!("{:?}", file.kind))).collect();
        segment.store(segment::layout(&schema, "layout", &layout.bytes, &names).unwrap());
        segment
    }

    #[test]
    fn strangers_cost_a_flushed_segment_nothing() {
        let segment = stored(5_000);
        let mut live = RowMask::all(5_000);
        live.remove(7);
        let mut keys = KeyTable::default();
        let find = |keys: &KeyTable, id: i64| {
            let key = Key::from(format!("key {id}").as_str());
            keys.find(&segment, &live, &key, segment::hash_key(&key))
        };
        for id in (0..15_000).filter(|id| id % 3 != 0) {
            assert_eq!(find(&keys, id), None);
        }
        // All but one in 65,536 of them were told apart by the filter.
        assert!(keys.looks.load(Ordering::Relaxed) <= 3 && keys.memory_bytes() == 0);
        for row in 0..5_000 {
            assert_eq!(find(&keys, row * 3), (row != 7).then_some(row as u32), "row {row}");
        }
        assert!(keys.rows.get().is_some() && keys.memory_bytes() <= 5_000 * 11);
        keys.insert(&segment, 7);
        assert_eq!(find(&keys, 21), None, "it is known, and dead");
    }
}
