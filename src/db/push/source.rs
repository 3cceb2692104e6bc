use std::ops::Range;

use super::log::PieceLog;
use super::{PushDurability, PushStream};
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
    /// The partitions that it reads: those of one generation.
    partitions: Range<u32>,
    /// Of each, the number of the next row.
    next: Vec<u64>,
    /// How far later ones were read before it was connected, where that is so.
    ahead: Positions,
    /// Of which of them is read next.
    turn: usize,
    /// A file that was read back.
    loaded: Option<(u32, u64, Vec<Piece>)>,
    /// Of which a batch was given out that is not known to be done.
    given: Option<usize>,
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
        partitions: 0..0,
        next: vec![],
        ahead: Positions::new(),
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
        let (floor, there) = {
            let definition = self.definition();
            (definition.0.readers.get(reader).cloned().unwrap_or_default(), definition.0.there())
        };
        there.zip(floor).map(|(partition, next)| (partition, encode(self.inner.epoch, next))).collect()
    }
}

impl PushSource {
    async fn connect_at(&mut self, positions: &Positions) -> Result<()> {
        self.stream.check_open()?;
        let stored = self.stream.spec().durability == PushDurability::Stored;
        let (mut ahead, mut first) = (Positions::new(), None);
        for (partition, position) in positions.iter().filter(|(_, position)| !position.is_empty()) {
            let (epoch, _) = decode(position)?;
            if epoch == self.stream.inner.epoch {
                first = first.or(Some(*partition));
                ahead.insert(*partition, position.clone());
            } else if stored {
                return Err(self.gone("it is another one than was read: it was dropped, or came with another store"));
            }
            // What was in memory went with the process; that is what its durability says.
        }
        let definition = self.stream.definition().0.clone();
        let begin = first.unwrap_or(definition.there().start);
        if let Some(partition) = ahead.keys().find(|partition| definition.generation(**partition).is_none()) {
            return Err(self.gone(&format!(
                "it has partitions {:?} and was read in partition {partition}, of which it does not know",
                definition.there()
            )));
        }
        let Some((partitions, ends)) = definition.generation(begin) else {
            return Err(Error::internal(format!("partition {begin} of no generation")));
        };
        let ends = ends.map(<[u64]>::to_vec);
        // Of what is not told, the generation that it begins with is read from what is kept of it on, and later ones from their beginning.
        let firsts: Vec<u64> = {
            let buffer = self.stream.buffer();
            if first.is_none() {
                // Whoever comes now begins with what is kept.
                let later = partitions.end..definition.there().end;
                ahead.extend(
                    later.map(|partition| (partition, encode(self.stream.inner.epoch, buffer.first(partition)))),
                );
            }
            partitions.clone().map(|partition| buffer.first(partition)).collect()
        };
        self.ahead = ahead;
        self.begin(partitions, ends.is_none().then_some(&firsts))?;
        self.go_on()?;
        (self.turn, self.loaded, self.given) = (0, None, None);
        let mut from: Vec<u64> = self.next.clone();
        for partition in self.partitions.end..definition.there().end {
            let number =
                self.ahead.get(&partition).map(|position| decode(position)).transpose()?.map_or(0, |(_, at)| at);
            let first = self.stream.buffer().first(partition);
            if number < first {
                return Err(self.gone(&format!(
                    "partition {partition} keeps rows from {first} on, and is to be read from {number} on"
                )));
            }
            from.push(number);
        }
        // Kept from there on; for who goes back, as far as it does.
        let (stream, reading) = (&self.stream, &self.partitions);
        let register = |definition: &mut super::PushStreamDefinition| {
            let buffer = stream.buffer();
            let floor = definition.there().map(|partition| match partition.checked_sub(reading.start) {
                None => buffer.next(partition),
                Some(at) => from.get(at as usize).copied().unwrap_or_default(),
            });
            let floor: Vec<u64> = floor.collect();
            let Some(kept) = definition.readers.get_mut(&self.reader) else {
                definition.readers.insert(self.reader.clone(), floor);
                return true;
            };
            let goes_back = floor.iter().zip(kept.iter()).any(|(from, kept)| from < kept);
            kept.iter_mut().zip(floor).for_each(|(kept, from)| *kept = from.min(*kept));
            goes_back
        };
        self.stream.store(register, |_| {}).await
    }

    fn gone(&self, message: &str) -> Error {
        Error::new(ErrorKind::Gone, format!("stream {:?}: {message}", self.stream.name()))
    }

    /// Reads partitions from now on: each from where it was read before, from its number in `firsts`, or from its beginning.
    fn begin(&mut self, partitions: Range<u32>, firsts: Option<&Vec<u64>>) -> Result<()> {
        let mut next = vec![];
        for (at, partition) in partitions.clone().enumerate() {
            let number = match self.ahead.remove(&partition) {
                Some(position) => decode(&position)?.1,
                None => firsts.map_or(0, |firsts| firsts[at]),
            };
            let (is_there, first, end) = {
                let buffer = self.stream.buffer();
                (buffer.partitions().contains(&partition), buffer.first(partition), buffer.next(partition))
            };
            if is_there && !(first..=end).contains(&number) {
                return Err(self.gone(&format!(
                    "partition {partition} keeps rows {first} to {end}, and is to be read from {number} on"
                )));
            }
            next.push(number);
        }
        self.stream.size(&self.reader, partitions.len());
        (self.partitions, self.next, self.turn, self.given) = (partitions, next, 0, None);
        Ok(())
    }

