use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::database::Shared;
use super::{Collection, Db};
use crate::base::Result;
use crate::engine::{FileEntry, SegmentManifest};
use crate::platform::{MaybeSend, MaybeSync};
use crate::segment::Segment;

/// What is done in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Rows join their index.
    Index,
    /// Rows go from the log to a segment in storage.
    Flush,
    /// Segments become one, without what nobody may read any more.
    Compaction,
}

impl Work {
    /// The name by which messages call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Flush => "flush",
            Self::Compaction => "compaction",
        }
    }
}

/// How far background work has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkProgress {
    /// Of which collection.
    pub collection: String,
    /// What.
    pub work: Work,
    /// Rows done.
    pub rows_done: usize,
    /// Rows in all; it is at its end when as many are done.
    pub rows: usize,
}

/// Is told how far background work has come.
pub trait WorkListener: MaybeSend + MaybeSync {
    /// Must not wait.
    fn on_progress(&self, progress: WorkProgress);
}

impl<F: Fn(WorkProgress) + MaybeSend + MaybeSync> WorkListener for F {
    fn on_progress(&self, progress: WorkProgress) {
        self(progress);
    }
}

/// Bytes written since the store was opened: how much more than was logged tells the write amplification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// To the log.
    pub logged: u64,
    /// To segments, from the log.
    pub flushed: u64,
    /// To segments, from segments.
    pub compacted: u64,
}

/// Files that no manifest names any more.
pub(super) struct Discarded {
    /// The segment whose they are: while somebody has it, they are read.
    reader: Weak<Segment>,
    files: Vec<FileEntry>,
    since_ms: u64,
}

impl Db {
    /// Calls `listener` when background work has come a good way on, instead of the one before.
    pub fn on_progress(&self, listener: impl WorkListener + 'static) {
        *self.inner.shared.listener.lock().expect("no panic while held") = Some(Arc::new(listener));
    }

    pub(super) fn tell(&self, collection: &Collection, work: Work, rows_done: usize, rows: usize) {
        let listener = self.inner.shared.listener.lock().expect("no panic while held").clone();
        if let Some(listener) = listener {
            let collection = collection.name().to_owned();
            listener.on_progress(WorkProgress { collection, work, rows_done, rows });
        }
    }
}

impl Collection {
    pub(super) fn count_written(&self, work: Work, segment: &SegmentManifest) {
        let bytes = segment.files.iter().map(|file| file.len).sum();
        let at = if work == Work::Flush { 1 } else { 2 };
        self.inner.written[at].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_logged(&self, bytes: u64) {
        self.inner.written[0].fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn written(&self) -> Written {
        let [logged, flushed, compacted] = [0, 1, 2].map(|at: usize| self.inner.written[at].load(Ordering::Relaxed));
        Written { logged, flushed, compacted }
    }
}

impl Shared {
    /// Files to be removed once nobody reads them and the grace period is over.
    pub(super) fn discard(&self, reader: Weak<Segment>, files: Vec<FileEntry>) {
        let discarded = Discarded { reader, files, since_ms: self.options.environment.now_ms() };
        self.discarded.lock().expect("no panic while held").push(discarded);
    }

    /// The files that wait to be removed.
    #[cfg(hosted)]
    pub(super) fn discarded_files(&self) -> Vec<String> {
        let discarded = self.discarded.lock().expect("no panic while held");
        let mut names: Vec<String> =
            discarded.iter().flat_map(|discarded| &discarded.files).map(|file| file.name.clone()).collect();
        names.extend(self.garbage.lock().expect("no panic while held").iter().cloned());
        names
    }

    /// How many segments wait for their files to be removed.
    pub(super) fn discarded_count(&self) -> usize {
        self.discarded.lock().expect("no panic while held").len()
    }

    /// Removes the discarded files that may go; at the end, all of them.
    pub(super) async fn remove_discarded(&self, end: bool) -> Result<()> {
        let now_ms = self.options.environment.now_ms();
        loop {
            let next = {
                let mut discarded = self.discarded.lock().expect("no panic while held");
                let due = |discarded: &Discarded| {
                    let waited = now_ms.saturating_sub(discarded.since_ms) >= self.options.grace_ms;
                    end || (waited && discarded.reader.strong_count() == 0)
                };
                let at = discarded.iter().position(due);
                at.map(|at| discarded.swap_remove(at))
            };
            let Some(next) = next else { return Ok(()) };
            for file in next.files {
                self.remove_file(file.name).await?;
            }
        }
    }
}
