use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::compress::Codec;
use crate::base::{ErrorKind, Lsn, ReplicaId, Result, SegmentId, Sequence, Timestamp, Version};
use crate::distance::Metric;
use crate::index::{IndexKind, IndexSpec};
use crate::model::{Batch, Key, Row, Schema, Value};

const SPEC: &str = r#"{"fields":[{"name":"id","type":"int64","primaryKey":true},
    {"name":"kind","type":"varchar","maxLength":20},
    {"name":"text","type":"varchar"},
    {"name":"price","type":"double","nullable":true},
    {"name":"sold","type":"bool","nullable":true},
    {"name":"facts","type":"json","nullable":true},
    {"name":"embedding","type":"float_vector","dim":24},
    {"name":"small","type":"float_vector","dim":2}],
    "dynamic":true}"#;

struct Spec {
    schema: Arc<Schema>,
    indexes: BTreeMap<String, IndexSpec>,
}

fn spec() -> Spec {
    let index = |kind| IndexSpec { metric: Metric::L2, kind };
    let indexes = [("embedding", index(IndexKind::HNSW)), ("small", index(IndexKind::Flat))];
    let indexes = indexes.map(|(field, index)| (field.to_owned(), index)).into();
    Spec { schema: Arc::new(serde_json::from_str(SPEC).unwrap()), indexes }
}

fn row(id: i64) -> Row {
    let words = ["amber", "birch", "cedar", "dune", "ember"];
    let text: Vec<&str> = (0..30).map(|at| words[(id as usize * 7 + at * at) % words.len()]).collect();
    let mut row = Row::from([
        ("id".to_owned(), Value::Int(id)),
        ("kind".to_owned(), Value::String(words[id as usize % 3].to_owned())),
        ("text".to_owned(), Value::String(format!("{id}: {}", text.join(" ")))),
        ("price".to_owned(), if id % 5 == 0 { Value::Null } else { Value::Double(id as f64 / 4.0) }),
        ("sold".to_owned(), Value::Bool(id % 2 == 0)),
        ("facts".to_owned(), Value::Json(serde_json::json!({ "id": id, "tags": [words[id as usize % 5]] }))),
        ("embedding".to_owned(), Value::Vector((0..24).map(|at| (id * 24 + at) as f32 / 8.0).collect())),
        ("small".to_owned(), Value::Vector(vec![id as f32, -1.0])),
    ]);
    if id % 3 == 0 {
        row.insert("extra".to_owned(), Value::Int(id * 10));
    }
    row
}

fn segment(rows: i64) -> Segment {
    let spec = spec();
    let mut segment = Segment::new(SegmentId(7), &spec.schema, &spec.indexes);
    let version = |sequence| Version {
        timestamp: Timestamp(1_700_000_000_000 << 18),
        origin: ReplicaId(99),
        sequence: Sequence(sequence),
    };
    for (index, ids) in (0..rows).collect::<Vec<_>>().chunks(1000).enumerate() {
        let batch = Batch::from_rows(&spec.schema, ids.iter().map(|&id| row(id)).collect()).unwrap();
        let versions = vec![version(index as u64 + 1); batch.len()];
        segment.push(&batch, &versions, Lsn(index as u64 + 1));
    }
    segment.deletes.push(Tombstone { key: Key::Int(-5), version: version(900), lsn: Lsn(900) });
    segment
}

/// Opens files as a store would, leaving those in storage that `cold` names.
fn open(files: &[SegmentFile], cold: impl Fn(&FileKind) -> bool) -> Result<Segment> {
    let spec = spec();
    let name = |kind: &FileKind| format!("s/{kind:?}").to_lowercase();
    let names = files.iter().map(|file| (file.kind.clone(), name(&file.kind))).collect();
    let layout = files.iter().find(|file| file.kind == FileKind::Layout).unwrap();
    let layout = super::layout(&spec.schema, "s/layout", &layout.bytes, &names)?;
    let stored = |file: &SegmentFile| StoredFile {
        name: name(&file.kind),
        bytes: (!cold(&file.kind)).then(|| file.bytes.clone()),
    };
    let files = files.iter().map(|file| (file.kind.clone(), stored(file))).collect();
    decode(SegmentId(7), &spec.schema, &spec.indexes, layout, &files)
}

