use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::reconciliation::COMPARES;
use crate::base::{Error, ErrorKind, Lsn, ReplicaId, Result, Sequence, Timestamp, compress, message};

/// The version of the protocol that this build speaks: 1 to 127.
pub const VERSION: u8 = 1;
/// The longest frame that is sent or taken in.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// The longest frame that carries no changes.
pub const CONTROL_BYTES_MAX: usize = 4 << 20;
/// The most bytes of a file in one frame: changes that come meanwhile wait for no more than a few of these.
pub const PIECE_BYTES_MAX: usize = 256 << 10;
/// Parts of files that a client may have asked for and not got yet.
pub const FETCH_WINDOW: usize = 4;
/// The longest token that a hub looks at.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;

/// The frame that a message starts with: an array of two (three in a hello, for the version), the first of which is a type.
const ARRAY_OF_TWO: u8 = 0x92;
const ARRAY_OF_THREE: u8 = 0x93;
const BIN_32: u8 = 0xc6;
/// What a packed frame has before the compressed bytes: the start, the length of what follows, the length of the frame that comes out.
const PACKED_HEAD_BYTES: usize = 2 + 5 + 4;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const START: u8 = 3;
const PUSH: u8 = 4;
const PUSH_ACK: u8 = 5;
const PULL: u8 = 6;
const PULL_ACK: u8 = 7;
const FAULT: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const ASK: u8 = 11;
const ANSWER: u8 = 12;
const OFFER: u8 = 13;
const FETCH: u8 = 14;
const PIECE: u8 = 15;
const TOKEN: u8 = 16;
const GRANTED: u8 = 17;
const COMPARE: u8 = 18;
const COMPARED: u8 = 19;
const LACK: u8 = 20;
const FOUND: u8 = 21;
const GIVE: u8 = 22;
const GIVEN: u8 = 23;
const PACKED: u8 = 24;

/// What a side can do beyond the first eight types of frames, one bit each. Bits that the other side does not know mean nothing to
/// it, and what only one of the two can do is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// Segments travel as files: offer, fetch and piece frames.
    pub const SEGMENTS: Self = Self(1);
    /// Both sides compare what they hold: compare, compared, lack, found, give and given frames.
    pub const RECONCILES: Self = Self(2);
    /// Frames come compressed where that pays: packed frames.
    pub const PACKS: Self = Self(4);
    /// Files of segments are had by plain requests too, where the host makes such and answers them.
    pub const FILES: Self = Self(8);
    /// All that this build can do on any host.
    pub const ALL: Self = Self(Self::SEGMENTS.0 | Self::PACKS.0 | if COMPARES { Self::RECONCILES.0 } else { 0 });

    /// That too, where it `can`.
    pub(super) const fn with(self, other: Self, can: bool) -> Self {
        if can { Self(self.0 | other.0) } else { self }
    }

    /// Whether it has all of `other`.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A collection of this connection: its position in the hello's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Channel(pub u32);

/// The first frame of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The client's replica id: the origin of what it pushes.
    pub replica: ReplicaId,
    /// What the client can do.
    pub capabilities: Capabilities,
    /// What it wants to sync, each name once.
    pub collections: Vec<HelloCollection>,
}

/// A collection that a client wants to sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloCollection {
    /// Its name.
    pub name: String,
    /// Its specification as JSON; `None` when the client does not have the collection yet.
    pub spec: Option<String>,
    /// The part of its rows that the client wants, for the database; `None` for all.
    pub part: Option<String>,
}

/// The hub's answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The hub's replica id: positions are kept by it.
    pub replica: ReplicaId,
    /// What the hub can do.
    pub capabilities: Capabilities,
    /// One a collection of the hello, in its order.
    pub collections: Vec<WelcomeCollection>,
}

/// What the hub says about one collection of a hello.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WelcomeCollection {
    /// The client's batches up to here are at the hub.
    pub acknowledged: Sequence,
    /// Tells this collection from another that had its name at this hub before.
    pub incarnation: u64,
    /// The specification as JSON, when the client has none.
    pub spec: Option<String>,
    /// The part of its rows that the client gets, where it does not get all.
    pub part: Option<Part>,
    /// Why this collection is not synced on this connection.
    pub error: Option<Fault>,
}

/// The part of a collection's rows that a client gets: what it wants, of what it may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// For the database.
    pub part: String,
    /// The newest position of the hub's log.
    pub newest: Lsn,
    /// The newest timestamp there: what the client writes from now on has a later one.
    pub heard: Timestamp,
}

/// The client is ready for the changes of a collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartPull {
    /// Which collection.
    pub channel: Channel,
    /// The hub's log up to here is at the client.
    pub pulled: Lsn,
    /// The client has all changes of these origins up to these sequences: the hub need not send them.
    pub known: BTreeMap<ReplicaId, Sequence>,
    /// Another part was here before: what the new one has more comes first.
    pub reshape: Option<Reshape>,
}

