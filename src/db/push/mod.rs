//! Push streams: rows that an application pushes, kept until pipelines have read them.
//!
//! What must be true:
//! - With durability `stored`, rows are acknowledged once they are in a log and synced. A crash before that leaves those of a push in each
//!   partition wholly or not at all.
//! - Rows are numbered in each partition, and a number is never used again. Whoever reads is known by a name, and what it has not committed
//!   is kept, up to the bound of the stream; then pushes are refused, and nothing is lost.
//! - Pushes that wait together share one write and one sync.
//! - When there are to be more or fewer partitions, rows that are there stay where they are, and are read before all that come then.
//! - A push with a key is taken once in each partition, however often it comes: its key is in the same write as its rows, and each file
//!   begins with the keys before it.
//!
//! Deliberately absent: which rows are in memory and when they are given out (`stream::Buffer`), and any index: a stream is read from front to
//! back.

mod generation;
#[cfg(test)]
#[cfg(native)]
mod generation_tests;
mod log;
mod near;
mod source;
mod spec;
#[cfg(test)]
#[cfg(native)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_channel::oneshot;

use super::Db;
use super::database::Shared;
use crate::base::{Error, ErrorKind, Result};
use crate::engine::name;
use crate::model::{Batch, DataType, Field, Row, Schema, Value};
use crate::platform;
use crate::query::Filter;
use crate::stream::{Buffer, KeyedPush, Known, PIECE_ROWS_MAX, PushKey, Relation, Room, Sizer};
use generation::Lanes;
use log::PieceLog;
use near::Near;
pub use near::{NearRow, PushDedupe};
pub(super) use source::open_source;
pub use spec::{PastPartitions, PushDurability, PushStreamDefinition, PushStreamSpec, RowCheck};

/// The name of the connector whose sources are push streams.
pub(super) const CONNECTOR: &str = "stream";
/// The largest push, in bytes.
const PUSH_BYTES_MAX: usize = 64 << 20;

/// The push streams of a store.
pub(super) struct PushStreams {
    by_name: Mutex<BTreeMap<String, PushStream>>,
    /// One is created or dropped at a time.
    changing: async_lock::Mutex<()>,
    /// Those who wait for rows, of any stream.
    waiters: Arc<Waiters>,
}

#[derive(Default)]
struct Waiters(Mutex<(u64, Vec<oneshot::Sender<()>>)>);

impl Waiters {
    fn wake(&self) {
        let mut waiters = self.0.lock().expect("no panic while held");
        waiters.0 += 1;
        for waiter in waiters.1.drain(..) {
            // One who stopped waiting needs no call.
            let _ = waiter.send(());
        }
    }
}

/// A stream that rows are pushed into. Cheap to clone.
#[derive(Clone)]
pub struct PushStream {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    definition: Mutex<(PushStreamDefinition, u64)>,
    relation: Relation,
    checks: Vec<(Filter, String)>,
    /// What checks look at: the fields, and a key that no row has.
    schema: Arc<Schema>,
    key: String,
    /// Which rows of which life of the store numbers are of.
    epoch: u64,
    buffer: Mutex<Buffer>,
    /// The rows that others are near to, of a stream that looks.
    near: Mutex<Option<Near>>,
    lanes: async_lock::Mutex<Lanes>,
    pending: Mutex<Vec<Pending>>,
    /// One definition is stored at a time.
    storing: async_lock::Mutex<()>,
    waiters: Arc<Waiters>,
    counts: Mutex<Counts>,
    /// As the status tells them.
    producers: AtomicUsize,
    /// By reader and partition, where batches follow the load.
    sizers: Mutex<BTreeMap<String, Vec<Sizer>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    pushed: u64,
    refused: u64,
    near: u64,
    repeated: u64,
    full: u64,
    next_partition: u32,
    is_dropped: bool,
}

/// Rows that wait to be written, each with its number among those that were pushed. Into which partitions is found out then.
struct Pending {
    rows: Vec<(usize, Row)>,
    /// The key of the push, and the checksum of its rows as they came.
    key: Option<(PushKey, u32)>,
    bytes: usize,
    done: oneshot::Sender<Result<Written>>,
}

/// What became of rows that were to be written.
#[derive(Debug, Clone, Default)]
struct Written {
    /// Those that were not, for being near to one before.
    near: Vec<(NearRow, Row)>,
    /// How many were written now.
    count: usize,
    /// Whether all of them were there before.
    is_repeated: bool,
}

/// Who waits for rows that are being written.
struct Taker {
    bytes: usize,
    done: oneshot::Sender<Result<Written>>,
    written: Written,
}

/// What is to be written into a partition.
#[derive(Default)]
struct Load {
    rows: Vec<Row>,
    keyed: Vec<KeyedPush>,
}

