//! Rows that are near to ones before, against the plain definition: all rows by time, each compared with all that were told, in `f64`.

use super::*;

const DELAY: i64 = 15;

/// An event: its number, key, time and vector.
type Seen = (i64, &'static str, i64, Option<Vec<f32>>);

fn spec(random: &mut Random, metric: Nearness, tells: bool) -> Dedupe {
    let radius = match metric {
        // Some are at these distances exactly.
        Nearness::L2 => *random.pick(&[0.0, 1.0, 2.0f64.sqrt(), 2.5]),
        Nearness::Cosine => *random.pick(&[0.0, 0.05, 0.5, 1.0]),
    };
    let duplicates = Duplicates { of: "id".into(), name: "same".into(), distance: Some("far".into()) };
    Dedupe {
        keys: if random.below(2) == 0 { vec![] } else { vec!["key".into()] },
        vector: "v".into(),
        metric,
        radius,
        within: random.below(60) as i64,
        duplicates: tells.then_some(duplicates),
    }
}

fn dedupes(dim: u32, delay: i64, dedupe: Dedupe) -> Plan {
    let fields = vec![
        SourceField::new("id", DataType::Int64),
        SourceField::new("key", TEXT),
        SourceField::new("v", DataType::FloatVector { dim }).nullable(),
        SourceField::new("at", DataType::Timestamp),
    ];
    let watermark = Watermark { delay, idle: None };
    let source = Operator::Source(Source { fields, time: Some("at".into()), watermark, changes: false });
    let nodes = vec![
        node("in", &[], source),
        node("work", &["in"], Operator::Dedupe(dedupe)),
        node("out", &["work"], Operator::Sink(Sink::default())),
    ];
    Plan { nodes }
}

fn row((id, key, at, vector): &Seen) -> Row {
    let vector = vector.clone().map_or(Value::Null, Value::Vector);
    Row::from([
        ("id".into(), Value::Int(*id)),
        ("key".into(), (*key).into()),
        ("v".into(), vector),
        ("at".into(), Value::Int(*at)),
    ])
}

/// Vectors of few small numbers, so that many are equal, or at the radius exactly; or long ones, some of them almost another.
fn events(random: &mut Random, dim: u32) -> Vec<(i64, Seen)> {
    let mut at = 0;
    let mut all: Vec<(i64, Seen)> = vec![];
    for id in 0..random.below(60) as i64 {
        at += 1 + random.below(4) as i64;
        let before = all.iter().rev().find_map(|(_, (.., vector))| vector.clone());
        let vector: Vec<f32> = match before {
            Some(mut vector) if dim > 8 && random.below(2) == 0 => {
                let scale = (random.below(1_000) as f32 / 1_000.0).powi(2);
                vector.iter_mut().for_each(|number| *number += scale * (random.below(2_001) as f32 / 1_000.0 - 1.0));
                vector
            }
            _ if dim > 8 => (0..dim).map(|_| random.below(2_001) as f32 / 1_000.0 - 1.0).collect(),
            _ => (0..dim).map(|_| random.below(3) as f32 - 1.0).collect(),
        };
        // Neither size is one for single precision.
        let scale = *random.pick(&[1.0, 1.0, 1.0, 1e-30, 1e25]);
        let vector = if dim > 8 { vector } else { vector.iter().map(|number| number * scale).collect() };
        all.push((at, (id, *random.pick(&["a", "b"]), at, (random.below(20) > 0).then_some(vector))));
    }
    all
}

fn far(metric: Nearness, left: &[f32], right: &[f32]) -> Option<f64> {
    let dot = |left: &[f32], right: &[f32]| -> f64 {
        left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
    };
    match metric {
        Nearness::L2 => {
            let squares = left.iter().zip(right).map(|(left, right)| (f64::from(*left) - f64::from(*right)).powi(2));
            Some(squares.sum::<f64>().sqrt())
        }
        Nearness::Cosine => {
            let norms = (dot(left, left) * dot(right, right)).sqrt();
            (norms > 0.0).then(|| 1.0 - (dot(left, right) / norms).clamp(-1.0, 1.0))
        }
    }
}

fn naive(dedupe: &Dedupe, events: &[(i64, Seen)]) -> Vec<String> {
    let mut told: Vec<&Seen> = vec![];
    let mut texts = vec![];
    for (_, event) in events {
        let (_, key, at, vector) = event;
        let mut best: Option<(i64, f64)> = None;
        for (id, other_key, other_at, other) in &told {
            let (Some(vector), Some(other)) = (vector, other) else { continue };
            if (!dedupe.keys.is_empty() && key != other_key) || at - other_at > dedupe.within {
                continue;
            }
            let Some(far) = far(dedupe.metric, vector, other).filter(|far| *far <= dedupe.radius) else { continue };
            if best.is_none_or(|(_, least)| far < least) {
                best = Some((*id, far));
            }
        }
        if best.is_none() {
            told.push(event);
        }
        let mut row = row(event);
        if dedupe.duplicates.is_some() {
            row.insert("same".into(), best.map_or(Value::Null, |(id, _)| Value::Int(id)));
            row.insert("far".into(), best.map_or(Value::Null, |(_, far)| Value::Double(far)));
        } else if best.is_some() {
            continue;
        }
        texts.push(shown(&row, false));
    }
    texts
}

struct Telling {
    jitter: i64,
    delay: i64,
    batch: u64,
    partitions: u64,
    checkpoints: bool,
}

fn run(dim: u32, dedupe: &Dedupe, events: &[(i64, Seen)], telling: &Telling, random: &mut Random) -> Vec<String> {
    let mut job = Job::new(dedupes(dim, telling.delay, dedupe.clone()), Options::default()).unwrap();
    let shuffled = shuffled(events, telling.jitter, random);
    let mut rest = &shuffled[..];
    (0..telling.partitions).for_each(|partition| job.open("in", partition as u32, 0).unwrap());
    let mut told = vec![];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(1 + random.below(telling.batch) as usize));
        rest = later;
        let rows: Vec<Row> = now.iter().map(row).collect();
        let (batch, wrong) = job.relation("in").unwrap().batch(&rows);
        assert_eq!(wrong, []);
        job.push("in", random.below(telling.partitions) as u32, b"", &batch, None, 0).unwrap();
        told.extend(given(&mut job, "out"));
        if telling.checkpoints {
            job = again(job);
        }
    }
    (0..telling.partitions).for_each(|partition| job.end("in", partition as u32, 0).unwrap());
    told.extend(given(&mut job, "out"));
    told
}

