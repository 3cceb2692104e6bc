use std::collections::BTreeMap;

use super::{CollectionState, Death};
use crate::base::{Error, ErrorKind, Lsn, Result, SegmentId, Timestamp, Version};
use crate::model::Key;

/// Where a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its segment.
    pub segment: SegmentId,
    /// Which of its rows.
    pub row: u32,
}

/// A change of a key as whoever follows the log sees it: with `after` alone an insert, with `before` alone a delete, with both an update.
#[derive(Debug, Clone, PartialEq)]
pub struct Fed {
    /// Its position; changes with one position are one transaction.
    pub lsn: Lsn,
    /// The key.
    pub key: Key,
    /// Who wrote it, and when. Of a delete that a newer change has outlived, only the time is known.
    pub version: Version,
    /// The row that it has replaced or deleted.
    pub before: Option<Place>,
    /// The row as it is then.
    pub after: Option<Place>,
}

impl CollectionState {
    /// Refuses a position after which changes are missing, or to which the log has not come.
    ///
    /// # Errors
    /// `Gone`.
    pub fn check_feed(&self, lsn: Lsn) -> Result<()> {
        let Lsn(gone) = self.progress.gone;
        if lsn.0 < gone {
            let message = format!("of the changes after position {lsn} some are gone: they are kept from {gone} on");
            return Err(Error::new(ErrorKind::Gone, message));
        }
        if lsn > self.progress.frame {
            let message = format!("position {lsn} is past the newest, {}: a crash took it back", self.progress.frame);
            return Err(Error::new(ErrorKind::Gone, message));
        }
        Ok(())
    }

    /// The changes after `lsn`, in the order of the log, whole transactions until there are `count`; those of one transaction by
    /// ascending key. With the position that they reach, which is the newest one when there are no more. None is missing that
    /// [`Self::check_feed`] lets pass; rows that have expired meanwhile are not told.
    ///
    /// Cost: a look at every row of the segments that have some after `lsn`, and at the dead rows that are kept.
    pub fn feed_after(&self, lsn: Lsn, count: usize) -> (Vec<Fed>, Lsn) {
        // Position, place, and whether the row came then; else it went.
        let mut items: Vec<(Lsn, Place, bool)> = Vec::new();
        for (&segment, slot) in &self.slots {
            let versions = slot.segment.versions();
            if versions.lsn_max() > lsn {
                let first = if segment == self.growing { versions.first_after(lsn) } else { 0 };
                let came = slot.live.iter_from(first).filter(|&row| versions.lsn(row) > lsn);
                items.extend(came.map(|row| (versions.lsn(row), Place { segment, row: row as u32 }, true)));
            }
            for &Death { row, lsn: died, .. } in slot.deaths.iter().filter(|death| death.lsn > lsn) {
                let born = versions.lsn(row as usize);
                let place = Place { segment, row };
                // One that had lost already when it came was never there.
                if born < died {
                    items.push((died, place, false));
                    if born > lsn {
                        items.push((born, place, true));
                    }
                }
            }
        }
        // Two items make an update.
        let items_max = count.max(1).saturating_mul(2);
        let mut reached = self.progress.lsn;
        if items.len() > items_max {
            let (_, &mut (last, ..), _) = items.select_nth_unstable_by_key(items_max - 1, |(lsn, ..)| *lsn);
            items.retain(|(lsn, ..)| *lsn <= last);
            reached = last;
        }
        let mut changes: BTreeMap<(Lsn, Key), (Option<Place>, Option<Place>)> = BTreeMap::new();
        for (lsn, place, came) in items {
            let key = self.slots[&place.segment].segment.key(place.row as usize);
            let (before, after) = changes.entry((lsn, key)).or_default();
            *(if came { after } else { before }) = Some(place);
        }
        let mut told: Vec<Fed> = Vec::new();
        for ((lsn, key), (before, after)) in changes {
            if told.len() >= count.max(1) && told.last().is_some_and(|last| last.lsn != lsn) {
                reached = told.last().map_or(reached, |last| last.lsn);
                break;
            }
            let version = match (after, before) {
                (Some(place), _) => self.slots[&place.segment].segment.versions().version(place.row as usize),
                (None, place) => self.deleted(&key, lsn, place),
            };
            told.push(Fed { lsn, key, version, before, after });
        }
        (told, reached)
    }

    /// The position before the first change that was written at `timestamp` or later.
    ///
    /// # Errors
    /// `Gone` when changes since then may be missing.
    pub fn feed_since(&self, timestamp: Timestamp) -> Result<Lsn> {
        let mut first = self.progress.lsn.next();
        for slot in self.slots.values() {
            let versions = slot.segment.versions();
            let dead = slot.deaths.iter().map(|death| death.row as usize);
            let since = slot.live.iter().chain(dead).filter(|&row| versions.version(row).timestamp >= timestamp);
            first = since.map(|row| versions.lsn(row)).fold(first, Ord::min);
            let died = slot.deaths.iter().filter(|death| death.timestamp >= timestamp);
            first = died.map(|death| death.lsn).fold(first, Ord::min);
        }
        if timestamp <= self.progress.history {
            let message =
                format!("changes are kept from {} on, timestamp {timestamp} is before", self.progress.history);
            return Err(Error::new(ErrorKind::Gone, message));
        }
        Ok(Lsn(first.0 - 1))
    }

    /// The version of the delete of `key` at `lsn`, by which the row at `place` died.
    fn deleted(&self, key: &Key, lsn: Lsn, place: Option<Place>) -> Version {
        if let Some((version, _)) = self.tombstones.get(key).filter(|(_, at)| *at == lsn) {
            return *version;
        }
        let mut deletes = self.slots.values().flat_map(|slot| &slot.segment.deletes);
        if let Some(delete) = deletes.find(|delete| delete.lsn == lsn && delete.key == *key) {
            return delete.version;
        }
        let death = place.and_then(|place| {
            self.slots[&place.segment].deaths.iter().find(|death| death.row == place.row && death.lsn == lsn)
        });
        Version { timestamp: death.map_or_else(Timestamp::default, |death| death.timestamp), ..Version::default() }
    }
}