/// What became of rows that were pushed.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PushAnswer {
    /// How many were taken.
    pub accepted: usize,
    /// Those that were not, by their number among those that were pushed, and why.
    pub refused: Vec<(usize, String)>,
    /// Of these, the rows that are near to one before, and which that is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<NearRow>,
    /// Whether it was there before, by its key: then nothing was taken now, and this is what became of it when it came first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// How a push stream is doing. Counts are since the store was opened.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PushStreamStatus {
    /// Its name.
    pub name: String,
    /// How many rows were taken.
    pub pushed: u64,
    /// How many were refused by what is wrong with them.
    pub refused: u64,
    /// How many of these for being near to one before.
    pub near: u64,
    /// How many rows were forgotten, that others would have been compared with, before their time.
    pub near_forgotten: u64,
    /// How many pushes came again, by their keys.
    pub repeated: u64,
    /// How many producers are known by the keys of their pushes, of the partition that knows the most.
    pub producers: usize,
    /// How many pushes were refused for want of room.
    pub full: u64,
    /// The bytes of rows that are kept.
    pub bytes: u64,
    /// Those of them in memory.
    pub memory_bytes: usize,
    /// By partition, the number of the first row that is kept and of the next one that comes.
    pub partitions: Vec<(u64, u64)>,
    /// The same of the partitions that were before, and are not read to their end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub past_partitions: Vec<(u64, u64)>,
    /// Who reads it, and how many rows wait for each.
    pub readers: BTreeMap<String, u64>,
    /// Where batches follow the load, for how many rows each reader waits, by partition.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub batch_rows: BTreeMap<String, Vec<u64>>,
}

impl PushStreams {
    /// Those that are stored.
    pub(super) async fn open(shared: &Arc<Shared>) -> Result<Self> {
        let storage = &*shared.storage;
        let waiters = Arc::<Waiters>::default();
        let mut found: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for entry in storage.list(name::PUSH_STREAMS).await? {
            let id = entry.name.split('/').nth(1).and_then(|id| u64::from_str_radix(id, 16).ok()).unwrap_or_default();
            found.entry(id).or_default().push(entry.name);
        }
        let mut by_name = BTreeMap::new();
        for (id, files) in found {
            let prefix = name::push_definitions(id);
            let mut definitions: Vec<&String> = files.iter().filter(|file| file.starts_with(&prefix)).collect();
            definitions.sort_unstable_by(|left, right| right.cmp(left));
            let mut opened: Option<(PushStreamDefinition, u64)> = None;
            let mut damaged = None;
            for file in definitions {
                if opened.is_some() {
                    storage.remove(file).await?;
                    continue;
                }
                let bytes = match storage.read_all(file).await {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == ErrorKind::Corrupt => Default::default(),
                    Err(error) => return Err(error),
                };
                match PushStreamDefinition::decode(&bytes) {
                    Ok(mut definition) => {
                        if definition.spec.durability == PushDurability::Memory {
                            definition.forget_rows();
                        }
                        opened = Some((definition, name::number(file).unwrap_or_default()));
                    }
                    // A crash cut it short before it counted, if there is one before it.
                    Err(error) => damaged = Some((error.context(file), file.clone())),
                }
            }
            let has_rows = files.iter().any(|file| !file.starts_with(&prefix));
            match (opened, damaged) {
                (Some((definition, version)), damaged) => {
                    if let Some((_, file)) = damaged {
                        storage.remove(&file).await?;
                    }
                    let name = definition.name.clone();
                    let stream = PushStream::new(shared, definition, version, waiters.clone())?;
                    stream.recover().await.map_err(|error| error.context(format!("stream {name:?}")))?;
                    by_name.insert(name, stream);
                }
                (None, Some((error, _))) if has_rows => return Err(error),
                // Its creation or its end was cut short.
                (None, _) => {
                    for file in &files {
                        storage.remove(file).await?;
                    }
                }
            }
        }
        Ok(Self { by_name: Mutex::new(by_name), changing: async_lock::Mutex::new(()), waiters })
    }
}

impl Db {
    /// Makes a push stream, durably.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, `InvalidArgument` for a specification that cannot be.
    pub async fn create_push_stream(&self, name: &str, spec: PushStreamSpec) -> Result<PushStream> {
        self.inner.shared.check_open()?;
        super::pipeline::check_name(name)?;
        let (db, name) = (self.clone(), name.to_owned());
        platform::run_to_end(async move {
            let streams = &db.inner.push_streams;
            let _one = streams.changing.lock().await;
            if streams.by_name.lock().expect("no panic while held").contains_key(&name) {
                return Err(Error::new(ErrorKind::AlreadyExists, format!("stream {name:?} exists already")));
            }
            let shared = &db.inner.shared;
            // 53 bits, so that JavaScript can hold it.
            let id = (shared.options.environment.random_u64() >> 11).max(1);
            let letters = spec.dead_letters.clone();
            let definition =
                PushStreamDefinition { id, name: name.clone(), spec, past: vec![], readers: BTreeMap::new() };
            let bytes = definition.encode();
            let stream = PushStream::new(shared, definition, 1, streams.waiters.clone())?;
            if let Some(letters) = letters {
                super::pipeline::letters(&db, &letters).await?;
            }
            shared.storage.put(&name::push_definition(id, 1), bytes.into()).await?;
            streams.by_name.lock().expect("no panic while held").insert(name, stream.clone());
            Ok(stream)
        })
        .await
    }

