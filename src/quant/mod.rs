//! Codes that stand for vectors: train, encode, score, and the byte layout of each.
//!
//! What a code is made of follows from the vectors alone, on every target: floats that go into bytes are summed in one fixed order
//! (`sums`), integers by any kernel.

mod coder;
mod factors;
mod kmeans;
mod pq;
mod pq_rows;
mod rabitq;
mod rotation;
mod sq8;
pub(crate) mod sums;

pub use coder::{Coder, Prepared};
use factors::Factors;
pub use kmeans::{KMeans, KMeansRoom, spread};
pub use pq::{Pq, PqTraining};
pub use pq_rows::{PqQuery, PqRows};
pub use rabitq::{BitQuery, RaBitQ, Room};
pub use rotation::Rotation;
pub use sq8::{Lead, Query, Sq8};
