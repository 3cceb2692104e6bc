//! MessagePack, read. (It is written by `rmp-serde`.)

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};

/// How deep values may lie in each other.
const DEPTH_MAX: usize = 128;

/// The value in `bytes`; what comes after it is left alone.
///
/// # Errors
/// Of [`Decoder`].
pub fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Failure> {
    T::deserialize(&mut Decoder::<false>::new(bytes))
}

/// Why bytes are not the value that was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl serde::de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Reads values from bytes that may be wrong: strings and bytes only as far as they are there, whatever length they claim, and values
/// in values to a bounded depth.
///
/// Takes the next token apart in one function for all types, and offers a type what it asks for, not everything that there may be:
/// rmp-serde's decoder does all of it anew for each type that is read, which came to a tenth of what a browser downloads. Hence structs
/// are maps, unless they are `ARRAYS` too.
#[derive(Debug)]
pub struct Decoder<'de, const ARRAYS: bool> {
    bytes: &'de [u8],
    at: usize,
    depth: usize,
}

enum Token<'de> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'de str),
    Bytes(&'de [u8]),
    Array(usize),
    Map(usize),
    Extension(i8, &'de [u8]),
}

impl Token<'_> {
    #[cold]
    #[inline(never)]
    fn instead_of(&self, expected: &dyn Expected) -> Failure {
        let found = match *self {
            Self::Nil => Unexpected::Unit,
            Self::Bool(value) => Unexpected::Bool(value),
            Self::Unsigned(value) => Unexpected::Unsigned(value),
            Self::Signed(value) => Unexpected::Signed(value),
            Self::Float(value) => Unexpected::Float(value),
            Self::Text(text) => Unexpected::Str(text),
            Self::Bytes(bytes) => Unexpected::Bytes(bytes),
            Self::Array(_) => Unexpected::Seq,
            Self::Map(_) => Unexpected::Map,
            Self::Extension(..) => Unexpected::Other("extension"),
        };
        serde::de::Error::invalid_type(found, expected)
    }
}

impl<'de, const ARRAYS: bool> Decoder<'de, ARRAYS> {
    /// At the start of `bytes`.
    pub fn new(bytes: &'de [u8]) -> Self {
        Self { bytes, at: 0, depth: 0 }
    }

    /// Where the next value begins.
    pub fn position(&self) -> usize {
        self.at
    }

