use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use super::error::{OrThrow, Thrown, from_js};
use crate::base::Result;
use crate::db::SearchPool;
use crate::platform::Task;

// The shape is `SearchPool` in `pkg/src/pool.ts`, which says what each call takes and gives.
#[wasm_bindgen]
extern "C" {
    type Object;
    #[wasm_bindgen(method, structural)]
    fn ask(this: &Object, worker: usize, message: Uint8Array, patience_ms: f64) -> Promise;
    #[wasm_bindgen(method, structural)]
    fn end(this: &Object, worker: usize);
}

/// Workers that JavaScript runs.
pub(super) struct ForeignPool {
    object: Object,
    workers: usize,
}

impl ForeignPool {
    pub(super) fn new(object: JsValue, workers: usize) -> Self {
        Self { object: object.unchecked_into(), workers }
    }
}

impl SearchPool for ForeignPool {
    fn workers(&self) -> usize {
        self.workers
    }

    fn ask(&self, worker: usize, message: Vec<u8>, patience_ms: u64) -> Task<'static, Result<Vec<u8>>> {
        // Listened to at once: a host ends a program in which a promise fails and nobody listens.
        let answer = JsFuture::from(self.object.ask(worker, Uint8Array::from(message.as_slice()), patience_ms as f64));
        Box::pin(async move {
            match answer.await {
                Ok(bytes) => Ok(Uint8Array::new(&bytes).to_vec()),
                Err(thrown) => Err(from_js(&thrown)),
            }
        })
    }

    fn end(&self, worker: usize) {
        self.object.end(worker);
    }
}

/// What a worker beside an engine does: see [`crate::db::PoolWorker`].
#[wasm_bindgen]
#[derive(Default)]
pub struct PoolWorker(crate::db::PoolWorker);

#[wasm_bindgen]
impl PoolWorker {
    /// A worker that holds nothing.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what a message of the engine says.
    pub fn answer(&mut self, message: &[u8]) -> Thrown<Vec<u8>> {
        self.0.answer(message).or_throw()
    }
}
