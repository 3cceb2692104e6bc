//! How a read is done, to be looked at, and what is known of its size before it begins.

use std::fmt;

use serde::Serialize;

use super::expression::{Comparison, Predicate};

/// A step of a read, and the steps that it stands on. `Display` shows it as an indented list.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What is done.
    pub step: String,
    /// With what.
    pub detail: String,
    /// How many rows it gives, estimated.
    pub rows: f64,
    /// What it costs, estimated, with the steps below: comparisons of a vector, or of the values of a row.
    pub cost: f64,
    /// What it came to, when it was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<Actual>,
    /// What it stands on.
    pub steps: Vec<Plan>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Actual {
    /// How many rows it gave.
    pub rows: f64,
    /// How long it took, with the steps below; those of segments may go on at the same time.
    pub ms: f64,
}

impl Plan {
    /// A step that stands on none yet.
    pub fn new(step: &str, detail: impl Into<String>, rows: f64, cost: f64) -> Self {
        Self { step: step.to_owned(), detail: detail.into(), rows, cost, actual: None, steps: Vec::new() }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:depth$}{}", "", self.step, depth = 2 * depth)?;
        if !self.detail.is_empty() {
            write!(f, " {}", self.detail)?;
        }
        write!(f, " (rows {:.0}, cost {:.0}", self.rows, self.cost)?;
        if let Some(actual) = self.actual {
            write!(f, "; actually rows {:.0}, {:.3} ms", actual.rows, actual.ms)?;
        }
        f.write_str(")\n")?;
        self.steps.iter().try_for_each(|step| step.write(f, depth + 1))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

/// About which share of rows a condition is true for: the guesses of Selinger and others, "Access Path Selection in a Relational
/// Database Management System" (1979), table 1, and of our own where they have none.
pub(super) fn selectivity(predicate: &Predicate) -> f64 {
    match predicate {
        Predicate::Constant(value) => f64::from(u8::from(*value)),
        Predicate::Not(inner) => 1.0 - selectivity(inner),
        Predicate::And(terms) => terms.iter().map(selectivity).product(),
        Predicate::Or(terms) => 1.0 - terms.iter().map(|term| 1.0 - selectivity(term)).product::<f64>(),
        Predicate::Compare { comparison: Comparison::Eq, .. } => 0.1,
        Predicate::Compare { comparison: Comparison::Ne, .. } => 0.9,
        Predicate::Compare { .. } => 1.0 / 3.0,
        Predicate::In { set, .. } => (0.1 * (set.ints().len() + set.texts().len()).max(1) as f64).min(0.5),
        Predicate::Sample { share, .. } => *share,
        Predicate::IsNull(_) => 0.1,
        Predicate::Like { .. } | Predicate::Contains { .. } => 0.1,
        Predicate::Truth(_) | Predicate::Same(..) | Predicate::Exists(_) => 0.5,
    }
}
