//! What a filter can come to, from statistics alone.

use std::cmp::Ordering;

use super::expression::{Comparison, Literal, Operand, Predicate};
use super::number::Number;
use crate::segment::{Known, Range, Statistics};

/// Which of true, false and unknown a condition may be for the rows of a block: one bit each, set unless it is proven that no row has it.
type Outcomes = u8;

const TRUE: Outcomes = 1;
const FALSE: Outcomes = 2;
const UNKNOWN: Outcomes = 4;
const ANY: Outcomes = TRUE | FALSE | UNKNOWN;

/// Whether `predicate` may be true for a row of the block.
pub(super) fn may_admit(predicate: &Predicate, known: Known<'_>) -> bool {
    outcomes(predicate, known) & TRUE != 0
}

fn outcomes(predicate: &Predicate, known: Known<'_>) -> Outcomes {
    match predicate {
        Predicate::Constant(value) => of(*value),
        Predicate::Truth(operand) => with_nulls(operand, known, |_| TRUE | FALSE),
        Predicate::Not(inner) => swapped(outcomes(inner, known)),
        // All terms count, even behind one that is never true: they tell false from unknown, which `not` keeps apart.
        Predicate::And(terms) => terms.iter().fold(TRUE, |so_far, term| both(so_far, outcomes(term, known))),
        // Neither is true unless one of them is not false.
        Predicate::Or(terms) => {
            swapped(terms.iter().fold(TRUE, |so_far, term| both(so_far, swapped(outcomes(term, known)))))
        }
        Predicate::Compare { comparison, left, right } => match (left, right) {
            (operand, Operand::Literal(literal)) => compare(*comparison, operand, literal, known),
            (Operand::Literal(literal), operand) => compare(comparison.flipped(), operand, literal, known),
            _ => ANY,
        },
        Predicate::In { operand, set } => with_nulls(operand, known, |range| {
            let some = match range {
                Range::Int(least, most) => set.has_number_in(Number::Int(*least), Number::Int(*most)),
                Range::Double(least, most) => set.has_number_in(Number::Float(*least), Number::Float(*most)),
                Range::Text(least, most) => set.texts().iter().any(|text| text_orders(least, most, text).1),
                Range::None => true,
            };
            FALSE | if some { TRUE } else { 0 }
        }),
        Predicate::Like { operand, shape } => with_nulls(operand, known, |range| {
            let Range::Text(least, most) = range else { return TRUE | FALSE };
            let prefix = shape.prefix().as_bytes();
            let order = |bound: &[u8]| {
                let len = prefix.len().min(bound.len());
                prefix[..len].cmp(&bound[..len])
            };
            let all_less = order(most).is_gt() || (order(most).is_eq() && is_whole(most) && most.len() < prefix.len());
            FALSE | if all_less || order(least).is_lt() { 0 } else { TRUE }
        }),
        Predicate::IsNull(Operand::Column(column)) => match known(&column.name) {
            Some((rows, statistics)) => {
                (if statistics.nulls > 0 { TRUE } else { 0 }) | if statistics.nulls < rows { FALSE } else { 0 }
            }
            None => TRUE | FALSE,
        },
        Predicate::IsNull(_)
        | Predicate::Exists(_)
        | Predicate::Contains { .. }
        | Predicate::Sample { .. }
        | Predicate::Same(..) => ANY,
    }
}

const fn of(value: bool) -> Outcomes {
    if value { TRUE } else { FALSE }
}

const fn swapped(outcomes: Outcomes) -> Outcomes {
    (outcomes & TRUE) << 1 | (outcomes & FALSE) >> 1 | (outcomes & UNKNOWN)
}

/// What the conjunction of two conditions may be: false where either is, true where both are.
fn both(left: Outcomes, right: Outcomes) -> Outcomes {
    let unknown = (left & UNKNOWN != 0 && right & (TRUE | UNKNOWN) != 0)
        || (right & UNKNOWN != 0 && left & (TRUE | UNKNOWN) != 0);
    (left & right & TRUE) | ((left | right) & FALSE) | if unknown { UNKNOWN } else { 0 }
}

/// What a condition on the values of a column may be, which is unknown for nulls; anything for what is no column.
fn with_nulls(operand: &Operand, known: Known<'_>, values: impl FnOnce(&Range) -> Outcomes) -> Outcomes {
    let Operand::Column(column) = operand else { return ANY };
    let Some((rows, statistics)) = known(&column.name) else { return ANY };
    let nulls = if statistics.nulls > 0 { UNKNOWN } else { 0 };
    if statistics.nulls >= rows { nulls } else { nulls | values(&statistics.range) }
}

fn compare(comparison: Comparison, operand: &Operand, literal: &Literal, known: Known<'_>) -> Outcomes {
    with_nulls(operand, known, |range| {
        let (less, equal, greater) = match (range, literal) {
            (Range::Int(least, most), Literal::Int(int)) => {
                number_orders(Number::Int(*least), Number::Int(*most), Number::Int(*int))
            }
            (Range::Int(least, most), Literal::Float(float)) => {
                number_orders(Number::Int(*least), Number::Int(*most), Number::Float(*float))
            }
            (Range::Double(least, most), Literal::Int(int)) => {
                number_orders(Number::Float(*least), Number::Float(*most), Number::Int(*int))
            }
            (Range::Double(least, most), Literal::Float(float)) => {
                number_orders(Number::Float(*least), Number::Float(*most), Number::Float(*float))
            }
            (Range::Text(least, most), Literal::Text(text)) => text_orders(least, most, text),
            _ => (true, true, true),
        };
        let mut outcomes = 0;
        for (may, order) in [(less, Ordering::Less), (equal, Ordering::Equal), (greater, Ordering::Greater)] {
            outcomes |= if may { of(comparison.holds(Some(order))) } else { 0 };
        }
        outcomes
    })
}

/// Whether a number between these bounds may be less than, equal to and greater than `number`.
fn number_orders(least: Number, most: Number, number: Number) -> (bool, bool, bool) {
    match (least.compare(number), most.compare(number)) {
        (Some(least), Some(most)) => (least.is_lt(), least.is_le() && most.is_ge(), most.is_gt()),
        // A bound that is no number.
        _ => (true, true, true),
    }
}

/// The same of texts.
fn text_orders(least: &[u8], most: &[u8], text: &str) -> (bool, bool, bool) {
    let text = text.as_bytes();
    // What was cut off may make it greater than what it is the beginning of.
    if !is_whole(most) && text.starts_with(most) {
        return (least < text, least <= text, true);
    }
    (least < text, least <= text && most >= text, most > text)
}

/// Whether a bound of texts is one of them, and not only how it begins.
fn is_whole(bound: &[u8]) -> bool {
    bound.len() < Statistics::TEXT_BYTES_MAX
}
