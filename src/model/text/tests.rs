use proptest::prelude::*;
use serde_json::json;

use super::*;

fn analyzer(json: Json) -> Analyzer {
    Analyzer::from_json(json).unwrap()
}

fn terms(json: Json, text: &str) -> Vec<String> {
    analyzer(json).terms(text).into_iter().map(|(term, _)| term).collect()
}

#[test]
fn words_are_what_unicode_says() {
    let standard = |text: &str| terms(json!("standard"), text).join("|");
    assert_eq!(
        standard("The quick (\"brown\") fox can't jump 32.3 feet, right?"),
        "the|quick|brown|fox|can't|jump|32.3|feet|right"
    );
    assert_eq!(
        standard("snake_case _edge_ a.b.c file.txt 1,000 x' 'y' L\u{2019}été"),
        "snake_case|edge|a|b|c|file|txt|1,000|x|y|l\u{2019}été"
    );
    assert_eq!(standard("ÄPFEL Straße e\u{301}te\u{301} हिन्दी \u{301}x"), "äpfel|straße|e\u{301}te\u{301}|हिन्दी|x");
    assert_eq!(standard("日本語のテスト한국어 ok"), "日|本|語|の|テスト한국어|ok");
    assert_eq!(standard(" \n\t,;-—"), "");
}

#[test]
fn other_analyzers_do_what_they_say() {
    assert_eq!(terms(json!("whitespace"), " A b,C\u{3000}d\n").join("|"), "A|b,C|d");
    assert_eq!(terms(json!("cjk"), "日本語 テスト ab 字 한국어").join("|"), "日本|本語|テス|スト|ab|字|한국|국어");
    assert_eq!(terms(json!("english"), "The foxes were running quickly").join("|"), "fox|were|run|quick");
    let extra = json!({"type": "english", "stop_words": ["foxes"]});
    assert_eq!(terms(extra, "The foxes were running").join("|"), "were|run");
    let custom = json!({"tokenizer": "standard", "filter": ["lowercase", "asciifolding", {"type": "stop", "stop_words": ["_english_", "ole"]},
        {"type": "length", "min": 2, "max": 6}, {"type": "stemmer", "language": "english"}]});
    assert_eq!(
        terms(custom, "Olé! Ångströms of ÆON ﬁne Ｗｉｄｅ x, the naïve cats").join("|"),
        "aeon|ﬁne|wide|naiv|cat"
    );
    assert_eq!(terms(json!({"tokenizer": "whitespace"}), "A B").join("|"), "A|B");
}

/// What is left out leaves a gap, so that a phrase is one.
#[test]
fn positions_count_what_is_left_out() {
    let mut tokens = Vec::new();
    let text = "the end of the Rivers";
    analyzer(json!("english")).analyze(text, &mut |token| {
        tokens.push((token.term.to_owned(), token.position, text[token.range].to_owned()));
    });
    assert_eq!(tokens, [("end".to_owned(), 1, "end".to_owned()), ("river".to_owned(), 4, "Rivers".to_owned())]);
}

/// The words are of Snowball's test vocabulary and of the description of its algorithm; the stems are those that Snowball gives.
/// (Vocabulary: copyright 2001 Martin Porter and 2002 Richard Boulton, BSD 3-clause licence.)
#[test]
fn stems_are_those_of_snowball() {
    for line in include_str!("porter2.txt").lines() {
        let (word, stem) = line.split_once(' ').unwrap();
        let mut found = word.to_owned();
        stemmer::stem(&mut found);
        assert_eq!(found, stem, "of {word}");
    }
}

