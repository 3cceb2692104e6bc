//! Partitions that come in place of others. Those of one time are a generation: when there are to be more or fewer, those that are there take
//! no more rows, and others with numbers of their own begin. No row is moved, and one write of the definition is the whole change, so a
//! crash leaves the partitions of before or those of then. Who reads comes to the end of a generation before it begins with the next one: so
//! rows of one key stay in order. A generation of which all rows were read goes; where its partitions ended, and which pushes with keys went
//! into them, stays known.

use std::collections::BTreeMap;
use std::ops::Range;

use super::log::PieceLog;
use super::spec::{PastPartitions, check_partitions};
use super::{PushDurability, PushStream, PushStreamDefinition};
use crate::base::{Error, ErrorKind, Result};
use crate::engine::name;
use crate::platform;
use crate::stream::{PartitionKeys, Producers};

/// So many generations may wait to be read, besides that of now.
const WAITING_MAX: usize = 32;
/// Of so many that are there no more it is known where they ended.
const GONE_MAX: usize = 64;
/// Of so many of these, which pushes with keys went into them.
const KEYS_MAX: usize = 8;

/// The files of all partitions that are there, and the keys of those that are there no more.
#[derive(Default)]
pub(super) struct Lanes {
    pub logs: BTreeMap<u32, PieceLog>,
    /// The oldest first.
    pub past: Vec<PartitionKeys>,
}

impl Lanes {
    /// Who has pushed into a partition with keys, where that is known.
    pub fn producers(&self, partition: u32) -> Option<&Producers> {
        let past = || {
            let keys = self.past.iter().find(|keys| keys.range().contains(&partition))?;
            keys.producers.get((partition - keys.first) as usize)
        };
        self.logs.get(&partition).map(PieceLog::producers).or_else(past)
    }

    /// How many producers are known, of the partition that knows the most.
    pub fn producers_max(&self) -> usize {
        let past = self.past.iter().flat_map(|keys| &keys.producers);
        self.logs.values().map(PieceLog::producers).chain(past).map(Producers::count).max().unwrap_or_default()
    }
}

impl PushStreamDefinition {
    /// The generation that a partition is of, and where its partitions ended if they are there no more.
    pub(super) fn generation(&self, partition: u32) -> Option<(Range<u32>, Option<&[u64]>)> {
        let now = self.now();
        if now.contains(&partition) {
            return Some((now, None));
        }
        let past = self.past.iter().find(|past| past.range().contains(&partition))?;
        Some((past.range(), past.ends.as_deref()))
    }

    /// All generations that are known, the oldest first.
    pub(super) fn generations(&self) -> impl Iterator<Item = Range<u32>> {
        self.past.iter().map(PastPartitions::range).chain([self.now()])
    }

    /// Rows that were in memory are gone, and numbers begin anew.
    pub(super) fn forget_rows(&mut self) {
        for past in &mut self.past {
            past.ends = Some(vec![0; past.count as usize]);
        }
        let partitions = self.spec.partitions as usize;
        self.readers.values_mut().for_each(|from| *from = vec![0; partitions]);
    }
}

impl PushStream {
    /// Changes how many partitions the stream has. Rows that were taken stay where they are, in order, and are read before those that are taken
    /// from now on; whoever reads goes on from where it is, also from a checkpoint or savepoint of before. A push that is under way is taken
    /// once, into the partitions of before or into those of then. Event time goes on from where it is: the new partitions hold a watermark
    /// until they have rows of their own, or are idle.
    ///
    /// # Errors
    /// `InvalidArgument` for no partition and for more than 64, `Unavailable` while the partitions of 32 changes before wait to be read, and what
    /// the storage says. After a crash the stream has the partitions of before or these.
    pub async fn rescale(&self, partitions: u32) -> Result<()> {
        check_partitions(partitions)?;
        let this = self.clone();
        platform::run_to_end(async move { this.rescale_to_end(partitions).await }).await
    }

