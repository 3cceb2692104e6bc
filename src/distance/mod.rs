//! Metrics and kernels. Scalar code is the truth; `arch` holds one thin file per instruction set, chosen once.
//!
//! A kernel gives a plain number (a product, a squared distance); what that means as a distance is [`Metric`]'s. Integer
//! kernels give the same number on every target, which is what lets an index built in a browser equal one built on a
//! server byte for byte; float kernels differ in the order of summation, within the tolerance that their tests state.

mod aligned;
mod arch;
mod bits;
mod kernels;
mod metric;
mod pages;
mod sparse;
#[cfg(test)]
mod tests;

pub use aligned::AlignedVec;
#[cfg(test)]
pub use bits::{hamming, jaccard};
pub use kernels::{Isa, Kernels, Sum, kernels};
pub use metric::Metric;
pub use sparse::dot_sparse;
