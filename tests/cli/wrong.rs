//! Files that are not what they should be: an error of one line that says where, and what was right before it stays.

use crate::native::{Server, collection_info, run, run_well, write};

#[test]
fn tables_name_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let fine = write(directory.path(), "fine.csv", "id,n,name,v\n1,1,one,\"[1,2]\"\n");
    run_well(&data, &["import", "t", &fine, "--vector-field", "v"]);
    for (name, text, words) in [
        ("a.csv", "id,n,name,v\n2,2,b,1 2\nx,3,c,1 2\n", &["a.csv:3:", "column 1 (id)", "\"x\" is no int64"][..]),
        (
            "b.csv",
            "id,n,name,v\n2,2,b,1 2 3\n",
            &["b.csv:2:", "column 4 (v)", "3 numbers where the vector field has 2"][..],
        ),
        ("c.csv", "id,n,name,v\n2,2,b,1 nan\n", &["c.csv:2:", "column 4 (v)", "\"nan\" at place 2"][..]),
        ("d.csv", "id,n,name,v\n2,2,b\n", &["d.csv:2:", "3 columns where the header has 4"][..]),
        ("e.csv", "id,n,name,v\n2,2,\"b\nc\",1 2\n,2,b,1 2\n", &["e.csv:4:", "column 1 (id)", "is empty"][..]),
        ("f.csv", "id,n,name,color\n", &["f.csv", "\"color\" has no field"][..]),
        ("g.csv", "id,n,n,v\n", &["g.csv:1:", "two columns are named \"n\""][..]),
        ("h.csv", "", &["h.csv", "empty"][..]),
        ("i.csv", "id,n,name\n2,2,b\n", &["i.csv:2:", "\"v\""][..]),
        ("j.jsonl", "{\"id\": 2, \"v\": [1, 2]}\n{\"id\": 3, \"v\": [1, 2}\n", &["j.jsonl:2:", "column "][..]),
        ("k.jsonl", "{\"id\": 2, \"v\": [1, 2]}\n\n[]\n", &["k.jsonl:3:"][..]),
        ("l.jsonl", "{\"id\": 2, \"v\": [1, 2]}\n{\"id\": 3, \"v\": [1]}\n", &["l.jsonl:2:", "\"v\""][..]),
        ("m.jsonl", "{\"id\": 2, \"v\": [1, 2], \"color\": 1}\n", &["m.jsonl:1:", "color"][..]),
        ("n.jsonl", "{\"id\": \"two\", \"v\": [1, 2]}\n", &["n.jsonl:1:", "\"id\""][..]),
        ("o.txt", "id\n", &["--format"][..]),
        ("p.arrow", "ARROW1\0\0", &["p.arrow", "corrupt"][..]),
        ("q.arrow", "no arrow at all, but long enough", &["q.arrow", "corrupt"][..]),
        ("r.parquet", "PAR1 and no more", &["r.parquet", "corrupt"][..]),
        ("s.npy", "x", &["--vectors"][..]),
    ] {
        let path = write(directory.path(), name, text);
        let (code, out, err) = run(&data, &["import", "t", &path]);
        assert_eq!((code, out.as_str()), (1, ""), "{name}: {err}");
        let last = err.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: "), "{name}: {err}");
        for word in words {
            assert!(last.contains(word), "{name}: {word} is missing in {last}");
        }
    }
    let latin = write(directory.path(), "latin.csv", b"id,n,name,v\n2,2,caf\xe9,1 2\n");
    let (code, _, err) = run(&data, &["import", "t", &latin]);
    assert_eq!(code, 1);
    assert!(err.contains("latin.csv:2: column 3: not UTF-8"), "{err}");
    assert_eq!(collection_info(&data, "t")["rows"], 1);
}

