use std::collections::BTreeMap;

use crate::stream::{Metrics, Stage, StageKind};

/// A bottleneck is looked for in what was done in the last so many microseconds, at least, and twice as many at most.
const WINDOW_US: u64 = 10_000_000;

type Totals = BTreeMap<(String, StageKind), (u64, u64)>;

/// How long each part of a pipeline was at work, and with how many rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    /// Of what is no operator's: reading, looking up and writing.
    outside: Totals,
    /// What everything came to when the last window ended, and the one before.
    last: Option<(u64, Totals)>,
    before: Option<(u64, Totals)>,
}

impl Load {
    /// Something took `us` microseconds for `rows` rows.
    pub fn took(&mut self, node: &str, kind: StageKind, us: u64, rows: u64) {
        let total = self.outside.entry((node.to_owned(), kind)).or_default();
        *total = (total.0 + us, total.1 + rows);
    }

    fn totals(&self, operators: &[Metrics]) -> Totals {
        let mut totals = self.outside.clone();
        for operator in operators {
            totals.insert((operator.node.clone(), StageKind::Operator), (operator.busy_us, operator.rows_in));
        }
        totals
    }

    /// It is `now_us`: perhaps another window begins.
    pub fn turn(&mut self, now_us: u64, operators: impl FnOnce() -> Vec<Metrics>) {
        if self.last.as_ref().is_some_and(|(since_us, _)| now_us.saturating_sub(*since_us) < WINDOW_US) {
            return;
        }
        let totals = self.totals(&operators());
        self.before = self.last.replace((now_us, totals));
    }

    /// What was done in the last windows, and in how many microseconds.
    pub fn stages(&self, now_us: u64, operators: &[Metrics]) -> (u64, Vec<Stage>) {
        let Some((since_us, before)) = self.before.as_ref().or(self.last.as_ref()) else { return (0, vec![]) };
        let stage = |((name, kind), (busy_us, rows)): ((String, StageKind), (u64, u64))| {
            let (busy_before, rows_before) = before.get(&(name.clone(), kind)).copied().unwrap_or_default();
            Stage {
                kind,
                busy_us: busy_us.saturating_sub(busy_before),
                rows: rows.saturating_sub(rows_before),
                waiting: 0,
                watermark_lag_ms: None,
                name,
            }
        };
        (now_us.saturating_sub(*since_us), self.totals(operators).into_iter().map(stage).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_windows_count() {
        let metrics = |busy_us| vec![Metrics { node: "minutes".to_owned(), busy_us, ..Metrics::default() }];
        let mut load = Load::default();
        assert_eq!(load.stages(7, &metrics(0)), (0, vec![]));
        load.turn(0, || metrics(0));
        load.took("clicks", StageKind::Source, 900, 9);
        let busy = |load: &Load, now_us, operator| {
            let (elapsed_us, stages) = load.stages(now_us, &metrics(operator));
            (elapsed_us, stages.iter().map(|stage| (stage.name.clone(), stage.busy_us)).collect::<BTreeMap<_, _>>())
        };
        let told = |clicks, minutes| BTreeMap::from([("clicks".to_owned(), clicks), ("minutes".to_owned(), minutes)]);
        assert_eq!(busy(&load, 1_000, 50), (1_000, told(900, 50)));
        load.turn(WINDOW_US - 1, || unreachable!("the window goes on"));
        load.turn(WINDOW_US, || metrics(60));
        load.took("clicks", StageKind::Source, 30, 1);
        assert_eq!(
            busy(&load, WINDOW_US + 1, 70),
            (WINDOW_US + 1, told(930, 70)),
            "a window alone would begin with nothing"
        );
        load.turn(2 * WINDOW_US, || metrics(100));
        assert_eq!(busy(&load, 2 * WINDOW_US + 5, 100), (WINDOW_US + 5, told(30, 40)));
    }
}
