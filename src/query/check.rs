use std::sync::Arc;

use serde_json::Value as Json;

use super::expression::{
    Arithmetic, Column, Comparison, Containment, Kind, Literal, Operand, Path, Predicate, Shape, Step,
};
use super::fault::{Fault, closest};
use super::like::Pattern;
use super::number::Number;
use super::regex::Regex;
use super::set::Set;
use super::token::quoted;
use super::{DEPTH_MAX, token};
use crate::index::terms::{Matching, TextMatch};
use crate::model::{DataType, Element, META_COLUMN, Schema, Value};

/// A part of an expression whose type is known.
#[derive(Debug, Clone)]
pub(super) struct Term {
    pub(super) meaning: Meaning,
    /// Where it starts in the text.
    pub(super) at: usize,
    /// How many nodes lie one below the other in it.
    pub(super) depth: usize,
    /// Where the values of a list start.
    pub(super) values_at: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Meaning {
    Condition(Predicate),
    Value(Operand),
}

impl Term {
    pub(super) fn value(at: usize, operand: Operand) -> Self {
        Self { meaning: Meaning::Value(operand), at, depth: 1, values_at: vec![] }
    }

    pub(super) fn literal(at: usize, literal: Literal) -> Self {
        Self::value(at, Operand::Literal(literal))
    }

    fn above(meaning: Meaning, at: usize, parts_depth: usize) -> Result<Self, Fault> {
        let depth = parts_depth + 1;
        if depth > DEPTH_MAX {
            return Err(too_deep(at));
        }
        Ok(Self { meaning, at, depth, values_at: vec![] })
    }

    fn kind(&self) -> Kind {
        match &self.meaning {
            Meaning::Condition(_) => Kind::Bool,
            Meaning::Value(operand) => operand.kind(),
        }
    }

    /// For messages.
    fn describe(&self) -> String {
        match &self.meaning {
            Meaning::Condition(_) => "a condition".to_string(),
            Meaning::Value(operand) => {
                let shown = quoted(&operand.to_string());
                match operand {
                    Operand::Literal(Literal::List(_)) => "a list".to_string(),
                    Operand::Literal(literal) => format!("{} {shown}", noun(literal)),
                    Operand::Column(column) => format!("{} field {shown}", column.type_name),
                    Operand::Path(path) => match path.kind() {
                        Kind::List => format!("array field {shown}"),
                        kind => format!("{kind} value {shown}"),
                    },
                    Operand::Arithmetic { .. } => format!("{} {shown}", operand.kind()),
                }
            }
        }
    }

    fn unexpected(&self, expected: &str) -> Fault {
        Fault::new(self.at, format!("found {}, expected {expected}", self.describe()))
    }

    /// The value at `index` of this list is not what was expected.
    fn unexpected_value(&self, index: usize, value: &Json, expected: &str) -> Fault {
        let at = self.values_at.get(index).copied().unwrap_or(self.at);
        Fault::new(at, format!("found {} in the list, expected {expected}", quoted(&value.to_string())))
    }
}

fn noun(literal: &Literal) -> &'static str {
    match literal {
        Literal::Bool(_) => "boolean",
        Literal::Int(_) => "integer",
        Literal::Float(_) => "double",
        Literal::Text(_) => "string",
        Literal::List(_) => "list",
    }
}

pub(super) fn too_deep(at: usize) -> Fault {
    Fault::new(at, format!("the expression is nested too deeply here: more than {DEPTH_MAX} levels"))
}

/// The place that `name` means: a field, or a key of the dynamic field.
pub(super) fn name(schema: &Schema, at: usize, name: &str) -> Result<Term, Fault> {
    let Some(field) = schema.field(name) else {
        if schema.dynamic() {
            return Ok(Term::value(at, Operand::Path(Path::dynamic(name.to_string()))));
        }
        let hint = match closest(name, schema.fields().iter().map(|field| field.name.as_str())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let names: Vec<_> = schema.fields().iter().map(|field| format!("`{}`", field.name)).collect();
                format!("expected one of {}", names.join(", "))
            }
        };
        return Err(Fault::new(at, format!("found {}, which is no field of this collection: {hint}", quoted(name))));
    };
    let path = |element| {
        let path = Path { column: field.name.clone(), steps: vec![], element, slot: 0 };
        Ok(Term::value(at, Operand::Path(path)))
    };
    let kind = match field.data_type {
        DataType::Bool => Kind::Bool,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Timestamp => Kind::Int,
        DataType::Float | DataType::Double => Kind::Float,
        DataType::Varchar { .. } => Kind::Text,
        DataType::Json => return path(None),
        DataType::Array { element, .. } => return path(Some(element)),
        _ => {
            return Err(Fault::new(
                at,
                format!("found vector field `{name}`, expected a scalar field: filters do not read vectors"),
            ));
        }
    };
    let type_name = field.data_type.name();
    Ok(Term::value(at, Operand::Column(Column { name: field.name.clone(), kind, type_name, slot: 0 })))
}

