//! Windows that let go of rows: what the published tests of Flink's `EvictingWindowOperatorTest` expect, and random streams against what an
//! evictor is by its definition.

use super::*;

/// Sums by key, told after every two rows, as all of these tests have it.
fn sums(window: Window, keep: Keep, after: bool) -> Job {
    let spec = WindowAggregate {
        trigger: Trigger { early: Some(Pace::Count(2)), ..Trigger::default() },
        output: Output::Accumulating,
        evictor: Some(Evictor { keep, after }),
        ..windowed(window, vec![aggregate("sum", AggregateFunction::Sum, Some("value"))])
    };
    Job::new(plan(NEVER, Operator::Aggregate(spec)), Options::default()).unwrap()
}

/// What is told of the rows, sorted; the job goes through a checkpoint before.
fn after(job: Job, events: &[Event]) -> (Job, Vec<String>) {
    let mut job = again(job);
    push(&mut job, "in", 0, events, 0);
    let mut told = given(&mut job, "out");
    told.sort();
    (job, told)
}

fn delta() -> Keep {
    Keep::Delta { by: "last_value - value".into(), threshold: 2.0 }
}

const ONES: [Event; 8] = [
    ("key2", 1, 3000),
    ("key2", 1, 3999),
    ("key1", 1, 20),
    ("key1", 1, 0),
    ("key1", 1, 999),
    ("key2", 1, 1998),
    ("key2", 1, 1999),
    ("key2", 1, 1000),
];
const NUMBERS: [Event; 8] = [
    ("key2", 1, 3000),
    ("key2", 4, 3999),
    ("key1", 1, 20),
    ("key1", 1, 0),
    ("key1", 5, 999),
    ("key2", 5, 1998),
    ("key2", 6, 1999),
    ("key2", 1, 1000),
];

/// `testCountEvictorEvictAfter`
#[test]
fn the_last_rows_stay_once_told() {
    let (job, told) = after(sums(Window::Global, Keep::Count(4), true), &ONES);
    assert_eq!(told, ["key1 2", "key2 2", "key2 4"]);
    let (job, told) = after(job, &[("key1", 1, 10_999), ("key2", 1, 1000)]);
    assert_eq!(told, ["key1 4", "key2 6"]);
    assert_eq!(after(job, &[("key2", 1, 1000), ("key2", 1, 1000)]).1, ["key2 6"]);
}

/// `testCountTrigger`, whose evictor keeps 4 rows before they are told.
#[test]
fn the_last_rows_stay() {
    let (job, told) = after(sums(Window::Global, Keep::Count(4), false), &ONES);
    assert_eq!(told, ["key1 2", "key2 2", "key2 4"]);
    let (job, told) = after(job, &[("key1", 1, 10_999), ("key2", 1, 1000)]);
    assert_eq!(told, ["key1 4", "key2 4"]);
    // Six are in memory no longer: four of each key.
    assert_eq!(job.metrics()[1].entries, 2 + 8);
}

/// `testTimeEvictorEvictAfter`
#[test]
fn recent_rows_stay_once_told() {
    let events = [
        ("key2", 1, 1000),
        ("key2", 1, 4000),
        ("key1", 1, 20),
        ("key1", 1, 0),
        ("key1", 1, 999),
        ("key2", 1, 3500),
        ("key2", 1, 2001),
        ("key2", 1, 1001),
    ];
    let (job, told) = after(sums(Window::Global, Keep::Time(2000), true), &events);
    assert_eq!(told, ["key1 2", "key2 2", "key2 3"]);
    assert_eq!(after(job, &[("key1", 1, 10_999), ("key2", 1, 1002)]).1, ["key1 4", "key2 5"]);
}

