use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, StringArray};
use arrow_buffer::{BooleanBuffer, Buffer};
use arrow_schema::DataType;
use serde_json::Value as Json;

use super::expression::{Arithmetic, Comparison, Containment, Kind, Literal, Operand, Path, Places, Predicate};
use super::indexed::Answers;
use super::json::{Leaf, Trie};
use super::number::{Number, compare_exact, float_as_int};
use super::set::{Set, same_json};
use super::ternary::{CHUNK_ROWS, Ternary, ones, pack, pack_pairs, pick};
use crate::base::RowMask;
use crate::model::column::{list_json, number_bytes};
use crate::segment::{batch_of, hash_int, hash_text};

/// The rows of `batch` for which `predicate` is true. Panics when a column of `places` is not there or of another type.
/// What `answers` tells of the segment, whose rows from `first` on these are, is not asked of the rows.
pub(super) fn evaluate(
    predicate: &Predicate,
    places: &Places,
    batch: &RecordBatch,
    first: usize,
    answers: &Answers<'_>,
) -> RowMask {
    let rows = batch.num_rows();
    let batch = &with_columns(places, batch, answers);
    let mut evaluation = Evaluation::new(places, batch, first, answers);
    let mut words = Vec::with_capacity(rows.div_ceil(64));
    for start in (0..rows).step_by(CHUNK_ROWS) {
        evaluation.enter(start, CHUNK_ROWS.min(rows - start));
        let all = ones(evaluation.len);
        words.extend(evaluation.predicate(predicate, &all).truth);
    }
    RowMask::from_words(words, rows)
}

/// `batch` with nulls in place of columns that only what is known already would read.
fn with_columns(places: &Places, batch: &RecordBatch, answers: &Answers<'_>) -> RecordBatch {
    let lacking = |name: &str| batch.column_by_name(name).is_none() && !answers.reads().contains(name);
    if answers.is_empty() || !places.columns.iter().any(|(name, _)| lacking(name)) {
        return batch.clone();
    }
    let columns = batch.schema_ref().fields().iter().map(|field| field.as_ref().clone()).zip(batch.columns().to_vec());
    let nulls = places.columns.iter().filter(|(name, _)| lacking(name)).map(|(name, kind)| {
        let data_type = match kind {
            Kind::Bool => DataType::Boolean,
            Kind::Int => DataType::Int64,
            Kind::Float => DataType::Float64,
            _ => DataType::Utf8,
        };
        let array = arrow_array::new_null_array(&data_type, batch.num_rows());
        (arrow_schema::Field::new(name, data_type, true), array)
    });
    batch_of(columns.chain(nulls), batch.num_rows())
}

enum Data<'a> {
    Bool(&'a BooleanArray),
    /// Integers of that many bytes.
    Int(Buffer, usize),
    /// Floats of that many bytes.
    Float(Buffer, usize),
    /// JSON too.
    Text(&'a StringArray),
    List,
}

impl<'a> Data<'a> {
    /// `None` when `array` is of another kind.
    fn new(kind: Kind, array: &'a ArrayRef) -> Option<Self> {
        let numbers = || Some((number_bytes(array)?, array.data_type().primitive_width()?));
        let float = array.data_type().is_floating();
        match kind {
            Kind::Bool => array.as_boolean_opt().map(Data::Bool),
            Kind::Int if !float => numbers().map(|(values, width)| Data::Int(values, width)),
            Kind::Float if float => numbers().map(|(values, width)| Data::Float(values, width)),
            Kind::Int | Kind::Float => None,
            Kind::Json if matches!(array.data_type(), DataType::List(_)) => Some(Data::List),
            _ => array.as_string_opt::<i32>().map(Data::Text),
        }
    }
}

/// One column of JSON or of arrays, for one chunk.
struct JsonColumn<'a> {
    array: &'a ArrayRef,
    trie: Trie,
    /// How many places of it are read.
    places: usize,
    /// `places` leaves a row; missing where the row is not parsed.
    leaves: Vec<Leaf<'a>>,
    parsed: Vec<u64>,
}