/// Reads what is needed out of `files`.
fn fetch(files: &[SegmentFile], needs: &[BlockRef]) -> Blocks {
    let mut blocks = Blocks::default();
    for need in needs {
        let block = &need.group.blocks[need.index];
        let file = files.iter().find(|file| file.kind == need.group.kind).unwrap();
        let bytes = &file.bytes[block.offset as usize..][..block.len as usize];
        blocks.insert(need, Arc::new(need.group.read(need.index, bytes).unwrap()));
    }
    blocks
}

fn all_fields() -> Vec<String> {
    let mut fields: Vec<String> = spec().schema.fields().iter().map(|field| field.name.clone()).collect();
    fields.push("extra".to_owned());
    fields
}

#[test]
fn what_is_written_is_read_with_every_codec() {
    for (rows, codec) in Codec::ALL.into_iter().flat_map(|codec| [0, 1, 200, 9_000].map(|rows| (rows, codec))) {
        let written = segment(rows);
        let files = encode(&written, codec);
        let read = open(&files, |_| false).unwrap();
        assert_eq!(read.len(), rows as usize);
        assert_eq!(read.deletes, written.deletes);
        let fields = all_fields();
        let blocks = Blocks::default();
        for at in (0..rows as usize).step_by(7) {
            assert_eq!(read.row(at, Some(&fields), &blocks), written.row(at, Some(&fields), &blocks), "row {at}");
            assert_eq!(read.versions().version(at), written.versions().version(at));
            assert_eq!(read.versions().lsn(at), written.versions().lsn(at));
        }
    }
}

#[test]
fn wide_columns_and_vectors_have_files_of_their_own_in_blocks() {
    let files = encode(&segment(9_000), Codec::Zstd);
    let kinds: Vec<&FileKind> = files.iter().map(|file| &file.kind).collect();
    assert!(kinds.contains(&&FileKind::Column("text".to_owned())), "{kinds:?}");
    assert!(!kinds.contains(&&FileKind::Column("kind".to_owned())), "{kinds:?}");
    let segment = open(&files, |_| false).unwrap();
    for group in segment.stored() {
        let large =
            matches!(&group.kind, FileKind::Column(_)) || group.kind == FileKind::Vector("embedding".to_owned());
        assert!(!large || group.blocks.len() > 3, "{:?} in {} blocks", group.kind, group.blocks.len());
    }
    let bytes = |kind: &FileKind| files.iter().find(|file| file.kind == *kind).unwrap().bytes.len();
    let plain = encode(&self::segment(9_000), Codec::None);
    let plain = |kind: &FileKind| plain.iter().find(|file| file.kind == *kind).unwrap().bytes.len();
    for kind in [FileKind::Rows, FileKind::Column("text".to_owned())] {
        assert!(bytes(&kind) * 2 < plain(&kind), "{kind:?}: {} of {} bytes", bytes(&kind), plain(&kind));
    }
}