/// What a client asks for that had another part of a collection before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reshape {
    /// Rows of this part are at the client, where they are in the new one too; for the database.
    pub old: String,
    /// The others as well, as far as they are in the hub's log up to here.
    pub after: Lsn,
    /// They are wanted up to here; what comes after is pulled.
    pub through: Lsn,
}

/// Changes of one origin: the client's own, or those that another has pushed to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// Which collection.
    pub channel: Channel,
    /// Who wrote them.
    pub origin: ReplicaId,
    /// The changes follow on this sequence.
    pub after: Sequence,
    /// They reach this one.
    pub through: Sequence,
    /// An encoded change set.
    #[serde(with = "serde_bytes")]
    pub changes: Vec<u8>,
}

/// The hub's answer to a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAck {
    /// Which collection.
    pub channel: Channel,
    /// The push that reached this sequence.
    pub through: Sequence,
    /// Why it was not applied; it is durable at the hub when absent.
    pub error: Option<Fault>,
}

/// Changes from the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// Which collection.
    pub channel: Channel,
    /// The position in the hub's log that a client with these changes has reached.
    pub lsn: Lsn,
    /// Whether that was the end of the hub's log.
    pub caught_up: bool,
    /// The hub has all changes of these origins up to these sequences, and a client with these changes has them too. What is less than
    /// the client has told that it has, the hub lacks.
    pub seen: BTreeMap<ReplicaId, Sequence>,
    /// An encoded change set; empty when only the position moves.
    #[serde(with = "serde_bytes")]
    pub changes: Vec<u8>,
    /// What a client that gets only a part of the rows has to know besides.
    pub part: Option<PullPart>,
}

/// What else a pull tells a client that gets a part of the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PullPart {
    /// Rows that have changed and are not in the part: for the database.
    #[serde(with = "serde_bytes")]
    pub left: Vec<u8>,
    /// Whether it belongs to a [`Reshape`], and that ends with it.
    pub reshaped: Option<bool>,
}

/// A pull is durable at the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullAck {
    /// Which collection.
    pub channel: Channel,
    /// The position of the pull.
    pub lsn: Lsn,
}

/// The hub has segments that hold most of what the client lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Which collection.
    pub channel: Channel,
    /// What the segments hold, and their files: for the database.
    #[serde(with = "serde_bytes")]
    pub segments: Vec<u8>,
    /// Below the hub's place, where the files can be had by plain requests; where both sides can do that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
}

/// The client wants a part of a file of the last offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which collection.
    pub channel: Channel,
    /// Which file, counted through all segments of the offer.
    pub file: u32,
    /// From this byte,
    pub offset: u64,
    /// so many: at most [`PIECE_BYTES_MAX`].
    pub len: u32,
}

/// The part of a file that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Which collection.
    pub channel: Channel,
    /// Which file.
    pub file: u32,
    /// From this byte.
    pub offset: u64,
    /// As many bytes as were asked for.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// What a client says in a comparison of what both sides hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// Which collection.
    pub channel: Channel,
    /// Ranges of what it holds; `None` to begin, empty when it knows all that differs.
    pub ranges: Option<ByteBuf>,
}

/// What a hub says to that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// Which collection.
    pub channel: Channel,
    /// The key of the hashes.
    pub secret: [u64; 2],
    /// Ranges of what it holds.
    #[serde(with = "serde_bytes")]
    pub ranges: Vec<u8>,
    /// Why it does not compare.
    pub error: Option<Fault>,
}

/// Which changes a client lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// Which collection.
    pub channel: Channel,
    /// The key of the hashes.
    pub secret: [u64; 2],
    /// A list of them, all of each timestamp.
    #[serde(with = "serde_bytes")]
    pub items: Vec<u8>,
}

/// Those of them that the hub still has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which collection.
    pub channel: Channel,
    /// Of so many, from the first on.
    pub done: u32,
    /// An encoded change set, or nothing.
    #[serde(with = "serde_bytes")]
    pub changes: Vec<u8>,
    /// Why there are none.
    pub error: Option<Fault>,
}

/// Changes that the hub lacks, whoever wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Give {
    /// Which collection.
    pub channel: Channel,
    /// An encoded change set.
    #[serde(with = "serde_bytes")]
    pub changes: Vec<u8>,
}

/// The hub's answer to a give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Which collection.
    pub channel: Channel,
    /// So many of them were newer than what it had; they are durable there.
    pub rows: u64,
    /// Why they are not.
    pub error: Option<Fault>,
}