fn of_seed(seed: u64) -> (Random, u32, Dedupe, Vec<(i64, Seen)>) {
    let mut random = Random::new(seed);
    let dim = if seed.is_multiple_of(4) { 96 } else { 1 + random.below(3) as u32 };
    let metric = if random.below(2) == 0 { Nearness::Cosine } else { Nearness::L2 };
    let tells = random.below(2) == 0;
    let dedupe = spec(&mut random, metric, tells);
    let events = events(&mut random, dim);
    (random, dim, dedupe, events)
}

#[test]
fn what_is_near_is_found_exactly_however_a_stream_is_told() {
    let tellings = [
        Telling { jitter: 0, delay: 0, batch: 1, partitions: 1, checkpoints: false },
        Telling { jitter: DELAY, delay: DELAY, batch: 1, partitions: 1, checkpoints: true },
        Telling { jitter: DELAY, delay: DELAY, batch: 20, partitions: 3, checkpoints: false },
    ];
    let mut duplicates = 0;
    for seed in 0..2_000 {
        let (mut random, dim, dedupe, events) = of_seed(seed);
        let expected = naive(&dedupe, &events);
        if dedupe.duplicates.is_none() {
            duplicates += events.len() - expected.len();
        }
        for (number, telling) in tellings.iter().enumerate() {
            let told = run(dim, &dedupe, &events, telling, &mut random);
            assert_eq!(told, expected, "seed {seed}, telling {number}, {dedupe:?}");
        }
    }
    assert!(duplicates > 2_000, "only {duplicates} were near to another: nothing was tried");
}

/// What the test above would notice: rows that come later than the watermark says are left out, and counted.
#[test]
fn rows_that_are_late_are_noticed() {
    let broken = Telling { jitter: DELAY, delay: 0, batch: 1, partitions: 1, checkpoints: false };
    let noticed = (0..100).filter(|seed| {
        let (mut random, dim, dedupe, events) = of_seed(*seed);
        run(dim, &dedupe, &events, &broken, &mut random) != naive(&dedupe, &events)
    });
    assert!(noticed.count() > 50);
}

fn plain() -> Dedupe {
    let vector = "v".to_owned();
    Dedupe { keys: vec![], vector, metric: Nearness::L2, radius: 1.0, within: 10, duplicates: None }
}

fn push_all(job: &mut Job, events: &[Seen]) -> crate::base::Result<()> {
    let rows: Vec<Row> = events.iter().map(row).collect();
    let (batch, wrong) = job.relation("in").unwrap().batch(&rows);
    assert_eq!(wrong, []);
    job.push("in", 0, b"", &batch, None, 0)
}

