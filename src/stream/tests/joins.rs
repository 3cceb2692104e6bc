//! Joins, distinct rows and first rows of random streams against their naive definition.

use super::*;

const KEYS: [&str; 3] = ["a", "b", "c"];
const DELAY: i64 = 10;

fn events(random: &mut Random) -> Vec<(i64, Event)> {
    let mut at = 0;
    (0..random.below(30))
        .map(|_| {
            at += 1 + random.below(4) as i64;
            (at, (*random.pick(&KEYS), random.below(9) as i64, at))
        })
        .collect()
}

fn text(value: Option<i64>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

/// Left value, right value, in the order of the fields' names.
fn line(left: Option<&Event>, right: Option<&Event>, bounds: &str) -> String {
    let at = |event: Option<&Event>| text(event.map(|event| event.2));
    let value = |event: Option<&Event>| text(event.map(|event| event.1));
    let key = |event: Option<&Event>| event.map_or("null", |event| event.0).to_owned();
    let (l, r) = (left, right);
    format!("{} {} {} {} {} {}{bounds}", at(l), key(l), at(r), key(r), value(r), value(l))
}

fn naive(left: &[(i64, Event)], right: &[(i64, Event)], kind: JoinKind, scope: JoinScope) -> Vec<String> {
    let size = match scope {
        JoinScope::Window(Window::Tumbling { size, .. }) => Some(size),
        _ => None,
    };
    let fits = |l: &Event, r: &Event| {
        let near = match scope {
            JoinScope::Interval { lower, upper } => (lower..=upper).contains(&(r.2 - l.2)),
            JoinScope::Unbounded => true,
            JoinScope::Window(_) => size.is_some_and(|size| l.2.div_euclid(size) == r.2.div_euclid(size)),
        };
        near && l.0 == r.0 && l.1 <= r.1
    };
    let bounds = |at: i64| {
        size.map_or(String::new(), |size| {
            let start = at.div_euclid(size) * size;
            format!(" {} {start}", start + size)
        })
    };
    let mut told = vec![];
    for (at, l) in left {
        let partners: Vec<&Event> = right.iter().map(|(_, r)| r).filter(|r| fits(l, r)).collect();
        match kind {
            JoinKind::Semi | JoinKind::Anti => {
                if partners.is_empty() == (kind == JoinKind::Anti) {
                    told.push(format!("{} {} {}{}", l.2, l.0, l.1, bounds(*at)));
                }
            }
            _ => told.extend(partners.iter().map(|r| line(Some(l), Some(r), &bounds(*at)))),
        }
        if partners.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full) {
            told.push(line(Some(l), None, &bounds(*at)));
        }
    }
    for (at, r) in right {
        if matches!(kind, JoinKind::Right | JoinKind::Full) && !left.iter().any(|(_, l)| fits(l, r)) {
            told.push(line(None, Some(r), &bounds(*at)));
        }
    }
    told.sort();
    told
}

fn run(
    left: &[(i64, Event)],
    right: &[(i64, Event)],
    join: &Join,
    batch: u64,
    checkpoints: bool,
    random: &mut Random,
) -> Vec<String> {
    let nodes = vec![
        source("left", DELAY),
        source("right", DELAY),
        node("join", &["left", "right"], Operator::Join(join.clone())),
        node("out", &["join"], Operator::Sink(Sink::default())),
    ];
    let mut job = Job::new(Plan { nodes }, Options::default()).unwrap();
    ["left", "right"].iter().for_each(|source| job.open(source, 0, 0).unwrap());
    let mut rest = [shuffled(left, DELAY, random), shuffled(right, DELAY, random)];
    let mut told = vec![];
    while rest.iter().any(|rest| !rest.is_empty()) {
        let side = random.below(2) as usize;
        let take = rest[side].len().min(1 + random.below(batch) as usize);
        let now: Vec<Event> = rest[side].drain(..take).collect();
        push(&mut job, ["left", "right"][side], 0, &now, 0);
        told.extend(given(&mut job, "out"));
        if checkpoints {
            job = again(job);
        }
    }
    ["left", "right"].iter().for_each(|source| job.end(source, 0, 0).unwrap());
    told.extend(given(&mut job, "out"));
    assert_eq!(job.metrics()[2].late, 0);
    told.sort();
    told
}

