use std::sync::Arc;

use super::changes::encode_rows;
use super::{ChangeSet, KeptPart, Refused, RequestId, Reshape, SyncPosition};
use crate::base::codec::{Reader, Write};
use crate::base::{Error, Lsn, ReplicaId, Result, Sequence, Timestamp};
use crate::model::Schema;
use crate::wal::FrameKind;

/// What a log frame says.
///
/// | kind | payload |
/// |---|---|
/// | 1, changes | 1 byte: 1 when a hub sent them, then its replica id (8) and its log position (8); 2 when a client may ask for their answer again, then its number (8) and that of its request (8); 3 when a pipeline wrote them, then its number (8) and that of the write (8); 4 when a comparison with another replica found that they were missing here, then 16 zeros; 5 as 1, and some of them come late; else 0 and 16 zeros; then a [`ChangeSet`] |
/// | 2, position | the hub's replica id (8), `pushed` (8), `pulled` (8) |
/// | 3, lost | the number of the last lost frame (8) |
/// | 4, cursor | how far a subscription has got (8), 2^64 - 1 when it ended; then its name |
/// | 5, refused | after this batch (8), up to this one (8), the length of the kind of the error (4), the kind, the message |
/// | 6, part | the hub's replica id (8), its log position, 2^64 - 1 when it stays (8), the newest timestamp heard of (8), 1 when the part changes (1), then after which position (8) and through which (8), the length of the part (4), the part, what it was before |
#[derive(Debug, Clone)]
pub enum Record {
    /// Rows and deletes were applied.
    Changes {
        /// Who sent them.
        from: Source,
        /// What was applied.
        changes: ChangeSet,
    },
    /// Sync with a hub reached this position without changes.
    Position {
        /// The hub.
        hub: ReplicaId,
        /// How far.
        position: SyncPosition,
    },
    /// A repair left out damaged frames up to this one: what batches were seen and what hubs were told no longer counts.
    Lost {
        /// The last lost frame, or this one's own number.
        last: Lsn,
    },
    /// A subscription got this far, or ended.
    Cursor {
        /// Its name.
        name: String,
        /// The position in the log; `None` when it ended.
        lsn: Option<Lsn>,
    },
    /// A hub has refused own changes for good.
    Refused(Refused),
    /// Which part of a hub's rows is kept here.
    Part {
        /// The hub.
        hub: ReplicaId,
        /// Where its log is then, unless that stays.
        pulled: Option<Lsn>,
        /// The part.
        kept: KeptPart,
    },
}

/// Who sent changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// Somebody here who does not ask again.
    #[default]
    Here,
    /// A hub: they bring this replica to that position of its log. Some may come late: it was taken for sure before that they are here.
    Hub {
        /// Which hub.
        hub: ReplicaId,
        /// Where its log is then.
        pulled: Lsn,
        /// Whether some come late.
        late: bool,
    },
    /// A comparison with another replica, which found that they were missing here: in whatever order.
    Comparison,
    /// A client that may ask again.
    Client(RequestId),
    /// A pipeline: this is its write of that number, and there is no later one here yet.
    Pipeline(PipelineWrite),
}

/// Which write of which pipeline. It stands in the log beside what was written, so that what was written after a pipeline's last checkpoint is
/// known when the pipeline goes on from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineWrite {
    /// The pipeline's number.
    pub pipeline: u64,
    /// The number of the write, greater than those before it.
    pub number: u64,
}

