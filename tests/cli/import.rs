use std::path::Path;
use std::sync::Arc;

use arrow_array::types::Float32Type;
use arrow_array::{ArrayRef, FixedSizeListArray, Int32Array, LargeStringArray, ListArray, RecordBatch, StringArray};
use arrow_ipc::CompressionType;
use arrow_ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use serde_json::{Value, json};

use crate::native::{collection_info, run, run_well, write};

/// All rows of a collection, by key, through a search that every row is a hit of.
fn rows(data: &Path, collection: &str, vector: &str) -> Vec<Value> {
    let out = run_well(data, &["search", collection, "--vector", vector, "--limit", "1000", "--exact", "--json"]);
    let answer: Value = serde_json::from_str(&out).unwrap();
    let mut rows: Vec<Value> = answer["hits"].as_array().unwrap().iter().map(|hit| hit["row"].clone()).collect();
    rows.sort_by_key(|row| row["id"].to_string());
    rows
}

/// The vector with which every test collection of three numbers can be searched.
const ANY: &str = "[1, 1, 1]";

fn field_types(data: &Path, collection: &str) -> Vec<(String, String)> {
    let info = collection_info(data, collection);
    let fields = info["schema"]["fields"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    fields.iter().map(|field| (text(&field["name"]), text(&field["type"]))).collect()
}

fn npy(descr: &str, rows: usize, dim: usize, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dim}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn arrow_batch() -> RecordBatch {
    let vectors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]];
    let columns: [(&str, ArrayRef); 4] = [
        ("id", Arc::new(Int32Array::from(vec![1, 2]))),
        ("title", Arc::new(LargeStringArray::from(vec![Some("one"), None]))),
        (
            "tags",
            Arc::new({
                let mut builder = arrow_array::builder::ListBuilder::new(arrow_array::builder::StringBuilder::new());
                builder.append_value([Some("a"), Some("b")]);
                builder.append_value([None::<&str>; 0]);
                builder.finish()
            }),
        ),
        (
            "embedding",
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
                vectors.iter().map(|vector| Some(vector.iter().map(|&value| Some(value)))),
                3,
            )),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn expected_arrow_rows() -> Vec<Value> {
    vec![json!({"id": 1, "title": "one", "tags": ["a", "b"]}), json!({"id": 2, "title": null, "tags": []})]
}

#[test]
fn csv_with_inferred_types() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = write(
        directory.path(),
        "notes.csv",
        "\u{feff}id,First name,done,price,meta,v\r\n\
         1,\"Ann, the first\",true,1,\"{\"\"a\"\":[1,2]}\",\"[1, 0, 0]\"\r\n\
         2,,,2.5,,\"[0, 1, 0]\"\r\n\
         3,\"two\nlines\",false,,,\"[0, 0, 1]\"\r\n",
    );
    let out = run_well(&data, &["import", "notes", &file, "--vector-field", "v", "--metric", "IP"]);
    assert!(out.contains("created and imported 3 rows into \"notes\""), "{out}");
    let types = [
        ("id", "int64"),
        ("First_name", "varchar"),
        ("done", "bool"),
        ("price", "double"),
        ("meta", "json"),
        ("v", "float_vector"),
    ];
    assert_eq!(field_types(&data, "notes"), types.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    assert_eq!(
        rows(&data, "notes", ANY),
        [
            json!({"id": 1, "First_name": "Ann, the first", "done": true, "price": 1.0, "meta": {"a": [1, 2]}}),
            json!({"id": 2, "First_name": null, "done": null, "price": 2.5, "meta": null}),
            json!({"id": 3, "First_name": "two\nlines", "done": false, "price": null, "meta": null}),
        ]
    );
    // Into the collection that is there: columns in another order, one row new, one replaced.
    let more = write(directory.path(), "more.csv", "v,id,First name\n1 1 1,2,Bob\n\"0;0;9\",4,Eve\n");
    let out = run_well(&data, &["import", "notes", &more]);
    assert!(out.starts_with("imported 2 rows"), "{out}");
    let rows = rows(&data, "notes", ANY);
    assert_eq!(rows.len(), 4);
    assert_eq!((&rows[1]["First_name"], &rows[1]["price"]), (&json!("Bob"), &Value::Null));
    assert_eq!(rows[3]["First_name"], "Eve");
}

#[test]
fn tsv_has_no_quotes_and_vectors_come_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let table = write(directory.path(), "symbols.tsv", "id\tsymbol\n33\t!\n34\t\"\n35\t#\n");
    let floats: Vec<f32> = vec![1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
    let widths: [(&str, Vec<u8>); 3] = [
        ("<f2", floats.iter().flat_map(|&value| half::f16::from_f32(value).to_le_bytes()).collect()),
        ("<f4", floats.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ("<f8", floats.iter().flat_map(|&value| f64::from(value).to_le_bytes()).collect()),
    ];
    for (descr, bytes) in widths {
        let data = directory.path().join(descr);
        let vectors = write(directory.path(), "symbols.npy", npy(descr, 3, 3, &bytes));
        run_well(&data, &["import", "symbols", &table, "--vectors", &vectors]);
        let out = run_well(&data, &["search", "symbols", "--vector", "[0.1, 0.9, 0]", "--limit", "1", "--json"]);
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&answer["hits"][0]["key"], &answer["hits"][0]["row"]["symbol"]),
            (&json!(34), &json!("\"")),
            "{descr}"
        );
    }
    let data = directory.path().join("other");
    let vectors = write(directory.path(), "short.npy", npy("<f4", 2, 3, &[0; 24]));
    let (code, _, err) = run(&data, &["import", "symbols", &table, "--vectors", &vectors]);
    assert_eq!(code, 1);
    assert!(err.contains("has 3 rows and") && err.contains("has 2"), "{err}");
}

