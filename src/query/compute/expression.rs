use std::fmt;

use serde::{Deserialize, Serialize};

use super::Function;
use crate::model::Value;

/// A value of every row of a batch. As JSON or MessagePack a map of one entry: `{"text": "price * 2"}`, `{"column": "price"}`,
/// `{"literal": 2}`, `{"call": ["mul", [{"column": "price"}, {"literal": 2}]]}`,
/// `{"case": [[[condition, value], …], otherwise]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expression {
    /// In the filter language: a condition, whose unknown counts as false, or a value such as `price * 2`.
    Text(String),
    /// A field by its name.
    Column(String),
    /// The same value in every row. A [`Value::Vector`] is a `float_vector`, an integer is one, text is text.
    Literal(Value),
    /// A function of values.
    Call(Function, Vec<Self>),
    /// The value beside the first condition that is true, otherwise the last one, or null without it.
    Case(Vec<(Self, Self)>, Option<Box<Self>>),
}

impl Expression {
    /// A field by its name.
    pub fn column(name: impl Into<String>) -> Self {
        Self::Column(name.into())
    }

    /// The same value in every row.
    pub fn literal(value: impl Into<Value>) -> Self {
        Self::Literal(value.into())
    }

    /// A function of values.
    pub fn call(function: Function, arguments: impl IntoIterator<Item = Self>) -> Self {
        Self::Call(function, arguments.into_iter().collect())
    }

    /// The field, where it is one and nothing else.
    pub fn as_column(&self) -> Option<&str> {
        match self {
            Self::Column(name) => Some(name),
            Self::Text(text) if is_name(text.trim()) => Some(text.trim()),
            _ => None,
        }
    }
}

/// Whether the text is one name and no word of the language.
fn is_name(text: &str) -> bool {
    const WORDS: [&str; 11] = ["and", "or", "not", "in", "like", "exists", "true", "false", "null", "True", "False"];
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !WORDS.contains(&text)
        && !WORDS.iter().any(|word| word.to_ascii_uppercase() == text)
}

impl From<&str> for Expression {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Column(name) => f.write_str(name),
            Self::Literal(Value::Vector(values)) => write!(f, "[{} numbers]", values.len()),
            Self::Literal(value) => f.write_str(&serde_json::to_string(value).unwrap_or_default()),
            Self::Call(function, arguments) => {
                if let (Some(sign), [left, right]) = (function.sign(), &arguments[..]) {
                    return write!(f, "({left} {sign} {right})");
                }
                write!(f, "{}(", function.name())?;
                for (at, argument) in arguments.iter().enumerate() {
                    write!(f, "{}{argument}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str(")")
            }
            Self::Case(branches, otherwise) => {
                f.write_str("case")?;
                for (condition, value) in branches {
                    write!(f, " when {condition} then {value}")?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " else {otherwise}")?;
                }
                f.write_str(" end")
            }
        }
    }
}
