//! What becomes of many rows: an order, and functions over groups of them.

use std::cmp::Ordering;

use super::number::Number;
use crate::model::Value;

/// A function over the rows of a group, as output fields name it: `count(*)`, `count(field)`, `sum(field)`, `min(field)`,
/// `max(field)` or `avg(field)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// As it was written, which is its name in the row of its group.
    pub name: String,
    /// Which one.
    pub function: Function,
    /// Of which values; of rows with `None`.
    pub field: Option<String>,
}

/// Which function; nulls count for nothing but in `count(*)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// How many there are.
    Count,
    /// Of numbers: exact of integers, and a double where that is past 64 bits; null of none.
    Sum,
    /// The least of numbers, texts or booleans; null of none.
    Min,
    /// The greatest.
    Max,
    /// The mean of numbers, a double; null of none.
    Avg,
}

impl Aggregate {
    /// The function that an output field names; `None` when it is a field.
    pub fn parse(name: &str) -> Option<Self> {
        let (word, rest) = name.split_once('(')?;
        let field = rest.strip_suffix(')')?.trim();
        let function = match word.trim().to_ascii_lowercase().as_str() {
            "count" => Function::Count,
            "sum" => Function::Sum,
            "min" => Function::Min,
            "max" => Function::Max,
            "avg" => Function::Avg,
            _ => return None,
        };
        let field = match (field, function) {
            ("*", Function::Count) => None,
            ("*" | "", _) => return None,
            (field, _) => Some(field.to_owned()),
        };
        Some(Self { name: name.to_owned(), function, field })
    }
}

/// What has become of the values so far.
#[derive(Debug, Clone)]
pub struct Accumulator {
    function: Function,
    count: u64,
    ints: i128,
    floats: f64,
    /// What `floats` has lost by rounding (Neumaier's summation), so that it matters less in which order rows come.
    lost: f64,
    has_floats: bool,
    best: Value,
}

impl Accumulator {
    /// Of no value.
    pub fn new(function: Function) -> Self {
        Self { function, count: 0, ints: 0, floats: 0.0, lost: 0.0, has_floats: false, best: Value::Null }
    }

    /// Adds a row; for `count(*)` with any value.
    pub fn add(&mut self, value: &Value) {
        match (self.function, value) {
            (_, Value::Null) => {}
            (Function::Count, _) => self.count += 1,
            (Function::Sum | Function::Avg, value) => match number(value) {
                Some(Number::Float(float)) => {
                    self.count += 1;
                    self.has_floats = true;
                    let sum = self.floats + float;
                    let (large, small) =
                        if self.floats.abs() >= float.abs() { (self.floats, float) } else { (float, self.floats) };
                    self.lost += (large - sum) + small;
                    self.floats = sum;
                }
                Some(number) => {
                    self.count += 1;
                    self.ints += i128::from(number.as_int().unwrap_or_default());
                }
                None => {}
            },
            (Function::Min | Function::Max, value) => {
                let wanted = if self.function == Function::Min { Ordering::Less } else { Ordering::Greater };
                if self.best == Value::Null || compare(value, &self.best) == wanted {
                    self.best = value.clone();
                }
            }
        }
    }

    /// What it comes to.
    pub fn finish(self) -> Value {
        let sum = self.ints as f64 + self.floats + self.lost;
        match self.function {
            Function::Count => Value::Int(self.count as i64),
            Function::Min | Function::Max => self.best,
            _ if self.count == 0 => Value::Null,
            Function::Avg => Value::Double(sum / self.count as f64),
            Function::Sum if self.has_floats => Value::Double(sum),
            Function::Sum => i64::try_from(self.ints).map_or(Value::Double(sum), Value::Int),
        }
    }
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Int(int) => Some(Number::Int(*int)),
        Value::Float(float) => Some(Number::Float(f64::from(*float))),
        Value::Double(float) => Some(Number::Float(*float)),
        _ => None,
    }
}

/// The order of values: booleans, numbers by their exact value, texts byte by byte, everything else by how it is written; null last.
pub fn compare(left: &Value, right: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Bool(_) => 0,
        Value::Int(_) | Value::Float(_) | Value::Double(_) => 1,
        Value::String(_) => 2,
        Value::Null => 4,
        _ => 3,
    };
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ => match (number(left), number(right)) {
            (Some(left), Some(right)) => left.compare(right).unwrap_or(Ordering::Equal),
            _ if rank(left) != 3 || rank(right) != 3 => rank(left).cmp(&rank(right)),
            _ => written(left).cmp(&written(right)),
        },
    }
}

fn written(value: &Value) -> String {
    match value {
        Value::Json(json) => json.to_string(),
        Value::Array(values) => values.iter().map(|value| format!("{},", written(value))).collect(),
        other => group_key(std::slice::from_ref(other)),
    }
}

