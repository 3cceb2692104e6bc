use std::io::{IsTerminal, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::base::{Error, ErrorKind, Result};

/// The width of a table where the terminal's is not known.
const WIDTH: usize = 120;

/// Prints a line to standard output.
///
/// # Errors
/// `Io` when nobody reads it any more.
pub(super) fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Error::new(ErrorKind::Io, format!("writing to standard output: {error}")))
}

/// Prints a line to standard error.
pub(super) fn error(text: &str) {
    // Where standard error is closed there is nobody left to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// The width of the terminal, which `COLUMNS` overrides.
fn terminal_width() -> usize {
    std::env::var("COLUMNS")
        .ok()
        .and_then(|columns| columns.parse().ok())
        .unwrap_or_else(|| terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0)))
}

/// Prints rows under a header in columns; the last column is cut where the terminal ends.
pub(super) fn table(header: &[String], rows: &[Vec<String>]) -> Result<()> {
    // Elsewhere than on a terminal nothing is cut: a program may be reading.
    let width_max = if std::io::stdout().is_terminal() { terminal_width() } else { usize::MAX };
    let widths: Vec<usize> = (0..header.len())
        .map(|column| rows.iter().chain([&header.to_vec()]).map(|row| row[column].width()).max().unwrap_or(0))
        .collect();
    for row in std::iter::once(header).chain(rows.iter().map(Vec::as_slice)) {
        let mut text = String::new();
        for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            if index > 0 {
                text.push_str("  ");
            }
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width - cell.width()));
        }
        line(&cut(text.trim_end(), width_max))?;
    }
    Ok(())
}

/// `text` in at most `width` columns.
fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let (mut short, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        short.push(c);
    }
    short.push('…');
    short
}

/// A value of a row for a table: in one line, control characters left out.
pub(super) fn cell(json: &serde_json::Value) -> String {
    match json {
        serde_json::Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        serde_json::Value::Null => String::new(),
        serde_json::Value::Array(items) if items.len() > 8 && items.iter().all(serde_json::Value::is_number) => {
            format!("[{} numbers]", items.len())
        }
        other => other.to_string(),
    }
}

/// `12,345`.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.5 MB`, in powers of 1000.
pub(super) fn bytes(value: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let (mut amount, mut unit) = (value as f64, 0);
    while amount >= 999.5 && unit + 1 < units.len() {
        amount /= 1000.0;
        unit += 1;
    }
    if unit == 0 || amount >= 99.5 {
        format!("{amount:.0} {}", units[unit])
    } else {
        format!("{amount:.1} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_bytes_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 999, 1_000, 1_540_000, 999_999].map(bytes), ["0 B", "999 B", "1.0 kB", "1.5 MB", "1.0 MB"]);
    }

    #[test]
    fn wide_characters_count_twice() {
        assert_eq!(cut("日本語", 6), "日本語");
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cell(&serde_json::json!("a\u{1b}[31mb\n")), "a[31mb");
    }
}
