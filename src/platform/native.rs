#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this room is where the clock and randomness come from"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Task;

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

/// Microseconds since this was asked first.
pub fn now_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// 64 random bits from the operating system.
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u64::from_le_bytes(bytes)
}

/// How many seconds the clocks of the time zone `zone` are ahead of UTC at a moment, in seconds since 1970; `None` when there is no such zone.
#[cfg(feature = "streams")]
pub fn zone_offset_s(zone: &str, at_s: i64) -> Option<i32> {
    let zone = jiff::tz::db().get(zone).ok()?;
    let at_s = at_s.clamp(jiff::Timestamp::MIN.as_second(), jiff::Timestamp::MAX.as_second());
    let at = jiff::Timestamp::from_second(at_s).expect("a moment within the years that there are");
    Some(zone.to_offset(at).seconds())
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

/// Runs `future` to its end on this thread, without a runtime: for tests and tools.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        // A wake between the poll and the park is kept: `park` returns at once then.
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Runs a call that may block. On a thread of tokio's multi-thread runtime the other tasks of that thread move on to another one
/// first; elsewhere the caller waits. The call is never left half done: there is no point at which it can be cancelled.
pub fn blocking<T>(call: impl FnOnce() -> T) -> T {
    #[cfg(feature = "server")]
    if tokio::runtime::Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread)
    {
        return tokio::task::block_in_place(call);
    }
    call()
}

/// What `work` makes of 0 to `count`, on at most `threads` threads of a pool that all of the process share. It should take its time:
/// to wake a thread takes about as long as to compare some hundred vectors.
pub fn map<T: Send>(threads: usize, count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    use rayon::prelude::*;
    if threads <= 1 || count <= 1 {
        return (0..count).map(work).collect();
    }
    (0..count).into_par_iter().with_min_len(count.div_ceil(threads)).map(&work).collect()
}

/// Runs `task` to its end in the background; without a runtime there is none, and the caller gets it back.
pub fn detach(task: impl Future<Output = ()> + Send + 'static) -> Option<Task<'static, ()>> {
    #[cfg(feature = "server")]
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(task);
        return None;
    }
    Some(Box::pin(task))
}

/// Runs `task` to its end even when the caller stops waiting for it: half a commit must not be left behind by a request that
/// was given up. Without a runtime the caller carries it itself; in a box, for what holds a task by value is moved with all its bytes,
/// whether they are in use or not.
pub fn run_to_end<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<'static, T> {
    let task = Box::pin(task);
    Box::pin(async move {
        #[cfg(feature = "server")]
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            return match runtime.spawn(task).await {
                Ok(value) => value,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => std::future::pending().await,
            };
        }
        task.await
    })
}

/// How many tasks should run at once [`beside`] the caller: half of what the machine can, for reads and writes have the other half. None
/// without a runtime of several threads.
pub fn threads_beside() -> usize {
    #[cfg(feature = "server")]
    if tokio::runtime::Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread)
    {
        return std::thread::available_parallelism().map_or(1, |threads| threads.get().div_ceil(2));
    }
    0
}

/// Runs `task` to its end on a thread of its own that may compute for long.
///
/// # Panics
/// Without a runtime: where [`threads_beside`] is not 0 there is one.
#[cfg(feature = "server")]
pub fn beside<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> Task<'static, T> {
    let runtime = tokio::runtime::Handle::current();
    let running = tokio::task::spawn_blocking(move || runtime.block_on(task));
    Box::pin(async move {
        match running.await {
            Ok(value) => value,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => std::future::pending().await,
        }
    })
}
