//! The queries of Nexmark through a job, on one core: what the native side and that in WebAssembly share. It reads no clock.
//!
//! Events follow the rules of the generator that Nexmark publishes (<https://github.com/nexmark/nexmark>, `nexmark-flink`): of every 50
//! events one is a person, three are auctions and 46 are bids; half of the bids are for a hot auction, three of four by a hot bidder.

#[path = "../../src/stream/sql/nexmark.rs"]
mod queries;

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow_schema::{Field, Schema};
use eddydb::base::{Random, Result};
use eddydb::query::Parameters;
use eddydb::stream::sql::{Catalog, Mode, compile};
use eddydb::stream::{Job, Node, Options, Plan};
use queries::{NEXMARK, Q6_BIDS, Q6_NODES};

/// How many events there are.
pub const EVENTS: u64 = 1_000_000;
/// How many come at once.
const TOGETHER: u64 = 4_096;
/// Microseconds from one event to the next: 10,000 a second.
const STEP_US: i64 = 100;
const BEGIN_US: i64 = 1_700_000_000_000_000;
const FIRST_ID: i64 = 1_000;
const ACTIVE_PEOPLE: i64 = 1_000;
const AUCTIONS_IN_FLIGHT: i64 = 100;
/// A bid may name what comes that much later.
const LEAD: i64 = 10;
/// Hot ones change every so many.
const HOT: i64 = 100;

const STREAMS: &str = "
    CREATE STREAM person (id BIGINT NOT NULL, name VARCHAR NOT NULL, email VARCHAR NOT NULL, creditCard VARCHAR NOT NULL,
        city VARCHAR NOT NULL, state VARCHAR NOT NULL, `dateTime` TIMESTAMP NOT NULL, extra VARCHAR NOT NULL,
        WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND);
    CREATE STREAM auction (id BIGINT NOT NULL, itemName VARCHAR NOT NULL, description VARCHAR NOT NULL, initialBid BIGINT NOT NULL,
        reserve BIGINT NOT NULL, `dateTime` TIMESTAMP NOT NULL, expires TIMESTAMP NOT NULL, seller BIGINT NOT NULL,
        category BIGINT NOT NULL, extra VARCHAR NOT NULL, WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND);
    CREATE STREAM bid (auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, channel VARCHAR NOT NULL,
        url VARCHAR NOT NULL, `dateTime` TIMESTAMP NOT NULL, extra VARCHAR NOT NULL,
        WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND);
";

const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const SURNAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

enum Value {
    Int(i64),
    Time(i64),
    Text(String),
}

/// One event: its stream, and its values by name.
type Event = (&'static str, Vec<(&'static str, Value)>);

struct Events {
    random: Random,
}

impl Events {
    fn below(&mut self, count: i64) -> i64 {
        self.random.below(count.max(1) as u64) as i64
    }

    fn text(&mut self, about: i64) -> String {
        // A fifth more or less.
        let len = about * 4 / 5 + self.below(about * 2 / 5);
        (0..len).map(|_| char::from(b'a' + self.random.below(26) as u8)).collect()
    }

    fn price(&mut self) -> i64 {
        let unit = self.below(1 << 30) as f64 / f64::from(1u32 << 30);
        (10f64.powf(unit * 6.0) * 100.0) as i64
    }

    fn pick(&mut self, of: &[&'static str]) -> &'static str {
        of[self.below(of.len() as i64) as usize]
    }

    /// The number of the last person before event `id`.
    fn last_person(id: i64) -> i64 {
        id / 50
    }

    fn last_auction(id: i64) -> i64 {
        let (epoch, offset) = (id / 50, id % 50);
        match offset {
            0 => (epoch - 1).max(0) * 3 + 2,
            1..=3 => epoch * 3 + offset - 1,
            _ => epoch * 3 + 2,
        }
    }

    fn person_of(&mut self, id: i64) -> i64 {
        let people = Self::last_person(id) + 1;
        let active = people.min(ACTIVE_PEOPLE);
        people - active + self.below(active + LEAD)
    }

    fn auction_of(&mut self, id: i64) -> i64 {
        let last = Self::last_auction(id);
        let first = (last - AUCTIONS_IN_FLIGHT).max(0);
        first + self.below(last - first + 1 + LEAD)
    }

    fn next(&mut self, id: i64) -> Event {
        use Value::{Int, Text, Time};
        let at = BEGIN_US + id * STEP_US;
        match id % 50 {
            0 => {
                let name = format!("{} {}", self.pick(&NAMES), self.pick(&SURNAMES));
                let card = format!("{:016}", self.below(10_000_000_000_000_000));
                let event = vec![
                    ("id", Int(FIRST_ID + Self::last_person(id))),
                    ("name", Text(name)),
                    ("email", Text(format!("{}@{}.com", self.text(7), self.text(5)))),
                    ("creditCard", Text(card)),
                    ("city", Text(self.pick(&CITIES).to_owned())),
                    ("state", Text(self.pick(&STATES).to_owned())),
                    ("dateTime", Time(at)),
                    ("extra", Text(self.text(120))),
                ];
                ("person", event)
            }
            1..=3 => {
                let hot = self.below(4) > 0;
                let seller = if hot { Self::last_person(id) / HOT * HOT } else { self.person_of(id) };
                let horizon = AUCTIONS_IN_FLIGHT * 50 / 3 * STEP_US;
                let initial = self.price();
                let event = vec![
                    ("id", Int(FIRST_ID + Self::last_auction(id))),
                    ("itemName", Text(self.text(20))),
                    ("description", Text(self.text(100))),
                    ("initialBid", Int(initial)),
                    ("reserve", Int(initial + self.price())),
                    ("dateTime", Time(at)),
                    ("expires", Time(at + 1_000 + self.below(horizon * 2))),
                    ("seller", Int(FIRST_ID + seller)),
                    ("category", Int(10 + self.below(5))),
                    ("extra", Text(self.text(300))),
                ];
                ("auction", event)
            }
            _ => {
                let auction = if self.below(2) > 0 { Self::last_auction(id) / HOT * HOT } else { self.auction_of(id) };
                let bidder = if self.below(4) > 0 { Self::last_person(id) / HOT * HOT + 1 } else { self.person_of(id) };
                let channel = self.pick(&CHANNELS);
                let event = vec![
                    ("auction", Int(FIRST_ID + auction)),
                    ("bidder", Int(FIRST_ID + bidder)),
                    ("price", Int(self.price())),
                    ("channel", Text(channel.to_owned())),
                    ("url", Text(format!("https://www.nexmark.com/{}/item.htm?query=1", self.text(10)))),
                    ("dateTime", Time(at)),
                    ("extra", Text(self.text(68))),
                ];
                ("bid", event)
            }
        }
    }
}

fn values<'e>(events: &'e [Event], stream: &'e str, field: &'e str) -> impl Iterator<Item = &'e Value> {
    let of = events.iter().filter(move |(name, _)| *name == stream);
    of.filter_map(move |(_, values)| values.iter().find(|(name, _)| *name == field).map(|(_, value)| value))
}

