use std::collections::{BTreeMap, VecDeque};

use super::keepalive::KeepAlive;
use super::message::{
    Capabilities, Channel, Hello, HelloCollection, Message, Part, Pull, PullAck, PullPart, Push, PushAck, Reshape,
    StartPull, Welcome, pack,
};
use super::reconcile::{Item, Items};
use super::reconciliation::{COMPARES, Reconciled, Reconciliation};
use super::seed::{Download, Seed, Want};
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, Sequence};

/// A welcome must come within this.
const WELCOME_WITHIN_MS: u64 = 20_000;
/// A hub that is silent for so long is asked for a sign of life.
const PING_AFTER_MS: u64 = 20_000;
/// And given up after so long, twice as long for each level of patience: one frame may take a slow network minutes.
const DEAD_AFTER_MS: u64 = 60_000;
/// A new token is got so long before the old one ends, or when a quarter of its time is left.
const REFRESH_BEFORE_MS_MAX: u64 = 60_000;
/// 17 minutes.
const PATIENCE_MAX: u32 = 4;
/// No more frames are wanted while so much waits to be applied.
pub(super) const WAITING_BYTES_MAX: usize = 8 << 20;
/// A read of own changes stops when it is past this.
const PUSH_BYTES_MAX: usize = 512 << 10;
/// What a read of one batch is limited to: a batch is never split, and any is past this.
const ONE_BATCH: usize = 1;
/// Pulls that the hub may have on the way; more are a violation.
pub(super) const PULL_WINDOW: usize = 2;
/// What failed for a passing reason is tried again after 1 s, 2 s, 4 s, ..., and then once in this.
const RETRY_MS_MAX: u64 = 60_000;

/// A collection that a client syncs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCollection {
    /// Its name.
    pub name: String,
    /// Its specification as JSON; `None` when it does not exist here yet.
    pub spec: Option<String>,
    /// The part of its rows that is wanted, for the database; `None` for all.
    pub part: Option<String>,
}

/// Where a client stands with a hub: the answer to [`ClientAction::Open`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// The hub's log up to here is here, durably.
    pub pulled: Lsn,
    /// Own batches up to here are at some hub, as was noted here, and were here then: a hub that has more knows of a past that this side may
    /// have lost. Where not all rows are here, at this hub.
    pub pushed: Sequence,
    /// All changes of these origins up to these sequences are here.
    pub known: BTreeMap<ReplicaId, Sequence>,
    /// Another part was here before.
    pub reshape: Option<Reshape>,
    /// The newest own batch that is here.
    pub own: Sequence,
    /// Whether what is here of others can have come from this hub only: then a hub that has less of it has lost it.
    pub alone: bool,
}

/// Own changes: the answer to [`ClientAction::ReadOwn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnChanges {
    /// An encoded change set; empty when there is no change left.
    pub changes: Vec<u8>,
    /// The sequence that they reach.
    pub through: Sequence,
}

/// Changes that others have pushed here and the hub lacks: the answer to [`ClientAction::ReadRelay`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Who wrote them.
    pub origin: ReplicaId,
    /// They follow on this sequence,
    pub after: Sequence,
    /// and reach this one.
    pub through: Sequence,
    /// An encoded change set; empty when none of them lives.
    pub changes: Vec<u8>,
}

/// Own changes that the hub refused for good. They stay here; the hub and other replicas do not get them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which collection.
    pub collection: String,
    /// After this sequence,
    pub after: Sequence,
    /// up to this one.
    pub through: Sequence,
    /// Why.
    pub error: Error,
}

/// What happened at the client.
#[derive(Debug)]
pub enum ClientInput {
    /// The hub sent a frame.
    Frame(Vec<u8>),
    /// The local log of a collection moved on (whoever wrote).
    Changed(Channel),
    /// [`ClientAction::Open`] is done.
    Opened(Channel, Result<Start>),
    /// [`ClientAction::ReadOwn`] is done.
    Own(Channel, Result<OwnChanges>),
    /// [`ClientAction::ReadRelay`] is done; `None` when the hub lacks nothing.
    Relay(Channel, Result<Option<Relay>>),
    /// [`ClientAction::Apply`] is done, durably.
    Applied(Channel, Result<()>),
    /// [`ClientAction::MarkPushed`] is done.
    Marked(Channel, Result<()>),
    /// [`ClientAction::Plan`] is done: what is to be fetched, in order.
    Planned(Channel, Result<Vec<Want>>),
    /// [`ClientAction::Download`] of the piece of a file that begins at a byte is done: what came, which may be less, or nothing.
    Downloaded(Channel, u32, u64, Vec<u8>),
    /// [`ClientAction::Store`] is done; perhaps a file has to be fetched again, of which a crash had left something else, or plain requests
    /// brought it.
    Stored(Channel, Result<Option<Want>>),
    /// [`ClientAction::EndSeed`] is done, durably.
    Seeded(Channel, Result<Start>),
    /// [`ClientAction::Refresh`] is done.
    Token(Result<String>),
    /// [`ClientAction::Summarize`] is done.
    Summarized(Channel, Result<Items>),
    /// [`ClientAction::TakeIn`] is done, durably: so many changes won.
    TakenIn(Channel, Result<u64>),
    /// [`ClientAction::ReadItems`] is done: how many of them were looked at, one at least, and an encoded change set of those that are
    /// still the newest of their key, or nothing.
    ItemsRead(Channel, Result<(usize, Vec<u8>)>),
}

