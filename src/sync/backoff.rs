/// When to try a connection again: exponential, with full jitter, so that clients that lost their hub together do not come back
/// together.
///
/// Source: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), the variant "full jitter".
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    base_ms: u64,
    max_ms: u64,
    attempt: u32,
}

impl Backoff {
    /// Delays drawn from `0..=base_ms`, then from twice as much each time, never more than `max_ms`.
    pub const fn new(base_ms: u64, max_ms: u64) -> Self {
        Self { base_ms, max_ms, attempt: 0 }
    }

    /// How long to wait after one more failure; `random` is 64 random bits.
    pub fn next_ms(&mut self, random: u64) -> u64 {
        let ceiling = self.ceiling_ms();
        self.attempt = self.attempt.saturating_add(1);
        // The bias of the remainder is below 2^-40 for the ceilings in question.
        random % (ceiling + 1)
    }

    /// The longest wait that [`Backoff::next_ms`] can give next.
    pub fn ceiling_ms(&self) -> u64 {
        let factor = 1u64.checked_shl(self.attempt.min(63)).unwrap_or(u64::MAX);
        self.base_ms.saturating_mul(factor).min(self.max_ms)
    }

    /// Starts over: the connection did its work.
    pub const fn reset(&mut self) {
        self.attempt = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stays_below_a_ceiling_that_doubles(randoms in prop::collection::vec(any::<u64>(), 1..100)) {
            let mut backoff = Backoff::new(500, 30_000);
            for (attempt, random) in randoms.into_iter().enumerate() {
                let ceiling = (500u64 << attempt.min(20)).min(30_000);
                prop_assert_eq!(backoff.ceiling_ms(), ceiling);
                prop_assert!(backoff.next_ms(random) <= ceiling);
            }
            backoff.reset();
            prop_assert_eq!(backoff.ceiling_ms(), 500);
        }
    }
}
