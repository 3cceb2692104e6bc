//! One thin file per instruction set: it names its lanes ([`lanes::Floats`], [`lanes::Codes`]); the loops over them are
//! written once, in `lanes`. `scalar` is written plainly, apart from all that, because it is the truth.
#![cfg_attr(simd, expect(unsafe_code, reason = "intrinsics, and reads that one check a row covers"))]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(simd)]
mod lanes;
mod scalar;
#[cfg(all(simd, target_arch = "wasm32"))]
mod wasm32;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::sync::OnceLock;

use super::Kernels;

/// The kernels that this processor runs, fastest first.
pub(super) fn available() -> &'static [&'static Kernels] {
    static AVAILABLE: OnceLock<Vec<&Kernels>> = OnceLock::new();
    AVAILABLE.get_or_init(|| {
        let mut available: Vec<&Kernels> = vec![&scalar::KERNELS];
        #[cfg(all(simd, target_arch = "wasm32"))]
        available.push(&wasm32::KERNELS);
        #[cfg(target_arch = "aarch64")]
        available.extend(aarch64::available().rev());
        #[cfg(target_arch = "x86_64")]
        available.extend(x86_64::available().rev());
        available.reverse();
        available
    })
}
