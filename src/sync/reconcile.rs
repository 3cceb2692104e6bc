//! Finding where two sets differ without sending them: range-based set reconciliation.
//!
//! After Aljoscha Meyer, "Range-Based Set Reconciliation" (SRDS 2023), and Doug Hoyte's Negentropy. Both sides sort what they have by
//! (timestamp, id) and compare fingerprints of ranges: equal ranges end, differing ones are split, small ones listed. We depart from them in
//! that only the hub lists, and the client, which asks for it, finds both differences by that; and in the ids, which are hashes under a
//! key that the hub draws for each of its sets: nobody can prepare rows whose sums agree. A fingerprint is a count and a sum of 64 bits;
//! two ranges that differ are taken for equal with odds of one to 2^64.
//!
//! The hub keeps nothing between two messages but its set, which serves all clients that compare with it.
//!
//! # Ranges
//!
//! A message tells ranges, from the beginning on, each up to where the next one begins; what comes after the last one is equal. Numbers
//! are varints of seven bits, the lowest first.
//!
//! | bytes | what |
//! |---|---|
//! | varint | 0: up to the end; else one more than the timestamp that ends it, less that of the range before |
//! | 1 | what is told of it: 0 nothing, 1 a fingerprint, 2 that it be listed (client), 3 a list (hub); with 16 added an id follows |
//! | 8 | the id with which it ends, which is not in it; without one, the timestamp is not in it |
//! | varint, 8 | of a fingerprint: how many there are, and the sum of their ids |
//! | varint, ... | of a list: how many follow, each with a varint, its timestamp less that of the one before (of the first: less that at which the range begins), and an id (8) |

use std::ops::Range;

use crate::base::codec::{Reader, Write};
use crate::base::{Error, Result, Timestamp, sort_by};

/// A range of no more than this is listed rather than split: to list it takes about as many bytes as to split it.
const LIST_MAX: usize = 16;
/// A range is split into so many.
const SPLIT: usize = 16;
/// Sums of so many items are kept.
const BLOCK: usize = 64;
/// When a message is past this, nothing more is split or listed in it: what is left is told by the fingerprints of the ranges as they are.
pub const RANGES_BYTES: usize = 128 << 10;

const NOTHING: u8 = 0;
const FINGERPRINT: u8 = 1;
const ASK: u8 = 2;
const LIST: u8 = 3;
const WITH_ID: u8 = 16;

/// A row or a delete as it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// When it was written.
    pub timestamp: Timestamp,
    /// A hash of its key and its whole version.
    pub id: u64,
}

/// Where a range ends: not in it. `None` for the end of all.
type Bound = Option<Item>;

/// A set that can be compared. 16 bytes an item, and a little.
#[derive(Debug, Default)]
pub struct Items {
    items: Vec<Item>,
    /// The sums of the ids before each block.
    sums: Vec<u64>,
}

impl Items {
    /// The set of these, in whatever order they come.
    pub fn new(mut items: Vec<Item>) -> Self {
        if !items.is_sorted() {
            sort_by(&mut items, Ord::cmp);
        }
        items.dedup();
        let mut sum = 0u64;
        let mut sums = Vec::with_capacity(items.len() / BLOCK + 1);
        for block in items.chunks(BLOCK) {
            sums.push(sum);
            sum = block.iter().fold(sum, |sum, item| sum.wrapping_add(item.id));
        }
        sums.push(sum);
        Self { items, sums }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The sum of the first `count` ids.
    fn sum_before(&self, count: usize) -> u64 {
        let block = count / BLOCK;
        let rest = &self.items[block * BLOCK..count];
        rest.iter().fold(self.sums[block], |sum, item| sum.wrapping_add(item.id))
    }

    fn sum(&self, range: &Range<usize>) -> u64 {
        self.sum_before(range.end).wrapping_sub(self.sum_before(range.start))
    }

    /// Those from `start` on that come before `bound`.
    fn up_to(&self, start: usize, bound: Bound) -> Range<usize> {
        let end =
            bound.map_or(self.items.len(), |bound| start + self.items[start..].partition_point(|item| *item < bound));
        start..end
    }

    /// The shortest bound between an item and the one before it.
    fn bound_at(&self, index: usize) -> Item {
        let item = self.items[index];
        let same = index > 0 && self.items[index - 1].timestamp == item.timestamp;
        Item { id: if same { item.id } else { 0 }, ..item }
    }

    /// What a hub says first.
    pub fn begin(&self) -> Vec<u8> {
        let mut out = Ranges::new(RANGES_BYTES);
        out.split(self, 0..self.len(), None);
        out.bytes
    }

    /// What a hub says to what a client has said, in about `bytes_max`.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are no ranges.
    pub fn answer(&self, ranges: &[u8], bytes_max: usize) -> Result<Vec<u8>> {
        let mut said = Said::new(ranges);
        let mut out = Ranges::new(bytes_max);
        let mut start = 0;
        while let Some((bound, what)) = said.next()? {
            let range = self.up_to(start, bound);
            start = range.end;
            match what {
                What::Nothing => out.nothing(bound),
                What::Fingerprint(count, sum) if (count, sum) == (range.len() as u64, self.sum(&range)) => {
                    out.nothing(bound);
                }
                What::Fingerprint(..) | What::Ask if out.is_full() => out.fingerprint(self, &range, bound),
                What::Fingerprint(..) if range.len() > LIST_MAX => out.split(self, range, bound),
                What::Fingerprint(..) | What::Ask => out.list(self, range, bound),
                What::List(_) => return Err(Error::corrupt("ranges of a client with a list, which only hubs send")),
            }
        }
        Ok(out.bytes)
    }
}

/// The client's end of a comparison.
#[derive(Debug)]
pub struct Comparison {
    items: Items,
    bytes_max: usize,
    /// What is here and not there.
    pub have: Vec<Item>,
    /// What is there and not here.
    pub need: Vec<Item>,
    /// How many there are there, once the hub has begun.
    pub there: Option<u64>,
}

impl Comparison {
    /// Compares what is here, in messages of about `bytes_max`.
    pub fn new(items: Items, bytes_max: usize) -> Self {
        Self { items, bytes_max, have: Vec::new(), need: Vec::new(), there: None }
    }