    /// The push stream of that name; `NotFound` lists those that exist.
    pub fn push_stream(&self, name: &str) -> Result<PushStream> {
        self.inner.shared.check_open()?;
        let streams = self.inner.push_streams.by_name.lock().expect("no panic while held");
        streams.get(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = streams.keys().map(String::as_str).collect();
            Error::not_found(format!("no stream {name:?}; there are: {}", names.join(", ")))
        })
    }

    /// All push streams, by name.
    pub fn push_streams(&self) -> Vec<PushStream> {
        self.inner.push_streams.by_name.lock().expect("no panic while held").values().cloned().collect()
    }

    /// Ends a push stream for good, with the rows that wait in it.
    ///
    /// # Errors
    /// `NotFound` when it does not exist.
    pub async fn drop_push_stream(&self, name: &str) -> Result<()> {
        let stream = self.push_stream(name)?;
        let (db, name) = (self.clone(), name.to_owned());
        platform::run_to_end(async move {
            let streams = &db.inner.push_streams;
            let _one = streams.changing.lock().await;
            let _lanes = stream.inner.lanes.lock().await;
            let _storing = stream.inner.storing.lock().await;
            let (id, storage) = (stream.id(), &db.inner.shared.storage);
            // First what says that there is one.
            for entry in storage.list(&name::push_definitions(id)).await? {
                storage.remove(&entry.name).await?;
            }
            stream.counts().is_dropped = true;
            streams.by_name.lock().expect("no panic while held").remove(&name);
            for entry in storage.list(&name::push_stream(id)).await? {
                storage.remove(&entry.name).await?;
            }
            Ok(())
        })
        .await
    }

    /// Resolves when something is pushed into a stream after the `seen`th push; tells how many there were.
    pub async fn pushed_after(&self, seen: u64) -> u64 {
        loop {
            let waiting = {
                let mut waiters = self.inner.push_streams.waiters.0.lock().expect("no panic while held");
                if waiters.0 > seen {
                    return waiters.0;
                }
                let (waiter, waiting) = oneshot::channel();
                waiters.1.retain(|waiter| !waiter.is_canceled());
                waiters.1.push(waiter);
                waiting
            };
            // Whether it was woken or the store went: the count tells.
            let _ = waiting.await;
        }
    }
}

/// A row that was not taken: its place among those that came, itself, and why.
type Letter = (usize, Row, String);

impl PushStream {
    fn new(
        shared: &Arc<Shared>,
        definition: PushStreamDefinition,
        version: u64,
        waiters: Arc<Waiters>,
    ) -> Result<Self> {
        let spec = &definition.spec;
        let relation = spec.relation()?;
        let mut key = "row".to_owned();
        while relation.position(&key).is_some() {
            key.push('_');
        }
        let mut fields = vec![Field::new(&key, DataType::Int64)];
        fields.extend(relation.fields.iter().cloned());
        let schema = Arc::new(Schema::new(fields, &key, false)?);
        let checks = spec
            .checks
            .iter()
            .enumerate()
            .map(|(at, check)| {
                let filter = Filter::parse(&check.filter, &schema)
                    .map_err(|error| error.context(format!("check {at}, {:?}", check.filter)))?;
                let reason = check.reason.clone().unwrap_or_else(|| format!("it is not so that {}", check.filter));
                Ok((filter, reason))
            })
            .collect::<Result<_>>()?;
        let logs = definition.there().map(|partition| (partition, PieceLog::new(definition.id, partition)));
        let lanes = Lanes { logs: logs.collect(), past: vec![] };
        let buffer = Buffer::new(definition.there(), spec.memory_bytes, spec.bytes_max);
        let epoch = match spec.durability {
            PushDurability::Stored => definition.id,
            PushDurability::Memory => shared.options.environment.random_u64(),
        };
        let near = spec.dedupe.clone().map(|dedupe| Near::new(dedupe, &relation));
        let inner = Inner {
            shared: shared.clone(),
            near: Mutex::new(near),
            definition: Mutex::new((definition, version)),
            relation,
            checks,
            schema,
            key,
            epoch,
            buffer: Mutex::new(buffer),
            lanes: async_lock::Mutex::new(lanes),
            pending: Mutex::default(),
            storing: async_lock::Mutex::new(()),
            waiters,
            counts: Mutex::default(),
            producers: AtomicUsize::new(0),
            sizers: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Finds the rows that are there.
    async fn recover(&self) -> Result<()> {
        let storage = &*self.inner.shared.storage;
        let (id, durability) = (self.id(), self.spec().durability);
        if durability == PushDurability::Memory {
            // What a life of the store had no room for in memory went with it.
            let definitions = name::push_definitions(id);
            for entry in storage.list(&name::push_stream(id)).await? {
                if !entry.name.starts_with(&definitions) {
                    storage.remove(&entry.name).await?;
                }
            }
            return Ok(());
        }
        let now_ms = self.inner.shared.options.environment.now_ms();
        let mut buffer = self.buffer().clone();
        let mut seen = vec![];
        {
            let mut lanes = self.inner.lanes.lock().await;
            self.recover_past(&mut lanes).await?;
            for log in lanes.logs.values_mut() {
                log.open(storage, &mut buffer, now_ms, &mut seen).await?;
            }
            self.count_producers(&lanes);
        }
        *self.buffer() = buffer;
        if let Some(near) = &mut *self.near() {
            near.recover(seen, now_ms);
        }
        self.release();
        Ok(())
    }

    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.inner.buffer.lock().expect("no panic while held")
    }

    fn near(&self) -> MutexGuard<'_, Option<Near>> {
        self.inner.near.lock().expect("no panic while held")
    }

