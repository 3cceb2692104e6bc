use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};

/// The longest latency that may be aimed at: an hour.
const LATENCY_MS_MAX: u64 = 3_600_000;
/// The share that the newest batch has in what is thought of those to come.
const SHARE: f64 = 0.25;
/// Rates are averages over so many times the latency that is aimed at.
const RATE_SPAN: f64 = 2.0;

/// A size of batches that follows how fast rows come and how long a batch takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Adaptive {
    /// How many milliseconds may pass from when a row comes to when its batch is done with.
    pub latency_ms: u64,
    /// Batches are not awaited for longer than this many rows need.
    #[serde(default = "one")]
    pub rows_min: u64,
    /// The most rows of a batch.
    #[serde(default = "rows_max")]
    pub rows_max: u64,
}

fn one() -> u64 {
    1
}

fn rows_max() -> u64 {
    10_000
}

impl Adaptive {
    /// That it can be.
    ///
    /// # Errors
    /// `InvalidArgument` that says what cannot.
    pub fn check(&self) -> Result<()> {
        let invalid = |what: String| Err(Error::invalid(format!("batching.adaptive: {what}")));
        if !(1..=LATENCY_MS_MAX).contains(&self.latency_ms) {
            return invalid(format!("latencyMs is {}, expected 1 to {LATENCY_MS_MAX}", self.latency_ms));
        }
        if self.rows_min == 0 || self.rows_min > self.rows_max {
            return invalid(format!(
                "rowsMin is {} and rowsMax is {}, expected at least 1, and no more than the other",
                self.rows_min, self.rows_max
            ));
        }
        Ok(())
    }
}

/// How large the next batch of a reader is, by those before.
///
/// A row waits until its batch is full, or for as long as leaves time for the batch within the latency that is aimed at. Full is it with as many
/// rows as come while it may wait: the largest batch that meets the latency, for the less often one is done the less it costs in all. Where a
/// batch takes longer than rows may wait it is as many as come meanwhile, for with fewer a reader would fall behind: then the latency
/// cannot be met, and all goes to keeping up. The caller tells what time it is.
#[derive(Debug, Clone)]
pub struct Sizer {
    adaptive: Adaptive,
    rows: f64,
    /// Rows in a millisecond.
    rate: f64,
    /// Of a batch, in milliseconds.
    took_ms: f64,
    /// When it was last told of rows that came, and how many had come by then.
    told: Option<(u64, u64)>,
    /// When a batch was given out that is not done.
    given_ms: Option<u64>,
}

impl Sizer {
    /// Of a reader that has read nothing yet: it begins with the smallest batches.
    pub fn new(adaptive: Adaptive) -> Self {
        Self { adaptive, rows: adaptive.rows_min as f64, rate: 0.0, took_ms: 0.0, told: None, given_ms: None }
    }

    /// How many rows a batch is waited for.
    pub fn rows(&self) -> u64 {
        (self.rows.round() as u64).clamp(self.adaptive.rows_min, self.adaptive.rows_max)
    }

    /// The most rows of a batch.
    pub fn rows_max(&self) -> u64 {
        self.adaptive.rows_max
    }

    /// How long a row waits for others, in milliseconds.
    pub fn delay_ms(&self) -> u64 {
        (self.adaptive.latency_ms as f64 - self.took_ms).max(0.0) as u64
    }

    /// A batch is given out, and so many rows have come in all, read or not.
    pub fn given(&mut self, come: u64, now_ms: u64) {
        match self.told {
            None => self.told = Some((now_ms, come)),
            // A clock that was put back tells nothing.
            Some((told_ms, before)) if now_ms > told_ms => {
                let elapsed_ms = (now_ms - told_ms) as f64;
                let rate = come.saturating_sub(before) as f64 / elapsed_ms;
                let share = 1.0 - (-elapsed_ms / (RATE_SPAN * self.adaptive.latency_ms as f64)).exp();
                self.rate += share * (rate - self.rate);
                self.told = Some((now_ms, come));
            }
            Some((told_ms, before)) if now_ms < told_ms => self.told = Some((now_ms, before.max(come))),
            Some(_) => {}
        }
        self.given_ms = Some(now_ms);
    }

