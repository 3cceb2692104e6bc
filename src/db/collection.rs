use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};

use futures_channel::oneshot;

use super::access::Limits;
use super::alter::has_grown_from;
use super::commit::{Pending, Request, Step};
use super::database::Shared;
use super::log::Log;
use super::maintenance::Writing;
use super::merge::Merging;
use super::search::{Asked, Results, Told};
use super::specs::Specs;
use super::stream::Follower;
use super::{
    CollectionStats, Condition, HybridRequest, Operation, QueryRequest, SearchRequest, SearchResponse, SegmentStates,
    Target, WriteOptions, WriteResponse,
};
use crate::base::{CollectionId, Error, Lsn, ReplicaId, Result, Sequence};
use crate::engine::{
    ChangeSet, CollectionSpec, CollectionState, KeptPart, Met, Refused, SyncPosition, View, Watch, name,
};
use crate::index::GraphStats;
use crate::model::{Batch, DEFAULT_PARTITION, DataType, Key, Row};
use crate::query::Plan;
use crate::segment::RowsWriter;

/// A collection of an open store. Cheap to clone.
#[derive(Clone)]
pub struct Collection {
    pub(super) inner: Arc<Inner>,
    /// What of it may be read and written by this handle.
    pub(super) limits: Limits,
}

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    id: CollectionId,
    name: String,
    pub(super) specs: Specs,
    pub(super) state: RwLock<CollectionState>,
    /// Since when the growing segment has rows.
    pub(super) watch: Mutex<Watch>,
    /// Those that have names but the default one; every one that a row is in.
    pub(super) partitions: RwLock<BTreeSet<String>>,
    pub(super) pending: Mutex<Vec<Pending>>,
    /// For the rows of the schema as it is.
    pub(super) rows_writer: Mutex<Option<Arc<RowsWriter>>>,
    /// A buffer for the log's bytes of the next large write: memory that was touched before takes an eighth of the time.
    pub(super) spare: Mutex<Vec<u8>>,
    pub(super) log: Arc<async_lock::Mutex<Log>>,
    /// What a restart would replay; see [`Collection::wait_for_room`].
    pub(super) log_bytes: AtomicU64,
    pub(super) writing: async_lock::Mutex<Option<Writing>>,
    /// Merges that are under way, no two of one segment.
    pub(super) merges: async_lock::Mutex<Vec<Merging>>,
    /// Counts the connections that have brought segments from elsewhere; only the last one stores what comes.
    #[cfg(hosted)]
    pub(super) seeding: async_lock::Mutex<u64>,
    #[cfg(hosted)]
    pub(super) conflicts: async_lock::Mutex<super::conflicts::Kept>,
    /// What is held of it for those who compare.
    #[cfg(hosted)]
    pub(super) compared: async_lock::Mutex<super::sync::Sets>,
    /// Held while what a hub has sent is applied, and while another part of its rows is begun.
    #[cfg(hosted)]
    pub(super) reshaping: async_lock::Mutex<()>,
    /// Counts steps of background work.
    pub(super) turn: AtomicU64,
    #[cfg(test)]
    pub(super) planted: AtomicBool,
    /// Whether its segments are to be merged as far as they can be.
    pub(super) compact: AtomicBool,
    /// Bytes logged, flushed, compacted.
    pub(super) written: [AtomicU64; 3],
    listeners: Mutex<Vec<oneshot::Sender<()>>>,
    /// Whether it was closed or dropped.
    pub(super) ended: AtomicBool,
    /// Those who follow its changes.
    pub(super) followers: Mutex<Vec<Weak<Follower>>>,
    /// Answers that were given.
    pub(super) results: Results,
}

