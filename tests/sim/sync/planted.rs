//! Replicas that break one promise each, as a bug in a session or a hub would. A simulation that does not notice them proves nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use eddydb::base::{Lsn, ReplicaId, Result, Sequence, Version};
use eddydb::db::{Db, QueryRequest, Target};
use eddydb::engine::{ChangeSet, CollectionManifest};
use eddydb::model::{Key, Value};
use eddydb::platform::Task;
use eddydb::platform::socket::Connection;
use eddydb::sync::{Channel, Message, Pull, Push};

use super::COLLECTIONS;
use super::network::Network;
use super::parts::{self, ALL, Rights};

/// The promise that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Stores acknowledge what they have not synced.
    SkippedSync,
    /// A position moves, now and then, although the rows before it were not applied.
    PositionAhead,
    /// One pull of many does not arrive, and the next one does.
    LostPull,
    /// Deletes do not travel.
    LostDeletes,
    /// Segments come without their deletes.
    SeedWithoutDeletes,
    /// The end of a download moves the position past what was written to the hub's log meanwhile.
    SeedAhead,
    /// A batch is applied in two steps.
    HalfBatch,
    /// The last row of what is pushed is left out.
    HalfPush,
    /// A client takes all of its changes for known at the hub when it connects again.
    ForgottenOutbox,
    /// A hub sends what the client has told that it has, by origin and sequence.
    IgnoredKnown,
    /// A client tells that it has what it has not.
    KnownAhead,
    /// A client takes for its position at one hub that at another.
    OtherPosition,
    /// Of two writes at the same time the one that came first wins, whoever wrote it.
    WithoutOrigin,
    /// Pieces of files are wrong.
    WrongPieces,
    /// A hub tells with each pull that the client has all that the hub has.
    SeenAhead,
    /// A client is not told of rows that leave its part.
    ForgottenEviction,
    /// A client that gets another part takes that for what it had before.
    ForgottenPart,
    /// Or takes what it lacks of it for here.
    ReshapeAhead,
    /// A client deletes rows that leave its part, and the deletes travel.
    EvictionUpward,
    /// A client asks for all rows.
    WiderPart,
    /// Of what a comparison finds, some never comes.
    SkippedRange,
    /// Of what a comparison finds, some is never given.
    SkippedGive,
    /// What came late is not sent to who takes it for known.
    LateKnown,
    /// A store that goes back to an older backup writes anew under the versions that it has used since.
    ReusedSequence,
}

pub const FAULTS: [Fault; 24] = [
    Fault::SkippedSync,
    Fault::PositionAhead,
    Fault::LostPull,
    Fault::LostDeletes,
    Fault::SeedWithoutDeletes,
    Fault::SeedAhead,
    Fault::HalfBatch,
    Fault::HalfPush,
    Fault::ForgottenOutbox,
    Fault::IgnoredKnown,
    Fault::KnownAhead,
    Fault::OtherPosition,
    Fault::WithoutOrigin,
    Fault::WrongPieces,
    Fault::SeenAhead,
    Fault::ForgottenEviction,
    Fault::ForgottenPart,
    Fault::ReshapeAhead,
    Fault::EvictionUpward,
    Fault::WiderPart,
    Fault::SkippedRange,
    Fault::SkippedGive,
    Fault::LateKnown,
    Fault::ReusedSequence,
];

/// The client's end of a connection, with that fault, and an eye on what comes.
pub struct Spoiled {
    connection: Arc<dyn Connection>,
    db: Db,
    hub: Db,
    network: Network,
    fault: Option<Fault>,
    /// What the client asks for, who it is, and what it may read.
    part: (u8, usize, Arc<Rights>),
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queued: VecDeque<Vec<u8>>,
    /// By channel, what the client said that it has.
    known: BTreeMap<Channel, BTreeMap<ReplicaId, Sequence>>,
    /// By channel and number in the offer that the client sees, that in the offer of the hub.
    files: BTreeMap<Channel, Vec<u32>>,
    /// How often its rights had changed when the connection began.
    changes: usize,
}

