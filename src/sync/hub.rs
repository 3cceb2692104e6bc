use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::keepalive::KeepAlive;
use super::message::{
    Capabilities, Channel, Compare, Compared, FETCH_WINDOW, Fault, Fetch, Found, Give, Given, HelloCollection, Lack,
    Message, Offer, PIECE_BYTES_MAX, Part, Piece, Pull, PullAck, PullPart, Push, PushAck, Reshape, StartPull,
    TOKEN_BYTES_MAX, Welcome, WelcomeCollection, pack,
};
use super::reconcile::{Item, decode_items};
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, Sequence};

/// A client that is silent for so long is given up. Clients ask for a sign of life every 20 s (browsers in the background
/// sometimes once a minute), but one large push may take a slow network minutes, and nothing comes through beside it.
const DEAD_AFTER_MS: u64 = 600_000;
/// A hello must come within this.
const HELLO_WITHIN_MS: u64 = 20_000;
/// A read of changes stops when it is past this.
const PULL_BYTES_MAX: usize = 512 << 10;
/// A read of changes that the client lacks stops when it is past this.
const FOUND_BYTES_MAX: usize = 512 << 10;
/// The longest ranges of a client that are looked at; its own are shorter by far.
const COMPARE_BYTES_MAX: usize = 1 << 20;
/// An empty pull, which only moves the client's position, is sent when the position is off by so much.
const EMPTY_PULL_EVERY: u64 = 256;

/// What a hub allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubOptions {
    /// Whether a client that brings a collection that the hub lacks gets it created.
    pub create_collections: bool,
    /// How many collections one connection may sync.
    pub collections_max: usize,
    /// Whether clients are asked who they are: then nothing is done for one before [`HubAction::Admit`] has let it in.
    pub gated: bool,
    /// A client that lacks at least so many rows gets segments, where these hold most of them.
    pub seeded_rows_min: usize,
    /// Whether plain requests get files of segments too, at [`FILES_PLACE`] below the place of the WebSocket.
    pub serves_files: bool,
}

/// Where plain requests get files of segments, below the place of the WebSocket.
pub const FILES_PLACE: &str = "files";

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            create_collections: true,
            collections_max: 256,
            gated: false,
            seeded_rows_min: 1_000,
            serves_files: false,
        }
    }
}

/// Where the hub stands with a client: the answer to [`HubAction::Open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The client's batches up to here are at the hub, durably.
    pub acknowledged: Sequence,
    /// Tells the collection from another that had its name before.
    pub incarnation: u64,
    /// The specification as JSON, when the client has none.
    pub spec: Option<String>,
    /// The part of the rows that the client gets, where it does not get all.
    pub part: Option<Part>,
}

/// Changes for a client: the answer to [`HubAction::Read`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// An encoded change set; empty when there is no change for this client.
    pub changes: Vec<u8>,
    /// The position that they reach: the newest one when there are none.
    pub lsn: Lsn,
    /// The newest position.
    pub newest: Lsn,
    /// Where the client gets a part of the rows: those that have changed and are not in it.
    pub left: Option<Vec<u8>>,
    /// When nothing is left: of all origins, or of those of the changes, up to which sequence all of their changes are here.
    pub seen: BTreeMap<ReplicaId, Sequence>,
}

/// What happened at the hub.
#[derive(Debug)]
pub enum HubInput {
    /// The client sent a frame.
    Frame(Vec<u8>),
    /// The local log of a collection moved on (whoever wrote).
    Changed(Channel),
    /// [`HubAction::Open`] is done.
    Opened(Channel, Result<Opened>),
    /// [`HubAction::Read`] is done.
    Read(Channel, Result<Changes>),
    /// [`HubAction::Apply`] is done, durably.
    Applied(Channel, Result<()>),
    /// [`HubAction::Offer`] is done: what [`super::Offer::segments`] is to say, or that segments would not help this client.
    Offered(Channel, Result<Option<Vec<u8>>>),
    /// [`HubAction::ReadPiece`] is done.
    PieceRead(Channel, Result<Vec<u8>>),
    /// [`HubAction::Compare`] is done: under which key, and what to say.
    Compared(Channel, Result<([u64; 2], Vec<u8>)>),
    /// [`HubAction::ReadItems`] is done: how many of them were looked at, one at least, and an encoded change set of those that are still
    /// the newest of their key, or nothing.
    ItemsRead(Channel, Result<(usize, Vec<u8>)>),
    /// [`HubAction::TakeIn`] is done, durably: how many changes won, and where in the log they are.
    TakenIn(Channel, Result<(u64, Lsn)>),
    /// [`HubAction::Admit`] is done: until which time the client is let in, if there is an end, or why it is not. May also come unasked,
    /// when the answer has become another.
    Admitted(Result<Option<u64>>),
}

