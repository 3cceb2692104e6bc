use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};

/// Longest name; the longest in use has 32 bytes.
const NAME_BYTES_MAX: usize = 40;

/// The name of a time zone, as the IANA database has it: `Europe/Berlin`. That there is such a zone is known by [`Zones`] alone.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ZoneName {
    bytes: [u8; NAME_BYTES_MAX],
    len: u8,
}

impl ZoneName {
    /// The name in `text`.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that can be none.
    pub fn new(text: &str) -> Result<Self> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+');
        let named = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic()) && text.bytes().all(fits);
        if !named || text.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!(
                "{:?} is no name of a time zone: expected one as \"Europe/Berlin\"",
                text.chars().take(NAME_BYTES_MAX).collect::<String>()
            )));
        }
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: text.len() as u8 })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).expect("names are ASCII")
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl From<ZoneName> for String {
    fn from(name: ZoneName) -> Self {
        name.as_str().to_owned()
    }
}

impl TryFrom<String> for ZoneName {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        Self::new(&text).map_err(|error| error.message().to_owned())
    }
}

/// Which time zones there are, and what their clocks show: an argument, as time is.
#[derive(Clone, Copy)]
pub struct Zones(fn(zone: &str, at_s: i64) -> Option<i32>);

impl Zones {
    /// Zones by a function that tells how many seconds the clocks of `zone` are ahead of UTC at a moment, in seconds since 1970; `None` when
    /// there is no such zone. It must tell the same each time.
    pub const fn new(offset_s: fn(zone: &str, at_s: i64) -> Option<i32>) -> Self {
        Self(offset_s)
    }

    /// That there is a zone of that name.
    pub(super) fn check(self, name: ZoneName) -> Result<()> {
        match (self.0)(name.as_str(), 0) {
            Some(_) => Ok(()),
            None => Err(Error::invalid(format!("there is no time zone {:?} here", name.as_str()))),
        }
    }

    fn offset(self, name: ZoneName, at_s: i64) -> i64 {
        (self.0)(name.as_str(), at_s).expect("a zone that was there when the job began").into()
    }
}

impl Default for Zones {
    /// None.
    fn default() -> Self {
        Self(|_, _| None)
    }
}

impl PartialEq for Zones {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Eq for Zones {}

impl fmt::Debug for Zones {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Zones")
    }
}

const SECOND: i64 = 1_000_000;
const DAY_S: i64 = 86_400;
/// How many days are looked at together.
const BLOCK_DAYS: i64 = 400;
const BLOCK: i64 = BLOCK_DAYS * DAY_S * SECOND;

/// When the clocks of a zone were changed: from a moment on (the first: since ever) they are so far ahead of UTC, in microseconds. What was
/// asked for once is kept.
#[derive(Debug)]
pub(super) struct Clocks {
    name: ZoneName,
    zones: Zones,
    blocks: BTreeMap<i64, Box<[(i64, i64)]>>,
    /// The blocks that `changes` has, the last not among them.
    range: (i64, i64),
    changes: Vec<(i64, i64)>,
}

impl Clocks {
    pub fn new(name: ZoneName, zones: Zones) -> Self {
        Self { name, zones, blocks: BTreeMap::new(), range: (0, 0), changes: vec![] }
    }

    /// All changes from `from` to `to`, and what was before; perhaps more. Two changes on the same day that come to nothing are not seen.
    pub fn changes(&mut self, from: i64, to: i64) -> &[(i64, i64)] {
        let (first, end) = (from.div_euclid(BLOCK), to.div_euclid(BLOCK) + 1);
        if !(self.range.0 <= first && end <= self.range.1) {
            self.changes.clear();
            for number in first..end {
                let block = self.blocks.entry(number).or_insert_with(|| look(self.name, self.zones, number));
                for change in &**block {
                    if self.changes.last().is_none_or(|last| last.1 != change.1) {
                        self.changes.push(*change);
                    }
                }
            }
            self.range = (first, end);
        }
        &self.changes
    }
}

