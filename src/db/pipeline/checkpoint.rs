use bytes::Bytes;

use super::spec::unframed;
use crate::base::codec::{Reader, Write, checksum};
use crate::base::{Error, ErrorKind, Result};
use crate::engine::name;
use crate::storage::Storage;

const MAGIC: &[u8; 4] = b"EDPC";
const VERSION: u8 = 1;
const WHAT: &str = "a pipeline's checkpoint";
/// The longest name of a savepoint, in bytes.
const LABEL_BYTES_MAX: usize = 64;

/// All that a pipeline is at one moment: the state of its operators and how far each source was read, and the rows for its sinks that came of
/// it and may not be written yet.
///
/// | bytes | |
/// |---|---|
/// | 4 | `EDPC` |
/// | 1 | version, 1 |
/// | 8 | the number of the checkpoint |
/// | 8 | when it was made, in milliseconds since 1970 |
/// | 8 | the number of the last write to a sink |
/// | 4 | how many sinks count their rows; of each the number of its node (4), and of its next row (8) |
/// | 4 | how many writes; of each the number of its node (4; 2^32 - 1 for dead letters), its own number (8), 1 when the collection is emptied first (1), the length (8) and bytes of a [`ChangeSet`](crate::engine::ChangeSet) without versions |
/// | 8 + n | the length and bytes of the job's own [checkpoint](crate::stream::Job::checkpoint), which has the positions of the sources |
/// | 4 | CRC-32C of all before |
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    /// Counts checkpoints.
    pub number: u64,
    /// When it was made.
    pub created_ms: u64,
    /// The last write to a sink.
    pub sequence: u64,
    /// By the number of the sink's node, that of its next row.
    pub next_rows: Vec<(u32, u64)>,
    /// What is to be written.
    pub writes: Vec<SinkWrite>,
    /// The job.
    pub job: Vec<u8>,
}

/// Rows and deletes for a sink.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SinkWrite {
    /// The number of the sink's node; [`SinkWrite::DEAD_LETTERS`] for dead letters.
    pub node: u32,
    /// Counts the writes of a pipeline.
    pub number: u64,
    /// Whether all rows that are there are deleted first.
    pub clears: bool,
    /// A change set.
    pub changes: Vec<u8>,
}

impl SinkWrite {
    /// The collection of dead letters is no node's.
    pub const DEAD_LETTERS: u32 = u32::MAX;
}

impl Checkpoint {
    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let len = 64 + self.job.len() + self.writes.iter().map(|write| 21 + write.changes.len()).sum::<usize>();
        let mut out = Vec::with_capacity(len + 12 * self.next_rows.len());
        out.put_bytes(MAGIC);
        out.put_u8(VERSION);
        out.put_u64(self.number);
        out.put_u64(self.created_ms);
        out.put_u64(self.sequence);
        out.put_u32(self.next_rows.len() as u32);
        for (node, next) in &self.next_rows {
            out.put_u32(*node);
            out.put_u64(*next);
        }
        out.put_u32(self.writes.len() as u32);
        for write in &self.writes {
            out.put_u32(write.node);
            out.put_u64(write.number);
            out.put_u8(write.clears.into());
            out.put_u64(write.changes.len() as u64);
            out.put_bytes(&write.changes);
        }
        out.put_u64(self.job.len() as u64);
        out.put_bytes(&self.job);
        let sum = checksum(&out);
        out.put_u32(sum);
        out
    }

    /// The checkpoint in `bytes`.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are none, `Unsupported` for those of another version. What is in the job's own is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(unframed(bytes, MAGIC, VERSION, WHAT)?);
        let read = |reader: &mut Reader<'_>| {
            let mut found =
                Self { number: reader.u64()?, created_ms: reader.u64()?, sequence: reader.u64()?, ..Self::default() };
            for _ in 0..reader.u32()? {
                found.next_rows.push((reader.u32()?, reader.u64()?));
            }
            for _ in 0..reader.u32()? {
                let (node, number) = (reader.u32()?, reader.u64()?);
                let clears = match reader.u8()? {
                    0 => false,
                    1 => true,
                    other => return Err(Error::corrupt(format!("flag {other}, expected 0 or 1"))),
                };
                let changes = sized(reader)?.to_vec();
                found.writes.push(SinkWrite { node, number, clears, changes });
            }
            found.job = sized(reader)?.to_vec();
            match reader.remaining() {
                0 => Ok(found),
                left => Err(Error::corrupt(format!("{left} bytes more than it says"))),
            }
        };
        read(&mut reader).map_err(|error: Error| error.context(WHAT))
    }
}

fn sized<'b>(reader: &mut Reader<'b>) -> Result<&'b [u8]> {
    let len = reader.u64()?;
    reader.bytes(usize::try_from(len).unwrap_or(usize::MAX))
}

pub(super) fn definitions(id: u64) -> String {
    format!("{}definition/", name::pipeline(id))
}

pub(super) fn definition(id: u64, version: u64) -> String {
    format!("{}{version:010}", definitions(id))
}

pub(super) fn checkpoints(id: u64) -> String {
    format!("{}checkpoint/", name::pipeline(id))
}

pub(super) fn checkpoint(id: u64, number: u64) -> String {
    format!("{}{number:010}", checkpoints(id))
}

pub(super) fn savepoints(id: u64) -> String {
    format!("{}savepoint/", name::pipeline(id))
}

pub(super) fn savepoint(id: u64, label: &str) -> Result<String> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let begins = label.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if label.len() > LABEL_BYTES_MAX || !begins || !label.bytes().all(fits) {
        return Err(Error::invalid(format!(
            "savepoint {label:?}: expected 1 to {LABEL_BYTES_MAX} of a-z, 0-9, '.', '_' and '-', a letter or digit first"
        )));
    }
    Ok(format!("{}{label}", savepoints(id)))
}

/// Stores `bytes`, and sees that they can be read.
///
/// # Errors
/// `Corrupt` when other bytes come back; they are removed then.
pub(super) async fn store(storage: &dyn Storage, path: &str, bytes: Vec<u8>) -> Result<()> {
    let (len, sum) = (bytes.len(), checksum(&bytes));
    storage.put(path, bytes.into()).await?;
    let found: Bytes = storage.read_all(path).await?;
    if found.len() == len && checksum(&found) == sum {
        return Ok(());
    }
    storage.remove(path).await?;
    Err(Error::corrupt(format!("{path}: it was stored, and other bytes were read")))
}

/// The numbers of the checkpoints that are there, the latest first.
pub(super) async fn numbers(storage: &dyn Storage, id: u64) -> Result<Vec<u64>> {
    let entries = storage.list(&checkpoints(id)).await?;
    let mut numbers: Vec<u64> = entries.iter().filter_map(|entry| name::number(&entry.name)).collect();
    numbers.sort_unstable_by(|left, right| right.cmp(left));
    Ok(numbers)
}

/// A checkpoint, and `None` where there are damaged bytes or none; then with why.
pub(super) async fn read(storage: &dyn Storage, path: &str) -> Result<Result<Checkpoint>> {
    let bytes = match storage.read_all(path).await {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => return Ok(Err(error)),
        Err(error) => return Err(error),
    };
    Ok(Checkpoint::decode(&bytes).map_err(|error| error.context(path)))
}