    fn take(&mut self, len: usize) -> Result<&'de [u8], Failure> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len);
        let taken = taken
            .ok_or_else(|| Failure(format!("at byte {}: {len} bytes expected, {} remain", self.at, rest.len())))?;
        self.at += len;
        Ok(taken)
    }

    /// A number of `len` bytes, the highest first.
    fn number(&mut self, len: usize) -> Result<u64, Failure> {
        Ok(self.take(len)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn len(&mut self, width: usize) -> Result<usize, Failure> {
        let len = self.number(width)?;
        // No slice is longer than that, so whoever takes as much is told so.
        Ok(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn text(&mut self, len: usize) -> Result<Token<'de>, Failure> {
        let at = self.at;
        let text = std::str::from_utf8(self.take(len)?);
        text.map(Token::Text).map_err(|error| Failure(format!("at byte {at}: {error}")))
    }

    fn extension(&mut self, len: usize) -> Result<Token<'de>, Failure> {
        let kind = self.number(1)? as i8;
        Ok(Token::Extension(kind, self.take(len)?))
    }

    #[inline(never)]
    fn token(&mut self) -> Result<Token<'de>, Failure> {
        let marker = self.number(1)? as u8;
        Ok(match marker {
            0x00..=0x7f => Token::Unsigned(marker.into()),
            0x80..=0x8f => Token::Map(usize::from(marker & 15)),
            0x90..=0x9f => Token::Array(usize::from(marker & 15)),
            0xa0..=0xbf => self.text(usize::from(marker & 31))?,
            0xc0 => Token::Nil,
            0xc1 => return Err(Failure(format!("at byte {}: 0xc1, which begins no value", self.at - 1))),
            0xc2 | 0xc3 => Token::Bool(marker == 0xc3),
            0xc4..=0xc6 => {
                let len = self.len(1 << (marker - 0xc4))?;
                Token::Bytes(self.take(len)?)
            }
            0xc7..=0xc9 => {
                let len = self.len(1 << (marker - 0xc7))?;
                self.extension(len)?
            }
            0xca => Token::Float(f32::from_bits(self.number(4)? as u32).into()),
            0xcb => Token::Float(f64::from_bits(self.number(8)?)),
            0xcc..=0xcf => Token::Unsigned(self.number(1 << (marker - 0xcc))?),
            0xd0 => Token::Signed((self.number(1)? as i8).into()),
            0xd1 => Token::Signed((self.number(2)? as i16).into()),
            0xd2 => Token::Signed((self.number(4)? as i32).into()),
            0xd3 => Token::Signed(self.number(8)? as i64),
            0xd4..=0xd8 => self.extension(1 << (marker - 0xd4))?,
            0xd9..=0xdb => {
                let len = self.len(1 << (marker - 0xd9))?;
                self.text(len)?
            }
            0xdc | 0xdd => Token::Array(self.len(2 << (marker - 0xdc))?),
            0xde | 0xdf => Token::Map(self.len(2 << (marker - 0xde))?),
            0xe0..=0xff => Token::Signed((marker as i8).into()),
        })
    }

    fn array<V: Visitor<'de>>(&mut self, left: usize, visitor: V) -> Result<V::Value, Failure> {
        self.go_down()?;
        let mut items = Items { decoder: self, left };
        let value = visitor.visit_seq(&mut items)?;
        let left = items.left;
        self.come_up(left).map(|()| value)
    }

    fn map<V: Visitor<'de>>(&mut self, left: usize, visitor: V) -> Result<V::Value, Failure> {
        self.go_down()?;
        let mut items = Items { decoder: self, left };
        let value = visitor.visit_map(&mut items)?;
        let left = items.left;
        self.come_up(left).map(|()| value)
    }

    fn go_down(&mut self) -> Result<(), Failure> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Failure(format!("at byte {}: values more than {DEPTH_MAX} deep", self.at)));
        }
        Ok(())
    }

    fn come_up(&mut self, left: usize) -> Result<(), Failure> {
        self.depth -= 1;
        if left > 0 {
            return Err(Failure(format!("at byte {}: {left} more items than expected", self.at)));
        }
        Ok(())
    }
}

/// Methods that ask for one kind of token.
macro_rules! of_one_kind {
    ($($method:ident($($before:ident: $of:ty),*) $pattern:pat => |$self:ident, $visitor:ident| $value:expr;)*) => {
        $(fn $method<V: Visitor<'de>>($self, $($before: $of,)* $visitor: V) -> Result<V::Value, Failure> {
            match $self.token()? {
                $pattern => $value,
                other => Err(other.instead_of(&$visitor)),
            }
        })*
    };
}

/// Methods that ask for a whole number.
macro_rules! of_whole_numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
            match self.token()? {
                Token::Unsigned(value) => visitor.visit_u64(value),
                Token::Signed(value) => visitor.visit_i64(value),
                other => Err(other.instead_of(&visitor)),
            }
        })*
    };
}

