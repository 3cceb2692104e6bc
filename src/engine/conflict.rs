use std::collections::BTreeMap;
use std::sync::Arc;

use super::feed::Place;
use super::{ChangeSet, CollectionState};
use crate::base::{Lsn, ReplicaId, Sequence, Version};
use crate::model::Key;

/// From whom changes come, and what they have: by that it is known whether a change meets another one that its writer had not seen.
///
/// Two changes of one key are in conflict when different replicas wrote them, neither of which had seen the other's. Whoever writes has a
/// clock past all that it has seen, so the writer of the older one had not seen the newer one. Whether the writer of the newer one had seen
/// the older one, versions do not say; the first store in which the two meet knows, by how far it and its peer have got.
#[derive(Debug, Clone)]
pub enum Met {
    /// A client pushes them, which had the log here up to `pulled`, and what is `known`.
    Pushed {
        /// The position that it has answered for.
        pulled: Lsn,
        /// Of each origin up to this sequence, from anywhere, or because it has pushed it.
        known: Arc<BTreeMap<ReplicaId, Sequence>>,
    },
    /// A hub sends them: changes here that it does not have, nobody above has seen.
    Pulled {
        /// What the hub has of whom.
        there: BTreeMap<ReplicaId, Sequence>,
        /// Who this is.
        replica: ReplicaId,
        /// Whether clients push changes here, which nobody above has seen either.
        is_hub: bool,
    },
}

/// A change that meets another one of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meeting {
    /// Which of the changes that come: the rows first, then the deletes.
    pub change: usize,
    /// The version that is here.
    pub here: Version,
    /// Its row; `None` for a delete.
    pub place: Option<Place>,
}

impl CollectionState {
    /// Which of `changes` are in conflict with what is here. Not two deletes: nothing is lost by them.
    pub fn meetings(&self, changes: &ChangeSet, met: &Met) -> Vec<Meeting> {
        let rows = changes.put_versions.iter().enumerate();
        let puts = rows.map(|(row, version)| (changes.puts.key(row), *version, true));
        let all = puts.chain(changes.deletes.iter().map(|(key, version)| (key.clone(), *version, false)));
        let meeting = |(change, (key, version, has_row)): (usize, (Key, Version, bool))| {
            let (here, lsn, place) = self.change_of(&key)?;
            let is_rival = here.origin != version.origin
                // What came before met then whatever there was.
                && self.seen(version.origin) < version.sequence
                && (has_row || place.is_some())
                && self.is_unseen(here, lsn, version < here, met);
            is_rival.then_some(Meeting { change, here, place })
        };
        all.enumerate().filter_map(meeting).collect()
    }

    /// The newest change of a key.
    fn change_of(&self, key: &Key) -> Option<(Version, Lsn, Option<Place>)> {
        match self.place_of(key, None) {
            Some(place) => {
                let versions = self.slots[&place.segment].segment.versions();
                Some((versions.version(place.row as usize), versions.lsn(place.row as usize), Some(place)))
            }
            None => self.tombstones.get(key).map(|(version, lsn)| (*version, *lsn, None)),
        }
    }

    /// Whether the writer of what comes had not seen what is here.
    fn is_unseen(&self, here: Version, lsn: Lsn, stays: bool, met: &Met) -> bool {
        match met {
            Met::Pushed { pulled, known } => {
                let knows = known.get(&here.origin).is_some_and(|known| *known >= here.sequence);
                stays || lsn > *pulled && !knows
            }
            Met::Pulled { there, replica, is_hub } => {
                // What came from above in a pull that was not the last of its kind is not known to be whole here.
                let from_here = here.origin == *replica || *is_hub && here.sequence <= self.seen(here.origin);
                let there = there.get(&here.origin).copied().unwrap_or_default();
                from_here && here.sequence > there
            }
        }
    }
}