/// `$meta`, which steps must follow.
pub(super) fn meta(schema: &Schema, at: usize) -> Result<Term, Fault> {
    if !schema.dynamic() {
        return Err(Fault::new(at, "found `$meta`, but this collection has no dynamic field"));
    }
    Ok(Term::value(at, Operand::Path(Path { column: META_COLUMN.to_string(), steps: vec![], element: None, slot: 0 })))
}

/// `term[step]`, with the bracket at `at`.
pub(super) fn step(mut term: Term, at: usize, step: Step) -> Result<Term, Fault> {
    match &mut term.meaning {
        Meaning::Value(Operand::Path(path)) if path.element.is_none() => {
            path.steps.push(step);
            Ok(term)
        }
        Meaning::Value(Operand::Path(path)) if path.steps.is_empty() => match step {
            Step::Index(_) => {
                path.steps.push(step);
                Ok(term)
            }
            _ => Err(Fault::new(at, format!("found a key after {}, expected an index such as `[0]`", term.describe()))),
        },
        _ => Err(Fault::new(at, format!("found `[` after {}, which has nothing inside", term.describe()))),
    }
}

/// The value of a template parameter.
pub(super) fn parameter(at: usize, name: &str, value: &Value) -> Result<Term, Fault> {
    let found = |what: &str| {
        Err(Fault::new(at, format!("parameter `{name}` is {what}, expected a boolean, a number, a string or a list")))
    };
    let literal = match value {
        Value::Bool(value) => Literal::Bool(*value),
        Value::Int(int) => Literal::Int(*int),
        Value::Float(float) if float.is_finite() => Literal::Float(f64::from(*float)),
        Value::Double(float) if float.is_finite() => Literal::Float(*float),
        Value::String(text) => Literal::Text(text.clone()),
        Value::Json(Json::Bool(value)) => Literal::Bool(*value),
        Value::Json(Json::String(text)) => Literal::Text(text.clone()),
        Value::Json(Json::Number(number)) => match Number::of_json(number) {
            Number::Int(int) => Literal::Int(int),
            Number::Big(_) => return Err(token::out_of_range(&number.to_string(), at)),
            Number::Float(float) => Literal::Float(float),
        },
        Value::Json(Json::Array(values)) => {
            values.iter().try_for_each(|value| list_value(at, name, value, 2))?;
            Literal::List(values.clone())
        }
        Value::Array(values) => {
            let values =
                values.iter().map(|value| parameter(at, name, value).and_then(constant)).collect::<Result<_, _>>()?;
            Literal::List(values)
        }
        Value::Float(_) | Value::Double(_) => return found("not finite"),
        Value::Null | Value::Json(Json::Null) => return found("null"),
        Value::Json(Json::Object(_)) => return found("an object"),
        Value::Vector(_) | Value::Bytes(_) | Value::Sparse(_) => return found("a vector"),
    };
    Ok(Term::literal(at, literal))
}

/// Refuses what a list literal could not hold.
fn list_value(at: usize, name: &str, value: &Json, depth: usize) -> Result<(), Fault> {
    match value {
        _ if depth > DEPTH_MAX => Err(too_deep(at)),
        Json::Null | Json::Object(_) => Err(Fault::new(
            at,
            format!(
                "parameter `{name}` holds {}, expected booleans, numbers, strings or lists",
                quoted(&value.to_string())
            ),
        )),
        Json::Number(number) if matches!(Number::of_json(number), Number::Big(_)) => {
            Err(token::out_of_range(&number.to_string(), at))
        }
        Json::Array(values) => values.iter().try_for_each(|value| list_value(at, name, value, depth + 1)),
        Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
    }
}

