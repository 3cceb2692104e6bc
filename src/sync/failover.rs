use super::backoff::Backoff;

/// Once all hubs have failed, the first wait is at most this, then twice as long each time.
const BACKOFF_BASE_MS: u64 = 500;
/// And never longer than this.
const BACKOFF_MAX_MS: u64 = 30_000;
/// Clients whose hub went away together come to the next one within this, and not at one moment.
const SPREAD_MS: u64 = 500;
/// Hubs that are preferred to the one that serves are looked at after half of this to all of it, and then after twice as long each time …
const RETURN_BASE_MS: u64 = 60_000;
/// … which is never longer than this.
const RETURN_MAX_MS: u64 = 32 * 60_000;
/// A hub that served for so long after it had come back is there to stay: should it go once more, it is looked for as at first.
const LASTING_MS: u64 = 60_000;

/// Which of several hubs to dial, and when: the first that serves, in the order of preference.
///
/// One that fails is followed by the next that was not tried since any worked, at once; only when all have failed is there a wait. While
/// a later one serves, those before it are looked at now and then, and returned to.
#[derive(Debug, Clone)]
pub struct Failover {
    /// By hub: whether it has failed since any worked.
    tried: Vec<bool>,
    at: usize,
    backoff: Backoff,
    /// Since when the present connection has done its work.
    worked_ms: Option<u64>,
    /// The waits between looks at hubs that come earlier.
    returns: Backoff,
    return_ms: Option<u64>,
}

impl Failover {
    /// Of so many hubs the first.
    ///
    /// # Panics
    /// Without any.
    pub fn new(hubs: usize) -> Self {
        assert!(hubs > 0, "one hub at least");
        Self {
            tried: vec![false; hubs],
            at: 0,
            backoff: Backoff::new(BACKOFF_BASE_MS, BACKOFF_MAX_MS),
            worked_ms: None,
            returns: Backoff::new(RETURN_BASE_MS, RETURN_MAX_MS),
            return_ms: None,
        }
    }

    /// The hub that is to be dialled, or that serves.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether there are others.
    pub fn has_others(&self) -> bool {
        self.tried.len() > 1
    }

    /// The connection that was made last has done its work. `random` is 64 random bits, here and below.
    pub fn worked(&mut self, now_ms: u64, random: u64) {
        self.tried.fill(false);
        self.backoff.reset();
        self.worked_ms.get_or_insert(now_ms);
        if self.at > 0 && self.return_ms.is_none() {
            self.plan_return(now_ms, random);
        }
    }

    /// The hub could not be reached, or its connection broke. Then another may be [`Failover::at`]: it is to be dialled after so many
    /// milliseconds.
    pub fn failed(&mut self, now_ms: u64, random: u64) -> u64 {
        let worked_ms = self.worked_ms.take();
        self.return_ms = None;
        if self.at == 0 && worked_ms.is_some_and(|worked_ms| now_ms >= worked_ms.saturating_add(LASTING_MS)) {
            self.returns.reset();
        }
        self.tried[self.at] = true;
        if let Some(next) = self.tried.iter().position(|tried| !tried) {
            self.at = next;
            return if worked_ms.is_some() { random % (SPREAD_MS + 1) } else { 0 };
        }
        self.tried.fill(false);
        self.at = 0;
        self.backoff.next_ms(random)
    }

    /// After a pause everything may be otherwise: the first hub is dialled first.
    pub fn begin_again(&mut self) {
        self.tried.fill(false);
        self.at = 0;
        self.worked_ms = None;
        self.return_ms = None;
        self.backoff.reset();
    }

    /// When to look whether one of the hubs before [`Failover::at`] is there again. It waits until nothing is under way.
    pub fn return_due_ms(&self) -> Option<u64> {
        self.return_ms
    }

    /// What the look has found: the first of those hubs that is there, which is to be dialled now, or none.
    pub fn returned(&mut self, found: Option<usize>, now_ms: u64, random: u64) {
        match found {
            Some(earlier) => {
                assert!(earlier < self.at, "hub {earlier} comes before hub {}", self.at);
                self.at = earlier;
                self.worked_ms = None;
                self.return_ms = None;
                // Should it go again soon, it is left alone for longer.
                self.returns.next_ms(random);
            }
            None => self.plan_return(now_ms, random),
        }
    }

