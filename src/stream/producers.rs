use std::collections::VecDeque;
use std::ops::Range;

use crate::base::codec::{Reader, Write, checksum};
use crate::base::{Error, ErrorKind, Result};

const MAGIC: &[u8; 4] = b"EDPK";
const VERSION: u8 = 1;
const WHAT: &str = "the keys of pushes";

/// So many pushes of a producer are remembered at most.
const PUSHES_MAX: usize = 16;
/// So many producers are known at most.
const PRODUCERS_MAX: usize = 1_000;
/// So many bytes of them at most: each file of a log begins with them.
const BYTES_MAX: usize = 256 << 10;
/// The longest name of a producer, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Of a producer and of a push beside what they name.
const HEAD_BYTES: usize = 16;

/// By which a push is known when it comes again: who pushes, and a number that is greater with each push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushKey {
    producer: String,
    sequence: u64,
}

impl PushKey {
    /// The key of a push.
    ///
    /// # Errors
    /// `InvalidArgument` for a name of no or of more than 200 bytes, and for a number of 2^63 or more.
    pub fn new(producer: impl Into<String>, sequence: u64) -> Result<Self> {
        let producer = producer.into();
        if producer.is_empty() || producer.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a producer's name has {} bytes, expected 1 to {NAME_BYTES_MAX}",
                producer.len()
            )));
        }
        if i64::try_from(sequence).is_err() {
            return Err(Error::invalid(format!("sequence is {sequence}, expected 0 to {}", i64::MAX)));
        }
        Ok(Self { producer, sequence })
    }

    /// Who pushes.
    pub fn producer(&self) -> &str {
        &self.producer
    }

    /// The number of the push.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// A push with a key, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedPush {
    /// Its key.
    pub key: PushKey,
    /// The checksum of its rows as they came.
    pub sum: u32,
    /// What else is to be told of it when it comes again.
    pub note: Vec<u8>,
}

impl KeyedPush {
    fn len(&self) -> usize {
        self.note.len() + HEAD_BYTES
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        encode_name(&self.key.producer, out);
        self.encode_rest(out);
    }

    fn encode_rest(&self, out: &mut Vec<u8>) {
        out.put_u64(self.key.sequence);
        out.put_u32(self.sum);
        out.put_u32(self.note.len() as u32);
        out.extend_from_slice(&self.note);
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let producer = decode_name(reader)?;
        Self::decode_rest(producer, reader)
    }

    fn decode_rest(producer: String, reader: &mut Reader<'_>) -> Result<Self> {
        let (sequence, sum, len) = (reader.u64()?, reader.u32()?, reader.u32()?);
        let key = PushKey::new(producer, sequence).map_err(|error| Error::corrupt(error.message()))?;
        Ok(Self { key, sum, note: reader.bytes(len as usize)?.to_vec() })
    }
}

fn encode_name(name: &str, out: &mut Vec<u8>) {
    out.push(name.len() as u8);
    out.extend_from_slice(name.as_bytes());
}

fn decode_name(reader: &mut Reader<'_>) -> Result<String> {
    let len = reader.u8()?;
    let name = reader.bytes(usize::from(len))?;
    String::from_utf8(name.to_vec()).map_err(|_| Error::corrupt("a producer's name is no UTF-8"))
}

/// Whether a push was there before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Not yet.
    New,
    /// It was, with this note.
    Repeated(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    name: String,
    /// Of pushes with a smaller number nothing is known any more.
    first: u64,
    /// By ascending number.
    pushes: VecDeque<KeyedPush>,
}

impl Producer {
    fn len(&self) -> usize {
        self.name.len() + HEAD_BYTES + self.pushes.iter().map(KeyedPush::len).sum::<usize>()
    }

    fn forget_one(&mut self) -> usize {
        let Some(push) = self.pushes.pop_front() else { return 0 };
        self.first = self.first.max(push.key.sequence + 1);
        push.len()
    }
}