#[test]
fn rows_are_put_together_from_the_blocks_that_they_need() {
    let written = segment(9_000);
    let files = encode(&written, Codec::Zstd);
    let cold = |kind: &FileKind| matches!(kind, FileKind::Column(_) | FileKind::Vector(_));
    let mut read = open(&files, cold).unwrap();
    assert!(read.vectors("embedding").is_none());
    assert!(!read.has("text") && read.has("kind"));
    let warm = open(&files, |_| false).unwrap();
    assert!(read.memory_bytes() * 2 < warm.memory_bytes(), "{} of {}", read.memory_bytes(), warm.memory_bytes());

    let rows = [0, 1, 4_000, 8_999];
    let some = ["id".to_owned(), "text".to_owned()];
    let wanted = read.wanted(Some(&some));
    let needs = read.needs(&rows, &wanted, &Blocks::default());
    assert!(needs.len() <= 3 && needs.iter().all(|need| need.group.kind == FileKind::Column("text".to_owned())));
    let blocks = fetch(&files, &needs);
    assert_eq!(read.needs(&rows, &wanted, &blocks).len(), 0);
    for row in rows {
        let row = row as usize;
        assert_eq!(read.row(row, Some(&some), &blocks), written.row(row, Some(&some), &Blocks::default()));
    }
    drop(wanted);
    // Without vectors, which are told only when they are named.
    let blocks = fetch(&files, &read.needs(&rows, &read.wanted(None), &Blocks::default()));
    assert_eq!(read.row(4_000, None, &blocks), written.row(4_000, None, &Blocks::default()));

    let blocks = fetch(&files, &read.needs(&rows, &|_| true, &Blocks::default()));
    let (batch, versions) = read.take(&rows, &blocks);
    let (expected, expected_versions) = written.take(&rows, &Blocks::default());
    assert_eq!((batch.to_arrow(), versions), (expected.to_arrow(), expected_versions));
    assert_eq!(
        read.gather("small", &[3, 5], &fetch(&files, &read.needs(&[3, 5], &|_| true, &Blocks::default()))),
        [3.0, -1.0, 5.0, -1.0]
    );

    // And the other way round: what was in memory is left to storage.
    let mut warm = warm;
    let held = warm.memory_bytes();
    let freed: usize = files.iter().map(|file| warm.unload(&file.kind)).sum();
    assert_eq!(warm.memory_bytes(), held - freed);
    assert!(warm.memory_bytes() <= read.memory_bytes() + 4096, "{} {}", warm.memory_bytes(), read.memory_bytes());
    assert_eq!(warm.take(&rows, &blocks).0.to_arrow(), expected.to_arrow());
    read.unload(&FileKind::Rows);
    assert_eq!(read.key(8_999), Key::Int(8_999));
}

#[test]
fn few_texts_are_written_as_numbers_of_a_dictionary() {
    let files = encode(&segment(9_000), Codec::None);
    let segment = open(&files, |_| false).unwrap();
    let rows = segment.stored().iter().find(|group| group.kind == FileKind::Rows).unwrap();
    for (column, encoding) in rows.columns.iter().zip(&rows.encodings) {
        assert_eq!(encoding.as_str(), if column == "kind" { "dictionary" } else { "plain" }, "{column}");
    }
    let text = segment.stored().iter().find(|group| group.kind == FileKind::Column("text".to_owned())).unwrap();
    assert_eq!(text.encodings, [Encoding::Plain]);
    // As another reader of Arrow sees it.
    let file = files.iter().find(|file| file.kind == FileKind::Rows).unwrap();
    let read: Vec<_> = crate::model::IpcReader::new(file.bytes.clone()).unwrap().collect::<Result<_>>().unwrap();
    let kind = read[0].column_by_name("kind").unwrap();
    assert_eq!(format!("{}", kind.data_type()), "Dictionary(Int8, Utf8)");
    let kinds = arrow_array::cast::AsArray::as_dictionary::<arrow_array::types::Int8Type>(kind);
    let kinds = kinds.downcast_dict::<arrow_array::StringArray>().unwrap();
    let expected = (0..read[0].num_rows()).map(|id| Some(["amber", "birch", "cedar"][id % 3]));
    assert!(kinds.into_iter().eq(expected));
}

