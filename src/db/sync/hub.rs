use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_channel::{mpsc, oneshot};

use super::agreement::{check_agreement, from_json, to_json};
use super::comparison::{self, Held};
use super::part::{self, WHOLE};
use super::seed::{self, HubFile, Offered};
use super::tasks::Tasks;
use super::watch::Watch;
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, Sequence};
use crate::db::access::{Limits, Rows, forbidden};
use crate::db::key::check_shared;
use crate::db::{Access, Action, Admitted, Collection, Db, Gate};
use crate::engine::{ChangeSet, Met};
use crate::platform::socket::Connection;
use crate::platform::{Environment, Task, sleep_ms};
use crate::sync::{Changes, Channel, Hub, HubAction, HubInput, HubOptions, Opened, Part, Rest};

/// A client gets this long to take in the fault that says why its connection ends.
const FAREWELL_MS: u64 = 2_000;
/// Frames that wait to be sent; a client that sends without reading is not read from beyond that.
const WAITING_FRAMES_MAX: usize = 1_024;

/// Serves the collections of a store to sync clients, over any connection. Cheap to clone.
#[derive(Clone)]
pub struct SyncHub {
    db: Db,
    options: HubOptions,
    gate: Option<Arc<dyn Gate>>,
    stopping: Arc<Watch<bool>>,
    connections: Arc<Watch<usize>>,
}

/// One connection, while it lives.
struct Counted(Arc<Watch<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.update(|count| *count -= 1);
    }
}

/// Asks a connection to rest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Resting {
    asks: mpsc::UnboundedSender<Ask>,
}

type Ask = oneshot::Sender<Option<Vec<u8>>>;

impl Resting {
    /// What a connection is served anew from, when nothing is under way on it: then it is served no longer, and was not closed. `None`
    /// when it goes on, or has ended. What the client has sent since may wait in the connection: look there.
    pub async fn ask(&self) -> Option<Vec<u8>> {
        let (answer, answered) = oneshot::channel();
        self.asks.unbounded_send(answer).ok()?;
        answered.await.ok().flatten()
    }
}

enum Event {
    /// It is asked to rest.
    Ask(mpsc::UnboundedReceiver<Ask>, Ask),
    Received(Result<Option<Vec<u8>>>),
    Sent(Result<()>),
    Done(HubInput, Option<Collection>),
    Offered(Channel, Option<(Vec<u8>, Offered)>),
    Compared(Channel, Result<(Arc<Held>, Vec<u8>)>),
    Changed(Channel, Result<Lsn>),
    Timer(u64),
    /// The gate may say something else now.
    GateChanged(u64),
    Stopping,
}

impl SyncHub {
    /// A hub over `db`.
    pub fn new(db: Db, options: HubOptions) -> Self {
        // Where it is a client too, it passes on what is pushed here.
        db.inner.shared.syncs.is_hub.store(true, std::sync::atomic::Ordering::Relaxed);
        Self { db, options, gate: None, stopping: Arc::new(Watch::new(false)), connections: Arc::new(Watch::new(0)) }
    }

    /// A hub over `db` that lets in whom `gate` admits, to do what it says and nothing else.
    pub fn with_gate(db: Db, options: HubOptions, gate: Arc<dyn Gate>) -> Self {
        Self { gate: Some(gate), ..Self::new(db, HubOptions { gated: true, ..options }) }
    }

    /// Tells all clients that the hub goes away (`Unavailable`: they come back later), ends their connections, and waits
    /// until they have ended: at most a few seconds. What is under way in the store ends first.
    pub async fn stop(&self) {
        self.stopping.update(|stopping| *stopping = true);
        let (mut count, mut version) = self.connections.get();
        while count > 0 {
            (count, version) = self.connections.after(version).await;
        }
    }

    /// A file of a flushed segment, for a plain request: what is below [`FILES_PLACE`](crate::sync::FILES_PLACE) at `path`. Whoever lacks most of
    /// a collection is offered these, and tells where in the offer they are.
    ///
    /// # Errors
    /// What the gate says of the token, `NotFound` for a file that is not there, perhaps because it was merged away, and `Forbidden` for who may not
    /// read all rows of its collection.
    pub async fn file(&self, token: Option<&str>, path: &str) -> Result<HubFile> {
        let access = match &self.gate {
            Some(gate) => gate.admit(token, self.now_ms())?.access,
            None => Access::ALL,
        };
        HubFile::find(&self.db, &access, path, self.gate.is_some()).await
    }