/// An error as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The stable name of the [`ErrorKind`].
    pub kind: String,
    /// What was got, what was expected, and where.
    pub message: String,
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Self {
        Self { kind: error.kind().as_str().to_owned(), message: error.message().to_owned() }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::from_name(&fault.kind), fault.message)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Client to hub, first.
    Hello(Hello),
    /// Hub to client, first.
    Welcome(Welcome),
    /// Client to hub, once a collection.
    Start(StartPull),
    /// Client to hub; one unanswered at a time and collection.
    Push(Push),
    /// Hub to client.
    PushAck(PushAck),
    /// Hub to client; at most two unanswered at a time and collection.
    Pull(Pull),
    /// Client to hub.
    PullAck(PullAck),
    /// Either way, last: why the connection ends. With a channel: only that collection is over.
    Fault(Option<Channel>, Fault),
    /// Either way: answer with a pong.
    Ping,
    /// Either way.
    Pong,
    /// Client to hub; one unanswered at a time: what does the hub have now?
    Ask,
    /// Hub to client, behind the pulls of all that it had when it was asked.
    Answer,
    /// Hub to client, instead of pulls, until the client starts again from where the segments end.
    Offer(Offer),
    /// Client to hub; at most [`FETCH_WINDOW`] unanswered at a time and collection.
    Fetch(Fetch),
    /// Hub to client, in the order of the fetches.
    Piece(Piece),
    /// Client to hub, before the hello and again whenever there is a newer one: who it is.
    Token(String),
    /// Hub to client, once for each token that it took: for so many milliseconds from now, or for good.
    Granted(Option<u64>),
    /// Client to hub; of this, `Lack` and `Give` one unanswered at a time and collection.
    Compare(Compare),
    /// Hub to client.
    Compared(Compared),
    /// Client to hub.
    Lack(Lack),
    /// Hub to client.
    Found(Found),
    /// Client to hub.
    Give(Give),
    /// Hub to client.
    Given(Given),
}

