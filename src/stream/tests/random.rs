//! Windows of random streams against their naive definition, and the same streams told otherwise: shuffled within the watermark's delay, in
//! other batches and partitions, through checkpoints.

use super::*;

const KEYS: [&str; 3] = ["a", "b", "c"];
const DELAY: i64 = 12;

fn windows(random: &mut Random) -> Window {
    let offset = random.below(9) as i64 - 4;
    match random.below(5) {
        0 => Window::Tumbling { size: 1 + random.below(20) as i64, offset, zone: None },
        1 => {
            Window::Sliding { size: 1 + random.below(20) as i64, slide: 1 + random.below(9) as i64, offset, zone: None }
        }
        2 => {
            let step = 1 + random.below(5) as i64;
            Window::Cumulate { size: step * (1 + random.below(5) as i64), step, offset, zone: None }
        }
        3 => Window::Session { gap: 1 + random.below(9) as i64 },
        _ => Window::Global,
    }
}

/// Events of different times, by these.
fn events(random: &mut Random) -> Vec<(i64, Event)> {
    let mut at = random.below(50) as i64 - 25;
    (0..random.below(60))
        .map(|_| {
            at += 1 + random.below(4) as i64;
            (at, (*random.pick(&KEYS), random.below(9) as i64 - 4, at))
        })
        .collect()
}

/// Which rows each window has, by looking at every window there may be.
fn panes<'e>(window: Window, events: &'e [(i64, Event)]) -> Panes<'e> {
    let mut panes = Panes::new();
    let mut enumerate = |start: i64, end: i64| {
        for (at, event) in events.iter().filter(|(at, _)| (start..end).contains(at)) {
            panes.entry((event.0, start, end)).or_default().push(event);
            let _ = at;
        }
    };
    match window {
        Window::Tumbling { size, offset, .. } => {
            (-300..300).for_each(|n| enumerate(offset + n * size, offset + (n + 1) * size))
        }
        Window::Sliding { size, slide, offset, .. } => {
            (-300..300).for_each(|n| enumerate(offset + n * slide, offset + n * slide + size));
        }
        Window::Cumulate { size, step, offset, .. } => (-300..300).for_each(|n| {
            (1..=size / step).for_each(|steps| enumerate(offset + n * size, offset + n * size + steps * step));
        }),
        Window::Global => enumerate(i64::MIN, i64::MAX),
        _ => {
            let Window::Session { gap } = window else { unreachable!() };
            for key in KEYS {
                let mut session: Vec<&Event> = vec![];
                let mut end = |session: &mut Vec<&'e Event>| {
                    if let (Some(first), Some(last)) = (session.first(), session.last()) {
                        panes.insert((key, first.2, last.2 + gap), std::mem::take(session));
                    }
                };
                for (at, event) in events.iter().filter(|(_, event)| event.0 == key) {
                    if session.last().is_some_and(|last| at - last.2 > gap) {
                        end(&mut session);
                    }
                    session.push(event);
                }
                end(&mut session);
            }
        }
    }
    panes
}

fn functions() -> Vec<Aggregate> {
    use AggregateFunction as F;
    vec![
        aggregate("a0", F::Count, None),
        aggregate("a1", F::Sum, Some("value")),
        aggregate("a2", F::Min, Some("value")),
        aggregate("a3", F::Max, Some("value")),
        aggregate("a4", F::Avg, Some("value")),
        aggregate("a5", F::Variance { sample: false }, Some("value")),
        aggregate("a6", F::CountDistinct, Some("value")),
        aggregate("a7", F::ApproxCountDistinct, Some("value")),
        aggregate("a8", F::First, Some("value")),
        aggregate("a9", F::Last, Some("value")),
        aggregate("b0", F::Quantile(0.5), Some("value")),
        aggregate("b1", F::Top { limit: 2, ascending: false }, Some("value")),
        Aggregate { filter: Some("value > 0".into()), ..aggregate("b2", F::Sum, Some("value * 0.1")) },
    ]
}

