#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this room is where the clock and randomness come from"
)]

use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

/// `Send` where there are threads, everything elsewhere.
pub trait MaybeSend: Send {}
impl<T: Send + ?Sized> MaybeSend for T {}
/// `Sync` where there are threads, everything elsewhere.
pub trait MaybeSync: Sync {}
impl<T: Sync + ?Sized> MaybeSync for T {}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    // A clock set before 1970 counts as 1970: hybrid timestamps stay ordered by their counter then.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// 64 random bits from the operating system.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u64::from_le_bytes(bytes)
}

/// Runs `task` on the runtime of the caller, to its end.
#[cfg(feature = "server")]
pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Waits.
#[cfg(feature = "server")]
pub async fn sleep_ms(ms: u64) {
    tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
}
