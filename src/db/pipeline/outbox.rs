use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use futures_channel::oneshot;

use super::checkpoint;
use super::spec::unframed;
use crate::base::codec::{Reader, Write, checksum};
use crate::base::{Error, ErrorKind, Result};
use crate::engine::name;
use crate::model::Row;
use crate::storage::Storage;
use crate::stream::{Relation, Rows};

const MAGIC: &[u8; 4] = b"EDPR";
const VERSION: u8 = 1;
const WHAT: &str = "rows of a pipeline";

/// Rows of a sink that is no collection, as they wait to be acknowledged.
///
/// | bytes | |
/// |---|---|
/// | 4 | `EDPR` |
/// | 1 | version, 1 |
/// | 8 | the number of the first row |
/// | 4 | how many rows |
/// | n | the rows, as [`Rows::write`] does |
/// | 4 | CRC-32C of all before |
#[derive(Debug, Clone)]
pub struct RowsPart {
    /// The number of the first row.
    pub first: u64,
    /// The rows.
    pub rows: Vec<Rows>,
}

impl RowsPart {
    fn len(&self) -> u64 {
        self.rows.iter().map(|rows| rows.len() as u64).sum()
    }

    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_bytes(MAGIC);
        out.put_u8(VERSION);
        out.put_u64(self.first);
        out.put_u32(self.len() as u32);
        self.rows.iter().for_each(|rows| rows.write(&mut out));
        let sum = checksum(&out);
        out.put_u32(sum);
        out
    }

    /// The rows in `bytes`, which are those of `relation`.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are none, `Unsupported` for those of another version.
    pub fn decode(bytes: &[u8], relation: &Relation) -> Result<Self> {
        let mut reader = Reader::new(unframed(bytes, MAGIC, VERSION, WHAT)?);
        let read = |reader: &mut Reader<'_>| {
            let (first, count) = (reader.u64()?, reader.u32()? as usize);
            let rows = Rows::read(reader.bytes(reader.remaining())?, relation)?;
            match rows.len() {
                len if len == count => Ok(Self { first, rows: vec![rows] }),
                len => Err(Error::corrupt(format!("{len} rows, expected {count}"))),
            }
        };
        read(&mut reader).map_err(|error: Error| error.context(WHAT))
    }
}

/// A row of a sink that is no collection.
#[derive(Debug, Clone, PartialEq)]
pub struct UnreadRow {
    /// Counts the rows of the sink, from 0: what is [acknowledged](super::Pipeline::acknowledge).
    pub position: u64,
    /// The row.
    pub row: Row,
    /// Whether it is taken back.
    pub taken_back: bool,
}

/// The rows of a sink that is no collection, from the first that was not acknowledged.
///
/// They lie in objects of their own, each with the rows that came between two checkpoints, put before the checkpoint that counts them: what
/// no checkpoint counts was never told. How many are acknowledged is the name of an empty object.
pub(super) struct Outbox {
    pub sink: String,
    folder: String,
    relation: Relation,
    state: Mutex<State>,
    /// One acknowledgement at a time.
    acknowledging: async_lock::Mutex<()>,
}

/// Rows, and whether each is taken back.
type ToldRows = Arc<Vec<(Row, bool)>>;

#[derive(Default)]
struct State {
    /// By the number of the first row, how many.
    parts: BTreeMap<u64, u64>,
    /// So many rows are done.
    acknowledged: u64,
    ended: Option<Error>,
    waiters: Vec<oneshot::Sender<()>>,
    /// The part that was read last.
    last: Option<(u64, ToldRows)>,
}

fn folder(id: u64, node: u32) -> String {
    format!("{}rows/{node:05}/", name::pipeline(id))
}

