//! The language as its users see it: the queries of Nexmark as they are published, positions of errors, and text that nobody
//! should write.

use proptest::prelude::*;

use super::ast::*;
use super::is_explain;
pub(super) use super::nexmark::NEXMARK;
use super::parser::parse;
use crate::base::{Error, ErrorKind};
use crate::model::DataType;
use crate::stream::{Nearness, ZoneName};

fn one(text: &str) -> Statement {
    let mut statements = parse(text).unwrap_or_else(|fault| panic!("{}", fault.into_error(text)));
    assert_eq!(statements.len(), 1, "{text}");
    statements.remove(0)
}

fn error(text: &str) -> Error {
    parse(text).expect_err(text).into_error(text)
}

/// What is wrong with `text`, and at which character.
fn wrong(text: &str) -> (usize, String) {
    let error = error(text);
    let message = error.message().split(", at position").next().unwrap().to_string();
    (error.position().unwrap(), message)
}

#[test]
fn the_last_statement_tells_whether_a_text_is_only_to_be_shown() {
    for (text, expected) in [
        ("explain SELECT 1", true),
        ("CREATE STREAM s (a INT); -- what it does\n EXPLAIN SELECT a FROM s;;", true),
        ("EXPLAIN SELECT 1; SELECT a FROM s", false),
        ("SELECT a FROM s WHERE a = '; EXPLAIN'", false),
        ("SELECT a FROM s -- ; EXPLAIN", false),
        ("SELECT 'EXPLAIN", false),
        ("", false),
    ] {
        assert_eq!(is_explain(text), expected, "{text}");
    }
}

#[test]
fn nexmark_is_read() {
    for (name, text) in NEXMARK {
        let statements = parse(text).unwrap_or_else(|fault| panic!("{name}: {}", fault.into_error(text)));
        for statement in statements {
            assert_eq!(one(&statement.to_string()), statement, "{name}");
        }
    }
}

#[test]
fn statements_are_read_and_written() {
    for (text, written) in [
        (
            "create source s (id bigint not null, v vector(3), ts timestamp(3), watermark for ts as ts - interval '1.5' seconds) with ('a' = 'it''s')",
            "CREATE STREAM s (id BIGINT NOT NULL, v VECTOR(3), ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '1.500000' SECOND) WITH ('a' = 'it''s')",
        ),
        (
            "create source s with (connector = 'files', \"paths\" = ['a.csv', {more}], options.tries = 3, every = interval '1' second, on_ = true, pace = 0.5)",
            "CREATE STREAM s WITH ('connector' = 'files', 'paths' = ['a.csv', {more}], 'options.tries' = 3, 'every' = INTERVAL '1' SECOND, 'on_' = TRUE, 'pace' = 0.5)",
        ),
        (
            "create table t (watermark for at as at) with (since = timestamp '2024-02-29 12:30')",
            "CREATE STREAM t (WATERMARK FOR at AS at - INTERVAL '0' DAY) WITH ('since' = TIMESTAMP '2024-02-29 12:30:00')",
        ),
        (
            "select a from dedupe(events partition by lang, kind, descriptor(v), 0.05, interval '1' hour, 'l2') e where a > 1",
            "SELECT a FROM TABLE(DEDUPE(TABLE events PARTITION BY lang, kind, DESCRIPTOR(v), 0.05, INTERVAL '1' HOUR, 'l2')) AS e WHERE a > 1",
        ),
        (
            "select a from table(dedupe(table (select * from t), v, 1, interval '1 hour', 'cosine'))",
            "SELECT a FROM TABLE(DEDUPE(TABLE (SELECT * FROM t), DESCRIPTOR(v), 1.0, INTERVAL '1' HOUR))",
        ),
        ("create sink s from v with ('keys' = 'a')", "CREATE SINK s FROM v WITH ('keys' = 'a')"),
        (
            "create sink s as select a from t limit 3 emit changes",
            "CREATE SINK s AS SELECT a FROM t LIMIT 3 EMIT CHANGES",
        ),
        ("create sink s with (connector = 'application')", "CREATE SINK s WITH ('connector' = 'application')"),
        (
            "CREATE MATERIALIZED VIEW top AS SELECT DISTINCT a.* FROM a ORDER BY x DESC, y LIMIT 3 EMIT ON WINDOW CLOSE",
            "CREATE MATERIALIZED VIEW top AS SELECT DISTINCT a.* FROM a ORDER BY x DESC, y LIMIT 3 EMIT ON WINDOW CLOSE",
        ),
        (
            "explain select \"from\", case a when 1 then 'x' else 'y' end c from t left outer join u on t.a = u.a where not (a or b and c)",
            "EXPLAIN SELECT \"from\", CASE a WHEN 1 THEN 'x' ELSE 'y' END AS c FROM t LEFT JOIN u ON t.a = u.a WHERE NOT (a OR b AND c)",
        ),
        (
            "select * from e, nearest(docs, e.v, 5) n where cosine_distance(n.v, {q}) < 0.5 and -(-1) + - x * (2 - (3 - 4)) > [1, 2]",
            "SELECT * FROM e, nearest(docs, e.v, 5) AS n WHERE cosine_distance(n.v, {q}) < 0.5 AND -(-1) + -x * (2 - (3 - 4)) > [1, 2]",
        ),
        (
            "select count(distinct x), sum(x) from cumulate(s, ts, interval '1 hour', interval '1' day, interval '30 minutes') /* all */ having x in (1, 2) emit changes",
            "SELECT count(DISTINCT x), sum(x) FROM TABLE(CUMULATE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY, INTERVAL '30' MINUTE)) HAVING x IN (1, 2) EMIT CHANGES",
        ),
        (
            "select cast(x as varchar), x is not null, x not between 1 and 2, x not like 'a%' from t where ts > timestamp '2024-02-29 12:30'",
            "SELECT CAST(x AS VARCHAR(65535)), x IS NOT NULL, x NOT BETWEEN 1 AND 2, x NOT LIKE 'a%' FROM t WHERE ts > TIMESTAMP '2024-02-29 12:30:00'",
        ),
    ] {
        let statement = one(text);
        assert_eq!(statement.to_string(), written);
        assert_eq!(one(written), statement, "{written}");
    }
}