    /// How many connections are served.
    pub fn connections(&self) -> usize {
        self.connections.get().0
    }

    /// Serves one connection until it ends. `Ok` when the client left, otherwise why it ended; the client was told, where
    /// that was possible.
    pub async fn serve(&self, connection: Arc<dyn Connection>) -> Result<()> {
        let hub = Hub::new(self.db.replica_id(), self.options, self.now_ms());
        self.run(connection, hub, None).await.map(|_| ())
    }

    /// [`SyncHub::serve`] on a host that wants to give up its memory while its connections stay: one that is asked to rests when nothing is
    /// under way on it, and is served from what that has told when something happens; nothing is lost between, and the client does not
    /// notice. True when it rests, false when the client left.
    pub fn serve_until_rest(
        &self,
        connection: Arc<dyn Connection>,
        rested: Option<&[u8]>,
    ) -> Result<(Resting, impl Future<Output = Result<bool>> + use<>)> {
        let now_ms = self.now_ms();
        let hub = match rested {
            None => Hub::new(self.db.replica_id(), self.options, now_ms),
            Some(bytes) => {
                let rest: Rest = rmp_serde::from_slice(bytes)
                    .map_err(|error| Error::corrupt(format!("what a connection rested at: {error}")))?;
                Hub::resume(self.db.replica_id(), self.options, rest, now_ms)
            }
        };
        let (asks, asked) = mpsc::unbounded();
        let this = self.clone();
        Ok((Resting { asks }, async move { this.run(connection, hub, Some(asked)).await }))
    }

    fn now_ms(&self) -> u64 {
        self.db.inner.shared.options.environment.now_ms()
    }

    /// Tells whether it rests.
    async fn run(
        &self,
        connection: Arc<dyn Connection>,
        hub: Hub,
        asked: Option<mpsc::UnboundedReceiver<Ask>>,
    ) -> Result<bool> {
        self.connections.update(|count| *count += 1);
        let _counted = Counted(self.connections.clone());
        let environment = self.db.inner.shared.options.environment.clone();
        let serving = Serving {
            db: self.db.clone(),
            environment,
            seeded_rows_min: self.options.seeded_rows_min,
            hub,
            connection: connection.clone(),
            gate: self.gate.clone(),
            token: None,
            access: if self.gate.is_some() { Access::of(Vec::new())? } else { Access::ALL },
            collections: Vec::new(),
            wanted: BTreeMap::new(),
            told: BTreeMap::new(),
            offers: BTreeMap::new(),
            compared: BTreeMap::new(),
            tasks: Tasks::new(),
        };
        let end = serving.run(self.stopping.clone(), asked).await;
        if !matches!(end, Ok(true)) {
            within(FAREWELL_MS, async move { connection.close().await }).await;
        }
        end
    }
}

/// Waits for `task`, but not longer than `ms`.
pub(super) async fn within(ms: u64, task: impl Future<Output = ()> + crate::platform::MaybeSend + 'static) {
    let mut tasks = Tasks::new();
    tasks.push(Box::pin(task));
    tasks.push(Box::pin(sleep_ms(ms)));
    tasks.next().await;
}

struct Serving {
    db: Db,
    environment: Environment,
    seeded_rows_min: usize,
    hub: Hub,
    connection: Arc<dyn Connection>,
    gate: Option<Arc<dyn Gate>>,
    /// What the client showed last.
    token: Option<String>,
    /// What it may do.
    access: Access,
    /// By channel, once opened; without what the client may not do.
    collections: Vec<Option<Collection>>,
    /// By channel what part of it the client wants.
    wanted: BTreeMap<Channel, String>,
    /// And what it was told that it gets.
    told: BTreeMap<Channel, String>,
    /// By channel, while the client takes them in.
    offers: BTreeMap<Channel, Arc<Offered>>,
    /// By channel what is compared, while the client compares.
    compared: BTreeMap<Channel, Arc<Held>>,
    tasks: Tasks<Event>,
}

