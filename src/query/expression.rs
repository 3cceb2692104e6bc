use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

use super::like::Pattern;
use super::regex::Regex;
use super::set::Set;
use crate::index::terms::{Matching, TextMatch};
pub(super) use crate::model::Step;
use crate::model::{Element, META_COLUMN};

/// A condition: true, false or unknown for a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Predicate {
    Constant(bool),
    /// A `bool` field, or a JSON value taken as one.
    Truth(Operand),
    Not(Box<Self>),
    /// Two or more, none an `And` itself; cheap ones first.
    And(Vec<Self>),
    /// Two or more, none an `Or` itself; cheap ones first.
    Or(Vec<Self>),
    /// Both true or both false.
    Same(Box<Self>, Box<Self>),
    /// At most the right side is a literal.
    Compare {
        comparison: Comparison,
        left: Operand,
        right: Operand,
    },
    In {
        operand: Operand,
        set: Set,
    },
    /// A condition on text.
    Like {
        operand: Operand,
        shape: Shape,
    },
    /// That the key of a row is one of a share of all keys, which its hash decides.
    Sample {
        key: Operand,
        share: f64,
        seed: i64,
    },
    /// Never unknown.
    IsNull(Operand),
    /// Never unknown.
    Exists(Path),
    Contains {
        path: Path,
        containment: Containment,
        values: Vec<Json>,
    },
}

/// What text is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Like(Pattern),
    Regex(Regex),
    /// Its terms, by the field's analyzer.
    Terms(Arc<TextMatch>),
}

impl Shape {
    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Like(pattern) => pattern.matches(text),
            Self::Regex(regex) => regex.matches(text),
            Self::Terms(terms) => terms.matches(text),
        }
    }

    /// How every text that fits begins.
    pub(super) fn prefix(&self) -> &str {
        match self {
            Self::Like(pattern) => pattern.prefix(),
            Self::Regex(_) | Self::Terms(_) => "",
        }
    }
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Literal(Literal),
    Column(Column),
    Path(Path),
    /// Not of two literals.
    Arithmetic {
        arithmetic: Arithmetic,
        left: Box<Self>,
        right: Box<Self>,
    },
}

/// A field that is neither JSON nor an array.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Its type in the schema, for messages and to tell a `float` from a `double`.
    pub(super) type_name: &'static str,
    /// Its number among the columns that the filter reads.
    pub(super) slot: usize,
}

/// A place in the values of a JSON field or an array.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Path {
    /// The field; [`META_COLUMN`] for a dynamic one.
    pub(super) column: String,
    pub(super) steps: Vec<Step>,
    /// What an array holds; `None` for JSON.
    pub(super) element: Option<Element>,
    /// Its number among the places that the filter reads.
    pub(super) slot: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Bool(bool),
    Int(i64),
    /// Finite.
    Float(f64),
    Text(String),
    /// Of booleans, numbers, strings and such lists.
    List(Vec<Json>),
}

/// What is known of an operand's type before any row is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Float,
    Text,
    /// Anything: it differs by row.
    Json,
    /// Arithmetic over JSON: an integer or a double, by row.
    Number,
    /// A list literal, or an array.
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    /// Of literals only.
    Pow,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

/// What `json_contains`, `array_contains` and their like ask of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Containment {
    One,
    All,
    Any,
}

/// Binding powers, loosest first.
pub(super) mod power {
    pub(in super::super) const OR: u8 = 1;
    pub(in super::super) const AND: u8 = 2;
    pub(in super::super) const BIT_OR: u8 = 3;
    pub(in super::super) const BIT_XOR: u8 = 4;
    pub(in super::super) const BIT_AND: u8 = 5;
    pub(in super::super) const EQUALITY: u8 = 6;
    pub(in super::super) const RELATION: u8 = 7;
    pub(in super::super) const IN: u8 = 8;
    pub(in super::super) const SHIFT: u8 = 9;
    pub(in super::super) const SUM: u8 = 10;
    pub(in super::super) const PRODUCT: u8 = 11;
    pub(in super::super) const UNARY: u8 = 12;
    pub(in super::super) const POW: u8 = 13;
    pub(in super::super) const ATOM: u8 = 14;
}

