use std::sync::Arc;

use arrow_array::builder::{FixedSizeListBuilder, Float64Builder, Int8Builder, LargeListBuilder, ListBuilder};
use arrow_array::types::Int8Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Date32Array, DictionaryArray, Float16Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int64Array, LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray, UInt32Array, UInt64Array,
};
use arrow_schema::{Field as ArrowField, Schema as ArrowSchema};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::base::{Error, ErrorKind};

fn any_name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "tag", "x_1", "ü", "", "a.b", "\"q\"", "🌧"]).prop_map(str::to_owned)
}

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..6).prop_map(|text| text.into_iter().collect())
}

fn any_double() -> impl Strategy<Value = f64> {
    prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO
}

fn any_json() -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any_double().prop_map(Json::from),
        any_text().prop_map(Json::from),
    ];
    scalar.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map(any_name(), inner, 0..4)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

fn any_vector(dim: usize) -> impl Strategy<Value = Value> {
    prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::ZERO, dim).prop_map(Value::Vector)
}

/// Any value in the form in which it is read back.
pub(super) fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![any_json().prop_map(Value::from), (1usize..5).prop_flat_map(any_vector)]
}

fn value_of(data_type: DataType) -> BoxedStrategy<Value> {
    match data_type {
        DataType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Timestamp => {
            let (min, max) = data_type.int_range().unwrap();
            prop_oneof![Just(min), Just(max), min..=max].prop_map(Value::Int).boxed()
        }
        DataType::Float => {
            (prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO).prop_map(Value::Float).boxed()
        }
        DataType::Array { element, max_capacity } => {
            prop::collection::vec(value_of(element.into()), 0..=max_capacity as usize).prop_map(Value::Array).boxed()
        }
        DataType::Double => any_double().prop_map(Value::Double).boxed(),
        DataType::Varchar { .. } => any_text().prop_map(Value::String).boxed(),
        DataType::Json => {
            any_json().prop_filter("null is Value::Null", |json| !json.is_null()).prop_map(Value::from).boxed()
        }
        DataType::FloatVector { dim } => any_vector(dim as usize).boxed(),
        DataType::Float16Vector { dim } => {
            let finite = any::<u16>().prop_map(half::f16::from_bits).prop_filter("finite", |half| half.is_finite());
            prop::collection::vec(finite.prop_map(f32::from), dim as usize).prop_map(Value::Vector).boxed()
        }
        DataType::BFloat16Vector { dim } => {
            let finite = any::<u16>().prop_map(half::bf16::from_bits).prop_filter("finite", |half| half.is_finite());
            prop::collection::vec(finite.prop_map(f32::from), dim as usize).prop_map(Value::Vector).boxed()
        }
        DataType::Int8Vector { dim } => {
            prop::collection::vec(any::<i8>().prop_map(f32::from), dim as usize).prop_map(Value::Vector).boxed()
        }
        DataType::BinaryVector { dim } => {
            prop::collection::vec(any::<u8>(), dim as usize / 8).prop_map(Value::Bytes).boxed()
        }
        DataType::SparseFloatVector => {
            prop::collection::btree_map(0..u32::MAX, prop::num::f32::NORMAL | prop::num::f32::ZERO, 0..5)
                .prop_map(|pairs| Value::Sparse(pairs.into_iter().collect()))
                .boxed()
        }
    }
}

