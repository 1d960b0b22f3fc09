//! Which profile now.
