use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::*;
use crate::base::Random;
use crate::model::{DataType, Row, Value};
use crate::query::compute::Expression;

mod dedupe;
mod evictors;
mod flink;
mod joins;
mod random;

pub(super) const TEXT: DataType = DataType::Varchar { max_length: 65_535 };
/// A delay that says nothing: watermarks are told.
pub(super) const NEVER: i64 = 1 << 58;

pub(super) fn node(name: &str, inputs: &[&str], operator: Operator) -> Node {
    Node { name: name.into(), inputs: inputs.iter().map(|&input| input.into()).collect(), operator }
}

/// Rows of a key, a number and a time.
pub(super) fn source(name: &str, delay: i64) -> Node {
    let fields = vec![
        SourceField::new("key", TEXT),
        SourceField::new("value", DataType::Int64).nullable(),
        SourceField::new("at", DataType::Timestamp).nullable(),
    ];
    let watermark = Watermark { delay, idle: None };
    node(name, &[], Operator::Source(Source { fields, time: Some("at".into()), watermark, changes: false }))
}

pub(super) fn aggregate(name: &str, function: AggregateFunction, input: Option<&str>) -> Aggregate {
    Aggregate { name: name.into(), function, input: input.map(Expression::from), filter: None, by: None }
}

pub(super) fn windowed(window: Window, aggregates: Vec<Aggregate>) -> WindowAggregate {
    WindowAggregate {
        window,
        keys: vec!["key".into()],
        aggregates,
        trigger: Trigger::default(),
        lateness: 0,
        output: Output::Close,
        late: None,
        evictor: None,
    }
}

pub(super) fn plan(delay: i64, operator: Operator) -> Plan {
    let aside = matches!(&operator, Operator::Aggregate(WindowAggregate { late: Some(_), .. }));
    let mut nodes = vec![source("in", delay), node("work", &["in"], operator)];
    nodes.push(node("out", &["work"], Operator::Sink(Sink { collection: None, keys: vec!["key".into()] })));
    if aside {
        nodes.push(node("late", &[], Operator::Sink(Sink::default())));
    }
    Plan { nodes }
}