/// Any schema: `key`, then fields `f0`, `f1`, … of every type.
pub(super) fn any_schema() -> impl Strategy<Value = Schema> {
    let key = prop_oneof![Just(DataType::Int64), Just(DataType::Varchar { max_length: 100 })];
    let scalar = prop::sample::select(vec![
        DataType::Bool,
        DataType::Int64,
        DataType::Double,
        DataType::Varchar { max_length: 24 },
        DataType::Json,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Float,
        DataType::Timestamp,
        DataType::Array { element: Element::Int16, max_capacity: 3 },
        DataType::Array { element: Element::Varchar { max_length: 24 }, max_capacity: 3 },
        DataType::Array { element: Element::Bool, max_capacity: 3 },
        DataType::Array { element: Element::Float, max_capacity: 3 },
        DataType::Array { element: Element::Timestamp, max_capacity: 3 },
        DataType::Float16Vector { dim: 3 },
        DataType::BFloat16Vector { dim: 3 },
        DataType::Int8Vector { dim: 3 },
        DataType::BinaryVector { dim: 16 },
        DataType::SparseFloatVector,
    ]);
    let analyzers =
        ["null", r#""english""#, r#"{"tokenizer":"cjk","filter":[{"type":"length","max":3},"asciifolding"]}"#];
    let scalar = scalar.prop_flat_map(move |data_type| {
        (any::<bool>(), prop::option::of(value_of(data_type)), prop::sample::select(analyzers.to_vec())).prop_map(
            move |(nullable, default, analyzer)| {
                let analyzer = Some(serde_json::from_str(analyzer).unwrap());
                let has_text = matches!(data_type, DataType::Varchar { .. });
                let analyzer = analyzer.filter(|json: &serde_json::Value| has_text && !json.is_null());
                let analyzer = analyzer.map(|json| Arc::new(text::Analyzer::from_json(json).unwrap()));
                Field { name: String::new(), data_type, nullable, default, analyzer }
            },
        )
    });
    let vector = (1u32..5, any::<bool>())
        .prop_map(|(dim, nullable)| Field { nullable, ..Field::new("", DataType::FloatVector { dim }) });
    let scalars = prop::collection::vec(scalar, 0..6).prop_filter("at most 4 vectors with the others", |fields| {
        fields.iter().filter(|field| field.data_type.is_vector()).count() <= 2
    });
    let fields = (scalars, prop::collection::vec(vector, 0..3))
        .prop_map(|(scalars, vectors)| scalars.into_iter().chain(vectors).collect::<Vec<_>>())
        .prop_shuffle();
    (key, fields, any::<bool>(), any::<prop::sample::Index>()).prop_map(|(key, mut fields, dynamic, at)| {
        fields.iter_mut().enumerate().for_each(|(n, field)| field.name = format!("f{n}"));
        fields.insert(at.index(fields.len() + 1), Field::new("key", key));
        Schema::new(fields, "key", dynamic).unwrap()
    })
}

/// A row with every field, as it is read back.
fn any_row(schema: &Schema) -> BoxedStrategy<Row> {
    let fields: Vec<BoxedStrategy<(String, Value)>> = schema
        .fields()
        .iter()
        .map(|field| {
            let name = field.name.clone();
            let value = value_of(field.data_type);
            let value = if field.nullable { prop_oneof![1 => Just(Value::Null), 4 => value].boxed() } else { value };
            value.prop_map(move |value| (name.clone(), value)).boxed()
        })
        .collect();
    let dynamic = if schema.dynamic() { 0..3usize } else { 0..1 };
    let dynamic = prop::collection::btree_map(any_name(), any_json().prop_map(Value::from), dynamic);
    (fields, dynamic).prop_map(|(fields, dynamic)| dynamic.into_iter().chain(fields).collect()).boxed()
}

fn any_rows() -> impl Strategy<Value = (Arc<Schema>, Vec<Row>)> {
    any_schema().prop_flat_map(|schema| {
        let schema = Arc::new(schema);
        let rows = prop::collection::vec(any_row(&schema), 0..12).prop_map(|mut rows| {
            // Unique keys: the generated ones repeat.
            for (at, row) in rows.iter_mut().enumerate() {
                let key = match &row["key"] {
                    Value::Int(key) => Value::Int(key.wrapping_mul(16) + at as i64),
                    Value::String(key) => Value::String(format!("{key}{at:02}")),
                    other => panic!("{other:?} is no key"),
                };
                row.insert("key".to_owned(), key);
            }
            rows
        });
        (Just(schema), rows)
    })
}

fn rows_of(batch: &Batch) -> Vec<Row> {
    (0..batch.len()).map(|row| batch.row(row, None)).collect()
}

proptest! {
    #[test]
    fn rows_to_batch_to_rows((schema, rows) in any_rows()) {
        let batch = Batch::from_rows(&schema, rows.clone()).unwrap();
        prop_assert_eq!(batch.len(), rows.len());
        prop_assert_eq!(&rows_of(&batch), &rows);
        for (key, row) in batch.keys().iter().zip(&rows) {
            match (key, &row["key"]) {
                (Key::Int(key), Value::Int(expected)) => prop_assert_eq!(key, expected),
                (Key::String(key), Value::String(expected)) => prop_assert_eq!(&**key, expected.as_str()),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn batch_to_arrow_to_batch((schema, rows) in any_rows()) {
        let batch = Batch::from_rows(&schema, rows).unwrap();
        let arrow = batch.to_arrow();
        prop_assert_eq!(&Batch::from_arrow(&schema, &arrow).unwrap(), &batch);
        prop_assert_eq!(&Batch::from_stored(&schema, &arrow).unwrap(), &batch);
        // A slice of a larger Arrow batch has offsets that are not zero.
        let half = batch.len() / 2;
        let sliced = Batch::from_arrow(&schema, &arrow.slice(half, batch.len() - half)).unwrap();
        prop_assert_eq!(&sliced, &batch.slice(half, batch.len() - half));
    }

    #[test]
    fn rows_survive_messagepack((schema, rows) in any_rows()) {
        let bytes = rmp_serde::to_vec(&rows).unwrap();
        let back: Vec<Row> = rmp_serde::from_slice(&bytes).unwrap();
        prop_assert_eq!(rows_of(&Batch::from_rows(&schema, back).unwrap()), rows);
    }

    #[test]
    fn take_and_concat_pick_rows((schema, rows) in any_rows(), picks in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let batch = Batch::from_rows(&schema, rows.clone()).unwrap();
        let picks: Vec<u32> = picks.iter().filter(|_| !rows.is_empty()).map(|at| at.index(rows.len()) as u32).collect();
        let taken = batch.take(&picks);
        let expected: Vec<Row> = picks.iter().map(|&row| rows[row as usize].clone()).collect();
        prop_assert_eq!(&rows_of(&taken), &expected);
        let parts: Vec<Batch> = (0..taken.len()).map(|row| taken.slice(row, 1)).chain([Batch::empty(&schema)]).collect();
        prop_assert_eq!(&Batch::concat(&parts), &taken);
    }

    /// Whatever bytes a peer sends as rows, they are refused or fit.
    #[test]
    fn any_values_fit_or_are_refused(schema in any_schema(), rows in prop::collection::vec(prop::collection::btree_map("key|f[0-5]|other", any_value(), 0..8), 0..4)) {
        let schema = Arc::new(schema);
        match Batch::from_rows(&schema, rows) {
            Ok(batch) => {
                prop_assert_eq!(&Batch::from_arrow(&schema, &batch.to_arrow()).unwrap(), &batch);
                let _ = rows_of(&batch);
            }
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                prop_assert!(error.message().contains("row ") && error.message().contains("field "), "{}", error);
            }
        }
    }
}

fn schema() -> Arc<Schema> {
    let fields = vec![
        Field::new("id", DataType::Int64),
        Field::new("title", DataType::Varchar { max_length: 5 }),
        Field::new("done", DataType::Bool).nullable().with_default(false),
        Field::new("size", DataType::Double).with_default(1),
        Field::new("meta", DataType::Json).nullable(),
        Field::new("embedding", DataType::FloatVector { dim: 2 }),
    ];
    Arc::new(Schema::new(fields, "id", false).unwrap())
}

fn row(fields: Json) -> Row {
    serde_json::from_value(fields).unwrap()
}

fn good(id: i64) -> Row {
    row(json!({"id": id, "title": "rain", "embedding": [1, 0.5]}))
}

fn with(name: &str, value: impl Into<Value>) -> Row {
    let mut row = good(7);
    row.insert(name.to_owned(), value.into());
    row
}

fn assert_names(error: &Error, words: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    words.iter().for_each(|word| assert!(error.message().contains(word), "{word:?} not in {error}"));
}

/// The second of two rows is wrong: row 1 is named, and the field.
fn refused(second: Row, words: &[&str]) {
    let error = Batch::from_rows(&schema(), vec![good(1), second]).unwrap_err();
    assert_names(&error, &[&["row 1"], words].concat());
}

#[test]
fn each_wrong_row_is_named() {
    let without = |name: &str| {
        let mut row = good(7);
        row.remove(name);
        row
    };
    let nan = f64::NAN;
    refused(with("embedding", vec![1.0, 2.0, 3.0]), &["\"embedding\"", "3 numbers", "expected 2"]);
    refused(with("embedding", json!([1])), &["\"embedding\"", "1 numbers", "expected 2"]);
    refused(with("embedding", vec![1.0, f32::NAN]), &["\"embedding\"", "number 1 is NaN"]);
    refused(with("embedding", vec![f32::INFINITY, 1.0]), &["\"embedding\"", "number 0 is inf"]);
    refused(with("embedding", json!([1e300, 1])), &["\"embedding\"", "number 0 is inf"]);
    refused(with("embedding", json!([1, "x"])), &["\"embedding\"", "number at 1", "a string"]);
    refused(with("embedding", json!([1, null])), &["\"embedding\"", "number 1 is null"]);
    refused(with("embedding", "rain"), &["\"embedding\"", "a vector of 2 numbers", "a string"]);
    refused(with("embedding", Value::Null), &["\"embedding\"", "is null"]);
    refused(without("embedding"), &["\"embedding\"", "is missing"]);
    refused(with("id", "7"), &["\"id\"", "int64", "a string"]);
    refused(with("id", 7.0), &["\"id\"", "int64", "the double 7"]);
    refused(with("id", json!(u64::MAX)), &["\"id\"", "int64", "18446744073709551615", "beyond int64"]);
    refused(with("id", Value::Null), &["\"id\"", "is null"]);
    refused(without("id"), &["\"id\"", "is missing"]);
    refused(good(1), &["\"id\"", "key 1 occurs twice", "first in row 0"]);
    refused(with("title", "thunder"), &["\"title\"", "7 bytes", "at most 5"]);
    refused(with("title", "🌧🌧"), &["\"title\"", "8 bytes"]);
    refused(with("title", 3), &["\"title\"", "a string", "the integer 3"]);
    refused(with("title", json!(["x"])), &["\"title\"", "a string", "an array"]);
    refused(without("title"), &["\"title\"", "is missing"]);
    refused(with("done", 1), &["\"done\"", "a bool", "the integer 1"]);
    refused(with("size", nan), &["\"size\"", "finite", "NaN"]);
    refused(with("size", f64::NEG_INFINITY), &["\"size\"", "finite", "-inf"]);
    refused(with("size", json!({"a": 1})), &["\"size\"", "double", "an object"]);
    refused(with("meta", nan), &["\"meta\"", "NaN", "JSON number"]);
    refused(with("meta", vec![f32::NAN]), &["\"meta\"", "NaN"]);
    refused(with("colour", "blue"), &["\"colour\"", "no such field", "\"title\""]);
    refused(with("$meta", json!({})), &["\"$meta\"", "reserved"]);
    let deep = (0..101).fold(json!(1), |inner, _| json!([inner]));
    refused(with("meta", deep), &["\"meta\"", "deeper than 100"]);
    let string_key = Schema::new(vec![Field::new("word", DataType::Varchar { max_length: 9 })], "word", false).unwrap();
    let rows = vec![row(json!({"word": "rain"})), row(json!({"word": "rain"}))];
    assert_names(
        &Batch::from_rows(&Arc::new(string_key), rows).unwrap_err(),
        &["row 1", "\"word\"", "key \"rain\" occurs twice"],
    );
}

/// One field `x` of that type beside the key.
fn only(data_type: DataType) -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64), Field::new("x", data_type)], "id", false).unwrap())
}

