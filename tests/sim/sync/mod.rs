//! One seed of sync: a hub and one to seven others, some of them hubs as well, each with a disk and a clock of its own, over a network that delays,
//! breaks and swallows; they are written to, flushed, merged, crashed and started again. Then all is quiet, and after a bounded time every
//! store holds the same rows: of each the newest that was acknowledged anywhere, and nothing that was never written.
//!
//! The stores, sessions and hubs are the real ones. Time is tokio's, which stands still while anything can be done.

mod network;
mod oracle;
mod parts;
pub mod planted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use eddydb::base::{Error, ErrorKind, Random, Version};
use eddydb::db::{
    Collection, Db, MergePolicy, Operation as Write, Options, QueryRequest, SyncHub, SyncSession, SyncState, Target,
    WriteOptions,
};
use eddydb::engine::CollectionSpec;
use eddydb::model::{Batch, Key, Row, Value};
use eddydb::platform::Environment;
use eddydb::storage::FaultStorage;
use eddydb::sync::HubOptions;
use futures_util::future::join_all;

use crate::planted::{Fault as DiskFault, Planted};
use network::{Network, Place};
use oracle::{Content, Group};
use parts::{ALL, Rights};
use planted::Fault;

const GROUPS: u64 = 8;
/// Groups of even number are in the first, the others in the second: what is wrong with one must not hold up the other.
pub const COLLECTIONS: [&str; 2] = ["notes", "tags"];
/// Keys of a group: all of them are in every write of it.
const GROUP_KEYS: i64 = 3;
const START_MS: u64 = 1_700_000_000_000;
/// Everything must have come to rest so long after nothing fails any more. A session that met silence again and again waits 16 minutes for
/// the next frame, and then as long as a hub is silent, and then its turn to try again.
const REST_S: u64 = 3_600;

/// The rows of a store by group, with their version.
type Rows = BTreeMap<i64, (Version, String)>;

struct World {
    random: Random,
    network: Network,
    nodes: Vec<Node>,
    groups: Vec<Group>,
    written: u64,
    fat: bool,
    rights: Arc<Rights>,
    options: HubOptions,
    fault: Option<Fault>,
    spec: CollectionSpec,
    merge_policy: MergePolicy,
    /// Whether stores go back to older backups; whether one has.
    restores: bool,
    gone_back: bool,
    begun: tokio::time::Instant,
    coarse_ms: u64,
    /// No clock has been past this.
    latest_ms: u64,
}

struct Node {
    storage: FaultStorage,
    backup: Option<FaultStorage>,
    environment: Environment,
    /// How far its clock is off.
    skew_ms: Arc<AtomicI64>,
    /// The hubs that it syncs with: of each session, the first that is there.
    hubs: Vec<Vec<usize>>,
    /// Whether it keeps a part only: what it asks for.
    part: Option<u8>,
    life: Option<Life>,
    /// Whether a crash was planned in this life.
    sick: bool,
    /// Whether a call was: what failed may still be done when the store is opened again.
    hurt: bool,
}

struct Life {
    db: Db,
    sessions: Vec<SyncSession>,
}

/// Runs a seed; panics when anything promised does not hold.
pub fn run(seed: u64, fault: Option<Fault>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { World::new(seed, fault).run().await });
}

fn spec(random: &mut Random) -> CollectionSpec {
    let index = match random.below(3) {
        0 => r#","indexes":{"embedding":{"metric":"L2","kind":{"HNSW":{"m":4,"ef_construction":8}}}}"#,
        1 => r#","indexes":{"embedding":{"metric":"L2","kind":"FLAT"}}"#,
        _ => "",
    };
    let json = format!(
        r#"{{"fields":[{{"name":"id","type":"int64","primaryKey":true}},{{"name":"text","type":"varchar","maxLength":65000}},
        {{"name":"embedding","type":"float_vector","dim":2}}],"dynamic":false{index}}}"#
    );
    serde_json::from_str(&json).unwrap()
}