/// What a client wants done. Each but `Send`, `Refused`, `Reconciled` and `Close` is answered with one input; there is never more than one
/// of a kind under way for a collection, but for downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAction {
    /// Send a frame.
    Send(Vec<u8>),
    /// Create the collection from `spec` when there is one, then tell where it stands with `hub`.
    Open {
        /// Which collection.
        channel: Channel,
        /// Which hub: by [`Client::hub_of`], here and below.
        hub: ReplicaId,
        /// The hub's specification as JSON when this side lacks the collection.
        spec: Option<String>,
        /// The part of the rows that the hub sends, where these are not all: what is here of others goes.
        part: Option<Part>,
    },
    /// Read this replica's own changes after `after`.
    ReadOwn {
        /// Which collection.
        channel: Channel,
        /// From here.
        after: Sequence,
        /// Until this is exceeded; with 1, one batch.
        bytes_max: usize,
    },
    /// Where this store is a hub itself: read changes of an origin that has more here than at the hub, which has all up to the sequences
    /// in `there`. Only what this side has claimed to have whole counts.
    ReadRelay {
        /// Which collection.
        channel: Channel,
        /// What the hub has of whom; of others nothing.
        there: BTreeMap<ReplicaId, Sequence>,
        /// Until this is exceeded; with 1, one batch.
        bytes_max: usize,
    },
    /// Apply changes durably and move the pull position in the same step.
    Apply {
        /// Which collection.
        channel: Channel,
        /// An encoded change set, or nothing: then only the position moves.
        changes: Vec<u8>,
        /// Whose position to move.
        hub: ReplicaId,
        /// Where to.
        lsn: Lsn,
        /// What else the hub tells, where only a part of the rows is wanted.
        part: Option<PullPart>,
        /// With them, all changes of these origins up to these sequences are here. Of no other origin may that be concluded from the
        /// changes: the hub may have got them out of order.
        seen: BTreeMap<ReplicaId, Sequence>,
        /// What the hub had before, of this side's own changes and of others': what is here beyond that, the writers of these changes had
        /// not seen.
        there: BTreeMap<ReplicaId, Sequence>,
    },
    /// Note that own batches up to `sequence` are at `hub`, or set aside.
    MarkPushed {
        /// Which collection.
        channel: Channel,
        /// Which hub.
        hub: ReplicaId,
        /// Up to here.
        sequence: Sequence,
    },
    /// Look which files of an offer of segments are not here.
    Plan {
        /// Which collection.
        channel: Channel,
        /// Whose segments.
        hub: ReplicaId,
        /// What [`super::Offer::segments`] says.
        offer: Vec<u8>,
    },
    /// Get a piece of a file by a plain request. Only after [`Client::allow_downloads`], and at most [`super::DOWNLOAD_WINDOW`] at a time.
    Download {
        /// Which collection.
        channel: Channel,
        /// Which file of the offer.
        file: u32,
        /// Where it lies, below the hub's place.
        path: String,
        /// From this byte,
        offset: u64,
        /// so many.
        len: u64,
    },
    /// Store a piece of a file; when that makes a segment whole, take it into the collection, durably.
    Store {
        /// Which collection.
        channel: Channel,
        /// Which file of the offer.
        file: u32,
        /// From this byte: where the last piece of this file ended.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
        /// A plain request brought them.
        by_request: bool,
    },
    /// All pieces are stored: move the pull position to where the segments end, and tell where it stands.
    EndSeed {
        /// Which collection.
        channel: Channel,
        /// Whose segments they were.
        hub: ReplicaId,
    },
    /// Get a new token: the one that was given ends soon.
    Refresh,
    /// Tell what is here, each change by its timestamp and a hash of its key and version under that key: an error where that is not all
    /// that the hub has.
    Summarize {
        /// Which collection.
        channel: Channel,
        /// The key.
        secret: [u64; 2],
    },
    /// Apply changes durably, by their versions alone: nothing follows from their sequences.
    TakeIn {
        /// Which collection.
        channel: Channel,
        /// An encoded change set.
        changes: Vec<u8>,
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
    /// A comparison has ended, for all who have asked up to a mark, or because something was missing.
    Reconciled {
        /// Which collection.
        channel: Channel,
        /// The greatest mark for which it was begun; 0 where nobody had asked.
        mark: u64,
        /// What it has changed.
        result: Result<Reconciled>,
    },
    /// Tell the application.
    Refused(Refusal),
    /// Close the connection: it is over.
    Close(Error),
}

/// The client's end of one connection.
#[derive(Debug)]
pub struct Client {
    replica: ReplicaId,
    hub: Option<ReplicaId>,
    /// What the hub can do.
    capabilities: Capabilities,
    /// Whether plain requests can be made.
    downloads: bool,
    channels: Vec<State>,
    keep_alive: KeepAlive,
    started_ms: u64,
    hello_sent: bool,
    pong_due: bool,
    /// The moment for which the hub is to be asked; the one for which it was, and has not answered.
    wanted: u64,
    asked: Option<u64>,
    refusals: VecDeque<Refusal>,
    reconciled: VecDeque<(Channel, u64, Result<Reconciled>)>,
    tokens: Tokens,
    end: Option<Error>,
    silence: bool,
    closed: bool,
}

/// Who this client is, where hubs ask.
#[derive(Debug, Default)]
struct Tokens {
    /// To be sent.
    due: Option<String>,
    given: bool,
    /// When a new one is to be got.
    refresh_ms: Option<u64>,
    refreshing: bool,
    retry: Retry,
}

#[derive(Debug)]
struct State {
    collection: ClientCollection,
    hub: ReplicaId,
    stage: Stage,
    /// Why the stage is `Failed`.
    failure: Option<Error>,

    /// The next push follows on this: what the hub has answered for.
    pushed: Sequence,
    /// Own changes up to here are pushed, set aside, or gone (overwritten).
    read: Sequence,
    reading: bool,
    /// Whether there may be own changes after `read`.
    own_left: bool,
    outgoing: Option<Outgoing>,
    /// A refused push reached this: one batch at a time up to here, to find the one that is refused.
    narrow: Sequence,
    push_retry: Retry,
    relaying: Relaying,
    marked: Sequence,
    marking: bool,
    mark_retry: Retry,

    arrived: VecDeque<Pull>,
    applying: bool,
    pull_retry: Retry,
    /// The hub's changes come first: see [`State::take_in_start`].
    recovering: bool,
    /// Own batches up to here were noted to be at a hub when the connection began.
    noted: Sequence,
    /// Segments are on their way, and pulls come after them.
    seed: Option<Seed>,
    /// What was here of others when it began that the hub must have had.
    witnessed: BTreeMap<ReplicaId, Sequence>,
    /// Where the hub's log was.
    pulled: Lsn,
    /// The hub has, or sends, a part of the rows.
    partial: bool,
    /// Both sides are to be compared, for all wishes up to this.
    to_reconcile: Option<u64>,
    reconciliation: Option<Reconciliation>,
    ack_due: Option<Lsn>,
    caught_up: bool,
    /// A moment of which everything arrived that the hub had, and how many of the pulls that wait have to be applied for it.
    arriving: Option<(u64, usize)>,
    reached: u64,
}

