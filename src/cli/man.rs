//! `man`: the manual, made from the same tree as the help.

use clap::CommandFactory as _;

use super::args::{Cli, Man};
use super::context::Context;
use super::output::{Failure, Outcome};

/// `keyferry man`
pub fn man(command: &Man, context: &mut Context) -> Outcome {
    let tree = Cli::command();
    let unwritable = |error: std::io::Error| Failure::new(format!("the manual cannot be written: {error}"));
    match &command.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).map_err(unwritable)?;
            clap_mangen::generate_to(tree, dir).map_err(unwritable)?;
            context.output.done(&format!("the pages are in {}", dir.display()));
            Ok(())
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(tree).render(&mut page).map_err(unwritable)?;
            context.output.data(&String::from_utf8_lossy(&page))
        }
    }
}