impl World {
    fn new(seed: u64, fault: Option<Fault>) -> Self {
        let mut random = Random::new(seed ^ 0x5c_1e55);
        let count = 2 + random.below(7) as usize;
        // Clocks that tell seconds only have many writes at one time.
        // A version is used twice at one tick of a clock only.
        let coarse_ms = if random.one_in(3) || fault == Some(Fault::ReusedSequence) { 20_000 } else { 1 };
        let begun = tokio::time::Instant::now();
        let mut nodes: Vec<Node> = (0..count)
            .map(|at| {
                let skew_ms =
                    Arc::new(AtomicI64::new(if coarse_ms > 1 { 0 } else { random.below(240_000) as i64 - 120_000 }));
                let skew = skew_ms.clone();
                let clock = move || {
                    let now = START_MS + begun.elapsed().as_millis() as u64;
                    now.saturating_add_signed(skew.load(Ordering::Relaxed)) / coarse_ms * coarse_ms
                };
                let mut hubs = Vec::new();
                if at > 1 && random.one_in(2) {
                    hubs.push(vec![1 + random.below(at as u64 - 1) as usize]);
                }
                if at > 0 && (hubs.is_empty() || random.one_in(3)) {
                    hubs.push(vec![0]);
                }
                if at > 1 && random.one_in(3) {
                    hubs = vec![some_of(&mut random, at)];
                }
                Node {
                    storage: FaultStorage::new(seed.wrapping_mul(31).wrapping_add(at as u64)),
                    backup: None,
                    environment: Environment::following(seed.wrapping_mul(17).wrapping_add(at as u64), clock),
                    skew_ms,
                    hubs,
                    part: None,
                    life: None,
                    sick: false,
                    hurt: false,
                }
            })
            .collect();
        // Who keeps a part cannot compare it.
        let of_restores = [Fault::SkippedRange, Fault::SkippedGive, Fault::LateKnown, Fault::ReusedSequence];
        let restores = random.one_in(3) || fault.is_some_and(|fault| of_restores.contains(&fault));
        let small_count = 2 + random.below(3) as usize;
        let rights = Rights::new();
        // Who is no hub, and has one, may keep a part.
        for at in 1..count {
            let is_hub = nodes.iter().any(|node| node.hubs.iter().flatten().any(|hub| *hub == at));
            if nodes[at].hubs == [[0]] && !is_hub && !restores && random.one_in(2) {
                nodes[at].part = Some(1 + random.below(u64::from(ALL)) as u8);
                if random.one_in(2) {
                    rights.allow(at, 1 + random.below(u64::from(ALL)) as u8);
                }
            }
        }
        Self {
            network: Network::new(random.next_u64(), count, fault),
            nodes,
            groups: vec![Group::default(); GROUPS as usize],
            written: 0,
            fat: random.one_in(10),
            rights,
            options: {
                let seeded_rows_min = *random.pick(&[3, 9, 1_000]);
                // Faults are planted in frames.
                let serves_files = fault.is_none() && seeded_rows_min == 3;
                HubOptions { seeded_rows_min, serves_files, ..HubOptions::default() }
            },
            fault,
            spec: spec(&mut random),
            merge_policy: MergePolicy { small_count, ..MergePolicy::default() },
            restores,
            gone_back: false,
            begun,
            coarse_ms,
            latest_ms: 0,
            random,
        }
    }

