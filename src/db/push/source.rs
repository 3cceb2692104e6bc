use super::PushStream;
use super::log::PieceLog;
use crate::base::codec::{Reader, Write};
use crate::base::{Error, ErrorKind, Result};
use crate::db::Db;
use crate::db::source::{Asked, Flow, Positions, Source, SourceBatch};
use crate::platform::Task;
use crate::stream::{Batching, Found, Piece};

/// What is said of it.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct StreamOptions {
    /// The push stream; the one that is called as the source, with `None`.
    stream: Option<String>,
}

/// A push stream as it is read: its partitions in turn.
struct PushSource {
    stream: PushStream,
    reader: String,
    /// The number of the next row, by partition.
    next: Vec<u64>,
    turn: u32,
    /// A file that was read back.
    loaded: Option<(u32, u64, Vec<Piece>)>,
    /// The partition of which a batch was given out that is not known to be done.
    given: Option<u32>,
}

pub(in crate::db) fn open_source(db: &Db, asked: &Asked<'_>) -> Result<Box<dyn Source>> {
    let options: Option<StreamOptions> = serde_json::from_value(asked.options.clone())
        .map_err(|error| Error::invalid(format!("connector \"stream\": {error}")))?;
    let name = options.unwrap_or_default().stream.unwrap_or_else(|| asked.name.to_owned());
    let stream = db.push_stream(&name)?;
    for field in &asked.relation.fields {
        let there = stream.relation().position(&field.name).map(|at| &stream.relation().fields[at]);
        match there {
            Some(there) if there.data_type == field.data_type => {}
            Some(there) => {
                return Err(Error::invalid(format!(
                    "stream {name:?}: its field `{}` is {}, the source has it as {}",
                    field.name,
                    there.data_type.name(),
                    field.data_type.name()
                )));
            }
            None => {
                return Err(Error::invalid(format!(
                    "stream {name:?}: it has no field `{}`, which the source has",
                    field.name
                )));
            }
        }
    }
    Ok(Box::new(PushSource {
        stream,
        reader: asked.reader.to_owned(),
        next: vec![],
        turn: 0,
        loaded: None,
        given: None,
    }))
}

/// | bytes | |
/// |---|---|
/// | 8 | which rows numbers are of: those of a stream that is stored for ever, of others while the store is open |
/// | 8 | the number of the next row |
pub(super) fn encode(epoch: u64, next: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(16);
    out.put_u64(epoch);
    out.put_u64(next);
    out
}

fn decode(bytes: &[u8]) -> Result<(u64, u64)> {
    let mut reader = Reader::new(bytes);
    let found = (reader.u64()?, reader.u64()?);
    match reader.remaining() {
        0 => Ok(found),
        left => Err(Error::corrupt(format!("a position in a stream has {left} bytes more than 16"))),
    }
}

impl PushStream {
    /// From where on rows are kept for a reader; nothing of one that has not read yet.
    pub(in crate::db) fn positions_of(&self, reader: &str) -> Positions {
        let floor = self.floor(reader).unwrap_or_default();
        (0..).zip(floor).map(|(partition, next)| (partition, encode(self.inner.epoch, next))).collect()
    }
}

impl PushSource {
    async fn connect_at(&mut self, positions: &Positions) -> Result<()> {
        self.stream.check_open()?;
        let stored = self.stream.spec().durability == super::PushDurability::Stored;
        let firsts: Vec<(u64, u64)> = {
            let buffer = self.stream.buffer();
            (0..buffer.partitions()).map(|at| (buffer.first(at), buffer.next(at))).collect()
        };
        let gone =
            |message: String| Err(Error::new(ErrorKind::Gone, format!("stream {:?}: {message}", self.stream.name())));
        let mut next = vec![];
        for (partition, (first, end)) in firsts.iter().enumerate() {
            let Some(position) = positions.get(&(partition as u32)).filter(|position| !position.is_empty()) else {
                next.push(*first);
                continue;
            };
            let (epoch, number) = decode(position)?;
            if epoch != self.stream.inner.epoch {
                if stored {
                    return gone(
                        "it is another one than was read: it was dropped, or came with another store".to_owned(),
                    );
                }
                // What was in memory went with the process; that is what its durability says.
                next.push(*first);
            } else if number < *first || number > *end {
                return gone(format!(
                    "partition {partition} keeps rows {first} to {end}, and is to be read from {number} on"
                ));
            } else {
                next.push(number);
            }
        }
        if let Some((&partition, _)) = positions.iter().find(|(partition, _)| **partition as usize >= firsts.len()) {
            return gone(format!("it has {} partitions, and was read in partition {partition}", firsts.len()));
        }
        if self.stream.floor(&self.reader).is_none() {
            self.stream.set_floor(&self.reader, Some(next.clone())).await?;
        }
        self.stream.size(&self.reader);
        (self.next, self.loaded, self.given) = (next, None, None);
        Ok(())
    }