/// `[values]`
pub(super) fn list(at: usize, values: Vec<Term>) -> Result<Term, Fault> {
    let depth = values.iter().map(|term| term.depth).max().unwrap_or(0);
    let values_at = values.iter().map(|term| term.at).collect();
    let values = values.into_iter().map(constant).collect::<Result<_, _>>()?;
    let list = Meaning::Value(Operand::Literal(Literal::List(values)));
    Ok(Term { values_at, ..Term::above(list, at, depth)? })
}

/// A value of a list.
fn constant(term: Term) -> Result<Json, Fault> {
    match term.meaning {
        Meaning::Value(Operand::Literal(literal)) => Ok(json(literal)),
        _ => Err(term.unexpected("a constant in the list")),
    }
}

fn json(literal: Literal) -> Json {
    match literal {
        Literal::Bool(value) => Json::from(value),
        Literal::Int(int) => Json::from(int),
        Literal::Float(float) => Json::from(float),
        Literal::Text(text) => Json::from(text),
        Literal::List(values) => Json::from(values),
    }
}

/// `term` where a condition must stand.
pub(super) fn condition(term: Term, place: &str) -> Result<Predicate, Fault> {
    match term.meaning {
        Meaning::Condition(predicate) => Ok(predicate),
        Meaning::Value(Operand::Literal(Literal::Bool(value))) => Ok(Predicate::Constant(value)),
        Meaning::Value(operand) if matches!(operand.kind(), Kind::Bool | Kind::Json) => Ok(Predicate::Truth(operand)),
        Meaning::Value(_) => Err(term.unexpected(&format!("a condition {place}"))),
    }
}

/// `not term`
pub(super) fn not(at: usize, term: Term) -> Result<Term, Fault> {
    unsampled(&term)?;
    let depth = term.depth;
    let hint = "after `not`, which binds tighter than operators: put what it negates in brackets";
    Term::above(Meaning::Condition(condition(term, hint)?.negated()), at, depth)
}

/// `terms` joined by `and`, or by `or` with `any`.
pub(super) fn join(any: bool, terms: Vec<Term>) -> Result<Term, Fault> {
    let at = terms.first().map_or(0, |term| term.at);
    let depth = terms.iter().map(|term| term.depth).max().unwrap_or(0);
    let place = if any { "beside `or`" } else { "beside `and`" };
    // It is the last term of an `and`.
    let free = if any { terms.len() } else { terms.len().saturating_sub(1) };
    terms.iter().take(free).try_for_each(unsampled)?;
    let terms = terms.into_iter().map(|term| condition(term, place)).collect::<Result<Vec<_>, _>>()?;
    Term::above(Meaning::Condition(Predicate::joined(any, terms)), at, depth)
}

/// Refuses `random_sample`, which samples what everything else has left.
fn unsampled(term: &Term) -> Result<(), Fault> {
    match &term.meaning {
        Meaning::Condition(predicate) if predicate.is_sampled() => {
            Err(Fault::new(term.at, "found `random_sample`, expected it alone, or last behind `and`"))
        }
        _ => Ok(()),
    }
}

