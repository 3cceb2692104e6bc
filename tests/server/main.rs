//! `eddy serve` over real sockets: the real binary, killed and stopped as it happens to servers.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    reason = "tests, which run processes and look at files from outside"
)]

#[path = "../native/mod.rs"]
mod native;

mod access;
mod api;
mod bus;
mod changes;
mod console;
mod crash;
mod guard;
mod pipelines;
mod stop;
mod streams;
mod tls;
mod types;
mod upkeep;
mod upstream;

use serde_json::{Value, json};

/// A collection of `id`, `title`, `n` and three numbers.
fn notes() -> Value {
    json!({
        "name": "notes",
        "fields": [
            {"name": "id", "type": "int64", "primaryKey": true},
            {"name": "title", "type": "varchar", "maxLength": 100},
            {"name": "n", "type": "double", "nullable": true},
            {"name": "v", "type": "float_vector", "dim": 3},
        ],
        "dynamic": true,
        "indexes": {"v": {"metric": "IP", "kind": {"HNSW": {"m": 16, "ef_construction": 100}}}},
    })
}