#[test]
fn each_wrong_description_is_named() {
    for (json, words) in [
        (json!("german"), "\"german\""),
        (json!(3), "found 3"),
        (json!({"type": "standard", "filter": []}), "\"filter\""),
        (json!({"type": "english", "stop_words": "a"}), "list of texts"),
        (json!({"filter": []}), "needs its tokenizer"),
        (json!({"tokenizer": "jieba"}), "tokenizer \"jieba\""),
        (json!({"tokenizer": "standard", "filter": "lowercase"}), "must be a list"),
        (json!({"tokenizer": "standard", "filter": ["lowercase", "upper"]}), "filter 1: found \"upper\""),
        (json!({"tokenizer": "standard", "filter": ["length"]}), "min or max"),
        (json!({"tokenizer": "standard", "filter": [{"type": "length", "max": -1}]}), "max is -1"),
        (json!({"tokenizer": "standard", "filter": [{"type": "stemmer", "language": "french"}]}), "french"),
        (json!({"tokenizer": "standard", "filter": [{"type": "stop"}]}), "stop_words"),
        (json!({"tokenizer": "standard", "filter": [{"type": "lowercase", "x": 1}]}), "\"x\""),
    ] {
        let error = Analyzer::from_json(json.clone()).unwrap_err();
        assert!(error.contains(words), "{json}: {words:?} not in {error}");
    }
}

proptest! {
    /// Whatever the text: ranges lie in it one behind the other (but for bigrams), positions ascend, and terms are not too long.
    #[test]
    fn tokens_lie_in_the_text(
        text in "(\\PC|日|の|ア|한| |'|\\.|_|a|1|\u{301}){0,40}",
        json in prop::sample::select(vec![json!("standard"), json!("english"), json!("whitespace"), json!("cjk"),
            json!({"tokenizer": "cjk", "filter": ["asciifolding", "lowercase", "stemmer"]})]),
    ) {
        let mut last = (0, None);
        let overlaps = json != "standard";
        analyzer(json.clone()).analyze(&text, &mut |token| {
            assert!(text.get(token.range.clone()).is_some_and(|part| !part.is_empty()));
            assert!(token.range.start >= last.0 || overlaps);
            assert!(last.1.is_none_or(|last| token.position > last));
            assert!(!token.term.is_empty() && token.term.len() <= TERM_BYTES_MAX);
            last = (token.range.end, Some(token.position));
        });
        for (size, count) in [(0, 3), (7, 2), (1_000, 1), (5, 0)] {
            let marks = Marks { tags: ("\u{1}", "\u{2}"), size, count };
            for shown in highlight(&analyzer(json.clone()), &text, &|term| term.len() % 2 == 0, &marks) {
                prop_assert!(text.contains(&shown.replace(['\u{1}', '\u{2}'], "")), "{shown:?} of {text:?}");
            }
        }
    }
}

#[test]
fn matches_are_shown_in_fragments() {
    let text = "The river runs past the old mill. Nobody has lived there since the war, and the roof is gone. In winter the river \
                floods the mill and the road to the harbour; then boats go where carts went.";
    let shown = |json: Json, size, count| {
        let wanted: Vec<String> = terms(json.clone(), "rivers mill");
        let marks = Marks { tags: ("[", "]"), size, count };
        highlight(&analyzer(json), text, &|term| wanted.iter().any(|wanted| wanted == term), &marks)
    };
    let both = ["[river] runs past the old [mill]. Nobody has", "[river] floods the [mill] and the road"];
    assert_eq!(shown(json!("english"), 40, 2), both);
    assert_eq!(shown(json!("english"), 40, 1), both[..1]);
    assert_eq!(shown(json!("standard"), 20, 9), ["old [mill]. Nobody has", "the [mill] and the"]);
    assert_eq!(shown(json!("english"), 1, 9), ["[river]", "[mill]", "[river]", "[mill]"]);
    let whole = shown(json!("english"), 5, 0);
    assert_eq!((whole.len(), whole[0].replace(['[', ']'], "")), (1, text.to_owned()));
    let marks = Marks { tags: ("<", ">"), size: 100, count: 3 };
    let cjk = analyzer(json!("cjk"));
    let found = highlight(&cjk, "東京都の日本語", &|term| ["東京", "京都", "日本"].contains(&term), &marks);
    assert_eq!(found, ["<東京都>の<日本>語"]);
    assert!(highlight(&cjk, "ab", &|_| false, &marks).is_empty());
}
