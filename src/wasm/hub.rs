use std::cell::Cell;
use std::sync::{Arc, Mutex};

use futures_channel::mpsc;
use js_sys::{Function, Promise, Reflect, Uint8Array};
use serde::Deserialize;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::error::{OrThrow, Thrown, to_js};
use super::message;
use crate::base::{Error, ErrorKind, Result};
use crate::db::{Access, Admitted, Db, Gate, Grant, Resting, SyncHub};
use crate::platform::socket::{Connection, MESSAGE_BYTES_MAX};
use crate::platform::{self, Task};
use crate::sync::HubOptions;

/// Frames that a client sends while earlier ones are applied wait here; one that sends more than this is no client of ours, for these wait
/// for answers.
const WAITING_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;

/// What JavaScript says that the holder of a token may do.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AdmittedMessage {
    /// Everything, without.
    grants: Option<Vec<Grant>>,
    expires_at: Option<f64>,
}

/// A function that takes a token, or nothing, and gives an [`AdmittedMessage`], or throws.
struct Admit(Function);

impl Gate for Admit {
    fn admit(&self, token: Option<&str>, _now_ms: u64) -> Result<Admitted> {
        let token = token.map_or(JsValue::UNDEFINED, JsValue::from_str);
        let answer = self.0.call1(&JsValue::NULL, &token).map_err(|thrown| {
            let text = |name: &str| Reflect::get(&thrown, &name.into()).ok().and_then(|text| text.as_string());
            let kind = text("kind").map_or(ErrorKind::Unauthorized, |kind| ErrorKind::from_name(&kind));
            Error::new(kind, text("message").unwrap_or_else(|| "the token was not taken".to_owned()))
        })?;
        let AdmittedMessage { grants, expires_at } =
            message::decode("what the token allows", &Uint8Array::new(&answer).to_vec())?;
        let access = grants.map_or(Ok(Access::ALL), Access::of)?;
        Ok(Admitted { access, expires_ms: expires_at.map(|ms| ms as u64) })
    }

    /// JavaScript says once what a token allows, and until when.
    fn changed(&self, _version: u64) -> Task<'static, u64> {
        Box::pin(std::future::pending())
    }
}

/// Serves sync clients over connections that JavaScript has.
#[wasm_bindgen]
pub struct Hub {
    hub: SyncHub,
}

impl Hub {
    pub(super) fn new(db: &Db, admit: Option<Function>, create_collections: bool) -> Self {
        let options = HubOptions { create_collections, ..HubOptions::default() };
        let hub = match admit {
            Some(admit) => SyncHub::with_gate(db.clone(), options, Arc::new(Admit(admit))),
            None => SyncHub::new(db.clone(), options),
        };
        Self { hub }
    }
}

#[wasm_bindgen]
impl Hub {
    /// Serves one connection, from where it `rested` if it did. Frames for the client go to `send`, which may promise to have sent them;
    /// `ended` is called once, with an error or nothing, when the connection is to be closed.
    pub fn connect(&self, rested: Option<Vec<u8>>, send: Function, ended: Function) -> Thrown<HubConnection> {
        let (sender, received) = mpsc::unbounded();
        let received = Received { frames: async_lock::Mutex::new(received), bytes: Cell::new(0) };
        let line = Arc::new(Line { send, received });
        let connection = HubConnection {
            hub: self.hub.clone(),
            line,
            frames: Mutex::new(Some(sender)),
            ended,
            resting: Mutex::new(None),
        };
        connection.serve(rested.as_deref()).or_throw()?;
        Ok(connection)
    }

    /// Tells all clients that the hub goes away, and ends their connections.
    pub async fn stop(&self) {
        self.hub.stop().await;
    }
}

/// One connection of a [`Hub`].
#[wasm_bindgen]
pub struct HubConnection {
    hub: SyncHub,
    line: Arc<Line>,
    frames: Mutex<Option<mpsc::UnboundedSender<Vec<u8>>>>,
    ended: Function,
    /// By which it is asked to rest, while it is served.
    resting: Mutex<Option<Resting>>,
}