/// What a hub wants done. Each but `Send` and `Close` is answered with one input; there is never more than one of a kind under
/// way for a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubAction {
    /// Send a frame.
    Send(Vec<u8>),
    /// Find the collection, or create it where `create` allows it and there is a specification; tell where it stands with the
    /// client. The answer is an error when the specifications do not agree.
    Open {
        /// Which collection.
        channel: Channel,
        /// Its name.
        name: String,
        /// The client's specification as JSON.
        spec: Option<String>,
        /// The part of its rows that the client wants; `None` for all.
        part: Option<String>,
        /// Whether it may be created.
        create: bool,
        /// Which client.
        client: ReplicaId,
    },
    /// Read the changes after `after` that the client does not have.
    Read {
        /// Which collection.
        channel: Channel,
        /// From here.
        after: Lsn,
        /// What the client has, whatever the position: but for what came late, of which others may be mistaken.
        known: BTreeMap<ReplicaId, Sequence>,
        /// What came late at these positions it has itself given.
        given: Vec<Lsn>,
        /// Until this is exceeded.
        bytes_max: usize,
        /// Where only rows are wanted that were not in the old part, but are in the one that the client gets now.
        reshape: Option<Reshape>,
        /// Whether to tell what is here of all origins, instead of those of the changes only.
        all_seen: bool,
    },
    /// Apply changes durably. Every change must be of `origin` and of a sequence in `after+1..=through`, and all that it wrote up to
    /// `after` be here. What is not the client's own may need a right of its own.
    Apply {
        /// Which collection.
        channel: Channel,
        /// An encoded change set.
        changes: Vec<u8>,
        /// Who sent them.
        client: ReplicaId,
        /// Whose changes they are.
        origin: ReplicaId,
        /// After this sequence,
        after: Sequence,
        /// up to this one.
        through: Sequence,
        /// How far the client has answered for the log here,
        pulled: Lsn,
        /// and what it had when it began, or has pushed since, whatever that position.
        known: Arc<BTreeMap<ReplicaId, Sequence>>,
    },
    /// Find out whether segments hold most of what the client lacks. What is offered stays readable until the next `Read` of the
    /// collection, or the end of the connection.
    Offer {
        /// Which collection.
        channel: Channel,
        /// From here.
        after: Lsn,
        /// What the client has, whatever the position.
        known: BTreeMap<ReplicaId, Sequence>,
    },
    /// Read a part of a file that was offered; an error when there is no such part.
    ReadPiece {
        /// Which collection.
        channel: Channel,
        /// Which file of the offer.
        file: u32,
        /// From this byte.
        offset: u64,
        /// So many.
        len: u32,
    },
    /// Compare what is here with what the client says: begin without `ranges`, answer them, or, when they are empty, let go of what is held
    /// for it.
    Compare {
        /// Which collection.
        channel: Channel,
        /// What the client has said.
        ranges: Option<Vec<u8>>,
    },
    /// Read the changes with these hashes that are still the newest of their key, in order until `bytes_max` is exceeded; those of one
    /// timestamp are never split.
    ReadItems {
        /// Which collection.
        channel: Channel,
        /// The key of the hashes.
        secret: [u64; 2],
        /// Which changes.
        items: Vec<Item>,
        /// Until this is exceeded.
        bytes_max: usize,
    },
    /// Apply changes durably, by their versions alone. What is not the client's own may need a right of its own.
    TakeIn {
        /// Which collection.
        channel: Channel,
        /// An encoded change set.
        changes: Vec<u8>,
        /// Who sent them.
        client: ReplicaId,
    },
    /// Find out what the client may do, and let it do nothing else from then on: also on channels that are open, of which the next `Read`
    /// fails where it may do nothing any more.
    Admit {
        /// What it showed last, if anything.
        token: Option<String>,
    },
    /// Close the connection: it is over.
    Close(Error),
}

/// A connection on which nothing is under way, without a machine: another one goes on from here (see [`Hub::rest`]). Opaque; how it is
/// written down is for builds of one version only, as connections are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    client: ReplicaId,
    capabilities: Capabilities,
    token: Option<String>,
    channels: Vec<RestingChannel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RestingChannel {
    name: String,
    wanted: Option<String>,
    /// What the client was told; without, the channel has failed.
    told: Option<Told>,
    /// The client has all changes up to here; without, it has not started.
    read: Option<Lsn>,
    /// Of its own it has all up to this one.
    own: Sequence,
}

/// What a client was told of a collection that must still be so when another machine goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    incarnation: u64,
    part: Option<String>,
}

/// The hub's end of one connection.
#[derive(Debug)]
pub struct Hub {
    replica: ReplicaId,
    options: HubOptions,
    client: Option<ReplicaId>,
    /// What the client can do.
    capabilities: Capabilities,
    welcome_sent: bool,
    /// The client was welcomed by another machine: it is not to hear of this one.
    resuming: bool,
    channels: Vec<State>,
    keep_alive: KeepAlive,
    started_ms: u64,
    pong_due: bool,
    answer_due: bool,
    token: Option<String>,
    admission: Admission,
    /// The client may stay until then.
    expires_ms: Option<u64>,
    /// When it was let in, until it is told.
    granted_ms: Option<u64>,
    end: Option<End>,
}

/// Whether a client is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// It is to be found out.
    Due,
    /// It is being found out; once more afterwards, when something has come meanwhile.
    Asked {
        again: bool,
    },
    Done,
}

#[derive(Debug)]
enum End {
    /// The client is to be told, then the connection closed.
    Tell(Error),
    Close(Error),
    Closed,
}

#[derive(Debug)]
struct State {
    collection: HelloCollection,
    stage: Stage,
    answer: Option<WelcomeCollection>,
    /// What the welcome said.
    told: Option<Told>,
    /// Where another machine has left it.
    resting: Option<RestingChannel>,
    /// A failure after the welcome that the client is to be told.
    fault_due: Option<Fault>,

    /// Pushes up to here were answered on this connection, or before it: a push must follow on at most this.
    answered: Sequence,
    arrived: Option<Push>,
    applying: Option<Applying>,
    ack_due: Option<PushAck>,