impl Comparison {
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        }
    }

    /// The same comparison with its sides exchanged.
    pub(super) const fn flipped(self) -> Self {
        match self {
            Self::Lt => Self::Gt,
            Self::Le => Self::Ge,
            Self::Gt => Self::Lt,
            Self::Ge => Self::Le,
            other => other,
        }
    }

    /// Whether it holds for values in this order; `None` is the order of what is not a number.
    pub(super) fn holds(self, order: Option<std::cmp::Ordering>) -> bool {
        let Some(order) = order else { return self == Self::Ne };
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
        }
    }

    pub(super) const fn is_equality(self) -> bool {
        matches!(self, Self::Eq | Self::Ne)
    }

    const fn power(self) -> u8 {
        if self.is_equality() { power::EQUALITY } else { power::RELATION }
    }
}

impl Arithmetic {
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Rem => "%",
            Self::Pow => "**",
            Self::And => "&",
            Self::Or => "|",
            Self::Xor => "^",
            Self::Shl => "<<",
            Self::Shr => ">>",
        }
    }

    /// Whether it is defined for integers only.
    pub(super) const fn is_integral(self) -> bool {
        matches!(self, Self::Rem | Self::And | Self::Or | Self::Xor | Self::Shl | Self::Shr)
    }

    pub(super) const fn power(self) -> u8 {
        match self {
            Self::Add | Self::Sub => power::SUM,
            Self::Mul | Self::Div | Self::Rem => power::PRODUCT,
            Self::Pow => power::POW,
            Self::And => power::BIT_AND,
            Self::Or => power::BIT_OR,
            Self::Xor => power::BIT_XOR,
            Self::Shl | Self::Shr => power::SHIFT,
        }
    }
}

impl Containment {
    /// Of a function over JSON. Over an array it is `array` instead of `json`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::One => "json_contains",
            Self::All => "json_contains_all",
            Self::Any => "json_contains_any",
        }
    }

    pub(super) const fn array_name(self) -> &'static str {
        match self {
            Self::One => "array_contains",
            Self::All => "array_contains_all",
            Self::Any => "array_contains_any",
        }
    }
}

impl Operand {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Literal(Literal::Bool(_)) => Kind::Bool,
            Self::Literal(Literal::Int(_)) => Kind::Int,
            Self::Literal(Literal::Float(_)) => Kind::Float,
            Self::Literal(Literal::Text(_)) => Kind::Text,
            Self::Literal(Literal::List(_)) => Kind::List,
            Self::Column(column) => column.kind,
            Self::Path(path) => path.kind(),
            Self::Arithmetic { left, right, .. } => match (left.kind(), right.kind()) {
                (Kind::Json | Kind::Number, _) | (_, Kind::Json | Kind::Number) => Kind::Number,
                (Kind::Int, Kind::Int) => Kind::Int,
                _ => Kind::Float,
            },
        }
    }

    fn cost(&self) -> u32 {
        match self {
            Self::Literal(_) => 0,
            Self::Column(Column { kind: Kind::Text, .. }) => 8,
            Self::Column(_) => 1,
            Self::Path(_) => 100,
            Self::Arithmetic { left, right, .. } => 1 + left.cost() + right.cost(),
        }
    }

    fn each_place(&mut self, visit: &mut impl FnMut(Place<'_>)) {
        match self {
            Self::Literal(_) => {}
            Self::Column(column) => visit(Place::Column(column)),
            Self::Path(path) => visit(Place::Path(path, false)),
            Self::Arithmetic { left, right, .. } => {
                left.each_place(visit);
                right.each_place(visit);
            }
        }
    }
}

pub(super) enum Place<'a> {
    Column(&'a mut Column),
    /// And whether what is inside of an array there matters.
    Path(&'a mut Path, bool),
}

/// What a filter reads, by slot.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Places {
    /// Every column, the JSON ones too.
    pub(super) columns: Vec<(String, Kind)>,
    /// Of every path: its column's slot, its steps, and whether what is inside of an array there matters.
    pub(super) paths: Vec<(usize, Vec<Step>, bool)>,
}

impl Predicate {
    /// The opposite. Unknown stays unknown.
    pub(super) fn negated(self) -> Self {
        match self {
            Self::Constant(value) => Self::Constant(!value),
            Self::Not(inner) => *inner,
            other => Self::Not(Box::new(other)),
        }
    }