#[test]
fn what_is_not_supported_is_named_with_its_position() {
    for (text, at, what) in [
        ("DROP VIEW v", 0, "`DROP`"),
        ("WITH a AS (SELECT 1 FROM t) SELECT * FROM a", 0, "`WITH`"),
        ("CREATE FUNCTION f", 7, "`CREATE FUNCTION`"),
        ("CREATE STREAM IF NOT EXISTS s (a INT)", 14, "`IF NOT EXISTS`"),
        ("CREATE STREAM s (a DECIMAL(10, 2))", 19, "the type `DECIMAL`"),
        ("CREATE STREAM s (a INT, PRIMARY KEY (a))", 24, "`PRIMARY`"),
        ("CREATE STREAM s (a INT, b AS a + 1)", 26, "a computed column"),
        ("SELECT a FROM t RIGHT JOIN u ON t.a = u.a", 16, "`RIGHT JOIN`"),
        ("SELECT a FROM t JOIN u USING (a)", 23, "`USING`"),
        ("SELECT a FROM (t JOIN u ON a = b)", 15, "a join in brackets"),
        ("SELECT a FROM t FOR SYSTEM_TIME AS OF x", 16, "`FOR SYSTEM_TIME AS OF`"),
        ("SELECT a FROM t UNION ALL SELECT a FROM u", 16, "`UNION`"),
        ("SELECT a FROM t LIMIT 5 OFFSET 2", 24, "`OFFSET`"),
        ("SELECT rank() OVER (ORDER BY a) FROM t", 14, "`OVER` after a function"),
        ("SELECT count(*) FILTER (WHERE a) FROM t", 16, "`FILTER` after a function"),
        ("SELECT a FROM t WHERE a IN (SELECT b FROM u)", 28, "a sub-select in an expression"),
        ("SELECT a FROM t WHERE EXISTS (SELECT b FROM u)", 22, "a sub-select in an expression"),
        ("SELECT a::int FROM t", 8, "`::`"),
        ("SELECT a FROM t GROUP BY ROLLUP (a)", 25, "`ROLLUP`"),
        ("SELECT a FROM t WHERE b = INTERVAL '1' MONTH", 39, "an interval of months, whose length differs,"),
        ("SELECT a FROM t WHERE a IS TRUE", 27, "`IS` with anything but `NULL`"),
        ("SELECT a FROM t WHERE a ILIKE 'x'", 24, "`ILIKE`"),
    ] {
        let error = error(text);
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}: {error}");
        assert_eq!(wrong(text), (at, format!("{what} is not supported by this version")), "{text}");
    }
}

#[test]
fn errors_say_what_was_found_and_expected_and_where() {
    for (text, at, what) in [
        ("", 0, ""),
        ("SELEKT a", 0, "found `SELEKT`, expected `SELECT`, `CREATE`, `INSERT` or `EXPLAIN`"),
        ("SELECT a", 8, "found the end, expected `,` or `FROM`"),
        (
            "SELECT a FROM",
            13,
            "found the end, expected the name of a stream or a collection, a window or a query in brackets",
        ),
        ("SELECT a FROM t WHERE a = 1 = 2", 28, "found `=`, expected `AND` between two comparisons"),
        ("SELECT (a FROM t", 10, "found `FROM`, expected `)` for the bracket at position 7"),
        ("SELECT 'a FROM t", 7, "what is quoted here does not end: expected '"),
        ("SELECT a /* FROM t", 9, "this comment does not end: expected `*/`"),
        ("SELECT 99999999999999999999 FROM t", 7, "found `99999999999999999999`, which is out of the range of BIGINT"),
        ("SELECT 1e999 FROM t", 7, "found `1e999`, which is too large for a double"),
        ("SELECT 12ab FROM t", 7, "found `12ab`, expected a number"),
        ("SELECT é#a FROM t", 8, "found `#`, expected a name, a value or an operator"),
        ("SELECT a FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(x)))", 49, "found 0 intervals, expected 1 of `TUMBLE`"),
        (
            "SELECT a FROM SESSION(t, x, INTERVAL '1' DAY, INTERVAL '1' DAY)",
            46,
            "found a further interval, expected at most 1 of `SESSION`",
        ),
        ("SELECT a FROM HOP(t, x, INTERVAL '0' DAY, INTERVAL '1' DAY)", 24, "this interval is not positive"),
        (
            "SELECT a FROM CUMULATE(t, x, INTERVAL '2' DAY, INTERVAL '3' DAY)",
            47,
            "this interval is no multiple of the one before",
        ),
        (
            "SELECT a FROM windows(t)",
            14,
            "found `windows`, which is no table function: expected `TUMBLE`, `HOP`, `CUMULATE`, `SESSION`, `DEDUPE` or `nearest`",
        ),
        ("SELECT a FROM t; SELECT b FROM t u v", 35, "found `v`, expected `;` or the end"),
        ("CREATE STREAM s (a INT, WATERMARK FOR a AS b)", 43, "found `b`, expected `a`"),
        ("SELECT a FROM DEDUPE(t, v, 'x', INTERVAL '1' DAY)", 27, "found `'x'`, expected a distance"),
        ("SELECT a FROM DEDUPE(t, v, 1, INTERVAL '0' DAY)", 30, "this interval is not positive"),
        ("SELECT a FROM DEDUPE(t, v, 1, INTERVAL '1' DAY, 'dot')", 48, "found `'dot'`, expected 'cosine' or 'l2'"),
        ("CREATE SOURCE s", 15, "found the end, expected `(` and the columns, or `WITH`"),
        ("CREATE SINK s", 13, "found the end, expected `FROM` and a view, `AS` and a query, or `WITH`"),
        ("CREATE SINK s WITH (a = )", 24, "found `)`, expected a value"),
        ("CREATE SINK s WITH (a 'b')", 22, "found `'b'`, expected `=` and a value"),
        (
            "CREATE SINK s WITH (a = b)",
            24,
            "found `b`, expected a text in quotes, a number, TRUE, FALSE, an interval or a list of them",
        ),
    ] {
        if text.is_empty() {
            assert!(parse(text).unwrap().is_empty());
        } else {
            assert_eq!(wrong(text), (at, what.to_string()), "{text}");
        }
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |open: &str, close: &str| {
        format!("SELECT {}1{} FROM t", open.repeat(100_000 / open.len()), close.repeat(100_000 / open.len()))
    };
    for text in [
        nested("(", ")"),
        nested("-(", ")"),
        nested("NOT ", ""),
        nested("abs(", ")"),
        nested("CASE WHEN ", " THEN 1 END"),
        nested("[", "]"),
        format!("SELECT {}1 FROM t", "1 + ".repeat(10_000)),
        format!("SELECT a FROM {}t", "(SELECT a FROM ".repeat(10_000)),
        format!("SELECT a FROM {}t", "TUMBLE((SELECT a FROM ".repeat(10_000)),
    ] {
        let (_, message) = wrong(&text);
        assert!(message.starts_with("the text is nested too deeply here"), "{message}");
    }
    // What is wide is not deep.
    one(&format!("SELECT a FROM t WHERE {}a = 1", "a = 1 OR ".repeat(10_000)));
    one(&format!("SELECT [{}1] FROM t", "1, ".repeat(20_000)));
    assert!(wrong(&format!("SELECT a FROM t{}", ", t".repeat(17))).1.starts_with("these are more than 16 joins"));
    assert!(wrong(&"SELECT a FROM t;".repeat(257)).1.starts_with("these are more than 256 statements"));
    assert!(wrong(&" ".repeat(300_000)).1.starts_with("the text has 300000 bytes"));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_][a-zA-Z0-9_]{0,5}", "[A-Z]{1,2}", Just("from".into()), Just("if".into()), "[\"' a-zß]{1,4}"]
}

