//! Changes that lost against others which neither had seen: kept beside the collection for a while, for the application to look at.
//!
//! They lie in files of their own, `conflicts-N`, of one frame a change, written before the change that wins is: a crash in between leaves
//! a conflict that is told once more, not one that nobody knows of.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of what follows the checksum |
//! | 4 | CRC-32C of that |
//! | 8 | when, in milliseconds since 1970 |
//! | 24 | version of the change that won: timestamp, origin, sequence (8 bytes each) |
//! | … | a [`ChangeSet`] of one change, the one that lost |

use std::collections::{BTreeMap, BTreeSet};

use super::Collection;
use super::access::forbidden;
use crate::base::codec::{Reader, Write, checksum};
use crate::base::{ReplicaId, Result, Sequence, Timestamp, Version};
use crate::engine::{ChangeSet, CollectionState, Met, name};
use crate::model::{Batch, Key, Row};
use crate::segment::{BlockRef, Blocks};

/// Conflicts are told for so long: 30 days.
const RETENTION_MS: u64 = 30 * 86_400_000;
/// A file is followed by another one when it has so many bytes.
const FILE_BYTES: u64 = 1 << 20;
/// The oldest files give way when all have more.
const ALL_BYTES_MAX: u64 = 16 << 20;
const HEAD_BYTES: usize = 8;

/// A change that lost against one of another replica, where the writer of neither had seen the other's.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Of which row.
    pub key: Key,
    /// The row as it was written; `None` when it was deleted.
    pub row: Option<Row>,
    /// When that was, and by whom.
    pub version: Version,
    /// The version of what is there instead.
    pub winner: Version,
    /// When the two met here, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The files of one collection, once somebody has looked.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Length by number.
    files: Option<BTreeMap<u64, u64>>,
    /// The one that is added to; none before the first, and after one that failed.
    open: Option<u64>,
}

/// A change that loses, and the version of what it loses to.
struct Lost {
    changes: ChangeSet,
    winner: Version,
}

impl Collection {
    /// Changes that have lost against those of other replicas, without that the writer of either had seen the other's: the oldest first, each
    /// once. They are told by the store in which the two met: where this replica's own change was overtaken before the hub had it, or
    /// where, at a hub, a client pushed one over another that it had not got. For 30 days, and as far as they take no more than 16 MiB;
    /// the oldest go first.
    ///
    /// # Errors
    /// `Forbidden` by a handle that may not read all rows.
    pub async fn conflicts(&self) -> Result<Vec<Conflict>> {
        self.inner.shared.check_open()?;
        if !self.limits.read.is_all() {
            return Err(forbidden("only some rows of this collection were granted, and conflicts are of all"));
        }
        let mut kept = self.inner.conflicts.lock().await;
        let files: Vec<u64> = self.conflict_files(&mut kept).await?.keys().copied().collect();
        let shared = &self.inner.shared;
        let from_ms = shared.options.environment.now_ms().saturating_sub(RETENTION_MS);
        let mut conflicts = Vec::new();
        let mut told = BTreeSet::new();
        for number in files {
            let path = name::conflicts_file(self.id(), number);
            let bytes = shared.storage.read_all(&path).await?;
            let mut lasts = false;
            for conflict in self.decode_conflicts(&bytes) {
                let is_due = conflict.at_ms >= from_ms;
                lasts |= is_due;
                if is_due && told.insert((conflict.key.clone(), conflict.version)) {
                    conflicts.push(conflict);
                }
            }
            if !lasts && kept.open != Some(number) {
                shared.storage.remove(&path).await?;
                if let Some(files) = &mut kept.files {
                    files.remove(&number);
                }
            }
        }
        Ok(conflicts)
    }

    /// The frames of a file up to the first that is not whole: a crash may have left one.
    fn decode_conflicts(&self, bytes: &[u8]) -> Vec<Conflict> {
        let mut reader = Reader::new(bytes);
        std::iter::from_fn(|| self.decode_conflict(&mut reader).ok()).collect()
    }

    fn decode_conflict(&self, reader: &mut Reader<'_>) -> Result<Conflict> {
        let (len, sum) = (reader.u32()? as usize, reader.u32()?);
        let frame = reader.bytes(len)?;
        if checksum(frame) != sum {
            return Err(crate::base::Error::corrupt("the checksum does not fit"));
        }
        let mut reader = Reader::new(frame);
        let at_ms = reader.u64()?;
        let winner = Version {
            timestamp: Timestamp(reader.u64()?),
            origin: ReplicaId(reader.u64()?),
            sequence: Sequence(reader.u64()?),
        };
        let mut lost = ChangeSet::decode(&self.spec().schema, reader.bytes(reader.remaining())?)?;
        match (lost.put_versions.pop(), lost.deletes.pop()) {
            (Some(version), _) => {
                let row = Some(lost.puts.row(0, None));
                Ok(Conflict { key: lost.puts.key(0), row, version, winner, at_ms })
            }
            (None, Some((key, version))) => Ok(Conflict { key, row: None, version, winner, at_ms }),
            (None, None) => Err(crate::base::Error::corrupt("a conflict without a change")),
        }
    }

