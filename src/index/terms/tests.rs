use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::list::{Cursor, END};
use super::*;
use crate::base::Neighbor;
use crate::model::text::Analyzer;

fn words() -> impl Strategy<Value = String> {
    // Some of them in most rows, some in few.
    let word = (0u32..40, 0u32..40).prop_map(|(a, b)| format!("w{}", a.min(b)));
    prop::collection::vec(word, 0..12).prop_map(|words| words.join(" "))
}

fn analyzer() -> Arc<Analyzer> {
    Arc::new(Analyzer::from_json("whitespace".into()).unwrap())
}

fn builder(rows: &[Option<String>]) -> Builder {
    let mut builder = Builder::new(Payload::Text);
    let analyzer = analyzer();
    rows.iter().for_each(|text| builder.push_text(&analyzer, text.as_deref()));
    builder
}

/// Many rows from few: more than one block a list, and more than one window.
fn repeated(rows: Vec<Option<String>>, times: usize) -> Vec<Option<String>> {
    let copies = (0..times).flat_map(|time| rows.iter().map(move |row| (time, row)));
    copies
        .map(|(time, row)| if (time * 7 + row.as_ref().map_or(0, String::len)) % 11 == 0 { None } else { row.clone() })
        .collect()
}

fn bm25(rows: usize, total: u64) -> Bm25 {
    Bm25 { k1: 1.2, b: 0.75, average_length: total as f64 / rows.max(1) as f64 }
}

