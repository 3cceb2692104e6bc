use wasm_bindgen::prelude::*;

use super::message::{self, SyncStatusMessage};
use crate::platform;

/// A running sync.
#[wasm_bindgen]
pub struct SyncSession {
    session: crate::db::SyncSession,
}

impl SyncSession {
    /// Tells every status, the present one first, to `listener` until the session has stopped.
    pub(super) fn new(session: crate::db::SyncSession, listener: js_sys::Function) -> Self {
        let mut statuses = session.listen();
        platform::spawn(async move {
            while let Some(status) = statuses.next().await {
                let bytes = message::encode(&SyncStatusMessage::from(&status));
                // A listener that throws loses this status, and is told the next one.
                let _ = listener.call1(&JsValue::NULL, &js_sys::Uint8Array::from(bytes.as_slice()));
            }
        });
        Self { session }
    }
}

#[wasm_bindgen]
impl SyncSession {
    /// Disconnects and stays so until `resume`.
    pub fn pause(&self) {
        self.session.pause();
    }

    /// Connects again, at once.
    pub fn resume(&self) {
        self.session.resume();
    }

    /// Ends for good.
    pub fn stop(&self) {
        self.session.stop();
    }
}
