//! What a collection holds, as two replicas compare it: each row and each delete that is the newest change of its key, by its timestamp and a
//! hash of its key and version.

use std::sync::{Arc, Weak};

use siphasher::sip::SipHasher24;

use crate::base::codec::Write;
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, RowMask, Timestamp, Version};
use crate::db::access::{Rows, forbidden};
use crate::db::{Access, Action, Collection, Db};
use crate::engine::{ChangeSet, Refused, is_eviction};
use crate::model::Key;
use crate::platform::{self, sleep_ms, spawn};
use crate::segment::Segment;
use crate::sync::{Item, Items, RANGES_BYTES};

/// No more sets than this are held of one collection: who would need another one gets the last, which is older than it might be. Then some
/// changes travel that both sides have by now.
const SETS_MAX: usize = 4;
/// Although the log has moved on, a set serves those who begin within so many times the time that it took to make: however many ask, making
/// sets takes no more than that part of the time.
const REUSED_FOR: u64 = 8;

/// What a collection holds, under a key that was drawn for this set; for all who compare with it.
pub(super) struct Held {
    pub(super) secret: [u64; 2],
    items: Items,
    lsn: Lsn,
    until_us: u64,
}

/// The sets that somebody holds, the newest last; and that one, while it may serve others.
#[derive(Default)]
pub(in crate::db) struct Sets {
    all: Vec<Weak<Held>>,
    kept: Option<Arc<Held>>,
}

impl Held {
    /// What a hub says to ranges of a client, or first.
    pub(super) fn answer(&self, ranges: Option<&[u8]>) -> Result<Vec<u8>> {
        match ranges {
            None => Ok(self.items.begin()),
            Some(ranges) => self.items.answer(ranges, RANGES_BYTES),
        }
    }
}

/// Hashes keys and versions: SipHash-2-4 (Aumasson and Bernstein, 2012) of the version (timestamp, origin, sequence), then 0 and the integer's
/// 8 bytes, or 1 and the text.
struct Hasher {
    secret: SipHasher24,
    bytes: Vec<u8>,
}

impl Hasher {
    fn new([one, two]: [u64; 2]) -> Self {
        Self { secret: SipHasher24::new_with_keys(one, two), bytes: Vec::with_capacity(64) }
    }

    fn item(&mut self, key: &Key, Version { timestamp, origin, sequence }: Version) -> Item {
        self.bytes.clear();
        self.bytes.put_u64(timestamp.0);
        self.bytes.put_u64(origin.0);
        self.bytes.put_u64(sequence.0);
        match key {
            Key::Int(key) => {
                self.bytes.push(0);
                self.bytes.put_u64(*key as u64);
            }
            Key::String(key) => {
                self.bytes.push(1);
                self.bytes.put_bytes(key.as_bytes());
            }
        }
        Item { timestamp, id: self.secret.hash(&self.bytes) }
    }

    fn rows(&mut self, segment: &Segment, live: &RowMask, since: Timestamp, items: &mut Vec<Item>) {
        let versions = segment.versions();
        for row in live.iter() {
            let version = versions.version(row);
            // Each side finds by itself what has expired.
            if version.timestamp >= since {
                items.push(self.item(&segment.key(row), version));
            }
        }
    }
}

