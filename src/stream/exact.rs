use super::state::{Reader, Writer};
use crate::base::Result;

/// A sum of doubles without any error: parts that do not overlap, the smallest first. So it is the same in whatever order they come, and
/// what was added can be taken out again.
///
/// Source: Shewchuk, "Adaptive Precision Floating-Point Arithmetic and Fast Robust Geometric Predicates" (1997), section 2.4.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Exact {
    parts: Vec<f64>,
}

fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let virtual_b = sum - a;
    (sum, (a - (sum - virtual_b)) + (b - virtual_b))
}

/// Dekker's product: what rounding took away too. Without fused operations, which not every target has.
fn two_product(a: f64, b: f64) -> (f64, f64) {
    const SPLITTER: f64 = 134_217_729.0; // 2^27 + 1
    let split = |value: f64| {
        let scaled = SPLITTER * value;
        let high = scaled - (scaled - value);
        (high, value - high)
    };
    let product = a * b;
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    (product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)
}

impl Exact {
    pub fn add(&mut self, value: f64) {
        let mut carry = value;
        let mut kept = 0;
        for at in 0..self.parts.len() {
            let (sum, error) = two_sum(carry, self.parts[at]);
            if error != 0.0 {
                self.parts[kept] = error;
                kept += 1;
            }
            carry = sum;
        }
        self.parts.truncate(kept);
        if carry != 0.0 {
            self.parts.push(carry);
        }
    }

    pub fn add_product(&mut self, a: f64, b: f64) {
        let (product, error) = two_product(a, b);
        self.add(product);
        self.add(error);
    }

    pub fn merge(&mut self, other: &Self) {
        other.parts.iter().for_each(|part| self.add(*part));
    }

    /// The nearest double (of two, the even one); not finite where a part has overflown.
    pub fn value(&self) -> f64 {
        let mut parts = self.parts.iter().rev();
        let Some(&first) = parts.next() else { return 0.0 };
        let (mut sum, mut error) = (first, 0.0);
        for &part in parts.by_ref() {
            (sum, error) = two_sum(sum, part);
            if error != 0.0 {
                break;
            }
        }
        // Halfway between two doubles, what is below decides.
        if let Some(&below) = parts.next()
            && (error < 0.0) == (below < 0.0)
            && error != 0.0
        {
            let doubled = error * 2.0;
            let rounded = sum + doubled;
            if doubled == rounded - sum {
                return rounded;
            }
        }
        sum
    }

    /// `count` times `squares` minus the square of this, exactly until it is rounded: what variances are made of.
    pub fn deviation(&self, squares: &Self, count: f64) -> f64 {
        let mut sum = Self::default();
        squares.parts.iter().for_each(|part| sum.add_product(count, *part));
        for left in &self.parts {
            self.parts.iter().for_each(|right| sum.add_product(-left, *right));
        }
        sum.value()
    }

    pub fn save(&self, out: &mut Writer) {
        out.len(self.parts.len());
        self.parts.iter().for_each(|part| out.f64(*part));
    }

    pub fn load(reader: &mut Reader<'_>) -> Result<Self> {
        let count = reader.count(8)?;
        Ok(Self { parts: (0..count).map(|_| reader.f64()).collect::<Result<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_lost_between_large_numbers() {
        let mut sum = Exact::default();
        [1e100, 1.0, -1e100].iter().for_each(|value| sum.add(*value));
        assert_eq!(sum.value(), 1.0);
        let mut tenths = Exact::default();
        (0..10).for_each(|_| tenths.add(0.1));
        assert_eq!(tenths.value(), 1.0);
        // 2^53 is even, so half a step up from it rounds down, and any more rounds up.
        let mut half = Exact::default();
        [9_007_199_254_740_992.0, 1.0].iter().for_each(|value| half.add(*value));
        assert_eq!(half.value(), 9_007_199_254_740_992.0);
        half.add(1e-30);
        assert_eq!(half.value(), 9_007_199_254_740_994.0);
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter(values in prop::collection::vec(-1e12f64..1e12, 0..40), seed in any::<u64>()) {
            let mut shuffled = values.clone();
            let mut random = crate::base::Random::new(seed);
            for at in (1..shuffled.len()).rev() {
                shuffled.swap(at, random.below(at as u64 + 1) as usize);
            }
            let sum = |values: &[f64]| {
                let mut sum = Exact::default();
                values.iter().for_each(|value| sum.add(*value));
                sum
            };
            let (one, other) = (sum(&values), sum(&shuffled));
            prop_assert_eq!(one.value().to_bits(), other.value().to_bits());
            let mut out = one;
            values.iter().for_each(|value| out.add(-value));
            prop_assert_eq!(out.value(), 0.0);
        }
    }
}