    /// Goes on with the next generation where it has come to the end of its own; tells whether it has.
    fn go_on(&mut self) -> Result<bool> {
        let mut went_on = false;
        loop {
            let (ends, next) = {
                let definition = self.stream.definition();
                let found = definition.0.generation(self.partitions.start);
                let Some(next) = definition.0.generation(self.partitions.end) else { return Ok(went_on) };
                (found.and_then(|(_, ends)| ends.map(<[u64]>::to_vec)), next.0)
            };
            if let Some(ends) = ends {
                // They are there no more.
                let short = self.partitions.clone().zip(self.next.iter().zip(&ends)).find(|(_, (at, end))| at != end);
                if let Some((partition, (at, end))) = short {
                    return Err(self.gone(&format!(
                        "partition {partition} has ended at row {end} and is kept no more, and is to be read from {at} on"
                    )));
                }
            } else {
                let buffer = self.stream.buffer();
                let ends = self.partitions.clone().map(|partition| buffer.next(partition));
                if ends.zip(&self.next).any(|(end, at)| *at < end) {
                    return Ok(went_on);
                }
            }
            self.begin(next, None)?;
            went_on = true;
        }
    }

    /// Whether no more rows come into the partitions that it reads.
    fn is_past(&self) -> bool {
        self.partitions.end <= self.stream.definition().0.now().start
    }

    async fn read_next(&mut self, rows_max: usize) -> Result<SourceBatch> {
        self.stream.check_open()?;
        if let Some(at) = self.given.take() {
            // Who asks for more has done what it had.
            let now_ms = self.now_ms();
            self.stream.sized(&self.reader, at, |sizer| sizer.done(now_ms));
        }
        self.go_on()?;
        for _ in 0..self.next.len() {
            let at = self.turn;
            let partition = self.partitions.start + at as u32;
            self.turn = (self.turn + 1) % self.next.len();
            let now_ms = self.now_ms();
            let batching = self.batching(at);
            let rows_max = batching
                .adaptive
                .map_or(rows_max, |adaptive| rows_max.min(usize::try_from(adaptive.rows_max).unwrap_or(usize::MAX)));
            let from = self.next[at];
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
                            rest.filter(|(number, _)| *number >= next)
                                .take(rows_max - before)
                                .map(|(_, row)| row.clone()),
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
            self.next[at] = next;
            let come = self.stream.buffer().next(partition);
            let given = self.stream.sized(&self.reader, at, |sizer| sizer.given(come, now_ms));
            self.given = given.map(|()| at);
            let position = Some(encode(self.stream.inner.epoch, next));
            return Ok(SourceBatch { partition, rows, refused: vec![], position, flow: Flow::More });
        }
        Ok(SourceBatch { flow: Flow::CaughtUp, ..SourceBatch::default() })
    }

    fn now_ms(&self) -> u64 {
        self.stream.inner.shared.options.environment.now_ms()
    }

    /// When rows of the partition at a place among its own are given out, as it is now.
    fn batching(&self, at: usize) -> Batching {
        let batching = self.stream.spec().batching;
        let sized = self.stream.sized(&self.reader, at, |sizer| batching.of(sizer));
        let batching = sized.unwrap_or(batching);
        // Nothing is worth waiting for where nothing comes any more.
        if self.is_past() { Batching { rows: 1, ..batching } } else { batching }
    }

    async fn commit_at(&mut self, positions: &Positions) -> Result<()> {
        let mut numbers = vec![];
        for (partition, position) in positions {
            let (epoch, number) = decode(position)?;
            if epoch == self.stream.inner.epoch {
                numbers.push((*partition, number));
            }
        }
        let mut is_on = false;
        let change = |definition: &mut super::PushStreamDefinition| {
            let there = definition.there();
            // Whoever names none of the generations before has read them to their end.
            let first = numbers.first().and_then(|(partition, _)| definition.generation(*partition));
            let first = first.map_or(there.start, |(range, _)| range.start);
            let Some(floor) = definition.readers.get_mut(&self.reader) else { return false };
            let buffer = self.stream.buffer();
            let ended = (there.start..first).map(|partition| (partition, buffer.next(partition)));
            for (partition, number) in ended.chain(numbers) {
                let at = partition.checked_sub(there.start).and_then(|at| floor.get_mut(at as usize));
                if let Some(at) = at.filter(|at| number > **at) {
                    (*at, is_on) = (number, true);
                }
            }
            is_on
        };
        // Stored before rows go: nobody may be told that it can go back to where nothing is.
        self.stream.store(change, |_| {}).await?;
        if !is_on {
            return Ok(());
        }
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

    fn partitions(&self) -> Range<u32> {
        self.partitions.clone()
    }

    fn begins(&self) -> Positions {
        let position = |next: &u64| encode(self.stream.inner.epoch, *next);
        self.partitions.clone().zip(self.next.iter().map(position)).collect()
    }

    fn due_ms(&self) -> Option<u64> {
        let due_ms = |(at, (partition, from)): (usize, (u32, &u64))| {
            let batching = self.batching(at);
            self.stream.buffer().due_ms(partition, *from, &batching)
        };
        self.partitions.clone().zip(&self.next).enumerate().filter_map(due_ms).min()
    }

    fn waiting(&self) -> Option<u64> {
        let later = self.partitions.end..self.stream.definition().0.now().end;
        let buffer = self.stream.buffer();
        let own = self.partitions.clone().zip(&self.next);
        let own: u64 = own.map(|(partition, from)| buffer.waiting(partition, *from)).sum();
        Some(own + later.map(|partition| buffer.waiting(partition, 0)).sum::<u64>())
    }

    fn retire(&mut self) -> Task<'_, Result<()>> {
        Box::pin(self.stream.retire(&self.reader))
    }
}