/// `testTimeEvictorEvictBefore`
#[test]
fn recent_rows_stay() {
    let events = [
        ("key2", 1, 1000),
        ("key2", 1, 3999),
        ("key1", 1, 20),
        ("key1", 1, 0),
        ("key1", 1, 999),
        ("key1", 1, 5999),
        ("key2", 1, 3500),
        ("key2", 1, 2001),
        ("key2", 1, 1001),
    ];
    let job = sums(Window::Tumbling { size: 4000, offset: 0, zone: None }, Keep::Time(2000), false);
    let (job, told) = after(job, &events);
    assert_eq!(told, ["key1 2 4000 0", "key2 1 4000 0", "key2 3 4000 0"]);
    let (_, told) = after(job, &[("key1", 1, 6500), ("key2", 1, 1002)]);
    assert_eq!(told, ["key1 2 8000 4000", "key2 3 4000 0"]);
}

/// `testDeltaEvictorEvictBefore`
#[test]
fn rows_that_differ_from_the_last_go() {
    // As an integer, and as a double.
    for keep in [delta(), Keep::Delta { by: "(last_value - value) * 1.0".into(), threshold: 2.0 }] {
        let (job, told) = after(sums(Window::Global, keep, false), &NUMBERS);
        assert_eq!(told, ["key1 2", "key2 11", "key2 4"]);
        assert_eq!(after(job, &[("key1", 3, 10_999), ("key2", 10, 1000)]).1, ["key1 8", "key2 10"]);
    }
}

/// `testDeltaEvictorEvictAfter`
#[test]
fn rows_that_differ_from_the_last_go_once_told() {
    let (job, told) = after(sums(Window::Global, delta(), true), &NUMBERS);
    assert_eq!(told, ["key1 2", "key2 15", "key2 5"]);
    assert_eq!(after(job, &[("key1", 9, 10_999), ("key2", 10, 1000)]).1, ["key1 16", "key2 22"]);
}

#[test]
fn rows_that_are_kept_are_bounded() {
    for (overflow, dead) in [(Overflow::Fail, None), (Overflow::Refuse, Some(2))] {
        let job = sums(Window::Global, Keep::Count(100), false);
        let options = Options { entries_max: 4, overflow, ..Options::default() };
        let mut job = Job::new(job.plan().clone(), options).unwrap();
        let events = [("a", 1, 1), ("a", 2, 2), ("a", 4, 3), ("a", 8, 4), ("a", 16, 5)];
        let (batch, _) = job.relation("in").unwrap().batch(&rows(&events));
        let result = job.push("in", 0, b"", &batch, None, 0);
        match dead {
            None => assert_eq!(result.unwrap_err().kind(), crate::base::ErrorKind::StorageFull),
            Some(dead) => assert_eq!(job.poll().dead.iter().map(|letter| letter.rows.len()).sum::<usize>(), dead),
        }
    }
}

#[test]
fn what_cannot_be_is_named() {
    let wrong = |window: Window, keep: Keep| {
        let spec = WindowAggregate { evictor: Some(Evictor { keep, after: false }), ..windowed(window, vec![]) };
        plan(0, Operator::Aggregate(spec)).check().unwrap_err().message().to_owned()
    };
    assert!(wrong(Window::Global, Keep::Count(0)).contains("keeps 0 rows, expected 1 or more"));
    assert!(wrong(Window::Global, Keep::Time(-5)).contains("keeps -5 microseconds"));
    assert!(wrong(Window::Count { size: 4, slide: 2 }, Keep::Count(1)).contains("by itself"));
    let by = |by: &str, threshold: f64| wrong(Window::Global, Keep::Delta { by: by.into(), threshold });
    assert!(by("last_price - value", 1.0).contains("last_price"));
    assert!(by("last_key", 1.0).contains("`last_key` is varchar, expected a number"));
    assert!(by("last_value - value", f64::NAN).contains("no number"));
    let text = r#"{"keep": {"delta": {"by": {"text": "last_value - value"}, "threshold": 2.0}}, "after": true}"#;
    let evictor: Evictor = serde_json::from_str(text).unwrap();
    assert_eq!(evictor, Evictor { keep: delta(), after: true });
}