    /// Whether `random_sample` is a term of it.
    pub(super) fn is_sampled(&self) -> bool {
        match self {
            Self::Sample { .. } => true,
            Self::And(terms) => terms.iter().any(Self::is_sampled),
            _ => false,
        }
    }

    /// All of `terms`, or any of them with `any`, in one flat node.
    pub(super) fn joined(any: bool, terms: impl IntoIterator<Item = Self>) -> Self {
        let mut flat = vec![];
        for term in terms {
            match term {
                Self::Constant(value) if value == any => return Self::Constant(any),
                Self::Constant(_) => {}
                Self::And(inner) if !any => flat.extend(inner),
                Self::Or(inner) if any => flat.extend(inner),
                other => flat.push(other),
            }
        }
        match flat.len() {
            0 => Self::Constant(!any),
            1 => flat.remove(0),
            _ if any => Self::Or(flat),
            _ => Self::And(flat),
        }
    }

    /// Puts the cheap terms of `and` and `or` first, numbers every column and path, and lists them.
    pub(super) fn settle(&mut self) -> Places {
        self.sort();
        let mut places = Places::default();
        let mut columns: HashMap<String, usize> = HashMap::new();
        let mut paths: HashMap<(usize, Vec<Step>), usize> = HashMap::new();
        self.each_place(&mut |place| {
            let mut column_slot = |name: &str, kind: Kind| {
                *columns.entry(name.to_string()).or_insert_with(|| {
                    places.columns.push((name.to_string(), kind));
                    places.columns.len() - 1
                })
            };
            match place {
                Place::Column(column) => column.slot = column_slot(&column.name, column.kind),
                Place::Path(path, deep) => {
                    let column = column_slot(&path.column, Kind::Json);
                    path.slot = *paths.entry((column, path.steps.clone())).or_insert_with(|| {
                        places.paths.push((column, path.steps.clone(), false));
                        places.paths.len() - 1
                    });
                    places.paths[path.slot].2 |= deep;
                }
            }
        });
        places
    }

    fn sort(&mut self) {
        match self {
            Self::Not(inner) => inner.sort(),
            Self::Same(left, right) => {
                left.sort();
                right.sort();
            }
            Self::And(terms) | Self::Or(terms) => {
                terms.iter_mut().for_each(Self::sort);
                terms.sort_by_cached_key(Self::cost);
            }
            _ => {}
        }
    }

    /// A rough price for one row, in nanoseconds: only the order matters.
    fn cost(&self) -> u32 {
        match self {
            Self::Constant(_) => 0,
            Self::Truth(operand) | Self::IsNull(operand) => operand.cost().min(100),
            Self::Not(inner) => inner.cost(),
            Self::And(terms) | Self::Or(terms) => terms.iter().map(Self::cost).fold(0, u32::saturating_add),
            Self::Same(left, right) => left.cost().saturating_add(right.cost()),
            Self::Compare { left, right, .. } => left.cost() + right.cost(),
            Self::In { operand, .. } => 2 + 2 * operand.cost(),
            Self::Like { operand, shape: Shape::Like(_) } => 20 + operand.cost(),
            Self::Like { operand, .. } => 200 + operand.cost(),
            // Last, as it must be written.
            Self::Sample { .. } => u32::MAX,
            Self::Exists(_) | Self::Contains { .. } => 120,
        }
    }

