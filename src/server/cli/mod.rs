//! The command line. Exit codes: 0 for success, 1 for a failure, 2 for a command that is written wrongly. What a command
//! finds goes to standard output, everything else to standard error.

mod backup;
mod evaluate;
mod export;
mod import;
mod info;
mod inspect;
mod output;
mod remote;
mod repair;
mod search;
mod serve;
mod upkeep;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::base::Result;
use crate::server::store::Place;

const EXAMPLES: &str = "\
Examples:
  eddy import --data ./eddy-data notes notes.jsonl        make a collection from a file, or add the file to it
  eddy import --data ./eddy-data films films.tsv --vectors films.npy --metric IP
  eddy info --data ./eddy-data                            what is there
  eddy compact --data ./eddy-data notes                   merge its segments, and let go of what is dead
  eddy repair ./eddy-data                                 what is damaged, and what of it can be saved
  eddy search --data ./eddy-data notes --vector-file query.json --filter 'done == false'
  eddy serve --data ./eddy-data --console www/dist        browsers connect, and replicas sync

`eddy help COMMAND` says more about each command, with examples.
Exit codes: 0 success, 1 failure, 2 wrong usage.";

/// The vector store that lives where the user is.
#[derive(Parser)]
#[command(name = "eddy", version, about, after_help = EXAMPLES, arg_required_else_help = true, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// What is logged to standard error: a level (error, warn, info, debug, trace), or levels by module such as
    /// `warn,eddydb=debug`. [default: $RUST_LOG, else info for `serve` and warn for the others]
    #[arg(long, global = true, env = "EDDY_LOG", value_name = "FILTER", hide_env_values = true)]
    log: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::Serve),
    Import(import::Import),
    Search(search::Search),
    Evaluate(evaluate::Evaluate),
    Info(info::Info),
    Repair(repair::Repair),
    Export(export::Export),
    Inspect(inspect::Inspect),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Stats(upkeep::Stats),
    Memory(upkeep::Memory),
    Flush(upkeep::Flush),
    Compact(upkeep::Compact),
}

/// Where the store is.
#[derive(Args)]
struct DataDirectory {
    /// The directory of the store. One process at a time has it open.
    #[arg(long, env = "EDDY_DATA", value_name = "DIR", default_value = "./eddy-data", hide_env_values = true)]
    data: PathBuf,

    /// A bucket in place of a directory, such as s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX. Keys and endpoints
    /// come from the environment, as the provider's own tools name them.
    #[arg(long, env = "EDDY_STORAGE", value_name = "URL", hide_env_values = true)]
    storage: Option<String>,
}

impl DataDirectory {
    fn place(&self) -> Place {
        match &self.storage {
            Some(url) => Place::Bucket(url.clone()),
            None => Place::Directory(self.data.clone()),
        }
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    // Prints help and usage errors itself, and ends with 0 or 2.
    let cli = Cli::parse();
    crate::server::import::end_at_panics();
    if let Err(message) = start_log(&cli) {
        output::error(&format!("error: --log: {message}"));
        return ExitCode::from(2);
    }
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| crate::base::Error::internal(format!("starting the runtime: {error}")))
        .and_then(|runtime| runtime.block_on(dispatch(cli.command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let place = error.position().map_or_else(String::new, |at| format!(" (at character {})", at + 1));
            output::error(&format!("error: {}: {}{place}", error.kind().as_str(), one_line(error.message())));
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Serve(command) => serve::run(command).await,
        Command::Import(command) => import::run(command).await,
        Command::Search(command) => search::run(command).await,
        Command::Evaluate(command) => evaluate::run(command).await,
        Command::Info(command) => info::run(command).await,
        Command::Repair(command) => repair::run(command).await,
        Command::Export(command) => export::run(command).await,
        Command::Inspect(command) => inspect::run(&command),
        Command::Backup(command) => backup::backup(command).await,
        Command::Restore(command) => backup::restore(command).await,
        Command::Stats(command) => upkeep::stats(command).await,
        Command::Memory(command) => upkeep::memory(command).await,
        Command::Flush(command) => upkeep::flush(command).await,
        Command::Compact(command) => upkeep::compact(command).await,
    }
}

fn start_log(cli: &Cli) -> Result<(), String> {
    let usual = if matches!(cli.command, Command::Serve(_)) { "warn,eddydb=info" } else { "warn" };
    let filter = match &cli.log {
        Some(filter) => filter.clone(),
        None => std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty()).unwrap_or_else(|| usual.to_owned()),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|error| format!("{filter:?}: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    Ok(())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
