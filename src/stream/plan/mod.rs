//! The plan as data, what each of its nodes gives, and how it is drawn.

mod aggregate;
mod check;
mod explain;
mod node;
#[cfg(test)]
mod tests;
mod window;

pub use aggregate::{Aggregate, AggregateFunction, Measure, Reference};
pub use check::Relation;
pub(in crate::stream) use check::{Checked, delta_fields};
pub use node::{
    Dedupe, Duplicates, Join, JoinKind, JoinScope, Lookup, Nearest, Nearness, Node, Operator, Plan, Sink, Source,
    SourceField, Top, Watermark, WindowAggregate,
};
pub use window::{Evictor, Keep, Output, Pace, Trigger, Window};

/// The field in which rows of a window have its start.
pub const WINDOW_START: &str = "window_start";
/// The field in which rows of a window have its end, which is the first moment after it.
pub const WINDOW_END: &str = "window_end";