/// Every row, by the definition.
fn scan(rows: &[Option<String>], terms: &[Weighted], bm25: &Bm25, k: usize, mask: Option<&RowMask>) -> Vec<Neighbor> {
    let mut all = Vec::new();
    for (row, text) in rows.iter().enumerate().filter(|(row, _)| mask.is_none_or(|mask| mask.contains(*row))) {
        let Some(text) = text else { continue };
        let words: Vec<&str> = text.split_whitespace().collect();
        let normal = bm25.k1 * (1.0 - bm25.b + bm25.b * words.len() as f64 / bm25.average_length);
        let (mut sum, mut has) = (0.0, false);
        for term in terms {
            let frequency = words.iter().filter(|word| word.as_bytes() == term.key).count() as f64;
            has |= frequency > 0.0;
            sum += if frequency > 0.0 { term.weight / (1.0 + normal / frequency) } else { 0.0 };
        }
        if has {
            all.push(Neighbor { row: row as u32, distance: 0.0 - sum as f32 });
        }
    }
    all.sort();
    all.truncate(k);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Pruned or not, grown or written: the same rows with the same scores.
    #[test]
    fn the_best_rows_are_those_of_a_scan(
        rows in prop::collection::vec(prop::option::weighted(0.9, words()), 1..60),
        times in prop::sample::select(vec![1usize, 9, 160]),
        query in prop::collection::btree_set(0u32..42, 1..7),
        k in 1usize..30,
        mask in prop::option::of((1usize..7, any::<bool>())),
    ) {
        let rows = repeated(rows, times);
        let builder = builder(&rows);
        let terms = builder.finish();
        let read = Terms::from_bytes(terms.bytes().clone()).unwrap();
        let mask: Option<RowMask> = mask.map(|(step, late)| {
            (0..rows.len()).map(|row| row % step == 0 && (!late || row > rows.len() / 2)).collect()
        });
        let (count, total) = Source::Sealed(&read).totals();
        prop_assert_eq!((count, total), Source::Growing(&builder).totals());
        prop_assert_eq!(count, rows.iter().flatten().count());
        let bm25 = bm25(count, total);
        let weighted: Vec<Weighted> = query
            .iter()
            .map(|word| {
                let key = format!("w{word}").into_bytes();
                let count = Source::Sealed(&read).count(&key);
                Weighted { weight: Bm25::inverse_frequency(count, rows.len()), key }
            })
            .collect();
        let expected = scan(&rows, &weighted, &bm25, k, mask.as_ref());
        for source in [Source::Growing(&builder), Source::Sealed(&read)] {
            let found = top(source, &weighted, Some(bm25), k, mask.as_ref());
            prop_assert_eq!(&found, &expected);
        }
    }

    /// The same of inner products, of negative numbers too.
    #[test]
    fn the_nearest_sparse_rows_are_those_of_a_scan(
        rows in prop::collection::vec(
            prop::option::weighted(0.9, prop::collection::btree_map(0u32..30, -4i8..8, 0..10)), 1..60),
        times in prop::sample::select(vec![1usize, 9, 120]),
        query in prop::collection::btree_map(0u32..32, -3i8..6, 1..9),
        k in 1usize..30,
        mask in prop::option::of(1usize..7),
    ) {
        let rows: Vec<_> = (0..times).flat_map(|_| rows.iter().cloned()).collect();
        let mut builder = Builder::new(Payload::Weights);
        for row in &rows {
            let mut weights = row.iter().flatten().map(|(place, weight)| (*place, f32::from(*weight) / 8.0));
            builder.push_weights(if row.is_some() { Some(&mut weights) } else { None });
        }
        let terms = builder.finish();
        let read = Terms::from_bytes(terms.bytes().clone()).unwrap();
        prop_assert_eq!(Source::Sealed(&read).present(), rows.iter().map(Option::is_some).collect::<RowMask>());
        let mask: Option<RowMask> = mask.map(|step| (0..rows.len()).map(|row| row % step == 0).collect());
        let weighted: Vec<Weighted> = query
            .iter()
            .map(|(place, weight)| Weighted { key: place.to_be_bytes().to_vec(), weight: f64::from(*weight) })
            .collect();
        let mut expected = Vec::new();
        for (row, values) in rows.iter().enumerate().filter(|(row, _)| mask.as_ref().is_none_or(|mask| mask.contains(*row))) {
            let values: BTreeMap<u32, i8> = values.clone().unwrap_or_default();
            let both = query.iter().filter_map(|(place, weight)| Some((*weight, *values.get(place)?)));
            let sum: f64 = both.clone().map(|(left, right)| f64::from(left) * f64::from(right) / 8.0).sum();
            if both.count() > 0 {
                expected.push(Neighbor { row: row as u32, distance: 0.0 - sum as f32 });
            }
        }
        expected.sort();
        expected.truncate(k);
        for source in [Source::Growing(&builder), Source::Sealed(&read)] {
            prop_assert_eq!(&top(source, &weighted, None, k, mask.as_ref()), &expected);
        }
    }

    /// What the index says matches is what reading the rows says.
    #[test]
    fn matches_are_those_of_reading_the_rows(
        rows in prop::collection::vec(prop::option::weighted(0.9, words()), 1..60),
        times in prop::sample::select(vec![1usize, 5]),
        query in words(),
        matching in prop_oneof![
            (0usize..4).prop_map(|least| Matching::Any { least: least.max(1) }),
            (0u32..4).prop_map(|slop| Matching::Phrase { slop }),
            (0u8..3).prop_map(|distance| Matching::Fuzzy { distance }),
        ],
    ) {
        let rows = repeated(rows, times);
        let builder = builder(&rows);
        let terms = builder.finish();
        let wanted = TextMatch::new(analyzer(), &query, matching);
        let expected: RowMask = rows.iter().map(|row| row.as_ref().is_some_and(|text| wanted.matches(text))).collect();
        prop_assert_eq!(wanted.rows(Source::Growing(&builder)), expected.clone());
        prop_assert_eq!(wanted.rows(Source::Sealed(&terms)), expected);
    }

    #[test]
    fn a_cursor_stops_at_every_row(rows in prop::collection::btree_set(0u32..100_000, 1..900), step in 1u32..5_000) {
        let mut builder = Builder::new(Payload::Rows);
        let last = *rows.last().unwrap();
        (0..=last).for_each(|row| builder.push_key(rows.contains(&row).then_some(b"k")));
        let terms = builder.finish();
        let list = terms.list_at(0);
        prop_assert_eq!(list.count(), rows.len());
        let mut cursor = Cursor::new(list.clone());
        for &row in &rows {
            prop_assert_eq!(cursor.row(), row);
            cursor.advance();
        }
        prop_assert_eq!(cursor.row(), END);
        let mut cursor = Cursor::new(list);
        for target in (0..last + 2).step_by(step as usize) {
            cursor.seek(target);
            prop_assert_eq!(cursor.row(), rows.range(target..).next().copied().unwrap_or(END));
        }
    }

    #[test]
    fn keys_are_in_the_order_of_values(mut ints in prop::collection::vec(any::<i64>(), 2..20), mut floats in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL, 2..20)) {
        ints.sort_unstable();
        floats.sort_by(f64::total_cmp);
        prop_assert!(ints.windows(2).all(|pair| int_key(pair[0]) <= int_key(pair[1])));
        prop_assert!(floats.windows(2).all(|pair| float_key(pair[0]) <= float_key(pair[1])));
        prop_assert_eq!(float_key(-0.0), float_key(0.0));
    }

    /// Whatever happens to the bytes, opening says so, or what is opened can be searched.
    #[test]
    fn damage_is_an_error_or_harmless(
        rows in prop::collection::vec(prop::option::weighted(0.9, words()), 1..40),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = builder(&repeated(rows, 6)).finish().bytes().to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(terms) = Terms::from_bytes(bytes.into()) {
            let weighted: Vec<Weighted> =
                (0..40).map(|word| Weighted { key: format!("w{word}").into_bytes(), weight: 1.0 }).collect();
            let source = Source::Sealed(&terms);
            top(source, &weighted, Some(bm25(10, 50)), 5, None);
            for matching in [Matching::Any { least: 2 }, Matching::Phrase { slop: 1 }, Matching::Fuzzy { distance: 1 }] {
                TextMatch::new(analyzer(), "w1 w2", matching).rows(source);
            }
        }
    }
}

