use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::Bytes;
use hashbrown::HashMap;

use super::database::Shared;
use super::{Collection, Db};
use crate::base::{Error, ErrorKind, Result, SegmentId};
use crate::engine::{CollectionState, Memory, Movable, choose_move};
use crate::segment::{BlockRef, Blocks, FileKind, batch_bytes};

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

    /// Gives up the blocks of a file.
    fn forget(&mut self, name: &str) {
        let bytes = &mut self.bytes;
        self.entries.retain(|(file, _), entry| {
            let other = **file != *name;
            *bytes -= if other { 0 } else { entry.bytes };
            other
        });
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
/// What of the limit a merge may take at least.
const MERGE_SHARE_MIN: usize = 8;
/// Without a limit it serves until everything is in memory.
const CACHE_BYTES: usize = 32 << 20;
/// A file is loaded in pieces of about this size, for reads wait for each of them where there is one thread.
const LOAD_BYTES: u64 = 512 << 10;

/// What the cache may take beside `fixed` bytes that stay in memory.
pub(super) fn cache_share(limit: Option<usize>, fixed: usize) -> usize {
    limit.map_or(CACHE_BYTES, |limit| (limit.saturating_sub(fixed) / CACHE_SHARE).max(limit / CACHE_SHARE_MIN))
}

/// A file on its way into memory, and those that cannot come: their bytes are not what was written.
#[derive(Debug, Default)]
pub(super) struct Loading {
    file: Option<(SegmentId, FileKind)>,
    blocks: Blocks,
    /// How many blocks are there.
    done: usize,
    damaged: BTreeSet<(SegmentId, FileKind)>,
}

impl Loading {
    /// Gives up what is on its way.
    fn stop(&mut self) {
        *self = Self { damaged: std::mem::take(&mut self.damaged), ..Self::default() };
    }
}

impl Collection {
    fn with_state<T>(&self, read: impl FnOnce(&CollectionState) -> T) -> T {
        read(&self.inner.state.read().expect("no panic while held"))
    }
}

impl Db {
    /// What is held in memory, over all collections.
    pub fn memory(&self) -> Memory {
        let blocks = self.inner.shared.cache.lock().expect("no panic while held").bytes();
        let cache = blocks + self.inner.shared.masks.bytes();
        let mut memory = Memory { cache, pool: self.inner.shared.pool.bytes(), ..Memory::default() };
        for collection in self.collections() {
            memory += collection.inner.state.read().expect("no panic while held").memory();
            memory += self.memory_of_merges(&collection).0;
            memory.cache += collection.inner.results.bytes();
        }
        memory
    }

    /// Leaves the cache what is over when collections have come in whose files are in storage; later [`Self::balance`] does.
    pub(super) fn fit_cache(&self) {
        let held = self.memory();
        let fixed = held.total() - held.cache;
        self.inner.shared.set_cache_capacity(cache_share(self.inner.shared.options.memory_limit_bytes, fixed));
    }

    /// A step of a move of a file into memory or out of it, while there is room for one that is not there, or the limit calls for less;
    /// tells whether it did something.
    ///
    /// # Errors
    /// As of [`Shared::fetch`]. A damaged file is told once, and then left to those who read from it.
    pub(super) async fn balance(&self) -> Result<bool> {
        let Some((collection, choice)) = self.choose_move() else {
            self.inner.shared.loading.lock().expect("no panic while held").stop();
            return Ok(false);
        };
        if choice.loaded {
            return Ok(collection.inner.state.write().expect("no panic while held").move_file(&choice, None));
        }
        self.load_some(&collection, &choice).await
    }

    /// Has a file that does not fit beside what a merge will hold left to storage; false when there is none, or somebody reads it.
    pub(super) fn make_room(&self) -> bool {
        let limited = self.inner.shared.options.memory_limit_bytes.is_some();
        let choice = limited.then(|| self.choose_move()).flatten();
        choice.filter(|(_, file)| file.loaded).is_some_and(|(collection, file)| {
            collection.inner.state.write().expect("no panic while held").move_file(&file, None)
        })
    }

    /// What a merge may hold: what is over when no file that can be read again is in memory, but an eighth of the limit at least, for it
    /// is what makes the store smaller.
    pub(super) fn free_memory(&self) -> usize {
        let Some(limit) = self.inner.shared.options.memory_limit_bytes else { return usize::MAX };
        let fixed = self.held(&self.collections()).0;
        limit.saturating_sub(fixed + limit / CACHE_SHARE_MIN).max(limit / MERGE_SHARE_MIN)
    }

    /// What stays in memory whatever is moved, and the files that can be, each with the number of its collection.
    fn held(&self, collections: &[Collection]) -> (usize, Vec<(usize, Movable)>) {
        let loading = self.inner.shared.loading.lock().expect("no panic while held");
        let (mut fixed, mut files) = (0, Vec::new());
        for (at, collection) in collections.iter().enumerate() {
            let state = collection.inner.state.read().expect("no panic while held");
            let (merging, planned) = self.memory_of_merges(collection);
            fixed += state.memory().total() + merging.total() + planned;
            let movable = state.movables().into_iter();
            let movable = movable.filter(|file| !loading.damaged.contains(&(file.segment, file.kind.clone())));
            files.extend(movable.map(|file| (at, file)));
        }
        let moved: usize = files.iter().filter(|(_, file)| file.loaded).map(|(_, file)| file.bytes).sum();
        (fixed.saturating_sub(moved), files)
    }

    fn choose_move(&self) -> Option<(Collection, Movable)> {
        let shared = &self.inner.shared;
        let collections = self.collections();
        let (fixed, files) = self.held(&collections);
        let limit = shared.options.memory_limit_bytes;
        let cache = cache_share(limit, fixed);
        shared.set_cache_capacity(cache);
        // Half of all there is leaves sums below it.
        let (budget, spare) =
            limit.map_or((usize::MAX / 2, 0), |limit| (limit.saturating_sub(fixed + cache), limit / 4));
        let all: Vec<Movable> = files.iter().map(|(_, file)| file.clone()).collect();
        let choice = choose_move(budget, spare, &all)?;
        let at = all.iter().position(|file| *file == choice).expect("one of them was chosen");
        Some((collections[files[at].0].clone(), choice))
    }

    /// Reads some blocks of a file, and moves it into memory when all are there.
    async fn load_some(&self, collection: &Collection, file: &Movable) -> Result<bool> {
        let shared = &self.inner.shared;
        let id = (file.segment, file.kind.clone());
        let mut loading = std::mem::take(&mut *shared.loading.lock().expect("no panic while held"));
        if loading.file.as_ref() != Some(&id) {
            loading.stop();
            loading.file = Some(id.clone());
        }
        let needs = collection.with_state(|state| {
            let segment = &state.slot(file.segment)?.segment;
            Some(segment.stored().iter().find(|group| group.kind == file.kind)?.all())
        });
        let needs = needs.unwrap_or_default();
        let mut bytes = 0;
        let few = |block: &&BlockRef| {
            let fits = bytes < LOAD_BYTES;
            bytes += u64::from(block.place().len);
            fits
        };
        let some: Vec<BlockRef> = needs.iter().skip(loading.done).take_while(few).cloned().collect();
        let count = some.len();
        let fetched = shared.fetch(some, &mut loading.blocks, false).await;
        match &fetched {
            Ok(()) => loading.done += count,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                loading.damaged.insert(id);
                loading.stop();
            }
            Err(_) => {}
        }
        let mut moved = true;
        if fetched.is_ok() && loading.done >= needs.len() {
            // Where somebody reads the segment at this moment, the next step tries again.
            let mut state = collection.inner.state.write().expect("no panic while held");
            moved = state.move_file(file, Some(&loading.blocks));
            if moved {
                loading.stop();
                if let Some(block) = needs.first() {
                    shared.cache.lock().expect("no panic while held").forget(&block.group.name);
                }
            }
        }
        *shared.loading.lock().expect("no panic while held") = loading;
        fetched.map(|()| moved)
    }
}