impl Spoiled {
    pub fn new(
        connection: Arc<dyn Connection>,
        db: Db,
        hub: Db,
        network: Network,
        fault: Option<Fault>,
        part: (u8, usize, Arc<Rights>),
    ) -> Self {
        let changes = part.2.changes(part.1);
        Self { connection, db, hub, network, fault, part, state: Mutex::new(State { changes, ..State::default() }) }
    }

    fn strikes(&self, one_in: u64) -> bool {
        self.network.inner().random.one_in(one_in)
    }

    fn changes(&self, bytes: &[u8]) -> Option<ChangeSet> {
        let collection = self.db.collection("notes").ok()?;
        (!bytes.is_empty()).then(|| ChangeSet::decode(&collection.spec().schema, bytes).unwrap())
    }

    fn spoil_out(&self, message: &mut Message) {
        let fault = self.fault;
        match message {
            Message::Start(start) => {
                self.state.lock().unwrap().known.insert(start.channel, start.known.clone());
                match fault {
                    Some(Fault::IgnoredKnown) => start.known.clear(),
                    Some(Fault::OtherPosition) => {
                        if let Ok(notes) = self.db.collection(name(start.channel)) {
                            let positions = notes.sync_positions();
                            let pulled = positions.values().map(|position| position.pulled).max();
                            start.pulled = pulled.unwrap_or_default();
                        }
                    }
                    Some(Fault::KnownAhead) => {
                        if let Ok(notes) = self.hub.collection(name(start.channel)) {
                            start.known.extend(notes.seen());
                        }
                    }
                    _ => {}
                }
                match (fault, &mut start.reshape) {
                    (Some(Fault::ForgottenPart), Some(reshape)) => reshape.old = "[]".to_owned(),
                    (Some(Fault::ReshapeAhead), Some(reshape)) => reshape.after = reshape.through,
                    _ => {}
                }
            }
            Message::Hello(hello) if fault == Some(Fault::WiderPart) => {
                hello.collections.iter_mut().for_each(|collection| collection.part = None);
            }
            Message::Push(Push { changes: bytes, .. }) => {
                if let Some(changes) = self.changes(bytes) {
                    let len = changes.puts.len();
                    if fault == Some(Fault::HalfPush) && len > 1 {
                        let rows: Vec<u32> = (0..len as u32 - 1).collect();
                        *bytes = keep(changes, &rows).encode();
                    } else if fault == Some(Fault::LostDeletes) {
                        *bytes = ChangeSet { deletes: Vec::new(), ..changes }.encode();
                    }
                }
            }
            Message::Give(give) if fault == Some(Fault::SkippedGive) => {
                let schema = &self.db.collection("notes").expect("both have one schema").spec().schema.clone();
                give.changes = ChangeSet::empty(schema).encode();
            }
            Message::Fetch(fetch) if fault == Some(Fault::SeedWithoutDeletes) => {
                fetch.file = self.state.lock().unwrap().files[&fetch.channel][fetch.file as usize];
            }
            _ => {}
        }
    }