#[test]
fn rows_of_one_time_are_told_alike_in_any_order_and_forgotten_when_they_are_old() {
    let one = |id: i64, at: i64, number: f32| -> Seen { (id, "a", at, Some(vec![number])) };
    let mut told = vec![];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut job = Job::new(dedupes(1, 0, plain()), Options::default()).unwrap();
        let same = [one(1, 5, 0.0), one(2, 5, 1.0), one(2, 5, 1.0)];
        for at in order {
            push_all(&mut job, &same[at..=at]).unwrap();
        }
        push_all(&mut job, &[one(3, 15, 0.5), one(4, 16, 0.5)]).unwrap();
        // The first is 11 away from the last, and no longer compared with; what is kept is what may still be.
        job.end("in", 0, 0).unwrap();
        told.push(given(&mut job, "out"));
        assert_eq!(job.metrics()[1].entries, 0, "nothing can come any more");
    }
    assert_eq!(told[0], ["5 1 a [0.0]", "16 4 a [0.5]"]);
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
}

#[test]
fn more_rows_than_may_be_kept_are_refused_or_end_the_job() {
    let far = |id: i64| -> Seen { (id, "a", id, Some(vec![10.0 * id as f32])) };
    let run = |overflow| {
        let mut job =
            Job::new(dedupes(1, 0, plain()), Options { entries_max: 4, overflow, ..Options::default() }).unwrap();
        let result = (0..8).try_for_each(|id| push_all(&mut job, &[far(id)]));
        (job, result)
    };
    let (mut job, result) = run(Overflow::Refuse);
    result.unwrap();
    let dead = job.poll().dead;
    assert_eq!((dead.len(), job.metrics()[1].entries), (4, 4));
    assert_eq!(dead[0].reason, "node \"work\" keeps 4 keys or rows, the most that it may");
    assert_eq!(run(Overflow::Fail).1.unwrap_err().kind(), crate::base::ErrorKind::StorageFull);
}

#[test]
fn a_state_that_is_torn_is_read_or_refused() {
    let plan = dedupes(2, 5, Dedupe { keys: vec!["key".into()], ..plain() });
    let mut job = Job::new(plan.clone(), Options::default()).unwrap();
    let at = |id: i64| -> Seen { (id, "a", id, Some(vec![id as f32, 1.0])) };
    push_all(&mut job, &(0..9).map(|id| at(3 * id)).collect::<Vec<_>>()).unwrap();
    assert!(!job.poll().rows.is_empty());
    let bytes = job.checkpoint(1).unwrap();
    for at in 0..bytes.len() - 4 {
        let mut torn = bytes.clone();
        torn[at] ^= 1 << (at % 8);
        let end = torn.len() - 4;
        let sum = crate::base::codec::checksum(&torn[..end]);
        torn[end..].copy_from_slice(&sum.to_le_bytes());
        if let Ok((mut job, _)) = Job::restore(plan.clone(), Options::default(), &torn) {
            // Then it goes on, or says what is wrong.
            let _ = job.end("in", 0, 0);
        }
    }
}

#[test]
fn what_cannot_be_is_named() {
    let wrong = |dedupe: Dedupe| dedupes(2, 0, dedupe).check().unwrap_err().to_string();
    let duplicates = |of: &str| Some(Duplicates { of: of.into(), name: "same".into(), distance: None });
    for (dedupe, part) in [
        (Dedupe { vector: "id".into(), ..plain() }, "`id` is int64, expected a float_vector"),
        (Dedupe { vector: "x".into(), ..plain() }, "there is no field `x`"),
        (Dedupe { radius: -1.0, ..plain() }, "radius is -1, expected 0"),
        (Dedupe { radius: f64::NAN, ..plain() }, "radius is NaN, expected 0"),
        (Dedupe { radius: 2.5, metric: Nearness::Cosine, ..plain() }, "radius is 2.5, expected 0 to 2.0"),
        (Dedupe { within: -1, ..plain() }, "within is -1 microseconds, expected 0"),
        (Dedupe { keys: vec!["v".into()], ..plain() }, "the key `v` is float_vector"),
        (Dedupe { duplicates: duplicates("v"), ..plain() }, "`v` is float_vector, expected a scalar"),
    ] {
        let message = wrong(dedupe);
        assert!(message.contains(part) && message.contains("work"), "{message}");
    }
    let mut plan = dedupes(2, 0, Dedupe { duplicates: duplicates("id"), ..plain() });
    assert!(
        plan.explain().unwrap().contains("dedupe v within l2 1 for 10 µs, same = id of the nearest"),
        "{}",
        plan.explain().unwrap()
    );
    let Operator::Source(source) = &mut plan.nodes[0].operator else { panic!("a source") };
    source.time = None;
    assert!(plan.check().unwrap_err().to_string().contains("no event time"));
}
