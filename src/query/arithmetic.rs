use super::expression::Arithmetic;
use super::number::Number;

impl Arithmetic {
    /// Of two integers. `None` when the result does not fit, on division by zero, and for shifts outside of 0 to 63.
    #[inline]
    pub(super) fn ints(self, left: i64, right: i64) -> Option<i64> {
        match self {
            Self::Add => left.checked_add(right),
            Self::Sub => left.checked_sub(right),
            Self::Mul => left.checked_mul(right),
            Self::Div => left.checked_div(right),
            // The remainder by -1 is 0 even where the quotient overflows.
            Self::Rem => (right != 0).then(|| left.wrapping_rem(right)),
            Self::Pow => left.checked_pow(u32::try_from(right).ok()?),
            Self::And => Some(left & right),
            Self::Or => Some(left | right),
            Self::Xor => Some(left ^ right),
            Self::Shl => {
                let bits = u32::try_from(right).ok()?;
                let shifted = left.checked_shl(bits)?;
                (shifted >> bits == left).then_some(shifted)
            }
            Self::Shr => left.checked_shr(u32::try_from(right).ok()?),
        }
    }

    /// Of two doubles. `None` when the result is not finite, on division by zero, and where only integers will do.
    #[inline]
    pub(super) fn floats(self, left: f64, right: f64) -> Option<f64> {
        let result = match self {
            Self::Add => left + right,
            Self::Sub => left - right,
            Self::Mul => left * right,
            Self::Div => left / right,
            Self::Pow => left.powf(right),
            Self::Rem | Self::And | Self::Or | Self::Xor | Self::Shl | Self::Shr => return None,
        };
        result.is_finite().then_some(result)
    }

    /// Of two numbers of either type: integers stay integers, all else becomes a double.
    pub(super) fn numbers(self, left: Number, right: Number) -> Option<Number> {
        match (left, right) {
            (Number::Int(left), Number::Int(right)) if self != Self::Pow || right >= 0 => {
                self.ints(left, right).map(Number::Int)
            }
            (left, right) => self.floats(left.as_f64(), right.as_f64()).map(Number::Float),
        }
    }
}