    /// Takes in what the hub has said; what to say to that, or `None` when all is compared.
    ///
    /// # Errors
    /// `Corrupt` for bytes that are no ranges.
    pub fn take_in(&mut self, ranges: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut said = Said::new(ranges);
        let mut out = Ranges::new(self.bytes_max);
        let (mut start, mut there) = (0, 0);
        while let Some((bound, what)) = said.next()? {
            let range = self.items.up_to(start, bound);
            start = range.end;
            match what {
                What::Nothing => out.nothing(bound),
                What::Fingerprint(count, sum) => {
                    there += count;
                    if (count, sum) == (range.len() as u64, self.items.sum(&range)) {
                        out.nothing(bound);
                    } else if count == 0 {
                        self.have.extend(&self.items.items[range]);
                        out.nothing(bound);
                    } else if range.len() <= LIST_MAX {
                        out.ask(bound);
                    } else if out.is_full() {
                        out.fingerprint(&self.items, &range, bound);
                    } else {
                        out.split(&self.items, range, bound);
                    }
                }
                What::List(list) => {
                    let mut here = self.items.items[range].iter().copied().peekable();
                    for item in list {
                        while let Some(own) = here.next_if(|own| *own < item) {
                            self.have.push(own);
                        }
                        if here.next_if_eq(&item).is_none() {
                            self.need.push(item);
                        }
                    }
                    self.have.extend(here);
                    out.nothing(bound);
                }
                What::Ask => return Err(Error::corrupt("ranges of a hub that ask for a list, which only clients do")),
            }
        }
        if said.from.is_some() && self.there.is_none() {
            return Err(Error::corrupt("ranges of a hub that begins with less than all"));
        }
        self.there.get_or_insert(there);
        if out.bytes.is_empty() {
            // Lists came as their ranges did, not in order.
            sort_by(&mut self.have, Ord::cmp);
            sort_by(&mut self.need, Ord::cmp);
        }
        Ok((!out.bytes.is_empty()).then_some(out.bytes))
    }

    /// How many there are here.
    pub fn here(&self) -> usize {
        self.items.len()
    }
}

enum What {
    Nothing,
    Fingerprint(u64, u64),
    Ask,
    List(Vec<Item>),
}

/// Ranges as they are read.
struct Said<'a> {
    reader: Reader<'a>,
    /// Where the next one begins; `None` after the end.
    from: Bound,
}

fn varint(reader: &mut Reader<'_>) -> Result<u64> {
    let at = reader.offset();
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Error::corrupt(format!("at byte {at} of ranges: a number of more than 64 bits")))
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