/// A text that is the same for the same values, whatever type numbers have, and different for others.
pub fn group_key(values: &[Value]) -> String {
    let mut key = String::new();
    for value in values {
        let part = match value {
            Value::Null => "n".to_owned(),
            Value::Bool(value) => format!("b{}", u8::from(*value)),
            Value::String(text) => format!("s{text}"),
            Value::Json(json) => format!("j{json}"),
            Value::Array(values) => format!("a{}", group_key(values)),
            other => match number(other) {
                Some(number) => match number.as_int() {
                    Some(int) => format!("i{int}"),
                    None => format!("f{}", number.as_f64().to_bits()),
                },
                None => String::new(),
            },
        };
        key += &format!("{}:", part.len());
        key += &part;
    }
    key
}

/// By which values rows are ordered, the first first: a field each, ascending or descending; nulls last either way.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Order(Vec<(String, bool)>);

impl Order {
    /// From texts such as `price`, `price asc` and `price desc`.
    pub fn parse(texts: &[String]) -> Self {
        let part = |text: &String| {
            let text = text.trim();
            let lower = text.to_ascii_lowercase();
            let word =
                |word: &str| lower.ends_with(word).then(|| text[..text.len() - word.len()].trim_end().to_owned());
            match (word(" desc"), word(" asc")) {
                (Some(field), _) => (field, true),
                (_, Some(field)) => (field, false),
                _ => (text.to_owned(), false),
            }
        };
        Self(texts.iter().map(part).collect())
    }

    /// Whether rows come as they are.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The fields.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(field, _)| field.as_str())
    }

    /// The order of two rows by the values of these fields.
    pub fn compare(&self, left: &[Value], right: &[Value]) -> Ordering {
        let parts = self.0.iter().zip(left.iter().zip(right));
        let mut orders = parts.map(|((_, descending), (left, right))| match (left, right) {
            (Value::Null, _) | (_, Value::Null) => compare(left, right),
            _ if *descending => compare(right, left),
            _ => compare(left, right),
        });
        orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            (-5i64..5).prop_map(Value::Int),
            (-5i8..5).prop_map(|n| Value::Double(f64::from(n) / 2.0)),
            (-5i8..5).prop_map(|n| Value::Float(f32::from(n) / 2.0)),
            "[ab:1]{0,2}".prop_map(Value::String),
            (-1i8..2).prop_map(|n| Value::Json(json!([n]))),
        ]
    }

    #[test]
    fn functions_are_read() {
        let parsed = |name: &str| Aggregate::parse(name).map(|found| (found.function, found.field));
        assert_eq!(parsed("count(*)"), Some((Function::Count, None)));
        assert_eq!(parsed("COUNT( price )"), Some((Function::Count, Some("price".into()))));
        assert_eq!(parsed("avg(price)"), Some((Function::Avg, Some("price".into()))));
        for name in ["price", "sum(*)", "sum()", "median(price)", "sum(price", ""] {
            assert_eq!(parsed(name), None, "{name}");
        }
    }

    #[test]
    fn sums_are_exact_as_far_as_they_can_be() {
        let total = |function, values: &[Value]| {
            let mut total = Accumulator::new(function);
            values.iter().for_each(|value| total.add(value));
            total.finish()
        };
        let large = [Value::Int(i64::MAX), Value::Int(i64::MAX), Value::Null, Value::Int(-i64::MAX), Value::Int(1)];
        assert_eq!(total(Function::Sum, &large[..4]), Value::Int(i64::MAX));
        assert_eq!(total(Function::Sum, &large[..2]), Value::Double(i64::MAX as f64 * 2.0));
        assert_eq!(
            total(Function::Sum, &[Value::Double(1e100), Value::Double(1.0), Value::Double(-1e100)]),
            Value::Double(1.0)
        );
        assert_eq!(total(Function::Avg, &[Value::Int(1), Value::Double(2.0), Value::Null]), Value::Double(1.5));
        assert_eq!(total(Function::Count, &large), Value::Int(4));
        for function in [Function::Sum, Function::Avg, Function::Min, Function::Max] {
            assert_eq!(total(function, &[Value::Null]), Value::Null);
        }
    }

    proptest! {
        #[test]
        fn order_is_total_and_groups_are_its_ties(values in prop::collection::vec(any_value(), 3)) {
            let [a, b, c] = [&values[0], &values[1], &values[2]];
            prop_assert_eq!(compare(a, b), compare(b, a).reverse());
            if compare(a, b).is_le() && compare(b, c).is_le() {
                prop_assert!(compare(a, c).is_le());
            }
            let key = |value: &Value| group_key(std::slice::from_ref(value));
            prop_assert_eq!(compare(a, b).is_eq(), key(a) == key(b), "{:?} {:?}", a, b);
        }

        #[test]
        fn groups_of_several_values_are_apart(left in prop::collection::vec(any_value(), 2), right in prop::collection::vec(any_value(), 2)) {
            let same = left.iter().zip(&right).all(|(left, right)| compare(left, right).is_eq());
            prop_assert_eq!(group_key(&left) == group_key(&right), same);
        }
    }
}
