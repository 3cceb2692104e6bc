use wasm_bindgen::prelude::*;

use super::super::Database;
use super::super::error::{OrThrow, Thrown};
use super::super::message::StatusOut;
use crate::base::{Error, Result};
use crate::db::{Published, ReplayRequest};
use crate::stream::bus::BusSpec;

fn json<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| Error::invalid(format!("{what}: {error}")))
}

/// The event bus of a store. What it does and how it is doing is JSON, as HTTP has it.
#[wasm_bindgen]
impl Database {
    /// Does something else from now on.
    #[wasm_bindgen(js_name = configureBus)]
    pub async fn configure_bus(&self, spec: String) -> Thrown<()> {
        let spec = BusSpec::from_json(&spec).or_throw()?;
        self.db.bus().configure(spec).await.or_throw()
    }

    /// How it is doing, and what it does.
    #[wasm_bindgen(js_name = busStatus)]
    pub fn bus_status(&self) -> Thrown<String> {
        let bus = self.db.bus();
        StatusOut { status: bus.status(), spec: bus.spec() }.to_json().or_throw()
    }

    /// Gives events of the application to their handlers; tells to how many each went.
    #[wasm_bindgen(js_name = publishToBus)]
    pub async fn publish_to_bus(&self, source: String, events: String) -> Thrown<Vec<u32>> {
        let events: Vec<Published> = json("the events", &events).or_throw()?;
        let counts = self.db.bus().publish(&source, events).await.or_throw()?;
        Ok(counts.into_iter().map(|count| count as u32).collect())
    }

    /// Has changes come again; tells the number of the replay.
    #[wasm_bindgen(js_name = replayOnBus)]
    pub async fn replay_on_bus(&self, request: String) -> Thrown<f64> {
        let request: ReplayRequest = json("the replay", &request).or_throw()?;
        self.db.bus().replay(request).await.map(|id| id as f64).or_throw()
    }

    /// Ends a replay; false for one that is over.
    #[wasm_bindgen(js_name = cancelReplay)]
    pub fn cancel_replay(&self, id: f64) -> bool {
        self.db.bus().cancel_replay(id as u64)
    }

    /// Whether it has something to do at all.
    #[wasm_bindgen(js_name = busIsConfigured)]
    pub fn bus_is_configured(&self) -> bool {
        self.db.bus().is_configured()
    }

    /// A step; tells whether there is more to be done now.
    #[wasm_bindgen(js_name = runBus)]
    pub async fn run_bus(&self) -> Thrown<bool> {
        self.db.run_bus().await.or_throw()
    }

    /// In how many milliseconds it has something to do though nothing comes.
    #[wasm_bindgen(js_name = busDueMs)]
    pub fn bus_due_ms(&self) -> Option<f64> {
        self.db.bus_due_ms().map(|due_ms| due_ms as f64)
    }

    /// Resolves when something is to be done that is no write; tells how often that was.
    #[wasm_bindgen(js_name = busMovedAfter)]
    pub async fn bus_moved_after(&self, seen: f64) -> f64 {
        self.db.bus_moved_after(seen as u64).await as f64
    }
}
