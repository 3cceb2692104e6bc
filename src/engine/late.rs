use serde::{Deserialize, Serialize};

use crate::base::Lsn;

/// So many runs of positions are told apart.
const RUNS_MAX: usize = 64;

/// Positions of the log at which changes came that others may take for being there already: where a replica was restored from a backup, all
/// changes of an origin up to a sequence were told to be here, and were not. Who follows the log is sent these whatever it knows.
///
/// Runs of positions, each from its first to its last; where there would be too many, the two that are nearest to each other become one, and
/// what lies between is told once too often.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Late(Vec<(Lsn, Lsn)>);

impl Late {
    /// Whether there is no such position.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one.
    pub fn has(&self, lsn: Lsn) -> bool {
        let before = self.0.partition_point(|(first, _)| *first <= lsn);
        before > 0 && self.0[before - 1].1 >= lsn
    }

    /// The newest one.
    pub fn newest(&self) -> Option<Lsn> {
        self.0.last().map(|(_, last)| *last)
    }

    /// Notes a position, which is the newest of the log.
    pub fn note(&mut self, lsn: Lsn) {
        match self.0.last_mut() {
            Some((_, last)) if last.next() >= lsn => *last = lsn.max(*last),
            _ => self.0.push((lsn, lsn)),
        }
        if self.0.len() > RUNS_MAX {
            let gap = |at: &usize| self.0[*at].0.0 - self.0[at - 1].1.0;
            let nearest = (1..self.0.len()).min_by_key(gap).expect("there are several");
            let (_, last) = self.0.remove(nearest);
            self.0[nearest - 1].1 = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_found_again_and_take_little() {
        let mut late = Late::default();
        assert!(late.is_empty() && !late.has(Lsn(1)) && late.newest().is_none());
        for lsn in [3, 4, 5, 9, 20, 21] {
            late.note(Lsn(lsn));
        }
        let found: Vec<u64> = (0..30).filter(|lsn| late.has(Lsn(*lsn))).collect();
        assert_eq!(found, [3, 4, 5, 9, 20, 21]);
        assert_eq!(late.0.len(), 3);
        let noted: Vec<u64> = (0..1_000).map(|at| 100 + at * at).collect();
        noted.iter().for_each(|lsn| late.note(Lsn(*lsn)));
        assert!(noted.iter().chain(&found).all(|lsn| late.has(Lsn(*lsn))));
        assert_eq!((late.0.len(), late.newest()), (RUNS_MAX, Some(Lsn(100 + 999 * 999))));
    }
}
