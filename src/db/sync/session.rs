use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use futures_channel::oneshot;

use super::agreement::{from_json, to_json};
use super::comparison;
use super::hub::within;
use super::part::{self, Shape, WHOLE};
use super::seed::{self, Seeding};
use super::tasks::Tasks;
use super::told;
use super::watch::Watch;
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, Sequence, sort_by};
use crate::db::key::check_shared;
use crate::db::{Collection, Db};
use crate::engine::{ChangeSet, CollectionSpec, Refused, SyncPosition};
use crate::platform::socket::{Connect, Connection, WebSocketUrl};
use crate::platform::{Environment, MaybeSend, MaybeSync, Task, run_to_end, sleep_ms, spawn};
use crate::sync::{
    COMPARES, Channel, Client, ClientAction, ClientCollection, ClientInput, Download, Failover, OwnChanges, Part,
    Reconciled, Refusal, Relay, Reshape, Start,
};

/// A connection that lived so long did its work: the next failure starts with short waits again.
const HEALTHY_AFTER_MS: u64 = 5_000;
/// A hub that does not answer for so long is taken for absent where there are others. Browsers wait for minutes.
const DIAL_WITHIN_MS: u64 = 15_000;
/// A hub that is looked at must say welcome within this.
const LOOK_WITHIN_MS: u64 = 20_000;
/// A connection with a collection that failed is made anew after so long: the cause may be gone.
const FAILED_AGAIN_MS: u64 = 60_000;
/// While nothing happens, the time of the last agreement is told once in this.
const SYNCED_TOLD_MS: u64 = 60_000;
/// Frames that wait to be sent; a hub that sends without reading is not read from beyond that.
const WAITING_FRAMES_MAX: usize = 1_024;
/// A connection gets this long to close.
const FAREWELL_MS: u64 = 1_000;

/// Rows that leave a part go from here, also those that were written here and that one hub has got: another one, which has not, would never
/// hear of them, for it is pushed what came later.
const ONE_HUB_A_PART: &str = "what is kept of a collection in part is synced with one hub";

/// What to sync, and with whom.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SyncOptions {
    /// The hub: `ws://host/sync` or `wss://host/sync`; `http` and `https` stand for them. Of several, in the order of preference, the first
    /// serves that is there: see [failover](crate::sync#several-hubs).
    pub urls: Vec<String>,
    /// Names of collections. One that only the hub has is created here (also when it was dropped here meanwhile); one that
    /// only this side has, there.
    pub collections: Vec<String>,
    /// Of some of them, which part is kept here; of the others all rows that may be read. Another part than before moves only the
    /// difference. Rows that are written here and are not in the part go once the hub has them.
    pub shapes: BTreeMap<String, Shape>,
}

/// Where a session's tokens come from: asked before each connection, and when the last one ends soon.
pub trait TokenSource: MaybeSend + MaybeSync {
    /// A token that is valid now.
    ///
    /// # Errors
    /// Whatever keeps it from getting one: the session says so, and asks again later.
    fn token(&self) -> Task<'static, Result<String>>;
}

/// Always the same one.
impl TokenSource for String {
    fn token(&self) -> Task<'static, Result<String>> {
        let token = self.clone();
        Box::pin(async move { Ok(token) })
    }
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncState {
    /// Not connected: paused, or waiting to try again.
    Offline,
    /// Trying.
    Connecting,
    /// Connected: changes travel both ways as they are made.
    Live,
    /// Over: stopped, or the store was closed.
    Stopped,
}

impl SyncState {
    /// The stable name that JavaScript carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Stopped => "stopped",
        }
    }
}

/// How a session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncStatus {
    /// What it is doing.
    pub state: SyncState,
    /// The hub that serves, while it is live; as it was given. `None` also for one that has no URL.
    pub url: Option<String>,
    /// Rows written or deleted here that the hub does not have yet.
    pub pending: usize,
    /// What is wrong: the connection, a collection (its name is in the message), or the last change that the hub refused.
    /// `None` again once it is right; a refusal stays.
    pub error: Option<Error>,
    /// When both sides last had everything, in milliseconds since 1970.
    pub last_synced_ms: Option<u64>,
    /// How far the first download is, of all collections together; `None` when there is none.
    pub download: Option<Download>,
    /// Own changes that the hub refused and that were set aside, oldest first, at most 64 of a collection. They stay in the
    /// store, and are told after a restart too, until their rows are written anew.
    pub refusals: Vec<Refusal>,
}

/// A running sync of some collections with a hub. Cheap to clone; it goes on until [`SyncSession::stop`], or until the
/// store is closed, whether a handle is left or not.
#[derive(Clone)]
pub struct SyncSession {
    shared: Arc<Shared>,
}

struct Shared {
    names: Vec<String>,
    status: Watch<SyncStatus>,
    command: Watch<Command>,
    /// Who waits for a comparison of both sides, by the mark that each was given: the last one's.
    asked: Watch<u64>,
    waiting: Mutex<Vec<Waiting>>,
}

/// Somebody who waits for a comparison.
struct Waiting {
    channel: Channel,
    mark: u64,
    /// What connections that broke have changed already.
    done: Reconciled,
    answer: oneshot::Sender<Result<Reconciled>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Run,
    Pause,
    Stop,
}

impl Db {
    /// Syncs collections with a hub, or the first of several that is there, over WebSocket, from now on, in the background (natively: of the
    /// tokio runtime that this is called in).
    ///
    /// ```no_run
    /// # async fn run() -> eddydb::base::Result<()> {
    /// use std::sync::Arc;
    ///
    /// use eddydb::db::{Db, Options, SyncOptions};
    /// use eddydb::storage::MemoryStorage;
    ///
    /// let db = Db::open(Arc::new(MemoryStorage::new()), Options::default()).await?;
    /// let urls = vec!["ws://localhost:7700/sync".to_owned()];
    /// let collections = vec!["notes".to_owned()];
    /// let session = db.sync(SyncOptions { urls, collections, ..SyncOptions::default() })?;
    /// let mut listener = session.listen();
    /// while let Some(status) = listener.next().await {
    ///     println!("{}, {} pending", status.state.as_str(), status.pending);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for a URL that cannot be, none at all, or one that is there twice, and for no collection, or one named twice. That
    /// no hub can be reached is no error: the session's status says so, and it tries again.
    pub fn sync(&self, options: SyncOptions) -> Result<SyncSession> {
        self.sync_as(options, None)
    }

