use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::*;
use crate::base::Random;
use crate::model::{DataType, Field, Key, Row, Value};

fn spec(json: serde_json::Value) -> BusSpec {
    BusSpec::from_json(&json.to_string()).unwrap()
}

fn shapes(spec: &BusSpec) -> BTreeMap<String, Shape> {
    let fields = [Field::new("id", DataType::Int64), Field::new("page", DataType::Varchar { max_length: 100 })];
    spec.sources.keys().map(|name| (name.clone(), Shape::new(&fields, true).unwrap())).collect()
}

fn bus(spec: BusSpec) -> Bus {
    let mut bus = Bus::default();
    let shapes = shapes(&spec);
    bus.configure(spec, shapes, 0).unwrap();
    bus
}

fn event(source: &str, id: i64, page: &str) -> Event {
    let row = Row::from([("id".to_owned(), Value::Int(id)), ("page".to_owned(), page.into())]);
    Event {
        source: source.into(),
        kind: "insert".into(),
        key: Some(Key::Int(id)),
        at_ms: 0,
        row,
        before: None,
        replay: None,
    }
}

fn ids(call: &Call) -> Vec<i64> {
    let id = |(event, _): &(Arc<Event>, u32)| match event.row["id"] {
        Value::Int(id) => id,
        ref other => panic!("{other:?}"),
    };
    call.events.iter().map(id).collect()
}

fn there(_: &Target) -> bool {
    true
}

/// Makes the next call and has all of it done.
fn next(bus: &mut Bus, now_ms: u64) -> Option<(String, Vec<i64>)> {
    let call = bus.call(now_ms, &there)?;
    bus.finish(call.id, &call.handler, vec![Tried::Done; call.events.len()], now_ms, &mut || 0);
    Some((call.handler.to_string(), ids(&call)))
}

#[test]
fn wrong_members_are_named() {
    let handlers = json!({"a": {"function": "f"}});
    for (wrong, named) in [
        (json!({"sourcess": {}}), "sourcess"),
        (json!({"handlers": {"a": {"function": "f", "retry": {"attempts": "x"}}}}), "handlers.a.retry.attempts"),
        (json!({"handlers": {"a": {"function": "f", "retri": {}}}}), "handlers.a.retri"),
        (json!({"handlers": {"a": {"function": "f", "retry": {"attempts": 0}}}}), "handlers.a.retry.attempts"),
        (json!({"handlers": {"a": {"function": "f", "retry": {"delayMs": 9, "delayMsMax": 5}}}}), "delayMsMax"),
        (json!({"handlers": {"a": {}}}), "handlers.a: one of `function`"),
        (json!({"handlers": {"a": {"function": "f", "stream": "s"}}}), "got function and stream"),
        (json!({"handlers": {"a": {"function": "f", "queue": 0}}}), "handlers.a.queue"),
        (json!({"handlers": {"a": {"function": "f", "queue": 5, "batch": {"events": 6}}}}), "handlers.a.batch.events"),
        (json!({"handlers": {"a": {"function": "f", "ordered": true, "concurrency": 2}}}), "handlers.a.concurrency"),
        (json!({"handlers": {"a": {"function": "f", "timeoutMs": -1}}}), "handlers.a.timeoutMs"),
        (json!({"handlers": {"a": {"function": "f", "aggregate": {"values": {}}}}}), "handlers.a.aggregate.values"),
        (
            json!({"handlers": {"a": {"function": "f", "aggregate": {"values": {"n": {"function": "sum"}}}}}}),
            "handlers.a.aggregate.values.n.of",
        ),
        (json!({"handlers": {"a": {"function": "f", "otherwise": "g"}}}), "handlers.a.otherwise"),
        (json!({"handlers": {"a b": {"function": "f"}}}), "handlers.a b"),
        (json!({"sources": {"s": {"collection": "c", "stream": "s"}}}), "sources.s"),
        (json!({"sources": {"s": {"since": "now"}}}), "sources.s.since"),
        (json!({"sources": {"s": {"collection": "c", "batchSize": 0}}}), "sources.s.batchSize"),
        (json!({"handlers": handlers, "routes": [{"to": ["b"]}]}), "routes[0].to[0]: no handler \"b\"; there are: a"),
        (json!({"handlers": handlers, "routes": [{"to": []}]}), "routes[0].to"),
        (json!({"handlers": handlers, "routes": [{"from": ["x"], "to": ["a"]}]}), "routes[0].from[0]: no source"),
        (json!({"handlers": handlers, "routes": [{"to": ["a"], "priority": "high"}]}), "routes[0].priority"),
        (json!("x"), "the bus"),
    ] {
        let error = BusSpec::from_json(&wrong.to_string()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with("the bus: ") && error.message().contains(named), "{wrong}: {error}");
    }
    assert!(BusSpec::from_json("{} {}").is_err());
    // What needs the fields of a source.
    for (route, named) in [
        (json!({"filter": "colour >", "to": ["a"]}), "routes[0].filter (source \"s\")"),
        (json!({"keyPattern": "a\\", "to": ["a"]}), "routes[0].keyPattern"),
    ] {
        let wrong = spec(json!({"sources": {"s": {}}, "handlers": handlers, "routes": [route]}));
        let shapes = shapes(&wrong);
        let error = Bus::default().configure(wrong, shapes, 0).unwrap_err();
        assert!(error.message().contains(named), "{error}");
    }
}