/// `left comparison right`, with its sign at `at`.
pub(super) fn compare(comparison: Comparison, at: usize, left: Term, right: Term) -> Result<Term, Fault> {
    let (start, depth) = (left.at, left.depth.max(right.depth));
    // Of a condition and a value, the value is what is out of place.
    let mismatch = |left: &Term, right: &Term| {
        let expected = match left.kind() {
            Kind::Bool => "a boolean".to_string(),
            Kind::Text => "a string".to_string(),
            Kind::List => "a json value".to_string(),
            _ => "a number".to_string(),
        };
        right.unexpected(&format!("{expected} to compare with {}", left.describe()))
    };
    [&left, &right].into_iter().try_for_each(unsampled)?;
    let predicate = if left.kind() == Kind::Bool || right.kind() == Kind::Bool {
        if !matches!(left.kind(), Kind::Bool | Kind::Json) || !matches!(right.kind(), Kind::Bool | Kind::Json) {
            return Err(mismatch(&left, &right));
        }
        if !comparison.is_equality() {
            let sign = comparison.sign();
            return Err(Fault::new(
                at,
                format!("found `{sign}` beside a boolean, which has no order: expected `==` or `!=`"),
            ));
        }
        let same = match (condition(left, "")?, condition(right, "")?) {
            (Predicate::Constant(value), other) | (other, Predicate::Constant(value)) => {
                if value {
                    other
                } else {
                    other.negated()
                }
            }
            (left, right) => Predicate::Same(Box::new(left), Box::new(right)),
        };
        if comparison == Comparison::Eq { same } else { same.negated() }
    } else {
        let literals = [&left, &right].map(|term| matches!(term.meaning, Meaning::Value(Operand::Literal(_))));
        let fits = match (left.kind(), right.kind()) {
            (Kind::Json | Kind::List, Kind::List) | (Kind::List, Kind::Json) if literals != [true; 2] => {
                if !comparison.is_equality() {
                    let sign = comparison.sign();
                    let message = format!("found `{sign}` beside a list, which has no order: expected `==` or `!=`");
                    return Err(Fault::new(at, message));
                }
                true
            }
            (Kind::List, _) | (_, Kind::List) => false,
            (Kind::Json, _) | (_, Kind::Json) => true,
            (left, right) => (left == Kind::Text) == (right == Kind::Text),
        };
        let (Meaning::Value(l), Meaning::Value(r), true) = (&left.meaning, &right.meaning, fits) else {
            return Err(mismatch(&left, &right));
        };
        match (l, r) {
            (Operand::Literal(l), Operand::Literal(r)) => Predicate::Constant(comparison.holds(order(l, r))),
            (Operand::Literal(literal), _) => {
                let right = Operand::Literal(rounded(r, literal.clone()));
                Predicate::Compare { comparison: comparison.flipped(), left: r.clone(), right }
            }
            (_, Operand::Literal(literal)) => {
                let right = Operand::Literal(rounded(l, literal.clone()));
                Predicate::Compare { comparison, left: l.clone(), right }
            }
            _ => Predicate::Compare { comparison, left: l.clone(), right: r.clone() },
        }
    };
    Term::above(Meaning::Condition(predicate), start, depth)
}

/// `literal` beside `operand`: a fraction beside a `float` as the nearest 32-bit float, which is what the field would hold; not so where
/// that is infinite or a zero, which a comparison would take for equal.
fn rounded(operand: &Operand, literal: Literal) -> Literal {
    let single = match operand {
        Operand::Column(column) => column.type_name == "float",
        Operand::Path(path) => path.element == Some(Element::Float) && path.kind() == Kind::Float,
        _ => false,
    };
    match literal {
        Literal::Float(float) if single && (float as f32).is_normal() => Literal::Float(f64::from(float as f32)),
        literal => literal,
    }
}

/// The same for a value of a list.
fn rounded_json(operand: &Operand, value: &Json) -> Json {
    match value {
        Json::Number(number) if number.is_f64() => {
            json(rounded(operand, Literal::Float(number.as_f64().unwrap_or(f64::NAN))))
        }
        value => value.clone(),
    }
}

/// Whether `value` of a list can be one of that kind, and what such ones are called.
fn fits(kind: Kind, value: &Json) -> (bool, &'static str) {
    match kind {
        Kind::Bool => (value.is_boolean(), "booleans"),
        Kind::Int => (value.as_number().is_some_and(|n| Number::of_json(n).as_int().is_some()), "integers"),
        Kind::Text => (value.is_string(), "strings"),
        Kind::Json => (true, "values"),
        Kind::List => (value.is_array(), "lists"),
        Kind::Float | Kind::Number => (value.is_number(), "numbers"),
    }
}

/// Of two strings or two numbers.
fn order(left: &Literal, right: &Literal) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Literal::Text(left), Literal::Text(right)) => Some(left.cmp(right)),
        (left, right) => number(left)?.compare(number(right)?),
    }
}

fn number(literal: &Literal) -> Option<Number> {
    match literal {
        Literal::Int(int) => Some(Number::Int(*int)),
        Literal::Float(float) => Some(Number::Float(*float)),
        _ => None,
    }
}

