use super::*;
use crate::model::DataType;
use crate::query::compute::Expression;

const TEXT: DataType = DataType::Varchar { max_length: 65_535 };
const MINUTE: i64 = 60_000_000;

fn node(name: &str, inputs: &[&str], operator: Operator) -> Node {
    Node { name: name.into(), inputs: inputs.iter().map(|&input| input.into()).collect(), operator }
}

fn bids() -> Node {
    let fields = vec![
        SourceField::new("auction", DataType::Int64),
        SourceField::new("price", DataType::Int64).nullable(),
        SourceField::new("channel", TEXT),
        SourceField::new("at", DataType::Timestamp),
    ];
    let watermark = Watermark { delay: 5_000_000, idle: None };
    node("bids", &[], Operator::Source(Source { fields, time: Some("at".into()), watermark, changes: false }))
}

fn aggregate(name: &str, function: AggregateFunction, input: Option<&str>) -> Aggregate {
    Aggregate { name: name.into(), function, input: input.map(Expression::from), filter: None, by: None }
}

fn counts(window: Window, output: Output) -> Operator {
    Operator::Aggregate(WindowAggregate {
        window,
        keys: vec!["auction".into()],
        aggregates: vec![
            aggregate("bids", AggregateFunction::Count, None),
            aggregate("most", AggregateFunction::Max, Some("price")),
        ],
        trigger: Trigger::default(),
        lateness: 0,
        output,
        late: None,
        evictor: None,
    })
}

fn plan() -> Plan {
    Plan {
        nodes: vec![
            bids(),
            node("dear", &["bids"], Operator::Filter { condition: "price > 100".into() }),
            node("minutes", &["dear"], counts(Window::Tumbling { size: MINUTE, offset: 0, zone: None }, Output::Close)),
            node("out", &["minutes"], Operator::Sink(Sink { collection: Some("minutes".into()), keys: vec![] })),
        ],
    }
}

fn wrong(nodes: Vec<Node>) -> String {
    Plan { nodes }.check().unwrap_err().message().to_owned()
}

#[test]
fn a_node_tells_what_it_gives() {
    let relations = plan().check().unwrap();
    let fields: Vec<_> =
        relations[2].fields.iter().map(|field| (&*field.name, field.data_type, field.nullable)).collect();
    assert_eq!(
        fields,
        [
            ("auction", DataType::Int64, false),
            (WINDOW_START, DataType::Timestamp, false),
            (WINDOW_END, DataType::Timestamp, false),
            ("bids", DataType::Int64, false),
            ("most", DataType::Int64, true),
        ]
    );
    assert!(relations[2].is_windowed() && relations[2].timed && !relations[2].updates);
    assert_eq!(relations[3], relations[2]);
}

#[test]
fn documents_come_back() {
    let plan = plan();
    assert_eq!(Plan::from_json(&plan.to_json()).unwrap(), plan);
    let document: serde_json::Value = serde_json::from_str(&plan.to_json()).unwrap();
    assert_eq!(Plan::from_message(&rmp_serde::to_vec(&document).unwrap()).unwrap(), plan);
    let short = Plan::from_json(
        r#"{"nodes": [
            {"name": "a", "operator": {"source": {"fields": [{"name": "x", "type": "double"}]}}},
            {"name": "b", "inputs": ["a"], "operator": {"project": {"columns": [["y", {"text": "x * 2"}]]}}},
            {"name": "c", "inputs": ["b"], "operator": {"sink": {}}}
        ]}"#,
    )
    .unwrap();
    assert_eq!(short.check().unwrap()[2].fields[0].name, "y");
    assert!(
        Plan::from_json(r#"{"nodes": [{"name": "a", "operator": {"sauce": {}}}]}"#)
            .unwrap_err()
            .message()
            .contains("sauce")
    );
}

#[test]
fn the_graph_is_drawn_from_its_sinks() {
    assert_eq!(
        plan().explain().unwrap(),
        "out: sink into minutes -> (auction int64, window_start timestamp, window_end timestamp, bids int64, most int64?)\n  \
         minutes: aggregate tumbling 1 min by auction: bids = count(*), most = max(price) -> (auction int64, window_start \
         timestamp, window_end timestamp, bids int64, most int64?)\n    \
         dear: filter price > 100 -> (auction int64, price int64?, channel varchar, at timestamp)\n      \
         bids: source by at, watermark 5 s behind -> (auction int64, price int64?, channel varchar, at timestamp)\n"
    );
}

