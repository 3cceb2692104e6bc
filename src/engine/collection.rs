use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::compaction::SEAL_ROWS;
use super::feed::Place;
use super::keys::KeyTable;
use super::{
    Answer, Answers, Candidate, ChangeSet, CollectionSpec, Death, KeptPart, Late, Memory, Merge, Movable, Refused,
    RequestId, Source, SyncPosition, View, is_eviction,
};
use crate::base::{
    Error, ErrorKind, Lsn, ReplicaId, Result, RowMask, SegmentId, Sequence, Timestamp, Version, sort_by_key,
};
use crate::index::Step;
use crate::model::{Batch, Key};
use crate::segment::{BlockRef, Blocks, FileKind, Group, Segment, Tombstone, hash_key};

/// How far a collection's log, its writers and its hubs have got.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The newest frame of the log.
    pub frame: Lsn,
    /// The newest frame with changes: what readers and sync see move.
    pub lsn: Lsn,
    /// The newest timestamp.
    pub timestamp: Timestamp,
    /// The highest batch of each origin.
    pub seen: BTreeMap<ReplicaId, Sequence>,
    /// By hub.
    pub positions: BTreeMap<ReplicaId, SyncPosition>,
    /// Rows that were replaced or deleted up to this time may be gone: reads at times before it are refused.
    pub history: Timestamp,
    /// Of the changes up to this position some may be gone: whoever follows them must have got at least as far.
    #[serde(default, skip_serializing_if = "is_start")]
    pub gone: Lsn,
    /// How far each subscription has got.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub cursors: BTreeMap<String, Lsn>,
    /// Own batches that hubs have refused, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// By hub of whose rows only a part is kept here, or was once.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parts: BTreeMap<ReplicaId, KeptPart>,
    /// What clients are told that ask again for a write.
    #[serde(default, skip_serializing_if = "Answers::is_empty")]
    pub answers: Answers,
    /// By pipeline, its last write here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pipelines: BTreeMap<u64, u64>,
    /// Where changes came late: somebody may take it for sure that he has them.
    #[serde(default, skip_serializing_if = "Late::is_empty")]
    pub late: Late,
}

fn is_start(lsn: &Lsn) -> bool {
    lsn.0 == 0
}

/// A segment and which of its rows are the newest of their key.
#[derive(Debug)]
pub struct Slot {
    /// The rows. Shared while a flush writes them; a shared segment is never changed.
    pub segment: Arc<Segment>,
    /// The living ones.
    pub live: RowMask,
    /// Dead ones that somebody may still read.
    pub deaths: Vec<Death>,
    keys: KeyTable,
}

impl Slot {
    fn new(segment: Segment) -> Self {
        let live = RowMask::none(segment.len());
        Self { live, segment: Arc::new(segment), deaths: Vec::new(), keys: KeyTable::growing() }
    }

    /// What a merge that leaves those columns in storage holds of it in memory, about: it knows besides where each row was.
    pub(super) fn merged_bytes(&self, left: &[String]) -> usize {
        let live = self.live.count() + self.deaths.len();
        live * (self.segment.merged_row_bytes(left) + size_of::<(SegmentId, u32)>())
    }

    /// The living row of a key.
    pub(super) fn living(&self, key: &Key) -> Option<u32> {
        self.keys.find(&self.segment, &self.live, key, hash_key(key))
    }

    /// Notes that a row lives from now on.
    fn revive(&mut self, row: u32) {
        self.live.insert(row as usize);
        self.keys.insert(&self.segment, row);
    }
}

/// So many refused batches are remembered.
const REFUSED_MAX: usize = 64;

/// What a deleted key takes in memory, without the bytes of a text.
const TOMBSTONE_BYTES: usize = 64;

/// The rows of one collection.
///
/// Every key has at most one living row over all segments: the one whose version is greatest. That makes applying a change
/// set commutative and idempotent, whichever way it came here.
#[derive(Debug)]
pub struct CollectionState {
    spec: CollectionSpec,
    pub(super) slots: BTreeMap<SegmentId, Slot>,
    pub(super) growing: SegmentId,
    /// How many rows live.
    living: usize,
    pub(super) tombstones: HashMap<Key, (Version, Lsn)>,
    /// Rows of these keys that came up to these positions were let go of.
    evicted: HashMap<Key, Lsn>,
    pub(super) progress: Progress,
    /// Sealed and not yet in the manifest: what its flush will make durable.
    unflushed: BTreeMap<SegmentId, (Progress, u64)>,
    /// Segments whose graph has grown since it was written.
    stale: BTreeSet<SegmentId>,
    /// What is being read of the past, and by how many.
    holds: BTreeMap<View, usize>,
    /// How long the past is kept when nobody reads it; `None` until everything is loaded.
    retention_ms: Option<u64>,
    /// When it was looked at last what may be forgotten.
    forgotten_ms: u64,
    /// No living row was written before.
    oldest: Timestamp,
}

impl CollectionState {
    /// An empty collection whose first growing segment is `growing`.
    pub fn new(spec: CollectionSpec, growing: SegmentId, progress: Progress) -> Self {
        let slot = Slot::new(Segment::new(growing, &spec.schema, &spec.indexes));
        let mut holds = BTreeMap::new();
        for lsn in progress.cursors.values() {
            *holds.entry(View { lsn: *lsn, ..View::NOW }).or_default() += 1;
        }
        Self {
            spec,
            slots: BTreeMap::from([(growing, slot)]),
            growing,
            oldest: Timestamp(u64::MAX),
            living: 0,
            tombstones: HashMap::new(),
            evicted: HashMap::new(),
            progress,
            unflushed: BTreeMap::new(),
            stale: BTreeSet::new(),
            holds,
            retention_ms: None,
            forgotten_ms: 0,
        }
    }

    /// Knows what was let go of, of which a segment tells that is to be added: before any is, for one may have what another tells of.
    pub fn note_evictions(&mut self, segment: &Segment) {
        for delete in segment.deletes.iter().filter(|delete| is_eviction(delete.version)) {
            let evicted = self.evicted.entry(delete.key.clone()).or_default();
            *evicted = delete.lsn.max(*evicted);
        }
    }