fn named() -> impl Strategy<Value = Name> {
    name().prop_map(|text| Name { text, at: 0 })
}

fn expr() -> impl Strategy<Value = Expr> {
    let node = |kind| Expr::new(0, kind);
    let leaf = prop_oneof![
        Just(Kind::Null),
        any::<bool>().prop_map(Kind::Bool),
        any::<i64>().prop_map(Kind::Int),
        any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Kind::Float),
        "[a'\"%ß -]{0,6}".prop_map(Kind::Text),
        (-1_000_000_000_000i64..1_000_000_000_000).prop_map(Kind::Interval),
        (-1_000i64..100_000).prop_map(|hours| Kind::Interval(hours * 3_600_000_000)),
        (-62_135_596_800_000_000i64..253_402_300_800_000_000).prop_map(Kind::Timestamp),
        "[a-z][a-z0-9]{0,4}".prop_map(Kind::Parameter),
        (prop::option::of(name()), name()).prop_map(|(of, name)| Kind::Column { of, name }),
        Just(Kind::CountAll),
    ]
    .prop_map(node);
    let operator = prop::sample::select(vec![
        Operator::Eq,
        Operator::Ne,
        Operator::Lt,
        Operator::Le,
        Operator::Gt,
        Operator::Ge,
        Operator::Add,
        Operator::Sub,
        Operator::Mul,
        Operator::Div,
        Operator::Rem,
        Operator::Concat,
    ]);
    leaf.prop_recursive(5, 24, 4, move |inner| {
        let boxed = inner.clone().prop_map(Box::new).boxed();
        let list = |least: usize| prop::collection::vec(inner.clone(), least..4);
        let types = prop_oneof![
            Just(crate::model::DataType::Int64),
            Just(crate::model::DataType::Timestamp),
            (1u32..9).prop_map(|dim| crate::model::DataType::FloatVector { dim }),
        ];
        prop_oneof![
            list(0).prop_map(Kind::List),
            boxed.clone().prop_map(Kind::Negative),
            boxed.clone().prop_map(Kind::Not),
            (any::<bool>(), list(2)).prop_map(|(any, terms)| Kind::Logic { any, terms }),
            (operator.clone(), boxed.clone(), boxed.clone()).prop_map(|(operator, left, right)| Kind::Binary {
                operator,
                left,
                right
            }),
            (boxed.clone(), any::<bool>()).prop_map(|(value, not)| Kind::IsNull { value, not }),
            (boxed.clone(), boxed.clone(), boxed.clone(), any::<bool>())
                .prop_map(|(value, low, high, not)| Kind::Between { value, low, high, not }),
            (boxed.clone(), list(1), any::<bool>()).prop_map(|(value, list, not)| Kind::In { value, list, not }),
            (boxed.clone(), boxed.clone(), any::<bool>()).prop_map(|(value, pattern, not)| Kind::Like {
                value,
                pattern,
                not
            }),
            (
                prop::option::of(boxed.clone()),
                prop::collection::vec((inner.clone(), inner.clone()), 1..3),
                prop::option::of(boxed.clone())
            )
                .prop_map(|(of, branches, otherwise)| Kind::Case { of, branches, otherwise }),
            (boxed.clone(), types).prop_map(|(value, to)| Kind::Cast { value, to }),
            ("f[a-z0-9_]{0,3}", any::<bool>(), list(1)).prop_map(|(name, distinct, arguments)| Kind::Call {
                name,
                distinct,
                arguments
            }),
        ]
        .prop_map(node)
    })
}

fn source() -> impl Strategy<Value = Source> {
    let alias = || prop::option::of(named());
    let leaf = (named(), alias()).prop_map(|(name, alias)| Source::Named { name, alias });
    leaf.prop_recursive(3, 8, 2, move |inner| {
        let query = query_from(inner).prop_map(Box::new).boxed();
        let windowed = prop_oneof![
            named().prop_map(|name| Source::Named { name, alias: None }),
            query.clone().prop_map(|query| Source::Query { query, alias: None }),
        ]
        .boxed();
        let span = (1i64..100).prop_map(|seconds| seconds * 1_000_000);
        let offset = -3i64..3;
        let window = prop_oneof![
            (span.clone(), offset.clone()).prop_map(|(size, offset)| Window::Tumble { size, offset }),
            (span.clone(), span.clone(), offset.clone()).prop_map(|(slide, size, offset)| Window::Hop {
                slide,
                size,
                offset
            }),
            (span.clone(), 1i64..9, offset).prop_map(|(step, steps, offset)| Window::Cumulate {
                step,
                size: step * steps,
                offset
            }),
            span.prop_map(|gap| Window::Session { gap }),
        ];
        let keys = prop::collection::vec(
            named().prop_map(|name| Expr::new(0, Kind::Column { of: None, name: name.text })),
            0..3,
        );
        let zone =
            prop::option::of("[A-Z][a-z_+-]{1,8}/[A-Z][a-z]{1,8}".prop_map(|name| ZoneName::new(&name).unwrap()));
        let metric = prop::sample::select(vec![Nearness::Cosine, Nearness::L2]);
        prop_oneof![
            (windowed.clone(), keys, expr(), 0.0..2.0f64, 1i64..9_000_000_000, metric, alias()).prop_map(
                |(of, keys, vector, radius, within, metric, alias)| Source::Dedupe {
                    of: Box::new(of),
                    keys,
                    vector: Box::new(vector),
                    radius,
                    within,
                    metric,
                    alias
                }
            ),
            (query, alias()).prop_map(|(query, alias)| Source::Query { query, alias }),
            (window, windowed, expr(), zone, alias()).prop_map(|(window, of, time, zone, alias)| Source::Window {
                window,
                of: Box::new(of),
                time: Box::new(time),
                zone: zone.filter(|_| !matches!(window, Window::Session { .. })),
                alias
            }),
        ]
    })
}

