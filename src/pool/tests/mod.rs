//! The pool as a caller sees it, on a clock that is set by hand.

mod basics;
mod properties;
mod regressions;
mod support;
mod world;
