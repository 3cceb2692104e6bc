use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::host;
use crate::base::Random;

/// Where a store has the time and its random numbers from: the host, or a simulation that a seed repeats exactly.
#[derive(Clone, Default)]
pub struct Environment(Option<Arc<Mutex<Simulated>>>);

struct Simulated {
    now_ms: u64,
    /// Tells the time in place of `now_ms`.
    clock: Option<Clock>,
    random: Random,
}

type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

impl Environment {
    /// A clock that starts at `now_ms` and goes on by up to 3 ms each time that it is read, and the numbers of `seed`.
    pub fn simulated(seed: u64, now_ms: u64) -> Self {
        Self(Some(Arc::new(Mutex::new(Simulated { now_ms, clock: None, random: Random::new(seed) }))))
    }

    /// The time that `clock` tells, in milliseconds since 1970, and the numbers of `seed`: for several stores side by side, whose clocks
    /// go on with the timers of a simulation and need not agree.
    pub fn following(seed: u64, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        let clock: Option<Clock> = Some(Arc::new(clock));
        Self(Some(Arc::new(Mutex::new(Simulated { now_ms: 0, clock, random: Random::new(seed) }))))
    }

    /// Lets the simulated clock go on; the host's does so by itself.
    pub fn advance_ms(&self, ms: u64) {
        if let Some(simulated) = &self.0 {
            simulated.lock().unwrap_or_else(PoisonError::into_inner).now_ms += ms;
        }
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        let Some(simulated) = &self.0 else { return host::now_ms() };
        let mut simulated = simulated.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clock) = &simulated.clock {
            return clock();
        }
        simulated.now_ms += simulated.random.below(4);
        simulated.now_ms
    }

    /// Microseconds since some moment, by a clock that nobody sets: for how long something takes.
    pub fn now_us(&self) -> u64 {
        if self.0.is_none() { host::now_us() } else { self.now_ms() * 1_000 }
    }

    /// 64 random bits.
    pub fn random_u64(&self) -> u64 {
        let Some(simulated) = &self.0 else { return host::random_u64() };
        simulated.lock().unwrap_or_else(PoisonError::into_inner).random.next_u64()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Environment(simulated)" } else { "Environment(host)" })
    }
}
