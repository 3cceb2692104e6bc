use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// A collection inside one store. Names can be reused; ids are not.
    CollectionId
}
id! {
    /// A segment inside one store.
    SegmentId
}
id! {
    /// A replica: drawn at random (53 bits, so that JavaScript can hold it) when a store is created, and part of the order of
    /// writes, after the timestamp.
    ReplicaId
}
id! {
    /// A position among the batches that one replica wrote to one collection: ascending, with gaps, never used twice. 0 is
    /// "none yet".
    Sequence
}
id! {
    /// A position in one collection's local log, from 1: every applied batch, local or remote, has one. 0 is "before all".
    Lsn
}