impl Record {
    /// The kind of its frame.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Changes { .. } => FrameKind::Changes,
            Self::Position { .. } => FrameKind::Position,
            Self::Lost { .. } => FrameKind::Lost,
            Self::Cursor { .. } => FrameKind::Cursor,
            Self::Refused(_) => FrameKind::Refused,
            Self::Part { .. } => FrameKind::Part,
        }
    }

    /// The payload of its frame but for the rows, which come last.
    pub fn encode_head(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Changes { from, changes } => {
                let (kind, sender, position) = match from {
                    Source::Here => (0, 0, 0),
                    Source::Hub { hub, pulled, late } => (if *late { 5 } else { 1 }, hub.0, pulled.0),
                    Source::Comparison => (4, 0, 0),
                    Source::Client(RequestId { client, number }) => (2, *client, *number),
                    Source::Pipeline(PipelineWrite { pipeline, number }) => (3, *pipeline, *number),
                };
                out.put_u8(kind);
                out.put_u64(sender);
                out.put_u64(position);
                out.append(&mut changes.encode_head());
            }
            Self::Position { hub, position } => {
                out.put_u64(hub.0);
                out.put_u64(position.pushed.0);
                out.put_u64(position.pulled.0);
            }
            Self::Lost { last } => out.put_u64(last.0),
            Self::Cursor { name, lsn } => {
                out.put_u64(lsn.map_or(u64::MAX, |lsn| lsn.0));
                out.put_bytes(name.as_bytes());
            }
            Self::Refused(Refused { after, through, kind, message }) => {
                out.put_u64(after.0);
                out.put_u64(through.0);
                out.put_u32(kind.len() as u32);
                out.put_bytes(kind.as_bytes());
                out.put_bytes(message.as_bytes());
            }
            Self::Part { hub, pulled, kept } => {
                let nothing = Reshape::default();
                let reshape = kept.reshape.as_ref().unwrap_or(&nothing);
                out.put_u64(hub.0);
                out.put_u64(pulled.map_or(u64::MAX, |lsn| lsn.0));
                out.put_u64(kept.heard.0);
                out.put_u8(u8::from(kept.reshape.is_some()));
                out.put_u64(reshape.after.0);
                out.put_u64(reshape.through.0);
                out.put_u32(kept.part.len() as u32);
                out.put_bytes(kept.part.as_bytes());
                out.put_bytes(reshape.old.as_bytes());
            }
        }
        out
    }

    /// The rows of its payload.
    pub fn encode_rows(&self) -> Vec<u8> {
        match self {
            Self::Changes { changes, .. } => encode_rows(&changes.puts),
            _ => Vec::new(),
        }
    }

    /// The record of a frame.
    ///
    /// # Errors
    /// `Corrupt` when the payload is none.
    pub fn decode(schema: &Arc<Schema>, kind: FrameKind, payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(payload);
        match kind {
            FrameKind::Changes => {
                let kind = reader.u8()?;
                let (sender, position) = (reader.u64()?, reader.u64()?);
                let from = match kind {
                    0 => Source::Here,
                    1 | 5 => Source::Hub { hub: ReplicaId(sender), pulled: Lsn(position), late: kind == 5 },
                    2 => Source::Client(RequestId { client: sender, number: position }),
                    3 => Source::Pipeline(PipelineWrite { pipeline: sender, number: position }),
                    4 => Source::Comparison,
                    other => return Err(Error::corrupt(format!("at byte 0: flag {other}, expected 0 to 5"))),
                };
                let changes = ChangeSet::decode(schema, reader.bytes(reader.remaining())?)?;
                Ok(Self::Changes { from, changes })
            }
            FrameKind::Position => {
                let hub = ReplicaId(reader.u64()?);
                let position = SyncPosition { pushed: Sequence(reader.u64()?), pulled: Lsn(reader.u64()?) };
                Ok(Self::Position { hub, position })
            }
            FrameKind::Lost => Ok(Self::Lost { last: Lsn(reader.u64()?) }),
            FrameKind::Cursor => {
                let lsn = Some(Lsn(reader.u64()?)).filter(|lsn| lsn.0 != u64::MAX);
                let name = rest(&mut reader)?;
                Ok(Self::Cursor { name, lsn })
            }
            FrameKind::Refused => {
                let (after, through) = (Sequence(reader.u64()?), Sequence(reader.u64()?));
                let len = reader.u32()? as usize;
                let kind = rest(&mut Reader::new(reader.bytes(len)?))?;
                Ok(Self::Refused(Refused { after, through, kind, message: rest(&mut reader)? }))
            }
            FrameKind::Part => {
                let hub = ReplicaId(reader.u64()?);
                let pulled = Some(Lsn(reader.u64()?)).filter(|lsn| lsn.0 != u64::MAX);
                let heard = Timestamp(reader.u64()?);
                let changes = reader.u8()? != 0;
                let (after, through) = (Lsn(reader.u64()?), Lsn(reader.u64()?));
                let len = reader.u32()? as usize;
                let part = rest(&mut Reader::new(reader.bytes(len)?))?;
                let old = rest(&mut reader)?;
                let reshape = changes.then_some(Reshape { old, after, through });
                Ok(Self::Part { hub, pulled, kept: KeptPart { part, reshape, heard } })
            }
        }
    }
}

/// The text up to the end.
fn rest(reader: &mut Reader<'_>) -> Result<String> {
    let at = reader.offset();
    let text = std::str::from_utf8(reader.bytes(reader.remaining())?);
    Ok(text.map_err(|error| Error::corrupt(format!("at byte {at}: {error}")))?.to_owned())
}

#[cfg(all(test, native))]
mod tests {
    #![expect(clippy::disallowed_methods, clippy::unwrap_used, reason = "the test reads golden files")]

    use super::*;
    use crate::base::{CollectionId, Timestamp, Version};
    use crate::model::{Batch, Row, Value};
    use crate::wal;