    async fn rescale_to_end(&self, partitions: u32) -> Result<()> {
        let mut lanes = self.inner.lanes.lock().await;
        self.check_open()?;
        let definition = self.definition().0.clone();
        if definition.spec.partitions == partitions {
            return Ok(());
        }
        let waiting = definition.past.iter().filter(|past| past.ends.is_none()).count();
        if waiting >= WAITING_MAX {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "stream {:?} has partitions of {waiting} changes before that were not read to their end: change it again later",
                    definition.name
                ),
            ));
        }
        let change = |definition: &mut PushStreamDefinition| {
            let Range { start: first, .. } = definition.now();
            definition.past.push(PastPartitions { first, count: definition.spec.partitions, ends: None });
            let gone = definition.past.iter().filter(|past| past.ends.is_some()).count();
            definition.past.drain(..gone.saturating_sub(GONE_MAX));
            definition.spec.partitions = partitions;
            definition.readers.values_mut().for_each(|from| from.extend((0..partitions).map(|_| 0)));
            true
        };
        let then = |definition: &PushStreamDefinition| {
            self.buffer().extend(partitions);
            let logs = definition.now().map(|partition| (partition, PieceLog::new(definition.id, partition)));
            lanes.logs.extend(logs);
        };
        self.store(change, then).await?;
        self.release();
        self.remove_files_of(&mut lanes).await?;
        drop(lanes);
        // Who has come to the end of those before goes on.
        self.inner.waiters.wake();
        Ok(())
    }

    /// Stores another definition; `then` is done once it counts. With a `change` that says that there is none nothing is done.
    pub(super) async fn store(
        &self,
        change: impl FnOnce(&mut PushStreamDefinition) -> bool,
        then: impl FnOnce(&PushStreamDefinition),
    ) -> Result<()> {
        // One definition is stored at a time.
        let _storing = self.inner.storing.lock().await;
        self.check_open()?;
        let (mut definition, version) = self.definition().clone();
        if !change(&mut definition) {
            return Ok(());
        }
        let storage = &self.inner.shared.storage;
        let path = |version| name::push_definition(definition.id, version);
        if let Err(error) = storage.put(&path(version + 1), definition.encode().into()).await {
            // What a failed put leaves must not be taken for a definition, nor stand in the next one's way.
            storage.remove(&path(version + 1)).await?;
            return Err(error);
        }
        *self.definition() = (definition.clone(), version + 1);
        then(&definition);
        storage.remove(&path(version)).await
    }

    /// Removes generations of which all rows were read.
    pub(super) async fn remove_past(&self, lanes: &mut Lanes) -> Result<()> {
        let storage = &*self.inner.shared.storage;
        loop {
            let definition = self.definition().0.clone();
            let Some(past) = definition.past.iter().find(|past| past.ends.is_none()) else { return Ok(()) };
            let (id, range) = (definition.id, past.range());
            let ends: Vec<u64> = {
                let buffer = self.buffer();
                if range.clone().any(|partition| !buffer.is_empty(partition)) {
                    return Ok(());
                }
                range.clone().map(|partition| buffer.next(partition)).collect()
            };
            let producers = range.clone().map(|partition| lanes.producers(partition).cloned().unwrap_or_default());
            let keys = PartitionKeys { first: range.start, producers: producers.collect() };
            if self.spec().durability == PushDurability::Stored && !keys.is_empty() {
                let path = name::push_keys_of(id, range.start);
                // That of a removal that failed later.
                storage.remove(&path).await?;
                storage.put(&path, keys.encode().into()).await?;
            }
            let change = |definition: &mut PushStreamDefinition| {
                let Some(past) = definition.past.iter_mut().find(|past| past.first == range.start) else {
                    return false;
                };
                past.ends = Some(ends);
                definition.readers.values_mut().for_each(|from| drop(from.drain(..range.len())));
                true
            };
            let then = |_: &PushStreamDefinition| {
                self.buffer().retire(range.end);
                lanes.logs.retain(|partition, _| *partition >= range.end);
                lanes.past.push(keys);
            };
            self.store(change, then).await?;
            for partition in range {
                for entry in storage.list(&name::push_files(id, partition)).await? {
                    storage.remove(&entry.name).await?;
                }
            }
            while lanes.past.len() > KEYS_MAX {
                storage.remove(&name::push_keys_of(id, lanes.past[0].first)).await?;
                lanes.past.remove(0);
            }
        }
    }

    /// Finds the keys of pushes into partitions that are there no more, and removes what a crash has left of such partitions.
    pub(super) async fn recover_past(&self, lanes: &mut Lanes) -> Result<()> {
        let storage = &*self.inner.shared.storage;
        let definition = self.definition().0.clone();
        let (stream, there) = (name::push_stream(definition.id), definition.there());
        for entry in storage.list(&stream).await? {
            let folder = entry.name[stream.len()..].split('/').next();
            let partition = folder.and_then(|folder| folder.parse::<u32>().ok());
            if partition.is_some_and(|partition| partition < there.start) {
                storage.remove(&entry.name).await?;
            }
        }
        let gone: Vec<u32> = definition
            .past
            .iter()
            .filter(|past| past.ends.is_some())
            .map(|past| past.first)
            .rev()
            .take(KEYS_MAX)
            .collect();
        for entry in storage.list(&name::push_keys(definition.id)).await? {
            let first = name::number(&entry.name).and_then(|first| u32::try_from(first).ok());
            if !first.is_some_and(|first| gone.contains(&first)) {
                storage.remove(&entry.name).await?;
                continue;
            }
            let keys = PartitionKeys::decode(&storage.read_all(&entry.name).await?);
            lanes.past.push(keys.map_err(|error| error.context(&entry.name))?);
        }
        Ok(())
    }
}