    /// The same with a hub that asks who this is.
    ///
    /// # Errors
    /// As of [`Db::sync`]. That the hub does not take the token is none: the session's status says `Unauthorized`.
    pub fn sync_as(&self, options: SyncOptions, tokens: Option<Arc<dyn TokenSource>>) -> Result<SyncSession> {
        let places: Vec<WebSocketUrl> = options.urls.iter().map(|url| WebSocketUrl::new(url)).collect::<Result<_>>()?;
        for (index, place) in places.iter().enumerate() {
            if places[..index].iter().any(|other| other.is_same(place)) {
                return Err(Error::invalid(format!("sync URL {:?} is there twice", options.urls[index])));
            }
        }
        let places = places.into_iter().map(|place| Arc::new(place) as Arc<dyn Connect>).collect();
        self.sync_parts_over(places, options.collections, &options.shapes, tokens)
    }

    /// Syncs collections with whoever is at the other end of the connections that `place` makes.
    ///
    /// # Errors
    /// `InvalidArgument` for no collection, or one named twice.
    pub fn sync_over(&self, place: Arc<dyn Connect>, collections: Vec<String>) -> Result<SyncSession> {
        self.sync_parts_over(vec![place], collections, &BTreeMap::new(), None)
    }

    /// [`Db::sync_over`] with a hub that asks who this is.
    ///
    /// # Errors
    /// As there.
    pub fn sync_over_as(
        &self,
        place: Arc<dyn Connect>,
        collections: Vec<String>,
        tokens: Arc<dyn TokenSource>,
    ) -> Result<SyncSession> {
        self.sync_parts_over(vec![place], collections, &BTreeMap::new(), Some(tokens))
    }

    /// [`Db::sync_over`] with the first that is there of several, and of parts of collections: see [`SyncOptions`].
    ///
    /// # Errors
    /// As there, and `InvalidArgument` for no place, and for a shape of a collection that is not among them.
    pub fn sync_parts_over(
        &self,
        places: Vec<Arc<dyn Connect>>,
        collections: Vec<String>,
        shapes: &BTreeMap<String, Shape>,
        tokens: Option<Arc<dyn TokenSource>>,
    ) -> Result<SyncSession> {
        if places.is_empty() {
            return Err(Error::invalid("no hub to sync with: one URL at least is expected"));
        }
        if let Some(name) = shapes.keys().next().filter(|_| places.len() > 1) {
            let hubs = places.len();
            return Err(Error::invalid(format!("a shape of collection {name:?}, and {hubs} hubs: {ONE_HUB_A_PART}")));
        }
        if let Some(other) = shapes.keys().find(|name| !collections.contains(name)) {
            return Err(Error::invalid(format!("a shape of collection {other:?}, which is not to be synced")));
        }
        let wanted = |name: &String| shapes.get(name).map(Shape::to_text).transpose();
        let wanted = collections.iter().map(wanted).collect::<Result<_>>()?;
        let mut sorted = collections.clone();
        sort_by(&mut sorted, Ord::cmp);
        if sorted.is_empty() {
            return Err(Error::invalid("no collection to sync"));
        }
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::invalid(format!("collection {:?} is named twice", twice[0])));
        }
        let status = SyncStatus {
            state: SyncState::Offline,
            url: None,
            pending: 0,
            error: None,
            last_synced_ms: None,
            download: None,
            refusals: Vec::new(),
        };
        let shared = Arc::new(Shared {
            names: collections.clone(),
            status: Watch::new(status),
            command: Watch::new(Command::Run),
            asked: Watch::new(0),
            waiting: Mutex::default(),
        });
        let mut driver = Driver {
            db: self.clone(),
            environment: self.inner.shared.options.environment.clone(),
            failover: Failover::new(places.len()),
            told: self.inner.shared.syncs.begin(places[0].url(), &collections),
            places,
            tokens,
            token: None,
            shared: shared.clone(),
            patience: 0,
            hubs: vec![None; collections.len()],
            wanted,
            parts: vec![WHOLE.to_owned(); collections.len()],
            names: collections,
            error: None,
            refusals: Vec::new(),
            last_synced_ms: None,
            seedings: BTreeMap::new(),
            late: Vec::new(),
            owed: Vec::new(),
        };
        driver.refusals = driver.refused();
        driver.publish(SyncState::Offline, None);
        spawn(driver.run());
        Ok(SyncSession { shared })
    }
}

impl SyncSession {
    /// How it stands now.
    pub fn status(&self) -> SyncStatus {
        self.shared.status.get().0
    }

    /// Every status from the present one on; of several that follow each other faster than they are taken, the last.
    pub fn listen(&self) -> SyncListener {
        SyncListener { shared: self.shared.clone(), version: 0, over: false }
    }

    /// Disconnects and stays so until [`SyncSession::resume`]. Writes go on being kept for the hub.
    pub fn pause(&self) {
        self.command(Command::Pause);
    }

    /// Connects again after a pause; while waiting to try again, tries at once (a host that knows that the network is back
    /// calls it).
    pub fn resume(&self) {
        self.command(Command::Run);
    }