    async fn run(mut self) {
        self.start(0).await;
        let steps = 30 + self.random.below(70);
        for _ in 0..steps {
            self.step().await;
            let pause_ms = match self.random.below(4) {
                0 => 0,
                1 => self.random.below(50),
                2 => self.random.below(2_000),
                _ => self.random.below(20_000),
            };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            self.look();
        }
        self.heal().await;
        if self.gone_back {
            self.reconcile_all().await;
        }
        let rows = self.rest().await;
        for (at, group) in self.groups.iter().enumerate() {
            group.check(rows.get(&(at as i64)), &format!("in the end, group {at}"));
        }
        // What they hold is durable.
        let at = self.any();
        let hurt = self.nodes[at].hurt;
        self.kill(at);
        self.start(at).await;
        let found = self.rows(at).await.unwrap().unwrap_or_default();
        let rows = self.part_of(at, &rows);
        assert!(hurt || found == rows, "store {at} after a crash: found {found:?}, expected {rows:?}");
        if self.nodes[at].part.is_none() {
            for (at, group) in self.groups.iter().enumerate() {
                group.check(found.get(&(at as i64)), &format!("after a crash, group {at}"));
            }
        }
        self.look();
    }

    /// Panics when something was seen that must not be, by whomever.
    fn look(&self) {
        let wrong = std::mem::take(&mut self.network.inner().wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        let said = crate::said();
        assert!(said.is_empty(), "a task panicked: {said}");
    }

    async fn step(&mut self) {
        match self.random.below(34) {
            0..=9 => {
                let count = 1 + self.random.below(3);
                let mut writes = Vec::new();
                for _ in 0..count {
                    writes.extend(self.write());
                }
                for (group, content, done) in join_all(writes).await {
                    match done {
                        Ok(Some(version)) => self.groups[group].acknowledged(version, content),
                        Ok(None) => {}
                        Err(_) => self.groups[group].uncertain(content),
                    }
                }
            }
            10..=11 => {
                if let Some(at) = self.any_living() {
                    event(|| format!("flush {at}"));
                    let name = *self.random.pick(&COLLECTIONS);
                    let _ = self.db(at).flush(name).await;
                }
            }
            12..=13 => {
                if let Some(at) = self.any_living() {
                    for _ in 0..20 {
                        if !self.db(at).maintain().await.unwrap_or(false) {
                            break;
                        }
                    }
                }
            }
            14 => {
                if let Some(at) = self.any_living() {
                    let after = self.random.below(40);
                    event(|| format!("crash of {at} after {after} operations"));
                    self.nodes[at].storage.crash_after(after);
                    self.nodes[at].sick = true;
                }
            }
            15 => {
                if let Some(at) = self.any_living() {
                    event(|| format!("kill {at}"));
                    self.kill(at);
                }
            }
            16 => {
                if let Some(at) = self.any_living() {
                    let kind = if self.random.one_in(3) { ErrorKind::StorageFull } else { ErrorKind::Io };
                    event(|| format!("a call fails at {at}: {kind:?}"));
                    self.nodes[at].storage.fail_at(self.random.below(30), kind);
                    self.nodes[at].hurt = true;
                }
            }
            17..=18 => self.network.cut_any(),
            19 => {
                let (one, other) = (self.any(), self.any());
                event(|| format!("{one} and {other} do not reach each other"));
                self.network.block(one, other);
            }
            20 => self.network.inner().blocked.clear(),
            21 => {
                let slow_ms = *self.random.pick(&[0, 20, 200, 2_000, 8_000]);
                self.network.inner().slow_ms = slow_ms;
                if let Some(at) = self.any_living()
                    && self.random.one_in(2)
                {
                    let by_ms = self.random.below(90_000) as i64 - 20_000;
                    self.note_clock(at);
                    self.nodes[at].skew_ms.fetch_add(by_ms, Ordering::Relaxed);
                }
            }
            22 => {
                if let Some(at) = self.any_living() {
                    // A batch is there whole or not at all; `rows` looks.
                    let _ = self.rows(at).await;
                }
            }
            23..=24 => {
                if let Some(at) = self.any_living()
                    && self.nodes[at].part.is_some()
                {
                    let part = 1 + self.random.below(u64::from(ALL)) as u8;
                    event(|| format!("{at} wants part {part:03b}"));
                    self.nodes[at].part = Some(part);
                    self.nodes[at].life.iter().flat_map(|life| &life.sessions).for_each(SyncSession::stop);
                    let session = self.session(at, &[0]);
                    self.nodes[at].life.as_mut().expect("it lives").sessions = vec![session];
                }
            }
            25 => {
                let at = self.any();
                if self.nodes[at].part.is_some() {
                    let part = self.random.below(u64::from(ALL) + 1) as u8;
                    event(|| format!("{at} may read {part:03b}"));
                    self.rights.allow(at, part);
                }
            }
            26 | 30 | 31 => {
                if let Some(at) = self.any_living()
                    && self.restores
                {
                    event(|| format!("back up {at}"));
                    self.nodes[at].backup = Some(self.nodes[at].storage.backup());
                }
            }
            27 | 32 => {
                let at = self.any();
                if let Some(backup) = self.nodes[at].backup.clone()
                    && (!self.gone_back || self.random.one_in(4))
                {
                    self.go_back(at, backup).await;
                }
            }
            28 => {
                if let Some(at) = self.any_living() {
                    for session in self.nodes[at].life.as_ref().unwrap().sessions.clone() {
                        event(|| format!("{at} compares"));
                        // What comes of it, whoever asked is told; where a part is kept, that it cannot be.
                        tokio::spawn(async move { session.reconcile(None).await });
                    }
                }
            }
            _ => {
                if let Some(at) = self.any_living()
                    && !self.nodes[at].life.as_ref().unwrap().sessions.is_empty()
                {
                    let session = self.nodes[at].life.as_ref().unwrap().sessions[0].clone();
                    if self.random.one_in(2) { session.pause() } else { session.resume() }
                }
            }
        }
        for at in 0..self.nodes.len() {
            if self.nodes[at].life.is_some() && self.nodes[at].storage.crashed() {
                event(|| format!("{at} has crashed"));
                self.kill(at);
            } else if self.nodes[at].life.is_none() && self.random.one_in(6) {
                self.start(at).await;
            }
        }
        if let Some(at) = self.any_living() {
            let _ = self.rows(at).await;
        }
    }

    fn any(&mut self) -> usize {
        self.random.below(self.nodes.len() as u64) as usize
    }

    fn any_living(&mut self) -> Option<usize> {
        let at = self.any();
        self.nodes[at].life.is_some().then_some(at)
    }

    fn db(&self, at: usize) -> Db {
        self.nodes[at].life.as_ref().expect("it lives").db.clone()
    }

    /// A write somewhere, if it can be; the version that it got, `None` when there was nothing to be done.
    fn write(&mut self) -> Option<impl Future<Output = (usize, Content, Result<Option<Version>, Error>)> + use<>> {
        let at = self.any_living()?;
        let group = self.random.below(GROUPS);
        let notes = self.db(at).collection(COLLECTIONS[group as usize % 2]).ok()?;
        self.written += 1;
        let deletes = self.random.one_in(4);
        let content = (!deletes).then(|| {
            let word = *self.random.pick(&parts::WORDS);
            let mut text = format!("{word}: write {} at {at}", self.written);
            if self.fat {
                while text.len() < 60_000 {
                    text.push_str(&format!("{:016x}", self.random.next_u64()));
                }
            }
            text
        });
        let keys = group as i64 * GROUP_KEYS..(group as i64 + 1) * GROUP_KEYS;
        let by_filter = self.random.one_in(3);
        event(|| format!("write {} at {at} to group {group}, deletes: {deletes}", self.written));
        Some(async move {
            let write = match &content {
                Some(text) => Write::Upsert(batch(&notes, keys, text)),
                None if by_filter => {
                    Write::Delete(Target::Filter(format!("id >= {} and id < {}", keys.start, keys.end)))
                }
                None => Write::Delete(Target::Keys(keys.map(Key::Int).collect())),
            };
            let done = notes.batch(vec![write], WriteOptions::default()).await;
            let version = done.map(|response| match response.count {
                0 => None,
                count => {
                    assert_eq!(count as i64, GROUP_KEYS, "a group is there whole, or not at all");
                    Some(response.version)
                }
            });
            (group as usize, content.as_deref().map(head), version)
        })
    }

    /// Opens a store and has it sync, if its disk lets it.
    async fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.storage = node.storage.reopen();
        node.sick = false;
        node.hurt = false;
        let disk_fault = (self.fault == Some(Fault::SkippedSync)).then_some(DiskFault::SkippedSync);
        let options = Options {
            checkpoint_bytes: if self.fat { 400_000 } else { 20_000 },
            environment: node.environment.clone(),
            merge_policy: self.merge_policy,
            ..Options::default()
        };
        let db = Db::open(Planted::new(node.storage.clone(), disk_fault), options).await;
        let db = db.unwrap_or_else(|error| panic!("store {at} does not open: {error}"));
        for name in COLLECTIONS {
            if at == 0 && db.collection(name).is_err() {
                db.create_collection(name, self.spec.clone()).await.expect("nothing fails yet");
            }
        }
        let hub = SyncHub::with_gate(db.clone(), self.options, self.rights.clone());
        {
            let mut inner = self.network.inner();
            let life = inner.places[at].life;
            inner.places[at] = Place { life, hub: Some((hub, db.clone())) };
        }
        self.nodes[at].life = Some(Life { db, sessions: Vec::new() });
        let hubs = self.nodes[at].hubs.clone();
        let sessions = hubs.iter().map(|hubs| self.session(at, hubs)).collect();
        self.nodes[at].life.as_mut().expect("it lives").sessions = sessions;
        event(|| format!("{at} runs"));
    }

