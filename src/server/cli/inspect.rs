use std::io::Cursor;
use std::path::{Path, PathBuf};

use arrow_array::Array;
use arrow_ipc::reader::FileReader;
use bytes::Bytes;
use clap::Args;
use serde_json::{Value as Json, json};

use super::output;
use crate::base::{CollectionId, Error, ErrorKind, Lsn, Result};
use crate::db::PushStreamDefinition;
use crate::engine::{Manifest, archive};
use crate::model::check_ipc;
use crate::segment::{self, Encoding, FileKind};
use crate::stream::{PartitionKeys, Piece};
use crate::wal;

/// Frames of a log that are shown without --json.
const FRAMES_SHOWN: usize = 20;

/// Say what is in a file of a store: manifest, log, segment, index, push stream or archive
///
/// Reads only, and without the store: while a server has it open, and when it does not open.
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy inspect ./eddy-data                                 every file, in a line each
  eddy inspect ./eddy-data/manifest~0000000007             one file, in full
  eddy inspect ./eddy-data/c000001~log~0000065536 --json")]
pub(super) struct Inspect {
    /// Files, or directories of stores.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Inspect) -> Result<()> {
    let mut described = Vec::new();
    for path in &command.paths {
        if path.is_dir() {
            for file in files(path)? {
                described.push((file.clone(), describe(&file), false));
            }
        } else {
            described.push((path.clone(), describe(path), true));
        }
    }
    if command.json {
        let all: Vec<Json> = described
            .iter()
            .map(|(path, found, _)| match found {
                Ok(found) => {
                    json!({ "file": path, "kind": found.kind, "bytes": found.bytes, "content": found.content })
                }
                Err(error) => {
                    json!({ "file": path, "error": { "kind": error.kind().as_str(), "message": error.message() } })
                }
            })
            .collect();
        output::line(&serde_json::to_string_pretty(&all).expect("JSON values are written"))?;
    } else {
        for (path, found, in_full) in &described {
            match found {
                Ok(found) => {
                    let size = output::bytes(found.bytes);
                    output::line(&format!("{}: {} ({size}): {}", path.display(), found.kind, found.summary))?;
                    for line in found.lines.iter().filter(|_| *in_full) {
                        output::line(&format!("  {line}"))?;
                    }
                }
                Err(error) => output::line(&format!("{}: {}: {error}", path.display(), error.kind().as_str()))?,
            }
        }
    }
    let wrong = described.iter().filter(|(_, found, _)| found.is_err()).count();
    match described.into_iter().find_map(|(path, found, _)| Some((path, found.err()?))) {
        Some((path, error)) => {
            let message = format!("{wrong} file(s) cannot be read, {} among them: {}", path.display(), error.message());
            Err(Error::new(error.kind(), message))
        }
        None => Ok(()),
    }
}

