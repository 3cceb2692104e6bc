//! What nodes do: each takes rows and watermarks, and gives rows and watermarks, in order.

mod aggregate;
mod dedupe;
mod join;
mod outside;
mod plain;
mod top;
mod waiting;

use super::plan::{Checked, Operator, Plan, Relation};
use super::rows::Rows;
use super::span::Spans;
use super::state::{Reader, Writer};
use super::zone::Zones;
use crate::base::{Error, ErrorKind, Result};
pub use outside::{Answer, Wanted, WantedKind};

/// What goes from node to node.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Rows(Rows),
    /// No row of this time or before comes any more, but late ones. `i64::MAX` when the sources have ended.
    Watermark(i64),
}

/// What happens when a node would keep more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The job fails, with the error `storage_full`; its last checkpoint is as it was.
    #[default]
    Fail,
    /// Rows of keys that are not there yet become dead letters.
    Refuse,
}

/// A row that was not taken, and why.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// The node that did not take it.
    pub node: String,
    /// The row, in a batch of one or more.
    pub rows: Rows,
    /// Why.
    pub reason: String,
}

/// What an operator is called with, and where it puts what it gives.
pub(super) struct Context<'a> {
    pub now: i64,
    pub out: Vec<Item>,
    /// Late rows, and the node that takes them.
    pub aside: Vec<(usize, Rows)>,
    pub wanted: Vec<WantedKind>,
    pub first_wanted: u64,
    pub dead: Vec<DeadLetter>,
    pub late: u64,
    pub entries_max: usize,
    pub overflow: Overflow,
    pub name: &'a str,
}

impl Context<'_> {
    /// Whether a node that keeps `held` entries may keep one more for row `row` of `rows`.
    pub fn admits(&mut self, held: usize, rows: &Rows, row: usize) -> Result<bool> {
        if held < self.entries_max {
            return Ok(true);
        }
        let reason = format!("node {:?} keeps {held} keys or rows, the most that it may", self.name);
        match self.overflow {
            Overflow::Fail => Err(Error::new(ErrorKind::StorageFull, reason)),
            Overflow::Refuse => {
                self.dead.push(DeadLetter { node: self.name.to_owned(), rows: rows.take(&[row as u32]), reason });
                Ok(false)
            }
        }
    }

    /// The number by which the answer is told.
    pub fn want(&mut self, kind: WantedKind) -> u64 {
        self.wanted.push(kind);
        self.first_wanted + self.wanted.len() as u64 - 1
    }
}

/// One node as it runs.
pub(super) trait Operate: Send {
    fn rows(&mut self, input: usize, rows: Rows, cx: &mut Context<'_>) -> Result<()>;

    /// The least watermark of its inputs has come to `watermark`.
    fn watermark(&mut self, watermark: i64, cx: &mut Context<'_>) -> Result<()> {
        cx.out.push(Item::Watermark(watermark));
        Ok(())
    }

    /// Time has passed, to `cx.now`.
    fn clock(&mut self, _cx: &mut Context<'_>) -> Result<()> {
        Ok(())
    }

    /// The next moment of `now` at which there is something to do.
    fn next_clock(&self) -> Option<i64> {
        None
    }

    /// What it wanted came; whether it was waited for.
    fn answer(&mut self, _id: u64, _answer: &Answer, _cx: &mut Context<'_>) -> Result<bool> {
        Ok(false)
    }

    /// How many keys or rows it keeps, and about how many bytes these take.
    fn held(&self) -> (usize, usize) {
        (0, 0)
    }

    /// Its state, as [`load`](Self::load) of a new one of the same plan takes it.
    fn save(&self, _out: &mut Writer) {}

    fn load(&mut self, _reader: &mut Reader<'_>, _cx: &mut Context<'_>) -> Result<()> {
        Ok(())
    }
}

/// The operator of node `at` of a plan that was checked.
pub(super) fn build(plan: &Plan, checked: &Checked, at: usize, zones: Zones) -> Result<Box<dyn Operate>> {
    let inputs: Vec<&Relation> = checked.inputs[at].iter().map(|input| &checked.relations[*input]).collect();
    let gives = &checked.relations[at];
    Ok(match &plan.nodes[at].operator {
        Operator::Source(_) | Operator::Union | Operator::Sink(_) => Box::new(plain::Pass::new(gives)),
        Operator::Filter { condition } => Box::new(plain::Filter::new(condition, inputs[0])?),
        Operator::Project { columns } => Box::new(plain::Project::new(columns, inputs[0], gives)?),
        Operator::Unnest { field, .. } => Box::new(plain::Unnest::new(field, inputs[0], gives)),
        Operator::Window { window, processing_time } => {
            Box::new(plain::Attach::new(Spans::new(*window, zones), *processing_time, gives))
        }
        Operator::Aggregate(spec) => {
            let late = spec.late.as_ref().and_then(|late| plan.nodes.iter().position(|node| node.name == *late));
            Box::new(aggregate::Aggregator::new(spec, late, zones, inputs[0], gives)?)
        }
        Operator::Join(join) => Box::new(join::Joiner::new(join, zones, [inputs[0], inputs[1]], gives)?),
        Operator::Distinct { keys } => Box::new(top::Distinct::new(keys, inputs[0])),
        Operator::Dedupe(spec) => Box::new(dedupe::Deduper::new(spec, inputs[0], gives)),
        Operator::Top(spec) => Box::new(top::Ranking::new(spec, inputs[0], gives)?),
        Operator::Lookup(lookup) => Box::new(outside::Asker::lookup(lookup, inputs[0], gives)?),
        Operator::Nearest(nearest) => Box::new(outside::Asker::nearest(nearest, inputs[0], gives)?),
        Operator::Call { function, time, .. } => Box::new(outside::Asker::call(function, time.as_deref(), gives)),
    })
}