/// `left arithmetic right`, with its sign at `at`.
pub(super) fn arithmetic(arithmetic: Arithmetic, at: usize, left: Term, right: Term) -> Result<Term, Fault> {
    let sign = arithmetic.sign();
    for term in [&left, &right] {
        match term.kind() {
            Kind::Int | Kind::Json | Kind::Number => {}
            Kind::Float if !arithmetic.is_integral() => {}
            // `a & 1 == 0` is `a & (1 == 0)`.
            Kind::Bool if matches!(arithmetic, Arithmetic::And | Arithmetic::Or | Arithmetic::Xor) => {
                return Err(
                    term.unexpected(&format!("an integer beside `{sign}`, which binds looser than a comparison"))
                );
            }
            _ if arithmetic.is_integral() => return Err(term.unexpected(&format!("an integer beside `{sign}`"))),
            _ => return Err(term.unexpected(&format!("a number beside `{sign}`"))),
        }
    }
    let (start, depth) = (left.at, left.depth.max(right.depth));
    let (Meaning::Value(l), Meaning::Value(r)) = (&left.meaning, &right.meaning) else {
        return Err(left.unexpected("a value"));
    };
    if let Operand::Literal(r) = r {
        match (arithmetic, r) {
            (Arithmetic::Div | Arithmetic::Rem, Literal::Int(0)) => {
                return Err(Fault::new(right.at, "found a division by zero"));
            }
            (Arithmetic::Div, Literal::Float(zero)) if *zero == 0.0 => {
                return Err(Fault::new(right.at, "found a division by zero"));
            }
            (Arithmetic::Shl | Arithmetic::Shr, Literal::Int(bits)) if !(0..64).contains(bits) => {
                return Err(Fault::new(right.at, format!("found a shift by {bits}, expected 0 to 63")));
            }
            _ => {}
        }
    }
    if let (Operand::Literal(l), Operand::Literal(r)) = (l, r) {
        let result = number(l).zip(number(r)).and_then(|(l, r)| arithmetic.numbers(l, r));
        let literal = match result {
            Some(Number::Int(int)) => Literal::Int(int),
            Some(Number::Float(float)) if float.is_finite() => Literal::Float(float),
            _ => {
                let result = quoted(&format!("{l} {sign} {r}"));
                return Err(Fault::new(at, format!("the result of {result} is out of range")));
            }
        };
        return Ok(Term::literal(start, literal));
    }
    if arithmetic == Arithmetic::Pow {
        let field = if matches!(l, Operand::Literal(_)) { &right } else { &left };
        return Err(field.unexpected("a constant beside `**`"));
    }
    let operand = Operand::Arithmetic { arithmetic, left: Box::new(l.clone()), right: Box::new(r.clone()) };
    Term::above(Meaning::Value(operand), start, depth)
}

/// `- term`, with its sign at `at`. A minus is a subtraction from zero, so that there is one way to overflow.
pub(super) fn negative(at: usize, term: Term) -> Result<Term, Fault> {
    match &term.meaning {
        Meaning::Value(Operand::Literal(Literal::Float(float))) => Ok(Term::literal(at, Literal::Float(-float))),
        _ => Ok(Term { at, ..arithmetic(Arithmetic::Sub, at, Term::literal(at, Literal::Int(0)), term)? }),
    }
}

/// `+ term`
pub(super) fn positive(term: Term) -> Result<Term, Fault> {
    match term.kind() {
        Kind::Int | Kind::Float | Kind::Json | Kind::Number => Ok(term),
        _ => Err(term.unexpected("a number after `+`")),
    }
}

/// `~ term`, with its sign at `at`: every bit flipped.
pub(super) fn complement(at: usize, term: Term) -> Result<Term, Fault> {
    if !matches!(term.kind(), Kind::Int | Kind::Json | Kind::Number) {
        return Err(term.unexpected("an integer after `~`"));
    }
    Ok(Term { at, ..arithmetic(Arithmetic::Xor, at, term, Term::literal(at, Literal::Int(-1)))? })
}

/// `left in right`
pub(super) fn within(left: Term, right: Term) -> Result<Term, Fault> {
    let (start, depth) = (left.at, left.depth.max(right.depth));
    let operand = match left.meaning {
        Meaning::Value(operand @ (Operand::Column(_) | Operand::Path(_))) => operand,
        _ => return Err(left.unexpected("a field before `in`")),
    };
    let values = match &right.meaning {
        Meaning::Value(Operand::Literal(Literal::List(values))) => values,
        _ => return Err(right.unexpected("a list after `in`")),
    };
    let kind = operand.kind();
    for (index, value) in values.iter().enumerate() {
        let (fits, expected) = fits(kind, value);
        if !fits {
            let what = Term::value(start, operand).describe();
            return Err(right.unexpected_value(index, value, &format!("{expected} for {what}")));
        }
    }
    let predicate = if values.is_empty() {
        Predicate::Constant(false)
    } else if kind == Kind::Bool {
        let truth = |value: &bool| {
            let truth = Predicate::Truth(operand.clone());
            if *value { truth } else { truth.negated() }
        };
        let wanted: Vec<bool> =
            [true, false].into_iter().filter(|value| values.contains(&Json::Bool(*value))).collect();
        Predicate::joined(true, wanted.iter().map(truth))
    } else {
        let set = Set::new(values.iter().map(|value| rounded_json(&operand, value)));
        Predicate::In { operand, set }
    };
    Term::above(Meaning::Condition(predicate), start, depth + 1)
}

