use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value as Json;

/// One value of one field.
///
/// Serialized it describes itself: nil, bool, integer, float, string, array and map; a vector is a byte string of
/// little-endian `f32` in binary formats and an array of numbers elsewhere, bits are an array of bytes, a sparse vector is a
/// map from its indexes as text. Read back, arrays and maps become
/// [`Value::Json`], and a 32-bit float may become [`Value::Double`]: only a schema can tell them apart, and does so when a
/// [`Batch`](super::Batch) is made.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Absent.
    #[default]
    Null,
    /// `bool`.
    Bool(bool),
    /// `int8` to `int64`, and `timestamp`: microseconds since 1970 in UTC.
    Int(i64),
    /// `float`.
    Float(f32),
    /// `double`.
    Double(f64),
    /// `varchar`.
    String(String),
    /// `json`: any JSON value. A JSON `null` is [`Value::Null`].
    Json(Json),
    /// `array`.
    Array(Vec<Value>),
    /// `float_vector`, `float16_vector`, `bfloat16_vector` and `int8_vector`: `dim` numbers, which 32-bit floats hold exactly.
    Vector(Vec<f32>),
    /// `binary_vector`: eight bits a byte. Also the bytes in which another vector is kept, little-endian.
    Bytes(Vec<u8>),
    /// `sparse_float_vector`: by ascending index.
    Sparse(Vec<(u32, f32)>),
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Self::Float(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::String(value)
    }
}

impl From<Vec<(u32, f32)>> for Value {
    fn from(value: Vec<(u32, f32)>) -> Self {
        Self::Sparse(value)
    }
}

impl From<Vec<f32>> for Value {
    fn from(value: Vec<f32>) -> Self {
        Self::Vector(value)
    }
}

impl FromIterator<Value> for Value {
    /// An array.
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        Self::Array(values.into_iter().collect())
    }
}

impl From<Json> for Value {
    /// Scalars become the scalar values; arrays, objects and integers beyond `i64` stay JSON.
    fn from(value: Json) -> Self {
        match value {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(value),
            Json::String(value) => Self::String(value),
            Json::Number(ref number) => match (number.as_i64(), number.is_f64(), number.as_f64()) {
                (Some(integer), ..) => Self::Int(integer),
                (None, true, Some(double)) => Self::Double(double),
                _ => Self::Json(value),
            },
            Json::Array(_) | Json::Object(_) => Self::Json(value),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f32(*value),
            Self::Double(value) => serializer.serialize_f64(*value),
            Self::String(value) => serializer.serialize_str(value),
            Self::Json(value) => value.serialize(serializer),
            Self::Array(values) => values.serialize(serializer),
            Self::Bytes(bytes) => serializer.collect_seq(bytes),
            Self::Sparse(pairs) => {
                serializer.collect_map(pairs.iter().map(|(index, value)| (index.to_string(), value)))
            }
            Self::Vector(values) if serializer.is_human_readable() => {
                // JSON has no word for these, and would quietly write null.
                if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                    return Err(S::Error::custom(format!("vector[{at}] is {}, which is not a number", values[at])));
                }
                values.serialize(serializer)
            }
            Self::Vector(values) => {
                let mut bytes = Vec::with_capacity(values.len() * 4);
                values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
                serializer.serialize_bytes(&bytes)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a bool, a number, a string, a vector (bytes of little-endian f32), an array or a map")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        // Beyond i64 it is still JSON; an int64 field refuses it with the row and field.
        Ok(i64::try_from(value).map_or_else(|_| Value::Json(value.into()), Value::Int))
    }

    fn visit_f32<E>(self, value: f32) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Double(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Value, E> {
        let (numbers, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() {
            return Err(E::custom(format!(
                "a byte string is a vector of little-endian f32, so its length is a multiple of 4, but it has {} bytes",
                bytes.len()
            )));
        }
        Ok(Value::Vector(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Value, A::Error> {
        Json::deserialize(de::value::SeqAccessDeserializer::new(seq)).map(Value::Json)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        Json::deserialize(de::value::MapAccessDeserializer::new(map)).map(Value::Json)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::tests::any_value;

    #[test]
    fn vectors_are_bytes_in_binary_and_numbers_in_text() {
        let value = Value::Vector(vec![1.5, -2.0]);
        assert_eq!(serde_json::to_string(&value).unwrap(), "[1.5,-2.0]");
        let bytes = rmp_serde::to_vec(&value).unwrap();
        assert_eq!(bytes, [0xc4, 8, 0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), value);
        assert_eq!(serde_json::from_str::<Value>("[1.5, -2.0]").unwrap(), Value::Json(json!([1.5, -2.0])));
        assert!(serde_json::to_string(&Value::Vector(vec![f32::NAN])).unwrap_err().to_string().contains("vector[0]"));
    }

    #[test]
    fn a_torn_vector_is_refused() {
        let error = rmp_serde::from_slice::<Value>(&[0xc4, 3, 0, 0, 0]).unwrap_err().to_string();
        assert!(error.contains("3 bytes"), "{error}");
        assert!(rmp_serde::from_slice::<Value>(&[0xc6, 0xff, 0xff, 0xff, 0xff, 0]).is_err());
    }

    #[test]
    fn integers_beyond_int64_are_kept_as_json() {
        assert_eq!(serde_json::from_str::<Value>("18446744073709551615").unwrap(), Value::Json(json!(u64::MAX)));
        assert_eq!(Value::from(json!(u64::MAX)), Value::Json(json!(u64::MAX)));
        assert_eq!(Value::from(json!(i64::MIN)), Value::Int(i64::MIN));
    }

    proptest! {
        #[test]
        fn round_trip(value in any_value()) {
            let bytes = rmp_serde::to_vec(&value).unwrap();
            prop_assert_eq!(&rmp_serde::from_slice::<Value>(&bytes).unwrap(), &value);
            if !matches!(value, Value::Vector(_)) {
                let text = serde_json::to_string(&value).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &value);
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = rmp_serde::from_slice::<Value>(&bytes);
        }
    }
}