#[test]
fn a_specification_is_read_as_it_was_written() {
    let given = spec(json!({
        "sources": {"notes": {"collection": "notes", "since": "full", "before": true}, "app": {}},
        "handlers": {"mail": {"function": "mail", "batch": {"events": 7}},
            "sums": {"stream": "sums", "aggregate": {"by": ["page"], "values": {"n": {"function": "count"}}}},
            "either": {"cases": [{"filter": "id > 5", "function": "big"}], "otherwise": "small"}},
        "routes": [{"from": ["notes"], "kinds": ["insert"], "keyPattern": "a%", "filter": "id > 1", "priority": 3, "to": ["mail"]}],
        "deadLetters": "dead",
    }));
    assert_eq!(BusSpec::from_json(&serde_json::to_string(&given).unwrap()).unwrap(), given);
}

#[test]
fn events_go_where_kinds_keys_filters_and_cases_say_and_to_a_handler_once() {
    let mut bus = bus(spec(json!({
        "sources": {"s": {}, "t": {}},
        "handlers": {"all": {"function": "all"}, "ones": {"function": "ones"}, "big": {"function": "big"},
            "either": {"cases": [{"filter": "id > 100", "function": "huge"}, {"filter": "id > 10", "function": "large"}]}},
        "routes": [
            {"to": ["all"]}, {"kinds": ["insert"], "to": ["all", "either"]},
            {"from": ["s"], "keyPattern": "1%", "to": ["ones"]},
            {"filter": "id > 10 and page == 'home'", "priority": 5, "to": ["big", "all"]},
        ],
    })));
    let published = bus.publish("s", vec![event("s", 1, "home"), event("s", 12, "home"), event("s", 200, "x")], 0);
    assert_eq!(published.unwrap(), [3, 4, 2]);
    let update = Event { kind: "update".into(), ..event("t", 13, "away") };
    assert_eq!(bus.publish("t", vec![update], 0).unwrap(), [1]);
    let mut told: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut targets = BTreeSet::new();
    while let Some(call) = bus.call(0, &there) {
        told.entry(call.handler.to_string()).or_default().extend(ids(&call));
        targets.insert((format!("{:?}", call.target), ids(&call)));
        bus.finish(call.id, &call.handler, vec![Tried::Done], 0, &mut || 0);
    }
    // The one of greater priority comes first.
    assert_eq!(told["all"], [12, 1, 200, 13]);
    assert_eq!((&told["ones"], &told["big"], &told["either"]), (&vec![1, 12], &vec![12], &vec![12, 200]));
    assert!(targets.contains(&("Function(\"large\")".to_owned(), vec![12])), "{targets:?}");
    assert!(targets.contains(&("Function(\"huge\")".to_owned(), vec![200])), "{targets:?}");
    assert!(bus.is_idle());
    let wrong = bus.publish("none", vec![], 0).unwrap_err();
    assert!(wrong.kind() == ErrorKind::NotFound && wrong.message().contains("s, t"), "{wrong}");
}