    /// Compares what both sides hold of those collections, or of all that are synced, and moves what differs, both ways, each change with
    /// its own version: what a hub has lost that was restored from an older backup, say, or a client of which a log was lost. Sessions do
    /// so by themselves where they see that something was lost; not everything can be seen. It begins when the session is connected
    /// and has what the hub sends anyhow, goes on over connections that break, and tells what it has changed. Done again, it changes nothing.
    ///
    /// # Errors
    /// `InvalidArgument` for a collection that is not synced here, `Unavailable` when the session is paused or stopped, `Unsupported` where only
    /// a part of a collection is kept here, or the hub cannot compare, `Forbidden` where the rights here do not suffice: for all that differs
    /// that is "admin" of the collection. What was moved before stays moved.
    pub async fn reconcile(&self, collections: Option<&[String]>) -> Result<BTreeMap<String, Reconciled>> {
        if !COMPARES {
            let message = "this build cannot compare what both sides hold: the one for streams can";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let names = &self.shared.names;
        let mut answers = Vec::new();
        for name in collections.unwrap_or(names) {
            let at = names.iter().position(|other| other == name);
            let at = at.ok_or_else(|| Error::invalid(format!("collection {name:?} is not synced by this session")))?;
            answers.push((Channel(at as u32), name.clone()));
        }
        if self.shared.command.get().0 != Command::Run {
            return Err(not_running());
        }
        let mut waits = Vec::new();
        self.shared.asked.update(|mark| {
            *mark += 1;
            let mut waiting = self.shared.waiting.lock().expect("no panic while held");
            for (channel, name) in answers {
                let (answer, answered) = oneshot::channel();
                waiting.push(Waiting { channel, mark: *mark, done: Reconciled::default(), answer });
                waits.push((name, answered));
            }
        });
        if self.shared.status.get().0.state == SyncState::Stopped {
            self.shared.give_up();
        }
        let mut changed = BTreeMap::new();
        let mut failed = None;
        for (name, answered) in waits {
            match answered.await.unwrap_or_else(|_| Err(not_running())) {
                Ok(done) => drop(changed.insert(name, done)),
                Err(error) => failed = failed.or(Some(error.context(format_args!("collection {name:?}")))),
            }
        }
        failed.map_or(Ok(changed), Err)
    }

    /// Ends for good.
    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    fn command(&self, command: Command) {
        // The same command again is one too: "try at once". After a stop there is nothing more.
        self.shared.command.update(|current| {
            if *current != Command::Stop {
                *current = command;
            }
        });
    }
}

fn not_running() -> Error {
    Error::new(ErrorKind::Unavailable, "the session is paused or stopped: nothing can be compared with the hub")
}

impl Shared {
    /// Nobody is to wait for a comparison that does not come.
    fn give_up(&self) {
        for Waiting { answer, .. } in self.waiting.lock().expect("no panic while held").drain(..) {
            drop(answer.send(Err(not_running())));
        }
    }
}

/// Tells the statuses of a session.
pub struct SyncListener {
    shared: Arc<Shared>,
    version: u64,
    over: bool,
}

impl SyncListener {
    /// The next status, the present one first; `None` after the session has stopped.
    pub async fn next(&mut self) -> Option<SyncStatus> {
        if self.over {
            return None;
        }
        let (status, version) = self.shared.status.after(self.version).await;
        self.version = version;
        self.over = status.state == SyncState::Stopped;
        Some(status)
    }
}

/// The task behind a session.
struct Driver {
    db: Db,
    environment: Environment,
    names: Vec<String>,
    /// Of each collection the part that the application wants.
    wanted: Vec<Option<String>>,
    /// And the one that the hub sends on this connection.
    parts: Vec<String>,
    /// The hubs, in the order of preference.
    places: Vec<Arc<dyn Connect>>,
    failover: Failover,
    tokens: Option<Arc<dyn TokenSource>>,
    /// What the hub of the connection was shown last.
    token: Option<String>,
    shared: Arc<Shared>,
    /// What reads ask, and are told, of the hub.
    told: Arc<told::Session>,
    /// Connections in a row that ended in silence.
    patience: u32,
    /// By which id each collection's positions with the hub of the last connection are kept.
    hubs: Vec<Option<ReplicaId>>,
    /// Why there is no connection.
    error: Option<Error>,
    refusals: Vec<Refusal>,
    last_synced_ms: Option<u64>,
    /// What is on its way in segments, by channel. A piece that is being stored is waited for by the next connection.
    seedings: BTreeMap<Channel, Arc<async_lock::Mutex<Option<Seeding>>>>,
    /// By channel and hub, the newest position at which something came late that both sides were compared after.
    late: Vec<(Channel, ReplicaId, Lsn)>,
    /// With whom a comparison was not brought to its end.
    owed: Vec<(Channel, ReplicaId)>,
}

/// Why a connection ended.
enum End {
    /// The application has something else in mind.
    Command,
    /// To be made anew at once.
    Again,
    Failed(Error),
    /// The store was closed.
    Closed,
}

enum Event {
    Connected(Result<(Arc<dyn Connection>, Option<String>)>),
    Received(Result<Option<Vec<u8>>>),
    Sent(Result<()>),
    Done(ClientInput),
    Changed(Channel, Result<Lsn>),
    Timer(u64),
    /// A refusal was noted.
    Noted,
    /// The first hub that is there again of those that are preferred.
    Found(Option<usize>),
    /// A read must see what the hub has.
    Wanted(u64),
    /// Somebody wants both sides compared.
    Asked(u64),
    /// A collection was made here.
    Made(u64),
    Command,
}

impl Driver {
    async fn run(mut self) {
        loop {
            let (command, version) = self.shared.command.get();
            let wait_ms = match command {
                Command::Stop => break,
                Command::Pause => {
                    self.failover.begin_again();
                    self.error = None;
                    self.shared.give_up();
                    None
                }
                Command::Run => match self.connect(version).await {
                    End::Command | End::Again => continue,
                    End::Closed => break,
                    End::Failed(error) => {
                        tracing::debug!(%error, "sync connection ended");
                        self.error = Some(error);
                        let wait_ms = self.failover.failed(self.environment.now_ms(), self.environment.random_u64());
                        if wait_ms == 0 && self.failover.has_others() {
                            continue;
                        }
                        Some(wait_ms)
                    }
                },
            };
            if self.wait(version, wait_ms).await {
                break;
            }
        }
        self.publish(SyncState::Stopped, None);
        self.shared.give_up();
    }