    /// Keeps, durably, what of `changes`, or of what is here, is about to lose without having been seen. Whoever holds the log calls it
    /// before it writes them.
    pub(super) async fn keep_conflicts(&self, changes: &ChangeSet, met: &Met) -> Result<()> {
        if self.inner.state.read().expect("no panic while held").meetings(changes, met).is_empty() {
            return Ok(());
        }
        let lost = self.with_blocks(|state, blocks| lost(state, changes, met, blocks)).await?;
        let now_ms = self.inner.shared.options.environment.now_ms();
        let mut out = Vec::new();
        for Lost { changes, winner } in lost {
            let mut frame = Vec::new();
            for number in [now_ms, winner.timestamp.0, winner.origin.0, winner.sequence.0] {
                frame.put_u64(number);
            }
            frame.append(&mut changes.encode());
            out.put_u32(frame.len() as u32);
            out.put_u32(checksum(&frame));
            out.append(&mut frame);
        }
        debug_assert!(out.len() > HEAD_BYTES);
        let mut kept = self.inner.conflicts.lock().await;
        let last = self.conflict_files(&mut kept).await?.last_key_value().map_or(0, |(number, _)| *number);
        let number = *kept.open.get_or_insert(last + 1);
        let path = name::conflicts_file(self.id(), number);
        let storage = &*self.inner.shared.storage;
        let len = out.len() as u64;
        let appended = async {
            storage.append(&path, out.into()).await?;
            storage.sync(&path).await
        };
        if let Err(error) = appended.await {
            // Nothing would be added to it any more.
            kept.open = None;
            kept.files = None;
            return Err(error);
        }
        let files = kept.files.get_or_insert_default();
        let file_len = files.entry(number).or_default();
        *file_len += len;
        let is_full = *file_len >= FILE_BYTES;
        let mut gone = Vec::new();
        while files.len() > 1 && files.values().sum::<u64>() > ALL_BYTES_MAX {
            gone.extend(files.pop_first());
        }
        if is_full {
            kept.open = None;
        }
        for (number, _) in gone {
            storage.remove(&name::conflicts_file(self.id(), number)).await?;
        }
        Ok(())
    }

    async fn conflict_files<'a>(&self, kept: &'a mut Kept) -> Result<&'a BTreeMap<u64, u64>> {
        if kept.files.is_none() {
            let entries = self.inner.shared.storage.list(&name::conflicts(self.id())).await?;
            let number = |text: &str| text.rsplit('-').next()?.parse().ok();
            kept.files = Some(entries.iter().filter_map(|entry| Some((number(&entry.name)?, entry.len))).collect());
        }
        Ok(kept.files.get_or_insert_default())
    }
}

/// What loses, with its rows.
fn lost(state: &CollectionState, changes: &ChangeSet, met: &Met, blocks: &Blocks) -> Result<Vec<Lost>, Vec<BlockRef>> {
    let rows = changes.put_versions.len();
    let schema = &state.spec().schema;
    let mut lost = Vec::new();
    let mut needs = Vec::new();
    for meeting in state.meetings(changes, met) {
        let (key, version) = match changes.put_versions.get(meeting.change) {
            Some(version) => (changes.puts.key(meeting.change), *version),
            None => changes.deletes[meeting.change - rows].clone(),
        };
        let one = |row: Option<Batch>, version| match row {
            Some(puts) => ChangeSet { puts, put_versions: vec![version], deletes: Vec::new() },
            None => ChangeSet {
                puts: Batch::empty(schema),
                put_versions: Vec::new(),
                deletes: vec![(key.clone(), version)],
            },
        };
        if version < meeting.here {
            let row = (meeting.change < rows).then(|| changes.puts.take(&[meeting.change as u32]));
            lost.push(Lost { changes: one(row, version), winner: meeting.here });
            continue;
        }
        let row = match meeting.place.and_then(|place| Some((state.slot(place.segment)?, place.row))) {
            None => None,
            Some((slot, row)) => {
                let mut missing = slot.segment.needs(&[row], &|_| true, blocks);
                if !missing.is_empty() {
                    needs.append(&mut missing);
                    continue;
                }
                Some(slot.segment.take(&[row], blocks).0)
            }
        };
        lost.push(Lost { changes: one(row, meeting.here), winner: version });
    }
    if needs.is_empty() { Ok(lost) } else { Err(needs) }
}
