//! Instants as text: RFC 3339, with microseconds.

/// The first and the last microsecond of the years 1 to 9999, which are those that RFC 3339 can write.
pub(crate) const RANGE: (i64, i64) = (-62_135_596_800_000_000, 253_402_300_799_999_999);

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400;

/// Days from 1970-01-01 to a day of the Gregorian calendar, which repeats every 400 years: counted in years that begin in
/// March, so that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + (month * 306 + 5) / 10 + day
        - 719_469
}

/// The year, month and day of an instant, in UTC.
pub(crate) fn date(micros: i64) -> (i64, i64, i64) {
    // Counted in years that begin in March, as `days` does.
    let day = micros.div_euclid(DAY * SECOND) + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Reads the digits and marks of an instant one after the other.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number(&mut self, len: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
    }

    fn mark(&mut self, marks: &[u8]) -> Option<u8> {
        let (&mark, rest) = self.0.split_first()?;
        self.0 = rest;
        marks.contains(&mark).then_some(mark)
    }
}

/// The microseconds since 1970 of an instant such as `2024-05-01T12:30:00.25+02:00`. Hours and minutes, an offset or `Z`
/// are needed; seconds and up to nine digits of their fraction are not, of which those after the sixth must be zero.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let mut digits = Digits(text.as_bytes());
    let year = digits.number(4)?;
    digits.mark(b"-")?;
    let month = digits.number(2)?;
    digits.mark(b"-")?;
    let day = digits.number(2)?;
    digits.mark(b"Tt ")?;
    let hour = digits.number(2)?;
    digits.mark(b":")?;
    let minute = digits.number(2)?;
    let mut mark = digits.mark(b":Zz+-")?;
    let (mut second, mut micros) = (0, 0);
    if mark == b':' {
        second = digits.number(2)?;
        mark = digits.mark(b".Zz+-")?;
        if mark == b'.' {
            let len = digits.0.iter().take_while(|digit| digit.is_ascii_digit()).count();
            let nanos = digits.number(Some(len).filter(|len| (1..=9).contains(len))?)? * 10i64.pow(9 - len as u32);
            micros = (nanos % 1000 == 0).then_some(nanos / 1000)?;
            mark = digits.mark(b"Zz+-")?;
        }
    }
    let mut offset = 0;
    if matches!(mark, b'+' | b'-') {
        let hours = digits.number(2)?;
        digits.mark(b":")?;
        let minutes = digits.number(2)?;
        offset = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)? * if mark == b'-' { -1 } else { 1 };
    }
    let month_days = if month == 12 { 31 } else { days(year, month + 1, 1) - days(year, month, 1) };
    let whole = digits.0.is_empty() && (1..=12).contains(&month) && (1..=month_days).contains(&day);
    if !whole || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days(year, month, day) * DAY + (hour * 60 + minute - offset) * 60 + second;
    Some(seconds * SECOND + micros).filter(|micros| (RANGE.0..=RANGE.1).contains(micros))
}

/// The microseconds of a duration such as `P1DT12H30M` or `PT0.5S`: weeks, days, hours, minutes and seconds, for years and
/// months have no fixed length.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
    let mut rest = text.strip_prefix('P')?;
    let (mut in_time, mut micros, mut parts) = (false, 0i64, 0);
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix('T').filter(|_| !in_time) {
            (in_time, rest) = (true, time);
        }
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let unit = match (in_time, rest.as_bytes()[end]) {
            (false, b'W') => 7 * DAY,
            (false, b'D') => DAY,
            (true, b'H') => 3600,
            (true, b'M') => 60,
            (true, b'S') => 1,
            _ => return None,
        } * SECOND;
        let (whole, fraction) = rest[..end].split_once('.').unwrap_or((&rest[..end], ""));
        let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > 6 {
            return None;
        }
        micros = micros.checked_add(whole.parse::<i64>().ok()?.checked_mul(unit)?)?;
        if !fraction.is_empty() {
            micros = micros.checked_add(fraction.parse::<i64>().ok()? * unit / 10i64.pow(fraction.len() as u32))?;
        }
        parts += 1;
        rest = &rest[end + 1..];
    }
    (parts > 0).then_some(if negative { -micros } else { micros })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn instants_are_read() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(parse("2000-02-29 12:30Z"), Some(951_827_400_000_000));
        assert_eq!(parse("2024-05-01T12:30:00.25+02:00"), Some(1_714_559_400_250_000));
        assert_eq!(parse("2024-05-01T12:30:00.250000000-00:30"), Some(1_714_568_400_250_000));
        assert_eq!(parse("0001-01-01T00:00:00Z"), Some(RANGE.0));
        assert_eq!(parse("9999-12-31T23:59:59.999999Z"), Some(RANGE.1));
        for wrong in [
            "",
            "2024",
            "2024-05-01",
            "2024-05-01T12:30",
            "2024-05-01T12:30:00",
            "2024-13-01T00:00Z",
            "2023-02-29T00:00Z",
            "2024-00-10T00:00Z",
            "2024-05-00T00:00Z",
            "2024-05-01T24:00Z",
            "2024-05-01T12:60Z",
            "2024-05-01T12:30:60Z",
            "2024-05-01T12:30:00.Z",
            "2024-05-01T12:30:00.0000001Z",
            "2024-05-01T12:30:00.0000000000Z",
            "2024-05-01T12:30Zx",
            "2024-05-01T12:30+2:00",
            "2024-05-01T12:30+24:00",
            "0001-01-01T00:00+01:00",
            "9999-12-31T23:59-01:00",
            "+024-05-01T00:00Z",
            "2024-05-01T00:0é",
        ] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration("P1D"), Some(DAY * SECOND));
        assert_eq!(parse_duration("-P1W2DT3H4M5.25S"), Some(-((9 * DAY + 3 * 3600 + 4 * 60 + 5) * SECOND + 250_000)));
        assert_eq!(parse_duration("PT0.000001S"), Some(1));
        for wrong in
            ["", "P", "PT", "P1", "P1Y", "P1M", "1D", "PT1D", "P1H", "P1DT", "P1.1234567D", "PT.5S", "P99999999999999D"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        /// Against counting day by day.
        #[test]
        fn every_day_follows_the_one_before(year in 1i64..9999, month in 1i64..=12) {
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let len = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month as usize - 1];
            let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
            prop_assert_eq!(next - days(year, month, 1), len);
            prop_assert_eq!(date(days(year, month, 1) * DAY * SECOND), (year, month, 1));
            prop_assert_eq!(date(next * DAY * SECOND - 1), (year, month, len));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}") {
            let _ = (parse(&text), parse_duration(&text));
        }
    }
}