    fn sizers(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Sizer>>> {
        self.inner.sizers.lock().expect("no panic while held")
    }

    /// Begins to follow the load of a reader, where batches do.
    fn size(&self, reader: &str, partitions: usize) {
        if let Some(adaptive) = self.spec().batching.adaptive {
            let sizers = (0..partitions).map(|_| Sizer::new(adaptive)).collect();
            self.sizers().insert(reader.to_owned(), sizers);
        }
    }

    /// What `ask` says of the sizes of a reader's batches, by the place of the partition among those that it reads; nothing where they follow no load.
    fn sized<T>(&self, reader: &str, at: usize, ask: impl FnOnce(&mut Sizer) -> T) -> Option<T> {
        self.sizers().get_mut(reader)?.get_mut(at).map(ask)
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.inner.counts.lock().expect("no panic while held")
    }

    fn definition(&self) -> MutexGuard<'_, (PushStreamDefinition, u64)> {
        self.inner.definition.lock().expect("no panic while held")
    }

    fn id(&self) -> u64 {
        self.definition().0.id
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.definition().0.name.clone()
    }

    /// What it is made of.
    pub fn spec(&self) -> PushStreamSpec {
        self.definition().0.spec.clone()
    }

    /// What its rows have.
    pub fn relation(&self) -> &Relation {
        &self.inner.relation
    }

    /// How it is doing.
    pub fn status(&self) -> PushStreamStatus {
        let (definition, counts) = (self.definition().0.clone(), *self.counts());
        let buffer = self.buffer();
        let (bytes, memory_bytes) = buffer.bytes();
        let rows =
            |(reader, sizers): (&String, &Vec<Sizer>)| (reader.clone(), sizers.iter().map(Sizer::rows).collect());
        let there = definition.there();
        let waiting = |from: &[u64]| there.clone().zip(from).map(|(at, from)| buffer.waiting(at, *from)).sum();
        let numbers = |at: u32| (buffer.first(at), buffer.next(at));
        let now = definition.now();
        PushStreamStatus {
            name: definition.name,
            pushed: counts.pushed,
            refused: counts.refused,
            near: counts.near,
            near_forgotten: self.near().as_ref().map_or(0, |near| near.forgotten),
            repeated: counts.repeated,
            producers: self.inner.producers.load(Ordering::Relaxed),
            full: counts.full,
            bytes,
            memory_bytes,
            past_partitions: (there.start..now.start).map(numbers).collect(),
            partitions: now.map(numbers).collect(),
            readers: definition.readers.iter().map(|(name, from)| (name.clone(), waiting(from))).collect(),
            batch_rows: self.sizers().iter().map(rows).collect(),
        }
    }

    /// Pushes rows. With durability `stored` they are synced when this resolves. Those that do not fit the fields, do not pass a check or
    /// that the transforming function refuses are not taken, and told with their reason; the others are.
    ///
    /// # Errors
    /// `Unavailable` when there is no room until something was read, `InvalidArgument` for more than 100,000 rows or 64 MiB at once, and
    /// what the storage says: then the rows of each partition were taken or not, which nobody knows.
    pub async fn push(&self, rows: Vec<Row>) -> Result<PushAnswer> {
        let this = self.clone();
        platform::run_to_end(async move { this.push_to_end(rows, None).await }).await
    }

