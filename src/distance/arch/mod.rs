//! One thin file per instruction set.

mod scalar;

use super::Kernels;

/// The kernels that this processor runs, fastest first.
pub(super) fn available() -> &'static [&'static Kernels] {
    static SCALAR: [&Kernels; 1] = [&scalar::KERNELS];
    &SCALAR
}
