//! What Flink's published tests expect of its window operator (apache/flink, `WindowOperatorTest` in
//! `flink-runtime` or `flink-streaming-java`): their inputs and outputs, milliseconds as microseconds here. Each test names the one that it is of.

use super::*;

fn job(window: Window, spec: impl FnOnce(&mut WindowAggregate)) -> Job {
    let mut windowed = windowed(window, vec![aggregate("sum", AggregateFunction::Sum, Some("value"))]);
    spec(&mut windowed);
    Job::new(plan(NEVER, Operator::Aggregate(windowed)), Options::default()).unwrap()
}

/// Sets the watermark, and tells key, sum and the end of the windows that were told.
fn watermark(job: &mut Job, time: i64) -> Vec<String> {
    job.watermark("in", 0, time, 0).unwrap();
    told(job)
}

/// Key, sum, start and end.
fn told(job: &mut Job) -> Vec<String> {
    let found = job.poll().rows.into_iter().filter(|(sink, _)| sink == "out");
    let mut texts: Vec<String> = found
        .flat_map(|(_, rows)| {
            let relation = Relation::default();
            let all = rows.to_rows(&relation);
            all.into_iter()
                .enumerate()
                .map(move |(at, row)| {
                    let sign = if rows.is_retraction(at) { "-" } else { "" };
                    let text = |name: &str| serde_json::to_string(&row[name]).unwrap().replace('"', "");
                    format!("{sign}{} {} {}..{}", text("key"), text("sum"), text(WINDOW_START), text(WINDOW_END))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    texts.sort();
    texts
}

const NOTHING: [&str; 0] = [];

const OUT_OF_ORDER: [Event; 8] = [
    ("key2", 1, 3999),
    ("key2", 1, 3000),
    ("key1", 1, 20),
    ("key1", 1, 0),
    ("key1", 1, 999),
    ("key2", 1, 1998),
    ("key2", 1, 1999),
    ("key2", 1, 1000),
];

/// `testTumblingEventTimeWindows`
#[test]
fn tumbling_event_time_windows() {
    let mut job = job(Window::Tumbling { size: 3000, offset: 0, zone: None }, |_| {});
    push(&mut job, "in", 0, &OUT_OF_ORDER, 0);
    assert_eq!(watermark(&mut job, 999), NOTHING);
    assert_eq!(watermark(&mut job, 1999), NOTHING);
    let mut job = again(job);
    assert_eq!(watermark(&mut job, 2999), ["key1 3 0..3000", "key2 3 0..3000"]);
    assert_eq!(watermark(&mut job, 3999), NOTHING);
    assert_eq!(watermark(&mut job, 4999), NOTHING);
    assert_eq!(watermark(&mut job, 5999), ["key2 2 3000..6000"]);
    assert_eq!(watermark(&mut job, 6999), NOTHING);
}

/// `testSlidingEventTimeWindows`
#[test]
fn sliding_event_time_windows() {
    let mut job = job(Window::Sliding { size: 3000, slide: 1000, offset: 0, zone: None }, |_| {});
    push(&mut job, "in", 0, &OUT_OF_ORDER, 0);
    assert_eq!(watermark(&mut job, 999), ["key1 3 -2000..1000"]);
    assert_eq!(watermark(&mut job, 1999), ["key1 3 -1000..2000", "key2 3 -1000..2000"]);
    assert_eq!(watermark(&mut job, 2999), ["key1 3 0..3000", "key2 3 0..3000"]);
    let mut job = again(job);
    assert_eq!(watermark(&mut job, 3999), ["key2 5 1000..4000"]);
    assert_eq!(watermark(&mut job, 4999), ["key2 2 2000..5000"]);
    assert_eq!(watermark(&mut job, 5999), ["key2 2 3000..6000"]);
    assert_eq!(watermark(&mut job, 6999), NOTHING);
}

/// `testSessionWindows`
#[test]
fn session_windows() {
    let mut job = job(Window::Session { gap: 3000 }, |_| {});
    push(
        &mut job,
        "in",
        0,
        &[("key2", 1, 0), ("key2", 2, 1000), ("key2", 3, 2500), ("key1", 1, 10), ("key1", 2, 1000)],
        0,
    );
    let mut job = again(job);
    let more = [("key1", 3, 2500), ("key2", 4, 5501), ("key2", 5, 6000), ("key2", 5, 6000), ("key2", 6, 6050)];
    push(&mut job, "in", 0, &more, 0);
    assert_eq!(watermark(&mut job, 12_000), ["key1 6 10..5500", "key2 20 5501..9050", "key2 6 0..5500"]);
    push(&mut job, "in", 0, &[("key2", 10, 15_000)], 0);
    assert_eq!(watermark(&mut job, 17_999), ["key2 10 15000..18000"]);
}

/// `testLateness`: tumbling windows of 2 s that purge as they fire, 500 ms of lateness; the late row goes aside.
#[test]
fn lateness() {
    let mut job = job(Window::Tumbling { size: 2000, offset: 0, zone: None }, |spec| {
        spec.lateness = 500;
        spec.output = Output::Discarding;
        spec.late = Some("late".into());
    });
    push(&mut job, "in", 0, &[("key2", 1, 500)], 0);
    assert_eq!(watermark(&mut job, 1500), NOTHING);
    push(&mut job, "in", 0, &[("key2", 1, 1300)], 0);
    assert_eq!(watermark(&mut job, 2300), ["key2 2 0..2000"]);
    // Not dropped: the window's end is 1999, and 1999 + 500 is after 2300.
    push(&mut job, "in", 0, &[("key2", 1, 1997)], 0);
    assert_eq!(watermark(&mut job, 6000), ["key2 1 0..2000"]);
    // Dropped.
    push(&mut job, "in", 0, &[("key2", 1, 1998)], 0);
    assert_eq!(given(&mut job, "late"), ["1998 key2 1"]);
    assert_eq!(watermark(&mut job, 7000), NOTHING);
    assert_eq!(job.metrics()[1].late, 1);
}

/// `testDropDueToLatenessTumbling`
#[test]
fn late_rows_of_tumbling_windows_are_dropped() {
    let mut job = job(Window::Tumbling { size: 2000, offset: 0, zone: None }, |_| {});
    push(&mut job, "in", 0, &[("key2", 1, 1000)], 0);
    assert_eq!(watermark(&mut job, 1985), NOTHING);
    // Not late: the window is open.
    push(&mut job, "in", 0, &[("key2", 1, 1980)], 0);
    assert_eq!(watermark(&mut job, 1999), ["key2 2 0..2000"]);
    push(&mut job, "in", 0, &[("key2", 1, 1998)], 0);
    push(&mut job, "in", 0, &[("key2", 1, 2001)], 0);
    assert_eq!(watermark(&mut job, 2999), NOTHING);
    assert_eq!(watermark(&mut job, 3999), ["key2 1 2000..4000"]);
}

/// `testDropDueToLatenessSliding`
#[test]
fn late_rows_of_sliding_windows_go_to_those_that_are_open() {
    let mut job = job(Window::Sliding { size: 3000, slide: 1000, offset: 0, zone: None }, |_| {});
    push(&mut job, "in", 0, &[("key2", 1, 1000)], 0);
    assert_eq!(watermark(&mut job, 1999), ["key2 1 -1000..2000"]);
    push(&mut job, "in", 0, &[("key2", 1, 2000)], 0);
    assert_eq!(watermark(&mut job, 3000), ["key2 2 0..3000"]);
    // Those of 2400 are late for the first of their three windows only.
    let more = [("key1", 1, 3001), ("key2", 1, 2400), ("key2", 1, 2400), ("key1", 1, 3001), ("key2", 1, 3900)];
    push(&mut job, "in", 0, &more, 0);
    assert_eq!(
        watermark(&mut job, 6000),
        [
            "key1 2 1000..4000",
            "key1 2 2000..5000",
            "key1 2 3000..6000",
            "key2 1 3000..6000",
            "key2 4 2000..5000",
            "key2 5 1000..4000",
        ]
    );
    push(&mut job, "in", 0, &[("key1", 1, 3001)], 0);
    assert_eq!(watermark(&mut job, 25_000), NOTHING);
}

/// `testDropDueToLatenessSessionZeroLatenessPurgingTrigger`: a late row joins a session that is still open, and is dropped beside one that is over.
#[test]
fn late_rows_of_sessions() {
    let mut job = job(Window::Session { gap: 3000 }, |_| {});
    push(&mut job, "in", 0, &[("key2", 1, 1000)], 0);
    assert_eq!(watermark(&mut job, 1999), NOTHING);
    push(&mut job, "in", 0, &[("key2", 1, 2000)], 0);
    assert_eq!(watermark(&mut job, 4998), NOTHING);
    // Behind the watermark, and in a session that is open.
    push(&mut job, "in", 0, &[("key2", 1, 4500)], 0);
    push(&mut job, "in", 0, &[("key2", 1, 8500)], 0);
    assert_eq!(watermark(&mut job, 7400), NOTHING);
    // Joins the two.
    push(&mut job, "in", 0, &[("key2", 1, 7000)], 0);
    assert_eq!(watermark(&mut job, 11_501), ["key2 5 1000..11500"]);
    push(&mut job, "in", 0, &[("key2", 1, 11_600)], 0);
    assert_eq!(watermark(&mut job, 14_600), ["key2 1 11600..14600"]);
    // What is late is neither kept nor joined.
    push(&mut job, "in", 0, &[("key2", 1, 10_000), ("key2", 1, 10_100)], 0);
    push(&mut job, "in", 0, &[("key2", 1, 14_500)], 0);
    assert_eq!(watermark(&mut job, 20_000), ["key2 1 14500..17500"]);
    assert_eq!(job.metrics()[1].late, 2);
}

/// Counts that purge, on the rows of `testCountTrigger`.
#[test]
fn count_windows() {
    let mut job = {
        let spec = WindowAggregate {
            trigger: Trigger::default(),
            ..windowed(
                Window::Count { size: 4, slide: 4 },
                vec![aggregate("sum", AggregateFunction::Sum, Some("value"))],
            )
        };
        Job::new(plan(NEVER, Operator::Aggregate(spec)), Options::default()).unwrap()
    };
    push(&mut job, "in", 0, &OUT_OF_ORDER, 0);
    assert_eq!(given(&mut job, "out"), ["key2 4"]);
    let mut job = again(job);
    push(&mut job, "in", 0, &[("key1", 1, 10_999), ("key2", 1, 1000)], 0);
    assert_eq!(given(&mut job, "out"), ["key1 4"]);
    push(&mut job, "in", 0, &[("key2", 5, 1000), ("key2", 1, 1000), ("key2", 1, 1000)], 0);
    assert_eq!(given(&mut job, "out"), ["key2 8"]);
}

/// Windows of the last 4, every 2 rows, as `EvictingWindowOperatorTest` has them.
#[test]
fn sliding_count_windows() {
    let spec =
        windowed(Window::Count { size: 4, slide: 2 }, vec![aggregate("sum", AggregateFunction::Sum, Some("value"))]);
    let mut job = Job::new(plan(NEVER, Operator::Aggregate(spec)), Options::default()).unwrap();
    push(&mut job, "in", 0, &OUT_OF_ORDER, 0);
    assert_eq!(given(&mut job, "out"), ["key2 2", "key1 2", "key2 4"]);
    let mut job = again(job);
    push(&mut job, "in", 0, &[("key1", 1, 10_999), ("key2", 1, 1000), ("key2", 1, 1000)], 0);
    assert_eq!(given(&mut job, "out"), ["key1 4", "key2 4"]);
}

/// `testProcessingTimeTumblingWindows`: 3 s of the clock, which jumps back once more here.
#[test]
fn processing_time_windows() {
    let spec = WindowAggregate {
        trigger: Trigger { processing_time: true, ..Trigger::default() },
        ..windowed(
            Window::Tumbling { size: 3000, offset: 0, zone: None },
            vec![aggregate("sum", AggregateFunction::Sum, Some("value"))],
        )
    };
    let mut job = Job::new(plan(NEVER, Operator::Aggregate(spec)), Options::default()).unwrap();
    push(&mut job, "in", 0, &[("key2", 1, 7000), ("key2", 1, 7000), ("key1", 1, 7000), ("key1", 1, 7000)], 3);
    assert_eq!(job.next_advance(), Some(3000));
    job.advance(5000).unwrap();
    assert_eq!(told(&mut job), ["key1 2 0..3000", "key2 2 0..3000"]);
    push(&mut job, "in", 0, &[("key1", 1, 7000), ("key1", 1, 7000), ("key1", 1, 7000)], 5000);
    // A clock that jumps back does not.
    job.advance(1000).unwrap();
    assert_eq!(told(&mut job), NOTHING);
    job.advance(7000).unwrap();
    assert_eq!(told(&mut job), ["key1 3 3000..6000"]);
}

/// Early and late firings, in the three ways.
#[test]
fn firings_accumulate_discard_or_retract() {
    let run = |output: Output| {
        let mut job = job(Window::Tumbling { size: 1000, offset: 0, zone: None }, |spec| {
            spec.output = output;
            spec.lateness = 500;
            spec.trigger.early = Some(Pace::Count(2));
        });
        push(&mut job, "in", 0, &[("k", 1, 1), ("k", 2, 2), ("k", 4, 3)], 0);
        let mut all = vec![told(&mut job)];
        let mut job = again(job);
        all.push(watermark(&mut job, 999));
        push(&mut job, "in", 0, &[("k", 8, 4)], 0);
        all.push(told(&mut job));
        all.push(watermark(&mut job, 1499));
        push(&mut job, "in", 0, &[("k", 16, 5)], 0);
        all.push(told(&mut job));
        all.concat().join(", ").replace(" 0..1000", "")
    };
    assert_eq!(run(Output::Accumulating), "k 3, k 7, k 15");
    assert_eq!(run(Output::Discarding), "k 3, k 4, k 8");
    assert_eq!(run(Output::Retracting), "k 3, -k 3, k 7, -k 7, k 15");
}