    fn schema() -> Arc<Schema> {
        let json = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
            {"name":"text","type":"varchar","maxLength":1000,"nullable":true},{"name":"embedding","type":"float_vector","dim":2}]}"#;
        Arc::new(serde_json::from_str(json).unwrap())
    }

    /// One of each kind; the payload of the first is packed, those of the others are not.
    fn records() -> [Record; 9] {
        let schema = schema();
        let version = |number: u64| Version {
            timestamp: Timestamp::new(1_700_000_000_000 + number, 3),
            origin: ReplicaId(77),
            sequence: Sequence(40 + number),
        };
        let row = |id: i64| {
            Row::from([
                ("id".to_owned(), Value::Int(id)),
                ("text".to_owned(), Value::String("rain on the river ".repeat(20))),
                ("embedding".to_owned(), Value::Vector(vec![0.5, -(id as f32)])),
            ])
        };
        let changes = |rows: i64, deletes: Vec<(crate::model::Key, Version)>| ChangeSet {
            puts: Batch::from_rows(&schema, (0..rows).map(row).collect()).unwrap(),
            put_versions: (0..rows).map(|_| version(1)).collect(),
            deletes,
        };
        let hub = ReplicaId(5);
        [
            Record::Changes { from: Source::Here, changes: changes(3, vec![(9.into(), version(1))]) },
            Record::Changes {
                from: Source::Hub { hub, pulled: Lsn(12), late: false },
                changes: changes(0, Vec::new()),
            },
            Record::Position { hub, position: SyncPosition { pushed: Sequence(41), pulled: Lsn(12) } },
            Record::Changes {
                from: Source::Client(RequestId { client: 1 << 40, number: 9 }),
                changes: changes(1, Vec::new()),
            },
            Record::Cursor { name: "mailer".to_owned(), lsn: Some(Lsn(21)) },
            Record::Refused(Refused {
                after: Sequence(40),
                through: Sequence(41),
                kind: "invalid_argument".to_owned(),
                message: "a timestamp a day ahead".to_owned(),
            }),
            Record::Part {
                hub,
                pulled: Some(Lsn(12)),
                kept: KeptPart {
                    part: "[{}]".to_owned(),
                    reshape: Some(Reshape { old: "[]".to_owned(), after: Lsn(3), through: Lsn(12) }),
                    heard: Timestamp(77),
                },
            },
            Record::Changes {
                from: Source::Pipeline(PipelineWrite { pipeline: 1 << 60, number: 4 }),
                changes: changes(1, vec![(7.into(), version(2))]),
            },
            Record::Lost { last: Lsn(30) },
        ]
    }

    #[test]
    fn changes_that_come_late_are_told_apart() {
        let hub = ReplicaId(5);
        for from in [Source::Comparison, Source::Hub { hub, pulled: Lsn(12), late: true }] {
            let record = Record::Changes { from, changes: ChangeSet::empty(&schema()) };
            let payload = [record.encode_head(), record.encode_rows()].concat();
            let Ok(Record::Changes { from: read, .. }) = Record::decode(&schema(), FrameKind::Changes, &payload) else {
                panic!("a record of changes")
            };
            assert_eq!(read, from);
        }
    }

    #[test]
    fn the_log_of_version_1_is_read() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/log-v1.bin");
        let mut bytes = wal::encode_header(CollectionId(7), 3);
        for (index, record) in records().iter().enumerate() {
            let body = wal::Body::pack(record.encode_rows());
            wal::encode_frame(&mut bytes, Lsn(20 + index as u64), 0, record.kind(), &record.encode_head(), &body);
        }
        if std::env::var_os("EDDY_WRITE_GOLDEN").is_some() {
            std::fs::write(path, &bytes).unwrap();
        }
        let golden = std::fs::read(path).unwrap();
        let read = wal::replay("golden", &golden, CollectionId(7), 3, Lsn(20), None).unwrap();
        assert_eq!((read.frames.len(), read.valid_len), (9, golden.len()));
        assert_eq!(
            read.frames.iter().map(|frame| golden[frame.offset + 17]).collect::<Vec<_>>(),
            [1, 0, 0, 1, 0, 0, 0, 1, 0]
        );
        // How a payload is packed may change; what is not packed is written as it was.
        let first = read.frames[0].end;
        assert_eq!(bytes[bytes.len() - (golden.len() - first)..], golden[first..]);
        for (frame, record) in read.frames.iter().zip(records()) {
            assert_eq!(frame.payload[..], [record.encode_head(), record.encode_rows()].concat());
            let decoded = Record::decode(&schema(), frame.kind, &frame.payload).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{record:?}"));
        }
    }
}
