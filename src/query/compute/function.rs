use serde::{Deserialize, Serialize};

/// What can be called. Null with a null argument, unless it says otherwise. Texts are counted in characters, the first of which is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Function {
    /// Of numbers; `timestamp` + microseconds; null when it does not fit.
    Add,
    /// Of numbers; `timestamp` - microseconds; microseconds between two timestamps.
    Sub,
    /// Of numbers.
    Mul,
    /// Of numbers: of integers the whole part.
    Div,
    /// Of integers.
    Rem,
    /// Of a number.
    Neg,
    /// Of two of one type.
    Eq,
    /// Of two of one type.
    Ne,
    /// Of two numbers, texts or timestamps.
    Lt,
    /// Of two numbers, texts or timestamps.
    Le,
    /// Of two numbers, texts or timestamps.
    Gt,
    /// Of two numbers, texts or timestamps.
    Ge,
    /// Of two or more conditions: false with one that is false, whatever the others are.
    And,
    /// Of two or more conditions: true with one that is true, whatever the others are.
    Or,
    /// Of a condition.
    Not,
    /// Whether the first equals one of the others.
    In,
    /// Never null.
    IsNull,
    /// The first that is not null.
    Coalesce,
    /// The first, or null when it equals the second.
    NullIf,
    /// The least of its arguments.
    Least,
    /// The greatest of its arguments.
    Greatest,
    /// Of a number (towards zero), a text, a bool (0 and 1) or a timestamp (microseconds since 1970).
    ToInt,
    /// Of a number or a text.
    ToDouble,
    /// Of anything but vectors.
    ToText,
    /// Of microseconds since 1970, or a text as of RFC 3339.
    ToTimestamp,
    /// Of a number.
    Abs,
    /// Of a number: the greatest integer that is not above it.
    Floor,
    /// Of a number: the least integer that is not below it.
    Ceil,
    /// Of a number: the nearest integer, halves away from zero.
    Round,
    /// Of a number: null below zero.
    Sqrt,
    /// One after the other; null counts as empty.
    Concat,
    /// In lower case.
    Lower,
    /// In upper case.
    Upper,
    /// How many characters.
    Length,
    /// From a character on, and how many (all without it).
    Substring,
    /// Without white space before and after.
    Trim,
    /// Whether a text fits a pattern, which is a literal, with `%` and `_`.
    Like,
    /// The n-th part of a text between delimiters; empty when there are fewer.
    SplitPart,
    /// A timestamp rounded down to a multiple of microseconds since 1970.
    TimeFloor,
    /// The year of a timestamp, in UTC.
    Year,
    /// The month of a timestamp, 1 to 12.
    Month,
    /// The day of the month of a timestamp.
    Day,
    /// The hour of a timestamp.
    Hour,
    /// The minute of a timestamp.
    Minute,
    /// The second of a timestamp.
    Second,
    /// What stands at a path (a literal such as `$.a[0].b`, or a key) of a JSON value, as text.
    JsonText,
    /// The same as an integer; null when it is none.
    JsonInt,
    /// The same as a double; null when it is no number.
    JsonDouble,
    /// 1 - cosine of the angle between two vectors; null with one of zero length.
    CosineDistance,
    /// Euclid's distance of two vectors.
    L2Distance,
    /// Of two vectors.
    InnerProduct,
    /// The length of a vector.
    Norm,
}

const NAMES: &[(Function, &str)] = {
    use Function::*;
    &[
        (Add, "add"),
        (Sub, "sub"),
        (Mul, "mul"),
        (Div, "div"),
        (Rem, "rem"),
        (Neg, "neg"),
        (Eq, "eq"),
        (Ne, "ne"),
        (Lt, "lt"),
        (Le, "le"),
        (Gt, "gt"),
        (Ge, "ge"),
        (And, "and"),
        (Or, "or"),
        (Not, "not"),
        (In, "in"),
        (IsNull, "is_null"),
        (Coalesce, "coalesce"),
        (NullIf, "null_if"),
        (Least, "least"),
        (Greatest, "greatest"),
        (ToInt, "to_int"),
        (ToDouble, "to_double"),
        (ToText, "to_text"),
        (ToTimestamp, "to_timestamp"),
        (Abs, "abs"),
        (Floor, "floor"),
        (Ceil, "ceil"),
        (Round, "round"),
        (Sqrt, "sqrt"),
        (Concat, "concat"),
        (Lower, "lower"),
        (Upper, "upper"),
        (Length, "length"),
        (Substring, "substring"),
        (Trim, "trim"),
        (Like, "like"),
        (SplitPart, "split_part"),
        (TimeFloor, "time_floor"),
        (Year, "year"),
        (Month, "month"),
        (Day, "day"),
        (Hour, "hour"),
        (Minute, "minute"),
        (Second, "second"),
        (JsonText, "json_text"),
        (JsonInt, "json_int"),
        (JsonDouble, "json_double"),
        (CosineDistance, "cosine_distance"),
        (L2Distance, "l2_distance"),
        (InnerProduct, "inner_product"),
        (Norm, "norm"),
    ]
};

impl Function {
    /// Its name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(function, _)| *function == self).map_or("", |(_, name)| name)
    }

    /// The function of a name, whatever its case.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(_, other)| other.eq_ignore_ascii_case(name)).map(|(function, _)| *function)
    }

    /// The names of all functions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|(_, name)| *name)
    }

    /// How it is written between two values.
    pub(super) fn sign(self) -> Option<&'static str> {
        Some(match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Rem => "%",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::And => "and",
            Self::Or => "or",
            _ => return None,
        })
    }

    /// The fewest and the most arguments.
    pub(super) fn arity(self) -> (usize, usize) {
        match self {
            Self::And | Self::Or | Self::Coalesce | Self::Concat | Self::Least | Self::Greatest => (1, 255),
            Self::In => (2, 100_000),
            Self::Substring => (2, 3),
            Self::SplitPart => (3, 3),
            Self::Add | Self::Sub | Self::Mul | Self::Div | Self::Rem => (2, 2),
            Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge => (2, 2),
            Self::NullIf | Self::Like | Self::TimeFloor => (2, 2),
            Self::JsonText | Self::JsonInt | Self::JsonDouble => (2, 2),
            Self::CosineDistance | Self::L2Distance | Self::InnerProduct => (2, 2),
            _ => (1, 1),
        }
    }
}
