use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use async_lock::MutexGuardArc;
use futures_channel::oneshot;
use hashbrown::HashMap;

use super::collection::{Collection, Inner};
use super::log::{GROUP_FRAMES_MAX, Log};
use super::{Condition, Durability, WriteRequest, WriteResponse};
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, Sequence, Version, sort_by};
use crate::engine::{
    Answer, ChangeSet, KeptPart, Met, PipelineWrite, Record, Refused, RequestId, Source, SyncPosition, is_eviction,
};
use crate::model::{Batch, Key};
use crate::platform;
use crate::query::Filter;
use crate::segment::RowsWriter;
use crate::wal;

/// A group is written when it reaches this size, and the rest waits for the next one.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// So many groups are committed by one who has the log, before others who wait for it have it.
const GROUPS_MAX: usize = 32;
/// How long writers who have just been answered are waited for after the last one that came, at most: a quarter of the last sync. Tasks on
/// several threads come within microseconds, and each that is left behind waits for two syncs.
const PATIENCE_US_MAX: u64 = 50;
/// And for so many turns of other tasks, at most.
const PATIENCE_TURNS_MAX: u32 = 1_000;

/// Holds what stands before the rows of a write of one version: the headers of the file and of the frame, and the record's head.
const ROOM_BYTES: usize = 128;

/// Buffers of so many bytes are used again. Smaller ones the allocator has at hand; larger ones are too much to hold.
pub(super) const SPARE_BYTES: RangeInclusive<usize> = 64 << 10..=4 << 20;
/// From so many rows on, their memory is made ready while they are written to the log.
const READIED_ROWS_MIN: usize = 16;

/// What a caller wants written.
pub(super) enum Request {
    Write {
        steps: Vec<Step>,
        conditions: Vec<Condition>,
        request: Option<WriteRequest>,
        pipeline: Option<PipelineWrite>,
    },
    Apply {
        changes: ChangeSet,
        from: Option<(ReplicaId, Lsn)>,
        /// What those say is whole with them who sent them. What does not come from a hub comes in order.
        seen: Vec<(ReplicaId, Sequence)>,
        /// What those have who sent them, when what loses by them is to be kept.
        met: Option<Met>,
        conditions: Vec<Condition>,
    },
    /// Changes that a comparison with another replica found to be missing here.
    TakeIn {
        changes: ChangeSet,
    },
    MarkPushed {
        hub: ReplicaId,
        sequence: Sequence,
    },
    /// How far a subscription has got; it ends with `None`.
    SetCursor {
        name: String,
        lsn: Option<Lsn>,
    },
    /// A hub has refused own changes.
    NoteRefused(Refused),
    /// Which part of a hub's rows is kept here from now on.
    SetPart {
        hub: ReplicaId,
        pulled: Option<Lsn>,
        kept: KeptPart,
    },
    /// Takes a position of the log for what comes here beside it.
    Reserve {
        hub: ReplicaId,
    },
    /// Seals the growing segment, so that everything before it can be flushed.
    Seal,
}

/// One operation of a write, checked against the schema.
pub(super) enum Step {
    Insert(Batch),
    Upsert(Batch),
    DeleteKeys(Vec<Key>),
    DeleteWhere(Box<Filter>),
}

/// A request that waits for the next commit.
pub(super) struct Pending {
    request: Request,
    rows: Option<Rows>,
    durability: Durability,
    reply: oneshot::Sender<Result<WriteResponse>>,
}

/// The rows of a write as they go into the log, made by the caller: what a commit has to do, all others wait for.
struct Rows(wal::Body);

