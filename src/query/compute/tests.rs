use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use proptest::prelude::*;

use super::{Expression, Function};
use crate::model::{DataType, Field, Value};

fn fields() -> Vec<Field> {
    vec![
        Field::new("a", DataType::Int64).nullable(),
        Field::new("b", DataType::Int64).nullable(),
        Field::new("x", DataType::Double).nullable(),
        Field::new("t", DataType::Varchar { max_length: 65_535 }).nullable(),
    ]
}

type Row = (Option<i64>, Option<i64>, Option<f64>, Option<&'static str>);

fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("a", Arc::new(rows.iter().map(|row| row.0).collect::<Int64Array>())),
        ("b", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>())),
        ("x", Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>())),
        ("t", Arc::new(rows.iter().map(|row| row.3).collect::<StringArray>())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn ints(expression: &Expression, rows: &[Row]) -> Vec<Option<i64>> {
    let computed = expression.bind(&fields()).unwrap();
    let array = computed.evaluate(&batch(rows));
    array.as_primitive::<Int64Type>().iter().collect()
}

fn texts(expression: &Expression, rows: &[Row]) -> Vec<Option<String>> {
    let array = expression.bind(&fields()).unwrap().evaluate(&batch(rows));
    array.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn call(function: Function, arguments: &[&str]) -> Expression {
    Expression::call(function, arguments.iter().map(|text| Expression::from(*text)))
}

const ROWS: [Row; 4] = [
    (Some(7), Some(2), Some(0.5), Some("Ab c")),
    (None, Some(0), None, None),
    (Some(-7), Some(0), Some(-1.5), Some("")),
    (Some(i64::MAX), Some(1), Some(1e300), Some("é日x")),
];

#[test]
fn arithmetic_is_that_of_filters() {
    assert_eq!(ints(&"a / b".into(), &ROWS), [Some(3), None, None, Some(i64::MAX)]);
    assert_eq!(ints(&"a + b".into(), &ROWS), [Some(9), None, Some(-7), None]);
    let doubled = Expression::from("x * x").bind(&fields()).unwrap().evaluate(&batch(&ROWS));
    let doubled: Vec<_> = doubled.as_primitive::<Float64Type>().iter().collect();
    assert_eq!(doubled, [Some(0.25), None, Some(2.25), None]);
}

#[test]
fn texts_are_conditions_and_values() {
    let truth = Expression::from("a > 0 and t like 'A%'").bind(&fields()).unwrap().truth(&batch(&ROWS));
    assert_eq!(truth.iter().collect::<Vec<_>>(), [true, false, false, false]);
    let same = call(Function::And, &["a > 0", "t like 'A%'"]).bind(&fields()).unwrap().truth(&batch(&ROWS));
    assert_eq!(truth, same);
}

#[test]
fn a_case_takes_the_first_branch_that_is_true() {
    let case = Expression::Case(
        vec![("a > 5".into(), "b".into()), ("b == 0".into(), Expression::literal(Value::Int(9)))],
        Some(Box::new(Expression::call(Function::Neg, ["b".into()]))),
    );
    assert_eq!(ints(&case, &ROWS), [Some(2), Some(9), Some(9), Some(1)]);
    let open = Expression::Case(vec![("a < 0".into(), "a".into())], None);
    assert_eq!(ints(&open, &ROWS), [None, None, Some(-7), None]);
}

#[test]
fn functions_of_text_count_characters() {
    assert_eq!(ints(&call(Function::Length, &["t"]), &ROWS), [Some(4), None, Some(0), Some(3)]);
    let from = |at: i64, len: i64| {
        Expression::call(Function::Substring, ["t".into(), Expression::literal(at), Expression::literal(len)])
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(texts(&from(2, 2), &ROWS), [text("b "), None, text(""), text("日x")]);
    assert_eq!(texts(&from(0, 2), &ROWS)[0], text("A"));
    assert_eq!(texts(&call(Function::Upper, &["t"]), &ROWS)[3], text("É日X"));
    let joined = Expression::call(Function::Concat, ["t".into(), Expression::literal("!")]);
    assert_eq!(texts(&joined, &ROWS)[1], text("!"));
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = |expression: Expression| expression.bind(&fields()).unwrap_err().message().to_owned();
    assert!(wrong("a + nope".into()).contains("`nope`"));
    assert!(wrong(Expression::column("nope")).contains("`nope`"));
    assert!(wrong(call(Function::Add, &["a", "t"])).contains("add takes numbers, got varchar"));
    assert!(wrong(call(Function::Lower, &["a"])).contains("lower takes text, got int64"));
    assert!(wrong(call(Function::Round, &[])).contains("round takes 1 arguments, got 0"));
    assert!(wrong(Expression::Case(vec![("a".into(), "a".into())], None)).contains("expected a condition"));
    let deep = (0..200).fold(Expression::from("a"), |inner, _| Expression::call(Function::Neg, [inner]));
    assert!(wrong(deep).contains("128"));
}

#[test]
fn documents_come_back() {
    let expression = Expression::Case(
        vec![(call(Function::Le, &["a", "b"]), Expression::literal(Value::Vector(vec![1.0, 2.0])))],
        Some(Box::new(Expression::literal(Value::Null))),
    );
    let json = serde_json::to_string(&expression).unwrap();
    let back: Expression = serde_json::from_str(&json).unwrap();
    // JSON has vectors as lists of numbers, which are taken as vectors.
    assert_eq!(back.bind(&fields()).unwrap().data_type, DataType::FloatVector { dim: 2 });
    let call = call(Function::NullIf, &["a", "b * 2"]);
    let back: Expression = serde_json::from_str(&serde_json::to_string(&call).unwrap()).unwrap();
    assert_eq!(back, call);
}

#[test]
fn every_function_has_its_name() {
    for name in Function::names() {
        let function = Function::parse(name).unwrap();
        assert_eq!(function.name(), name);
        assert_eq!(serde_json::to_string(&function).unwrap(), format!("{name:?}"));
    }
}

proptest! {
    /// Comparisons, and their joining, agree with the filter language.
    #[test]
    fn conditions_are_those_of_filters(
        rows in prop::collection::vec((any::<Option<i8>>(), any::<Option<i8>>(), any::<Option<i8>>()), 0..70),
        sign in 0usize..6,
        any_of in any::<bool>(),
    ) {
        let rows: Vec<Row> = rows
            .into_iter()
            .map(|(a, b, x)| (a.map(i64::from), b.map(i64::from), x.map(|x| f64::from(x) / 2.0), None))
            .collect();
        let (text, function) = [("==", Function::Eq), ("!=", Function::Ne), ("<", Function::Lt), ("<=", Function::Le),
            (">", Function::Gt), (">=", Function::Ge)][sign];
        let (word, join) = if any_of { ("or", Function::Or) } else { ("and", Function::And) };
        let filter = Expression::Text(format!("a {text} b {word} x {text} a"));
        let calls = Expression::call(join, [call(function, &["a", "b"]), call(function, &["x", "a"])]);
        let batch = batch(&rows);
        prop_assert_eq!(filter.bind(&fields()).unwrap().truth(&batch), calls.bind(&fields()).unwrap().truth(&batch));
    }
}
