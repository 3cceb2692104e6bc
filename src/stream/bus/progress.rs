use std::collections::VecDeque;

/// How far what was read of a partition is done: positions in the order in which they were read, each with how much of it is still open.
/// A position counts once nothing at it or before it is open.
#[derive(Debug, Default)]
pub(super) struct Progress {
    entries: VecDeque<Entry>,
    /// The number of the first entry.
    first: u64,
    settled: Option<Vec<u8>>,
    /// How many events stand before `settled`, since it was taken.
    events: u64,
}

#[derive(Debug)]
struct Entry {
    /// None in the middle of what can only be begun anew.
    position: Option<Vec<u8>>,
    open: u64,
    events: u64,
}

impl Progress {
    /// Something was read: `open` things are to be done for its `events` events, and then it was read up to `position`.
    pub fn begin(&mut self, position: Option<Vec<u8>>, open: u64, events: u64) -> u64 {
        self.entries.push_back(Entry { position, open, events });
        let number = self.first + self.entries.len() as u64 - 1;
        self.pass();
        number
    }

    /// So many things of an entry are done.
    pub fn settle(&mut self, number: u64, count: u64) {
        let entry = number.checked_sub(self.first).and_then(|at| self.entries.get_mut(at as usize));
        let entry = entry.expect("what is open is there");
        assert!(entry.open >= count, "nothing is done twice");
        entry.open -= count;
        self.pass();
    }

    fn pass(&mut self) {
        while self.entries.front().is_some_and(|entry| entry.open == 0) {
            let Some(entry) = self.entries.pop_front() else { return };
            self.first += 1;
            self.events += entry.events;
            self.settled = entry.position.or(self.settled.take());
        }
    }

    /// Up to where all is done, if that has moved on, and how many events were done on the way.
    pub fn settled(&self) -> Option<(&[u8], u64)> {
        self.settled.as_deref().map(|position| (position, self.events))
    }

    /// That position was noted where it lasts.
    pub fn noted(&mut self, position: &[u8]) {
        if self.settled.as_deref() == Some(position) {
            (self.settled, self.events) = (None, 0);
        }
    }

    /// Whether something is open.
    pub fn is_open(&self) -> bool {
        !self.entries.is_empty()
    }
}