/// The values of one field of some events.
fn column(events: &[Event], stream: &str, field: &str) -> ArrayRef {
    let values = || values(events, stream, field);
    let ints = |value: &Value| match value {
        Value::Int(int) | Value::Time(int) => *int,
        Value::Text(_) => 0,
    };
    match values().next() {
        Some(Value::Text(_)) => Arc::new(StringArray::from_iter_values(values().map(|value| match value {
            Value::Text(text) => text.as_str(),
            _ => "",
        }))),
        Some(Value::Time(_)) => {
            Arc::new(TimestampMicrosecondArray::from_iter_values(values().map(ints)).with_timezone("UTC"))
        }
        _ => Arc::new(Int64Array::from_iter_values(values().map(ints))),
    }
}

/// What of the events each source of a job takes, in the order of time.
fn batches(job: &Job, reads: &[(String, String)]) -> Result<Vec<(String, RecordBatch, i64)>> {
    let mut generator = Events { random: Random::new(7) };
    let mut batches = vec![];
    for first in (0..EVENTS).step_by(TOGETHER as usize) {
        let chunk: Vec<Event> = (first..(first + TOGETHER).min(EVENTS)).map(|id| generator.next(id as i64)).collect();
        let now = BEGIN_US + first as i64 * STEP_US;
        for (node, stream) in reads {
            if !chunk.iter().any(|(name, _)| name == stream) {
                continue;
            }
            let fields = &job.relation(node)?.fields;
            let arrays: Vec<ArrayRef> = fields.iter().map(|field| column(&chunk, stream, &field.name)).collect();
            let schema: Vec<Field> = fields
                .iter()
                .zip(&arrays)
                .map(|(field, array)| Field::new(&field.name, array.data_type().clone(), true))
                .collect();
            let batch = RecordBatch::try_new(Arc::new(Schema::new(schema)), arrays).expect("columns of one length");
            batches.push((node.clone(), batch, now));
        }
    }
    Ok(batches)
}

/// The names of the queries.
pub fn queries() -> impl Iterator<Item = &'static str> {
    NEXMARK.iter().map(|(name, _)| *name).chain(["q6"])
}

/// A query, and what it reads.
pub struct Query {
    plan: Plan,
    nodes: Vec<String>,
    batches: Vec<(String, RecordBatch, i64)>,
}

impl Query {
    /// The query of that name.
    pub fn new(name: &str) -> Result<Self> {
        let text = NEXMARK.iter().find(|(other, _)| *other == name).map_or(Q6_BIDS, |(_, text)| text);
        let mut compiled = compile(&format!("{STREAMS}{text}"), &Catalog::default(), &Parameters::new(), Mode::Stream)?;
        if name == "q6" {
            let bids = compiled.plan.nodes.pop().expect("a sink of the bids").inputs.remove(0);
            let nodes: Vec<Node> = serde_json::from_str(&Q6_NODES.replace("BIDS", &bids)).expect("nodes as text");
            compiled.plan.nodes.extend(nodes);
        }
        let reads: Vec<_> = compiled.reads.iter().map(|read| (read.node.clone(), read.name.clone())).collect();
        let batches = batches(&Job::new(compiled.plan.clone(), Options::default())?, &reads)?;
        Ok(Self { plan: compiled.plan, nodes: reads.into_iter().map(|(node, _)| node).collect(), batches })
    }

    /// The rows of the events that it reads.
    pub fn rows_in(&self) -> usize {
        self.batches.iter().map(|(_, batch, _)| batch.num_rows()).sum()
    }

    /// Gives all events to a new job; tells how many rows came of them.
    pub fn run(&self) -> Result<(Job, usize)> {
        let mut job = Job::new(self.plan.clone(), Options::default())?;
        for node in &self.nodes {
            job.open(node, 0, BEGIN_US)?;
        }
        let mut rows_out = 0;
        for (node, batch, now) in &self.batches {
            job.push(node, 0, &[], batch, None, *now)?;
            job.advance(*now)?;
            rows_out += job.poll().rows.iter().map(|(_, rows)| rows.len()).sum::<usize>();
        }
        Ok((job, rows_out))
    }
}
