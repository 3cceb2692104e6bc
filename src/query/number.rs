use std::cmp::Ordering;

/// A number whose type is known only with the row: of JSON, or of arithmetic over it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    /// Above `i64::MAX`; JSON may hold such ones.
    Big(u64),
    Float(f64),
}

impl Number {
    /// The order of two numbers by their exact values; `None` when one is not a number (NaN).
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(left), Self::Int(right)) => Some(left.cmp(&right)),
            (Self::Float(left), Self::Float(right)) => left.partial_cmp(&right),
            (Self::Float(left), right) => compare_exact(right.whole(), left).map(Ordering::reverse),
            (left, Self::Float(right)) => compare_exact(left.whole(), right),
            (left, right) => Some(left.whole().cmp(&right.whole())),
        }
    }

    /// The nearest double.
    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Big(int) => int as f64,
            Self::Float(float) => float,
        }
    }

    /// The number of a JSON value. `None` when `json` is none.
    pub(super) fn of_json(json: &serde_json::Number) -> Self {
        if let Some(int) = json.as_i64() {
            Self::Int(int)
        } else if let Some(int) = json.as_u64() {
            Self::Big(int)
        } else {
            Self::Float(json.as_f64().unwrap_or(f64::NAN))
        }
    }

    /// The same number as an `i64` when it is one, whatever its type.
    pub(super) fn as_int(self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(int),
            Self::Big(_) => None,
            Self::Float(float) => float_as_int(float),
        }
    }

    /// Not to be asked of a float.
    fn whole(self) -> i128 {
        match self {
            Self::Int(int) => i128::from(int),
            Self::Big(int) => i128::from(int),
            Self::Float(float) => float as i128,
        }
    }
}

/// The order of an integer and a double by their exact values, which a conversion to double would round.
pub(super) fn compare_exact(int: i128, float: f64) -> Option<Ordering> {
    const LIMIT: f64 = 1.701_411_834_604_692_3e38; // 2^127
    if float.is_nan() {
        None
    } else if float >= LIMIT {
        Some(Ordering::Less)
    } else if float < -LIMIT {
        Some(Ordering::Greater)
    } else {
        let whole = float.trunc();
        // What is cut off decides only between equal whole parts.
        Some(int.cmp(&(whole as i128)).then_with(|| whole.partial_cmp(&float).unwrap_or(Ordering::Equal)))
    }
}

/// `float` as an integer, when it is one and fits.
pub(super) fn float_as_int(float: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0; // 2^63
    (float.trunc() == float && (-LIMIT..LIMIT).contains(&float)).then_some(float as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_of_large_numbers_differ() {
        let float = 9_007_199_254_740_992.0; // 2^53, where doubles begin to skip integers
        let compare = |int: i64| compare_exact(i128::from(int), float);
        assert_eq!(compare(9_007_199_254_740_991), Some(Ordering::Less));
        assert_eq!(compare(9_007_199_254_740_992), Some(Ordering::Equal));
        assert_eq!(compare(9_007_199_254_740_993), Some(Ordering::Greater));
        assert_eq!(compare_exact(i128::from(i64::MAX), 9_223_372_036_854_775_808.0), Some(Ordering::Less));
        assert_eq!(compare_exact(-3, -2.5), Some(Ordering::Less));
        assert_eq!(compare_exact(-2, -2.5), Some(Ordering::Greater));
        assert_eq!(compare_exact(0, f64::NAN), None);
        assert_eq!(compare_exact(0, f64::INFINITY), Some(Ordering::Less));
        assert_eq!(compare_exact(0, f64::NEG_INFINITY), Some(Ordering::Greater));
        assert_eq!(Number::Big(u64::MAX).compare(Number::Int(-1)), Some(Ordering::Greater));
        assert_eq!(Number::Float(1.8446744073709552e19).compare(Number::Big(u64::MAX)), Some(Ordering::Greater));
    }

    #[test]
    fn only_whole_doubles_are_integers() {
        assert_eq!(float_as_int(-0.0), Some(0));
        assert_eq!(float_as_int(2.5), None);
        assert_eq!(float_as_int(f64::NAN), None);
        assert_eq!(float_as_int(-9_223_372_036_854_775_808.0), Some(i64::MIN));
        assert_eq!(float_as_int(9_223_372_036_854_775_808.0), None);
    }

    proptest! {
        #[test]
        fn agrees_with_doubles_where_they_are_exact(int in -(1i64 << 52)..1 << 52, float in -1e16f64..1e16) {
            prop_assert_eq!(compare_exact(i128::from(int), float), (int as f64).partial_cmp(&float));
        }
    }
}
