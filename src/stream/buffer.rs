use std::collections::VecDeque;
use std::ops::Range;

use super::adaptive::{Adaptive, Sizer};
use super::producers::{KeyedPush, Producers};
use crate::base::codec::{Reader, Write};
use crate::base::{Error, Result, message};
use crate::model::Row;

/// So many rows at most come in one piece.
pub const PIECE_ROWS_MAX: usize = 100_000;

/// When rows that wait are given out. One of the three is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Batching {
    /// So many wait.
    pub rows: u64,
    /// They take so many bytes.
    pub bytes: usize,
    /// The oldest has waited so long, in milliseconds. 0: at once.
    pub delay_ms: u64,
    /// Rows and delay follow how fast rows come and how long a batch takes, instead of being those above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<Adaptive>,
}

impl Batching {
    /// The same, with what follows the load as it is now.
    #[must_use]
    pub fn of(self, sizer: &Sizer) -> Self {
        Self { rows: sizer.rows(), delay_ms: sizer.delay_ms(), ..self }
    }
}

impl Default for Batching {
    fn default() -> Self {
        Self { rows: 1_000, bytes: 1 << 20, delay_ms: 0, adaptive: None }
    }
}

/// Rows that were pushed together into one partition.
///
/// | bytes | |
/// |---|---|
/// | 8 | the number of the first row |
/// | 4 | how many rows; with the highest bit, when they came stands after it; with the second highest one, pushes with keys do |
/// | 8 | when they came, in milliseconds since 1970, with the first of these bits |
/// | n | with the second: the [`Producers`] of the partition before this piece, none but in the first piece of a file |
/// | 4 | with it: how many pushes with a key; of each: |
/// | 1, n | its producer, after the length of the name |
/// | 8, 4, 4, n | its number, the CRC-32C of its rows as they came, and the note, after its length |
/// | n | each row as a MessagePack map |
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The number of the first row in its partition.
    pub first: u64,
    /// When they came, in milliseconds since 1970, where that is to be known for longer than the store is open.
    pub came_ms: Option<u64>,
    /// What is known of producers before it, in the first piece of a file.
    pub producers: Producers,
    /// The pushes with a key whose rows are in it, or that had none for it in the end.
    pub keyed: Vec<KeyedPush>,
    /// The rows.
    pub rows: Vec<Row>,
}

/// In the count of rows: when they came is told.
const CAME: u32 = 1 << 31;
/// The same: pushes with keys are.
const KEYED: u32 = 1 << 30;

impl Piece {
    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 * self.rows.len() + 12);
        out.put_u64(self.first);
        let is_keyed = self.producers.count() > 0 || !self.keyed.is_empty();
        let came = if self.came_ms.is_some() { CAME } else { 0 };
        out.put_u32(self.rows.len() as u32 | came | if is_keyed { KEYED } else { 0 });
        if let Some(came_ms) = self.came_ms {
            out.put_u64(came_ms);
        }
        if is_keyed {
            self.producers.encode(&mut out);
            out.put_u32(self.keyed.len() as u32);
            self.keyed.iter().for_each(|push| push.encode(&mut out));
        }
        for row in &self.rows {
            rmp_serde::encode::write(&mut out, row).expect("rows are maps of texts, numbers and lists");
        }
        out
    }

    /// The rows in `bytes`.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (first, count) = (reader.u64()?, reader.u32()?);
        let came_ms = if count & CAME == 0 { None } else { Some(reader.u64()?) };
        let (mut producers, mut keyed) = (Producers::default(), vec![]);
        if count & KEYED != 0 {
            producers = Producers::decode(&mut reader)?;
            for _ in 0..reader.u32()? {
                keyed.push(KeyedPush::decode(&mut reader)?);
            }
        }
        let count = (count & !(CAME | KEYED)) as usize;
        let corrupt = |what: String| Error::corrupt(format!("rows that were pushed: {what}"));
        if count > PIECE_ROWS_MAX || first.checked_add(count as u64).is_none() {
            return Err(corrupt(format!("{count} rows from number {first} on")));
        }
        let body = reader.bytes(reader.remaining())?;
        let mut rows = vec![];
        let mut decoder = message::Decoder::<false>::new(body);
        for number in 0..count {
            let row = <Row as serde::Deserialize>::deserialize(&mut decoder);
            rows.push(row.map_err(|error| corrupt(format!("row {number} of {count}: {error}")))?);
        }
        match body.len() - decoder.position() {
            0 => Ok(Self { first, came_ms, producers, keyed, rows }),
            left => Err(corrupt(format!("{left} bytes more than {count} rows"))),
        }
    }
}