    /// Waits for a command, or `ms`, and keeps the number of pending rows up to date meanwhile. True when the store was closed.
    async fn wait(&mut self, version: u64, ms: Option<u64>) -> bool {
        let mut tasks = Tasks::new();
        tasks.push(self.next_command(version));
        if let Some(ms) = ms {
            tasks.push(timer(&self.environment, self.environment.now_ms() + ms));
        }
        for channel in self.channels() {
            match self.collection(channel) {
                Ok(collection) => tasks.push(watch(channel, &collection, collection.lsn())),
                Err(error) if error.kind() == ErrorKind::Closed => return true,
                Err(_) => {}
            }
        }
        loop {
            self.publish(SyncState::Offline, None);
            match tasks.next().await {
                Event::Changed(channel, result) => match (result, self.collection(channel)) {
                    (Ok(lsn), Ok(collection)) => {
                        tasks.push(watch(channel, &collection, lsn));
                        self.forget_refusals();
                    }
                    (_, Err(error)) if error.kind() == ErrorKind::Closed => return true,
                    _ => {}
                },
                _ => return false,
            }
        }
    }

    async fn connect(&mut self, version: u64) -> End {
        self.publish(SyncState::Connecting, None);
        let mut tasks = Tasks::new();
        let (place, token) = (self.place().clone(), self.tokens.as_ref().map(|tokens| tokens.token()));
        let within_ms = self.failover.has_others().then_some(DIAL_WITHIN_MS);
        tasks.push(Box::pin(async move {
            let connected = async {
                let token = match token {
                    Some(token) => Some(token.await?),
                    None => None,
                };
                Ok((dial(place, within_ms).await?, token))
            };
            Event::Connected(connected.await)
        }));
        tasks.push(self.next_command(version));
        match tasks.next().await {
            Event::Connected(Ok((connection, token))) => {
                // Rows that were refused may have been written anew.
                self.refusals = self.refused();
                // Looked for after it is known which is the last that was made: one that comes now is told.
                let made = self.db.inner.shared.syncs.made.get().1;
                let missing = self.channels().filter(|channel| self.collection(*channel).is_err()).collect();
                let collections = match self.channels().map(|channel| self.hello_of(channel)).collect() {
                    Ok(collections) => collections,
                    Err(error) if error.kind() == ErrorKind::Closed => return End::Closed,
                    Err(error) => return End::Failed(error),
                };
                let now = self.environment.now_ms();
                let mut client = Client::new(self.db.replica_id(), collections, self.patience, now);
                if self.place().downloads() {
                    client.allow_downloads();
                }
                self.token.clone_from(&token);
                let end = self.drive(&mut client, connection.clone(), token, version, (missing, made)).await;
                for channel in self.channels().filter(|channel| client.is_reconciling(*channel)) {
                    if let Some(hub) = client.hub_of(channel)
                        && !self.owed.contains(&(channel, hub))
                    {
                        self.owed.push((channel, hub));
                    }
                }
                for waiting in &mut *self.shared.waiting.lock().expect("no panic while held") {
                    let Reconciled { sent, received } = client.reconciling(waiting.channel);
                    waiting.done.sent += sent;
                    waiting.done.received += received;
                }
                within(FAREWELL_MS, async move { connection.close().await }).await;
                end
            }
            Event::Connected(Err(error)) => End::Failed(error),
            _ => End::Command,
        }
    }