/// What others have pushed to this store, on its way to the hub.
#[derive(Debug, Default)]
struct Relaying {
    /// The hub does not take it from this store.
    forbidden: bool,
    /// What the hub has of others, once it has told that.
    there: BTreeMap<ReplicaId, Sequence>,
    told: bool,
    /// What was read of whom beyond that and not pushed: nothing of it lives, or it was refused.
    passed: BTreeMap<ReplicaId, Sequence>,
    /// Whether there may be something that it lacks.
    left: bool,
    /// A refused push of this origin reached this: one batch at a time up to here.
    narrow: Option<(ReplicaId, Sequence)>,
    /// Why the last batch was refused that was left out.
    refused: Option<Error>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Before the welcome, or before its answer to `Open`.
    Waiting,
    /// After the welcome: `Open` is to be asked.
    Open {
        spec: Option<String>,
        part: Option<Part>,
    },
    /// The start frame is to be sent.
    Start(Start),
    Live,
    Failed,
}

#[derive(Debug)]
struct Outgoing {
    /// Who wrote it, and what it follows on, when it was somebody else.
    relayed: Option<(ReplicaId, Sequence)>,
    through: Sequence,
    changes: Vec<u8>,
    /// Whether it is one batch, as far as we know.
    narrow: bool,
    sent: bool,
}

/// What failed for a passing reason, and when to try it again.
#[derive(Debug, Default, Clone)]
struct Retry {
    error: Option<Error>,
    attempt: u32,
    at_ms: u64,
}

impl Retry {
    fn failed(&mut self, error: Error, now_ms: u64) {
        self.error = Some(error);
        self.at_ms = now_ms + (1_000u64 << self.attempt.min(16)).min(RETRY_MS_MAX);
        self.attempt += 1;
    }

    fn pending(&self, now_ms: u64) -> bool {
        now_ms < self.at_ms
    }
}

/// Whether the same push would be refused again by any healthy hub: then it is set aside instead of holding up the rest.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::InvalidArgument | ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Forbidden
    )
}

fn unsupported(message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message)
}

/// The id of one collection's life at a hub, in the 53 bits of replica ids. Mixed by Vigna's splitmix64.
fn incarnated(hub: ReplicaId, incarnation: u64) -> ReplicaId {
    let mut mixed = hub.0 ^ incarnation.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ReplicaId((mixed ^ (mixed >> 31)) & ((1 << 53) - 1))
}

impl Client {
    /// The client's end of a connection that was just made. `replica` is this replica; `patience` is how many connections in
    /// a row ended in silence: each makes this one wait longer for a frame.
    pub fn new(replica: ReplicaId, collections: Vec<ClientCollection>, patience: u32, now_ms: u64) -> Self {
        let dead_after_ms = DEAD_AFTER_MS << patience.min(PATIENCE_MAX);
        Self {
            replica,
            hub: None,
            capabilities: Capabilities::default(),
            downloads: false,
            channels: collections.into_iter().map(State::new).collect(),
            keep_alive: KeepAlive::new(now_ms, Some(PING_AFTER_MS), dead_after_ms),
            started_ms: now_ms,
            hello_sent: false,
            pong_due: false,
            wanted: 0,
            asked: None,
            refusals: VecDeque::new(),
            reconciled: VecDeque::new(),
            tokens: Tokens::default(),
            end: None,
            silence: false,
            closed: false,
        }
    }

    /// Has the hub told who this is, before anything else.
    pub fn show(&mut self, token: String) {
        self.tokens.due = Some(token);
        self.tokens.given = true;
    }

    /// Files of segments may also be had by plain requests: [`ClientAction::Download`]. To be told before anything else.
    pub fn allow_downloads(&mut self) {
        self.downloads = true;
    }

    /// Takes in what happened.
    pub fn receive(&mut self, input: ClientInput, now_ms: u64) {
        if self.end.is_some() {
            return;
        }
        if !self.wants_frame() {
            // Only silence while we listen counts.
            self.keep_alive.heard(now_ms);
        }
        if let Err(error) = self.take_in(input, now_ms) {
            self.end = Some(error);
        }
    }

