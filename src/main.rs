//! The command `eddy`.

fn main() -> std::process::ExitCode {
    eddydb::server::cli::run()
}
