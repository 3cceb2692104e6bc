use std::fmt;

use serde_json::Value as Json;

use crate::base::{Error, Result};

/// A step into a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// To the value of a key of an object.
    Key(String),
    /// To a value of an array, from 0.
    Index(u64),
    /// How many values an array has; the last step.
    Length,
}

/// A field, or a place in the JSON that it holds: `meta["size"]["cm"]`, `meta["tags"][0]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPath {
    /// The field; [`META_COLUMN`](super::META_COLUMN) for a key of the dynamic field.
    pub column: String,
    /// The way from there.
    pub steps: Vec<Step>,
}

impl FieldPath {
    /// The path that `text` says, with `"` or `'` around keys, and `\` before these and itself in them.
    ///
    /// # Errors
    /// `InvalidArgument` for what is none.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{text:?} is no path; expected a field, or one like meta[\"key\"][0]"));
        let (column, mut rest) = text.split_at(text.find('[').unwrap_or(text.len()));
        let mut steps = Vec::new();
        while let Some(inside) = rest.strip_prefix('[') {
            let (step, end) = match inside.chars().next() {
                Some(quote @ ('"' | '\'')) => {
                    let (mut key, mut chars) = (String::new(), inside.char_indices().skip(1));
                    let end = loop {
                        match chars.next().ok_or_else(wrong)? {
                            (at, c) if c == quote => break at + 1,
                            (_, '\\') => {
                                key.push(chars.next().filter(|(_, c)| "\\\"'".contains(*c)).ok_or_else(wrong)?.1)
                            }
                            (_, c) => key.push(c),
                        }
                    };
                    (Step::Key(key), end)
                }
                _ => {
                    let end = inside.find(']').ok_or_else(wrong)?;
                    (Step::Index(inside[..end].parse().map_err(|_| wrong())?), end)
                }
            };
            steps.push(step);
            rest = inside[end..].strip_prefix(']').ok_or_else(wrong)?;
        }
        if column.is_empty() || !rest.is_empty() {
            return Err(wrong());
        }
        Ok(Self { column: column.to_owned(), steps })
    }
}

impl fmt::Display for FieldPath {
    /// As [`Self::parse`] takes it, the same for the same path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.column)?;
        for step in &self.steps {
            match step {
                Step::Key(key) => write!(f, "[\"{}\"]", key.replace('\\', "\\\\").replace('"', "\\\""))?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Length => {}
            }
        }
        Ok(())
    }
}

/// What stands there in `json`.
pub(crate) fn value_at<'j>(json: &'j Json, steps: &[Step]) -> Option<&'j Json> {
    steps.iter().try_fold(json, |json, step| match step {
        Step::Key(key) => json.as_object()?.get(key),
        Step::Index(index) => json.as_array()?.get(usize::try_from(*index).ok()?),
        Step::Length => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_they_are_written() {
        let key = |key: &str| Step::Key(key.to_owned());
        for (text, column, steps, written) in [
            ("n", "n", vec![], "n"),
            ("meta['a'][\"b c\"][12]", "meta", vec![key("a"), key("b c"), Step::Index(12)], "meta[\"a\"][\"b c\"][12]"),
            (r#"$meta["it's \"]\" \\"]"#, "$meta", vec![key(r#"it's "]" \"#)], r#"$meta["it's \"]\" \\"]"#),
        ] {
            let path = FieldPath::parse(text).unwrap();
            assert_eq!((path.column.as_str(), &path.steps), (column, &steps));
            assert_eq!(path.to_string(), written);
            assert_eq!(FieldPath::parse(written).unwrap(), path);
        }
        for wrong in [
            "",
            "[0]",
            "a[",
            "a[]",
            "a[-1]",
            "a['b]",
            "a['b'",
            "a['b']c",
            "a[\"\\n\"]",
            "a['b'x]",
            "a[99999999999999999999]",
        ] {
            assert!(FieldPath::parse(wrong).is_err(), "{wrong}");
        }
        let json = serde_json::json!({"a": {"b c": [1, 2]}});
        let path = FieldPath::parse("meta['a']['b c'][1]").unwrap();
        assert_eq!(value_at(&json, &path.steps), Some(&serde_json::json!(2)));
        assert_eq!(value_at(&json, &[Step::Index(0)]), None);
    }
}
