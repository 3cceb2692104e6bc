//! What to send and what was received: two pure calls a side.
//!
//! [`Client`] and [`Hub`] are the two ends of one connection. Each takes in what happened with `receive(input, now)` and
//! tells what to do next with `poll(now)`: a frame to send, changes to read, changes to apply. Whoever drives them does it
//! and hands the answer back as the next input. A connection that breaks is thrown away with its machine; everything that must
//! survive (how far a replica has got) is durable in the collections, so a new pair of machines goes on where it ended.
//!
//! What must be true: applying is idempotent, and the last writer wins by (timestamp, origin), so that frames may be lost with
//! their connection and sent again with the next one; no position ever runs ahead of the changes that it stands for.
//!
//! Deliberately absent: sockets, clocks, randomness, and what a change looks like: changes are bytes here. The protocol with its
//! tables is in `src/docs/sync.md`.
#![doc = include_str!("../docs/sync.md")]

mod backoff;
mod client;
mod failover;
mod hub;
mod keepalive;
mod message;
mod reconcile;
mod reconciliation;
mod seed;
#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub use client::{Client, ClientAction, ClientCollection, ClientInput, OwnChanges, Refusal, Relay, Start};
pub use failover::Failover;
pub use hub::{Changes, FILES_PLACE, Hub, HubAction, HubInput, HubOptions, Opened, Rest};
pub use message::{
    CONTROL_BYTES_MAX, Capabilities, Channel, Compare, Compared, FETCH_WINDOW, FRAME_BYTES_MAX, Fault, Fetch, Found,
    Give, Given, Hello, HelloCollection, Lack, Message, Offer, PIECE_BYTES_MAX, Part, Piece, Pull, PullAck, PullPart,
    Push, PushAck, Reshape, StartPull, TOKEN_BYTES_MAX, VERSION, Welcome, WelcomeCollection,
};
pub use reconcile::{Comparison, Item, Items, RANGES_BYTES, decode_items, encode_items};
pub use reconciliation::{COMPARES, ITEMS_MAX, Reconciled};
pub use seed::{DOWNLOAD_BYTES_MAX, DOWNLOAD_WINDOW, Download, Want};