/// One chunk after the other, rows `start..start + len`.
struct Evaluation<'a> {
    columns: Vec<(Data<'a>, &'a ArrayRef)>,
    /// By column, where it is JSON.
    json: Vec<Option<JsonColumn<'a>>>,
    /// Of every path: its column, and its number among the places there.
    paths: Vec<(usize, usize)>,
    start: usize,
    len: usize,
    /// The number of the batch's first row in its segment, and what is known of that.
    first: usize,
    answers: &'a Answers<'a>,
}

/// What an operand is for the rows of a chunk.
enum Values<'e> {
    Literal(&'e Literal),
    Ints(Cow<'e, [i64]>),
    Floats(Cow<'e, [f64]>),
    /// The array, and the chunk's first row in it.
    Texts(&'e StringArray, usize),
    /// The column, and the place in each of its rows.
    Leaves(&'e JsonColumn<'e>, usize),
    Numbers(Vec<Number>),
}

/// What an operand is for one row that is known.
enum Scalar<'e> {
    Bool(bool),
    Number(Number),
    Text(&'e str),
    List(&'e [Json]),
    Whole(&'e Json),
    Opaque,
}

impl<'a> Evaluation<'a> {
    fn new(places: &Places, batch: &'a RecordBatch, first: usize, answers: &'a Answers<'a>) -> Self {
        let columns: Vec<(Data<'a>, &'a ArrayRef)> = places
            .columns
            .iter()
            .map(|(name, kind)| {
                let array = batch.column_by_name(name);
                let data = array.and_then(|array| Some((Data::new(*kind, array)?, array)));
                data.unwrap_or_else(|| {
                    let found = array.map_or("no such column".to_string(), |array| array.data_type().to_string());
                    panic!("column `{name}` of the batch should be {kind} and is {found}: it has another schema than the filter")
                })
            })
            .collect();
        let mut json: Vec<Option<JsonColumn<'a>>> = columns.iter().map(|_| None).collect();
        let mut paths = vec![];
        for (column, steps, deep) in &places.paths {
            let array = columns[*column].1;
            let json = json[*column].get_or_insert_with(|| JsonColumn {
                array,
                trie: Trie::default(),
                places: 0,
                leaves: vec![],
                parsed: vec![],
            });
            json.trie.insert(steps, json.places, *deep);
            paths.push((*column, json.places));
            json.places += 1;
        }
        Self { columns, json, paths, start: 0, len: 0, first, answers }
    }

    /// Turns to the chunk of `len` rows from `start`.
    fn enter(&mut self, start: usize, len: usize) {
        (self.start, self.len) = (start, len);
        for json in self.json.iter_mut().flatten() {
            json.parsed.clear();
            json.parsed.resize(len.div_ceil(64), 0);
            json.leaves.clear();
            json.leaves.resize(len * json.places, Leaf::Missing);
        }
    }

    /// For rows that are not `active` the result may be anything, as long as it is well formed.
    fn predicate(&mut self, predicate: &Predicate, active: &[u64]) -> Ternary {
        if let Some(known) = self.answers.of(predicate, self.first + self.start, self.len) {
            return known;
        }
        match predicate {
            Predicate::Constant(value) => {
                let known = ones(self.len);
                Ternary { truth: if *value { known.clone() } else { vec![0; known.len()] }, known }
            }
            Predicate::Truth(operand) => {
                self.parse(operand, active);
                self.truth(operand)
            }
            Predicate::Not(inner) => self.predicate(inner, active).not(),
            Predicate::And(terms) => self.joined(terms, active, false),
            Predicate::Or(terms) => self.joined(terms, active, true),
            Predicate::Same(left, right) => {
                let left = self.predicate(left, active);
                left.same(&self.predicate(right, active))
            }
            Predicate::Compare { comparison, left, right } => {
                self.parse(left, active);
                self.parse(right, active);
                self.compare(*comparison, left, right, active)
            }
            Predicate::In { operand, set } => {
                self.parse(operand, active);
                self.within(operand, set, active)
            }
            Predicate::Like { operand, shape } => {
                self.parse(operand, active);
                let (values, known) = self.values(operand);
                match values {
                    Values::Texts(array, start) => {
                        Ternary::new(pick(&both(&known, active), |row| shape.matches(array.value(start + row))), known)
                    }
                    Values::Leaves(json, place) => json.test(place, active, |leaf| match leaf {
                        Leaf::Text(text) => Some(shape.matches(text)),
                        _ => None,
                    }),
                    _ => unreachable!("`like` was checked to have text on its left"),
                }
            }
            Predicate::Sample { key, share, seed } => {
                // 2^64 and its products with doubles are exact.
                let bound = (share * 18_446_744_073_709_551_616.0) as u64;
                let seed = hash_int(*seed);
                let sampled = |hash: u64| hash_int((hash ^ seed) as i64) < bound;
                let (values, known) = self.values(key);
                let truth = match values {
                    Values::Ints(ints) => pack(&ints, |int| sampled(hash_int(int))),
                    Values::Texts(array, start) => pick(active, |row| sampled(hash_text(array.value(start + row)))),
                    _ => unreachable!("keys are integers or text"),
                };
                Ternary::new(truth, known)
            }
            Predicate::IsNull(operand) => {
                self.parse(operand, active);
                let (_, known) = self.values(operand);
                Ternary { truth: known, known: ones(self.len) }.not()
            }
            Predicate::Exists(path) => {
                self.parse_path(path, active);
                let (json, place) = self.leaves(path);
                json.test(place, active, |leaf| Some(!matches!(leaf, Leaf::Missing)))
            }
            Predicate::Contains { path, containment, values } => {
                self.parse_path(path, active);
                let (json, place) = self.leaves(path);
                json.test(place, active, |leaf| {
                    let Leaf::Whole(whole) = leaf else { return None };
                    let array = whole.as_array()?;
                    let contained = |value: &Json| array.iter().any(|element| same_json(element, value));
                    Some(match containment {
                        Containment::One | Containment::All => values.iter().all(contained),
                        Containment::Any => values.iter().any(contained),
                    })
                })
            }
        }
    }

    /// Later terms are asked only about rows that earlier ones leave open.
    fn joined(&mut self, terms: &[Predicate], active: &[u64], any: bool) -> Ternary {
        let mut open = active.to_vec();
        let mut result: Option<Ternary> = None;
        for term in terms {
            let next = self.predicate(term, &open);
            let joined = match &mut result {
                None => result.insert(next),
                Some(joined) => {
                    if any {
                        joined.or(&next)
                    } else {
                        joined.and(&next)
                    }
                    joined
                }
            };
            open = joined.open(&open, any);
            if open.iter().all(|&word| word == 0) {
                break;
            }
        }
        result.expect("`and` and `or` have terms")
    }

    fn truth(&self, operand: &Operand) -> Ternary {
        match operand {
            Operand::Column(column) => {
                let (Data::Bool(array), _) = self.columns[column.slot] else {
                    unreachable!("only a bool column is a condition")
                };
                Ternary::new(self.bits(array.values()), self.valid(array))
            }
            Operand::Path(path) => {
                let (json, place) = self.leaves(path);
                json.test(place, &json.parsed, |leaf| match leaf {
                    Leaf::Bool(value) => Some(*value),
                    _ => None,
                })
            }
            _ => unreachable!("only a field is a condition"),
        }
    }

    fn compare(&self, comparison: Comparison, left: &Operand, right: &Operand, active: &[u64]) -> Ternary {
        let (left, mut known) = self.values(left);
        let (right, right_known) = self.values(right);
        known.iter_mut().zip(&right_known).for_each(|(known, right)| *known &= right);
        let truth = match (&left, &right) {
            (Values::Ints(ints), Values::Literal(Literal::Int(int))) => compare_ints(comparison, ints, *int),
            (Values::Ints(ints), Values::Literal(Literal::Float(float))) => match near(comparison, *float) {
                Near::Always(value) => vec![if value { u64::MAX } else { 0 }; known.len()],
                Near::Int(comparison, int) => compare_ints(comparison, ints, int),
            },
            (Values::Floats(floats), Values::Literal(Literal::Float(float))) => {
                compare_floats(comparison, floats, *float)
            }
            (Values::Floats(floats), Values::Literal(Literal::Int(int))) => {
                let float = *int as f64;
                match compare_exact(i128::from(*int), float) {
                    Some(Ordering::Equal) => compare_floats(comparison, floats, float),
                    // No double lies between the integer and the one next to it.
                    _ if comparison.is_equality() => {
                        vec![if comparison == Comparison::Ne { u64::MAX } else { 0 }; known.len()]
                    }
                    Some(Ordering::Less) => compare_floats(
                        if is_below(comparison) { Comparison::Lt } else { Comparison::Ge },
                        floats,
                        float,
                    ),
                    _ => compare_floats(
                        if is_below(comparison) { Comparison::Le } else { Comparison::Gt },
                        floats,
                        float,
                    ),
                }
            }
            (Values::Ints(left), Values::Ints(right)) => match comparison {
                Comparison::Eq => pack_pairs(left, right, |l, r| l == r),
                Comparison::Ne => pack_pairs(left, right, |l, r| l != r),
                Comparison::Lt => pack_pairs(left, right, |l, r| l < r),
                Comparison::Le => pack_pairs(left, right, |l, r| l <= r),
                Comparison::Gt => pack_pairs(right, left, |r, l| r < l),
                Comparison::Ge => pack_pairs(right, left, |r, l| r <= l),
            },
            (Values::Floats(left), Values::Floats(right)) => match comparison {
                Comparison::Eq => pack_pairs(left, right, |l, r| l == r),
                Comparison::Ne => pack_pairs(left, right, |l, r| l != r),
                Comparison::Lt => pack_pairs(left, right, |l, r| l < r),
                Comparison::Le => pack_pairs(left, right, |l, r| l <= r),
                Comparison::Gt => pack_pairs(right, left, |r, l| r < l),
                Comparison::Ge => pack_pairs(right, left, |r, l| r <= l),
            },
            (Values::Texts(array, start), Values::Literal(Literal::Text(text))) => {
                let rows = both(&known, active);
                match comparison {
                    Comparison::Eq => pick(&rows, |row| array.value(start + row) == text),
                    Comparison::Ne => pick(&rows, |row| array.value(start + row) != text),
                    _ => pick(&rows, |row| comparison.holds(Some(array.value(start + row).cmp(text)))),
                }
            }
            _ => {
                let rows = both(&known, active);
                let mut fitting = known.clone();
                let truth = pick(&rows, |row| {
                    let held = left.scalar(row).zip(right.scalar(row)).and_then(|(l, r)| l.compare(comparison, &r));
                    if held.is_none() {
                        fitting[row / 64] &= !(1 << (row % 64));
                    }
                    held == Some(true)
                });
                known = fitting;
                truth
            }
        };
        Ternary::new(truth, known)
    }

    fn within(&self, operand: &Operand, set: &Set, active: &[u64]) -> Ternary {
        let (values, known) = self.values(operand);
        let truth = match values {
            Values::Ints(ints) => match set.few_ints() {
                Some(few) => pack(&ints, |int| few.iter().fold(false, |found, &candidate| found | (candidate == int))),
                None => pick(&both(&known, active), |row| set.contains_int(ints[row])),
            },
            Values::Floats(floats) => {
                pick(&both(&known, active), |row| set.contains_number(Number::Float(floats[row])))
            }
            Values::Texts(array, start) => {
                pick(&both(&known, active), |row| set.contains_text(array.value(start + row)))
            }
            Values::Leaves(json, place) => {
                return json.test(place, active, |leaf| match leaf {
                    Leaf::Bool(value) => set.has_bools().then(|| set.contains_bool(*value)),
                    Leaf::Number(number) => set.has_numbers().then(|| set.contains_number(*number)),
                    Leaf::Text(text) => set.has_texts().then(|| set.contains_text(text)),
                    Leaf::Whole(list) if list.is_array() => set.has_lists().then(|| set.contains_list(list)),
                    _ => None,
                });
            }
            Values::Literal(_) | Values::Numbers(_) => unreachable!("`in` was checked to have a field on its left"),
        };
        Ternary::new(truth, known)
    }

    /// Parses the rows of `active` that are not yet, in the JSON columns that `operand` reads.
    fn parse(&mut self, operand: &Operand, active: &[u64]) {
        match operand {
            Operand::Literal(_) | Operand::Column(_) => {}
            Operand::Path(path) => self.parse_path(path, active),
            Operand::Arithmetic { left, right, .. } => {
                self.parse(left, active);
                self.parse(right, active);
            }
        }
    }

    fn parse_path(&mut self, path: &Path, active: &[u64]) {
        let (column, _) = self.paths[path.slot];
        let (data, array) = &self.columns[column];
        let valid = self.valid(array);
        let start = self.start;
        let text = match data {
            Data::Text(text) => Some(*text),
            _ => None,
        };
        let json = self.json[column].as_mut().expect("a column that a path leads into is JSON");
        let JsonColumn { array, trie, places, leaves, parsed } = json;
        let array: &'a ArrayRef = array;
        for (index, ((parsed, active), valid)) in parsed.iter_mut().zip(active).zip(valid).enumerate() {
            let wanted = active & !*parsed;
            *parsed |= wanted;
            let mut rest = wanted & valid;
            while rest != 0 {
                let row = index * 64 + rest.trailing_zeros() as usize;
                let leaves = &mut leaves[row * *places..(row + 1) * *places];
                match text {
                    Some(text) => trie.extract(text.value(start + row), leaves),
                    None => {
                        if let Some(list) = list_json(array, start + row) {
                            trie.extract_value(&list, leaves);
                        }
                    }
                }
                rest &= rest - 1;
            }
        }
    }

    fn leaves(&self, path: &Path) -> (&JsonColumn<'a>, usize) {
        let (column, place) = self.paths[path.slot];
        (self.json[column].as_ref().expect("a column that a path leads into is JSON"), place)
    }

    /// The values of an operand, and the rows where it has one. JSON must be parsed before.
    fn values<'e>(&'e self, operand: &'e Operand) -> (Values<'e>, Vec<u64>) {
        let rows = self.start..self.start + self.len;
        match operand {
            Operand::Literal(literal) => (Values::Literal(literal), ones(self.len)),
            Operand::Column(column) => {
                let (data, array) = &self.columns[column.slot];
                let values = match data {
                    Data::Int(values, width) => Values::Ints(ints(values, *width, rows)),
                    Data::Float(values, 8) => Values::Floats(Cow::Borrowed(&values.typed_data()[rows])),
                    Data::Float(values, _) => {
                        Values::Floats(values.typed_data::<f32>()[rows].iter().map(|&float| f64::from(float)).collect())
                    }
                    Data::Text(array) => Values::Texts(array, self.start),
                    // Only its nulls are asked for.
                    Data::Bool(_) | Data::List => Values::Ints(Cow::Borrowed(&[])),
                };
                (values, self.valid(array))
            }
            Operand::Path(path) => {
                let (json, place) = self.leaves(path);
                let known = pick(&json.parsed, |row| json.leaves[row * json.places + place].is_value());
                (Values::Leaves(json, place), known)
            }
            Operand::Arithmetic { arithmetic, left, right } => self.arithmetic(*arithmetic, left, right),
        }
    }

    fn arithmetic<'e>(
        &'e self,
        arithmetic: Arithmetic,
        left: &'e Operand,
        right: &'e Operand,
    ) -> (Values<'e>, Vec<u64>) {
        let (left, mut known) = self.values(left);
        let (right, right_known) = self.values(right);
        known.iter_mut().zip(&right_known).for_each(|(known, right)| *known &= right);
        let mut lost = |row: usize| known[row / 64] &= !(1 << (row % 64));
        if let (Some(l), Some(r)) = (left.ints(self.len), right.ints(self.len)) {
            let mut results = Vec::with_capacity(self.len);
            for (row, (&l, &r)) in l.iter().zip(r.iter()).enumerate() {
                results.push(arithmetic.ints(l, r).unwrap_or_else(|| {
                    lost(row);
                    0
                }));
            }
            return (Values::Ints(Cow::Owned(results)), known);
        }
        if let (Some(l), Some(r)) = (left.floats(self.len), right.floats(self.len)) {
            let mut results = Vec::with_capacity(self.len);
            for (row, (&l, &r)) in l.iter().zip(r.iter()).enumerate() {
                results.push(arithmetic.floats(l, r).unwrap_or_else(|| {
                    lost(row);
                    0.0
                }));
            }
            return (Values::Floats(Cow::Owned(results)), known);
        }
        let mut results = vec![Number::Int(0); self.len];
        for (row, result) in results.iter_mut().enumerate() {
            match left.number(row).zip(right.number(row)).and_then(|(l, r)| arithmetic.numbers(l, r)) {
                Some(number) => *result = number,
                None => lost(row),
            }
        }
        (Values::Numbers(results), known)
    }

    /// The chunk's rows that are not null.
    fn valid(&self, array: &dyn Array) -> Vec<u64> {
        array.nulls().map_or_else(|| ones(self.len), |nulls| self.bits(nulls.inner()))
    }

    fn bits(&self, buffer: &BooleanBuffer) -> Vec<u64> {
        let chunk = buffer.slice(self.start, self.len);
        let mut words: Vec<u64> = chunk.bit_chunks().iter_padded().collect();
        // Padding may add a word.
        words.truncate(self.len.div_ceil(64));
        words
    }
}

impl JsonColumn<'_> {
    /// Asks `test` about the leaf at `place` of each row of `active`; what it does not know is unknown.
    fn test(&self, place: usize, active: &[u64], test: impl Fn(&Leaf<'_>) -> Option<bool>) -> Ternary {
        let mut known = vec![0u64; active.len()];
        let truth = pick(active, |row| match test(&self.leaves[row * self.places + place]) {
            Some(held) => {
                known[row / 64] |= 1 << (row % 64);
                held
            }
            None => false,
        });
        Ternary { truth, known }
    }
}

impl Values<'_> {
    /// As integers, when that is its type; a literal once a row.
    fn ints(&self, len: usize) -> Option<Cow<'_, [i64]>> {
        match self {
            Self::Ints(ints) => Some(Cow::Borrowed(ints)),
            Self::Literal(Literal::Int(int)) => Some(Cow::Owned(vec![*int; len])),
            _ => None,
        }
    }

    /// As doubles, when its type is a number.
    fn floats(&self, len: usize) -> Option<Cow<'_, [f64]>> {
        match self {
            Self::Floats(floats) => Some(Cow::Borrowed(floats)),
            Self::Ints(ints) => Some(ints.iter().map(|&int| int as f64).collect()),
            Self::Literal(Literal::Int(int)) => Some(Cow::Owned(vec![*int as f64; len])),
            Self::Literal(Literal::Float(float)) => Some(Cow::Owned(vec![*float; len])),
            _ => None,
        }
    }

    fn number(&self, row: usize) -> Option<Number> {
        match self.scalar(row)? {
            Scalar::Number(number) => Some(number),
            _ => None,
        }
    }

    /// Of a row that is known.
    fn scalar(&self, row: usize) -> Option<Scalar<'_>> {
        Some(match self {
            Self::Literal(Literal::Bool(value)) => Scalar::Bool(*value),
            Self::Literal(Literal::Int(int)) => Scalar::Number(Number::Int(*int)),
            Self::Literal(Literal::Float(float)) => Scalar::Number(Number::Float(*float)),
            Self::Literal(Literal::Text(text)) => Scalar::Text(text),
            Self::Literal(Literal::List(values)) => Scalar::List(values),
            Self::Ints(ints) => Scalar::Number(Number::Int(ints[row])),
            Self::Floats(floats) => Scalar::Number(Number::Float(floats[row])),
            Self::Texts(array, start) => Scalar::Text(array.value(start + row)),
            Self::Numbers(numbers) => Scalar::Number(numbers[row]),
            Self::Leaves(json, place) => match &json.leaves[row * json.places + place] {
                Leaf::Missing | Leaf::Null => return None,
                Leaf::Bool(value) => Scalar::Bool(*value),
                Leaf::Number(number) => Scalar::Number(*number),
                Leaf::Text(text) => Scalar::Text(text),
                Leaf::Whole(whole) => Scalar::Whole(whole),
                Leaf::Opaque => Scalar::Opaque,
            },
        })
    }
}