    fn session(&self, at: usize, hubs: &[usize]) -> SyncSession {
        let (db, names) = (self.db(at), COLLECTIONS.map(str::to_owned).to_vec());
        let part = self.nodes[at].part;
        let route = |hub: &usize| self.network.route(at, *hub, &db, part.unwrap_or(ALL), self.rights.clone());
        let routes = hubs.iter().map(route).collect();
        let session = match part {
            Some(part) => db.sync_parts_over(routes, names, &parts::shapes(part), Some(Arc::new(at.to_string()))),
            None => db.sync_parts_over(routes, names, &BTreeMap::new(), None),
        };
        session.expect("two collections, each once")
    }

    /// Those of the rows that a store keeps.
    fn part_of(&self, at: usize, rows: &Rows) -> Rows {
        let part = self.nodes[at].part.map_or(ALL, |part| part & self.rights.of(at));
        rows.iter().filter(|(_, (_, text))| parts::admits(part, text)).map(|(at, row)| (*at, row.clone())).collect()
    }

    /// Ends a process at once.
    fn kill(&mut self, at: usize) {
        self.network.kill(at);
        self.nodes[at].storage.crash();
        if let Some(life) = self.nodes[at].life.take() {
            life.sessions.iter().for_each(SyncSession::stop);
        }
    }

