use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::{Map, Value as Json};

use super::infer::Guess;
use super::{Chunk, CountingFile, Source};
use crate::base::{Error, ErrorKind, Result};
use crate::model::Row;

/// Longest line that is read: room for a row with four vectors of 32,768 numbers and a megabyte of text.
const LINE_LEN_MAX: usize = 16 << 20;

/// JSON Lines: one object a line; empty lines count for nothing.
pub(super) struct JsonLines {
    reader: BufReader<CountingFile>,
    name: String,
    text: Vec<u8>,
    line: u64,
}

impl JsonLines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        Ok(Self {
            reader: BufReader::with_capacity(1 << 18, CountingFile::open(path)?),
            name,
            text: Vec::new(),
            line: 0,
        })
    }

    /// What the values of each key look like, over the whole file, in order of first appearance. Keys that cannot be names of
    /// fields are left to the dynamic field.
    pub(super) fn guess(mut self) -> Result<Vec<(String, Guess)>> {
        let mut guesses: Vec<(String, Guess, u64)> = Vec::new();
        let mut rows = 0;
        while self.read_line()? {
            let object: Map<String, Json> = self.parse()?;
            for (key, json) in object.iter().filter(|(key, _)| super::field_name(key) == **key) {
                let known = guesses.iter().position(|(name, ..)| name == key);
                let index = known.unwrap_or_else(|| {
                    guesses.push((key.clone(), Guess::default(), 0));
                    guesses.len() - 1
                });
                guesses[index].1.add_json(json);
                guesses[index].2 += 1;
            }
            rows += 1;
        }
        Ok(guesses
            .into_iter()
            .map(|(key, mut guess, seen)| {
                if seen < rows {
                    guess.add_absent();
                }
                (key, guess)
            })
            .collect())
    }

    /// Reads the next line that is not empty.
    fn read_line(&mut self) -> Result<bool> {
        loop {
            self.text.clear();
            let mut limited = (&mut self.reader).take(LINE_LEN_MAX as u64 + 1);
            let len = limited
                .read_until(b'\n', &mut self.text)
                .map_err(|error| Error::new(ErrorKind::Io, format!("{}: {error}", self.name)))?;
            if len == 0 {
                return Ok(false);
            }
            self.line += 1;
            if len > LINE_LEN_MAX {
                return Err(Error::invalid(format!(
                    "{}:{}: the line is longer than {LINE_LEN_MAX} bytes",
                    self.name, self.line
                )));
            }
            if self.line == 1 && self.text.starts_with(b"\xef\xbb\xbf") {
                self.text.drain(..3);
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.text).map_err(|error| {
            // Every line is a document of its own: the parser's "line 1" would mislead.
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or(&reason);
            Error::invalid(format!("{}:{}: column {}: {reason}", self.name, self.line, error.column()))
        })
    }
}

impl Source for JsonLines {
    fn next_chunk(&mut self, rows_max: usize) -> Result<Option<Chunk>> {
        let (mut rows, mut lines) = (Vec::new(), Vec::new());
        while rows.len() < rows_max && self.read_line()? {
            rows.push(self.parse::<Row>()?);
            lines.push(self.line);
        }
        Ok((!rows.is_empty()).then_some(Chunk::Rows { rows, lines }))
    }

    fn skip(&mut self, rows: u64) -> Result<u64> {
        let mut skipped = 0;
        while skipped < rows && self.read_line()? {
            skipped += 1;
        }
        Ok(skipped)
    }

    fn progress(&self) -> (u64, u64) {
        self.reader.get_ref().progress()
    }
}