impl Serving {
    async fn run(mut self, stopping: Arc<Watch<bool>>, asked: Option<mpsc::UnboundedReceiver<Ask>>) -> Result<bool> {
        let mut waiting = VecDeque::new();
        let (mut receiving, mut sending) = (false, false);
        let mut timer_ms = None;
        let mut end = None;
        self.tasks.push(Box::pin(async move {
            let mut version = 0;
            loop {
                let (stop, now) = stopping.after(version).await;
                if stop {
                    return Event::Stopping;
                }
                version = now;
            }
        }));
        if let Some(gate) = &self.gate {
            self.tasks.push(gate_changed(gate, 0));
        }
        if let Some(asked) = asked {
            self.tasks.push(next_ask(asked));
        }
        loop {
            let now = self.environment.now_ms();
            while let Some(action) = self.hub.poll(now) {
                match action {
                    HubAction::Admit { token } => {
                        self.token = token;
                        self.admit(now);
                    }
                    HubAction::Send(frame) => waiting.push_back(frame),
                    HubAction::Close(error) => {
                        end = Some(error);
                        self.tasks.push(timer(&self.environment, now + FAREWELL_MS));
                    }
                    action => {
                        let task = self.perform(action);
                        self.tasks.push(task);
                    }
                }
            }
            if !sending && let Some(frame) = waiting.pop_front() {
                sending = true;
                let connection = self.connection.clone();
                self.tasks.push(Box::pin(async move { Event::Sent(connection.send(frame).await) }));
            }
            if !sending && let Some(error) = end {
                return Err(error);
            }
            if !receiving && end.is_none() && self.hub.wants_frame() && waiting.len() < WAITING_FRAMES_MAX {
                receiving = true;
                let connection = self.connection.clone();
                self.tasks.push(Box::pin(async move { Event::Received(connection.receive().await) }));
            }
            let deadline_ms = self.hub.deadline_ms();
            if timer_ms.is_none_or(|timer_ms| deadline_ms < timer_ms) {
                timer_ms = Some(deadline_ms);
                self.tasks.push(timer(&self.environment, deadline_ms));
            }
            match self.tasks.next().await {
                Event::Received(Ok(Some(frame))) => {
                    receiving = false;
                    self.hub.receive(HubInput::Frame(frame), self.environment.now_ms());
                }
                Event::Received(Ok(None)) => return Ok(false),
                // A connection that broke cannot be told; one that carries nonsense can.
                Event::Received(Err(error)) if error.kind() == ErrorKind::Unavailable => return Err(error),
                Event::Received(Err(error)) => self.hub.close(error),
                Event::Ask(asked, answer) => {
                    let is_quiet = !sending && waiting.is_empty() && end.is_none();
                    let rest = is_quiet.then(|| self.hub.rest()).flatten();
                    let rests = rest.is_some();
                    let bytes = rest.map(|rest| rmp_serde::to_vec(&rest).expect("numbers and text can be encoded"));
                    // Whoever has asked and does not wait has nothing to go on from: then it goes on here.
                    if answer.send(bytes).is_ok() && rests {
                        return Ok(true);
                    }
                    self.tasks.push(next_ask(asked));
                }
                Event::Sent(Ok(())) => sending = false,
                Event::Sent(Err(error)) => return Err(end.unwrap_or(error)),
                Event::Done(input, opened) => {
                    if let (HubInput::Opened(channel, Ok(answer)), Some(collection)) = (&input, opened) {
                        let told = answer.part.as_ref().map_or(WHOLE, |part| part.part.as_str());
                        self.told.insert(*channel, told.to_owned());
                        // What it may do may be something else since it was asked for.
                        let (channel, collection) = (*channel, collection.limited_to(&self.access));
                        let index = channel.0 as usize;
                        self.collections.resize(self.collections.len().max(index + 1), None);
                        self.collections[index] = Some(collection.clone());
                        self.tasks.push(watch(channel, collection, Lsn(0)));
                    }
                    self.hub.receive(input, self.environment.now_ms());
                    self.check_parts();
                }
                Event::Offered(channel, offered) => {
                    let segments = offered.map(|(segments, offered)| {
                        self.offers.insert(channel, Arc::new(offered));
                        segments
                    });
                    self.hub.receive(HubInput::Offered(channel, Ok(segments)), self.environment.now_ms());
                }
                Event::Compared(channel, compared) => {
                    let said = compared.map(|(held, said)| {
                        let secret = held.secret;
                        self.compared.insert(channel, held);
                        (secret, said)
                    });
                    self.hub.receive(HubInput::Compared(channel, said), self.environment.now_ms());
                }
                Event::Changed(channel, Ok(lsn)) => {
                    let collection = self.collection(channel);
                    self.tasks.push(watch(channel, collection, lsn));
                    self.hub.receive(HubInput::Changed(channel), self.environment.now_ms());
                }
                // The next read tells the client that the collection is gone.
                Event::Changed(channel, Err(_)) => {
                    self.hub.receive(HubInput::Changed(channel), self.environment.now_ms())
                }
                Event::Timer(at_ms) => {
                    timer_ms = timer_ms.filter(|timer_ms| *timer_ms != at_ms);
                    if let Some(end) = end {
                        return Err(end);
                    }
                }
                Event::GateChanged(version) => {
                    if let Some(gate) = &self.gate {
                        self.tasks.push(gate_changed(gate, version));
                    }
                    // Who has shown nothing yet is asked when the time comes.
                    if self.hub.client().is_some() {
                        self.admit(self.environment.now_ms());
                    }
                }
                Event::Stopping => {
                    self.hub.close(Error::new(ErrorKind::Unavailable, "the hub is shutting down; try again later"));
                }
            }
        }
    }