    pub(super) fn each_place(&mut self, visit: &mut impl FnMut(Place<'_>)) {
        match self {
            Self::Constant(_) => {}
            Self::Truth(operand) | Self::Like { operand, .. } | Self::IsNull(operand) => operand.each_place(visit),
            Self::Sample { key, .. } => key.each_place(visit),
            Self::Not(inner) => inner.each_place(visit),
            Self::And(terms) | Self::Or(terms) => terms.iter_mut().for_each(|term| term.each_place(visit)),
            Self::Same(left, right) => {
                left.each_place(visit);
                right.each_place(visit);
            }
            Self::Compare { left, right, .. } => match (left, right) {
                // Only here can whole arrays and objects be compared.
                (Operand::Path(left), Operand::Path(right)) => {
                    visit(Place::Path(left, true));
                    visit(Place::Path(right, true));
                }
                (Operand::Path(path), Operand::Literal(Literal::List(_))) => visit(Place::Path(path, true)),
                (left, right) => {
                    left.each_place(visit);
                    right.each_place(visit);
                }
            },
            Self::In { operand, set } => match operand {
                Operand::Path(path) => visit(Place::Path(path, set.has_lists())),
                other => other.each_place(visit),
            },
            Self::Exists(path) => visit(Place::Path(path, false)),
            Self::Contains { path, .. } => visit(Place::Path(path, true)),
        }
    }

    fn power(&self) -> u8 {
        match self {
            Self::Constant(_) | Self::Truth(_) | Self::Like { .. } | Self::IsNull(_) => power::ATOM,
            Self::Exists(_) | Self::Contains { .. } | Self::Sample { .. } => power::ATOM,
            Self::Not(inner) => match **inner {
                Self::In { .. } => power::IN,
                Self::IsNull(_) | Self::Like { shape: Shape::Regex(_), .. } => power::ATOM,
                _ => power::UNARY,
            },
            Self::And(_) => power::AND,
            Self::Or(_) => power::OR,
            Self::Same(..) => power::EQUALITY,
            Self::Compare { comparison, .. } => comparison.power(),
            Self::In { .. } => power::IN,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, power: u8) -> fmt::Result {
        if self.power() < power { write!(f, "({self})") } else { write!(f, "{self}") }
    }

    /// As a side of `==` between conditions.
    fn write_side(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Alone it would be a JSON value, compared by whatever type it has.
            Self::Truth(Operand::Path(path)) => write!(f, "({path} == true)"),
            other => other.write(f, power::ATOM),
        }
    }
}

impl fmt::Display for Predicate {
    /// The expression in its normal form, with no more brackets than it needs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => write!(f, "{value}"),
            Self::Truth(operand) => write!(f, "{operand}"),
            Self::Not(inner) => match &**inner {
                Self::In { operand, set } => {
                    operand.write(f, power::ATOM)?;
                    write!(f, " not in {set}")
                }
                Self::IsNull(operand) => write!(f, "{operand} is not null"),
                Self::Like { operand, shape: Shape::Regex(regex) } => {
                    write!(f, "{operand} !~ ")?;
                    write_text(f, &regex.to_string())
                }
                other => {
                    f.write_str("not ")?;
                    other.write(f, power::ATOM)
                }
            },
            Self::And(terms) | Self::Or(terms) => {
                let (word, power) = match self {
                    Self::And(_) => (" and ", power::AND),
                    _ => (" or ", power::OR),
                };
                for (index, term) in terms.iter().enumerate() {
                    if index > 0 {
                        f.write_str(word)?;
                    }
                    term.write(f, power + 1)?;
                }
                Ok(())
            }
            Self::Same(left, right) => {
                left.write_side(f)?;
                f.write_str(" == ")?;
                right.write_side(f)
            }
            Self::Compare { comparison, left, right } => {
                left.write(f, comparison.power() + 1)?;
                write!(f, " {} ", comparison.sign())?;
                right.write(f, comparison.power() + 1)
            }
            Self::In { operand, set } => {
                operand.write(f, power::ATOM)?;
                write!(f, " in {set}")
            }
            Self::Like { operand, shape: Shape::Terms(terms) } => {
                let (name, option) = match terms.matching() {
                    Matching::Any { least } => {
                        ("text_match", (least > 1).then(|| format!("minimum_should_match={least}")))
                    }
                    Matching::Phrase { slop } => ("phrase_match", (slop > 0).then(|| slop.to_string())),
                    Matching::Fuzzy { distance } => ("text_match_fuzzy", Some(distance.to_string())),
                };
                write!(f, "{name}({operand}, ")?;
                write_text(f, terms.text())?;
                option.map_or(Ok(()), |option| write!(f, ", {option}"))?;
                f.write_str(")")
            }
            Self::Like { operand, shape } => {
                let (word, source) = match shape {
                    Shape::Like(pattern) => ("like", pattern.to_string()),
                    Shape::Regex(regex) => ("=~", regex.to_string()),
                    Shape::Terms(_) => unreachable!("it was written above"),
                };
                write!(f, "{operand} {word} ")?;
                write_text(f, &source)
            }
            Self::Sample { share, seed: 0, .. } => write!(f, "random_sample({share:?})"),
            Self::Sample { share, seed, .. } => write!(f, "random_sample({share:?}, {seed})"),
            Self::IsNull(operand) => write!(f, "{operand} is null"),
            Self::Exists(path) => write!(f, "exists {path}"),
            Self::Contains { path, containment, values } => {
                let name = if path.element.is_some() { containment.array_name() } else { containment.name() };
                write!(f, "{name}({path}, ")?;
                match (containment, values.as_slice()) {
                    (Containment::One, [value]) => write_json(f, value)?,
                    (_, values) => write_list(f, values)?,
                }
                f.write_str(")")
            }
        }
    }
}

