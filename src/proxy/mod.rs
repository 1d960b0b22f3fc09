//! The life of an exchange, from the accepted connection to the emitted record.
//!
//! Invariant: every request takes the one pipeline in [`exchange`], whichever listener it came in on.

mod account;
mod answer;
mod carry;
mod delivery;
mod exchange;
mod limits;
mod listen;
mod respond;
mod state;
mod target;
mod tunnel;

pub use account::{Books, Counts, Totals};
pub use delivery::Delivery;
pub use limits::Limits;
pub use listen::{Listener, ListenerKind, serve};
pub use respond::Answer;
pub use state::{Shared, View};