fn query_from(source: impl Strategy<Value = Source> + 'static) -> impl Strategy<Value = Query> {
    let source = source.boxed();
    let item = prop_oneof![
        prop::option::of(named()).prop_map(Item::All),
        (expr(), prop::option::of(named())).prop_map(|(value, alias)| Item::One(value, alias)),
    ];
    let nearest =
        (named(), expr(), 0u64..9, prop::option::of(named())).prop_map(|(collection, vector, limit, alias)| {
            Source::Nearest { collection, vector: Box::new(vector), limit, alias }
        });
    let joined = prop_oneof![
        3 => source.clone(),
        1 => (source.clone(), source.clone()).prop_map(|(left, right)| Source::Join { left: left.into(), right: right.into(), outer: false, on: None }),
        1 => (source.clone(), source.clone(), any::<bool>(), expr()).prop_map(|(left, right, outer, on)| Source::Join { left: left.into(), right: right.into(), outer, on: Some(on.into()) }),
        1 => (source, nearest, any::<bool>()).prop_map(|(left, right, outer)| Source::Join { left: left.into(), right: right.into(), outer, on: None }),
    ];
    let order = (expr(), any::<bool>()).prop_map(|(by, descending)| Order { by, descending });
    let emit = prop::sample::select(vec![None, Some(Emit::Changes), Some(Emit::OnWindowClose)]);
    let few = |least| least..3usize;
    (
        (any::<bool>(), prop::collection::vec(item, few(1)), joined),
        (prop::option::of(expr()), prop::collection::vec(expr(), few(0)), prop::option::of(expr())),
        (prop::collection::vec(order, few(0)), prop::option::of(0u64..100), emit),
    )
        .prop_map(|((distinct, items, from), (filter, groups, having), (order, limit, emit))| Query {
            distinct,
            items,
            from,
            filter,
            groups,
            having,
            order,
            limit,
            emit,
        })
}

/// `key = value` behind `WITH`, of keys that mean something often enough.
fn setting() -> impl Strategy<Value = Setting> {
    let known =
        vec!["connector", "collection", "since", "paths", "mode", "every", "idle", "keys", "deadLetters", "options.a"];
    let key = prop_oneof![prop::sample::select(known).prop_map(str::to_owned), "[a-zA-Z_.' ]{0,6}"];
    let plain = || {
        prop_oneof![
            "[a-z' é]{0,5}".prop_map(Kind::Text),
            prop::sample::select(vec!["collection", "stream", "files", "application", "now", "batch", "1 day", "docs"])
                .prop_map(|text| Kind::Text(text.to_owned())),
            any::<i64>().prop_map(Kind::Int),
            (-1e9..1e9f64).prop_map(Kind::Float),
            any::<bool>().prop_map(Kind::Bool),
            "[a-z]{1,3}".prop_map(Kind::Parameter),
        ]
        .prop_map(|kind| Expr::new(0, kind))
    };
    let value = prop_oneof![
        4 => plain(),
        1 => prop::collection::vec(plain(), 0..3).prop_map(|list| Expr::new(0, Kind::List(list))),
        1 => (1i64..9_000_000_000).prop_map(|micros| Expr::new(0, Kind::Interval(micros))),
        1 => (0i64..4_000_000_000).prop_map(|second| Expr::new(0, Kind::Timestamp(second * 1_000_000))),
    ];
    (key, value).prop_map(|(text, value)| Setting { key: Name { text, at: 0 }, value })
}

fn declaration() -> impl Strategy<Value = Declaration> {
    let types =
        vec![DataType::Int64, DataType::Timestamp, DataType::Bool, DataType::FloatVector { dim: 3 }, DataType::Json];
    let column = (named(), prop::sample::select(types), any::<bool>())
        .prop_map(|(name, data_type, not_null)| (name, ColumnType { data_type, not_null }));
    let watermark = prop::option::of((named(), 0i64..9_000_000));
    let parts = (named(), prop::collection::vec(column, 0..4), watermark, prop::collection::vec(setting(), 0..4));
    parts.prop_map(|(name, mut columns, watermark, settings)| {
        if watermark.is_none() && settings.is_empty() {
            let data_type = DataType::Int64;
            columns.push((Name { text: "last".to_owned(), at: 0 }, ColumnType { data_type, not_null: false }));
        }
        Declaration { name, columns, watermark, settings }
    })
}

fn statement() -> impl Strategy<Value = Statement> {
    let query = query_from(source());
    let settings = prop::collection::vec(setting(), 1..4);
    prop_oneof![
        4 => (query, named(), any::<bool>(), 0..6, settings).prop_map(|(query, name, materialized, kind, settings)| match kind {
            0 => Statement::Select(query),
            1 => Statement::View { name, materialized, query },
            2 => Statement::Insert { into: name, query },
            3 => Statement::Sink { name, of: Some(SinkRows::As(Box::new(query))), settings },
            4 => Statement::Sink { of: Some(SinkRows::From(name.clone())), name, settings: vec![] },
            _ => Statement::Explain(Box::new(Statement::Select(query))),
        }),
        1 => declaration().prop_map(Statement::Create),
    ]
}

/// Words that texts are made of, so that many of them mean something.
fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(super::parser::RESERVED.to_vec()).prop_map(str::to_string),
        prop::sample::select(vec![
            "SELECT a FROM t",
            "a",
            "b",
            "t.a",
            "(",
            ")",
            ",",
            "*",
            "=",
            "<",
            "+",
            "-",
            "1",
            "2.5",
            "'x'",
            "[",
            "]",
            "{p}",
            ";",
            "count(",
            "EMIT",
            "CHANGES",
            "INTERVAL '1' DAY",
            "TUMBLE(t, a,",
            "TABLE(",
            "CREATE STREAM s (a INT",
            "CREATE SOURCE s WITH (",
            "CREATE SINK s",
            "connector = 'collection'",
            "since = 'now'",
            "keys = ['a']",
            "CREATE VIEW v AS",
            "INSERT INTO",
            "EXPLAIN",
            "GROUP BY",
            "ORDER BY",
            "IS NULL",
            "BETWEEN",
            "LIKE",
            "nearest(c, v, 3)",
            "WATERMARK FOR",
            "\"q\"",
            "`",
            "--",
            "/*",
            "é",
        ])
        .prop_map(str::to_string),
    ];
    prop::collection::vec(word, 0..20).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn what_is_written_is_read_the_same(statement in statement()) {
        let text = statement.to_string();
        match parse(&text) {
            Ok(read) => prop_assert_eq!(&read, &[statement], "{}", text),
            Err(fault) => prop_assert!(false, "{}", fault.into_error(&text)),
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in prop_oneof![words(), words().prop_map(|text| format!("SELECT a FROM t WHERE {text}")), "\\PC{0,60}"]) {
        match parse(&text) {
            Ok(statements) => {
                for statement in statements {
                    let written = statement.to_string();
                    prop_assert_eq!(parse(&written).map_err(|fault| fault.message), Ok(vec![statement]), "{}", written);
                }
            }
            Err(fault) => prop_assert!(fault.at <= text.chars().count(), "{}", text),
        }
    }
}

