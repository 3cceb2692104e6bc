//! The keys of JSON values: of each type by themselves, in the order of the values.

use serde_json::Value as Json;

use super::float_key;

/// The row's value is JSON that cannot be read: whoever finds one looks at the values.
pub const BROKEN: &[u8] = b"x";
/// The value is there, and null.
pub const NULL: &[u8] = b"z";
/// The value is an array.
pub const ARRAY: &[u8] = b"A";

/// A type of values that are compared with each other: the first byte of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Tag {
    /// `true` and `false`.
    Bool = b'b',
    /// Numbers of any type.
    Number = b'n',
    /// Strings.
    Text = b't',
}

impl Tag {
    /// The key of a value that stands alone, from what tells it from others of its type.
    pub fn key(self, value: &[u8]) -> Vec<u8> {
        [&[self as u8], value].concat()
    }

    /// The key before those of all values of the type, and the key behind them.
    pub fn ends(self) -> ([u8; 1], [u8; 1]) {
        ([self as u8], [self as u8 + 1])
    }
}

/// What tells a number from others; in their order, by their exact values whatever their types: of large ones, of which doubles do not
/// hold each, with the exact integer behind the double.
pub fn number_value(number: &serde_json::Number) -> Vec<u8> {
    const EXACT: f64 = (1u64 << 53) as f64;
    let whole = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    let float = whole.map_or_else(|| number.as_f64().unwrap_or(f64::NAN), |whole| whole as f64);
    let mut value = float_key(float).to_vec();
    if float.abs() >= EXACT {
        value.extend(((whole.unwrap_or(float as i128) as u128) ^ 1 << 127).to_be_bytes());
    }
    value
}

/// The type of a value and what tells it from others; `None` for null, arrays and objects.
pub fn scalar(json: &Json) -> Option<(Tag, Vec<u8>)> {
    match json {
        Json::Bool(value) => Some((Tag::Bool, vec![u8::from(*value)])),
        Json::Number(number) => Some((Tag::Number, number_value(number))),
        Json::String(text) => Some((Tag::Text, text.as_bytes().to_vec())),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// The key of an array that holds such a value.
pub fn element_key(json: &Json) -> Option<Vec<u8>> {
    let (tag, value) = scalar(json)?;
    Some([&[(tag as u8).to_ascii_uppercase()], &*value].concat())
}

/// Adds the keys of what stands at a place, and tells whether that is a value.
pub fn keys(json: Option<&Json>, keys: &mut Vec<Vec<u8>>) -> bool {
    match json {
        None => return false,
        Some(Json::Null) => {
            keys.push(NULL.to_vec());
            return false;
        }
        Some(Json::Array(elements)) => {
            keys.push(ARRAY.to_vec());
            keys.extend(elements.iter().filter_map(element_key));
        }
        Some(json) => keys.extend(scalar(json).map(|(tag, value)| tag.key(&value))),
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Number, json};

    use super::*;

    #[test]
    fn numbers_are_in_the_order_of_their_exact_values() {
        let ascending = [
            json!(-1e300),
            json!(i64::MIN),
            json!(-9007199254740993i64),
            json!(-9007199254740992.0),
            json!(-1.5),
            json!(-1),
            json!(0),
            json!(0.5),
            json!(1),
            json!(9007199254740991i64),
            json!(9007199254740992i64),
            json!(9007199254740993i64),
            json!(9007199254740994i64),
            json!(i64::MAX - 1),
            json!(i64::MAX),
            json!(9223372036854775808u64),
            json!(u64::MAX - 1),
            json!(u64::MAX),
            json!(18446744073709551616.0),
            json!(1e300),
        ];
        let value = |json: &serde_json::Value| match json {
            serde_json::Value::Number(number) => number_value(number),
            _ => panic!("numbers"),
        };
        assert!(ascending.windows(2).all(|pair| value(&pair[0]) < value(&pair[1])));
        let same = |left: Number, right: Number| assert_eq!(number_value(&left), number_value(&right));
        same(1.into(), Number::from_f64(1.0).unwrap());
        same(0.into(), Number::from_f64(-0.0).unwrap());
        same(9007199254740992i64.into(), Number::from_f64(9007199254740992.0).unwrap());
        same(9223372036854775808u64.into(), Number::from_f64(9223372036854775808.0).unwrap());
    }

    #[test]
    fn each_value_has_the_keys_of_its_type() {
        let of = |json: Option<Json>| {
            let mut found = Vec::new();
            let is_value = keys(json.as_ref(), &mut found);
            (is_value, found)
        };
        assert_eq!(of(None), (false, vec![]));
        assert_eq!(of(Some(Json::Null)), (false, vec![NULL.to_vec()]));
        assert_eq!(of(Some(json!("ab"))), (true, vec![b"tab".to_vec()]));
        assert_eq!(of(Some(json!({"a": 1}))), (true, vec![]));
        let array = of(Some(json!([true, "a", [1], null])));
        assert_eq!(array, (true, vec![ARRAY.to_vec(), b"B\x01".to_vec(), b"Ta".to_vec()]));
    }
}