#[test]
fn ranges_of_keys_are_found() {
    let mut builder = Builder::new(Payload::Rows);
    let values = [Some(5i64), None, Some(-3), Some(5), Some(9), Some(0)];
    values.iter().for_each(|value| builder.push_key(value.map(int_key).as_ref().map(|key| &key[..])));
    let terms = builder.finish();
    for source in [Source::Growing(&builder), Source::Sealed(&terms)] {
        let rows = |low, high| source.between(low, high, &|_| true).iter().collect::<Vec<_>>();
        let (zero, five, seven) = (int_key(0), int_key(5), int_key(7));
        assert_eq!(rows(Bound::Included(&zero), Bound::Included(&five)), [0, 3, 5]);
        assert_eq!(rows(Bound::Excluded(&zero), Bound::Excluded(&seven)), [0, 3]);
        assert_eq!(rows(Bound::Excluded(&five), Bound::Unbounded), [4]);
        assert_eq!(rows(Bound::Unbounded, Bound::Excluded(&five)), [2, 5]);
        assert_eq!(source.present().iter().collect::<Vec<_>>(), [0, 2, 3, 4, 5]);
        assert_eq!((source.count(&five), source.count(&seven), source.totals()), (2, 0, (5, 0)));
    }
}

/// What these rows give is part of the format: a store written by one release or target is opened by all.
#[test]
#[expect(clippy::disallowed_methods, reason = "written anew when that is asked for")]
fn bytes_are_those_of_the_golden_files() {
    let rows: Vec<Option<String>> = (0..300u32)
        .map(|row| {
            (row % 17 != 3).then(|| format!("all {} w{} w{}", "again ".repeat(row as usize % 4), row % 7, row % 150))
        })
        .collect();
    let mut weights = Builder::new(Payload::Weights);
    for row in 0..200u32 {
        let mut pairs = [(row % 3, 0.5), (7, row as f32 / 8.0 - 3.0)].into_iter();
        weights.push_weights(if row % 5 > 0 { Some(&mut pairs) } else { None });
    }
    for (name, bytes) in [("text", builder(&rows).finish()), ("weights", weights.finish())] {
        let path = format!("{}/tests/golden/terms-v1-{name}.bin", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("EDDY_WRITE_GOLDEN").is_some() {
            std::fs::write(&path, bytes.bytes()).unwrap();
            continue;
        }
        let golden = std::fs::read(&path).unwrap();
        assert!(*bytes.bytes() == golden, "the layout or the terms changed: a new version is needed");
        Terms::from_bytes(golden.into()).unwrap();
    }
}

#[test]
fn a_later_version_is_refused() {
    let mut bytes = builder(&[Some("a".to_owned())]).finish().bytes().to_vec();
    bytes[8] = 2;
    let error = Terms::from_bytes(bytes.into()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let error = Terms::from_bytes(Bytes::from_static(b"EDDYHNSW")).unwrap_err();
    assert!(error.message().contains("EDDYTERM"), "{error}");
}

#[test]
fn pruning_leaves_most_postings_of_common_words_unread() {
    // One rare word beside one that every row has.
    let rows: Vec<Option<String>> =
        (0..50_000).map(|row| Some(format!("common{}", if row % 5_000 == 7 { " rare" } else { "" }))).collect();
    let terms = builder(&rows).finish();
    let weighted = |word: &str| {
        let count = Source::Sealed(&terms).count(word.as_bytes());
        Weighted { key: word.into(), weight: Bm25::inverse_frequency(count, rows.len()) }
    };
    let found =
        top(Source::Sealed(&terms), &[weighted("common"), weighted("rare")], Some(bm25(50_000, 50_010)), 5, None);
    assert_eq!(found.iter().map(|near| near.row).collect::<Vec<_>>(), [7, 5_007, 10_007, 15_007, 20_007]);
}