mod plans {
    //! What becomes of statements: the plan that someone would write by hand.

    use super::super::{Catalog, Compiled, Mode, Table, compile};
    use super::{Error, NEXMARK};
    use crate::model::{DataType, Value};
    use crate::query::Parameters;
    use crate::query::compute::Expression;
    use crate::stream::{
        Aggregate, AggregateFunction, Node, Operator, Output, Pace, Plan, Sink, Source, SourceField, Trigger,
        Watermark, Window, WindowAggregate,
    };

    const TEXT: DataType = DataType::Varchar { max_length: 65_535 };
    const SECOND: i64 = 1_000_000;

    fn table(fields: &[(&str, DataType)], time: Option<&str>, key: Option<&str>) -> Table {
        Table {
            fields: fields.iter().map(|(name, data_type)| SourceField::new(*name, *data_type)).collect(),
            time: time.map(str::to_owned),
            watermark: Watermark { delay: 4 * SECOND, idle: None },
            key: key.map(str::to_owned),
        }
    }

    fn catalog() -> Catalog {
        use DataType::{Int64, Timestamp};
        let time = Some("dateTime");
        let tables = [
            (
                "bid",
                table(
                    &[
                        ("auction", Int64),
                        ("bidder", Int64),
                        ("price", Int64),
                        ("channel", TEXT),
                        ("url", TEXT),
                        ("dateTime", Timestamp),
                        ("extra", TEXT),
                    ],
                    time,
                    None,
                ),
            ),
            (
                "auction",
                table(
                    &[
                        ("id", Int64),
                        ("itemName", TEXT),
                        ("dateTime", Timestamp),
                        ("expires", Timestamp),
                        ("seller", Int64),
                        ("category", Int64),
                    ],
                    time,
                    None,
                ),
            ),
            (
                "person",
                table(
                    &[("id", Int64), ("name", TEXT), ("city", TEXT), ("state", TEXT), ("dateTime", Timestamp)],
                    time,
                    None,
                ),
            ),
            (
                "docs",
                table(
                    &[("id", Int64), ("title", TEXT), ("year", Int64), ("v", DataType::FloatVector { dim: 2 })],
                    None,
                    Some("id"),
                ),
            ),
            (
                "asked",
                table(
                    &[("user", TEXT), ("doc", Int64), ("at", Timestamp), ("v", DataType::FloatVector { dim: 2 })],
                    Some("at"),
                    None,
                ),
            ),
        ];
        Catalog { tables: tables.into_iter().map(|(name, table)| (name.to_owned(), table)).collect() }
    }

    fn in_mode(text: &str, mode: Mode) -> Result<Compiled, Error> {
        let parameters = Parameters::from([("q".to_owned(), Value::Vector(vec![1.0, 0.0]))]);
        compile(text, &catalog(), &parameters, mode)
    }

    fn plan(text: &str) -> Plan {
        in_mode(text, Mode::Stream).unwrap_or_else(|error| panic!("{error}")).plan
    }

    fn wrong(text: &str) -> (usize, String) {
        let error = in_mode(text, Mode::Stream).expect_err(text);
        (error.position().unwrap(), error.message().split(", at position").next().unwrap().to_owned())
    }