    async fn drive(
        &mut self,
        client: &mut Client,
        connection: Arc<dyn Connection>,
        token: Option<String>,
        version: u64,
        (missing, made): (Vec<Channel>, u64),
    ) -> End {
        if let Some(token) = token {
            client.show(token);
        }
        let mut tasks = Tasks::new();
        tasks.push(self.next_command(version));
        tasks.push(self.next_wanted(self.told.wanted().1));
        client.ask(self.told.wanted().0);
        tasks.push(self.next_asked(0));
        if !missing.is_empty() {
            tasks.push(self.next_made(made));
        }
        let mut compared_after = vec![None; self.names.len()];
        let mut waiting = VecDeque::new();
        let (mut receiving, mut sending) = (false, false);
        let mut timer_ms = None;
        let (mut live_ms, mut caught_up) = (None, false);
        let (mut worked, mut looking) = (false, false);
        loop {
            let now = self.environment.now_ms();
            while let Some(action) = client.poll(now) {
                match action {
                    ClientAction::Send(frame) => waiting.push_back(frame),
                    ClientAction::Refused(refusal) => tasks.push(self.note_refusal(refusal)),
                    ClientAction::Reconciled { channel, mark, result } => {
                        if let Some(hub) = client.hub_of(channel)
                            && !client.is_reconciling(channel)
                        {
                            self.owed.retain(|owed| *owed != (channel, hub));
                            if let Some(after) = compared_after[channel.0 as usize].take() {
                                self.late.retain(|(of, with, _)| (*of, *with) != (channel, hub));
                                self.late.push((channel, hub, after));
                            }
                        }
                        self.reconciled(channel, mark, &result);
                    }
                    ClientAction::Close(error) => {
                        if client.ended_in_silence() {
                            self.patience += 1;
                        }
                        return End::Failed(error);
                    }
                    action => tasks.push(self.perform(action)),
                }
            }
            self.told.learn(client, self.place().url());
            if !sending && let Some(frame) = waiting.pop_front() {
                sending = true;
                let connection = connection.clone();
                tasks.push(Box::pin(async move { Event::Sent(connection.send(frame).await) }));
            }
            if !receiving && client.wants_frame() && waiting.len() < WAITING_FRAMES_MAX {
                receiving = true;
                let connection = connection.clone();
                tasks.push(Box::pin(async move { Event::Received(connection.receive().await) }));
            }
            for channel in self.channels() {
                let hub = &mut self.hubs[channel.0 as usize];
                *hub = client.hub_of(channel).or(*hub);
            }
            let mut deadline_ms = client.deadline_ms();
            if client.hub().is_some() {
                let live_ms = *live_ms.get_or_insert(now);
                self.error = None;
                if client.caught_up() {
                    // Not at every sign of life: each new time is a status that listeners are told.
                    if !caught_up || self.last_synced_ms.is_none_or(|last_ms| now >= last_ms + SYNCED_TOLD_MS) {
                        self.last_synced_ms = Some(now);
                    }
                    self.patience = 0;
                }
                caught_up = client.caught_up();
                if !worked && (client.caught_up() || now >= live_ms + HEALTHY_AFTER_MS) {
                    worked = true;
                    self.failover.worked(now, self.environment.random_u64());
                }
                // Not in the midst of something: most of the time a client has nothing to do.
                if client.caught_up()
                    && !looking
                    && let Some(due_ms) = self.failover.return_due_ms()
                {
                    if now >= due_ms {
                        looking = true;
                        tasks.push(self.look_back());
                    } else {
                        deadline_ms = deadline_ms.min(due_ms);
                    }
                }
                if client.failed() {
                    // Neither side had it, and now it is here.
                    let is_here = |channel: &Channel| client.has_failed(*channel) && self.collection(*channel).is_ok();
                    if now >= live_ms + FAILED_AGAIN_MS || missing.iter().any(is_here) {
                        return End::Again;
                    }
                    deadline_ms = deadline_ms.min(live_ms + FAILED_AGAIN_MS);
                }
                self.publish(SyncState::Live, Some(client));
            } else {
                self.publish(SyncState::Connecting, None);
            }
            if timer_ms.is_none_or(|timer_ms| deadline_ms < timer_ms) {
                timer_ms = Some(deadline_ms);
                tasks.push(timer(&self.environment, deadline_ms));
            }
            match tasks.next().await {
                Event::Received(Ok(Some(frame))) => {
                    receiving = false;
                    client.receive(ClientInput::Frame(frame), self.environment.now_ms());
                }
                Event::Received(Ok(None)) => {
                    return End::Failed(Error::new(ErrorKind::Unavailable, "the hub closed the connection"));
                }
                Event::Received(Err(error)) | Event::Sent(Err(error)) => return End::Failed(error),
                Event::Sent(Ok(())) => sending = false,
                Event::Done(input) => {
                    if let ClientInput::Token(Ok(token)) = &input {
                        self.token = Some(token.clone());
                    }
                    if let ClientInput::Opened(channel, Ok(_)) = &input
                        && let Ok(collection) = self.collection(*channel)
                    {
                        tasks.push(watch(*channel, &collection, Lsn(0)));
                        if client.hub_of(*channel).is_some_and(|hub| self.owed.contains(&(*channel, hub))) {
                            client.reconcile(*channel, 0);
                        }
                    }
                    client.receive(input, self.environment.now_ms());
                }
                Event::Changed(channel, result) => match (result, self.collection(channel)) {
                    (Ok(lsn), Ok(collection)) => {
                        tasks.push(watch(channel, &collection, lsn));
                        self.forget_refusals();
                        if let Some(late) = self.came_late(channel, &collection, client.hub_of(channel)) {
                            compared_after[channel.0 as usize] = Some(late);
                            client.reconcile(channel, 0);
                        }
                        client.receive(ClientInput::Changed(channel), self.environment.now_ms());
                    }
                    (_, Err(error)) if error.kind() == ErrorKind::Closed => return End::Closed,
                    // It was dropped here, perhaps made anew: the next connection tells the hub.
                    _ => return End::Again,
                },
                Event::Timer(at_ms) => timer_ms = timer_ms.filter(|timer_ms| *timer_ms != at_ms),
                Event::Wanted(version) => {
                    tasks.push(self.next_wanted(version));
                    client.ask(self.told.wanted().0);
                }
                Event::Made(version) => tasks.push(self.next_made(version)),
                Event::Asked(version) => {
                    tasks.push(self.next_asked(version));
                    for waiting in &*self.shared.waiting.lock().expect("no panic while held") {
                        client.reconcile(waiting.channel, waiting.mark);
                    }
                }
                Event::Command => return End::Command,
                Event::Noted => self.refusals = self.refused(),
                Event::Found(found) => {
                    looking = false;
                    self.failover.returned(found, self.environment.now_ms(), self.environment.random_u64());
                    if found.is_some() {
                        return End::Again;
                    }
                }
                Event::Connected(_) => {}
            }
        }
    }

    /// The hub that is dialled, or serves.
    fn place(&self) -> &Arc<dyn Connect> {
        &self.places[self.failover.at()]
    }

    /// Asks the hubs that are preferred to the one that serves, one after the other, whether they serve.
    fn look_back(&self) -> Task<'static, Event> {
        let places = self.places[..self.failover.at()].to_vec();
        let (tokens, replica, environment) = (self.tokens.clone(), self.db.replica_id(), self.environment.clone());
        Box::pin(async move {
            for (at, place) in places.into_iter().enumerate() {
                match is_welcome(place, tokens.as_ref(), replica, &environment).await {
                    Ok(()) => return Event::Found(Some(at)),
                    Err(error) => tracing::debug!(%error, at, "a preferred hub does not serve"),
                }
            }
            Event::Found(None)
        })
    }

