//! How the hits of searches are ranked together, and anew.

use std::fmt;

use serde::Deserialize;
use serde_json::Value as Json;

use super::Parameters;
use crate::base::{Error, Result, map_of};
use crate::model::Value;

/// How the hits of several searches become one ranking. A row that several have found has the sum of what each gives it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Json")]
pub enum Rerank {
    /// Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009): the row at place `r` of a search, from 1, gets `1 / (k + r)`.
    Rrf {
        /// The larger, the less the first places count for. Usual: 60.
        k: f64,
    },
    /// A row gets its score times the weight of the search.
    Weighted {
        /// Of each search, in their order.
        weights: Vec<f64>,
        /// Whether scores are first made numbers from 0 to 1, the larger the closer, so that different metrics can be added up:
        /// `(1 + s) / 2` by COSINE, `1 - s` by JACCARD, `0.5 + atan(s) / pi` by IP, and `1 - 2 atan(s) / pi` by L2 and HAMMING. Otherwise scores
        /// count as they are, and negative where the smaller is closer.
        normalize: bool,
    },
}

impl fmt::Display for Rerank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rrf { k } => write!(f, "rrf, k {k}"),
            Self::Weighted { weights, normalize } => {
                write!(f, "weighted {weights:?}{}", if *normalize { "" } else { ", scores as they are" })
            }
        }
    }
}

impl Default for Rerank {
    fn default() -> Self {
        Self::Rrf { k: 60.0 }
    }
}

impl TryFrom<Json> for Rerank {
    type Error = String;

    /// As requests write it: `{ "type": "rrf", "k": 60 }`, or `{ "type": "weighted", "weights": [1, 0.5], "normalize": true }`.
    fn try_from(form: Json) -> std::result::Result<Self, String> {
        match form["type"].as_str() {
            Some("rrf") if has_only(&form, &["type", "k"]) => {
                let k = form.get("k").map_or(Some(60.0), Json::as_f64).unwrap_or(0.0);
                if k > 0.0 { Ok(Self::Rrf { k }) } else { Err("k is a number above 0".to_owned()) }
            }
            Some("weighted") if has_only(&form, &["type", "weights", "normalize"]) => {
                let weights = form["weights"].as_array().and_then(|list| list.iter().map(Json::as_f64).collect());
                let normalize = form.get("normalize").map_or(Some(true), Json::as_bool);
                match (weights, normalize) {
                    (Some(weights), Some(normalize)) => Ok(Self::Weighted { weights, normalize }),
                    _ => Err("weights is a list of numbers, and normalize true or false".to_owned()),
                }
            }
            _ => Err("a rerank is of type rrf, with k, or of type weighted, with weights and normalize".to_owned()),
        }
    }
}

/// Whether a form has none but these entries: what is misspelt must not be ignored.
fn has_only(form: &Json, names: &[&str]) -> bool {
    form.as_object().is_some_and(|entries| entries.keys().all(|name| names.contains(&name.as_str())))
}

/// What changes the scores of rows that were found, before the best are taken.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Json")]
pub enum Ranker {
    /// Scores are multiplied by a number from 0 to 1 that falls with the distance of a value from an origin.
    Decay(Decay),
    /// Scores of rows for which a filter is true are multiplied.
    Boost {
        /// Which rows.
        filter: String,
        /// What `{name}` stands for in it.
        filter_params: Parameters,
        /// By what, at least 0.
        weight: f64,
    },
}

impl fmt::Display for Ranker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decay(decay) => write!(f, "decay of {}", decay.field),
            Self::Boost { filter, weight, .. } => write!(f, "boost {weight} where {filter}"),
        }
    }
}

impl TryFrom<Json> for Ranker {
    type Error = String;

    /// As requests write it: `{ "function": "gauss", "field": "year", "origin": 2024, "scale": 5 }`, or
    /// `{ "boost": 1.5, "filter": "year > 2020" }`.
    fn try_from(form: Json) -> std::result::Result<Self, String> {
        let number = |name: &str| form[name].as_f64();
        let usual = |name: &str, value: f64| form.get(name).map_or(Some(value), Json::as_f64);
        let text = |name: &str| form[name].as_str().map(str::to_owned);
        let found = if has_only(&form, &["boost", "filter", "filterParams"]) {
            let parameters = match &form["filterParams"] {
                Json::Object(entries) => {
                    map_of(entries.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))))
                }
                _ => Parameters::new(),
            };
            let parts = text("filter").zip(number("boost"));
            parts.map(|(filter, weight)| Self::Boost { filter, filter_params: parameters, weight })
        } else if has_only(&form, &["function", "field", "origin", "scale", "offset", "decay"]) {
            let function = form["function"].as_str().map(DecayFunction::parse).transpose();
            let function = function.map_err(|error| error.message().to_owned())?;
            let numbers = number("origin").zip(number("scale")).zip(usual("offset", 0.0).zip(usual("decay", 0.5)));
            let parts = text("field").zip(function).zip(numbers);
            parts.map(|((field, function), ((origin, scale), (offset, decay)))| {
                Self::Decay(Decay { field, function, origin, scale, offset, decay })
            })
        } else {
            None
        };
        found.ok_or_else(|| "a ranker has function, field, origin and scale, or boost and filter".to_owned())
    }
}

