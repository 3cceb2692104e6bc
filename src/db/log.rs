use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::collection::Collection;
use super::commit::SPARE_BYTES;
use crate::base::{Error, ErrorKind, Result};
use crate::engine::name;
use crate::platform;

/// A log file that has reached this size (or a quarter of a checkpoint, when that is less) is followed by another.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// What was acknowledged without a sync is synced by the next step of background work after this time …
const UNSYNCED_MS_MAX: u64 = 500;
/// … and by the write that reaches this size.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;
/// The most frames of one append, and the number at which frames that wait for a sync get one: two of these have places.
pub(super) const GROUP_FRAMES_MAX: usize = 1 << 15;

/// The end of a collection's log. Whoever holds it is the collection's one writer.
pub(super) struct Log {
    /// The file that takes the next frame.
    pub(super) number: u64,
    /// Its length; 0 when it is not there yet.
    pub(super) len: u64,
    /// The lengths of the files before it that no flush has dropped yet.
    full: BTreeMap<u64, u64>,
    /// The first file of the growing segment.
    growing: u64,
    /// Since when there are bytes that were appended and not synced, and how many.
    unsynced: Option<(u64, u64)>,
    /// How many frames these are: they are one group with what comes before the next sync, and a crash may keep any of them.
    unsynced_frames: usize,
    /// How many writers may come to the next commit, and how long they are waited for.
    pub(super) expected: usize,
    pub(super) patience_us: u64,
    /// Where the frames of the next group come together.
    pub(super) spare: Vec<u8>,
    /// Set when the file's end is unknown: writing on could put frames behind damage.
    pub(super) broken: Option<Error>,
}

impl Log {
    /// The log whose files have these lengths; `start` is the first one.
    pub(super) fn new(start: u64, mut files: BTreeMap<u64, u64>) -> Self {
        let (number, len) = files.pop_last().unwrap_or((start, 0));
        Self {
            number,
            len,
            full: files,
            growing: start,
            unsynced: None,
            unsynced_frames: 0,
            expected: 0,
            patience_us: 0,
            spare: Vec::new(),
            broken: None,
        }
    }

    /// The place in its group of the frame that comes after `staged` others.
    pub(super) fn place(&self, staged: usize) -> u16 {
        u16::try_from(self.unsynced_frames + staged).expect("synced before there are so many")
    }

    /// Why there will be no more changes, when the collection was closed or dropped.
    pub(super) fn closed(&self) -> Option<Error> {
        self.broken.clone().filter(|error| error.kind() == ErrorKind::Closed)
    }

    pub(super) fn end(&mut self) {
        self.broken = Some(Error::new(ErrorKind::Closed, "the collection was closed or dropped"));
    }

    /// The bytes that a restart would replay.
    pub(super) fn bytes(&self) -> u64 {
        self.full.values().sum::<u64>() + self.len
    }

    /// The bytes of the growing segment's rows.
    pub(super) fn growing_bytes(&self) -> u64 {
        self.full.range(self.growing..).map(|(_, len)| len).sum::<u64>() + self.len
    }

    fn roll(&mut self) {
        assert!(self.unsynced.is_none(), "a log file is synced before the next one begins");
        self.full.insert(self.number, self.len);
        self.number += 1;
        self.len = 0;
    }

    /// The file in which the log goes on after the growing segment is sealed.
    pub(super) fn next_start(&self) -> u64 {
        // One that is not there yet (the append that was to create it failed) must not be skipped: a missing file is damage.
        if self.len == 0 { self.number } else { self.number + 1 }
    }

    /// The growing segment was sealed.
    pub(super) fn sealed(&mut self) {
        if self.len > 0 {
            self.roll();
        }
        self.growing = self.number;
    }

    /// Notes what a sync has come to.
    fn synced(&mut self, path: &str, done: Result<()>) -> Result<()> {
        if let Err(error) = done {
            // What a failed sync has written is unknowable; only reading the file again tells.
            let error = error.context(format!("{path}: sync failed; open the store again to see what is there"));
            self.broken = Some(error.clone());
            return Err(error);
        }
        self.unsynced = None;
        self.unsynced_frames = 0;
        Ok(())
    }

    /// Keeps the buffer of a group for the next one.
    fn keep_spare(&mut self, bytes: Bytes) {
        self.spare = spare(bytes).unwrap_or_default();
    }

    /// Whether what is not synced has waited long enough.
    pub(super) fn sync_is_due(&self, now_ms: u64) -> bool {
        self.unsynced.is_some_and(|(since, _)| now_ms.saturating_sub(since) >= UNSYNCED_MS_MAX)
    }
}

