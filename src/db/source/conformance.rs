//! What every source must do, as code: who writes one runs [`run`] on it.
//!
//! The suite reads a source that has all its rows already, in several ways, and compares. It names the promise that is broken.

use std::collections::BTreeMap;

use super::{Positions, Source, SourceBatch, SourceMode, SourceReader, SourceSettings, SourceState};
use crate::base::{Error, ErrorKind, Random, Result};
use crate::model::Row;

/// After so many batches without the end a source is taken for one that never ends.
const BATCHES_MAX: usize = 100_000;

/// What a source is expected to have.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Expected {
    /// By partition, its rows in their order.
    pub rows: BTreeMap<u32, Vec<Row>>,
    /// How many are refused.
    pub refused: usize,
}

/// What was read of a source.
#[derive(Debug, Clone, PartialEq, Default)]
struct Told {
    rows: BTreeMap<u32, Vec<Row>>,
    refused: Vec<(String, String)>,
    /// After each batch that has moved on.
    positions: Vec<(Positions, BTreeMap<u32, usize>, usize)>,
}

fn broken<T>(promise: &str) -> Result<T> {
    Err(Error::internal(format!("the source breaks a promise: {promise}")))
}

fn holds(fact: bool, promise: &str) -> Result<()> {
    if fact { Ok(()) } else { broken(promise) }
}

/// Reads all that is there, `rows_max` at a time, or a random number with a generator.
async fn read_all(reader: &mut SourceReader, rows_max: usize, mut random: Option<&mut Random>) -> Result<Told> {
    let mut told = Told::default();
    for _ in 0..BATCHES_MAX {
        let wanted = random.as_mut().map_or(rows_max, |random| 1 + random.below(rows_max as u64) as usize);
        let SourceBatch { partition, rows, refused, position, flow } = reader.read(wanted, 0).await?;
        holds(rows.len() <= wanted, "a batch has at most as many rows as were asked for")?;
        holds(
            rows.is_empty() && refused.is_empty() || position.is_some(),
            "a batch tells the position after its rows",
        )?;
        holds(
            position.is_none() || reader.partitions().contains(&partition),
            "rows come from the partitions that it has",
        )?;
        holds(
            refused.iter().all(|one| !one.place.is_empty() && !one.reason.is_empty()),
            "what is refused has a place and a reason",
        )?;
        if !rows.is_empty() {
            told.rows.entry(partition).or_default().extend(rows);
        }
        told.refused.extend(refused.into_iter().map(|one| (one.place, one.reason)));
        if position.is_some() {
            let counts = told.rows.iter().map(|(partition, rows)| (*partition, rows.len())).collect();
            told.positions.push((reader.positions().clone(), counts, told.refused.len()));
        }
        if reader.state() == SourceState::Closed {
            let again = reader.read(wanted, 0).await?;
            holds(again.rows.is_empty() && again.flow == flow, "the end stays the end")?;
            return Ok(told);
        }
    }
    broken("it ends, or says that nothing is there for now")
}

async fn connect(source: Box<dyn Source>, positions: Positions) -> Result<SourceReader> {
    let settings = SourceSettings { mode: SourceMode::Batch, ..SourceSettings::default() };
    SourceReader::connect(source, settings, positions).await
}

/// Reads sources that `open` gives, each time one of the same rows, and of the same reader, and compares with `expected`. `seed` draws how many
/// rows are asked for and where reading stops.
///
/// # Errors
/// `Internal` with the promise that is broken, and what the source says.
pub async fn run(open: impl Fn() -> Result<Box<dyn Source>>, expected: &Expected, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    // All of it, by the row, by some and at once.
    let mut first = None;
    for rows_max in [1, 7, 100_000] {
        let mut reader = connect(open()?, Positions::new()).await?;
        let told = read_all(&mut reader, rows_max, None).await?;
        holds(told.rows == expected.rows, "all rows are told, each once and in order")?;
        holds(told.refused.len() == expected.refused, "bad input is refused, and ends nothing")?;
        let (rows, refused) = reader.counts();
        let all: usize = expected.rows.values().map(Vec::len).sum();
        holds((rows, refused) == (all as u64, expected.refused as u64), "what was told is counted")?;
        if let Some(first) = &first {
            holds(*first == told.refused, "what is refused is told alike, however it is read")?;
        }
        first = Some(told.refused);
    }
    // From each place on, by another source and by the same one.
    let mut reader = connect(open()?, Positions::new()).await?;
    let whole = read_all(&mut reader, 3, Some(&mut random)).await?;
    for (positions, counts, refused) in &whole.positions {
        let rest = |told: &Told| {
            let is_rest = |(partition, rows): (&u32, &Vec<Row>)| {
                let from = counts.get(partition).copied().unwrap_or_default();
                told.rows.get(partition).map_or(&[][..], Vec::as_slice) == &rows[from..]
            };
            expected.rows.iter().all(is_rest) && told.refused == whole.refused[*refused..]
        };
        let mut other = connect(open()?, positions.clone()).await?;
        holds(rest(&read_all(&mut other, 5, None).await?), "another source goes on exactly after the positions")?;
        reader.reset(positions.clone()).await?;
        holds(
            rest(&read_all(&mut reader, 2, Some(&mut random)).await?),
            "a source goes back exactly to the positions",
        )?;
    }
    // A pause keeps everything.
    let mut reader = connect(open()?, Positions::new()).await?;
    let mut before = vec![];
    let batch = reader.read(1, 0).await?;
    before.extend(batch.rows);
    if reader.state() == SourceState::Active {
        reader.pause()?;
        let batch = reader.read(10, 0).await?;
        holds(batch.rows.is_empty() && batch.position.is_none(), "a source that is paused tells nothing")?;
        holds(reader.state() == SourceState::Paused, "a pause lasts until it ends")?;
        reader.resume()?;
        let after = read_all(&mut reader, 4, None).await?;
        let rows = after.rows.values().map(Vec::len).sum::<usize>() + before.len();
        holds(rows == expected.rows.values().map(Vec::len).sum::<usize>(), "a pause loses nothing")?;
    }
    // What is committed does not come again, and what is not does.
    for (positions, counts, refused) in &whole.positions {
        let mut reader = connect(open()?, positions.clone()).await?;
        reader.commit(positions).await?;
        reader.reset(positions.clone()).await?;
        let told = read_all(&mut reader, 100, None).await?;
        for (partition, rows) in &expected.rows {
            let from = counts.get(partition).copied().unwrap_or_default();
            let found = told.rows.get(partition).map_or(&[][..], Vec::as_slice);
            holds(found == &rows[from..], "after a commit and a reset nothing comes twice, and nothing is lost")?;
        }
        holds(told.refused == whole.refused[*refused..], "nothing is refused twice")?;
    }
    let mut reader =
        connect(open()?, whole.positions.last().map(|(positions, ..)| positions.clone()).unwrap_or_default()).await?;
    reader.close();
    holds(
        reader.read(1, 0).await.is_err_and(|error| error.kind() == ErrorKind::Closed),
        "a source that was closed says so",
    )?;
    holds(reader.resume().is_err_and(|error| error.kind() == ErrorKind::Conflict), "a source that was closed stays so")
}