impl<'a> Said<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), from: Some(Item { timestamp: Timestamp(0), id: 0 }) }
    }

    fn next(&mut self) -> Result<Option<(Bound, What)>> {
        if self.reader.remaining() == 0 {
            return Ok(None);
        }
        let reader = &mut self.reader;
        let at = reader.offset();
        let wrong = |what: &str| Error::corrupt(format!("at byte {at} of ranges: {what}"));
        let from = self.from.ok_or_else(|| wrong("one that begins at the end"))?;
        let ahead = varint(reader)?;
        let kind = reader.u8()?;
        let bound = match ahead.checked_sub(1) {
            None if kind & WITH_ID == 0 => None,
            None => return Err(wrong("an end with an id")),
            Some(ahead) => {
                let timestamp = from.timestamp.0.checked_add(ahead).ok_or_else(|| wrong("a time past all"))?;
                let id = if kind & WITH_ID == 0 { 0 } else { reader.u64()? };
                Some(Item { timestamp: Timestamp(timestamp), id })
            }
        };
        if bound.is_some_and(|bound| bound <= from) {
            return Err(wrong("one that ends before it begins"));
        }
        let what = match kind & !WITH_ID {
            NOTHING => What::Nothing,
            FINGERPRINT => What::Fingerprint(varint(reader)?, reader.u64()?),
            ASK => What::Ask,
            LIST => What::List(list(reader, from, bound)?),
            other => return Err(wrong(&format!("one of kind {other}"))),
        };
        self.from = bound;
        Ok(Some((bound, what)))
    }
}

/// Items that ascend from `from` on, which may be the first, up to `bound`, which is not among them.
fn list(reader: &mut Reader<'_>, from: Item, bound: Bound) -> Result<Vec<Item>> {
    let at = reader.offset();
    let wrong = |what: &str| Error::corrupt(format!("at byte {at} of ranges: {what}"));
    let count = varint(reader)?;
    // Each takes nine bytes at least.
    if count > (reader.remaining() / 9) as u64 {
        return Err(wrong("a list of more than there are bytes for"));
    }
    let mut items = Vec::with_capacity(count as usize);
    let mut last = from.timestamp.0;
    for _ in 0..count {
        let timestamp = last.checked_add(varint(reader)?).ok_or_else(|| wrong("a time past all"))?;
        last = timestamp;
        let item = Item { timestamp: Timestamp(timestamp), id: reader.u64()? };
        let ascends = items.last().map_or(item >= from, |before| item > *before);
        if !ascends || bound.is_some_and(|bound| item >= bound) {
            return Err(wrong("a list that does not ascend in its range"));
        }
        items.push(item);
    }
    Ok(items)
}

fn put_list(out: &mut Vec<u8>, mut from: Timestamp, items: &[Item]) {
    put_varint(out, items.len() as u64);
    for item in items {
        put_varint(out, item.timestamp.0 - from.0);
        out.put_u64(item.id);
        from = item.timestamp;
    }
}

/// Items as they travel by themselves: the list of the table above, from time 0. They ascend.
pub fn encode_items(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 * items.len() + 10);
    put_list(&mut out, Timestamp(0), items);
    out
}

/// Reads [`encode_items`].
///
/// # Errors
/// `Corrupt` for bytes that are no ascending items.
pub fn decode_items(bytes: &[u8]) -> Result<Vec<Item>> {
    let mut reader = Reader::new(bytes);
    let items = list(&mut reader, Item { timestamp: Timestamp(0), id: 0 }, None)?;
    match reader.remaining() {
        0 => Ok(items),
        left => Err(Error::corrupt(format!("{left} bytes after the end of a list"))),
    }
}

/// Ranges as they are written.
struct Ranges {
    bytes: Vec<u8>,
    bytes_max: usize,
    /// The timestamp at which the last one ended that was written.
    from: Timestamp,
    /// Up to here nothing is told of what comes after it.
    skipped: Option<Item>,
}

