use std::collections::BTreeMap;

use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::error::{OrThrow, Thrown};
use super::message::{self, ReconciledMessage, SyncStatusMessage};
use crate::base::{Error, ErrorKind, Result};
use crate::db::TokenSource;
use crate::platform::{self, Task};

/// A function that promises a token.
pub(super) struct Tokens(pub(super) js_sys::Function);

impl TokenSource for Tokens {
    fn token(&self) -> Task<'static, Result<String>> {
        let called = self.0.call0(&JsValue::NULL);
        Box::pin(async move {
            let token = match called {
                Ok(promised) => JsFuture::from(js_sys::Promise::resolve(&promised)).await,
                thrown => thrown,
            };
            let failed = |thrown: JsValue| {
                let message = js_sys::Reflect::get(&thrown, &"message".into()).ok().and_then(|text| text.as_string());
                Error::new(ErrorKind::Unauthorized, message.unwrap_or_else(|| "no token".to_owned()))
            };
            let token = token.map_err(failed)?;
            token.as_string().ok_or_else(|| Error::new(ErrorKind::Unauthorized, "a token that is no text"))
        })
    }
}

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

    /// Compares what both sides hold, of those collections or of all, and promises what it has changed.
    pub async fn reconcile(&self, names: Option<Vec<String>>) -> Thrown<Vec<u8>> {
        let changed = self.session.clone().reconcile(names.as_deref()).await.or_throw()?;
        let changed = changed.into_iter().map(|(name, done)| (name, ReconciledMessage::from(done)));
        Ok(message::encode(&changed.collect::<BTreeMap<_, _>>()))
    }

    /// Ends for good.
    pub fn stop(&self) {
        self.session.stop();
    }
}