    /// Asks the gate what the client may do, and lets it do that from now on.
    fn admit(&mut self, now: u64) {
        let Some(gate) = &self.gate else { return };
        let admitted = gate.admit(self.token.as_deref(), now).map(|Admitted { access, expires_ms }| {
            self.access = access;
            expires_ms
        });
        for collection in self.collections.iter_mut().flatten() {
            *collection = collection.limited_to(&self.access);
        }
        self.hub.receive(HubInput::Admitted(admitted), now);
        self.check_parts();
    }

    /// The part of a collection that the client gets now.
    fn part(&self, channel: Channel) -> Result<String> {
        part::granted(self.wanted.get(&channel).map(String::as_str), &self.collection(channel).limits.read)
    }

    /// A client that may read something else than before has to know that first: it comes again.
    fn check_parts(&mut self) {
        if self.told.iter().any(|(channel, told)| self.part(*channel).is_ok_and(|part| part != *told)) {
            self.hub.close(Error::new(ErrorKind::Unavailable, "what may be read has changed: come again"));
        }
    }

    fn collection(&self, channel: Channel) -> Collection {
        self.collections[channel.0 as usize].clone().expect("only an opened collection is asked for")
    }

    fn perform(&mut self, action: HubAction) -> Task<'static, Event> {
        match action {
            HubAction::Open { channel, name, spec, part, create, client } => {
                let (db, access) = (self.db.clone(), self.access.clone());
                self.wanted.extend(part.clone().map(|part| (channel, part)));
                Box::pin(async move {
                    let opened = open(&db, &access, &name, spec.as_deref(), part.as_deref(), create).await;
                    let (answer, collection) = match opened {
                        Ok((collection, spec, part)) => {
                            let acknowledged = collection.seen().get(&client).copied().unwrap_or_default();
                            (Ok(Opened { acknowledged, incarnation: collection.id().0, spec, part }), Some(collection))
                        }
                        Err(error) => (Err(error), None),
                    };
                    Event::Done(HubInput::Opened(channel, answer), collection)
                })
            }
            HubAction::Read { channel, after, known, given, bytes_max, all_seen, reshape } => {
                let (collection, environment) = (self.collection(channel), self.environment.clone());
                self.offers.remove(&channel);
                let (part, client) = (self.part(channel), self.hub.client().unwrap_or_default());
                Box::pin(async move {
                    let answer = async {
                        let part = part?;
                        if part == WHOLE && reshape.is_none() {
                            return read(&collection, after, &known, &given, bytes_max, all_seen).await;
                        }
                        let asked = part::Asked { part, reshape, client };
                        part::read(&collection, &environment, &asked, after, &known, bytes_max).await
                    };
                    let answer = answer.await;
                    Event::Done(HubInput::Read(channel, answer), None)
                })
            }
            HubAction::Apply { channel, changes, client, origin, after, through, pulled, known } => {
                let (db, collection) = (self.db.clone(), self.collection(channel));
                let relays = origin == client || self.access.allows(collection.name(), Action::Admin);
                Box::pin(async move {
                    let answer = if relays {
                        let met = Met::Pushed { pulled, known };
                        apply(&db, &collection, &changes, origin, (after, through), met).await
                    } else {
                        let name = collection.name();
                        Err(forbidden(format!("collection {name:?}: to relay what others wrote, \"admin\" is needed")))
                    };
                    Event::Done(HubInput::Applied(channel, answer), None)
                })
            }
            HubAction::Offer { channel, after, known } => {
                let (db, collection) = (self.db.clone(), self.collection(channel));
                let rows_min = self.seeded_rows_min;
                Box::pin(async move {
                    // The changes go one by one then.
                    let offered =
                        seed::offer(&db, &collection, after, &known, rows_min).await.unwrap_or_else(|error| {
                            tracing::warn!(%error, "no segments could be offered");
                            None
                        });
                    Event::Offered(channel, offered)
                })
            }
            HubAction::ReadPiece { channel, file, offset, len } => {
                let offered = self.offers.get(&channel).cloned();
                Box::pin(async move {
                    let piece = match offered {
                        Some(offered) => offered.read(file, offset, len).await,
                        None => Err(Error::internal("a piece of what was not offered")),
                    };
                    Event::Done(HubInput::PieceRead(channel, piece), None)
                })
            }
            HubAction::Compare { channel, ranges } => {
                let collection = self.collection(channel);
                let held = self.compared.remove(&channel).filter(|_| ranges.is_some());
                if ranges.as_ref().is_some_and(Vec::is_empty) {
                    // The client knows all that it wants to know.
                    let done = held.map_or([0; 2], |held| held.secret);
                    return Box::pin(
                        async move { Event::Done(HubInput::Compared(channel, Ok((done, Vec::new()))), None) },
                    );
                }
                Box::pin(async move {
                    let compared = async {
                        let Limits { read, .. } = &collection.limits;
                        if !read.is_all() {
                            let name = collection.name();
                            let message = "who may read a part of the rows only cannot compare them";
                            return Err(forbidden(format!("collection {name:?}: {message}")));
                        }
                        let held = match (held, &ranges) {
                            (Some(held), _) => held,
                            (None, None) => comparison::held(&collection).await?,
                            (None, Some(_)) => return Err(Error::invalid("ranges of a comparison that was not begun")),
                        };
                        let said = held.answer(ranges.as_deref())?;
                        Ok((held, said))
                    };
                    Event::Compared(channel, compared.await)
                })
            }
            HubAction::ReadItems { channel, secret, items, bytes_max } => {
                let collection = self.collection(channel);
                Box::pin(async move {
                    let read = match collection.limits.read.is_all() {
                        true => comparison::read(&collection, secret, &items, bytes_max).await,
                        false => {
                            Err(forbidden(format!("collection {:?}: not all of it may be read", collection.name())))
                        }
                    };
                    Event::Done(HubInput::ItemsRead(channel, read), None)
                })
            }
            HubAction::TakeIn { channel, changes, client } => {
                let (db, access, collection) = (self.db.clone(), self.access.clone(), self.collection(channel));
                Box::pin(async move {
                    let taken = comparison::take_in_given(&db, &access, &collection, client, &changes).await;
                    Event::Done(HubInput::TakenIn(channel, taken), None)
                })
            }
            HubAction::Admit { .. } | HubAction::Send(_) | HubAction::Close(_) => {
                unreachable!("the loop above does these")
            }
        }
    }
}

