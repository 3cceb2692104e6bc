//! The language as its users see it: an oracle that evaluates row by row, the table of precedences, positions of errors, and
//! text that nobody should write.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::base::{Error, ErrorKind};
use crate::model::text::Analyzer;
use crate::model::{Batch, DataType, Element, Field, Row, Schema, Value};
use crate::segment::Statistics;

fn schema(dynamic: bool) -> Arc<Schema> {
    let field = |name: &str, data_type, nullable| Field {
        name: name.into(),
        data_type,
        nullable,
        default: None,
        analyzer: None,
    };
    let fields = vec![
        field("id", DataType::Int64, false),
        field("b", DataType::Bool, true),
        field("i", DataType::Int64, true),
        field("d", DataType::Double, true),
        field("s", DataType::Varchar { max_length: 200 }, true),
        field("j", DataType::Json, true),
        Field::new("q", DataType::Varchar { max_length: 200 }).nullable().with_analyzer(Analyzer::standard()),
        field("t", DataType::Int8, true),
        field("f", DataType::Float, true),
        field("w", DataType::Timestamp, true),
        field("ai", DataType::Array { element: Element::Int64, max_capacity: 8 }, true),
        field("at", DataType::Array { element: Element::Varchar { max_length: 99 }, max_capacity: 8 }, true),
        field("ab", DataType::Array { element: Element::Bool, max_capacity: 8 }, true),
        field("af", DataType::Array { element: Element::Float, max_capacity: 8 }, true),
        field("v", DataType::FloatVector { dim: 2 }, false),
    ];
    Arc::new(Schema::new(fields, "id", dynamic).unwrap())
}

fn row(id: i64, values: &[(&str, Value)]) -> Row {
    let mut row = Row::from([("id".to_string(), Value::Int(id)), ("v".to_string(), Value::Vector(vec![0.0, 1.0]))]);
    row.extend(values.iter().map(|(name, value)| (name.to_string(), value.clone())));
    row
}

