use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;

use super::expression::Step;
use super::number::Number;

/// What stands at one place of one row's JSON.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Leaf<'a> {
    /// Nothing: the key, the index or the whole value is not there.
    #[default]
    Missing,
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    /// An array or an object that nothing looks into.
    Opaque,
    /// An array or an object that something looks into.
    Whole(Box<Json>),
}

impl Leaf<'_> {
    /// Whether a value is there that is not null.
    pub(super) const fn is_value(&self) -> bool {
        !matches!(self, Self::Missing | Self::Null)
    }
}

/// The places that a filter reads in one JSON column, as the tree of their steps: one walk over a text finds them all and
/// builds nothing else.
#[derive(Debug, Clone, Default)]
pub(super) struct Trie {
    /// The number of the place that ends here, and whether what is inside of an array matters.
    leaf: Option<(usize, bool)>,
    keys: Vec<(String, Self)>,
    indexes: Vec<(u64, Self)>,
    /// The number of the place that asks for the length.
    length: Option<usize>,
}

impl Trie {
    /// Adds the place at `steps` as number `slot`.
    pub(super) fn insert(&mut self, steps: &[Step], slot: usize, deep: bool) {
        let Some((step, rest)) = steps.split_first() else {
            self.leaf = Some((slot, deep));
            return;
        };
        let child = match step {
            Step::Key(key) => child(&mut self.keys, key),
            Step::Index(index) => child(&mut self.indexes, index),
            Step::Length => {
                self.length = Some(slot);
                return;
            }
        };
        child.insert(rest, slot, deep);
    }

    /// Puts what stands at each place of `text` into `row`, by slot. What is no JSON has nothing anywhere.
    pub(super) fn extract<'a>(&self, text: &'a str, row: &mut [Leaf<'a>]) {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let extract = Extract { trie: self, row: &mut *row };
        if extract.deserialize(&mut deserializer).and_then(|()| deserializer.end()).is_err() {
            self.clear(row);
        }
    }

    /// Whether a value must be built here to tell what is asked of it.
    fn needs_value(&self) -> bool {
        self.length.is_some() || self.leaf.is_some_and(|(_, deep)| deep)
    }

    /// Nothing stands here or below.
    fn clear(&self, row: &mut [Leaf<'_>]) {
        if let Some(slot) = self.length {
            row[slot] = Leaf::Missing;
        }
        if let Some((slot, _)) = self.leaf {
            row[slot] = Leaf::Missing;
        }
        self.keys.iter().for_each(|(_, child)| child.clear(row));
        self.indexes.iter().for_each(|(_, child)| child.clear(row));
    }

    fn put<'a>(&self, row: &mut [Leaf<'a>], leaf: Leaf<'a>) {
        if let Some((slot, _)) = self.leaf {
            row[slot] = leaf;
        }
    }

    /// The same as a walk over text, over a value that was built.
    pub(super) fn extract_value(&self, value: &Json, row: &mut [Leaf<'_>]) {
        if let (Some(slot), Some(array)) = (self.length, value.as_array()) {
            row[slot] = Leaf::Number(Number::Int(array.len() as i64));
        }
        self.put(
            row,
            match value {
                Json::Null => Leaf::Null,
                Json::Bool(value) => Leaf::Bool(*value),
                Json::Number(number) => Leaf::Number(Number::of_json(number)),
                Json::String(text) => Leaf::Text(Cow::Owned(text.clone())),
                Json::Array(_) | Json::Object(_) if self.leaf.is_some_and(|(_, deep)| deep) => {
                    Leaf::Whole(Box::new(value.clone()))
                }
                Json::Array(_) | Json::Object(_) => Leaf::Opaque,
            },
        );
        for (key, child) in &self.keys {
            if let Some(value) = value.as_object().and_then(|object| object.get(key)) {
                child.extract_value(value, row);
            }
        }
        for (index, child) in &self.indexes {
            let index = usize::try_from(*index).unwrap_or(usize::MAX);
            if let Some(value) = value.as_array().and_then(|array| array.get(index)) {
                child.extract_value(value, row);
            }
        }
    }
}

fn child<'t, K: Clone + PartialEq>(children: &'t mut Vec<(K, Trie)>, wanted: &K) -> &'t mut Trie {
    let index = children.iter().position(|(key, _)| key == wanted).unwrap_or_else(|| {
        children.push((wanted.clone(), Trie::default()));
        children.len() - 1
    });
    &mut children[index].1
}

/// Walks one value.
struct Extract<'t, 'r, 'a> {
    trie: &'t Trie,
    row: &'r mut [Leaf<'a>],
}

