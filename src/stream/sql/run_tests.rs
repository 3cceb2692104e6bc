//! Queries of Nexmark as SQL, run over random events in random batches, against programs that look at all events at once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::nexmark::{NEXMARK, Q6_BIDS, Q6_NODES};
use super::{Catalog, Compiled, Mode, Table, compile};
use crate::model::{DataType, Row, Value};
use crate::query::Parameters;
use crate::stream::{Job, Options, SourceField, Watermark};

const SECOND: i64 = 1_000_000;

#[derive(Debug, Clone)]
struct Bid {
    auction: i64,
    bidder: i64,
    price: i64,
    at: i64,
}

#[derive(Debug, Clone)]
struct Auction {
    id: i64,
    seller: i64,
    category: i64,
    at: i64,
    expires: i64,
}

#[derive(Debug, Clone)]
struct Person {
    id: i64,
    state: &'static str,
    at: i64,
}

fn catalog() -> Catalog {
    use DataType::{Int64, Timestamp};
    const TEXT: DataType = DataType::Varchar { max_length: 65_535 };
    let table = |fields: &[(&str, DataType)]| Table {
        fields: fields.iter().map(|(name, data_type)| SourceField::new(*name, *data_type)).collect(),
        time: Some("dateTime".into()),
        // Later than any event of these tests is out of order.
        watermark: Watermark { delay: 1_000 * SECOND, idle: None },
        key: None,
    };
    let tables = [
        (
            "bid",
            table(&[("auction", Int64), ("bidder", Int64), ("price", Int64), ("dateTime", Timestamp), ("extra", TEXT)]),
        ),
        (
            "auction",
            table(&[
                ("id", Int64),
                ("seller", Int64),
                ("category", Int64),
                ("dateTime", Timestamp),
                ("expires", Timestamp),
            ]),
        ),
        ("person", table(&[("id", Int64), ("name", TEXT), ("city", TEXT), ("state", TEXT), ("dateTime", Timestamp)])),
    ];
    Catalog { tables: tables.into_iter().map(|(name, table)| (name.to_owned(), table)).collect() }
}

fn name_of(person: &Person) -> String {
    format!("p{}", person.id)
}

fn row_of(values: &[(&str, Value)]) -> Row {
    values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// q6, of its two parts.
fn q6() -> Compiled {
    let mut compiled = compile(Q6_BIDS, &catalog(), &Parameters::new(), Mode::Stream).unwrap();
    let bids = compiled.plan.nodes.pop().unwrap().inputs.remove(0);
    let nodes: Vec<crate::stream::Node> = serde_json::from_str(&Q6_NODES.replace("BIDS", &bids)).unwrap();
    compiled.plan.nodes.extend(nodes);
    compiled
}

/// The rows that a query comes to: those that were told, without those that were taken back, and the last of each key.
fn run(query: &str, events: &[(&str, Row)], batch: usize) -> BTreeSet<Vec<String>> {
    let compiled = match NEXMARK.iter().find(|(name, _)| *name == query) {
        Some((_, text)) => compile(text, &catalog(), &Parameters::new(), Mode::Stream).unwrap(),
        None => q6(),
    };
    let sinks: Vec<_> =
        compiled.plan.nodes.iter().filter(|node| matches!(node.operator, crate::stream::Operator::Sink(_))).collect();
    let sink = sinks[0].name.clone();
    let keys = match &sinks[0].operator {
        crate::stream::Operator::Sink(sink) => sink.keys.clone(),
        _ => vec![],
    };
    let mut job = Job::new(compiled.plan, Options::default()).unwrap();
    for read in &compiled.reads {
        job.open(&read.node, 0, 0).unwrap();
    }
    let columns: Vec<String> = job.relation(&sink).unwrap().fields.iter().map(|field| field.name.clone()).collect();
    let mut told: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    let mut latest: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
    let mut take = |job: &mut Job| {
        let given = job.poll();
        assert!(given.dead.is_empty() && given.wanted.is_empty());
        for (_, rows) in given.rows {
            for (at, row) in rows.to_rows(job.relation(&sink).unwrap()).iter().enumerate() {
                let shown = |names: &[String]| {
                    names.iter().map(|name| serde_json::to_string(&row[name]).unwrap()).collect::<Vec<_>>()
                };
                *told.entry(shown(&columns)).or_default() += if rows.is_retraction(at) { -1 } else { 1 };
                latest.insert(shown(&keys), shown(&columns));
            }
        }
    };
    for chunk in events.chunks(batch) {
        for read in &compiled.reads {
            let rows: Vec<Row> = chunk.iter().filter(|(of, _)| *of == read.name).map(|(_, row)| row.clone()).collect();
            let (batch, wrong) = job.relation(&read.node).unwrap().batch(&rows);
            assert!(wrong.is_empty(), "{wrong:?}");
            job.push(&read.node, 0, b"", &batch, None, 0).unwrap();
        }
        take(&mut job);
    }
    for read in &compiled.reads {
        job.end(&read.node, 0, 0).unwrap();
    }
    take(&mut job);
    if !keys.is_empty() && query == "q4" {
        return latest.into_values().collect();
    }
    told.into_iter().filter(|(_, count)| *count > 0).map(|(row, _)| row).collect()
}

fn events() -> impl Strategy<Value = (Vec<Bid>, Vec<Auction>, Vec<Person>)> {
    let bid = (1i64..5, 1i64..4, 1i64..8, 0i64..60).prop_map(|(auction, bidder, price, at)| Bid {
        auction,
        bidder,
        price,
        at: at * SECOND,
    });
    let auctions = prop::collection::vec((1i64..4, 9i64..12, 0i64..40, 0i64..30), 4).prop_map(|all| {
        let one = |(at, (seller, category, from, length)): (usize, (i64, i64, i64, i64))| Auction {
            id: at as i64 + 1,
            seller,
            category,
            at: from * SECOND,
            expires: (from + length) * SECOND,
        };
        all.into_iter().enumerate().map(one).collect()
    });
    let people = prop::collection::vec((prop::sample::select(vec!["OR", "CA", "NY"]), 0i64..60), 3).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(at, (state, from))| Person { id: at as i64 + 1, state, at: from * SECOND })
            .collect()
    });
    (prop::collection::vec(bid, 0..30), auctions, people)
}