pub(super) type Event = (&'static str, i64, i64);

pub(super) fn rows(events: &[Event]) -> Vec<Row> {
    events
        .iter()
        .map(|&(key, value, at)| {
            Row::from([("key".into(), key.into()), ("value".into(), Value::Int(value)), ("at".into(), Value::Int(at))])
        })
        .collect()
}

pub(super) fn push(job: &mut Job, source: &str, partition: u32, events: &[Event], now: i64) {
    let (batch, wrong) = job.relation(source).unwrap().batch(&rows(events));
    assert_eq!(wrong, []);
    job.push(source, partition, b"", &batch, None, now).unwrap();
}

/// A row as text: its values but null ones by field, and a minus where it is taken back.
pub(super) fn shown(row: &Row, taken_back: bool) -> String {
    let mut text = if taken_back { "-".to_owned() } else { String::new() };
    for (at, value) in row.values().enumerate() {
        let _ =
            write!(text, "{}{}", if at > 0 { " " } else { "" }, serde_json::to_string(value).unwrap().replace('"', ""));
    }
    text
}

/// What has come for a sink since it was asked last.
pub(super) fn given(job: &mut Job, sink: &str) -> Vec<String> {
    let relation = job.relation(sink).unwrap().clone();
    let mut texts = vec![];
    for (name, rows) in job.poll().rows {
        if name == sink {
            let found = rows.to_rows(&relation);
            texts.extend(found.iter().enumerate().map(|(at, row)| shown(row, rows.is_retraction(at))));
        }
    }
    texts
}

/// The same job, by way of its bytes.
pub(super) fn again(job: Job) -> Job {
    let bytes = job.checkpoint(7).unwrap();
    let (job, id) = Job::restore(job.plan().clone(), Options::default(), &bytes).unwrap();
    assert_eq!(id, 7);
    assert_eq!(job.checkpoint(7).unwrap(), bytes, "a state that was loaded is saved as it was");
    job
}

#[test]
fn rows_without_a_time_are_dead_letters() {
    let mut job = Job::new(plan(0, Operator::Filter { condition: "value > 1".into() }), Options::default()).unwrap();
    let mut events = rows(&[("a", 1, 10), ("a", 2, 11), ("b", 3, 12)]);
    events[2].insert("at".into(), Value::Null);
    let (batch, wrong) = job.relation("in").unwrap().batch(&events);
    assert_eq!(wrong, []);
    job.push("in", 0, b"3", &batch, None, 0).unwrap();
    assert_eq!(job.position("in", 0).unwrap(), Some(&b"3"[..]));
    let dead = job.poll();
    assert_eq!((dead.dead.len(), &*dead.dead[0].node, dead.dead[0].rows.len()), (1, "in", 1));
    assert_eq!(dead.rows.len(), 1);
    // What is no row at all is told by its number.
    events[0].insert("value".into(), "text".into());
    events[1].remove("key");
    let (batch, wrong) = job.relation("in").unwrap().batch(&events);
    assert_eq!((batch.num_rows(), wrong.len()), (1, 2));
    assert!(wrong[0].1.contains("value") && wrong[1].1.contains("key"), "{wrong:?}");
}

#[test]
fn too_many_keys_are_refused_or_end_the_job() {
    let spec = windowed(
        Window::Tumbling { size: 10, offset: 0, zone: None },
        vec![aggregate("rows", AggregateFunction::Count, None)],
    );
    let events = [("a", 1, 1), ("b", 1, 2), ("c", 1, 3), ("a", 1, 4)];
    let run = |overflow| {
        let options = Options { entries_max: 2, overflow, ..Options::default() };
        let mut job = Job::new(plan(0, Operator::Aggregate(spec.clone())), options).unwrap();
        let (batch, _) = job.relation("in").unwrap().batch(&rows(&events));
        let result = job.push("in", 0, b"", &batch, None, 0);
        (job, result)
    };
    let (mut job, result) = run(Overflow::Refuse);
    result.unwrap();
    assert_eq!(job.poll().dead.len(), 1);
    job.end("in", 0, 0).unwrap();
    assert_eq!(given(&mut job, "out"), ["a 2 10 0", "b 1 10 0"]);
    let (mut job, result) = run(Overflow::Fail);
    assert_eq!(result.unwrap_err().kind(), crate::base::ErrorKind::StorageFull);
    assert!(job.advance(1).is_err(), "the job is done");
}

#[test]
fn bytes_that_are_no_checkpoint_are_refused() {
    let spec = windowed(
        Window::Session { gap: 10 },
        vec![
            aggregate("sum", AggregateFunction::Sum, Some("value")),
            aggregate("all", AggregateFunction::Collect { limit: 3 }, Some("value")),
        ],
    );
    let plan = plan(5, Operator::Aggregate(spec));
    let mut job = Job::new(plan.clone(), Options::default()).unwrap();
    push(&mut job, "in", 0, &[("a", 1, 10), ("b", 2, 12), ("a", 4, 18)], 0);
    let bytes = job.checkpoint(1).unwrap();
    for at in 0..bytes.len() {
        let mut torn = bytes.clone();
        torn[at] ^= 1 << (at % 8);
        assert!(Job::restore(plan.clone(), Options::default(), &torn).is_err(), "byte {at}");
        assert!(Job::restore(plan.clone(), Options::default(), &bytes[..at]).is_err(), "{at} bytes");
        // With a checksum that fits, whatever it says is read or refused.
        let sum = crate::base::codec::checksum(&torn[..torn.len() - 4]);
        let end = torn.len() - 4;
        torn[end..].copy_from_slice(&sum.to_le_bytes());
        let _ = Job::restore(plan.clone(), Options::default(), &torn);
    }
    let mut other = plan.clone();
    let Operator::Aggregate(spec) = &mut other.nodes[1].operator else { unreachable!() };
    spec.window = Window::Session { gap: 11 };
    let message = Job::restore(other, Options::default(), &bytes).unwrap_err().message().to_owned();
    assert!(message.contains("\"work\""), "{message}");
    let mut grown = plan.clone();
    grown.nodes.push(node("more", &["in"], Operator::Sink(Sink::default())));
    assert!(Job::restore(grown, Options::default(), &bytes).is_ok());
}

/// A checkpoint of version 1, as it was written when that began.
#[test]
fn a_checkpoint_of_version_1_is_read() {
    let spec = windowed(
        Window::Tumbling { size: 10, offset: 0, zone: None },
        vec![aggregate("sum", AggregateFunction::Sum, Some("value"))],
    );
    let mut job = Job::new(plan(5, Operator::Aggregate(spec)), Options::default()).unwrap();
    push(&mut job, "in", 0, &[("a", 1, 3), ("b", 2, 12), ("a", 4, 5)], 99);
    let bytes = job.checkpoint(3).unwrap();
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let golden = include_str!("tests/checkpoint.v1.hex").trim();
    assert_eq!(text, golden);
}

#[test]
fn an_aggregate_of_updates_is_kept_current() {
    // The greatest number of each key so far, and how many keys there are by that number, which are taken back as it grows.
    let latest = WindowAggregate {
        window: Window::Global,
        trigger: Trigger { early: Some(Pace::Count(1)), ..Trigger::default() },
        output: Output::Retracting,
        ..windowed(Window::Global, vec![aggregate("most", AggregateFunction::Max, Some("value"))])
    };
    let by_number = WindowAggregate {
        keys: vec!["most".into()],
        aggregates: vec![aggregate("keys", AggregateFunction::Count, None)],
        ..latest.clone()
    };
    let nodes = vec![
        source("in", 0),
        node("latest", &["in"], Operator::Aggregate(latest)),
        node("numbers", &["latest"], Operator::Aggregate(by_number)),
        node("out", &["numbers"], Operator::Sink(Sink { collection: None, keys: vec!["most".into()] })),
    ];
    let mut job = Job::new(Plan { nodes }, Options::default()).unwrap();
    push(&mut job, "in", 0, &[("a", 1, 1), ("b", 1, 2), ("a", 2, 3), ("b", 2, 4), ("a", 1, 5)], 0);
    assert_eq!(given(&mut job, "out"), ["1 1", "-1 1", "2 1", "-2 1", "1 1", "1 2", "-1 1", "-1 2", "2 2"]);
}

#[test]
fn vectors_are_aggregated() {
    let field = |name: &str, data_type| SourceField::new(name, data_type);
    let fields =
        vec![field("name", TEXT), field("v", DataType::FloatVector { dim: 2 }), field("at", DataType::Timestamp)];
    let function = |name: &str, function, by: Option<&str>| Aggregate {
        by: by.map(Expression::from),
        ..aggregate(name, function, Some(if by.is_some() { "name" } else { "v" }))
    };
    let drift = |measure| AggregateFunction::Drift { reference: Reference::Previous, measure };
    let spec = WindowAggregate {
        keys: vec![],
        ..windowed(
            Window::Tumbling { size: 10, offset: 0, zone: None },
            vec![
                function("a_centroid", AggregateFunction::Centroid, None),
                function("b_spread", AggregateFunction::Spread, None),
                function("c_nearest", AggregateFunction::Nearest, Some("v")),
                function("d_cosine", drift(Measure::Cosine), None),
                function("e_mmd", drift(Measure::Discrepancy { sample: 8 }), None),
            ],
        )
    };
    let source = Source { fields, time: Some("at".into()), watermark: Watermark::default(), changes: false };
    let nodes = vec![
        node("in", &[], Operator::Source(source)),
        node("work", &["in"], Operator::Aggregate(spec)),
        node("out", &["work"], Operator::Sink(Sink::default())),
    ];
    let mut job = Job::new(Plan { nodes }, Options::default()).unwrap();
    let rows: Vec<Row> = [("x", [0.0, 2.0], 1), ("y", [2.0, 2.0], 2), ("z", [1.0, 1.9], 3), ("w", [4.0, 0.0], 11)]
        .into_iter()
        .map(|(name, v, at)| {
            Row::from([
                ("name".into(), name.into()),
                ("v".into(), Value::Vector(v.to_vec())),
                ("at".into(), Value::Int(at)),
            ])
        })
        .collect();
    let (batch, wrong) = job.relation("in").unwrap().batch(&rows);
    assert_eq!(wrong, []);
    job.push("in", 0, b"", &batch, None, 0).unwrap();
    job = {
        let first = given(&mut job, "out");
        assert_eq!(first.len(), 1);
        assert!(first[0].contains(" z "), "{first:?}");
        assert!(first[0].contains("null null"), "{first:?}");
        again(job)
    };
    job.end("in", 0, 0).unwrap();
    let second = job.poll().rows.remove(0).1.to_rows(job.relation("out").unwrap());
    let double = |name: &str| match second[0][name] {
        Value::Double(double) => double,
        ref other => panic!("{other:?}"),
    };
    // The angle between (1, 1.9667) and (4, 0).
    assert!((double("d_cosine") - (1.0 - 1.0 / (1.0f64 + 1.966_666_7 * 1.966_666_7).sqrt())).abs() < 1e-6);
    assert!(double("e_mmd") > 0.5 && double("b_spread") == 0.0);
}

#[test]
fn what_is_wanted_from_outside_is_waited_for_in_order() {
    let lookup = Operator::Lookup(Lookup {
        collection: "people".into(),
        key: "key".into(),
        fields: vec![SourceField::new("city", TEXT)],
        inner: false,
    });
    let mut job = Job::new(plan(0, lookup), Options::default()).unwrap();
    push(&mut job, "in", 0, &[("a", 1, 1), ("b", 2, 2)], 0);
    push(&mut job, "in", 0, &[("c", 3, 3)], 0);
    let first = job.poll();
    assert!(first.rows.is_empty());
    let ids: Vec<u64> = first.wanted.iter().map(|wanted| wanted.id).collect();
    assert_eq!(ids, [0, 1]);
    // What nobody has answered is asked again after a restart.
    let mut job = again(job);
    let asked = job.poll().wanted;
    assert_eq!(asked.len(), 2);
    let WantedKind::Lookup { fields, .. } = &asked[0].kind else { panic!("{asked:?}") };
    let relation = Relation { fields: fields.clone(), ..Relation::default() };
    let answer = |cities: &[Option<&str>]| {
        let rows: Vec<Row> =
            cities.iter().flatten().map(|&city| Row::from([("city".to_owned(), city.into())])).collect();
        Answer { counts: cities.iter().map(|city| u32::from(city.is_some())).collect(), rows: relation.batch(&rows).0 }
    };
    job.answer(asked[1].id, &answer(&[Some("Rome")]), 0).unwrap();
    assert!(given(&mut job, "out").is_empty(), "the first one is still waited for");
    assert!(job.answer(asked[0].id, &answer(&[None]), 0).is_err(), "an answer for one of two rows");
    job.answer(asked[0].id, &answer(&[None, Some("Oslo")]), 0).unwrap();
    let rows = given(&mut job, "out");
    assert_eq!(rows, ["1 null a 1", "2 Oslo b 2", "3 Rome c 3"]);
    assert!(job.answer(asked[0].id, &answer(&[]), 0).is_err());
}

/// A window by its naive definition: which rows it has.
pub(super) type Panes<'e> = BTreeMap<(&'static str, i64, i64), Vec<&'e Event>>;

pub(super) fn shuffled<T: Clone>(items: &[(i64, T)], jitter: i64, random: &mut Random) -> Vec<T> {
    let mut order: Vec<(i64, usize)> =
        items.iter().enumerate().map(|(at, (time, _))| (time + random.below(jitter as u64 + 1) as i64, at)).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, at)| items[at].1.clone()).collect()
}