/// The offset at the beginning of a block, and its changes.
fn look(name: ZoneName, zones: Zones, number: i64) -> Box<[(i64, i64)]> {
    let begin_s = number * BLOCK_DAYS * DAY_S;
    let mut offset = zones.offset(name, begin_s);
    let mut found = vec![(begin_s * SECOND, offset * SECOND)];
    for day in 0..BLOCK_DAYS {
        let (mut at, until) = (begin_s + day * DAY_S, begin_s + (day + 1) * DAY_S);
        let later = zones.offset(name, until);
        while offset != later {
            // The first second at which it is another one.
            let mut next = until;
            while next - at > 1 {
                let middle = at + (next - at) / 2;
                if zones.offset(name, middle) == offset { at = middle } else { next = middle }
            }
            (at, offset) = (next, zones.offset(name, next));
            found.push((at * SECOND, offset * SECOND));
        }
    }
    found.into()
}

/// Where windows of `size` begin by the clocks: at the moments when these show `offset` past a multiple of it.
///
/// When clocks are changed by a multiple of the size, all windows stay as long as they are: hours that come twice are two windows, and a day that
/// is left out is none. Otherwise the window in which they are changed, or the one that ends then, is longer or shorter, by what the
/// change is beyond multiples of the size; a window begins when clocks first show its begin or more, so it is one piece always.
#[derive(Clone, Copy)]
pub(super) struct Grid<'a> {
    pub changes: &'a [(i64, i64)],
    pub size: i64,
    pub offset: i64,
}

impl Grid<'_> {
    fn at(self, time: i64) -> usize {
        self.changes.partition_point(|(since, _)| *since <= time).saturating_sub(1)
    }

    /// By how much change `at` moves the grid.
    fn moved(self, at: usize) -> i64 {
        (self.changes[at].1 - self.changes[at - 1].1) % self.size
    }

    fn floor(self, shown: i64) -> i64 {
        shown - (shown - self.offset % self.size).rem_euclid(self.size)
    }

    /// What clocks show, at the beginning of the window that `time` is in, in the count of the clocks at `time`.
    fn shown(self, time: i64) -> i64 {
        let at = self.at(time);
        let (since, ahead) = self.changes[at];
        let shown = self.floor(time + ahead);
        if at == 0 {
            return shown;
        }
        // What was shown before clocks were set back does not begin again.
        shown.max(self.floor(since + ahead - self.moved(at) - 1))
    }

    /// When the window begins that `time` is in.
    pub fn begin(self, time: i64) -> i64 {
        let (mut at, shown) = (self.at(time), self.shown(time));
        let mut ahead = self.changes[at].1;
        let mut begin = shown - ahead;
        while at > 0 {
            let since = self.changes[at].0;
            begin = begin.max(since);
            let before = ahead - self.moved(at);
            if since + before <= shown {
                break;
            }
            at -= 1;
            ahead = before;
            begin = shown - ahead;
        }
        begin
    }

    /// When the next one begins.
    pub fn end(self, time: i64) -> i64 {
        self.when(time, self.shown(time) + self.size)
    }

    /// When, after `time`, clocks first show `shown` or more, in the count of the clocks at `time`.
    pub fn when(self, time: i64, shown: i64) -> i64 {
        let mut at = self.at(time);
        let mut ahead = self.changes[at].1;
        let mut when = shown - ahead;
        while self.changes.get(at + 1).is_some_and(|(since, _)| when >= *since) {
            at += 1;
            ahead += self.moved(at);
            when = (shown - ahead).max(self.changes[at].0);
        }
        when
    }

    /// What clocks show when the window begins that begins at `begin`: less than they do then, when they were just set past it.
    pub fn label(self, begin: i64) -> i64 {
        self.floor(begin + self.changes[self.at(begin)].1)
    }

    /// How much longer than `size` one that holds `time` may be.
    pub fn longer(self, time: i64) -> i64 {
        let near = 1..self.changes.len();
        let back = near.filter(|&at| {
            let since = self.changes[at].0;
            since <= time && since > time.saturating_sub(2 * self.size)
        });
        back.map(|at| (-self.moved(at)).max(0)).sum()
    }
}