#[test]
fn batches_come_by_number_by_size_and_by_time() {
    let mut bus = bus(spec(json!({
        "sources": {"s": {}}, "handlers": {"a": {"function": "f", "batch": {"events": 3, "bytes": 1_000, "delayMs": 50}}},
        "routes": [{"to": ["a"]}],
    })));
    bus.publish("s", vec![event("s", 1, ""), event("s", 2, "")], 10).unwrap();
    assert_eq!((bus.call(59, &there), bus.due_ms(&there)), (None, Some(60)));
    assert_eq!(next(&mut bus, 60).unwrap().1, [1, 2]);
    bus.publish("s", (3..8).map(|id| event("s", id, "")).collect(), 70).unwrap();
    assert_eq!(next(&mut bus, 70).unwrap().1, [3, 4, 5]);
    assert_eq!((next(&mut bus, 70), bus.due_ms(&there)), (None, Some(120)));
    bus.publish("s", vec![event("s", 8, &"long ".repeat(200))], 80).unwrap();
    assert_eq!(next(&mut bus, 80).unwrap().1, [6, 7]);
    assert_eq!(next(&mut bus, 80).unwrap().1, [8]);
}

#[test]
fn an_aggregate_is_told_by_time_by_number_and_by_groups() {
    let mut bus = bus(spec(json!({
        "sources": {"s": {}},
        "handlers": {"a": {"function": "f", "aggregate": {"by": ["page"], "events": 5, "groups": 3, "delayMs": 50, "values": {
            "n": {"function": "count"}, "sum": {"function": "sum", "of": "id"}, "mean": {"function": "avg", "of": "id"},
            "least": {"function": "min", "of": "id"}, "most": {"function": "max", "of": "id"},
            "first": {"function": "first", "of": "id"}, "last": {"function": "last", "of": "id"}}}}},
        "routes": [{"to": ["a"]}],
    })));
    let told = |bus: &mut Bus, now_ms| -> Vec<String> {
        let Some(call) = bus.call(now_ms, &there) else { return vec![] };
        bus.finish(call.id, &call.handler, vec![Tried::Done; call.events.len()], now_ms, &mut || 0);
        call.events.iter().map(|(event, _)| serde_json::to_string(&event.row).unwrap()).collect()
    };
    bus.publish("s", vec![event("s", 3, "a"), event("s", 5, "b"), event("s", 1, "a")], 100).unwrap();
    assert_eq!((told(&mut bus, 149), bus.due_ms(&there)), (vec![], Some(150)));
    assert_eq!(
        told(&mut bus, 150),
        [
            r#"{"first":3,"last":1,"least":1,"mean":2.0,"most":3,"n":2,"page":"a","sum":4}"#,
            r#"{"first":5,"last":5,"least":5,"mean":5.0,"most":5,"n":1,"page":"b","sum":5}"#
        ]
    );
    bus.publish("s", vec![event("s", 1, "a"); 6], 200).unwrap();
    assert_eq!(told(&mut bus, 200).len(), 1, "by number");
    assert_eq!(bus.status()[0].gathered, 1);
    bus.publish("s", vec![event("s", 1, "b"), event("s", 1, "c")], 201).unwrap();
    assert_eq!(told(&mut bus, 201).len(), 3, "by groups");
    // What is no number is a letter, and disturbs nobody.
    let mut wrong = event("s", 1, "a");
    wrong.row.insert("id".to_owned(), "one".into());
    bus.offer("s", 0, vec![wrong, event("s", 2, "a")], Some(vec![1]), 300).unwrap();
    let letters = bus.letters(10);
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.contains("\"id\""), "{}", letters[0].reason);
    bus.stored(1);
    assert_eq!(bus.settled("s"), [], "the window is open");
    assert_eq!(told(&mut bus, 350).len(), 1);
    assert_eq!(bus.settled("s"), [(0, vec![1], 2)]);
}