    fn perform(&mut self, action: ClientAction) -> Task<'static, Event> {
        let done = |input: Task<'static, ClientInput>| -> Task<'static, Event> {
            Box::pin(async move { Event::Done(input.await) })
        };
        match action {
            ClientAction::Open { channel, hub, spec, part } => {
                let (db, name) = (self.db.clone(), self.names[channel.0 as usize].clone());
                let several = self.failover.has_others();
                self.parts[channel.0 as usize] = part.as_ref().map_or(WHOLE, |part| &part.part).to_owned();
                // What is begun of another part is brought to its end, whatever becomes of the connection.
                done(Box::pin(run_to_end(async move {
                    ClientInput::Opened(channel, open(&db, &name, spec.as_deref(), hub, part, several).await)
                })))
            }
            ClientAction::ReadOwn { channel, after, bytes_max } => {
                let (collection, several) = (self.collection(channel), self.failover.has_others());
                done(Box::pin(async move {
                    ClientInput::Own(channel, read_own(collection, after, bytes_max, several).await)
                }))
            }
            ClientAction::ReadRelay { channel, there, bytes_max } => {
                let collection = self.collection(channel);
                done(Box::pin(
                    async move { ClientInput::Relay(channel, read_relay(collection, &there, bytes_max).await) },
                ))
            }
            ClientAction::Apply { channel, changes, hub, lsn, seen, there, part } => {
                let (db, collection) = (self.db.clone(), self.collection(channel));
                let expected = self.parts[channel.0 as usize].clone();
                // To its end: another session may have another part in mind.
                done(Box::pin(run_to_end(async move {
                    let pulled = part::Pulled { hub, lsn, seen, there, part };
                    ClientInput::Applied(channel, apply(&db, collection, &changes, pulled, &expected).await)
                })))
            }
            ClientAction::MarkPushed { channel, hub, sequence } => {
                let collection = self.collection(channel);
                done(Box::pin(async move {
                    let marked = match collection {
                        Ok(collection) => collection.mark_pushed(hub, sequence).await,
                        Err(error) => Err(error),
                    };
                    ClientInput::Marked(channel, marked)
                }))
            }
            ClientAction::Plan { channel, hub, offer } => {
                let (db, collection) = (self.db.clone(), self.collection(channel));
                let place = self.seedings.entry(channel).or_default().clone();
                done(Box::pin(run_to_end(async move {
                    let planned = async {
                        let mut place = place.lock().await;
                        let (seeding, wants) = seed::plan(&db, &collection?, hub, &offer).await?;
                        *place = Some(seeding);
                        Ok(wants)
                    };
                    ClientInput::Planned(channel, planned.await)
                })))
            }
            ClientAction::Download { channel, file, path, offset, len } => {
                let download = self.place().download(&path, self.token.as_deref(), offset, len);
                done(Box::pin(async move {
                    let bytes = download.await.unwrap_or_else(|error| {
                        tracing::info!(%error, path, "a file could not be downloaded; it is fetched instead");
                        Vec::new()
                    });
                    ClientInput::Downloaded(channel, file, offset, bytes)
                }))
            }
            ClientAction::Store { channel, file, offset, bytes, by_request } => {
                let (db, collection) = (self.db.clone(), self.collection(channel));
                let place = self.seedings.entry(channel).or_default().clone();
                done(Box::pin(run_to_end(async move {
                    let stored = async {
                        let mut place = place.lock().await;
                        let seeding = place.as_mut().ok_or_else(|| Error::internal("a piece before the plan"))?;
                        seeding.store(&db, &collection?, file, offset, bytes, by_request).await
                    };
                    ClientInput::Stored(channel, stored.await)
                })))
            }
            ClientAction::EndSeed { channel, .. } => {
                let (db, collection) = (self.db.clone(), self.collection(channel));
                let place = self.seedings.entry(channel).or_default().clone();
                done(Box::pin(run_to_end(async move {
                    let ended = async {
                        let seeding = place.lock().await.take();
                        let seeding = seeding.ok_or_else(|| Error::internal("an end before the plan"))?;
                        seeding.end(&db, &collection?).await
                    };
                    ClientInput::Seeded(channel, ended.await)
                })))
            }
            ClientAction::Summarize { .. } | ClientAction::TakeIn { .. } | ClientAction::ReadItems { .. }
                if !COMPARES =>
            {
                unreachable!("nothing is compared in this build")
            }
            ClientAction::Summarize { channel, secret } => {
                let collection = self.collection(channel);
                done(Box::pin(async move {
                    let items = match collection {
                        Ok(collection) => comparison::summarize(&collection, secret).await,
                        Err(error) => Err(error),
                    };
                    ClientInput::Summarized(channel, items)
                }))
            }
            ClientAction::TakeIn { channel, changes } => {
                let (db, collection) = (self.db.clone(), self.collection(channel));
                done(Box::pin(run_to_end(async move {
                    let taken = match collection {
                        Ok(collection) => comparison::take_in(&db, &collection, &changes).await,
                        Err(error) => Err(error),
                    };
                    ClientInput::TakenIn(channel, taken)
                })))
            }
            ClientAction::ReadItems { channel, secret, items, bytes_max } => {
                let collection = self.collection(channel);
                done(Box::pin(async move {
                    let read = match collection {
                        Ok(collection) => comparison::read(&collection, secret, &items, bytes_max).await,
                        Err(error) => Err(error),
                    };
                    ClientInput::ItemsRead(channel, read)
                }))
            }
            ClientAction::Refresh => {
                let token = self.tokens.as_ref().map(|tokens| tokens.token());
                done(Box::pin(async move {
                    ClientInput::Token(match token {
                        Some(token) => token.await,
                        None => Err(Error::internal("a token is to be got, and there was none")),
                    })
                }))
            }
            ClientAction::Send(_)
            | ClientAction::Refused(_)
            | ClientAction::Reconciled { .. }
            | ClientAction::Close(_) => {
                unreachable!("the loop above does these")
            }
        }
    }

    fn hello_of(&self, channel: Channel) -> Result<ClientCollection> {
        let name = &self.names[channel.0 as usize];
        let spec = match self.db.collection(name) {
            Ok(collection) => Some(to_json(collection.spec())?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(ClientCollection { name: name.clone(), spec, part: self.wanted[channel.0 as usize].clone() })
    }

    fn channels(&self) -> impl Iterator<Item = Channel> + use<> {
        (0..self.names.len() as u32).map(Channel)
    }

    fn collection(&self, channel: Channel) -> Result<Collection> {
        self.db.collection(&self.names[channel.0 as usize])
    }

    fn next_command(&self, version: u64) -> Task<'static, Event> {
        let shared = self.shared.clone();
        Box::pin(async move {
            shared.command.after(version).await;
            Event::Command
        })
    }

    fn next_wanted(&self, version: u64) -> Task<'static, Event> {
        let told = self.told.clone();
        Box::pin(async move { Event::Wanted(told.wanted_after(version).await) })
    }

    fn next_asked(&self, version: u64) -> Task<'static, Event> {
        let shared = self.shared.clone();
        Box::pin(async move { Event::Asked(shared.asked.after(version).await.1) })
    }

    fn next_made(&self, version: u64) -> Task<'static, Event> {
        let db = self.db.clone();
        Box::pin(async move { Event::Made(db.inner.shared.syncs.made.after(version).await.1) })
    }

    /// Tells who has waited for a comparison.
    fn reconciled(&self, channel: Channel, mark: u64, result: &Result<Reconciled>) {
        let name = &self.names[channel.0 as usize];
        match result {
            Ok(Reconciled { sent: 0, received: 0 }) => tracing::debug!(collection = name, "both sides hold the same"),
            Ok(Reconciled { sent, received }) => {
                tracing::info!(
                    collection = name,
                    sent,
                    received,
                    "compared with the hub, and made good what was missing"
                );
            }
            Err(error) => tracing::warn!(collection = name, %error, "could not be compared with the hub"),
        }
        let mut waiting = self.shared.waiting.lock().expect("no panic while held");
        let served = |waiting: &mut Waiting| waiting.channel == channel && waiting.mark <= mark;
        for Waiting { done, answer, .. } in waiting.extract_if(.., served) {
            let all = |Reconciled { sent, received }: Reconciled| Reconciled {
                sent: done.sent + sent,
                received: done.received + received,
            };
            drop(answer.send(result.clone().map(all)));
        }
    }

    /// Where something came late, from whom else, since this side was compared with that hub: those below may have brought it, and the
    /// hub may take for known what it lacks.
    fn came_late(&self, channel: Channel, collection: &Collection, hub: Option<ReplicaId>) -> Option<Lsn> {
        let late = collection.late()?;
        let others =
            self.db.inner.shared.syncs.is_hub.load(std::sync::atomic::Ordering::Relaxed) || self.failover.has_others();
        (others && !self.late.contains(&(channel, hub?, late))).then_some(late)
    }

    /// Those of the collections as they are here: noted on this connection, or long ago.
    fn refused(&self) -> Vec<Refusal> {
        let of_collection = |channel: Channel| {
            let refused = self.collection(channel).map_or_else(|_| Vec::new(), |collection| collection.refused());
            let name = &self.names[channel.0 as usize];
            refused.into_iter().map(|Refused { after, through, kind, message }| Refusal {
                collection: name.clone(),
                after,
                through,
                error: Error::new(ErrorKind::from_name(&kind), message),
            })
        };
        self.channels().flat_map(of_collection).collect()
    }

    /// Leaves out those whose rows were written anew.
    fn forget_refusals(&mut self) {
        if !self.refusals.is_empty() {
            self.refusals = self.refused();
        }
    }

    fn note_refusal(&self, refusal: Refusal) -> Task<'static, Event> {
        tracing::warn!(
            collection = refusal.collection,
            sequence = refusal.through.0,
            error = %refusal.error,
            "the hub refused a change; it was set aside"
        );
        let collection = self.db.collection(&refusal.collection);
        let Refusal { after, through, error, .. } = refusal;
        let (kind, message) = (error.kind().as_str().to_owned(), error.message().to_owned());
        Box::pin(run_to_end(async move {
            let noted = async { collection?.note_refused(Refused { after, through, kind, message }).await };
            if let Err(error) = noted.await {
                tracing::warn!(%error, "a refusal could not be noted");
            }
            Event::Noted
        }))
    }

    fn publish(&self, state: SyncState, client: Option<&Client>) {
        let pending = self.channels().map(|channel| self.pending(channel, client)).sum();
        let failed = client.and_then(|client| client.errors().next().map(|(name, error)| error.clone().context(name)));
        let refused = self.refusals.last().map(|refusal| refusal.error.clone().context(&refusal.collection));
        self.shared.status.set(SyncStatus {
            state,
            url: (state == SyncState::Live).then(|| self.place().url().map(str::to_owned)).flatten(),
            pending,
            error: self.error.clone().or(failed).or(refused),
            last_synced_ms: self.last_synced_ms,
            download: client.and_then(|client| self.download(client)),
            refusals: self.refusals.clone(),
        });
    }

    fn download(&self, client: &Client) -> Option<Download> {
        let downloads = self.channels().filter_map(|channel| client.download(channel));
        downloads.reduce(|all, one| Download { done: all.done + one.done, total: all.total + one.total })
    }

    fn pending(&self, channel: Channel, client: Option<&Client>) -> usize {
        let Ok(collection) = self.collection(channel) else { return 0 };
        let settled =
            client.and_then(|client| client.settled(channel)).unwrap_or_else(|| match self.hubs[channel.0 as usize] {
                Some(hub) => collection.sync_position(hub).pushed,
                // Before the first welcome: the hub that has least, of those that were ever met.
                None => collection.sync_positions().values().map(|position| position.pushed).min().unwrap_or_default(),
            });
        collection.pending_after(settled)
    }
}