impl Rows {
    /// Those of a write whose rows are there already: they go into the log as they are, or not at all.
    fn of(request: &Request, collection: &Inner) -> Option<Self> {
        let Request::Write { steps, .. } = request else { return None };
        let [Step::Insert(batch) | Step::Upsert(batch)] = &steps[..] else { return None };
        if batch.is_empty() {
            return None;
        }
        let writer = {
            let mut writer = collection.rows_writer.lock().expect("no panic while held");
            writer.take_if(|writer| !writer.fits(batch));
            writer.get_or_insert_with(|| Arc::new(RowsWriter::new(batch))).clone()
        };
        let vectors: usize = batch.vectors().iter().map(|column| column.data.len() * size_of::<f32>()).sum();
        let room = if vectors > 0 { ROOM_BYTES } else { 0 };
        let is_large = vectors >= *SPARE_BYTES.start();
        let spare = is_large.then(|| std::mem::take(&mut *collection.spare.lock().expect("no panic while held")));
        let mut bytes = writer.write(spare.unwrap_or_default(), room, batch);
        // To see that a row of floats does not shrink takes longer than all else that is done with it.
        Some(Self(if 2 * vectors >= bytes.len() - room {
            wal::Body::plain_behind(room, bytes)
        } else {
            bytes.drain(..room);
            wal::Body::pack(bytes)
        }))
    }
}

/// A record with its place in the log.
struct Staged {
    lsn: Lsn,
    record: Record,
    /// The newest of its changes.
    version: Version,
    /// Every batch that came with the record, those included that lose to what is here: known once the record is durable.
    seen: Vec<(ReplicaId, Sequence)>,
}

/// Records on their way into the log, and whom to tell.
#[derive(Default)]
struct Group {
    frames: wal::Frames,
    staged: Vec<(Staged, oneshot::Sender<Result<WriteResponse>>)>,
    /// Keys that this group writes, with their version, or deletes: later requests of the group see them. Only of the first requests of
    /// `staged`: of the others when somebody looks.
    keys: HashMap<Key, Option<Version>>,
    keys_of: usize,
    sequence: Option<Sequence>,
    changes: bool,
    /// Whether somebody waits for the sync.
    synced: bool,
}

impl Group {
    /// Notes the keys of all that is staged.
    fn note_keys(&mut self) {
        for (staged, _) in &self.staged[self.keys_of..] {
            if let Record::Changes { changes, .. } = &staged.record {
                let versions = changes.put_versions.iter().copied().map(Some);
                self.keys.extend(changes.puts.keys().into_iter().zip(versions));
                self.keys.extend(changes.deletes.iter().map(|(key, _)| (key.clone(), None)));
            }
        }
        self.keys_of = self.staged.len();
    }
}

impl Collection {
    /// Writes when the log has room, and is acknowledged when `durability` says; as the store's options say with `None`.
    pub(super) async fn write(&self, request: Request, durability: Option<Durability>) -> Result<WriteResponse> {
        self.inner.shared.check_open()?;
        self.wait_for_room().await?;
        self.submit(request, durability).await
    }

    /// Seals the growing segment, so that everything before it can be flushed.
    pub(super) async fn seal(&self) -> Result<()> {
        self.inner.shared.check_open()?;
        self.submit(Request::Seal, None).await.map(drop)
    }

    /// Puts a request in line and waits for its end. Requests that come while a commit is under way wait together: the first of them
    /// that gets the log commits them all, and the others go on at once. (Were each to wait for its turn at the log, those whose
    /// requests are done would stand between the others, and every group would be one write long.) Where there is a background, they are
    /// committed there, and so are those that come meanwhile.
    async fn submit(&self, request: Request, durability: Option<Durability>) -> Result<WriteResponse> {
        let durability = durability.unwrap_or(self.inner.shared.options.durability);
        let (reply, mut answer) = oneshot::channel();
        let rows = Rows::of(&request, &self.inner);
        self.inner.pending.lock().expect("no panic while held").push(Pending { request, rows, durability, reply });
        let lost = |_| Error::internal("a commit ended without an answer");
        let mut turn = std::pin::pin!(self.inner.log.lock_arc());
        let first = poll_fn(|context| match Pin::new(&mut answer).poll(context) {
            Poll::Ready(answer) => Poll::Ready(Ok(answer)),
            Poll::Pending => turn.as_mut().poll(context).map(Err),
        });
        match first.await {
            Ok(answer) => answer.map_err(lost)?,
            Err(log) => {
                let this = self.clone();
                // Nobody waits for the end of it who has his answer.
                if let Some(own) = platform::detach(async move { this.commit(log).await }) {
                    own.await;
                }
                answer.await.map_err(lost)?
            }
        }
    }