impl Scalar<'_> {
    /// `None` when the types do not fit, or have no order and one is asked for.
    fn compare(&self, comparison: Comparison, other: &Self) -> Option<bool> {
        let equal = match (self, other) {
            (Self::Number(left), Self::Number(right)) => return Some(comparison.holds(left.compare(*right))),
            (Self::Text(left), Self::Text(right)) => return Some(comparison.holds(Some(left.cmp(right)))),
            _ if !comparison.is_equality() => return None,
            (Self::Bool(left), Self::Bool(right)) => left == right,
            (Self::Whole(Json::Array(left)), Self::List(right)) => {
                left.len() == right.len() && left.iter().zip(*right).all(|(left, right)| same_json(left, right))
            }
            (Self::Whole(left), Self::Whole(right)) if left.is_array() == right.is_array() => same_json(left, right),
            _ => return None,
        };
        Some(equal == (comparison == Comparison::Eq))
    }
}

/// Integers of any width, as the widest.
fn ints(values: &Buffer, width: usize, rows: Range<usize>) -> Cow<'_, [i64]> {
    match width {
        1 => values.typed_data::<i8>()[rows].iter().map(|&int| i64::from(int)).collect(),
        2 => values.typed_data::<i16>()[rows].iter().map(|&int| i64::from(int)).collect(),
        4 => values.typed_data::<i32>()[rows].iter().map(|&int| i64::from(int)).collect(),
        _ => Cow::Borrowed(&values.typed_data()[rows]),
    }
}