/// Connects, where a limit is set within so long.
async fn dial(place: Arc<dyn Connect>, within_ms: Option<u64>) -> Result<Arc<dyn Connection>> {
    let Some(within_ms) = within_ms else { return place.connect().await };
    let mut tasks = Tasks::new();
    tasks.push(Box::pin(async move { place.connect().await }));
    tasks.push(Box::pin(async move {
        sleep_ms(within_ms).await;
        Err(Error::new(ErrorKind::Unavailable, format!("the hub does not answer within {within_ms} ms")))
    }));
    tasks.next().await
}

/// Whether a hub says welcome: that it takes in connections says little of whether it serves. Nothing is synced.
async fn is_welcome(
    place: Arc<dyn Connect>,
    tokens: Option<&Arc<dyn TokenSource>>,
    replica: ReplicaId,
    environment: &Environment,
) -> Result<()> {
    let connection = dial(place, Some(DIAL_WITHIN_MS)).await?;
    // Only now: while the hub is away, nobody is asked for one.
    let token = tokens.map(|tokens| tokens.token());
    let (asked, environment) = (connection.clone(), environment.clone());
    let mut tasks: Tasks<Result<()>> = Tasks::new();
    tasks.push(Box::pin(async move {
        let mut client = Client::new(replica, Vec::new(), 0, environment.now_ms());
        if let Some(token) = token {
            client.show(token.await?);
        }
        loop {
            while let Some(action) = client.poll(environment.now_ms()) {
                match action {
                    ClientAction::Send(frame) => asked.send(frame).await?,
                    ClientAction::Close(error) => return Err(error),
                    _ => return Err(Error::internal("there is nothing else to do before the welcome")),
                }
            }
            if client.hub().is_some() {
                return Ok(());
            }
            match asked.receive().await? {
                Some(frame) => client.receive(ClientInput::Frame(frame), environment.now_ms()),
                None => return Err(Error::new(ErrorKind::Unavailable, "the hub closed the connection")),
            }
        }
    }));
    tasks.push(Box::pin(async move {
        sleep_ms(LOOK_WITHIN_MS).await;
        Err(Error::new(ErrorKind::Unavailable, format!("no welcome from the hub within {LOOK_WITHIN_MS} ms")))
    }));
    let answer = tasks.next().await;
    within(FAREWELL_MS, async move { connection.close().await }).await;
    answer
}