/// `left like right`, or `left =~ right` with `regex`.
pub(super) fn like(left: Term, right: Term, regex: bool) -> Result<Term, Fault> {
    let sign = if regex { "=~" } else { "like" };
    let operand = match &left.meaning {
        Meaning::Value(operand @ (Operand::Column(_) | Operand::Path(_)))
            if matches!(operand.kind(), Kind::Text | Kind::Json) =>
        {
            operand
        }
        _ => return Err(left.unexpected(&format!("a varchar field or a json value before `{sign}`"))),
    };
    let Meaning::Value(Operand::Literal(Literal::Text(source))) = &right.meaning else {
        return Err(right.unexpected(&format!("a string after `{sign}`")));
    };
    let shape = if regex {
        let wrong = |(at, what)| {
            Fault::new(right.at, format!("this regular expression is wrong: at its character {at} there is {what}"))
        };
        Shape::Regex(Regex::new(source).map_err(wrong)?)
    } else {
        Shape::Like(Pattern::new(source).map_err(|_| {
            Fault::new(
                right.at,
                "this pattern ends in a lone backslash: expected a character after it to take as it is",
            )
        })?)
    };
    Term::above(Meaning::Condition(Predicate::Like { operand: operand.clone(), shape }), left.at, left.depth)
}

/// `random_sample(share, seed)`, with the name at `at`.
pub(super) fn sample(schema: &Schema, at: usize, arguments: Vec<Term>) -> Result<Term, Fault> {
    let literal = |term: &Term| match &term.meaning {
        Meaning::Value(Operand::Literal(literal)) => number(literal),
        _ => None,
    };
    let (share, seed) = match arguments.as_slice() {
        [share] => (share, Some(0)),
        [share, seed] => match literal(seed) {
            Some(Number::Int(int)) => (share, Some(int)),
            _ => return Err(seed.unexpected("an integer as the seed")),
        },
        _ => {
            let message =
                format!("found {} arguments of `random_sample`, expected a share, and a seed", arguments.len());
            return Err(Fault::new(at, message));
        }
    };
    let wanted = literal(share).map(Number::as_f64).filter(|value| *value > 0.0 && *value < 1.0);
    let (Some(value), Some(seed)) = (wanted, seed) else {
        return Err(share.unexpected("a share between 0 and 1"));
    };
    let Meaning::Value(key) = name(schema, at, &schema.primary_key().name)?.meaning else {
        unreachable!("a field is a value")
    };
    Ok(Term {
        meaning: Meaning::Condition(Predicate::Sample { key, share: value, seed }),
        at,
        depth: 1,
        values_at: vec![],
    })
}

/// `term is null`
pub(super) fn is_null(term: Term) -> Result<Term, Fault> {
    match &term.meaning {
        Meaning::Value(operand @ (Operand::Column(_) | Operand::Path(_))) => {
            Term::above(Meaning::Condition(Predicate::IsNull(operand.clone())), term.at, term.depth)
        }
        _ => Err(term.unexpected("a field before `is`")),
    }
}

/// `exists term`, with the word at `at`.
pub(super) fn exists(at: usize, term: Term) -> Result<Term, Fault> {
    match &term.meaning {
        Meaning::Value(Operand::Path(path)) if !path.steps.is_empty() && path.kind() == Kind::Json => {
            Term::above(Meaning::Condition(Predicate::Exists(path.clone())), at, term.depth)
        }
        _ => Err(term.unexpected("a key of a json or of the dynamic field after `exists`")),
    }
}