fn shown(values: &[&dyn erased::Shown]) -> Vec<String> {
    values.iter().map(|value| value.shown()).collect()
}

mod erased {
    pub(super) trait Shown {
        fn shown(&self) -> String;
    }
    impl Shown for i64 {
        fn shown(&self) -> String {
            self.to_string()
        }
    }
    impl Shown for f64 {
        fn shown(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
    impl Shown for String {
        fn shown(&self) -> String {
            serde_json::to_string(self).unwrap()
        }
    }
}

/// What each query comes to, by looking at everything.
fn expected(query: &str, bids: &[Bid], auctions: &[Auction], people: &[Person]) -> BTreeSet<Vec<String>> {
    let window = |at: i64| at.div_euclid(10 * SECOND) * 10 * SECOND;
    let extra = String::new();
    match query {
        "q0" => bids.iter().map(|bid| shown(&[&bid.auction, &bid.bidder, &bid.price, &bid.at, &extra])).collect(),
        "q1" => bids
            .iter()
            .map(|bid| shown(&[&bid.auction, &bid.bidder, &(0.908 * bid.price as f64), &bid.at, &extra]))
            .collect(),
        "q2" => {
            bids.iter().filter(|bid| bid.auction % 123 == 0).map(|bid| shown(&[&bid.auction, &bid.price])).collect()
        }
        "q3" => {
            let pairs = auctions.iter().filter(|auction| auction.category == 10).flat_map(|auction| {
                people
                    .iter()
                    .filter(move |person| person.id == auction.seller && ["OR", "ID", "CA"].contains(&person.state))
                    .map(move |person| (auction, person))
            });
            pairs
                .map(|(auction, person)| {
                    shown(&[&name_of(person), &"c".to_owned(), &person.state.to_owned(), &auction.id])
                })
                .collect()
        }
        "q4" => {
            let mut finals: BTreeMap<(i64, i64), i64> = BTreeMap::new();
            for auction in auctions {
                for bid in bids
                    .iter()
                    .filter(|bid| bid.auction == auction.id && auction.at <= bid.at && bid.at <= auction.expires)
                {
                    let best = finals.entry((auction.category, auction.id)).or_insert(bid.price);
                    *best = (*best).max(bid.price);
                }
            }
            let categories: BTreeSet<i64> = finals.keys().map(|(category, _)| *category).collect();
            let mean = |category: i64| {
                let prices: Vec<i64> =
                    finals.iter().filter(|((of, _), _)| *of == category).map(|(_, price)| *price).collect();
                prices.iter().sum::<i64>() as f64 / prices.len() as f64
            };
            categories.into_iter().map(|category| shown(&[&category, &mean(category)])).collect()
        }
        "q5" => {
            let mut counts: BTreeMap<i64, BTreeMap<i64, i64>> = BTreeMap::new();
            for bid in bids {
                let first = bid.at.div_euclid(2 * SECOND) * 2 * SECOND;
                for back in 0..5 {
                    *counts.entry(first - back * 2 * SECOND).or_default().entry(bid.auction).or_default() += 1;
                }
            }
            let best = counts.values().flat_map(|of| {
                let most = *of.values().max().unwrap();
                of.iter().filter(move |(_, count)| **count == most).map(|(auction, count)| shown(&[auction, count]))
            });
            best.collect()
        }
        "q6" => {
            let mut finals: BTreeMap<i64, Vec<(i64, i64, i64, i64)>> = BTreeMap::new();
            for auction in auctions {
                let open = |bid: &&Bid| bid.auction == auction.id && (auction.at..=auction.expires).contains(&bid.at);
                if let Some(price) = bids.iter().filter(open).map(|bid| bid.price).max() {
                    finals.entry(auction.seller).or_default().push((auction.expires, auction.at, auction.id, price));
                }
            }
            let mut averages = BTreeSet::new();
            for (seller, mut closed) in finals {
                closed.sort_unstable();
                for count in 1..=closed.len() {
                    let last = &closed[count.saturating_sub(10)..count];
                    let sum: i64 = last.iter().map(|(.., price)| price).sum();
                    averages.insert(shown(&[&seller, &(sum as f64 / last.len() as f64)]));
                }
            }
            averages
        }
        "q7" => {
            let mut best: BTreeMap<i64, i64> = BTreeMap::new();
            for bid in bids {
                let most = best.entry(window(bid.at) + 10 * SECOND).or_insert(bid.price);
                *most = (*most).max(bid.price);
            }
            let won = |bid: &&Bid| {
                best.iter().any(|(end, price)| *price == bid.price && end - 10 * SECOND <= bid.at && bid.at <= *end)
            };
            bids.iter()
                .filter(won)
                .map(|bid| shown(&[&bid.auction, &bid.price, &bid.bidder, &bid.at, &extra]))
                .collect()
        }
        "q8" => {
            let sold: BTreeSet<(i64, i64)> =
                auctions.iter().map(|auction| (auction.seller, window(auction.at))).collect();
            let new = people.iter().filter(|person| sold.contains(&(person.id, window(person.at))));
            new.map(|person| shown(&[&person.id, &name_of(person), &window(person.at)])).collect()
        }
        "q11" => {
            let mut of: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            bids.iter().for_each(|bid| of.entry(bid.bidder).or_default().push(bid.at));
            let mut sessions = BTreeSet::new();
            for (bidder, mut times) in of {
                times.sort_unstable();
                let mut open: Vec<(i64, i64, i64)> = vec![];
                for at in times {
                    match open.last_mut() {
                        // Two that touch become one.
                        Some((_, end, count)) if at <= *end => {
                            *end = at + 10 * SECOND;
                            *count += 1;
                        }
                        _ => open.push((at, at + 10 * SECOND, 1)),
                    }
                }
                sessions.extend(open.into_iter().map(|(start, end, count)| shown(&[&bidder, &count, &start, &end])));
            }
            sessions
        }
        other => unreachable!("{other}"),
    }
}

/// The events as rows, in the order of `order`.
fn told_in(order: &[u32], bids: &[Bid], auctions: &[Auction], people: &[Person]) -> Vec<(&'static str, Row)> {
    let int = Value::Int;
    let text = |text: &str| Value::String(text.to_owned());
    let mut all: Vec<(&'static str, Row)> = vec![];
    all.extend(bids.iter().map(|bid| {
        (
            "bid",
            row_of(&[
                ("auction", int(bid.auction)),
                ("bidder", int(bid.bidder)),
                ("price", int(bid.price)),
                ("dateTime", int(bid.at)),
                ("extra", text("")),
            ]),
        )
    }));
    all.extend(auctions.iter().map(|one| {
        (
            "auction",
            row_of(&[
                ("id", int(one.id)),
                ("seller", int(one.seller)),
                ("category", int(one.category)),
                ("dateTime", int(one.at)),
                ("expires", int(one.expires)),
            ]),
        )
    }));
    all.extend(people.iter().map(|one| {
        (
            "person",
            row_of(&[
                ("id", int(one.id)),
                ("name", text(&name_of(one))),
                ("city", text("c")),
                ("state", text(one.state)),
                ("dateTime", int(one.at)),
            ]),
        )
    }));
    let mut shuffled: Vec<(u32, (&'static str, Row))> = order.iter().copied().cycle().zip(all).collect();
    shuffled.sort_by_key(|(order, _)| *order);
    shuffled.into_iter().map(|(_, event)| event).collect()
}

proptest! {
    #[test]
    fn nexmark_comes_to_what_looking_at_everything_does(
        (bids, auctions, people) in events(),
        order in prop::collection::vec(any::<u32>(), 40),
        batch in 1usize..9,
        query in prop::sample::select(vec!["q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q11"]),
    ) {
        let all = told_in(&order, &bids, &auctions, &people);
        prop_assert_eq!(run(query, &all, batch), expected(query, &bids, &auctions, &people), "{}", query);
    }

    /// Sellers of more than ten auctions.
    #[test]
    fn the_last_ten_auctions_of_a_seller(
        auctions in prop::collection::vec((1i64..3, 0i64..40, 0i64..30), 40),
        bids in prop::collection::vec((1i64..41, 1i64..1_000, 0i64..60), 0..200),
        order in prop::collection::vec(any::<u32>(), 40),
        batch in 1usize..50,
    ) {
        let auctions: Vec<Auction> = (1..)
            .zip(auctions)
            .map(|(id, (seller, from, length))| {
                Auction { id, seller, category: 10, at: from * SECOND, expires: (from + length) * SECOND }
            })
            .collect();
        let bids: Vec<Bid> = bids
            .into_iter()
            .map(|(auction, price, at)| Bid { auction, bidder: 1, price, at: at * SECOND })
            .collect();
        let all = told_in(&order, &bids, &auctions, &[]);
        prop_assert_eq!(run("q6", &all, batch), expected("q6", &bids, &auctions, &[]));
    }
}
