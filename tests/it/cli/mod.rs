//! The command line, as people and scripts meet it.

mod agents;
mod basics;
mod certificates;
mod config;
mod environment;
mod files;
mod guard;
mod import;
mod leaks;
mod lifecycle;
mod run;
mod secrets;
mod terminal;
mod vault;
mod why;
