//! Indexes over one vector field of one segment: `build -> bytes`, `open(bytes) -> searcher`; a mask goes in, row numbers
//! and distances come out. An index never sees a filter expression, a file, or a key.

mod spec;

pub use spec::{IndexKind, IndexSpec};