#[test]
fn json_lines_keep_what_the_schema_does_not_have() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let first = "{\"id\": \"a\", \"n\": 1, \"embedding\": [1,0,0,0,0,0,0,0], \"odd name\": 7}\n\n\
                 {\"id\": \"b\", \"n\": 2.5, \"embedding\": [0,1,0,0,0,0,0,0], \"mixed\": [1, \"x\"]}\n";
    let file = write(directory.path(), "notes.jsonl", first);
    run_well(&data, &["import", "notes", &file]);
    let types = [("embedding", "float_vector"), ("id", "varchar"), ("mixed", "json"), ("n", "double")];
    let mut found = field_types(&data, "notes");
    found.sort();
    assert_eq!(found, types.map(|(name, kind)| (name.to_owned(), kind.to_owned())));
    let any = "[1,1,1,1,1,1,1,1]";
    assert_eq!(
        rows(&data, "notes", any),
        [json!({"id": "a", "n": 1.0, "odd name": 7, "mixed": null}), json!({"id": "b", "n": 2.5, "mixed": [1, "x"]}),]
    );
    let more =
        write(directory.path(), "more.ndjson", "{\"id\":\"c\",\"embedding\":[0,0,0,0,0,0,0,1],\"later\":{\"x\":1}}");
    run_well(&data, &["import", "notes", &more]);
    assert_eq!(rows(&data, "notes", any)[2], json!({"id": "c", "n": null, "mixed": null, "later": {"x": 1}}));
}

#[test]
fn arrow_files_and_streams_also_compressed() {
    let directory = tempfile::tempdir().unwrap();
    let batch = arrow_batch();
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let options = || IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let (mut file, mut stream) = (Vec::new(), Vec::new());
        let mut writer = FileWriter::try_new_with_options(&mut file, &batch.schema(), options()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        drop(writer);
        let mut writer = StreamWriter::try_new_with_options(&mut stream, &batch.schema(), options()).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        drop(writer);
        for (name, bytes) in [("rows.arrow", file), ("rows.arrows", stream)] {
            let data = directory.path().join(format!("{name}-{compression:?}"));
            let path = write(directory.path(), name, bytes);
            run_well(&data, &["import", "rows", &path]);
            assert_eq!(rows(&data, "rows", ANY), expected_arrow_rows(), "{name} {compression:?}");
        }
    }
}

#[test]
fn parquet_with_lists_of_any_kind() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let parquet = |batch: &RecordBatch| {
        let mut bytes = Vec::new();
        let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
        bytes
    };
    let path = write(directory.path(), "rows.parquet", parquet(&arrow_batch()));
    run_well(&data, &["import", "rows", &path]);
    assert_eq!(rows(&data, "rows", ANY), expected_arrow_rows());
    // Other writers know no lists of one length.
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int32Array::from(vec![7]))),
        ("title", Arc::new(StringArray::from(vec!["seven"]))),
        (
            "embedding",
            Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([Some(vec![
                Some(1.0),
                Some(2.0),
                Some(3.0),
            ])])),
        ),
    ];
    let path = write(directory.path(), "more.parquet", parquet(&RecordBatch::try_from_iter(columns).unwrap()));
    run_well(&data, &["import", "rows", &path]);
    assert_eq!(rows(&data, "rows", ANY).len(), 3);
    let other = directory.path().join("other");
    run_well(&other, &["import", "rows", &path]);
    assert_eq!(field_types(&other, "rows")[2], ("embedding".to_owned(), "float_vector".to_owned()));
}

#[test]
fn several_files_and_the_last_row_of_a_key_wins() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let first = write(directory.path(), "1.csv", "id,n,v\n1,1,1 0 0\n1,2,1 0 0\n2,3,0 1 0\n");
    let second = write(directory.path(), "2.csv", "id,n,v\n2,4.5,0 1 0\n3,5,0 0 1\n");
    let (code, out, err) = run(&data, &["import", "n", &first, &second]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("imported 5 rows") && out.contains("1 were replaced"), "{out}");
    // A list written with spaces is text to a guess, so the vectors are in a JSON Lines file here.
    assert_eq!(field_types(&data, "n")[1], ("n".to_owned(), "double".to_owned()));
    let vectors = write(
        directory.path(),
        "3.jsonl",
        "{\"id\":1,\"v\":[1,0]}\n{\"id\":2,\"v\":[0,1]}\n{\"id\":1,\"v\":[0.5,0.5],\"n\":2}\n",
    );
    run_well(&data, &["import", "m", &vectors, "--vector-field", "v"]);
    assert_eq!(rows(&data, "m", "[1, 1]"), [json!({"id": 1, "n": 2}), json!({"id": 2, "n": null})]);
}
