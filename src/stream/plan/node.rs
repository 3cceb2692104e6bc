use serde::{Deserialize, Serialize};

use super::aggregate::Aggregate;
use super::window::{Evictor, Output, Trigger, Window};
use crate::base::{Error, Result, message};
use crate::model::DataType;
use crate::query::compute::Expression;

/// Operators and what flows between them. As a document, JSON or MessagePack: `{"nodes": [node, …]}`, each
/// `{"name": …, "inputs": […], "operator": {"filter": {…}}}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Each after its inputs.
    pub nodes: Vec<Node>,
}

/// One operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, which no other node has. State in a checkpoint belongs to it.
    pub name: String,
    /// The names of the nodes whose rows it takes.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// What it does.
    pub operator: Operator,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operator {
    /// Where rows come in. No inputs.
    Source(Source),
    /// Keeps the rows for which a condition is true.
    Filter {
        /// The condition.
        condition: Expression,
    },
    /// Other columns. The event time goes on when a column is the input's event time itself, and so do the bounds of a window.
    Project {
        /// Their names and values.
        columns: Vec<(String, Expression)>,
    },
    /// A row for each value of a JSON array; none for a row that has none.
    Unnest {
        /// A `json` field.
        field: String,
        /// The field that takes the value, after all others.
        item: SourceField,
    },
    /// The same rows with the bounds of their windows, one row for each window. Not for sessions, whose bounds are known at their end.
    Window {
        /// Timed, and neither [`Window::Session`] nor [`Window::Attached`].
        window: Window,
        /// Whether windows are of `now`.
        #[serde(default)]
        processing_time: bool,
    },
    /// One row for each key of a window.
    Aggregate(WindowAggregate),
    /// Pairs of rows of two inputs.
    Join(Join),
    /// Rows beside the row of a collection that has their key.
    Lookup(Lookup),
    /// Rows beside the nearest rows of a collection.
    Nearest(Nearest),
    /// The first row of each key.
    Distinct {
        /// Its fields; with the bounds of a window among them, the state goes with that window.
        keys: Vec<String>,
    },
    /// Rows to which none shortly before them is near.
    Dedupe(Dedupe),
    /// The first rows of each key by an order.
    Top(Top),
    /// The rows of two or more inputs with the same fields.
    Union,
    /// A function of the host: rows go out, and the rows that it gives for each come back.
    Call {
        /// Its name.
        function: String,
        /// What it gives.
        fields: Vec<SourceField>,
        /// Which of them is the event time.
        #[serde(default)]
        time: Option<String>,
    },
    /// Where rows go out.
    Sink(Sink),
}

/// Where rows come in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// What rows have.
    pub fields: Vec<SourceField>,
    /// The field with the event time, a `timestamp`. A row without one is a dead letter.
    #[serde(default)]
    pub time: Option<String>,
    /// How far time has come.
    #[serde(default)]
    pub watermark: Watermark,
    /// Whether rows are those of a collection as they change, of which a later one replaces an earlier one.
    #[serde(default)]
    pub changes: bool,
}

/// A field of a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceField {
    /// Its name.
    pub name: String,
    /// `bool`, `int64`, `double`, `timestamp`, `varchar`, `json` or `float_vector`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Of a `float_vector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dim: Option<u32>,
    /// Whether a row may lack it.
    #[serde(default)]
    pub nullable: bool,
}

impl SourceField {
    /// A field of `data_type`, which is a [`canonical`](crate::query::compute::canonical) one.
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self { name: name.into(), type_name: data_type.name().to_owned(), dim: data_type.dim(), nullable: false }
    }

    /// The same, which a row may lack.
    #[must_use]
    pub fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }
}

/// How far event time has come, told from the rows of a source. Each partition of a source has its own; the source's is the least of
/// them, without those that are idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Watermark {
    /// How much earlier than the latest row so far a row may come, in microseconds. 0 says that times never fall.
    #[serde(default)]
    pub delay: i64,
    /// After how many microseconds of `now` without a row a partition is idle and waited for no longer; `None` for never.
    #[serde(default)]
    pub idle: Option<i64>,
}

/// One row for each key of a window: its keys, the bounds of the window where it is timed, then the aggregates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WindowAggregate {
    /// Which window.
    pub window: Window,
    /// The fields whose values make a key; none for one key.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The columns.
    pub aggregates: Vec<Aggregate>,
    /// When it is told.
    #[serde(default)]
    pub trigger: Trigger,
    /// For how many microseconds after its end a window still takes rows.
    #[serde(default)]
    pub lateness: i64,
    /// What is told of it.
    #[serde(default)]
    pub output: Output,
    /// The sink to which rows go that come later than that; `None` counts and drops them.
    #[serde(default)]
    pub late: Option<String>,
    /// Which rows it lets go of when it is told; `None` keeps no rows, only what they come to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evictor: Option<Evictor>,
}

/// Pairs of a row of the first input and a row of the second: all fields of both. A field of the second that the first has too is called
/// `right_…`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Join {
    /// Which rows are told without a partner.
    #[serde(default)]
    pub kind: JoinKind,
    /// Pairs of a field of the first and a field of the second that are equal.
    pub keys: Vec<(String, String)>,
    /// How far apart they may be in time.
    pub scope: JoinScope,
    /// What else must be true of a pair.
    #[serde(default)]
    pub condition: Option<Expression>,
}

