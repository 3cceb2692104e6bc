use std::fmt::Write as _;

use super::node::{JoinScope, Nearness, Node, Operator, Plan};
use super::window::{Output, Pace, Span};
use crate::base::Result;

impl Plan {
    /// The graph as text: from each sink back to its sources, what a node does and what it gives. A node that several take is drawn once,
    /// and named after that.
    ///
    /// # Errors
    /// As of [`Self::check`].
    pub fn explain(&self) -> Result<String> {
        self.explain_with(&|_| String::new())
    }

    /// The same, with what `more` says behind what each node does.
    ///
    /// # Errors
    /// As of [`Self::check`].
    pub(crate) fn explain_with(&self, more: &dyn Fn(&Node) -> String) -> Result<String> {
        let checked = self.checked()?;
        let mut text = String::new();
        let mut drawn = vec![false; self.nodes.len()];
        for at in (0..self.nodes.len()).rev() {
            if checked.outputs[at].is_empty() {
                self.draw(at, 0, &mut drawn, &mut text, more, &|at| {
                    let relation = &checked.relations[at];
                    let fields: Vec<_> = relation
                        .fields
                        .iter()
                        .map(|field| {
                            let mark = if field.nullable { "?" } else { "" };
                            format!("{} {}{mark}", field.name, field.data_type.name())
                        })
                        .collect();
                    let kind = match (relation.updates, relation.retracts) {
                        (true, _) => ", updates",
                        (_, true) => ", retractions",
                        _ => "",
                    };
                    (format!("({}){kind}", fields.join(", ")), checked.inputs[at].clone())
                });
            }
        }
        Ok(text)
    }

    fn draw(
        &self,
        at: usize,
        depth: usize,
        drawn: &mut [bool],
        text: &mut String,
        more: &dyn Fn(&Node) -> String,
        about: &dyn Fn(usize) -> (String, Vec<usize>),
    ) {
        let node = &self.nodes[at];
        let indent = "  ".repeat(depth);
        if std::mem::replace(&mut drawn[at], true) {
            let _ = writeln!(text, "{indent}{} (above)", node.name);
            return;
        }
        let (gives, inputs) = about(at);
        let _ = writeln!(text, "{indent}{}: {}{} -> {gives}", node.name, describe(node), more(node));
        inputs.into_iter().for_each(|input| self.draw(input, depth + 1, drawn, text, more, about));
    }
}

fn list(names: &[String]) -> String {
    names.join(", ")
}

/// What a node does, in a line.
fn describe(node: &Node) -> String {
    match &node.operator {
        Operator::Source(source) => {
            let mut text = "source".to_owned();
            if let Some(time) = &source.time {
                let _ = write!(text, " by {time}, watermark {} behind", Span(source.watermark.delay));
            }
            if let Some(idle) = source.watermark.idle {
                let _ = write!(text, ", idle after {}", Span(idle));
            }
            text
        }
        Operator::Filter { condition } => format!("filter {condition}"),
        Operator::Project { columns } => {
            let columns: Vec<_> = columns.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            format!("project {}", columns.join(", "))
        }
        Operator::Unnest { field, item } => format!("unnest {field} as {}", item.name),
        Operator::Window { window, processing_time } => {
            format!("window {window}{}", if *processing_time { " of processing time" } else { "" })
        }
        Operator::Aggregate(aggregate) => {
            let columns: Vec<_> = aggregate.aggregates.iter().map(ToString::to_string).collect();
            let mut text = format!("aggregate {}", aggregate.window);
            if aggregate.trigger.processing_time {
                text.push_str(" of processing time");
            }
            if !aggregate.keys.is_empty() {
                let _ = write!(text, " by {}", list(&aggregate.keys));
            }
            let _ = write!(text, ": {}", columns.join(", "));
            let pace = |pace: Pace| match pace {
                Pace::Count(rows) => format!("every {rows} rows"),
                Pace::Interval(span) => format!("every {}", Span(span)),
                Pace::Batch => "every batch".to_owned(),
            };
            if let Some(evictor) = &aggregate.evictor {
                let _ = write!(text, "; {evictor}");
            }
            if let Some(early) = aggregate.trigger.early {
                let _ = write!(text, "; early {}", pace(early));
            }
            if let Some(late) = aggregate.trigger.late {
                let _ = write!(text, "; late {}", pace(late));
            }
            if aggregate.lateness > 0 {
                let _ = write!(text, "; {} late", Span(aggregate.lateness));
            }
            text.push_str(match aggregate.output {
                Output::Close => "",
                Output::Accumulating => "; accumulating",
                Output::Discarding => "; discarding",
                Output::Retracting => "; retracting",
            });
            text
        }
        Operator::Join(join) => {
            let keys: Vec<_> = join.keys.iter().map(|(left, right)| format!("{left} == {right}")).collect();
            let mut text = format!("{:?} join on {}", join.kind, keys.join(", ")).to_lowercase();
            match join.scope {
                JoinScope::Window(window) => {
                    let _ = write!(text, " in {window}");
                }
                JoinScope::Interval { lower, upper } => {
                    let _ = write!(text, " within {} to {}", Span(lower), Span(upper));
                }
                JoinScope::Unbounded => {}
            }
            if let Some(condition) = &join.condition {
                let _ = write!(text, " where {condition}");
            }
            text
        }
        Operator::Lookup(lookup) => format!("join with {} by {}", lookup.collection, lookup.key),
        Operator::Nearest(nearest) => {
            format!("join with the {} nearest of {} to {}", nearest.limit, nearest.collection, nearest.vector)
        }
        Operator::Distinct { keys } => format!("distinct {}", list(keys)),
        Operator::Dedupe(dedupe) => {
            let metric = match dedupe.metric {
                Nearness::Cosine => "cosine",
                Nearness::L2 => "l2",
            };
            let (vector, radius, within) = (&dedupe.vector, dedupe.radius, Span(dedupe.within));
            let mut text = format!("dedupe {vector} within {metric} {radius} for {within}");
            if !dedupe.keys.is_empty() {
                let _ = write!(text, " of each {}", list(&dedupe.keys));
            }
            if let Some(duplicates) = &dedupe.duplicates {
                let _ = write!(text, ", {} = {} of the nearest", duplicates.name, duplicates.of);
            }
            text
        }
        Operator::Top(top) => {
            let order: Vec<_> = top
                .order
                .iter()
                .map(|(value, descending)| format!("{value}{}", if *descending { " desc" } else { "" }))
                .collect();
            let limit = if top.limit == 0 { "all".to_owned() } else { format!("top {}", top.limit) };
            let mut text = format!("{limit} by {}", order.join(", "));
            if !top.keys.is_empty() {
                let _ = write!(text, " of each {}", list(&top.keys));
            }
            text
        }
        Operator::Union => "union".to_owned(),
        Operator::Call { function, .. } => format!("call {function}"),
        Operator::Sink(sink) => match &sink.collection {
            Some(collection) => format!("sink into {collection}"),
            None => "sink".to_owned(),
        },
    }
}