#[test]
fn what_stood_before_the_wrong_batch_stays() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut text: String = (0..25).map(|id| format!("{{\"id\": {id}, \"v\": [1, {id}]}}\n")).collect();
    text += "{\"id\": 25, \"v\": [1]}\n";
    let path = write(directory.path(), "rows.jsonl", &text);
    let header = write(directory.path(), "first.jsonl", "{\"id\": 0, \"v\": [1, 0]}\n");
    run_well(&data, &["import", "t", &header, "--vector-field", "v"]);
    let (code, _, err) = run(&data, &["import", "t", &path, "--batch-rows", "10"]);
    assert_eq!(code, 1);
    assert!(err.contains("rows.jsonl:26:"), "{err}");
    assert_eq!(collection_info(&data, "t")["rows"], 20);
    // Mended, the file is another one, and is read from its beginning; rows that are there are replaced.
    let path = write(directory.path(), "rows.jsonl", text.replace("\"v\": [1]}", "\"v\": [1, 25]}"));
    run_well(&data, &["import", "t", &path, "--batch-rows", "10"]);
    assert_eq!(collection_info(&data, "t")["rows"], 26);
}

#[test]
fn hostile_npy_headers() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let table = write(directory.path(), "t.csv", "id\n1\n2\n");
    let npy = |header: &str, data: &[u8]| {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    };
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    for (bytes, kind, words) in [
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 32768), }", &[0; 8]),
            "corrupt",
            "promises",
        ),
        (npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", &[0; 23]), "corrupt", "promises 2 rows"),
        (npy("{'descr': '|O', 'fortran_order': False, 'shape': (2, 1), }", &[0; 8]), "unsupported", "\"|O\""),
        (npy("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 1), }", &[0; 8]), "unsupported", "Fortran"),
        (npy("__import__('os').system('true')", &[]), "corrupt", "at byte 10"),
        (long, "corrupt", "4294967295 bytes"),
        (b"PK\x03\x04 a zip".to_vec(), "corrupt", "no .npy file"),
        (Vec::new(), "corrupt", "ends inside"),
    ] {
        let vectors = write(directory.path(), "v.npy", bytes);
        let (code, _, err) = run(&data, &["import", "t", &table, "--vectors", &vectors]);
        assert_eq!(code, 1, "{err}");
        assert!(
            err.contains(&format!("error: {kind}: ")) && err.contains("v.npy") && err.contains(words),
            "{words}: {err}"
        );
    }
    assert!(collection_info(&data, "t").is_null(), "nothing was created");
}

#[test]
fn a_new_collection_needs_a_key_that_can_be_one() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let path = write(directory.path(), "t.csv", "slug,price\na,1.5\nb,2\n");
    let (code, _, err) = run(&data, &["import", "t", &path]);
    assert_eq!(code, 1);
    assert!(err.contains("--key") && err.contains("slug, price"), "{err}");
    let (code, _, err) = run(&data, &["import", "t", &path, "--key", "price"]);
    assert_eq!(code, 1);
    assert!(err.contains("\"price\" cannot be the primary key"), "{err}");
    run_well(&data, &["import", "t", &path, "--key", "slug"]);
    assert_eq!(collection_info(&data, "t")["rows"], 2);
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let path = write(directory.path(), "t.csv", "id\n1\n");
    let server = Server::start(&data, &[]);
    for args in [&["info"][..], &["import", "t", &path][..], &["search", "t", "x"][..]] {
        let (code, _, err) = run(&data, args);
        assert_eq!(code, 1);
        assert!(err.starts_with("error: locked: ") && err.contains("data") && err.lines().count() == 1, "{err}");
    }
    assert_eq!(server.get("/health").status, 200, "the owner is not disturbed");
    server.kill();
    run_well(&data, &["import", "t", &path]);
}

#[test]
fn a_directory_without_a_store_is_not_made_one_by_asking() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("nothing");
    for args in [&["info"][..], &["search", "t", "x"][..]] {
        let (code, _, err) = run(&data, args);
        assert_eq!(code, 1);
        assert!(err.starts_with("error: not_found: "), "{err}");
    }
    assert!(!data.exists());
}