/// Which rows are told without a partner, beside nulls, when none can come any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JoinKind {
    /// None.
    #[default]
    Inner,
    /// Those of the first input.
    Left,
    /// Those of the second input.
    Right,
    /// Those of both.
    Full,
    /// Those of the first input that have a partner, once, without it.
    Semi,
    /// Those of the first input that have none, and no others.
    Anti,
}

/// How far apart in time the rows of a pair may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JoinScope {
    /// In the same window, which is timed and no session: pairs come when it closes, with its bounds as fields.
    Window(Window),
    /// The second's time minus the first's, in microseconds, both ends included.
    Interval {
        /// At least.
        lower: i64,
        /// At most.
        upper: i64,
    },
    /// Any: both inputs are kept for good. Inner joins only.
    Unbounded,
}

/// The row of a collection that has a row's key, as it was at the row's event time, or as it is without one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lookup {
    /// The collection.
    pub collection: String,
    /// The key.
    pub key: Expression,
    /// What of the row is wanted. A field that the input has too is called `right_…`.
    pub fields: Vec<SourceField>,
    /// Whether a row without a partner is left out.
    #[serde(default)]
    pub inner: bool,
}

/// The nearest rows of a collection, one output row each, at the row's event time, or now without one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Nearest {
    /// The collection.
    pub collection: String,
    /// Its vector field; `None` for its only one.
    #[serde(default)]
    pub field: Option<String>,
    /// The vector to which they are near.
    pub vector: Expression,
    /// How many.
    pub limit: u32,
    /// Which rows may be found, in the filter language.
    #[serde(default)]
    pub filter: Option<String>,
    /// What of them is wanted. A field that the input has too is called `right_…`.
    pub fields: Vec<SourceField>,
    /// The field that takes the distance, a `double`; `None` for none.
    #[serde(default)]
    pub distance: Option<String>,
    /// Whether a row to which nothing is found is left out.
    #[serde(default)]
    pub inner: bool,
}

/// Rows whose vector is not near to that of a row shortly before, of the same key. Only such rows are compared with: of many that are near to
/// each other the first is told, and again one of them when that is longer ago than [`within`](Self::within).
///
/// Rows are taken by their event time, when the watermark has come to it, and those of one time by their values: what is told does not depend
/// on the order in which they come. Late rows are left out. It is exact: every row that is kept is compared with. A row without a vector is near
/// to none, and so is, by the cosine, a vector of zero length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dedupe {
    /// Fields whose values make a key; rows of different keys are not compared.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The field with the vector.
    pub vector: String,
    /// How distances are measured.
    #[serde(default)]
    pub metric: Nearness,
    /// Rows are near that are no farther than this.
    pub radius: f64,
    /// For how many microseconds of event time a row is compared with, its end included. Rows are kept for so long.
    pub within: i64,
    /// What is told of rows that are near to one before; `None` leaves them out.
    #[serde(default)]
    pub duplicates: Option<Duplicates>,
}

/// How far two vectors are from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Nearness {
    /// 1 - cosine of the angle between them, 0 to 2.
    #[default]
    Cosine,
    /// Euclid's distance.
    L2,
}

/// Two more fields, for all rows: which one a row is near to, null when it is near to none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Duplicates {
    /// The field whose value stands for a row, a scalar.
    pub of: String,
    /// The field that takes the value of the nearest one.
    pub name: String,
    /// The field that takes how far it is, a `double`; `None` for none.
    #[serde(default)]
    pub distance: Option<String>,
}

/// The first rows of each key by an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Top {
    /// Fields whose values make a key. With the bounds of a window among them rows are told when it closes; otherwise as they enter,
    /// and taken back as they leave.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Values to order by, and whether from the greatest to the least. Null is greater than all; of equals the one that came first is
    /// first.
    pub order: Vec<(Expression, bool)>,
    /// How many; 0 for all, of a window only.
    pub limit: u32,
    /// The field that takes the place, from 1, of a window only.
    #[serde(default)]
    pub rank: Option<String>,
}

/// Where rows go out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sink {
    /// The collection that takes them; `None` for whoever runs the job.
    #[serde(default)]
    pub collection: Option<String>,
    /// The fields of which a later row replaces an earlier one; none for rows that stand for themselves.
    #[serde(default)]
    pub keys: Vec<String>,
}

impl Plan {
    /// The plan of a JSON document.
    ///
    /// # Errors
    /// `InvalidArgument` that says what was found where. The plan is not [checked](Self::check).
    pub fn from_json(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::invalid(format!("the plan: {error}")))
    }

    /// The plan of a MessagePack document.
    ///
    /// # Errors
    /// As of [`Self::from_json`].
    pub fn from_message(bytes: &[u8]) -> Result<Self> {
        message::decode(bytes).map_err(|error| Error::invalid(format!("the plan: {error}")))
    }

    /// The document of the plan, as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a plan is made of texts, numbers and lists")
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }
}