    /// Takes the next position of the log, durably, for what comes from `hub` beside the log; whoever holds the log is the one writer.
    pub(super) async fn reserve(&self, log: &mut Log, hub: ReplicaId) -> Result<Lsn> {
        let mut group = Group { synced: true, ..Group::default() };
        let staged = self.stage(log, &mut group, Request::Reserve { hub }, None).await?;
        let (reply, answer) = oneshot::channel();
        group.staged.extend(staged.map(|staged| (staged, reply)));
        self.commit_group(log, group).await;
        Ok(answer.await.map_err(|_| Error::internal("a commit ended without an answer"))??.lsn)
    }

    /// Ends writing for good, after what is under way.
    pub(super) async fn end(&self) {
        self.inner.log.lock().await.end();
        self.inner.ended.store(true, Ordering::Release);
        self.notify();
    }

    /// Commits what waits, a group after the other.
    async fn commit(&self, mut log: MutexGuardArc<Log>) {
        for _ in 0..GROUPS_MAX {
            if !self.commit_waiting(&mut log).await {
                break;
            }
        }
    }

    /// Commits a group; false when nobody waits.
    async fn commit_waiting(&self, log: &mut Log) -> bool {
        let mut group = Group::default();
        let (mut came, mut waiting_since, mut turns) = (0, None, 0);
        loop {
            let requests = std::mem::take(&mut *self.inner.pending.lock().expect("no panic while held"));
            if !requests.is_empty() {
                came += requests.len();
                (waiting_since, turns) = (None, 0);
                // While the others are on their way.
                self.stage_all(log, &mut group, requests).await;
            }
            // For one writer alone it is as soon to begin anew.
            if came >= log.expected || log.expected == 1 || group.frames.len() >= GROUP_BYTES_MAX {
                break;
            }
            // Whom the last commit has answered may be about to write again, and can come along.
            let now = self.inner.shared.options.environment.now_us();
            match waiting_since {
                None => waiting_since = Some(now),
                Some(since) if now.saturating_sub(since) >= log.patience_us => break,
                Some(_) => {}
            }
            // By a clock that stands still, or is set back, the moment would have no end.
            turns += 1;
            if turns > PATIENCE_TURNS_MAX {
                break;
            }
            platform::yield_now().await;
        }
        self.commit_group(log, group).await;
        came > 0
    }

    /// Makes all of these part of the group; commits it, and goes on with another, where one has to be alone or there is no more room.
    async fn stage_all(&self, log: &mut Log, group: &mut Group, requests: Vec<Pending>) {
        for Pending { request, rows, durability, reply } in requests {
            if reply.is_canceled() {
                // Given up before it was begun.
                continue;
            }
            // These look at the state as it is after all requests before them.
            let alone = match &request {
                Request::Write { steps, request, .. } => {
                    steps.iter().any(|step| matches!(step, Step::DeleteWhere(_)))
                        || request.is_some_and(|request| request.again)
                }
                Request::Apply { .. } | Request::TakeIn { .. } => false,
                Request::MarkPushed { .. }
                | Request::SetCursor { .. }
                | Request::NoteRefused(_)
                | Request::SetPart { .. }
                | Request::Reserve { .. }
                | Request::Seal => true,
            };
            if alone || group.frames.len() >= GROUP_BYTES_MAX || group.staged.len() >= GROUP_FRAMES_MAX {
                self.commit_group(log, std::mem::take(group)).await;
            }
            // What it meets is looked for among what was applied.
            if let Request::Apply { changes, met: Some(_), .. } = &request
                && !group.staged.is_empty()
            {
                group.note_keys();
                let deleted = changes.deletes.iter().map(|(key, _)| key.clone());
                if changes.puts.keys().into_iter().chain(deleted).any(|key| group.keys.contains_key(&key)) {
                    self.commit_group(log, std::mem::take(group)).await;
                }
            }
            if let Request::Write { request: Some(request), .. } = &request
                && let Some(answer) = self.answer_again(request)
            {
                drop(reply.send(answer));
                continue;
            }
            match self.stage(log, group, request, rows).await {
                Ok(Some(staged)) => {
                    // Positions are worth no sync of their own: losing one repeats some work and loses nothing.
                    let changes = matches!(staged.record, Record::Changes { .. });
                    group.changes |= changes;
                    // What was refused once the hub may never be asked for again.
                    let lasting = changes || matches!(staged.record, Record::Refused(_));
                    group.synced |= lasting && durability == Durability::Synced;
                    group.staged.push((staged, reply));
                }
                // A caller who has gone away does not need the answer.
                Ok(None) => drop(reply.send(Ok(WriteResponse { lsn: self.lsn(), ..Default::default() }))),
                Err(error) => drop(reply.send(Err(error))),
            }
        }
    }

