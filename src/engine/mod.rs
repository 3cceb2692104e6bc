//! The collection as a state machine: decides, never does IO.

mod changes;
mod spec;

pub use changes::{ChangeSet, SyncPosition, Version};
pub use spec::CollectionSpec;