    /// Pushes rows that are taken once, however often they come with this key: also after a crash, and by whichever connection. What was there
    /// before is answered as it was then. So whoever got no answer, or that it failed, pushes the same rows with the same key again.
    ///
    /// Of a producer the 16 pushes with the greatest numbers are remembered in each partition, and at most 1,000 producers in 256 KiB: see
    /// [`Producers`](crate::stream::Producers). Its rows go into one partition, unless a field says into which: then those of each are taken
    /// once. A function that transforms rows is called each time, and must make the same of the same ones.
    ///
    /// # Errors
    /// As of [`push`](Self::push); `Gone` for a push of which nothing is remembered any more, for its producer has pushed many greater
    /// numbers since, and `InvalidArgument` for one that had other rows when it came first. Nothing is taken then.
    pub async fn push_once(&self, rows: Vec<Row>, key: PushKey) -> Result<PushAnswer> {
        let this = self.clone();
        platform::run_to_end(async move { this.push_to_end(rows, Some(key)).await }).await
    }

    async fn push_to_end(&self, rows: Vec<Row>, key: Option<PushKey>) -> Result<PushAnswer> {
        self.check_open()?;
        if rows.len() > PIECE_ROWS_MAX {
            return Err(Error::invalid(format!("{} rows in one push, expected {PIECE_ROWS_MAX} at most", rows.len())));
        }
        let key = key.map(|key| {
            let sum = sum_of(&rows);
            (key, sum)
        });
        let (good, mut letters) = self.checked(rows).await?;
        let bytes: usize = good.iter().map(|(_, row)| bytes_of(row)).sum();
        if bytes > PUSH_BYTES_MAX {
            return Err(Error::invalid(format!("a push of {bytes} bytes, expected {PUSH_BYTES_MAX} at most")));
        }
        let mut accepted = good.len();
        let mut near = vec![];
        let mut written = Written::default();
        if accepted > 0 {
            written = self.write(good, key.clone(), bytes).await?;
            for (one, row) in written.near {
                letters.push((one.row, row, one.reason()));
                near.push(one);
            }
            accepted -= near.len();
            letters.sort_by_key(|(number, ..)| *number);
            near.sort_by_key(|one| one.row);
        }
        let refused: Vec<(usize, String)> =
            letters.iter().map(|(number, _, reason)| (*number, reason.clone())).collect();
        if !letters.is_empty() {
            self.put_aside(letters, key.map(|(key, _)| key)).await?;
        }
        let mut counts = self.counts();
        counts.pushed += written.count as u64;
        if written.is_repeated {
            counts.repeated += 1;
        } else {
            counts.refused += refused.len() as u64;
            counts.near += near.len() as u64;
        }
        Ok(PushAnswer { accepted, refused, near, repeated: written.is_repeated })
    }

    fn check_open(&self) -> Result<()> {
        self.inner.shared.check_open()?;
        if self.counts().is_dropped {
            return Err(Error::new(ErrorKind::Closed, "the stream was dropped"));
        }
        Ok(())
    }

    /// The rows that are good, with the fields of the stream alone, and the others.
    async fn checked(&self, rows: Vec<Row>) -> Result<(Vec<(usize, Row)>, Vec<Letter>)> {
        let mut letters = vec![];
        let mut numbers: Vec<usize> = (0..rows.len()).collect();
        let mut rows = rows;
        if let Some(name) = self.spec().transform {
            let db = self.db()?;
            let function = db.function(&name).ok_or_else(|| {
                Error::not_found(format!(
                    "stream {:?} transforms rows by function {name:?}, which is not there",
                    self.name()
                ))
            })?;
            let (mut made, mut from) = (vec![], vec![]);
            let called = function.call(&rows, &self.inner.relation.fields).await?;
            if called.len() != rows.len() {
                let message = format!("function {name:?} answered {} of {} rows", called.len(), rows.len());
                return Err(Error::internal(message));
            }
            for (number, (row, given)) in rows.into_iter().zip(called).enumerate() {
                match given {
                    Ok(rows) => {
                        from.extend(std::iter::repeat_n(number, rows.len()));
                        made.extend(rows);
                    }
                    Err(error) => letters.push((number, row, format!("{name}: {}", error.message()))),
                }
            }
            (rows, numbers) = (made, from);
        }
        let mut reasons: BTreeMap<usize, String> = self.inner.relation.batch(&rows).1.into_iter().collect();
        for (at, row) in rows.iter().enumerate() {
            if let Some((field, number)) = row.iter().find_map(|(field, value)| Some((field, not_finite(value)?))) {
                reasons
                    .entry(at)
                    .or_insert_with(|| format!("field {field:?} is {number}, which is not a finite number"));
            }
        }
        if !self.inner.checks.is_empty() {
            let mut fits: Vec<usize> = (0..rows.len()).filter(|at| !reasons.contains_key(at)).collect();
            let keyed = |at: &usize| {
                let mut row = self.fields_of(&rows[*at]);
                row.insert(self.inner.key.clone(), Value::Int(*at as i64));
                row
            };
            let batch = match Batch::from_rows(&self.inner.schema, fits.iter().map(keyed).collect()) {
                Ok(batch) => batch,
                // What fits a column may be more than a field takes.
                Err(_) => {
                    fits.retain(|at| match Batch::from_rows(&self.inner.schema, vec![keyed(at)]) {
                        Ok(_) => true,
                        Err(error) => {
                            reasons.insert(*at, error.message().to_owned());
                            false
                        }
                    });
                    Batch::from_rows(&self.inner.schema, fits.iter().map(keyed).collect())?
                }
            };
            for (filter, reason) in &self.inner.checks {
                let passed = filter.evaluate(batch.scalars());
                for (row, at) in fits.iter().enumerate() {
                    if !passed.contains(row) {
                        reasons.entry(*at).or_insert_with(|| reason.clone());
                    }
                }
            }
        }
        let mut good = vec![];
        for ((at, row), number) in rows.into_iter().enumerate().zip(numbers) {
            match reasons.remove(&at) {
                Some(reason) => letters.push((number, row, reason)),
                None => good.push((number, self.fields_of(&row))),
            }
        }
        letters.sort_by_key(|(number, ..)| *number);
        Ok((good, letters))
    }

