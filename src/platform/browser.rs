use std::future::Future;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::Task;

/// `Send` where there are threads, everything elsewhere.
pub trait MaybeSend {}
impl<T: ?Sized> MaybeSend for T {}
/// `Sync` where there are threads, everything elsewhere.
pub trait MaybeSync {}
impl<T: ?Sized> MaybeSync for T {}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;

    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &js_sys::Function, ms: f64) -> JsValue;

    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timeout: &JsValue);
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    js_sys::Date::now() as u64
}

/// Microseconds since the host's thread began, as exactly as it tells.
pub fn now_us() -> u64 {
    (performance_now() * 1e3) as u64
}

#[cfg(feature = "streams")]
mod zone {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use wasm_bindgen::prelude::*;

    /// How many zones are kept: to make what shows the time of one takes the host as long as to show it some hundred times.
    const KEPT_MAX: usize = 64;

    #[wasm_bindgen]
    extern "C" {
        #[wasm_bindgen(js_namespace = Intl)]
        type DateTimeFormat;

        #[wasm_bindgen(constructor, catch, js_namespace = Intl)]
        fn new(locale: &str, options: &JsValue) -> Result<DateTimeFormat, JsValue>;

        #[wasm_bindgen(method)]
        fn format(this: &DateTimeFormat, at_ms: f64) -> String;
    }

    thread_local! {
        static KEPT: RefCell<BTreeMap<String, DateTimeFormat>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// How many seconds the clocks of the time zone `zone` are ahead of UTC at a moment, in seconds since 1970; `None` when there is no such zone.
    pub fn zone_offset_s(zone: &str, at_s: i64) -> Option<i32> {
        KEPT.with_borrow_mut(|kept| {
            if !kept.contains_key(zone) {
                let options = js_sys::Object::new();
                for (name, value) in [("timeZone", zone), ("timeZoneName", "longOffset")] {
                    js_sys::Reflect::set(&options, &name.into(), &value.into()).ok()?;
                }
                let format = DateTimeFormat::new("en-US", &options).ok()?;
                if kept.len() >= KEPT_MAX {
                    kept.clear();
                }
                kept.insert(zone.to_owned(), format);
            }
            super::super::offset::parse(&kept[zone].format(at_s as f64 * 1e3))
        })
    }
}
#[cfg(feature = "streams")]
pub use zone::zone_offset_s;

/// 64 random bits from the host.
#[expect(clippy::disallowed_methods, reason = "this room is where randomness comes from")]
pub fn random_u64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the host gives random bytes");
    u64::from_le_bytes(bytes)
}

/// Runs `task` on the host's event loop, to its end.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    wasm_bindgen_futures::spawn_local(task);
}

/// A timer of the host.
struct Timeout(JsValue);

impl Drop for Timeout {
    /// One that nobody waits for any more would keep a program running, and an edge object in memory.
    fn drop(&mut self) {
        clear_timeout(&self.0);
    }
}

/// Waits; with 0, lets the host's other work run first.
pub async fn sleep_ms(ms: u64) {
    let mut timeout = None;
    let promise = js_sys::Promise::new(&mut |resolve, _| timeout = Some(Timeout(set_timeout(&resolve, ms as f64))));
    let _timeout = timeout;
    JsFuture::from(promise).await.expect("a timer's promise is never rejected");
}

/// What `work` makes of 0 to `count`, one after the other: here is one thread.
pub fn map<T>(_threads: usize, count: usize, work: impl Fn(usize) -> T) -> Vec<T> {
    (0..count).map(work).collect()
}

/// Runs `task` to its end in the background; nobody gets it back here.
pub fn detach(task: impl Future<Output = ()> + 'static) -> Option<std::future::Ready<()>> {
    spawn(task);
    None
}

/// Runs `task` to its end even when the caller stops waiting for it: half a commit must not be left behind by a request that
/// was given up.
pub fn run_to_end<T: 'static>(task: impl Future<Output = T> + 'static) -> Task<'static, T> {
    let task = Box::pin(task);
    Box::pin(async move {
        let (done, waiting) = futures_channel::oneshot::channel();
        spawn(async move {
            // The caller may be gone: then nobody waits for the value.
            let _ = done.send(task.await);
        });
        waiting.await.expect("the host runs every task to its end")
    })
}

/// How many tasks should run at once beside the caller: there is one thread.
pub fn threads_beside() -> usize {
    0
}