    started: bool,
    known: BTreeMap<ReplicaId, Sequence>,
    /// What it said when it started, and how far it has answered since.
    known_first: Arc<BTreeMap<ReplicaId, Sequence>>,
    pulled: Lsn,
    /// Changes up to here were read for the client,
    read: Lsn,
    /// and it was told of this position.
    sent: Lsn,
    /// Whether there may be changes after `read`.
    left: bool,
    reading: bool,
    /// Whether the client knows that nothing is left.
    told_caught_up: bool,
    /// Whether the client gets only a part of the rows.
    partial: bool,
    /// What the client lacks since it gets another part, and where it goes on pulling then.
    reshape: Option<(Reshape, Lsn)>,
    /// Whether it was told of all origins what is here of them, and of those of the changes since.
    told_seen: bool,
    /// How far the answer to what the client asked is.
    asked: Asked,
    outgoing: Option<Pull>,
    /// The positions of the pulls that are on the way.
    unanswered: Vec<Lsn>,
    seeding: Seeding,
    /// Whether the client gets files of segments by plain requests, where it gets segments.
    files: bool,
    /// What the client was told of segments, until it is on its way.
    offer_due: Option<Vec<u8>>,
    fetches: VecDeque<Fetch>,
    /// The fetch that is being answered.
    fetching: Option<Fetch>,
    piece_due: Option<Piece>,
    comparing: Comparing,
    /// A comparison has begun, and something is held for it.
    compares: bool,
    /// Where changes are in the log that the client has given.
    given: Vec<Lsn>,
}

/// What the client has said last of what both sides hold.
#[derive(Debug)]
enum Comparing {
    Nothing,
    Compare(Option<Vec<u8>>),
    Lack([u64; 2], Vec<Item>),
    Give(Vec<u8>),
    /// It is being done.
    Doing {
        bytes: usize,
    },
    /// What to say to it.
    Answer(Message),
}

/// Whether the client gets segments first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seeding {
    /// It is to be found out.
    Unasked,
    /// It is being found out.
    Asked,
    /// It does, and starts again once it has them.
    Offered,
    /// Not, or not any more.
    Over,
}

impl Comparing {
    fn bytes(&self) -> usize {
        match self {
            Self::Give(changes) => changes.len(),
            Self::Doing { bytes } => *bytes,
            _ => 0,
        }
    }
}

#[derive(Debug)]
struct Applying {
    origin: ReplicaId,
    through: Sequence,
    /// Whether they are the client's own.
    own: bool,
    bytes: usize,
}

/// What an answer comes behind: all changes that were there when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// Where the log is, which a read that begins now tells.
    Position,
    /// That read is under way.
    Reading,
    /// What is up to this position.
    UpTo(Lsn),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    Opening,
    Live,
    Failed,
}

impl Hub {
    /// The hub's end of a connection that was just made. `replica` is this replica.
    pub fn new(replica: ReplicaId, options: HubOptions, now_ms: u64) -> Self {
        Self {
            replica,
            options,
            client: None,
            capabilities: Capabilities::default(),
            welcome_sent: false,
            resuming: false,
            channels: Vec::new(),
            keep_alive: KeepAlive::new(now_ms, None, DEAD_AFTER_MS),
            started_ms: now_ms,
            pong_due: false,
            answer_due: false,
            token: None,
            admission: if options.gated { Admission::Due } else { Admission::Done },
            expires_ms: None,
            granted_ms: None,
            end: None,
        }
    }

    /// The hub's end of a connection that rests, of which the client is not told. What it may do, and that the collections are what they
    /// were, is found out anew before a frame is taken; where it is not so, the connection ends with `Unavailable`, and the client makes
    /// another one. Changes that it has from elsewhere may come to it once more.
    pub fn resume(replica: ReplicaId, options: HubOptions, rest: Rest, now_ms: u64) -> Self {
        let Rest { client, capabilities, token, channels } = rest;
        let channels = channels.into_iter().map(|resting| {
            let RestingChannel { name, wanted: part, told, .. } = &resting;
            let state = State::new(HelloCollection { name: name.clone(), spec: None, part: part.clone() });
            let stage = if told.is_some() { Stage::Open } else { Stage::Failed };
            State { stage, resting: Some(resting), ..state }
        });
        let options = HubOptions { create_collections: false, ..options };
        let channels = channels.collect();
        let new = Self::new(replica, options, now_ms);
        Self { client: Some(client), capabilities, token, channels, resuming: true, ..new }
    }

    /// Where the connection stands, when nothing is under way on it and the client has all that is here: a host that wants its memory back
    /// keeps that, drops this machine, and makes another one of it ([`Hub::resume`]) when something happens. `None` while that would
    /// lose something.
    pub fn rest(&self) -> Option<Rest> {
        let is_quiet = self.end.is_none()
            && self.welcome_sent
            && self.admission == Admission::Done
            && self.granted_ms.is_none()
            && !self.pong_due
            && !self.answer_due;
        let client = self.client.filter(|_| is_quiet)?;
        let channels = self.channels.iter().map(|state| state.rest(client)).collect::<Option<_>>()?;
        Some(Rest { client, capabilities: self.capabilities, token: self.token.clone(), channels })
    }

    /// Takes in what happened.
    pub fn receive(&mut self, input: HubInput, now_ms: u64) {
        if self.end.is_some() {
            return;
        }
        if !self.wants_frame() {
            // Only silence while we listen counts.
            self.keep_alive.heard(now_ms);
        }
        if let Err(error) = self.take_in(input, now_ms) {
            self.end = Some(End::Tell(error));
        }
    }

