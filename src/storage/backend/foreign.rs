use bytes::Bytes;
use js_sys::{Array, Promise, Reflect, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::base::{Error, ErrorKind, Result};
use crate::platform::Task;
use crate::storage::{Entry, Storage, check_name};

// The shape is `ForeignStorage` in `pkg/src/storage.ts`, which says what each operation takes and gives.
#[wasm_bindgen]
extern "C" {
    type Object;
    #[wasm_bindgen(method, structural)]
    fn run(this: &Object, op: &str, name: &str, from: f64, len: f64, bytes: JsValue) -> Promise;
    #[wasm_bindgen(method, structural)]
    fn release(this: &Object);
}

/// A store that JavaScript keeps, with calls that wait: IndexedDB is one. What it throws has `kind` and `message`.
pub struct ForeignStorage(Object);

impl ForeignStorage {
    /// A store with the shape that the npm package gives one. It is closed when this is dropped.
    pub fn new(object: JsValue) -> Self {
        Self(object.unchecked_into())
    }

    async fn run(&self, op: &str, name: &str, from: f64, len: f64, bytes: Option<&[u8]>) -> Result<JsValue> {
        if !matches!(op, "list" | "close") {
            check_name(name)?;
        }
        let bytes = bytes.map_or(JsValue::UNDEFINED, |bytes| Uint8Array::from(bytes).into());
        JsFuture::from(self.0.run(op, name, from, len, bytes)).await.map_err(|thrown| {
            let text = |member: &str| Reflect::get(&thrown, &member.into()).ok().and_then(|value| value.as_string());
            let kind = text("kind").map_or(ErrorKind::Io, |kind| ErrorKind::from_name(&kind));
            Error::new(kind, text("message").unwrap_or_default())
        })
    }

    fn done<'a>(&'a self, op: &'static str, name: &'a str, from: f64, bytes: Option<Bytes>) -> Task<'a, Result<()>> {
        Box::pin(async move { self.run(op, name, from, 0.0, bytes.as_deref()).await.map(drop) })
    }

    fn bytes<'a>(&'a self, name: &'a str, from: f64, len: f64) -> Task<'a, Result<Bytes>> {
        Box::pin(async move {
            let read = self.run("read", name, from, len, None).await?;
            Ok(Uint8Array::new(&read).to_vec().into())
        })
    }
}

impl std::fmt::Debug for ForeignStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ForeignStorage").finish_non_exhaustive()
    }
}

impl Drop for ForeignStorage {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Storage for ForeignStorage {
    fn list<'a>(&'a self, prefix: &'a str) -> Task<'a, Result<Vec<Entry>>> {
        Box::pin(async move {
            let listed: Array = self.run("list", prefix, 0.0, 0.0, None).await?.unchecked_into();
            let entry = |pair: JsValue| {
                let pair: Array = pair.unchecked_into();
                let name = pair.get(0).as_string().unwrap_or_default();
                Entry { name, len: pair.get(1).as_f64().unwrap_or(0.0) as u64 }
            };
            Ok(listed.iter().map(entry).collect())
        })
    }

    fn read<'a>(&'a self, name: &'a str, offset: u64, len: u64) -> Task<'a, Result<Bytes>> {
        self.bytes(name, offset as f64, len as f64)
    }

    fn read_all<'a>(&'a self, name: &'a str) -> Task<'a, Result<Bytes>> {
        self.bytes(name, 0.0, -1.0)
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        self.done("put", name, 0.0, Some(bytes))
    }

    fn append<'a>(&'a self, name: &'a str, bytes: Bytes) -> Task<'a, Result<()>> {
        self.done("append", name, 0.0, Some(bytes))
    }

    fn sync<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        self.done("sync", name, 0.0, None)
    }

    fn truncate<'a>(&'a self, name: &'a str, len: u64) -> Task<'a, Result<()>> {
        self.done("truncate", name, len as f64, None)
    }

    fn remove<'a>(&'a self, name: &'a str) -> Task<'a, Result<()>> {
        self.done("remove", name, 0.0, None)
    }

    fn close(&self) -> Task<'_, Result<()>> {
        self.done("close", "", 0.0, None)
    }
}