impl Message {
    /// The frame.
    ///
    /// # Errors
    /// `InvalidArgument` when it is longer than [`FRAME_BYTES_MAX`] (or [`CONTROL_BYTES_MAX`] without changes).
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut frame = Vec::with_capacity(match self {
            Self::Push(push) => push.changes.len() + 64,
            Self::Pull(pull) => pull.changes.len() + 64,
            Self::Piece(piece) => piece.bytes.len() + 64,
            Self::Found(found) => found.changes.len() + 64,
            Self::Give(give) => give.changes.len() + 64,
            _ => 128,
        });
        let result = match self {
            Self::Hello(body) => {
                frame.extend([ARRAY_OF_THREE, HELLO, VERSION]);
                write(&mut frame, body)
            }
            Self::Welcome(body) => {
                frame.extend([ARRAY_OF_THREE, WELCOME, VERSION]);
                rmp_serde::encode::write(&mut frame, body)
            }
            Self::Start(body) => put(&mut frame, START, body),
            Self::Push(body) => put(&mut frame, PUSH, body),
            Self::PushAck(body) => put(&mut frame, PUSH_ACK, body),
            Self::Pull(body) => put(&mut frame, PULL, body),
            Self::PullAck(body) => put(&mut frame, PULL_ACK, body),
            Self::Fault(channel, fault) => put(&mut frame, FAULT, &(channel, fault)),
            Self::Ping => put(&mut frame, PING, &()),
            Self::Pong => put(&mut frame, PONG, &()),
            Self::Ask => put(&mut frame, ASK, &()),
            Self::Answer => put(&mut frame, ANSWER, &()),
            Self::Offer(body) => put(&mut frame, OFFER, body),
            Self::Fetch(body) => put(&mut frame, FETCH, body),
            Self::Piece(body) => put(&mut frame, PIECE, body),
            Self::Token(body) => put(&mut frame, TOKEN, body),
            Self::Granted(body) => put(&mut frame, GRANTED, body),
            _ if !COMPARES => return Err(incomparable()),
            Self::Compare(body) => put(&mut frame, COMPARE, body),
            Self::Compared(body) => put(&mut frame, COMPARED, body),
            Self::Lack(body) => put(&mut frame, LACK, body),
            Self::Found(body) => put(&mut frame, FOUND, body),
            Self::Give(body) => put(&mut frame, GIVE, body),
            Self::Given(body) => put(&mut frame, GIVEN, body),
        };
        result.map_err(|error| Error::internal(format!("a sync message could not be encoded: {error}")))?;
        let bytes_max = bytes_max(self.number());
        if frame.len() > bytes_max {
            return Err(Error::invalid(format!(
                "a {} frame of {} bytes; at most {bytes_max} can be sent",
                self.name(),
                frame.len()
            )));
        }
        Ok(frame)
    }

    /// The message in `frame`. Allocates no more than a small multiple of its length, whatever the bytes say; of a packed one, of what comes
    /// out of it, up to [`FRAME_BYTES_MAX`].
    ///
    /// # Errors
    /// `Corrupt` for bytes that are no frame (what and where is in the message), `Unsupported` for a type of frame or a
    /// version of the protocol that this build does not know, `InvalidArgument` for a frame over the size limit.
    pub fn decode(frame: &[u8]) -> Result<Self> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(too_long("sync", frame.len(), FRAME_BYTES_MAX));
        }
        let (&marker, &number) = match frame {
            [marker, number, ..] => (marker, number),
            _ => {
                return Err(Error::corrupt(format!("a sync frame of {} bytes; at least 3 expected", frame.len())));
            }
        };
        if (marker, number) == (ARRAY_OF_TWO, WELCOME) {
            // As builds before the first release wrote it.
            return Err(other_version("an earlier version"));
        }
        let greets = matches!(number, HELLO | WELCOME);
        let expected = if greets { ARRAY_OF_THREE } else { ARRAY_OF_TWO };
        if marker != expected || number > 0x7f {
            return Err(Error::corrupt(format!(
                "at byte 0: a sync frame starts with {marker:#04x} {number:#04x}; an array of two and a type expected"
            )));
        }
        let Some(name) = type_name(number) else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("at byte 1: a sync frame of type {number}; this build knows {HELLO} to {PACKED}"),
            ));
        };
        if frame.len() > bytes_max(number) {
            return Err(too_long(name, frame.len(), bytes_max(number)));
        }
        if greets {
            match frame.get(2) {
                Some(&VERSION) => {}
                Some(version) => return Err(other_version(&format!("version {version}"))),
                None => return Err(Error::corrupt(format!("at byte 2: a {name} frame without a version"))),
            }
        }
        Ok(match number {
            HELLO => Self::Hello(body(name, frame, 3)?),
            WELCOME => Self::Welcome(body(name, frame, 3)?),
            START => Self::Start(body(name, frame, 2)?),
            PUSH => Self::Push(body(name, frame, 2)?),
            PUSH_ACK => Self::PushAck(body(name, frame, 2)?),
            PULL => Self::Pull(body(name, frame, 2)?),
            PULL_ACK => Self::PullAck(body(name, frame, 2)?),
            FAULT => {
                let (channel, fault) = body(name, frame, 2)?;
                Self::Fault(channel, fault)
            }
            PING | PONG | ASK | ANSWER => {
                body::<()>(name, frame, 2)?;
                match number {
                    PING => Self::Ping,
                    PONG => Self::Pong,
                    ASK => Self::Ask,
                    _ => Self::Answer,
                }
            }
            OFFER => Self::Offer(body(name, frame, 2)?),
            FETCH => Self::Fetch(body(name, frame, 2)?),
            PIECE => Self::Piece(body(name, frame, 2)?),
            TOKEN => Self::Token(body(name, frame, 2)?),
            GRANTED => Self::Granted(body(name, frame, 2)?),
            PACKED => return Self::decode(&unpack(frame)?),
            _ if !COMPARES => return Err(incomparable()),
            COMPARE => Self::Compare(body(name, frame, 2)?),
            COMPARED => Self::Compared(body(name, frame, 2)?),
            LACK => Self::Lack(body(name, frame, 2)?),
            FOUND => Self::Found(body(name, frame, 2)?),
            GIVE => Self::Give(body(name, frame, 2)?),
            _ => Self::Given(body(name, frame, 2)?),
        })
    }

    fn number(&self) -> u8 {
        match self {
            Self::Hello(_) => HELLO,
            Self::Welcome(_) => WELCOME,
            Self::Start(_) => START,
            Self::Push(_) => PUSH,
            Self::PushAck(_) => PUSH_ACK,
            Self::Pull(_) => PULL,
            Self::PullAck(_) => PULL_ACK,
            Self::Fault(..) => FAULT,
            Self::Ping => PING,
            Self::Pong => PONG,
            Self::Ask => ASK,
            Self::Answer => ANSWER,
            Self::Offer(_) => OFFER,
            Self::Fetch(_) => FETCH,
            Self::Piece(_) => PIECE,
            Self::Token(_) => TOKEN,
            Self::Granted(_) => GRANTED,
            Self::Compare(_) => COMPARE,
            Self::Compared(_) => COMPARED,
            Self::Lack(_) => LACK,
            Self::Found(_) => FOUND,
            Self::Give(_) => GIVE,
            Self::Given(_) => GIVEN,
        }
    }

    /// The name of its type, for messages.
    pub fn name(&self) -> &'static str {
        type_name(self.number()).expect("every message has a named type")
    }
}

fn type_name(number: u8) -> Option<&'static str> {
    Some(match number {
        HELLO => "hello",
        WELCOME => "welcome",
        START => "start",
        PUSH => "push",
        PUSH_ACK => "push-ack",
        PULL => "pull",
        PULL_ACK => "pull-ack",
        FAULT => "fault",
        PING => "ping",
        PONG => "pong",
        ASK => "ask",
        ANSWER => "answer",
        OFFER => "offer",
        FETCH => "fetch",
        PIECE => "piece",
        TOKEN => "token",
        GRANTED => "granted",
        COMPARE => "compare",
        COMPARED => "compared",
        LACK => "lack",
        FOUND => "found",
        GIVE => "give",
        GIVEN => "given",
        PACKED => "packed",
        _ => return None,
    })
}

const fn bytes_max(number: u8) -> usize {
    if matches!(number, PUSH | PULL | FOUND | GIVE | PACKED) { FRAME_BYTES_MAX } else { CONTROL_BYTES_MAX }
}

