#![expect(clippy::disallowed_types, reason = "the importer reads the user's own files")]

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use half::f16;

use crate::base::{Error, ErrorKind, Result};

/// Longest header that is read. NumPy's own writer stays far below; its reader refuses more than 10,000 bytes by default.
const HEADER_LEN_MAX: usize = 64 * 1024;
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// A two-dimensional array of floats in NumPy's `.npy` format, read a few rows at a time.
///
/// Format: magic, version (1.0, 2.0 or 3.0), header length, a header that is a Python dictionary literal, then the numbers.
/// Source: NumPy Enhancement Proposal 1 and `numpy.lib.format`.
pub(super) struct Npy {
    reader: BufReader<File>,
    element: Element,
    name: String,
    data_offset: u64,
    rows: u64,
    dim: usize,
    row: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F16,
    F32,
    F64,
}

impl Element {
    const fn len(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

#[derive(Debug, PartialEq)]
struct Header {
    element: Element,
    rows: u64,
    dim: usize,
}

impl Npy {
    /// Opens `path` and checks that the file is as long as its header says.
    ///
    /// # Errors
    /// `NotFound` or `Io` from the file system, `Corrupt` for bytes that are no `.npy` file, `Unsupported` for arrays of other
    /// types, other orders or not two-dimensional. Nothing is allocated by what the header claims.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = super::open_file(path)?;
        let file_len = file.metadata().map_err(|error| super::io_error(&name, &error))?.len();
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let named = |error: Error| error.context(&name);
        let mut preamble = [0; 8];
        read_exact(&mut reader, &mut preamble, "the 8 bytes of magic and version").map_err(named)?;
        if preamble[..6] != MAGIC[..] {
            return Err(named(Error::corrupt("at byte 0: no .npy file (it starts with \\x93NUMPY)")));
        }
        let (major, minor) = (preamble[6], preamble[7]);
        let header_len = match (major, minor) {
            (1, 0) => {
                let mut len = [0; 2];
                read_exact(&mut reader, &mut len, "the header's length").map_err(named)?;
                usize::from(u16::from_le_bytes(len))
            }
            (2 | 3, 0) => {
                let mut len = [0; 4];
                read_exact(&mut reader, &mut len, "the header's length").map_err(named)?;
                u32::from_le_bytes(len) as usize
            }
            _ => {
                return Err(named(Error::new(
                    ErrorKind::Unsupported,
                    format!("at byte 6: .npy version {major}.{minor}; 1.0, 2.0 and 3.0 are read"),
                )));
            }
        };
        if header_len > HEADER_LEN_MAX {
            return Err(named(Error::corrupt(format!(
                "at byte 8: a header of {header_len} bytes; at most {HEADER_LEN_MAX} are read"
            ))));
        }
        let header_offset = if major == 1 { 10 } else { 12 };
        let mut text = vec![0; header_len];
        read_exact(&mut reader, &mut text, "the header").map_err(named)?;
        let header = parse_header(&text, header_offset).map_err(named)?;
        let data_offset = (header_offset + header_len) as u64;
        let data_len = header
            .rows
            .checked_mul(header.dim as u64)
            .and_then(|count| count.checked_mul(header.element.len() as u64))
            .filter(|len| len.checked_add(data_offset).is_some());
        if data_len != file_len.checked_sub(data_offset) {
            return Err(named(Error::corrupt(format!(
                "the header promises {} rows of {} numbers of {} bytes, which the {} bytes after it are not",
                header.rows,
                header.dim,
                header.element.len(),
                file_len.saturating_sub(data_offset)
            ))));
        }
        Ok(Self { reader, element: header.element, name, data_offset, rows: header.rows, dim: header.dim, row: 0 })
    }

    /// The number of rows in the file.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Numbers a row.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Goes to `row`, at most [`Npy::rows`].
    pub(super) fn seek(&mut self, row: u64) -> Result<()> {
        let offset = self.data_offset + row.min(self.rows) * (self.dim * self.element.len()) as u64;
        self.reader.seek(SeekFrom::Start(offset)).map_err(|error| super::io_error(&self.name, &error))?;
        self.row = row.min(self.rows);
        Ok(())
    }

    /// The next row, or `None` after the last. NaN and infinities are given as they are.
    pub(super) fn next_row(&mut self) -> Result<Option<Vec<f32>>> {
        if self.row == self.rows {
            return Ok(None);
        }
        let mut bytes = vec![0; self.dim * self.element.len()];
        read_exact(&mut self.reader, &mut bytes, "a row").map_err(|error| error.context(&self.name))?;
        self.row += 1;
        let row = match self.element {
            Element::F16 => bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
            Element::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Element::F64 => bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect(),
        };
        Ok(Some(row))
    }
}

fn read_exact(reader: &mut impl Read, bytes: &mut [u8], what: &str) -> Result<()> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::corrupt(format!("the file ends inside {what}")),
        _ => Error::new(ErrorKind::Io, format!("reading {what}: {error}")),
    })
}

