use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::{Index, IndexMut};

use hashbrown::HashTable;

use crate::stream::sketch::hash;

/// A row that waits for partners.
pub(super) struct Entry {
    pub side: usize,
    /// Of those with its key.
    pub group: u32,
    /// Of its window.
    pub bounds: (i64, i64),
    pub time: i64,
    pub bytes: Box<[u8]>,
    pub matched: bool,
    /// Until when it is kept; `i64::MAX` for good.
    pub until: i64,
}

/// The rows of one key.
struct Group {
    key: Box<[u8]>,
    /// Of each input, the times and slots, ascending.
    sides: [VecDeque<(i64, u32)>; 2],
}

/// Rows of two inputs that wait for partners, found by key and by time. The number of one is its slot.
#[derive(Default)]
pub(super) struct Waiting {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    groups: Vec<Option<Group>>,
    free_groups: Vec<u32>,
    by_key: HashTable<u32>,
    expiry: BinaryHeap<Reverse<(i64, u32)>>,
    held: usize,
    bytes: usize,
}

const IN_USE: &str = "what has a number is there";

impl Waiting {
    pub fn len(&self) -> usize {
        self.held
    }

    /// What they take, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn group(&self, group: u32) -> &Group {
        self.groups[group as usize].as_ref().expect(IN_USE)
    }

    /// The group of a key, which is made where there is none. An insertion has to follow.
    pub fn group_of(&mut self, key: &[u8]) -> u32 {
        let groups = &self.groups;
        let key_of = |group: u32| groups[group as usize].as_ref().map_or(&[][..], |group| &group.key);
        let hashed = hash(key);
        if let Some(&group) = self.by_key.find(hashed, |&group| key_of(group) == key) {
            return group;
        }
        let group = self.free_groups.pop().unwrap_or(groups.len() as u32);
        self.by_key.insert_unique(hashed, group, |&group| hash(key_of(group)));
        if group as usize == self.groups.len() {
            self.groups.push(None);
        }
        self.bytes += size_of::<Group>() + key.len();
        self.groups[group as usize] = Some(Group { key: key.into(), sides: Default::default() });
        group
    }

    pub fn insert(&mut self, entry: Entry) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        let rows = &mut self.groups[entry.group as usize].as_mut().expect(IN_USE).sides[entry.side];
        let place = (entry.time, slot);
        // Most come in the order of time.
        if rows.back().is_none_or(|last| *last < place) {
            rows.push_back(place);
        } else {
            rows.insert(rows.partition_point(|other| *other < place), place);
        }
        if entry.until < i64::MAX {
            self.expiry.push(Reverse((entry.until, slot)));
        }
        self.held += 1;
        self.bytes += size_of::<Entry>() + entry.bytes.len();
        self.entries[slot as usize] = Some(entry);
        slot
    }

    /// One that has expired.
    pub fn remove(&mut self, slot: u32) {
        let entry = self.entries[slot as usize].take().expect(IN_USE);
        self.free.push(slot);
        self.held -= 1;
        self.bytes -= size_of::<Entry>() + entry.bytes.len();
        let group = self.groups[entry.group as usize].as_mut().expect(IN_USE);
        let rows = &mut group.sides[entry.side];
        if let Ok(at) = rows.binary_search(&(entry.time, slot)) {
            rows.remove(at);
        }
        if group.sides.iter().all(VecDeque::is_empty) {
            let found = self.by_key.find_entry(hash(&group.key), |&other| other == entry.group);
            found.expect(IN_USE).remove();
            self.bytes -= size_of::<Group>() + group.key.len();
            self.groups[entry.group as usize] = None;
            self.free_groups.push(entry.group);
        }
    }

    /// The next one that is kept until `watermark` at most, no longer among those that expire.
    pub fn pop_expired(&mut self, watermark: i64) -> Option<u32> {
        let &Reverse((until, slot)) = self.expiry.peek()?;
        (until <= watermark).then(|| {
            self.expiry.pop();
            slot
        })
    }

    pub fn key(&self, slot: u32) -> &[u8] {
        &self.group(self[slot].group).key
    }

    /// Those of one side with a key, of times from `from` to `to`, in their order.
    pub fn between(&self, group: u32, side: usize, from: i64, to: i64) -> impl Iterator<Item = u32> {
        let rows = &self.group(group).sides[side];
        let begin = rows.partition_point(|(time, _)| *time < from);
        rows.range(begin..).take_while(move |(time, _)| *time <= to).map(|(_, slot)| *slot)
    }

    /// All, by key, side and time.
    pub fn in_order(&self) -> Vec<u32> {
        let mut groups: Vec<&Group> = self.groups.iter().flatten().collect();
        groups.sort_unstable_by(|left, right| left.key.cmp(&right.key));
        groups.iter().flat_map(|group| group.sides.iter().flatten()).map(|(_, slot)| *slot).collect()
    }
}

impl Index<u32> for Waiting {
    type Output = Entry;

    fn index(&self, slot: u32) -> &Entry {
        self.entries[slot as usize].as_ref().expect(IN_USE)
    }
}

impl IndexMut<u32> for Waiting {
    fn index_mut(&mut self, slot: u32) -> &mut Entry {
        self.entries[slot as usize].as_mut().expect(IN_USE)
    }
}