fn read(data_type: DataType, value: impl Into<Value>) -> Result<Value, String> {
    let row = Row::from([("id".to_owned(), Value::Int(1)), ("x".to_owned(), value.into())]);
    match Batch::from_rows(&only(data_type), vec![row]) {
        Ok(batch) => Ok(batch.row(0, None)["x"].clone()),
        Err(error) => {
            assert_names(&error, &["row 0", "\"x\""]);
            Err(error.message().to_owned())
        }
    }
}

#[test]
fn numbers_are_kept_or_refused_by_their_type() {
    for (data_type, max) in [
        (DataType::Int8, i64::from(i8::MAX)),
        (DataType::Int16, i64::from(i16::MAX)),
        (DataType::Int32, i64::from(i32::MAX)),
    ] {
        for value in [max, -max - 1, 0] {
            assert_eq!(read(data_type, value), Ok(Value::Int(value)));
        }
        for value in [max + 1, -max - 2, i64::MAX, i64::MIN] {
            let error = read(data_type, value).unwrap_err();
            assert!(error.contains(&format!("{value} is out of range, expected {} to {max}", -max - 1)), "{error}");
        }
        assert!(read(data_type, 1.0).unwrap_err().contains(&format!("expected an {data_type}, got the double 1")));
    }
    assert_eq!(read(DataType::Float, 0.1), Ok(Value::Float(0.1)));
    assert_eq!(read(DataType::Float, 3), Ok(Value::Float(3.0)));
    assert_eq!(read(DataType::Float, f64::from(f32::MAX)), Ok(Value::Float(f32::MAX)));
    assert!(read(DataType::Float, 3.5e38).unwrap_err().contains("beyond the range of a float"));
    assert!(read(DataType::Float, f32::NAN).unwrap_err().contains("expected a finite float, got the double NaN"));
    assert!(read(DataType::Float, "1").unwrap_err().contains("expected a finite float, got a string"));
}

