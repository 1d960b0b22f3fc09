//! Keyferry carries the keys, so that agents don't have to.
//!
//! A sidecar proxy: agents call providers through it and hold placeholders; it terminates TLS with its own
//! authority, opens the right credential in memory, puts it where the provider wants it, forwards over verified TLS,
//! moves to another profile when one runs out, and takes secrets out of what comes back.
//!
//! # The life of an exchange
//!
//! A request becomes a chain of values. Each can only be made from the one before, and the last is the only thing
//! that can leave.
//!
//! ```text
//! proxy::listen::serve              a permit, then an accepted connection
//!   proxy::tunnel::connect          CONNECT authority → Origin              | 400 403 407 502
//!     tls::accept                   a leaf for that origin; the server name agrees, or the connection ends
//!   proxy::exchange::run            a request head
//!     agent::Agents::identify       fields                → Agent           | 407
//!     proxy::target::read           target, tunnel        → Origin, Path    | 400 421 501
//!     policy::Policy::decide        Agent, Origin, method → Permit          | 403 502
//!     provider::strip               head, Permit          → Stripped        | 400
//!   proxy::carry::run               one profile after another
//!     pool::Pools::first_ready      profiles, now         → a profile       | 429
//!     upstream::Upstream::channel   Origin                → Channel with Verified | 502 504
//!     telemetry::Audit::intent      who, what, where      → Witness         | 503
//!     source::Credentials::open     profile               → Credential      | 503
//!     provider::inject              all of these          → Injected
//!     upstream::Channel::send       Injected              → response
//!     provider::outcome::judge      head, first bytes     → Outcome, which pool::Pools::settle takes
//!   proxy::answer::deliver          fields and body scrubbed, streamed
//!     proxy::account::Account       emitted once, when the body has ended or was dropped
//! ```
//!
//! # The floors
//!
//! A room imports from lower floors only: `main` · `cli` · `app` · `proxy admin launch` · `config` · `pool source` ·
//! `upstream` · `provider` · `policy` · `agent vault tls telemetry` · `scrub` · and below them the values that
//! everybody speaks of. `tests/it/architecture.rs` holds it.

pub mod clock;
pub mod code;
pub mod home;
pub mod id;
pub mod message;
pub mod placeholder;
pub mod secret;
pub mod spawn;
pub mod sys;

pub mod scrub;

pub mod agent;
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
