use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{DataDirectory, output};
use crate::base::{Error, ErrorKind, Result};
use crate::db::{self, RepairReport};
use crate::storage::FileStorage;

/// Say what is damaged in a store, and with --write save what is whole
///
/// Works on a store that does not open. Damaged writes in the log are left out, and so are segments whose rows are damaged;
/// everything else is kept. A manifest that cannot be read, nor its copy, is made anew from segments and logs. Damaged files stay in the directory under names that start with `aside~`. A store that syncs gets
/// what it lost from its server again.
#[derive(Args)]
#[command(after_help = "\
Examples:
  eddy repair ./eddy-data                   say what is wrong and what would be lost; nothing is changed
  eddy repair ./eddy-data --write           make it a store that opens
Exit codes: 0 when nothing is damaged or the repair was written, 1 otherwise.")]
pub(super) struct Repair {
    /// The directory of the store; the same as --data.
    #[arg(value_name = "DIR", conflicts_with = "data")]
    store: Option<PathBuf>,

    #[command(flatten)]
    directory: DataDirectory,

    /// Write the repair; without it, nothing is changed.
    #[arg(long)]
    write: bool,

    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(command: Repair) -> Result<()> {
    let directory = command.store.unwrap_or(command.directory.data);
    if !directory.is_dir() {
        return Err(Error::not_found(format!("there is no store in {}", directory.display())));
    }
    let storage = FileStorage::open(&directory)?;
    let report = db::repair(&storage, command.write).await?;
    if command.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    if report.findings.is_empty() || report.written {
        return Ok(());
    }
    let count = report.findings.len();
    Err(Error::new(ErrorKind::Corrupt, format!("damage in {count} place(s); nothing was changed: --write repairs it")))
}

fn print(report: &RepairReport) -> Result<()> {
    if report.findings.is_empty() {
        return output::line("Nothing is damaged.");
    }
    for finding in &report.findings {
        let place = match finding.bytes {
            0 => String::new(),
            bytes => format!(": bytes {} to {}", finding.offset, finding.offset + bytes),
        };
        output::line(&format!("{}{place}: {}; {}", finding.file, finding.what, finding.loss))?;
    }
    if report.written {
        for (file, aside) in &report.set_aside {
            output::line(&format!("kept {file} as {aside}"))?;
        }
        output::line("Repaired.")?;
    }
    Ok(())
}

fn print_json(report: &RepairReport) -> Result<()> {
    let findings = report.findings.iter().map(|finding| {
        json!({
            "file": finding.file,
            "offset": finding.offset,
            "bytes": finding.bytes,
            "what": finding.what,
            "loss": finding.loss.to_string(),
        })
    });
    let aside = report.set_aside.iter().map(|(file, aside)| json!({ "file": file, "keptAs": aside }));
    let report = json!({
        "findings": findings.collect::<Vec<_>>(),
        "setAside": aside.collect::<Vec<_>>(),
        "written": report.written,
    });
    output::line(&serde_json::to_string_pretty(&report).expect("JSON values are written"))
}