#[test]
fn instants_are_microseconds() {
    let (first, last) = time::RANGE;
    assert_eq!(read(DataType::Timestamp, "1970-01-01T00:00:01.5Z"), Ok(Value::Int(1_500_000)));
    assert_eq!(read(DataType::Timestamp, last), Ok(Value::Int(last)));
    assert!(read(DataType::Timestamp, last + 1).unwrap_err().contains("out of range"));
    assert!(read(DataType::Timestamp, first - 1).unwrap_err().contains("out of range"));
    assert!(read(DataType::Timestamp, "yesterday").unwrap_err().contains("\"yesterday\" is no timestamp"));
    assert!(read(DataType::Timestamp, 1.5).unwrap_err().contains("expected a timestamp, got the double 1.5"));
    let one = |array: ArrayRef| {
        let rows = array.len();
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
        Batch::from_arrow(&only(DataType::Timestamp), &arrow(vec![("id", ids), ("x", array)]))
            .map(|batch| batch.row(0, None)["x"].clone())
    };
    assert_eq!(one(Arc::new(TimestampSecondArray::from(vec![2]))).unwrap(), Value::Int(2_000_000));
    assert_eq!(one(Arc::new(TimestampMillisecondArray::from(vec![-2]))).unwrap(), Value::Int(-2_000));
    assert_eq!(
        one(Arc::new(TimestampNanosecondArray::from(vec![2_000]).with_timezone("+01:00"))).unwrap(),
        Value::Int(2)
    );
    assert_eq!(one(Arc::new(Date32Array::from(vec![1]))).unwrap(), Value::Int(86_400_000_000));
    assert_names(&one(Arc::new(TimestampNanosecondArray::from(vec![1]))).unwrap_err(), &["row 0", "\"x\"", "Arrow's"]);
    assert_names(&one(Arc::new(TimestampSecondArray::from(vec![i64::MAX]))).unwrap_err(), &["row 0", "\"x\""]);
}

#[test]
fn arrays_are_kept_or_refused_by_their_elements() {
    let int8s = DataType::Array { element: Element::Int8, max_capacity: 3 };
    let values = |values: &[i64]| Value::Array(values.iter().map(|&value| Value::Int(value)).collect());
    assert_eq!(read(int8s, values(&[])), Ok(values(&[])));
    assert_eq!(read(int8s, values(&[-128, 127])), Ok(values(&[-128, 127])));
    assert_eq!(read(int8s, json!([1, 2])), Ok(values(&[1, 2])));
    assert!(read(int8s, json!([1, 2, 3, 4])).unwrap_err().contains("an array of 4 values, at most 3 are allowed"));
    assert!(read(int8s, json!([1, 200])).unwrap_err().contains("value 1: 200 is out of range, expected -128 to 127"));
    assert!(read(int8s, json!([1, null])).unwrap_err().contains("value 1: null, which an array cannot hold"));
    assert!(read(int8s, json!(["a"])).unwrap_err().contains("value 0: expected an int8, got a string"));
    assert!(read(int8s, json!([[1]])).unwrap_err().contains("value 0: expected an int8, got an array"));
    assert!(read(int8s, 1).unwrap_err().contains("expected array(int8, 3), got the integer 1"));
    let floats = DataType::Array { element: Element::Float, max_capacity: 3 };
    assert_eq!(read(floats, vec![0.5f32]), Ok(Value::Array(vec![Value::Float(0.5)])));
    assert!(read(floats, vec![f32::NAN]).unwrap_err().contains("value 0: expected a finite float"));
    let texts = DataType::Array { element: Element::Varchar { max_length: 2 }, max_capacity: 3 };
    assert!(read(texts, json!(["ab", "abc"])).unwrap_err().contains("value 1: a string of 3 bytes"));
}

