//! What happens to a collection, told to those who follow it. See `src/docs/streams.md`.
//!
//! Nothing is buffered here: a stream is a position in the log, and the rows of the changes after it are kept where they are until the
//! position moves on.

mod changes;
#[cfg(feature = "streams")]
mod hybrid;
#[cfg(all(test, native, feature = "streams"))]
mod hybrid_tests;
mod live;
#[cfg(all(test, native))]
mod live_tests;
#[cfg(feature = "streams")]
mod replay;
#[cfg(all(test, native, feature = "streams"))]
mod replay_tests;
mod request;
#[cfg(all(test, native))]
mod tests;
mod token;

pub use changes::ChangeStream;
pub(super) use changes::Follower;
#[cfg(feature = "streams")]
pub(in crate::db) use live::key_of;
pub use live::{Difference, LiveHit, LiveQueries, LiveRequest, LiveUpdate};
#[cfg(feature = "streams")]
pub(in crate::db) use replay::Pace;
#[cfg(feature = "streams")]
pub use replay::Replay;
pub use request::{Change, ChangeBatch, ChangeKind, ChangesRequest, Since};
pub use token::ResumeToken;