/// Who has pushed into a partition, and which of its latest pushes are there: so that none is taken twice.
///
/// Of a producer the 16 pushes with the greatest numbers are remembered, in whatever order they came; one with a smaller number is refused, for
/// nobody knows whether it was taken. Of more than 1,000 producers the one that has not pushed for the longest is forgotten as a whole. Beyond
/// 256 KiB, the pushes of those that have not pushed for the longest are forgotten first, the smallest number first. What is forgotten follows
/// from what was noted, in its order, alone.
///
/// | bytes | |
/// |---|---|
/// | 4 | how many producers, the one that has not pushed for the longest first; of each: |
/// | 1, n | its name, after its length |
/// | 8 | the number before which nothing is known |
/// | 1 | how many pushes are remembered, by ascending number; of each: |
/// | 8 | its number |
/// | 4 | CRC-32C of its rows as they came |
/// | 4, n | the note, after its length |
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    /// The one that has not pushed for the longest first.
    all: VecDeque<Producer>,
    len: usize,
}

impl Producers {
    /// How many are known.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Whether a push was there before.
    ///
    /// # Errors
    /// `Gone` for one of which nothing is known any more, `InvalidArgument` for one that had other rows.
    pub fn known(&self, key: &PushKey, sum: u32) -> Result<Known> {
        let Some(producer) = self.all.iter().rev().find(|producer| producer.name == key.producer) else {
            return Ok(Known::New);
        };
        if let Some(push) = producer.pushes.iter().find(|push| push.key.sequence == key.sequence) {
            if push.sum != sum {
                return Err(Error::invalid(format!(
                    "push {} of producer {:?} had other rows when it came first",
                    key.sequence, key.producer
                )));
            }
            return Ok(Known::Repeated(push.note.clone()));
        }
        if key.sequence < producer.first {
            return Err(Error::new(
                ErrorKind::Gone,
                format!(
                    "push {} of producer {:?} is too old: whether it was taken is remembered from {} on",
                    key.sequence, key.producer, producer.first
                ),
            ));
        }
        Ok(Known::New)
    }

    /// Notes a push that is there now.
    pub fn note(&mut self, push: KeyedPush) {
        let at = self.all.iter().position(|producer| producer.name == push.key.producer);
        let mut producer = at.and_then(|at| self.all.remove(at)).unwrap_or_else(|| {
            self.len += push.key.producer.len() + HEAD_BYTES;
            Producer { name: push.key.producer.clone(), first: 0, pushes: VecDeque::new() }
        });
        let place = producer.pushes.partition_point(|there| there.key.sequence < push.key.sequence);
        self.len += push.len();
        producer.pushes.insert(place, push);
        while producer.pushes.len() > PUSHES_MAX {
            self.len -= producer.forget_one();
        }
        self.all.push_back(producer);
        while self.all.len() > PRODUCERS_MAX {
            self.len -= self.all.pop_front().map_or(0, |producer| producer.len());
        }
        for producer in &mut self.all {
            while self.len > BYTES_MAX && !producer.pushes.is_empty() {
                self.len -= producer.forget_one();
            }
        }
        while self.len > BYTES_MAX && self.all.len() > 1 {
            self.len -= self.all.pop_front().map_or(0, |producer| producer.len());
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.all.len() as u32);
        for producer in &self.all {
            encode_name(&producer.name, out);
            out.put_u64(producer.first);
            out.push(producer.pushes.len() as u8);
            producer.pushes.iter().for_each(|push| push.encode_rest(out));
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let count = reader.u32()?;
        let mut found = Self::default();
        for _ in 0..count {
            let (name, first, pushes) = (decode_name(reader)?, reader.u64()?, reader.u8()?);
            let mut producer = Producer { name, first, pushes: VecDeque::new() };
            for _ in 0..pushes {
                let push = KeyedPush::decode_rest(producer.name.clone(), reader)?;
                if producer.pushes.back().is_some_and(|last| last.key.sequence >= push.key.sequence) {
                    return Err(Error::corrupt("pushes of a producer that do not ascend"));
                }
                producer.pushes.push_back(push);
            }
            found.len += producer.len();
            found.all.push_back(producer);
        }
        Ok(found)
    }
}

/// Who has pushed into partitions that take no more rows.
///
/// | bytes | |
/// |---|---|
/// | 4 | `EDPK` |
/// | 1 | version, 1 |
/// | 4 | the number of the first partition |
/// | 4 | how many; of each its [`Producers`] |
/// | 4 | CRC-32C of all before |
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionKeys {
    /// The number of the first partition.
    pub first: u32,
    /// By partition.
    pub producers: Vec<Producers>,
}

impl PartitionKeys {
    /// The numbers of the partitions.
    pub fn range(&self) -> Range<u32> {
        self.first..self.first.saturating_add(self.producers.len() as u32)
    }