#[test]
fn vectors_are_kept_as_their_type_says() {
    let numbers = |numbers: &[f32]| Value::Vector(numbers.to_vec());
    let halves = DataType::Float16Vector { dim: 2 };
    assert_eq!(read(halves, vec![0.1f32, 65_504.0]), Ok(numbers(&[0.099_975_586, 65_504.0])));
    assert_eq!(read(halves, json!([1, -2.5])), Ok(numbers(&[1.0, -2.5])));
    assert_eq!(read(halves, Value::Bytes(vec![0, 0x3c, 1, 0])), Ok(numbers(&[1.0, 5.960_464_5e-8])));
    assert!(read(halves, vec![1.0f32, 65_520.0]).unwrap_err().contains("number 1 is out of range"));
    assert!(read(halves, vec![f32::NAN, 1.0]).unwrap_err().contains("number 0 is out of range"));
    assert!(read(halves, Value::Bytes(vec![0, 0x7c, 0, 0])).unwrap_err().contains("number 0 is out of range"));
    assert!(read(halves, Value::Bytes(vec![0; 3])).unwrap_err().contains("a vector of 3 bytes, expected 4"));
    assert!(read(halves, vec![1.0f32]).unwrap_err().contains("a vector of 1 numbers, expected 2"));
    let brains = DataType::BFloat16Vector { dim: 2 };
    assert_eq!(read(brains, vec![1.0f32, 3e38]), Ok(numbers(&[1.0, 3.004_055_3e38])));
    assert!(read(brains, json!([1, 1e39])).unwrap_err().contains("number 1 is out of range"));
    let bytes = DataType::Int8Vector { dim: 2 };
    assert_eq!(read(bytes, vec![-128.0f32, 127.0]), Ok(numbers(&[-128.0, 127.0])));
    assert_eq!(read(bytes, Value::Bytes(vec![0x80, 0x7f])), Ok(numbers(&[-128.0, 127.0])));
    for (value, word) in [(128.0, "128"), (0.5, "0.5"), (f32::NAN, "NaN")] {
        let error = read(bytes, vec![0.0, value]).unwrap_err();
        assert!(error.contains(&format!("number 1 is {word}, expected an integer from -128 to 127")), "{error}");
    }
    let bits = DataType::BinaryVector { dim: 16 };
    assert_eq!(read(bits, Value::Bytes(vec![0, 255])), Ok(Value::Bytes(vec![0, 255])));
    assert_eq!(read(bits, json!([1, 255])), Ok(Value::Bytes(vec![1, 255])));
    assert!(read(bits, json!([1, 256])).unwrap_err().contains("number 1 is 256, expected an integer from 0 to 255"));
    assert!(read(bits, json!([1])).unwrap_err().contains("a vector of 1 bytes, expected 2"));
    assert!(read(bits, "text").unwrap_err().contains("expected a vector of 2 bytes, got a string"));
}

#[test]
fn sparse_vectors_are_kept_by_ascending_index() {
    let sparse = |value: Value| read(DataType::SparseFloatVector, value);
    let expected = Value::Sparse(vec![(2, 0.5), (10, -1.0)]);
    assert_eq!(sparse(expected.clone()), Ok(expected.clone()));
    assert_eq!(sparse(json!({"10": -1, "2": 0.5}).into()), Ok(expected.clone()));
    assert_eq!(sparse(json!([[2, 0.5], [10, -1]]).into()), Ok(expected));
    assert_eq!(sparse(Value::Sparse(vec![])), Ok(Value::Sparse(vec![])));
    for (value, words) in [
        (json!([[10, 1], [2, 1]]), "index 2 after 10, but indexes ascend and none comes twice"),
        (json!([[2, 1], [2, 1]]), "index 2 after 2"),
        (json!([[-1, 1]]), "expected an index from 0 to 4294967294, got the integer -1"),
        (json!([[4_294_967_295u32, 1]]), "expected an index from 0 to 4294967294"),
        (json!([[1, "x"]]), "expected a number at index 1, got a string"),
        (json!([[1, 1e39]]), "inf at index 1"),
        (json!([[1]]), "1 values, expected a pair"),
        (json!([1]), "expected a pair of an index and a number, got the integer 1"),
        (json!({"a": 1}), "expected an index from 0 to 4294967294, got a string"),
        (json!("a"), "expected a sparse vector"),
        ((0..32_769).map(|index| json!([index, 1])).collect(), "32769 pairs, at most 32768"),
    ] {
        let error = sparse(Value::from(value)).unwrap_err();
        assert!(error.contains(words), "{words:?} not in {error}");
    }
    assert!(sparse(Value::Sparse(vec![(1, f32::NAN)])).unwrap_err().contains("NaN at index 1"));
    assert!(sparse(Value::Sparse(vec![(3, 1.0), (1, 1.0)])).unwrap_err().contains("index 1 after 3"));
}