impl HubConnection {
    fn serve(&self, rested: Option<&[u8]>) -> Result<()> {
        let connection: Arc<dyn Connection> = self.line.clone();
        let (resting, serving) = self.hub.serve_until_rest(connection, rested)?;
        *self.resting.lock().expect("no panic while held") = Some(resting);
        let ended = self.ended.clone();
        platform::spawn(async move {
            let error = match serving.await {
                Ok(true) => return,
                Ok(false) => JsValue::UNDEFINED,
                Err(error) => to_js(&error),
            };
            // What a listener throws is its own affair.
            let _ = ended.call1(&JsValue::NULL, &error);
        });
        Ok(())
    }
}

#[wasm_bindgen]
impl HubConnection {
    /// Takes a frame of the client; false when the connection has ended, or rests.
    pub fn receive(&self, frame: Vec<u8>) -> Thrown<bool> {
        let waiting = &self.line.received.bytes;
        if waiting.get() + frame.len() > WAITING_BYTES_MAX {
            let message = format!("{} bytes wait, and {} more came", waiting.get(), frame.len());
            return Err(Error::new(ErrorKind::Unavailable, message)).or_throw();
        }
        let frames = self.frames.lock().expect("no panic while held");
        let len = frame.len();
        let taken = frames.as_ref().is_some_and(|frames| frames.unbounded_send(frame).is_ok());
        if taken {
            waiting.set(waiting.get() + len);
        }
        Ok(taken)
    }

    /// The client is gone.
    pub fn closed(&self) {
        self.frames.lock().expect("no panic while held").take();
    }

    /// What to go on from with another connection of a hub of this store, when nothing is under way on this one: then it is over here,
    /// without a word to the client. Nothing when it is not quiet.
    pub async fn rest(&self) -> Thrown<Option<Vec<u8>>> {
        let resting = self.resting.lock().expect("no panic while held").clone();
        let Some(resting) = resting else { return Ok(None) };
        let Some(rested) = resting.ask().await else { return Ok(None) };
        if self.line.received.bytes.get() > 0 {
            // A frame came in the same moment: it is not lost, and the connection does not rest.
            self.serve(Some(&rested)).or_throw()?;
            return Ok(None);
        }
        self.closed();
        Ok(Some(rested))
    }
}

/// What the hub sees of a connection.
struct Line {
    send: Function,
    received: Received,
}

/// Frames that have come and are not taken yet.
struct Received {
    frames: async_lock::Mutex<mpsc::UnboundedReceiver<Vec<u8>>>,
    bytes: Cell<usize>,
}

impl Connection for Line {
    fn send(&self, message: Vec<u8>) -> Task<'_, Result<()>> {
        Box::pin(async move {
            let sent = match self.send.call1(&JsValue::NULL, &Uint8Array::from(message.as_slice())) {
                Ok(sent) if sent.is_undefined() => return Ok(()),
                Ok(promised) => JsFuture::from(Promise::resolve(&promised)).await,
                thrown => thrown,
            };
            let failed = |thrown: JsValue| {
                let text = Reflect::get(&thrown, &"message".into()).ok().and_then(|text| text.as_string());
                Error::new(ErrorKind::Unavailable, text.unwrap_or_else(|| "the connection is closed".to_owned()))
            };
            sent.map(|_| ()).map_err(failed)
        })
    }

    fn receive(&self) -> Task<'_, Result<Option<Vec<u8>>>> {
        Box::pin(async move {
            let Ok(frame) = self.received.frames.lock().await.recv().await else { return Ok(None) };
            self.received.bytes.set(self.received.bytes.get() - frame.len());
            Ok(Some(frame))
        })
    }

    /// The host closes it, when it hears that it has ended.
    fn close(&self) -> Task<'_, ()> {
        Box::pin(async {})
    }
}