    /// What to do next; `None` until something happens, or [`Hub::deadline_ms`] comes.
    pub fn poll(&mut self, now_ms: u64) -> Option<HubAction> {
        if self.end.is_none()
            && let Some(error) = self.keep_alive.dead(now_ms).or_else(|| self.hello_missing(now_ms))
        {
            self.end = Some(End::Close(error));
        }
        if self.end.is_none() && self.expires_ms.is_some_and(|expires_ms| now_ms >= expires_ms) {
            self.end =
                Some(End::Tell(Error::new(ErrorKind::Unauthorized, "the token has expired; come with a new one")));
        }
        if self.end.is_none() {
            match self.next() {
                Ok(Some(HubAction::Send(frame))) => return Some(HubAction::Send(pack(frame, self.capabilities))),
                Ok(action) => return action,
                Err(error) => self.end = Some(End::Tell(error)),
            }
        }
        match self.end.replace(End::Closed)? {
            End::Tell(error) => {
                let fault = Message::Fault(None, Fault::from(&error)).encode();
                self.end = Some(End::Close(error));
                match fault {
                    Ok(frame) => Some(HubAction::Send(frame)),
                    Err(_) => self.poll(now_ms),
                }
            }
            End::Close(error) => Some(HubAction::Close(error)),
            End::Closed => None,
        }
    }

    /// Ends the connection: the client is told `error`, then it is closed.
    pub fn close(&mut self, error: Error) {
        if self.end.is_none() {
            self.end = Some(End::Tell(error));
        }
    }

    /// When to poll again although nothing happened.
    pub fn deadline_ms(&self) -> u64 {
        let deadline_ms = self.keep_alive.deadline_ms().min(self.expires_ms.unwrap_or(u64::MAX));
        if self.client.is_none() { deadline_ms.min(self.started_ms + HELLO_WITHIN_MS) } else { deadline_ms }
    }

    /// Whether to hand in further frames; otherwise they wait in the network until what is here is applied.
    pub fn wants_frame(&self) -> bool {
        let waiting = self.channels.iter().map(|state| {
            state.arrived.as_ref().map_or(0, |push| push.changes.len())
                + state.applying.as_ref().map_or(0, |applying| applying.bytes)
                + state.comparing.bytes()
        });
        !self.resuming && waiting.sum::<usize>() < super::client::WAITING_BYTES_MAX
    }

    /// The client, once it said hello.
    pub fn client(&self) -> Option<ReplicaId> {
        self.client
    }

    fn hello_missing(&self, now_ms: u64) -> Option<Error> {
        (self.client.is_none() && now_ms.saturating_sub(self.started_ms) >= HELLO_WITHIN_MS).then(|| {
            Error::new(ErrorKind::Unavailable, format!("no hello from the client within {HELLO_WITHIN_MS} ms"))
        })
    }

    fn take_in(&mut self, input: HubInput, now_ms: u64) -> Result<()> {
        match input {
            HubInput::Frame(frame) => {
                self.keep_alive.heard(now_ms);
                self.take_in_message(Message::decode(&frame)?)
            }
            HubInput::Changed(channel) => {
                self.state(channel)?.left = true;
                Ok(())
            }
            HubInput::Opened(channel, result) => {
                let state = self.state(channel)?;
                let answer = match result {
                    Ok(Opened { acknowledged, incarnation, spec, part }) => {
                        state.stage = Stage::Live;
                        state.answered = acknowledged;
                        state.partial = part.is_some();
                        let part_told = part.as_ref().map(|part| part.part.clone());
                        state.told = Some(Told { incarnation, part: part_told });
                        WelcomeCollection { acknowledged, incarnation, spec, part, error: None }
                    }
                    Err(error) => {
                        state.stage = Stage::Failed;
                        let error = Some(Fault::from(&error));
                        WelcomeCollection { acknowledged: Sequence(0), incarnation: 0, spec: None, part: None, error }
                    }
                };
                state.answer = Some(answer);
                Ok(())
            }
            HubInput::Read(channel, result) => {
                let state = self.state(channel)?;
                state.reading = false;
                match result {
                    Ok(changes) => state.take_in_changes(channel, changes),
                    Err(error) => state.fail(&error),
                }
                Ok(())
            }
            HubInput::Applied(channel, result) => {
                let state = self.state(channel)?;
                let Applying { origin, through, own, .. } = state.applying.take().expect("an apply is under way");
                if own {
                    state.answered = state.answered.max(through);
                }
                if result.is_ok() {
                    // What it has brought itself it has seen, when it brings something else.
                    let known = Arc::make_mut(&mut state.known_first).entry(origin).or_default();
                    *known = (*known).max(through);
                }
                let error = result.as_ref().err().map(Fault::from);
                state.ack_due = Some(PushAck { channel, through, error });
                Ok(())
            }
            HubInput::Admitted(result) => {
                self.expires_ms = result?;
                // A token that another machine took was answered by it.
                self.granted_ms = (!self.resuming).then_some(now_ms);
                self.admission = match self.admission {
                    Admission::Asked { again: true } => Admission::Due,
                    _ => Admission::Done,
                };
                // Where it may not read any more, the next read says so.
                self.channels.iter_mut().for_each(|state| state.left = true);
                Ok(())
            }
            HubInput::Offered(channel, result) => {
                let state = self.state(channel)?;
                // One that cannot be made leaves the changes one by one.
                state.offer_due = result.ok().flatten();
                state.seeding = if state.offer_due.is_some() { Seeding::Offered } else { Seeding::Over };
                Ok(())
            }
            HubInput::Compared(channel, result) => {
                let state = self.state(channel)?;
                let (secret, ranges, error) = match result {
                    Ok((secret, ranges)) => (secret, ranges, None),
                    Err(error) => ([0; 2], Vec::new(), Some(Fault::from(&error))),
                };
                state.comparing = Comparing::Answer(Message::Compared(Compared { channel, secret, ranges, error }));
                Ok(())
            }
            HubInput::ItemsRead(channel, result) => {
                let state = self.state(channel)?;
                let (done, changes, error) = match result {
                    Ok((done, changes)) => (done as u32, changes, None),
                    Err(error) => (0, Vec::new(), Some(Fault::from(&error))),
                };
                state.comparing = Comparing::Answer(Message::Found(Found { channel, done, changes, error }));
                Ok(())
            }
            HubInput::TakenIn(channel, result) => {
                let state = self.state(channel)?;
                let (rows, error) = match result {
                    Ok((rows, lsn)) => {
                        if rows > 0 {
                            state.given.push(lsn);
                        }
                        (rows, None)
                    }
                    Err(error) => (0, Some(Fault::from(&error))),
                };
                state.comparing = Comparing::Answer(Message::Given(Given { channel, rows, error }));
                Ok(())
            }
            HubInput::PieceRead(channel, result) => {
                let state = self.state(channel)?;
                let Fetch { file, offset, .. } = state.fetching.take().expect("a read of a piece is under way");
                match result {
                    Ok(bytes) => state.piece_due = Some(Piece { channel, file, offset, bytes }),
                    Err(error) => state.fail(&error),
                }
                Ok(())
            }
        }
    }