#[test]
fn defaults_and_nulls() {
    let mut third = with("size", Value::Null);
    third.insert("id".to_owned(), Value::Int(8));
    let batch = Batch::from_rows(&schema(), vec![good(1), with("done", Value::Null), third]).unwrap();
    let expected = |done: Json| row(json!({"done": done, "size": 1.0, "meta": null}));
    let read = |at| batch.row(at, Some(&["done", "size", "meta"].map(str::to_owned)));
    assert_eq!(read(0), expected(json!(false)));
    // An explicit null stays null where it may; elsewhere it is missing.
    assert_eq!(read(1), expected(json!(null)));
    assert_eq!(read(2), expected(json!(false)));
    assert_names(&Batch::from_rows(&schema(), vec![Row::new()]).unwrap_err(), &["row 0", "\"id\"", "is missing"]);
}

#[test]
fn what_fits_is_taken() {
    let schema = schema();
    let meta = |value: Value| {
        let batch = Batch::from_rows(&schema, vec![with("meta", value)]).unwrap();
        batch.row(0, None)["meta"].clone()
    };
    assert_eq!(meta(Value::Int(3)), Value::Int(3));
    assert_eq!(meta(Value::from("text")), Value::from("text"));
    assert_eq!(meta(Value::Vector(vec![0.5, 1.0])), Value::Json(json!([0.5, 1.0])));
    assert_eq!(meta(Value::Json(json!("text"))), Value::from("text"));
    let batch = Batch::from_rows(&schema, vec![with("size", 3)]).unwrap();
    assert_eq!(batch.row(0, None)["size"], Value::Double(3.0));
    assert_eq!(batch.row(0, None)["embedding"], Value::Vector(vec![1.0, 0.5]));
    assert_eq!(batch.vector("embedding").unwrap().data, [1.0, 0.5]);
}

#[test]
fn no_rows_are_a_batch() {
    let schema = schema();
    for batch in [Batch::empty(&schema), Batch::from_rows(&schema, vec![]).unwrap()] {
        assert!(batch.is_empty());
        assert_eq!(batch.keys(), []);
        assert_eq!(batch.scalars().num_columns(), 5);
        assert_eq!(Batch::from_arrow(&schema, &batch.to_arrow()).unwrap(), batch);
    }
}

#[test]
fn dynamic_names_are_rows_of_their_own() {
    let fields = vec![Field::new("id", DataType::Int64)];
    let schema = Arc::new(Schema::new(fields, "id", true).unwrap());
    let rows = vec![row(json!({"id": 1, "tag": "x", "n": null, "list": [1, {"a": 2}]})), row(json!({"id": 2}))];
    let batch = Batch::from_rows(&schema, rows.clone()).unwrap();
    assert_eq!(rows_of(&batch), rows);
    assert_eq!(batch.scalars().column(1).null_count(), 1);
    let names = ["tag", "id", "absent"].map(str::to_owned);
    assert_eq!(batch.row(0, Some(&names)), row(json!({"id": 1, "tag": "x"})));
    assert_eq!(batch.row(1, Some(&names)), row(json!({"id": 2})));
    let error = Batch::from_rows(&schema, vec![row(json!({"id": 1, "$meta": {}}))]).unwrap_err();
    assert_names(&error, &["row 0", "$meta", "reserved"]);
}

#[test]
fn too_large_a_batch_says_how_large() {
    let fields = vec![Field::new("id", DataType::Int64), Field::new("v", DataType::FloatVector { dim: 32_768 })];
    let schema = Arc::new(Schema::new(fields, "id", false).unwrap());
    let rows = |count: i64| -> Vec<Row> {
        let vector = Value::Vector(vec![1.0; 32_768]);
        (0..count).map(|id| [("id".to_owned(), Value::Int(id)), ("v".to_owned(), vector.clone())].into()).collect()
    };
    // 131,080 bytes a row: 511 rows fit.
    let fitting = Batch::from_rows(&schema, rows(511)).unwrap();
    let error = Batch::from_rows(&schema, rows(600)).unwrap_err();
    assert_names(&error, &["67112960 bytes", "first 512 of its 600 rows", "67108864"]);
    // What a segment holds may be larger, and may hold a key twice.
    let whole = Batch::concat(&[fitting.clone(), fitting]);
    assert_names(&Batch::from_arrow(&schema, &whole.to_arrow()).unwrap_err(), &["too large"]);
    assert_eq!(Batch::from_stored(&schema, &whole.to_arrow()).unwrap(), whole);
    assert!(whole.memory_bytes() > 1022 * 131_080 && whole.memory_bytes() < 1022 * 131_080 * 5 / 4);
}