/// What is in one file.
struct Found {
    kind: &'static str,
    bytes: u64,
    summary: String,
    lines: Vec<String>,
    content: Json,
}

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let io = |error: std::io::Error| Error::new(ErrorKind::Io, format!("{}: {error}", directory.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let is_lock = name == "LOCK" || name.to_string_lossy().starts_with(".lock.");
        if entry.path().is_file() && !is_lock {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[expect(clippy::disallowed_methods, reason = "the command line reads the files that it is given")]
fn describe(path: &Path) -> Result<Found> {
    let bytes = Bytes::from(std::fs::read(path).map_err(|error| {
        let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Io };
        Error::new(kind, error.to_string())
    })?);
    match bytes.get(..8) {
        Some(b"EDDYMAN\n") => manifest(&bytes),
        Some(b"EDDYLOG\n") => match partition_of(path) {
            Some(partition) => pushed(&bytes, partition),
            None => log(&bytes),
        },
        Some(start) if start.starts_with(b"EDPS") => push_stream(&bytes),
        Some(start) if start.starts_with(b"EDPK") => push_keys(&bytes),
        Some(b"EDDYARC\n") => archive(&bytes),
        Some(b"EDDYSEG\n") => layout(&bytes),
        Some(b"EDDYTERM") => Ok(opaque(&bytes, "terms", "an index of terms")),
        Some(b"EDDYHNSW") => Ok(opaque(&bytes, "index", "a graph (HNSW)")),
        Some(start) if start.starts_with(b"ARROW1") => arrow(&bytes),
        Some(start) if start.starts_with(b"\x1f\x8b") => Ok(opaque(&bytes, "gzip", "an Arrow file in gzip")),
        Some(start) if start.starts_with(b"\xff\x06\0\0") => {
            Ok(opaque(&bytes, "snappy", "an Arrow file in Snappy frames"))
        }
        _ => Ok(opaque(&bytes, "unknown", "not written by this version of Eddy")),
    }
}

fn opaque(bytes: &[u8], kind: &'static str, summary: &str) -> Found {
    Found { kind, bytes: bytes.len() as u64, summary: summary.to_owned(), lines: Vec::new(), content: Json::Null }
}

fn manifest(bytes: &[u8]) -> Result<Found> {
    let manifest = Manifest::decode(bytes)?.ok_or_else(|| Error::corrupt("cut short"))?;
    let mut lines = Vec::new();
    for collection in &manifest.collections {
        lines.push(format!(
            "collection {} {:?}: {} segments, log from file {}, up to {}",
            collection.id,
            collection.name,
            collection.segments.len(),
            collection.log_start,
            collection.progress.timestamp
        ));
        if !collection.spec.options.is_usual() {
            let options = serde_json::to_string(&collection.spec.options);
            lines.push(format!("  options: {}", options.map_err(|error| Error::internal(error.to_string()))?));
        }
        for segment in &collection.segments {
            lines.push(format!("  segment {}: {} rows", segment.id, segment.rows));
            lines.extend(
                segment.files.iter().map(|file| {
                    format!("    {} ({}, CRC-32C {:08x})", file.name, output::bytes(file.len), file.checksum)
                }),
            );
        }
    }
    Ok(Found {
        kind: "manifest",
        bytes: bytes.len() as u64,
        summary: format!(
            "version {}, owner {}, replica {}, {} collections",
            manifest.version,
            manifest.fence,
            manifest.replica,
            manifest.collections.len()
        ),
        lines,
        content: serde_json::to_value(&manifest).map_err(|error| Error::internal(error.to_string()))?,
    })
}

fn layout(bytes: &[u8]) -> Result<Found> {
    let layout = segment::describe(bytes)?;
    let filter_bytes = layout.filter.memory_bytes();
    let (mut lines, mut files) = (Vec::new(), Vec::new());
    for group in &layout.groups {
        let kind = match &group.kind {
            FileKind::Column(field) => format!("column {field:?}"),
            FileKind::Vector(field) => format!("vectors {field:?}"),
            kind => format!("{kind:?}").to_lowercase(),
        };
        let stored: u64 = group.blocks.iter().map(|block| u64::from(block.len)).sum();
        lines.push(format!(
            "{kind}: {}, {} rows in {} blocks of {} together",
            group.codec.as_str(),
            group.rows(),
            group.blocks.len(),
            output::bytes(stored)
        ));
        let columns = group.columns.iter().zip(&group.encodings);
        lines.extend(columns.clone().map(|(column, encoding)| match encoding {
            Encoding::Plain => format!("  {column}: plain"),
            Encoding::Dictionary(values) => format!("  {column}: dictionary of {} values", values.len()),
        }));
        files.push(json!({
            "kind": kind,
            "codec": group.codec.as_str(),
            "rows": group.rows(),
            "blocks": group.blocks.len(),
            "bytes": stored,
            "columns": columns.map(|(name, encoding)| json!({ "name": name, "encoding": encoding.as_str() })).collect::<Vec<_>>(),
        }));
    }
    let filter = if filter_bytes == 0 {
        "no filter".to_owned()
    } else {
        format!("a filter of {}", output::bytes(filter_bytes as u64))
    };
    lines.push(format!("versions: delta; keys: {} of {} rows, {filter}", layout.keys, layout.versions.len()));
    Ok(Found {
        kind: "layout",
        bytes: bytes.len() as u64,
        summary: format!(
            "where the blocks of {} files lie, versions of {} rows, {filter}",
            files.len(),
            layout.versions.len()
        ),
        lines,
        content: json!({
            "files": files,
            "rows": layout.versions.len(),
            "versions": "delta",
            "keys": layout.keys,
            "filterBytes": filter_bytes,
        }),
    })
}

fn log(bytes: &[u8]) -> Result<Found> {
    let number = |at: usize| bytes.get(at..at + 8).map(|eight| u64::from_le_bytes(eight.try_into().expect("8 bytes")));
    let (Some(collection), Some(file)) = (number(12), number(20)) else { return Err(Error::corrupt("cut short")) };
    let first = wal::first_lsn(bytes).unwrap_or(Lsn(0));
    let salvage = wal::salvage(bytes, CollectionId(collection), file, first, None)?;
    let mut lines: Vec<String> = salvage
        .frames
        .iter()
        .take(FRAMES_SHOWN)
        .map(|frame| {
            let stored = frame.end - frame.offset - wal::FRAME_HEADER_BYTES;
            format!(
                "byte {}: frame {}, {:?}, place {}, {} bytes ({stored} stored)",
                frame.offset,
                frame.lsn,
                frame.kind,
                frame.place,
                frame.payload.len()
            )
        })
        .collect();
    if salvage.frames.len() > FRAMES_SHOWN {
        lines.push(format!("… {} frames more; --json shows all", salvage.frames.len() - FRAMES_SHOWN));
    }
    lines.extend(
        salvage
            .damage
            .iter()
            .map(|damage| format!("byte {}: {} bytes are not whole: {}", damage.offset, damage.len, damage.what)),
    );
    let frames = salvage.frames.iter().map(|frame| {
        json!({
            "offset": frame.offset,
            "end": frame.end,
            "lsn": frame.lsn.0,
            "kind": format!("{:?}", frame.kind).to_lowercase(),
            "place": frame.place,
            "payloadBytes": frame.payload.len(),
        })
    });
    let damage = salvage
        .damage
        .iter()
        .map(|damage| json!({ "offset": damage.offset, "bytes": damage.len, "what": damage.what }));
    Ok(Found {
        kind: "log",
        bytes: bytes.len() as u64,
        summary: format!(
            "file {file} of collection {collection}, {} frames from {first}{}",
            salvage.frames.len(),
            if salvage.damage.is_empty() { "" } else { ", and bytes that are not whole" }
        ),
        content: json!({
            "collection": collection,
            "number": file,
            "frames": frames.collect::<Vec<_>>(),
            "damage": damage.collect::<Vec<_>>(),
        }),
        lines,
    })
}

/// Of which partition of a push stream a file has rows: `stream~ID~PARTITION~FIRST`.
fn partition_of(path: &Path) -> Option<u32> {
    let mut parts = path.file_name()?.to_str()?.strip_prefix("stream~")?.split('~').skip(1);
    parts.next()?.parse().ok()
}

/// Rows that were pushed: a log whose frames are pieces.
fn pushed(bytes: &[u8], partition: u32) -> Result<Found> {
    let number = |at: usize| bytes.get(at..at + 8).map(|eight| u64::from_le_bytes(eight.try_into().expect("8 bytes")));
    let (Some(stream), Some(file)) = (number(12), number(20)) else { return Err(Error::corrupt("cut short")) };
    let salvage = wal::salvage(bytes, CollectionId(stream), file, Lsn(1), None)?;
    let (mut lines, mut frames, mut next) = (vec![], vec![], file);
    let mut damage: Vec<(usize, usize, String)> =
        salvage.damage.iter().map(|one| (one.offset, one.len, one.what.to_string())).collect();
    for frame in &salvage.frames {
        let piece = match Piece::decode(&frame.payload) {
            Ok(piece) => piece,
            Err(error) => {
                damage.push((frame.offset, frame.end - frame.offset, error.message().to_owned()));
                continue;
            }
        };
        let end = piece.first + piece.rows.len() as u64;
        next = next.max(end);
        let keys = if piece.keyed.is_empty() { String::new() } else { format!(", {} keys", piece.keyed.len()) };
        lines.push(format!("byte {}: frame {}, rows {} to {end}{keys}", frame.offset, frame.lsn, piece.first));
        frames.push(json!({
            "offset": frame.offset,
            "end": frame.end,
            "lsn": frame.lsn.0,
            "first": piece.first,
            "rows": piece.rows.len(),
            "cameMs": piece.came_ms,
            "keys": piece.keyed.len(),
            "producers": piece.producers.count(),
        }));
    }
    let more = lines.len().saturating_sub(FRAMES_SHOWN);
    lines.truncate(FRAMES_SHOWN);
    if more > 0 {
        lines.push(format!("… {more} frames more; --json shows all"));
    }
    damage.sort_unstable();
    lines.extend(damage.iter().map(|(offset, len, what)| format!("byte {offset}: {len} bytes are not whole: {what}")));
    Ok(Found {
        kind: "pushed rows",
        bytes: bytes.len() as u64,
        summary: format!(
            "partition {partition} of stream {stream:016x}, rows {file} to {next} in {} frames{}",
            frames.len(),
            if damage.is_empty() { "" } else { ", and bytes that are not whole" }
        ),
        lines,
        content: json!({
            "stream": format!("{stream:016x}"),
            "partition": partition,
            "first": file,
            "next": next,
            "frames": frames,
            "damage": damage.iter().map(|(offset, len, what)| json!({ "offset": offset, "bytes": len, "what": what })).collect::<Vec<_>>(),
        }),
    })
}

fn push_stream(bytes: &[u8]) -> Result<Found> {
    let definition = PushStreamDefinition::decode(bytes)?;
    let mut lines = vec![];
    for past in &definition.past {
        let range = format!("partitions {} to {} of before", past.first, past.first + past.count);
        lines.push(match &past.ends {
            Some(ends) => format!("{range}, there no more, which ended at {ends:?}"),
            None => range,
        });
    }
    lines.extend(
        definition.readers.iter().map(|(reader, from)| format!("reader {reader:?}: rows are kept from {from:?}")),
    );
    Ok(Found {
        kind: "push stream",
        bytes: bytes.len() as u64,
        summary: format!(
            "{:?}, id {:016x}, {} partitions, {} readers",
            definition.name,
            definition.id,
            definition.spec.partitions,
            definition.readers.len()
        ),
        lines,
        content: serde_json::to_value(&definition).map_err(|error| Error::internal(error.to_string()))?,
    })
}

fn push_keys(bytes: &[u8]) -> Result<Found> {
    let keys = PartitionKeys::decode(bytes)?;
    let counts: Vec<usize> = keys.producers.iter().map(crate::stream::Producers::count).collect();
    let range = keys.range();
    Ok(Found {
        kind: "push keys",
        bytes: bytes.len() as u64,
        summary: format!("of partitions {} to {}, which are there no more", range.start, range.end),
        lines: range
            .clone()
            .zip(&counts)
            .map(|(partition, count)| format!("partition {partition}: {count} producers"))
            .collect(),
        content: json!({ "first": range.start, "producers": counts }),
    })
}

fn archive(bytes: &Bytes) -> Result<Found> {
    let (described, _) = archive::decode(bytes)?;
    let inner = manifest(&described.encode())?;
    Ok(Found { kind: "archive", bytes: bytes.len() as u64, ..inner })
}

fn arrow(bytes: &Bytes) -> Result<Found> {
    check_ipc(&mut Cursor::new(bytes))?;
    let wrong = |error: arrow_schema::ArrowError| Error::corrupt(error.to_string());
    let reader = FileReader::try_new(Cursor::new(bytes.clone()), None).map_err(wrong)?;
    let fields: Vec<(String, String)> =
        reader.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect();
    let (mut blocks, mut rows) = (0, 0);
    for batch in reader {
        rows += batch.map_err(wrong)?.num_rows();
        blocks += 1;
    }
    Ok(Found {
        kind: "arrow",
        bytes: bytes.len() as u64,
        summary: format!("{rows} rows in {blocks} blocks, {} columns", fields.len()),
        lines: fields.iter().map(|(name, kind)| format!("{name}: {kind}")).collect(),
        content: json!({
            "rows": rows,
            "blocks": blocks,
            "columns": fields.iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect::<Vec<_>>(),
        }),
    })
}