    /// The batch that was given out last is done; nothing, when there is none.
    pub fn done(&mut self, now_ms: u64) {
        let Some(given_ms) = self.given_ms.take() else { return };
        let took_ms = now_ms.saturating_sub(given_ms) as f64;
        self.took_ms += SHARE * (took_ms - self.took_ms);
        let waits_ms = (self.adaptive.latency_ms as f64 - self.took_ms).max(self.took_ms);
        let (min, max) = (self.adaptive.rows_min as f64, self.adaptive.rows_max as f64);
        let wanted = (self.rate * waits_ms).clamp(min, max);
        self.rows += SHARE * (wanted - self.rows);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::base::Random;

    /// A reader that takes `fixed_ms` for a batch and `row_ms` for each of its rows, of rows that come at a rate, until `until_ms`. Tells the
    /// longest that a row waited before its batch was given out, and took until it was done, over the second half.
    struct Run {
        sizer: Sizer,
        now_ms: f64,
        come: f64,
        waiting: VecDeque<f64>,
    }

    impl Run {
        fn go(&mut self, rate: f64, fixed_ms: f64, row_ms: f64, until_ms: f64, what: &str) -> (f64, f64) {
            let begun_ms = self.now_ms;
            let (mut waited_most, mut latency_most) = (0f64, 0f64);
            let (min, max) = (self.sizer.adaptive.rows_min, self.sizer.adaptive.rows_max);
            while self.now_ms < until_ms {
                self.now_ms += 1.0;
                self.arrive(rate);
                let Some(oldest) = self.waiting.front().copied() else { continue };
                self.sizer.done(self.now_ms as u64);
                let size = self.sizer.rows();
                assert!((min..=max).contains(&size), "{what}: {size} rows");
                let is_due = self.waiting.len() as u64 >= size || self.now_ms - oldest >= self.sizer.delay_ms() as f64;
                if !is_due {
                    // It never waits for longer than it may.
                    assert!(self.now_ms - oldest < self.sizer.adaptive.latency_ms as f64, "{what}: a row starves");
                    continue;
                }
                let count = self.waiting.len().min(self.sizer.rows_max() as usize);
                let batch: Vec<f64> = self.waiting.drain(..count).collect();
                self.sizer.given(self.come as u64, self.now_ms as u64);
                let given_ms = self.now_ms;
                let done_ms = given_ms + fixed_ms + row_ms * count as f64;
                while self.now_ms < done_ms {
                    self.now_ms += 1.0;
                    self.arrive(rate);
                }
                self.sizer.done(self.now_ms as u64);
                if given_ms > begun_ms + (until_ms - begun_ms) / 2.0 {
                    waited_most = waited_most.max(given_ms - batch[0]);
                    latency_most = latency_most.max(self.now_ms - batch[0]);
                }
            }
            (waited_most, latency_most)
        }

        fn arrive(&mut self, rate: f64) {
            let before = self.come.floor();
            self.come += rate;
            (0..(self.come.floor() - before) as u64).for_each(|_| self.waiting.push_back(self.now_ms));
        }
    }

    /// Never beyond the bounds; no row waits for longer than it may; where one reader can keep up, sizes come to what the formula says and stay
    /// there, the latency is met, and nothing piles up; and after the load has changed all of it holds again.
    #[test]
    fn sizes_stay_inside_their_bounds_and_come_to_rest() {
        let (mut steady, mut clamped) = (0, 0);
        for seed in 0..120 {
            let mut random = Random::new(seed);
            let rows_min = 1 + random.below(20);
            let adaptive =
                Adaptive { latency_ms: 50 + random.below(1_000), rows_min, rows_max: rows_min + random.below(5_000) };
            let mut run = Run { sizer: Sizer::new(adaptive), now_ms: 1_000.0, come: 0.0, waiting: VecDeque::new() };
            for load in 0..3 {
                let latency = adaptive.latency_ms as f64;
                let rate = (1 + random.below(2_000)) as f64 / 200.0;
                let fixed_ms = (random.below(30) as f64 * latency / 100.0).floor();
                let row_ms = random.below(60) as f64 / 100.0 / rate;
                let what = format!("seed {seed}, load {load}: rate {rate}, {fixed_ms} + {row_ms} ms, {adaptive:?}");
                // What a batch takes is fixed + row * size, and the size rate * (latency - that), or rate * that when it is longer.
                let size = (0..1_000).fold(1.0f64, |size, _| {
                    let took = fixed_ms + row_ms * size;
                    let wanted = rate * (latency - took).max(took);
                    size + 0.05 * (wanted.clamp(rows_min as f64, adaptive.rows_max as f64) - size)
                });
                let took = fixed_ms + row_ms * size;
                run.waiting.clear();
                let until_ms = run.now_ms + 60.0 * (latency + took + size / rate);
                let (waited, latency_most) = run.go(rate, fixed_ms, row_ms, until_ms, &what);
                // Rows beyond the largest batch pile up while one is done.
                if rate * took > adaptive.rows_max as f64 * 0.9 {
                    clamped += 1;
                    continue;
                }
                let found = run.sizer.rows() as f64;
                assert!((found - size).abs() <= 2.0 + 0.3 * size, "{what}: {found} rows, {size} expected");
                assert!(waited <= latency.max(1.4 * took) + 2.0, "{what}: a row waited for {waited} ms");
                if took < latency / 2.0 {
                    steady += 1;
                    assert!(latency_most <= 1.35 * latency + 2.0, "{what}: {latency_most} ms");
                }
            }
        }
        assert!(steady > 100 && clamped > 3, "{steady} steady, {clamped} clamped: the seeds try little");
    }

    #[test]
    fn few_rows_come_at_once_and_many_together() {
        let adaptive = Adaptive { latency_ms: 100, rows_min: 1, rows_max: 500 };
        let mut run = Run { sizer: Sizer::new(adaptive), now_ms: 0.0, come: 0.0, waiting: VecDeque::new() };
        run.go(10.0, 5.0, 0.0, 10_000.0, "many");
        let many = run.sizer.rows();
        assert_eq!(many, 500, "950 would come while they may wait");
        run.go(1.0, 5.0, 0.0, 30_000.0, "fewer");
        assert!((90..=100).contains(&run.sizer.rows()), "{}", run.sizer.rows());
        run.go(0.001, 5.0, 0.0, 200_000.0, "hardly any");
        assert_eq!(run.sizer.rows(), 1);
    }

    #[test]
    fn a_clock_that_jumps_breaks_nothing() {
        let adaptive = Adaptive { latency_ms: 100, rows_min: 2, rows_max: 50 };
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let mut sizer = Sizer::new(adaptive);
            for _ in 0..200 {
                sizer.given(random.below(1 << 40), random.below(1 << 50));
                if random.one_in(2) {
                    sizer.done(random.below(1 << 50));
                }
                assert!((2..=50).contains(&sizer.rows()) && sizer.delay_ms() <= 100, "seed {seed}: {sizer:?}");
                assert!(sizer.rows.is_finite() && sizer.rate.is_finite() && sizer.took_ms.is_finite(), "seed {seed}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = Adaptive { latency_ms: 1, rows_min: 1, rows_max: 1 };
        assert!(good.check().is_ok());
        for wrong in [
            Adaptive { latency_ms: 0, ..good },
            Adaptive { latency_ms: LATENCY_MS_MAX + 1, ..good },
            Adaptive { rows_min: 0, ..good },
            Adaptive { rows_min: 2, ..good },
        ] {
            let error = wrong.check().unwrap_err();
            assert!(error.message().starts_with("batching.adaptive: "), "{error}");
        }
    }
}
