#![doc = include_str!("../docs/streams.md")]
//!
//! # Inside
//!
//! A plan of operators over rows that keep coming, windows over their event time, and the state between.
//!
//! A [`Plan`] is data: whoever builds it (a pipeline in TypeScript or Rust, a statement of SQL) gets the same run. Everything here is
//! pure: input and `now` are arguments, nothing awaits, no clock is read, and the same calls give the same bytes on every target.
//! Times are microseconds since 1970, as `timestamp` fields have them. A watermark of `t` says that no row of time `t` or before
//! comes any more.
//!
//! Deliberately absent: where rows come from and go to, and who keeps checkpoints: that is `db`'s.

mod accumulate;
mod adaptive;
mod bottleneck;
mod buffer;
#[cfg(feature = "streams")]
pub mod bus;
mod checkpoint;
mod edge;
mod exact;
mod job;
mod mode;
mod operator;
mod plan;
mod producers;
mod recent;
mod rows;
mod sketch;
mod source;
mod span;
pub mod sql;
mod state;
#[cfg(test)]
mod tests;
mod zone;

pub use adaptive::{Adaptive, Sizer};
pub use bottleneck::{Bottleneck, BottleneckReason, Stage, StageKind, bottleneck};
pub use buffer::{Batching, Buffer, Found, PIECE_ROWS_MAX, Piece, Room};
pub use job::{Given, Job, Metrics, Options};
pub use mode::SourceMode;
pub use operator::{Answer, DeadLetter, Overflow, Wanted, WantedKind};
pub use plan::{
    Aggregate, AggregateFunction, Dedupe, Duplicates, Evictor, Join, JoinKind, JoinScope, Keep, Lookup, Measure,
    Nearest, Nearness, Node, Operator, Output, Pace, Plan, Reference, Relation, Sink, Source, SourceField, Top,
    Trigger, WINDOW_END, WINDOW_START, Watermark, Window, WindowAggregate,
};
pub use producers::{KeyedPush, Known, PartitionKeys, Producers, PushKey};
#[cfg(feature = "streams")]
pub(crate) use recent::Recent;
pub use rows::Rows;
pub use zone::{ZoneName, Zones};
