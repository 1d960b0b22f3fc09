//! Keyferry carries the keys, so that agents don't have to.

pub mod clock;
pub mod code;
pub mod home;
pub mod id;
pub mod message;
pub mod placeholder;
pub mod secret;
pub mod spawn;

pub mod agent;
pub mod scrub;
pub mod telemetry;
pub mod tls;
pub mod vault;

pub mod policy;

pub mod provider;

pub mod upstream;

pub mod pool;
pub mod source;

pub mod config;

pub mod admin;
pub mod launch;
pub mod proxy;

pub mod app;

pub mod cli;
