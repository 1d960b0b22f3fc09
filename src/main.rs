//! The `keyferry` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(keyferry::cli::main(&std::env::args_os().collect::<Vec<_>>()))
}
