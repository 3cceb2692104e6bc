use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use arrow_array::RecordBatch;

use super::expression::{Places, Predicate};
use super::indexed::{Answers, Indexes};
use super::{evaluate, explain, parser, partition, prune};
use crate::base::{Result, RowMask};
use crate::model::{Key, PartitionSet, Schema, Value};
use crate::segment::Known;

/// The values of template parameters, by name.
pub type Parameters = BTreeMap<String, Value>;

/// A condition on rows, parsed and checked against a schema. Its language is described in [the module](super).
///
/// Two filters are equal when they are the same in their normal form, which is what `Display` shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    pub(super) predicate: Predicate,
    pub(super) places: Places,
    /// See [`Filter::partitions`].
    pub(super) partitions: Option<PartitionSet>,
    /// See [`Filter::keys`].
    pub(super) keys: Option<Vec<Key>>,
}

impl Filter {
    /// The filter that `text` describes, for rows of `schema`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is wrong, `Unsupported` for what the language has and this version cannot evaluate. Both
    /// have a [position](crate::base::Error::position), and a message that says what was found there, what was expected, and
    /// shows the line.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self> {
        Self::parse_with(text, schema, &Parameters::new())
    }

    /// The same, where `{name}` in `text` stands for the value of that name: a boolean, a number, a string, or a list as JSON
    /// array. Values are never read as text of the language, so they need no escaping. Those that `text` does not name are
    /// not looked at.
    pub fn parse_with(text: &str, schema: &Schema, parameters: &Parameters) -> Result<Self> {
        let mut predicate = parser::parse(text, schema, parameters).map_err(|fault| fault.into_error(text))?;
        let places = predicate.settle();
        let key = schema.partition_key();
        let partitions = key.and_then(|(key, count)| partition::partitions_of(&predicate, &key.name, count));
        let keys = partition::keys_of(&predicate, &schema.primary_key().name);
        Ok(Self { predicate, places, partitions, keys })
    }

    /// The rows for which both are true.
    pub(crate) fn and(self, other: Self) -> Self {
        let mut predicate = Predicate::joined(false, [self.predicate, other.predicate]);
        let places = predicate.settle();
        let partitions = match (self.partitions, other.partitions) {
            (Some(mut these), Some(those)) => {
                these.intersect(&those);
                Some(these)
            }
            (these, those) => these.or(those),
        };
        Self { predicate, places, partitions, keys: self.keys.or(other.keys) }
    }

    /// The rows for which one of them is true.
    pub(crate) fn or(self, other: Self) -> Self {
        let mut predicate = Predicate::joined(true, [self.predicate, other.predicate]);
        let places = predicate.settle();
        let partitions = self.partitions.zip(other.partitions).map(|(mut these, those)| {
            these.union(&those);
            these
        });
        Self { predicate, places, partitions, keys: None }
    }

    /// The names that stand between braces in `text`: what [`Filter::parse_with`] needs values for.
    ///
    /// # Errors
    /// `InvalidArgument` when `text` has a part that is no name, value or operator. Its grammar is not looked at.
    pub fn parameters(text: &str) -> Result<BTreeSet<String>> {
        parser::parameters(text).map_err(|fault| fault.into_error(text))
    }

    /// The rows of `batch` for which the filter is true; those for which it is false or unknown are left out.
    ///
    /// `batch` is [`Batch::scalars`](crate::model::Batch::scalars) of rows of the filter's schema; columns that the filter
    /// does not [read](Self::fields) may be left out. Cost: one pass a column that is compared, and one pass over the text of
    /// each JSON column, without the rows that cheaper terms of `and` and `or` have decided.
    ///
    /// # Panics
    /// When a column that the filter reads is not there, or has another type than the schema says.
    pub fn evaluate(&self, batch: &RecordBatch) -> RowMask {
        self.evaluate_with(batch, 0, &Answers::default())
    }

    /// The same, where what `answers` tells of a segment need not be read: `batch` has its rows from `start` on.
    pub fn evaluate_with(&self, batch: &RecordBatch, start: usize, answers: &Answers<'_>) -> RowMask {
        evaluate::evaluate(&self.predicate, &self.places, batch, start, answers)
    }

    /// What indexes of a segment tell of it.
    pub fn ask(&self, indexes: Indexes<'_>) -> Answers<'_> {
        Answers::new(&self.predicate, indexes)
    }

    /// Whether it may be true for a row of a block of which `known` tells. False only where the statistics prove that it is false or
    /// unknown for each; of a column of which nothing is known, anything is thought.
    pub fn may_admit(&self, known: Known<'_>) -> bool {
        prune::may_admit(&self.predicate, known)
    }

    /// The keys of all rows for which it may be true, when it says so, as `id in [1, 2] and …` does: other rows need not be looked at.
    pub fn keys(&self) -> Option<&[Key]> {
        self.keys.as_deref()
    }

    /// About which share of rows it admits, by rules of thumb alone.
    pub fn selectivity(&self) -> f64 {
        explain::selectivity(&self.predicate)
    }

    /// The columns that it reads, [`META_COLUMN`](crate::model::META_COLUMN) for keys of the dynamic field. Parts that turned
    /// out to be constant read nothing.
    pub fn fields(&self) -> BTreeSet<&str> {
        self.places.fields()
    }
}

impl fmt::Display for Filter {
    /// The normal form: constants folded, cheap terms first, lists sorted, dynamic keys spelt out. It can be parsed again, to
    /// an equal filter, unless it is too long or nested too deeply: `--x` becomes `0 - (0 - x)`, and parentheses nest too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.predicate)
    }
}
