//! The life of an exchange, from the accepted connection to the emitted record.
//!
//! Invariant: every request takes the one pipeline in `exchange`, whichever listener it came in on.

mod account;
mod answer;
mod arrival;
mod attempt;
mod bucket;
mod carried;
mod carry;
mod companion;
mod delivery;
mod exchange;
mod facts;
mod fallback;
mod foreign;
mod gate;
mod guesses;
mod heads;
mod limits;
mod listen;
mod made;
mod malformed;
mod misplaced;
mod peer;
mod program;
mod received;
mod respond;
mod state;
mod stream;
mod target;
mod transparent;
mod tunnel;
mod usage;
mod watch;
mod websocket;

pub use account::{Books, Counts, Totals};
pub use bucket::Buckets;
pub use companion::{Way, lead};
pub use delivery::Delivery;
pub use guesses::Guesses;
pub use limits::Limits;
pub use listen::{Listener, ListenerKind, serve};
pub use peer::Resident;
pub use respond::Answer;
pub use state::{Fallback, Shared, View};
pub use target::method_is_refused;