/// What a buffer knows of a piece.
#[derive(Debug, Clone, PartialEq)]
struct Slot {
    first: u64,
    count: u64,
    bytes: usize,
    came_ms: u64,
    /// When it is kept in memory.
    rows: Option<std::sync::Arc<Vec<Row>>>,
    /// The file that it stands in, when it was written.
    file: Option<u64>,
}

impl Slot {
    fn end(&self) -> u64 {
        self.first + self.count
    }
}

/// What is to be done with rows that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// They are kept in memory.
    Memory,
    /// There is no room for them in memory: they are kept in storage alone.
    Storage,
    /// There is no room.
    None,
}

/// What there is after a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Rows, from this number on: a piece, and how many of its first ones are not wanted.
    Rows(std::sync::Arc<Vec<Row>>, usize),
    /// Rows that stand in this file.
    File(u64),
    /// Nothing yet.
    Nothing,
    /// They are not kept any more; those from this number on are.
    Gone(u64),
}

/// Rows that wait to be read, in partitions: which of them are in memory and which in storage, by two bounds. What is in which file it is told;
/// it reads and writes nothing.
#[derive(Debug, Clone, Default)]
pub struct Buffer {
    /// The number of the first partition that is there.
    first: u32,
    lanes: VecDeque<Lane>,
    memory_bytes_max: usize,
    bytes_max: u64,
    memory_bytes: usize,
    bytes: u64,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    slots: VecDeque<Slot>,
    next: u64,
}

/// Of a partition that is not there.
static NONE: Lane = Lane { slots: VecDeque::new(), next: 0 };

impl Buffer {
    /// An empty one. What is over `memory_bytes_max` is kept in storage alone, what is over `bytes_max` not at all.
    pub fn new(partitions: Range<u32>, memory_bytes_max: usize, bytes_max: u64) -> Self {
        let (first, lanes) = (partitions.start, partitions.map(|_| Lane::default()).collect());
        Self { first, lanes, memory_bytes_max, bytes_max, memory_bytes: 0, bytes: 0 }
    }

    /// The numbers of the partitions.
    pub fn partitions(&self) -> Range<u32> {
        self.first..self.first + self.lanes.len() as u32
    }

    /// More partitions, after those that are there.
    pub fn extend(&mut self, count: u32) {
        self.lanes.extend((0..count).map(|_| Lane::default()));
    }

    /// Partitions before number `before` are there no more. Nothing is in them.
    pub fn retire(&mut self, before: u32) {
        while self.first < before {
            let lane = self.lanes.pop_front();
            assert!(lane.is_some_and(|lane| lane.slots.is_empty()), "rows of a partition that goes");
            self.first += 1;
        }
    }

    /// One that is not there has had no rows.
    fn lane(&self, partition: u32) -> &Lane {
        let at = partition.checked_sub(self.first);
        at.and_then(|at| self.lanes.get(at as usize)).unwrap_or(&NONE)
    }

    fn lane_mut(&mut self, partition: u32) -> &mut Lane {
        let at = partition.checked_sub(self.first).expect("a partition that is there");
        self.lanes.get_mut(at as usize).expect("a partition that is there")
    }

    /// Where rows of so many bytes can be kept. One push is taken however large it is, when nothing else is there.
    pub fn room(&self, bytes: usize) -> Room {
        if self.bytes > 0 && self.bytes.saturating_add(bytes as u64) > self.bytes_max {
            Room::None
        } else if self.memory_bytes.saturating_add(bytes) > self.memory_bytes_max {
            Room::Storage
        } else {
            Room::Memory
        }
    }

    /// The number of the next row of a partition.
    pub fn next(&self, partition: u32) -> u64 {
        self.lane(partition).next
    }

    /// The number of the first row of a partition that is there.
    pub fn first(&self, partition: u32) -> u64 {
        let lane = self.lane(partition);
        lane.slots.front().map_or(lane.next, |slot| slot.first)
    }

    /// Whether nothing of a partition is there.
    pub fn is_empty(&self, partition: u32) -> bool {
        self.lane(partition).slots.is_empty()
    }