    /// Adds a segment that a manifest names. Segments may come in any order.
    pub fn add_flushed(&mut self, segment: Segment) {
        let id = segment.id();
        let len = segment.len();
        let segment = Arc::new(segment);
        // Where no two rows have one key, none is looked for among them.
        let keys = if segment.has_distinct_keys() { KeyTable::default() } else { KeyTable::growing() };
        let skipped = segment.has_distinct_keys().then_some(id);
        self.slots.insert(id, Slot { segment: segment.clone(), live: RowMask::none(len), deaths: Vec::new(), keys });
        for (row, key) in segment.keys().into_iter().enumerate() {
            self.place(key, segment.versions().version(row), Place { segment: id, row: row as u32 }, skipped);
        }
        for delete in &segment.deletes {
            self.bury(delete);
        }
    }

    /// Takes in a segment of another replica, whose rows and deletes came here at `lsn`. What it says of the past is not told
    /// apart from when it came: times before its newest change are refused from now on.
    pub fn adopt(&mut self, mut segment: Segment, lsn: Lsn) {
        // What somebody else does not keep is nobody's business.
        segment.deletes.retain(|delete| !is_eviction(delete.version));
        let newest = segment.newest();
        self.add_flushed(segment);
        self.note_arrival(lsn);
        self.progress.timestamp = self.progress.timestamp.max(newest);
        self.progress.history = self.progress.history.max(newest);
    }

    /// Has readers and sync see that something came at `lsn`.
    pub fn note_arrival(&mut self, lsn: Lsn) {
        self.progress.lsn = self.progress.lsn.max(lsn);
    }

    /// Files in which columns of its segments lie.
    pub fn files(&self) -> Vec<String> {
        self.slots().flat_map(|slot| slot.segment.stored()).map(|group| group.name.to_string()).collect()
    }

    /// How many living rows after `lsn`, without those in `known`, lie in flushed segments, and how many elsewhere; and how many
    /// living rows those segments have.
    pub fn unknown_rows(&self, lsn: Lsn, known: &BTreeMap<ReplicaId, Sequence>) -> (usize, usize, usize) {
        let (mut flushed, mut elsewhere, mut all) = (0, 0, 0);
        for (id, slot) in &self.slots {
            let versions = slot.segment.versions();
            let is_unknown = |&row: &usize| {
                let version = versions.version(row);
                versions.lsn(row) > lsn && known.get(&version.origin).is_none_or(|known| version.sequence > *known)
            };
            let rows = if versions.lsn_max() > lsn { slot.live.iter().filter(is_unknown).count() } else { 0 };
            if *id == self.growing || self.unflushed.contains_key(id) {
                elsewhere += rows;
            } else {
                flushed += rows;
                all += slot.live.count();
            }
        }
        (flushed, elsewhere, all)
    }

    /// The schema and indexes.
    pub fn spec(&self) -> &CollectionSpec {
        &self.spec
    }

    /// Is made of `spec` from now on, whose schema has grown by fields that rows may lack.
    pub fn grow(&mut self, spec: CollectionSpec) {
        for slot in self.slots.values_mut() {
            // Whoever still reads a segment as it was goes on doing so.
            Arc::make_mut(&mut slot.segment).grow(&spec.schema, &spec.indexes);
        }
        self.spec = spec;
    }

