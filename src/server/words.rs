use std::collections::HashMap;

use crate::base::{Error, Result};
use crate::db::Collection;
use crate::model::{Key, Value};

/// Rarer words than this count no more than it.
const RANK_MAX: i64 = 7_000;

/// A text as a vector, without any model.
pub(super) struct TextVector {
    /// Of unit length.
    pub(super) vector: Vec<f32>,
    /// Words of the text that the collection does not have.
    pub(super) unknown: Vec<String>,
}

/// The mean of the vectors of the words of `text`, each weighted by the logarithm of its rank, so that rare words say more
/// than frequent ones; normalised. The collection holds a row a word: the word as the key, its `rank` in order of
/// frequency, and its vector.
///
/// # Errors
/// `InvalidArgument` when the collection is of another kind or knows no word of `text`.
pub(super) async fn text_vector(collection: &Collection, text: &str) -> Result<TextVector> {
    let words = collection.name();
    let schema = &collection.spec().schema;
    let not_words = || {
        Error::invalid(format!(
            "collection {words:?} holds no words: it needs a varchar primary key, an int64 field \"rank\" and one vector field"
        ))
    };
    let (field, dim) = schema.vectors().next().ok_or_else(not_words)?;
    let tokens: Vec<String> = tokens(text).collect();
    let keys: Vec<Key> = tokens.iter().map(|token| Key::from(token.as_str())).collect();
    let fields = [schema.primary_key().name.clone(), "rank".to_owned(), field.name.clone()];
    let rows = collection.get(&keys, Some(&fields)).await?;
    let mut known: HashMap<&str, (&[f32], i64)> = HashMap::new();
    for row in &rows {
        match (row.get(&fields[0]), row.get(&fields[1]), row.get(&fields[2])) {
            (Some(Value::String(word)), Some(Value::Int(rank)), Some(Value::Vector(vector))) => {
                known.insert(word, (vector, *rank));
            }
            _ => return Err(not_words()),
        }
    }
    let (mut sum, mut unknown) = (vec![0.0; dim], Vec::new());
    for token in &tokens {
        match known.get(token.as_str()) {
            Some((vector, rank)) => {
                let weight = (2.0 + (*rank).clamp(0, RANK_MAX) as f32).ln();
                sum.iter_mut().zip(*vector).for_each(|(sum, value)| *sum += weight * value);
            }
            None => unknown.push(token.clone()),
        }
    }
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length == 0.0 {
        return Err(Error::invalid(format!("collection {words:?} knows no word of {text:?}")));
    }
    sum.iter_mut().for_each(|value| *value /= length);
    Ok(TextVector { vector: sum, unknown })
}

/// The words of a text in lower case.
fn tokens(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split(|c: char| !c.is_alphanumeric() && c != '\'')
        .map(|word| word.trim_matches('\'').to_lowercase())
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_at_what_is_no_letter() {
        assert_eq!(
            tokens("Rain, and 'storm'-clouds: it's 2").collect::<Vec<_>>(),
            ["rain", "and", "storm", "clouds", "it's", "2"]
        );
        assert_eq!(tokens("…").count(), 0);
    }
}