/// `json_contains(arguments)` and its like, with the name at `at`.
pub(super) fn contains(containment: Containment, at: usize, arguments: Vec<Term>) -> Result<Term, Fault> {
    let name = containment.name();
    let count = arguments.len();
    let Ok([array, wanted]) = <[Term; 2]>::try_from(arguments) else {
        let message = format!(
            "found {count} arguments of `{name}`, expected 2: an array or a json value, and what it should contain"
        );
        return Err(Fault::new(at, message));
    };
    let path = array_path(&array, name)?;
    let wanted_at = wanted.values_at.clone();
    let values = match (containment, wanted.meaning) {
        (Containment::One, Meaning::Value(Operand::Literal(literal))) => vec![json(literal)],
        (_, Meaning::Value(Operand::Literal(Literal::List(values)))) => values,
        (containment, meaning) => {
            let expected = if containment == Containment::One { "a constant" } else { "a list" };
            let wanted = Term { meaning, ..wanted };
            return Err(wanted.unexpected(&format!("{expected} as the second argument of `{name}`")));
        }
    };
    let values = match path.element {
        None => values,
        Some(element) => {
            // As a value of it is compared.
            let value = Operand::Path(Path { steps: vec![Step::Index(0)], ..path.clone() });
            let check = |(index, given): (usize, &Json)| match fits(Kind::of(element), given) {
                (true, _) => Ok(rounded_json(&value, given)),
                (false, expected) => {
                    let at = wanted_at.get(index).copied().unwrap_or(wanted.at);
                    let shown = quoted(&given.to_string());
                    Err(Fault::new(at, format!("found {shown}, expected {expected} for {}", array.describe())))
                }
            };
            values.iter().enumerate().map(check).collect::<Result<_, _>>()?
        }
    };
    let predicate = Predicate::Contains { path, containment, values };
    Term::above(Meaning::Condition(predicate), at, array.depth.max(wanted.depth))
}

/// The most terms that `text_match` can ask for, places that a phrase may be apart, and changes of a term.
const LEAST_MAX: i64 = 1_000;
const SLOP_MAX: i64 = 10_000;
const DISTANCE_MAX: i64 = 2;

/// `text_match(field, text, number)` and its like, with the name at `at`.
pub(super) fn text(
    schema: &Schema,
    function: &str,
    at: usize,
    field: Term,
    text: Term,
    number: Option<Term>,
) -> Result<Term, Fault> {
    let analyzed = match &field.meaning {
        Meaning::Value(Operand::Column(column)) => schema.field(&column.name).and_then(|field| field.analyzer.clone()),
        _ => None,
    };
    let (Meaning::Value(operand), Some(analyzer)) = (&field.meaning, analyzed) else {
        return Err(field.unexpected("a varchar field that has an analyzer"));
    };
    let Meaning::Value(Operand::Literal(Literal::Text(wanted))) = &text.meaning else {
        return Err(text.unexpected(&format!("a string as the second argument of `{function}`")));
    };
    let (range, usual) = match function {
        "text_match" => (1..=LEAST_MAX, 1),
        "phrase_match" => (0..=SLOP_MAX, 0),
        _ => (0..=DISTANCE_MAX, 1),
    };
    let int = match &number {
        None => usual,
        Some(number) => match &number.meaning {
            Meaning::Value(Operand::Literal(Literal::Int(int))) if range.contains(int) => *int,
            _ => return Err(number.unexpected(&format!("an integer from {} to {}", range.start(), range.end()))),
        },
    };
    let matching = match function {
        "text_match" => Matching::Any { least: int as usize },
        "phrase_match" => Matching::Phrase { slop: int as u32 },
        _ => Matching::Fuzzy { distance: int as u8 },
    };
    let shape = Shape::Terms(Arc::new(TextMatch::new(analyzer, wanted, matching)));
    Term::above(Meaning::Condition(Predicate::Like { operand: operand.clone(), shape }), at, field.depth)
}

/// `array_length(arguments)`, with the name at `at`.
pub(super) fn length(at: usize, arguments: Vec<Term>) -> Result<Term, Fault> {
    let count = arguments.len();
    let Ok([array]) = <[Term; 1]>::try_from(arguments) else {
        return Err(Fault::new(at, format!("found {count} arguments of `array_length`, expected 1: an array")));
    };
    let mut path = array_path(&array, "array_length")?;
    path.steps.push(Step::Length);
    Ok(Term::value(at, Operand::Path(path)))
}

/// The array, or the JSON value that may be one, which a function is given first.
fn array_path(term: &Term, function: &str) -> Result<Path, Fault> {
    match &term.meaning {
        Meaning::Value(Operand::Path(path)) if matches!(path.kind(), Kind::List | Kind::Json) => Ok(path.clone()),
        _ => Err(term.unexpected(&format!("an array or a json value as the first argument of `{function}`"))),
    }
}