    fn fields_of(&self, row: &Row) -> Row {
        let fields = self.inner.relation.fields.iter();
        let value = |field: &Field| {
            let value = row.get(&field.name)?;
            // A vector that came as JSON is one all the same: to those that are compared by theirs.
            let vector = match (field.data_type, value) {
                (DataType::FloatVector { .. }, Value::Json(serde_json::Value::Array(numbers))) => {
                    let number = |number: &serde_json::Value| number.as_f64().map(|number| number as f32);
                    numbers.iter().map(number).collect::<Option<Vec<f32>>>().map(Value::Vector)
                }
                _ => None,
            };
            Some((field.name.clone(), vector.unwrap_or_else(|| value.clone())))
        };
        fields.filter_map(value).collect()
    }

    fn db(&self) -> Result<Db> {
        self.inner.shared.check_open()?;
        self.inner.shared.db().ok_or_else(|| Error::new(ErrorKind::Closed, "the store was closed"))
    }

    /// Which partition each row goes into.
    fn deal(&self, rows: Vec<(usize, Row)>, key: Option<&PushKey>) -> BTreeMap<u32, Vec<(usize, Row)>> {
        let (spec, now) = {
            let definition = self.definition();
            (definition.0.spec.clone(), definition.0.now())
        };
        let mut dealt: BTreeMap<u32, Vec<(usize, Row)>> = BTreeMap::new();
        for (number, row) in rows {
            let part = spec.part_of(spec.partitions, &row, key).unwrap_or_else(|| {
                let mut counts = self.counts();
                counts.next_partition = (counts.next_partition + 1) % spec.partitions;
                counts.next_partition
            });
            dealt.entry(now.start + part).or_default().push((number, row));
        }
        dealt
    }

    /// Writes rows; whoever gets the logs writes for all who wait.
    async fn write(&self, rows: Vec<(usize, Row)>, key: Option<(PushKey, u32)>, bytes: usize) -> Result<Written> {
        let (done, mut waiting) = oneshot::channel();
        let pending = Pending { rows, key, bytes, done };
        self.inner.pending.lock().expect("no panic while held").push(pending);
        let mut lanes = self.inner.lanes.lock().await;
        if let Ok(Some(result)) = waiting.try_recv() {
            return result;
        }
        let mut all = std::mem::take(&mut *self.inner.pending.lock().expect("no panic while held"));
        while !all.is_empty() {
            // No more in one piece than one push may have, and none twice.
            let (mut count, mut len, mut keys) = (0, 0, vec![]);
            let fits = all.iter().take_while(|one| {
                count += one.rows.len();
                len += one.bytes;
                let key = one.key.as_ref().map(|(key, _)| key);
                let is_new = key.is_none_or(|key| !keys.contains(&key));
                keys.extend(key);
                is_new && count <= PIECE_ROWS_MAX && len <= PUSH_BYTES_MAX
            });
            let fits = fits.count().max(1);
            let group: Vec<Pending> = all.drain(..fits).collect();
            self.write_group(&mut lanes, group).await;
        }
        self.count_producers(&lanes);
        drop(lanes);
        waiting.await.unwrap_or_else(|_| Err(Error::internal("nobody wrote the rows")))
    }

    fn count_producers(&self, lanes: &Lanes) {
        self.inner.producers.store(lanes.producers_max(), Ordering::Relaxed);
    }