fn parse(text: &str) -> Filter {
    Filter::parse(text, &schema(true)).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> Error {
    Filter::parse(text, &schema(false)).expect_err(text)
}

/// The ids of `rows` that pass.
fn passing(text: &str, rows: &[Row]) -> Vec<usize> {
    let batch = Batch::from_rows(&schema(true), rows.to_vec()).unwrap();
    parse(text).evaluate(batch.scalars()).iter().collect()
}

fn statistics(batch: &arrow_array::RecordBatch) -> BTreeMap<String, Statistics> {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    columns.map(|(field, column)| (field.name().clone(), Statistics::of(column))).collect()
}

/// What statistics alone prove.
#[test]
fn statistics_rule_blocks_out() {
    let rows: Vec<Row> = (0..10)
        .map(|id| {
            let text = format!("{}{id}", "long ".repeat(8));
            let mut values =
                vec![("i", Value::Int(id * 10)), ("d", Value::Double(id as f64 / 2.0)), ("w", Value::Int(id))];
            values.extend([("s", Value::String(if id < 5 { format!("k{id}") } else { text }))]);
            if id % 2 == 0 {
                values.push(("t", Value::Int(7)));
            }
            row(id, &values)
        })
        .collect();
    let batch = Batch::from_rows(&schema(true), rows).unwrap();
    let may = |text: &str, from: usize, to: usize| {
        let known = statistics(&batch.scalars().slice(from, to - from));
        parse(text).may_admit(&|column| known.get(column).map(|known| ((to - from) as u32, known)))
    };
    for (text, first, second) in [
        ("i < 50", true, false),
        ("i >= 50", false, true),
        ("i == 45", false, false),
        ("not (i < 50)", false, true),
        ("i != 3 and i > 89.5", false, true),
        ("i > 40 or d < 0", false, true),
        ("40 < i", false, true),
        ("i in [41, 42]", false, false),
        ("i in [41, 50]", false, true),
        ("i not in [41, 50]", true, true),
        ("d in [2.0, 2.25]", true, false),
        ("d > 2", false, true),
        ("s like 'k%'", true, false),
        ("s like 'long long%'", false, true),
        ("s like 'lp%' or s like 'j%'", false, false),
        ("s == 'k3'", true, false),
        ("s > 'long long long long long long long long'", false, true),
        ("s < 'k'", false, false),
        ("s in ['a', 'z']", false, false),
        ("t == 7", true, true),
        ("t != 7", false, false),
        ("not (t == 7)", false, false),
        ("t is null", true, true),
        ("i is null", false, false),
        ("i is not null", true, true),
        ("f > 0", false, false),
        ("f is null", true, true),
        ("not (f > 0)", false, false),
        ("b", false, false),
        ("id + 1 == 4", true, true),
        ("x == 3", true, true),
    ] {
        assert_eq!((may(text, 0, 5), may(text, 5, 10)), (first, second), "{text}");
    }
    assert!(parse("i < -5").may_admit(&|_| None), "nothing is known");
    assert!(!parse("false").may_admit(&|_| None));
}

// The oracle: an expression as a tree of its own, which writes itself and evaluates itself one row at a time.

#[derive(Debug, Clone)]
enum Node {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Field(&'static str),
    /// A field (or a dynamic key, without `$meta`) and steps into it.
    Path(String, Vec<Json>),
    Unary(&'static str, Box<Node>),
    Binary(&'static str, Box<Node>, Box<Node>),
    Range(Box<Node>, &'static str, Box<Node>, &'static str, Box<Node>),
    IsNull(Box<Node>, bool),
    Exists(Box<Node>),
    Length(Box<Node>),
    Call(&'static str, Box<Node>, Box<Node>),
}

/// Loosest first: as the documentation lists them, not as the parser does.
const TABLE: &[&[&str]] = &[
    &["or", "||"],
    &["and", "&&"],
    &["|"],
    &["^"],
    &["&"],
    &["==", "!="],
    &["<", "<=", ">", ">="],
    &["in", "not in"],
    &["<<", ">>"],
    &["+", "-"],
    &["*", "/", "%"],
    &["not", "!", "u-", "u+", "u~"],
    &["**"],
    &["like", "=~", "!~"],
];

fn level(sign: &str) -> usize {
    TABLE.iter().position(|signs| signs.contains(&sign)).unwrap_or_else(|| panic!("{sign}"))
}

impl Node {
    fn level(&self) -> usize {
        match self {
            Self::Int(i64::MIN..0) => level("u-"),
            Self::Float(float) if float.is_sign_negative() => level("u-"),
            Self::Unary(sign @ ("-" | "+" | "~"), _) => level(&format!("u{sign}")),
            Self::Unary(sign, _) | Self::Binary(sign, ..) => level(sign),
            Self::Range(_, sign, ..) => level(sign),
            _ => TABLE.len(),
        }
    }

    /// With no bracket that is not needed, but for those that `random` adds.
    fn write(&self, text: &mut String, random: &mut Random, level_min: usize) {
        if self.level() < level_min || random.below(12) == 0 {
            text.push('(');
            self.write_bare(text, random);
            text.push(')');
        } else {
            self.write_bare(text, random);
        }
    }

    fn write_bare(&self, text: &mut String, random: &mut Random) {
        match self {
            Self::Bool(value) => text.push_str(random.pick(if *value {
                &["true", "True", "TRUE"]
            } else {
                &["false", "False", "FALSE"]
            })),
            Self::Int(int) => match random.below(4) {
                0 if *int >= 0 => write!(text, "0x{int:X}").unwrap(),
                1 if *int >= 0 => write!(text, "0b{int:b}").unwrap(),
                2 if *int >= 0 => write!(text, "0{int:o}").unwrap(),
                _ => write!(text, "{int}").unwrap(),
            },
            Self::Float(float) => write!(text, "{float:?}").unwrap(),
            Self::Text(string) => {
                let quote = random.pick(&['"', '\'']);
                text.push(quote);
                for c in string.chars() {
                    match c {
                        '\\' => text.push_str("\\\\"),
                        c if c == quote => write!(text, "\\{c}").unwrap(),
                        c if !c.is_ascii() && random.below(2) == 0 => write!(text, "\\U{:08x}", u32::from(c)).unwrap(),
                        c => text.push(c),
                    }
                }
                text.push(quote);
            }
            Self::List(nodes) => {
                text.push('[');
                for (index, node) in nodes.iter().enumerate() {
                    text.push_str(if index > 0 { ", " } else { "" });
                    node.write(text, random, 0);
                }
                text.push_str(if !nodes.is_empty() && random.below(4) == 0 { ",]" } else { "]" });
            }
            Self::Field(name) => text.push_str(name),
            Self::Path(name, steps) => {
                if ["x", "y"].contains(&name.as_str()) && random.below(2) == 0 {
                    write!(text, "$meta[\"{name}\"]").unwrap();
                } else {
                    text.push_str(name);
                }
                for step in steps {
                    write!(text, "[{step}]").unwrap();
                }
            }
            Self::Unary(sign, inner) => {
                text.push_str(random.case(sign).as_str());
                text.push(' ');
                inner.write(text, random, self.level());
            }
            Self::Binary(sign, left, right) => {
                left.write(text, random, self.level());
                write!(text, " {} ", random.case(sign)).unwrap();
                right.write(text, random, self.level() + 1);
            }
            Self::Range(low, first, middle, second, high) => {
                low.write(text, random, self.level() + 1);
                write!(text, " {first} ").unwrap();
                middle.write(text, random, self.level() + 1);
                write!(text, " {second} ").unwrap();
                high.write(text, random, self.level() + 1);
            }
            Self::IsNull(inner, negated) => {
                inner.write(text, random, TABLE.len());
                write!(text, " {}", random.case(if *negated { "is not null" } else { "is null" })).unwrap();
            }
            Self::Exists(inner) => {
                write!(text, "{} ", random.case("exists")).unwrap();
                inner.write(text, random, TABLE.len());
            }
            Self::Length(inner) => {
                write!(text, "{}(", random.case("array_length")).unwrap();
                inner.write(text, random, 0);
                text.push(')');
            }
            Self::Call(name, left, right) => {
                write!(text, "{}(", random.case(name)).unwrap();
                left.write(text, random, 0);
                text.push_str(", ");
                right.write(text, random, 0);
                text.push(')');
            }
        }
    }

    /// Its value for `row`; null is also unknown.
    fn value(&self, row: &Row) -> Json {
        match self {
            Self::Bool(value) => json!(value),
            Self::Int(int) => json!(int),
            Self::Float(float) => json!(float),
            Self::Text(text) => json!(text),
            Self::List(nodes) => nodes.iter().map(|node| node.value(row)).collect(),
            Self::Field(name) => match row.get(*name) {
                None | Some(Value::Null) => Json::Null,
                Some(Value::Bool(value)) => json!(value),
                Some(Value::Int(int)) => json!(int),
                Some(Value::Float(float)) => json!(f64::from(*float)),
                Some(Value::Double(float)) => json!(float),
                Some(Value::String(text)) => json!(text),
                other => panic!("{other:?}"),
            },
            Self::Length(inner) => inner.value(row).as_array().map_or(Json::Null, |array| json!(array.len())),
            Self::Path(..) => self.place(row).unwrap_or(Json::Null),
            Self::Unary("not" | "!", inner) => match inner.value(row) {
                Json::Bool(value) => json!(!value),
                _ => Json::Null,
            },
            Self::Unary("-", inner) => arithmetic("-", &json!(0), &inner.value(row)),
            Self::Unary("+", inner) => inner.value(row),
            Self::Unary("~", inner) => arithmetic("^", &inner.value(row), &json!(-1)),
            Self::Unary(sign, _) => panic!("{sign}"),
            Self::Binary("and" | "&&", left, right) => match (left.value(row), right.value(row)) {
                (Json::Bool(false), _) | (_, Json::Bool(false)) => json!(false),
                (Json::Bool(true), Json::Bool(true)) => json!(true),
                _ => Json::Null,
            },
            Self::Binary("or" | "||", left, right) => match (left.value(row), right.value(row)) {
                (Json::Bool(true), _) | (_, Json::Bool(true)) => json!(true),
                (Json::Bool(false), Json::Bool(false)) => json!(false),
                _ => Json::Null,
            },
            Self::Binary(sign @ ("in" | "not in"), left, right) => {
                let (left, Json::Array(list)) = (left.value(row), right.value(row)) else { panic!() };
                if list.is_empty() {
                    return json!(*sign == "not in");
                }
                if left.is_null() || left.is_object() || !list.iter().any(|value| family(value) == family(&left)) {
                    return Json::Null;
                }
                json!(list.iter().any(|value| same(value, &left)) == (*sign == "in"))
            }
            Self::Binary("like", left, right) => match (left.value(row), right.value(row)) {
                (Json::String(text), Json::String(pattern)) => {
                    json!(like(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>()))
                }
                _ => Json::Null,
            },
            Self::Binary(sign @ ("=~" | "!~"), left, right) => match (left.value(row), right.value(row)) {
                (Json::String(text), Json::String(pattern)) => {
                    json!(regex_lite::Regex::new(&pattern).unwrap().is_match(&text) == (*sign == "=~"))
                }
                _ => Json::Null,
            },
            Self::Binary(sign, left, right) if level(sign) == level("==") || level(sign) == level("<") => {
                compare(sign, &left.value(row), &right.value(row))
            }
            Self::Binary(sign, left, right) => arithmetic(sign, &left.value(row), &right.value(row)),
            Self::Range(low, first, middle, second, high) => {
                let low = compare(first, &low.value(row), &middle.value(row));
                let high = compare(second, &middle.value(row), &high.value(row));
                match (low, high) {
                    (Json::Bool(low), Json::Bool(high)) => json!(low && high),
                    (Json::Bool(false), _) | (_, Json::Bool(false)) => json!(false),
                    _ => Json::Null,
                }
            }
            Self::IsNull(inner, negated) => json!(inner.value(row).is_null() != *negated),
            Self::Exists(inner) => json!(inner.place(row).is_some()),
            Self::Call(name, left, right) => {
                let Json::Array(array) = left.value(row) else { return Json::Null };
                let has = |wanted: &Json| array.iter().any(|value| same(value, wanted));
                match (name.replace("array", "json").as_str(), right.value(row)) {
                    ("json_contains", wanted) => json!(has(&wanted)),
                    ("json_contains_all", Json::Array(wanted)) => json!(wanted.iter().all(has)),
                    ("json_contains_any", Json::Array(wanted)) => json!(wanted.iter().any(has)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// What stands at a path, null or not.
    fn place(&self, row: &Row) -> Option<Json> {
        let Self::Path(name, steps) = self else { panic!("{self:?}") };
        let mut json = match row.get(name)? {
            Value::Json(json) => json.clone(),
            Value::Array(values) => serde_json::to_value(values).unwrap(),
            Value::Null if !["x", "y"].contains(&name.as_str()) => return None,
            Value::Null => Json::Null,
            Value::Bool(value) => json!(value),
            Value::Int(int) => json!(int),
            Value::Double(float) => json!(float),
            Value::String(text) => json!(text),
            other => panic!("{other:?}"),
        };
        for step in steps {
            json = match step {
                Json::String(key) => json.as_object()?.get(key)?.clone(),
                step => json.as_array()?.get(step.as_u64()? as usize)?.clone(),
            };
        }
        Some(json)
    }
}

fn family(json: &Json) -> u8 {
    match json {
        Json::Null => 0,
        Json::Bool(_) => 1,
        Json::Number(_) => 2,
        Json::String(_) => 3,
        Json::Array(_) => 4,
        Json::Object(_) => 5,
    }
}

/// Its whole part and the rest, both exact; numbers with the same whole part are ordered by the rest.
fn exact(json: &Json) -> (i128, f64) {
    if let Some(int) = json.as_i64() {
        return (i128::from(int), 0.0);
    }
    if let Some(int) = json.as_u64() {
        return (i128::from(int), 0.0);
    }
    match json.as_f64().unwrap() {
        float if float.abs() < 1e30 => (float.trunc() as i128, float.fract()),
        // Far beyond every integer.
        float => (float.signum() as i128 * (1 << 120), float),
    }
}

fn same(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Number(_), Json::Number(_)) => exact(left) == exact(right),
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && (0..left.len()).all(|index| same(&left[index], &right[index]))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.keys().eq(right.keys()) && left.keys().all(|key| same(&left[key], &right[key]))
        }
        (left, right) => left == right,
    }
}

fn compare(sign: &str, left: &Json, right: &Json) -> Json {
    if left.is_null() || family(left) != family(right) {
        return Json::Null;
    }
    let (less, equal) = match (left, right) {
        (Json::Number(_), _) => (exact(left) < exact(right), exact(left) == exact(right)),
        (Json::String(left), Json::String(right)) => (left < right, left == right),
        _ if sign == "==" || sign == "!=" => (false, same(left, right)),
        _ => return Json::Null,
    };
    json!(match sign {
        "==" => equal,
        "!=" => !equal,
        "<" => less,
        "<=" => less || equal,
        ">" => !less && !equal,
        ">=" => !less,
        sign => panic!("{sign}"),
    })
}

fn arithmetic(sign: &str, left: &Json, right: &Json) -> Json {
    if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
        let (l, r) = (i128::from(left), i128::from(right));
        let result = match sign {
            "+" => l + r,
            "-" => l - r,
            "*" => l * r,
            "/" | "%" if r == 0 => return Json::Null,
            "/" => l / r,
            "%" => l % r,
            "&" => l & r,
            "|" => l | r,
            "^" => l ^ r,
            "<<" | ">>" if !(0..64).contains(&r) => return Json::Null,
            "<<" => l << r,
            ">>" => l >> r,
            "**" if r >= 0 => (0..r).fold(1, |power: i128, _| power.saturating_mul(l)),
            "**" => return json!((left as f64).powi(right as i32)),
            sign => panic!("{sign}"),
        };
        return i64::try_from(result).map_or(Json::Null, |int| json!(int));
    }
    let (Json::Number(_), Json::Number(_)) = (left, right) else { return Json::Null };
    let (l, r) = (left.as_f64().unwrap(), right.as_f64().unwrap());
    match sign {
        "+" => json!(l + r),
        "-" => json!(l - r),
        "*" => json!(l * r),
        "/" if r != 0.0 => json!(l / r),
        _ => Json::Null,
    }
}

fn like(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        (['%', rest @ ..], _) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        (['\\', c, rest @ ..], [t, text @ ..]) => c == t && like(rest, text),
        (['_', rest @ ..], [_, text @ ..]) => like(rest, text),
        ([c, rest @ ..], [t, text @ ..]) => c == t && like(rest, text),
        (_, []) => false,
    }
}

/// proptest draws and shrinks the seed.
struct Random(crate::base::Random);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }

    fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    fn case(&mut self, word: &str) -> String {
        if self.below(3) == 0 { word.to_uppercase() } else { word.to_string() }
    }

    fn int(&mut self) -> i64 {
        match self.below(8) {
            0 => self.pick(&[i64::MAX, i64::MIN, i64::MAX - 1, (1 << 53) + 1, 1 << 53, -(1 << 53) - 1]),
            _ => self.below(9) as i64 - 4,
        }
    }

    fn float(&mut self) -> f64 {
        match self.below(8) {
            0 => self.pick(&[1e300, -1e300, 9_007_199_254_740_992.0, 9_223_372_036_854_775_808.0, -0.0]),
            _ => (self.below(33) as f64 - 16.0) / 4.0,
        }
    }

    fn text(&mut self) -> String {
        // Statistics know the first 32 bytes.
        let beginning = if self.below(8) == 0 { "a".repeat(30 + self.below(4)) } else { String::new() };
        let rest = (0..self.below(4)).map(|_| self.pick(&['a', 'b', 'é', '%', '_', '\\', '\'', '"']));
        beginning.chars().chain(rest).collect()
    }

    fn json(&mut self, depth: usize) -> Json {
        match self.below(if depth == 0 { 6 } else { 9 }) {
            0 => Json::Null,
            1 => json!(self.below(2) == 0),
            2 | 3 => json!(self.int()),
            4 => json!(self.float()),
            5 if self.below(6) == 0 => json!(u64::MAX - self.below(3) as u64),
            5 => json!(self.text()),
            6 | 7 => (0..self.below(4)).map(|_| (self.pick(&["a", "b"]), self.json(depth - 1))).collect(),
            _ => (0..self.below(4)).map(|_| self.json(depth - 1)).collect(),
        }
    }

    fn row(&mut self, id: usize) -> Row {
        let mut values = vec![];
        if self.below(4) > 0 {
            values.push(("b", Value::Bool(self.below(2) == 0)));
        }
        if self.below(4) > 0 {
            values.push(("i", Value::Int(self.int())));
        }
        if self.below(4) > 0 {
            values.push(("d", Value::Double(self.float())));
        }
        if self.below(4) > 0 {
            values.push(("s", Value::String(self.text())));
        }
        if self.below(4) > 0 {
            values.push(("t", Value::Int(self.below(256) as i64 - 128)));
        }
        if self.below(4) > 0 {
            values.push(("f", Value::Float((self.below(33) as f32 - 16.0) / 4.0)));
        }
        if self.below(4) > 0 {
            values.push(("ai", (0..self.below(4)).map(|_| Value::Int(self.int())).collect()));
        }
        if self.below(4) > 0 {
            values.push(("at", (0..self.below(4)).map(|_| Value::String(self.text())).collect()));
        }
        if self.below(4) > 0 {
            values.push(("ab", (0..self.below(4)).map(|_| Value::Bool(self.below(2) == 0)).collect()));
        }
        for name in ["j", "x", "y"] {
            if self.below(5) > 0 {
                values.push((
                    name,
                    match self.json(2) {
                        Json::Null => Value::Null,
                        json => Value::Json(json),
                    },
                ));
            }
        }
        row(id as i64, &values)
    }

    fn path(&mut self) -> Node {
        let steps = &[json!("a"), json!("a"), json!("b"), json!(0), json!(1)];
        let steps = (0..self.pick(&[0, 1, 1, 1, 2])).map(|_| self.pick(steps)).collect();
        Node::Path(self.pick(&["j", "x", "y"]).to_string(), steps)
    }

    /// An array, or a value of it.
    fn array(&mut self, name: &str, value: bool) -> Node {
        Node::Path(name.to_string(), if value { vec![json!(self.below(3))] } else { vec![] })
    }

    /// Of integers.
    fn integer(&mut self, depth: usize) -> Node {
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 | 1 => Node::Int(self.int()),
            2 => Node::Field(self.pick(&["id", "i"])),
            3 => match self.below(4) {
                0 => Node::Field("t"),
                1 => self.array("ai", true),
                2 => Node::Length(Box::new(self.path())),
                _ => Node::Length(Box::new(self.array("at", false))),
            },
            4 => self.path(),
            5 => Node::Unary(self.pick(&["-", "~", "+"]), Box::new(self.integer(depth - 1))),
            _ => {
                let sign = self.pick(&["+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"]);
                Node::Binary(sign, Box::new(self.integer(depth - 1)), Box::new(self.integer(depth - 1)))
            }
        }
    }

    fn number(&mut self, depth: usize) -> Node {
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => Node::Float(self.float()),
            1 | 2 => Node::Field(self.pick(&["d", "f"])),
            3 | 4 => self.integer(depth),
            5 => Node::Unary(self.pick(&["-", "+"]), Box::new(self.number(depth - 1))),
            _ => {
                let sign = self.pick(&["+", "-", "*", "/"]);
                Node::Binary(sign, Box::new(self.number(depth - 1)), Box::new(self.number(depth - 1)))
            }
        }
    }

    fn string(&mut self) -> Node {
        match self.below(4) {
            0 => Node::Text(self.text()),
            1 => Node::Field("s"),
            2 => self.array("at", true),
            _ => self.path(),
        }
    }

    fn list(&mut self, values: impl Fn(&mut Self) -> Node) -> Node {
        Node::List((0..self.pick(&[0, 1, 2, 3, 12])).map(|_| values(self)).collect())
    }

    fn literal(&mut self, depth: usize) -> Node {
        match self.below(if depth == 0 { 4 } else { 5 }) {
            0 => Node::Bool(self.below(2) == 0),
            1 => Node::Int(self.int()),
            2 => Node::Float(self.float()),
            3 => Node::Text(self.text()),
            _ => self.list(|random| random.literal(depth - 1)),
        }
    }

    fn condition(&mut self, depth: usize) -> Node {
        const RELATIONS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
        match self.below(if depth == 0 { 14 } else { 22 }) {
            12 => {
                let name = self.pick(&["array_contains", "array_contains_all", "array_contains_any"]);
                let texts = self.below(2) == 0;
                let value = |random: &mut Self| if texts { Node::Text(random.text()) } else { Node::Int(random.int()) };
                let wanted = if name == "array_contains" { value(self) } else { self.list(value) };
                Node::Call(name, Box::new(self.array(if texts { "at" } else { "ai" }, false)), Box::new(wanted))
            }
            13 => {
                let list = self.list(|random| Node::Int(random.int()));
                match self.below(5) {
                    0 => self.array("ab", true),
                    1 => Node::Binary(self.pick(&["==", "!="]), Box::new(self.array("ai", false)), Box::new(list)),
                    2 => Node::Binary(self.pick(&["in", "not in"]), Box::new(self.array("ai", true)), Box::new(list)),
                    3 => {
                        let [left, right] = [0; 2].map(|_| self.array("at", false));
                        Node::Binary("==", Box::new(left), Box::new(right))
                    }
                    _ => Node::IsNull(Box::new(self.array("at", depth > 1)), self.below(2) == 0),
                }
            }
            0 => self.pick(&[Node::Field("b"), Node::Bool(true), Node::Bool(false)]),
            1 => self.path(),
            2 | 3 => Node::Binary(self.pick(RELATIONS), Box::new(self.number(depth)), Box::new(self.number(depth))),
            4 => Node::Binary(self.pick(RELATIONS), Box::new(self.string()), Box::new(self.string())),
            5 => {
                let (first, second) = self.pick(&[("<", "<="), ("<=", "<"), (">", ">="), (">=", ">")]);
                let [low, middle, high] = [0; 3].map(|_| Box::new(self.number(0)));
                Node::Range(low, first, middle, second, high)
            }
            6 => {
                let (field, list) = match self.below(5) {
                    0 => (Node::Field("b"), self.list(|random| Node::Bool(random.below(2) == 0))),
                    1 => (Node::Field("i"), self.list(|random| Node::Int(random.int()))),
                    2 => (Node::Field("d"), self.list(|random| random.number_literal())),
                    3 => (Node::Field("s"), self.list(|random| Node::Text(random.text()))),
                    _ => (self.path(), self.list(|random| random.literal(1))),
                };
                Node::Binary(self.pick(&["in", "not in"]), Box::new(field), Box::new(list))
            }
            7 => {
                let pattern: String =
                    (0..self.below(4)).map(|_| self.pick(&["a", "b", "%", "_", r"\%", r"\\"])).collect();
                let field = if self.below(2) == 0 { Node::Field("s") } else { self.path() };
                if self.below(2) == 0 {
                    let parts = &["a", "b", ".", "é", "a*", "(a|é)", "b+", "[^a]", "%?"];
                    let ends = (self.pick(&["", "^"]), self.pick(&["", "$"]));
                    let parts: String = (0..self.below(4)).map(|_| self.pick(parts)).collect();
                    let pattern = Node::Text(format!("{}{parts}{}", ends.0, ends.1));
                    return Node::Binary(self.pick(&["=~", "!~"]), Box::new(field), Box::new(pattern));
                }
                Node::Binary("like", Box::new(field), Box::new(Node::Text(pattern)))
            }
            8 => {
                let field = self.pick(&["id", "b", "i", "d", "s", ""]);
                let field = if field.is_empty() { self.path() } else { Node::Field(field) };
                Node::IsNull(Box::new(field), self.below(2) == 0)
            }
            9 => match self.path() {
                Node::Path(name, steps) if name == "j" && steps.is_empty() => self.condition(depth),
                path => Node::Exists(Box::new(path)),
            },
            10 => {
                let name = self.pick(&["json_contains", "json_contains_all", "json_contains_any"]);
                let wanted =
                    if name == "json_contains" { self.literal(1) } else { self.list(|random| random.literal(1)) };
                Node::Call(name, Box::new(self.path()), Box::new(wanted))
            }
            11 => match self.below(3) {
                0 => Node::Binary(self.pick(&["==", "!="]), Box::new(self.path()), Box::new(self.literal(2))),
                1 => Node::Binary(self.pick(RELATIONS), Box::new(self.path()), Box::new(self.path())),
                _ => {
                    let boolean = self.pick(&[Node::Field("b"), Node::Bool(true), Node::Bool(false)]);
                    Node::Binary(self.pick(&["==", "!="]), Box::new(self.path()), Box::new(boolean))
                }
            },
            14 | 15 => Node::Unary(self.pick(&["not", "!"]), Box::new(self.condition(depth - 1))),
            16 => {
                let [left, right] = [0; 2].map(|_| Box::new(self.condition(depth - 1)));
                // Two bare places would be compared by whatever type they have.
                if matches!((&*left, &*right), (Node::Path(..), Node::Path(..))) {
                    return *left;
                }
                Node::Binary(self.pick(&["==", "!="]), left, right)
            }
            _ => {
                let sign = self.pick(&["and", "or", "and", "or", "&&", "||"]);
                Node::Binary(sign, Box::new(self.condition(depth - 1)), Box::new(self.condition(depth - 1)))
            }
        }
    }

    fn number_literal(&mut self) -> Node {
        if self.below(2) == 0 { Node::Int(self.int()) } else { Node::Float(self.float()) }
    }
}

/// A condition over JSON is true only when the JSON is a boolean.
fn is_true(json: &Json) -> bool {
    *json == Json::Bool(true)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_oracle(seed in any::<u64>()) {
        let mut random = Random(crate::base::Random::new(seed));
        let rows: Vec<Row> = (0..random.pick(&[1, 3, 70, 130])).map(|id| random.row(id)).collect();
        let batch = Batch::from_rows(&schema(true), rows.clone()).unwrap();
        for _ in 0..4 {
            let node = random.condition(3);
            let mut text = String::new();
            node.write(&mut text, &mut random, 0);
            let filter = match Filter::parse(&text, &schema(true)) {
                Ok(filter) => filter,
                Err(error) => {
                    // Of what is drawn here, only constants can be wrong.
                    let message = error.message();
                    prop_assert!(
                        ["is out of range", "division by zero", "found a shift", "lone backslash"].iter().any(|part| message.contains(part)),
                        "{text}\n{message}"
                    );
                    prop_assert!(error.position().unwrap() <= text.chars().count());
                    continue;
                }
            };
            let mask = filter.evaluate(batch.scalars());
            for (id, row) in rows.iter().enumerate() {
                prop_assert_eq!(mask.contains(id), is_true(&node.value(row)), "{}\nas {}\nfor {:?}", text, filter, row);
            }
            // Statistics of a block that say no are right.
            for block in [1, 3, rows.len()] {
                for start in (0..rows.len()).step_by(block) {
                    let end = rows.len().min(start + block);
                    let known = statistics(&batch.scalars().slice(start, end - start));
                    let may = filter.may_admit(&|column| known.get(column).map(|known| ((end - start) as u32, known)));
                    prop_assert!(
                        may || mask.iter_from(start).next().is_none_or(|row| row >= end),
                        "{}\nfor {:?}\nwith {:?}", filter, &rows[start..end], known
                    );
                }
            }
            // Its normal form means the same, and is its own normal form.
            let again = Filter::parse(&filter.to_string(), &schema(true))
                .map_err(|error| TestCaseError::fail(format!("{text}\nas {filter}\n{error}")))?;
            prop_assert_eq!(&again, &filter, "{}\nas {}", text, filter);
            prop_assert_eq!(again.to_string(), filter.to_string());
            // Slices of Arrow columns begin anywhere.
            let start = random.below(rows.len());
            let sliced = filter.evaluate(&batch.scalars().slice(start, rows.len() - start));
            prop_assert_eq!(sliced.iter().map(|row| row + start).collect::<Vec<_>>(), mask.iter().filter(|row| *row >= start).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*|([a-z0-9.'\"\\\\\\[\\](){}<>=!&|^~+*/%$, \\n-]|and|or|not|in|is null|like){0,40}") {
        never_panics(&text)?;
    }

    #[test]
    fn no_change_of_a_valid_text_makes_it_panic(seed in any::<u64>()) {
        let mut random = Random(crate::base::Random::new(seed));
        let node = random.condition(3);
        let mut text = String::new();
        node.write(&mut text, &mut random, 0);
        let mut characters: Vec<char> = text.chars().collect();
        for _ in 0..=random.below(3) {
            let at = random.below(characters.len() + 1);
            match random.below(3) {
                0 if at < characters.len() => { characters.remove(at); }
                1 => characters.truncate(at),
                _ => characters.insert(at, random.pick(&['(', ')', '[', ']', '"', '\'', '\\', '0', '-', '=', '<', ' ', 'é', '{', '$', '\u{1F600}'])),
            }
        }
        never_panics(&characters.into_iter().collect::<String>())?;
    }
}

fn never_panics(text: &str) -> Result<(), TestCaseError> {
    for dynamic in [false, true] {
        match Filter::parse(text, &schema(dynamic)) {
            Ok(filter) => {
                let again = Filter::parse(&filter.to_string(), &schema(dynamic));
                prop_assert_eq!(again.as_ref(), Ok(&filter), "{}\nas {}", text, filter);
            }
            Err(error) => {
                let position = error.position().expect("a position");
                prop_assert!(position <= text.chars().count(), "{text}: {error}");
                prop_assert!(error.message().ends_with('^'), "{error}");
            }
        }
        let _ = Filter::parameters(text);
    }
    Ok(())
}

#[test]
fn precedence_is_the_documented_one() {
    for (text, normal) in [
        ("b or b and b", "b or b and b"),
        ("(b or b) and b", "b and (b or b)"),
        ("b and i | 1 == 3", "found a condition"),
        ("i | 6 ^ 4 & 12", "the whole filter"),
        ("(i | 6 ^ 4 & 12) == 1", "(i | 2) == 1"),
        ("b == i < 5", "b == (i < 5)"),
        ("i < 5 == b", "(i < 5) == b"),
        ("i << 1 + 1 < 9", "i << 2 < 9"),
        ("i + 2 * 3 - 4 % 3 == 1", "i + 6 - 1 == 1"),
        ("-2 ** 2 < i", "i > -4"),
        ("2 ** 3 ** 2 == i", "i == 64"),
        ("2 ** -1 + i > 0", "0.5 + i > 0"),
        ("-i * 2 > 1", "(0 - i) * 2 > 1"),
        ("~i + 1 == 0", "(i ^ -1) + 1 == 0"),
        ("not b and b", "not b and b"),
        ("! b == b", "(not b) == b"),
        ("not s like 'a%'", "not s like \"a%\""),
        ("i - 1 - 1 == i - (1 - 1)", "i - 1 - 1 == i - 0"),
        ("1 < i <= 5", "i > 1 and i <= 5"),
        ("5 > i + 1 >= 1", "i + 1 < 5 and i + 1 >= 1"),
        ("x not in [3, 1, 1, 2.0] || x IS NOT NULL", "x is not null"),
        ("b == true and 1 < 2 and not false", "b"),
        ("i == 1 or true", "true"),
        ("i in []", "false"),
        ("b in [true, false]", "b or not b"),
        ("color == 'red'", "$meta[\"color\"] == \"red\""),
        ("exists j['a'][0]", "exists j[\"a\"][0]"),
        ("json_contains(j, [1, 'a'],)", "json_contains(j, [1, \"a\"])"),
        ("i == -9223372036854775808", "i == -9223372036854775808"),
        ("d > 1e21 && d < .5e-7", "d > 1e21 and d < 5e-8"),
    ] {
        match Filter::parse(text, &schema(true)) {
            Ok(filter) if text.starts_with("x not in") => {
                assert_eq!(filter.to_string(), "$meta[\"x\"] is not null or $meta[\"x\"] not in [1, 2, 3]");
            }
            Ok(filter) => assert_eq!(filter.to_string(), normal, "{text}"),
            Err(error) => assert!(error.message().contains(normal), "{text}: {error}"),
        }
    }
}

#[test]
fn errors_say_what_and_where() {
    for (text, position, message) in [
        ("", 0, "found the end of the expression, expected a value, a field or `(`"),
        ("i ==", 4, "found the end of the expression, expected a value"),
        ("i == )", 5, "found `)`, expected a value, a field or `(`"),
        ("(i == 1", 7, "expected `)` for the bracket at position 0"),
        ("i == 1)", 6, "found `)`, expected an operator or the end"),
        ("i = 1", 2, "found `=`, expected `==`"),
        ("i == 1 And b", 7, "keywords and functions are written all lower or all upper case"),
        ("Not b", 0, "keywords and functions are written all lower or all upper case"),
        ("title == 'x'", 0, "found `title`, which is no field of this collection: expected one of `id`, `b`"),
        ("idd == 1", 0, "did you mean `id`?"),
        ("é == 1", 0, "found `é`, expected an ASCII letter"),
        ("$meta['a'] == 1", 0, "no dynamic field"),
        ("v == 1", 0, "found vector field `v`, expected a scalar field"),
        ("v is null", 0, "found vector field `v`"),
        ("i", 0, "found int64 field `i`, expected a condition as the whole filter"),
        ("i == 'a'", 5, "found string `\"a\"`, expected a number to compare with int64 field `i`"),
        ("'é' == s and s > 1.5", 17, "found double `1.5`, expected a string to compare with varchar field `s`"),
        ("b < true", 2, "found `<` beside a boolean, which has no order"),
        ("b == 1", 5, "found integer `1`, expected a boolean to compare with bool field `b`"),
        ("i == 1 == 1", 10, "found integer `1`, expected a boolean to compare with a condition"),
        ("i & 1 == 1", 4, "found a condition, expected an integer beside `&`, which binds looser than a comparison"),
        ("not i == 1", 4, "found int64 field `i`, expected a condition after `not`, which binds tighter"),
        ("1 < i > 2", 6, "found `>`, expected `<` or `<=`: a range runs in one direction"),
        ("i in 5", 5, "found integer `5`, expected a list after `in`"),
        ("i in [1, 'a', 2]", 9, "found `\"a\"` in the list, expected integers for int64 field `i`"),
        ("i in [1.5]", 6, "found `1.5` in the list, expected integers"),
        ("s in [1]", 6, "expected strings for varchar field `s`"),
        ("i + 1 in [1]", 0, "found int64 `i + 1`, expected a field before `in`"),
        ("i in [1, id]", 9, "found int64 field `id`, expected a constant in the list"),
        ("i in [1 2]", 8, "found `2`, expected `,` or `]` for the bracket at position 5"),
        ("i not like 'a'", 6, "found `like`, expected `in` after `not`"),
        ("s like 'a\\\\'", 7, "lone backslash"),
        ("i like 'a'", 0, "found int64 field `i`, expected a varchar field or a json value before `like`"),
        ("s like i", 7, "expected a string after `like`"),
        ("null", 0, "found `null`, which is no value: expected `is null` after a field"),
        ("i == NULL", 5, "found `NULL`, which is no value"),
        ("i is 5", 5, "found `5`, expected `null` or `not null` after `is`"),
        ("exists i", 7, "expected a key of a json or of the dynamic field"),
        ("exists j", 7, "expected a key of a json or of the dynamic field"),
        ("i[0] == 1", 1, "found `[` after int64 field `i`, which has nothing inside"),
        ("j[-1] == 1", 2, "found `-`, expected a key in quotes or an index"),
        ("j < [1]", 2, "found `<` beside a list, which has no order"),
        ("i == [1]", 5, "found a list, expected a number"),
        ("s + 1 == 1", 0, "found varchar field `s`, expected a number beside `+`"),
        ("d % 2 == 1", 0, "found double field `d`, expected an integer beside `%`"),
        ("i ** 2 == 4", 0, "found int64 field `i`, expected a constant beside `**`"),
        ("i / 0 == 1", 4, "found a division by zero"),
        ("d / 0.0 == 1", 4, "found a division by zero"),
        ("i << 64 == 1", 5, "found a shift by 64, expected 0 to 63"),
        ("i == 9223372036854775807 + 1", 25, "the result of `9223372036854775807 + 1` is out of range"),
        ("i == 9223372036854775808", 5, "found `9223372036854775808`, which is out of the range of int64"),
        ("i == -9223372036854775809", 6, "out of the range of int64"),
        ("d == 1e308 * 10", 11, "is out of range"),
        ("i == {limit}", 6, "found parameter `limit`, which was given no value"),
        ("i == {1}", 6, "found `1`, expected the name of a parameter"),
        ("json_contains(j)", 0, "found 1 arguments of `json_contains`, expected 2"),
        ("json_contains(i, 1)", 14, "found int64 field `i`, expected an array or a json value as the first argument"),
        ("json_contains_all(j, 1)", 21, "found integer `1`, expected a list as the second argument"),
        ("json_contain(j, 1)", 0, "did you mean `json_contains`?"),
        ("Json_Contains(j, 1)", 0, "keywords and functions are written all lower or all upper case"),
        ("b and\n  i == oops", 13, "no field of this collection"),
        ("t == 'a'", 5, "found string `\"a\"`, expected a number to compare with int8 field `t`"),
        ("f % 2 == 1", 0, "found float field `f`, expected an integer beside `%`"),
        ("at", 0, "found array field `at`, expected a condition as the whole filter"),
        ("at == 'a'", 6, "found string `\"a\"`, expected a json value to compare with array field `at`"),
        ("at < ['a']", 3, "found `<` beside a list, which has no order"),
        ("at['a'] == 'a'", 2, "found a key after array field `at`, expected an index such as `[0]`"),
        ("at[0][0] == 'a'", 5, "found `[` after varchar value `at[0]`, which has nothing inside"),
        ("at[0] == 1", 9, "found integer `1`, expected a string to compare with varchar value `at[0]`"),
        ("ai[0] like 'a'", 0, "expected a varchar field or a json value before `like`"),
        ("exists ai[0]", 7, "expected a key of a json or of the dynamic field"),
        ("array_contains(ai, 'a')", 19, "found `\"a\"`, expected integers for array field `ai`"),
        ("array_contains_any(at, ['a', 1])", 29, "found `1`, expected strings for array field `at`"),
        ("array_contains(i, 1)", 15, "found int64 field `i`, expected an array or a json value"),
        ("array_length(i) > 1", 13, "found int64 field `i`, expected an array or a json value"),
        ("array_length(ai, 1) > 1", 0, "found 2 arguments of `array_length`, expected 1"),
        ("array_lenght(ai) > 1", 0, "did you mean `array_length`?"),
        ("w > iso '2024-13-01T00:00:00Z'", 8, "expected an instant of RFC 3339"),
        ("w > interval 'P1Y'", 13, "expected a duration of weeks, days"),
        ("s =~ 'a('", 5, "at its character 1 there is a `(` without its `)`"),
        ("i =~ 'a'", 0, "expected a varchar field or a json value before `=~`"),
        ("s !~ i", 5, "expected a string after `=~`"),
        ("text_match(s, 'a')", 11, "expected a varchar field that has an analyzer"),
        ("text_match(q, 5)", 14, "expected a string as the second argument of `text_match`"),
        ("text_match(q, 'a', minimum_should_match=0)", 40, "found integer `0`, expected an integer from 1 to 1000"),
        ("text_match(q, 'a', slop=1)", 19, "found `slop`"),
        ("phrase_match(q, 'a', -1)", 21, "an integer from 0 to 10000"),
        ("text_match_fuzzy(q, 'a', 3)", 25, "an integer from 0 to 2"),
        ("text_match(q)", 12, "`,` and a text as the second argument of `text_match`"),
        ("random_sample(1)", 14, "found integer `1`, expected a share between 0 and 1"),
        ("random_sample(i)", 14, "expected a share between 0 and 1"),
        ("random_sample(0.5, 1.5)", 19, "expected an integer as the seed"),
        ("random_sample()", 0, "found 0 arguments of `random_sample`"),
        ("b or random_sample(0.5)", 5, "expected it alone, or last behind `and`"),
        ("random_sample(0.5) and b", 0, "expected it alone, or last behind `and`"),
        ("not random_sample(0.5)", 4, "expected it alone, or last behind `and`"),
        ("b == (b and random_sample(0.5))", 5, "expected it alone, or last behind `and`"),
    ] {
        let error = error(text);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}: {error}");
        assert!(error.message().contains(message), "{text}: {error}");
        assert_eq!(error.position(), Some(position), "{text}: {error}");
        assert!(error.message().contains(&format!(", at position {position}\n")), "{text}: {error}");
    }
    assert!(error("b and\n  i == oops").message().ends_with("\n      i == oops\n           ^"));
}

#[test]
fn what_comes_later_is_unsupported() {
    for (text, position) in [("st_within(s, 'POLYGON')", 0), ("$[a] == 1", 0), ("d > 0x1p3", 4)] {
        let error = error(text);
        assert_eq!((error.kind(), error.position()), (ErrorKind::Unsupported, Some(position)), "{text}: {error}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    // On the stack that WebAssembly has.
    let run = || {
        let deep = 100_000;
        for text in [
            "(".repeat(deep),
            "not ".repeat(deep),
            "- ".repeat(deep),
            "[".repeat(deep),
            format!("i == {}", "1 + (".repeat(deep)),
            format!("i == {}1", "i + ".repeat(deep)),
            format!("{}b", "b == ".repeat(deep)),
            "json_contains(j, ".repeat(deep),
        ] {
            assert!(error(&text).message().contains("nested too deeply"), "{}", &text[..20]);
        }
        // As deep as it may be, it still evaluates, compares, shows and drops.
        let levels = DEPTH_MAX - 3;
        for text in [
            format!("i == {}1", "i + ".repeat(levels)),
            format!("{}b{}", "(".repeat(levels), ")".repeat(levels)),
            format!("{}b == (i == 1{}", "b == (".repeat(levels / 2), ")".repeat(levels / 2 + 1)),
            format!("{}b{}", "b and (b or ".repeat(levels / 4), ")".repeat(levels / 4)),
            format!("json_contains(j, {}{})", "[".repeat(levels), "]".repeat(levels)),
        ] {
            let filter = parse(&text);
            assert_eq!(filter.clone(), filter);
            assert!(!filter.to_string().is_empty());
            let batch = Batch::from_rows(
                &schema(true),
                vec![row(1, &[("i", Value::Int(1)), ("j", Value::Json(json!([[1]])))])],
            );
            filter.evaluate(batch.unwrap().scalars());
        }
        // Width is not depth.
        let wide = format!("i == 0{}", " or i == 1".repeat(20_000));
        assert!(Filter::parse(&wide, &schema(false)).is_ok());
        let long = format!("i in [{}]", "1,".repeat(100_000));
        assert!(Filter::parse(&long, &schema(false)).is_ok());
        assert!(error(&" ".repeat(TEXT_BYTES_MAX + 1)).message().contains("bytes"));
        let mut nested = json!(1);
        for _ in 0..deep {
            nested = Json::Array(vec![nested]);
        }
        let parameters = BTreeMap::from([("x".to_string(), Value::Json(nested))]);
        let error = Filter::parse_with("j == {x}", &schema(false), &parameters).unwrap_err();
        assert!(error.message().contains("nested too deeply"));
        // Dropping JSON that is nested this deep is the caller's recursion.
        std::mem::forget(parameters);
    };
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
    thread.join().unwrap();
}

#[test]
fn parameters_are_values_and_not_text() {
    let rows: Vec<Row> =
        (0..4).map(|id| row(id, &[("i", Value::Int(id)), ("s", Value::String(format!("{id}' or b")))])).collect();
    let batch = Batch::from_rows(&schema(true), rows).unwrap();
    let text = "i in {ids} or s == {text} or i > {least} and {flag}";
    assert_eq!(Filter::parameters(text).unwrap().into_iter().collect::<Vec<_>>(), ["flag", "ids", "least", "text"]);
    let parameters = BTreeMap::from([
        ("ids".to_string(), Value::Json(json!([0, 7]))),
        ("text".to_string(), Value::String("1' or b".into())),
        ("least".to_string(), Value::Double(2.5)),
        ("flag".to_string(), Value::Bool(true)),
        ("unused".to_string(), Value::Null),
    ]);
    let filter = Filter::parse_with(text, &schema(true), &parameters).unwrap();
    assert_eq!(filter.evaluate(batch.scalars()).iter().collect::<Vec<_>>(), [0, 1, 3]);
    for (value, message) in [
        (Value::Null, "is null"),
        (Value::Double(f64::NAN), "is not finite"),
        (Value::Vector(vec![]), "is a vector"),
        (Value::Json(json!({})), "is an object"),
        (Value::Json(json!([1, null])), "holds `null`"),
        (Value::Json(json!(u64::MAX)), "out of the range of int64"),
    ] {
        let error = Filter::parse_with("i == {x}", &schema(true), &BTreeMap::from([("x".into(), value)])).unwrap_err();
        assert!(error.message().contains(message), "{error}");
        assert_eq!(error.position(), Some(5));
    }
}

#[test]
fn reads_only_what_it_names() {
    let filter = parse("i > 1 and (j['a'] == 1 or color == 'red') and j['b'] is null");
    assert_eq!(filter.fields().into_iter().collect::<Vec<_>>(), ["$meta", "i", "j"]);
    let batch =
        Batch::from_rows(&schema(true), vec![row(1, &[("i", Value::Int(2)), ("color", Value::String("red".into()))])]);
    let scalars = batch.unwrap().scalars().clone();
    let columns: Vec<usize> = (0..scalars.num_columns()).filter(|&c| scalars.schema().field(c).name() != "s").collect();
    assert_eq!(filter.evaluate(&scalars.project(&columns).unwrap()).count(), 1);
}

#[test]
fn unknown_is_neither_true_nor_false() {
    let rows = [
        row(0, &[("i", Value::Int(1)), ("j", Value::Json(json!({"a": 1, "n": null})))]),
        row(1, &[("j", Value::Json(json!({"a": "1"})))]),
        row(2, &[("i", Value::Int(i64::MAX)), ("j", Value::Json(json!({"a": true})))]),
    ];
    for (text, expected) in [
        ("i == 1", &[0][..]),
        ("not i == 1", &[]),
        ("not (i == 1)", &[2]),
        ("i == 1 or i is null", &[0, 1]),
        ("i + 1 > 0", &[0]),
        ("not (i + 1 > 0)", &[]),
        ("i / (i - 1) > 0", &[2]),
        ("j['a'] == 1", &[0]),
        ("j['a'] != 1", &[]),
        ("j['a'] != '2'", &[1]),
        ("j['a']", &[2]),
        ("not j['a']", &[]),
        ("j['a'] in [1, '1']", &[0, 1]),
        ("j['a'] not in [2]", &[0]),
        ("j['n'] is null", &[0, 1, 2]),
        ("exists j['n']", &[0]),
        ("not exists j['n']", &[1, 2]),
        ("i in []", &[]),
        ("i not in []", &[0, 1, 2]),
        ("i > 0.5", &[0, 2]),
        ("i < 9223372036854775807.0", &[0, 2]),
    ] {
        if text == "not i == 1" {
            assert!(Filter::parse(text, &schema(true)).is_err());
            continue;
        }
        assert_eq!(passing(text, &rows), expected, "{text}");
    }
}

#[test]
fn instants_and_floats_are_compared_as_what_they_are() {
    let text = |text: &str| Value::String(text.into());
    let rows = [
        row(0, &[("w", text("2024-05-01T12:00:00+02:00")), ("f", Value::Double(0.1)), ("t", Value::Int(-128))]),
        row(1, &[("w", Value::Int(0)), ("f", Value::Float(0.5)), ("t", Value::Int(127))]),
        row(2, &[("af", Value::Json(json!([0.1, 2])))]),
    ];
    for (text, expected) in [
        ("w == iso '2024-05-01T10:00:00Z'", &[0][..]),
        ("w + INTERVAL 'P1D' > ISO \"2024-05-02T09:59:59.999999Z\"", &[0]),
        ("w < 1", &[1]),
        ("w is null", &[2]),
        // A float holds the 32-bit number nearest to 0.1, and so does what it is compared with.
        ("f == 0.1", &[0]),
        ("f <= 0.1", &[0]),
        ("f > 0.1", &[1]),
        ("f in [0.1, 7]", &[0]),
        ("array_contains(af, 0.1)", &[2]),
        ("af[0] == 0.1 and af[1] > 1.5 and af[2] is null", &[2]),
        ("t - 1 < -128", &[0]),
        ("t == 127.0", &[1]),
        ("t > 1e9 or t < -1000", &[]),
    ] {
        assert_eq!(passing(text, &rows), expected, "{text}");
    }
}

/// A constant that a `float` would hold as zero was taken for zero: `f != 1e-300` left out the rows where `f` is 0.
#[test]
fn what_a_float_would_hold_as_zero_is_not_zero() {
    let rows = [row(0, &[("f", Value::Float(0.0))]), row(1, &[("f", Value::Float(0.5))])];
    for (text, expected) in [
        ("f != -3.25 / -1e300", &[0, 1][..]),
        ("f < 1e-300", &[0]),
        ("f >= 1e-300", &[1]),
        ("f in [1e-300, 0.5]", &[1]),
        ("f == 0.0", &[0]),
        ("f < 1e300 and f > -1e300", &[0, 1]),
    ] {
        assert_eq!(passing(text, &rows), expected, "{text}");
    }
}

#[test]
fn many_chunks_are_one_mask() {
    let rows = 3 * super::ternary::CHUNK_ROWS + 77;
    let values: Vec<Row> =
        (0..rows as i64).map(|id| row(id, &[("x", Value::Int(id % 7)), ("i", Value::Int(id % 3))])).collect();
    let expected: Vec<usize> = (0..rows).filter(|id| id % 3 == 0 && id % 7 > 4 || id % 1000 == 0).collect();
    assert_eq!(passing("i == 0 and x > 4 or id % 1000 == 0", &values), expected);
    assert_eq!(passing("true", &values).len(), rows);
    assert_eq!(passing("x is null", &[]), [0usize; 0]);
}

/// A sample is of the keys, not of the rows as they lie: it is the same in every order and on every replica.
#[test]
fn samples_are_of_keys() {
    let rows: Vec<Row> = (0..4_000).map(|id| row(id, &[("i", Value::Int(id % 10))])).collect();
    for (share, text) in [(0.5, "0.5"), (0.1, "0.1"), (0.01, "1e-2"), (0.999, "0.999")] {
        let sampled = passing(&format!("random_sample({text})"), &rows);
        let expected = share * rows.len() as f64;
        let deviation = (expected * (1.0 - share)).sqrt();
        assert!((sampled.len() as f64 - expected).abs() <= 5.0 * deviation + 1.0, "{share}: {}", sampled.len());
        let other = passing(&format!("random_sample({text}, 7)"), &rows);
        assert_ne!(sampled, other, "{share}");
        // Of what is left of it, as many in a hundred.
        let within = passing(&format!("i == 3 and RANDOM_SAMPLE({text})"), &rows);
        let both: Vec<usize> = sampled.iter().copied().filter(|id| id % 10 == 3).collect();
        assert_eq!(within, both, "{share}");
        let shuffled: Vec<Row> = rows.iter().rev().cloned().collect();
        let turned = passing(&format!("random_sample({text})"), &shuffled);
        assert_eq!(turned.iter().rev().map(|at| rows.len() - 1 - at).collect::<Vec<_>>(), sampled, "{share}");
    }
    assert_eq!(parse("random_sample(0.25, 7)").to_string(), "random_sample(0.25, 7)");
    assert_eq!(
        parse("j['a'] == 1 and (b and random_sample(0.25))").to_string(),
        "b and j[\"a\"] == 1 and random_sample(0.25)"
    );
}
