use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::Bytes;
use hashbrown::HashMap;

use super::database::Shared;
use super::{Collection, Db};
use crate::base::{Error, Result};
use crate::engine::{CollectionState, Memory, Movable, choose_move};
use crate::segment::{BlockRef, Blocks, batch_bytes};

/// Blocks that lie one after the other are read together, up to this much.
const READ_BYTES_MAX: u64 = 1 << 20;
/// A block that had to be decompressed outlives as many reads of others as this, for it costs so much more to have again.
const PACKED_BONUS: u64 = 256;

/// Blocks that were read, the least recently used ones given up when they are too many. Files have names of their own and never
/// change, so that nothing in here is ever wrong.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<(Arc<str>, usize), Entry>,
    bytes: usize,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    rows: Arc<RecordBatch>,
    bytes: usize,
    /// The clock at the last use, later for what is dear.
    worth: u64,
}

impl Cache {
    /// What it holds, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn worth(&mut self, packed: bool) -> u64 {
        self.clock += 1;
        self.clock + if packed { PACKED_BONUS } else { 0 }
    }

    fn get(&mut self, block: &BlockRef) -> Option<Arc<RecordBatch>> {
        let worth = self.worth(block.is_packed());
        let entry = self.entries.get_mut(&(block.group.name.clone(), block.index))?;
        entry.worth = worth;
        Some(entry.rows.clone())
    }

    fn insert(&mut self, block: &BlockRef, rows: &Arc<RecordBatch>, capacity: usize) {
        let bytes = batch_bytes(rows);
        let worth = self.worth(block.is_packed());
        let entry = Entry { rows: rows.clone(), bytes, worth };
        self.bytes += bytes;
        if let Some(old) = self.entries.insert((block.group.name.clone(), block.index), entry) {
            self.bytes -= old.bytes;
        }
        self.shrink(capacity);
    }

    /// Gives up what is worth least until no more than `capacity` bytes are held.
    pub(super) fn shrink(&mut self, capacity: usize) {
        while self.bytes > capacity {
            let Some((key, _)) = self.entries.iter().min_by_key(|(_, entry)| entry.worth) else { return };
            let key = key.clone();
            if let Some(entry) = self.entries.remove(&key) {
                self.bytes -= entry.bytes;
            }
        }
    }
}

impl Shared {
    /// Reads what is in `needs` into `blocks`, out of the cache where it is there; with `keep`, the cache keeps it.
    ///
    /// # Errors
    /// What the storage says, and `Corrupt` for bytes that are not those that were written.
    pub(super) async fn fetch(&self, mut needs: Vec<BlockRef>, blocks: &mut Blocks, keep: bool) -> Result<()> {
        {
            let mut cache = self.cache.lock().expect("no panic while held");
            needs.retain(|block| match cache.get(block) {
                Some(rows) => {
                    blocks.insert(block, rows);
                    false
                }
                None => true,
            });
        }
        let mut rest = needs.as_slice();
        while let Some(first) = rest.first() {
            let start = first.place().offset;
            let mut end = start;
            let follows = |block: &&BlockRef| {
                let place = block.place();
                let next = block.group.name == first.group.name && place.offset == end;
                end = place.offset + u64::from(place.len);
                next && end - start <= READ_BYTES_MAX.max(u64::from(first.place().len))
            };
            let (run, after) = rest.split_at(rest.iter().take_while(follows).count().max(1));
            rest = after;
            let len: u64 = run.iter().map(|block| u64::from(block.place().len)).sum();
            let bytes = self.storage.read(&first.group.name, start, len).await?;
            for block in run {
                let rows = Arc::new(block.group.read(block.index, slice(&bytes, block, start)?)?);
                if keep {
                    let capacity = self.cache_capacity();
                    self.cache.lock().expect("no panic while held").insert(block, &rows, capacity);
                }
                blocks.insert(block, rows);
            }
        }
        Ok(())
    }
}

fn slice<'a>(bytes: &'a Bytes, block: &BlockRef, start: u64) -> Result<&'a [u8]> {
    let place = block.place();
    let from = (place.offset - start) as usize;
    bytes.get(from..from + place.len as usize).ok_or_else(|| {
        Error::corrupt(format!("{}: at byte {start}: {} bytes were read", block.group.name, bytes.len()))
    })
}

/// What of the limit the cache may take at most and at least.
const CACHE_SHARE: usize = 4;
const CACHE_SHARE_MIN: usize = 16;

impl Collection {
    fn with_state<T>(&self, read: impl FnOnce(&CollectionState) -> T) -> T {
        read(&self.inner.state.read().expect("no panic while held"))
    }
}

impl Db {
    /// What is held in memory, over all collections.
    pub fn memory(&self) -> Memory {
        let cache = self.inner.shared.cache.lock().expect("no panic while held").bytes();
        let mut memory = Memory { cache, ..Memory::default() };
        for collection in self.collections() {
            memory += collection.inner.state.read().expect("no panic while held").memory();
            memory += self.memory_of_merge(&collection);
        }
        memory
    }

    /// One move of a file into memory or out of it, when the limit calls for one; tells whether it did.
    pub(super) async fn balance(&self) -> Result<bool> {
        let Some(limit) = self.inner.shared.options.memory_limit_bytes else { return Ok(false) };
        let collections = self.collections();
        let mut files = Vec::new();
        let mut memory = Memory::default();
        for (at, collection) in collections.iter().enumerate() {
            let state = collection.inner.state.read().expect("no panic while held");
            memory += state.memory();
            memory += self.memory_of_merge(collection);
            files.extend(state.movables().into_iter().map(|file| (at, file)));
        }
        // What stays in memory whatever is moved; wide columns count by what they take, moved ones by what they will.
        let moved: usize = files.iter().filter(|(_, file)| file.loaded).map(|(_, file)| file.bytes).sum();
        let fixed = memory.total().saturating_sub(moved);
        let cache = (limit.saturating_sub(fixed) / CACHE_SHARE).max(limit / CACHE_SHARE_MIN);
        self.inner.shared.set_cache_capacity(cache);
        let budget = limit.saturating_sub(fixed + cache);
        let all: Vec<Movable> = files.iter().map(|(_, file)| file.clone()).collect();
        let Some(choice) = choose_move(budget, limit / 4, &all) else { return Ok(false) };
        let at = all.iter().position(|file| *file == choice).expect("one of them was chosen");
        let collection = &collections[files[at].0];
        let mut blocks = Blocks::default();
        if !choice.loaded {
            let needs = collection.with_state(|state| {
                let segment = &state.slot(choice.segment)?.segment;
                Some(segment.stored().iter().find(|group| group.kind == choice.kind)?.all())
            });
            self.inner.shared.fetch(needs.unwrap_or_default(), &mut blocks, false).await?;
        }
        let blocks = (!choice.loaded).then_some(&blocks);
        // Where somebody reads the segment at this moment, the next step tries again.
        Ok(collection.inner.state.write().expect("no panic while held").move_file(&choice, blocks))
    }
}
