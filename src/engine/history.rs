use hashbrown::HashSet;

use super::Slot;
use crate::base::{Lsn, RowMask, Timestamp};
use crate::model::Key;

/// Which of the changes to a collection a reader sees: those up to a position in the local log, and of these those up to a
/// hybrid time.
///
/// Of each key that is the change with the greatest version among them: changes that lose to what is here never enter the log, so
/// the changes of one key have ascending versions and ascending positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    /// The last position.
    pub lsn: Lsn,
    /// The last time.
    pub timestamp: Timestamp,
    /// Rows that were written before are not seen: they have expired.
    pub since: Timestamp,
}

impl View {
    /// All that is there at the moment of each read.
    pub const NOW: Self = Self { lsn: Lsn(u64::MAX), timestamp: Timestamp(u64::MAX), since: Timestamp(0) };

    /// Whether changes are seen up to the moment of each read.
    pub fn is_latest(&self) -> bool {
        (self.lsn, self.timestamp) == (Self::NOW.lsn, Self::NOW.timestamp)
    }

    /// Whether a change at that position and time is seen.
    pub fn sees(&self, lsn: Lsn, timestamp: Timestamp) -> bool {
        lsn <= self.lsn && timestamp <= self.timestamp
    }
}

/// A row that was replaced or deleted, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Death {
    /// The row.
    pub row: u32,
    /// The position of what replaced it.
    pub lsn: Lsn,
    /// The time of what replaced it.
    pub timestamp: Timestamp,
}

impl Slot {
    /// The rows that a view sees. As they are now, that is a copy of the living ones.
    pub fn visible(&self, view: &View) -> RowMask {
        let mut visible = self.live.clone();
        if view.since > View::NOW.since {
            let versions = self.segment.versions();
            let expired = |&row: &usize| versions.version(row).timestamp < view.since;
            let expired: Vec<usize> = visible.iter().filter(expired).collect();
            expired.into_iter().for_each(|row| visible.remove(row));
        }
        if view.is_latest() {
            return visible;
        }
        for death in self.deaths.iter().filter(|death| !view.sees(death.lsn, death.timestamp)) {
            if self.segment.versions().version(death.row as usize).timestamp >= view.since {
                visible.insert(death.row as usize);
            }
        }
        // A snapshot sees everything in most segments.
        if view.timestamp != View::NOW.timestamp || self.segment.versions().lsn_max() > view.lsn {
            let unborn: Vec<usize> = visible.iter().filter(|&row| !self.is_born(row, view)).collect();
            unborn.into_iter().for_each(|row| visible.remove(row));
        }
        visible
    }

    /// Those of them that have one of these keys. Cost: a look-up a key, not a pass over the rows.
    pub fn visible_of(&self, keys: &[Key], view: &View) -> RowMask {
        let mut rows = RowMask::none(self.segment.len());
        for row in keys.iter().filter_map(|key| self.living(key)) {
            rows.insert(row as usize);
        }
        if !view.is_latest() && !self.deaths.is_empty() {
            let keys: HashSet<&Key> = keys.iter().collect();
            let dead = self.deaths.iter().filter(|death| keys.contains(&self.segment.key(death.row as usize)));
            dead.for_each(|death| rows.insert(death.row as usize));
        }
        rows.intersect(&self.visible(view));
        rows
    }

    /// Whether the write of `row` is seen.
    pub(super) fn is_born(&self, row: usize, view: &View) -> bool {
        let versions = self.segment.versions();
        view.sees(versions.lsn(row), versions.version(row).timestamp)
    }

    /// Rows that are there for readers of today or of the past.
    pub(super) fn kept(&self) -> RowMask {
        let mut kept = self.live.clone();
        self.deaths.iter().for_each(|death| kept.insert(death.row as usize));
        kept
    }
}