    /// The operators of a plan, without what each gives.
    fn drawn(text: &str, mode: Mode) -> Vec<String> {
        let plan = in_mode(text, mode).unwrap_or_else(|error| panic!("{error}")).plan;
        plan.explain().unwrap().lines().map(|line| line.split(" -> ").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn nexmark_becomes_plans() {
        let of = |wanted: &str| NEXMARK.iter().find(|(name, _)| *name == wanted).unwrap().1;
        for (name, expected) in [
            ("q0", &["output: sink", "  bid: source by dateTime, watermark 4 s behind"][..]),
            (
                "q2",
                &[
                    "output: sink",
                    "  project: project auction = auction, price = price",
                    "    filter: filter ((auction % 123) == 0)",
                    "      bid: source by dateTime, watermark 4 s behind",
                ],
            ),
            (
                "q3",
                &[
                    "output: sink",
                    "  project: project name = name, city = city, state = state, id = id",
                    "    join: inner join on seller == id",
                    "      filter: filter (category == 10)",
                    "        auction: source by dateTime, watermark 4 s behind",
                    "      filter_2: filter or((state == \"OR\"), (state == \"ID\"), (state == \"CA\"))",
                    "        person: source by dateTime, watermark 4 s behind",
                ],
            ),
            (
                "q4",
                &[
                    "output: sink",
                    "  aggregate_2: aggregate global by category: avg = avg(final); early every batch; accumulating",
                    "    aggregate: aggregate global by id, category: final = max(price); early every batch; retracting",
                    "      join: inner join on id == auction where ((right_dateTime <= expires) and (right_dateTime >= dateTime))",
                    "        auction: source by dateTime, watermark 4 s behind",
                    "        bid: source by dateTime, watermark 4 s behind",
                ],
            ),
            (
                "q5",
                &[
                    "output: sink",
                    "  project: project auction = auction, num = num",
                    "    join: inner join on  in attached window where (num >= maxn)",
                    "      aggregate: aggregate sliding 10 s every 2 s by auction: num = count(*)",
                    "        bid: source by dateTime, watermark 4 s behind",
                    "      aggregate_2: aggregate attached window: maxn = max(num)",
                    "        aggregate (above)",
                ],
            ),
            (
                "q7",
                &[
                    "output: sink",
                    "  project: project auction = auction, price = price, bidder = bidder, dateTime = dateTime, extra = extra",
                    "    join: inner join on price == maxprice within -1 µs to 9999999 µs",
                    "      bid: source by dateTime, watermark 4 s behind",
                    "      aggregate: aggregate tumbling 10 s: maxprice = max(price)",
                    "        bid (above)",
                ],
            ),
            (
                "q8",
                &[
                    "output: sink",
                    "  project: project id = id, name = name, starttime = window_start",
                    "    join: inner join on id == seller in attached window",
                    "      aggregate: aggregate tumbling 10 s by id, name: ",
                    "        person: source by dateTime, watermark 4 s behind",
                    "      aggregate_2: aggregate tumbling 10 s by seller: ",
                    "        auction: source by dateTime, watermark 4 s behind",
                ],
            ),
            (
                "q11",
                &[
                    "output: sink",
                    "  project: project bidder = bidder, bid_count = bid_count, starttime = window_start, endtime = window_end",
                    "    aggregate: aggregate session, gap 10 s by bidder: bid_count = count(*)",
                    "      bid: source by dateTime, watermark 4 s behind",
                ],
            ),
            (
                "q12",
                &[
                    "nexmark_q12: sink into nexmark_q12",
                    "  project: project bidder = bidder, bid_count = bid_count, starttime = window_start, endtime = window_end",
                    "    aggregate: aggregate tumbling 10 s of processing time by bidder: bid_count = count(*)",
                    "      bid: source by dateTime, watermark 4 s behind",
                ],
            ),
        ] {
            assert_eq!(drawn(of(name), Mode::Stream), expected, "{name}");
        }
    }

    #[test]
    fn collections_are_looked_up_and_searched() {
        for (text, expected) in [
            (
                "SELECT user, title FROM asked LEFT JOIN docs ON doc = docs.id",
                &[
                    "output: sink",
                    "  project: project user = user, title = title",
                    "    lookup: join with docs by doc",
                    "      asked: source by at, watermark 4 s behind",
                ][..],
            ),
            (
                "SELECT a.user, n.title, n.distance FROM asked a, nearest(docs, a.v, 3) n WHERE n.distance < 0.5",
                &[
                    "output: sink",
                    "  project: project user = user, title = title, distance = distance",
                    "    filter: filter (distance < 0.5)",
                    "      nearest: join with the 3 nearest of docs to v",
                    "        asked: source by at, watermark 4 s behind",
                ],
            ),
            (
                "SELECT p.name, a.id FROM person p LEFT JOIN auction a ON p.id = a.seller AND a.dateTime BETWEEN p.dateTime AND p.dateTime + INTERVAL '1' HOUR",
                &[
                    "output: sink",
                    "  project: project name = name, id = right_id",
                    "    join: left join on id == seller within 0 µs to 1 h",
                    "      person: source by dateTime, watermark 4 s behind",
                    "      auction: source by dateTime, watermark 4 s behind",
                ],
            ),
            (
                "SELECT window_end, bidder, sum(price) total FROM TUMBLE(bid, dateTime, INTERVAL '1' HOUR) GROUP BY bidder, window_start, window_end HAVING sum(price) > 10 ORDER BY total DESC LIMIT 3",
                &[
                    "output: sink",
                    "  project: project window_end = window_end, bidder = bidder, total = total",
                    "    top: top 3 by total desc of each window_start, window_end",
                    "      having: filter (total > 10)",
                    "        aggregate: aggregate tumbling 1 h by bidder: total = sum(price)",
                    "          bid: source by dateTime, watermark 4 s behind",
                ],
            ),
        ] {
            assert_eq!(drawn(text, Mode::Stream), expected, "{text}");
        }
    }

    #[test]
    fn what_is_stored_is_told_once_and_in_order() {
        assert_eq!(
            drawn("SELECT year, count(*) n FROM docs GROUP BY year ORDER BY n DESC", Mode::Snapshot),
            [
                "output: sink",
                "  project: project year = year, n = n",
                "    top: all by order_1 desc of each window_start, window_end",
                "      sort: project year = year, n = n, order_1 = n, window_start = to_timestamp(0), window_end = to_timestamp(253402300799000000)",
                "        aggregate: aggregate global by year: n = count(*)",
                "          docs: source",
            ]
        );
        let sources = in_mode("SELECT * FROM docs", Mode::Snapshot).unwrap();
        assert_eq!(sources.reads.len(), 1);
        assert!(sources.reads[0].collection && sources.reads[0].name == "docs");
    }

    /// The same plan as one that is written by hand, to the last part.
    #[test]
    fn sql_is_a_way_to_write_a_plan() {
        let text = "CREATE STREAM s (k BIGINT NOT NULL, v DOUBLE NOT NULL, t TIMESTAMP NOT NULL, WATERMARK FOR t AS t - INTERVAL '5' SECOND);
            CREATE MATERIALIZED VIEW totals AS
            SELECT k, window_start, window_end, sum(v) AS total FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(t), INTERVAL '1' MINUTE))
            WHERE v > 0.5 GROUP BY k, window_start, window_end EMIT CHANGES";
        let field = |name: &str, data_type| SourceField::new(name, data_type);
        let source = Source {
            fields: vec![field("k", DataType::Int64), field("v", DataType::Double), field("t", DataType::Timestamp)],
            time: Some("t".into()),
            watermark: Watermark { delay: 5 * SECOND, idle: None },
            changes: false,
        };
        let aggregate = WindowAggregate {
            window: Window::Tumbling { size: 60 * SECOND, offset: 0, zone: None },
            keys: vec!["k".into()],
            aggregates: vec![Aggregate {
                name: "total".into(),
                function: AggregateFunction::Sum,
                input: Some(Expression::column("v")),
                filter: None,
                by: None,
            }],
            trigger: Trigger { early: Some(Pace::Batch), ..Trigger::default() },
            lateness: 0,
            output: Output::Accumulating,
            late: None,
            evictor: None,
        };
        let node = |name: &str, inputs: &[&str], operator| Node {
            name: name.into(),
            inputs: inputs.iter().map(|input| (*input).into()).collect(),
            operator,
        };
        let by_hand = Plan {
            nodes: vec![
                node("s", &[], Operator::Source(source)),
                node(
                    "filter",
                    &["s"],
                    Operator::Filter {
                        condition: Expression::call(
                            crate::query::compute::Function::Gt,
                            [Expression::column("v"), Expression::literal(0.5)],
                        ),
                    },
                ),
                node("aggregate", &["filter"], Operator::Aggregate(aggregate)),
                node(
                    "totals",
                    &["aggregate"],
                    Operator::Sink(Sink {
                        collection: Some("totals".into()),
                        keys: vec!["k".into(), "window_start".into(), "window_end".into()],
                    }),
                ),
            ],
        };
        assert_eq!(plan(text), by_hand);
        assert_eq!(plan(text).explain().unwrap(), by_hand.explain().unwrap());
    }