    /// What to do next; `None` until something happens, or [`Client::deadline_ms`] comes.
    pub fn poll(&mut self, now_ms: u64) -> Option<ClientAction> {
        if self.closed {
            return None;
        }
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(ClientAction::Refused(refusal));
        }
        if let Some((channel, mark, result)) = self.reconciled.pop_front() {
            return Some(ClientAction::Reconciled { channel, mark, result });
        }
        if self.end.is_none() {
            self.end = self.keep_alive.dead(now_ms).or_else(|| self.welcome_missing(now_ms));
            self.silence = self.end.is_some();
        }
        if let Some(error) = &self.end {
            self.closed = true;
            return Some(ClientAction::Close(error.clone()));
        }
        match self.next(now_ms) {
            Ok(Some(ClientAction::Send(frame))) => Some(ClientAction::Send(pack(frame, self.capabilities))),
            Ok(action) => action,
            Err(error) => {
                self.end = Some(error);
                self.poll(now_ms)
            }
        }
    }

    /// When to poll again although nothing happened.
    pub fn deadline_ms(&self) -> u64 {
        let mut deadline_ms = self.keep_alive.deadline_ms();
        if self.hub.is_none() {
            deadline_ms = deadline_ms.min(self.started_ms + WELCOME_WITHIN_MS);
        }
        deadline_ms = self
            .tokens
            .refresh_ms
            .filter(|_| !self.tokens.refreshing)
            .map_or(deadline_ms, |at_ms| deadline_ms.min(at_ms));
        self.channels.iter().filter_map(State::deadline_ms).fold(deadline_ms, u64::min)
    }

    /// Whether to hand in further frames; otherwise they wait in the network until what is here is applied.
    pub fn wants_frame(&self) -> bool {
        let waiting = self.channels.iter().flat_map(|state| &state.arrived).map(|pull| pull.changes.len());
        let seeds = self.channels.iter().filter_map(|state| state.seed.as_ref()).map(Seed::waiting_bytes);
        let missing = self.channels.iter().filter_map(|state| state.reconciliation.as_ref());
        let missing = missing.map(Reconciliation::waiting_bytes);
        waiting.chain(seeds).chain(missing).sum::<usize>() < WAITING_BYTES_MAX
    }

    /// Has both sides of a collection compared, once the client has what the hub sends anyhow; [`ClientAction::Reconciled`] tells a mark
    /// that is at least this one when it is done. Marks ascend; 0 for a comparison that nobody waits for.
    pub fn reconcile(&mut self, channel: Channel, mark: u64) {
        if let Some(state) = self.channels.get_mut(channel.0 as usize) {
            state.to_reconcile = state.to_reconcile.max(Some(mark));
        }
    }

    /// Whether a comparison is under way, or is to come.
    pub fn is_reconciling(&self, channel: Channel) -> bool {
        let state = self.channels.get(channel.0 as usize);
        state.is_some_and(|state| state.to_reconcile.is_some() || state.reconciliation.is_some())
    }

    /// What the comparison that is under way has changed so far.
    pub fn reconciling(&self, channel: Channel) -> Reconciled {
        let state = self.channels.get(channel.0 as usize);
        state.and_then(|state| state.reconciliation.as_ref()).map(|under_way| under_way.done).unwrap_or_default()
    }

    /// How far the download of a collection's segments is, while there is one.
    pub fn download(&self, channel: Channel) -> Option<Download> {
        Some(self.channels.get(channel.0 as usize)?.seed.as_ref()?.download())
    }

    /// The hub, once it said welcome.
    pub fn hub(&self) -> Option<ReplicaId> {
        self.hub
    }

    /// By which id a collection's positions with this hub are kept, once welcome: one that the hub dropped and made anew is
    /// another hub to it, whose log starts again.
    pub fn hub_of(&self, channel: Channel) -> Option<ReplicaId> {
        self.hub?;
        self.channels.get(channel.0 as usize).filter(|state| state.stage != Stage::Failed).map(|state| state.hub)
    }

    /// Whether everything that was there to send is at the hub, and everything that the hub has is here.
    pub fn caught_up(&self) -> bool {
        self.hub.is_some() && self.channels.iter().all(State::caught_up)
    }

    /// Has the hub asked, so that [`Client::reached`] comes to be `mark`, a moment that is given: moments ascend.
    pub fn ask(&mut self, mark: u64) {
        self.wanted = self.wanted.max(mark);
    }

    /// The last moment that was [asked](Client::ask) for and of which everything is here that the hub had; 0 for none.
    pub fn reached(&self, channel: Channel) -> u64 {
        self.channels.get(channel.0 as usize).map_or(0, |state| state.reached)
    }

    /// Whether changes came of which the hub has more to send: they may lack what replaced some of them.
    pub fn is_amid(&self, channel: Channel) -> bool {
        let amid = |state: &State| state.stage == Stage::Live && !state.caught_up;
        self.channels.get(channel.0 as usize).is_some_and(amid)
    }

    /// What is wrong with a collection; the others go on.
    pub fn errors(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.channels.iter().filter_map(|state| Some((state.collection.name.as_str(), state.error()?)))
    }

    /// Whether a collection is out of the session until the next connection.
    pub fn failed(&self) -> bool {
        self.channels.iter().any(|state| state.stage == Stage::Failed)
    }

    /// Whether that one has.
    pub fn has_failed(&self, channel: Channel) -> bool {
        self.channels.get(channel.0 as usize).is_some_and(|state| state.stage == Stage::Failed)
    }

    /// Whether the connection ended because the hub said nothing for too long.
    pub fn ended_in_silence(&self) -> bool {
        self.silence
    }

    /// Own batches of a collection up to here need not be waited for: they are at the hub, set aside, or overwritten. `None`
    /// before the welcome, and for a collection that failed.
    pub fn settled(&self, channel: Channel) -> Option<Sequence> {
        self.hub?;
        self.channels.get(channel.0 as usize).filter(|state| state.stage != Stage::Failed).map(|state| state.read)
    }

    fn welcome_missing(&self, now_ms: u64) -> Option<Error> {
        let waited_ms = now_ms.saturating_sub(self.started_ms);
        (self.hub.is_none() && waited_ms >= WELCOME_WITHIN_MS).then(|| {
            Error::new(ErrorKind::Unavailable, format!("no welcome from the hub within {WELCOME_WITHIN_MS} ms"))
        })
    }

    fn take_in(&mut self, input: ClientInput, now_ms: u64) -> Result<()> {
        match input {
            ClientInput::Frame(frame) => {
                self.keep_alive.heard(now_ms);
                self.take_in_message(Message::decode(&frame)?, now_ms)
            }
            ClientInput::Changed(channel) => {
                let state = self.state(channel)?;
                state.own_left = true;
                state.relaying.left = true;
                Ok(())
            }
            ClientInput::Relay(channel, result) => {
                let state = self.state(channel)?;
                state.reading = false;
                match result {
                    Ok(relay) => state.take_in_relay(relay),
                    Err(error) => {
                        state.relaying.left = true;
                        state.push_retry.failed(error, now_ms);
                    }
                }
                Ok(())
            }
            ClientInput::Opened(channel, result) => {
                let (replica, hub) = (self.replica, self.hub.unwrap_or_default());
                let state = self.state(channel)?;
                match result {
                    Ok(start) => state.take_in_start(start, replica, hub),
                    Err(error) => state.fail(error),
                }
                Ok(())
            }
            ClientInput::Own(channel, result) => {
                let state = self.state(channel)?;
                state.reading = false;
                match result {
                    Ok(own) => state.take_in_own(own, now_ms),
                    Err(error) => {
                        state.own_left = true;
                        state.push_retry.failed(error, now_ms);
                    }
                }
                Ok(())
            }
            ClientInput::Applied(channel, result) => {
                let replica = self.replica;
                let state = self.state(channel)?;
                state.applying = false;
                match result {
                    Ok(()) => {
                        state.pull_retry = Retry::default();
                        let pull = state.arrived.pop_front().expect("a pull stays until it is applied");
                        state.look_for_loss(&pull);
                        // Own changes that a comparison has brought are part of the sequence once the hub has told that it has all of it.
                        state.own_left |= pull.seen.contains_key(&replica);
                        state.ack_due = Some(pull.lsn);
                        state.caught_up = pull.caught_up;
                        state.relaying.learn(&pull);
                        state.came();
                        state.recovering &= !pull.caught_up;
                    }
                    // Never skipped: a position must not run ahead of its changes. The pull is kept and tried again.
                    Err(error) => state.pull_retry.failed(error, now_ms),
                }
                Ok(())
            }
            ClientInput::Marked(channel, result) => {
                let state = self.state(channel)?;
                state.marking = false;
                match result {
                    Ok(()) => state.mark_retry = Retry::default(),
                    Err(error) => {
                        state.marked = Sequence(0);
                        state.mark_retry.failed(error, now_ms);
                    }
                }
                Ok(())
            }
            ClientInput::Planned(channel, result) => {
                let state = self.state(channel)?;
                match (result, &mut state.seed) {
                    (Ok(wants), Some(seed)) => seed.take_in_plan(wants),
                    (Err(error), _) => state.fail(error),
                    (Ok(_), None) => {}
                }
                Ok(())
            }
            ClientInput::Downloaded(channel, file, offset, bytes) => {
                if let Some(seed) = &mut self.state(channel)?.seed {
                    seed.take_in_download(file, offset, bytes);
                }
                Ok(())
            }
            ClientInput::Stored(channel, result) => {
                let state = self.state(channel)?;
                match (result, &mut state.seed) {
                    (Ok(again), Some(seed)) => seed.stored(again),
                    // What is whole is kept: the next connection goes on from there.
                    (Err(error), _) => state.fail(error),
                    (Ok(_), None) => {}
                }
                Ok(())
            }
            ClientInput::Summarized(channel, result) => {
                self.go_on_reconciling(channel, |under_way| under_way.take_in_items(result?))
            }
            ClientInput::TakenIn(channel, result) => self.go_on_reconciling(channel, |under_way| {
                under_way.taken_in(result?);
                Ok(())
            }),
            ClientInput::ItemsRead(channel, result) => self.go_on_reconciling(channel, |under_way| {
                let (done, changes) = result?;
                under_way.take_in_read(done, changes)
            }),
            ClientInput::Token(result) => {
                self.tokens.refreshing = false;
                match result {
                    Ok(token) => {
                        self.tokens.refresh_ms = None;
                        self.tokens.retry = Retry::default();
                        self.show(token);
                    }
                    // The hub ends the connection when none comes in time, and says why.
                    Err(error) => {
                        self.tokens.retry.failed(error, now_ms);
                        self.tokens.refresh_ms = Some(self.tokens.retry.at_ms);
                    }
                }
                Ok(())
            }
            ClientInput::Seeded(channel, result) => {
                let replica = self.replica;
                let state = self.state(channel)?;
                state.seed = None;
                match result {
                    Ok(mut start) => {
                        state.pulled = start.pulled;
                        if state.recovering {
                            start.known.insert(replica, state.noted);
                        }
                        state.stage = Stage::Start(start);
                    }
                    Err(error) => state.fail(error),
                }
                Ok(())
            }
        }
    }

    fn take_in_message(&mut self, message: Message, now_ms: u64) -> Result<()> {
        match message {
            Message::Welcome(welcome) => self.take_in_welcome(welcome),
            Message::PushAck(ack) => {
                let state = self.state(ack.channel)?;
                let refusal = state.take_in_ack(ack, now_ms)?;
                self.refusals.extend(refusal);
                Ok(())
            }
            Message::Pull(pull) => {
                let state = self.state(pull.channel)?;
                match state.stage {
                    Stage::Live => {}
                    Stage::Failed => return Ok(()),
                    _ => return Err(Error::corrupt("a pull frame before the start frame")),
                }
                if state.seed.is_some() {
                    return Err(Error::corrupt("a pull frame while segments are on their way"));
                }
                if state.arrived.len() >= PULL_WINDOW {
                    return Err(Error::corrupt(format!("more than {PULL_WINDOW} unanswered pull frames")));
                }
                state.caught_up = false;
                state.arrived.push_back(pull);
                Ok(())
            }
            Message::Offer(mut offer) => {
                offer.files = offer.files.filter(|_| self.downloads);
                let state = self.state(offer.channel)?;
                match state.stage {
                    Stage::Failed => Ok(()),
                    Stage::Live if state.seed.is_none() && state.arrived.is_empty() => {
                        state.seed = Some(Seed::new(offer));
                        Ok(())
                    }
                    _ => Err(Error::corrupt("an offer frame out of turn")),
                }
            }
            Message::Piece(piece) => {
                let state = self.state(piece.channel)?;
                match &mut state.seed {
                    Some(seed) => seed.take_in_piece(piece),
                    None if state.stage == Stage::Failed => Ok(()),
                    None => Err(Error::corrupt("a piece frame without an offer")),
                }
            }
            Message::Fault(None, fault) => Err(fault.into()),
            Message::Fault(Some(channel), fault) => {
                self.state(channel)?.fail(fault.into());
                Ok(())
            }
            Message::Ping => {
                self.pong_due = true;
                Ok(())
            }
            Message::Pong => Ok(()),
            Message::Granted(left_ms) => {
                // A quarter of its time before it ends, or a minute.
                let before = |left_ms: u64| now_ms + left_ms - (left_ms / 4).min(REFRESH_BEFORE_MS_MAX);
                self.tokens.refresh_ms = left_ms.filter(|left_ms| *left_ms < u64::MAX / 2).map(before);
                Ok(())
            }
            Message::Answer => {
                if let Some(mark) = self.asked.take() {
                    for state in self.channels.iter_mut().filter(|state| state.stage == Stage::Live) {
                        state.arriving = Some((mark, state.arrived.len() + 1));
                        state.came();
                    }
                }
                Ok(())
            }
            Message::Compared(compared) if COMPARES => {
                self.expect_reconciliation(compared.channel, "compared")?;
                self.go_on_reconciling(compared.channel, |under_way| under_way.take_in_compared(compared))
            }
            Message::Found(found) if COMPARES => {
                self.expect_reconciliation(found.channel, "found")?;
                self.go_on_reconciling(found.channel, |under_way| under_way.take_in_found(found))
            }
            Message::Given(given) if COMPARES => {
                self.expect_reconciliation(given.channel, "given")?;
                self.go_on_reconciling(given.channel, |under_way| under_way.take_in_given(given))
            }
            Message::Hello(_)
            | Message::Compare(_)
            | Message::Compared(_)
            | Message::Found(_)
            | Message::Given(_)
            | Message::Lack(_)
            | Message::Give(_)
            | Message::Start(_)
            | Message::Push(_)
            | Message::PullAck(_)
            | Message::Ask
            | Message::Token(_)
            | Message::Fetch(_) => Err(Error::corrupt(format!("a {} frame from a hub", message.name()))),
        }
    }

    /// Whatever goes wrong in a comparison ends nothing else.
    fn go_on_reconciling(
        &mut self,
        channel: Channel,
        step: impl FnOnce(&mut Reconciliation) -> Result<()>,
    ) -> Result<()> {
        let state = self.state(channel)?;
        let Some(under_way) = state.reconciliation.as_mut().filter(|_| COMPARES) else {
            // The collection has failed meanwhile.
            return Ok(());
        };
        if let Err(error) = step(under_way) {
            let mark = under_way.mark;
            state.reconciliation = None;
            self.reconciled.push_back((channel, mark, Err(error)));
        }
        Ok(())
    }

    fn expect_reconciliation(&mut self, channel: Channel, name: &str) -> Result<()> {
        let state = self.state(channel)?;
        if state.reconciliation.is_none() && state.stage != Stage::Failed {
            return Err(Error::corrupt(format!("a {name} frame, and nothing is compared")));
        }
        Ok(())
    }

    fn take_in_welcome(&mut self, welcome: Welcome) -> Result<()> {
        if self.hub.is_some() {
            return Err(Error::corrupt("a second welcome frame"));
        }
        if welcome.collections.len() != self.channels.len() {
            return Err(Error::corrupt(format!(
                "a welcome frame with {} collections; {} were asked for",
                welcome.collections.len(),
                self.channels.len()
            )));
        }
        if welcome.replica == self.replica {
            return Err(Error::invalid(format!("the hub has this replica's own id {}: one is a copy", self.replica)));
        }
        self.hub = Some(welcome.replica);
        self.capabilities = welcome.capabilities;
        for (state, answer) in self.channels.iter_mut().zip(welcome.collections) {
            if let Some(fault) = answer.error {
                state.fail(fault.into());
                continue;
            }
            if state.collection.spec.is_none() && answer.spec.is_none() {
                state
                    .fail(Error::corrupt("a welcome frame without the specification of a collection that is new here"));
                continue;
            }
            state.hub = incarnated(welcome.replica, answer.incarnation);
            state.pushed = answer.acknowledged;
            state.read = answer.acknowledged;
            state.partial = answer.part.is_some();
            let spec = answer.spec.filter(|_| state.collection.spec.is_none());
            state.stage = Stage::Open { spec, part: answer.part };
        }
        Ok(())
    }

    fn state(&mut self, channel: Channel) -> Result<&mut State> {
        let len = self.channels.len();
        self.channels
            .get_mut(channel.0 as usize)
            .ok_or_else(|| Error::corrupt(format!("channel {} of a connection with {len}", channel.0)))
    }

    fn next(&mut self, now_ms: u64) -> Result<Option<ClientAction>> {
        if let Some(token) = self.tokens.due.take() {
            return Ok(Some(ClientAction::Send(Message::Token(token).encode()?)));
        }
        if self.tokens.given && !self.tokens.refreshing && self.tokens.refresh_ms.is_some_and(|at_ms| now_ms >= at_ms) {
            self.tokens.refreshing = true;
            return Ok(Some(ClientAction::Refresh));
        }
        if !self.hello_sent {
            self.hello_sent = true;
            let collections = self.channels.iter().map(|state| HelloCollection {
                name: state.collection.name.clone(),
                spec: state.collection.spec.clone(),
                part: state.collection.part.clone(),
            });
            let capabilities = Capabilities::ALL.with(Capabilities::FILES, self.downloads);
            let hello = Hello { replica: self.replica, capabilities, collections: collections.collect() };
            return Ok(Some(ClientAction::Send(Message::Hello(hello).encode()?)));
        }
        if self.pong_due {
            self.pong_due = false;
            return Ok(Some(ClientAction::Send(Message::Pong.encode()?)));
        }
        if self.hub.is_some() {
            for (index, state) in self.channels.iter_mut().enumerate() {
                let channel = Channel(index as u32);
                let (action, refusal) = state.next(channel, self.replica, now_ms)?;
                self.refusals.extend(refusal);
                if action.is_some() {
                    return Ok(action);
                }
                let (action, ended) = state.next_of_reconciliation(channel, self.capabilities);
                if let Some((mark, result)) = ended {
                    return Ok(Some(ClientAction::Reconciled { channel, mark, result }));
                }
                if action.is_some() {
                    return Ok(action);
                }
            }
            if let Some(refusal) = self.refusals.pop_front() {
                return Ok(Some(ClientAction::Refused(refusal)));
            }
        }
        let ready = |state: &State| matches!(state.stage, Stage::Live | Stage::Failed);
        let wants = self.asked.is_none() && self.hub.is_some() && self.channels.iter().all(ready);
        let behind = |state: &State| state.stage == Stage::Live && state.reached < self.wanted;
        if wants && self.channels.iter().any(|state| behind(state) && state.arriving.is_none()) {
            self.asked = Some(self.wanted);
            return Ok(Some(ClientAction::Send(Message::Ask.encode()?)));
        }
        if self.keep_alive.ping_due(now_ms) {
            return Ok(Some(ClientAction::Send(Message::Ping.encode()?)));
        }
        Ok(None)
    }
}

