//! Codes that stand for vectors: train, encode, score, and the byte layout of each.

mod sq8;

pub use sq8::{Query, Sq8};
