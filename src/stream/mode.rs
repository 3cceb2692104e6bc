use serde::{Deserialize, Serialize};

/// When rows are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceMode {
    /// As soon as they are there.
    #[default]
    RealTime,
    /// From time to time.
    NearRealTime {
        /// So many milliseconds after the last that were taken.
        #[serde(rename = "everyMs")]
        every_ms: u64,
    },
    /// Until there are no more for now: that is the end.
    Batch,
}

impl SourceMode {
    /// Whether it is the usual one.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
