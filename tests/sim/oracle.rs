//! What one writer's keys may hold: every state that is compatible with what it was told.

use std::collections::{BTreeMap, BTreeSet};

/// Key, then the row's text and vector.
pub type Rows = BTreeMap<i64, (String, Vec<u32>)>;

/// The states that a crash or a failure leaves open, one when nothing is open.
#[derive(Debug, Clone)]
pub struct Oracle {
    possible: BTreeSet<Rows>,
}

impl Oracle {
    pub fn new() -> Self {
        Self { possible: BTreeSet::from([Rows::new()]) }
    }

    /// A change that was acknowledged.
    pub fn acknowledged(&mut self, change: impl Fn(&mut Rows)) {
        self.possible = std::mem::take(&mut self.possible)
            .into_iter()
            .map(|mut rows| {
                change(&mut rows);
                rows
            })
            .collect();
    }

    /// A change that failed or never answered: it is wholly there, or not at all.
    pub fn uncertain(&mut self, change: impl Fn(&mut Rows)) {
        let changed = self.possible.iter().cloned().map(|mut rows| {
            change(&mut rows);
            rows
        });
        let changed: Vec<_> = changed.collect();
        self.possible.extend(changed);
    }

    /// Panics unless `found` is a state that may be.
    pub fn check(&self, found: &Rows, when: &str) {
        assert!(
            self.possible.contains(found),
            "{when}: found {found:?}\nexpected one of {:?}",
            self.possible.iter().collect::<Vec<_>>()
        );
    }

    /// From now on what was found is certain.
    pub fn settle(&mut self, found: Rows) {
        self.possible = BTreeSet::from([found]);
    }

    /// The one state that may be, when only one may.
    pub fn certain(&self) -> Option<&Rows> {
        self.possible.first().filter(|_| self.possible.len() == 1)
    }
}