impl Relaying {
    /// What the hub had, and of whom, when it sent that. When it tells that for the first time, it says all.
    fn there_with(&self, pull: &Pull) -> BTreeMap<ReplicaId, Sequence> {
        let mut there = self.there.clone();
        for (origin, sequence) in &pull.seen {
            let there = there.entry(*origin).or_default();
            *there = if self.told { (*there).max(*sequence) } else { *sequence };
        }
        there
    }

    /// Takes what the hub has told that it has.
    fn learn(&mut self, pull: &Pull) {
        let caught_up = pull.caught_up;
        self.there = self.there_with(pull);
        self.left |= caught_up && !self.told;
        self.told |= caught_up;
    }

    fn is_due(&self) -> bool {
        !self.forbidden && self.told && self.left
    }
}

impl State {
    fn new(collection: ClientCollection) -> Self {
        Self {
            collection,
            hub: ReplicaId(0),
            stage: Stage::Waiting,
            failure: None,
            pushed: Sequence(0),
            read: Sequence(0),
            reading: false,
            own_left: true,
            outgoing: None,
            narrow: Sequence(0),
            push_retry: Retry::default(),
            relaying: Relaying::default(),
            marked: Sequence(0),
            marking: false,
            mark_retry: Retry::default(),
            arrived: VecDeque::new(),
            applying: false,
            pull_retry: Retry::default(),
            recovering: false,
            noted: Sequence(0),
            seed: None,
            witnessed: BTreeMap::new(),
            pulled: Lsn(0),
            partial: false,
            to_reconcile: None,
            reconciliation: None,
            ack_due: None,
            caught_up: false,
            arriving: None,
            reached: 0,
        }
    }