    /// From now on nothing fails.
    async fn heal(&mut self) {
        {
            let mut inner = self.network.inner();
            inner.blocked.clear();
            inner.slow_ms = inner.slow_ms.min(2_000);
        }
        event(|| "from here on nothing fails".to_owned());
        for at in 0..self.nodes.len() {
            if self.rights.of(at) == 0 {
                self.rights.allow(at, 1 + at as u8 % ALL);
            }
            if self.nodes[at].sick || self.nodes[at].storage.crashed() {
                self.kill(at);
            }
            self.nodes[at].storage.end_plans();
            match &self.nodes[at].life {
                None => self.start(at).await,
                Some(life) => life.sessions.iter().for_each(SyncSession::resume),
            }
        }
    }

    /// What the clock of a store tells now, no other one tells later without this being known.
    fn note_clock(&mut self, at: usize) {
        let now = START_MS + self.begun.elapsed().as_millis() as u64;
        self.latest_ms = self.latest_ms.max(now.saturating_add_signed(self.nodes[at].skew_ms.load(Ordering::Relaxed)));
    }

    /// Puts an older backup in the place of a store's disk. Its clock goes on: a store that writes at times at which it has written what it
    /// does not know of has two changes of one version.
    async fn go_back(&mut self, at: usize, backup: FaultStorage) {
        event(|| format!("{at} goes back to a backup"));
        self.kill(at);
        self.gone_back = true;
        self.network.inner().gone_back = true;
        let mut elsewhere = Rows::new();
        for other in 0..self.nodes.len() {
            self.note_clock(other);
            if self.nodes[other].life.is_none() {
                continue;
            }
            for (group, row) in self.rows(other).await.ok().flatten().unwrap_or_default() {
                let newest = elsewhere.entry(group).or_insert_with(|| row.clone());
                if *newest < row {
                    *newest = row;
                }
            }
        }
        for (group, known) in self.groups.iter_mut().enumerate() {
            known.gone_back(elsewhere.remove(&(group as i64)));
        }
        self.nodes[at].backup = Some(backup.backup());
        self.nodes[at].storage = backup;
        let now = START_MS + self.begun.elapsed().as_millis() as u64;
        let skew_ms = match self.fault {
            Some(Fault::ReusedSequence) => -200_000,
            _ => (self.latest_ms + self.coarse_ms + 1) as i64 - now as i64,
        };
        self.nodes[at].skew_ms.store(skew_ms, Ordering::Relaxed);
        self.start(at).await;
    }