    /// Takes the next rows of a partition; they stand in `file`, if they were written, and stay in memory with `keep`.
    pub fn push(&mut self, partition: u32, piece: Piece, bytes: usize, now_ms: u64, file: Option<u64>, keep: bool) {
        debug_assert!(keep || file.is_some(), "rows that are nowhere");
        let lane = self.lane_mut(partition);
        if lane.slots.is_empty() {
            lane.next = piece.first;
        }
        assert_eq!(piece.first, lane.next, "rows are numbered one after the other");
        let count = piece.rows.len() as u64;
        lane.next += count;
        let rows = keep.then(|| std::sync::Arc::new(piece.rows));
        lane.slots.push_back(Slot { first: piece.first, count, bytes, came_ms: now_ms, rows, file });
        self.bytes += bytes as u64;
        if keep {
            self.memory_bytes += bytes;
        }
    }

    /// Rows of a partition from number `from` on.
    pub fn find(&self, partition: u32, from: u64) -> Found {
        let lane = self.lane(partition);
        if from >= lane.next {
            return Found::Nothing;
        }
        let first = self.first(partition);
        if from < first {
            return Found::Gone(first);
        }
        let at = lane.slots.partition_point(|slot| slot.end() <= from);
        let slot = &lane.slots[at];
        match (&slot.rows, slot.file) {
            (Some(rows), _) => Found::Rows(rows.clone(), (from - slot.first) as usize),
            (None, Some(file)) => Found::File(file),
            (None, None) => unreachable!("rows are in memory or in a file"),
        }
    }

    /// How many rows of a partition come from number `from` on.
    pub fn waiting(&self, partition: u32, from: u64) -> u64 {
        self.next(partition).saturating_sub(from.max(self.first(partition)))
    }

    /// When what waits from number `from` on is to be given out; `None` when nothing waits. Under pressure of memory, which is beyond half
    /// of what may be kept there, at once.
    pub fn due_ms(&self, partition: u32, from: u64, batching: &Batching) -> Option<u64> {
        let lane = self.lane(partition);
        let at = lane.slots.partition_point(|slot| slot.end() <= from);
        let oldest = lane.slots.get(at)?;
        let bytes = || lane.slots.iter().skip(at).map(|slot| slot.bytes).sum::<usize>();
        let is_full = self.waiting(partition, from) >= batching.rows
            || self.memory_bytes > self.memory_bytes_max / 2
            || bytes() >= batching.bytes;
        Some(if is_full { 0 } else { oldest.came_ms.saturating_add(batching.delay_ms) })
    }

    /// Nobody reads rows of a partition before number `before` soon: what is in storage of them leaves memory.
    pub fn unload(&mut self, partition: u32, before: u64) {
        let mut unloaded = 0;
        for slot in self.lane_mut(partition).slots.iter_mut().take_while(|slot| slot.end() <= before) {
            if slot.file.is_some() && slot.rows.take().is_some() {
                unloaded += slot.bytes;
            }
        }
        self.memory_bytes -= unloaded;
    }

    /// Nobody reads rows of a partition before number `before` any more: pieces go as wholes.
    pub fn release(&mut self, partition: u32, before: u64) {
        while self.lane(partition).slots.front().is_some_and(|slot| slot.end() <= before) {
            let Some(slot) = self.lane_mut(partition).slots.pop_front() else { break };
            self.bytes -= slot.bytes as u64;
            if slot.rows.is_some() {
                self.memory_bytes -= slot.bytes;
            }
        }
    }

    /// The numbers of a partition begin here: nothing of it is there.
    pub fn begin(&mut self, partition: u32, next: u64) {
        let lane = self.lane_mut(partition);
        debug_assert!(lane.slots.is_empty(), "numbers do not begin anew");
        lane.next = next;
    }