/// A small dictionary can stand for much text: 16 bytes a row here, for 64 kB each.
#[test]
fn an_expanding_dictionary_is_stopped_in_time() {
    let text = Field::new("t", DataType::Varchar { max_length: 65_535 });
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64), text], "id", false).unwrap());
    let rows = 100_000;
    let keys = Int8Array::from(vec![0; rows]);
    let dictionary = DictionaryArray::<Int8Type>::new(keys, Arc::new(StringArray::from(vec!["x".repeat(65_535)])));
    let arrow =
        arrow(vec![("id", Arc::new(Int64Array::from_iter_values(0..rows as i64))), ("t", Arc::new(dictionary))]);
    assert_names(&Batch::from_arrow(&schema, &arrow).unwrap_err(), &["too large", "of its 100000 rows"]);
}

fn arrow(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<ArrowField> =
        columns.iter().map(|(name, array)| ArrowField::new(*name, array.data_type().clone(), true)).collect();
    let columns = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns).unwrap()
}

fn vectors(rows: &[[f64; 2]]) -> ArrayRef {
    let mut lists = ListBuilder::new(Float64Builder::new());
    rows.iter().for_each(|row| lists.append_value(row.map(Some)));
    Arc::new(lists.finish())
}

fn one(name: &str, array: ArrayRef) -> Result<Vec<Value>, Error> {
    let rows = array.len();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("title", Arc::new(StringArray::from(vec!["t"; rows]))),
        ("embedding", vectors(&vec![[1.0, 2.0]; rows])),
    ];
    columns.retain(|(other, _)| *other != name);
    columns.push((name, array));
    let batch = Batch::from_arrow(&schema(), &arrow(columns))?;
    Ok((0..batch.len()).map(|row| batch.row(row, None)[name].clone()).collect())
}

#[test]
fn arrow_types_are_converted() {
    let ints = [Value::Int(3), Value::Int(4)];
    assert_eq!(one("id", Arc::new(Int8Array::from(vec![3, 4]))).unwrap(), ints);
    assert_eq!(one("id", Arc::new(Int16Array::from(vec![3, 4]))).unwrap(), ints);
    assert_eq!(one("id", Arc::new(UInt32Array::from(vec![3, 4]))).unwrap(), ints);
    assert_eq!(one("id", Arc::new(UInt64Array::from(vec![3, 4]))).unwrap(), ints);
    let doubles = [Value::Double(0.5), Value::Double(2.0)];
    assert_eq!(one("size", Arc::new(Float32Array::from(vec![0.5, 2.0]))).unwrap(), doubles);
    assert_eq!(one("size", Arc::new(Float64Array::from(vec![0.5, 2.0]))).unwrap(), doubles);
    let halves = Float16Array::from_iter_values([0.5, 2.0].map(half::f16::from_f32));
    assert_eq!(one("size", Arc::new(halves)).unwrap(), doubles);
    let texts = [Value::from("a"), Value::from("b")];
    assert_eq!(one("title", Arc::new(LargeStringArray::from(vec!["a", "b"]))).unwrap(), texts);
    assert_eq!(one("title", Arc::new(StringViewArray::from(vec!["a", "b"]))).unwrap(), texts);
    let dictionary: DictionaryArray<Int8Type> = vec!["a", "b"].into_iter().collect();
    assert_eq!(one("title", Arc::new(dictionary)).unwrap(), texts);
    assert_eq!(one("done", Arc::new(NullArray::new(2))).unwrap(), [Value::Null, Value::Null]);
    assert_eq!(
        one("done", Arc::new(BooleanArray::from(vec![Some(true), None]))).unwrap(),
        [Value::Bool(true), Value::Null]
    );
    let json = StringArray::from(vec![Some("[1, 2]"), Some("\"x\""), Some("null"), None]);
    let expected = [Value::Json(json!([1, 2])), Value::from("x"), Value::Null, Value::Null];
    assert_eq!(one("meta", Arc::new(json)).unwrap(), expected);
    assert_eq!(one("meta", Arc::new(Int8Array::from(vec![5]))).unwrap(), [Value::Int(5)]);
}

#[test]
fn lists_of_numbers_are_vectors() {
    let expected = [Value::Vector(vec![1.0, 2.0]), Value::Vector(vec![3.0, -4.0])];
    assert_eq!(one("embedding", vectors(&[[1.0, 2.0], [3.0, -4.0]])).unwrap(), expected);
    let mut large = LargeListBuilder::new(Int8Builder::new());
    let mut fixed = FixedSizeListBuilder::new(Int8Builder::new(), 2);
    for pair in [[1, 2], [3, -4]] {
        large.append_value(pair.map(Some));
        fixed.values().append_slice(&pair);
        fixed.append(true);
    }
    assert_eq!(one("embedding", Arc::new(large.finish())).unwrap(), expected);
    let fixed = fixed.finish();
    assert_eq!(one("embedding", Arc::new(fixed.clone())).unwrap(), expected);
    // A slice must not read the rows before it.
    assert_eq!(one("embedding", Arc::new(fixed.slice(1, 1))).unwrap(), expected[1..]);

    let fields = vec![Field::new("id", DataType::Int64), Field::new("v", DataType::FloatVector { dim: 2 })];
    let schema = Arc::new(Schema::new(fields, "id", false).unwrap());
    let directions = |vectors: ArrayRef| {
        let normalized = std::collections::HashMap::from([(NORMALIZED_METADATA.to_owned(), "true".to_owned())]);
        let fields = vec![
            ArrowField::new("id", arrow_schema::DataType::Int64, false),
            ArrowField::new("v", vectors.data_type().clone(), false).with_metadata(normalized),
        ];
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..vectors.len() as i64));
        Batch::from_arrow(
            &schema,
            &RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), vec![ids, vectors]).unwrap(),
        )
    };
    assert_eq!(directions(Arc::new(fixed.slice(1, 1))).unwrap().vectors()[0].data, [0.6, -0.8]);
    assert_names(&directions(vectors(&[[1.0, 0.0], [0.0, 0.0]])).unwrap_err(), &["row 1", "\"v\"", "no direction"]);
}