    /// After stores went back to older backups: has every session compare, one after the other.
    async fn reconcile_all(&mut self) {
        let begun = tokio::time::Instant::now();
        let mut left: Vec<(usize, usize)> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            left.extend((0..node.hubs.len()).map(|session| (at, session)));
        }
        while !left.is_empty() {
            let next = self.random.below(left.len() as u64) as usize;
            let (at, index) = left[next];
            let session = self.nodes[at].life.as_ref().expect("nothing fails any more").sessions[index].clone();
            match tokio::time::timeout(Duration::from_secs(600), session.reconcile(None)).await {
                Ok(Ok(changed)) => {
                    event(|| format!("{at} has compared: {changed:?}"));
                    left.swap_remove(next);
                }
                other => {
                    event(|| format!("{at} could not compare: {other:?}, {:?}", session.status()));
                    assert!(begun.elapsed() < Duration::from_secs(2 * REST_S), "{at} cannot compare: {other:?}");
                    self.reopen_broken().await;
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
            }
            self.look();
        }
    }

    /// Waits until all hold the same, and gives it.
    async fn rest(&mut self) -> Rows {
        let begun = tokio::time::Instant::now();
        let mut wait = Duration::from_millis(200);
        loop {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(20));
            self.look();
            let mut all = Vec::new();
            for at in 0..self.nodes.len() {
                all.push(self.rows(at).await.expect("nothing fails any more"));
            }
            let live = |session: &SyncSession| {
                let status = session.status();
                status.state == SyncState::Live && status.pending == 0 && status.error.is_none()
            };
            self.reopen_broken().await;
            let at_rest = self.nodes.iter().all(|node| node.life.as_ref().unwrap().sessions.iter().all(live));
            let whole = all[0].clone().unwrap_or_default();
            let is_right = |(at, rows): (usize, &Option<Rows>)| *rows == Some(self.part_of(at, &whole));
            if at_rest && all.iter().enumerate().all(is_right) {
                return all.swap_remove(0).unwrap_or_default();
            }
            if begun.elapsed() > Duration::from_secs(REST_S) {
                let hubs: Vec<_> = self.nodes.iter().map(|node| &node.hubs).collect();
                let sessions = self.nodes.iter().map(|node| {
                    let sessions = &node.life.as_ref().unwrap().sessions;
                    sessions.iter().map(SyncSession::status).collect::<Vec<_>>()
                });
                let statuses: Vec<_> = sessions.collect();
                let stands = |at: usize| {
                    COLLECTIONS.map(|name| {
                        let collection = self.db(at).collection(name).ok()?;
                        Some((self.db(at).replica_id(), collection.seen(), collection.sync_positions()))
                    })
                };
                let seen: Vec<_> = (0..self.nodes.len()).map(stands).collect();
                let parts: Vec<_> = self.nodes.iter().map(|node| node.part).collect();
                panic!(
                    "no rest after {REST_S} s.\nhubs {hubs:?}\nparts {parts:?}\nseen {seen:?}\nrows {}\n{statuses:?}",
                    brief(&all)
                );
            }
        }
    }

    /// Does what a session's error asks for when a log could not be synced, here or at the hub.
    async fn reopen_broken(&mut self) {
        for at in 0..self.nodes.len() {
            let Some(life) = &self.nodes[at].life else { continue };
            let errors = life.sessions.iter().filter_map(|session| session.status().error);
            let broken = |error: Error| {
                ["open the store again", "could not be cut back"].iter().any(|text| error.message().contains(text))
            };
            if errors.into_iter().any(broken) {
                let hubs = self.nodes[at].hubs.concat();
                for at in hubs.into_iter().chain([at]) {
                    self.kill(at);
                    self.start(at).await;
                }
            }
        }
    }

    /// What a store holds, by group; `None` before it has the collections. Panics when a batch is there in part.
    async fn rows(&self, at: usize) -> Result<Option<Rows>, Error> {
        let fields = ["id", "text", "$version"].map(str::to_owned).to_vec();
        let request = QueryRequest { output_fields: Some(fields), ..Default::default() };
        let mut groups: BTreeMap<i64, Vec<(Version, String)>> = BTreeMap::new();
        let mut rows = Vec::new();
        for name in COLLECTIONS {
            let Ok(collection) = self.db(at).collection(name) else { return Ok(None) };
            rows.extend(collection.query(&request).await?);
        }
        for row in rows {
            let (Value::Int(id), Value::String(text), Value::String(version)) =
                (&row["id"], &row["text"], &row["$version"])
            else {
                panic!("a row of other types: {row:?}")
            };
            let text = head(text);
            groups.entry(id / GROUP_KEYS).or_default().push((version.parse().unwrap(), text));
        }
        let whole = groups.into_iter().map(|(group, rows)| {
            let same = rows.iter().all(|row| *row == rows[0]);
            assert!(same && rows.len() as i64 == GROUP_KEYS, "a batch in part at {at}: group {group}, {rows:?}");
            (group, rows[0].clone())
        });
        Ok(Some(whole.collect()))
    }
}

