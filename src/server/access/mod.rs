//! Tokens: who somebody is, and what that one may do.
//!
//! A token is a JSON Web Token, signed by a key that the server was given. [`TokenGate`] checks it, and reads from its claim `eddy` what
//! was granted; that is kept to by `db`. The file with the keys and the one with what was revoked are read again when they change.

mod gate;
mod jwt;
mod keys;

pub use gate::{Revocation, TokenGate};