fn next_ask(mut asked: mpsc::UnboundedReceiver<Ask>) -> Task<'static, Event> {
    Box::pin(async move {
        match asked.recv().await {
            Ok(ask) => Event::Ask(asked, ask),
            // Nobody will ask.
            Err(_) => std::future::pending().await,
        }
    })
}

fn gate_changed(gate: &Arc<dyn Gate>, version: u64) -> Task<'static, Event> {
    let changed = gate.changed(version);
    Box::pin(async move { Event::GateChanged(changed.await) })
}

fn timer(environment: &Environment, at_ms: u64) -> Task<'static, Event> {
    let environment = environment.clone();
    Box::pin(async move {
        sleep_ms(at_ms.saturating_sub(environment.now_ms())).await;
        Event::Timer(at_ms)
    })
}

fn watch(channel: Channel, collection: Collection, lsn: Lsn) -> Task<'static, Event> {
    Box::pin(async move { Event::Changed(channel, collection.changed_after(lsn).await) })
}

/// The collection, and its specification when the client has none.
async fn open(
    db: &Db,
    access: &Access,
    name: &str,
    spec: Option<&str>,
    part: Option<&str>,
    create: bool,
) -> Result<(Collection, Option<String>, Option<Part>)> {
    let theirs = spec.map(from_json).transpose()?;
    let collection = match (db.collection(name), &theirs) {
        (Ok(collection), _) => collection,
        (Err(error), Some(spec)) if error.kind() == ErrorKind::NotFound && create => {
            access.check(name, Action::Admin)?;
            match db.create_collection(name, spec.clone()).await {
                // Another client brought it at the same moment.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => db.collection(name)?,
                created => created?,
            }
        }
        (Err(error), _) if error.kind() == ErrorKind::NotFound => {
            access.check(name, Action::Read)?;
            return Err(Error::not_found(format!("the hub has no collection {name:?}")));
        }
        (Err(error), _) => return Err(error),
    };
    if !collection.is_whole() {
        return Err(Error::invalid(format!("the hub keeps only a part of collection {name:?} itself")));
    }
    let nothing = [Action::Read, Action::Write].iter().all(|action| !access.allows(name, *action));
    let collection = match nothing && theirs.is_some() {
        // Whoever has rows of it is told so first, and lets go of them.
        true => collection.limited_to(access),
        false => collection.limited(access)?,
    };
    let part = part::offered(&collection, part)?;
    check_shared(name, &collection.spec().schema, db.replica_number())?;
    match theirs {
        Some(theirs) => {
            check_agreement(name, &collection.spec().schema, &theirs.schema)?;
            Ok((collection, None, part))
        }
        None => {
            let spec = to_json(collection.spec())?;
            Ok((collection, Some(spec), part))
        }
    }
}

