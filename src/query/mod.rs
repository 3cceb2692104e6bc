#![doc = include_str!("../docs/filter.md")]
//!
//! # Inside
//!
//! A [`Filter`] is a recipe: text is cut into tokens, parsed and type-checked in one pass into a tree whose columns are
//! numbered, and the tree is evaluated over chunks of Arrow columns with a bit for "true" and a bit for "known" a row. JSON
//! text is walked once a row, for all places that the filter reads. Whatever the text, parsing ends with a filter or a
//! positioned error: its length and the depth of its tree are bounded.
//!
//! Deliberately absent: which rows a segment has, what an index does with the mask, and Arrow's compute kernels, which would
//! cost the browser more bytes than this whole room.

mod aggregate;
mod arithmetic;
mod check;
pub mod compute;
pub(crate) mod cursor;
mod evaluate;
mod explain;
mod expression;
pub(crate) mod fault;
mod filter;
mod indexed;
mod json;
mod like;
mod number;
mod parser;
mod partition;
mod plan;
mod prune;
mod rank;
mod regex;
mod set;
mod ternary;
#[cfg(test)]
mod tests;
mod token;

pub use aggregate::{Accumulator, Aggregate, Function, Order, compare, group_key};
pub use explain::{Actual, Plan};
pub use filter::{Filter, Parameters};
pub use indexed::{Answers, Indexes};
pub use plan::{Access, SegmentSearch};
pub use rank::{Curve, Decay, DecayFunction, Ranker, Rerank};

/// Longest expression: room for a list of 100,000 keys.
const TEXT_BYTES_MAX: usize = 2 << 20;

/// Deepest tree, and deepest recursion of the parser: a few hundred bytes of stack each, of the 1 MiB that WebAssembly has.
const DEPTH_MAX: usize = 128;