/// The same frame compressed, where that pays and the peer knows it. Greetings never are: they say whether it does.
pub(super) fn pack(frame: Vec<u8>, peer: Capabilities) -> Vec<u8> {
    if !peer.has(Capabilities::PACKS) || !is_packable(&frame) {
        return frame;
    }
    let Some(packed) = compress::shrink(&frame, PACKED_HEAD_BYTES) else { return frame };
    let lengths = [(packed.len() as u32 + 4).to_be_bytes(), (frame.len() as u32).to_le_bytes()].concat();
    // By hand: with the library it is ten times the code.
    [&[ARRAY_OF_TWO, PACKED, BIN_32][..], &lengths, &packed].concat()
}

/// The frame in a packed one.
fn unpack(frame: &[u8]) -> Result<Vec<u8>> {
    let wrong = || Error::corrupt("a packed frame that does not hold what it says");
    let [_, _, BIN_32, a, b, c, d, bytes @ ..] = frame else { return Err(wrong()) };
    let (len, packed) = bytes.split_first_chunk().ok_or_else(wrong)?;
    let len = u32::from_le_bytes(*len) as usize;
    // Memory grows with what comes out, up to the length that is told, and that is bounded as for any frame.
    if len > FRAME_BYTES_MAX {
        return Err(too_long("packed", len, FRAME_BYTES_MAX));
    }
    let frame = compress::decompress(compress::Codec::Lz4, packed, len)?;
    // A greeting says whether the peer knows of packed frames, and one within another could be bombs in bombs.
    let is_whole = u32::from_be_bytes([*a, *b, *c, *d]) as usize == bytes.len();
    if is_whole && is_packable(&frame) { Ok(frame) } else { Err(wrong()) }
}

fn is_packable(frame: &[u8]) -> bool {
    !matches!(frame, [_, HELLO | WELCOME | PACKED, ..])
}

fn incomparable() -> Error {
    Error::new(ErrorKind::Unsupported, "this build cannot compare what both sides hold: the one for streams can")
}

fn other_version(theirs: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the peer speaks {theirs} of the sync protocol, this build version {VERSION}: one of the two is to be updated"
        ),
    )
}

fn too_long(name: &str, len: usize, bytes_max: usize) -> Error {
    Error::invalid(format!("a {name} frame of {len} bytes; at most {bytes_max} are taken in"))
}

fn put(frame: &mut Vec<u8>, number: u8, body: &impl Serialize) -> Result<(), rmp_serde::encode::Error> {
    frame.extend([ARRAY_OF_TWO, number]);
    write(frame, body)
}

/// By way of a copy: what rmp-serde writes to a buffer of one kind is code that everything else has already.
fn write(frame: &mut Vec<u8>, body: &impl Serialize) -> Result<(), rmp_serde::encode::Error> {
    frame.extend(rmp_serde::to_vec(body)?);
    Ok(())
}

