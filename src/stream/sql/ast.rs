use crate::model::DataType;
use crate::stream::{Nearness, ZoneName};

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement {
    /// `CREATE STREAM | SOURCE | TABLE`: where rows come from.
    Create(Declaration),
    /// `CREATE [MATERIALIZED] VIEW name AS …`; what is not materialized is but a name for its query.
    View {
        name: Name,
        materialized: bool,
        query: Query,
    },
    /// `INSERT INTO name SELECT …`: where rows go.
    Insert {
        into: Name,
        query: Query,
    },
    /// `CREATE SINK name [FROM view | AS query] [WITH (…)]`: where rows go, and which; without them an `INSERT INTO` says which.
    Sink {
        name: Name,
        of: Option<SinkRows>,
        settings: Vec<Setting>,
    },
    Select(Query),
    Explain(Box<Self>),
}

/// A name, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) text: String,
    pub(super) at: usize,
}

/// What goes into a sink.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum SinkRows {
    From(Name),
    As(Box<Query>),
}

/// `key = value` behind `WITH`. The value is a literal, a parameter or a list of such.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    pub(super) key: Name,
    pub(super) value: Expr,
}

/// The columns of a stream; none where they are those of what it names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declaration {
    pub(super) name: Name,
    pub(super) columns: Vec<(Name, ColumnType)>,
    /// `WATERMARK FOR column AS column - INTERVAL …`: the column, and how late rows may be, in microseconds.
    pub(super) watermark: Option<(Name, i64)>,
    /// `WITH (key = value, …)`.
    pub(super) settings: Vec<Setting>,
}

/// The type of a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ColumnType {
    pub(super) data_type: DataType,
    pub(super) not_null: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub(super) distinct: bool,
    pub(super) items: Vec<Item>,
    pub(super) from: Source,
    pub(super) filter: Option<Expr>,
    pub(super) groups: Vec<Expr>,
    pub(super) having: Option<Expr>,
    pub(super) order: Vec<Order>,
    pub(super) limit: Option<u64>,
    pub(super) emit: Option<Emit>,
}

/// What `SELECT` names.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// `*`, or `name.*`.
    All(Option<Name>),
    One(Expr, Option<Name>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) by: Expr,
    pub(super) descending: bool,
}

/// When results are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Emit {
    /// Once, when the watermark has passed the end of the window.
    OnWindowClose,
    /// With every change of the result.
    Changes,
}

/// What stands behind `FROM`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    Named {
        name: Name,
        alias: Option<Name>,
    },
    Query {
        query: Box<Query>,
        alias: Option<Name>,
    },
    Window {
        window: Window,
        of: Box<Self>,
        time: Box<Expr>,
        /// By whose clocks.
        zone: Option<ZoneName>,
        alias: Option<Name>,
    },
    /// `DEDUPE(TABLE name PARTITION BY …, DESCRIPTOR(vector), radius, INTERVAL …, 'l2')`.
    Dedupe {
        of: Box<Self>,
        keys: Vec<Expr>,
        vector: Box<Expr>,
        radius: f64,
        within: i64,
        metric: Nearness,
        alias: Option<Name>,
    },
    /// `nearest(collection, vector, k)`: joined with what stands on its left.
    Nearest {
        collection: Name,
        vector: Box<Expr>,
        limit: u64,
        alias: Option<Name>,
    },
    Join {
        left: Box<Self>,
        right: Box<Self>,
        outer: bool,
        on: Option<Box<Expr>>,
    },
}

impl Source {
    /// The name that a function's rows are given.
    pub(super) fn alias(&mut self) -> Option<&mut Option<Name>> {
        match self {
            Self::Window { alias, .. } | Self::Dedupe { alias, .. } | Self::Nearest { alias, .. } => Some(alias),
            Self::Named { .. } | Self::Query { .. } | Self::Join { .. } => None,
        }
    }
}

/// The windows of a row, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    Tumble { size: i64, offset: i64 },
    Hop { slide: i64, size: i64, offset: i64 },
    Cumulate { step: i64, size: i64, offset: i64 },
    Session { gap: i64 },
}