    #[test]
    fn what_cannot_be_planned_is_told_with_its_position() {
        let cases = [
            ("SELECT a FROM bids", 14, "found `bids`, which is no stream, collection or view: did you mean `bid`?"),
            ("SELECT prize FROM bid", 7, "found `prize`, which is no column here: did you mean `price`?"),
            (
                "SELECT id FROM person p, auction a WHERE p.id = a.seller",
                7,
                "`id` may be one of several columns: write whose it is before it",
            ),
            ("SELECT x.id FROM person p", 7, "there is nothing of the name `x` here"),
            ("SELECT price + 'a' FROM bid", 7, "`(price + \"a\")`: add takes numbers, got varchar"),
            ("SELECT pow(price, 2) FROM bid", 7, "found `pow`, which is no function"),
            ("SELECT price FROM bid WHERE sum(price) > 2", 28, "the aggregate `sum` cannot stand here"),
            (
                "SELECT price, count(*) FROM bid GROUP BY bidder",
                7,
                "`price` is neither in `GROUP BY` nor in an aggregate",
            ),
            ("SELECT sum(max(price)) FROM bid", 11, "an aggregate cannot stand inside of another"),
            ("SELECT * FROM bid GROUP BY bidder", 0, "`*` cannot stand beside `GROUP BY`"),
            (
                "SELECT count(*) FROM TUMBLE(bid, price, INTERVAL '1' DAY) GROUP BY window_end",
                33,
                "found `price`, expected the event time, `dateTime`",
            ),
            (
                "SELECT count(*) FROM TUMBLE(docs, id, INTERVAL '1' DAY) GROUP BY window_end",
                34,
                "these rows have no event time: declare one by `WATERMARK FOR column AS column - INTERVAL …`",
            ),
            (
                "SELECT title FROM DEDUPE(docs, v, 0.1, INTERVAL '1' DAY)",
                31,
                "dedupe cannot follow rows that may be taken back",
            ),
            (
                "SELECT user FROM DEDUPE(asked, doc, 0.1, INTERVAL '1' DAY)",
                31,
                "`doc` is int64, expected a float_vector",
            ),
            ("SELECT user FROM DEDUPE(asked, v, 3, INTERVAL '1' DAY)", 31, "radius is 3, expected 0 to 2.0"),
            (
                "SELECT user FROM DEDUPE(asked PARTITION BY usr, DESCRIPTOR(v), 1, INTERVAL '1' DAY)",
                43,
                "found `usr`, which is no column here: did you mean `user`?",
            ),
            ("SELECT a.id FROM auction a, person p", 0, "a join without a condition is not supported by this version"),
            (
                "SELECT p.id FROM person p LEFT JOIN auction a ON p.id = a.seller",
                49,
                "without a window or an interval nothing ever has no partner: only inner joins",
            ),
            (
                "SELECT price FROM bid ORDER BY price",
                31,
                "all rows, and their places, are known of a window only: have `window_end` among its keys",
            ),
            (
                "SELECT bidder, count(*) FROM bid GROUP BY bidder EMIT ON WINDOW CLOSE",
                7,
                "`EMIT ON WINDOW CLOSE` needs a window among `GROUP BY`",
            ),
            (
                "SELECT count(*) AS n FROM bid GROUP BY bidder EMIT CHANGES",
                0,
                "`EMIT CHANGES` needs the columns of `GROUP BY` among those of `SELECT`, by which rows are told apart",
            ),
            (
                "SELECT v FROM asked WHERE cosine_distance(v, {nothing}) < 1",
                45,
                "found parameter `nothing`, which was given no value",
            ),
            (
                "SELECT l2_distance(v, [1, 2, 3]) FROM asked",
                7,
                "`l2_distance(v, [3 numbers])`: l2_distance takes vectors of one length, got float_vector(2) and float_vector(3)",
            ),
            (
                "SELECT title FROM asked, nearest(dogs, v, 2)",
                33,
                "found `dogs`, which is no collection: did you mean `docs`?",
            ),
            ("CREATE STREAM bid (a BIGINT); CREATE STREAM bid (a BIGINT)", 44, "`bid` is there already"),
            (
                "CREATE STREAM s (a BIGINT) WITH (conector = 'x')",
                33,
                "found the option `conector`, which is none here: did you mean `connector`?",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (connector = 'files')",
                14,
                "the files of `s` are not named: expected `paths`",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (connector = 'files', paths = [1])",
                63,
                "found `1`, expected a text, or a list of texts",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (connector = 'files', paths = 'a', since = 'now')",
                67,
                "found the option `since`, which is none here: expected `idle`, `connector`, `mode`, `every`, `pace`, `paths`, `format`",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (connector = 'x', mode = 'realtime')",
                57,
                "found the mode `realtime`, expected `realTime`, `nearRealTime` or `batch`: did you mean `realTime`?",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (connector = 'x', topic = 'realtime')",
                50,
                "found the option `topic`, which is none here: expected `idle`, `connector`, `mode`, `every`, `pace`, `options.…`",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (connector = 'x', every = '1 second')",
                58,
                "`every` is of the mode `nearRealTime`",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (idle = 'soon')",
                40,
                "found `'soon'`, expected a time such as `30 seconds`",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (Commit_Time = 'a', connector = 'collection', commitTime = 'b')",
                78,
                "the option `commitTime` is given twice",
            ),
            (
                "CREATE SOURCE s (a BIGINT) WITH (connector = 'collection', since = 'yesterday')",
                67,
                "found `'yesterday'`, expected 'full', 'now', 'earliest', a TIMESTAMP or the number of a hybrid time in quotes",
            ),
            (
                "CREATE SOURCE s WITH (connector = 'x')",
                14,
                "the columns of `s` are known to nobody: expected `(` and the columns",
            ),
            (
                "CREATE SOURCE s (title VARCHAR) WITH (connector = 'collection', collection = 'docs', changes = TRUE)",
                95,
                "rows that are taken back have their key, `id`, among the columns",
            ),
            (
                "CREATE SINK s FROM bid WITH (keys = ['prize'])",
                37,
                "found `prize`, which is no column here: did you mean `price`?",
            ),
            (
                "CREATE SINK s FROM bid WITH (connector = 'kafka')",
                41,
                "found the connector `kafka`, expected `collection` or `application` of a sink",
            ),
            (
                "CREATE SINK s WITH (keys = 'a')",
                12,
                "nothing goes into the sink `s`: expected `FROM`, `AS` or an `INSERT INTO s`",
            ),
            (
                "CREATE SINK s FROM bid WITH (deadLetters = 'a'); CREATE SINK t FROM bid WITH (deadLetters = 'b')",
                92,
                "a pipeline has one collection for dead letters, and another sink names another",
            ),
            (
                "SELECT now() FROM bid",
                7,
                "the time of processing anywhere but as the time of a window is not supported by this version",
            ),
        ];
        let told = cases.map(|(text, ..)| (text, wrong(text)));
        assert_eq!(told, cases.map(|(text, at, what)| (text, (at, what.to_owned()))));
    }