/// Two or three of the stores before `at`, or both that there are, in any order.
fn some_of(random: &mut Random, at: usize) -> Vec<usize> {
    let mut stores: Vec<usize> = (0..at).collect();
    let mut some = Vec::new();
    for _ in 0..(2 + random.below(2) as usize).min(at) {
        some.push(stores.swap_remove(random.below(stores.len() as u64) as usize));
    }
    some
}

/// Tells what happens when one seed is run.
fn event(text: impl FnOnce() -> String) {
    if std::env::var_os("EDDY_SIM_SEED").is_some() {
        println!("{}", text());
    }
}

/// What tells texts apart.
fn head(text: &str) -> String {
    text[..text.len().min(40)].to_owned()
}

/// Of each store how its rows differ from those of the first.
fn brief(all: &[Option<Rows>]) -> String {
    format!("{all:#?}")
}

fn batch(notes: &Collection, keys: std::ops::Range<i64>, text: &str) -> Batch {
    let rows = keys.map(|key| -> Row {
        [
            ("id".to_owned(), Value::Int(key)),
            ("text".to_owned(), Value::from(text)),
            ("embedding".to_owned(), Value::from(vec![key as f32, text.len() as f32])),
        ]
        .into()
    });
    Batch::from_rows(&notes.spec().schema, rows.collect()).unwrap()
}