    /// One of the pulls came in, or what told how many there are.
    fn came(&mut self) {
        if let Some((mark, left)) = &mut self.arriving {
            *left -= 1;
            if *left == 0 {
                self.reached = *mark;
                self.arriving = None;
            }
        }
    }

    /// What comes of a comparison next, or of one that has ended.
    fn next_of_reconciliation(
        &mut self,
        channel: Channel,
        capabilities: Capabilities,
    ) -> (Option<ClientAction>, Option<(u64, Result<Reconciled>)>) {
        if self.reconciliation.is_none()
            && let Some(mark) = self.to_reconcile
        {
            let refused = match self.stage {
                Stage::Failed => self.failure.clone(),
                _ if !COMPARES => {
                    Some(unsupported("this build cannot compare what both sides hold: the one for streams can"))
                }
                _ if self.hub == ReplicaId(0) => None,
                _ if !capabilities.has(Capabilities::RECONCILES) => {
                    Some(unsupported("the hub cannot compare what both sides hold"))
                }
                _ if self.partial => {
                    Some(unsupported("only a part of the rows is here, and only wholes can be compared"))
                }
                _ => None,
            };
            if let Some(error) = refused {
                self.to_reconcile = None;
                return (None, Some((mark, Err(error))));
            }
            if COMPARES && self.stage == Stage::Live && self.caught_up() {
                self.to_reconcile = None;
                self.reconciliation = Some(Reconciliation::new(mark));
            }
        }
        let Some(under_way) = self.reconciliation.as_mut().filter(|_| COMPARES) else { return (None, None) };
        let mark = under_way.mark;
        let ended = match under_way.next(channel) {
            Ok(Some(action)) => return (Some(action), None),
            Ok(None) if !under_way.is_over() => return (None, None),
            Ok(None) => Ok(under_way.done),
            Err(error) => Err(error),
        };
        self.reconciliation = None;
        (None, Some((mark, ended)))
    }