/// How a score falls with the distance of a value from an origin. Rows without a number there are as far as can be.
#[derive(Debug, Clone, PartialEq)]
pub struct Decay {
    /// A numeric or timestamp field, or a key of the dynamic field.
    pub field: String,
    /// By which curve.
    pub function: DecayFunction,
    /// Where the number is 1; of timestamps in microseconds since 1970.
    pub origin: f64,
    /// So far behind `offset` the number is `decay`.
    pub scale: f64,
    /// Up to this distance the number stays 1.
    pub offset: f64,
    /// Between 0 and 1.
    pub decay: f64,
}

/// By which curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecayFunction {
    /// A bell: slowly, then fast, then slowly.
    Gauss,
    /// Fast, then slowly.
    Exp,
    /// In a straight line, down to 0.
    Linear,
}

impl DecayFunction {
    /// The function of that name: `gauss`, `exp` or `linear`.
    ///
    /// # Errors
    /// `InvalidArgument` for another name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "gauss" => Ok(Self::Gauss),
            "exp" => Ok(Self::Exp),
            "linear" => Ok(Self::Linear),
            other => Err(Error::invalid(format!("decay function {other:?}; expected gauss, exp or linear"))),
        }
    }
}

impl Decay {
    /// Refuses numbers that make no curve.
    pub fn check(&self) -> Result<()> {
        let finite = [self.origin, self.scale, self.offset, self.decay].iter().all(|number| number.is_finite());
        if finite && self.scale > 0.0 && self.offset >= 0.0 && self.decay > 0.0 && self.decay < 1.0 {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "decay with scale {}, offset {} and decay {}; expected a scale above 0, an offset of at least 0, and a decay between 0 and 1",
            self.scale, self.offset, self.decay
        )))
    }

    /// The curve.
    pub fn curve(&self) -> Curve {
        let slope = match self.function {
            DecayFunction::Gauss => self.decay.ln() / (self.scale * self.scale),
            DecayFunction::Exp => self.decay.ln() / self.scale,
            DecayFunction::Linear => (1.0 - self.decay) / self.scale,
        };
        Curve { function: self.function, origin: self.origin, offset: self.offset, slope }
    }
}

/// The curve of a [`Decay`].
#[derive(Debug, Clone)]
pub struct Curve {
    function: DecayFunction,
    origin: f64,
    offset: f64,
    slope: f64,
}

impl Curve {
    /// What the score of a row with that value is multiplied by.
    pub fn factor(&self, value: Option<&Value>) -> f64 {
        let number = match value {
            Some(Value::Int(int)) => *int as f64,
            Some(Value::Float(float)) => f64::from(*float),
            Some(Value::Double(float)) => *float,
            _ => return 0.0,
        };
        let distance = ((number - self.origin).abs() - self.offset).max(0.0);
        match self.function {
            DecayFunction::Gauss => (self.slope * distance * distance).exp(),
            DecayFunction::Exp => (self.slope * distance).exp(),
            DecayFunction::Linear => (1.0 - self.slope * distance).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_is_one_at_the_origin_and_decay_at_its_scale() {
        for function in ["gauss", "exp", "linear"] {
            let function = DecayFunction::parse(function).unwrap();
            let decay = Decay { field: "f".to_owned(), function, origin: 10.0, scale: 4.0, offset: 1.0, decay: 0.3 };
            decay.check().unwrap();
            let curve = decay.curve();
            let factor = |value: f64| curve.factor(Some(&Value::Double(value)));
            assert_eq!((factor(10.0), factor(11.0), factor(9.5)), (1.0, 1.0, 1.0));
            for at in [15.0, 5.0] {
                assert!((factor(at) - 0.3).abs() < 1e-9, "{function:?}: {}", factor(at));
            }
            let mut last = 1.0;
            for step in 1..60 {
                let next = factor(11.0 + f64::from(step) * 0.5);
                assert!((0.0..=last).contains(&next), "{function:?} at {step}");
                last = next;
            }
            assert!(last < 0.01);
            assert_eq!((curve.factor(None), curve.factor(Some(&Value::String("x".into())))), (0.0, 0.0));
            for wrong in [
                Decay { scale: 0.0, ..decay.clone() },
                Decay { decay: 1.0, ..decay.clone() },
                Decay { offset: -1.0, ..decay.clone() },
                Decay { origin: f64::NAN, ..decay.clone() },
            ] {
                assert!(wrong.check().is_err());
            }
        }
        assert!(DecayFunction::parse("step").is_err());
    }
}