    /// Turns a request into a record of `group`; `None` when there is nothing to write.
    async fn stage(
        &self,
        log: &mut Log,
        group: &mut Group,
        request: Request,
        rows: Option<Rows>,
    ) -> Result<Option<Staged>> {
        if let Some(error) = &log.broken {
            return Err(error.clone());
        }
        let shared = &self.inner.shared;
        let mut seen = Vec::new();
        let record = match request {
            Request::Write { steps, conditions, request, pipeline } => {
                if !conditions.is_empty() || !matches!(steps[..], [Step::Upsert(_)]) {
                    group.note_keys();
                }
                self.check_conditions(group, &conditions)?;
                // A field may have been added while they waited, or a partition dropped.
                let checked = |batch| {
                    let batch = self.checked(batch)?;
                    self.check_named(&batch).map(|()| batch)
                };
                let checked = |step| match step {
                    Step::Insert(batch) => checked(batch).map(Step::Insert),
                    Step::Upsert(batch) => checked(batch).map(Step::Upsert),
                    other => Ok(other),
                };
                let steps = steps.into_iter().map(checked).collect::<Result<_>>()?;
                let (puts, deletes) = self.fold(group, steps).await?;
                let from = match (request, pipeline) {
                    (None, Some(pipeline)) => Source::Pipeline(pipeline),
                    (Some(request), _) => {
                        let before = RequestId { number: request.settled, ..request.id };
                        self.inner.state.write().expect("no panic while held").settle(before);
                        Source::Client(request.id)
                    }
                    (None, None) => Source::Here,
                };
                self.stage_local(group, puts, deletes, from)
            }
            Request::Apply { changes, from, seen: told, met, conditions } => {
                if !conditions.is_empty() {
                    group.note_keys();
                    self.check_conditions(group, &conditions)?;
                }
                self.observe(&changes)?;
                let changes = ChangeSet { puts: self.checked(changes.puts)?, ..changes };
                #[cfg(hosted)]
                if let Some(met) = &met {
                    self.keep_conflicts(&changes, met).await?;
                }
                #[cfg(not(hosted))]
                drop(met);
                let state = self.inner.state.read().expect("no panic while held");
                seen = told;
                if from.is_none() {
                    let of_others = changes.versions().filter(|version| !is_eviction(*version));
                    seen.extend(of_others.map(|version| (version.origin, version.sequence)));
                }
                sort_by(&mut seen, Ord::cmp);
                seen.dedup();
                let changes = state.winners(changes);
                self.note_partitions(&changes.puts);
                match (changes.is_empty(), from) {
                    (true, None) => None,
                    (true, Some((hub, pulled))) => {
                        let position = state.progress().positions.get(&hub).copied().unwrap_or_default();
                        (position.pulled != pulled)
                            .then_some(Record::Position { hub, position: SyncPosition { pulled, ..position } })
                    }
                    (false, Some((hub, pulled))) => {
                        let late = state.comes_late(&changes);
                        Some(Record::Changes { from: Source::Hub { hub, pulled, late }, changes })
                    }
                    (false, None) => Some(Record::Changes { from: Source::Here, changes }),
                }
            }
            Request::TakeIn { changes } => {
                self.observe(&changes)?;
                let changes = ChangeSet { puts: self.checked(changes.puts)?, ..changes };
                let changes = self.inner.state.read().expect("no panic while held").winners(changes);
                self.note_partitions(&changes.puts);
                (!changes.is_empty()).then_some(Record::Changes { from: Source::Comparison, changes })
            }
            Request::MarkPushed { hub, sequence } => {
                let position = self.sync_position(hub);
                (position.pushed < sequence)
                    .then_some(Record::Position { hub, position: SyncPosition { pushed: sequence, ..position } })
            }
            Request::SetCursor { name, lsn } => {
                let state = self.inner.state.read().expect("no panic while held");
                (state.progress().cursors.get(&name).copied() != lsn).then_some(Record::Cursor { name, lsn })
            }
            Request::NoteRefused(refused) => {
                let state = self.inner.state.read().expect("no panic while held");
                (!state.progress().refused.contains(&refused)).then_some(Record::Refused(refused))
            }
            Request::SetPart { hub, pulled, kept } => {
                shared
                    .clock
                    .lock()
                    .expect("no panic while held")
                    .observe(kept.heard, shared.options.environment.now_ms())?;
                Some(Record::Part { hub, pulled, kept })
            }
            Request::Reserve { hub } => Some(Record::Position { hub, position: self.sync_position(hub) }),
            Request::Seal => {
                self.sync_log(log).await?;
                *self.inner.spare.lock().expect("no panic while held") = Vec::new();
                let mut state = self.inner.state.write().expect("no panic while held");
                if state.seal(shared.next_segment(), log.next_start()) {
                    log.sealed();
                }
                None
            }
        };
        let Some(record) = record else {
            self.inner.state.write().expect("no panic while held").note_seen(&seen);
            if !seen.is_empty() {
                self.notify();
            }
            return Ok(None);
        };
        let lsn = match group.staged.last() {
            Some((last, _)) => last.lsn.next(),
            None => self.inner.state.read().expect("no panic while held").progress().frame.next(),
        };
        let version = match &record {
            Record::Changes { changes, .. } => changes.versions().max().unwrap_or_default(),
            _ => Version::default(),
        };
        if group.staged.is_empty() {
            self.roll_when_full(log).await?;
        }
        if group.frames.is_empty() && log.len == 0 {
            group.frames = wal::Frames::new(wal::encode_header(self.id(), log.number));
        }
        let head = record.encode_head();
        let body = match rows {
            // A field that was added meanwhile is one that these rows lack.
            Some(Rows(body)) => body,
            None => wal::Body::pack(record.encode_rows()),
        };
        let len = head.len() + body.unpacked_len();
        if len > wal::PAYLOAD_BYTES_MAX {
            let at_most = wal::PAYLOAD_BYTES_MAX;
            return Err(Error::invalid(format!("a batch of {len} bytes; at most {at_most} fit one log frame")));
        }
        if group.staged.len() == 1 {
            group.frames.reuse(std::mem::take(&mut log.spare));
        }
        let place = log.place(group.staged.len());
        group.frames.push(lsn, place, record.kind(), head, body);
        Ok(Some(Staged { lsn, record, version, seen }))
    }

