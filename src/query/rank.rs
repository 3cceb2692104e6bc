//! How the hits of searches are ranked together, and anew.

use serde::Deserialize;

use super::Parameters;
use crate::base::{Error, Result};
use crate::model::Value;

/// How the hits of several searches become one ranking. A row that several have found has the sum of what each gives it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RerankForm")]
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

impl Default for Rerank {
    fn default() -> Self {
        Self::Rrf { k: 60.0 }
    }
}

/// As requests write it: `{ "type": "rrf", "k": 60 }`, or `{ "type": "weighted", "weights": [1, 0.5], "normalize": true }`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RerankForm {
    r#type: String,
    k: Option<f64>,
    weights: Option<Vec<f64>>,
    normalize: Option<bool>,
}

impl TryFrom<RerankForm> for Rerank {
    type Error = String;

    fn try_from(form: RerankForm) -> std::result::Result<Self, String> {
        match (form.r#type.as_str(), form.weights) {
            ("rrf", None) if form.normalize.is_none() => {
                let k = form.k.unwrap_or(60.0);
                if k > 0.0 { Ok(Self::Rrf { k }) } else { Err(format!("k {k}; expected a number above 0")) }
            }
            ("weighted", Some(weights)) if form.k.is_none() => {
                Ok(Self::Weighted { weights, normalize: form.normalize.unwrap_or(true) })
            }
            _ => Err("a rerank is of type rrf, with k, or of type weighted, with weights and normalize".to_owned()),
        }
    }
}

/// What changes the scores of rows that were found, before the best are taken.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "RankerForm")]
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

/// As requests write it: `{ "function": "gauss", "field": "year", "origin": 2024, "scale": 5 }`, or
/// `{ "boost": 1.5, "filter": "year > 2020" }`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RankerForm {
    function: Option<String>,
    field: Option<String>,
    origin: Option<f64>,
    scale: Option<f64>,
    offset: Option<f64>,
    decay: Option<f64>,
    boost: Option<f64>,
    filter: Option<String>,
    #[serde(default)]
    filter_params: Parameters,
}

impl TryFrom<RankerForm> for Ranker {
    type Error = String;

    fn try_from(form: RankerForm) -> std::result::Result<Self, String> {
        match (form.function, form.field, form.origin, form.scale, form.boost, form.filter) {
            (Some(function), Some(field), Some(origin), Some(scale), None, None) => Ok(Self::Decay(Decay {
                field,
                function: DecayFunction::parse(&function).map_err(|error| error.message().to_owned())?,
                origin,
                scale,
                offset: form.offset.unwrap_or(0.0),
                decay: form.decay.unwrap_or(0.5),
            })),
            (None, None, None, None, Some(weight), Some(filter)) => {
                Ok(Self::Boost { filter, filter_params: form.filter_params, weight })
            }
            _ => Err("a ranker has function, field, origin and scale, or boost and filter".to_owned()),
        }
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