impl<'a> DeserializeSeed<'a> for Extract<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        // A key that comes twice counts as it comes last.
        self.trie.clear(self.row);
        if self.trie.needs_value() {
            let value = <Json as serde::Deserialize>::deserialize(deserializer)?;
            self.trie.extract_value(&value, self.row);
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Extract<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.trie.put(self.row, Leaf::Null);
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.trie.put(self.row, Leaf::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, int: i64) -> Result<(), E> {
        self.trie.put(self.row, Leaf::Number(Number::Int(int)));
        Ok(())
    }

    fn visit_u64<E>(self, int: u64) -> Result<(), E> {
        let number = i64::try_from(int).map_or(Number::Big(int), Number::Int);
        self.trie.put(self.row, Leaf::Number(number));
        Ok(())
    }

    fn visit_f64<E>(self, float: f64) -> Result<(), E> {
        self.trie.put(self.row, Leaf::Number(Number::Float(float)));
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'a str) -> Result<(), E> {
        self.trie.put(self.row, Leaf::Text(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.trie.put(self.row, Leaf::Text(Cow::Owned(text.to_string())));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut array: A) -> Result<(), A::Error> {
        self.trie.put(self.row, Leaf::Opaque);
        let mut at = 0;
        loop {
            let wanted = self.trie.indexes.iter().find(|(index, _)| *index == at);
            let more = match wanted {
                Some((_, trie)) => array.next_element_seed(Extract { trie, row: &mut *self.row })?.is_some(),
                None => array.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            at += 1;
        }
    }

    fn visit_map<A: MapAccess<'a>>(self, mut object: A) -> Result<(), A::Error> {
        self.trie.put(self.row, Leaf::Opaque);
        while let Some(wanted) = object.next_key_seed(KeyOf(self.trie))? {
            match wanted {
                Some(trie) => object.next_value_seed(Extract { trie, row: &mut *self.row })?,
                None => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a key: the part of the tree below it, when anything there is wanted.
struct KeyOf<'t>(&'t Trie);

impl<'a, 't> DeserializeSeed<'a> for KeyOf<'t> {
    type Value = Option<&'t Trie>;

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'_> for KeyOf<'t> {
    type Value = Option<&'t Trie>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, found: &str) -> Result<Self::Value, E> {
        Ok(self.0.keys.iter().find(|(key, _)| key == found).map(|(_, trie)| trie))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(key: &str) -> Step {
        Step::Key(key.into())
    }

    fn extract<'a>(places: &[(&[Step], bool)], text: &'a str) -> Vec<Leaf<'a>> {
        let mut trie = Trie::default();
        for (slot, (steps, deep)) in places.iter().enumerate() {
            trie.insert(steps, slot, *deep);
        }
        let mut row = vec![Leaf::Null; places.len()];
        trie.extract(text, &mut row);
        row
    }

    #[test]
    fn finds_every_place_in_one_walk() {
        let text = r#"{"a": {"b": [1, {"c": "d"}], "x": null}, "e": true, "f": 18446744073709551615, "g": -1.5}"#;
        let places: &[(&[Step], bool)] = &[
            (&[], false),
            (&[key("a")], false),
            (&[key("a"), key("b")], true),
            (&[key("a"), key("b"), Step::Index(0)], false),
            (&[key("a"), key("b"), Step::Index(1), key("c")], false),
            (&[key("a"), key("b"), Step::Index(2)], false),
            (&[key("a"), key("x")], false),
            (&[key("a"), key("x"), key("y")], false),
            (&[key("e")], false),
            (&[key("f")], false),
            (&[key("g")], false),
            (&[key("a"), Step::Index(0)], false),
        ];
        assert_eq!(
            extract(places, text),
            [
                Leaf::Opaque,
                Leaf::Opaque,
                Leaf::Whole(Box::new(json!([1, {"c": "d"}]))),
                Leaf::Number(Number::Int(1)),
                Leaf::Text("d".into()),
                Leaf::Missing,
                Leaf::Null,
                Leaf::Missing,
                Leaf::Bool(true),
                Leaf::Number(Number::Big(u64::MAX)),
                Leaf::Number(Number::Float(-1.5)),
                Leaf::Missing,
            ]
        );
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        let places: &[(&[Step], bool)] = &[(&[key("a")], false), (&[key("a"), key("b")], false)];
        assert_eq!(extract(places, r#"{"a": {"b": 1}, "a": 2}"#), [Leaf::Number(Number::Int(2)), Leaf::Missing]);
    }

    #[test]
    fn broken_text_has_nothing_anywhere() {
        let places: &[(&[Step], bool)] = &[(&[], false), (&[key("a")], false)];
        for text in ["", "{\"a\": 1", "{\"a\": 1} 2", "nul", "\u{0}"] {
            assert_eq!(extract(places, text), [Leaf::Missing, Leaf::Missing], "{text:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(extract(places, &deep), [Leaf::Missing, Leaf::Missing]);
    }
}