    fn take_in_message(&mut self, message: Message) -> Result<()> {
        let name = message.name();
        match message {
            Message::Hello(hello) => {
                if self.client.is_some() {
                    return Err(Error::corrupt("a second hello frame"));
                }
                if hello.collections.len() > self.options.collections_max {
                    return Err(Error::invalid(format!(
                        "{} collections in a hello frame; at most {} a connection",
                        hello.collections.len(),
                        self.options.collections_max
                    )));
                }
                if hello.replica.0 == 0 {
                    return Err(Error::corrupt("a client with replica id 0, which is nobody"));
                }
                if hello.replica == self.replica {
                    return Err(Error::invalid(format!(
                        "the client has the hub's own replica id {}: one is a copy of the other",
                        self.replica
                    )));
                }
                let mut names = BTreeSet::new();
                if let Some(twice) = hello.collections.iter().find(|collection| !names.insert(&collection.name)) {
                    return Err(Error::invalid(format!("collection {:?} occurs twice in a hello frame", twice.name)));
                }
                self.client = Some(hello.replica);
                self.capabilities = hello.capabilities;
                self.channels = hello.collections.into_iter().map(State::new).collect();
                Ok(())
            }
            Message::Ping => {
                self.pong_due = true;
                Ok(())
            }
            Message::Pong => Ok(()),
            Message::Token(token) => {
                if token.len() > TOKEN_BYTES_MAX {
                    let len = token.len();
                    return Err(Error::new(
                        ErrorKind::Unauthorized,
                        format!("a token of {len} bytes; at most {TOKEN_BYTES_MAX}"),
                    ));
                }
                self.token = Some(token);
                self.admission = match self.admission {
                    Admission::Asked { .. } => Admission::Asked { again: true },
                    _ if self.options.gated => Admission::Due,
                    other => other,
                };
                Ok(())
            }
            Message::Fault(None, fault) => Err(Error::from(fault).context("the client")),
            Message::Start(_)
            | Message::Push(_)
            | Message::PullAck(_)
            | Message::Ask
            | Message::Fetch(_)
            | Message::Compare(_)
            | Message::Lack(_)
            | Message::Give(_)
                if !self.welcome_sent =>
            {
                Err(Error::corrupt(format!("a {name} frame before the welcome frame")))
            }
            Message::Ask => {
                if std::mem::replace(&mut self.answer_due, true) {
                    return Err(Error::corrupt("an ask frame before the last one was answered"));
                }
                for state in self.channels.iter_mut().filter(|state| state.started && state.stage == Stage::Live) {
                    state.asked = Asked::Position;
                    state.left = true;
                }
                Ok(())
            }
            Message::Start(start) => {
                let segments = self.capabilities.has(Capabilities::SEGMENTS);
                let files = self.options.serves_files && self.capabilities.has(Capabilities::FILES);
                let state = self.state(start.channel)?;
                state.files = files;
                state.take_in_start(start, segments)
            }
            Message::Compare(Compare { channel, ranges }) => {
                let ranges = ranges.map(ByteBuf::into_vec);
                let len = ranges.as_ref().map_or(0, Vec::len);
                if len > COMPARE_BYTES_MAX {
                    return Err(Error::invalid(format!("{len} bytes of ranges; at most {COMPARE_BYTES_MAX}")));
                }
                self.state(channel)?.take_in_comparing(Comparing::Compare(ranges), name)
            }
            Message::Lack(Lack { channel, secret, items }) => {
                let items = decode_items(&items)?;
                if items.is_empty() {
                    return Err(Error::corrupt("a lack frame for no change"));
                }
                self.state(channel)?.take_in_comparing(Comparing::Lack(secret, items), name)
            }
            Message::Give(Give { channel, changes }) => {
                self.state(channel)?.take_in_comparing(Comparing::Give(changes), name)
            }
            Message::Fetch(fetch) => self.state(fetch.channel)?.take_in_fetch(fetch),
            Message::Push(push) => {
                let client = self.client.expect("the welcome was for a client");
                self.state(push.channel)?.take_in_push(push, client)
            }
            Message::PullAck(ack) => self.state(ack.channel)?.take_in_ack(ack),
            Message::Welcome(_)
            | Message::PushAck(_)
            | Message::Pull(_)
            | Message::Fault(..)
            | Message::Answer
            | Message::Offer(_)
            | Message::Piece(_)
            | Message::Compared(_)
            | Message::Found(_)
            | Message::Given(_)
            | Message::Granted(_) => Err(Error::corrupt(format!("a {name} frame from a client"))),
        }
    }