/// Reads the dictionary `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`. Errors count bytes from the start of
/// the file, in which the text begins at `offset`.
fn parse_header(text: &[u8], offset: usize) -> Result<Header> {
    let mut parser = Parser { text, at: 0, offset };
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    parser.expect(b'{')?;
    while !parser.take(b'}') {
        let key = parser.string()?;
        parser.expect(b':')?;
        match key {
            "descr" => descr = Some(parser.string()?),
            "fortran_order" => fortran_order = Some(parser.boolean()?),
            "shape" => shape = Some(parser.shape()?),
            other => return Err(parser.error(format!("unknown key {other:?}"))),
        }
        if !parser.take(b',') {
            parser.expect(b'}')?;
            break;
        }
    }
    parser.skip_space();
    if parser.at != text.len() {
        return Err(parser.error("more text after the dictionary"));
    }
    let (Some(descr), Some(fortran_order), Some((dimensions, count))) = (descr, fortran_order, shape) else {
        return Err(parser.error("descr, fortran_order or shape is missing"));
    };
    let unsupported = |message: String| Err(Error::new(ErrorKind::Unsupported, message));
    let element = match descr {
        "<f2" => Element::F16,
        "<f4" => Element::F32,
        "<f8" => Element::F64,
        _ => {
            return unsupported(format!(
                "an array of {descr:?}; '<f2', '<f4' and '<f8' (little-endian floats) are read"
            ));
        }
    };
    if fortran_order {
        return unsupported("an array in Fortran order; save it with numpy.ascontiguousarray".to_owned());
    }
    if count != 2 {
        return unsupported(format!("an array of {count} dimensions; two are read: rows and numbers a row"));
    }
    let dim = usize::try_from(dimensions[1]).ok().filter(|dim| (1..=32_768).contains(dim));
    let Some(dim) = dim else {
        return unsupported(format!("rows of {} numbers; 1 to 32,768 are read", dimensions[1]));
    };
    Ok(Header { element, rows: dimensions[0], dim })
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    offset: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, message: impl Into<String>) -> Error {
        Error::corrupt(message).context(format!("the .npy header, at byte {}", self.offset + self.at))
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.take(byte) { Ok(()) } else { Err(self.error(format!("{:?} expected", char::from(byte)))) }
    }

    /// A quoted string without escapes: the writer never needs any for what is read here.
    fn string(&mut self) -> Result<&'a str> {
        let quote = if self.take(b'\'') {
            b'\''
        } else if self.take(b'"') {
            b'"'
        } else {
            return Err(self.error("a string expected"));
        };
        let rest = &self.text[self.at..];
        let Some(len) = rest.iter().position(|&byte| byte == quote || byte == b'\\') else {
            return Err(self.error("a string without end"));
        };
        if rest[len] == b'\\' {
            return Err(self.error("an escape in a string"));
        }
        let text = std::str::from_utf8(&rest[..len]).map_err(|_| self.error("a string that is not UTF-8"))?;
        self.at += len + 1;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool> {
        self.skip_space();
        for (word, value) in [(&b"True"[..], true), (&b"False"[..], false)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.error("True or False expected"))
    }

    /// The first two dimensions, and how many there are.
    fn shape(&mut self) -> Result<([u64; 2], usize)> {
        let (mut dimensions, mut count) = ([0; 2], 0);
        self.expect(b'(')?;
        while !self.take(b')') {
            let number = self.number()?;
            if let Some(dimension) = dimensions.get_mut(count) {
                *dimension = number;
            }
            count += 1;
            if !self.take(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok((dimensions, count))
    }

    fn number(&mut self) -> Result<u64> {
        self.skip_space();
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(&self.text[self.at..self.at + digits]).expect("digits are ASCII");
        let number = text.parse().map_err(|_| self.error("a number from 0 to 2^64 - 1 expected"))?;
        self.at += digits;
        // Python 2 wrote long integers with a suffix.
        self.at += usize::from(self.text.get(self.at) == Some(&b'L'));
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((header.len() as u16).to_le_bytes()),
            _ => bytes.extend((header.len() as u32).to_le_bytes()),
        }
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn open(bytes: &[u8]) -> Result<Npy> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file.as_file(), bytes).unwrap();
        Npy::open(file.path())
    }

    #[test]
    fn reads_every_width_and_version() {
        let header = |descr: &str| format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2, 2), }}   \n");
        let halves: Vec<u8> = [1.5, -2.0, 0.25, 8.0].into_iter().flat_map(|v| f16::from_f32(v).to_le_bytes()).collect();
        let floats: Vec<u8> = [1.5f32, -2.0, 0.25, 8.0].into_iter().flat_map(f32::to_le_bytes).collect();
        let doubles: Vec<u8> = [1.5f64, -2.0, 0.25, 8.0].into_iter().flat_map(f64::to_le_bytes).collect();
        for (version, descr, data) in [(1, "<f2", halves), (2, "<f4", floats), (3, "<f8", doubles)] {
            let mut npy = open(&npy(version, &header(descr), &data)).unwrap();
            assert_eq!((npy.rows(), npy.dim()), (2, 2));
            assert_eq!(npy.next_row().unwrap(), Some(vec![1.5, -2.0]), "{descr}");
            assert_eq!(npy.next_row().unwrap(), Some(vec![0.25, 8.0]), "{descr}");
            assert_eq!(npy.next_row().unwrap(), None);
            npy.seek(1).unwrap();
            assert_eq!(npy.next_row().unwrap(), Some(vec![0.25, 8.0]), "{descr}");
        }
    }

    #[test]
    fn wrong_files_are_named_errors() {
        let fine = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }";
        let with = |from: &str, to: &str| npy(1, &fine.replace(from, to), &[0; 16]);
        let cases: Vec<(Vec<u8>, ErrorKind, &str)> = vec![
            (b"\x93NUM".to_vec(), ErrorKind::Corrupt, "ends inside"),
            (b"PK\x03\x04aaaaaaaa".to_vec(), ErrorKind::Corrupt, "no .npy file"),
            (npy(9, fine, &[0; 16]), ErrorKind::Unsupported, "version 9.0"),
            (npy(1, fine, &[0; 15]), ErrorKind::Corrupt, "promises 2 rows"),
            (npy(1, fine, &[0; 17]), ErrorKind::Corrupt, "promises 2 rows"),
            (with("(2, 2)", "(4611686018427387904, 32768)"), ErrorKind::Corrupt, "promises 4611686018427387904 rows"),
            (with("(2, 2)", "(99999999999999999999, 2)"), ErrorKind::Corrupt, "a number from 0"),
            (with("(2, 2)", "(2, 0)"), ErrorKind::Unsupported, "rows of 0 numbers"),
            (with("(2, 2)", "(4,)"), ErrorKind::Unsupported, "1 dimensions"),
            (with("(2, 2)", "(1, 2, 2)"), ErrorKind::Unsupported, "3 dimensions"),
            (with("(2, 2)", "(-2, 2)"), ErrorKind::Corrupt, "a number from 0"),
            (with("False", "True"), ErrorKind::Unsupported, "Fortran"),
            (with("False", "Maybe"), ErrorKind::Corrupt, "True or False"),
            (with("<f4", ">f4"), ErrorKind::Unsupported, "\">f4\""),
            (with("'<f4'", "[('a', '<f4')]"), ErrorKind::Corrupt, "a string expected"),
            (with("}", "} import os"), ErrorKind::Corrupt, "more text"),
            (with("descr", "describe"), ErrorKind::Corrupt, "unknown key"),
        ];
        for (bytes, kind, message) in cases {
            let error = open(&bytes).err().unwrap();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(message), "{error} lacks {message}");
        }
        let mut hostile = MAGIC.to_vec();
        hostile.extend([2, 0, 0xff, 0xff, 0xff, 0xff]);
        assert!(open(&hostile).err().unwrap().message().contains("4294967295 bytes"));
    }

    proptest! {
        #[test]
        fn arbitrary_headers_never_panic(text in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse_header(&text, 10);
        }

        #[test]
        fn damaged_headers_never_panic(at in 0usize..60, byte in any::<u8>(), cut in 0usize..61) {
            let mut text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), } \n".to_vec();
            text[at] = byte;
            text.truncate(cut);
            let _ = parse_header(&text, 10);
        }
    }
}
