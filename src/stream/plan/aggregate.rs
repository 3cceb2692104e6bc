use std::fmt;

use serde::{Deserialize, Serialize};

use crate::query::compute::Expression;

/// One column of the result of a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Aggregate {
    /// The name of the column.
    pub name: String,
    /// What it is.
    pub function: AggregateFunction,
    /// Of which value; rows where it is null are left out. `None` only for [`AggregateFunction::Count`], which then counts rows.
    #[serde(default)]
    pub input: Option<Expression>,
    /// Only of rows for which this is true.
    #[serde(default)]
    pub filter: Option<Expression>,
    /// By which value [`AggregateFunction::Top`] orders, first and last tell first and last (the event time without it), and which
    /// vector [`AggregateFunction::Nearest`] compares with the centroid.
    #[serde(default)]
    pub by: Option<Expression>,
}

/// How many values become one. Null of none at all, but for `count` and its like (0) and lists (empty).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum AggregateFunction {
    /// How many rows, or values that are not null: `int64`.
    Count,
    /// Of numbers; of integers an `int64`, null when it does not fit; of doubles summed in order with the error carried along.
    Sum,
    /// Of numbers, texts or timestamps.
    Min,
    /// Of numbers, texts or timestamps.
    Max,
    /// The mean of numbers: `double`.
    Avg,
    /// Of numbers: divided by one less than their number (null of one) with `sample`, by their number without.
    Variance {
        /// Whether the values are a sample.
        #[serde(default)]
        sample: bool,
    },
    /// The root of the variance.
    StdDev {
        /// Whether the values are a sample.
        #[serde(default)]
        sample: bool,
    },
    /// Of numbers, about: a t-digest. 0 to 1.
    Quantile(f64),
    /// How many different values, exactly: the state holds them all.
    CountDistinct,
    /// How many different values, about (standard error 0.8 %): a HyperLogLog.
    ApproxCountDistinct,
    /// The value of the row of the least time or `by`; of equals the one that came first.
    First,
    /// The value of the row of the greatest time or `by`; of equals the one that came last.
    Last,
    /// The values as a JSON array, as they came; what comes beyond `limit` is left out.
    Collect {
        /// The longest array.
        limit: u32,
    },
    /// The values of the `limit` rows of greatest `by` (the values themselves without it) as a JSON array, the greatest first; of equals
    /// the one that came first.
    Top {
        /// How many.
        limit: u32,
        /// Of least `by` instead.
        #[serde(default)]
        ascending: bool,
    },
    /// The mean of vectors: a `float_vector`.
    Centroid,
    /// The mean squared Euclidean distance of vectors from their centroid: `double`.
    Spread,
    /// How far the vectors are from those of a window before, of the same key: `double`, null without one.
    Drift {
        /// From which one.
        reference: Reference,
        /// Measured how.
        measure: Measure,
    },
    /// The value (`input`) of the row whose vector (`by`) is nearest to the centroid of all of them, by Euclid; of equals the first.
    Nearest,
}

/// The window that drift is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reference {
    /// The one told before.
    Previous,
    /// The first that was told.
    First,
}

/// How drift is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Measure {
    /// The cosine distance of the centroids.
    Cosine,
    /// Maximum mean discrepancy with the kernel `1 / (1 + squared distance)`, over at most so many vectors of each window, those that came
    /// first.
    Discrepancy {
        /// 2 to 1,024.
        sample: u32,
    },
}

impl AggregateFunction {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Avg => "avg",
            Self::Variance { .. } => "variance",
            Self::StdDev { .. } => "stdDev",
            Self::Quantile(_) => "quantile",
            Self::CountDistinct => "countDistinct",
            Self::ApproxCountDistinct => "approxCountDistinct",
            Self::First => "first",
            Self::Last => "last",
            Self::Collect { .. } => "collect",
            Self::Top { .. } => "top",
            Self::Centroid => "centroid",
            Self::Spread => "spread",
            Self::Drift { .. } => "drift",
            Self::Nearest => "nearest",
        }
    }

    /// Whether a row can be taken out of it again.
    pub(in crate::stream) fn subtracts(self) -> bool {
        matches!(self, Self::Count | Self::Sum | Self::Avg)
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}(", self.name, self.function.name())?;
        match &self.input {
            Some(input) => write!(f, "{input}")?,
            None => f.write_str("*")?,
        }
        match self.function {
            AggregateFunction::Quantile(share) => write!(f, ", {share}")?,
            AggregateFunction::Collect { limit } | AggregateFunction::Top { limit, .. } => write!(f, ", {limit}")?,
            _ => {}
        }
        if let Some(by) = &self.by {
            write!(f, " by {by}")?;
        }
        f.write_str(")")?;
        if let Some(filter) = &self.filter {
            write!(f, " where {filter}")?;
        }
        Ok(())
    }
}