async fn read(
    collection: &Collection,
    after: Lsn,
    known: &BTreeMap<ReplicaId, Sequence>,
    given: &[Lsn],
    bytes_max: usize,
    all_seen: bool,
) -> Result<Changes> {
    let (changes, lsn, newest, seen) =
        collection.changes_and_seen_after(after, known, given, bytes_max, all_seen).await?;
    let changes = if changes.is_empty() { Vec::new() } else { changes.encode() };
    Ok(Changes { changes, lsn, newest, seen, left: None })
}

async fn apply(
    db: &Db,
    collection: &Collection,
    bytes: &[u8],
    origin: ReplicaId,
    (after, through): (Sequence, Sequence),
    met: Met,
) -> Result<()> {
    let seen = collection.inner.state.read().expect("no panic while held").seen(origin);
    if after > seen {
        // What lies between would count as known, and never come.
        let message = format!("changes of replica {origin} after {after}; up to {seen} they are here");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let changes = ChangeSet::decode(&collection.spec().schema, bytes)?;
    for version in changes.versions() {
        // Who speaks for one must not say anything in the name of another: it would hide that one's own changes.
        if version.origin != origin || version.sequence <= after || version.sequence > through {
            return Err(Error::invalid(format!(
                "a change of replica {} with sequence {}; replica {origin}, {after} < sequence <= {through} expected",
                version.origin, version.sequence
            )));
        }
    }
    if matches!(collection.limits, Limits { read: Rows::None, write: Rows::None }) {
        // No fault of the change: the client keeps it for when it may come again, and the next read ends the channel.
        return Err(Error::new(ErrorKind::Unauthorized, "the rights to this collection were taken away"));
    }
    // Before anything is made for them.
    collection.check_changes(&changes).await?;
    db.admit_partitions(collection, &changes).await?;
    // Of what lies between, nothing lives: it is not to be asked for again.
    collection.apply_limited(changes, Some(met), vec![(origin, through)]).await
}