    async fn spoil_in(&self, message: Message) -> Vec<Message> {
        match (self.fault, message) {
            (fault, Message::Pull(pull)) => self.spoil_pull(fault, pull).await,
            (Some(Fault::ForgottenOutbox), Message::Welcome(mut welcome)) => {
                for (name, answer) in COLLECTIONS.iter().zip(&mut welcome.collections) {
                    if let Ok(collection) = self.db.collection(name)
                        // Only one that has met this hub forgets.
                        && !collection.sync_positions().is_empty()
                    {
                        let own = collection.seen().get(&self.db.replica_id()).copied().unwrap_or_default();
                        answer.acknowledged = own;
                    }
                }
                vec![Message::Welcome(welcome)]
            }
            (Some(Fault::SeedWithoutDeletes), Message::Offer(mut offer)) => {
                let mut manifest: CollectionManifest = rmp_serde::from_slice(&offer.segments).unwrap();
                let mut files = Vec::new();
                let mut number = 0;
                for segment in &mut manifest.segments {
                    segment.files.retain(|file| {
                        let kept = file.kind != "deletes";
                        if kept {
                            files.push(number);
                        }
                        number += 1;
                        kept
                    });
                }
                offer.segments = rmp_serde::to_vec_named(&manifest).unwrap();
                self.state.lock().unwrap().files.insert(offer.channel, files);
                vec![Message::Offer(offer)]
            }
            (Some(Fault::SeedWithoutDeletes), Message::Piece(mut piece)) => {
                let files = self.state.lock().unwrap().files[&piece.channel].clone();
                piece.file = files.iter().position(|file| *file == piece.file).unwrap() as u32;
                vec![Message::Piece(piece)]
            }
            (Some(Fault::SeedAhead), Message::Offer(mut offer)) => {
                let mut manifest: CollectionManifest = rmp_serde::from_slice(&offer.segments).unwrap();
                let notes = self.hub.collection(name(offer.channel)).unwrap();
                if let Ok((_, newest)) = notes.changes_after(Lsn(u64::MAX), &BTreeMap::new(), 1).await {
                    manifest.progress.lsn = newest;
                }
                offer.segments = rmp_serde::to_vec_named(&manifest).unwrap();
                vec![Message::Offer(offer)]
            }
            (Some(Fault::SkippedRange), Message::Found(mut found)) => {
                found.changes.clear();
                vec![Message::Found(found)]
            }
            (Some(Fault::WrongPieces), Message::Piece(mut piece)) => {
                if let Some(byte) = piece.bytes.last_mut() {
                    *byte ^= 1;
                }
                vec![Message::Piece(piece)]
            }
            (_, message) => vec![message],
        }
    }

    async fn spoil_pull(&self, fault: Option<Fault>, mut pull: Pull) -> Vec<Message> {
        if let Some(part) = &mut pull.part
            && !part.left.is_empty()
        {
            match fault {
                Some(Fault::ForgottenEviction) => part.left.clear(),
                Some(Fault::EvictionUpward) => self.delete_outside(pull.channel).await,
                _ => {}
            }
        }
        let Some(changes) = self.changes(&pull.changes) else { return vec![Message::Pull(pull)] };
        self.look_at(&changes);
        match fault {
            Some(Fault::PositionAhead) if self.strikes(3) => pull.changes = Vec::new(),
            Some(Fault::LateKnown) => {
                let known = self.state.lock().unwrap().known.get(&pull.channel).cloned().unwrap_or_default();
                let is_new =
                    |version: &Version| known.get(&version.origin).is_none_or(|sequence| version.sequence > *sequence);
                let rows = (0..changes.puts.len() as u32).filter(|row| is_new(&changes.put_versions[*row as usize]));
                let mut kept = keep(changes.clone(), &rows.collect::<Vec<_>>());
                kept.deletes.retain(|(_, version)| is_new(version));
                pull.changes = kept.encode();
            }
            Some(Fault::LostPull) if self.strikes(3) => return Vec::new(),
            Some(Fault::SeenAhead) => pull.seen = self.hub.collection(name(pull.channel)).unwrap().seen(),
            Some(Fault::LostDeletes) => pull.changes = ChangeSet { deletes: Vec::new(), ..changes.clone() }.encode(),
            Some(Fault::HalfBatch) if changes.puts.len() > 1 => {
                let first = keep(ChangeSet { deletes: Vec::new(), ..changes.clone() }, &[0]);
                self.note(pull.channel, &changes);
                // The hub would not know what the answer to it means, so it is swallowed with that to the whole.
                let notes = self.db.collection(name(pull.channel)).unwrap();
                let _ = notes.apply(first, None).await;
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                return vec![Message::Pull(pull)];
            }
            Some(Fault::WithoutOrigin) => {
                let notes = self.db.collection(name(pull.channel)).unwrap();
                let keys = changes.puts.keys();
                let found = notes.get(&keys, Some(&["$version".to_owned(), "id".to_owned()])).await.unwrap_or_default();
                let tie = |key: &eddydb::model::Key, version: &Version| {
                    found.iter().any(|row| {
                        let Value::String(text) = &row["$version"] else { return false };
                        let here: Version = text.parse().unwrap();
                        eddydb::model::Key::Int(if let Value::Int(id) = row["id"] { id } else { -1 }) == *key
                            && here.timestamp == version.timestamp
                            && here != *version
                    })
                };
                let rows: Vec<u32> = (0..keys.len() as u32)
                    .filter(|&row| !tie(&keys[row as usize], &changes.put_versions[row as usize]))
                    .collect();
                if rows.len() < keys.len() {
                    pull.changes = keep(changes.clone(), &rows).encode();
                }
            }
            _ => {}
        }
        // What another part has more comes whoever wrote it.
        if pull.part.as_ref().is_none_or(|part| part.reshaped.is_none()) {
            self.note(pull.channel, &changes);
        }
        vec![Message::Pull(pull)]
    }