/// By the definition, a row after the other: what is told of a window, sorted.
fn naive(events: &[Event], window: Window, keep: &Keep, after: bool, every: usize) -> Vec<String> {
    type Pane = (&'static str, i64, i64);
    let mut panes: BTreeMap<Pane, (Vec<Event>, usize)> = BTreeMap::new();
    let mut told: Vec<String> = vec![];
    let evict = |rows: &mut Vec<Event>| {
        let latest = rows.iter().map(|row| row.2).max();
        let last = rows.last().map(|row| row.1);
        let count = rows.len();
        let mut at = 0;
        rows.retain(|row| {
            at += 1;
            match keep {
                Keep::Count(most) => count - at < *most as usize,
                Keep::Time(span) => latest.unwrap() - row.2 < *span,
                Keep::Delta { threshold, .. } => ((last.unwrap() - row.1) as f64) < *threshold,
            }
        });
    };
    let mut tell = |pane: &Pane, rows: &mut Vec<Event>| {
        if !after {
            evict(rows);
        }
        if !rows.is_empty() {
            let values: Vec<i64> = rows.iter().map(|row| row.1).collect();
            let bounds = if window == Window::Global { String::new() } else { format!(" {} {}", pane.2, pane.1) };
            let text = serde_json::to_string(&values).unwrap();
            told.push(format!("{text} {} {}{bounds}", pane.0, values.iter().sum::<i64>()));
        }
        if after {
            evict(rows);
        }
    };
    for event in events {
        let spans: Vec<(i64, i64)> = match window {
            Window::Tumbling { size, .. } => vec![(event.2 - event.2 % size, event.2 - event.2 % size + size)],
            Window::Sliding { size, slide, .. } => {
                (-20..200).map(|n| (n * slide, n * slide + size)).filter(|(a, b)| (*a..*b).contains(&event.2)).collect()
            }
            _ => vec![(i64::MIN, i64::MAX)],
        };
        for (start, end) in spans {
            let pane = (event.0, start, end);
            let (rows, pending) = panes.entry(pane).or_default();
            rows.push(*event);
            *pending += 1;
            if *pending >= every {
                *pending = 0;
                tell(&pane, rows);
            }
        }
    }
    for (pane, (mut rows, pending)) in panes {
        if pending > 0 {
            tell(&pane, &mut rows);
        }
    }
    told.sort();
    told
}

#[test]
fn evictors_do_what_they_are_defined_as() {
    for seed in 0..1_000 {
        let mut random = Random::new(seed);
        let window = match random.below(3) {
            0 => Window::Global,
            1 => Window::Tumbling { size: 1 + random.below(60) as i64, offset: 0, zone: None },
            _ => Window::Sliding {
                size: 1 + random.below(60) as i64,
                slide: 5 + random.below(20) as i64,
                offset: 0,
                zone: None,
            },
        };
        let keep = match random.below(3) {
            0 => Keep::Count(1 + random.below(6)),
            1 => Keep::Time(1 + random.below(40) as i64),
            _ => Keep::Delta { by: "last_value - value".into(), threshold: random.below(9) as f64 - 2.0 },
        };
        let (after, every) = (random.below(2) == 0, 1 + random.below(5));
        let events: Vec<Event> = (0..random.below(60))
            .map(|_| (*random.pick(&["a", "b"]), random.below(20) as i64, random.below(100) as i64))
            .collect();
        let expected = naive(&events, window, &keep, after, every as usize);
        let spec = WindowAggregate {
            trigger: Trigger { early: Some(Pace::Count(every)), ..Trigger::default() },
            output: Output::Accumulating,
            evictor: Some(Evictor { keep: keep.clone(), after }),
            ..windowed(
                window,
                vec![
                    aggregate("all", AggregateFunction::Collect { limit: 1_000 }, Some("value")),
                    aggregate("sum", AggregateFunction::Sum, Some("value")),
                ],
            )
        };
        let mut job = Job::new(plan(NEVER, Operator::Aggregate(spec)), Options::default()).unwrap();
        let (mut rest, mut told) = (&events[..], vec![]);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + random.below(9) as usize));
            rest = later;
            push(&mut job, "in", 0, now, 0);
            told.extend(given(&mut job, "out"));
            if random.below(3) == 0 {
                job = again(job);
            }
        }
        job.end("in", 0, 0).unwrap();
        told.extend(given(&mut job, "out"));
        told.sort();
        assert_eq!(told, expected, "seed {seed}: {window}, {keep:?}, after {after}, every {every}");
    }
}
