use crate::base::{Error, ErrorKind, Result};

/// The longest name, in bytes: leaves room for a suffix in file systems that allow 255.
pub const NAME_LEN_MAX: usize = 200;

/// Checks a name: parts of `[a-z0-9._-]` with `/` between them, each starting with a letter or a digit, at most
/// [`NAME_LEN_MAX`] bytes together. So no name leaves its directory, and none collides on a file system without case.
///
/// # Errors
/// `InvalidArgument`, with the name as it was given.
pub fn check_name(name: &str) -> Result<()> {
    let fits = (1..=NAME_LEN_MAX).contains(&name.len());
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let part_is_right = |part: &str| {
        part.as_bytes().first().is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
            && part.as_bytes().iter().all(allowed)
    };
    if fits && name.split('/').all(part_is_right) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{:?} is no storage name: 1 to {NAME_LEN_MAX} bytes, parts of [a-z0-9._-] that start with a letter or digit, `/` between them",
        name.chars().take(NAME_LEN_MAX).collect::<String>()
    )))
}

/// The file name for `name` in a backend whose directories are flat: `/` becomes `~`, which no name has.
pub(super) fn to_file_name(name: &str) -> String {
    name.replace('/', "~")
}

/// The name that a file name stands for; `None` for files that are not objects (locks, temporary or foreign files).
pub(super) fn from_file_name(file_name: &str) -> Option<String> {
    let name = file_name.replace('~', "/");
    check_name(&name).is_ok().then_some(name)
}

/// The checked range `offset..offset + len` of an object of `total` bytes.
///
/// # Errors
/// `Corrupt` when it reaches past the end: whoever wrote the range down meant other bytes.
pub(super) fn check_range(name: &str, offset: u64, len: u64, total: u64) -> Result<std::ops::Range<u64>> {
    match offset.checked_add(len) {
        Some(end) if end <= total => Ok(offset..end),
        _ => Err(Error::corrupt(format!("{name}: {len} bytes expected at byte {offset}, but it has {total} bytes"))),
    }
}

pub(super) fn not_found(name: &str) -> Error {
    Error::not_found(format!("{name} is not in the store"))
}

pub(super) fn already_exists(name: &str) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{name} is in the store already"))
}

pub(super) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the storage was closed")
}

pub(super) fn too_short(name: &str, len: u64, total: u64) -> Error {
    Error::invalid(format!("{name} cannot be cut to {len} bytes: it has {total}"))
}

/// What `append` and `sync` answer after one of them failed, until the object is cut.
pub(super) fn must_cut(name: &str, len: u64) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("an earlier append, sync or truncate of {name} failed: cut it to {len} bytes or fewer first"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_a_directory_or_collide_are_refused() {
        for name in ["a", "0", "c1/s-2/rows.arrow", "manifest.000001", &"x".repeat(NAME_LEN_MAX)] {
            assert!(check_name(name).is_ok(), "{name}");
            assert_eq!(from_file_name(&to_file_name(name)).as_deref(), Some(name));
        }
        let long = "x".repeat(NAME_LEN_MAX + 1);
        for name in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.b", "-a", "_a", "A", "a b", "a\\b", "a~b",
            "a\0", "é", "a:b", "c:/x", &long,
        ] {
            let error = check_name(name).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        assert_eq!(from_file_name("LOCK"), None);
        assert_eq!(from_file_name("TMP-1-2"), None);
    }

    #[test]
    fn a_range_is_checked_without_overflow() {
        assert_eq!(check_range("a", 2, 3, 5).unwrap(), 2..5);
        assert_eq!(check_range("a", 5, 0, 5).unwrap(), 5..5);
        for (offset, len) in [(6, 0), (0, 6), (u64::MAX, 2), (3, u64::MAX)] {
            let error = check_range("a", offset, len, 5).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
    }
}