    fn state(&mut self, channel: Channel) -> Result<&mut State> {
        let len = self.channels.len();
        self.channels
            .get_mut(channel.0 as usize)
            .ok_or_else(|| Error::corrupt(format!("channel {} of a connection with {len}", channel.0)))
    }

    fn next(&mut self) -> Result<Option<HubAction>> {
        if self.pong_due {
            self.pong_due = false;
            return Ok(Some(HubAction::Send(Message::Pong.encode()?)));
        }
        let Some(client) = self.client else { return Ok(None) };
        if self.admission == Admission::Due {
            self.admission = Admission::Asked { again: false };
            return Ok(Some(HubAction::Admit { token: self.token.clone() }));
        }
        if let Some(granted_ms) = self.granted_ms.take() {
            let left_ms = self.expires_ms.map(|expires_ms| expires_ms.saturating_sub(granted_ms));
            return Ok(Some(HubAction::Send(Message::Granted(left_ms).encode()?)));
        }
        if !self.welcome_sent {
            if self.admission != Admission::Done {
                return Ok(None);
            }
            for (index, state) in self.channels.iter_mut().enumerate() {
                if state.stage == Stage::Open {
                    state.stage = Stage::Opening;
                    return Ok(Some(HubAction::Open {
                        channel: Channel(index as u32),
                        name: state.collection.name.clone(),
                        spec: state.collection.spec.clone(),
                        part: state.collection.part.clone(),
                        create: self.options.create_collections,
                        client,
                    }));
                }
            }
            if self.channels.iter().any(|state| state.stage == Stage::Opening) {
                return Ok(None);
            }
            self.welcome_sent = true;
            if std::mem::take(&mut self.resuming) {
                for state in &mut self.channels {
                    state.go_on(client)?;
                }
                return self.next();
            }
            let collections = self.channels.iter_mut().filter_map(|state| state.answer.take()).collect();
            let capabilities = Capabilities::ALL.with(Capabilities::FILES, self.options.serves_files);
            let welcome = Message::Welcome(Welcome { replica: self.replica, capabilities, collections });
            return Ok(Some(HubAction::Send(welcome.encode()?)));
        }
        for (index, state) in self.channels.iter_mut().enumerate() {
            let action = state.next(Channel(index as u32), client)?;
            if action.is_some() {
                return Ok(action);
            }
        }
        if self.answer_due && self.channels.iter().all(State::has_answered) {
            self.answer_due = false;
            return Ok(Some(HubAction::Send(Message::Answer.encode()?)));
        }
        Ok(None)
    }
}

impl State {
    fn new(collection: HelloCollection) -> Self {
        Self {
            collection,
            stage: Stage::Open,
            answer: None,
            told: None,
            resting: None,
            fault_due: None,
            answered: Sequence(0),
            arrived: None,
            applying: None,
            ack_due: None,
            started: false,
            known: BTreeMap::new(),
            known_first: Arc::default(),
            pulled: Lsn(0),
            read: Lsn(0),
            sent: Lsn(0),
            left: true,
            reading: false,
            told_caught_up: false,
            partial: false,
            reshape: None,
            told_seen: false,
            asked: Asked::Nothing,
            outgoing: None,
            unanswered: Vec::new(),
            seeding: Seeding::Over,
            files: false,
            offer_due: None,
            fetches: VecDeque::new(),
            fetching: None,
            piece_due: None,
            comparing: Comparing::Nothing,
            compares: false,
            given: Vec::new(),
        }
    }

    fn fail(&mut self, error: &Error) {
        self.stage = Stage::Failed;
        self.fault_due = Some(Fault::from(error));
        self.outgoing = None;
        self.arrived = None;
        self.offer_due = None;
        self.fetches.clear();
        self.piece_due = None;
        if !matches!(self.comparing, Comparing::Doing { .. }) {
            self.comparing = Comparing::Nothing;
        }
    }

    /// Where it stands, when nothing is under way.
    fn rest(&self, client: ReplicaId) -> Option<RestingChannel> {
        let is_quiet = match self.stage {
            Stage::Open | Stage::Opening => false,
            Stage::Failed => self.fault_due.is_none(),
            Stage::Live => {
                let pushes = self.arrived.is_some() || self.applying.is_some() || self.ack_due.is_some();
                let pulls = self.reading || self.outgoing.is_some() || !self.unanswered.is_empty();
                let behind = self.started && (self.left || !self.told_caught_up || self.reshape.is_some());
                let seeds = self.seeding != Seeding::Over || self.offer_due.is_some();
                let pieces = !self.fetches.is_empty() || self.fetching.is_some() || self.piece_due.is_some();
                let compares = self.compares || !matches!(self.comparing, Comparing::Nothing);
                self.fault_due.is_none() && !(pushes || pulls || behind || seeds || pieces || compares)
            }
        };
        let HelloCollection { name, part: wanted, .. } = &self.collection;
        is_quiet.then(|| RestingChannel {
            name: name.clone(),
            wanted: wanted.clone(),
            told: self.told.clone().filter(|_| self.stage == Stage::Live),
            read: self.started.then_some(self.read),
            own: self.known.get(&client).copied().unwrap_or_default(),
        })
    }