fn body<T: DeserializeOwned>(name: &str, frame: &[u8], offset: usize) -> Result<T> {
    // Strings and bytes are read up to what is there, never by the length that they claim, and lists grow as they are read.
    let mut decoder = message::Decoder::<true>::new(&frame[offset..]);
    let body = T::deserialize(&mut decoder);
    let position = offset + decoder.position();
    let body = body.map_err(|error| Error::corrupt(format!("at byte {position} of a {name} frame: {error}")))?;
    if position != frame.len() {
        return Err(Error::corrupt(format!(
            "at byte {position} of a {name} frame: {} bytes after its end",
            frame.len() - position
        )));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn examples() -> Vec<(&'static str, Message)> {
        let fault = Fault { kind: "invalid_argument".into(), message: "row 3: no".into() };
        vec![
            (
                "hello",
                Message::Hello(Hello {
                    replica: ReplicaId(0x001f_ffff_ffff_fffe),
                    capabilities: Capabilities::SEGMENTS,
                    collections: vec![
                        HelloCollection { name: "notes".into(), spec: Some("{\"fields\":[]}".into()), part: None },
                        HelloCollection { name: "symbols".into(), spec: None, part: Some("[]".into()) },
                    ],
                }),
            ),
            (
                "welcome",
                Message::Welcome(Welcome {
                    replica: ReplicaId(7),
                    capabilities: Capabilities(u64::MAX),
                    collections: vec![
                        WelcomeCollection {
                            acknowledged: Sequence(41),
                            incarnation: 3,
                            spec: None,
                            part: Some(Part { part: "[{}]".into(), newest: Lsn(300), heard: Timestamp(7) }),
                            error: None,
                        },
                        WelcomeCollection {
                            acknowledged: Sequence(0),
                            incarnation: 4,
                            spec: Some("{}".into()),
                            part: None,
                            error: None,
                        },
                        WelcomeCollection {
                            acknowledged: Sequence(0),
                            incarnation: 0,
                            spec: None,
                            part: None,
                            error: Some(fault.clone()),
                        },
                    ],
                }),
            ),
            (
                "start",
                Message::Start(StartPull {
                    channel: Channel(0),
                    pulled: Lsn(300),
                    known: [(ReplicaId(7), Sequence(12)), (ReplicaId(70_000), Sequence(1))].into(),
                    reshape: Some(Reshape { old: "[]".into(), after: Lsn(0), through: Lsn(300) }),
                }),
            ),
            (
                "push",
                Message::Push(Push {
                    channel: Channel(1),
                    origin: ReplicaId(70_000),
                    after: Sequence(41),
                    through: Sequence(44),
                    changes: vec![0, 1, 2, 0xff],
                }),
            ),
            (
                "push-ack",
                Message::PushAck(PushAck { channel: Channel(1), through: Sequence(44), error: Some(fault.clone()) }),
            ),
            (
                "pull",
                Message::Pull(Pull {
                    channel: Channel(0),
                    lsn: Lsn(301),
                    caught_up: true,
                    seen: [(ReplicaId(7), Sequence(12)), (ReplicaId(70_000), Sequence(0))].into(),
                    changes: vec![9, 8, 7],
                    part: Some(PullPart { left: vec![1, 2], reshaped: Some(false) }),
                }),
            ),
            ("pull-ack", Message::PullAck(PullAck { channel: Channel(0), lsn: Lsn(301) })),
            ("fault", Message::Fault(Some(Channel(2)), fault.clone())),
            ("ping", Message::Ping),
            ("pong", Message::Pong),
            ("ask", Message::Ask),
            ("answer", Message::Answer),
            ("offer", Message::Offer(Offer { channel: Channel(1), segments: vec![7, 7, 0xff], files: None })),
            (
                "fetch",
                Message::Fetch(Fetch { channel: Channel(1), file: 5, offset: 1 << 33, len: PIECE_BYTES_MAX as u32 }),
            ),
            ("piece", Message::Piece(Piece { channel: Channel(1), file: 5, offset: 1 << 33, bytes: vec![1, 2, 3] })),
            ("token", Message::Token("a.b.c".into())),
            ("granted", Message::Granted(Some(900_000))),
            ("compare", Message::Compare(Compare { channel: Channel(1), ranges: Some(ByteBuf::from([0, 2])) })),
            (
                "compared",
                Message::Compared(Compared {
                    channel: Channel(1),
                    secret: [7, u64::MAX],
                    ranges: vec![0, 3, 0],
                    error: Some(fault.clone()),
                }),
            ),
            ("lack", Message::Lack(Lack { channel: Channel(1), secret: [7, u64::MAX], items: vec![0] })),
            (
                "found",
                Message::Found(Found {
                    channel: Channel(1),
                    done: 3,
                    changes: vec![1, 0xff],
                    error: Some(fault.clone()),
                }),
            ),
            ("give", Message::Give(Give { channel: Channel(0), changes: vec![1, 0xff] })),
            ("given", Message::Given(Given { channel: Channel(0), rows: 1 << 20, error: Some(fault) })),
        ]
    }

    fn golden(name: &str) -> std::path::PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests/golden/sync", &format!("{name}.v{VERSION}.bin")].iter().collect()
    }

    #[test]
    #[cfg(native)]
    #[expect(clippy::disallowed_methods, reason = "the test reads golden files")]
    fn frames_are_byte_for_byte_what_they_were() {
        for (name, message) in examples() {
            assert_eq!(message.name(), name);
            let frame = message.encode().unwrap();
            if std::env::var_os("EDDY_WRITE_GOLDEN").is_some() {
                std::fs::create_dir_all(golden(name).parent().unwrap()).unwrap();
                std::fs::write(golden(name), &frame).unwrap();
            }
            let expected = std::fs::read(golden(name)).unwrap();
            assert_eq!(frame, expected, "{name}");
            assert_eq!(Message::decode(&expected).unwrap(), message);
        }
    }

    #[test]
    #[cfg(native)]
    #[expect(clippy::disallowed_methods, reason = "the test reads golden files")]
    fn an_offer_tells_where_files_are_behind_what_it_always_told() {
        let offer = |files| Message::Offer(Offer { channel: Channel(1), segments: vec![7, 7, 0xff], files });
        let message = offer(Some("files".to_owned()));
        let frame = message.encode().unwrap();
        if std::env::var_os("EDDY_WRITE_GOLDEN").is_some() {
            std::fs::write(golden("offer-files"), &frame).unwrap();
        }
        assert_eq!(frame, std::fs::read(golden("offer-files")).unwrap());
        assert_eq!(Message::decode(&frame).unwrap(), message);
        // One who does not hear of it gets the same as ever.
        let without = offer(None).encode().unwrap();
        assert_eq!(frame[3..without.len()], without[3..]);
    }

    #[test]
    fn hostile_frames_are_typed_errors() {
        let claims_4_gib_of_bytes = [0x92, PUSH, 0x95, 0, 0, 0, 1, 0xc6, 0xff, 0xff, 0xff, 0xff, 1, 2];
        let claims_4_gi_collections = [0x93, HELLO, VERSION, 0x93, 7, 0, 0xdd, 0xff, 0xff, 0xff, 0xff];
        let claims_4_gi_origins = [0x92, START, 0x94, 0, 0, 0xdf, 0xff, 0xff, 0xff, 0xff, 1, 1];
        for (frame, kind, message) in [
            (&[][..], ErrorKind::Corrupt, "0 bytes"),
            (&[0x92], ErrorKind::Corrupt, "1 bytes"),
            (&[0xc1, 0xc1, 0xc1], ErrorKind::Corrupt, "starts with 0xc1"),
            (b"GET / HTTP/1.1", ErrorKind::Corrupt, "starts with"),
            (&[0x92, 30, 0xc0], ErrorKind::Unsupported, "type 30"),
            (&[0x92, HELLO, 0xc0], ErrorKind::Corrupt, "starts with"),
            (&[0x93, HELLO], ErrorKind::Corrupt, "without a version"),
            (&[0x93, HELLO, 2, 0x92, 0, 0x90], ErrorKind::Unsupported, "version 2"),
            // A hub of another version is no broken hub: it was told as one once.
            (&[0x93, WELCOME, 9, 0x90], ErrorKind::Unsupported, "version 9"),
            (&[0x92, WELCOME, 0x92, 7, 0x90], ErrorKind::Unsupported, "an earlier version"),
            (&[0x92, PING], ErrorKind::Corrupt, "ping frame"),
            (&[0x92, PING, 0xc0, 0xc0], ErrorKind::Corrupt, "1 bytes after its end"),
            (&[0x92, PING, 0x01], ErrorKind::Corrupt, "ping frame"),
            (&[0x92, PULL_ACK, 0x92, 0xff, 0], ErrorKind::Corrupt, "pull-ack frame"),
            (&[0x92, PULL_ACK, 0x93, 0, 0, 0], ErrorKind::Corrupt, "pull-ack frame"),
            (&[0x92, PULL_ACK, 0x92, 0xcf, 255, 255, 255, 255, 255, 255, 255, 255, 0], ErrorKind::Corrupt, "at byte"),
            (&claims_4_gib_of_bytes, ErrorKind::Corrupt, "push frame"),
            (&claims_4_gi_collections, ErrorKind::Corrupt, "hello frame"),
            (&claims_4_gi_origins, ErrorKind::Corrupt, "start frame"),
            (&[0x92, PACKED, 0xc0], ErrorKind::Corrupt, "does not hold"),
            (&[0x92, PACKED, BIN_32, 0, 0, 0, 3, 1, 2, 3], ErrorKind::Corrupt, "does not hold"),
            (
                &[&[0x92, PACKED, BIN_32, 0, 0, 0, 3][..], &3_u32.to_le_bytes(), &lz4(&[0x92, PING, 0xc0])].concat(),
                ErrorKind::Corrupt,
                "does not hold",
            ),
            (&packed(4, b"none"), ErrorKind::Corrupt, "no lz4 frame of 4 bytes"),
            (&packed(FRAME_BYTES_MAX as u32 + 1, &[]), ErrorKind::InvalidArgument, "packed frame of 67108865 bytes"),
            (&packed(u32::MAX, &[]), ErrorKind::InvalidArgument, "packed frame of 4294967295 bytes"),
            // Of another length than it says, one within another, and a greeting.
            (&packed(4, &lz4(&[0x92, PING, 0xc0])), ErrorKind::Corrupt, "no lz4 frame of 4 bytes"),
            (&packed(3, &lz4(&[0x92, PACKED, 0xc0])), ErrorKind::Corrupt, "does not hold"),
            (&packed(6, &lz4(&[0x93, HELLO, VERSION, 0x92, 0, 0x90])), ErrorKind::Corrupt, "does not hold"),
            (&packed(2, &lz4(&[0x92, PING])), ErrorKind::Corrupt, "ping frame"),
            (&packed(3, &lz4(&[0x92, 30, 0xc0])), ErrorKind::Unsupported, "type 30"),
        ] {
            let error = Message::decode(frame).unwrap_err();
            assert_eq!(error.kind(), kind, "{frame:x?}: {error}");
            assert!(error.message().contains(message), "{frame:x?}: {error}");
        }
    }

    fn lz4(frame: &[u8]) -> Vec<u8> {
        compress::compress(compress::Codec::Lz4, frame)
    }

    fn packed(len: u32, bytes: &[u8]) -> Vec<u8> {
        let claimed = bytes.len() as u32 + 4;
        [&[0x92, PACKED, BIN_32][..], &claimed.to_be_bytes(), &len.to_le_bytes(), bytes].concat()
    }

    fn push(changes: Vec<u8>) -> Message {
        let (channel, origin) = (Channel(1), ReplicaId(70_000));
        Message::Push(Push { channel, origin, after: Sequence(41), through: Sequence(44), changes })
    }

    #[test]
    #[cfg(native)]
    #[expect(clippy::disallowed_methods, reason = "the test reads golden files")]
    fn a_packed_frame_is_byte_for_byte_what_it_was() {
        let message = push(b"one row like the other; ".repeat(20));
        let frame = pack(message.encode().unwrap(), Capabilities::ALL);
        if std::env::var_os("EDDY_WRITE_GOLDEN").is_some() {
            std::fs::write(golden("packed"), &frame).unwrap();
        }
        assert_eq!(frame, std::fs::read(golden("packed")).unwrap());
        assert_eq!(frame[1], PACKED);
        assert_eq!(Message::decode(&frame).unwrap(), message);
    }

    #[test]
    fn frames_are_packed_where_that_pays_and_the_peer_knows_it() {
        let text = push(b"one row like the other; ".repeat(1_000)).encode().unwrap();
        let packed = pack(text.clone(), Capabilities::ALL);
        assert!(packed.len() < text.len() / 50, "{} bytes of {}", packed.len(), text.len());
        assert_eq!(pack(text.clone(), Capabilities(u64::MAX - Capabilities::PACKS.0)), text);
        assert_eq!(pack(packed.clone(), Capabilities::ALL), packed);
        let mut random = crate::base::Random::new(3);
        let floats = push((0..100_000).map(|_| random.next_u64() as u8).collect()).encode().unwrap();
        assert_eq!(pack(floats.clone(), Capabilities::ALL), floats);
        for (name, message) in examples() {
            let frame = message.encode().unwrap();
            assert_eq!(Message::decode(&pack(frame, Capabilities::ALL)).unwrap(), message, "{name}");
        }
        // However often it says the same.
        let name = "the name of a collection ".repeat(100);
        let collections = vec![HelloCollection { name, spec: None, part: None }];
        let hello = Hello { replica: ReplicaId(1), capabilities: Capabilities::ALL, collections };
        let hello = Message::Hello(hello).encode().unwrap();
        assert_eq!(pack(hello.clone(), Capabilities::ALL), hello);
    }

    #[test]
    fn nesting_is_refused_before_the_stack_ends() {
        let mut frame = vec![0x93, WELCOME, VERSION];
        frame.extend(std::iter::repeat_n(0x91, 1 << 20));
        assert_eq!(Message::decode(&frame).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn frames_over_the_limit_are_refused_both_ways() {
        let long = Message::Push(Push {
            channel: Channel(0),
            origin: ReplicaId(1),
            after: Sequence(0),
            through: Sequence(1),
            changes: vec![0; FRAME_BYTES_MAX],
        });
        assert_eq!(long.encode().unwrap_err().kind(), ErrorKind::InvalidArgument);
        let mut frame = vec![0; FRAME_BYTES_MAX + 1];
        frame[..2].copy_from_slice(&[0x92, PUSH]);
        assert!(Message::decode(&frame).unwrap_err().message().contains("67108865 bytes"));
        let mut frame = vec![0; CONTROL_BYTES_MAX + 1];
        frame[..2].copy_from_slice(&[0x93, WELCOME]);
        assert!(Message::decode(&frame).unwrap_err().message().contains("welcome frame of 4194305 bytes"));
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let mut examples: Vec<Vec<u8>> = examples().iter().map(|(_, message)| message.encode().unwrap()).collect();
        examples.push(packed(3, &lz4(&[0x92, PING, 0xc0])));
        examples.push(pack(push(b"one row like the other; ".repeat(20)).encode().unwrap(), Capabilities::ALL));
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            (1u8..26, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(number, body)| [
                &[0x92, number][..],
                &body
            ]
            .concat()),
            (prop::sample::select(examples), prop::collection::vec(any::<(prop::sample::Index, u8, bool)>(), 0..4))
                .prop_map(|(mut frame, changes)| {
                    for (index, byte, cut) in changes {
                        if frame.is_empty() {
                            break;
                        }
                        let at = index.index(frame.len());
                        if cut {
                            frame.truncate(at);
                        } else {
                            frame[at] = byte;
                        }
                    }
                    frame
                }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(browser) { 256 } else { 4096 }))]

        #[test]
        fn any_bytes_are_a_message_or_an_error(frame in any_frame()) {
            match Message::decode(&frame) {
                Ok(message) => {
                    let again = Message::decode(&message.encode().unwrap()).unwrap();
                    prop_assert_eq!(again, message);
                }
                Err(error) => prop_assert!(matches!(
                    error.kind(),
                    ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::InvalidArgument
                )),
            }
        }

        #[test]
        fn any_message_survives(channel: u32, after: u64, through: u64, changes: Vec<u8>, known: BTreeMap<u64, u64>) {
            let push = Message::Push(Push {
                channel: Channel(channel),
                origin: ReplicaId(after),
                after: Sequence(after),
                through: Sequence(through),
                changes,
            });
            prop_assert_eq!(&Message::decode(&push.encode().unwrap()).unwrap(), &push);
            prop_assert_eq!(Message::decode(&pack(push.encode().unwrap(), Capabilities::ALL)).unwrap(), push);
            let start = Message::Start(StartPull {
                channel: Channel(channel),
                pulled: Lsn(after),
                known: known.into_iter().map(|(origin, sequence)| (ReplicaId(origin), Sequence(sequence))).collect(),
                reshape: None,
            });
            prop_assert_eq!(Message::decode(&start.encode().unwrap()).unwrap(), start);
        }
    }
}