/// All that a collection holds at one moment.
///
/// # Errors
/// `Unsupported` where that is only a part of some hub's rows.
pub(super) async fn summarize(collection: &Collection, secret: [u64; 2]) -> Result<Items> {
    collection.inner.shared.check_open()?;
    if collection.has_parts() && !collection.is_whole() {
        let name = collection.name();
        let message = format!("only a part of collection {name:?} is kept here, and only wholes can be compared");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let since = collection.expired_before();
    let mut hasher = Hasher::new(secret);
    let mut items = Vec::new();
    let mut segments: Vec<(Arc<Segment>, RowMask)> = Vec::new();
    {
        let state = collection.inner.state.read().expect("no panic while held");
        items.reserve_exact(state.rows());
        let growing = state.growing().segment.id();
        for slot in state.slots() {
            if slot.segment.id() == growing {
                // The only one that goes on changing.
                hasher.rows(&slot.segment, &slot.live, since, &mut items);
            } else {
                segments.push((slot.segment.clone(), slot.live.clone()));
            }
        }
        items.extend(state.deletes().map(|(key, version)| hasher.item(key, version)));
    }
    for (segment, live) in segments {
        hasher.rows(&segment, &live, since, &mut items);
        platform::yield_now().await;
    }
    Ok(Items::new(items))
}

/// What a collection holds, for somebody who begins to compare.
pub(super) async fn held(collection: &Collection) -> Result<Arc<Held>> {
    // One is made at a time: who comes meanwhile gets it too.
    let mut sets = collection.inner.compared.lock().await;
    sets.all.retain(|set| set.strong_count() > 0);
    let environment = collection.inner.shared.options.environment.clone();
    let (lsn, begun_us) = (collection.lsn(), environment.now_us());
    if let Some(last) = sets.all.last().and_then(Weak::upgrade)
        && (last.lsn == lsn || begun_us < last.until_us || sets.all.len() >= SETS_MAX)
    {
        return Ok(last);
    }
    let secret = [environment.random_u64(), environment.random_u64()];
    let items = summarize(collection, secret).await?;
    let now_us = environment.now_us();
    let kept_us = now_us.saturating_sub(begun_us).saturating_mul(REUSED_FOR);
    let made = Arc::new(Held { secret, items, lsn, until_us: now_us.saturating_add(kept_us) });
    sets.all.push(Arc::downgrade(&made));
    if kept_us > 0 {
        sets.kept = Some(made.clone());
        let inner = Arc::downgrade(&collection.inner);
        spawn(async move {
            sleep_ms(kept_us / 1_000 + 1).await;
            if let Some(inner) = inner.upgrade() {
                // A newer one may be in its place by now, which is made anew the sooner.
                inner.compared.lock().await.kept = None;
            }
        });
    }
    Ok(made)
}

/// The changes with these hashes that are still the newest of their key, in order until `bytes_max` is exceeded, and how many were looked at:
/// all of a timestamp or none, for a batch is applied in one step everywhere.
pub(super) async fn read(
    collection: &Collection,
    secret: [u64; 2],
    items: &[Item],
    bytes_max: usize,
) -> Result<(usize, Vec<u8>)> {
    collection.inner.shared.check_open()?;
    // What a hub has refused is kept aside here, and goes to nobody.
    let (replica, refused) = (collection.inner.shared.replica, collection.refused());
    let is_aside = |Version { origin, sequence, .. }: Version| {
        let within = |refused: &Refused| sequence > refused.after && sequence <= refused.through;
        origin == replica && refused.iter().any(within)
    };
    let begins = |at: Timestamp| items.partition_point(|item| item.timestamp < at);
    let (changes, reached) = collection
        .with_blocks(|state, blocks| {
            let hasher = std::cell::RefCell::new(Hasher::new(secret));
            let order = |version: Version, key: &dyn Fn() -> Key| {
                let first = begins(version.timestamp);
                // Most rows are of other times, and their keys need not be looked at.
                items.get(first).filter(|item| item.timestamp == version.timestamp && !is_aside(version))?;
                items.binary_search(&hasher.borrow_mut().item(&key(), version)).ok().map(|_| first as u64)
            };
            state.changes_by(order, bytes_max, blocks)
        })
        .await?;
    let end_of = |first: u64| items.partition_point(|item| item.timestamp <= items[first as usize].timestamp);
    let done = reached.map_or(items.len(), end_of);
    Ok((done, if changes.is_empty() { Vec::new() } else { changes.encode() }))
}

/// Applies what a hub has and this side lacks.
pub(super) async fn take_in(db: &Db, collection: &Collection, bytes: &[u8]) -> Result<u64> {
    let mut changes = ChangeSet::decode(&collection.spec().schema, bytes)?;
    // What a hub does not keep itself is nobody's business.
    changes.deletes.retain(|(_, version)| !is_eviction(*version));
    db.admit_partitions(collection, &changes).await?;
    Ok(collection.take_in(changes).await?.0 as u64)
}

/// Applies what a client has and this side lacks, as far as the client may write it; tells where in the log that is.
pub(super) async fn take_in_given(
    db: &Db,
    access: &Access,
    collection: &Collection,
    client: ReplicaId,
    bytes: &[u8],
) -> Result<(u64, Lsn)> {
    let name = collection.name();
    let changes = ChangeSet::decode(&collection.spec().schema, bytes)?;
    if let Some(version) = changes.versions().find(|version| is_eviction(*version)) {
        return Err(Error::invalid(format!("a change of nobody at {}", version.timestamp)));
    }
    let is_own = changes.versions().all(|version| version.origin == client);
    if !(access.allows(name, Action::Admin) || is_own && matches!(collection.limits.write, Rows::All)) {
        let message = "to give back what others wrote, or what may be written in part only, \"admin\" is needed";
        return Err(forbidden(format!("collection {name:?}: {message}")));
    }
    db.admit_partitions(collection, &changes).await?;
    let (rows, lsn) = collection.take_in(changes).await?;
    Ok((rows as u64, lsn))
}
