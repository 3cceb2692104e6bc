//! Clock, time zones, randomness, tasks and timers: the same names on every target. The only room besides the storage backends and the
//! roof (`wasm`, `server`) that differs between targets.

#[cfg_attr(browser, path = "browser.rs")]
#[cfg_attr(native, path = "native.rs")]
mod host;

mod environment;
#[cfg(all(feature = "streams", any(browser, test)))]
mod offset;
pub mod socket;

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

pub use environment::Environment;
#[cfg(all(native, feature = "server"))]
pub use host::beside;
#[cfg(feature = "streams")]
pub use host::zone_offset_s;
pub use host::{MaybeSend, MaybeSync, detach, map, now_ms, now_us, random_u64, run_to_end, threads_beside};
#[cfg(native)]
pub use host::{block_on, blocking};
// Natively both stand on tokio, which only the feature `server` brings.
#[cfg(any(browser, feature = "server"))]
pub use host::{sleep_ms, spawn};

/// Lets the tasks that are ready run first.
pub async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A boxed future: `Send` where there are threads.
#[cfg(native)]
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed future: `Send` where there are threads.
#[cfg(browser)]
pub type Task<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;