    #[test]
    fn rows_that_are_near_are_left_out() {
        let text = "SELECT d.user, count(*) AS n FROM TUMBLE((SELECT * FROM DEDUPE(asked PARTITION BY user, DESCRIPTOR(v), 0.25, INTERVAL '1' HOUR)), at, INTERVAL '1' DAY) d
            GROUP BY d.user, window_end";
        assert_eq!(
            drawn(text, Mode::Stream)[1..],
            [
                "  project: project user = user, n = n",
                "    aggregate: aggregate tumbling 1 d by user: n = count(*)",
                "      dedupe: dedupe v within cosine 0.25 for 1 h of each user",
                "        asked: source by at, watermark 4 s behind",
            ]
        );
    }

    #[test]
    fn sources_and_sinks_say_where_rows_come_from_and_go_to() {
        use crate::stream::SourceMode;
        use crate::stream::sql::{Origin, RunSettings};
        let text = "
            CREATE SOURCE s (k BIGINT, t TIMESTAMP, WATERMARK FOR t AS t) WITH (connector = 'broker', idle = '1 minute',
                mode = 'nearRealTime', every = INTERVAL '2' SECOND, pace = 3, options.bootstrap.servers = ['a', 'b'], options.tries = 5);
            CREATE SOURCE d WITH (connector = 'collection', collection = 'docs', since = TIMESTAMP '1970-01-01 00:00:01');
            CREATE SOURCE living WITH (connector = 'collection', collection = 'docs', changes = TRUE);
            CREATE SINK out AS SELECT k, title FROM s LEFT JOIN living ON living.id = s.k WITH (collection = 'titles', keys = 'k', dead_letters = 'bad');
            CREATE SINK seen WITH (connector = 'application', keepRows = 7);
            INSERT INTO seen SELECT id FROM d";
        let compiled = in_mode(text, Mode::Stream).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(compiled.settings, RunSettings { dead_letters: Some("bad".into()), keep_rows: Some(7) });
        let origins: Vec<_> = compiled.reads.iter().map(|read| (&*read.name, read.origin.clone().unwrap())).collect();
        let broker = Origin {
            connector: Some("broker".into()),
            mode: SourceMode::NearRealTime { every_ms: 2_000 },
            pace: Some(3.0),
            options: serde_json::json!({"bootstrap.servers": ["a", "b"], "tries": 5}),
            ..Origin::default()
        };
        let since = Some((1_000u64 << 18).to_string());
        let docs = Origin { collection: Some("docs".into()), since, ..Origin::default() };
        assert_eq!(origins, [("s", broker), ("d", docs)]);
        let sinks: Vec<_> = compiled
            .plan
            .nodes
            .iter()
            .filter_map(|node| match &node.operator {
                Operator::Sink(sink) => Some((&*node.name, sink.clone())),
                _ => None,
            })
            .collect();
        let titles = Sink { collection: Some("titles".into()), keys: vec!["k".into()] };
        assert_eq!(sinks, [("out", titles), ("seen", Sink::default())]);
        // Changes of a collection are taken back; looked up, it goes by its own name.
        let drawn = compiled.plan.explain().unwrap();
        assert!(drawn.contains("join with docs by k") && drawn.contains("idle after 1 min"), "{drawn}");
        let whole = in_mode(
            "CREATE SOURCE living WITH (connector = 'collection', collection = 'docs', changes = TRUE); SELECT id FROM living",
            Mode::Stream,
        );
        let Operator::Source(source) = &whole.unwrap().plan.nodes[0].operator else { panic!("no source") };
        assert!(source.changes);
        let stream = "CREATE SOURCE b WITH (connector = 'stream', stream = 'bid'); SELECT price FROM b";
        let read = in_mode(stream, Mode::Stream).unwrap().reads.remove(0);
        assert_eq!(read.origin.unwrap().options, serde_json::json!({"stream": "bid"}));
    }

    mod any {
        use proptest::prelude::*;

        use super::super::{statement, words};
        use super::{catalog, compile};
        use crate::query::Parameters;
        use crate::stream::sql::Mode;

        proptest! {
            /// Whatever is planned can be shown.
            #[test]
            fn statement_is_planned_or_refused(text in prop_oneof![statement().prop_map(|one| one.to_string()), words()], snapshot in any::<bool>()) {
                let mode = if snapshot { Mode::Snapshot } else { Mode::Stream };
                if let Ok(compiled) = compile(&text, &catalog(), &Parameters::new(), mode) && !compiled.plan.nodes.is_empty() {
                    prop_assert!(compiled.plan.explain().is_ok(), "{}", text);
                }
            }

            /// Names that are there, so that more is planned.
            #[test]
            fn query_of_known_names_is_planned_or_refused(
                items in prop::sample::select(vec!["*", "price", "bidder, count(*)", "sum(price) + 1 AS s", "window_start, max(price)", "b.price, a.id", "PROCTIME() AS p"]),
                from in prop::sample::select(vec![
                    "bid", "bid b", "TUMBLE(bid, dateTime, INTERVAL '1' DAY)", "SESSION(bid, dateTime, INTERVAL '1' DAY) b", "bid b JOIN auction a ON a.id = b.auction",
                    "bid b, auction a", "(SELECT * FROM bid) b", "(SELECT bidder, count(*) AS price FROM bid GROUP BY bidder)", "asked, nearest(docs, v, 2) n", "asked LEFT JOIN docs ON docs.id = doc",
                ]),
                rest in prop::sample::subsequence(vec!["WHERE price > 3", "GROUP BY bidder", "HAVING count(*) > 1", "ORDER BY 1", "LIMIT 3", "EMIT CHANGES"], 0..6),
                group in prop::sample::select(vec!["", ", window_start, window_end", ", window_end", ", price % 2"]),
                snapshot in any::<bool>(),
            ) {
                let text = format!("SELECT {items} FROM {from} {}", rest.join(" ").replace("GROUP BY bidder", &format!("GROUP BY bidder{group}")));
                let mode = if snapshot { Mode::Snapshot } else { Mode::Stream };
                match compile(&text, &catalog(), &Parameters::new(), mode) {
                    Ok(compiled) => prop_assert!(compiled.plan.explain().is_ok(), "{}", text),
                    Err(error) => prop_assert!(error.position().is_some(), "{}", text),
                }
            }
        }
    }
}