impl Ranges {
    fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max, from: Timestamp(0), skipped: None }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= self.bytes_max
    }

    fn nothing(&mut self, bound: Bound) {
        self.skipped = bound;
    }

    fn head(&mut self, bound: Bound, kind: u8) {
        if let Some(skipped) = self.skipped.take() {
            self.put_bound(Some(skipped), NOTHING);
        }
        self.put_bound(bound, kind);
    }

    fn put_bound(&mut self, bound: Bound, kind: u8) {
        let Some(Item { timestamp, id }) = bound else {
            self.bytes.extend([0, kind]);
            return;
        };
        put_varint(&mut self.bytes, timestamp.0 - self.from.0 + 1);
        self.bytes.put_u8(kind | if id == 0 { 0 } else { WITH_ID });
        if id != 0 {
            self.bytes.put_u64(id);
        }
        self.from = timestamp;
    }

    fn fingerprint(&mut self, items: &Items, range: &Range<usize>, bound: Bound) {
        self.head(bound, FINGERPRINT);
        put_varint(&mut self.bytes, range.len() as u64);
        self.bytes.put_u64(items.sum(range));
    }

    fn ask(&mut self, bound: Bound) {
        self.head(bound, ASK);
    }

    /// Lists a range, or as much of it as there is room for, and the fingerprint of what is left.
    fn list(&mut self, items: &Items, range: Range<usize>, bound: Bound) {
        let room = (self.bytes_max.saturating_sub(self.bytes.len()) / 12).max(LIST_MAX);
        let whole = range.len() <= room;
        let end = if whole { range.end } else { range.start + room };
        if let Some(skipped) = self.skipped.take() {
            self.put_bound(Some(skipped), NOTHING);
        }
        let from = self.from;
        self.put_bound(if whole { bound } else { Some(items.bound_at(end)) }, LIST);
        put_list(&mut self.bytes, from, &items.items[range.start..end]);
        if !whole {
            self.fingerprint(items, &(end..range.end), bound);
        }
    }

    /// Splits a range into fingerprints of some of equal size.
    fn split(&mut self, items: &Items, range: Range<usize>, bound: Bound) {
        let parts = if range.len() > LIST_MAX { SPLIT } else { 1 };
        let mut start = range.start;
        for part in 1..=parts {
            let end = range.start + range.len() * part / parts;
            self.fingerprint(items, &(start..end), if part == parts { bound } else { Some(items.bound_at(end)) });
            start = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::base::Random;

    /// Compares until nothing is left; the bytes that travelled, and how many messages they were.
    fn compare(client: &[Item], hub: &[Item], bytes_max: usize) -> (Comparison, usize, usize) {
        let hub = Items::new(hub.to_vec());
        let mut client = Comparison::new(Items::new(client.to_vec()), bytes_max);
        let mut told = hub.begin();
        let (mut bytes, mut messages) = (told.len(), 1);
        while let Some(said) = client.take_in(&told).unwrap() {
            told = hub.answer(&said, bytes_max).unwrap();
            bytes += said.len() + told.len();
            messages += 2;
            assert!(said.len().max(told.len()) <= 64 * bytes_max.max(1 << 10), "{} and {}", said.len(), told.len());
            assert!(messages < 100_000, "no end");
        }
        assert_eq!(client.there, Some(hub.len() as u64));
        (client, bytes, messages)
    }

    fn check(client: &BTreeSet<Item>, hub: &BTreeSet<Item>, bytes_max: usize) -> Result<(), TestCaseError> {
        let ours: Vec<Item> = client.iter().copied().collect();
        let theirs: Vec<Item> = hub.iter().copied().collect();
        let (compared, ..) = compare(&ours, &theirs, bytes_max);
        prop_assert_eq!(compared.have, client.difference(hub).copied().collect::<Vec<_>>());
        prop_assert_eq!(compared.need, hub.difference(client).copied().collect::<Vec<_>>());
        Ok(())
    }

    /// Rows as they come: batches of one timestamp, now and then a pause.
    fn history(random: &mut Random, count: usize) -> Vec<Item> {
        let mut timestamp = Timestamp::new(1_700_000_000_000, 0);
        let mut items = Vec::with_capacity(count);
        while items.len() < count {
            timestamp = Timestamp(timestamp.0 + 1 + random.below(1 << 24));
            for _ in 0..=random.below(8) {
                items.push(Item { timestamp, id: random.next_u64() });
            }
        }
        items.truncate(count);
        items
    }

    /// At most 64 bytes a differing row, for clustered differences in a million rows.
    #[test]
    fn clustered_differences_cost_few_bytes_each() {
        let mut random = Random::new(7);
        let rows = if cfg!(browser) { 100_000 } else { 1_000_000 };
        let all = history(&mut random, rows);
        for (name, at, scattered) in
            [("latest", rows - 1_000, false), ("amid", rows / 3, false), ("oldest", 0, false), ("scattered", 0, true)]
        {
            let differs = |index: usize| match scattered {
                false => (at..at + 1_000).contains(&index),
                true => index.is_multiple_of(rows / 1_000),
            };
            let rest: Vec<Item> =
                all.iter().enumerate().filter(|(at, _)| !differs(*at)).map(|(_, item)| *item).collect();
            let changed: Vec<Item> = all
                .iter()
                .enumerate()
                .map(|(at, item)| if differs(at) { Item { id: !item.id, ..*item } } else { *item })
                .collect();
            for (kind, client, hub, have, need) in [
                ("missing at the client", &rest, &all, 0, 1_000),
                ("missing at the hub", &all, &rest, 1_000, 0),
                ("others on both sides", &changed, &all, 1_000, 1_000),
            ] {
                let (compared, mut bytes, messages) = compare(client, hub, RANGES_BYTES);
                bytes += encode_items(&compared.need).len();
                assert_eq!((compared.have.len(), compared.need.len()), (have, need), "{name}, {kind}");
                println!("{name}, {kind}: {} bytes a row, {messages} messages", bytes as f64 / 1_000.0);
                assert!(scattered || bytes <= 64_000, "{name}, {kind}: {bytes} bytes for 1,000 rows");
            }
        }
        let (_, bytes, messages) = compare(&all, &all, RANGES_BYTES);
        assert!(bytes <= 400 && messages == 1, "{bytes} bytes, {messages} messages of equal sets");
        let (compared, bytes, messages) = compare(&[], &all, RANGES_BYTES);
        assert_eq!(compared.need.len(), rows);
        println!("of an empty client: {} bytes a row, {messages} messages", bytes as f64 / rows as f64);
    }

    #[test]
    fn wrong_ranges_are_refused_with_their_place() {
        let items = Items::new(history(&mut Random::new(3), 100));
        for (bytes, what) in [
            (&[][..], ""),
            (&[0, 1], "bytes expected"),
            (&[0, 7], "kind 7"),
            (&[0, 16], "an end with an id"),
            (&[1, 0], "ends before it begins"),
            (&[0, 2, 0, 2], "begins at the end"),
            (&[0, 3, 200, 200, 200, 200, 1], "more than there are bytes for"),
            (&[0xff; 12], "more than 64 bits"),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 9, 0], "a time past all"),
            (&[0, 3, 2, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0], "does not ascend"),
            (&[0, 3, 0], "which only hubs send"),
        ] {
            match items.answer(bytes, RANGES_BYTES) {
                Ok(answer) => assert!(what.is_empty() && answer.is_empty(), "{bytes:?}"),
                Err(error) => assert!(!what.is_empty() && error.message().contains(what), "{bytes:?}: {error}"),
            }
        }
        let mut client = Comparison::new(Items::default(), RANGES_BYTES);
        assert!(client.take_in(&[]).unwrap_err().message().contains("less than all"));
        assert!(client.take_in(&[0, 2]).unwrap_err().message().contains("only clients do"));
        assert!(decode_items(&[0, 1]).unwrap_err().message().contains("1 bytes after"));
    }

    fn any_items() -> impl Strategy<Value = Vec<Item>> {
        // Ids are hashes: sums of small numbers would be equal again and again.
        let item = |(timestamp, id): (u64, u64)| {
            let id = Random::new(timestamp.wrapping_mul(50).wrapping_add(id)).next_u64();
            Item { timestamp: Timestamp(timestamp), id }
        };
        prop_oneof![
            prop::collection::vec((0u64..50, 0u64..50).prop_map(item), 0..400),
            prop::collection::vec((any::<u64>(), any::<u64>()).prop_map(item), 0..400),
            prop::collection::vec((0u64..3, any::<u64>()).prop_map(item), 0..400),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(browser) { 64 } else { 1024 }))]

        #[test]
        fn both_differences_are_found(
            common in any_items(),
            client in any_items(),
            hub in any_items(),
            bytes_max in prop::sample::select(vec![1, 100, 1_000, RANGES_BYTES]),
        ) {
            let with = |more: &[Item]| common.iter().chain(more).copied().collect::<BTreeSet<_>>();
            check(&with(&client), &with(&hub), bytes_max)?;
            check(&with(&client), &with(&[]), bytes_max)?;
            check(&with(&[]), &with(&hub), bytes_max)?;
            check(&BTreeSet::new(), &with(&hub), bytes_max)?;
            check(&with(&client), &BTreeSet::new(), bytes_max)?;
        }

        #[test]
        fn items_come_back(items in any_items()) {
            let items: BTreeSet<Item> = items.into_iter().collect();
            let items: Vec<Item> = items.into_iter().collect();
            prop_assert_eq!(decode_items(&encode_items(&items)).unwrap(), items);
        }

        #[test]
        fn any_bytes_are_ranges_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            client in any_items(),
            hub in any_items(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let hub = Items::new(hub);
            let mut client = Comparison::new(Items::new(client), RANGES_BYTES);
            let _ = decode_items(&bytes);
            let _ = hub.answer(&bytes, RANGES_BYTES);
            let mut told = hub.begin();
            for _ in 0..10 {
                for (at, byte) in &damage {
                    let at = at.index(told.len().max(1));
                    if let Some(spoiled) = told.get_mut(at) {
                        *spoiled = *byte;
                    }
                }
                let Ok(Some(said)) = client.take_in(&told) else { break };
                told = hub.answer(&said, RANGES_BYTES).unwrap();
            }
        }
    }
}