impl Operand {
    fn write(&self, f: &mut fmt::Formatter<'_>, power: u8) -> fmt::Result {
        let own = match self {
            Self::Literal(Literal::Int(i64::MIN..0)) => power::UNARY,
            Self::Literal(Literal::Float(float)) if float.is_sign_negative() => power::UNARY,
            Self::Arithmetic { arithmetic, .. } => arithmetic.power(),
            _ => power::ATOM,
        };
        if own < power { write!(f, "({self})") } else { write!(f, "{self}") }
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => write!(f, "{literal}"),
            Self::Column(column) => f.write_str(&column.name),
            Self::Path(path) => write!(f, "{path}"),
            Self::Arithmetic { arithmetic, left, right } => {
                left.write(f, arithmetic.power())?;
                write!(f, " {} ", arithmetic.sign())?;
                right.write(f, arithmetic.power() + 1)
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.last() == Some(&Step::Length) {
            f.write_str("array_length(")?;
        }
        f.write_str(&self.column)?;
        for step in &self.steps {
            match step {
                Step::Length => f.write_str(")")?,
                Step::Key(key) => {
                    f.write_str("[")?;
                    write_text(f, key)?;
                    f.write_str("]")?;
                }
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Literal {
    /// The value as JSON has it; `None` for a list.
    pub(super) fn to_json(&self) -> Option<Json> {
        match self {
            Self::Bool(value) => Some(Json::from(*value)),
            Self::Int(int) => Some(Json::from(*int)),
            Self::Float(float) => Some(Json::from(*float)),
            Self::Text(text) => Some(Json::from(text.as_str())),
            Self::List(_) => None,
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(int) => write!(f, "{int}"),
            // With its point or exponent, so that it is read as a double again.
            Self::Float(float) => write!(f, "{float:?}"),
            Self::Text(text) => write_text(f, text),
            Self::List(values) => write_list(f, values),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int => "int64",
            Self::Float => "double",
            Self::Text => "varchar",
            Self::Json => "json",
            Self::Number => "number",
            Self::List => "list",
        })
    }
}

/// `text` as a string literal.
pub(super) fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    use fmt::Write;
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

/// A value of a list.
pub(super) fn write_json(f: &mut fmt::Formatter<'_>, value: &Json) -> fmt::Result {
    match value {
        Json::String(text) => write_text(f, text),
        Json::Array(values) => write_list(f, values),
        Json::Number(number) => match number.as_i64() {
            Some(int) => write!(f, "{int}"),
            None => write!(f, "{:?}", number.as_f64().unwrap_or(f64::NAN)),
        },
        other => write!(f, "{other}"),
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, values: &[Json]) -> fmt::Result {
    f.write_str("[")?;
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        write_json(f, value)?;
    }
    f.write_str("]")
}

impl Places {
    /// The names of the fields, [`META_COLUMN`] for dynamic ones.
    pub(super) fn fields(&self) -> BTreeSet<&str> {
        self.columns.iter().map(|(name, _)| name.as_str()).collect()
    }
}

impl Path {
    /// The dynamic key `key`.
    pub(super) fn dynamic(key: String) -> Self {
        Self { column: META_COLUMN.to_string(), steps: vec![Step::Key(key)], element: None, slot: 0 }
    }

    /// What is known of the values there.
    pub(super) fn kind(&self) -> Kind {
        match (self.steps.last(), self.element) {
            (Some(Step::Length), _) => Kind::Int,
            (_, None) => Kind::Json,
            (None, Some(_)) => Kind::List,
            (Some(_), Some(element)) => Kind::of(element),
        }
    }
}

impl Kind {
    pub(super) const fn of(element: Element) -> Self {
        match element {
            Element::Bool => Self::Bool,
            Element::Int8 | Element::Int16 | Element::Int32 | Element::Int64 | Element::Timestamp => Self::Int,
            Element::Float | Element::Double => Self::Float,
            Element::Varchar { .. } => Self::Text,
        }
    }
}