    /// Has the clock be past what comes from elsewhere; all or none: a set with one refused timestamp leaves no trace.
    fn observe(&self, changes: &ChangeSet) -> Result<()> {
        let shared = &self.inner.shared;
        let now = shared.options.environment.now_ms();
        let mut clock = shared.clock.lock().expect("no panic while held");
        let mut probe = *clock;
        changes.versions().try_for_each(|version| probe.observe(version.timestamp, now))?;
        *clock = probe;
        Ok(())
    }

    fn stage_local(&self, group: &mut Group, puts: Batch, deletes: Vec<Key>, from: Source) -> Option<Record> {
        if puts.is_empty() && deletes.is_empty() {
            return None;
        }
        let shared = &self.inner.shared;
        let timestamp = shared.clock.lock().expect("no panic while held").tick(shared.options.environment.now_ms());
        let sequence = group
            .sequence
            .unwrap_or_else(|| self.inner.state.read().expect("no panic while held").seen(shared.replica));
        // Never one that was used before, even where the log has forgotten it: a collection that was dropped and made anew, or
        // a tail that was not yet synced. A hub that has seen that one would take this batch for known.
        let sequence = Sequence(sequence.0.saturating_add(1).max(timestamp.0));
        let version = Version { timestamp, origin: shared.replica, sequence };
        group.sequence = Some(version.sequence);
        let put_versions = vec![version; puts.len()];
        let deletes = deletes.into_iter().map(|key| (key, version)).collect();
        Some(Record::Changes { from, changes: ChangeSet { puts, put_versions, deletes } })
    }