    async fn read_next(&mut self, rows_max: usize) -> Result<SourceBatch> {
        self.stream.check_open()?;
        let partitions = self.next.len() as u32;
        if let Some(partition) = self.given.take() {
            // Who asks for more has done what it had.
            let now_ms = self.now_ms();
            self.stream.sized(&self.reader, partition, |sizer| sizer.done(now_ms));
        }
        for _ in 0..partitions {
            let partition = self.turn;
            self.turn = (self.turn + 1) % partitions;
            let now_ms = self.now_ms();
            let batching = self.batching(partition);
            let rows_max = batching
                .adaptive
                .map_or(rows_max, |adaptive| rows_max.min(usize::try_from(adaptive.rows_max).unwrap_or(usize::MAX)));
            let from = self.next[partition as usize];
            let due_ms = self.stream.buffer().due_ms(partition, from, &batching);
            if due_ms.is_none_or(|due_ms| due_ms > now_ms) {
                continue;
            }
            let mut rows = vec![];
            let mut next = from;
            // Small pushes come together.
            while rows.len() < rows_max {
                let found = self.stream.buffer().find(partition, next);
                let before = rows.len();
                match found {
                    Found::Rows(piece, skip) => rows.extend(piece.iter().skip(skip).take(rows_max - before).cloned()),
                    Found::File(file) => {
                        let is_loaded = |(of, number, _): &(u32, u64, _)| (*of, *number) == (partition, file);
                        let holds = |(.., pieces): &(u32, u64, Vec<Piece>)| {
                            pieces.last().is_some_and(|piece| next < piece.first + piece.rows.len() as u64)
                        };
                        // It may have grown since.
                        if !self.loaded.as_ref().is_some_and(|loaded| is_loaded(loaded) && holds(loaded)) {
                            let storage = &*self.stream.inner.shared.storage;
                            let pieces = PieceLog::read(self.stream.id(), partition, storage, file).await?;
                            self.loaded = Some((partition, file, pieces));
                        }
                        let pieces = self.loaded.iter().flat_map(|(.., pieces)| pieces);
                        let rest = pieces.flat_map(|piece| (piece.first..).zip(&piece.rows));
                        // What is in memory again after it comes from there.
                        rows.extend(
                            rest.filter(|(at, _)| *at >= next).take(rows_max - before).map(|(_, row)| row.clone()),
                        );
                        if rows.len() == before {
                            return Err(Error::corrupt(format!(
                                "stream {:?}: row {next} of partition {partition} is not in the file where it was written",
                                self.stream.name()
                            )));
                        }
                    }
                    Found::Nothing => break,
                    Found::Gone(first) => {
                        let message = format!("stream {:?}: rows {next} to {first} are gone", self.stream.name());
                        return Err(Error::new(ErrorKind::Gone, message));
                    }
                }
                next += (rows.len() - before) as u64;
            }
            self.next[partition as usize] = next;
            let come = self.stream.buffer().next(partition);
            let given = self.stream.sized(&self.reader, partition, |sizer| sizer.given(come, now_ms));
            self.given = given.map(|()| partition);
            let position = Some(encode(self.stream.inner.epoch, next));
            return Ok(SourceBatch { partition, rows, refused: vec![], position, flow: Flow::More });
        }
        Ok(SourceBatch { flow: Flow::CaughtUp, ..SourceBatch::default() })
    }

    fn now_ms(&self) -> u64 {
        self.stream.inner.shared.options.environment.now_ms()
    }

    /// When rows of a partition are given out, as it is now.
    fn batching(&self, partition: u32) -> Batching {
        let batching = self.stream.spec().batching;
        let sized = self.stream.sized(&self.reader, partition, |sizer| batching.of(sizer));
        sized.unwrap_or(batching)
    }

    async fn commit_at(&mut self, positions: &Positions) -> Result<()> {
        let Some(mut floor) = self.stream.floor(&self.reader) else { return Ok(()) };
        let mut is_on = false;
        for (partition, position) in positions {
            let (epoch, number) = decode(position)?;
            let Some(at) = floor.get_mut(*partition as usize) else { continue };
            if epoch == self.stream.inner.epoch && number > *at {
                (*at, is_on) = (number, true);
            }
        }
        if !is_on {
            return Ok(());
        }
        // Stored before rows go: nobody may be told that it can go back to where nothing is.
        self.stream.set_floor(&self.reader, Some(floor)).await?;
        self.stream.release();
        self.stream.remove_files().await
    }
}

impl Source for PushSource {
    fn connect<'a>(&'a mut self, positions: &'a Positions) -> Task<'a, Result<()>> {
        Box::pin(self.connect_at(positions))
    }

    fn read(&mut self, rows_max: usize) -> Task<'_, Result<SourceBatch>> {
        Box::pin(self.read_next(rows_max))
    }

    fn commit<'a>(&'a mut self, positions: &'a Positions) -> Task<'a, Result<()>> {
        Box::pin(self.commit_at(positions))
    }

    fn partitions(&self) -> u32 {
        self.stream.buffer().partitions()
    }

    fn due_ms(&self) -> Option<u64> {
        let due_ms = |(partition, from): (u32, &u64)| {
            let batching = self.batching(partition);
            self.stream.buffer().due_ms(partition, *from, &batching)
        };
        (0..).zip(&self.next).filter_map(due_ms).min()
    }

    fn waiting(&self) -> Option<u64> {
        let buffer = self.stream.buffer();
        Some((0..).zip(&self.next).map(|(partition, from)| buffer.waiting(partition, *from)).sum())
    }

    fn retire(&mut self) -> Task<'_, Result<()>> {
        Box::pin(self.stream.retire(&self.reader))
    }
}
