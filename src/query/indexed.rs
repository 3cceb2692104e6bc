//! What indexes of terms say of parts of a filter, for all rows of a segment at once.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::expression::{Column, Comparison, Containment, Kind, Literal, Operand, Place, Predicate, Shape, Step};
use super::set::Set;
use super::ternary::Ternary;
use crate::base::RowMask;
use crate::index::terms::json::{self, Tag};
use crate::index::terms::{Payload, Source, float_key, int_key};

/// Gives the index of terms of a column, or of a place in its values, where there is one.
pub type Indexes<'s> = &'s dyn Fn(&str, &[Step]) -> Option<Source<'s>>;

/// Parts of a filter whose truth for each row of a segment is known before any of its columns is read.
#[derive(Debug, Default)]
pub struct Answers<'f> {
    /// The part, the rows for which it is true, and those for which it is true or false.
    parts: Vec<(&'f Predicate, RowMask, RowMask)>,
    /// The columns that the rest reads.
    reads: BTreeSet<String>,
    /// The parts of which all must be true.
    required: Vec<usize>,
}

impl<'f> Answers<'f> {
    pub(super) fn new(predicate: &'f Predicate, indexes: Indexes<'_>) -> Self {
        let mut answers = Self::default();
        answers.ask(predicate, indexes, true);
        answers
    }