    /// Takes up what another machine has left.
    fn go_on(&mut self, client: ReplicaId) -> Result<()> {
        self.answer = None;
        let RestingChannel { told: Some(told), read, own, .. } = self.resting.take().expect("all channels rested")
        else {
            return Ok(());
        };
        if self.stage != Stage::Live || self.told.as_ref() != Some(&told) {
            let name = &self.collection.name;
            let message =
                format!("collection {name:?} is not what it was when the connection came to rest: come again");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        if let Some(read) = read {
            (self.started, self.told_caught_up, self.told_seen) = (true, true, true);
            (self.read, self.sent, self.pulled) = (read, read, read);
        }
        self.known = BTreeMap::from([(client, own)]);
        self.known_first = Arc::new(self.known.clone());
        Ok(())
    }

    /// Whether all changes are sent that an answer comes behind.
    fn has_answered(&self) -> bool {
        match self.asked {
            _ if self.stage != Stage::Live => true,
            Asked::Nothing => true,
            Asked::Position | Asked::Reading => false,
            Asked::UpTo(_) if self.reshape.is_some() => false,
            Asked::UpTo(position) => self.read >= position && self.outgoing.is_none(),
        }
    }

    fn take_in_fetch(&mut self, fetch: Fetch) -> Result<()> {
        if self.stage == Stage::Failed {
            return Ok(());
        }
        let unanswered =
            self.fetches.len() + usize::from(self.fetching.is_some()) + usize::from(self.piece_due.is_some());
        if self.seeding != Seeding::Offered || unanswered >= FETCH_WINDOW {
            return Err(Error::corrupt(format!(
                "a fetch frame beside {unanswered} others; none was offered, or too many"
            )));
        }
        if fetch.len == 0 || fetch.len as usize > PIECE_BYTES_MAX {
            return Err(Error::corrupt(format!(
                "a fetch frame for {} bytes; 1 to {PIECE_BYTES_MAX} expected",
                fetch.len
            )));
        }
        self.fetches.push_back(fetch);
        Ok(())
    }

    fn take_in_comparing(&mut self, said: Comparing, name: &str) -> Result<()> {
        if self.stage == Stage::Failed {
            return Ok(());
        }
        if !self.started || !matches!(self.comparing, Comparing::Nothing) {
            return Err(Error::corrupt(format!("a {name} frame before the start, or the last answer of that kind")));
        }
        if let Comparing::Compare(ranges) = &said {
            self.compares = ranges.as_ref().is_none_or(|ranges| !ranges.is_empty());
        }
        self.comparing = said;
        Ok(())
    }

    /// What is to be done for a comparison.
    fn next_comparing(&mut self, channel: Channel, client: ReplicaId) -> Result<Option<HubAction>> {
        // A read that was asked for before would send back what is given.
        let waits = self.reading && matches!(self.comparing, Comparing::Give(_));
        if waits || matches!(self.comparing, Comparing::Nothing | Comparing::Doing { .. }) {
            return Ok(None);
        }
        let bytes = self.comparing.bytes();
        let said = std::mem::replace(&mut self.comparing, Comparing::Doing { bytes });
        Ok(Some(match said {
            Comparing::Compare(ranges) => HubAction::Compare { channel, ranges },
            Comparing::Lack(secret, items) => {
                HubAction::ReadItems { channel, secret, items, bytes_max: FOUND_BYTES_MAX }
            }
            Comparing::Give(changes) => HubAction::TakeIn { channel, changes, client },
            Comparing::Answer(message) => {
                self.comparing = Comparing::Nothing;
                HubAction::Send(message.encode()?)
            }
            Comparing::Nothing | Comparing::Doing { .. } => unreachable!("looked at above"),
        }))
    }

    fn take_in_start(&mut self, start: StartPull, segments: bool) -> Result<()> {
        // Once more after the segments.
        if self.started && self.seeding != Seeding::Offered {
            return Err(Error::corrupt(format!("a second start frame for channel {}", start.channel.0)));
        }
        // Segments hold rows of all parts.
        let whole = start.reshape.is_none() && !self.partial;
        self.seeding = if segments && whole && !self.started { Seeding::Unasked } else { Seeding::Over };
        self.fetches.clear();
        self.started = true;
        self.reshape = start.reshape.map(|reshape| (reshape, start.pulled));
        self.read = self.reshape.as_ref().map_or(start.pulled, |(reshape, _)| reshape.after);
        self.sent = self.read;
        self.pulled = start.pulled;
        self.known_first = Arc::new(start.known.clone());
        for (origin, sequence) in start.known {
            let known = self.known.entry(origin).or_default();
            *known = (*known).max(sequence);
        }
        Ok(())
    }

    fn take_in_push(&mut self, push: Push, client: ReplicaId) -> Result<()> {
        if self.stage == Stage::Failed {
            return Ok(());
        }
        if self.arrived.is_some() || self.applying.is_some() {
            return Err(Error::corrupt(format!("a push through {} before the last one was answered", push.through)));
        }
        let follows = push.origin != client || push.after <= self.answered;
        if !follows || push.through <= push.after || push.changes.is_empty() {
            return Err(Error::corrupt(format!(
                "a push of {} bytes after {} through {}; changes that follow on at most {} expected",
                push.changes.len(),
                push.after,
                push.through,
                self.answered
            )));
        }
        // What came from the client need not go back to it.
        let known = self.known.entry(push.origin).or_default();
        *known = (*known).max(push.through);
        self.arrived = Some(push);
        Ok(())
    }

    fn take_in_ack(&mut self, ack: PullAck) -> Result<()> {
        let position = self.unanswered.iter().position(|&lsn| lsn == ack.lsn);
        let Some(position) = position else {
            return Err(Error::corrupt(format!("an answer to a pull up to {} that was not sent", ack.lsn)));
        };
        self.unanswered.drain(..=position);
        self.pulled = ack.lsn;
        Ok(())
    }

    fn take_in_changes(&mut self, channel: Channel, changes: Changes) {
        let Changes { changes, lsn, newest, mut seen, left } = changes;
        if self.stage == Stage::Failed {
            return;
        }
        if self.asked == Asked::Reading {
            self.asked = Asked::UpTo(newest);
        }
        if let Some((Reshape { through, .. }, pulled)) = self.reshape {
            self.left = true;
            self.read = lsn;
            let ended = lsn >= through || lsn >= newest;
            if ended {
                self.reshape = None;
                self.read = pulled;
            }
            let tells = !changes.is_empty() || left.as_ref().is_some_and(|left| !left.is_empty());
            if tells || ended || lsn.0.abs_diff(self.sent.0) >= EMPTY_PULL_EVERY {
                let part = Some(PullPart { left: left.unwrap_or_default(), reshaped: Some(ended) });
                self.outgoing = Some(Pull { channel, lsn, caught_up: false, seen: BTreeMap::new(), changes, part });
            }
            return;
        }
        if self.read > newest {
            // This log has gone back, to an older backup: the client's position is of a past that is no more. What the client
            // knows is left out as ever.
            self.read = Lsn(0);
            self.left = true;
            return;
        }
        let caught_up = lsn >= newest;
        self.read = lsn;
        if caught_up {
            if !self.told_seen {
                // What the client has, and this side lacks, it is to hear of too.
                for origin in self.known.keys() {
                    seen.entry(*origin).or_default();
                }
            }
            seen.retain(|origin, sequence| self.known.get(origin) != Some(sequence));
            for (origin, sequence) in &seen {
                let known = self.known.entry(*origin).or_default();
                *known = (*known).max(*sequence);
            }
        } else {
            // Of what comes now nothing is told before the end, so then of all.
            self.left = true;
            seen.clear();
        }
        let untold = !std::mem::replace(&mut self.told_seen, caught_up) && !seen.is_empty();
        let position_off = lsn.0.abs_diff(self.sent.0) >= EMPTY_PULL_EVERY;
        let tells = !changes.is_empty() || untold || left.as_ref().is_some_and(|left| !left.is_empty());
        if tells || position_off || (caught_up && !self.told_caught_up) {
            let part = left.map(|left| PullPart { left, reshaped: None });
            self.outgoing = Some(Pull { channel, lsn, caught_up, seen, changes, part });
        }
    }

    fn next(&mut self, channel: Channel, client: ReplicaId) -> Result<Option<HubAction>> {
        if let Some(fault) = self.fault_due.take() {
            return Ok(Some(HubAction::Send(Message::Fault(Some(channel), fault).encode()?)));
        }
        if self.stage != Stage::Live {
            return Ok(None);
        }
        if let Some(ack) = self.ack_due.take() {
            return Ok(Some(HubAction::Send(Message::PushAck(ack).encode()?)));
        }
        if let Some(segments) = self.offer_due.take() {
            let files = self.files.then(|| FILES_PLACE.to_owned());
            return Ok(Some(HubAction::Send(Message::Offer(Offer { channel, segments, files }).encode()?)));
        }
        // Not beside a read: one that was asked for before the push came would send it back.
        if !self.reading
            && let Some(Push { origin, after, through, changes, .. }) = self.arrived.take()
        {
            self.applying = Some(Applying { origin, through, own: origin == client, bytes: changes.len() });
            let (pulled, known) = (self.pulled, self.known_first.clone());
            return Ok(Some(HubAction::Apply { channel, changes, client, origin, after, through, pulled, known }));
        }
        if let Some(pull) = self.outgoing.take() {
            let (lsn, caught_up) = (pull.lsn, pull.caught_up);
            return match Message::Pull(pull).encode() {
                Ok(frame) => {
                    self.sent = lsn;
                    self.told_caught_up = caught_up;
                    self.unanswered.push(lsn);
                    Ok(Some(HubAction::Send(frame)))
                }
                Err(error) => {
                    self.fail(&error);
                    self.next(channel, client)
                }
            };
        }
        let comparing = self.next_comparing(channel, client)?;
        if comparing.is_some() {
            return Ok(comparing);
        }
        if let Some(piece) = self.piece_due.take() {
            return Ok(Some(HubAction::Send(Message::Piece(piece).encode()?)));
        }
        if self.fetching.is_none()
            && let Some(fetch) = self.fetches.pop_front()
        {
            let Fetch { file, offset, len, .. } = fetch;
            self.fetching = Some(fetch);
            return Ok(Some(HubAction::ReadPiece { channel, file, offset, len }));
        }
        match self.seeding {
            Seeding::Over => {}
            Seeding::Unasked => {
                self.seeding = Seeding::Asked;
                return Ok(Some(HubAction::Offer { channel, after: self.read, known: self.known.clone() }));
            }
            Seeding::Asked | Seeding::Offered => return Ok(None),
        }
        if self.started && self.left && !self.reading && self.unanswered.len() < super::client::PULL_WINDOW {
            self.left = false;
            self.reading = true;
            if self.asked == Asked::Position {
                self.asked = Asked::Reading;
            }
            let (known, reshape) = (self.known.clone(), self.reshape.as_ref().map(|(reshape, _)| reshape.clone()));
            let (after, all_seen) = (self.read, !self.told_seen);
            let bytes_max = PULL_BYTES_MAX;
            self.given.retain(|lsn| *lsn > after);
            let given = self.given.clone();
            return Ok(Some(HubAction::Read { channel, after, known, given, bytes_max, all_seen, reshape }));
        }
        Ok(None)
    }
}