#[test]
fn what_fails_is_tried_again_later_and_then_put_aside() {
    let handler = |ordered| {
        bus(spec(json!({
            "sources": {"s": {}}, "routes": [{"to": ["a"]}],
            "handlers": {"a": {"function": "f", "ordered": ordered, "retry": {"attempts": 3, "delayMs": 100, "delayMsMax": 150}}},
        })))
    };
    let mut one = handler(false);
    one.offer("s", 0, vec![event("s", 1, ""), event("s", 2, "")], Some(vec![7]), 0).unwrap();
    let call = one.call(0, &there).unwrap();
    one.finish(call.id, "a", vec![Tried::Failed("no".to_owned())], 0, &mut || 100);
    assert_eq!(next(&mut one, 0).unwrap().1, [2], "it is overtaken");
    assert_eq!((one.call(99, &there), one.due_ms(&there)), (None, Some(100)));
    // Nobody knows: that is no try.
    for _ in 0..5 {
        let call = one.call(1_000, &there).unwrap();
        assert_eq!(call.events[0].1, 2);
        one.finish(call.id, "a", vec![Tried::Unknown("away".to_owned())], 0, &mut || 0);
    }
    let call = one.call(1_000, &there).unwrap();
    one.fail(call.id, "a", "no answer", 1_000, &mut || 0);
    let call = one.call(2_000, &there).unwrap();
    assert_eq!(call.events[0].1, 3);
    one.finish(call.id, "a", vec![Tried::Failed("never".to_owned())], 2_000, &mut || 0);
    // A second answer counts no more.
    one.finish(call.id, "a", vec![Tried::Done], 2_000, &mut || 0);
    assert_eq!(one.settled("s"), []);
    let letters = one.letters(10);
    assert_eq!((letters.len(), letters[0].attempts, letters[0].reason.as_str()), (1, 3, "never"));
    one.stored(1);
    assert_eq!(one.settled("s"), [(0, vec![7], 2)]);
    let status = &one.status()[0];
    assert_eq!((status.events, status.handled, status.failures, status.retries, status.dead), (2, 1, 8, 7, 1));
    let mut ordered = handler(true);
    ordered.publish("s", vec![event("s", 1, ""), event("s", 2, "")], 0).unwrap();
    let call = ordered.call(0, &there).unwrap();
    ordered.finish(call.id, "a", vec![Tried::Failed("no".to_owned())], 0, &mut || 100);
    assert_eq!((next(&mut ordered, 99), ordered.due_ms(&there)), (None, Some(100)), "it holds up the other");
    assert_eq!(next(&mut ordered, 100).unwrap().1, [1]);
    assert_eq!(next(&mut ordered, 100).unwrap().1, [2]);
}

#[test]
fn who_is_not_there_is_not_called_and_does_not_keep_the_host_awake() {
    let mut bus = bus(spec(json!({
        "sources": {"s": {}}, "routes": [{"to": ["a"]}],
        "handlers": {"a": {"cases": [{"filter": "id == 1", "function": "absent"}], "otherwise": "there"}},
    })));
    bus.publish("s", vec![event("s", 1, ""), event("s", 2, "")], 0).unwrap();
    let is_there = |target: &Target| *target == Target::Function("there".to_owned());
    let call = bus.call(0, &is_there).unwrap();
    assert_eq!(ids(&call), [2]);
    bus.finish(call.id, "a", vec![Tried::Done], 0, &mut || 0);
    assert_eq!((bus.call(0, &is_there), bus.due_ms(&is_there), bus.due_ms(&there)), (None, None, Some(0)));
    assert_eq!(next(&mut bus, 0).unwrap().1, [1]);
}

