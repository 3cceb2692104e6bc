//! Intervals and instants as SQL writes them, in microseconds.

use crate::model::time;

const SECOND: i64 = 1_000_000;
const UNITS: [(&str, i64); 7] = [
    ("WEEK", 7 * 86_400 * SECOND),
    ("DAY", 86_400 * SECOND),
    ("HOUR", 3_600 * SECOND),
    ("MINUTE", 60 * SECOND),
    ("SECOND", SECOND),
    ("MILLISECOND", 1_000),
    ("MICROSECOND", 1),
];

/// The length of a unit, in the singular or the plural.
pub(super) fn unit(word: &str) -> Option<i64> {
    let word = word.to_ascii_uppercase();
    let singular = word.strip_suffix('S').unwrap_or(&word);
    UNITS.iter().find(|(name, _)| *name == singular).map(|(_, micros)| *micros)
}

/// `'10'` of `unit_word`, or `'1 hour 30 minutes'` without one.
pub(super) fn interval(text: &str, unit_word: Option<&str>) -> Option<i64> {
    if let Some(word) = unit_word {
        return scaled(text.trim(), unit(word)?);
    }
    let mut words = text.split_whitespace();
    let mut total = None;
    while let Some(number) = words.next() {
        let part = scaled(number, unit(words.next()?)?)?;
        total = Some(total.unwrap_or(0i64).checked_add(part)?);
    }
    total
}

/// A decimal number of `unit`s. None of `i64::MIN`, which has no opposite.
fn scaled(number: &str, unit: i64) -> Option<i64> {
    let (negative, digits) = number.strip_prefix('-').map_or((false, number), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > 6 {
        return None;
    }
    let mut micros = whole.parse::<i64>().ok()?.checked_mul(unit)?;
    if !fraction.is_empty() {
        let scale = 10i64.pow(fraction.len() as u32);
        let part = fraction.parse::<i64>().ok()?.checked_mul(unit)?;
        if part % scale != 0 {
            return None;
        }
        micros = micros.checked_add(part / scale)?;
    }
    Some(if negative { -micros } else { micros })
}

/// As [`interval`] reads it.
pub(super) fn show_interval(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let (unit, length) = UNITS[1..5].iter().find(|(_, length)| micros % length == 0).unwrap_or(&UNITS[4]);
    let (magnitude, length) = (micros.unsigned_abs(), length.unsigned_abs());
    if magnitude % length == 0 {
        return format!("INTERVAL '{sign}{}' {unit}", magnitude / length);
    }
    format!("INTERVAL '{sign}{}.{:06}' {unit}", magnitude / length, magnitude % length)
}

/// `2024-05-01 12:30:00`, in UTC when it says no offset.
pub(super) fn instant(text: &str) -> Option<i64> {
    let text = text.trim();
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_string(),
    };
    time::parse(&whole).or_else(|| time::parse(&format!("{whole}Z")))
}

/// As [`instant`] reads it.
pub(super) fn show_instant(micros: i64) -> String {
    let (days, rest) = (micros.div_euclid(86_400 * SECOND), micros.rem_euclid(86_400 * SECOND));
    // Years that begin in March, of which 400 have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (seconds, fraction) = (rest / SECOND, rest % SECOND);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
    format!("TIMESTAMP '{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}'")
}
