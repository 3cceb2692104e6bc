use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use crate::base::{Error, Result};
use crate::model::{DataType, Key, Value};

/// The largest integer up to which every integer is a JavaScript number.
pub(super) const SAFE_INTEGER_MAX: u64 = (1 << 53) - 1;

/// Any value that MessagePack can say and a field could mean.
#[derive(Debug)]
pub(super) enum Item {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    /// A JavaScript `Date`: microseconds since 1970.
    Date(i64),
    /// The bytes of a typed array that is no `Float32Array`.
    Typed(Typed, Vec<u8>),
    Array(Vec<Item>),
    Map(Vec<(String, Item)>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ItemVisitor)
    }
}

/// What a typed array holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Typed {
    Int8,
    Uint8,
    Uint16,
}

impl Typed {
    /// The numbers in `bytes`.
    fn numbers(self, bytes: &[u8]) -> impl Iterator<Item = i64> + '_ {
        let width = if matches!(self, Self::Uint16) { 2 } else { 1 };
        bytes.chunks_exact(width).map(move |bytes| match self {
            Self::Int8 => i64::from(bytes[0] as i8),
            Self::Uint8 => i64::from(bytes[0]),
            Self::Uint16 => i64::from(u16::from_le_bytes([bytes[0], bytes[1]])),
        })
    }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a number, text, bytes, an array or a map")
    }

    fn visit_unit<E>(self) -> Result<Item, E> {
        Ok(Item::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Item, E> {
        Ok(Item::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Item, E> {
        Ok(Item::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Item, E> {
        i64::try_from(value).map(Item::Int).map_err(|_| E::custom(format_args!("integer {value} is past 2^63 - 1")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Item, E> {
        // JavaScript has one type for both, and its encoder writes integers past 32 bits as floats.
        let whole = value.fract() == 0.0 && value.abs() <= SAFE_INTEGER_MAX as f64;
        Ok(if whole { Item::Int(value as i64) } else { Item::Double(value) })
    }

    fn visit_str<E>(self, value: &str) -> Result<Item, E> {
        Ok(Item::String(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Item, E> {
        Ok(Item::Bytes(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Item, A::Error> {
        // No capacity from the header: it may promise more than the bytes hold.
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Item::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Item, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Item::Map(map))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, extension: D) -> Result<Item, D::Error> {
        let (kind, bytes) = <(i8, serde_bytes::ByteBuf)>::deserialize(extension)?;
        let item = match kind {
            -1 => date(&bytes).map(Item::Date),
            1 => Some(Item::Typed(Typed::Int8, bytes.into_vec())),
            2 => Some(Item::Typed(Typed::Uint8, bytes.into_vec())),
            3 => Some(Item::Typed(Typed::Uint16, bytes.into_vec())),
            _ => None,
        };
        item.ok_or_else(|| D::Error::custom("a value of no type that a field has"))
    }
}

/// MessagePack's timestamp: seconds in 32 bits; nanoseconds in 30 bits and seconds in 34; or nanoseconds in 32 bits and
/// seconds in 64; big-endian. What no timestamp can be is so far off that it is out of range.
fn date(bytes: &[u8]) -> Option<i64> {
    let (nanos, seconds) = match bytes.len() {
        4 => (0, i64::from(u32::from_be_bytes(bytes.try_into().ok()?))),
        8 => {
            let both = u64::from_be_bytes(bytes.try_into().ok()?);
            (both >> 34, (both & 0x3_ffff_ffff) as i64)
        }
        12 => {
            let (nanos, seconds) = bytes.split_at(4);
            (u64::from(u32::from_be_bytes(nanos.try_into().ok()?)), i64::from_be_bytes(seconds.try_into().ok()?))
        }
        _ => return None,
    };
    Some(seconds.saturating_mul(1_000_000).saturating_add(nanos as i64 / 1000))
}

impl Item {
    /// The value that a field of `data_type` would have; with `None`, of a name that the schema does not know. A value of
    /// another type passes as what it is, for the model to refuse.
    pub(super) fn into_value(self, data_type: Option<DataType>) -> Result<Value> {
        Ok(match (self, data_type) {
            (Self::Null, _) => Value::Null,
            (Self::Bytes(bytes), _) => Value::Vector(floats(&bytes)?),
            (Self::Typed(Typed::Int8, bytes), Some(DataType::Int8Vector { .. }))
            | (Self::Typed(Typed::Uint8, bytes), Some(DataType::BinaryVector { .. }))
            | (
                Self::Typed(Typed::Uint16, bytes),
                Some(DataType::Float16Vector { .. } | DataType::BFloat16Vector { .. }),
            ) => Value::Bytes(bytes),
            (Self::Typed(kind, bytes), Some(DataType::Array { .. } | DataType::Json)) => {
                kind.numbers(&bytes).map(Value::Int).collect()
            }
            (Self::Typed(kind, bytes), _) => Value::Vector(kind.numbers(&bytes).map(|number| number as f32).collect()),
            (item, Some(DataType::Json)) => Value::Json(item.into_json()?),
            (
                Self::Array(items),
                Some(DataType::FloatVector { .. } | DataType::Float16Vector { .. } | DataType::BFloat16Vector { .. }),
            ) => Value::Vector(
                items
                    .into_iter()
                    .map(|item| match item {
                        Self::Int(number) => Ok(number as f32),
                        Self::Double(number) => Ok(number as f32),
                        other => {
                            Err(Error::invalid(format!("a vector of numbers expected, got {} in it", other.kind())))
                        }
                    })
                    .collect::<Result<_>>()?,
            ),
            (Self::Int(number), Some(DataType::Double)) => Value::Double(number as f64),
            (Self::Date(micros), Some(DataType::Timestamp)) => Value::Int(micros),
            (Self::Date(_), _) => return Err(no_date()),
            (Self::Array(items), Some(DataType::Array { element, .. })) => Value::Array(
                items.into_iter().map(|item| item.into_value(Some(element.into()))).collect::<Result<_>>()?,
            ),
            (Self::Bool(value), _) => Value::Bool(value),
            (Self::Int(value), _) => Value::Int(value),
            (Self::Double(value), _) => Value::Double(value),
            (Self::String(value), _) => Value::String(value),
            (item @ (Self::Array(_) | Self::Map(_)), _) => Value::Json(item.into_json()?),
        })
    }

    /// The primary key that it is.
    pub(super) fn into_key(self) -> Result<Key> {
        match self {
            Self::Int(key) => Ok(Key::Int(key)),
            Self::String(key) => Ok(Key::String(key.into())),
            other => Err(Error::invalid(format!("a key is an integer or text, got {}", other.kind()))),
        }
    }

    fn into_json(self) -> Result<Json> {
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(value),
            Self::Int(value) => value.into(),
            Self::Double(value) => serde_json::Number::from_f64(value)
                .map(Json::Number)
                .ok_or_else(|| Error::invalid(format!("JSON has no number for {value}")))?,
            Self::String(value) => Json::String(value),
            Self::Bytes(_) | Self::Typed(..) => {
                return Err(Error::invalid("a typed array is no JSON value: store an array of numbers"));
            }
            Self::Date(_) => return Err(no_date()),
            Self::Array(items) => Json::Array(items.into_iter().map(Self::into_json).collect::<Result<_>>()?),
            Self::Map(entries) => Json::Object(
                entries.into_iter().map(|(name, item)| Ok((name, item.into_json()?))).collect::<Result<_>>()?,
            ),
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Double(_) => "a number that is not an integer",
            Self::String(_) => "text",
            Self::Bytes(_) | Self::Typed(..) => "a typed array",
            Self::Date(_) => "a Date",
            Self::Array(_) => "an array",
            Self::Map(_) => "an object",
        }
    }
}

fn no_date() -> Error {
    Error::invalid("a Date is for a timestamp field: store its number or text")
}

/// The bytes of a `Float32Array`, as its numbers.
fn floats(bytes: &[u8]) -> Result<Vec<f32>> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(Error::invalid(format!("{} bytes are not a whole number of 32-bit floats", bytes.len())));
    }
    Ok(chunks.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect())
}