/// A buffer that nobody else holds, to be used again. Where memory is never given back, the allocator has it at hand.
fn spare(mut bytes: Bytes) -> Option<Vec<u8>> {
    (cfg!(native) && bytes.is_unique() && SPARE_BYTES.contains(&bytes.len())).then(|| {
        bytes.clear();
        bytes.into()
    })
}

impl Collection {
    /// Appends to the log, and syncs it when the write waits for that or enough has come together.
    pub(super) async fn append(&self, log: &mut Log, bytes: Bytes, frames: usize, synced: bool) -> Result<()> {
        let storage = &self.inner.shared.storage;
        let path = name::log(self.id(), log.number);
        let len = bytes.len() as u64;
        let (since, before) = log.unsynced.unwrap_or_else(|| (self.inner.shared.options.environment.now_ms(), 0));
        let synced = synced || log.unsynced_frames + frames >= GROUP_FRAMES_MAX || before + len >= UNSYNCED_BYTES_MAX;
        let appended = if synced {
            storage.append_and_sync(&path, bytes.clone()).await
        } else {
            storage.append(&path, bytes.clone()).await.map(Ok)
        };
        match frames {
            0 | 1 => self.keep_spare(bytes),
            _ => log.keep_spare(bytes),
        }
        let done = match appended {
            Ok(done) => done,
            Err(error) => {
                let cut =
                    if log.len == 0 { storage.remove(&path).await } else { storage.truncate(&path, log.len).await };
                if let Err(second) = cut {
                    log.broken =
                        Some(second.context(format!("after a failed append ({error}), {path} could not be cut back")));
                }
                return Err(error.context(path));
            }
        };
        log.unsynced = Some((since, before + len));
        log.unsynced_frames += frames;
        if synced {
            log.synced(&path, done)?;
        }
        // Only now: a group that fails is not there.
        log.len += len;
        self.count_logged(len);
        self.inner.log_bytes.store(log.bytes(), Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the buffer of a large write for the next one.
    fn keep_spare(&self, bytes: Bytes) {
        if let Some(spare) = spare(bytes) {
            *self.inner.spare.lock().expect("no panic while held") = spare;
        }
    }

    /// Notes that a flush has dropped the files before `start`.
    pub(super) async fn log_dropped_before(&self, start: u64) {
        let mut log = self.inner.log.lock().await;
        log.full = log.full.split_off(&start);
        self.inner.log_bytes.store(log.bytes(), Ordering::Relaxed);
    }

    /// Whether a restart would replay so much that the next write must wait for a flush.
    pub(super) fn log_is_full(&self) -> bool {
        let bytes_max = self.inner.shared.options.checkpoint_bytes.saturating_mul(2);
        self.inner.log_bytes.load(Ordering::Relaxed) >= bytes_max
    }

    /// Waits until the log has room. Whoever writes faster than background work flushes, or never has it done, pays for it here.
    pub(super) async fn wait_for_room(&self) -> Result<()> {
        let Some(db) = self.inner.shared.db().filter(|_| self.log_is_full()) else { return Ok(()) };
        let this = self.clone();
        platform::run_to_end(async move { db.checkpoint(&this).await }).await
    }

    /// Goes on in the next file when this one is long enough.
    pub(super) async fn roll_when_full(&self, log: &mut Log) -> Result<()> {
        let bytes_max = FILE_BYTES_MAX.min(self.inner.shared.options.checkpoint_bytes / 4);
        if log.len > 0 && log.len >= bytes_max {
            // Behind a torn file no later one may have frames.
            self.sync_log(log).await?;
            log.roll();
        }
        Ok(())
    }

    /// Makes all of the log durable.
    pub(super) async fn sync_log(&self, log: &mut Log) -> Result<()> {
        if let Some(error) = &log.broken {
            return Err(error.clone());
        }
        if log.unsynced.is_none() {
            return Ok(());
        }
        let path = name::log(self.id(), log.number);
        let done = self.inner.shared.storage.sync(&path).await;
        log.synced(&path, done)
    }

    /// Syncs what was acknowledged without a sync and has waited long enough; tells whether there was something to do.
    pub(super) async fn sync_when_due(&self) -> Result<bool> {
        let mut log = self.inner.log.lock().await;
        let due = log.broken.is_none() && log.sync_is_due(self.inner.shared.options.environment.now_ms());
        if due {
            self.sync_log(&mut log).await?;
        }
        Ok(due)
    }
}