/// A value, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub(super) kind: Kind,
    pub(super) at: usize,
    /// How many nodes lie one below the other in it.
    pub(super) depth: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    /// Finite.
    Float(f64),
    Text(String),
    /// Microseconds.
    Interval(i64),
    /// Microseconds since 1970 in UTC.
    Timestamp(i64),
    /// `{name}`.
    Parameter(String),
    Column {
        of: Option<String>,
        name: String,
    },
    /// `[1, 2, 3]`.
    List(Vec<Expr>),
    Negative(Box<Expr>),
    Not(Box<Expr>),
    /// `OR` with `any`, `AND` without: two terms or more.
    Logic {
        any: bool,
        terms: Vec<Expr>,
    },
    Binary {
        operator: Operator,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    IsNull {
        value: Box<Expr>,
        not: bool,
    },
    Between {
        value: Box<Expr>,
        low: Box<Expr>,
        high: Box<Expr>,
        not: bool,
    },
    In {
        value: Box<Expr>,
        list: Vec<Expr>,
        not: bool,
    },
    Like {
        value: Box<Expr>,
        pattern: Box<Expr>,
        not: bool,
    },
    Case {
        of: Option<Box<Expr>>,
        branches: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    Cast {
        value: Box<Expr>,
        to: DataType,
    },
    /// By its lower-case name.
    Call {
        name: String,
        distinct: bool,
        arguments: Vec<Expr>,
    },
    /// `count(*)`.
    CountAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Concat,
}

impl Operator {
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Eq => "=",
            Self::Ne => "<>",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Rem => "%",
            Self::Concat => "||",
        }
    }

    pub(super) const fn power(self) -> u8 {
        match self {
            Self::Add | Self::Sub | Self::Concat => power::SUM,
            Self::Mul | Self::Div | Self::Rem => power::PRODUCT,
            _ => power::COMPARISON,
        }
    }
}

/// Binding powers, loosest first.
pub(super) mod power {
    pub(in super::super) const OR: u8 = 1;
    pub(in super::super) const AND: u8 = 2;
    pub(in super::super) const NOT: u8 = 3;
    pub(in super::super) const COMPARISON: u8 = 4;
    pub(in super::super) const SUM: u8 = 5;
    pub(in super::super) const PRODUCT: u8 = 6;
    pub(in super::super) const UNARY: u8 = 7;
    pub(in super::super) const ATOM: u8 = 8;
}

/// Two are equal when they mean the same, wherever they stand.
impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Kind {
    /// How tight what it is made of holds together.
    pub(super) const fn power(&self) -> u8 {
        match self {
            Self::Logic { any: true, .. } => power::OR,
            Self::Logic { any: false, .. } => power::AND,
            Self::Not(_) => power::NOT,
            Self::Binary { operator, .. } => operator.power(),
            Self::IsNull { .. } | Self::Between { .. } | Self::In { .. } | Self::Like { .. } => power::COMPARISON,
            Self::Negative(_) => power::UNARY,
            _ => power::ATOM,
        }
    }

    /// What it is made of.
    pub(super) fn parts(&self) -> Vec<&Expr> {
        match self {
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Text(_)
            | Self::Interval(_)
            | Self::Timestamp(_)
            | Self::Parameter(_)
            | Self::Column { .. }
            | Self::CountAll => vec![],
            Self::List(terms) | Self::Logic { terms, .. } | Self::Call { arguments: terms, .. } => {
                terms.iter().collect()
            }
            Self::Negative(value) | Self::Not(value) | Self::IsNull { value, .. } | Self::Cast { value, .. } => {
                vec![value]
            }
            Self::Binary { left, right, .. } => vec![left, right],
            Self::Between { value, low, high, .. } => vec![value, low, high],
            Self::In { value, list, .. } => std::iter::once(&**value).chain(list).collect(),
            Self::Like { value, pattern, .. } => vec![value, pattern],
            Self::Case { of, branches, otherwise } => {
                let branches = branches.iter().flat_map(|(when, then)| [when, then]);
                of.iter().map(|of| &**of).chain(branches).chain(otherwise.iter().map(|value| &**value)).collect()
            }
        }
    }
}

impl Expr {
    pub(super) fn new(at: usize, kind: Kind) -> Self {
        let depth = 1 + kind.parts().iter().map(|part| part.depth).max().unwrap_or(0);
        Self { kind, at, depth }
    }
}