fn naive(window: Window, events: &[(i64, Event)]) -> Vec<String> {
    let mut told: Vec<String> = panes(window, events)
        .into_iter()
        .map(|((key, start, end), rows)| {
            let values: Vec<i64> = rows.iter().map(|row| row.1).collect();
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let (count, sum) = (values.len() as f64, values.iter().sum::<i64>());
            let squares: i64 = values.iter().map(|value| value * value).sum();
            let variance = (values.len() as i64 * squares - sum * sum) as f64 / count / count;
            let mut different = sorted.clone();
            different.dedup();
            let middle = (sorted.len() - 1) as f64 / 2.0;
            let median = (sorted[middle.floor() as usize] + sorted[middle.ceil() as usize]) as f64 / 2.0;
            let top: Vec<i64> = sorted.iter().rev().take(2).copied().collect();
            let tenths: Vec<i64> = values.iter().copied().filter(|value| *value > 0).collect();
            // The sum of the doubles nearest to these tenths, exactly: thousandths of their last bits.
            let exact = tenths.iter().fold(crate::stream::exact::Exact::default(), |mut sum, value| {
                sum.add(*value as f64 * 0.1);
                sum
            });
            let bounds = if window == Window::Global { String::new() } else { format!(" {end} {start}") };
            let json = |value: f64| serde_json::to_string(&value).unwrap();
            let tenths = if tenths.is_empty() { "null".to_owned() } else { json(exact.value()) };
            format!(
                "{} {sum} {} {} {} {} {} {} {} {} {} {} {tenths} {key}{bounds}",
                values.len(),
                sorted[0],
                sorted[sorted.len() - 1],
                json(sum as f64 / count),
                json(variance),
                different.len(),
                different.len(),
                values[0],
                values[values.len() - 1],
                json(median),
                serde_json::to_string(&top).unwrap(),
            )
        })
        .collect();
    told.sort();
    told
}

/// How a stream is told.
struct Telling {
    jitter: i64,
    delay: i64,
    batch: u64,
    partitions: u64,
    checkpoints: bool,
}

fn run(window: Window, events: &[(i64, Event)], telling: &Telling, random: &mut Random) -> Vec<String> {
    let spec = windowed(window, functions());
    let mut job = Job::new(plan(telling.delay, Operator::Aggregate(spec)), Options::default()).unwrap();
    let mut rest = &shuffled(events, telling.jitter, random)[..];
    (0..telling.partitions).for_each(|partition| job.open("in", partition as u32, 0).unwrap());
    let mut told = vec![];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(1 + random.below(telling.batch) as usize));
        rest = later;
        push(&mut job, "in", random.below(telling.partitions) as u32, now, 0);
        told.extend(given(&mut job, "out"));
        if telling.checkpoints {
            job = again(job);
        }
    }
    (0..telling.partitions).for_each(|partition| job.end("in", partition as u32, 0).unwrap());
    told.extend(given(&mut job, "out"));
    told.sort();
    told
}

#[test]
fn every_telling_of_a_stream_comes_to_the_same() {
    let tellings = [
        Telling { jitter: 0, delay: 0, batch: 1, partitions: 1, checkpoints: false },
        Telling { jitter: DELAY, delay: DELAY, batch: 1, partitions: 1, checkpoints: true },
        Telling { jitter: DELAY, delay: DELAY, batch: 20, partitions: 3, checkpoints: false },
    ];
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let (window, events) = (windows(&mut random), events(&mut random));
        let expected = naive(window, &events);
        for (number, telling) in tellings.iter().enumerate() {
            assert_eq!(run(window, &events, telling, &mut random), expected, "seed {seed}, telling {number}, {window}");
        }
    }
}

/// What the test above would notice: rows that are later than the watermark says, whose windows lack them.
#[test]
fn rows_that_are_lost_are_noticed() {
    let broken = Telling { jitter: DELAY, delay: 0, batch: 1, partitions: 1, checkpoints: false };
    let noticed = (0..100).filter(|seed| {
        let mut random = Random::new(*seed);
        let (window, events) = (windows(&mut random), events(&mut random));
        run(window, &events, &broken, &mut random) != naive(window, &events)
    });
    assert!(noticed.count() > 50);
}