impl Outbox {
    pub fn new(id: u64, node: u32, sink: &str, relation: Relation) -> Self {
        Self {
            sink: sink.to_owned(),
            folder: folder(id, node),
            relation,
            state: Mutex::default(),
            acknowledging: async_lock::Mutex::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    fn part(&self, first: u64, count: u64) -> String {
        format!("{}{first:020}-{count}", self.folder)
    }

    fn done(&self, count: u64) -> String {
        format!("{}done-{count:020}", self.folder)
    }

    /// Looks what is stored. `counted` rows are those of the checkpoint from which the pipeline goes on: later ones were never told, and are
    /// removed, unless they are told before their checkpoint. Gives the number of the next row.
    pub async fn load(&self, storage: &dyn Storage, counted: u64, told_before: bool) -> Result<u64> {
        let _one = self.acknowledging.lock().await;
        let (mut parts, mut acknowledged) = (BTreeMap::new(), 0);
        let mut gone = vec![];
        for entry in storage.list(&self.folder).await? {
            let file = &entry.name[self.folder.len()..];
            if let Some(count) = file.strip_prefix("done-").and_then(|count| count.parse::<u64>().ok()) {
                if acknowledged > 0 {
                    gone.push(self.done(acknowledged.min(count)));
                }
                acknowledged = acknowledged.max(count);
                continue;
            }
            let part = file.split_once('-').and_then(|(first, count)| Some((first.parse().ok()?, count.parse().ok()?)));
            match part {
                Some((first, _)) if first >= counted && !told_before => gone.push(entry.name),
                Some((first, count)) => drop(parts.insert(first, count)),
                None => gone.push(entry.name),
            }
        }
        for (first, count) in parts.iter().filter(|(first, count)| **first + **count <= acknowledged) {
            gone.push(self.part(*first, *count));
        }
        parts.retain(|first, count| *first + *count > acknowledged);
        for name in gone {
            storage.remove(&name).await?;
        }
        let end = parts.last_key_value().map_or(acknowledged, |(first, count)| first + count);
        let mut state = self.state();
        (state.parts, state.acknowledged, state.ended, state.last) = (parts, acknowledged, None, None);
        state.wake();
        Ok(if told_before { counted.max(end).max(acknowledged) } else { counted })
    }

    /// Stores rows. They are told when they are [added](Self::add).
    pub async fn put(&self, storage: &dyn Storage, part: &RowsPart) -> Result<()> {
        let count = part.len();
        if part.first + count <= self.state().acknowledged {
            return Ok(());
        }
        checkpoint::store(storage, &self.part(part.first, count), part.encode()).await
    }

    /// Tells rows that were stored.
    pub fn add(&self, part: &RowsPart) {
        let mut state = self.state();
        if part.first + part.len() > state.acknowledged {
            state.parts.insert(part.first, part.len());
        }
        state.wake();
    }

    /// The number of the row after the last.
    pub fn end(&self) -> u64 {
        let state = self.state();
        state.parts.last_key_value().map_or(state.acknowledged, |(first, count)| first + count)
    }

    /// How many rows are done, and how many are not.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state();
        let past = |(first, count): (&u64, &u64)| (first + count).saturating_sub(state.acknowledged.max(*first));
        (state.acknowledged, state.parts.iter().map(past).sum())
    }

    /// Removes all that is before row `number`, as if it had been acknowledged.
    pub async fn forget_before(&self, storage: &dyn Storage, number: u64) -> Result<()> {
        match number.checked_sub(1) {
            Some(last) if number <= self.end() => self.acknowledge(storage, last).await,
            _ => Ok(()),
        }
    }

    /// Notes, durably, that all rows up to number `position` are done.
    pub async fn acknowledge(&self, storage: &dyn Storage, position: u64) -> Result<()> {
        let _one = self.acknowledging.lock().await;
        let end = self.end();
        let before = self.state().acknowledged;
        if position >= end {
            let message = format!("sink {:?}: row {position} was not told, expected one before {end}", self.sink);
            return Err(Error::invalid(message));
        }
        let count = position + 1;
        if count <= before {
            return Ok(());
        }
        match storage.put(&self.done(count), Bytes::new()).await {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let gone: Vec<(u64, u64)> = {
            let mut state = self.state();
            state.acknowledged = count;
            let gone = state.parts.iter().map(|(first, count)| (*first, *count));
            let gone: Vec<_> = gone.filter(|(first, len)| first + len <= count).collect();
            state.parts.retain(|first, len| *first + *len > count);
            gone
        };
        if before > 0 {
            storage.remove(&self.done(before)).await?;
        }
        for (first, count) in gone {
            storage.remove(&self.part(first, count)).await?;
        }
        Ok(())
    }

    /// Rows that are not done, at most `count`, from number `from` on or from the first.
    ///
    /// # Errors
    /// Why no more come, once there are none; whatever the storage says.
    pub async fn read(&self, storage: &dyn Storage, from: Option<u64>, count: usize) -> Result<Vec<UnreadRow>> {
        let mut found = vec![];
        let mut at = from.unwrap_or_default();
        while found.len() < count {
            let (part, last) = {
                let state = self.state();
                at = at.max(state.acknowledged);
                let before = state.parts.range(..=at).next_back().filter(|(first, len)| **first + **len > at);
                let part = before.or_else(|| state.parts.range(at..).next()).map(|(first, len)| (*first, *len));
                match (&state.ended, part) {
                    (Some(error), None) if found.is_empty() => return Err(error.clone()),
                    (_, None) => break,
                    (_, Some(part)) => (part, state.last.clone()),
                }
            };
            let (first, len) = part;
            let rows = match last {
                Some((held, rows)) if held == first => rows,
                _ => {
                    let path = self.part(first, len);
                    let bytes = match storage.read_all(&path).await {
                        // Acknowledged meanwhile, by somebody else.
                        Err(error)
                            if error.kind() == ErrorKind::NotFound && !self.state().parts.contains_key(&first) =>
                        {
                            continue;
                        }
                        bytes => bytes?,
                    };
                    let part = RowsPart::decode(&bytes, &self.relation).map_err(|error| error.context(&path))?;
                    let told = part.rows.iter().flat_map(|rows| {
                        let all = rows.to_rows(&self.relation).into_iter().enumerate();
                        all.map(|(at, row)| (row, rows.is_retraction(at)))
                    });
                    let rows = Arc::new(told.collect::<Vec<_>>());
                    self.state().last = Some((first, rows.clone()));
                    rows
                }
            };
            at = at.max(first);
            let wanted = rows.iter().skip((at - first) as usize).take(count - found.len());
            for (row, taken_back) in wanted {
                found.push(UnreadRow { position: at, row: row.clone(), taken_back: *taken_back });
                at += 1;
            }
        }
        Ok(found)
    }

    /// Ends when a row of number `from` or later is told, or none comes any more. May be given up.
    pub async fn wait(&self, from: u64) {
        loop {
            let waiting = {
                let mut state = self.state();
                let end = state.parts.last_key_value().map_or(state.acknowledged, |(first, count)| first + count);
                if end > from || state.ended.is_some() {
                    return;
                }
                let (waiter, waiting) = oneshot::channel();
                state.waiters.retain(|waiter| !waiter.is_canceled());
                state.waiters.push(waiter);
                waiting
            };
            if waiting.await.is_err() {
                return;
            }
        }
    }

    /// Says why no more rows come.
    pub fn end_with(&self, error: Error) {
        let mut state = self.state();
        state.ended.get_or_insert(error);
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        for waiter in self.waiters.drain(..) {
            // One who stopped waiting needs no call.
            let _ = waiter.send(());
        }
    }
}
