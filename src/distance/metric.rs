use serde::{Deserialize, Serialize};

/// How two vectors are compared.
///
/// Inside, everything is a *distance*: smaller is closer. Outside, it is a *score*, by Milvus's conventions: the
/// squared distance for [`Metric::L2`], the distance for [`Metric::Hamming`] and [`Metric::Jaccard`] (smaller is
/// closer), the product or cosine for the others (larger is closer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Metric {
    /// Squared Euclidean distance.
    L2,
    /// Inner product; the distance is its negative.
    #[serde(rename = "IP")]
    Ip,
    /// Cosine; the distance is one minus it. A zero vector has cosine 0 with everything.
    #[serde(rename = "COSINE")]
    Cosine,
    /// How many bits differ; of bits.
    #[serde(rename = "HAMMING")]
    Hamming,
    /// One minus the share of bits set in both among those set in any; 0 where no bit is set in either. Of bits.
    #[serde(rename = "JACCARD")]
    Jaccard,
}

impl Metric {
    /// Whether it compares bits.
    pub fn is_of_bits(self) -> bool {
        matches!(self, Self::Hamming | Self::Jaccard)
    }

    /// The name by which requests and schemas say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L2 => "L2",
            Self::Ip => "IP",
            Self::Cosine => "COSINE",
            Self::Hamming => "HAMMING",
            Self::Jaccard => "JACCARD",
        }
    }

    /// The score that users see.
    pub fn score(self, distance: f32) -> f32 {
        match self {
            Self::L2 | Self::Hamming | Self::Jaccard => distance,
            Self::Ip => -distance,
            Self::Cosine => 1.0 - distance,
        }
    }
}
