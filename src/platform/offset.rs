/// The seconds of an offset as JavaScript hosts show it behind a date: `3/31/2024, GMT+05:30`, `GMT-00:01:15`, `GMT`.
pub(super) fn parse(shown: &str) -> Option<i32> {
    let (_, offset) = shown.rsplit_once("GMT")?;
    let mut characters = offset.chars();
    let sign = match characters.next() {
        None => return Some(0),
        Some('+') => 1,
        // Some hosts have the sign of mathematics.
        Some('-' | '\u{2212}') => -1,
        Some(_) => return None,
    };
    let parts = characters.as_str().split(':').map(|part| part.parse::<u16>().ok()).collect::<Option<Vec<_>>>()?;
    let (hours, minutes, seconds) = match parts[..] {
        [hours] => (hours, 0, 0),
        [hours, minutes] => (hours, minutes, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    (hours < 100 && minutes < 60 && seconds < 60)
        .then(|| sign * (i32::from(hours) * 3_600 + i32::from(minutes) * 60 + i32::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read() {
        let shown = [
            ("3/31/2024, GMT+05:30", Some(19_800)),
            ("1/1/1700, GMT-00:01:15", Some(-75)),
            ("12/30/2011, GMT", Some(0)),
            ("12/30/2011, GMT+14:00", Some(50_400)),
            ("12/30/2011, GMT\u{2212}3", Some(-10_800)),
            ("12/30/2011, UTC", None),
            ("GMT+", None),
            ("GMT+1:60", None),
            ("GMT+100:00", None),
            ("GMT+1:2:3:4", None),
            ("GMT 1", None),
        ];
        for (text, expected) in shown {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