#[test]
fn each_wrong_arrow_column_is_named() {
    let refused = |name: &str, array: ArrayRef, words: &[&str]| assert_names(&one(name, array).unwrap_err(), words);
    refused("id", Arc::new(UInt64Array::from(vec![1, u64::MAX])), &["row 1", "\"id\"", "beyond int64"]);
    refused("id", Arc::new(Int64Array::from(vec![Some(1), None])), &["row 1", "\"id\"", "is null"]);
    refused("id", Arc::new(Int64Array::from(vec![1, 1])), &["row 1", "\"id\"", "twice"]);
    refused("id", Arc::new(Float64Array::from(vec![1.0])), &["row 0", "\"id\"", "int64", "the double 1"]);
    refused("title", Arc::new(StringArray::from(vec![None, Some("x")])), &["row 0", "\"title\"", "is null"]);
    refused("title", Arc::new(StringArray::from(vec!["ok", "too long"])), &["row 1", "\"title\"", "8 bytes"]);
    refused("title", Arc::new(Date32Array::from(vec![1])), &["row 0", "\"title\"", "an instant"]);
    refused("size", Arc::new(Float64Array::from(vec![1.0, f64::NAN])), &["row 1", "\"size\"", "NaN"]);
    refused("meta", Arc::new(StringArray::from(vec!["{", "1"])), &["row 0", "\"meta\"", "not JSON text"]);
    refused("meta", Arc::new(StringArray::from(vec!["1e999"])), &["row 0", "\"meta\"", "not JSON text"]);
    refused("embedding", vectors(&[[1.0, f64::INFINITY]]), &["row 0", "\"embedding\"", "number 1 is inf"]);
    refused("embedding", Arc::new(Int64Array::from(vec![1])), &["row 0", "\"embedding\"", "a vector of 2"]);
    refused("embedding", Arc::new(NullArray::new(1)), &["row 0", "\"embedding\"", "is null"]);
    let mut lists = ListBuilder::new(Float64Builder::new());
    lists.append_value([Some(1.0), Some(2.0)]);
    lists.append_value([Some(1.0), None]);
    refused("embedding", Arc::new(lists.finish()), &["row 1", "\"embedding\"", "number 1 is null"]);
    lists.append_value([Some(1.0)]);
    refused("embedding", Arc::new(lists.finish()), &["row 0", "\"embedding\"", "1 numbers, expected 2"]);
    refused("colour", Arc::new(StringArray::from(vec!["blue"])), &["\"colour\"", "no such field"]);
    // A dictionary of no values, in which every row is null.
    let nothing =
        DictionaryArray::<Int8Type>::new(Int8Array::from(vec![None]), Arc::new(StringArray::from(Vec::<&str>::new())));
    refused("title", Arc::new(nothing), &["row 0", "\"title\"", "is null"]);
    let twice = arrow(vec![("id", Arc::new(Int64Array::from(vec![1]))), ("id", Arc::new(Int64Array::from(vec![1])))]);
    assert_names(&Batch::from_arrow(&schema(), &twice).unwrap_err(), &["\"id\" occurs twice"]);
}

#[test]
fn unknown_arrow_columns_are_dynamic() {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64)], "id", true).unwrap());
    let ids = || -> (&str, ArrayRef) { ("id", Arc::new(Int64Array::from(vec![1, 2]))) };
    let tags: ArrayRef = Arc::new(StringArray::from(vec![Some("[1]"), None]));
    let meta: ArrayRef = Arc::new(StringArray::from(vec![None, Some("{\"n\": 1.5}")]));
    let batch = Batch::from_arrow(&schema, &arrow(vec![("tag", tags.clone()), (META_COLUMN, meta), ids()])).unwrap();
    assert_eq!(rows_of(&batch), [row(json!({"id": 1, "tag": "[1]"})), row(json!({"id": 2, "n": 1.5}))]);
    for (text, words) in [("[1]", "a JSON object"), ("{\"id\": 3}", "\"id\" is a field"), ("{", "not JSON")] {
        let meta: ArrayRef = Arc::new(StringArray::from(vec![None, Some(text)]));
        let error = Batch::from_arrow(&schema, &arrow(vec![ids(), (META_COLUMN, meta)])).unwrap_err();
        assert_names(&error, &["row 1", META_COLUMN, words]);
    }
    let dates: ArrayRef = Arc::new(Date32Array::from(vec![1, 2]));
    let error = Batch::from_arrow(&schema, &arrow(vec![ids(), ("day", dates)])).unwrap_err();
    assert_names(&error, &["row 0", "\"day\"", "an instant"]);
}