#[test]
fn joins_of_random_streams() {
    for seed in 0..2_000 {
        let mut random = Random::new(seed);
        let (left, right) = (events(&mut random), events(&mut random));
        let kinds = [JoinKind::Inner, JoinKind::Left, JoinKind::Right, JoinKind::Full, JoinKind::Semi, JoinKind::Anti];
        let (scope, kind) = match random.below(5) {
            0 => (JoinScope::Unbounded, JoinKind::Inner),
            1 | 2 => (
                JoinScope::Window(Window::Tumbling { size: 1 + random.below(12) as i64, offset: 0, zone: None }),
                *random.pick(&kinds),
            ),
            _ => {
                let lower = random.below(20) as i64 - 10;
                (JoinScope::Interval { lower, upper: lower + random.below(10) as i64 }, *random.pick(&kinds))
            }
        };
        let keys = vec![("key".to_owned(), "key".to_owned())];
        let join = Join { kind, keys, scope, condition: Some("value <= right_value".into()) };
        let expected = naive(&left, &right, kind, scope);
        for (batch, checkpoints) in [(1, true), (9, false)] {
            let found = run(&left, &right, &join, batch, checkpoints, &mut random);
            assert_eq!(found, expected, "seed {seed}, {kind:?}, {scope:?}");
        }
    }
}

#[test]
fn the_first_rows_of_windows_and_of_all_time() {
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let events = events(&mut random);
        let limit = 1 + random.below(3) as usize;
        let window = Window::Tumbling { size: 15, offset: 0, zone: None };
        let order = vec![(Expression::from("value"), true), (Expression::from("at"), false)];
        let top = |keys: &[&str], rank: Option<&str>| {
            let keys = keys.iter().map(|&key| key.to_owned()).collect();
            Operator::Top(Top { keys, order: order.clone(), limit: limit as u32, rank: rank.map(str::to_owned) })
        };
        let nodes = vec![
            source("in", DELAY),
            node("windows", &["in"], Operator::Window { window, processing_time: false }),
            node("best", &["windows"], top(&["window_end", "key"], Some("zplace"))),
            node("out", &["best"], Operator::Sink(Sink::default())),
            node("ever", &["in"], top(&["key"], None)),
            node("all", &["ever"], Operator::Sink(Sink { collection: None, keys: vec!["at".into()] })),
            node("seen", &["in"], Operator::Distinct { keys: vec!["key".into(), "value".into()] }),
            node("once", &["seen"], Operator::Sink(Sink::default())),
        ];
        let mut job = Job::new(Plan { nodes }, Options::default()).unwrap();
        let (mut best, mut ever, mut once) = (vec![], std::collections::BTreeSet::new(), vec![]);
        let mut take = |job: &mut Job| {
            for (sink, rows) in job.poll().rows {
                for (at, row) in rows.to_rows(&Relation::default()).iter().enumerate() {
                    let text = shown(row, false);
                    match &*sink {
                        "out" => best.push(text),
                        "all" if rows.is_retraction(at) => assert!(ever.remove(&text), "{text}"),
                        "all" => assert!(ever.insert(text)),
                        _ => once.push(text),
                    }
                }
            }
        };
        for event in shuffled(&events, DELAY, &mut random) {
            push(&mut job, "in", 0, &[event], 0);
            take(&mut job);
            job = again(job);
        }
        job.end("in", 0, 0).unwrap();
        take(&mut job);
        let mut expected = vec![];
        let mut groups: BTreeMap<(i64, &str), Vec<&Event>> = BTreeMap::new();
        let mut keys: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
        for (at, event) in &events {
            groups.entry((at.div_euclid(15) * 15, event.0)).or_default().push(event);
            keys.entry(event.0).or_default().push(event);
        }
        for ((start, key), mut rows) in groups {
            rows.sort_by_key(|row| (-row.1, row.2));
            for (place, row) in rows.iter().take(limit).enumerate() {
                expected.push(format!("{} {key} {} {} {start} {}", row.2, row.1, start + 15, place + 1));
            }
        }
        best.sort();
        expected.sort();
        assert_eq!(best, expected, "seed {seed}");
        let mut all = std::collections::BTreeSet::new();
        for rows in keys.values_mut() {
            rows.sort_by_key(|row| (-row.1, row.2));
            all.extend(rows.iter().take(limit).map(|row| format!("{} {} {}", row.2, row.0, row.1)));
        }
        assert_eq!(ever, all, "seed {seed}");
        let mut pairs: Vec<_> = events.iter().map(|(_, event)| (event.0, event.1)).collect();
        pairs.sort_unstable();
        pairs.dedup();
        assert_eq!(once.len(), pairs.len(), "seed {seed}");
    }
}