    async fn write_group(&self, lanes: &mut Lanes, group: Vec<Pending>) {
        let mut loads: BTreeMap<u32, Load> = BTreeMap::new();
        let mut takers: Vec<Taker> = vec![];
        let now_ms = self.inner.shared.options.environment.now_ms();
        let kept = self.near().as_mut().map(|near| {
            near.forget(now_ms);
            near.len()
        });
        if kept.is_some() {
            self.release();
        }
        for mut one in group {
            // One that is refused is refused alone.
            let waits = takers.iter().map(|taker| taker.bytes).sum::<usize>();
            if let Err(error) = self.check_open() {
                let _ = one.done.send(Err(error));
                continue;
            }
            let mut written = match self.take_known(lanes, &mut one) {
                Ok(written) => written,
                Err(error) => {
                    let _ = one.done.send(Err(error));
                    continue;
                }
            };
            if written.is_repeated {
                // It takes no room, and is as durable as it will be.
                let _ = one.done.send(Ok(written));
                continue;
            }
            let room = if waits == 0 { self.buffer().room(one.bytes) } else { self.buffer().room(waits + one.bytes) };
            if room == Room::None {
                self.counts().full += 1;
                let (bytes, _) = self.buffer().bytes();
                let _ = one.done.send(Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "stream {:?} keeps {bytes} bytes that were not read yet, and {} more would be over its bound of {}: push again later",
                        self.name(),
                        one.bytes,
                        self.spec().bytes_max
                    ),
                )));
                continue;
            }
            let rows = self.deal(one.rows, one.key.as_ref().map(|(key, _)| key));
            let mut notes: BTreeMap<u32, Vec<NearRow>> = rows.keys().map(|at| (*at, vec![])).collect();
            // The first of rows that are near to each other is taken, whatever their partitions.
            let rows = rows.into_iter().flat_map(|(at, rows)| rows.into_iter().map(move |(no, row)| (no, at, row)));
            let mut rows: Vec<(usize, u32, Row)> = rows.collect();
            rows.sort_by_key(|(number, ..)| *number);
            let mut near = self.near();
            for (number, partition, row) in rows {
                match near.as_mut().and_then(|near| near.admit(number, &row, now_ms)) {
                    Some(one) => {
                        notes.entry(partition).or_default().push(one.clone());
                        written.near.push((one, row));
                    }
                    None => {
                        written.count += 1;
                        loads.entry(partition).or_default().rows.push(row);
                    }
                }
            }
            if let Some((key, sum)) = one.key {
                for (partition, near) in notes {
                    let note = near::encode(&near);
                    loads.entry(partition).or_default().keyed.push(KeyedPush { key: key.clone(), sum, note });
                }
            }
            takers.push(Taker { bytes: one.bytes, done: one.done, written });
        }
        let (written, result) = self.write_pieces(lanes, loads, now_ms).await;
        if let Some(near) = &mut *self.near() {
            if result.is_err() {
                near.take_back(kept.unwrap_or_default(), &written, now_ms);
            }
            near.settle();
        }
        for Taker { done, written, .. } in takers {
            // One who stopped waiting needs no answer.
            let _ = done.send(result.clone().map(|()| written));
        }
        self.inner.waiters.wake();
    }

    /// Writes a piece for each partition; tells, of a stream that compares rows, those that are written.
    async fn write_pieces(
        &self,
        lanes: &mut Lanes,
        loads: BTreeMap<u32, Load>,
        now_ms: u64,
    ) -> (Vec<Vec<Row>>, Result<()>) {
        let spec = self.spec();
        let stored = spec.durability == PushDurability::Stored;
        let came_ms = spec.dedupe.is_some().then_some(now_ms);
        let mut written = vec![];
        for (partition, Load { rows, keyed }) in loads {
            let log = lanes.logs.get_mut(&partition).expect("rows are dealt to partitions that are there");
            let piece = log.piece(self.buffer().next(partition), came_ms, keyed, rows);
            let bytes = piece.encode();
            let len = bytes.len();
            let keep = self.buffer().room(len) == Room::Memory;
            let file = if stored || !keep {
                match log.append(&*self.inner.shared.storage, &piece, bytes, stored).await {
                    Ok(file) => Some(file),
                    Err(error) => return (written, Err(error)),
                }
            } else {
                None
            };
            log.note(&piece.keyed);
            if let Some(near) = &mut *self.near() {
                // Rows in memory alone are in memory there as well.
                if stored {
                    near.wrote(partition, now_ms, piece.first);
                }
                written.push(piece.rows.clone());
            }
            self.buffer().push(partition, piece, len, now_ms, file, keep);
        }
        (written, Ok(()))
    }

    /// Puts rows that were refused into the collection for them.
    async fn put_aside(&self, letters: Vec<Letter>, key: Option<PushKey>) -> Result<()> {
        let Some(collection) = self.spec().dead_letters else { return Ok(()) };
        // Those of a push with a key are the same ones when it comes again.
        let id = self.id();
        let key_of = |place: usize, number: usize| {
            key.as_ref().map(|key| format!("{id:016x}-{}-{number}-{place}-{}", key.sequence(), key.producer()))
        };
        let letters = letters.into_iter().enumerate().map(|(place, (number, row, reason))| {
            (key_of(place, number), format!("row {number} of a push"), row, reason)
        });
        super::pipeline::put_letters(&self.db()?, &collection, &self.name(), letters.collect()).await
    }

    /// Whoever reads by that name, and from where on rows are kept for it.
    fn floor(&self, reader: &str) -> Option<Vec<u64>> {
        self.definition().0.readers.get(reader).cloned()
    }

    /// Nothing is kept for a reader any more.
    pub(super) async fn retire(&self, reader: &str) -> Result<()> {
        if self.check_open().is_err() || self.floor(reader).is_none() {
            return Ok(());
        }
        self.store(|definition| definition.readers.remove(reader).is_some(), |_| {}).await?;
        self.sizers().remove(reader);
        self.release();
        self.remove_files().await
    }

    /// Lets go of rows in memory that no reader needs.
    fn release(&self) {
        let (readers, there) = {
            let definition = self.definition();
            (definition.0.readers.clone(), definition.0.there())
        };
        if readers.is_empty() {
            return;
        }
        let mut buffer = self.buffer();
        let near = self.near();
        for (at, partition) in there.enumerate() {
            if !buffer.partitions().contains(&partition) {
                // It is going, or coming.
                continue;
            }
            let before = readers.values().filter_map(|from| from.get(at)).min().copied();
            // What others are compared with is found in the log again.
            let compared = near.as_ref().and_then(|near| near.floor(partition)).unwrap_or(u64::MAX);
            buffer.unload(partition, before.unwrap_or_default());
            buffer.release(partition, before.unwrap_or_default().min(compared));
        }
    }

    /// Removes the files of rows that no reader needs.
    async fn remove_files(&self) -> Result<()> {
        let mut lanes = self.inner.lanes.lock().await;
        self.remove_files_of(&mut lanes).await
    }

    async fn remove_files_of(&self, lanes: &mut Lanes) -> Result<()> {
        for (partition, log) in &mut lanes.logs {
            let first = self.buffer().first(*partition);
            for path in log.take_before(first) {
                self.inner.shared.storage.remove(&path).await?;
            }
        }
        self.remove_past(lanes).await
    }

    /// What is known of a push with a key: an error when it cannot be taken. Rows that are there already are not to be written any more.
    fn take_known(&self, lanes: &Lanes, one: &mut Pending) -> Result<Written> {
        let mut written = Written::default();
        let Some((key, sum)) = &one.key else { return Ok(written) };
        let (spec, generations) = {
            let definition = self.definition();
            (definition.0.spec.clone(), definition.0.generations().collect::<Vec<_>>())
        };
        // Each row has gone where the partitions of that time had it go.
        for generation in generations {
            let mut notes: BTreeMap<u32, Option<Vec<u8>>> = BTreeMap::new();
            let part_of = |row: &Row| {
                generation.start + spec.part_of(generation.len() as u32, row, Some(key)).unwrap_or_default()
            };
            for (_, row) in &one.rows {
                let partition = part_of(row);
                if let (false, Some(producers)) = (notes.contains_key(&partition), lanes.producers(partition)) {
                    let note = match producers.known(key, *sum)? {
                        Known::Repeated(note) => Some(note),
                        Known::New => None,
                    };
                    notes.insert(partition, note);
                }
            }
            for (partition, note) in notes {
                let Some(note) = note else { continue };
                // A function may have made several of one.
                let mut rows: BTreeMap<usize, Vec<Row>> = BTreeMap::new();
                for (number, row) in one.rows.extract_if(.., |(_, row)| part_of(row) == partition) {
                    rows.entry(number).or_default().push(row);
                }
                for near in near::decode(&note)? {
                    let row = rows.get_mut(&near.row).and_then(Vec::pop);
                    written.near.extend(row.map(|row| (near, row)));
                }
            }
        }
        written.is_repeated = one.rows.is_empty();
        Ok(written)
    }
}

impl std::fmt::Debug for PushStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushStream").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// The checksum of rows as they came.
fn sum_of(rows: &[Row]) -> u32 {
    crate::base::codec::checksum(&rmp_serde::to_vec(rows).expect("rows are maps of texts, numbers and lists"))
}

/// About the bytes that a row takes.
fn bytes_of(row: &Row) -> usize {
    row.iter().map(|(name, value)| name.len() + 2 + bytes_of_value(value)).sum()
}

fn bytes_of_value(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Vector(numbers) => 4 * numbers.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::Json(json) => json.to_string().len(),
        Value::Array(values) => values.iter().map(bytes_of_value).sum(),
        _ => 8,
    }
}

/// A number in a value that is none.
fn not_finite(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number).filter(|number| !number.is_finite()),
        Value::Float(number) => Some(f64::from(*number)).filter(|number| !number.is_finite()),
        Value::Vector(numbers) => numbers.iter().map(|one| f64::from(*one)).find(|number| !number.is_finite()),
        _ => None,
    }
}
