//! The `keyferry` program.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(keyferry::cli::main(&std::env::args_os().collect::<Vec<_>>()))
}
