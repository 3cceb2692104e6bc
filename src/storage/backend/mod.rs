//! One file a backend.