    /// Deletes rows of which the hub has that they are out of the part.
    async fn delete_outside(&self, channel: Channel) {
        let notes = self.db.collection(name(channel)).unwrap();
        let part = self.part.0 & self.part.2.of(self.part.1);
        let rows = notes.query(&QueryRequest::default()).await.unwrap_or_default();
        let keys = rows.iter().filter_map(|row| match (&row["id"], &row["text"]) {
            (Value::Int(id), Value::String(text)) if !parts::admits(part, text) => Some(Key::Int(*id)),
            _ => None,
        });
        let _ = notes.delete(Target::Keys(keys.collect())).await;
    }

    /// Only rows come that the client wants, and might read when they were sent.
    fn look_at(&self, changes: &ChangeSet) {
        let (part, at, rights) = &self.part;
        let since = self.state.lock().unwrap().changes;
        let allowed = part & rights.since(*at, since).iter().fold(0, |all, one| all | one);
        if allowed == ALL {
            return;
        }
        for row in 0..changes.puts.len() {
            let row = changes.puts.row(row, None);
            if !matches!(&row["text"], Value::String(text) if parts::admits(allowed, text)) {
                self.network.inner().wrong.push(format!("{at} may have {allowed:03b}, and got {row:?}"));
            }
        }
    }

    /// No change comes that the client has told that it has.
    fn note(&self, channel: Channel, changes: &ChangeSet) {
        let known = self.state.lock().unwrap().known.get(&channel).cloned().unwrap_or_default();
        let echo = changes
            .versions()
            .find(|version| known.get(&version.origin).is_some_and(|known| version.sequence <= *known));
        let mut inner = self.network.inner();
        if let Some(version) = echo
            && !inner.gone_back
        {
            inner.wrong.push(format!("{version} was sent to who had told that it has it: {known:?}"));
        }
    }
}

/// The collection of a channel.
fn name(channel: Channel) -> &'static str {
    COLLECTIONS[channel.0 as usize]
}

/// Those rows, and all deletes.
fn keep(changes: ChangeSet, rows: &[u32]) -> ChangeSet {
    let put_versions = rows.iter().map(|&row| changes.put_versions[row as usize]).collect();
    ChangeSet { puts: changes.puts.take(rows), put_versions, deletes: changes.deletes }
}

impl Connection for Spoiled {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(async move {
            let mut decoded = Message::decode(&message).unwrap();
            self.spoil_out(&mut decoded);
            self.connection.send(decoded.encode().unwrap()).await
        })
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            loop {
                if let Some(frame) = self.state.lock().unwrap().queued.pop_front() {
                    return Ok(Some(frame));
                }
                let Some(frame) = self.connection.receive().await? else { return Ok(None) };
                let message = Message::decode(&frame).unwrap();
                let spoiled = self.spoil_in(message).await;
                let frames = spoiled.iter().map(|message| message.encode().unwrap());
                self.state.lock().unwrap().queued.extend(frames);
            }
        })
    }

    fn close(&self) -> Task<'_, ()> {
        self.connection.close()
    }
}