    /// How far everything has got.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// All segments by id, the growing one among them.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values()
    }

    /// The segment of that id.
    pub fn slot(&self, id: SegmentId) -> Option<&Slot> {
        self.slots.get(&id)
    }

    /// A segment, to do damage to.
    #[cfg(test)]
    pub(crate) fn segment_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        Arc::get_mut(&mut self.slots.get_mut(&id)?.segment)
    }

    /// The growing segment.
    pub fn growing(&self) -> &Slot {
        &self.slots[&self.growing]
    }

    /// The number of living rows.
    pub fn rows(&self) -> usize {
        self.living
    }

    /// Where the living row of `key` is, in any segment but `skipped`. New segments come first: most keys that are asked for were
    /// written lately.
    pub(super) fn place_of(&self, key: &Key, skipped: Option<SegmentId>) -> Option<Place> {
        let hash = hash_key(key);
        let slots = self.slots.iter().rev().filter(|(id, _)| Some(**id) != skipped);
        let mut places = slots.filter_map(|(id, slot)| {
            let row = slot.keys.find(&slot.segment, &slot.live, key, hash)?;
            Some(Place { segment: *id, row })
        });
        places.next()
    }

    /// Where the living row of `key` is.
    pub fn find(&self, key: &Key) -> Option<(&Segment, u32)> {
        self.place_of(key, None).map(|place| (&*self.slots[&place.segment].segment, place.row))
    }

    /// The version that a change of `key` must exceed.
    fn version_of(&self, key: &Key) -> Option<Version> {
        match self.place_of(key, None) {
            Some(place) => Some(self.slots[&place.segment].segment.versions().version(place.row as usize)),
            None => self.tombstones.get(key).map(|(version, _)| *version),
        }
    }

    /// The part of `changes` that is newer than what is here, with the same versions.
    pub fn winners(&self, changes: ChangeSet) -> ChangeSet {
        let wins = |key: &Key, version: &Version| match is_eviction(*version) {
            true => self.place_of(key, None).is_some(),
            false => self.version_of(key).is_none_or(|here| *version > here),
        };
        let rows: Vec<u32> = (0..changes.puts.len())
            .filter(|&row| wins(&changes.puts.key(row), &changes.put_versions[row]))
            .map(|row| row as u32)
            .collect();
        let mut deletes = changes.deletes;
        deletes.retain(|(key, version)| wins(key, version));
        if rows.len() == changes.puts.len() {
            return ChangeSet { puts: changes.puts, put_versions: changes.put_versions, deletes };
        }
        let put_versions = rows.iter().map(|&row| changes.put_versions[row as usize]).collect();
        ChangeSet { puts: changes.puts.take(&rows), put_versions, deletes }
    }

    /// Applies frame `lsn`: rows and deletes that are newer than what is here, and the position of the hub, or the answer to the
    /// client, that sent them. Tells how many won.
    pub fn apply(&mut self, lsn: Lsn, changes: &ChangeSet, from: Source) -> usize {
        let first = self.push_rows(&[(lsn, changes)]);
        self.apply_pushed(lsn, changes, from, first)
    }

    /// Makes room for so many rows, unless there are more than `before` already.
    pub fn make_room(&mut self, before: usize, rows: usize) {
        let growing = self.slots.get_mut(&self.growing).expect("the growing segment has a slot");
        let segment = Arc::get_mut(&mut growing.segment).expect("the growing segment is not shared");
        if segment.len() == before {
            segment.make_room(rows);
        }
    }

    /// Adds the rows of some frames to the growing segment, all at once: one by one, their columns would be joined again and again. None of
    /// them lives before its frame is applied. Tells the number of the first.
    pub fn push_rows(&mut self, frames: &[(Lsn, &ChangeSet)]) -> usize {
        let growing = self.slots.get_mut(&self.growing).expect("the growing segment has a slot");
        let segment = Arc::get_mut(&mut growing.segment).expect("the growing segment is not shared");
        let first = segment.len();
        let parts = frames.iter().map(|(lsn, changes)| (&changes.puts, changes.put_versions.as_slice(), *lsn));
        segment.push_all(&parts.collect::<Vec<_>>());
        growing.live.grow(segment.len());
        first
    }

    /// [`CollectionState::apply`] for a frame whose rows were pushed, from `first` on.
    pub fn apply_pushed(&mut self, lsn: Lsn, changes: &ChangeSet, from: Source, first: usize) -> usize {
        assert!(lsn > self.progress.frame, "frame {lsn} after {}", self.progress.frame);
        self.progress.frame = lsn;
        self.progress.lsn = lsn;
        if let Source::Hub { hub, pulled, .. } = from {
            self.progress.positions.entry(hub).or_default().pulled = pulled;
        }
        if matches!(from, Source::Comparison | Source::Hub { late: true, .. }) {
            self.progress.late.note(lsn);
        }
        // In the log of a hub, changes of an origin may come before others that it wrote earlier: so long as the hub itself takes in
        // segments, say. It tells by itself what is whole.
        // What a comparison found comes in no order at all.
        self.observe(changes, !matches!(from, Source::Hub { .. } | Source::Comparison));
        let mut won = 0;
        for (row, version) in changes.put_versions.iter().enumerate() {
            let place = Place { segment: self.growing, row: (first + row) as u32 };
            won += usize::from(self.place(changes.puts.key(row), *version, place, None));
        }
        for (key, version) in &changes.deletes {
            let delete = Tombstone { key: key.clone(), version: *version, lsn };
            if self.bury(&delete) {
                let growing = self.slots.get_mut(&self.growing).expect("the growing segment has a slot");
                Arc::get_mut(&mut growing.segment).expect("the growing segment is not shared").deletes.push(delete);
                won += 1;
            }
        }
        if let Source::Pipeline(write) = from {
            self.progress.pipelines.insert(write.pipeline, write.number);
        }
        if let Source::Client(request) = from {
            let version = changes.versions().max().unwrap_or_default();
            let keys = if self.spec.schema.auto_id() { changes.puts.keys() } else { Vec::new() };
            self.progress.answers.add(Answer { request, count: won as u64, version, lsn, keys });
        }
        won
    }

    /// Notes that a client has the answers to all its writes before this one.
    pub fn settle(&mut self, before: RequestId) {
        self.progress.answers.settle(before);
    }

    /// Applies a position frame.
    pub fn set_position(&mut self, frame: Lsn, hub: ReplicaId, position: SyncPosition) {
        assert!(frame > self.progress.frame, "frame {frame} after {}", self.progress.frame);
        self.progress.frame = frame;
        self.progress.positions.insert(hub, position);
    }

    /// Applies the frame that stands for lost ones up to `last`. Batches of which something may be lost count as never seen, so
    /// that every hub and client is asked for them, and sends them, anew.
    pub fn set_lost(&mut self, last: Lsn) {
        assert!(last > self.progress.frame, "lost frame {last} after {}", self.progress.frame);
        self.progress.frame = last;
        self.progress.lsn = last;
        self.progress.seen.clear();
        self.progress.positions.clear();
        self.progress.parts.values_mut().for_each(|kept| kept.reshape = None);
        self.progress.pipelines.clear();
        self.progress.gone = last;
    }

    /// Applies the frame that tells what a hub has refused.
    pub fn set_refused(&mut self, frame: Lsn, refused: Refused) {
        assert!(frame > self.progress.frame, "frame {frame} after {}", self.progress.frame);
        self.progress.frame = frame;
        let kept = &mut self.progress.refused;
        kept.retain(|other| other.through != refused.through);
        if kept.len() == REFUSED_MAX {
            kept.remove(0);
        }
        kept.push(refused);
    }

    /// Applies the frame that tells which part of a hub's rows is kept here.
    pub fn set_part(&mut self, frame: Lsn, hub: ReplicaId, pulled: Option<Lsn>, kept: KeptPart) {
        assert!(frame > self.progress.frame, "frame {frame} after {}", self.progress.frame);
        self.progress.frame = frame;
        self.progress.timestamp = self.progress.timestamp.max(kept.heard);
        if let Some(pulled) = pulled {
            self.progress.positions.entry(hub).or_default().pulled = pulled;
        }
        self.progress.parts.insert(hub, kept);
    }

    /// Own batches that hubs have refused and of which some change lives, the oldest first.
    pub fn refused(&self, origin: ReplicaId) -> Vec<Refused> {
        let lives = |refused: &&Refused| {
            self.origin_changes_count(origin, refused.after) > self.origin_changes_count(origin, refused.through)
        };
        self.progress.refused.iter().filter(lives).cloned().collect()
    }

    /// Applies the frame that tells how far a subscription has got; without a position it ends.
    pub fn set_cursor(&mut self, frame: Lsn, name: &str, lsn: Option<Lsn>) {
        assert!(frame > self.progress.frame, "frame {frame} after {}", self.progress.frame);
        self.progress.frame = frame;
        let view = |lsn| View { lsn, ..View::NOW };
        if let Some(lsn) = lsn {
            self.hold(view(lsn));
        }
        let before = match lsn {
            Some(lsn) => self.progress.cursors.insert(name.to_owned(), lsn),
            None => self.progress.cursors.remove(name),
        };
        if let Some(before) = before {
            self.release(view(before));
        }
    }

    /// Notes batches that came here, whether they won or not.
    pub fn note_seen(&mut self, batches: &[(ReplicaId, Sequence)]) {
        for (origin, sequence) in batches {
            let seen = self.progress.seen.entry(*origin).or_default();
            *seen = (*seen).max(*sequence);
        }
    }

    fn observe(&mut self, changes: &ChangeSet, in_order: bool) {
        for version in changes.versions() {
            if in_order && !is_eviction(version) {
                self.note_seen(&[(version.origin, version.sequence)]);
            }
            self.progress.timestamp = self.progress.timestamp.max(version.timestamp);
        }
    }

    /// Makes `place` the living row of `key` when its version is the greatest; tells whether it is. In `skipped` there is no other.
    fn place(&mut self, key: Key, version: Version, place: Place, skipped: Option<SegmentId>) -> bool {
        if let Some(evicted) = self.evicted.get(&key)
            && self.slots[&place.segment].segment.versions().lsn(place.row as usize) <= *evicted
        {
            return false;
        }
        if let Some((buried, _)) = self.tombstones.get(&key) {
            if *buried >= version {
                return false;
            }
            self.tombstones.remove(&key);
        }
        self.living += 1;
        if let Some(old) = self.place_of(&key, skipped) {
            self.living -= 1;
            let slot = self.slots.get_mut(&old.segment).expect("places name living segments");
            if slot.segment.versions().version(old.row as usize) >= version {
                return false;
            }
            slot.live.remove(old.row as usize);
            let lsn = self.slots[&place.segment].segment.versions().lsn(place.row as usize);
            self.record_death(old, lsn, version.timestamp);
        }
        self.slots.get_mut(&place.segment).expect("rows are placed in living segments").revive(place.row);
        self.oldest = self.oldest.min(version.timestamp);
        true
    }

    /// Deletes a key when the delete's version is the greatest; tells whether it is.
    fn bury(&mut self, delete: &Tombstone) -> bool {
        if is_eviction(delete.version) {
            return self.evict(delete);
        }
        if self.version_of(&delete.key).is_some_and(|here| here >= delete.version) {
            return false;
        }
        if let Some(old) = self.place_of(&delete.key, None) {
            self.living -= 1;
            let slot = self.slots.get_mut(&old.segment).expect("places name living segments");
            slot.live.remove(old.row as usize);
            self.record_death(old, delete.lsn, delete.version.timestamp);
        }
        self.tombstones.insert(delete.key.clone(), (delete.version, delete.lsn));
        true
    }

    /// Lets go of the row of a key that came before; tells whether there is one. Its key is as if it had never been here.
    fn evict(&mut self, delete: &Tombstone) -> bool {
        let evicted = self.evicted.entry(delete.key.clone()).or_default();
        *evicted = delete.lsn.max(*evicted);
        let Some(old) = self.place_of(&delete.key, None) else { return false };
        let slot = self.slots.get_mut(&old.segment).expect("places name living segments");
        if slot.segment.versions().lsn(old.row as usize) > delete.lsn {
            return false;
        }
        self.living -= 1;
        slot.live.remove(old.row as usize);
        self.record_death(old, delete.lsn, delete.version.timestamp);
        true
    }

    fn record_death(&mut self, place: Place, lsn: Lsn, timestamp: Timestamp) {
        match self.retention_ms {
            None => return,
            Some(0) if self.holds.is_empty() => {
                self.progress.history = self.progress.history.max(timestamp);
                self.progress.gone = self.progress.gone.max(lsn);
                return;
            }
            Some(_) => {}
        }
        let slot = self.slots.get_mut(&place.segment).expect("places name living segments");
        slot.deaths.push(Death { row: place.row, lsn, timestamp });
    }

    /// Keeps what is replaced or deleted from now on for `retention_ms`; of what was before, as much as the segments hold. Called
    /// once, after everything was loaded.
    pub fn retain(&mut self, retention_ms: u64) {
        self.retention_ms = Some(retention_ms);
        if retention_ms == 0 {
            self.progress.history = self.progress.history.max(self.progress.timestamp);
            if self.holds.is_empty() {
                self.progress.gone = self.progress.lsn;
                return;
            }
        }
        // All changes of the keys of dead rows: each row died by the next one.
        let mut changes: HashMap<Key, Vec<(Version, Lsn, Option<Place>)>> = HashMap::new();
        for (id, slot) in &self.slots {
            let versions = slot.segment.versions();
            for row in slot.live.complement().iter() {
                let place = Place { segment: *id, row: row as u32 };
                let change = (versions.version(row), versions.lsn(row), Some(place));
                changes.entry(slot.segment.key(row)).or_default().push(change);
            }
        }
        for slot in self.slots.values() {
            for delete in &slot.segment.deletes {
                if let Some(changes) = changes.get_mut(&delete.key) {
                    changes.push((delete.version, delete.lsn, None));
                }
            }
        }
        for (key, mut changes) in changes {
            if let Some(place) = self.place_of(&key, None) {
                let versions = self.slots[&place.segment].segment.versions();
                changes.push((versions.version(place.row as usize), versions.lsn(place.row as usize), None));
            }
            sort_by_key(&mut changes, |(version, ..)| *version);
            for (at, (_, _, place)) in changes.iter().enumerate() {
                match (place, changes.get(at + 1)) {
                    (Some(place), Some((version, lsn, _))) => self.record_death(*place, *lsn, version.timestamp),
                    // Nobody knows any more by what it died.
                    (Some(_), None) => {
                        self.progress.history = self.progress.timestamp;
                        self.progress.gone = self.progress.lsn;
                    }
                    (None, _) => {}
                }
            }
        }
    }

    /// Keeps what `view` sees until it is released as often as it was held.
    pub fn hold(&mut self, view: View) {
        *self.holds.entry(view).or_default() += 1;
    }

    /// Ends a [`Self::hold`].
    pub fn release(&mut self, view: View) {
        if let Some(count) = self.holds.get_mut(&view) {
            *count -= 1;
            if *count == 0 {
                self.holds.remove(&view);
                self.forgotten_ms = 0;
            }
        }
    }

    /// The view of `timestamp` by what is here now.
    ///
    /// # Errors
    /// `Gone` for a time before those that are kept.
    pub fn view_at(&self, timestamp: Timestamp, now_ms: u64) -> Result<View> {
        let start =
            Timestamp::new(now_ms.saturating_sub(self.retention_ms.unwrap_or_default()), 0).max(self.progress.history);
        if timestamp < start {
            return Err(Error::new(
                ErrorKind::Gone,
                format!(
                    "timestamp {timestamp} is before {start}, from which on the past is kept: see the option retention"
                ),
            ));
        }
        Ok(View { lsn: self.progress.lsn, timestamp, ..View::NOW })
    }

    /// Gives up rows that died before everything that anybody may read. Looks once a second at most; tells whether it did.
    pub fn forget(&mut self, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.forgotten_ms) < 1_000 {
            return false;
        }
        self.forgotten_ms = now_ms;
        let mut oldest = View::NOW;
        for view in self.holds.keys() {
            oldest.lsn = oldest.lsn.min(view.lsn);
            oldest.timestamp = oldest.timestamp.min(view.timestamp);
        }
        if let Some(retention_ms @ 1..) = self.retention_ms {
            oldest.timestamp = oldest.timestamp.min(Timestamp::new(now_ms.saturating_sub(retention_ms), 0));
        }
        for slot in self.slots.values_mut() {
            slot.deaths.retain(|death| {
                let kept = !oldest.sees(death.lsn, death.timestamp);
                if !kept {
                    self.progress.history = self.progress.history.max(death.timestamp);
                    self.progress.gone = self.progress.gone.max(death.lsn);
                }
                kept
            });
        }
        true
    }

    /// Whether a delete can matter no more: a newer change of its key is here, and nobody may read the time between the two; times
    /// before the newer one are refused from then on. Older rows of that key lose to the newer change as well.
    ///
    /// A delete that is the newest change of its key stays for good: a replica that has not heard of it may come at any time.
    pub fn is_outlived(&mut self, delete: &Tombstone) -> bool {
        if is_eviction(delete.version) {
            // One that came later hides all that this one does.
            return self.evicted.get(&delete.key).is_some_and(|evicted| *evicted > delete.lsn);
        }
        let Some(newer) = self.version_of(&delete.key).filter(|version| *version > delete.version) else {
            return false;
        };
        if self.holds.keys().any(|view| view.lsn < delete.lsn) {
            // Somebody follows the changes, and is to be told whose it was.
            return false;
        }
        let read_from = match self.retention_ms {
            None => return false,
            Some(0) => Timestamp(u64::MAX),
            Some(retention_ms) => Timestamp::new(self.forgotten_ms.saturating_sub(retention_ms), 0),
        };
        let outlived = newer.timestamp < read_from;
        if outlived {
            self.progress.history = self.progress.history.max(newer.timestamp);
        }
        outlived
    }

    /// The rows of `keys` that a view sees, in that order.
    pub fn find_all(&self, keys: &[Key], view: &View) -> Vec<(&Segment, u32)> {
        let mut past: Option<HashMap<Key, (&Segment, u32)>> = None;
        let find = |key: &Key| {
            if let Some(place) = self.place_of(key, None) {
                let slot = &self.slots[&place.segment];
                if view.is_latest() || slot.is_born(place.row as usize, view) {
                    return Some((&*slot.segment, place.row));
                }
            }
            if view.is_latest() {
                return None;
            }
            past.get_or_insert_with(|| self.past(view)).get(key).copied()
        };
        let lasts = |(segment, row): &(&Segment, u32)| {
            view.since == View::NOW.since || segment.versions().version(*row as usize).timestamp >= view.since
        };
        keys.iter().filter_map(find).filter(lasts).collect()
    }

    /// Makes the rows that were written before `since` dead: nobody sees them any more, and no delete is recorded, because every
    /// replica finds by itself that they have expired. Tells how many they are. Cheap while there are none.
    pub fn expire(&mut self, since: Timestamp) -> usize {
        if self.oldest >= since {
            return 0;
        }
        let (mut expired, mut oldest) = (0, Timestamp(u64::MAX));
        for slot in self.slots.values_mut() {
            let versions = slot.segment.versions();
            for row in slot.live.iter().collect::<Vec<_>>() {
                let timestamp = versions.version(row).timestamp;
                if timestamp < since {
                    slot.live.remove(row);
                    self.living -= 1;
                    expired += 1;
                } else {
                    oldest = oldest.min(timestamp);
                }
            }
        }
        self.oldest = oldest;
        expired
    }

    /// The dead rows that a view sees.
    fn past(&self, view: &View) -> HashMap<Key, (&Segment, u32)> {
        let mut past = HashMap::new();
        for slot in self.slots.values() {
            for death in slot.deaths.iter().filter(|death| !view.sees(death.lsn, death.timestamp)) {
                if slot.is_born(death.row as usize, view) {
                    past.insert(slot.segment.key(death.row as usize), (&*slot.segment, death.row));
                }
            }
        }
        past
    }

    /// Changes after `lsn`, up to `until`, without those in `known`, until `bytes_max` is exceeded, and the position that they reach; the blocks
    /// that it needs besides `blocks` when there are any.
    pub fn changes_after(
        &self,
        lsn: Lsn,
        until: Lsn,
        known: &BTreeMap<ReplicaId, Sequence>,
        bytes_max: usize,
        blocks: &Blocks,
    ) -> Result<(ChangeSet, Lsn), Vec<BlockRef>> {
        self.changes_but(lsn, until, known, &[], bytes_max, blocks)
    }

    /// The same without those that are in `known` and came late at one of the positions in `told`. What came late somewhere else is told
    /// whatever is known: who knows all changes of an origin up to a sequence may have it from this replica, which was mistaken.
    pub fn changes_but(
        &self,
        lsn: Lsn,
        until: Lsn,
        known: &BTreeMap<ReplicaId, Sequence>,
        told: &[Lsn],
        bytes_max: usize,
        blocks: &Blocks,
    ) -> Result<(ChangeSet, Lsn), Vec<BlockRef>> {
        let late = &self.progress.late;
        let wanted = |version: Version, at: Lsn, _: &dyn Fn() -> Key| {
            let new = at > lsn && at <= until;
            let is_unknown = || known.get(&version.origin).is_none_or(|known| version.sequence > *known);
            (new && (is_unknown() || late.has(at) && !told.contains(&at))).then_some(at.0)
        };
        let (changes, reached) =
            self.select(|segment| segment.versions().lsn_max() > lsn, wanted, bytes_max, blocks)?;
        Ok((changes, reached.map_or(self.progress.lsn, Lsn)))
    }

    /// Changes to which `order` gives a number, by ascending number until `bytes_max` is exceeded, never splitting those of one number; the
    /// number that they reach when some are left out; or blocks, as above.
    pub fn changes_by(
        &self,
        order: impl Fn(Version, &dyn Fn() -> Key) -> Option<u64>,
        bytes_max: usize,
        blocks: &Blocks,
    ) -> Result<(ChangeSet, Option<u64>), Vec<BlockRef>> {
        self.select(|_| true, |version, _, key| order(version, key), bytes_max, blocks)
    }

    /// Whether somebody may take one of these changes for being here, although it was not.
    pub fn comes_late(&self, changes: &ChangeSet) -> bool {
        changes.versions().any(|version| !is_eviction(version) && version.sequence <= self.seen(version.origin))
    }

    /// Whether rows were let go of that may lie in segments still.
    pub fn has_evictions(&self) -> bool {
        !self.evicted.is_empty()
    }

    /// The newest change of each deleted key.
    pub fn deletes(&self) -> impl Iterator<Item = (&Key, Version)> {
        self.tombstones.iter().map(|(key, (version, _))| (key, *version))
    }

    /// Changes of `origin` after `sequence`, until `bytes_max` is exceeded, and the sequence that they reach; or blocks, as above. Only
    /// those up to the sequence up to which all are here: of later ones some may be on their way.
    pub fn origin_changes_after(
        &self,
        origin: ReplicaId,
        sequence: Sequence,
        bytes_max: usize,
        blocks: &Blocks,
    ) -> Result<(ChangeSet, Sequence), Vec<BlockRef>> {
        let newest = self.seen(origin);
        let wanted = |Version { origin: of, sequence: at, .. }: Version, _, _: &dyn Fn() -> Key| {
            (of == origin && at > sequence && at <= newest).then_some(at.0)
        };
        let (changes, reached) =
            self.select(|segment| segment.versions().sequence_max(origin) > sequence, wanted, bytes_max, blocks)?;
        Ok((changes, reached.map_or(newest, Sequence)))
    }

    /// How many living rows and deletes `origin` wrote after `sequence`, of those that [`Self::origin_changes_after`] tells: what a comparison
    /// has brought beyond that is no part of the sequence.
    pub fn origin_changes_count(&self, origin: ReplicaId, sequence: Sequence) -> usize {
        let newest = self.seen(origin);
        let newer =
            |version: Version| version.origin == origin && version.sequence > sequence && version.sequence <= newest;
        let rows = self
            .slots
            .values()
            .filter(|slot| slot.segment.versions().sequence_max(origin) > sequence)
            .map(|slot| slot.live.iter().filter(|&row| newer(slot.segment.versions().version(row))).count());
        rows.sum::<usize>() + self.tombstones.values().filter(|(version, _)| newer(*version)).count()
    }

    /// The highest batch of `origin` that is here.
    pub fn seen(&self, origin: ReplicaId) -> Sequence {
        self.progress.seen.get(&origin).copied().unwrap_or_default()
    }

    /// Living rows and tombstones to which `order` gives a number, by ascending number until `bytes_max` is exceeded, never
    /// splitting those of one number; `None` for the number reached when nothing was left out.
    fn select(
        &self,
        relevant: impl Fn(&Segment) -> bool,
        order: impl Fn(Version, Lsn, &dyn Fn() -> Key) -> Option<u64>,
        bytes_max: usize,
        blocks: &Blocks,
    ) -> Result<(ChangeSet, Option<u64>), Vec<BlockRef>> {
        enum Item<'a> {
            Row(SegmentId, u32),
            Delete(&'a Key, Version),
        }
        let mut items: Vec<(u64, Item<'_>)> = Vec::new();
        let mut row_bytes: BTreeMap<SegmentId, usize> = BTreeMap::new();
        for slot in self.slots.values().filter(|slot| relevant(&slot.segment)) {
            row_bytes.insert(slot.segment.id(), slot.segment.row_bytes());
            let versions = slot.segment.versions();
            items.extend(slot.live.iter().filter_map(|row| {
                let number = order(versions.version(row), versions.lsn(row), &|| slot.segment.key(row))?;
                Some((number, Item::Row(slot.segment.id(), row as u32)))
            }));
        }
        items.extend(self.tombstones.iter().filter_map(|(key, (version, lsn))| {
            Some((order(*version, *lsn, &|| key.clone())?, Item::Delete(key, *version)))
        }));
        sort_by_key(&mut items, |(number, _)| *number);
        let mut rows: BTreeMap<SegmentId, Vec<u32>> = BTreeMap::new();
        let mut deletes = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        let mut cut = false;
        for (number, item) in items {
            // At least one batch, however little is asked for: the position reached must not run ahead of what is handed out.
            if bytes >= bytes_max && last.is_some_and(|last| last != number) {
                cut = true;
                break;
            }
            last = Some(number);
            match item {
                Item::Row(segment, row) => {
                    bytes += row_bytes[&segment];
                    rows.entry(segment).or_default().push(row);
                }
                Item::Delete(key, version) => {
                    bytes += 64;
                    deletes.push((key.clone(), version));
                }
            }
        }
        let mut batches = Vec::new();
        let mut put_versions = Vec::new();
        rows.values_mut().for_each(|rows| rows.sort_unstable());
        let needs = rows.iter().flat_map(|(segment, rows)| self.slots[segment].segment.needs(rows, &|_| true, blocks));
        let needs: Vec<BlockRef> = needs.collect();
        if !needs.is_empty() {
            return Err(needs);
        }
        for (segment, rows) in rows {
            let (batch, versions) = self.slots[&segment].segment.take(&rows, blocks);
            batches.push(batch);
            put_versions.extend(versions);
        }
        let puts = if batches.is_empty() { Batch::empty(&self.spec.schema) } else { Batch::concat(&batches) };
        Ok((ChangeSet { puts, put_versions, deletes }, if cut { last } else { None }))
    }

    /// Seals the growing segment and opens `next`; the log continues in file `log_start`. False, and nothing done, when the
    /// growing segment holds nothing.
    pub fn seal(&mut self, next: SegmentId, log_start: u64) -> bool {
        let growing = self.growing();
        if growing.segment.is_empty() && growing.segment.deletes.is_empty() {
            return false;
        }
        self.unflushed.insert(self.growing, (self.progress.clone(), log_start));
        self.slots.insert(next, Slot::new(Segment::new(next, &self.spec.schema, &self.spec.indexes)));
        self.growing = next;
        true
    }

    /// The oldest sealed segment that no manifest names yet, with what its flush makes durable: the progress, and the log file
    /// that comes after it.
    pub fn next_unflushed(&self) -> Option<(Arc<Segment>, Progress, u64)> {
        let (id, (progress, log_start)) = self.unflushed.first_key_value()?;
        Some((self.slots[id].segment.clone(), progress.clone(), *log_start))
    }

    /// Notes that a manifest names this segment.
    pub fn flushed(&mut self, id: SegmentId) {
        self.unflushed.remove(&id);
        if let Some(slot) = self.slots.get_mut(&id) {
            // From now on it has a filter.
            slot.keys = KeyTable::default();
        }
        self.settle_segment(id);
    }

    /// Whether rows wait for an index, and their vectors are in memory, in a segment that is not among `but`.
    pub fn can_index(&self, but: &[SegmentId]) -> bool {
        self.slots.iter().any(|(id, slot)| slot.segment.can_index() && !but.contains(id))
    }

    /// How many rows have, or wait for, an index, each counted once an index, and how many of them wait.
    pub fn rows_to_index(&self) -> (usize, usize) {
        let of_slot = |slot: &Slot| (slot.segment.rows_to_index(), slot.segment.rows_unindexed());
        self.slots.values().map(of_slot).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }

    /// Has an index of terms that lags behind take about so many rows; false when there is none. See [`Segment::add_some_terms`].
    pub fn add_some_terms(&mut self, but: &[SegmentId], rows_max: usize) -> bool {
        for (id, slot) in self.slots.iter_mut().filter(|(id, slot)| slot.segment.can_index() && !but.contains(id)) {
            // A shared segment is being read or written: its turn comes later.
            let Some(segment) = Arc::get_mut(&mut slot.segment) else { continue };
            let (done, unsaved) = segment.add_some_terms(rows_max);
            if unsaved {
                self.stale.insert(*id);
            }
            if done {
                return true;
            }
        }
        false
    }

    /// Begins a step of an index that lags behind, and tells of which, of which segment. See [`Segment::begin_row`].
    pub fn begin_row(&mut self, but: &[SegmentId], memory_limit_bytes: Option<usize>) -> Option<(SegmentId, usize)> {
        self.slots.iter_mut().filter(|(id, slot)| slot.segment.can_index() && !but.contains(id)).find_map(
            |(id, slot)| {
                // A shared segment is being read or written: its turn comes later.
                let index = Arc::get_mut(&mut slot.segment)?.begin_row(memory_limit_bytes)?;
                Some((*id, index))
            },
        )
    }

    /// Finds out what that step will write.
    pub fn look_up(&self, (segment, index): (SegmentId, usize)) -> Option<Step> {
        self.slots.get(&segment)?.segment.look_up(index)
    }

    /// Takes that step; false, and nothing done, when the segment is shared by now.
    pub fn insert(&mut self, (id, index): (SegmentId, usize), step: Step) -> bool {
        let Some(segment) = self.slots.get_mut(&id).and_then(|slot| Arc::get_mut(&mut slot.segment)) else {
            return false;
        };
        segment.insert(index, step);
        if id != self.growing && !self.unflushed.contains_key(&id) {
            self.stale.insert(id);
        }
        true
    }

    /// Whether a flushed segment has a graph that has grown since it was written.
    pub fn has_stale_index(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Notes that writing that graph has failed.
    pub fn mark_stale(&mut self, id: SegmentId) {
        if self.slots.contains_key(&id) {
            self.stale.insert(id);
        }
    }

    /// A flushed segment whose graph has grown since it was written; asked for once.
    pub fn take_stale_index(&mut self) -> Option<Arc<Segment>> {
        let id = self.stale.pop_first()?;
        self.slots.get(&id).map(|slot| slot.segment.clone())
    }

    /// The segments that a manifest names, and what a merge under that limit holds of them.
    pub fn flushed_segments(&self, memory_limit_bytes: Option<usize>) -> Vec<Candidate> {
        let flushed = self.slots.iter().filter(|(id, _)| **id != self.growing && !self.unflushed.contains_key(id));
        let candidate = |(id, slot): (&SegmentId, &Slot)| {
            let live = slot.live.count() + slot.deaths.len();
            let deletes = slot.segment.deletes.len();
            let unreachable = slot.segment.unreachable_known();
            // Without a limit it does not matter.
            // What AUTOINDEX will be is not known yet: as many rows as a merge has at most may need inverted lists.
            let left = memory_limit_bytes.map(|limit| slot.segment.leavable(SEAL_ROWS, Some(limit)));
            let bytes = left.map_or(0, |left| slot.merged_bytes(&left));
            Candidate { id: *id, rows: slot.segment.len(), live, deletes, bytes, unreachable }
        };
        flushed.map(candidate).collect()
    }

    /// Looks at some nodes of a graph of a flushed segment, of which it is not known whether they can all be reached: those that cannot
    /// are reason for a merge. False when it is known of all.
    pub fn look_some(&self, nodes_max: usize) -> bool {
        let flushed = self.slots.iter().filter(|(id, _)| **id != self.growing && !self.unflushed.contains_key(id));
        flushed.into_iter().any(|(_, slot)| slot.segment.look_some(nodes_max))
    }

    /// Lets go of what a segment's indexes were built by, once they are written.
    pub fn settle_segment(&mut self, id: SegmentId) {
        if let Some(segment) = self.slots.get_mut(&id).and_then(|slot| Arc::get_mut(&mut slot.segment)) {
            segment.settle();
        }
    }

    /// Takes the segment of `merge` in, none of whose rows has a place yet; then [`Self::swap_some`] until it has nothing to do, and
    /// [`Self::end_swap`]. All readers see every row once meanwhile.
    pub fn begin_swap(&mut self, merge: &Merge) {
        if merge.is_nothing() {
            return;
        }
        let live = RowMask::none(merge.segment.len());
        let slot = Slot { segment: merge.segment.clone(), live, deaths: Vec::new(), keys: KeyTable::default() };
        self.slots.insert(merge.segment.id(), slot);
    }

    /// Gives at most `rows_max` rows of the new segment the places of those that they were copied from, where these still live; tells
    /// whether there are more.
    pub fn swap_some(&mut self, merge: &mut Merge, rows_max: usize) -> bool {
        let id = merge.segment.id();
        let end = merge.sources.len().min(merge.placed.saturating_add(rows_max));
        for row in merge.placed..end {
            let (input, source) = merge.sources[row];
            let slot = self.slots.get_mut(&input).expect("inputs stay until the end");
            if slot.live.contains(source as usize) {
                slot.live.remove(source as usize);
                self.slots.get_mut(&id).expect("the new segment was taken in").revive(row as u32);
            }
        }
        merge.placed = end;
        end < merge.sources.len()
    }

    /// Lets go of the inputs, and gives them back: somebody may still read them. What is kept of dead rows moves along.
    pub fn end_swap(&mut self, merge: &Merge) -> Vec<Arc<Segment>> {
        let mut replaced = Vec::new();
        let mut deaths = Vec::new();
        for input in &merge.inputs {
            self.stale.remove(input);
            let Some(slot) = self.slots.remove(input) else { continue };
            let moved =
                slot.deaths.iter().filter_map(|death| Some(Death { row: merge.row_of(*input, death.row)?, ..*death }));
            deaths.extend(moved);
            replaced.push(slot.segment);
        }
        if let Some(slot) = self.slots.get_mut(&merge.segment.id()) {
            slot.deaths.extend(deaths);
        }
        replaced
    }

    /// How many segments were sealed and are in no manifest yet.
    pub fn unflushed_count(&self) -> usize {
        self.unflushed.len()
    }

    /// What is held in memory.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory { keys: self.tombstones.capacity() * TOMBSTONE_BYTES, ..Memory::default() };
        for slot in self.slots.values() {
            memory.keys += slot.keys.memory_bytes() + slot.segment.key_filter_bytes();
            let [rows, columns, vectors, indexes] = slot.segment.memory();
            memory += Memory { rows, columns, vectors, indexes, ..Memory::default() };
        }
        memory
    }

    /// The files of flushed segments whose columns can be in memory or only in storage.
    pub fn movables(&self) -> Vec<Movable> {
        let of_slot = |slot: &Slot| {
            let segment = slot.segment.clone();
            let groups = segment.stored().iter().filter(|group| group.is_movable());
            let movable = |group: &Arc<Group>| {
                let loaded = group.columns.iter().all(|column| segment.has(column));
                if loaded {
                    // A guess that were too low would have it loaded and unloaded for ever.
                    group.note_memory_bytes(segment.columns_bytes(&group.columns));
                }
                let (needed, left) = match &group.kind {
                    FileKind::Vector(field) | FileKind::Column(field) => (segment.lags(field), segment.leaves(field)),
                    _ => (false, false),
                };
                Movable {
                    segment: segment.id(),
                    kind: group.kind.clone(),
                    bytes: group.memory_bytes(),
                    loaded,
                    needed,
                    left,
                }
            };
            groups.map(movable).collect::<Vec<_>>()
        };
        let flushed = self.slots.iter().filter(|(id, _)| **id != self.growing && !self.unflushed.contains_key(id));
        flushed.flat_map(|(_, slot)| of_slot(slot)).collect()
    }

    /// Takes a file into memory from all its blocks, or, without them, leaves it to storage. Does nothing while somebody reads the
    /// segment.
    pub fn move_file(&mut self, file: &Movable, blocks: Option<&Blocks>) -> bool {
        let Some(segment) = self.slots.get_mut(&file.segment).and_then(|slot| Arc::get_mut(&mut slot.segment)) else {
            return false;
        };
        match blocks {
            None => {
                segment.unload(&file.kind);
            }
            Some(blocks) => {
                let group = segment.stored().iter().find(|group| group.kind == file.kind).cloned();
                group.iter().for_each(|group| segment.load(group, blocks));
            }
        }
        true
    }
}
