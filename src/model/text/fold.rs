/// The letters of U+00C0 to U+017F without what they wear; a blank where one letter is not enough, or where it is none.
const LATIN: &str = concat!(
    "AAAAAA CEEEEIIIIDNOOOOO OUUUUY  aaaaaa ceeeeiiiidnooooo ouuuuy yAaAaAaCcCcCcCcDdDdEeEeEeEeEeGgGgGgGg",
    "HhHhIiIiIiIiIi  JjKkkLlLlLlLlLlNnNnNn   OoOoOo  RrRrRrSsSsSsSsTtTtTtUuUuUuUuUuUuWwYyYZzZzZzs",
);
/// The same of U+1E00 to U+1EFF.
const LATIN_ADDITIONAL: &str = concat!(
    "AaBbBbBbCcDdDdDdDdDdEeEeEeEeEeFfGgHhHhHhHhHhIiIiKkKkKkLlLlLlLlMmMmMmNnNnNnNnOoOoOoOoPpPpRrRrRrRrSsSs",
    "SsSsSsTtTtTtTtUuUuUuUuUuVvVvWwWwWwWwWwXxXxYyZzZzZzhtwyasss  AaAaAaAaAaAaAaAaAaAaAaAaEeEeEeEeEeEeEeEe",
    "IiIiOoOoOoOoOoOoOoOoOoOoOoOoUuUuUuUuUuUuUuYyYyYyYy  VvYy",
);

/// Latin letters without accents, ligatures as letters, wide forms as usual ones, and no combining accents.
pub(super) fn fold(term: &mut String) {
    if term.is_ascii() {
        return;
    }
    let mut folded = String::with_capacity(term.len());
    for c in term.chars() {
        let code = c as usize;
        let letter = match code {
            0xc0..=0x17f => LATIN.as_bytes()[code - 0xc0],
            0x1e00..=0x1eff => LATIN_ADDITIONAL.as_bytes()[code - 0x1e00],
            // The wide forms.
            0xff01..=0xff5e => (code - 0xff01 + 0x21) as u8,
            _ => b' ',
        };
        match c {
            _ if letter != b' ' => folded.push(char::from(letter)),
            'Æ' => folded.push_str("AE"),
            'æ' => folded.push_str("ae"),
            'Œ' => folded.push_str("OE"),
            'œ' => folded.push_str("oe"),
            'ß' => folded.push_str("ss"),
            'ẞ' => folded.push_str("SS"),
            'Þ' => folded.push_str("TH"),
            'þ' => folded.push_str("th"),
            'Ĳ' => folded.push_str("IJ"),
            'ĳ' => folded.push_str("ij"),
            'ŉ' => folded.push_str("'n"),
            'Ŋ' => folded.push('N'),
            'ŋ' => folded.push('n'),
            '\u{2018}' | '\u{2019}' => folded.push('\''),
            '\u{201c}' | '\u{201d}' => folded.push('"'),
            '\u{2010}'..='\u{2015}' => folded.push('-'),
            '\u{300}'..='\u{36f}' => {}
            _ => folded.push(c),
        }
    }
    *term = folded;
}