#[test]
fn for_want_of_room_events_are_refused_or_dropped_and_sources_wait() {
    for (overflow, left) in [("refuse", vec![1, 2]), ("dropOldest", vec![2, 3]), ("dropNewest", vec![1, 2])] {
        let mut bus = bus(spec(json!({
            "sources": {"s": {}, "c": {"collection": "c"}}, "routes": [{"to": ["a"]}],
            "handlers": {"a": {"function": "f", "queue": 2, "overflow": overflow}},
        })));
        bus.publish("s", vec![event("s", 1, ""), event("s", 2, "")], 0).unwrap();
        assert!(!bus.has_room("c"));
        let third = bus.publish("s", vec![event("s", 3, "")], 0);
        assert_eq!(third.map_err(|error| error.kind()).err(), (overflow == "refuse").then_some(ErrorKind::Unavailable));
        assert_eq!(bus.status()[0].dropped, u64::from(overflow != "refuse"));
        let mut told = vec![];
        while let Some((_, ids)) = next(&mut bus, 0) {
            told.extend(ids);
        }
        assert_eq!(told, left, "{overflow}");
        // What a source has is never dropped for others.
        bus.offer("c", 0, vec![event("c", 4, ""), event("c", 5, "")], Some(vec![1]), 0).unwrap();
        drop(bus.publish("s", vec![event("s", 6, "")], 0));
        assert_eq!(next(&mut bus, 0).unwrap().1, [4], "{overflow}");
        assert_eq!(next(&mut bus, 0).unwrap().1, [5], "{overflow}");
        assert_eq!(next(&mut bus, 0), None, "{overflow}");
        let read = bus.publish("c", vec![], 0).unwrap_err();
        assert_eq!(read.kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn what_is_configured_meanwhile_loses_and_doubles_nothing() {
    let with = |handlers: serde_json::Value| {
        let to: Vec<&String> = handlers.as_object().unwrap().keys().collect();
        spec(json!({"sources": {"c": {"collection": "c"}}, "handlers": handlers, "routes": [{"to": to}]}))
    };
    let mut bus = bus(with(json!({"a": {"function": "f"}, "b": {"function": "g"}})));
    bus.offer("c", 0, vec![event("c", 1, ""), event("c", 2, "")], Some(vec![1]), 0).unwrap();
    let begun = bus.call(0, &there).unwrap();
    let changed = with(json!({"a": {"function": "h"}, "new": {"function": "n"}}));
    let shapes = shapes(&changed);
    bus.configure(changed, shapes, 0).unwrap();
    bus.finish(begun.id, &begun.handler, vec![Tried::Done], 0, &mut || 0);
    assert_eq!(bus.status().iter().filter(|one| one.is_ending).map(|one| one.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let mut told = BTreeMap::from([(format!("{} {:?}", begun.handler, begun.target), ids(&begun))]);
    while let Some(call) = bus.call(0, &there) {
        assert_eq!(bus.settled("c"), []);
        told.entry(format!("{} {:?}", call.handler, call.target)).or_insert_with(Vec::new).extend(ids(&call));
        bus.finish(call.id, &call.handler, vec![Tried::Done], 0, &mut || 0);
    }
    let expected = [("a Function(\"f\")", vec![1]), ("a Function(\"h\")", vec![2]), ("b Function(\"g\")", vec![1, 2])];
    assert_eq!(told, expected.map(|(name, ids)| (name.to_owned(), ids)).into());
    assert_eq!(bus.settled("c"), [(0, vec![1], 2)]);
    assert_eq!(bus.status().iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a", "new"]);
}

#[test]
fn a_replay_is_cancelled_with_what_waits() {
    let mut bus = bus(spec(json!({
        "sources": {"c": {"collection": "c"}}, "handlers": {"a": {"function": "f"}, "b": {"function": "g"}},
        "routes": [{"to": ["a", "b"]}],
    })));
    let again = |id| Event { replay: Some(1), ..event("c", id, "") };
    bus.offer_again("c", vec![again(1), again(2)], &["b".to_owned()], 0).unwrap();
    bus.offer("c", 0, vec![event("c", 3, "")], Some(vec![1]), 0).unwrap();
    let call = bus.call(0, &there).unwrap();
    assert_eq!((&*call.handler, ids(&call)), ("a", vec![3]));
    assert_eq!(bus.cancel(1), 2);
    assert_eq!(next(&mut bus, 0).unwrap(), ("b".to_owned(), vec![3]));
    assert_eq!(next(&mut bus, 0), None);
}

/// Random events, answers, times and configurations: each event is handled by each handler that it went to once, or put aside; and how far a
/// source is done never runs ahead of that.
#[test]
fn whatever_comes_when_each_event_is_done_once_and_counts_when_it_is() {
    for seed in 0..600 {
        run(seed);
    }
}

fn random_spec(random: &mut Random) -> BusSpec {
    let mut handlers = serde_json::Map::new();
    for name in ["a", "b", "c", "d"] {
        if random.one_in(4) {
            continue;
        }
        let mut handler = json!({"queue": 1 + random.below(20), "concurrency": 1 + random.below(3),
            "retry": {"attempts": 1 + random.below(4), "delayMs": random.below(30)}, "timeoutMs": 40});
        let more = match random.below(4) {
            0 => json!({"function": "f", "batch": {"events": 1, "delayMs": random.below(30)}}),
            1 => json!({"function": "g", "concurrency": 1, "ordered": true}),
            2 => json!({"cases": [{"filter": "id % 2 == 0", "function": "even"}], "otherwise": "odd"}),
            _ => json!({"collection": "out"}),
        };
        handler.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        handlers.insert(name.to_owned(), handler);
    }
    let names: Vec<&String> = handlers.keys().collect();
    let mut routes = vec![];
    for _ in 0..random.below(4) {
        if names.is_empty() {
            break;
        }
        let mut route = json!({"to": [random.pick(&names), random.pick(&names)], "priority": random.below(3)});
        if random.one_in(2) {
            route["filter"] = json!(format!("id % {} == 0", 2 + random.below(3)));
        }
        routes.push(route);
    }
    spec(
        json!({"sources": {"s": {"collection": "s"}, "t": {"collection": "t"}}, "handlers": handlers, "routes": routes}),
    )
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut bus = Bus::default();
    let first = random_spec(&mut random);
    let of = shapes(&first);
    bus.configure(first, of, 0).unwrap();
    let mut now_ms = 0;
    // By handler and id, whether it is done; and of each reading, its source, partition, position and ids.
    let mut owed: BTreeMap<(String, i64), bool> = BTreeMap::new();
    let mut read: Vec<(&str, u32, u8, Vec<i64>)> = vec![];
    let mut calls: Vec<Call> = vec![];
    let (mut id, mut position) = (0, 0);
    let mut steps = 120 + random.below(80);
    loop {
        let is_end = steps == 0;
        match if is_end { 2 + random.below(3) } else { random.below(7) } {
            0 | 1 => {
                let source = *random.pick(&["s", "t"]);
                if bus.has_room(source) && position < u8::MAX {
                    let ids: Vec<i64> = (0..random.below(5) as i64).map(|at| id + at).collect();
                    id += ids.len() as i64;
                    position += 1;
                    let events: Vec<Event> = ids.iter().map(|id| event(source, *id, "")).collect();
                    let before: BTreeMap<String, u64> =
                        bus.status().into_iter().map(|one| (one.name, one.events)).collect();
                    let ways = &bus.sources[source].ways;
                    for (event, steps) in events.iter().zip(ways.of(&events).unwrap()) {
                        let Value::Int(id) = event.row["id"] else { panic!() };
                        for step in steps {
                            owed.insert((step.handler.to_string(), id), false);
                        }
                    }
                    let partition = random.below(2) as u32;
                    bus.offer(source, partition, events, Some(vec![position]), now_ms).unwrap();
                    read.push((source, partition, position, ids));
                    for one in bus.status() {
                        assert!(one.events >= before[&one.name], "seed {seed}");
                    }
                }
            }
            2 => now_ms += random.below(40),
            3 => {
                let is_there = |_: &Target| true;
                calls.extend(bus.call(now_ms, &is_there));
                for (id, handler, _) in bus.late(now_ms) {
                    calls.retain(|call| call.id != id);
                    bus.fail(id, &handler, "late", now_ms, &mut || random.next_u64());
                }
            }
            4 if !calls.is_empty() => {
                let call = calls.swap_remove(random.below(calls.len() as u64) as usize);
                let answers: Vec<Tried> = call
                    .events
                    .iter()
                    .map(|_| match random.below(4) {
                        0 => Tried::Failed("no".to_owned()),
                        1 if !is_end => Tried::Unknown("away".to_owned()),
                        _ => Tried::Done,
                    })
                    .collect();
                for ((event, _), answer) in call.events.iter().zip(&answers) {
                    let Value::Int(id) = event.row["id"] else { panic!() };
                    if *answer == Tried::Done {
                        let done = owed.get_mut(&(call.handler.to_string(), id)).expect("it went there");
                        assert!(!std::mem::replace(done, true), "seed {seed}: {id} is done twice by {}", call.handler);
                    }
                }
                bus.finish(call.id, &call.handler, answers, now_ms, &mut || random.next_u64());
            }
            4 => {}
            5 if !is_end && random.one_in(4) => {
                let spec = random_spec(&mut random);
                let of = shapes(&spec);
                bus.configure(spec, of, now_ms).unwrap();
            }
            _ => {}
        }
        if random.one_in(3) || is_end {
            let letters = bus.letters(1 + random.below(3) as usize);
            for letter in &letters {
                let Value::Int(id) = letter.event.row["id"] else { panic!() };
                let done = owed.get_mut(&(letter.handler.to_string(), id)).expect("it went there");
                assert!(!std::mem::replace(done, true), "seed {seed}: {id} is done and a letter of {}", letter.handler);
            }
            bus.stored(letters.len());
        }
        for source in ["s", "t"] {
            for (partition, settled, _) in bus.settled(source) {
                let before =
                    read.iter().filter(|(of, part, at, _)| (*of, *part) == (source, partition) && *at <= settled[0]);
                for id in before.flat_map(|(.., ids)| ids) {
                    let open = owed.iter().find(|((_, other), done)| other == id && !**done);
                    assert_eq!(open, None, "seed {seed}: {source} {partition} is said to be done up to {settled:?}");
                }
                if random.one_in(2) {
                    bus.noted(source, partition, &settled);
                    read.retain(|(of, part, at, _)| (*of, *part) != (source, partition) || *at > settled[0]);
                }
            }
        }
        steps = steps.saturating_sub(1);
        if is_end && bus.is_idle() {
            break;
        }
    }
    let open: Vec<_> = owed.iter().filter(|(_, done)| !**done).collect();
    assert!(open.is_empty(), "seed {seed}: {open:?}");
    for source in ["s", "t"] {
        for (partition, position, _) in bus.settled(source) {
            bus.noted(source, partition, &position);
            read.retain(|(of, part, at, _)| (*of, *part) != (source, partition) || *at > position[0]);
        }
    }
    assert_eq!(read, [], "seed {seed}: not said to be done");
}