/// A file in a codec that Arrow does not know is a standard stream of an Arrow file, and each block a part of it.
#[test]
fn streams_hold_a_plain_arrow_file() {
    let plain = encode(&segment(3_000), Codec::None);
    for codec in [Codec::Gzip, Codec::Snappy] {
        let files = encode(&segment(3_000), codec);
        let segment = open(&files, |kind| matches!(kind, FileKind::Column(_))).unwrap();
        for (file, plain) in files.iter().zip(&plain).filter(|(file, _)| file.kind != FileKind::Layout) {
            let group = segment.stored().iter().find(|group| group.kind == file.kind).unwrap();
            assert_eq!(group.codec, if matches!(file.kind, FileKind::Vector(_)) { Codec::None } else { codec });
            if group.codec == Codec::None {
                continue;
            }
            let last = &group.blocks[group.blocks.len() - 1];
            let end = last.offset as usize + last.len as usize;
            let pieces =
                group.blocks.iter().map(|block| block.offset as usize..(block.offset as usize + block.len as usize));
            let pieces: Vec<Vec<u8>> = pieces
                .chain(std::iter::once(end..file.bytes.len()))
                .map(|piece| crate::base::compress::decompress_stream(codec, &file.bytes[piece]).unwrap())
                .collect();
            let pieces = pieces.concat();
            assert!(plain.bytes.ends_with(&pieces), "{:?}", file.kind);
            if file.kind != FileKind::Deletes {
                assert!(pieces.len() > plain.bytes.len() * 9 / 10 && file.bytes.len() * 2 < plain.bytes.len());
            }
            #[cfg(native)]
            {
                let mut others: Box<dyn std::io::Read> = match codec {
                    Codec::Gzip => Box::new(flate2::read::MultiGzDecoder::new(&file.bytes[..])),
                    _ => Box::new(snap::read::FrameDecoder::new(&file.bytes[..])),
                };
                let mut read = Vec::new();
                others.read_to_end(&mut read).unwrap();
                assert!(read == plain.bytes, "{:?} by another reader", file.kind);
            }
        }
        let rows = [5, 2_999];
        let blocks = fetch(&files, &segment.needs(&rows, &|_| true, &Blocks::default()));
        let expected = open(&plain, |_| false).unwrap().take(&rows, &Blocks::default());
        assert_eq!(segment.take(&rows, &blocks).0.to_arrow(), expected.0.to_arrow());
    }
}

#[test]
fn filters_know_the_keys() {
    let mut written = segment(2_000);
    let again = Batch::from_rows(&spec().schema, vec![row(7)]).unwrap();
    assert!(open(&encode(&written, Codec::Zstd), |_| false).unwrap().has_distinct_keys());
    written.push(&again, &[Version::default()], Lsn(9));
    let read = open(&encode(&written, Codec::Zstd), |_| false).unwrap();
    assert!(!read.has_distinct_keys() && !written.has_distinct_keys());
    let may_have = |read: &Segment, key: i64| read.may_have_key(&Key::Int(key), hash_int(key));
    assert!((0..2_000).all(|key| may_have(&read, key)) && written.may_have_key(&Key::Int(9_000), 0));
    assert!((-3_000..0).chain(2_000..9_000).all(|key| !may_have(&read, key)));
    assert_eq!(read.key_filter_bytes(), 0, "integers without gaps need none");
    // A gap, in which a key may be thought to be there.
    written.push(&Batch::from_rows(&spec().schema, vec![row(9_000)]).unwrap(), &[Version::default()], Lsn(10));
    let read = open(&encode(&written, Codec::Zstd), |_| false).unwrap();
    assert!((0..2_000).chain([9_000]).all(|key| may_have(&read, key)) && read.key_filter_bytes() > 2 * 2_001);
    assert!((2_000..9_000).filter(|&key| may_have(&read, key)).count() < 4 && !may_have(&read, 9_001));
}

#[test]
fn statistics_tell_the_bounds_of_each_block() {
    let segment = open(&encode(&segment(9_000), Codec::Zstd), |_| false).unwrap();
    let rows = segment.stored().iter().find(|group| group.kind == FileKind::Rows).unwrap();
    let column = |name: &str| rows.columns.iter().position(|column| column == name).unwrap();
    for (block, statistics) in rows.statistics.iter().enumerate() {
        let (start, end) = (i64::from(rows.start(block)), i64::from(rows.start(block) + rows.blocks[block].rows));
        assert_eq!(statistics[column("id")], Statistics { nulls: 0, range: Range::Int(start, end - 1) });
        assert!(statistics[column("price")].nulls > 0);
        let Range::Text(least, most) = &statistics[column("kind")].range else { panic!("{statistics:?}") };
        assert_eq!((least.as_slice(), most.as_slice()), (b"amber".as_slice(), b"cedar".as_slice()));
    }
}

fn golden(name: &str) -> std::path::PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden/segment-v1", name].iter().collect()
}

