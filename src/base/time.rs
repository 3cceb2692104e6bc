use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Error, Result};

const COUNTER_BITS: u32 = 18;
const COUNTER_MASK: u64 = (1 << COUNTER_BITS) - 1;
/// A remote timestamp this far ahead of the local clock is refused: one wrong clock must not win every conflict for years.
const AHEAD_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// A hybrid logical timestamp: 46 bits of milliseconds since 1970 above 18 bits of counter, the layout that Milvus uses.
///
/// Physical time can be read back, and together with the replica id the order is total.
/// Source: Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots" (2014); the counter is packed as in Milvus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The timestamp of a physical time and a counter below 2^18.
    pub const fn new(physical_ms: u64, counter: u64) -> Self {
        Self((physical_ms << COUNTER_BITS) | (counter & COUNTER_MASK))
    }

    /// Milliseconds since 1970.
    pub const fn physical_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// The order among timestamps of one millisecond.
    pub const fn counter(self) -> u64 {
        self.0 & COUNTER_MASK
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.physical_ms(), self.counter())
    }
}

/// The clock of one replica: never goes back, and is past everything that it has seen. `now` is always the caller's.
#[derive(Debug, Clone, Copy, Default)]
pub struct HybridClock {
    last: Timestamp,
}

impl HybridClock {
    /// A clock that has seen everything up to `last`.
    pub const fn starting_after(last: Timestamp) -> Self {
        Self { last }
    }

    /// The newest timestamp given or seen.
    pub const fn last(&self) -> Timestamp {
        self.last
    }

    /// A timestamp greater than every one given or seen before.
    pub fn tick(&mut self, now_ms: u64) -> Timestamp {
        // When the counter overflows, adding one carries into the milliseconds: still monotonous.
        self.last = Timestamp::new(now_ms, 0).max(Timestamp(self.last.0 + 1));
        self.last
    }

    /// The same with a counter of at most so many bits: when they are used up, it goes on in the next millisecond.
    pub fn tick_within(&mut self, now_ms: u64, counter_bits: u32) -> Timestamp {
        let next = self.tick(now_ms);
        if next.counter() >> counter_bits > 0 {
            self.last = Timestamp::new(next.physical_ms() + 1, 0);
        }
        self.last
    }

    /// Takes note of a timestamp from elsewhere.
    ///
    /// # Errors
    /// `InvalidArgument` when it lies more than a day ahead of `now_ms`; the clock is unchanged then.
    pub fn observe(&mut self, remote: Timestamp, now_ms: u64) -> Result<()> {
        let ahead_ms = remote.physical_ms().saturating_sub(now_ms);
        if ahead_ms > AHEAD_MS_MAX {
            return Err(Error::invalid(format!(
                "timestamp {remote} is {ahead_ms} ms ahead of this replica's clock; at most {AHEAD_MS_MAX} ms are accepted"
            )));
        }
        self.last = self.last.max(remote);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_never_goes_back() {
        let mut clock = HybridClock::default();
        let first = clock.tick(1_000);
        let second = clock.tick(900);
        assert!(second > first);
        assert_eq!((second.physical_ms(), second.counter()), (1_000, 1));
        clock.observe(Timestamp::new(5_000, 7), 1_000).unwrap();
        assert_eq!(clock.tick(1_001), Timestamp::new(5_000, 8));
    }

    #[test]
    fn a_counter_of_few_bits_carries_too() {
        let mut clock = HybridClock::starting_after(Timestamp::new(10, 700));
        let given: Vec<Timestamp> = (0..5).map(|_| clock.tick_within(10, 1)).collect();
        let expected = [(11, 0), (11, 1), (12, 0), (12, 1), (13, 0)];
        assert_eq!(given, expected.map(|(ms, counter)| Timestamp::new(ms, counter)));
        assert_eq!(clock.tick(20), Timestamp::new(20, 0));
    }

    #[test]
    fn counter_carries_into_the_milliseconds() {
        let mut clock = HybridClock::starting_after(Timestamp::new(10, COUNTER_MASK));
        assert_eq!(clock.tick(10), Timestamp::new(11, 0));
    }

    #[test]
    fn a_clock_far_ahead_is_refused_and_leaves_no_trace() {
        let mut clock = HybridClock::default();
        let far = Timestamp::new(AHEAD_MS_MAX + 2_000, 0);
        assert!(clock.observe(far, 1_000).unwrap_err().message().contains("ahead"));
        assert_eq!(clock.last(), Timestamp::default());
    }
}