    fn plan_return(&mut self, now_ms: u64, random: u64) {
        let half_ms = self.returns.ceiling_ms() / 2;
        self.return_ms = Some(now_ms + half_ms + self.returns.next_ms(random) / 2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RETURN_BASE: std::ops::RangeInclusive<u64> = RETURN_BASE_MS / 2..=RETURN_BASE_MS;

    #[test]
    fn one_hub_is_dialled_again_and_again_and_nothing_is_looked_back_at() {
        let mut failover = Failover::new(1);
        for attempt in 0..9 {
            let ceiling_ms = (500 << attempt).min(30_000);
            assert_eq!(failover.failed(attempt, ceiling_ms), ceiling_ms);
            assert_eq!((failover.at(), failover.return_due_ms(), failover.has_others()), (0, None, false));
        }
        failover.worked(100, 7);
        assert_eq!((failover.failed(100, 400), failover.at()), (400, 0));
    }

    #[test]
    fn the_next_hub_is_dialled_at_once_and_the_first_is_returned_to() {
        let mut failover = Failover::new(3);
        assert_eq!((failover.failed(0, 400), failover.at()), (0, 1));
        failover.worked(10, 0);
        let due_ms = failover.return_due_ms().unwrap();
        assert!(RETURN_BASE.contains(&(due_ms - 10)), "{due_ms}");
        failover.returned(None, due_ms, 0);
        assert!(failover.return_due_ms().unwrap() - due_ms >= RETURN_BASE_MS);
        failover.returned(Some(0), due_ms, 0);
        assert_eq!((failover.at(), failover.return_due_ms()), (0, None));
        // It is there, and does not work: back to the one that did.
        assert_eq!((failover.failed(due_ms, 400), failover.at()), (0, 1));
        // That one goes after it had served: the first one had its turn before it worked.
        failover.worked(due_ms, 0);
        assert_eq!((failover.failed(due_ms + 1, 400), failover.at()), (400, 0));
        assert_eq!((failover.failed(due_ms + 1, 400), failover.at()), (0, 2));
        assert_eq!((failover.failed(due_ms + 1, 400), failover.at()), (400, 0));
    }

    /// What happens to a client and its hubs.
    #[derive(Debug, Clone)]
    enum Step {
        /// A hub comes or goes.
        Toggle(prop::sample::Index),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step =
            prop_oneof![any::<prop::sample::Index>().prop_map(Step::Toggle), (1..100_000u64).prop_map(Step::Pass)];
        prop::collection::vec(step, 1..120)
    }

    /// A client that does what it is told, with hubs that answer at once or not at all.
    struct Client {
        failover: Failover,
        random: crate::base::Random,
        now_ms: u64,
        up: Vec<bool>,
        serves: bool,
        /// Hubs that failed since one worked or there was a wait; cycles of them in a row.
        failed: Vec<usize>,
        cycles: u32,
        dial_ms: u64,
    }

    impl Client {
        fn new(hubs: usize, seed: u64) -> Self {
            let (failover, random) = (Failover::new(hubs), crate::base::Random::new(seed));
            Self {
                failover,
                random,
                now_ms: 0,
                up: vec![true; hubs],
                serves: false,
                failed: Vec::new(),
                cycles: 0,
                dial_ms: 0,
            }
        }

        /// When there is something to do.
        fn due_ms(&self) -> u64 {
            if self.serves { self.failover.return_due_ms().unwrap_or(u64::MAX) } else { self.dial_ms }
        }

        fn fail(&mut self) {
            let (at, served) = (self.failover.at(), std::mem::take(&mut self.serves));
            assert!(!self.failed.contains(&at), "hub {at} is dialled twice before all have failed: {:?}", self.failed);
            self.failed.push(at);
            let wait_ms = self.failover.failed(self.now_ms, self.random.next_u64());
            let most_ms = if self.failed.len() == self.up.len() {
                let most_ms = (BACKOFF_BASE_MS << self.cycles.min(20)).min(BACKOFF_MAX_MS);
                self.failed.clear();
                self.cycles += 1;
                assert_eq!(self.failover.at(), 0);
                most_ms
            } else {
                if served { SPREAD_MS } else { 0 }
            };
            assert!(wait_ms <= most_ms, "{wait_ms} ms, at most {most_ms} expected");
            assert_eq!(self.failover.return_due_ms(), None);
            self.dial_ms = self.now_ms + wait_ms;
        }

        fn act(&mut self) {
            let at = self.failover.at();
            if !self.serves {
                if !self.up[at] {
                    return self.fail();
                }
                self.serves = true;
                self.failed.clear();
                self.cycles = 0;
                self.failover.worked(self.now_ms, self.random.next_u64());
            } else {
                let found = (0..at).find(|&hub| self.up[hub]);
                self.failover.returned(found, self.now_ms, self.random.next_u64());
                if found.is_some() {
                    (self.serves, self.dial_ms) = (false, self.now_ms);
                }
            }
            // What serves first of all is not left; what comes later is, in time.
            match self.failover.return_due_ms() {
                None => assert!(self.failover.at() == 0 || !self.serves),
                Some(due_ms) => {
                    let wait_ms = due_ms - self.now_ms;
                    assert!(self.serves && self.failover.at() > 0);
                    assert!((RETURN_BASE_MS / 2..=RETURN_MAX_MS).contains(&wait_ms), "{wait_ms}");
                }
            }
        }

        fn pass(&mut self, ms: u64) {
            let end_ms = self.now_ms + ms;
            let mut turns = 0;
            while self.due_ms() <= end_ms {
                self.now_ms = self.now_ms.max(self.due_ms());
                self.act();
                turns += 1;
                assert!(turns < 10_000, "no end");
            }
            self.now_ms = end_ms;
        }
    }

    proptest! {
        #[test]
        fn the_first_hub_that_is_there_serves_in_the_end(hubs in 1..5usize, seed in any::<u64>(), steps in steps()) {
            let mut client = Client::new(hubs, seed);
            for step in steps {
                match step {
                    Step::Pass(ms) => client.pass(ms),
                    Step::Toggle(hub) => {
                        let hub = hub.index(hubs);
                        client.up[hub] = !client.up[hub];
                        if client.serves && client.failover.at() == hub {
                            client.fail();
                        }
                    }
                }
            }
            let first = client.up.iter().position(|up| *up);
            // Somebody serves as soon as the longest wait is over …
            client.pass(BACKOFF_MAX_MS);
            prop_assert_eq!(client.serves, first.is_some());
            // … and the first of those that are there after the longest look back.
            client.pass(RETURN_MAX_MS);
            if let Some(first) = first {
                prop_assert_eq!(client.failover.at(), first);
            }
        }

        #[test]
        fn hubs_that_stay_away_are_looked_at_ever_more_seldom(randoms in prop::collection::vec(any::<u64>(), 1..20)) {
            let mut failover = Failover::new(2);
            failover.failed(0, 0);
            failover.worked(0, randoms[0]);
            let mut now_ms = 0;
            for (look, random) in randoms.into_iter().enumerate() {
                let most_ms = (RETURN_BASE_MS << look.min(20)).min(RETURN_MAX_MS);
                let due_ms = failover.return_due_ms().unwrap();
                prop_assert!((most_ms / 2..=most_ms).contains(&(due_ms - now_ms)), "look {}: {}", look, due_ms - now_ms);
                now_ms = due_ms;
                failover.returned(None, now_ms, random);
            }
            // One that came back for long is looked for as at first when it goes again, one that did not is not.
            failover.returned(Some(0), now_ms, 0);
            failover.worked(now_ms, 0);
            let mut soon = failover.clone();
            soon.failed(now_ms + LASTING_MS - 1, 0);
            soon.worked(now_ms, 0);
            prop_assert!(soon.return_due_ms().unwrap() - now_ms > RETURN_BASE_MS / 2);
            failover.failed(now_ms + LASTING_MS, 0);
            failover.worked(now_ms, 0);
            prop_assert!(RETURN_BASE.contains(&(failover.return_due_ms().unwrap() - now_ms)));
        }
    }
}