fn both(left: &[u64], right: &[u64]) -> Vec<u64> {
    left.iter().zip(right).map(|(left, right)| left & right).collect()
}

const fn is_below(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::Lt | Comparison::Le)
}

fn compare_ints(comparison: Comparison, ints: &[i64], int: i64) -> Vec<u64> {
    match comparison {
        Comparison::Eq => pack(ints, |value| value == int),
        Comparison::Ne => pack(ints, |value| value != int),
        Comparison::Lt => pack(ints, |value| value < int),
        Comparison::Le => pack(ints, |value| value <= int),
        Comparison::Gt => pack(ints, |value| value > int),
        Comparison::Ge => pack(ints, |value| value >= int),
    }
}

fn compare_floats(comparison: Comparison, floats: &[f64], float: f64) -> Vec<u64> {
    match comparison {
        Comparison::Eq => pack(floats, |value| value == float),
        Comparison::Ne => pack(floats, |value| value != float),
        Comparison::Lt => pack(floats, |value| value < float),
        Comparison::Le => pack(floats, |value| value <= float),
        Comparison::Gt => pack(floats, |value| value > float),
        Comparison::Ge => pack(floats, |value| value >= float),
    }
}

/// What the comparison of an integer with a double comes to.
enum Near {
    Always(bool),
    Int(Comparison, i64),
}

/// The comparison of integers that says the same as `comparison` with the finite `float`.
fn near(comparison: Comparison, float: f64) -> Near {
    if let Some(int) = float_as_int(float) {
        return Near::Int(comparison, int);
    }
    if comparison.is_equality() {
        return Near::Always(comparison == Comparison::Ne);
    }
    match float_as_int(float.floor()) {
        // Strictly between this integer and the next.
        Some(below) => Near::Int(if is_below(comparison) { Comparison::Le } else { Comparison::Gt }, below),
        None => Near::Always((float > 0.0) == is_below(comparison)),
    }
}