impl<'de, const ARRAYS: bool> Deserializer<'de> for &mut Decoder<'de, ARRAYS> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.token()? {
            Token::Nil => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Unsigned(value) => visitor.visit_u64(value),
            Token::Signed(value) => visitor.visit_i64(value),
            Token::Float(value) => visitor.visit_f64(value),
            Token::Text(text) => visitor.visit_borrowed_str(text),
            Token::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Token::Array(left) => self.array(left, visitor),
            Token::Map(left) => self.map(left, visitor),
            Token::Extension(kind, bytes) => visitor.visit_newtype_struct(Extension { kind, bytes }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        if self.bytes.get(self.at) == Some(&0xc0) {
            self.at += 1;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        // The name of a variant alone, or a map of it to what it holds.
        let holds = self.bytes.get(self.at) == Some(&0x81);
        self.at += usize::from(holds);
        visitor.visit_enum(Variant { decoder: self, holds })
    }

    of_one_kind! {
        deserialize_bool() Token::Bool(value) => |self, visitor| visitor.visit_bool(value);
        deserialize_str() Token::Text(text) => |self, visitor| visitor.visit_borrowed_str(text);
        deserialize_string() Token::Text(text) => |self, visitor| visitor.visit_borrowed_str(text);
        deserialize_identifier() Token::Text(text) => |self, visitor| visitor.visit_borrowed_str(text);
        deserialize_bytes() Token::Bytes(bytes) => |self, visitor| visitor.visit_borrowed_bytes(bytes);
        deserialize_byte_buf() Token::Bytes(bytes) => |self, visitor| visitor.visit_borrowed_bytes(bytes);
        deserialize_seq() Token::Array(left) => |self, visitor| self.array(left, visitor);
        deserialize_tuple(_len: usize) Token::Array(left) => |self, visitor| self.array(left, visitor);
        deserialize_map() Token::Map(left) => |self, visitor| self.map(left, visitor);
    }

    of_whole_numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        match self.token()? {
            Token::Unsigned(value) => visitor.visit_u64(value),
            Token::Signed(value) => visitor.visit_i64(value),
            Token::Float(value) => visitor.visit_f64(value),
            other => Err(other.instead_of(&visitor)),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        match self.token()? {
            Token::Map(left) => self.map(left, visitor),
            Token::Array(left) if ARRAYS => self.array(left, visitor),
            other => Err(other.instead_of(&visitor)),
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char unit unit_struct tuple_struct ignored_any
    }
}

/// What is left of an array or a map.
struct Items<'a, 'de, const ARRAYS: bool> {
    decoder: &'a mut Decoder<'de, ARRAYS>,
    left: usize,
}

impl<const ARRAYS: bool> Items<'_, '_, ARRAYS> {
    fn next(&mut self) -> bool {
        let more = self.left > 0;
        self.left -= usize::from(more);
        more
    }
}

impl<'de, const ARRAYS: bool> SeqAccess<'de> for &mut Items<'_, 'de, ARRAYS> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        if self.next() { seed.deserialize(&mut *self.decoder).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        // An item has a byte at least.
        Some(self.left.min(self.decoder.bytes.len() - self.decoder.at))
    }
}

impl<'de, const ARRAYS: bool> MapAccess<'de> for &mut Items<'_, 'de, ARRAYS> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        if self.next() { seed.deserialize(&mut *self.decoder).map(Some) } else { Ok(None) }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        seed.deserialize(&mut *self.decoder)
    }
}

struct Variant<'a, 'de, const ARRAYS: bool> {
    decoder: &'a mut Decoder<'de, ARRAYS>,
    holds: bool,
}

impl<'de, const ARRAYS: bool> EnumAccess<'de> for Variant<'_, 'de, ARRAYS> {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        self.decoder.go_down()?;
        let variant = seed.deserialize(&mut *self.decoder)?;
        self.decoder.come_up(0)?;
        Ok((variant, self))
    }
}

impl<const ARRAYS: bool> Variant<'_, '_, ARRAYS> {
    fn must_hold(&self, holds: bool) -> Result<(), Failure> {
        let (found, expected) =
            if holds { (Unexpected::UnitVariant, "what it holds") } else { (Unexpected::Map, "a name") };
        if self.holds == holds { Ok(()) } else { Err(serde::de::Error::invalid_type(found, &expected)) }
    }
}