    /// Whether nobody has.
    pub fn is_empty(&self) -> bool {
        self.producers.iter().all(|producers| producers.count() == 0)
    }

    /// The bytes of the table above.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u8(VERSION);
        out.put_u32(self.first);
        out.put_u32(self.producers.len() as u32);
        self.producers.iter().for_each(|producers| producers.encode(&mut out));
        let sum = checksum(&out);
        out.put_u32(sum);
        out
    }

    /// The keys in `bytes`.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are none, `Unsupported` for those of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt(format!("{WHAT}: {what}"));
        let Some((body, sum)) = bytes.split_last_chunk::<4>() else { return Err(corrupt("too short")) };
        if checksum(body) != u32::from_le_bytes(*sum) {
            return Err(corrupt("the checksum is wrong"));
        }
        let mut reader = Reader::new(body);
        if reader.bytes(4)? != MAGIC {
            return Err(corrupt("they begin with other bytes"));
        }
        match reader.u8()? {
            VERSION => {}
            other => {
                let message = format!("{WHAT} of version {other}, this version reads {VERSION}");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        let (first, count) = (reader.u32()?, reader.u32()?);
        let mut producers = vec![];
        for _ in 0..count {
            producers.push(Producers::decode(&mut reader)?);
        }
        match reader.remaining() {
            0 => Ok(Self { first, producers }),
            left => Err(corrupt(&format!("{left} bytes more than {count} partitions"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::base::Random;

    fn push(producer: &str, sequence: u64) -> KeyedPush {
        KeyedPush {
            key: PushKey::new(producer, sequence).unwrap(),
            sum: sequence as u32,
            note: vec![sequence as u8; 3],
        }
    }

    #[test]
    fn keys_that_cannot_be_are_refused() {
        for (producer, sequence) in [("", 1), (&*"x".repeat(201), 1), ("a", 1 << 63)] {
            assert_eq!(PushKey::new(producer, sequence).unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert!(PushKey::new("x".repeat(200), i64::MAX as u64).is_ok());
    }

    /// Whatever is noted in whatever order: nothing that was noted is ever new, but for producers that were forgotten as a whole; the bounds hold; and
    /// what is stored is what is there.
    #[test]
    fn what_was_noted_is_never_new_and_the_bounds_hold() {
        let (mut repeated, mut gone, mut forgotten) = (0, 0, 0);
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let producers = *random.pick(&[1, 3, 40, 1_500]);
            let note_bytes = *random.pick(&[0, 20, 9_000]);
            let mut known = Producers::default();
            let mut noted: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for step in 0..3_000u64 {
                let name = format!("p{}", random.below(producers));
                let before = noted.entry(name.clone()).or_default();
                let sequence = match before.is_empty() || !random.one_in(4) {
                    true => (step + 8).saturating_sub(random.below(12)) / (1 + random.below(2)),
                    false => *random.pick(before),
                };
                let key = PushKey::new(&*name, sequence).unwrap();
                match known.known(&key, sequence as u32) {
                    Ok(Known::Repeated(note)) => {
                        assert!(before.contains(&sequence), "seed {seed}, step {step}");
                        assert!(note.iter().all(|byte| *byte == sequence as u8), "seed {seed}, step {step}");
                        repeated += 1;
                        let error = known.known(&key, sequence as u32 + 1).unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "seed {seed}: {error}");
                    }
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Gone, "seed {seed}: {error}");
                        gone += 1;
                    }
                    Ok(Known::New) => {
                        if known.all.iter().any(|producer| producer.name == name) {
                            assert!(!before.contains(&sequence), "seed {seed}, step {step}");
                        } else {
                            forgotten += usize::from(before.contains(&sequence));
                            before.clear();
                        }
                        before.push(sequence);
                        let note = vec![sequence as u8; note_bytes];
                        known.note(KeyedPush { key, sum: sequence as u32, note });
                    }
                }
                let len: usize = known.all.iter().map(Producer::len).sum();
                assert_eq!(len, known.len, "seed {seed}, step {step}");
                assert!(len <= BYTES_MAX && known.all.len() <= PRODUCERS_MAX, "seed {seed}: {len} bytes");
                assert!(known.all.iter().all(|producer| producer.pushes.len() <= PUSHES_MAX), "seed {seed}");
            }
            let mut bytes = vec![];
            known.encode(&mut bytes);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Producers::decode(&mut reader).unwrap(), known, "seed {seed}");
            assert_eq!(reader.remaining(), 0);
        }
        assert!(
            repeated > 1_000 && gone > 1_000 && forgotten > 0,
            "{repeated}, {gone}, {forgotten}: the seeds try little"
        );
    }

    /// The layout of version 1, byte by byte, and that damage of it is told.
    #[test]
    fn keys_of_partitions_of_version_1_are_read() {
        let mut producers = Producers::default();
        producers.note(KeyedPush { key: PushKey::new("a", 1).unwrap(), sum: 9, note: vec![5] });
        let keys = PartitionKeys { first: 7, producers: vec![Producers::default(), producers] };
        let known = [&[1, 0, 0, 0, 1, b'a'][..], &[0; 8], &[1, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0, 0, 5]];
        let mut bytes = [b"EDPK\x01\x07\0\0\0\x02\0\0\0", &[0; 4][..], &known.concat()].concat();
        bytes.extend_from_slice(&checksum(&bytes).to_le_bytes());
        assert_eq!(PartitionKeys::decode(&bytes).unwrap(), keys);
        assert_eq!((keys.encode(), keys.range(), keys.is_empty()), (bytes.clone(), 7..9, false));
        for at in 0..bytes.len() {
            assert_eq!(PartitionKeys::decode(&bytes[..at]).unwrap_err().kind(), ErrorKind::Corrupt, "{at} bytes");
            bytes[at] ^= 1;
            assert_eq!(PartitionKeys::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
            bytes[at] ^= 1;
        }
        let sealed = |mut body: Vec<u8>| {
            body.extend_from_slice(&checksum(&body).to_le_bytes());
            PartitionKeys::decode(&body).unwrap_err().kind()
        };
        assert_eq!(sealed(b"EDPK\x02\x07\0\0\0\0\0\0\0".to_vec()), ErrorKind::Unsupported);
        // A count that is not there takes no memory.
        assert_eq!(sealed(b"EDPK\x01\x07\0\0\0\xff\xff\xff\xff".to_vec()), ErrorKind::Corrupt);
    }

    #[test]
    fn damage_is_told_and_claims_no_memory() {
        let mut known = Producers::default();
        for (producer, sequence) in [("a", 3), ("b", 1), ("a", 2), ("a", 9)] {
            known.note(push(producer, sequence));
        }
        let mut bytes = vec![];
        known.encode(&mut bytes);
        for len in 0..bytes.len() {
            assert_eq!(Producers::decode(&mut Reader::new(&bytes[..len])).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let mut random = Random::new(3);
        for _ in 0..2_000 {
            let mut damaged = bytes.clone();
            let at = random.below(bytes.len() as u64) as usize;
            damaged[at] = random.next_u64() as u8;
            if let Err(error) = Producers::decode(&mut Reader::new(&damaged)) {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            }
        }
    }
}
