//! Metrics and kernels. Scalar code is the truth; `arch` holds one thin file per instruction set, chosen once.

mod metric;

pub use metric::Metric;