    /// The answer to a write that was done when it was asked for before.
    ///
    /// # Errors
    /// `Unavailable` when that cannot be told any more.
    fn answer_again(&self, request: &WriteRequest) -> Option<Result<WriteResponse>> {
        if !request.again {
            return None;
        }
        let state = self.inner.state.read().expect("no panic while held");
        let answers = &state.progress().answers;
        if let Some(answer) = answers.find(request.id) {
            let &Answer { count, version, lsn, .. } = answer;
            let keys = answer.keys.clone();
            return Some(Ok(WriteResponse { count: count as usize, timestamp: version.timestamp, version, lsn, keys }));
        }
        answers.has_forgotten(request.id).then(|| {
            let message = "whether this write was done when it was asked for before is not known any more";
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    /// The version of the row with that key, as later requests of the group see it.
    fn version_of(&self, group: &Group, key: &Key) -> Option<Version> {
        group.keys.get(key).copied().unwrap_or_else(|| {
            let state = self.inner.state.read().expect("no panic while held");
            let found = state.find(key).map(|(segment, row)| segment.versions().version(row as usize));
            // The key of a row that has expired is free.
            found.filter(|version| version.timestamp >= self.expired_before())
        })
    }

    fn check_conditions(&self, group: &Group, conditions: &[Condition]) -> Result<()> {
        let text =
            |version: Option<Version>| version.map_or_else(|| "no row".to_owned(), |version| version.to_string());
        for Condition { key, version } in conditions {
            let found = self.version_of(group, key);
            if found != *version {
                let (found, expected) = (text(found), text(*version));
                let message = format!("primary key {key}: version {found}, expected {expected}");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        }
        Ok(())
    }

    /// What remains of operations done one after the other: at most one change a key.
    async fn fold(&self, group: &Group, mut steps: Vec<Step>) -> Result<(Batch, Vec<Key>)> {
        let exists = |row: usize, key: &Key| {
            let message = format!("row {row}: primary key {key} exists already; upsert replaces rows");
            Err(Error::new(ErrorKind::AlreadyExists, message))
        };
        if let [Step::Insert(batch) | Step::Upsert(batch)] = &steps[..] {
            if matches!(steps[0], Step::Insert(_))
                && let Some(row) = (0..batch.len()).find(|&row| self.version_of(group, &batch.key(row)).is_some())
            {
                return exists(row, &batch.key(row));
            }
            let Some(Step::Insert(batch) | Step::Upsert(batch)) = steps.pop() else { unreachable!("looked at above") };
            return Ok((batch, Vec::new()));
        }
        // Where the row of each key is, or that it is deleted.
        let mut changed: HashMap<Key, Option<(usize, usize)>> = HashMap::new();
        let mut batches = Vec::new();
        for step in steps {
            match step {
                Step::Insert(batch) => {
                    for row in 0..batch.len() {
                        let key = batch.key(row);
                        let place = changed.get(&key).map(Option::is_some);
                        if place.unwrap_or_else(|| self.version_of(group, &key).is_some()) {
                            return exists(row, &key);
                        }
                        changed.insert(key, Some((batches.len(), row)));
                    }
                    batches.push(batch);
                }
                Step::Upsert(batch) => {
                    let at = batches.len();
                    changed.extend(batch.keys().into_iter().enumerate().map(|(row, key)| (key, Some((at, row)))));
                    batches.push(batch);
                }
                Step::DeleteKeys(keys) => changed.extend(keys.into_iter().map(|key| (key, None))),
                Step::DeleteWhere(filter) => {
                    changed.extend(self.matching_keys(&filter).await?.into_iter().map(|key| (key, None)));
                }
            }
        }
        let mut rows: Vec<Vec<u32>> = vec![Vec::new(); batches.len()];
        let mut deletes = Vec::new();
        for (key, place) in changed {
            match place {
                Some((batch, row)) => rows[batch].push(row as u32),
                None if self.version_of(group, &key).is_some() => deletes.push(key),
                None => {}
            }
        }
        sort_by(&mut deletes, Ord::cmp);
        let schema = &self.spec().schema;
        let puts = match batches.len() {
            0 => Batch::empty(schema),
            1 if rows[0].len() == batches[0].len() => batches.remove(0),
            _ => {
                rows.iter_mut().for_each(|rows| rows.sort_unstable());
                let parts: Vec<Batch> = batches.iter().zip(&rows).map(|(batch, rows)| batch.take(rows)).collect();
                // Checked like rows from outside: the log must not take more of them together than it gives back.
                Batch::from_arrow(schema, &Batch::concat(&parts).to_arrow())?
            }
        };
        Ok((puts, deletes))
    }

    /// Has somebody else make the memory of many rows ready while they are written to the log, where there are several threads.
    fn make_room(&self, group: &Group) {
        let puts = |(staged, _): &(Staged, _)| match &staged.record {
            Record::Changes { changes, .. } => changes.puts.len(),
            _ => 0,
        };
        let rows = group.staged.iter().map(puts).sum();
        if cfg!(native) && rows >= READIED_ROWS_MIN {
            let inner = self.inner.clone();
            let before = inner.state.read().expect("no panic while held").growing().segment.len();
            // Where nobody else is, it is not worth its while.
            let _left = platform::detach(async move {
                inner.state.write().expect("no panic while held").make_room(before, rows);
            });
        }
    }

    /// Appends and syncs a group, applies it, and answers; when that fails, cuts the log back to where it was.
    async fn commit_group(&self, log: &mut Log, group: Group) {
        if group.staged.is_empty() {
            return;
        }
        self.make_room(&group);
        let begun = group.synced.then(|| self.inner.shared.options.environment.now_us());
        let appended = self.append(log, group.frames.into_bytes(), group.staged.len(), group.synced).await;
        let took = begun.map_or(0, |begun| self.inner.shared.options.environment.now_us().saturating_sub(begun));
        // Where there is one thread, all who come have come when it has gone around once.
        log.patience_us = if cfg!(native) { (took / 4).min(PATIENCE_US_MAX) } else { 0 };
        if let Err(error) = appended {
            for (_, reply) in group.staged {
                drop(reply.send(Err(error.clone())));
            }
            return;
        }
        let mut answers = Vec::with_capacity(group.staged.len());
        // Let go of when everybody has his answer: nobody waits for that.
        let mut applied = Vec::with_capacity(group.staged.len());
        let mut has_seen = false;
        {
            let mut state = self.inner.state.write().expect("no panic while held");
            let frames = group.staged.iter().filter_map(|(staged, _)| match &staged.record {
                Record::Changes { changes, .. } => Some((staged.lsn, changes)),
                _ => None,
            });
            let frames: Vec<_> = frames.collect();
            let mut row = if frames.is_empty() { 0 } else { state.push_rows(&frames) };
            for (Staged { lsn, record, version, seen }, reply) in group.staged {
                state.note_seen(&seen);
                has_seen |= !seen.is_empty();
                let count = match record {
                    Record::Changes { from, changes } => {
                        let first = row;
                        row += changes.puts.len();
                        let count = state.apply_pushed(lsn, &changes, from, first);
                        applied.push(changes);
                        count
                    }
                    Record::Position { hub, position } => {
                        state.set_position(lsn, hub, position);
                        0
                    }
                    Record::Lost { last } => {
                        state.set_lost(last);
                        0
                    }
                    Record::Cursor { name, lsn: at } => {
                        state.set_cursor(lsn, &name, at);
                        0
                    }
                    Record::Refused(refused) => {
                        state.set_refused(lsn, refused);
                        0
                    }
                    Record::Part { hub, pulled, kept } => {
                        state.set_part(lsn, hub, pulled, kept);
                        0
                    }
                };
                answers.push((
                    reply,
                    WriteResponse { count, timestamp: version.timestamp, version, lsn, keys: Vec::new() },
                ));
            }
        }
        if group.changes || has_seen {
            self.notify();
        }
        log.expected = answers.len() + self.inner.pending.lock().expect("no panic while held").len();
        for (reply, answer) in answers {
            drop(reply.send(Ok(answer)));
        }
    }
}
