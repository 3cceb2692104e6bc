use async_lock::Mutex;
use wasm_bindgen::prelude::*;

use super::error::{OrThrow, Thrown};
use super::message::ChangesOut;
use crate::base::{Error, ErrorKind};
use crate::db::{Collection, ResumeToken};

/// What happens to a collection.
#[wasm_bindgen]
pub struct ChangeStream {
    collection: Collection,
    stream: Mutex<Option<crate::db::ChangeStream>>,
    bigint: bool,
}

impl ChangeStream {
    pub(super) fn new(collection: Collection, stream: crate::db::ChangeStream, bigint: bool) -> Self {
        Self { collection, stream: Mutex::new(Some(stream)), bigint }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Gone, "the stream ended; begin another one")
}

#[wasm_bindgen]
impl ChangeStream {
    /// The changes that are there.
    pub async fn ready(&self) -> Thrown<Vec<u8>> {
        let mut stream = self.stream.lock().await;
        let batch = stream.as_mut().ok_or_else(ended).or_throw()?.ready().await.or_throw()?;
        ChangesOut::new(&self.collection.spec().schema, &batch, self.bigint).and_then(|out| out.encode()).or_throw()
    }

    /// Notes that all up to a token was done.
    pub async fn acknowledge(&self, token: String) -> Thrown<()> {
        let token: ResumeToken = token.parse().or_throw()?;
        let mut stream = self.stream.lock().await;
        stream.as_mut().ok_or_else(ended).or_throw()?.acknowledge(&token).await.or_throw()
    }

    /// Lets go of what it keeps; while a call runs on it, that is when nothing holds it.
    pub fn end(&self) {
        if let Some(mut stream) = self.stream.try_lock() {
            *stream = None;
        }
    }
}