impl<'de, const ARRAYS: bool> VariantAccess<'de> for Variant<'_, 'de, ARRAYS> {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        self.must_hold(false)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failure> {
        self.must_hold(true)?;
        self.decoder.go_down()?;
        let value = seed.deserialize(&mut *self.decoder)?;
        self.decoder.come_up(0).map(|()| value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Failure> {
        self.must_hold(true)?;
        self.decoder.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, Failure> {
        self.must_hold(true)?;
        self.decoder.deserialize_struct("", fields, visitor)
    }
}

/// An extension: its kind and its bytes, one after the other.
struct Extension<'de> {
    kind: i8,
    bytes: &'de [u8],
}

impl<'de> Deserializer<'de> for Extension<'de> {
    type Error = Failure;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(ExtensionItems { kind: Some(self.kind), bytes: Some(self.bytes) })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct ExtensionItems<'de> {
    kind: Option<i8>,
    bytes: Option<&'de [u8]>,
}

impl<'de> SeqAccess<'de> for ExtensionItems<'de> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        if let Some(kind) = self.kind.take() {
            return seed.deserialize(kind.into_deserializer()).map(Some);
        }
        let Some(bytes) = self.bytes.take() else { return Ok(None) };
        seed.deserialize(serde::de::value::BorrowedBytesDeserializer::new(bytes)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Empty,
        Held(i64),
        Pair(u8, String),
        Named { a: Option<f64>, b: bool },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Whole {
        numbers: Vec<i64>,
        big: u64,
        texts: BTreeMap<String, Option<String>>,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
        float: f32,
        shapes: Vec<Shape>,
        nothing: (),
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just(Shape::Empty),
            any::<i64>().prop_map(Shape::Held),
            any::<(u8, String)>().prop_map(|(number, text)| Shape::Pair(number, text)),
            (prop::option::of(-1e300..1e300f64), any::<bool>()).prop_map(|(a, b)| Shape::Named { a, b }),
        ]
    }

    prop_compose! {
        fn wholes()(
            numbers in prop::collection::vec(any::<i64>(), 0..20), big in any::<u64>(),
            texts in prop::collection::btree_map(".{0,40}", prop::option::of(".{0,300}"), 0..20),
            bytes in prop::collection::vec(any::<u8>(), 0..400), float in -1e30..1e30f32,
            shapes in prop::collection::vec(shapes(), 0..5),
        ) -> Whole {
            Whole { numbers, big, texts, bytes, float, shapes, nothing: () }
        }
    }

    proptest! {
        #[test]
        fn what_rmp_writes_is_read(whole in wholes()) {
            let (arrays, maps) = (rmp_serde::to_vec(&whole).unwrap(), rmp_serde::to_vec_named(&whole).unwrap());
            prop_assert_eq!(&decode::<Whole>(&maps).unwrap(), &whole);
            for bytes in [arrays, maps] {
                prop_assert_eq!(&Whole::deserialize(&mut Decoder::<true>::new(&bytes)).unwrap(), &whole);
                prop_assert_eq!(&rmp_serde::from_slice::<Whole>(&bytes).unwrap(), &whole);
            }
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(
            whole in wholes(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = rmp_serde::to_vec_named(&whole).unwrap();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = decode::<Whole>(&bytes);
            let _ = Whole::deserialize(&mut Decoder::<true>::new(&bytes));
            let _ = decode::<serde::de::IgnoredAny>(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn hostile_bytes_are_refused() {
        let told = |bytes: &[u8]| decode::<Vec<String>>(bytes).unwrap_err().to_string();
        assert_eq!(told(&[]), "at byte 0: 1 bytes expected, 0 remain");
        assert_eq!(told(&[0x91, 0xdb, 0xff, 0xff, 0xff, 0xff]), "at byte 6: 4294967295 bytes expected, 0 remain");
        assert_eq!(told(&[0xdd, 0xff, 0xff, 0xff, 0xff, 0xa0]), "at byte 6: 1 bytes expected, 0 remain");
        assert_eq!(told(&[0x91, 0xc1]), "at byte 1: 0xc1, which begins no value");
        assert!(told(&[0x91, 0xa1, 0xff]).contains("at byte 2: invalid utf-8"), "{}", told(&[0x91, 0xa1, 0xff]));
        assert!(told(&[0x91, 1]).contains("invalid type: integer `1`, expected a string"));
        #[derive(Debug, Deserialize)]
        struct Named {
            #[expect(dead_code, reason = "only read")]
            a: u8,
        }
        // Where structs are maps only, an array is none.
        let told_of_array = decode::<Named>(&[0x91, 1]).unwrap_err().to_string();
        assert!(told_of_array.contains("invalid type: sequence, expected struct Named"), "{told_of_array}");
        assert_eq!(
            decode::<(u8, u8)>(&[0x93, 1, 2, 3]).unwrap_err().to_string(),
            "at byte 3: 1 more items than expected"
        );
        let deep = [vec![0x91; 200], vec![0xc0]].concat();
        assert!(decode::<serde::de::IgnoredAny>(&deep).unwrap_err().to_string().contains("more than 128 deep"));
    }
}
