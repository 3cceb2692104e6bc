//! Segments that another replica wrote: taken into a collection as they are, with their indexes.

use std::collections::{BTreeMap, BTreeSet};

use super::recovery::read_segment;
use super::{Collection, Db};
use crate::base::{Error, Lsn, ReplicaId, Result, SegmentId};
use crate::engine::{Adopted, ChangeSet, Progress, SegmentManifest, name};
use crate::model::DEFAULT_PARTITION;
use crate::platform;

impl Db {
    /// The segments of `hub` that `collection` has as they are.
    pub(super) async fn adopted(&self, collection: &Collection, hub: ReplicaId) -> BTreeSet<SegmentId> {
        let mut manifest = self.inner.shared.manifest().await;
        let segments = manifest.collection_mut(collection.id()).map(|collection| &collection.segments);
        let of_hub = |segment: &SegmentManifest| segment.adopted.filter(|adopted| adopted.hub == hub);
        segments.into_iter().flatten().filter_map(of_hub).map(|adopted| adopted.segment).collect()
    }

    /// Takes in a segment whose files are all in the storage, durably: from then on it is searched. Each row and each delete counts where
    /// its version is newer than what is here, so nothing that was written here is lost, and taking it twice changes nothing.
    ///
    /// All of it has one position in the log here, which no other change has: whoever follows this collection sees it come.
    ///
    /// # Errors
    /// `Corrupt` when the files are not what `described` says, or do not fit the collection; `InvalidArgument` for a timestamp more than a
    /// day ahead of this replica's clock. Nothing is taken in then.
    pub(super) async fn adopt(
        &self,
        collection: &Collection,
        mut described: SegmentManifest,
        hub: ReplicaId,
        segment_there: SegmentId,
    ) -> Result<()> {
        let (db, collection) = (self.clone(), collection.clone());
        platform::run_to_end(async move {
            let shared = &db.inner.shared;
            shared.check_open()?;
            // Nobody merges or alters meanwhile, so the specification stays.
            let _one = db.inner.maintenance.lock().await;
            if db.adopted(&collection, hub).await.contains(&segment_there) {
                return Ok(());
            }
            let entries = shared.storage.list(&name::incoming(collection.id())).await?;
            let mut segment = read_segment(&*shared.storage, &entries, collection.spec(), &described, false).await?;
            if segment.len() as u64 != described.rows {
                let (found, expected) = (segment.len(), described.rows);
                return Err(Error::corrupt(format!("segment {segment_there}: {found} rows; {expected} expected")));
            }
            let now_ms = shared.options.environment.now_ms();
            shared.clock.lock().expect("no panic while held").observe(segment.newest(), now_ms)?;
            // Nobody writes from here on: a later position must not be seen before this one.
            let mut log = collection.inner.log.lock().await;
            let lsn = collection.reserve(&mut log, hub).await?;
            described.adopted = Some(Adopted { hub, segment: segment_there, lsn });
            segment.arrive(lsn);
            let (id, newest) = (collection.id(), segment.newest());
            shared
                .swap_manifest(|manifest| {
                    let named = manifest.collection_mut(id);
                    let named = named.ok_or_else(|| Error::not_found("the collection was dropped"))?;
                    named.progress.history = named.progress.history.max(newest);
                    named.merges.rows_flushed += described.rows;
                    named.segments.push(described);
                    Ok(())
                })
                .await?;
            collection.inner.state.write().expect("no panic while held").adopt(segment, lsn);
            drop(log);
            if collection.spec().schema.partitioned() {
                let names = collection.rows_by_partition().into_keys().filter(|name| name != DEFAULT_PARTITION);
                collection.inner.partitions.write().expect("no panic while held").extend(names);
            }
            collection.notify();
            Ok(())
        })
        .await
    }

    /// All that `hub` had at `there` is here: notes it, moves the pull position to where that ends, and removes what is left of files
    /// that are no longer needed.
    pub(super) async fn end_adoption(&self, collection: &Collection, hub: ReplicaId, there: Progress) -> Result<()> {
        let (db, collection) = (self.clone(), collection.clone());
        platform::run_to_end(async move {
            let shared = &db.inner.shared;
            {
                let _one = db.inner.maintenance.lock().await;
                // What was sealed before would be flushed with a progress that does not know of this.
                collection.seal().await?;
                db.flush_sealed(&collection).await?;
                let log = collection.inner.log.lock().await;
                if let Some(error) = log.closed() {
                    return Err(error);
                }
                // Of this replica's own batches nobody else tells: the next one is numbered by those that were written here.
                let seen: Vec<_> = there.seen.into_iter().filter(|(origin, _)| *origin != shared.replica).collect();
                let id = collection.id();
                let named: Vec<String> = shared
                    .swap_manifest(|manifest| {
                        let named = manifest.collection_mut(id);
                        let named = named.ok_or_else(|| Error::not_found("the collection was dropped"))?;
                        for (origin, sequence) in &seen {
                            let seen = named.progress.seen.entry(*origin).or_default();
                            *seen = (*seen).max(*sequence);
                        }
                        Ok(named
                            .segments
                            .iter()
                            .flat_map(|segment| &segment.files)
                            .map(|file| file.name.clone())
                            .collect())
                    })
                    .await?;
                collection.inner.state.write().expect("no panic while held").note_seen(&seen);
                drop(log);
                // A merge may have replaced some already that are still read.
                let mut kept = named;
                kept.extend(shared.discarded_files());
                kept.extend(collection.inner.state.read().expect("no panic while held").files());
                let kept: BTreeSet<&str> = kept.iter().map(|name| directory(name)).collect();
                for entry in shared.storage.list(&name::incoming_from(id, hub)).await? {
                    if !kept.contains(directory(&entry.name)) {
                        shared.remove_file(entry.name).await?;
                    }
                }
            }
            let nothing = ChangeSet::empty(&collection.spec().schema);
            collection.apply(nothing, Some((hub, there.lsn))).await.map(drop)
        })
        .await
    }
}

/// Where all files of a segment lie.
fn directory(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(directory, _)| directory)
}

impl Collection {
    /// Whether most of what somebody lacks, who has all up to `after` and what is `known`, is in segments: then these are sooner there than
    /// the changes one by one, if it is `rows_min` rows. And whether it would be after a flush.
    pub(super) fn lies_in_segments(
        &self,
        after: Lsn,
        known: &BTreeMap<ReplicaId, crate::base::Sequence>,
        rows_min: usize,
    ) -> (bool, bool) {
        let state = self.inner.state.read().expect("no panic while held");
        let (flushed, elsewhere, all) = state.unknown_rows(after, known);
        let pays = |unknown: usize, all: usize| unknown >= rows_min && unknown * 2 >= all;
        (pays(flushed, all) && flushed >= elsewhere, pays(flushed + elsewhere, all + elsewhere))
    }
}