    /// A hub that has less than it had was restored from an older backup: what it has lost is found by comparing.
    fn look_for_loss(&mut self, pull: &Pull) {
        if pull.caught_up && !self.relaying.told {
            let lacks = |(origin, there): (&ReplicaId, &Sequence)| {
                self.witnessed.get(origin).is_some_and(|witnessed| there < witnessed)
            };
            if pull.seen.iter().any(lacks) {
                self.to_reconcile = self.to_reconcile.max(Some(0));
            }
            self.witnessed.clear();
        }
        if pull.part.is_none() {
            if pull.lsn < self.pulled {
                self.to_reconcile = self.to_reconcile.max(Some(0));
            }
            self.pulled = pull.lsn;
        }
    }

    fn fail(&mut self, error: Error) {
        if let Some(under_way) = self.reconciliation.take() {
            self.to_reconcile = self.to_reconcile.max(Some(under_way.mark));
        }
        self.stage = Stage::Failed;
        self.failure = Some(error);
        self.outgoing = None;
        self.seed = None;
        self.arrived.retain({
            // One that is being applied stays, for its answer.
            let mut keep = self.applying;
            move |_| std::mem::take(&mut keep)
        });
    }

    fn caught_up(&self) -> bool {
        match self.stage {
            Stage::Failed => true,
            Stage::Live => {
                self.caught_up
                    && self.arrived.is_empty()
                    && self.seed.is_none()
                    && !self.own_left
                    && !self.relaying.is_due()
                    && !self.reading
                    && self.outgoing.is_none()
                    && self.passing().is_none()
            }
            _ => false,
        }
    }

    fn error(&self) -> Option<&Error> {
        self.failure.as_ref().or_else(|| self.passing()).or(self.relaying.refused.as_ref())
    }

    fn passing(&self) -> Option<&Error> {
        [&self.push_retry.error, &self.pull_retry.error, &self.mark_retry.error].into_iter().flatten().next()
    }

    /// When something that failed is due again.
    fn deadline_ms(&self) -> Option<u64> {
        if self.stage != Stage::Live {
            return None;
        }
        // What waits for something else is not due by the clock: a moment that has passed would come again at once, and again.
        let push_waits = match &self.outgoing {
            Some(outgoing) => !outgoing.sent && !self.applying,
            None => (self.own_left || self.relaying.is_due()) && !self.reading,
        };
        let push_waits = push_waits && !self.recovering;
        let pull_waits = !self.applying && !self.arrived.is_empty();
        let mark_waits = !self.marking && !self.recovering && self.read > self.marked;
        [(push_waits, &self.push_retry), (pull_waits, &self.pull_retry), (mark_waits, &self.mark_retry)]
            .into_iter()
            .filter(|(waits, retry)| *waits && retry.attempt > 0)
            .map(|(_, retry)| retry.at_ms)
            .min()
    }

    fn take_in_start(&mut self, mut start: Start, replica: ReplicaId, hub: ReplicaId) {
        self.witnessed = start.known.clone();
        self.witnessed.retain(|origin, _| *origin != replica && (start.alone || *origin == hub));
        self.pulled = start.pulled;
        if start.own < self.pushed {
            // What was lost here comes back with the pulls; what was written since then the hub may take for known.
            self.to_reconcile = self.to_reconcile.max(Some(0));
        }
        // The hub has more of us than we know: an answer that was cut off, or a past that this side has lost (a collection made
        // anew, an unsynced tail). Then our own newest sequence does not stand for all before it: the hub is to send what we
        // do not know for sure, and nothing is pushed that would make it think otherwise before that is here.
        self.recovering = self.read > start.pushed;
        self.noted = start.pushed;
        if self.recovering {
            start.known.insert(replica, start.pushed);
        }
        self.stage = Stage::Start(start);
    }

    fn take_in_own(&mut self, own: OwnChanges, now_ms: u64) {
        if self.stage == Stage::Failed {
            return;
        }
        if own.changes.is_empty() {
            // Nothing is left: what lies between was overwritten by others.
            self.read = self.read.max(own.through);
            self.push_retry = Retry::default();
            return;
        }
        if own.through <= self.read {
            let error =
                format!("own changes after {} reach only {}: the sequence does not move", self.read, own.through);
            self.own_left = true;
            self.push_retry.failed(Error::internal(error), now_ms);
            return;
        }
        self.own_left = true;
        let narrow = self.read < self.narrow;
        self.outgoing =
            Some(Outgoing { relayed: None, through: own.through, changes: own.changes, narrow, sent: false });
    }