impl Collection {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: CollectionId,
        name: &str,
        mut state: CollectionState,
        log: Log,
        partitions: BTreeSet<String>,
    ) -> Self {
        state.retain(shared.options.retention_ms);
        let inner = Inner {
            shared,
            id,
            name: name.to_owned(),
            specs: Specs::new(state.spec().clone()),
            state: RwLock::new(state),
            watch: Mutex::default(),
            partitions: RwLock::new(partitions),
            pending: Mutex::default(),
            rows_writer: Mutex::default(),
            spare: Mutex::default(),
            log_bytes: AtomicU64::new(log.bytes()),
            log: Arc::new(async_lock::Mutex::new(log)),
            writing: async_lock::Mutex::new(None),
            merges: Default::default(),
            #[cfg(hosted)]
            seeding: async_lock::Mutex::new(0),
            #[cfg(hosted)]
            conflicts: Default::default(),
            #[cfg(hosted)]
            compared: Default::default(),
            #[cfg(hosted)]
            reshaping: async_lock::Mutex::new(()),
            turn: AtomicU64::new(0),
            #[cfg(test)]
            planted: AtomicBool::new(false),
            compact: AtomicBool::new(false),
            written: Default::default(),
            listeners: Mutex::default(),
            ended: AtomicBool::new(false),
            followers: Mutex::default(),
            results: Results::default(),
        };
        let collection = Self { inner: Arc::new(inner), limits: Limits::default() };
        if collection.spec().schema.partitioned() {
            let named = collection.rows_by_partition().into_keys().filter(|name| name != DEFAULT_PARTITION);
            collection.inner.partitions.write().expect("no panic while held").extend(named);
        }
        collection
    }

    pub(super) fn id(&self) -> CollectionId {
        self.inner.id
    }

    pub(super) fn lsn(&self) -> Lsn {
        self.inner.state.read().expect("no panic while held").progress().lsn
    }

    pub(super) fn notify(&self) {
        self.let_go_of_slow();
        for listener in std::mem::take(&mut *self.inner.listeners.lock().expect("no panic while held")) {
            // A listener that is gone waits for nothing.
            let _ = listener.send(());
        }
    }

    /// Notes that somebody waits for an answer: background work takes smaller steps then.
    fn count_call(&self) {
        self.inner.shared.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// How old the growing segment is and how long it has been idle, as far as was seen; `None` while there is nothing in it.
    pub(super) fn look(&self, now_ms: u64) -> Option<(u64, u64)> {
        let state = self.inner.state.read().expect("no panic while held");
        let segment = &state.growing().segment;
        let is_empty = segment.is_empty() && segment.deletes.is_empty();
        let mut watch = self.inner.watch.lock().expect("no panic while held");
        (!is_empty).then(|| watch.look(segment.id().0, state.progress().lsn.0, now_ms))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its schema and indexes.
    pub fn spec(&self) -> &CollectionSpec {
        self.inner.specs.newest()
    }

    /// Adds rows, all or none; `AlreadyExists` when a key is there. See [`Batch::from_rows`] for what is refused.
    pub async fn insert(&self, batch: Batch) -> Result<WriteResponse> {
        self.batch(vec![Operation::Insert(batch)], WriteOptions::default()).await
    }

    /// Adds or replaces rows, all or none.
    pub async fn upsert(&self, batch: Batch) -> Result<WriteResponse> {
        self.batch(vec![Operation::Upsert(batch)], WriteOptions::default()).await
    }

    /// Deletes rows; keys that are not there count for nothing.
    pub async fn delete(&self, target: Target) -> Result<WriteResponse> {
        self.batch(vec![Operation::Delete(target)], WriteOptions::default()).await
    }

    /// Does all of `operations`, in order, or none of them, whatever fails or dies: they are one frame of the log, and readers see
    /// them together. A filter looks at the collection as it was before the first of them.
    ///
    /// There is no batch over several collections: each has a log of its own, and no write that is in both or in neither.
    ///
    /// # Errors
    /// `Conflict` when a condition of `options` does not hold, `AlreadyExists` for an insert of a key that is there, by then or by an
    /// operation before; `NotFound` for a partition that is not there; `InvalidArgument` for rows of another schema, and for more than [`Batch::BYTES_MAX`] of them together.
    pub async fn batch(&self, operations: Vec<Operation>, options: WriteOptions) -> Result<WriteResponse> {
        let partition = options.partition.as_deref();
        let placed = |batch| {
            let batch = self.checked(batch)?;
            match partition {
                Some(partition) => self.placed(batch, partition),
                None => Ok(batch),
            }
        };
        let step = |operation| {
            Ok(match operation {
                Operation::Insert(batch) => Step::Insert(placed(batch)?),
                Operation::Upsert(batch) => Step::Upsert(placed(batch)?),
                Operation::Delete(target) => self.delete_step(target, partition)?,
            })
        };
        let steps = operations.into_iter().map(step).collect::<Result<Vec<Step>>>()?;
        options.conditions.iter().try_for_each(|condition| self.check_key(&condition.key))?;
        if !self.limits.write.is_all() {
            return Box::pin(self.write_limited(steps, options)).await;
        }
        self.write(
            Request::Write { steps, conditions: options.conditions, request: options.request, pipeline: None },
            options.durability,
        )
        .await
    }

    /// `batch` as rows of the collection as it is now: they may have been made before fields were added.
    pub(super) fn checked(&self, batch: Batch) -> Result<Batch> {
        let schema = &self.spec().schema;
        if Arc::ptr_eq(batch.schema(), schema) || *batch.schema() == *schema {
            Ok(batch)
        } else if has_grown_from(schema, batch.schema()) {
            Ok(batch.grown(schema))
        } else {
            Err(Error::invalid(format!("rows of another schema than collection {:?} has", self.inner.name)))
        }
    }

    pub(super) fn check_key(&self, key: &Key) -> Result<()> {
        let field = self.spec().schema.primary_key();
        match (field.data_type, key) {
            (DataType::Int64, Key::Int(_)) | (DataType::Varchar { .. }, Key::String(_)) => Ok(()),
            (data_type, key) => {
                Err(Error::invalid(format!("key {key}: primary key {:?} is of type {data_type:?}", field.name)))
            }
        }
    }

    /// The rows with these keys, in this order; keys that are not there are left out. Fields as in [`QueryRequest`].
    pub async fn get(&self, keys: &[Key], output_fields: Option<&[String]>) -> Result<Vec<Row>> {
        self.get_within(keys, output_fields, &[]).await
    }

    /// The same of those that are in these partitions; in any when none is named.
    pub async fn get_within(
        &self,
        keys: &[Key],
        output_fields: Option<&[String]>,
        partitions: &[String],
    ) -> Result<Vec<Row>> {
        self.count_call();
        self.read_keys(keys, output_fields, partitions, &self.view(View::NOW)).await
    }

    /// The rows that a filter selects, by ascending primary key.
    pub async fn query(&self, request: &QueryRequest) -> Result<Vec<Row>> {
        self.count_call();
        let read = Box::pin(async { self.read_query(request, &self.view(View::NOW)).await.map(Told::Rows) });
        match self.answered(|| Asked::Query(request.clone()), read).await? {
            Told::Rows(rows) => Ok(rows),
            Told::Hits(_) => unreachable!("a query is answered by rows"),
        }
    }

    /// How many rows a filter selects.
    pub async fn count(&self, filter: Option<&str>) -> Result<usize> {
        self.count_within(filter, &[]).await
    }

    /// The same in these partitions; in all when none is named.
    pub async fn count_within(&self, filter: Option<&str>, partitions: &[String]) -> Result<usize> {
        self.count_of(&QueryRequest::of(filter, partitions)).await
    }

    /// How many rows the filter of a query selects in its partitions; nothing else of it counts.
    pub async fn count_of(&self, request: &QueryRequest) -> Result<usize> {
        self.count_call();
        self.read_count(request, &self.view(View::NOW)).await
    }

    /// The nearest rows.
    pub async fn search(&self, request: &SearchRequest) -> Result<SearchResponse> {
        self.count_call();
        let read = Box::pin(async { self.read_nearest(request, &self.view(View::NOW)).await.map(Told::Hits) });
        match self.answered(|| Asked::Search(Box::new(request.clone())), read).await? {
            Told::Hits(response) => Ok(self.told_covered(request, response)),
            Told::Rows(_) => unreachable!("a search is answered by hits"),
        }
    }

    /// A response with what is known of rows that are not here.
    fn told_covered(&self, request: &SearchRequest, mut response: SearchResponse) -> SearchResponse {
        #[cfg(hosted)]
        {
            response.covered = self.covered(request, &response.hits);
        }
        #[cfg(not(hosted))]
        {
            let _ = (request, &mut response);
        }
        response
    }

    /// The hits of several searches, ranked together.
    pub async fn hybrid_search(&self, request: &HybridRequest) -> Result<SearchResponse> {
        self.count_call();
        let read = Box::pin(async { self.read_hybrid(request, &self.view(View::NOW)).await.map(Told::Hits) });
        match self.answered(|| Asked::Hybrid(Box::new(request.clone())), read).await? {
            Told::Hits(response) => Ok(response),
            Told::Rows(_) => unreachable!("a search is answered by hits"),
        }
    }

    /// How a search is done: as it would be, or, with `profile`, as it was, with counts and times.
    pub async fn explain_search(&self, request: &SearchRequest, profile: bool) -> Result<Plan> {
        self.plan_search(request, &self.view(View::NOW), profile).await
    }

    /// The same of several searches: each, and how their hits become one ranking.
    pub async fn explain_hybrid(&self, request: &HybridRequest, profile: bool) -> Result<Plan> {
        self.plan_hybrid(request, &self.view(View::NOW), profile).await
    }

    /// The same of a query.
    pub async fn explain_query(&self, request: &QueryRequest, profile: bool) -> Result<Plan> {
        self.plan_query(request, &self.view(View::NOW), profile).await
    }

    /// What it holds.
    pub async fn stats(&self) -> Result<CollectionStats> {
        self.inner.shared.check_open()?;
        let entries = self.inner.shared.storage.list(&name::collection(self.inner.id)).await?;
        let compacting = self.merged().await.len();
        let merges = self.inner.shared.merge_counts(self.inner.id).await;
        let mut files = BTreeMap::new();
        for entry in &entries {
            // `column-3` is a column, `log/0000000001` a log.
            let kind = if entry.name.contains("/log/") { "log" } else { entry.name.rsplit('/').next().unwrap_or("") };
            let kind = kind.split('-').next().unwrap_or(kind);
            *files.entry(kind.to_owned()).or_default() += entry.len;
        }
        let all = self.inner.state.read().expect("no panic while held").rows();
        let partitions = self.partition_stats(all);
        let state = self.inner.state.read().expect("no panic while held");
        let rows_held: usize = state.slots().map(|slot| slot.segment.len()).sum();
        let sealed = state.unflushed_count();
        let states = SegmentStates {
            growing: 1,
            sealed,
            flushed: (state.slots().count() - 1).saturating_sub(sealed + compacting),
            compacting,
            dropped: self.inner.shared.discarded_count(),
        };
        let mut graphs = GraphStats::default();
        state.slots().for_each(|slot| graphs += slot.segment.graph_stats(&slot.live));
        Ok(CollectionStats {
            rows: state.rows(),
            graphs,
            partitions,
            rows_dead: rows_held - state.rows(),
            segments: state.slots().filter(|slot| !slot.segment.is_empty()).count(),
            rows_unindexed: state.slots().map(|slot| slot.segment.rows_unindexed()).sum(),
            memory_bytes: state.memory().total(),
            storage_bytes: entries.iter().map(|entry| entry.len).sum(),
            lsn: state.progress().lsn,
            states,
            files,
            written: self.written(),
            results_reused: self.inner.results.reused(),
            merge_policy: self.merge_kind(),
            merges,
        })
    }

    /// Ends when something was applied, or the store closes.
    pub(super) fn changed(&self) -> oneshot::Receiver<()> {
        let (notify, notified) = oneshot::channel();
        let mut listeners = self.inner.listeners.lock().expect("no panic while held");
        // Those whose caller stopped waiting would pile up while nothing changes.
        listeners.retain(|listener| !listener.is_canceled());
        listeners.push(notify);
        notified
    }

    /// Waits until the local log is past `lsn`, and tells its newest position. Ends with `Closed` when the store closes.
    pub async fn changed_after(&self, lsn: Lsn) -> Result<Lsn> {
        loop {
            self.inner.shared.check_open()?;
            let notified = self.changed();
            // Looked at after registering: a change in between wakes at once.
            let newest = self.lsn();
            if newest > lsn {
                return Ok(newest);
            }
            // So is its end, after which nobody is woken.
            if self.inner.ended.load(Ordering::Acquire) {
                return Err(Error::new(crate::base::ErrorKind::Closed, "the collection was closed or dropped"));
            }
            notified.await.map_err(|_| Error::new(crate::base::ErrorKind::Closed, "the store was closed"))?;
            if let Some(error) = self.inner.log.lock().await.closed() {
                return Err(error);
            }
        }
    }

    // What sync stands on. A batch (one lsn) is never split.

    /// Changes after `lsn` in order of the local log, until `bytes_max` is exceeded, without those that the asker has:
    /// batches of an origin up to its sequence in `known`. With the position that they reach (the newest one when nothing
    /// is left, so that it moves on empty answers too).
    pub async fn changes_after(
        &self,
        lsn: Lsn,
        known: &BTreeMap<ReplicaId, Sequence>,
        bytes_max: usize,
    ) -> Result<(ChangeSet, Lsn)> {
        self.changes_between(lsn, Lsn(u64::MAX), known, bytes_max).await
    }

    /// The same without what came after `until`.
    pub(super) async fn changes_between(
        &self,
        lsn: Lsn,
        until: Lsn,
        known: &BTreeMap<ReplicaId, Sequence>,
        bytes_max: usize,
    ) -> Result<(ChangeSet, Lsn)> {
        self.inner.shared.check_open()?;
        self.with_blocks(|state, blocks| state.changes_after(lsn, until, known, bytes_max, blocks)).await
    }

    /// The same, also without what came late at the positions in `told`; with the newest position at that moment, and up to where all is
    /// here of the origins of the changes, or of `all`.
    #[cfg(hosted)]
    pub(super) async fn changes_and_seen_after(
        &self,
        lsn: Lsn,
        known: &BTreeMap<ReplicaId, Sequence>,
        told: &[Lsn],
        bytes_max: usize,
        all: bool,
    ) -> Result<(ChangeSet, Lsn, Lsn, BTreeMap<ReplicaId, Sequence>)> {
        self.inner.shared.check_open()?;
        self.with_blocks(|state, blocks| {
            let (changes, reached) = state.changes_but(lsn, Lsn(u64::MAX), known, told, bytes_max, blocks)?;
            let seen = if all {
                state.progress().seen.clone()
            } else {
                changes.versions().map(|version| (version.origin, state.seen(version.origin))).collect()
            };
            Ok((changes, reached, state.progress().lsn, seen))
        })
        .await
    }

    /// This replica's own changes after `sequence`, and the sequence that they reach.
    pub async fn own_changes_after(&self, sequence: Sequence, bytes_max: usize) -> Result<(ChangeSet, Sequence)> {
        self.inner.shared.check_open()?;
        let replica = self.inner.shared.replica;
        self.with_blocks(|state, blocks| state.origin_changes_after(replica, sequence, bytes_max, blocks)).await
    }

    /// The same of some other replica of which more is here than `there`, where a hub stands that this store is a client of: changes that
    /// were pushed here. `None` when there is none, and where no hub serves this store.
    #[cfg(hosted)]
    pub(super) async fn relayed_changes_after(
        &self,
        there: &BTreeMap<ReplicaId, Sequence>,
        bytes_max: usize,
    ) -> Result<Option<(ReplicaId, Sequence, ChangeSet, Sequence)>> {
        self.inner.shared.check_open()?;
        let shared = &self.inner.shared;
        // Of what is kept in part, nothing is pushed here.
        if !shared.syncs.is_hub.load(Ordering::Relaxed) || self.has_parts() {
            return Ok(None);
        }
        let lacking = {
            let state = self.inner.state.read().expect("no panic while held");
            let after = |origin: &ReplicaId| there.get(origin).copied().unwrap_or_default();
            let mut seen = state.progress().seen.iter();
            seen.find(|(origin, sequence)| **origin != shared.replica && **sequence > after(origin))
                .map(|(origin, _)| (*origin, after(origin)))
        };
        let Some((origin, after)) = lacking else { return Ok(None) };
        let (changes, through) =
            self.with_blocks(|state, blocks| state.origin_changes_after(origin, after, bytes_max, blocks)).await?;
        Ok(Some((origin, after, changes, through)))
    }

    /// How many rows this replica has written or deleted after `sequence`.
    pub fn pending_after(&self, sequence: Sequence) -> usize {
        let replica = self.inner.shared.replica;
        self.inner.state.read().expect("no panic while held").origin_changes_count(replica, sequence)
    }

    /// Applies changes from elsewhere, durably, each row only where its version is newer than the one here (last writer
    /// wins by timestamp, then origin); with `from`, moves the pull position of that hub in the same log frame. Applying
    /// the same changes again changes nothing. Tells how many rows won.
    ///
    /// # Errors
    /// `InvalidArgument` for a timestamp more than a day ahead of this replica's clock: nothing is applied then.
    pub async fn apply(&self, changes: ChangeSet, from: Option<(ReplicaId, Lsn)>) -> Result<usize> {
        self.submit_changes(changes, from, Vec::new(), None, Vec::new()).await
    }

    /// The same of what a client has pushed, where the conditions hold.
    pub(super) async fn apply_if(
        &self,
        changes: ChangeSet,
        met: Option<Met>,
        seen: Vec<(ReplicaId, Sequence)>,
        conditions: Vec<Condition>,
    ) -> Result<usize> {
        self.submit_changes(changes, None, seen, met, conditions).await
    }

    /// What came from wherever: with the position of the hub that sent it, what is whole with it, what its sender had, and on what conditions.
    pub(super) async fn submit_changes(
        &self,
        changes: ChangeSet,
        from: Option<(ReplicaId, Lsn)>,
        seen: Vec<(ReplicaId, Sequence)>,
        met: Option<Met>,
        conditions: Vec<Condition>,
    ) -> Result<usize> {
        let changes = ChangeSet { puts: self.checked(changes.puts)?, ..changes };
        changes.deletes.iter().try_for_each(|(key, _)| self.check_key(key))?;
        Ok(self.write(Request::Apply { changes, from, seen, met, conditions }, None).await?.count)
    }

    /// Applies what a comparison with another replica found to be missing here, in one frame: by versions alone. Tells how many won, and
    /// where they are in the log, if any did.
    #[cfg(hosted)]
    pub(super) async fn take_in(&self, changes: ChangeSet) -> Result<(usize, Lsn)> {
        let changes = ChangeSet { puts: self.checked(changes.puts)?, ..changes };
        changes.deletes.iter().try_for_each(|(key, _)| self.check_key(key))?;
        let response = self.write(Request::TakeIn { changes }, None).await?;
        Ok((response.count, response.lsn))
    }

    /// The newest position at which something came late, of which others may think that they have it.
    #[cfg(hosted)]
    pub(super) fn late(&self) -> Option<Lsn> {
        self.inner.state.read().expect("no panic while held").progress().late.newest()
    }

    /// How far this collection and `hub` have got.
    pub fn sync_position(&self, hub: ReplicaId) -> SyncPosition {
        let state = self.inner.state.read().expect("no panic while held");
        state.progress().positions.get(&hub).copied().unwrap_or_default()
    }

    /// How far this collection and each hub that it ever met have got.
    pub fn sync_positions(&self) -> BTreeMap<ReplicaId, SyncPosition> {
        self.inner.state.read().expect("no panic while held").progress().positions.clone()
    }

    /// Notes that own batches up to `sequence` are at `hub`.
    pub async fn mark_pushed(&self, hub: ReplicaId, sequence: Sequence) -> Result<()> {
        self.write(Request::MarkPushed { hub, sequence }, None).await.map(drop)
    }

    /// Notes, durably, own changes that a hub has refused for good.
    pub async fn note_refused(&self, refused: Refused) -> Result<()> {
        self.write(Request::NoteRefused(refused), None).await.map(drop)
    }

    /// Which part of the rows of `hub` is kept here; `None` when it was never less than all of them.
    pub fn kept_part(&self, hub: ReplicaId) -> Option<KeptPart> {
        self.inner.state.read().expect("no panic while held").progress().parts.get(&hub).cloned()
    }

    /// Notes which part of the rows of `hub` is kept here from now on, and where its log is then.
    pub(super) async fn set_part(&self, hub: ReplicaId, pulled: Option<Lsn>, kept: KeptPart) -> Result<()> {
        self.write(Request::SetPart { hub, pulled, kept }, None).await.map(drop)
    }

    /// Own changes that hubs have refused for good and that are still here, the oldest first, at most 64: remembered over a restart, until
    /// their rows are written anew.
    pub fn refused(&self) -> Vec<Refused> {
        let replica = self.inner.shared.replica;
        self.inner.state.read().expect("no panic while held").refused(replica)
    }

    /// The highest batch of each origin that was applied here (this replica's own too): what a hub acknowledges, and what a
    /// puller knows already. All living changes of an origin up to it are here.
    pub fn seen(&self) -> BTreeMap<ReplicaId, Sequence> {
        self.inner.state.read().expect("no panic while held").progress().seen.clone()
    }
}
