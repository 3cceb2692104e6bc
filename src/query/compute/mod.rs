//! Columns that are computed: a tree of columns, literals and calls, bound to the fields that it reads and evaluated over whole
//! Arrow batches.
//!
//! Its texts are those of the [filter language](super); arithmetic is the filter's own: what does not fit, a division by
//! zero and what is not finite are null, and so is a call of null, but for those that say otherwise. Types are few:
//! `bool`, `int64`, `double`, `timestamp`, `varchar`, `json` and `float_vector`; whoever makes the batches widens to them
//! ([`canonical`]).
//!
//! Sums go in order and in `f64`, and no function is here whose last bit differs between targets (powers, logarithms).

mod bind;
mod evaluate;
mod expression;
mod function;
#[cfg(test)]
mod tests;

pub use bind::{Computed, canonical};
pub(crate) use evaluate::distance;
pub use expression::Expression;
pub use function::Function;