    fn take_in_relay(&mut self, relay: Option<Relay>) {
        let Some(Relay { origin, after, through, changes }) = relay else { return };
        if self.stage == Stage::Failed {
            return;
        }
        self.relaying.left = true;
        if changes.is_empty() {
            // What lies between was overwritten by others.
            self.relaying.passed.insert(origin, through);
            return;
        }
        // It follows on what the hub has, for the hub.
        let sent_after = self.relaying.there.get(&origin).copied().unwrap_or_default();
        self.relaying.narrow = self.relaying.narrow.filter(|&(of, up_to)| of != origin || after < up_to);
        let narrow = self.relaying.narrow.is_some_and(|(of, _)| of == origin);
        self.outgoing = Some(Outgoing { relayed: Some((origin, sent_after)), through, changes, narrow, sent: false });
    }

    fn take_in_ack(&mut self, ack: PushAck, now_ms: u64) -> Result<Option<Refusal>> {
        if self.stage == Stage::Failed {
            return Ok(None);
        }
        let Some(outgoing) = self.outgoing.take_if(|outgoing| outgoing.sent && outgoing.through == ack.through) else {
            return Err(Error::corrupt(format!("an answer to a push through {} that was not sent", ack.through)));
        };
        match ack.error.map(Error::from) {
            None => {
                self.push_retry = Retry::default();
                if let Some((origin, _)) = outgoing.relayed {
                    self.relaying.there.insert(origin, outgoing.through);
                    return Ok(None);
                }
                self.pushed = outgoing.through;
                self.read = outgoing.through;
                Ok(None)
            }
            Some(error) if is_refusal(&error) => Ok(self.refused(outgoing, error)),
            Some(error) => {
                self.push_retry.failed(error, now_ms);
                self.outgoing = Some(Outgoing { sent: false, ..outgoing });
                Ok(None)
            }
        }
    }

    /// A refused push must not hold up what comes after it: the one batch that is refused is found and set aside.
    fn refused(&mut self, outgoing: Outgoing, error: Error) -> Option<Refusal> {
        if let Some((origin, _)) = outgoing.relayed {
            self.relaying.left = true;
            if error.kind() == ErrorKind::Forbidden {
                // Whatever it is.
                self.relaying.forbidden = true;
            } else if !outgoing.narrow {
                self.relaying.narrow = Some((origin, outgoing.through));
                return None;
            }
            self.relaying.passed.insert(origin, outgoing.through);
            self.relaying.refused = Some(error.context(format_args!("relaying what replica {origin} wrote")));
            return None;
        }
        self.own_left = true;
        if !outgoing.narrow {
            self.narrow = outgoing.through;
            return None;
        }
        let refusal =
            Refusal { collection: self.collection.name.clone(), after: self.read, through: outgoing.through, error };
        self.read = outgoing.through;
        Some(refusal)
    }

    fn next(
        &mut self,
        channel: Channel,
        replica: ReplicaId,
        now_ms: u64,
    ) -> Result<(Option<ClientAction>, Option<Refusal>)> {
        let hub = self.hub;
        match std::mem::replace(&mut self.stage, Stage::Waiting) {
            Stage::Open { spec, part } => return Ok((Some(ClientAction::Open { channel, hub, spec, part }), None)),
            Stage::Start(Start { pulled, known, reshape, .. }) => {
                self.stage = Stage::Live;
                self.relaying.there.clone_from(&known);
                self.relaying.told = false;
                self.relaying.passed.clear();
                let start = StartPull { channel, pulled, known, reshape };
                return Ok((Some(ClientAction::Send(Message::Start(start).encode()?)), None));
            }
            Stage::Live => self.stage = Stage::Live,
            stage => {
                self.stage = stage;
                return Ok((None, None));
            }
        }
        if let Some(lsn) = self.ack_due.take() {
            return Ok((Some(ClientAction::Send(Message::PullAck(PullAck { channel, lsn }).encode()?)), None));
        }
        if !self.applying
            && !self.pull_retry.pending(now_ms)
            && let Some(pull) = self.arrived.front()
        {
            self.applying = true;
            let (changes, lsn, seen, part) = (pull.changes.clone(), pull.lsn, pull.seen.clone(), pull.part.clone());
            let mut there = self.relaying.there_with(pull);
            there.insert(replica, self.pushed);
            return Ok((Some(ClientAction::Apply { channel, changes, hub, lsn, seen, there, part }), None));
        }
        if let Some(seed) = &mut self.seed {
            let action = seed.next(channel, hub)?;
            if action.is_some() {
                return Ok((action, None));
            }
        }
        if !self.marking && !self.recovering && self.read > self.marked && !self.mark_retry.pending(now_ms) {
            self.marking = true;
            self.marked = self.read;
            return Ok((Some(ClientAction::MarkPushed { channel, hub, sequence: self.read }), None));
        }
        if self.recovering || self.push_retry.pending(now_ms) {
            return Ok((None, None));
        }
        if let Some(outgoing) = &mut self.outgoing {
            // What was written after changes had come goes behind the answer to these: the hub tells by it who had seen what.
            if outgoing.sent || self.applying {
                return Ok((None, None));
            }
            outgoing.sent = true;
            // The bytes are kept: a hub that fails for a passing reason gets them again.
            let (origin, after) = outgoing.relayed.unwrap_or((replica, self.pushed));
            let (through, changes) = (outgoing.through, outgoing.changes.clone());
            let push = Push { channel, origin, after, through, changes };
            return match Message::Push(push).encode() {
                Ok(frame) => Ok((Some(ClientAction::Send(frame)), None)),
                Err(error) => {
                    let outgoing = self.outgoing.take().expect("it was just looked at");
                    match self.refused(outgoing, error) {
                        None => self.next(channel, replica, now_ms),
                        refusal => Ok((None, refusal)),
                    }
                }
            };
        }
        if self.own_left && !self.reading {
            self.own_left = false;
            self.reading = true;
            let bytes_max = if self.read < self.narrow { ONE_BATCH } else { PUSH_BYTES_MAX };
            return Ok((Some(ClientAction::ReadOwn { channel, after: self.read, bytes_max }), None));
        }
        if self.relaying.is_due() && !self.reading {
            self.relaying.left = false;
            self.reading = true;
            let bytes_max = if self.relaying.narrow.is_some() { ONE_BATCH } else { PUSH_BYTES_MAX };
            let mut there = self.relaying.there.clone();
            for (origin, sequence) in &self.relaying.passed {
                let there = there.entry(*origin).or_default();
                *there = (*there).max(*sequence);
            }
            return Ok((Some(ClientAction::ReadRelay { channel, there, bytes_max }), None));
        }
        Ok((None, None))
    }
}