    fn ask(&mut self, predicate: &'f Predicate, indexes: Indexes<'_>, required: bool) {
        match predicate {
            Predicate::And(terms) => terms.iter().for_each(|term| self.ask(term, indexes, required)),
            Predicate::Or(terms) => terms.iter().for_each(|term| self.ask(term, indexes, false)),
            Predicate::Not(inner) => self.ask(inner, indexes, false),
            Predicate::Same(left, right) => {
                self.ask(left, indexes, false);
                self.ask(right, indexes, false);
            }
            part => match answer(part, indexes) {
                Some((truth, known)) => {
                    if required {
                        self.required.push(self.parts.len());
                    }
                    self.parts.push((part, truth, known));
                }
                None => part.clone().each_place(&mut |place| {
                    let column = match place {
                        Place::Column(column) => column.name.clone(),
                        Place::Path(path, _) => path.column.clone(),
                    };
                    self.reads.insert(column);
                }),
            },
        }
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The columns that must be read for the rest.
    pub fn reads(&self) -> &BTreeSet<String> {
        &self.reads
    }

    /// Takes the rows out of `mask` that cannot pass.
    pub fn narrow(&self, mask: &mut RowMask) {
        self.required.iter().for_each(|&part| mask.intersect(&self.parts[part].1));
    }

    /// What is known of `part` for so many rows of the segment from `start` on.
    pub(super) fn of(&self, part: &Predicate, start: usize, len: usize) -> Option<Ternary> {
        let (_, truth, known) = self.parts.iter().find(|(other, ..)| std::ptr::eq(*other, part))?;
        Some(Ternary { truth: bits(truth, start, len), known: bits(known, start, len) })
    }
}

/// So many bits from `start` on, the first one lowest.
fn bits(mask: &RowMask, start: usize, len: usize) -> Vec<u64> {
    let word = |at: usize| mask.words().get(at).copied().unwrap_or(0);
    let (first, shift) = (start / 64, start % 64);
    let shifted = |at: usize| match shift {
        0 => word(at),
        shift => word(at) >> shift | word(at + 1) << (64 - shift),
    };
    let mut words: Vec<u64> = (first..first + len.div_ceil(64)).map(shifted).collect();
    if !len.is_multiple_of(64)
        && let Some(last) = words.last_mut()
    {
        *last &= (1 << (len % 64)) - 1;
    }
    words
}

/// The rows for which a part is true, and those for which it is true or false.
fn answer(part: &Predicate, indexes: Indexes<'_>) -> Option<(RowMask, RowMask)> {
    let place = match part {
        Predicate::Exists(path) | Predicate::Contains { path, .. } => Some(path),
        Predicate::Truth(Operand::Path(path))
        | Predicate::IsNull(Operand::Path(path))
        | Predicate::Like { operand: Operand::Path(path), .. }
        | Predicate::In { operand: Operand::Path(path), .. }
        | Predicate::Compare { left: Operand::Path(path), .. } => Some(path),
        _ => None,
    };
    if let Some(path) = place {
        let source = indexes(&path.column, &path.steps).filter(|source| source.payload() == Payload::Rows)?;
        return (source.count(json::BROKEN) == 0).then(|| of_place(part, source)).flatten();
    }
    let of_column = |operand: &Operand, payload: Payload| match operand {
        Operand::Column(column) => indexes(&column.name, &[]).filter(|source| source.payload() == payload),
        _ => None,
    };
    if let Predicate::Like { operand, shape: Shape::Terms(wanted) } = part {
        let source = of_column(operand, Payload::Text)?;
        return Some((wanted.rows(source), source.present()));
    }
    let truth_of = |operand: &Operand| of_column(operand, Payload::Rows);
    let (source, truth) = match part {
        Predicate::Truth(operand) => {
            let source = truth_of(operand)?;
            (source, equal(source, &[1]))
        }
        Predicate::IsNull(operand) => {
            let source = truth_of(operand)?;
            return Some((source.present().complement(), RowMask::all(source.rows())));
        }
        Predicate::Like { operand, shape } => {
            let source = truth_of(operand)?;
            let prefix = shape.prefix().as_bytes();
            let fits = |key: &[u8]| std::str::from_utf8(key).is_ok_and(|text| shape.matches(text));
            let above = above(prefix);
            let high = above.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            (source, source.between(Bound::Included(prefix), high, &fits))
        }
        Predicate::Compare {
            comparison,
            left: operand @ Operand::Column(column),
            right: Operand::Literal(literal),
        } => {
            let source = truth_of(operand)?;
            let key = key_of(column, literal)?;
            let (low, high): (Bound<&[u8]>, Bound<&[u8]>) = match comparison {
                Comparison::Eq | Comparison::Ne => (Bound::Included(&key), Bound::Included(&key)),
                Comparison::Lt => (Bound::Unbounded, Bound::Excluded(&key)),
                Comparison::Le => (Bound::Unbounded, Bound::Included(&key)),
                Comparison::Gt => (Bound::Excluded(&key), Bound::Unbounded),
                Comparison::Ge => (Bound::Included(&key), Bound::Unbounded),
            };
            let mut truth = source.between(low, high, &|_| true);
            if *comparison == Comparison::Ne {
                let equal = truth;
                truth = source.present();
                truth.subtract(&equal);
            }
            (source, truth)
        }
        Predicate::In { operand: operand @ Operand::Column(column), set } => {
            let source = truth_of(operand)?;
            (source, within(source, column, set)?)
        }
        _ => return None,
    };
    Some((truth, source.present()))
}

/// The same of a place in JSON, or of what arrays hold.
fn of_place(part: &Predicate, source: Source<'_>) -> Option<(RowMask, RowMask)> {
    let all_of = |tag: Tag| {
        let (low, high) = tag.ends();
        source.between(Bound::Included(&low), Bound::Excluded(&high), &|_| true)
    };
    match part {
        Predicate::Truth(_) => Some((equal(source, &Tag::Bool.key(&[1])), all_of(Tag::Bool))),
        Predicate::IsNull(_) => Some((source.present().complement(), RowMask::all(source.rows()))),
        Predicate::Exists(_) => {
            let mut there = source.present();
            there.union(&equal(source, json::NULL));
            Some((there, RowMask::all(source.rows())))
        }
        Predicate::Like { shape: Shape::Terms(_), .. } => None,
        Predicate::Like { shape, .. } => {
            let fits = |key: &[u8]| std::str::from_utf8(&key[1..]).is_ok_and(|text| shape.matches(text));
            let low = Tag::Text.key(shape.prefix().as_bytes());
            let high = above(&low);
            let high = high.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            Some((source.between(Bound::Included(&low), high, &fits), all_of(Tag::Text)))
        }
        Predicate::Compare { comparison, right: Operand::Literal(literal), .. } => {
            let (tag, value) = json::scalar(&literal.to_json()?)?;
            if tag == Tag::Bool && !comparison.is_equality() {
                return None;
            }
            let (key, known) = (tag.key(&value), all_of(tag));
            let (least, most) = tag.ends();
            let (low, high): (Bound<&[u8]>, Bound<&[u8]>) = match comparison {
                Comparison::Eq | Comparison::Ne => (Bound::Included(&key), Bound::Included(&key)),
                Comparison::Lt => (Bound::Included(&least), Bound::Excluded(&key)),
                Comparison::Le => (Bound::Included(&least), Bound::Included(&key)),
                Comparison::Gt => (Bound::Excluded(&key), Bound::Excluded(&most)),
                Comparison::Ge => (Bound::Included(&key), Bound::Excluded(&most)),
            };
            let mut truth = source.between(low, high, &|_| true);
            if *comparison == Comparison::Ne {
                let equal = std::mem::replace(&mut truth, known.clone());
                truth.subtract(&equal);
            }
            Some((truth, known))
        }
        Predicate::In { set, .. } => {
            let (mut truth, mut known) = (RowMask::none(source.rows()), RowMask::none(source.rows()));
            for value in set.scalars()? {
                let (tag, value) = json::scalar(&value)?;
                truth.union(&equal(source, &tag.key(&value)));
            }
            let types = [(Tag::Bool, set.has_bools()), (Tag::Number, set.has_numbers()), (Tag::Text, set.has_texts())];
            types.iter().filter(|(_, is_there)| *is_there).for_each(|(tag, _)| known.union(&all_of(*tag)));
            Some((truth, known))
        }
        Predicate::Contains { containment, values, .. } => {
            let known = equal(source, json::ARRAY);
            let is_any = *containment == Containment::Any;
            let mut truth = if is_any { RowMask::none(source.rows()) } else { known.clone() };
            for value in values {
                let rows = equal(source, &json::element_key(value)?);
                if is_any { truth.union(&rows) } else { truth.intersect(&rows) }
            }
            Some((truth, known))
        }
        _ => None,
    }
}

/// The least key above all that begin so.
fn above(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut above = prefix[..=at].to_vec();
    above[at] += 1;
    Some(above)
}

fn equal(source: Source<'_>, key: &[u8]) -> RowMask {
    source.between(Bound::Included(key), Bound::Included(key), &|_| true)
}

fn within(source: Source<'_>, column: &Column, set: &Set) -> Option<RowMask> {
    let mut truth = RowMask::none(source.rows());
    match column.kind {
        Kind::Text => set.texts().iter().for_each(|text| truth.union(&equal(source, text.as_bytes()))),
        Kind::Int => set.ints().iter().for_each(|&int| truth.union(&equal(source, &int_key(int)))),
        _ => return None,
    }
    Some(truth)
}

/// The key of what a column is compared with; `None` where only looking at the values tells.
fn key_of(column: &Column, literal: &Literal) -> Option<Vec<u8>> {
    match (column.kind, literal) {
        (Kind::Text, Literal::Text(text)) => Some(text.as_bytes().to_vec()),
        (Kind::Int, Literal::Int(int)) => Some(int_key(*int).to_vec()),
        (Kind::Float, Literal::Float(float)) => Some(float_key(*float).to_vec()),
        (Kind::Float, Literal::Int(int)) if int.unsigned_abs() <= 1 << 53 => Some(float_key(*int as f64).to_vec()),
        _ => None,
    }
}
