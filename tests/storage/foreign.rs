//! The conformance suite over stores that JavaScript keeps, for hosts in which no Rust test runs: `tests/edge/storage.test.mjs` calls it in a
//! Durable Object.
#![cfg(browser)]

use std::sync::Arc;

use eddydb::base::{Error, ErrorKind, Result};
use eddydb::platform::Task;
use eddydb::storage::conformance::{CASES, Home};
use eddydb::storage::{ForeignStorage, Storage};
use js_sys::{Function, Reflect};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

/// What `open` gives, each time it is called, is the same store.
struct Foreign(Function);

impl Home for Foreign {
    fn open(&self) -> Task<'_, Result<Arc<dyn Storage>>> {
        Box::pin(async {
            let storage = self.0.call0(&JsValue::NULL).map_err(|thrown| {
                let text =
                    |member: &str| Reflect::get(&thrown, &member.into()).ok().and_then(|value| value.as_string());
                let kind = text("kind").map_or(ErrorKind::Io, |kind| ErrorKind::from_name(&kind));
                Error::new(kind, text("message").unwrap_or_default())
            })?;
            Ok(Arc::new(ForeignStorage::new(storage)) as Arc<dyn Storage>)
        })
    }
}

/// The names of all cases.
#[wasm_bindgen(js_name = conformanceCases)]
pub fn cases() -> Vec<String> {
    CASES.iter().map(|case| case.name.to_owned()).collect()
}

/// Checks one case on the empty store that `open` opens, again and again.
#[wasm_bindgen(js_name = checkConformance)]
pub async fn check(name: String, open: Function) {
    let case = CASES.iter().find(|case| case.name == name).expect("the name of a case");
    (case.check)(&Foreign(open)).await;
}