#[test]
fn what_is_wrong_is_named_with_its_node() {
    let tumbling = Window::Tumbling { size: MINUTE, offset: 0, zone: None };
    assert!(wrong(vec![]).contains("1 to 1000 nodes"));
    let filter = |text: &str| node("f", &["bids"], Operator::Filter { condition: text.into() });
    let message = wrong(vec![bids(), filter("prize > 1")]);
    assert!(message.contains("node \"f\"") && message.contains("prize"), "{message}");
    assert!(wrong(vec![bids(), filter("price + 1")]).contains("expected a condition"));
    assert!(wrong(vec![bids(), node("f", &["nobody"], Operator::Union)]).contains("\"nobody\" is no node before it"));
    assert!(wrong(vec![bids(), node("bids", &["bids"], Operator::Union)]).contains("not its own"));
    assert!(wrong(vec![bids(), node("u", &["bids"], Operator::Union)]).contains("takes 2 inputs, got 1"));
    let zero = Window::Tumbling { size: 0, offset: 0, zone: None };
    assert!(wrong(vec![bids(), node("w", &["bids"], counts(zero, Output::Close))]).contains("size is 0"));
    let odd = Window::Cumulate { size: 10, step: 3, offset: 0, zone: None };
    assert!(wrong(vec![bids(), node("w", &["bids"], counts(odd, Output::Close))]).contains("a multiple of step"));
    let attached = wrong(vec![bids(), node("w", &["bids"], counts(Window::Attached, Output::Close))]);
    assert!(attached.contains("window_start"), "{attached}");
    let mut timeless = bids();
    let Operator::Source(source) = &mut timeless.operator else { unreachable!() };
    source.time = None;
    assert!(wrong(vec![timeless, node("w", &["bids"], counts(tumbling, Output::Close))]).contains("no event time"));
    let updates = node("w", &["bids"], counts(tumbling, Output::Accumulating));
    let sink = node("s", &["w"], Operator::Sink(Sink::default()));
    assert!(wrong(vec![bids(), updates.clone(), sink]).contains("as its keys"));
    let distinct = node("d", &["w"], Operator::Distinct { keys: vec!["auction".into()] });
    assert!(wrong(vec![bids(), updates, distinct]).contains("have them retracted"));
    let retracting = node("w", &["bids"], counts(tumbling, Output::Retracting));
    let most = node("again", &["w"], counts_of_bids());
    assert!(wrong(vec![bids(), retracting, most]).contains("may be taken back"));
}

/// An aggregate that cannot be taken back.
fn counts_of_bids() -> Operator {
    Operator::Aggregate(WindowAggregate {
        window: Window::Global,
        keys: vec![],
        aggregates: vec![aggregate("most", AggregateFunction::Max, Some("bids"))],
        trigger: Trigger { early: Some(Pace::Batch), ..Trigger::default() },
        lateness: 0,
        output: Output::Accumulating,
        late: None,
        evictor: None,
    })
}

#[test]
fn fields_of_both_sides_are_told_apart() {
    let mut other = bids();
    other.name = "other".into();
    let join = |kind, scope| {
        let keys = vec![("auction".to_owned(), "auction".to_owned())];
        Operator::Join(Join { kind, keys, scope, condition: Some("price < right_price".into()) })
    };
    let window = JoinScope::Window(Window::Tumbling { size: MINUTE, offset: 0, zone: None });
    let nodes = vec![bids(), other.clone(), node("j", &["bids", "other"], join(JoinKind::Left, window))];
    let relations = Plan { nodes }.check().unwrap();
    let names: Vec<_> = relations[2].fields.iter().map(|field| &*field.name).collect();
    assert_eq!(
        names,
        [
            "auction",
            "price",
            "channel",
            "at",
            "right_auction",
            "right_price",
            "right_channel",
            "right_at",
            "window_start",
            "window_end"
        ]
    );
    assert!(relations[2].fields[4].nullable && !relations[2].fields[0].nullable);
    let unbounded = node("j", &["bids", "other"], join(JoinKind::Left, JoinScope::Unbounded));
    assert!(wrong(vec![bids(), other, unbounded]).contains("only inner joins"));
}
