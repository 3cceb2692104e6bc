//! The JavaScript roof: wasm-bindgen classes over `db`, one file a class. Holds no rules.
