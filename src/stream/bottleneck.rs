use serde::Serialize;

/// From this share of the time on, a stage holds up those before it.
const BUSY_SHARE: f64 = 0.5;
/// A stage that takes this share of all work is named when rows wait, however idle the pipeline was on average.
const WORK_SHARE: f64 = 0.25;
/// A source whose time is this much further behind than that of all others holds back whatever waits for both.
const LAG_MS: i64 = 1_000;

/// What kind of a stage it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum StageKind {
    /// It reads rows.
    Source,
    /// It does something with them here.
    Operator,
    /// It asks collections or functions of the host.
    Lookup,
    /// It writes rows.
    Sink,
}

/// What was seen of a stage of a pipeline for a while.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// What kind of a stage it is.
    pub kind: StageKind,
    /// For how many microseconds it was at work.
    pub busy_us: u64,
    /// How many rows it took meanwhile.
    pub rows: u64,
    /// How many rows, or transactions of rows, wait for it.
    pub waiting: u64,
    /// How far its time is behind the clock, in milliseconds; `None` when it has none.
    pub watermark_lag_ms: Option<i64>,
}

/// Why a stage is the bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BottleneckReason {
    /// It works more than all others, and they wait for it: its share of the time that passed, and of all work.
    Busy {
        /// 0 to 1.
        of_time: f64,
        /// 0 to 1.
        of_work: f64,
    },
    /// Nothing is busy: results wait for time to go on, which this source holds back.
    Watermark {
        /// In milliseconds.
        lag_ms: i64,
        /// That of the next one.
        next_lag_ms: i64,
    },
}

/// The stage that decides how fast a pipeline is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bottleneck {
    /// Its name.
    pub node: String,
    /// What kind of a stage it is.
    pub kind: StageKind,
    /// Why.
    pub reason: BottleneckReason,
    /// How many rows, or transactions of rows, wait in the sources.
    pub waiting: u64,
    /// The same as a sentence.
    pub text: String,
}