/// Compressed bytes may become smaller ones; what they hold may not change.
#[test]
#[cfg(native)]
#[expect(clippy::disallowed_methods, reason = "the test reads golden files")]
fn golden_files_are_read() {
    for codec in [Codec::Zstd, Codec::Lz4, Codec::Gzip, Codec::Snappy] {
        let written = segment(500);
        let name = |kind: &FileKind| {
            let name = format!("{}-{kind:?}.arrow", codec.as_str()).to_lowercase();
            name.replace(['"', ')'], "").replace('(', "-")
        };
        let mut files = encode(&written, codec);
        for file in &mut files {
            if std::env::var_os("EDDY_WRITE_GOLDEN").is_some() {
                std::fs::create_dir_all(golden("")).unwrap();
                std::fs::write(golden(&name(&file.kind)), &file.bytes).unwrap();
            }
            file.bytes = std::fs::read(golden(&name(&file.kind))).unwrap().into();
        }
        let read = open(&files, |_| false).unwrap();
        let rows: Vec<u32> = (0..500).collect();
        let blocks = Blocks::default();
        assert_eq!(read.take(&rows, &blocks).0.to_arrow(), written.take(&rows, &blocks).0.to_arrow());
        assert_eq!(read.take(&rows, &blocks).1, written.take(&rows, &blocks).1);
        assert_eq!(read.deletes, written.deletes);
    }
}

/// A layout ended with its CRC once, and what ends with its own CRC has the same one as all that do: by its checksum in a manifest or a
/// backup no layout could be told from another.
#[test]
fn checksums_tell_layouts_apart() {
    let of = |rows| {
        let files = encode(&segment(rows), Codec::None);
        crate::base::codec::checksum(&files.iter().find(|file| file.kind == FileKind::Layout).unwrap().bytes)
    };
    assert_ne!(of(3), of(4));
}

#[test]
fn a_later_layout_is_refused_as_such() {
    let mut files = encode(&segment(1), Codec::None);
    for file in files.iter_mut().filter(|file| file.kind == FileKind::Layout) {
        let mut bytes = file.bytes.to_vec();
        bytes[8] = 2;
        file.bytes = bytes.into();
    }
    assert_eq!(open(&files, |_| false).unwrap_err().kind(), ErrorKind::Unsupported);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn versions_come_back(rows in prop::collection::vec(any::<[u64; 4]>(), 0..100), near in any::<bool>(), codec in 0usize..5) {
        let mut versions = Versions::default();
        for [timestamp, origin, sequence, lsn] in rows {
            let shift = if near { 60 } else { 0 };
            let version = Version {
                timestamp: Timestamp(timestamp >> shift),
                origin: ReplicaId(origin >> shift),
                sequence: Sequence(sequence >> shift),
            };
            versions.push(version, Lsn(lsn >> shift));
        }
        let mut bytes = Vec::new();
        versions.encode(Codec::ALL[codec], &mut bytes);
        let read = Versions::decode(&mut crate::base::codec::Reader::new(&bytes)).unwrap();
        prop_assert_eq!(format!("{read:?}"), format!("{versions:?}"));
    }

    /// Bytes that are wrong in spite of their checksums, as an attacker makes them, are an error or other values.
    #[test]
    fn damage_never_panics(
        which in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut files = encode(&segment(40), Codec::Zstd);
        let which = which.index(files.len());
        let mut bytes = files[which].bytes.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        files[which].bytes = bytes.into();
        match open(&files, |_| false) {
            Ok(read) => {
                let rows: Vec<u32> = (0..read.len() as u32).collect();
                read.take(&rows, &Blocks::default());
            }
            Err(error) => {
                prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{}", error);
            }
        }
    }

    #[test]
    fn a_damaged_block_is_found_and_named(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let files = encode(&segment(40), Codec::Zstd);
        let read = open(&files, |_| false).unwrap();
        for group in read.stored() {
            let block = &group.blocks[0];
            let file = files.iter().find(|file| file.kind == group.kind).unwrap();
            let mut bytes = file.bytes[block.offset as usize..][..block.len as usize].to_vec();
            prop_assert!(group.read(0, &bytes).is_ok());
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let error = group.read(0, &bytes).unwrap_err();
            prop_assert!(error.message().contains(&*group.name), "{}", error);
        }
    }
}