fn timer(environment: &Environment, at_ms: u64) -> Task<'static, Event> {
    let environment = environment.clone();
    Box::pin(async move {
        sleep_ms(at_ms.saturating_sub(environment.now_ms())).await;
        Event::Timer(at_ms)
    })
}

fn watch(channel: Channel, collection: &Collection, lsn: Lsn) -> Task<'static, Event> {
    let collection = collection.clone();
    Box::pin(async move { Event::Changed(channel, collection.changed_after(lsn).await) })
}

/// `several` tells whether there are other hubs.
async fn open(
    db: &Db,
    name: &str,
    spec: Option<&str>,
    hub: ReplicaId,
    part: Option<Part>,
    several: bool,
) -> Result<Start> {
    if several && part.is_some() {
        let message = format!("the hub lets only a part of the rows be read, and there are others: {ONE_HUB_A_PART}");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let spec = spec.map(from_json).transpose()?;
    let shared = |spec: &CollectionSpec| check_shared(name, &spec.schema, db.replica_number());
    let collection = match spec {
        None => {
            let collection = db.collection(name)?;
            shared(collection.spec())?;
            collection
        }
        Some(spec) => match shared(&spec).map(|()| db.create_collection(name, spec))?.await {
            // Made since the hello: whether it agrees, the next connection tells.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(error.context("it was created here while the hub was asked; asking again"));
            }
            created => created?,
        },
    };
    if several && !collection.is_whole() && collection.kept_part(hub).is_none() {
        let message =
            format!("only a part of another hub's rows is here: {ONE_HUB_A_PART}, until all of its rows are here");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    part::prepare(&collection, hub, part.as_ref()).await?;
    Ok(start_of(&collection, hub))
}

/// Where a collection stands with a hub.
pub(super) fn start_of(collection: &Collection, hub: ReplicaId) -> Start {
    let SyncPosition { pulled, pushed } = collection.sync_position(hub);
    let reshape = collection.kept_part(hub).and_then(|kept| kept.reshape);
    let reshape = reshape.map(|reshape| Reshape { old: reshape.old, after: reshape.after, through: reshape.through });
    if collection.has_parts() {
        // Of whom rows of a part were sent, not all up to the last one are here.
        return Start { pulled, pushed, known: BTreeMap::new(), reshape, own: Sequence(u64::MAX), alone: false };
    }
    // Whatever hub it was noted for, it was here then. A hub that has this replica's changes from another one, or less of them than that
    // one, is no sign of a past that was lost here.
    let noted = collection.sync_positions().into_values().map(|position| position.pushed).max().unwrap_or_default();
    let known = collection.seen();
    let own = known.get(&collection.inner.shared.replica).copied().unwrap_or_default();
    let is_hub = collection.inner.shared.syncs.is_hub.load(std::sync::atomic::Ordering::Relaxed);
    let alone = !is_hub && collection.sync_positions().keys().all(|other| *other == hub);
    Start { pulled, pushed: noted, known, reshape, own, alone }
}

/// `several` tells whether there are other hubs.
async fn read_own(
    collection: Result<Collection>,
    after: Sequence,
    bytes_max: usize,
    several: bool,
) -> Result<OwnChanges> {
    let collection = collection?;
    if several || collection.sync_positions().len() > 1 {
        // What one hub has and a crash takes from here, another one must not lack for good: it would be pushed what comes later, and
        // takes nothing that is earlier from the first. One hub alone tells what was lost.
        collection.sync_log(&mut *collection.inner.log.lock().await).await?;
    }
    let (changes, through) = collection.own_changes_after(after, bytes_max).await?;
    let changes = if changes.is_empty() { Vec::new() } else { changes.encode() };
    Ok(OwnChanges { changes, through })
}

async fn read_relay(
    collection: Result<Collection>,
    there: &BTreeMap<ReplicaId, Sequence>,
    bytes_max: usize,
) -> Result<Option<Relay>> {
    let relayed = collection?.relayed_changes_after(there, bytes_max).await?;
    Ok(relayed.map(|(origin, after, changes, through)| {
        let changes = if changes.is_empty() { Vec::new() } else { changes.encode() };
        Relay { origin, after, through, changes }
    }))
}

async fn apply(
    db: &Db,
    collection: Result<Collection>,
    bytes: &[u8],
    pulled: part::Pulled,
    expected: &str,
) -> Result<()> {
    let collection = collection?;
    let schema = &collection.spec().schema;
    let changes = if bytes.is_empty() { ChangeSet::empty(schema) } else { ChangeSet::decode(schema, bytes)? };
    db.admit_partitions(&collection, &changes).await?;
    part::apply(&collection, changes, pulled, expected).await
}