/// The bottleneck among stages that were watched for `elapsed_us`; `None` when none holds anything up.
///
/// Stages run one after the other on one thread, so what one takes, all others wait for. When the whole pipeline has worked half of the time, or
/// rows wait in its sources, that is the stage with the most work. Otherwise results can only wait for time: for the source whose watermark is
/// the furthest behind, when others are ahead of it.
pub fn bottleneck(elapsed_us: u64, stages: &[Stage]) -> Option<Bottleneck> {
    let work: u64 = stages.iter().map(|stage| stage.busy_us).sum();
    let waiting: u64 = stages.iter().filter(|stage| stage.kind == StageKind::Source).map(|stage| stage.waiting).sum();
    // Of equals, the first: max_by_key would tell the last.
    let busiest = stages.iter().rev().max_by_key(|stage| stage.busy_us)?;
    let of_time = share(work, elapsed_us);
    let (busiest_of_time, of_work) = (share(busiest.busy_us, elapsed_us), share(busiest.busy_us, work));
    if work > 0 && (of_time >= BUSY_SHARE || waiting > 0 && of_work >= WORK_SHARE) {
        let does = match busiest.kind {
            StageKind::Source => "reading",
            StageKind::Operator => "computing",
            StageKind::Lookup => "looking up",
            StageKind::Sink => "writing",
        };
        let each = busiest.busy_us.checked_div(busiest.rows).filter(|_| busiest.rows > 0);
        let each = each.map_or(String::new(), |us| format!(", {us} us a row"));
        let behind = if waiting > 0 { format!("; {waiting} wait to be read") } else { String::new() };
        let text = format!(
            "{}: {does} for {:.0} % of the time and {:.0} % of the work{each}{behind}",
            busiest.name,
            100.0 * busiest_of_time,
            100.0 * of_work
        );
        let reason = BottleneckReason::Busy { of_time: busiest_of_time, of_work };
        return Some(Bottleneck { node: busiest.name.clone(), kind: busiest.kind, reason, waiting, text });
    }
    let mut sources: Vec<(i64, &Stage)> = stages
        .iter()
        .filter(|stage| stage.kind == StageKind::Source)
        .filter_map(|stage| Some((stage.watermark_lag_ms?, stage)))
        .collect();
    sources.sort_by_key(|(lag_ms, _)| std::cmp::Reverse(*lag_ms));
    let [(lag_ms, slowest), (next_lag_ms, _), ..] = sources[..] else { return None };
    if lag_ms.saturating_sub(next_lag_ms) < LAG_MS {
        return None;
    }
    let text = format!(
        "{}: its time is {lag_ms} ms behind the clock, that of the next source {next_lag_ms} ms: what joins them waits for it",
        slowest.name
    );
    let reason = BottleneckReason::Watermark { lag_ms, next_lag_ms };
    Some(Bottleneck { node: slowest.name.clone(), kind: slowest.kind, reason, waiting, text })
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, kind: StageKind, busy_us: u64) -> Stage {
        Stage { name: name.to_owned(), kind, busy_us, rows: 100, waiting: 0, watermark_lag_ms: None }
    }

    #[test]
    fn the_stage_with_the_most_work_is_named_when_the_others_wait_for_it() {
        let mut stages = [
            stage("clicks", StageKind::Source, 1_000),
            stage("minutes", StageKind::Operator, 7_000),
            stage("out", StageKind::Sink, 1_000),
        ];
        let found = bottleneck(10_000, &stages).unwrap();
        assert_eq!((found.node.as_str(), found.kind), ("minutes", StageKind::Operator));
        assert!(
            matches!(found.reason, BottleneckReason::Busy { of_time, of_work } if of_time == 0.7 && (of_work - 7.0 / 9.0).abs() < 1e-9)
        );
        assert_eq!(found.text, "minutes: computing for 70 % of the time and 78 % of the work, 70 us a row");
        stages[2].busy_us = 8_000;
        stages[2].rows = 0;
        let found = bottleneck(20_000, &stages).unwrap();
        assert_eq!((found.node.as_str(), found.kind), ("out", StageKind::Sink));
        assert!(!found.text.contains("a row"), "{}", found.text);
    }

    #[test]
    fn an_idle_pipeline_has_none_until_rows_wait() {
        let mut stages = [stage("clicks", StageKind::Source, 10), stage("call", StageKind::Lookup, 40)];
        assert_eq!(bottleneck(1_000_000, &stages), None);
        stages[0].waiting = 5;
        let found = bottleneck(1_000_000, &stages).unwrap();
        assert_eq!((found.node.as_str(), found.waiting), ("call", 5));
        assert!(found.text.ends_with("5 wait to be read"), "{}", found.text);
        assert_eq!(bottleneck(0, &[]), None);
        assert_eq!(bottleneck(0, &[stage("clicks", StageKind::Source, 0)]), None);
    }

    #[test]
    fn a_source_whose_time_stands_holds_the_others_back() {
        let lagging = |name: &str, lag_ms| Stage { watermark_lag_ms: lag_ms, ..stage(name, StageKind::Source, 0) };
        let found = bottleneck(1_000_000, &[lagging("fast", Some(20)), lagging("slow", Some(60_000))]).unwrap();
        assert_eq!(found.node, "slow");
        assert_eq!(found.reason, BottleneckReason::Watermark { lag_ms: 60_000, next_lag_ms: 20 });
        // Both are of the past: that is a replay, and no fault of one of them.
        assert_eq!(bottleneck(1_000_000, &[lagging("a", Some(60_000)), lagging("b", Some(59_500))]), None);
        // Before the first watermark nothing is known, and one source alone waits for nobody.
        assert_eq!(bottleneck(1_000_000, &[lagging("a", Some(60_000)), lagging("b", None)]), None);
        assert_eq!(bottleneck(1_000_000, &[lagging("a", Some(60_000))]), None);
    }
}
