//! The JavaScript roof: wasm-bindgen classes over `db`, one file a class. Holds no rules: whatever it can do, a test can do
//! through `db`.
//!
//! A class method takes and returns MessagePack bytes (see [`message`](self)), so that one call carries a whole batch; an
//! error is thrown as a JavaScript `Error` with `kind` and, where a character is meant, `position`. The npm package in
//! `pkg/` runs these classes in a dedicated worker and is the only caller that we promise anything to.

mod changes;
mod collection;
mod database;
mod error;
#[cfg(feature = "hub")]
mod hub;
mod iterator;
mod live;
mod message;
#[cfg(feature = "streams")]
mod pipeline;
mod pool;
mod sync;

use std::cell::RefCell;

pub use changes::ChangeStream;
pub use collection::Collection;
pub use database::Database;
#[cfg(feature = "hub")]
pub use hub::{Hub, HubConnection};
pub use live::LiveQueries;
pub use pool::PoolWorker;
pub use sync::SyncSession;
use wasm_bindgen::prelude::*;

thread_local! {
    static PANIC_LISTENER: RefCell<Option<js_sys::Function>> = const { RefCell::new(None) };
}

/// From now on `make` is called with the URL of each connection to a hub, and gives a WebSocket, or what has its members.
#[wasm_bindgen(js_name = makeSocketsBy)]
pub fn make_sockets_by(make: js_sys::Function) {
    crate::platform::socket::make_sockets_by(make);
}

/// From now on `download` is called for each part of a file that a hub offers: with the hub's URL, the file's path below it, a token or
/// nothing, from which byte and how many.
#[wasm_bindgen(js_name = downloadBy)]
pub fn download_by(download: js_sys::Function) {
    crate::platform::socket::download_by(download);
}

/// Hands every panic's message to `listener` before the instance stops: a panic in a task would otherwise leave its
/// promise pending for ever. The instance must not be used afterwards.
#[wasm_bindgen(js_name = onPanic)]
pub fn on_panic(listener: js_sys::Function) {
    PANIC_LISTENER.with_borrow_mut(|slot| *slot = Some(listener));
    std::panic::set_hook(Box::new(|info| {
        console_error_panic_hook::hook(info);
        PANIC_LISTENER.with_borrow(|slot| {
            if let Some(listener) = slot {
                // A listener that throws cannot be told so: the instance is going down already.
                let _ = listener.call1(&JsValue::NULL, &JsValue::from_str(&info.to_string()));
            }
        });
    }));
}