    /// The bytes that are kept, and those of them in memory.
    pub fn bytes(&self) -> (u64, usize) {
        (self.bytes, self.memory_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::producers::PushKey;
    use super::*;
    use crate::base::Random;
    use crate::model::Value;

    fn row(number: u64) -> Row {
        Row::from([
            ("n".to_owned(), Value::Int(number as i64)),
            ("text".to_owned(), "ä\u{1F600}".into()),
            ("x".to_owned(), Value::Double(0.1)),
            ("vector".to_owned(), Value::Vector(vec![1.5, -0.0])),
            ("json".to_owned(), Value::Json(serde_json::json!({"a": [1, null, "b"]}))),
            ("none".to_owned(), Value::Null),
        ])
    }

    fn piece(first: u64, count: u64) -> Piece {
        let rows = (first..first + count).map(row).collect();
        Piece { first, came_ms: None, producers: Producers::default(), keyed: vec![], rows }
    }

    #[test]
    fn pieces_are_read_as_they_were_written_and_damage_is_told() {
        let whole = piece(7, 3);
        let bytes = whole.encode();
        assert_eq!(Piece::decode(&bytes).unwrap(), whole);
        assert_eq!(Piece::decode(&piece(0, 0).encode()).unwrap().rows, Vec::<Row>::new());
        for len in 0..bytes.len() {
            let error = Piece::decode(&bytes[..len]).unwrap_err();
            assert_eq!(error.kind(), crate::base::ErrorKind::Corrupt, "{len}: {error}");
        }
        assert!(Piece::decode(&[&bytes[..], &[0]].concat()).unwrap_err().message().contains("1 bytes more"));
        let mut random = Random::new(1);
        for _ in 0..2_000 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len() as u64) as usize;
            damaged[at] = random.next_u64() as u8;
            if let Err(error) = Piece::decode(&damaged) {
                assert_eq!(error.kind(), crate::base::ErrorKind::Corrupt, "{error}");
            }
        }
        // A count that is not there takes no memory.
        let mut many = bytes.clone();
        many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Piece::decode(&many).is_err());
    }

    #[test]
    fn pieces_of_version_1_are_read() {
        let bytes = "07000000000000000200000082a2696401a470616765a4686f6d6582a2696402a470616765c0";
        let bytes: Vec<u8> =
            (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap()).collect();
        let row = |id, page: Value| Row::from([("id".to_owned(), Value::Int(id)), ("page".to_owned(), page)]);
        let rows = vec![row(1, "home".into()), row(2, Value::Null)];
        let piece = Piece { first: 7, came_ms: None, producers: Producers::default(), keyed: vec![], rows };
        assert_eq!(Piece::decode(&bytes).unwrap(), piece);
        assert_eq!(piece.encode(), bytes);
        // With the time at which they came.
        let piece = Piece { came_ms: Some(258), ..piece };
        let mut timed = bytes;
        timed[11] = 0x80;
        timed.splice(12..12, [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Piece::decode(&timed).unwrap(), piece);
        assert_eq!(piece.encode(), timed);
        for len in 0..timed.len() {
            assert!(Piece::decode(&timed[..len]).is_err(), "{len} bytes");
        }
        // With the keys of pushes, and what is known of producers before them.
        let push = |sequence| KeyedPush { key: PushKey::new("a", sequence).unwrap(), sum: 9, note: vec![5] };
        let mut producers = Producers::default();
        producers.note(push(1));
        let piece = Piece { producers, keyed: vec![push(2)], ..piece };
        let mut keyed = timed;
        keyed[11] = 0xc0;
        let known = [&[1, 0, 0, 0, 1, b'a'][..], &[0; 8], &[1, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 5]];
        let pushes = [&[1, 0, 0, 0, 1, b'a'][..], &[2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 5]];
        keyed.splice(20..20, [known.concat(), pushes.concat()].concat());
        assert_eq!(Piece::decode(&keyed).unwrap(), piece);
        assert_eq!(piece.encode(), keyed);
        for len in 0..keyed.len() {
            assert_eq!(
                Piece::decode(&keyed[..len]).unwrap_err().kind(),
                crate::base::ErrorKind::Corrupt,
                "{len} bytes"
            );
        }
    }

    #[test]
    fn what_was_read_leaves_memory_and_stays_in_storage() {
        let mut buffer = Buffer::new(0..1, 250, 1_000);
        buffer.push(0, piece(0, 2), 100, 5, Some(0), true);
        buffer.push(0, piece(2, 2), 100, 6, None, true);
        buffer.unload(0, 4);
        // What is in memory alone stays there.
        assert_eq!(buffer.bytes(), (200, 100));
        assert_eq!(buffer.find(0, 1), Found::File(0));
        assert!(matches!(buffer.find(0, 2), Found::Rows(..)));
        buffer.release(0, 4);
        assert_eq!(buffer.bytes(), (0, 0));
    }

    #[test]
    fn what_does_not_fit_goes_to_storage_and_then_nowhere() {
        let mut buffer = Buffer::new(0..1, 100, 250);
        assert_eq!(buffer.room(1_000), Room::Storage, "one is taken however large it is");
        assert_eq!(buffer.room(100), Room::Memory);
        buffer.push(0, piece(0, 2), 100, 5, None, true);
        assert_eq!(buffer.room(1), Room::Storage);
        buffer.push(0, piece(2, 3), 100, 6, Some(2), false);
        assert_eq!(buffer.room(51), Room::None);
        assert_eq!(buffer.room(50), Room::Storage);
        assert_eq!(buffer.bytes(), (200, 100));
        assert!(matches!(buffer.find(0, 1), Found::Rows(rows, 1) if rows.len() == 2));
        assert_eq!(buffer.find(0, 2), Found::File(2));
        assert_eq!(buffer.find(0, 4), Found::File(2));
        assert_eq!(buffer.find(0, 5), Found::Nothing);
        assert_eq!(buffer.waiting(0, 1), 4);
        buffer.release(0, 4);
        assert_eq!((buffer.find(0, 1), buffer.bytes()), (Found::Gone(2), (100, 0)));
        buffer.release(0, 5);
        assert_eq!((buffer.next(0), buffer.first(0), buffer.bytes()), (5, 5, (0, 0)));
        assert_eq!(buffer.room(250), Room::Storage);
    }

    #[test]
    fn rows_come_by_number_by_size_by_time_and_when_memory_is_short() {
        let mut buffer = Buffer::new(0..2, 1_000, 10_000);
        let batching = Batching { rows: 5, bytes: 400, delay_ms: 50, adaptive: None };
        assert_eq!(buffer.due_ms(0, 0, &batching), None);
        buffer.push(0, piece(0, 2), 10, 7, None, true);
        assert_eq!(buffer.due_ms(0, 0, &batching), Some(57));
        buffer.push(0, piece(2, 3), 10, 30, None, true);
        assert_eq!(buffer.due_ms(0, 0, &batching), Some(0), "by number");
        assert_eq!(buffer.due_ms(0, 2, &batching), Some(80));
        assert_eq!(buffer.due_ms(0, 5, &batching), None);
        buffer.push(1, piece(0, 1), 400, 9, None, true);
        assert_eq!(buffer.due_ms(1, 0, &batching), Some(0), "by size");
        assert_eq!(buffer.due_ms(0, 2, &batching), Some(80));
        buffer.push(1, piece(1, 1), 100, 9, None, true);
        assert_eq!(buffer.due_ms(0, 2, &batching), Some(0), "by memory");
    }

    #[test]
    fn every_row_is_found_once_whatever_is_released() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut buffer = Buffer::new(0..1, 300, 2_000);
            let (mut read, mut released, mut file) = (0, 0, 0);
            for _ in 0..100 {
                match random.below(3) {
                    0 => {
                        let bytes = 1 + random.below(90) as usize;
                        let (room, next) = (buffer.room(bytes), buffer.next(0));
                        if random.below(4) == 0 {
                            file = next;
                        }
                        if room != Room::None {
                            let stored = (room == Room::Storage).then_some(file);
                            buffer.push(0, piece(next, 1 + random.below(4)), bytes, 0, stored, room == Room::Memory);
                        }
                    }
                    1 => match buffer.find(0, read) {
                        Found::Rows(rows, skip) => {
                            assert_eq!(rows[skip]["n"], Value::Int(read as i64), "seed {seed}");
                            read += (rows.len() - skip) as u64;
                        }
                        Found::File(_) => read += 1,
                        Found::Nothing => assert_eq!(read, buffer.next(0), "seed {seed}"),
                        Found::Gone(first) => panic!("seed {seed}: row {read} is gone, {first} is there"),
                    },
                    _ => {
                        released = released.max(random.below(read + 1));
                        buffer.release(0, released);
                    }
                }
                assert!(buffer.first(0) <= released.max(buffer.first(0)) && buffer.first(0) <= read, "seed {seed}");
            }
            buffer.release(0, buffer.next(0));
            assert_eq!(buffer.bytes(), (0, 0), "seed {seed}");
        }
    }
}
